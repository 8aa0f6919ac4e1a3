//! The bodies of the management API, shared by the server and its clients.
//!
//! Owns what is not already an engine report: requests and short answers. Sizes and offsets are bytes, rates bytes a
//! second with 0 for no limit. Unknown fields are refused, so that a misspelt option is never silently ignored.

use forestall_disk::InjectRule;
use forestall_engine::health::{ErrorClass, Mode};
use forestall_engine::{DiskNumber, DiskRole, GroupNumber, Strategy, VolumeNumber};
use serde::{Deserialize, Serialize};

/// `GET /v1/server`: the process rather than the array.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServerInfo {
    /// Version of the program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Where clients connect, as `unix:PATH` or `tcp:HOST:PORT`.
    pub nbd: Vec<String>,
    /// NBD clients connected now.
    pub clients: usize,
}

/// `POST /v1/disks/add`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddDisk {
    /// The disk, as the server sees it; absolute.
    pub path: String,
    /// What it is for: `spare` or `free`.
    pub role: DiskRole,
    /// A missing file is made sparse with this many bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// Overwrite a file system or another label.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/disks/remove`, `/v1/disks/fail`, `/v1/work-disks/remove`, `/v1/work-disks/abandon` and `/v1/health/clear`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameDisk {
    /// The disk.
    pub disk: DiskNumber,
}

/// `POST /v1/disks/readd`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReaddDisk {
    /// The disk.
    pub disk: DiskNumber,
    /// Where it is now; without it the server uses the disk it still has open.
    #[serde(default)]
    pub path: Option<String>,
}

/// `POST /v1/groups/delete` and `/v1/groups/continue`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameGroup {
    /// The group.
    pub group: GroupNumber,
}

/// `POST /v1/volumes/delete`, `/v1/work-volumes/remove` and `/v1/work-volumes/abandon`. Volumes are named by name, or by number where no volume has that name.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameVolume {
    /// The volume.
    pub volume: String,
}

/// `POST /v1/pairs/create`. [`ResyncPair`] aside, the others take the primary as [`NameVolume`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreatePair {
    /// The volume that hosts use.
    pub primary: String,
    /// The volume of equal size, in another group, that follows it.
    pub secondary: String,
    /// Limit of the copying until both are equal; 0 for none.
    #[serde(default)]
    pub rate: u64,
}

/// `POST /v1/pairs/resync`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResyncPair {
    /// The volume that hosts use.
    pub volume: String,
    /// Limit of the copying until both are equal; 0 for none.
    #[serde(default)]
    pub rate: u64,
}

/// `POST /v1/volumes/grow`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrowVolume {
    /// The volume.
    pub volume: String,
    /// Its new size.
    pub size: u64,
}

/// `POST /v1/volumes/rename`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenameVolume {
    /// The volume.
    pub volume: String,
    /// Its new name.
    pub name: String,
}

/// `POST /v1/volumes/set`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetVolume {
    /// The volume.
    pub volume: String,
    /// Whether writes to it are refused.
    #[serde(default)]
    pub read_only: Option<bool>,
    /// Where its writes go while its group is shielded.
    #[serde(default)]
    pub backup: Option<Strategy>,
}

/// `POST /v1/work-volumes/add`. Volumes are named as in [`NameVolume`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddWorkVolume {
    /// The volume that becomes one.
    pub volume: String,
    /// The volumes that it is for; none: any.
    #[serde(default)]
    pub serves: Vec<String>,
}

/// `POST /v1/work-disks/add`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddWorkDisk {
    /// Its number.
    pub disk: DiskNumber,
    /// Its legs, as the server sees them; absolute.
    pub legs: Vec<String>,
    /// The groups that it is for; none: any.
    #[serde(default)]
    pub serves: Vec<GroupNumber>,
    /// Missing files are made sparse with this many bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// Overwrite file systems or other labels.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/replace`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplaceDisk {
    /// The member to be copied away.
    pub disk: DiskNumber,
    /// The disk that takes its place; a spare is chosen without it.
    #[serde(default)]
    pub with: Option<DiskNumber>,
    /// Limit of the copy.
    #[serde(default)]
    pub rate: u64,
    /// Where the group's writes go meanwhile.
    #[serde(default)]
    pub backup: Strategy,
}

/// `POST /v1/health/set`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetThreshold {
    /// The class of errors.
    pub class: ErrorClass,
    /// So many of them at once make a disk ailing.
    pub threshold: u32,
}

/// `POST /v1/policy/set`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetPolicy {
    /// What is done about an ailing disk.
    #[serde(default)]
    pub mode: Option<Mode>,
    /// Whether groups are shielded while there is no spare.
    #[serde(default)]
    pub shelter: Option<bool>,
}

/// The answer of `POST /v1/work-disks/abandon` and `/v1/work-volumes/abandon`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Abandoned {
    /// Blocks of 4096 bytes that are listed lost.
    pub lost_blocks: u64,
}

/// `POST /v1/scrub`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubGroup {
    /// The group.
    pub group: GroupNumber,
    /// Mend what differs.
    #[serde(default)]
    pub repair: bool,
    /// Limit of the reading.
    #[serde(default)]
    pub rate: u64,
}

/// `POST /v1/jobs/limit`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitJob {
    /// The job.
    pub job: u64,
    /// Its new limit.
    pub rate: u64,
}

/// `POST /v1/inject`: makes a disk of an array created with injection allowed misbehave.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inject {
    /// The disk.
    pub disk: DiskNumber,
    /// What it shall do; without it every rule is taken away.
    #[serde(default)]
    pub rule: Option<InjectRule>,
}

/// Answer to a command that made a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DiskMade {
    /// Its number.
    pub disk: DiskNumber,
}

/// Answer to a command that made a group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupMade {
    /// Its number.
    pub group: GroupNumber,
    /// What was decided on the way, for people.
    pub notes: Vec<String>,
}

/// Answer to a command that made a volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumeMade {
    /// Its number.
    pub volume: VolumeNumber,
    /// Its size in bytes: what was asked for, rounded up to whole blocks.
    pub size: u64,
}

/// Answer to a command that grew a volume.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VolumeGrown {
    /// Its size in bytes: what was asked for, rounded up to whole blocks.
    pub size: u64,
}

/// Answer to a command that started long work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobStarted {
    /// Its id, as in `GET /v1/jobs`.
    pub job: u64,
    /// The job of the same group that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<u64>,
}

/// Answer to a command that has nothing to tell: `{}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Words for people: what is wrong and the way out.
    pub error: String,
    /// A fixed word for programs.
    pub kind: ErrorKind,
}

/// Kinds of refusals and failures.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request itself is malformed (400).
    BadRequest,
    /// It names something that does not exist (404).
    NotFound,
    /// It cannot be done as things are; nothing changed (409).
    Refused,
    /// It was begun and failed (500).
    Failed,
    /// The server is still assembling the array (503).
    Starting,
    /// The server is going away (503).
    Stopping,
}
