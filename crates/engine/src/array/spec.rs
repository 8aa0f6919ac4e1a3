//! What callers hand to an array: plain data, checked where it is used.
//!
//! Owns the specifications of arrays, groups and volumes and the options of assembly.

use serde::{Deserialize, Serialize};

use crate::config::{JournalMode, Level};
use crate::disk::DiskIdentity;
use crate::ids::{DiskNumber, GroupNumber, VolumeNumber};
use crate::runtime::Env;

/// What to make a new array of.
#[derive(Clone, Debug)]
pub struct CreateSpec {
    /// Name of the array: 1 to 63 printable characters.
    pub name: String,
    /// `inject` will be allowed.
    pub allow_injection: bool,
    /// One group of all but the last `spares` disks, and one volume over all of it.
    pub group: Option<CreateGroup>,
}

/// The group that `create --level` makes.
#[derive(Clone, Debug)]
pub struct CreateGroup {
    /// Its level.
    pub level: Level,
    /// Its chunk in bytes.
    pub chunk: u32,
    /// Its journal, if it has parity.
    pub journal: JournalMode,
    /// Whether every block gets a checksum (rules K).
    pub checksums: bool,
    /// How many disks at the end become spares.
    pub spares: usize,
    /// Name of the volume over all of it; the array's name if none is given.
    pub volume: Option<String>,
}

/// A disk handed to `create` or `add_disk`, opened and owned (rule C6) by the caller, who has also made sure that nothing
/// foreign on it is overwritten by mistake.
pub struct NewDisk<E: Env> {
    /// The open disk.
    pub disk: E::Disk,
    /// Where it is.
    pub identity: DiskIdentity,
}

/// How to assemble.
#[derive(Clone, Debug, Default)]
pub struct AssembleOptions {
    /// Start although half or more of the disks are missing (rule C4).
    pub degraded: bool,
    /// Start although an unclean parity group lacks a member.
    pub accept_write_hole: bool,
    /// Start without redirected writes that cannot be read: their volumes then hold what their own group has, which may be old.
    pub give_up_backups: bool,
    /// Take the configuration of this disk where two diverged (rule C5).
    pub choose: Option<DiskNumber>,
    /// Milliseconds that one request of a disk may take before it counts as timed out; 0 takes the default of 30 s.
    pub disk_timeout_ms: u64,
    /// Scrub every group this often, in seconds; 0 never.
    pub scrub_every_s: u64,
}

/// A new group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Its level.
    pub level: Level,
    /// Its members in slot order.
    pub disks: Vec<DiskNumber>,
    /// Chunk in bytes, a power of two from 4 KiB to 1 MiB.
    pub chunk: u32,
    /// Its journal, if it has parity.
    #[serde(default)]
    pub journal: JournalMode,
    /// Whether every block gets a checksum (rules K).
    #[serde(default = "yes")]
    pub checksums: bool,
}

/// A new volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumeSpec {
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: GroupNumber,
    /// Size in bytes, rounded up to 4096; `None` takes the largest free space.
    pub size: Option<u64>,
    /// Its number; the lowest free one if none is given.
    pub number: Option<VolumeNumber>,
}

fn yes() -> bool {
    true
}
