//! A replacement under way: pausing it, going on, giving it up.
//!
//! Owns the operator's hand on a copy. Invariants: the old member is in service all the while, so nothing here costs redundancy; a
//! replacement is given up only while the old member still answers (rule A6), and its disk is filled from the start when it is used again.

use std::rc::Rc;

use super::Array;
use super::disks::no_disk;
use crate::config::{AvoidanceState, SlotState};
use crate::error::CommandError;
use crate::ids::{DiskNumber, GroupNumber, Slot};
use crate::progress::Progress;
use crate::report::{JobKind, JobReport, JobState, Severity};
use crate::runtime::{Env, Runtime};

/// A member and the disk being filled in its place.
struct Replacing {
    group: GroupNumber,
    slot: Slot,
    spare: DiskNumber,
}

impl<E: Env> Array<E> {
    /// The replacement that `disk` is the old or the new part of.
    fn replacing(&self, disk: DiskNumber) -> Result<Replacing, CommandError> {
        let config = self.config.borrow();
        if config.disk(disk).is_none() {
            return Err(no_disk(disk));
        }
        let found = config.slot_of(disk).and_then(|(group, slot)| {
            let spare = config.group(group)?.slots[usize::from(slot.0)].replacement?;
            Some(Replacing { group, slot, spare })
        });
        let waits = self.sheltered_slot(disk).is_some();
        let goes_home = config.backups.retiring_in(disk);
        found.ok_or_else(|| match goes_home {
            Some(avoidance) => CommandError::Refused(format!(
                "disk {disk} was replaced already and the updates of group {} are going home: it is too late to keep it",
                avoidance.group
            )),
            None if waits => CommandError::Refused(format!(
                "disk {disk} is not being copied: its group waits for a spare; add one with `forestall disk add PATH --role spare`"
            )),
            None => CommandError::Refused(format!(
                "disk {disk} is not being replaced; `forestall jobs` shows what is under way"
            )),
        })
    }

    /// Lets a replacement stand still: what was copied stays in service, nothing more is copied until it is resumed, also over
    /// restarts.
    ///
    /// # Errors
    /// If there is no such disk, it is not being replaced, or the copy is paused already.
    pub async fn pause_replace(self: &Rc<Self>, disk: DiskNumber) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let Replacing { group, slot, spare } = self.replacing(disk)?;
        if !self.paused.borrow_mut().insert(spare) {
            return Err(CommandError::Refused(format!(
                "the replacement of disk {disk} is paused already; go on with `forestall replace resume {disk}`"
            )));
        }
        self.jobs.stop_those(|job| job.disk == Some(spare));
        self.jobs.ended(|job| job.disk == Some(spare)).await;
        if self.replacing(disk).is_err() {
            self.paused.borrow_mut().remove(&spare);
            return Err(CommandError::Refused(format!(
                "the replacement of disk {disk} ended while it was being paused; see `forestall status`"
            )));
        }
        self.keep_paused(group, slot, true).await?;
        self.list_paused();
        let what = format!("the copy to disk {spare} stands still");
        self.event(Severity::Info, "replace-paused", Some(spare), Some(group), what);
        Ok(())
    }

    /// Lists the copies that are paused and have no job yet: those that a start found, and those that had not begun.
    pub(super) fn list_paused(&self) {
        let config = self.config.borrow();
        for spare in self.paused.borrow().iter() {
            if self.jobs.stopped_fill(*spare).is_some() {
                continue;
            }
            let Some((number, slot)) = config.slot_of(*spare) else { continue };
            let Ok(group) = self.group(number) else { continue };
            let rate = self.rate_of(number, slot);
            let progress = Progress::new(group.member_len(), rate, self.rt.now_ns());
            let done = group.filled_bytes(slot);
            progress.done.set(done);
            progress.resumed_at.set(done);
            let job = self.begin_job(JobKind::Replace, number, Some(*spare), progress);
            self.end_job(&job, JobState::Stopped, "stopped by an operator");
        }
    }

    /// Of the jobs, the last of each copy that is paused is told of as that.
    pub(super) fn tell_of_paused(&self, jobs: &mut [JobReport]) {
        let config = self.config.borrow();
        for spare in self.paused.borrow().iter() {
            let last = jobs.iter_mut().rfind(|job| job.disk == Some(*spare) && job.kind.fills());
            let stands =
                |job: &JobReport| matches!(job.state, JobState::Stopped | JobState::Waiting);
            let Some(job) = last.filter(|job| stands(job)) else { continue };
            let slots = config.groups.iter().flat_map(|group| &group.slots);
            let Some(slot) = slots.into_iter().find(|s| s.replacement == Some(*spare)) else {
                continue;
            };
            job.state = JobState::Paused;
            job.message = format!("go on with `forestall replace resume {}`", slot.disk);
        }
    }

    /// Makes a pause outlive a restart.
    async fn keep_paused(
        self: &Rc<Self>,
        group: GroupNumber,
        slot: Slot,
        paused: bool,
    ) -> Result<(), CommandError> {
        self.commit(|next| {
            match paused {
                true => next.backups.paused.insert((group, slot)),
                false => next.backups.paused.remove(&(group, slot)),
            };
        })
        .await
    }

    /// Lets a paused replacement go on.
    ///
    /// # Errors
    /// If there is no such disk, it is not being replaced, or the copy is not paused.
    pub async fn resume_replace(self: &Rc<Self>, disk: DiskNumber) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let Replacing { group, slot, spare } = self.replacing(disk)?;
        if !self.paused.borrow_mut().remove(&spare) {
            return Err(CommandError::Refused(format!(
                "the replacement of disk {disk} is not paused"
            )));
        }
        self.keep_paused(group, slot, false).await?;
        self.jobs.go_on(spare);
        let what = format!("the copy to disk {spare} goes on");
        self.event(Severity::Info, "replace-resumed", Some(spare), Some(group), what);
        self.note_change();
        Ok(())
    }

    /// Gives a replacement up: the old member stays, the other disk is a spare again (rule A6). An ailing disk is then not replaced by
    /// itself any more.
    ///
    /// # Errors
    /// If there is no such disk, it is not being replaced, the old member no longer answers, or the copy ended meanwhile.
    pub async fn cancel_replace(self: &Rc<Self>, disk: DiskNumber) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let place = self.config.borrow().slot_of(disk);
        if place.is_some_and(|place| self.again.borrow_mut().remove(&place)) {
            return Ok(()); // It waited for the next spare.
        }
        if self.cancel_shelter(disk).await? {
            return Ok(());
        }
        let Replacing { group, slot, spare } = self.replacing(disk)?;
        // No copy starts between its stop and the commit.
        let was_paused = !self.paused.borrow_mut().insert(spare);
        self.jobs.stop_those(|job| job.disk == Some(spare));
        self.jobs.ended(|job| job.disk == Some(spare)).await;
        let cancelled = self.cancel_stopped(disk, group, slot, spare).await;
        if cancelled.is_ok() || !was_paused {
            self.paused.borrow_mut().remove(&spare);
        }
        self.note_change();
        cancelled
    }

    async fn cancel_stopped(
        self: &Rc<Self>,
        disk: DiskNumber,
        group: GroupNumber,
        slot: Slot,
        spare: DiskNumber,
    ) -> Result<(), CommandError> {
        let at = usize::from(slot.0);
        let too_late = || {
            CommandError::Refused(format!(
                "the replacement of disk {disk} ended while it was being cancelled; see `forestall status`"
            ))
        };
        let entry = self.config.borrow().group(group).map(|g| g.slots[at].clone());
        let entry = entry.filter(|s| s.replacement == Some(spare)).ok_or_else(too_late)?;
        let runtime = self.group(group)?;
        let answers = runtime
            .with_slots(|slots| slots[at].main.as_ref().is_some_and(|main| !main.is_silent()));
        if entry.state != SlotState::InSync || !answers {
            return Err(CommandError::Refused(format!(
                "disk {} no longer answers: its replacement by disk {spare} goes on",
                entry.disk
            )));
        }
        self.hold(entry.disk, true);
        let mut in_time = false;
        let committed = self
            .commit(|next| {
                // The old member may have been dropped just before this change: then the copy goes on.
                if let Some(entry) = next.group_mut(group) {
                    let slot = &mut entry.slots[at];
                    in_time = slot.state == SlotState::InSync && slot.replacement == Some(spare);
                    if in_time {
                        slot.replacement = None;
                    }
                }
                if !in_time {
                    return;
                }
                // Rule A6: updates go home, with the old member in its place; where another slot is filled, the shield stays up for that.
                let slots = next.group(group).map(|g| g.slots.clone()).unwrap_or_default();
                let other =
                    slots.iter().position(|s| s.filled().is_some()).map(|other| Slot(other as u8));
                if let Some(avoidance) = next.backups.of_group_mut(group) {
                    match other {
                        None => avoidance.state = AvoidanceState::WritingBack,
                        Some(other) if avoidance.slot == slot => avoidance.slot = other,
                        Some(_) => {}
                    }
                }
                self.keep_health(next);
            })
            .await;
        if let Err(error) = committed.and(if in_time { Ok(()) } else { Err(too_late()) }) {
            self.hold(entry.disk, false);
            return Err(error);
        }
        self.jobs.give_up(spare);
        let what = format!(
            "disk {} stays in slot {slot} of group {group}; disk {spare} is a spare again",
            entry.disk
        );
        self.event(Severity::Info, "replace-cancelled", Some(entry.disk), Some(group), what);
        Ok(())
    }
}
