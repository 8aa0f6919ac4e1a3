//! What must hold in every configuration, before it is written and after it was read.
//!
//! Owns the limits and [`check`]. Invariant: a configuration that passes can be used without further structural checks: numbers are
//! unique, names resolve, extents lie inside their group and apart, members are large enough.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use thiserror::Error;

use crate::config::{
    BackupPlace, Configuration, DiskEntry, DiskRole, Extent, FailedTest, GroupEntry, JournalMode,
    Service, SlotState, VolumeEntry,
};
use crate::geometry::Geometry;
use crate::health::{FULL, LEAK_PERCENT_MAX, THRESHOLD_MAX};
use crate::ids::{BLOCK_SIZE, DiskNumber, Slot};

/// Most disks.
pub const DISKS_MAX: usize = super::super::label::DISKS_MAX as usize;
/// Most groups.
pub const GROUPS_MAX: usize = 1024;
/// Most volumes.
pub const VOLUMES_MAX: usize = 4096;
/// Most extents of a volume.
pub const EXTENTS_MAX: usize = 4096;
/// Most runs in the history; `quorum` folds the oldest away above [`crate::quorum::HISTORY_KEPT`].
pub const HISTORY_MAX: usize = 256;
/// Most lists of generations that did not count.
pub const UNCOUNTED_MAX: usize = DISKS_MAX;
/// Most bytes of a name.
pub const NAME_MAX: usize = 63;
/// Most bytes of a disk's path hint.
pub const PATH_MAX: usize = 255;
/// Most bytes of why a disk failed its test.
pub const WHY_MAX: usize = 255;
/// Most bytes of a disk's serial number.
pub const SERIAL_MAX: usize = 63;

/// A configuration that contradicts itself, in words.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[error("the configuration contradicts itself: {0}")]
pub struct Invalid(pub String);

/// Whether `name` may name an array or a volume: 1 to 63 bytes of UTF-8; letters, digits, punctuation and single spaces inside.
#[must_use]
pub fn name_is_valid(name: &str) -> bool {
    let printable =
        |c: char| c.is_ascii_graphic() || c == ' ' || (!c.is_ascii() && c.is_alphanumeric());
    (1..=NAME_MAX).contains(&name.len()) && name.chars().all(printable) && name.trim() == name
}

fn require(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(Invalid(otherwise())) }
}

/// Numbers from 1, each above the one before it.
fn ascending(what: &str, numbers: impl Iterator<Item = u32>) -> Result<(), Invalid> {
    let mut last = 0;
    for number in numbers {
        require(number > last, || format!("{what} {number} stands after {what} {last}"))?;
        last = number;
    }
    Ok(())
}

/// Checks all of `config`.
///
/// # Errors
/// Names the first thing that cannot be.
pub fn check(config: &Configuration) -> Result<(), Invalid> {
    require(name_is_valid(&config.name), || "the array's name is not printable".into())?;
    check_history(config)?;
    check_disks(config)?;
    check_groups(config)?;
    check_volumes(config)?;
    check_health(config)?;
    check_backups(config)?;
    check_retired(config)
}

fn check_retired(config: &Configuration) -> Result<(), Invalid> {
    for (disk, (group, slot)) in &config.retired {
        let served = config.group(*group).is_some_and(|g| usize::from(slot.0) < g.slots.len());
        require(served && config.disk(*disk).is_some(), || {
            format!(
                "disk {disk} is to be tested, and it or slot {slot} of group {group} does not exist"
            )
        })?;
    }
    for disk in config.failed_tests.keys() {
        require(config.disk(*disk).is_some(), || {
            format!("disk {disk} failed its test, and does not exist")
        })?;
    }
    let too_long = |test: &FailedTest| test.why.len() > WHY_MAX;
    require(!config.failed_tests.values().any(too_long), || "too many words on a test".into())
}

fn check_backups(config: &Configuration) -> Result<(), Invalid> {
    let table = &config.backups;
    let has_volume = |volume| config.volumes.iter().any(|v: &VolumeEntry| v.number == volume);
    let mut places = BTreeSet::new();
    let mut legs = BTreeSet::new();
    for work in &table.work {
        require(places.insert(work.place), || format!("{} stands twice", work.place))?;
        let there = match work.place {
            BackupPlace::Pair(_) => false, // A pair is no place for a log.
            BackupPlace::WorkVolume(volume) => work.legs.is_empty() && has_volume(volume),
            BackupPlace::WorkDisk(set) => !work.legs.is_empty() && config.disk(set).is_none(),
        };
        require(there, || format!("{} does not exist", work.place))?;
        for leg in &work.legs {
            let role = config.disk(*leg).map(|disk| disk.role);
            require(role == Some(DiskRole::Work) && legs.insert(leg), || {
                format!("disk {leg} is no leg of {}", work.place)
            })?;
        }
    }
    ascending("avoidance of group", table.avoidances.iter().map(|a| a.group.0))?;
    for avoidance in &table.avoidances {
        let group = config.group(avoidance.group);
        require(group.is_some_and(|g| usize::from(avoidance.slot.0) < g.slots.len()), || {
            format!("group {} is shielded and does not exist", avoidance.group)
        })?;
        for shielded in &avoidance.volumes {
            require(has_volume(shielded.volume), || {
                format!("volume {} is shielded and does not exist", shielded.volume)
            })?;
            for place in &shielded.chain {
                let in_use = match *place {
                    BackupPlace::Pair(primary) => {
                        primary == shielded.volume && table.pair_of(primary).is_some()
                    }
                    _ => table.work_at(*place).is_some_and(|work| work.log != 0),
                };
                require(in_use, || format!("{place} backs a volume and is not in use"))?;
            }
        }
    }
    ascending("suspected disk", table.suspected.iter().map(|disk| disk.0))?;
    require(table.suspected.iter().all(|disk| config.disk(*disk).is_some()), || {
        "a disk is suspected that does not exist".into()
    })?;
    check_pairs(config)?;
    let has_slot = |(group, slot): &(_, Slot)| {
        config.group(*group).is_some_and(|g| usize::from(slot.0) < g.slots.len())
    };
    require(table.rates.keys().chain(&table.paused).all(has_slot), || {
        "a rate is set for a slot that does not exist".into()
    })?;
    let strategies = table.strategies.keys();
    require(strategies.clone().all(|volume| has_volume(*volume)), || {
        "a strategy is set for a volume that does not exist".into()
    })
}

/// Volumes of pairs exist, are alike, lie apart and are in one pair each; their bitmaps lie inside the secondary's group.
fn check_pairs(config: &Configuration) -> Result<(), Invalid> {
    let mut paired = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for pair in &config.backups.pairs {
        let (primary, secondary) = (pair.primary, pair.secondary);
        let volume = |number| config.volumes.iter().find(|v| v.number == number);
        require(paired.insert(primary) && paired.insert(secondary) && ids.insert(pair.id), || {
            format!("volume {primary} or {secondary} is in two pairs")
        })?;
        let (Some(first), Some(second)) = (volume(primary), volume(secondary)) else {
            return Err(Invalid(format!(
                "a volume of the pair {primary}, {secondary} is not there"
            )));
        };
        require(first.size == second.size && first.group != second.group, || {
            format!("volumes {primary} and {secondary} cannot be a pair")
        })?;
        let used = config.backups.users_of(BackupPlace::Pair(primary)).next().is_some();
        require(!pair.reversed || used && !pair.temporary, || {
            format!("the pair {primary}, {secondary} is reversed and backs nothing")
        })?;
        require(!pair.away || !pair.reversed && !pair.temporary, || {
            format!(
                "the secondary of the pair {primary}, {secondary} is away and has what is newest"
            )
        })?;
        let group = config.group(second.group);
        let stripes = group.map_or(0, |group| group.stripes);
        let inside = |e: &Extent| {
            e.stripes > 0 && e.start.checked_add(e.stripes).is_some_and(|end| end <= stripes)
        };
        require(!pair.bitmap.is_empty() && pair.bitmap.iter().all(inside), || {
            format!("the bitmap of the pair {primary}, {secondary} lies outside its group")
        })?;
    }
    Ok(())
}

fn check_health(config: &Configuration) -> Result<(), Invalid> {
    let policy = &config.health.policy;
    let sane = policy.thresholds.iter().all(|t| (1..=THRESHOLD_MAX).contains(t));
    require(sane && policy.leak_percent <= LEAK_PERCENT_MAX && policy.at_once > 0, || {
        "the health policy has values that it must not have".into()
    })?;
    for (disk, entry) in &config.health.disks {
        require(config.disk(*disk).is_some(), || {
            format!("health of disk {disk}, which is not there")
        })?;
        require(u64::from(entry.level) <= 2 * FULL, || format!("level of disk {disk}"))?;
    }
    Ok(())
}

fn check_history(config: &Configuration) -> Result<(), Invalid> {
    let history = &config.history;
    require(history.len() <= HISTORY_MAX, || format!("{} runs", history.len()))?;
    let mut last = 0;
    for entry in history {
        let first = entry.first_generation;
        require(first > last && first <= config.generation, || {
            format!("run {:#x} starts at generation {first}", entry.id)
        })?;
        last = first;
    }
    require(history.last().is_some_and(|entry| entry.id != 0), || {
        "there is no current run".into()
    })?;
    let ids = history.iter().map(|entry| entry.id).filter(|&id| id != 0);
    let unique: BTreeSet<u64> = ids.clone().collect();
    require(unique.len() == ids.count(), || "a run stands twice in the history".into())?;
    require(config.counted_generation < config.generation, || {
        format!("generation {} counted before it was written", config.counted_generation)
    })?;
    let lists = &config.uncounted;
    require(lists.len() <= UNCOUNTED_MAX, || format!("{} uncounted lists", lists.len()))?;
    for list in lists {
        require(!list.is_empty() && list.len() <= DISKS_MAX, || {
            "an uncounted list is empty".into()
        })?;
        ascending("uncounted disk", list.iter().map(|disk| disk.0))?;
    }
    Ok(())
}

fn check_disks(config: &Configuration) -> Result<(), Invalid> {
    ascending("disk", config.disks.iter().map(|disk| disk.number.0))?;
    let mut uuids = BTreeSet::new();
    for disk in &config.disks {
        let number = disk.number;
        require(number.0 as usize <= DISKS_MAX, || format!("disk {number} is above {DISKS_MAX}"))?;
        require(uuids.insert(disk.uuid), || format!("disk {number} has another disk's identity"))?;
        require(disk.data_len.is_multiple_of(BLOCK_SIZE), || {
            format!("disk {number} has a data space of {} bytes", disk.data_len)
        })?;
        require(disk.path_hint.len() <= PATH_MAX && disk.serial.len() <= SERIAL_MAX, || {
            format!("disk {number} has too long a path or serial number")
        })?;
        if let Service::Dropped { generation, .. } = disk.service {
            require(generation > 0, || format!("disk {number} was dropped at generation 0"))?;
        }
    }
    require(config.in_service().next().is_some(), || "no disk is in service".into())
}

fn check_groups(config: &Configuration) -> Result<(), Invalid> {
    require(config.groups.len() <= GROUPS_MAX, || format!("{} groups", config.groups.len()))?;
    ascending("group", config.groups.iter().map(|group| group.number.0))?;
    let mut uuids = BTreeSet::new();
    let mut used = BTreeSet::new();
    for group in &config.groups {
        let number = group.number;
        require(uuids.insert(group.uuid), || format!("group {number} has another's identity"))?;
        let geometry = geometry(group)?;
        require(
            group.intent_region.is_power_of_two() && group.intent_region >= group.chunk.into(),
            || format!("group {number} has an intent region of {} bytes", group.intent_region),
        )?;
        require(group.unwritten_unit > 0, || format!("group {number} has no unwritten unit"))?;
        require(group.journal == JournalMode::Off || geometry.parity_columns() > 0, || {
            format!("group {number} has a journal and no parity")
        })?;
        let member_len = geometry.stripes() * u64::from(geometry.chunk());
        for disk in
            group.slots.iter().flat_map(|slot| [Some(slot.disk), slot.replacement]).flatten()
        {
            require(used.insert(disk), || format!("disk {disk} is in two places of the groups"))?;
            check_member(config, group, disk, member_len)?;
        }
    }
    Ok(())
}

fn check_member(
    config: &Configuration,
    group: &GroupEntry,
    disk: DiskNumber,
    member_len: u64,
) -> Result<(), Invalid> {
    let found = config.disk(disk);
    let slot = group.slots.iter().find(|slot| slot.disk == disk);
    let trusted = slot.is_none_or(|slot| slot.state != SlotState::Out);
    require(!trusted || found.is_some_and(DiskEntry::in_service), || {
        format!("disk {disk} of group {} is relied on and not in service", group.number)
    })?;
    let large_enough = found.is_some_and(|entry| entry.data_len >= member_len);
    require(large_enough, || {
        let why = if found.is_some() { "is too small" } else { "does not exist" };
        format!("disk {disk} of group {} {why}", group.number)
    })
}

fn geometry(group: &GroupEntry) -> Result<Geometry, Invalid> {
    Geometry::new(group.level, group.slots.len(), group.chunk, group.stripes)
        .map_err(|error| Invalid(format!("group {}: {error}", group.number)))
}

fn check_volumes(config: &Configuration) -> Result<(), Invalid> {
    require(config.volumes.len() <= VOLUMES_MAX, || format!("{} volumes", config.volumes.len()))?;
    ascending("volume", config.volumes.iter().map(|volume| volume.number.0))?;
    let mut names = BTreeSet::new();
    let mut taken: BTreeMap<_, Vec<Extent>> = BTreeMap::new();
    for volume in &config.volumes {
        require(name_is_valid(&volume.name), || {
            format!("the name of volume {} is not printable", volume.number)
        })?;
        require(names.insert(&volume.name), || format!("two volumes are called {}", volume.name))?;
        check_volume(config, volume)?;
        taken.entry(volume.group).or_default().extend(&volume.extents);
    }
    for pair in &config.backups.pairs {
        if let Some(secondary) = config.volumes.iter().find(|v| v.number == pair.secondary) {
            taken.entry(secondary.group).or_default().extend(&pair.bitmap);
        }
    }
    for (group, mut extents) in taken {
        extents.sort_by_key(|extent| extent.start);
        let apart = extents.windows(2).all(|two| {
            two[0].start.checked_add(two[0].stripes).is_some_and(|end| end <= two[1].start)
        });
        require(apart, || format!("extents overlap in group {group}"))?;
    }
    Ok(())
}

fn check_volume(config: &Configuration, volume: &VolumeEntry) -> Result<(), Invalid> {
    let bad = |what: fmt::Arguments<'_>| Invalid(format!("volume {} {what}", volume.number));
    let group = config
        .group(volume.group)
        .ok_or_else(|| bad(format_args!("lies in group {}, which does not exist", volume.group)))?;
    let mut stripes = 0_u64;
    for extent in &volume.extents {
        let end = extent.start.checked_add(extent.stripes);
        if extent.stripes == 0 || end.is_none_or(|end| end > group.stripes) {
            return Err(bad(format_args!("lies outside its group")));
        }
        stripes = stripes.saturating_add(extent.stripes);
    }
    let geometry = geometry(group)?;
    let stripe_len = geometry.data_columns() as u128 * u128::from(geometry.chunk());
    let fits = u128::from(volume.size) <= u128::from(stripes) * stripe_len;
    if volume.size == 0 || !volume.size.is_multiple_of(512) || !fits {
        return Err(bad(format_args!("has {} bytes, which its extents do not hold", volume.size)));
    }
    require(volume.extents.len() <= EXTENTS_MAX, || format!("{} extents", volume.extents.len()))
}
