//! Stories of the last thing that can give a block: the last leg of a log, no leg at all, the only drive with a map, a copy that hangs.
//!
//! Owns the scripts; the list is in `avoidance.rs`. Invariant: what can still be read is read; what nothing gives is listed, exactly that.

use std::collections::BTreeSet;
use std::ops::Range;

use forestall_engine::format::layout::Layout;
use forestall_engine::format::log::LogShape;
use forestall_engine::{
    AssembleOptions, BLOCK_SIZE, DiskNumber, DiskState, Level, Runtime, Strategy,
};

use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::shield::{LEVELS, SECOND, SLOW, stage};
use crate::stage::Stage;
use crate::trace::Trace;

impl Script {
    fn layout(&self, name: &str) -> Layout {
        Layout::for_size(self.bay(name).drive.size()).expect("a labelled disk")
    }

    /// From now on no configuration is written to a disk.
    fn refuse_configurations(&self, name: &str) {
        for slot in self.layout(name).config {
            let range = slot.offset..slot.offset + slot.len;
            self.bay(name).drive.faults_mut().protect(range);
        }
    }

    /// The bytes of a slot of a log on a leg.
    fn log_slot(&self, leg: &str, slot: u64) -> Range<u64> {
        let data = self.layout(leg).data;
        let shape = LogShape::of(data.len / BLOCK_SIZE).expect("a leg holds a log");
        let at = data.offset + shape.payload(slot);
        at..at + BLOCK_SIZE
    }

    /// Blocks of the volume that do not read.
    pub(super) async fn unreadable(&self) -> BTreeSet<u64> {
        let mut unreadable = BTreeSet::new();
        for at in (0..self.size()).step_by(BLOCK_SIZE as usize) {
            if self.host.read(at, BLOCK_SIZE.min(self.size() - at)).await.is_err() {
                unreadable.insert(at / BLOCK_SIZE);
            }
        }
        unreadable
    }
}

/// Name of a leg of the work disk: legs come after the members and the two spares.
fn leg(members: usize, at: usize) -> String {
    format!("d{}", members + 3 + at)
}

pub(super) fn last_leg_refuses_configurations(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(20).await;
            s.stand_still(SLOW, Strategy::WorkDisk).await;
            s.scribble(20).await;
        });
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let mut s = Script::new(&machine);
            s.refuse_configurations(&leg(members, tolerance));
            (0..tolerance).for_each(|at| s.kill(&leg(members, at)));
            s.scribble(5).await;
            s.flush().await;
            // Where all legs are well nothing made a configuration be written so far.
            let changed = s.machine.array.set_strategy("v1", Strategy::WorkDisk).await;
            s.must(changed, "a change of the configuration");
            s.verify().await;
        });
        stage.end(false);
        if tolerance > 0 {
            // Who left before the last one does not know all of it.
            let last = stage.world.shelf.named(&leg(members, tolerance)).expect("a leg");
            let first = stage.world.shelf.named(&leg(members, 0)).expect("a leg");
            last.withheld.set(true);
            first.drive.faults_mut().set_dead(false);
            let why = stage.refused(degraded());
            if !why.contains("holds the newest writes") {
                stage.world.complain(format!("refused for another reason: {why}"));
            }
            last.withheld.set(false);
        }
        act(&mut stage, AssembleOptions::default(), |mut s| async move {
            s.verify().await;
            s.scribble(10).await;
            s.flush().await;
            s.go_on().await;
            s.whole_again().await;
            s.verify().await;
            s.machine.audit().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

pub(super) fn flush_waits_for_a_lost_leg(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.add_work_disk(2).await;
        s.scribble(20).await;
        s.stand_still(SLOW, Strategy::WorkDisk).await;
    });
    stage.run(AssembleOptions::default(), None, |machine| async move {
        let s = Script::new(&machine);
        s.kill(&leg(3, 0));
        // A spare is slow to take the configuration that says so.
        let until = s.machine.runtime.now_ns() + 10 * SECOND;
        s.bay("d5").drive.faults_mut().stall(until);
        let latch = Latch::default();
        let first = Script::new(&machine);
        latch.spawn(&machine.runtime, async move { first.write(0, BLOCK_SIZE).await });
        s.machine.pause(SECOND / 10).await;
        s.write(10 * BLOCK_SIZE, BLOCK_SIZE).await;
        s.flush().await;
    });
    stage.end(false);
    // A second loss: the leg that is left may not be taken for the one that knows all.
    stage.world.shelf.named(&leg(3, 0)).expect("a leg").drive.faults_mut().set_dead(false);
    let other = stage.world.shelf.named(&leg(3, 1)).expect("a leg");
    other.withheld.set(true);
    let why = stage.refused(degraded());
    if !why.contains("holds the newest writes") {
        stage.world.complain(format!("refused for another reason: {why}"));
    }
    other.withheld.set(false);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.verify().await;
        s.go_on().await;
        s.whole_again().await;
        s.verify().await;
        s.machine.audit().await;
    });
}

/// Blocks of the data space that are listed where one is lost: all its copies, or it and its parity.
fn listed(level: Level) -> u64 {
    match level {
        Level::Raid0 => 1,
        Level::Raid1 | Level::Raid5 | Level::Raid10 => 2,
        Level::Raid6 => 3,
    }
}

pub(super) fn block_that_no_leg_gives(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.write(0, 20 * BLOCK_SIZE).await;
            s.flush().await;
            s.stand_still(0, Strategy::WorkDisk).await;
            // Slots from 1 on; block 25 was never written at home.
            for block in [3, 7, 8, 9, 25, 30] {
                s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
            }
            s.flush().await;
            for at in 0..=tolerance {
                for slot in [3, 5] {
                    let name = leg(members, at);
                    let range = s.log_slot(&name, slot);
                    s.bay(&name).drive.faults_mut().spoil(range);
                }
            }
            let gone = BTreeSet::from([8, 25]);
            if s.unreadable().await != gone {
                s.machine.complain(format!("{:?} do not read", s.unreadable().await));
            }
            s.go_on().await;
            s.whole_again().await;
            s.machine.quiet().await;
            let (lost, count) =
                (s.unreadable().await, s.machine.array.report().groups[0].lost_blocks);
            if lost != gone || count != 2 * listed(level) {
                s.machine.complain(format!("{lost:?} do not read, {count} are listed"));
            }
        });
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            let lost = s.unreadable().await;
            if lost != BTreeSet::from([8, 25]) {
                s.machine.complain(format!("after a restart {lost:?} do not read"));
            }
            for block in lost {
                s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
            }
            s.flush().await;
            s.verify().await;
            s.machine.audit().await;
            let count = s.machine.array.report().groups[0].lost_blocks;
            if count > 0 {
                s.machine.complain(format!("{count} blocks are still listed"));
            }
            s.lose(tolerance);
            s.verify().await;
        });
    }
}

pub(super) fn rate_outlives_a_restart(seed: u64, trace: Trace) {
    const RATE: u64 = 100_000;
    for strategy in [Strategy::Direct, Strategy::WorkDisk] {
        let mut stage = stage(seed, &trace, Level::Raid5, 3);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.add_work_disk(2).await;
            s.write(0, s.size()).await;
            s.replace(1, RATE, strategy).await;
            s.machine.pause(SECOND).await;
        });
        act(&mut stage, AssembleOptions::default(), |s| async move {
            let begun = s.machine.runtime.now_ns();
            s.expect(4, DiskState::InSync).await;
            let took = s.machine.runtime.now_ns() - begun;
            // Half of the disk is left at least.
            if took < 5 * SECOND {
                let took = took / 1_000_000;
                s.machine.complain(format!("the rest was copied in {took} ms after a restart"));
            }
            s.verify().await;
        });
    }
}

pub(super) fn hung_copy_is_read_around(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage_of(seed, trace.clone(), level, members, 2);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.write(0, s.size()).await;
            s.flush().await;
            s.replace(1, 4 * SLOW, Strategy::WorkDisk).await;
            s.copied(50).await;
            s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "pause");
            let spare = s.bay(&format!("d{}", members + 1));
            spare.suspect.set(true);
            spare.drive.faults_mut().stall(u64::MAX);
            let begun = s.machine.runtime.now_ns();
            for offset in (0..s.size()).step_by(16 << 10) {
                let read = s.host.read(offset, (16 << 10).min(s.size() - offset)).await;
                s.host.must(read, "a read");
            }
            let took = s.machine.runtime.now_ns() - begun;
            if took > 6 * SECOND {
                s.machine.complain(format!(
                    "reads took {} ms beside a copy that hangs",
                    took / 1_000_000
                ));
            }
        });
    }
}

/// A degraded mirror fails to take a page of its intent map, and crashes while that is tried again.
pub(super) fn only_map_is_not_destroyed(seed: u64, trace: Trace) {
    let ready = || {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid1, 2, 0);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.kill("d2");
            s.write(0, BLOCK_SIZE).await;
            s.flush().await;
        });
        stage
    };
    let fail_once = |stage: &mut Stage, cut| {
        let end = stage.run(degraded(), cut, |machine| async move {
            let s = Script::new(&machine);
            let last = s.size() / BLOCK_SIZE * BLOCK_SIZE - BLOCK_SIZE;
            s.bay("d1").suspect.set(true);
            s.bay("d1").drive.faults_mut().fail_writes(1);
            // The first write in its region: its bit comes first, and cannot be had.
            let failed = s.host.write(last, BLOCK_SIZE, false).await;
            if failed.is_ok() {
                s.machine.complain("a write without its intent bit was answered".into());
            }
            let _ = s.host.write(last, BLOCK_SIZE, false).await;
        });
        stage.end(false);
        end
    };
    let crate::stage::RunEnd::Completed(steps) = fail_once(&mut ready(), None) else { return };
    for cut in steps.saturating_sub(40)..=steps {
        let mut stage = ready();
        fail_once(&mut stage, Some(cut));
        stage.world.shelf.named("d1").expect("a member").drive.faults_mut().clear();
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}
