//! Every short history of a shielded volume, tried out (rules B1, B3, B4, B5, F1).
//!
//! Owns the model: two blocks, one or two logs in a chain, hosts that write and flush, a write-back, crashes at any moment that lose any subset
//! of what was not flushed, and recoveries that crash themselves. The book, its pages and what counts at a recovery are the shipped ones; the model
//! takes the steps between them as `shield/mod.rs` and `log.rs` do. Invariants checked in every state, for whatever a crash may leave: each block
//! reads as a version from its last answered flush on; with one thing damaged on every leg, so or not at all. Each rule, when it is weakened, must be found out.

use std::hash::{Hash, Hasher};
use std::rc::Rc;

use super::book::{Book, Clearing, Covered};
use crate::format::log::{EntryKind, LogShape};
use crate::ids::VolumeNumber;

mod disk;
mod search;

use disk::{Disks, Value, payload, table};

const BLOCKS: usize = 2;
const VOLUME: VolumeNumber = VolumeNumber(1);
const SHAPE: LogShape = LogShape { slots: 3, pages: 1 };

/// Which rule the modelled engine breaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Weak {
    Nothing,
    /// B1: where two storages hold a block the earlier one is read, and no flush waits for the tombstone of one that moved. (Either alone is made
    /// good by the other.)
    EarlierBackupWins,
    /// B3: what a recovery does not believe is left where it stands, and its sequences are given again.
    TornEntriesStay,
    /// B3: neither mark nor index is believed.
    NothingProves,
    /// B3: mark and index are made durable together with what they prove.
    ProofComesEarly,
    /// B3: a flush is answered before its proof is durable.
    ProofComesLate,
    /// B3: the mark tells of slots that neither table nor index tells of durably.
    MarkTellsOfMore,
    /// B4: slots are used again before what makes them superfluous is durable.
    SlotsComeFreeEarly,
    /// B5: marks are cleared before home is durable.
    ClearedBeforeHome,
    /// F1: one leg is flushed and the others are not.
    OneLegIsFlushed,
}

/// How far a history may go.
#[derive(Clone, Copy)]
struct Bounds {
    logs: usize,
    legs: usize,
    /// Blocks that are written.
    blocks: u64,
    writes: u8,
    homes: u8,
    flushes: u8,
    crashes: u8,
    /// Whether one thing is damaged on every leg besides.
    damage: bool,
}

/// A version of a block, unlike any of another block.
fn version(block: u64, number: u32) -> u32 {
    16 * (block as u32 + 1) + number
}

/// An append under way.
#[derive(Clone, Hash)]
struct Append {
    log: usize,
    slot: u64,
    block: u64,
    /// Its entry was written by a flush as well.
    told: bool,
}

/// What a flush does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Step {
    /// Takes what the book has for a flush of this log, and withdraws what is cleared from the index.
    Begin(usize),
    /// Flushes the legs, and writes what proves that.
    Prove(usize),
    /// Flushes them once more.
    End(usize),
    Home,
    Clear(usize),
    Answer,
}

/// A flush, or a recovery, under way.
#[derive(Clone, Hash)]
struct Flush {
    /// What every block will be known to be at least.
    asked: Vec<u32>,
    clearings: Vec<Vec<Clearing>>,
    covered: Vec<Option<Covered>>,
    steps: Vec<Step>,
    recovery: bool,
}

/// How a state was reached, newest step first, for messages: states that differ in nothing else are the same. Shared with the states before it.
#[derive(Clone, Default)]
struct Trail(Option<Rc<(String, Self)>>);

impl Trail {
    fn push(&mut self, step: String) {
        self.0 = Some(Rc::new((step, self.clone())));
    }

    fn steps(&self) -> Vec<&str> {
        let mut steps: Vec<&str> =
            std::iter::successors(self.0.as_deref(), |(_, before)| before.0.as_deref())
                .map(|(step, _)| step.as_str())
                .collect();
        steps.reverse();
        steps
    }
}

impl Hash for Trail {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

#[derive(Clone, Hash)]
struct State {
    trail: Trail,
    disks: Disks,
    books: Vec<Book>,
    /// Versions that the blocks read as, and those given out.
    now: Vec<u32>,
    given: Vec<u32>,
    /// The oldest versions that a crash may leave.
    floor: Vec<u32>,
    append: Option<Append>,
    flush: Option<Flush>,
    left: [u8; 4],
    blocks: u64,
}

impl State {
    fn new(bounds: Bounds) -> Self {
        let first: Vec<u32> = (0..BLOCKS as u64).map(|block| version(block, 0)).collect();
        Self {
            trail: Trail::default(),
            disks: Disks::new(bounds.logs, bounds.legs),
            books: (1..=bounds.logs as u64).map(|log| Book::new(log, SHAPE)).collect(),
            now: first.clone(),
            given: first.clone(),
            floor: first,
            append: None,
            flush: None,
            blocks: bounds.blocks,
            left: [bounds.writes, bounds.homes, bounds.flushes, bounds.crashes],
        }
    }

    /// A write of a block begins in the first log from `first` on, and from the one that holds it, that has room; `false` if none has.
    fn enter(&mut self, block: u64, first: usize) -> bool {
        self.trail.push(format!("write {block}"));
        let holds = |log: &usize| self.books[*log].find(VOLUME, block).is_some();
        let from = (0..self.books.len()).rfind(holds).unwrap_or(0);
        for log in from.max(first)..self.books.len() {
            let Some(slots) = self.books[log].reserve(1) else { continue };
            let slot = slots[0];
            self.given[block as usize] += 1;
            let version = self.given[block as usize];
            self.books[log].enter(slot, EntryKind::Data, VOLUME, block, version);
            let page = self.books[log].table_page(0);
            self.disks.write_page(log, table(1), &page);
            self.disks.write(log, payload(slot), Value::Block(version));
            self.append = Some(Append { log, slot, block, told: false });
            return true;
        }
        false
    }

    fn land(&mut self) {
        self.trail.push("it landed".into());
        let Append { log, slot, block, .. } = self.append.take().expect("an append is under way");
        self.books[log].landed(slot);
        self.now[block as usize] = self.given[block as usize];
        for (other, book) in self.books.iter_mut().enumerate() {
            if other != log {
                book.unmark(VOLUME, block);
            }
        }
    }

    /// A version of a block is written home: what a log holds, or a new one.
    fn write_home(&mut self, block: u64, new: bool) {
        self.trail.push(format!("{block} home, new: {new}"));
        if new {
            self.given[block as usize] += 1;
            self.now[block as usize] = self.given[block as usize];
        }
        self.disks.home[block as usize].write(Value::Block(self.now[block as usize]));
        self.books.iter_mut().for_each(|book| book.unmark(VOLUME, block));
    }

    fn begin_flush(&mut self, weak: Weak) {
        self.trail.push("flush".into());
        let logs = 0..self.books.len();
        let flush = |log| [Step::Begin(log), Step::Prove(log), Step::End(log)];
        let clear = |log| [Step::Clear(log), Step::Begin(log), Step::Prove(log), Step::End(log)];
        let mut steps: Vec<Step> = logs.clone().flat_map(flush).collect();
        let home = steps.len();
        steps.extend(logs.clone().flat_map(clear));
        let home = if weak == Weak::ClearedBeforeHome { steps.len() } else { home };
        steps.insert(home, Step::Home);
        steps.push(Step::Answer);
        steps.reverse();
        self.flush = Some(Flush {
            asked: self.now.clone(),
            clearings: self.books.iter_mut().map(|book| book.take_clearings(VOLUME)).collect(),
            covered: vec![None; self.books.len()],
            steps,
            recovery: false,
        });
    }

    fn step(&mut self, weak: Weak) {
        let mut flush = self.flush.take().expect("a flush is under way");
        let under_way = |append: &Option<Append>, log| {
            append.as_ref().filter(|a| a.log == log).map(|a| (a.slot, a.told))
        };
        let step = flush.steps.pop().expect("an answer is last");
        self.trail.push(format!("{step:?}"));
        match step {
            Step::Begin(log) => {
                let book = &mut self.books[log];
                let covered = book.begin_flush(Vec::new());
                if !book.untold(&covered).is_empty() && weak != Weak::MarkTellsOfMore {
                    let page = book.table_page(0);
                    self.disks.write_page(log, table(1), &page);
                    self.append.iter_mut().filter(|a| a.log == log).for_each(|a| a.told = true);
                }
                if !covered.withdrawn().is_empty() {
                    let page = book.index_page(0, book.durable());
                    self.disks.write_page(log, disk::index(1), &page);
                }
                if weak == Weak::SlotsComeFreeEarly {
                    book.end_flush(&covered);
                }
                flush.covered[log] = Some(covered);
                if weak == Weak::ProofComesEarly {
                    self.prove(log, &flush);
                }
            }
            Step::Prove(log) => {
                self.disks.flush(log, under_way(&self.append, log), weak);
                self.prove(log, &flush);
            }
            Step::End(log) => {
                let covered = flush.covered[log].take().expect("it began");
                if !covered.entered().is_empty() && weak != Weak::ProofComesLate {
                    self.disks.flush(log, under_way(&self.append, log), weak);
                }
                self.books[log].end_flush(&covered);
            }
            Step::Home => {
                self.disks.flush_home();
                for block in (0..BLOCKS).filter(|_| weak == Weak::EarlierBackupWins) {
                    if self.books.iter().any(|book| book.find(VOLUME, block as u64).is_some()) {
                        self.floor[block] = flush.asked[block];
                    }
                }
            }
            Step::Clear(log) => {
                let clearings = std::mem::take(&mut flush.clearings[log]);
                if self.books[log].clear(VOLUME, &clearings).is_empty() {
                    // Nothing to be settled: the log is not flushed again.
                    flush.steps.truncate(flush.steps.len() - 3);
                } else {
                    let page = self.books[log].table_page(0);
                    self.disks.write_page(log, table(1), &page);
                }
            }
            Step::Answer => {
                self.floor = flush.asked;
                return;
            }
        }
        self.flush = Some(flush);
    }

    /// Writes what proves a flush of a log.
    fn prove(&mut self, log: usize, flush: &Flush) {
        let covered = flush.covered[log].as_ref().expect("it began");
        if !covered.entered().is_empty() {
            let mark = covered.mark(log as u64 + 1);
            let page = self.books[log].index_page(0, mark.durable);
            self.disks.write_page(log, disk::index(1), &page);
            self.disks.write_mark(log, mark);
        }
    }

    /// The array starts on what a crash left; `None` if it refuses to.
    fn start(&self, mut disks: Disks, weak: Weak) -> Option<Self> {
        let (books, now) = disks.recover_all(weak)?;
        let logs = 0..books.len();
        let flush = |log| [Step::Begin(log), Step::Prove(log), Step::End(log)];
        let mut steps: Vec<Step> = logs.flat_map(flush).collect();
        steps.push(Step::Answer);
        steps.reverse();
        let flush = Flush {
            asked: now.clone(),
            clearings: vec![Vec::new(); books.len()],
            covered: vec![None; books.len()],
            steps,
            recovery: true,
        };
        let mut left = self.left;
        left[3] = left[3].saturating_sub(1);
        Some(Self {
            trail: self.trail.clone(),
            disks,
            books,
            now,
            given: self.given.clone(),
            floor: self.floor.clone(),
            append: None,
            flush: Some(flush),
            left,
            blocks: self.blocks,
        })
    }

    /// What may happen next.
    fn next(&self, weak: Weak) -> Vec<Self> {
        let mut all = Vec::new();
        let mut also = |spends: usize, act: &dyn Fn(&mut Self) -> bool| {
            let mut next = self.clone();
            if spends < 4 && next.left[spends] == 0 {
                return;
            }
            if spends < 4 {
                next.left[spends] -= 1;
            }
            if act(&mut next) {
                all.push(next);
            }
        };
        let recovers = self.flush.as_ref().is_some_and(|flush| flush.recovery);
        if self.flush.is_some() {
            also(4, &|s| {
                s.step(weak);
                true
            });
        } else {
            also(2, &|s| {
                s.begin_flush(weak);
                true
            });
        }
        if recovers {
            return all;
        }
        if self.append.is_some() {
            also(4, &|s| {
                s.land();
                true
            });
        }
        for block in 0..self.blocks {
            // Whoever writes a block holds its lock.
            if self.append.as_ref().is_some_and(|append| append.block == block) {
                continue;
            }
            if self.append.is_none() {
                // A storage that is less safe than home is passed over (rule B6).
                for first in 0..self.books.len() {
                    also(0, &|s| s.enter(block, first));
                }
            }
            also(1, &|s| {
                s.write_home(block, true);
                true
            });
            if self.books.iter().any(|book| book.find(VOLUME, block).is_some()) {
                also(1, &|s| {
                    s.write_home(block, false);
                    true
                });
            }
        }
        all
    }

    /// What is wrong if the machine crashes now, if anything is; else every state that the start after it may be in.
    fn crash(&self, weak: Weak, damage: bool) -> Result<Vec<Self>, String> {
        let mut starts = Vec::new();
        for disks in self.disks.crashes() {
            for mut damaged in if damage { disks.damages() } else { Vec::new() } {
                if let Some((_, read)) = damaged.recover_all(weak) {
                    self.judge(&read, &disks)?;
                }
            }
            match self.start(disks.clone(), weak) {
                Some(after) => {
                    self.judge(&after.now, &disks)?;
                    starts.push(after);
                }
                None => return Err(format!("something does not read: {disks:?}")),
            }
        }
        Ok(starts)
    }

    /// Whether every block reads as a version that it may have.
    fn judge(&self, read: &[u32], disks: &Disks) -> Result<(), String> {
        for (block, version) in read.iter().enumerate() {
            if !(self.floor[block]..=self.given[block]).contains(version) {
                let trail = self.trail.steps();
                return Err(format!("block {block} reads as {version}: {trail:?} {disks:?}"));
            }
        }
        Ok(())
    }
}
