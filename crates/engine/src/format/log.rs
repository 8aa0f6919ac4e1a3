//! Entries of a log of redirected blocks (rules B3, B4).
//!
//! Owns where the table and the payload lie in a log's space, and the entry's bytes. Invariant: an entry lies inside one 512-byte sector,
//! so a torn write of the table gives old or new entries and never half of one. The table's pages come first, one entry for each slot,
//! then the slots, 4 KiB each, numbered from 1. What an entry means for reads is the shield's matter.

use super::codec::{Reader, Writer, crc32c, is_sealed, seal};
use crate::ids::BLOCK_SIZE;

/// Bytes of an entry.
pub const ENTRY_LEN: usize = 64;
/// Entries in a page of the table.
pub const ENTRIES_PER_PAGE: u64 = BLOCK_SIZE / ENTRY_LEN as u64;

/// Where the checksum of an entry stands.
pub const CRC_IN_ENTRY: usize = 0;

/// What an entry says of its block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// The slot holds the block.
    Data,
    /// The block is zeroes; the slot holds nothing.
    Zero,
    /// Home is newer: whatever the log says of the block up to this sequence counts no more.
    Cleared,
}

/// One entry of the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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
    /// The entry's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_LEN] {
        let kind = match self.kind {
            EntryKind::Data => 1,
            EntryKind::Zero => 2,
            EntryKind::Cleared => 3,
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

/// The checksum of a slot's payload.
#[must_use]
pub fn payload_crc(payload: &[u8]) -> u32 {
    crc32c(payload)
}

/// Where things lie in a log's space of `blocks` blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogShape {
    /// Slots, numbered from 1.
    pub slots: u64,
    /// Pages of the table, from the start of the space.
    pub pages: u64,
}

impl LogShape {
    /// The shape of a log in `blocks` blocks of 4 KiB; `None` if there is no room for a single slot and its entry.
    #[must_use]
    pub fn of(blocks: u64) -> Option<Self> {
        let slots = (u128::from(blocks) * u128::from(ENTRIES_PER_PAGE)
            / u128::from(ENTRIES_PER_PAGE + 1)) as u64;
        let pages = slots.div_ceil(ENTRIES_PER_PAGE);
        let slots = slots.min(blocks.saturating_sub(pages));
        (slots > 0).then_some(Self { slots, pages })
    }

    /// Byte offset of a slot's payload.
    #[must_use]
    pub fn payload(&self, slot: u64) -> u64 {
        debug_assert!((1..=self.slots).contains(&slot));
        (self.pages + slot - 1) * BLOCK_SIZE
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
    fn slots_and_their_table_fit_the_space() {
        assert_eq!(LogShape::of(0), None);
        assert_eq!(LogShape::of(1), None);
        for blocks in (2..5000).chain([1 << 40, u64::MAX / BLOCK_SIZE]) {
            let shape = LogShape::of(blocks).expect("room for a slot");
            assert!(shape.pages + shape.slots <= blocks, "{blocks}");
            assert!(shape.slots_of(shape.pages - 1).contains(&shape.slots));
            assert!(blocks - shape.pages - shape.slots <= 1, "{blocks}: nothing is wasted");
            assert_eq!(LogShape::page_of(shape.slots), shape.pages - 1);
        }
    }
}
