//! Stories of the table of events: what happens to an avoidance in Copying and in WritingBack.
//!
//! Owns the scripts; the list is in `avoidance.rs`. The cells that the first stories tell (the spare dies in Copying, another member dies in
//! Copying, a leg dies in Copying, the log fills up) are in `shield.rs`.

use std::cell;
use std::collections::BTreeSet;
use std::rc::Rc;

use forestall_engine::format::layout::Layout;
use forestall_engine::{AssembleOptions, AvoidanceState, DiskNumber, DiskState, Level, Strategy};

use crate::coverage::{Cell, reached};
use crate::scenarios::{act, degraded};
use crate::script::Script;
use crate::shield::{LEVELS, SLOW, stage};
use crate::stage::Stage;
use crate::trace::Trace;

/// Levels that survive something.
pub(super) fn redundant() -> impl Iterator<Item = (Level, usize, usize)> {
    LEVELS.into_iter().filter(|(_, _, tolerance)| *tolerance > 0)
}

/// The avoidance ends by itself, every byte is right, and a restart changes nothing.
pub(super) async fn ends_whole(s: &Script) {
    s.verify().await;
    s.whole_and_sound().await;
}

pub(super) fn restarts(stage: &mut Stage) {
    act(stage, degraded(), |s| async move { s.verify().await });
}

pub(super) fn ailing_dies_in_copying(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(60).await;
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            s.copying().await;
            s.scribble(10).await;
            s.kill("d1");
            s.scribble(20).await;
            if s.state() != Some(AvoidanceState::Copying) {
                s.machine.complain("the shield did not stay up".into());
            }
            ends_whole(&s).await;
        });
        restarts(&mut stage);
    }
}

/// A copy that stood still, with updates in the log, is let go until updates go home.
pub(super) async fn writing_back(s: &mut Script, tolerance: usize) {
    s.add_work_disk(tolerance + 1).await;
    s.scribble(60).await;
    s.stand_still(0, Strategy::WorkDisk).await;
    s.scribble(60).await;
    s.go_on().await;
    s.sees(AvoidanceState::WritingBack).await;
}

pub(super) fn spare_dies_in_write_back(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            writing_back(&mut s, tolerance).await;
            s.kill(&format!("d{}", members + 1));
            s.scribble(10).await;
            s.flush().await;
            ends_whole(&s).await;
            s.expect(members as u32 + 2, DiskState::InSync).await;
        });
        restarts(&mut stage);
    }
}

pub(super) fn another_dies_in_write_back(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            writing_back(&mut s, tolerance).await;
            s.kill("d2");
            s.scribble(10).await;
            s.flush().await;
            ends_whole(&s).await;
            s.expect(members as u32 + 2, DiskState::InSync).await;
        });
        restarts(&mut stage);
    }
}

pub(super) fn leg_dies_in_write_back(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            writing_back(&mut s, tolerance).await;
            s.kill(&format!("d{}", members + 3));
            s.scribble(10).await;
            s.flush().await;
            ends_whole(&s).await;
        });
        restarts(&mut stage);
    }
}

/// Makes a range of a disk's data space unreadable.
pub(super) fn spoil(s: &Script, name: &str, from: u64, len: u64) {
    let report = s.machine.array.report();
    let disk = report.disks.iter().find(|d| d.identity.path == name).expect("it is there");
    let layout = Layout::for_size(disk.size).expect("it has a layout");
    let data = layout.data.offset;
    s.bay(name).drive.faults_mut().spoil(data + from..data + from + len);
}

pub(super) fn unreadable_on_ailing_and_peer(seed: u64, trace: Trace) {
    const CHUNK: u64 = 16 * 1024;
    // Volume blocks of stripe 8 in the first row of a chunk, by level: those whose only copies, or too many of whose peers, are bad.
    let gone: [(Level, usize, &[u64]); 2] =
        [(Level::Raid1, 2, &[8 * CHUNK]), (Level::Raid5, 3, &[16 * CHUNK, 17 * CHUNK])];
    for (level, members, candidates) in gone {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.add_work_disk(2).await;
            for at in (0..s.size()).step_by(1 << 18) {
                s.write(at, (1 << 18).min(s.size() - at)).await;
            }
            s.flush().await;
            // On the ailing disk alone, on the peer alone, on both in the first block of stripe 8.
            spoil(&s, "d1", 2 * CHUNK, 8192);
            spoil(&s, "d2", 5 * CHUNK, 8192);
            spoil(&s, "d1", 8 * CHUNK, 4096);
            spoil(&s, "d2", 8 * CHUNK, 4096);
            s.replace(1, 0, Strategy::WorkDisk).await;
            s.whole_again().await;
            // It may be all that has the lost blocks: it is not tested yet.
            s.expect(1, DiskState::Replaced).await;
            let mut lost = BTreeSet::new();
            for at in (0..s.size()).step_by(4096) {
                if s.host.read(at, 4096).await.is_err() {
                    lost.insert(at);
                }
            }
            let listed = s.machine.array.report().groups[0].lost_blocks;
            let all_gone = lost.iter().all(|at| candidates.contains(at));
            // Of a stripe of three, one of the two bad blocks may be parity.
            if lost.is_empty() || !all_gone || listed == 0 || listed > 2 {
                s.machine.complain(format!("{listed} blocks are listed, {lost:?} do not read"));
            }
            reached(Cell::CopyingUnreadableTwice);
            if level == Level::Raid1 && lost.len() as u64 != listed {
                s.machine.complain(format!("{listed} blocks are listed, {lost:?} do not read"));
            }
            // A whole-block write makes each whole again.
            for at in lost {
                s.write(at, 4096).await;
            }
            s.flush().await;
            s.verify().await;
        });
    }
}

pub(super) fn orderly_stop_in_each_state(seed: u64, trace: Trace) {
    let states = [AvoidanceState::Entering, AvoidanceState::Copying, AvoidanceState::WritingBack];
    for (level, members, tolerance) in LEVELS {
        for state in states {
            let mut stage = stage(seed, &trace, level, members);
            let met = Rc::new(cell::Cell::new(false));
            let note = Rc::clone(&met);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_work_disk(tolerance + 1).await;
                s.scribble(40).await;
                if state == AvoidanceState::Entering {
                    s.replace(1, SLOW, Strategy::WorkDisk).await;
                } else {
                    s.stand_still(SLOW, Strategy::WorkDisk).await;
                    s.scribble(40).await;
                    s.go_on().await;
                    s.sees(state).await;
                }
                note.set(s.state() == Some(state));
            });
            assert!(met.get() || state == AvoidanceState::Entering, "stopped in {state}");
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.verify().await;
                s.scribble(10).await;
                ends_whole(&s).await;
                s.expect(1, DiskState::Spare).await;
            });
            restarts(&mut stage);
        }
    }
}

pub(super) fn backup_fills_up_with_crashes(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            let target = if tolerance == 2 { (Level::Raid6, 4) } else { (Level::Raid1, 2) };
            s.add_small_work_volume(target.0, target.1, 24 * 4096).await;
            s.scribble(20).await;
            s.stand_still(SLOW, Strategy::WorkVolume).await;
            s.scribble(40).await;
            s.flush().await;
            s.verify().await;
        });
        for _ in 0..3 {
            let cut = stage.rng.within(300..4000);
            stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
                let mut s = Script::new(&machine);
                for _ in 0..300 {
                    s.scribble(5).await;
                    s.flush().await;
                }
            });
            stage.end(false);
        }
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.verify().await;
            s.must(s.machine.array.resume_replace(DiskNumber(1)).await, "resume");
            ends_whole(&s).await;
        });
        restarts(&mut stage);
    }
}
