//! The client against the server's parts, in every mode and however the bytes arrive.

use crate::support::{Loopback, Store};
use forestall_nbd::{
    Client, ClientOptions, Command, ConnectError, Errno, Extent, RecvError, Reply, ReplyBody,
    ReplyMode, RequestError, SendError, Violation, ZeroOptions, list_exports, wire,
};
use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::rc::Rc;

const SIZE: usize = 1 << 20;

fn store() -> Rc<RefCell<Store>> {
    Rc::new(RefCell::new(Store { bytes: vec![0; SIZE], ..Store::default() }))
}

fn options(mode: ReplyMode) -> ClientOptions {
    ClientOptions {
        structured: mode != ReplyMode::Simple,
        extended: mode == ReplyMode::Extended,
        ..ClientOptions::new("disk")
    }
}

fn connect(
    store: &Rc<RefCell<Store>>,
    mode: ReplyMode,
    piece: usize,
    fragment: bool,
) -> Client<Loopback> {
    let client = Client::connect(Loopback::new(store, piece, fragment), &options(mode)).unwrap();
    assert_eq!(client.mode(), mode);
    client
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed) | 1).collect()
}

const MODES: [ReplyMode; 3] = [ReplyMode::Simple, ReplyMode::Structured, ReplyMode::Extended];

fn errno(result: Result<(), RequestError>) -> Errno {
    match result {
        Err(RequestError::Refused { errno, .. }) => errno,
        other => panic!("not refused but {other:?}"),
    }
}

#[test]
fn every_command_in_every_mode_and_every_piece_size() {
    for mode in MODES {
        for piece in [1, 7, 1 << 20] {
            let store = store();
            let fragment = mode != ReplyMode::Simple;
            let mut client = connect(&store, mode, piece, fragment);
            assert_eq!(client.export().size, SIZE as u64);
            assert_eq!(client.export().block_sizes, Some([1, 4096, 32 << 20]));
            let (name, text) = (&client.export().name, &client.export().description);
            assert_eq!((name.as_str(), text.as_str()), ("disk", "a disk in memory"));

            // Longer than what is sent together with other requests, and odd.
            let data = pattern(20_001, 3);
            client.write(4097, &data, true).unwrap();
            let mut back = vec![0xee; 20_003];
            client.read(4096, &mut back).unwrap();
            assert_eq!((back[0], &back[1..20_002], back[20_002]), (0, &data[..], 0), "{mode:?}");
            client.write(0, b"x", false).unwrap();
            client.trim(4097, 10, false).unwrap();
            let zeroes = ZeroOptions { fua: true, no_hole: true, fast: true };
            client.write_zeroes(4107, 10, zeroes).unwrap();
            client.cache(0, SIZE as u64).unwrap();
            client.flush().unwrap();
            client.read(4096, &mut back[..22]).unwrap();
            assert_eq!(back[..22], [&[0; 21], &data[20..21]].concat());
            client.disconnect().unwrap();

            let store = store.borrow();
            assert_eq!(store.flushes, 1);
            assert_eq!(&store.bytes[4117..24_098], &data[20..]);
            assert!(store.seen[0].fua && store.seen[0].command == Command::Write);
            let zeroed = Command::WriteZeroes { no_hole: true, fast: true };
            assert!(store.seen.iter().any(|request| request.command == zeroed && request.fua));
        }
    }
}

#[test]
fn block_status_merges_and_req_one_is_one() {
    for mode in [ReplyMode::Structured, ReplyMode::Extended] {
        let store = store();
        let mut client = connect(&store, mode, 5, false);
        assert!(client.has_allocation());
        client.write(1024, &pattern(1024, 0), false).unwrap();
        let zero = |length| Extent { length, flags: wire::STATE_ZERO };
        let data = |length| Extent { length, flags: 0 };
        let whole = client.block_status(0, SIZE as u64, false).unwrap();
        assert_eq!(whole, [zero(1024), data(1024), zero(SIZE as u64 - 2048)]);
        assert_eq!(client.block_status(0, 4096, true).unwrap(), [zero(1024)]);
        assert_eq!(client.block_status(1100, 100, true).unwrap(), [data(100)]);
        assert_eq!(client.block_status(512, 1000, false).unwrap(), [zero(512), data(488)]);
    }
    let store = store();
    let mut simple = connect(&store, ReplyMode::Simple, 5, false);
    assert!(!simple.has_allocation());
    assert_eq!(errno(simple.block_status(0, 1, false).map(|_| ())), Errno::Inval);
}

#[test]
fn refusals_leave_the_session_usable() {
    for mode in MODES {
        let store = store();
        let mut client = connect(&store, mode, 11, false);
        let end = SIZE as u64;
        assert_eq!(errno(client.write(end - 1, b"ab", false)), Errno::NoSpc);
        assert_eq!(errno(client.write(u64::MAX, &pattern(30_000, 1), false)), Errno::NoSpc);
        assert_eq!(errno(client.read(end, &mut [0])), Errno::Inval);
        assert_eq!(errno(client.trim(end - 1, 2, false)), Errno::Inval);
        assert_eq!(errno(client.write(0, b"", false)), Errno::Inval);
        client.write(end - 1, b"z", false).unwrap();
        let mut last = [0];
        client.read(end - 1, &mut last).unwrap();
        assert_eq!(&last, b"z");
        assert_eq!(store.borrow().seen.len(), 2, "refused requests never reach the export");
    }
}

#[test]
fn a_read_only_export_refuses_every_write_with_eperm() {
    let store = store();
    let frozen = ClientOptions { export: "frozen".into(), ..options(ReplyMode::Extended) };
    let mut client = Client::connect(Loopback::new(&store, 100, false), &frozen).unwrap();
    assert_ne!(client.export().flags & wire::FLAG_READ_ONLY, 0);
    assert_eq!(errno(client.write(0, b"x", false)), Errno::Perm);
    assert_eq!(errno(client.trim(0, 1, false)), Errno::Perm);
    assert_eq!(errno(client.write_zeroes(0, 1, ZeroOptions::default())), Errno::Perm);
    client.read(0, &mut [0; 4]).unwrap();
    client.flush().unwrap();
}

#[test]
fn pipelined_requests_come_back_under_their_cookies() {
    for mode in MODES {
        let store = store();
        let mut client = connect(&store, mode, 1 << 20, mode == ReplyMode::Extended);
        let writes: Vec<u64> = (0..50u8)
            .map(|n| client.send_write(u64::from(n) * 100, &pattern(100, n), false).unwrap())
            .collect();
        let reads: Vec<u64> =
            (0..50).map(|n| client.send_read(n * 100, 100 - n).unwrap()).collect();
        let bad = client.send_read(SIZE as u64, 1).unwrap();
        assert!(matches!(client.flush(), Err(RequestError::Pipelined)));
        let mut buffer = [0; 100];
        for _ in 0..101 {
            let Reply { cookie, result } = client.recv_reply(&mut buffer).unwrap();
            if let Some(n) = reads.iter().position(|read| *read == cookie) {
                assert_eq!(result, Ok(ReplyBody::Data(100 - n)));
                assert_eq!(buffer[..100 - n], pattern(100, n as u8)[..100 - n]);
            } else if cookie == bad {
                assert_eq!(result.unwrap_err().0, Errno::Inval);
            } else {
                assert!(writes.contains(&cookie));
                assert_eq!(result, Ok(ReplyBody::Done));
            }
        }
        assert_eq!(client.in_flight(), 0);
        assert!(matches!(client.recv_reply(&mut buffer), Err(RecvError::NothingInFlight)));
        client.flush().unwrap();
    }
}

#[test]
fn lengths_beyond_32_bits_need_extended_headers() {
    let store = store();
    let mut client = connect(&store, ReplyMode::Structured, 100, false);
    let long = 1 << 33;
    assert!(matches!(client.send_trim(0, long, false), Err(SendError::TooLong(n)) if n == long));
    let mut client = connect(&store, ReplyMode::Extended, 100, false);
    assert_eq!(errno(client.trim(0, long, false)), Errno::Inval, "past the end, but understood");
}

#[test]
fn exports_can_be_listed_and_an_unknown_one_is_named() {
    let store = store();
    let listed = list_exports(Loopback::new(&store, 3, false)).unwrap();
    let names: Vec<_> = listed.iter().map(|export| export.name.as_str()).collect();
    assert_eq!(
        (names, listed[0].description.as_str()),
        (vec!["disk", "frozen"], "a disk in memory")
    );
    match Client::connect(Loopback::new(&store, 3, false), &ClientOptions::new("nosuch")) {
        Err(ConnectError::Refused { option, code, message }) => {
            assert_eq!((option, code), (wire::OPT_GO, wire::REP_ERR_UNKNOWN));
            assert_eq!(message, "no export of this name");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

/// A server that plays back fixed answers.
struct Tape(io::Cursor<Vec<u8>>);

impl Read for Tape {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Tape {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client that has negotiated structured replies with a server which then says `replies`.
fn taped(replies: &[u8]) -> Client<Tape> {
    let ack = |option: u8, kind: u8, data: &[u8]| {
        let head = b"\x00\x03\xe8\x89\x04\x55\x65\xa9";
        let fields = [0, 0, 0, option, 0, 0, 0, kind, 0, 0, 0, data.len() as u8];
        [&head[..], &fields, data].concat()
    };
    let tape = [
        b"NBDMAGICIHAVEOPT\x00\x03".to_vec(),
        ack(8, 1, b""),
        ack(10, 4, b"\0\0\0\x09base:allocation"),
        ack(10, 1, b""),
        ack(7, 3, b"\0\0\0\0\0\0\0\x10\0\0\0\x8d"),
        ack(7, 1, b""),
        replies.to_vec(),
    ];
    let tape = Tape(io::Cursor::new(tape.concat()));
    Client::connect(tape, &options(ReplyMode::Structured)).unwrap()
}

/// A structured chunk for cookie 1.
fn chunk(flags: u8, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut chunk = b"\x66\x8e\x33\xef".to_vec();
    chunk.extend([0, flags]);
    chunk.extend(kind.to_be_bytes());
    chunk.extend(1u64.to_be_bytes());
    chunk.extend((payload.len() as u32).to_be_bytes());
    chunk.extend(payload);
    chunk
}

#[test]
fn a_server_that_breaks_the_protocol_is_found_out_and_the_client_stays_broken() {
    let at = |offset: u64, data: &[u8]| [&offset.to_be_bytes()[..], data].concat();
    let bad_chunk = |kind, length| Violation::BadChunk { kind, length };
    let twice = [chunk(0, 1, &at(100, b"ab")), chunk(0, 1, &at(100, b"abc"))].concat();
    // One descriptor more than a chunk may have; the announcement alone is enough.
    let extents_length = 4 + 8 * (wire::EXTENTS_MAX as u64 + 1);
    let mut many_extents = chunk(1, 5, b"");
    many_extents[16..20].copy_from_slice(&(extents_length as u32).to_be_bytes());
    let cases: [(Vec<u8>, Violation); 14] = [
        (twice, Violation::OutOfRange),
        (many_extents, bad_chunk(5, extents_length)),
        (b"HTTP".to_vec(), Violation::BadMagic(0x4854_5450)),
        (b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x01".to_vec(), Violation::WrongKind),
        (b"\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\0\0\x09".to_vec(), Violation::UnknownCookie(9)),
        (chunk(1, 0, b""), Violation::Incomplete),
        (chunk(0, 0, b""), bad_chunk(0, 0)),
        (chunk(1, 1, &at(100, b"")), bad_chunk(1, 8)),
        (chunk(1, 1, &at(99, b"abcd")), Violation::OutOfRange),
        (chunk(1, 1, &at(100, b"abcde")), Violation::OutOfRange),
        (chunk(1, 1, &at(100, b"ab")), Violation::Incomplete),
        (chunk(1, 2, &at(100, b"\0\0\0\0")), Violation::OutOfRange),
        (chunk(1, 5, b"\0\0\0\x09\0\0\0\x01\0\0\0\0"), Violation::WrongKind),
        (chunk(1, 0x8001, b"\0\0\0\x05\0\x09x"), bad_chunk(0x8001, 7)),
    ];
    for (replies, expected) in cases {
        let mut client = taped(&replies);
        client.send_read(100, 4).unwrap();
        match client.recv_reply(&mut [0; 4]) {
            Err(RecvError::Violation(violation)) => assert_eq!(violation, expected),
            other => panic!("{expected:?} expected, but {other:?}"),
        }
        assert!(matches!(client.recv_reply(&mut [0; 4]), Err(RecvError::Broken)));
        assert!(matches!(client.send_flush(), Err(SendError::Broken)));
    }
}

#[test]
fn a_read_that_is_all_hole_fills_the_buffer_with_zeroes() {
    let mut client = taped(&chunk(1, 2, b"\0\0\0\0\0\0\0\x64\0\0\0\x04"));
    let mut buffer = [0xee; 5];
    client.read(100, &mut buffer[..4]).unwrap();
    assert_eq!(buffer, [0, 0, 0, 0, 0xee]);
}

#[test]
fn errors_in_parts_of_a_read_fail_the_read_with_the_first_text() {
    let replies = [
        chunk(0, 1, b"\0\0\0\0\0\0\0\x64ab"),
        chunk(0, 0x8002, b"\0\0\0\x05\0\x03bad\0\0\0\0\0\0\0\x66"),
        chunk(0, 0x8001, b"\0\0\0\x16\0\0"),
        chunk(1, 0, b""),
    ];
    let mut client = taped(&replies.concat());
    let cookie = client.send_read(100, 4).unwrap();
    let reply = client.recv_reply(&mut [0; 4]).unwrap();
    assert_eq!(reply, Reply { cookie, result: Err((Errno::Io, "bad".into())) });
}

#[test]
fn a_connection_that_ends_is_an_error_not_a_hang() {
    let mut client = taped(&chunk(1, 1, b"\0\0\0\0\0\0\0\x64abcd")[..25]);
    match client.read(100, &mut [0; 4]) {
        Err(RequestError::Recv(RecvError::Io(error))) => {
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        other => panic!("{other:?}"),
    }
    let not_nbd = Tape(io::Cursor::new(b"SSH-2.0-OpenSSH_9.2 and more".to_vec()));
    let refused = Client::connect(not_nbd, &ClientOptions::new(""));
    assert!(matches!(refused, Err(ConnectError::NotNbd)));
}
