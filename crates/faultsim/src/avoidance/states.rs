//! Stories named for the rules of avoidances (A).
//!
//! Owns the scripts; the list is in `avoidance.rs`. What hosts see passes the oracle; each story adds what must be seen of its rule.

use std::cell::RefCell;
use std::rc::Rc;

use forestall_engine::{
    AssembleOptions, AvoidanceState, DiskNumber, DiskState, GroupNumber, JobReport, JobState,
    Level, Strategy,
};

use super::rules::ends_well;
use crate::machine::Latch;
use crate::scenarios::act;
use crate::script::{Script, stage_sized};
use crate::shield::{LEVELS, SECOND, SLOW, stage};
use crate::stage::{RunEnd, Stage};
use crate::trace::Trace;

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
            let running = |j: &&JobReport| j.id == scrub && j.state == JobState::Running;
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
                let retiring = avoidance.retiring.is_some_and(|old| old.disk == DiskNumber(1));
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
        s.whole_and_sound().await;
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
            s.whole_and_sound().await;
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
            s.replace(1, 50 * SLOW, Strategy::WorkDisk).await;
            s.copying().await;
            s.kill("d1");
            // From then on no limit counts: looked at often, so that the copy has not ended by then.
            while !s.event("disk-failed") {
                s.machine.pause(SECOND / 10_000).await;
            }
            let cancelled = s.machine.array.cancel_replace(DiskNumber(1)).await;
            if cancelled.is_ok() {
                s.machine.complain("a copy was cancelled after its old member died".into());
            }
            s.scribble(10).await;
            s.flush().await;
            s.whole_and_sound().await;
        });
        ends_well(&mut stage, 0);
    }
}
