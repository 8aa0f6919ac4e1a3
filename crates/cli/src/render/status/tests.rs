//! The page for a healthy, a degraded and a failed array, read line by line.

use forestall_engine::{
    AccessCounts, AvoidanceReport, AvoidanceState, BackupPlace, DiskIdentity, DiskNumber, DiskRole,
    ErrorCounts, GroupNumber, JobKind, JobState, Level, ProblemKind, ShieldedReport, Strategy,
    T1Row, VolumeNumber, VolumeReport,
};

use super::*;

const PLAIN: Look = Look { paint: Paint::Plain, all_disks: false };

fn disk(number: u32, state: DiskState) -> DiskReport {
    let member = matches!(state, DiskState::InSync | DiskState::Rebuilding | DiskState::Failed);
    DiskReport {
        number: DiskNumber(number),
        state,
        role: if member { DiskRole::Member } else { DiskRole::Spare },
        identity: DiskIdentity {
            path: format!("/dev/sd{}", char::from(b'a' + number as u8 - 1)),
            serial: (number == 3).then(|| "ZX81".into()),
            model: None,
        },
        group: member.then_some(GroupNumber(1)),
        slot: member.then_some(number as u8 - 1),
        work_disk: None,
        size: 1 << 30,
        data_len: (1 << 30) - (8 << 20),
        errors: ErrorCounts::default(),
        accesses: AccessCounts::default(),
        notes: Vec::new(),
    }
}

fn healthy() -> ArrayReport {
    let mut disks: Vec<DiskReport> = (1..=5).map(|n| disk(n, DiskState::InSync)).collect();
    disks.push(disk(6, DiskState::Spare));
    ArrayReport {
        name: "vault".into(),
        uuid: "u".into(),
        health: Health::Healthy,
        generation: 7,
        started_at_ms: 1_000_000,
        now_ms: 1_000_000 + 273_600_000,
        allow_injection: false,
        policy: forestall_engine::health::Policy::default(),
        problems: Vec::new(),
        disks,
        groups: vec![GroupReport {
            number: GroupNumber(1),
            level: Level::Raid5,
            chunk: 65_536,
            journal: forestall_engine::JournalMode::Partial,
            checksums: true,
            health: Health::Healthy,
            members: (1..=5).map(DiskNumber).collect(),
            absent: Vec::new(),
            capacity: 4 << 30,
            free: 0,
            largest_free: 0,
            failures_left: 1,
            lost_blocks: 0,
            unreadable_blocks: 0,
            failed_reads: 0,
            dirty_regions: 0,
            paused: false,
            work_due: false,
            avoidance: None,
        }],
        volumes: vec![VolumeReport {
            number: VolumeNumber(1),
            name: "data".into(),
            group: GroupNumber(1),
            size: 4 << 30,
            read_only: false,
            reserved: false,
            secondary_of: None,
        }],
        jobs: Vec::new(),
    }
}

fn degraded() -> ArrayReport {
    let mut report = healthy();
    report.health = Health::Degraded;
    report.problems = vec![Problem {
        kind: ProblemKind::MemberOut,
        health: Health::Degraded,
        what: "Group 1 lacks disk 3 (/dev/sdc, serial ZX81), which failed 4 min ago".into(),
        action: "disk 6 is being rebuilt in its place, 41 %, 2 min left".into(),
        risk: "another failing disk of group 1 loses data".into(),
    }];
    report.disks[2] = disk(3, DiskState::Failed);
    report.disks[2].errors.writes = 1;
    report.disks[2].errors.recovered_reads = 12;
    report.disks[5].state = DiskState::Rebuilding;
    report.groups[0].health = Health::Degraded;
    report.groups[0].members[2] = DiskNumber(6);
    report.groups[0].absent = vec![DiskNumber(6)];
    report.groups[0].failures_left = 0;
    report.jobs = vec![JobReport {
        id: 1,
        kind: JobKind::Rebuild,
        state: JobState::Running,
        group: GroupNumber(1),
        disk: Some(DiskNumber(6)),
        volume: None,
        done_bytes: 410 << 20,
        total_bytes: 1000 << 20,
        rate: 5 << 20,
        eta_s: Some(118),
        limit: 0,
        mismatches: 0,
        misfits: 0,
        lost_blocks: 0,
        started_at_ms: 1_000_000,
        message: String::new(),
    }];
    report
}

/// The lines of a page with runs of blanks made one, so that a test reads words and not widths.
fn lines(report: &ArrayReport) -> Vec<String> {
    let page = screen(report, &["unix:/run/vault.nbd".into()], &PLAIN);
    assert!(page.lines().all(|l| !l.ends_with(' ')), "blanks at a line's end:\n{page}");
    page.lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn assert_has(lines: &[String], line: &str) {
    assert!(lines.iter().any(|l| l == line), "no line `{line}` in:\n{}", lines.join("\n"));
}

#[test]
fn a_healthy_array_says_so_first_and_what_it_could_lose() {
    let lines = lines(&healthy());
    assert!(lines[0].starts_with("Array vault is HEALTHY. Up 3 d 4 h, as of "), "{}", lines[0]);
    assert_eq!(lines[1], "Every group can lose any 1 disk without loss. 1 spare stands by.");
    assert_has(&lines, "1 RAID5 healthy 1 2 3 4 5 4 GiB 0 B 1 disk");
    assert_has(&lines, "3 in sync 1, slot 2 1 GiB - /dev/sdc ZX81");
    assert_has(&lines, "6 spare - 1 GiB - /dev/sdf -");
    assert_has(&lines, "1 data 1 4 GiB read and write");
    assert_has(&lines, "Served over NBD at unix:/run/vault.nbd");
}

#[test]
fn a_group_without_redundancy_is_named_and_the_others_are_not_blamed() {
    let mut report = healthy();
    report.groups.push(GroupReport {
        number: GroupNumber(2),
        level: Level::Raid0,
        failures_left: 0,
        ..report.groups[0].clone()
    });
    let empty = "Group 2 (RAID0) is without redundancy: it has no volume to lose. \
                 Every other group can lose any 1 disk without loss. 1 spare stands by.";
    assert_eq!(lines(&report)[1], empty);
    report.volumes[0].group = GroupNumber(2);
    assert!(
        lines(&report)[1]
            .contains("(RAID0) is without redundancy: a failing disk of it loses data.")
    );
    report.groups.remove(0);
    assert!(!lines(&report)[1].contains("Every"), "there is no other");
}

#[test]
fn a_healthy_array_has_notes_and_no_problems() {
    let mut report = healthy();
    report.problems = vec![Problem {
        kind: ProblemKind::MemberOut,
        health: Health::Healthy,
        what: "disk 3 is no longer used: write error".into(),
        action: "take it out with `forestall disk remove 3`".into(),
        risk: String::new(),
    }];
    let lines = lines(&report);
    assert!(lines[0].starts_with("Array vault is HEALTHY, 1 note."), "{}", lines[0]);
    assert!(lines[1].starts_with("Every group can lose any 1 disk"), "{}", lines[1]);
    assert_eq!(lines[3], "- disk 3 is no longer used: write error");
    assert_eq!(lines[4], "next take it out with `forestall disk remove 3`");
}

#[test]
fn work_that_moved_nothing_yet_has_no_pace() {
    let mut report = degraded();
    report.jobs[0].rate = 0;
    report.jobs[0].eta_s = None;
    let page = lines(&report).join("\n");
    assert!(page.contains("410 MiB of 1000 MiB, -") && !page.contains("B/s"), "{page}");
}

#[test]
fn a_degraded_array_says_what_is_wrong_what_is_done_and_what_is_at_risk() {
    let lines = lines(&degraded());
    assert!(lines[0].starts_with("Array vault is DEGRADED, 1 problem."), "{}", lines[0]);
    assert_eq!(lines[2], "! Group 1 lacks disk 3 (/dev/sdc, serial ZX81), which failed 4 min ago");
    assert_eq!(lines[3], "now disk 6 is being rebuilt in its place, 41 %, 2 min left");
    assert_eq!(lines[4], "risk another failing disk of group 1 loses data");
    let job = "Job 1: rebuild of disk 6 in group 1 [#########...............] 41 % 410 MiB of 1000 MiB, 5 MiB/s, \
               1 min 58 s left";
    assert_has(&lines, job);
    assert_has(&lines, "1 RAID5 degraded 1 2 (6) 4 5 4 GiB 0 B no disk");
    assert_has(&lines, "3 FAILED 1, slot 2 1 GiB 12 reads mended, 1 write /dev/sdc ZX81");
}

#[test]
fn a_failed_array_shows_lost_blocks_and_a_pause() {
    let mut report = degraded();
    report.health = Health::Failed;
    report.groups[0].health = Health::Failed;
    report.groups[0].lost_blocks = 9;
    report.groups[0].paused = true;
    report.problems[0].health = Health::Failed;
    report.problems.push(report.problems[0].clone());
    let lines = lines(&report);
    assert!(lines[0].starts_with("Array vault is FAILED, 2 problems."), "{}", lines[0]);
    assert!(lines[2].starts_with("!! Group 1 lacks disk 3"), "{}", lines[2]);
    assert_has(&lines, "1 RAID5 failed 1 2 (6) 4 5 4 GiB 0 B no disk PAUSED, 9 blocks LOST");
}

#[test]
fn a_shielded_group_and_the_disks_about_it_are_marked() {
    let mut report = healthy();
    report.health = Health::Degraded;
    report.groups[0].health = Health::Degraded;
    report.groups[0].avoidance = Some(AvoidanceReport {
        state: AvoidanceState::WritingBack,
        paused: false,
        slot: 1,
        disk: None,
        filling: None,
        retiring: Some(DiskNumber(2)),
        why: "by command".into(),
        asked: Strategy::Auto,
        volumes: vec![ShieldedReport {
            volume: VolumeNumber(1),
            name: "data".into(),
            backups: vec![BackupPlace::WorkDisk(DiskNumber(60))],
            away_blocks: 7,
            resting: Vec::new(),
            full: false,
            overflowed_blocks: 0,
        }],
        away_blocks: 7,
        spare_copies: Some(1),
    });
    report.disks[1].state = DiskState::Retiring;
    for (at, state) in [(4, DiskState::Work), (5, DiskState::Failed)] {
        report.disks[at] = disk(at as u32 + 1, state);
        (report.disks[at].group, report.disks[at].work_disk) = (None, Some(DiskNumber(60)));
    }
    let lines = lines(&report);
    assert_has(&lines, "1 RAID5 degraded 1 2 3 4 5 4 GiB 0 B 1 disk shielded, writing back");
    assert_has(&lines, "2 retiring 1, slot 1 1 GiB - /dev/sdb -");
    assert_has(&lines, "5 work disk 60 - 1 GiB - /dev/sde -");
    assert_has(&lines, "6 FAILED, work disk 60 - 1 GiB - /dev/sdf -");
}

#[test]
fn of_many_disks_only_those_that_need_a_look_are_listed() {
    let mut report = healthy();
    report.disks = (1..=20).map(|n| disk(n, DiskState::InSync)).collect();
    report.disks[16].errors.timeouts = 1;
    let few = lines(&report);
    assert_has(&few, "17 in sync 1, slot 16 1 GiB 1 timeout /dev/sdq -");
    assert_has(&few, "19 in sync without errors (`--all` lists them)");
    assert!(!few.iter().any(|l| l.starts_with("4 in sync")));
    let all = screen(&report, &[], &Look { all_disks: true, ..PLAIN });
    assert_eq!(all.matches("in sync").count(), 20);
}

#[test]
fn colours_only_where_they_are_asked_for() {
    let plain = screen(&degraded(), &[], &PLAIN);
    assert!(!plain.contains('\x1b'));
    let colour = screen(&degraded(), &[], &Look { paint: Paint::Colour, all_disks: false });
    assert!(colour.contains("\x1b[33;1mDEGRADED\x1b[0m"));
}

#[test]
fn table_t1_is_that_of_figure_2a() {
    let row = |group, volumes: &[u32], disks: &[u32]| T1Row {
        group: GroupNumber(group),
        volumes: volumes.iter().copied().map(VolumeNumber).collect(),
        disks: disks.iter().copied().map(DiskNumber).collect(),
        level: Level::Raid5,
    };
    let rows = [row(1, &[1, 2, 3], &[1, 2, 3, 4]), row(5, &[], &[17, 18, 19, 20])];
    let tabs = "GROUP#\tVOLUME#\tDISK#\tRAID LEVEL\n1\t1, 2, 3\t1, 2, 3, 4\tRAID5\n5\tNULL\t17, 18, 19, 20\tRAID5\n";
    assert_eq!(tables::drawn(&rows, false), tabs);
    let aligned = "GROUP#  VOLUME#  DISK#           RAID LEVEL\n\
                   1       1, 2, 3  1, 2, 3, 4      RAID5\n\
                   5       NULL     17, 18, 19, 20  RAID5\n";
    assert_eq!(tables::drawn(&rows, true), aligned);
}
