//! Stories of the test of a disk that was copied away, and of stops and crashes in the middle of it.
//!
//! Owns the scripts; the list is in `avoidance.rs`. Invariants: a test that did not end begins again at the next start, one that ended does not; a disk that
//! may be all that has a lost block is not written, whatever was forgotten with a stop; nobody is told to bring an untested disk back.

use forestall_engine::health::Mode;
use forestall_engine::{
    AssembleOptions, BLOCK_SIZE, DiskNumber, DiskState, GroupNumber, JobKind, JobReport, JobState,
    Level, ProblemKind, Strategy,
};

use super::events::spoil;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_sized};
use crate::shield::{SECOND, stage};
use crate::stage::{RunEnd, Stage};
use crate::trace::Trace;

/// So slow that a test lasts for minutes.
const CRAWL: u64 = 16 << 10;
/// Bytes of a disk that is tested in several pieces.
const LARGE: u64 = 6 << 20;

impl Script {
    fn test_of(&self, disk: u32) -> Option<JobReport> {
        let mut jobs = self.machine.array.jobs().into_iter();
        jobs.rfind(|job| job.kind == JobKind::Test && job.disk == Some(DiskNumber(disk)))
    }

    fn is_under_test(&self, disk: u32) -> bool {
        self.test_of(disk).is_some_and(|job| job.state == JobState::Running)
    }

    /// Disk `disk` is copied away, and its test is held up in the middle.
    async fn in_mid_test(&self, disk: u32, strategy: Strategy) {
        self.replace(disk, 0, strategy).await;
        self.hold_up_the_test(disk).await;
    }

    /// Waits for the test of a disk, which does not end by itself for a long time then.
    async fn hold_up_the_test(&self, disk: u32) {
        for _ in 0..1_000_000 {
            if self.is_under_test(disk) {
                break;
            }
            self.machine.pause(20_000).await;
        }
        let job = self.test_of(disk).map_or(0, |job| job.id);
        self.must(self.machine.array.limit_job(job, CRAWL).await, "jobs --limit");
        self.machine.pause(1_000_000_000).await;
        if !self.test_of(disk).is_some_and(|job| {
            job.state == JobState::Running && (1..job.total_bytes).contains(&job.done_bytes)
        }) {
            self.machine.complain(format!("no test in the middle: {:?}", self.test_of(disk)));
        }
    }

    /// The first disk is copied away, and does not pass the test that follows.
    async fn fail_the_test_of_d1(&self) {
        let first = self.bay("d1");
        first.suspect.set(true);
        let size = first.drive.size();
        first.drive.faults_mut().protect(size / 2..size);
        self.replace(1, 0, Strategy::Direct).await;
        self.await_that("the end of the test", |s| {
            s.test_of(1).is_some_and(|job| job.state == JobState::Failed)
        })
        .await;
    }

    /// What the status tells to do about a disk that was replaced.
    fn advice_on(&self, disk: u32) -> Option<String> {
        let report = self.machine.array.report();
        let of_disk = |what: &str| what.starts_with(&format!("disk {disk} "));
        let mut problems = report.problems.into_iter();
        let found = problems.find(|p| p.kind == ProblemKind::DiskSpent && of_disk(&p.what));
        found.map(|problem| problem.action)
    }

    /// Nobody is told to bring the disk back, or to take it out, before it was tested.
    fn advice_waits(&self, disk: u32) {
        let returned = self.machine.array.events_after(0);
        let returned = returned.iter().rfind(|event| event.kind == "disk-returned");
        let advice = self.advice_on(disk).unwrap_or_default();
        if returned.is_some() || advice.contains("readd") || advice.contains("disk remove") {
            self.machine
                .complain(format!("told before the test has ended: {advice:?}, {returned:?}"));
        }
    }

    async fn readd_is_refused(&self, disk: u32) {
        let readded = self.machine.array.readd_disk(DiskNumber(disk), None).await;
        self.must_refuse(readded, "failed the test after it was replaced");
    }

    fn expect_no_spare(&self, disk: u32) {
        if !self.in_state(disk, DiskState::Replaced) {
            self.machine.complain(format!("disk {disk} is used before it was tested"));
        }
    }

    async fn is_spare_by_itself(&self, disk: u32) {
        let what = format!("disk {disk} as a spare");
        self.await_that(&what, |s| s.in_state(disk, DiskState::Spare)).await;
        let report = self.machine.array.report();
        let entry = report.disks.iter().find(|d| d.number == DiskNumber(disk));
        if !entry.is_some_and(|d| d.notes.iter().any(|note| note.contains("once suspected"))) {
            self.machine.complain(format!("it is not marked: {entry:?}"));
        }
    }
}

pub(super) fn test_goes_on_after_a_stop(seed: u64, trace: Trace) {
    for strategy in [Strategy::Direct, Strategy::WorkDisk] {
        for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 3)] {
            let mut stage = stage_sized(seed, trace.clone(), level, members, 2, LARGE);
            act(&mut stage, AssembleOptions::default(), move |s| async move {
                s.add_work_disk(2).await;
                s.write(0, s.size()).await;
                s.flush().await;
                s.in_mid_test(1, strategy).await;
                s.advice_waits(1);
            });
            // Stopped in the middle of it; now a crash.
            stage.run(AssembleOptions::default(), None, |machine| async move {
                let s = Script::new(&machine);
                s.advice_waits(1);
                s.hold_up_the_test(1).await;
                s.advice_waits(1);
            });
            stage.end(false);
            act(&mut stage, AssembleOptions::default(), |s| async move {
                s.advice_waits(1);
                s.is_spare_by_itself(1).await;
                s.verify().await;
                s.machine.audit().await;
                // It takes a place as any spare does.
                s.must(s.machine.array.remove_disk(unused_spare(&s)).await, "disk remove");
                s.replace(2, 0, Strategy::Direct).await;
                s.await_that("the copy", |s| s.in_state(1, DiskState::InSync)).await;
                s.is_spare_by_itself(2).await;
                s.verify().await;
            });
        }
    }
}

/// The spare that no copy was made to.
fn unused_spare(s: &Script) -> DiskNumber {
    let report = s.machine.array.report();
    let spare = |d: &&forestall_engine::DiskReport| {
        d.state == DiskState::Spare && d.number != DiskNumber(1)
    };
    report.disks.iter().find(spare).expect("a second spare").number
}

pub(super) fn swap_cut_before_it_leaves(seed: u64, trace: Trace) {
    let ready = |trace: &Trace| -> Stage {
        let mut stage = stage(seed, trace, Level::Raid5, 3);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
            s.write(0, s.size()).await;
        });
        stage
    };
    // The step at which the test is seen; the same seed takes the same steps again.
    let to_the_test = |stage: &mut Stage, cut| {
        stage.run(AssembleOptions::default(), cut, |machine| async move {
            let s = Script::new(&machine);
            s.replace(1, 0, Strategy::Direct).await;
            s.await_that("the test", |s| s.is_under_test(1)).await;
        })
    };
    let RunEnd::Completed(seen) = to_the_test(&mut ready(&trace), None) else { return };
    for cut in (seen.saturating_sub(400)..seen).step_by(8) {
        let mut stage = ready(&trace);
        to_the_test(&mut stage, Some(cut));
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.verify().await;
            s.machine.quiet().await;
            // Before the copy began there is nothing to retire.
            if !s.in_state(1, DiskState::InSync) {
                s.is_spare_by_itself(1).await;
            }
            s.machine.audit().await;
        });
    }
}

pub(super) fn owing_disk_over_a_restart(seed: u64, trace: Trace) {
    for orderly in [true, false] {
        let mut stage = stage(seed, &trace, Level::Raid1, 2);
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            s.must(machine.array.set_mode(Mode::Advise).await, "policy set advise");
            s.write(0, s.size()).await;
            s.flush().await;
            for disk in ["d1", "d2"] {
                spoil(&s, disk, 1 << 17, 3 * BLOCK_SIZE);
            }
            s.replace(1, 0, Strategy::Direct).await;
            s.await_that("the swap", |s| s.in_state(1, DiskState::Replaced)).await;
            machine.quiet().await;
            if orderly {
                machine.stop().await;
            }
        });
        stage.end(orderly);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            let lost = s.unreadable().await;
            let listed = s.machine.array.report().groups[0].lost_blocks;
            s.machine.pause(1000 * 1_000_000_000).await;
            let advice = s.advice_on(1).unwrap_or_default();
            let is_kept = s.in_state(1, DiskState::Replaced) && s.test_of(1).is_none();
            let told =
                advice.starts_with("keep it") && advice.contains(&format!("{listed} blocks"));
            if lost.is_empty() || !is_kept || !told || advice.contains("disk remove") {
                s.machine.complain(format!("{lost:?}, kept {is_kept}: {advice}"));
            }
            for block in lost {
                s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
            }
            s.flush().await;
            s.is_spare_by_itself(1).await;
            s.verify().await;
        });
    }
}

pub(super) fn ended_test_stays_ended(seed: u64, trace: Trace) {
    let mut stage = stage_sized(seed, trace, Level::Raid5, 3, 2, LARGE);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.write(0, s.size()).await;
        s.fail_the_test_of_d1().await;
        s.readd_is_refused(1).await;
        s.in_mid_test(2, Strategy::Direct).await;
        let job = s.test_of(2).expect("it runs").id;
        s.must(s.machine.array.stop_job(job), "jobs --stop");
        s.await_that("the end of the test", |s| !s.is_under_test(2)).await;
    });
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.bay("d1").drive.faults_mut().clear();
        s.machine.pause(100 * 1_000_000_000).await;
        for disk in [1, 2] {
            if s.test_of(disk).is_some() || !s.in_state(disk, DiskState::Replaced) {
                s.machine.complain(format!("disk {disk} was tested once more"));
            }
        }
        s.readd_is_refused(1).await;
        let rows = s.machine.array.table_t3();
        let why = rows.iter().find(|row| row.disk == DiskNumber(1)).map(|row| &row.reason);
        let advice = s.advice_on(1).unwrap_or_default();
        if !why.is_some_and(|why| why.contains("failed the test") && why.contains(" at "))
            || !advice.contains("`forestall health clear 1`")
        {
            s.machine.complain(format!("it is not told why it failed: {why:?}, {advice}"));
        }
        // Once more, one test at a time, and not used before it passes.
        s.bay("d1").drive.faults_mut().slow_down(50);
        s.must(s.machine.array.clear_health(DiskNumber(1)).await, "health clear");
        s.await_that("the second test", |s| s.is_under_test(1)).await;
        s.readd_is_refused(1).await;
        let job = s.test_of(1).expect("it runs").id;
        s.must(s.machine.array.clear_health(DiskNumber(1)).await, "health clear");
        if s.test_of(1).is_none_or(|test| test.id != job) {
            s.machine.complain("two tests of one disk".into());
        }
        s.must(s.machine.array.stop_job(job), "jobs --stop");
        s.await_that("the end of the test", |s| !s.is_under_test(1)).await;
        s.readd_is_refused(1).await;
        s.must(s.machine.array.clear_health(DiskNumber(1)).await, "health clear");
        s.await_that("the third test", |s| s.is_under_test(1)).await;
        s.bay("d1").drive.faults_mut().clear();
        s.expect_no_spare(1);
        s.is_spare_by_itself(1).await;
        s.verify().await;
    });
}

/// The group that a disk served is deleted after its test failed: it is not used for that, before somebody trusts it.
pub(super) fn failed_test_outlives_its_group(seed: u64, trace: Trace) {
    let mut stage = stage_sized(seed, trace, Level::Raid5, 3, 1, LARGE);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.fail_the_test_of_d1().await;
        s.must(s.machine.array.delete_volume("v1").await, "volume delete");
        s.machine.world.oracle.borrow_mut().delete_volume("v1");
        s.must(s.machine.array.delete_group(GroupNumber(1)).await, "group delete");
        s.readd_is_refused(1).await;
    });
    stage.run(AssembleOptions::default(), None, |machine| async move {
        let array = &machine.array;
        match array.readd_disk(DiskNumber(1), None).await {
            Err(error) if error.to_string().contains("trusts it untested") => {}
            other => machine.complain(format!("after the restart: {other:?}")),
        }
        let cleared = array.clear_health(DiskNumber(1)).await;
        let back = array.readd_disk(DiskNumber(1), None).await;
        let state =
            array.report().disks.iter().find(|d| d.number == DiskNumber(1)).map(|d| d.state);
        if cleared.is_err() || back.is_err() || state != Some(DiskState::Spare) {
            machine.complain(format!("{cleared:?}, {back:?}: it is {state:?}"));
        }
    });
    stage.end(false);
}

/// The group cannot give the slot after a start: its replaced disk may be all that there is, and is kept until the group answers.
pub(super) fn kept_for_a_group_that_fails(seed: u64, trace: Trace) {
    for (level, members, away) in [(Level::Raid0, 2, &["d3"][..]), (Level::Raid5, 3, &["d4", "d2"])]
    {
        let mut stage = stage_sized(seed, trace.clone(), level, members, 1, LARGE);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
            s.write(0, s.size()).await;
            s.flush().await;
            s.replace(1, 0, Strategy::Direct).await;
            s.await_that("the swap", |s| s.in_state(1, DiskState::Replaced)).await;
        });
        for name in away {
            stage.world.shelf.named(name).expect("a member").withheld.set(true);
        }
        stage.run(degraded(), None, |machine| async move {
            let s = Script::new(&machine);
            machine.pause(300 * SECOND).await;
            if s.test_of(1).is_some() || !s.in_state(1, DiskState::Replaced) {
                machine.complain(format!("it was written: {:?}", s.test_of(1)));
            }
        });
        stage.end(false);
    }
}

/// A disk that owed blocks comes back, and is copied away once more with blocks of another slot: the wait for the first time does not end in a test.
pub(super) fn retired_again(seed: u64, trace: Trace) {
    let mut stage = stage_sized(seed, trace, Level::Raid1, 2, 3, LARGE);
    stage.run(AssembleOptions::default(), None, |machine| async move {
        let s = Script::new(&machine);
        let array = &machine.array;
        s.must(array.set_mode(Mode::Advise).await, "policy set advise");
        s.write(0, s.size()).await;
        s.flush().await;
        let both = |disks: [&str; 2], at| disks.map(|disk| spoil(&s, disk, at, BLOCK_SIZE));
        let copy = async |from: u32, to: u32| {
            let (from, to) = (DiskNumber(from), Some(DiskNumber(to)));
            s.must(array.replace_shielded(from, to, 0, Strategy::Direct).await, "replace");
        };
        both(["d1", "d2"], 1 << 20);
        copy(1, 3).await;
        s.await_that("the first", |s| s.in_state(1, DiskState::Replaced)).await;
        // It is asked again ever more seldom.
        machine.pause(75 * SECOND).await;
        for block in s.unreadable().await {
            s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
        }
        s.flush().await;
        s.must(array.readd_disk(DiskNumber(1), None).await, "readd");
        copy(2, 1).await;
        s.await_that("the second", |s| s.in_state(1, DiskState::InSync)).await;
        both(["d1", "d3"], 2 << 20);
        copy(1, 4).await;
        s.await_that("the third", |s| s.in_state(1, DiskState::Replaced)).await;
        let lost = s.unreadable().await;
        machine.pause(300 * SECOND).await;
        if lost.is_empty() || s.test_of(1).is_some() || !s.in_state(1, DiskState::Replaced) {
            machine.complain(format!("{lost:?} lost, and it was written: {:?}", s.test_of(1)));
        }
    });
    stage.end(false);
}
