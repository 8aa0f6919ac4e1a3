//! What the host of a measurement does, and how it fared.
//!
//! Owns the loads and their clock: a request's time is from its submission to its answer, the flush behind a write included. Invariant: as many requests as
//! the load is deep are under way until the end, none before the start.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use forestall_engine::{Buf, IoError, Runtime, VolumeHandle};

use super::State;
use crate::machine::Machine;
use crate::rng::Rng;
use crate::target::SimEnv;

const BLOCK: u64 = 4096;
/// Bytes of a sequential request.
const PIECE: u64 = 1 << 20;
/// Sequential writes between two flushes.
const FLUSH_EVERY: u64 = 16;
/// The first of the streams of chance of the load, one a place in its queue.
const PLACES: u64 = 2_000_000;

/// What a host does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Load {
    /// Nothing.
    Idle,
    /// Writes of 1 MiB one after the other, four under way, a flush behind every sixteenth.
    SequentialWrite,
    /// Reads of 1 MiB one after the other, four under way.
    SequentialRead,
    /// Reads of 4 KiB anywhere, eight under way.
    RandomRead,
    /// Writes of 4 KiB anywhere, each flushed, eight under way.
    RandomWrite,
}

impl Load {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Idle,
        Self::SequentialWrite,
        Self::SequentialRead,
        Self::RandomRead,
        Self::RandomWrite,
    ];

    /// Bytes of a request.
    pub(super) fn bytes(self) -> u64 {
        if self.is_sequential() { PIECE } else { BLOCK }
    }

    /// Whether its requests follow each other.
    #[must_use]
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::SequentialWrite | Self::SequentialRead)
    }

    /// Whether there is something to measure of it in that state.
    pub(super) fn tells(self, state: State) -> bool {
        self != Self::Idle || matches!(state, State::Shielded | State::Direct)
    }

    fn depth(self) -> u64 {
        match self {
            Self::Idle => 0,
            Self::SequentialWrite | Self::SequentialRead => 4,
            Self::RandomRead | Self::RandomWrite => 8,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Idle => "no host",
            Self::SequentialWrite => "sequential write",
            Self::SequentialRead => "sequential read",
            Self::RandomRead => "4 KiB random read",
            Self::RandomWrite => "4 KiB write + flush",
        })
    }
}

/// How a host fared in a stretch of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Requests answered.
    pub requests: u64,
    /// Bytes they moved.
    pub bytes: u64,
    /// The stretch.
    pub span_ns: u64,
    /// Mean time of a request.
    pub mean_ns: u64,
    /// Time that one request in a hundred exceeds.
    pub p99_ns: u64,
}

impl Figures {
    /// Requests a second.
    #[must_use]
    pub fn requests_per_sec(&self) -> f64 {
        self.requests as f64 * 1e9 / self.span_ns.max(1) as f64
    }

    fn of(mut times: Vec<u64>, bytes: u64, span_ns: u64) -> Self {
        times.sort_unstable();
        let requests = times.len() as u64;
        let Some(last) = times.len().checked_sub(1) else {
            return Self { span_ns, ..Self::default() };
        };
        Self {
            requests,
            bytes: requests * bytes,
            span_ns,
            mean_ns: times.iter().sum::<u64>() / requests,
            p99_ns: times[(times.len() * 99).div_ceil(100).min(last + 1) - 1],
        }
    }
}

/// The host; clones share it.
#[derive(Clone)]
pub(super) struct Player(Rc<Inner>);

struct Inner {
    machine: Machine,
    volume: VolumeHandle<SimEnv>,
    size: u64,
    load: Load,
    data: Buf,
    /// Sequential requests so far.
    pieces: Cell<u64>,
    under_way: Cell<u64>,
    ends: Cell<bool>,
    /// When each request was submitted and answered.
    answered: RefCell<Vec<(u64, u64)>>,
}

impl Player {
    /// A host of "v1".
    pub(super) fn new(machine: &Machine, load: Load) -> Self {
        let Some(volume) = machine.array.open_volume("v1") else {
            machine.complain("volume v1 is not there".into());
        };
        let size = volume.info().size / PIECE * PIECE;
        let bytes: Vec<u8> = (0..PIECE).map(|at| (at / 7 % 251) as u8 | 1).collect();
        Self(Rc::new(Inner {
            machine: machine.clone(),
            volume,
            size,
            load,
            data: Buf::copy_of(&bytes),
            pieces: Cell::new(0),
            under_way: Cell::new(0),
            ends: Cell::new(false),
            answered: RefCell::default(),
        }))
    }

    /// Writes the volume from end to end.
    pub(super) async fn fill(&self) {
        let size = self.0.volume.info().size;
        for offset in (0..size).step_by(PIECE as usize) {
            let data = self.0.data.slice(0..PIECE.min(size - offset) as usize);
            self.must(self.0.volume.write(offset, data, false).await);
        }
        self.must(self.0.volume.flush().await);
    }

    /// Begins.
    pub(super) fn start(&self) {
        for place in 0..self.0.load.depth() {
            let (host, rng) = (self.clone(), Rng::new(self.0.machine.world.seed, PLACES + place));
            self.0.under_way.set(self.0.under_way.get() + 1);
            self.0.machine.runtime.spawn(Box::pin(host.go_on(rng)));
        }
    }

    /// Asks for nothing more, and waits for what is under way.
    pub(super) async fn end(&self) {
        self.0.ends.set(true);
        while self.0.under_way.get() > 0 {
            self.0.machine.pause(1_000_000).await;
        }
    }

    /// How the host fared: what was answered in that time.
    pub(super) fn figures(&self, span: Range<u64>) -> Figures {
        let answered = self.0.answered.borrow();
        let within = answered.iter().filter(|(_, end)| span.contains(end));
        let times = within.map(|(begun, end)| end - begun).collect();
        Figures::of(times, self.0.load.bytes(), span.end - span.start)
    }

    async fn go_on(self, mut rng: Rng) {
        let now = || self.0.machine.runtime.now_ns();
        while !self.0.ends.get() {
            let begun = now();
            self.one(&mut rng).await;
            self.0.answered.borrow_mut().push((begun, now()));
        }
        self.0.under_way.set(self.0.under_way.get() - 1);
    }

    async fn one(&self, rng: &mut Rng) {
        let Inner { volume, size, load, data, pieces, .. } = &*self.0;
        let piece = pieces.get();
        pieces.set(piece + 1);
        let follows = piece * PIECE % size;
        let anywhere = rng.below(size / BLOCK) * BLOCK;
        match load {
            Load::Idle => {}
            Load::SequentialRead => self.must(volume.read(follows, PIECE).await.map(drop)),
            Load::RandomRead => self.must(volume.read(anywhere, BLOCK).await.map(drop)),
            Load::SequentialWrite => {
                self.must(volume.write(follows, data.clone(), false).await);
                if piece % FLUSH_EVERY == FLUSH_EVERY - 1 {
                    self.must(volume.flush().await);
                }
            }
            Load::RandomWrite => {
                self.must(volume.write(anywhere, data.slice(0..BLOCK as usize), false).await);
                self.must(volume.flush().await);
            }
        }
    }

    fn must(&self, result: Result<(), IoError>) {
        if let Err(error) = result {
            self.0.machine.complain(format!("a request of the host fails: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_in_a_hundred_takes_longer_than_p99() {
        let of = |times: Vec<u64>| Figures::of(times, 4096, 1_000_000_000);
        let hundred = of((1..=100).rev().collect());
        assert_eq!((hundred.requests, hundred.bytes), (100, 409_600));
        assert_eq!((hundred.mean_ns, hundred.p99_ns), (50, 99));
        assert_eq!(of(vec![7]).p99_ns, 7);
        assert_eq!(of(Vec::new()).requests, 0);
        assert!((hundred.requests_per_sec() - 100.0).abs() < 1e-9);
    }
}
