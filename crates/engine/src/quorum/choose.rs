//! The choice at assembly: which of the configurations found is believed, and what each disk found is to the array.
//!
//! Owns [`choose`] (rules C4, C5). Invariant: without `degraded` and `choose` an array starts only with the newest configuration that may have
//! counted, and with the disks that the commit at assembly needs. The proofs stand in the parent module.

use std::cmp::Reverse;

use thiserror::Error;

use super::{HISTORY_KEPT, NO_HISTORY, Stamp, numbers, successor};
use crate::config::{Configuration, DiskEntry, DropReason, HistoryEntry, Service};
use crate::ids::{DiskNumber, Uuid};

/// A disk found at assembly, with a valid label of the array in question.
#[derive(Clone, Debug)]
pub struct FoundDisk {
    /// Its number, from its label.
    pub number: DiskNumber,
    /// Its identity, from its label.
    pub uuid: Uuid,
    /// What its configuration slots hold, as far as they are valid and name the label's array: none, one or two.
    pub configs: Vec<Configuration>,
}

impl FoundDisk {
    /// The newest configuration on the disk.
    fn held(&self) -> Option<&Configuration> {
        self.configs.iter().max_by_key(|config| config.generation)
    }
}

/// What the operator allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// Start although too many disks are missing (rule C4).
    pub degraded: bool,
    /// Where lines parted, take the one that this disk is on (rule C5).
    pub choose: Option<DiskNumber>,
}

/// A disk found, and what it holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seat {
    /// Index among the disks found.
    pub index: usize,
    /// Its number.
    pub disk: DiskNumber,
    /// The newest configuration on it; `None` if both slots are blank or damaged.
    pub held: Option<Stamp>,
}

/// What assembly goes on with.
#[derive(Clone, Debug)]
pub struct Choice {
    /// The configuration to believe.
    pub config: Configuration,
    /// It is known to have counted: every disk it lists in service was found holding it.
    pub counted: bool,
    /// The highest generation on any disk found; the next one written is above it.
    pub generation_found: u64,
    /// Started only because `degraded` allowed it.
    pub forced: bool,
    /// Disks in service that were found, also those that hold an older generation of the same line or none: all of them take part, each trusted
    /// as its slot's state in `config` says.
    pub in_service_present: Vec<Seat>,
    /// Disks in service that were not found, are on another line, or were put back to an older state.
    pub missing: Vec<DiskNumber>,
    /// Disks that `config` dropped and that hold something of its line, and disks in service that were put back to an older state of it: to be
    /// offered for `readd`.
    pub stale_dropped: Vec<Seat>,
    /// Disks that hold what is not on `config`'s line: named, never joined by themselves; `readd` copies everything.
    pub diverged: Vec<Seat>,
    /// Indices of disks that `config` does not know: removed, their number given to another disk, or never joined.
    pub foreign: Vec<usize>,
}

/// One of several lines found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Side {
    /// Disks that hold its newest configuration.
    pub disks: Vec<DiskNumber>,
    /// That configuration.
    pub stamp: Stamp,
    /// When it was committed, in milliseconds since 1970.
    pub committed_at_ms: u64,
}

/// Why nothing is assembled. No byte was changed.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum Refusal {
    /// No disk holds a valid configuration.
    #[error("no disk holds a configuration: labels alone do not make an array")]
    NothingFound,
    /// The same disk was found twice: a copy of it, or two paths to it.
    #[error("disk {number} was found twice: leave one of the two out")]
    Duplicate {
        /// Its number.
        number: DiskNumber,
        /// Index of the first.
        first: usize,
        /// Index of the second.
        second: usize,
    },
    /// The disk to choose by was not found or holds no configuration.
    #[error("disk {0} was not found or holds no configuration, so it cannot be chosen")]
    NotThere(DiskNumber),
    /// Lines that parted (rule C5).
    #[error("the array went on in more than one way: {}; choose one by a disk of it", name_sides(.sides))]
    Diverged {
        /// The lines, newest generation first.
        sides: Vec<Side>,
    },
    /// Too few disks (rule C4).
    #[error(
        "of the disks {} in service at generation {generation}, {} are missing or out of date",
        numbers(.list),
        numbers(&.missing.iter().map(|disk| disk.number).collect::<Vec<_>>())
    )]
    TooFew {
        /// Generation of the configuration that would be used.
        generation: u64,
        /// The list of which too few were found: its own, or an earlier one whose disks it may not do without.
        list: Vec<DiskNumber>,
        /// Disks of its own list that are missing, on another line or put back to an older state, with the path and serial number last known.
        missing: Vec<DiskEntry>,
    },
}

fn name_sides(sides: &[Side]) -> String {
    let side = |side: &Side| {
        let Stamp { generation, .. } = side.stamp;
        format!("disks {} hold generation {generation}", numbers(&side.disks))
    };
    sides.iter().map(side).collect::<Vec<_>>().join(", ")
}

/// Decides what to assemble from the disks found, all of one array.
///
/// # Errors
/// [`Refusal`], naming disks and the way out.
pub fn choose(found: &[FoundDisk], options: Options) -> Result<Choice, Refusal> {
    for (second, disk) in found.iter().enumerate() {
        if let Some(first) = found[..second].iter().position(|other| other.uuid == disk.uuid) {
            return Err(Refusal::Duplicate { number: disk.number, first, second });
        }
    }
    let candidates = candidates(found, options)?;
    let starts = |config: &&&Configuration| too_few(&seat(found, config)).is_none();
    let config = candidates.iter().find(starts).unwrap_or(&candidates[0]);
    let mut choice = seat(found, config);
    if let Some(list) = too_few(&choice) {
        if !options.degraded || choice.in_service_present.is_empty() {
            let missing = choice.missing.iter().filter_map(|&number| config.disk(number));
            let missing = missing.cloned().collect();
            return Err(Refusal::TooFew { generation: config.generation, list, missing });
        }
        choice.forced = true;
    }
    Ok(choice)
}

/// The newest configuration of the only line that may have counted, or of the line that was chosen; if no line may have counted, all of
/// them, the newest first, and any that can start will do. Never empty.
fn candidates(found: &[FoundDisk], options: Options) -> Result<Vec<&Configuration>, Refusal> {
    let mut held: Vec<&Configuration> = Vec::new();
    for config in found.iter().filter_map(FoundDisk::held) {
        if !held.iter().any(|known| Stamp::of(known) == Stamp::of(config)) {
            held.push(config);
        }
    }
    if held.is_empty() {
        return Err(Refusal::NothingFound);
    }
    held.sort_by_key(|config| Reverse((config.generation, Stamp::of(config).history)));
    let outgrown = |config: &Configuration| {
        let stamp = Stamp::of(config);
        held.iter().any(|other| Stamp::of(other) != stamp && stamp.is_on_line_of(other))
    };
    let mut candidates: Vec<&Configuration> =
        held.iter().filter(|end| !outgrown(end)).copied().collect();
    if let Some(number) = options.choose {
        let holds =
            |disk: &FoundDisk| (disk.number == number).then(|| disk.held().map(Stamp::of))?;
        let chosen = found.iter().find_map(holds).ok_or(Refusal::NotThere(number))?;
        candidates.retain(|end| chosen.is_on_line_of(end));
    } else {
        let settled = |end: &Configuration| held.iter().any(|other| records(found, other, end));
        let open: Vec<&Configuration> =
            candidates.iter().filter(|end| !settled(end)).copied().collect();
        // Were each recorded by another, none would be settled.
        candidates = if open.is_empty() { candidates } else { open };
    }
    let may_have_counted: Vec<&Configuration> =
        candidates.iter().filter(|end| !never_counted(found, end)).copied().collect();
    match may_have_counted[..] {
        [] => Ok(candidates),
        [only] => Ok(vec![only]),
        [..] => {
            let sides = may_have_counted.into_iter().map(|end| side(found, end)).collect();
            Err(Refusal::Diverged { sides })
        }
    }
}

/// Whether `other` has recorded `config` as what dropped disks hold, for every disk that holds it.
fn records(found: &[FoundDisk], other: &Configuration, config: &Configuration) -> bool {
    let stamp = Stamp::of(config);
    holders(found, stamp).all(|disk| match entry(other, disk).map(|entry| entry.service) {
        Some(Service::Dropped { history, generation, .. }) => {
            history == stamp.history && stamp.generation <= generation
        }
        Some(Service::InService) | None => false,
    })
}

/// Whether a disk that `config` lists in service holds neither it nor what grew out of it, which proves that `config` never counted.
fn never_counted(found: &[FoundDisk], config: &Configuration) -> bool {
    let stamp = Stamp::of(config);
    found.iter().any(|disk| {
        entry(config, disk).is_some_and(DiskEntry::in_service)
            && !was_put_back(config, disk)
            && disk.held().is_some_and(|held| !stamp.is_on_line_of(held))
    })
}

fn holders(found: &[FoundDisk], stamp: Stamp) -> impl Iterator<Item = &FoundDisk> {
    found.iter().filter(move |disk| disk.held().is_some_and(|held| Stamp::of(held) == stamp))
}

fn side(found: &[FoundDisk], tip: &Configuration) -> Side {
    let stamp = Stamp::of(tip);
    let disks = holders(found, stamp).map(|disk| disk.number).collect();
    Side { disks, stamp, committed_at_ms: tip.committed_at_ms }
}

/// What `config` says of a disk found; nothing if its number belongs to another disk.
fn entry<'a>(config: &'a Configuration, disk: &FoundDisk) -> Option<&'a DiskEntry> {
    config.disk(disk.number).filter(|entry| entry.uuid == disk.uuid)
}

/// What each disk found is to `config`.
fn seat(found: &[FoundDisk], config: &Configuration) -> Choice {
    let mut choice = Choice {
        config: config.clone(),
        counted: false,
        generation_found: found
            .iter()
            .filter_map(FoundDisk::held)
            .map(|c| c.generation)
            .max()
            .unwrap_or(0),
        forced: false,
        in_service_present: Vec::new(),
        missing: Vec::new(),
        stale_dropped: Vec::new(),
        diverged: Vec::new(),
        foreign: Vec::new(),
    };
    for (index, disk) in found.iter().enumerate() {
        let held = disk.held().map(Stamp::of);
        let seat = Seat { index, disk: disk.number, held };
        let on_line = held.is_none_or(|stamp| stamp.is_on_line_of(config));
        match entry(config, disk) {
            None => choice.foreign.push(index),
            Some(_) if !on_line => choice.diverged.push(seat),
            Some(_) if was_put_back(config, disk) => choice.stale_dropped.push(seat),
            Some(entry) if entry.in_service() => choice.in_service_present.push(seat),
            Some(_) => choice.stale_dropped.push(seat),
        }
    }
    let present = |number: &DiskNumber| choice.in_service_present.iter().any(|s| s.disk == *number);
    choice.missing = config.in_service().filter(|number| !present(number)).collect();
    let stamp = Stamp::of(config);
    choice.counted = choice.missing.is_empty()
        && choice.in_service_present.iter().all(|seat| seat.held == Some(stamp));
    choice
}

/// Whether a disk that `config` lists in service holds less than the last generation that counted although that listed it too. By rule C1 it held
/// that once, so someone put it back to an older state, or both its slots are damaged: it neither takes part nor proves anything.
fn was_put_back(config: &Configuration, disk: &FoundDisk) -> bool {
    let older = disk.held().is_none_or(|held| held.generation < config.counted_generation);
    let listed = config.uncounted.first().is_some_and(|list| list.contains(&disk.number));
    older && listed && entry(config, disk).is_some_and(DiskEntry::in_service)
}

/// A list of which too few disks are there to start by itself (rules C2, C4), if there is one.
fn too_few(choice: &Choice) -> Option<Vec<DiskNumber>> {
    let config = &choice.config;
    let count = |seats: &[Seat], list: &[DiskNumber]| {
        seats.iter().filter(|seat| list.contains(&seat.disk)).count()
    };
    let own: Vec<DiskNumber> = config.in_service().collect();
    if count(&choice.in_service_present, &own) * 2 <= own.len() {
        return Some(own);
    }
    if choice.counted {
        return None;
    }
    let lacking = |list: &&Vec<DiskNumber>| {
        let kept = count(&choice.in_service_present, list);
        let there = kept + count(&choice.stale_dropped, list) + count(&choice.diverged, list);
        kept * 2 < list.len() || there * 2 <= list.len()
    };
    config.uncounted.iter().find(lacking).cloned()
}

impl Choice {
    /// The configuration that assembly commits before it serves: the chosen one in a new run `history_id`, above every generation found, without
    /// the disks that are missing. The slots of groups are left as they are; whoever assembles sets those of missing disks.
    ///
    /// A diverged disk's record names what it holds, so that its line is not asked about again.
    ///
    /// # Panics
    /// If `history_id` is [`NO_HISTORY`].
    #[must_use]
    pub fn recommit(&self, history_id: u64, now_ms: u64) -> Configuration {
        assert_ne!(history_id, NO_HISTORY, "history ids are drawn from 1");
        let mut next = successor(&self.config, self.counted);
        if self.generation_found >= next.generation {
            next.history.push(HistoryEntry { id: NO_HISTORY, first_generation: next.generation });
            next.generation = self.generation_found + 1;
        }
        next.history.push(HistoryEntry { id: history_id, first_generation: next.generation });
        // Only the oldest runs may go: without one in the middle, its predecessor would claim its generations.
        let surplus = next.history.len().saturating_sub(HISTORY_KEPT);
        next.history.drain(..surplus);
        next.committed_at_ms = now_ms;
        let chosen = Stamp::of(&self.config);
        // A disk that was put back to an older state held more once: with that on record, `readd` copies all of it (rule M3).
        let missing = self.missing.iter().map(|&disk| (disk, chosen));
        let found = self.diverged.iter().filter_map(|seat| Some((seat.disk, seat.held?)));
        for (disk, Stamp { history, generation }) in missing.chain(found) {
            let entry = next.disk_mut(disk).expect("seats are those of disks in the configuration");
            let (reason, at_ms) = match entry.service {
                Service::Dropped { reason, at_ms, .. } => (reason, at_ms),
                Service::InService => (DropReason::Missing, now_ms),
            };
            entry.service = Service::Dropped { history, generation, reason, at_ms };
        }
        next
    }
}
