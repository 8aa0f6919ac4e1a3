//! Stories of a start that gives up redirected writes which it cannot read (rule B9).
//!
//! Owns the scripts; the list is in `avoidance.rs`. Invariants: without the operator's word such a start is refused; with it a volume holds exactly what
//! its own group had before the shield came up, from then on, whatever of the storage comes back; what can be read is never given up.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::rc::Rc;

use forestall_engine::format::layout::Layout;
use forestall_engine::format::log::LogShape;
use forestall_engine::{
    AssembleOptions, AvoidanceState, BLOCK_SIZE, Buf, DiskNumber, DiskState, GroupNumber, Level,
    ProblemKind, Severity, Strategy,
};

use super::sources::leg;
use crate::oracle::Kept;
use crate::scenarios::{act, degraded};
use crate::script::Script;
use crate::shield::{LEVELS, SET, SLOW, stage};
use crate::stage::{RunEnd, Stage};
use crate::trace::Trace;

/// Blocks that are written under the shield; the last one in part.
const AWAY: [u64; 7] = [3, 7, 8, 9, 25, 30, 41];

/// A member of the second group of [`only_what_is_gone`].
const OTHER: DiskNumber = DiskNumber(6);

/// What holds the newest writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Storage {
    WorkDisk,
    WorkVolume,
    NewPair,
    LastingPair,
}

const STORAGES: [Storage; 4] =
    [Storage::WorkDisk, Storage::WorkVolume, Storage::NewPair, Storage::LastingPair];

impl Storage {
    fn strategy(self) -> Strategy {
        match self {
            Self::WorkDisk => Strategy::WorkDisk,
            Self::WorkVolume => Strategy::WorkVolume,
            Self::NewPair | Self::LastingPair => Strategy::Pair,
        }
    }

    /// As messages call it.
    fn words(self) -> &'static str {
        match self {
            Self::WorkDisk => "work disk 60",
            Self::WorkVolume => "work volume 2",
            Self::NewPair | Self::LastingPair => "the secondary of volume 1",
        }
    }

    /// Its disks on the shelf, which come after the members and two spares.
    fn disks(self, members: usize, tolerance: usize) -> RangeInclusive<usize> {
        let first = members + 3;
        let count = match (self, tolerance) {
            (Self::WorkDisk, legs_less_one) => legs_less_one + 1,
            (Self::NewPair, 1) => 3,
            (_, 2) => 4,
            _ => 2,
        };
        first..=first + count - 1
    }
}

/// What a start may give up, if half of the disks are missing too.
fn giving_up() -> AssembleOptions {
    AssembleOptions { give_up_backups: true, ..degraded() }
}

fn withhold(stage: &Stage, disks: RangeInclusive<usize>, withheld: bool) {
    for disk in disks {
        let bay = stage.world.shelf.named(&format!("d{disk}")).expect("it is on the shelf");
        bay.withheld.set(withheld);
    }
}

impl Script {
    /// Makes a storage that survives as much as home.
    async fn have_storage(&self, storage: Storage, tolerance: usize) {
        self.write(0, self.size()).await;
        match storage {
            Storage::NewPair => drop(self.add_free_group(tolerance).await),
            _ => self.add_backup(storage.strategy(), tolerance).await,
        }
        self.flush().await;
    }

    /// All of a volume, as a host would read it.
    async fn content(&self, name: &str) -> Vec<u8> {
        let volume = self.machine.array.open_volume(name).expect("the volume is there");
        Buf::joined(self.must(volume.read(0, self.size()).await, "a full read")).to_vec()
    }

    /// The start told of what it gave up, by an event and in `status`.
    fn told_of_storage(&self, storage: Storage) {
        let events = self.machine.array.events_after(0);
        let told = events.iter().any(|event| {
            event.kind == "backup-given-up"
                && event.severity == Severity::Critical
                && event.message.contains(storage.words())
                && event.message.contains("to volume 1 of group 1 is gone")
        });
        if !told {
            self.machine.complain(format!("no event tells of {storage:?}: {events:?}"));
        }
        if !self.lists_given_up() {
            self.machine.complain(format!("status does not tell of {storage:?}"));
        }
    }

    fn lists_given_up(&self) -> bool {
        let problems = self.machine.array.report().problems;
        problems.iter().any(|p| {
            p.kind == ProblemKind::WritesGivenUp && p.what.contains("volume 1 of group 1 may hold")
        })
    }

    fn gave_nothing_up(&self) {
        if self.lists_given_up() || self.event("backup-given-up") {
            self.machine.complain("a storage that can be read was given up".into());
        }
    }

    /// Everything that is missing is brought back.
    async fn bring_all_back(&self) {
        for disk in self.machine.array.report().disks {
            if disk.state == DiskState::Missing {
                let back = self.machine.array.readd_disk(disk.number, None).await;
                self.must(back, "disk readd");
            }
        }
        self.machine.quiet().await;
    }
}

/// A group whose newest writes are in a storage; answers what its volume held before.
fn redirect(stage: &mut Stage, storage: Storage, tolerance: usize) -> (Kept, Vec<u8>) {
    act(stage, AssembleOptions::default(), move |s| async move {
        s.have_storage(storage, tolerance).await;
    });
    let kept = stage.world.oracle.borrow().kept("v1");
    let newest = Rc::new(RefCell::new(Vec::new()));
    let read = Rc::clone(&newest);
    act(stage, AssembleOptions::default(), move |s| async move {
        s.stand_still(SLOW, storage.strategy()).await;
        if storage == Storage::LastingPair {
            s.reversed().await;
        }
        for block in AWAY {
            let len = if block == AWAY[6] { 700 } else { BLOCK_SIZE };
            s.write(block * BLOCK_SIZE, len).await;
        }
        s.flush().await;
        *read.borrow_mut() = s.content("v1").await;
    });
    (kept, newest.take())
}

/// The start is refused, and says what is missing, whose it is, and what else may be done.
fn must_be_refused(stage: &mut Stage, storage: Storage) {
    let why = stage.refused(degraded());
    let words = [storage.words(), "newest writes of volume 1 of group 1", "--give-up-backups"];
    if let Some(word) = words.into_iter().find(|word| !why.contains(word)) {
        stage.world.complain(format!("refused without {word:?}: {why}"));
    }
}

/// Without the operator's word the start is refused; with it the volume holds what it held before the shield came up, and can be used.
fn start_without(stage: &mut Stage, storage: Storage, kept: Kept) {
    must_be_refused(stage, storage);
    stage.world.oracle.borrow_mut().put_back("v1", kept);
    act(stage, giving_up(), move |mut s| async move {
        s.told_of_storage(storage);
        s.verify().await;
        s.scribble(10).await;
        s.flush().await;
        s.verify().await;
    });
}

pub(super) fn at_a_start(seed: u64, trace: Trace) {
    for (storage, (level, members, tolerance)) in
        STORAGES.into_iter().flat_map(|s| LEVELS.map(|level| (s, level)))
    {
        let mut stage = stage(seed, &trace, level, members);
        let disks = storage.disks(members, tolerance);
        let (kept, newest) = redirect(&mut stage, storage, tolerance);
        withhold(&stage, disks.clone(), true);
        start_without(&mut stage, storage, kept);
        // Its place is in no chain any more: nothing asks for it.
        act(&mut stage, degraded(), move |mut s| async move {
            if s.lists_given_up() {
                s.machine.complain("a start tells of what an earlier one gave up".into());
            }
            s.verify().await;
            s.go_on().await;
            s.scribble(10).await;
            s.whole_and_sound().await;
        });
        withhold(&stage, disks, false);
        act(&mut stage, degraded(), move |mut s| async move {
            comes_back(&mut s, storage, &newest).await;
            s.machine.audit().await;
            s.lose(tolerance);
            s.verify().await;
        });
    }
}

/// The disks of a storage that was given up are back: nothing on them is believed, and it can be used anew.
async fn comes_back(s: &mut Script, storage: Storage, newest: &[u8]) {
    s.verify().await;
    if !s.event("disk-returned") {
        s.machine.complain("nothing tells that the disks are back".into());
    }
    s.bring_all_back().await;
    s.verify().await;
    if storage == Storage::LastingPair {
        if s.content("s").await != newest {
            s.machine.complain("the secondary has lost what only it had".into());
        }
        s.must(s.machine.array.delete_volume("s").await, "volume delete");
        s.add_volume("s", GroupNumber(2), s.size(), false).await;
        s.pair_up().await;
        s.equal().await;
    }
    s.expect(1, DiskState::Spare).await;
    s.replace(2, SLOW, storage.strategy()).await;
    s.must(s.machine.array.pause_replace(DiskNumber(2)).await, "pause");
    s.copying().await;
    s.scribble(10).await;
    s.flush().await;
    s.verify().await;
    s.must(s.machine.array.resume_replace(DiskNumber(2)).await, "resume");
    s.whole_again().await;
    s.verify().await;
}

pub(super) fn crash_while_giving_up(seed: u64, trace: Trace) {
    for (storage, (level, members, tolerance)) in
        STORAGES.into_iter().flat_map(|s| [LEVELS[1], LEVELS[2]].map(|level| (s, level)))
    {
        let mut stage = stage(seed, &trace, level, members);
        let disks = storage.disks(members, tolerance);
        let (kept, _) = redirect(&mut stage, storage, tolerance);
        withhold(&stage, disks.clone(), true);
        let (mut cut, mut refusals) = (0, 0);
        loop {
            cut += stage.rng.within(1..30);
            let ended = stage.run(giving_up(), Some(cut), |_| async {});
            stage.end(false);
            // What one start left half-way the next, without the word, takes as it was or as it is to be.
            match stage.try_start(degraded()) {
                Ok(()) => break,
                Err(why) if matches!(ended, RunEnd::Completed(_)) => {
                    stage.world.complain(format!("given up, and not for good: {why}"));
                }
                Err(why) if why.contains("holds the newest writes") => refusals += 1,
                Err(why) => stage.world.complain(format!("refused for another reason: {why}")),
            }
            if refusals == 3 {
                // Nothing was given up: if the disks are there after all, so is everything.
                withhold(&stage, disks.clone(), false);
                act(&mut stage, AssembleOptions::default(), |s| async move {
                    s.gave_nothing_up();
                    s.verify().await;
                });
                withhold(&stage, disks.clone(), true);
            }
        }
        if refusals < 3 {
            stage.world.complain(format!("only {refusals} crashes came before the commit"));
        }
        stage.world.oracle.borrow_mut().put_back("v1", kept);
        act(&mut stage, degraded(), |mut s| async move {
            s.verify().await;
            s.scribble(10).await;
            s.go_on().await;
            s.whole_and_sound().await;
        });
    }
}

pub(super) fn readable_is_kept(seed: u64, trace: Trace) {
    for (storage, (level, members, tolerance)) in
        STORAGES.into_iter().flat_map(|s| LEVELS.map(|level| (s, level)))
    {
        let mut stage = stage(seed, &trace, level, members);
        let first = *storage.disks(members, tolerance).start();
        redirect(&mut stage, storage, tolerance);
        act(&mut stage, giving_up(), |s| async move {
            s.gave_nothing_up();
            s.verify().await;
        });
        // It survives as many failures as home.
        withhold(&stage, first..=first + tolerance - usize::from(tolerance > 0), tolerance > 0);
        act(&mut stage, giving_up(), |mut s| async move {
            s.gave_nothing_up();
            s.verify().await;
            s.scribble(5).await;
            s.go_on().await;
            s.whole_and_sound().await;
        });
    }
}

/// Makes what tells where the blocks of a storage lie unreadable in every copy.
fn spoil(stage: &Stage, storage: Storage, members: usize, tolerance: usize) {
    for disk in storage.disks(members, tolerance) {
        let bay = stage.world.shelf.named(&format!("d{disk}")).expect("it is on the shelf");
        let data = Layout::for_size(bay.drive.size()).expect("a labelled disk").data;
        bay.suspect.set(true);
        if storage == Storage::WorkDisk {
            let shape = LogShape::of(data.len / BLOCK_SIZE).expect("a leg holds a log");
            for mark in shape.marks() {
                let at = data.offset + mark;
                bay.drive.faults_mut().spoil(at..at + BLOCK_SIZE);
            }
        } else {
            bay.drive.faults_mut().spoil(data.offset..data.offset + data.len);
        }
    }
}

pub(super) fn damaged_is_given_up(seed: u64, trace: Trace) {
    for storage in STORAGES {
        let (level, members, tolerance) = (Level::Raid5, 4, 1);
        let mut stage = stage(seed, &trace, level, members);
        let (kept, _) = redirect(&mut stage, storage, tolerance);
        spoil(&stage, storage, members, tolerance);
        start_without(&mut stage, storage, kept);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.verify().await;
            s.go_on().await;
            s.whole_again().await;
            s.scribble(5).await;
            s.verify().await;
            s.machine.audit().await;
            if storage == Storage::WorkDisk {
                s.must(s.machine.array.remove_work_disk(SET).await, "work-disk remove");
                s.bay(&leg(members, 0)).suspect.set(false);
            }
        });
    }
}

/// Two groups are shielded by two storages, and one of these is gone: the volume that it backed is put back, the other has its newest writes.
pub(super) fn only_what_is_gone(seed: u64, trace: Trace) {
    let mut stage = stage(seed, &trace, Level::Raid5, 3);
    act(&mut stage, AssembleOptions::default(), move |s| async move {
        let group = s.add_group(Level::Raid1, 2, 2 << 20).await;
        s.add_volume("v2", group, 512 * 1024, true).await;
        s.add_work_disk(2).await;
        s.add_work_volume(Level::Raid1, 2).await;
        let v2 = s.machine.connect("v2");
        v2.must(v2.write(0, 512 * 1024, false).await, "a write");
        v2.must(v2.flush().await, "a flush");
        s.write(0, s.size()).await;
    });
    let kept = stage.world.oracle.borrow().kept("v2");
    act(&mut stage, AssembleOptions::default(), move |s| async move {
        let array = &s.machine.array;
        s.stand_still(SLOW, Strategy::WorkDisk).await;
        let away = array.replace_shielded(OTHER, None, SLOW, Strategy::WorkVolume).await;
        s.must(away, "replace");
        s.must(array.pause_replace(OTHER).await, "pause");
        let copying = |s: &Script| {
            let state = s.machine.array.avoidance(GroupNumber(2)).map(|a| a.state);
            state == Some(AvoidanceState::Copying)
        };
        s.await_that("the other copy", copying).await;
        let v2 = s.machine.connect("v2");
        for at in AWAY.map(|block| block * BLOCK_SIZE) {
            s.write(at, BLOCK_SIZE).await;
            v2.must(v2.write(at, BLOCK_SIZE, false).await, "a write");
        }
        v2.must(v2.flush().await, "a flush");
        s.flush().await;
    });
    withhold(&stage, 10..=11, true);
    let why = stage.refused(degraded());
    if !why.contains("work volume 3 holds the newest writes of volume 2 of group 2") {
        stage.world.complain(format!("refused for another reason: {why}"));
    }
    stage.world.oracle.borrow_mut().put_back("v2", kept);
    act(&mut stage, giving_up(), move |mut s| async move {
        let given_up: Vec<_> = s.machine.array.report().problems;
        let given_up: Vec<_> =
            given_up.iter().filter(|p| p.kind == ProblemKind::WritesGivenUp).collect();
        if !matches!(&given_up[..], [one] if one.what.contains("volume 2 of group 2")) {
            s.machine.complain(format!("this was given up: {given_up:?}"));
        }
        let v2 = s.machine.connect("v2");
        s.verify().await;
        v2.must(v2.verify(512 * 1024).await, "a full read");
        s.scribble(5).await;
        s.go_on().await;
        s.must(s.machine.array.resume_replace(OTHER).await, "resume");
        s.whole_again().await;
        let whole = |s: &Script| s.machine.array.avoidance(GroupNumber(2)).is_none();
        s.await_that("the end of the other avoidance", whole).await;
        s.verify().await;
        v2.must(v2.verify(512 * 1024).await, "a full read");
        s.machine.audit().await;
    });
}
