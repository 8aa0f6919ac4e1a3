//! Lending an engine buffer to the kernel.
//!
//! Owns [`KernelBuf`], the only place where the pages of a [`Buf`] are handed out as raw memory. Invariant: while an
//! operation is under way the operation owns the `KernelBuf`, and with it the pages; they neither move nor go
//! away, whatever becomes of the future that waits.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use compio::buf::{IoBuf, IoBufMut, SetLen};
use forestall_engine::Buf;

/// A [`Buf`] that io_uring can read from and write to. Its length is fixed; all of it counts as initialised.
#[derive(Debug)]
pub struct KernelBuf(pub Buf);

impl IoBuf for KernelBuf {
    fn as_init(&self) -> &[u8] {
        &self.0
    }
}

impl SetLen for KernelBuf {
    /// Nothing to set: every byte was initialised when the buffer was made, and the length does not change.
    ///
    /// # Safety
    /// As the trait asks: `len` bytes are initialised, which always holds.
    unsafe fn set_len(&mut self, len: usize) {
        assert!(len <= self.0.len(), "the kernel reports {len} bytes for {} asked", self.0.len());
    }
}

impl IoBufMut for KernelBuf {
    /// # Panics
    /// If the buffer is shared: a shared buffer is read-only.
    fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        let bytes = self.0.bytes_mut();
        // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and pointer, length and lifetime are those of a live mutable
        // slice. Nobody may write uninitialised bytes through it: the only users are kernel operations, which write
        // whole bytes or leave what was there.
        unsafe { std::slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len()) }
    }
}
