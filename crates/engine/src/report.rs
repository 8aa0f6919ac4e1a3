//! What the array tells of itself: plain data for `status`, the listings, the API and the dashboard.
//!
//! Owns the report types, nothing else; every one is serialisable, sizes are bytes, times milliseconds since 1970, and the
//! words are those of `docs/glossary.md`. How to print them is the command line's matter; only the tables of the drawings bring their cells.

use serde::{Deserialize, Serialize};

use crate::config::{DiskRole, JournalMode, Level, PairStatus};
use crate::disk::DiskIdentity;
use crate::health::Policy;
use crate::ids::{DiskNumber, GroupNumber, VolumeNumber};

mod avoidance;
mod lost;
mod tables;

pub use avoidance::{AvoidanceReport, LegDamage, ShieldedReport};
pub use lost::{LostRange, LostReport};
pub use tables::{T1Row, T2Row, T3Row, T4Row, T5Row, T6Row, T7Row, TableRow};

/// Overall health; the exit code of `status` follows it: 0, 3, 4.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Full redundancy everywhere.
    Healthy,
    /// Everything answers, something lacks redundancy or is being repaired.
    Degraded,
    /// Some data does not answer.
    Failed,
}

/// State of a disk, in words of design.md §1.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskState {
    /// In a group and trusted.
    InSync,
    /// In a slot, being rebuilt or filled as a replacement.
    Rebuilding,
    /// Ready to take a member's place.
    Spare,
    /// Labelled and unused.
    Free,
    /// No longer used because it failed or was failed.
    Failed,
    /// Was not there when the array was assembled.
    Missing,
    /// Replaced; may be removed.
    Replaced,
    /// Replaced, and kept as a last resort until what was written meanwhile is back home; then tested.
    Retiring,
    /// Holds a copy of a work-disk set's log.
    Work,
}

/// Errors a disk made since the array started, by class.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ErrorCounts {
    /// Read errors whose data was had from elsewhere and written back.
    pub recovered_reads: u64,
    /// Read errors that nothing could answer.
    pub unrecovered_reads: u64,
    /// Write errors.
    pub writes: u64,
    /// Failed flushes.
    pub flushes: u64,
    /// Requests that took longer than the limit.
    pub timeouts: u64,
    /// Requests that failed on the way to the disk; each try counts.
    #[serde(default)]
    pub transports: u64,
    /// Blocks that did not fit their checksum.
    #[serde(default)]
    pub checksums: u64,
}

/// Requests a disk took since the array started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct AccessCounts {
    /// Reads of the data space.
    pub reads: u64,
    /// Bytes read from the data space.
    pub read_bytes: u64,
    /// Writes to the data space.
    pub writes: u64,
    /// Bytes written to the data space.
    pub written_bytes: u64,
    /// Reads and writes of maps, labels and configuration.
    pub metadata: u64,
    /// Flushes.
    pub flushes: u64,
}

/// One disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskReport {
    /// Its number.
    pub number: DiskNumber,
    /// Its state.
    pub state: DiskState,
    /// What it is for.
    pub role: DiskRole,
    /// Where it is.
    pub identity: DiskIdentity,
    /// Its group, if it is in one.
    pub group: Option<GroupNumber>,
    /// Its slot in that group.
    pub slot: Option<u8>,
    /// The work disk that it is a leg of, if it is one.
    #[serde(default)]
    pub work_disk: Option<DiskNumber>,
    /// Whole size in bytes; 0 if unknown (missing).
    pub size: u64,
    /// Bytes usable for data.
    pub data_len: u64,
    /// Errors.
    pub errors: ErrorCounts,
    /// Requests.
    pub accesses: AccessCounts,
    /// Something about this disk a person should know: a damaged label copy, an injection in force.
    pub notes: Vec<String>,
}

/// One group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupReport {
    /// Its number.
    pub number: GroupNumber,
    /// RAID level.
    pub level: Level,
    /// Chunk in bytes.
    pub chunk: u32,
    /// What its journal holds.
    #[serde(default)]
    pub journal: JournalMode,
    /// Whether every block has a checksum.
    #[serde(default)]
    pub checksums: bool,
    /// Its health.
    pub health: Health,
    /// Members in slot order.
    pub members: Vec<DiskNumber>,
    /// Slots that are out or not yet rebuilt, as disk numbers.
    pub absent: Vec<DiskNumber>,
    /// Bytes that volumes can take in all.
    pub capacity: u64,
    /// Bytes not given to a volume.
    pub free: u64,
    /// Largest volume that can be made or grown by.
    pub largest_free: u64,
    /// How many more members may fail, whichever they are, before data is lost.
    pub failures_left: u32,
    /// Blocks of 4096 bytes listed lost.
    pub lost_blocks: u64,
    /// Blocks of 4096 bytes that the last scrub since the start could not have from anywhere. They are not listed: their disks may read again.
    #[serde(default)]
    pub unreadable_blocks: u64,
    /// Reads of hosts that were answered with an error since the last scrub or the start, although enough members are there.
    #[serde(default)]
    pub failed_reads: u64,
    /// Regions still to be resynced after an unclean stop.
    pub dirty_regions: u64,
    /// Paused (rule C3): `group continue` is needed.
    pub paused: bool,
    /// Work on it is about to start: nothing runs yet, and something will by itself.
    #[serde(default)]
    pub work_due: bool,
    /// The shield, while it is up.
    #[serde(default)]
    pub avoidance: Option<AvoidanceReport>,
}

/// One volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumeReport {
    /// Its number.
    pub number: VolumeNumber,
    /// Its name and export name.
    pub name: String,
    /// Its group.
    pub group: GroupNumber,
    /// Size in bytes.
    pub size: u64,
    /// Hosts may only read.
    pub read_only: bool,
    /// Kept for other volumes, as a work volume or as a secondary: not served.
    pub reserved: bool,
    /// The volume whose secondary it is, if it is one.
    #[serde(default)]
    pub secondary_of: Option<VolumeNumber>,
}

/// One pair of volumes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PairReport {
    /// The volume that hosts use.
    pub primary: VolumeNumber,
    /// Its name.
    #[serde(default)]
    pub primary_name: String,
    /// The volume beside it.
    pub secondary: VolumeNumber,
    /// Its name.
    #[serde(default)]
    pub secondary_name: String,
    /// What the pair is doing.
    pub status: PairStatus,
    /// Its bits stand still.
    pub hold: bool,
    /// Made for one avoidance, and removed after it.
    pub temporary: bool,
    /// The secondary's group is not there: nothing is copied until it is back.
    pub away: bool,
    /// Bytes that differ, in blocks of 4 KiB.
    pub differing: u64,
}

/// Kinds of long work.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobKind {
    /// Filling a spare in a failed member's slot from its peers.
    Rebuild,
    /// Taking home what was written elsewhere while the group was shielded.
    WriteBack,
    /// Reading and writing all of a disk that was copied away.
    Test,
    /// Making the secondary of a pair equal to its primary.
    Mirror,
    /// Copying a member to its replacement.
    Replace,
    /// Bringing a returned disk up to date.
    Readd,
    /// Making dirty regions whole after an unclean stop.
    Resync,
    /// Comparing copies and parity.
    Check,
    /// The same, and mending what differs.
    Repair,
}

impl JobKind {
    /// Whether it fills a disk.
    #[must_use]
    pub fn fills(self) -> bool {
        matches!(self, Self::Rebuild | Self::Replace | Self::Readd)
    }
}

/// State of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// Going on.
    Running,
    /// Ended well.
    Done,
    /// Ended without success; `message` says why.
    Failed,
    /// Stopped by a person or by the array's stop; resumes at the next start if it can.
    Stopped,
    /// A copy that stands still at an operator's word, also over restarts; `message` says how it goes on.
    Paused,
    /// A copy that has not begun; `message` says what it waits for.
    Waiting,
}

/// One long piece of work; finished ones are kept until the server stops.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobReport {
    /// Counts from 1 since the server started.
    pub id: u64,
    /// What is done.
    pub kind: JobKind,
    /// In which state.
    pub state: JobState,
    /// On which group.
    pub group: GroupNumber,
    /// The disk being filled, if one is.
    pub disk: Option<DiskNumber>,
    /// The primary, of the making of two volumes equal.
    #[serde(default)]
    pub volume: Option<VolumeNumber>,
    /// Bytes of member address space done.
    pub done_bytes: u64,
    /// Bytes of member address space in all.
    pub total_bytes: u64,
    /// Bytes moved a second; what was never written is skipped and does not count.
    pub rate: u64,
    /// Seconds until the end at the present rate, if known.
    pub eta_s: Option<u64>,
    /// Limit in bytes a second, 0 for none.
    pub limit: u64,
    /// Differences found (check, repair).
    pub mismatches: u64,
    /// Blocks that did not fit their checksum (check, repair).
    #[serde(default)]
    pub misfits: u64,
    /// Blocks that could not be made whole.
    pub lost_blocks: u64,
    /// Started at.
    pub started_at_ms: u64,
    /// Words for people: why it failed, what it found.
    pub message: String,
}

/// Kinds of problems: fixed words for scripts, and the rows of a table in `docs/operations.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProblemKind {
    /// A group is shielded: a disk is copied away, or updates go home.
    GroupShielded,
    /// A member is not used, or not yet wholly.
    MemberOut,
    /// Host I/O waits (rule C3).
    GroupPaused,
    /// Not stopped cleanly, and not yet made whole.
    GroupUnclean,
    /// A scrub found copies or parity that differ.
    CopiesDiffer,
    /// Blocks that nothing gives.
    BlocksLost,
    /// Redirected writes that could not be read were given up at the start.
    WritesGivenUp,
    /// A spare or free disk is missing or failed.
    SpareOut,
    /// A disk is ailing or sat out.
    DiskIll,
    /// A work disk lacks a leg.
    LegOut,
    /// A disk has done its service and may be taken out.
    DiskSpent,
    /// A disk is copied without a shield.
    CopiedDirectly,
}

impl ProblemKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::GroupShielded,
        Self::MemberOut,
        Self::GroupPaused,
        Self::GroupUnclean,
        Self::CopiesDiffer,
        Self::BlocksLost,
        Self::WritesGivenUp,
        Self::SpareOut,
        Self::DiskIll,
        Self::LegOut,
        Self::DiskSpent,
        Self::CopiedDirectly,
    ];
}

/// Something wrong, with what is being done about it; with the health `healthy`, something to do that concerns no data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A fixed word for scripts.
    pub kind: ProblemKind,
    /// How bad.
    pub health: Health,
    /// What is wrong, naming group, disk, path and serial where known.
    pub what: String,
    /// What is being done, how far and how long; or what to do.
    pub action: String,
    /// What another failure would cost now.
    pub risk: String,
}

/// Everything `status` shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ArrayReport {
    /// The array's name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Overall health.
    pub health: Health,
    /// Configuration generation that counts.
    pub generation: u64,
    /// When the server assembled the array.
    pub started_at_ms: u64,
    /// The server's wall clock at the time of this report.
    pub now_ms: u64,
    /// `inject` is allowed.
    pub allow_injection: bool,
    /// How errors are weighed and what is done about them.
    pub policy: Policy,
    /// What is wrong, worst first; empty when healthy.
    pub problems: Vec<Problem>,
    /// Disks by number.
    pub disks: Vec<DiskReport>,
    /// Groups by number.
    pub groups: Vec<GroupReport>,
    /// Volumes by number.
    pub volumes: Vec<VolumeReport>,
    /// Work under way.
    pub jobs: Vec<JobReport>,
}

/// How urgent an event is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// For the record.
    Info,
    /// Something was lost that redundancy covers.
    Warning,
    /// Data does not answer, or soon may not.
    Critical,
}

/// One entry of the event log, kept across restarts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Counts over the array's life, from 1.
    pub sequence: u64,
    /// When.
    pub at_ms: u64,
    /// How urgent.
    pub severity: Severity,
    /// A fixed word for scripts: `disk-failed`, `rebuild-started`, …
    pub kind: String,
    /// The disk concerned.
    pub disk: Option<DiskNumber>,
    /// The group concerned.
    pub group: Option<GroupNumber>,
    /// Words for people.
    pub message: String,
}

/// `health show`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HealthReport {
    /// How errors are weighed and what is done.
    pub policy: Policy,
    /// Table T3.
    pub disks: Vec<T3Row>,
}
