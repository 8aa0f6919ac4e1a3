//! Background work that restores redundancy: dropping what failed, resyncing, engaging spares, filling, swapping.
//!
//! Owns one task per group that looks at its state after every change and does the next thing needed. Invariants: dirty regions are made whole
//! before anything is rebuilt from peers (rules A1, M4); a spare is in one place at a time; a filled drive takes its slot in one commit after it
//! was flushed (rule A3); work that cannot go on waits for the next change instead of spinning.

use std::rc::Rc;

use super::{Array, shelter};
use crate::config::{
    AvoidanceEntry, AvoidanceState, Configuration, DiskRole, GroupEntry, Retired, SlotEntry,
    SlotState, Strategy,
};
use crate::drive::Drive;
use crate::error::CommandError;
use crate::group::{FillEnd, Group};
use crate::ids::{DiskNumber, GroupNumber, Slot};
use crate::progress::Progress;
use crate::report::{JobKind, JobState, Severity};
use crate::runtime::{Env, Runtime};
use crate::words;

/// What a group's tending does next.
pub(super) enum Step {
    Resync,
    Fill(Slot),
    Engage(Slot, DiskNumber),
    EndCopy(Slot),
    GiveWay(Slot),
    Enter,
    Shelter,
    Leave,
    WriteBack,
    Rest,
}

impl<E: Env> Array<E> {
    /// Commits failures in the background; the commit itself knows what failed.
    pub(super) fn tend_failures(self: &Rc<Self>) {
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move {
            if let Err(error) = array.commit_failures().await {
                array.event(Severity::Critical, "commit-failed", None, None, error.to_string());
            }
            array.stop_copies_that_give_way();
            array.note_change();
        }));
    }

    /// Starts background work: resync of dirty regions, rebuilds, spares engaging, scheduled scrubs, the event log.
    pub fn start(self: &Rc<Self>) {
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move { array.keep_log().await }));
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move { array.sweep_now_and_then().await }));
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move { array.double_now_and_then().await }));
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move { array.watch_health().await }));
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move { array.take_up_tests().await }));
        self.list_paused();
        let groups: Vec<_> = self.groups.borrow().values().cloned().collect();
        for group in groups {
            self.tend_group(&group);
        }
        let primaries: Vec<_> = self.mirrors.borrow().keys().copied().collect();
        primaries.into_iter().for_each(|primary| self.tend_pair(primary));
        if self.scrub_every_s > 0 {
            let array = Rc::clone(self);
            self.rt.spawn(Box::pin(async move { array.scrub_on_schedule().await }));
        }
    }

    /// Tends one group until it is deleted or the array stops.
    pub(super) fn tend_group(self: &Rc<Self>, group: &Rc<Group<E>>) {
        let (array, group) = (Rc::clone(self), Rc::clone(group));
        self.rt.spawn(Box::pin(async move {
            while !array.stopping.get() && array.groups.borrow().contains_key(&group.number) {
                let seen = array.changes.get();
                let step = array.steps.one();
                let went_on = match array.next_step(&group) {
                    Step::Resync => array.run_resync(&group).await,
                    Step::Fill(slot) => array.run_fill(&group, slot).await,
                    Step::Engage(slot, spare) => array.run_engage(&group, slot, spare).await,
                    Step::EndCopy(slot) => {
                        array.end_copy((group.number, slot));
                        true
                    }
                    Step::GiveWay(slot) => array.run_give_way(&group, slot).await,
                    Step::Enter => array.run_enter(&group).await,
                    Step::Shelter => array.run_shelter(&group).await,
                    Step::Leave => array.run_leave(&group).await,
                    Step::WriteBack => array.run_write_back(&group).await,
                    Step::Rest => false,
                };
                drop(step);
                if !went_on {
                    array
                        .changed
                        .wait_until(|| array.changes.get() != seen || array.stopping.get())
                        .await;
                }
            }
        }));
    }

    /// Whether the group is between two steps: nothing runs, and something will by itself.
    pub(super) fn work_is_due(&self, group: &Rc<Group<E>>) -> bool {
        let rests = self.stopping.get() || matches!(self.next_step(group), Step::Rest);
        !rests && self.jobs.working_on(group.number).is_none()
    }

    fn next_step(&self, group: &Rc<Group<E>>) -> Step {
        if group.is_paused() || group.is_closing() {
            return Step::Rest;
        }
        if !group.is_resynced() {
            return Step::Resync;
        }
        let config = self.config.borrow();
        let avoidance = config.backups.of_group(group.number);
        if avoidance.is_some_and(|a| a.state == AvoidanceState::Entering) {
            return Step::Enter;
        }
        if let Some(slot) = self.gives_way(&config, group) {
            return Step::GiveWay(slot);
        }
        let paused = self.paused.borrow();
        let goes_on = |filler: &Rc<Drive<E>>| !paused.contains(&filler.number);
        let filling = group
            .with_slots(|slots| slots.iter().position(|s| s.filler.as_ref().is_some_and(goes_on)));
        if let Some(slot) = filling.map(|slot| Slot(slot as u8)) {
            return if group.can_fill(slot) { Step::Fill(slot) } else { Step::Rest };
        }
        let Some(entry) = config.group(group.number) else { return Step::Rest };
        if let Some((slot, spare)) = self.spare_for(&config, group, entry) {
            return Step::Engage(slot, spare);
        }
        match (self.next_start_over(&config, group), avoidance) {
            (Some(step), _) => step,
            (None, Some(avoidance)) => self.next_of_avoidance(&config, group, entry, avoidance),
            (None, None) => Step::Rest,
        }
    }

    /// A slot that is out and can be rebuilt, and the spare for it.
    pub(super) fn spare_for(
        &self,
        config: &Configuration,
        group: &Rc<Group<E>>,
        entry: &GroupEntry,
    ) -> Option<(Slot, DiskNumber)> {
        let out = entry.slots.iter().position(|s| s.state == SlotState::Out)?;
        let slot = Slot(out as u8);
        let spare = self.pick_spare(config, group.member_len())?;
        group.can_rebuild(slot).then_some((slot, spare))
    }

    /// What an avoidance does next when no slot is filled and no slot that is out can be.
    fn next_of_avoidance(
        &self,
        config: &Configuration,
        group: &Rc<Group<E>>,
        entry: &GroupEntry,
        avoidance: &AvoidanceEntry,
    ) -> Step {
        if avoidance.state == AvoidanceState::WritingBack {
            return Step::WriteBack;
        }
        if group.with_slots(|slots| slots.iter().any(|s| s.filler.is_some() || s.uncommitted)) {
            return Step::Rest; // It is paused, or a failure is about to be committed.
        }
        // The disk that was being filled is gone: the next one starts over.
        let waits = shelter::waits(entry, avoidance);
        let whole = entry.slots.iter().all(|slot| slot.state == SlotState::InSync);
        match self.pick_spare(config, group.member_len()) {
            Some(spare) if waits => Step::Engage(avoidance.slot, spare),
            _ if !config.health.policy.shelter || whole && !waits => Step::Leave,
            _ if avoidance.state == AvoidanceState::Sheltered => Step::Rest,
            _ => Step::Shelter,
        }
    }

    async fn run_resync(self: &Rc<Self>, group: &Rc<Group<E>>) -> bool {
        let total = group.dirty_regions() * group.region_len();
        let progress = Progress::new(total, 0, self.rt.now_ns());
        let job = self.begin_job(JobKind::Resync, group.number, None, Rc::clone(&progress));
        let (state, message) = match group.resync(&progress).await {
            Ok(true) => (JobState::Done, "all regions are whole again".to_string()),
            Ok(false) => (JobState::Stopped, "goes on at the next start".to_string()),
            Err(error) => (
                JobState::Failed,
                format!("{error}: the regions left stay marked; reads of them are careful"),
            ),
        };
        self.end_job(&job, state, message.clone());
        let severity = if state == JobState::Failed { Severity::Critical } else { Severity::Info };
        self.event(
            severity,
            "resync-ended",
            None,
            Some(group.number),
            format!("resync of group {}: {message}", group.number),
        );
        if state == JobState::Failed {
            // What does not answer now may do so later; nothing else can go on before.
            const AGAIN_NS: u64 = 30_000_000_000;
            self.sleep_unless_stopped(AGAIN_NS).await;
        }
        state != JobState::Stopped
    }

    async fn run_engage(
        self: &Rc<Self>,
        group: &Rc<Group<E>>,
        slot: Slot,
        spare: DiskNumber,
    ) -> bool {
        let Ok(_turn) = self.turn().await else { return false };
        // Somebody may have acted while we waited for our turn.
        match self.next_step(group) {
            Step::Engage(s, d) if (s, d) == (slot, spare) => {
                // The next spare of the same avoidance is filled as fast as was asked for the first.
                let again = self.again.borrow().contains(&(group.number, slot));
                let goes_on = again || self.avoidance(group.number).is_some();
                let rate = if goes_on { self.rate_of(group.number, slot) } else { 0 };
                let asked = if again { Strategy::Direct } else { Strategy::Auto };
                self.engage(group, slot, spare, rate, asked).await.is_ok()
            }
            _ => true,
        }
    }

    async fn run_fill(self: &Rc<Self>, group: &Rc<Group<E>>, slot: Slot) -> bool {
        let Some((kind, disk)) = self.fill_kind(group.number, slot) else { return false };
        let progress =
            Progress::new(group.member_len(), self.rate_of(group.number, slot), self.rt.now_ns());
        let done = group.filled_bytes(slot);
        progress.done.set(done);
        progress.resumed_at.set(done);
        let job = self.begin_job(kind, group.number, Some(disk), Rc::clone(&progress));
        self.event(
            Severity::Info,
            &format!("{}-started", word(kind)),
            Some(disk),
            Some(group.number),
            format!("{} of disk {disk} into slot {slot} of group {}", word(kind), group.number),
        );
        job.tell(self.stead_words((group.number, slot), disk).trim_start());
        self.hasten_copies();
        let end = group.fill(slot, &progress).await;
        let (state, message) = match &end {
            FillEnd::Done => match self.swap(group, slot, disk, &progress).await {
                Ok(()) => {
                    self.failed_fillers.borrow_mut().remove(&(group.number, slot));
                    (JobState::Done, self.filled_words(group, slot))
                }
                Err(error) => (JobState::Failed, error.to_string()),
            },
            FillEnd::TargetFailed => {
                // What comes next shows once it is out; what cannot be committed now is tried again.
                let _ = self.commit_failures().await;
                (JobState::Failed, self.after_failed_filler(group, slot, disk))
            }
            FillEnd::SourcesFailed(why) => {
                (JobState::Failed, format!("{why}: nothing more can be copied"))
            }
            FillEnd::Stopped if self.gives_way(&self.config.borrow(), group) == Some(slot) => {
                (JobState::Stopped, "the disk goes to a slot whose disk failed".to_string())
            }
            FillEnd::Stopped if self.paused.borrow().contains(&disk) => {
                (JobState::Stopped, "stopped by an operator".to_string())
            }
            FillEnd::Stopped => (JobState::Stopped, "goes on at the next start".to_string()),
        };
        self.end_job(&job, state, message.clone());
        if matches!(end, FillEnd::Stopped) && self.paused.borrow().contains(&disk) {
            return !group.has_filler(slot); // What the operator did is told as that.
        }
        let lost = progress.lost.get() > 0 && !self.secondaries_have(group.number);
        let severity = match &end {
            _ if lost => Severity::Critical,
            // Nothing is lost by it, and the next spare starts over.
            FillEnd::TargetFailed => Severity::Warning,
            _ if state == JobState::Failed => Severity::Critical,
            _ => Severity::Info,
        };
        let what = format!("{} of disk {disk} in group {}: {message}", word(kind), group.number);
        self.event(
            severity,
            &format!("{}-ended", word(kind)),
            Some(disk),
            Some(group.number),
            what,
        );
        state == JobState::Done || !group.has_filler(slot)
    }

    /// Whether all that is lost of a group is held by secondaries that have their primaries' places.
    fn secondaries_have(&self, group: GroupNumber) -> bool {
        let lost = self.lost();
        let mut lost = lost.iter().filter(|report| report.group == group).peekable();
        lost.peek().is_some() && lost.all(|report| report.held_by.is_some())
    }

    fn filled_words(&self, group: &Rc<Group<E>>, slot: Slot) -> String {
        let blocks = words::counted(group.lost_in(slot), "block");
        match group.lost_in(slot) {
            0 if group.misses_a_member() => "done; another member of the group is still out".into(),
            0 => "done; full redundancy again".into(),
            _ if self.secondaries_have(group.number) => format!(
                "done; {blocks} not to be had from the group, and given back by the secondaries that have them"
            ),
            _ => format!("done; {blocks} not to be had from anywhere, listed lost"),
        }
    }

    pub(super) fn fill_kind(
        &self,
        group: GroupNumber,
        slot: Slot,
    ) -> Option<(JobKind, DiskNumber)> {
        let config = self.config.borrow();
        let slot = config.group(group)?.slots.get(usize::from(slot.0))?;
        match (slot.state, slot.replacement) {
            (SlotState::Rebuilding, _) => Some((JobKind::Rebuild, slot.disk)),
            (SlotState::Catching, _) => Some((JobKind::Readd, slot.disk)),
            (_, Some(replacement)) => Some((JobKind::Replace, replacement)),
            (_, None) => None,
        }
    }

    /// Rule A3: one commit puts the filled disk into its slot. The old one leaves in the next: if the filled disk cannot take the
    /// configuration that relies on it, the old one is still in service.
    async fn swap(
        self: &Rc<Self>,
        group: &Rc<Group<E>>,
        slot: Slot,
        filled: DiskNumber,
        progress: &Progress,
    ) -> Result<(), CommandError> {
        let at = usize::from(slot.0);
        let slot_of =
            |config: &Configuration| config.group(group.number).map(|g| g.slots[at].clone());
        let before = slot_of(&self.config.borrow());
        let filling = |s: &SlotEntry| {
            s.replacement == Some(filled) || s.disk == filled && s.state != SlotState::Out
        };
        let old_disk = before.as_ref().map(|s| s.disk).filter(|old| *old != filled);
        let before_it = match old_disk {
            // The disk that was replaced before it under the same shield goes with this commit.
            Some(_) => self.retry_from_retired(group.number).await,
            None => None,
        };
        group.set_swapping(slot, true);
        let swapped = self.commit(|next| {
            // A drive that failed at the last moment was dropped before this change: then nothing is swapped.
            if !slot_of(next).as_ref().is_some_and(filling) {
                return;
            }
            if let Some(entry) = next.group_mut(group.number) {
                entry.slots[at] =
                    SlotEntry { disk: filled, state: SlotState::InSync, replacement: None };
            }
            if let Some(disk) = next.disk_mut(filled) {
                disk.role = DiskRole::Member;
            }
            let retired = old_disk.map(|disk| Retired { disk, slot });
            if let Some(old) = retired.filter(|_| next.backups.of_group(group.number).is_none()) {
                // It leaves in the next commit; a crash before that must not forget it.
                next.retired.insert(old.disk, (group.number, slot));
            }
            self.retire_under_shield(next, group.number, retired);
        });
        let swapped = swapped.await;
        group.set_swapping(slot, false);
        swapped?;
        let after = slot_of(&self.config.borrow());
        let in_place = after.is_some_and(|s| s.disk == filled && s.state == SlotState::InSync);
        let old = old_disk;
        if !in_place {
            self.put_back(group, slot, old, filled).await?;
            return Err(CommandError::Failed(format!("disk {filled} failed at the last moment")));
        }
        let Some(disk) = old else { return Ok(()) };
        if let Some(before_it) = before_it {
            self.test_or_keep(group, before_it);
        }
        self.retire(group, Retired { disk, slot }, filled, progress).await
    }

    /// The filled disk failed to take the configuration that made it the member: the old one, still in service and whole, is the
    /// member again. Writes since were not on it: they are caught up (rule M3).
    async fn put_back(
        self: &Rc<Self>,
        group: &Rc<Group<E>>,
        slot: Slot,
        old: Option<DiskNumber>,
        filled: DiskNumber,
    ) -> Result<(), CommandError> {
        let at = usize::from(slot.0);
        let Some(old) = old else { return Ok(()) };
        self.commit(|next| {
            let serves =
                next.disk(old).is_some_and(|d| d.in_service()) && next.slot_of(old).is_none();
            let Some(entry) = next.group_mut(group.number) else { return };
            if serves && entry.slots[at].state == SlotState::Out {
                let state =
                    if group.can_rebuild(slot) { SlotState::Catching } else { SlotState::InSync };
                entry.slots[at] = SlotEntry { disk: old, state, replacement: None };
            }
            if let Some(avoidance) = next.backups.of_group_mut(group.number)
                && avoidance.retiring.is_some_and(|retired| retired.disk == old)
            {
                avoidance.retiring = None;
                avoidance.state = AvoidanceState::Copying;
            }
        })
        .await?;
        let place = (group.number, slot);
        self.failed_fillers.borrow_mut().insert(place, filled);
        self.start_over(&self.config.borrow(), place);
        Ok(())
    }

    /// Flushes and clears intent bits of regions at rest, now and then.
    async fn sweep_now_and_then(self: Rc<Self>) {
        const EVERY_NS: u64 = 5_000_000_000;
        while !self.stopping.get() {
            self.sleep_unless_stopped(EVERY_NS).await;
            let _step = self.steps.one();
            let groups: Vec<_> = self.groups.borrow().values().cloned().collect();
            for group in groups {
                if self.stopping.get() {
                    return;
                }
                if group.is_closing() {
                    continue;
                }
                // What could not be flushed is told by the host's own flush, or by the next sweep's failures.
                let _ = group.sweep(false).await;
            }
        }
    }
}

fn word(kind: JobKind) -> &'static str {
    match kind {
        JobKind::Rebuild => "rebuild",
        JobKind::Replace => "replace",
        JobKind::Readd => "readd",
        JobKind::Resync => "resync",
        JobKind::Check => "check",
        JobKind::Repair => "repair",
        JobKind::WriteBack => "write-back",
        JobKind::Test => "test",
        JobKind::Mirror => "mirror",
    }
}
