//! The listings: disks, groups, volumes, jobs, events, and the tables of the drawings.

use forestall_engine::{
    DiskReport, DiskState, Event, GroupReport, Health, JobKind, JobReport, JobState, Level,
    LostReport, Severity, TableRow, VolumeReport,
};

use super::{Columns, Paint, health_word};
use crate::size;

/// Disks with their errors.
#[must_use]
pub fn disks(disks: &[DiskReport], paint: Paint) -> Columns {
    let mut table =
        Columns::new(&["DISK", "STATE", "GROUP", "SIZE", "ERRORS", "PATH", "SERIAL", "NOTES"]);
    for disk in disks {
        let group = match (disk.group, disk.slot) {
            (Some(group), Some(slot)) => format!("{group}, slot {slot}"),
            _ => "-".into(),
        };
        let state = match disk.work_disk {
            Some(set) if disk.state == DiskState::Work => format!("work disk {set}"),
            Some(set) => format!("{}, work disk {set}", disk_word(disk.state)),
            None => disk_word(disk.state).into(),
        };
        table.row_of(
            disk_health(disk),
            paint,
            vec![
                disk.number.to_string(),
                state,
                group,
                if disk.size == 0 { "?".into() } else { size::bytes(disk.size) },
                errors(disk),
                disk.identity.path.clone(),
                disk.identity.serial.clone().unwrap_or_else(|| "-".into()),
                disk.notes.join("; "),
            ],
        );
    }
    table
}

/// How a disk stands, for colours and for leaving out what is fine.
#[must_use]
pub fn disk_health(disk: &DiskReport) -> Health {
    match disk.state {
        DiskState::Failed | DiskState::Missing => Health::Failed,
        DiskState::Rebuilding | DiskState::Replaced | DiskState::Retiring => Health::Degraded,
        DiskState::InSync | DiskState::Spare | DiskState::Free | DiskState::Work => {
            if errors(disk) == "-" && disk.notes.is_empty() {
                Health::Healthy
            } else {
                Health::Degraded
            }
        }
    }
}

/// The word for a disk's state.
#[must_use]
pub fn disk_word(state: DiskState) -> &'static str {
    match state {
        DiskState::InSync => "in sync",
        DiskState::Rebuilding => "rebuilding",
        DiskState::Spare => "spare",
        DiskState::Free => "free",
        DiskState::Failed => "FAILED",
        DiskState::Missing => "MISSING",
        DiskState::Replaced => "replaced",
        DiskState::Retiring => "retiring",
        DiskState::Work => "work",
    }
}

fn errors(disk: &DiskReport) -> String {
    let e = &disk.errors;
    let classes = [
        (e.recovered_reads, "read mended", "reads mended"),
        (e.unrecovered_reads, "read lost", "reads lost"),
        (e.writes, "write", "writes"),
        (e.flushes, "flush", "flushes"),
        (e.timeouts, "timeout", "timeouts"),
        (e.transports, "transport error", "transport errors"),
        (e.checksums, "checksum mismatch", "checksum mismatches"),
    ];
    let some: Vec<String> = classes
        .into_iter()
        .filter(|(count, ..)| *count != 0)
        .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
        .collect();
    if some.is_empty() { "-".into() } else { some.join(", ") }
}

/// Groups with what they can still lose.
#[must_use]
pub fn groups(groups: &[GroupReport], paint: Paint) -> Columns {
    let headings = ["GROUP", "LEVEL", "HEALTH", "DISKS", "SIZE", "FREE", "MAY LOSE", "NOTES"];
    let mut table = Columns::new(&headings);
    for group in groups {
        let members: Vec<String> = group
            .members
            .iter()
            .map(|disk| {
                let gone = group.absent.contains(disk);
                if gone { format!("({disk})") } else { disk.to_string() }
            })
            .collect();
        table.row_of(
            group.health,
            paint,
            vec![
                group.number.to_string(),
                level_word(group.level).into(),
                health_word(group.health).into(),
                members.join(" "),
                size::bytes(group.capacity),
                size::bytes(group.free),
                may_lose(group),
                group_notes(group),
            ],
        );
    }
    table
}

fn may_lose(group: &GroupReport) -> String {
    match group.failures_left {
        0 => "no disk".into(),
        n => size::counted(n.into(), "disk"),
    }
}

fn group_notes(group: &GroupReport) -> String {
    let mut notes = Vec::new();
    if group.paused {
        notes.push("PAUSED".to_owned());
    }
    if let Some(avoidance) = &group.avoidance {
        notes.push(format!("shielded, {}", avoidance.state));
    }
    if group.lost_blocks != 0 {
        notes.push(format!("{} LOST", size::counted(group.lost_blocks, "block")));
    }
    if group.dirty_regions != 0 {
        notes.push(format!("{} to resync", size::counted(group.dirty_regions, "region")));
    }
    notes.join(", ")
}

/// The level as the drawings print it.
#[must_use]
pub fn level_word(level: Level) -> &'static str {
    match level {
        Level::Raid0 => "RAID0",
        Level::Raid1 => "RAID1",
        Level::Raid5 => "RAID5",
        Level::Raid6 => "RAID6",
        Level::Raid10 => "RAID10",
    }
}

/// Volumes.
#[must_use]
pub fn volumes(volumes: &[VolumeReport]) -> Columns {
    let mut table = Columns::new(&["VOLUME", "NAME", "GROUP", "SIZE", "ACCESS"]);
    for volume in volumes {
        table.row(vec![
            volume.number.to_string(),
            volume.name.clone(),
            volume.group.to_string(),
            size::bytes(volume.size),
            access(volume),
        ]);
    }
    table
}

/// Lost blocks, a row for each range.
#[must_use]
pub fn lost(lost: &[LostReport]) -> Columns {
    let mut table = Columns::new(&["VOLUME", "NAME", "OFFSET", "LENGTH", "NOTES"]);
    for report in lost {
        let note = match (report.held_by, report.more) {
            (Some(secondary), _) => format!("volume {secondary} has it and gives it back"),
            (None, true) => "more is lost than is listed".into(),
            (None, false) => String::new(),
        };
        for range in &report.ranges {
            table.row(vec![
                report.volume.to_string(),
                report.name.clone(),
                range.offset.to_string(),
                range.len.to_string(),
                note.clone(),
            ]);
        }
    }
    table
}

fn access(volume: &VolumeReport) -> String {
    match (volume.secondary_of, volume.reserved, volume.read_only) {
        (Some(primary), ..) => format!("secondary of volume {primary}"),
        (None, true, _) => "work volume".into(),
        (None, false, true) => "read only".into(),
        (None, false, false) => "read and write".into(),
    }
}

/// Long work.
#[must_use]
pub fn jobs(jobs: &[JobReport]) -> Columns {
    let mut table = Columns::new(&["JOB", "WORK", "STATE", "DONE", "PACE", "MESSAGE"]);
    for job in jobs {
        let mut message = job.message.clone();
        let found = [
            (job.mismatches, "difference", ""),
            (job.misfits, "checksum mismatch", ""),
            (job.lost_blocks, "block", " lost"),
        ];
        // What was done to its end says what it found.
        let untold = job.state != JobState::Done;
        for (count, what, end) in found.into_iter().filter(|(count, ..)| untold && *count != 0) {
            let between = if message.is_empty() { "" } else { "; " };
            message += &format!("{between}{}{end}", size::counted(count, what));
        }
        table.row(vec![
            job.id.to_string(),
            job_title(job),
            state_word(job.state).into(),
            format!("{} %", percent(job)),
            job_pace(job),
            message,
        ]);
    }
    table
}

/// What a job does, as `rebuild of disk 6 in group 1`; the disk is the one that is filled.
#[must_use]
pub fn job_title(job: &JobReport) -> String {
    let work = match job.kind {
        JobKind::Rebuild => "rebuild of",
        JobKind::Replace => "copy to",
        JobKind::Readd => "catch-up of",
        JobKind::Resync => "resync of",
        JobKind::Check => "check of",
        JobKind::Repair => "repair of",
        JobKind::WriteBack => "write-back of",
        JobKind::Test => "test of",
        JobKind::Mirror => "mirroring of",
    };
    match (job.disk, job.volume) {
        (Some(disk), _) => format!("{work} disk {disk} in group {}", job.group),
        (None, Some(volume)) => format!("{work} volume {volume} in group {}", job.group),
        (None, None) => format!("{work} group {}", job.group),
    }
}

/// How fast a job is and how long it still takes.
#[must_use]
pub fn job_pace(job: &JobReport) -> String {
    let limit =
        if job.limit == 0 { String::new() } else { format!(" (limit {})", size::rate(job.limit)) };
    // Nothing has moved yet, or all of it was skipped: that is no pace.
    let pace = if job.rate == 0 { "-".into() } else { size::rate(job.rate) };
    match (job.state, job.eta_s) {
        (JobState::Running, Some(eta)) => format!("{pace}{limit}, {} left", size::duration(eta)),
        (JobState::Running, None) => format!("{pace}{limit}"),
        (JobState::Waiting, _) if job.limit > 0 => limit.trim_start().to_owned(),
        _ => "-".into(),
    }
}

/// How much of a job is done, rounded down.
#[must_use]
pub fn percent(job: &JobReport) -> u64 {
    match job.total_bytes {
        0 => 100,
        total => (u128::from(job.done_bytes) * 100 / u128::from(total)).min(100) as u64,
    }
}

fn state_word(state: JobState) -> &'static str {
    match state {
        JobState::Running => "running",
        JobState::Done => "done",
        JobState::Failed => "FAILED",
        JobState::Stopped => "stopped",
        JobState::Paused => "paused",
        JobState::Waiting => "waiting",
    }
}

/// One event in one line.
#[must_use]
pub fn event(event: &Event, paint: Paint) -> String {
    let severity = match event.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    let severity = paint.severity(event.severity, &format!("{severity:8}"));
    let time = size::local_time(event.at_ms);
    format!("{:>6}  {time}  {severity}  {:20}  {}", event.sequence, event.kind, event.message)
}

/// A table of the drawings: columns aligned for people, separated by tabs for programs.
#[must_use]
pub fn drawn<R: TableRow>(rows: &[R], aligned: bool) -> String {
    let headings = R::headings();
    if aligned {
        let headings: Vec<&str> = headings.iter().map(String::as_str).collect();
        let mut table = Columns::new(&headings);
        rows.iter().for_each(|row| table.row(row.cells()));
        return table.to_string();
    }
    let lines = std::iter::once(headings).chain(rows.iter().map(TableRow::cells));
    lines.map(|cells| cells.join("\t") + "\n").collect()
}
