//! Faultsim: the shipped engine under a seeded executor, simulated disks and a virtual clock, judged by an oracle.
//!
//! One seed decides everything: the array's shape, what the hosts do, in which order tasks run, when disks fail and when
//! the machine crashes. The same seed replays the same run bit for bit, on any machine. The engine is the one that
//! production runs, unchanged.
#![forbid(unsafe_code)]

mod avoidance;
mod away;
mod catch;
mod client;
mod counts;
mod coverage;
mod disk;
mod doubts;
mod executor;
mod falsehoods;
mod faults;
mod followers;
mod health;
mod hung;
mod injector;
mod journal;
mod machine;
mod maps;
mod measure;
mod mechanics;
mod medium;
mod mirrors;
mod narrow;
mod operator;
mod oracle;
mod pairs;
mod pattern;
mod register;
mod replays;
mod rng;
mod run;
mod scenarios;
mod script;
mod search;
mod shape;
mod shelf;
mod shield;
mod shrink;
mod stage;
mod target;
mod trace;
mod work;

pub use avoidance::{
    AVOIDANCE_SCENARIOS, Cell as MatrixCell, EXISTING_PAIR_SCENARIOS, all_scenarios, cells,
    play_cell,
};
pub use catch::caught;
pub use client::{Budget, Habits, Host, break_off, connection};
pub use coverage::{Cell, Counts};
pub use disk::{Accesses, Drive, SimDisk};
pub use executor::{Ended, Executor, Happening, Limits, SimRuntime};
pub use faults::{Faults, Injected};
pub use machine::{Doubt, Latch, Machine, Tally, Trigger, World};
pub use maps::{Change, lost_list};
pub use measure::{Figures, Load, Measured, Setting, State, Table, measure, measure_all};
pub use mechanics::{Asked, DiskModel, Mechanics};
pub use medium::{Loss, Medium, SECTOR};
pub use oracle::{Operation, Oracle, Outcome, Request, Violation};
pub use pattern::Origin;
pub use register::{NEVER, Register, Tick, Version};
pub use rng::Rng;
pub use run::{Failure, Options, Report, level_number, simulate};
pub use scenarios::{SCENARIOS, Scenario, erring_member, play};
pub use script::{Script, stage_journaled, stage_of, stage_sized, stage_unchecked};
pub use search::{Hung, Search, cells_of, play_all, search, search_matrix};
pub use shape::{GroupShape, Shape, data_members, has_write_hole, survives};
pub use shelf::{Bay, Shelf};
pub use shrink::{Caps, shrink};
pub use stage::{RunEnd, Stage};
pub use target::{SimEnv, Target, Zeroing};
pub use trace::{Lines, Trace};
pub use work::WorkSets;
