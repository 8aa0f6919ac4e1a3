//! Benches of Forestall against its peers, as ratios of one run.
//!
//! Owns the command line. `nbd` compares servers over a unix socket, `parity` kernels in one core, `accesses` counts disk accesses
//! per host request, which is deterministic. Absolute figures of a busy machine mean little: peers take turns within every
//! round, and what is reported are medians, and medians of the ratios of neighbouring runs.

mod accesses;
mod machine;
mod nbd;
mod parity;
mod stats;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde_json::Value;

/// What every bench hands back.
struct Report {
    /// For people.
    text: String,
    /// For programs, without the machine.
    json: Value,
    /// What could not be compared, and why.
    missing: Vec<String>,
    /// Everything that has one right answer had it.
    right: bool,
}

/// Benches of Forestall against its peers.
#[derive(Parser)]
#[command(name = "forestall-bench", version)]
struct Cli {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// NBD over a unix socket: `forestall serve memory:` against `nbdkit memory` and `qemu-nbd`
    Nbd(nbd::Options),
    /// XOR and P+Q against ISA-L and rusty_erasure, in one core
    Parity(parity::Options),
    /// Disk accesses per host request, counted; exit code 1 if one differs from what it should be
    Accesses,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let report = match &cli.bench {
        Bench::Nbd(options) => nbd::run(options),
        Bench::Parity(options) => parity::run(options),
        Bench::Accesses => accesses::run(),
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            eprintln!("forestall-bench: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let machine = machine::describe();
    if cli.json {
        let mut json = report.json;
        json["machine"] = machine.json();
        json["missing"] = report.missing.clone().into();
        println!("{json:#}");
    } else {
        println!("{machine}\n{}", report.text);
    }
    for missing in &report.missing {
        eprintln!("MISSING: {missing}");
    }
    if report.right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
