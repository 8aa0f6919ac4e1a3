//! One type for every backend.
//!
//! Owns [`AnyDisk`], so that an array may mix backends without a virtual call for each request.

use std::io;

use forestall_engine::{Buf, Disk, DiskFault};

use crate::memory::MemoryDisk;
use crate::overlay::OverlayDisk;
use crate::ownership::OwnedFile;
use crate::pread::PreadDisk;
use crate::uring::{UringDisk, UringError};

/// Any of the backends.
pub enum AnyDisk {
    /// In memory.
    Memory(MemoryDisk),
    /// A file or block device that is only read, with what is written kept in memory.
    Overlay(OverlayDisk),
    /// A file or block device with plain system calls on threads.
    Pread(PreadDisk),
    /// A file or block device with io_uring.
    Uring(UringDisk),
}

impl AnyDisk {
    /// A disk over `file` with io_uring where there is one, else on threads; with what a person should know about it.
    ///
    /// # Errors
    /// If neither can be set up.
    pub fn uring_or_pread(file: OwnedFile) -> io::Result<(Self, Option<&'static str>)> {
        match UringDisk::new(file) {
            Ok(disk) => {
                let note = disk.note();
                Ok((Self::Uring(disk), note))
            }
            Err(UringError::Unavailable(file)) => Ok((
                Self::Pread(PreadDisk::new(file)?),
                Some("io_uring is not available here; threads with pread and pwrite are used"),
            )),
            Err(UringError::Io(error)) => Err(error),
        }
    }
}

impl Disk for AnyDisk {
    fn size(&self) -> u64 {
        match self {
            Self::Memory(disk) => disk.size(),
            Self::Overlay(disk) => disk.size(),
            Self::Pread(disk) => disk.size(),
            Self::Uring(disk) => disk.size(),
        }
    }

    async fn read(&self, offset: u64, buf: Buf) -> (Result<(), DiskFault>, Buf) {
        match self {
            Self::Memory(disk) => disk.read(offset, buf).await,
            Self::Overlay(disk) => disk.read(offset, buf).await,
            Self::Pread(disk) => disk.read(offset, buf).await,
            Self::Uring(disk) => disk.read(offset, buf).await,
        }
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), DiskFault> {
        match self {
            Self::Memory(disk) => disk.write(offset, buf).await,
            Self::Overlay(disk) => disk.write(offset, buf).await,
            Self::Pread(disk) => disk.write(offset, buf).await,
            Self::Uring(disk) => disk.write(offset, buf).await,
        }
    }

    async fn flush(&self) -> Result<(), DiskFault> {
        match self {
            Self::Memory(disk) => disk.flush().await,
            Self::Overlay(disk) => disk.flush().await,
            Self::Pread(disk) => disk.flush().await,
            Self::Uring(disk) => disk.flush().await,
        }
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), DiskFault> {
        match self {
            Self::Memory(disk) => disk.discard(offset, len).await,
            Self::Overlay(disk) => disk.discard(offset, len).await,
            Self::Pread(disk) => disk.discard(offset, len).await,
            Self::Uring(disk) => disk.discard(offset, len).await,
        }
    }
}
