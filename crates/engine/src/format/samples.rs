//! Sample records for the tests of the formats and of the quorum.

use super::label::Label;
use super::layout::Layout;
use crate::config::{
    AvoidanceEntry, AvoidanceState, BackupPlace, BackupTable, Configuration, DiskEntry, DiskRole,
    DropReason, Extent, FailedTest, GroupEntry, HealthEntry, HealthTable, HistoryEntry,
    JournalMode, Level, PairEntry, PairStatus, Retired, Service, ShieldedVolume, SlotEntry,
    SlotState, Strategy, VolumeEntry, WorkEntry,
};
use crate::health::{Mode, Policy};
use crate::ids::{DiskNumber, GroupNumber, Slot, Uuid, VolumeNumber};

/// The label of disk 7 of an array, on a disk of `size` bytes.
pub fn label(size: u64) -> Label {
    Label {
        array: Uuid([0xaa; 16]),
        disk: Uuid([0xbb; 16]),
        number: DiskNumber(7),
        name: "tank 1".into(),
        disk_size: size,
        created_ms: 1_700_000_000_000,
        layout: Layout::for_size(size).unwrap(),
        unknown_read_only: 0,
    }
}

/// A free disk in service.
pub fn disk(number: u32) -> DiskEntry {
    DiskEntry {
        number: DiskNumber(number),
        uuid: Uuid::from_random(number.into(), 1),
        data_len: 3 << 20,
        role: DiskRole::Free,
        service: Service::InService,
        path_hint: format!("/disks/{number}.img"),
        serial: String::new(),
    }
}

/// A configuration that uses every part of the data model.
pub fn configuration() -> Configuration {
    let mut disks: Vec<DiskEntry> = (1..=7).map(disk).collect();
    for disk in &mut disks[..4] {
        disk.role = DiskRole::Member;
    }
    disks[4].role = DiskRole::Spare;
    disks[4].serial = "WD-42".into();
    disks[5].role = DiskRole::Work;
    disks[6].role = DiskRole::Member;
    let missed =
        Service::Dropped { history: 11, generation: 3, reason: DropReason::Failed, at_ms: 5 };
    disks[1].service = missed;
    let slot = |number, state| SlotEntry { disk: DiskNumber(number), state, replacement: None };
    let mut slots = vec![slot(1, SlotState::InSync), slot(2, SlotState::Out)];
    slots.extend([slot(3, SlotState::Rebuilding), slot(4, SlotState::Catching)]);
    slots[0].replacement = Some(DiskNumber(5));
    let volume = |number, group, name: &str, extents: &[(u64, u64)]| VolumeEntry {
        number: VolumeNumber(number),
        name: name.into(),
        group: GroupNumber(group),
        size: 512,
        extents: extents.iter().map(|&(start, stripes)| Extent { start, stripes }).collect(),
        read_only: number == 2,
    };
    let entry =
        HealthEntry { counts: [1, 2, 3, 4, 5, 6, 7, 8], level: 900_000, ailing: true, held: true };
    Configuration {
        array: Uuid([0xaa; 16]),
        name: "tank 1".into(),
        generation: 9,
        history: [(11, 1), (0, 4), (12, 6)]
            .map(|(id, first_generation)| HistoryEntry { id, first_generation })
            .to_vec(),
        committed_at_ms: 1_700_000_000_001,
        uncounted: vec![(1..=6).map(DiskNumber).collect(), vec![DiskNumber(1)]],
        counted_generation: 3,
        allow_injection: true,
        disks,
        groups: vec![
            group(1, Level::Raid6, slots),
            group(2, Level::Raid0, vec![slot(7, SlotState::InSync)]),
        ],
        volumes: vec![
            volume(1, 1, "a", &[(0, 4), (8, 1)]),
            volume(2, 1, "größe", &[(4, 4)]),
            volume(3, 2, "b", &[(0, 1)]),
        ],
        health: HealthTable {
            policy: Policy { mode: Mode::Advise, shelter: true, ..Policy::default() },
            disks: [(DiskNumber(2), entry)].into(),
        },
        backups: backups(),
        retired: [(DiskNumber(6), (GroupNumber(1), Slot(2)))].into(),
        failed_tests: [(DiskNumber(6), failed_test())].into(),
    }
}

fn failed_test() -> FailedTest {
    let why = "a write at 1048576 timed out".into();
    FailedTest { group: GroupNumber(1), slot: Slot(2), why }
}

fn group(number: u32, level: Level, slots: Vec<SlotEntry>) -> GroupEntry {
    GroupEntry {
        number: GroupNumber(number),
        uuid: Uuid([0xcb + number as u8; 16]),
        level,
        chunk: 64 << 10,
        stripes: 48,
        intent_region: 256 << 10,
        unwritten_unit: 1,
        journal: if matches!(level, Level::Raid5 | Level::Raid6) {
            JournalMode::Full
        } else {
            JournalMode::Off
        },
        checksums: true,
        slots,
        clean: true,
    }
}

/// Group 1 is shielded by a work disk, then a work volume, then a pair.
fn backups() -> BackupTable {
    let (first, second) = (VolumeNumber(1), VolumeNumber(2));
    let places = [BackupPlace::WorkDisk(DiskNumber(600)), BackupPlace::WorkVolume(second)];
    let pair = PairEntry {
        id: Uuid([0xdd; 16]),
        primary: first,
        secondary: VolumeNumber(3),
        status: PairStatus::BackingUp,
        hold: true,
        reversed: false,
        temporary: true,
        away: false,
        bitmap: vec![Extent { start: 1, stripes: 2 }],
    };
    BackupTable {
        avoidances: vec![AvoidanceEntry {
            group: GroupNumber(1),
            slot: Slot(0),
            state: AvoidanceState::Copying,
            paused: true,
            asked: Strategy::WorkDisk,
            retiring: Some(Retired { disk: DiskNumber(6), slot: Slot(1) }),
            volumes: vec![ShieldedVolume {
                volume: first,
                chain: vec![places[0], places[1], BackupPlace::Pair(first)],
            }],
        }],
        work: vec![
            WorkEntry { place: places[0], legs: vec![DiskNumber(6)], serves: vec![1], log: 77 },
            WorkEntry { place: places[1], legs: Vec::new(), serves: vec![1], log: 78 },
        ],
        strategies: [(second, Strategy::Direct)].into(),
        suspected: vec![DiskNumber(5)],
        pairs: vec![pair],
        rates: [((GroupNumber(1), Slot(0)), 1 << 20)].into(),
        paused: [(GroupNumber(1), Slot(0)), (GroupNumber(1), Slot(1))].into(),
    }
}
