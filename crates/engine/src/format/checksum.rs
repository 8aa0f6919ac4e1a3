//! Checksums of blocks (rules K1, K2).
//!
//! Owns what a checksum is computed over and how a page of them stands on disk. Invariants: a checksum names the group, the slot and the block
//! it belongs to, so that a block that landed elsewhere does not fit there; [`UNKNOWN`] is never the checksum of anything. A page
//! carries no checksum of its own: each of its sectors may be older or newer than the others (rule K1).

use super::codec::Crc32c;
use crate::buf::Buf;
use crate::ids::{BLOCK_SIZE, Slot, Uuid};

/// Stands for a checksum that nobody knows: the page that held it could not be read.
pub const UNKNOWN: u32 = 0;
/// What a block has whose checksum would be [`UNKNOWN`].
const INSTEAD: u32 = 1;
/// Checksums of one page.
pub const PER_PAGE: usize = BLOCK_SIZE as usize / super::layout::CHECKSUM_LEN as usize;

/// One page of checksums in memory.
pub type Sums = Box<[u32; PER_PAGE]>;

/// What every checksum of one slot begins with.
#[derive(Clone, Copy)]
pub struct Seed(Crc32c);

impl Seed {
    /// The seed of `slot` in `group`.
    #[must_use]
    pub fn new(group: Uuid, slot: Slot) -> Self {
        Self(Crc32c::new().update(&group.0).update(&[slot.0]))
    }

    /// The checksum of `block`, a member address / 4096, that holds `data`.
    #[must_use]
    pub fn of(self, block: u64, data: &[u8]) -> u32 {
        match self.0.update(&block.to_le_bytes()).update(data).finish() {
            UNKNOWN => INSTEAD,
            sum => sum,
        }
    }
}

/// A page in which nothing is known.
#[must_use]
pub fn unknown() -> Sums {
    Box::new([UNKNOWN; PER_PAGE])
}

/// A page as read.
///
/// # Panics
/// If `bytes` is no whole page.
#[must_use]
pub fn decode(bytes: &[u8]) -> Sums {
    assert_eq!(bytes.len() as u64, BLOCK_SIZE, "a page of checksums");
    let mut sums = unknown();
    for (sum, bytes) in sums.iter_mut().zip(bytes.chunks_exact(4)) {
        *sum = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    }
    sums
}

/// The bytes of pages that follow each other.
#[must_use]
pub fn encode<'a>(pages: impl ExactSizeIterator<Item = &'a Sums>) -> Buf {
    let mut buf = Buf::scratch(pages.len() * BLOCK_SIZE as usize);
    for (page, bytes) in pages.zip(buf.bytes_mut().chunks_exact_mut(BLOCK_SIZE as usize)) {
        for (sum, bytes) in page.iter().zip(bytes.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&sum.to_le_bytes());
        }
    }
    buf
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: Uuid = Uuid([7; 16]);

    #[test]
    fn a_checksum_fits_one_block_of_one_slot_of_one_group() {
        let data = [5; 4096];
        let sum = Seed::new(GROUP, Slot(2)).of(9, &data);
        assert_eq!(sum, Seed::new(GROUP, Slot(2)).of(9, &data));
        assert_ne!(sum, Seed::new(GROUP, Slot(2)).of(10, &data));
        assert_ne!(sum, Seed::new(GROUP, Slot(3)).of(9, &data));
        assert_ne!(sum, Seed::new(Uuid([8; 16]), Slot(2)).of(9, &data));
        let mut whole = GROUP.0.to_vec();
        whole.push(2);
        whole.extend(9_u64.to_le_bytes());
        whole.extend(data);
        assert_eq!(sum, crate::format::codec::crc32c(&whole), "as the format's document says");
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let seed = Seed::new(GROUP, Slot(0));
        let mut data = [0xA5; 4096];
        let sum = seed.of(1, &data);
        for bit in (0..4096 * 8).step_by(7) {
            data[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(seed.of(1, &data), sum);
            data[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn pages_come_back_as_they_were() {
        let mut pages = [unknown(), unknown()];
        for (i, sum) in pages.iter_mut().flat_map(|page| page.iter_mut()).enumerate() {
            *sum = 0x0101_0101 * (i as u32 % 251) + i as u32;
        }
        let bytes = encode(pages.iter());
        assert_eq!(decode(&bytes[..4096]), pages[0]);
        assert_eq!(decode(&bytes[4096..]), pages[1]);
    }
}
