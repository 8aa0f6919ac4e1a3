//! Stories named for the rules of backup storages (B) and of avoidances (A).
//!
//! Owns the scripts; the list is in `avoidance.rs`. Every host request passes the oracle: a block that returned to an older version, or that
//! changed after it was read, ends a story by itself. Each story adds what must be seen of its rule.

use std::cell::RefCell;
use std::rc::Rc;

use forestall_engine::{
    AssembleOptions, AvoidanceState, DiskNumber, DiskState, GroupNumber, Level, Strategy,
};

use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_sized};
use crate::shield::{LEVELS, SECOND, SET, SLOW, accesses, stage};
use crate::stage::{RunEnd, Stage};
use crate::trace::Trace;

/// Hosts write and flush until the machine crashes at step `cut`; then it is started again.
fn write_until_crash(stage: &mut Stage, cut: u64) {
    stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
        let mut s = Script::new(&machine);
        for _ in 0..300 {
            s.scribble(3).await;
            s.flush().await;
            s.scribble(2).await;
        }
    });
    stage.end(false);
}

/// The avoidance ends, every byte is right, and as many members as may be lost are lost.
fn ends_well(stage: &mut Stage, tolerance: usize) {
    act(stage, degraded(), move |s| async move {
        s.verify().await;
        s.whole_again().await;
        s.verify().await;
        s.machine.audit().await;
        for disk in 0..tolerance {
            s.kill(&format!("d{}", 2 + disk));
        }
        s.verify().await;
    });
}

pub(super) fn b1_one_backup_at_a_time(seed: u64, trace: Trace) {
    for round in 0..4 {
        let mut stage = stage(seed * 10 + round, &trace, Level::Raid5, 3);
        act(&mut stage, AssembleOptions::default(), |mut s| async move {
            // So small that it is full after a few writes, and has room again after each flush.
            s.add_small_work_volume(Level::Raid1, 2, 40 * 4096).await;
            s.add_work_disk(2).await;
            s.scribble(20).await;
            s.stand_still(SLOW, Strategy::Auto).await;
            for _ in 0..15 {
                s.scribble(6).await;
                s.flush().await;
            }
            let used = s.machine.array.table_t6()[0].terminal_address.is_some();
            let first = s.machine.array.table_t4(4)[0].terminal_address.is_some();
            if !used || !first {
                s.machine.complain("both backups should have been used".into());
            }
        });
        for _ in 0..3 {
            let cut = stage.rng.within(300..4000);
            write_until_crash(&mut stage, cut);
        }
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.verify().await;
            s.go_on().await;
        });
        ends_well(&mut stage, 1);
    }
}

pub(super) fn b3_leg_that_missed_writes(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.add_work_disk(2).await;
        s.scribble(30).await;
        s.stand_still(SLOW, Strategy::WorkDisk).await;
        s.scribble(10).await;
    });
    let away = stage.world.shelf.named("d6").expect("the first leg");
    away.withheld.set(true);
    act(&mut stage, degraded(), |mut s| async move {
        s.scribble(30).await;
        s.flush().await;
    });
    away.withheld.set(false);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        for _ in 0..3 {
            s.verify().await;
        }
        let report = s.machine.array.report();
        let leg = report.disks.iter().find(|d| d.identity.path == "d6").expect("it is named");
        if leg.state == DiskState::Work {
            s.machine.complain("a leg that missed writes is in service".into());
        }
        let (leg, readd) = (leg.number, |s: &Script, leg| {
            let array = Rc::clone(&s.machine.array);
            let handle = s.bay("d6").hand_over(&s.machine.runtime);
            async move { array.readd_disk(leg, Some(handle)).await }
        });
        s.must_refuse(readd(&s, leg).await, "missed some of the updates");
        s.scribble(5).await;
        s.go_on().await;
        s.whole_again().await;
        s.must(readd(&s, leg).await, "readd of a leg whose log is empty");
        // From now on it is a leg like the other.
        s.scribble(10).await;
        s.replace(2, SLOW, Strategy::WorkDisk).await;
        s.copying().await;
        s.scribble(20).await;
        s.kill("d7");
        s.scribble(5).await;
        s.flush().await;
        s.verify().await;
        s.whole_again().await;
        s.machine.audit().await;
    });
    act(&mut stage, AssembleOptions::default(), |s| async move { s.verify().await });
}

pub(super) fn b3_earlier_use_of_the_log(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid1, 2);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.add_work_disk(2).await;
        s.scribble(20).await;
        s.stand_still(SLOW, Strategy::WorkDisk).await;
        s.scribble(40).await;
        s.go_on().await;
        s.whole_again().await;
        if s.machine.array.table_t6()[0].terminal_address.is_some() {
            s.machine.complain("the log was not let go".into());
        }
        // What the log of before holds is old now.
        s.scribble(40).await;
        s.flush().await;
    });
    let cut = stage.rng.within(400..3000);
    stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
        let mut s = Script::new(&machine);
        s.replace(2, SLOW, Strategy::WorkDisk).await;
        s.scribble(200).await;
    });
    stage.end(false);
    act(&mut stage, AssembleOptions::default(), |s| async move { s.verify().await });
    ends_well(&mut stage, 1);
}

pub(super) fn b4_log_wraps_with_crashes(seed: u64, trace: Trace) {
    for round in 0..4 {
        let mut stage = stage(seed * 10 + round, &trace, Level::Raid5, 3);
        act(&mut stage, AssembleOptions::default(), |mut s| async move {
            s.add_work_disk(2).await;
            s.scribble(20).await;
            s.stand_still(SLOW, Strategy::WorkDisk).await;
        });
        let cut = stage.rng.within(20_000..60_000);
        stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
            let mut s = Script::new(&machine);
            for _ in 0..400 {
                s.scribble(4).await;
                s.flush().await;
            }
        });
        stage.end(false);
        let withheld = stage.rng.coin().then(|| stage.world.shelf.named("d7").expect("a leg"));
        withheld.iter().for_each(|leg| leg.withheld.set(true));
        act(&mut stage, degraded(), |s| async move {
            s.verify().await;
            s.go_on().await;
        });
        withheld.iter().for_each(|leg| leg.withheld.set(false));
        ends_well(&mut stage, 1);
    }
}

pub(super) fn b5_written_back_then_overwritten(seed: u64, trace: Trace) {
    for strategy in [Strategy::WorkDisk, Strategy::WorkVolume] {
        for (level, members, tolerance) in LEVELS {
            for round in 0..3 {
                let mut stage = stage(seed * 10 + round, &trace, level, members);
                act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                    s.add_backup(strategy, tolerance).await;
                    s.scribble(20).await;
                    s.stand_still(0, strategy).await;
                    s.scribble(40).await;
                    s.flush().await;
                });
                // The crash comes somewhere in the write-back, or soon after it.
                let cut = stage.rng.within(600..4000);
                stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
                    let mut s = Script::new(&machine);
                    s.go_on().await;
                    s.sees(AvoidanceState::WritingBack).await;
                    for _ in 0..100 {
                        s.scribble(2).await;
                        s.flush().await;
                    }
                });
                stage.end(false);
                act(&mut stage, AssembleOptions::default(), |s| async move {
                    s.verify().await;
                    // It may not have come that far.
                    let _ = s.machine.array.resume_replace(DiskNumber(1)).await;
                });
                ends_well(&mut stage, tolerance);
            }
        }
    }
}

pub(super) fn b6_less_safe_than_home(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance).await;
            s.add_work_volume(Level::Raid0, 1).await;
            s.scribble(10).await;
            for asked in [Strategy::WorkDisk, Strategy::WorkVolume] {
                let array = &s.machine.array;
                let refused = array.replace_shielded(DiskNumber(1), None, 0, asked).await;
                s.must_refuse(refused, "less safe than home");
            }
            if s.state().is_some() || !s.is_whole() {
                s.machine.complain("a refusal changed something".into());
            }
            // Asked for nothing in particular, the writes go home.
            s.replace(1, 0, Strategy::Auto).await;
            s.scribble(20).await;
            s.expect(1, DiskState::Replaced).await;
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

pub(super) fn b7_lost_copy_next_backup(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.add_work_volume(Level::Raid1, 2).await; // d6, d7
        s.add_work_disk(2).await;
        s.scribble(30).await;
        s.stand_still(SLOW, Strategy::Auto).await;
        s.scribble(10).await;
        s.kill("d6");
        s.scribble(10).await;
        s.flush().await;
        let before = accesses(&s.machine.array.report(), 3);
        s.scribble(20).await;
        s.flush().await;
        let after = accesses(&s.machine.array.report(), 3);
        if before.iter().zip(&after).any(|(b, a)| b.writes != a.writes) {
            s.machine.complain("writes went home although the work disk is safe enough".into());
        }
        s.kill("d8");
        s.scribble(10).await;
        s.flush().await;
        s.verify().await;
        s.go_on().await;
        s.whole_again().await;
        s.verify().await;
        s.machine.audit().await;
    });
    act(&mut stage, degraded(), |s| async move { s.verify().await });
}

pub(super) fn b7_last_leg_is_kept(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.add_work_disk(2).await;
        s.scribble(20).await;
        s.stand_still(SLOW, Strategy::WorkDisk).await;
        s.scribble(10).await;
        let legs: Vec<_> = {
            let report = s.machine.array.report();
            report.disks.iter().filter(|d| d.state == DiskState::Work).map(|d| d.number).collect()
        };
        s.must(s.machine.array.fail_disk(legs[0]).await, "fail of one leg of two");
        s.must_refuse(s.machine.array.fail_disk(legs[1]).await, "last leg");
        s.must_refuse(s.machine.array.remove_work_disk(SET).await, "holds updates");
        s.verify().await;
        s.go_on().await;
        s.whole_again().await;
        s.verify().await;
        s.machine.audit().await;
    });
}

pub(super) fn a1_copy_begins_at_rest(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(40).await;
        });
        // Several connections write all the while; the crash comes right when the copy begins.
        stage.run(AssembleOptions::default(), None, |machine| async move {
            let s = Script::new(&machine);
            let scrub = s.machine.array.scrub(GroupNumber(1), true, 64 * 1024).await;
            let latch = Latch::default();
            for _ in 0..4 {
                let other = Script::new(&machine);
                // Few blocks, so that the log has room for all that come before the copy begins.
                latch.spawn(&machine.runtime, async move {
                    for i in 0..100_000 {
                        other.write(i % 5 * 50_000, 4096).await;
                    }
                });
            }
            s.machine.pause(SECOND / 100).await;
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            s.sees(AvoidanceState::Copying).await;
            let (scrub, jobs) = (s.must(scrub, "scrub"), s.machine.array.jobs());
            let running = |j: &&forestall_engine::JobReport| {
                j.id == scrub && j.state == forestall_engine::JobState::Running
            };
            if jobs.iter().any(|j| running(&j)) {
                s.machine.complain("a scrub goes on while the group is shielded".into());
            }
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            let dirty = s.machine.array.report().groups[0].dirty_regions;
            if dirty > 0 {
                s.machine.complain(format!("{dirty} regions were dirty when the copy began"));
            }
            s.verify().await;
        });
        ends_well(&mut stage, tolerance);
    }
}

pub(super) fn a2_cursor_behind_durable(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage_sized(seed, trace.clone(), level, members, 2, 12 << 20);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            for at in (0..s.size()).step_by(1 << 20) {
                s.write(at, (1 << 20).min(s.size() - at)).await;
            }
            s.scribble(10).await;
            s.replace(1, 2 << 20, Strategy::WorkDisk).await;
            s.copying().await;
        });
        for _ in 0..3 {
            stage.run(AssembleOptions::default(), None, |machine| async move {
                let mut s = Script::new(&machine);
                let wait = machine.rng(9).within(1..2000) * 1_000_000;
                s.scribble(5).await;
                machine.pause(wait).await;
            });
            stage.end(false);
        }
        ends_well(&mut stage, tolerance);
    }
}

pub(super) fn a3_swap_is_one_commit(seed: u64, trace: Trace) {
    let ready = |stage: &mut Stage| {
        act(stage, AssembleOptions::default(), |mut s| async move {
            s.add_work_disk(2).await;
            s.scribble(10).await;
            s.stand_still(0, Strategy::WorkDisk).await;
            s.scribble(4).await;
        });
    };
    // The step at which the swap is seen; the same seed takes the same steps again.
    let to_the_swap = |stage: &mut Stage, cut| {
        stage.run(AssembleOptions::default(), cut, |machine| async move {
            let s = Script::new(&machine);
            s.go_on().await;
            s.sees(AvoidanceState::WritingBack).await;
            machine.pause(SECOND / 1000).await;
        })
    };
    let mut first = stage(seed, &trace, Level::Raid5, 3);
    ready(&mut first);
    let RunEnd::Completed(seen) = to_the_swap(&mut first, None) else { return };
    let states = Rc::new(RefCell::new(Vec::new()));
    for cut in (seen.saturating_sub(240)..seen).step_by(4) {
        let mut stage = stage(seed, &trace, Level::Raid5, 3);
        ready(&mut stage);
        to_the_swap(&mut stage, Some(cut));
        stage.end(false);
        let note = Rc::clone(&states);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            if let Some(avoidance) = s.machine.array.avoidance(GroupNumber(1)) {
                let report = s.machine.array.report();
                let member = report.groups[0].members[usize::from(avoidance.slot.0)];
                let swapped = member != DiskNumber(1);
                let written_back = avoidance.state == AvoidanceState::WritingBack;
                let retiring = avoidance.retiring == Some(DiskNumber(1));
                if swapped != retiring || swapped != written_back {
                    s.machine.complain(format!("half a swap after step {cut}: {avoidance:?}"));
                }
                note.borrow_mut().push(swapped);
            }
            s.verify().await;
            let _ = s.machine.array.resume_replace(DiskNumber(1)).await;
            s.whole_again().await;
            s.verify().await;
        });
    }
    let states = states.borrow();
    assert!(states.contains(&false) && states.contains(&true), "both sides of the swap were seen");
}

pub(super) fn a4_retired_disk_stays(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.add_work_disk(2).await;
        s.scribble(40).await;
        s.stand_still(0, Strategy::WorkDisk).await;
        s.scribble(40).await;
        let written = |s: &Script| s.machine.array.report().disks[0].accesses.writes;
        let before = written(&s);
        s.go_on().await;
        s.sees(AvoidanceState::WritingBack).await;
        let array = &s.machine.array;
        s.must_refuse(array.remove_disk(DiskNumber(1)).await, "kept until");
        let with = Some(DiskNumber(1));
        let used = array.replace_shielded(DiskNumber(2), with, 0, Strategy::Auto).await;
        s.must_refuse(used, "kept until");
        let report = array.report();
        let retired = report.disks.iter().find(|d| d.number == DiskNumber(1)).map(|d| d.state);
        if s.state() == Some(AvoidanceState::WritingBack) {
            if retired != Some(DiskState::Retiring) {
                s.machine.complain(format!("the replaced disk is {retired:?}"));
            }
            if written(&s) != before {
                s.machine.complain("the replaced disk was written".into());
            }
        }
        s.whole_again().await;
        s.verify().await;
        s.machine.audit().await;
    });
    act(&mut stage, AssembleOptions::default(), |s| async move { s.verify().await });
}

pub(super) fn a5_write_back_into_a_whole_group(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(60).await;
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            s.copying().await;
            s.scribble(10).await;
            s.kill("d2");
            s.scribble(10).await;
            s.sees(AvoidanceState::WritingBack).await;
            if !s.is_whole() {
                s.machine.complain("updates go home into a group that lacks a member".into());
            }
            s.whole_again().await;
            s.verify().await;
            s.machine.audit().await;
        });
        ends_well(&mut stage, 0);
    }
}

pub(super) fn a6_cancel_refused_once_dead(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(40).await;
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            s.copying().await;
            s.must(s.machine.array.cancel_replace(DiskNumber(1)).await, "cancel");
            s.whole_again().await;
            s.scribble(40).await;
            s.flush().await;
            // The spare given back holds old blocks: it is filled from the start.
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            s.copying().await;
            s.kill("d1");
            s.scribble(10).await;
            s.flush().await;
            let died =
                |s: &Script| s.machine.array.report().groups[0].absent.contains(&DiskNumber(1));
            s.await_that("the end of the old member", died).await;
            let cancelled = s.machine.array.cancel_replace(DiskNumber(1)).await;
            if cancelled.is_ok() {
                s.machine.complain("a copy was cancelled after its old member died".into());
            }
            s.whole_again().await;
            s.verify().await;
            s.machine.audit().await;
        });
        ends_well(&mut stage, 0);
    }
}

pub(super) fn b7_leg_fails_under_reads(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.add_work_disk(2).await;
        s.stand_still(SLOW, Strategy::WorkDisk).await;
        for at in 0..12 {
            s.write(at * 40_960, 40_960).await;
        }
        s.bay("d6").drive.faults_mut().fail_flushes(1);
        let latch = Latch::default();
        for task in 0..12 {
            let host = s.machine.connect("v1");
            latch.spawn(&s.machine.runtime, async move {
                if task == 0 {
                    host.must(host.flush().await, "a flush");
                }
                for _ in 0..20 {
                    host.must(host.read(task * 40_960, 40_960).await, "a read");
                }
            });
        }
        latch.all().await;
        s.go_on().await;
        s.whole_again().await;
        s.verify().await;
    });
}

pub(super) fn f2_only_leg_fails_a_flush(seed: u64, trace: Trace) {
    for round in 0..8 {
        let mut stage = stage(seed * 10 + round, &trace, Level::Raid0, 2);
        act(&mut stage, AssembleOptions::default(), |mut s| async move {
            s.add_work_disk(1).await;
            s.scribble(20).await;
            s.stand_still(SLOW, Strategy::WorkDisk).await;
        });
        stage.run(AssembleOptions::default(), None, |machine| async move {
            let s = Script::new(&machine);
            for at in 0..6 {
                s.write(at * 8192, 8192).await;
            }
            s.bay("d5").drive.faults_mut().fail_flushes(1);
            if s.host.flush().await.is_ok() {
                s.machine.complain("a flush that failed was answered with success".into());
            }
            // Whether this one succeeds depends on what the disk lost; what it promises is kept.
            let _ = s.host.flush().await;
            s.write(0, 4096).await;
            let _ = s.host.flush().await;
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            for at in (0..s.size()).step_by(4096) {
                // An error is honest; old data is not.
                let _ = s.host.read(at, 4096).await;
            }
        });
    }
}
