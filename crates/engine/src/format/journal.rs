//! Frames of a group's journal (rules J1 to J4).
//!
//! Owns the bytes of a frame's header and what a payload block may look like. A frame is one header block and the payload of the drive that it lies
//! on. Invariants: a header names its own place, so that one copied elsewhere, or left by an earlier round of the ring, is never
//! taken for another; no payload block begins with the magic of a header, so that hosts cannot write what looks like one. Which frames count
//! is the replay's matter.

use super::codec::{CRC_AT, CodecError, Reader, Writer, crc32c, is_sealed, seal};
use crate::buf::Buf;
use crate::ids::{BLOCK_SIZE, MEMBERS_MAX, Slot, Uuid};

/// First bytes of a header.
pub const MAGIC: [u8; 8] = *b"FSTLJRNL";
/// Bytes of the header before its records.
pub const FRAME_HEADER: usize = 72;
/// Bytes of a header that records may take.
pub const RECORDS_LEN: usize = BLOCK_SIZE as usize - FRAME_HEADER;
/// Bytes of a record without its pieces.
pub const RECORD_LEN: usize = 4;
/// Bytes of a piece without its checksums.
pub const PIECE_LEN: usize = 12;

/// Consecutive blocks of one slot that a record changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The slot.
    pub slot: Slot,
    /// Whether the new contents stand in the journal of the slot's drives; else only their checksums are told.
    pub has_payload: bool,
    /// First block: member address / 4096.
    pub start: u64,
    /// CRC-32C of each block's new contents; at least one.
    pub crcs: Vec<u32>,
}

impl Piece {
    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.crcs.len() as u64
    }
}

/// One transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its place in the batch, the same on every drive.
    pub index: u16,
    /// All that it changes, on every drive alike.
    pub pieces: Vec<Piece>,
}

impl Record {
    /// Bytes that it takes in a header.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        RECORD_LEN + self.pieces.iter().map(|p| PIECE_LEN + 4 * p.crcs.len()).sum::<usize>()
    }

    /// Payload blocks that the drives of `slot` take for it.
    #[must_use]
    pub fn payload_blocks(&self, slot: Slot) -> u64 {
        self.pieces.iter().filter(|p| p.slot == slot && p.has_payload).map(Piece::blocks).sum()
    }
}

/// The header of a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// The start of the array that wrote it; later ones are greater.
    pub epoch: u64,
    /// Counts batches within the epoch. A frame without records opens the batch of this number.
    pub batch: u64,
    /// Every batch below this one is durable in place.
    pub tail: u64,
    /// Its block in the journal region.
    pub place: u64,
    /// Payload blocks behind it.
    pub payload: u32,
    /// What the batch changes on the drive that it lies on.
    pub records: Vec<Record>,
}

impl Frame {
    /// The header block of a frame of `group`.
    ///
    /// # Panics
    /// If the records take more than [`RECORDS_LEN`].
    #[must_use]
    pub fn encode(&self, group: Uuid) -> Buf {
        let mut w = Writer::new();
        w.bytes(&MAGIC).u32(self.payload).u32(0).bytes(&group.0);
        w.u64(self.epoch).u64(self.batch).u64(self.tail).u64(self.place);
        w.u32(self.records.len() as u32).u32(0);
        for record in &self.records {
            w.u16(record.index).u16(record.pieces.len() as u16);
            for piece in &record.pieces {
                w.u8(piece.slot.0).flag(piece.has_payload).u16(piece.crcs.len() as u16);
                w.u64(piece.start);
                for crc in &piece.crcs {
                    w.u32(*crc);
                }
            }
        }
        let fields = w.finish();
        let mut buf = Buf::zeroed(BLOCK_SIZE as usize);
        let bytes = buf.bytes_mut();
        bytes[..fields.len()].copy_from_slice(&fields);
        seal(bytes, CRC_AT);
        buf
    }

    /// The header in `bytes`, if it is one of `group` at block `place` of its region.
    #[must_use]
    pub fn decode(bytes: &[u8], group: Uuid, place: u64) -> Option<Self> {
        if bytes.len() != BLOCK_SIZE as usize
            || !bytes.starts_with(&MAGIC)
            || !is_sealed(bytes, CRC_AT)
        {
            return None;
        }
        let mut r = Reader::new(&bytes[MAGIC.len()..]);
        let payload = r.u32().ok()?;
        r.u32().ok()?;
        let of = Uuid(r.array().ok()?);
        let (epoch, batch) = (r.u64().ok()?, r.u64().ok()?);
        let (tail, at) = (r.u64().ok()?, r.u64().ok()?);
        let count = r.u32().ok()?;
        r.u32().ok()?;
        if of != group || at != place || u64::from(payload) > u64::from(u16::MAX) {
            return None;
        }
        let mut records = Vec::new();
        for _ in 0..count {
            records.push(decode_record(&mut r).ok()?);
        }
        Some(Self { epoch, batch, tail, place: at, payload, records })
    }
}

fn decode_record(r: &mut Reader<'_>) -> Result<Record, CodecError> {
    let (index, count) = (r.u16()?, r.u16()?);
    let mut pieces = Vec::new();
    for _ in 0..count {
        let (slot, has_payload, blocks) = (r.u8()?, r.flag("payload")?, r.u16()?);
        let start = r.u64()?;
        let end = start.checked_add(blocks.into());
        if usize::from(slot) >= MEMBERS_MAX {
            return Err(CodecError::Value("slot of a piece"));
        }
        if blocks == 0 || end.is_none_or(|end| end > u64::MAX / BLOCK_SIZE) {
            return Err(CodecError::Value("blocks of a piece"));
        }
        let crcs = (0..blocks).map(|_| r.u32()).collect::<Result<_, _>>()?;
        pieces.push(Piece { slot: Slot(slot), has_payload, start, crcs });
    }
    Ok(Record { index, pieces })
}

/// The checksum of each block of `bytes`.
#[must_use]
pub fn checksums(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks(BLOCK_SIZE as usize).map(crc32c).collect()
}

/// Makes a payload block unlike a header: one that begins with the magic begins with zeroes instead.
pub fn disguise(block: &mut [u8]) {
    if block.starts_with(&MAGIC) {
        block[..MAGIC.len()].fill(0);
    }
}

/// Gives a payload block back as it was before [`disguise`]; `false`: it does not fit the checksum `crc`.
#[must_use]
pub fn undisguise(block: &mut [u8], crc: u32) -> bool {
    if crc32c(block) == crc {
        return true;
    }
    if !block.starts_with(&[0; MAGIC.len()]) {
        return false;
    }
    block[..MAGIC.len()].copy_from_slice(&MAGIC);
    crc32c(block) == crc
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GROUP: Uuid = Uuid([7; 16]);

    fn sample() -> Frame {
        let piece = |slot, has_payload, start, crcs: &[u32]| Piece {
            slot: Slot(slot),
            has_payload,
            start,
            crcs: crcs.to_vec(),
        };
        let records = vec![
            Record { index: 0, pieces: vec![piece(1, true, 9, &[1, 2]), piece(63, true, 9, &[3])] },
            Record { index: 7, pieces: vec![piece(0, false, 0, &[4])] },
        ];
        Frame { epoch: 3, batch: 4, tail: 2, place: 5, payload: 3, records }
    }

    #[test]
    fn a_frame_comes_back_at_its_own_place_and_nowhere_else() {
        let frame = sample();
        let bytes = frame.encode(GROUP);
        assert_eq!(Frame::decode(&bytes, GROUP, 5), Some(frame.clone()));
        assert_eq!(Frame::decode(&bytes, GROUP, 6), None);
        assert_eq!(Frame::decode(&bytes, Uuid([8; 16]), 5), None);
        assert_eq!(Frame::decode(&bytes[..4095], GROUP, 5), None);
        let len: usize = frame.records.iter().map(Record::encoded_len).sum();
        let used = bytes.iter().rposition(|b| *b != 0).unwrap();
        assert!(used < FRAME_HEADER + len && used + 4 >= FRAME_HEADER + len);
    }

    #[test]
    fn a_payload_block_is_never_taken_for_a_header() {
        let forged = sample().encode(GROUP);
        let crc = crc32c(&forged);
        let mut block = forged.to_vec();
        disguise(&mut block);
        assert_eq!(Frame::decode(&block, GROUP, 5), None);
        assert!(undisguise(&mut block, crc));
        assert_eq!(block, forged.to_vec());
        let mut zeroes = vec![0; BLOCK_SIZE as usize];
        disguise(&mut zeroes);
        assert!(undisguise(&mut zeroes, crc32c(&[0; BLOCK_SIZE as usize])));
        zeroes[100] = 1;
        assert!(!undisguise(&mut zeroes, crc32c(&[0; BLOCK_SIZE as usize])));
    }

    #[test]
    fn impossible_records_are_refused() {
        let with = |change: fn(&mut Frame)| {
            let mut frame = sample();
            change(&mut frame);
            Frame::decode(&frame.encode(GROUP), GROUP, 5)
        };
        assert!(with(|_| ()).is_some());
        assert!(with(|f| f.records[0].pieces[0].slot = Slot(64)).is_none());
        assert!(with(|f| f.records[0].pieces[0].crcs.clear()).is_none());
        assert!(with(|f| f.records[0].pieces[0].start = u64::MAX / BLOCK_SIZE).is_none());
        assert!(with(|f| f.payload = 1 << 16).is_none());
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_found(bit in 0_usize..4096 * 8) {
            let mut buf = sample().encode(GROUP);
            buf.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Frame::decode(&buf, GROUP, 5), None);
        }
    }
}
