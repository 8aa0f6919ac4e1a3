//! How much memory clients may hold, and whether anybody may be answered.
//!
//! Owns [`Limits`], shared by all sessions, a session's [`Share`] of it and the [`Fence`]. Memory is counted in bytes of payloads and
//! answers, not in requests. Invariants: a session may hold at most a quarter of what is still free for everybody (so each client that
//! stopped reading leaves four fifths of what it found: dynamic thresholds after Choudhury and Hahne, "Dynamic Queue Length Thresholds
//! for Shared-Memory Packet Switches", 1998), but always one request of usual size, and one of any size as long as all together
//! stay below a limit that no host runs out of memory by. Where that limit leaves somebody nothing, whoever holds much and moves no byte gives way.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::signal::Signal;

/// Bytes for all sessions together.
const ALL_MAX: u64 = 256 << 20;

/// A session's only request of up to this cost is never held back: what block layers and copying tools send is not larger than 2 MiB.
const USUAL_MAX: u64 = (2 << 20) + (4 << 10);

/// Larger ones are, where they would bring the sum for all sessions above this. Clients that stop in the middle of very large requests
/// then hold back very large requests only.
const LARGE_ALL_MAX: u64 = 1 << 30;

/// A session may hold the free part divided by this.
const FREE_DIVISOR: u64 = 4;

/// Sessions that hold less than this never give way: all of them together leave room below [`LARGE_ALL_MAX`].
pub const MUCH: u64 = 1 << 20;

/// How long a session that holds much may move no byte while another has room for none of its requests.
const STALL_MAX: Duration = Duration::from_secs(10);

const _: () = assert!(
    ALL_MAX / (FREE_DIVISOR + 1) > forestall_nbd::wire::PAYLOAD_DEFAULT_MAX as u64,
    "beside the largest request there is room for small ones"
);

/// What all sessions share.
pub struct Limits {
    used: Cell<u64>,
    /// Sessions that hold nothing and have no room for their next request.
    short: Cell<u64>,
    /// How long others may move no byte meanwhile.
    pub stall_max: Cell<Duration>,
    /// Something was released.
    room: Signal,
    /// The server takes no more requests.
    pub stopping: Cell<bool>,
    /// Closed while the server is not sure to own its disks.
    pub fence: Fence,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            used: Cell::new(0),
            short: Cell::new(0),
            stall_max: Cell::new(STALL_MAX),
            room: Signal::default(),
            stopping: Cell::new(false),
            fence: Fence::default(),
        }
    }
}

impl Limits {
    /// Bytes held by all sessions.
    pub fn used(&self) -> u64 {
        self.used.get()
    }
}

/// What one session holds.
pub struct Share {
    limits: Rc<Limits>,
    used: Cell<u64>,
}

impl Share {
    /// Nothing yet.
    pub fn new(limits: Rc<Limits>) -> Self {
        Self { limits, used: Cell::new(0) }
    }

    /// What is shared.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether this session holds much while another has room for nothing.
    pub fn is_in_the_way(&self) -> bool {
        self.used.get() >= MUCH && self.limits.short.get() > 0
    }

    /// Waits until `cost` bytes may be held, and holds them.
    pub async fn admit(&self, cost: u64) {
        let short = Short { limits: &self.limits, counted: Cell::new(false) };
        let fits = || {
            let fits = self.fits(cost);
            short.set(!fits && self.used.get() == 0);
            fits
        };
        self.limits.room.until(fits).await;
        self.used.set(self.used.get() + cost);
        self.limits.used.set(self.limits.used.get() + cost);
    }

    fn fits(&self, cost: u64) -> bool {
        let used = self.used.get();
        let free = ALL_MAX.saturating_sub(self.limits.used.get());
        let only = cost <= USUAL_MAX || self.limits.used.get() + cost <= LARGE_ALL_MAX;
        used == 0 && only || used + cost <= free / FREE_DIVISOR
    }

    /// Holds `cost` bytes less.
    pub fn release(&self, cost: u64) {
        let take = |cell: &Cell<u64>| {
            cell.set(cell.get().checked_sub(cost).expect("only what was admitted is released"));
        };
        take(&self.used);
        take(&self.limits.used);
        self.limits.room.notify();
    }
}

/// Counts a session among those that are short of room, while it is.
struct Short<'a> {
    limits: &'a Limits,
    counted: Cell<bool>,
}

impl Short<'_> {
    fn set(&self, short: bool) {
        let others = self.limits.short.get() - u64::from(self.counted.replace(short));
        self.limits.short.set(others + u64::from(short));
    }
}

impl Drop for Short<'_> {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Drop for Share {
    /// A session that was cut off in the middle of a stop takes nothing along.
    fn drop(&mut self) {
        self.release(self.used.get());
    }
}

/// A gate before every answer: open until its lease ends, unless it was closed for good.
#[derive(Default)]
pub struct Fence {
    /// Answers may go out until then; `None` where nobody else can own the disks.
    lease: Cell<Option<Instant>>,
    renewed: Signal,
}

impl Fence {
    /// Answers may go out until `until`. To be called before the lease ends, and after it ended only once the disks were seen
    /// to be ours still.
    pub fn renew(&self, until: Instant) {
        self.lease.set(Some(until));
        self.renewed.notify();
    }

    /// Whether nobody is answered now.
    pub fn is_closed(&self) -> bool {
        self.lease.get().is_some_and(|until| Instant::now() > until)
    }

    /// Completes when the fence is open.
    pub async fn passed(&self) {
        if self.is_closed() {
            self.renewed.until(|| !self.is_closed()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalled_sessions_leave_room_for_the_next_one() {
        let limits = Rc::new(Limits::default());
        let shares: Vec<Share> = (0..100).map(|_| Share::new(Rc::clone(&limits))).collect();
        for share in &shares {
            let mut requests = 0;
            while share.fits(1 << 20) && requests < 1000 {
                share.used.set(share.used.get() + (1 << 20));
                limits.used.set(limits.used.get() + (1 << 20));
                requests += 1;
            }
            assert!(requests >= 1, "a session may always have one request");
            assert!(share.used.get() <= ALL_MAX / (FREE_DIVISOR + 1) + (1 << 20));
        }
        assert!(shares[..10].iter().all(|share| share.used.get() >= 4 << 20));
        assert!(limits.used() <= ALL_MAX + (100 << 20));
        drop(shares);
        assert_eq!(limits.used(), 0);
    }

    #[test]
    fn sessions_that_stall_in_the_largest_requests_leave_memory_and_room_for_usual_ones() {
        const LARGEST: u64 = 32 << 20;
        let limits = Rc::new(Limits::default());
        let shares: Vec<Share> = (0..512).map(|_| Share::new(Rc::clone(&limits))).collect();
        let hold = |share: &Share, cost: u64| {
            let fits = share.fits(cost);
            if fits {
                share.used.set(share.used.get() + cost);
                limits.used.set(limits.used.get() + cost);
            }
            fits
        };
        let stalled = shares.iter().filter(|share| hold(share, LARGEST)).count();
        assert!((8..=32).contains(&stalled), "{stalled} of the largest requests at once");
        assert!(limits.used() <= LARGE_ALL_MAX);
        assert!(shares[stalled..].iter().all(|share| hold(share, USUAL_MAX)));
        assert!(limits.used() <= LARGE_ALL_MAX + 512 * USUAL_MAX);
    }
}
