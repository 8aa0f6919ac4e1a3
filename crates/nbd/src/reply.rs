//! Replies: encoders that append to a buffer of the caller.
//!
//! Owns the layout of simple replies, structured chunks and extended chunks; [`ReplyMode`], fixed
//! by the handshake, chooses among them. Nothing here allocates apart from the growth of the
//! caller's buffer. For reads only the header is written: the data follows from wherever the caller
//! keeps it, so that one vectored send can carry it without a copy.
//!
//! In structured mode a plain success is a simple reply, which the specification allows and which
//! is shorter; reads and errors are always chunks.

use crate::bytes::Put;
use crate::wire::{self, Errno};

/// Longest header that [`ReplyMode::read`] or [`ReplyMode::data_chunk`] writes, in bytes.
pub const READ_HEADER_MAX: usize = 40;

/// How replies look on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyMode {
    /// One 16-byte reply for each request; a failed read carries no data.
    Simple,
    /// Chunks with 20-byte headers.
    Structured,
    /// Chunks with 32-byte headers that repeat the request's offset; requests are extended too.
    Extended,
}

/// What a reply repeats of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag {
    /// The client's cookie.
    pub cookie: u64,
    /// The request's offset.
    pub offset: u64,
}

/// Consecutive bytes of one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes; extents of 0 bytes are ignored.
    pub length: u64,
    /// `wire::STATE_HOLE`, `wire::STATE_ZERO`.
    pub flags: u32,
}

/// The range that a block status request asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusQuery {
    /// The negotiated number of the metadata context.
    pub context: u32,
    /// Bytes asked about, at least 1.
    pub length: u64,
    /// Exactly one extent is wanted.
    pub req_one: bool,
}

impl ReplyMode {
    /// Appends a success without data.
    pub fn done(self, out: &mut Vec<u8>, tag: Tag) {
        match self {
            Self::Simple | Self::Structured => simple(out, tag.cookie, 0),
            Self::Extended => self.chunk(out, tag, wire::REPLY_TYPE_NONE, true, 0),
        }
    }

    /// Appends the header of a successful read in one piece: exactly `length` bytes of data, at
    /// least 1, must follow it on the wire.
    ///
    /// # Panics
    /// When `length` is 0 or above 2^32 - 9, which `check` never lets through.
    pub fn read(self, out: &mut Vec<u8>, tag: Tag, length: u32) {
        match self {
            Self::Simple => simple(out, tag.cookie, 0),
            Self::Structured | Self::Extended => {
                self.data_chunk(out, tag, tag.offset, length, true);
            }
        }
    }

    /// Appends the header of a part of a read: `length` bytes of data from `offset` must follow it
    /// on the wire.
    ///
    /// # Panics
    /// In simple mode, which has no chunks, and as [`ReplyMode::read`].
    pub fn data_chunk(self, out: &mut Vec<u8>, tag: Tag, offset: u64, length: u32, last: bool) {
        assert!(length > 0 && length <= u32::MAX - 8, "a data chunk of {length} bytes");
        self.chunk(out, tag, wire::REPLY_TYPE_OFFSET_DATA, last, length + 8);
        out.put_u64(offset);
    }

    /// Appends a part of a read that is all zeroes, without sending them. Not for reads that asked
    /// not to be fragmented, unless the hole is all of it.
    ///
    /// # Panics
    /// In simple mode, which has no chunks, and when `length` is 0.
    pub fn hole_chunk(self, out: &mut Vec<u8>, tag: Tag, offset: u64, length: u32, last: bool) {
        assert!(length > 0, "a hole of no bytes");
        self.chunk(out, tag, wire::REPLY_TYPE_OFFSET_HOLE, last, 12);
        out.put_u64(offset);
        out.put_u32(length);
    }

    /// Appends the end of a reply whose earlier chunks did not say that they were the last.
    ///
    /// # Panics
    /// In simple mode, which has no chunks.
    pub fn finish(self, out: &mut Vec<u8>, tag: Tag) {
        self.chunk(out, tag, wire::REPLY_TYPE_NONE, true, 0);
    }

    /// Appends a failure that ends the reply. Where the mode has room, `message` goes along for
    /// people; beyond 4096 bytes it is cut.
    pub fn error(self, out: &mut Vec<u8>, tag: Tag, errno: Errno, message: &str) {
        if self == Self::Simple {
            return simple(out, tag.cookie, errno.to_wire());
        }
        let message = cut(message);
        self.chunk(out, tag, wire::REPLY_TYPE_ERROR, true, 6 + u32::from(message.1));
        out.put_u32(errno.to_wire());
        out.put_u16(message.1);
        out.put(message.0);
    }

    /// Appends a failure at byte `at` of the export that ends the reply; in simple mode the place
    /// is lost.
    pub fn error_at(self, out: &mut Vec<u8>, tag: Tag, errno: Errno, at: u64, message: &str) {
        if self == Self::Simple {
            return simple(out, tag.cookie, errno.to_wire());
        }
        let message = cut(message);
        self.chunk(out, tag, wire::REPLY_TYPE_ERROR_OFFSET, true, 14 + u32::from(message.1));
        out.put_u32(errno.to_wire());
        out.put_u16(message.1);
        out.put(message.0);
        out.put_u64(at);
    }

    /// Appends a whole reply to block status from consecutive extents that start at the request's
    /// offset.
    ///
    /// The specification's bounds are kept here, whatever the extents: neighbours of one status are
    /// merged, what reaches beyond the range is cut, `req_one` leaves one extent, and a reply that
    /// would not fit into one chunk ends early. No extent at all is reported as data, which is
    /// always safe.
    ///
    /// # Panics
    /// In simple mode, which has no chunks, and for a query of 0 bytes.
    pub fn block_status(
        self,
        out: &mut Vec<u8>,
        tag: Tag,
        query: StatusQuery,
        extents: impl IntoIterator<Item = Extent>,
    ) {
        assert!(query.length > 0, "a status query of no bytes");
        let wide = self == Self::Extended;
        let kind =
            if wide { wire::REPLY_TYPE_BLOCK_STATUS_EXT } else { wire::REPLY_TYPE_BLOCK_STATUS };
        let start = out.len();
        self.chunk(out, tag, kind, true, 0);
        let payload = out.len();
        out.put_u32(query.context);
        if wide {
            out.put_u32(0);
        }
        let mut count = 0u32;
        for_each_reported(query, extents, if wide { u64::MAX } else { NARROW_MAX }, |extent| {
            count += 1;
            if wide {
                out.put_u64(extent.length);
                out.put_u64(u64::from(extent.flags));
            } else {
                out.put_u32(u32::try_from(extent.length).expect("cut to NARROW_MAX"));
                out.put_u32(extent.flags);
            }
        });
        let length = u32::try_from(out.len() - payload).expect("at most EXTENTS_MAX extents");
        if wide {
            out[payload + 4..payload + 8].copy_from_slice(&count.to_be_bytes());
            out[start + 24..start + 32].copy_from_slice(&u64::from(length).to_be_bytes());
        } else {
            out[start + 16..start + 20].copy_from_slice(&length.to_be_bytes());
        }
    }

    fn chunk(self, out: &mut Vec<u8>, tag: Tag, kind: u16, last: bool, length: u32) {
        assert!(
            self != Self::Simple,
            "a reply chunk, but the client understands simple replies only"
        );
        let extended = self == Self::Extended;
        out.put_u32(if extended {
            wire::EXTENDED_REPLY_MAGIC
        } else {
            wire::STRUCTURED_REPLY_MAGIC
        });
        out.put_u16(if last { wire::REPLY_FLAG_DONE } else { 0 });
        out.put_u16(kind);
        out.put_u64(tag.cookie);
        if extended {
            out.put_u64(tag.offset);
            out.put_u64(u64::from(length));
        } else {
            out.put_u32(length);
        }
    }
}

/// Longest extent that a 32-bit descriptor reports: whole blocks, so that the client's next query
/// is aligned.
const NARROW_MAX: u64 = (u32::MAX - 4095) as u64;

fn simple(out: &mut Vec<u8>, cookie: u64, error: u32) {
    out.put_u32(wire::SIMPLE_REPLY_MAGIC);
    out.put_u32(error);
    out.put_u64(cookie);
}

/// The message and its length as both fit the wire, cut between characters.
fn cut(message: &str) -> (&[u8], u16) {
    let mut end = message.len().min(wire::STRING_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    (&message.as_bytes()[..end], u16::try_from(end).expect("STRING_MAX fits 16 bits"))
}

/// Calls `report` for each extent to be sent: merged, cut to the range and to `longest` bytes.
fn for_each_reported(
    query: StatusQuery,
    extents: impl IntoIterator<Item = Extent>,
    longest: u64,
    mut report: impl FnMut(Extent),
) {
    let most = if query.req_one { 1 } else { wire::EXTENTS_MAX };
    let mut left = query.length;
    let mut sent = 0;
    let mut pending: Option<Extent> = None;
    for extent in extents {
        if left == 0 || extent.length == 0 {
            continue;
        }
        let length = extent.length.min(left);
        match &mut pending {
            Some(run) if run.flags == extent.flags => run.length += length,
            Some(run) => {
                // A run longer than a descriptor can tell ends the reply: what follows it would be
                // misplaced.
                if run.length > longest || sent + 1 == most {
                    break;
                }
                report(*run);
                sent += 1;
                *run = Extent { length, flags: extent.flags };
            }
            None => pending = Some(Extent { length, flags: extent.flags }),
        }
        left -= length;
        if left == 0 {
            break;
        }
    }
    let run = pending.unwrap_or(Extent { length: query.length, flags: 0 });
    report(Extent { length: run.length.min(longest), flags: run.flags });
}

#[cfg(test)]
mod tests;
