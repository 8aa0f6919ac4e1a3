//! What the operating system's error numbers mean for a disk.
//!
//! Owns the one mapping from `errno` to [`FaultKind`]. An unknown number counts as an error of the medium: it is
//! counted and worked around, and never taken for a disk that has gone.

use std::io;

use forestall_engine::{DiskFault, FaultKind};
use rustix::io::Errno;

/// The fault that `error` stands for.
#[must_use]
pub fn fault_of(error: &io::Error) -> DiskFault {
    let Some(number) = error.raw_os_error() else {
        return DiskFault::new(FaultKind::Medium);
    };
    let kind = match Errno::from_raw_os_error(number) {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => FaultKind::NoSpace,
        Errno::TIMEDOUT | Errno::TIME => FaultKind::TimedOut,
        Errno::NODEV
        | Errno::NXIO
        | Errno::NOMEDIUM
        | Errno::STALE
        | Errno::SHUTDOWN
        | Errno::NOTCONN => FaultKind::Gone,
        // The block layer's word for a failed transport, and those of remote stores.
        Errno::NOLINK | Errno::COMM | Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::CONNRESET => {
            FaultKind::Transport
        }
        _ => FaultKind::Medium,
    };
    DiskFault { kind, errno: number }
}

/// The fault of a request that reached the end of the store although its range lies inside: the file was cut.
pub(crate) fn cut_short() -> DiskFault {
    DiskFault { kind: FaultKind::Medium, errno: Errno::IO.raw_os_error() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_kinds_and_stay_readable() {
        let kind =
            |errno: Errno| fault_of(&io::Error::from_raw_os_error(errno.raw_os_error())).kind;
        assert_eq!(kind(Errno::IO), FaultKind::Medium);
        assert_eq!(kind(Errno::NOSPC), FaultKind::NoSpace);
        assert_eq!(kind(Errno::TIMEDOUT), FaultKind::TimedOut);
        assert_eq!(kind(Errno::NODEV), FaultKind::Gone);
        assert_eq!(kind(Errno::NOLINK), FaultKind::Transport);
        assert_eq!(kind(Errno::ILSEQ), FaultKind::Medium);
        assert_eq!(fault_of(&io::Error::other("no number")).errno, 0);
    }
}
