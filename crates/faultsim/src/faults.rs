//! What is wrong with a simulated disk.
//!
//! Owns the faults of one disk, an overlay beside its bytes: the pristine medium never knows of them, so that taking a
//! fault away shows what was there. Invariant: a request is judged once, when it takes effect. What a scenario may
//! inject without going beyond what a level survives is `operator.rs`'s matter.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use forestall_engine::{DiskFault, FaultKind};

use crate::medium::SECTOR;

/// Linux's EIO.
const EIO: i32 = 5;
/// Linux's ENOSPC.
const ENOSPC: i32 = 28;
/// Linux's ENOLINK, the block layer's word for a failed transport.
const ENOLINK: i32 = 67;
/// Linux's ENODEV.
const ENODEV: i32 = 19;

/// The faults of one disk.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Sectors that cannot be read until they are written again.
    bad: BTreeSet<u64>,
    /// Ranges that cannot be written.
    unwritable: Vec<Range<u64>>,
    /// So many writes to come fail.
    failing_writes: u64,
    /// So many flushes to come fail.
    failing_flushes: u64,
    /// Nothing is answered before this time.
    stalled_until_ns: u64,
    /// So many requests to come do not reach the disk.
    unreached: u64,
    /// Every request takes so many times longer; 0 counts as 1.
    slowness: u64,
    /// So many writes of members' data to come are lost, or land elsewhere.
    losing_writes: u64,
    straying_writes: u64,
    /// No room in the file system below: writes fail.
    full: bool,
    /// Gone.
    dead: bool,
}

impl Faults {
    /// Makes the sectors of `range` unreadable until rewritten.
    pub fn spoil(&mut self, range: Range<u64>) {
        self.bad.extend(range.start / SECTOR..range.end.div_ceil(SECTOR));
    }

    /// Makes `range` unwritable for good.
    pub fn protect(&mut self, range: Range<u64>) {
        self.unwritable.push(range);
    }

    /// Lets the next `count` writes fail.
    pub fn fail_writes(&mut self, count: u64) {
        self.failing_writes += count;
    }

    /// Lets the next `count` writes of members' data be answered, but not done.
    pub fn lose_writes(&mut self, count: u64) {
        self.losing_writes += count;
    }

    /// Lets the next `count` writes of members' data be answered, and land elsewhere.
    pub fn misdirect_writes(&mut self, count: u64) {
        self.straying_writes += count;
    }

    /// No write to come goes astray.
    pub fn disarm_falsehoods(&mut self) {
        (self.losing_writes, self.straying_writes) = (0, 0);
    }

    /// Where a write of `range` goes that nothing else keeps; `None`: where it should.
    pub(crate) fn astray(&mut self, range: &Range<u64>, data: &Range<u64>) -> Option<Astray> {
        if range.start < data.start || range.end > data.end {
            return None;
        }
        for (armed, astray) in [
            (&mut self.losing_writes, Astray::Lost),
            (&mut self.straying_writes, Astray::Misdirected),
        ] {
            if *armed > 0 {
                *armed -= 1;
                return Some(astray);
            }
        }
        None
    }

    /// Lets the next `count` flushes fail.
    pub fn fail_flushes(&mut self, count: u64) {
        self.failing_flushes += count;
    }

    /// Lets the next `count` reads and writes fail on their way to the disk.
    pub fn lose_on_the_way(&mut self, count: u64) {
        self.unreached += count;
    }

    /// Lets every request take `times` as long.
    pub fn slow_down(&mut self, times: u64) {
        self.slowness = times;
    }

    /// How many times longer requests take.
    #[must_use]
    pub fn slowness(&self) -> u64 {
        self.slowness.max(1)
    }

    /// Lets nothing be answered before `until_ns`.
    pub fn stall(&mut self, until_ns: u64) {
        self.stalled_until_ns = until_ns;
    }

    /// Takes or gives back the room in the file system below.
    pub fn set_full(&mut self, full: bool) {
        self.full = full;
    }

    /// Kills the disk, or brings it back with what is on it.
    pub fn set_dead(&mut self, dead: bool) {
        self.dead = dead;
    }

    /// Whether the disk is dead.
    #[must_use]
    pub fn dead(&self) -> bool {
        self.dead
    }

    /// Whether the disk cannot be relied on to read and write as it should. A stall alone passes.
    #[must_use]
    pub fn any(&self) -> bool {
        self.dead
            || self.full
            || self.failing_writes > 0
            || self.failing_flushes > 0
            || self.unreached > 0
            || self.losing_writes > 0
            || self.straying_writes > 0
            || !self.bad.is_empty()
            || !self.unwritable.is_empty()
    }

    /// The end of a stall.
    #[must_use]
    pub fn stalled_until_ns(&self) -> u64 {
        self.stalled_until_ns
    }

    /// Takes every fault away but what the medium itself has.
    pub fn repair(&mut self) {
        *self = Self { bad: std::mem::take(&mut self.bad), ..Self::default() };
    }

    /// Takes every fault away.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Judges a read of `range`.
    pub fn on_read(&mut self, range: &Range<u64>) -> Option<(Injected, DiskFault)> {
        if self.dead {
            return Some(gone());
        }
        if self.unreached > 0 {
            return Some(self.unreached());
        }
        let mut bad = self.bad.range(range.start / SECTOR..range.end.div_ceil(SECTOR));
        bad.next()
            .map(|_| (Injected::LatentSector, DiskFault { kind: FaultKind::Medium, errno: EIO }))
    }

    /// Judges a write of `range`; one that succeeds mends its unreadable sectors.
    pub fn on_write(&mut self, range: &Range<u64>) -> Option<(Injected, DiskFault)> {
        if self.dead {
            return Some(gone());
        }
        if self.unreached > 0 {
            return Some(self.unreached());
        }
        if self.full {
            return Some((
                Injected::NoSpace,
                DiskFault { kind: FaultKind::NoSpace, errno: ENOSPC },
            ));
        }
        let protected = self.unwritable.iter().any(|r| r.start < range.end && range.start < r.end);
        if protected || self.failing_writes > 0 {
            self.failing_writes = self.failing_writes.saturating_sub(u64::from(!protected));
            return Some((Injected::WriteError, DiskFault { kind: FaultKind::Medium, errno: EIO }));
        }
        if !self.bad.is_empty() {
            for sector in range.start / SECTOR..range.end / SECTOR {
                self.bad.remove(&sector);
            }
        }
        None
    }

    fn unreached(&mut self) -> (Injected, DiskFault) {
        self.unreached -= 1;
        (Injected::Transport, DiskFault { kind: FaultKind::Transport, errno: ENOLINK })
    }

    /// Judges a flush.
    pub fn on_flush(&mut self) -> Option<(Injected, DiskFault)> {
        if self.dead {
            return Some(gone());
        }
        if self.failing_flushes > 0 {
            self.failing_flushes -= 1;
            return Some((
                Injected::FlushFailure,
                DiskFault { kind: FaultKind::Medium, errno: EIO },
            ));
        }
        None
    }
}

/// Where a write goes that a disk says it did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Astray {
    /// Nowhere.
    Lost,
    /// Elsewhere.
    Misdirected,
}

/// What a disk answers that is not there.
pub(crate) fn gone() -> (Injected, DiskFault) {
    (Injected::Gone, DiskFault { kind: FaultKind::Gone, errno: ENODEV })
}

/// Kinds of faults that requests met, for counting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Injected {
    /// A read met a latent sector.
    LatentSector,
    /// A write failed.
    WriteError,
    /// A flush failed.
    FlushFailure,
    /// A request met a dead disk.
    Gone,
    /// A request was held up by a stall.
    Stall,
    /// A disk became slow.
    Slow,
    /// A request did not reach the disk.
    Transport,
    /// A write met a full file system.
    NoSpace,
    /// A disk was left out of a start.
    Withheld,
    /// A disk died.
    Death,
    /// A bit of a sector flipped.
    BitRot,
    /// A write was answered and not done.
    LostWrite,
    /// A write was answered and landed elsewhere.
    MisdirectedWrite,
    /// A crash or power loss.
    Crash,
}

impl Injected {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::LatentSector,
        Self::WriteError,
        Self::FlushFailure,
        Self::Gone,
        Self::Stall,
        Self::Slow,
        Self::Transport,
        Self::NoSpace,
        Self::Withheld,
        Self::Death,
        Self::BitRot,
        Self::LostWrite,
        Self::MisdirectedWrite,
        Self::Crash,
    ];
}

impl fmt::Display for Injected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::LatentSector => "reads met a latent sector",
            Self::WriteError => "writes failed",
            Self::FlushFailure => "flushes failed",
            Self::Gone => "requests met a dead disk",
            Self::Transport => "requests did not reach their disk",
            Self::Slow => "disks became slow",
            Self::Stall => "requests held up by a stall",
            Self::NoSpace => "writes met a full disk",
            Self::Withheld => "disks left out of a start",
            Self::Death => "disks died",
            Self::BitRot => "sectors rotted",
            Self::LostWrite => "writes were lost",
            Self::MisdirectedWrite => "writes landed elsewhere",
            Self::Crash => "crashes",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_sector_fails_reads_until_it_is_rewritten() {
        let mut faults = Faults::default();
        faults.spoil(4608..5120);
        assert!(faults.on_read(&(0..4096)).is_none());
        assert_eq!(faults.on_read(&(4096..8192)).map(|f| f.0), Some(Injected::LatentSector));
        assert!(faults.any());
        assert!(faults.on_write(&(4096..8192)).is_none());
        assert!(faults.on_read(&(4096..8192)).is_none());
        assert!(!faults.any());
    }

    #[test]
    fn armed_failures_count_down_and_death_outranks_them() {
        let mut faults = Faults::default();
        faults.fail_writes(1);
        faults.fail_flushes(1);
        assert_eq!(faults.on_write(&(0..512)).map(|f| f.1.kind), Some(FaultKind::Medium));
        assert!(faults.on_write(&(0..512)).is_none());
        faults.set_dead(true);
        assert_eq!(faults.on_flush().map(|f| f.1.kind), Some(FaultKind::Gone));
        faults.set_dead(false);
        assert_eq!(faults.on_flush().map(|f| f.0), Some(Injected::FlushFailure));
        assert!(faults.on_flush().is_none());
    }
}
