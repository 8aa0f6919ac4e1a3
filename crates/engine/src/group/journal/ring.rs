//! Where frames go in the journal of one drive, and which batches are still needed.
//!
//! Owns two pieces of pure bookkeeping: [`Ring`], the space of one drive's journal, and [`Batches`], what is in flight. Invariants (rule J3): space is
//! handed out again only when a tail past its frame is durable; the tail never passes a batch whose writes in place are not flushed.

use std::collections::{BTreeMap, VecDeque};

/// The blocks of one drive's journal behind its two opening places.
#[derive(Debug)]
pub(super) struct Ring {
    blocks: u64,
    head: u64,
    /// Frames that may be needed, oldest first: batch, first block, number of blocks.
    frames: VecDeque<(u64, u64, u64)>,
}

impl Ring {
    pub(super) fn new(blocks: u64) -> Self {
        Self { blocks, head: 0, frames: VecDeque::new() }
    }

    /// Finds room for a frame of `len` blocks in one piece, without taking it.
    fn room(&self, len: u64) -> Option<u64> {
        let Some(&(_, oldest, _)) = self.frames.front() else {
            return (len <= self.blocks).then_some(if self.head + len <= self.blocks {
                self.head
            } else {
                0
            });
        };
        if self.head > oldest {
            if self.head + len <= self.blocks {
                return Some(self.head);
            }
            return (len <= oldest).then_some(0);
        }
        (self.head + len <= oldest).then_some(self.head)
    }

    /// Whether a frame of `len` blocks fits now.
    pub(super) fn fits(&self, len: u64) -> bool {
        self.room(len).is_some()
    }

    /// Takes room for a frame of `batch`; answers its first block.
    pub(super) fn take(&mut self, batch: u64, len: u64) -> Option<u64> {
        let at = self.room(len)?;
        self.head = at + len;
        self.frames.push_back((batch, at, len));
        Some(at)
    }

    /// A tail is durable: frames of earlier batches are needed no more.
    pub(super) fn release(&mut self, tail: u64) {
        while self.frames.front().is_some_and(|(batch, ..)| *batch < tail) {
            self.frames.pop_front();
        }
    }
}

/// What is known of the batches of one start.
#[derive(Debug)]
pub(super) struct Batches {
    /// The number of the next batch.
    next: u64,
    /// Batches below are durable in place.
    tail: u64,
    /// Batches from the tail on: writes in place that have not ended, and the pieces they were made of.
    open: BTreeMap<u64, (u32, usize)>,
}

impl Batches {
    pub(super) fn new() -> Self {
        Self { next: 1, tail: 1, open: BTreeMap::new() }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Pieces that a crash now would have to replay.
    pub(super) fn pieces(&self) -> usize {
        self.open.values().map(|(_, pieces)| pieces).sum()
    }

    /// A batch of `records` made of `pieces` is durable: their writes in place begin.
    pub(super) fn begin(&mut self, records: u32, pieces: usize) -> u64 {
        let batch = self.next;
        self.next += 1;
        self.open.insert(batch, (records, pieces));
        batch
    }

    /// A batch came to nothing; its number is not used again.
    pub(super) fn skip(&mut self) {
        self.next += 1;
    }

    /// The writes in place of one record of `batch` have ended.
    pub(super) fn end(&mut self, batch: u64) {
        if let Some((records, _)) = self.open.get_mut(&batch) {
            *records -= 1;
        }
    }

    /// The first batch that a flush beginning now does not cover.
    pub(super) fn settled(&self) -> u64 {
        self.open.iter().find(|(_, (records, _))| *records > 0).map_or(self.next, |(at, _)| *at)
    }

    /// A flush that began when [`Batches::settled`] was `settled` succeeded.
    pub(super) fn flushed(&mut self, settled: u64) {
        self.tail = self.tail.max(settled);
        self.open = self.open.split_off(&self.tail);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_tail_waits_for_the_writes_and_then_for_their_flush() {
        let mut batches = Batches::new();
        assert_eq!((batches.begin(2, 4), batches.begin(1, 2)), (1, 2));
        assert_eq!((batches.settled(), batches.pieces()), (1, 6));
        batches.end(2);
        assert_eq!(batches.settled(), 1, "the first is still being written");
        batches.end(1);
        batches.end(1);
        let covered = batches.settled();
        assert_eq!((covered, batches.tail()), (3, 1));
        assert_eq!(batches.begin(1, 2), 3);
        batches.flushed(covered);
        assert_eq!(
            (batches.tail(), batches.pieces()),
            (3, 2),
            "the third came after the flush began"
        );
        batches.skip();
        assert_eq!(batches.next(), 5);
    }

    #[test]
    fn a_full_ring_refuses_until_the_tail_is_durable() {
        let mut ring = Ring::new(10);
        assert_eq!(ring.take(1, 4), Some(0));
        assert_eq!(ring.take(2, 4), Some(4));
        assert!(!ring.fits(3), "two blocks are left at the end and none at the start");
        assert_eq!(ring.take(3, 2), Some(8));
        assert!(!ring.fits(1));
        ring.release(2);
        assert_eq!(ring.take(4, 4), Some(0));
        assert!(!ring.fits(1));
        ring.release(9);
        assert_eq!(ring.take(5, 10), Some(0));
        ring.release(6);
        assert!(!ring.fits(11));
    }

    proptest! {
        #[test]
        fn live_frames_never_overlap(steps in proptest::collection::vec((1_u64..6, 0_u64..4), 1..200)) {
            let mut ring = Ring::new(16);
            let mut tail = 0;
            for (batch, (len, released)) in steps.into_iter().enumerate() {
                tail = (tail + released).min(batch as u64);
                ring.release(tail);
                let room = ring.fits(len);
                prop_assert_eq!(ring.take(batch as u64, len).is_some(), room);
                let mut taken = [false; 16];
                for (_, at, len) in &ring.frames {
                    for block in *at..at + len {
                        prop_assert!(!std::mem::replace(&mut taken[block as usize], true));
                    }
                }
            }
        }
    }
}
