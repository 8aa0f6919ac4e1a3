//! The kernels, written once for any vector width.
//!
//! Each works on a group of [`GROUP`] vectors of every column before it goes on, so each cache line
//! is touched once however many columns there are. Q is summed by Horner's rule from the last
//! column down: double the sum, add the column. All functions return how many bytes they did, the
//! largest multiple of the vector size; the rest is the caller's.
//!
//! Contract of every `unsafe fn` here: the CPU has the features of `V`, and all slices of a call
//! are of equal length. Everything is `inline(always)`, so that it is compiled inside a function
//! that enables those features.

use crate::gf;
use crate::kernel::{Change, Present, TARGETS_MAX, Target};

/// Vectors of each column worked on together; more would run out of AVX2's 16 registers.
const GROUP: usize = 4;

/// A vector of bytes as elements of GF(2^8).
///
/// # Safety
/// `BYTES` is the size of what `load` reads and `store` writes.
pub(super) unsafe trait Vector: Copy {
    /// Bytes in a vector.
    const BYTES: usize;

    /// All bytes 0.
    unsafe fn zero() -> Self;
    /// Reads `BYTES` bytes at any alignment.
    unsafe fn load(from: *const u8) -> Self;
    /// Writes `BYTES` bytes at any alignment.
    unsafe fn store(self, to: *mut u8);
    /// The sum of two vectors.
    unsafe fn add(self, other: Self) -> Self;
    /// Each byte times 2.
    unsafe fn double(self) -> Self;
    /// A step of Horner's rule: each byte times 2, plus the other vector.
    unsafe fn double_and_add(self, other: Self) -> Self;
    /// A table of 16 bytes in the form that `mul` wants.
    unsafe fn table(row: &[u8; 16]) -> Self;
    /// Each byte times the constant whose [`gf::Nibbles`] the tables hold.
    unsafe fn mul(self, tables: [Self; 2]) -> Self;
}

/// Calls `$body` for each group, then for each vector left over, with the offset and the number of
/// vectors; evaluates to the bytes done.
macro_rules! for_each_group {
    ($vector:ty, $len:expr, $body:ident($($argument:expr),*)) => {{
        let len = $len;
        let mut at = 0;
        while len - at >= GROUP * <$vector>::BYTES {
            // SAFETY: `GROUP` vectors at `at` lie inside every slice.
            unsafe { $body::<$vector, GROUP>($($argument,)* at) };
            at += GROUP * <$vector>::BYTES;
        }
        while len - at >= <$vector>::BYTES {
            // SAFETY: one vector at `at` lies inside every slice.
            unsafe { $body::<$vector, 1>($($argument,)* at) };
            at += <$vector>::BYTES;
        }
        at
    }};
}

#[inline(always)]
pub(super) unsafe fn xor_gen<V: Vector>(data: &[&[u8]], p: &mut [u8]) -> usize {
    for_each_group!(V, p.len(), xor_group(data, p))
}

#[inline(always)]
unsafe fn xor_group<V: Vector, const N: usize>(data: &[&[u8]], p: &mut [u8], at: usize) {
    // SAFETY: the caller's promise; `at` and N vectors lie inside every slice.
    unsafe {
        let mut sum = [V::zero(); N];
        for column in data {
            add_column(&mut sum, column, at);
        }
        store(sum, p, at);
    }
}

#[inline(always)]
pub(super) unsafe fn pq_gen<V: Vector>(data: &[&[u8]], p: &mut [u8], q: &mut [u8]) -> usize {
    for_each_group!(V, p.len(), pq_group(data, p, q))
}

#[inline(always)]
unsafe fn pq_group<V: Vector, const N: usize>(
    data: &[&[u8]],
    p: &mut [u8],
    q: &mut [u8],
    at: usize,
) {
    // SAFETY: the caller's promise; `at` and N vectors lie inside every slice.
    unsafe {
        // The last column starts both sums, which saves doubling zeroes.
        let Some((last, others)) = data.split_last() else { return };
        let mut sum_p = load::<V, N>(last, at);
        let mut sum_q = sum_p;
        for column in others.iter().rev() {
            let bytes = load::<V, N>(column, at);
            for i in 0..N {
                sum_p[i] = sum_p[i].add(bytes[i]);
                sum_q[i] = sum_q[i].double_and_add(bytes[i]);
            }
        }
        store(sum_p, p, at);
        store(sum_q, q, at);
    }
}

#[inline(always)]
pub(super) unsafe fn apply<V: Vector>(
    change: Change<'_>,
    mut p: Option<&mut [u8]>,
    mut q: Option<&mut [u8]>,
) -> usize {
    // SAFETY: the caller's promise.
    let tables = unsafe { tables::<V>(change.weight) };
    let len = change.old.len();
    for_each_group!(V, len, apply_group(change, tables, p.as_deref_mut(), q.as_deref_mut()))
}

#[inline(always)]
unsafe fn apply_group<V: Vector, const N: usize>(
    change: Change<'_>,
    tables: [V; 2],
    p: Option<&mut [u8]>,
    q: Option<&mut [u8]>,
    at: usize,
) {
    // SAFETY: the caller's promise; `at` and N vectors lie inside every slice.
    unsafe {
        let mut delta = load::<V, N>(change.old, at);
        if let Some(new) = change.new {
            add_column(&mut delta, new, at);
        }
        if let Some(p) = p {
            let mut sum = load::<V, N>(p, at);
            for i in 0..N {
                sum[i] = sum[i].add(delta[i]);
            }
            store(sum, p, at);
        }
        if let Some(q) = q {
            let mut sum = load::<V, N>(q, at);
            for i in 0..N {
                sum[i] = sum[i].add(delta[i].mul(tables));
            }
            store(sum, q, at);
        }
    }
}

#[inline(always)]
pub(super) unsafe fn solve<V: Vector>(present: &Present<'_>, targets: &mut [Target<'_>]) -> usize {
    assert!(targets.len() <= TARGETS_MAX);
    // SAFETY: the caller's promise.
    let mut factors = unsafe { [[[V::zero(); 2]; 2]; TARGETS_MAX] };
    for (factors, target) in factors.iter_mut().zip(targets.iter()) {
        // SAFETY: the caller's promise.
        *factors = unsafe { [tables::<V>(target.weights[0]), tables::<V>(target.weights[1])] };
    }
    let len = targets.first().map_or(0, |target| target.out.len());
    for_each_group!(V, len, solve_group(present, &factors, targets))
}

#[inline(always)]
unsafe fn solve_group<V: Vector, const N: usize>(
    present: &Present<'_>,
    factors: &[[[V; 2]; 2]; TARGETS_MAX],
    targets: &mut [Target<'_>],
    at: usize,
) {
    // SAFETY: the caller's promise; `at` and N vectors lie inside every slice.
    unsafe {
        let mut sum_p = [V::zero(); N];
        let mut sum_q = [V::zero(); N];
        for column in present.data.iter().rev() {
            for sum in &mut sum_q {
                *sum = sum.double();
            }
            if let Some(column) = column {
                let bytes = load::<V, N>(column, at);
                for i in 0..N {
                    sum_p[i] = sum_p[i].add(bytes[i]);
                    sum_q[i] = sum_q[i].add(bytes[i]);
                }
            }
        }
        if let Some(p) = present.p {
            add_column(&mut sum_p, p, at);
        }
        if let Some(q) = present.q {
            add_column(&mut sum_q, q, at);
        }
        for (target, [of_p, of_q]) in targets.iter_mut().zip(factors) {
            let mut out = [V::zero(); N];
            for i in 0..N {
                out[i] = sum_p[i].mul(*of_p).add(sum_q[i].mul(*of_q));
            }
            store(out, target.out, at);
        }
    }
}

#[inline(always)]
unsafe fn tables<V: Vector>(constant: u8) -> [V; 2] {
    let [low, high] = gf::nibbles(constant);
    // SAFETY: the caller's promise.
    unsafe { [V::table(low), V::table(high)] }
}

#[inline(always)]
unsafe fn load<V: Vector, const N: usize>(column: &[u8], at: usize) -> [V; N] {
    debug_assert!(at + N * V::BYTES <= column.len());
    // SAFETY: the caller promises that N vectors at `at` lie inside the column.
    unsafe {
        let mut vectors = [V::zero(); N];
        for (i, vector) in vectors.iter_mut().enumerate() {
            *vector = V::load(column.as_ptr().add(at + i * V::BYTES));
        }
        vectors
    }
}

#[inline(always)]
unsafe fn store<V: Vector, const N: usize>(vectors: [V; N], column: &mut [u8], at: usize) {
    debug_assert!(at + N * V::BYTES <= column.len());
    for (i, vector) in vectors.into_iter().enumerate() {
        // SAFETY: the caller promises that N vectors at `at` lie inside the column.
        unsafe { vector.store(column.as_mut_ptr().add(at + i * V::BYTES)) };
    }
}

#[inline(always)]
unsafe fn add_column<V: Vector, const N: usize>(sum: &mut [V; N], column: &[u8], at: usize) {
    // SAFETY: the caller promises that N vectors at `at` lie inside the column.
    unsafe {
        let bytes = load::<V, N>(column, at);
        for i in 0..N {
            sum[i] = sum[i].add(bytes[i]);
        }
    }
}
