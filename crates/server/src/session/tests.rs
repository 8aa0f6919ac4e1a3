//! Real sockets, a scripted export, clients that behave and clients that do not.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use forestall_nbd::{Client, ClientOptions, ExportInfo, Extent, ZeroOptions};

use super::*;
use crate::listen::{Bound, NbdAddr, Plane};

const SIZE: usize = 64 << 20;
const WAIT: Duration = Duration::from_secs(20);
/// How long clients of these tests may stall where others need their memory.
const STALL: Duration = Duration::from_millis(50);

/// The bytes of the export, seen from the test as well.
type Bytes = Arc<Mutex<Vec<u8>>>;

/// An export over plain bytes. Reads at [`HANGS`] wait for a write there.
#[derive(Clone)]
struct Plain {
    bytes: Bytes,
    written: Rc<RefCell<Vec<u64>>>,
    changed: Rc<Signal>,
}

const HANGS: u64 = 1 << 20;
/// Reads of this byte fail.
const BAD: u64 = 2 << 20;

impl Plain {
    fn range(offset: u64, len: u64) -> std::ops::Range<usize> {
        offset as usize..(offset + len) as usize
    }
}

impl Export for Plain {
    async fn read(&self, offset: u64, len: u64) -> Result<Vec<Buf>, IoError> {
        if offset == BAD {
            return Err(IoError::Io);
        }
        if offset == HANGS {
            self.changed.until(|| self.written.borrow().contains(&HANGS)).await;
        }
        let bytes = self.bytes.lock().expect("no panics");
        let range = &bytes[Self::range(offset, len)];
        // In two pieces, as from two members.
        let half = range.len() / 2;
        Ok(vec![Buf::copy_of(&range[..half]), Buf::copy_of(&range[half..])])
    }

    async fn write(&self, offset: u64, data: Buf, _fua: bool) -> Result<(), IoError> {
        let len = data.len() as u64;
        self.bytes.lock().expect("no panics")[Self::range(offset, len)].copy_from_slice(&data);
        self.written.borrow_mut().push(offset);
        self.changed.notify();
        Ok(())
    }

    async fn flush(&self) -> Result<(), IoError> {
        Ok(())
    }

    async fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), IoError> {
        self.write_zeroes(offset, len, false, false, fua).await
    }

    async fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        _no_hole: bool,
        fast: bool,
        _fua: bool,
    ) -> Result<(), IoError> {
        if fast {
            return Err(IoError::NotSupported);
        }
        self.bytes.lock().expect("no panics")[Self::range(offset, len)].fill(0);
        Ok(())
    }

    fn allocation(&self, _: u64, len: u64, _: usize) -> Result<Vec<AllocationRun>, IoError> {
        let first = len.min(4096);
        let runs = [
            AllocationRun { len: first, hole: false },
            AllocationRun { len: len - first, hole: true },
        ];
        Ok(runs.into_iter().filter(|run| run.len > 0).collect())
    }
}

impl Exports for Plain {
    fn list(&self) -> Vec<ExportInfo> {
        vec![ExportInfo::new("disk", SIZE as u64)]
    }

    fn find(&self, name: &str) -> Option<ExportInfo> {
        (name == "disk").then(|| ExportInfo::new("disk", SIZE as u64))
    }
}

impl Catalog for Plain {
    type Export = Self;

    fn open(&self, _name: &str) -> Option<Self> {
        Some(self.clone())
    }
}

/// A server on a thread of its own, stopped and checked when dropped.
struct Server {
    path: PathBuf,
    bytes: Bytes,
    stop: async_channel::Sender<()>,
    thread: Option<JoinHandle<(usize, u64)>>,
    _dir: tempfile::TempDir,
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("nbd");
        let bytes: Bytes = Arc::new(Mutex::new((0..SIZE).map(|i| (i % 251) as u8).collect()));
        let bound = Bound::bind(&NbdAddr::Unix(path.clone())).expect("a free path");
        let (stop, stopped) = async_channel::bounded(1);
        let shared = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            crate::runtime::build().expect("a runtime").block_on(async move {
                let export =
                    Plain { bytes: shared, written: Rc::default(), changed: Rc::default() };
                let plane = Plane::new(export, |line| eprintln!("{line}"));
                plane.limits.stall_max.set(STALL);
                let listener = plane.listen(bound).expect("listening");
                let _stopped = stopped.recv().await;
                drop(listener);
                let left = plane.drain(WAIT).await;
                (left, plane.limits.used())
            })
        });
        Self { path, bytes, stop, thread: Some(thread), _dir: dir }
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.path).expect("the server listens");
        stream.set_read_timeout(Some(WAIT)).expect("a timeout");
        stream
    }

    fn client(&self) -> Client<UnixStream> {
        Client::connect(self.raw(), &ClientOptions::new("disk")).expect("the export is there")
    }

    /// A connection in transmission with simple replies, for requests made by hand.
    fn transmission(&self) -> UnixStream {
        let mut stream = self.raw();
        stream.write_all(&3u32.to_be_bytes()).expect("flags");
        stream.write_all(b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk").expect("an option");
        let mut answer = [0; 18 + 10];
        stream.read_exact(&mut answer).expect("greeting and export");
        stream
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_blocking(()).expect("the server lives");
        let thread = self.thread.take().expect("joined once");
        let ended = thread.join().expect("no panic");
        if !std::thread::panicking() {
            assert_eq!(ended, (0, 0), "clients left behind, bytes not released");
        }
    }
}

fn request(command: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = wire::REQUEST_MAGIC.to_be_bytes().to_vec();
    bytes.extend(0u16.to_be_bytes());
    bytes.extend(command.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// Error and cookie of one simple reply.
fn reply(stream: &mut UnixStream) -> (u32, u64) {
    let mut bytes = [0; 16];
    stream.read_exact(&mut bytes).expect("a reply");
    let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
    assert_eq!(word(0), wire::SIMPLE_REPLY_MAGIC);
    (word(4), u64::from(word(8)) << 32 | u64::from(word(12)))
}

#[test]
fn every_command_does_what_it_says() {
    let server = Server::start();
    let mut client = server.client();
    let data: Vec<u8> = (0..3_000_001u32).map(|i| (i % 239) as u8).collect();
    client.write(5, &data, true).expect("a large odd write");
    let mut seen = vec![0; data.len()];
    client.read(5, &mut seen).expect("a large odd read");
    assert!(seen == data);
    client.flush().expect("a flush");
    client.trim(4096, 4096, false).expect("a trim");
    client.write_zeroes(100, 1000, ZeroOptions::default()).expect("zeroes");
    client.cache(0, 4096).expect("a hint");
    let fast = ZeroOptions { fast: true, ..ZeroOptions::default() };
    let slow = client.write_zeroes(0, 1, fast).expect_err("never fast here");
    assert!(slow.to_string().contains("ENOTSUP"), "{slow}");
    let status = client.block_status(0, 8192, false).expect("a status");
    let hole = wire::STATE_HOLE | wire::STATE_ZERO;
    assert_eq!(status, [Extent { length: 4096, flags: 0 }, Extent { length: 4096, flags: hole }]);
    let error = client.read(BAD, &mut seen[..1]).expect_err("it is bad");
    assert!(error.to_string().contains("EIO"), "{error}");
    client.read(0, &mut seen[..1]).expect("an error ends no session");
    client.disconnect().expect("an orderly end");
    let bytes = server.bytes.lock().expect("no panics");
    assert!(
        bytes[100..1100].iter().all(|byte| *byte == 0) && bytes[1100..4096] == data[1095..4091]
    );
}

#[test]
fn many_pipelined_requests_come_back_each_with_its_own_answer() {
    let server = Server::start();
    let mut stream = server.transmission();
    let mut writer = stream.try_clone().expect("a second handle");
    const COUNT: u64 = 2000;
    let sending = std::thread::spawn(move || {
        for n in 0..COUNT {
            let mut bytes = request(wire::CMD_WRITE, n, HANGS * 4 + n * 512, 512);
            bytes.extend([n as u8; 512]);
            bytes.extend(request(wire::CMD_READ, COUNT + n, n * 512, 512));
            writer.write_all(&bytes).expect("the server reads");
        }
    });
    let mut seen = vec![false; 2 * COUNT as usize];
    for _ in 0..2 * COUNT {
        let (error, cookie) = reply(&mut stream);
        assert_eq!(error, 0);
        assert!(!std::mem::replace(&mut seen[cookie as usize], true), "{cookie} twice");
        if cookie >= COUNT {
            let mut data = [0; 512];
            stream.read_exact(&mut data).expect("the data");
            let at = (cookie - COUNT) as usize * 512;
            assert!(data.iter().enumerate().all(|(i, byte)| *byte == ((at + i) % 251) as u8));
        }
    }
    sending.join().expect("no panic");
    let bytes = server.bytes.lock().expect("no panics");
    let region = &bytes[4 * HANGS as usize..][..COUNT as usize * 512];
    assert!(region.chunks(512).enumerate().all(|(n, chunk)| chunk == [n as u8; 512]));
}

#[test]
fn a_request_that_hangs_holds_up_no_other_on_any_connection() {
    let server = Server::start();
    let mut stream = server.transmission();
    stream.write_all(&request(wire::CMD_READ, 1, HANGS, 512)).expect("sent");
    stream.write_all(&request(wire::CMD_READ, 2, 0, 512)).expect("sent");
    assert_eq!(reply(&mut stream), (0, 2), "the later one overtakes");
    stream.read_exact(&mut [0; 512]).expect("its data");
    server.client().write(HANGS, &[9; 512], false).expect("another connection");
    assert_eq!(reply(&mut stream), (0, 1));
    let mut data = [0; 512];
    stream.read_exact(&mut data).expect("its data");
    assert_eq!(data, [9; 512]);
}

#[test]
fn a_client_that_reads_no_answers_stops_only_itself() {
    let server = Server::start();
    let stalled: Vec<_> = (0..6)
        .map(|_| {
            let mut stream = server.transmission();
            stream.set_nonblocking(true).expect("set");
            // Far more than the server will hold: at some point it stops reading, and this stops sending.
            for n in 0..100_000 {
                match stream.write(&request(wire::CMD_READ, n, 4 << 20, 8 << 20)) {
                    Ok(28) => {}
                    _ => break,
                }
            }
            stream
        })
        .collect();
    let mut client = server.client();
    let mut data = vec![0; 1 << 20];
    for n in 0..50 {
        client.write(8 << 20, &data, false).expect("served beside them");
        client.read(n << 20 | 1, &mut data).expect("served beside them");
    }
    // The stalled ones go away; the check at the end finds every byte released.
    drop(stalled);
}

#[test]
fn clients_stuck_in_the_largest_requests_give_way_to_those_who_need_the_room() {
    const LARGEST: u32 = 32 << 20;
    let server = Server::start();
    // Most in the middle of a write, some with an answer that they do not take: more than there is room for.
    let stuck: Vec<_> = (0..40)
        .map(|n| {
            let mut stream = server.transmission();
            if n < 36 {
                stream.write_all(&request(wire::CMD_WRITE, 1, 0, LARGEST)).expect("sent");
                stream.write_all(&[1; 100]).expect("sent");
            } else {
                stream.write_all(&request(wire::CMD_READ, 1, 0, LARGEST)).expect("sent");
            }
            stream
        })
        .collect();
    let mut client = server.client();
    let mut data = vec![7; LARGEST as usize];
    client.write(0, &data, false).expect("room was made for it");
    data.fill(0);
    client.read(0, &mut data).expect("room was made for it");
    assert!(data.iter().all(|byte| *byte == 7), "no torn write was carried out");
    drop(stuck);
}

#[test]
fn a_client_that_was_given_up_while_it_chose_is_not_served() {
    let (server_end, mut client) = UnixStream::pair().expect("a pair of sockets");
    client.set_read_timeout(Some(WAIT)).expect("a timeout");
    let bytes: Bytes = Arc::new(Mutex::new(vec![0; SIZE]));
    let shared = Arc::clone(&bytes);
    let server = std::thread::spawn(move || {
        crate::runtime::build().expect("a runtime").block_on(async move {
            let stream = compio::net::UnixStream::from_std(server_end).expect("a socket");
            let export = Plain { bytes: shared, written: Rc::default(), changed: Rc::default() };
            serve(stream, &export, Rc::default(), || false).await.expect("an orderly end");
        });
    });
    let choice = [&3u32.to_be_bytes()[..], b"IHAVEOPT\0\0\0\x01\0\0\0\x04disk"].concat();
    let write = [request(wire::CMD_WRITE, 1, 0, 512), vec![1; 512]].concat();
    client.write_all(&[choice, write].concat()).expect("sent");
    // A reset is as good as an orderly end.
    let _reset = client.read_to_end(&mut Vec::new());
    server.join().expect("no panic");
    assert_eq!(bytes.lock().expect("no panics")[..512], [0; 512]);
}

#[test]
fn a_write_cut_off_in_its_payload_changes_nothing_and_a_whole_one_is_done() {
    let server = Server::start();
    let before = server.bytes.lock().expect("no panics").clone();
    let mut stream = server.transmission();
    let mut bytes = request(wire::CMD_WRITE, 1, 0, 1 << 20);
    bytes.extend(vec![1; 600_000]);
    stream.write_all(&bytes).expect("sent");
    stream.shutdown(Shutdown::Write).expect("no more");
    assert_eq!(stream.read(&mut [0; 1]).expect("the server closes"), 0);
    assert!(*server.bytes.lock().expect("no panics") == before);

    let mut stream = server.transmission();
    let mut bytes = request(wire::CMD_WRITE, 1, 0, 4096);
    bytes.extend([1; 4096]);
    stream.write_all(&bytes).expect("sent");
    // Gone without reading the answer; the write is done all the same, sooner or later.
    drop(stream);
    let begun = std::time::Instant::now();
    let done = || server.bytes.lock().expect("no panics")[..4096].iter().all(|byte| *byte == 1);
    while !done() {
        assert!(begun.elapsed() < WAIT, "an accepted write was lost");
        std::thread::yield_now();
    }
}

#[test]
fn garbage_and_excess_are_refused_and_the_server_stays_up() {
    let server = Server::start();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 100], &[0, 0, 0, 3, 1, 2, 3]] {
        let mut stream = server.raw();
        stream.write_all(garbage).expect("sent");
        stream.shutdown(Shutdown::Write).expect("no more");
        let mut heard = Vec::new();
        // A reset is as good as an orderly end.
        let _reset = stream.read_to_end(&mut heard);
        assert!(heard.len() <= 18, "a greeting and no more");
    }
    let mut stream = server.transmission();
    stream.write_all(&request(wire::CMD_READ, 1, 0, 33 << 20)).expect("sent");
    assert_eq!(reply(&mut stream), (22, 1), "beyond the largest payload");
    stream.write_all(&request(wire::CMD_READ, 2, SIZE as u64, 1)).expect("sent");
    assert_eq!(reply(&mut stream), (22, 2), "past the end");
    stream.write_all(&request(99, 3, 0, 1)).expect("sent");
    assert_eq!(reply(&mut stream), (22, 3), "unknown command");
    let mut large = request(wire::CMD_WRITE, 4, 0, 33 << 20);
    large.extend(vec![1; 33 << 20]);
    stream.write_all(&large).expect("skipped");
    assert_eq!(reply(&mut stream), (22, 4), "beyond the largest payload");
    assert_ne!(server.bytes.lock().expect("no panics")[..4], [1; 4]);
    stream.write_all(&request(wire::CMD_WRITE, 5, 0, u32::MAX)).expect("sent");
    assert_eq!(stream.read(&mut [0; 1]).expect("closed: nobody skips 4 GiB"), 0);
    let mut data = [0; 4];
    server.client().read(0, &mut data).expect("the server stays up");
    assert_eq!(data, [0, 1, 2, 3]);
}
