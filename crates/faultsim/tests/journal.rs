//! What the journal and the checksums cost, counted: accesses and bytes of each mode for each kind of write, and what a start after a crash reads
//! and writes.
//!
//! Everything here is exact and the same on any machine. `docs/benchmarks.md` states the figures of the first two tests.

#![recursion_limit = "256"]

use std::cell::Cell;
use std::rc::Rc;

use forestall_engine::format::layout::Layout;
use forestall_engine::{
    AssembleOptions, CreateSpec, DiskNumber, GroupSpec, JournalMode, Level, VolumeSpec,
};
use forestall_faultsim::{
    Accesses, Lines, Script, Stage, Trace, stage_journaled, stage_of, stage_unchecked,
};

const KIB: u64 = 1024;

/// Tells data from the rest on every drive.
fn tell_data(script: &Script) {
    for bay in script.machine.world.shelf.all() {
        let data = Layout::for_size(bay.drive.size()).expect("a labelled disk").data;
        bay.drive.set_data(data.offset..data.end());
    }
}

/// Sums of all members.
fn sum(script: &Script) -> Accesses {
    let mut sum = Accesses::default();
    for bay in script.machine.world.shelf.all() {
        let one = bay.drive.accesses();
        sum.data_reads += one.data_reads;
        sum.data_writes += one.data_writes;
        sum.other_reads += one.other_reads;
        sum.other_writes += one.other_writes;
        sum.other_bytes += one.other_bytes;
        sum.flushes += one.flushes;
        sum.longest = sum.longest.max(one.longest);
    }
    sum
}

/// Reads, writes in place, journal writes, KiB written to the journal and flushes of one write of `len` bytes to a stripe that was written before.
fn cost(level: Level, members: usize, journal: JournalMode, len: u64) -> [u64; 5] {
    let trace = Trace::new(Lines::Off);
    let mut stage = stage_journaled(1, trace, (level, members, 0), 64 << 20, journal);
    let found = Rc::new(Cell::new([0; 5]));
    let told = Rc::clone(&found);
    stage.run(AssembleOptions::default(), None, move |machine| async move {
        let script = Script::new(&machine);
        tell_data(&script);
        let stripe = (members as u64 - if level == Level::Raid6 { 2 } else { 1 }) * 16 * KIB;
        script.write(0, stripe * 4).await;
        script.write(stripe, len).await;
        let before = sum(&script);
        script.write(stripe, len).await;
        let after = sum(&script);
        assert_eq!(after.other_reads, before.other_reads);
        told.set([
            after.data_reads - before.data_reads,
            after.data_writes - before.data_writes,
            after.other_writes - before.other_writes,
            (after.other_bytes - before.other_bytes) / KIB,
            after.flushes - before.flushes,
        ]);
        machine.stop().await;
    });
    found.get()
}

#[test]
fn j1_each_mode_costs_what_is_stated() {
    use JournalMode::{Full, Off, Partial};
    // 4 KiB: a header and a block on each member that the write concerns.
    assert_eq!(cost(Level::Raid5, 4, Off, 4 * KIB), [2, 2, 0, 0, 0]);
    assert_eq!(cost(Level::Raid5, 4, Partial, 4 * KIB), [2, 2, 2, 16, 2]);
    assert_eq!(cost(Level::Raid5, 4, Full, 4 * KIB), [2, 2, 2, 16, 2]);
    assert_eq!(cost(Level::Raid6, 6, Off, 4 * KIB), [3, 3, 0, 0, 0]);
    assert_eq!(cost(Level::Raid6, 6, Partial, 4 * KIB), [3, 3, 3, 24, 3]);
    // A full stripe of 16 KiB chunks: a header on each member; with its data only where that was asked for.
    assert_eq!(cost(Level::Raid5, 4, Off, 48 * KIB), [0, 4, 0, 0, 0]);
    assert_eq!(cost(Level::Raid5, 4, Partial, 48 * KIB), [0, 4, 4, 16, 4]);
    assert_eq!(cost(Level::Raid5, 4, Full, 48 * KIB), [0, 4, 4, 80, 4]);
    assert_eq!(cost(Level::Raid6, 6, Partial, 64 * KIB), [0, 6, 6, 24, 6]);
}

/// What `count` writes of 4 KiB and a flush cost beside the data: writes, their KiB, and flushes; then, after a restart, the reads beside the
/// data of the first read of 4 KiB and of another one after it.
fn cost_of_checksums(level: Level, members: usize, checksums: bool, count: u64) -> [u64; 5] {
    let trace = Trace::new(Lines::Off);
    let mut stage = match checksums {
        true => stage_of(1, trace, level, members, 0),
        false => stage_unchecked(1, trace, level, members, 0),
    };
    let found = Rc::new(Cell::new([0; 5]));
    let told = Rc::clone(&found);
    stage.run(AssembleOptions::default(), None, move |machine| async move {
        let script = Script::new(&machine);
        tell_data(&script);
        script.write(0, 512 * KIB).await;
        script.flush().await;
        script.write(0, 4 * KIB).await;
        script.flush().await;
        let before = sum(&script);
        for at in 0..count {
            script.write(at * 4 * KIB, 4 * KIB).await;
        }
        script.flush().await;
        let after = sum(&script);
        told.set([
            after.other_writes - before.other_writes,
            (after.other_bytes - before.other_bytes) / KIB,
            after.flushes - before.flushes,
            0,
            0,
        ]);
        machine.stop().await;
    });
    stage.end(true);
    let told = Rc::clone(&found);
    stage.run(AssembleOptions::default(), None, move |machine| async move {
        let script = Script::new(&machine);
        let mut counts = told.get();
        for (at, offset) in [0, 8 * KIB].into_iter().enumerate() {
            let before = sum(&script);
            let read = script.host.read(offset, 4 * KIB).await;
            script.host.must(read, "a read");
            counts[3 + at] = sum(&script).other_reads - before.other_reads;
        }
        told.set(counts);
        machine.stop().await;
    });
    found.get()
}

#[test]
fn k1_checksums_cost_what_is_stated() {
    // A page of 4 KiB on each disk that was written, with the next flush; a page of 4 KiB read where it was not in memory.
    assert_eq!(cost_of_checksums(Level::Raid0, 2, false, 1), [0, 0, 1, 0, 0]);
    assert_eq!(cost_of_checksums(Level::Raid0, 2, true, 1), [1, 4, 1, 1, 0]);
    assert_eq!(cost_of_checksums(Level::Raid1, 2, false, 1), [0, 0, 2, 0, 0]);
    assert_eq!(cost_of_checksums(Level::Raid1, 2, true, 1), [2, 8, 2, 1, 0]);
    assert_eq!(cost_of_checksums(Level::Raid5, 4, false, 1), [2, 16, 4, 0, 0]);
    assert_eq!(cost_of_checksums(Level::Raid5, 4, true, 1), [4, 24, 4, 1, 0]);
    // However many blocks of it were written since the last flush: a page holds the checksums of 4 MiB.
    assert_eq!(cost_of_checksums(Level::Raid1, 2, true, 4), [2, 8, 2, 1, 0]);
}

/// Crashes a loaded array of sparse 1 TiB disks and counts the accesses of the start that follows.
fn start_after_a_crash(level: Level, members: usize, longest: u64) -> Accesses {
    let trace = Trace::new(Lines::Off);
    let journal = JournalMode::Partial;
    let mut stage = Stage::new(2, trace, &vec![1 << 40; members]);
    let spec = CreateSpec { name: "sim".into(), allow_injection: false, group: None };
    stage.create(spec, move |machine| async move {
        let disks = (1..=members as u32).map(DiskNumber).collect();
        let spec = GroupSpec { level, disks, chunk: 64 << 10, journal, checksums: true };
        let (group, _) = machine.array.create_group(spec).await.expect("a group");
        // The oracle remembers every sector: so the volume is small, and the array around it large.
        let spec = VolumeSpec { name: "v1".into(), group, size: Some(1 << 28), number: None };
        machine.array.create_volume(spec).await.expect("a volume");
        let size = machine.array.report().volumes[0].size;
        machine.world.oracle.borrow_mut().create_volume("v1", size);
    });
    stage.run(AssembleOptions::default(), Some(40_000), move |machine| async move {
        Script::new(&machine).crowd(16, longest).await;
    });
    stage.end(false);
    let bays = stage.world.shelf.all();
    let before: Vec<Accesses> = bays.iter().map(|bay| bay.drive.accesses()).collect();
    let found = Rc::new(Cell::new(Accesses::default()));
    let told = Rc::clone(&found);
    stage.run(AssembleOptions::default(), None, move |machine| async move {
        let script = Script::new(&machine);
        assert!(machine.array.report().groups.iter().all(|group| group.dirty_regions == 0));
        let events = machine.array.events_after(0);
        let replayed = events.iter().find(|e| e.kind == "journal-replayed").expect("a replay");
        println!("{}", replayed.message);
        assert!(!replayed.message.contains("holds no write"), "{}", replayed.message);
        let mut sum = sum(&script);
        for before in before {
            sum.data_reads -= before.data_reads;
            sum.data_writes -= before.data_writes;
            sum.other_reads -= before.other_reads;
            sum.other_writes -= before.other_writes;
        }
        told.set(sum);
        machine.stop().await;
    });
    found.get()
}

#[test]
fn j1_a_start_after_a_crash_is_bounded_by_the_journal() {
    for (level, members, longest) in [
        (Level::Raid5, 4, 8 * KIB),
        (Level::Raid5, 8, 1024 * KIB),
        (Level::Raid6, 8, 16 * KIB),
        (Level::Raid6, 8, 1024 * KIB),
    ] {
        let cost = start_after_a_crash(level, members, longest);
        let all = cost.data_reads + cost.data_writes + cost.other_reads + cost.other_writes;
        println!("{level} of {members}: {all} accesses: {cost:?}");
        assert!(all <= 2000, "{level} of {members}: {all} accesses: {cost:?}");
        assert!(cost.longest <= 1 << 20, "{cost:?}");
    }
}
