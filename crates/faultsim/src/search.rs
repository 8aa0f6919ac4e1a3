//! Many simulations, one after another on every core.
//!
//! Owns the handing out of seeds. Invariant: which seeds are run depends on the first seed and their number alone; time only
//! decides how many. Simulations share nothing.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crate::avoidance::{cells, play_cell};
use crate::run::{Failure, Options, Report, simulate};
use crate::trace::Lines;

/// What to search.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// First seed.
    pub first: u64,
    /// How many seeds at most.
    pub seeds: u64,
    /// How long at most; simulations under way are finished.
    pub time: Duration,
    /// How to simulate.
    pub options: Options,
    /// How many failures end the search.
    pub failures: usize,
}

/// Runs simulations on every core until seeds, time or patience end. Answers how many seeds passed, the sum of what
/// they did, and the failures by seed; each is also told to `tell` when it is found.
#[must_use]
pub fn search(what: Search, tell: impl Fn(&Failure) + Sync) -> (u64, Report, Vec<Failure>) {
    let next = AtomicU64::new(what.first);
    let enough = AtomicBool::new(false);
    let found = Mutex::new((0, Report::default(), Vec::new()));
    let start = Instant::now();
    let work = || {
        while start.elapsed() < what.time && !enough.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - what.first >= what.seeds {
                return;
            }
            let result = simulate(seed, what.options);
            if let Err(failure) = &result {
                tell(failure);
            }
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(report) => {
                    found.0 += 1;
                    found.1.add(&report);
                }
                Err(failure) => {
                    found.2.push(*failure);
                    enough.fetch_or(found.2.len() >= what.failures, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.2.sort_by_key(|f| f.seed);
    found
}

/// Plays the cells of the matrix of avoidances for so long, on all cores, one seed after the other; answers how many found nothing and what
/// was found, which is also told to `tell`.
#[must_use]
pub fn search_matrix(first: u64, time: Duration, tell: impl Fn(&Failure) + Sync) -> (u64, usize) {
    let (next, passed) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = AtomicU64::new(0);
    let (start, all) = (Instant::now(), cells().len() as u64);
    let work = || {
        while start.elapsed() < time {
            let at = next.fetch_add(1, Ordering::Relaxed);
            match play_cell((at % all) as usize, first + at / all, Lines::Off) {
                Ok(()) => drop(passed.fetch_add(1, Ordering::Relaxed)),
                Err(failure) => {
                    tell(&failure);
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    (passed.into_inner(), failed.into_inner() as usize)
}
