//! Stories of the journal: crashes together with lost members (rules J1 to J5).
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: members are lost between a crash and the next start, as many as the level
//! survives, so that nothing but the journal tells what was under way.

use std::ops::Range;
use std::rc::Rc;

use forestall_engine::format::layout::Layout;
use forestall_engine::{AssembleOptions, BLOCK_SIZE, DiskNumber, JournalMode, Level};

use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_journaled, stage_unchecked};
use crate::shape::data_members;
use crate::shelf::Bay;
use crate::stage::{RunEnd, Stage};
use crate::target::Zeroing;
use crate::trace::Trace;

const DISK: u64 = 2 << 20;
const MODES: [JournalMode; 2] = [JournalMode::Partial, JournalMode::Full];
/// Levels with parity, their members, and what they survive.
const LEVELS: [(Level, usize, usize); 2] = [(Level::Raid5, 4, 1), (Level::Raid6, 5, 2)];

impl Script {
    /// Several connections write, flush and read at once until the machine crashes.
    ///
    /// # Panics
    /// With a violation if a request fails.
    pub async fn crowd(self, connections: u64, longest: u64) {
        let latch = Latch::default();
        for _ in 0..connections {
            let (machine, size) = (self.machine.clone(), self.size());
            let host = machine.connect("v1");
            let mut rng = machine.rng(90 + u64::from(host.connection));
            latch.spawn(&self.machine.runtime, async move {
                for _ in 0..400 {
                    let offset = rng.below(size);
                    let len = rng.log_scaled(longest).min(size - offset);
                    let result = match rng.below(8) {
                        0 => host.flush().await,
                        1 => host.read(offset, len).await,
                        _ => host.write(offset, len, rng.percent(10)).await,
                    };
                    host.must(result, "a request of the crowd");
                }
            });
        }
        latch.all().await;
    }

    /// Writes what lies on every disk of a group; `dying` is gone once it has the data of this, and before it holds them.
    async fn write_as_a_disk_dies(&self, offset: u64, len: u64, dying: &Rc<Bay>) {
        let before = dying.drive.accesses().data_writes;
        let (latch, writer) = (Latch::default(), Self::new(&self.machine));
        latch.spawn(&self.machine.runtime, async move { writer.write(offset, len).await });
        while dying.drive.accesses().data_writes == before {
            self.machine.pause(1000).await;
        }
        self.kill(dying.drive.name());
        latch.all().await;
    }

    /// Reads everything; only blocks of full stripes that were in flight may be errors.
    async fn verify_after_loss(&self) {
        self.host.verify_strictly(self.size()).await;
    }
}

/// The members that take part in the next start.
fn there(stage: &Stage, members: usize) -> Vec<Rc<Bay>> {
    let bays = stage.world.shelf.all().into_iter().take(members);
    bays.filter(|bay| !bay.withheld.get()).collect()
}

/// Writes and flushes something, then crashes at a step in `steps` under a crowd whose requests are up to `longest`.
fn crash_under_a_crowd(stage: &mut Stage, steps: Range<u64>, longest: u64) {
    act(stage, AssembleOptions::default(), |mut s| async move {
        s.scribble(40).await;
        s.flush().await;
    });
    let cut = stage.rng.within(steps);
    stage.run(AssembleOptions::default(), Some(cut), move |machine| async move {
        Script::new(&machine).crowd(4, longest).await;
    });
    stage.end(false);
}

/// Leaves so many members, drawn at random, out of the next start; answers their names.
fn leave_out(stage: &mut Stage, members: usize, count: usize) -> Vec<String> {
    let mut bays = there(stage, members);
    (0..count)
        .map(|_| {
            let bay = bays.swap_remove(stage.rng.index(bays.len()));
            bay.withheld.set(true);
            bay.suspect.set(true);
            bay.drive.name().to_owned()
        })
        .collect()
}

/// Crashes under a crowd of writers, then loses as many members as the level survives (rules J1, J2): what was flushed is there, what nobody wrote
/// did not change, what was under way is old or new, or, of a full stripe told by checksums alone, listed lost.
pub(crate) fn crash_and_loss(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        for mode in MODES {
            for round in 0..6 {
                let shape = (level, members, 0);
                let mut stage =
                    stage_journaled(seed * 100 + round, trace.clone(), shape, DISK, mode);
                crash_under_a_crowd(&mut stage, 300..12_000, 120_000);
                leave_out(&mut stage, members, tolerance);
                act(&mut stage, degraded(), |s| async move {
                    s.verify_after_loss().await;
                    s.verify_after_loss().await;
                });
            }
        }
    }
}

/// The journal of one member is damaged after a crash under writers (rule J2): what it held of the newest batch is nowhere else, and the writes in place
/// of that batch had begun. Then the start is gone through, and others are lost. Nothing that nobody wrote may differ.
pub(crate) fn damaged_journal(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        for round in 0..18 {
            let (seed, shape) = (seed * 100 + round, (level, members, 0));
            let mut stage = match round % 3 {
                0 => stage_journaled(seed, trace.clone(), shape, DISK, JournalMode::Full),
                1 => stage_journaled(seed, trace.clone(), shape, DISK, JournalMode::Partial),
                _ => stage_unchecked(seed, trace.clone(), level, members, 0),
            };
            crash_under_a_crowd(&mut stage, 300..6000, 16_384);
            leave_out(&mut stage, members, tolerance - 1);
            damage_journal(&mut stage, members, round % 2 == 0);
            act(&mut stage, degraded(), |s| async move { s.verify_after_loss().await });
            leave_out(&mut stage, members, 1);
            act(&mut stage, degraded(), |s| async move {
                s.verify_after_loss().await;
                s.verify_after_loss().await;
            });
        }
    }
}

/// Lets the journal of one member, drawn from those that are there, hold something else, or not read.
fn damage_journal(stage: &mut Stage, members: usize, rots: bool) {
    let bays = there(stage, members);
    let bay = &bays[stage.rng.index(bays.len())];
    let journal = Layout::for_size(bay.drive.size()).expect("a labelled disk").journal;
    bay.suspect.set(true);
    if rots {
        for block in 0..journal.blocks() {
            bay.drive.rot(journal.block(block));
        }
    } else {
        bay.drive.faults_mut().spoil(journal.offset..journal.end());
    }
}

/// Crashes at step after step of a start that replays, before a start without one more member (rule J2): a replay may begin again
/// as often as it likes.
pub(crate) fn crash_in_a_replay(seed: u64, trace: Trace) {
    for (level, members, _) in LEVELS {
        let shape = (level, members, 0);
        let mut stage = stage_journaled(seed, trace.clone(), shape, DISK, JournalMode::Full);
        act(&mut stage, AssembleOptions::default(), |mut s| async move { s.scribble(40).await });
        stage.run(AssembleOptions::default(), Some(4000), |machine| async move {
            Script::new(&machine).crowd(4, 60_000).await;
        });
        stage.end(false);
        for crash in (20..).step_by(37) {
            let ended = stage.run(AssembleOptions::default(), Some(crash), |_| async {});
            stage.end(false);
            if matches!(ended, RunEnd::Completed(_)) {
                break;
            }
        }
        leave_out(&mut stage, members, 1);
        act(&mut stage, degraded(), |s| async move {
            s.verify().await;
            s.verify().await;
        });
    }
}

/// A disk dies while a full stripe is written, told by checksums alone, and then a part of one block of it is: the record of before says nothing of
/// what parity alone holds since, and after a crash every byte is there, whatever the level loses beside it (rule J4).
pub(crate) fn stripe_of_a_dead_disk(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let columns = data_members(level, members);
        for (dead, further) in pairs(members).filter(|(a, b)| a == b || tolerance > 1) {
            for column in 0..columns {
                let shape = (level, members, 0);
                let mut stage =
                    stage_journaled(seed, trace.clone(), shape, DISK, JournalMode::Partial);
                let bays = [dead, further].map(|disk| stage.world.shelf.all()[disk - 1].clone());
                let dying = bays[0].clone();
                stage.run(AssembleOptions::default(), None, move |machine| async move {
                    let s = Script::new(&machine);
                    let chunk = s.chunk();
                    s.write(0, columns * chunk).await;
                    s.flush().await;
                    s.write_as_a_disk_dies(0, columns * chunk, &dying).await;
                    s.write(column * chunk + 512, 1024).await;
                    s.flush().await;
                });
                stage.end(false);
                bays.iter().for_each(|bay| bay.withheld.set(true));
                act(&mut stage, degraded(), |s| async move { s.verify().await });
            }
        }
    }
}

/// In a group without redundancy left a block is written and zeroed again, in turn, until the power goes: a batch that the crash has cut looks as if it
/// had begun, for its block holds zeroes from before. No block is given up for it (rule J2).
pub(crate) fn zeroed_again_and_cut(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        for mode in MODES {
            for round in 0..8 {
                let (seed, shape) = (seed * 100 + round, (level, members, 0));
                let mut stage = stage_journaled(seed, trace.clone(), shape, DISK, mode);
                act(&mut stage, AssembleOptions::default(), |mut s| async move {
                    s.scribble(40).await;
                });
                leave_out(&mut stage, members, tolerance);
                let cut = stage.rng.within(300..6000);
                stage.run(degraded(), Some(cut), |machine| async move {
                    let s = Script::new(&machine);
                    for _ in 0..400 {
                        let zeroed = s.host.zero(0, BLOCK_SIZE, Zeroing::NoHole, false).await;
                        s.must(zeroed, "zeroing a block");
                        s.write(0, BLOCK_SIZE).await;
                    }
                });
                stage.end(false);
                act(&mut stage, degraded(), |s| async move { s.verify().await });
            }
        }
    }
}

/// Each two of `members`, numbered from 1, and each with itself.
fn pairs(members: usize) -> impl Iterator<Item = (usize, usize)> {
    (1..=members).flat_map(move |a| (1..=members).map(move |b| (a, b)))
}

/// Units are written, trimmed and written again, and what was written last is flushed, before a crash and a loss: no record from before
/// the trim comes back over it (rule J2).
pub(crate) fn trimmed_and_written_again(seed: u64, trace: Trace) {
    use crate::target::Zeroing;
    for (level, members, tolerance) in LEVELS {
        let shape = (level, members, 0);
        let mut stage = stage_journaled(seed, trace.clone(), shape, DISK, JournalMode::Partial);
        for round in 0..8 {
            let cut = stage.rng.within(400..3000);
            stage.run(AssembleOptions::default(), Some(cut), move |machine| async move {
                let s = Script::new(&machine);
                for at in (0..).map(|turn| (turn + round) % 4 * 192 * 1024) {
                    s.write(at, 192 * 1024).await;
                    s.write(at + 20_480, 4096).await;
                    s.flush().await;
                    s.write(at + 8192, 4096).await;
                    let trimmed = s.host.zero(at, 192 * 1024, Zeroing::Trim, false).await;
                    s.host.must(trimmed, "a trim");
                    s.write(at + 8192, 12_288).await;
                    s.flush().await;
                }
            });
            stage.end(false);
            let out = leave_out(&mut stage, members, tolerance);
            act(&mut stage, degraded(), |s| async move { s.verify_after_loss().await });
            for name in out {
                let bay = stage.world.shelf.named(&name).expect("it is on the shelf");
                bay.withheld.set(false);
            }
            act(&mut stage, AssembleOptions::default(), move |s| async move {
                let report = s.machine.array.report();
                for disk in report
                    .disks
                    .iter()
                    .filter(|d| !report.groups[0].members.is_empty() && d.group.is_some())
                {
                    if report.groups[0].absent.contains(&disk.number) {
                        s.must(s.machine.array.readd_disk(disk.number, None).await, "readd");
                        s.machine.quiet().await;
                    }
                }
            });
            stage.world.shelf.all().iter().for_each(|bay| bay.suspect.set(false));
        }
    }
}

/// A disk is copied to a spare under the writes of hosts, without a shield (rule J5); the machine crashes in the copy or just after the swap, and a
/// member is lost.
pub(crate) fn crash_while_copied_directly(seed: u64, trace: Trace) {
    for (level, members, _) in LEVELS {
        for round in 0..10 {
            let shape = (level, members, 1);
            let mode = MODES[round as usize % 2];
            let mut stage = stage_journaled(seed * 100 + round, trace.clone(), shape, DISK, mode);
            act(
                &mut stage,
                AssembleOptions::default(),
                |mut s| async move { s.scribble(40).await },
            );
            let cut = stage.rng.within(500..8000);
            stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
                let s = Script::new(&machine);
                s.must(s.machine.array.replace(DiskNumber(1), None, 0).await, "replace 1");
                s.crowd(3, 60_000).await;
            });
            stage.end(false);
            leave_out(&mut stage, members + 1, 1);
            act(&mut stage, degraded(), |s| async move {
                s.verify_after_loss().await;
                s.machine.quiet().await;
                s.verify_after_loss().await;
            });
        }
    }
}

/// Full stripes are cut by a crash, one member is lost, and another does not read its blocks of them (rule J4): what both held is computed from
/// parity that may fit neither. It is the old version, the new one, or an error, also on the member that is there.
pub(crate) fn cut_stripe_and_bad_sectors(seed: u64, trace: Trace) {
    const STRIPE: u64 = 48 * 1024;
    for round in 0..30 {
        let shape = (Level::Raid6, 5, 0);
        let mut stage =
            stage_journaled(seed * 100 + round, trace.clone(), shape, DISK, JournalMode::Partial);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.write(0, 8 * STRIPE).await;
            s.flush().await;
        });
        let cut = stage.rng.within(300..1200);
        stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
            let s = Script::new(&machine);
            for stripe in (0..8).cycle() {
                s.write(stripe * STRIPE, STRIPE).await;
            }
        });
        stage.end(false);
        let out = leave_out(&mut stage, 5, 1);
        let bays = stage.world.shelf.all();
        let there: Vec<_> = bays.iter().filter(|b| !out.contains(&b.drive.name().into())).collect();
        let bad = there[stage.rng.index(there.len())];
        let data = Layout::for_size(DISK).expect("a disk").data;
        bad.suspect.set(true);
        bad.drive.faults_mut().spoil(data.offset..data.offset + 8 * 16 * 1024);
        act(&mut stage, degraded(), |s| async move {
            s.verify_after_loss().await;
            s.verify_after_loss().await;
        });
    }
}
