//! What stands on the model's disks, and what a crash makes of it.
//!
//! Owns the cells. Invariant: each is written as a whole and lost by itself, so every subset of what was not flushed is tried; a log's legs take the
//! same writes and lose different ones.

use std::collections::BTreeMap;

use super::super::book::Book;
use super::super::log::{Found, Table};
use super::{BLOCKS, SHAPE, VOLUME, Weak, version};
use crate::format::log::{ENTRY_LEN, EntryKind, LogEntry, LogMark};

/// Slots of a log.
pub(super) const SLOTS: usize = SHAPE.slots as usize;
/// Cells of a leg: table, index, slots, and the mark.
const MARK: usize = 3 * SLOTS;

/// What a cell holds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Value {
    Never,
    Damaged,
    Entry(LogEntry),
    /// A version of a block.
    Block(u32),
    Mark(LogMark),
}

/// A place on a disk: what is durable, and what was written since.
#[derive(Clone, Hash, Debug)]
pub(super) struct Cell {
    durable: Value,
    since: Vec<Value>,
}

impl Cell {
    pub(super) fn holding(value: Value) -> Self {
        Self { durable: value, since: Vec::new() }
    }

    pub(super) fn newest(&self) -> Value {
        self.since.last().copied().unwrap_or(self.durable)
    }

    pub(super) fn write(&mut self, value: Value) {
        if self.newest() != value {
            self.since.push(value);
        }
    }

    /// A flush: of what is under way nothing is known.
    pub(super) fn flush(&mut self, under_way: bool) {
        let last = if under_way { self.since.pop() } else { None };
        *self = Self::holding(self.newest());
        self.since.extend(last);
    }

    fn choices(&self) -> usize {
        1 + self.since.len()
    }

    fn fall(&mut self, choice: usize) {
        *self = Self::holding(if choice == 0 { self.durable } else { self.since[choice - 1] });
    }
}

/// One leg of a log.
pub(super) type Leg = Vec<Cell>;

/// Everything that outlives a crash: each log's legs, and home.
#[derive(Clone, Hash, Debug)]
pub(super) struct Disks {
    pub(super) logs: Vec<Vec<Leg>>,
    pub(super) home: Vec<Cell>,
}

/// Where a slot's entry stands in the table.
pub(super) fn table(slot: u64) -> usize {
    slot as usize - 1
}

/// And in the index.
pub(super) fn index(slot: u64) -> usize {
    SLOTS + slot as usize - 1
}

/// And its payload.
pub(super) fn payload(slot: u64) -> usize {
    2 * SLOTS + slot as usize - 1
}

impl Disks {
    pub(super) fn new(logs: usize, legs: usize) -> Self {
        let leg = |log: u64| {
            let mut leg = vec![Cell::holding(Value::Never); MARK];
            leg.push(Cell::holding(Value::Mark(LogMark { log, durable: 0, fresh: 1 })));
            leg
        };
        let logs = (1..=logs as u64).map(|log| vec![leg(log); legs]).collect();
        let home = (0..BLOCKS as u64).map(|block| Cell::holding(Value::Block(version(block, 0))));
        Self { logs, home: home.collect() }
    }

    pub(super) fn write(&mut self, log: usize, cell: usize, value: Value) {
        self.logs[log].iter_mut().for_each(|leg| leg[cell].write(value));
    }

    pub(super) fn write_mark(&mut self, log: usize, mark: LogMark) {
        self.write(log, MARK, Value::Mark(mark));
    }

    /// Writes the entries of the book's only page, of the table or of the index, as the engine would write its bytes.
    pub(super) fn write_page(&mut self, log: usize, first: usize, page: &[u8]) {
        for (at, bytes) in page.chunks_exact(ENTRY_LEN).take(SLOTS).enumerate() {
            let entry = LogEntry::decode(bytes, log as u64 + 1);
            self.write(log, first + at, entry.map_or(Value::Never, Value::Entry));
        }
    }

    /// Flushes the legs of a log; `under_way` is the slot that is being written, and whether its entry is written all the same.
    pub(super) fn flush(&mut self, log: usize, under_way: Option<(u64, bool)>, weak: Weak) {
        let legs = if weak == Weak::OneLegIsFlushed { 1 } else { usize::MAX };
        for leg in self.logs[log].iter_mut().take(legs) {
            for (at, cell) in leg.iter_mut().enumerate() {
                let open =
                    |(slot, told): (u64, bool)| at == payload(slot) || at == table(slot) && !told;
                cell.flush(under_way.is_some_and(open));
            }
        }
    }

    pub(super) fn flush_home(&mut self) {
        self.home.iter_mut().for_each(|cell| cell.flush(false));
    }

    fn cells(&mut self) -> impl Iterator<Item = &mut Cell> {
        self.logs.iter_mut().flatten().flatten().chain(&mut self.home)
    }

    /// Every way in which a crash may leave them, with all legs and with one that is lost.
    pub(super) fn crashes(&self) -> Vec<Self> {
        let mut all = vec![self.clone()];
        let choices: Vec<usize> = all[0].cells().map(|cell| cell.choices()).collect();
        for (at, choices) in choices.into_iter().enumerate().filter(|(_, choices)| *choices > 1) {
            let fall = |disks: Self| {
                (0..choices).map(move |choice| {
                    let mut fallen = disks.clone();
                    fallen.cells().nth(at).expect("it is there").fall(choice);
                    fallen
                })
            };
            all = all.into_iter().flat_map(fall).collect();
        }
        let whole = all.clone();
        let legs = self.logs[0].len();
        for lost in (0..legs).filter(|_| legs > 1) {
            all.extend(whole.iter().cloned().map(|mut disks| {
                disks.logs.iter_mut().for_each(|legs| drop(legs.remove(lost)));
                disks
            }));
        }
        all
    }

    /// The same with one thing damaged on every leg, in each way.
    pub(super) fn damages(&self) -> Vec<Self> {
        let mut all = Vec::new();
        for log in 0..self.logs.len() {
            for slot in 1..=SLOTS as u64 {
                for cells in [
                    vec![table(slot)],
                    vec![index(slot)],
                    vec![payload(slot)],
                    vec![table(slot), payload(slot)],
                    vec![index(slot), payload(slot)],
                    vec![table(slot), index(slot)],
                ] {
                    let mut disks = self.clone();
                    for leg in &mut disks.logs[log] {
                        cells.iter().for_each(|cell| leg[*cell] = Cell::holding(Value::Damaged));
                    }
                    all.push(disks);
                }
            }
        }
        all
    }

    /// What the legs of a log say.
    fn found(&self, log: usize, weak: Weak) -> Found {
        let legs = &self.logs[log];
        let mark = |leg: &Leg| match leg[MARK].newest() {
            Value::Mark(mark) => mark,
            other => unreachable!("{other:?} is no mark"),
        };
        let marks = legs.iter().map(mark);
        let mut mark = marks.max_by_key(|mark| (mark.durable, mark.fresh)).expect("a leg");
        if weak == Weak::NothingProves {
            mark = LogMark { durable: 0, fresh: 1, ..mark };
        }
        let read = |first: usize, slots: usize| {
            let entries = |leg: &Leg| {
                let cells = leg[first..first + slots].iter().zip(1..);
                cells
                    .filter_map(|(cell, slot)| match cell.newest() {
                        Value::Entry(entry) => Some((slot, entry)),
                        _ => None,
                    })
                    .collect::<BTreeMap<u64, LogEntry>>()
            };
            let table = |leg| Table { entries: entries(leg), ..Table::default() };
            legs.iter().map(table).collect::<Vec<_>>()
        };
        let indexed = if mark.fresh > 1 { SLOTS } else { 0 };
        Found { mark, marks_differ: true, tables: read(0, SLOTS), indexes: read(SLOTS, indexed) }
    }

    /// Reads a log back, and writes what is to be made alike; `None` if it is refused. A flush comes next.
    pub(super) fn recover(&mut self, log: usize, weak: Weak) -> Option<Book> {
        let found = self.found(log, weak);
        let weighed = found.weigh().ok()?;
        let mut fits = Vec::new();
        for (slot, entry) in weighed.doubtful() {
            let wanted = Value::Block(entry.payload);
            if self.logs[log].iter().any(|leg| leg[payload(slot)].newest() == wanted) {
                self.write(log, payload(slot), wanted);
                fits.push((slot, entry));
            }
        }
        let chosen = weighed.choose(&fits);
        let repairs = found.repairs(&chosen);
        let mark = LogMark { durable: weighed.durable, ..found.mark };
        let mut book = Book::recovered(SHAPE, mark, chosen);
        if weak != Weak::TornEntriesStay {
            book.doubt_index([0]);
            if !repairs.is_empty() {
                let page = book.table_page(0);
                self.write_page(log, 0, &page);
            }
        }
        Some(book)
    }

    /// Reads every log back; the books, and what the blocks read as, or `None` if the start is refused or one does not read.
    pub(super) fn recover_all(&mut self, weak: Weak) -> Option<(Vec<Book>, Vec<u32>)> {
        let logs = 0..self.logs.len();
        let books = logs.map(|log| self.recover(log, weak)).collect::<Option<Vec<_>>>()?;
        let read = (0..BLOCKS as u64).map(|block| self.read(&books, block, weak));
        let read = read.collect::<Option<_>>()?;
        Some((books, read))
    }

    /// What a block reads as: a version, or nothing.
    pub(super) fn read(&self, books: &[Book], block: u64, weak: Weak) -> Option<u32> {
        let mut marked: Vec<usize> =
            (0..books.len()).filter(|log| books[*log].find(VOLUME, block).is_some()).collect();
        if weak == Weak::EarlierBackupWins {
            marked.reverse();
        }
        let Some(log) = marked.last() else {
            return match self.home[block as usize].newest() {
                Value::Block(version) => Some(version),
                other => unreachable!("{other:?} is no block"),
            };
        };
        let (slot, entry) = books[*log].find(VOLUME, block).expect("it is marked");
        assert_eq!(entry.kind, EntryKind::Data);
        let wanted = Value::Block(entry.payload);
        let holds = |leg: &Leg| leg[payload(slot)].newest() == wanted;
        self.logs[*log].iter().any(holds).then_some(entry.payload)
    }
}
