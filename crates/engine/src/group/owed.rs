//! Blocks that are lost because a disk that was copied could not read them, and that it may give yet.
//!
//! Owns which disk owes which block, in memory only. Invariant: what a disk owes is what the block holds: nothing was written to the block, nor
//! to parity that it is, since the disk was last in its slot. Whoever is about to write there forgets it first, whatever becomes of the write.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use crate::ids::{DiskNumber, Slot};

/// Which disk owes a block of a slot.
#[derive(Default)]
pub(super) struct Owed(RefCell<BTreeMap<(Slot, u64), DiskNumber>>);

impl Owed {
    pub(super) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    pub(super) fn insert(&self, slot: Slot, block: u64, disk: DiskNumber) {
        self.0.borrow_mut().insert((slot, block), disk);
    }

    /// What `disk` owes of a slot.
    pub(super) fn by(&self, slot: Slot, disk: DiskNumber) -> Vec<u64> {
        let owed = self.0.borrow();
        let of_slot = owed.range((slot, 0)..=(slot, u64::MAX));
        of_slot.filter(|(_, by)| **by == disk).map(|((_, block), _)| *block).collect()
    }

    /// How much `disk` owes, of whichever slot.
    pub(super) fn of_disk(&self, disk: DiskNumber) -> u64 {
        self.0.borrow().values().filter(|by| **by == disk).count() as u64
    }

    pub(super) fn is_owed(&self, slot: Slot, block: u64, disk: DiskNumber) -> bool {
        self.0.borrow().get(&(slot, block)) == Some(&disk)
    }

    /// These blocks are written, or may be.
    pub(super) fn forget(&self, slot: Slot, blocks: Range<u64>) {
        self.0.borrow_mut().retain(|(s, block), _| *s != slot || !blocks.contains(block));
    }

    /// A disk gets another use: it owes nothing any more.
    pub(super) fn forget_disk(&self, disk: DiskNumber) {
        self.0.borrow_mut().retain(|_, by| *by != disk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_owed_by_one_disk_until_it_is_written() {
        let owed = Owed::default();
        let (first, second) = (DiskNumber(1), DiskNumber(5));
        (3..6).for_each(|block| owed.insert(Slot(0), block, first));
        owed.insert(Slot(1), 4, second);
        assert_eq!(owed.by(Slot(0), first), [3, 4, 5]);
        assert!(owed.by(Slot(0), second).is_empty(), "it held the slot later");
        owed.forget(Slot(0), 4..5);
        assert_eq!(owed.by(Slot(0), first), [3, 5]);
        assert!(!owed.is_owed(Slot(0), 4, first) && owed.is_owed(Slot(1), 4, second));
        owed.forget_disk(first);
        assert!(owed.by(Slot(0), first).is_empty() && owed.is_owed(Slot(1), 4, second));
    }
}
