//! How far a long piece of work is, and how fast it may go.
//!
//! Owns counters shared between a job's flow and those who watch or throttle it. Invariant: a limit is kept over the whole run, by
//! sleeping after each step; zero means none.

use std::cell::Cell;
use std::rc::Rc;

use crate::runtime::Runtime;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// Counters of one job.
#[derive(Default)]
pub(crate) struct Progress {
    /// Bytes of member address space done.
    pub(crate) done: Cell<u64>,
    /// Bytes of member address space in all.
    pub(crate) total: Cell<u64>,
    /// Limit in bytes a second; 0 for none.
    pub(crate) limit: Cell<u64>,
    /// Somebody asked the job to end.
    pub(crate) stop: Cell<bool>,
    /// Blocks that differed.
    pub(crate) mismatches: Cell<u64>,
    /// Blocks that nothing could give.
    pub(crate) lost: Cell<u64>,
    /// Monotonic time of the start.
    pub(crate) started_ns: Cell<u64>,
    /// Bytes already done at the start: resumed work does not count for the rate.
    pub(crate) resumed_at: Cell<u64>,
    /// Bytes that moved since the limit was last changed, and when that was.
    paced: Cell<(u64, u64)>,
}

impl Progress {
    pub(crate) fn new(total: u64, limit: u64, now_ns: u64) -> Rc<Self> {
        let progress = Self::default();
        progress.total.set(total);
        progress.limit.set(limit);
        progress.started_ns.set(now_ns);
        progress.paced.set((0, now_ns));
        Rc::new(progress)
    }

    /// Bytes a second since the start.
    pub(crate) fn rate(&self, now_ns: u64) -> u64 {
        let elapsed = now_ns.saturating_sub(self.started_ns.get()).max(1);
        let done = self.done.get().saturating_sub(self.resumed_at.get());
        (u128::from(done) * u128::from(SECOND_NS) / u128::from(elapsed)) as u64
    }

    /// Seconds until the end at the present rate.
    pub(crate) fn eta_s(&self, now_ns: u64) -> Option<u64> {
        let rate = self.rate(now_ns);
        (rate > 0).then(|| self.total.get().saturating_sub(self.done.get()).div_ceil(rate))
    }

    /// Changes the limit; what was moved before does not count against it.
    pub(crate) fn set_limit(&self, limit: u64, now_ns: u64) {
        self.limit.set(limit);
        self.paced.set((0, now_ns));
    }

    /// Counts `moved` bytes of disk traffic and sleeps as long as the limit asks.
    pub(crate) async fn pace<R: Runtime>(&self, rt: &R, moved: u64) {
        let (before, since) = self.paced.get();
        self.paced.set((before + moved, since));
        loop {
            let (limit, (moved, since)) = (self.limit.get(), self.paced.get());
            if limit == 0 || self.stop.get() {
                return;
            }
            let due_ns = (u128::from(moved) * u128::from(SECOND_NS) / u128::from(limit)) as u64;
            let elapsed = rt.now_ns().saturating_sub(since);
            if due_ns <= elapsed {
                return;
            }
            // In short steps, so that a stop or a new limit is seen soon.
            rt.sleep_ns((due_ns - elapsed).min(SECOND_NS / 5)).await;
        }
    }
}
