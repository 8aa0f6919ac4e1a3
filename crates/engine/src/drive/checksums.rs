//! The checksums of a drive's blocks, as far as they are in memory (rules K1, K2).
//!
//! Owns the pages of the checksum region that were read or changed. Invariants: a page in memory is newer than, or the same as, the one on disk, so it
//! leaves memory only once it is written; a page is read by one task and written by one at a time; what was changed before a call of
//! [`Drive::write_checksums`] is written when that returns. When they are to be durable, and what they are compared with, is the group's matter.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use super::Drive;
use crate::buf::Buf;
use crate::disk::{DiskFault, FaultKind};
use crate::format::checksum::{self, PER_PAGE, Sums};
use crate::ids::BLOCK_SIZE;
use crate::runtime::{Env, Runtime};
use crate::sync::{Event, Mutex, join_all};

/// Pages kept of one drive: the checksums of 16 GiB in 16 MiB of memory.
const KEPT: usize = 4096;
/// So many changed pages are written before more are changed.
const CHANGED_MAX: usize = KEPT / 4;
/// Pages written in one request.
const RUN: u64 = 256;
/// Requests under way at once.
const RUNS_AT_ONCE: usize = 8;

struct Page {
    sums: Sums,
    /// When it was last looked at.
    used: u64,
    /// Nothing was ever written there, so a file that is full may have no room for it.
    fresh: bool,
}

#[derive(Default)]
pub(super) struct Checksums {
    pages: RefCell<BTreeMap<u64, Page>>,
    /// Pages that differ from the disk's.
    changed: RefCell<BTreeSet<u64>>,
    /// Pages on their way to the disk.
    writing: RefCell<BTreeSet<u64>>,
    /// Pages written since the last flush began, and those that the flush under way covers.
    unflushed: RefCell<BTreeSet<u64>>,
    flushing: RefCell<BTreeSet<u64>>,
    loading: RefCell<BTreeSet<u64>>,
    loaded: Event,
    turn: Mutex,
    clock: Cell<u64>,
}

/// The pages that hold the checksums of `blocks`.
fn pages_of(blocks: &Range<u64>) -> Range<u64> {
    blocks.start / PER_PAGE as u64..blocks.end.div_ceil(PER_PAGE as u64)
}

/// The part of page `number` that `blocks` cover, as places in it.
fn within(number: u64, blocks: &Range<u64>) -> Range<usize> {
    let first = number * PER_PAGE as u64;
    let end = blocks.end.min(first + PER_PAGE as u64);
    (blocks.start.max(first) - first) as usize..(end - first) as usize
}

impl Checksums {
    fn tick(&self) -> u64 {
        self.clock.set(self.clock.get() + 1);
        self.clock.get()
    }

    /// The first page of `pages` that is not in memory.
    fn missing(&self, mut pages: Range<u64>) -> Option<u64> {
        let held = self.pages.borrow();
        pages.find(|page| !held.contains_key(page))
    }

    /// The checksums of `blocks`, in order; `None`: not all of them are in memory.
    fn get(&self, blocks: &Range<u64>) -> Option<Vec<u32>> {
        let mut held = self.pages.borrow_mut();
        let now = self.tick();
        let mut sums = Vec::with_capacity((blocks.end - blocks.start) as usize);
        for number in pages_of(blocks) {
            let page = held.get_mut(&number)?;
            page.used = now;
            sums.extend_from_slice(&page.sums[within(number, blocks)]);
        }
        Some(sums)
    }

    /// Sets the checksums of blocks from `first` on. A page that is set whole need not be in memory. `false`: one that is not would be
    /// set in part, and nothing was set.
    fn set(&self, first: u64, sums: &[u32]) -> bool {
        let blocks = first..first + sums.len() as u64;
        let mut held = self.pages.borrow_mut();
        let whole = |number| within(number, &blocks).len() == PER_PAGE;
        if pages_of(&blocks).any(|number| !whole(number) && !held.contains_key(&number)) {
            return false;
        }
        let now = self.tick();
        for number in pages_of(&blocks) {
            let at = within(number, &blocks);
            let from = (number * PER_PAGE as u64 + at.start as u64 - first) as usize;
            let page = held.entry(number).or_insert_with(|| Page {
                sums: checksum::unknown(),
                used: 0,
                fresh: true,
            });
            page.used = now;
            page.sums[at.clone()].copy_from_slice(&sums[from..from + at.len()]);
            self.changed.borrow_mut().insert(number);
        }
        true
    }

    fn insert(&self, number: u64, sums: Sums) {
        let (used, fresh) = (self.tick(), sums == checksum::unknown());
        self.pages.borrow_mut().entry(number).or_insert(Page { sums, used, fresh });
        self.shrink(KEPT);
    }

    /// Whether any page of `blocks` is not known to have its room on the disk.
    fn has_fresh(&self, blocks: &Range<u64>) -> bool {
        let held = self.pages.borrow();
        pages_of(blocks).any(|number| held.get(&number).is_none_or(|page| page.fresh))
    }

    /// Takes the pages that changed, to be written: they stay in memory until they are.
    fn take_changed(&self) -> BTreeSet<u64> {
        let changed = self.changed.take();
        self.writing.borrow_mut().extend(&changed);
        changed
    }

    /// The bytes of pages, if all of them are in memory.
    fn encode(&self, run: Range<u64>) -> Option<Buf> {
        let held = self.pages.borrow();
        let pages: Option<Vec<&Sums>> =
            run.map(|number| held.get(&number).map(|page| &page.sums)).collect();
        pages.map(|pages| checksum::encode(pages.into_iter()))
    }

    /// Pages were not written: a fresh one is as if nobody had touched it, another is tried again with the next flush.
    fn not_written(&self, run: Range<u64>) {
        let mut held = self.pages.borrow_mut();
        for number in run {
            if held.get(&number).is_none_or(|page| page.fresh) {
                held.remove(&number);
                self.changed.borrow_mut().remove(&number);
            } else {
                self.changed.borrow_mut().insert(number);
            }
        }
    }

    /// Pages were written.
    fn written(&self, run: Range<u64>) {
        self.unflushed.borrow_mut().extend(run.clone());
        let mut held = self.pages.borrow_mut();
        for number in run {
            if let Some(page) = held.get_mut(&number) {
                page.fresh = false;
            }
        }
    }

    /// Takes those looked at longest ago out of memory, an eighth of `kept` at once, if there are more than that.
    fn shrink(&self, kept: usize) {
        let mut held = self.pages.borrow_mut();
        if held.len() <= kept {
            return;
        }
        let (changed, writing) = (self.changed.borrow(), self.writing.borrow());
        let stays = |number: &u64| changed.contains(number) || writing.contains(number);
        let mut leaving: Vec<(u64, u64)> =
            held.iter().filter(|(n, _)| !stays(n)).map(|(n, page)| (page.used, *n)).collect();
        leaving.sort_unstable();
        leaving.truncate(held.len() - kept + kept / 8);
        // The one looked at last is what somebody waits for.
        let last = self.clock.get();
        leaving.iter().filter(|(used, _)| *used != last).for_each(|(_, number)| {
            held.remove(number);
        });
    }

    pub(super) fn is_unflushed(&self) -> bool {
        !self.changed.borrow().is_empty()
            || !self.writing.borrow().is_empty()
            || !self.unflushed.borrow().is_empty()
            || !self.flushing.borrow().is_empty()
    }

    pub(super) fn begin_flush(&self) {
        self.flushing.borrow_mut().append(&mut self.unflushed.borrow_mut());
    }

    pub(super) fn end_flush(&self) {
        self.flushing.take();
    }

    /// A flush failed, whoever asked for it: what was not durable is written again where it is still in memory.
    pub(super) fn flush_failed(&self) {
        let held = self.pages.borrow();
        let mut unknown = self.flushing.take();
        unknown.append(&mut self.unflushed.borrow_mut());
        unknown.retain(|number| held.contains_key(number));
        self.changed.borrow_mut().append(&mut unknown);
    }

    /// Forgets everything: the disk may have been changed by others.
    pub(super) fn clear(&self) {
        self.pages.borrow_mut().clear();
        self.changed.take();
        self.unflushed.take();
        self.flushing.take();
    }
}

/// A page is being read until this is dropped.
struct Loading<'a> {
    checksums: &'a Checksums,
    number: u64,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.checksums.loading.borrow_mut().remove(&self.number);
        self.checksums.loaded.notify();
    }
}

impl<E: Env> Drive<E> {
    /// The checksums of `blocks`, if they are in memory.
    pub(crate) fn checksums(&self, blocks: &Range<u64>) -> Option<Vec<u32>> {
        self.checksums.get(blocks)
    }

    /// Begins to read the checksums of `blocks` that are not in memory, while something else is done.
    pub(crate) fn want_checksums(self: &Rc<Self>, blocks: Range<u64>) {
        if self.checksums.missing(pages_of(&blocks)).is_some() {
            let drive = Rc::clone(self);
            // A fault shows again to whoever needs them.
            self.rt.spawn(Box::pin(async move {
                let _ = drive.load_checksums(blocks).await;
            }));
        }
    }

    /// Brings the checksums of `blocks` to memory. Of a page that the medium cannot give nothing is known.
    pub(crate) async fn load_checksums(
        self: &Rc<Self>,
        blocks: Range<u64>,
    ) -> Result<(), DiskFault> {
        let checksums = &self.checksums;
        while let Some(number) = checksums.missing(pages_of(&blocks)) {
            if !checksums.loading.borrow_mut().insert(number) {
                let ended = || !checksums.loading.borrow().contains(&number);
                checksums.loaded.wait_until(ended).await;
                continue;
            }
            let _loading = Loading { checksums, number };
            let offset = self.layout.checksums.offset + number * BLOCK_SIZE;
            match self.read_meta(offset, BLOCK_SIZE).await {
                Ok(bytes) => checksums.insert(number, checksum::decode(&bytes)),
                Err(fault) if fault.kind == FaultKind::Medium => {
                    self.count_error(|e| e.unrecovered_reads += 1);
                    checksums.insert(number, checksum::unknown());
                }
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    /// Sets the checksums of blocks from `first` on, in memory; reads the pages that they lie in first, if need be.
    pub(crate) async fn set_checksums(
        self: &Rc<Self>,
        first: u64,
        sums: &[u32],
    ) -> Result<(), DiskFault> {
        while !self.checksums.set(first, sums) {
            let end = first + sums.len() as u64;
            // Pages that are set whole need not be read: only the first and the last are not.
            for edge in [first, end - 1] {
                self.load_checksums(edge..edge + 1).await?;
            }
        }
        Ok(())
    }

    /// Whether the pages of `blocks` have to be written before what they stand for may be called written.
    pub(crate) fn has_fresh_checksums(&self, blocks: &Range<u64>) -> bool {
        self.checksums.has_fresh(blocks)
    }

    /// Whether so many checksums were changed that they are to be written first.
    pub(crate) fn has_many_changed_checksums(&self) -> bool {
        self.checksums.changed.borrow().len() >= CHANGED_MAX
    }

    /// Writes the pages that were changed. At the time limit `give_up` is asked, as for [`Drive::write_meta_or`].
    pub(crate) async fn write_checksums(
        self: &Rc<Self>,
        give_up: impl Fn() -> bool,
    ) -> Result<(), DiskFault> {
        let checksums = &self.checksums;
        let _turn = checksums.turn.lock().await;
        let mut runs: Vec<Range<u64>> = Vec::new();
        for number in checksums.take_changed() {
            match runs.last_mut() {
                Some(run) if run.end == number && run.end - run.start < RUN => run.end += 1,
                _ => runs.push(number..number + 1),
            }
        }
        let mut outcome = Ok(());
        for batch in runs.chunks(RUNS_AT_ONCE) {
            let writes = batch.iter().map(|run| self.write_run(run.clone(), &give_up));
            for (run, result) in batch.iter().zip(join_all(writes).await) {
                match result {
                    Ok(()) => checksums.written(run.clone()),
                    Err(_) => checksums.not_written(run.clone()),
                }
                outcome = outcome.and(result);
            }
        }
        checksums.shrink(KEPT);
        outcome
    }

    async fn write_run(
        self: &Rc<Self>,
        run: Range<u64>,
        give_up: &impl Fn() -> bool,
    ) -> Result<(), DiskFault> {
        let checksums = &self.checksums;
        let bytes = checksums.encode(run.clone());
        let result = match bytes {
            Some(bytes) => {
                let offset = self.layout.checksums.offset + run.start * BLOCK_SIZE;
                self.write_meta_or(offset, bytes, give_up).await
            }
            // Forgotten meanwhile: the drive was given up and taken back.
            None => Err(DiskFault::new(FaultKind::Gone)),
        };
        checksums.writing.borrow_mut().retain(|number| !run.contains(number));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_pages(numbers: Range<u64>) -> Checksums {
        let checksums = Checksums::default();
        numbers.for_each(|number| checksums.insert(number, checksum::unknown()));
        checksums
    }

    #[test]
    fn what_was_set_is_had_across_pages() {
        let checksums = with_pages(0..2);
        let sums: Vec<u32> = (1..=10).collect();
        let first = PER_PAGE as u64 - 4;
        assert!(checksums.set(first, &sums));
        assert_eq!(checksums.get(&(first..first + 10)), Some(sums));
        assert_eq!(checksums.get(&(first + 10..first + 11)), Some(vec![checksum::UNKNOWN]));
        assert_eq!(*checksums.changed.borrow(), BTreeSet::from([0, 1]));
        assert_eq!(checksums.get(&(0..3 * PER_PAGE as u64)), None, "page 2 is not there");
    }

    #[test]
    fn only_whole_pages_are_set_unread() {
        let checksums = with_pages(0..0);
        assert!(!checksums.set(1, &vec![7; PER_PAGE]));
        assert!(checksums.changed.borrow().is_empty());
        assert!(checksums.set(PER_PAGE as u64, &vec![7; 2 * PER_PAGE]));
        assert_eq!(*checksums.changed.borrow(), BTreeSet::from([1, 2]));
    }

    #[test]
    fn a_changed_page_stays_until_it_is_written() {
        let checksums = with_pages(0..8);
        assert!(checksums.set(3 * PER_PAGE as u64, &[7]));
        checksums.get(&(0..1));
        checksums.shrink(2);
        let held: Vec<u64> = checksums.pages.borrow().keys().copied().collect();
        assert_eq!(held, [0, 3], "the one looked at last and the changed one");
    }

    #[test]
    fn what_waits_to_be_written_stays_and_what_was_forgotten_is_not_written() {
        let checksums = with_pages(0..8);
        assert!(checksums.set(0, &[7]) && checksums.set(5 * PER_PAGE as u64, &[7]));
        assert_eq!(checksums.take_changed(), BTreeSet::from([0, 5]));
        checksums.get(&(7 * PER_PAGE as u64..7 * PER_PAGE as u64 + 1));
        checksums.shrink(1);
        assert!(checksums.encode(0..1).is_some() && checksums.encode(5..6).is_some());
        checksums.clear();
        assert!(checksums.encode(0..1).is_none());
        checksums.not_written(0..1);
        assert!(checksums.changed.borrow().is_empty(), "nobody has what it held");
    }

    #[test]
    fn a_page_that_found_no_room_is_as_if_nobody_had_touched_it() {
        let checksums = with_pages(0..1);
        assert!(checksums.has_fresh(&(0..1)) && checksums.has_fresh(&(5000..5001)));
        assert!(checksums.set(0, &[7]));
        checksums.not_written(0..1);
        assert!(!checksums.is_unflushed() && checksums.get(&(0..1)).is_none());
        checksums.insert(0, checksum::unknown());
        assert!(checksums.set(0, &[7]));
        checksums.changed.take();
        checksums.written(0..1);
        assert!(!checksums.has_fresh(&(0..1)));
        checksums.not_written(0..1);
        assert_eq!(*checksums.changed.borrow(), BTreeSet::from([0]), "tried again");
    }

    #[test]
    fn after_a_failed_flush_what_it_covered_is_written_again() {
        let checksums = with_pages(0..2);
        checksums.unflushed.borrow_mut().extend([0, 1, 9]);
        checksums.begin_flush();
        assert!(checksums.is_unflushed());
        checksums.flush_failed();
        checksums.end_flush();
        assert_eq!(*checksums.changed.borrow(), BTreeSet::from([0, 1]), "9 is not in memory");
        let well = with_pages(0..1);
        well.unflushed.borrow_mut().insert(0);
        well.begin_flush();
        well.end_flush();
        assert!(!well.is_unflushed());
    }
}
