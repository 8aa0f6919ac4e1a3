//! Records of the newest batch that not every member holds: whether they had begun in place (rule J2).
//!
//! Owns the look at their rows. Either the crash cut the batch, and nothing of it may be applied, since a crash in the replay together with the loss of
//! a member would then leave rows half-way; or all held it, and what one held is damaged: then its rows may be half-way already, or done. Writes in
//! place begin when the whole batch is durable, so one record that had begun proves them all. Invariants: the batch counts only if a block in place is
//! the new one where an older record tells another, or a row does not agree with itself, or a block not with its checksum, which none does
//! before the writes in place begin; what cannot be told is not applied.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::Group;
use super::decide::{Counting, Source};
use super::replay::Row;
use crate::buf::Buf;
use crate::disk::{DiskFault, FaultKind};
use crate::format::codec::crc32c;
use crate::ids::{BLOCK_SIZE, Slot, SlotSet};
use crate::runtime::Env;
use crate::sync::join_all;

/// Reads that a start spends on doubtful records at most; where these tell nothing the batch is taken as cut by the crash.
const READS_MAX: usize = 512;

/// What rows show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    Agree,
    Disagree,
    /// Not every block of them can be had at once.
    Unclear,
}

/// One block that a record tells: slot, member block, checksum, and where it can be had.
type Told<'a> = (Slot, u64, u32, &'a Source);

fn blocks_of(record: &Counting) -> impl Iterator<Item = Told<'_>> {
    record.pieces.iter().flat_map(|(piece, source)| {
        (piece.start..).zip(&piece.crcs).map(move |(block, crc)| (piece.slot, block, *crc, source))
    })
}

impl<E: Env> Group<E> {
    /// Whether a block in place shows that the doubtful records of `told` had begun: it is the new one, where an older record that is to be applied tells
    /// another. Asked before anything is applied.
    pub(super) async fn newest_is_in_place(&self, told: &[Counting]) -> bool {
        let blocks = |doubtful: bool| {
            let records = told.iter().filter(move |record| record.doubtful == doubtful);
            records.flat_map(blocks_of).map(|(slot, at, crc, _)| ((slot, at), crc))
        };
        let mut older = BTreeMap::new();
        for (block, crc) in blocks(false) {
            older.entry(block).or_insert(crc); // The newest comes first.
        }
        let differs =
            |(block, crc): &((Slot, u64), u32)| older.get(block).is_some_and(|o| o != crc);
        for ((slot, block), crc) in blocks(true).filter(differs).take(READS_MAX) {
            let address = block * BLOCK_SIZE;
            if !self.is_inside(block) {
                continue;
            }
            let Some(main) = self.drives_at(slot, address).0 else { continue };
            let read = main.read_data(address, Buf::scratch(BLOCK_SIZE as usize)).await;
            if read.is_ok_and(|buf| crc32c(&buf) == crc) {
                return true;
            }
        }
        false
    }

    /// Rows, as member blocks, that are left to the records before the newest batch, though that is taken to have begun: parts of it are lacking, without
    /// which more is gone than the level can tell, and what its members held before is at hand. Had the batch been flushed, all of it would be in place.
    pub(super) async fn rows_of_before(self: &Rc<Self>, records: &[Counting]) -> BTreeSet<u64> {
        let mut older = BTreeMap::new();
        for record in records.iter().filter(|record| !record.doubtful) {
            for (slot, block, crc, source) in blocks_of(record) {
                let at_hand = matches!(source, Source::Payload(_));
                older.entry((slot, block)).or_insert((crc, at_hand)); // The newest comes first.
            }
        }
        let mut left = BTreeSet::new();
        let mut reads = READS_MAX;
        for record in records.iter().filter(|record| record.doubtful) {
            let mut rows: BTreeMap<u64, Vec<Told<'_>>> = BTreeMap::new();
            for told in blocks_of(record).filter(|told| self.is_inside(told.1)) {
                rows.entry(told.1).or_default().push(told);
            }
            for (block, told) in rows {
                if self.is_left_to_before(block, &told, &older, &mut reads).await {
                    left.insert(block);
                }
            }
        }
        left
    }

    /// Whether one row, of which the newest batch has told these blocks, cannot be made new, and what it was before can be had.
    async fn is_left_to_before(
        self: &Rc<Self>,
        block: u64,
        told: &[Told<'_>],
        older: &BTreeMap<(Slot, u64), (u32, bool)>,
        reads: &mut usize,
    ) -> bool {
        let lacks = |source: &Source| matches!(source, Source::Unreadable);
        let lacking = told.iter().filter(|(_, _, _, source)| lacks(source)).count();
        let parities = self.geometry.parity_columns();
        if lacking == 0 || self.missing().len() + lacking <= parities {
            return false;
        }
        let Some(left) = reads.checked_sub(self.geometry.members()) else { return false };
        *reads = left;
        let address = block * BLOCK_SIZE;
        let (mut gone, mut before) = (0, true);
        for slot in SlotSet::first(self.geometry.members()).iter() {
            let Some(main) = self.drives_at(slot, address).0 else {
                gone += 1;
                continue;
            };
            let found = main.read_data(address, Buf::scratch(BLOCK_SIZE as usize)).await.ok();
            let Some((.., crc, source)) = told.iter().find(|(of, ..)| *of == slot) else {
                gone += usize::from(found.is_none());
                continue;
            };
            let holds = found.as_deref().map(crc32c);
            gone += usize::from(lacks(source) && holds != Some(*crc));
            before &= match (older.get(&(slot, block)), found) {
                // It would be written again. Of a lacking block that does not read, nothing tells that the batch had not reached it.
                (Some((_, true)), found) => found.is_some() || !lacks(source),
                // Told by its checksum alone, it has to stand in place.
                (Some((was, false)), _) => holds == Some(*was),
                // Durable before the oldest record, it has to stand in place, and its checksum on disk then fits.
                (None, Some(found)) if self.checksums && holds != Some(*crc) => {
                    self.verify(&main, slot, address, found).await.is_ok()
                }
                (None, _) => false,
            };
        }
        gone > parities && before
    }

    /// Whether a row of `doubtful` shows that they had begun. Asked when everything else is made good, which would leave rows that do not agree too.
    pub(super) async fn had_begun(self: &Rc<Self>, doubtful: &[Counting]) -> bool {
        let mut reads = READS_MAX;
        for record in doubtful {
            let pieces = || record.pieces.iter().map(|(piece, _)| piece);
            let blocks = pieces().flat_map(|p| (p.start..).take(p.crcs.len()));
            let rows: BTreeSet<u64> = blocks.filter(|block| self.is_inside(*block)).collect();
            let told = pieces().map(|piece| piece.slot).collect();
            for (first, end) in self.runs_of(&rows) {
                let whole = self.look_at((first, end), told, &mut reads).await;
                if whole == Rows::Disagree {
                    return true;
                }
                for block in (first..end).filter(|_| whole == Rows::Unclear) {
                    if self.look_at((block, block + 1), told, &mut reads).await == Rows::Disagree {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Whether a row of blocks is one of the group that was written.
    pub(super) fn is_inside(&self, block: u64) -> bool {
        let address = block * BLOCK_SIZE;
        address < self.member_len()
            && !self.unwritten.reads_zero(self.geometry.at_address(address).0)
    }

    /// What rows of one stripe, as member blocks, show; blocks of the slots in `told` are concerned. Reads are taken off `reads`.
    async fn look_at(
        self: &Rc<Self>,
        (first, end): (u64, u64),
        told: SlotSet,
        reads: &mut usize,
    ) -> Rows {
        let Some(left) = reads.checked_sub(self.geometry.members()) else { return Rows::Agree };
        *reads = left;
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
        let has_main = |slot: &Slot| self.drives_at(*slot, address).0.is_some();
        let failed = |slot: &Slot| read[usize::from(slot.0)].is_err();
        if end - first > 1 && slots.iter().filter(has_main).any(|slot| failed(&slot)) {
            return Rows::Unclear;
        }
        let erased: SlotSet = slots.iter().filter(failed).collect();
        let unfit = |slot: &Slot| {
            let read = read[usize::from(slot.0)].as_ref();
            read.is_err_and(|fault| fault.kind.is_unfit())
        };
        let unfit: SlotSet = told.iter().filter(unfit).collect();
        for at in (0..len).step_by(BLOCK_SIZE as usize) {
            let part = |buf: &Buf| buf.slice(at..at + BLOCK_SIZE as usize);
            let bufs = read.iter().map(|buf| buf.as_ref().ok().map(part)).collect();
            let row = Row { stripe, address: address + at as u64, bufs, erased };
            if !unfit.is_empty() && !self.was_mended(&row, unfit).await {
                return Rows::Disagree;
            }
            let differs = |contents: &Vec<Buf>| {
                slots.minus(erased).iter().any(|slot| {
                    row.bufs[usize::from(slot.0)].as_deref()
                        != Some(&contents[self.column_index(stripe, slot)][..])
                })
            };
            if self.candidates(&row).iter().any(differs) {
                return Rows::Disagree;
            }
        }
        Rows::Agree
    }

    /// Whether what follows for the blocks of `unfit` from the others fits the checksums on disk: then the row is the old one, but for blocks that a disk gives
    /// wrong or that alone were being written, and these get that again.
    async fn was_mended(self: &Rc<Self>, row: &Row, unfit: SlotSet) -> bool {
        for contents in self.candidates(row) {
            let computed = |slot: Slot| contents[self.column_index(row.stripe, slot)].clone();
            let mut fits = true;
            for slot in unfit.iter() {
                let Some(main) = self.drives_at(slot, row.address).0 else { return false };
                fits &= self.verify(&main, slot, row.address, computed(slot)).await.is_ok();
            }
            if fits {
                for slot in unfit.iter() {
                    let written = self.write_slot(slot, row.address, computed(slot)).await;
                    fits &= written.is_ok();
                }
                return fits;
            }
        }
        false
    }
}
