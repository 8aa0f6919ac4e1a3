//! The crate's public functions, run on every implementation this CPU has.
//!
//! `known` and `oracle` tie the bytes to the definition and to another implementation, `shapes`
//! enumerates what can be missing, `properties` tries odd lengths and alignments at random, and
//! `contract` breaks the preconditions.

mod contract;
mod known;
mod oracle;
mod properties;
mod shapes;

use forestall_parity::Implementation;

/// Lengths on both sides of every vector and group size of the kernels.
const LENGTHS: [usize; 17] =
    [0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 512, 777];

/// Columns of pseudo-random bytes, different for every column and length.
fn columns(count: usize, len: usize) -> Vec<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ ((count as u64) << 32) ^ len as u64;
    let mut byte = || {
        // Knuth's MMIX generator; its high bits are the good ones.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    (0..count).map(|_| (0..len).map(|_| byte()).collect()).collect()
}

fn slices(columns: &[Vec<u8>]) -> Vec<&[u8]> {
    columns.iter().map(Vec::as_slice).collect()
}

fn slices_mut(columns: &mut [Vec<u8>]) -> Vec<&mut [u8]> {
    columns.iter_mut().map(Vec::as_mut_slice).collect()
}

/// P and Q of the data, in buffers that held other bytes before.
fn pq(implementation: Implementation, data: &[Vec<u8>]) -> (Vec<u8>, Vec<u8>) {
    let (mut p, mut q) = (vec![0xa5; data[0].len()], vec![0x5a; data[0].len()]);
    implementation.pq_gen(&slices(data), &mut p, &mut q);
    (p, q)
}

fn xor(implementation: Implementation, data: &[Vec<u8>]) -> Vec<u8> {
    let mut p = vec![0xa5; data[0].len()];
    implementation.xor_gen(&slices(data), &mut p);
    p
}
