//! Stories of several groups and of long times.
//!
//! Owns the scripts; the list is in `avoidance.rs`.

use std::rc::Rc;

use forestall_engine::{
    AssembleOptions, DiskNumber, GroupNumber, Level, Runtime, Strategy, VolumeSpec,
};

use crate::client::Host;
use crate::scenarios::act;
use crate::script::Script;
use crate::shield::{SECOND, SET, SLOW, stage};
use crate::trace::Trace;

impl Script {
    /// Adds a volume; the oracle hears of it if hosts are to use it.
    pub(crate) async fn add_volume(&self, name: &str, group: GroupNumber, size: u64, hosts: bool) {
        let spec = VolumeSpec { name: name.into(), group, size: Some(size), number: None };
        self.must(self.machine.array.create_volume(spec).await, "volume create");
        if hosts {
            let volumes = self.machine.array.volumes();
            let size = volumes.iter().find(|v| v.name == name).map_or(0, |v| v.size);
            self.machine.world.oracle.borrow_mut().create_volume(name, size);
        }
    }

    /// Adds a group with a work volume "w" of `size` bytes.
    pub(super) async fn add_small_work_volume(&self, level: Level, members: usize, size: u64) {
        let group = self.add_group(level, members, 2 << 20).await;
        self.add_volume("w", group, size, false).await;
        self.must(self.machine.array.add_work_volume("w", &[]).await, "work-volume add");
    }

    /// A connection to another volume.
    fn other(&self, volume: &str) -> Host<forestall_engine::VolumeHandle<crate::SimEnv>> {
        self.machine.connect(volume)
    }

    async fn both_whole(&self) {
        let array = Rc::clone(&self.machine.array);
        let none = move |_: &Self| (1..3).all(|g| array.avoidance(GroupNumber(g)).is_none());
        self.await_that("the end of both avoidances", none).await;
    }
}

/// Writes a few ranges of the second volume.
async fn scribble_on(host: &Host<forestall_engine::VolumeHandle<crate::SimEnv>>, from: u64) {
    for i in 0..4 {
        let at = (from + i) % 12 * 40_000;
        host.must(host.write(at, 30_000, false).await, "a write");
    }
}

pub(super) fn two_groups_share(seed: u64, trace: Trace) {
    for strategy in [Strategy::WorkDisk, Strategy::WorkVolume] {
        let mut stage = stage(seed, &trace, Level::Raid5, 3);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            let group = s.add_group(Level::Raid1, 2, 2 << 20).await; // d6, d7
            s.add_volume("v2", group, 512 * 1024, true).await;
            s.add_work_disk(2).await;
            s.add_small_work_volume(Level::Raid1, 2, 512 * 1024).await;
            s.scribble(20).await;
            s.stand_still(SLOW, strategy).await;
            s.replace(6, SLOW, strategy).await;
            let other = s.other("v2");
            for round in 0..30 {
                s.scribble(3).await;
                scribble_on(&other, round).await;
                if round % 3 == 0 {
                    s.flush().await;
                    other.must(other.flush().await, "a flush");
                }
            }
        });
        let cut = stage.rng.within(2000..20_000);
        stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
            let mut s = Script::new(&machine);
            let other = s.other("v2");
            for round in 0..300 {
                s.scribble(3).await;
                scribble_on(&other, round).await;
                s.flush().await;
            }
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.verify().await;
            let _ = s.machine.array.resume_replace(DiskNumber(1)).await;
            s.both_whole().await;
            s.verify().await;
            s.machine.audit().await;
            let array = &s.machine.array;
            let t6 = array.table_t6();
            if !array.logs_in_use().is_empty() || t6[0].status != "UNUSED" {
                s.machine.complain(format!("the work disk was not let go: {t6:?}"));
            }
            s.must(array.remove_work_disk(SET).await, "work-disk remove");
            s.must(array.remove_work_volume("w").await, "work-volume remove");
        });
    }
}

pub(super) fn b8_backup_volume_ails(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        let group = s.add_group(Level::Raid1, 2, 2 << 20).await; // Disks 6 and 7.
        s.add_volume("v2", group, 512 * 1024, true).await;
        s.add_volume("w", group, 512 * 1024, false).await;
        s.must(s.machine.array.add_work_volume("w", &[]).await, "work-volume add");
        s.add_work_disk(2).await;
        s.scribble(30).await;
        s.stand_still(SLOW, Strategy::WorkVolume).await;
        s.scribble(20).await;
        s.replace(6, SLOW, Strategy::Auto).await;
        let other = s.other("v2");
        let shielded = s.machine.array.avoidance(GroupNumber(2)).map(|a| a.volumes);
        let chains: Vec<bool> =
            shielded.iter().flatten().map(|volume| volume.chain.is_empty()).collect();
        if chains != [false, true] {
            s.machine.complain(format!("the work volume should go direct: {shielded:?}"));
        }
        for round in 0..20 {
            s.scribble(4).await;
            scribble_on(&other, round).await;
            s.flush().await;
        }
        s.verify().await;
        s.go_on().await;
        s.both_whole().await;
        s.verify().await;
        s.machine.audit().await;
    });
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.verify().await;
        // A group that is shielded itself backs nobody; nor does one back itself.
        s.scribble(5).await;
        s.verify().await;
    });
}

pub(super) fn a_day_of_writes(seed: u64, trace: Trace) {
    const DAY: u64 = 24 * 3600;
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    for _ in 0..8 {
        // A run of the simulated machine lasts some hours at most.
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            if s.machine.array.table_t6().is_empty() {
                s.add_work_disk(2).await;
                s.stand_still(SLOW, Strategy::WorkDisk).await;
            }
            let until = s.machine.runtime.now_ns() + DAY / 8 * SECOND;
            let mut round = 0;
            while s.machine.runtime.now_ns() < until {
                // Always the same 32 blocks: whatever else the log holds is waste.
                for block in 0..32 {
                    s.write(block * 4096, 4096).await;
                }
                round += 1;
                if round % 4 == 0 {
                    s.flush().await;
                }
                s.machine.pause(60 * SECOND).await;
            }
            s.flush().await;
            let marked = s.machine.array.table_t7().len();
            let writes: u64 =
                s.machine.array.report().disks.iter().take(3).map(|d| d.accesses.writes).sum();
            if marked != 32 || writes > 0 {
                s.machine.complain(format!(
                    "{marked} blocks are marked instead of 32, {writes} writes went to the group"
                ));
            }
        });
    }
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.verify().await;
        s.go_on().await;
        s.whole_again().await;
        s.verify().await;
        s.must(s.machine.array.remove_work_disk(SET).await, "work-disk remove");
    });
}
