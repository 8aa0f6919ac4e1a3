//! Telling a slow disk by its peers.
//!
//! Owns latency histograms and the comparison. Invariants: requests are compared only with requests of the same direction and size class;
//! the median of a disk is set against the median of its peers' medians, so that one more bad peer does not hide it and load that slows
//! all of them accuses none; nobody is called slow for less than a fifth of a
//! millisecond.

use serde::{Deserialize, Serialize};

/// Requests of one class that a comparison needs of each disk.
const SAMPLES_MIN: u32 = 8;
/// How many times slower than its peers a disk is slow.
const RATIO: u64 = 4;
/// Least difference that matters.
const DIFFERENCE_NS: u64 = 200_000;
/// Histogram steps in each doubling.
const STEPS: u32 = 4;
const BUCKETS: usize = 64 * STEPS as usize;
/// First time that a slow disk is not read.
const SIT_NS: u64 = 30_000_000_000;
/// It doubles up to this.
const SIT_NS_MAX: u64 = 1_800_000_000_000;
/// Slow looks in a row before a disk is sat out.
const LOOKS: u32 = 3;

/// Direction and size of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SizeClass(u8);

impl SizeClass {
    /// How many classes there are.
    pub const COUNT: usize = 6;

    /// The class of a request of `len` bytes: up to 16 KiB, up to 128 KiB, larger; reads and writes apart.
    #[must_use]
    pub fn of(write: bool, len: u64) -> Self {
        let size = match len {
            0..=16_384 => 0,
            16_385..=131_072 => 1,
            _ => 2,
        };
        Self(size + if write { 3 } else { 0 })
    }
}

/// Times of one disk's requests since they were last taken.
#[derive(Clone, Default)]
pub struct Latencies {
    classes: [Option<Box<Histogram>>; SizeClass::COUNT],
}

#[derive(Clone)]
struct Histogram {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

/// The histogram step of a time: four to each doubling.
pub(super) fn step_of(ns: u64) -> usize {
    let ns = ns.max(STEPS.into());
    let exponent = 63 - ns.leading_zeros();
    let fraction = (ns >> (exponent - 2)) & 3;
    (exponent * STEPS + fraction as u32) as usize
}

/// The least time of a step.
pub(super) fn start_of(step: usize) -> u64 {
    let (exponent, fraction) = (step as u32 / STEPS, step as u64 % u64::from(STEPS));
    if exponent < 2 { 0 } else { (4 + fraction) << (exponent - 2) }
}

impl Latencies {
    /// Counts one request.
    pub fn add(&mut self, class: SizeClass, ns: u64) {
        let histogram = self.classes[usize::from(class.0)].get_or_insert_default();
        histogram.counts[step_of(ns)] += 1;
        histogram.total += 1;
    }

    /// Whether there are enough requests of any class for a comparison.
    #[must_use]
    pub fn can_tell(&self) -> bool {
        self.classes.iter().flatten().any(|histogram| histogram.total >= SAMPLES_MIN)
    }

    /// The median time of a class, to within a fifth; `None` if there are too few requests.
    fn median_ns(&self, class: usize) -> Option<u64> {
        let histogram = self.classes[class].as_ref().filter(|h| h.total >= SAMPLES_MIN)?;
        let mut below = 0;
        let step = histogram.counts.iter().position(|count| {
            below += count;
            below * 2 >= histogram.total
        })?;
        Some(start_of(step))
    }
}

/// The median of some times; `None` of none.
fn median_ns(mut times: Vec<u64>) -> Option<u64> {
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

/// Whether a disk is slow beside its peers: `Some` with both medians if it is in any class, `None` if it is not or nothing can be told.
#[must_use]
pub fn is_slow(own: &Latencies, peers: &[&Latencies]) -> Option<(u64, u64)> {
    (0..SizeClass::COUNT).find_map(|class| {
        let mine = own.median_ns(class)?;
        let theirs = median_ns(peers.iter().filter_map(|p| p.median_ns(class)).collect())?;
        (mine >= theirs.saturating_mul(RATIO) && mine - theirs >= DIFFERENCE_NS)
            .then_some((mine, theirs))
    })
}

/// Whether and how long a disk is sat out of reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sitting {
    slow_looks: u32,
    times: u32,
    until_ns: Option<u64>,
}

impl Sitting {
    /// Takes one look's outcome in. `true`: the disk is sat out from now on.
    pub fn look(&mut self, slow: bool, now_ns: u64) -> bool {
        self.slow_looks = if slow { self.slow_looks + 1 } else { 0 };
        if self.until_ns.is_some() || self.slow_looks < LOOKS {
            return false;
        }
        let sit = SIT_NS.saturating_mul(1 << self.times.min(16)).min(SIT_NS_MAX);
        self.times += 1;
        self.slow_looks = 0;
        self.until_ns = Some(now_ns + sit);
        true
    }

    /// Whether the disk is sat out at `now_ns`; a sitting that is over ends.
    pub fn is_sat_out(&mut self, now_ns: u64) -> bool {
        self.until_ns = self.until_ns.filter(|until| now_ns < *until);
        self.until_ns.is_some()
    }
}
