//! Seeded random numbers.
//!
//! Owns [`Rng`], the only source of chance in a simulation. Invariant: the numbers depend on the seed and the stream
//! alone, never on the machine, so one seed replays a whole run. Each part of a simulation draws from a stream of its
//! own, so that a change in one part disturbs the others as little as possible.

use std::ops::Range;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// A seeded stream of random numbers (ChaCha8).
#[derive(Clone, Debug)]
pub struct Rng(ChaCha8Rng);

impl Rng {
    /// The stream numbered `stream` of `seed`.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut inner = ChaCha8Rng::seed_from_u64(seed);
        inner.set_stream(stream);
        Self(inner)
    }

    /// Any 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, near enough uniform for a simulation.
    ///
    /// # Panics
    /// If `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below zero");
        ((u128::from(self.0.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `range`.
    ///
    /// # Panics
    /// If the range is empty.
    pub fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }

    /// An index below `len`.
    ///
    /// # Panics
    /// If `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// True `percent` times in a hundred.
    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// True or false.
    pub fn coin(&mut self) -> bool {
        self.0.next_u32() & 1 == 1
    }

    /// One of `items`.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.index(items.len())]
    }

    /// A number in `1..=most` whose logarithm is near enough uniform: small ones are as common as large ones.
    ///
    /// # Panics
    /// If `most` is 0.
    pub fn log_scaled(&mut self, most: u64) -> u64 {
        let bits = u64::from(64 - most.leading_zeros());
        let bound = 1u64.checked_shl(self.below(bits) as u32 + 1).unwrap_or(u64::MAX);
        1 + self.below(bound.min(most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ() {
        let draw = |seed, stream| {
            let mut rng = Rng::new(seed, stream);
            (0..8).map(|_| rng.word()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, 1), draw(7, 1));
        assert_ne!(draw(7, 1), draw(7, 2));
        assert_ne!(draw(7, 1), draw(8, 1));
    }

    #[test]
    fn bounds_hold() {
        let mut rng = Rng::new(1, 0);
        for most in [1, 2, 3, 1000, u64::MAX] {
            for _ in 0..200 {
                let n = rng.log_scaled(most);
                assert!(n >= 1 && n <= most);
                assert!(rng.below(most) < most);
            }
        }
        assert!(!rng.percent(0));
        assert!(rng.percent(100));
    }
}
