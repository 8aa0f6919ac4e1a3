//! Stories of pairs: secondaries that take the writes of a shielded group.
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: counts of disk accesses are compared over stretches in which nothing but the
//! hosts and the copy is at work.

use forestall_engine::{
    AssembleOptions, AvoidanceState, DiskNumber, DiskState, GroupNumber, Level, Strategy,
    VolumeNumber, VolumeSpec,
};

use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::shield::{LEVELS, SLOW, accesses, crash_often};
use crate::stage::{RunEnd, Stage};
use crate::trace::Trace;

/// The group that takes secondaries.
const FREE: GroupNumber = GroupNumber(2);

impl Script {
    /// Adds a group that survives so many failures and has room for a secondary of "v1".
    pub(crate) async fn add_free_group(&self, tolerance: usize) -> GroupNumber {
        let disk = (self.size() / 2 + (2 << 20)).next_multiple_of(4096);
        match tolerance {
            0 => self.add_group(Level::Raid0, 2, disk).await,
            1 => self.add_group(Level::Raid5, 3, disk).await,
            _ => self.add_group(Level::Raid6, 4, disk).await,
        }
    }

    /// The volumes of a group.
    fn volumes_of(&self, group: GroupNumber) -> Vec<VolumeNumber> {
        let rows = self.machine.array.table_t1();
        rows.into_iter().find(|row| row.group == group).map(|row| row.volumes).unwrap_or_default()
    }

    /// Complains unless the table of pairs holds this, as (primary, secondary, status).
    pub(crate) fn expect_pairs(&self, expected: &[(u32, u32, &str)]) {
        let rows = self.machine.array.table_t2(12);
        let pairs: Vec<_> = rows
            .iter()
            .map(|r| (r.primary_volume.0, r.secondary_volume.0, r.pairing_status.as_str()))
            .collect();
        if pairs != expected {
            self.machine.complain(format!("T2 should be {expected:?} and is {pairs:?}"));
        }
    }

    /// Shields "v1" by a new pair, with the copy standing still.
    async fn shield_by_pair(&self) {
        self.replace(1, SLOW, Strategy::Pair).await;
        self.must(self.machine.array.pause_replace(DiskNumber(1)).await, "pause");
        self.copying().await;
    }

    /// Lets the copy go on and waits until it is done and everything is home.
    async fn through(&self) {
        self.must(self.machine.array.resume_replace(DiskNumber(1)).await, "resume");
        self.whole_again().await;
    }
}

/// While shielded hosts' writes reach the group's members 0 times, and hosts' reads the ailing disk 0 times where peers answer.
pub(crate) fn paired_replace(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage_of(seed, trace.clone(), level, members, 2);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_free_group(tolerance).await;
            s.scribble(40).await;
            s.shield_by_pair().await;
            s.expect_pairs(&[(1, 2, "UPDATE DATA BEING BACKED UP")]);
            if s.volumes_of(FREE) != [VolumeNumber(2)] {
                s.machine.complain(format!("the free group has {:?}", s.volumes_of(FREE)));
            }
            s.use_shielded(level, members).await;
            s.through().await;
            s.expect(1, DiskState::Spare).await;
            s.expect_pairs(&[]);
            if !s.volumes_of(FREE).is_empty() {
                s.machine.complain(format!("the free group still has {:?}", s.volumes_of(FREE)));
            }
            s.verify().await;
            s.machine.audit().await;
            s.lose(tolerance);
            s.scribble(10).await;
            s.verify().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

/// Crashes at any moment: nothing flushed is lost and nothing that was read changes.
pub(crate) fn crash_while_paired(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        for round in 0..4 {
            let mut stage = stage_of(seed * 10 + round, trace.clone(), level, members, 2);
            // With a work disk next in the chain, every other time.
            let strategy = if round % 2 == 0 { Strategy::Pair } else { Strategy::Auto };
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_free_group(tolerance).await;
                if strategy == Strategy::Auto {
                    s.add_work_disk(tolerance + 1).await;
                }
                s.scribble(20).await;
                s.replace(1, SLOW, strategy).await;
                s.scribble(3).await;
            });
            crash_often(&mut stage);
            act(&mut stage, AssembleOptions::default(), move |s| async move {
                s.verify().await;
                s.whole_again().await;
                s.verify().await;
                s.expect_pairs(&[]);
                s.machine.audit().await;
                s.lose(tolerance);
                s.verify().await;
            });
        }
    }
}

/// Rule B5: hosts overwrite at home what was redirected, flush, and the machine crashes at once, or a while later.
pub(crate) fn overwritten_at_home(seed: u64, trace: Trace) {
    for round in 0..12 {
        let mut stage = stage_of(seed * 100 + round, trace.clone(), Level::Raid5, 3, 2);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.add_free_group(1).await;
            s.write(0, s.size()).await;
            s.shield_by_pair().await;
            // Every other chunk, so that write-back takes a while.
            for at in (0..s.size()).step_by(32 * 1024) {
                s.write(at, 12 * 1024).await;
            }
            s.flush().await;
        });
        let wait = stage.rng.below(200) * 10_000;
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            s.must(s.machine.array.resume_replace(DiskNumber(1)).await, "resume");
            s.await_that("write-back", |s| s.state() == Some(AvoidanceState::WritingBack)).await;
            machine.pause(wait).await;
            for at in (0..s.size()).step_by(64 * 1024) {
                s.write(at + 4096, 20 * 1024).await;
            }
            s.flush().await;
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.verify().await;
            s.whole_and_sound().await;
        });
    }
}

/// Rule B6: with a member of the secondaries' group gone, writes go on to a work disk, or home where there is none.
pub(crate) fn secondary_loses_redundancy(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        for with_work_disk in [true, false] {
            let mut stage = stage_of(seed, trace.clone(), level, members, 2);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_free_group(tolerance).await;
                if with_work_disk {
                    s.add_work_disk(tolerance + 1).await;
                }
                s.scribble(40).await;
                s.replace(1, SLOW, Strategy::Auto).await;
                s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "pause");
                s.copying().await;
                s.scribble(30).await;
                for member in 0..tolerance {
                    // Behind the members and the two spares of the home group.
                    s.kill(&format!("d{}", members + 3 + member));
                    s.scribble(10).await;
                    s.flush().await;
                    s.verify().await;
                }
                let before = accesses(&s.machine.array.report(), members);
                s.scribble(10).await;
                s.flush().await;
                let after = accesses(&s.machine.array.report(), members);
                let writes = |of: &[forestall_engine::AccessCounts]| -> u64 {
                    of.iter().map(|a| a.writes).sum()
                };
                if (writes(&before) == writes(&after)) != with_work_disk {
                    s.machine.complain("writes went where they should not".into());
                }
                s.must(s.machine.array.resume_replace(DiskNumber(1)).await, "resume");
                s.scribble(10).await;
                s.whole_and_sound().await;
            });
            act(&mut stage, degraded(), |s| async move { s.verify().await });
        }
    }
}

/// Rules B6, B8: where no group can take a secondary, nothing is changed and the reason is told.
pub(crate) fn no_group_for_a_pair(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 2);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.scribble(20).await;
        let refused = async |s: &Script, why: &str| {
            let array = &s.machine.array;
            let asked = array.replace_shielded(DiskNumber(1), None, SLOW, Strategy::Pair).await;
            match asked {
                Err(error) if error.to_string().contains(why) => s.expect_pairs(&[]),
                other => s.machine.complain(format!("not refused with {why:?}: {other:?}")),
            }
        };
        refused(&s, "no group is without volumes").await;
        s.add_group(Level::Raid0, 2, 8 << 20).await;
        refused(&s, "group 2 survives 0 failures").await;
        let small = s.add_group(Level::Raid1, 2, 2 << 20).await;
        refused(&s, "has the space").await;
        let spec = VolumeSpec { name: "x".into(), group: small, size: None, number: None };
        s.must(s.machine.array.create_volume(spec).await, "volume create");
        refused(&s, "group 2 survives 0 failures").await;
        let free = s.add_free_group(1).await;
        s.shield_by_pair().await;
        if s.volumes_of(free).len() != 1 {
            s.machine.complain("the group with room took no secondary".into());
        }
        for (what, done) in [
            ("deleted", s.machine.array.delete_volume("secondary-of-1").await),
            ("grown", s.machine.array.grow_volume("v1", 1 << 30).await),
            ("deleted", s.machine.array.delete_volume("v1").await),
        ] {
            match done {
                Err(error) if error.to_string().contains("pair") => {}
                other => s.machine.complain(format!("a volume of a pair was {what}: {other:?}")),
            }
        }
        s.scribble(20).await;
        s.through().await;
        s.verify().await;
        s.machine.audit().await;
    });
}

/// What holds the newest writes is not there at a start, all of it: the array does not come up and says what it lacks.
pub(crate) fn backup_is_missing(seed: u64, trace: Trace) {
    for strategy in [Strategy::Pair, Strategy::WorkVolume] {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 2);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            match strategy {
                Strategy::Pair => drop(s.add_group(Level::Raid1, 2, 8 << 20).await),
                _ => s.add_work_volume(Level::Raid1, 2).await,
            }
            s.scribble(20).await;
            s.replace(1, SLOW, strategy).await;
            s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "pause");
            s.copying().await;
            s.scribble(20).await;
            s.flush().await;
        });
        let withhold = |stage: &Stage, withheld| {
            for bay in ["d6", "d7"] {
                stage.world.shelf.named(bay).expect("it is on the shelf").withheld.set(withheld);
            }
        };
        withhold(&stage, true);
        let why = stage.refused(degraded());
        if !why.contains("holds the newest writes of volume 1 of group 1") {
            stage.world.complain(format!("refused for another reason: {why}"));
        }
        withhold(&stage, false);
        act(&mut stage, AssembleOptions::default(), |mut s| async move {
            s.verify().await;
            s.scribble(10).await;
            s.must(s.machine.array.resume_replace(DiskNumber(1)).await, "resume");
            s.whole_and_sound().await;
        });
    }
}

/// Rule B2: the machine crashes around a flush, again and again: a bit that is on disk tells of data that is on disk.
pub(crate) fn crash_in_a_flush(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 2);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.add_free_group(1).await;
        s.write(0, s.size()).await;
        s.shield_by_pair().await;
    });
    let started = stage.run(AssembleOptions::default(), None, |_| async {});
    let RunEnd::Completed(start) = started else { panic!("nothing cuts this run") };
    stage.end(false);
    for round in 0..60 {
        let cut = start + stage.rng.within(20..700);
        stage.run(AssembleOptions::default(), Some(cut), move |machine| async move {
            let s = Script::new(&machine);
            let blocks = s.size() / 4096;
            for at in 0.. {
                // Blocks that were not redirected yet, far apart.
                for near in 0..4 {
                    s.write((round * 13 + at * 5 + near * 211) % blocks * 4096, 4096).await;
                }
                s.flush().await;
            }
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.verify().await });
    }
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.through().await;
        s.verify().await;
        s.machine.audit().await;
    });
}
