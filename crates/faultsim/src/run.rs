//! One simulation: a seed, a number of runs of one machine with crashes and stops between, an audit at the end.
//!
//! Owns the plan of a simulation and its outcome, [`Report`] or [`Failure`]. Invariant: a seed with the same options gives
//! the same trace, bit for bit. A broken promise, a failed assertion of the engine, a hang and an array that does not
//! come up are failures alike.

use std::cell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use forestall_engine::{
    ArrayReport, AssembleOptions, CreateGroup, CreateSpec, DiskNumber, DiskState, GroupSpec, Level,
};

use crate::catch::caught;
use crate::client::Budget;
use crate::coverage::{self, Cell, Counts};
use crate::faults::Injected;
use crate::followers::settle_pairs;
use crate::injector::injector;
use crate::machine::{Latch, Machine, Trigger};
use crate::operator::{
    connect_all, crash_is_safe, create_volume, operator, settle_doubts, volume_size,
};
use crate::rng::Rng;
use crate::shape::{Shape, has_write_hole, survives};
use crate::shelf::Shelf;
use crate::shrink::Caps;
use crate::stage::{RunEnd, Stage};
use crate::trace::{Lines, Trace};
use crate::work::{add_set, add_volume, check_released, settle_avoidances, settle_work};

/// How to simulate.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Where trace lines go.
    pub lines: Lines,
    /// Groups of this level alone.
    pub level: Option<Level>,
    /// What the simulation is cut down to.
    pub caps: Caps,
}

/// What a simulation that found nothing did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Host requests.
    pub requests: u64,
    /// Runs of the machine.
    pub epochs: u64,
    /// Steps of the executor.
    pub steps: u64,
    /// Faults by kind.
    pub injected: BTreeMap<Injected, u64>,
    /// Operator's commands done, by name.
    pub commands: BTreeMap<&'static str, u64>,
    /// Operator's commands refused, by name.
    pub refused: BTreeMap<&'static str, u64>,
    /// Scrubs that found everything equal.
    pub clean_scrubs: u64,
    /// Events of avoidances, by name.
    pub avoidances: BTreeMap<String, u64>,
    /// Cells of the table of avoidance events and paths of recovery.
    pub cells: Counts,
    /// Hash of the event trace.
    pub hash: u64,
}

impl Report {
    /// Adds another simulation's counts.
    pub fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.epochs += other.epochs;
        self.steps += other.steps;
        self.clean_scrubs += other.clean_scrubs;
        self.hash ^= other.hash;
        for (&kind, &count) in &other.injected {
            *self.injected.entry(kind).or_default() += count;
        }
        for (&name, &count) in &other.commands {
            *self.commands.entry(name).or_default() += count;
        }
        for (name, &count) in &other.avoidances {
            *self.avoidances.entry(name.clone()).or_default() += count;
        }
        self.add_cells(&other.cells);
        for (&name, &count) in &other.refused {
            *self.refused.entry(name).or_default() += count;
        }
    }

    /// Adds cells that something else reached.
    pub fn add_cells(&mut self, cells: &Counts) {
        for (&cell, &count) in cells {
            *self.cells.entry(cell).or_default() += count;
        }
    }

    /// Cells and fault kinds that were never reached, in words.
    #[must_use]
    pub fn unreached(&self) -> Vec<String> {
        let cells = Cell::ALL.into_iter().filter(|c| !self.cells.contains_key(c));
        let kinds = Injected::ALL.into_iter().filter(|k| !self.injected.contains_key(k));
        cells.map(|c| c.to_string()).chain(kinds.map(|k| format!("fault: {k}"))).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>12} host requests", self.requests)?;
        writeln!(f, "{:>12} runs of the machine", self.epochs)?;
        writeln!(f, "{:>12} steps", self.steps)?;
        writeln!(f, "{:>12} clean scrubs", self.clean_scrubs)?;
        for (kind, count) in &self.injected {
            writeln!(f, "{count:>12} {kind}")?;
        }
        for (kind, count) in &self.avoidances {
            writeln!(f, "{count:>12} {kind}")?;
        }
        for (cell, count) in &self.cells {
            writeln!(f, "{count:>12} {cell}")?;
        }
        for (name, count) in &self.commands {
            let refused = self.refused.get(name).copied().unwrap_or(0);
            writeln!(f, "{count:>12} operator: {name} ({refused} refused)")?;
        }
        Ok(())
    }
}

/// What a simulation found.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The options as arguments of the command that replays it.
    pub arguments: String,
    /// The array and the number of the run.
    pub setting: String,
    /// What was broken.
    pub what: String,
    /// The last lines of the trace.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.what.trim_end())?;
        writeln!(f, "in {}", self.setting)?;
        for line in &self.trace {
            writeln!(f, "  {line}")?;
        }
        let run = "cargo run -p forestall-faultsim -- run";
        write!(f, "replay: {run} --seed {}{} --trace", self.seed, self.arguments)
    }
}

/// Simulates one seed.
///
/// # Errors
/// What was found.
pub fn simulate(seed: u64, options: Options) -> Result<Report, Box<Failure>> {
    let trace = Trace::new(options.lines);
    let setting = Rc::new(cell::Cell::new(String::new()));
    let _ = coverage::taken();
    let result = caught(|| {
        let mut simulation = Simulation::new(seed, options, trace.clone(), Rc::clone(&setting));
        simulation.create();
        let last = simulation.rng.within(2..7);
        let last = last.min(options.caps.runs.unwrap_or(u64::MAX).max(1));
        for epoch in 1..=last {
            simulation.epoch(epoch, epoch == last);
        }
        simulation.report()
    });
    result.map_err(|what| {
        let level = options.level.map(|l| format!(" --level {}", level_number(l)));
        let arguments = level.unwrap_or_default() + &options.caps.to_string();
        Box::new(Failure { seed, arguments, setting: setting.take(), what, trace: trace.kept() })
    })
}

/// The level as the command line writes it.
#[must_use]
pub fn level_number(level: Level) -> u8 {
    match level {
        Level::Raid0 => 0,
        Level::Raid1 => 1,
        Level::Raid5 => 5,
        Level::Raid6 => 6,
        Level::Raid10 => 10,
    }
}

struct Simulation {
    shape: Shape,
    stage: Stage,
    rng: Rng,
    setting: Rc<cell::Cell<String>>,
    timeout_ms: u64,
    caps: Caps,
}

/// Steps of the executor after which a run crashes at the latest, if it is to crash.
const STEPS: u64 = 30_000;

/// What one run of the machine is to do.
#[derive(Clone, Debug)]
struct Plan {
    requests: u64,
    faults: u64,
    commands: u64,
    losses: bool,
    audit: bool,
    lose_some: bool,
    stop: bool,
    in_order: bool,
    last: bool,
}

impl Plan {
    /// The same draw, cut down: chance is drawn as ever, so that what is left happens as it did as far as it can.
    fn capped(self, caps: &Caps) -> Self {
        Self {
            requests: self.requests.min(caps.requests.unwrap_or(u64::MAX)),
            faults: self.faults.min(caps.faults.unwrap_or(u64::MAX)),
            commands: self.commands.min(caps.commands.unwrap_or(u64::MAX)),
            ..self
        }
    }
}

impl Simulation {
    fn new(seed: u64, options: Options, trace: Trace, setting: Rc<cell::Cell<String>>) -> Self {
        let mut rng = Rng::new(seed, 10);
        let mut shape = Shape::random(options.level, &mut rng);
        shape.keep_groups(options.caps.groups.unwrap_or(usize::MAX));
        let timeout_ms = rng.pick(&[0, 1000, 5000]);
        setting.set(format!("{shape:?}, creation"));
        let stage = Stage::new(seed, trace, &shape.disk_sizes);
        Self { shape, stage, rng, setting, timeout_ms, caps: options.caps }
    }

    /// Makes the array, its groups and volumes, undisturbed.
    fn create(&mut self) {
        let shape = self.shape.clone();
        let at_once = shape.groups.len() == 1 && self.rng.coin();
        let group = at_once.then(|| CreateGroup {
            level: shape.groups[0].level,
            chunk: shape.groups[0].chunk,
            journal: shape.groups[0].journal,
            checksums: shape.groups[0].checksums,
            spares: shape.spares,
            volume: Some("v1".into()),
        });
        let spec = CreateSpec { name: "sim".into(), allow_injection: false, group };
        self.stage.create(spec, move |machine| async move {
            if at_once {
                let size = volume_size(&machine, "v1");
                machine.world.oracle.borrow_mut().create_volume("v1", size);
                machine.world.next_volume();
            } else {
                make_groups(&machine, &shape).await;
            }
            if shape.legs > 0 {
                add_set(&machine, shape.legs, &mut machine.rng(5)).await;
            }
        });
    }

    /// One run of the machine, ended by a crash or in good order.
    fn epoch(&mut self, number: u64, last: bool) {
        self.ready_the_shelf(last);
        let mut crash_at = self.crash_step(last);
        let trigger = (crash_at.is_some() && self.rng.coin()).then(|| Trigger {
            skip: self.rng.log_scaled(24) - 1,
            steps: self.rng.log_scaled(400),
        });
        if trigger.is_some() {
            crash_at = Some(STEPS);
        }
        self.stage.world.trigger.set(trigger);
        let open = self.shape.groups.iter().any(|g| has_write_hole(g.level, g.journal));
        let losses = !last && (crash_at.is_none() || !open);
        let rng = &mut self.rng;
        let plan = Plan {
            requests: if last { 60 } else { rng.log_scaled(1500) },
            faults: if losses { rng.pick(&[0, 1, 3, 6]) } else { 0 },
            commands: if last { 0 } else { rng.pick(&[0, 2, 6, 12]) },
            losses,
            audit: last || rng.percent(40),
            lose_some: last && rng.coin(),
            stop: last || open || rng.coin(),
            in_order: false,
            last,
        }
        .capped(&self.caps);
        let plan = Plan { in_order: plan.stop && crash_at.is_none(), ..plan };
        self.setting.set(format!(
            "{:?}, run {number}, {plan:?}, crash at step {crash_at:?} or {trigger:?}",
            self.shape
        ));
        let stops = plan.stop;
        let chance = Rng::new(self.rng.word(), 11);
        let options = self.options();
        let ended = self.stage.run(options, crash_at, move |machine| day(machine, plan, chance));
        self.stage.end(stops && ended != RunEnd::Cut);
    }

    fn options(&self) -> AssembleOptions {
        let bays = self.stage.world.shelf.all();
        // A disk whose configuration cannot be read is as good as missing.
        let degraded = bays.iter().any(|b| !b.removed.get() && b.impaired());
        AssembleOptions { degraded, disk_timeout_ms: self.timeout_ms, ..AssembleOptions::default() }
    }

    /// Brings dead drives back or not, and leaves drives out of the next start, within what the groups survive.
    fn ready_the_shelf(&mut self, last: bool) {
        for bay in self.stage.world.shelf.all() {
            bay.withheld.set(false);
            bay.drive.faults_mut().slow_down(1);
            bay.drive.faults_mut().disarm_falsehoods();
            if bay.drive.faults().dead() && (last || self.rng.coin()) {
                bay.drive.faults_mut().repair();
            }
        }
        let report = self.stage.world.last_report.borrow().clone();
        let clean = !self.stage.world.unclean.get();
        // Together with a crash more often: that is what journals are for.
        let percent = if clean { 25 } else { 50 };
        if let (Some(report), true) = (&report, !last && self.rng.percent(percent)) {
            self.withhold(report, clean);
        }
    }

    fn withhold(&mut self, report: &ArrayReport, clean: bool) {
        for bay in self.stage.world.shelf.all() {
            let kept = self.stage.world.sets.may_lose(report, &bay);
            let allowed = kept
                && report.groups.iter().all(|group| {
                    let after = self.stage.world.shelf.impaired(report, group, Some(&bay));
                    let whole = clean && group.dirty_regions == 0
                        || !has_write_hole(group.level, group.journal);
                    !Shelf::belongs(report, group, &bay) || whole && survives(group.level, &after)
                });
            // A disk being filled may have become a member in the last moment.
            let filling = report
                .disks
                .iter()
                .any(|d| d.identity.path == bay.drive.name() && d.state == DiskState::Rebuilding);
            if allowed && !filling && !bay.impaired() && self.rng.percent(30) {
                bay.suspect.set(true);
                // Gone for good, or back at the next start, stale.
                if self.rng.percent(30) {
                    bay.drive.faults_mut().set_dead(true);
                    self.stage.world.count(Injected::Death);
                } else {
                    bay.withheld.set(true);
                    self.stage.world.count(Injected::Withheld);
                }
            }
        }
    }

    /// The step at which the next run crashes, if it may.
    fn crash_step(&mut self, last: bool) -> Option<u64> {
        let safe = self
            .stage
            .world
            .last_report
            .borrow()
            .as_ref()
            .is_none_or(|r| crash_is_safe(&self.stage.world.shelf, r));
        (!last && safe && self.rng.percent(70)).then(|| self.rng.log_scaled(STEPS))
    }

    fn report(&self) -> Report {
        let tally = self.stage.world.tally.borrow();
        let mut injected = tally.injected.clone();
        for bay in self.stage.world.shelf.all() {
            for (kind, count) in bay.drive.injected() {
                *injected.entry(kind).or_default() += count;
            }
        }
        Report {
            requests: self.stage.world.oracle.borrow().operations(),
            epochs: self.stage.runs(),
            steps: self.stage.steps(),
            injected,
            commands: tally.commands.clone(),
            refused: tally.refused.clone(),
            clean_scrubs: tally.clean_scrubs,
            avoidances: tally.avoidances.clone(),
            cells: coverage::taken(),
            hash: self.stage.trace().hash(),
        }
    }
}

async fn make_groups(machine: &Machine, shape: &Shape) {
    let mut first = 1;
    for group in &shape.groups {
        let disks = (first..first + group.members as u32).map(DiskNumber).collect();
        first += group.members as u32;
        let spec = GroupSpec {
            level: group.level,
            disks,
            chunk: group.chunk,
            journal: group.journal,
            checksums: group.checksums,
        };
        let number = match machine.array.create_group(spec).await {
            Ok((number, _)) => number,
            Err(error) => machine.complain(format!("the group was not made: {error}")),
        };
        if shape.work_volume && number.0 == 2 {
            let report = machine.array.report();
            let free = report.groups.iter().find(|g| g.number == number).map(|g| g.largest_free);
            add_volume(machine, number, free.unwrap_or(0) / 5).await;
        }
        for rest in (1..=group.volumes as u64).rev() {
            let report = machine.array.report();
            let Some(group) = report.groups.iter().find(|g| g.number == number) else { continue };
            let size = (rest > 1 || machine.world.seed.is_multiple_of(2))
                .then_some(group.largest_free / (rest + 1));
            let name = format!("v{}", machine.world.next_volume());
            if !create_volume(machine, &name, number, size).await {
                machine.complain(format!("volume {name} was not made"));
            }
        }
    }
}

/// What happens in one run of the machine; a crash drops it anywhere.
async fn day(machine: Machine, plan: Plan, mut rng: Rng) {
    settle_doubts(&machine).await;
    settle_work(&machine);
    let latch = Latch::default();
    let budget = Budget::default();
    budget.set(plan.requests);
    connect_all(&machine, &latch, &mut rng, &budget);
    let runtime = machine.runtime.clone();
    latch.spawn(&runtime, operator(machine.clone(), machine.rng(2), plan.commands, plan.losses));
    latch.spawn(&runtime, injector(machine.clone(), machine.rng(3), plan.faults, plan.in_order));
    latch.all().await;
    if plan.last {
        settle_avoidances(&machine).await;
        settle_pairs(&machine).await;
        check_released(&machine).await;
    }
    if plan.audit {
        machine.audit().await;
    }
    if plan.lose_some {
        machine.lose_some(machine.rng(4)).await;
    }
    if plan.stop {
        machine.stop().await;
    }
}
