//! Reads of a drive.
//!
//! Owns the requests that change nothing on the disk, and telling a slow read from a late one. Invariant: the rest of a slow read ends at the
//! time limit at the latest; whether anybody waits for it is the group's matter.

use std::rc::Rc;

use super::{Drive, Late, Request, Timed, look};
use crate::buf::Buf;
use crate::disk::{Disk, DiskFault, FaultKind};
use crate::health::SizeClass;
use crate::runtime::{Env, Runtime};

/// A read that takes longer than this part of the time limit is slow: its reader may ask the peers.
const SLOW_PART: u64 = 16;

/// What a disk answers to a read.
type ReadAnswer = (Result<(), DiskFault>, Buf);

/// When a read began, and what had made answers doubtful by then.
#[derive(Clone, Copy)]
struct Begun {
    at_ns: u64,
    doubts: u64,
}

/// How a read went that its reader may leave.
pub(crate) enum Soon {
    /// It ended.
    Done(Result<Buf, DiskFault>),
    /// Not yet; the rest of it ends at the time limit at the latest.
    Slow(Late<Result<Buf, DiskFault>>),
}

/// Counts a slow read until dropped.
struct SlowRead<E: Env>(Rc<Drive<E>>);

impl<E: Env> SlowRead<E> {
    fn new(drive: &Rc<Drive<E>>) -> Self {
        drive.slow.set(drive.slow.get() + 1);
        Self(Rc::clone(drive))
    }
}

impl<E: Env> Drop for SlowRead<E> {
    fn drop(&mut self) {
        self.0.slow.set(self.0.slow.get() - 1);
    }
}

impl<E: Env> Drive<E> {
    /// Reads `buf.len()` bytes at `address` of the data space. A late read is abandoned and answered as timed out.
    pub(crate) async fn read_data(
        self: &Rc<Self>,
        address: u64,
        buf: Buf,
    ) -> Result<Buf, DiskFault> {
        match self.read_data_soon(address, buf).await {
            Soon::Done(result) => result,
            Soon::Slow(rest) => rest.await,
        }
    }

    /// [`Drive::read_data`] that hands the rest of a slow read back.
    pub(crate) async fn read_data_soon(self: &Rc<Self>, address: u64, buf: Buf) -> Soon {
        assert!(address + buf.len() as u64 <= self.layout.data.len, "read outside the data space");
        let len = buf.len() as u64;
        self.count_access(|a| {
            a.reads += 1;
            a.read_bytes += len;
        });
        if self.gone.get() {
            return Soon::Done(Err(DiskFault::new(FaultKind::Gone)));
        }
        let begun = Begun { at_ns: self.rt.now_ns(), doubts: self.doubts.get() };
        let mut request = self.request_read(self.layout.data.offset + address, buf);
        let slow_ns = self.timeout_ns / SLOW_PART;
        let mut answer = look(&mut request).await;
        if answer.is_none() {
            answer = self.within(&mut request, slow_ns).await;
        }
        let class = SizeClass::of(false, len);
        if let Some(answer) = answer {
            return Soon::Done(self.read_ended(answer, class, begun));
        }
        let slow = SlowRead::new(self);
        Soon::Slow(Box::pin(async move {
            let drive = &slow.0;
            match drive.timed_for(request, drive.timeout_ns - slow_ns).await {
                Timed::Done(answer) => drive.read_ended(answer, class, begun),
                Timed::Late(request) => drive.give_up_read(request),
            }
        }))
    }

    fn read_ended(
        &self,
        (result, buf): ReadAnswer,
        class: SizeClass,
        begun: Begun,
    ) -> Result<Buf, DiskFault> {
        if self.doubts.get() != begun.doubts {
            // What the disk lost meanwhile may be what it gave: the caller looks again at what may be read (rule F2).
            let kind = if self.gone.get() { FaultKind::Gone } else { FaultKind::Medium };
            return result.and(Err(DiskFault::new(kind)));
        }
        if result.is_ok() {
            self.note_latency(class, begun.at_ns);
        }
        self.listen(result.map(|()| buf))
    }

    fn give_up_read(&self, request: Late<ReadAnswer>) -> Result<Buf, DiskFault> {
        self.abandon(request, Request::Other);
        Err(DiskFault::new(FaultKind::TimedOut))
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
        match self.timed(self.request_read(offset, buf)).await {
            Timed::Done((result, buf)) => self.listen(result.map(|()| buf)),
            Timed::Late(request) => self.give_up_read(request),
        }
    }

    fn request_read(self: &Rc<Self>, offset: u64, buf: Buf) -> Late<ReadAnswer> {
        let drive = Rc::clone(self);
        Box::pin(async move {
            let mut buf = Some(buf);
            let read = async || {
                let (result, back) =
                    drive.disk.read(offset, buf.take().expect("handed back each time")).await;
                buf = Some(back);
                result
            };
            (drive.reach(read).await, buf.expect("handed back"))
        })
    }
}
