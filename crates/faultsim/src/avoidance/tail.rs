//! Stories of the durable tail of a log: what a flush was answered for is damaged, with nothing written after it that would prove it.
//!
//! Owns the scripts; the list is in `avoidance.rs`. Invariants: what one place or one leg still gives is read right; what none gives is an
//! error of exactly its block, never what stood there before; what no flush was answered for may have happened or not.

use std::collections::BTreeSet;
use std::ops::Range;

use forestall_engine::format::layout::Layout;
use forestall_engine::format::log::{ENTRY_LEN, LogShape};
use forestall_engine::{AssembleOptions, BLOCK_SIZE, Level, Strategy};

use super::sources::{leg, listed};
use crate::disk::Accesses;
use crate::machine::Machine;
use crate::scenarios::{act, degraded};
use crate::script::Script;
use crate::shelf::Bay;
use crate::shield::{SLOW, stage};
use crate::stage::Stage;
use crate::trace::Trace;

/// Levels with members and what they survive: a log of one leg, of two, of three.
const LEGS: [(Level, usize, usize); 3] =
    [(Level::Raid0, 2, 0), (Level::Raid5, 4, 1), (Level::Raid6, 5, 2)];
/// The slot used last before the last flush, and the block that it holds.
const LAST: (u64, u64) = (8, 8);
/// The slot used after the last flush.
const TORN: u64 = 9;

/// A part of the log that tells of the last slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Payload,
    Table,
    Index,
    Marks,
    OneMark,
}

impl Part {
    /// Where it lies on a leg.
    fn ranges(self, bay: &Bay) -> Vec<Range<u64>> {
        let data = Layout::for_size(bay.drive.size()).expect("a labelled disk").data;
        let shape = LogShape::of(data.len / BLOCK_SIZE).expect("a leg holds a log");
        let entry = (LAST.0 - 1) * ENTRY_LEN as u64;
        let (places, len) = match self {
            Self::Payload => (vec![shape.payload(LAST.0)], BLOCK_SIZE),
            Self::Table => (vec![shape.table(0) + entry], ENTRY_LEN as u64),
            Self::Index => (vec![shape.index(0) + entry], ENTRY_LEN as u64),
            Self::Marks => (shape.marks().to_vec(), BLOCK_SIZE),
            Self::OneMark => (vec![shape.marks()[0]], BLOCK_SIZE),
        };
        places.into_iter().map(|at| data.offset + at..data.offset + at + len).collect()
    }
}

/// What becomes of the log when these parts are damaged on every leg.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    /// Everything is read.
    Healed,
    /// The block of the last slot is lost.
    OneLost,
    /// The start is refused.
    Refused,
}

const DAMAGES: [(&[Part], Outcome); 8] = [
    (&[Part::Payload], Outcome::OneLost),
    (&[Part::Table], Outcome::Healed),
    (&[Part::Index, Part::OneMark], Outcome::Healed),
    (&[Part::Table, Part::Payload], Outcome::OneLost),
    (&[Part::Index, Part::Payload, Part::OneMark], Outcome::OneLost),
    (&[Part::Marks], Outcome::Refused),
    (&[Part::Table, Part::Index], Outcome::Refused),
    (&[Part::Table, Part::Index, Part::Payload], Outcome::Refused),
];

/// Sectors that cannot be read, or bytes that were never written; or no longer.
fn damage(bay: &Bay, ranges: &[Range<u64>], silent: bool, on: bool) {
    bay.suspect.set(on);
    if !silent && !on {
        bay.drive.faults_mut().clear();
        return;
    }
    if !silent {
        ranges.iter().for_each(|range| bay.drive.faults_mut().spoil(range.clone()));
        return;
    }
    let mut image = bay.drive.image();
    for range in ranges {
        image[range.start as usize..range.end as usize].iter_mut().for_each(|byte| *byte ^= 0x5a);
    }
    bay.drive.restore(image);
}

/// A group of which a disk is copied, with a log of which slot 8 is the newest that was flushed; then the machine stops or crashes.
fn prepare(stage: &mut Stage, tolerance: usize, crash: bool) {
    act(stage, AssembleOptions::default(), move |s| async move {
        s.add_work_disk(tolerance + 1).await;
        s.write(0, 20 * BLOCK_SIZE).await;
        s.flush().await;
        s.stand_still(SLOW, Strategy::WorkDisk).await;
        for block in [3, 7, LAST.1, 9, 25, 30] {
            s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
        }
        s.flush().await;
    });
    let tail = move |machine: Machine| async move {
        let s = Script::new(&machine);
        s.write(30 * BLOCK_SIZE, BLOCK_SIZE).await;
        s.write(LAST.1 * BLOCK_SIZE, BLOCK_SIZE).await;
        s.flush().await;
        if crash {
            s.write(9 * BLOCK_SIZE, BLOCK_SIZE).await;
        } else {
            machine.stop().await;
        }
    };
    stage.run(AssembleOptions::default(), None, tail);
    stage.end(!crash);
}

/// After the start exactly `gone` does not read, is listed when everything is home, and is good again once written.
fn only_lost(stage: &mut Stage, level: Level, gone: BTreeSet<u64>) {
    act(stage, AssembleOptions::default(), move |s| async move {
        let check = |when: &str, lost: &BTreeSet<u64>| {
            if *lost != gone {
                s.machine.complain(format!("{when} {lost:?} do not read instead of {gone:?}"));
            }
        };
        check("after the start", &s.unreadable().await);
        s.go_on().await;
        s.whole_again().await;
        s.machine.quiet().await;
        check("at home", &s.unreadable().await);
        let count = s.machine.array.report().groups[0].lost_blocks;
        if count != gone.len() as u64 * listed(level) {
            s.machine.complain(format!("{count} blocks are listed"));
        }
        for block in &gone {
            s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
        }
        s.flush().await;
        s.verify().await;
        s.machine.audit().await;
    });
}

/// The last entries that were flushed are damaged, after a stop and after a crash, on one leg and on all.
pub(super) fn durable_tail_is_damaged(seed: u64, trace: Trace) {
    let (silent, crash) = (seed.is_multiple_of(2), (seed / 2).is_multiple_of(2));
    for (level, members, tolerance) in LEGS {
        for (parts, outcome) in DAMAGES {
            for on_all in [false, true] {
                if tolerance == 0 && !on_all {
                    continue;
                }
                let mut stage = stage(seed, &trace, level, members);
                prepare(&mut stage, tolerance, crash);
                let legs = (0..=tolerance).map(|at| leg(members, at));
                let legs: Vec<_> =
                    legs.map(|name| stage.world.shelf.named(&name).expect("a leg")).collect();
                let damaged = if on_all { legs.len() } else { 1 };
                let turn_damage = |on: bool| {
                    for bay in legs.iter().take(damaged) {
                        let ranges: Vec<_> = parts.iter().flat_map(|p| p.ranges(bay)).collect();
                        damage(bay, &ranges, silent, on);
                    }
                };
                turn_damage(true);
                let mut gone = BTreeSet::new();
                match outcome {
                    _ if !on_all => {}
                    Outcome::Healed => {}
                    Outcome::OneLost => gone.extend([LAST.1]),
                    Outcome::Refused => {
                        let why = stage.refused(degraded());
                        if !why.contains("damaged in every copy") {
                            let what = format!("{parts:?}: refused for another reason: {why}");
                            stage.world.complain(what);
                        }
                        turn_damage(false);
                    }
                }
                only_lost(&mut stage, level, gone);
            }
        }
    }
}

/// What no flush was answered for is torn on every leg: it never happened, and nothing is lost.
pub(super) fn unflushed_tail_is_torn(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEGS {
        let mut stage = stage(seed, &trace, level, members);
        prepare(&mut stage, tolerance, true);
        for at in 0..=tolerance {
            let bay = stage.world.shelf.named(&leg(members, at)).expect("a leg");
            let data = Layout::for_size(bay.drive.size()).expect("a labelled disk").data;
            let shape = LogShape::of(data.len / BLOCK_SIZE).expect("a leg holds a log");
            let payload = data.offset + shape.payload(TORN);
            damage(&bay, std::slice::from_ref(&(payload..payload + 512)), true, true);
        }
        only_lost(&mut stage, level, BTreeSet::new());
    }
}

/// A log lost a leg and was taken home early; what its last leg says in the table is damaged: the index says that home is newer.
pub(super) fn cleared_tail_is_damaged(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEGS.into_iter().filter(|(_, _, tolerance)| *tolerance > 0) {
        let mut stage = stage(seed, &trace, level, members);
        prepare(&mut stage, tolerance, false);
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            (0..tolerance).for_each(|at| s.kill(&leg(members, at)));
            s.write(LAST.1 * BLOCK_SIZE, BLOCK_SIZE).await;
            let home = |s: &Script| s.machine.array.table_t7().is_empty();
            s.await_that("what the log holds goes home", home).await;
            s.write(LAST.1 * BLOCK_SIZE, BLOCK_SIZE).await;
            s.flush().await;
        });
        stage.end(false);
        let last = stage.world.shelf.named(&leg(members, tolerance)).expect("a leg");
        damage(&last, &Part::Table.ranges(&last), seed.is_multiple_of(2), true);
        act(&mut stage, degraded(), |s| async move {
            s.verify().await;
            s.go_on().await;
            s.whole_again().await;
            s.verify().await;
        });
    }
}

/// Accesses of the data space of every leg, and their flushes.
fn costs(s: &Script, members: usize, legs: usize) -> Vec<(u64, u64)> {
    let count = |a: Accesses| (a.data_writes, a.flushes);
    (0..legs).map(|at| count(s.bay(&leg(members, at)).drive.accesses())).collect()
}

/// What a write and a flush cost each leg: (writes, flushes).
pub(super) fn durable_tail_costs(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEGS {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.stand_still(SLOW, Strategy::WorkDisk).await;
            let mut before = costs(&s, members, tolerance + 1);
            let mut took = |what: &str, wanted: (u64, u64)| {
                let now = costs(&s, members, tolerance + 1);
                for (now, before) in now.iter().zip(&before) {
                    let took = (now.0 - before.0, now.1 - before.1);
                    if took != wanted {
                        s.machine.complain(format!("{what} took {took:?} instead of {wanted:?}"));
                    }
                }
                before = now;
            };
            s.write(0, BLOCK_SIZE).await;
            took("a write (payload, table)", (2, 0));
            s.flush().await;
            took("a flush of one entry (index, marks; twice)", (3, 2));
            s.flush().await;
            took("a flush of nothing", (0, 1));
            s.write(BLOCK_SIZE, 100 * BLOCK_SIZE).await;
            took("a write of a hundred blocks", (2, 0));
            s.flush().await;
            took("a flush of a hundred entries in two pages", (3, 2));
        });
    }
}
