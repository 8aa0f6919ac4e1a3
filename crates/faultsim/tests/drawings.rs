//! The tables of the drawings, cell by cell: what `forestall show t1` ... `t7` must print in the situations that the drawings show.
//!
//! The array of the drawings: sparse disks 1 to 20 of 18 GB, spares 21 and 22, groups 1 to 5 and volumes 1 to 12 as in FIG. 2A, chunks of
//! 64 KiB, work disks 60 and 61 of two legs. Each drawing starts from a fresh array; the copy is paused, so that the shield stands still;
//! writes are whole blocks, distinct, each answered before the next. A cell is compared as text; an empty one is NULL.

#![recursion_limit = "256"]

use std::fmt::Display;

use forestall_engine::{
    AssembleOptions, Buf, CreateSpec, DiskNumber, DiskRole, GroupNumber, GroupSpec, JournalMode,
    Level, Strategy, VolumeNumber, VolumeSpec,
};
use forestall_faultsim::{Lines, Machine, Stage, Trace};

/// Size of every disk.
const DISK: u64 = 18_000_000_000 / 4096 * 4096;
/// Size of every volume.
const VOLUME: u64 = 3_000_000_000;
const BLOCK: u64 = 4096;

const R5: Level = Level::Raid5;
const R1: Level = Level::Raid1;
/// Groups as in FIG. 2A: level and volumes; group n has disks 4n-3 to 4n.
const GROUPS: [(Level, &[u32]); 5] =
    [(R5, &[1, 2, 3]), (R5, &[4, 5, 6]), (R1, &[7, 8, 9, 10]), (R1, &[11, 12]), (R5, &[])];

/// Plays `act` on a fresh array of the drawings.
fn on_the_array<F: Future<Output = ()> + 'static>(act: impl FnOnce(Machine) -> F + 'static) {
    let mut stage = Stage::new(1, Trace::new(Lines::Off), &[DISK; 20]);
    let spec = CreateSpec { name: "drawings".into(), allow_injection: false, group: None };
    stage.create(spec, |machine| async move {
        for (at, (level, volumes)) in GROUPS.iter().enumerate() {
            let first = at as u32 * 4 + 1;
            let disks = (first..first + 4).map(DiskNumber).collect();
            let spec = GroupSpec {
                level: *level,
                disks,
                chunk: 64 * 1024,
                journal: JournalMode::default(),
            };
            let (group, _) = machine.array.create_group(spec).await.expect("a group");
            for number in *volumes {
                let number = VolumeNumber(*number);
                let spec = VolumeSpec {
                    name: number.to_string(),
                    group,
                    size: Some(VOLUME),
                    number: Some(number),
                };
                machine.array.create_volume(spec).await.expect("a volume");
            }
        }
        for spare in 21..=22 {
            let bay = machine.world.shelf.add(DISK, 1);
            let added = machine.array.add_disk(bay.hand_over(&machine.runtime), DiskRole::Spare);
            assert_eq!(added.await.expect("a spare"), DiskNumber(spare));
        }
    });
    stage.run(AssembleOptions::default(), None, |machine| async move {
        act(machine.clone()).await;
        machine.stop().await;
    });
    stage.end(true);
}

/// A work disk of two legs for some groups.
async fn add_work_disk(machine: &Machine, set: u32, groups: &[u32]) {
    let leg = || machine.world.shelf.add(DISK, 1).hand_over(&machine.runtime);
    let groups = groups.iter().copied().map(GroupNumber).collect();
    let added = machine.array.add_work_disk(DiskNumber(set), vec![leg(), leg()], groups).await;
    added.expect("a work disk");
}

/// Work volumes, each with the volumes that it is for.
async fn add_work_volumes(machine: &Machine, volumes: &[(&str, &[&str])]) {
    for (name, serves) in volumes {
        let serves: Vec<String> = serves.iter().map(ToString::to_string).collect();
        machine.array.add_work_volume(name, &serves).await.expect("a work volume");
    }
}

/// Replaces a disk and pauses the copy; the group has so much to copy that it cannot be over before.
async fn replace_and_pause(machine: &Machine, disk: u32, volume: &str, strategy: Strategy) {
    const MUCH: usize = 4 << 20;
    let target = machine.array.open_volume(volume).expect("a volume");
    target.write(VOLUME / 2 / BLOCK * BLOCK, Buf::zeroed(MUCH), false).await.expect("a write");
    let (array, disk) = (&machine.array, DiskNumber(disk));
    array.replace_shielded(disk, None, 64 * 1024, strategy).await.expect("a replacement");
    array.pause_replace(disk).await.expect("a pause");
}

/// Writes one block at each offset of volume 1.
async fn write_blocks(machine: &Machine, offsets: &[u64]) {
    let target = machine.array.open_volume("1").expect("volume 1");
    for (at, offset) in offsets.iter().enumerate() {
        let mut block = Buf::zeroed(BLOCK as usize);
        block.bytes_mut().fill(at as u8 + 1);
        target.write(*offset, block, false).await.expect("a write");
    }
}

/// Offsets of the six writes of FIG. 15 and 16.
const SIX: [u64; 6] = [0, 4096, 81_920, 69_632, 86_016, 139_264];

fn list<T: Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "NULL".into();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn or_null<T: Display>(cell: Option<T>) -> String {
    cell.map_or_else(|| "NULL".into(), |cell| cell.to_string())
}

fn t1(machine: &Machine) -> Vec<[String; 4]> {
    let rows = machine.array.table_t1().into_iter();
    rows.map(|r| [r.group.to_string(), list(&r.volumes), list(&r.disks), r.level.to_string()])
        .collect()
}

fn t4(machine: &Machine) -> Vec<[String; 5]> {
    let rows = machine.array.table_t4(10).into_iter();
    rows.map(|r| {
        let (volume, primary) = (r.work_volume.to_string(), list(&r.primary_volumes));
        [volume, r.capacity, primary, or_null(r.terminal_address), r.differential_bitmap]
    })
    .collect()
}

fn t5(machine: &Machine) -> Vec<[String; 3]> {
    let rows = machine.array.table_t5().into_iter();
    rows.map(|r| [r.disk.to_string(), r.capacity, or_null(r.status)]).collect()
}

fn t6(machine: &Machine) -> Vec<[String; 5]> {
    let rows = machine.array.table_t6().into_iter();
    rows.map(|r| {
        let (disk, main) = (r.disk.to_string(), list(&r.main_disks));
        [disk, r.capacity, r.status, main, or_null(r.terminal_address)]
    })
    .collect()
}

fn t7(machine: &Machine) -> Vec<[String; 4]> {
    let rows = machine.array.table_t7().into_iter();
    rows.map(|r| {
        let main = (r.main_disk.to_string(), r.main_disk_address.to_string());
        [main.0, main.1, r.work_disk.to_string(), r.work_disk_address.to_string()]
    })
    .collect()
}

/// FIG. 2A.
const T1_AT_REST: [[&str; 4]; 5] = [
    ["1", "1, 2, 3", "1, 2, 3, 4", "RAID5"],
    ["2", "4, 5, 6", "5, 6, 7, 8", "RAID5"],
    ["3", "7, 8, 9, 10", "9, 10, 11, 12", "RAID1"],
    ["4", "11, 12", "13, 14, 15, 16", "RAID1"],
    ["5", "NULL", "17, 18, 19, 20", "RAID5"],
];

#[test]
fn drawings_fig_2a() {
    on_the_array(|machine| async move { assert_eq!(t1(&machine), T1_AT_REST) });
}

// FIG. 2B, 3A and 3B are about pairs: they follow here.

#[test]
fn drawings_fig_11a_and_11b() {
    on_the_array(|machine| async move {
        add_work_volumes(&machine, &[("10", &["1"]), ("11", &["2"]), ("12", &["3"])]).await;
        let unused = "0000000000...";
        assert_eq!(
            t4(&machine),
            [
                ["10", "3GB", "NULL", "NULL", unused],
                ["11", "3GB", "NULL", "NULL", unused],
                ["12", "3GB", "NULL", "NULL", unused],
            ],
            "FIG. 11A"
        );
        replace_and_pause(&machine, 1, "3", Strategy::WorkVolume).await;
        write_blocks(&machine, &[0, 40_960, 1 << 20]).await;
        assert_eq!(
            t4(&machine),
            [
                ["10", "3GB", "1", "3", "1110000000..."],
                ["11", "3GB", "2", "NULL", unused],
                ["12", "3GB", "3", "NULL", unused],
            ],
            "FIG. 11B"
        );
        assert_eq!(t1(&machine), T1_AT_REST, "no volume is added for work volumes");
        assert!(t5(&machine).iter().all(|row| row[2] == "NULL"), "T5 is of work disks alone");
    });
}

#[test]
fn drawings_fig_15_and_16() {
    on_the_array(|machine| async move {
        add_work_disk(&machine, 60, &[1]).await;
        add_work_disk(&machine, 61, &[5]).await;
        let unused = |set| [set, "18GB", "UNUSED", "NULL", "NULL"];
        assert_eq!(t6(&machine), [unused("60"), unused("61")], "FIG. 15B");
        replace_and_pause(&machine, 1, "3", Strategy::WorkDisk).await;
        write_blocks(&machine, &SIX).await;
        let expected: Vec<[String; 3]> = (1..=22)
            .map(|disk: u32| {
                let status = if disk <= 4 { "RENEWED DATA BEING BACKED UP" } else { "NULL" };
                [disk.to_string(), "18GB".into(), status.into()]
            })
            .collect();
        assert_eq!(t5(&machine), expected, "FIG. 15A");
        assert_eq!(
            t6(&machine),
            [["60", "18GB", "IN USE", "1, 2, 3, 4", "6"], unused("61")],
            "FIG. 15C"
        );
        assert_eq!(
            t7(&machine),
            [
                ["1", "1", "60", "1"],
                ["1", "2", "60", "2"],
                ["2", "5", "60", "3"],
                ["2", "2", "60", "4"],
                ["2", "6", "60", "5"],
                ["3", "3", "60", "6"],
            ],
            "FIG. 16"
        );
    });
}

#[test]
fn drawings_fig_20a() {
    on_the_array(|machine| async move {
        let shared: [(&str, &[&str]); 3] =
            [("10", &["1", "4"]), ("11", &["2", "5"]), ("12", &["3", "6"])];
        add_work_volumes(&machine, &shared).await;
        replace_and_pause(&machine, 1, "3", Strategy::WorkVolume).await;
        replace_and_pause(&machine, 5, "6", Strategy::WorkVolume).await;
        write_blocks(&machine, &[0, 40_960, 1 << 20]).await;
        assert_eq!(
            t4(&machine),
            [
                ["10", "3GB", "1, 4", "3", "1110000000..."],
                ["11", "3GB", "2, 5", "NULL", "0000000000..."],
                ["12", "3GB", "3, 6", "NULL", "0000000000..."],
            ]
        );
    });
}

#[test]
fn drawings_fig_20b() {
    on_the_array(|machine| async move {
        add_work_disk(&machine, 60, &[1, 2]).await;
        add_work_disk(&machine, 61, &[5]).await;
        replace_and_pause(&machine, 1, "3", Strategy::WorkDisk).await;
        replace_and_pause(&machine, 5, "6", Strategy::WorkDisk).await;
        write_blocks(&machine, &SIX).await;
        assert_eq!(
            t6(&machine),
            [
                ["60", "18GB", "IN USE", "1, 2, 3, 4, 5, 6, 7, 8", "6"],
                ["61", "18GB", "UNUSED", "NULL", "NULL"],
            ]
        );
    });
}

#[test]
fn drawings_after_write_back_only_the_disk_of_the_slot_is_another() {
    on_the_array(|machine| async move {
        add_work_disk(&machine, 60, &[1]).await;
        replace_and_pause(&machine, 1, "3", Strategy::WorkDisk).await;
        write_blocks(&machine, &SIX).await;
        let array = &machine.array;
        array.cancel_replace(DiskNumber(1)).await.expect("the slow copy is given up");
        while array.avoidance(GroupNumber(1)).is_some() {
            machine.pause(10_000_000).await;
        }
        array
            .replace_shielded(DiskNumber(1), Some(DiskNumber(22)), 0, Strategy::WorkDisk)
            .await
            .expect("a fast one");
        while array.avoidance(GroupNumber(1)).is_some() {
            machine.pause(10_000_000).await;
        }
        let mut expected = T1_AT_REST;
        expected[0][2] = "22, 2, 3, 4";
        assert_eq!(t1(&machine), expected);
        assert_eq!(t6(&machine), [["60", "18GB", "UNUSED", "NULL", "NULL"]]);
        assert!(t7(&machine).is_empty());
        let target = array.open_volume("1").expect("volume 1");
        for (at, offset) in SIX.iter().enumerate() {
            let bufs = target.read(*offset, BLOCK).await.expect("a read");
            assert!(bufs.iter().flat_map(|b| b.iter()).all(|byte| *byte == at as u8 + 1));
        }
    });
}
