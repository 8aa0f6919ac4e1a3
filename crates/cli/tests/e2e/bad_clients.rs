//! NBD clients that talk nonsense: the server stays up, others are served, and no byte changes.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use forestall_nbd::{Client, ClientOptions, ConnectError, Errno, RequestError, wire};

use crate::util::*;

/// A served mirror with known contents.
struct Bench {
    server: Server,
    data: Vec<u8>,
    _dir: Dir,
}

impl Bench {
    fn new() -> Self {
        let dir = Dir::new();
        dir.create(2, "16MiB", &["--level", "1"]);
        let server = dir.serve(2);
        let data = server.fill("vault", 1);
        Self { server, data, _dir: dir }
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.server.nbd_socket()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// A connection past the handshake: simple replies, small headers.
    fn transmission(&self) -> UnixStream {
        let mut stream = self.raw();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).expect("a greeting");
        assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");
        stream.write_all(&3u32.to_be_bytes()).expect("sent");
        stream.write_all(&option(wire::OPT_EXPORT_NAME, b"vault")).expect("sent");
        let mut export = [0; 10];
        stream.read_exact(&mut export).expect("the export");
        assert_eq!(u64::from_be_bytes(export[..8].try_into().expect("8")), self.data.len() as u64);
        stream
    }

    fn unharmed(&self) {
        self.server.verify("vault", &self.data, "contents");
        assert_eq!(self.server.health(), "healthy");
    }
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u32;
    [b"IHAVEOPT", &number.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

fn request(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = wire::REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend(flags.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// The error of one simple reply.
fn reply(stream: &mut UnixStream, cookie: u64) -> u32 {
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes).expect("a reply");
    assert_eq!(bytes[..4], wire::SIMPLE_REPLY_MAGIC.to_be_bytes());
    assert_eq!(bytes[8..], cookie.to_be_bytes());
    u32::from_be_bytes(bytes[4..8].try_into().expect("4"))
}

/// Reads to the end of the stream; answers how much there was.
fn to_the_end(stream: &mut UnixStream) -> usize {
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut rest);
    rest.len()
}

#[test]
fn garbage_instead_of_a_handshake() {
    let bench = Bench::new();
    for seed in 0..32 {
        let mut stream = bench.raw();
        // The server may hang up before all is sent.
        let _ = stream.write_all(&noise(seed, 40 + seed * 997));
        let _ = stream.shutdown(Shutdown::Write);
        assert!(to_the_end(&mut stream) < 1 << 20);
    }
    bench.unharmed();
}

#[test]
fn handshakes_that_lie() {
    let bench = Bench::new();
    let mut shouts: Vec<Vec<u8>> = vec![
        // Lengths beyond all bounds, unknown options, torn ones, contexts without an export.
        [b"IHAVEOPT", &wire::OPT_GO.to_be_bytes()[..], &u32::MAX.to_be_bytes()].concat(),
        [
            b"IHAVEOPT",
            &wire::OPT_EXPORT_NAME.to_be_bytes()[..],
            &0x4000_0000u32.to_be_bytes(),
            &[7; 5000],
        ]
        .concat(),
        option(0xdead_beef, &[1; 100]),
        option(wire::OPT_GO, &[0xff; 4]),
        option(wire::OPT_GO, &[0, 0, 0xff, 0xff, b'v']),
        option(wire::OPT_INFO, &[]),
        option(
            wire::OPT_SET_META_CONTEXT,
            &[0, 0, 0, 5, b'v', b'a', b'u', b'l', b't', 0xff, 0xff, 0xff, 0xff],
        ),
        option(wire::OPT_LIST, b"surplus"),
        option(wire::OPT_STRUCTURED_REPLY, b"surplus"),
        option(wire::OPT_STARTTLS, &[]),
        option(wire::OPT_EXPORT_NAME, &[b'x'; 5000]),
        option(wire::OPT_EXPORT_NAME, b"no such export"),
        option(wire::OPT_EXPORT_NAME, &[0xff, 0xfe]),
        b"IHAVEOPT".to_vec(),
        b"WANTOPTS\0\0\0\x01\0\0\0\0".to_vec(),
    ];
    shouts.push((0..100_000).flat_map(|_| option(wire::OPT_LIST, &[])).take(1 << 20).collect());
    for (index, shout) in shouts.iter().enumerate() {
        for flags in [3u32, 0, u32::MAX] {
            let mut stream = bench.raw();
            let mut other_end = stream.try_clone().expect("a second handle");
            let bytes = [&flags.to_be_bytes()[..], shout].concat();
            // Sent aside: a server that answers must be listened to.
            let send = std::thread::spawn(move || {
                let _ = other_end.write_all(&bytes);
                let _ = other_end.shutdown(Shutdown::Write);
            });
            assert!(to_the_end(&mut stream) < 64 << 20, "shout {index}");
            send.join().expect("sent");
        }
    }
    bench.unharmed();
}

#[test]
fn an_unknown_export_is_refused_by_name() {
    let bench = Bench::new();
    for name in ["nothing", "VAULT", "vault ", "../vault", &"n".repeat(4096)] {
        let refused = Client::connect(bench.raw(), &ClientOptions::new(name))
            .expect_err("there is no such export");
        assert!(
            matches!(refused, ConnectError::Refused { code: wire::REP_ERR_UNKNOWN, .. }),
            "{name}: {refused:?}"
        );
    }
    // The only volume is the default export.
    assert_eq!(
        Client::connect(bench.raw(), &ClientOptions::new("")).expect("the default").export().name,
        "vault"
    );
    bench.unharmed();
}

#[test]
fn requests_past_the_end_change_nothing() {
    let bench = Bench::new();
    let size = bench.data.len() as u64;
    let mut client = bench.server.connect("vault");
    let errno = |result: Result<(), RequestError>| match result {
        Err(RequestError::Refused { errno, message }) => {
            assert!(!message.is_empty(), "an error without a word");
            errno
        }
        other => panic!("not refused: {other:?}"),
    };
    let zeroes = forestall_nbd::ZeroOptions::default();
    for (offset, length) in
        [(size, 1), (size - 1, 2), (size - 4096, 8192), (1 << 63, 512), (u64::MAX - 100, 512)]
    {
        let mut body = vec![0xaa; length as usize];
        assert_eq!(errno(client.read(offset, &mut body)), Errno::Inval);
        assert_eq!(errno(client.write(offset, &body, true)), Errno::NoSpc);
        assert_eq!(errno(client.write_zeroes(offset, length, zeroes)), Errno::NoSpc);
        assert_eq!(errno(client.trim(offset, length, false)), Errno::Inval);
        assert_eq!(errno(client.cache(offset, length)), Errno::Inval);
        assert_eq!(errno(client.block_status(offset, length, false).map(drop)), Errno::Inval);
    }
    client.read(size - 512, &mut [0; 512]).expect("the session goes on");
    bench.unharmed();
}

#[test]
fn oversize_and_unknown_requests() {
    let bench = Bench::new();
    let mut stream = bench.transmission();
    for (cookie, (command, flags, length)) in [
        (wire::CMD_READ, 0, u32::MAX),
        (wire::CMD_READ, 0, 32 << 20),
        (77, 0, 0),
        (wire::CMD_READ, 0x8000, 512),
        (wire::CMD_FLUSH, 0, 5),
    ]
    .into_iter()
    .enumerate()
    {
        stream.write_all(&request(command, flags, cookie as u64, 0, length)).expect("sent");
        assert_ne!(reply(&mut stream, cookie as u64), 0, "command {command} of {length} bytes");
    }
    stream.write_all(&request(wire::CMD_READ, 0, 9, 4096, 512)).expect("sent");
    assert_eq!(reply(&mut stream, 9), 0, "the session goes on");
    let mut body = [0; 512];
    stream.read_exact(&mut body).expect("data");
    assert_same(&body, &bench.data[4096..4608], "data after refusals");
    // A write longer than anybody takes: refused or hung up on, and never half done.
    let mut stream = bench.transmission();
    let mut send = stream.try_clone().expect("a second handle");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = send.write_all(&request(wire::CMD_WRITE, 0, 1, 0, u32::MAX));
            for _ in 0..100 {
                if send.write_all(&[0xbb; 1 << 20]).is_err() {
                    break;
                }
            }
            let _ = send.shutdown(Shutdown::Write);
        });
        to_the_end(&mut stream);
    });
    bench.unharmed();
}

#[test]
fn garbage_between_requests_ends_only_that_connection() {
    let bench = Bench::new();
    let mut other = bench.server.connect("vault");
    for seed in 0..16 {
        let mut stream = bench.transmission();
        stream.write_all(&request(wire::CMD_READ, 0, 1, 0, 512)).expect("sent");
        let mut garbage = noise(seed, 28 * 40);
        // Never by chance a request.
        garbage[0] = 0;
        let _ = stream.write_all(&garbage);
        let _ = stream.shutdown(Shutdown::Write);
        to_the_end(&mut stream);
        other.read(0, &mut [0; 512]).expect("others are served");
    }
    bench.unharmed();
}

#[test]
fn clients_that_stall_or_vanish_harm_nobody() {
    let bench = Bench::new();
    // Half a request, half a payload, and answers that nobody takes.
    let mut half = bench.transmission();
    half.write_all(&request(wire::CMD_READ, 0, 1, 0, 512)[..13]).expect("sent");
    let mut torn = bench.transmission();
    torn.write_all(&request(wire::CMD_WRITE, 0, 1, 0, 65_536)).expect("sent");
    torn.write_all(&[0xcc; 1000]).expect("sent");
    let mut deaf = bench.transmission();
    deaf.set_nonblocking(true).expect("set");
    for cookie in 0..10_000 {
        if deaf.write_all(&request(wire::CMD_READ, 0, cookie, 0, 1 << 20)).is_err() {
            break;
        }
    }
    let silent: Vec<UnixStream> = (0..50).map(|_| bench.raw()).collect();
    bench.unharmed();
    let mut client = bench.server.connect("vault");
    client.write(8 << 20, &bench.data[8 << 20..9 << 20], true).expect("others are served");
    drop((half, torn, deaf, silent));
    wait_for("the vanished to be forgotten", || {
        drop(client.read(0, &mut [0; 512]));
        (clients(&bench.server) == 1).then_some(())
    });
    bench.unharmed();
    let Bench { server, .. } = bench;
    drop(client);
    server.stop();
}

#[test]
fn connections_that_choose_nothing_keep_nobody_out() {
    let bench = Bench::new();
    let mut client = bench.server.connect("vault");
    // More than the server has sessions for; the first of them have to go.
    let mut silent: Vec<UnixStream> = (0..600).map(|_| bench.raw()).collect();
    bench.unharmed();
    client.write(0, &bench.data[..4096], true).expect("a client that is served stays");
    let first = silent.remove(0);
    let mut rest = Vec::new();
    (&first).read_to_end(&mut rest).expect("the oldest is hung up on");
    assert!(clients(&bench.server) <= 512);
    drop(silent);
    bench.unharmed();
}

/// How many NBD clients the server counts, by its API.
fn clients(server: &Server) -> u64 {
    let mut stream = UnixStream::connect(&server.socket).expect("it listens");
    stream
        .write_all(b"GET /v1/server HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    body["clients"].as_u64().expect("a number")
}

#[test]
fn a_management_api_that_is_talked_nonsense_to() {
    let bench = Bench::new();
    // Nonsense ends with the stream; a whole request is answered whether its stream is closed behind it or not.
    let send = |bytes: &[u8], end: bool| {
        let mut stream = UnixStream::connect(&bench.server.socket).expect("it listens");
        let _ = stream.write_all(bytes);
        if end {
            let _ = stream.shutdown(Shutdown::Write);
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let ask = |bytes: &[u8]| send(bytes, false);
    let post = |path: &str, body: &str| {
        let head = "host: localhost\r\ncontent-type: application/json\r\nconnection: close\r\n";
        ask(format!("POST {path} HTTP/1.1\r\n{head}content-length: {}\r\n\r\n{body}", body.len())
            .as_bytes())
    };
    assert!(post("/v1/disks/fail", "{\"disk\": 1, \"sure\": true}").starts_with("HTTP/1.1 400"));
    assert!(post("/v1/disks/fail", "{").starts_with("HTTP/1.1 400"));
    assert!(post("/v1/nothing", "{}").starts_with("HTTP/1.1 404"));
    let get = ask(b"GET /v1/stop HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    assert!(get.contains("bad-request"), "{get}");
    for _ in 0..20 {
        let closed = send(b"GET /v1/status HTTP/1.1\r\nhost: localhost\r\n\r\n", true);
        assert!(closed.starts_with("HTTP/1.1 200") && closed.contains("problems"), "{closed}");
    }
    send(&noise(5, 3000), true);
    send(b"", true);
    bench.unharmed();
}
