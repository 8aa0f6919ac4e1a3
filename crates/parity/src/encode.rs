//! Making parity and keeping it up to date.
//!
//! Owns the preconditions of the public functions: columns in range, all slices of one length.
//! Recovery of missing columns is in `recover`.

use crate::gf;
use crate::kernel::{Change, Implementation};
use crate::{PQ_DATA_MAX, XOR_DATA_MAX};

/// Adds `src` to `dst` byte by byte: `dst ^= src`.
///
/// # Panics
/// If the lengths differ.
pub fn xor_into(dst: &mut [u8], src: &[u8]) {
    Implementation::best().xor_into(dst, src);
}

/// Sets `p` to the XOR of 1 to [`XOR_DATA_MAX`] data columns.
///
/// # Panics
/// If the lengths differ or the number of columns is out of range.
pub fn xor_gen(data: &[&[u8]], p: &mut [u8]) {
    Implementation::best().xor_gen(data, p);
}

/// Sets `p` to the XOR of 1 to [`PQ_DATA_MAX`] data columns and `q` to their sum weighted by
/// powers of 2: `q = d0 + 2 d1 + 4 d2 + ...` in GF(2^8).
///
/// # Panics
/// If the lengths differ or the number of columns is out of range.
pub fn pq_gen(data: &[&[u8]], p: &mut [u8], q: &mut [u8]) {
    Implementation::best().pq_gen(data, p, q);
}

/// Changes the parity given for data column `col` from `old` to `new`, as read-modify-write does:
/// `p ^= old ^ new` and `q ^= 2^col * (old ^ new)`. Parity that is missing is passed as `None`.
///
/// # Panics
/// If the lengths differ or `col` is not below [`PQ_DATA_MAX`] (below [`XOR_DATA_MAX`] without
/// `q`).
pub fn pq_update(col: usize, old: &[u8], new: &[u8], p: Option<&mut [u8]>, q: Option<&mut [u8]>) {
    Implementation::best().pq_update(col, old, new, p, q);
}

/// [`pq_update`] with the difference `delta = old ^ new` already made.
///
/// # Panics
/// As [`pq_update`].
pub fn pq_apply_delta(col: usize, delta: &[u8], p: Option<&mut [u8]>, q: Option<&mut [u8]>) {
    Implementation::best().pq_apply_delta(col, delta, p, q);
}

/// Whether all bytes are 0 (true for no bytes). Stops at the first 256 bytes that are not.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // A fold without an exit is what the compiler vectorises; the exit is between chunks.
    bytes.chunks(256).all(|chunk| chunk.iter().fold(0, |any, byte| any | byte) == 0)
}

impl Implementation {
    /// [`xor_into`] by this implementation.
    pub fn xor_into(self, dst: &mut [u8], src: &[u8]) {
        self.pq_apply_delta(0, src, Some(dst), None);
    }

    /// [`xor_gen`] by this implementation.
    pub fn xor_gen(self, data: &[&[u8]], p: &mut [u8]) {
        assert_columns(data, XOR_DATA_MAX, p.len());
        (self.0.xor_gen)(data, p);
    }

    /// [`pq_gen`] by this implementation.
    pub fn pq_gen(self, data: &[&[u8]], p: &mut [u8], q: &mut [u8]) {
        assert_columns(data, PQ_DATA_MAX, p.len());
        assert_eq!(p.len(), q.len(), "P and Q differ in length");
        (self.0.pq_gen)(data, p, q);
    }

    /// [`pq_update`] by this implementation.
    pub fn pq_update(
        self,
        col: usize,
        old: &[u8],
        new: &[u8],
        p: Option<&mut [u8]>,
        q: Option<&mut [u8]>,
    ) {
        assert_eq!(old.len(), new.len(), "old and new content differ in length");
        self.apply(col, old, Some(new), p, q);
    }

    /// [`pq_apply_delta`] by this implementation.
    pub fn pq_apply_delta(
        self,
        col: usize,
        delta: &[u8],
        p: Option<&mut [u8]>,
        q: Option<&mut [u8]>,
    ) {
        self.apply(col, delta, None, p, q);
    }

    fn apply(
        self,
        col: usize,
        old: &[u8],
        new: Option<&[u8]>,
        p: Option<&mut [u8]>,
        q: Option<&mut [u8]>,
    ) {
        let columns_max = if q.is_some() { PQ_DATA_MAX } else { XOR_DATA_MAX };
        assert!(col < columns_max, "data column {col} is not below {columns_max}");
        for parity in [&p, &q].into_iter().flatten() {
            assert_eq!(parity.len(), old.len(), "parity and its change differ in length");
        }
        (self.0.apply)(Change { weight: gf::exp2(col), old, new }, p, q);
    }
}

fn assert_columns(data: &[&[u8]], columns_max: usize, len: usize) {
    assert!(
        (1..=columns_max).contains(&data.len()),
        "{} data columns, not 1 to {columns_max}",
        data.len()
    );
    for (number, column) in data.iter().enumerate() {
        assert_eq!(column.len(), len, "data column {number} and parity differ in length");
    }
}
