//! Every short history of a pair, tried out (rule B2, and B5 for its bits).
//!
//! Owns the model: two blocks on two sides, the page with their bits, hosts that write and flush, copies behind their backs, changes of direction, and
//! crashes at any moment that lose any subset of what was not flushed. The bits and the order of copies are the shipped ones; the model takes the steps
//! between them as `shield/mod.rs`, `mirror.rs` and `sides.rs` do. Invariants checked in every state, for whatever a crash may leave: each
//! block reads as a version from its last answered flush on; of a pair that was there before, what is not marked is the same on both sides. Each rule, when it
//! is weakened, must be found out.

use std::hash::{Hash, Hasher};

use super::bits::Bits;
use super::equal::Equal;
use crate::breadth;
use crate::format::page::PAGE_PAYLOAD;

const BLOCKS: usize = 2;

/// Which rule the modelled engine breaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Weak {
    Nothing,
    /// A new pair's bits are durable before what they tell of.
    BitBeforeData,
    /// A new pair's bits are cleared before home is durable.
    ClearBeforeHome,
    /// A pair that was there before is written before the bit is durable.
    DataBeforeBit,
    /// Its bits are cleared without a flush of both sides.
    ClearedWithoutFlush,
    /// Its bits are cleared although the block was written since.
    ClearedThoughWritten,
    /// Its direction changes while bits are set.
    TurnedWithBits,
}

/// A cell of a disk: what is durable, and what was written since.
#[derive(Clone, Hash, Debug)]
struct Cell(Vec<u8>);

impl Cell {
    fn write(&mut self, value: u8) {
        if self.newest() != value {
            self.0.push(value);
        }
    }

    fn newest(&self) -> u8 {
        *self.0.last().expect("something is durable")
    }

    fn flush(&mut self) {
        self.0 = vec![self.newest()];
    }
}

/// Both sides and the page of bits, which lies in the secondary's group.
#[derive(Clone, Hash, Debug)]
struct Disks {
    home: Vec<Cell>,
    there: Vec<Cell>,
    page: Cell,
}

impl Disks {
    fn cells(&mut self) -> Vec<&mut Cell> {
        self.home.iter_mut().chain(&mut self.there).chain([&mut self.page]).collect()
    }

    fn flush_home(&mut self) {
        self.home.iter_mut().for_each(Cell::flush);
    }

    fn flush_there(&mut self) {
        self.there.iter_mut().chain([&mut self.page]).for_each(Cell::flush);
    }

    /// Every way in which a crash may leave them.
    fn crashes(&self) -> Vec<Self> {
        let mut all = vec![self.clone()];
        for at in 0..2 * BLOCKS + 1 {
            let fall = |disks: Self| {
                let choices = disks.clone().cells()[at].0.clone();
                choices.into_iter().map(move |value| {
                    let mut fallen = disks.clone();
                    *fallen.cells()[at] = Cell(vec![value]);
                    fallen
                })
            };
            all = all.into_iter().flat_map(fall).collect();
        }
        all
    }
}

/// What is under way step by step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Step {
    /// Takes the pages that changed.
    Take,
    /// Writes what was taken.
    Persist,
    /// Takes the pages that changed and writes them: nobody else does so meanwhile.
    Renew,
    FlushHome,
    FlushThere,
    /// Of a pair that was there before: sees what the flushes to come cover.
    Cover,
    /// Clears the bits of what they covered.
    Settle,
    /// The host's write of a block, on one side or both.
    Write(u64),
    /// The direction changes.
    Turn,
    Answer,
}

/// The bits: told apart by those that are set and by whether their page is to be written.
#[derive(Clone)]
struct Marks(Bits);

impl Hash for Marks {
    fn hash<H: Hasher>(&self, to: &mut H) {
        (self.0.inside(0..BLOCKS as u64), self.0.has_changed()).hash(to);
    }
}

impl Marks {
    fn set(&mut self, block: u64, value: bool) {
        self.0.set(block..block + 1, value);
    }

    /// The page's first byte, which has all bits, if it is to be written.
    fn take_changed(&mut self) -> Option<u8> {
        self.0.take_changed().get(&0).map(|page| page[0])
    }
}

/// Steps that remain, the next one last, and what they carry.
#[derive(Clone, Hash)]
struct Task {
    steps: Vec<Step>,
    taken: Option<u8>,
    covered: u64,
    asked: [u8; BLOCKS],
}

#[derive(Clone, Hash)]
struct State {
    disks: Disks,
    bits: Marks,
    equal: Equal,
    /// A pair that was there before; else one made for an avoidance.
    existing: bool,
    /// The secondary has everything; what the configuration says, durably.
    reversed: bool,
    /// Hosts' writes go to both sides.
    both: bool,
    now: [u8; BLOCKS],
    given: [u8; BLOCKS],
    floor: [u8; BLOCKS],
    /// A host's write, a host's flush, the copying.
    tasks: [Option<Task>; 3],
    left: [u8; 4],
}

const WRITE: usize = 0;
const FLUSH: usize = 1;
const COPY: usize = 2;

impl State {
    fn new(existing: bool, left: [u8; 4]) -> Self {
        let side = vec![Cell(vec![0]); BLOCKS];
        let disks = Disks { home: side.clone(), there: side, page: Cell(vec![0]) };
        Self {
            disks,
            bits: Marks(Bits::new(BLOCKS as u64)),
            equal: Equal::default(),
            existing,
            reversed: false,
            both: false,
            now: [0; BLOCKS],
            given: [0; BLOCKS],
            floor: [0; BLOCKS],
            tasks: [const { None }; 3],
            left,
        }
    }

    fn marked(&self, block: u64) -> bool {
        self.bits.0.next(block..block + 1).is_some()
    }

    fn begin(&mut self, task: usize, steps: &[Step]) {
        let steps = steps.iter().rev().copied().collect();
        let asked = self.now;
        self.tasks[task] = Some(Task { steps, taken: None, covered: 0, asked });
    }

    fn next_version(&mut self, block: u64) -> u8 {
        self.given[block as usize] += 1;
        self.given[block as usize]
    }

    /// A block goes to the secondary of a new pair.
    fn store(&mut self, block: u64) {
        let version = self.next_version(block);
        self.disks.there[block as usize].write(version);
        self.bits.set(block, true);
        self.now[block as usize] = version;
    }

    /// A block goes home: what the secondary of a new pair has, or a new version.
    fn send_home(&mut self, block: u64, new: bool) {
        let at = block as usize;
        if new {
            self.now[at] = self.next_version(block);
        }
        self.disks.home[at].write(self.now[at]);
        self.bits.set(block, false);
    }

    fn begin_flush(&mut self, weak: Weak) {
        use Step::{Answer, Cover, FlushHome, FlushThere, Persist, Renew, Settle, Take};
        let settle = [Cover, FlushThere, FlushHome, Settle, Renew, FlushThere, Answer];
        let steps: &[Step] = match (self.existing, self.reversed, weak) {
            (false, _, Weak::BitBeforeData) => &[Take, Persist, FlushThere, FlushHome, Answer],
            (false, _, Weak::ClearBeforeHome) => {
                &[Take, FlushThere, Persist, FlushThere, FlushHome, Answer]
            }
            (false, ..) => &[Take, FlushThere, FlushHome, Persist, FlushThere, Answer],
            (true, false, _) => &[FlushHome, Answer],
            (true, true, _) if self.both => &settle,
            (true, true, _) => &[FlushThere, Answer],
        };
        self.begin(FLUSH, steps);
    }

    fn begin_write(&mut self, block: u64, weak: Weak) {
        use Step::{FlushThere, Renew, Write};
        if weak != Weak::ClearedThoughWritten {
            self.equal.differ(block..block + 1);
        }
        self.bits.set(block, true);
        match weak {
            Weak::DataBeforeBit => self.begin(WRITE, &[Write(block), Renew, FlushThere]),
            _ => self.begin(WRITE, &[Renew, FlushThere, Write(block)]),
        }
    }

    /// Copies a marked block of a pair that was there before to the side that lacks it.
    fn copy(&mut self, block: u64) {
        let at = block as usize;
        let (from, to) = match self.reversed {
            true => (&self.disks.there[at], &mut self.disks.home[at]),
            false => (&self.disks.home[at], &mut self.disks.there[at]),
        };
        to.write(from.newest());
        self.equal.made([block]);
    }

    fn step(&mut self, of: usize) {
        let mut task = self.tasks[of].take().expect("it is under way");
        match task.steps.pop().expect("it is not at its end") {
            Step::Take => task.taken = self.bits.take_changed(),
            Step::Persist => {
                if let Some(page) = task.taken {
                    self.disks.page.write(page);
                }
            }
            Step::Renew => {
                if let Some(page) = self.bits.take_changed() {
                    self.disks.page.write(page);
                }
            }
            Step::FlushHome => self.disks.flush_home(),
            Step::FlushThere => self.disks.flush_there(),
            Step::Cover => task.covered = self.equal.covered(),
            Step::Settle => {
                for block in self.equal.settle(task.covered) {
                    self.bits.set(block, false);
                }
            }
            Step::Write(block) => {
                let (at, version) = (block as usize, self.next_version(block));
                if self.reversed || self.both {
                    self.disks.there[at].write(version);
                }
                if !self.reversed || self.both {
                    self.disks.home[at].write(version);
                }
                self.now[at] = version;
                if self.both {
                    self.equal.made([block]);
                }
            }
            Step::Turn => (self.reversed, self.both) = (!self.reversed, false),
            Step::Answer => {
                for (floor, asked) in self.floor.iter_mut().zip(task.asked) {
                    *floor = asked.max(*floor);
                }
            }
        }
        self.tasks[of] = Some(task).filter(|task| !task.steps.is_empty());
    }

    /// What blocks read as, by bits and direction.
    fn read(&self) -> [u8; BLOCKS] {
        std::array::from_fn(|at| {
            let there = if self.existing { self.reversed } else { self.marked(at as u64) };
            if there { self.disks.there[at].newest() } else { self.disks.home[at].newest() }
        })
    }

    /// The array starts on what a crash left: the bits are made durable before anything is served.
    fn start(&self, disks: Disks) -> Self {
        let mut after = Self::new(self.existing, self.left);
        let mut payload = vec![0; PAGE_PAYLOAD];
        payload[0] = disks.page.newest();
        after.bits.0.load(0, &payload);
        (after.disks, after.reversed) = (disks, self.reversed);
        (after.given, after.left[3]) = (self.given, after.left[3].saturating_sub(1));
        after.now = after.read();
        after.floor = after.now;
        after
    }

    fn crash(&self) -> Result<Vec<Self>, String> {
        let mut starts = Vec::new();
        for disks in self.disks.crashes() {
            let after = self.start(disks);
            for at in 0..BLOCKS {
                let read = after.now[at];
                if !(self.floor[at]..=self.given[at]).contains(&read) {
                    return Err(format!("block {at} reads as {read}: {:?}", after.disks));
                }
                let equal = after.disks.home[at].newest() == after.disks.there[at].newest();
                if self.existing && !after.marked(at as u64) && !equal {
                    return Err(format!("block {at} differs without a bit: {:?}", after.disks));
                }
            }
            starts.push(after);
        }
        Ok(starts)
    }

    fn next(&self, weak: Weak) -> Vec<Self> {
        let mut all = Vec::new();
        let mut also = |spends: Option<usize>, act: &dyn Fn(&mut Self)| {
            let mut next = self.clone();
            if let Some(spends) = spends {
                if next.left[spends] == 0 {
                    return;
                }
                next.left[spends] -= 1;
            }
            act(&mut next);
            all.push(next);
        };
        for of in [WRITE, FLUSH, COPY] {
            if self.tasks[of].is_some() {
                also(None, &|s| s.step(of));
            }
        }
        if self.tasks[FLUSH].is_none() {
            also(Some(1), &|s| s.begin_flush(weak));
        }
        let steps = self.tasks[WRITE].iter().flat_map(|task| &task.steps);
        let locked = steps.fold(None, |at, s| if let Step::Write(b) = s { Some(*b) } else { at });
        for block in (0..BLOCKS as u64).filter(|block| locked != Some(*block)) {
            match self.existing {
                false => {
                    also(Some(0), &|s| s.store(block));
                    also(Some(2), &|s| s.send_home(block, true));
                    if self.marked(block) {
                        also(Some(2), &|s| s.send_home(block, false));
                    }
                }
                true => {
                    if self.tasks[WRITE].is_none() {
                        also(Some(0), &|s| s.begin_write(block, weak));
                    }
                    if self.marked(block) && !self.equal.holds(block) {
                        also(Some(2), &|s| s.copy(block));
                    }
                }
            }
        }
        if self.existing {
            self.settle_or_turn(weak, &mut also);
        }
        all
    }

    fn settle_or_turn(&self, weak: Weak, also: &mut dyn FnMut(Option<usize>, &dyn Fn(&mut Self))) {
        use Step::{Cover, FlushHome, FlushThere, Renew, Settle, Turn};
        if self.tasks[COPY].is_none() && self.equal.len() > 0 {
            let settle = [Cover, FlushHome, FlushThere, Settle, Renew, FlushThere];
            match weak {
                Weak::ClearedWithoutFlush => also(None, &|s| {
                    s.begin(COPY, &[Cover, Settle, Renew, FlushThere]);
                }),
                _ => also(None, &|s| s.begin(COPY, &settle)),
            }
        }
        let at_rest = self.tasks.iter().all(Option::is_none);
        if at_rest && (self.bits.0.ones() == 0 || weak == Weak::TurnedWithBits) {
            let steps = [FlushHome, FlushThere, Renew, FlushThere, Turn];
            also(Some(2), &|s| {
                s.begin(WRITE, &steps);
                while s.tasks[WRITE].is_some() {
                    s.step(WRITE);
                }
            });
        }
        if at_rest && !self.both {
            also(None, &|s| s.both = true);
        }
    }
}

/// A state, and what the search is about.
#[derive(Hash)]
struct Case {
    state: State,
    weak: Weak,
}

impl Case {
    fn with(&self, state: State) -> Self {
        Self { state, ..*self }
    }
}

impl breadth::State for Case {
    fn crash_digest(&self) -> u64 {
        let s = &self.state;
        breadth::digest((&s.disks, s.floor, s.given, s.left, s.reversed))
    }

    fn crashed(&self) -> Result<Vec<Self>, String> {
        let starts = self.state.crash()?;
        let more = self.state.left[3] > 0;
        Ok(starts.into_iter().filter(|_| more).map(|start| self.with(start)).collect())
    }

    fn following(&self) -> Vec<Self> {
        self.state.next(self.weak).into_iter().map(|next| self.with(next)).collect()
    }
}

fn search(existing: bool, weak: Weak) -> (usize, Option<String>) {
    breadth::search(Case { state: State::new(existing, [2, 2, 2, 1]), weak })
}

fn holds(existing: bool, told: usize) {
    let (states, fault) = search(existing, Weak::Nothing);
    assert_eq!(fault, None, "after {states} states");
    assert_eq!(states, told, "docs/simulation.md says how many");
}

#[test]
fn b2_b5_a_new_pair_after_any_crash() {
    holds(false, 291_277);
}

#[test]
fn b2_a_pair_that_was_there_before_after_any_crash() {
    holds(true, 409_210);
}

#[test]
fn each_rule_is_needed() {
    for (existing, weak) in [
        (false, Weak::BitBeforeData),
        (false, Weak::ClearBeforeHome),
        (true, Weak::DataBeforeBit),
        (true, Weak::ClearedWithoutFlush),
        (true, Weak::ClearedThoughWritten),
        (true, Weak::TurnedWithBits),
    ] {
        assert!(search(existing, weak).1.is_some(), "{weak:?} is not found out");
    }
}
