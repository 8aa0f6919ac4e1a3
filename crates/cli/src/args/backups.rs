//! `work-volume` and `work-disk`, and where writes go while a group is shielded, as typed.

use clap::{Subcommand, ValueEnum};
use forestall_engine::Strategy;

use crate::size::parse_size;

/// Where the writes of a shielded group go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackupWord {
    /// The first of the others that can be had, in this order
    Auto,
    /// The secondary of each volume's pair
    Pair,
    /// A log in a volume of another group
    WorkVolume,
    /// A log on a work disk
    WorkDisk,
    /// Home, as if nothing were the matter
    Direct,
}

impl From<BackupWord> for Strategy {
    fn from(word: BackupWord) -> Self {
        match word {
            BackupWord::Auto => Self::Auto,
            BackupWord::Pair => Self::Pair,
            BackupWord::WorkVolume => Self::WorkVolume,
            BackupWord::WorkDisk => Self::WorkDisk,
            BackupWord::Direct => Self::Direct,
        }
    }
}

/// `work-volume`.
#[derive(Debug, Subcommand)]
pub enum WorkVolumeCommand {
    /// Keep an empty volume for the writes of shielded groups; it is served no longer
    #[command(after_help = "It must lie in another group than the volumes whose writes it takes, \
        and survive as many failures as theirs.")]
    Add {
        /// Its name or number
        volume: String,
        /// The volumes that it is for, by name or number [default: any]
        #[arg(long = "for", value_delimiter = ',', value_name = "VOLUME,...")]
        serves: Vec<String>,
    },
    /// Make it an ordinary, empty volume again
    Remove {
        /// Its name or number
        volume: String,
    },
    /// Give up what it holds when its group does not answer any more: blocks that nothing else has are lost
    Abandon {
        /// Its name or number
        volume: String,
    },
}

/// `work-disk`.
#[derive(Debug, Subcommand)]
pub enum WorkDiskCommand {
    /// Keep disks for the writes of shielded groups; each leg holds a copy of all of them
    #[command(after_help = "Example:\n  \
        forestall work-disk add 60 --legs /dev/sdx,/dev/sdy --for 1,2\n\n\
        Give one leg more than the groups survive failures: two for RAID5, three for RAID6. A work disk that lost\n\
        a leg gets a new one by the same command; what it holds is copied there. The legs become disks\n\
        of the array: name them to `serve` too, unless it finds them by --scan.")]
    Add {
        /// Its number, one that no disk has
        #[arg(value_name = "N")]
        disk: u32,
        /// Files or block devices
        #[arg(long, required = true, value_delimiter = ',', value_name = "PATH,PATH")]
        legs: Vec<String>,
        /// The groups that it is for [default: any]
        #[arg(long = "for", value_delimiter = ',', value_name = "GROUP,...")]
        serves: Vec<u32>,
        /// Make missing files, sparse, this large
        #[arg(long, value_parser = parse_size)]
        size: Option<u64>,
        /// Overwrite file systems or labels found on them
        #[arg(long)]
        force: bool,
    },
    /// Take a work disk out of the array; its legs lose their labels
    Remove {
        /// Its number
        #[arg(value_name = "N")]
        disk: u32,
    },
    /// Give up what it holds when none of its legs answers any more: blocks that nothing else has are lost
    Abandon {
        /// Its number
        #[arg(value_name = "N")]
        disk: u32,
    },
}
