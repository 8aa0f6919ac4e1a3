//! The configuration's bytes: one slot of two on every disk (rule C1).
//!
//! Owns the slot's header and the frame of its sections. Invariants: a [`Configuration`] that was decoded here passed [`check`], so its parts name
//! each other and fit together; whatever was encoded can be decoded. The payload is a row of sections (tag, flags, length), so later software
//! may add one: a section not known here is skipped if its writer allowed that, else the whole slot is refused as too new. Which slot to
//! write and which configuration to believe is left to `commit` and `quorum`.

mod backups;
mod check;
mod sections;

use thiserror::Error;

pub use self::backups::CHAIN_MAX;
pub use self::check::{Invalid, WHY_MAX, check, name_is_valid};
use super::codec::{CRC_AT, CodecError, Reader, Writer, is_blank, is_sealed, seal};
use crate::buf::Buf;
use crate::config::Configuration;
use crate::ids::{BLOCK_SIZE, Uuid};

/// First bytes of a configuration slot.
pub const MAGIC: [u8; 8] = *b"FstlConf";
/// Version of the configuration's encoding.
pub const VERSION: u32 = 1;
/// Bytes of the slot's header.
pub const CONFIG_HEADER: usize = 64;
/// Bytes of a section's header.
pub const SECTION_HEADER: usize = 8;
/// Known sections.
const SECTIONS: usize = 10;
/// Flag of a section: software that does not know it may go on without it.
pub const SECTION_MAY_IGNORE: u16 = 1;

/// A section's tag. Each stands there once; only the last four may be missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Section {
    /// Name, commit time, `inject` allowed.
    Array = 1,
    /// Runs of the array (rule C5).
    History = 2,
    /// Lists of generations that did not count (rule C2).
    Uncounted = 3,
    /// Disks.
    Disks = 4,
    /// Groups.
    Groups = 5,
    /// Volumes.
    Volumes = 6,
    /// Health of the disks; software that does not know it may go on without it.
    Health = 7,
    /// Failure avoidance; missing where nothing was ever set up.
    Backups = 8,
    /// Replaced disks whose test has not ended; missing where there is none. Software that does not know it tests none of them.
    Retired = 9,
    /// Replaced disks that failed their test; missing where there is none. Software that does not know it forgets why.
    FailedTests = 10,
}

/// Why a configuration was not encoded.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum EncodeError {
    /// It needs more bytes than a slot has.
    #[error(
        "the configuration needs {needed} bytes, a slot has {slot}: too many disks, volumes or extents"
    )]
    TooLarge {
        /// Bytes needed.
        needed: usize,
        /// Bytes of a slot.
        slot: u64,
    },
    /// It contradicts itself.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// Why a slot holds no configuration that can be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ConfigError {
    /// The slot was never written: its header is all zero.
    #[error("the configuration slot was never written")]
    Blank,
    /// Torn, damaged or foreign.
    #[error("the configuration slot is torn or damaged")]
    Damaged,
    /// Written by newer software.
    #[error("the configuration was written by a newer version: {0}")]
    TooNew(String),
    /// Its checksum fits, yet its fields cannot be read.
    #[error("the configuration cannot be read: {0}")]
    Unreadable(#[from] CodecError),
    /// Its checksum fits, yet it says what cannot be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
}

/// The bytes of `config` for a slot of `slot_len` bytes, a whole number of blocks; what is behind them in the slot does not matter.
///
/// # Errors
/// If it is invalid (see [`check`]) or too large for the slot; then nothing may be written.
pub fn encode(config: &Configuration, slot_len: u64) -> Result<Buf, EncodeError> {
    check(config)?;
    let mut payload = Writer::new();
    for (tag, body) in sections::write(config) {
        let len = u32::try_from(body.len()).expect("a configuration is far below 4 GiB");
        if tag == Section::Backups && config.backups.is_empty() {
            continue; // Software that does not know it can go on.
        }
        if tag == Section::Retired && config.retired.is_empty() {
            continue;
        }
        if tag == Section::FailedTests && config.failed_tests.is_empty() {
            continue;
        }
        let ignorable = matches!(tag, Section::Health | Section::Retired | Section::FailedTests);
        let flags = if ignorable { SECTION_MAY_IGNORE } else { 0 };
        payload.u16(tag as u16).u16(flags).u32(len).bytes(&body);
    }
    let buf = frame(config.array, config.generation, &payload.finish());
    if buf.len() as u64 > slot_len {
        return Err(EncodeError::TooLarge { needed: buf.len(), slot: slot_len });
    }
    Ok(buf)
}

/// A payload behind the header of a slot, up to a whole block.
pub fn frame(array: Uuid, generation: u64, payload: &[u8]) -> Buf {
    let len = u32::try_from(payload.len()).expect("a configuration is far below 4 GiB");
    let mut header = Writer::new();
    header.bytes(&MAGIC).u32(VERSION).u32(0).bytes(&array.0).u64(generation).u32(len);
    let header = header.finish();
    let used = CONFIG_HEADER + payload.len();
    let mut buf = Buf::zeroed(used.next_multiple_of(BLOCK_SIZE as usize));
    let bytes = buf.bytes_mut();
    bytes[..header.len()].copy_from_slice(&header);
    bytes[CONFIG_HEADER..used].copy_from_slice(payload);
    seal(&mut bytes[..used], CRC_AT);
    buf
}

/// Bytes that the record takes which begins with `first`, a slot's first block: a whole number of blocks, at least one, at most `slot_len`. What stands
/// behind them need not be readable.
#[must_use]
pub fn record_len(first: &[u8], slot_len: u64) -> u64 {
    let len = read_header(first).map_or(0, |header| header.payload_len as u64);
    (CONFIG_HEADER as u64 + len).next_multiple_of(BLOCK_SIZE).min(slot_len)
}

/// What the header of a slot says; nothing vouches for it before the record's checksum does.
struct Header {
    version: u32,
    array: Uuid,
    generation: u64,
    payload_len: usize,
}

fn read_header(slot: &[u8]) -> Result<Header, ConfigError> {
    let header = slot.get(..CONFIG_HEADER).ok_or(ConfigError::Damaged)?;
    if is_blank(header) {
        return Err(ConfigError::Blank);
    }
    let mut reader = Reader::new(header);
    let (magic, version) = (reader.array()?, reader.u32()?);
    reader.u32()?;
    let (array, generation, payload_len) =
        (Uuid(reader.array()?), reader.u64()?, reader.u32()? as usize);
    if magic != MAGIC {
        return Err(ConfigError::Damaged);
    }
    Ok(Header { version, array, generation, payload_len })
}

/// The configuration in a slot's bytes.
///
/// # Errors
/// Tells a blank slot, a torn or damaged one, one of newer software and one that cannot be true apart.
pub fn decode(slot: &[u8]) -> Result<Configuration, ConfigError> {
    let Header { version, array, generation, payload_len } = read_header(slot)?;
    let record = CONFIG_HEADER.checked_add(payload_len).and_then(|end| slot.get(..end));
    let record = record.filter(|record| is_sealed(record, CRC_AT)).ok_or(ConfigError::Damaged)?;
    if version != VERSION {
        return Err(ConfigError::TooNew(format!("version {version}, known is {VERSION}")));
    }
    let bodies = split(&record[CONFIG_HEADER..])?;
    let config = sections::read(array, generation, &bodies)?;
    check(&config)?;
    Ok(config)
}

/// The known sections of a payload, in the order of their tags.
fn split(payload: &[u8]) -> Result<[&[u8]; SECTIONS], ConfigError> {
    let mut found: [Option<&[u8]>; SECTIONS] = [None; SECTIONS];
    let mut reader = Reader::new(payload);
    while reader.left() > 0 {
        let (tag, flags, len) = (reader.u16()?, reader.u16()?, reader.u32()? as usize);
        let body = reader.bytes(len)?;
        let place = usize::from(tag).checked_sub(1).and_then(|at| found.get_mut(at));
        match place {
            Some(Some(_)) => return Err(CodecError::Value("section: it stands twice").into()),
            Some(place) => *place = Some(body),
            None if flags & SECTION_MAY_IGNORE != 0 => {}
            None => return Err(ConfigError::TooNew(format!("section {tag} is not known"))),
        }
    }
    let optional = [Section::Health, Section::Backups, Section::Retired, Section::FailedTests];
    for optional in optional {
        let body = &mut found[optional as usize - 1];
        *body = body.or(Some(&[]));
    }
    let mut bodies = [&[][..]; SECTIONS];
    for (body, found) in bodies.iter_mut().zip(found) {
        *body = found.ok_or(CodecError::Value("section: one is not there"))?;
    }
    Ok(bodies)
}

#[cfg(test)]
mod tests;
