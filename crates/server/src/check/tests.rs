//! Arrays on files, whole and with every kind of damage: told as it is, never written to, never a panic.

use std::os::unix::fs::FileExt;
use std::path::Path;

use forestall_engine::format::label::Label;
use forestall_engine::format::layout::Region;
use forestall_engine::{BLOCK_SIZE, CreateGroup, CreateSpec, JournalMode, Level};

use super::*;
use crate::open::IoChoice;
use crate::repair;

const SIZE: u64 = 4 << 20;

fn array(dir: &Path, level: Level, count: usize) -> Vec<String> {
    let path = |n: usize| dir.join(format!("d{n}")).display().to_string();
    let paths: Vec<String> = (1..=count).map(path).collect();
    let group = CreateGroup {
        level,
        chunk: 4096,
        journal: JournalMode::default(),
        checksums: true,
        spares: 0,
        volume: Some("v".into()),
    };
    let spec = CreateSpec { name: "vault".into(), allow_injection: false, group: Some(group) };
    open::create(spec, &paths, Some(SIZE), IoChoice::Pread, false).expect("an array");
    paths
}

fn images(paths: &[String]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

fn layout(path: &str) -> forestall_engine::format::layout::Layout {
    let bytes = std::fs::read(path).expect("readable");
    Label::decode(&bytes[..BLOCK_SIZE as usize]).expect("a label").layout
}

fn damage(path: &str, at: Region) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("the disk");
    file.write_all_at(&vec![0xa5; at.len as usize], at.offset).expect("inside");
}

/// Looks with the data; the disks must stay as they are.
fn look_at(paths: &[String]) -> CheckReport {
    let before = images(paths);
    let report = check(paths, &[], true).expect("to be looked at");
    assert!(before == images(paths), "a check writes nothing");
    report
}

#[test]
fn a_whole_array_is_sound_in_any_order() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut paths = array(dir.path(), Level::Raid5, 4);
    paths.reverse();
    let report = look_at(&paths);
    assert_eq!(
        (report.verdict, report.array.as_deref()),
        (Grade::Sound, Some("vault")),
        "{report:?}"
    );
    assert!(!repair::plan(&paths, &[]).expect("a plan").needed);
}

#[test]
fn what_a_copy_gives_back_is_repairable_and_repaired() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = array(dir.path(), Level::Raid5, 4);
    let layout = layout(&paths[0]);
    damage(&paths[0], layout.label);
    damage(&paths[1], layout.label_copy);
    damage(&paths[2], layout.config[0]);
    damage(&paths[2], layout.config[1]);
    damage(&paths[3], Region { len: 2 * BLOCK_SIZE, ..layout.lost[0] });
    damage(&paths[3], Region { len: 2 * BLOCK_SIZE, ..layout.lost[1] });
    let report = look_at(&paths);
    assert_eq!(report.verdict, Grade::Repairable, "{report:?}");
    for path in &paths[..3] {
        let told = |f: &Finding| f.about == *path && f.grade == Grade::Repairable;
        assert!(report.findings.iter().any(told), "{path} in {report:?}");
    }
    let before = images(&paths);
    let plan = repair::plan(&paths, &[]).expect("a plan");
    assert!(plan.needed && plan.writes.iter().any(|line| line.contains("label 0")), "{plan:?}");
    assert!(before == images(&paths), "a plan writes nothing");
    let after = repair::repair(&paths, &[]).expect("repaired");
    assert_eq!(after.verdict, Grade::Sound, "{after:?}");
    assert!(!repair::plan(&paths, &[]).expect("a plan").needed);
}

#[test]
fn missing_disks_are_told_with_what_they_cost() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = array(dir.path(), Level::Raid5, 4);
    assert_eq!(look_at(&paths[1..]).verdict, Grade::Repairable);
    let report = look_at(&paths[2..]);
    assert_eq!(report.verdict, Grade::Lost, "{report:?}");
    assert!(report.findings.iter().any(|f| f.what.contains("are missing")), "{report:?}");
    let before = images(&paths);
    let refused = repair::repair(&paths[2..], &[]).expect_err("refused");
    assert!(refused.to_string().contains("--degraded"), "{refused}");
    let refused = repair::repair(&paths[1..], &[]).expect_err("refused");
    assert!(refused.to_string().contains("disk 1"), "{refused}");
    assert!(before == images(&paths), "a refusal writes nothing");
}

#[test]
fn a_map_page_that_no_member_holds_is_a_loss() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = array(dir.path(), Level::Raid1, 2);
    let layout = layout(&paths[0]);
    for path in &paths {
        layout.unwritten.iter().for_each(|region| damage(path, *region));
    }
    let report = look_at(&paths);
    assert_eq!(report.verdict, Grade::Lost, "{report:?}");
    assert!(report.findings.iter().any(|f| f.what.contains("unwritten map")), "{report:?}");
}

#[test]
fn disks_in_use_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = array(dir.path(), Level::Raid1, 2);
    let _held = open::open_read_only(&paths[1]).expect("free");
    let refused = check(&paths, &[], false).expect_err("in use");
    assert!(refused.to_string().contains("in use"), "{refused}");
}

#[test]
fn random_damage_anywhere_before_the_data_does_no_harm() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = array(dir.path(), Level::Raid6, 4);
    let whole = images(&paths);
    let end = layout(&paths[0]).data.offset / BLOCK_SIZE;
    let mut state = 7_u64;
    let mut random = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut grades = std::collections::BTreeSet::new();
    for _ in 0..40 {
        for (path, image) in paths.iter().zip(&whole) {
            std::fs::write(path, image).expect("put back");
        }
        for _ in 0..=random(24) {
            let block = random(end) * BLOCK_SIZE;
            damage(
                &paths[random(4) as usize],
                Region { offset: block, len: 512 * (1 + random(8)) },
            );
        }
        let before = images(&paths);
        if let Ok(report) = check(&paths, &[], false) {
            grades.insert(report.verdict);
        }
        assert!(before == images(&paths), "a check writes nothing");
    }
    assert!(grades.contains(&Grade::Repairable), "the damage was seen: {grades:?}");
}
