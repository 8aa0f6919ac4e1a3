//! Stories of shielded groups: a disk is copied while writes go elsewhere.
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: counts of disk accesses are compared over stretches in which nothing but the
//! hosts and the copy is at work.

use forestall_engine::format::layout::Layout;
use forestall_engine::{
    AccessCounts, ArrayReport, AssembleOptions, AvoidanceState, DiskNumber, DiskRole, DiskState,
    GroupNumber, GroupSpec, JournalMode, Level, Strategy, VolumeSpec,
};

use crate::coverage::{Cell, reached};
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::stage::Stage;
use crate::trace::Trace;

pub(crate) const SECOND: u64 = 1_000_000_000;
/// Number of the work-disk set.
pub(crate) const SET: DiskNumber = DiskNumber(60);
/// A copy that takes long enough for hosts to do something meanwhile.
pub(crate) const SLOW: u64 = 200_000;

/// Levels with members and what they survive.
pub(crate) const LEVELS: [(Level, usize, usize); 5] = [
    (Level::Raid0, 2, 0),
    (Level::Raid1, 2, 1),
    (Level::Raid5, 4, 1),
    (Level::Raid6, 5, 2),
    (Level::Raid10, 4, 1),
];

impl Script {
    /// Adds a work-disk set of so many legs.
    pub(crate) async fn add_work_disk(&self, legs: usize) {
        let legs = (0..legs)
            .map(|_| {
                let bay = self.machine.world.shelf.add(2 << 20, self.machine.world.seed);
                bay.hand_over(&self.machine.runtime)
            })
            .collect();
        let added = self.machine.array.add_work_disk(SET, legs, Vec::new()).await;
        self.must(added, "work-disk add");
    }

    /// Adds a group of its own, without a volume.
    pub(crate) async fn add_group(&self, level: Level, members: usize, disk: u64) -> GroupNumber {
        let mut disks = Vec::new();
        for _ in 0..members {
            let bay = self.machine.world.shelf.add(disk, self.machine.world.seed);
            let added =
                self.machine.array.add_disk(bay.hand_over(&self.machine.runtime), DiskRole::Free);
            disks.push(self.must(added.await, "disk add"));
        }
        let spec = GroupSpec {
            level,
            disks,
            chunk: 16 * 1024,
            journal: JournalMode::default(),
            checksums: true,
        };
        self.must(self.machine.array.create_group(spec).await, "group create").0
    }

    /// Adds a group of its own with a work volume "w" over all of it.
    pub(crate) async fn add_work_volume(&self, level: Level, members: usize) {
        let group = self.add_group(level, members, 2 << 20).await;
        let spec = VolumeSpec { name: "w".into(), group, size: None, number: None };
        self.must(self.machine.array.create_volume(spec).await, "volume create");
        self.must(self.machine.array.add_work_volume("w", &[]).await, "work-volume add");
    }

    /// Adds what a strategy needs for a group that survives so many failures.
    pub(crate) async fn add_backup(&self, strategy: Strategy, tolerance: usize) {
        match strategy {
            Strategy::WorkVolume if tolerance == 2 => self.add_work_volume(Level::Raid6, 4).await,
            Strategy::WorkVolume => self.add_work_volume(Level::Raid1, 2).await,
            Strategy::Pair => self.have_pair(tolerance).await,
            _ => self.add_work_disk(tolerance + 1).await,
        }
    }

    pub(crate) fn state(&self) -> Option<AvoidanceState> {
        self.machine.array.avoidance(GroupNumber(1)).map(|a| a.state)
    }

    /// Waits for a condition in virtual time.
    pub(crate) async fn await_that(&self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..40_000 {
            if done(self) {
                return;
            }
            self.machine.pause(SECOND / 100).await;
        }
        self.machine.complain(format!(
            "{what} did not come about; events: {:?}",
            self.machine.array.events_after(0)
        ));
    }

    pub(crate) async fn copying(&self) {
        self.await_that("the copy", |s| s.state() == Some(AvoidanceState::Copying)).await;
    }

    pub(crate) async fn whole_again(&self) {
        self.await_that("the end of the avoidance", |s| s.state().is_none()).await;
    }

    /// The avoidance comes to its end, and everything is right: what hosts read and what lies on the disks.
    pub(crate) async fn whole_and_sound(&self) {
        self.whole_again().await;
        self.verify().await;
        self.machine.audit().await;
    }

    /// Hosts write, flush and read everything: the first `members` disks take no write, and the first gives no read where it has peers.
    pub(crate) async fn use_shielded(&mut self, level: Level, members: usize) {
        let before = accesses(&self.machine.array.report(), members);
        self.scribble(40).await;
        self.flush().await;
        self.verify().await;
        let after = accesses(&self.machine.array.report(), members);
        for (at, (before, after)) in before.iter().zip(&after).enumerate() {
            if before.writes != after.writes {
                self.machine.complain(format!("disk {} was written while shielded", at + 1));
            }
        }
        if level != Level::Raid0 && before[0].reads != after[0].reads {
            self.machine.complain("the ailing disk was read by hosts".into());
        }
    }

    /// From now on a disk's writes to its data space are counted by themselves.
    pub(crate) fn watch_data(&self, disk: &str) {
        let bay = self.bay(disk);
        let data = Layout::for_size(bay.drive.size()).expect("it has a layout").data;
        bay.drive.set_data(data.offset..data.offset + data.len);
    }

    /// Kills the disks from the second on, as many as may be lost.
    pub(crate) fn lose(&self, tolerance: usize) {
        for disk in 0..tolerance {
            self.kill(&format!("d{}", 2 + disk));
        }
    }

    /// Status tells how much went home past the backup.
    fn tells_of_overflow(&self) {
        let report = self.machine.array.report();
        let shielded = report.groups.iter().filter_map(|g| g.avoidance.as_ref());
        let blocks: u64 = shielded.flat_map(|a| &a.volumes).map(|v| v.overflowed_blocks).sum();
        let told = |p: &forestall_engine::Problem| p.action.contains("full: ");
        if blocks == 0 || !report.problems.iter().any(told) {
            self.machine.complain(format!("{blocks} blocks went home, and: {:?}", report.problems));
        }
    }

    pub(crate) async fn replace(&self, disk: u32, rate: u64, strategy: Strategy) {
        let array = &self.machine.array;
        let replaced = array.replace_shielded(DiskNumber(disk), None, rate, strategy).await;
        self.must(replaced, "replace");
    }
}

/// Accesses of the first `members` disks.
pub(crate) fn accesses(report: &ArrayReport, members: usize) -> Vec<AccessCounts> {
    report.disks.iter().take(members).map(|d| d.accesses).collect()
}

pub(crate) fn stage(seed: u64, trace: &Trace, level: Level, members: usize) -> Stage {
    stage_of(seed, trace.clone(), level, members, 2)
}

/// Hosts write and flush until the machine crashes at step `cut`.
pub(crate) fn write_until_crash(stage: &mut Stage, cut: u64) {
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

/// Three crashes under writes; after some of them everything is read twice.
pub(crate) fn crash_often(stage: &mut Stage) {
    for _ in 0..3 {
        let cut = stage.rng.within(300..6000);
        write_until_crash(stage, cut);
        if stage.rng.percent(50) {
            act(stage, AssembleOptions::default(), |s| async move {
                s.verify().await;
                s.verify().await;
            });
        }
    }
}

/// While shielded: hosts' writes reach the group's members 0 times, hosts' reads the ailing disk 0 times where peers answer.
pub(crate) fn shielded_replace(seed: u64, trace: Trace) {
    for strategy in [Strategy::WorkDisk, Strategy::WorkVolume] {
        for (level, members, tolerance) in LEVELS {
            let mut stage = stage(seed, &trace, level, members);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_backup(strategy, tolerance).await;
                s.scribble(40).await;
                s.replace(1, SLOW, strategy).await;
                s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "pause");
                s.copying().await;
                s.use_shielded(level, members).await;
                s.must(s.machine.array.resume_replace(DiskNumber(1)).await, "resume");
                s.scribble(20).await;
                s.whole_again().await;
                // Tested and found healthy: a spare again.
                s.expect(1, DiskState::Spare).await;
                s.verify().await;
                s.machine.audit().await;
                s.lose(tolerance);
                s.scribble(10).await;
                s.verify().await;
            });
            act(&mut stage, degraded(), |s| async move { s.verify().await });
        }
    }
}

/// Crashes at any moment of an avoidance, whatever state it is in: nothing flushed is lost and nothing that was read changes.
pub(crate) fn crash_while_shielded(seed: u64, trace: Trace) {
    for strategy in [Strategy::WorkDisk, Strategy::WorkVolume] {
        for (level, members, tolerance) in LEVELS {
            for round in 0..3 {
                let mut stage = stage(seed * 10 + round, &trace, level, members);
                act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                    s.add_backup(strategy, tolerance).await;
                    s.scribble(20).await;
                    s.replace(1, SLOW, strategy).await;
                    s.scribble(3).await;
                });
                crash_often(&mut stage);
                act(&mut stage, AssembleOptions::default(), move |s| async move {
                    s.verify().await;
                    s.whole_and_sound().await;
                    s.lose(tolerance);
                    s.verify().await;
                });
            }
        }
    }
}

/// Another member dies in the middle of the copy: not one byte is lost where the ailing disk still reads.
pub(crate) fn another_member_dies(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(60).await;
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            s.copying().await;
            s.scribble(10).await;
            s.kill("d2");
            s.scribble(20).await;
            s.verify().await;
            s.whole_and_sound().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

/// The spare dies: the next one starts over; with none left the shield comes down with the old member in its place.
pub(crate) fn spare_dies_in_copy(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.add_work_disk(2).await;
        s.scribble(40).await;
        s.replace(1, SLOW, Strategy::WorkDisk).await;
        s.copying().await;
        s.scribble(5).await;
        s.kill("d4");
        s.scribble(5).await;
        s.await_that("the next spare", |s| {
            let report = s.machine.array.report();
            report
                .disks
                .iter()
                .any(|d| d.number == DiskNumber(5) && d.state == DiskState::Rebuilding)
        })
        .await;
        s.scribble(5).await;
        s.kill("d5");
        s.scribble(5).await;
        s.whole_again().await;
        s.expect(1, DiskState::InSync).await;
        s.verify().await;
        s.machine.audit().await;
    });
    act(&mut stage, degraded(), |s| async move { s.verify().await });
}

/// A leg of the work disk dies: updates go on safely elsewhere; the last leg alone still gives everything.
pub(crate) fn leg_dies(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(40).await;
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            s.copying().await;
            s.scribble(20).await;
            for leg in 0..tolerance {
                s.kill(&format!("d{}", members + 3 + leg));
                s.scribble(5).await;
                s.flush().await;
                s.verify().await;
            }
            s.scribble(20).await;
            s.whole_and_sound().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

/// One leg of a work disk holds something else than was written there: that is told, and every block is had from the other. With neither leg damaged nothing is
/// told, whatever a crash tore.
pub(crate) fn damaged_leg(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    stage.run(AssembleOptions::default(), Some(9000), |machine| async move {
        let mut s = Script::new(&machine);
        s.add_work_disk(2).await;
        s.write(0, 512 << 10).await;
        s.replace(1, SLOW, Strategy::WorkDisk).await;
        s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "pause");
        s.copying().await;
        loop {
            s.scribble(10).await;
            s.flush().await;
        }
    });
    stage.end(false);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        let found = s.machine.array.damage_of_legs(true).await;
        if !found.is_empty() {
            s.machine.complain(format!("a crash alone is told as damage: {found:?}"));
        }
        s.verify().await;
    });
    let leg = stage.world.shelf.all().into_iter().find(|bay| bay.drive.name() == "d6");
    let leg = leg.expect("the first leg, behind three members and two spares");
    let data = Layout::for_size(leg.drive.size()).expect("it is labelled").data;
    leg.suspect.set(true);
    for block in (0..data.blocks()).filter(|block| leg.drive.is_written(data.block(*block))) {
        leg.drive.rot(data.block(block) + 64);
    }
    act(&mut stage, AssembleOptions::default(), |s| async move {
        let found = s.machine.array.damage_of_legs(true).await;
        if !matches!(found.as_slice(), [one] if one.pages > 0 && one.blocks > 0) {
            s.machine.complain(format!("the damage of one leg is told as {found:?}"));
        }
        s.verify().await;
        s.must(s.machine.array.resume_replace(DiskNumber(1)).await, "resume");
        s.whole_and_sound().await;
    });
}

/// The log fills up many times over: nothing is refused, space comes back.
pub(crate) fn log_fills_up(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.add_work_disk(2).await;
        s.replace(1, SLOW, Strategy::WorkDisk).await;
        s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "pause");
        s.copying().await;
        // While the log has room, nothing is written to the members' data.
        s.watch_data("d2");
        let written = |s: &Script| s.bay("d2").drive.accesses().data_writes;
        let before = written(&s);
        for round in 0..60 {
            s.scribble(10).await;
            if round % 3 == 0 {
                s.flush().await;
            }
        }
        if written(&s) == before {
            s.machine.complain("the log never filled up".into());
        }
        reached(Cell::CopyingBackupFull);
        s.await_that("the word that it is full", |s| s.event("backup-full")).await;
        s.tells_of_overflow();
        s.verify().await;
        s.must(s.machine.array.resume_replace(DiskNumber(1)).await, "resume");
        s.scribble(20).await;
        s.whole_and_sound().await;
        s.must(s.machine.array.remove_work_disk(SET).await, "work-disk remove");
    });
    act(&mut stage, AssembleOptions::default(), |s| async move { s.verify().await });
}

/// Given up half-way: updates go home with the old member in its place (rule A6).
pub(crate) fn cancel_while_shielded(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(40).await;
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            s.copying().await;
            s.scribble(20).await;
            s.must(s.machine.array.cancel_replace(DiskNumber(1)).await, "cancel");
            s.scribble(10).await;
            s.whole_again().await;
            s.expect(1, DiskState::InSync).await;
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

/// The ailing disk cannot read some places: what it reads well is copied first and once, the rest is had from the peers after; the accesses
/// are counted.
pub(crate) fn bad_areas_are_left_for_last(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.add_work_disk(tolerance + 1).await;
            let size = crate::operator::volume_size(&s.machine, "v1");
            for at in (0..size).step_by(65_536) {
                s.write(at, 65_536.min(size - at)).await;
            }
            s.flush().await;
            let report = s.machine.array.report();
            let data = report.disks[0].size - 4096 - report.disks[0].data_len;
            let used = report.disks[0].data_len / 65_536 * 65_536;
            // Two bad sectors: one in the first large request, one in a later one.
            for at in [data + 8192, data + used / 2 + 4096] {
                s.bay("d1").drive.faults_mut().spoil(at..at + 512);
            }
            let before = accesses(&s.machine.array.report(), 1)[0];
            s.replace(1, 0, Strategy::WorkDisk).await;
            s.whole_again().await;
            let after = accesses(&s.machine.array.report(), 1)[0];
            // Each large request once; of the two that failed, in small ones; of those that failed, block by block.
            let large = used.div_ceil(1 << 20);
            let most = large + 2 * (16 + 16);
            let reads = after.reads - before.reads;
            if reads < large || reads > most {
                s.machine.complain(format!(
                    "{reads} reads of the ailing disk, {large} to {most} allowed"
                ));
            }
            let lost: u64 = s.machine.array.report().groups.iter().map(|g| g.lost_blocks).sum();
            if lost > 0 {
                s.machine.complain(format!("{lost} blocks lost that the peers could give"));
            }
            s.verify().await;
            s.machine.audit().await;
        });
    }
}
