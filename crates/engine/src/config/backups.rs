//! What the configuration keeps of failure avoidance: which groups are shielded, and where their writes go meanwhile.
//!
//! Owns the data model of avoidances, of the logs that back them and of pairs. Invariants: a group has at most one avoidance; the chain of a
//! volume's backup storages only grows while its group is shielded (rule B1), but for a pair that ended and held nothing; a log in use and a pair have identities of their own, so that
//! records of an earlier use are never taken for theirs; a volume is in one pair at most.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use super::Extent;
use crate::ids::{DiskNumber, GroupNumber, Slot, Uuid, VolumeNumber};

/// Where the writes of a shielded volume are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The first of the others that can be had, in their order.
    #[default]
    Auto,
    /// The volume's secondary.
    Pair,
    /// A log in a volume of another group.
    WorkVolume,
    /// A log on a work-disk set.
    WorkDisk,
    /// Home, as if nothing were the matter.
    Direct,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Pair => "pair",
            Self::WorkVolume => "work-volume",
            Self::WorkDisk => "work-disk",
            Self::Direct => "direct",
        })
    }
}

/// One backup storage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupPlace {
    /// The secondary of this volume's pair.
    Pair(VolumeNumber),
    /// A log in a volume.
    WorkVolume(VolumeNumber),
    /// A log on a work-disk set.
    WorkDisk(DiskNumber),
}

impl fmt::Display for BackupPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(volume) => write!(f, "the secondary of volume {volume}"),
            Self::WorkVolume(volume) => write!(f, "work volume {volume}"),
            Self::WorkDisk(disk) => write!(f, "work disk {disk}"),
        }
    }
}

/// How far an avoidance is (safety rules A1 to A6).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AvoidanceState {
    /// New writes go to the backup; those that went home are drained and flushed.
    Entering,
    /// The spare is being filled while the group takes no host writes.
    Copying,
    /// The group takes no host writes, and no spare is there to be filled: the shield waits for one, since the policy says so.
    Sheltered,
    /// Updates go home; new writes too.
    WritingBack,
}

impl fmt::Display for AvoidanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Entering => "entering",
            Self::Copying => "copying",
            Self::Sheltered => "sheltered",
            Self::WritingBack => "writing back",
        })
    }
}

/// A volume of a shielded group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShieldedVolume {
    /// The volume.
    pub volume: VolumeNumber,
    /// Its backup storages in the order they were taken; none: its writes go home.
    pub chain: Vec<BackupPlace>,
}

/// A disk that was replaced under a shield, and the slot that it had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retired {
    /// The disk.
    pub disk: DiskNumber,
    /// The slot: what the disk still gives is a block of this one, and of no other.
    pub slot: Slot,
}

/// One avoidance.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AvoidanceEntry {
    /// The shielded group.
    pub group: GroupNumber,
    /// The slot whose disk gave rise to it.
    pub slot: Slot,
    /// How far it is.
    pub state: AvoidanceState,
    /// The copy of that slot stands still at an operator's word: as [`BackupTable::paused`] says, which every commit follows.
    pub paused: bool,
    /// What was asked for.
    pub asked: Strategy,
    /// The disk that was replaced, until write-back has drained (rule A4).
    pub retiring: Option<Retired>,
    /// The group's volumes at its beginning.
    pub volumes: Vec<ShieldedVolume>,
}

/// A place that can hold a log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WorkEntry {
    /// The place.
    pub place: BackupPlace,
    /// The disks that hold a work-disk set, one copy each.
    pub legs: Vec<DiskNumber>,
    /// Numbers of the volumes (of a work volume) or groups (of a work disk) that it is for; none: for any.
    pub serves: Vec<u32>,
    /// Identity of the log in use; 0 if none is.
    pub log: u64,
}

/// What a pair is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PairStatus {
    /// The secondary follows the primary.
    Duplex,
    /// The secondary is being made equal for the first time since it was made or split.
    Syncing,
    /// Differences are noted and not copied.
    Split,
    /// The secondary takes the writes of its shielded primary.
    BackingUp,
}

impl fmt::Display for PairStatus {
    /// As the drawings print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Duplex => "DUPLEX",
            Self::Syncing => "SYNCING",
            Self::Split => "SPLIT",
            Self::BackingUp => "UPDATE DATA BEING BACKED UP",
        })
    }
}

/// Two volumes of equal size in two groups, and where the bits that tell them apart lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PairEntry {
    /// Drawn when the pair is made; stands in the pages of its bitmap.
    pub id: Uuid,
    /// The volume that hosts use.
    pub primary: VolumeNumber,
    /// The volume that is kept beside it; no host's business.
    pub secondary: VolumeNumber,
    /// What it is doing.
    pub status: PairStatus,
    /// The bits stand still: nothing is copied.
    pub hold: bool,
    /// Reads and writes go to the secondary; a bit means that the secondary is newer.
    pub reversed: bool,
    /// Made for one avoidance, and removed after it.
    pub temporary: bool,
    /// The secondary's group was not there at a start, and is not back: nothing is noted, so everything may differ.
    pub away: bool,
    /// Where the bitmap lies in the secondary's group.
    pub bitmap: Vec<Extent>,
}

/// All that is kept of failure avoidance.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackupTable {
    /// By group.
    pub avoidances: Vec<AvoidanceEntry>,
    /// By place.
    pub work: Vec<WorkEntry>,
    /// What was asked for volumes other than [`Strategy::Auto`].
    pub strategies: BTreeMap<VolumeNumber, Strategy>,
    /// Disks that were copied away once and proved healthy in a test: spares of the last choice.
    pub suspected: Vec<DiskNumber>,
    /// Pairs in the order in which they were made.
    pub pairs: Vec<PairEntry>,
    /// Limits asked for the filling of slots, in bytes a second; kept while the slot is filled, and while its group is shielded for its copy.
    pub rates: BTreeMap<(GroupNumber, Slot), u64>,
    /// Slots whose copy stands still at an operator's word.
    pub paused: BTreeSet<(GroupNumber, Slot)>,
}

impl BackupTable {
    /// Whether there is nothing to keep.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.avoidances.is_empty()
            && self.work.is_empty()
            && self.strategies.is_empty()
            && self.suspected.is_empty()
            && self.pairs.is_empty()
            && self.rates.is_empty()
            && self.paused.is_empty()
    }

    /// Keeps a limit in bytes a second for the fill of a slot; 0 is none.
    pub fn keep_rate(&mut self, slot: (GroupNumber, Slot), rate: u64) {
        match rate {
            0 => drop(self.rates.remove(&slot)),
            rate => drop(self.rates.insert(slot, rate)),
        }
    }

    /// The avoidance of a group.
    #[must_use]
    pub fn of_group(&self, group: GroupNumber) -> Option<&AvoidanceEntry> {
        self.avoidances.iter().find(|a| a.group == group)
    }

    /// The avoidance of a group, to be changed.
    pub fn of_group_mut(&mut self, group: GroupNumber) -> Option<&mut AvoidanceEntry> {
        self.avoidances.iter_mut().find(|a| a.group == group)
    }

    /// The work place `place`.
    #[must_use]
    pub fn work_at(&self, place: BackupPlace) -> Option<&WorkEntry> {
        self.work.iter().find(|w| w.place == place)
    }

    /// The work place `place`, to be changed.
    pub fn work_at_mut(&mut self, place: BackupPlace) -> Option<&mut WorkEntry> {
        self.work.iter_mut().find(|w| w.place == place)
    }

    /// The avoidances and their volumes that use `place`.
    pub fn users_of(
        &self,
        place: BackupPlace,
    ) -> impl Iterator<Item = (&AvoidanceEntry, VolumeNumber)> {
        self.avoidances.iter().flat_map(move |a| {
            let uses = a.volumes.iter().filter(move |v| v.chain.contains(&place));
            uses.map(move |v| (a, v.volume))
        })
    }

    /// [`BackupTable::users_of`] in words; empty if there is none.
    #[must_use]
    pub fn users_in_words(&self, place: BackupPlace) -> String {
        let users = self.users_of(place);
        let words = users.map(|(a, volume)| format!("volume {volume} of group {}", a.group));
        words.collect::<Vec<_>>().join(", ")
    }

    /// The work-disk set that a disk is a leg of.
    #[must_use]
    pub fn set_of_leg(&self, disk: DiskNumber) -> Option<&WorkEntry> {
        self.work.iter().find(|w| w.legs.contains(&disk))
    }

    /// The pair of a primary.
    #[must_use]
    pub fn pair_of(&self, primary: VolumeNumber) -> Option<&PairEntry> {
        self.pairs.iter().find(|pair| pair.primary == primary)
    }

    /// The pair of a primary, to be changed.
    pub fn pair_of_mut(&mut self, primary: VolumeNumber) -> Option<&mut PairEntry> {
        self.pairs.iter_mut().find(|pair| pair.primary == primary)
    }

    /// The pair that a volume is a part of, as its primary or as its secondary.
    #[must_use]
    pub fn pair_with(&self, volume: VolumeNumber) -> Option<&PairEntry> {
        self.pairs.iter().find(|pair| pair.primary == volume || pair.secondary == volume)
    }

    /// Whether a place is the secondary of a pair that was there before its primary was shielded.
    #[must_use]
    pub fn is_lasting_pair(&self, place: BackupPlace) -> bool {
        let BackupPlace::Pair(primary) = place else { return false };
        self.pair_of(primary).is_some_and(|pair| !pair.temporary)
    }

    /// The avoidance in which a disk was replaced, and until whose end it is kept.
    #[must_use]
    pub fn retiring_in(&self, disk: DiskNumber) -> Option<&AvoidanceEntry> {
        self.avoidances.iter().find(|a| a.retiring.is_some_and(|old| old.disk == disk))
    }

    /// Takes a place that holds nothing out of every chain.
    pub fn leave_chains(&mut self, place: BackupPlace) {
        let volumes = self.avoidances.iter_mut().flat_map(|a| &mut a.volumes);
        volumes.for_each(|v| v.chain.retain(|p| *p != place));
    }

    /// Whether a volume is the secondary of a pair.
    #[must_use]
    pub fn is_secondary(&self, volume: VolumeNumber) -> bool {
        self.pairs.iter().any(|pair| pair.secondary == volume)
    }
}
