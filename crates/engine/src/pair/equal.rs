//! Which marked blocks of a pair were made equal on both sides, and which flush covers that.
//!
//! Owns the order of copies. Invariant: a bit is given to be cleared only if its block was made equal before a flush of both sides began, and was not
//! written since.

use std::collections::BTreeMap;
use std::ops::Range;

/// A place in the order of copies that no flush covers.
const NEVER: u64 = u64::MAX;

/// Marked blocks that were made equal, and not written since.
#[derive(Clone, Hash, Default)]
pub(super) struct Equal {
    /// Each with its place in the order in which they were.
    blocks: BTreeMap<u64, u64>,
    copies: u64,
}

impl Equal {
    /// Both sides have the same in these marked blocks.
    pub(super) fn made(&mut self, marked: impl IntoIterator<Item = u64>) {
        self.copies += 1;
        let order = self.copies;
        self.blocks.extend(marked.into_iter().map(|block| (block, order)));
    }

    /// One side alone has the newest of these marked blocks, and is to keep it: no flush clears their bits.
    pub(super) fn keep(&mut self, blocks: Range<u64>) {
        self.blocks.extend(blocks.map(|block| (block, NEVER)));
    }

    /// These blocks are about to be written.
    pub(super) fn differ(&mut self, blocks: Range<u64>) {
        for block in blocks {
            self.blocks.remove(&block);
        }
    }

    /// What either side holds is not known any more.
    pub(super) fn forget(&mut self) {
        self.blocks.clear();
    }

    pub(super) fn holds(&self, block: u64) -> bool {
        self.blocks.contains_key(&block)
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// What a flush that begins now covers.
    pub(super) fn covered(&self) -> u64 {
        self.copies
    }

    /// Both sides were flushed: takes the blocks that this covers, whose bits may go.
    pub(super) fn settle(&mut self, covered: u64) -> Vec<u64> {
        let mut settled = Vec::new();
        self.blocks.retain(|block, order| {
            let is = *order <= covered;
            settled.extend(is.then_some(*block));
            !is
        });
        settled
    }
}
