//! Simulated hosts: connections that read, write, flush and zero a volume at random, and check each answer.
//!
//! Owns the mixture of requests and the [`Host`] through which every request passes, so that none escapes the oracle. A
//! broken promise unwinds with the [`Violation`] as its payload, which ends the simulation at that step. Which requests
//! may fail is the host's strictness: within what a level survives, none.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use forestall_engine::{BLOCK_SIZE, IoError, Runtime};

use crate::executor::SimRuntime;
use crate::oracle::{Oracle, Request, Violation};
use crate::rng::Rng;
use crate::target::{Target, Zeroing};

/// Longest piece of a full read.
const VERIFY_PIECE: u64 = 256 * 1024;

/// One connection of a host to one volume.
pub struct Host<T> {
    /// The volume.
    pub target: Rc<T>,
    /// Its name.
    pub volume: String,
    /// The connection's number, for the record.
    pub connection: u32,
    /// The judge.
    pub oracle: Rc<RefCell<Oracle>>,
    /// Whether a disk below has been full.
    pub full: Rc<Cell<bool>>,
    /// Bytes of a full stripe, if one in flight at a crash may leave blocks listed lost.
    pub may_lose: Option<u64>,
    /// Time.
    pub runtime: SimRuntime,
}

impl<T: Target> Host<T> {
    /// Writes a range of this operation's pattern.
    pub async fn write(&self, offset: u64, len: u64, fua: bool) -> Result<(), IoError> {
        let op = self.begin(Request::Write { offset, len, fua });
        let data = self.oracle.borrow().data(op);
        let result = self.target.write(offset, data, fua).await;
        self.end(op, result)
    }

    /// Makes a range read as zeroes.
    pub async fn zero(
        &self,
        offset: u64,
        len: u64,
        how: Zeroing,
        fua: bool,
    ) -> Result<(), IoError> {
        let op = self.begin(Request::Zero { offset, len, fua });
        let result = self.target.zero(offset, len, how, fua).await;
        self.end(op, result)
    }

    /// Flushes the volume.
    pub async fn flush(&self) -> Result<(), IoError> {
        let op = self.begin(Request::Flush);
        let result = self.target.flush().await;
        self.end(op, result)
    }

    /// Reads a range and checks what it holds.
    ///
    /// # Panics
    /// With a [`Violation`] if it holds what it must not.
    pub async fn read(&self, offset: u64, len: u64) -> Result<(), IoError> {
        let op = self.begin(Request::Read { offset, len });
        let result = self.target.read(offset, len).await;
        self.note(op, result.is_ok());
        let pieces = result.as_ref().ok().map(Vec::as_slice);
        if let Err(violation) = self.oracle.borrow_mut().read(op, pieces) {
            break_off(violation);
        }
        result.map(|_| ())
    }

    /// Reads the volume from end to end.
    pub async fn verify(&self, size: u64) -> Result<(), IoError> {
        for offset in (0..size).step_by(VERIFY_PIECE as usize) {
            self.read(offset, VERIFY_PIECE.min(size - offset)).await?;
        }
        Ok(())
    }

    /// [`Host::verify`] that allows no error but on blocks that may be lost.
    ///
    /// # Panics
    /// With a [`Violation`].
    pub async fn verify_strictly(&self, size: u64) {
        for offset in (0..size).step_by(VERIFY_PIECE as usize) {
            let end = (offset + VERIFY_PIECE).min(size);
            let result = self.read(offset, end - offset).await;
            if result.is_ok() || !self.is_excused(offset, end - offset) {
                self.must(result, "a full read");
                continue;
            }
            for block in (offset..end).step_by(BLOCK_SIZE as usize) {
                let len = BLOCK_SIZE.min(end - block);
                let result = self.read(block, len).await;
                if !self.is_excused(block, len) {
                    self.must(result, "a read of one block");
                }
            }
        }
    }

    /// Whether a range touches a block that a crash may have left listed lost.
    fn is_excused(&self, offset: u64, len: u64) -> bool {
        // A write that ends inside blocks is merged to whole ones, and may become a full stripe by that.
        let least = |stripe: u64| stripe.saturating_sub(2 * (BLOCK_SIZE - 1));
        self.may_lose.map(least).is_some_and(|stripe| {
            self.oracle.borrow().was_in_flight(&self.volume, offset, len, stripe)
        })
    }

    /// A request of this connection was refused where none may be.
    ///
    /// # Panics
    /// Always, with a [`Violation`].
    pub fn must(&self, result: Result<(), IoError>, what: &str) {
        if let Err(error) = result {
            let text = format!(
                "volume {}: {what} failed ({error}) within what the level survives",
                self.volume
            );
            let violation = self.oracle.borrow().complaint(text);
            break_off(violation);
        }
    }

    fn begin(&self, request: Request) -> u64 {
        let op = self.oracle.borrow_mut().begin(self.connection, &self.volume, request);
        self.runtime.trace().note(20, op, u64::from(self.connection));
        self.runtime.trace().line(
            self.runtime.now_ns(),
            format_args!("host {} {} #{op} {request:?}", self.connection, self.volume),
        );
        op
    }

    fn end(&self, op: u64, result: Result<(), IoError>) -> Result<(), IoError> {
        self.note(op, result.is_ok());
        self.oracle.borrow_mut().end(op, result.is_ok());
        result
    }

    fn note(&self, op: u64, ok: bool) {
        self.runtime.trace().note(21, op, u64::from(ok));
        let words = if ok { "done" } else { "failed" };
        self.runtime.trace().line(self.runtime.now_ns(), format_args!("host #{op} {words}"));
    }
}

/// Ends the simulation with a violation.
pub fn break_off(violation: Violation) -> ! {
    std::panic::panic_any(violation)
}

/// What a connection does at random.
#[derive(Clone, Debug)]
pub struct Habits {
    /// Size of the volume in bytes.
    pub size: u64,
    /// Bytes in a chunk, for requests that fit stripes.
    pub chunk: u64,
    /// Data bytes in a stripe.
    pub stripe: u64,
    /// Where requests crowd.
    pub hot: Vec<u64>,
    /// How many requests in a hundred are near a hot place.
    pub hot_percent: u64,
}

impl Habits {
    /// Habits for a volume.
    pub fn random(size: u64, chunk: u64, stripe: u64, rng: &mut Rng) -> Self {
        let hot = (0..rng.within(1..5)).map(|_| rng.below(size)).collect();
        let hot_percent = rng.pick(&[0, 40, 80, 95]);
        Self { size, chunk, stripe, hot, hot_percent }
    }

    /// A range: odd bytes, sectors, blocks, chunks or whole stripes.
    fn range(&self, rng: &mut Rng) -> (u64, u64) {
        let (unit, most) = match rng.below(100) {
            0..30 => (1, 6000),
            30..45 => (512, 40),
            45..75 => (BLOCK_SIZE, 8),
            75..90 => (self.chunk, 3),
            _ => (self.stripe, 2),
        };
        let place = if rng.percent(self.hot_percent) {
            let near = rng.pick(&self.hot) as i64 + rng.below(24 * 1024) as i64 - 12 * 1024;
            near.clamp(0, self.size as i64 - 1) as u64
        } else {
            rng.below(self.size)
        };
        let offset = place / unit * unit;
        let len = (rng.within(1..most + 1) * unit).min(self.size - offset);
        (offset, len)
    }
}

/// Requests still to be made in this run of the machine, shared by its connections.
pub type Budget = Rc<Cell<u64>>;

/// Runs one connection until the budget is spent. With `strict` no request may fail.
pub async fn connection<T: Target>(
    host: Host<T>,
    habits: Habits,
    mut rng: Rng,
    budget: Budget,
    strict: bool,
) {
    let host = Rc::new(host);
    while let Some(left) = budget.get().checked_sub(1) {
        budget.set(left);
        if rng.percent(10) {
            let pause = rng.log_scaled(3_000_000);
            host.runtime.sleep_ns(pause).await;
        }
        let (offset, len) = habits.range(&mut rng);
        let fua = rng.percent(12);
        let how = rng.pick(&[Zeroing::Trim, Zeroing::Zeroes, Zeroing::NoHole, Zeroing::Fast]);
        let abandon = rng.percent(2);
        let drawn = rng.below(100);
        let (result, what) = match drawn {
            0..36 => (host.read(offset, len).await, "a read"),
            36..78 => (unless_abandoned(abandon, host.write(offset, len, fua)).await, "a write"),
            78..88 => {
                (unless_abandoned(abandon, host.zero(offset, len, how, fua)).await, "a zeroing")
            }
            _ => (unless_abandoned(abandon, host.flush()).await, "a flush"),
        };
        let refused = result == Err(IoError::NotSupported) && how == Zeroing::Fast;
        // A full disk may be told to the host instead of costing a member; the range is then unchanged.
        let full = result == Err(IoError::NoSpace) && host.full.get();
        let excused = drawn < 88 && result == Err(IoError::Io) && host.is_excused(offset, len);
        if strict && !refused && !full && !excused {
            host.must(result, what);
        }
    }
}

/// Awaits `request`, or drops it after its first poll, as a vanished connection does.
async fn unless_abandoned(
    abandon: bool,
    request: impl Future<Output = Result<(), IoError>>,
) -> Result<(), IoError> {
    let mut request = pin!(request);
    if !abandon {
        return request.await;
    }
    let first = std::future::poll_fn(|cx| Poll::Ready(request.as_mut().poll(cx))).await;
    match first {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}
