//! The bytes of a connection: in through an [`Inbox`], out of an [`Outbox`].
//!
//! Owns when the kernel is asked directly and when through the ring. A receive or send that can be done at once costs one plain call
//! and nothing else; only what has to wait is handed to the ring, which then waits for everything at once. Invariant: nothing here
//! blocks the thread.

use std::future::Future;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::pin;

use compio::BufResult;
use compio::buf::{IntoInner, IoBuf, IoVectoredBuf};
use forestall_disk::KernelBuf;
use forestall_engine::Buf;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown};

use super::Stream;
use super::limits::{MUCH, Share};
use super::outbox::Outbox;
use super::patience::Patience;

/// Bytes that one receive may bring. Large enough for a queue of small requests; the greater part of a large payload goes past it.
pub const RECEIVE_LEN: usize = 256 << 10;

/// Slices of one direct send; what is more goes with the next.
const SLICES_AT_ONCE: usize = 64;

/// Bytes received and not yet understood.
pub struct Inbox {
    buf: KernelBuf,
    start: usize,
    end: usize,
}

impl Inbox {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { buf: KernelBuf(Buf::scratch(RECEIVE_LEN)), start: 0, end: 0 }
    }

    /// What is there.
    pub fn bytes(&self) -> &[u8] {
        &self.buf.0[self.start..self.end]
    }

    /// Forgets the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "more was consumed than there is");
        self.start += count;
    }

    /// Moves what is there to the front and answers the room for `len` bytes more.
    fn make_room(&mut self, len: usize) -> std::ops::Range<usize> {
        let there = self.start..self.end;
        self.end -= self.start;
        self.start = 0;
        if !there.is_empty() && there.start > 0 {
            self.buf.0.bytes_mut().copy_within(there, 0);
        }
        let room = self.end..RECEIVE_LEN.min(self.end + len);
        assert!(!room.is_empty(), "a receive without room");
        room
    }

    /// Takes what the socket holds, up to `len` bytes; `None` if that is nothing, 0 at the end of the stream.
    pub fn receive_now(&mut self, stream: &impl AsFd, len: usize) -> io::Result<Option<usize>> {
        let room = self.make_room(len);
        let count = receive_now(stream, &mut self.buf.0.bytes_mut()[room])?;
        self.end += count.unwrap_or(0);
        Ok(count)
    }

    /// Waits for up to `len` bytes; 0 at the end of the stream.
    pub async fn receive<S: Stream>(&mut self, stream: &mut S, len: usize) -> io::Result<usize> {
        let room = self.make_room(len);
        let buf = std::mem::replace(&mut self.buf, KernelBuf(Buf::scratch(0)));
        let BufResult(result, buf) = stream.read(buf.slice(room)).await;
        self.buf = buf.into_inner();
        let count = result?;
        self.end += count;
        Ok(count)
    }
}

/// A payload of `len` bytes: `there` was received with its header, the rest is received straight into its place.
pub async fn receive_payload<S: Stream>(
    stream: &mut S,
    len: usize,
    there: &[u8],
    patience: &mut Patience,
    share: &Share,
) -> io::Result<Buf> {
    let mut data = Buf::scratch(len);
    if len > 0 {
        data.bytes_mut()[..there.len()].copy_from_slice(there);
    }
    let mut filled = there.len();
    while filled < len {
        let receive = || receive_now(stream, &mut data.bytes_mut()[filled..]);
        let count = match patience.look(receive).await? {
            Some(count) => count,
            None => {
                let socket = stream.clone();
                let receive = stream.read(KernelBuf(data).slice(filled..));
                let (BufResult(result, back), moving) = if len as u64 >= MUCH {
                    while_moving(&socket, share, receive).await
                } else {
                    (receive.await, Ok(()))
                };
                moving?;
                data = back.into_inner().0;
                match result {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => result?,
                }
            }
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
    }
    Ok(data)
}

/// Waits for `io`. If it moves no byte for long while this session is in the way of others, the connection ends, which frees what it
/// holds; that is the error beside what `io` answers.
async fn while_moving<T>(
    socket: &impl AsFd,
    share: &Share,
    io: impl Future<Output = T>,
) -> (T, io::Result<()>) {
    let mut io = pin!(io);
    loop {
        let wait = share.limits().stall_max.get();
        if let Ok(done) = compio::time::timeout(wait, io.as_mut()).await {
            return (done, Ok(()));
        }
        if share.is_in_the_way() {
            // Not by dropping `io`: this way the kernel gives the buffer back.
            let _gone = rustix::net::shutdown(socket, Shutdown::Both);
            let why = format!(
                "moved no byte for {} s in the middle of a large request or answer, and others had no room for theirs",
                wait.as_secs()
            );
            return (io.await, Err(io::Error::new(io::ErrorKind::TimedOut, why)));
        }
    }
}

/// Sends all of `batch`. It comes back, sent or not.
pub async fn send<S: Stream>(
    stream: &mut S,
    mut batch: Outbox,
    share: &Share,
) -> (io::Result<()>, Outbox) {
    while !batch.is_sent() {
        let result = match send_now(stream, &batch) {
            Ok(None) => {
                let socket = stream.clone();
                let send = stream.write_vectored(batch);
                let (BufResult(result, back), moving) = while_moving(&socket, share, send).await;
                batch = back;
                moving.and(result)
            }
            Ok(Some(count)) => Ok(count),
            Err(error) => Err(error),
        };
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), batch),
            Ok(count) => batch.sent(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (Err(error), batch),
        }
    }
    (Ok(()), batch)
}

/// What the socket holds at this moment; `None` if that is nothing.
fn receive_now(socket: &impl AsFd, into: &mut [u8]) -> io::Result<Option<usize>> {
    at_once(|| rustix::net::recv(socket, &mut *into, RecvFlags::DONTWAIT).map(|(count, _)| count))
}

/// As much as the socket takes at this moment; `None` if that is nothing.
fn send_now(socket: &impl AsFd, batch: &Outbox) -> io::Result<Option<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES_AT_ONCE];
    let mut count = 0;
    for (place, bytes) in slices.iter_mut().zip(batch.iter_slice()) {
        *place = IoSlice::new(bytes);
        count += 1;
    }
    // A client that has gone is an error here and no signal.
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let nothing = &mut SendAncillaryBuffer::default();
    at_once(|| rustix::net::sendmsg(socket, &slices[..count], nothing, flags))
}

fn at_once(mut call: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
