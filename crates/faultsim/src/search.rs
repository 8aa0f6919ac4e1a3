//! Many simulations or scripted scenarios, one after another on every core.
//!
//! Owns the handing out of seeds. Invariant: which seeds are run depends on the first seed and their number alone; time only
//! decides how many. Simulations share nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use crate::avoidance::{all_scenarios, cells, play_cell};
use crate::coverage::{self, Counts};
use crate::run::{Failure, Options, Report, simulate};
use crate::scenarios::play;
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
    /// Told of a simulation that does not end.
    pub hung: Hung,
}

/// Told of a seed whose simulation does not end, and of which story if it is one. No step or time of its own shows that: the engine runs in a circle without
/// ever waiting. Its thread cannot be stopped, so this should end the process.
pub type Hung = fn(Option<&'static str>, u64);

/// Real time after which a simulation counts as one that does not end; most take less than a second.
const ENDLESS: Duration = Duration::from_secs(90);
/// The same of a story, which may be many simulations.
const ENDLESS_STORY: Duration = Duration::from_secs(300);

/// Simulations under way, by story and seed.
#[derive(Default)]
struct Watch(Mutex<BTreeMap<(Option<&'static str>, u64), Instant>>, AtomicBool);

impl Watch {
    fn over<T>(&self, story: Option<&'static str>, seed: u64, simulation: impl FnOnce() -> T) -> T {
        let under_way = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        under_way().insert((story, seed), Instant::now());
        let result = simulation();
        under_way().remove(&(story, seed));
        result
    }

    /// Does `work` and meanwhile tells of a simulation that does not end.
    fn until_end(&self, hung: Hung, work: impl FnOnce()) {
        std::thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                while !self.1.load(Ordering::Relaxed) {
                    let under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let endless = |story: &Option<_>, since: &Instant| {
                        let limit = if story.is_some() { ENDLESS_STORY } else { ENDLESS };
                        since.elapsed() > limit
                    };
                    let found = under_way.iter().find(|((story, _), since)| endless(story, since));
                    if let Some(((story, seed), _)) = found {
                        hung(*story, *seed);
                    }
                    // Between two looks of this poll; the end wakes it early.
                    std::thread::park_timeout(Duration::from_secs(1));
                }
            });
            work();
            self.1.store(true, Ordering::Relaxed);
            watcher.thread().unpark();
        });
    }
}

/// Runs simulations on every core until seeds, time or patience end. Answers how many seeds passed, the sum of what
/// they did, and the failures by seed; each is also told to `tell` when it is found.
#[must_use]
pub fn search(what: Search, tell: impl Fn(&Failure) + Sync) -> (u64, Report, Vec<Failure>) {
    let next = AtomicU64::new(what.first);
    let enough = AtomicBool::new(false);
    let found = Mutex::new((0, Report::default(), Vec::new()));
    let start = Instant::now();
    let watch = Watch::default();
    let work = || {
        while start.elapsed() < what.time && !enough.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - what.first >= what.seeds {
                return;
            }
            let result = watch.over(None, seed, || simulate(seed, what.options));
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
    watch.until_end(what.hung, || on_every_core(work));
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
    on_every_core(work);
    (passed.into_inner(), failed.into_inner() as usize)
}

/// Plays stories by name, one after another; answers the cells that they reached.
///
/// # Errors
/// What the first story found that found something.
///
/// # Panics
/// If there is no story of that name.
pub fn cells_of(stories: &[&str]) -> Result<Counts, Box<Failure>> {
    let _ = coverage::taken();
    for name in stories {
        play(name, 1, Lines::Keep).expect("a story of that name")?;
    }
    Ok(coverage::taken())
}

/// Plays scripted scenarios, all or those of these names, under seeds 1 to `seeds` on every core, until one finds something. Answers how many were played, the
/// cells that they reached, and what was found.
#[must_use]
pub fn play_all(names: &[String], seeds: u64, hung: Hung) -> (u64, Counts, Option<Failure>) {
    let stories =
        || all_scenarios().filter(|s| names.is_empty() || names.iter().any(|n| n == s.name));
    let plays: Vec<_> = (1..=seeds).flat_map(|seed| stories().map(move |s| (s, seed))).collect();
    let (next, played) = (AtomicU64::new(0), AtomicU64::new(0));
    let found = Mutex::new((Report::default(), None));
    let watch = Watch::default();
    let work = || {
        let _ = coverage::taken();
        while let Some((scenario, seed)) = plays.get(next.fetch_add(1, Ordering::Relaxed) as usize)
        {
            let play = || play(scenario.name, *seed, Lines::Keep).expect("it is on the list");
            let result = watch.over(Some(scenario.name), *seed, play);
            played.fetch_add(1, Ordering::Relaxed);
            let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
            found.0.add_cells(&coverage::taken());
            if let Err(failure) = result {
                next.store(plays.len() as u64, Ordering::Relaxed);
                found.1 = Some(*failure);
            }
        }
    };
    watch.until_end(hung, || on_every_core(work));
    let (report, failure) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    (played.into_inner(), report.cells, failure)
}

fn on_every_core(work: impl Fn() + Sync) {
    std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(&work);
        }
    });
}
