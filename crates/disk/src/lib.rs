//! Disks for the Forestall engine: memory, files and block devices, and what stands between them and the engine.
//!
//! - [`MemoryDisk`], [`PreadDisk`] and [`UringDisk`] are the backends, [`OverlayDisk`] one that writes nothing, [`AnyDisk`] is any of them;
//! - [`InjectedDisk`] puts errors, delays, stalls, corruption and death before any backend, by rules set at run time;
//! - [`OwnedFile`] opens a path so that no second server can have it (rule C6);
//! - [`probe`] says whose data lies on a disk, so that none is overwritten by mistake.
//!
//! This crate makes the only disk system calls of the project. It knows nothing of RAID, labels or configurations.
#![deny(unsafe_code)]

mod any;
mod errno;
mod foreign;
mod kernel_buf;
mod memory;
mod overlay;
mod ownership;
mod past_cache;
mod pread;
mod run_to_end;
mod uring;
mod wrap;

pub use any::AnyDisk;
pub use errno::fault_of;
pub use foreign::{Content, PROBE_LEN, probe};
pub use kernel_buf::KernelBuf;
pub use memory::MemoryDisk;
pub use overlay::OverlayDisk;
pub use ownership::{
    Access, FileId, FileKind, OwnError, OwnedFile, UsedBy, create_sparse, machine_id,
};
pub use pread::PreadDisk;
pub use run_to_end::RunToEnd;
pub use uring::{UringDisk, UringError};
pub use wrap::{
    ActiveRule, ByteRange, InjectKind, InjectOp, InjectRule, InjectedDisk, Injector, RuleError,
};
