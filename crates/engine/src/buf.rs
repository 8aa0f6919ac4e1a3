//! Owned, page-aligned I/O buffers.
//!
//! Owns [`Buf`], the only memory that crosses the [`Disk`](crate::Disk) trait. Invariants: the backing store starts on
//! a 4096-byte boundary and is a whole number of pages, so O_DIRECT backends can use it as it is; a view made by
//! [`Buf::slice`] shares the store and is read-only until it is the last one. Stores are recycled by the thread that drops
//! them, since fresh memory costs page faults. Nothing here knows about disks.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::Arc;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use crate::ids::BLOCK_SIZE;

/// One aligned page of a buffer's store.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Page([u8; BLOCK_SIZE as usize]);

/// Bytes of free stores that one thread keeps.
const KEPT_MAX: usize = 64 << 20;

/// Free stores of one thread, by their number of pages.
#[derive(Default)]
struct Free {
    stores: BTreeMap<usize, Vec<Vec<Page>>>,
    bytes: usize,
}

thread_local! {
    static FREE: RefCell<Free> = RefCell::default();
}

/// Pages that go back to their thread when nobody uses them any more.
struct Store(Vec<Page>);

impl Store {
    /// Pages of whatever content.
    fn scratch(pages: usize) -> Self {
        let kept = FREE.with_borrow_mut(|free| {
            let store = free.stores.get_mut(&pages)?.pop()?;
            free.bytes -= pages * BLOCK_SIZE as usize;
            Some(store)
        });
        Self(kept.unwrap_or_else(|| {
            Page::new_vec_zeroed(pages).expect("the allocator gives memory or aborts")
        }))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let pages = self.0.len();
        let bytes = pages * BLOCK_SIZE as usize;
        if pages == 0 {
            return;
        }
        let store = std::mem::take(&mut self.0);
        // A thread that is ending has no pool any more; then the memory is simply freed.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.bytes + bytes <= KEPT_MAX {
                free.bytes += bytes;
                free.stores.entry(pages).or_default().push(store);
            }
        });
    }
}

/// An owned byte buffer, aligned to 4096 bytes where it was made, moved into a disk request and handed back by it.
///
/// Cloning and slicing share the bytes; [`Buf::bytes_mut`] needs the only handle.
#[derive(Clone)]
pub struct Buf {
    store: Arc<Store>,
    start: usize,
    len: usize,
}

impl Buf {
    /// A buffer of `len` bytes of any content, to be filled. Any length, also 0.
    #[must_use]
    pub fn scratch(len: usize) -> Self {
        Self { store: Arc::new(Store::scratch(len.div_ceil(BLOCK_SIZE as usize))), start: 0, len }
    }

    /// A buffer of `len` bytes, all zero. Any length, also 0.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        let mut buf = Self::scratch(len);
        buf.bytes_mut().fill(0);
        buf
    }

    /// A buffer holding a copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buf = Self::scratch(bytes.len());
        buf.bytes_mut().copy_from_slice(bytes);
        buf
    }

    /// Buffers one behind the other in one; a single one is not copied.
    #[must_use]
    pub fn joined(mut bufs: Vec<Self>) -> Self {
        if bufs.len() == 1 {
            return bufs.swap_remove(0);
        }
        let mut whole = Self::scratch(bufs.iter().map(Self::len).sum());
        let mut at = 0;
        for buf in bufs {
            whole.bytes_mut()[at..at + buf.len()].copy_from_slice(&buf);
            at += buf.len();
        }
        whole
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the buffer holds no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, to be written.
    ///
    /// # Panics
    /// If another view of the same store is alive: a shared buffer is read-only.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let store = Arc::get_mut(&mut self.store).expect("a shared buffer is read-only");
        &mut store.0.as_mut_slice().as_mut_bytes()[self.start..self.start + self.len]
    }

    /// Whether this is the only handle to its bytes, so that [`Buf::bytes_mut`] would succeed.
    pub fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.store).is_some()
    }

    /// A view of `range` that shares the bytes.
    ///
    /// # Panics
    /// If `range` does not lie inside the buffer.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "slice outside the buffer");
        Self { store: Arc::clone(&self.store), start: self.start + range.start, len: range.len() }
    }

    /// This buffer, if its bytes start on a 4096-byte boundary; else an aligned copy.
    #[must_use]
    pub fn aligned(self) -> Self {
        if self.start.is_multiple_of(BLOCK_SIZE as usize) { self } else { Self::copy_of(&self) }
    }
}

impl Deref for Buf {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.store.0.as_slice().as_bytes()[self.start..self.start + self.len]
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buf").field("len", &self.len).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_views_share() {
        let mut buf = Buf::zeroed(10_000);
        assert_eq!(buf.as_ptr().align_offset(4096), 0);
        buf.bytes_mut()[4096] = 7;
        let view = buf.slice(4096..4100);
        assert_eq!(&view[..], &[7, 0, 0, 0]);
        assert!(!buf.is_unique());
        drop(view);
        assert!(buf.is_unique());
    }

    #[test]
    fn a_recycled_store_is_zeroed_where_zeroes_were_asked_for() {
        let mut buf = Buf::zeroed(5 * 4096);
        buf.bytes_mut().fill(9);
        drop(buf);
        assert!(Buf::zeroed(5 * 4096).iter().all(|b| *b == 0));
    }

    #[test]
    #[should_panic(expected = "read-only")]
    fn a_shared_buffer_is_not_written() {
        let mut buf = Buf::zeroed(1);
        let _view = buf.clone();
        buf.bytes_mut()[0] = 1;
    }

    #[test]
    fn an_odd_view_is_copied_to_an_aligned_one() {
        let buf = Buf::copy_of(&[1, 2, 3]);
        let odd = buf.slice(1..3).aligned();
        assert_eq!(odd.as_ptr().align_offset(4096), 0);
        assert_eq!(&odd[..], &[2, 3]);
    }
}
