//! Where the regions of a disk of format 1 lie.
//!
//! Owns the sizes and the order of the regions. Invariants of every [`Layout`], computed or read from a label: regions are multiples of
//! [`BLOCK_SIZE`], lie inside the disk and do not overlap. What stands in a region is left to the modules beside this one.

use thiserror::Error;

use super::page::PAGE_BITS;
use crate::ids::BLOCK_SIZE;
use crate::words;

/// Smallest disk that can be labelled, in bytes.
pub const DISK_SIZE_MIN: u64 = 2 << 20;
/// Largest disk, in bytes: 2^60, so that no sum of sizes overflows.
pub const DISK_SIZE_MAX: u64 = 1 << 60;
/// Disks below this size get the small regions.
pub const SMALL_DISK: u64 = 64 << 20;
/// The data space is a whole number of these.
pub const DATA_UNIT: u64 = 64 << 10;
/// Bytes of data space that a bit of the unwritten map's region stands for.
pub const UNWRITTEN_UNIT: u64 = 64 << 10;
/// Bytes of one checksum.
pub const CHECKSUM_LEN: u64 = 4;

const MIB: u64 = 1 << 20;
/// Smallest journal region.
pub const JOURNAL_MIN: u64 = 64 << 10;
/// Largest journal region: what a start after a crash reads of each member at most.
pub const JOURNAL_MAX: u64 = 8 * MIB;

/// A range of a disk, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Region {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub len: u64,
}

impl Region {
    /// First byte behind the region.
    #[must_use]
    pub fn end(self) -> u64 {
        self.offset + self.len
    }

    /// Number of blocks of [`BLOCK_SIZE`].
    #[must_use]
    pub fn blocks(self) -> u64 {
        self.len / BLOCK_SIZE
    }

    /// Offset on the disk of the block numbered `index` inside the region.
    ///
    /// # Panics
    /// If the region has no such block.
    #[must_use]
    pub fn block(self, index: u64) -> u64 {
        assert!(index < self.blocks(), "block {index} of a region of {}", self.blocks());
        self.offset + index * BLOCK_SIZE
    }
}

/// The regions of one disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// The label: the first block.
    pub label: Region,
    /// The label's copy: the last whole block.
    pub label_copy: Region,
    /// The owner's beat (rule C6), a block of its own.
    pub owner: Region,
    /// The two configuration slots (rule C1).
    pub config: [Region; 2],
    /// The ring of the event log.
    pub events: Region,
    /// Intent map, two places (rules M1, M2).
    pub intent: [Region; 2],
    /// Unwritten map, two places (rules M1, M6).
    pub unwritten: [Region; 2],
    /// Lost blocks, two places (rules M1, M5).
    pub lost: [Region; 2],
    /// Copy cursors, two places (rules M1, A2).
    pub cursors: [Region; 2],
    /// Differential bitmap, two places (rules M1, B2).
    pub differential: [Region; 2],
    /// Checksums of the data space (rules K).
    pub checksums: Region,
    /// The journal (rules J).
    pub journal: Region,
    /// The data space.
    pub data: Region,
}

/// The disk has no room for its regions and any data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error(
    "the disk has {}; a disk of an array needs {} to {}",
    words::exact(*.size), words::exact(DISK_SIZE_MIN), words::exact(DISK_SIZE_MAX)
)]
pub struct TooSmall {
    /// The disk's size in bytes.
    pub size: u64,
}

/// Hands out regions one behind the other.
struct Cursor(u64);

impl Cursor {
    fn take(&mut self, len: u64) -> Region {
        let region = Region { offset: self.0, len };
        self.0 = region.end();
        region
    }

    fn pair(&mut self, len: u64) -> [Region; 2] {
        [self.take(len), self.take(len)]
    }
}

impl Layout {
    /// The regions of a disk of `disk_size` bytes; a tail shorter than a block is not used.
    ///
    /// Maps and checksums are sized for the whole disk, a little more than the data space needs, so that no size depends on another.
    ///
    /// # Errors
    /// If the disk is smaller than [`DISK_SIZE_MIN`] or larger than [`DISK_SIZE_MAX`].
    pub fn for_size(disk_size: u64) -> Result<Self, TooSmall> {
        if !(DISK_SIZE_MIN..=DISK_SIZE_MAX).contains(&disk_size) {
            return Err(TooSmall { size: disk_size });
        }
        let small = disk_size < SMALL_DISK;
        let pages_for = |bits: u64| bits.div_ceil(PAGE_BITS as u64) * BLOCK_SIZE;
        let mut at = Cursor(0);
        let label = at.take(BLOCK_SIZE);
        let owner = at.take(BLOCK_SIZE);
        let config = at.pair(if small { 16 << 10 } else { 256 << 10 });
        let events = at.take(if small { 16 << 10 } else { 256 << 10 });
        let intent = at.pair(if small { 1 } else { 16 } * BLOCK_SIZE);
        let unwritten = at.pair(pages_for(disk_size.div_ceil(UNWRITTEN_UNIT)));
        let lost = at.pair(if small { 2 } else { 16 } * BLOCK_SIZE);
        let cursors = at.pair(BLOCK_SIZE);
        let differential = at.pair(pages_for(disk_size.div_ceil(BLOCK_SIZE)));
        let checksums =
            at.take((disk_size.div_ceil(BLOCK_SIZE) * CHECKSUM_LEN).next_multiple_of(BLOCK_SIZE));
        let journal =
            at.take((disk_size / 64).clamp(JOURNAL_MIN, JOURNAL_MAX).next_multiple_of(BLOCK_SIZE));
        let label_copy =
            Region { offset: (disk_size / BLOCK_SIZE - 1) * BLOCK_SIZE, len: BLOCK_SIZE };
        let data_start = at.0.next_multiple_of(if small { DATA_UNIT } else { MIB });
        let data_len = label_copy.offset.saturating_sub(data_start) / DATA_UNIT * DATA_UNIT;
        assert!(data_len > 0, "the smallest disk has room for data");
        let data = Region { offset: data_start, len: data_len };
        Ok(Self {
            label,
            label_copy,
            owner,
            config,
            events,
            intent,
            unwritten,
            lost,
            cursors,
            differential,
            checksums,
            journal,
            data,
        })
    }

    /// Offset of the label's copy on a disk of `disk_size` bytes, if it has room for one.
    #[must_use]
    pub fn label_copy_offset(disk_size: u64) -> Option<u64> {
        (disk_size / BLOCK_SIZE).checked_sub(1).map(|block| block * BLOCK_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::label::named_regions;

    fn sizes() -> Vec<u64> {
        let mut sizes = vec![DISK_SIZE_MIN, DISK_SIZE_MIN + 1, 3 << 20, 4 << 20, 4_100_000];
        sizes.extend([SMALL_DISK - 1, SMALL_DISK, SMALL_DISK + 4095, 18_000_000_000]);
        sizes.extend([16 << 40, 1 << 50, DISK_SIZE_MAX]);
        sizes
    }

    #[test]
    fn regions_are_aligned_inside_the_disk_and_apart() {
        for size in sizes() {
            let layout = Layout::for_size(size).unwrap();
            let mut regions: Vec<Region> =
                named_regions(&layout).into_iter().map(|(.., region)| region).collect();
            regions.sort_by_key(|region| region.offset);
            for region in &regions {
                assert!(region.offset.is_multiple_of(BLOCK_SIZE) && region.end() <= size);
                assert!(region.len > 0 && region.len.is_multiple_of(BLOCK_SIZE));
            }
            for pair in regions.windows(2) {
                assert!(pair[0].end() <= pair[1].offset, "{pair:?} on {size}");
            }
        }
    }

    #[test]
    fn the_maps_cover_the_data_space() {
        for size in sizes() {
            let layout = Layout::for_size(size).unwrap();
            let blocks = layout.data.len / BLOCK_SIZE;
            assert!(layout.differential[0].blocks() * PAGE_BITS as u64 >= blocks);
            assert!(layout.checksums.len / CHECKSUM_LEN >= blocks);
            let units = layout.data.len / UNWRITTEN_UNIT;
            assert!(layout.unwritten[1].blocks() * PAGE_BITS as u64 >= units);
            let align = if size < SMALL_DISK { DATA_UNIT } else { MIB };
            assert!(layout.data.offset.is_multiple_of(align));
            assert!(layout.data.len.is_multiple_of(DATA_UNIT));
        }
    }

    #[test]
    fn regions_take_little_of_a_large_disk() {
        let layout = Layout::for_size(16 << 40).unwrap();
        assert!(layout.data.len > (16 << 40) / 1000 * 998);
        let small = Layout::for_size(DISK_SIZE_MIN).unwrap();
        assert!(small.data.len > DISK_SIZE_MIN / 4 * 3);
    }

    #[test]
    fn disks_out_of_range_are_refused() {
        for size in [0, 1, DISK_SIZE_MIN - 1, DISK_SIZE_MAX + 1, u64::MAX] {
            assert_eq!(Layout::for_size(size), Err(TooSmall { size }));
        }
    }
}
