//! Stories of what a replay must not make old again: parity that was given up before the crash, blocks that were flushed.
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: as many members are missing as the level survives, so that one more fault takes blocks
//! away; those of its row may be errors, and nothing is ever wrong.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use forestall_engine::{AssembleOptions, BLOCK_SIZE, DiskState, JournalMode, Level};

use crate::falsehoods::layout;
use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_journaled};
use crate::shelf::Bay;
use crate::stage::Stage;
use crate::trace::Trace;

const DISK: u64 = 2 << 20;
const MODES: [JournalMode; 2] = [JournalMode::Partial, JournalMode::Full];
/// Levels with parity, their members, what they survive and their data columns.
const LEVELS: [(Level, usize, usize, u64); 2] = [(Level::Raid5, 4, 1, 3), (Level::Raid6, 5, 2, 3)];

impl Script {
    /// Reads every block; errors are allowed in the first row of the first stripe only, and there in `columns`.
    async fn only_lost_in_first_row(&self, columns: &[u64]) {
        let (chunk, stripe) = (self.chunk(), 3 * self.chunk());
        for at in (0..self.size()).step_by(BLOCK_SIZE as usize) {
            let result = self.host.read(at, BLOCK_SIZE.min(self.size() - at)).await;
            let excused = at < stripe && at % chunk == 0 && columns.contains(&(at / chunk));
            if !excused {
                self.must(result, &format!("a read at {at}"));
            }
        }
    }
}

/// A group that was written, with so many members missing.
fn degraded_stage(
    seed: u64,
    trace: &Trace,
    (level, members): (Level, usize),
    missing: usize,
    mode: JournalMode,
) -> Stage {
    let mut stage = stage_journaled(seed, trace.clone(), (level, members, 0), DISK, mode);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.write(0, s.size()).await;
        s.flush().await;
    });
    let bays = stage.world.shelf.all();
    bays[..missing].iter().for_each(|bay| bay.withheld.set(true));
    stage
}

/// With members missing a disk does not take what is written to it, which fails; then other blocks of the row are written, and the power goes. A replay does not write
/// parity of before that, from which what the missing members held would follow wrong (rule J2).
pub(crate) fn parity_that_was_not_written(seed: u64, trace: Trace) {
    for (level, members, tolerance, columns) in LEVELS {
        for (broken, mode) in (tolerance..members).zip(MODES.into_iter().cycle()) {
            for (first, then) in (0..columns).flat_map(|a| (0..columns).map(move |b| (a, b))) {
                let mut stage = degraded_stage(seed, &trace, (level, members), tolerance, mode);
                let bay = stage.world.shelf.all()[broken].clone();
                let at = layout(&bay).data.offset;
                bay.drive.faults_mut().protect(at..at + BLOCK_SIZE);
                let lost = Rc::<RefCell<Vec<u64>>>::default();
                let failed = lost.clone();
                stage.run(degraded(), None, move |machine| async move {
                    let s = Script::new(&machine);
                    for column in [first, then] {
                        let at = column * s.chunk();
                        if s.host.write(at, BLOCK_SIZE, false).await.is_err() {
                            failed.borrow_mut().push(column);
                        }
                    }
                });
                stage.end(false);
                // A start comes up with what is not taken still, too.
                if first == then {
                    bay.drive.faults_mut().clear();
                }
                // What the missing members held goes with the parity that is given up.
                let excused = match lost.take() {
                    failed if failed.is_empty() => failed,
                    _ => (0..columns).collect(),
                };
                act(&mut stage, degraded(), move |s| async move {
                    s.only_lost_in_first_row(&excused).await;
                });
            }
        }
    }
}

/// How a disk comes to know nothing of the newest record.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// Its frame reads as something else, and its block in place does not read.
    RotAndBadSector,
    /// Its frame does not read.
    BadSector,
}

/// With members missing a block is written twice and flushed; then the frame of the second write rots on one disk, whose block in place does not read either: that
/// is an error, and never what the first write put there. Where the frame only does not read, nothing is lost (rule J2).
pub(crate) fn flushed_and_gone_in_place(seed: u64, trace: Trace) {
    for (level, members, tolerance, columns) in LEVELS {
        for (broken, mode) in (tolerance..members).zip(MODES.into_iter().cycle()) {
            for column in 0..columns {
                for damage in [Damage::RotAndBadSector, Damage::BadSector] {
                    let stage = degraded_stage(seed, &trace, (level, members), tolerance, mode);
                    written_twice(stage, (broken, column), damage);
                }
            }
        }
    }
}

fn written_twice(mut stage: Stage, (broken, column): (usize, u64), damage: Damage) {
    let bays = stage.world.shelf.all();
    let images =
        |bays: &[Rc<Bay>]| -> Vec<Vec<u8>> { bays.iter().map(|bay| bay.drive.image()).collect() };
    let before = Rc::<RefCell<Vec<Vec<u8>>>>::default();
    let (first, there) = (before.clone(), bays.clone());
    stage.run(degraded(), None, move |machine| async move {
        let s = Script::new(&machine);
        let at = column * s.chunk();
        s.write(at, BLOCK_SIZE).await;
        s.flush().await;
        *first.borrow_mut() = images(&there);
        s.write(at, BLOCK_SIZE).await;
        s.flush().await;
    });
    stage.end(false);
    let (before, after) = (before.take(), images(&bays));
    let journal = layout(&bays[broken]).journal;
    // Blocks of a disk's journal that the second write changed: a header, and what was written where the disk takes part.
    let changed = |disk: usize| -> Vec<u64> {
        let block = |image: &[Vec<u8>], at: u64| {
            let from = journal.block(at) as usize;
            image[disk][from..from + BLOCK_SIZE as usize].to_vec()
        };
        (0..journal.blocks()).filter(|at| block(&before, *at) != block(&after, *at)).collect()
    };
    let Some(header) = changed(broken).first().copied() else { return };
    let bay = bays[broken].clone();
    let header = journal.block(header);
    match damage {
        Damage::RotAndBadSector => {
            // A write in which one disk alone takes part looks cut then.
            if !(0..bays.len()).any(|disk| disk != broken && changed(disk).len() > 1) {
                return;
            }
            bay.drive.rot(header);
            let at = layout(&bay).data.offset;
            bay.drive.faults_mut().spoil(at..at + 512);
        }
        Damage::BadSector => bay.drive.faults_mut().spoil(header..header + 512),
    }
    act(&mut stage, degraded(), move |s| async move {
        match damage {
            Damage::RotAndBadSector => s.only_lost_in_first_row(&[0, 1, 2]).await,
            Damage::BadSector => s.verify().await,
        }
    });
}

/// A disk is gone for a moment while blocks are written whose parity it holds, and is back after the power went, before it was told anywhere that it is out: parity that
/// it missed is made good, so that others can be lost after that (rules J1, J2).
pub(crate) fn out_before_it_was_told(seed: u64, trace: Trace) {
    for (level, members, tolerance, columns) in LEVELS {
        for round in 0..60 {
            let seed = seed * 100 + round;
            let mut stage = degraded_stage(seed, &trace, (level, members), 0, MODES[0]);
            let bays = stage.world.shelf.all();
            let (gone, fast) = (stage.rng.index(members), stage.rng.index(members));
            let power_goes = stage.rng.below(3_000_000);
            let all = bays.clone();
            stage.run(AssembleOptions::default(), None, move |machine| async move {
                // What tells the others that a disk is out takes long; a journal may be fast.
                let slow = all.iter().enumerate().filter(|(at, _)| *at != fast);
                slow.for_each(|(_, bay)| bay.drive.faults_mut().slow_down(20));
                all[gone].die();
                let latch = Latch::default();
                for stripe in 0..members as u64 {
                    let writer = Script::new(&machine);
                    let at = stripe * columns * writer.chunk();
                    latch
                        .spawn(&machine.runtime, async move { writer.write(at, BLOCK_SIZE).await });
                }
                machine.pause(power_goes).await;
            });
            stage.end(false);
            bays.iter().for_each(|bay| bay.drive.faults_mut().clear());
            let counts = Rc::<Cell<bool>>::default();
            let told = counts.clone();
            act(&mut stage, AssembleOptions::default(), move |s| async move {
                s.verify().await;
                told.set(s.in_state(gone as u32 + 1, DiskState::InSync));
            });
            if counts.get() {
                let others = (0..members).filter(|disk| *disk != gone).take(tolerance);
                others.for_each(|disk| bays[disk].withheld.set(true));
                act(&mut stage, degraded(), |s| async move { s.verify().await });
            }
        }
    }
}
