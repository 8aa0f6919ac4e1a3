//! Errors of the engine's public operations.
//!
//! Owns one type per kind of caller: creating, assembling, commanding, reading and writing. Messages name the array, disk, volume or
//! offset and say what to do next.

use thiserror::Error;

use crate::ids::DiskNumber;

/// Why an array was not created. Nothing was written unless it says so.
#[derive(Debug, Error)]
pub enum CreateError {
    /// The request cannot be met; nothing was written.
    #[error("{0}")]
    Refused(String),
    /// A disk failed while it was being labelled; the array does not exist.
    #[error("{path}: {fault} while writing the label; no array was made")]
    Disk {
        /// The disk's path.
        path: String,
        /// What failed.
        fault: crate::disk::DiskFault,
    },
}

/// Why an array was not assembled. No byte was changed.
#[derive(Debug, Error)]
pub enum AssembleError {
    /// No disk carries a label of this product.
    #[error("no disk given belongs to an array: {0}")]
    NothingFound(String),
    /// The disk to choose by is not among those given, or holds no configuration (rule C5).
    #[error("{0}")]
    NoSuchChoice(String),
    /// Disks of more than one array were given.
    #[error("{0}")]
    Mixed(String),
    /// Half or more of the disks in service are missing (rule C4).
    #[error("{0}")]
    TooFew(String),
    /// Two configurations, neither on the other's history (rule C5).
    #[error("{message}")]
    Diverged {
        /// Names both sides with their last commit times and says how to choose.
        message: String,
        /// A disk of each side.
        sides: Vec<DiskNumber>,
    },
    /// A parity group stopped uncleanly and lacks a member.
    #[error("{0}")]
    WriteHole(String),
    /// What holds redirected writes is missing or cannot be read.
    #[error("{0}")]
    Shield(String),
    /// A label or configuration of a newer version.
    #[error("{0}")]
    TooNew(String),
    /// The chosen configuration could not be committed again.
    #[error("{0}")]
    Commit(String),
}

/// Why a command was refused or failed.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It names something that does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It cannot be done as things are; nothing changed.
    #[error("{0}")]
    Refused(String),
    /// It was begun and failed; the message says what state things are in.
    #[error("{0}")]
    Failed(String),
}

/// Why a read or write of a volume was answered with an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum IoError {
    /// The data is lost or the disks that hold it do not answer (EIO).
    #[error("input/output error")]
    Io,
    /// No space left below (ENOSPC).
    #[error("no space left on the device")]
    NoSpace,
    /// Outside the volume (EINVAL).
    #[error("range lies outside the volume")]
    OutOfRange,
    /// The volume may only be read (EPERM).
    #[error("the volume is read-only")]
    ReadOnly,
    /// Not possible quickly (ENOTSUP).
    #[error("not supported")]
    NotSupported,
    /// The volume or the array is going away (ESHUTDOWN).
    #[error("the volume is no longer served")]
    Stopped,
}
