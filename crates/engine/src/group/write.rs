//! Writing a group: stripe by stripe, parity made as the plan says.
//!
//! Owns the flows from a logical range of whole blocks to member writes. Invariants: an intent bit is durable before the first
//! in-place write of its region (rule M2); a stripe's rows are locked from its first read to its last write; a write that
//! fails on a member either takes that member out or is entered as lost and answered with an error; with a journal no write in place begins
//! before its record is durable (rule J1). The first write of an unwritten unit is `first_write`'s.

use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::around::Patience;
use super::faulty::Faulty;
use super::journal::Journal;
use super::store::OnFull;
use crate::buf::Buf;
use crate::disk::{DiskFault, FaultKind};
use crate::error::IoError;
use crate::geometry::StripeRange;
use crate::ids::{BLOCK_SIZE, Slot, SlotSet, Stripe};
use crate::plan::{Band, Method, Unwritable, plan_write_around};
use crate::runtime::Env;
use crate::sync::{Hold, join_all};

/// Stripes written at once for one request.
const STRIPES_AT_ONCE: usize = 16;

/// Bytes to be written to one slot.
#[derive(Clone)]
pub(super) struct SlotWrite {
    pub(super) slot: Slot,
    pub(super) address: u64,
    pub(super) buf: Buf,
}

impl SlotWrite {
    /// First member address behind it.
    pub(super) fn end(&self) -> u64 {
        self.address + self.buf.len() as u64
    }

    /// The part of it inside `range`.
    pub(super) fn within(&self, range: Range<u64>) -> Option<Self> {
        let (start, end) = (self.address.max(range.start), self.end().min(range.end));
        (start < end).then(|| Self {
            slot: self.slot,
            address: start,
            buf: self.buf.slice((start - self.address) as usize..(end - self.address) as usize),
        })
    }
}

impl<E: Env> Group<E> {
    /// Writes whole blocks of the group's data space.
    pub(crate) async fn write(self: &Rc<Self>, offset: u64, data: Buf) -> Result<(), IoError> {
        self.answering().await;
        let mut ranges = self.geometry.stripe_ranges(offset, data.len() as u64).peekable();
        let mut outcome = Ok(());
        while let Some(first) = ranges.next() {
            if ranges.peek().is_none() {
                return outcome.and(self.write_stripe(first, &data).await);
            }
            let batch = std::iter::once(first).chain(ranges.by_ref().take(STRIPES_AT_ONCE - 1));
            for result in join_all(batch.map(|range| self.write_stripe(range, &data))).await {
                outcome = outcome.and(result);
            }
        }
        outcome
    }

    async fn write_stripe(self: &Rc<Self>, range: StripeRange, data: &Buf) -> Result<(), IoError> {
        let StripeRange { stripe, within, at } = range;
        let data = data.slice(at as usize..(at + within.end - within.start) as usize);
        let rows = self.rows_of(&within);
        let address = self.geometry.member_address(stripe, rows.start);
        let mut locked = address..address + rows.len() as u64;
        loop {
            let first = self.unwritten.reads_zero(stripe);
            if first {
                let chunk = u64::from(self.geometry.chunk());
                let unit = self.unwritten.stripes_of(self.unwritten.unit_of(stripe));
                locked = unit.start * chunk..unit.end * chunk;
            }
            if self.has_parity() {
                self.make_whole_before_read(address).await?;
            }
            let _guard = self.rows.lock(locked.clone(), Hold::Exclusive).await;
            if self.unwritten.reads_zero(stripe) != first {
                if first {
                    locked = address..address + rows.len() as u64;
                }
                continue; // Somebody wrote or trimmed the unit while we waited: lock what is right now.
            }
            let _busy = self.begin_write(locked.start).await?;
            if first {
                self.forget_records(self.unwritten.unit_of(stripe)).await?;
            }
            return if first {
                self.write_first(stripe, within, &data).await
            } else {
                self.write_in_place(stripe, within, &data).await
            };
        }
    }

    /// The rows that writing `within` of a stripe changes, data and parity.
    fn rows_of(&self, within: &Range<u64>) -> Range<u32> {
        let chunk = u64::from(self.geometry.chunk());
        if within.start / chunk == (within.end - 1) / chunk {
            (within.start % chunk) as u32..((within.end - 1) % chunk + 1) as u32
        } else {
            0..self.geometry.chunk()
        }
    }

    /// Writes a part of a stripe whose rows are locked and whose unit is written.
    pub(super) async fn write_in_place(
        self: &Rc<Self>,
        stripe: Stripe,
        within: Range<u64>,
        data: &Buf,
    ) -> Result<(), IoError> {
        if self.has_parity() && !self.geometry.still_whole(self.missing()) {
            // Parity on absent members could not be kept true, and what they hold would be wrong when they come back.
            return Err(IoError::Io);
        }
        let address = self.geometry.member_address(stripe, 0);
        let chunk = u64::from(self.geometry.chunk());
        if !self.lost.overlaps_any(self.geometry.members(), address, chunk) {
            match self.try_write(stripe, within.clone(), data).await {
                Err(Short::Replan) if within.end - within.start > BLOCK_SIZE => {}
                result => return result.map_err(Short::into_error),
            }
        }
        // Lost or unreadable blocks about: each block by itself, so that none suffers for another.
        let mut outcome = Ok(());
        for at in (within.start..within.end).step_by(BLOCK_SIZE as usize) {
            let from = (at - within.start) as usize;
            let block = data.slice(from..from + BLOCK_SIZE as usize);
            let result = self.try_write(stripe, at..at + BLOCK_SIZE, &block).await;
            outcome = outcome.and(result.map_err(Short::into_error));
        }
        outcome
    }

    /// Plans and executes; reads that fail are planned around.
    async fn try_write(
        self: &Rc<Self>,
        stripe: Stripe,
        within: Range<u64>,
        data: &Buf,
    ) -> Result<(), Short> {
        let mut not = SlotSet::EMPTY;
        let (mut patience, mut slow) = (Patience::Short, SlotSet::EMPTY);
        let rows = self.rows_of(&within);
        let address = self.geometry.member_address(stripe, rows.start);
        let mut faulty = Faulty::default();
        loop {
            let (view, unread) = (self.view(stripe, rows.clone()), not.or(slow));
            let plan = plan_write_around(&self.geometry, stripe, within.clone(), view, unread);
            let plan = match plan {
                Ok(plan) => plan,
                Err(_) if !slow.is_empty() => {
                    // Slow is not lost: without it the write is not possible, so it is waited for.
                    (patience, slow) = (Patience::Long, SlotSet::EMPTY);
                    continue;
                }
                Err(_) if !not.is_empty() && self.believe_unknown(stripe, rows.clone()).await => {
                    not = SlotSet::EMPTY;
                    continue;
                }
                Err(Unwritable::ParityUnknown { spoils })
                    if within.end - within.start == BLOCK_SIZE =>
                {
                    // Parity that nothing can keep true is entered as lost, and the block can be written (rule M5).
                    for slot in spoils.iter() {
                        self.lose(slot, address, BLOCK_SIZE).await.map_err(Short::Error)?;
                    }
                    continue;
                }
                Err(_) if not.is_empty() && within.end - within.start == BLOCK_SIZE => {
                    self.count_faulty(faulty, address, false);
                    return Err(Short::Error(IoError::Io));
                }
                Err(_) => return Err(Short::Replan),
            };
            let mut writes = Vec::new();
            let mut all = true;
            for band in &plan.bands {
                assert!(band.stale.is_empty(), "every readable slot takes writes");
                match self.read_slots_with(patience, stripe, band.reads, band.rows.clone()).await {
                    Ok(old) => self.prepare_parity(stripe, band, &within, data, old, &mut writes),
                    Err(missed) => {
                        (not, slow, all) = (not.or(missed.failed), slow.or(missed.slow), false);
                        faulty = faulty.or(missed.faulty);
                    }
                }
            }
            if !all {
                continue;
            }
            self.prepare_data(stripe, &within, data, &plan.bands, &mut writes);
            self.forget_owed(stripe, &within, rows.clone());
            let anew = written_whole(&writes, address..address + rows.len() as u64);
            let written = match &self.journal {
                Some(journal) => self.write_journaled(journal, stripe, writes, &plan.bands).await,
                None => self.execute(stripe, writes).await,
            };
            self.count_or_mend(stripe, faulty, anew, &rows);
            if written.is_ok() {
                self.overwritten_by_peers(stripe, &within);
            }
            return written.map_err(Short::Error);
        }
    }

    /// Whether the journal takes the data of these bands: not of full stripes of a whole group, unless that was asked for. Where a member is
    /// missing the data is what keeps its blocks from being lost by a crash alone.
    fn journals_data(&self, journal: &Journal<E>, bands: &[Band]) -> bool {
        let full = bands.iter().all(|band| band.method == Method::Full);
        !full || journal.is_full() || !self.missing().is_empty()
    }

    /// Does the writes of one stripe, each part of its rows once it is durable in the journal (rule J1).
    async fn write_journaled(
        self: &Rc<Self>,
        journal: &Journal<E>,
        stripe: Stripe,
        writes: Vec<SlotWrite>,
        bands: &[Band],
    ) -> Result<(), IoError> {
        let with_data = self.journals_data(journal, bands);
        let mut outcome = Ok(());
        for window in self.windows(writes, with_data) {
            let _in_place = self.log_writes(journal, &window, with_data).await?;
            outcome = outcome.and(self.execute(stripe, window).await);
        }
        outcome
    }

    /// What peers alone hold now of a slot that is missing is known again.
    fn overwritten_by_peers(&self, stripe: Stripe, within: &Range<u64>) {
        let missing = self.missing();
        if missing.is_empty() {
            return;
        }
        for (column, rows, _) in column_parts(u64::from(self.geometry.chunk()), within.clone()) {
            let address = self.geometry.member_address(stripe, rows.start as u32);
            for slot in self.geometry.copies(stripe, column).and(missing).iter() {
                self.lost.overwritten(slot, address, rows.len() as u64);
            }
        }
    }

    /// New P and Q of one band.
    fn prepare_parity(
        &self,
        stripe: Stripe,
        band: &Band,
        within: &Range<u64>,
        data: &Buf,
        old: Vec<(Slot, Buf)>,
        writes: &mut Vec<SlotWrite>,
    ) {
        if !band.write_p && !band.write_q {
            return;
        }
        let len = band.rows.len();
        let mut columns = self.columns_of(stripe, old);
        let k = self.geometry.data_columns();
        let new = |column: usize| {
            let at = column as u64 * u64::from(self.geometry.chunk()) + u64::from(band.rows.start)
                - within.start;
            &data[at as usize..at as usize + len]
        };
        let (mut p, mut q) = if band.method == Method::ReadModifyWrite {
            let mut p = columns[k].take().filter(|_| band.write_p);
            let mut q = columns.get_mut(k + 1).and_then(Option::take).filter(|_| band.write_q);
            for column in band.columns.iter() {
                let old = columns[column].as_ref().expect("read-modify-write reads the old data");
                let (p, q) = (p.as_mut().map(Buf::bytes_mut), q.as_mut().map(Buf::bytes_mut));
                forestall_parity::pq_update(column, old, new(column), p, q);
            }
            (p, q)
        } else {
            if band.method == Method::Recover {
                let wanted: Vec<usize> = band.recover.iter().collect();
                self.recover(&mut columns, &wanted, len);
            }
            let inputs: Vec<&[u8]> = (0..k)
                .map(|column| match band.columns.contains(column) {
                    true => new(column),
                    false => columns[column].as_deref().expect("read or recovered"),
                })
                .collect();
            let mut p = Buf::scratch(len);
            if self.geometry.parity_columns() == 1 {
                forestall_parity::xor_gen(&inputs, p.bytes_mut());
                (Some(p), None)
            } else {
                let mut q = Buf::scratch(len);
                forestall_parity::pq_gen(&inputs, p.bytes_mut(), q.bytes_mut());
                (Some(p), Some(q))
            }
        };
        let address = self.geometry.member_address(stripe, band.rows.start);
        let parities = [
            (band.write_p, self.geometry.p_slot(stripe), p.take()),
            (band.write_q, self.geometry.q_slot(stripe), q.take()),
        ];
        for (wanted, slot, buf) in parities {
            if let (true, Some(slot), Some(buf)) = (wanted, slot, buf) {
                join_write(writes, SlotWrite { slot, address, buf });
            }
        }
    }

    /// The data itself: one write for each column's part, whatever bands it lies in. A missing slot is among them where the journal is to tell its new
    /// checksums: what an older record tells of it holds no more, and only parity knows it now (rule J4).
    fn prepare_data(
        &self,
        stripe: Stripe,
        within: &Range<u64>,
        data: &Buf,
        bands: &[Band],
        writes: &mut Vec<SlotWrite>,
    ) {
        let told = if self.journal.is_some() { self.missing() } else { SlotSet::EMPTY };
        let writable = bands.iter().fold(told, |set, band| set.or(band.data_writes));
        for (column, rows, from) in column_parts(u64::from(self.geometry.chunk()), within.clone()) {
            let address = self.geometry.member_address(stripe, rows.start as u32);
            for slot in self.geometry.copies(stripe, column).and(writable).iter() {
                writes.push(SlotWrite { slot, address, buf: data.slice(from..from + rows.len()) });
            }
        }
    }

    /// Does the writes of one stripe at once. A write that its slot needs and does not hold is entered as lost.
    async fn execute(
        self: &Rc<Self>,
        stripe: Stripe,
        writes: Vec<SlotWrite>,
    ) -> Result<(), IoError> {
        // Parity that does not match its data helps nobody: there a full file system below fails its member, like any other
        // fault. Copies are each whole in themselves: one that is full says so first.
        let on_full = if self.has_parity() { OnFull::Fail } else { OnFull::Report };
        if let [only] = writes.as_slice() {
            let result =
                self.write_slot_or(on_full, only.slot, only.address, only.buf.clone()).await;
            return self.settle(only, result, false).await;
        }
        let results = join_all(
            writes.iter().map(|w| self.write_slot_or(on_full, w.slot, w.address, w.buf.clone())),
        )
        .await;
        let stored: Vec<usize> = writes
            .iter()
            .zip(&results)
            .filter(|(_, result)| result.is_ok())
            .map(|(write, _)| self.column_index(stripe, write.slot))
            .collect();
        let mut outcome = Ok(());
        for (write, result) in writes.iter().zip(results) {
            let elsewhere = stored.contains(&self.column_index(stripe, write.slot));
            outcome = outcome.and(self.settle(write, result, elsewhere).await);
        }
        outcome
    }

    /// Draws the consequence of one write; `elsewhere`: another copy of the same column took it.
    async fn settle(
        self: &Rc<Self>,
        write: &SlotWrite,
        result: Result<(), DiskFault>,
        elsewhere: bool,
    ) -> Result<(), IoError> {
        let len = write.buf.len() as u64;
        let Err(fault) = result else {
            self.lost.overwritten(write.slot, write.address, len);
            return Ok(());
        };
        if fault.kind == FaultKind::NoSpace && !self.has_parity() {
            if !elsewhere {
                return Err(IoError::NoSpace); // Unchanged wherever it is.
            }
            let main = self.drives_at(write.slot, write.address).0;
            if main.is_none_or(|main| {
                self.give_up(&main, format!("{fault} on write at {}", write.address))
            }) {
                return Ok(());
            }
        }
        // Rules F1, M5: old, new or torn, and nobody else has it.
        self.lose(write.slot, write.address, len).await?;
        Err(if fault.kind == FaultKind::NoSpace { IoError::NoSpace } else { IoError::Io })
    }
}

/// Why a write did not go through.
enum Short {
    /// Too much of the range is unreadable or lost to plan it as a whole.
    Replan,
    /// It failed.
    Error(IoError),
}

impl Short {
    fn into_error(self) -> IoError {
        match self {
            Self::Replan => IoError::Io,
            Self::Error(error) => error,
        }
    }
}

/// Slots of which all of `rows` is written.
fn written_whole(writes: &[SlotWrite], rows: Range<u64>) -> SlotSet {
    let whole = |write: &&SlotWrite| write.address <= rows.start && write.end() >= rows.end;
    writes.iter().filter(whole).map(|write| write.slot).collect()
}

/// The parts of a stripe's range by column: column, rows in the chunk, position in the data.
pub(super) fn column_parts(
    chunk: u64,
    within: Range<u64>,
) -> impl Iterator<Item = (usize, Range<usize>, usize)> {
    (within.start / chunk..=(within.end - 1) / chunk).map(move |column| {
        let start = within.start.max(column * chunk);
        let end = within.end.min((column + 1) * chunk);
        let rows = (start - column * chunk) as usize..(end - column * chunk) as usize;
        (column as usize, rows, (start - within.start) as usize)
    })
}

/// Adds a write, joined to the last one of the same slot where they touch.
fn join_write(writes: &mut Vec<SlotWrite>, write: SlotWrite) {
    let touching = writes
        .iter_mut()
        .find(|w| w.slot == write.slot && w.address + w.buf.len() as u64 == write.address);
    match touching {
        Some(before) => {
            let mut joined = Buf::scratch(before.buf.len() + write.buf.len());
            joined.bytes_mut()[..before.buf.len()].copy_from_slice(&before.buf);
            joined.bytes_mut()[before.buf.len()..].copy_from_slice(&write.buf);
            before.buf = joined;
        }
        None => writes.push(write),
    }
}
