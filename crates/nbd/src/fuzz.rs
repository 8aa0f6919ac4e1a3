//! Entry points for fuzzing: any bytes, no panics, and the stated bounds hold.
//!
//! Plain functions, so that fuzz targets and property tests run the very same checks. Not for other
//! use.

use crate::client::{Client, ClientOptions, list_exports};
use crate::export::{BlockSizes, ExportInfo, Exports};
use crate::handshake::{HANDSHAKE_INPUT_MAX, Negotiated, Outcome, ServerHandshake};
use crate::parser::{Next, RequestStream};
use crate::reply::ReplyMode;
use std::io::{self, Read, Write};

struct TwoExports;

impl Exports for TwoExports {
    fn list(&self) -> Vec<ExportInfo> {
        ["a", "b"].into_iter().filter_map(|name| self.find(name)).collect()
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        match name {
            "" | "a" => Some(ExportInfo::new("a", 1 << 20)),
            "b" => Some(ExportInfo { read_only: true, ..ExportInfo::new("b", 1 << 40) }),
            _ => None,
        }
    }
}

/// A client that sends `data`: at once and byte by byte it is answered the same, and never needs
/// more room than promised.
pub fn handshake(data: &[u8]) {
    let whole = negotiate(data, data.len());
    let single = negotiate(data, 1);
    assert!(whole == single, "the outcome depends on how the bytes arrive");
}

/// Feeds `data` in pieces; returns the output, the bytes used and the agreement, if any.
fn negotiate(data: &[u8], piece: usize) -> (Vec<u8>, usize, Option<Box<Negotiated>>) {
    let mut out = Vec::new();
    let mut handshake = ServerHandshake::begin(&mut out);
    let (mut used, mut seen) = (0, 0);
    loop {
        let step = handshake.advance(&TwoExports, &data[used..seen], &mut out);
        assert!(step.consumed <= seen - used, "more consumed than received");
        used += step.consumed;
        match step.outcome {
            Outcome::Continue => {}
            Outcome::NeedMore => {
                assert!(seen - used < HANDSHAKE_INPUT_MAX, "more input wanted than promised");
                if seen == data.len() {
                    return (out, used, None);
                }
                seen = data.len().min(seen + piece);
            }
            Outcome::Transmission(negotiated) => return (out, used, Some(negotiated)),
            Outcome::Closed(_) => return (out, 0, None),
        }
    }
}

/// A client in transmission that sends `data`; the first byte chooses what was negotiated.
pub fn requests(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let mut export = ExportInfo::new("a", 1 << (choice >> 3));
    export.read_only = choice & 4 != 0;
    if choice & 8 != 0 {
        export.block_sizes = BlockSizes::new(512, 4096, 1 << 20).expect("within the bounds");
    }
    let mode = [ReplyMode::Simple, ReplyMode::Structured, ReplyMode::Extended]
        [usize::from(choice & 3) % 3];
    let negotiated =
        Negotiated { allocation_context: (mode != ReplyMode::Simple).then_some(1), export, mode };
    let mut stream = RequestStream::new(&negotiated);
    let mut out = Vec::new();
    let mut rest = data;
    loop {
        let Ok((consumed, next)) = stream.next(&negotiated, rest) else { return };
        rest = &rest[consumed..];
        match next {
            Next::NeedMore => break,
            Next::Request(request) => {
                let end = request.offset.checked_add(request.length).expect("checked");
                assert!(end <= negotiated.export.size, "a request outside the export");
                let payload = usize::try_from(request.payload()).expect("32 bits");
                rest = &rest[payload.min(rest.len())..];
            }
            Next::Rejected(rejected) => {
                out.clear();
                rejected.reply(mode, &mut out);
                assert!(!out.is_empty(), "a refusal without an answer");
            }
        }
    }
    assert!(rest.len() < 32, "a header was left behind");
}

/// A server that answers a client with `data`, whatever the client asks.
pub fn client(data: &[u8]) {
    let answers = || Answers(data);
    // Only the absence of panics and hangs counts here; every result is fine.
    let _any = list_exports(answers());
    let Ok(mut client) = Client::connect(answers(), &ClientOptions::new("a")) else { return };
    let mut buffer = [0; 64];
    let _any = client.read(0, &mut buffer);
    let _any = client.write(0, &buffer, true);
    let _any = client.block_status(0, 4096, false);
    let _any = client.flush();
}

/// A connection whose far end has already said everything and hears nothing.
struct Answers<'a>(&'a [u8]);

impl Read for Answers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Answers<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
