//! What is told of a shielded group and of the work disks.
//!
//! Owns these report types, nothing else.

use serde::{Deserialize, Serialize};

use crate::config::{AvoidanceState, BackupPlace, Strategy};
use crate::ids::{DiskNumber, VolumeNumber};

/// A group that is shielded while one of its disks is copied, or whose updates go home.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AvoidanceReport {
    /// How far it is.
    pub state: AvoidanceState,
    /// The copy stands still at an operator's word.
    pub paused: bool,
    /// The slot that it is about.
    pub slot: u8,
    /// The disk that is copied away; `None` once it was replaced, if it stays, or if it had failed before.
    pub disk: Option<DiskNumber>,
    /// The disk that is being filled, if one is.
    pub filling: Option<DiskNumber>,
    /// The disk that was replaced and is kept as a last resort until the updates are home.
    pub retiring: Option<DiskNumber>,
    /// Why: the verdict's reason, or that it was asked for.
    pub why: String,
    /// Which strategy was asked for.
    pub asked: Strategy,
    /// The group's volumes.
    pub volumes: Vec<ShieldedReport>,
    /// Blocks of 4096 bytes that are not home yet, in all.
    pub away_blocks: u64,
    /// How many more failures what was redirected survives; `None` if everything goes home.
    pub spare_copies: Option<u32>,
}

/// A volume of a shielded group.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShieldedReport {
    /// The volume.
    pub volume: VolumeNumber,
    /// Its name.
    pub name: String,
    /// Where its writes go, in the order in which the places were taken; none: home.
    pub backups: Vec<BackupPlace>,
    /// Blocks of 4096 bytes that are not home yet.
    pub away_blocks: u64,
    /// Those of the places that take nothing at the moment, since it would be less safe there than at home: writes go past them.
    #[serde(default)]
    pub resting: Vec<BackupPlace>,
    /// The backups are full: writes for which they have no room go home.
    #[serde(default)]
    pub full: bool,
    /// Blocks of 4096 bytes that went home since there was no room for them.
    #[serde(default)]
    pub overflowed_blocks: u64,
}

/// What a leg of a work disk does not hold as it should.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LegDamage {
    /// The leg.
    pub disk: DiskNumber,
    /// Pages of its table that were damaged when the log was read back; they were written anew from the other legs.
    pub pages: u64,
    /// Redirected blocks of 4 KiB that it does not give, or gives wrong.
    pub blocks: u64,
}
