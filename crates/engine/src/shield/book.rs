//! The book of a log: which slot holds which block, which slots may be used again.
//!
//! Owns the bookkeeping of one log in memory, free of I/O. Invariants: the newest entry of a block is the last of its entries on disk to
//! be overwritten, so a recovery never finds an older one alone (rule B4); a slot is used again only when what made it superfluous is
//! durable; a clearing keeps the sequence of the entry that it clears, so an entry made meanwhile is always newer.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::format::log::{EntryKind, LogEntry, LogMark, LogShape};
use crate::ids::VolumeNumber;

mod pages;

/// A block of a volume.
type Key = (u32, u64);

/// The entries of one block that may stand on disk, oldest first, as (slot, sequence).
#[derive(Clone, Hash, Default)]
struct Chain {
    entries: Vec<(u64, u64)>,
    /// The newest entry is what the block reads as.
    marked: bool,
    /// The newest entry is a durable clearing.
    cleared: bool,
}

/// Entries that were not written, by slot and sequence.
pub(super) type Unwritten = Vec<(u64, u64)>;

/// What a flush that begins now will have made durable.
#[derive(Clone, Hash)]
pub(super) struct Covered {
    sequence: u64,
    fresh: u64,
    clearings: Vec<(Key, u64)>,
    wiped: Unwritten,
    /// Pages of the index to be written once the entries are durable; with none the mark stays as it is.
    entered: BTreeSet<u64>,
}

/// A block to be cleared: home is newer than what the slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Clearing {
    block: u64,
    slot: u64,
    sequence: u64,
}

/// The book of one log.
#[derive(Clone, Hash)]
pub(super) struct Book {
    /// The log's identity.
    pub(super) log: u64,
    /// Where things lie.
    pub(super) shape: LogShape,
    entries: BTreeMap<u64, LogEntry>,
    chains: BTreeMap<Key, Chain>,
    /// The lowest slot never used.
    fresh: u64,
    free: BTreeSet<u64>,
    /// Superseded slots with their sequence, and the sequence that has to be durable before they are free.
    superseded: Vec<(u64, u64, u64)>,
    /// Entries that are overwritten: their block, slot and sequence, and the sequence of what takes their place.
    overwritten: Vec<(Key, (u64, u64), u64)>,
    /// Entries that no flush covers: under way, or not written and not wiped off the disk yet.
    in_flight: BTreeSet<u64>,
    unwritten: Unwritten,
    /// Slots and sequences of entries whose payload a failed flush may have lost.
    lost: Vec<(u64, u64)>,
    sequence: u64,
    durable: u64,
    /// What the mark on disk says of fresh slots.
    marked_fresh: u64,
    /// Entries that the index lacks: their sequence and their page.
    entered: Vec<(u64, u64)>,
    /// Pages of the index that the next flush writes whatever they hold.
    unsure: BTreeSet<u64>,
    to_clear: BTreeMap<u32, Vec<Clearing>>,
    clearings: Vec<(Key, u64)>,
    last_used: Option<u64>,
    marked: BTreeMap<u32, u64>,
}

impl Book {
    pub(super) fn new(log: u64, shape: LogShape) -> Self {
        Self {
            log,
            shape,
            entries: BTreeMap::new(),
            chains: BTreeMap::new(),
            fresh: 1,
            free: BTreeSet::new(),
            superseded: Vec::new(),
            overwritten: Vec::new(),
            in_flight: BTreeSet::new(),
            unwritten: Vec::new(),
            lost: Vec::new(),
            sequence: 0,
            durable: 0,
            marked_fresh: 1,
            entered: Vec::new(),
            unsure: BTreeSet::new(),
            to_clear: BTreeMap::new(),
            clearings: Vec::new(),
            last_used: None,
            marked: BTreeMap::new(),
        }
    }

    /// Takes over the entries found on disk, all whole, of which those up to the mark are durable. A flush comes before anything else.
    pub(super) fn recovered(
        shape: LogShape,
        mark: LogMark,
        found: BTreeMap<u64, LogEntry>,
    ) -> Self {
        let mut book = Self::new(mark.log, shape);
        (book.durable, book.marked_fresh, book.sequence) = (mark.durable, mark.fresh, mark.durable);
        let mut order: Vec<(u64, u64)> = found.iter().map(|(s, e)| (e.sequence, *s)).collect();
        order.sort_unstable();
        for (sequence, slot) in order {
            let entry = found[&slot];
            book.sequence = book.sequence.max(sequence);
            if sequence > mark.durable {
                book.entered.push((sequence, LogShape::page_of(slot)));
            }
            let key = (entry.volume, entry.block);
            let chain = book.chains.entry(key).or_default();
            if let Some((older, older_sequence)) = chain.entries.last().copied() {
                book.superseded.push((older, older_sequence, sequence));
            }
            chain.entries.push((slot, sequence));
            chain.marked = entry.kind != EntryKind::Cleared;
            if !chain.marked {
                book.clearings.push((key, slot));
            }
            book.last_used = Some(slot);
        }
        book.fresh = found.last_key_value().map_or(1, |(slot, _)| slot + 1).max(mark.fresh);
        book.free = (1..book.fresh).filter(|slot| !found.contains_key(slot)).collect();
        book.entries = found;
        for ((volume, _), chain) in &book.chains {
            *book.marked.entry(*volume).or_default() += u64::from(chain.marked);
        }
        book
    }

    /// Slots for `count` blocks, or `None` if there are not so many.
    pub(super) fn reserve(&mut self, count: u64) -> Option<Vec<u64>> {
        let unused = self.shape.slots + 1 - self.fresh;
        if unused + (self.free.len() as u64) < count {
            return None;
        }
        let mut slots: Vec<u64> = (self.fresh..self.fresh + count.min(unused)).collect();
        self.fresh += slots.len() as u64;
        while (slots.len() as u64) < count {
            slots.push(self.free.pop_first().expect("counted"));
        }
        Some(slots)
    }

    /// Whether slots may come free with the next flush.
    pub(super) fn frees_with_a_flush(&self) -> bool {
        !self.superseded.is_empty()
            || !self.overwritten.is_empty()
            || !self.clearings.is_empty()
            || !self.unwritten.is_empty()
    }

    /// Enters a block into a reserved slot; it counts once it has [`Book::landed`].
    pub(super) fn enter(
        &mut self,
        slot: u64,
        kind: EntryKind,
        volume: VolumeNumber,
        block: u64,
        payload: u32,
    ) {
        self.sequence += 1;
        let sequence = self.sequence;
        let (log, durable) = (self.log, self.durable);
        let entry = LogEntry { kind, log, volume: volume.0, block, sequence, durable, payload };
        if let Some(old) = self.entries.insert(slot, entry) {
            let key = (old.volume, old.block);
            self.overwritten.push((key, (slot, old.sequence), sequence));
        }
        self.in_flight.insert(sequence);
        self.entered.push((sequence, LogShape::page_of(slot)));
        self.last_used = Some(slot);
    }

    /// The entry and its payload are written everywhere: from now on the block reads as it says.
    pub(super) fn landed(&mut self, slot: u64) {
        let entry = self.entries[&slot];
        self.in_flight.remove(&entry.sequence);
        let chain = self.chains.entry((entry.volume, entry.block)).or_default();
        if let Some((older, older_sequence)) = chain.entries.last().copied() {
            self.superseded.push((older, older_sequence, entry.sequence));
        }
        chain.entries.push((slot, entry.sequence));
        *self.marked.entry(entry.volume).or_default() += u64::from(!chain.marked);
        (chain.marked, chain.cleared) = (true, false);
    }

    /// The entry was not written. It may stand on disk all the same and must not be found later: its slot is free once a flush covers
    /// the page without it.
    pub(super) fn failed(&mut self, slot: u64) {
        if let Some(entry) = self.entries.remove(&slot) {
            self.unwritten.push((slot, entry.sequence));
        }
    }

    /// Entries to be wiped off the disk before a flush may begin that covers what came after them.
    pub(super) fn unwritten(&self) -> Unwritten {
        self.unwritten.clone()
    }

    /// The newest entry of a block, if the block reads as it says.
    pub(super) fn find(&self, volume: VolumeNumber, block: u64) -> Option<(u64, LogEntry)> {
        let chain = self.chains.get(&(volume.0, block)).filter(|chain| chain.marked)?;
        let (slot, _) = *chain.entries.last()?;
        Some((slot, self.entries[&slot]))
    }

    /// Marked blocks of a volume inside `blocks`, ascending.
    pub(super) fn marked_in(
        &self,
        volume: VolumeNumber,
        blocks: Range<u64>,
    ) -> impl Iterator<Item = u64> {
        let keys = (volume.0, blocks.start)..(volume.0, blocks.end.max(blocks.start));
        self.chains.range(keys).filter(|(_, chain)| chain.marked).map(|((_, block), _)| *block)
    }

    /// Blocks of a volume that the log holds.
    pub(super) fn marks_of(&self, volume: VolumeNumber) -> u64 {
        self.marked.get(&volume.0).copied().unwrap_or(0)
    }

    /// Whether a slot holds what a block reads as.
    pub(super) fn slot_is_marked(&self, slot: u64) -> bool {
        self.entries.get(&slot).is_some_and(|entry| {
            let chain = self.chains.get(&(entry.volume, entry.block));
            chain.is_some_and(|c| c.marked && c.entries.last() == Some(&(slot, entry.sequence)))
        })
    }

    /// The slots that hold what their block reads as, in the order of their use.
    pub(super) fn marked_slots(&self) -> Vec<(u64, LogEntry)> {
        let marked = self.entries.iter().filter(|(slot, _)| self.slot_is_marked(**slot));
        let mut slots: Vec<(u64, LogEntry)> = marked.map(|(s, e)| (*s, *e)).collect();
        slots.sort_by_key(|(_, entry)| entry.sequence);
        slots
    }

    /// The slot used last, unless nothing is redirected here any more.
    pub(super) fn terminal(&self) -> Option<u64> {
        let holds = !self.in_flight.is_empty() || self.marked.values().any(|blocks| *blocks > 0);
        self.last_used.filter(|_| holds)
    }

    /// Home is newer than what the log holds of a block.
    pub(super) fn unmark(&mut self, volume: VolumeNumber, block: u64) {
        let Some(chain) = self.chains.get_mut(&(volume.0, block)) else { return };
        if !std::mem::take(&mut chain.marked) {
            return;
        }
        *self.marked.entry(volume.0).or_default() -= 1;
        let (slot, sequence) = *chain.entries.last().expect("a marked block has an entry");
        self.to_clear.entry(volume.0).or_default().push(Clearing { block, slot, sequence });
    }

    /// What is to be cleared of a volume once what was written home so far is durable.
    pub(super) fn take_clearings(&mut self, volume: VolumeNumber) -> Vec<Clearing> {
        self.to_clear.remove(&volume.0).unwrap_or_default()
    }

    /// Gives clearings back after a flush that failed.
    pub(super) fn give_back(&mut self, volume: VolumeNumber, clearings: Vec<Clearing>) {
        self.to_clear.entry(volume.0).or_default().extend(clearings);
    }

    /// Turns entries into clearings; answers the pages to be written. That of a block that was entered again meanwhile is turned too: a crash may take
    /// the newer entry, and what home has is newer than the older one.
    pub(super) fn clear(&mut self, volume: VolumeNumber, clearings: &[Clearing]) -> BTreeSet<u64> {
        let mut pages = BTreeSet::new();
        for &Clearing { block, slot, sequence } in clearings {
            let key = (volume.0, block);
            let Some(entry) = self.entries.get_mut(&slot) else { continue };
            if (entry.volume, entry.block) == key && entry.sequence == sequence {
                entry.kind = EntryKind::Cleared;
                self.clearings.push((key, slot));
                pages.insert(LogShape::page_of(slot));
            }
        }
        pages
    }

    /// A flush begins, with the pages of `wiped` written: answers what it covers.
    pub(super) fn begin_flush(&mut self, wiped: Unwritten) -> Covered {
        self.unwritten.retain(|entry| !wiped.contains(entry));
        for (_, sequence) in &wiped {
            self.in_flight.remove(sequence);
        }
        let sequence = self.in_flight.first().map_or(self.sequence, |first| first - 1);
        let new = self.entered.partition_point(|(entered, _)| *entered <= sequence);
        let mut entered = std::mem::take(&mut self.unsure);
        entered.extend(self.entered.drain(..new).map(|(_, page)| page));
        if !entered.is_empty() {
            // The mark tells of all slots below the fresh ones: those reserved and not entered yet are told to be empty.
            entered.extend((self.marked_fresh..self.fresh).map(LogShape::page_of));
        }
        let clearings = std::mem::take(&mut self.clearings);
        Covered { sequence, fresh: self.fresh, clearings, wiped, entered }
    }

    /// It failed: nothing of it may be relied on.
    pub(super) fn flush_failed(&mut self, covered: Covered) {
        self.clearings.extend(covered.clearings);
        self.in_flight.extend(covered.wiped.iter().map(|(_, sequence)| sequence));
        self.unwritten.extend(covered.wiped);
        self.unsure.extend(covered.entered);
    }

    /// Entries that blocks read as and whose payload is not known to be durable.
    pub(super) fn doubtful_payloads(&self) -> Vec<(u64, LogEntry)> {
        let doubtful = |slot: &u64, e: &LogEntry| {
            e.sequence > self.durable && e.kind == EntryKind::Data && self.slot_is_marked(*slot)
        };
        self.entries.iter().filter(|(s, e)| doubtful(s, e)).map(|(s, e)| (*s, *e)).collect()
    }

    /// The payload of an entry cannot be had any more.
    pub(super) fn lose(&mut self, slot: u64, sequence: u64) {
        self.lost.push((slot, sequence));
    }

    /// Whether a block reads as an entry whose payload was lost.
    pub(super) fn has_lost(&mut self) -> bool {
        let mut lost = std::mem::take(&mut self.lost);
        lost.retain(|(slot, sequence)| {
            self.slot_is_marked(*slot)
                && self.entries.get(slot).is_some_and(|e| e.sequence == *sequence)
        });
        self.lost = lost;
        !self.lost.is_empty()
    }

    /// Pages with entries that are not known to be durable.
    pub(super) fn doubtful_pages(&self) -> BTreeSet<u64> {
        let entries = self.entries.iter().filter(|(_, e)| e.sequence > self.durable);
        let cleared = self.clearings.iter().map(|(_, slot)| slot);
        entries.map(|(slot, _)| slot).chain(cleared).map(|slot| LogShape::page_of(*slot)).collect()
    }

    /// It succeeded: what it covers is durable, and slots come free.
    pub(super) fn end_flush(&mut self, covered: &Covered) {
        self.durable = self.durable.max(covered.sequence);
        if !covered.entered.is_empty() {
            self.marked_fresh = covered.fresh;
        }
        let durable = self.durable;
        let mut superseded = std::mem::take(&mut self.superseded);
        superseded.retain(|(slot, sequence, by)| {
            if *by > durable {
                return true;
            }
            if self.entries.get(slot).is_some_and(|entry| entry.sequence == *sequence) {
                self.free.insert(*slot);
            }
            false
        });
        self.superseded.extend(superseded);
        self.free.extend(covered.wiped.iter().map(|(slot, _)| slot));
        for (key, slot) in &covered.clearings {
            if let Some(chain) = self.chains.get_mut(key)
                && !chain.marked
                && chain.entries.last().is_some_and(|(newest, _)| newest == slot)
            {
                chain.cleared = true;
            }
            self.release_cleared(*key);
        }
        let mut overwritten = std::mem::take(&mut self.overwritten);
        overwritten.retain(|(key, entry, by)| {
            if *by > durable {
                return true;
            }
            if let Some(chain) = self.chains.get_mut(key) {
                chain.entries.retain(|e| e != entry);
                if chain.entries.is_empty() {
                    self.chains.remove(key);
                } else {
                    self.release_cleared(*key);
                }
            }
            false
        });
        self.overwritten.extend(overwritten);
    }

    /// A durable clearing that stands alone says nothing that its absence would not say.
    fn release_cleared(&mut self, key: Key) {
        let Some(chain) = self.chains.get(&key) else { return };
        if let [(slot, sequence)] = chain.entries[..]
            && chain.cleared
            && self.entries.get(&slot).is_some_and(|entry| entry.sequence == sequence)
        {
            self.free.insert(slot);
        }
    }

    /// The lowest slot never used.
    pub(super) fn fresh(&self) -> u64 {
        self.fresh
    }

    /// Entries of a range of slots that have a payload.
    pub(super) fn payloads(&self, slots: Range<u64>) -> Vec<(u64, LogEntry)> {
        let with = self.entries.range(slots).filter(|(_, e)| e.kind == EntryKind::Data);
        with.map(|(slot, entry)| (*slot, *entry)).collect()
    }

    /// Slots in use or not free yet, and all slots.
    pub(super) fn usage(&self) -> (u64, u64) {
        (self.fresh - 1 - self.free.len() as u64, self.shape.slots)
    }

    /// Whether half of all slots hold what is to be read here.
    pub(super) fn is_half_full(&self) -> bool {
        self.marked.values().sum::<u64>() >= self.shape.slots / 2
    }
}

#[cfg(test)]
mod tests;
