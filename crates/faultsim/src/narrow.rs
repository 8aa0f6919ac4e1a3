//! Stories of narrow moments: a crash or a loss in the one instant in which a rule matters, which chance hardly meets.
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: the instant is made wide, never awaited: by a disk that is slow, by one request that takes long,
//! by a commit that waits for a slow disk.

use std::cell::Cell;
use std::rc::Rc;

use forestall_engine::format::layout::{Layout, Region};
use forestall_engine::{
    AssembleOptions, AvoidanceState, BLOCK_SIZE, DiskNumber, DiskRole, DiskState, Level, Runtime,
    Strategy,
};

use crate::disk::Drive;
use crate::machine::Latch;
use crate::medium::Loss;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of, stage_unchecked};
use crate::shield::{LEVELS, SECOND, SLOW, stage};
use crate::stage::{RunEnd, Stage};
use crate::trace::Trace;

const MILLISECOND: u64 = 1_000_000;
/// Large enough to be spread over members, and no more than a log holds.
const PIECE: u64 = 64 << 10;

fn drive(stage: &Stage, number: usize) -> Drive {
    stage.world.shelf.all()[number - 1].drive.clone()
}

fn writes(drive: &Drive) -> u64 {
    drive.accesses().data_writes + drive.accesses().other_writes
}

/// A write that is on its way home when the shield goes up takes long: the copy begins after it has ended (rule A1).
pub(crate) fn write_home_takes_long(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.write(0, PIECE).await;
            // The request that the disk has while it stalls takes long, those that come after do not.
            let slow = s.bay("d2").drive.clone();
            let before = writes(&slow);
            slow.faults_mut().stall(s.machine.runtime.now_ns() + 5 * SECOND);
            let (home, latch) = (Rc::new(Cell::new(false)), Latch::default());
            let (writer, ended) = (Script::new(&s.machine), Rc::clone(&home));
            latch.spawn(&s.machine.runtime, async move {
                writer.write(0, PIECE).await;
                ended.set(true);
            });
            while writes(&slow) == before {
                s.machine.pause(MILLISECOND / 100).await;
            }
            slow.faults_mut().stall(0);
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            while s.state() == Some(AvoidanceState::Entering) {
                s.machine.pause(MILLISECOND / 10).await;
            }
            if !home.get() {
                s.machine.complain("the copy begins before a write is home".into());
            }
            latch.all().await;
            s.whole_and_sound().await;
        });
    }
}

/// The spare is slow, and the power goes the moment that the cursor stands on another disk: what lies below it is on the spare (rule A2). Without
/// checksums, for blocks of which no checksum came with them are mended from the peers.
pub(crate) fn cursor_is_faster_than_the_spare(seed: u64, trace: Trace) {
    for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 3), (Level::Raid10, 4)] {
        let spare = members + 1;
        let mut stage = stage_unchecked(seed, trace.clone(), level, members, 1);
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            s.write(0, s.size()).await;
            s.flush().await;
            machine.pause(30 * SECOND).await; // No region is marked any more.
            s.must(machine.array.replace(DiskNumber(1), None, 0).await, "replace 1");
            s.bay(&format!("d{spare}")).drive.faults_mut().slow_down(200);
            s.page_written(|layout| layout.cursors).await;
            machine.pause(MILLISECOND).await; // So long takes a flush.
        });
        let late = drive(&stage, spare);
        late.faults_mut().clear();
        late.crash(Loss::All);
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.expect(spare as u32, DiskState::InSync).await;
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

/// Hosts write below the cursor of a copy that is not shielded, and in a crash the spare alone loses that: it is copied to the spare again (rule M4).
pub(crate) fn spare_loses_what_is_below_the_cursor(seed: u64, trace: Trace) {
    for checksums in [true, false] {
        let made = if checksums { stage_of } else { stage_unchecked };
        let mut stage = made(seed, trace.clone(), Level::Raid1, 2, 1);
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            s.write(0, s.size()).await;
            s.flush().await;
            machine.pause(30 * SECOND).await; // No region is marked any more.
            s.must(machine.array.replace(DiskNumber(1), None, 512 << 10).await, "replace 1");
            s.page_written(|layout| layout.cursors).await;
            machine.pause(10 * MILLISECOND).await;
            s.write(0, 4 * PIECE).await;
        });
        drive(&stage, 3).crash(Loss::All);
        [1, 2].iter().for_each(|member| drive(&stage, *member).crash(Loss::Nothing));
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.verify().await;
            s.expect(3, DiskState::InSync).await;
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

/// The flush of a disk that cannot be spared fails, and at that moment the list of lost blocks cannot be written either: the next flush that succeeds has
/// it on disk, so that after a crash nothing older is taken for what was lost (rules F2, M5).
pub(crate) fn list_fails_with_the_flush(seed: u64, trace: Trace) {
    let mut stage = stage_unchecked(seed, trace, Level::Raid0, 2, 0);
    stage.run(AssembleOptions::default(), None, |machine| async move {
        let s = Script::new(&machine);
        s.write(0, 8 * PIECE).await;
        s.flush().await;
        let drives = ["d1", "d2"].map(|name| s.bay(name).drive.clone());
        let lists = Layout::for_size(drives[0].size()).expect("a labelled disk").lost;
        for drive in &drives {
            lists.iter().for_each(|list| drive.faults_mut().protect(list.offset..list.end()));
        }
        s.write(0, 8 * PIECE).await;
        drives[0].faults_mut().fail_flushes(1);
        if s.host.flush().await.is_ok() {
            machine.complain("a flush succeeded that a disk failed".into());
        }
        drives.iter().for_each(|drive| drive.faults_mut().clear());
        s.flush().await;
    });
    [1, 2].iter().for_each(|disk| drive(&stage, *disk).crash(Loss::All));
    stage.end(false);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        if s.unreadable().await.is_empty() {
            s.machine.complain("nothing is lost although a flush failed".into());
        }
    });
}

impl Script {
    /// Waits until the next write of a page in one of these two places of the first disk.
    async fn page_written(&self, places: impl Fn(&Layout) -> [Region; 2]) {
        let drive = self.bay("d1").drive.clone();
        let layout = Layout::for_size(drive.size()).expect("a labelled disk");
        let is_page = |at: &u64| places(&layout).iter().any(|p| (p.offset..p.end()).contains(at));
        let mut seen = writes(&drive);
        for _ in 0..1_000_000 {
            self.machine.pause(MILLISECOND / 20).await;
            let new = (writes(&drive) - seen) as usize;
            seen = writes(&drive);
            if drive.last_written().iter().take(new).any(is_page) {
                return;
            }
        }
        self.machine.complain("no such page is written".into());
    }
}

/// A mirror fails a write while a commit waits for a slow disk: the flush after is answered when a configuration without that mirror counts,
/// and the power goes that moment (rule F1).
pub(crate) fn flush_meets_a_slow_commit(seed: u64, trace: Trace) {
    for (level, members) in [(Level::Raid1, 2), (Level::Raid10, 4)] {
        for errs in 1..=2 {
            let mut stage = stage_unchecked(seed, trace.clone(), level, members, 1);
            let slow = members + 1;
            stage.run(AssembleOptions::default(), None, move |machine| async move {
                let s = Script::new(&machine);
                s.write(0, s.size()).await;
                s.flush().await;
                s.bay(&format!("d{slow}")).drive.faults_mut().slow_down(300);
                let operator = machine.clone();
                machine.runtime.spawn(Box::pin(async move {
                    let _ = operator.array.set_strategy("v1", Strategy::Direct).await;
                }));
                machine.pause(10 * MILLISECOND).await;
                let bay = s.bay(&format!("d{errs}"));
                bay.suspect.set(true);
                bay.drive.faults_mut().fail_writes(1);
                s.write(0, PIECE).await;
                s.flush().await;
            });
            [errs, slow].iter().for_each(|n| drive(&stage, *n).faults_mut().clear());
            stage.end(false);
            act(&mut stage, degraded(), |s| async move {
                s.verify().await;
                s.verify().await;
            });
        }
    }
}

/// Three of four disks are lost at once and nobody says that it may go on; then those three are back, without the fourth. What the fourth took alone
/// was never promised (rules C2, C3).
pub(crate) fn few_do_not_go_on_alone(seed: u64, trace: Trace) {
    for lone in 1..=4 {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid1, 4, 0);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.write(0, PIECE).await });
        let others = (1..=4).filter(move |disk| *disk != lone);
        let lost = others.clone();
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            machine.stopped.set(true); // Nobody looks after it.
            let s = Script::new(&machine);
            lost.for_each(|disk| s.kill(&format!("d{disk}")));
            let host = Script::new(&machine).host;
            machine.runtime.spawn(Box::pin(async move {
                // Answered or not: what is answered is promised.
                let _ = host.write(0, PIECE, false).await;
                let _ = host.flush().await;
            }));
            machine.pause(100 * SECOND).await;
        });
        others.for_each(|disk| drive(&stage, disk).faults_mut().repair());
        stage.world.shelf.all()[lone - 1].withheld.set(true);
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.verify().await });
    }
}

/// A disk joins a group, and maps change between the copy of them that it gets and the commit that makes it a member. Soon after it is alone:
/// its maps are those of the group (rule M1).
pub(crate) fn maps_change_while_a_disk_joins(seed: u64, trace: Trace) {
    for checksums in [true, false] {
        let made = if checksums { stage_of } else { stage_unchecked };
        let mut stage = made(seed, trace.clone(), Level::Raid1, 2, 0);
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            s.write(0, PIECE).await;
            let slow = machine.world.shelf.add(2 << 20, seed);
            let disk = slow.hand_over(&machine.runtime);
            s.must(machine.array.add_disk(disk, DiskRole::Free).await, "disk add");
            s.must(machine.array.fail_disk(DiskNumber(1)).await, "fail 1");
            s.flush().await;
            // The commit waits for this one, long enough for a write and a flush of what was never written.
            slow.drive.faults_mut().slow_down(500);
            let (joining, latch) = (machine.clone(), Latch::default());
            latch.spawn(&machine.runtime, async move {
                let joined = joining.array.readd_disk(DiskNumber(1), None).await;
                Script::new(&joining).must(joined, "readd 1");
            });
            machine.pause(50 * MILLISECOND).await;
            s.write(s.size() / 2, PIECE).await;
            s.flush().await;
            latch.all().await;
            s.expect(1, DiskState::InSync).await;
        });
        drive(&stage, 3).faults_mut().clear();
        stage.world.shelf.all()[1].die();
        stage.end(false);
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

/// The newest configuration is torn on one disk; the start after that is cut while it writes the next one, at each step. The disk still has a
/// configuration, and starts alone (rule C1).
pub(crate) fn configuration_is_torn_twice(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid1, 2, 0);
    act(&mut stage, AssembleOptions::default(), |s| async move { s.write(0, PIECE).await });
    let (torn, other) = (drive(&stage, 1), drive(&stage, 2));
    stage.run(AssembleOptions::default(), None, move |machine| async move {
        machine.pause(5 * SECOND).await; // Both slots have the newest.
        Script::new(&machine).bay("d1").drive.faults_mut().slow_down(1000);
        let operator = machine.clone();
        machine.runtime.spawn(Box::pin(async move {
            let _ = operator.array.set_strategy("v1", Strategy::Direct).await;
        }));
        machine.pause(20 * MILLISECOND).await; // The other disk has it, this one does not yet.
    });
    let slots = Layout::for_size(torn.size()).expect("a labelled disk").config;
    let at = *torn.last_written().first().expect("it was written");
    assert!(slots.iter().any(|slot| slot.offset == at), "the configuration was on its way");
    torn.crash(Loss::All);
    stage.end(false);
    let images = [torn.image(), other.image()];
    for cut in 1.. {
        for (drive, image) in [&torn, &other].into_iter().zip(&images) {
            drive.restore(image.clone());
            drive.faults_mut().clear();
        }
        torn.faults_mut().spoil(at..at + BLOCK_SIZE);
        torn.faults_mut().slow_down(1000);
        let ended = stage.run(AssembleOptions::default(), Some(cut), |_| async {});
        torn.faults_mut().slow_down(1);
        let contents = || {
            let image = torn.image();
            slots.map(|slot| image[slot.offset as usize..][..BLOCK_SIZE as usize].to_vec())
        };
        let before = contents();
        torn.crash(Loss::All);
        let cut_short = (0..2).find(|slot| contents()[*slot] != before[*slot]);
        if let Some(slot) = cut_short {
            torn.faults_mut().spoil(slots[slot].offset..slots[slot].offset + BLOCK_SIZE);
        }
        other.faults_mut().set_dead(true);
        stage.end(false);
        if cut_short.is_some() {
            act(&mut stage, degraded(), |s| async move { s.verify().await });
        }
        if matches!(ended, RunEnd::Completed(_)) {
            return;
        }
    }
}

/// What was written to mirrors is not flushed by a host, and the bits of its regions are swept. The power goes when the bitmap stands on one mirror, and the other,
/// which is slow, loses what it was not made to keep: nothing that differs is unmarked (rule M2).
pub(crate) fn unflushed_when_bits_are_swept(seed: u64, trace: Trace) {
    for (level, members) in [(Level::Raid1, 2), (Level::Raid10, 4)] {
        let mut stage = stage_unchecked(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.write(0, s.size()).await });
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            for turn in 0..2 {
                for at in (0..s.size()).step_by(PIECE as usize) {
                    s.write(at + turn * BLOCK_SIZE, BLOCK_SIZE).await;
                }
                // The bits are at rest in both places: until they are swept, nothing flushes the disks for their sake.
                machine.pause((1 - turn) * 3 * SECOND).await;
            }
            s.bay("d2").drive.faults_mut().slow_down(300);
            s.page_written(|layout| layout.intent).await;
            machine.pause(MILLISECOND).await; // So long takes a flush.
        });
        let late = drive(&stage, 2);
        late.faults_mut().clear();
        late.crash(Loss::All);
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.verify().await;
            s.machine.audit().await;
            s.verify().await;
        });
    }
}

/// A copy with a shield begins and is cancelled while hosts write and flush, and the power goes: no region has lost its bit while the flush that covers its last write
/// was under way (rule M2).
pub(crate) fn swept_beside_a_flush(seed: u64, trace: Trace) {
    for round in 0..100 {
        let mut stage = stage_of(seed * 1000 + round, trace.clone(), Level::Raid1, 2, 1);
        let cancelled = stage.rng.below(2 * MILLISECOND);
        let power_goes = stage.rng.below(2 * MILLISECOND);
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            s.add_work_disk(2).await;
            s.write(0, s.size()).await;
            s.flush().await;
            let latch = Latch::default();
            for host in 0..4 {
                let (writer, mut rng) = (Script::new(&machine), machine.rng(60 + host));
                latch.spawn(&machine.runtime, async move {
                    loop {
                        writer.write(rng.below(20) * PIECE, BLOCK_SIZE).await;
                        if rng.percent(50) {
                            writer.flush().await;
                        }
                    }
                });
            }
            s.replace(1, 0, Strategy::WorkDisk).await;
            machine.pause(cancelled).await;
            s.must(machine.array.cancel_replace(DiskNumber(1)).await, "replace cancel 1");
            machine.pause(power_goes).await;
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

/// A pair is made equal and no host flushes; the power goes soon after its bits are gone, and one side's disks lose what they were not made to keep.
/// No bit left means equal volumes (rule B2).
pub(crate) fn bits_are_gone_before_a_crash(seed: u64, trace: Trace) {
    for loses in [1..=3_usize, 4..=5] {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 0);
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let mut s = Script::new(&machine);
            s.add_secondary(Level::Raid1, 2).await;
            s.scribble(20).await;
            s.pair_up().await;
            s.equal().await;
            s.scribble(20).await;
            s.equal().await;
            machine.pause(SECOND / 10).await;
        });
        loses.for_each(|disk| drive(&stage, disk).crash(Loss::All));
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.equal().await;
            s.verify().await;
            s.compare().await;
        });
    }
}
