//! The smallest server on this crate: one disk in memory behind a unix socket, one thread for each
//! client.
//!
//! Shows how the pieces fit together, and lets other people's clients try the protocol:
//!
//! ```text
//! cargo run -p forestall-nbd --example memory_server -- /tmp/memory.sock 64
//! nbdinfo --map 'nbd+unix:///?socket=/tmp/memory.sock'
//! ```

use forestall_nbd::{
    Command, ExportInfo, Exports, Extent, Negotiated, Next, Outcome, Request, RequestStream,
    ServerHandshake, StatusQuery, wire,
};
use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex, PoisonError};

/// Size of the receive buffer in bytes; must hold `HANDSHAKE_INPUT_MAX`.
const BUFFER_LEN: usize = 256 << 10;
/// Replies are sent once this many bytes are waiting, or when nothing more is there to be done.
const SEND_AT: usize = 1 << 20;

struct OneDisk(u64);

impl Exports for OneDisk {
    fn list(&self) -> Vec<ExportInfo> {
        vec![ExportInfo::new("memory", self.0)]
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        matches!(name, "" | "memory").then(|| ExportInfo::new("memory", self.0))
    }
}

/// The bytes received and not yet used.
struct Receiver {
    stream: UnixStream,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Receiver {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn more(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match self.stream.read(&mut self.buffer[self.end..])? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            received => {
                self.end += received;
                Ok(())
            }
        }
    }

    /// A write's payload: what is buffered of it, the rest straight from the socket.
    fn payload(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut payload = vec![0; length];
        let buffered = length.min(self.end - self.start);
        payload[..buffered].copy_from_slice(&self.buffer[self.start..self.start + buffered]);
        self.start += buffered;
        self.stream.read_exact(&mut payload[buffered..])?;
        Ok(payload)
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(Ok(mib))) =
        (arguments.next(), arguments.next().map(|mib| mib.parse::<usize>()))
    else {
        eprintln!("usage: memory_server SOCKET MIB");
        std::process::exit(2);
    };
    let disk = Arc::new(Mutex::new(vec![0; mib << 20]));
    let listener = UnixListener::bind(path)?;
    println!("ready");
    for stream in listener.incoming() {
        let (stream, disk) = (stream?, Arc::clone(&disk));
        std::thread::spawn(move || {
            if let Err(error) = session(stream, &disk) {
                eprintln!("session ended: {error}");
            }
        });
    }
    Ok(())
}

fn session(mut stream: UnixStream, disk: &Mutex<Vec<u8>>) -> io::Result<()> {
    let size = disk.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
    let mut receiver =
        Receiver { stream: stream.try_clone()?, buffer: vec![0; BUFFER_LEN], start: 0, end: 0 };
    let mut out = Vec::new();
    let mut handshake = ServerHandshake::begin(&mut out);
    let negotiated = loop {
        let step = handshake.advance(&OneDisk(size), receiver.bytes(), &mut out);
        receiver.start += step.consumed;
        stream.write_all(&out)?;
        out.clear();
        match step.outcome {
            Outcome::Continue => {}
            Outcome::NeedMore => receiver.more()?,
            Outcome::Transmission(negotiated) => break negotiated,
            Outcome::Closed(reason) => return Err(io::Error::other(reason)),
        }
    };
    let mut requests = RequestStream::new(&negotiated);
    loop {
        let (used, next) =
            requests.next(&negotiated, receiver.bytes()).map_err(io::Error::other)?;
        receiver.start += used;
        match next {
            Next::NeedMore => {
                stream.write_all(&out)?;
                out.clear();
                receiver.more()?;
            }
            Next::Rejected(rejected) => rejected.reply(negotiated.mode, &mut out),
            Next::Request(Request { command: Command::Disconnect, .. }) => {
                return stream.write_all(&out);
            }
            Next::Request(request) => {
                let payload = receiver.payload(request.payload() as usize)?;
                let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
                execute(&mut disk, &negotiated, &request, &payload, &mut out);
            }
        }
        if out.len() >= SEND_AT {
            stream.write_all(&out)?;
            out.clear();
        }
    }
}

fn execute(
    disk: &mut [u8],
    negotiated: &Negotiated,
    request: &Request,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    let (mode, tag) = (negotiated.mode, request.tag());
    let range = request.offset as usize..(request.offset + request.length) as usize;
    match request.command {
        Command::Read { .. } => {
            mode.read(out, tag, request.length as u32);
            out.extend_from_slice(&disk[range]);
            return;
        }
        Command::BlockStatus { req_one } => {
            let context = negotiated.allocation_context.expect("checked with the request");
            let query = StatusQuery { context, length: request.length, req_one };
            let blocks = disk[range].chunks(4096).map(|block| Extent {
                length: block.len() as u64,
                flags: if block.iter().all(|byte| *byte == 0) {
                    wire::STATE_HOLE | wire::STATE_ZERO
                } else {
                    0
                },
            });
            return mode.block_status(out, tag, query, blocks);
        }
        Command::Write => disk[range].copy_from_slice(payload),
        Command::Trim | Command::WriteZeroes { .. } => disk[range].fill(0),
        Command::Flush | Command::Cache | Command::Disconnect => {}
    }
    mode.done(out, tag);
}
