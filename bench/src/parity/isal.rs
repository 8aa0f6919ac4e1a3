//! ISA-L, through its C interface: a peer, never used outside benches.
//!
//! The only unsafe code of this crate. Where the library was not found at build time there is nothing here but that answer.

#![cfg_attr(isal, allow(unsafe_code))]

/// Whether the library is linked.
pub const LINKED: bool = cfg!(isal);

/// Most columns that are passed: data, P and Q.
#[cfg(isal)]
const VECTORS_MAX: usize = 64;

/// What the library asks of the address and the length of a column, in bytes.
#[cfg(isal)]
const ALIGNED: usize = 32;

#[cfg(isal)]
mod ffi {
    use std::ffi::{c_int, c_void};

    unsafe extern "C" {
        /// `raid.h`: the last of `vects` columns becomes the XOR of the others. 0 on success.
        pub fn xor_gen(vects: c_int, len: c_int, array: *mut *mut c_void) -> c_int;
        /// `raid.h`: the last two columns become P and Q of the others. 0 on success.
        pub fn pq_gen(vects: c_int, len: c_int, array: *mut *mut c_void) -> c_int;
    }
}

/// P as ISA-L makes it; false if it is not linked or refuses.
#[cfg(isal)]
pub fn xor_gen(data: &[&[u8]], p: &mut [u8]) -> bool {
    let (mut array, vects, len) = vectors(data, &mut [p]);
    // SAFETY: `array` holds `vects` pointers to columns of `len` bytes, aligned as asked, which live during the call; the
    // library writes only the last, which is borrowed mutably, and keeps none.
    unsafe { ffi::xor_gen(vects, len, array.as_mut_ptr()) == 0 }
}

/// P and Q as ISA-L makes them; false if it is not linked or refuses.
#[cfg(isal)]
pub fn pq_gen(data: &[&[u8]], p: &mut [u8], q: &mut [u8]) -> bool {
    let (mut array, vects, len) = vectors(data, &mut [p, q]);
    // SAFETY: as in `xor_gen`, but for the last two columns, both borrowed mutably.
    unsafe { ffi::pq_gen(vects, len, array.as_mut_ptr()) == 0 }
}

/// The library's array of columns, their number and their common length.
#[cfg(isal)]
fn vectors(
    data: &[&[u8]],
    parity: &mut [&mut [u8]],
) -> ([*mut std::ffi::c_void; VECTORS_MAX], i32, i32) {
    let len = parity[0].len();
    let vects = data.len() + parity.len();
    assert!(vects <= VECTORS_MAX && data.len() >= 2, "{vects} columns");
    assert!(len.is_multiple_of(ALIGNED), "a length of {len}");
    let mut array = [std::ptr::null_mut(); VECTORS_MAX];
    let data = data.iter().map(|column| (column.as_ptr().cast_mut(), column.len()));
    let parity = parity.iter_mut().map(|column| (column.as_mut_ptr(), column.len()));
    for (place, (pointer, of_len)) in array.iter_mut().zip(data.chain(parity)) {
        assert!(of_len == len && pointer.align_offset(ALIGNED) == 0, "columns differ or are odd");
        *place = pointer.cast();
    }
    (array, vects as i32, i32::try_from(len).expect("short columns"))
}

/// Stands in where the library is missing.
#[cfg(not(isal))]
pub fn xor_gen(_data: &[&[u8]], _p: &mut [u8]) -> bool {
    false
}

/// Stands in where the library is missing.
#[cfg(not(isal))]
pub fn pq_gen(_data: &[&[u8]], _p: &mut [u8], _q: &mut [u8]) -> bool {
    false
}
