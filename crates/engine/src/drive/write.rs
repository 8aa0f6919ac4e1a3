//! Writes, flushes and discards of a drive.
//!
//! Owns what is known of data that is not durable yet. Invariants: whatever was not durable when a flush failed is unknown from then on,
//! whoever asked for it (rule F2); no write lands on a place where a late one still may (rule F3).

use std::rc::Rc;

use super::{Drive, Request, Timed};
use crate::buf::Buf;
use crate::disk::{Disk, DiskFault, FaultKind};
use crate::health::SizeClass;
use crate::runtime::{Env, Runtime};

impl<E: Env> Drive<E> {
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
        !self.unflushed.borrow().is_empty()
            || !self.doomed.borrow().is_empty()
            || self.checksums.is_unflushed()
    }

    /// The data written so far is the matter of the flush that begins now.
    pub(crate) fn begin_flush(&self) {
        let ranges = self.unflushed.borrow_mut().take();
        self.flushing.borrow_mut().extend(ranges);
        self.checksums.begin_flush();
    }

    /// That flush has ended.
    pub(crate) fn end_flush(&self) {
        self.flushing.take();
        self.checksums.end_flush();
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
            self.doubts.set(self.doubts.get() + 1);
            self.checksums.flush_failed();
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
                // Of a drive that was given up meanwhile nothing is waited for.
                Timed::Late(request) if self.gone.get() || give_up() => {
                    self.abandon(request, what);
                    return Err(DiskFault::new(FaultKind::TimedOut));
                }
                Timed::Late(request) => timed = self.timed_again(request).await,
            }
        }
    }
}
