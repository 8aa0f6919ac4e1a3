//! `forestall-faultsim`: runs one seed, or searches many.
//!
//! Owns the command line alone. Exits with 0 when nothing was found, 1 when something was, 2 on wrong usage.

use std::io::Write;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use forestall_engine::Level;
use forestall_faultsim::{
    Caps, DiskModel, Failure, Lines, Options, Search, all_scenarios, cells, measure_all, play,
    play_all, play_cell, search, search_matrix, shrink, simulate,
};

/// A line on standard output; nothing happens if nobody can read it, as in `list | head`.
macro_rules! out {
    ($($text:tt)*) => {{ let _unread = writeln!(std::io::stdout(), $($text)*); }};
}

/// As `out!`, on standard error.
macro_rules! err {
    ($($text:tt)*) => {{ let _unread = writeln!(std::io::stderr(), $($text)*); }};
}

/// The shipped engine under simulated disks, hosts, faults and crashes; one seed decides everything.
#[derive(Parser)]
#[command(name = "forestall-faultsim", version)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
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
        #[arg(long, default_value = "1", value_parser = parse_minutes)]
        minutes: Duration,
        /// How many seeds at most.
        #[arg(long, default_value_t = u64::MAX)]
        seeds: u64,
        /// First seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many failures end the search.
        #[arg(long, default_value_t = 1)]
        failures: usize,
        /// Plays every scripted scenario too, and fails if a cell of the avoidance event table, a path of recovery or a kind of fault was
        /// never reached.
        #[arg(long)]
        coverage: bool,
        /// Leaves what is found as large as it is.
        #[arg(long)]
        no_shrink: bool,
        #[command(flatten)]
        shape: ShapeArgs,
    },
    /// Plays each level with each backup storage and each thing that may happen to it, for so long.
    Matrix {
        /// How long, in minutes.
        #[arg(long, default_value = "2", value_parser = parse_minutes)]
        minutes: Duration,
        /// First seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Plays every scripted scenario, or those that are named, on all cores.
    Scenarios {
        /// Their names.
        names: Vec<String>,
        /// Under so many seeds each.
        #[arg(long, default_value_t = 1)]
        seeds: u64,
    },
    /// Measures hosts, healthy groups and copies in virtual time, on disks that take the time of a model.
    Measure {
        /// What the disks are: `hdd` or `ssd`.
        #[arg(long, default_value = "hdd", value_parser = parse_model)]
        disk: DiskModel,
        /// Groups of this level alone: 1, 5 or 6.
        #[arg(long, value_parser = parse_level)]
        level: Option<Level>,
        /// The seed.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Prints what the array told of and what each disk was asked in each case, too.
        #[arg(long)]
        details: bool,
    },
    /// Names the scripted scenarios.
    List,
}

#[derive(Args)]
struct ShapeArgs {
    /// Groups of this level alone: 0, 1, 5, 6 or 10.
    #[arg(long, value_parser = parse_level)]
    level: Option<Level>,
    /// At most so many runs of the machine.
    #[arg(long)]
    runs: Option<u64>,
    /// Only the first groups.
    #[arg(long)]
    groups: Option<usize>,
    /// At most so many operator's commands in each run.
    #[arg(long)]
    commands: Option<u64>,
    /// At most so many faults in each run.
    #[arg(long)]
    faults: Option<u64>,
    /// At most so many host requests in each run.
    #[arg(long)]
    requests: Option<u64>,
}

impl ShapeArgs {
    fn options(&self, lines: Lines) -> Options {
        let Self { level, runs, groups, commands, faults, requests } = *self;
        Options { lines, level, caps: Caps { runs, groups, commands, faults, requests } }
    }
}

/// A simulation that does not end cannot be left, only reported.
fn hung(story: Option<&'static str>, seed: u64) {
    let which = story.map_or_else(String::new, |name| format!(" --scenario {name}"));
    err!(
        "found by seed {seed}: the simulation does not end; replay it with `run --seed {seed}{which}` and a debugger"
    );
    if let Some(name) = story {
        err!("in scenario {name}");
    }
    std::process::exit(1);
}

/// How long a failure is shrunk.
const SHRINK: Duration = Duration::from_secs(60);

/// Tells a failure, which commit it is of, and with `shrinks` the smallest simulation of its seed that still finds something.
fn tell(failure: &Failure, options: Options, shrinks: bool) {
    err!("{failure}");
    err!("commit: {}", commit());
    if !shrinks {
        return;
    }
    match shrink(failure.seed, options, SHRINK) {
        Some((small, _)) if small.caps == options.caps => err!("nothing of it can be cut"),
        Some((_, small)) => err!("\nshrunk: {small}"),
        None => {
            err!("it found nothing when it was run again: the simulation is not deterministic")
        }
    }
}

/// The commit that is checked out, and whether files differ from it.
fn commit() -> String {
    let git = |args: &[&str]| {
        let output =
            Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(args).output();
        let output = output.ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "HEAD"]) else { return "unknown (no git here)".into() };
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => commit + ", with changes that are not committed",
    }
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Sub::Run { seed, scenario: None, cell: None, trace, shape } => {
            let options = shape.options(if trace { Lines::Print } else { Lines::Keep });
            match simulate(seed, options) {
                Ok(report) => {
                    let _unread = write!(std::io::stdout(), "{report}");
                    out!("{:016x} hash of the trace", report.hash);
                    ExitCode::SUCCESS
                }
                Err(failure) if trace => fail(&failure.to_string()),
                Err(failure) => {
                    tell(&failure, options, true);
                    ExitCode::FAILURE
                }
            }
        }
        Sub::Run { seed, scenario: Some(name), trace, .. } => {
            let lines = if trace { Lines::Print } else { Lines::Keep };
            match play(&name, seed, lines) {
                None => no_such_scenario(&name),
                Some(Ok(())) => {
                    out!("{name}: nothing found");
                    ExitCode::SUCCESS
                }
                Some(Err(failure)) => fail(&failure.to_string()),
            }
        }
        Sub::Search { minutes, seeds, from, failures, coverage, no_shrink, shape } => {
            let options = shape.options(Lines::Off);
            run_search(
                Search { first: from, seeds, time: minutes, options, failures, hung },
                coverage,
                !no_shrink,
            )
        }
        Sub::Run { seed, cell: Some(cell), trace, .. } => {
            let lines = if trace { Lines::Print } else { Lines::Keep };
            let Some(what) = cells().get(cell).copied() else {
                err!("there are {} cells", cells().len());
                return ExitCode::from(2);
            };
            match play_cell(cell, seed, lines) {
                Ok(()) => {
                    out!("{what}: nothing found");
                    ExitCode::SUCCESS
                }
                Err(failure) => fail(&failure.to_string()),
            }
        }
        Sub::Matrix { minutes, seed } => {
            let (passed, failed) = search_matrix(seed, minutes, |failure| err!("{failure}\n"));
            out!("{passed} cells found nothing, {failed} something; there are {}", cells().len());
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Sub::Scenarios { names, seeds } => run_scenarios(&names, seeds),
        Sub::Measure { disk, level, seed, details } => run_measure(disk, level, seed, details),
        Sub::List => {
            for scenario in all_scenarios() {
                out!("{:<32} {}", scenario.name, scenario.story);
            }
            ExitCode::SUCCESS
        }
    }
}

fn run_measure(disk: DiskModel, level: Option<Level>, seed: u64, details: bool) -> ExitCode {
    let table = match measure_all(disk, level, seed) {
        Ok(table) => table,
        Err(what) => return fail(&what),
    };
    let _unread = write!(std::io::stdout(), "{table}");
    for row in table.rows.iter().filter(|_| details) {
        out!("\n{}", row.details());
    }
    ExitCode::SUCCESS
}

fn run_scenarios(names: &[String], seeds: u64) -> ExitCode {
    if let Some(name) = names.iter().find(|name| !all_scenarios().any(|s| s.name == **name)) {
        return no_such_scenario(name);
    }
    match play_all(names, seeds, hung) {
        (played, _, None) => {
            out!("{played} plays found nothing");
            ExitCode::SUCCESS
        }
        (_, _, Some(failure)) => fail(&failure.to_string()),
    }
}

fn no_such_scenario(name: &str) -> ExitCode {
    err!("there is no scenario {name}; `forestall-faultsim list` names them");
    ExitCode::from(2)
}

fn run_search(what: Search, coverage: bool, shrinks: bool) -> ExitCode {
    let start = Instant::now();
    let (passed, mut report, failures) =
        search(what, |failure| err!("found by seed {}: {}", failure.seed, failure.what));
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    failures.iter().for_each(|failure| tell(failure, what.options, shrinks));
    let mut well = failures.is_empty();
    if coverage {
        let (_, cells, failure) = play_all(&[], 1, hung);
        report.add_cells(&cells);
        if let Some(failure) = failure {
            err!("{failure}\n");
            well = false;
        }
    }
    let _unread = write!(std::io::stdout(), "{report}");
    out!("{passed:>12} seeds found nothing, in {seconds:.1} s");
    out!("{:>12.0} host requests a second", report.requests as f64 / seconds);
    if coverage {
        for what in report.unreached() {
            err!("never reached: {what}");
            well = false;
        }
    }
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fail(text: &str) -> ExitCode {
    err!("{text}");
    ExitCode::FAILURE
}

fn parse_minutes(text: &str) -> Result<Duration, String> {
    let minutes = text.parse::<f64>().ok().filter(|minutes| *minutes > 0.0 && *minutes < 1e7);
    minutes
        .map(|minutes| Duration::from_secs_f64(minutes * 60.0))
        .ok_or_else(|| "a number of minutes above 0, such as 0.5".into())
}

fn parse_model(text: &str) -> Result<DiskModel, String> {
    DiskModel::named(text).ok_or_else(|| "one of hdd, ssd".into())
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
