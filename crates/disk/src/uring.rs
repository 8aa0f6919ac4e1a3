//! Files and block devices by io_uring.
//!
//! Owns [`UringDisk`]. It belongs to the runtime's thread on which it was opened. O_DIRECT is used wherever a real aligned read
//! shows that it works; where it does not, requests go through the page cache and [`UringDisk::note`] says so.
//! Invariant: a request that was begun runs to its end with its buffer, whoever still waits for it (rule F3).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use compio::BufResult;
use compio::buf::{IntoInner, IoBuf};
use compio::driver::SharedFd;
use compio::driver::op::{ReadAt, Sync, WriteAt};
use compio::runtime::{Runtime, submit};
use forestall_engine::{BLOCK_SIZE, Buf, Disk, DiskFault};
use rustix::fs::OFlags;
use thiserror::Error;

use crate::errno::{cut_short, fault_of};
use crate::kernel_buf::KernelBuf;
use crate::ownership::OwnedFile;
use crate::pread::punch;
use crate::run_to_end::RunToEnd;

type Fd = SharedFd<OwnedFile>;

/// A file or block device, used with io_uring.
pub struct UringDisk {
    size: u64,
    fd: Fd,
    direct: bool,
}

/// Why io_uring was not used.
#[derive(Debug, Error)]
pub enum UringError {
    /// The kernel or a container's policy does not allow io_uring; the file is handed back for another backend.
    #[error("io_uring is not available here")]
    Unavailable(OwnedFile),
    /// The file could not be prepared.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl UringDisk {
    /// A disk over `file`, of the size that it has now. Call it inside the runtime that shall use it.
    ///
    /// # Errors
    /// [`UringError::Unavailable`] when the current runtime does not drive an io_uring.
    pub fn new(file: OwnedFile) -> Result<Self, UringError> {
        let uring = Runtime::try_current().is_some_and(|r| r.driver_type().is_iouring());
        if !uring {
            return Err(UringError::Unavailable(file));
        }
        let size = file.size();
        let direct = try_direct(file.file(), size)?;
        Ok(Self { size, fd: SharedFd::new(file), direct })
    }

    /// What a person should know about how this disk is used.
    #[must_use]
    pub fn note(&self) -> Option<&'static str> {
        (!self.direct).then_some("O_DIRECT is refused below; requests go through the page cache")
    }
}

/// Switches O_DIRECT on if a read shows that it works.
fn try_direct(file: &File, size: u64) -> io::Result<bool> {
    let plain = rustix::fs::fcntl_getfl(file)?;
    if rustix::fs::fcntl_setfl(file, plain | OFlags::DIRECT).is_err() {
        return Ok(false);
    }
    let mut buf = Buf::zeroed(usize::try_from(BLOCK_SIZE.min(size)).expect("a block"));
    // An error of the medium at this place is none of O_DIRECT's doing.
    match file.read_exact_at(buf.bytes_mut(), 0) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            rustix::fs::fcntl_setfl(file, plain)?;
            Ok(false)
        }
        _ => Ok(true),
    }
}

impl Disk for UringDisk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, offset: u64, buf: Buf) -> impl Future<Output = (Result<(), DiskFault>, Buf)> {
        RunToEnd::new(read_all(self.fd.clone(), offset, buf))
    }

    fn write(&self, offset: u64, buf: Buf) -> impl Future<Output = Result<(), DiskFault>> {
        RunToEnd::new(write_all(self.fd.clone(), offset, buf))
    }

    fn flush(&self) -> impl Future<Output = Result<(), DiskFault>> {
        RunToEnd::new(sync(self.fd.clone()))
    }

    fn discard(&self, offset: u64, len: u64) -> impl Future<Output = Result<(), DiskFault>> {
        let file = self.fd.file().try_clone();
        async move {
            let file = file.map_err(|error| fault_of(&error))?;
            let work = compio::runtime::spawn_blocking(move || punch(&file, offset, len));
            work.await.unwrap_or_else(|_panicked| Err(cut_short()))
        }
    }
}

async fn read_all(fd: Fd, offset: u64, buf: Buf) -> (Result<(), DiskFault>, Buf) {
    let mut buf = KernelBuf(buf);
    let mut done = 0;
    while done < buf.0.len() {
        let op = ReadAt::new(fd.clone(), offset + done as u64, buf.slice(done..));
        let BufResult(result, op) = submit(op).await;
        buf = op.into_inner().into_inner();
        match progress(result) {
            Ok(count) => done += count,
            Err(fault) => return (Err(fault), buf.0),
        }
    }
    (Ok(()), buf.0)
}

async fn write_all(fd: Fd, offset: u64, buf: Buf) -> Result<(), DiskFault> {
    let mut buf = KernelBuf(buf.aligned());
    let mut done = 0;
    while done < buf.0.len() {
        let op = WriteAt::new(fd.clone(), offset + done as u64, buf.slice(done..));
        let BufResult(result, op) = submit(op).await;
        buf = op.into_inner().into_inner();
        done += progress(result)?;
    }
    Ok(())
}

async fn sync(fd: Fd) -> Result<(), DiskFault> {
    // A flush that was interrupted did nothing yet: asking again is not a retry of a failed one (rule F2).
    loop {
        match submit(Sync::new(fd.clone(), true)).await.0 {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(fault_of(&error)),
        }
    }
}

/// Bytes to move on by; whole blocks, so that what is left stays aligned for O_DIRECT.
fn progress(result: io::Result<usize>) -> Result<usize, DiskFault> {
    match result {
        Ok(count) => match count / BLOCK_SIZE as usize * BLOCK_SIZE as usize {
            0 => Err(cut_short()),
            whole => Ok(whole),
        },
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(fault_of(&error)),
    }
}
