//! The Network Block Device protocol, bytes in and bytes out.
//!
//! This crate knows the wire and nothing else: no sockets, no threads, no clock, no RAID. A server
//! reads bytes from wherever it likes and hands them over; it gets decisions and bytes to send
//! back.
//!
//! - [`ServerHandshake`] talks fixed newstyle negotiation until a client has chosen an export;
//! - [`RequestStream`] cuts a receive buffer into checked [`Request`]s, many out of one receive;
//! - [`ReplyMode`] appends replies to a buffer that the caller owns, many for one send;
//! - [`Client`] is a small blocking client over any `Read + Write`, for demos, tests and load.
//!
//! The protocol is the public specification `doc/proto.md` of the NetworkBlockDevice project, with
//! its extension for extended headers. TLS, resizing and the payload form of block status are not
//! offered.
//!
//! # Example: a server, without its sockets
//!
//! ```
//! use forestall_nbd::{ExportInfo, Exports, Next, Outcome, RequestStream, ServerHandshake};
//!
//! struct OneDisk;
//! impl Exports for OneDisk {
//!     fn list(&self) -> Vec<ExportInfo> {
//!         vec![ExportInfo::new("disk", 1 << 20)]
//!     }
//!     fn find(&self, name: &str) -> Option<ExportInfo> {
//!         // The empty name asks for the default export.
//!         (name.is_empty() || name == "disk").then(|| ExportInfo::new("disk", 1 << 20))
//!     }
//! }
//!
//! // What a client sends: its flags, then "EXPORT_NAME disk", then a 512-byte read at offset 4096.
//! let mut received = Vec::new();
//! received.extend(3u32.to_be_bytes());
//! received.extend(b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk");
//! received.extend(0x2560_9513u32.to_be_bytes());
//! received.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]); // flags, READ, cookie 7
//! received.extend(4096u64.to_be_bytes());
//! received.extend(512u32.to_be_bytes());
//!
//! let mut to_send = Vec::new();
//! let mut handshake = ServerHandshake::begin(&mut to_send);
//! let mut at = 0;
//! let negotiated = loop {
//!     let step = handshake.advance(&OneDisk, &received[at..], &mut to_send);
//!     at += step.consumed;
//!     match step.outcome {
//!         Outcome::Continue => {}
//!         Outcome::Transmission(negotiated) => break negotiated,
//!         Outcome::NeedMore | Outcome::Closed(_) => unreachable!("the script is complete"),
//!     }
//! };
//!
//! let mut requests = RequestStream::new(&negotiated);
//! let (_used, next) = requests.next(&negotiated, &received[at..]).unwrap();
//! let Next::Request(read) = next else { panic!("a whole request was there") };
//! assert_eq!((read.cookie, read.offset, read.length), (7, 4096, 512));
//!
//! // The reply's header goes into one buffer, the data may stay where it is.
//! negotiated.mode.read(&mut to_send, read.tag(), 512);
//! ```
#![forbid(unsafe_code)]

mod bytes;
mod client;
mod export;
#[doc(hidden)]
pub mod fuzz;
mod handshake;
mod parser;
mod reply;
mod request;
pub mod wire;

pub use client::{
    Client, ClientOptions, ConnectError, ListedExport, RecvError, RemoteExport, Reply, ReplyBody,
    RequestError, SendError, Violation, ZeroOptions, list_exports,
};
pub use export::{BlockSizeError, BlockSizes, ExportInfo, Exports};
pub use handshake::{
    CloseReason, HANDSHAKE_INPUT_MAX, HandshakeStep, Negotiated, OPTIONS_MAX, Outcome,
    ServerHandshake,
};
pub use parser::{Next, RequestStream};
pub use reply::{Extent, READ_HEADER_MAX, ReplyMode, StatusQuery, Tag};
pub use request::{
    Command, HeaderForm, PAYLOAD_DRAIN_MAX, ProtocolError, RejectReason, Rejected, Request,
    RequestHeader, check,
};
pub use wire::Errno;
