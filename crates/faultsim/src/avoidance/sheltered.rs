//! Stories of Sheltered: a group stays shielded while there is no spare, because the policy says so.
//!
//! Owns the scripts; the list is in `avoidance.rs`. What hosts see passes the oracle; each story adds what must be seen of the state.

use forestall_engine::{
    AssembleOptions, AvoidanceState, DiskNumber, DiskReport, DiskRole, DiskState, Level, Strategy,
};

use super::events::{ends_whole, redundant, restarts, spoil};
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::shield::{LEVELS, SECOND, SLOW, crash_often};
use crate::stage::Stage;
use crate::trace::Trace;

impl Script {
    async fn shelter(&self, on: bool) {
        self.must(self.machine.array.set_shelter(on).await, "policy shelter");
    }

    async fn sheltered(&self) {
        let sheltered = |s: &Self| s.state() == Some(AvoidanceState::Sheltered);
        self.await_that("a sheltered group", sheltered).await;
    }

    /// The group is sheltered, and stays so however long nothing comes.
    async fn stays_sheltered(&self) {
        self.sheltered().await;
        self.machine.pause(20 * SECOND).await;
        if self.state() != Some(AvoidanceState::Sheltered) {
            self.machine.complain(format!("sheltered no longer: {:?}", self.state()));
        }
    }

    /// Whether a disk is being filled.
    fn is_being_filled(&self, disk: usize) -> bool {
        let report = self.machine.array.report();
        let is = |d: &DiskReport| {
            d.number == DiskNumber(disk as u32) && d.state == DiskState::Rebuilding
        };
        report.disks.iter().any(is)
    }

    /// Adds a spare; answers its number.
    pub(super) async fn add_spare(&self) -> u32 {
        let bay = self.machine.world.shelf.add(2 << 20, self.machine.world.seed);
        let disk = bay.hand_over(&self.machine.runtime);
        self.must(self.machine.array.add_disk(disk, DiskRole::Spare).await, "disk add").0
    }

    /// Shields the first group, whose array has no spare.
    async fn shelter_without_a_spare(&mut self, tolerance: usize) {
        self.add_work_disk(tolerance + 1).await;
        self.scribble(40).await;
        self.shelter(true).await;
        self.machine.array.smart_failure(DiskNumber(1));
        self.stays_sheltered().await;
        self.scribble(20).await;
    }
}

/// The rest of a story: a spare is added, the copy starts by itself and all is well.
fn spare_comes(stage: &mut Stage, tolerance: usize) {
    act(stage, AssembleOptions::default(), move |mut s| async move {
        s.verify().await;
        s.stays_sheltered().await;
        let spare = s.add_spare().await;
        s.scribble(10).await;
        ends_whole(&s).await;
        s.expect(spare, DiskState::InSync).await;
        s.lose(tolerance);
        s.scribble(5).await;
        s.verify().await;
    });
    restarts(stage);
}

/// Both spares die in the copy, then a third that was added: the shield stays up each time, over restarts too.
pub(super) fn waits(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage_of(seed, trace.clone(), level, members, 2);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(40).await;
            s.shelter(true).await;
            s.replace(1, SLOW, Strategy::WorkDisk).await;
            for spare in [members + 1, members + 2] {
                s.await_that("a spare", move |s| s.is_being_filled(spare)).await;
                s.copying().await;
                s.scribble(3).await;
                s.kill(&format!("d{spare}"));
                s.scribble(3).await;
                s.flush().await;
            }
            s.stays_sheltered().await;
            s.expect(1, DiskState::InSync).await;
            s.use_shielded(level, members).await;
            if !s.event("group-sheltered") {
                s.machine.complain("nobody was told that the group is sheltered".into());
            }
        });
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.verify().await;
            s.stays_sheltered().await;
            s.use_shielded(level, members).await;
            let third = s.add_spare().await;
            s.await_that("the third spare", move |s| s.is_being_filled(third as usize)).await;
            s.scribble(3).await;
            s.kill(&format!("d{}", members + 3 + tolerance + 1));
            s.scribble(3).await;
            s.flush().await;
            s.stays_sheltered().await;
        });
        spare_comes(&mut stage, tolerance);
    }
}

/// An ailing disk and no spare at all: the group is shielded at once; crashes, then a spare.
pub(super) fn without_any_spare(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.shelter_without_a_spare(tolerance).await;
            s.use_shielded(level, members).await;
        });
        crash_often(&mut stage);
        spare_comes(&mut stage, tolerance);
    }
}

/// The ailing disk dies while its group is sheltered, or another member does: the shield stays, and spares are filled as they come.
pub(super) fn members_die(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        for dead in [1, 2] {
            let mut stage = stage_of(seed, trace.clone(), level, members, 0);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.shelter_without_a_spare(tolerance).await;
                s.kill(&format!("d{dead}"));
                s.verify().await;
                s.scribble(20).await;
                s.flush().await;
                s.stays_sheltered().await;
                // A silent group learns of it when something asks the disk; it may have.
                let _ = s.machine.array.fail_disk(DiskNumber(dead)).await;
                s.stays_sheltered().await;
                let cancelled = s.machine.array.cancel_replace(DiskNumber(1)).await;
                if dead == 1 {
                    s.must_refuse(cancelled, "no longer answers");
                    s.stays_sheltered().await;
                    s.add_spare().await;
                } else {
                    // Given up: updates go into a group that lacks a member, as an operator wants it.
                    s.must(cancelled, "cancel");
                    s.whole_again().await;
                    s.add_spare().await;
                    s.await_that("a whole group", Script::is_whole).await;
                }
                ends_whole(&s).await;
            });
            restarts(&mut stage);
        }
    }
}

/// Another member dies and its place is filled first; the ailing disk goes on waiting, and gets the next spare.
pub(super) fn another_first(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.shelter_without_a_spare(tolerance).await;
            s.bay("d2").suspect.set(true);
            s.must(s.machine.array.fail_disk(DiskNumber(2)).await, "disk fail");
            s.stays_sheltered().await;
            let first = s.add_spare().await;
            s.await_that("a whole group", Script::is_whole).await;
            s.expect(first, DiskState::InSync).await;
            s.expect(1, DiskState::InSync).await;
            s.stays_sheltered().await;
            if s.event("write-back-ended") {
                s.machine.complain("updates went home although the ailing disk waits".into());
            }
            s.scribble(10).await;
        });
        spare_comes(&mut stage, 0);
    }
}

/// A second member is found ailing: it gets its turn when the first was replaced and its updates are home.
pub(super) fn another_ails(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.shelter_without_a_spare(tolerance).await;
            s.machine.array.smart_failure(DiskNumber(2));
            s.stays_sheltered().await;
            let spares = [s.add_spare().await, s.add_spare().await];
            let replaced = move |s: &Script| {
                let members = &s.machine.array.report().groups[0].members;
                spares.iter().all(|spare| members.contains(&DiskNumber(*spare)))
            };
            s.await_that("the end of both copies", replaced).await;
            ends_whole(&s).await;
        });
        restarts(&mut stage);
    }
}

/// Given up by command, or because the policy is taken back: updates go home, with the old member in its place.
pub(super) fn given_up(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        for by_policy in [false, true] {
            let mut stage = stage_of(seed, trace.clone(), level, members, 0);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.shelter_without_a_spare(tolerance).await;
                let array = std::rc::Rc::clone(&s.machine.array);
                s.must_refuse(array.pause_replace(DiskNumber(1)).await, "waits for a spare");
                if by_policy {
                    s.shelter(false).await;
                } else {
                    s.must(array.cancel_replace(DiskNumber(1)).await, "cancel");
                }
                s.scribble(5).await;
                s.whole_again().await;
                s.machine.pause(20 * SECOND).await;
                s.whole_again().await;
                s.expect(1, DiskState::InSync).await;
                s.verify().await;
                s.machine.audit().await;
            });
            act(&mut stage, degraded(), |s| async move {
                s.verify().await;
                if s.state().is_some() {
                    s.machine.complain("sheltered once more".into());
                }
            });
        }
    }
}

/// The backup is full, or loses a copy, while the group is sheltered: blocks go home, and no host is refused.
pub(super) fn backup_ends(seed: u64, trace: Trace) {
    for (level, members, tolerance) in redundant() {
        for full in [false, true] {
            let mut stage = stage_of(seed, trace.clone(), level, members, 0);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                if full {
                    let target = if tolerance == 2 { (Level::Raid6, 4) } else { (Level::Raid1, 2) };
                    s.add_small_work_volume(target.0, target.1, 24 * 4096).await;
                } else {
                    s.add_work_disk(tolerance + 1).await;
                }
                s.scribble(20).await;
                s.shelter(true).await;
                s.machine.array.smart_failure(DiskNumber(1));
                s.sheltered().await;
                s.scribble(20).await;
                if !full {
                    s.kill(&format!("d{}", members + 1));
                }
                s.scribble(20).await;
                s.flush().await;
                s.verify().await;
                s.stays_sheltered().await;
                if full {
                    return;
                }
                // Everything went home early: the last copies are not missed.
                s.await_that("an early end", |s| s.event("drained-early")).await;
                (1..=tolerance).for_each(|leg| s.kill(&format!("d{}", members + 1 + leg)));
                s.scribble(20).await;
                s.flush().await;
                s.stays_sheltered().await;
                s.add_spare().await;
                ends_whole(&s).await;
            });
            if full {
                spare_comes(&mut stage, 0);
            } else {
                restarts(&mut stage);
            }
        }
    }
}

/// A block that neither the ailing disk nor its peer gives is an error while sheltered; one that is written meanwhile is not lost.
pub(super) fn unreadable(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid1, 2, 0);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        const LAST: u64 = 512 * 1024;
        s.write(0, s.size()).await;
        s.add_work_disk(2).await;
        s.shelter(true).await;
        s.machine.array.smart_failure(DiskNumber(1));
        s.sheltered().await;
        s.write(0, 64 * 1024).await;
        for disk in ["d1", "d2"] {
            // A block that the log has a newer version of, and one that only home has.
            spoil(&s, disk, 0, 4096);
            spoil(&s, disk, LAST, 4096);
        }
        s.host.must(s.host.read(0, 4096).await, "a read");
        if s.host.read(LAST, 4096).await.is_ok() {
            s.machine.complain("a block came from nowhere".into());
        }
        s.stays_sheltered().await;
        s.write(LAST, 4096).await;
        s.verify().await;
        s.add_spare().await;
        ends_whole(&s).await;
        let lost = s.machine.array.report().groups[0].lost_blocks;
        if lost > 0 {
            s.machine.complain(format!("{lost} blocks are lost that hosts wrote meanwhile"));
        }
    });
}
