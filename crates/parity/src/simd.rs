//! SIMD kernels for x86-64, and the only `unsafe` of the crate.
//!
//! The algorithms are written once in `wide` over the trait [`Vector`]; here they are compiled for
//! AVX2 and for AVX-512. Invariants: a kernel table leaves this module only after its CPU features
//! were detected, and every entry checks the lengths before a pointer is used. Bytes that do not
//! fill a vector are left to the scalar kernels.
//!
//! [`Vector`]: wide::Vector
#![allow(unsafe_code)]

mod avx2;
mod avx512;
mod wide;

use crate::kernel::Kernels;

/// The AVX2 kernels, if this CPU has AVX2.
pub(crate) fn avx2() -> Option<&'static Kernels> {
    is_x86_feature_detected!("avx2").then_some(&for_avx2::KERNELS)
}

/// The AVX-512 kernels, if this CPU has the foundation and the byte instructions.
pub(crate) fn avx512() -> Option<&'static Kernels> {
    (is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw"))
        .then_some(&for_avx512::KERNELS)
}

/// Compiles the kernels of `wide` for one vector type under its CPU features.
macro_rules! compile_for {
    ($module:ident, $name:literal, $vector:ty, $features:literal) => {
        mod $module {
            use super::wide;
            use crate::kernel::{Change, Kernels, Present, Target};
            use crate::scalar;

            /// Private to `simd`, which hands it out only where the features were detected: that
            /// makes every call of a function below sound.
            pub(super) static KERNELS: Kernels = Kernels {
                name: $name,
                xor_gen: |data, p| {
                    assert!(data.iter().all(|column| column.len() == p.len()));
                    // SAFETY: the features were detected; the lengths are equal.
                    let done = unsafe { xor_gen(data, p) };
                    scalar::xor_gen(data, p, done);
                },
                pq_gen: |data, p, q| {
                    assert!(data.iter().all(|column| column.len() == p.len()));
                    assert!(p.len() == q.len());
                    // SAFETY: the features were detected; the lengths are equal.
                    let done = unsafe { pq_gen(data, p, q) };
                    scalar::pq_gen(data, p, q, done);
                },
                apply: |change, mut p, mut q| {
                    let len = change.old.len();
                    assert!(change.new.is_none_or(|new| new.len() == len));
                    assert!(p.as_ref().is_none_or(|p| p.len() == len));
                    assert!(q.as_ref().is_none_or(|q| q.len() == len));
                    // SAFETY: the features were detected; the lengths are equal.
                    let done = unsafe { apply(change, p.as_deref_mut(), q.as_deref_mut()) };
                    scalar::apply(change, p, q, done);
                },
                solve: |present, targets| {
                    let len = targets.first().map_or(0, |target| target.out.len());
                    assert!(targets.iter().all(|target| target.out.len() == len));
                    assert!(present.all_have_len(len));
                    // SAFETY: the features were detected; the lengths are equal.
                    let done = unsafe { solve(present, targets) };
                    scalar::solve(present, targets, done);
                },
            };

            #[target_feature(enable = $features)]
            unsafe fn xor_gen(data: &[&[u8]], p: &mut [u8]) -> usize {
                // SAFETY: as this function's caller promises.
                unsafe { wide::xor_gen::<$vector>(data, p) }
            }

            #[target_feature(enable = $features)]
            unsafe fn pq_gen(data: &[&[u8]], p: &mut [u8], q: &mut [u8]) -> usize {
                // SAFETY: as this function's caller promises.
                unsafe { wide::pq_gen::<$vector>(data, p, q) }
            }

            #[target_feature(enable = $features)]
            unsafe fn apply(
                change: Change<'_>,
                p: Option<&mut [u8]>,
                q: Option<&mut [u8]>,
            ) -> usize {
                // SAFETY: as this function's caller promises.
                unsafe { wide::apply::<$vector>(change, p, q) }
            }

            #[target_feature(enable = $features)]
            unsafe fn solve(present: &Present<'_>, targets: &mut [Target<'_>]) -> usize {
                // SAFETY: as this function's caller promises.
                unsafe { wide::solve::<$vector>(present, targets) }
            }
        }
    };
}

compile_for!(for_avx2, "avx2", super::avx2::Bytes32, "avx2");
compile_for!(for_avx512, "avx512", super::avx512::Bytes64, "avx512f,avx512bw");
