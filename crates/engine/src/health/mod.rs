//! Health: what a disk's errors mean (table T3), decided by pure functions.
//!
//! Owns error classes, the leaky bucket of each disk and the policy that weighs them. Invariants: an event fills the bucket by the class's
//! weight, which is one threshold's share of it, so that a threshold of 20 means twenty such errors at once; a bucket only leaks with
//! running time, never while the array is down; nothing here reads a clock or a disk. Comparing latencies is `slow`'s matter, telling a
//! path from a disk `path`'s, judging a group's members together `judge`'s.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words;

mod by_class;
mod judge;
mod path;
mod slow;

pub use judge::{Finding, Member, Verdict, brake, judge};
pub use path::{Paths, Settled};
pub use slow::{Latencies, Sitting, SizeClass, is_slow};

/// A full bucket: the level at which a disk is ailing, in millionths.
pub const FULL: u64 = 1_000_000;
/// Past this level a disk is watched, and two watched members of a group lower each other's threshold.
pub const LOWER_MARK: u64 = FULL / 2;
/// Fraction of a full bucket that leaks in a day where nothing else was said, in percent.
pub const LEAK_PERCENT: u32 = 10;
/// Most that may be set to leak in a day, in percent.
pub const LEAK_PERCENT_MAX: u32 = 10_000;
/// Largest threshold of a class.
pub const THRESHOLD_MAX: u32 = 1_000_000;
/// Avoidances under way at once in an array where nothing else was said.
pub const AT_ONCE: u32 = 2;

/// A level in percent of a full bucket, for people.
#[must_use]
pub fn percent(level: u64) -> f64 {
    level as f64 * 100.0 / FULL as f64
}

const DAY_NS: u128 = 86_400_000_000_000;

/// What kind of error a disk made; the columns of T3.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorClass {
    /// A read error whose data was had from elsewhere and written back.
    RecoveredRead,
    /// A read error that nothing could answer.
    UnrecoveredRead,
    /// A failed write or flush.
    WriteError,
    /// A request that outlived its time limit.
    Timeout,
    /// Sat out of reads because it was much slower than its peers.
    Slow,
    /// A block that did not match its checksum.
    Checksum,
    /// The way to the disk failed, not its medium.
    Transport,
    /// The disk itself says that it will fail.
    Smart,
}

impl ErrorClass {
    /// All classes in the order of T3's columns.
    pub const ALL: [Self; 8] = [
        Self::RecoveredRead,
        Self::UnrecoveredRead,
        Self::WriteError,
        Self::Timeout,
        Self::Slow,
        Self::Checksum,
        Self::Transport,
        Self::Smart,
    ];

    /// Errors at once that make a disk ailing, where nothing else was said.
    #[must_use]
    pub fn default_threshold(self) -> u32 {
        match self {
            Self::RecoveredRead => 20,
            Self::UnrecoveredRead => 5,
            Self::WriteError | Self::Smart => 1,
            Self::Timeout | Self::Slow => 5,
            Self::Checksum => 10,
            Self::Transport => 50,
        }
    }

    /// The word for it on the command line and in tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::RecoveredRead => "recovered-read",
            Self::UnrecoveredRead => "unrecovered-read",
            Self::WriteError => "write-error",
            Self::Timeout => "timeout",
            Self::Slow => "slow",
            Self::Checksum => "checksum",
            Self::Transport => "transport",
            Self::Smart => "smart",
        }
    }
}

/// What a threshold means, as it is told when it is set.
#[must_use]
pub fn threshold_words(threshold: u32, class: ErrorClass) -> String {
    let errors = words::counted(threshold.into(), "error");
    let make = if threshold == 1 { "makes" } else { "at once make" };
    format!("{errors} of class {class} {make} a disk ailing from now on")
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// What is done about an ailing disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It is copied to a spare by itself.
    #[default]
    Auto,
    /// Only told.
    Advise,
}

/// How errors are weighed and what is done about them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// What is done.
    pub mode: Mode,
    /// Errors at once, of each class in T3's order, that make a disk ailing; told by the names of the classes.
    #[serde(with = "by_class")]
    pub thresholds: [u32; 8],
    /// Percent of a full bucket that leaks in a day.
    pub leak_percent: u32,
    /// Avoidances under way at once.
    pub at_once: u32,
    /// The shield of a group stays up, or comes up, also where there is no spare to copy its ailing disk to.
    #[serde(default)]
    pub shelter: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            thresholds: ErrorClass::ALL.map(ErrorClass::default_threshold),
            leak_percent: LEAK_PERCENT,
            at_once: AT_ONCE,
            shelter: false,
        }
    }
}

impl Policy {
    /// How much one error of `class` fills a bucket.
    #[must_use]
    pub fn weight(&self, class: ErrorClass) -> u64 {
        // Rounded up, so that exactly as many errors as the threshold says fill the bucket.
        FULL.div_ceil(u64::from(self.thresholds[class as usize].max(1)))
    }

    /// Sets one class's threshold.
    ///
    /// # Errors
    /// Words for a threshold that cannot be meant.
    pub fn set_threshold(&mut self, class: ErrorClass, threshold: u32) -> Result<(), String> {
        if !(1..=THRESHOLD_MAX).contains(&threshold) {
            return Err(format!(
                "a threshold of {threshold} for {class}: it is 1 to {THRESHOLD_MAX} errors"
            ));
        }
        self.thresholds[class as usize] = threshold;
        Ok(())
    }
}

/// What one disk did so far, over the array's life or since it was cleared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Record {
    /// Errors of each class in T3's order.
    pub counts: [u64; 8],
    /// Level of the bucket in millionths; kept below twice [`FULL`].
    pub level: u64,
    /// Part of a millionth leaked and not yet taken off, in units of a day of nanoseconds times percent.
    rest: u128,
}

impl Record {
    /// A record as it was kept.
    #[must_use]
    pub fn new(counts: [u64; 8], level: u64) -> Self {
        Self { counts, level: level.min(2 * FULL), rest: 0 }
    }

    /// Counts `n` errors of a class and fills the bucket by them.
    pub fn add(&mut self, policy: &Policy, class: ErrorClass, n: u64) {
        self.count(class, n);
        self.fill(policy, class, n);
    }

    /// Counts `n` errors of a class that are not judged, or not yet.
    pub fn count(&mut self, class: ErrorClass, n: u64) {
        let count = &mut self.counts[class as usize];
        *count = count.saturating_add(n);
    }

    /// Fills the bucket by `n` errors of a class that were counted before.
    pub fn fill(&mut self, policy: &Policy, class: ErrorClass, n: u64) {
        let filled = policy.weight(class).saturating_mul(n);
        self.level = self.level.saturating_add(filled).min(2 * FULL);
    }

    /// Lets `elapsed_ns` of running time leak. Nothing is lost to rounding, however short the steps are.
    pub fn leak(&mut self, policy: &Policy, elapsed_ns: u64) {
        if self.level == 0 {
            self.rest = 0;
            return;
        }
        let unit = DAY_NS * 100;
        self.rest += u128::from(FULL) * u128::from(policy.leak_percent) * u128::from(elapsed_ns);
        self.level = self.level.saturating_sub((self.rest / unit) as u64);
        self.rest %= unit;
    }

    /// Whether there is anything to tell.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.level == 0 && self.counts == [0; 8]
    }

    /// The counts in words: `3 recovered-read, 1 timeout`.
    #[must_use]
    pub fn words(&self) -> String {
        let some: Vec<String> = ErrorClass::ALL
            .into_iter()
            .filter(|class| self.counts[*class as usize] > 0)
            .map(|class| format!("{} {class}", self.counts[class as usize]))
            .collect();
        if some.is_empty() { "no errors".into() } else { some.join(", ") }
    }
}

#[cfg(test)]
mod tests;
