//! Arrays on files, whole and with every kind of damage: told as it is, never written to, never a panic.

use std::os::unix::fs::FileExt;
use std::path::Path;

use forestall_engine::format::label::Label;
use forestall_engine::format::layout::Region;
use forestall_engine::{BLOCK_SIZE, Buf, CreateGroup, CreateSpec, JournalMode, Level};

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
    open::create(spec, &paths, Some(SIZE), IoChoice::Pread, false, &|_| {}).expect("an array");
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
    let after = repair::repair(&paths, &[], &|_| {}).expect("repaired");
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
    let refused = repair::repair(&paths[2..], &[], &|_| {}).expect_err("refused");
    assert!(refused.to_string().contains("--degraded"), "{refused}");
    let refused = repair::repair(&paths[1..], &[], &|_| {}).expect_err("refused");
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
fn map_pages_overwritten_on_all_members_but_one_are_told_and_written_anew() {
    for level in [Level::Raid0, Level::Raid1, Level::Raid5, Level::Raid6, Level::Raid10] {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = array(dir.path(), level, 4);
        assert_eq!(look_at(&paths).verdict, Grade::Sound, "{level:?}");
        let layout = layout(&paths[0]);
        for region in [layout.intent, layout.unwritten, layout.lost, layout.cursors].concat() {
            let first = Region { len: BLOCK_SIZE, ..region };
            paths[1..].iter().for_each(|path| damage(path, first));
        }
        let report = look_at(&paths);
        assert_eq!(report.verdict, Grade::Repairable, "{level:?}: {report:?}");
        for path in &paths[1..] {
            let told = |f: &&Finding| f.about == *path && f.grade == Grade::Repairable;
            assert_eq!(report.findings.iter().filter(told).count(), 4, "{path} in {report:?}");
        }
        let after = repair::repair(&paths, &[], &|_| {}).expect("repaired");
        assert_eq!(after.findings, [], "{level:?}");
    }
}

#[test]
fn a_repair_writes_the_damaged_label_and_not_the_whole_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = array(dir.path(), Level::Raid5, 4);
    damage(&paths[0], layout(&paths[1]).label);
    let plan = repair::plan(&paths, &[]).expect("a plan");
    let writes = plan.writes.join("\n");
    assert!(writes.contains("label 0") && !writes.contains("label 1"), "{writes}");
}

#[test]
fn a_disk_of_another_size_is_told_with_what_is_true() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = array(dir.path(), Level::Raid5, 4);
    let resize = |len| {
        let file = std::fs::OpenOptions::new().write(true).open(&paths[1]).expect("the disk");
        file.set_len(len).expect("resized");
    };
    resize(SIZE + (1 << 20));
    let report = look_at(&paths);
    assert_eq!(report.verdict, Grade::Repairable, "{report:?}");
    assert!(report.findings[0].what.contains("has 5 MiB"), "{report:?}");
    let after = repair::repair(&paths, &[], &|_| {}).expect("repaired");
    assert_eq!(after.verdict, Grade::Sound, "{after:?}");
    resize(SIZE / 2);
    let report = look_at(&paths);
    let of_it = |f: &&Finding| f.about == paths[1];
    let told: Vec<&Finding> = report.findings.iter().filter(of_it).collect();
    assert!(!told.is_empty() && told.iter().all(|f| f.way_out.contains("old size")), "{report:?}");
    let refused = repair::repair(&paths, &[], &|_| {}).expect_err("refused");
    assert!(refused.to_string().contains("disk 2"), "{refused}");
}

#[test]
fn a_stranger_beside_a_whole_array_is_a_note_and_alone_no_array() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut paths = array(dir.path(), Level::Raid5, 4);
    let note = dir.path().join("note").display().to_string();
    std::fs::write(&note, vec![b'x'; 3 << 20]).expect("written");
    let absent = dir.path().join("absent").display().to_string();
    paths.extend([note.clone(), absent.clone()]);
    let report = check(&paths, &[], false).expect("to be looked at");
    assert_eq!((report.verdict, report.findings.len()), (Grade::Sound, 2), "{report:?}");
    assert!(report.findings.iter().all(|f| !f.what.contains(&f.about)), "{report:?}");
    // One that is missing may be what the stranger was.
    let report = check(&paths[1..], &[], false).expect("to be looked at");
    let strangers = report.findings.iter().filter(|f| [&note, &absent].contains(&&f.about));
    assert!(strangers.map(|f| f.grade).eq([Grade::Repairable; 2]), "{report:?}");
    let refused = check(&[note, absent], &[], false).expect_err("no array");
    assert!(matches!(refused, CheckError::NoDisks(_)), "{refused}");
}

/// Writes a block and ends without a stop.
fn crash(paths: &[String]) {
    runtime::build().expect("a runtime").block_on(async {
        let mut opened = Vec::new();
        for path in paths {
            opened.push(open::open(path, IoChoice::Pread).await.expect("free"));
        }
        let new = opened.iter().map(open::Opened::new_disk).collect();
        let array =
            Array::<ServerEnv>::assemble(CompioRuntime::new(), new, AssembleOptions::default());
        let array = array.await.map_err(|(error, _)| error).expect("it starts");
        let volume = array.open_volume("v").expect("its volume");
        let block = Buf::zeroed(BLOCK_SIZE as usize);
        volume.write(0, block, true).await.expect("written");
    });
}

#[test]
fn a_plan_finds_what_a_check_finds_after_a_crash() {
    for (level, verdict) in [(Level::Raid1, Grade::Repairable), (Level::Raid5, Grade::Sound)] {
        let dir = tempfile::tempdir().expect("a directory");
        let paths = array(dir.path(), level, 4);
        crash(&paths);
        let report = check(&paths, &[], false).expect("to be looked at");
        assert_eq!(report.verdict, verdict, "{report:?}");
        let plan = repair::plan(&paths, &[]).expect("a plan");
        assert!(plan.needed, "{plan:?}");
        assert_eq!(plan.findings, report.findings);
    }
}

#[test]
fn disks_in_use_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let paths = array(dir.path(), Level::Raid1, 2);
    let _held = open::open_now(&paths[1], open::IoChoice::Pread).expect("free");
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
