//! A bitmap cut into map pages.
//!
//! Owns bits in the byte order of the on-disk payload (bit `i` is bit `i % 8` of byte `i / 8`), so that a page's payload is a slice
//! of it. Which bits mean what, and when they are persisted, is left to the maps.

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
}
