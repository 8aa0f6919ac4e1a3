//! 32 bytes at a time, with AVX2.

use std::arch::x86_64::{
    __m128i, __m256i, _mm_loadu_si128, _mm256_add_epi8, _mm256_and_si256,
    _mm256_broadcastsi128_si256, _mm256_cmpgt_epi8, _mm256_loadu_si256, _mm256_set1_epi8,
    _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_srli_epi64, _mm256_storeu_si256,
    _mm256_xor_si256,
};

use super::wide::Vector;
use crate::gf::POLYNOMIAL;

/// An AVX2 register.
#[derive(Clone, Copy)]
pub(super) struct Bytes32(__m256i);

// SAFETY: `load` and `store` move 32 bytes. Every method needs AVX2, which the trait's callers
// promise.
unsafe impl Vector for Bytes32 {
    const BYTES: usize = 32;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the CPU has AVX2.
        unsafe { Self(_mm256_setzero_si256()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the CPU has AVX2; the caller promises 32 readable bytes.
        unsafe { Self(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the CPU has AVX2; the caller promises 32 writable bytes.
        unsafe { _mm256_storeu_si256(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the CPU has AVX2.
        unsafe { Self(_mm256_xor_si256(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: the CPU has AVX2.
        unsafe {
            // A byte is negative as a signed number exactly when its top bit carries out.
            let carries = _mm256_cmpgt_epi8(_mm256_setzero_si256(), self.0);
            let reduction = _mm256_and_si256(carries, _mm256_set1_epi8(POLYNOMIAL as i8));
            Self(_mm256_xor_si256(_mm256_add_epi8(self.0, self.0), reduction))
        }
    }

    #[inline(always)]
    unsafe fn double_and_add(self, other: Self) -> Self {
        // SAFETY: the CPU has AVX2.
        unsafe { self.double().add(other) }
    }

    #[inline(always)]
    unsafe fn table(row: &[u8; 16]) -> Self {
        // SAFETY: the CPU has AVX2; the row is 16 readable bytes.
        unsafe {
            Self(_mm256_broadcastsi128_si256(_mm_loadu_si128(row.as_ptr().cast::<__m128i>())))
        }
    }

    #[inline(always)]
    unsafe fn mul(self, [low, high]: [Self; 2]) -> Self {
        // SAFETY: the CPU has AVX2.
        unsafe {
            let nibble = _mm256_set1_epi8(15);
            let low_nibbles = _mm256_and_si256(self.0, nibble);
            let high_nibbles = _mm256_and_si256(_mm256_srli_epi64::<4>(self.0), nibble);
            Self(_mm256_xor_si256(
                _mm256_shuffle_epi8(low.0, low_nibbles),
                _mm256_shuffle_epi8(high.0, high_nibbles),
            ))
        }
    }
}
