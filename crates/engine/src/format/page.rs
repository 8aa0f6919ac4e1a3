//! Map pages of a group (rule M1): intent, unwritten, lost blocks, cursors, differential.
//!
//! Owns the page's header and the payloads that are not plain bits. Invariants: a page names its group, kind and index, so a page of a
//! deleted group or of another place is never taken for this one; of several valid copies the newest generation is believed, and copies
//! are never merged. When a page is written, and in which of its two places, is left to the maps.

use thiserror::Error;

use super::codec::{CRC_AT, CodecError, Reader, Writer, is_blank, is_sealed, seal};
use crate::buf::Buf;
use crate::ids::{BLOCK_SIZE, MEMBERS_MAX, Slot, Uuid};

/// Bytes of a page's header.
pub const PAGE_HEADER: usize = 64;
/// Bytes of a page's payload.
pub const PAGE_PAYLOAD: usize = BLOCK_SIZE as usize - PAGE_HEADER;
/// Bits of a page's payload: bit `n` is bit `n % 8` of byte `n / 8`.
pub const PAGE_BITS: usize = PAGE_PAYLOAD * 8;
/// First bytes of a page.
pub const MAGIC: [u8; 8] = *b"FstlPage";
/// Pages of the map of lost blocks: what the smallest disk holds. The rest of its region is not used.
pub const LOST_PAGES: usize = 2;
/// Lost-block entries that fit into one page.
pub const LOST_PER_PAGE: usize = (PAGE_PAYLOAD - LOST_COUNT_LEN) / LOST_ENTRY_LEN;

/// Bytes of the count before the lost-block entries.
pub const LOST_COUNT_LEN: usize = 8;
/// Bytes of one lost-block entry.
pub const LOST_ENTRY_LEN: usize = 16;

const _: () = assert!(MEMBERS_MAX * 8 <= PAGE_PAYLOAD, "every slot's cursor fits into one page");

/// Which map a page belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageKind {
    /// Regions that may be out of step after an unclean stop.
    Intent = 1,
    /// Stripes never written.
    Unwritten = 2,
    /// Blocks that nothing can give any more.
    Lost = 3,
    /// How far each slot is copied.
    Cursor = 4,
    /// Blocks that differ between the volumes of a pair.
    Differential = 5,
}

/// A valid page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Page<'a> {
    /// Counts the writes of this page, from 1.
    pub generation: u64,
    /// [`PAGE_PAYLOAD`] bytes.
    pub payload: &'a [u8],
}

/// Why bytes are not the page that was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum PageError {
    /// All zero: never written.
    #[error("the page was never written")]
    Blank,
    /// A page of another group, map or place, or no page at all: a leftover.
    #[error("the page is not of this group and place")]
    Foreign,
    /// Its checksum does not fit: torn or damaged.
    #[error("the page is torn or damaged")]
    Damaged,
}

/// The page numbered `index` of a map, ready to be written; `payload` may be shorter than [`PAGE_PAYLOAD`] and is filled up with zeroes.
///
/// # Panics
/// If the payload is longer than [`PAGE_PAYLOAD`].
#[must_use]
pub fn encode(kind: PageKind, group: Uuid, index: u64, generation: u64, payload: &[u8]) -> Buf {
    assert!(payload.len() <= PAGE_PAYLOAD, "a page's payload has at most {PAGE_PAYLOAD} bytes");
    let mut header = Writer::new();
    header.bytes(&MAGIC).u32(kind as u32).u32(0).bytes(&group.0).u64(index).u64(generation);
    let header = header.finish();
    let mut buf = Buf::zeroed(BLOCK_SIZE as usize);
    let bytes = buf.bytes_mut();
    bytes[..header.len()].copy_from_slice(&header);
    bytes[PAGE_HEADER..PAGE_HEADER + payload.len()].copy_from_slice(payload);
    seal(bytes, CRC_AT);
    buf
}

/// The page in `bytes`, if it is page `index` of the map `kind` of the group with identity `group`.
///
/// # Errors
/// Says what the bytes are instead. A slice of another length than one block is damaged.
pub fn decode(
    bytes: &[u8],
    kind: PageKind,
    group: Uuid,
    index: u64,
) -> Result<Page<'_>, PageError> {
    if bytes.len() != BLOCK_SIZE as usize {
        return Err(PageError::Damaged);
    }
    if is_blank(bytes) {
        return Err(PageError::Blank);
    }
    if !bytes.starts_with(&MAGIC) {
        return Err(PageError::Foreign);
    }
    if !is_sealed(bytes, CRC_AT) {
        return Err(PageError::Damaged);
    }
    let (header, payload) = bytes.split_at(PAGE_HEADER);
    let mut reader = Reader::new(&header[MAGIC.len()..]);
    let mut fields = || {
        let found_kind = reader.u32()?;
        reader.u32()?;
        Ok::<_, CodecError>((found_kind, Uuid(reader.array()?), reader.u64()?, reader.u64()?))
    };
    let (found_kind, found_group, found_index, generation) =
        fields().map_err(|_| PageError::Damaged)?;
    if (found_kind, found_group, found_index) != (kind as u32, group, index) {
        return Err(PageError::Foreign);
    }
    Ok(Page { generation, payload })
}

/// The candidate with the highest generation; of equal ones the first. Each is a page's generation and whatever the caller keeps with it.
pub fn newest<T>(candidates: impl IntoIterator<Item = (u64, T)>) -> Option<(u64, T)> {
    candidates.into_iter().reduce(|best, next| if next.0 > best.0 { next } else { best })
}

/// Set in a lost run's slot: the blocks agree with their peers, and nothing proves that they are what a host wrote. They are no erasures; reads
/// by hosts are errors.
pub const UNPROVED: u8 = 64;

/// A run of lost blocks of one member.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct LostRun {
    /// The member; with [`UNPROVED`] added where that is so.
    pub slot: Slot,
    /// First lost block: member address / 4096.
    pub start: u64,
    /// Number of blocks, at least 1.
    pub count: u32,
}

/// The payload of a lost-block page.
///
/// # Panics
/// If there are more than [`LOST_PER_PAGE`] runs.
#[must_use]
pub fn encode_lost(runs: &[LostRun]) -> Vec<u8> {
    assert!(runs.len() <= LOST_PER_PAGE, "a page holds at most {LOST_PER_PAGE} runs");
    let mut writer = Writer::new();
    writer.u64(runs.len() as u64);
    for run in runs {
        writer.u64(run.start).u32(run.count).u8(run.slot.0).bytes(&[0; 3]);
    }
    writer.finish()
}

/// The runs in a lost-block page's payload.
///
/// # Errors
/// If the count is too large, a slot cannot exist, or a run is empty or ends behind the largest address.
pub fn decode_lost(payload: &[u8]) -> Result<Vec<LostRun>, CodecError> {
    let mut reader = Reader::new(payload);
    let count = reader.u64()?;
    if count > LOST_PER_PAGE as u64 {
        return Err(CodecError::Value("number of lost runs"));
    }
    let mut runs = Vec::new();
    for _ in 0..count {
        let (start, count, slot) = (reader.u64()?, reader.u32()?, reader.u8()?);
        reader.bytes(3)?;
        let end = start.checked_add(count.into());
        if count == 0 || end.is_none_or(|end| end > u64::MAX / BLOCK_SIZE) {
            return Err(CodecError::Value("lost run"));
        }
        if usize::from(slot & !UNPROVED) >= MEMBERS_MAX {
            return Err(CodecError::Value("slot of a lost run"));
        }
        runs.push(LostRun { slot: Slot(slot), start, count });
    }
    Ok(runs)
}

/// The payload of a cursor page: for each slot the member address, in bytes, below which its copy is done.
#[must_use]
pub fn encode_cursors(cursors: &[u64; MEMBERS_MAX]) -> Vec<u8> {
    let mut writer = Writer::new();
    for &cursor in cursors {
        writer.u64(cursor);
    }
    writer.finish()
}

/// The cursors in a cursor page's payload, by slot.
///
/// # Errors
/// If the payload is too short.
pub fn decode_cursors(payload: &[u8]) -> Result<[u64; MEMBERS_MAX], CodecError> {
    let mut reader = Reader::new(payload);
    let mut cursors = [0; MEMBERS_MAX];
    for cursor in &mut cursors {
        *cursor = reader.u64()?;
    }
    Ok(cursors)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUP: Uuid = Uuid([7; 16]);

    #[test]
    fn a_page_is_only_taken_for_itself() {
        let buf = encode(PageKind::Intent, GROUP, 3, 9, &[1, 2, 3]);
        let page = decode(&buf, PageKind::Intent, GROUP, 3).unwrap();
        assert_eq!((page.generation, &page.payload[..4]), (9, &[1, 2, 3, 0][..]));
        assert_eq!(page.payload.len(), PAGE_PAYLOAD);
        for (kind, group, index) in [
            (PageKind::Lost, GROUP, 3),
            (PageKind::Intent, Uuid([8; 16]), 3),
            (PageKind::Intent, GROUP, 4),
        ] {
            assert_eq!(decode(&buf, kind, group, index), Err(PageError::Foreign));
        }
        let blank = Buf::zeroed(4096);
        assert_eq!(decode(&blank, PageKind::Intent, GROUP, 3), Err(PageError::Blank));
        assert_eq!(decode(&buf[..4095], PageKind::Intent, GROUP, 3), Err(PageError::Damaged));
        assert_eq!(decode(&[0x5a; 4096], PageKind::Intent, GROUP, 3), Err(PageError::Foreign));
    }

    #[test]
    fn the_newest_copy_is_believed_and_the_first_of_equals() {
        assert_eq!(newest([(3, 'a'), (5, 'b'), (5, 'c'), (1, 'd')]), Some((5, 'b')));
        assert_eq!(newest(Vec::<(u64, ())>::new()), None);
    }

    #[test]
    fn lost_runs_and_cursors_come_back() {
        let runs: Vec<LostRun> = (0..LOST_PER_PAGE as u64)
            .map(|n| LostRun { slot: Slot((n % 64) as u8), start: n * 1000, count: n as u32 + 1 })
            .collect();
        let payload = encode_lost(&runs);
        assert!(payload.len() <= PAGE_PAYLOAD);
        assert_eq!(decode_lost(&payload).as_ref(), Ok(&runs));
        assert_eq!(decode_lost(&[0; PAGE_PAYLOAD]), Ok(Vec::new()), "a fresh page lists nothing");

        let mut cursors = [0; MEMBERS_MAX];
        cursors[63] = u64::MAX;
        assert_eq!(decode_cursors(&encode_cursors(&cursors)), Ok(cursors));
        assert_eq!(decode_cursors(&[0; 511]), Err(CodecError::Truncated));
    }

    #[test]
    fn impossible_lost_runs_are_refused() {
        let hostile = |count: u64, start: u64, blocks: u32, slot: u8| {
            let mut writer = Writer::new();
            writer.u64(count).u64(start).u32(blocks).u8(slot).bytes(&[0; 3]);
            decode_lost(&writer.finish())
        };
        assert!(hostile(1, 5, 1, 63).is_ok());
        assert!(hostile(u64::MAX, 5, 1, 0).is_err());
        assert!(hostile(2, 5, 1, 0).is_err(), "ends early");
        assert!(hostile(1, 5, 0, 0).is_err());
        assert!(hostile(1, u64::MAX, 1, 0).is_err());
        assert!(hostile(1, u64::MAX / 4096, 1, 0).is_err());
        assert!(hostile(1, 5, 1, UNPROVED + 63).is_ok());
        assert!(hostile(1, 5, 1, 128).is_err());
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_found(bit in 0_usize..4096 * 8) {
            let mut buf = encode(PageKind::Unwritten, GROUP, 1, 2, &[0xa5; PAGE_PAYLOAD]);
            buf.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&buf, PageKind::Unwritten, GROUP, 1).is_err());
        }
    }
}
