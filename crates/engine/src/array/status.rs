//! What the array tells of itself: reports for `status`, listings, tables and the API.
//!
//! Owns the words an administrator reads at 3 am: what is wrong, which disk, what is being done about it, how long, what another failure
//! would cost. Changes nothing.

use super::advice::{diverged_words, spare_words, was_member};
use super::lost::{failed_reads_problem, lost_problem, lost_words, unreadable_problem};
use super::volumes::{free_extents, geometry_of};
use super::{Array, AtStart};
use crate::config::{
    BackupPlace, Configuration, DiskEntry, DiskRole, DropReason, GroupEntry, Service, SlotState,
};
use crate::disk::DiskIdentity;
use crate::ids::{DiskNumber, Slot, SlotSet, VolumeNumber};
use crate::report::{
    ArrayReport, DiskReport, DiskState, GroupReport, Health, JobReport, JobState, LostReport,
    Problem, ProblemKind, T1Row,
};
use crate::runtime::{Env, Runtime};
use crate::words;

mod avoidance;

impl<E: Env> Array<E> {
    /// All that `status` shows.
    #[must_use]
    pub fn report(&self) -> ArrayReport {
        let config = self.config.borrow();
        let jobs: Vec<JobReport> =
            self.jobs().into_iter().filter(|j| j.state == JobState::Running).collect();
        let disks: Vec<DiskReport> =
            config.disks.iter().map(|d| self.disk_report(&config, d)).collect();
        let groups: Vec<GroupReport> =
            config.groups.iter().map(|g| self.group_report(&config, g)).collect();
        let lost = self.lost_of(&config);
        let mut problems: Vec<Problem> = Vec::new();
        for group in &groups {
            problems.extend(self.group_problems(&config, group, &disks, &jobs, &lost));
        }
        problems.extend(self.work_disk_problems(&config, &disks));
        problems.extend(self.given_up_problems());
        problems.extend(idle_disk_problems(&config, &disks, |disk| self.found_at_start(disk)));
        // A disk that is avoided is told of with its group.
        let avoided: Vec<DiskNumber> = groups
            .iter()
            .filter_map(|group| group.avoidance.as_ref())
            .flat_map(|a| [a.disk, a.retiring])
            .flatten()
            .collect();
        let others: Vec<DiskReport> =
            disks.iter().filter(|d| !avoided.contains(&d.number)).cloned().collect();
        problems.extend(self.health_problems(&config, &others, &jobs));
        problems.extend(self.spent_disks(&config, &disks));
        problems.sort_by_key(|p| std::cmp::Reverse(p.health));
        let health = problems.iter().map(|p| p.health).max().unwrap_or(Health::Healthy);
        ArrayReport {
            name: config.name.clone(),
            uuid: config.array.to_string(),
            health,
            generation: config.generation,
            started_at_ms: self.started_at_ms,
            now_ms: self.rt.unix_ms(),
            allow_injection: config.allow_injection,
            policy: config.health.policy.clone(),
            problems,
            disks,
            groups,
            volumes: self.volumes(),
            jobs,
        }
    }

    /// Table T1 (drawings, FIG. 2A).
    #[must_use]
    pub fn table_t1(&self) -> Vec<T1Row> {
        let config = self.config.borrow();
        let volumes = |g: &GroupEntry| -> Vec<VolumeNumber> {
            config.volumes.iter().filter(|v| v.group == g.number).map(|v| v.number).collect()
        };
        config
            .groups
            .iter()
            .map(|g| T1Row {
                group: g.number,
                volumes: volumes(g),
                disks: g.slots.iter().map(|s| s.disk).collect(),
                level: g.level,
            })
            .collect()
    }

    fn disk_report(&self, config: &Configuration, disk: &DiskEntry) -> DiskReport {
        let drives = self.drives.borrow();
        let drive = drives.get(&disk.number);
        let place = config.slot_of(disk.number);
        let identity = match drive {
            Some(drive) => drive.identity.clone(),
            None => DiskIdentity {
                path: disk.path_hint.clone(),
                serial: Some(disk.serial.clone()).filter(|s| !s.is_empty()),
                model: None,
            },
        };
        let mut notes = drive.map(|d| d.notes.borrow().clone()).unwrap_or_default();
        if config.backups.suspected.contains(&disk.number) {
            notes.push("once suspected: it was copied away and passed a test since".into());
        }
        if let Some(test) = config.failed_tests.get(&disk.number) {
            notes.push(test.words());
        }
        DiskReport {
            number: disk.number,
            state: self.disk_state(config, disk),
            role: disk.role,
            identity,
            group: place.map(|p| p.0),
            slot: place.map(|p| p.1.0),
            work_disk: config.backups.set_of_leg(disk.number).and_then(|work| match work.place {
                BackupPlace::WorkDisk(set) => Some(set),
                BackupPlace::WorkVolume(_) | BackupPlace::Pair(_) => None,
            }),
            size: drive.map_or(0, |d| d.size()),
            data_len: disk.data_len,
            errors: drive.map(|d| d.errors.get()).unwrap_or_default(),
            accesses: drive.map(|d| d.accesses.get()).unwrap_or_default(),
            notes,
        }
    }

    fn disk_state(&self, config: &Configuration, disk: &DiskEntry) -> DiskState {
        if let Service::Dropped { reason, .. } = disk.service {
            return match reason {
                DropReason::Missing => DiskState::Missing,
                DropReason::Replaced | DropReason::Removed => DiskState::Replaced,
                DropReason::Failed | DropReason::Operator => DiskState::Failed,
            };
        }
        if self.failing.borrow().contains_key(&disk.number)
            || self.drives.borrow().get(&disk.number).is_some_and(|d| d.is_silent())
        {
            return DiskState::Failed;
        }
        if config.backups.retiring_in(disk.number).is_some() {
            return DiskState::Retiring;
        }
        let slot = config.groups.iter().flat_map(|g| &g.slots).find(|s| s.disk == disk.number);
        match (slot, disk.role) {
            (Some(slot), _) if slot.state == SlotState::InSync => DiskState::InSync,
            (Some(_), _) => DiskState::Rebuilding,
            (None, _) if config.slot_of(disk.number).is_some() => DiskState::Rebuilding,
            (None, DiskRole::Spare) => DiskState::Spare,
            (None, DiskRole::Work) => DiskState::Work,
            (None, DiskRole::Free | DiskRole::Member) => DiskState::Free,
        }
    }

    fn group_report(&self, config: &Configuration, entry: &GroupEntry) -> GroupReport {
        let geometry = geometry_of(entry);
        let live = self.groups.borrow().get(&entry.number).cloned();
        // A member that cannot be spared and yet does not answer is missing all the same.
        let missing: SlotSet = live.as_ref().map_or(SlotSet::EMPTY, |g| g.missing().or(g.silent()));
        let absent: Vec<DiskNumber> =
            missing.iter().map(|s| entry.slots[usize::from(s.0)].disk).collect();
        let whole = geometry.still_whole(missing);
        let lost_blocks = live.as_ref().map_or(0, |g| g.lost_blocks());
        let unreadable_blocks = live.as_ref().map_or(0, |g| g.unreadable.get());
        let failed_reads = live.as_ref().map_or(0, |g| g.failed_reads.get());
        let dirty_regions = live.as_ref().map_or(0, |g| g.dirty_regions());
        let paused = live.as_ref().is_some_and(|g| g.is_paused());
        let avoidance = config.backups.of_group(entry.number);
        let avoidance = avoidance.map(|avoidance| self.avoidance_report(config, avoidance));
        let health = if !whole || lost_blocks + unreadable_blocks > 0 || paused {
            Health::Failed
        } else if !absent.is_empty() || dirty_regions + failed_reads > 0 || avoidance.is_some() {
            Health::Degraded
        } else {
            Health::Healthy
        };
        let work_due = live.as_ref().is_some_and(|group| self.work_is_due(group))
            || self.mirroring_is_due(entry.number);
        let free = free_extents(config, entry);
        GroupReport {
            number: entry.number,
            level: entry.level,
            chunk: entry.chunk,
            journal: entry.journal,
            checksums: entry.checksums,
            health,
            members: entry.slots.iter().map(|s| s.disk).collect(),
            absent,
            capacity: geometry.capacity(),
            free: free.iter().map(|e| e.stripes).sum::<u64>() * geometry.stripe_len(),
            largest_free: free.iter().map(|e| e.stripes).max().unwrap_or(0) * geometry.stripe_len(),
            failures_left: if whole { geometry.failures_left(missing) } else { 0 },
            lost_blocks,
            unreadable_blocks,
            failed_reads,
            dirty_regions,
            paused,
            work_due,
            avoidance,
        }
    }

    fn group_problems(
        &self,
        config: &Configuration,
        group: &GroupReport,
        disks: &[DiskReport],
        jobs: &[JobReport],
        lost: &[LostReport],
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        let number = group.number;
        let level = group.level;
        let risk = risk_words(config, group, lost);
        problems.extend(avoidance::avoidance_problem(group, disks, jobs, &risk));
        problems.extend(self.direct_copies(config, group, disks, jobs));
        for disk in disks.iter().filter(|d| group.absent.contains(&d.number)) {
            let job = jobs.iter().find(|j| j.group == number && j.disk == Some(disk.number));
            let found = self.found_at_start(disk);
            let action = match job {
                Some(job) => job_words(job),
                None if found == Some(AtStart::Diverged) => diverged_words(disk),
                None if disk.state == DiskState::Rebuilding => {
                    "its rebuild is about to start".into()
                }
                None if group.health == Health::Failed => format!(
                    "bring it back: `forestall disk readd {}`; what is lost without it answers with an error",
                    disk.number
                ),
                None => {
                    let fills = |j: &&JobReport| j.group == number && j.kind.fills();
                    let before = jobs.iter().find(fills);
                    spare_words(&self.outlook(config, number), disk.number, before)
                }
            };
            problems.push(Problem {
                kind: ProblemKind::MemberOut,
                health: group.health.max(Health::Degraded),
                what: format!("group {number} ({level}): {}", absent_words(disk, found)),
                action,
                risk: risk.clone(),
            });
        }
        if group.paused {
            problems.push(Problem {
                kind: ProblemKind::GroupPaused,
                health: Health::Failed,
                what: format!("group {number} ({level}): host I/O is paused, too many disks failed at once"),
                action: format!(
                    "bring the disks back and restart, or give them up with `forestall group continue {number}`"
                ),
                risk: risk.clone(),
            });
        }
        if group.dirty_regions > 0 {
            let job = jobs.iter().find(|j| j.group == number && j.kind == crate::JobKind::Resync);
            problems.push(Problem {
                kind: ProblemKind::GroupUnclean,
                health: Health::Degraded,
                what: format!(
                    "group {number} ({level}): not stopped cleanly, {} to resync",
                    words::counted(group.dirty_regions, "region")
                ),
                action: job.map_or_else(|| "the resync is about to start".into(), job_words),
                risk: risk.clone(),
            });
        }
        problems.extend(self.scrub_problem(group));
        problems.extend(lost_problem(group, lost));
        problems.extend(unreadable_problem(group));
        problems.extend(failed_reads_problem(group));
        problems
    }
}

/// What another failure would cost now.
fn risk_words(config: &Configuration, group: &GroupReport, lost: &[LostReport]) -> String {
    // Where only single blocks are lost the others answer.
    let absent = |entry: &GroupEntry| -> SlotSet {
        let slots = entry.slots.iter().enumerate();
        let gone = slots.filter(|(_, slot)| group.absent.contains(&slot.disk));
        gone.fold(SlotSet::EMPTY, |set, (at, _)| set.with(Slot(at as u8)))
    };
    let entry = config.group(group.number);
    let whole = entry.is_none_or(|entry| geometry_of(entry).still_whole(absent(entry)));
    let answers = whole && !group.paused;
    let gone: Vec<&LostReport> =
        lost.iter().filter(|l| l.group == group.number && l.held_by.is_none()).collect();
    let volumes: Vec<String> = config
        .volumes
        .iter()
        .filter(|v| v.group == group.number)
        .map(|v| format!("{:?}", v.name))
        .collect();
    let what = if volumes.is_empty() {
        "no volume is on it".into()
    } else {
        format!("volumes {}", volumes.join(", "))
    };
    let next = match group.failures_left {
        0 => format!("another failure in this group loses data: {what}"),
        n => {
            let more = words::counted(n.into(), "more disk");
            format!("{more} of this group may fail without loss")
        }
    };
    match (answers, gone.is_empty()) {
        (false, _) => format!("some data does not answer now ({what})"),
        (true, false) => format!("lost blocks do not answer ({}); {next}", lost_words(&gone)),
        (true, true) => next,
    }
}

/// Spares and free disks that failed concern nobody's data.
fn idle_disk_problems(
    config: &Configuration,
    disks: &[DiskReport],
    found: impl Fn(&DiskReport) -> Option<AtStart>,
) -> Vec<Problem> {
    disks
        .iter()
        .filter(|d| d.group.is_none() && d.work_disk.is_none())
        .filter(|d| matches!(d.state, DiskState::Failed | DiskState::Missing))
        .filter(|d| config.disk(d.number).is_some_and(|e| !was_member(e)))
        .map(|d| Problem {
            kind: ProblemKind::SpareOut,
            health: Health::Degraded,
            what: format!(
                "{} is {}",
                name(d),
                if d.state == DiskState::Missing { "missing" } else { "failed" }
            ),
            action: match found(d) {
                Some(AtStart::Stale) => {
                    format!("it is back: use it again with `forestall disk readd {}`", d.number)
                }
                _ => {
                    format!("replace it and take it out with `forestall disk remove {}`", d.number)
                }
            },
            risk: "there is one spare less".into(),
        })
        .collect()
}

/// How a member that is absent is told of.
fn absent_words(disk: &DiskReport, found: Option<AtStart>) -> String {
    let how = match disk.state {
        DiskState::Rebuilding => "is being filled",
        DiskState::Missing => match found {
            None => "is missing since the start",
            Some(AtStart::Diverged) => {
                "was served without the others and holds writes of its own: it is not used"
            }
            Some(AtStart::Stale) => "was found at the start with an older state: it is not used",
            Some(AtStart::Blank) => {
                "was found at the start without a configuration that can be read: it is not used"
            }
            Some(AtStart::Unfit(why)) => return format!("{} cannot be used: {why}", name(disk)),
        },
        DiskState::InSync
        | DiskState::Spare
        | DiskState::Free
        | DiskState::Failed
        | DiskState::Retiring
        | DiskState::Work
        | DiskState::Replaced => "has failed",
    };
    format!("{} {how}", name(disk))
}

fn name(disk: &DiskReport) -> String {
    format!("disk {} ({})", disk.number, disk.identity.words())
}

pub(super) fn job_words(job: &JobReport) -> String {
    let percent = (job.done_bytes * 100).checked_div(job.total_bytes).unwrap_or(100);
    let kind = match job.kind {
        crate::JobKind::Rebuild => "rebuilding",
        crate::JobKind::Replace => "copying",
        crate::JobKind::Readd => "catching up",
        crate::JobKind::Resync => "resyncing",
        crate::JobKind::Check => "checking",
        crate::JobKind::Repair => "repairing",
        crate::JobKind::WriteBack => "taking updates home",
        crate::JobKind::Test => "testing",
        crate::JobKind::Mirror => "mirroring",
    };
    // Nothing has moved yet, or all of it was skipped: that is no pace.
    let pace = if job.rate == 0 { String::new() } else { format!(" at {}", words::rate(job.rate)) };
    let left = job.eta_s.map(|s| format!(", about {} left", words::duration(s)));
    format!("{kind}: {percent} %{pace}{}", left.unwrap_or_default())
}
