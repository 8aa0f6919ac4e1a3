//! What the engine asks of a disk, and how a disk may fail.
//!
//! Owns the [`Disk`] trait and [`DiskFault`]. A fault is data, not an error to unwind on: it is counted, judged and
//! worked around by the member that saw it. Backends live in `forestall-disk` and in the simulator.

use std::fmt;
use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::buf::Buf;

/// A store of bytes with numbered offsets: a file, a block device, memory, or a simulated disk.
///
/// Offsets and lengths that the engine passes are multiples of 4096 bytes, inside `size()`, and buffers are aligned to 4096
/// bytes. Futures need not be `Send`: a disk belongs to one thread. A request runs to its end even if its future is
/// dropped; its buffer stays owned by the backend until then.
pub trait Disk: 'static {
    /// Size in bytes, a multiple of 4096; never changes while the disk is open.
    fn size(&self) -> u64;

    /// Fills `buf` from `offset` and hands it back. After a fault the buffer's content is undefined.
    fn read(&self, offset: u64, buf: Buf) -> impl Future<Output = (Result<(), DiskFault>, Buf)>;

    /// Writes `buf` at `offset`. Not durable before a later [`Disk::flush`] succeeds. After a fault each 512-byte sector
    /// of the range is old or new.
    fn write(&self, offset: u64, buf: Buf) -> impl Future<Output = Result<(), DiskFault>>;

    /// Makes every write that completed before this call durable. A failed flush is final (rule F2): which of those
    /// writes are durable is unknown, and a later success says nothing about them.
    fn flush(&self) -> impl Future<Output = Result<(), DiskFault>>;

    /// Tells the disk that a range is no longer needed; what it reads as afterwards is undefined.
    /// A disk that cannot do this succeeds without effect.
    fn discard(&self, offset: u64, len: u64) -> impl Future<Output = Result<(), DiskFault>>;
}

/// Kinds of failures of a single disk request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// The medium cannot give or take this range (EIO and the like).
    Medium,
    /// No space left in the file system below (ENOSPC, EDQUOT); the range is unchanged.
    NoSpace,
    /// The request took longer than the member's time limit.
    TimedOut,
    /// The disk does not answer at all: gone, dead, unplugged.
    Gone,
    /// The way to the disk failed (cable, controller): the request may be tried again.
    Transport,
    /// The disk gave something, but a block of it does not fit its checksum (rule K1). Found by the engine, never answered by a [`Disk`].
    Checksum,
    /// The disk gave something, but cannot give its checksum: nothing is known about it. Found by the engine, too.
    Unverified,
}

impl FaultKind {
    /// Whether the disk gave something that cannot be taken for what was written.
    pub(crate) const fn is_unfit(self) -> bool {
        matches!(self, Self::Checksum | Self::Unverified)
    }

    /// Whether it is of the block that was asked for, and not of the disk or the way to it: writing the block anew may mend it.
    pub(crate) const fn is_of_block(self) -> bool {
        matches!(self, Self::Medium) || self.is_unfit()
    }
}

/// One failed request of one disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskFault {
    /// What went wrong.
    pub kind: FaultKind,
    /// The operating system's error number, or 0.
    pub errno: i32,
}

impl DiskFault {
    /// A fault of `kind` without an error number.
    #[must_use]
    pub const fn new(kind: FaultKind) -> Self {
        Self { kind, errno: 0 }
    }
}

impl fmt::Display for DiskFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            FaultKind::Medium => "medium error",
            FaultKind::NoSpace => "no space left on the device below",
            FaultKind::TimedOut => "timed out",
            FaultKind::Gone => "disk does not answer",
            FaultKind::Transport => "transport error on the way to the disk",
            FaultKind::Checksum => "checksum mismatch",
            FaultKind::Unverified => "checksum not readable",
        };
        if self.errno == 0 { f.write_str(what) } else { write!(f, "{what} (errno {})", self.errno) }
    }
}

/// Where a disk is, for people: shown by `status`, kept in the configuration as a hint, never trusted.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DiskIdentity {
    /// The path it was opened by.
    pub path: String,
    /// Serial number where the operating system knows one.
    pub serial: Option<String>,
    /// Vendor and model where known.
    pub model: Option<String>,
}

impl DiskIdentity {
    /// The path, and the serial number where it is known: what to look for at the machine.
    #[must_use]
    pub fn words(&self) -> String {
        match &self.serial {
            Some(serial) => format!("{}, serial {serial}", self.path),
            None => self.path.clone(),
        }
    }
}
