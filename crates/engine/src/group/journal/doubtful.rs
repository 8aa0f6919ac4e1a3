//! Records of the newest batch that not every member holds: which of them had begun in place (rule J2).
//!
//! Owns the look at their rows. Either the crash cut the batch, and nothing of it may be applied, since a crash in the replay together with the loss of
//! a member would then leave rows half-way; or all held it, and what one held is damaged: then its rows may be half-way already. Invariants: a record
//! counts only if one of its rows does not agree with itself, or a block of it not with its checksum, which none does before its writes in place
//! begin; what cannot be told is not applied.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::super::Group;
use super::decide::Counting;
use super::replay::Row;
use crate::buf::Buf;
use crate::disk::{DiskFault, FaultKind};
use crate::ids::{BLOCK_SIZE, Slot, SlotSet};
use crate::runtime::Env;
use crate::sync::join_all;

/// Reads that a start spends on doubtful records at most; those beyond are taken as cut by the crash.
const READS_MAX: usize = 512;

impl<E: Env> Group<E> {
    /// The records of `doubtful` that had begun. What counts without a doubt was made good before: it too leaves rows that do not agree.
    pub(super) async fn begun(self: &Rc<Self>, doubtful: Vec<Counting>) -> Vec<Counting> {
        let mut reads = READS_MAX;
        let mut begun = Vec::new();
        for record in doubtful {
            if self.had_begun(&record, &mut reads).await {
                begun.push(record);
            }
        }
        begun
    }

    /// Whether a row of a record shows that its writes in place had begun.
    async fn had_begun(self: &Rc<Self>, record: &Counting, reads: &mut usize) -> bool {
        let inside = |block: &u64| {
            let address = block * BLOCK_SIZE;
            address < self.member_len()
                && !self.unwritten.reads_zero(self.geometry.at_address(address).0)
        };
        let pieces = || record.pieces.iter().map(|(piece, _)| piece);
        let blocks = pieces().flat_map(|p| (p.start..).take(p.crcs.len()));
        let rows: BTreeSet<u64> = blocks.filter(inside).collect();
        let told = pieces().map(|piece| piece.slot).collect();
        for run in self.runs_of(&rows) {
            let Some(left) = reads.checked_sub(self.geometry.members()) else { return false };
            *reads = left;
            if self.disagrees(run, told).await {
                return true;
            }
        }
        false
    }

    /// Whether rows of one stripe, as member blocks, do not agree with themselves, or blocks of `told` not with their checksums. What a disk
    /// gives wrong of the others is not asked.
    async fn disagrees(self: &Rc<Self>, (first, end): (u64, u64), told: SlotSet) -> bool {
        let address = first * BLOCK_SIZE;
        let len = ((end - first) * BLOCK_SIZE) as usize;
        let (stripe, row) = self.geometry.at_address(address);
        let readable = self.view(stripe, row..row + len as u32).readable;
        let slots = SlotSet::first(self.geometry.members());
        let read = join_all(slots.iter().map(|slot| async move {
            let main = self.drives_at(slot, address).0.filter(|_| readable.contains(slot));
            let main = main.ok_or(DiskFault::new(FaultKind::Gone))?;
            self.read_verified(&main, slot, address, len).await
        }))
        .await;
        let unfit = |slot: Slot| {
            read[usize::from(slot.0)].as_ref().is_err_and(|fault| fault.kind == FaultKind::Checksum)
        };
        if told.iter().any(unfit) {
            return true;
        }
        let read: Vec<Option<Buf>> = read.into_iter().map(Result::ok).collect();
        let gone = |slot: &Slot| read[usize::from(slot.0)].is_none();
        let erased: SlotSet = slots.iter().filter(gone).collect();
        (0..len).step_by(BLOCK_SIZE as usize).any(|at| {
            let part = |buf: &Buf| buf.slice(at..at + BLOCK_SIZE as usize);
            let bufs: Vec<Option<Buf>> = read.iter().map(|buf| buf.as_ref().map(part)).collect();
            let row = Row { stripe, address: address + at as u64, bufs, erased };
            self.candidates(&row).iter().any(|contents| {
                slots.minus(erased).iter().any(|slot| {
                    row.bufs[usize::from(slot.0)].as_deref()
                        != Some(&contents[self.column_index(stripe, slot)][..])
                })
            })
        })
    }
}
