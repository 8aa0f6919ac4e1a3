//! Putting replies together.
//!
//! Owns what is known of each request in flight, and the decoding of simple replies and chunks,
//! which may arrive in any order and interleaved. Invariants: data lands only inside the range that
//! was asked for, and a read counts as successful only when as many bytes arrived as were asked
//! for. (Only their sum is checked: chunks that overlap and leave a gap of the same size would
//! pass.)

use super::{Client, RecvError, Reply, ReplyBody, Violation};
use crate::bytes::Cursor;
use crate::reply::{Extent, ReplyMode};
use crate::wire::{self, Errno};
use std::io::{Read, Write};

/// Longest error chunk that is accepted, in bytes: a message and some fields, with room for new
/// ones.
const ERROR_CHUNK_MAX: u64 = 8 << 10;

/// A request whose reply is not complete.
#[derive(Debug)]
pub(super) struct InFlight {
    kind: Kind,
    failure: Option<(Errno, String)>,
}

#[derive(Debug)]
enum Kind {
    /// Answered without data.
    Plain,
    Read {
        offset: u64,
        length: u64,
        received: u64,
        /// Filled only when the data comes in parts.
        parts: Vec<u8>,
    },
    Status {
        extents: Vec<Extent>,
    },
}

impl InFlight {
    pub(super) fn plain() -> Self {
        Self { kind: Kind::Plain, failure: None }
    }

    pub(super) fn read(offset: u64, length: u64) -> Self {
        Self { kind: Kind::Read { offset, length, received: 0, parts: Vec::new() }, failure: None }
    }

    pub(super) fn status() -> Self {
        Self { kind: Kind::Status { extents: Vec::new() }, failure: None }
    }
}

/// The header of a chunk, of either form.
struct Chunk {
    last: bool,
    kind: u16,
    cookie: u64,
    length: u64,
}

impl Chunk {
    fn bad(&self) -> RecvError {
        Violation::BadChunk { kind: self.kind, length: self.length }.into()
    }
}

impl<S: Read + Write> Client<S> {
    /// Sends what is queued and waits for the next reply to be complete, of whichever request. A
    /// read's data is put at the start of `buffer`, which must be long enough for any read in
    /// flight.
    ///
    /// # Errors
    /// [`RecvError`]; all but [`RecvError::NothingInFlight`] end the session. A server's refusal is
    /// no error here but a [`Reply`].
    pub fn recv_reply(&mut self, buffer: &mut [u8]) -> Result<Reply, RecvError> {
        if self.broken {
            return Err(RecvError::Broken);
        }
        if self.in_flight.is_empty() {
            return Err(RecvError::NothingInFlight);
        }
        let received = self.receive(buffer);
        self.broken = received.is_err();
        received
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Reply, RecvError> {
        self.transport.send()?;
        loop {
            let magic = Cursor(self.transport.peek(4)?).u32().expect("4 bytes");
            match (magic, self.mode) {
                (wire::SIMPLE_REPLY_MAGIC, ReplyMode::Simple | ReplyMode::Structured) => {
                    return self.simple_reply(buffer);
                }
                (wire::STRUCTURED_REPLY_MAGIC, ReplyMode::Structured)
                | (wire::EXTENDED_REPLY_MAGIC, ReplyMode::Extended) => {
                    let chunk = self.chunk_header()?;
                    if let Some(reply) = self.chunk(&chunk, buffer)? {
                        return Ok(reply);
                    }
                }
                _ => return Err(Violation::BadMagic(magic).into()),
            }
        }
    }

    fn simple_reply(&mut self, buffer: &mut [u8]) -> Result<Reply, RecvError> {
        let _magic: [u8; 4] = self.transport.take()?;
        let errno = Errno::from_wire(u32::from_be_bytes(self.transport.take()?));
        let cookie = u64::from_be_bytes(self.transport.take()?);
        let request = self.in_flight.remove(&cookie).ok_or(Violation::UnknownCookie(cookie))?;
        let body = match request.kind {
            Kind::Read { .. } if self.mode != ReplyMode::Simple => {
                return Err(Violation::WrongKind.into());
            }
            Kind::Read { length, .. } if errno.is_none() => {
                let room = room(buffer, length)?;
                self.transport.read_into(room)?;
                ReplyBody::Data(room.len())
            }
            Kind::Status { .. } if errno.is_none() => return Err(Violation::WrongKind.into()),
            Kind::Plain | Kind::Read { .. } | Kind::Status { .. } => ReplyBody::Done,
        };
        // A simple reply may end what chunks have begun to fail.
        let failure = request.failure.or(errno.map(|errno| (errno, String::new())));
        Ok(Reply { cookie, result: failure.map_or(Ok(body), Err) })
    }

    fn chunk_header(&mut self) -> Result<Chunk, RecvError> {
        let _magic: [u8; 4] = self.transport.take()?;
        let flags = u16::from_be_bytes(self.transport.take()?);
        let kind = u16::from_be_bytes(self.transport.take()?);
        let cookie = u64::from_be_bytes(self.transport.take()?);
        let length = if self.mode == ReplyMode::Extended {
            let _offset: [u8; 8] = self.transport.take()?;
            u64::from_be_bytes(self.transport.take()?)
        } else {
            u64::from(u32::from_be_bytes(self.transport.take()?))
        };
        Ok(Chunk { last: flags & wire::REPLY_FLAG_DONE != 0, kind, cookie, length })
    }

    /// Takes in one chunk; returns the reply that it completes.
    fn chunk(&mut self, chunk: &Chunk, buffer: &mut [u8]) -> Result<Option<Reply>, RecvError> {
        if !self.in_flight.contains_key(&chunk.cookie) {
            return Err(Violation::UnknownCookie(chunk.cookie).into());
        }
        match chunk.kind {
            wire::REPLY_TYPE_NONE if chunk.length != 0 || !chunk.last => return Err(chunk.bad()),
            wire::REPLY_TYPE_NONE => {}
            wire::REPLY_TYPE_OFFSET_DATA => self.data_chunk(chunk, buffer)?,
            wire::REPLY_TYPE_OFFSET_HOLE => self.hole_chunk(chunk)?,
            wire::REPLY_TYPE_BLOCK_STATUS if self.mode == ReplyMode::Structured => {
                self.status_chunk(chunk)?;
            }
            wire::REPLY_TYPE_BLOCK_STATUS_EXT if self.mode == ReplyMode::Extended => {
                self.status_chunk(chunk)?;
            }
            kind if kind & wire::REPLY_TYPE_ERROR_BIT != 0 => self.error_chunk(chunk)?,
            _ => return Err(Violation::WrongKind.into()),
        }
        if !chunk.last {
            return Ok(None);
        }
        let request = self.in_flight.remove(&chunk.cookie).expect("looked up above");
        complete(chunk.cookie, request, buffer).map(Some)
    }

    fn data_chunk(&mut self, chunk: &Chunk, buffer: &mut [u8]) -> Result<(), RecvError> {
        if chunk.length <= 8 {
            return Err(chunk.bad());
        }
        let at = u64::from_be_bytes(self.transport.take()?);
        let bytes = chunk.length - 8;
        let request = self.in_flight.get_mut(&chunk.cookie).expect("looked up by the caller");
        let start = place(request, at, bytes)?;
        let Kind::Read { length, parts, .. } = &mut request.kind else {
            return Err(Violation::WrongKind.into());
        };
        if chunk.last && bytes == *length {
            // All in one piece, which is the rule: no detour.
            return Ok(self.transport.read_into(room(buffer, bytes)?)?);
        }
        let whole = usize::try_from(*length).map_err(|_| RecvError::BufferTooSmall(*length))?;
        parts.resize(whole, 0);
        let part = &mut parts[start..][..room_len(bytes)?];
        Ok(self.transport.read_into(part)?)
    }

    fn hole_chunk(&mut self, chunk: &Chunk) -> Result<(), RecvError> {
        if chunk.length != 12 {
            return Err(chunk.bad());
        }
        let at = u64::from_be_bytes(self.transport.take()?);
        let bytes = u64::from(u32::from_be_bytes(self.transport.take()?));
        let request = self.in_flight.get_mut(&chunk.cookie).expect("looked up by the caller");
        place(request, at, bytes)?;
        let Kind::Read { length, parts, .. } = &mut request.kind else {
            return Err(Violation::WrongKind.into());
        };
        // Parts start out as zeroes, and no part is written twice.
        parts.resize(room_len(*length)?, 0);
        Ok(())
    }

    fn status_chunk(&mut self, chunk: &Chunk) -> Result<(), RecvError> {
        let wide = self.mode == ReplyMode::Extended;
        let (head, each) = if wide { (8, 16) } else { (4, 8) };
        let count = chunk.length.saturating_sub(head) / each;
        if count == 0 || count > wire::EXTENTS_MAX as u64 || chunk.length != head + count * each {
            return Err(chunk.bad());
        }
        let context = u32::from_be_bytes(self.transport.take()?);
        if wide && u64::from(u32::from_be_bytes(self.transport.take()?)) != count {
            return Err(chunk.bad());
        }
        let request = self.in_flight.get_mut(&chunk.cookie).expect("looked up by the caller");
        let Kind::Status { extents } = &mut request.kind else {
            return Err(Violation::WrongKind.into());
        };
        if self.context != Some(context) || !extents.is_empty() {
            return Err(Violation::WrongKind.into());
        }
        for _ in 0..count {
            let (length, flags) = if wide {
                let length = u64::from_be_bytes(self.transport.take()?);
                // `base:allocation` has no flags above the lower 32 bits.
                (length, u64::from_be_bytes(self.transport.take()?) as u32)
            } else {
                let length = u32::from_be_bytes(self.transport.take()?);
                (u64::from(length), u32::from_be_bytes(self.transport.take()?))
            };
            if length == 0 {
                return Err(chunk.bad());
            }
            extents.push(Extent { length, flags });
        }
        Ok(())
    }

    fn error_chunk(&mut self, chunk: &Chunk) -> Result<(), RecvError> {
        if chunk.length < 6 || chunk.length > ERROR_CHUNK_MAX {
            return Err(chunk.bad());
        }
        let payload = self.transport.take_vec(chunk.length as usize)?;
        let mut payload = Cursor(&payload);
        let parsed = (|| {
            let errno = Errno::from_wire(payload.u32()?)?;
            let length = usize::from(payload.u16()?);
            Some((errno, String::from_utf8_lossy(payload.take(length)?).into_owned()))
        })();
        let failure = parsed.ok_or_else(|| chunk.bad())?;
        let request = self.in_flight.get_mut(&chunk.cookie).expect("looked up by the caller");
        request.failure.get_or_insert(failure);
        Ok(())
    }
}

/// Counts `bytes` at `at` as received and returns where they start in the request.
fn place(request: &mut InFlight, at: u64, bytes: u64) -> Result<usize, RecvError> {
    let Kind::Read { offset, length, received, .. } = &mut request.kind else {
        return Err(Violation::WrongKind.into());
    };
    let start = at.checked_sub(*offset).ok_or(Violation::OutOfRange)?;
    let fits = start.checked_add(bytes).is_some_and(|end| end <= *length);
    if bytes == 0 || !fits || *received + bytes > *length {
        return Err(Violation::OutOfRange.into());
    }
    *received += bytes;
    room_len(start)
}

fn complete(cookie: u64, request: InFlight, buffer: &mut [u8]) -> Result<Reply, RecvError> {
    if let Some(failure) = request.failure {
        return Ok(Reply { cookie, result: Err(failure) });
    }
    let body = match request.kind {
        Kind::Plain => ReplyBody::Done,
        Kind::Read { length, received, parts, .. } => {
            if received != length {
                return Err(Violation::Incomplete.into());
            }
            let room = room(buffer, length)?;
            if !parts.is_empty() {
                room.copy_from_slice(&parts);
            }
            ReplyBody::Data(room.len())
        }
        Kind::Status { extents } if extents.is_empty() => return Err(Violation::Incomplete.into()),
        Kind::Status { extents } => ReplyBody::Status(extents),
    };
    Ok(Reply { cookie, result: Ok(body) })
}

/// The part of the caller's buffer that `length` bytes take up.
fn room(buffer: &mut [u8], length: u64) -> Result<&mut [u8], RecvError> {
    buffer.get_mut(..room_len(length)?).ok_or(RecvError::BufferTooSmall(length))
}

fn room_len(length: u64) -> Result<usize, RecvError> {
    usize::try_from(length).map_err(|_| RecvError::BufferTooSmall(length))
}
