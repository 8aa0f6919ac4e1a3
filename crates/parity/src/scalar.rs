//! The portable kernels: reference for the SIMD ones, fallback where there are none.
//!
//! Every function starts at the byte `from`, so that a SIMD kernel can leave its tail here. The
//! loops work on small blocks of all columns, which keeps them to one pass over memory and lets
//! the compiler vectorise the sums.

use crate::gf;
use crate::kernel::{Change, Kernels, Present, Target};

/// Bytes of every column that are worked on together: enough for vector loops to pay, few enough
/// that the sums stay in the first-level cache.
const BLOCK_BYTES: usize = 512;

/// The scalar implementation.
pub(crate) static KERNELS: Kernels = Kernels {
    name: "scalar",
    xor_gen: |data, p| xor_gen(data, p, 0),
    pq_gen: |data, p, q| pq_gen(data, p, q, 0),
    apply: |change, p, q| apply(change, p, q, 0),
    solve: |present, targets| solve(present, targets, 0),
};

/// [`Kernels::xor_gen`] from a byte on.
pub(crate) fn xor_gen(data: &[&[u8]], p: &mut [u8], from: usize) {
    let mut at = from;
    for p in p[from..].chunks_mut(BLOCK_BYTES) {
        p.fill(0);
        for column in data {
            add(p, &column[at..at + p.len()]);
        }
        at += p.len();
    }
}

/// [`Kernels::pq_gen`] from a byte on.
pub(crate) fn pq_gen(data: &[&[u8]], p: &mut [u8], q: &mut [u8], from: usize) {
    let mut at = from;
    let (p, q) = (p[from..].chunks_mut(BLOCK_BYTES), q[from..].chunks_mut(BLOCK_BYTES));
    for (p, q) in p.zip(q) {
        p.fill(0);
        q.fill(0);
        for column in data.iter().rev() {
            let column = &column[at..at + p.len()];
            add(p, column);
            double(q);
            add(q, column);
        }
        at += p.len();
    }
}

/// [`Kernels::apply`] from a byte on.
pub(crate) fn apply(
    change: Change<'_>,
    mut p: Option<&mut [u8]>,
    mut q: Option<&mut [u8]>,
    from: usize,
) {
    let mut at = from;
    for old in change.old[from..].chunks(BLOCK_BYTES) {
        let range = at..at + old.len();
        let mut block = [0; BLOCK_BYTES];
        let delta = &mut block[..old.len()];
        delta.copy_from_slice(old);
        if let Some(new) = change.new {
            add(delta, &new[range.clone()]);
        }
        if let Some(p) = p.as_deref_mut() {
            add(&mut p[range.clone()], delta);
        }
        if let Some(q) = q.as_deref_mut() {
            add_product(&mut q[range], change.weight, delta);
        }
        at += old.len();
    }
}

/// [`Kernels::solve`] from a byte on.
pub(crate) fn solve(present: &Present<'_>, targets: &mut [Target<'_>], from: usize) {
    let len = targets.first().map_or(0, |target| target.out.len());
    let mut at = from;
    while at < len {
        let range = at..len.min(at + BLOCK_BYTES);
        let (mut p_block, mut q_block) = ([0; BLOCK_BYTES], [0; BLOCK_BYTES]);
        let (sum_p, sum_q) = (&mut p_block[..range.len()], &mut q_block[..range.len()]);
        for column in present.data.iter().rev() {
            double(sum_q);
            if let Some(column) = column {
                add(sum_p, &column[range.clone()]);
                add(sum_q, &column[range.clone()]);
            }
        }
        if let Some(p) = present.p {
            add(sum_p, &p[range.clone()]);
        }
        if let Some(q) = present.q {
            add(sum_q, &q[range.clone()]);
        }
        for Target { out, weights } in targets.iter_mut() {
            let out = &mut out[range.clone()];
            out.fill(0);
            add_product(out, weights[0], sum_p);
            add_product(out, weights[1], sum_q);
        }
        at = range.end;
    }
}

/// `sum += column`.
fn add(sum: &mut [u8], column: &[u8]) {
    for (sum, byte) in sum.iter_mut().zip(column) {
        *sum ^= byte;
    }
}

/// `sum *= 2`.
fn double(sum: &mut [u8]) {
    for sum in sum {
        *sum = gf::double(*sum);
    }
}

/// `sum += constant * column`.
fn add_product(sum: &mut [u8], constant: u8, column: &[u8]) {
    let [low, high] = gf::nibbles(constant);
    for (sum, byte) in sum.iter_mut().zip(column) {
        *sum ^= low[usize::from(byte & 15)] ^ high[usize::from(byte >> 4)];
    }
}
