//! Stories of the last thing that can give a block: the last leg of a log, no leg at all, the only drive with a map, a copy that hangs.
//!
//! Owns the scripts; the list is in `avoidance.rs`. Invariant: what can still be read is read; what nothing gives is listed, exactly that.

use std::collections::BTreeSet;
use std::ops::Range;

use forestall_engine::format::layout::Layout;
use forestall_engine::format::log::LogShape;
use forestall_engine::{
    AssembleOptions, BLOCK_SIZE, DiskNumber, DiskState, Level, NewDisk, Runtime, Strategy,
};

use crate::machine::{Latch, Machine};
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::shield::{LEVELS, SECOND, SET, SLOW, accesses, stage};
use crate::target::SimEnv;
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
    pub(crate) async fn unreadable(&self) -> BTreeSet<u64> {
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
pub(super) fn leg(members: usize, at: usize) -> String {
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
            s.whole_and_sound().await;
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
        // It takes no payload any more.
        s.bay(&leg(3, 0)).suspect.set(true);
        let slots = s.log_slot(&leg(3, 0), 1).start..u64::MAX;
        s.bay(&leg(3, 0)).drive.faults_mut().protect(slots);
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
        s.whole_and_sound().await;
    });
}

/// Blocks of members that are listed where one of the data space is lost: all its copies. Parity agrees with them and is not listed.
pub(super) fn listed(level: Level) -> u64 {
    match level {
        Level::Raid0 | Level::Raid5 | Level::Raid6 => 1,
        Level::Raid1 | Level::Raid10 => 2,
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

/// A degraded mirror fails to take a page of its intent map: the next try goes to the same place, for the other one holds all there is.
pub(super) fn only_map_is_not_destroyed(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid1, 2, 0);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.kill("d2");
        s.write(0, BLOCK_SIZE).await;
        s.flush().await;
    });
    act(&mut stage, degraded(), |s| async move {
        let places = |s: &Script| {
            let image = s.bay("d1").drive.image();
            let at = |at: u64| image[at as usize..at as usize + 4096].to_vec();
            s.layout("d1").intent.map(|place| at(place.offset))
        };
        let blocks = s.size() / BLOCK_SIZE;
        // Each is the first write in its region: its bit comes first.
        let before = places(&s);
        s.write(blocks / 2 * BLOCK_SIZE, BLOCK_SIZE).await;
        let good = places(&s);
        let newest = (0..2).find(|at| before[*at] != good[*at]).expect("a page was written");
        s.bay("d1").suspect.set(true);
        s.bay("d1").drive.faults_mut().fail_writes(1);
        let failed = s.host.write((blocks - 1) * BLOCK_SIZE, BLOCK_SIZE, false).await;
        if failed.is_ok() {
            s.machine.complain("a write without its intent bit was answered".into());
        }
        s.write((blocks - 1) * BLOCK_SIZE, BLOCK_SIZE).await;
        let after = places(&s);
        if after[newest] != good[newest] || after[1 - newest] == good[1 - newest] {
            s.machine.complain("the last page that was good was written over".into());
        }
    });
    act(&mut stage, degraded(), |s| async move { s.verify().await });
}

/// Legs of so many bytes each, new on the shelf.
fn new_legs(s: &Script, sizes: &[u64]) -> Vec<NewDisk<SimEnv>> {
    let shelf = &s.machine.world.shelf;
    let bays = sizes.iter().map(|size| shelf.add(*size, s.machine.world.seed));
    bays.map(|bay| bay.hand_over(&s.machine.runtime)).collect()
}

pub(super) fn log_is_copied_anew(seed: u64, trace: Trace) {
    for round in 0..4 {
        // A log that is no less safe than home with one leg left: what it holds is not drained early.
        let mut stage = stage(seed * 10 + round, &trace, Level::Raid0, 2);
        act(&mut stage, AssembleOptions::default(), |mut s| async move {
            let legs = new_legs(&s, &[2 << 20, 3 << 20]); // d5, d6
            s.must(s.machine.array.add_work_disk(SET, legs, Vec::new()).await, "work-disk add");
            s.scribble(20).await;
            s.stand_still(SLOW, Strategy::WorkDisk).await;
            s.scribble(30).await;
            let more = s.machine.array.add_work_disk(SET, new_legs(&s, &[2 << 20]), Vec::new());
            s.must_refuse(more.await, "lacks no leg");
            s.kill("d5");
            s.scribble(5).await;
        });
        // The smaller leg is gone: the log is read as it was written all the same.
        act(&mut stage, degraded(), |s| async move { s.verify().await });
        let copied = move |machine: Machine| async move {
            let mut s = Script::new(&machine);
            let small = s.machine.array.add_work_disk(SET, new_legs(&s, &[1 << 20]), Vec::new());
            s.must_refuse(small.await, "nothing was changed");
            let latch = Latch::default();
            for _ in 0..3 {
                let mut other = Script::new(&machine);
                latch.spawn(&machine.runtime, async move {
                    for _ in 0..12 {
                        other.scribble(4).await;
                        other.flush().await;
                    }
                });
            }
            let legs = new_legs(&s, &[2 << 20]); // d9: d7 and d8 were refused
            s.must(s.machine.array.add_work_disk(SET, legs, Vec::new()).await, "a new leg");
            s.kill("d6");
            latch.all().await;
            s.scribble(10).await;
            s.flush().await;
            s.verify().await;
        };
        stage.run(degraded(), None, copied);
        stage.end(false);
        act(&mut stage, degraded(), |mut s| async move {
            s.verify().await;
            s.scribble(5).await;
            s.go_on().await;
            s.whole_and_sound().await;
            let away: Vec<_> = s.machine.array.report().disks;
            let lost =
                away.iter().filter(|d| d.work_disk == Some(SET) && d.state != DiskState::Work);
            for leg in lost {
                s.must(s.machine.array.remove_disk(leg.number).await, "removal of a lost leg");
            }
            s.must(s.machine.array.remove_work_disk(SET).await, "work-disk remove");
        });
    }
}

pub(super) fn weak_log_is_mended(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(20).await;
            s.stand_still(SLOW, Strategy::WorkDisk).await;
            s.scribble(10).await;
            s.kill(&leg(members, 0));
            s.scribble(5).await;
            let legs = new_legs(&s, &[2 << 20]);
            s.must(s.machine.array.add_work_disk(SET, legs, Vec::new()).await, "a new leg");
            s.machine.quiet().await;
            s.flush().await;
            // New writes go to it again.
            let before = accesses(&s.machine.array.report(), members);
            s.scribble(10).await;
            s.flush().await;
            let after = accesses(&s.machine.array.report(), members);
            if before.iter().zip(&after).any(|(b, a)| b.writes != a.writes) {
                s.machine.complain("writes go home although the log has its legs again".into());
            }
            (1..=tolerance).for_each(|at| s.kill(&leg(members, at)));
            s.flush().await;
            s.verify().await;
            s.go_on().await;
            s.whole_and_sound().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}
