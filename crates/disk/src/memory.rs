//! A disk in memory.
//!
//! Owns [`MemoryDisk`]: sparse, in chunks that come into being when first written. Every request is done when it is first
//! polled. Flush has nothing to do: the content lives as long as a handle to it. Chunks are huge pages where the kernel has some:
//! requests that are scattered over small pages spend more time on finding the page than on copying.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::rc::Rc;

use forestall_engine::{BLOCK_SIZE, Buf, Disk, DiskFault};
use rustix::mm::{Advice, madvise};

use crate::past_cache::copy_past_cache;

/// Bytes that are allocated at once: a huge page of most machines.
const CHUNK: usize = 2 << 20;

/// Some content of a disk, placed so that one huge page can hold it.
#[repr(C, align(2097152))]
struct Chunk([u8; CHUNK]);

const _: () = assert!(align_of::<Chunk>() == CHUNK && size_of::<Chunk>() == CHUNK);

impl Chunk {
    fn zeroed() -> Box<Self> {
        let mut chunk = Box::<Self>::new_uninit();
        let start = chunk.as_mut_ptr();
        // SAFETY: the range is memory of the process that this function alone owns. The advice changes neither content nor protection.
        let advised = unsafe { madvise(start.cast(), CHUNK, Advice::LinuxHugepage) };
        // A kernel without huge pages refuses; small ones are as good, only slower.
        let _ignored = advised;
        // SAFETY: `start` is valid for one `Chunk`, and a `Chunk` of zero bytes is a valid one.
        unsafe {
            start.write_bytes(0, 1);
            chunk.assume_init()
        }
    }
}

/// A disk in memory. Clones are handles to the same content.
#[derive(Clone)]
pub struct MemoryDisk {
    size: u64,
    chunks: Rc<RefCell<Vec<Option<Box<Chunk>>>>>,
}

impl MemoryDisk {
    /// A disk of `size` bytes, all zero, rounded down to a multiple of 4096.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let size = size / BLOCK_SIZE * BLOCK_SIZE;
        let count = usize::try_from(size.div_ceil(CHUNK as u64)).expect("fits the address space");
        Self { size, chunks: Rc::new(RefCell::new((0..count).map(|_| None).collect())) }
    }

    /// Calls `each` with chunk number, offset in the chunk and range of the request, piece by piece.
    fn pieces(&self, offset: u64, len: usize, mut each: impl FnMut(usize, usize, usize, usize)) {
        let end = offset.checked_add(len as u64).expect("offsets are checked");
        assert!(end <= self.size, "a request beyond the end of the disk");
        let mut done = 0;
        while done < len {
            // Below `size`, which fits the address space.
            let at = (offset as usize) + done;
            let within = at % CHUNK;
            let take = (CHUNK - within).min(len - done);
            each(at / CHUNK, within, done, take);
            done += take;
        }
    }
}

impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, offset: u64, mut buf: Buf) -> (Result<(), DiskFault>, Buf) {
        let chunks = self.chunks.borrow();
        let bytes = buf.bytes_mut();
        self.pieces(offset, bytes.len(), |chunk, within, done, take| {
            let target = &mut bytes[done..done + take];
            match &chunks[chunk] {
                Some(content) => target.copy_from_slice(&content.0[within..within + take]),
                None => target.fill(0),
            }
        });
        (Ok(()), buf)
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), DiskFault> {
        let mut chunks = self.chunks.borrow_mut();
        self.pieces(offset, buf.len(), |chunk, within, done, take| {
            let content = chunks[chunk].get_or_insert_with(Chunk::zeroed);
            copy_past_cache(&mut content.0[within..within + take], &buf[done..done + take]);
        });
        Ok(())
    }

    async fn flush(&self) -> Result<(), DiskFault> {
        Ok(())
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), DiskFault> {
        let mut chunks = self.chunks.borrow_mut();
        let len = usize::try_from(len).expect("fits the address space");
        self.pieces(offset, len, |chunk, _, _, take| {
            // Parts of a chunk stay: what a discarded range reads as is undefined anyway.
            if take == CHUNK {
                chunks[chunk] = None;
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready<F: Future>(future: F) -> F::Output {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).poll(&mut context) {
            std::task::Poll::Ready(output) => output,
            std::task::Poll::Pending => panic!("a memory disk is done at once"),
        }
    }

    #[test]
    fn content_is_kept_across_chunks_and_holes_are_zero() {
        let disk = MemoryDisk::new(4 * CHUNK as u64);
        let offset = CHUNK as u64 - 4096;
        let data: Vec<u8> = (0..8192).map(|i| (i % 251) as u8).collect();
        ready(disk.write(offset, Buf::copy_of(&data))).expect("memory takes it");
        let (result, buf) = ready(disk.clone().read(offset - 4096, Buf::zeroed(16384)));
        assert_eq!(result, Ok(()));
        assert!(buf[..4096].iter().chain(&buf[12288..]).all(|byte| *byte == 0));
        assert_eq!(&buf[4096..12288], &data[..]);
    }

    #[test]
    fn a_discarded_chunk_gives_its_memory_back() {
        let disk = MemoryDisk::new(4 * CHUNK as u64);
        ready(disk.write(0, Buf::copy_of(&vec![7; 2 * CHUNK]))).expect("memory takes it");
        ready(disk.discard(0, 2 * CHUNK as u64 - 4096)).expect("memory takes it");
        let allocated = disk.chunks.borrow().iter().filter(|chunk| chunk.is_some()).count();
        assert_eq!(allocated, 1);
    }
}
