//! The stage of a simulation: one world, run after run, with crashes and orderly ends between.
//!
//! Owns the virtual time that goes on from run to run, the limits after which a run counts as hung, and what a crash or a
//! stop means to drives and oracle. Invariant: between two runs nothing of the engine is left but what stands on the
//! drives. Random simulations (`run.rs`) and scripted ones (`scenarios.rs`) play on it alike.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use forestall_engine::{Array, AssembleOptions, CreateSpec, NewDisk, Runtime};

use crate::client::break_off;
use crate::coverage;
use crate::executor::{Ended, Executor, Limits, SimRuntime};
use crate::faults::Injected;
use crate::machine::{Machine, World};
use crate::mechanics::DiskModel;
use crate::oracle::{Oracle, Violation};
use crate::rng::Rng;
use crate::target::SimEnv;
use crate::trace::Trace;

/// Virtual time between two runs of the machine.
const GAP_NS: u64 = 1_000_000_000;
/// Virtual time that a run may take before it counts as hung.
const DAY_NS: u64 = 4 * 3_600_000_000_000;

/// How a run of the machine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunEnd {
    /// Its main future completed, at this step.
    Completed(u64),
    /// It reached the step at which it was to crash.
    Cut,
}

/// A world and its clock.
pub struct Stage {
    /// What outlives runs.
    pub world: World,
    /// Chance for what happens between runs.
    pub rng: Rng,
    trace: Trace,
    now_ns: u64,
    steps: u64,
    runs: u64,
    /// Whether tasks and events keep their order.
    orderly: bool,
}

impl Stage {
    /// A stage with blank drives of the given sizes.
    #[must_use]
    pub fn new(seed: u64, trace: Trace, disk_sizes: &[u64]) -> Self {
        Self::of(World { seed, ..World::default() }, trace, disk_sizes)
    }

    /// A stage for measurements: every drive takes the times of a model, and tasks run in order.
    #[must_use]
    pub fn modelled(seed: u64, trace: Trace, disk_sizes: &[u64], model: DiskModel) -> Self {
        let world = World { seed, ..World::default() };
        world.shelf.set_model(model);
        Self { orderly: true, ..Self::of(world, trace, disk_sizes) }
    }

    fn of(world: World, trace: Trace, disk_sizes: &[u64]) -> Self {
        let seed = world.seed;
        *world.oracle.borrow_mut() = Oracle::new();
        for &size in disk_sizes {
            world.shelf.add(size, seed);
        }
        let rng = Rng::new(seed, 0);
        Self { world, rng, trace, now_ns: 0, steps: 0, runs: 0, orderly: false }
    }

    /// Runs of the machine so far.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs
    }

    /// Steps taken by all runs.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The trace of all runs.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Makes an array of all drives, then lets `prepare` act on it once and stops it in good order.
    ///
    /// # Panics
    /// With a violation if anything of it fails.
    pub fn create<F>(&mut self, spec: CreateSpec, prepare: impl FnOnce(Machine) -> F + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let world = self.world.clone();
        self.play(None, move |runtime| async move {
            let disks = world.shelf.all().iter().map(|b| b.hand_over(&runtime)).collect();
            if let Err(error) = Array::<SimEnv>::create(runtime.clone(), spec, disks).await {
                world.complain(format!("the array was not made: {error}"));
            }
            let machine = assemble(&world, &runtime, AssembleOptions::default()).await;
            machine.array.start();
            prepare(machine.clone()).await;
            machine.stop().await;
        });
        self.end(true);
    }

    /// Starts the array on every drive that is there and lets `act` act on it; with `crash_at`, only so many steps of all that.
    /// Everything is dropped then; say with [`Stage::end`] what becomes of the drives.
    ///
    /// # Panics
    /// With a violation if one is found, if the array does not come up, or if the run hangs.
    pub fn run<F>(
        &mut self,
        options: AssembleOptions,
        crash_at: Option<u64>,
        act: impl FnOnce(Machine) -> F + 'static,
    ) -> RunEnd
    where
        F: Future<Output = ()> + 'static,
    {
        let world = self.world.clone();
        self.play(crash_at, move |runtime| async move {
            let machine = assemble(&world, &runtime, options).await;
            machine.array.start();
            runtime.spawn(Box::pin(machine.clone().caretaker()));
            runtime.spawn(Box::pin(machine.clone().reporter()));
            act(machine).await;
        })
    }

    /// Tries to start the array, which must be refused; answers why.
    ///
    /// # Panics
    /// With a violation if it comes up.
    pub fn refused(&mut self, options: AssembleOptions) -> String {
        let (world, why) = (self.world.clone(), Rc::new(RefCell::new(String::new())));
        let said = Rc::clone(&why);
        self.play(None, move |runtime| async move {
            match Array::<SimEnv>::assemble(runtime.clone(), there(&world, &runtime), options).await
            {
                Ok(_) => world.complain("the array comes up and must not".into()),
                Err((error, _)) => *said.borrow_mut() = error.to_string(),
            }
        });
        why.take()
    }

    /// Tries to start the array, which may be refused; lets it go at once, as a crash would.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn try_start(&mut self, options: AssembleOptions) -> Result<(), String> {
        let (world, refused) = (self.world.clone(), Rc::new(RefCell::new(Ok(()))));
        let said = Rc::clone(&refused);
        self.play(None, move |runtime| async move {
            let started =
                Array::<SimEnv>::assemble(runtime.clone(), there(&world, &runtime), options).await;
            *said.borrow_mut() = started.map(drop).map_err(|(error, _)| error.to_string());
        });
        self.end(false);
        refused.replace(Ok(()))
    }

    /// The power goes: in good order after a stop of the array, else it is a crash.
    pub fn end(&mut self, stopped: bool) {
        self.world.shelf.crash(&mut self.rng);
        if stopped && !self.world.stop_failed.take() {
            self.world.oracle.borrow_mut().stop();
            self.world.unclean.set(false);
            return;
        }
        self.world.count(Injected::Crash);
        self.world.oracle.borrow_mut().crash();
        self.world.unclean.set(true);
    }

    fn play<F>(&mut self, crash_at: Option<u64>, main: impl FnOnce(SimRuntime) -> F) -> RunEnd
    where
        F: Future<Output = ()> + 'static,
    {
        self.now_ns += GAP_NS;
        self.runs += 1;
        let mut executor = Executor::new(self.rng.word(), self.now_ns, self.trace.clone());
        if self.orderly {
            executor = executor.orderly();
        }
        let last_step = crash_at.unwrap_or(Limits::AMPLE.last_step);
        let limits = Limits { last_step, last_ns: self.now_ns + DAY_NS };
        let ended = executor.run(main(executor.runtime()), limits);
        self.now_ns = executor.runtime().now_ns();
        self.world.remember();
        self.steps += executor.steps();
        let steps = executor.steps();
        let hung = match ended {
            Ended::Done(()) => {
                executor.crash();
                return RunEnd::Completed(steps);
            }
            Ended::OutOfSteps if crash_at.is_some() => {
                executor.crash();
                return RunEnd::Cut;
            }
            Ended::OutOfSteps => "the run takes steps without end",
            Ended::OutOfTime => "the run takes time without end",
            Ended::Stuck => {
                "nothing is ready and nothing will ever happen: a request or command hangs"
            }
        };
        let seconds = self.now_ns as f64 / 1e9;
        self.world.complain(format!("{hung}, at {seconds:.3} s of virtual time"))
    }
}

/// Every labelled drive that is there.
fn there(world: &World, runtime: &SimRuntime) -> Vec<NewDisk<SimEnv>> {
    let there = world.shelf.all().into_iter();
    let there = there.filter(|b| {
        !b.removed.get() && !b.withheld.get() && !b.drive.faults().dead() && b.labelled()
    });
    there.map(|b| b.hand_over(runtime)).collect()
}

/// Starts the array on every labelled drive that is there.
async fn assemble(world: &World, runtime: &SimRuntime, options: AssembleOptions) -> Machine {
    let begun_ms = runtime.unix_ms();
    match Array::<SimEnv>::assemble(runtime.clone(), there(world, runtime), options).await {
        Ok(array) => {
            let report = array.report();
            coverage::started(&report, &array.pairs(), world.unclean.get());
            for event in array.events_after(0).iter().filter(|e| e.at_ms >= begun_ms) {
                coverage::told(event, &report);
            }
            *world.running.borrow_mut() = Some(Rc::clone(&array));
            Machine::new(world.clone(), array, runtime.clone())
        }
        Err((error, _)) => world.complain(format!("the array does not come up: {error}")),
    }
}

impl World {
    /// Ends the simulation: a promise that no single sector shows was broken.
    pub fn complain(&self, what: String) -> ! {
        let violation: Violation = self.oracle.borrow().complaint(what);
        break_off(violation)
    }
}
