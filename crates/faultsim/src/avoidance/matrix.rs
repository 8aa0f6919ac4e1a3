//! Every level with every backup storage and everything that may happen meanwhile.
//!
//! Owns the product of levels, strategies and happenings, and how one cell of it is played: several connections write, read and flush all the
//! while, each request checked by the oracle. Within what the level survives, and beyond it where the ailing disk still reads, every byte is
//! right; beyond that exactly the blocks that are gone answer with an error. The test suite plays [`few`] of the cells, the command all.

use std::cell::Cell as Flag;
use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;

use forestall_engine::format::layout::Layout;
use forestall_engine::geometry::{Geometry, Place, Role};
use forestall_engine::{
    AssembleOptions, AvoidanceState, BLOCK_SIZE, DiskNumber, DiskState, JobKind, Level, Strategy,
};

use super::events::spoil;
use crate::catch::caught;
use crate::machine::Latch;
use crate::run::Failure;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_sized};
use crate::shield::{LEVELS, SECOND, SLOW};
use crate::stage::Stage;
use crate::trace::{Lines, Trace};

/// Bytes of a chunk in the stories' groups.
const CHUNK: u64 = 16 << 10;

/// What happens while a disk is copied away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Happening {
    Nothing,
    /// This member dies when so many hundredths are copied.
    MemberDies(usize, u64),
    SpareDies,
    AilingDies,
    BackupFillsUp,
    BackupLosesACopy,
    /// Blocks of the ailing disk, of a peer, and of as many disks at once as the level does not survive are unreadable from the start.
    Unreadable,
    /// The array is stopped in good order in this state.
    Restart(AvoidanceState),
}

/// One cell of the matrix.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    level: Level,
    members: usize,
    tolerance: usize,
    strategy: Strategy,
    happening: Happening,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {:?}", self.level, self.strategy, self.happening)
    }
}

/// What may happen to a group of a level.
fn happenings(members: usize, tolerance: usize, strategy: Strategy) -> Vec<Happening> {
    use AvoidanceState::{Copying, Entering, WritingBack};
    let mut all = vec![Happening::Nothing, Happening::SpareDies, Happening::Unreadable];
    if tolerance > 0 {
        let members = 2..=members;
        let quarters = [0, 25, 50, 75, 100];
        all.extend(members.flat_map(|m| quarters.map(|percent| Happening::MemberDies(m, percent))));
        all.push(Happening::AilingDies);
        if strategy != Strategy::Direct {
            all.push(Happening::BackupLosesACopy);
        }
    }
    if matches!(strategy, Strategy::WorkVolume | Strategy::WorkDisk) {
        all.push(Happening::BackupFillsUp);
    }
    all.extend([Entering, Copying, WritingBack].map(Happening::Restart));
    all
}

/// The whole matrix.
#[must_use]
pub fn cells() -> Vec<Cell> {
    let strategies = [Strategy::Pair, Strategy::WorkVolume, Strategy::WorkDisk, Strategy::Direct];
    let mut cells = Vec::new();
    for strategy in strategies {
        for (level, members, tolerance) in LEVELS {
            let all = happenings(members, tolerance, strategy);
            cells.extend(all.into_iter().map(|happening| Cell {
                level,
                members,
                tolerance,
                strategy,
                happening,
            }));
        }
    }
    cells
}

/// So many of them that each member of each level dies, at one quarter or another, and every other cell of all else.
fn few() -> impl Iterator<Item = Cell> {
    let keep = |(at, cell): &(usize, Cell)| match cell.happening {
        Happening::MemberDies(..) => at % 4 == 0,
        _ => at % 2 == 0,
    };
    cells().into_iter().enumerate().filter(keep).map(|(_, cell)| cell)
}

/// Plays one cell; the failure says how to play it again.
///
/// # Errors
/// What was found.
pub fn play_cell(number: usize, seed: u64, lines: Lines) -> Result<(), Box<Failure>> {
    let cell = cells()[number];
    let trace = Trace::new(lines);
    caught(|| play(&cell, seed, &trace)).map_err(|what| {
        Box::new(Failure {
            seed,
            arguments: format!(" --cell {number}"),
            setting: format!("cell {cell}"),
            what,
            trace: trace.kept(),
        })
    })
}

pub(super) fn matrix(seed: u64, trace: Trace) {
    for (at, cell) in few().enumerate() {
        play(&cell, seed + at as u64, &trace);
    }
}

fn play(cell: &Cell, seed: u64, trace: &Trace) {
    let cell = *cell;
    trace.line(0, format_args!("cell {cell}"));
    let Cell { level, members, .. } = cell;
    let large = matches!(cell.happening, Happening::MemberDies(..));
    let disk = if large { 5 << 20 } else { 2 << 20 };
    let mut stage = stage_sized(seed, trace.clone(), level, members, 2, disk);
    act(&mut stage, AssembleOptions::default(), move |s| cell.begin(s));
    if let Happening::Restart(_) = cell.happening {
        act(&mut stage, AssembleOptions::default(), move |s| cell.finish(s, BTreeSet::new()));
    }
    restart(&mut stage, cell);
}

/// Nothing changes over a start, one with a missing disk too.
fn restart(stage: &mut Stage, cell: Cell) {
    act(stage, degraded(), move |s| async move {
        if cell.happening != Happening::Unreadable {
            s.verify().await;
        }
    });
}

impl Cell {
    /// The first run: everything up to the end of the avoidance, or to the stop.
    async fn begin(self, mut s: Script) {
        self.add_backup(&s).await;
        s.scribble(30).await;
        let gone = if self.happening == Happening::Unreadable {
            s.write(0, s.size() / BLOCK_SIZE * BLOCK_SIZE).await;
            s.flush().await;
            self.spoil(&s)
        } else {
            BTreeSet::new()
        };
        let load = Load::begin(&s, &gone);
        s.replace(1, 4 * SLOW, self.strategy).await;
        self.happen(&mut s).await;
        if let Happening::Restart(_) = self.happening {
            load.end().await;
            return;
        }
        s.whole_again().await;
        load.end().await;
        self.finish(s, gone).await;
    }

    /// The avoidance ends and exactly what is gone does not read.
    async fn finish(self, mut s: Script, gone: BTreeSet<u64>) {
        if gone.is_empty() {
            s.verify().await;
        }
        s.whole_again().await;
        s.machine.quiet().await;
        let report = s.machine.array.report();
        let kept = report.groups[0].members.contains(&DiskNumber(1));
        // The disk that was copied away may come back for a member that died later.
        if kept && report.groups[0].members[0] == DiskNumber(1) {
            s.machine.complain("the ailing disk was not replaced".into());
        }
        let unreadable = s.unreadable().await;
        if unreadable != gone {
            s.machine.complain(format!("{unreadable:?} do not read instead of {gone:?}"));
        }
        for block in gone {
            s.write(block * BLOCK_SIZE, BLOCK_SIZE).await;
        }
        s.scribble(5).await;
        s.flush().await;
        s.verify().await;
        if self.happening != Happening::Unreadable {
            s.machine.audit().await;
        }
    }

    async fn add_backup(&self, s: &Script) {
        match self.strategy {
            Strategy::Pair => drop(s.add_free_group(self.tolerance).await),
            Strategy::WorkVolume if self.happening == Happening::BackupFillsUp => {
                let (level, members) =
                    if self.tolerance == 2 { (Level::Raid6, 4) } else { (Level::Raid1, 2) };
                s.add_small_work_volume(level, members, 24 * BLOCK_SIZE).await;
            }
            Strategy::Direct => {}
            strategy => s.add_backup(strategy, self.tolerance).await,
        }
    }

    async fn happen(&self, s: &mut Script) {
        match self.happening {
            Happening::Nothing => s.scribble(10).await,
            Happening::Unreadable => {}
            Happening::MemberDies(member, percent) => {
                s.copied(percent).await;
                s.kill(&format!("d{member}"));
                s.scribble(10).await;
                s.flush().await;
                s.verify().await;
            }
            Happening::SpareDies => {
                s.copied(30).await;
                s.kill(&format!("d{}", self.members + 1));
                s.scribble(5).await;
                s.flush().await;
                if self.strategy == Strategy::Direct {
                    // No shield waits for the next spare: the copy goes on with it all the same.
                    let next = self.members as u32 + 2;
                    let in_place = move |s: &Script| s.in_state(next, DiskState::InSync);
                    s.await_that("the next spare", in_place).await;
                }
            }
            Happening::AilingDies => {
                s.copied(30).await;
                s.kill("d1");
                s.scribble(5).await;
                s.flush().await;
            }
            Happening::BackupFillsUp => {
                s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "pause");
                for _ in 0..8 {
                    s.scribble(10).await;
                    s.flush().await;
                }
                s.go_on().await;
            }
            Happening::BackupLosesACopy => {
                s.scribble(5).await;
                // Disks of the backup come after the members and the two spares.
                s.kill(&format!("d{}", self.members + 3));
                s.scribble(10).await;
                s.flush().await;
            }
            Happening::Restart(AvoidanceState::Entering) => {}
            Happening::Restart(state) if self.strategy == Strategy::Direct => {
                let percent = if state == AvoidanceState::Copying { 1 } else { 90 };
                s.copied(percent).await;
            }
            Happening::Restart(state) => s.sees(state).await,
        }
    }

    /// Makes blocks unreadable; answers the blocks of the volume that nothing can give then.
    fn spoil(&self, s: &Script) -> BTreeSet<u64> {
        let data = s.bay("d1").drive.size();
        let stripes = Layout::for_size(data).expect("a labelled disk").data.len / CHUNK;
        let geometry = Geometry::new(self.level, self.members, CHUNK as u32, stripes)
            .expect("a group of the story's shape");
        let together = (1..=self.tolerance + 1).collect::<Vec<_>>();
        let mut gone = BTreeSet::new();
        for (stripe, disks) in [(2, vec![1]), (5, vec![2]), (8, together), (11, vec![1])] {
            let address = stripe * CHUNK + BLOCK_SIZE;
            for disk in &disks {
                spoil(s, &format!("d{disk}"), address, BLOCK_SIZE);
            }
            if disks.len() <= self.tolerance {
                continue;
            }
            let (stripe, row) = geometry.at_address(address);
            for disk in &disks {
                let slot = forestall_engine::Slot(*disk as u8 - 1);
                if let Role::Data(column) = geometry.role(stripe, slot) {
                    gone.insert(geometry.offset_of(Place { stripe, column, row }) / BLOCK_SIZE);
                }
            }
        }
        gone
    }
}

/// Connections at work until they are told to end.
struct Load {
    stop: Rc<Flag<bool>>,
    latch: Latch,
}

impl Load {
    fn begin(s: &Script, gone: &BTreeSet<u64>) -> Self {
        let (stop, latch) = (Rc::new(Flag::new(false)), Latch::default());
        for at in 0..3 {
            let (host, stopped) = (s.machine.connect("v1"), Rc::clone(&stop));
            let (gone, size) = (gone.clone(), s.size());
            let (machine, mut rng) = (s.machine.clone(), s.machine.rng(70 + at));
            latch.spawn(&s.machine.runtime, async move {
                while !stopped.get() {
                    machine.pause(rng.within(1..SECOND / 10)).await;
                    let offset = rng.below(size);
                    let len = rng.log_scaled(60_000).min(size - offset);
                    let blocks = offset / BLOCK_SIZE..(offset + len).div_ceil(BLOCK_SIZE);
                    if gone.range(blocks).next().is_some() {
                        continue;
                    }
                    match rng.below(6) {
                        0 => host.must(host.flush().await, "a flush"),
                        1..4 => host.must(host.write(offset, len, false).await, "a write"),
                        _ => host.must(host.read(offset, len).await, "a read"),
                    }
                }
            });
        }
        Self { stop, latch }
    }

    async fn end(self) {
        self.stop.set(true);
        self.latch.all().await;
    }
}

impl Script {
    /// Waits until so many hundredths of the copy are done, or it has ended.
    pub(super) async fn copied(&self, percent: u64) {
        let reached = |s: &Self| {
            let jobs = s.machine.array.jobs();
            let copy = jobs.iter().find(|j| j.kind == JobKind::Replace);
            s.state().is_none()
                && copy.is_none_or(|j| j.state != forestall_engine::JobState::Running)
                || copy.is_some_and(|j| j.done_bytes * 100 >= j.total_bytes * percent)
        };
        self.await_that("that much of the copy", reached).await;
    }
}
