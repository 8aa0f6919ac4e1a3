//! A disk that fails while it is filled, or is missing at a start: the next spare stands in for it, or the copy ends.
//!
//! Owns that choice and its words. Invariants: no member is taken out here, the old one stays what it is; with or without a shield a copy by command ends where
//! no other spare is large enough, and whoever asked for it is told once; a slot that is out, an ailing disk that is replaced by itself and a
//! sheltered group wait for a spare.

use super::Array;
use super::tend::Step;
use crate::config::{
    Configuration, DiskEntry, DropReason, GroupEntry, Service, SlotEntry, SlotState,
};
use crate::group::Group;
use crate::ids::{DiskNumber, GroupNumber, Slot};
use crate::report::Severity;
use crate::runtime::Env;

/// A slot of a group.
type Place = (GroupNumber, Slot);

/// What whoever gave the command does once there is a spare.
const GIVE_AGAIN: &str =
    "give the command again when there is a spare (`forestall disk add PATH --role spare`)";

/// The disks that `before` fills and `after` has no more in service, each with the slot that it was to have.
fn lost_fillers(before: &Configuration, after: &Configuration) -> Vec<(Place, DiskNumber)> {
    let is_out = |disk: &DiskNumber| after.disk(*disk).is_some_and(|entry| !entry.in_service());
    let of_group = |group: &GroupEntry| {
        let number = group.number;
        let slots = group.slots.iter().enumerate();
        let lost = slots.filter_map(|(at, slot)| {
            Some(((number, Slot(at as u8)), slot.filled().filter(is_out)?))
        });
        lost.collect::<Vec<_>>()
    };
    before.groups.iter().flat_map(of_group).collect()
}

/// Whether a shield that is up for a slot is kept, as the policy says, while there is no spare.
fn is_sheltered(config: &Configuration, (group, slot): Place) -> bool {
    config.health.policy.shelter && config.backups.of_group(group).is_some_and(|a| a.slot == slot)
}

/// The slot of a member that is in sync and that nothing is copied from.
fn rests(config: &Configuration, (group, slot): Place) -> Option<&SlotEntry> {
    let entry = config.group(group)?.slots.get(usize::from(slot.0))?;
    entry.rests().then_some(entry)
}

impl<E: Env> Array<E> {
    /// Notes what was being filled until this configuration: what stands in for it says so, and what comes next is due.
    pub(super) fn note_lost_fillers(&self, before: &Configuration, after: &Configuration) {
        for (place, disk) in lost_fillers(before, after) {
            self.failed_fillers.borrow_mut().insert(place, disk);
            let how = self.how_it_was_lost(disk);
            self.jobs.lost_in_pause(disk, &format!("disk {disk} {how}"));
            if rests(after, place).is_some() {
                self.start_over(after, place);
            }
        }
    }

    /// The copy of a slot starts over on the next spare. Where it is what the shield of its group is up for, the shield sees to that.
    pub(super) fn start_over(&self, config: &Configuration, place: Place) {
        let shielded = config.backups.of_group(place.0).is_some_and(|a| a.slot == place.1);
        if !shielded {
            self.again.borrow_mut().insert(place);
        }
    }

    /// Forgets what is due in slots that are out, and in groups that are gone.
    pub(super) fn forget_fillers(&self, config: &Configuration) {
        let slot_of = |(group, slot): &Place| {
            config.group(*group).and_then(|g| g.slots.get(usize::from(slot.0)))
        };
        let may_copy = |slot: &SlotEntry| slot.state != SlotState::Out;
        self.again.borrow_mut().retain(|place| slot_of(place).is_some_and(may_copy));
        self.failed_fillers.borrow_mut().retain(|place, _| slot_of(place).is_some());
    }

    /// Which disk `disk` is filled in the stead of, since that failed or is missing; empty if it stands in for none.
    pub(super) fn stead_words(&self, place: Place, disk: DiskNumber) -> String {
        let lost = self.failed_fillers.borrow().get(&place).copied().filter(|lost| *lost != disk);
        lost.map_or_else(String::new, |lost| {
            let how = self.how_it_was_lost(lost);
            format!(" in the stead of disk {lost}, which {how}")
        })
    }

    fn how_it_was_lost(&self, disk: DiskNumber) -> &'static str {
        let is_missing = |entry: &DiskEntry| {
            matches!(entry.service, Service::Dropped { reason: DropReason::Missing, .. })
        };
        match self.config.borrow().disk(disk).is_some_and(is_missing) {
            true => "was being filled and is missing since the start",
            false => "failed while it was filled",
        }
    }

    /// Whether something is filled for a slot by itself once a spare is there.
    fn waits_for_spare(&self, config: &Configuration, place: Place) -> bool {
        rests(config, place)
            .is_none_or(|slot| is_sheltered(config, place) || self.is_replaced_by_itself(slot.disk))
    }

    /// A disk failed while it was filled: what comes after that, in words. A copy that ends with it is over.
    pub(super) fn after_failed_filler(
        &self,
        group: &Group<E>,
        slot: Slot,
        disk: DiskNumber,
    ) -> String {
        let config = self.config.borrow();
        let place = (group.number, slot);
        if let Some(next) = self.pick_spare(&config, group.member_len()) {
            let how = self.how_it_was_lost(disk);
            return format!(
                "disk {disk} {how}; disk {next} is filled in its stead, from the start"
            );
        }
        let words = self.end_words(&config, place, disk);
        if rests(&config, place).is_some() && !is_sheltered(&config, place) {
            self.again.borrow_mut().remove(&place);
            self.failed_fillers.borrow_mut().remove(&place);
        }
        words
    }

    /// That nothing can be filled in the stead of a disk, and what follows from it.
    fn end_words(&self, config: &Configuration, place: Place, disk: DiskNumber) -> String {
        let how = self.how_it_was_lost(disk);
        let next = match rests(config, place) {
            Some(slot) if !self.waits_for_spare(config, place) => {
                format!("disk {} stays; {GIVE_AGAIN}", slot.disk)
            }
            _ => "add one with `forestall disk add PATH --role spare`, and it is filled by itself"
                .into(),
        };
        format!("disk {disk} {how} and no other spare is large enough: {next}")
    }

    /// The copy of a slot ends, since nothing can be filled in the stead of the disk that was lost: told, if it was not yet.
    pub(super) fn end_copy(&self, place: Place) {
        self.again.borrow_mut().remove(&place);
        let config = self.config.borrow();
        if rests(&config, place).is_none() {
            return;
        }
        let Some(disk) = self.failed_fillers.borrow_mut().remove(&place) else { return };
        let words = self.end_words(&config, place, disk);
        let what = format!("replace of disk {disk} in group {}: {words}", place.0);
        drop(config);
        self.event(Severity::Warning, "replace-ended", Some(disk), Some(place.0), what);
    }

    /// A copy whose spare was lost goes on with the next one, or ends. Nothing, if no copy of the group is due.
    pub(super) fn next_start_over(&self, config: &Configuration, group: &Group<E>) -> Option<Step> {
        if group.with_slots(|slots| slots.iter().any(|s| s.uncommitted)) {
            return None; // A failure is about to be committed.
        }
        let again = self.again.borrow();
        let mut due = again.iter().filter(|place| place.0 == group.number);
        let (_, slot) = due.find(|place| rests(config, **place).is_some())?;
        Some(match self.pick_spare(config, group.member_len()) {
            Some(spare) => Step::Engage(*slot, spare),
            None => Step::EndCopy(*slot),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;

    #[test]
    fn a_disk_is_lost_as_a_filler_if_it_is_out_and_was_filled() {
        let mut before = samples::configuration();
        let group = before.groups[0].number;
        let (spare, rebuilt, member) = (DiskNumber(6), DiskNumber(2), DiskNumber(1));
        before.disks.iter_mut().for_each(|disk| disk.service = Service::InService);
        for slot in &mut before.groups[0].slots {
            (slot.state, slot.replacement) = (SlotState::InSync, None);
        }
        before.groups[0].slots[0].replacement = Some(spare);
        before.groups[0].slots[1].state = SlotState::Rebuilding;
        assert_eq!(before.groups[0].slots[1].disk, rebuilt, "the sample has changed");
        assert_eq!(lost_fillers(&before, &before), []);
        let mut after = before.clone();
        for disk in [spare, rebuilt, member] {
            let reason = DropReason::Missing;
            let service = Service::Dropped { history: 1, generation: 1, reason, at_ms: 0 };
            after.disk_mut(disk).expect("in the sample").service = service;
            super::super::commit::take_out_of_slots(&mut after, disk);
        }
        let lost = [((group, Slot(0)), spare), ((group, Slot(1)), rebuilt)];
        assert_eq!(lost_fillers(&before, &after), lost);
    }
}
