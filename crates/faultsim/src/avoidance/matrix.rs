//! Every level with every backup storage, and a second member that dies at each quarter of the copy.
//!
//! Owns one script. Within what the level survives, and beyond it where the ailing disk still reads, every byte is right.

use forestall_engine::{AssembleOptions, DiskNumber, JobKind, Level, Strategy};

use crate::scenarios::{act, degraded};
use crate::script::Script;
use crate::shield::{LEVELS, SLOW, stage};
use crate::trace::Trace;

impl Script {
    /// Waits until so many hundredths of the copy are done, or it has ended.
    async fn copied(&self, percent: u64) {
        let reached = |s: &Self| {
            let jobs = s.machine.array.jobs();
            let copy = jobs.iter().find(|j| j.kind == JobKind::Replace);
            s.state().is_none()
                || copy.is_some_and(|j| j.done_bytes * 100 >= j.total_bytes * percent)
        };
        self.await_that("that much of the copy", reached).await;
    }
}

pub(super) fn second_member_dies_anywhere(seed: u64, trace: Trace) {
    for strategy in [Strategy::Pair, Strategy::WorkVolume, Strategy::WorkDisk, Strategy::Direct] {
        for (level, members, tolerance) in LEVELS {
            for percent in [0, 25, 50, 75, 100] {
                if level == Level::Raid0 && percent > 0 {
                    continue; // Nothing else may die: the healthy run is enough.
                }
                let mut stage = stage(seed + percent, &trace, level, members);
                act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                    if strategy != Strategy::Direct {
                        s.add_backup(strategy, tolerance).await;
                    }
                    s.scribble(30).await;
                    s.replace(1, 4 * SLOW, strategy).await;
                    s.scribble(5).await;
                    s.copied(percent).await;
                    if tolerance > 0 {
                        s.kill("d2");
                    }
                    s.scribble(15).await;
                    s.flush().await;
                    s.verify().await;
                    s.whole_again().await;
                    s.machine.quiet().await;
                    s.verify().await;
                    s.machine.audit().await;
                    let replaced = s.machine.array.report();
                    if replaced.groups[0].members.contains(&DiskNumber(1)) {
                        s.machine.complain("the ailing disk was not replaced".into());
                    }
                });
                act(&mut stage, degraded(), |s| async move { s.verify().await });
            }
        }
    }
}
