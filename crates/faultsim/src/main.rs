//! `forestall-faultsim`: runs one seed, or searches many.
//!
//! Owns the command line alone. Exits with 0 when nothing was found, 1 when something was, 2 on wrong usage.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use forestall_engine::Level;
use forestall_faultsim::{
    Lines, Options, Search, all_scenarios, cells, play, play_cell, search, search_matrix, simulate,
};

/// The shipped engine under simulated disks, hosts, faults and crashes; one seed decides everything.
#[derive(Parser)]
#[command(name = "forestall-faultsim", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulates one seed and says what it did or found.
    Run {
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A scripted scenario instead of a random simulation; see `list`.
        #[arg(long)]
        scenario: Option<String>,
        /// A cell of the matrix of avoidances instead; see `matrix`.
        #[arg(long, conflicts_with = "scenario")]
        cell: Option<usize>,
        /// Prints every event.
        #[arg(long)]
        trace: bool,
        #[command(flatten)]
        shape: ShapeArgs,
    },
    /// Simulates many seeds on all cores.
    Search {
        /// How long, in minutes.
        #[arg(long, default_value_t = 1.0)]
        minutes: f64,
        /// How many seeds at most.
        #[arg(long, default_value_t = u64::MAX)]
        seeds: u64,
        /// First seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many failures end the search.
        #[arg(long, default_value_t = 1)]
        failures: usize,
        #[command(flatten)]
        shape: ShapeArgs,
    },
    /// Plays each level with each backup storage and each thing that may happen to it, for so long.
    Matrix {
        /// How long, in minutes.
        #[arg(long, default_value_t = 2.0)]
        minutes: f64,
        /// First seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Names the scripted scenarios.
    List,
}

#[derive(Args)]
struct ShapeArgs {
    /// Groups of this level alone: 0, 1, 5, 6 or 10.
    #[arg(long, value_parser = parse_level)]
    level: Option<Level>,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run { seed, scenario: None, cell: None, trace, shape } => {
            let lines = if trace { Lines::Print } else { Lines::Keep };
            match simulate(seed, Options { lines, level: shape.level }) {
                Ok(report) => {
                    print!("{report}");
                    println!("{:016x} hash of the trace", report.hash);
                    ExitCode::SUCCESS
                }
                Err(failure) => fail(&failure.to_string()),
            }
        }
        Command::Run { seed, scenario: Some(name), trace, .. } => {
            let lines = if trace { Lines::Print } else { Lines::Keep };
            match play(&name, seed, lines) {
                None => {
                    eprintln!("there is no scenario {name}; `forestall-faultsim list` names them");
                    ExitCode::from(2)
                }
                Some(Ok(())) => {
                    println!("{name}: nothing found");
                    ExitCode::SUCCESS
                }
                Some(Err(failure)) => fail(&failure.to_string()),
            }
        }
        Command::Search { minutes, seeds, from, failures, shape } => {
            let options = Options { lines: Lines::Off, level: shape.level };
            let time = Duration::from_secs_f64((minutes * 60.0).clamp(0.0, 1e9));
            run_search(Search { first: from, seeds, time, options, failures })
        }
        Command::Run { seed, cell: Some(cell), trace, .. } => {
            let lines = if trace { Lines::Print } else { Lines::Keep };
            let Some(what) = cells().get(cell).copied() else {
                eprintln!("there are {} cells", cells().len());
                return ExitCode::from(2);
            };
            match play_cell(cell, seed, lines) {
                Ok(()) => {
                    println!("{what}: nothing found");
                    ExitCode::SUCCESS
                }
                Err(failure) => fail(&failure.to_string()),
            }
        }
        Command::Matrix { minutes, seed } => {
            let time = Duration::from_secs_f64((minutes * 60.0).clamp(0.0, 1e9));
            let (passed, failed) = search_matrix(seed, time, |failure| eprintln!("{failure}\n"));
            println!(
                "{passed} cells found nothing, {failed} something; there are {}",
                cells().len()
            );
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Command::List => {
            for scenario in all_scenarios() {
                println!("{:<32} {}", scenario.name, scenario.story);
            }
            ExitCode::SUCCESS
        }
    }
}

fn run_search(what: Search) -> ExitCode {
    let start = Instant::now();
    let (passed, report, failures) = search(what, |failure| eprintln!("{failure}\n"));
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    print!("{report}");
    println!("{passed:>12} seeds found nothing, in {seconds:.1} s");
    println!("{:>12.0} host requests a second", report.requests as f64 / seconds);
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("{text}");
    ExitCode::FAILURE
}

fn parse_level(text: &str) -> Result<Level, String> {
    match text {
        "0" => Ok(Level::Raid0),
        "1" => Ok(Level::Raid1),
        "5" => Ok(Level::Raid5),
        "6" => Ok(Level::Raid6),
        "10" => Ok(Level::Raid10),
        _ => Err("one of 0, 1, 5, 6, 10".into()),
    }
}
