//! `demo`: an array on temporary files, a real NBD client, and disks that fail one after the other.
//!
//! Owns the story. It uses the shipped parts only: `create`, the server with its NBD and management sockets, and the NBD
//! client; disks are made to err and to fail through the management API. Invariant: every figure printed was measured in this run,
//! and the exit code is 0 only if every byte read back was the byte last written and no request of the client failed.

mod bench;
mod costs;
mod load;
mod screen;
mod story;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use forestall_disk::{InjectKind, InjectOp, InjectRule};
use serde::Serialize;

use crate::args::DemoArgs;
use crate::say;
use crate::size;
use bench::{Bench, DISK_SIZE, MEMBERS, SPARES, VOLUME, WORK_DISK};
use costs::Costs;
use load::{Load, Storm, Totals};
use screen::Screen;
use story::Told;

/// The figures at the end, as `--json` prints them.
#[derive(Debug, Serialize)]
struct Summary {
    filled_bytes: u64,
    fill_seconds: f64,
    client: Totals,
    story: Told,
    costs: Costs,
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
        say::out(serde_json::to_string_pretty(&summary)?);
    } else {
        say::out(ending(&summary));
    }
    if args.keep {
        say::out(bench.how_to_mount());
        bench.wait_stopped()?;
        say::out(format_args!("stopped; the disks are kept in {}", bench.folder().display()));
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
    let told = story::tell(bench, screen, &storm);
    let (model, client) = storm.stop()?;
    let story = told?;
    ensure!(client.wrong_blocks == 0, "{} blocks read back wrong", client.wrong_blocks);
    ensure!(client.errors == 0, "{} requests of the client failed", client.errors);

    let mut load = Load::reconnect(&bench.nbd_socket()?, VOLUME, model)?;
    load.flush()?;
    let verified_bytes =
        load.verify(|done, total| screen.progress("reading every byte back", done, total))?;
    screen.say(&format!("Every one of {} bytes reads back as last written.", verified_bytes));
    let costs = costs::measure(bench, screen, &mut load)?;
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
        story,
        costs,
        verified_bytes,
        verified_again_after_restart_bytes: again,
        seconds: begun.elapsed().as_secs_f64(),
    })
}

fn ending(summary: &Summary) -> String {
    let client = &summary.client;
    let worst = Duration::from_micros(client.slowest_us);
    let (story, costs) = (&summary.story, &summary.costs);
    format!(
        "\nA disk was copied away before it failed, and another one died when {} % of it were copied. Meanwhile the client made\n\
         {} requests ({} written, {} read and checked): 0 errors, 0 wrong bytes, slowest answer {} ms.\n\
         {} bad reads mended; up to {} redirected; whole again, with everything home, {:.1} s after the verdict,\n\
         the copy held to {} until the second death.\n\
         A host write during a copy cost the group {:.2} accesses shielded and {:.2} with `--backup direct`.\n\
         {} verified at the end, and again after a restart. The whole demo took {:.1} s.",
        story.copied_percent_at_second_death,
        client.requests,
        size::bytes(client.written_bytes),
        size::bytes(client.read_bytes),
        worst.as_millis(),
        story.read_errors_mended,
        size::bytes(story.redirected_blocks * 4096),
        story.avoidance_seconds,
        size::rate(story::WATCHABLE),
        costs.shielded.group,
        costs.direct.group,
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
        "An array of {} files of {} in {}: {MEMBERS} disks as RAID5, so any one may fail, {SPARES} spares, and work disk {WORK_DISK} on two legs.",
        MEMBERS + SPARES + 2,
        size::bytes(DISK_SIZE),
        folder.display()
    )
}
