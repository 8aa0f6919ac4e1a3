//! Entries of a log of redirected blocks (rules B3, B4).
//!
//! Owns where the table, the payload, the index and the marks lie in a log's space, and their bytes. Invariant: an entry and a mark lie inside
//! one 512-byte sector, so a torn write gives old or new ones and never half of one. A mark comes first, then the table's pages, one entry for
//! each slot, then the slots, 4 KiB each, numbered from 1, then the index, which is as large as the table, and the mark once more. What
//! they mean for reads is the shield's matter.

use super::codec::{Reader, Writer, crc32c, is_sealed, seal};
use crate::ids::BLOCK_SIZE;

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 64;
/// Entries in a page of the table.
pub const ENTRIES_PER_PAGE: u64 = BLOCK_SIZE / ENTRY_LEN as u64;

/// Bytes of a mark.
pub const MARK_LEN: usize = 32;
/// Places of the mark.
pub const MARKS: u64 = 2;

/// Where the checksum of an entry stands, and of a mark.
pub const CRC_IN_ENTRY: usize = 0;

/// What an entry says of its block.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EntryKind {
    /// The slot holds the block.
    Data,
    /// The block is zeroes; the slot holds nothing.
    Zero,
    /// Home is newer: whatever the log says of the block up to this sequence counts no more.
    Cleared,
    /// Nothing that counts stands in the slot.
    Nothing,
}

/// One entry of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LogEntry {
    /// What it says.
    pub kind: EntryKind,
    /// The log's identity.
    pub log: u64,
    /// The volume.
    pub volume: u32,
    /// The block of the volume, in units of 4 KiB.
    pub block: u64,
    /// Orders the entries of a log.
    pub sequence: u64,
    /// Entries up to this sequence, and their payload, were durable everywhere when this one was written.
    pub durable: u64,
    /// CRC-32C of the payload.
    pub payload: u32,
}

impl LogEntry {
    /// What is written where no entry stands: other bytes than these and an entry are damage.
    #[must_use]
    pub fn nothing(log: u64) -> Self {
        let kind = EntryKind::Nothing;
        Self { kind, log, volume: 0, block: 0, sequence: 0, durable: 0, payload: 0 }
    }

    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let kind = match self.kind {
            EntryKind::Data => 1,
            EntryKind::Zero => 2,
            EntryKind::Cleared => 3,
            EntryKind::Nothing => 4,
        };
        let mut w = Writer::new();
        w.u32(0).u32(self.payload).u8(kind).bytes(&[0; 3]).u32(self.volume);
        w.u64(self.log).u64(self.block).u64(self.sequence).u64(self.durable);
        let mut bytes = [0; ENTRY_LEN];
        let fields = w.finish();
        bytes[..fields.len()].copy_from_slice(&fields);
        seal(&mut bytes, CRC_IN_ENTRY);
        bytes
    }

    /// The entry in `bytes`, if it is whole and belongs to the log `log`.
    #[must_use]
    pub fn decode(bytes: &[u8], log: u64) -> Option<Self> {
        if bytes.len() != ENTRY_LEN || !is_sealed(bytes, CRC_IN_ENTRY) {
            return None;
        }
        let mut r = Reader::new(bytes);
        r.u32().ok()?;
        let payload = r.u32().ok()?;
        let kind = match r.u8().ok()? {
            1 => EntryKind::Data,
            2 => EntryKind::Zero,
            3 => EntryKind::Cleared,
            4 => EntryKind::Nothing,
            _ => return None,
        };
        r.bytes(3).ok()?;
        let volume = r.u32().ok()?;
        let (of, block) = (r.u64().ok()?, r.u64().ok()?);
        let (sequence, durable) = (r.u64().ok()?, r.u64().ok()?);
        (of == log && log != 0).then_some(Self {
            kind,
            log,
            volume,
            block,
            sequence,
            durable,
            payload,
        })
    }
}

/// What is known to be durable of a log: written by a flush before it is answered, in both places.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LogMark {
    /// The log's identity.
    pub log: u64,
    /// Entries up to this sequence, and their payload, are durable everywhere.
    pub durable: u64,
    /// Each slot below has an entry in the index, or is told there to have none.
    pub fresh: u64,
}

impl LogMark {
    /// The mark's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; MARK_LEN] {
        let mut w = Writer::new();
        w.u32(0).bytes(&[0; 4]).u64(self.log).u64(self.durable).u64(self.fresh);
        let mut bytes = [0; MARK_LEN];
        bytes.copy_from_slice(&w.finish());
        seal(&mut bytes, CRC_IN_ENTRY);
        bytes
    }

    /// The mark in `bytes`, if it is whole and belongs to the log `log`.
    #[must_use]
    pub fn decode(bytes: &[u8], log: u64) -> Option<Self> {
        if bytes.len() != MARK_LEN || !is_sealed(bytes, CRC_IN_ENTRY) {
            return None;
        }
        let mut r = Reader::new(bytes);
        r.bytes(8).ok()?;
        let (of, durable, fresh) = (r.u64().ok()?, r.u64().ok()?, r.u64().ok()?);
        (of == log && log != 0).then_some(Self { log, durable, fresh })
    }
}

/// The checksum of a slot's payload.
#[must_use]
pub fn payload_crc(payload: &[u8]) -> u32 {
    crc32c(payload)
}

/// Where things lie in a log's space of `blocks` blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LogShape {
    /// Slots, numbered from 1.
    pub slots: u64,
    /// Pages of the table, from the start of the space.
    pub pages: u64,
}

impl LogShape {
    /// The shape of a log in `blocks` blocks of 4 KiB; `None` if there is no room for a single slot and what belongs to it.
    #[must_use]
    pub fn of(blocks: u64) -> Option<Self> {
        let blocks = blocks.saturating_sub(MARKS);
        let slots = (u128::from(blocks) * u128::from(ENTRIES_PER_PAGE)
            / u128::from(ENTRIES_PER_PAGE + 2)) as u64;
        let pages = slots.div_ceil(ENTRIES_PER_PAGE);
        let slots = slots.min(blocks.saturating_sub(2 * pages));
        let pages = slots.div_ceil(ENTRIES_PER_PAGE);
        (slots > 0).then_some(Self { slots, pages })
    }

    /// Byte offset of a page of the table.
    #[must_use]
    pub fn table(&self, page: u64) -> u64 {
        debug_assert!(page < self.pages);
        (1 + page) * BLOCK_SIZE
    }

    /// Byte offset of a slot's payload.
    #[must_use]
    pub fn payload(&self, slot: u64) -> u64 {
        debug_assert!((1..=self.slots).contains(&slot));
        (self.pages + slot) * BLOCK_SIZE
    }

    /// Byte offset of a page of the index.
    #[must_use]
    pub fn index(&self, page: u64) -> u64 {
        debug_assert!(page < self.pages);
        (1 + self.pages + self.slots + page) * BLOCK_SIZE
    }

    /// Byte offsets of the mark.
    #[must_use]
    pub fn marks(&self) -> [u64; MARKS as usize] {
        [0, (1 + 2 * self.pages + self.slots) * BLOCK_SIZE]
    }

    /// The page that holds a slot's entry.
    #[must_use]
    pub fn page_of(slot: u64) -> u64 {
        (slot - 1) / ENTRIES_PER_PAGE
    }

    /// The slots whose entries a page holds.
    #[must_use]
    pub fn slots_of(&self, page: u64) -> std::ops::Range<u64> {
        page * ENTRIES_PER_PAGE + 1..((page + 1) * ENTRIES_PER_PAGE + 1).min(self.slots + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> LogEntry {
        LogEntry {
            kind: EntryKind::Data,
            log: 9,
            volume: 3,
            block: 1 << 40,
            sequence: 17,
            durable: 16,
            payload: 0xdead_beef,
        }
    }

    #[test]
    fn an_entry_is_read_as_written_and_any_flipped_bit_is_seen() {
        let bytes = entry().encode();
        assert_eq!(LogEntry::decode(&bytes, 9), Some(entry()));
        assert_eq!(LogEntry::decode(&bytes, 8), None, "another log's");
        assert_eq!(LogEntry::decode(&[0; ENTRY_LEN], 9), None, "never written");
        for bit in 0..ENTRY_LEN * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(LogEntry::decode(&bad, 9), None, "bit {bit}");
        }
    }

    #[test]
    fn a_mark_is_read_as_written_and_any_flipped_bit_is_seen() {
        let mark = LogMark { log: 9, durable: 17, fresh: 12 };
        let bytes = mark.encode();
        assert_eq!(LogMark::decode(&bytes, 9), Some(mark));
        assert_eq!(LogMark::decode(&bytes, 8), None, "another log's");
        assert_eq!(LogMark::decode(&[0; MARK_LEN], 9), None, "never written");
        for bit in 0..MARK_LEN * 8 {
            let mut bad = bytes;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(LogMark::decode(&bad, 9), None, "bit {bit}");
        }
    }

    #[test]
    fn slots_and_their_table_fit_the_space() {
        (0..5).for_each(|blocks| assert_eq!(LogShape::of(blocks), None));
        for blocks in (5..5000).chain([1 << 40, u64::MAX / BLOCK_SIZE]) {
            let shape = LogShape::of(blocks).expect("room for a slot");
            let used = shape.marks()[1] / BLOCK_SIZE + 1;
            assert!(used <= blocks && blocks - used <= 3, "{blocks}: nothing is wasted");
            assert!(shape.slots_of(shape.pages - 1).contains(&shape.slots));
            let (last, next) = (shape.table(shape.pages - 1), shape.payload(1));
            assert_eq!(
                (shape.marks()[0], shape.table(0), last + BLOCK_SIZE),
                (0, BLOCK_SIZE, next)
            );
            assert_eq!(shape.payload(shape.slots) + BLOCK_SIZE, shape.index(0));
            assert_eq!(shape.index(shape.pages - 1) + BLOCK_SIZE, shape.marks()[1]);
            assert_eq!(LogShape::page_of(shape.slots), shape.pages - 1);
        }
    }
}
