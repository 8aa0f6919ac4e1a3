//! Blocks that no backup storage holds: at home, or on the side of a pair that has them while the volume's group is shielded.
//!
//! Owns that choice, and nothing else: what a pair does with the blocks is `pair/sides.rs`'s matter. The caller holds the blocks' locks. What a pair does is
//! boxed, so that the requests of volumes without one do not carry the room for it.

use std::ops::Range;
use std::rc::Rc;

use super::VolumeRt;
use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::BLOCK_SIZE;
use crate::pair::Mirror;
use crate::runtime::Env;
use crate::sync::{Hold, RangeGuard};

impl<E: Env> VolumeRt<E> {
    /// Lets a secondary follow the volume, or lets it go.
    pub(crate) fn set_mirror(&self, mirror: Option<Rc<Mirror<E>>>) {
        *self.mirror.borrow_mut() = mirror;
    }

    /// What follows the volume.
    pub(crate) fn mirror(&self) -> Option<Rc<Mirror<E>>> {
        self.mirror.borrow().clone()
    }

    /// What follows the volume, if hosts' blocks are there.
    pub(crate) fn reversed(&self) -> Option<Rc<Mirror<E>>> {
        self.mirror().filter(|mirror| mirror.is_reversed())
    }

    /// What a host is about to change is noted where a secondary follows. The caller holds the lock.
    pub(super) async fn note_change(&self, range: Range<u64>) -> Result<(), IoError> {
        let Some(mirror) = self.mirror() else { return Ok(()) };
        mirror.note(range.start / BLOCK_SIZE..range.end.div_ceil(BLOCK_SIZE)).await
    }

    /// No host has a block while this is held.
    pub(crate) async fn lock_all(&self) -> RangeGuard {
        self.locks.lock(0..u64::MAX, Hold::Exclusive).await
    }

    /// Reads whole blocks that no storage holds.
    pub(crate) async fn read_kept(&self, range: Range<u64>) -> Result<Vec<Buf>, IoError> {
        match self.mirror() {
            Some(mirror) => Box::pin(mirror.read(self, range)).await,
            None => self.read_home(range).await,
        }
    }

    /// Writes whole blocks, past every storage.
    pub(crate) async fn write_kept(&self, offset: u64, data: Buf) -> Result<(), IoError> {
        let Some(mirror) = self.mirror() else { return self.write_home(offset, data).await };
        let end = offset + data.len() as u64;
        let blocks = offset / BLOCK_SIZE..end / BLOCK_SIZE;
        Box::pin(mirror.write(self, blocks, Some(data))).await
    }

    /// Makes whole blocks zero, past every storage.
    pub(crate) async fn zero_kept(&self, range: Range<u64>) -> Result<(), IoError> {
        let Some(mirror) = self.mirror() else { return self.zero_home(range).await };
        let blocks = range.start / BLOCK_SIZE..range.end / BLOCK_SIZE;
        Box::pin(mirror.write(self, blocks, None)).await
    }

    /// Makes durable what no storage holds.
    pub(crate) async fn flush_kept(&self) -> Result<(), IoError> {
        match self.mirror() {
            Some(mirror) => Box::pin(mirror.flush(self)).await,
            None => self.group.flush_written().await,
        }
    }

    /// Blocks of which something else than home has a newer version.
    pub(crate) fn blocks_away(&self) -> u64 {
        self.reversed().map_or(0, |mirror| mirror.pair.marks())
            + self.shield().map_or(0, |shield| shield.marks())
    }

    /// Whether a byte range has a block of which something else than home has a newer version.
    pub(crate) fn is_newer_elsewhere(&self, range: Range<u64>) -> bool {
        let blocks = range.start / BLOCK_SIZE..range.end.div_ceil(BLOCK_SIZE);
        self.reversed().is_some_and(|mirror| mirror.pair.next_marked(blocks).is_some())
            || self.shield().is_some_and(|shield| shield.holds_any(range))
    }
}
