//! The hand that plays a scripted story: one connection whose requests must succeed, and a few verbs.
//!
//! Owns [`Script`] and the small array of one group and one volume that the stories play on. Invariant: whatever a story
//! demands and does not get ends it with a violation that says what and why.

use std::rc::Rc;

use forestall_engine::{
    CreateGroup, CreateSpec, DiskNumber, DiskState, JournalMode, Level, VolumeHandle,
};

use crate::client::Host;
use crate::machine::Machine;
use crate::operator::volume_size;
use crate::rng::Rng;
use crate::shelf::Bay;
use crate::stage::Stage;
use crate::target::SimEnv;
use crate::trace::Trace;

/// Size of the disks in scenarios.
const DISK: u64 = 2 << 20;

/// Makes an array of one group and one volume, "v1", over all of it.
///
/// # Panics
/// With a violation if it cannot be made.
#[must_use]
pub fn stage_of(seed: u64, trace: Trace, level: Level, members: usize, spares: usize) -> Stage {
    stage_sized(seed, trace, level, members, spares, DISK)
}

/// [`stage_of`] with disks of another size.
///
/// # Panics
/// With a violation if it cannot be made.
#[must_use]
pub fn stage_sized(
    seed: u64,
    trace: Trace,
    level: Level,
    members: usize,
    spares: usize,
    disk: u64,
) -> Stage {
    stage_journaled(seed, trace, (level, members, spares), disk, JournalMode::default())
}

/// [`stage_sized`] of so many members and spares with a journal.
///
/// # Panics
/// With a violation if it cannot be made.
#[must_use]
pub fn stage_journaled(
    seed: u64,
    trace: Trace,
    (level, members, spares): (Level, usize, usize),
    disk: u64,
    journal: JournalMode,
) -> Stage {
    stage_with(seed, trace, (level, members, spares), disk, (journal, true))
}

/// A stage whose group has no checksums: what a disk gives wrong is believed.
#[must_use]
pub fn stage_unchecked(
    seed: u64,
    trace: Trace,
    level: Level,
    members: usize,
    spares: usize,
) -> Stage {
    stage_with(seed, trace, (level, members, spares), DISK, (JournalMode::default(), false))
}

fn stage_with(
    seed: u64,
    trace: Trace,
    (level, members, spares): (Level, usize, usize),
    disk: u64,
    (journal, checksums): (JournalMode, bool),
) -> Stage {
    let mut stage = Stage::new(seed, trace, &vec![disk; members + spares]);
    let group = CreateGroup {
        level,
        chunk: 16 * 1024,
        journal,
        checksums,
        spares,
        volume: Some("v1".into()),
    };
    let spec = CreateSpec { name: "sim".into(), allow_injection: false, group: Some(group) };
    stage.create(spec, |machine| async move {
        let size = volume_size(&machine, "v1");
        machine.world.oracle.borrow_mut().create_volume("v1", size);
    });
    stage
}

/// A connection that scripts a story: every request must succeed.
pub struct Script {
    /// The machine.
    pub machine: Machine,
    /// The connection to "v1".
    pub host: Host<VolumeHandle<SimEnv>>,
    size: u64,
    rng: Rng,
}

impl Script {
    /// Connects to "v1".
    #[must_use]
    pub fn new(machine: &Machine) -> Self {
        let size = volume_size(machine, "v1");
        Self { host: machine.connect("v1"), machine: machine.clone(), size, rng: machine.rng(50) }
    }

    /// Writes `count` ranges of odd sizes anywhere.
    pub async fn scribble(&mut self, count: u64) {
        for _ in 0..count {
            let offset = self.rng.below(self.size);
            let len = self.rng.log_scaled(100_000).min(self.size - offset);
            self.write(offset, len).await;
        }
    }

    /// Writes one range.
    pub async fn write(&self, offset: u64, len: u64) {
        let result = self.host.write(offset, len, false).await;
        self.host.must(result, "a write");
    }

    /// Size of the volume.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Bytes in a chunk of the group.
    pub(crate) fn chunk(&self) -> u64 {
        u64::from(self.machine.array.report().groups[0].chunk)
    }

    /// Flushes.
    pub async fn flush(&self) {
        let result = self.host.flush().await;
        self.host.must(result, "a flush");
    }

    /// Reads everything.
    pub async fn verify(&self) {
        let result = self.host.verify(self.size).await;
        self.host.must(result, "a full read");
    }

    /// The drive called `name`.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn bay(&self, name: &str) -> Rc<Bay> {
        self.machine.world.shelf.named(name).expect("a drive on the shelf")
    }

    /// Lets a drive die.
    pub fn kill(&self, name: &str) {
        self.bay(name).die();
        self.machine.say(format_args!("script: {name} dies"));
    }

    /// Waits until `disk` is in `state`, with nothing under way.
    ///
    /// # Panics
    /// With a violation if it is not.
    pub async fn expect(&self, disk: u32, state: DiskState) {
        let report = self.machine.quiet().await;
        let found = report.disks.iter().find(|d| d.number == DiskNumber(disk)).map(|d| d.state);
        if found != Some(state) {
            self.machine.complain(format!(
                "disk {disk} should be {state:?} and is {found:?}; events: {:?}",
                self.machine.array.events_after(0)
            ));
        }
    }

    /// Disk `disk` came back stale: nothing is read from it until it was readded, then it holds all that `lost` had.
    pub async fn return_of(mut self, disk: u32, lost: &str) {
        for _ in 0..5 {
            self.verify().await;
        }
        self.must(self.machine.array.readd_disk(DiskNumber(disk), None).await, "readd");
        self.scribble(5).await;
        self.expect(disk, DiskState::InSync).await;
        self.machine.audit().await;
        self.kill(lost);
        self.verify().await;
    }

    /// A command that must succeed.
    pub fn must<T, E: std::fmt::Display>(&self, result: Result<T, E>, what: &str) -> T {
        match result {
            Ok(value) => value,
            Err(error) => self.machine.complain(format!("{what}: {error}")),
        }
    }
}
