//! Committing configurations (rules C1, C2, C3).
//!
//! Owns the write path of the configuration. Invariants: commits take turns; a generation is written whole to the older slot of every
//! disk it lists in service and flushed before it counts; no state takes effect before its generation counts; a disk that cannot take it
//! is dropped in the next; a list that rule C2 forbids pauses host I/O until an operator says go on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Array, retire};
use crate::buf::Buf;
use crate::config::{
    AvoidanceEntry, AvoidanceState, Configuration, DiskRole, DropReason, Service, SlotState,
};
use crate::drive::Drive;
use crate::error::CommandError;
use crate::format::config as bytes;
use crate::ids::DiskNumber;
use crate::quorum::{Short, Stamp, may_commit, successor, wants_seal};
use crate::report::Severity;
use crate::runtime::{Env, Runtime};
use crate::sync::join_all;

/// Bytes that dropping one disk may add to the configuration.
const RESERVE_PER_DISK: u64 = 64;

/// Time limits that a commit waits for a disk that cannot be spared.
const PATIENCE: u32 = 5;

impl<E: Env> Array<E> {
    /// Changes the configuration and makes it count. Failing disks are dropped first, in a generation of their own, since a commit that
    /// adds disks drops none (rule C2).
    pub(super) async fn commit(
        self: &Rc<Self>,
        change: impl FnOnce(&mut Configuration),
    ) -> Result<(), CommandError> {
        let _turn = self.commit_turn.lock().await;
        if !self.failing.borrow().is_empty() {
            let next = self.next_configuration();
            self.write_until_counts(next).await?;
        }
        let mut next = self.next_configuration();
        change(&mut next);
        forget_rates(&mut next);
        retire::forget_used(&mut next);
        self.check_room(&next)?;
        self.write_until_counts(next).await
    }

    /// Writes `next` (rule C4's commit at assembly), and once more: only then do the disks themselves tell that it counted, so that one
    /// that is put back to an image from before this run is recognised.
    pub(super) async fn commit_exactly(
        self: &Rc<Self>,
        next: Configuration,
    ) -> Result<(), CommandError> {
        let _turn = self.commit_turn.lock().await;
        // Whoever starts an array has said what may be missing: nobody could be asked before it runs (rule C4).
        self.leave.set(true);
        let written = self.write_until_counts(next).await;
        let sealed = if written.is_ok() {
            self.write_until_counts(self.next_configuration()).await
        } else {
            written
        };
        self.leave.set(false);
        sealed
    }

    /// Drops what has failed, if it is not dropped yet.
    pub(super) async fn commit_failures(self: &Rc<Self>) -> Result<(), CommandError> {
        let _turn = self.commit_turn.lock().await;
        if self.failing.borrow().is_empty() {
            return Ok(());
        }
        let next = self.next_configuration();
        self.write_until_counts(next).await
    }

    /// What counts now, numbered to follow what was written last.
    fn next_configuration(&self) -> Configuration {
        let numbered = successor(&self.written.borrow(), self.counted.get());
        let mut next = self.config.borrow().clone();
        next.generation = numbered.generation;
        next.uncounted = numbered.uncounted;
        next.counted_generation = numbered.counted_generation;
        next
    }

    pub(super) fn encoded(&self, config: &Configuration) -> Result<Buf, String> {
        bytes::encode(config, self.slot_len()).map_err(|e| e.to_string())
    }

    /// Bytes of the smallest configuration slot.
    fn slot_len(&self) -> u64 {
        self.drives.borrow().values().map(|d| d.layout.config[0].len).min().unwrap_or(u64::MAX)
    }

    /// What a command makes must leave room for what failures add later: records of dropped disks and their lists.
    fn check_room(&self, config: &Configuration) -> Result<(), CommandError> {
        let refused = |e: bytes::EncodeError| CommandError::Refused(e.to_string());
        let used = bytes::encode(config, u64::MAX).map_err(refused)?.len() as u64;
        let slot = self.slot_len();
        let reserve = (config.disks.len() as u64 * RESERVE_PER_DISK).min(slot / 4);
        if used + reserve > slot {
            return Err(CommandError::Refused(format!(
                "the configuration would need {used} bytes of the {slot} that the smallest disk keeps for it, and {reserve} are kept for \
                 failures: fewer disks, groups, volumes or extents fit"
            )));
        }
        Ok(())
    }

    async fn write_until_counts(
        self: &Rc<Self>,
        mut next: Configuration,
    ) -> Result<(), CommandError> {
        loop {
            self.drop_failing(&mut next);
            next.committed_at_ms = self.rt.unix_ms();
            let list: Vec<DiskNumber> = next.in_service().collect();
            if list.is_empty() {
                self.halt();
                return Err(CommandError::Failed(
                    "no disk of the array takes a configuration any more".into(),
                ));
            }
            self.wait_for_leave(&list).await?;
            let buf = self.encoded(&next).map_err(CommandError::Failed)?;
            let failed = self.write_everywhere(&next, &list, buf).await;
            *self.written.borrow_mut() = next.clone();
            self.counted.set(failed.is_empty());
            if !failed.is_empty() {
                for (disk, reason) in failed {
                    self.note_failing(disk, reason, DropReason::Failed);
                }
                let numbered = successor(&next, false);
                (next.generation, next.uncounted) = (numbered.generation, numbered.uncounted);
                continue;
            }
            let before = self.config.replace(next.clone());
            self.note_lost_fillers(&before, &next);
            self.apply();
            if !wants_seal(&next) {
                return Ok(());
            }
            next = successor(&next, true);
        }
    }

    /// Rule C3: a list that keeps too few of the last ones waits for `group continue`, and hosts wait with it.
    async fn wait_for_leave(self: &Rc<Self>, list: &[DiskNumber]) -> Result<(), CommandError> {
        let Err(short) = may_commit(&self.written.borrow(), self.counted.get(), list) else {
            return Ok(());
        };
        if matches!(short, Short::AddsAndDrops { .. }) {
            self.tend_failures();
            return Err(CommandError::Failed(
                "another disk failed meanwhile and is dropped first: try again".into(),
            ));
        }
        if self.leave.get() {
            return Ok(());
        }
        self.pause_groups(true);
        self.event(
            Severity::Critical,
            "array-paused",
            None,
            None,
            format!(
                "host I/O is paused: too many disks failed at once ({short}). Bring disks back and restart, or give up the \
                 missing ones with `forestall group continue N`"
            ),
        );
        self.changed.notify();
        self.left.wait_until(|| self.leave.replace(false)).await;
        self.pause_groups(false);
        self.event(
            Severity::Warning,
            "array-continued",
            None,
            None,
            "host I/O goes on with the disks that are left".into(),
        );
        Ok(())
    }

    /// Writes one generation to all of `list`; answers the disks that did not take it.
    pub(super) async fn write_everywhere(
        &self,
        config: &Configuration,
        list: &[DiskNumber],
        buf: Buf,
    ) -> Vec<(DiskNumber, String)> {
        let drives: Vec<Option<Rc<Drive<E>>>> =
            list.iter().map(|number| self.drives.borrow().get(number).cloned()).collect();
        let results =
            join_all(drives.iter().map(|drive| self.write_slot(drive.as_ref(), buf.clone()))).await;
        let stamp = Stamp::of(config);
        let mut failed = Vec::new();
        for ((number, drive), result) in list.iter().zip(drives).zip(results) {
            match (result, drive) {
                (Ok(()), Some(_)) => {
                    self.holds.borrow_mut().insert(*number, stamp);
                }
                (Ok(()), None) => failed.push((*number, "it is not open".into())),
                (Err(fault), _) => failed.push((*number, fault)),
            }
        }
        failed
    }

    /// Rule C1: written whole into the older slot, then flushed; until that is done, the same slot stays the older one. A disk whose group cannot spare it is waited for longer.
    async fn write_slot(&self, drive: Option<&Rc<Drive<E>>>, buf: Buf) -> Result<(), String> {
        let drive = drive.ok_or("it is not open")?;
        let at = drive.config_slot.get();
        let slot = drive.layout.config[at];
        let patience = Cell::new(PATIENCE);
        let give_up = || {
            patience.set(patience.get().saturating_sub(1));
            patience.get() == 0 || !self.groups.borrow().values().any(|g| g.needs(drive.number))
        };
        let wrote = drive.write_meta_or(slot.offset, buf, give_up).await;
        wrote.map_err(|f| format!("{f} on writing its configuration"))?;
        let flushed = drive.flush_or(give_up).await;
        flushed.map_err(|f| {
            let why = format!("{f} on flushing its configuration");
            // Drawn at once, not when the slowest disk has answered: what the drive lost must not be read (rule F2).
            let groups: Vec<_> = self.groups.borrow().values().cloned().collect();
            for group in groups {
                group.flush_failed(drive, why.clone());
            }
            why
        })?;
        drive.config_slot.set(1 - at);
        Ok(())
    }

    /// Takes every failing disk out of `next`.
    fn drop_failing(&self, next: &mut Configuration) {
        let failing = self.failing.borrow().clone();
        self.note_last_legs(next, &failing);
        for (disk, reason) in failing {
            self.drop_disk(next, disk, reason);
            if self.untrusted.borrow().contains(&disk)
                && let Some(entry) = next.disk_mut(disk)
            {
                entry.role = DiskRole::Spare;
            }
        }
    }

    /// Of a set whose legs all leave, the one that was asked to the end stands first: a start reads the log from there.
    fn note_last_legs(&self, next: &mut Configuration, failing: &BTreeMap<DiskNumber, DropReason>) {
        let disks = &next.disks;
        let serves = |leg: &DiskNumber| disks.iter().any(|d| d.number == *leg && d.in_service());
        for work in next.backups.work.iter_mut().filter(|work| work.log != 0) {
            let serving: Vec<DiskNumber> = work.legs.iter().copied().filter(serves).collect();
            if serving.is_empty() || !serving.iter().all(|leg| failing.contains_key(leg)) {
                continue;
            }
            let logs = self.logs.borrow();
            let asked = |leg: &&DiskNumber| {
                logs.get(&work.place).is_some_and(|log| log.space().is_last_leg(**leg))
            };
            let last = *serving.iter().find(asked).unwrap_or(&serving[0]);
            work.legs.sort_by_key(|leg| *leg != last);
        }
    }

    /// Marks a disk dropped and its slots out.
    pub(super) fn drop_disk(&self, next: &mut Configuration, disk: DiskNumber, reason: DropReason) {
        let now = self.rt.unix_ms();
        let held = self.holds.borrow().get(&disk).copied();
        let Some(entry) = next.disk_mut(disk) else { return };
        if entry.in_service() {
            let stamp = held.unwrap_or_else(|| Stamp::of(&self.config.borrow()));
            entry.service = Service::Dropped {
                history: stamp.history,
                generation: stamp.generation,
                reason,
                at_ms: now,
            };
        }
        take_out_of_slots(next, disk);
    }

    /// Notes a drive that was given up; it is dropped with the next commit.
    pub(super) fn note_failing(&self, disk: DiskNumber, reason: String, drop: DropReason) {
        if self.logs.borrow().values().any(|log| log.space().is_last_leg(disk)) {
            // It goes on being asked for what was redirected to it, until that is home.
            self.failing.borrow_mut().insert(disk, drop);
            return self.alarm(disk, &reason);
        }
        let drive = self.drives.borrow().get(&disk).cloned();
        if let Some(drive) = drive {
            drive.retire();
        }
        let group = self.config.borrow().slot_of(disk).map(|(group, _)| group);
        if self.failing.borrow_mut().insert(disk, drop).is_none() {
            self.event(
                Severity::Warning,
                "disk-failed",
                Some(disk),
                group,
                format!("disk {disk} ({}) is no longer used: {reason}", self.path_of(disk)),
            );
        }
    }
}

/// A pause goes with its copy. A limit goes with the fill it was asked for. While the group is shielded for a copy the next spare is filled no faster; what began as a copy
/// and has become a rebuild, or is one, is not held up by it.
fn forget_rates(next: &mut Configuration) {
    let Configuration { groups, backups, .. } = next;
    backups.paused.retain(|(number, slot)| {
        let group = groups.iter().find(|g| g.number == *number);
        let slot = group.and_then(|g| g.slots.get(usize::from(slot.0)));
        slot.is_some_and(|slot| slot.copied_to().is_some())
    });
    for avoidance in &mut backups.avoidances {
        avoidance.paused = backups.paused.contains(&(avoidance.group, avoidance.slot));
    }
    let avoidances = &backups.avoidances;
    backups.rates.retain(|(number, rated), _| {
        let group = groups.iter().find(|g| g.number == *number);
        let slot = group.and_then(|g| g.slots.get(usize::from(rated.0)));
        let copies_on = |a: &AvoidanceEntry| {
            (a.group, a.slot) == (*number, *rated) && a.state != AvoidanceState::WritingBack
        };
        slot.is_some_and(|s| match s.state {
            SlotState::InSync => s.replacement.is_some() || avoidances.iter().any(copies_on),
            SlotState::Rebuilding | SlotState::Catching => true,
            SlotState::Out => false,
        })
    });
}

/// Every slot that relied on `disk` stands without it.
pub(super) fn take_out_of_slots(next: &mut Configuration, disk: DiskNumber) {
    for slot in next.groups.iter_mut().flat_map(|g| &mut g.slots) {
        if slot.disk == disk {
            slot.state = SlotState::Out;
        }
        if slot.replacement == Some(disk) {
            slot.replacement = None;
        }
    }
}
