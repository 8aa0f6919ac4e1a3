//! Errors of the client, one type for each thing that can fail.

use crate::wire::Errno;
use std::io;

/// The server broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Something else stands where a reply should start.
    #[error("bytes {0:#010x} where a reply should start")]
    BadMagic(u32),
    /// A reply to a request that is not in flight.
    #[error("reply to cookie {0}, which is not in flight")]
    UnknownCookie(u64),
    /// A kind of reply that was not negotiated, or not for this command.
    #[error("reply of a kind that this request cannot have")]
    WrongKind,
    /// A chunk whose length does not fit its type.
    #[error("chunk of type {kind:#x} with a length of {length}")]
    BadChunk {
        /// Chunk type.
        kind: u16,
        /// Announced length in bytes.
        length: u64,
    },
    /// Data outside what was asked for, or twice the same.
    #[error("data outside the request")]
    OutOfRange,
    /// A reply that claims success with something missing.
    #[error("reply ended before it was complete")]
    Incomplete,
    /// An option reply that is malformed or too large.
    #[error("malformed reply to option {0}")]
    BadOptionReply(u32),
}

/// Why a session could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection failed.
    #[error("connection failed during negotiation")]
    Io(#[from] io::Error),
    /// What answers is no NBD server, or one of before 2011.
    #[error("the other end does not speak fixed newstyle NBD")]
    NotNbd,
    /// The server refused an option that cannot be done without.
    #[error("server refused option {option} with code {code:#x}: {message}")]
    Refused {
        /// Option number.
        option: u32,
        /// Reply type, `wire::REP_ERR_...`.
        code: u32,
        /// The server's text; may be empty.
        message: String,
    },
    /// The server broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// Why a request could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The connection failed.
    #[error("connection failed while sending")]
    Io(#[from] io::Error),
    /// The length does not fit the negotiated header.
    #[error("a length of {0} bytes needs extended headers")]
    TooLong(u64),
    /// An earlier error ended the session.
    #[error("the session is broken by an earlier error")]
    Broken,
}

/// Why no reply could be received.
#[derive(Debug, thiserror::Error)]
pub enum RecvError {
    /// The connection failed.
    #[error("connection failed while receiving")]
    Io(#[from] io::Error),
    /// The server broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The buffer is shorter than the read that was answered.
    #[error("the reply needs a buffer of {0} bytes")]
    BufferTooSmall(u64),
    /// There is nothing to wait for.
    #[error("no request is in flight")]
    NothingInFlight,
    /// An earlier error ended the session.
    #[error("the session is broken by an earlier error")]
    Broken,
}

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It could not be sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Its reply could not be received.
    #[error(transparent)]
    Recv(#[from] RecvError),
    /// The server answered with an error; the session goes on.
    #[error("server answered: {errno}; {message}")]
    Refused {
        /// The error value.
        errno: Errno,
        /// The server's text; may be empty.
        message: String,
    },
    /// Replies of pipelined requests have not been received yet.
    #[error("pipelined requests are still in flight")]
    Pipelined,
}
