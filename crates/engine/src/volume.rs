//! Volumes at work: from a host's bytes to whole blocks of a group.
//!
//! Owns the locks that order host requests on the same blocks, the merging of requests that are not whole blocks, and the map from a
//! volume's offsets to its extents. Invariants: overlapping requests take effect one after the other; a request that was
//! accepted runs to its end as a task of the engine, whatever becomes of who asked; whole unwritten units stay unwritten.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use crate::buf::Buf;
use crate::config::VolumeEntry;
use crate::error::IoError;
use crate::group::Group;
use crate::ids::BLOCK_SIZE;
use crate::pair::Mirror;
use crate::report::VolumeReport;
use crate::runtime::{Env, Runtime};
use crate::shield::Shield;
use crate::sync::{Event, Hold, RangeLocks, Served, oneshot};

/// Zeroes are written in pieces of this many bytes.
const ZEROES_AT_ONCE: u64 = 1 << 20;

mod handle;
mod sides;

pub use handle::{AllocationRun, VolumeHandle};

/// A volume in memory, shared by all who serve it.
pub(crate) struct VolumeRt<E: Env> {
    rt: E::Runtime,
    entry: RefCell<VolumeEntry>,
    group: Rc<Group<E>>,
    locks: Rc<RangeLocks>,
    closed: Cell<bool>,
    /// How many wait for the requests under way to end, to delete it then.
    closings: Cell<u32>,
    in_flight: Cell<u64>,
    /// Of those, the ones that change data.
    writes: Cell<u64>,
    /// Notified when there are none of the ones, or none of the others.
    idle: Event,
    /// Requests accepted so far.
    requests: Cell<u64>,
    /// Where the volume's writes go while its group is shielded.
    shield: RefCell<Option<Rc<Shield<E>>>>,
    /// What is told of each write before it begins, if a secondary follows the volume.
    mirror: RefCell<Option<Rc<Mirror<E>>>>,
    flushes: Served,
    /// Kept for redirected writes: no host's business.
    reserved: Cell<bool>,
}

/// Counts a request under way until dropped.
struct InFlight<E: Env> {
    volume: Rc<VolumeRt<E>>,
    writes: bool,
}

impl<E: Env> Drop for InFlight<E> {
    fn drop(&mut self) {
        let volume = &self.volume;
        let all = volume.in_flight.get() - 1;
        volume.in_flight.set(all);
        let writes = volume.writes.get() - u64::from(self.writes);
        volume.writes.set(writes);
        if all == 0 || self.writes && writes == 0 {
            volume.idle.notify();
        }
    }
}

/// Keeps a volume closed while somebody waits to delete it.
pub(crate) struct Closing<E: Env>(Rc<VolumeRt<E>>);

impl<E: Env> Drop for Closing<E> {
    fn drop(&mut self) {
        self.0.closings.set(self.0.closings.get() - 1);
    }
}

impl<E: Env> VolumeRt<E> {
    pub(crate) fn new(rt: E::Runtime, entry: VolumeEntry, group: Rc<Group<E>>) -> Rc<Self> {
        Rc::new(Self {
            rt,
            entry: RefCell::new(entry),
            group,
            locks: Rc::default(),
            closed: Cell::new(false),
            closings: Cell::new(0),
            in_flight: Cell::new(0),
            writes: Cell::new(0),
            idle: Event::default(),
            requests: Cell::new(0),
            shield: RefCell::default(),
            mirror: RefCell::default(),
            flushes: Served::default(),
            reserved: Cell::new(false),
        })
    }

    /// Takes over a changed name, size or extents.
    pub(crate) fn update(&self, entry: VolumeEntry) {
        *self.entry.borrow_mut() = entry;
        self.idle.notify();
    }

    /// Answers every request from now on with an error.
    pub(crate) fn close(&self) {
        self.closed.set(true);
    }

    /// Answers new requests with an error for as long as the guard lives.
    pub(crate) fn closing(self: &Rc<Self>) -> Closing<E> {
        self.closings.set(self.closings.get() + 1);
        Closing(Rc::clone(self))
    }

    /// The volume's group.
    pub(crate) fn group(&self) -> &Rc<Group<E>> {
        &self.group
    }

    pub(crate) fn runtime(&self) -> &E::Runtime {
        &self.rt
    }

    /// Host requests accepted so far.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.get()
    }

    /// The shield over the volume, if there is one.
    pub(crate) fn shield(&self) -> Option<Rc<Shield<E>>> {
        self.shield.borrow().clone()
    }

    /// Raises, changes or takes away the shield; a counting configuration says so.
    pub(crate) fn set_shield(&self, shield: Option<Rc<Shield<E>>>) {
        *self.shield.borrow_mut() = shield;
    }

    /// Parts of the volume that are not known to read as zeroes, as blocks.
    pub(crate) fn blocks_with_data(&self) -> Vec<Range<u64>> {
        let all = 0..self.entry.borrow().size;
        let parts = match self.shield() {
            Some(_) => self.written_parts_under(all),
            None => self.written_parts(all),
        };
        parts.into_iter().map(|p| p.start / BLOCK_SIZE..p.end.div_ceil(BLOCK_SIZE)).collect()
    }

    /// Completes when every request that came before has ended: what comes later sees what was changed before this call.
    pub(crate) async fn pass(&self) {
        drop(self.lock_all().await);
    }

    /// Makes everything written so far durable, wherever it went.
    pub(crate) async fn flush_all(&self) -> Result<(), IoError> {
        if self.shield().is_none() {
            return self.group.flush().await;
        }
        // One at a time: what an earlier one has taken to be cleared is cleared before this one is answered. The shield of the moment at which it
        // begins knows of all that was written before.
        let flush = async || match self.shield() {
            Some(shield) => shield.flush(self).await,
            None => self.group.flush().await,
        };
        self.flushes.by(flush).await
    }

    /// Completes when no request is under way.
    pub(crate) async fn drained(&self) {
        self.idle.wait_until(|| self.in_flight.get() == 0).await;
    }

    /// Completes when no write is under way, or when writes are allowed again.
    pub(crate) async fn rests_read_only(&self) {
        let rests = || self.writes.get() == 0 || !self.entry.borrow().read_only;
        self.idle.wait_until(rests).await;
    }

    pub(crate) fn report(&self) -> VolumeReport {
        let entry = self.entry.borrow();
        VolumeReport {
            number: entry.number,
            name: entry.name.clone(),
            group: entry.group,
            size: entry.size,
            read_only: entry.read_only,
            reserved: self.reserved.get(),
            secondary_of: None,
        }
    }

    /// Whether any of it was ever written and not given up since.
    pub(crate) fn holds_data(&self) -> bool {
        !self.written_parts(0..self.entry.borrow().size).is_empty()
    }

    /// Takes the volume from hosts, or gives it back: it is kept for redirected writes.
    pub(crate) fn reserve(&self, reserved: bool) {
        self.reserved.set(reserved);
    }

    fn begin(self: &Rc<Self>, offset: u64, len: u64) -> Result<InFlight<E>, IoError> {
        if self.closed.get() || self.closings.get() > 0 || self.reserved.get() {
            return Err(IoError::Stopped);
        }
        let end = offset.checked_add(len).ok_or(IoError::OutOfRange)?;
        if end > self.entry.borrow().size {
            return Err(IoError::OutOfRange);
        }
        self.in_flight.set(self.in_flight.get() + 1);
        self.requests.set(self.requests.get() + 1);
        Ok(InFlight { volume: Rc::clone(self), writes: false })
    }

    fn begin_write(self: &Rc<Self>, offset: u64, len: u64) -> Result<InFlight<E>, IoError> {
        if self.entry.borrow().read_only {
            return Err(IoError::ReadOnly);
        }
        let mut begun = self.begin(offset, len)?;
        begun.writes = true;
        self.writes.set(self.writes.get() + 1);
        Ok(begun)
    }

    /// The parts of a range of the volume in its group: group offset and length, in order.
    fn parts(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let stripe_len = self.group.geometry.stripe_len();
        let mut at = 0;
        let mut parts = Vec::with_capacity(1);
        for extent in &self.entry.borrow().extents {
            let len = extent.stripes * stripe_len;
            let (from, to) = (range.start.max(at), range.end.min(at + len));
            if from < to {
                let base = extent.start * stripe_len;
                parts.push(base + from - at..base + to - at);
            }
            at += len;
        }
        parts
    }

    /// Reads whole blocks as hosts see them. The caller holds the lock.
    pub(crate) async fn read_blocks(&self, range: Range<u64>) -> Result<Vec<Buf>, IoError> {
        match self.shield() {
            Some(shield) => shield.read(self, range).await,
            None => self.read_home(range).await,
        }
    }

    async fn write_blocks(&self, offset: u64, data: Buf) -> Result<(), IoError> {
        match self.shield() {
            Some(shield) => shield.write(self, offset, data).await,
            None => self.write_home(offset, data).await,
        }
    }

    /// Reads whole blocks from the volume's own group.
    pub(crate) async fn read_home(&self, range: Range<u64>) -> Result<Vec<Buf>, IoError> {
        let mut bufs = Vec::new();
        for part in self.parts(range) {
            let read = self.group.read(part.start, part.end - part.start).await?;
            if bufs.is_empty() {
                bufs = read;
            } else {
                bufs.extend(read);
            }
        }
        Ok(bufs)
    }

    /// Writes whole blocks to the volume's own group.
    pub(crate) async fn write_home(&self, offset: u64, data: Buf) -> Result<(), IoError> {
        let mut at = 0;
        for part in self.parts(offset..offset + data.len() as u64) {
            let len = (part.end - part.start) as usize;
            self.group.write(part.start, data.slice(at..at + len)).await?;
            at += len;
        }
        Ok(())
    }

    /// Whole blocks whose newest version is gone are listed lost at home: what lies there is older. The caller holds the lock.
    pub(crate) async fn lose_home(&self, range: Range<u64>) -> Result<(), IoError> {
        for part in self.parts(range) {
            self.group.lose_blocks(part).await?;
        }
        Ok(())
    }

    /// Writes any range: blocks that it covers in part are merged with what they hold. The caller holds the lock.
    async fn write_bytes(&self, offset: u64, data: Buf) -> Result<(), IoError> {
        let range = whole_blocks(offset, data.len() as u64);
        if range.start == offset && range.end == offset + data.len() as u64 {
            return self.write_blocks(offset, data).await;
        }
        let mut merged = Buf::zeroed((range.end - range.start) as usize);
        let (head, tail) = (range.start, range.end - BLOCK_SIZE);
        if offset > head {
            self.merge_block(&mut merged, head, range.start).await?;
        }
        if offset + (data.len() as u64) < range.end && (tail != head || offset == head) {
            self.merge_block(&mut merged, tail, range.start).await?;
        }
        let at = (offset - range.start) as usize;
        merged.bytes_mut()[at..at + data.len()].copy_from_slice(&data);
        self.write_blocks(range.start, merged).await
    }

    async fn merge_block(&self, merged: &mut Buf, block: u64, base: u64) -> Result<(), IoError> {
        let bufs = self.read_blocks(block..block + BLOCK_SIZE).await?;
        let at = (block - base) as usize;
        merged.bytes_mut()[at..at + BLOCK_SIZE as usize].copy_from_slice(&bufs[0]);
        Ok(())
    }

    /// Whole units of the unwritten map inside a range of the volume, as group ranges, and the rest of it as volume ranges. A range
    /// that reaches the volume's end takes the rest of its last stripes with it.
    fn units_and_edges(&self, range: Range<u64>) -> (Vec<Range<u64>>, Vec<Range<u64>>) {
        let stripe_len = self.group.geometry.stripe_len();
        let unit = self.group.unit_stripes() * stripe_len;
        let end = self.claimed_end(range.end);
        let (mut units, mut edges) = (Vec::new(), Vec::new());
        let mut at = range.start;
        for part in self.parts(range.start..end) {
            let len = part.end - part.start;
            let (first, last) = (part.start.next_multiple_of(unit), part.end / unit * unit);
            let base = at;
            if first < last {
                units.push(first / unit..last / unit);
                edges.push(base..base + (first - part.start));
                edges.push(base + (last - part.start)..base + len);
            } else {
                edges.push(base..base + len);
            }
            at += len;
        }
        let edges = edges
            .into_iter()
            .map(|e| e.start..e.end.min(range.end))
            .filter(|e| e.start < e.end)
            .collect();
        (units, edges)
    }

    /// Where a range that ends at `end` ends with the stripes that it takes along: a volume may grow into them meanwhile.
    fn claimed_end(&self, end: u64) -> u64 {
        if end == self.entry.borrow().size { self.capacity().max(end) } else { end }
    }

    fn capacity(&self) -> u64 {
        self.entry.borrow().extents.iter().map(|e| e.stripes).sum::<u64>()
            * self.group.geometry.stripe_len()
    }

    /// Parts of a volume range that are written somewhere; the rest reads as zeroes already.
    fn written_parts(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut at = range.start;
        let mut written: Vec<Range<u64>> = Vec::new();
        for part in self.parts(range) {
            for stripe in self.group.geometry.stripe_ranges(part.start, part.end - part.start) {
                let len = stripe.within.end - stripe.within.start;
                if !self.group.reads_zero(stripe.stripe) {
                    match written.last_mut() {
                        Some(last) if last.end == at => last.end = at + len,
                        _ => written.push(at..at + len),
                    }
                }
                at += len;
            }
        }
        written
    }

    /// Makes whole blocks of the volume's own group zero.
    pub(crate) async fn zero_home(&self, range: Range<u64>) -> Result<(), IoError> {
        let zeroes = Buf::zeroed(ZEROES_AT_ONCE.min(range.end - range.start) as usize);
        for at in range.clone().step_by(zeroes.len()) {
            let len = (zeroes.len() as u64).min(range.end - at);
            self.write_home(at, zeroes.slice(0..len as usize)).await?;
        }
        Ok(())
    }

    /// Zeroes under a shield: whole blocks are not written as data.
    async fn zero_shielded(&self, shield: &Shield<E>, range: Range<u64>) -> Result<(), IoError> {
        let (first, last) =
            (range.start.next_multiple_of(BLOCK_SIZE), range.end / BLOCK_SIZE * BLOCK_SIZE);
        if first >= last {
            let zeroes = Buf::zeroed((range.end - range.start) as usize);
            return self.write_bytes(range.start, zeroes).await;
        }
        if range.start < first {
            self.write_bytes(range.start, Buf::zeroed((first - range.start) as usize)).await?;
        }
        for at in (first..last).step_by(ZEROES_AT_ONCE as usize) {
            shield
                .zero(self, at / BLOCK_SIZE..(at + ZEROES_AT_ONCE).min(last) / BLOCK_SIZE)
                .await?;
        }
        if last < range.end {
            self.write_bytes(last, Buf::zeroed((range.end - last) as usize)).await?;
        }
        Ok(())
    }

    async fn zero(&self, range: Range<u64>) -> Result<(), IoError> {
        if let Some(shield) = self.shield() {
            return self.zero_shielded(&shield, range).await;
        }
        let zeroes = Buf::zeroed(ZEROES_AT_ONCE.min(range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            // Pieces end on block boundaries, so that only the very ends are merged.
            let end = (at + zeroes.len() as u64).min(range.end);
            let end =
                if end < range.end { (end / BLOCK_SIZE * BLOCK_SIZE).max(at + 1) } else { end };
            self.write_bytes(at, zeroes.slice(0..(end - at) as usize)).await?;
            at = end;
        }
        Ok(())
    }

    /// Makes a range read as zeroes, giving up what space can be given up. The caller holds the lock.
    async fn forget(&self, range: Range<u64>) -> Result<(), IoError> {
        if let Some(shield) = self.shield() {
            // Never an unmark: home may hold something older. What nobody ever wrote is zero already.
            for part in self.written_parts_under(range) {
                self.zero_shielded(&shield, part).await?;
            }
            return Ok(());
        }
        let (units, edges) = self.units_and_edges(range);
        for unit in units {
            self.group.forget_units(unit).await;
        }
        for edge in edges {
            for part in self.written_parts(edge) {
                self.zero(part).await?;
            }
        }
        Ok(())
    }

    /// [`VolumeRt::written_parts`] under a shield, and what something else than home holds.
    fn written_parts_under(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut at = range.start;
        let mut written: Vec<Range<u64>> = Vec::new();
        for part in self.parts(range) {
            for stripe in self.group.geometry.stripe_ranges(part.start, part.end - part.start) {
                let end = at + stripe.within.end - stripe.within.start;
                if !self.group.reads_zero(stripe.stripe) || self.is_newer_elsewhere(at..end) {
                    match written.last_mut() {
                        Some(last) if last.end == at => last.end = end,
                        _ => written.push(at..end),
                    }
                }
                at = end;
            }
        }
        written
    }

    pub(crate) async fn lock(&self, offset: u64, len: u64, hold: Hold) -> crate::sync::RangeGuard {
        self.locks.lock(whole_blocks(offset, len), hold).await
    }

    /// Runs `work` to its end and waits for its answer: what does not end at the first look goes on as a task of the engine, whatever
    /// becomes of who asked. The look and the handing over happen in one step, so nobody can drop the work in between.
    async fn detached(
        self: &Rc<Self>,
        work: impl Future<Output = Result<(), IoError>> + 'static,
    ) -> Result<(), IoError> {
        let mut work: Pin<Box<dyn Future<Output = Result<(), IoError>>>> = Box::pin(work);
        let at_once = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        if let Poll::Ready(result) = at_once {
            return result;
        }
        let (giver, taker) = oneshot();
        self.rt.spawn(Box::pin(async move { giver.give(work.await) }));
        taker.take().await.unwrap_or(Err(IoError::Stopped))
    }
}

fn whole_blocks(offset: u64, len: u64) -> Range<u64> {
    offset / BLOCK_SIZE * BLOCK_SIZE..(offset + len).next_multiple_of(BLOCK_SIZE)
}
