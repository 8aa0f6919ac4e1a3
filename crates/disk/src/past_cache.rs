//! Copies whose result is not looked at soon.
//!
//! Owns [`copy_past_cache`]. An ordinary store to memory that is in no cache first reads what it overwrites, and then pushes out
//! something that was of use; a non-temporal one does neither, and is twice as fast. Invariant: when the copy returns its bytes
//! are in order with everything the thread does next, as after any other copy.
#![allow(unsafe_code)]

/// Copies `source` to `target`.
///
/// # Panics
/// If their lengths differ.
#[cfg(target_arch = "x86_64")]
pub fn copy_past_cache(target: &mut [u8], source: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};

    assert_eq!(target.len(), source.len(), "a copy has one length");
    // SAFETY: any 16 bytes are a valid vector, and any vector is 16 valid bytes.
    let (head, vectors, tail) = unsafe { target.align_to_mut::<__m128i>() };
    let (first, rest) = source.split_at(head.len());
    let (middle, last) = rest.split_at(size_of_val(vectors));
    head.copy_from_slice(first);
    tail.copy_from_slice(last);
    for (vector, bytes) in vectors.iter_mut().zip(middle.chunks_exact(size_of::<__m128i>())) {
        // SAFETY: SSE2 is part of x86_64. `bytes` are 16 bytes, which need no alignment to be loaded; `vector` is exclusively borrowed
        // and aligned.
        unsafe { _mm_stream_si128(vector, _mm_loadu_si128(bytes.as_ptr().cast())) };
    }
    // SAFETY: SSE2 is part of x86_64. Non-temporal stores are in no order with others until a fence.
    unsafe { _mm_sfence() };
}

/// Copies `source` to `target`.
///
/// # Panics
/// If their lengths differ.
#[cfg(not(target_arch = "x86_64"))]
pub fn copy_past_cache(target: &mut [u8], source: &[u8]) {
    target.copy_from_slice(source);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_copied_and_none_beside_it_whatever_the_alignment() {
        let source: Vec<u8> = (0..400u32).map(|i| (i % 251) as u8).collect();
        for at in 0..40 {
            for from in [0, 1, 15, 16] {
                for len in [0, 1, 15, 16, 17, 63, 64, 200, 333] {
                    let mut target = vec![0xee; 400];
                    copy_past_cache(&mut target[at..at + len], &source[from..from + len]);
                    assert_eq!(target[at..at + len], source[from..from + len]);
                    assert!(target[..at].iter().chain(&target[at + len..]).all(|b| *b == 0xee));
                }
            }
        }
    }
}
