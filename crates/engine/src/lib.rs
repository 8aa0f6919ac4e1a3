//! The Forestall engine: RAID groups, volumes, on-disk formats and the flows between them.
//!
//! Plain async Rust that names no runtime, generic over [`Disk`] and [`Runtime`]; free of system calls, threads, clocks and `unsafe`.
//! The same code runs in production and in the simulator. Safety rules are cited by number (`docs/safety-rules.md`).
#![forbid(unsafe_code)]

mod array;
#[cfg(test)]
mod breadth;
mod buf;
mod config;
mod disk;
mod drive;
mod error;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
pub mod geometry;
mod group;
pub mod health;
mod ids;
mod pair;
pub mod plan;
mod progress;
pub mod quorum;
mod report;
mod runtime;
mod shield;
mod sync;
mod volume;
pub mod words;

pub use array::{
    Array, AssembleOptions, CreateGroup, CreateSpec, GroupSpec, NewDisk, Notes, VolumeSpec, wipe,
};
pub use buf::Buf;
pub use config::{
    AvoidanceEntry, AvoidanceState, BackupPlace, BackupTable, Configuration, DiskEntry, DiskRole,
    DropReason, Extent, GroupEntry, HealthEntry, HealthTable, HistoryEntry, JournalMode, Level,
    PairEntry, PairStatus, Retired, Service, ShieldedVolume, SlotEntry, SlotState, Strategy,
    VolumeEntry, WorkEntry,
};
pub use disk::{Disk, DiskFault, DiskIdentity, FaultKind};
pub use error::{AssembleError, CommandError, CreateError, IoError};
pub use ids::{
    BLOCK_SIZE, DiskNumber, GroupNumber, MEMBERS_MAX, Slot, SlotSet, Stripe, Uuid, VolumeNumber,
};
pub use report::{
    AccessCounts, ArrayReport, AvoidanceReport, DiskReport, DiskState, ErrorCounts, Event,
    GroupReport, Health, HealthReport, JobKind, JobReport, JobState, LegDamage, LostRange,
    LostReport, PairReport, Problem, ProblemKind, Severity, ShieldedReport, T1Row, T2Row, T3Row,
    T4Row, T5Row, T6Row, T7Row, TableRow, VolumeReport,
};
pub use runtime::{Env, Runtime, Task};
pub use volume::{AllocationRun, VolumeHandle};
