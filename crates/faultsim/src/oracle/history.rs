//! The record of host operations, and words for what a sector holds.
//!
//! Owns [`Operation`] and its wording in failure reports. What is right or wrong is the registers' matter.

use std::fmt;
use std::ops::Range;

use crate::medium::SECTOR;
use crate::pattern;
use crate::register::{Register, Tick};

/// What a host asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// Read `len` bytes.
    Read {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Write `len` bytes of this operation's pattern.
    Write {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Durable at its answer.
        fua: bool,
    },
    /// TRIM or WRITE_ZEROES.
    Zero {
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Durable at its answer.
        fua: bool,
    },
    /// Flush the volume.
    Flush,
}

/// How an operation was answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// With success.
    Done,
    /// With an error.
    Failed,
}

/// One host operation.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its number.
    pub number: u64,
    /// Run of the machine it was submitted in, from 0.
    pub epoch: u32,
    /// The connection.
    pub connection: u32,
    /// The volume.
    pub volume: String,
    /// What was asked.
    pub request: Request,
    /// When it was submitted.
    pub start: Tick,
    /// When and how it was answered, if it was.
    pub end: Option<(Tick, Outcome)>,
}

impl Operation {
    pub(super) fn new(
        number: u64,
        epoch: u32,
        connection: u32,
        volume: &str,
        request: Request,
        start: Tick,
    ) -> Self {
        Self { number, epoch, connection, volume: volume.to_owned(), request, start, end: None }
    }

    /// The zeroes that every volume begins with.
    pub(super) fn creation() -> Self {
        let request = Request::Zero { offset: 0, len: 0, fua: true };
        Self { end: Some((0, Outcome::Done)), ..Self::new(0, 0, 0, "", request, 0) }
    }

    /// Bytes that it covers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self.request {
            Request::Read { len, .. } | Request::Write { len, .. } | Request::Zero { len, .. } => {
                len
            }
            Request::Flush => 0,
        }
    }

    /// Whether the operation concerns the bytes of `range`; a flush concerns all.
    #[must_use]
    pub fn touches(&self, range: Range<u64>) -> bool {
        match self.request {
            Request::Read { offset, len }
            | Request::Write { offset, len, .. }
            | Request::Zero { offset, len, .. } => offset < range.end && range.start < offset + len,
            Request::Flush => true,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "#{} epoch {} conn {} {} ",
            self.number, self.epoch, self.connection, self.volume
        )?;
        let suffix = |fua| if fua { " fua" } else { "" };
        match self.request {
            Request::Read { offset, len } => write!(f, "read {offset}+{len}")?,
            Request::Write { offset, len, fua } => {
                write!(f, "write {offset}+{len}{}", suffix(fua))?
            }
            Request::Zero { offset, len, fua } => write!(f, "zero {offset}+{len}{}", suffix(fua))?,
            Request::Flush => f.write_str("flush")?,
        }
        match self.end {
            None => write!(f, " at {}, never answered", self.start),
            Some((end, Outcome::Done)) => write!(f, " from {} to {end}", self.start),
            Some((end, Outcome::Failed)) => write!(f, " from {} to {end}, failed", self.start),
        }
    }
}

/// The versions that a read begun at `from` may see, in words.
pub(super) fn versions_in_words(sector: &[(u16, Register)], from: Tick) -> String {
    let mut begin = 0;
    let mut words = Vec::new();
    for (end, register) in sector {
        let names: Vec<String> = register
            .readable(from)
            .map(|v| match (v.op, v.zero) {
                (0, _) => "zeroes of the beginning".to_owned(),
                (op, true) => format!("zeroes of #{op}"),
                (op, false) => format!("write #{op}"),
            })
            .collect();
        let names = names.join(" or ");
        if sector.len() == 1 {
            return names;
        }
        words.push(format!("bytes {begin}..{end}: {names}"));
        begin = *end;
    }
    words.join(", ")
}

/// What `seen`, read at byte `at`, says of itself: each run of words of one origin.
pub(super) fn content_in_words(
    at: u64,
    seen: &[u8],
    writes: u64,
    volumes: u8,
    name: impl Fn(u8) -> String,
) -> String {
    let mut runs: Vec<String> = Vec::new();
    let end = at + seen.len() as u64;
    let mut pos = at;
    while pos < end {
        let stop = (pos / 8 * 8 + 8).min(end);
        let word = &seen[(pos - at) as usize..(stop - at) as usize];
        let text = match pattern::origin(pos, word, writes, volumes) {
            _ if word.iter().all(|&b| b == 0) => "zeroes".to_owned(),
            Some(o) if o.word == pos / 8 => format!("write #{} of {}", o.write, name(o.volume)),
            Some(o) => format!("write #{} of sector {} of {}", o.write, o.sector(), name(o.volume)),
            None if word.len() < 8 => "part of a word".to_owned(),
            None => "bytes of nobody".to_owned(),
        };
        if runs.last() != Some(&text) {
            runs.push(text);
        }
        pos = stop;
    }
    if runs.len() > 6 {
        runs.truncate(6);
        runs.push("...".to_owned());
    }
    let torn = if runs.len() > 1 && seen.len() as u64 <= SECTOR { "a mixture: " } else { "" };
    format!("{torn}{}", runs.join(", then "))
}
