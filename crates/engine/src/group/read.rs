//! Reading a group: direct, from peers, and mending what a disk could not give.
//!
//! Owns the flows from a logical range to buffers. Invariants: blocks that nobody wrote read as zeroes without a disk (rule M6); a block that
//! has to be computed is computed under the row lock, so that its peers stand still; a block that a disk could not give is
//! written back to it once it is known; what nothing can give is an error, never made up.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::around::{Missed, Patience, Unread};
use super::faulty::Faulty;
use crate::buf::Buf;
use crate::disk::FaultKind;
use crate::error::IoError;
use crate::geometry::Piece;
use crate::ids::{BLOCK_SIZE, Slot, SlotSet, Stripe};
use crate::plan::{ReadPlan, View, plan_read, plan_rebuild_slot};
use crate::runtime::Env;
use crate::sync::{Hold, join_all};

/// Pieces read at once for one request; larger requests go on in this many steps.
const PIECES_AT_ONCE: usize = 32;

/// Mirrors read one copy for this many bytes before going on to the next, so that each disk sees long runs.
const SPREAD_SHIFT: u32 = 18;

impl<E: Env> Group<E> {
    /// Reads whole blocks of the group's data space; the buffers in order make up the range.
    pub(crate) async fn read(self: &Rc<Self>, offset: u64, len: u64) -> Result<Vec<Buf>, IoError> {
        self.answering().await;
        let mut pieces = self.geometry.pieces(offset, len).peekable();
        let mut bufs = Vec::new();
        while let Some(first) = pieces.next() {
            if pieces.peek().is_none() && bufs.is_empty() {
                return Ok(vec![self.read_piece(first).await?]);
            }
            let batch = std::iter::once(first).chain(pieces.by_ref().take(PIECES_AT_ONCE - 1));
            for buf in join_all(batch.map(|piece| self.read_piece(piece))).await {
                bufs.push(buf?);
            }
        }
        Ok(bufs)
    }

    async fn read_piece(self: &Rc<Self>, piece: Piece) -> Result<Buf, IoError> {
        let Piece { stripe, column, rows, .. } = piece;
        let len = rows.len();
        if self.unwritten.reads_zero(stripe) {
            return Ok(Buf::zeroed(len));
        }
        let address = self.geometry.member_address(stripe, rows.start);
        let mut holders = self.geometry.copies(stripe, column).iter();
        if holders.any(|slot| self.lost.is_unproved(slot, address, len as u64)) {
            return Err(IoError::Io);
        }
        self.make_whole_before_read(address).await?;
        let mut not = SlotSet::EMPTY;
        if let ReadPlan::Direct(slots) =
            plan_read(&self.geometry, stripe, column, self.view(stripe, rows.clone()))
        {
            let slot = self.pick_copy(slots, address);
            match self.read_slot_with(Patience::Short, slot, address, len).await {
                Ok(buf) => return Ok(buf),
                Err(Unread::Fault(fault)) if fault.kind.is_of_block() => {
                    // Mended as a task of the engine: it writes, so it must not stop half-way.
                    let group = Rc::clone(self);
                    return self
                        .detached(async move { group.mend(stripe, slot, rows).await })
                        .await;
                }
                // The view has it as one to be avoided now.
                Err(Unread::Slow) => {}
                Err(Unread::Fault(_)) => not = SlotSet::one(slot),
            }
        }
        let guard = self.rows.lock(address..address + len as u64, Hold::Shared).await;
        let holder =
            self.geometry.copies(stripe, column).iter().next().expect("every column has a slot");
        let mut faulty = Faulty::default();
        let computed = self.contents_by_peers(stripe, holder, rows.clone(), not, &mut faulty).await;
        drop(guard);
        match computed {
            Ok(buf) => {
                self.mend_faulty(stripe, faulty, &rows);
                Ok(buf)
            }
            Err(_) => {
                let group = Rc::clone(self);
                self.detached(async move { group.mend(stripe, holder, rows).await }).await
            }
        }
    }

    fn pick_copy(&self, slots: SlotSet, address: u64) -> Slot {
        let turn = ((address >> SPREAD_SHIFT) % slots.len() as u64) as usize;
        slots.iter().nth(turn).expect("a direct read names at least one slot")
    }

    /// What `slot` should hold in rows of a stripe, without reading the slots in `not`. The caller holds the row lock. Errors of the others are counted, of
    /// more than one block only where it is had: else the caller goes block by block.
    pub(super) async fn slot_contents(
        self: &Rc<Self>,
        stripe: Stripe,
        slot: Slot,
        rows: Range<u32>,
        not: SlotSet,
    ) -> Result<Buf, IoError> {
        let mut faulty = Faulty::default();
        let found = self.contents_by_peers(stripe, slot, rows.clone(), not, &mut faulty).await;
        if rows.len() as u64 == BLOCK_SIZE {
            // Whoever mends a block comes here: a mending of the peers now would come back to it without end.
            let address = self.geometry.member_address(stripe, rows.start);
            self.count_faulty(faulty, address, found.is_ok());
        } else if found.is_ok() {
            self.mend_faulty(stripe, faulty, &rows);
        }
        found
    }

    /// [`Group::slot_contents`] that leaves errors to the caller, with the slots that are `faulty`. Slots that take long are read around, and waited
    /// for once nothing else gives the rows.
    async fn contents_by_peers(
        self: &Rc<Self>,
        stripe: Stripe,
        slot: Slot,
        rows: Range<u32>,
        mut not: SlotSet,
        faulty: &mut Faulty,
    ) -> Result<Buf, IoError> {
        let address = self.geometry.member_address(stripe, rows.start);
        let (mut patience, mut slow) = (Patience::Short, SlotSet::EMPTY);
        let never = not;
        loop {
            let view = self.view(stripe, rows.clone());
            let view = View { readable: view.readable.minus(not).minus(slow), ..view };
            let (reads, direct) = match plan_rebuild_slot(&self.geometry, stripe, slot, view) {
                ReadPlan::Direct(slots) => (SlotSet::one(self.pick_copy(slots, address)), true),
                ReadPlan::Rebuild { reads } => (reads, false),
                ReadPlan::Lost if !slow.is_empty() => {
                    (patience, slow) = (Patience::Long, SlotSet::EMPTY);
                    continue;
                }
                ReadPlan::Lost if self.believe_unknown(stripe, rows.clone()).await => {
                    not = never;
                    continue;
                }
                ReadPlan::Lost => return Err(IoError::Io),
            };
            match self.read_slots_with(patience, stripe, reads, rows.clone()).await {
                Ok(mut bufs) if direct => return Ok(bufs.remove(0).1),
                Ok(bufs) => return Ok(self.compute_slot(stripe, slot, rows.len(), bufs)),
                Err(missed) => {
                    (not, slow) = (not.or(missed.failed), slow.or(missed.slow));
                    *faulty = faulty.or(missed.faulty);
                }
            }
        }
    }

    /// Reads the same rows of several slots; on failure answers the slots that failed.
    pub(super) async fn read_slots(
        self: &Rc<Self>,
        stripe: Stripe,
        slots: SlotSet,
        rows: Range<u32>,
    ) -> Result<Vec<(Slot, Buf)>, SlotSet> {
        let read = self.read_slots_with(Patience::Long, stripe, slots, rows).await;
        read.map_err(|missed| missed.failed)
    }

    pub(super) async fn read_slots_with(
        self: &Rc<Self>,
        patience: Patience,
        stripe: Stripe,
        slots: SlotSet,
        rows: Range<u32>,
    ) -> Result<Vec<(Slot, Buf)>, Missed> {
        let address = self.geometry.member_address(stripe, rows.start);
        let reads =
            slots.iter().map(|slot| self.read_slot_with(patience, slot, address, rows.len()));
        let mut bufs = Vec::with_capacity(slots.len());
        let mut missed = Missed::default();
        for (slot, result) in slots.iter().zip(join_all(reads).await) {
            match result {
                Ok(buf) => bufs.push((slot, buf)),
                Err(Unread::Slow) => missed.slow = missed.slow.with(slot),
                Err(Unread::Fault(fault)) => {
                    missed.faulty.note(slot, fault.kind);
                    missed.failed = missed.failed.with(slot);
                }
            }
        }
        if missed == Missed::default() { Ok(bufs) } else { Err(missed) }
    }

    /// Computes one slot's contents from as many others as there are data columns.
    fn compute_slot(&self, stripe: Stripe, slot: Slot, len: usize, bufs: Vec<(Slot, Buf)>) -> Buf {
        let wanted = self.column_index(stripe, slot);
        let mut columns = self.columns_of(stripe, bufs);
        self.recover(&mut columns, &[wanted], len);
        columns[wanted].take().expect("the wanted column was computed")
    }

    /// Puts buffers in the order d0..dk-1, P, Q; slots that were not read stay empty.
    pub(super) fn columns_of(&self, stripe: Stripe, bufs: Vec<(Slot, Buf)>) -> Vec<Option<Buf>> {
        let count = self.geometry.data_columns() + self.geometry.parity_columns();
        let mut columns = vec![None; count];
        for (slot, buf) in bufs {
            columns[self.column_index(stripe, slot)] = Some(buf);
        }
        columns
    }

    /// Fills the `wanted` columns from those present.
    pub(super) fn recover(&self, columns: &mut [Option<Buf>], wanted: &[usize], len: usize) {
        let missing: Vec<usize> = (0..columns.len()).filter(|i| columns[*i].is_none()).collect();
        for i in wanted {
            columns[*i] = Some(Buf::scratch(len));
        }
        let mut slices: Vec<&mut [u8]> = columns
            .iter_mut()
            .map(|c| c.as_mut().map_or(&mut [] as &mut [u8], Buf::bytes_mut))
            .collect();
        let recovered = match self.geometry.parity_columns() {
            1 => forestall_parity::recover_xor(&mut slices, &missing, wanted),
            _ => forestall_parity::recover_pq(&mut slices, &missing, wanted),
        };
        recovered.expect("the plan reads enough columns");
    }

    /// Gets what `slot` should hold block by block after a fault, and writes back the blocks that the slot itself could not
    /// give. Counts each error of the disk.
    pub(super) async fn mend(
        self: Rc<Self>,
        stripe: Stripe,
        slot: Slot,
        rows: Range<u32>,
    ) -> Result<Buf, IoError> {
        let address = self.geometry.member_address(stripe, rows.start);
        let _guard = self.rows.lock(address..address + rows.len() as u64, Hold::Exclusive).await;
        let mut whole = Buf::zeroed(rows.len());
        if self.unwritten.reads_zero(stripe) {
            return Ok(whole); // Trimmed while it was waited for.
        }
        let _busy = self.begin_write(address).await?;
        let mut outcome = Ok(());
        for row in rows.clone().step_by(BLOCK_SIZE as usize) {
            let block = row..row + BLOCK_SIZE as u32;
            match self.mend_block(stripe, slot, block).await {
                Ok(buf) => {
                    let at = (row - rows.start) as usize;
                    whole.bytes_mut()[at..at + BLOCK_SIZE as usize].copy_from_slice(&buf);
                }
                Err(error) => outcome = Err(error),
            }
        }
        outcome.map(|()| whole)
    }

    /// One block of [`Group::mend`]; the caller holds the row lock.
    pub(super) async fn mend_block(
        self: &Rc<Self>,
        stripe: Stripe,
        slot: Slot,
        rows: Range<u32>,
    ) -> Result<Buf, IoError> {
        self.mend_block_told(stripe, slot, rows, &Cell::default()).await
    }

    /// [`Group::mend_block`] that counts a block that does not fit its checksum.
    pub(super) async fn mend_block_told(
        self: &Rc<Self>,
        stripe: Stripe,
        slot: Slot,
        rows: Range<u32>,
        misfits: &Cell<u64>,
    ) -> Result<Buf, IoError> {
        let address = self.geometry.member_address(stripe, rows.start);
        let view = self.view(stripe, rows.clone());
        let mut not = SlotSet::EMPTY;
        if view.readable.contains(slot) {
            match self.read_slot(slot, address, rows.len()).await {
                Ok(buf) => return Ok(buf),
                Err(fault) => {
                    not = SlotSet::one(slot);
                    let unknown = fault.kind == FaultKind::Unverified;
                    if fault.kind == FaultKind::Checksum {
                        misfits.set(misfits.get() + 1);
                    }
                    let mut found = self.slot_contents(stripe, slot, rows.clone(), not).await;
                    if unknown && found.is_err() {
                        // By now it was believed.
                        let read = self.read_slot(slot, address, rows.len()).await;
                        found = read.map_err(|_| IoError::Io);
                    }
                    if !fault.kind.is_unfit() {
                        self.count_read(slot, address, found.is_ok());
                    }
                    let buf = found?;
                    if fault.kind.is_of_block() && self.copied.get() != Some(slot) {
                        // Rewriting makes most disks put the sector elsewhere; if it cannot, the member is failed or, with
                        // nobody to spare it, the data was had all the same.
                        let _ = self.write_slot(slot, address, buf.clone()).await;
                    }
                    return Ok(buf);
                }
            }
        }
        self.slot_contents(stripe, slot, rows, not).await
    }
}
