//! What a server tells about an export.
//!
//! Owns [`ExportInfo`], the block sizes and how the transmission flags follow from them. Invariant:
//! what the flags promise is what `request::check` lets through, because both read the same fields.
//! Where exports come from is the server's matter, behind [`Exports`].

use crate::reply::ReplyMode;
use crate::wire;

/// The exports of a server, as the handshake sees them.
pub trait Exports {
    /// Every export, in the order in which clients shall see them.
    fn list(&self) -> Vec<ExportInfo>;

    /// The export of that name. The empty name asks for the default export, if there is one; the
    /// [`ExportInfo`] then carries the export's own name.
    fn find(&self, name: &str) -> Option<ExportInfo>;
}

/// One export: its size and what may be done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportInfo {
    /// Name, at most 4096 bytes (`wire::STRING_MAX`).
    pub name: String,
    /// Text for people; empty for none.
    pub description: String,
    /// Size in bytes, below 2^63.
    pub size: u64,
    /// Writes, trims and zeroes are refused with `EPERM`.
    pub read_only: bool,
    /// Block sizes that clients should keep to.
    pub block_sizes: BlockSizes,
    /// A flush on one connection covers answered writes of all (design: durability contract, 2).
    pub multi_conn: bool,
    /// `FUA` is honoured.
    pub fua: bool,
    /// Trim is offered.
    pub trim: bool,
    /// Write zeroes is offered.
    pub write_zeroes: bool,
    /// Write zeroes knows whether it is fast; means nothing without `write_zeroes`.
    pub fast_zero: bool,
    /// Cache is offered.
    pub cache: bool,
    /// `base:allocation` can be asked for.
    pub block_status: bool,
    /// Clients may schedule for a rotating medium.
    pub rotational: bool,
}

impl ExportInfo {
    /// A writable export that offers everything, with default block sizes and no description.
    pub fn new(name: impl Into<String>, size: u64) -> Self {
        Self {
            name: name.into(),
            description: String::new(),
            size,
            read_only: false,
            block_sizes: BlockSizes::default(),
            multi_conn: true,
            fua: true,
            trim: true,
            write_zeroes: true,
            fast_zero: true,
            cache: true,
            block_status: true,
            rotational: false,
        }
    }

    /// The transmission flags to send to a client that negotiated `mode`.
    pub fn transmission_flags(&self, mode: ReplyMode) -> u16 {
        let writable = !self.read_only;
        let zeroes = writable && self.write_zeroes;
        [
            (self.read_only, wire::FLAG_READ_ONLY),
            (self.fua, wire::FLAG_SEND_FUA),
            (self.rotational, wire::FLAG_ROTATIONAL),
            (writable && self.trim, wire::FLAG_SEND_TRIM),
            (zeroes, wire::FLAG_SEND_WRITE_ZEROES),
            (zeroes && self.fast_zero, wire::FLAG_SEND_FAST_ZERO),
            (mode != ReplyMode::Simple, wire::FLAG_SEND_DF),
            (self.multi_conn, wire::FLAG_CAN_MULTI_CONN),
            (self.cache, wire::FLAG_SEND_CACHE),
        ]
        .into_iter()
        .filter(|(on, _)| *on)
        .fold(wire::FLAG_HAS_FLAGS | wire::FLAG_SEND_FLUSH, |flags, (_, flag)| flags | flag)
    }
}

/// Minimum and preferred block size and the largest payload, all in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockSizes {
    minimum: u32,
    preferred: u32,
    payload_max: u32,
}

/// Block sizes that the specification does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockSizeError {
    /// The minimum is no power of two up to 65536.
    #[error("minimum block size {0} is not a power of two up to 65536")]
    Minimum(u32),
    /// The preferred size is no power of two, below 512, or below the minimum.
    #[error("preferred block size {0} is not a power of two of at least 512 and the minimum")]
    Preferred(u32),
    /// The largest payload is below the preferred block size, or leaves no room for a chunk's
    /// header in 32 bits.
    #[error("maximum payload {0} is below the preferred block size or above 2^32 - 9")]
    Payload(u32),
}

impl BlockSizes {
    /// Checked block sizes.
    ///
    /// # Errors
    /// When the specification's bounds do not hold; the variant names the size at fault.
    pub fn new(minimum: u32, preferred: u32, payload_max: u32) -> Result<Self, BlockSizeError> {
        if !minimum.is_power_of_two() || minimum > 1 << 16 {
            return Err(BlockSizeError::Minimum(minimum));
        }
        if !preferred.is_power_of_two() || preferred < minimum.max(512) {
            return Err(BlockSizeError::Preferred(preferred));
        }
        if payload_max < preferred || payload_max > u32::MAX - 8 {
            return Err(BlockSizeError::Payload(payload_max));
        }
        Ok(Self { minimum, preferred, payload_max })
    }

    /// Offsets and lengths must be multiples of this many bytes; a power of two.
    pub fn minimum(&self) -> u32 {
        self.minimum
    }

    /// Requests aligned to this many bytes are efficient; a power of two.
    pub fn preferred(&self) -> u32 {
        self.preferred
    }

    /// Most bytes that one read or write may carry.
    pub fn payload_max(&self) -> u32 {
        self.payload_max
    }
}

impl Default for BlockSizes {
    /// 1, 4096 and 32 MiB: any alignment is served, whole blocks are fastest.
    fn default() -> Self {
        Self { minimum: 1, preferred: 4096, payload_max: wire::PAYLOAD_DEFAULT_MAX }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_a_full_export_and_of_a_read_only_one() {
        let mut export = ExportInfo::new("a", 1);
        assert_eq!(export.transmission_flags(ReplyMode::Simple), 0x0d6d);
        assert_eq!(export.transmission_flags(ReplyMode::Structured), 0x0ded);
        export.read_only = true;
        assert_eq!(export.transmission_flags(ReplyMode::Extended), 0x058f);
        export.write_zeroes = false;
        export.read_only = false;
        let flags = export.transmission_flags(ReplyMode::Simple);
        assert_eq!(flags & (wire::FLAG_SEND_WRITE_ZEROES | wire::FLAG_SEND_FAST_ZERO), 0);
    }

    #[test]
    fn block_sizes_keep_the_bounds_of_the_specification() {
        assert_eq!(BlockSizes::new(1, 4096, 32 << 20), Ok(BlockSizes::default()));
        assert_eq!(BlockSizes::new(0, 4096, 4096), Err(BlockSizeError::Minimum(0)));
        assert_eq!(BlockSizes::new(3, 4096, 4096), Err(BlockSizeError::Minimum(3)));
        assert_eq!(
            BlockSizes::new(1 << 17, 1 << 17, 1 << 20),
            Err(BlockSizeError::Minimum(1 << 17))
        );
        assert_eq!(BlockSizes::new(1, 256, 4096), Err(BlockSizeError::Preferred(256)));
        assert_eq!(BlockSizes::new(4096, 512, 4096), Err(BlockSizeError::Preferred(512)));
        assert_eq!(BlockSizes::new(512, 4096, 512), Err(BlockSizeError::Payload(512)));
        assert_eq!(BlockSizes::new(1, 512, u32::MAX), Err(BlockSizeError::Payload(u32::MAX)));
    }
}
