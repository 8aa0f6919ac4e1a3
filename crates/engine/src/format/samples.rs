//! Sample records for the tests of the formats and of the quorum.

use super::label::Label;
use super::layout::Layout;
use crate::config::{
    AvoidanceEntry, AvoidanceState, BackupPlace, BackupTable, Configuration, DiskEntry, DiskRole,
    DropReason, Extent, GroupEntry, HealthEntry, HealthTable, HistoryEntry, Level, Service,
    ShieldedVolume, SlotEntry, SlotState, Strategy, VolumeEntry, WorkEntry,
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
    let mut disks: Vec<DiskEntry> = (1..=6).map(disk).collect();
    for disk in &mut disks[..4] {
        disk.role = DiskRole::Member;
    }
    disks[4].role = DiskRole::Spare;
    disks[4].serial = "WD-42".into();
    disks[5].role = DiskRole::Work;
    let missed =
        Service::Dropped { history: 11, generation: 3, reason: DropReason::Failed, at_ms: 5 };
    disks[1].service = missed;
    let slot = |number, state| SlotEntry { disk: DiskNumber(number), state, replacement: None };
    let mut slots = vec![slot(1, SlotState::InSync), slot(2, SlotState::Out)];
    slots.extend([slot(3, SlotState::Rebuilding), slot(4, SlotState::Catching)]);
    slots[0].replacement = Some(DiskNumber(5));
    let volume = |number, name: &str, extents: &[(u64, u64)]| VolumeEntry {
        number: VolumeNumber(number),
        name: name.into(),
        group: GroupNumber(1),
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
        groups: vec![GroupEntry {
            number: GroupNumber(1),
            uuid: Uuid([0xcc; 16]),
            level: Level::Raid6,
            chunk: 64 << 10,
            stripes: 48,
            intent_region: 256 << 10,
            unwritten_unit: 1,
            slots,
            clean: true,
        }],
        volumes: vec![volume(1, "a", &[(0, 4), (8, 1)]), volume(2, "größe", &[(4, 4)])],
        health: HealthTable {
            policy: Policy { mode: Mode::Advise, ..Policy::default() },
            disks: [(DiskNumber(2), entry)].into(),
        },
        backups: backups(),
    }
}

/// Group 1 is shielded by a work disk and then a work volume.
fn backups() -> BackupTable {
    let places = [BackupPlace::WorkDisk(DiskNumber(600)), BackupPlace::WorkVolume(VolumeNumber(2))];
    BackupTable {
        avoidances: vec![AvoidanceEntry {
            group: GroupNumber(1),
            slot: Slot(0),
            state: AvoidanceState::Copying,
            paused: true,
            asked: Strategy::WorkDisk,
            retiring: Some(DiskNumber(6)),
            volumes: vec![ShieldedVolume { volume: VolumeNumber(1), chain: places.to_vec() }],
        }],
        work: vec![
            WorkEntry { place: places[0], legs: vec![DiskNumber(6)], serves: vec![1], log: 77 },
            WorkEntry { place: places[1], legs: Vec::new(), serves: vec![1], log: 78 },
        ],
        strategies: [(VolumeNumber(2), Strategy::Direct)].into(),
        suspected: vec![DiskNumber(5)],
    }
}
