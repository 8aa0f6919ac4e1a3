//! Secondaries made for one avoidance: chosen, readied, taken away again.
//!
//! Owns which group takes them and where they lie in it. Invariants: they go into groups that hold no volumes, are whole, are not shielded and survive as
//! much as home (rules B6, B8); their space reads as zeroes before a configuration names it; they leave in the commit that takes the shield down.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::Array;
use super::strategy::may_take_secondaries;
use super::volumes::room_for;
use crate::config::{
    AvoidanceEntry, Configuration, Extent, GroupEntry, PairEntry, PairStatus, VolumeEntry,
};
use crate::error::CommandError;
use crate::ids::{GroupNumber, Uuid, VolumeNumber};
use crate::pair::{Pair, bitmap_bytes};
use crate::runtime::{Env, Runtime};

/// Identity of a pair that is only planned.
const PLANNED: Uuid = Uuid([0; 16]);

/// A secondary to be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NewSecondary {
    /// The pair, but for its identity.
    pair: PairEntry,
    /// The secondary.
    volume: VolumeEntry,
}

/// Chooses secondaries, one after the other.
pub(super) struct Secondaries<'a> {
    /// The configuration with what was chosen so far in it.
    scratch: Configuration,
    /// Groups that may take secondaries, lowest first.
    groups: Vec<&'a GroupEntry>,
    /// Why there is none.
    why_none: String,
    /// What was chosen.
    pub(super) chosen: Vec<NewSecondary>,
}

impl<'a> Secondaries<'a> {
    /// Of the groups in `whole`, with the failures that each survives, those that may take secondaries of `home`'s volumes.
    pub(super) fn new(
        config: &'a Configuration,
        home: &GroupEntry,
        tolerance: u32,
        whole: &BTreeMap<GroupNumber, u32>,
    ) -> Self {
        let mut why = Vec::new();
        let mut fits = |group: &&GroupEntry| {
            let number = group.number;
            if number == home.number || config.volumes.iter().any(|v| v.group == number) {
                return false;
            }
            let what = format!("group {number}");
            let may = may_take_secondaries(config, (home, tolerance), (group, &what), whole);
            may.map_err(|reason| why.push(reason)).is_ok()
        };
        let groups: Vec<&GroupEntry> = config.groups.iter().filter(|g| fits(g)).collect();
        let why_none = match why.is_empty() {
            true => "no group is without volumes, so none can take secondaries".into(),
            false => why.join("; "),
        };
        Self { scratch: config.clone(), groups, why_none, chosen: Vec::new() }
    }

    /// Chooses a secondary for `primary`: of the lowest free number, in the first group that has the space.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn add(&mut self, primary: &VolumeEntry) -> Result<(), String> {
        if self.scratch.backups.pair_with(primary.number).is_some() {
            return Err(format!("volume {} is a part of a pair already", primary.number));
        }
        if self.groups.is_empty() {
            return Err(self.why_none.clone());
        }
        let chosen = self.groups.iter().find_map(|group| place(&self.scratch, group, primary));
        let chosen = chosen.ok_or_else(|| {
            let groups: Vec<String> = self.groups.iter().map(|g| g.number.to_string()).collect();
            format!(
                "no group without volumes ({}) has the space for a secondary of volume {}",
                groups.join(", "),
                primary.number
            )
        })?;
        enter(&mut self.scratch, &chosen.pair, &chosen.volume);
        self.chosen.push(chosen);
        Ok(())
    }
}

/// A secondary of `primary` in `group`, if there is room for it and its bitmap.
fn place(
    config: &Configuration,
    group: &GroupEntry,
    primary: &VolumeEntry,
) -> Option<NewSecondary> {
    let extents = room_for(config, group, primary.size)?;
    let number = (1..).map(VolumeNumber).find(|n| config.volumes.iter().all(|v| v.number != *n))?;
    let name = (1..).find_map(|n: u32| {
        let again = if n == 1 { String::new() } else { format!("-{n}") };
        let name = format!("secondary-of-{}{again}", primary.number);
        config.volumes.iter().all(|v| v.name != name).then_some(name)
    })?;
    let volume = VolumeEntry {
        number,
        name,
        group: group.number,
        size: primary.size,
        extents,
        read_only: false,
    };
    let mut with = config.clone();
    let pair = PairEntry {
        id: PLANNED,
        primary: primary.number,
        secondary: number,
        status: PairStatus::BackingUp,
        hold: false,
        reversed: false,
        temporary: true,
        away: false,
        bitmap: Vec::new(),
    };
    enter(&mut with, &pair, &volume);
    let bitmap = room_for(&with, group, bitmap_bytes(primary.size))?;
    Some(NewSecondary { pair: PairEntry { bitmap, ..pair }, volume })
}

/// Enters a pair and its secondary into a configuration.
pub(super) fn enter(next: &mut Configuration, pair: &PairEntry, secondary: &VolumeEntry) {
    let at = next.volumes.partition_point(|v| v.number < secondary.number);
    next.volumes.insert(at, secondary.clone());
    next.backups.pairs.push(pair.clone());
}

/// Takes the pairs made for an avoidance out of a configuration, with their secondaries; answers the space that comes free.
pub(super) fn take_temporary_pairs(
    next: &mut Configuration,
    avoidance: &AvoidanceEntry,
) -> Vec<(GroupNumber, Vec<Extent>)> {
    let of_it = |pair: &&PairEntry| {
        pair.temporary && avoidance.volumes.iter().any(|v| v.volume == pair.primary)
    };
    let gone: Vec<VolumeNumber> =
        next.backups.pairs.iter().filter(of_it).map(|pair| pair.primary).collect();
    gone.into_iter().filter_map(|primary| take_pair(next, primary)).collect()
}

/// Takes a pair out of a configuration, with a secondary that was made for an avoidance; answers the space that comes free with that. Whoever takes it
/// next blanks it, so it need not be given back (rule M6).
pub(super) fn take_pair(
    next: &mut Configuration,
    primary: VolumeNumber,
) -> Option<(GroupNumber, Vec<Extent>)> {
    let at = next.backups.pairs.iter().position(|pair| pair.primary == primary)?;
    let pair = next.backups.pairs.remove(at);
    let at = next.volumes.iter().position(|v| v.number == pair.secondary && pair.temporary)?;
    let secondary = next.volumes.remove(at);
    Some((secondary.group, [secondary.extents, pair.bitmap].concat()))
}

impl<E: Env> Array<E> {
    /// Groups that are whole and at work, with the failures that each survives.
    pub(super) fn whole_groups(&self) -> BTreeMap<GroupNumber, u32> {
        let groups = self.groups.borrow();
        let whole = groups.values().filter(|group| {
            let slots = |slots: &[crate::group::SlotRt<E>]| {
                slots.iter().all(|s| s.main.is_some() && s.filler.is_none() && !s.uncommitted)
            };
            !group.is_paused() && !group.is_closing() && group.with_slots(slots)
        });
        whole.map(|group| (group.number, group.failures_left())).collect()
    }

    /// The pair of `entry`, over the group of its secondary.
    pub(super) fn pair_at(&self, config: &Configuration, entry: &PairEntry) -> Option<Rc<Pair<E>>> {
        let secondary = config.volumes.iter().find(|v| v.number == entry.secondary)?;
        let group = self.groups.borrow().get(&secondary.group).cloned()?;
        Some(Pair::new(&self.rt, entry, secondary, &group))
    }

    /// Clears the space of secondaries (rule M6) and opens their pairs.
    pub(super) async fn ready_secondaries(
        &self,
        planned: &[NewSecondary],
    ) -> Result<Vec<(PairEntry, VolumeEntry)>, CommandError> {
        let mut ready = Vec::new();
        for NewSecondary { pair, volume } in planned {
            let group = self.group(volume.group)?;
            self.blank(&group, &[&volume.extents[..], &pair.bitmap].concat()).await?;
            let id = Uuid::from_random(self.rt.random_u64(), self.rt.random_u64());
            let pair = PairEntry { id, ..pair.clone() };
            let open = Pair::new(&self.rt, &pair, volume, &group);
            self.pairs.borrow_mut().insert(pair.primary, open);
            ready.push((pair, volume.clone()));
        }
        Ok(ready)
    }

    /// Gives back the space of secondaries that are gone.
    pub(super) async fn release_secondaries(&self, space: &[(GroupNumber, Vec<Extent>)]) {
        for (number, extents) in space {
            if let Ok(group) = self.group(*number) {
                self.release_space(&group, extents).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{JournalMode, Level, ShieldedVolume, SlotEntry, SlotState};
    use crate::format::samples;
    use crate::ids::DiskNumber;

    /// Group 1 with volumes 1 and 2 of eight stripes each, and free groups 2 (of one failure) and 3 (of none), of 16 stripes.
    fn configuration() -> Configuration {
        let mut config = samples::configuration();
        config.backups = Default::default();
        let group = |number: u32, level| GroupEntry {
            number: GroupNumber(number),
            level,
            stripes: 16,
            slots: (0..2)
                .map(|at| SlotEntry {
                    disk: DiskNumber(number * 10 + at),
                    state: SlotState::InSync,
                    replacement: None,
                })
                .collect(),
            ..config.groups[0].clone()
        };
        config.groups =
            vec![group(1, Level::Raid1), group(2, Level::Raid1), group(3, Level::Raid0)];
        config.volumes.truncate(2);
        for (at, volume) in config.volumes.iter_mut().enumerate() {
            volume.size = 8 * 65536;
            volume.extents = vec![Extent { start: at as u64 * 8, stripes: 8 }];
        }
        config
    }

    fn whole() -> BTreeMap<GroupNumber, u32> {
        [(1, 1), (2, 1), (3, 0)].map(|(group, survives)| (GroupNumber(group), survives)).into()
    }

    #[test]
    fn secondaries_take_the_lowest_free_numbers_and_only_space_that_is_there() {
        let config = configuration();
        let mut some = Secondaries::new(&config, &config.groups[0], 1, &whole());
        assert_eq!(some.add(&config.volumes[0]), Ok(()));
        let refused = some.add(&config.volumes[1]).unwrap_err();
        assert!(refused.contains("no group without volumes (2) has the space"), "{refused}");
        let [NewSecondary { pair, volume }] = &some.chosen[..] else { panic!("one") };
        assert_eq!((pair.primary, pair.secondary), (VolumeNumber(1), VolumeNumber(3)));
        assert_eq!((volume.group, volume.name.as_str()), (GroupNumber(2), "secondary-of-1"));
        assert_eq!(volume.extents, [Extent { start: 0, stripes: 8 }]);
        assert_eq!(pair.bitmap, [Extent { start: 8, stripes: 1 }], "eight kilobytes of bits");
    }

    #[test]
    fn groups_that_are_in_use_not_whole_or_less_safe_take_none() {
        let config = configuration();
        let why = |config: &Configuration, tolerance, whole: &BTreeMap<GroupNumber, u32>| {
            let home = config.groups[0].clone();
            let mut some = Secondaries::new(config, &home, tolerance, whole);
            some.add(&config.volumes[0]).err()
        };
        assert_eq!(why(&config, 1, &whole()), None);
        let only_third = [(GroupNumber(3), 0)].into();
        let refused = why(&config, 1, &only_third).expect("less safe than home");
        assert!(refused.contains("group 2 is not whole; group 3 survives 0 failures"), "{refused}");
        assert_eq!(why(&config, 0, &only_third), None, "as safe as a home without redundancy");
        let mut journaled = config.clone();
        for (group, journal) in
            journaled.groups.iter_mut().zip([JournalMode::Full, JournalMode::Partial])
        {
            (group.level, group.journal) = (Level::Raid5, journal);
        }
        let refused = why(&journaled, 1, &whole()).expect("a stripe under way is less safe there");
        assert!(refused.contains("group 2 has --journal partial and group 1 full"), "{refused}");
        journaled.groups[1].level = Level::Raid1;
        assert_eq!(why(&journaled, 1, &whole()), None, "mirrors have no write hole");
        let mut occupied = config.clone();
        occupied.volumes[1].group = GroupNumber(2);
        occupied.groups.pop();
        let refused = why(&occupied, 1, &whole()).expect("no group is free");
        assert!(refused.contains("no group is without volumes"), "{refused}");
    }

    #[test]
    fn they_leave_with_their_space_and_only_those_of_the_avoidance() {
        let mut config = configuration();
        let mut some = Secondaries::new(&config, &config.groups[0], 1, &whole());
        some.add(&config.volumes[0]).expect("room");
        let NewSecondary { pair, volume } = some.chosen.remove(0);
        let before = config.clone();
        enter(&mut config, &pair, &volume);
        let avoidance = |volume| AvoidanceEntry {
            group: GroupNumber(1),
            slot: crate::ids::Slot(0),
            state: crate::config::AvoidanceState::WritingBack,
            paused: false,
            asked: crate::config::Strategy::Pair,
            retiring: None,
            volumes: vec![ShieldedVolume { volume: VolumeNumber(volume), chain: Vec::new() }],
        };
        assert_eq!(take_temporary_pairs(&mut config, &avoidance(2)), []);
        let space = take_temporary_pairs(&mut config, &avoidance(1));
        let all = vec![Extent { start: 0, stripes: 8 }, Extent { start: 8, stripes: 1 }];
        assert_eq!(space, [(GroupNumber(2), all)]);
        assert_eq!(config, before);
    }
}
