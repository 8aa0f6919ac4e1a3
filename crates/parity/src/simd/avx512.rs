//! 64 bytes at a time, with AVX-512 F and BW.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_loadu_si128, _mm512_add_epi8, _mm512_and_si512, _mm512_broadcast_i32x4,
    _mm512_loadu_si512, _mm512_maskz_mov_epi8, _mm512_movepi8_mask, _mm512_set1_epi8,
    _mm512_setzero_si512, _mm512_shuffle_epi8, _mm512_srli_epi64, _mm512_storeu_si512,
    _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

use super::wide::Vector;
use crate::gf::POLYNOMIAL;

/// An AVX-512 register.
#[derive(Clone, Copy)]
pub(super) struct Bytes64(__m512i);

// SAFETY: `load` and `store` move 64 bytes. Every method needs AVX-512 F and BW, which the trait's
// callers promise.
unsafe impl Vector for Bytes64 {
    const BYTES: usize = 64;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { Self(_mm512_setzero_si512()) }
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: the CPU has AVX-512 F; the caller promises 64 readable bytes.
        unsafe { Self(_mm512_loadu_si512(from.cast())) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: the CPU has AVX-512 F; the caller promises 64 writable bytes.
        unsafe { _mm512_storeu_si512(to.cast(), self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the CPU has AVX-512 F.
        unsafe { Self(_mm512_xor_si512(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn double(self) -> Self {
        // SAFETY: the CPU has AVX-512 F and BW.
        unsafe { self.double_and_add(Self::zero()) }
    }

    #[inline(always)]
    unsafe fn double_and_add(self, other: Self) -> Self {
        // SAFETY: the CPU has AVX-512 F and BW.
        unsafe {
            let carries = _mm512_movepi8_mask(self.0);
            let reduction = _mm512_maskz_mov_epi8(carries, _mm512_set1_epi8(POLYNOMIAL as i8));
            let doubled = _mm512_add_epi8(self.0, self.0);
            // 0x96 is the truth table of a three-way XOR.
            Self(_mm512_ternarylogic_epi64::<0x96>(doubled, reduction, other.0))
        }
    }

    #[inline(always)]
    unsafe fn table(row: &[u8; 16]) -> Self {
        // SAFETY: the CPU has AVX-512 F; the row is 16 readable bytes.
        unsafe { Self(_mm512_broadcast_i32x4(_mm_loadu_si128(row.as_ptr().cast::<__m128i>()))) }
    }

    #[inline(always)]
    unsafe fn mul(self, [low, high]: [Self; 2]) -> Self {
        // SAFETY: the CPU has AVX-512 F and BW.
        unsafe {
            let nibble = _mm512_set1_epi8(15);
            let low_nibbles = _mm512_and_si512(self.0, nibble);
            let high_nibbles = _mm512_and_si512(_mm512_srli_epi64::<4>(self.0), nibble);
            Self(_mm512_xor_si512(
                _mm512_shuffle_epi8(low.0, low_nibbles),
                _mm512_shuffle_epi8(high.0, high_nibbles),
            ))
        }
    }
}
