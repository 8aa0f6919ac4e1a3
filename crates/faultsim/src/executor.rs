//! A seeded single-threaded executor with a virtual clock.
//!
//! Owns the tasks, the timers and the order in which things happen: each step polls one ready task, picked by the seed,
//! or, when none is ready, moves the clock to the next event and fires it. Invariants: one seed gives one order; the
//! clock never goes back; after [`Executor::crash`] nothing of the crashed run executes any more except destructors, and
//! what those spawn is dropped. Disks hook in through [`SimRuntime::at`]; what is on them is not this file's matter.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use forestall_engine::{Runtime, Task};

use crate::rng::Rng;
use crate::trace::Trace;

/// Wall clock of a simulation's start, milliseconds since 1970 (1 January 2026).
const EPOCH_MS: u64 = 1_767_225_600_000;

/// An event this near may overtake ready tasks, as if a busy processor had been slow to run them.
const OVERTAKE_NS: u64 = 2_000_000;

/// Something that happens at a set time, beside the tasks: the completion of a disk request.
pub trait Happening {
    /// Lets event `number` happen.
    fn happen(&self, number: u64);
}

enum Event {
    Wake(Waker),
    Happen(Rc<dyn Happening>, u64),
}

/// Order of events: by time, then by chance, then by number.
type EventKey = (u64, u64, u64);

struct Shared {
    now_ns: Cell<u64>,
    numbers: Cell<u64>,
    stopped: Cell<bool>,
    /// Steps until the run is cut, once somebody has asked for that.
    fuse: Cell<Option<u64>>,
    spawned: RefCell<Vec<Task>>,
    events: RefCell<BTreeMap<EventKey, Event>>,
    schedule: RefCell<Rng>,
    engine: RefCell<Rng>,
    /// Things happen in the order in which they came due, as on an idle processor.
    orderly: Cell<bool>,
    trace: Trace,
}

/// The engine's view of the executor; clones share it.
#[derive(Clone)]
pub struct SimRuntime(Rc<Shared>);

impl SimRuntime {
    /// Lets `what` happen `delay_ns` from now.
    pub fn at(&self, delay_ns: u64, what: Rc<dyn Happening>, number: u64) {
        let key = self.key(delay_ns);
        self.0.events.borrow_mut().insert(key, Event::Happen(what, number));
    }

    /// The trace of this simulation.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.0.trace
    }

    /// Cuts the run after so many more steps, as if its limit had been reached.
    pub fn cut_after(&self, steps: u64) {
        self.0.fuse.set(Some(steps));
    }

    /// Whether the run has been stopped by a crash.
    #[must_use]
    pub fn stopped(&self) -> bool {
        self.0.stopped.get()
    }

    fn key(&self, delay_ns: u64) -> EventKey {
        let number = self.0.numbers.get() + 1;
        self.0.numbers.set(number);
        let at = self.0.now_ns.get().saturating_add(delay_ns);
        let chance = if self.0.orderly.get() { 0 } else { self.0.schedule.borrow_mut().word() };
        (at, chance, number)
    }
}

impl Runtime for SimRuntime {
    fn now_ns(&self) -> u64 {
        self.0.now_ns.get()
    }

    fn unix_ms(&self) -> u64 {
        EPOCH_MS + self.0.now_ns.get() / 1_000_000
    }

    fn sleep_ns(&self, ns: u64) -> impl Future<Output = ()> + 'static {
        Sleep { runtime: self.clone(), ns, key: None }
    }

    fn spawn(&self, task: Task) {
        // A destructor that spawns while its run is being dropped spawns into nothing.
        if !self.0.stopped.get() {
            self.0.spawned.borrow_mut().push(task);
        }
    }

    fn random_u64(&self) -> u64 {
        self.0.engine.borrow_mut().word()
    }
}

/// A sleep; its time starts when it is first polled.
struct Sleep {
    runtime: SimRuntime,
    ns: u64,
    key: Option<EventKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(key) = this.key.filter(|key| this.runtime.now_ns() >= key.0) {
            this.runtime.0.events.borrow_mut().remove(&key);
            return Poll::Ready(());
        }
        // Even a sleep of no time yields once.
        let key = *this.key.get_or_insert_with(|| this.runtime.key(this.ns));
        this.runtime.0.events.borrow_mut().insert(key, Event::Wake(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        // While a panic unwinds the events may be borrowed; then nobody needs them any more.
        if let (Some(key), Ok(mut events)) = (self.key, self.runtime.0.events.try_borrow_mut()) {
            events.remove(&key);
        }
    }
}

/// Tasks that were woken and not yet polled.
type ReadyList = Arc<Mutex<Vec<Arc<TaskWake>>>>;

struct TaskWake {
    slot: usize,
    queued: AtomicBool,
    done: AtomicBool,
    ready: ReadyList,
}

impl Wake for TaskWake {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            locked(&self.ready).push(Arc::clone(self));
        }
    }
}

/// The executor is single-threaded; the lock only satisfies `Wake`, so a poisoned one is as good as any.
fn locked(ready: &ReadyList) -> std::sync::MutexGuard<'_, Vec<Arc<TaskWake>>> {
    ready.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Running {
    task: Task,
    wake: Arc<TaskWake>,
}

/// How a call of [`Executor::run`] ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended<T> {
    /// The main future completed.
    Done(T),
    /// The step limit was reached first: the place for a crash.
    OutOfSteps,
    /// The time limit was reached first.
    OutOfTime,
    /// Nothing is ready and nothing will ever happen: a lost wake-up or a deadlock.
    Stuck,
}

impl<T> Ended<T> {
    /// The result of a main future that had to complete.
    ///
    /// # Panics
    /// If it did not.
    #[track_caller]
    pub fn done(self) -> T {
        match self {
            Self::Done(value) => value,
            Self::OutOfSteps => panic!("the run reached its step limit"),
            Self::OutOfTime => panic!("the run reached its limit of virtual time"),
            Self::Stuck => panic!("nothing is ready and nothing will happen: a deadlock"),
        }
    }
}

/// When [`Executor::run`] gives up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Last step to take, counted from the executor's start.
    pub last_step: u64,
    /// Last nanosecond of virtual time.
    pub last_ns: u64,
}

impl Limits {
    /// Ten million steps: a hundred times what a long run takes.
    pub const AMPLE: Self = Self { last_step: 10_000_000, last_ns: u64::MAX };
}

/// One run of the simulated machine, from its start to its stop or crash.
pub struct Executor {
    shared: Rc<Shared>,
    tasks: Vec<Option<Running>>,
    vacant: Vec<usize>,
    ready: ReadyList,
    steps: u64,
    overtake_percent: u64,
}

impl Executor {
    /// A machine that starts at `start_ns` with nothing to do.
    #[must_use]
    pub fn new(seed: u64, start_ns: u64, trace: Trace) -> Self {
        let mut schedule = Rng::new(seed, 1);
        let overtake_percent = if schedule.coin() { 0 } else { schedule.below(30) };
        let shared = Rc::new(Shared {
            now_ns: Cell::new(start_ns),
            numbers: Cell::new(0),
            stopped: Cell::new(false),
            fuse: Cell::new(None),
            spawned: RefCell::default(),
            events: RefCell::default(),
            schedule: RefCell::new(schedule),
            engine: RefCell::new(Rng::new(seed, 2)),
            orderly: Cell::new(false),
            trace,
        });
        Self {
            shared,
            tasks: Vec::new(),
            vacant: Vec::new(),
            ready: ReadyList::default(),
            steps: 0,
            overtake_percent,
        }
    }

    /// Leaves nothing to chance: tasks run in the order in which they were woken, before time goes on, and events of one moment in the order in
    /// which they were asked for. For measurements; a search for errors wants the opposite.
    #[must_use]
    pub fn orderly(mut self) -> Self {
        self.shared.orderly.set(true);
        self.overtake_percent = 0;
        self
    }

    /// The runtime to hand to the engine and to disks.
    #[must_use]
    pub fn runtime(&self) -> SimRuntime {
        SimRuntime(Rc::clone(&self.shared))
    }

    /// Steps taken so far: polls and events.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Runs until `main` completes or a limit is reached. Other tasks stay, and go on at the next call.
    pub fn run<T: 'static>(
        &mut self,
        main: impl Future<Output = T> + 'static,
        limits: Limits,
    ) -> Ended<T> {
        let result = Rc::new(Cell::new(None));
        let answer = Rc::clone(&result);
        self.runtime().spawn(Box::pin(async move { answer.set(Some(main.await)) }));
        loop {
            if let Some(value) = result.take() {
                return Ended::Done(value);
            }
            if self.steps >= limits.last_step || self.shared.fuse.get() == Some(0) {
                return Ended::OutOfSteps;
            }
            self.shared.fuse.set(self.shared.fuse.get().map(|steps| steps - 1));
            if self.shared.now_ns.get() > limits.last_ns {
                return Ended::OutOfTime;
            }
            if !self.step() {
                return Ended::Stuck;
            }
        }
    }

    /// Stops the machine between two steps: every task and future is dropped where it stands. What becomes of the disks is
    /// decided by their own `crash`.
    pub fn crash(self) {
        drop(self);
    }

    /// Takes one step; false if there is nothing to do, ever.
    fn step(&mut self) -> bool {
        self.adopt();
        let ready = locked(&self.ready).len();
        if ready == 0 || self.overtakes() {
            if !self.fire() {
                return false;
            }
        } else {
            let wake = if self.shared.orderly.get() {
                locked(&self.ready).remove(0)
            } else {
                let at =
                    if ready == 1 { 0 } else { self.shared.schedule.borrow_mut().index(ready) };
                locked(&self.ready).swap_remove(at)
            };
            self.poll(&wake);
        }
        self.steps += 1;
        true
    }

    fn overtakes(&self) -> bool {
        if self.overtake_percent == 0 {
            return false;
        }
        let next = self.shared.events.borrow().first_key_value().map(|(key, _)| key.0);
        next.is_some_and(|at| at <= self.shared.now_ns.get() + OVERTAKE_NS)
            && self.shared.schedule.borrow_mut().percent(self.overtake_percent)
    }

    fn fire(&mut self) -> bool {
        let Some((key, event)) = self.shared.events.borrow_mut().pop_first() else { return false };
        self.shared.now_ns.set(self.shared.now_ns.get().max(key.0));
        self.shared.trace.note(1, key.0, key.2);
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Happen(what, number) => what.happen(number),
        }
        true
    }

    fn poll(&mut self, wake: &Arc<TaskWake>) {
        wake.queued.store(false, Ordering::Relaxed);
        if wake.done.load(Ordering::Relaxed) {
            return;
        }
        self.shared.trace.note(2, self.steps, wake.slot as u64);
        // The task is taken out while it runs, so that its destructor may do as it likes with the executor.
        let mut running =
            self.tasks[wake.slot].take().expect("a task that is not done is in its slot");
        let waker = Waker::from(Arc::clone(wake));
        match running.task.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => self.tasks[wake.slot] = Some(running),
            Poll::Ready(()) => {
                running.wake.done.store(true, Ordering::Relaxed);
                self.vacant.push(wake.slot);
            }
        }
    }

    fn adopt(&mut self) {
        loop {
            let spawned = std::mem::take(&mut *self.shared.spawned.borrow_mut());
            if spawned.is_empty() {
                return;
            }
            for task in spawned {
                let slot = self.vacant.pop().unwrap_or_else(|| {
                    self.tasks.push(None);
                    self.tasks.len() - 1
                });
                let wake = Arc::new(TaskWake {
                    slot,
                    queued: AtomicBool::new(false),
                    done: AtomicBool::new(false),
                    ready: Arc::clone(&self.ready),
                });
                wake.wake_by_ref();
                self.tasks[slot] = Some(Running { task, wake });
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.shared.stopped.set(true);
        for running in std::mem::take(&mut self.tasks).into_iter().flatten() {
            running.wake.done.store(true, Ordering::Relaxed);
            drop(running);
        }
        let spawned = std::mem::take(&mut *self.shared.spawned.borrow_mut());
        drop(spawned);
        let events = std::mem::take(&mut *self.shared.events.borrow_mut());
        drop(events);
    }
}

#[cfg(test)]
#[path = "executor/tests.rs"]
mod tests;
