//! Measurements in virtual time: fixed loads on the shipped engine, on disks that take the time of a model.
//!
//! Owns the cases and how one is played. Invariants: a seed gives the same figures on any machine; nothing is injected and nothing judged but that no
//! request and no command fails. What a host does is `measure/load.rs`'s matter, what is printed `measure/table.rs`'s, how long a disk takes
//! `mechanics.rs`'s. The processor takes no time at all here: what is measured is disks and their waiting, nothing else.

use std::fmt;
use std::rc::Rc;
use std::sync::Mutex;
use std::thread;

use forestall_engine::{
    AssembleOptions, CreateGroup, CreateSpec, DiskNumber, DiskState, GroupNumber, JobState,
    JournalMode, Level, Runtime, Strategy,
};

use crate::catch::caught;
use crate::disk::Accesses;
use crate::machine::Machine;
use crate::mechanics::DiskModel;
use crate::stage::Stage;
use crate::trace::{Lines, Trace};

mod load;
mod table;

use load::Player;
pub use load::{Figures, Load};
pub use table::Table;

/// Size of a member.
const DISK: u64 = 64 << 20;
/// Size of a work disk: room for every block of the volume.
const WORK_DISK: u64 = 320 << 20;
const CHUNK: u32 = 64 << 10;
/// The work-disk set.
const SET: DiskNumber = DiskNumber(60);
/// The member that is copied or missing.
const AILING: DiskNumber = DiskNumber(1);
const GROUP: GroupNumber = GroupNumber(1);
/// How often it is looked whether a copy is done.
const LOOK_NS: u64 = 1_000_000;
/// A copy or write-back that takes longer is measured so far and left.
const LONGEST_NS: u64 = 20_000_000_000;

/// In which state of its group a load is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// All members, nothing else at work.
    Healthy,
    /// One member failed, no spare.
    Missing,
    /// A member is copied to a spare while writes go to a mirrored work disk, and then home.
    Shielded,
    /// A member is copied to a spare while writes go home.
    Direct,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Healthy, Self::Missing, Self::Shielded, Self::Direct];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Healthy => "healthy",
            Self::Missing => "one missing",
            Self::Shielded => "copy, shielded",
            Self::Direct => "copy, direct",
        })
    }
}

/// A group to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Its level.
    pub level: Level,
    /// How many members it has.
    pub members: usize,
    /// How many of them it may lose; its work disk has one leg more.
    pub tolerance: usize,
}

impl Setting {
    /// The groups that are measured.
    pub const ALL: [Self; 3] = [
        Self { level: Level::Raid1, members: 2, tolerance: 1 },
        Self { level: Level::Raid5, members: 4, tolerance: 1 },
        Self { level: Level::Raid6, members: 6, tolerance: 2 },
    ];
}

/// What was measured of one load in one state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Measured {
    /// The group.
    pub setting: Setting,
    /// What its host did.
    pub load: Load,
    /// In which state.
    pub state: State,
    /// How the host fared, until the copy was done if there was one.
    pub figures: Figures,
    /// How long the copy took.
    pub copy_ns: Option<u64>,
    /// Whether the copy, and the write-back if there was one, came to their end while they were looked at.
    pub ended: bool,
    /// How the host fared while its updates went home, and how long that took.
    pub home: Option<(Figures, u64)>,
    /// What each drive was asked until the copy was done, by its name.
    pub disks: Vec<(String, Accesses)>,
    /// What the array told of.
    pub told: Vec<String>,
}

/// Plays one load in one state.
///
/// # Panics
/// With a violation if a request or command fails.
#[must_use]
pub fn measure(
    model: DiskModel,
    setting: Setting,
    load: Load,
    state: State,
    seed: u64,
) -> Measured {
    let mut stage = filled(model, setting, state, seed);
    let measured = Rc::new(std::cell::Cell::new(None));
    let answer = Rc::clone(&measured);
    stage.run(AssembleOptions::default(), None, move |machine| async move {
        let case = Case { model, setting, load, state };
        answer.set(Some(case.play(&machine).await));
        machine.stop().await;
    });
    measured.take().expect("a run that completed has measured")
}

/// Plays every load in every state, of every level or of one, on all cores, and answers in order.
///
/// # Errors
/// What went wrong in the first case that did not come to its end.
pub fn measure_all(model: DiskModel, level: Option<Level>, seed: u64) -> Result<Table, String> {
    let settings = Setting::ALL.into_iter().filter(|s| level.is_none_or(|level| s.level == level));
    let cases = settings.flat_map(|setting| {
        Load::ALL
            .into_iter()
            .flat_map(move |load| State::ALL.into_iter().map(move |state| (setting, load, state)))
    });
    let cases: Vec<_> = cases.filter(|(_, load, state)| load.tells(*state)).collect();
    let next = Mutex::new(0..cases.len());
    let done = Mutex::new(Vec::new());
    let take = || next.lock().expect("nobody panics with it").next();
    let work = || {
        while let Some(at) = take() {
            let (setting, load, state) = cases[at];
            let result = caught(|| measure(model, setting, load, state, seed));
            done.lock().expect("nobody panics with it").push((at, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().expect("nobody panics with it");
    done.sort_by_key(|(at, _)| *at);
    let rows = done.into_iter().map(|(at, result)| {
        let (setting, load, state) = cases[at];
        result.map_err(|what| format!("{} {load}, {state}: {what}", setting.level))
    });
    Ok(Table { model, rows: rows.collect::<Result<_, _>>()? })
}

/// An array whose volume "v1" was written from end to end.
fn filled(model: DiskModel, setting: Setting, state: State, seed: u64) -> Stage {
    let spares = usize::from(matches!(state, State::Shielded | State::Direct));
    let disks = vec![DISK; setting.members + spares];
    let mut stage = Stage::modelled(seed, Trace::new(Lines::Off), &disks, model);
    let group = CreateGroup {
        level: setting.level,
        chunk: CHUNK,
        journal: JournalMode::default(),
        checksums: true,
        spares,
        volume: Some("v1".into()),
    };
    let spec = CreateSpec { name: "measured".into(), allow_injection: false, group: Some(group) };
    stage.create(spec, |machine| async move { Player::new(&machine, Load::Idle).fill().await });
    stage
}

struct Case {
    model: DiskModel,
    setting: Setting,
    load: Load,
    state: State,
}

impl Case {
    async fn play(self, machine: &Machine) -> Measured {
        let array = &machine.array;
        let known = array.events_after(0).last().map_or(0, |e| e.sequence);
        match self.state {
            State::Healthy | State::Direct => {}
            State::Missing => done(machine, array.fail_disk(AILING).await, "disk fail"),
            State::Shielded => {
                let shelf = &machine.world.shelf;
                let legs = (0..=self.setting.tolerance)
                    .map(|_| shelf.add(WORK_DISK, machine.world.seed))
                    .map(|bay| bay.hand_over(&machine.runtime))
                    .collect();
                done(machine, array.add_work_disk(SET, legs, Vec::new()).await, "work-disk add");
            }
        }
        machine.quiet().await;
        let player = Player::new(machine, self.load);
        player.start();
        // What only the first requests pay is not counted.
        machine.pause(self.steady_ns() / 10).await;
        let begun = machine.runtime.now_ns();
        let before = accesses(machine);
        let Copied { copied, home, after, ended } = match self.state {
            State::Healthy | State::Missing => {
                machine.pause(self.steady_ns()).await;
                Copied::none(machine)
            }
            State::Shielded => self.copy(machine, Strategy::WorkDisk).await,
            State::Direct => self.copy(machine, Strategy::Direct).await,
        };
        player.end().await;
        let copies = matches!(self.state, State::Shielded | State::Direct);
        Measured {
            setting: self.setting,
            load: self.load,
            state: self.state,
            figures: player.figures(begun..copied),
            copy_ns: copies.then_some(copied - begun),
            ended,
            home: home.map(|end| (player.figures(copied..end), end - copied)),
            disks: names(machine).into_iter().zip(between(&before, &after)).collect(),
            told: told(machine, known),
        }
    }

    /// How long a state that does not end is looked at.
    fn steady_ns(&self) -> u64 {
        // Long enough for hundreds of requests at random places.
        if self.model.revolution_ns > 0 { 4_000_000_000 } else { 200_000_000 }
    }

    /// Copies the ailing member away, and waits until the updates are home.
    async fn copy(&self, machine: &Machine, strategy: Strategy) -> Copied {
        let array = &machine.array;
        let begun = array.replace_shielded(AILING, None, 0, strategy).await;
        done(machine, begun.map(|_| ()), "replace");
        let member = || {
            let report = array.report();
            let ailing = report.disks.iter().find(|d| d.number == AILING);
            ailing.is_some_and(|d| d.state == DiskState::InSync)
        };
        let ended = wait(machine, || !member()).await;
        let mut copied = Copied { ended, ..Copied::none(machine) };
        let report = array.report();
        let avoidance = report.groups.iter().find(|g| g.number == GROUP);
        let away = avoidance.and_then(|g| g.avoidance.as_ref()).map_or(0, |a| a.away_blocks);
        if ended && away > 0 {
            copied.ended = wait(machine, || array.avoidance(GROUP).is_none()).await;
            copied.home = Some(machine.runtime.now_ns());
        }
        copied
    }
}

/// How a copy went.
struct Copied {
    /// When it was done.
    copied: u64,
    /// When the updates were home, if there were any.
    home: Option<u64>,
    /// What the drives were asked until it was done.
    after: Vec<Accesses>,
    /// Whether it was done, and the updates home.
    ended: bool,
}

impl Copied {
    /// Nothing was copied up to now.
    fn none(machine: &Machine) -> Self {
        let (copied, after) = (machine.runtime.now_ns(), accesses(machine));
        Self { copied, home: None, after, ended: true }
    }
}

/// Waits for a condition in virtual time, but not for ever; answers whether it came.
async fn wait(machine: &Machine, is_there: impl Fn() -> bool) -> bool {
    let deadline = machine.runtime.now_ns() + LONGEST_NS;
    while !is_there() {
        if machine.runtime.now_ns() > deadline {
            return false;
        }
        machine.pause(LOOK_NS).await;
    }
    true
}

fn done<E: fmt::Display>(machine: &Machine, result: Result<(), E>, what: &str) {
    if let Err(error) = result {
        machine.complain(format!("{what}: {error}"));
    }
}

/// What every drive was asked so far.
fn accesses(machine: &Machine) -> Vec<Accesses> {
    machine.world.shelf.all().iter().map(|bay| bay.drive.accesses()).collect()
}

fn names(machine: &Machine) -> Vec<String> {
    machine.world.shelf.all().iter().map(|bay| bay.drive.name().to_owned()).collect()
}

fn between(before: &[Accesses], after: &[Accesses]) -> Vec<Accesses> {
    before.iter().zip(after).map(|(before, after)| after.since(before)).collect()
}

/// The events of a measurement, and what is still under way.
fn told(machine: &Machine, known: u64) -> Vec<String> {
    let events = machine.array.events_after(known).into_iter();
    let events = events.map(|e| format!("{}: {}", e.kind, e.message));
    let running = machine.array.jobs().into_iter().filter(|j| j.state == JobState::Running);
    let jobs = running
        .map(|j| format!("under way: {:?}, {} of {} bytes", j.kind, j.done_bytes, j.total_bytes));
    events.chain(jobs).collect()
}
