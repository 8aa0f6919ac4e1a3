//! A log of redirected blocks (rules B3, B4, B5).
//!
//! Owns the flow between the book and the space. Invariants: an append is answered when payload and entry stand on every copy; entries
//! carry the payload's checksum, so both are written at once and a crash between shows; pages of the table are written in turns, each
//! turn for everybody who waits; only a flush frees slots, and none is answered before the index and the mark tell of what it covers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use super::book::{Book, Clearing, Covered};
use super::space::{Copy, Space};
use crate::buf::Buf;
use crate::error::IoError;
use crate::format::log::{EntryKind, LogEntry, LogMark, LogShape, payload_crc};
use crate::ids::{BLOCK_SIZE, DiskNumber, VolumeNumber};
use crate::runtime::Env;
use crate::sync::{Hold, RangeLocks, Served, both, join_all};

mod compare;
mod decide;
mod join;
mod recover;

#[cfg(test)]
pub(super) use decide::{Found, Table};
pub(crate) use recover::Unrecovered;

/// Pages of the table or the index read or written at once.
const PAGES_AT_ONCE: u64 = 256;

/// Why an append was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refused {
    /// There is no room for it.
    Full,
    /// No copy took it.
    Failed,
}

/// A log at work.
pub(crate) struct Log<E: Env> {
    space: Space<E>,
    book: RefCell<Book>,
    /// Pages of the table to be written.
    dirty: RefCell<BTreeSet<u64>>,
    stores: Served,
    /// Slots whose payload is being written, or copied to another leg.
    slots: Rc<RangeLocks>,
    /// Pages of each leg's table that were damaged when the log was read back.
    damaged: RefCell<BTreeMap<DiskNumber, u64>>,
    /// One flush at a time: whoever finds nothing to flush may be sure that it is durable, not on its way.
    flushes: Served,
}

impl<E: Env> Log<E> {
    /// A log with nothing in it, which its marks tell durably; `None` if the space has no room for a slot.
    pub(crate) async fn new(id: u64, space: Space<E>) -> Option<Result<Rc<Self>, IoError>> {
        let shape = LogShape::of(space.blocks())?;
        let log = Self::with(space, Book::new(id, shape));
        let marked = log.write_marks(&LogMark { log: id, durable: 0, fresh: 1 }).await;
        let durable = async { log.space.flush().await };
        Some(match marked {
            Ok(()) => durable.await.map(|()| log),
            Err(error) => Err(error),
        })
    }

    fn with(space: Space<E>, book: Book) -> Rc<Self> {
        Rc::new(Self {
            space,
            book: RefCell::new(book),
            dirty: RefCell::default(),
            stores: Served::default(),
            slots: Rc::default(),
            damaged: RefCell::default(),
            flushes: Served::default(),
        })
    }

    /// Where the log is kept.
    pub(crate) fn space(&self) -> &Space<E> {
        &self.space
    }

    /// Marked blocks of a volume inside `blocks`, ascending.
    pub(super) fn marked_in(&self, volume: VolumeNumber, blocks: Range<u64>) -> Vec<u64> {
        self.book.borrow().marked_in(volume, blocks).collect()
    }

    /// The first marked block of a volume inside `blocks`.
    pub(super) fn next_marked(&self, volume: VolumeNumber, blocks: Range<u64>) -> Option<u64> {
        self.book.borrow().marked_in(volume, blocks).next()
    }

    /// Blocks of a volume that are to be read here.
    pub(crate) fn marks_of(&self, volume: VolumeNumber) -> u64 {
        self.book.borrow().marks_of(volume)
    }

    /// The slot used last.
    pub(crate) fn terminal(&self) -> Option<u64> {
        self.book.borrow().terminal()
    }

    /// For the first `count` slots, whether they hold what is not yet written back.
    pub(crate) fn bits(&self, count: u64) -> Vec<bool> {
        let book = self.book.borrow();
        (1..=count).map(|slot| book.slot_is_marked(slot)).collect()
    }

    /// What is not yet written back, in the order in which it was entered.
    pub(crate) fn marked_slots(&self) -> Vec<(u64, LogEntry)> {
        self.book.borrow().marked_slots()
    }

    /// Slots in use, and all slots.
    pub(crate) fn usage(&self) -> (u64, u64) {
        self.book.borrow().usage()
    }

    /// Whether there is hardly any room left.
    pub(crate) fn is_nearly_full(&self) -> bool {
        let (used, all) = self.usage();
        used >= all - all / 8
    }

    /// Whether half of it holds what is to be read here, whatever the next flush frees.
    pub(crate) fn is_half_full(&self) -> bool {
        self.book.borrow().is_half_full()
    }

    /// Enters consecutive blocks of a volume, with their data or as zeroes.
    pub(super) async fn append(
        &self,
        volume: VolumeNumber,
        first: u64,
        count: u64,
        data: Option<Buf>,
    ) -> Result<(), Refused> {
        let slots = match self.reserve(count).await {
            Some(slots) => slots,
            None => return Err(Refused::Full),
        };
        let (low, high) =
            slots.iter().fold((u64::MAX, 0), |(low, high), slot| (low.min(*slot), high.max(*slot)));
        let span = low..high + 1;
        let _busy = self.slots.lock(span, Hold::Shared).await;
        let kind = if data.is_some() { EntryKind::Data } else { EntryKind::Zero };
        let mut pages = BTreeSet::new();
        {
            let mut book = self.book.borrow_mut();
            for (i, slot) in slots.iter().enumerate() {
                let at = i * BLOCK_SIZE as usize;
                let crc =
                    data.as_ref().map_or(0, |d| payload_crc(&d[at..at + BLOCK_SIZE as usize]));
                book.enter(*slot, kind, volume, first + i as u64, crc);
                pages.insert(LogShape::page_of(*slot));
            }
        }
        let payload = async {
            let Some(data) = &data else { return Ok(()) };
            let shape = self.book.borrow().shape;
            let runs = runs_of(&slots).into_iter().map(|(at, len)| {
                let from = at * BLOCK_SIZE as usize;
                let part = data.slice(from..from + len * BLOCK_SIZE as usize);
                self.space.write(shape.payload(slots[at]), part)
            });
            join_all(runs).await.into_iter().collect()
        };
        let (payload, entries) = both(payload, self.store(pages.clone())).await;
        if payload.and(entries).is_err() {
            {
                let mut book = self.book.borrow_mut();
                slots.iter().for_each(|slot| book.failed(*slot));
            }
            let _ = self.store(pages).await;
            return Err(Refused::Failed);
        }
        let mut book = self.book.borrow_mut();
        slots.iter().for_each(|slot| book.landed(*slot));
        Ok(())
    }

    async fn reserve(&self, count: u64) -> Option<Vec<u64>> {
        for _ in 0..3 {
            if let Some(slots) = self.book.borrow_mut().reserve(count) {
                return Some(slots);
            }
            // What was superseded is free once that is durable.
            if !self.book.borrow().frees_with_a_flush() || self.flush().await.is_err() {
                return None;
            }
        }
        None
    }

    /// A block that is marked here, checked against its checksum; every copy is tried, and what one did not give is written back to it.
    pub(super) async fn read(&self, volume: VolumeNumber, block: u64) -> Result<Buf, IoError> {
        let (found, shape) = {
            let book = self.book.borrow();
            (book.find(volume, block), book.shape)
        };
        let (slot, entry) = found.ok_or(IoError::Io)?;
        if entry.kind == EntryKind::Zero {
            return Ok(Buf::zeroed(BLOCK_SIZE as usize));
        }
        let mut bad: Vec<Copy<E>> = Vec::new();
        let mut good = None;
        // A leg may join while another one is asked.
        let next = |bad: &[Copy<E>]| {
            self.space.copies().into_iter().find(|copy| !bad.iter().any(|b| b.is(copy)))
        };
        while let Some(copy) = next(&bad) {
            match copy.read(shape.payload(slot), BLOCK_SIZE).await {
                Ok(buf) if payload_crc(&buf) == entry.payload => {
                    good = Some(buf);
                    break;
                }
                _ => bad.push(copy),
            }
        }
        bad.iter().for_each(|copy| copy.note_bad(good.is_some()));
        if let Some(good) = &good
            && !bad.is_empty()
            && self.space.answers()
        {
            // Rewriting makes most disks put the sector elsewhere. The slot is this block's as long as the caller holds the block's lock, with
            // others that read: they take turns.
            let _slot = self.slots.lock(slot..slot + 1, Hold::Exclusive).await;
            let _ = self.space.write(shape.payload(slot), good.clone()).await;
        }
        good.ok_or(IoError::Io)
    }

    /// Home is newer than what is held of a block.
    pub(super) fn unmark(&self, volume: VolumeNumber, block: u64) {
        self.book.borrow_mut().unmark(volume, block);
    }

    /// What is to be cleared of a volume once home is durable.
    pub(super) fn take_clearings(&self, volume: VolumeNumber) -> Vec<Clearing> {
        self.book.borrow_mut().take_clearings(volume)
    }

    /// Gives clearings back after a flush that failed.
    pub(super) fn give_back(&self, volume: VolumeNumber, clearings: Vec<Clearing>) {
        self.book.borrow_mut().give_back(volume, clearings);
    }

    /// Writes clearings; they are durable with the next flush (rule B5).
    pub(super) async fn clear(
        &self,
        volume: VolumeNumber,
        clearings: &[Clearing],
    ) -> Result<(), IoError> {
        let pages = self.book.borrow_mut().clear(volume, clearings);
        if pages.is_empty() { Ok(()) } else { self.store(pages).await }
    }

    /// Makes everything entered and cleared so far durable.
    pub(super) async fn flush(&self) -> Result<(), IoError> {
        self.flushes.by(|| self.flush_all()).await
    }

    async fn flush_all(&self) -> Result<(), IoError> {
        let unwritten = self.book.borrow().unwritten();
        if !unwritten.is_empty() {
            // Entries made from now on say what is durable: one that failed must not be among that.
            let pages = unwritten.iter().map(|(slot, _)| LogShape::page_of(*slot)).collect();
            self.store(pages).await?;
        }
        let covered = self.book.borrow_mut().begin_flush(unwritten);
        match self.make_durable(&covered).await {
            Ok(()) => {
                let mut book = self.book.borrow_mut();
                book.end_flush(&covered);
                if book.has_lost() { Err(IoError::Io) } else { Ok(()) }
            }
            Err(error) => {
                let (payloads, pages) = {
                    let mut book = self.book.borrow_mut();
                    book.flush_failed(covered);
                    (book.doubtful_payloads(), book.doubtful_pages())
                };
                // What was not durable may be gone, and no later flush brings it back: all of it is written again.
                for (slot, entry) in payloads {
                    self.write_again(slot, &entry).await;
                }
                let _ = self.store(pages).await;
                Err(error)
            }
        }
    }

    /// First what was entered, and only then what tells that it is durable: a crash between leaves entries that no flush was answered for.
    async fn make_durable(&self, covered: &Covered) -> Result<(), IoError> {
        let (log, durable, untold) = {
            let book = self.book.borrow();
            (book.log, book.durable(), book.untold(covered))
        };
        if !untold.is_empty() {
            self.store(untold).await?;
        }
        self.write_index(&covered.withdrawn(), durable).await?;
        self.space.flush().await?;
        if covered.entered().is_empty() {
            return Ok(());
        }
        let mark = covered.mark(log);
        let (index, marks) =
            both(self.write_index(covered.entered(), mark.durable), self.write_marks(&mark)).await;
        index.and(marks)?;
        self.space.flush().await
    }

    async fn write_marks(&self, mark: &LogMark) -> Result<(), IoError> {
        let mut block = mark.encode().to_vec();
        block.resize(BLOCK_SIZE as usize, 0);
        let block = Buf::copy_of(&block);
        let shape = self.book.borrow().shape;
        let writes = shape.marks().map(|at| self.space.write(at, block.clone()));
        join_all(writes).await.into_iter().collect()
    }

    /// Writes a payload again that a failed flush left unknown. One that cannot be had any more is lost: no flush is answered with
    /// success until its block was written anew or went home (rule F2).
    async fn write_again(&self, slot: u64, entry: &LogEntry) {
        let at = self.book.borrow().shape.payload(slot);
        for copy in self.space.copies() {
            if let Ok(buf) = copy.read(at, BLOCK_SIZE).await
                && payload_crc(&buf) == entry.payload
                && self.space.write(at, buf).await.is_ok()
            {
                return;
            }
        }
        self.book.borrow_mut().lose(slot, entry.sequence);
    }

    /// Writes pages of the table; one turn serves everybody who waits for it.
    async fn store(&self, pages: BTreeSet<u64>) -> Result<(), IoError> {
        self.dirty.borrow_mut().extend(pages);
        let write = async || {
            let pages = self.dirty.take();
            let written = self.write_pages(&pages).await;
            if written.is_err() {
                self.dirty.borrow_mut().extend(pages);
            }
            written
        };
        self.stores.by(write).await
    }

    async fn write_pages(&self, pages: &BTreeSet<u64>) -> Result<(), IoError> {
        self.write_runs(pages, |book, page| (book.shape.table(page), book.table_page(page))).await
    }

    /// Writes pages of the index, with the entries up to `durable`.
    async fn write_index(&self, pages: &BTreeSet<u64>, durable: u64) -> Result<(), IoError> {
        let page = |book: &Book, page| (book.shape.index(page), book.index_page(page, durable));
        self.write_runs(pages, page).await
    }

    /// Writes pages, each of which `of` gives with its place; those in a row as one.
    async fn write_runs(
        &self,
        pages: &BTreeSet<u64>,
        of: impl Fn(&Book, u64) -> (u64, Vec<u8>),
    ) -> Result<(), IoError> {
        let pages: Vec<u64> = pages.iter().copied().collect();
        let runs = runs_of(&pages).into_iter().flat_map(|(at, len)| {
            let pages = &pages[at..at + len];
            pages.chunks(PAGES_AT_ONCE as usize)
        });
        let writes = runs.map(|run| {
            let book = self.book.borrow();
            let (at, mut bytes) = of(&book, run[0]);
            run[1..].iter().for_each(|page| bytes.extend(of(&book, *page).1));
            self.space.write(at, Buf::copy_of(&bytes))
        });
        let writes: Vec<_> = writes.collect();
        join_all(writes).await.into_iter().collect()
    }
}

/// Runs of consecutive numbers: index of the first and how many.
fn runs_of(numbers: &[u64]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (at, number) in numbers.iter().enumerate() {
        match runs.last_mut() {
            Some((first, len)) if numbers[*first] + *len as u64 == *number => *len += 1,
            _ => runs.push((at, 1)),
        }
    }
    runs
}
