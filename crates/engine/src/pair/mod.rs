//! Pairs: a volume that hosts use and one of equal size in another group, with the bits that tell them apart.
//!
//! Owns the secondary made for one avoidance as a backup of a shielded primary (rule B2, new pair); following a primary is `mirror.rs`'s matter, taking
//! its place while it is shielded `sides.rs`'s. Invariants: a block is marked only after the secondary holds it; on disk a
//! bit is set only after what it tells of is durable, and cleared only after home is. The primary's block locks are held by whoever calls.

use std::ops::Range;
use std::rc::Rc;

use crate::buf::Buf;
use crate::config::{PairEntry, VolumeEntry};
use crate::error::IoError;
use crate::group::Group;
use crate::ids::{BLOCK_SIZE, Uuid, VolumeNumber};
use crate::runtime::Env;
use crate::volume::VolumeRt;

mod bitmap;
mod bits;
mod equal;
mod mirror;
mod sides;

#[cfg(test)]
mod model;

use bitmap::Bitmap;
pub(crate) use bitmap::bitmap_bytes;
pub(crate) use bits::{Bits, Taken};
pub(crate) use mirror::{Mirror, OnBroken};
pub(crate) use sides::Mode;

/// A pair at work.
pub(crate) struct Pair<E: Env> {
    /// Its identity.
    pub(crate) id: Uuid,
    /// The secondary's blocks.
    secondary: Rc<VolumeRt<E>>,
    bitmap: Bitmap<E>,
    size: u64,
}

impl<E: Env> Pair<E> {
    /// A pair without a bit, over a secondary in `group`.
    pub(crate) fn new(
        rt: &E::Runtime,
        entry: &PairEntry,
        secondary: &VolumeEntry,
        group: &Rc<Group<E>>,
    ) -> Rc<Self> {
        let view = |entry: VolumeEntry| VolumeRt::new(rt.clone(), entry, Rc::clone(group));
        let size = secondary.size;
        let area = VolumeEntry {
            extents: entry.bitmap.clone(),
            size: bitmap_bytes(size),
            ..secondary.clone()
        };
        let bitmap = Bitmap::new(entry.id, view(area), size.div_ceil(BLOCK_SIZE));
        Rc::new(Self { id: entry.id, secondary: view(secondary.clone()), bitmap, size })
    }

    /// Reads the bits back at assembly; nothing of the primary may be served before [`Pair::persist_bits`].
    pub(crate) async fn load(&self) -> Result<(), IoError> {
        self.bitmap.load().await
    }

    /// Makes every bit durable as it is now.
    pub(crate) async fn persist_bits(&self) -> Result<(), IoError> {
        self.bitmap.persist_changed().await
    }

    /// The secondary's number.
    pub(crate) fn secondary(&self) -> VolumeNumber {
        self.secondary.report().number
    }

    /// The secondary's group.
    pub(crate) fn group(&self) -> &Rc<Group<E>> {
        self.secondary.group()
    }

    /// Marked blocks inside a range, ascending.
    pub(crate) fn marked_in(&self, blocks: Range<u64>) -> Vec<u64> {
        self.bitmap.bits.borrow().inside(self.clip(blocks))
    }

    /// The first marked block inside a range.
    pub(crate) fn next_marked(&self, blocks: Range<u64>) -> Option<u64> {
        self.bitmap.bits.borrow().next(self.clip(blocks))
    }

    fn clip(&self, blocks: Range<u64>) -> Range<u64> {
        let end = self.size.div_ceil(BLOCK_SIZE);
        blocks.start.min(end)..blocks.end.min(end)
    }

    /// Blocks of each side.
    pub(crate) fn blocks(&self) -> u64 {
        self.size.div_ceil(BLOCK_SIZE)
    }

    /// Marked blocks.
    pub(crate) fn marks(&self) -> u64 {
        self.bitmap.bits.borrow().ones()
    }

    /// For each of the first `count` regions of `region` bytes, whether a block in it is marked.
    pub(crate) fn bits(&self, count: u64, region: u64) -> Vec<bool> {
        let per = region / BLOCK_SIZE;
        (0..count).map(|n| self.next_marked(n * per..(n + 1) * per).is_some()).collect()
    }

    /// Reads blocks of the secondary.
    pub(crate) async fn read(&self, blocks: Range<u64>) -> Result<Vec<Buf>, IoError> {
        self.secondary.read_home(blocks.start * BLOCK_SIZE..blocks.end * BLOCK_SIZE).await
    }

    /// Stores consecutive blocks, with their data or as zeroes, and marks them.
    pub(crate) async fn store(&self, blocks: Range<u64>, data: Option<Buf>) -> Result<(), IoError> {
        self.put(blocks.clone(), data).await?;
        self.mark(blocks);
        Ok(())
    }

    /// Writes consecutive blocks of the secondary, with their data or as zeroes.
    async fn put(&self, blocks: Range<u64>, data: Option<Buf>) -> Result<(), IoError> {
        let bytes = blocks.start * BLOCK_SIZE..blocks.end * BLOCK_SIZE;
        match data {
            Some(data) => self.secondary.write_home(bytes.start, data).await,
            None => self.secondary.zero_home(bytes).await,
        }
    }

    /// Marks blocks in memory.
    pub(crate) fn mark(&self, blocks: Range<u64>) {
        self.bitmap.bits.borrow_mut().set(blocks, true);
    }

    /// Home is newer than what the secondary holds of these blocks.
    pub(crate) fn unmark(&self, blocks: Range<u64>) {
        self.bitmap.bits.borrow_mut().set(blocks, false);
    }

    /// Pages to be written once what was written so far is durable.
    pub(crate) fn take_changed(&self) -> Taken {
        self.bitmap.bits.borrow_mut().take_changed()
    }

    /// Gives pages back after a flush that failed.
    pub(crate) fn give_back(&self, taken: &Taken) {
        self.bitmap.bits.borrow_mut().give_back(taken);
    }

    /// Makes pages durable as they were when they were taken.
    pub(crate) async fn persist(&self, taken: Taken) -> Result<(), IoError> {
        self.bitmap.persist(taken).await
    }

    /// Makes what was stored so far durable.
    pub(crate) async fn flush(&self) -> Result<(), IoError> {
        self.group().flush().await
    }
}
