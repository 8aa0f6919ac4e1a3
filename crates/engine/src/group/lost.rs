//! The lost-block map: blocks of a slot that nothing can give any more (rule M5).
//!
//! Owns runs of lost blocks per slot. Invariants: a lost block is an erasure for every plan; an entry is durable before a flush that
//! relies on it is answered (rule F1); it is cleared by a whole-block write, on disk only after that write is durable. Blocks that agree with their
//! peers and that nothing proves (rule J4) are listed beside: errors for hosts, no erasures. One writer at a time
//! changes the pages on disk, and one change only adds entries or only takes some away, which `pair` needs to order the two writes so
//! that an entry that is due is on one of them at any crash. What does not fit fails the member.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::owed::Owed;
use super::pages::Pages;
use crate::buf::Buf;
use crate::error::IoError;
use crate::format::page::{
    LOST_PAGES, LOST_PER_PAGE, LostRun, PageKind, UNPROVED, decode_lost, encode_lost,
};
use crate::ids::{BLOCK_SIZE, Slot};
use crate::runtime::Env;
use crate::sync::{Hold, Mutex};

mod listing;
mod pair;

use pair::{Pair, covers, cut};

/// Entries that fit.
const ENTRIES_MAX: usize = LOST_PAGES * LOST_PER_PAGE;

/// Consecutive blocks of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    end: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Lost,
    /// Written again in this round: the entry goes with the flush that ends the round, or a later one.
    Again(u64),
}

impl Run {
    fn lost(end: u64) -> Self {
        Self { end, state: State::Lost }
    }

    fn is_lost(&self) -> bool {
        self.state == State::Lost
    }

    /// Whether the block was written again in `round` or before.
    fn is_again(&self, round: u64) -> bool {
        matches!(self.state, State::Again(at) if at <= round)
    }
}

/// Runs by slot and first block; they never overlap.
type Runs = BTreeMap<(Slot, u64), Run>;

pub(super) struct Lost {
    runs: RefCell<Runs>,
    any: Cell<bool>,
    /// Counts flushes begun: a block that is lost and written once more during a flush is not that flush's matter.
    round: Cell<u64>,
    /// Blocks that a disk which is being copied, or was, could not read, and may yet.
    pub(super) owed: Owed,
    /// What stands on disk.
    written: RefCell<Pair>,
    /// Held by whoever changes or copies the pages on disk.
    pub(super) turn: Mutex,
    pub(super) pages: Pages,
}

/// The key under which the unproved blocks of a slot are kept.
fn unproved(slot: Slot) -> Slot {
    Slot(slot.0 | UNPROVED)
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
        let pages = Pages::new(PageKind::Lost, LOST_PAGES);
        Self {
            runs: RefCell::default(),
            any: Cell::new(false),
            round: Cell::new(0),
            owed: Owed::default(),
            written: RefCell::default(),
            turn: Mutex::default(),
            pages,
        }
    }

    /// Whether any block of `len` bytes at `address` of `slot` is lost.
    pub(super) fn overlaps(&self, slot: Slot, address: u64, len: u64) -> bool {
        self.any.get()
            && overlapping(&self.runs.borrow(), slot, &blocks(address, len))
                .iter()
                .any(|(_, run)| run.is_lost())
    }

    /// Whether any block of the range agrees with its peers and is not proved to be what a host wrote.
    pub(super) fn is_unproved(&self, slot: Slot, address: u64, len: u64) -> bool {
        self.overlaps(unproved(slot), address, len)
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
            .filter(|(_, run)| run.is_lost())
            .map(|((_, start), run)| run.end - start)
            .sum()
    }

    /// How many blocks of a slot are lost.
    fn count_in(&self, slot: Slot) -> u64 {
        let runs = self.runs.borrow();
        let of_slot = runs.range((slot, 0)..=(slot, u64::MAX));
        of_slot.filter(|(_, run)| run.is_lost()).map(|((_, start), run)| run.end - start).sum()
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
            runs.insert((slot, range.start), Run::lost(range.end));
        }
        if on_disk(&runs).len() > ENTRIES_MAX {
            *runs = before;
            return false;
        }
        self.any.set(!runs.is_empty());
        true
    }

    /// A whole-block write was stored on a slot: the entry goes with the next flush.
    pub(super) fn overwritten(&self, slot: Slot, address: u64, len: u64) {
        if !self.any.get() {
            return;
        }
        self.owed.forget(slot, blocks(address, len));
        let range = address.div_ceil(BLOCK_SIZE)..(address + len) / BLOCK_SIZE;
        let mut runs = self.runs.borrow_mut();
        for slot in [slot, unproved(slot)] {
            split(&mut runs, slot, &range);
            for (start, run) in overlapping(&runs, slot, &range) {
                if run.is_lost() {
                    runs.insert(
                        (slot, start),
                        Run { state: State::Again(self.round.get()), ..run },
                    );
                }
            }
        }
    }

    /// The pages as memory has them: all entries, also those to be cleared.
    fn wanted(&self) -> Pair {
        cut(on_disk(&self.runs.borrow()), LOST_PER_PAGE)
    }

    /// The entries without those written again up to `round`. Taking a piece out of an entry makes two of it: what would not fit
    /// then stays listed.
    fn without(&self, round: u64) -> Vec<LostRun> {
        let runs = self.runs.borrow();
        let rest: Runs =
            runs.iter().filter(|(_, r)| !r.is_again(round)).map(|(at, r)| (*at, *r)).collect();
        let entries = on_disk(&rest);
        if entries.len() <= ENTRIES_MAX {
            return entries;
        }
        let mut rest = runs.clone();
        for ((slot, start), run) in runs.iter().filter(|(_, run)| run.is_again(round)) {
            let before = rest.range(..(*slot, *start)).next_back();
            let joins_before = before.is_some_and(|((s, _), b)| s == slot && b.end == *start);
            if !(joins_before && rest.contains_key(&(*slot, run.end))) {
                rest.remove(&(*slot, *start));
            }
        }
        on_disk(&rest)
    }

    /// Forgets what was written again up to `round` and is listed on disk no more. `false`: something of it is still listed.
    fn forget(&self, round: u64) -> bool {
        let written = self.written.borrow().concat();
        let mut runs = self.runs.borrow_mut();
        runs.retain(|(slot, start), run| {
            !run.is_again(round) || covers(&written, *slot, *start, run.end)
        });
        self.any.set(!runs.is_empty());
        runs.values().all(|run| !run.is_again(round))
    }

    /// What was last written to a page.
    pub(super) fn written_payload(&self, page: usize) -> Vec<u8> {
        encode_lost(&self.written.borrow()[page])
    }

    /// Takes a page as found at assembly.
    pub(super) fn load(&self, page: usize, payload: &[u8]) {
        let Ok(found) = decode_lost(payload) else { return };
        self.written.borrow_mut()[page].clone_from(&found);
        let mut runs = self.runs.borrow_mut();
        for run in found {
            let range = run.start..run.start + u64::from(run.count);
            split(&mut runs, run.slot, &range);
            for (start, _) in overlapping(&runs, run.slot, &range) {
                runs.remove(&(run.slot, start));
            }
            runs.insert((run.slot, range.start), Run::lost(range.end));
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

/// The entries that a flush may clear: those written again before it began.
pub(super) struct Overwritten(Option<u64>);

impl Overwritten {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }
}

impl<E: Env> Group<E> {
    /// Entries overwritten so far: a flush that begins now covers those writes.
    pub(super) fn take_overwritten(&self) -> Overwritten {
        let lost = &self.lost;
        if !lost.any.get() {
            return Overwritten(None);
        }
        let round = lost.round.replace(lost.round.get() + 1);
        let any = lost.runs.borrow().values().any(|run| run.is_again(round));
        Overwritten(any.then_some(round))
    }

    /// Clears entries that writes, durable now, have made good.
    ///
    /// # Errors
    /// Also if an entry cannot be taken out of a full map: after a restart its block would answer with an error.
    pub(super) async fn clear_lost(
        self: &Rc<Self>,
        overwritten: Overwritten,
    ) -> Result<(), IoError> {
        let Overwritten(Some(round)) = overwritten else { return Ok(()) };
        let lost = &self.lost;
        let _turn = lost.turn.lock().await;
        // First what is to be added, so that the change after it only takes away.
        self.write_lost().await?;
        let rest = cut(lost.without(round), LOST_PER_PAGE);
        self.write_lost_pages(&rest).await?;
        if lost.forget(round) { Ok(()) } else { Err(IoError::Io) }
    }

    /// Persists entries made.
    pub(super) async fn persist_lost(self: &Rc<Self>) -> Result<(), IoError> {
        if self.lost.pages.stale().is_empty() && self.lost.wanted() == *self.lost.written.borrow() {
            return Ok(());
        }
        let _turn = self.lost.turn.lock().await;
        self.write_lost().await
    }

    /// Adds to the pages on disk what memory has; the two agree when this returns. The caller has the turn.
    async fn write_lost(self: &Rc<Self>) -> Result<(), IoError> {
        let lost = &self.lost;
        loop {
            // What not every drive has is brought to all as it is, before entries move.
            for page in lost.pages.stale() {
                lost.pages.persist(self, page, || lost.written_payload(page), |_| ()).await?;
            }
            let wanted = lost.wanted();
            if wanted == *lost.written.borrow() {
                return Ok(());
            }
            self.write_lost_pages(&wanted).await?;
        }
    }

    /// Makes `next` durable in the order that loses nothing. The caller has the turn.
    async fn write_lost_pages(self: &Rc<Self>, next: &Pair) -> Result<(), IoError> {
        let lost = &self.lost;
        let order = pair::order(&lost.written.borrow(), next);
        for page in order {
            if lost.written.borrow()[page] != next[page] {
                lost.pages.touch(page);
                lost.pages.persist(self, page, || encode_lost(&next[page]), |_| ()).await?;
                lost.written.borrow_mut()[page].clone_from(&next[page]);
            }
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

    /// Enters whole blocks as ones that agree with their peers and that nothing proves (rule J4), durably.
    ///
    /// # Errors
    /// If the map is full or cannot be written.
    pub(super) async fn enter_unproved(
        self: &Rc<Self>,
        slot: Slot,
        address: u64,
        len: u64,
    ) -> Result<(), IoError> {
        if !self.lost.insert(unproved(slot), &[(address, len)]) {
            return Err(IoError::Io);
        }
        self.persist_lost().await
    }

    /// Lists whole blocks of the data space lost although their members read: what they hold is older than what was lost elsewhere. They are
    /// filled with zeroes, so that their peers stay protected, and hosts get errors for them.
    pub(crate) async fn lose_blocks(self: &Rc<Self>, range: Range<u64>) -> Result<(), IoError> {
        let zeroes = Buf::zeroed((range.end - range.start) as usize);
        // A block that was never written reads as zeroes, whatever is listed.
        self.write(range.start, zeroes).await?;
        for piece in self.geometry.pieces(range.start, range.end - range.start) {
            let (address, len) = (
                self.geometry.member_address(piece.stripe, piece.rows.start),
                piece.rows.len() as u64,
            );
            let _guard = self.rows.lock(address..address + len, Hold::Exclusive).await;
            for slot in self.geometry.copies(piece.stripe, piece.column).iter() {
                self.enter_unproved(slot, address, len).await?;
            }
        }
        Ok(())
    }

    /// Blocks listed lost.
    pub(crate) fn lost_blocks(&self) -> u64 {
        self.lost.count()
    }

    /// Blocks of a slot that are listed lost.
    pub(crate) fn lost_in(&self, slot: Slot) -> u64 {
        self.lost.count_in(slot)
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
        again.load(0, &encode_lost(&lost.wanted()[0]));
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
            (0..(LOST_PAGES * LOST_PER_PAGE) as u64).map(|i| (i * 8192, 4096)).collect();
        assert!(lost.insert(Slot(0), &ranges));
        assert!(!lost.insert(Slot(0), &[(1 << 40, 4096)]));
        assert!(!lost.overlaps(Slot(0), 1 << 40, 4096));
    }

    #[test]
    fn a_full_map_keeps_the_entries_that_would_break_in_two() {
        let lost = Lost::new();
        let ranges: Vec<(u64, u64)> =
            (0..ENTRIES_MAX as u64).map(|i| (i * 16384, 3 * 4096)).collect();
        assert!(lost.insert(Slot(0), &ranges));
        lost.overwritten(Slot(0), 4096, 4096);
        lost.overwritten(Slot(0), 5 * 4096, 2 * 4096);
        *lost.written.borrow_mut() = cut(lost.without(0), LOST_PER_PAGE);
        assert!(!lost.forget(0), "the block in the middle is still listed");
        assert_eq!(lost.wanted(), *lost.written.borrow());
        assert!(!covers(&lost.written.borrow()[0], Slot(0), 5, 6), "the blocks at an end are not");
        assert!(covers(&lost.written.borrow()[0], Slot(0), 0, 3));
        // Once there is room it goes.
        lost.overwritten(Slot(0), 4 * 4096, 4096);
        *lost.written.borrow_mut() = cut(lost.without(0), LOST_PER_PAGE);
        assert!(lost.forget(0));
        assert!(!lost.written.borrow().iter().any(|page| covers(page, Slot(0), 1, 2)));
    }

    #[test]
    fn a_block_lost_and_written_again_during_a_flush_waits_for_the_next() {
        let lost = Lost::new();
        assert!(lost.insert(Slot(0), &[(0, 4096)]));
        lost.overwritten(Slot(0), 0, 4096);
        lost.round.set(1);
        assert!(lost.insert(Slot(0), &[(0, 4096)]));
        lost.overwritten(Slot(0), 0, 4096);
        assert_eq!(lost.without(0).len(), 1, "the second write is not durable yet");
        assert_eq!(lost.without(1).len(), 0);
    }

    #[test]
    fn a_loss_of_a_whole_huge_slot_is_a_few_runs() {
        let lost = Lost::new();
        assert!(lost.insert(Slot(3), &[(0, 1 << 46)]));
        assert_eq!(lost.count(), 1 << 34);
        let again = Lost::new();
        again.load(0, &encode_lost(&lost.wanted()[0]));
        assert_eq!(again.count(), 1 << 34);
    }
}
