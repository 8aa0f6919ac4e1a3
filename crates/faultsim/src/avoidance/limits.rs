//! Stories of limits that an operator gave to a copy: how long they count, and what they never hold up.
//!
//! Owns the scripts; the list is in `avoidance.rs`. Invariant: a limit is so low that a copy which kept it would outlast the story.

use forestall_engine::{
    AssembleOptions, BLOCK_SIZE, DiskNumber, DiskReport, DiskState, JobKind, JobReport, JobState,
    Level, Runtime, Strategy,
};

use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_sized};
use crate::shield::{SECOND, stage};
use crate::trace::Trace;

/// Bytes a second: one window of a copy takes minutes.
const TRICKLE: u64 = 400;

impl Script {
    fn running(&self, kind: JobKind) -> Option<JobReport> {
        let jobs = self.machine.array.jobs();
        jobs.into_iter().find(|job| job.kind == kind && job.state == JobState::Running)
    }

    /// No rebuild so far, running or ended, had a limit.
    fn no_rebuild_was_limited(&self) {
        let jobs = self.machine.array.jobs();
        if let Some(job) = jobs.iter().find(|j| j.kind == JobKind::Rebuild && j.limit > 0) {
            self.machine.complain(format!("a rebuild was limited: {job:?}"));
        }
    }

    fn must_say(&self, what: &str) {
        let problems = self.machine.array.report().problems;
        if !problems.iter().any(|p| p.action.contains(what)) {
            self.machine.complain(format!("{what:?} is not told: {problems:?}"));
        }
    }

    async fn trickling_copy(&mut self) {
        self.add_work_disk(2).await;
        self.scribble(60).await;
        self.replace(1, TRICKLE, Strategy::WorkDisk).await;
        self.copying().await;
        self.await_that("the copy's job", |s| s.running(JobKind::Replace).is_some()).await;
    }
}

/// Another member fails while a copy trickles: the limit does not count any more, the spare takes the place soon, and all of it is told.
pub(super) fn copy_is_hastened(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.trickling_copy().await;
        s.kill("d2");
        s.verify().await;
        s.await_that("the word that it is hastened", |s| s.event("copy-hastened")).await;
        if let Some(copy) = s.running(JobKind::Replace) {
            if !copy.message.contains("does not count") {
                s.machine.complain(format!("the job does not say so: {copy:?}"));
            }
            s.must_say(&format!("takes its place once job {} of this group has ended", copy.id));
        }
        s.whole_again().await;
        s.no_rebuild_was_limited();
        s.verify().await;
        s.machine.audit().await;
    });
    act(&mut stage, degraded(), |s| async move { s.verify().await });
}

/// The copied disk dies, and the disk that was to take its place: the rebuild to the next keeps no limit of the copy, nor does a start in between.
pub(super) fn limit_ends_with_its_copy(seed: u64, trace: Trace) {
    for restarts in [false, true] {
        let mut stage = stage(seed, &trace, Level::Raid5, 3);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.trickling_copy().await;
            s.kill("d1");
            s.verify().await;
            s.kill("d4");
            s.await_that("the end of the disk that was filled", |s| {
                let report = s.machine.array.report();
                let state =
                    |d: &DiskReport| d.number == DiskNumber(4) && d.state == DiskState::Failed;
                restarts || report.disks.iter().any(state)
            })
            .await;
            if !restarts {
                s.whole_again().await;
            }
            s.no_rebuild_was_limited();
        });
        act(&mut stage, degraded(), |s| async move {
            s.whole_again().await;
            s.expect(5, DiskState::InSync).await;
            s.no_rebuild_was_limited();
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

/// The limit of a copy is changed: the next start knows that one, and none if it was taken away.
pub(super) fn changed_limit_is_kept(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.trickling_copy().await;
        s.change_limit(TRICKLE + 1).await;
    });
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.await_that("the copy's job", |s| s.running(JobKind::Replace).is_some()).await;
        let limit = s.running(JobKind::Replace).map(|job| job.limit);
        if limit != Some(TRICKLE + 1) {
            s.machine.complain(format!("the limit after the start is {limit:?}"));
        }
        s.change_limit(0).await;
        s.whole_and_sound().await;
    });
}

/// A second replacement in the group waits for the first: it is told its own job, and which one comes first.
pub(super) fn queued_copy_has_its_number(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        let other = s.add_group(Level::Raid1, 2, 2 << 20).await;
        s.trickling_copy().await;
        let first = s.running(JobKind::Replace).map_or(0, |job| job.id);
        let array = &s.machine.array;
        let queued = s.must(array.replace(DiskNumber(2), None, 0).await, "replace 2");
        // Work elsewhere, which begins before it, has another number.
        let check = s.must(array.scrub(other, false, 0).await, "check");
        let before = array.work_before(DiskNumber(2));
        if queued == first || queued == check || before != Some(first) {
            s.machine.complain(format!("job {queued} waits for {before:?}, not for {first}"));
        }
        s.change_limit(0).await;
        s.whole_again().await;
        let own = |j: &JobReport| j.id == queued && j.disk == Some(DiskNumber(5));
        let jobs = s.machine.array.jobs();
        if !jobs.iter().any(own) {
            s.machine.complain(format!("job {queued} did not fill disk 5: {jobs:?}"));
        }
        s.verify().await;
    });
}

impl Script {
    async fn change_limit(&self, rate: u64) {
        let job = self.running(JobKind::Replace).map_or(0, |job| job.id);
        self.must(self.machine.array.limit_job(job, rate).await, "jobs --limit");
    }
}

/// A limit comes while a window is written and the next one is read already: hosts do not wait for what the copy waits for.
pub(super) fn new_limit_holds_no_rows(seed: u64, trace: Trace) {
    for delay in (1..40).step_by(3) {
        let mut stage = stage_sized(seed, trace.clone(), Level::Raid1, 2, 1, 64 << 20);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.write(0, s.size()).await;
            s.flush().await;
            s.replace(1, 0, Strategy::Direct).await;
            s.machine.pause(delay * 1_700_000).await;
            let Some(job) = s.running(JobKind::Replace) else { return };
            s.must(s.machine.array.limit_job(job.id, TRICKLE).await, "jobs --limit");
            for at in (0..s.size()).step_by(256 << 10) {
                let begun = s.machine.runtime.now_ns();
                s.write(at, BLOCK_SIZE).await;
                let took = s.machine.runtime.now_ns() - begun;
                if took > 2 * SECOND {
                    s.machine.complain(format!("a write waited for {} ms", took / 1_000_000));
                }
            }
        });
    }
}
