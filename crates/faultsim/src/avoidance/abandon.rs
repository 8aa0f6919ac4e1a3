//! Stories of a log that is gone for good: given up by command, or by itself where nothing lies only there.
//!
//! Owns the scripts; the list is in `avoidance.rs`. Invariant: what is lost is exactly what only the log had, and it is listed.

use std::collections::BTreeSet;
use std::rc::Rc;

use forestall_engine::{AssembleOptions, BLOCK_SIZE, DiskNumber, ProblemKind, Strategy};

use super::events::restarts;
use crate::scenarios::{act, degraded};
use crate::script::Script;
use crate::shield::{LEVELS, SECOND, SET, SLOW, stage};
use crate::trace::Trace;

/// Blocks that are written under the shield.
const AWAY: [u64; 6] = [3, 7, 8, 9, 25, 30];

/// How the legs go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Going {
    Dead,
    Hung,
}

impl Script {
    fn legs_go(&self, members: usize, legs: usize, going: Going) {
        for at in 0..legs {
            let name = format!("d{}", members + 3 + at);
            match going {
                Going::Dead => self.kill(&name),
                Going::Hung => {
                    let bay = self.bay(&name);
                    bay.suspect.set(true);
                    bay.drive.faults_mut().stall(u64::MAX / 2);
                }
            }
        }
    }

    fn told_of_abandon(&self) -> bool {
        let problems = self.machine.array.report().problems;
        let told = |p: &forestall_engine::Problem| {
            p.kind == ProblemKind::LegOut && p.action.contains("forestall work-disk abandon 60")
        };
        problems.iter().any(told)
    }
}

/// All legs go at once while the group is shielded: the write-back does not end, `status` names the way out, and giving the log up lists exactly
/// those blocks that only it had.
pub(super) fn last_legs_are_gone(seed: u64, trace: Trace) {
    let ways = [Going::Dead, Going::Hung].into_iter().flat_map(|g| [(g, false), (g, true)]);
    for ((level, members, tolerance), (going, copying)) in
        LEVELS.into_iter().flat_map(|l| ways.clone().map(move |way| (l, way)))
    {
        let mut stage = stage(seed, &trace, level, members);
        // A disk that hangs is not stopped in good order.
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            let array = Rc::clone(&s.machine.array);
            s.add_work_disk(tolerance + 1).await;
            s.write(0, 20 * BLOCK_SIZE).await;
            s.flush().await;
            s.must_refuse(array.abandon_work_disk(SET).await, "holds no updates");
            s.stand_still(0, Strategy::WorkDisk).await;
            for block in AWAY {
                s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
            }
            s.flush().await;
            s.must_refuse(array.abandon_work_disk(SET).await, "still answers");
            s.legs_go(members, tolerance + 1, going);
            let gone: BTreeSet<u64> = AWAY.into();
            if s.unreadable().await != gone {
                s.machine.complain(format!("{:?} do not read", s.unreadable().await));
            }
            if !copying {
                s.go_on().await;
                s.machine.pause(60 * SECOND).await;
                if s.state().is_none() {
                    s.machine.complain("the avoidance ended although blocks are away".into());
                }
            }
            s.await_that("a way out", Script::told_of_abandon).await;
            let lost = s.must(array.abandon_work_disk(SET).await, "work-disk abandon");
            if lost != gone.len() as u64 {
                s.machine.complain(format!("{lost} blocks were given up"));
            }
            s.flush().await;
            s.write(40 * BLOCK_SIZE, 8 * BLOCK_SIZE).await;
            s.flush().await;
            if copying {
                s.go_on().await;
            }
            s.whole_again().await;
            if s.unreadable().await != gone {
                s.machine.complain(format!("{:?} do not read", s.unreadable().await));
            }
        });
        stage.end(false);
        act(&mut stage, degraded(), move |s| async move {
            let lost = s.unreadable().await;
            if lost != BTreeSet::from(AWAY) {
                s.machine.complain(format!("after a restart {lost:?} do not read"));
            }
            for block in lost {
                s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
            }
            s.flush().await;
            s.verify().await;
            let count = s.machine.array.report().groups[0].lost_blocks;
            if count > 0 {
                s.machine.complain(format!("{count} blocks are still listed"));
            }
        });
    }
}

/// All legs go while nothing is away: no host hears of it, a start does not ask for them, and the copy goes on.
pub(super) fn empty_log_is_let_go(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage(seed, &trace, level, members);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_work_disk(tolerance + 1).await;
            s.scribble(40).await;
            s.flush().await;
            s.stand_still(SLOW, Strategy::WorkDisk).await;
            s.legs_go(members, tolerance + 1, Going::Dead);
            s.scribble(10).await;
            s.flush().await;
            s.await_that("the end of the log", |s| s.event("backup-abandoned")).await;
            s.scribble(10).await;
            s.flush().await;
            s.verify().await;
        });
        for leg in 0..=tolerance {
            let bay = stage.world.shelf.named(&format!("d{}", members + 3 + leg));
            bay.expect("a leg").withheld.set(true);
        }
        act(&mut stage, degraded(), move |mut s| async move {
            s.verify().await;
            s.scribble(10).await;
            let resumed = s.machine.array.resume_replace(DiskNumber(1)).await;
            s.must(resumed, "resume");
            s.whole_and_sound().await;
        });
        restarts(&mut stage);
    }
}
