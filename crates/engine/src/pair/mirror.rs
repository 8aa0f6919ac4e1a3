//! A secondary that follows its primary: which blocks differ is noted before hosts write, and copied behind their backs.
//!
//! Owns the notes and the copying of one pair. Invariants (rule B2): the bit of a block is durable before a write to the primary begins; it is cleared
//! only after a copy of what hosts read was made under the block's lock, both sides were flushed, and no write began since the copy; while the bits stand
//! still nothing is cleared. When to copy is the array's matter.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;

use super::Pair;
use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::BLOCK_SIZE;
use crate::progress::Progress;
use crate::runtime::{Env, Runtime};
use crate::sync::{Event, Hold};
use crate::volume::VolumeRt;

/// Blocks copied under one lock, at most.
const WINDOW: u64 = (1 << 20) / BLOCK_SIZE;
/// Blocks copied between two flushes.
const FLUSH_EVERY: usize = (32 << 20) / BLOCK_SIZE as usize;

/// What the array does with a pair whose bits cannot be made durable; completes with `true` when the primary may go on alone.
pub(crate) type OnBroken = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = bool>>>>;

/// A pair that mirrors.
pub(crate) struct Mirror<E: Env> {
    /// Its bits and its secondary.
    pub(crate) pair: Rc<Pair<E>>,
    /// Notified when there may be something to copy.
    pub(crate) wake: Event,
    /// Blocks copied since the last flush, and not written since.
    copied: RefCell<BTreeSet<u64>>,
    on_broken: OnBroken,
    copying: Cell<bool>,
    /// Of the job that makes both volumes equal, while it runs.
    progress: RefCell<Option<Rc<Progress>>>,
    /// Bytes a second that the job may copy; 0 for no limit.
    limit: Cell<u64>,
    ended: Cell<bool>,
    rest: Event,
}

impl<E: Env> Mirror<E> {
    pub(crate) fn new(pair: Rc<Pair<E>>, on_broken: OnBroken) -> Rc<Self> {
        Rc::new(Self {
            pair,
            wake: Event::default(),
            copied: RefCell::default(),
            on_broken,
            copying: Cell::new(false),
            progress: RefCell::default(),
            limit: Cell::new(0),
            ended: Cell::new(false),
            rest: Event::default(),
        })
    }

    /// Notes that blocks of the primary are about to be written. The caller holds their locks.
    pub(crate) async fn note(&self, blocks: Range<u64>) -> Result<(), IoError> {
        {
            let mut copied = self.copied.borrow_mut();
            for block in blocks.clone() {
                copied.remove(&block);
            }
        }
        self.pair.mark(blocks);
        self.wake.notify();
        if self.pair.persist_bits().await.is_ok() || (self.on_broken)().await {
            return Ok(());
        }
        Err(IoError::Io)
    }

    /// No more is copied from now on.
    pub(crate) fn end(&self) {
        self.ended.set(true);
        self.wake.notify();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// The job that makes both volumes equal begins: what it does is counted, and paced.
    pub(crate) fn begin_job(&self, now_ns: u64) -> Rc<Progress> {
        let progress = Progress::new(self.pair.marks() * BLOCK_SIZE, self.limit.get(), now_ns);
        *self.progress.borrow_mut() = Some(Rc::clone(&progress));
        progress
    }

    /// The job ended.
    pub(crate) fn end_job(&self) {
        self.progress.take();
    }

    /// Limits the job that runs, and those to come; 0 takes the limit away.
    pub(crate) fn set_limit(&self, rate: u64, now_ns: u64) {
        self.limit.set(rate);
        if let Some(progress) = &*self.progress.borrow() {
            progress.set_limit(rate, now_ns);
        }
    }

    /// Completes when nothing is being copied; who waits has seen to it that nothing more is.
    pub(crate) async fn at_rest(&self) {
        // A job that sleeps because of its limit wakes up.
        if let Some(progress) = &*self.progress.borrow() {
            progress.stop.set(true);
        }
        self.rest.wait_until(|| !self.copying.get()).await;
    }

    /// Copies every marked block, or as many until `goes_on` says no.
    pub(crate) async fn copy(
        &self,
        primary: &Rc<VolumeRt<E>>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), IoError> {
        self.copying.set(true);
        let goes_on = || !self.ended.get() && goes_on();
        let result = self.copy_all(primary, &goes_on).await;
        self.copied.take();
        self.copying.set(false);
        self.rest.notify();
        result
    }

    async fn copy_all(
        &self,
        primary: &Rc<VolumeRt<E>>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), IoError> {
        let mut at = 0;
        while let Some(first) = self.pair.next_marked(at..u64::MAX) {
            if !goes_on() {
                return Ok(());
            }
            at = first / WINDOW * WINDOW + WINDOW;
            let (served, begun) = (primary.requests(), primary.runtime().now_ns());
            let moved = self.copy_window(primary, first..at).await?;
            if self.copied.borrow().len() >= FLUSH_EVERY {
                self.settle(primary, goes_on).await?;
            }
            if primary.requests() != served {
                // Hosts are at work: they get as much time as the window took.
                let took = primary.runtime().now_ns().saturating_sub(begun);
                primary.runtime().sleep_ns(took).await;
            }
            let progress = self.progress.borrow().clone();
            if let Some(progress) = progress {
                progress.done.set(progress.done.get() + moved);
                progress.pace(primary.runtime(), moved).await;
            }
        }
        self.settle(primary, goes_on).await
    }

    async fn copy_window(
        &self,
        primary: &Rc<VolumeRt<E>>,
        blocks: Range<u64>,
    ) -> Result<u64, IoError> {
        let len = (blocks.end - blocks.start) * BLOCK_SIZE;
        let _guard = primary.lock(blocks.start * BLOCK_SIZE, len, Hold::Shared).await;
        let mut moved = 0;
        for run in runs_of(&self.pair.marked_in(blocks)) {
            let bytes = run.start * BLOCK_SIZE..run.end * BLOCK_SIZE;
            let data = Buf::joined(primary.read_blocks(bytes).await?);
            self.pair.write(run.start, data).await?;
            moved += (run.end - run.start) * BLOCK_SIZE;
            self.copied.borrow_mut().extend(run);
        }
        Ok(moved)
    }

    /// Clears the bits of what was copied, once both sides are durable.
    async fn settle(
        &self,
        primary: &Rc<VolumeRt<E>>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), IoError> {
        if self.copied.borrow().is_empty() {
            return Ok(());
        }
        primary.flush_all().await?;
        self.pair.flush().await?;
        // Held meanwhile: the bits stand still.
        if !goes_on() {
            return Ok(());
        }
        let copied: Vec<u64> = self.copied.take().into_iter().collect();
        for run in runs_of(&copied) {
            self.pair.unmark(run);
        }
        self.pair.persist_bits().await
    }
}

/// Runs of consecutive numbers.
fn runs_of(numbers: &[u64]) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}
