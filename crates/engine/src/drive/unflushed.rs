//! What was written to a disk and not flushed yet.
//!
//! Owns [`Unflushed`], a set of byte ranges. Invariant: it holds exactly what was added, in space for at most twice as many ranges as there
//! are apart from each other (and [`FEW`]), however often the same blocks are written: a host may never flush.

/// Ranges that are kept as they came.
const FEW: usize = 4096;

/// Ranges of bytes, as (address, length).
#[derive(Default)]
pub(super) struct Unflushed {
    ranges: Vec<(u64, u64)>,
    /// Ranges that were left when they were last put together.
    apart: usize,
}

impl Unflushed {
    pub(super) fn add(&mut self, address: u64, len: u64) {
        match self.ranges.last_mut() {
            Some((at, l)) if *at + *l == address => *l += len,
            _ => self.ranges.push((address, len)),
        }
        if self.ranges.len() >= FEW.max(2 * self.apart) {
            put_together(&mut self.ranges);
            self.apart = self.ranges.len();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// All ranges; none are left.
    pub(super) fn take(&mut self) -> Vec<(u64, u64)> {
        self.apart = 0;
        std::mem::take(&mut self.ranges)
    }
}

/// Sorts ranges and joins those that overlap or touch.
fn put_together(ranges: &mut Vec<(u64, u64)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let joined = next.0 <= last.0 + last.1;
        if joined {
            last.1 = last.1.max(next.0 + next.1 - last.0);
        }
        joined
    });
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn rewriting_the_same_blocks_takes_no_more_room_and_forgets_none() {
        let mut unflushed = Unflushed::default();
        let mut expected = BTreeSet::new();
        let mut state = 1u64;
        for _ in 0..20 * FEW {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (block, count) = ((state >> 33) % 1000, 1 + (state >> 60) % 3);
            // Every third block, so that some stay apart.
            unflushed.add(block * 3 * 4096, count * 4096);
            expected.extend(block * 3..block * 3 + count);
            assert!(unflushed.ranges.len() <= FEW);
        }
        let ranges = unflushed.take();
        let blocks = ranges.iter().flat_map(|(at, len)| at / 4096..(at + len) / 4096);
        assert_eq!(blocks.collect::<BTreeSet<u64>>(), expected);
        assert!(unflushed.is_empty());
    }

    #[test]
    fn only_what_touches_is_joined() {
        let mut ranges = vec![(40, 5), (0, 10), (10, 5), (12, 1), (20, 10), (25, 15)];
        put_together(&mut ranges);
        assert_eq!(ranges, [(0, 15), (20, 25)]);
    }
}
