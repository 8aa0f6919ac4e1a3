//! Stories of pairs as a feature of their own: a secondary follows its primary.
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: whether a secondary is equal is seen by reading it as an ordinary volume after the
//! pair was taken apart.

use forestall_engine::format::layout::Layout;
use forestall_engine::{
    AssembleOptions, BLOCK_SIZE, Buf, CommandError, GroupNumber, IoError, Level, PairStatus,
    VolumeSpec,
};

use crate::away::withhold;
use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::target::Zeroing;
use crate::trace::Trace;

/// Levels of the primary's group, and levels and members of the secondary's.
const SHAPES: [(Level, usize, Level, usize); 4] = [
    (Level::Raid5, 3, Level::Raid1, 2),
    (Level::Raid1, 2, Level::Raid5, 3),
    (Level::Raid0, 2, Level::Raid6, 4),
    (Level::Raid10, 4, Level::Raid0, 2),
];

impl Script {
    /// Adds a group with a volume "s" of the size of "v1".
    pub(crate) async fn add_secondary(&self, level: Level, members: usize) -> GroupNumber {
        let disk = (self.size() + (2 << 20)).next_multiple_of(4096);
        let group = self.add_group(level, members, disk).await;
        let spec = VolumeSpec { name: "s".into(), group, size: Some(self.size()), number: None };
        self.must(self.machine.array.create_volume(spec).await, "volume create");
        group
    }

    pub(crate) async fn pair_up(&self) {
        self.must(self.machine.array.create_pair("v1", "s").await, "pair create");
    }

    /// Status of the only pair, and bytes that differ.
    pub(crate) fn pair(&self) -> Option<(PairStatus, u64)> {
        self.machine.array.pairs().first().map(|pair| (pair.status, pair.differing))
    }

    pub(crate) async fn equal(&self) {
        self.await_that("a duplex pair", |s| s.pair() == Some((PairStatus::Duplex, 0))).await;
    }

    /// Takes the pair apart and compares the volumes.
    pub(crate) async fn compare(&self) {
        self.must(self.machine.array.delete_pair("v1").await, "pair delete");
        let read = async |name: &str, at, len| {
            let volume = self.machine.array.open_volume(name).expect("the volume is there");
            Buf::joined(self.must(volume.read(at, len).await, "a read"))
        };
        const PIECE: u64 = 256 << 10;
        for at in (0..self.size()).step_by(PIECE as usize) {
            let len = PIECE.min(self.size() - at);
            let (first, second) = (read("v1", at, len).await, read("s", at, len).await);
            if let Some(byte) = (0..len as usize).find(|byte| first[*byte] != second[*byte]) {
                let byte = at + byte as u64;
                self.machine.complain(format!("the volumes differ at byte {byte}"));
            }
        }
    }

    fn refused<T: std::fmt::Debug>(&self, result: Result<T, CommandError>, why: &str) {
        match result {
            Err(error) if error.to_string().contains(why) => {}
            other => self.machine.complain(format!("not refused with {why:?}: {other:?}")),
        }
    }
}

/// A block of the primary that nothing can give keeps no other from following; once a host writes it, nothing differs any more.
pub(crate) fn primary_lost_a_block(seed: u64, trace: Trace) {
    const BAD: u64 = 64 << 10;
    let mut stage = stage_of(seed, trace, Level::Raid0, 2, 0);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.add_secondary(Level::Raid1, 2).await;
        s.scribble(30).await;
        s.write(0, 8 * BAD).await;
        s.flush().await;
        let layout = Layout::for_size(s.bay("d1").drive.size()).expect("it is labelled");
        let data = layout.data.offset;
        s.bay("d1").drive.faults_mut().spoil(data + BAD..data + BAD + BLOCK_SIZE);
        s.pair_up().await;
        s.await_that("one block left", |s| s.pair() == Some((PairStatus::Syncing, BLOCK_SIZE)))
            .await;
        s.machine.pause(100_000_000_000).await;
        let events = s.machine.array.events_after(0);
        let told = events.iter().filter(|event| event.kind == "pair-copy-failed").count();
        if told != 1 {
            s.machine.complain(format!("a copy that fails again is told {told} times, not once"));
        }
        // Chunks take turns between two disks.
        s.write(2 * BAD, BLOCK_SIZE).await;
        s.equal().await;
        s.compare().await;
    });
}

/// Whatever is done to a pair, no bit left means that the volumes are equal.
pub(crate) fn secondary_follows(seed: u64, trace: Trace) {
    for (level, members, other, others) in SHAPES {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_secondary(other, others).await;
            s.scribble(30).await;
            s.pair_up().await;
            let secondary = s.machine.array.open_volume("s").expect("the volume is there");
            let written = secondary.write(0, Buf::zeroed(4096), false).await;
            if written != Err(IoError::Stopped) {
                s.machine.complain(format!("a host wrote to a secondary: {written:?}"));
            }
            s.scribble(30).await;
            s.equal().await;
            s.must(s.machine.array.hold_pair("v1", true).await, "pair hold");
            s.write((1 << 20) + 5000, 10).await;
            s.machine.pause(1_000_000_000).await;
            let row = s.machine.array.table_t2(3).remove(0);
            // The second bit alone, of as many as there are.
            let set = row.differential_bitmap.trim_end_matches('0');
            if (row.pairing_status.as_str(), set) != ("DUPLEX", "01") {
                s.machine.complain(format!("held, T2 should be 010 and is {row:?}"));
            }
            s.must(s.machine.array.hold_pair("v1", false).await, "pair release");
            s.equal().await;
            s.must(s.machine.array.split_pair("v1").await, "pair split");
            s.scribble(20).await;
            s.machine.pause(1_000_000_000).await;
            if !matches!(s.pair(), Some((PairStatus::Split, 1..))) {
                s.machine.complain(format!("split, the pair is {:?}", s.pair()));
            }
            s.must(s.machine.array.resync_pair("v1").await, "pair resync");
            s.scribble(20).await;
            s.equal().await;
            s.compare().await;
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

/// Rule B2: after any crash what differs is marked.
pub(crate) fn crash_while_mirroring(seed: u64, trace: Trace) {
    for (level, members, other, others) in SHAPES {
        for round in 0..3 {
            let mut stage = stage_of(seed * 10 + round, trace.clone(), level, members, 0);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_secondary(other, others).await;
                s.scribble(20).await;
                s.pair_up().await;
            });
            for _ in 0..4 {
                let cut = stage.rng.within(300..8000);
                stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
                    let mut s = Script::new(&machine);
                    for _ in 0..300 {
                        s.scribble(4).await;
                        s.flush().await;
                        machine.pause(30_000_000).await;
                    }
                });
                stage.end(false);
            }
            act(&mut stage, AssembleOptions::default(), |s| async move {
                s.equal().await;
                s.verify().await;
                s.compare().await;
                s.machine.audit().await;
            });
        }
    }
}

/// Rule B2: a trim that is not durable when a pair is made comes back with a crash, and the secondary must get it too.
pub(crate) fn trimmed_before_the_pair(seed: u64, trace: Trace) {
    const LEN: u64 = 512 << 10;
    for (level, members, other, others) in SHAPES {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let mut s = Script::new(&machine);
            s.add_secondary(other, others).await;
            s.scribble(20).await;
            s.write(0, LEN).await;
            s.flush().await;
            s.host.must(s.host.zero(0, LEN, Zeroing::Trim, false).await, "a trim");
            s.pair_up().await;
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.equal().await;
            s.verify().await;
            s.compare().await;
        });
    }
}

/// A secondary that is lost costs the primary nothing.
pub(crate) fn secondary_is_lost(seed: u64, trace: Trace) {
    for while_running in [true, false] {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_secondary(Level::Raid0, 2).await;
            s.scribble(20).await;
            s.pair_up().await;
            s.equal().await;
            if while_running {
                s.kill("d4");
                s.kill("d5");
                s.scribble(20).await;
                s.flush().await;
                s.await_that("the end of the pair", |s| s.pair().is_none()).await;
                s.verify().await;
            }
        });
        if !while_running {
            for bay in ["d4", "d5"] {
                let bay = stage.world.shelf.named(bay).expect("a drive on the shelf");
                bay.suspect.set(true);
                bay.withheld.set(true);
            }
        }
        act(&mut stage, degraded(), move |mut s| async move {
            s.verify().await;
            s.scribble(20).await;
            s.flush().await;
            s.verify().await;
            let pairs = s.machine.array.pairs();
            let waits = pairs.first().map(|pair| (pair.away, pair.differing));
            let expected = (!while_running).then_some((true, s.size()));
            if waits != expected {
                s.machine.complain(format!("the pair should be {expected:?}: {pairs:?}"));
            }
            if !while_running {
                s.expect_pairs(&[(1, 2, "SPLIT")]);
            }
        });
    }
}

/// The secondary's group is away for one start or two, of a pair that follows, or is split or held: it waits, and all of it is copied when the group is
/// back. A crash comes while it is away, or while it is copied.
pub(crate) fn secondary_is_away(seed: u64, trace: Trace) {
    for (starts, split, crashed) in [(1, false, false), (2, false, true), (1, true, true)] {
        for (other, others) in [(Level::Raid0, 2), (Level::Raid5, 3)] {
            let disks = 4..=3 + others;
            let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 0);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_secondary(other, others).await;
                s.scribble(20).await;
                s.pair_up().await;
                s.equal().await;
                if split {
                    s.must(s.machine.array.split_pair("v1").await, "pair split");
                }
            });
            withhold(&stage, disks.clone(), true);
            for _ in 0..starts {
                stage.run(degraded(), None, |machine| async move {
                    let mut s = Script::new(&machine);
                    s.verify().await;
                    s.scribble(20).await;
                    s.flush().await;
                    s.scribble(2).await;
                });
                stage.end(false);
            }
            withhold(&stage, disks.clone(), false);
            let again = disks.clone();
            stage.run(degraded(), None, move |machine| async move {
                let mut s = Script::new(&machine);
                s.scribble(5).await;
                let writer = Script::new(&machine);
                let latch = Latch::default();
                latch.spawn(&machine.runtime, async move {
                    for at in 0..40 {
                        writer.write(at * 30_000 % 900_000, 9_000).await;
                    }
                });
                s.bring_back(again).await;
                latch.all().await;
                s.verify().await;
                if !crashed {
                    machine.stop().await;
                }
            });
            stage.end(!crashed);
            act(&mut stage, degraded(), move |mut s| async move {
                s.verify().await;
                if split {
                    s.expect_pairs(&[(1, 2, "SPLIT")]);
                    s.must(s.machine.array.resync_pair("v1").await, "pair resync");
                }
                s.scribble(10).await;
                s.equal().await;
                s.compare().await;
                s.verify().await;
                s.machine.audit().await;
            });
        }
    }
}

/// What cannot be a pair is refused, and nothing changes.
pub(crate) fn no_such_pair(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 0);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        let group = s.add_secondary(Level::Raid1, 2).await;
        let array = std::rc::Rc::clone(&s.machine.array);
        let volume = |name: &str, size| VolumeSpec {
            name: name.into(),
            group,
            size: Some(size),
            number: None,
        };
        for (name, size) in [("small", 64 << 10), ("same", 64 << 10)] {
            s.must(array.create_volume(volume(name, size)).await, "volume create");
        }
        s.refused(array.create_pair("v1", "nothing").await, "there is no volume");
        s.refused(array.create_pair("v1", "v1").await, "cannot follow itself");
        s.refused(array.create_pair("v1", "small").await, "of one size");
        s.refused(array.create_pair("small", "same").await, "both lie in group 2");
        s.refused(array.delete_pair("v1").await, "is the primary of no pair");
        let filled = array.open_volume("s").expect("the volume is there");
        s.must(filled.write(0, Buf::zeroed(512), false).await, "a write");
        s.refused(array.create_pair("v1", "s").await, "holds data");
        s.must(filled.write(512, Buf::zeroed(512), false).await, "a write after the refusal");
        s.must(filled.trim(0, s.size(), false).await, "a trim");
        s.pair_up().await;
        s.refused(array.create_pair("v1", "s").await, "in the pair of 1 and 2 already");
        s.refused(array.create_pair("s", "v1").await, "pairs form no chains");
        s.refused(array.delete_volume("s").await, "is the secondary of a pair");
        s.refused(array.delete_volume("v1").await, "is the primary of a pair");
        s.refused(array.grow_volume("v1", 1 << 30).await, "pair");
        s.refused(array.add_work_volume("s", &[]).await.map(drop), "pair");
        s.refused(array.resync_pair("v1").await, "there is nothing to change");
        s.refused(array.hold_pair("v1", false).await, "there is nothing to change");
        s.refused(array.split_pair("s").await, "is the primary of no pair");
        s.scribble(20).await;
        s.equal().await;
        s.compare().await;
    });
}
