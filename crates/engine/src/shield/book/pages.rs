//! What the book says on disk: pages of the table and of the index, and the mark.
//!
//! Owns their content. Invariants: the table tells of every entry from before its payload is written; the index tells only of entries that are
//! durable, so what stands there needs no other proof; each slot below the fresh ones has an entry or is told to have none.

use std::collections::BTreeSet;

use super::{Book, Covered};
use crate::format::log::{ENTRIES_PER_PAGE, ENTRY_LEN, LogEntry, LogMark, LogShape};

impl Covered {
    /// The mark that tells of it.
    pub(in super::super) fn mark(&self, log: u64) -> LogMark {
        LogMark { log, durable: self.sequence, fresh: self.fresh }
    }

    /// Pages of the index that lack entries which are durable once the flush has succeeded.
    pub(in super::super) fn entered(&self) -> &BTreeSet<u64> {
        &self.entered
    }

    /// Pages of the index with entries that are cleared or wiped. They may be written before the flush: home is durable already.
    pub(in super::super) fn withdrawn(&self) -> BTreeSet<u64> {
        let cleared = self.clearings.iter().map(|(_, slot)| *slot);
        let wiped = self.wiped.iter().map(|(slot, _)| *slot);
        cleared.chain(wiped).map(LogShape::page_of).collect()
    }
}

impl Book {
    /// The bytes of a page of the table.
    pub(in super::super) fn table_page(&self, page: u64) -> Vec<u8> {
        self.page(page, u64::MAX)
    }

    /// The bytes of a page of the index when entries up to `durable` are.
    pub(in super::super) fn index_page(&self, page: u64, durable: u64) -> Vec<u8> {
        self.page(page, durable)
    }

    fn page(&self, page: u64, last: u64) -> Vec<u8> {
        let nothing = LogEntry::nothing(self.log);
        let mut bytes = vec![0; ENTRIES_PER_PAGE as usize * ENTRY_LEN];
        for (slot, bytes) in self.shape.slots_of(page).zip(bytes.chunks_exact_mut(ENTRY_LEN)) {
            if slot < self.fresh {
                let entry = self.entries.get(&slot).filter(|entry| entry.sequence <= last);
                bytes.copy_from_slice(&entry.unwrap_or(&nothing).encode());
            }
        }
        bytes
    }

    /// Pages of the table with slots that the mark of a flush is about to tell of although they are reserved, or being written: the table has to
    /// tell of them first, since a crash may leave the mark without the index.
    pub(in super::super) fn untold(&self, covered: &Covered) -> BTreeSet<u64> {
        let told =
            |slot: &u64| self.entries.get(slot).is_some_and(|e| e.sequence <= covered.sequence);
        let untold = (self.marked_fresh..covered.fresh).filter(|slot| !told(slot));
        untold.filter(|_| !covered.entered.is_empty()).map(LogShape::page_of).collect()
    }

    /// Entries up to this sequence are durable.
    pub(in super::super) fn durable(&self) -> u64 {
        self.durable
    }

    /// The next flush writes these pages of the index, and the mark.
    pub(in super::super) fn doubt_index(&mut self, pages: impl IntoIterator<Item = u64>) {
        self.unsure.extend(pages);
    }
}
