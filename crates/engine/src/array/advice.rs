//! What an administrator is told to do about a member that is out, and about a disk that has done its service.
//!
//! Owns the words, and the look at the spares that decides between them. Invariant: what is announced (a spare that is about to take
//! over) is what `tend` does, because both ask `pick_spare`.

use super::lost::scrub_words;
use super::retire::may_need_retired;
use super::status::job_words;
use super::{Array, AtStart};
use crate::config::{Configuration, DiskEntry, DiskRole, DropReason, Service};
use crate::ids::{DiskNumber, GroupNumber};
use crate::report::{
    DiskReport, DiskState, GroupReport, Health, JobKind, JobReport, JobState, Problem, ProblemKind,
};
use crate::runtime::Env;
use crate::words;

/// What the spares can do for a member that is out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outlook {
    /// This one takes its place.
    Ready(DiskNumber),
    /// This one stands by, and is too small, ailing or silent.
    Unfit(DiskNumber),
    /// The only ones are being filled in other places.
    Busy(DiskNumber, GroupNumber),
    /// There is none.
    Nothing,
}

impl<E: Env> Array<E> {
    /// What the spares can do for a member of group `number` that is out.
    pub(super) fn outlook(&self, config: &Configuration, number: GroupNumber) -> Outlook {
        let member_len = config.group(number).map_or(0, |g| g.stripes * u64::from(g.chunk));
        if let Some(spare) = self.pick_spare(config, member_len) {
            return Outlook::Ready(spare);
        }
        let mut outlook = Outlook::Nothing;
        for spare in config.disks.iter().filter(|d| d.role == DiskRole::Spare && d.in_service()) {
            match config.slot_of(spare.number) {
                None => return Outlook::Unfit(spare.number),
                Some((elsewhere, _)) => outlook = Outlook::Busy(spare.number, elsewhere),
            }
        }
        outlook
    }

    /// Disks that served as members and whose places others have: nobody's data is concerned, and yet there is something to do.
    pub(super) fn spent_disks(&self, config: &Configuration, disks: &[DiskReport]) -> Vec<Problem> {
        let is_spent = |d: &&DiskReport| {
            let gone = [DiskState::Failed, DiskState::Missing, DiskState::Replaced];
            d.group.is_none() && gone.contains(&d.state)
        };
        let spent = disks.iter().filter(is_spent);
        let spent =
            spent.filter_map(|d| Some((d, config.disk(d.number).filter(|e| was_member(e))?)));
        spent
            .map(|(disk, entry)| Problem {
                kind: ProblemKind::DiskSpent,
                health: Health::Healthy,
                what: self.why_spent(config, disk, entry),
                action: self.owed_words(disk.number)
                    .or_else(|| self.retired_words(config, disk.number))
                    .or_else(|| failed_test_words(config, disk))
                    .unwrap_or_else(|| format!(
                    "take it out with `forestall disk remove {}` and replace the hardware ({}); what comes in its stead is added \
                     with `forestall disk add PATH`",
                    disk.number,
                    disk.identity.words()
                )),
                risk: String::new(),
            })
            .collect()
    }

    /// A disk that is out and may be all that has some blocks.
    fn owed_words(&self, disk: DiskNumber) -> Option<String> {
        let groups = self.groups.borrow();
        let owed: u64 = groups.values().map(|group| group.owed_by_disk(disk)).sum();
        (owed > 0).then(|| {
            format!(
                "{} that it could not read so far may be on it alone: it is kept as it is and asked again every few minutes; take it out only \
                 once they are restored (`forestall volume lost`)",
                words::counted(owed, "block")
            )
        })
    }

    /// A disk that was replaced and whose test has not ended. What it owes is forgotten with a stop, and not that blocks of its slot are lost.
    fn retired_words(&self, config: &Configuration, disk: DiskNumber) -> Option<String> {
        let (number, slot) = config.retired.get(&disk)?;
        let lost = self.groups.borrow().get(number).map_or(0, |group| group.lost_in(*slot));
        if lost > 0 {
            return Some(format!(
                "keep it: {} of slot {slot} of group {number}, which it had, are listed lost and may be on it alone (`forestall volume lost`). \
                 Nothing is written to it before hosts have written these anew; then it is tested. Take it out only once they are restored",
                words::counted(lost, "block")
            ));
        }
        // One that a start found is looked at before it is opened.
        let looked_at = !self.at_start.borrow().contains_key(&disk);
        if self.drives.borrow().get(&disk).is_none_or(|drive| drive.is_gone() && looked_at) {
            return None;
        }
        let testing = self.jobs().into_iter().rfind(|job| {
            job.kind == JobKind::Test && job.disk == Some(disk) && job.state == JobState::Running
        });
        let how_far = match testing {
            Some(job) => format!(" (job {}, {})", job.id, job_words(&job)),
            None if self.group(*number).is_ok_and(|group| may_need_retired(&group, *slot)) => {
                return Some(format!(
                    "nothing: it may be all that has some of what it had, and is not written to before group {number} answers everything; then it is \
                     tested, and is a spare again if it passes"
                ));
            }
            None => String::new(),
        };
        Some(format!("nothing: it is being tested{how_far}, and is a spare again if it passes"))
    }

    /// How a disk that is missing was found at the start, if it was.
    pub(super) fn found_at_start(&self, disk: &DiskReport) -> Option<AtStart> {
        let missing = disk.state == DiskState::Missing;
        missing.then(|| self.at_start.borrow().get(&disk.number).cloned()).flatten()
    }

    /// What the last scrub of a group found and nobody has mended since.
    pub(super) fn scrub_problem(&self, group: &GroupReport) -> Option<Problem> {
        let number = group.number;
        let last = self.jobs().into_iter().rfind(|job| {
            job.group == number
                && matches!(job.kind, JobKind::Check | JobKind::Repair)
                && job.state == JobState::Done
        })?;
        (last.kind == JobKind::Check && last.mismatches > 0).then(|| Problem {
            kind: ProblemKind::CopiesDiffer,
            health: Health::Degraded,
            what: format!(
                "group {number} ({}): the last scrub found {} where copies or parity differ",
                group.level,
                words::counted(last.mismatches, "block")
            ),
            action: format!(
                "find the disk, controller or memory that changes data; then {} makes them agree again",
                scrub_words(group, " --repair")
            ),
            risk: "a disk that fails may be computed wrong in these blocks".into(),
        })
    }

    /// Why a disk is used no longer: the words of the time, if the log still has them.
    fn why_spent(&self, config: &Configuration, disk: &DiskReport, entry: &DiskEntry) -> String {
        if let Some(test) = config.failed_tests.get(&disk.number) {
            let number = disk.number;
            return format!("disk {number} {}", test.words());
        }
        let events = self.events_after(0);
        let last = |kinds: &[&str]| {
            let mut events = events.iter().rev();
            let found =
                events.find(|e| e.disk == Some(disk.number) && kinds.contains(&e.kind.as_str()));
            found.map(|e| e.message.clone())
        };
        let told = last(&["disk-failed"]);
        let Service::Dropped { reason, .. } = entry.service else {
            return format!("disk {} is on its way out", disk.number);
        };
        match (reason, told) {
            (DropReason::Failed | DropReason::Operator, Some(told)) => {
                format!("{told}; another disk has its place")
            }
            (DropReason::Failed, None) => {
                format!("disk {} has failed; another disk has its place", disk.number)
            }
            (DropReason::Operator, None) => {
                format!("disk {} was failed by command; another disk has its place", disk.number)
            }
            (DropReason::Missing, _) => {
                format!("disk {} was missing at a start; another disk has its place", disk.number)
            }
            (DropReason::Replaced | DropReason::Removed, _) => {
                let told = last(&["disk-replaced"]);
                told.unwrap_or_else(|| {
                    format!("disk {} was replaced: another disk has its place", disk.number)
                })
            }
        }
    }
}

/// What to do about a replaced disk that failed its test.
fn failed_test_words(config: &Configuration, disk: &DiskReport) -> Option<String> {
    let number = disk.number;
    let test = config.failed_tests.get(&number)?;
    Some(format!(
        "take it out with `forestall disk remove {number}` and throw it away ({}); if a cable or a controller was to blame, \
         `forestall health clear {number}` {}",
        disk.identity.words(),
        test.clearing_words(config)
    ))
}

/// A member whose slot has been filled elsewhere is history, not a problem.
pub(super) fn was_member(entry: &DiskEntry) -> bool {
    entry.role == DiskRole::Member
}

/// What to do about member `absent`, which nothing fills yet; `before` tells of the work in its group that comes first.
pub(super) fn spare_words(
    outlook: &Outlook,
    absent: DiskNumber,
    before: Option<&JobReport>,
) -> String {
    let readd = format!("bring the disk back with `forestall disk readd {absent}`");
    match outlook {
        Outlook::Ready(spare) => match before.map(|job| (job.id, job_words(job))) {
            None => format!("spare {spare} is about to take its place"),
            Some((id, how_far)) => {
                format!(
                    "spare {spare} takes its place once job {id} of this group has ended ({how_far})"
                )
            }
        },
        Outlook::Unfit(spare) => format!(
            "spare {spare} cannot take its place: it is too small or not well; add a larger one with `forestall disk add PATH`, or {readd}"
        ),
        Outlook::Busy(spare, group) => format!(
            "the only spare, disk {spare}, is being filled in group {group}; add another with `forestall disk add PATH`, or {readd}"
        ),
        Outlook::Nothing => format!(
            "there is no spare: add one with `forestall disk add PATH --role spare`, or {readd}"
        ),
    }
}

/// What to do about a member that holds writes of its own.
pub(super) fn diverged_words(disk: &DiskReport) -> String {
    let (number, path) = (disk.number, &disk.identity.path);
    format!(
        "take off it what is needed (serve it alone), then give it up: `forestall destroy {path}`, `forestall disk add {path}`; \
         or a spare takes the place of disk {number}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_spare_that_is_free_and_fits_is_announced() {
        let words = |outlook| spare_words(&outlook, DiskNumber(3), None);
        let ready = words(Outlook::Ready(DiskNumber(6)));
        assert!(ready.contains("spare 6") && ready.contains("about to"), "{ready}");
        let busy = words(Outlook::Busy(DiskNumber(6), GroupNumber(2)));
        let others = [busy.clone(), words(Outlook::Unfit(DiskNumber(6))), words(Outlook::Nothing)];
        for words in &others {
            assert!(!words.contains("about to"), "{words}");
            assert!(words.contains("disk add PATH") && words.contains("disk readd 3"), "{words}");
        }
        assert!(busy.contains("filled in group 2"), "{busy}");
    }
}
