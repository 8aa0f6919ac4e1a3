//! What counts of what the copies of a log say, decided without I/O (rule B3).
//!
//! Owns the decision. Invariants: what a flush was answered for counts whether its payload fits or not, so it is never taken for a write that was torn;
//! of a slot the newest entry counts that was flushed or whose payload fits; a slot that nothing tells of refuses the log.

use std::collections::{BTreeMap, BTreeSet};

use super::Unrecovered;
use crate::format::log::{EntryKind, LogEntry, LogMark, LogShape};

/// The entries of one table or index, by slot, and the pages that it does not give.
#[derive(Clone, Default)]
pub(in super::super) struct Table {
    pub(in super::super) entries: BTreeMap<u64, LogEntry>,
    pub(in super::super) unreadable: BTreeSet<u64>,
}

/// What the copies of a log say, side by side.
pub(in super::super) struct Found {
    pub(in super::super) mark: LogMark,
    /// The marks are not all alike.
    pub(in super::super) marks_differ: bool,
    pub(in super::super) tables: Vec<Table>,
    pub(in super::super) indexes: Vec<Table>,
}

/// The entries of each slot, the newest last, and the sequence up to which they were flushed.
pub(in super::super) struct Weighed {
    pub(in super::super) durable: u64,
    slots: BTreeMap<u64, Vec<LogEntry>>,
}

impl Found {
    /// The sequence up to which entries are known to be durable. Whatever stands in an index is.
    fn durable(&self) -> u64 {
        let told = self.tables.iter().flat_map(|t| t.entries.values()).map(|e| e.durable);
        let proved = self.indexes.iter().flat_map(|t| t.entries.values()).map(|e| e.sequence);
        told.chain(proved).fold(self.mark.durable, u64::max)
    }

    /// What counts of the log, and what is to be looked at before that is known.
    ///
    /// # Errors
    /// If neither table nor index tells of a slot on any copy: any block may have stood there, and guessing would serve old data.
    pub(in super::super) fn weigh(&self) -> Result<Weighed, Unrecovered> {
        let mut slots: BTreeMap<u64, Vec<LogEntry>> = BTreeMap::new();
        for (slot, entry) in self.tables.iter().chain(&self.indexes).flat_map(|t| &t.entries) {
            let known = slots.entry(*slot).or_default();
            if !known.contains(entry) {
                known.push(*entry);
            }
        }
        let untold: Vec<u64> =
            (1..self.mark.fresh).filter(|slot| !slots.contains_key(slot)).collect();
        if !untold.is_empty() {
            return Err(Unrecovered::Slots(untold));
        }
        for entries in slots.values_mut() {
            entries.retain(|entry| entry.kind != EntryKind::Nothing);
            // A clearing keeps the sequence of what it clears, and is newer.
            entries.sort_by_key(|e| (e.sequence, e.kind == EntryKind::Cleared));
        }
        Ok(Weighed { durable: self.durable(), slots })
    }

    /// Pages of each copy's table that were damaged: they do not read, or lack an entry that was flushed to every copy. A crash alone does neither.
    pub(in super::super) fn damaged(
        &self,
        chosen: &BTreeMap<u64, LogEntry>,
        durable: u64,
    ) -> Vec<u64> {
        let of_copy = |table: &Table| {
            let has = |slot: u64, entry: &LogEntry| {
                table.entries.get(&slot).is_some_and(|says| says.sequence >= entry.sequence)
            };
            let flushed = chosen.iter().filter(|(_, entry)| entry.sequence <= durable);
            let lacks = flushed.filter(|(slot, entry)| !has(**slot, entry));
            let lacks = lacks.map(|(slot, _)| LogShape::page_of(*slot));
            let pages: BTreeSet<u64> = table.unreadable.iter().copied().chain(lacks).collect();
            pages.len() as u64
        };
        self.tables.iter().map(of_copy).collect()
    }

    /// Pages of which some copy says something else than what counts, or nothing.
    pub(in super::super) fn repairs(&self, chosen: &BTreeMap<u64, LogEntry>) -> BTreeSet<u64> {
        let mut pages = BTreeSet::new();
        let used = chosen.last_key_value().map_or(1, |(slot, _)| slot + 1).max(self.mark.fresh);
        for table in self.tables.iter().chain(&self.indexes) {
            pages.extend(&table.unreadable);
            let says = |slot: &u64| table.entries.get(slot);
            let is_nothing = |entry: Option<&LogEntry>| {
                entry.is_some_and(|entry| entry.kind == EntryKind::Nothing)
            };
            let wrong = (1..used).chain(table.entries.range(used..).map(|(slot, _)| *slot));
            let wrong = wrong.filter(|slot| match chosen.get(slot) {
                Some(entry) => says(slot) != Some(entry),
                None => *slot >= used || !is_nothing(says(slot)),
            });
            pages.extend(wrong.map(LogShape::page_of));
        }
        pages
    }
}

impl Weighed {
    /// Entries that no flush was answered for, and that count only if their payload fits.
    pub(in super::super) fn doubtful(&self) -> impl Iterator<Item = (u64, LogEntry)> {
        let all = self.slots.iter().flat_map(|(slot, entries)| entries.iter().map(|e| (*slot, *e)));
        all.filter(|(_, entry)| self.is_doubtful(entry))
    }

    fn is_doubtful(&self, entry: &LogEntry) -> bool {
        entry.sequence > self.durable && entry.kind == EntryKind::Data
    }

    /// What counts, by slot; `fits` are the doubtful entries whose payload does.
    pub(in super::super) fn choose(&self, fits: &[(u64, LogEntry)]) -> BTreeMap<u64, LogEntry> {
        let counts = |slot: u64, e: &LogEntry| !self.is_doubtful(e) || fits.contains(&(slot, *e));
        let newest = |(slot, entries): (&u64, &Vec<LogEntry>)| {
            let entry = entries.iter().rev().find(|entry| counts(*slot, entry))?;
            Some((*slot, *entry))
        };
        self.slots.iter().filter_map(newest).collect()
    }
}
