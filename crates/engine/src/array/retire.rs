//! What becomes of a disk that was copied away: a last resort first, then tested, then a spare again or out (rule A4).
//!
//! Owns the retired disk. Invariants: it is only read until everything that was redirected is home; the destructive test begins only when no
//! configuration relies on the disk, nothing is under way on it and no block of its slot is lost; it becomes a spare again only by the same way as any disk that returns.

use std::rc::Rc;

use super::disks::hint;
use super::{Array, shelter};
use crate::buf::Buf;
use crate::config::{
    AvoidanceState, Configuration, DiskRole, DropReason, FailedTest, Retired, Service, SlotEntry,
};
use crate::drive::{Drive, Timed};
use crate::error::CommandError;
use crate::format::config::WHY_MAX;
use crate::group::{Away, Group};
use crate::ids::{DiskNumber, GroupNumber, Slot};
use crate::progress::Progress;
use crate::quorum::Stamp;
use crate::report::{JobKind, JobState, Severity};
use crate::runtime::{Env, Runtime};
use crate::words;

/// Bytes tested at once.
const PIECE: u64 = 1 << 20;

/// Time until a disk is asked for lost blocks again; doubled each time, up to the maximum.
const AGAIN_NS: u64 = 10_000_000_000;
const AGAIN_MAX_NS: u64 = 160_000_000_000;

impl<E: Env> Array<E> {
    /// Rules A3, A4: under a shield the old disk stays as a last resort, and updates go home once nothing is left to be filled.
    pub(super) fn retire_under_shield(
        &self,
        next: &mut Configuration,
        group: GroupNumber,
        old: Option<Retired>,
    ) {
        let whole = next.group(group).is_some_and(|g| g.slots.iter().all(SlotEntry::rests));
        let shelter = next.health.policy.shelter;
        let Configuration { groups, backups, .. } = next;
        let Some(avoidance) = backups.of_group_mut(group) else { return };
        let before = match old {
            Some(old) => avoidance.retiring.replace(old),
            None => None,
        };
        // Another slot was filled, and the ailing disk that gave rise to the shield still waits for its spare.
        let still_due = shelter
            && groups.iter().find(|g| g.number == group).is_some_and(|entry| {
                let disk = entry.slots[usize::from(avoidance.slot.0)].disk;
                shelter::waits(entry, avoidance) && self.is_ailing(disk)
            });
        if whole && !still_due {
            avoidance.state = AvoidanceState::WritingBack;
        }
        if let Some(before) = before {
            self.let_leave(next, group, before);
        }
    }

    /// A replaced disk leaves, and is to be tested: the slot that it had tells when that may begin, after a restart too.
    pub(super) fn let_leave(
        &self,
        next: &mut Configuration,
        group: GroupNumber,
        Retired { disk, slot }: Retired,
    ) {
        self.drop_disk(next, disk, DropReason::Replaced);
        next.retired.insert(disk, (group, slot));
    }

    /// A disk was replaced. Under a shield it stays in service (rule A4); else it is asked once more for what it could not give, and leaves.
    pub(super) async fn retire(
        self: &Rc<Self>,
        group: &Rc<Group<E>>,
        old: Retired,
        filled: DiskNumber,
        progress: &Progress,
    ) -> Result<(), CommandError> {
        let Retired { disk, slot } = old;
        let retiring = self.config.borrow().backups.of_group(group.number).and_then(|a| a.retiring);
        let shielded = retiring == Some(old);
        let drive = self.reachable(disk);
        if let Some(drive) = drive.filter(|_| !shielded) {
            let regained = self.regain(group, slot, &drive, &|| true).await;
            progress.lost.set(progress.lost.get().saturating_sub(regained));
        }
        let lost = match group.lost_in(slot) {
            0 => String::new(),
            lost => {
                format!("; {} of it could not be had and are lost", words::counted(lost, "block"))
            }
        };
        let what = format!("disk {disk} was replaced by disk {filled}{lost}");
        self.event(Severity::Info, "disk-replaced", Some(disk), Some(group.number), what);
        if !shielded {
            self.commit(|next| self.let_leave(next, group.number, old)).await?;
            self.test_or_keep(group, old);
        }
        Ok(())
    }

    /// The drive of a disk that answers still.
    fn reachable(&self, disk: DiskNumber) -> Option<Rc<Drive<E>>> {
        self.drives.borrow().get(&disk).filter(|drive| !drive.is_gone()).cloned()
    }

    /// Before anything is written home, or the disk is let go for another: blocks that neither the copy nor the peers could give are asked of the retired disk once
    /// more, before they are lost for good. Answers the retired disk, if there is one.
    pub(super) async fn retry_from_retired(
        self: &Rc<Self>,
        number: GroupNumber,
    ) -> Option<Retired> {
        let retired = self.avoidance(number)?.retiring?;
        let Retired { disk: old, slot } = retired;
        let drive = self.reachable(old);
        let (Some(drive), Ok(group)) = (drive, self.group(number)) else { return Some(retired) };
        self.regain(&group, slot, &drive, &|| true).await;
        Some(retired)
    }

    /// Asks a disk once more for what it could not give, and tells what it gave.
    pub(super) async fn regain(
        &self,
        group: &Rc<Group<E>>,
        slot: Slot,
        old: &Rc<Drive<E>>,
        is_old: &dyn Fn() -> bool,
    ) -> u64 {
        let regained = group.regain_lost(slot, old, is_old).await;
        if regained > 0 {
            let blocks = words::counted(regained, "block");
            let disk = old.number;
            let what = format!(
                "{blocks} of slot {slot} that had been listed lost with disk {disk} could be had after all"
            );
            self.event(Severity::Info, "lost-regained", Some(disk), Some(group.number), what);
        }
        regained
    }

    /// A disk that was replaced serves nobody any more: in the background it is tested. As long as blocks of its slot are
    /// lost it may be all that has them, and after a start nobody knows which: it is not written. It is asked for what it owes again and again, until it gives
    /// that, hosts write those blocks anew, or an operator takes the disk out.
    pub(super) fn test_or_keep(
        self: &Rc<Self>,
        group: &Rc<Group<E>>,
        Retired { disk, slot }: Retired,
    ) {
        let drive = self.reachable(disk);
        let Some(drive) = drive else { return };
        let (array, group) = (Rc::clone(self), Rc::clone(group));
        let retirement = self.begin_retirement(disk);
        self.rt.spawn(Box::pin(async move {
            let is_there = || array.groups.borrow().contains_key(&group.number);
            // A disk that came back meanwhile and was replaced once more is the matter of another task, and of another slot.
            let is_this = || {
                let last = array.retirements.borrow().get(&disk) == Some(&retirement);
                let place = array.config.borrow().retired.get(&disk).copied();
                last && array.is_replaced(disk)
                    && (place == Some((group.number, slot)) || !is_there())
            };
            let mut wait = AGAIN_NS;
            loop {
                if array.stopping.get() || !is_this() || drive.is_gone() {
                    return;
                }
                if !is_there() || !may_need_retired(&group, slot) {
                    break;
                }
                array.sleep_unless_stopped(wait).await;
                if array.stopping.get() {
                    return;
                }
                wait = (2 * wait).min(AGAIN_MAX_NS);
                let _step = array.steps.one();
                array.regain(&group, slot, &drive, &is_this).await;
            }
            // Host requests that began before the swap may still read the disk, or write it.
            group.those_before_have_ended().await;
            drive.rests().await;
            if is_this() {
                array.run_test(group.number, disk, &drive).await;
            }
        }));
    }

    /// Tells this retirement of a disk from those before and after.
    fn begin_retirement(&self, disk: DiskNumber) -> u64 {
        let mut retirements = self.retirements.borrow_mut();
        let retirement = retirements.entry(disk).or_default();
        *retirement += 1;
        *retirement
    }

    pub(super) fn is_being_tested(&self, disk: DiskNumber) -> bool {
        self.jobs.any_running(|job| job.kind == JobKind::Test && job.disk == Some(disk))
    }

    fn is_replaced(&self, disk: DiskNumber) -> bool {
        self.config.borrow().is_replaced(disk)
    }

    /// After a start: tests that a stop or a crash interrupted begin anew, as those of disks that were about to leave.
    pub(super) async fn take_up_tests(self: Rc<Self>) {
        let due = self.config.borrow().retired.clone();
        for (disk, (number, slot)) in due {
            let Ok(_turn) = self.turn().await else { return };
            if self.config.borrow().retired.get(&disk) != Some(&(number, slot)) {
                continue;
            }
            let old = Retired { disk, slot };
            if is_leaving(&self.config.borrow(), disk) {
                let left = self.commit(|next| {
                    if is_leaving(next, disk) {
                        self.let_leave(next, number, old);
                    }
                });
                if left.await.is_err() {
                    continue; // It is in service as it was: the next start sees to it.
                }
            }
            if let Some(what) = self.take_up_test(number, old, "that had not ended").await {
                self.event(Severity::Info, "retired-returned", Some(disk), None, what);
            }
        }
    }

    /// Tests a replaced disk from the start, or keeps it; answers which in words, or nothing if it is not open. `since` says why it is tested now.
    pub(super) async fn take_up_test(
        self: &Rc<Self>,
        number: GroupNumber,
        old: Retired,
        since: &str,
    ) -> Option<String> {
        let Retired { disk, slot } = old;
        let group = self.group(number).ok()?;
        if !self.is_replaced(disk) || !self.drives.borrow().contains_key(&disk) {
            return None;
        }
        let as_it_left = self.is_as_it_left(disk).await;
        self.at_start.borrow_mut().remove(&disk);
        let what = match as_it_left {
            Ok(()) => {
                self.test_or_keep(&group, old);
                match group.lost_in(slot) {
                    0 if may_need_retired(&group, slot) => {
                        format!("is kept as it is until group {number} answers")
                    }
                    0 => format!("is tested from the start: {since}"),
                    lost => format!(
                        "is kept as it is: {} of slot {slot} of group {number} are lost and may be on it alone",
                        words::counted(lost, "block")
                    ),
                }
            }
            Err(why) => format!("is not tested: {why}"),
        };
        Some(format!("disk {disk} ({}), which was copied away, {what}", self.path_of(disk)))
    }

    /// Opens a replaced disk that the start found, if it holds what it had when it left: one that was put back to an older image, or went on alone,
    /// may have what somebody wants.
    async fn is_as_it_left(&self, disk: DiskNumber) -> Result<(), String> {
        let drive = self.drives.borrow().get(&disk).cloned().ok_or("it is not there")?;
        if drive.late_requests() > 0 {
            return Err("requests to it that timed out are still under way".into());
        }
        if !drive.is_gone() {
            return Ok(());
        }
        let config = self.config.borrow().clone();
        let service = config.disk(disk).map(|entry| entry.service);
        let Some(Service::Dropped { history, generation, .. }) = service else {
            return Err("it is in use".into());
        };
        let known = Stamp { history, generation };
        match self.holds_enough(&config, &drive, known).await {
            Ok(true) => drive.revive(),
            Ok(false) => Err("it holds an older state than it had".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn run_test(self: Rc<Self>, group: GroupNumber, disk: DiskNumber, drive: &Rc<Drive<E>>) {
        // What it held is overwritten from now on.
        self.groups.borrow().values().for_each(|group| group.owes_nothing(disk));
        let total = drive.layout.data.len / PIECE * PIECE;
        let progress = Progress::new(2 * total, 0, self.rt.now_ns());
        let job = self.begin_job(JobKind::Test, group, Some(disk), Rc::clone(&progress));
        let verdict = self.test(disk, drive, total, &progress).await;
        let mut failed = None;
        let (state, message) = match verdict {
            Ok(true) => match self.offer_again(disk).await {
                Ok(()) => {
                    (JobState::Done, "it reads and writes as it should, and is a spare".into())
                }
                Err(_) if self.stopping.get() => {
                    (JobState::Stopped, "passed as the array stopped: it is tested again".into())
                }
                Err(error) => (JobState::Failed, format!("passed, and not made a spare: {error}")),
            },
            Ok(false) if self.stopping.get() => {
                (JobState::Stopped, "starts over at the next start".into())
            }
            Ok(false) => (JobState::Stopped, "stopped: it stays replaced".into()),
            Err(_) if !self.is_replaced(disk) => {
                (JobState::Stopped, "it was taken out meanwhile".into())
            }
            Err(why) => {
                self.distrust(disk);
                failed = Some(hint(&why, WHY_MAX));
                (JobState::Failed, format!("{why}: take it out and throw it away"))
            }
        };
        let goes_on = state == JobState::Stopped && self.stopping.get();
        if state != JobState::Done && !goes_on {
            // With the verdict. If it is not kept, the next start tests once more.
            let ended = self.commit(|next| {
                if let Some((group, slot)) = next.retired.remove(&disk)
                    && let Some(why) = failed
                {
                    next.failed_tests.insert(disk, FailedTest { group, slot, why });
                }
                self.keep_health(next);
            });
            let _ = ended.await;
        }
        self.end_job(&job, state, message.clone());
        let (severity, kind, how) = match state {
            JobState::Failed => (Severity::Warning, "retired-failed-test", "failed the test"),
            JobState::Done => (Severity::Info, "retired-tested", "passed the test"),
            _ => (Severity::Info, "retired-tested", "was not tested to the end"),
        };
        let what = format!("disk {disk}, which was copied away, {how}: {message}");
        self.event(severity, kind, Some(disk), None, what);
    }

    /// A disk that passed comes back as any disk that was away does. What it was suspected of stays with it, from before it is a spare; its bucket
    /// starts anew.
    async fn offer_again(self: &Rc<Self>, disk: DiskNumber) -> Result<(), CommandError> {
        self.trust_again(disk).await?;
        self.readd_disk(disk, None).await
    }

    /// Writes a pattern everywhere, flushes, reads it back. `Ok(false)`: asked to stop, or the disk was given another use.
    async fn test(
        &self,
        disk: DiskNumber,
        drive: &Rc<Drive<E>>,
        total: u64,
        progress: &Progress,
    ) -> Result<bool, String> {
        let goes_on = || !progress.stop.get() && !self.stopping.get() && self.is_replaced(disk);
        let salt = self.rt.random_u64();
        for at in (0..total).step_by(PIECE as usize) {
            if !goes_on() {
                return Ok(false);
            }
            match drive.write_data(at, pattern(salt, at)).await {
                Timed::Done(Ok(())) => {}
                Timed::Done(Err(fault)) => return Err(format!("{fault} on write at {at}")),
                Timed::Late(request) => {
                    drive.abandon(request, crate::drive::Request::Write);
                    return Err(format!("a write at {at} timed out"));
                }
            }
            progress.done.set(at + PIECE);
            progress.pace(&self.rt, PIECE).await;
        }
        drive.flush().await.map_err(|fault| format!("{fault} on flush"))?;
        for at in (0..total).step_by(PIECE as usize) {
            if !goes_on() {
                return Ok(false);
            }
            let read = drive.read_data(at, Buf::scratch(PIECE as usize)).await;
            let read = read.map_err(|fault| format!("{fault} on read at {at}"))?;
            if read[..] != pattern(salt, at)[..] {
                return Err(format!("at {at} it gave back something else than was written"));
            }
            progress.done.set(total + at + PIECE);
            progress.pace(&self.rt, PIECE).await;
        }
        Ok(true)
    }
}

/// Whether a member was replaced, and a crash came before it left.
fn is_leaving(config: &Configuration, disk: DiskNumber) -> bool {
    let serves = config.disk(disk).is_some_and(|d| d.role == DiskRole::Member && d.in_service());
    serves && config.slot_of(disk).is_none() && config.backups.retiring_in(disk).is_none()
}

/// What comes back, fails or is taken out is not tested any more, nor what served a group that is gone. A test that was failed is remembered as long as
/// the disk is not used.
pub(super) fn forget_used(next: &mut Configuration) {
    let due = |disk, group| {
        next.group(group).is_some() && (next.is_replaced(disk) || is_leaving(next, disk))
    };
    let due = next.retired.iter().filter(|(disk, (group, _))| due(**disk, *group));
    next.retired = due.map(|(disk, served)| (*disk, *served)).collect();
    let failed = next.failed_tests.iter();
    let failed = failed.filter(|(disk, _)| next.is_replaced(**disk));
    next.failed_tests = failed.map(|(disk, test)| (*disk, test.clone())).collect();
}

/// Whether a disk that had a slot may be all that has some of it: blocks are lost, or the group cannot give everything now.
pub(super) fn may_need_retired<E: Env>(group: &Group<E>, slot: Slot) -> bool {
    group.away() != Away::Here || !group.answers() || group.lost_in(slot) > 0
}

/// A piece that is like no other place's and no other test's (SplitMix64).
fn pattern(salt: u64, at: u64) -> Buf {
    let mut buf = Buf::scratch(PIECE as usize);
    for (i, word) in buf.bytes_mut().chunks_exact_mut(8).enumerate() {
        let mut x = salt ^ (at + i as u64 * 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word.copy_from_slice(&(x ^ (x >> 31)).to_le_bytes());
    }
    buf
}
