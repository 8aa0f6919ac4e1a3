//! A bitmap cut into map pages.
//!
//! Owns bits in the byte order of the on-disk payload (bit `i` is bit `i % 8` of byte `i / 8`), so that a page's payload is a slice
//! of it. Which bits mean what, and when they are persisted, is left to the maps.

use std::ops::Range;

use crate::format::page::{PAGE_BITS, PAGE_PAYLOAD};

/// Bits of one map of a group.
#[derive(Clone)]
pub(super) struct Bitmap {
    bytes: Vec<u8>,
    len: u64,
}

impl Bitmap {
    /// `len` bits, all equal to `value`.
    pub(super) fn new(len: u64, value: bool) -> Self {
        let pages = (len as usize).div_ceil(PAGE_BITS);
        let mut bits = Self { bytes: vec![0; pages * PAGE_PAYLOAD], len };
        if value {
            let whole = (len / 8) as usize;
            bits.bytes[..whole].fill(0xff);
            (whole as u64 * 8..len).for_each(|bit| {
                bits.set(bit, true);
            });
        }
        bits
    }

    pub(super) fn pages(&self) -> usize {
        self.bytes.len() / PAGE_PAYLOAD
    }

    pub(super) fn page_of(bit: u64) -> usize {
        (bit / PAGE_BITS as u64) as usize
    }

    pub(super) fn get(&self, bit: u64) -> bool {
        debug_assert!(bit < self.len);
        self.bytes[(bit / 8) as usize] >> (bit % 8) & 1 == 1
    }

    /// Sets one bit and answers whether it changed.
    pub(super) fn set(&mut self, bit: u64, value: bool) -> bool {
        assert!(bit < self.len, "bit {bit} outside a map of {} bits", self.len);
        let byte = &mut self.bytes[(bit / 8) as usize];
        let mask = 1 << (bit % 8);
        let changed = (*byte & mask != 0) != value;
        *byte = if value { *byte | mask } else { *byte & !mask };
        changed
    }

    /// The bytes of one page's payload.
    pub(super) fn payload(&self, page: usize) -> &[u8] {
        &self.bytes[page * PAGE_PAYLOAD..][..PAGE_PAYLOAD]
    }

    /// Takes one page's payload as read; bits past the end are dropped.
    pub(super) fn load(&mut self, page: usize, payload: &[u8]) {
        self.bytes[page * PAGE_PAYLOAD..][..PAGE_PAYLOAD].copy_from_slice(payload);
        let total = self.bytes.len() as u64 * 8;
        let first_past = self.len.max((page * PAGE_BITS) as u64);
        for bit in first_past..((page + 1) * PAGE_BITS) as u64 {
            debug_assert!(bit < total);
            self.bytes[(bit / 8) as usize] &= !(1 << (bit % 8));
        }
    }

    /// Clears the bits of one page that are clear in `payload`.
    pub(super) fn keep(&mut self, page: usize, payload: &[u8]) {
        let mine = &mut self.bytes[page * PAGE_PAYLOAD..][..PAGE_PAYLOAD];
        mine.iter_mut().zip(payload).for_each(|(mine, theirs)| *mine &= theirs);
    }

    /// The runs of bits in a range that equal `value`, lowest first.
    pub(super) fn runs(&self, range: Range<u64>, value: bool) -> impl Iterator<Item = Range<u64>> {
        assert!(range.end <= self.len, "bit {} outside a map of {} bits", range.end, self.len);
        let mut at = range.start;
        std::iter::from_fn(move || {
            let start = self.next(at..range.end, value);
            at = self.next(start..range.end, !value);
            (start < at).then_some(start..at)
        })
    }

    /// The first bit of a range that equals `value`, else the range's end.
    fn next(&self, range: Range<u64>, value: bool) -> u64 {
        let unlike = if value { 0 } else { 0xff };
        let mut at = range.start;
        while at < range.end && self.get(at) != value {
            // Whole bytes at once: most of a large map is alike.
            let whole = at.is_multiple_of(8) && self.bytes[(at / 8) as usize] == unlike;
            at += if whole { 8 } else { 1 };
        }
        at.min(range.end)
    }

    /// The set bits, lowest first.
    pub(super) fn ones(&self) -> impl Iterator<Item = u64> {
        self.bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).flat_map(|(at, byte)| {
            (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at as u64 * 8 + bit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_and_pages() {
        let len = PAGE_BITS as u64 + 11;
        let mut bits = Bitmap::new(len, true);
        assert_eq!(bits.pages(), 2);
        assert_eq!(bits.ones().count() as u64, len);
        assert!(bits.set(PAGE_BITS as u64 + 3, false));
        assert!(!bits.set(PAGE_BITS as u64 + 3, false));
        assert_eq!(bits.ones().count() as u64, len - 1);
        let mut other = Bitmap::new(len, false);
        other.load(1, &[0xff; PAGE_PAYLOAD]);
        assert_eq!(other.ones().count(), 11, "bits past the end are dropped");
        other.load(0, bits.payload(0));
        assert_eq!(other.ones().count() as u64, len);
    }

    #[test]
    fn runs_of_equal_bits() {
        let mut bits = Bitmap::new(100, true);
        [3, 4, 5, 40, 99].into_iter().for_each(|bit| {
            bits.set(bit, false);
        });
        let runs = |range, value| bits.runs(range, value).collect::<Vec<_>>();
        assert_eq!(runs(0..100, true), [0..3, 6..40, 41..99]);
        assert_eq!(runs(0..100, false), [3..6, 40..41, 99..100]);
        assert_eq!(runs(4..41, false), [4..6, 40..41]);
        assert_eq!(bits.runs(8..39, true).next(), Some(8..39));
        assert_eq!(runs(8..39, false), []);
        assert_eq!(runs(7..7, true), []);
    }
}
