//! Which side of a pair hosts' blocks are on: the primary's alone, both, or the secondary's while the primary's group is shielded (rule B2, existing pair).
//!
//! Owns the routing of blocks that no storage before it holds. Invariants: the bit of a block is durable before it is written on either side, by whoever
//! calls [`Mirror::note`] before; one side always has the newest version of every block: the primary until the pair is reversed, the secondary
//! while it is; what is not marked is the same on both. The direction changes only while no host has a block, no bit is left, and both sides are
//! durable; committing it is the array's matter.
//!
//! ```text
//!  Follows ──shield up──▶ Syncing ──nothing differs, committed──▶ Reversed ──write-back──▶ Returning ──nothing differs, committed──▶ Follows
//!     ▲                      │                                       ▲                         │
//!     └──less safe than home─┘                                       └────shielded once more───┘
//! ```

use std::cell::Cell;
use std::future::Future;
use std::ops::Range;

use super::Mirror;
use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::BLOCK_SIZE;
use crate::runtime::Env;
use crate::sync::{Event, Hold, both};
use crate::volume::VolumeRt;

/// What a pair does with hosts' blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// They are on the primary; the secondary follows behind the hosts' backs.
    Follows,
    /// Both sides are written, the primary is read; a bit means that the primary is newer.
    Syncing,
    /// They are on the secondary alone; a bit means that the secondary is newer.
    Reversed,
    /// As `Reversed`, and the primary is written too.
    Returning,
}

/// Whether the primary is about to go on without its secondary, or does.
#[derive(Default)]
pub(super) struct Leaving {
    under_way: Cell<bool>,
    done: Cell<bool>,
    changed: Event,
}

impl<E: Env> Mirror<E> {
    /// What the pair does.
    pub(crate) fn mode(&self) -> Mode {
        self.mode.get()
    }

    /// Takes over what the counting configuration asks for.
    pub(crate) fn set_mode(&self, mode: Mode) {
        if self.mode.replace(mode) != mode {
            self.wake.notify();
        }
    }

    /// Whether the secondary has the newest version of every block.
    pub(crate) fn is_reversed(&self) -> bool {
        matches!(self.mode.get(), Mode::Reversed | Mode::Returning)
    }

    /// Reads whole blocks of a byte range.
    pub(crate) async fn read(
        &self,
        home: &VolumeRt<E>,
        range: Range<u64>,
    ) -> Result<Vec<Buf>, IoError> {
        let blocks = range.start / BLOCK_SIZE..range.end / BLOCK_SIZE;
        match self.read_newest(home, blocks.clone()).await {
            Ok(bufs) => Ok(bufs),
            Err(_) => self.read_block_by_block(home, blocks).await,
        }
    }

    /// Reads blocks on the side that has the newest version of each.
    async fn read_newest(
        &self,
        home: &VolumeRt<E>,
        blocks: Range<u64>,
    ) -> Result<Vec<Buf>, IoError> {
        if self.is_reversed() {
            return self.pair.read(blocks).await;
        }
        home.read_home(blocks.start * BLOCK_SIZE..blocks.end * BLOCK_SIZE).await
    }

    /// The side with the newest versions could not give all of these blocks: those that are not marked are the same on the other.
    async fn read_block_by_block(
        &self,
        home: &VolumeRt<E>,
        blocks: Range<u64>,
    ) -> Result<Vec<Buf>, IoError> {
        let mut bufs = Vec::new();
        for block in blocks {
            let one = block..block + 1;
            let read = match self.read_newest(home, one.clone()).await {
                Err(_) if self.pair.next_marked(one.clone()).is_none() => {
                    if self.is_reversed() {
                        home.read_home(block * BLOCK_SIZE..(block + 1) * BLOCK_SIZE).await
                    } else {
                        self.pair.read(one).await
                    }
                }
                read => read,
            };
            bufs.extend(read?);
        }
        Ok(bufs)
    }

    /// Marks what home cannot give, so that it is written there again: the secondary has it.
    pub(crate) async fn mark_lost_at_home(&self, home: &VolumeRt<E>, goes_on: &dyn Fn() -> bool) {
        const PIECE: u64 = (1 << 20) / BLOCK_SIZE;
        let end = home.report().size.div_ceil(BLOCK_SIZE);
        for first in (0..end).step_by(PIECE as usize) {
            if !goes_on() {
                return;
            }
            let piece = first..(first + PIECE).min(end);
            let bytes = |blocks: Range<u64>| blocks.start * BLOCK_SIZE..blocks.end * BLOCK_SIZE;
            let Range { start, end } = bytes(piece.clone());
            let _guard = home.lock(start, end - start, Hold::Shared).await;
            if home.read_home(start..end).await.is_ok() {
                continue;
            }
            for block in piece {
                let lost = home.read_home(bytes(block..block + 1)).await.is_err();
                if lost && self.is_reversed() {
                    self.pair.mark(block..block + 1);
                }
            }
        }
    }

    /// Writes whole blocks, with their data or as zeroes.
    pub(crate) async fn write(
        &self,
        home: &VolumeRt<E>,
        blocks: Range<u64>,
        data: Option<Buf>,
    ) -> Result<(), IoError> {
        let bytes = blocks.start * BLOCK_SIZE..blocks.end * BLOCK_SIZE;
        let here = async |data: Option<Buf>| match data {
            Some(data) => home.write_home(bytes.start, data).await,
            None => home.zero_home(bytes.clone()).await,
        };
        self.leaving.changed.wait_until(|| !self.leaving.under_way.get()).await;
        let mode = self.mode.get();
        match mode {
            _ if self.leaving.done.get() => here(data).await,
            Mode::Follows => here(data).await,
            Mode::Reversed => match self.pair.put(blocks, data.clone()).await {
                Err(_) if (self.on_broken)().await => here(data).await,
                stored => stored,
            },
            Mode::Syncing => {
                let there = self.pair.put(blocks.clone(), data.clone());
                let (here, there) = both(here(data), there).await;
                if here.is_ok() && there.is_ok() {
                    self.made_equal(blocks);
                }
                // The bit is set: the secondary is made equal later.
                here
            }
            Mode::Returning => {
                let there = self.pair.put(blocks.clone(), data.clone());
                let (here, there) = both(here(data), there).await;
                match (here, there) {
                    (Ok(()), Ok(())) => self.made_equal(blocks),
                    // The bit is set: home is written again later.
                    (Err(_), Ok(())) => {}
                    (Ok(()), Err(error)) => {
                        self.only_home_has(blocks.clone());
                        if !(self.on_broken)().await {
                            self.differ(blocks);
                            return Err(error);
                        }
                    }
                    (Err(_), Err(error)) => return Err(error),
                }
                Ok(())
            }
        }
    }

    /// Makes what hosts wrote durable.
    pub(crate) async fn flush(&self, home: &VolumeRt<E>) -> Result<(), IoError> {
        let flushed = match self.mode.get() {
            Mode::Follows | Mode::Syncing => return home.group().flush().await,
            Mode::Reversed => self.pair.flush().await,
            // Rule B5: what is home is home for good, however safe the secondary is.
            Mode::Returning => self.settle_home(home).await,
        };
        match flushed {
            Err(_) if (self.on_broken)().await => home.group().flush().await,
            flushed => flushed,
        }
    }

    /// The secondary takes no more: lets the primary go on alone by `commit`, which answers whether that counts, if home has the newest version of every
    /// block. Hosts' writes wait meanwhile, so that none is on the secondary alone.
    pub(crate) async fn leave(
        &self,
        home: &VolumeRt<E>,
        commit: impl Future<Output = bool>,
    ) -> bool {
        if self.leaving.under_way.get() {
            self.leaving.changed.wait_until(|| !self.leaving.under_way.get()).await;
            return self.leaving.done.get();
        }
        if self.differing() > 0 {
            return false;
        }
        self.leaving.under_way.set(true);
        let left = home.group().flush().await.is_ok() && self.differing() == 0 && commit.await;
        self.leaving.done.set(left);
        self.leaving.under_way.set(false);
        self.leaving.changed.notify();
        left
    }
}
