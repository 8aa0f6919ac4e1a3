//! More stories of the table of events: a member that fails worse, a backup that is full while updates go home, giving up in every state.
//!
//! Owns the scripts; the list is in `avoidance.rs`, the table with the story of each cell in `tests/avoidance.rs`.

use forestall_engine::{
    AssembleOptions, AvoidanceState, BLOCK_SIZE, DiskNumber, DiskState, JobState, Level, Runtime,
    Strategy,
};

use super::events::{ends_whole, redundant, restarts, spoil, writing_back};
use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of, stage_sized};
use crate::shield::{LEVELS, SECOND, SET, SLOW, stage};
use crate::trace::Trace;

/// One spare, and two disks that want it: the one that is out gets it while less than half of the other is copied.
pub(super) fn another_fails_worse(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        for early in [true, false] {
            let mut stage = stage_sized(seed, trace.clone(), level, members, 1, 8 << 20);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_work_disk(tolerance + 1).await;
                s.write(0, s.size()).await;
                s.flush().await;
                let spare = members as u32 + 1;
                s.replace(1, 4 * SLOW, Strategy::WorkDisk).await;
                s.copied(if early { 20 } else { 70 }).await;
                s.scribble(5).await;
                s.kill("d2");
                s.scribble(5).await;
                s.flush().await;
                s.verify().await;
                s.whole_again().await;
                s.expect(spare, DiskState::InSync).await;
                // The disk that was copied away proves healthy, and takes the other slot in the end.
                let members = s.machine.array.report().groups[0].members.clone();
                let first = if early { DiskNumber(1) } else { DiskNumber(spare) };
                if members[0] != first || early && members[1] != DiskNumber(spare) {
                    s.machine.complain(format!("the spare is in the wrong slot: {members:?}"));
                }
                if early != s.event("spare-switched") {
                    s.machine.complain("it was not said that the spare went elsewhere".into());
                }
                s.verify().await;
            });
            act(&mut stage, degraded(), |s| async move { s.verify().await });
        }
    }
}

/// Two disks of one group are replaced under one shield, and neither the first nor its peers give a block: it is lost, and never taken from the
/// second, which holds another slot's.
pub(super) fn two_retired_disks(seed: u64, trace: Trace) {
    const CHUNK: u64 = 16 * 1024;
    let mut stage = stage(seed, &trace, Level::Raid5, 4);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.add_work_disk(2).await;
        s.write(0, s.size()).await;
        s.flush().await;
        for disk in ["d1", "d3"] {
            spoil(&s, disk, 8 * CHUNK, 4096);
        }
        s.replace(1, 4 * SLOW, Strategy::WorkDisk).await;
        s.copying().await;
        s.replace(2, 0, Strategy::WorkDisk).await;
        s.whole_again().await;
        let report = s.machine.array.report();
        let members: Vec<u32> = report.groups[0].members.iter().map(|disk| disk.0).collect();
        if members != [5, 6, 3, 4] {
            s.machine.complain(format!("both should have been replaced: {members:?}"));
        }
        let mut lost = 0;
        for at in (0..s.size()).step_by(4096) {
            lost += u64::from(s.host.read(at, 4096).await.is_err());
        }
        // The peer's own bad block is not listed, and does not read either.
        if !(1..=2).contains(&lost) || report.groups[0].lost_blocks == 0 {
            s.machine.complain(format!(
                "{} blocks are listed, {lost} do not read",
                report.groups[0].lost_blocks
            ));
        }
    });
}

/// A second member is found ailing while the first is copied: it gets its turn under the same shield. Found while updates go home, it waits for the
/// end of that.
pub(super) fn another_ails(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        for state in [AvoidanceState::Copying, AvoidanceState::WritingBack] {
            let mut stage = stage(seed, &trace, level, members);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                let legs = |s: &Script, times| {
                    let names = (0..=tolerance).map(|leg| format!("d{}", members + 3 + leg));
                    names.for_each(|leg| s.bay(&leg).drive.faults_mut().slow_down(times));
                };
                if state == AvoidanceState::WritingBack {
                    writing_back(&mut s, tolerance).await;
                    legs(&s, 2000); // So slow that the array looks at its disks meanwhile.
                } else {
                    s.add_work_disk(tolerance + 1).await;
                    s.scribble(40).await;
                    s.replace(1, 2 * SLOW, Strategy::WorkDisk).await;
                    s.copying().await;
                }
                s.machine.array.smart_failure(DiskNumber(2));
                s.machine.pause(2 * SECOND).await;
                if state == AvoidanceState::WritingBack && s.state() != Some(state) {
                    s.machine.complain(format!("it should be writing back: {:?}", s.state()));
                }
                legs(&s, 1);
                s.scribble(10).await;
                s.flush().await;
                let replaced = |s: &Script| {
                    let report = s.machine.array.report();
                    let is_in = |disk| report.groups[0].members.contains(&DiskNumber(disk));
                    !is_in(1) && !is_in(2) && s.state().is_none()
                };
                s.await_that("the end of both copies", replaced).await;
                s.machine.quiet().await;
                let events = s.machine.array.events_after(0);
                let last = |kind| events.iter().rposition(|event| event.kind == kind);
                let first_home = events.iter().position(|event| event.kind == "write-back-ended");
                let queued = first_home < last("spare-engaged");
                if queued != (state == AvoidanceState::WritingBack) {
                    s.machine.complain(format!("found in {state}, it was queued: {queued}"));
                }
                s.verify().await;
                s.machine.audit().await;
            });
            restarts(&mut stage);
        }
    }
}

/// Blocks of a member become unreadable while updates go home: they are mended from the others.
pub(super) fn unreadable_in_write_back(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.write(0, s.size()).await;
            writing_back(&mut s, tolerance).await;
            spoil(&s, "d2", 0, 64 * 1024);
            spoil(&s, "d2", 5 * 64 * 1024, 8192);
            s.verify().await;
            ends_whole(&s).await;
        });
        restarts(&mut stage);
    }
}

/// The retired disk dies while updates go home: nothing needs it.
pub(super) fn retired_dies_in_write_back(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            writing_back(&mut s, tolerance).await;
            s.kill("d1");
            s.scribble(10).await;
            s.flush().await;
            ends_whole(&s).await;
        });
        restarts(&mut stage);
    }
}

/// Virtual time that a write-back of 48 blocks, each far from the next, takes beside hosts that read all the while.
async fn write_back_beside_hosts(s: &mut Script, slots: u64) -> u64 {
    s.add_small_work_volume(Level::Raid1, 2, slots * 4096).await;
    s.write(0, s.size()).await;
    s.stand_still(0, Strategy::WorkVolume).await;
    for window in 0..6 {
        for block in 0..8 {
            s.write((window * 256 + block * 3) * BLOCK_SIZE, BLOCK_SIZE).await;
        }
    }
    s.flush().await;
    let latch = Latch::default();
    for at in 0..6 {
        let other = Script::new(&s.machine);
        latch.spawn(&s.machine.runtime, async move {
            while other.state().is_some() {
                let read = other.host.read(at * 64 * BLOCK_SIZE, 32 * BLOCK_SIZE).await;
                other.host.must(read, "a read");
            }
        });
    }
    s.go_on().await;
    s.sees(AvoidanceState::WritingBack).await;
    let begun = s.machine.runtime.now_ns();
    while s.state().is_some() {
        s.machine.pause(10_000).await;
    }
    let took = s.machine.runtime.now_ns() - begun;
    latch.all().await;
    s.verify().await;
    took
}

/// A log that is nearly full is drained without giving way to hosts.
pub(super) fn full_backup_is_drained_faster(seed: u64, trace: Trace) {
    let mut took = [0; 2];
    for (at, slots) in [52, 400].into_iter().enumerate() {
        let mut stage = stage_sized(seed, trace.clone(), Level::Raid5, 4, 2, 4 << 20);
        let note = std::rc::Rc::new(std::cell::Cell::new(0));
        let noted = std::rc::Rc::clone(&note);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            noted.set(write_back_beside_hosts(&mut s, slots).await);
        });
        took[at] = note.get();
        if at == 1 && took[0] * 10 > took[1] * 8 {
            stage.world.complain(format!("full: {} ns, with room: {} ns", took[0], took[1]));
        }
    }
}

/// `replace cancel` in each state, of a copy that runs or stands still: done with the old member in its place, or refused with nothing changed.
pub(super) fn cancel_in_every_state(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        for percent in [0, 50, 90] {
            let mut stage = stage(seed, &trace, level, members);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                let array = std::rc::Rc::clone(&s.machine.array);
                let cancel = || array.cancel_replace(DiskNumber(1));
                s.add_work_disk(tolerance + 1).await;
                s.must_refuse(cancel().await, "is not being replaced");
                s.write(0, s.size()).await;
                // In Entering, whether or not it has left it when its turn comes.
                s.replace(1, SLOW, Strategy::WorkDisk).await;
                s.must(cancel().await, "cancel in Entering");
                s.whole_again().await;
                s.expect(1, DiskState::InSync).await;
                s.replace(1, 4 * SLOW, Strategy::WorkDisk).await;
                s.copied(percent).await;
                s.scribble(10).await;
                if percent == 50 {
                    s.must(array.pause_replace(DiskNumber(1)).await, "pause");
                }
                s.must(cancel().await, "cancel in Copying");
                s.must_refuse(cancel().await, "is not being replaced");
                s.scribble(10).await;
                s.whole_again().await;
                s.expect(1, DiskState::InSync).await;
                s.verify().await;
                s.stand_still(0, Strategy::WorkDisk).await;
                s.scribble(40).await;
                s.go_on().await;
                s.sees(AvoidanceState::WritingBack).await;
                s.must_refuse(cancel().await, "too late");
                ends_whole(&s).await;
                s.must_refuse(cancel().await, "is not being replaced");
                s.expect(1, DiskState::Spare).await;
            });
            restarts(&mut stage);
        }
    }
}

/// Most of the array's disks are legs: taking them out one by one never pauses the array (rule C2).
pub(super) fn most_disks_are_legs(seed: u64, trace: Trace) {
    for legs in 1..=5 {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid1, 2, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(legs).await;
            s.scribble(10).await;
            s.must(s.machine.array.remove_work_disk(SET).await, "work-disk remove");
            s.scribble(10).await;
            s.flush().await;
            s.verify().await;
        });
        act(&mut stage, AssembleOptions::default(), |s| async move { s.verify().await });
    }
}

/// The next spare starts over, and with none left the shield comes down; jobs that ended so are not called done.
pub(super) fn no_spare_is_left(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(40).await;
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            s.copying().await;
            for spare in [members + 1, members + 2] {
                let filled = move |s: &Script| {
                    let report = s.machine.array.report();
                    let is = |d: &forestall_engine::DiskReport| {
                        d.number == DiskNumber(spare as u32) && d.state == DiskState::Rebuilding
                    };
                    report.disks.iter().any(is)
                };
                s.await_that("a spare", filled).await;
                s.scribble(5).await;
                s.kill(&format!("d{spare}"));
                s.scribble(5).await;
                s.flush().await;
            }
            s.whole_again().await;
            s.machine.pause(SECOND).await;
            s.expect(1, DiskState::InSync).await;
            let jobs = s.machine.array.jobs();
            let done = |j: &&forestall_engine::JobReport| {
                j.kind == forestall_engine::JobKind::Replace && j.state == JobState::Done
            };
            if let Some(job) = jobs.iter().find(done) {
                s.machine.complain(format!("a copy to a dead spare is called done: {job:?}"));
            }
            s.verify().await;
            s.machine.audit().await;
        });
        restarts(&mut stage);
    }
}
