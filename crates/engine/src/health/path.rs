//! Telling the way to the disks from the disks.
//!
//! Owns transport errors that are not judged yet. Invariant: an error is held for one window; if another disk had one meanwhile, both are
//! a matter of the path they share and fill no bucket, so no spare is spent on a cable or a controller.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::DiskNumber;

/// How long an error waits for company.
const WINDOW_NS: u64 = 10_000_000_000;

/// Transport errors on their way to being judged.
#[derive(Default, Debug)]
pub struct Paths {
    /// Errors of the window by disk.
    held: BTreeMap<DiskNumber, u64>,
    since_ns: u64,
    /// Another window follows one that was a path's: its tail belongs to the same burst.
    burst: bool,
}

/// What a window of transport errors turned out to be.
#[derive(PartialEq, Eq, Debug, Default)]
pub struct Settled {
    /// Disks whose errors are their own, with how many.
    pub own: Vec<(DiskNumber, u64)>,
    /// Disks that erred together.
    pub path: BTreeSet<DiskNumber>,
}

impl Paths {
    /// Takes new errors in.
    pub fn add(&mut self, disk: DiskNumber, n: u64, now_ns: u64) {
        if self.held.is_empty() {
            self.since_ns = now_ns;
        }
        *self.held.entry(disk).or_default() += n;
    }

    /// What can be told by now.
    pub fn settle(&mut self, now_ns: u64) -> Settled {
        if self.held.is_empty() {
            if now_ns.saturating_sub(self.since_ns) >= 2 * WINDOW_NS {
                self.burst = false;
            }
            return Settled::default();
        }
        if now_ns.saturating_sub(self.since_ns) < WINDOW_NS {
            return Settled::default();
        }
        let held = std::mem::take(&mut self.held);
        if held.len() > 1 || self.burst {
            self.burst = held.len() > 1;
            self.since_ns = now_ns;
            return Settled { own: Vec::new(), path: held.into_keys().collect() };
        }
        Settled { own: held.into_iter().collect(), path: BTreeSet::new() }
    }
}
