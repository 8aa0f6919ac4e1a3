//! Files and block devices by plain system calls on threads.
//!
//! Owns [`PreadDisk`] and its threads. Each disk has [`THREADS`] of its own, so that one that hangs in the kernel takes no
//! thread from the others. Invariants: a request belongs to its thread with its buffer until it is done, whoever
//! still waits for it; requests have no order among each other; a flush covers what completed before it was asked for.
//! Reads, writes and flushes go through libc's `pread`, `pwrite` and `fdatasync`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use forestall_engine::{Buf, Disk, DiskFault, FaultKind};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::errno::{cut_short, fault_of};
use crate::ownership::OwnedFile;

/// Threads of each disk: as many requests are under way at once.
pub(crate) const THREADS: usize = 4;

/// How long dropping a disk waits for requests that are under way. They end in microseconds unless the disk hangs; then the
/// file stays open until the kernel gives up.
const CLOSING: Duration = Duration::from_secs(1);

/// A file or block device, used with `pread` and `pwrite`.
pub struct PreadDisk {
    size: u64,
    jobs: Sender<Job>,
    /// Disconnected once every thread has let go of the file.
    ended: mpsc::Receiver<()>,
}

struct Job {
    request: Request,
    done: Sender<Outcome>,
}

enum Request {
    Read { offset: u64, buf: Buf },
    Write { offset: u64, buf: Buf },
    Flush,
    Discard { offset: u64, len: u64 },
}

/// The result, and the buffer of a read.
type Outcome = (Result<(), DiskFault>, Option<Buf>);

impl PreadDisk {
    /// A disk over `file`, of the size that it has now.
    ///
    /// # Errors
    /// If its threads cannot be started.
    pub fn new(file: OwnedFile) -> io::Result<Self> {
        let size = file.size();
        let file = Arc::new(file);
        let (jobs, queue) = async_channel::unbounded();
        let (ending, ended) = mpsc::channel::<()>();
        for _ in 0..THREADS {
            let (file, queue, ending) = (Arc::clone(&file), queue.clone(), ending.clone());
            thread::Builder::new().name("disk".into()).spawn(move || {
                serve(file.file(), &queue);
                // In this order: who waits for the end finds the file closed.
                drop(file);
                drop(ending);
            })?;
        }
        Ok(Self { size, jobs, ended })
    }

    async fn run(&self, request: Request) -> Outcome {
        let (done, result) = async_channel::bounded(1);
        // The threads end only after this sender is gone, unless one of them panicked: then the disk is, too.
        let gone = (Err(DiskFault::new(FaultKind::Gone)), None);
        if self.jobs.send(Job { request, done }).await.is_err() {
            return gone;
        }
        result.recv().await.unwrap_or(gone)
    }
}

impl Drop for PreadDisk {
    /// Lets what is under way end, so that the file can be opened again at once.
    fn drop(&mut self) {
        self.jobs.close();
        // Nothing is ever sent: this ends by disconnection or, where the disk hangs, by time.
        let _hung = self.ended.recv_timeout(CLOSING);
    }
}

impl Disk for PreadDisk {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, offset: u64, buf: Buf) -> (Result<(), DiskFault>, Buf) {
        let len = buf.len();
        let (result, buf) = self.run(Request::Read { offset, buf }).await;
        (result, buf.unwrap_or_else(|| Buf::zeroed(len)))
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), DiskFault> {
        self.run(Request::Write { offset, buf }).await.0
    }

    async fn flush(&self) -> Result<(), DiskFault> {
        self.run(Request::Flush).await.0
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), DiskFault> {
        self.run(Request::Discard { offset, len }).await.0
    }
}

/// One thread's life: until the disk is dropped and the queue is empty.
fn serve(file: &File, queue: &Receiver<Job>) {
    while let Ok(Job { request, done }) = queue.recv_blocking() {
        let outcome = match request {
            Request::Read { offset, mut buf } => {
                let result = file.read_exact_at(buf.bytes_mut(), offset);
                (result.map_err(|error| fault_or_cut(&error)), Some(buf))
            }
            Request::Write { offset, buf } => {
                let result = file.write_all_at(&buf, offset);
                (result.map_err(|error| fault_or_cut(&error)), None)
            }
            Request::Flush => (file.sync_data().map_err(|error| fault_of(&error)), None),
            Request::Discard { offset, len } => (punch(file, offset, len), None),
        };
        // Nobody waits any more if the future was dropped; the request is done all the same.
        let _dropped = done.try_send(outcome);
    }
}

/// As [`fault_of`], and a file that ended before the request did is an error of the medium.
fn fault_or_cut(error: &io::Error) -> DiskFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::WriteZero => cut_short(),
        _ => fault_of(error),
    }
}

/// Gives a range back to the file system or device below; does nothing where that cannot be done.
pub(crate) fn punch(file: &File, offset: u64, len: u64) -> Result<(), DiskFault> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    loop {
        match rustix::fs::fallocate(file, flags, offset, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV) => {
                return Ok(());
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(fault_of(&errno.into())),
        }
    }
}
