//! `demo`: an array on temporary files, a real NBD client, and disks that fail one after the other.
//!
//! Owns the story. It uses the shipped parts only: `create`, the server with its NBD and management sockets, and the NBD
//! client; disks are made to fail through the management API. Invariant: every figure printed was measured in this run,
//! and the exit code is 0 only if every byte read back was the byte last written and no request of the client failed.

mod bench;
mod load;
mod screen;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use forestall_disk::{InjectKind, InjectOp, InjectRule};
use forestall_engine::{
    ArrayReport, DiskNumber, DiskReport, DiskState, JobKind, JobReport, JobState,
};
use serde::Serialize;

use crate::args::DemoArgs;
use crate::size;
use bench::{Bench, DISK_SIZE, MEMBERS, VOLUME};
use load::{Load, Storm, Totals};
use screen::Screen;

/// The disk that errs and then dies.
const FIRST: DiskNumber = DiskNumber(2);

/// The disk that dies while the first is being rebuilt.
const SECOND: DiskNumber = DiskNumber(4);

/// The spare.
const SPARE: DiskNumber = DiskNumber(MEMBERS + 1);

/// Reads of the first disk that fail before it dies; mending one block may try more than one of them.
const READ_ERRORS: u64 = 24;

/// Bad reads that must have been mended before the story goes on.
const MENDED_MIN: u64 = 5;

/// The rebuild is held to this many bytes a second until the second disk has died, so that it can be watched.
const WATCHABLE: u64 = 24 << 20;

/// The second disk dies when this much of the rebuild is done, in percent.
const HALFWAY: u64 = 40;

/// The figures at the end, as `--json` prints them.
#[derive(Debug, Serialize)]
struct Summary {
    filled_bytes: u64,
    fill_seconds: f64,
    client: Totals,
    disk_read_errors_mended: u64,
    disks_died: u32,
    rebuild_done_percent_at_second_death: u64,
    rebuild_bytes: u64,
    rebuild_seconds: f64,
    verified_bytes: u64,
    verified_again_after_restart_bytes: u64,
    seconds: f64,
}

/// Runs the demo.
pub fn run(args: &DemoArgs, json: bool) -> Result<ExitCode> {
    let begun = Instant::now();
    let screen = Screen::new(json);
    let mut bench = Bench::make(&screen, args.keep)?;
    let outcome = tell(&mut bench, &screen, begun);
    screen.clear();
    let summary = match outcome {
        Ok(summary) => summary,
        Err(error) => {
            screen.say(&format!("The demo failed; {}", bench.where_it_is()));
            bench.stop()?;
            return Err(error);
        }
    };
    if json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        println!("{}", ending(&summary));
    }
    if args.keep {
        println!("{}", bench.how_to_mount());
        bench.wait_stopped()?;
        println!("stopped; the disks are kept in {}", bench.folder().display());
    } else {
        bench.stop()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The story from the first write to the last byte verified.
fn tell(bench: &mut Bench, screen: &Screen, begun: Instant) -> Result<Summary> {
    let mut load = Load::connect(&bench.nbd_socket()?, VOLUME)?;
    let filling = Instant::now();
    load.fill(|done, total| screen.progress("writing every byte of the volume", done, total))?;
    let fill_seconds = filling.elapsed().as_secs_f64();
    let filled_bytes = load.size();
    let pace = size::rate((filled_bytes as f64 / fill_seconds) as u64);
    screen.say(&format!("Wrote {} through NBD and flushed: {pace}.", size::bytes(filled_bytes)));

    screen.say("From now on a client writes and reads back at random places, checking every byte.");
    let storm = Storm::start(&bench.nbd_socket()?, VOLUME, load.disconnect()?)?;
    let told = disasters(bench, screen, &storm);
    let (model, client) = storm.stop()?;
    let (mended, percent, rebuild, rebuild_seconds) = told?;
    ensure!(client.wrong_blocks == 0, "{} blocks read back wrong", client.wrong_blocks);
    ensure!(client.errors == 0, "{} requests of the client failed", client.errors);

    let mut load = Load::reconnect(&bench.nbd_socket()?, VOLUME, model)?;
    load.flush()?;
    let verified_bytes =
        load.verify(|done, total| screen.progress("reading every byte back", done, total))?;
    screen.say(&format!("Every one of {} bytes reads back as last written.", verified_bytes));
    let model = load.disconnect()?;
    bench.restart(screen)?;
    let mut load = Load::reconnect(&bench.nbd_socket()?, VOLUME, model)?;
    let again = load.verify(|done, total| {
        screen.progress("reading every byte after the restart", done, total)
    })?;
    screen
        .say("Stopped the server, started it again on the same files: every byte is still right.");
    load.disconnect()?;
    Ok(Summary {
        filled_bytes,
        fill_seconds,
        client,
        disk_read_errors_mended: mended,
        disks_died: 2,
        rebuild_done_percent_at_second_death: percent,
        rebuild_bytes: rebuild.total_bytes,
        rebuild_seconds,
        verified_bytes,
        verified_again_after_restart_bytes: again,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// What happens to the disks: answers the reads mended, how far the rebuild was at the second death, the rebuild and its seconds.
fn disasters(bench: &Bench, screen: &Screen, storm: &Storm) -> Result<(u64, u64, JobReport, f64)> {
    bench.inject(FIRST, InjectOp::Read, InjectKind::Error, Some(READ_ERRORS))?;
    screen.say(&format!(
        "Disk {FIRST} begins to err: the next {READ_ERRORS} reads that it is asked for fail."
    ));
    let report = bench.wait(storm, "the read errors", |report| {
        let first = disk(report, FIRST);
        first.errors.recovered_reads >= MENDED_MIN || first.state != DiskState::InSync
    })?;
    let mended = disk(&report, FIRST).errors.recovered_reads;
    screen.say(&format!("  {mended} bad reads were answered from the other disks and written back; the client noticed nothing."));

    bench.inject(FIRST, InjectOp::Any, InjectKind::Death, None)?;
    screen.say(&format!("Disk {FIRST} dies."));
    let report = bench.wait(storm, "the spare to take over", |report| rebuild(report).is_some())?;
    let rebuilding = Instant::now();
    let job = rebuild(&report).expect("waited for").id;
    bench.limit(job, WATCHABLE)?;
    screen.say(&format!(
        "  Spare {SPARE} took its place by itself and is being rebuilt; `forestall status` says:"
    ));
    say_problems(screen, &report);
    let report = bench.wait(storm, "the rebuild to get on", |report| {
        let job = rebuild(report);
        let percent = job.map_or(100, crate::render::tables::percent);
        screen.progress("rebuilding", percent, 100);
        percent >= HALFWAY || job.is_some_and(|job| job.state != JobState::Running)
    })?;
    let percent = rebuild(&report).map_or(100, crate::render::tables::percent);

    bench.inject(SECOND, InjectOp::Any, InjectKind::Death, None)?;
    screen.say(&format!("Disk {SECOND} dies too, with the rebuild at {percent} %."));
    let report = bench.wait(storm, "the second failure to be seen", |report| {
        disk(report, SECOND).state == DiskState::Failed
    })?;
    say_problems(screen, &report);
    bench.limit(job, 0)?;
    let report = bench.wait(storm, "the end of the rebuild", |report| {
        if let Some(job) = rebuild(report) {
            screen.progress("rebuilding", crate::render::tables::percent(job), 100);
        }
        disk(report, SPARE).state == DiskState::InSync
    })?;
    let seconds = rebuilding.elapsed().as_secs_f64();
    let Some(job) = rebuild(&report).cloned() else { bail!("the rebuild is not listed any more") };
    screen.say(&format!(
        "Spare {SPARE} is whole after {seconds:.1} s; the array can lose one more disk."
    ));
    Ok((mended, percent, job, seconds))
}

/// The rebuild of the spare, running or ended.
fn rebuild(report: &ArrayReport) -> Option<&JobReport> {
    report.jobs.iter().rfind(|job| job.kind == JobKind::Rebuild && job.disk == Some(SPARE))
}

fn disk(report: &ArrayReport, number: DiskNumber) -> &DiskReport {
    let found = report.disks.iter().find(|disk| disk.number == number);
    found.expect("the demo's disks stay in the array")
}

fn say_problems(screen: &Screen, report: &ArrayReport) {
    for problem in &report.problems {
        screen.say(&format!("    {}", problem.what));
        for (label, words) in [("now: ", &problem.action), ("risk:", &problem.risk)] {
            if !words.is_empty() {
                screen.say(&format!("      {label} {words}"));
            }
        }
    }
}

fn ending(summary: &Summary) -> String {
    let client = &summary.client;
    let worst = Duration::from_micros(client.slowest_us);
    format!(
        "\nTwo of {MEMBERS} disks died, one of them during the rebuild of the other. Meanwhile the client made {} requests\n\
         ({} written, {} read and checked): 0 errors, 0 wrong bytes, slowest answer {} ms.\n\
         {} bad reads mended; {} rebuilt in {:.1} s, held to {} until the second death.\n\
         {} verified at the end, and again after a restart. The whole demo took {:.1} s.",
        client.requests,
        size::bytes(client.written_bytes),
        size::bytes(client.read_bytes),
        worst.as_millis(),
        summary.disk_read_errors_mended,
        size::bytes(summary.rebuild_bytes),
        summary.rebuild_seconds,
        size::rate(WATCHABLE),
        size::bytes(summary.verified_bytes),
        summary.seconds,
    )
}

/// The rule that makes a disk misbehave.
fn rule(op: InjectOp, kind: InjectKind, count: Option<u64>) -> InjectRule {
    InjectRule { op, range: None, kind, count, percent: None, seed: 0 }
}

/// What the demo says before it begins.
fn opening(folder: &std::path::Path) -> String {
    format!(
        "An array of {} files of {} in {}: {MEMBERS} disks as RAID6, so any two may fail, and a spare.",
        MEMBERS + 1,
        size::bytes(DISK_SIZE),
        folder.display()
    )
}
