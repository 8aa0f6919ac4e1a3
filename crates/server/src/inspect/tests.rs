//! A disk made by hand, looked at whole and with each part damaged.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

use forestall_engine::{BackupTable, DiskEntry, HealthTable, HistoryEntry, Uuid};
use tempfile::NamedTempFile;

use super::*;

const SIZE: u64 = 4 << 20;

fn configuration(generation: u64) -> Configuration {
    Configuration {
        array: Uuid([0xaa; 16]),
        name: "vault".into(),
        generation,
        history: vec![HistoryEntry { id: 5, first_generation: 1 }],
        committed_at_ms: 1_700_000_000_000,
        uncounted: Vec::new(),
        counted_generation: generation - 1,
        allow_injection: false,
        disks: vec![DiskEntry {
            number: DiskNumber(1),
            uuid: Uuid([0xbb; 16]),
            data_len: 3 << 20,
            role: DiskRole::Free,
            service: Service::InService,
            path_hint: "/dev/sda".into(),
            serial: "ZX81".into(),
        }],
        groups: Vec::new(),
        volumes: Vec::new(),
        health: HealthTable::default(),
        backups: BackupTable::default(),
        retired: BTreeMap::new(),
        failed_tests: BTreeMap::new(),
    }
}

/// A labelled disk with generations 1 and 2.
fn disk() -> (NamedTempFile, Layout) {
    let layout = Layout::for_size(SIZE).expect("large enough");
    let label = Label {
        array: Uuid([0xaa; 16]),
        disk: Uuid([0xbb; 16]),
        number: DiskNumber(1),
        name: "vault".into(),
        disk_size: SIZE,
        created_ms: 1_700_000_000_000,
        layout,
        unknown_read_only: 0,
    };
    let file = NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(SIZE).expect("sparse");
    let put =
        |offset: u64, bytes: &[u8]| file.as_file().write_all_at(bytes, offset).expect("written");
    put(layout.label.offset, &label.encode());
    put(layout.label_copy.offset, &label.encode());
    for (region, generation) in layout.config.into_iter().zip([1, 2]) {
        put(region.offset, &config::encode(&configuration(generation), region.len).expect("fits"));
    }
    (file, layout)
}

fn look(file: &NamedTempFile) -> Inspection {
    inspect(file.path().to_str().expect("plain name")).expect("readable")
}

fn flip(file: &NamedTempFile, offset: u64) {
    let mut byte = [0];
    file.as_file().read_exact_at(&mut byte, offset).expect("inside");
    file.as_file().write_all_at(&[byte[0] ^ 0x10], offset).expect("inside");
}

#[test]
fn a_whole_disk_tells_everything_and_no_damage() {
    let (file, layout) = disk();
    let found = look(&file);
    assert_eq!(found.damage, Vec::<String>::new());
    assert_eq!(found.labels, ["valid", "valid"]);
    let label = found.label.expect("a label");
    assert_eq!(
        (label.name.as_str(), label.number, label.disk_size),
        ("vault", DiskNumber(1), SIZE)
    );
    let generations: Vec<u64> = found
        .configurations
        .iter()
        .filter_map(|s| s.configuration.as_ref())
        .map(|c| c.generation)
        .collect();
    assert_eq!(generations, [1, 2]);
    assert_eq!(found.owner, "nobody");
    let data = found.regions.iter().find(|r| r.name == "data").expect("a data region");
    assert_eq!((data.offset, data.len), (layout.data.offset, layout.data.len));
}

#[test]
fn each_damage_is_named_and_the_other_copy_serves() {
    let (file, layout) = disk();
    flip(&file, layout.label.offset + 100);
    let found = look(&file);
    assert_eq!(found.labels, ["the label is damaged", "valid"]);
    assert_eq!(found.damage, ["the first label cannot be used; its copy serves"]);
    assert!(found.label.is_some());

    flip(&file, layout.label_copy.offset + 200);
    assert!(look(&file).label.is_none());

    let (file, layout) = disk();
    flip(&file, layout.config[1].offset + 70);
    let found = look(&file);
    assert_eq!(found.damage, ["configuration slot 1: the configuration slot is torn or damaged"]);
    assert_eq!(found.configurations[0].configuration.as_ref().map(|c| c.generation), Some(1));
}

#[test]
fn a_disk_that_shrank_is_named() {
    let (file, layout) = disk();
    file.as_file().set_len(layout.data.offset + BLOCK_SIZE).expect("cut");
    let found = look(&file);
    assert!(found.damage.iter().any(|d| d.contains("must not be used")), "{:?}", found.damage);
    assert_eq!(found.labels[1], "no Forestall label");
}

#[test]
fn a_foreign_or_tiny_file_has_no_label() {
    for len in [0, 100, SIZE] {
        let file = NamedTempFile::new().expect("a temporary file");
        file.as_file().set_len(len).expect("set");
        let found = look(&file);
        assert!(found.label.is_none() && found.regions.is_empty());
        assert_eq!(found.labels, ["no Forestall label", "no Forestall label"]);
    }
}
