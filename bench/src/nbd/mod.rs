//! NBD servers compared over a unix socket.
//!
//! Owns the order of a run: all servers are up and filled from the start; in every round of a case each of them is
//! measured once, one after the other, so that what else the machine does hits all alike. The ratio is the median over rounds
//! of ours to the neighbour's.

mod cases;
mod fio;
mod load;
mod servers;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::stats::{median, median_ratio};
use crate::{Report, table};
use cases::{CASES, Case};
use load::{Load, Measured};
use servers::Server;

/// `nbd`.
#[derive(Args, Clone)]
pub struct Options {
    /// Seconds of each single measurement
    #[arg(long, default_value_t = 1.0)]
    pub seconds: f64,
    /// Measurements of each server in each case; the median is reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// MiB that each server holds
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(16..))]
    pub mib: u64,
    /// What makes the load
    #[arg(long, default_value = "own")]
    pub client: ClientWord,
    /// Only cases whose name contains this
    #[arg(long, value_name = "TEXT")]
    pub only: Option<String>,
    /// Measure this build instead of building the source
    #[arg(long, value_name = "PATH")]
    pub forestall: Option<PathBuf>,
}

/// Load generators.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientWord {
    /// The client of this source tree
    Own,
    /// fio with its NBD engine
    Fio,
}

/// What one server did in one case, by round.
struct Rounds {
    rate: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    /// Processor time of the server for one request, in microseconds.
    cpu_us: Vec<f64>,
}

/// Runs the comparison.
///
/// # Errors
/// If a server that is installed does not start, or refuses a request.
pub fn run(options: &Options) -> Result<Report> {
    let program = match &options.forestall {
        Some(program) => program.clone(),
        None => servers::build()?,
    };
    // The files of qemu-nbd belong in memory, too.
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let dir = tempfile::Builder::new().prefix("forestall-bench").tempdir_in(parent)?;
    let size = options.mib << 20;
    let mut missing = Vec::new();
    let mut servers = vec![servers::forestall(&program, dir.path(), size)?];
    for (name, peer) in [
        ("nbdkit", servers::nbdkit(dir.path(), size)?),
        ("qemu-nbd", servers::qemu_nbd(dir.path(), size)?),
    ] {
        match peer {
            Some(peer) => servers.push(peer),
            None => missing.push(format!("{name} is not installed: not compared with it")),
        }
    }
    let mut loads = Vec::new();
    for server in &servers {
        loads.push(Load::connect(&server.socket, server.export).context(server.name)?);
    }
    // The smallest counts, so that all do the same: what is left of a disk after labels and maps.
    let size = loads.iter().map(Load::size).min().unwrap_or(0) >> 20 << 20;
    for (server, load) in servers.iter().zip(&mut loads) {
        load.prefill(size).with_context(|| format!("filling {}", server.name))?;
    }
    let mut results = Vec::new();
    for case in &CASES {
        if options.only.as_ref().is_none_or(|only| case.name.contains(only)) {
            results.push((case, measure(options, case, &servers, &mut loads, size)?));
        }
    }
    if results.is_empty() {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        bail!("no case has that in its name; there are: {}", names.join("; "));
    }
    Ok(Report {
        text: text(options, &servers, &results),
        json: json(&servers, &results),
        missing,
        right: true,
    })
}

fn measure(
    options: &Options,
    case: &Case,
    servers: &[Server],
    loads: &mut [Load],
    size: u64,
) -> Result<Vec<Rounds>> {
    let time = Duration::from_secs_f64(options.seconds);
    let mut all: Vec<Rounds> = servers.iter().map(|_| Rounds::new()).collect();
    for round in 1..=options.rounds {
        eprintln!("{}: round {round} of {}", case.name, options.rounds);
        for (place, server) in servers.iter().enumerate() {
            let before = server.cpu_seconds();
            let measured = match options.client {
                ClientWord::Own => loads[place].run(case, size, time),
                ClientWord::Fio => fio::run(&server.socket, server.export, case, size, time),
            };
            let measured = measured.with_context(|| format!("{}: {}", server.name, case.name))?;
            let cpu = server.cpu_seconds() - before;
            all[place].add(measured, cpu / measured.requests);
        }
    }
    Ok(all)
}

impl Rounds {
    fn new() -> Self {
        Self { rate: Vec::new(), p50_us: Vec::new(), p99_us: Vec::new(), cpu_us: Vec::new() }
    }

    fn add(&mut self, measured: Measured, cpu_seconds: f64) {
        self.rate.push(measured.rate);
        self.p50_us.push(measured.p50_us);
        self.p99_us.push(measured.p99_us);
        self.cpu_us.push(cpu_seconds * 1e6);
    }
}

fn text(options: &Options, servers: &[Server], results: &[(&Case, Vec<Rounds>)]) -> String {
    let mut text = String::new();
    for server in servers {
        text += &format!("{}: {} (pid {})\n", server.name, server.version, server.pid());
    }
    let client = if options.client == ClientWord::Own { "own" } else { "fio" };
    text += &format!(
        "load by {client}, {} s x {} rounds of each, {} MiB\n\n",
        options.seconds, options.rounds, options.mib
    );
    let mut rows = Vec::new();
    for (case, rounds) in results {
        for (server, own) in servers.iter().zip(rounds) {
            let figure = case.figure(median(&own.rate));
            let ratio = median_ratio(&rounds[0].rate, &own.rate);
            rows.push([
                case.name.to_owned(),
                server.name.to_owned(),
                format!("{figure:.0} {}", if case.in_bytes() { "MB/s" } else { "IOPS" }),
                if std::ptr::eq(own, &rounds[0]) { "".into() } else { format!("{ratio:.2}") },
                format!("{:.1}", median(&own.p50_us)),
                format!("{:.1}", median(&own.p99_us)),
                format!("{:.1}", median(&own.cpu_us)),
            ]);
        }
    }
    let head = ["case", "server", "figure", "ours / it", "p50 us", "p99 us", "server CPU us"];
    text += &table::render(head, &rows);
    text += &verdict(servers, results);
    text
}

/// Says plainly where the goal, no slower than nbdkit, is missed.
fn verdict(servers: &[Server], results: &[(&Case, Vec<Rounds>)]) -> String {
    let Some(nbdkit) = servers.iter().position(|server| server.name == "nbdkit") else {
        return "\nGOAL NOT JUDGED: nbdkit is missing\n".into();
    };
    let ratios = results
        .iter()
        .map(|(case, rounds)| (case.name, median_ratio(&rounds[0].rate, &rounds[nbdkit].rate)));
    let missed: Vec<String> = ratios
        .filter(|(_, ratio)| *ratio < 1.0)
        .map(|(name, ratio)| format!("{name} ({ratio:.2})"))
        .collect();
    match missed.as_slice() {
        [] => "\ngoal met: no slower than nbdkit in any of these cases\n".into(),
        missed => format!("\nGOAL MISSED, slower than nbdkit: {}\n", missed.join("; ")),
    }
}

fn json(servers: &[Server], results: &[(&Case, Vec<Rounds>)]) -> Value {
    let cases = results.iter().map(|(case, rounds)| {
        let servers = servers.iter().zip(rounds).map(|(server, own)| {
            json!({
                "server": server.name,
                "requests_per_second": own.rate,
                "median": case.figure(median(&own.rate)),
                "unit": if case.in_bytes() { "MB/s" } else { "IOPS" },
                "ours_to_it": median_ratio(&rounds[0].rate, &own.rate),
                "p50_us": median(&own.p50_us),
                "p99_us": median(&own.p99_us),
                "server_cpu_us": median(&own.cpu_us),
            })
        });
        json!({ "case": case.name, "servers": servers.collect::<Vec<_>>() })
    });
    let versions =
        servers.iter().map(|server| json!({ "server": server.name, "version": server.version }));
    json!({
        "bench": "nbd",
        "versions": versions.collect::<Vec<_>>(),
        "cases": cases.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The binary that `cargo test --workspace` makes for other tests; `None`, to build it, where only this crate is tested.
    fn beside_us() -> Option<PathBuf> {
        let us = std::env::current_exe().ok()?;
        let program = us.parent()?.parent()?.join("forestall");
        program.is_file().then_some(program)
    }

    #[test]
    fn every_case_runs_against_every_server_that_is_here() {
        let mut options = Options {
            seconds: 0.05,
            rounds: 1,
            mib: 32,
            client: ClientWord::Own,
            only: None,
            forestall: beside_us(),
        };
        let report = run(&options).unwrap();
        for missing in &report.missing {
            println!("NOT TESTED: bench nbd: {missing}");
        }
        let cases = report.json["cases"].as_array().unwrap();
        assert_eq!(cases.len(), CASES.len());
        for case in cases {
            let servers = case["servers"].as_array().unwrap();
            assert_eq!(servers.len() + report.missing.len(), 3);
            for server in servers {
                assert!(server["median"].as_f64().unwrap() > 0.0, "{server}");
                assert!(server["p50_us"].as_f64().unwrap() > 0.0, "{server}");
            }
        }
        assert!(report.text.contains("128 KiB sequential write"), "{}", report.text);

        if crate::machine::version_of("fio").is_none() {
            println!("NOT TESTED: bench nbd with fio (fio is not installed)");
            return;
        }
        options.client = ClientWord::Fio;
        options.only = Some("random write, depth 32".into());
        let report = run(&options).unwrap();
        assert!(report.text.contains("4 KiB random write, depth 32"), "{}", report.text);
    }
}
