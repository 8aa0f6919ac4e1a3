//! Stories of what a disk that was copied away could not give at first: it is kept, asked again, and tested only when it owes nothing.
//!
//! Owns the scripts; the list is in `avoidance.rs`. Invariants: what reads again comes back, under a shield and without one; what was written meanwhile never
//! returns to an older version, nor does parity; a disk that may be all that has a block is not written, and one that was written gives nothing.

use forestall_engine::health::Mode;
use forestall_engine::{
    AssembleOptions, AvoidanceState, BLOCK_SIZE, DiskNumber, DiskState, Event, GroupNumber, Health,
    Level, Strategy,
};

use super::events::spoil;
use crate::scenarios::{act, degraded};
use crate::script::Script;
use crate::shield::{SLOW, stage};
use crate::trace::Trace;

const CHUNK: u64 = 16 * 1024;
/// Stripes of which the first blocks are bad on two disks: the copied disk has each role in one of them.
const BAD: std::ops::Range<u64> = 8..13;

impl Script {
    /// The first `blocks` blocks of some stripes do not read on these disks.
    fn spoil_stripes(&self, disks: [&str; 2], blocks: u64) {
        for stripe in BAD {
            disks.iter().for_each(|disk| spoil(self, disk, stripe * CHUNK, blocks * BLOCK_SIZE));
        }
    }

    fn reads_again(&self, disk: &str) {
        self.bay(disk).drive.faults_mut().clear();
    }

    fn listed_lost(&self) -> u64 {
        self.machine.array.report().groups[0].lost_blocks
    }

    fn told(&self, kind: &str) -> Option<Event> {
        self.machine.array.events_after(0).into_iter().rfind(|event| event.kind == kind)
    }

    /// A scrub that only looks; whether it finds what nothing gives, and whether the status tells that.
    async fn scrub_finds(&self, unreadable: bool) {
        self.must(self.machine.array.scrub(GroupNumber(1), false, 0).await, "scrub");
        self.machine.quiet().await;
        let group = self.machine.array.report().groups.remove(0);
        let told = group.unreadable_blocks > 0 && group.health == Health::Failed;
        if told != unreadable {
            let (count, health) = (group.unreadable_blocks, group.health);
            self.machine
                .complain(format!("{count} blocks, {health:?}; there are any: {unreadable}"));
        }
    }

    /// Reads that nothing answers are told, before anybody scrubs.
    async fn reads_fail_aloud(&self) {
        let unreadable = self.unreadable().await;
        self.await_that("the word of failed reads", |s| s.event("reads-failed")).await;
        let group = self.machine.array.report().groups.remove(0);
        if unreadable.is_empty() || group.failed_reads == 0 || group.health != Health::Degraded {
            let (count, health) = (group.failed_reads, group.health);
            self.machine.complain(format!("{count} failed reads, {health:?}; {unreadable:?}"));
        }
    }

    async fn is(&self, disk: u32, state: DiskState) {
        let what = format!("disk {disk} as {state:?}");
        self.await_that(&what, |s| s.in_state(disk, state)).await;
    }

    /// Writes every block of the bad stripes that reads.
    async fn write_what_reads(&self) {
        let lost = self.unreadable().await;
        let stripe = self.size() / (2 << 20) * CHUNK;
        for at in (BAD.start * stripe..BAD.end * stripe).step_by(BLOCK_SIZE as usize) {
            if !lost.contains(&(at / BLOCK_SIZE)) {
                self.write(at, BLOCK_SIZE).await;
            }
        }
        self.flush().await;
    }

    /// The listing by volume has what does not read, but for what peers of a lost block do not read.
    async fn listing_is_true(&self) {
        let unreadable = self.unreadable().await;
        for range in self.machine.array.lost().iter().flat_map(|report| &report.ranges) {
            for block in range.offset / BLOCK_SIZE..(range.offset + range.len) / BLOCK_SIZE {
                if !unreadable.contains(&block) {
                    self.machine.complain(format!("block {block} is listed, and reads"));
                }
            }
        }
    }
}

pub(super) fn lost_blocks_come_back(seed: u64, trace: Trace) {
    for strategy in [Strategy::Direct, Strategy::WorkDisk] {
        for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 3)] {
            let mut stage = stage(seed, &trace, level, members);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_work_disk(2).await;
                s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
                s.write(0, s.size()).await;
                s.flush().await;
                s.spoil_stripes(["d1", "d2"], 2);
                s.replace(1, 0, strategy).await;
                s.is(1, DiskState::Replaced).await;
                s.machine.quiet().await;
                if s.listed_lost() == 0 {
                    s.machine.complain("nothing is lost".into());
                }
                s.listing_is_true().await;
                // A host writes some of the lost blocks anew: what the old disk has of them is older.
                let lost = s.unreadable().await;
                for block in lost.iter().step_by(2) {
                    s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
                }
                s.flush().await;
                s.machine.pause(1000 * 1_000_000_000).await;
                if !s.in_state(1, DiskState::Replaced) {
                    s.machine.complain("the only disk that may have a block was written".into());
                }
                s.reads_again("d1");
                s.await_that("the end of the list", |s| s.listed_lost() == 0).await;
                s.verify().await;
                s.is(1, DiskState::Spare).await;
                s.scribble(10).await;
                s.flush().await;
                s.verify().await;
                s.machine.audit().await;
                s.kill("d2");
                s.verify().await;
            });
        }
    }
}

pub(super) fn old_versions_stay_away(seed: u64, trace: Trace) {
    for strategy in [Strategy::Direct, Strategy::WorkDisk] {
        for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 4), (Level::Raid6, 4)] {
            let mut stage = stage(seed, &trace, level, members);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_work_disk(3).await;
                s.write(0, s.size()).await;
                s.flush().await;
                s.spoil_stripes(["d1", "d2"], 3);
                if level == Level::Raid6 {
                    BAD.for_each(|stripe| spoil(&s, "d3", stripe * CHUNK, 3 * BLOCK_SIZE));
                }
                s.replace(1, 0, strategy).await;
                s.is(1, DiskState::Replaced).await;
                s.machine.quiet().await;
                // Blocks of these stripes are written wherever that is possible: their parity on the old disk is older now.
                let lost = s.unreadable().await;
                let stripe = s.size() / (2 << 20) * CHUNK;
                for at in (BAD.start * stripe..BAD.end * stripe).step_by(BLOCK_SIZE as usize) {
                    if !lost.contains(&(at / BLOCK_SIZE)) && s.machine.rng(at).coin() {
                        s.write(at, BLOCK_SIZE).await;
                    }
                }
                s.flush().await;
                // The disk that has the slot now is copied in its turn: it never had what is lost.
                let before = s.unreadable().await;
                let holder = s.machine.array.report().groups[0].members[0].0;
                s.replace(holder, 0, strategy).await;
                s.await_that("the second copy", |s| {
                    s.machine.array.report().groups[0].members[0].0 != holder
                })
                .await;
                s.machine.quiet().await;
                let after = s.unreadable().await;
                if before != after {
                    s.machine.complain(format!("{before:?} did not read, and now {after:?}"));
                }
                s.reads_again("d1");
                s.machine.pause(1000 * 1_000_000_000).await;
                let _ = s.unreadable().await; // What reads is right.
                s.reads_again("d2");
                s.reads_again("d3");
                let lost = s.unreadable().await;
                for block in lost {
                    s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
                }
                s.flush().await;
                s.verify().await;
                s.scribble(10).await;
                s.flush().await;
                s.verify().await;
            });
        }
    }
}

/// What was lost with a copied disk, parity too, comes back by a scrub with repair once the peers read again; the old disk is never seen again.
pub(super) fn repair_brings_back_what_was_lost(seed: u64, trace: Trace) {
    for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 3), (Level::Raid6, 4)] {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
            s.write(0, s.size()).await;
            s.flush().await;
            s.spoil_stripes(["d1", "d2"], 2);
            if level == Level::Raid6 {
                BAD.for_each(|stripe| spoil(&s, "d3", stripe * CHUNK, 2 * BLOCK_SIZE));
            }
            s.reads_fail_aloud().await;
            s.scrub_finds(true).await;
            s.replace(1, 0, Strategy::Direct).await;
            s.is(1, DiskState::Replaced).await;
            s.kill("d1");
            if s.listed_lost() == 0 {
                s.machine.complain("nothing is lost".into());
            }
            ["d2", "d3"].iter().for_each(|disk| s.reads_again(disk));
            s.machine.quiet().await;
            s.must(s.machine.array.scrub(GroupNumber(1), true, 0).await, "scrub");
            s.machine.quiet().await;
            s.scrub_finds(false).await;
            if s.listed_lost() > 0 {
                s.machine.complain(format!("{} blocks stay lost", s.listed_lost()));
            }
            s.verify().await;
            s.kill("d2");
            s.verify().await;
        });
        // The list is gone for good.
        act(&mut stage, degraded(), |s| async move {
            if s.listed_lost() > 0 {
                s.machine.complain(format!("{} blocks are listed again", s.listed_lost()));
            }
            s.verify().await;
        });
    }
}

/// The copy is cancelled when it has found blocks that neither the disk nor its peers read; the disk is out for a while, is caught up, and is copied
/// away once more: what stands on it in those blocks now was never theirs.
pub(super) fn a_disk_that_came_back_owes_nothing(seed: u64, trace: Trace) {
    for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 3)] {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            let array = &s.machine.array;
            let spares = [members as u32 + 1, members as u32 + 2].map(DiskNumber);
            s.must(array.remove_disk(spares[1]).await, "disk remove");
            s.write(0, s.size()).await;
            s.flush().await;
            s.spoil_stripes(["d1", "d2"], 2);
            s.replace(1, SLOW, Strategy::Direct).await;
            s.await_that("a lost block", |s| s.listed_lost() > 0).await;
            s.must(array.cancel_replace(DiskNumber(1)).await, "replace cancel");
            s.await_that("a free spare", |s| s.in_state(spares[0].0, DiskState::Spare)).await;
            s.must(array.remove_disk(spares[0]).await, "disk remove");
            s.must(array.fail_disk(DiskNumber(1)).await, "disk fail");
            // What is written of the bad stripes is caught up with all that lies about it.
            s.write_what_reads().await;
            s.must(array.readd_disk(DiskNumber(1), None).await, "readd");
            s.is(1, DiskState::InSync).await;
            s.machine.quiet().await;
            s.add_spare().await;
            let before = s.unreadable().await;
            s.replace(1, 0, Strategy::Direct).await;
            s.is(1, DiskState::Replaced).await;
            s.machine.quiet().await;
            let after = s.unreadable().await; // What reads is right.
            if before.is_empty() || before != after {
                s.machine.complain(format!("{before:?} did not read, and now {after:?}"));
            }
        });
    }
}

/// The machine stops while updates go home; after the start nobody knows what the replaced disk owes, so it is not written as long as anything is lost.
pub(super) fn kept_over_a_restart(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid1, 2);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.add_work_disk(2).await;
        s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
        s.write(0, s.size()).await;
        s.flush().await;
        s.stand_still(0, Strategy::WorkDisk).await;
        // Away from what is lost: that stays lost when updates go home.
        for at in (1 << 19..s.size()).step_by(1 << 16) {
            s.write(at, BLOCK_SIZE).await;
        }
        s.flush().await;
        s.spoil_stripes(["d1", "d2"], 2);
        s.go_on().await;
        s.sees(AvoidanceState::WritingBack).await;
        if s.listed_lost() == 0 {
            s.machine.complain("nothing is lost".into());
        }
    });
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.whole_again().await;
        s.machine.pause(1000 * 1_000_000_000).await;
        if s.listed_lost() == 0 || !s.in_state(1, DiskState::Replaced) {
            s.machine.complain("the only disk that may have a block was written".into());
        }
        let lost = s.unreadable().await;
        for block in lost {
            s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
        }
        s.flush().await;
        s.is(1, DiskState::Spare).await;
        s.verify().await;
    });
}

pub(super) fn retired_disks_are_tested(seed: u64, trace: Trace) {
    // Without a shield.
    let mut stage_direct = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage_direct, AssembleOptions::default(), |s| async move {
        s.write(0, s.size()).await;
        s.replace(1, 0, Strategy::Direct).await;
        s.is(1, DiskState::Spare).await;
        s.verify().await;
        // One that does not take writes any more.
        s.bay("d2").suspect.set(true);
        let size = s.bay("d2").drive.size();
        s.bay("d2").drive.faults_mut().protect(size / 2..size);
        s.replace(2, 0, Strategy::Direct).await;
        s.await_that("the end of the test", |s| s.told("retired-failed-test").is_some()).await;
        let report = s.machine.array.report();
        let disk = report.disks.iter().find(|disk| disk.number.0 == 2).expect("it is listed");
        if disk.state != DiskState::Replaced || !disk.notes.iter().any(|n| n.contains("failed")) {
            s.machine.complain(format!("{:?}, {:?}", disk.state, disk.notes));
        }
        // One that gives back something else than was written: no spare either, and not brought back untested.
        s.bay("d3").suspect.set(true);
        s.bay("d3").drive.faults_mut().lose_writes(1000);
        s.replace(3, 0, Strategy::Direct).await;
        let failed = |s: &Script| s.told("retired-failed-test").and_then(|event| event.disk);
        s.await_that("the end of the test", |s| failed(s) == Some(DiskNumber(3))).await;
        s.reads_again("d3");
        let readded = s.machine.array.readd_disk(DiskNumber(3), None).await;
        s.must_refuse(readded, "failed the test after it was replaced (at ");
        s.is(3, DiskState::Replaced).await;
        s.verify().await;
    });
    // Two under one shield.
    let mut stage_two = stage(seed, &trace, Level::Raid5, 4);
    act(&mut stage_two, AssembleOptions::default(), |s| async move {
        s.add_work_disk(2).await;
        s.write(0, s.size()).await;
        s.replace(1, 4 * SLOW, Strategy::WorkDisk).await;
        s.copying().await;
        s.replace(2, 0, Strategy::WorkDisk).await;
        s.whole_again().await;
        s.is(1, DiskState::Spare).await;
        s.is(2, DiskState::Spare).await;
        s.verify().await;
    });
}
