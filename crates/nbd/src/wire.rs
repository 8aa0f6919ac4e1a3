//! Every number of the protocol, in one place.
//!
//! Owns the magics, flags, option, reply and command numbers, the error values and the string
//! limit, under the specification's names without their `NBD_` prefix. All of them travel
//! big-endian. Nothing here has behaviour, except for [`Errno`], the one place where error values
//! are mapped.

/// First 8 bytes of a server's greeting, `NBDMAGIC`.
pub const INIT_MAGIC: u64 = 0x4e42_444d_4147_4943;
/// Second 8 bytes of the greeting and the start of every option, `IHAVEOPT`.
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
/// Start of every reply to an option.
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
/// Start of a compact request.
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
/// Start of an extended request.
pub const EXTENDED_REQUEST_MAGIC: u32 = 0x21e4_1c71;
/// Start of a simple reply.
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
/// Start of a structured reply chunk.
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;
/// Start of an extended reply chunk.
pub const EXTENDED_REPLY_MAGIC: u32 = 0x6e8a_278c;

/// Handshake flag: the server speaks fixed newstyle.
pub const FLAG_FIXED_NEWSTYLE: u16 = 1 << 0;
/// Handshake flag: the server can leave out the padding after `OPT_EXPORT_NAME`.
pub const FLAG_NO_ZEROES: u16 = 1 << 1;
/// Client flag: the client speaks fixed newstyle.
pub const FLAG_C_FIXED_NEWSTYLE: u32 = 1 << 0;
/// Client flag: the client wants no padding after `OPT_EXPORT_NAME`.
pub const FLAG_C_NO_ZEROES: u32 = 1 << 1;
/// Bytes of padding after the reply to `OPT_EXPORT_NAME`.
pub const EXPORT_NAME_PADDING: usize = 124;

/// Transmission flag, always set.
pub const FLAG_HAS_FLAGS: u16 = 1 << 0;
/// Transmission flag: the export refuses writes.
pub const FLAG_READ_ONLY: u16 = 1 << 1;
/// Transmission flag: `CMD_FLUSH` works.
pub const FLAG_SEND_FLUSH: u16 = 1 << 2;
/// Transmission flag: `CMD_FLAG_FUA` works.
pub const FLAG_SEND_FUA: u16 = 1 << 3;
/// Transmission flag: the medium rotates.
pub const FLAG_ROTATIONAL: u16 = 1 << 4;
/// Transmission flag: `CMD_TRIM` works.
pub const FLAG_SEND_TRIM: u16 = 1 << 5;
/// Transmission flag: `CMD_WRITE_ZEROES` and `CMD_FLAG_NO_HOLE` work.
pub const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
/// Transmission flag: `CMD_FLAG_DF` works; needs structured or extended replies.
pub const FLAG_SEND_DF: u16 = 1 << 7;
/// Transmission flag: a flush on one connection covers the writes of all.
pub const FLAG_CAN_MULTI_CONN: u16 = 1 << 8;
/// Transmission flag: `CMD_CACHE` works.
pub const FLAG_SEND_CACHE: u16 = 1 << 10;
/// Transmission flag: `CMD_FLAG_FAST_ZERO` works.
pub const FLAG_SEND_FAST_ZERO: u16 = 1 << 11;

/// Option: choose an export without room for an error, and end negotiation.
pub const OPT_EXPORT_NAME: u32 = 1;
/// Option: end the session.
pub const OPT_ABORT: u32 = 2;
/// Option: list the exports.
pub const OPT_LIST: u32 = 3;
/// Option: go over to TLS.
pub const OPT_STARTTLS: u32 = 5;
/// Option: describe an export.
pub const OPT_INFO: u32 = 6;
/// Option: describe an export and start transmission.
pub const OPT_GO: u32 = 7;
/// Option: use structured replies.
pub const OPT_STRUCTURED_REPLY: u32 = 8;
/// Option: list the metadata contexts of an export.
pub const OPT_LIST_META_CONTEXT: u32 = 9;
/// Option: select metadata contexts.
pub const OPT_SET_META_CONTEXT: u32 = 10;
/// Option: use extended headers.
pub const OPT_EXTENDED_HEADERS: u32 = 11;

/// Option reply: done, success.
pub const REP_ACK: u32 = 1;
/// Option reply: one export.
pub const REP_SERVER: u32 = 2;
/// Option reply: one piece of information about an export.
pub const REP_INFO: u32 = 3;
/// Option reply: one metadata context.
pub const REP_META_CONTEXT: u32 = 4;
/// Set in every option reply that is an error.
pub const REP_ERR_BIT: u32 = 1 << 31;
/// Option error: unknown option.
pub const REP_ERR_UNSUP: u32 = REP_ERR_BIT | 1;
/// Option error: malformed option.
pub const REP_ERR_INVALID: u32 = REP_ERR_BIT | 3;
/// Option error: no such export.
pub const REP_ERR_UNKNOWN: u32 = REP_ERR_BIT | 6;
/// Option error: the option is too large to process.
pub const REP_ERR_TOO_BIG: u32 = REP_ERR_BIT | 9;
/// Option error: extended headers are in use and cannot be taken back.
pub const REP_ERR_EXT_HEADER_REQD: u32 = REP_ERR_BIT | 10;

/// Information: size and transmission flags.
pub const INFO_EXPORT: u16 = 0;
/// Information: the export's own name.
pub const INFO_NAME: u16 = 1;
/// Information: a description for people.
pub const INFO_DESCRIPTION: u16 = 2;
/// Information: block sizes.
pub const INFO_BLOCK_SIZE: u16 = 3;

/// Command: read.
pub const CMD_READ: u16 = 0;
/// Command: write.
pub const CMD_WRITE: u16 = 1;
/// Command: end the session; has no reply.
pub const CMD_DISC: u16 = 2;
/// Command: make answered writes durable.
pub const CMD_FLUSH: u16 = 3;
/// Command: the range is no longer needed.
pub const CMD_TRIM: u16 = 4;
/// Command: the range will be read soon.
pub const CMD_CACHE: u16 = 5;
/// Command: write zeroes without sending them.
pub const CMD_WRITE_ZEROES: u16 = 6;
/// Command: which parts are allocated, which are zero.
pub const CMD_BLOCK_STATUS: u16 = 7;

/// Command flag: answer only when durable.
pub const CMD_FLAG_FUA: u16 = 1 << 0;
/// Command flag of `CMD_WRITE_ZEROES`: keep the range allocated.
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;
/// Command flag of `CMD_READ`: at most one content chunk.
pub const CMD_FLAG_DF: u16 = 1 << 2;
/// Command flag of `CMD_BLOCK_STATUS`: exactly one extent.
pub const CMD_FLAG_REQ_ONE: u16 = 1 << 3;
/// Command flag of `CMD_WRITE_ZEROES`: only if faster than writing.
pub const CMD_FLAG_FAST_ZERO: u16 = 1 << 4;
/// Command flag of extended requests: the length counts payload bytes that follow.
pub const CMD_FLAG_PAYLOAD_LEN: u16 = 1 << 5;

/// Reply flag: the last chunk of a reply.
pub const REPLY_FLAG_DONE: u16 = 1 << 0;
/// Chunk: nothing more, success unless an error chunk came before.
pub const REPLY_TYPE_NONE: u16 = 0;
/// Chunk: data at an offset.
pub const REPLY_TYPE_OFFSET_DATA: u16 = 1;
/// Chunk: zeroes at an offset.
pub const REPLY_TYPE_OFFSET_HOLE: u16 = 2;
/// Chunk: extents with 32-bit lengths.
pub const REPLY_TYPE_BLOCK_STATUS: u16 = 5;
/// Chunk: extents with 64-bit lengths.
pub const REPLY_TYPE_BLOCK_STATUS_EXT: u16 = 6;
/// Set in every chunk type that is an error.
pub const REPLY_TYPE_ERROR_BIT: u16 = 1 << 15;
/// Chunk: the request failed.
pub const REPLY_TYPE_ERROR: u16 = REPLY_TYPE_ERROR_BIT | 1;
/// Chunk: the request failed at an offset.
pub const REPLY_TYPE_ERROR_OFFSET: u16 = REPLY_TYPE_ERROR_BIT | 2;

/// Status flag of `base:allocation`: not allocated.
pub const STATE_HOLE: u32 = 1 << 0;
/// Status flag of `base:allocation`: reads as zeroes.
pub const STATE_ZERO: u32 = 1 << 1;
/// Name of the one metadata context that the specification defines.
pub const BASE_ALLOCATION: &str = "base:allocation";
/// The query that lists every context of the `base` namespace.
pub const BASE_WILDCARD: &str = "base:";

/// Longest string (name, query, message) that may travel, in bytes.
pub const STRING_MAX: usize = 4096;
/// Largest payload that every peer must be able to expect of the other, in bytes.
pub const PAYLOAD_DEFAULT_MAX: u32 = 32 << 20;
/// Most extents that one block status chunk should carry.
pub const EXTENTS_MAX: usize = 1 << 20;

/// The error values that may travel; they equal the `errno` numbers of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Errno {
    /// `EPERM`: the export is read-only.
    Perm = 1,
    /// `EIO`: the data could not be read or written.
    Io = 5,
    /// `ENOMEM`: no memory for the request.
    NoMem = 12,
    /// `EINVAL`: the request makes no sense.
    Inval = 22,
    /// `ENOSPC`: no room, or a write past the end.
    NoSpc = 28,
    /// `EOVERFLOW`: the request is too large to answer in one piece.
    Overflow = 75,
    /// `ENOTSUP`: a fast zero that would not be fast.
    NotSup = 95,
    /// `ESHUTDOWN`: the server is going down.
    Shutdown = 108,
}

impl Errno {
    /// The number on the wire; never 0.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }

    /// What a number from the wire means; `None` for 0, success. The specification asks clients to
    /// treat numbers that they do not know as `EINVAL`.
    pub const fn from_wire(value: u32) -> Option<Self> {
        match value {
            0 => None,
            1 => Some(Self::Perm),
            5 => Some(Self::Io),
            12 => Some(Self::NoMem),
            28 => Some(Self::NoSpc),
            75 => Some(Self::Overflow),
            95 => Some(Self::NotSup),
            108 => Some(Self::Shutdown),
            _ => Some(Self::Inval),
        }
    }
}

impl std::fmt::Display for Errno {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Perm => "operation not permitted (EPERM)",
            Self::Io => "input/output error (EIO)",
            Self::NoMem => "out of memory (ENOMEM)",
            Self::Inval => "invalid request (EINVAL)",
            Self::NoSpc => "no space left (ENOSPC)",
            Self::Overflow => "request too large (EOVERFLOW)",
            Self::NotSup => "not supported (ENOTSUP)",
            Self::Shutdown => "server shutting down (ESHUTDOWN)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Errno;

    #[test]
    fn every_error_value_survives_the_wire_and_unknown_ones_become_einval() {
        for value in 1..200 {
            let errno = Errno::from_wire(value).expect("only 0 is success");
            assert!(errno.to_wire() == value || errno == Errno::Inval, "{value}");
        }
        assert_eq!(Errno::from_wire(0), None);
        assert_eq!(Errno::from_wire(22), Some(Errno::Inval));
        assert_eq!(Errno::from_wire(95), Some(Errno::NotSup));
    }
}
