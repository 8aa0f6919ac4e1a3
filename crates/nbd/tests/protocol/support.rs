//! A server in memory, driven without sockets or threads.
//!
//! [`Loopback`] is the far end of a connection: what a client writes is served at once, what it
//! reads are the replies. It delivers bytes in small pieces when asked to, so that nothing can rely
//! on how they arrive.

use forestall_nbd::{
    Command, ExportInfo, Exports, Extent, HANDSHAKE_INPUT_MAX, Negotiated, Next, Outcome, Request,
    RequestStream, ServerHandshake, StatusQuery, wire,
};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

/// The bytes of the export and what was asked of it.
#[derive(Default)]
pub struct Store {
    pub bytes: Vec<u8>,
    pub flushes: usize,
    pub seen: Vec<Request>,
}

/// Exports `disk` (the default) and `frozen`, which is read-only.
pub struct TwoExports {
    pub size: u64,
}

impl Exports for TwoExports {
    fn list(&self) -> Vec<ExportInfo> {
        ["disk", "frozen"].into_iter().filter_map(|name| self.find(name)).collect()
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        match name {
            "" | "disk" => {
                let description = "a disk in memory".to_owned();
                Some(ExportInfo { description, ..ExportInfo::new("disk", self.size) })
            }
            "frozen" => {
                Some(ExportInfo { read_only: true, ..ExportInfo::new("frozen", self.size) })
            }
            _ => None,
        }
    }
}

enum Phase {
    Handshake(ServerHandshake),
    Transmission(Box<Negotiated>, RequestStream),
    /// The payload of a write, gathered across receives.
    Payload(Box<Negotiated>, RequestStream, Request, Vec<u8>),
    Closed,
}

/// The far end of a connection.
pub struct Loopback {
    exports: TwoExports,
    store: Rc<RefCell<Store>>,
    phase: Phase,
    received: Vec<u8>,
    to_send: Vec<u8>,
    sent: usize,
    /// Most bytes for one read or write of the client.
    piece: usize,
    /// Answer reads in two chunks, the second half first.
    fragment: bool,
}

impl Loopback {
    pub fn new(store: &Rc<RefCell<Store>>, piece: usize, fragment: bool) -> Self {
        let mut to_send = Vec::new();
        let phase = Phase::Handshake(ServerHandshake::begin(&mut to_send));
        let exports = TwoExports { size: store.borrow().bytes.len() as u64 };
        let store = Rc::clone(store);
        let received = Vec::new();
        Self { exports, store, phase, received, to_send, sent: 0, piece, fragment }
    }

    fn serve(&mut self) {
        while self.serve_one() {}
        // The transmission phase keeps less than a header, the handshake less than its stated
        // bound.
        assert!(self.received.len() < HANDSHAKE_INPUT_MAX);
    }

    /// Handles what comes first; false when more has to be received.
    fn serve_one(&mut self) -> bool {
        match std::mem::replace(&mut self.phase, Phase::Closed) {
            Phase::Handshake(mut handshake) => {
                let step = handshake.advance(&self.exports, &self.received, &mut self.to_send);
                self.received.drain(..step.consumed);
                let more = !matches!(step.outcome, Outcome::NeedMore);
                self.phase = match step.outcome {
                    Outcome::NeedMore | Outcome::Continue => Phase::Handshake(handshake),
                    Outcome::Transmission(negotiated) => {
                        let stream = RequestStream::new(&negotiated);
                        Phase::Transmission(negotiated, stream)
                    }
                    Outcome::Closed(_) => Phase::Closed,
                };
                more
            }
            Phase::Transmission(negotiated, mut stream) => {
                let Ok((used, next)) = stream.next(&negotiated, &self.received) else {
                    return true;
                };
                self.received.drain(..used);
                match next {
                    Next::NeedMore => {
                        self.phase = Phase::Transmission(negotiated, stream);
                        return false;
                    }
                    Next::Rejected(rejected) => {
                        rejected.reply(negotiated.mode, &mut self.to_send);
                        self.phase = Phase::Transmission(negotiated, stream);
                    }
                    Next::Request(Request { command: Command::Disconnect, .. }) => {}
                    Next::Request(request) => {
                        self.phase = Phase::Payload(negotiated, stream, request, Vec::new());
                    }
                }
                true
            }
            Phase::Payload(negotiated, stream, request, mut payload) => {
                let missing = request.payload() as usize - payload.len();
                payload.extend(self.received.drain(..missing.min(self.received.len())));
                if payload.len() < request.payload() as usize {
                    self.phase = Phase::Payload(negotiated, stream, request, payload);
                    return false;
                }
                self.execute(&negotiated, &request, &payload);
                self.phase = Phase::Transmission(negotiated, stream);
                true
            }
            Phase::Closed => {
                self.received.clear();
                false
            }
        }
    }

    fn execute(&mut self, negotiated: &Negotiated, request: &Request, payload: &[u8]) {
        let mut store = self.store.borrow_mut();
        store.seen.push(*request);
        let (mode, tag, out) = (negotiated.mode, request.tag(), &mut self.to_send);
        let start = request.offset as usize;
        let range = start..start + request.length as usize;
        match request.command {
            Command::Read { dont_fragment } => {
                let half = (request.length / 2) as u32;
                if self.fragment && !dont_fragment && half > 0 {
                    let rest = request.length as u32 - half;
                    let middle = request.offset + u64::from(half);
                    mode.data_chunk(out, tag, middle, rest, false);
                    out.extend_from_slice(&store.bytes[middle as usize..range.end]);
                    if store.bytes[start..middle as usize].iter().all(|byte| *byte == 0) {
                        mode.hole_chunk(out, tag, request.offset, half, false);
                    } else {
                        mode.data_chunk(out, tag, request.offset, half, false);
                        out.extend_from_slice(&store.bytes[start..middle as usize]);
                    }
                    mode.finish(out, tag);
                } else {
                    mode.read(out, tag, request.length as u32);
                    out.extend_from_slice(&store.bytes[range]);
                }
                return;
            }
            Command::Write => store.bytes[range].copy_from_slice(payload),
            Command::Trim | Command::WriteZeroes { .. } => store.bytes[range].fill(0),
            Command::Flush => store.flushes += 1,
            Command::Cache => {}
            Command::BlockStatus { req_one } => {
                let context = negotiated.allocation_context.expect("checked");
                let query = StatusQuery { context, length: request.length, req_one };
                let blocks = store.bytes[start..].chunks(512).map(|block| Extent {
                    length: block.len() as u64,
                    flags: if block.iter().all(|byte| *byte == 0) { wire::STATE_ZERO } else { 0 },
                });
                return mode.block_status(out, tag, query, blocks);
            }
            Command::Disconnect => unreachable!("handled before"),
        }
        mode.done(out, tag);
    }
}

impl Read for Loopback {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let waiting = &self.to_send[self.sent..];
        let length = waiting.len().min(buffer.len()).min(self.piece);
        buffer[..length].copy_from_slice(&waiting[..length]);
        self.sent += length;
        Ok(length)
    }
}

impl Write for Loopback {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        if matches!(self.phase, Phase::Closed) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let length = buffer.len().min(self.piece);
        self.received.extend_from_slice(&buffer[..length]);
        self.serve();
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
