//! A disk that is read and never written: what is written to it stays in memory.
//!
//! Owns [`OverlayDisk`], for looking at what a start would do without doing it. Invariants: the file below was opened for reading only, so the kernel refuses what a
//! mistake here might let through; reads see what was written before. Everything written is kept until the disk is dropped, so it suits work
//! that writes little.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use forestall_engine::{BLOCK_SIZE, Buf, Disk, DiskFault};

use crate::pread::PreadDisk;

const BLOCK: usize = BLOCK_SIZE as usize;

/// A file or block device below, and in memory what was written on top. Clones are handles to the same disk.
#[derive(Clone)]
pub struct OverlayDisk {
    below: Rc<PreadDisk>,
    /// Blocks written, by number.
    written: Rc<RefCell<BTreeMap<u64, Box<[u8]>>>>,
}

impl OverlayDisk {
    /// A disk over `below`, with nothing written yet.
    #[must_use]
    pub fn new(below: Rc<PreadDisk>) -> Self {
        Self { below, written: Rc::default() }
    }

    /// Offsets of the blocks of 4096 bytes that were written, in order.
    #[must_use]
    pub fn written(&self) -> Vec<u64> {
        self.written.borrow().keys().map(|block| block * BLOCK_SIZE).collect()
    }
}

impl Disk for OverlayDisk {
    fn size(&self) -> u64 {
        self.below.size()
    }

    async fn read(&self, offset: u64, buf: Buf) -> (Result<(), DiskFault>, Buf) {
        let blocks = offset / BLOCK_SIZE..(offset + buf.len() as u64) / BLOCK_SIZE;
        let all =
            self.written.borrow().range(blocks.clone()).count() as u64 == blocks.end - blocks.start;
        // What was rewritten as a whole need not be readable below.
        let (result, mut buf) =
            if all { (Ok(()), buf) } else { self.below.read(offset, buf).await };
        for (block, bytes) in self.written.borrow().range(blocks.clone()) {
            let at = (block - blocks.start) as usize * BLOCK;
            buf.bytes_mut()[at..at + BLOCK].copy_from_slice(bytes);
        }
        (result, buf)
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), DiskFault> {
        let mut written = self.written.borrow_mut();
        for (block, bytes) in (offset / BLOCK_SIZE..).zip(buf.chunks(BLOCK)) {
            written.insert(block, bytes.into());
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), DiskFault> {
        Ok(())
    }

    async fn discard(&self, _offset: u64, _len: u64) -> Result<(), DiskFault> {
        Ok(())
    }
}
