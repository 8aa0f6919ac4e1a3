//! Long pieces of work and what is told of them.
//!
//! Owns the list of jobs. Invariant: a job's flow updates its own progress; whoever looks takes a snapshot. What to start
//! and when is left to `tend` and `maintain`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Array;
use crate::error::CommandError;
use crate::ids::{DiskNumber, GroupNumber, VolumeNumber};
use crate::progress::Progress;
use crate::report::{JobKind, JobReport, JobState};
use crate::runtime::{Env, Runtime};
use crate::sync::Event;

/// Ended jobs kept for the listing.
const ENDED_KEPT: usize = 100;

pub(super) struct Job {
    id: u64,
    pub(super) kind: JobKind,
    pub(super) group: GroupNumber,
    pub(super) disk: Option<DiskNumber>,
    volume: Option<VolumeNumber>,
    pub(super) progress: Rc<Progress>,
    state: Cell<JobState>,
    message: RefCell<String>,
    started_at_ms: u64,
    ended_ns: Cell<Option<u64>>,
    /// It was told that its limit does not count.
    pub(super) hastened: Cell<bool>,
}

#[derive(Default)]
pub(super) struct Jobs {
    list: RefCell<Vec<Rc<Job>>>,
    /// The last id that was given.
    next: Cell<u64>,
    /// Ids of jobs that were told of before they begin, by the disk to be filled.
    promised: RefCell<BTreeMap<DiskNumber, u64>>,
    end: Event,
}

impl Jobs {
    pub(super) fn stop_all(&self) {
        self.stop_those(|_| true);
    }

    pub(super) fn stop_those(&self, which: impl Fn(&Job) -> bool) {
        self.list
            .borrow()
            .iter()
            .filter(|job| which(job))
            .for_each(|job| job.progress.stop.set(true));
    }

    /// The id that the job which fills `disk` will have, whatever begins before it.
    pub(super) fn promise(&self, disk: DiskNumber) -> u64 {
        *self.promised.borrow_mut().entry(disk).or_insert_with(|| self.take_id())
    }

    fn take_id(&self) -> u64 {
        self.next.set(self.next.get() + 1);
        self.next.get()
    }

    /// The job that fills a disk, if it was stopped and no other is promised.
    pub(super) fn stopped_fill(&self, disk: DiskNumber) -> Option<Rc<Job>> {
        let list = self.list.borrow();
        let last = list.iter().rfind(|job| job.disk == Some(disk) && job.kind.fills());
        let promised = self.promised.borrow().contains_key(&disk);
        last.filter(|job| job.state.get() == JobState::Stopped && !promised).cloned()
    }

    /// The fill of `disk` that was paused goes on in a moment, under its number.
    pub(super) fn go_on(&self, disk: DiskNumber) {
        if let Some(job) = self.stopped_fill(disk) {
            job.tell("it is about to go on");
            self.promised.borrow_mut().insert(disk, job.id);
        }
    }

    /// The fill of `disk` was given up: none is promised, and what stood still goes on no more.
    pub(super) fn give_up(&self, disk: DiskNumber) {
        self.promised.borrow_mut().remove(&disk);
        if let Some(job) = self.stopped_fill(disk) {
            job.tell("given up by an operator");
        }
    }

    /// The fill of `disk` stood still, and the disk was lost.
    pub(super) fn lost_in_pause(&self, disk: DiskNumber, message: &str) {
        self.promised.borrow_mut().remove(&disk);
        if let Some(job) = self.stopped_fill(disk) {
            job.state.set(JobState::Failed);
            job.tell(message);
        }
    }

    /// Completes when no such job runs.
    pub(super) async fn ended(&self, which: impl Fn(&Job) -> bool) {
        self.end.wait_until(|| !self.any_running(&which)).await;
    }

    /// The running job that works on the members of a group; pairs only read and write volumes.
    pub(super) fn working_on(&self, group: GroupNumber) -> Option<Rc<Job>> {
        self.running(group, |job| job.kind != JobKind::Mirror)
    }

    /// The running job that makes a secondary equal to this primary.
    pub(super) fn mirroring(&self, group: GroupNumber, primary: VolumeNumber) -> Option<Rc<Job>> {
        self.running(group, |job| job.kind == JobKind::Mirror && job.volume == Some(primary))
    }

    /// Whether such a job runs.
    pub(super) fn any_running(&self, which: impl Fn(&Job) -> bool) -> bool {
        let list = self.list.borrow();
        list.iter().any(|job| job.state.get() == JobState::Running && which(job))
    }

    /// The running job of this kind on a group.
    pub(super) fn running(
        &self,
        group: GroupNumber,
        wanted: impl Fn(&Job) -> bool,
    ) -> Option<Rc<Job>> {
        let list = self.list.borrow();
        list.iter()
            .find(|j| j.state.get() == JobState::Running && j.group == group && wanted(j))
            .cloned()
    }
}

impl Job {
    /// One that runs, for the caller to fill in.
    fn new(kind: JobKind, group: GroupNumber, progress: Rc<Progress>) -> Self {
        Self {
            id: 0,
            kind,
            group,
            disk: None,
            volume: None,
            progress,
            state: Cell::new(JobState::Running),
            message: RefCell::default(),
            started_at_ms: 0,
            ended_ns: Cell::new(None),
            hastened: Cell::new(false),
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Says something of it while it runs.
    pub(super) fn tell(&self, message: &str) {
        *self.message.borrow_mut() = message.into();
    }
}

impl<E: Env> Array<E> {
    /// Enters a job as running.
    pub(super) fn begin_job(
        &self,
        kind: JobKind,
        group: GroupNumber,
        disk: Option<DiskNumber>,
        progress: Rc<Progress>,
    ) -> Rc<Job> {
        self.enter_job(kind, group, (disk, None), progress)
    }

    /// Enters the making of two volumes equal as running; the group is the primary's.
    pub(super) fn begin_mirror_job(
        &self,
        group: GroupNumber,
        primary: VolumeNumber,
        progress: Rc<Progress>,
    ) -> Rc<Job> {
        self.enter_job(JobKind::Mirror, group, (None, Some(primary)), progress)
    }

    fn enter_job(
        &self,
        kind: JobKind,
        group: GroupNumber,
        (disk, volume): (Option<DiskNumber>, Option<VolumeNumber>),
        progress: Rc<Progress>,
    ) -> Rc<Job> {
        let promised =
            disk.filter(|_| kind.fills()).and_then(|d| self.jobs.promised.borrow_mut().remove(&d));
        let id = promised.unwrap_or_else(|| self.jobs.take_id());
        let started_at_ms = self.rt.unix_ms();
        let job = Job { id, disk, volume, started_at_ms, ..Job::new(kind, group, progress) };
        let job = Rc::new(job);
        job.progress.stop.set(job.progress.stop.get() || self.stopping.get());
        let mut list = self.jobs.list.borrow_mut();
        list.retain(|before| before.id != id); // It was paused, and goes on.
        list.push(Rc::clone(&job));
        while list.len() > ENDED_KEPT {
            let is_paused =
                |j: &Job| j.disk.is_some_and(|disk| self.paused.borrow().contains(&disk));
            let has_ended = |j: &Rc<Job>| j.state.get() != JobState::Running && !is_paused(j);
            let Some(at) = list.iter().position(has_ended) else {
                break;
            };
            list.remove(at);
        }
        job
    }

    pub(super) fn end_job(&self, job: &Job, state: JobState, message: impl Into<String>) {
        let moves_marks = matches!(job.kind, JobKind::WriteBack | JobKind::Mirror);
        if state == JobState::Done && moves_marks {
            // Hosts wrote some of it anew, and other flows took some of it: what was left is all that there was to do.
            job.progress.total.set(job.progress.done.get());
        }
        job.state.set(state);
        *job.message.borrow_mut() = message.into();
        job.ended_ns.set(Some(self.rt.now_ns()));
        self.jobs.end.notify();
    }

    /// Jobs, running and ended, oldest first.
    pub fn jobs(&self) -> Vec<JobReport> {
        let now = self.rt.now_ns();
        let told = |job: &Rc<Job>| {
            let mut report = job.report(now);
            if report.state == JobState::Running && report.kind.fills() {
                let mut words = vec![std::mem::take(&mut report.message)];
                words.push(self.backup_words(job.group));
                words.retain(|words| !words.is_empty());
                report.message = words.join("; ");
            }
            report
        };
        let mut jobs = self.jobs.list.borrow().iter().map(told).collect::<Vec<_>>();
        for (disk, id) in self.jobs.promised.borrow().iter() {
            let Some(waiting) = self.waiting_job(*id, *disk) else { continue };
            match jobs.iter_mut().find(|job| job.id == *id) {
                None => jobs.push(waiting),
                // It stood still and goes on in a moment.
                Some(job) if job.state == JobState::Stopped => *job = waiting,
                Some(_) => {}
            }
        }
        jobs.sort_by_key(|job| job.id);
        self.tell_of_paused(&mut jobs);
        jobs
    }

    /// A fill that was told of and has not begun; none if nothing is to be filled any more.
    fn waiting_job(&self, id: u64, disk: DiskNumber) -> Option<JobReport> {
        let (number, slot) = self.config.borrow().slot_of(disk)?;
        let (kind, _) = self.fill_kind(number, slot).filter(|(_, filled)| *filled == disk)?;
        let group = self.group(number).ok()?;
        let (now, rate) = (self.rt.now_ns(), self.rate_of(number, slot));
        let progress = Progress::new(group.member_len(), rate, now);
        progress.done.set(group.filled_bytes(slot));
        let message = match self.work_before(disk) {
            Some(before) => format!("begins once job {before} has ended"),
            None => "about to begin".into(),
        };
        let job = Job {
            id,
            disk: Some(disk),
            state: Cell::new(JobState::Waiting),
            message: RefCell::new(message),
            ..Job::new(kind, number, progress)
        };
        Some(job.report(now))
    }

    /// The job that the replacement of `disk` waits for, if its group is at other work just now.
    #[must_use]
    pub fn work_before(&self, disk: DiskNumber) -> Option<u64> {
        let config = self.config.borrow();
        let (group, slot) = config.slot_of(disk)?;
        let slot = &config.group(group)?.slots[usize::from(slot.0)];
        let own = [Some(slot.disk), slot.replacement];
        let takes_turns =
            |kind: JobKind| kind.fills() || matches!(kind, JobKind::Resync | JobKind::WriteBack);
        let before = |job: &Job| takes_turns(job.kind) && !own.contains(&job.disk);
        self.jobs.running(group, before).map(|job| job.id())
    }

    fn job(&self, id: u64) -> Result<Rc<Job>, CommandError> {
        let job = self.jobs.list.borrow().iter().find(|j| j.id == id).cloned();
        let Some(job) = job else {
            let waits = self.jobs().into_iter().find(|job| job.id == id);
            return Err(match waits.and_then(|job| job.disk) {
                Some(disk) => CommandError::Refused(format!(
                    "job {id} has not begun; `forestall replace cancel {disk}` gives it up"
                )),
                None => {
                    CommandError::NotFound(format!("there is no job {id}; see `forestall jobs`"))
                }
            });
        };
        if job.state.get() == JobState::Running {
            return Ok(job);
        }
        let mut reports = self.jobs().into_iter();
        let paused = reports.find(|job| job.id == id && job.state == JobState::Paused);
        Err(CommandError::Refused(match paused {
            Some(paused) => format!("job {id} is paused: {}", paused.message),
            None => format!("job {id} has ended already"),
        }))
    }

    /// Changes a running job's rate limit, in bytes a second; 0 takes it away. The limit of a fill is kept over restarts, as the one it began with.
    ///
    /// # Errors
    /// If there is no such running job, or a limit that is to be kept cannot be.
    pub async fn limit_job(self: &Rc<Self>, job: u64, rate: u64) -> Result<(), CommandError> {
        let waiting = self.jobs().into_iter().find(|j| j.id == job && j.state == JobState::Waiting);
        let disk = match waiting {
            Some(waiting) => waiting.disk,
            None => {
                let job = self.job(job)?;
                job.progress.set_limit(rate, self.rt.now_ns());
                job.disk.filter(|_| job.kind.fills())
            }
        };
        let Some(disk) = disk else { return Ok(()) };
        self.commit(|next| {
            if let Some(place) = next.slot_of(disk) {
                next.backups.keep_rate(place, rate);
            }
        })
        .await
    }

    /// Stops a running check or repair.
    ///
    /// # Errors
    /// If there is no such running job, or if it restores redundancy and so must not be stopped.
    pub fn stop_job(&self, job: u64) -> Result<(), CommandError> {
        let found = self.job(job)?;
        if found.kind == JobKind::Mirror {
            return Err(CommandError::Refused(format!(
                "job {job} makes a secondary equal to its primary and ends with `forestall pair split`; slow it down with `forestall jobs --limit \
                 {job} --rate MIB_S`"
            )));
        }
        if !matches!(found.kind, JobKind::Check | JobKind::Repair | JobKind::Test) {
            return Err(CommandError::Refused(format!(
                "job {job} restores redundancy and is not stopped; slow it down with `forestall jobs --limit {job} --rate MIB_S`"
            )));
        }
        found.progress.stop.set(true);
        Ok(())
    }
}

impl Job {
    fn report(&self, now_ns: u64) -> JobReport {
        let p = &self.progress;
        let running = self.state.get() == JobState::Running;
        let at = self.ended_ns.get().unwrap_or(now_ns);
        let has_pace = !running || p.has_pace(at);
        JobReport {
            id: self.id,
            kind: self.kind,
            state: self.state.get(),
            group: self.group,
            disk: self.disk,
            volume: self.volume,
            done_bytes: p.done.get().min(p.total.get()),
            total_bytes: p.total.get(),
            rate: if has_pace { p.rate(at) } else { 0 },
            eta_s: if running && has_pace { p.eta_s(at) } else { None },
            limit: p.limit.get(),
            mismatches: p.mismatches.get(),
            misfits: p.misfits.get(),
            lost_blocks: p.lost.get(),
            started_at_ms: self.started_at_ms,
            message: if running && p.lifted.get() && p.limit.get() > 0 {
                "a member is out: the limit does not count meanwhile".into()
            } else {
                self.message.borrow().clone()
            },
        }
    }
}
