//! A disk in use: the open disk, its layout, its counters and its time limit.
//!
//! Owns every request that the engine makes of a disk after its label was read. Invariants: addresses of `read_data` and `write_data` are
//! relative to the data space; a request, once begun, runs to its end even when nobody waits for it any more, and its buffer
//! stays owned until then (rule F3); a drive that was given up (`retire`) is not asked again.
//! What a fault means is judged by the group that saw it.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::buf::Buf;
use crate::disk::{Disk, DiskFault, DiskIdentity, FaultKind};
use crate::format::layout::Layout;
use crate::health::{Latencies, SizeClass};
use crate::ids::DiskNumber;
use crate::report::{AccessCounts, ErrorCounts};
use crate::runtime::{Env, Runtime};
use crate::sync::{Event, First, race};
use unflushed::Unflushed;

mod unflushed;

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
    /// Requests that timed out and still run.
    late: Rc<LateCount>,
    /// Data written since the last flush began: what a failed flush leaves unknown (rule F2).
    unflushed: RefCell<Unflushed>,
    /// Counts flushes begun: a write that was under way meanwhile is not covered by them.
    flushes: Cell<u64>,
    /// Of these, what the group's flush under way is to make durable.
    flushing: RefCell<Vec<(u64, u64)>>,
    /// What a failed flush left unknown, whoever asked for it, until the group draws the consequence (rule F2).
    doomed: RefCell<Vec<(u64, u64)>>,
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
            late: Rc::default(),
            unflushed: RefCell::default(),
            flushes: Cell::new(0),
            flushing: RefCell::default(),
            doomed: RefCell::default(),
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
        let mut first_look = true;
        let at_once = std::future::poll_fn(|cx| {
            // Memory answers at the first look: no timer is made for it.
            assert!(std::mem::take(&mut first_look));
            std::task::Poll::Ready(request.as_mut().poll(cx))
        })
        .await;
        if let std::task::Poll::Ready(value) = at_once {
            return Timed::Done(value);
        }
        self.timed_again(request).await
    }

    /// Waits once more for a late request, as long as the time limit again.
    pub(crate) async fn timed_again<T: 'static>(&self, mut request: Late<T>) -> Timed<T> {
        let mut limit = Box::pin(self.rt.sleep_ns(self.timeout_ns));
        match race(&mut request, &mut limit).await {
            First::Left(value) => Timed::Done(value),
            First::Right(()) => {
                self.count_error(|e| e.timeouts += 1);
                self.late.silent.set(true);
                Timed::Late(request)
            }
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

    /// Reads `buf.len()` bytes at `address` of the data space. A late read is abandoned and answered as timed out.
    pub(crate) async fn read_data(
        self: &Rc<Self>,
        address: u64,
        buf: Buf,
    ) -> Result<Buf, DiskFault> {
        assert!(address + buf.len() as u64 <= self.layout.data.len, "read outside the data space");
        let len = buf.len() as u64;
        self.count_access(|a| {
            a.reads += 1;
            a.read_bytes += len;
        });
        let begun = self.rt.now_ns();
        let result = self.read_at(self.layout.data.offset + address, buf).await;
        if result.is_ok() {
            self.note_latency(SizeClass::of(false, len), begun);
        }
        result
    }

    fn note_latency(&self, class: SizeClass, begun_ns: u64) {
        let ns = self.rt.now_ns().saturating_sub(begun_ns);
        self.latencies.borrow_mut().add(class, ns);
    }

    /// What the disk answers to a request; one that did not reach it is tried again.
    async fn reach(
        &self,
        mut request: impl AsyncFnMut() -> Result<(), DiskFault>,
    ) -> Result<(), DiskFault> {
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

    /// Reads metadata at an offset of the whole disk.
    pub(crate) async fn read_meta(
        self: &Rc<Self>,
        offset: u64,
        len: u64,
    ) -> Result<Buf, DiskFault> {
        self.count_access(|a| a.metadata += 1);
        self.read_at(offset, Buf::scratch(len as usize)).await
    }

    async fn read_at(self: &Rc<Self>, offset: u64, buf: Buf) -> Result<Buf, DiskFault> {
        if self.gone.get() {
            return Err(DiskFault::new(FaultKind::Gone));
        }
        let drive = Rc::clone(self);
        let request = async move {
            let mut buf = Some(buf);
            let read = async || {
                let (result, back) =
                    drive.disk.read(offset, buf.take().expect("handed back each time")).await;
                buf = Some(back);
                result
            };
            (drive.reach(read).await, buf.expect("handed back"))
        };
        match self.timed(request).await {
            Timed::Done((result, buf)) => self.listen(result.map(|()| buf)),
            Timed::Late(request) => {
                self.abandon(request, Request::Other);
                Err(DiskFault::new(FaultKind::TimedOut))
            }
        }
    }

    /// Writes at `address` of the data space. A late write is handed back: whether it may be given up is the group's matter.
    pub(crate) async fn write_data(
        self: &Rc<Self>,
        address: u64,
        buf: Buf,
    ) -> Timed<Result<(), DiskFault>> {
        assert!(address + buf.len() as u64 <= self.layout.data.len, "write outside the data space");
        let len = buf.len() as u64;
        self.count_access(|a| {
            a.writes += 1;
            a.written_bytes += len;
        });
        if self.gone.get() {
            return Timed::Done(Err(DiskFault::new(FaultKind::Gone)));
        }
        self.note_unflushed(address, len);
        let begun = self.flushes.get();
        let drive = Rc::clone(self);
        let offset = self.layout.data.offset + address;
        let begun_ns = self.rt.now_ns();
        let timed = self.timed(async move {
            let result = drive.write_through(offset, buf).await;
            if drive.flushes.get() != begun {
                drive.note_unflushed(address, len);
            }
            result
        });
        let timed = self.heard(timed.await);
        if matches!(timed, Timed::Done(Ok(()))) {
            self.note_latency(SizeClass::of(true, len), begun_ns);
        }
        timed
    }

    async fn write_through(&self, offset: u64, buf: Buf) -> Result<(), DiskFault> {
        let buf = buf.aligned();
        self.reach(async || self.disk.write(offset, buf.clone()).await).await
    }

    fn note_unflushed(&self, address: u64, len: u64) {
        self.unflushed.borrow_mut().add(address, len);
    }

    /// Whether data was written since the last flush began, or is unknown because one failed.
    pub(crate) fn is_unflushed(&self) -> bool {
        !self.unflushed.borrow().is_empty() || !self.doomed.borrow().is_empty()
    }

    /// The data written so far is the matter of the flush that begins now.
    pub(crate) fn begin_flush(&self) {
        let ranges = self.unflushed.borrow_mut().take();
        self.flushing.borrow_mut().extend(ranges);
    }

    /// That flush has ended.
    pub(crate) fn end_flush(&self) {
        self.flushing.take();
    }

    /// Whether a failed flush left data unknown and nobody has drawn the consequence yet.
    pub(crate) fn has_doomed(&self) -> bool {
        !self.doomed.borrow().is_empty()
    }

    /// What failed flushes left unknown: the caller draws the consequence.
    pub(crate) fn take_doomed(&self) -> Vec<(u64, u64)> {
        self.doomed.take()
    }

    /// Writes metadata at an offset of the whole disk. At the time limit `give_up` is asked: if the drive may be given
    /// up the write counts as failed and runs on by itself, else it is waited for.
    pub(crate) async fn write_meta_or(
        self: &Rc<Self>,
        offset: u64,
        buf: Buf,
        give_up: impl Fn() -> bool,
    ) -> Result<(), DiskFault> {
        if self.late.writes.get() > 0 && !self.gone.get() {
            // An earlier write of this very block may still be under way (rule F3).
            if give_up() {
                return Err(DiskFault::new(FaultKind::TimedOut));
            }
            self.late.landed.wait_until(|| self.late.writes.get() == 0).await;
        }
        self.count_access(|a| a.metadata += 1);
        let timed = self.write_at(offset, buf).await;
        self.patiently(timed, Request::Write, give_up).await
    }

    /// [`Drive::write_meta_or`] that waits no longer than the time limit.
    pub(crate) async fn write_meta(
        self: &Rc<Self>,
        offset: u64,
        buf: Buf,
    ) -> Result<(), DiskFault> {
        self.write_meta_or(offset, buf, || true).await
    }

    async fn write_at(self: &Rc<Self>, offset: u64, buf: Buf) -> Timed<Result<(), DiskFault>> {
        if self.gone.get() {
            return Timed::Done(Err(DiskFault::new(FaultKind::Gone)));
        }
        let drive = Rc::clone(self);
        let timed = self.timed(async move { drive.write_through(offset, buf).await }).await;
        self.heard(timed)
    }

    fn heard(&self, timed: Timed<Result<(), DiskFault>>) -> Timed<Result<(), DiskFault>> {
        match timed {
            Timed::Done(result) => {
                if matches!(&result, Err(fault) if fault.kind != FaultKind::Transport) {
                    self.count_error(|e| e.writes += 1);
                }
                Timed::Done(self.listen(result))
            }
            late => late,
        }
    }

    /// Makes completed writes durable. At the time limit `give_up` is asked, as for [`Drive::write_meta_or`]. Whatever was not
    /// durable yet when a flush fails is unknown from then on, whoever asked for the flush (rule F2).
    pub(crate) async fn flush_or(
        self: &Rc<Self>,
        give_up: impl Fn() -> bool,
    ) -> Result<(), DiskFault> {
        if self.gone.get() {
            return Err(DiskFault::new(FaultKind::Gone));
        }
        self.count_access(|a| a.flushes += 1);
        self.flushes.set(self.flushes.get() + 1);
        let drive = Rc::clone(self);
        let timed = self.timed(async move { drive.disk.flush().await }).await;
        let result = self.patiently(timed, Request::Other, give_up).await;
        if result.is_err() {
            self.count_error(|e| e.flushes += 1);
            let mut doomed = self.doomed.borrow_mut();
            doomed.extend(self.flushing.take());
            doomed.extend(self.unflushed.borrow_mut().take());
        }
        self.listen(result)
    }

    /// [`Drive::flush_or`] that waits no longer than the time limit.
    pub(crate) async fn flush(self: &Rc<Self>) -> Result<(), DiskFault> {
        self.flush_or(|| true).await
    }

    /// Discards a range of the data space; failures do not matter. At the time limit `give_up` is asked: a drive that stays in use is
    /// waited for, since the discard must not land after a later write (rule F3).
    pub(crate) async fn discard_data(
        self: &Rc<Self>,
        address: u64,
        len: u64,
        give_up: impl Fn() -> bool,
    ) {
        if self.gone.get() {
            return;
        }
        let offset = self.layout.data.offset + address;
        let drive = Rc::clone(self);
        let timed = self.timed(async move { drive.disk.discard(offset, len).await }).await;
        let result = self.patiently(timed, Request::Write, give_up).await;
        let _ = self.listen(result);
    }

    async fn patiently(
        &self,
        mut timed: Timed<Result<(), DiskFault>>,
        what: Request,
        give_up: impl Fn() -> bool,
    ) -> Result<(), DiskFault> {
        loop {
            match timed {
                Timed::Done(result) => return result,
                Timed::Late(request) if give_up() => {
                    self.abandon(request, what);
                    return Err(DiskFault::new(FaultKind::TimedOut));
                }
                Timed::Late(request) => timed = self.timed_again(request).await,
            }
        }
    }
}
