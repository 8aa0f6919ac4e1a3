//! The differential bits of a pair in memory: one for each block of 4 KiB, in pages that are there only where bits were ever set.
//!
//! Owns the bits and which pages changed since they were last taken to be written. Invariant: a page that was taken and could not be written
//! is given back, and is taken again. When pages are written, and what must be durable before, is left to the bitmap and its users.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::format::page::{PAGE_BITS, PAGE_PAYLOAD};

/// Bits of a page.
const BITS: u64 = PAGE_BITS as u64;

#[derive(Clone)]
struct Page {
    /// Bit `n` is bit `n % 8` of byte `n / 8`, as on disk.
    payload: Vec<u8>,
    ones: u64,
}

/// Pages as they were when they were taken.
pub(crate) type Taken = BTreeMap<u64, Vec<u8>>;

/// Bits of one pair.
#[derive(Clone)]
pub(crate) struct Bits {
    len: u64,
    pages: BTreeMap<u64, Page>,
    changed: BTreeSet<u64>,
    ones: u64,
}

impl Bits {
    /// `len` bits, none set.
    pub(crate) fn new(len: u64) -> Self {
        Self { len, pages: BTreeMap::new(), changed: BTreeSet::new(), ones: 0 }
    }

    /// Pages that hold all bits.
    pub(super) fn pages(&self) -> u64 {
        self.len.div_ceil(BITS)
    }

    /// Takes a page's payload as read; bits past the end are dropped.
    pub(crate) fn load(&mut self, page: u64, payload: &[u8]) {
        let mut payload = payload[..PAGE_PAYLOAD].to_vec();
        for bit in self.len.saturating_sub(page * BITS).min(BITS)..BITS {
            payload[(bit / 8) as usize] &= !(1 << (bit % 8));
        }
        let ones = payload.iter().map(|byte| u64::from(byte.count_ones())).sum();
        let before = self.pages.insert(page, Page { payload, ones });
        self.ones = self.ones + ones - before.map_or(0, |page| page.ones);
        self.changed.insert(page);
    }

    /// Sets or clears a range of bits; answers whether any changed.
    pub(super) fn set(&mut self, range: Range<u64>, value: bool) -> bool {
        assert!(range.end <= self.len, "bit {} outside {} bits", range.end, self.len);
        let mut any = false;
        for bit in range {
            let number = bit / BITS;
            let page = match self.pages.get_mut(&number) {
                Some(page) => page,
                None if !value => continue,
                None => {
                    let blank = Page { payload: vec![0; PAGE_PAYLOAD], ones: 0 };
                    self.pages.entry(number).or_insert(blank)
                }
            };
            let byte = &mut page.payload[(bit % BITS / 8) as usize];
            let mask = 1 << (bit % BITS % 8);
            if (*byte & mask != 0) != value {
                *byte ^= mask;
                page.ones = if value { page.ones + 1 } else { page.ones - 1 };
                self.ones = if value { self.ones + 1 } else { self.ones - 1 };
                self.changed.insert(number);
                any = true;
            }
        }
        any
    }

    /// Bits that are set.
    pub(crate) fn ones(&self) -> u64 {
        self.ones
    }

    /// The first set bit inside a range.
    pub(crate) fn next(&self, range: Range<u64>) -> Option<u64> {
        if range.is_empty() {
            return None;
        }
        for (number, page) in self.pages.range(range.start / BITS..=(range.end - 1) / BITS) {
            if page.ones == 0 {
                continue;
            }
            let base = number * BITS;
            let mut bit = range.start.max(base) - base;
            let end = (range.end - base).min(BITS);
            while bit < end {
                let byte = page.payload[(bit / 8) as usize] >> (bit % 8);
                if byte != 0 {
                    let found = bit + u64::from(byte.trailing_zeros());
                    if found < end {
                        return Some(base + found);
                    }
                    break;
                }
                bit = bit / 8 * 8 + 8;
            }
        }
        None
    }

    /// The set bits inside a range, ascending.
    pub(crate) fn inside(&self, range: Range<u64>) -> Vec<u64> {
        let mut found = Vec::new();
        let mut at = range.start;
        while let Some(bit) = self.next(at..range.end) {
            found.push(bit);
            at = bit + 1;
        }
        found
    }

    /// Whether any page changed since it was taken.
    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The pages that changed, as they are now: they are the caller's to write.
    pub(super) fn take_changed(&mut self) -> Taken {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|page| (page, self.pages[&page].payload.clone())).collect()
    }

    /// These pages were not written: they will be taken again.
    pub(super) fn give_back(&mut self, taken: &Taken) {
        self.changed.extend(taken.keys());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_found_in_order_across_pages() {
        let mut bits = Bits::new(3 * BITS + 5);
        assert_eq!(bits.pages(), 4);
        let set = [0, 7, 8, BITS - 1, BITS, 2 * BITS + 77, 3 * BITS + 4];
        for bit in set {
            assert!(bits.set(bit..bit + 1, true));
            assert!(!bits.set(bit..bit + 1, true), "it is set already");
        }
        assert_eq!(bits.inside(0..3 * BITS + 5), set);
        assert_eq!(bits.inside(1..BITS), [7, 8, BITS - 1]);
        assert_eq!(bits.inside(9..BITS - 1), []);
        assert_eq!(bits.next(5..5), None);
        assert_eq!(bits.ones(), set.len() as u64);
        assert!(bits.set(0..2 * BITS, false));
        assert_eq!(bits.inside(0..3 * BITS + 5), [2 * BITS + 77, 3 * BITS + 4]);
        assert!(!bits.set(0..2 * BITS, false), "they are clear already");
    }

    #[test]
    fn pages_are_taken_as_they_are_and_come_back_until_written() {
        let mut bits = Bits::new(2 * BITS);
        assert!(bits.take_changed().is_empty());
        bits.set(3..4, true);
        let taken = bits.take_changed();
        assert_eq!(taken.keys().copied().collect::<Vec<_>>(), [0]);
        assert_eq!(taken[&0][0], 8);
        bits.set(BITS..BITS + 1, true);
        bits.set(3..4, false);
        bits.give_back(&taken);
        let again = bits.take_changed();
        assert_eq!((again[&0][0], again[&1][0]), (0, 1), "what they are by now");
        assert!(!bits.has_changed());
    }

    #[test]
    fn a_loaded_page_counts_without_what_lies_past_the_end() {
        let mut bits = Bits::new(BITS + 11);
        bits.load(1, &[0xff; PAGE_PAYLOAD]);
        assert_eq!(bits.ones(), 11);
        assert!(bits.has_changed(), "what was read may not be durable");
    }
}
