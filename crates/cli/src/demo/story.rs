//! What happens to the disks while the client works: one errs, is found ailing and copied away under a shield; another dies in mid-copy.
//!
//! Owns the order of events and what is told of them. Invariant: nothing is waited for by the clock, only by what the array reports.

use std::time::Instant;

use anyhow::{Result, bail};
use forestall_disk::{InjectKind, InjectOp};
use forestall_engine::{
    ArrayReport, DiskNumber, DiskReport, DiskState, GroupReport, Health, JobKind, JobReport,
    JobState,
};
use serde::Serialize;

use super::bench::{Bench, MEMBERS, WORK_DISK};
use super::load::Storm;
use super::screen::Screen;
use crate::render::tables::percent;

/// The disk that errs and is copied away.
const FIRST: DiskNumber = DiskNumber(2);

/// The disk that dies while the first is being copied.
const SECOND: DiskNumber = DiskNumber(4);

/// What takes the place of each.
const SPARES: [DiskNumber; 2] = [DiskNumber(MEMBERS + 1), DiskNumber(MEMBERS + 2)];

/// More reads of the first disk than it takes to find it ailing; those left over are taken back then.
const READ_ERRORS: u64 = 1000;

/// The copy is held to this many bytes a second until the second disk has died, so that it can be watched.
pub const WATCHABLE: u64 = 24 << 20;

/// The second disk dies when this much of the copy is done, in percent.
const HALFWAY: u64 = 40;

/// What the story measured.
#[derive(Clone, Debug, Serialize)]
pub struct Told {
    /// Reads of the first disk that were answered from the others.
    pub read_errors_mended: u64,
    /// How far the copy was when the second disk died.
    pub copied_percent_at_second_death: u64,
    /// The most blocks of 4 KiB that were seen away from home at once.
    pub redirected_blocks: u64,
    /// From the verdict until the group was whole, with everything home.
    pub avoidance_seconds: f64,
}

/// Tells it.
pub fn tell(bench: &Bench, screen: &Screen, storm: &Storm) -> Result<Told> {
    let (mended, begun) = notices(bench, screen, storm)?;
    let job = copies(bench, screen, storm)?;
    let (percent, away) = second_death(bench, screen, storm, job)?;
    comes_home(bench, screen, storm)?;
    Ok(Told {
        read_errors_mended: mended,
        copied_percent_at_second_death: percent,
        redirected_blocks: away,
        avoidance_seconds: begun.elapsed().as_secs_f64(),
    })
}

/// The first disk errs until the array has had enough of it.
fn notices(bench: &Bench, screen: &Screen, storm: &Storm) -> Result<(u64, Instant)> {
    bench.inject(FIRST, InjectOp::Read, InjectKind::Error, Some(READ_ERRORS))?;
    screen.say(&format!("Disk {FIRST} begins to err: reads that it is asked for fail."));
    let report =
        bench.wait(Some(storm), "the shield", |report| group(report).avoidance.is_some())?;
    let begun = Instant::now();
    bench.clear_injection(FIRST)?;
    let mended = disk(&report, FIRST).errors.recovered_reads;
    screen.say(&format!(
        "  {mended} bad reads were answered from the other disks and written back; the client noticed nothing.\n  \
         The array did: it expects disk {FIRST} to fail, and acts by itself. From here on the disk reads again."
    ));
    Ok((mended, begun))
}

/// The copy runs, slowly, with the shield up.
fn copies(bench: &Bench, screen: &Screen, storm: &Storm) -> Result<u64> {
    let report = bench.wait(Some(storm), "the copy to begin", |report| copy(report).is_some())?;
    let job = copy(&report).expect("waited for").id;
    bench.limit(job, WATCHABLE)?;
    let report = bench.wait(Some(storm), "writes to be redirected", |report| {
        group(report).avoidance.as_ref().is_none_or(|a| a.away_blocks > 0)
    })?;
    screen.say(&format!(
        "  It is being copied to spare {}, and host writes go to work disk {WORK_DISK} meanwhile; `forestall status` says:",
        SPARES[0]
    ));
    say_problems(screen, &report);
    Ok(job)
}

/// Answers how far the copy was, and how many blocks were away from home.
fn second_death(bench: &Bench, screen: &Screen, storm: &Storm, job: u64) -> Result<(u64, u64)> {
    let report = bench.wait(Some(storm), "the copy to get on", |report| {
        let job = copy(report);
        let done = job.map_or(100, percent);
        screen.progress("copying", done, 100);
        done >= HALFWAY || job.is_some_and(|job| job.state != JobState::Running)
    })?;
    let done = copy(&report).map_or(100, percent);
    let away = group(&report).avoidance.as_ref().map_or(0, |a| a.away_blocks);
    if done >= 100 {
        bail!(
            "the copy had ended before the second disk could die: this machine is too fast for the demo"
        );
    }
    bench.inject(SECOND, InjectOp::Any, InjectKind::Death, None)?;
    screen.say(&format!(
        "Disk {SECOND} dies, with the copy at {done} %. RAID5 survives one failure; disk {FIRST}, which still reads, is what saves the rest."
    ));
    let report = bench.wait(Some(storm), "the second failure to be seen", |report| {
        disk(report, SECOND).state == DiskState::Failed
    })?;
    say_problems(screen, &report);
    bench.limit(job, 0)?;
    Ok((done, away))
}

/// The copy ends, the dead disk is rebuilt under the same shield, and everything goes home.
fn comes_home(bench: &Bench, screen: &Screen, storm: &Storm) -> Result<()> {
    let [first, second] = SPARES;
    bench.wait(Some(storm), "the end of the copy", |report| {
        screen.progress("copying", copy(report).map_or(100, percent), 100);
        disk(report, first).state == DiskState::InSync
    })?;
    screen.say(&format!("  Spare {first} has the place of disk {FIRST}."));
    bench.wait(Some(storm), "the end of the rebuild", |report| {
        let rebuild = report.jobs.iter().rfind(|job| job.kind == JobKind::Rebuild);
        screen.progress("rebuilding", rebuild.map_or(0, percent), 100);
        disk(report, second).state == DiskState::InSync
    })?;
    screen.say(&format!(
        "  Spare {second} has the place of disk {SECOND}, rebuilt under the same shield. Now the updates go home."
    ));
    let report = bench.wait(Some(storm), "the write-back", |report| {
        let home = report.jobs.iter().rfind(|job| job.kind == JobKind::WriteBack);
        screen.progress("taking updates home", home.map_or(0, percent), 100);
        group(report).avoidance.is_none() && group(report).health == Health::Healthy
    })?;
    let home = report.jobs.iter().rfind(|job| job.kind == JobKind::WriteBack);
    let said = home.map(|job| job.message.clone()).unwrap_or_default();
    screen.say(&format!("  {said}; the group is whole and can lose any one disk again."));
    Ok(())
}

/// The copy of the first disk, running or ended.
fn copy(report: &ArrayReport) -> Option<&JobReport> {
    report.jobs.iter().rfind(|job| job.kind == JobKind::Replace && job.disk == Some(SPARES[0]))
}

/// The demo's only group.
pub fn group(report: &ArrayReport) -> &GroupReport {
    report.groups.first().expect("the demo's group stays")
}

fn disk(report: &ArrayReport, number: DiskNumber) -> &DiskReport {
    let found = report.disks.iter().find(|disk| disk.number == number);
    found.expect("the demo's disks stay in the array")
}

fn say_problems(screen: &Screen, report: &ArrayReport) {
    for problem in report.problems.iter().filter(|problem| problem.health != Health::Healthy) {
        screen.say(&format!("    {}", problem.what));
        for (label, words) in [("now: ", &problem.action), ("risk:", &problem.risk)] {
            if !words.is_empty() {
                screen.say(&format!("      {label} {words}"));
            }
        }
    }
}
