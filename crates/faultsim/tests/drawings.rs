//! The tables of the drawings, cell by cell: what `forestall show t1` ... `t7` must print in the situations that the drawings show.
//!
//! The array of the drawings: sparse disks 1 to 20 of 18 GB, spares 21 and 22, groups 1 to 5 and volumes 1 to 12 as in FIG. 2A, chunks of
//! 64 KiB, work disks 60 and 61 of two legs. Each drawing starts from a fresh array; the copy is paused, so that the shield stands still;
//! writes are whole blocks, distinct, each answered before the next. A table is compared as
//! text with its headings, as it is shown, and what JSON gives of it with that text; an empty cell is NULL.

#![recursion_limit = "256"]

use forestall_engine::{
    AssembleOptions, AvoidanceState, Buf, CreateSpec, DiskNumber, DiskRole, GroupNumber, GroupSpec,
    JournalMode, Level, PairStatus, Strategy, TableRow, VolumeNumber, VolumeSpec,
};
use forestall_faultsim::{Lines, Machine, Stage, Trace};
use serde_json::Value;

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
                checksums: true,
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

/// Bytes that a bit of T2 stands for.
const REGION: u64 = 1 << 20;

/// Writes one block in the middle of each region of a volume; regions count from 1.
async fn write_regions(machine: &Machine, volume: &str, regions: &[u64]) {
    let target = machine.array.open_volume(volume).expect("a volume");
    for region in regions {
        let mut block = Buf::zeroed(BLOCK as usize);
        block.bytes_mut().fill(*region as u8);
        target.write((region - 1) * REGION + REGION / 2, block, false).await.expect("a write");
    }
}

/// Reads what [`write_regions`] wrote.
async fn verify_regions(machine: &Machine, volume: &str, regions: &[u64]) {
    let target = machine.array.open_volume(volume).expect("a volume");
    for region in regions {
        let bufs = target.read((region - 1) * REGION + REGION / 2, BLOCK).await.expect("a read");
        assert!(bufs.iter().flat_map(|b| b.iter()).all(|byte| u64::from(*byte) == *region));
    }
}

/// Waits until a group's avoidance is as it should be.
async fn avoiding(machine: &Machine, group: u32, state: Option<AvoidanceState>) {
    for _ in 0..1_000_000 {
        if machine.array.avoidance(GroupNumber(group)).map(|a| a.state) == state {
            return;
        }
        machine.pause(10_000_000).await;
    }
    panic!("group {group} never came to {state:?}");
}

/// A table as it is shown: the headings, then the rows. What `--json` gives, under `keys`, must be the same, cell by cell.
fn shown<R: TableRow>(rows: &[R], keys: &[&str]) -> Vec<Vec<String>> {
    let mut table = vec![R::headings()];
    assert_eq!(table[0].len(), keys.len(), "a key for each heading");
    for row in rows {
        let cells = row.cells();
        let Ok(Value::Object(fields)) = serde_json::to_value(row) else {
            panic!("a row is an object")
        };
        // How many bits a bitmap has in all is told beside it: JSON has no dots for what is not shown.
        let beside = usize::from(fields.contains_key("bits"));
        assert_eq!(fields.len(), keys.len() + beside, "a field for each cell: {fields:?}");
        let told = keys.iter().map(|key| match (*key, &fields[*key]) {
            ("differential_bitmap", bits) => in_json(key, bits) + "...",
            (_, value) => in_json(key, value),
        });
        let told: Vec<String> = told.collect();
        assert_eq!(told, cells, "the same in JSON");
        table.push(cells);
    }
    table
}

/// A cell out of its JSON: a list, a number, a text, or nothing.
fn in_json(key: &str, value: &Value) -> String {
    match value {
        Value::Null => "NULL".into(),
        Value::Array(items) if items.is_empty() => "NULL".into(),
        Value::Array(items) => {
            items.iter().map(|item| in_json(key, item)).collect::<Vec<_>>().join(", ")
        }
        Value::Number(number) => number.to_string(),
        Value::String(level) if key == "level" => format!("RAID{level}"),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Object(_) => panic!("{key} is {value}"),
    }
}

fn t1(machine: &Machine) -> Vec<Vec<String>> {
    shown(&machine.array.table_t1(), &["group", "volumes", "disks", "level"])
}

fn t2(machine: &Machine) -> Vec<Vec<String>> {
    let keys = ["primary_volume", "secondary_volume", "pairing_status", "differential_bitmap"];
    shown(&machine.array.table_t2(12), &keys)
}

fn t4(machine: &Machine) -> Vec<Vec<String>> {
    let keys =
        ["work_volume", "capacity", "primary_volumes", "terminal_address", "differential_bitmap"];
    shown(&machine.array.table_t4(10), &keys)
}

fn t5(machine: &Machine) -> Vec<Vec<String>> {
    shown(&machine.array.table_t5(), &["disk", "capacity", "status"])
}

fn t6(machine: &Machine) -> Vec<Vec<String>> {
    shown(
        &machine.array.table_t6(),
        &["disk", "capacity", "status", "main_disks", "terminal_address"],
    )
}

fn t7(machine: &Machine) -> Vec<Vec<String>> {
    shown(
        &machine.array.table_t7(),
        &["main_disk", "main_disk_address", "work_disk", "work_disk_address"],
    )
}

const T1: [&str; 4] = ["GROUP#", "VOLUME#", "DISK#", "RAID LEVEL"];
const T2: [&str; 4] =
    ["PRIMARY VOLUME#", "SECONDARY VOLUME#", "PAIRING STATUS", "DIFFERENTIAL BITMAP"];
const T4: [&str; 5] =
    ["WORK VOLUME#", "CAPACITY", "PRIMARY VOLUME#", "TERMINAL ADDRESS", "DIFFERENTIAL BITMAP"];
const T5: [&str; 3] = ["DISK#", "CAPACITY", "STATUS"];
const T6: [&str; 5] = ["DISK#", "CAPACITY", "STATUS", "MAIN DISK#", "TERMINAL ADDRESS"];
const T7: [&str; 4] = ["MAIN DISK#", "MAIN DISK ADDRESS", "WORK DISK#", "WORK DISK ADDRESS"];

/// FIG. 2A.
const FIG_2A: [[&str; 4]; 6] = [
    T1,
    ["1", "1, 2, 3", "1, 2, 3, 4", "RAID5"],
    ["2", "4, 5, 6", "5, 6, 7, 8", "RAID5"],
    ["3", "7, 8, 9, 10", "9, 10, 11, 12", "RAID1"],
    ["4", "11, 12", "13, 14, 15, 16", "RAID1"],
    ["5", "NULL", "17, 18, 19, 20", "RAID5"],
];

#[test]
fn drawings_fig_2a() {
    on_the_array(|machine| async move { assert_eq!(t1(&machine), FIG_2A) });
}

/// FIG. 3A.
const FIG_3A: [[&str; 4]; 3] =
    [T2, ["4", "7", "DUPLEX", "010000100000..."], ["5", "8", "DUPLEX", "100000010000..."]];

#[test]
fn drawings_fig_2a_to_2b_and_3a_to_3b() {
    on_the_array(|machine| async move {
        let array = &machine.array;
        for (primary, secondary) in [("4", "7"), ("5", "8")] {
            array.create_pair(primary, secondary).await.expect("a pair");
        }
        while array.pairs().iter().any(|pair| pair.status != PairStatus::Duplex) {
            machine.pause(10_000_000).await;
        }
        for primary in ["4", "5"] {
            array.hold_pair(primary, true).await.expect("a pair that is held");
        }
        write_regions(&machine, "4", &[2, 7]).await;
        write_regions(&machine, "5", &[1, 8]).await;
        assert_eq!(t1(&machine), FIG_2A, "FIG. 2A");
        assert_eq!(t2(&machine), FIG_3A, "FIG. 3A");

        replace_and_pause(&machine, 1, "3", Strategy::Pair).await;
        avoiding(&machine, 1, Some(AvoidanceState::Copying)).await;
        let mut fig_2b = FIG_2A;
        fig_2b[5][1] = "13, 14, 15";
        assert_eq!(t1(&machine), fig_2b, "FIG. 2B");
        let (first, second) = ([1, 2, 7, 11, 12], [1, 6]);
        write_regions(&machine, "1", &first).await;
        write_regions(&machine, "2", &second).await;
        let backed = "UPDATE DATA BEING BACKED UP";
        let [headings, four, five] = FIG_3A;
        assert_eq!(
            t2(&machine),
            [
                headings,
                four,
                five,
                ["1", "13", backed, "110000100011..."],
                ["2", "14", backed, "100001000000..."],
                ["3", "15", backed, "000000000000..."],
            ],
            "FIG. 3B"
        );
        assert_eq!(t1(&machine), fig_2b, "FIG. 2B");

        array.resume_replace(DiskNumber(1)).await.expect("the copy goes on");
        avoiding(&machine, 1, None).await;
        let mut after = FIG_2A;
        after[1][2] = "21, 2, 3, 4";
        assert_eq!(t1(&machine), after, "FIG. 2A but for the slot's new disk");
        assert_eq!(t2(&machine), FIG_3A, "the pairs made for the avoidance are gone");
        verify_regions(&machine, "1", &first).await;
        verify_regions(&machine, "2", &second).await;
    });
}

#[test]
fn drawings_fig_11a_and_11b() {
    on_the_array(|machine| async move {
        add_work_volumes(&machine, &[("10", &["1"]), ("11", &["2"]), ("12", &["3"])]).await;
        let unused = "0000000000...";
        assert_eq!(
            t4(&machine),
            [
                T4,
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
                T4,
                ["10", "3GB", "1", "3", "1110000000..."],
                ["11", "3GB", "2", "NULL", unused],
                ["12", "3GB", "3", "NULL", unused],
            ],
            "FIG. 11B"
        );
        assert_eq!(t1(&machine), FIG_2A, "no volume is added for work volumes");
        assert!(t5(&machine)[1..].iter().all(|row| row[2] == "NULL"), "T5 is of work disks alone");
    });
}

#[test]
fn drawings_fig_15_and_16() {
    on_the_array(|machine| async move {
        add_work_disk(&machine, 60, &[1]).await;
        add_work_disk(&machine, 61, &[5]).await;
        let unused = |set| [set, "18GB", "UNUSED", "NULL", "NULL"];
        assert_eq!(t6(&machine), [T6, unused("60"), unused("61")], "FIG. 15B");
        replace_and_pause(&machine, 1, "3", Strategy::WorkDisk).await;
        write_blocks(&machine, &SIX).await;
        let mut expected = vec![T5.map(String::from)];
        expected.extend((1..=22).map(|disk: u32| {
            let status = if disk <= 4 { "RENEWED DATA BEING BACKED UP" } else { "NULL" };
            [disk.to_string(), "18GB".into(), status.into()]
        }));
        assert_eq!(t5(&machine), expected, "FIG. 15A");
        assert_eq!(
            t6(&machine),
            [T6, ["60", "18GB", "IN USE", "1, 2, 3, 4", "6"], unused("61")],
            "FIG. 15C"
        );
        assert_eq!(
            t7(&machine),
            [
                T7,
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
                T4,
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
                T6,
                ["60", "18GB", "IN USE", "1, 2, 3, 4, 5, 6, 7, 8", "6"],
                ["61", "18GB", "UNUSED", "NULL", "NULL"],
            ]
        );
    });
}

/// With `auto` every kind of storage stands in a volume's chain: only where its writes go, or lie, is in use.
#[test]
fn what_is_only_kept_ready_is_not_in_use() {
    on_the_array(|machine| async move {
        let array = &machine.array;
        add_work_volumes(&machine, &[("10", &["1"])]).await;
        add_work_disk(&machine, 60, &[1]).await;
        let (no_bits, kept) = ("0000000000...", ["60", "18GB", "UNUSED", "NULL", "NULL"]);
        let no_disk = |machine: &Machine| t5(machine)[1..].iter().all(|row| row[2] == "NULL");
        replace_and_pause(&machine, 1, "3", Strategy::Auto).await;
        avoiding(&machine, 1, Some(AvoidanceState::Copying)).await;
        write_blocks(&machine, &[0, 40_960]).await;
        assert_eq!(t2(&machine)[1], ["1", "13", "UPDATE DATA BEING BACKED UP", "100000000000..."]);
        assert_eq!(t4(&machine), [T4, ["10", "3GB", "NULL", "NULL", no_bits]]);
        assert_eq!(t6(&machine), [T6, kept]);
        assert!(no_disk(&machine));

        // The secondaries' group can lose nothing more: writes go to the next in the chain, and what lies on secondaries goes home.
        array.remove_disk(DiskNumber(22)).await.expect("no spare is left");
        array.fail_disk(DiskNumber(17)).await.expect("a disk is out");
        write_blocks(&machine, &[1 << 20]).await;
        assert_eq!(t4(&machine), [T4, ["10", "3GB", "1", "1", "1000000000..."]]);
        assert_eq!(t6(&machine), [T6, kept]);
        assert!(no_disk(&machine));
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
        avoiding(&machine, 1, None).await;
        array
            .replace_shielded(DiskNumber(1), Some(DiskNumber(22)), 0, Strategy::WorkDisk)
            .await
            .expect("a fast one");
        avoiding(&machine, 1, None).await;
        let mut expected = FIG_2A;
        expected[1][2] = "22, 2, 3, 4";
        assert_eq!(t1(&machine), expected);
        assert_eq!(t6(&machine), [T6, ["60", "18GB", "UNUSED", "NULL", "NULL"]]);
        assert_eq!(t7(&machine), [T7], "no row");
        let target = array.open_volume("1").expect("volume 1");
        for (at, offset) in SIX.iter().enumerate() {
            let bufs = target.read(*offset, BLOCK).await.expect("a read");
            assert!(bufs.iter().flat_map(|b| b.iter()).all(|byte| *byte == at as u8 + 1));
        }
    });
}
