//! A disk in use: the open disk, its layout, its counters and its time limit.
//!
//! Owns every request that the engine makes of a disk after its label was read. Invariants: addresses of `read_data` and `write_data` are
//! relative to the data space; a request, once begun, runs to its end even when nobody waits for it any more, and its buffer
//! stays owned until then (rule F3); a drive that was given up (`retire`) is not asked again.
//! Reads and writes are in the modules below; what a fault means is judged by the group that saw it.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use crate::disk::{Disk, DiskFault, DiskIdentity, FaultKind};
use crate::format::layout::Layout;
use crate::health::{Latencies, SizeClass};
use crate::ids::DiskNumber;
use crate::report::{AccessCounts, ErrorCounts};
use crate::runtime::{Env, Runtime};
use crate::sync::{Counted, Event, First, race};

mod checksums;
mod read;
mod unflushed;
mod write;

use checksums::Checksums;
pub(crate) use read::Soon;
use unflushed::Unflushed;

/// Time limit of one request where nothing else was said, in nanoseconds.
pub(crate) const TIMEOUT_NS_DEFAULT: u64 = 30_000_000_000;

/// Pauses before a request that did not reach the disk is tried again.
const TRANSPORT_PAUSES_NS: [u64; 4] = [20_000_000, 80_000_000, 320_000_000, 1_280_000_000];

/// An open disk of the array.
pub(crate) struct Drive<E: Env> {
    /// Its number.
    pub(crate) number: DiskNumber,
    /// Where everything lies on it.
    pub(crate) layout: Layout,
    /// Where it is.
    pub(crate) identity: DiskIdentity,
    disk: E::Disk,
    rt: E::Runtime,
    timeout_ns: u64,
    gone: Cell<bool>,
    /// Told when it is given up: nobody waits for it any longer.
    given_up: Event,
    /// Counts what makes answers still on their way doubtful: being given up, a failed flush (rule F2).
    doubts: Cell<u64>,
    /// Requests that timed out and still run.
    late: Rc<LateCount>,
    /// Reads under way that are slow.
    slow: Cell<u32>,
    /// Requests under way, late ones too.
    under_way: Counted,
    /// Data written since the last flush began: what a failed flush leaves unknown (rule F2).
    unflushed: RefCell<Unflushed>,
    /// Counts flushes begun: a write that was under way meanwhile is not covered by them.
    flushes: Cell<u64>,
    /// Of these, what the group's flush under way is to make durable.
    flushing: RefCell<Vec<(u64, u64)>>,
    /// What a failed flush left unknown, whoever asked for it, until the group draws the consequence (rule F2).
    doomed: RefCell<Vec<(u64, u64)>>,
    checksums: Checksums,
    /// The configuration slot that is written next: the one that does not hold the newest (rule C1).
    pub(crate) config_slot: Cell<usize>,
    /// Requests so far.
    pub(crate) accesses: Cell<AccessCounts>,
    /// Errors so far.
    pub(crate) errors: Cell<ErrorCounts>,
    /// Times of the data requests that succeeded, until health takes them.
    pub(crate) latencies: RefCell<Latencies>,
    /// What people should know of it.
    pub(crate) notes: RefCell<Vec<String>>,
}

/// Requests that were given up and still run.
#[derive(Default)]
struct LateCount {
    all: Cell<u32>,
    writes: Cell<u32>,
    landed: Event,
    /// The disk says that it is gone, or has not answered in time.
    silent: Cell<bool>,
}

/// A request that outlived its time limit and still runs.
pub(crate) type Late<T> = Pin<Box<dyn Future<Output = T>>>;

/// What a request does, as far as it matters once it is late.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// May change the disk when it lands.
    Write,
    /// Changes nothing.
    Other,
}

/// Looks at a request once. Memory answers at the first look: no timer is made for it.
async fn look<T>(request: &mut Late<T>) -> Option<T> {
    match poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// How a request with a time limit ended.
pub(crate) enum Timed<T> {
    /// In time.
    Done(T),
    /// Not yet: the request itself is handed back, to be awaited further or left to end by itself.
    Late(Late<T>),
}

impl<E: Env> Drive<E> {
    pub(crate) fn new(
        rt: E::Runtime,
        number: DiskNumber,
        disk: E::Disk,
        layout: Layout,
        identity: DiskIdentity,
        timeout_ns: u64,
    ) -> Rc<Self> {
        Rc::new(Self {
            number,
            layout,
            identity,
            disk,
            rt,
            timeout_ns,
            gone: Cell::new(false),
            given_up: Event::default(),
            doubts: Cell::new(0),
            late: Rc::default(),
            slow: Cell::new(0),
            under_way: Counted::default(),
            unflushed: RefCell::default(),
            flushes: Cell::new(0),
            flushing: RefCell::default(),
            doomed: RefCell::default(),
            checksums: Checksums::default(),
            config_slot: Cell::new(0),
            accesses: Cell::default(),
            errors: Cell::default(),
            latencies: RefCell::default(),
            notes: RefCell::default(),
        })
    }

    /// Size of the whole disk in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.disk.size()
    }

    /// Whether the drive was given up; every request then answers [`FaultKind::Gone`].
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Whether the disk no longer answers at all.
    pub(crate) fn is_silent(&self) -> bool {
        self.gone.get() || self.late.silent.get()
    }

    /// Whether the disk is silent or takes its time over a read.
    pub(crate) fn owes_answer(&self) -> bool {
        self.is_silent() || self.slow.get() > 0
    }

    fn listen<T>(&self, result: Result<T, DiskFault>) -> Result<T, DiskFault> {
        self.late.silent.set(matches!(&result, Err(fault) if fault.kind == FaultKind::Gone));
        result
    }

    /// The disk itself, for what is not a member's business: labels.
    pub(crate) fn raw(&self) -> &E::Disk {
        &self.disk
    }

    /// Takes a drive that was given up back. Refused while a request of its old life may still land (rule F3).
    pub(crate) fn revive(&self) -> Result<(), String> {
        match self.late.all.get() {
            0 => {
                self.gone.set(false);
                self.late.silent.set(false);
                self.unflushed.borrow_mut().take();
                self.flushing.take();
                self.doomed.take();
                self.checksums.clear();
                Ok(())
            }
            late => Err(format!(
                "disk {} still has {late} requests under way that timed out: wait until it answers them, or restart the server",
                self.number
            )),
        }
    }

    /// Gives the drive up.
    pub(crate) fn retire(&self) {
        self.gone.set(true);
        self.doubts.set(self.doubts.get() + 1);
        self.given_up.notify();
    }

    pub(crate) fn count_access(&self, change: impl FnOnce(&mut AccessCounts)) {
        let mut counts = self.accesses.get();
        change(&mut counts);
        self.accesses.set(counts);
    }

    pub(crate) fn count_error(&self, change: impl FnOnce(&mut ErrorCounts)) {
        let mut counts = self.errors.get();
        change(&mut counts);
        self.errors.set(counts);
    }

    /// Runs a request under the time limit.
    async fn timed<T: 'static>(&self, request: impl Future<Output = T> + 'static) -> Timed<T> {
        let mut request: Late<T> = Box::pin(request);
        match look(&mut request).await {
            Some(value) => Timed::Done(value),
            None => self.timed_again(request).await,
        }
    }

    /// Waits once more for a late request, as long as the time limit again.
    pub(crate) async fn timed_again<T: 'static>(&self, request: Late<T>) -> Timed<T> {
        self.timed_for(request, self.timeout_ns).await
    }

    /// Waits for a request; when `ns` have passed, or the drive was given up meanwhile, it is late.
    async fn timed_for<T: 'static>(&self, mut request: Late<T>, ns: u64) -> Timed<T> {
        let mut given_up = Box::pin(self.given_up.wait_until(|| self.gone.get()));
        let mut in_time = Box::pin(self.within(&mut request, ns));
        let ended = race(&mut in_time, &mut given_up).await;
        drop(in_time);
        match ended {
            First::Left(Some(value)) => Timed::Done(value),
            First::Right(()) => Timed::Late(request),
            First::Left(None) => {
                self.count_error(|e| e.timeouts += 1);
                self.late.silent.set(true);
                Timed::Late(request)
            }
        }
    }

    async fn within<T>(&self, request: &mut Late<T>, ns: u64) -> Option<T> {
        let mut limit = Box::pin(self.rt.sleep_ns(ns));
        match race(request, &mut limit).await {
            First::Left(value) => Some(value),
            First::Right(()) => None,
        }
    }

    /// Lets a late request run to its end, keeping its buffer (rule F3).
    pub(crate) fn abandon<T: 'static>(&self, request: Late<T>, what: Request) {
        let late = Rc::clone(&self.late);
        let writes = u32::from(what == Request::Write);
        late.all.set(late.all.get() + 1);
        late.writes.set(late.writes.get() + writes);
        self.rt.spawn(Box::pin(async move {
            request.await;
            late.all.set(late.all.get() - 1);
            late.silent.set(false);
            late.writes.set(late.writes.get() - writes);
            late.landed.notify();
        }));
    }

    /// Requests that were given up and still run.
    pub(crate) fn late_requests(&self) -> u32 {
        self.late.all.get()
    }

    fn note_latency(&self, class: SizeClass, begun_ns: u64) {
        let ns = self.rt.now_ns().saturating_sub(begun_ns);
        self.latencies.borrow_mut().add(class, ns);
    }

    /// Whether a request is under way.
    pub(crate) fn is_busy(&self) -> bool {
        self.under_way.is_any()
    }

    /// Completes when no request is under way.
    pub(crate) async fn rests(&self) {
        self.under_way.none().await;
    }

    /// What the disk answers to a request; one that did not reach it is tried again.
    async fn reach(
        &self,
        mut request: impl AsyncFnMut() -> Result<(), DiskFault>,
    ) -> Result<(), DiskFault> {
        let _under_way = self.under_way.one();
        let mut pauses = TRANSPORT_PAUSES_NS.into_iter();
        loop {
            let result = request().await;
            if !matches!(result, Err(fault) if fault.kind == FaultKind::Transport) {
                return result;
            }
            self.count_error(|e| e.transports += 1);
            match pauses.next() {
                Some(pause_ns) if !self.gone.get() => self.rt.sleep_ns(pause_ns).await,
                _ => return result,
            }
        }
    }
}
