//! Reading and writing of little-endian fields, with every length checked.
//!
//! Owns [`Reader`], [`Writer`] and the checksum. Invariant: a read past the end is an error, and no memory is reserved for more items
//! than the bytes left could hold. What the fields mean is left to the modules beside this one.

use crc_fast::CrcAlgorithm;
use thiserror::Error;

/// Offset of the checksum in every record of format 1: behind eight bytes of magic and four of the record's own.
pub const CRC_AT: usize = 12;

/// CRC-32C (Castagnoli) of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// A CRC-32C under way; each step answers a new one, so that a common beginning is computed once.
#[derive(Clone, Copy)]
pub struct Crc32c(crc_fast::Digest);

impl Crc32c {
    /// Of nothing yet.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi))
    }

    /// With `bytes` behind it.
    #[must_use]
    pub fn update(mut self, bytes: &[u8]) -> Self {
        self.0.update(bytes);
        self
    }

    /// The checksum.
    #[must_use]
    pub fn finish(self) -> u32 {
        self.0.finalize() as u32
    }
}

/// CRC-32C of `bytes` as if the four bytes at `field`, where the checksum itself stands, were zero.
///
/// # Panics
/// If the field does not lie inside `bytes`.
#[must_use]
pub fn crc32c_without(bytes: &[u8], field: usize) -> u32 {
    let mut digest = crc_fast::Digest::new(CrcAlgorithm::Crc32Iscsi);
    digest.update(&bytes[..field]);
    digest.update(&[0; 4]);
    digest.update(&bytes[field + 4..]);
    digest.finalize() as u32
}

/// Writes the checksum of `bytes` into its field at `field`.
///
/// # Panics
/// If the field does not lie inside `bytes`.
pub fn seal(bytes: &mut [u8], field: usize) {
    let crc = crc32c_without(bytes, field);
    bytes[field..field + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Whether the checksum at `field` fits `bytes`.
///
/// # Panics
/// If the field does not lie inside `bytes`.
#[must_use]
pub fn is_sealed(bytes: &[u8], field: usize) -> bool {
    bytes[field..field + 4] == crc32c_without(bytes, field).to_le_bytes()
}

/// Whether all bytes are zero.
#[must_use]
pub fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// Why bytes could not be read as fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum CodecError {
    /// The bytes end before the field does.
    #[error("the record ends early")]
    Truncated,
    /// Bytes are left over.
    #[error("the record is longer than its fields")]
    Trailing,
    /// A field has a value that it must not have.
    #[error("bad value of {0}")]
    Value(&'static str),
}

/// Takes fields from the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not yet read.
    #[must_use]
    pub fn left(&self) -> usize {
        self.rest.len()
    }

    /// The next `len` bytes.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], CodecError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (head, rest) = self.rest.split_first_chunk().ok_or(CodecError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// The next byte.
    pub fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// The next 16-bit number.
    pub fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// The next 32-bit number.
    pub fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// The next 64-bit number.
    pub fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// The next byte as a truth value: 0 or 1, nothing else.
    pub fn flag(&mut self, what: &'static str) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Value(what)),
        }
    }

    /// A string behind its 16-bit length of at most `max` bytes.
    pub fn string(&mut self, max: usize, what: &'static str) -> Result<String, CodecError> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(CodecError::Value(what));
        }
        let text = std::str::from_utf8(self.bytes(len)?).map_err(|_| CodecError::Value(what))?;
        Ok(text.to_owned())
    }

    /// A list behind its 32-bit count of at most `max` items, each read by `item`.
    ///
    /// Memory grows with the items really read: every item takes at least one byte.
    pub fn list<T, E: From<CodecError>>(
        &mut self,
        max: usize,
        what: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let count = self.u32()? as usize;
        if count > max {
            return Err(CodecError::Value(what).into());
        }
        if count > self.left() {
            return Err(CodecError::Truncated.into());
        }
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// Ends the reading: nothing may be left.
    pub fn end(self) -> Result<(), CodecError> {
        if self.rest.is_empty() { Ok(()) } else { Err(CodecError::Trailing) }
    }
}

/// Puts fields one behind the other.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty writer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    /// A 16-bit number.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A 32-bit number.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A 64-bit number.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A truth value as 0 or 1.
    pub fn flag(&mut self, value: bool) -> &mut Self {
        self.u8(value.into())
    }

    /// A string behind its 16-bit length.
    ///
    /// # Panics
    /// If it is longer than 65535 bytes.
    pub fn string(&mut self, text: &str) -> &mut Self {
        let len = u16::try_from(text.len()).expect("strings on disk are short");
        self.u16(len).bytes(text.as_bytes())
    }

    /// A list behind its 32-bit count.
    ///
    /// # Panics
    /// If it has more than 2^32 - 1 items.
    pub fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.u32(u32::try_from(items.len()).expect("lists on disk are short"));
        for each in items {
            item(self, each);
        }
        self
    }

    /// What was written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnoli() {
        // The check value of CRC-32C in the catalogue of parametrised CRC algorithms, and RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    }

    #[test]
    fn the_checksums_own_field_does_not_matter() {
        let mut bytes = *b"0123456789abcdef";
        seal(&mut bytes, 4);
        assert!(is_sealed(&bytes, 4));
        bytes[0] ^= 1;
        assert!(!is_sealed(&bytes, 4));
    }

    #[test]
    fn fields_come_back_in_order() {
        let mut writer = Writer::new();
        writer.u8(1).u16(2).u32(3).u64(4).flag(true).string("five");
        writer.list(&[6_u32, 7], |w, n| {
            w.u32(*n);
        });
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(2));
        assert_eq!(reader.u32(), Ok(3));
        assert_eq!(reader.u64(), Ok(4));
        assert_eq!(reader.flag("flag"), Ok(true));
        assert_eq!(reader.string(4, "text").as_deref(), Ok("five"));
        assert_eq!(reader.list(2, "list", Reader::u32), Ok(vec![6, 7]));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn hostile_lengths_are_refused_before_anything_is_reserved() {
        let count = u32::MAX.to_le_bytes();
        let huge = Reader::new(&count).list(usize::MAX, "list", Reader::u8);
        assert_eq!(huge, Err(CodecError::Truncated));
        assert_eq!(Reader::new(&count).list(9, "list", Reader::u8), Err(CodecError::Value("list")));
        assert_eq!(Reader::new(&[9, 0, 1]).string(63, "text"), Err(CodecError::Truncated));
        assert_eq!(Reader::new(&[9, 0]).string(8, "text"), Err(CodecError::Value("text")));
        assert_eq!(Reader::new(&[2]).flag("flag"), Err(CodecError::Value("flag")));
        assert_eq!(Reader::new(&[2]).end(), Err(CodecError::Trailing));
    }
}
