//! The configuration: the small state that is written whole to every disk in service at each change.
//!
//! Owns the data model of disks, groups and volumes. Invariant: no state takes effect before the generation that carries it
//! counts (rule C1). The bytes are `format::config`'s matter, which disks to believe is `quorum`'s, committing is `commit`'s.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::health::Policy;
use crate::ids::{DiskNumber, GroupNumber, Slot, Uuid, VolumeNumber};

mod backups;

pub use backups::{
    AvoidanceEntry, AvoidanceState, BackupPlace, BackupTable, PairEntry, PairStatus, Retired,
    ShieldedVolume, Strategy, WorkEntry,
};

/// RAID level of a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Striping without redundancy.
    #[serde(rename = "0")]
    Raid0,
    /// Mirror of n ways.
    #[serde(rename = "1")]
    Raid1,
    /// Rotating parity, left-symmetric.
    #[serde(rename = "5")]
    Raid5,
    /// Rotating P+Q, left-symmetric.
    #[serde(rename = "6")]
    Raid6,
    /// Stripe over two-way mirrors: slots 2i and 2i+1 are a pair.
    #[serde(rename = "10")]
    Raid10,
}

impl fmt::Display for Level {
    /// As the drawings print it: `RAID5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raid0 => "RAID0",
            Self::Raid1 => "RAID1",
            Self::Raid5 => "RAID5",
            Self::Raid6 => "RAID6",
            Self::Raid10 => "RAID10",
        })
    }
}

/// What a parity group writes to its journal before it changes anything in place (rule J1).
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum JournalMode {
    /// Nothing: a crash together with the loss of a member may lose data.
    Off,
    /// Parts of stripes with their data, full stripes by their checksums.
    #[default]
    Partial,
    /// Everything with its data.
    Full,
}

impl fmt::Display for JournalMode {
    /// As the command line writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Partial => "partial",
            Self::Full => "full",
        })
    }
}

/// What a disk is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskRole {
    /// Belongs to a group (its slot names it) or belonged to one until it was dropped.
    Member,
    /// Takes a failed member's place by itself.
    Spare,
    /// Labelled and unused.
    Free,
    /// Holds a copy of a work-disk set's log.
    Work,
}

/// Why a disk is no longer in service.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DropReason {
    /// Not found at assembly.
    Missing,
    /// Failed while running: write errors, a failed flush, time-outs, death.
    Failed,
    /// Failed by the operator.
    Operator,
    /// Replaced by another disk.
    Replaced,
    /// Removed by the operator; its number may be used again.
    Removed,
}

/// Whether the array relies on a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Written at each commit, counted for quorums.
    InService,
    /// Out; known to hold `generation` of history `history` and nothing newer (rule C5).
    Dropped {
        /// Last history id that the disk is known to hold.
        history: u64,
        /// Last generation that the disk is known to hold.
        generation: u64,
        /// Why it was dropped.
        reason: DropReason,
        /// When, in milliseconds since 1970.
        at_ms: u64,
    },
}

/// One disk of the array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskEntry {
    /// Its number.
    pub number: DiskNumber,
    /// Identity in its label.
    pub uuid: Uuid,
    /// Bytes of data space after all regions.
    pub data_len: u64,
    /// What it is for.
    pub role: DiskRole,
    /// Whether it is relied on.
    pub service: Service,
    /// Where it was last seen, at most 255 bytes: a hint for people.
    pub path_hint: String,
    /// Its serial number where known, at most 63 bytes.
    pub serial: String,
}

impl DiskEntry {
    /// Whether the array relies on the disk.
    #[must_use]
    pub fn in_service(&self) -> bool {
        self.service == Service::InService
    }
}

/// How far the disk in a slot can be trusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SlotState {
    /// Holds everything but what the lost map names.
    InSync,
    /// Holds nothing that may be read; the slot's disk is dropped.
    Out,
    /// Being rebuilt: holds everything below the group's copy cursor of this slot.
    Rebuilding,
    /// A disk that came back (`readd`): being brought up to date in the regions whose intent bits are set (rule M3);
    /// everything below the cursor is current.
    Catching,
}

/// One slot of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SlotEntry {
    /// The disk in this slot, also when it is out.
    pub disk: DiskNumber,
    /// How far it is trusted.
    pub state: SlotState,
    /// A disk being filled as its replacement (`replace`): in service below the slot's copy cursor (rule F4).
    pub replacement: Option<DiskNumber>,
}

impl SlotEntry {
    /// The disk to which a member in sync is being copied. Once the member is out its slot is rebuilt there: that is no copy.
    #[must_use]
    pub fn copied_to(&self) -> Option<DiskNumber> {
        self.replacement.filter(|_| self.state == SlotState::InSync)
    }

    /// The disk that is being filled for this slot.
    #[must_use]
    pub fn filled(&self) -> Option<DiskNumber> {
        let itself = matches!(self.state, SlotState::Rebuilding | SlotState::Catching);
        self.replacement.or(itself.then_some(self.disk))
    }

    /// Whether its member is in sync, and copied nowhere.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.state == SlotState::InSync && self.replacement.is_none()
    }
}

/// One RAID group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupEntry {
    /// Its number.
    pub number: GroupNumber,
    /// Drawn at creation; stands in the group's map pages so that pages of a deleted group are never taken for its own.
    pub uuid: Uuid,
    /// RAID level.
    pub level: Level,
    /// Chunk in bytes: a power of two, 4 KiB to 1 MiB.
    pub chunk: u32,
    /// Number of stripes; each member uses `stripes * chunk` bytes from the start of its data space.
    pub stripes: u64,
    /// Bytes of a member's address space that one intent bit covers: a power of two multiple of the chunk.
    pub intent_region: u64,
    /// Stripes that one bit of the unwritten map covers.
    pub unwritten_unit: u32,
    /// Its journal; [`JournalMode::Off`] for levels without parity.
    pub journal: JournalMode,
    /// Whether every block has a checksum (rules K).
    pub checksums: bool,
    /// The members in order.
    pub slots: Vec<SlotEntry>,
    /// Set by an orderly stop: intent bits then only say what an absent member missed (rules M2, M3), not what is dirty.
    pub clean: bool,
}

/// Consecutive stripes of a group that belong to a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Extent {
    /// First stripe.
    pub start: u64,
    /// Number of stripes.
    pub stripes: u64,
}

/// One volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VolumeEntry {
    /// Its number.
    pub number: VolumeNumber,
    /// Its name, unique in the array; the NBD export name.
    pub name: String,
    /// Its group.
    pub group: GroupNumber,
    /// Size in bytes as the host sees it; at most the extents' capacity, a multiple of 512.
    pub size: u64,
    /// Where it lies, in order.
    pub extents: Vec<Extent>,
    /// Hosts may only read.
    pub read_only: bool,
}

/// One run of the array: rule C5's list entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryEntry {
    /// Drawn at random at each start.
    pub id: u64,
    /// First generation written under it.
    pub first_generation: u64,
}

/// What is kept of one disk's health.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HealthEntry {
    /// Errors by class, in T3's order.
    pub counts: [u64; 8],
    /// Level of its bucket in millionths.
    pub level: u32,
    /// Found ailing and not cleared since.
    pub ailing: bool,
    /// An operator cancelled its replacement: it is not replaced by itself until it is cleared or replaced by command.
    pub held: bool,
}

/// What is kept of health: the policy, and the disks of which there is anything to tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HealthTable {
    /// How errors are weighed.
    pub policy: Policy,
    /// By disk.
    pub disks: BTreeMap<DiskNumber, HealthEntry>,
}

/// A replaced disk that did not pass its test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FailedTest {
    /// The group that it served.
    pub group: GroupNumber,
    /// The slot that it had.
    pub slot: Slot,
    /// What it did, with the figures.
    pub why: String,
}

impl FailedTest {
    /// Whether the group is still there that the disk served: a test asks whether that may need it yet.
    #[must_use]
    pub fn can_be_done_again(&self, config: &Configuration) -> bool {
        config.group(self.group).is_some_and(|group| usize::from(self.slot.0) < group.slots.len())
    }

    /// What clearing the disk's errors does.
    #[must_use]
    pub fn clearing_words(&self, config: &Configuration) -> &'static str {
        match self.can_be_done_again(config) {
            true => "has it tested once more",
            false => "trusts it untested, since the group that it served is gone",
        }
    }

    /// What is said of the disk.
    #[must_use]
    pub fn words(&self) -> String {
        format!("failed the test after it was replaced: {}", self.why)
    }
}

/// The whole configuration of an array.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Configuration {
    /// The array's identity; the same on all its disks.
    pub array: Uuid,
    /// The array's name.
    pub name: String,
    /// Counts commits, from 1.
    pub generation: u64,
    /// Runs of the array, oldest first; the last is the current one. Old entries may be folded away once no dropped
    /// disk refers to them.
    pub history: Vec<HistoryEntry>,
    /// When this generation was committed, milliseconds since 1970.
    pub committed_at_ms: u64,
    /// Rule C2's memory: for each generation written since, and including, the last that counted (this one not
    /// included), the disks it listed in service.
    pub uncounted: Vec<Vec<DiskNumber>>,
    /// The last generation known to have counted when this one was written; 0 for the first. A disk listed in service that
    /// holds less was put back to an older state (rule C1).
    pub counted_generation: u64,
    /// `inject` is allowed (chosen at creation).
    pub allow_injection: bool,
    /// All disks ever added and not removed, by number.
    pub disks: Vec<DiskEntry>,
    /// All groups, by number.
    pub groups: Vec<GroupEntry>,
    /// All volumes, by number.
    pub volumes: Vec<VolumeEntry>,
    /// Health of the disks. Persisted now and then, with a change of verdict, and at an orderly stop: no state depends on it.
    pub health: HealthTable,
    /// Failure avoidance: what is shielded and where writes go meanwhile.
    pub backups: BackupTable,
    /// Disks that others have replaced and whose test has not ended, and the slots they had: a disk may be all that has what its slot has lost.
    pub retired: BTreeMap<DiskNumber, (GroupNumber, Slot)>,
    /// Disks that others have replaced and that failed their test: they are not used before they pass one.
    pub failed_tests: BTreeMap<DiskNumber, FailedTest>,
}

impl Configuration {
    /// The disk numbered `number`.
    #[must_use]
    pub fn disk(&self, number: DiskNumber) -> Option<&DiskEntry> {
        self.disks.iter().find(|d| d.number == number)
    }

    /// The disk numbered `number`, to be changed.
    pub fn disk_mut(&mut self, number: DiskNumber) -> Option<&mut DiskEntry> {
        self.disks.iter_mut().find(|d| d.number == number)
    }

    /// The group numbered `number`.
    #[must_use]
    pub fn group(&self, number: GroupNumber) -> Option<&GroupEntry> {
        self.groups.iter().find(|g| g.number == number)
    }

    /// The group numbered `number`, to be changed.
    pub fn group_mut(&mut self, number: GroupNumber) -> Option<&mut GroupEntry> {
        self.groups.iter_mut().find(|g| g.number == number)
    }

    /// Numbers of the disks in service.
    pub fn in_service(&self) -> impl Iterator<Item = DiskNumber> {
        self.disks.iter().filter(|d| d.in_service()).map(|d| d.number)
    }

    /// The legs of a work-disk set that are in service.
    pub fn serving_legs<'a>(
        &'a self,
        work: &'a WorkEntry,
    ) -> impl Iterator<Item = DiskNumber> + 'a {
        let legs = work.legs.iter().copied();
        legs.filter(|leg| self.disk(*leg).is_some_and(DiskEntry::in_service))
    }

    /// Bytes of each leg of a work-disk set that its log uses: what the smallest has, also one that is out of service.
    #[must_use]
    pub fn leg_len(&self, work: &WorkEntry) -> u64 {
        let legs = work.legs.iter().filter_map(|leg| self.disk(*leg));
        legs.map(|leg| leg.data_len).min().unwrap_or(0)
    }

    /// Whether `disk` served as a member, and another disk has its place.
    #[must_use]
    pub fn is_replaced(&self, disk: DiskNumber) -> bool {
        let replaced =
            |service| matches!(service, Service::Dropped { reason: DropReason::Replaced, .. });
        self.slot_of(disk).is_none()
            && self.disk(disk).is_some_and(|d| d.role == DiskRole::Member && replaced(d.service))
    }

    /// The slot that holds `disk`, as its member or as its replacement.
    #[must_use]
    pub fn slot_of(&self, disk: DiskNumber) -> Option<(GroupNumber, Slot)> {
        self.groups.iter().find_map(|g| {
            let at = g.slots.iter().position(|s| s.disk == disk || s.replacement == Some(disk))?;
            Some((g.number, Slot(at as u8)))
        })
    }
}
