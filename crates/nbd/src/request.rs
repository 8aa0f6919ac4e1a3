//! Requests: decoding their headers and deciding, in one place, which of them are served.
//!
//! Two steps with two kinds of failure. [`RequestHeader::decode`] fails only where the stream of
//! requests can no longer be followed ([`ProtocolError`]: close the connection). [`check`] then
//! refuses what the export does not allow ([`Rejected`]: skip the payload, answer the error, go
//! on). What passes is a [`Request`]: inside the export, aligned, with known flags only.
//!
//! Payloads too large to serve: up to [`PAYLOAD_DRAIN_MAX`] they are skipped and answered with an
//! error; beyond it the connection is closed. Nothing here allocates, so no length from the wire
//! can cost memory.

use crate::bytes::Cursor;
use crate::handshake::Negotiated;
use crate::reply::{ReplyMode, Tag};
use crate::wire::{self, Errno};

/// Largest refused payload, in bytes, that is read and thrown away to keep a connection in step. A
/// client that announces more has lost its way or means harm. An export's larger maximum payload
/// takes its place.
pub const PAYLOAD_DRAIN_MAX: u32 = 64 << 20;

const _: () = assert!(PAYLOAD_DRAIN_MAX >= wire::PAYLOAD_DEFAULT_MAX);

/// Which of the two request headers is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderForm {
    /// 28 bytes, 32-bit lengths.
    Compact,
    /// 32 bytes, 64-bit lengths, explicit payloads.
    Extended,
}

impl HeaderForm {
    /// Length of a header in bytes.
    pub const fn header_len(self) -> usize {
        match self {
            Self::Compact => 28,
            Self::Extended => 32,
        }
    }

    const fn magic(self) -> u32 {
        match self {
            Self::Compact => wire::REQUEST_MAGIC,
            Self::Extended => wire::EXTENDED_REQUEST_MAGIC,
        }
    }
}

impl From<ReplyMode> for HeaderForm {
    fn from(mode: ReplyMode) -> Self {
        match mode {
            ReplyMode::Simple | ReplyMode::Structured => Self::Compact,
            ReplyMode::Extended => Self::Extended,
        }
    }
}

/// A request as it came: only its shape was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// Command flags.
    pub flags: u16,
    /// Command number.
    pub command: u16,
    /// Chosen by the client, repeated in every reply.
    pub cookie: u64,
    /// Offset in the export, in bytes.
    pub offset: u64,
    /// Bytes that the request is about, or bytes of payload.
    pub length: u64,
    /// Bytes of payload that follow the header.
    pub payload: u32,
}

/// The stream of requests cannot be followed any further: close the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Something else stands where a request should start.
    #[error("bytes {found:#010x} where a request should start with {expected:#010x}")]
    BadMagic {
        /// The 4 bytes found.
        found: u32,
        /// The magic of the negotiated header.
        expected: u32,
    },
    /// The announced payload is too large even to be skipped.
    #[error("a payload of {length} bytes was announced; more than {limit} are not even skipped")]
    PayloadTooLarge {
        /// Announced length in bytes.
        length: u64,
        /// The limit in bytes.
        limit: u32,
    },
}

impl RequestHeader {
    /// Decodes the header at the start of `bytes`; `Ok(None)` when fewer than
    /// [`HeaderForm::header_len`] bytes are there.
    ///
    /// # Errors
    /// [`ProtocolError`] when what follows the header could not be found; payloads above
    /// `payload_limit` bytes are among these.
    pub fn decode(
        bytes: &[u8],
        form: HeaderForm,
        payload_limit: u32,
    ) -> Result<Option<Self>, ProtocolError> {
        let Some(raw) = bytes.get(..form.header_len()) else { return Ok(None) };
        let Some((magic, header)) = Self::split(raw, form) else { return Ok(None) };
        if magic != form.magic() {
            return Err(ProtocolError::BadMagic { found: magic, expected: form.magic() });
        }
        // An extended write has to say that its data follows, but QEMU's client (seen with 10.0)
        // sends the data without saying so. Nobody sends a write without data, so data is what is
        // expected.
        let has_payload = header.command == wire::CMD_WRITE
            || form == HeaderForm::Extended && header.flags & wire::CMD_FLAG_PAYLOAD_LEN != 0;
        if !has_payload {
            return Ok(Some(header));
        }
        match u32::try_from(header.length) {
            Ok(payload) if payload <= payload_limit => Ok(Some(Self { payload, ..header })),
            _ => {
                Err(ProtocolError::PayloadTooLarge { length: header.length, limit: payload_limit })
            }
        }
    }

    fn split(raw: &[u8], form: HeaderForm) -> Option<(u32, Self)> {
        let mut raw = Cursor(raw);
        let magic = raw.u32()?;
        let (flags, command) = (raw.u16()?, raw.u16()?);
        let (cookie, offset) = (raw.u64()?, raw.u64()?);
        let length = match form {
            HeaderForm::Compact => u64::from(raw.u32()?),
            HeaderForm::Extended => raw.u64()?,
        };
        Some((magic, Self { flags, command, cookie, offset, length, payload: 0 }))
    }
}

/// What to do, with what only that command knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// Read.
    Read {
        /// Answer with at most one content chunk.
        dont_fragment: bool,
    },
    /// Write the payload, `length` bytes long.
    Write,
    /// Make durable what was answered before.
    Flush,
    /// The range is no longer needed.
    Trim,
    /// Make the range read as zeroes.
    WriteZeroes {
        /// Keep the range allocated.
        no_hole: bool,
        /// Answer `ENOTSUP` rather than be slow.
        fast: bool,
    },
    /// The range will be read soon.
    Cache,
    /// Report what is allocated and what is zero.
    BlockStatus {
        /// Report exactly one extent, inside the range.
        req_one: bool,
    },
    /// Finish what is in flight and close; there is no reply.
    Disconnect,
}

/// A request that may be served. `offset + length` does not overflow and lies inside the export,
/// except for `Flush` and `Disconnect`, where both are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Chosen by the client, repeated in every reply.
    pub cookie: u64,
    /// First byte, counted from the start of the export.
    pub offset: u64,
    /// Bytes; never 0 for commands that have a range. Reads and writes keep to the export's maximum
    /// payload, other commands may span the whole export.
    pub length: u64,
    /// Answer only once durable.
    pub fua: bool,
    /// What to do.
    pub command: Command,
}

impl Request {
    /// What a reply has to repeat.
    pub fn tag(&self) -> Tag {
        Tag { cookie: self.cookie, offset: self.offset }
    }

    /// Bytes of payload that follow the request's header.
    pub fn payload(&self) -> u64 {
        if self.command == Command::Write { self.length } else { 0 }
    }
}

/// A request to be answered with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("request {} at offset {} refused: {reason}", tag.cookie, tag.offset)]
pub struct Rejected {
    /// What the error reply has to repeat.
    pub tag: Tag,
    /// Why.
    pub reason: RejectReason,
    /// Bytes of payload that follow its header and have to be thrown away before it is answered.
    pub skip_payload: u32,
}

impl Rejected {
    /// The error value to answer with.
    pub fn errno(&self) -> Errno {
        self.reason.errno()
    }

    /// Appends the error reply.
    pub fn reply(&self, mode: ReplyMode, out: &mut Vec<u8>) {
        mode.error(out, self.tag, self.errno(), self.reason.message());
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// No such command.
    UnknownCommand,
    /// The command exists but was not offered for this export.
    NotOffered,
    /// A flag that the command does not have, or that was not offered.
    BadFlags,
    /// A payload with a command that takes none.
    UnexpectedPayload,
    /// A write, trim or zero on a read-only export.
    ReadOnly,
    /// Block status without a metadata context.
    NoContext,
    /// A flush with a range.
    FlushWithRange,
    /// A range of no bytes.
    EmptyRange,
    /// Not aligned to the minimum block size.
    Misaligned,
    /// A write or zero that reaches past the end.
    WritePastEnd,
    /// Any other command that reaches past the end.
    PastEnd,
    /// A write larger than the maximum payload, or a read whose reply could not be told in parts.
    TooLarge,
    /// A read larger than the maximum payload, where the client understands `EOVERFLOW`.
    ReadTooLarge,
}

impl RejectReason {
    /// The error value of the specification for this reason.
    pub const fn errno(self) -> Errno {
        match self {
            Self::ReadOnly => Errno::Perm,
            Self::WritePastEnd => Errno::NoSpc,
            Self::ReadTooLarge => Errno::Overflow,
            Self::UnknownCommand
            | Self::NotOffered
            | Self::BadFlags
            | Self::UnexpectedPayload
            | Self::NoContext
            | Self::FlushWithRange
            | Self::EmptyRange
            | Self::Misaligned
            | Self::PastEnd
            | Self::TooLarge => Errno::Inval,
        }
    }

    /// Text for the person at the client.
    pub const fn message(self) -> &'static str {
        match self {
            Self::UnknownCommand => "unknown command",
            Self::NotOffered => "command not offered for this export",
            Self::BadFlags => "command flag unknown or not offered",
            Self::UnexpectedPayload => "command takes no payload",
            Self::ReadOnly => "export is read-only",
            Self::NoContext => "no metadata context was negotiated",
            Self::FlushWithRange => "flush takes no range",
            Self::EmptyRange => "length is zero",
            Self::Misaligned => "offset or length not aligned to the minimum block size",
            Self::WritePastEnd | Self::PastEnd => "range reaches past the end of the export",
            Self::TooLarge | Self::ReadTooLarge => "length above the maximum payload size",
        }
    }
}

impl std::fmt::Display for RejectReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.message())
    }
}

/// Decides whether a request may be served. Order: command, flags, payload, permission, range.
///
/// # Errors
/// [`Rejected`]; the session goes on after its payload is skipped.
pub fn check(header: &RequestHeader, negotiated: &Negotiated) -> Result<Request, Rejected> {
    let refuse = |reason| Rejected {
        tag: Tag { cookie: header.cookie, offset: header.offset },
        reason,
        skip_payload: header.payload,
    };
    let command = command_of(header).ok_or(refuse(RejectReason::UnknownCommand))?;
    let request = |offset, length| Request {
        cookie: header.cookie,
        offset,
        length,
        fua: header.flags & wire::CMD_FLAG_FUA != 0,
        command,
    };
    if command == Command::Disconnect {
        return Ok(request(0, 0));
    }
    check_flags(header, command, negotiated).map_err(refuse)?;
    check_permission(command, negotiated).map_err(refuse)?;
    check_range(header, command, negotiated).map_err(refuse)?;
    Ok(request(header.offset, header.length))
}

fn command_of(header: &RequestHeader) -> Option<Command> {
    let has = |flag| header.flags & flag != 0;
    Some(match header.command {
        wire::CMD_READ => Command::Read { dont_fragment: has(wire::CMD_FLAG_DF) },
        wire::CMD_WRITE => Command::Write,
        wire::CMD_DISC => Command::Disconnect,
        wire::CMD_FLUSH => Command::Flush,
        wire::CMD_TRIM => Command::Trim,
        wire::CMD_CACHE => Command::Cache,
        wire::CMD_WRITE_ZEROES => Command::WriteZeroes {
            no_hole: has(wire::CMD_FLAG_NO_HOLE),
            fast: has(wire::CMD_FLAG_FAST_ZERO),
        },
        wire::CMD_BLOCK_STATUS => Command::BlockStatus { req_one: has(wire::CMD_FLAG_REQ_ONE) },
        _ => return None,
    })
}

fn check_flags(
    header: &RequestHeader,
    command: Command,
    negotiated: &Negotiated,
) -> Result<(), RejectReason> {
    let export = &negotiated.export;
    let mut allowed = match command {
        Command::Read { .. } if negotiated.mode != ReplyMode::Simple => wire::CMD_FLAG_DF,
        Command::WriteZeroes { .. } if export.fast_zero => {
            wire::CMD_FLAG_NO_HOLE | wire::CMD_FLAG_FAST_ZERO
        }
        Command::WriteZeroes { .. } => wire::CMD_FLAG_NO_HOLE,
        Command::BlockStatus { .. } => wire::CMD_FLAG_REQ_ONE,
        _ => 0,
    };
    // Clients are known to set FUA on commands that write nothing; once offered it is accepted
    // everywhere.
    if export.fua {
        allowed |= wire::CMD_FLAG_FUA;
    }
    if negotiated.mode == ReplyMode::Extended {
        if header.payload > 0 && command != Command::Write {
            return Err(RejectReason::UnexpectedPayload);
        }
        if command == Command::Write {
            allowed |= wire::CMD_FLAG_PAYLOAD_LEN;
        }
    }
    if header.flags & !allowed != 0 { Err(RejectReason::BadFlags) } else { Ok(()) }
}

fn check_permission(command: Command, negotiated: &Negotiated) -> Result<(), RejectReason> {
    let export = &negotiated.export;
    let (writes, offered) = match command {
        Command::Write => (true, true),
        Command::Trim => (true, export.trim),
        Command::WriteZeroes { .. } => (true, export.write_zeroes),
        Command::Cache => (false, export.cache),
        Command::BlockStatus { .. } if negotiated.allocation_context.is_none() => {
            return Err(RejectReason::NoContext);
        }
        Command::Read { .. }
        | Command::Flush
        | Command::BlockStatus { .. }
        | Command::Disconnect => (false, true),
    };
    if writes && export.read_only {
        Err(RejectReason::ReadOnly)
    } else if !offered {
        Err(RejectReason::NotOffered)
    } else {
        Ok(())
    }
}

fn check_range(
    header: &RequestHeader,
    command: Command,
    negotiated: &Negotiated,
) -> Result<(), RejectReason> {
    let (offset, length) = (header.offset, header.length);
    if command == Command::Flush {
        return if (offset, length) == (0, 0) { Ok(()) } else { Err(RejectReason::FlushWithRange) };
    }
    if length == 0 {
        return Err(RejectReason::EmptyRange);
    }
    let sizes = &negotiated.export.block_sizes;
    if (offset | length) & u64::from(sizes.minimum() - 1) != 0 {
        return Err(RejectReason::Misaligned);
    }
    if offset.checked_add(length).is_none_or(|end| end > negotiated.export.size) {
        return Err(match command {
            Command::Write | Command::WriteZeroes { .. } => RejectReason::WritePastEnd,
            _ => RejectReason::PastEnd,
        });
    }
    if length > u64::from(sizes.payload_max()) {
        match command {
            Command::Write => return Err(RejectReason::TooLarge),
            Command::Read { .. } if negotiated.mode == ReplyMode::Simple => {
                return Err(RejectReason::TooLarge);
            }
            Command::Read { .. } => return Err(RejectReason::ReadTooLarge),
            // These carry no payload: any length inside the export is fine.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
