//! What `status` tells of shielded groups, of the disks that were replaced under a shield, and of work disks.
//!
//! Owns these reports and their words: which disk is copied away and why, where writes go, what is not home yet, what another failure would
//! cost. Changes nothing.

use super::{Array, job_words, name};
use crate::array::overflow::{overflow_words, resting_words};
use crate::array::shelter;
use crate::array::volumes::geometry_of;
use crate::config::{
    AvoidanceEntry, AvoidanceState, BackupPlace, Configuration, GroupEntry, ShieldedVolume,
    SlotState, WorkEntry,
};
use crate::ids::{DiskNumber, Slot, VolumeNumber};
use crate::report::{
    AvoidanceReport, DiskReport, DiskState, GroupReport, Health, JobKind, JobReport, Problem,
    ProblemKind, ShieldedReport,
};
use crate::runtime::Env;
use crate::words;

impl<E: Env> Array<E> {
    pub(super) fn avoidance_report(
        &self,
        config: &Configuration,
        avoidance: &AvoidanceEntry,
    ) -> AvoidanceReport {
        let slots = config.group(avoidance.group).map(|g| g.slots.as_slice()).unwrap_or_default();
        let slot = &slots[usize::from(avoidance.slot.0)];
        let copying = slot.copied_to().is_some();
        let sheltered = avoidance.state == AvoidanceState::Sheltered;
        let waits = sheltered
            && config.group(avoidance.group).is_some_and(|g| shelter::waits(g, avoidance));
        let disk = (copying || waits).then_some(slot.disk);
        let is_filled = |s: &&crate::config::SlotEntry| s.filled().is_some();
        let filled = Some(slot).filter(is_filled).or_else(|| slots.iter().find(is_filled));
        let logs = self.logs.borrow();
        let name_of = |number| config.volumes.iter().find(|v| v.number == number);
        let shield_of = |number| self.volumes.borrow().get(&number).and_then(|v| v.shield());
        let away = |volume, place: &BackupPlace| match place {
            BackupPlace::Pair(_) => self.away_in_pair(config, volume),
            _ => logs.get(place).map_or(0, |log| log.marks_of(volume)),
        };
        let volumes: Vec<ShieldedReport> = avoidance
            .volumes
            .iter()
            .map(|v| ShieldedReport {
                volume: v.volume,
                name: name_of(v.volume).map(|v| v.name.clone()).unwrap_or_default(),
                backups: v.chain.clone(),
                away_blocks: v.chain.iter().map(|place| away(v.volume, place)).sum(),
                resting: self.resting(config, v),
                full: shield_of(v.volume).is_some_and(|s| s.is_full()),
                overflowed_blocks: shield_of(v.volume).map_or(0, |s| s.overflowed()),
            })
            .collect();
        // A place that takes nothing and has nothing says nothing of how safe redirected writes are.
        let places = avoidance.volumes.iter().zip(&volumes).flat_map(|(v, told)| {
            let counts = |at: &&BackupPlace| !told.resting.contains(at) || away(v.volume, at) > 0;
            v.chain.iter().filter(counts)
        });
        let pairs = self.pairs.borrow();
        let copies = places.filter_map(|place| match place {
            BackupPlace::Pair(primary) => pairs.get(primary).map(|p| p.group().failures_left()),
            _ => logs.get(place).map(|log| log.space().spare_copies()),
        });
        AvoidanceReport {
            state: avoidance.state,
            paused: avoidance.paused,
            slot: avoidance.slot.0,
            disk,
            filling: filled.map(|s| s.replacement.unwrap_or(s.disk)),
            retiring: avoidance.retiring.map(|old| old.disk),
            why: self.why_avoided(avoidance, disk),
            asked: avoidance.asked,
            away_blocks: volumes.iter().map(|v| v.away_blocks).sum(),
            spare_copies: copies.min(),
            volumes,
        }
    }

    /// The places in the chain of a volume that its writes go past for the time being.
    pub(in crate::array) fn resting(
        &self,
        config: &Configuration,
        volume: &ShieldedVolume,
    ) -> Vec<BackupPlace> {
        let rests = |place: &&BackupPlace| !self.takes_writes(config, volume.volume, **place);
        volume.chain.iter().filter(rests).copied().collect()
    }

    /// Blocks of which the secondary of a volume has a newer version than home.
    fn away_in_pair(&self, config: &Configuration, primary: VolumeNumber) -> u64 {
        let pair = config.backups.pair_of(primary).filter(|pair| pair.temporary || pair.reversed);
        let pairs = self.pairs.borrow();
        pair.and_then(|_| pairs.get(&primary)).map_or(0, |pair| pair.marks())
    }

    fn why_avoided(&self, avoidance: &AvoidanceEntry, disk: Option<DiskNumber>) -> String {
        let Some(suspect) = disk.or(avoidance.retiring.map(|old| old.disk)) else {
            return "a member failed".into();
        };
        match self.why_ailing(suspect) {
            Some(reason) if reason.is_empty() => "it is ailing".into(),
            Some(reason) => format!("it is ailing: {reason}"),
            None => "by command".into(),
        }
    }

    /// Members that are copied while the writes of their group go home.
    pub(super) fn direct_copies(
        &self,
        config: &Configuration,
        group: &GroupReport,
        disks: &[DiskReport],
        jobs: &[JobReport],
    ) -> Vec<Problem> {
        let slots = config.group(group.number).map_or(&[][..], |entry| &entry.slots);
        let copied = slots.iter().enumerate().filter_map(|(at, slot)| {
            let spare = slot.replacement.filter(|_| slot.state == SlotState::InSync)?;
            Some((Slot(at as u8), slot.disk, spare))
        });
        let direct = copied.filter(|_| group.avoidance.is_none());
        let problem = |(slot, disk, spare): (Slot, DiskNumber, DiskNumber)| {
            let title = disks.iter().find(|d| d.number == disk).map(name).unwrap_or_default();
            let why = self.why_direct((group.number, slot), spare);
            let why = why.map_or_else(String::new, |why| format!(" ({why})"));
            let job = jobs.iter().find(|j| j.group == group.number && j.disk == Some(spare));
            let how_far = match job {
                _ if self.paused.borrow().contains(&spare) => {
                    format!("the copy stands still; go on with `forestall replace resume {disk}`")
                }
                Some(job) => job_words(job),
                None => "the copy is about to go on".into(),
            };
            Problem {
                kind: ProblemKind::CopiedDirectly,
                health: Health::Healthy,
                what: format!(
                    "group {} ({}): {title} is copied to disk {spare}, direct{why}",
                    group.number, group.level
                ),
                action: format!("{how_far}; writes go home, and to the copy as far as it is"),
                risk: String::new(),
            }
        };
        direct.map(problem).collect()
    }

    /// Work disks that lack a leg.
    pub(super) fn work_disk_problems(
        &self,
        config: &Configuration,
        disks: &[DiskReport],
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        for work in &config.backups.work {
            let BackupPlace::WorkDisk(set) = work.place else { continue };
            let lost: Vec<&DiskReport> = disks
                .iter()
                .filter(|d| work.legs.contains(&d.number) && d.state != DiskState::Work)
                .collect();
            if !lost.is_empty() {
                let log = self.logs.borrow().get(&work.place).cloned();
                let away = log.filter(|log| log.space().is_silent());
                let away = away.map_or(0, |log| log.marked_slots().len() as u64);
                problems.push(lost_leg_words(config, work, set, &lost, away));
            }
        }
        problems
    }
}

/// What is to be said of a shielded group.
pub(super) fn avoidance_problem(
    group: &GroupReport,
    disks: &[DiskReport],
    jobs: &[JobReport],
    risk: &str,
) -> Option<Problem> {
    let avoidance = group.avoidance.as_ref()?;
    let what = which_disk(avoidance, disks);
    let away = match avoidance.away_blocks {
        0 => "everything is home".into(),
        n => format!("{} of 4 KiB not home yet", words::counted(n, "block")),
    };
    let how_far = how_far(avoidance, group, jobs);
    let going_home = avoidance.state == AvoidanceState::WritingBack;
    let redirected = match avoidance.spare_copies {
        _ if going_home && avoidance.away_blocks == 0 => String::new(),
        None => String::new(),
        Some(0) => "; redirected writes are lost with the disk that holds them".into(),
        Some(n) => format!("; redirected writes survive {}", words::counted(n.into(), "failure")),
    };
    Some(Problem {
        kind: ProblemKind::GroupShielded,
        health: group.health.max(Health::Degraded),
        what: format!("group {} ({}) is shielded: {what}", group.number, group.level),
        action: format!("{how_far}; {}; {away}", where_writes_go(avoidance)),
        risk: format!("{risk}{redirected}"),
    })
}

/// Which disk it is about, and why.
fn which_disk(avoidance: &AvoidanceReport, disks: &[DiskReport]) -> String {
    let title = |number: DiskNumber| {
        let found = disks.iter().find(|d| d.number == number);
        found.map_or_else(|| format!("disk {number}"), name)
    };
    let is_out = |number: DiskNumber| {
        let out = [DiskState::Failed, DiskState::Missing];
        disks.iter().any(|d| d.number == number && out.contains(&d.state))
    };
    let why = &avoidance.why;
    match (avoidance.disk, avoidance.retiring, avoidance.filling) {
        (Some(disk), _, Some(spare)) => {
            format!("{} is copied away to disk {spare} ({why})", title(disk))
        }
        (Some(disk), _, None) => format!("{} is to be copied away ({why})", title(disk)),
        (None, Some(old), _) if is_out(old) => {
            format!("{} was replaced ({why}) and does not answer any more", title(old))
        }
        (None, Some(old), _) => format!(
            "{} was replaced ({why}) and is kept as a last resort until the updates are home",
            title(old)
        ),
        (None, None, Some(spare)) => format!("a failed member is rebuilt to disk {spare}"),
        (None, None, None) if avoidance.state == AvoidanceState::Sheltered => {
            "a member is out".into()
        }
        (None, None, None) => match avoidance.state {
            AvoidanceState::WritingBack => "nothing is left to be copied".into(),
            _ => "the disk that was being filled is out".into(),
        },
    }
}

/// How far the copy or the write-back is.
fn how_far(avoidance: &AvoidanceReport, group: &GroupReport, jobs: &[JobReport]) -> String {
    let mut jobs = jobs.iter().filter(|job| job.group == group.number);
    match (avoidance.state, avoidance.paused, avoidance.disk) {
        (AvoidanceState::Sheltered, _, disk) => waits_words(disk),
        (AvoidanceState::Entering, ..) => "writes under way are brought to an end".into(),
        (_, true, Some(disk)) => {
            format!("the copy stands still; go on with `forestall replace resume {disk}`")
        }
        (_, true, None) => "the copy stands still".into(),
        (AvoidanceState::Copying, ..) => jobs
            .find(|job| job.disk.is_some() && job.disk == avoidance.filling)
            .map_or_else(|| about_to_copy(avoidance).into(), job_words),
        (AvoidanceState::WritingBack, ..) => jobs
            .find(|job| job.kind == JobKind::WriteBack)
            .map_or_else(|| "updates are about to go home".into(), job_words),
    }
}

/// What comes next where nothing is being copied for a moment.
fn about_to_copy(avoidance: &AvoidanceReport) -> &'static str {
    match avoidance.filling {
        Some(_) => "the copy is about to go on",
        None => "the next spare is about to be filled, or updates to go home if there is none",
    }
}

/// What an avoidance without a spare waits for.
fn waits_words(disk: Option<DiskNumber>) -> String {
    let home = disk.map_or_else(
        || "`forestall policy shelter off` takes the updates home without one".into(),
        |disk| format!("`forestall replace cancel {disk}` takes the updates home instead"),
    );
    format!(
        "there is no spare: add one with `forestall disk add PATH --role spare`, and it is filled by itself; {home}"
    )
}

/// Where each volume's writes go, in words.
fn where_writes_go(avoidance: &AvoidanceReport) -> String {
    if avoidance.state == AvoidanceState::WritingBack {
        return "new writes go home".into();
    }
    let places: Vec<String> = avoidance
        .volumes
        .iter()
        .map(|volume| {
            let takes = volume.backups.iter().filter(|at| !volume.resting.contains(at));
            let places: Vec<String> = takes.map(ToString::to_string).collect();
            let to = match places.is_empty() {
                true => "go home".into(),
                false => format!("to {}", places.join(", then ")),
            };
            let past = match resting_words(&volume.resting) {
                words if words.is_empty() => words,
                words => format!(" ({words})"),
            };
            let over = match overflow_words(volume.full, volume.overflowed_blocks) {
                words if words.is_empty() => words,
                words => format!(" ({words})"),
            };
            format!("volume {} ({}) {to}{past}{over}", volume.volume, volume.name)
        })
        .collect();
    format!("writes of {}", places.join(", of "))
}

/// Whether a work disk with so few legs left is too weak for a group that it could serve with those that it lost (rule B6).
fn lacks_a_leg(config: &Configuration, work: &WorkEntry, left: usize) -> bool {
    let served =
        |group: &&GroupEntry| work.serves.is_empty() || work.serves.contains(&group.number.0);
    let mut tolerances = config.groups.iter().filter(served).map(|g| geometry_of(g).tolerance());
    left == 0 || tolerances.any(|tolerance| (left..work.legs.len()).contains(&tolerance))
}

/// `away`: blocks that only the set has, if it does not answer.
fn lost_leg_words(
    config: &Configuration,
    work: &WorkEntry,
    set: DiskNumber,
    lost: &[&DiskReport],
    away: u64,
) -> Problem {
    let legs: Vec<String> = lost
        .iter()
        .map(|leg| {
            let how = if leg.state == DiskState::Missing { "is missing" } else { "has failed" };
            format!("{} {how}", name(leg))
        })
        .collect();
    let left = work.legs.len() - lost.len();
    let lacks = lacks_a_leg(config, work, left);
    let each = |verb: &str| {
        let commands = lost.iter().map(|leg| format!("`forestall disk {verb} {}`", leg.number));
        commands.collect::<Vec<_>>().join(" and ")
    };
    let (remove, readd) = (each("remove"), each("readd"));
    let when = if work.log == 0 { "" } else { ", once nothing of the set is away" };
    let (them, takes, paths) = match lost.len() {
        1 => ("it", "takes it", "a new leg with `forestall work-disk add"),
        _ => ("them", "take them", "new legs with `forestall work-disk add"),
    };
    let forget = format!("{remove} {takes} off the list{when}");
    let legs_given = vec!["PATH"; lost.len()].join(",");
    let action = match away {
        0 if lacks => format!(
            "bring {them} back with {readd}, or give the set {paths} {set} --legs {legs_given}`; after that {forget}"
        ),
        0 => format!("{forget}; or bring {them} back with {readd}"),
        away => format!(
            "{} that only it has cannot be had: bring the disk back, it is tried again every ten seconds. If it is gone for good, `forestall work-disk abandon {set}` \
             lists them lost and lets everything else go on",
            words::counted(away, "block")
        ),
    };
    let survives = |left: usize| words::counted(left as u64 - 1, "failure");
    let risk = match left {
        0 if away > 0 => "these blocks answer with an error, and so do flushes".into(),
        0 => "it takes no more writes".into(),
        n if lacks => format!(
            "what it takes survives {}: it is not used for groups that survive more",
            survives(n)
        ),
        n => format!("what it takes survives {}, as much as its groups do", survives(n)),
    };
    let how_many = match lacks {
        true => format!("has {left} of {}", words::counted(work.legs.len() as u64, "leg")),
        false => {
            format!("has {}, and what it lost is listed still", words::counted(left as u64, "leg"))
        }
    };
    Problem {
        kind: ProblemKind::LegOut,
        // With as many legs as its groups ask for nothing is less safe: there is something to tidy up.
        health: if lacks { Health::Degraded } else { Health::Healthy },
        what: format!("work disk {set} {how_many}: {}", legs.join(", ")),
        action,
        risk,
    }
}
