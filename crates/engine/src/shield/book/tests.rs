//! The book against a model of what stands on disk.

use super::*;

const VOLUME: VolumeNumber = VolumeNumber(1);

fn put(book: &mut Book, block: u64) -> u64 {
    let slot = book.reserve(1).expect("room")[0];
    book.enter(slot, EntryKind::Data, VOLUME, block, 0);
    book.landed(slot);
    slot
}

fn flush(book: &mut Book) {
    let wiped = book.unwritten();
    let covered = book.begin_flush(wiped);
    book.end_flush(&covered);
}

#[test]
fn what_holds_nothing_has_no_terminal_address() {
    let mut book = Book::new(7, LogShape { slots: 3, pages: 1 });
    assert_eq!(book.terminal(), None);
    put(&mut book, 10);
    put(&mut book, 11);
    book.unmark(VOLUME, 10);
    assert_eq!(book.terminal(), Some(2), "block 11 is here still");
    book.unmark(VOLUME, 11);
    assert_eq!(book.terminal(), None, "all is home, and the log still in use");
    clear_all(&mut book);
    assert_eq!((put(&mut book, 10), book.terminal()), (3, Some(3)));
}

fn clear_all(book: &mut Book) {
    let clearings = book.take_clearings(VOLUME);
    book.clear(VOLUME, &clearings);
}

#[test]
fn slots_are_used_in_order_and_again_only_when_the_successor_is_durable() {
    let mut book = Book::new(7, LogShape { slots: 3, pages: 1 });
    assert_eq!((put(&mut book, 10), put(&mut book, 11), put(&mut book, 10)), (1, 2, 3));
    assert!(book.reserve(1).is_none(), "slot 1 is superseded, not durably");
    flush(&mut book);
    assert_eq!(book.reserve(1), Some(vec![1]));
    assert_eq!(book.terminal(), Some(3));
    assert_eq!(
        (book.slot_is_marked(1), book.slot_is_marked(2), book.slot_is_marked(3)),
        (false, true, true)
    );
}

#[test]
fn a_failed_entry_gives_its_slot_back_once_it_is_wiped() {
    let mut book = Book::new(7, LogShape { slots: 2, pages: 1 });
    let slot = book.reserve(1).expect("room")[0];
    book.enter(slot, EntryKind::Data, VOLUME, 10, 0);
    book.failed(slot);
    put(&mut book, 11);
    assert_eq!((book.usage(), book.find(VOLUME, 10)), ((2, 2), None));
    assert!(book.reserve(1).is_none(), "the entry may still stand on disk");
    assert!(book.frees_with_a_flush());
    let covered = book.begin_flush(Vec::new());
    assert_eq!(
        covered.sequence, 0,
        "nothing may call durable what may stand on disk and is not true"
    );
    book.flush_failed(covered);
    let covered = book.begin_flush(book.unwritten());
    book.flush_failed(covered);
    assert!(book.reserve(1).is_none(), "it may be there again after a flush that failed");
    flush(&mut book);
    assert_eq!((book.usage(), book.reserve(1)), ((1, 2), Some(vec![slot])));
    assert_eq!(book.durable, 2);
}

#[test]
fn a_clearing_outlives_every_older_entry_of_its_block() {
    let mut book = Book::new(7, LogShape { slots: 3, pages: 1 });
    put(&mut book, 10); // slot 1
    put(&mut book, 10); // slot 2
    flush(&mut book);
    book.unmark(VOLUME, 10);
    clear_all(&mut book);
    flush(&mut book);
    // Slots 1 and 3 may be used; slot 2 holds the clearing, which slot 1's old entry still needs.
    assert_eq!(put(&mut book, 20), 3);
    assert_eq!(put(&mut book, 21), 1);
    assert!(book.reserve(1).is_none());
    flush(&mut book);
    assert_eq!(book.reserve(1), Some(vec![2]));
}

#[test]
fn a_block_entered_again_stays_and_what_it_was_before_is_cleared() {
    let mut book = Book::new(7, LogShape { slots: 8, pages: 1 });
    put(&mut book, 10);
    book.unmark(VOLUME, 10);
    let clearings = book.take_clearings(VOLUME);
    let slot = put(&mut book, 10);
    assert!(!book.clear(VOLUME, &clearings).is_empty());
    assert_eq!(book.entries[&1].kind, EntryKind::Cleared, "a crash may take the newer entry");
    assert_eq!(book.find(VOLUME, 10).map(|(slot, _)| slot), Some(slot));
    assert_eq!(book.marks_of(VOLUME), 1);
}

#[test]
fn a_lost_payload_is_remembered_until_its_block_is_written_anew() {
    let mut book = Book::new(7, LogShape { slots: 8, pages: 1 });
    let slot = put(&mut book, 10);
    assert_eq!(book.doubtful_payloads().len(), 1);
    let sequence = book.doubtful_payloads()[0].1.sequence;
    book.lose(slot, sequence);
    flush(&mut book);
    assert!(book.has_lost());
    assert!(book.doubtful_payloads().is_empty(), "what is durable is not doubtful");
    put(&mut book, 10);
    assert!(!book.has_lost());
}

/// A table on disk, as a crash may leave it: each slot holds what is durable or anything written since.
struct Disk {
    durable: BTreeMap<u64, Option<LogEntry>>,
    since: BTreeMap<u64, Vec<Option<LogEntry>>>,
    /// For each block what it truly read as since the last flush: a sequence, or home.
    truth: BTreeMap<u64, Vec<Option<u64>>>,
    /// Blocks and sequences of entries that failed: until the next flush a crash may leave them, as it may any write that was not answered.
    strays: Vec<(u64, u64)>,
}

impl Disk {
    fn new(slots: u64, blocks: u64) -> Self {
        Self {
            durable: (1..=slots).map(|slot| (slot, None)).collect(),
            since: BTreeMap::new(),
            truth: (0..blocks).map(|block| (block, vec![None])).collect(),
            strays: Vec::new(),
        }
    }

    fn wrote(&mut self, book: &Book, slot: u64) {
        self.since.entry(slot).or_default().push(book.entries.get(&slot).copied());
    }

    fn note(&mut self, book: &Book) {
        for (block, states) in &mut self.truth {
            states.push(reads(book, *block));
        }
    }

    fn flushed(&mut self, book: &Book) {
        self.strays.clear();
        for (slot, written) in std::mem::take(&mut self.since) {
            self.durable.insert(slot, *written.last().expect("something was written"));
        }
        for (block, states) in &mut self.truth {
            *states = vec![reads(book, *block)];
        }
    }

    fn after_a_crash(&self, random: &mut impl FnMut(u64) -> u64) -> BTreeMap<u64, LogEntry> {
        let mut found = BTreeMap::new();
        for (slot, durable) in &self.durable {
            let mut choices = vec![*durable];
            choices.extend(self.since.get(slot).into_iter().flatten());
            if let Some(entry) = choices[random(choices.len() as u64) as usize] {
                found.insert(*slot, entry);
            }
        }
        found
    }
}

fn reads(book: &Book, block: u64) -> Option<u64> {
    book.find(VOLUME, block).map(|(_, entry)| entry.sequence)
}

/// One random step of a history.
fn step(book: &mut Book, disk: &mut Disk, random: &mut impl FnMut(u64) -> u64) {
    let block = random(4);
    match random(5) {
        4 => {
            if let Some(slots) = book.reserve(1) {
                book.enter(slots[0], EntryKind::Data, VOLUME, block, 0);
                disk.wrote(book, slots[0]);
                let landed = disk.since[&slots[0]].last().copied();
                book.failed(slots[0]);
                disk.strays.extend(landed.flatten().map(|entry| (block, entry.sequence)));
                if random(2) == 0 {
                    disk.wrote(book, slots[0]);
                }
            }
        }
        0 | 1 => {
            if let Some(slots) = book.reserve(1) {
                book.enter(slots[0], EntryKind::Data, VOLUME, block, 0);
                disk.wrote(book, slots[0]);
                book.landed(slots[0]);
            }
        }
        2 => book.unmark(VOLUME, block),
        _ => {
            // Home is durable: clearings are written, then the log may be flushed.
            let clearings = book.take_clearings(VOLUME);
            book.clear(VOLUME, &clearings);
            clearings.iter().for_each(|clearing| disk.wrote(book, clearing.slot));
            disk.note(book);
            if random(2) == 0 {
                book.unwritten().iter().for_each(|(slot, _)| disk.wrote(book, *slot));
                flush(book);
                disk.flushed(book);
            }
        }
    }
    disk.note(book);
}

#[test]
fn whatever_a_crash_leaves_reads_as_something_true_since_the_last_flush() {
    for seed in 0..300_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let shape = LogShape { slots: 6, pages: 1 };
        let mut book = Book::new(7, shape);
        let mut disk = Disk::new(6, 4);
        for _ in 0..60 {
            step(&mut book, &mut disk, &mut random);
            let mark = LogMark { log: 7, durable: book.durable, fresh: book.fresh };
            let after = Book::recovered(shape, mark, disk.after_a_crash(&mut random));
            for block in 0..4 {
                let found = reads(&after, block);
                // Unmarked and not durably cleared: the log's version again, which is what home was at some time since.
                let newest = book.chains.get(&(1, block)).map(|c| c.entries.last().map(|e| e.1));
                let allowed = &disk.truth[&block];
                assert!(
                    allowed.contains(&found)
                        || newest == Some(found)
                        || found.is_some_and(|found| disk.strays.contains(&(block, found))),
                    "seed {seed}: block {block} reads {found:?}, allowed {allowed:?}"
                );
            }
        }
    }
}
