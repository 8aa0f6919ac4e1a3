//! The event trace of one simulation.
//!
//! Owns the running hash over everything that happens, by which two runs of a seed are compared, and the optional lines
//! for people. Invariant: recording never changes what happens. What is worth recording is the callers' matter.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Arguments;
use std::io::Write;
use std::rc::Rc;

/// How many of the last lines are kept for a failure report.
const KEPT: usize = 60;

/// Where trace lines go.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Lines {
    /// Nowhere: only the hash is kept.
    #[default]
    Off,
    /// The last ones are kept for a failure report.
    Keep,
    /// To standard error, each as it happens.
    Print,
}

/// A shared handle to the trace of one simulation.
#[derive(Clone, Default)]
pub struct Trace(Rc<Inner>);

#[derive(Default)]
struct Inner {
    hash: Cell<u64>,
    events: Cell<u64>,
    lines: Lines,
    kept: RefCell<VecDeque<String>>,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(lines: Lines) -> Self {
        Self(Rc::new(Inner { lines, ..Inner::default() }))
    }

    /// Mixes one event into the hash: a kind and two numbers that name it.
    pub fn note(&self, kind: u8, a: u64, b: u64) {
        let mut hash = self.0.hash.get();
        for word in [u64::from(kind), a, b] {
            hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
        self.0.hash.set(hash);
        self.0.events.set(self.0.events.get() + 1);
    }

    /// Writes a line for people, if anyone reads. The text must not hold addresses or other things that change between
    /// runs.
    pub fn line(&self, at_ns: u64, text: Arguments<'_>) {
        let stamp = || format!("{:>13.3} us  {text}", at_ns as f64 / 1000.0);
        match self.0.lines {
            Lines::Off => {}
            Lines::Keep => {
                let mut kept = self.0.kept.borrow_mut();
                if kept.len() == KEPT {
                    kept.pop_front();
                }
                kept.push_back(stamp());
            }
            Lines::Print => {
                let _unread = writeln!(std::io::stderr(), "{}", stamp());
            }
        }
    }

    /// The hash so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.0.hash.get()
    }

    /// Events so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.0.events.get()
    }

    /// The last lines kept.
    #[must_use]
    pub fn kept(&self) -> Vec<String> {
        self.0.kept.borrow().iter().cloned().collect()
    }
}
