//! A small blocking client over any `Read + Write`.
//!
//! Owns the client's side of a session: choosing an export (`client/negotiate.rs`), sending
//! requests, and putting replies together (`client/receive.rs`). Meant for demos, tests and load:
//! it asks for one export, keeps any number of requests in flight and does not judge them, so that
//! a server's refusals can be tried, too.
//!
//! Invariants: a cookie is never used twice; after an I/O error or a violation by the server the
//! client is *broken* and answers nothing else, because the place in the stream is lost; no length
//! from the server is trusted with memory: data costs what the request asked for, a negotiation at
//! most 4 MiB, a block status what really arrived.

mod error;
mod negotiate;
mod receive;
mod transport;

use crate::bytes::Put;
use crate::reply::{Extent, ReplyMode};
use crate::wire::{self, Errno};
use std::collections::HashMap;
use std::io::{Read, Write};

pub use error::{ConnectError, RecvError, RequestError, SendError, Violation};
pub use negotiate::list_exports;
use receive::InFlight;
use transport::Transport;

/// Writes up to this many bytes are sent together with other requests; longer ones are not copied.
const COALESCE_MAX: usize = 16 << 10;

/// What to ask a server for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientOptions {
    /// Name of the export; empty for the default one.
    pub export: String,
    /// Ask for structured replies.
    pub structured: bool,
    /// Ask for extended headers; falls back to what else is asked for.
    pub extended: bool,
    /// Ask for `base:allocation`, without which there is no block status. Needs one of the two
    /// above.
    pub allocation: bool,
}

impl ClientOptions {
    /// Asks for everything that the protocol has.
    pub fn new(export: impl Into<String>) -> Self {
        Self { export: export.into(), structured: true, extended: true, allocation: true }
    }
}

/// The export as the server described it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RemoteExport {
    /// The export's own name; empty if the server did not tell.
    pub name: String,
    /// Text for people; may be empty.
    pub description: String,
    /// Size in bytes.
    pub size: u64,
    /// Transmission flags, `wire::FLAG_...`.
    pub flags: u16,
    /// Minimum and preferred block size and maximum payload in bytes, if told.
    pub block_sizes: Option<[u32; 3]>,
}

/// One entry of a server's list of exports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedExport {
    /// Name of the export.
    pub name: String,
    /// Text for people; may be empty.
    pub description: String,
}

/// How to write zeroes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ZeroOptions {
    /// Answer only when durable.
    pub fua: bool,
    /// Keep the range allocated.
    pub no_hole: bool,
    /// Fail with `ENOTSUP` rather than be slow.
    pub fast: bool,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The cookie that sending the request returned.
    pub cookie: u64,
    /// What the server answered; on failure the error and its text.
    pub result: Result<ReplyBody, (Errno, String)>,
}

/// The contents of a successful reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyBody {
    /// Success without data.
    Done,
    /// A read: this many bytes at the start of the buffer.
    Data(usize),
    /// A block status: consecutive extents from the request's offset.
    Status(Vec<Extent>),
}

/// A session with one export.
#[derive(Debug)]
pub struct Client<S> {
    transport: Transport<S>,
    export: RemoteExport,
    mode: ReplyMode,
    context: Option<u32>,
    next_cookie: u64,
    in_flight: HashMap<u64, InFlight>,
    broken: bool,
}

impl<S: Read + Write> Client<S> {
    /// Negotiates over `stream` and enters transmission.
    ///
    /// # Errors
    /// [`ConnectError::Refused`] when the export does not exist; the connection is then to be
    /// dropped.
    pub fn connect(stream: S, options: &ClientOptions) -> Result<Self, ConnectError> {
        let (transport, export, mode, context) = negotiate::go(stream, options)?;
        Ok(Self {
            transport,
            export,
            mode,
            context,
            next_cookie: 1,
            in_flight: HashMap::new(),
            broken: false,
        })
    }

    /// The export as the server described it.
    pub fn export(&self) -> &RemoteExport {
        &self.export
    }

    /// The kind of replies that was negotiated.
    pub fn mode(&self) -> ReplyMode {
        self.mode
    }

    /// Whether block status can be asked for.
    pub fn has_allocation(&self) -> bool {
        self.context.is_some()
    }

    /// Requests whose replies were not received yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Reads into all of `buffer`.
    ///
    /// # Errors
    /// [`RequestError`], as for every blocking call; after [`RequestError::Refused`] the session
    /// goes on.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), RequestError> {
        self.alone()?;
        self.send_read(offset, buffer.len() as u64)?;
        self.wait(buffer).map(|_| ())
    }

    /// Writes all of `data`; with `fua` it is durable on return.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn write(&mut self, offset: u64, data: &[u8], fua: bool) -> Result<(), RequestError> {
        self.alone()?;
        self.send_write(offset, data, fua)?;
        self.wait(&mut []).map(|_| ())
    }

    /// Makes everything durable that was answered before.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn flush(&mut self) -> Result<(), RequestError> {
        self.alone()?;
        self.send_flush()?;
        self.wait(&mut []).map(|_| ())
    }

    /// Tells that a range is no longer needed.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn trim(&mut self, offset: u64, length: u64, fua: bool) -> Result<(), RequestError> {
        self.alone()?;
        self.send_trim(offset, length, fua)?;
        self.wait(&mut []).map(|_| ())
    }

    /// Makes a range read as zeroes.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn write_zeroes(
        &mut self,
        offset: u64,
        length: u64,
        options: ZeroOptions,
    ) -> Result<(), RequestError> {
        self.alone()?;
        self.send_write_zeroes(offset, length, options)?;
        self.wait(&mut []).map(|_| ())
    }

    /// Tells that a range will be read soon.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn cache(&mut self, offset: u64, length: u64) -> Result<(), RequestError> {
        self.alone()?;
        self.send_cache(offset, length)?;
        self.wait(&mut []).map(|_| ())
    }

    /// Extents from `offset` on, at least one; they may cover less than `length` bytes.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub fn block_status(
        &mut self,
        offset: u64,
        length: u64,
        req_one: bool,
    ) -> Result<Vec<Extent>, RequestError> {
        self.alone()?;
        self.send_block_status(offset, length, req_one)?;
        match self.wait(&mut [])? {
            ReplyBody::Status(extents) => Ok(extents),
            ReplyBody::Done | ReplyBody::Data(_) => {
                unreachable!("the receiver matches replies with their requests")
            }
        }
    }

    /// Says goodbye. What is in flight may or may not be done.
    ///
    /// # Errors
    /// When the connection fails.
    pub fn disconnect(mut self) -> Result<(), SendError> {
        self.request(wire::CMD_DISC, 0, 0, 0, InFlight::plain())?;
        self.submit()
    }

    /// Queues a read and returns its cookie. Queued requests go out with [`Client::submit`] or with
    /// the next [`Client::recv_reply`].
    ///
    /// # Errors
    /// [`SendError`], as for every `send_` call.
    pub fn send_read(&mut self, offset: u64, length: u64) -> Result<u64, SendError> {
        self.request(wire::CMD_READ, 0, offset, length, InFlight::read(offset, length))
    }

    /// Queues a write and returns its cookie. Long writes go out at once: a client that sends many
    /// without receiving replies can block for good, as both sides then wait to send.
    ///
    /// # Errors
    /// As [`Client::send_read`].
    pub fn send_write(&mut self, offset: u64, data: &[u8], fua: bool) -> Result<u64, SendError> {
        let mut flags = if fua { wire::CMD_FLAG_FUA } else { 0 };
        if self.mode == ReplyMode::Extended {
            flags |= wire::CMD_FLAG_PAYLOAD_LEN;
        }
        let length = data.len() as u64;
        let cookie = self.request(wire::CMD_WRITE, flags, offset, length, InFlight::plain())?;
        if data.len() <= COALESCE_MAX {
            self.transport.out.put(data);
        } else if let Err(error) = self.transport.send_with(data) {
            self.broken = true;
            return Err(error.into());
        }
        Ok(cookie)
    }

    /// Queues a flush and returns its cookie.
    ///
    /// # Errors
    /// As [`Client::send_read`].
    pub fn send_flush(&mut self) -> Result<u64, SendError> {
        self.request(wire::CMD_FLUSH, 0, 0, 0, InFlight::plain())
    }

    /// Queues a trim and returns its cookie.
    ///
    /// # Errors
    /// As [`Client::send_read`].
    pub fn send_trim(&mut self, offset: u64, length: u64, fua: bool) -> Result<u64, SendError> {
        let flags = if fua { wire::CMD_FLAG_FUA } else { 0 };
        self.request(wire::CMD_TRIM, flags, offset, length, InFlight::plain())
    }

    /// Queues a write of zeroes and returns its cookie.
    ///
    /// # Errors
    /// As [`Client::send_read`].
    pub fn send_write_zeroes(
        &mut self,
        offset: u64,
        length: u64,
        options: ZeroOptions,
    ) -> Result<u64, SendError> {
        let flags = [
            (options.fua, wire::CMD_FLAG_FUA),
            (options.no_hole, wire::CMD_FLAG_NO_HOLE),
            (options.fast, wire::CMD_FLAG_FAST_ZERO),
        ];
        let flags = flags.into_iter().filter(|(on, _)| *on).fold(0, |all, (_, flag)| all | flag);
        self.request(wire::CMD_WRITE_ZEROES, flags, offset, length, InFlight::plain())
    }

    /// Queues a cache request and returns its cookie.
    ///
    /// # Errors
    /// As [`Client::send_read`].
    pub fn send_cache(&mut self, offset: u64, length: u64) -> Result<u64, SendError> {
        self.request(wire::CMD_CACHE, 0, offset, length, InFlight::plain())
    }

    /// Queues a block status request and returns its cookie.
    ///
    /// # Errors
    /// As [`Client::send_read`].
    pub fn send_block_status(
        &mut self,
        offset: u64,
        length: u64,
        req_one: bool,
    ) -> Result<u64, SendError> {
        let flags = if req_one { wire::CMD_FLAG_REQ_ONE } else { 0 };
        self.request(wire::CMD_BLOCK_STATUS, flags, offset, length, InFlight::status())
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// [`SendError::Io`]; the session is over then.
    pub fn submit(&mut self) -> Result<(), SendError> {
        if self.broken {
            return Err(SendError::Broken);
        }
        self.transport.send().inspect_err(|_| self.broken = true)?;
        Ok(())
    }

    fn request(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        length: u64,
        expected: InFlight,
    ) -> Result<u64, SendError> {
        if self.broken {
            return Err(SendError::Broken);
        }
        let extended = self.mode == ReplyMode::Extended;
        let narrow = u32::try_from(length);
        if !extended && narrow.is_err() {
            return Err(SendError::TooLong(length));
        }
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let out = &mut self.transport.out;
        out.put_u32(if extended { wire::EXTENDED_REQUEST_MAGIC } else { wire::REQUEST_MAGIC });
        out.put_u16(flags);
        out.put_u16(command);
        out.put_u64(cookie);
        out.put_u64(offset);
        match narrow {
            Ok(narrow) if !extended => out.put_u32(narrow),
            _ => out.put_u64(length),
        }
        self.in_flight.insert(cookie, expected);
        Ok(cookie)
    }

    /// Blocking calls and pipelining do not mix: the former would swallow the latter's replies.
    fn alone(&self) -> Result<(), RequestError> {
        if self.in_flight.is_empty() { Ok(()) } else { Err(RequestError::Pipelined) }
    }

    fn wait(&mut self, buffer: &mut [u8]) -> Result<ReplyBody, RequestError> {
        self.recv_reply(buffer)?
            .result
            .map_err(|(errno, message)| RequestError::Refused { errno, message })
    }
}
