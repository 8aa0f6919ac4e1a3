//! What a pair costs: the disk accesses of a host's write, before it is answered and behind the host's back.
//!
//! Judges the table in `docs/benchmarks.md`. Owns one array, a RAID5 of three disks whose volume is followed by one on a RAID1 of two; every stripe
//! and every page of the bitmap was written before, so that nothing is counted but what a write costs from day to day.
#![recursion_limit = "256"]

use std::ops::Sub;

use forestall_engine::{
    AccessCounts, AssembleOptions, DiskNumber, DiskRole, GroupNumber, GroupSpec, JournalMode,
    Level, PairStatus, VolumeSpec,
};
use forestall_faultsim::{Lines, Machine, Script, Trace, stage_journaled};

const BLOCK: u64 = 4096;
/// Disks of the primary's group; the secondary's are the next two.
const HOME: usize = 3;

/// Reads and writes of data, and flushes, of all disks of a group together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cost {
    reads: u64,
    writes: u64,
    flushes: u64,
}

impl Cost {
    const NONE: Self = Self { reads: 0, writes: 0, flushes: 0 };

    const fn of(reads: u64, writes: u64, flushes: u64) -> Self {
        Self { reads, writes, flushes }
    }

    fn sum(accesses: &[AccessCounts]) -> Self {
        let sum = |of: fn(&AccessCounts) -> u64| accesses.iter().map(of).sum();
        Self::of(sum(|a| a.reads), sum(|a| a.writes), sum(|a| a.flushes))
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self::of(self.reads - other.reads, self.writes - other.writes, self.flushes - other.flushes)
    }
}

/// A block alone on RAID5 of three: the other data block is read; data and parity are written.
const ALONE: Cost = Cost::of(1, 2, 0);
/// A page of the bitmap written to both disks of the secondary's group, and flushed.
const NOTED: Cost = Cost::of(0, 2, 2);
/// The copy: the block is read, written to both disks, everything flushed; then the page without the bit, flushed too.
const BEHIND: [Cost; 2] = [Cost::of(1, 0, 2), Cost::of(0, 4, 4)];

/// What the primary's group and the secondary's did so far.
fn costs(machine: &Machine) -> [Cost; 2] {
    let accesses: Vec<_> = machine.array.report().disks.iter().map(|d| d.accesses).collect();
    [Cost::sum(&accesses[..HOME]), Cost::sum(&accesses[HOME..])]
}

/// What was done since `before`.
fn since(machine: &Machine, before: [Cost; 2]) -> [Cost; 2] {
    let now = costs(machine);
    [now[0] - before[0], now[1] - before[1]]
}

/// What a write of one block costs until it is answered.
async fn write(s: &Script, block: u64) -> [Cost; 2] {
    let before = costs(&s.machine);
    s.write(block * BLOCK, BLOCK).await;
    since(&s.machine, before)
}

async fn equal(machine: &Machine) {
    let is_equal = || {
        let pair = machine.array.pairs().remove(0);
        pair.status == PairStatus::Duplex && pair.differing == 0
    };
    while !is_equal() {
        machine.pause(1_000_000).await;
    }
    // The bits are clear; that they are on disk shows a moment later.
    machine.pause(5_000_000).await;
}

/// A pair of "v1" and a volume on a mirror of its own, equal, with every bit once set.
async fn pair_up(s: &Script, size: u64) {
    let array = &s.machine.array;
    for _ in 0..2 {
        let bay = s.machine.world.shelf.add(8 << 20, 1);
        let added = array.add_disk(bay.hand_over(&s.machine.runtime), DiskRole::Free).await;
        s.must(added, "disk add");
    }
    let disks = [4, 5].map(DiskNumber).to_vec();
    let spec = GroupSpec {
        level: Level::Raid1,
        disks,
        chunk: 16 * 1024,
        journal: JournalMode::Off,
        checksums: true,
    };
    s.must(array.create_group(spec).await, "group create");
    let group = GroupNumber(2);
    let spec = VolumeSpec { name: "s".into(), group, size: Some(size), number: None };
    s.must(array.create_volume(spec).await, "volume create");
    s.write(0, size).await;
    s.must(array.create_pair("v1", "s").await, "pair create");
    equal(&s.machine).await;
    s.must(array.split_pair("v1").await, "pair split");
    // Both places of the bitmap's page were written when its bit was set and cleared.
    write(s, 0).await;
    s.must(array.resync_pair("v1").await, "pair resync");
    equal(&s.machine).await;
}

#[test]
fn a_write_to_a_volume_of_a_pair_costs_one_noting_and_a_copy_behind() {
    let mut stage = stage_journaled(
        1,
        Trace::new(Lines::Off),
        (Level::Raid5, HOME, 0),
        2 << 20,
        // What the journal adds is counted by itself.
        JournalMode::Off,
    );
    stage.run(AssembleOptions::default(), None, |machine| async move {
        let s = Script::new(&machine);
        let size = machine.array.volumes()[0].size;
        pair_up(&s, size).await;
        let array = &machine.array;

        // Intent bits of both groups are set by a write before, and stay so for a while.
        write(&s, 1).await;
        equal(&machine).await;
        assert_eq!(write(&s, 2).await, [ALONE, NOTED], "DUPLEX, until the answer");
        let before = costs(&machine);
        equal(&machine).await;
        assert_eq!(since(&machine, before), BEHIND, "DUPLEX, behind the host's back");

        s.must(array.split_pair("v1").await, "pair split");
        assert_eq!(write(&s, 3).await, [ALONE, NOTED], "SPLIT, a block that was equal");
        assert_eq!(write(&s, 3).await, [ALONE, Cost::NONE], "SPLIT, a block that differs");
        let before = costs(&machine);
        machine.pause(100_000_000).await;
        assert_eq!(since(&machine, before), [Cost::NONE; 2], "SPLIT, nothing is copied");
        s.must(array.delete_pair("v1").await, "pair delete");
        assert_eq!(write(&s, 3).await, [ALONE, Cost::NONE], "no pair");
        machine.stop().await;
    });
    stage.end(true);
}
