//! One atomic register: the possible values of a piece of a volume, over time and over crashes.
//!
//! Owns the judgement which version a read may return. A register holds every version that may still be seen; each
//! carries the times that rule it out. Invariants (design.md §5): a read never returns a version that was certainly
//! replaced before the read began; what a read returned, later reads agree with; a crash leaves what the last completed
//! flush covered or anything submitted later, and the first read after it pins which (rule F5). The check is sound: it
//! never calls a right answer wrong. Where concurrent writes leave the order open it may let more pass than happened.

/// A moment in the order of events of one simulation.
pub type Tick = u64;

/// Not yet.
pub const NEVER: Tick = Tick::MAX;

/// One version that the register may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The operation that writes it; 0 is the zeroes at the volume's creation.
    pub op: u64,
    /// It reads as zeroes.
    pub zero: bool,
    /// When it was submitted.
    pub start: Tick,
    /// When it was answered, whatever the answer; or the crash that left it unanswered.
    pub end: Tick,
    /// A flush after its end makes it last: it was acknowledged, or it was there after a crash.
    covered: bool,
    /// Reads that begin after this cannot return it.
    gone: Tick,
    /// From when on a version that a flush may cover is known to have replaced it.
    replaced: Tick,
    /// A version under way that a read showed to come after this one.
    behind: Option<u64>,
    /// Not even a crash brings it back.
    dead: bool,
    /// It was there or under way at the last crash.
    survivor: bool,
}

impl Version {
    fn new(op: u64, zero: bool, start: Tick) -> Self {
        Self {
            op,
            zero,
            start,
            end: NEVER,
            covered: false,
            gone: NEVER,
            replaced: NEVER,
            behind: None,
            dead: false,
            survivor: false,
        }
    }

    fn readable(&self, from: Tick) -> bool {
        from <= self.gone
    }
}

/// The versions that one piece of a volume may hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    versions: Vec<Version>,
}

impl Register {
    /// A register that has always been zero.
    #[must_use]
    pub fn zero() -> Self {
        let first = Version { end: 0, covered: true, ..Version::new(0, true, 0) };
        Self { versions: vec![first] }
    }

    /// The versions that a read which began at `from` may return.
    pub fn readable(&self, from: Tick) -> impl Iterator<Item = &Version> {
        self.versions.iter().filter(move |v| v.readable(from))
    }

    /// Every version still remembered.
    #[must_use]
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Whether only one version is possible, now and after a crash.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.versions.len() == 1 && self.versions[0].end != NEVER
    }

    /// A write is submitted.
    pub fn begin(&mut self, op: u64, zero: bool, now: Tick) {
        self.versions.push(Version::new(op, zero, now));
    }

    /// A write is answered. With `acked` it replaced all that ended before it began; else it may or may not have.
    /// With `durable` (FUA) it is as after a flush.
    pub fn end(&mut self, op: u64, now: Tick, acked: bool, durable: bool) {
        let Some(at) = self.versions.iter().position(|v| v.op == op) else { return };
        self.versions[at].end = now;
        if !acked {
            return;
        }
        self.versions[at].covered = true;
        let start = self.versions[at].start;
        for v in &mut self.versions {
            if v.end < start || v.behind == Some(op) {
                v.gone = v.gone.min(now);
                v.replaced = v.replaced.min(now);
                v.dead |= durable;
            }
        }
    }

    /// A read that began at `from` and ended at `now` returned one of the versions named by `returned`.
    pub fn read(&mut self, from: Tick, now: Tick, returned: impl Fn(&Version) -> bool) {
        let mut seen = self.versions.iter().filter(|v| v.readable(from) && returned(v));
        let Some(first) = seen.next().cloned() else { return };
        let mut all_survived = first.survivor;
        let mut only = Some(&first);
        for v in seen {
            all_survived &= v.survivor;
            only = None;
        }
        for v in &mut self.versions {
            // What ended before the read began took effect before what the read saw.
            let older = v.end < from || only.is_some_and(|w| v.end < w.start);
            if !older || (v.readable(from) && returned(v)) {
                continue;
            }
            if v.survivor && all_survived {
                // Nobody has written here since the crash: every read must agree with this one, whenever it began, also
                // after another crash or the loss of a member (rule F5).
                v.gone = 0;
                v.dead = true;
                continue;
            }
            v.gone = v.gone.min(now);
            match only {
                Some(w) if w.end == NEVER => v.behind = v.behind.or(Some(w.op)),
                Some(w) if w.covered => v.replaced = v.replaced.min(now),
                Some(_) | None => {}
            }
        }
    }

    /// A flush that was received at `from` completed: what was certainly replaced before then never comes back.
    pub fn flushed(&mut self, from: Tick) {
        for v in &mut self.versions {
            v.dead |= v.replaced < from;
        }
    }

    /// The machine crashed: whatever a flush did not rule out may be there now.
    pub fn crash(&mut self, now: Tick) {
        self.versions.retain(|v| !v.dead);
        for v in &mut self.versions {
            v.end = v.end.min(now);
            v.gone = NEVER;
            v.replaced = NEVER;
            v.behind = None;
            v.covered = true;
            v.survivor = true;
        }
        assert!(!self.versions.is_empty(), "a register always holds something");
    }

    /// Forgets what nothing can bring back: dead, and gone before every read under way began.
    pub fn prune(&mut self, oldest_read: Tick) {
        self.versions.retain(|v| !(v.dead && v.gone < oldest_read));
    }
}

#[cfg(test)]
#[path = "register/tests.rs"]
mod tests;
