//! The journal of a parity group: what is durable before anything changes in place (rules J1, J3).
//!
//! Owns the batches. Invariants: the writes in place of a record begin only when its batch is durable on every drive in service that it concerns, and
//! drives that could not take it are out of a counting configuration; one batch is written at a time, so that a later one proves the earlier;
//! a record covers rows that its writer holds locked, so records of a batch never overlap. `ring` keeps the space, `decide` and `replay` bring
//! a start after a crash in order, `trims` keeps records off units that were trimmed after them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::Group;
use super::write::SlotWrite;
use crate::buf::Buf;
use crate::config::{GroupEntry, JournalMode};
use crate::drive::Drive;
use crate::error::IoError;
use crate::format::journal::{
    Frame, PIECE_LEN, Piece, RECORD_LEN, RECORDS_LEN, Record, checksums, disguise,
};
use crate::ids::{BLOCK_SIZE, DiskNumber, SlotSet};
use crate::runtime::{Env, Runtime};
use crate::sync::{Event, Giver, Mutex, join_all, oneshot};

mod decide;
mod doubtful;
#[cfg(test)]
mod model;
mod proof;
mod replay;
mod ring;
mod trims;

use ring::{Batches, Ring};
use trims::Trims;

/// Blocks at the start of the region for frames without records, used in turn, so that a torn one leaves the one before.
const OPENINGS: u64 = 2;

/// Pieces that a start after a crash has to make good at most: it reads and writes each once or twice.
const PIECES_MAX: usize = 512;

/// What is written to one slot, and the drives that take it.
struct Staged<E: Env> {
    piece: Piece,
    payload: Buf,
    drives: Vec<Rc<Drive<E>>>,
}

/// A record on its way.
struct Pending<E: Env> {
    staged: Vec<Staged<E>>,
    /// A drive that holds the record without taking part, where one drive alone does: what does not read there is known to have been written.
    witness: Option<Rc<Drive<E>>>,
    giver: Giver<Result<u64, IoError>>,
}

impl<E: Env> Pending<E> {
    fn record(&self, index: u16) -> Record {
        Record { index, pieces: self.staged.iter().map(|s| s.piece.clone()).collect() }
    }
}

/// A group's journal.
pub(super) struct Journal<E: Env> {
    mode: JournalMode,
    epoch: Cell<u64>,
    batches: RefCell<Batches>,
    rings: RefCell<BTreeMap<DiskNumber, Ring>>,
    openings: Cell<u64>,
    pending: RefCell<Vec<Pending<E>>>,
    running: Cell<bool>,
    /// Held by whoever writes frames.
    turn: Mutex,
    /// The writes in place of a record have ended.
    ended: Event,
    /// What may lie in the journal does not count, and nothing may be added to it before that is durable.
    unopened: Cell<bool>,
    trims: Trims,
}

/// The writes in place of a record are under way until this is dropped.
pub(super) struct InPlace<E: Env> {
    group: Rc<Group<E>>,
    batch: u64,
}

impl<E: Env> Drop for InPlace<E> {
    fn drop(&mut self) {
        if let Some(journal) = &self.group.journal {
            journal.batches.borrow_mut().end(self.batch);
            journal.ended.notify();
        }
    }
}

impl<E: Env> Journal<E> {
    /// The journal of a group, if it keeps one. Nothing can be added before it was opened.
    pub(super) fn of(entry: &GroupEntry) -> Option<Self> {
        (entry.journal != JournalMode::Off).then(|| Self {
            mode: entry.journal,
            epoch: Cell::new(0),
            batches: RefCell::new(Batches::new()),
            rings: RefCell::default(),
            openings: Cell::new(0),
            pending: RefCell::default(),
            running: Cell::new(false),
            turn: Mutex::default(),
            ended: Event::default(),
            unopened: Cell::new(true),
            trims: Trims::default(),
        })
    }

    /// Whether full stripes are told with their data.
    pub(super) fn is_full(&self) -> bool {
        self.mode == JournalMode::Full
    }

    /// The first batch that a flush beginning now does not cover.
    pub(super) fn settled(&self) -> u64 {
        self.batches.borrow().settled()
    }

    /// Whether everything recorded is durable in place.
    pub(super) fn is_in_place(&self) -> bool {
        self.batches.borrow().pieces() == 0
    }

    /// Every drive was flushed since [`Journal::settled`] gave `settled`.
    pub(super) fn flushed(&self, settled: u64) {
        self.batches.borrow_mut().flushed(settled);
    }

    fn with_ring<T>(&self, drive: &Drive<E>, act: impl FnOnce(&mut Ring) -> T) -> T {
        let mut rings = self.rings.borrow_mut();
        act(rings.entry(drive.number).or_insert_with(|| Ring::new(ring_blocks(drive))))
    }

    /// Takes as many of the records that wait, in their order, as one frame on each drive can hold.
    fn gather(&self) -> (Vec<Pending<E>>, Vec<Part<E>>) {
        let mut parts: BTreeMap<DiskNumber, Part<E>> = BTreeMap::new();
        let mut pieces = 0;
        let mut waiting = self.pending.borrow_mut();
        let mut taken = 0;
        for pending in waiting.iter() {
            let record = pending.record(taken as u16);
            pieces += record.pieces.len();
            let fits = |staged: &Staged<E>| {
                staged.drives.iter().all(|drive| {
                    let part = parts.get(&drive.number);
                    let header = part.map_or(0, |p| p.header_len) + record.encoded_len();
                    let more = record.payload_blocks(staged.piece.slot);
                    let blocks = part.map_or(1, |p| p.blocks) + more;
                    header <= RECORDS_LEN && blocks <= frame_max(drive)
                })
            };
            let witnessed = pending.witness.as_ref().is_none_or(|drive| {
                let header = parts.get(&drive.number).map_or(0, |part| part.header_len);
                header + record.encoded_len() <= RECORDS_LEN
            });
            let fits = witnessed && pending.staged.iter().all(fits);
            if taken > 0 && (pieces > PIECES_MAX || !fits) {
                break;
            }
            add_to_parts(&mut parts, pending, &record);
            taken += 1;
        }
        let batch = waiting.drain(..taken).collect();
        (batch, parts.into_values().collect())
    }

    /// A durable tail frees the frames of earlier batches.
    fn release(&self, tail: u64) {
        self.rings.borrow_mut().values_mut().for_each(|ring| ring.release(tail));
    }
}

/// Blocks of a drive's journal for frames with records.
fn ring_blocks<E: Env>(drive: &Drive<E>) -> u64 {
    replay::region_blocks(&drive.layout) - OPENINGS
}

/// The longest frame that is written to a drive: a few of them fit into its ring.
fn frame_max<E: Env>(drive: &Drive<E>) -> u64 {
    ring_blocks(drive) / 3
}

/// The parts of one batch on one drive.
struct Part<E: Env> {
    drive: Rc<Drive<E>>,
    records: Vec<Record>,
    header_len: usize,
    payload: Vec<Buf>,
    blocks: u64,
}

impl<E: Env> Group<E> {
    /// Cuts writes to one stripe by rows into parts that a record can hold each.
    pub(super) fn windows(&self, writes: Vec<SlotWrite>, with_data: bool) -> Vec<Vec<SlotWrite>> {
        let told = (RECORDS_LEN - RECORD_LEN) / writes.len().max(1);
        let mut rows = (told.saturating_sub(PIECE_LEN) / 4).max(1) as u64;
        if with_data {
            let drives = self.drives_in_service();
            let frame = drives.iter().map(|drive| frame_max(drive)).min().unwrap_or(2);
            rows = rows.min(frame.max(2) - 1);
        }
        let first = writes.iter().map(|w| w.address).min().unwrap_or(0);
        let end = writes.iter().map(SlotWrite::end).max().unwrap_or(0);
        let step = rows * BLOCK_SIZE;
        if end - first <= step {
            return vec![writes];
        }
        let window = |at: u64| writes.iter().filter_map(|w| w.within(at..at + step)).collect();
        (first..end).step_by(step as usize).map(window).filter(|w: &Vec<_>| !w.is_empty()).collect()
    }

    /// Makes a record of `writes` durable (rule J1). They may be done in place until the answer is dropped, and have ended then.
    pub(super) async fn log_writes(
        self: &Rc<Self>,
        journal: &Journal<E>,
        writes: &[SlotWrite],
        with_data: bool,
    ) -> Result<InPlace<E>, IoError> {
        let stage = |write: &SlotWrite| {
            let (main, filler) = self.drives_at(write.slot, write.address);
            let drives: Vec<_> = main.into_iter().chain(filler).collect();
            let crcs = checksums(&write.buf);
            let start = write.address / BLOCK_SIZE;
            let has_payload = with_data && !drives.is_empty();
            let piece = Piece { slot: write.slot, has_payload, start, crcs };
            Staged { piece, payload: write.buf.clone(), drives }
        };
        let (giver, taker) = oneshot();
        let staged: Vec<Staged<E>> = writes.iter().map(stage).collect();
        let witness = self.witness_of(writes);
        journal.pending.borrow_mut().push(Pending { staged, witness, giver });
        if !journal.running.replace(true) {
            let group = Rc::clone(self);
            self.rt.spawn(Box::pin(async move { group.run_journal().await }));
        }
        let batch = taker.take().await.unwrap_or(Err(IoError::Stopped))?;
        Ok(InPlace { group: Rc::clone(self), batch })
    }

    /// The drive that holds a record beside the only member that takes part in it, if there is another. A start reads the journals of members alone, not
    /// of disks that are being filled; one that is copied away is taken last.
    fn witness_of(&self, writes: &[SlotWrite]) -> Option<Rc<Drive<E>>> {
        let members = SlotSet::first(self.geometry.members()).minus(self.missing());
        let told: SlotSet = writes.iter().map(|write| write.slot).collect();
        if told.and(members).len() != 1 {
            return None;
        }
        let others = members.minus(told);
        let copied: SlotSet = self.copied.get().into_iter().collect();
        let slot = others.minus(copied).iter().chain(others.and(copied).iter()).next()?;
        self.slots.borrow()[usize::from(slot.0)].main.clone()
    }

    async fn run_journal(self: Rc<Self>) {
        let Some(journal) = &self.journal else { return };
        loop {
            let _turn = journal.turn.lock().await;
            let (batch, parts) = journal.gather();
            if batch.is_empty() {
                journal.running.set(false);
                return;
            }
            let result = self.write_batch(journal, &batch, parts).await;
            batch.into_iter().for_each(|pending| pending.giver.give(result));
        }
    }

    /// Makes a batch durable and answers its number. The caller has the turn.
    async fn write_batch(
        self: &Rc<Self>,
        journal: &Journal<E>,
        batch: &[Pending<E>],
        parts: Vec<Part<E>>,
    ) -> Result<u64, IoError> {
        if journal.unopened.get() {
            self.reopen(journal).await?;
        }
        // What was planned without a member is told once that is out: else a start that trusts it would take what it holds for part of the row.
        self.failures_committed().await?;
        // The same of blocks: that they are lost is on disk before records that do not tell them.
        self.persist_lost().await?;
        let pieces = batch.iter().map(|pending| pending.staged.len()).sum();
        self.make_room(journal, pieces, &parts).await?;
        let (number, tail) = {
            let batches = journal.batches.borrow();
            (batches.next(), batches.tail())
        };
        let writes = parts.into_iter().map(|part| async move {
            let at = journal.with_ring(&part.drive, |ring| ring.take(number, part.blocks));
            let place = OPENINGS + at.expect("room was made");
            let frame = Frame {
                epoch: journal.epoch.get(),
                batch: number,
                tail,
                place,
                payload: part.blocks as u32 - 1,
                records: part.records,
            };
            self.write_frame(&part.drive, &frame, &part.payload).await
        });
        let durable = join_all(writes).await.into_iter().all(|durable| durable);
        let committed = self.failures_committed().await;
        if !durable || committed.is_err() {
            // It may lie on some drives, and must not be proved by a later one.
            journal.batches.borrow_mut().skip();
            journal.unopened.set(true);
            return Err(IoError::Io);
        }
        journal.release(tail);
        Ok(journal.batches.borrow_mut().begin(batch.len() as u32, pieces))
    }

    /// Writes a frame and flushes it. `false`: a drive that cannot be spared does not hold it.
    async fn write_frame(
        self: &Rc<Self>,
        drive: &Rc<Drive<E>>,
        frame: &Frame,
        payload: &[Buf],
    ) -> bool {
        let block = BLOCK_SIZE as usize;
        let mut buf = Buf::zeroed((1 + frame.payload as usize) * block);
        let bytes = buf.bytes_mut();
        bytes[..block].copy_from_slice(&frame.encode(self.uuid));
        let mut at = block;
        for piece in payload {
            bytes[at..at + piece.len()].copy_from_slice(piece);
            at += piece.len();
        }
        bytes[block..].chunks_mut(block).for_each(disguise);
        let offset = drive.layout.journal.offset + frame.place * BLOCK_SIZE;
        let late = || self.give_up(drive, "writing the journal timed out".into());
        if let Err(fault) = drive.write_meta_or(offset, buf, late).await {
            return self.give_up(drive, format!("{fault} on writing the journal"));
        }
        match self.flush_drive(drive).await {
            Ok(()) => true,
            Err(fault) => self.flush_failed(drive, format!("{fault} on flushing the journal")),
        }
    }

    /// Waits until `pieces` more may be in flight and every part fits its ring.
    async fn make_room(
        self: &Rc<Self>,
        journal: &Journal<E>,
        pieces: usize,
        parts: &[Part<E>],
    ) -> Result<(), IoError> {
        let fits =
            || parts.iter().all(|part| journal.with_ring(&part.drive, |r| r.fits(part.blocks)));
        let few = || {
            let open = journal.batches.borrow().pieces();
            open == 0 || open + pieces <= PIECES_MAX
        };
        if parts.iter().any(|part| part.blocks > ring_blocks(&part.drive)) {
            return Err(IoError::Io); // Cut for a larger journal than a drive that joined since has.
        }
        while !few() || !fits() {
            let ready = || {
                let batches = journal.batches.borrow();
                batches.settled() > batches.tail() || batches.pieces() == 0
            };
            journal.ended.wait_until(ready).await;
            self.flush_drives().await?;
            if !fits() {
                self.write_opening(journal).await?;
            }
        }
        Ok(())
    }

    /// Writes a frame without records everywhere: what the tail has passed counts no more. The caller has the turn.
    async fn write_opening(self: &Rc<Self>, journal: &Journal<E>) -> Result<(), IoError> {
        self.persist_lost().await?; // What a flush that failed has lost is listed before the records are let go that told it.
        let (batch, tail) = {
            let batches = journal.batches.borrow();
            (batches.next(), batches.tail())
        };
        journal.openings.set(journal.openings.get() + 1);
        let place = journal.openings.get() % OPENINGS;
        let frame =
            Frame { epoch: journal.epoch.get(), batch, tail, place, payload: 0, records: vec![] };
        let drives = self.drives_in_service();
        let written = join_all(drives.iter().map(|d| self.write_frame(d, &frame, &[]))).await;
        self.failures_committed().await?;
        if !written.into_iter().all(|well| well) {
            return Err(IoError::Io);
        }
        journal.release(tail);
        Ok(())
    }

    /// Makes durable that nothing in the journal counts any more. The caller has the turn.
    async fn reopen(self: &Rc<Self>, journal: &Journal<E>) -> Result<(), IoError> {
        let all = || {
            let batches = journal.batches.borrow();
            batches.settled() == batches.next()
        };
        journal.ended.wait_until(all).await;
        self.flush_drives().await?;
        self.write_opening(journal).await?;
        journal.unopened.set(false);
        Ok(())
    }

    /// Flushes the group and empties its journal: what stands there now will not be replayed.
    /// Rare, so its state is kept apart from that of the flows that may come to it.
    pub(crate) fn empty_journal(
        self: &Rc<Self>,
    ) -> Pin<Box<dyn Future<Output = Result<(), IoError>> + '_>> {
        Box::pin(async move {
            let Some(journal) = &self.journal else { return Ok(()) };
            let _turn = journal.turn.lock().await;
            self.reopen(journal).await
        })
    }

    /// Whether every change in place is journaled, so that nothing needs a resync after a crash.
    pub(crate) fn is_journaled(&self) -> bool {
        self.journal.is_some()
    }

    /// Begins an epoch: from the first record on nothing that earlier ones left counts, also where it could not be replayed.
    pub(crate) fn begin_epoch(&self, epoch: u64) {
        if let Some(journal) = &self.journal {
            journal.epoch.set(epoch);
        }
    }

    /// Begins an epoch; what earlier ones left was replayed. A group that cannot take it now tries again with its first write.
    pub(crate) async fn open_journal(self: &Rc<Self>, epoch: u64) {
        self.begin_epoch(epoch);
        let _ = self.empty_journal().await;
    }
}

/// Adds a record to the parts of the drives that it concerns.
fn add_to_parts<E: Env>(
    parts: &mut BTreeMap<DiskNumber, Part<E>>,
    pending: &Pending<E>,
    record: &Record,
) {
    let concerned = pending.staged.iter().flat_map(|staged| &staged.drives).chain(&pending.witness);
    let mut told = std::collections::BTreeSet::new();
    for drive in concerned.filter(|drive| told.insert(drive.number)) {
        let part = parts.entry(drive.number).or_insert_with(|| Part {
            drive: Rc::clone(drive),
            records: Vec::new(),
            header_len: 0,
            payload: Vec::new(),
            blocks: 1,
        });
        part.records.push(record.clone());
        part.header_len += record.encoded_len();
    }
    for staged in pending.staged.iter().filter(|staged| staged.piece.has_payload) {
        for drive in &staged.drives {
            let part = parts.get_mut(&drive.number).expect("entered above");
            part.payload.push(staged.payload.clone());
            part.blocks += staged.piece.blocks();
        }
    }
}
