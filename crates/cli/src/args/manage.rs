//! The commands that manage disks, groups and volumes of a running server, as typed.

use clap::{Args, Subcommand, ValueEnum};

use super::{BackupWord, JournalWord, LevelWord, parse_chunk};
use crate::size::{parse_rate, parse_size};

/// `disk`.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// Add a disk to the array
    Add {
        /// File or block device
        path: String,
        /// What it is for
        #[arg(long, default_value = "spare")]
        role: RoleWord,
        /// Make a missing file, sparse, this large
        #[arg(long, value_parser = parse_size)]
        size: Option<u64>,
        /// Overwrite a file system or label found on it
        #[arg(long)]
        force: bool,
    },
    /// Take an unused, failed or replaced disk out of the array
    Remove {
        /// Its number
        #[arg(value_name = "N")]
        disk: u32,
    },
    /// Stop using a disk, as if it had failed
    Fail {
        /// Its number
        #[arg(value_name = "N")]
        disk: u32,
    },
    /// Bring a failed or missing disk back; only what changed meanwhile is copied
    Readd {
        /// Its number
        #[arg(value_name = "N")]
        disk: u32,
        /// Where it is now, if the server does not have it open
        path: Option<String>,
    },
    /// List disks
    List,
}

/// What an added disk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleWord {
    /// Takes a failed member's place by itself
    Spare,
    /// Waits to become a member of a new group
    Free,
}

/// `group`.
#[derive(Debug, Subcommand)]
pub enum GroupCommand {
    /// Make a group of free or spare disks
    Create {
        /// RAID level
        #[arg(long)]
        level: LevelWord,
        /// Its disks, in slot order
        #[arg(long, required = true, value_delimiter = ',', value_name = "1,2,3,4")]
        disks: Vec<u32>,
        /// Its chunk, 4KiB to 1MiB
        #[arg(long, value_parser = parse_chunk, default_value = "64KiB")]
        chunk: u32,
        /// Its journal, if it has parity
        #[arg(long, value_enum, default_value_t)]
        journal: JournalWord,
        /// Keep no checksums of its blocks: what a disk gives wrong is then found by scrubs at best
        #[arg(long)]
        no_checksums: bool,
    },
    /// Delete a group without volumes; its disks become free
    Delete {
        /// Its number
        #[arg(value_name = "N")]
        group: u32,
    },
    /// Let a paused group go on without the disks that it lost
    Continue {
        /// Its number
        #[arg(value_name = "N")]
        group: u32,
    },
    /// List groups
    List,
}

/// `volume`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume; it is an NBD export under its name at once
    Create {
        /// Its name
        name: String,
        /// Its group
        #[arg(long, value_name = "N")]
        group: u32,
        /// Its size
        #[arg(long, value_parser = parse_size)]
        size: u64,
        /// Its number [default: the lowest free one]
        #[arg(long, value_name = "N")]
        number: Option<u32>,
    },
    /// Make a volume larger; clients see the new size when they connect anew
    Grow {
        /// Its name or number
        volume: String,
        /// Its new size
        #[arg(long, value_parser = parse_size)]
        size: u64,
    },
    /// Give a volume another name
    Rename {
        /// Its name or number
        volume: String,
        /// Its new name
        name: String,
    },
    /// Refuse writes to a volume or allow them again; say where they go while its group is shielded
    #[command(group(clap::ArgGroup::new("what").required(true).multiple(true)))]
    Set {
        /// Its name or number
        volume: String,
        /// Refuse writes from now on, those of connected clients too
        #[arg(long, group = "what", conflicts_with = "read_write")]
        read_only: bool,
        /// Allow writes; clients that found it read only see it when they connect anew
        #[arg(long, group = "what")]
        read_write: bool,
        /// Where its writes go while its group is shielded
        #[arg(long, group = "what", value_name = "STRATEGY")]
        backup: Option<BackupWord>,
    },
    /// Delete a volume and everything in it
    Delete {
        /// Its name or number
        volume: String,
    },
    /// List lost blocks: where a volume answers with an error until it is written again
    Lost {
        /// Its name or number [default: all]
        volume: Option<String>,
    },
    /// List volumes
    List,
}

/// `replace`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct ReplaceArgs {
    /// What to do with a replacement under way.
    #[command(subcommand)]
    pub command: Option<ReplaceCommand>,
    /// The disk to be copied away
    #[arg(required = true)]
    pub disk: Option<u32>,
    /// The disk that takes its place [default: a spare]
    #[arg(long, value_name = "DISK")]
    pub with: Option<u32>,
    /// Where the group's writes go meanwhile [default: what each volume has, else auto]
    #[arg(long, value_name = "STRATEGY")]
    pub backup: Option<BackupWord>,
    /// Limit of the copy in MiB a second; 0 is no limit
    #[arg(long, value_parser = parse_rate, default_value = "0", value_name = "MIB_S")]
    pub rate: u64,
}

/// `replace pause`, `resume`, `cancel`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ReplaceCommand {
    /// Let the copy stand still until it is resumed, also over restarts
    Pause {
        /// The disk being replaced
        disk: u32,
    },
    /// Let a paused copy go on
    Resume {
        /// The disk being replaced
        disk: u32,
    },
    /// Keep the old disk; the other one is a spare again
    Cancel {
        /// The disk being replaced
        disk: u32,
    },
}

/// `scrub`.
#[derive(Debug, Args)]
pub struct ScrubArgs {
    /// The group
    pub group: u32,
    /// Mend what differs
    #[arg(long)]
    pub repair: bool,
    /// Limit of the reading in MiB a second; 0 is no limit
    #[arg(long, value_parser = parse_rate, default_value = "0", value_name = "MIB_S")]
    pub rate: u64,
}
