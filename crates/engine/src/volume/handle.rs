//! What hosts ask of a volume.
//!
//! Owns the requests: their checks, their locks, and that one which was accepted runs to its end as a task of the engine, whatever becomes
//! of who asked. How they become whole blocks and units is left to the module above.

use std::rc::Rc;

use super::{VolumeRt, whole_blocks};
use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::Stripe;
use crate::report::VolumeReport;
use crate::runtime::Env;
use crate::sync::Hold;

/// Stripes that one question about allocation looks at.
const STRIPES_LOOKED_AT: u64 = 1 << 20;

/// A volume being served. Requests run to their end as tasks of the engine, whatever becomes of the returned future.
pub struct VolumeHandle<E: Env> {
    volume: Rc<VolumeRt<E>>,
}

impl<E: Env> Clone for VolumeHandle<E> {
    fn clone(&self) -> Self {
        Self { volume: Rc::clone(&self.volume) }
    }
}

/// One run of a volume with the same allocation state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AllocationRun {
    /// Length in bytes.
    pub len: u64,
    /// Not allocated: reads as zeroes (`base:allocation` HOLE and ZERO).
    pub hole: bool,
}

impl<E: Env> VolumeHandle<E> {
    pub(crate) fn new(volume: Rc<VolumeRt<E>>) -> Self {
        Self { volume }
    }

    /// Name, size and the like at this moment.
    #[must_use]
    pub fn info(&self) -> VolumeReport {
        self.volume.report()
    }

    /// Reads `len` bytes; the pieces in order make up the range. Any alignment.
    ///
    /// # Errors
    /// [`IoError::Io`] if nothing can give some of it; outside the volume; no longer served.
    pub async fn read(&self, offset: u64, len: u64) -> Result<Vec<Buf>, IoError> {
        let _in_flight = self.volume.begin(offset, len)?;
        if len == 0 {
            return Ok(Vec::new());
        }
        let range = whole_blocks(offset, len);
        let _guard = self.volume.lock(offset, len, Hold::Shared).await;
        let read = self.volume.read_blocks(range.clone()).await;
        let mut bufs = read.inspect_err(|error| self.volume.group().note_failed_read(*error))?;
        let cut = (range.end - offset - len) as usize;
        if cut > 0 {
            let last = bufs.last_mut().expect("at least one block was read");
            *last = last.slice(0..last.len() - cut);
        }
        let skip = (offset - range.start) as usize;
        if skip > 0 {
            bufs[0] = bufs[0].slice(skip..bufs[0].len());
        }
        Ok(bufs)
    }

    /// Writes `data`; with `fua` it is durable when this completes. Any alignment.
    ///
    /// # Errors
    /// Then each 512-byte sector of the range is old or new, or lost.
    pub async fn write(&self, offset: u64, data: Buf, fua: bool) -> Result<(), IoError> {
        let in_flight = self.volume.begin_write(offset, data.len() as u64)?;
        if data.is_empty() {
            return if fua { self.flush().await } else { Ok(()) };
        }
        let volume = Rc::clone(&self.volume);
        let work = async move {
            let _in_flight = in_flight;
            let guard = volume.lock(offset, data.len() as u64, Hold::Exclusive).await;
            volume.note_change(offset..offset + data.len() as u64).await?;
            volume.write_bytes(offset, data).await?;
            drop(guard);
            if fua { volume.flush_all().await } else { Ok(()) }
        };
        self.volume.detached(work).await
    }

    /// Makes every write answered before this call durable (rule F1).
    ///
    /// # Errors
    /// [`IoError::Io`] if some of it may be lost.
    pub async fn flush(&self) -> Result<(), IoError> {
        let in_flight = self.volume.begin(0, 0)?;
        let volume = Rc::clone(&self.volume);
        self.volume
            .detached(async move {
                let _in_flight = in_flight;
                volume.flush_all().await
            })
            .await
    }

    /// Forgets the range: it reads as zeroes afterwards, and whole units of stripes become holes.
    ///
    /// # Errors
    /// As for [`VolumeHandle::write`].
    pub async fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), IoError> {
        self.write_zeroes(offset, len, false, false, fua).await
    }

    /// Makes the range read as zeroes. `no_hole` keeps it allocated; `fast` fails with [`IoError::NotSupported`] where this
    /// would be as slow as writing.
    ///
    /// # Errors
    /// As for [`VolumeHandle::write`].
    pub async fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        no_hole: bool,
        fast: bool,
        fua: bool,
    ) -> Result<(), IoError> {
        let in_flight = self.volume.begin_write(offset, len)?;
        if len == 0 {
            return if fua { self.flush().await } else { Ok(()) };
        }
        if fast && (no_hole || !self.is_fast_to_zero(offset, len)) {
            return Err(IoError::NotSupported);
        }
        let volume = Rc::clone(&self.volume);
        let work = async move {
            let _in_flight = in_flight;
            // Whole units lie under the blocks' lock as long as the range does: a unit is never forgotten in part.
            let end = volume.claimed_end(offset + len);
            let guard = volume.lock(offset, end - offset, Hold::Exclusive).await;
            volume.note_change(offset..offset + len).await?;
            if no_hole {
                volume.zero(offset..offset + len).await?;
            } else {
                volume.forget(offset..offset + len).await?;
            }
            drop(guard);
            if fua { volume.flush_all().await } else { Ok(()) }
        };
        self.volume.detached(work).await
    }

    fn is_fast_to_zero(&self, offset: u64, len: u64) -> bool {
        if self.volume.shield().is_some() {
            return self.volume.written_parts_under(offset..offset + len).is_empty();
        }
        let (_, edges) = self.volume.units_and_edges(offset..offset + len);
        edges.into_iter().all(|edge| self.volume.written_parts(edge).is_empty())
    }

    /// Allocation of the range, in at least one and at most `max_runs` runs from its start; they may end before it does.
    ///
    /// # Errors
    /// If the range is empty or lies outside the volume; no longer served.
    pub fn allocation(
        &self,
        offset: u64,
        len: u64,
        max_runs: usize,
    ) -> Result<Vec<AllocationRun>, IoError> {
        let _in_flight = self.volume.begin(offset, len)?;
        if len == 0 {
            return Err(IoError::OutOfRange);
        }
        let group = &self.volume.group;
        let most = STRIPES_LOOKED_AT * group.geometry.stripe_len();
        let shielded = self.volume.shield().is_some();
        let mut at = offset;
        let mut runs: Vec<AllocationRun> = Vec::new();
        for part in self.volume.parts(offset..offset + len.min(most)) {
            for range in group.geometry.stripe_ranges(part.start, part.end - part.start) {
                let len = range.within.end - range.within.start;
                let redirected = shielded && self.volume.is_newer_elsewhere(at..at + len);
                let hole = group.reads_zero(Stripe(range.stripe.0)) && !redirected;
                at += len;
                let full = runs.len() == max_runs.max(1);
                match runs.last_mut() {
                    Some(run) if run.hole == hole => run.len += len,
                    _ if full => return Ok(runs),
                    _ => runs.push(AllocationRun { len, hole }),
                }
            }
        }
        Ok(runs)
    }
}
