//! What a copy costs the group's disks: the same writes once with the shield and once without.
//!
//! Owns the measurement. The copy stands still at half while the writes are made, so that every access that is counted is one of theirs.
//! Invariant: both runs copy the same disk to the same spare, stand at about the same place, and take the same writes.

use anyhow::{Result, ensure};
use forestall_engine::{ArrayReport, DiskNumber, JobKind, Strategy};
use forestall_server::api::types::ReplaceDisk;
use serde::Serialize;

use super::bench::{Bench, MEMBERS};
use super::load::Load;
use super::screen::Screen;
use super::story::{WATCHABLE, group};
use crate::render::tables::percent;

/// The disk that is copied for the measurement, and kept.
const COPIED: DiskNumber = DiskNumber(1);

/// Where it is copied to.
const SPARE: DiskNumber = DiskNumber(MEMBERS + 3);

/// Writes of 4 KiB at random places in each run.
const WRITES: u64 = 2000;

/// Where the copy stands, at least, in percent.
const HALFWAY: u64 = 50;

/// Accesses for each host write, in one run.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cost {
    /// How far the copy was, in percent.
    pub copied_percent: u64,
    /// Reads and writes of the group's disks and of the one being filled, while the copy goes on.
    pub group: f64,
    /// Writes to the legs of the work disk.
    pub work_disk: f64,
    /// Reads and writes of the group's disks when the updates went home.
    pub write_back: f64,
}

/// The two runs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Costs {
    /// Host writes in each.
    pub writes: u64,
    /// With the shield, to a work disk.
    pub shielded: Cost,
    /// With `--backup direct`.
    pub direct: Cost,
}

/// Measures both.
pub fn measure(bench: &Bench, screen: &Screen, load: &mut Load) -> Result<Costs> {
    screen.say(&format!(
        "\nSide by side: disk {COPIED} is copied half way, and {WRITES} writes of 4 KiB are made at random places."
    ));
    let shielded = run(bench, screen, load, Strategy::WorkDisk)?;
    let direct = run(bench, screen, load, Strategy::Direct)?;
    for (cost, name) in [(&shielded, "--backup work-disk"), (&direct, "--backup direct   ")] {
        screen.say(&format!(
            "  {name}  accesses to the group per host write: {:.2}; to the work disk: {:.2}; at the write-back: {:.2}",
            cost.group, cost.work_disk, cost.write_back
        ));
    }
    Ok(Costs { writes: WRITES, shielded, direct })
}

fn run(bench: &Bench, screen: &Screen, load: &mut Load, backup: Strategy) -> Result<Cost> {
    let body = ReplaceDisk { disk: COPIED, with: Some(SPARE), rate: WATCHABLE, backup };
    bench.replace(&body)?;
    let running = |report: &ArrayReport| {
        let job = report.jobs.iter().rfind(|j| j.kind == JobKind::Replace && j.disk == Some(SPARE));
        job.map_or(0, percent)
    };
    let report = bench.wait(None, "half of the copy", |report| {
        screen.progress("copying half of a disk", running(report), 100);
        running(report) >= HALFWAY
    })?;
    let copied_percent = running(&report);
    bench.replacing("pause", COPIED)?;
    let before = Counts::of(&bench.report()?);
    load.reseed();
    load.scribble(WRITES)?;
    let after = Counts::of(&bench.report()?);
    bench.replacing("cancel", COPIED)?;
    let report = bench.wait(None, "the write-back", |report| group(report).avoidance.is_none())?;
    let home = Counts::of(&report);
    let per_write = |accesses: u64| accesses as f64 / WRITES as f64;
    ensure!(after.group >= before.group && home.group >= after.group, "counts only grow");
    Ok(Cost {
        copied_percent,
        group: per_write(after.group - before.group),
        work_disk: per_write(after.legs - before.legs),
        write_back: per_write(home.group - after.group),
    })
}

/// Accesses so far.
struct Counts {
    group: u64,
    legs: u64,
}

impl Counts {
    fn of(report: &ArrayReport) -> Self {
        let members = &group(report).members;
        let mut counts = Self { group: 0, legs: 0 };
        for disk in &report.disks {
            let accesses = disk.accesses.reads + disk.accesses.writes;
            if members.contains(&disk.number) || disk.number == SPARE {
                counts.group += accesses;
            } else if disk.work_disk.is_some() {
                counts.legs += accesses;
            }
        }
        counts
    }
}
