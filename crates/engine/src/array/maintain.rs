//! Scrubbing by command and on schedule.
//!
//! Owns when a group is compared. Invariants: one scrub per group at a time; a scrub yields to resync and rebuilds by being refused while they run.

use std::rc::Rc;

use super::Array;
use crate::config::SlotState;
use crate::error::CommandError;
use crate::ids::{GroupNumber, Slot};
use crate::progress::Progress;
use crate::report::{JobKind, JobState, Severity};
use crate::runtime::{Env, Runtime};
use crate::words;

impl<E: Env> Array<E> {
    /// Starts a check, or a check that repairs what it finds. Answers the job's id. `rate` in bytes a second of each member, 0 for none.
    ///
    /// # Errors
    /// If there is no such group, it has nothing to compare, or it is being scrubbed, resynced or rebuilt.
    pub async fn scrub(
        self: &Rc<Self>,
        group: GroupNumber,
        repair: bool,
        rate: u64,
    ) -> Result<u64, CommandError> {
        let found = self.group(group)?;
        if found.is_closing() || self.stopping.get() {
            return Err(CommandError::Refused(format!(
                "group {group} is being stopped or deleted"
            )));
        }
        if !found.can_compare() {
            return Err(CommandError::Refused(format!(
                "group {group} is RAID0: it holds one copy, nothing to compare"
            )));
        }
        if !found.missing().is_empty() {
            return Err(CommandError::Refused(format!(
                "group {group} lacks a member: there is nothing to compare with until it is rebuilt"
            )));
        }
        if self.config.borrow().backups.of_group(group).is_some() {
            return Err(CommandError::Refused(format!(
                "group {group} is shielded: it is scrubbed when its updates are home again"
            )));
        }
        if let Some(job) = self.jobs.working_on(group) {
            return Err(CommandError::Refused(format!(
                "job {} works on group {group}: wait for it",
                job.id()
            )));
        }
        let kind = if repair { JobKind::Repair } else { JobKind::Check };
        let progress = Progress::new(found.member_len(), rate, self.rt.now_ns());
        let job = self.begin_job(kind, group, None, Rc::clone(&progress));
        let id = job.id();
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move {
            let (state, message) = match found.scrub(repair, &progress).await {
                Ok(true) => (JobState::Done, verdict(&progress, repair, found.lost_blocks())),
                Ok(false) => (JobState::Stopped, "stopped".to_string()),
                Err(error) => (JobState::Failed, format!("{error} while scrubbing")),
            };
            if state == JobState::Done {
                found.unreadable.set(progress.lost.get());
                found.failed_reads.set(0);
                found.failed_reads_told.set(false);
            }
            array.end_job(&job, state, message.clone());
            let listed = found.lost_blocks();
            let found = [&progress.mismatches, &progress.misfits, &progress.lost];
            let bad = found.iter().any(|count| count.get() > 0)
                || listed > 0
                || state == JobState::Failed;
            let severity = if bad { Severity::Warning } else { Severity::Info };
            array.event(
                severity,
                "scrub-ended",
                None,
                Some(group),
                format!("scrub of group {group}: {message}"),
            );
            array.note_change();
        }));
        Ok(id)
    }

    /// Checks all groups again and again. A repair is for an operator to ask for: where two copies differ, nothing tells which is right.
    pub(super) async fn scrub_on_schedule(self: Rc<Self>) {
        let every_ns = self.scrub_every_s.saturating_mul(1_000_000_000);
        while !self.stopping.get() {
            self.sleep_unless_stopped(every_ns).await;
            if self.stopping.get() {
                return;
            }
            let groups: Vec<GroupNumber> = self.groups.borrow().keys().copied().collect();
            for group in groups {
                // Refused while other work runs: then the next turn looks again.
                let _ = self.scrub(group, false, 0).await;
            }
        }
    }

    /// The rate limit asked for the fill of a slot; a copy whose member is out is a rebuild, for which none was asked.
    pub(super) fn rate_of(&self, group: GroupNumber, slot: Slot) -> u64 {
        let config = self.config.borrow();
        let entry = config.group(group).and_then(|g| g.slots.get(usize::from(slot.0)));
        let out = entry.is_none_or(|s| s.state == SlotState::Out);
        let rate = config.backups.rates.get(&(group, slot)).copied();
        rate.filter(|_| !out).unwrap_or(0)
    }
}

/// `listed`: blocks that are listed lost, which nothing compares.
fn verdict(progress: &Progress, repair: bool, listed: u64) -> String {
    let (different, lost) = (progress.mismatches.get(), progress.lost.get());
    let mut words = match (different, repair) {
        (0, _) if listed + lost > 0 => "all other copies and parity agree".to_string(),
        (0, _) => "all copies and parity agree".to_string(),
        (n, true) => format!("{} differed, mended", words::counted(n, "block")),
        (n, false) => format!(
            "{} found to differ; `forestall scrub GROUP --repair` mends that",
            words::counted(n, "block")
        ),
    };
    let misfits = progress.misfits.get();
    if misfits > 0 {
        words += &format!(
            "; {} with a wrong checksum, written anew where the others have it",
            words::counted(misfits, "block")
        );
    }
    let remade = progress.remade.get();
    if remade > 0 {
        words += &format!(
            "; {} that had been lost made anew from the others",
            words::counted(remade, "block")
        );
    }
    if listed > 0 {
        words += &format!(
            "; {} listed lost: `forestall volume lost` shows where",
            words::counted(listed, "block")
        );
    }
    if lost > 0 {
        words += &format!("; {} not to be read from anywhere", words::counted(lost, "block"));
    }
    words
}
