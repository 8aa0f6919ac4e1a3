//! Forestall's threads, sockets, timers and management API, as a library without a `main`.
//!
//! One *data thread* per array runs the engine, its disks and its NBD sessions on one io_uring; one *control thread* runs the
//! management API and sends it closures. [`serve()`] puts the two together and runs until it is told to stop; [`create`],
//! [`destroy`], [`inspect()`], [`check()`] and [`repair()`] work on disks that no server uses.
#![forbid(unsafe_code)]

pub mod api;
mod check;
mod data;
mod hook;
mod inspect;
mod listen;
mod open;
mod repair;
mod runtime;
mod serve;
mod session;
mod smart;

pub use api::socket::default_socket;
pub use check::{CheckError, CheckReport, Finding, Grade, check};
pub use data::{ServeOptions as DataOptions, StartError};
pub use hook::Hook;
pub use inspect::{
    ConfigurationFacts, ConfiguredDisk, ConfiguredGroup, ConfiguredVolume, Inspection, LabelFacts,
    MapFacts, RegionFacts, SlotFacts, inspect,
};
pub use listen::NbdAddr;
pub use open::{CreateFailure, IoChoice, OpenError, create, destroy};
pub use repair::{RepairError, RepairPlan, plan as plan_repair, repair};
pub use serve::{Log, Ready, ServeError, ServeOptions, default_nbd, serve};
