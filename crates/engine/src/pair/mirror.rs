//! A secondary that follows its primary: which blocks differ is noted before hosts write, and copied behind their backs.
//!
//! Owns the notes and the copying of one pair. Invariants (rule B2): the bit of a block is durable before a write to either side begins; it is cleared
//! only after both sides were made equal under the block's lock, both were flushed, and no write began since; while the bits stand
//! still nothing is cleared. Which side hosts' blocks are on while the primary's group is shielded is `sides.rs`'s matter, when to copy the array's.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;

use super::equal::Equal;
use super::sides::Leaving;
use super::{Mode, Pair};
use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::BLOCK_SIZE;
use crate::progress::Progress;
use crate::runtime::{Env, Runtime};
use crate::sync::{Event, Hold};
use crate::volume::VolumeRt;

/// Bytes copied under one lock, at least; whole stripes.
const WINDOW: u64 = 1 << 20;
/// Blocks copied between two flushes.
const FLUSH_EVERY: usize = (32 << 20) / BLOCK_SIZE as usize;

/// A copy that failed.
#[derive(Debug)]
pub(crate) struct CopyError {
    /// The first of the blocks that could not be copied, if it was not a flush.
    pub(crate) block: Option<u64>,
    pub(crate) error: IoError,
}

/// What was made equal.
#[derive(Default)]
struct Copied {
    blocks: u64,
    /// The first of the blocks that cannot be read: they stay marked.
    unread: Option<CopyError>,
}

impl From<IoError> for CopyError {
    fn from(error: IoError) -> Self {
        Self { block: None, error }
    }
}

impl fmt::Display for CopyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block {
            Some(block) => write!(f, "block {block}: {}", self.error),
            None => self.error.fmt(f),
        }
    }
}

/// What the array does with a pair whose bits cannot be made durable; completes with `true` when the primary may go on alone.
pub(crate) type OnBroken = Rc<dyn Fn() -> Pin<Box<dyn Future<Output = bool>>>>;

/// A pair that mirrors.
pub(crate) struct Mirror<E: Env> {
    /// Its bits and its secondary.
    pub(crate) pair: Rc<Pair<E>>,
    /// Notified when there may be something to copy.
    pub(crate) wake: Event,
    pub(super) mode: Cell<Mode>,
    /// Marked blocks that were made equal, and not written since.
    equal: RefCell<Equal>,
    /// The last copy failed: it cannot be relied on to come to an end.
    stuck: Cell<bool>,
    pub(super) on_broken: OnBroken,
    pub(super) leaving: Leaving,
    /// Copies under way.
    copying: Cell<u32>,
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
            mode: Cell::new(Mode::Follows),
            equal: RefCell::default(),
            stuck: Cell::new(false),
            on_broken,
            leaving: Leaving::default(),
            copying: Cell::new(0),
            progress: RefCell::default(),
            limit: Cell::new(0),
            ended: Cell::new(false),
            rest: Event::default(),
        })
    }

    /// Notes that blocks of the primary are about to be written. The caller holds their locks.
    pub(crate) async fn note(&self, blocks: Range<u64>) -> Result<(), IoError> {
        self.differ(blocks.clone());
        let before = self.pair.marked_in(blocks.clone());
        self.pair.mark(blocks.clone());
        self.wake.notify();
        if self.pair.persist_bits().await.is_ok() {
            return Ok(());
        }
        // Nothing was written: what was equal still is.
        self.pair.unmark(blocks);
        before.into_iter().for_each(|block| self.pair.mark(block..block + 1));
        if (self.on_broken)().await { Ok(()) } else { Err(IoError::Io) }
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

    /// Of the job that makes both volumes equal; one that nobody looks at if there is none.
    pub(crate) fn progress(&self) -> Rc<Progress> {
        self.progress.borrow().clone().unwrap_or_default()
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
        self.rest.wait_until(|| self.copying.get() == 0).await;
    }

    /// Whether the last copy failed.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck.get()
    }

    /// Makes both sides equal in every marked block, or in as many until `goes_on` says no.
    pub(crate) async fn copy(
        &self,
        primary: &Rc<VolumeRt<E>>,
        progress: &Progress,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), CopyError> {
        self.copying.set(self.copying.get() + 1);
        let goes_on = || !self.ended.get() && goes_on();
        let result = self.copy_all(primary, progress, &goes_on).await;
        self.stuck.set(result.is_err());
        self.copying.set(self.copying.get() - 1);
        self.rest.notify();
        result
    }

    async fn copy_all(
        &self,
        primary: &Rc<VolumeRt<E>>,
        progress: &Progress,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), CopyError> {
        // Whole stripes of the primary, which are cheapest to write where that is what is copied to.
        let window = WINDOW.next_multiple_of(primary.group().geometry.stripe_len()) / BLOCK_SIZE;
        let (mut at, mut unread) = (0, None);
        while let Some(first) = self.pair.next_marked(at..u64::MAX) {
            if !goes_on() {
                return Ok(());
            }
            at = first / window * window + window;
            let (served, begun) = (primary.requests(), primary.runtime().now_ns());
            let copied = {
                let len = (at - first) * BLOCK_SIZE;
                let _guard = primary.lock(first * BLOCK_SIZE, len, Hold::Shared).await;
                self.copy_marked(primary, first..at).await?
            };
            unread = unread.or(copied.unread);
            let copied = copied.blocks;
            progress.done.set(progress.done.get() + copied * BLOCK_SIZE);
            if self.equal.borrow().len() >= FLUSH_EVERY {
                self.settle(primary, goes_on).await?;
            }
            progress.pace(primary.runtime(), copied * BLOCK_SIZE).await;
            if primary.requests() != served {
                // Hosts are at work: they get as much time as the window took.
                let took = primary.runtime().now_ns().saturating_sub(begun);
                primary.runtime().sleep_ns(took).await;
            }
        }
        self.settle(primary, goes_on).await?;
        unread.map_or(Ok(()), Err)
    }

    /// Makes both sides equal in the marked blocks of a range, but for those that cannot be read. The caller holds their locks.
    async fn copy_marked(
        &self,
        primary: &Rc<VolumeRt<E>>,
        blocks: Range<u64>,
    ) -> Result<Copied, CopyError> {
        let mut differ = self.pair.marked_in(blocks);
        differ.retain(|block| !self.equal.borrow().holds(*block));
        let source = if self.is_reversed() { self.pair.group() } else { primary.group() };
        let mut copied = Copied::default();
        let mut left = runs_of(&differ);
        left.reverse();
        while let Some(run) = left.pop() {
            let bytes = run.start * BLOCK_SIZE..run.end * BLOCK_SIZE;
            let failed = |error| CopyError { block: Some(run.start), error };
            let data = match primary.read_blocks(bytes.clone()).await {
                Ok(data) => Buf::joined(data),
                Err(error) if !source.is_readable() => return Err(failed(error)),
                // A block that is lost keeps no other from being made equal.
                Err(_) if run.end - run.start > 1 => {
                    left.extend(run.rev().map(|block| block..block + 1));
                    continue;
                }
                Err(error) => {
                    copied.unread.get_or_insert(failed(error));
                    continue;
                }
            };
            let put = if self.is_reversed() {
                primary.write_home(bytes.start, data).await
            } else {
                self.pair.put(run.clone(), Some(data)).await
            };
            put.map_err(failed)?;
            copied.blocks += run.end - run.start;
            self.made_equal(run);
        }
        Ok(copied)
    }

    /// Both sides have the same: the bits may go once both are flushed. The caller holds the blocks' locks.
    pub(super) fn made_equal(&self, blocks: Range<u64>) {
        let marked = self.pair.marked_in(blocks);
        self.equal.borrow_mut().made(marked);
    }

    /// Home alone has the newest of these marked blocks: no flush clears their bits. The caller holds the blocks' locks.
    pub(super) fn only_home_has(&self, blocks: Range<u64>) {
        self.equal.borrow_mut().keep(blocks);
    }

    /// What was made equal is so no more. The caller holds the blocks' locks.
    pub(super) fn differ(&self, blocks: Range<u64>) {
        self.equal.borrow_mut().differ(blocks);
    }

    /// Marked blocks that home has not got yet, or, while the primary is newer, the secondary.
    pub(crate) fn differing(&self) -> u64 {
        self.pair.marks().saturating_sub(self.equal.borrow().len() as u64)
    }

    /// Makes both sides equal and durable while no host has a block, so that no bit is left. The caller holds the lock of the whole volume.
    pub(crate) async fn finish(&self, primary: &Rc<VolumeRt<E>>) -> Result<(), CopyError> {
        let result = self.finish_both(primary).await;
        self.stuck.set(result.is_err());
        result
    }

    async fn finish_both(&self, primary: &Rc<VolumeRt<E>>) -> Result<(), CopyError> {
        let copied = self.copy_marked(primary, 0..u64::MAX).await?;
        self.settle(primary, &|| true).await?;
        copied.unread.map_or(Ok(()), Err)?;
        // What was equal already may lie in a cache only, and in storages that are to be cleared.
        primary.flush_all().await?;
        self.pair.flush().await.map_err(CopyError::from)
    }

    /// Clears the bits of the blocks that were made equal, once both sides are durable.
    async fn settle(
        &self,
        primary: &VolumeRt<E>,
        goes_on: &dyn Fn() -> bool,
    ) -> Result<(), IoError> {
        if self.is_reversed() {
            return self.settle_home(primary).await;
        }
        if self.equal.borrow().len() == 0 {
            return Ok(());
        }
        let covered = self.equal.borrow().covered();
        let flushed = match primary.flush_all().await {
            Ok(()) => self.pair.flush().await,
            failed => failed,
        };
        // Held meanwhile: the bits stand still.
        if flushed.is_ok() && !goes_on() {
            return Ok(());
        }
        self.clear_bits(covered, flushed).await
    }

    /// [`Mirror::settle`] of a pair that is reversed, of which the primary's own group is flushed.
    pub(super) async fn settle_home(&self, home: &VolumeRt<E>) -> Result<(), IoError> {
        let covered = self.equal.borrow().covered();
        // Where only the secondary fails home has what it took: the primary may go on alone.
        self.pair.flush().await?;
        let flushed = home.group().flush().await;
        self.clear_bits(covered, flushed).await
    }

    /// Clears the bits of what was made equal before a flush of both sides, if that succeeded.
    async fn clear_bits(&self, covered: u64, flushed: Result<(), IoError>) -> Result<(), IoError> {
        if flushed.is_err() {
            // What either side holds by now is not known: all of it is copied again.
            self.equal.borrow_mut().forget();
            return flushed;
        }
        let equal = self.equal.borrow_mut().settle(covered);
        for run in runs_of(&equal) {
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
