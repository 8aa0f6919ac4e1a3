//! Stories of what people are told of copies that end or start over, and how often.
//!
//! Owns the scripts; the list is in `avoidance.rs`. Invariants: with and without a shield a copy by command ends the same way where no spare is left, is told of
//! once, and does not begin by itself later; a restart changes nothing of that.

use std::rc::Rc;

use forestall_engine::format::layout::Layout;
use forestall_engine::health::Mode;
use forestall_engine::{
    AssembleOptions, AvoidanceState, DiskNumber, DiskReport, DiskState, JobKind, JobReport,
    JobState, Level, Strategy,
};

use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::shield::{SECOND, SLOW};
use crate::stage::Stage;
use crate::trace::Trace;

/// With and without a shield.
const STRATEGIES: [Strategy; 2] = [Strategy::Direct, Strategy::WorkDisk];

/// What tells that a copy by command has ended.
const ENDED: &str = "disk 1 stays; give the command again";

impl Script {
    /// How many events of this kind say `words`, since the array was made.
    fn times_told(&self, kind: &str, words: &str) -> usize {
        let events = self.machine.array.events_after(0);
        events.iter().filter(|e| e.kind == kind && e.message.contains(words)).count()
    }

    fn told_once(&self, kind: &str, words: &str) {
        let events = self.machine.array.events_after(0);
        if self.times_told(kind, words) != 1 {
            self.machine.complain(format!("{kind} {words:?} is not told once: {events:?}"));
        }
    }

    fn is_filled(&self, disk: u32) -> bool {
        let is = |d: &DiskReport| d.number == DiskNumber(disk) && d.state == DiskState::Rebuilding;
        self.machine.array.report().disks.iter().any(is)
    }

    /// The last job that fills a disk.
    fn copy_to(&self, disk: u32) -> Option<JobReport> {
        let mut jobs = self.machine.array.jobs().into_iter();
        jobs.rfind(|job| {
            job.kind == JobKind::Replace
                && job.disk == Some(DiskNumber(disk))
                && job.state != JobState::Waiting
        })
    }

    /// Disk 1 is being copied, so slowly that it does not end.
    async fn in_mid_copy(&mut self, strategy: Strategy) {
        self.add_work_disk(2).await;
        self.scribble(20).await;
        self.replace(1, SLOW, strategy).await;
        self.await_that("a copy to disk 4", |s| s.copy_to(4).is_some()).await;
        self.scribble(5).await;
    }

    /// Nothing is copied any more, whatever comes.
    async fn stays_ended(&mut self) {
        self.await_that("the end", |s| s.times_told("replace-ended", ENDED) > 0).await;
        self.whole_again().await;
        let spare = self.add_spare().await;
        self.machine.pause(20 * SECOND).await;
        self.scribble(5).await;
        if self.is_filled(spare) || !self.in_state(spare, DiskState::Spare) {
            self.machine.complain("a copy that had ended began by itself".into());
        }
        self.told_once("replace-ended", ENDED);
        self.expect(1, DiskState::InSync).await;
        self.verify().await;
    }
}

/// The copy has ended: also after a restart, and until the command is given again.
fn restarts_ended(stage: &mut Stage) {
    act(stage, degraded(), |mut s| async move {
        s.machine.pause(20 * SECOND).await;
        s.told_once("replace-ended", ENDED);
        s.scribble(5).await;
        s.replace(1, 0, Strategy::Direct).await;
        s.await_that("the swap", |s| !s.in_state(1, DiskState::InSync)).await;
        s.verify().await;
        s.machine.audit().await;
    });
}

/// The only spare dies in a copy by command, in one that is paused, or is missing at a start.
pub(super) fn copy_ends_without_a_spare(seed: u64, trace: Trace) {
    for strategy in STRATEGIES {
        for paused in [false, true] {
            let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 1);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.in_mid_copy(strategy).await;
                if paused {
                    let paused = s.machine.array.pause_replace(DiskNumber(1)).await;
                    s.must(paused, "replace pause");
                }
                s.kill("d4");
                s.scribble(5).await;
                s.flush().await;
                s.stays_ended().await;
                let job = s.copy_to(4);
                let said = if paused { "disk 4 failed while it was filled" } else { ENDED };
                let failed =
                    |job: &JobReport| job.state == JobState::Failed && job.message.contains(said);
                if !job.as_ref().is_some_and(failed) {
                    s.machine.complain(format!("the job does not tell that it ended: {job:?}"));
                }
            });
            restarts_ended(&mut stage);
        }
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 1);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.in_mid_copy(strategy).await;
        });
        stage.world.shelf.named("d4").expect("the spare").withheld.set(true);
        act(&mut stage, degraded(), |mut s| async move {
            s.verify().await;
            s.stays_ended().await;
        });
        restarts_ended(&mut stage);
    }
}

/// The spare dies in a paused copy, or is missing at a start: the next one stands in for it, and that is said.
pub(super) fn next_spare_stands_in(seed: u64, trace: Trace) {
    for strategy in STRATEGIES {
        for missing in [false, true] {
            let how =
                if missing { "was being filled and is missing" } else { "failed while it was" };
            let stands_in = format!("in the stead of disk 4, which {how}");
            let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 2);
            let ends_well = async move |mut s: Script| {
                s.await_that("a copy to disk 5", |s| s.copy_to(5).is_some()).await;
                s.told_once("spare-engaged", &stands_in);
                let job = s.copy_to(5).expect("seen above");
                let running = job.state == JobState::Running;
                if running && !job.message.contains(&stands_in) {
                    s.machine.complain(format!("the job does not say so: {job:?}"));
                }
                s.must(s.machine.array.limit_job(job.id, 0).await, "jobs --limit");
                s.scribble(5).await;
                s.await_that("the swap", |s| s.in_state(5, DiskState::InSync)).await;
                s.whole_again().await;
                s.verify().await;
                s.machine.audit().await;
            };
            if missing {
                act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                    s.in_mid_copy(strategy).await;
                });
                stage.world.shelf.named("d4").expect("the spare").withheld.set(true);
                act(&mut stage, degraded(), ends_well);
            } else {
                act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                    s.in_mid_copy(strategy).await;
                    s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "replace pause");
                    s.kill("d4");
                    s.scribble(5).await;
                    ends_well(s).await;
                });
            }
        }
    }
}

/// The spare of a paused copy dies, and the next one is filled: nobody paused that, so a start does not let it stand still either.
pub(super) fn pause_ends_with_its_spare(seed: u64, trace: Trace) {
    for strategy in STRATEGIES {
        for missing in [false, true] {
            let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 2);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.in_mid_copy(strategy).await;
                s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "replace pause");
                if !missing {
                    s.kill("d4");
                    s.scribble(5).await;
                    s.await_that("a copy to disk 5", |s| s.copy_to(5).is_some()).await;
                }
            });
            let spare = stage.world.shelf.named("d4").expect("the spare");
            spare.withheld.set(true);
            for _ in 0..2 {
                act(&mut stage, degraded(), |s| async move {
                    let goes_on =
                        |job: JobReport| matches!(job.state, JobState::Running | JobState::Done);
                    s.await_that("a copy to disk 5", |s| s.copy_to(5).is_some_and(goes_on)).await;
                    s.verify().await;
                });
            }
        }
    }
}

/// The old member of a paused copy is missing at a start: its slot is rebuilt on the spare, and nobody has to say so.
pub(super) fn pause_ends_with_its_member(seed: u64, trace: Trace) {
    for strategy in STRATEGIES {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 1);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.in_mid_copy(strategy).await;
            s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "replace pause");
        });
        stage.world.shelf.named("d1").expect("the member").withheld.set(true);
        stage.run(degraded(), None, |machine| async move {
            let s = Script::new(&machine);
            s.await_that("the rebuild", |s| s.in_state(4, DiskState::InSync)).await;
            s.verify().await;
        });
        stage.end(false);
    }
}

impl Script {
    /// Disks 1 and 2 are being copied to disks 5 and 6, and the second copy is paused.
    async fn one_of_two_pauses(&mut self, strategy: Strategy) {
        if strategy == Strategy::WorkDisk {
            self.add_work_disk(3).await;
        }
        self.write(0, self.size()).await;
        self.flush().await;
        self.replace(1, SLOW, strategy).await;
        self.replace(2, SLOW, strategy).await;
        self.await_that("a copy to disk 5", |s| s.copy_to(5).is_some()).await;
        self.must(self.machine.array.pause_replace(DiskNumber(2)).await, "replace pause");
        self.scribble(5).await;
    }
}

/// Two disks of a group are copied and one copy is paused: after a stop or a crash that one alone stands still, and when the other is given up the shield
/// stays up for it.
pub(super) fn one_of_two_copies_is_paused(seed: u64, trace: Trace) {
    for (strategy, crash) in STRATEGIES.into_iter().flat_map(|s| [(s, false), (s, true)]) {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid6, 4, 2);
        if crash {
            stage.run(AssembleOptions::default(), None, move |machine| async move {
                Script::new(&machine).one_of_two_pauses(strategy).await;
            });
            stage.end(false);
        } else {
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.one_of_two_pauses(strategy).await;
            });
        }
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            let array = Rc::clone(&s.machine.array);
            let is = |job: Option<JobReport>, state| job.is_some_and(|job| job.state == state);
            s.await_that("a copy to disk 5", |s| is(s.copy_to(5), JobState::Running)).await;
            if !is(s.copy_to(6), JobState::Paused) {
                s.machine.complain(format!("the pause is over: {:?}", s.copy_to(6)));
            }
            s.must(array.cancel_replace(DiskNumber(1)).await, "replace cancel");
            s.machine.pause(2 * SECOND).await;
            s.scribble(5).await;
            let shielded = s.state() == Some(AvoidanceState::Copying);
            if shielded != (strategy == Strategy::WorkDisk) {
                s.machine.complain(format!("the shield of the other copy: {:?}", s.state()));
            }
            s.must(array.resume_replace(DiskNumber(2)).await, "replace resume");
            s.await_that("a copy to disk 6", |s| is(s.copy_to(6), JobState::Running)).await;
            let job = s.copy_to(6).expect("seen above").id;
            s.must(array.limit_job(job, 0).await, "jobs --limit");
            s.await_that("the swap", |s| s.in_state(6, DiskState::InSync)).await;
            s.whole_again().await;
            s.expect(1, DiskState::InSync).await;
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

/// The spare dies, and the next one takes no maps: the third is filled, or the copy would have ended unheard.
pub(super) fn third_spare_stands_in(seed: u64, trace: Trace) {
    for strategy in STRATEGIES {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 3);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
            s.in_mid_copy(strategy).await;
            let second = s.bay("d5");
            second.suspect.set(true);
            let layout = Layout::for_size(second.drive.size()).expect("a labelled disk");
            for maps in [layout.intent, layout.unwritten, layout.lost, layout.cursors] {
                maps.iter()
                    .for_each(|map| second.drive.faults_mut().protect(map.offset..map.end()));
            }
            s.kill("d4");
            s.scribble(5).await;
            s.await_that("a copy to disk 6", |s| s.copy_to(6).is_some()).await;
            let job = s.copy_to(6).expect("seen above").id;
            s.must(s.machine.array.limit_job(job, 0).await, "jobs --limit");
            s.await_that("the swap", |s| s.in_state(6, DiskState::InSync)).await;
            s.whole_again().await;
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

/// The only spare of an ailing disk dies: a copy by itself is not said to have ended, and goes on once there is a spare.
pub(super) fn ailing_disk_waits(seed: u64, trace: Trace) {
    for strategy in STRATEGIES {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 1);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            if strategy == Strategy::WorkDisk {
                s.add_work_disk(2).await;
            }
            s.scribble(20).await;
            s.replace(1, SLOW, strategy).await;
            s.await_that("a copy to disk 4", |s| s.copy_to(4).is_some()).await;
            s.machine.array.smart_failure(DiskNumber(1));
            s.kill("d4");
            s.scribble(5).await;
            s.flush().await;
            s.whole_again().await;
            s.await_that("a refusal", |s| s.event("avoidance-refused")).await;
            let spare = s.add_spare().await;
            s.await_that("the swap", |s| s.in_state(spare, DiskState::InSync)).await;
            s.whole_again().await;
            if s.times_told("replace-ended", ENDED) > 0 {
                s.machine.complain("the copy of an ailing disk is said to have ended".into());
            }
            s.verify().await;
            s.machine.audit().await;
        });
    }
}

impl Script {
    /// The copy to disk 4 is listed as paused, with what makes it go on.
    fn listed_as_paused(&self) {
        let job = self.copy_to(4);
        let is_told = |job: &JobReport| {
            job.state == JobState::Paused && job.message.contains("`forestall replace resume 1`")
        };
        if !job.as_ref().is_some_and(is_told) {
            self.machine.complain(format!("it is not listed as paused: {job:?}"));
        }
    }

    async fn pause(&self) {
        self.must(self.machine.array.pause_replace(DiskNumber(1)).await, "replace pause");
        self.listed_as_paused();
    }
}

/// A pause is seen in the list of jobs, from before the copy began, in the middle of it, and after a restart; not after it was given up.
pub(super) fn paused_copy_is_listed(seed: u64, trace: Trace) {
    for strategy in STRATEGIES {
        for early in [false, true] {
            let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 1);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                if early {
                    s.add_work_disk(2).await;
                    s.scribble(20).await;
                    s.replace(1, SLOW, strategy).await;
                } else {
                    s.in_mid_copy(strategy).await;
                }
                s.pause().await;
                s.machine.pause(SECOND).await;
                s.listed_as_paused();
            });
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.machine.pause(SECOND).await;
                s.listed_as_paused();
                let paused = s.copy_to(4).expect("seen above").id;
                let limited = s.machine.array.limit_job(paused, 0).await;
                s.must_refuse(limited, "go on with `forestall replace resume 1`");
                let resumed = s.machine.array.resume_replace(DiskNumber(1)).await;
                s.must(resumed, "replace resume");
                let runs = |job: &JobReport| job.state == JobState::Running;
                s.await_that("the copy", |s| s.copy_to(4).is_some_and(|job| runs(&job))).await;
                let jobs = s.machine.array.jobs();
                let copies = jobs.iter().filter(|job| job.kind == JobKind::Replace);
                if copies.map(|job| job.id).ne([paused]) {
                    s.machine.complain(format!("it does not go on under its number: {jobs:?}"));
                }
                s.pause().await;
                let cancelled = s.machine.array.cancel_replace(DiskNumber(1)).await;
                s.must(cancelled, "replace cancel");
                s.whole_again().await;
                if s.copy_to(4).is_none_or(|job| job.state != JobState::Stopped) {
                    s.machine.complain(format!("given up: {:?}", s.copy_to(4)));
                }
                s.scribble(5).await;
                s.verify().await;
            });
        }
    }
}

/// A verdict that the configuration keeps is no news to a start.
pub(super) fn verdict_is_told_once(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 1);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
        s.machine.array.smart_failure(DiskNumber(1));
        s.await_that("the verdict", |s| s.event("disk-ailing")).await;
    });
    stage.run(AssembleOptions::default(), None, |machine| async move {
        let s = Script::new(&machine);
        machine.pause(10 * SECOND).await;
        s.told_once("disk-ailing", "disk 1 ");
    });
    stage.end(false);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.machine.pause(10 * SECOND).await;
        s.told_once("disk-ailing", "disk 1 ");
        s.must(s.machine.array.clear_health(DiskNumber(1)).await, "health clear");
        s.machine.pause(10 * SECOND).await;
        s.machine.array.smart_failure(DiskNumber(1));
        s.await_that("the news", |s| s.times_told("disk-ailing", "disk 1 ") == 2).await;
    });
}

/// What stands in the way of a copy is named, and what to do about it.
pub(super) fn why_there_is_no_spare(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 2);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
        s.machine.array.smart_failure(DiskNumber(4));
        s.scribble(5).await;
        s.must(s.machine.array.replace(DiskNumber(1), None, SLOW).await, "replace 1");
        s.told_once("copied-directly", "`forestall work-disk add N --legs PATH,PATH`");
        s.add_group(Level::Raid1, 2, 8 << 20).await;
        let second = s.machine.array.replace(DiskNumber(2), None, 0).await;
        s.must_refuse(second, "trust it again with `forestall health clear 4`");
        let second = s.machine.array.replace(DiskNumber(2), None, 0).await;
        s.must_refuse(second, "disk 5 is being filled in group 1");
        let large = s.machine.array.replace(DiskNumber(6), None, 0).await;
        s.must_refuse(large, "disk 4 has only ");
    });
}
