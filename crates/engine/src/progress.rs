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
    /// The limit does not count now.
    pub(crate) lifted: Cell<bool>,
    /// Somebody asked the job to end.
    pub(crate) stop: Cell<bool>,
    /// Blocks that differed.
    pub(crate) mismatches: Cell<u64>,
    /// Blocks that did not fit their checksum.
    pub(crate) misfits: Cell<u64>,
    /// Lost blocks that the others could give after all.
    pub(crate) remade: Cell<u64>,
    /// Blocks that nothing could give.
    pub(crate) lost: Cell<u64>,
    /// Monotonic time of the start.
    pub(crate) started_ns: Cell<u64>,
    /// Bytes already done at the start: resumed work does not count for the rate.
    pub(crate) resumed_at: Cell<u64>,
    /// Bytes that moved since the start: what was never written is done without.
    moved: Cell<u64>,
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

    /// Bytes moved a second since the start.
    pub(crate) fn rate(&self, now_ns: u64) -> u64 {
        self.per_second(self.moved.get(), now_ns)
    }

    /// Seconds until the end if it goes on as it went, skipped space included.
    pub(crate) fn eta_s(&self, now_ns: u64) -> Option<u64> {
        let done = self.done.get().saturating_sub(self.resumed_at.get());
        let speed = self.per_second(done, now_ns);
        (speed > 0).then(|| self.total.get().saturating_sub(self.done.get()).div_ceil(speed))
    }

    fn per_second(&self, bytes: u64, now_ns: u64) -> u64 {
        let elapsed = (now_ns.saturating_sub(self.started_ns.get()) + self.owed_ns(now_ns)).max(1);
        (u128::from(bytes) * u128::from(SECOND_NS) / u128::from(elapsed)) as u64
    }

    /// Whether it runs long enough for a pace to be told from a first moment.
    pub(crate) fn has_pace(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.started_ns.get()) >= 2 * SECOND_NS
    }

    /// How long the limit makes it wait still for what has moved already.
    fn owed_ns(&self, now_ns: u64) -> u64 {
        let (limit, (moved, since)) = (self.limit.get(), self.paced.get());
        if limit == 0 || self.lifted.get() {
            return 0;
        }
        due_ns(moved, limit).saturating_sub(now_ns.saturating_sub(since))
    }

    /// Counts `moved` bytes of disk traffic.
    fn count(&self, moved: u64) {
        self.moved.set(self.moved.get() + moved);
        let (before, since) = self.paced.get();
        self.paced.set((before + moved, since));
    }

    /// Changes the limit; what was moved before does not count against it.
    pub(crate) fn set_limit(&self, limit: u64, now_ns: u64) {
        self.limit.set(limit);
        self.paced.set((0, now_ns));
    }

    /// Whether a limit holds it back now.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit.get() > 0 && !self.lifted.get()
    }

    /// Counts `moved` bytes of disk traffic and sleeps as long as the limit asks.
    pub(crate) async fn pace<R: Runtime>(&self, rt: &R, moved: u64) {
        self.pace_unless(rt, moved, || false).await;
    }

    /// [`Progress::pace`] whose limit does not count while `urgent` holds.
    pub(crate) async fn pace_unless<R: Runtime>(
        &self,
        rt: &R,
        moved: u64,
        urgent: impl Fn() -> bool,
    ) {
        self.count(moved);
        loop {
            let (limit, (moved, since)) = (self.limit.get(), self.paced.get());
            let lifted = urgent();
            if self.lifted.replace(lifted) != lifted {
                self.paced.set((0, rt.now_ns()));
            }
            if limit == 0 || self.stop.get() || self.lifted.get() {
                return;
            }
            let due_ns = due_ns(moved, limit);
            let elapsed = rt.now_ns().saturating_sub(since);
            if due_ns <= elapsed {
                return;
            }
            // In short steps, so that a stop or a new limit is seen soon.
            rt.sleep_ns((due_ns - elapsed).min(SECOND_NS / 5)).await;
        }
    }
}

/// How long `moved` bytes take under a limit.
fn due_ns(moved: u64, limit: u64) -> u64 {
    (u128::from(moved) * u128::from(SECOND_NS) / u128::from(limit)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_of_what_moved_and_the_end_of_all_that_is_left() {
        let progress = Progress::new(1000, 0, 0);
        assert_eq!((progress.rate(SECOND_NS), progress.eta_s(SECOND_NS)), (0, None));
        progress.done.set(500);
        assert_eq!(progress.rate(SECOND_NS), 0, "skipped is not moved");
        progress.count(100);
        assert_eq!(progress.rate(2 * SECOND_NS), 50);
        assert_eq!(progress.eta_s(2 * SECOND_NS), Some(2));
        progress.set_limit(7, 2 * SECOND_NS);
        assert_eq!(progress.rate(2 * SECOND_NS), 50, "a new limit forgets nothing");
    }

    #[test]
    fn a_first_step_does_not_look_faster_than_the_limit() {
        let progress = Progress::new(1000, 10, 0);
        progress.done.set(100);
        progress.count(100);
        // A hundred bytes in no time, and the next not before ten seconds have passed.
        for now in [1, SECOND_NS, 9 * SECOND_NS] {
            assert_eq!((progress.rate(now), progress.eta_s(now)), (10, Some(90)));
        }
        assert!(!progress.has_pace(SECOND_NS) && progress.has_pace(2 * SECOND_NS));
        progress.lifted.set(true);
        assert_eq!(progress.rate(SECOND_NS), 100);
    }
}
