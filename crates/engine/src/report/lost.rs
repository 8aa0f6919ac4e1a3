//! What is told of lost blocks.
//!
//! Owns these report types, nothing else.

use serde::{Deserialize, Serialize};

use crate::ids::{GroupNumber, VolumeNumber};

/// The lost blocks of a volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LostReport {
    /// The volume.
    pub volume: VolumeNumber,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: GroupNumber,
    /// Blocks of 4096 bytes that are listed lost.
    pub blocks: u64,
    /// Where they are, in order.
    pub ranges: Vec<LostRange>,
    /// There is more: a loss this large is not listed to its end.
    pub more: bool,
    /// The secondary that has the volume's place at present, has these blocks, and gives them back.
    pub held_by: Option<VolumeNumber>,
}

/// Consecutive lost bytes of a volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LostRange {
    /// First byte, as the host counts.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}
