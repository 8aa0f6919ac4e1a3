//! `health` and `policy`, as typed.

use clap::{Subcommand, ValueEnum};
use forestall_engine::health::{ErrorClass, Mode};

use super::numbers::parse_threshold;

/// `health`.
#[derive(Debug, Subcommand)]
pub enum HealthCommand {
    /// Show thresholds, and every disk's errors, level and verdict
    Show,
    /// Set how many errors of a class at once make a disk ailing
    Set {
        /// The class
        class: ClassWord,
        /// 1 to 1000000
        #[arg(value_parser = parse_threshold)]
        threshold: u32,
    },
    /// Forget a disk's errors and take its verdict back
    Clear {
        /// Its number
        disk: u32,
    },
}

/// `policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Choose what is done about an ailing disk
    Set {
        /// What
        mode: ModeWord,
    },
    /// Choose whether a group stays shielded, or is shielded, while there is no spare to copy its ailing disk to
    Shelter {
        /// Whether
        switch: Switch,
    },
    /// Show what is done about an ailing disk
    Show,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Its writes go to a backup storage until a spare is there
    On,
    /// Its writes go home
    Off,
}

/// What is done about an ailing disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeWord {
    /// Copy it to a spare by itself
    Auto,
    /// Only tell
    Advise,
}

impl From<ModeWord> for Mode {
    fn from(word: ModeWord) -> Self {
        match word {
            ModeWord::Auto => Self::Auto,
            ModeWord::Advise => Self::Advise,
        }
    }
}

/// Classes of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClassWord {
    /// Read errors answered from other disks and mended
    RecoveredRead,
    /// Read errors that nothing could answer
    UnrecoveredRead,
    /// Failed writes and flushes
    WriteError,
    /// Requests that took longer than the limit
    Timeout,
    /// Times that the disk was sat out of reads for being slower than its peers
    Slow,
    /// Blocks that did not match their checksum
    Checksum,
    /// Failures of the way to the disk
    Transport,
    /// Warnings of the disk itself
    Smart,
}

impl From<ClassWord> for ErrorClass {
    fn from(word: ClassWord) -> Self {
        match word {
            ClassWord::RecoveredRead => Self::RecoveredRead,
            ClassWord::UnrecoveredRead => Self::UnrecoveredRead,
            ClassWord::WriteError => Self::WriteError,
            ClassWord::Timeout => Self::Timeout,
            ClassWord::Slow => Self::Slow,
            ClassWord::Checksum => Self::Checksum,
            ClassWord::Transport => Self::Transport,
            ClassWord::Smart => Self::Smart,
        }
    }
}
