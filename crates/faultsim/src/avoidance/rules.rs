//! Stories named for the rules of backup storages (B, F2).
//!
//! Owns the scripts; the list is in `avoidance.rs`. Every host request passes the oracle: a block that returned to an older version, or that
//! changed after it was read, ends a story by itself. Each story adds what must be seen of its rule.

use std::cell::Cell;
use std::rc::Rc;

use forestall_engine::{AssembleOptions, AvoidanceState, DiskNumber, DiskState, Level, Strategy};

use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::Script;
use crate::shield::{LEVELS, SET, SLOW, accesses, stage, write_until_crash};
use crate::stage::Stage;
use crate::trace::Trace;

/// The avoidance ends, every byte is right, and as many members as may be lost are lost.
pub(super) fn ends_well(stage: &mut Stage, tolerance: usize) {
    act(stage, degraded(), move |s| async move {
        s.verify().await;
        s.whole_and_sound().await;
        s.lose(tolerance);
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
        // What it holds is older: all is copied to it anew.
        s.must(readd(&s, leg).await, "readd of a leg whose log is in use");
        s.verify().await;
        s.scribble(5).await;
        s.go_on().await;
        s.whole_again().await;
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
        if !s.machine.array.logs_in_use().is_empty() {
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
            s.expect(1, DiskState::Spare).await;
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
        s.whole_and_sound().await;
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
        s.whole_and_sound().await;
    });
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
        let answered = Rc::new(Cell::new(false));
        let last = Rc::clone(&answered);
        stage.run(AssembleOptions::default(), None, move |machine| async move {
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
            last.set(s.host.flush().await.is_ok());
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            for at in (0..s.size()).step_by(4096) {
                // An error is honest where no flush was answered since; old data is not.
                let read = s.host.read(at, 4096).await;
                if answered.get() {
                    s.host.must(read, "a read of what a flush covers");
                }
            }
        });
    }
}
