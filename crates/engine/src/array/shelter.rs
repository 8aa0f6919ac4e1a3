//! Sheltered: a group that is shielded while there is no spare, because the policy says so.
//!
//! Owns how a group comes into that state and how an operator ends it; `tend` lets a spare take the place as soon as one is there. Invariants: the
//! ailing disk stays a member, so nothing here costs redundancy; the state is committed before anything relies on it; where the policy
//! no longer asks for it, updates go home as they do without a spare.

use std::rc::Rc;

use super::Array;
use super::avoidance::Choice;
use crate::config::{AvoidanceEntry, AvoidanceState, GroupEntry, SlotEntry, SlotState, Strategy};
use crate::error::CommandError;
use crate::group::Group;
use crate::ids::{DiskNumber, GroupNumber, Slot};
use crate::report::Severity;
use crate::runtime::Env;
use crate::words;

/// Whether the member that an avoidance is about waits to be copied.
pub(super) fn waits(entry: &GroupEntry, avoidance: &AvoidanceEntry) -> bool {
    let replaced = avoidance.retiring.is_some_and(|old| old.slot == avoidance.slot);
    let slot = entry.slots.get(usize::from(avoidance.slot.0));
    !replaced && slot.is_some_and(SlotEntry::rests)
}

impl<E: Env> Array<E> {
    /// Shields the group of an ailing member that no spare is there for. Answers whether it did; if not, somebody acted meanwhile.
    ///
    /// # Errors
    /// If nothing can take the group's writes.
    pub(super) async fn shelter(self: &Rc<Self>, disk: DiskNumber) -> Result<bool, CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let Some((number, slot)) = config.slot_of(disk) else { return Ok(false) };
        let group = self.group(number)?;
        let is_due =
            config.group(number).is_some_and(|entry| entry.slots[usize::from(slot.0)].rests());
        let len = group.member_len();
        let shielded = config.backups.of_group(number).is_some();
        if !is_due || shielded || self.pick_spare(&config, len).is_some() {
            return Ok(false);
        }
        let raising = self.prepare_shield(&config, &group, slot, Strategy::Auto).await?;
        let Choice::Shield(raising) = raising else {
            return Err(CommandError::Refused(format!(
                "there is no spare with {} usable, and no place for the writes of group {number} until one is there; add one with \
                 `forestall disk add PATH --role spare`",
                words::exact(len)
            )));
        };
        let committed = self.commit(|next| Self::enter_shield(next, &raising)).await;
        if committed.is_err() {
            self.close_unused();
        }
        committed?;
        self.tell_of_shield(&raising);
        self.note_change();
        Ok(true)
    }

    /// Nothing is left to copy to, and the policy is to wait for a spare behind the shield.
    pub(super) async fn run_shelter(self: &Rc<Self>, group: &Rc<Group<E>>) -> bool {
        let mut waits = false;
        let committed = self.commit(|next| {
            if let Some(avoidance) = next.backups.of_group_mut(group.number)
                && avoidance.state == AvoidanceState::Copying
            {
                avoidance.state = AvoidanceState::Sheltered;
                waits = true;
            }
        });
        if committed.await.is_err() {
            return false;
        }
        if waits {
            self.tell_of_shelter(group.number);
        }
        true
    }

    /// Tells that a group waits for a spare behind its shield.
    pub(super) fn tell_of_shelter(&self, group: GroupNumber) {
        let what = format!(
            "group {group} stays shielded although there is no spare: add one with `forestall disk add PATH --role spare`, and the copy \
             starts by itself; `forestall policy shelter off` takes the updates home instead"
        );
        self.event(Severity::Warning, "group-sheltered", None, Some(group), what);
    }

    /// Gives up an avoidance that waits for a spare: updates go home, with the old member in its place (rule A6). Answers whether `disk` is the
    /// one that it is about.
    ///
    /// # Errors
    /// If the disk no longer answers.
    pub(super) async fn cancel_shelter(
        self: &Rc<Self>,
        disk: DiskNumber,
    ) -> Result<bool, CommandError> {
        let Some((number, slot)) = self.sheltered_slot(disk) else { return Ok(false) };
        let at = usize::from(slot.0);
        let main_answers = |slots: &[crate::group::SlotRt<E>]| {
            slots[at].main.as_ref().is_some_and(|main| !main.is_silent())
        };
        if !self.group(number)?.with_slots(main_answers) {
            return Err(CommandError::Refused(format!(
                "disk {disk} no longer answers: group {number} waits for a spare in its place; add one with `forestall disk add PATH --role \
                 spare`, or take the updates home without one, `forestall policy shelter off`"
            )));
        }
        self.hold(disk, true);
        let mut in_time = false;
        let committed = self.commit(|next| {
            let is_in = next.group(number).is_some_and(|g| {
                g.slots[at].disk == disk && g.slots[at].state == SlotState::InSync
            });
            if let Some(avoidance) = next.backups.of_group_mut(number) {
                in_time = is_in && avoidance.state == AvoidanceState::Sheltered;
                if in_time {
                    avoidance.state = AvoidanceState::WritingBack;
                }
            }
            if in_time {
                self.keep_health(next);
            }
        });
        let committed = committed.await;
        if committed.is_err() || !in_time {
            self.hold(disk, false);
        }
        committed?;
        if !in_time {
            return Err(CommandError::Refused(format!(
                "something else happened to disk {disk} while its replacement was being cancelled; see `forestall status`"
            )));
        }
        let what =
            format!("disk {disk} stays in slot {slot} of group {number}; no spare is waited for");
        self.event(Severity::Info, "replace-cancelled", Some(disk), Some(number), what);
        self.note_change();
        Ok(true)
    }

    /// The place of a member for which a shielded group waits for a spare.
    pub(super) fn sheltered_slot(&self, disk: DiskNumber) -> Option<(GroupNumber, Slot)> {
        let config = self.config.borrow();
        let (number, slot) = config.slot_of(disk)?;
        let avoidance = config.backups.of_group(number)?;
        let replaced = avoidance.retiring.is_some_and(|old| old.slot == slot);
        let is_it = avoidance.state == AvoidanceState::Sheltered && avoidance.slot == slot;
        (is_it && !replaced).then_some((number, slot))
    }
}
