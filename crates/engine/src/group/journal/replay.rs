//! Making good what a crash left half-way (rules J2, J4).
//!
//! Owns the start after an unclean stop. Invariants: reads no more than the journals of the members, and the rows that their records name; every
//! step may be done again after another crash; of each block only the newest record that counts is applied; rows of full stripes,
//! whose data was not journaled, are kept as read and their parity is made to fit; a block of a missing member is rebuilt only where its
//! checksum proves it, else hosts get errors for it until it is written. What proves rows new is in `proof`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::super::Group;
use super::super::ranges::Ranges;
use super::super::write::SlotWrite;
use super::OPENINGS;
use super::decide::{Counting, Found, Held, Source, decide};
use crate::buf::Buf;
use crate::disk::FaultKind;
use crate::drive::Drive;
use crate::error::IoError;
use crate::format::codec::crc32c;
use crate::format::journal::{Frame, undisguise};
use crate::format::layout::{JOURNAL_MAX, Layout};
use crate::ids::{BLOCK_SIZE, Slot, SlotSet, Stripe};
use crate::runtime::Env;
use crate::sync::join_all;

/// Bytes of one read of a journal.
const READ: u64 = 1 << 20;

/// Blocks of a disk's journal region that are used.
pub(super) fn region_blocks(layout: &Layout) -> u64 {
    layout.journal.len.min(JOURNAL_MAX) / BLOCK_SIZE
}

/// What a replay did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Replayed {
    /// Records that were applied.
    pub(crate) records: u64,
    /// Blocks that nothing proves: errors for hosts.
    pub(crate) unproved: u64,
}

/// What the records say of blocks that are not simply written.
#[derive(Default)]
pub(super) struct Doubts {
    /// Rows, as member blocks, whose parity may not fit.
    rows: BTreeSet<u64>,
    /// Blocks of members that are there, whose part of a record is not.
    unreadable: BTreeSet<(Slot, u64)>,
    /// The newest contents of blocks that are not simply written, by checksum.
    expected: BTreeMap<(Slot, u64), u32>,
}

impl Doubts {
    /// The checksum of the newest contents of a block that is not simply written.
    pub(super) fn told(&self, slot: Slot, address: u64) -> Option<u32> {
        self.expected.get(&(slot, address / BLOCK_SIZE)).copied()
    }
}

impl<E: Env> Group<E> {
    /// Replays the journal. Nothing else is under way in the group.
    ///
    /// # Errors
    /// If a member that cannot be spared did not take what is due.
    pub(crate) async fn replay_journal(self: &Rc<Self>) -> Result<Replayed, IoError> {
        let mut done = Replayed::default();
        if self.journal.is_none() {
            return Ok(done);
        }
        let mains: Vec<Option<Rc<Drive<E>>>> =
            self.with_slots(|slots| slots.iter().map(|s| s.main.clone()).collect());
        if mains.iter().all(Option::is_none) {
            return Ok(done);
        }
        let mut found = Vec::new();
        for (slot, main) in (0..).map(Slot).zip(mains) {
            found.push(match main {
                Some(drive) => Some(self.read_frames(slot, &drive).await),
                None => None,
            });
        }
        let told = decide(&found);
        drop(found);
        let newest = slots_of_newest(&told);
        let begun = self.newest_is_in_place(&told).await;
        let (doubtful, sure): (Vec<_>, Vec<_>) =
            told.into_iter().partition(|record| record.doubtful && !begun);
        self.apply(sure, &newest, &mut done).await?;
        if self.had_begun(&doubtful).await {
            self.apply(doubtful, &newest, &mut done).await?;
        }
        self.flush().await?;
        Ok(done)
    }

    /// Makes records good.
    async fn apply(
        self: &Rc<Self>,
        records: Vec<Counting>,
        newest: &BTreeMap<u64, SlotSet>,
        done: &mut Replayed,
    ) -> Result<(), IoError> {
        done.records += records.len() as u64;
        let left = self.rows_of_before(&records).await;
        let (writes, doubts) = self.sort_out(records, &left, newest);
        for write in writes {
            let slot = write.slot;
            for taken in self.write_or_lose(write).await?.iter() {
                self.lost.overwritten(slot, taken.start, taken.end - taken.start);
            }
        }
        for run in self.runs_of(&doubts.rows) {
            done.unproved += self.make_rows_whole(run, &doubts).await?;
        }
        Ok(())
    }

    /// Every frame of this group on the drive of `slot`, with the payload that fits.
    async fn read_frames(&self, slot: Slot, drive: &Rc<Drive<E>>) -> Held {
        let block = BLOCK_SIZE as usize;
        let (bytes, unread) = read_region(drive).await;
        let headers = bytes.chunks(block).zip(0..);
        let frames: Vec<Frame> =
            headers.filter_map(|(at, place)| Frame::decode(at, self.uuid, place)).collect();
        // What this drive itself shows to count no more need not be kept.
        let epoch = frames.iter().map(|f| f.epoch).max();
        let of_epoch = |f: &&Frame| Some(f.epoch) == epoch;
        let tail = frames.iter().filter(of_epoch).map(|f| f.tail).max().unwrap_or(0);
        let blocks_of = |f: &Frame| f.place..f.place + 1 + u64::from(f.payload);
        // Where a header may be that does not read: behind the last frame, or where the ring begins.
        let in_ring = frames.iter().filter(of_epoch).filter(|f| f.place >= OPENINGS);
        let next = in_ring.max_by_key(|f| f.batch).map_or(OPENINGS, |f| blocks_of(f).end);
        let outside = unread.contains(&next) || unread.contains(&OPENINGS);
        let live = frames.into_iter().filter(|f| Some(f.epoch) == epoch && f.batch >= tail);
        let frames = live.map(|frame| {
            let from = (frame.place as usize + 1) * block;
            let end = (from + frame.payload as usize * block).min(bytes.len());
            let payload = payload_of(&frame, slot, &mut bytes[from..end].to_vec());
            let unread = unread.range(blocks_of(&frame)).next().is_some();
            Found { frame, payload, unread }
        });
        Held { frames: frames.collect(), unread: outside }
    }

    /// Writes what is due of one slot. Blocks that a member does not take, which cannot be spared, are listed lost, as when a host writes them (rule M5).
    /// Answers those that were taken, as member addresses, in runs.
    async fn write_or_lose(self: &Rc<Self>, write: SlotWrite) -> Result<Ranges, IoError> {
        let SlotWrite { slot, address, buf } = write;
        let len = buf.len() as u64;
        if self.write_slot(slot, address, buf.clone()).await.is_ok() {
            return Ok(std::iter::once(address..address + len).collect());
        }
        let mut taken = Vec::new();
        for at in (0..len).step_by(BLOCK_SIZE as usize) {
            let block = buf.slice(at as usize..(at + BLOCK_SIZE) as usize);
            match self.write_slot(slot, address + at, block).await {
                Ok(()) => taken.push(address + at..address + at + BLOCK_SIZE),
                Err(fault) if fault.kind == FaultKind::Medium => {
                    self.lose(slot, address + at, BLOCK_SIZE).await?;
                }
                Err(_) => return Err(IoError::Io),
            }
        }
        Ok(taken.into_iter().collect())
    }

    /// What to write, and what is left in doubt: of each block the newest record counts, but of rows that are `left` to the records before the newest batch,
    /// and of parity that the `newest` record of its row does not tell.
    fn sort_out(
        &self,
        records: Vec<Counting>,
        left: &BTreeSet<u64>,
        newest: &BTreeMap<u64, SlotSet>,
    ) -> (Vec<SlotWrite>, Doubts) {
        let mut seen = BTreeSet::new();
        let mut writes = Vec::new();
        let mut doubts = Doubts::default();
        let records = records.into_iter();
        let pieces = records.flat_map(|record| {
            let of_newest = record.doubtful;
            record.pieces.into_iter().map(move |(piece, source)| (of_newest, piece, source))
        });
        for (of_newest, piece, source) in pieces {
            for (at, crc) in piece.crcs.iter().enumerate() {
                let block = piece.start + at as u64;
                let address = block * BLOCK_SIZE;
                let slot = piece.slot;
                let outside = usize::from(slot.0) >= self.geometry.members();
                if outside || !self.is_inside(block) || of_newest && left.contains(&block) {
                    continue;
                }
                let is_told = newest.get(&block).is_some_and(|told| told.contains(slot));
                if !is_told && self.is_parity(slot, block) {
                    continue; // It was listed lost by then, or its member was out.
                }
                if !seen.insert((slot, block)) {
                    continue;
                }
                match &source {
                    Source::Payload(data) => {
                        let from = at * BLOCK_SIZE as usize;
                        let buf = data.slice(from..from + BLOCK_SIZE as usize);
                        writes.push(SlotWrite { slot, address, buf });
                        continue;
                    }
                    Source::InPlace => drop(doubts.rows.insert(block)),
                    Source::Unreadable => {
                        doubts.rows.insert(block);
                        doubts.unreadable.insert((slot, block));
                    }
                    Source::Missing => {}
                }
                doubts.expected.insert((slot, block), *crc);
            }
        }
        writes.sort_by_key(|w| (w.slot, w.address));
        (join_runs(writes), doubts)
    }

    fn is_parity(&self, slot: Slot, block: u64) -> bool {
        let (stripe, _) = self.geometry.at_address(block * BLOCK_SIZE);
        self.column_index(stripe, slot) >= self.geometry.data_columns()
    }

    /// Rows in runs that lie in one stripe each.
    pub(super) fn runs_of(&self, rows: &BTreeSet<u64>) -> Vec<(u64, u64)> {
        let per_chunk = u64::from(self.geometry.chunk()) / BLOCK_SIZE;
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for &row in rows {
            match runs.last_mut() {
                Some((first, end)) if *end == row && *first / per_chunk == row / per_chunk => {
                    *end += 1;
                }
                _ => runs.push((row, row + 1)),
            }
        }
        runs
    }

    /// Makes a run of rows agree with itself; answers how many blocks were listed lost.
    async fn make_rows_whole(
        self: &Rc<Self>,
        (first, end): (u64, u64),
        doubts: &Doubts,
    ) -> Result<u64, IoError> {
        let (stripe, row) = self.geometry.at_address(first * BLOCK_SIZE);
        let rows = row..row + ((end - first) * BLOCK_SIZE) as u32;
        let unreadable = (first..end).any(|b| doubts.unreadable.iter().any(|(_, at)| *at == b));
        if self.prove_rows(stripe, &rows, doubts).await? {
            return Ok(0);
        }
        if self.missing().is_empty() && !unreadable {
            self.believe_in_flight(first..end, doubts).await;
            self.resync_rows_or_blocks(stripe, rows).await?;
            return Ok(0);
        }
        let mut lost = 0;
        for block in first..end {
            let row = rows.start + ((block - first) * BLOCK_SIZE) as u32;
            if self.prove_rows(stripe, &(row..row + BLOCK_SIZE as u32), doubts).await? {
                continue;
            }
            self.believe_in_flight(block..block + 1, doubts).await;
            lost += self.resolve_row(block, doubts).await?;
        }
        Ok(lost)
    }

    /// One row of blocks with members missing, or with parts of its record unreadable.
    async fn resolve_row(self: &Rc<Self>, block: u64, doubts: &Doubts) -> Result<u64, IoError> {
        let address = block * BLOCK_SIZE;
        let (stripe, row) = self.geometry.at_address(address);
        let rows = row..row + BLOCK_SIZE as u32;
        let readable = self.view(stripe, rows.clone()).readable;
        let reads = readable.iter().map(|slot| self.read_slot(slot, address, BLOCK_SIZE as usize));
        let members = self.geometry.members();
        let mut bufs: Vec<Option<Buf>> = vec![None; members];
        for (slot, read) in readable.iter().zip(join_all(reads).await) {
            bufs[usize::from(slot.0)] = read.ok();
        }
        // A part that cannot be read does no harm where its block is in place already.
        let expected = |slot: Slot| doubts.told(slot, address);
        let in_place = |slot: &Slot| {
            bufs[usize::from(slot.0)].as_ref().is_some_and(|buf| {
                !doubts.unreadable.contains(&(*slot, block)) || expected(*slot) == Some(crc32c(buf))
            })
        };
        let erased = SlotSet::first(members).iter().filter(|slot| !in_place(slot)).collect();
        let row = Row { stripe, address, bufs, erased };
        if erased.len() > self.geometry.parity_columns() {
            return self.distrust_row(&row).await;
        }
        for candidate in self.candidates(&row) {
            let proved = erased.iter().all(|slot| {
                let column = self.column_index(stripe, slot);
                let crc = crc32c(&candidate[column]);
                expected(slot).is_none_or(|told| told == crc)
            });
            if proved {
                let lost = self.write_row(&row, &candidate).await?;
                for slot in erased.minus(lost).iter() {
                    self.lost.overwritten(slot, row.address, BLOCK_SIZE);
                }
                return Ok(0);
            }
        }
        self.give_row_up(&row).await
    }

    /// The contents that the row may have, by column: one for each choice of the parity that is believed.
    pub(super) fn candidates(&self, row: &Row) -> Vec<Vec<Buf>> {
        let (k, n) = (self.geometry.data_columns(), self.geometry.members());
        let mut columns: Vec<Option<Buf>> = vec![None; n];
        for slot in SlotSet::first(n).minus(row.erased).iter() {
            columns[self.column_index(row.stripe, slot)] = row.bufs[usize::from(slot.0)].clone();
        }
        let missing_data = (0..k).filter(|c| columns[*c].is_none()).count();
        let parities: Vec<usize> = (k..n).filter(|c| columns[*c].is_some()).collect();
        let mut found = Vec::new();
        // Each set of as many parities as there are data columns to compute.
        for set in 0_u32..1 << parities.len() {
            if set.count_ones() as usize != missing_data {
                continue;
            }
            let copies = columns.iter().map(|column| column.as_deref().map(Buf::copy_of));
            let mut chosen: Vec<Option<Buf>> = copies.collect();
            for (i, parity) in parities.iter().enumerate() {
                if set >> i & 1 == 0 {
                    chosen[*parity] = None;
                }
            }
            let wanted: Vec<usize> = (0..k).filter(|c| chosen[*c].is_none()).collect();
            if !wanted.is_empty() {
                self.recover(&mut chosen, &wanted, BLOCK_SIZE as usize);
            }
            let data: Vec<&[u8]> =
                chosen[..k].iter().map(|c| c.as_deref().expect("all data is there")).collect();
            let made = self.make_parity(&data, BLOCK_SIZE as usize);
            let data = chosen[..k].iter().flatten().cloned();
            found.push(data.chain(made).collect());
        }
        found
    }

    /// Writes what of `contents` the members that are there do not hold; answers the slots that did not take it, and are listed lost.
    pub(super) async fn write_row(
        self: &Rc<Self>,
        row: &Row,
        contents: &[Buf],
    ) -> Result<SlotSet, IoError> {
        let mut lost = SlotSet::EMPTY;
        for at in 0..self.geometry.members() {
            let slot = Slot(at as u8);
            let wanted = &contents[self.column_index(row.stripe, slot)];
            let there = self.drives_at(slot, row.address).0.is_some();
            if there && row.bufs[at].as_deref() != Some(&wanted[..]) {
                let write = SlotWrite { slot, address: row.address, buf: wanted.clone() };
                if self.write_or_lose(write).await?.is_empty() {
                    lost = lost.with(slot);
                }
            }
        }
        Ok(lost)
    }

    /// More is gone than the level can tell: what is missing is listed lost, and parity with it, since it may not fit. Data that is there
    /// is kept as it is.
    async fn distrust_row(self: &Rc<Self>, row: &Row) -> Result<u64, IoError> {
        let k = self.geometry.data_columns();
        let mut lost = 0;
        for slot in SlotSet::first(self.geometry.members()).iter() {
            let is_parity = self.column_index(row.stripe, slot) >= k;
            if is_parity || self.missing().contains(slot) {
                self.lose(slot, row.address, BLOCK_SIZE).await?;
                lost += u64::from(!is_parity);
            }
        }
        Ok(lost)
    }

    /// Nothing proves the data that is gone: parity is made to agree with what is there and with what follows for the rest, and hosts get
    /// errors for that.
    async fn give_row_up(self: &Rc<Self>, row: &Row) -> Result<u64, IoError> {
        let k = self.geometry.data_columns();
        let is_data = |slot: &Slot| self.column_index(row.stripe, *slot) < k;
        let mut unproved = 0;
        for slot in row.erased.iter().filter(is_data) {
            self.enter_unproved(slot, row.address, BLOCK_SIZE).await?;
            unproved += 1;
        }
        if let Some(contents) = self.candidates(row).first() {
            self.write_row(row, contents).await?;
        }
        Ok(unproved)
    }
}

/// The slots that the newest record of each row tells, by member block, whether it counts or not. It was made with all the parity that there was.
fn slots_of_newest(records: &[Counting]) -> BTreeMap<u64, SlotSet> {
    let mut newest: BTreeMap<u64, (usize, SlotSet)> = BTreeMap::new();
    for (number, record) in records.iter().enumerate() {
        for (piece, _) in &record.pieces {
            for block in (piece.start..).take(piece.crcs.len()) {
                let (of, told) = newest.entry(block).or_insert((number, SlotSet::EMPTY));
                if *of == number {
                    *told = told.with(piece.slot);
                }
            }
        }
    }
    newest.into_iter().map(|(block, (_, told))| (block, told)).collect()
}

/// One row of blocks.
pub(super) struct Row {
    pub(super) stripe: Stripe,
    pub(super) address: u64,
    /// What each slot holds, where it can be read.
    pub(super) bufs: Vec<Option<Buf>>,
    /// Slots whose block is not known.
    pub(super) erased: SlotSet,
}

/// The journal of a drive, with zeroes where it does not read, and the blocks that do not.
async fn read_region<E: Env>(drive: &Rc<Drive<E>>) -> (Vec<u8>, BTreeSet<u64>) {
    let blocks = region_blocks(&drive.layout);
    let mut bytes = Vec::with_capacity((blocks * BLOCK_SIZE) as usize);
    let mut unread = BTreeSet::new();
    while (bytes.len() as u64) < blocks * BLOCK_SIZE {
        let at = bytes.len() as u64;
        let len = READ.min(blocks * BLOCK_SIZE - at);
        let offset = drive.layout.journal.offset;
        if let Ok(read) = drive.read_meta(offset + at, len).await {
            bytes.extend_from_slice(&read);
            continue;
        }
        for block in (at..at + len).step_by(BLOCK_SIZE as usize) {
            match drive.read_meta(offset + block, BLOCK_SIZE).await {
                Ok(read) => bytes.extend_from_slice(&read),
                Err(_) => {
                    unread.insert(block / BLOCK_SIZE);
                    bytes.resize(bytes.len() + BLOCK_SIZE as usize, 0);
                }
            }
        }
    }
    (bytes, unread)
}

/// The payload of `slot` in the blocks behind a header, as far as it fits its checksums.
fn payload_of(frame: &Frame, slot: Slot, rest: &mut [u8]) -> BTreeMap<(u16, usize), Buf> {
    let block = BLOCK_SIZE as usize;
    let mut payload = BTreeMap::new();
    let mut blocks = rest.chunks_mut(block).take(frame.payload as usize);
    for record in &frame.records {
        for (at, piece) in record.pieces.iter().enumerate() {
            if piece.slot != slot || !piece.has_payload {
                continue;
            }
            let mut buf = Buf::zeroed(piece.crcs.len() * block);
            let mut whole = true;
            for (part, crc) in buf.bytes_mut().chunks_mut(block).zip(&piece.crcs) {
                let Some(found) = blocks.next() else {
                    whole = false;
                    break;
                };
                whole &= undisguise(found, *crc);
                part.copy_from_slice(found);
            }
            if whole {
                payload.insert((record.index, at), buf);
            }
        }
    }
    payload
}

/// Joins writes of one slot that touch.
fn join_runs(writes: Vec<SlotWrite>) -> Vec<SlotWrite> {
    let mut runs: Vec<(Slot, u64, Vec<Buf>)> = Vec::new();
    for write in writes {
        match runs.last_mut() {
            Some((slot, at, bufs))
                if *slot == write.slot
                    && *at + bufs.len() as u64 * BLOCK_SIZE == write.address
                    && (bufs.len() as u64) * BLOCK_SIZE < READ =>
            {
                bufs.push(write.buf);
            }
            _ => runs.push((write.slot, write.address, vec![write.buf])),
        }
    }
    runs.into_iter()
        .map(|(slot, address, bufs)| SlotWrite { slot, address, buf: Buf::joined(bufs) })
        .collect()
}
