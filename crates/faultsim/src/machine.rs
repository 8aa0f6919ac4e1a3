//! One running array with everything that acts on it.
//!
//! Owns [`Machine`], what every task of a run shares: the array, the shelf, the oracle, the limits of what may be done.
//! Owns also the caretaker, the operator who is always there: it lets a group go on that waits for a word (rule C3).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::task::{Poll, Waker};

use forestall_engine::{
    Array, ArrayReport, CommandError, DiskReport, DiskState, Event, GroupReport, JobKind, JobState,
    JournalMode, Level, Runtime, VolumeHandle,
};

use crate::client::Host;
use crate::coverage;
use crate::executor::SimRuntime;
use crate::faults::Injected;
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::shape::{data_members, has_write_hole, survives};
use crate::shelf::{Bay, Shelf};
use crate::target::SimEnv;
use crate::work::WorkSets;

/// Virtual time that background work may take before it counts as hung.
pub(crate) const PATIENCE_NS: u64 = 1_800_000_000_000;
/// How often the caretaker looks.
const LOOK_NS: u64 = 5_000_000;

/// A change of a volume that was begun; a crash leaves open whether it happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doubt {
    /// It may be there or not.
    Creating,
    /// It may be there or not; what it holds is nobody's concern.
    Deleting,
    /// It has the old size or at least this one.
    Growing(u64),
}

/// Counts of one simulation.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Faults by kind, those that requests met not included.
    pub injected: BTreeMap<Injected, u64>,
    /// Operator's commands that were done, by name.
    pub commands: BTreeMap<&'static str, u64>,
    /// Operator's commands that were refused or failed, by name.
    pub refused: BTreeMap<&'static str, u64>,
    /// Scrubs that found everything equal.
    pub clean_scrubs: u64,
    /// Events of avoidances, by name.
    pub avoidances: BTreeMap<String, u64>,
}

/// What outlives a run of the machine.
#[derive(Clone, Default)]
pub struct World {
    /// The seed of everything.
    pub seed: u64,
    /// The drives.
    pub shelf: Shelf,
    /// Work-disk sets.
    pub sets: WorkSets,
    /// The judge.
    pub oracle: Rc<RefCell<Oracle>>,
    /// Changes of volumes under way.
    pub doubts: Rc<RefCell<BTreeMap<String, Doubt>>>,
    /// The array that runs.
    pub running: Rc<RefCell<Option<Rc<Array<SimEnv>>>>>,
    /// The array's last report before its end.
    pub last_report: Rc<RefCell<Option<ArrayReport>>>,
    /// Whether the last run ended in a crash.
    pub unclean: Rc<Cell<bool>>,
    /// The stop of this run met a pause: it is as good as a crash, and says so.
    pub stop_failed: Rc<Cell<bool>>,
    /// Volumes named so far.
    pub volumes: Rc<Cell<u64>>,
    /// Whether a disk has ever been full: hosts may be told so.
    pub full: Rc<Cell<bool>>,
    /// Counts.
    pub tally: Rc<RefCell<Tally>>,
    /// When the running machine crashes, if something that happens is to bring it about.
    pub trigger: Rc<Cell<Option<Trigger>>>,
}

/// A crash soon after something happened: what is half done then, no crash at a random step is likely to meet.
#[derive(Clone, Copy, Debug)]
pub struct Trigger {
    /// How many faults and events come before the one that counts.
    pub skip: u64,
    /// Steps from it to the crash.
    pub steps: u64,
}

impl World {
    /// Counts one fault of `kind`.
    pub fn count(&self, kind: Injected) {
        *self.tally.borrow_mut().injected.entry(kind).or_default() += 1;
    }

    /// Keeps the array's report for what is decided between runs, and lets go of the array.
    pub fn remember(&self) {
        if let Some(array) = self.running.take() {
            *self.last_report.borrow_mut() = Some(array.report());
        }
    }

    /// A number for a new volume's name.
    pub fn next_volume(&self) -> u64 {
        self.volumes.set(self.volumes.get() + 1);
        self.volumes.get()
    }
}

/// A running array and what acts on it; clones share it.
#[derive(Clone)]
pub struct Machine {
    /// What outlives it.
    pub world: World,
    /// The array.
    pub array: Rc<Array<SimEnv>>,
    /// Time.
    pub runtime: SimRuntime,
    /// Set when the run is about to end: nothing new is begun.
    pub closing: Rc<Cell<bool>>,
    /// Set when the array has stopped.
    pub stopped: Rc<Cell<bool>>,
    /// Connections made so far.
    pub connections: Rc<Cell<u32>>,
}

impl Machine {
    /// A machine that runs `array`.
    #[must_use]
    pub fn new(world: World, array: Rc<Array<SimEnv>>, runtime: SimRuntime) -> Self {
        Self {
            world,
            array,
            runtime,
            closing: Rc::default(),
            stopped: Rc::default(),
            connections: Rc::default(),
        }
    }

    /// Stops the array in good order.
    ///
    /// # Panics
    /// With a violation if it cannot.
    pub async fn stop(&self) {
        while self.array.report().groups.iter().any(|g| g.paused) {
            self.pause(LOOK_NS).await;
        }
        self.closing.set(true);
        let before = self.array.events_after(0).last().map_or(0, |event| event.sequence);
        if let Err(error) = self.array.stop().await {
            let since = self.array.events_after(before);
            if since.iter().any(|event| event.kind == "array-paused") {
                // Drives that died unheard were found out by the stop itself: nothing is flushed before an operator decides (rule C3), be it a moment later.
                self.say(format_args!("the stop met a pause: {error}"));
                self.world.stop_failed.set(true);
                self.stopped.set(true);
                return;
            }
            self.complain(format!("the array does not stop in good order: {error}"));
        }
        self.stopped.set(true);
        self.what_is_done_is_whole();
        // A request to a disk that was dropped is tried again, whatever became of the disk.
        let report = self.array.report();
        let in_service = |bay: &&Rc<Bay>| {
            let is = |disk: &DiskReport| disk.identity.path == bay.drive.name();
            report.disks.iter().any(|disk| is(disk) && disk.state != DiskState::Failed)
        };
        let writes = || -> Vec<u64> {
            let of = |bay: &Rc<Bay>| {
                let accesses = bay.drive.accesses();
                accesses.data_writes + accesses.other_writes
            };
            self.world.shelf.all().iter().filter(in_service).map(of).collect()
        };
        let written = writes();
        self.pause(LOOK_NS).await;
        if writes() != written {
            self.complain("a disk was written after the orderly stop".into());
        }
    }

    /// A job that moves marked blocks and has ended well did all that there was to do.
    fn what_is_done_is_whole(&self) {
        let moves = |kind| matches!(kind, JobKind::WriteBack | JobKind::Mirror);
        let jobs = self.array.jobs().into_iter();
        for job in jobs.filter(|job| job.state == JobState::Done && moves(job.kind)) {
            if job.done_bytes != job.total_bytes {
                self.complain(format!("done, and not to its end: {job:?}"));
            }
        }
    }

    /// Waits `ns`, which may be chosen at random by the caller.
    pub async fn pause(&self, ns: u64) {
        self.runtime.sleep_ns(ns).await;
    }

    /// A new connection to the volume.
    ///
    /// # Panics
    /// With a violation if the array does not have it.
    #[must_use]
    pub fn connect(&self, volume: &str) -> Host<VolumeHandle<SimEnv>> {
        let Some(target) = self.array.open_volume(volume) else {
            self.complain(format!("volume {volume} is gone"));
        };
        self.connections.set(self.connections.get() + 1);
        let report = self.array.report();
        let of = report.volumes.iter().find(|v| v.name == volume).map(|v| v.group);
        let group = report.groups.iter().find(|g| Some(g.number) == of);
        let may_lose = group
            .filter(|g| g.journal == JournalMode::Partial)
            .map(|g| u64::from(g.chunk) * data_members(g.level, g.members.len()));
        Host {
            may_lose,
            target: Rc::new(target),
            volume: volume.to_owned(),
            connection: self.connections.get(),
            oracle: Rc::clone(&self.world.oracle),
            full: Rc::clone(&self.world.full),
            runtime: self.runtime.clone(),
        }
    }

    /// Ends the simulation: a promise that no single sector shows was broken.
    pub fn complain(&self, what: String) -> ! {
        self.world.complain(what)
    }

    /// Writes a line into the trace.
    pub fn say(&self, text: std::fmt::Arguments<'_>) {
        self.runtime.trace().line(self.runtime.now_ns(), text);
    }

    /// Counts an operator's command by its outcome.
    pub fn did<T>(&self, name: &'static str, result: &Result<T, CommandError>) {
        let mut tally = self.world.tally.borrow_mut();
        match result {
            Ok(_) => {
                *tally.commands.entry(name).or_default() += 1;
                self.say(format_args!("operator: {name} done"));
            }
            Err(error) => {
                *tally.refused.entry(name).or_default() += 1;
                self.say(format_args!("operator: {name}: {error}"));
            }
        }
    }

    /// Whether `bay` may be impaired without going beyond what its group survives. Groups with a write hole must also be
    /// resynced.
    #[must_use]
    pub fn may_lose(&self, report: &ArrayReport, bay: &Bay) -> bool {
        report.groups.iter().all(|group| {
            let after = self.world.shelf.impaired(report, group, Some(bay));
            !Shelf::belongs(report, group, bay)
                || survives(group.level, &after)
                    && !(has_write_hole(group.level, group.journal) && group.dirty_regions > 0)
        }) && !report.groups.iter().any(|g| g.level == Level::Raid0 && self.holds(report, g, bay))
            && self.world.sets.may_lose(report, bay)
    }

    fn holds(&self, report: &ArrayReport, group: &GroupReport, bay: &Bay) -> bool {
        let number = Shelf::number_of(report, bay);
        group.members.iter().any(|&m| Some(m) == number)
    }

    /// Looks after the array until it has stopped.
    pub async fn caretaker(self) {
        while !self.stopped.get() {
            let seen = self.array.events_after(0).last().map_or(0, |e| e.sequence);
            let report = self.array.report();
            if !report.groups.iter().any(|g| g.paused) {
                // A pause is told as an event.
                self.array.wait_event(seen).await;
                continue;
            }
            self.pause(LOOK_NS).await;
            let report = self.array.report();
            for group in report.groups.iter().filter(|g| g.paused) {
                let result = self.array.continue_group(group.number).await;
                self.did("continue", &result);
            }
        }
    }

    /// Writes the array's events from now on into the trace as they come.
    pub fn reporter(self) -> impl Future<Output = ()> {
        let before = self.array.events_after(0);
        let mut last = before.last().map_or(0, |e| e.sequence);
        for event in &before {
            self.say(format_args!("event of before: {}: {}", event.kind, event.message));
        }
        async move {
            while !self.stopped.get() {
                for event in self.array.events_after(last) {
                    last = event.sequence;
                    self.note_event(&event);
                }
                self.array.wait_event(last).await;
            }
        }
    }

    /// Something has happened: perhaps what a crash waits for.
    pub fn moment(&self) {
        let Some(Trigger { skip, steps }) = self.world.trigger.get() else { return };
        if skip > 0 {
            self.world.trigger.set(Some(Trigger { skip: skip - 1, steps }));
            return;
        }
        self.world.trigger.set(None);
        self.runtime.cut_after(steps);
    }

    fn note_event(&self, event: &Event) {
        self.moment();
        self.say(format_args!("event: {}: {}", event.kind, event.message));
        coverage::told(event, &self.array.report());
        let mut tally = self.world.tally.borrow_mut();
        if event.kind == "shield-raised" && event.message.contains("the secondary of") {
            *tally.avoidances.entry("shield-raised by pairs".into()).or_default() += 1;
        }
        if matches!(event.kind.as_str(), "shield-raised" | "write-back-ended") {
            *tally.avoidances.entry(event.kind.clone()).or_default() += 1;
        }
    }

    /// Waits until nothing is being resynced, rebuilt or copied; answers the report of that moment.
    ///
    /// # Panics
    /// With a violation if that never comes.
    pub async fn quiet(&self) -> ArrayReport {
        let deadline = self.runtime.now_ns() + PATIENCE_NS;
        loop {
            self.pause(20_000_000).await;
            let report = self.array.report();
            let working = report.jobs.iter().any(|j| j.state == JobState::Running);
            let busy = report.groups.iter().any(|g| g.paused || g.dirty_regions > 0);
            if !working && !busy {
                return report;
            }
            if self.runtime.now_ns() > deadline {
                self.complain(format!(
                    "background work never ends: {:?} {:?}",
                    report.jobs, report.groups
                ));
            }
        }
    }

    /// Scrubs every whole group, which must find nothing, and reads every volume from end to end.
    ///
    /// # Panics
    /// With a violation.
    pub async fn audit(&self) {
        let report = self.quiet().await;
        for group in &report.groups {
            // A full stripe in flight at a crash may leave blocks that nothing proves: which, the reads below show.
            let may_list = group.journal == JournalMode::Partial;
            if group.lost_blocks > 0 && !may_list {
                self.complain(format!(
                    "group {} lists {} lost blocks within what it survives",
                    group.number, group.lost_blocks
                ));
            }
            if group.absent.is_empty() && group.level != Level::Raid0 {
                self.scrub_clean(group).await;
            }
        }
        self.read_all().await;
        let report = self.quiet().await;
        for damage in self.array.damage_of_legs(true).await {
            let path =
                report.disks.iter().find(|d| d.number == damage.disk).map(|d| &d.identity.path);
            let all = self.world.shelf.all();
            let bay = path.and_then(|path| all.iter().find(|bay| bay.drive.name() == path));
            let blameless =
                |bay: &Rc<Bay>| bay.drive.injected().is_empty() && !bay.drive.was_tampered_with();
            if bay.is_some_and(blameless) {
                self.complain(format!("a leg lacks what was written to it: {damage:?}"));
            }
        }
        let misfits: Vec<String> = report
            .disks
            .iter()
            .filter(|disk| disk.errors.checksums > 0)
            .map(|disk| format!("{} of {}", disk.errors.checksums, disk.identity.path))
            .collect();
        let liars = |bay: &Rc<Bay>| bay.drive.was_tampered_with();
        if !misfits.is_empty() && !self.world.shelf.all().iter().any(liars) {
            let which = misfits.join(", ");
            self.complain(format!("blocks do not fit their checksum ({which}), and no disk lied"));
        }
        self.absolve(&report);
    }

    /// Kills as many members as the groups survive, at random, and reads everything again: what a scrub believes to agree must
    /// also be had from any rest of the members.
    ///
    /// # Panics
    /// With a violation.
    pub async fn lose_some(&self, mut rng: Rng) {
        let mut bays = self.world.shelf.all();
        while !bays.is_empty() {
            let bay = bays.swap_remove(rng.index(bays.len()));
            let report = self.array.report();
            if bay.removed.get() || bay.impaired() || !self.may_lose(&report, &bay) {
                continue;
            }
            bay.die();
            self.world.count(Injected::Death);
            self.say(format_args!("fault: {} dies", bay.drive.name()));
        }
        self.read_all().await;
    }

    async fn read_all(&self) {
        let volumes = self.world.oracle.borrow().volumes();
        for (name, size) in volumes {
            if self.world.doubts.borrow().contains_key(&name) {
                continue;
            }
            let host = self.connect(&name);
            host.verify_strictly(size).await;
        }
    }

    async fn scrub_clean(&self, group: &GroupReport) {
        let started = self.array.scrub(group.number, false, 0).await;
        self.did("check", &started);
        let Ok(id) = started else { return };
        self.quiet().await;
        let Some(job) = self.array.jobs().into_iter().find(|j| j.id == id) else {
            self.complain(format!("scrub {id} left no record"));
        };
        if job.mismatches > 0 {
            self.complain(format!(
                "group {}: {} differences between members that are in sync: {}",
                group.number, job.mismatches, job.message
            ));
        }
        if job.state == JobState::Done {
            self.world.tally.borrow_mut().clean_scrubs += 1;
        }
    }

    /// Drives that went through a whole audit in their place, with no fault left, are trusted again.
    fn absolve(&self, report: &ArrayReport) {
        for group in report.groups.iter().filter(|g| g.absent.is_empty()) {
            for &disk in &group.members {
                if let Some(bay) = self
                    .world
                    .shelf
                    .of(report, disk)
                    .filter(|b| !b.drive.faults().any() && !b.drive.is_wrong())
                {
                    bay.suspect.set(false);
                }
            }
        }
    }

    /// A stream of chance of this run's own.
    #[must_use]
    pub fn rng(&self, stream: u64) -> Rng {
        Rng::new(self.world.seed ^ self.runtime.now_ns().rotate_left(32), stream)
    }
}

/// Counts arrivals that somebody waits for.
#[derive(Clone, Default)]
pub struct Latch(Rc<LatchState>);

#[derive(Default)]
struct LatchState {
    expected: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl Latch {
    /// Spawns `task`, for whose end [`Latch::all`] waits.
    pub fn spawn(&self, runtime: &SimRuntime, task: impl Future<Output = ()> + 'static) {
        self.0.expected.set(self.0.expected.get() + 1);
        let state = Rc::clone(&self.0);
        runtime.spawn(Box::pin(async move {
            task.await;
            state.expected.set(state.expected.get() - 1);
            if let Some(waker) = state.waker.take() {
                waker.wake();
            }
        }));
    }

    /// Completes when every spawned task has ended.
    pub async fn all(&self) {
        std::future::poll_fn(|cx| {
            if self.0.expected.get() == 0 {
                return Poll::Ready(());
            }
            *self.0.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
