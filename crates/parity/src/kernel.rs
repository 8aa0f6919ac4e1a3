//! The kernels behind the public functions, and the choice among them at run time.
//!
//! Owns the four primitives that an implementation provides and the list of implementations. An
//! [`Implementation`] exists only for what this CPU can run, so holding one is the proof that its
//! kernels may be called. What the primitives mean for RAID is left to `encode` and `recover`.

use std::fmt;

use crate::scalar;
#[cfg(target_arch = "x86_64")]
use crate::simd;

/// The primitives of one implementation. All slices of a call have one length; callers check it.
pub(crate) struct Kernels {
    /// See [`Implementation::name`].
    pub(crate) name: &'static str,
    /// Sets `p` to the XOR of the columns.
    pub(crate) xor_gen: fn(data: &[&[u8]], p: &mut [u8]),
    /// Sets P and Q of the columns.
    pub(crate) pq_gen: fn(data: &[&[u8]], p: &mut [u8], q: &mut [u8]),
    /// Adds a change of one column to its parity.
    pub(crate) apply: fn(change: Change<'_>, p: Option<&mut [u8]>, q: Option<&mut [u8]>),
    /// Solves for missing columns from the two syndromes.
    pub(crate) solve: fn(present: &Present<'_>, targets: &mut [Target<'_>]),
}

/// What became of one data column: `old`, or `old ^ new` where there is a `new`.
#[derive(Clone, Copy)]
pub(crate) struct Change<'a> {
    /// Weight of the column in Q.
    pub(crate) weight: u8,
    /// The old content, or the whole difference where `new` is `None`.
    pub(crate) old: &'a [u8],
    /// The new content.
    pub(crate) new: Option<&'a [u8]>,
}

/// What is left of a stripe, and with it the syndromes.
///
/// `S_P` is the sum of all that is present among data and P; `S_Q` the weighted sum of the present
/// data plus Q if present. With nothing missing both are 0, so they hold exactly what is missing.
pub(crate) struct Present<'a> {
    /// Data columns in order of their number; `None` where missing.
    pub(crate) data: &'a [Option<&'a [u8]>],
    /// P unless missing.
    pub(crate) p: Option<&'a [u8]>,
    /// Q unless missing.
    pub(crate) q: Option<&'a [u8]>,
}

/// A column to compute as `weights[0] * S_P + weights[1] * S_Q`.
pub(crate) struct Target<'a> {
    /// Where the column goes.
    pub(crate) out: &'a mut [u8],
    /// Factors of `S_P` and `S_Q`.
    pub(crate) weights: [u8; 2],
}

/// Most columns that one call of [`Kernels::solve`] computes.
pub(crate) const TARGETS_MAX: usize = 2;

impl Present<'_> {
    /// Whether every column present has this length.
    pub(crate) fn all_have_len(&self, len: usize) -> bool {
        let columns = self.data.iter().chain([&self.p, &self.q]).flatten();
        columns.into_iter().all(|column| column.len() == len)
    }
}

/// One set of kernels that this CPU can run.
///
/// The crate's functions use [`Implementation::best`]; tests and benches choose by
/// [`implementations`]. All give the same bytes.
#[derive(Clone, Copy)]
pub struct Implementation(pub(crate) &'static Kernels);

impl Implementation {
    /// The fastest implementation that this CPU can run. Costs a few loads: `std` caches what it
    /// detects.
    #[must_use]
    pub fn best() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(kernels) = simd::avx512().or_else(simd::avx2) {
            return Self(kernels);
        }
        Self(&scalar::KERNELS)
    }

    /// The portable reference, available everywhere.
    #[must_use]
    pub fn scalar() -> Self {
        Self(&scalar::KERNELS)
    }

    /// A short name for reports: `scalar`, `avx2` or `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name
    }
}

impl fmt::Debug for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Implementation").field(&self.0.name).finish()
    }
}

/// Every implementation that this CPU can run, the scalar reference first and the best last.
pub fn implementations() -> impl Iterator<Item = Implementation> {
    let scalar = Some(&scalar::KERNELS);
    #[cfg(target_arch = "x86_64")]
    let all = [scalar, simd::avx2(), simd::avx512()];
    #[cfg(not(target_arch = "x86_64"))]
    let all = [scalar];
    all.into_iter().flatten().map(Implementation)
}
