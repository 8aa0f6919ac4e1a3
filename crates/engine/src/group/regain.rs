//! Asking a disk that was copied away for what it could not give at the time.
//!
//! Owns the way back of a lost block. Invariants: a block comes from a disk only while that disk owes it: then nothing was written there since, and the
//! disk's own checksum proves what it reads; else from peers that are not lost themselves; it is lost no longer only once its slot holds it and parity fits.

use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::write::column_parts;
use crate::drive::Drive;
use crate::ids::{BLOCK_SIZE, DiskNumber, Slot, SlotSet, Stripe};
use crate::runtime::Env;
use crate::sync::Hold;

impl<E: Env> Group<E> {
    /// A block was lost because `disk`, which is being copied, could not read it.
    pub(super) fn may_be_regained(&self, slot: Slot, address: u64, disk: DiskNumber) {
        self.lost.owed.insert(slot, address / BLOCK_SIZE, disk);
    }

    /// How many lost blocks `disk` may yet give, of whichever slot.
    pub(crate) fn owed_by_disk(&self, disk: DiskNumber) -> u64 {
        self.lost.owed.of_disk(disk)
    }

    /// A disk gets another use: what it holds is no version of these blocks any more.
    pub(crate) fn owes_nothing(&self, disk: DiskNumber) {
        self.lost.owed.forget_disk(disk);
    }

    /// A stripe is about to be written: what an old disk holds of these columns, and of parity, is older from now on, whatever becomes of the
    /// write.
    pub(super) fn forget_owed(&self, stripe: Stripe, within: &Range<u64>, rows: Range<u32>) {
        let owed = &self.lost.owed;
        if owed.is_empty() {
            return;
        }
        let blocks = |rows: Range<u64>| {
            let base = self.geometry.member_address(stripe, 0);
            (base + rows.start) / BLOCK_SIZE..(base + rows.end).div_ceil(BLOCK_SIZE)
        };
        let parity = [self.geometry.p_slot(stripe), self.geometry.q_slot(stripe)];
        for slot in parity.into_iter().flatten() {
            owed.forget(slot, blocks(rows.start.into()..rows.end.into()));
        }
        for (column, rows, _) in column_parts(u64::from(self.geometry.chunk()), within.clone()) {
            for slot in self.geometry.copies(stripe, column).iter() {
                owed.forget(slot, blocks(rows.start as u64..rows.end as u64));
            }
        }
    }

    /// Asks the disk that held the slot before for the blocks that were lost because it could not read them; answers how many it gave.
    /// What it gives is written back and parity is made to fit. `is_old`: it still is what it was then, and nobody else uses it.
    pub(crate) async fn regain_lost(
        self: &Rc<Self>,
        slot: Slot,
        old: &Rc<Drive<E>>,
        is_old: &dyn Fn() -> bool,
    ) -> u64 {
        let mut regained = 0;
        for block in self.lost.owed.by(slot, old.number) {
            regained += u64::from(self.regain_block(slot, block * BLOCK_SIZE, (old, is_old)).await);
        }
        regained
    }

    async fn regain_block(
        self: &Rc<Self>,
        slot: Slot,
        address: u64,
        (old, is_old): (&Rc<Drive<E>>, &dyn Fn() -> bool),
    ) -> bool {
        let _guard = self.rows.lock(address..address + BLOCK_SIZE, Hold::Exclusive).await;
        // A host wrote it meanwhile; or the slot is out, and its peers alone hold what is written.
        let due = || {
            is_old()
                && self.lost.owed.is_owed(slot, address / BLOCK_SIZE, old.number)
                && self.lost.overlaps(slot, address, BLOCK_SIZE)
                && self.slots.borrow()[usize::from(slot.0)].main.is_some()
        };
        if !due() {
            return false;
        }
        let (stripe, row) = self.geometry.at_address(address);
        let rows = row..row + BLOCK_SIZE as u32;
        let buf = match self.read_verified(old, slot, address, BLOCK_SIZE as usize).await {
            Ok(buf) => Ok(buf),
            // By now its peers may give it.
            Err(_) => self.slot_contents(stripe, slot, rows.clone(), SlotSet::one(slot)).await,
        };
        let Ok(buf) = buf else { return false };
        let Ok(_busy) = self.begin_write(address).await else { return false };
        if !due() || self.write_slot(slot, address, buf).await.is_err() || !due() {
            return false;
        }
        self.lost.overwritten(slot, address, BLOCK_SIZE);
        !self.has_parity() || self.remake_parity(stripe, rows).await.is_ok()
    }
}
