//! Stories of backups that end, and of those that go on for them (rule B1).
//!
//! Owns the scripts; the list is in `avoidance.rs`.

use std::rc::Rc;

use forestall_engine::{
    AssembleOptions, BLOCK_SIZE, BackupPlace, DiskNumber, GroupNumber, Level, Runtime, Strategy,
};

use super::rules::ends_well;
use crate::scenarios::act;
use crate::script::Script;
use crate::shield::{LEVELS, SECOND, SET, SLOW, stage, write_until_crash};
use crate::trace::Trace;

/// Work places of one kind in a story.
const PLACES: usize = 3;
/// Blocks of a small work volume.
const SMALL: u64 = 64;
/// Blocks written at once: fewer than an eighth of a small work volume.
const AT_ONCE: u64 = 3;

impl Script {
    /// Adds places of one kind, that all survive as many failures as home.
    async fn add_places(&self, kind: Strategy, tolerance: usize) {
        if kind == Strategy::WorkVolume {
            let (level, members) =
                if tolerance == 2 { (Level::Raid6, 4) } else { (Level::Raid1, 2) };
            let group = self.add_group(level, members, 4 << 20).await;
            for name in ["w1", "w2", "w3"] {
                self.add_volume(name, group, SMALL * BLOCK_SIZE, false).await;
                self.must(self.machine.array.add_work_volume(name, &[]).await, "work-volume add");
            }
            return;
        }
        for set in 0..PLACES as u32 {
            let shelf = &self.machine.world.shelf;
            let legs = (0..=tolerance).map(|_| shelf.add(2 << 20, self.machine.world.seed));
            let legs = legs.map(|bay| bay.hand_over(&self.machine.runtime)).collect();
            let number = DiskNumber(SET.0 + set);
            let added = self.machine.array.add_work_disk(number, legs, Vec::new()).await;
            self.must(added, "work-disk add");
        }
    }

    /// Places in the chain of the first volume.
    fn chained(&self) -> usize {
        let avoidance = self.machine.array.avoidance(GroupNumber(1));
        avoidance.map_or(0, |a| a.volumes[0].chain.len())
    }

    /// Writes to the data of the first `members` disks.
    fn data_writes(&self, members: usize) -> u64 {
        (1..=members).map(|at| self.bay(&format!("d{at}")).drive.accesses().data_writes).sum()
    }

    /// Hosts write block after block, and never more between two looks than the rest of a backup that is nearly full takes, until so many places
    /// are chained and the last one is used.
    async fn fill_until(&self, places: usize, from: u64) {
        let mut beyond = 0;
        for at in
            (from..self.size() - AT_ONCE * BLOCK_SIZE).step_by((AT_ONCE * BLOCK_SIZE) as usize)
        {
            self.write(at, AT_ONCE * BLOCK_SIZE).await;
            self.machine.pause(SECOND * 5 / 4).await;
            beyond += usize::from(self.chained() >= places);
            if beyond > SMALL as usize / 3 {
                return;
            }
        }
        let chained = self.chained();
        self.machine.complain(format!("{chained} places are chained, {places} were to be"));
    }
}

/// A place ends and the next of its kind goes on: no write reaches the group's members, and with crashes at any moment nothing is lost.
pub(super) fn next_of_its_kind(seed: u64, trace: Trace) {
    for kind in [Strategy::WorkVolume, Strategy::WorkDisk] {
        let has_room = |level| kind == Strategy::WorkVolume || level == Level::Raid6;
        for (level, members, tolerance) in LEVELS.into_iter().filter(|(l, ..)| has_room(*l)) {
            let mut stage = stage(seed, &trace, level, members);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_places(kind, tolerance).await;
                s.scribble(20).await;
                s.stand_still(SLOW, kind).await;
                (1..=members).for_each(|at| s.watch_data(&format!("d{at}")));
                let before = s.data_writes(members);
                s.fill_until(2, 0).await;
                s.flush().await;
                s.verify().await;
                let home = s.data_writes(members) - before;
                if home > 0 || !s.event("backup-chained") {
                    s.machine.complain(format!("{home} writes went home, or nothing was told"));
                }
            });
            for _ in 0..3 {
                let cut = stage.rng.within(300..6000);
                write_until_crash(&mut stage, cut);
            }
            act(&mut stage, AssembleOptions::default(), move |s| async move {
                s.verify().await;
                if s.chained() < 2 {
                    s.machine.complain("a chain is shorter after a start".into());
                }
                s.go_on().await;
                s.whole_and_sound().await;
                let array = Rc::clone(&s.machine.array);
                if !array.logs_in_use().is_empty() {
                    s.machine.complain("a place was not let go".into());
                }
            });
            ends_well(&mut stage, tolerance);
        }
    }
}

/// The chain grows while hosts write without a pause, again and again, until all places are full; with crashes.
pub(super) fn grows_under_load(seed: u64, trace: Trace) {
    for round in 0..3 {
        let mut stage = stage(seed * 10 + round, &trace, Level::Raid5, 4);
        act(&mut stage, AssembleOptions::default(), |mut s| async move {
            s.add_places(Strategy::WorkVolume, 1).await;
            s.add_work_disk(2).await;
            s.scribble(20).await;
            s.stand_still(SLOW, Strategy::Auto).await;
        });
        for _ in 0..4 {
            let cut = stage.rng.within(2000..30_000);
            write_until_crash(&mut stage, cut);
        }
        act(&mut stage, AssembleOptions::default(), |mut s| async move {
            s.verify().await;
            for _ in 0..30 {
                s.scribble(6).await;
                s.flush().await;
                s.machine.pause(SECOND).await;
            }
            if s.chained() != PLACES + 1 {
                s.machine.complain(format!("{} places are chained", s.chained()));
            }
            s.verify().await;
            s.go_on().await;
        });
        ends_well(&mut stage, 1);
    }
}

/// A work volume whose group hangs, and cannot spare the disk that does, is passed over: the copy begins at once with the next one.
pub(super) fn hung_place_is_passed_over(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid0, 2);
    stage.run(AssembleOptions::default(), None, move |machine| async move {
        let mut s = Script::new(&machine);
        let array = Rc::clone(&machine.array);
        for name in ["w1", "w2"] {
            let group = s.add_group(Level::Raid0, 2, 4 << 20).await;
            s.add_volume(name, group, SMALL * BLOCK_SIZE, false).await;
            s.must(array.add_work_volume(name, &[]).await, "work-volume add");
        }
        s.scribble(20).await;
        let hung = s.bay("d5");
        hung.suspect.set(true);
        hung.drive.faults_mut().stall(u64::MAX / 2);
        // The next change of the configuration finds it out.
        s.must(array.set_shelter(false).await, "policy shelter");
        let before = machine.runtime.now_ns();
        s.stand_still(SLOW, Strategy::WorkVolume).await;
        let took = machine.runtime.now_ns() - before;
        let chain = array.avoidance(GroupNumber(1)).map(|a| a.volumes[0].chain.clone());
        let second = array.volumes().into_iter().find(|v| v.name == "w2").map(|v| v.number);
        if chain != second.map(|number| vec![BackupPlace::WorkVolume(number)]) || took > SECOND {
            machine.complain(format!("{chain:?} backs the volume, after {took} ns"));
        }
        s.scribble(20).await;
        s.flush().await;
        hung.drive.faults_mut().repair();
        s.go_on().await;
        s.whole_again().await;
        s.verify().await;
    });
    stage.end(true);
    ends_well(&mut stage, 0);
}
