//! The lost-block map: blocks of a slot that nothing can give any more (rule M5).
//!
//! Owns runs of lost blocks per slot. Invariants: a lost block is an erasure for every plan; an entry is durable before a flush that
//! relies on it is answered (rule F1); it is cleared by a whole-block write, on disk only after that write is durable; runs are
//! on disk in order, and pages are written so that no run is on neither of two while it moves between them. What does not fit fails the member.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::pages::Pages;
use crate::error::IoError;
use crate::format::page::{LOST_PER_PAGE, LostRun, PageKind, decode_lost, encode_lost};
use crate::ids::{BLOCK_SIZE, Slot};
use crate::runtime::Env;

/// Pages of the map: what the smallest disk holds.
const PAGES: usize = 2;

/// Consecutive blocks of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    end: u64,
    /// `false`: written again; the entry goes with the next flush.
    lost: bool,
}

/// Runs by slot and first block; they never overlap.
type Runs = BTreeMap<(Slot, u64), Run>;

pub(super) struct Lost {
    runs: RefCell<Runs>,
    any: Cell<bool>,
    pub(super) pages: Pages,
}

fn blocks(address: u64, len: u64) -> Range<u64> {
    address / BLOCK_SIZE..(address + len).div_ceil(BLOCK_SIZE)
}

/// The runs of `slot` that overlap `range`, by first block.
fn overlapping(runs: &Runs, slot: Slot, range: &Range<u64>) -> Vec<(u64, Run)> {
    if range.is_empty() {
        return Vec::new();
    }
    let before = runs.range(..(slot, range.start)).next_back();
    let before = before.filter(|((s, _), run)| *s == slot && run.end > range.start);
    let inside = runs.range((slot, range.start)..(slot, range.end));
    before.into_iter().chain(inside).map(|((_, start), run)| (*start, *run)).collect()
}

/// Splits runs so that none crosses an end of `range`.
fn split(runs: &mut Runs, slot: Slot, range: &Range<u64>) {
    for (start, run) in overlapping(runs, slot, range) {
        for at in [range.start, range.end] {
            if start < at && at < run.end {
                runs.insert((slot, at), run);
            }
        }
        let cut = [range.start, range.end].into_iter().find(|at| start < *at && *at < run.end);
        if let Some(cut) = cut {
            runs.insert((slot, start), Run { end: cut, ..run });
        }
        if start < range.start && range.end < run.end {
            runs.insert((slot, range.start), Run { end: range.end, ..run });
        }
    }
}

impl Lost {
    pub(super) fn new() -> Self {
        let pages = Pages::new(PageKind::Lost, PAGES);
        Self { runs: RefCell::default(), any: Cell::new(false), pages }
    }

    /// Whether any block of `len` bytes at `address` of `slot` is lost.
    pub(super) fn overlaps(&self, slot: Slot, address: u64, len: u64) -> bool {
        self.any.get()
            && overlapping(&self.runs.borrow(), slot, &blocks(address, len))
                .iter()
                .any(|(_, run)| run.lost)
    }

    /// Whether any slot has a lost block in the range.
    pub(super) fn overlaps_any(&self, slots: usize, address: u64, len: u64) -> bool {
        self.any.get() && (0..slots).any(|s| self.overlaps(Slot(s as u8), address, len))
    }

    /// How many blocks are lost.
    pub(super) fn count(&self) -> u64 {
        self.runs
            .borrow()
            .iter()
            .filter(|(_, run)| run.lost)
            .map(|((_, start), run)| run.end - start)
            .sum()
    }

    /// Enters ranges of bytes as lost. `false`: the map is full and nothing was entered.
    pub(super) fn insert(&self, slot: Slot, ranges: &[(u64, u64)]) -> bool {
        let mut runs = self.runs.borrow_mut();
        let before = runs.clone();
        for (address, len) in ranges {
            let range = blocks(*address, *len);
            split(&mut runs, slot, &range);
            for (start, _) in overlapping(&runs, slot, &range) {
                runs.remove(&(slot, start));
            }
            runs.insert((slot, range.start), Run { end: range.end, lost: true });
        }
        if on_disk(&runs).len() > PAGES * LOST_PER_PAGE {
            *runs = before;
            return false;
        }
        self.any.set(!runs.is_empty());
        drop(runs);
        self.touch();
        true
    }

    /// A whole-block write was stored on a slot: the entry goes at the next flush.
    pub(super) fn overwritten(&self, slot: Slot, address: u64, len: u64) {
        if !self.any.get() {
            return;
        }
        let range = address.div_ceil(BLOCK_SIZE)..(address + len) / BLOCK_SIZE;
        let mut runs = self.runs.borrow_mut();
        split(&mut runs, slot, &range);
        for (start, run) in overlapping(&runs, slot, &range) {
            runs.insert((slot, start), Run { lost: false, ..run });
        }
    }

    fn touch(&self) {
        (0..PAGES).for_each(|page| self.pages.touch(page));
    }

    pub(super) fn payload(&self, page: usize) -> Vec<u8> {
        let runs = on_disk(&self.runs.borrow());
        let mine: Vec<LostRun> =
            runs.into_iter().skip(page * LOST_PER_PAGE).take(LOST_PER_PAGE).collect();
        encode_lost(&mine)
    }

    pub(super) fn load(&self, payload: &[u8]) {
        let Ok(found) = decode_lost(payload) else { return };
        let mut runs = self.runs.borrow_mut();
        for run in found {
            let range = run.start..run.start + u64::from(run.count);
            split(&mut runs, run.slot, &range);
            for (start, _) in overlapping(&runs, run.slot, &range) {
                runs.remove(&(run.slot, start));
            }
            runs.insert((run.slot, range.start), Run { end: range.end, lost: true });
        }
        self.any.set(!runs.is_empty());
    }
}

/// All entries, also those to be cleared, joined where they touch and cut to what a record can say.
fn on_disk(runs: &Runs) -> Vec<LostRun> {
    let mut joined: Vec<(Slot, Range<u64>)> = Vec::new();
    for ((slot, start), run) in runs {
        match joined.last_mut() {
            Some((s, range)) if s == slot && range.end == *start => range.end = run.end,
            _ => joined.push((*slot, *start..run.end)),
        }
    }
    let most = u64::from(u32::MAX);
    joined
        .into_iter()
        .flat_map(|(slot, range)| {
            let end = range.end;
            range.step_by(most as usize).map(move |start| LostRun {
                slot,
                start,
                count: (end - start).min(most) as u32,
            })
        })
        .collect()
}

/// Entries that a flush may clear: those written again before it began.
pub(super) struct Overwritten(Vec<(Slot, Range<u64>)>);

impl Overwritten {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<E: Env> Group<E> {
    /// Entries overwritten so far: a flush that begins now covers those writes.
    pub(super) fn take_overwritten(&self) -> Overwritten {
        if !self.lost.any.get() {
            return Overwritten(Vec::new());
        }
        let runs = self.lost.runs.borrow();
        let again = runs.iter().filter(|(_, run)| !run.lost);
        Overwritten(again.map(|((slot, start), run)| (*slot, *start..run.end)).collect())
    }

    /// Clears entries that writes, durable now, have made good.
    pub(super) async fn clear_lost(
        self: &Rc<Self>,
        overwritten: Overwritten,
    ) -> Result<(), IoError> {
        if overwritten.is_empty() {
            return Ok(());
        }
        {
            let mut runs = self.lost.runs.borrow_mut();
            for (slot, range) in &overwritten.0 {
                // What was lost again meanwhile stays.
                for (start, run) in overlapping(&runs, *slot, range) {
                    if !run.lost && start >= range.start && run.end <= range.end {
                        runs.remove(&(*slot, start));
                    }
                }
            }
            self.lost.any.set(!runs.is_empty());
        }
        self.lost.touch();
        // Cleared entries draw others to earlier pages: those are written first.
        self.persist_lost_pages(false).await
    }

    async fn persist_lost_pages(self: &Rc<Self>, last_first: bool) -> Result<(), IoError> {
        let lost = &self.lost;
        let mut pages = lost.pages.stale();
        if last_first {
            pages.reverse();
        }
        for page in pages {
            lost.pages.persist(self, page, || lost.payload(page), |_| ()).await?;
        }
        Ok(())
    }

    /// Enters a range of a slot as lost and makes the entry durable.
    pub(super) async fn lose(
        self: &Rc<Self>,
        slot: Slot,
        address: u64,
        len: u64,
    ) -> Result<(), IoError> {
        self.lose_all(slot, &[(address, len)]).await
    }

    /// Enters ranges of a slot as lost and makes the entries durable. A full map fails the member (rule M5): an error is
    /// better than what its blocks may hold.
    pub(super) async fn lose_all(
        self: &Rc<Self>,
        slot: Slot,
        ranges: &[(u64, u64)],
    ) -> Result<(), IoError> {
        if !self.lost.insert(slot, ranges) {
            self.force_out(slot, "the map of its lost blocks is full");
            return self.failures_committed().await.and(Err(IoError::Io));
        }
        self.persist_lost().await
    }

    /// Persists entries made. They push others to later pages: those are written first.
    pub(super) async fn persist_lost(self: &Rc<Self>) -> Result<(), IoError> {
        self.persist_lost_pages(true).await
    }

    /// Blocks listed lost.
    pub(crate) fn lost_blocks(&self) -> u64 {
        self.lost.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_runs_and_are_cleared_by_whole_blocks() {
        let lost = Lost::new();
        assert!(lost.insert(Slot(1), &[(8192, 3 * 4096)]));
        assert!(lost.overlaps(Slot(1), 8192, 1));
        assert!(!lost.overlaps(Slot(0), 8192, 4096));
        lost.overwritten(Slot(1), 8192 + 4096, 4096);
        assert!(!lost.overlaps(Slot(1), 12288, 4096));
        assert!(lost.overlaps(Slot(1), 8192, 4096) && lost.overlaps(Slot(1), 16384, 4096));
        assert_eq!(lost.count(), 2);
        let again = Lost::new();
        again.load(&lost.payload(0));
        assert_eq!(again.count(), 3, "on disk the entry stays until the write is durable");
        assert!(lost.insert(Slot(1), &[(12288, 4096)]), "lost again");
        assert_eq!(lost.count(), 3);
    }

    #[test]
    fn random_edits_agree_with_a_set_of_blocks() {
        let lost = Lost::new();
        let mut model = std::collections::BTreeSet::new();
        let mut state = 1_u64;
        for _ in 0..4000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let (start, count) = ((state >> 33) % 64, (state >> 50) % 5 + 1);
            if state >> 62 == 0 {
                assert!(lost.insert(Slot(2), &[(start * 4096, count * 4096)]));
                model.extend(start..start + count);
            } else {
                lost.overwritten(Slot(2), start * 4096, count * 4096);
                (start..start + count).for_each(|block| {
                    model.remove(&block);
                });
            }
            assert_eq!(lost.count(), model.len() as u64);
            for block in 0..70 {
                assert_eq!(lost.overlaps(Slot(2), block * 4096, 4096), model.contains(&block));
            }
        }
    }

    #[test]
    fn a_full_map_takes_nothing_more() {
        let lost = Lost::new();
        let ranges: Vec<(u64, u64)> =
            (0..(PAGES * LOST_PER_PAGE) as u64).map(|i| (i * 8192, 4096)).collect();
        assert!(lost.insert(Slot(0), &ranges));
        assert!(!lost.insert(Slot(0), &[(1 << 40, 4096)]));
        assert!(!lost.overlaps(Slot(0), 1 << 40, 4096));
    }

    #[test]
    fn a_loss_of_a_whole_huge_slot_is_a_few_runs() {
        let lost = Lost::new();
        assert!(lost.insert(Slot(3), &[(0, 1 << 46)]));
        assert_eq!(lost.count(), 1 << 34);
        let again = Lost::new();
        again.load(&lost.payload(0));
        assert_eq!(again.count(), 1 << 34);
    }
}
