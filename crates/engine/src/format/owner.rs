//! The owner's beat (rule C6): who uses a disk now, for what locks cannot see.
//!
//! Owns the bytes of the block. Invariant: an all-zero block means that nobody owns the disk. Whether another owner is alive is found by watching
//! the counter with one's own clock, elsewhere; the times in here are for people.

use thiserror::Error;

use super::codec::{CRC_AT, CodecError, Reader, Writer, is_blank, is_sealed, seal};
use crate::buf::Buf;
use crate::ids::BLOCK_SIZE;

/// First bytes of an owner block.
pub const MAGIC: [u8; 8] = *b"FstlOwnr";

/// Who owns a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The machine's identity.
    pub machine: [u8; 16],
    /// Drawn at random by each server at its start.
    pub owner: u128,
    /// Counts beats; an owner whose counter moves is alive.
    pub beat: u64,
    /// Milliseconds between two beats.
    pub period_ms: u32,
    /// When the owner took the disk, in milliseconds since 1970.
    pub started_ms: u64,
}

/// The block is neither blank nor an owner's beat: torn, damaged or foreign.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the owner block is torn or damaged")]
pub struct OwnerDamaged;

impl Owner {
    /// The block, ready to be written.
    #[must_use]
    pub fn encode(&self) -> Buf {
        let mut writer = Writer::new();
        writer.bytes(&MAGIC).u32(self.period_ms).u32(0).bytes(&self.machine);
        writer.bytes(&self.owner.to_le_bytes()).u64(self.beat).u64(self.started_ms);
        let bytes = writer.finish();
        let mut buf = Buf::zeroed(BLOCK_SIZE as usize);
        buf.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
        seal(buf.bytes_mut(), CRC_AT);
        buf
    }

    /// The block of a disk that nobody owns.
    #[must_use]
    pub fn encode_none() -> Buf {
        Buf::zeroed(BLOCK_SIZE as usize)
    }

    /// The owner named in a block, or `None` if it is blank.
    ///
    /// # Errors
    /// If the block is neither blank nor whole.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, OwnerDamaged> {
        if bytes.len() != BLOCK_SIZE as usize {
            return Err(OwnerDamaged);
        }
        if is_blank(bytes) {
            return Ok(None);
        }
        if !bytes.starts_with(&MAGIC) || !is_sealed(bytes, CRC_AT) {
            return Err(OwnerDamaged);
        }
        Self::fields(&bytes[MAGIC.len()..]).map(Some).map_err(|_| OwnerDamaged)
    }

    fn fields(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        let period_ms = reader.u32()?;
        reader.u32()?;
        Ok(Self {
            machine: reader.array()?,
            owner: u128::from_le_bytes(reader.array()?),
            beat: reader.u64()?,
            period_ms,
            started_ms: reader.u64()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OWNER: Owner = Owner {
        machine: [1; 16],
        owner: 0x1234_5678_9abc_def0_0fed_cba9_8765_4321,
        beat: 77,
        period_ms: 5000,
        started_ms: 1_700_000_000_000,
    };

    #[test]
    fn an_owner_comes_back_and_blank_is_nobody() {
        assert_eq!(Owner::decode(&OWNER.encode()), Ok(Some(OWNER)));
        assert_eq!(Owner::decode(&Owner::encode_none()), Ok(None));
        assert_eq!(Owner::decode(&[0; 512]), Err(OwnerDamaged));
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_found(bit in 0_usize..4096 * 8) {
            let mut buf = OWNER.encode();
            buf.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Owner::decode(&buf), Err(OwnerDamaged));
        }
    }
}
