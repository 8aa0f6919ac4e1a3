//! Health as people see it and set it: table T3, `status`, thresholds, policy.
//!
//! Owns the words and the commands. Invariants: a refused command changes nothing; what is set counts once its generation does (rule C1).

use std::rc::Rc;

use super::Watch;
use crate::array::Array;
use crate::array::disks::no_disk;
use crate::array::status::job_words;
use crate::config::{Configuration, DiskRole, FailedTest, Retired};
use crate::error::CommandError;
use crate::health::{ErrorClass, FULL, Mode, Policy, Verdict, percent, threshold_words};
use crate::ids::DiskNumber;
use crate::report::{
    DiskReport, Health, HealthReport, JobReport, Problem, ProblemKind, Severity, T3Row,
};
use crate::runtime::Env;
use crate::words;

impl<E: Env> Array<E> {
    /// Ailing and slow disks, for `status`.
    pub(in crate::array) fn health_problems(
        &self,
        config: &Configuration,
        disks: &[DiskReport],
        jobs: &[JobReport],
    ) -> Vec<Problem> {
        let watches = self.watches.disks.borrow();
        let found = disks.iter().filter(|d| config.disk(d.number).is_some_and(|e| e.in_service()));
        let ill = found.filter_map(|disk| {
            let watch = watches.get(&disk.number).filter(|w| w.ailing || w.sat_out)?;
            let finding = watch.finding.as_ref()?;
            let part = part_of(config, disk.number);
            let what = finding.words(&disk.identity.path, part.as_deref());
            let action = match disk.work_disk {
                Some(set) => leg_action(config, disk.number, set),
                None => health_action(config, watch, disk.number, jobs, self.watches.braked.get()),
            };
            let risk = health_risk(config, disk);
            Some(Problem {
                kind: ProblemKind::DiskIll,
                health: Health::Degraded,
                what,
                action,
                risk,
            })
        });
        ill.collect()
    }

    /// Why a disk is held to be ailing, if it is; empty where nothing was found since the start.
    pub(in crate::array) fn why_ailing(&self, disk: DiskNumber) -> Option<String> {
        let watches = self.watches.disks.borrow();
        let watch = watches.get(&disk).filter(|watch| watch.ailing)?;
        Some(watch.finding.as_ref().map(|f| f.reason.clone()).unwrap_or_default())
    }

    /// Table T3: every disk's errors, level, threshold and verdict.
    #[must_use]
    pub fn table_t3(&self) -> Vec<T3Row> {
        let config = self.config.borrow();
        let watches = self.watches.disks.borrow();
        config
            .disks
            .iter()
            .map(|disk| {
                let watch = watches.get(&disk.number);
                let finding = watch.and_then(|w| w.finding.clone());
                let record = watch.map(|w| w.record).unwrap_or_default();
                let (verdict, reason) = match (&finding, disk.in_service()) {
                    (_, false) => match config.failed_tests.get(&disk.number) {
                        Some(test) => (Verdict::Out, test.words()),
                        None => (Verdict::Out, "no longer used".to_string()),
                    },
                    (found, true)
                        if watch.is_some_and(|w| w.ailing)
                            && found.as_ref().is_none_or(|f| f.verdict != Verdict::Ailing) =>
                    {
                        (
                            Verdict::Ailing,
                            "held to be ailing since it was, or failed a test".to_string(),
                        )
                    }
                    (Some(f), true) => (f.verdict, f.reason.clone()),
                    (None, true) => (Verdict::Healthy, "no errors".to_string()),
                };
                T3Row {
                    disk: disk.number,
                    counts: ErrorClass::ALL.map(|c| (c, record.counts[c as usize])).into(),
                    level_percent: percent(record.level),
                    threshold_percent: percent(finding.map_or(FULL, |f| f.threshold)),
                    verdict,
                    reason,
                }
            })
            .collect()
    }

    /// The policy and every disk's health.
    #[must_use]
    pub fn health(&self) -> HealthReport {
        HealthReport { policy: self.policy(), disks: self.table_t3() }
    }

    /// Sets the threshold of a class: errors at once that make a disk ailing.
    ///
    /// # Errors
    /// If the threshold cannot be meant, or it cannot be committed.
    pub async fn set_threshold(
        self: &Rc<Self>,
        class: ErrorClass,
        threshold: u32,
    ) -> Result<(), CommandError> {
        let mut policy = self.policy();
        policy.set_threshold(class, threshold).map_err(CommandError::Refused)?;
        let what = threshold_words(threshold, class);
        self.set_policy(policy, what).await
    }

    /// Sets what is done about an ailing disk.
    ///
    /// # Errors
    /// If it cannot be committed.
    pub async fn set_mode(self: &Rc<Self>, mode: Mode) -> Result<(), CommandError> {
        let what = match mode {
            Mode::Auto => "ailing disks are replaced by themselves",
            Mode::Advise => "ailing disks are only told of",
        };
        self.set_policy(Policy { mode, ..self.policy() }, what.into()).await
    }

    /// Sets whether groups stay shielded, or are shielded, while there is no spare to copy an ailing disk to.
    ///
    /// # Errors
    /// If it cannot be committed.
    pub async fn set_shelter(self: &Rc<Self>, shelter: bool) -> Result<(), CommandError> {
        let what = match shelter {
            true => "groups with an ailing disk are shielded also while there is no spare",
            false => {
                "without a spare groups are not shielded, and those that are take their updates home"
            }
        };
        self.set_policy(Policy { shelter, ..self.policy() }, what.into()).await
    }

    async fn set_policy(self: &Rc<Self>, policy: Policy, what: String) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        self.commit(|next| next.health.policy = policy).await?;
        self.event(Severity::Info, "policy-set", None, None, what);
        Ok(())
    }

    /// Takes back a disk's verdict and forgets its errors. One that failed its test after it was replaced is tested once more before it is used.
    ///
    /// # Errors
    /// If there is no such disk, or it cannot be committed.
    pub async fn clear_health(self: &Rc<Self>, disk: DiskNumber) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        if self.config.borrow().disk(disk).is_none() {
            return Err(no_disk(disk));
        }
        self.watch_anew(disk);
        let mut failed = None;
        self.commit(|next| {
            self.keep_health(next);
            // The verdict of the last test stands until the disk passes one.
            failed = next.failed_tests.get(&disk).filter(|_| !self.is_being_tested(disk)).cloned();
            match &failed {
                Some(test) if test.can_be_done_again(next) => {
                    next.retired.insert(disk, (test.group, test.slot));
                }
                Some(_) => drop(next.failed_tests.remove(&disk)),
                None => {}
            }
        })
        .await?;
        let what = format!("the errors of disk {disk} were cleared");
        self.event(Severity::Info, "health-cleared", Some(disk), None, what);
        if let Some(test) = failed {
            let FailedTest { group, slot, .. } = test;
            let what = if test.can_be_done_again(&self.config.borrow()) {
                let old = Retired { disk, slot };
                let words = self.take_up_test(group, old, "its errors were cleared").await;
                words.unwrap_or_else(|| {
                    format!("disk {disk} is not open: it is tested at the next start that finds it")
                })
            } else {
                format!(
                    "disk {disk} may be used again, untested: group {group}, which it served, is gone; `forestall disk readd {disk}` makes it a spare"
                )
            };
            self.event(Severity::Info, "retired-returned", Some(disk), None, what);
        }
        Ok(())
    }
}

/// What a disk is that was copied away and waits for the updates of its group to be home.
pub(super) const REPLACED: &str = "replaced and kept as a last resort";

/// What a disk in service is, if it is in no slot of a group.
pub(super) fn part_of(config: &Configuration, disk: DiskNumber) -> Option<String> {
    if let Some(set) = config.backups.set_of_leg(disk) {
        return Some(format!("a leg of {}", set.place));
    }
    if config.backups.retiring_in(disk).is_some() {
        return Some(REPLACED.into());
    }
    let alone = config.slot_of(disk).is_none();
    let is = match config.disk(disk)?.role {
        DiskRole::Spare => "a spare",
        DiskRole::Free | DiskRole::Member | DiskRole::Work => "in no group",
    };
    alone.then(|| is.into())
}

/// What to do about an ailing leg of a work disk.
fn leg_action(config: &Configuration, leg: DiskNumber, set: DiskNumber) -> String {
    let work = config.backups.set_of_leg(leg);
    let holds = work.is_some_and(|work| work.log != 0);
    let others = work.is_some_and(|work| config.serving_legs(work).any(|other| other != leg));
    let trust = format!("`forestall health clear {leg}` trusts it again");
    match (others, holds) {
        (true, false) => format!(
            "put another in its stead: `forestall disk fail {leg}`, then `forestall work-disk add {set} --legs PATH`; or {trust}"
        ),
        (true, true) => format!(
            "it goes on taking redirected writes, as the other legs do. Once nothing of the set is away: `forestall disk fail {leg}`, then \
             `forestall work-disk add {set} --legs PATH` puts another in its stead; or {trust}"
        ),
        (false, false) => format!(
            "make the work disk anew of other disks: `forestall work-disk remove {set}`, then `forestall work-disk add {set} --legs PATH,PATH`; or {trust}"
        ),
        (false, true) => format!(
            "it is the last leg and holds updates that are not home: leave it as it is until they are, see `forestall jobs`; or {trust}"
        ),
    }
}

/// What the failing of an ill disk would cost.
fn health_risk(config: &Configuration, disk: &DiskReport) -> String {
    if let Some(set) = disk.work_disk {
        let work = config.backups.set_of_leg(disk.number);
        let legs = work.map_or(0, |work| config.serving_legs(work).count());
        return match legs {
            0 | 1 => "it still answers: if it fails, what only it holds cannot be had".into(),
            n => format!(
                "it still answers: if it fails, what work disk {set} holds is on {} more",
                words::counted(n as u64 - 1, "leg")
            ),
        };
    }
    match config.slot_of(disk.number) {
        Some(_) => "it still answers: nothing is lost if it fails before its copy is done, as long as its group may lose a disk".into(),
        None => "it still answers and holds nobody's data: there is one spare less".into(),
    }
}

/// What is being done about an ill disk, or what to do.
fn health_action(
    config: &Configuration,
    watch: &Watch,
    number: DiskNumber,
    jobs: &[JobReport],
    braked: bool,
) -> String {
    let place = config.slot_of(number);
    let spare =
        place.and_then(|(group, slot)| config.group(group)?.slots[usize::from(slot.0)].replacement);
    let job = jobs.iter().find(|job| spare.is_some() && job.disk == spare);
    match (job, spare) {
        (Some(job), _) => job_words(job),
        (None, Some(spare)) => format!("its copy to disk {spare} is about to start"),
        (None, None) if !watch.ailing => {
            "hosts are answered from its peers; it is read again after a while".into()
        }
        (None, None) if place.is_none() => format!(
            "it is not used as a spare; trust it again with `forestall health clear {number}`, or remove it"
        ),
        (None, None) if config.health.policy.mode == Mode::Advise => {
            format!("nothing is done by itself; `forestall replace {number}` copies it to a spare")
        }
        (None, None) if watch.held => {
            format!("its replacement was cancelled; `forestall replace {number}` starts it again")
        }
        (None, None) if braked => format!(
            "nothing is replaced by itself while so many members look ill at once; `forestall replace {number}` copies it to a spare"
        ),
        (None, None)
            if place.is_some_and(|(group, _)| config.backups.of_group(group).is_some()) =>
        {
            "its turn comes when the updates of its group are home".into()
        }
        (None, None) if !watch.refused.is_empty() => watch.refused.clone(),
        (None, None) => format!(
            "it is copied to a spare as soon as its turn comes, or at once with `forestall replace {number}`"
        ),
    }
}
