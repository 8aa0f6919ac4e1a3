//! One NBD connection, from its first byte to its last.
//!
//! ```text
//!  socket ─▶ negotiate ─▶ receive: many requests out of one receive ─▶ a task for each request ─▶ export
//!                                                                          │ reply
//!  socket ◀── send: whatever has gathered, headers and data, in one vectored send ◀── outbox
//! ```
//!
//! Owns the coroutines of a connection and the mapping of engine errors to NBD's. Invariants:
//! - A request whose bytes have all arrived runs to its end, whatever becomes of the connection; one whose payload never
//!   arrives in full changes nothing.
//! - What a connection holds in memory (payloads in, replies not yet taken by the client) is admitted by [`Limits`] before it is
//!   read; a client that does not read its replies stops only its own requests, and one that stalls with much in hand is hung up on
//!   once others need the room.
//! - Nothing is answered while the server is not sure to own its disks ([`Limits::fence`], rule C6).
//!
//! Bytes on the wire are forestall-nbd's matter, what a request does is the export's.

mod export;
mod limits;
mod outbox;
mod patience;
mod signal;
mod socket;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use compio::BufResult;
use forestall_engine::{AllocationRun, Buf, IoError};
use forestall_nbd::{
    Command, Errno, Exports, Extent, Negotiated, Next, Outcome, Request, RequestStream,
    ServerHandshake, StatusQuery, wire,
};
use rustix::net::Shutdown;

pub use export::{Catalog, Export, Stream};
pub use limits::Limits;
pub use outbox::Outbox;
pub use signal::Signal;

use crate::runtime::spawn;
use limits::Share;
use patience::Patience;
use socket::{Inbox, RECEIVE_LEN, receive_payload};

/// After a payload of at least this many bytes the next receive takes one header and no more, so that the next payload of its kind
/// goes straight to its place, all of it and aligned, instead of through the receive buffer.
const LARGE: usize = 32 << 10;

/// How long a client may take to choose an export.
const NEGOTIATION_MAX: Duration = Duration::from_secs(30);

/// Runs that one answer to block status reports at most; the client asks again for the rest.
const STATUS_RUNS_MAX: usize = 8192;

/// What a request is counted as in memory besides its data, in bytes.
const REQUEST_COST: u64 = 1024;

/// Why a session ended that did not end as it should; for the log.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// The negotiation came to nothing.
    #[error(transparent)]
    Negotiation(#[from] forestall_nbd::CloseReason),
    /// The negotiation took too long.
    #[error("no export was chosen within {} seconds", NEGOTIATION_MAX.as_secs())]
    Slow,
    /// The stream of requests makes no sense any more.
    #[error(transparent)]
    Protocol(#[from] forestall_nbd::ProtocolError),
    /// The export was deleted between being found and being opened.
    #[error("the export {0:?} has gone")]
    Gone(String),
}

/// Serves one client until it leaves, the socket breaks, or reading from it was shut down. Returns after every accepted
/// request is done and answered where that is possible. Calls `chosen` once the client has chosen an export, before its first request
/// is accepted; if that says no, the client has been given up meanwhile.
///
/// # Errors
/// [`SessionError`], for the log only: the other sessions go on.
pub async fn serve<S: Stream, C: Catalog>(
    stream: S,
    catalog: &C,
    limits: Rc<Limits>,
    chosen: impl FnOnce() -> bool,
) -> Result<(), SessionError> {
    let mut inbox = Inbox::new();
    let negotiation = negotiate(stream.clone(), catalog, &mut inbox);
    let in_time = compio::time::timeout(NEGOTIATION_MAX, negotiation).await;
    let negotiated = in_time.map_err(|_elapsed| SessionError::Slow)??;
    // The client said goodbye before choosing, as it may.
    let Some(negotiated) = negotiated else { return Ok(()) };
    let name = &negotiated.export.name;
    let export = catalog.open(name).ok_or_else(|| SessionError::Gone(name.clone()))?;
    if !chosen() {
        return Ok(());
    }
    let session = Rc::new(Session {
        export,
        negotiated: *negotiated,
        share: Share::new(limits),
        outbox: RefCell::default(),
        in_flight: Cell::new(0),
        closing: Cell::new(false),
        broken: Cell::new(false),
        changed: Signal::default(),
        sender_next: Cell::new(false),
        turned: Cell::new(false),
    });
    session.transmit(stream, inbox).await
}

/// Talks until the client has chosen an export; what it sent beyond that stays in `inbox`.
async fn negotiate<S: Stream>(
    mut stream: S,
    exports: &impl Exports,
    inbox: &mut Inbox,
) -> Result<Option<Box<Negotiated>>, SessionError> {
    let mut out = Vec::new();
    let mut handshake = ServerHandshake::begin(&mut out);
    loop {
        let step = handshake.advance(exports, inbox.bytes(), &mut out);
        inbox.consume(step.consumed);
        if !out.is_empty() {
            let BufResult(result, sent) =
                compio::io::AsyncWriteExt::write_all(&mut stream, out).await;
            result?;
            out = sent;
            out.clear();
        }
        match step.outcome {
            Outcome::Continue => {}
            Outcome::Transmission(negotiated) => return Ok(Some(negotiated)),
            Outcome::Closed(forestall_nbd::CloseReason::Abort) => return Ok(None),
            Outcome::Closed(reason) => return Err(reason.into()),
            Outcome::NeedMore => {
                if inbox.receive(&mut stream, RECEIVE_LEN).await? == 0 {
                    return Ok(None);
                }
            }
        }
    }
}

/// One client in transmission.
struct Session<E> {
    export: E,
    negotiated: Negotiated,
    share: Share,
    outbox: RefCell<Outbox>,
    /// Requests accepted and not yet answered into the outbox.
    in_flight: Cell<u64>,
    /// No more requests will be accepted.
    closing: Cell<bool>,
    /// The client takes no more answers.
    broken: Cell<bool>,
    /// The outbox or one of the above changed.
    changed: Signal,
    /// The sender is about to be polled: it need not be woken.
    sender_next: Cell<bool>,
    /// The receiver lets the sender go first, and will go on at once.
    turned: Cell<bool>,
}

impl<E: Export> Session<E> {
    /// Receives and sends until the client has left and the last accepted request is answered.
    ///
    /// Both halves are one task and the receiver comes first: what it answers at once is sent by the same poll, before it looks for
    /// more.
    async fn transmit<S: Stream>(
        self: &Rc<Self>,
        stream: S,
        inbox: Inbox,
    ) -> Result<(), SessionError> {
        let mut receiver = pin!(self.receive(stream.clone(), inbox));
        let mut sender = pin!(self.send(stream));
        let mut ended = None;
        let sent = poll_fn(|cx| {
            loop {
                if ended.is_none() {
                    self.sender_next.set(true);
                    if let Poll::Ready(result) = receiver.as_mut().poll(cx) {
                        ended = Some(result);
                        self.closing.set(true);
                    }
                    self.sender_next.set(false);
                }
                let done = sender.as_mut().poll(cx);
                if done.is_ready() || !self.turned.replace(false) {
                    return done;
                }
            }
        })
        .await;
        sent?;
        ended.expect("the sender ends after the receiver")
    }

    /// Accepts requests until the client leaves.
    async fn receive<S: Stream>(
        self: &Rc<Self>,
        mut stream: S,
        mut inbox: Inbox,
    ) -> Result<(), SessionError> {
        let mut requests = RequestStream::new(&self.negotiated);
        let mut patience = Patience::new();
        loop {
            let mut len = RECEIVE_LEN;
            loop {
                let (used, next) = requests.next(&self.negotiated, inbox.bytes())?;
                inbox.consume(used);
                let request = match next {
                    Next::NeedMore => break,
                    Next::Rejected(rejected) => {
                        let mode = self.negotiated.mode;
                        self.share.admit(REQUEST_COST).await;
                        self.outbox.borrow_mut().header(|out| rejected.reply(mode, out));
                        self.answered(REQUEST_COST);
                        continue;
                    }
                    Next::Request(request) if request.command == Command::Disconnect => {
                        return Ok(());
                    }
                    Next::Request(request) => request,
                };
                let cost = cost_of(&request);
                self.share.admit(cost).await;
                // What was received and not yet accepted is nobody's any more.
                if self.broken.get() || self.share.limits().stopping.get() {
                    self.share.release(cost);
                    return Ok(());
                }
                let payload = usize::try_from(request.payload()).expect("checked against a limit");
                let there = payload.min(inbox.bytes().len());
                let begun = &inbox.bytes()[..there];
                let data = receive_payload(&mut stream, payload, begun, &mut patience, &self.share);
                let data = data.await.inspect_err(|_| self.share.release(cost))?;
                inbox.consume(there);
                if payload > 0 {
                    len = if payload >= LARGE { requests.header_len() } else { RECEIVE_LEN };
                }
                self.begin(request, data, cost).await;
            }
            if self.receive_more(&mut stream, &mut inbox, len, &mut patience).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Receives up to `len` bytes more; 0 at the end of the stream.
    ///
    /// Requests still under way most likely wait for disks: then the ring is the shorter way, since it has to be entered for them
    /// anyhow.
    async fn receive_more<S: Stream>(
        &self,
        stream: &mut S,
        inbox: &mut Inbox,
        len: usize,
        patience: &mut Patience,
    ) -> io::Result<usize> {
        if self.in_flight.get() == 0 {
            self.turn().await;
            if let Some(count) = patience.look(|| inbox.receive_now(stream, len)).await? {
                return Ok(count);
            }
        }
        inbox.receive(stream, len).await
    }

    /// Lets the sender send what was answered.
    async fn turn(&self) {
        self.turned.set(true);
        poll_fn(|_| if self.turned.get() { Poll::Pending } else { Poll::Ready(()) }).await;
    }

    /// Accepts a request. What is done at once costs no task; everything else goes on as one.
    async fn begin(self: &Rc<Self>, request: Request, data: Buf, cost: u64) {
        self.in_flight.set(self.in_flight.get() + 1);
        let mut work = Box::pin(Rc::clone(self).run(request, data, cost));
        let poll = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        if poll.is_pending() {
            spawn(work);
        }
    }

    /// One request from its acceptance to its answer.
    async fn run(self: Rc<Self>, request: Request, data: Buf, cost: u64) {
        let limits = self.share.limits();
        limits.fence.passed().await;
        let outcome = self.act(&request, data).await;
        limits.fence.passed().await;
        self.answer(&request, outcome);
        self.in_flight.set(self.in_flight.get() - 1);
        self.answered(cost);
    }

    async fn act(&self, request: &Request, data: Buf) -> Result<Done, IoError> {
        let Request { offset, length, fua, command, .. } = *request;
        let export = &self.export;
        match command {
            Command::Read { .. } => return export.read(offset, length).await.map(Done::Data),
            Command::Write => export.write(offset, data, fua).await,
            Command::Flush => export.flush().await,
            Command::Trim => export.trim(offset, length, fua).await,
            Command::WriteZeroes { no_hole, fast } => {
                export.write_zeroes(offset, length, no_hole, fast, fua).await
            }
            // A hint: nothing here is kept in memory for later.
            Command::Cache => Ok(()),
            Command::BlockStatus { req_one } => {
                let most = if req_one { 1 } else { STATUS_RUNS_MAX };
                return export.allocation(offset, length, most).map(Done::Runs);
            }
            Command::Disconnect => unreachable!("ends the receiver"),
        }?;
        Ok(Done::Nothing)
    }

    fn answer(&self, request: &Request, outcome: Result<Done, IoError>) {
        let (mode, tag) = (self.negotiated.mode, request.tag());
        let mut outbox = self.outbox.borrow_mut();
        match outcome {
            Ok(Done::Nothing) => outbox.header(|out| mode.done(out, tag)),
            Ok(Done::Data(pieces)) => {
                let total: usize = pieces.iter().map(Buf::len).sum();
                assert!(total as u64 == request.length, "an export must answer what was asked");
                let length = u32::try_from(total).expect("at most the maximum payload");
                outbox.header(|out| mode.read(out, tag, length));
                pieces.into_iter().for_each(|piece| outbox.data(piece));
            }
            Ok(Done::Runs(runs)) => {
                let req_one = request.command == Command::BlockStatus { req_one: true };
                let context = self.negotiated.allocation_context.expect("checked with the request");
                let query = StatusQuery { context, length: request.length, req_one };
                let extents = runs.iter().map(|run| Extent {
                    length: run.len,
                    flags: if run.hole { wire::STATE_HOLE | wire::STATE_ZERO } else { 0 },
                });
                outbox.header(|out| mode.block_status(out, tag, query, extents));
            }
            Err(error) => {
                outbox.header(|out| mode.error(out, tag, errno_of(error), &error.to_string()));
            }
        }
    }

    fn answered(&self, cost: u64) {
        self.outbox.borrow_mut().cost += cost;
        if !self.sender_next.get() {
            self.changed.notify();
        }
    }

    /// Sends what gathers in the outbox until nothing more can come. A client that has gone is no error, one that was hung up on is.
    async fn send<S: Stream>(&self, mut stream: S) -> io::Result<()> {
        let mut batch = Outbox::default();
        let mut hung_up = Ok(());
        loop {
            self.changed.until(|| !self.outbox.borrow().is_empty() || self.finished()).await;
            std::mem::swap(&mut batch, &mut self.outbox.borrow_mut());
            if batch.is_empty() {
                break;
            }
            let cost = batch.cost;
            if !self.broken.get() {
                let result;
                (result, batch) = socket::send(&mut stream, batch, &self.share).await;
                if let Err(error) = result {
                    if error.kind() == io::ErrorKind::TimedOut {
                        hung_up = Err(error);
                    }
                    // The receiver sees the end of the stream; answers are dropped from here on.
                    self.broken.set(true);
                    let _ignored = rustix::net::shutdown(&stream, Shutdown::Both);
                }
            }
            batch.clear();
            self.share.release(cost);
        }
        // Whoever still reads gets an orderly end.
        let _ignored = rustix::net::shutdown(&stream, Shutdown::Both);
        hung_up
    }

    fn finished(&self) -> bool {
        self.closing.get() && self.in_flight.get() == 0
    }
}

/// What a request brought, apart from an error.
enum Done {
    Nothing,
    Data(Vec<Buf>),
    Runs(Vec<AllocationRun>),
}

/// What a request may hold in memory, in bytes, until its answer was taken.
fn cost_of(request: &Request) -> u64 {
    REQUEST_COST
        + match request.command {
            Command::Read { .. } | Command::Write => request.length,
            Command::BlockStatus { req_one: false } => (STATUS_RUNS_MAX * 16) as u64,
            _ => 0,
        }
}

/// The one place where engine errors become NBD's.
fn errno_of(error: IoError) -> Errno {
    match error {
        IoError::Io => Errno::Io,
        IoError::NoSpace => Errno::NoSpc,
        IoError::OutOfRange => Errno::Inval,
        IoError::ReadOnly => Errno::Perm,
        IoError::NotSupported => Errno::NotSup,
        IoError::Stopped => Errno::Shutdown,
    }
}

#[cfg(test)]
mod tests;
