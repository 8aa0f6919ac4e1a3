//! Which configurations may be written, and which one to believe: rules C1, C2, C4 and C5 as pure deciders.
//!
//! Owns [`may_commit`], [`successor`] and [`older_slot`] for a running array, [`choose`] for one being assembled. Does no I/O: `commit` writes and flushes,
//! `assemble` reads labels and slots and acts on the [`Choice`].
//!
//! # Words
//! A generation *counts* when it is durable on every disk it lists in service (rule C1); only then does its state take effect. Its *stamp* is
//! (history id, generation); a generation number, once written even to one disk, is never written again with other content. A configuration's *line* is
//! every stamp on its history list: what it grew out of.
//!
//! # Why two separated sets of disks never both start by themselves
//! [`choose`] starts set B on generation *n* by itself only if more than half of *n*'s own list is there, and, unless B itself shows that *n* counted, also more
//! than half of **every** list in *n*'s [`uncounted`](Configuration::uncounted) memory. Let A and B, disjoint, start on *i* and *n*, and let *k* and *l* be the
//! last generations that counted on their lines (*i* and *n* themselves, if they did).
//! If *k* = *l*, both sets have a majority of list *k*: they meet. Else say *l* came after *k*: a start on *k*'s line led to it, and *l*, or a generation between
//! that counted right after *k*, keeps at least half of list *k* (rule C2). A has a majority of list *k*, so it holds a disk of that generation, sees
//! it there, and does not start on an older one. The same argument shows that no start uses a configuration older than one that counted.
//!
//! Rule C4 speaks of the list of the chosen configuration only. Without the memory's lists two sets can both start after a crash in the middle of a commit:
//! the model in `model.rs` finds it with four disks. Assembly also commits what it chose again, without the disks it lacks, so at least half
//! of the memory's lists must stay in service (rule C2). All this bites only until the next commit after one that dropped disks:
//! [`wants_seal`] tells the committer to commit once more right away, which empties the memory.
//!
//! # A disk in service that holds only an older generation
//! Disk *d* is listed in service by the chosen generation *n* but holds *m* < *n* on *n*'s line. Then *n* never counted, so nothing it says took
//! effect. Let *k* be the last that counted. If *k* lists *d* in service, *d* holds *k* or newer, and no flush was answered that *d* misses: that takes a
//! counting configuration without *d* (rule F1), and there was none since *k*. So *d* is a full member as far as its slot's state says
//! `InSync`. If *k* does not list it, *n* is adding it, and its slot's state (`Rebuilding`, `Catching`, or no slot) says that nothing on it is trusted beyond
//! its cursor. Either way the slot's state in the chosen configuration is the truth, and the disk takes part: it stands in
//! [`Choice::in_service_present`] and the commit at assembly brings its configuration up. If *k* lists *d* but *d* holds less than *k*, or nothing, then
//! *d* was put back to an older state or both its slots are damaged: it is treated as dropped.
//!
//! A disk that *n* lists as dropped stays dropped ([`Choice::stale_dropped`]) even though *n* may not have counted: whoever wrote *n* had found
//! it failing, and without it nothing flushed is missing.
//!
//! # Lines that parted
//! A crash in the middle of a commit can leave stamp X on a disk that is away at the next start; the others go on from X's predecessor, and X is on nobody's
//! list. That is no second history: X provably never counted if a disk that X lists in service is found holding neither X nor what grew out of it. Had
//! X counted, that disk would have held it, and a start that saw it there would have gone on from it, unless an operator chose otherwise. What never counted gives
//! way to the one line that may have; where none may have, the newest that can start is as good as any, since none took effect. Disks off the chosen line are named as diverged
//! and never joined by themselves. Two lines that both may have counted refuse (rule C5); that takes `--degraded` on both sides. A line that
//! the other has recorded as what its dropped disks hold, as after `--choose`, is settled and not asked about again.

mod choose;

use thiserror::Error;

pub use self::choose::{Choice, FoundDisk, Options, Refusal, Seat, Side, choose};
use crate::config::Configuration;
use crate::ids::DiskNumber;

/// Runs that the history keeps: a disk that holds an older one counts as diverged when it comes back, the safe side.
pub const HISTORY_KEPT: usize = 64;
/// The history id of generations that nobody of this line wrote: they stand on other lines' disks that were found at a start.
pub const NO_HISTORY: u64 = 0;

/// What names a written configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Stamp {
    /// The run that wrote it.
    pub history: u64,
    /// Its generation.
    pub generation: u64,
}

impl Stamp {
    /// The stamp of `config`.
    ///
    /// # Panics
    /// If it has no history: every configuration is written in some run.
    #[must_use]
    pub fn of(config: &Configuration) -> Self {
        let run = config.history.last().expect("a configuration is written in some run");
        Self { history: run.id, generation: config.generation }
    }

    /// Whether this is `config`'s stamp or that of a configuration it grew out of (rule C5's list).
    #[must_use]
    pub fn is_on_line_of(self, config: &Configuration) -> bool {
        let Some(at) = config.history.iter().position(|run| run.id == self.history) else {
            return false;
        };
        let end =
            config.history.get(at + 1).map_or(config.generation + 1, |run| run.first_generation);
        self.history != NO_HISTORY
            && (config.history[at].first_generation..end).contains(&self.generation)
    }
}

/// The slot of a disk that the next generation after `line` is written to (rule C1): never the one with the newest that it holds of `line` and what
/// that grew out of. So a crash that tears the write leaves this one, however often it happens; which number the generation has says nothing of that.
#[must_use]
pub fn older_slot(slots: &[Option<Configuration>; 2], line: &Configuration) -> usize {
    let held = slots.iter().enumerate().filter_map(|(at, slot)| Some((at, slot.as_ref()?)));
    let on_line = held.filter(|(_, slot)| Stamp::of(slot).is_on_line_of(line));
    on_line.max_by_key(|(_, slot)| slot.generation).map_or(0, |(newest, _)| 1 - newest)
}

/// Why a list of disks in service must not be committed (rule C2).
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Short {
    /// It keeps less than half of a list that may have been the last to count.
    #[error("it would keep {kept} of the {} disks {} that were in service", .list.len(), numbers(.list))]
    KeepsTooFew {
        /// The list.
        list: Vec<DiskNumber>,
        /// How many of it are kept.
        kept: usize,
    },
    /// It adds disks and drops others in one step.
    #[error("it would add disks {} and drop disks {} in one step", numbers(.added), numbers(.dropped))]
    AddsAndDrops {
        /// Disks added.
        added: Vec<DiskNumber>,
        /// Disks dropped.
        dropped: Vec<DiskNumber>,
    },
}

/// Disk numbers as people read them.
fn numbers(disks: &[DiskNumber]) -> String {
    disks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The lists that the generation after `current` has to keep half of: those of every generation written since, and including, the last
/// that counted, which comes first. `counted` says whether `current` did.
fn lists_since_counted(current: &Configuration, counted: bool) -> Vec<Vec<DiskNumber>> {
    let own: Vec<DiskNumber> = current.in_service().collect();
    let mut lists = if counted { Vec::new() } else { current.uncounted.clone() };
    if !lists.contains(&own) {
        lists.push(own);
    }
    lists
}

/// Whether a generation that lists `next_list` in service may be written after `current`, the last one written; `counted` says whether `current`
/// counted (rule C2).
///
/// # Errors
/// [`Short`] if it may not; then the group that needs it pauses (rule C3).
pub fn may_commit(
    current: &Configuration,
    counted: bool,
    next_list: &[DiskNumber],
) -> Result<(), Short> {
    for list in lists_since_counted(current, counted) {
        let kept = list.iter().filter(|disk| next_list.contains(disk)).count();
        if kept * 2 < list.len() {
            return Err(Short::KeepsTooFew { list, kept });
        }
    }
    let own: Vec<DiskNumber> = current.in_service().collect();
    let without = |from: &[DiskNumber], what: &[DiskNumber]| -> Vec<DiskNumber> {
        from.iter().filter(|disk| !what.contains(disk)).copied().collect()
    };
    let (added, dropped) = (without(next_list, &own), without(&own, next_list));
    if added.is_empty() || dropped.is_empty() {
        Ok(())
    } else {
        Err(Short::AddsAndDrops { added, dropped })
    }
}

/// The configuration to change and write after `current`, the last one written: its generation is one higher and its memory for rule C2 holds the
/// list of every generation since, and including, the last that counted. `counted` says whether `current` did.
///
/// Every attempt to write takes a new successor, also after an attempt that failed. Before a commit lists a disk whose slots hold something that is
/// not on the line of `current`, both its slots are blanked and flushed: their generations may be higher.
#[must_use]
pub fn successor(current: &Configuration, counted: bool) -> Configuration {
    let mut next = current.clone();
    next.generation += 1;
    next.uncounted = lists_since_counted(current, counted);
    if counted {
        next.counted_generation = current.generation;
    }
    next
}

/// Whether a configuration that has just counted should be followed by another with the same list (`successor(&config, true)`).
///
/// Until then a start that lacks some of its disks could be refused although a majority of them is there, because it could not know that `config`
/// counted. It is so after most commits that drop disks, after forced starts, and after adding more disks than there were.
#[must_use]
pub fn wants_seal(config: &Configuration) -> bool {
    let own: Vec<DiskNumber> = config.in_service().collect();
    let majority = own.len() / 2 + 1;
    majority < own.len()
        && config.uncounted.iter().any(|list| {
            let outside = own.iter().filter(|disk| !list.contains(disk)).count();
            majority.saturating_sub(outside) * 2 <= list.len()
        })
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
