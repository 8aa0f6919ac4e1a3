//! The lost-block map: blocks of a slot that nothing can give any more (rule M5).
//!
//! Owns runs of lost blocks per slot. Invariants: a lost block is an erasure for every plan; an entry is durable before a flush that
//! relies on it is answered (rule F1); it is cleared by a whole-block write, on disk only after that write is durable. What does not
//! fit is refused, and the member is failed instead.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Group;
use super::pages::Pages;
use crate::error::IoError;
use crate::format::page::{LOST_PER_PAGE, LostRun, PageKind, decode_lost, encode_lost};
use crate::ids::{BLOCK_SIZE, Slot};
use crate::runtime::Env;

/// Pages of the map: what the smallest disk holds.
const PAGES: usize = 2;

pub(super) struct Lost {
    /// (slot, block) → whether it is still lost; `false` is an entry to be cleared at the next flush.
    blocks: RefCell<BTreeMap<(Slot, u64), bool>>,
    any: Cell<bool>,
    pub(super) pages: Pages,
}

impl Lost {
    pub(super) fn new() -> Self {
        Self {
            blocks: RefCell::default(),
            any: Cell::new(false),
            pages: Pages::new(PageKind::Lost, PAGES),
        }
    }

    /// Whether any block of `len` bytes at `address` of `slot` is lost.
    pub(super) fn overlaps(&self, slot: Slot, address: u64, len: u64) -> bool {
        self.any.get() && {
            let (first, end) = (address / BLOCK_SIZE, (address + len).div_ceil(BLOCK_SIZE));
            self.blocks.borrow().range((slot, first)..(slot, end)).any(|(_, lost)| *lost)
        }
    }

    /// Whether any slot has a lost block in the range.
    pub(super) fn overlaps_any(&self, slots: usize, address: u64, len: u64) -> bool {
        self.any.get() && (0..slots).any(|s| self.overlaps(Slot(s as u8), address, len))
    }

    /// How many blocks are lost.
    pub(super) fn count(&self) -> u64 {
        self.blocks.borrow().values().filter(|lost| **lost).count() as u64
    }

    /// Enters blocks as lost. `false`: the map is full and nothing was entered.
    pub(super) fn insert(&self, slot: Slot, address: u64, len: u64) -> bool {
        let mut blocks = self.blocks.borrow_mut();
        let before = blocks.clone();
        for block in address / BLOCK_SIZE..(address + len).div_ceil(BLOCK_SIZE) {
            blocks.insert((slot, block), true);
        }
        if runs(&blocks).len() > PAGES * LOST_PER_PAGE {
            *blocks = before;
            return false;
        }
        self.any.set(true);
        drop(blocks);
        self.touch();
        true
    }

    /// A whole-block write was stored on a slot: the entry goes at the next flush.
    pub(super) fn overwritten(&self, slot: Slot, address: u64, len: u64) {
        if !self.any.get() {
            return;
        }
        let mut changed = false;
        for (_, lost) in self
            .blocks
            .borrow_mut()
            .range_mut((slot, address / BLOCK_SIZE)..(slot, (address + len) / BLOCK_SIZE))
        {
            changed |= *lost;
            *lost = false;
        }
        if changed {
            self.touch();
        }
    }

    fn touch(&self) {
        (0..PAGES).for_each(|page| self.pages.touch(page));
    }

    pub(super) fn payload(&self, page: usize) -> Vec<u8> {
        let runs = runs(&self.blocks.borrow());
        let mine: Vec<LostRun> =
            runs.into_iter().skip(page * LOST_PER_PAGE).take(LOST_PER_PAGE).collect();
        encode_lost(&mine)
    }

    pub(super) fn load(&self, payload: &[u8]) {
        let Ok(runs) = decode_lost(payload) else { return };
        let mut blocks = self.blocks.borrow_mut();
        for run in runs {
            for block in run.start..run.start + u64::from(run.count) {
                blocks.insert((run.slot, block), true);
            }
        }
        self.any.set(!blocks.is_empty());
    }
}

/// All entries, also those to be cleared, as runs.
fn runs(blocks: &BTreeMap<(Slot, u64), bool>) -> Vec<LostRun> {
    let mut runs: Vec<LostRun> = Vec::new();
    for (slot, block) in blocks.keys() {
        match runs.last_mut() {
            Some(run) if run.slot == *slot && run.start + u64::from(run.count) == *block => {
                run.count += 1
            }
            _ => runs.push(LostRun { slot: *slot, start: *block, count: 1 }),
        }
    }
    runs
}

/// Entries that a flush may clear.
pub(super) struct Overwritten(Vec<(Slot, u64)>);

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
        Overwritten(
            self.lost
                .blocks
                .borrow()
                .iter()
                .filter(|(_, lost)| !**lost)
                .map(|(at, _)| *at)
                .collect(),
        )
    }

    /// Persists the map: entries made, and entries cleared by writes that are durable now.
    pub(super) async fn settle_lost(
        self: &Rc<Self>,
        overwritten: Overwritten,
    ) -> Result<(), IoError> {
        let lost = &self.lost;
        if !overwritten.0.is_empty() {
            let mut blocks = lost.blocks.borrow_mut();
            for at in overwritten.0 {
                // Lost again meanwhile: the entry stays.
                if blocks.get(&at) == Some(&false) {
                    blocks.remove(&at);
                }
            }
            lost.any.set(!blocks.is_empty());
            drop(blocks);
            lost.touch();
        }
        for page in lost.pages.stale() {
            lost.pages.persist(self, page, || lost.payload(page), |_| ()).await?;
        }
        Ok(())
    }

    /// Enters blocks of a slot as lost and makes the entry durable.
    pub(super) async fn lose(
        self: &Rc<Self>,
        slot: Slot,
        address: u64,
        len: u64,
    ) -> Result<(), IoError> {
        if !self.lost.insert(slot, address, len) {
            return Err(IoError::Io);
        }
        self.persist_lost().await
    }

    /// Persists the map as it stands.
    pub(super) async fn persist_lost(self: &Rc<Self>) -> Result<(), IoError> {
        self.settle_lost(Overwritten(Vec::new())).await
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
        assert!(lost.insert(Slot(1), 8192, 3 * 4096));
        assert!(lost.overlaps(Slot(1), 8192, 1));
        assert!(!lost.overlaps(Slot(0), 8192, 4096));
        lost.overwritten(Slot(1), 8192 + 4096, 4096);
        assert!(!lost.overlaps(Slot(1), 12288, 4096));
        assert_eq!(lost.count(), 2);
        let again = Lost::new();
        again.load(&lost.payload(0));
        assert_eq!(again.count(), 3, "on disk the entry stays until the write is durable");
    }

    #[test]
    fn a_full_map_takes_nothing_more() {
        let lost = Lost::new();
        for i in 0..(PAGES * LOST_PER_PAGE) as u64 {
            assert!(lost.insert(Slot(0), i * 2 * 4096, 4096));
        }
        assert!(!lost.insert(Slot(0), 1 << 40, 4096));
        assert!(!lost.overlaps(Slot(0), 1 << 40, 4096));
    }
}
