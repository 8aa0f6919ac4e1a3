//! Stories of a whole group that is not there at one start, and of what becomes of it when its disks are back.
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: nobody could write to the group meanwhile, so all that it held is there again.

use forestall_engine::{AssembleOptions, DiskNumber, Level};

use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::shield::LEVELS;
use crate::stage::Stage;
use crate::trace::Trace;

/// Members of the first group, whose disks come first.
const FIRST: usize = 3;

/// Takes the disks of the second group off the machine, or puts them back.
pub(crate) fn withhold(stage: &Stage, disks: std::ops::RangeInclusive<usize>, withheld: bool) {
    for disk in disks {
        let bay = stage.world.shelf.named(&format!("d{disk}")).expect("a drive on the shelf");
        bay.suspect.set(withheld);
        bay.withheld.set(withheld);
    }
}

impl Script {
    /// Brings back the disks of a group, one after the other.
    pub(crate) async fn bring_back(&self, disks: std::ops::RangeInclusive<usize>) {
        for disk in disks {
            let back = self.machine.array.readd_disk(DiskNumber(disk as u32), None).await;
            self.must(back, "disk readd");
        }
    }
}

/// All disks of a group are missing at one start, or at two, after a crash too: hosts of its volumes get errors, the others nothing of it. Brought back, it has all.
pub(crate) fn whole_group_is_away(seed: u64, trace: Trace) {
    let kinds = [(1, false), (2, false), (1, true), (2, true)];
    for ((level, members, tolerance), (starts, crashed)) in
        LEVELS.into_iter().flat_map(|level| kinds.map(|kind| (level, kind)))
    {
        let disks = FIRST + 1..=FIRST + members;
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, FIRST, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            let group = s.add_group(level, members, 2 << 20).await;
            s.add_volume("v2", group, 512 * 1024, true).await;
            let v2 = s.machine.connect("v2");
            v2.must(v2.write(0, 300 * 1024, false).await, "a write");
            v2.must(v2.flush().await, "a flush");
            s.scribble(10).await;
        });
        if crashed {
            let cut = stage.rng.within(300..6000);
            stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
                let v2 = machine.connect("v2");
                for at in 0..200 {
                    v2.must(v2.write(at * 7777 % 400_000, 20_000, false).await, "a write");
                    if at % 5 == 0 {
                        v2.must(v2.flush().await, "a flush");
                    }
                }
            });
            stage.end(false);
        }
        withhold(&stage, disks.clone(), true);
        for _ in 0..starts {
            act(&mut stage, degraded(), |mut s| async move {
                s.verify().await;
                s.scribble(10).await;
                let v2 = s.machine.connect("v2");
                if v2.read(0, 4096).await.is_ok() {
                    s.machine.complain("a group that is not there answers".into());
                }
            });
        }
        withhold(&stage, disks.clone(), false);
        act(&mut stage, degraded(), move |mut s| async move {
            s.bring_back(disks.clone()).await;
            s.machine.quiet().await;
            let v2 = s.machine.connect("v2");
            v2.must(v2.verify(512 * 1024).await, "a full read");
            v2.must(v2.write(200 * 1024, 200 * 1024, false).await, "a write");
            v2.must(v2.flush().await, "a flush");
            s.scribble(5).await;
            s.verify().await;
            s.machine.audit().await;
            disks.skip(1).take(tolerance).for_each(|disk| s.kill(&format!("d{disk}")));
            v2.must(v2.verify(512 * 1024).await, "a full read");
        });
    }
}
