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
    let covered = book.begin_flush();
    book.end_flush(&covered);
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
fn a_block_entered_again_is_not_cleared() {
    let mut book = Book::new(7, LogShape { slots: 8, pages: 1 });
    put(&mut book, 10);
    book.unmark(VOLUME, 10);
    let clearings = book.take_clearings(VOLUME);
    let slot = put(&mut book, 10);
    assert!(book.clear(VOLUME, &clearings).is_empty());
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

/// Random histories: a model keeps the table as a disk would after a crash in which any page write since the last flush may be lost or
/// kept; whatever is recovered must read as something that was true since the last flush.
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
        // The durable table, and for each slot what may have been written over it since.
        let mut table: BTreeMap<u64, Option<LogEntry>> = (1..=6).map(|s| (s, None)).collect();
        let mut maybe: BTreeMap<u64, Vec<Option<LogEntry>>> = BTreeMap::new();
        // For each block the states that were true since the last flush: the sequence it reads as, or home.
        let mut truth: BTreeMap<u64, Vec<Option<u64>>> =
            (0..4).map(|block| (block, vec![None])).collect();
        let now = |book: &Book, block: u64| book.find(VOLUME, block).map(|(_, e)| e.sequence);
        for _ in 0..60 {
            let block = random(4);
            match random(4) {
                0 | 1 => {
                    if let Some(slots) = book.reserve(1) {
                        book.enter(slots[0], EntryKind::Data, VOLUME, block, 0);
                        maybe
                            .entry(slots[0])
                            .or_default()
                            .push(book.entries.get(&slots[0]).copied());
                        book.landed(slots[0]);
                    }
                }
                2 => book.unmark(VOLUME, block),
                _ => {
                    // Home is durable: clearings are written, then the log is flushed.
                    let clearings = book.take_clearings(VOLUME);
                    book.clear(VOLUME, &clearings);
                    for clearing in &clearings {
                        let entry = book.entries.get(&clearing.slot).copied();
                        maybe.entry(clearing.slot).or_default().push(entry);
                    }
                    for (block, states) in &mut truth {
                        states.push(now(&book, *block));
                    }
                    if random(2) == 0 {
                        for (slot, written) in std::mem::take(&mut maybe) {
                            table.insert(slot, *written.last().expect("something was written"));
                        }
                        flush(&mut book);
                        for (block, states) in &mut truth {
                            *states = vec![now(&book, *block)];
                        }
                    }
                }
            }
            for (block, states) in &mut truth {
                states.push(now(&book, *block));
            }
            // A crash here: each slot holds what is durable or anything written since.
            let mut found = BTreeMap::new();
            for (slot, durable) in &table {
                let mut choices = vec![*durable];
                choices.extend(maybe.get(slot).into_iter().flatten());
                if let Some(entry) = choices[random(choices.len() as u64) as usize] {
                    found.insert(*slot, entry);
                }
            }
            let after = Book::recovered(7, shape, found);
            for block in 0..4 {
                let reads = after.find(VOLUME, block).map(|(_, e)| e.sequence);
                // A block that was unmarked but not cleared durably reads as the log had it: home is the same or newer and not durable.
                let unmarked = book.chains.get(&(1, block)).map(|c| c.entries.last().map(|e| e.1));
                let allowed = &truth[&block];
                assert!(
                    allowed.contains(&reads) || unmarked == Some(reads),
                    "seed {seed}: block {block} reads {reads:?}, allowed {allowed:?}"
                );
            }
        }
    }
}
