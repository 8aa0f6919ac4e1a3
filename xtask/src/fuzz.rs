//! The fuzz targets, built with the pinned stable toolchain and run for a bounded time.
//!
//! `fuzz/` is a workspace of its own, so that libFuzzer never enters a normal build. Coverage comes
//! from LLVM's sanitizer-coverage pass, which stable rustc can switch on; neither cargo-fuzz nor a
//! nightly toolchain is needed. Inputs that reached new code stay in `fuzz/corpus` (not committed),
//! so that the next run goes on from there; `fuzz/seeds` holds the committed beginnings.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::ci::Outcome;
use crate::{run, setup};

/// How long each target runs unless told otherwise.
pub const DEFAULT_TIME: Duration = Duration::from_secs(5);

/// A decoder that needs more than this for one small input allocates by an unchecked length.
const MEMORY_MIB: u32 = 512;
/// A decoder that needs longer than this for one small input does not end.
const INPUT_SECONDS: u32 = 10;
/// Longer than any structure that the targets decode.
const INPUT_BYTES: u32 = 64 * 1024;

const RUSTFLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Keeps comparisons apart that the optimiser would merge: each is a step the fuzzer can see.
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "--cfg",
    "fuzzing",
];

/// Builds every target and runs each for `time`, as many at once as there are processors.
pub fn run(time: Duration) -> Result<Outcome> {
    if !setup::has_cpp_compiler() {
        return Ok(Outcome::not_tested("fuzzing (no C++ compiler for libFuzzer)".to_owned()));
    }
    let home = run::root().join("fuzz");
    let targets = targets(&home)?;
    let Some(binaries) = build(&home)? else {
        return Ok(Outcome::passed_if(false).with_note("the fuzz targets do not build"));
    };
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let mut failed = Vec::new();
    for batch in targets.chunks(at_once) {
        let runs: Vec<Run> =
            batch.iter().map(|t| Run::start(&home, &binaries, t, time)).collect::<Result<_>>()?;
        for run in runs {
            let name = run.target.clone();
            if !run.finish()? {
                failed.push(name);
            }
        }
    }
    let note = match failed.is_empty() {
        true => format!("{} targets, {} s each", targets.len(), time.as_secs()),
        false => format!("failed: {}", failed.join(", ")),
    };
    Ok(Outcome::passed_if(failed.is_empty()).with_note(note))
}

/// The targets by name, in order. Each must have seeds: without a valid beginning a fuzzer spends
/// a short run on the first magic number.
fn targets(home: &Path) -> Result<Vec<String>> {
    let sources = home.join("fuzz_targets");
    let mut names = Vec::new();
    for entry in sources.read_dir().with_context(|| format!("cannot list {}", sources.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            let stem = path.file_stem().expect("a file with an extension has a stem");
            names.push(stem.to_string_lossy().into_owned());
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "no fuzz targets in {}", sources.display());
    for name in &names {
        let seeds = home.join("seeds").join(name);
        let seeded = seeds.read_dir().is_ok_and(|mut entries| entries.next().is_some());
        ensure!(seeded, "fuzz target {name} has no seeds: put some into {}", seeds.display());
    }
    Ok(names)
}

/// Builds all targets; returns the directory that holds them, or nothing if they do not compile.
fn build(home: &Path) -> Result<Option<PathBuf>> {
    let version = run::output(run::cargo(&["--version", "--verbose"]).env_remove("RUSTFLAGS"))?;
    let Some(host) = version.lines().find_map(|line| line.strip_prefix("host: ")) else {
        bail!("cargo does not name its host");
    };
    let target_dir = home.join("target");
    // Naming the host as the target keeps the flags away from build scripts, which could not link.
    let mut build = run::cargo(&["build", "--release", "--bins", "--target", host]);
    build.arg("--manifest-path").arg(home.join("Cargo.toml"));
    build.env("CARGO_TARGET_DIR", &target_dir).env_remove("RUSTFLAGS");
    build.env("CARGO_ENCODED_RUSTFLAGS", RUSTFLAGS.join("\x1f"));
    let built = run::succeeds(&mut build)?;
    Ok(built.then(|| target_dir.join(host).join("release")))
}

/// One running target.
struct Run {
    target: String,
    child: Child,
    log: PathBuf,
    artifacts: PathBuf,
}

impl Run {
    fn start(home: &Path, binaries: &Path, target: &str, time: Duration) -> Result<Self> {
        let corpus = home.join("corpus").join(target);
        let artifacts = home.join("artifacts").join(target);
        std::fs::create_dir_all(&corpus)?;
        std::fs::create_dir_all(&artifacts)?;
        let log = artifacts.join("log.txt");
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new(binaries.join(target))
            .arg(format!("-max_total_time={}", time.as_secs()))
            .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
            .arg(format!("-timeout={INPUT_SECONDS}"))
            .arg(format!("-max_len={INPUT_BYTES}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg("-print_final_stats=1")
            .arg(corpus)
            .arg(home.join("seeds").join(target))
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start fuzz target {target}"))?;
        Ok(Self { target: target.to_owned(), child, log, artifacts })
    }

    /// Waits for the end; prints one line for success, and everything needed to replay a failure.
    fn finish(mut self) -> Result<bool> {
        let status = self.child.wait()?;
        // The log may quote input bytes, which need not be UTF-8.
        let log = String::from_utf8_lossy(&std::fs::read(&self.log)?).into_owned();
        if status.success() {
            let Summary { executions, coverage } = Summary::of(&log);
            println!("{}: {executions} inputs, {coverage} edges, no failure", self.target);
            return Ok(executions > 0);
        }
        println!("{}: FAILED ({status}); from its log, {}:", self.target, self.log.display());
        for line in telling_part(&log) {
            println!("    {line}");
        }
        let named = log.lines().find_map(|l| l.split_once("Test unit written to ")).map(|p| p.1);
        match named {
            Some(artifact) => println!(
                "{}: input: {artifact}\n{}: replay: fuzz/target/*/release/{} {artifact}",
                self.target, self.target, self.target
            ),
            None => println!("{}: no input was saved in {}", self.target, self.artifacts.display()),
        }
        Ok(false)
    }
}

/// The lines of a failed run that tell why: from the panic or libFuzzer's own error on, cut short,
/// since libFuzzer also prints the whole input.
fn telling_part(log: &str) -> Vec<String> {
    let tells = |l: &&str| l.contains("panicked at") || l.contains("ERROR: libFuzzer");
    let start = log.lines().position(|l| tells(&l)).unwrap_or(0);
    log.lines().skip(start).take(25).map(|l| l.chars().take(200).collect()).collect()
}

/// What libFuzzer says at the end of a run.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    executions: u64,
    coverage: u64,
}

impl Summary {
    fn of(log: &str) -> Self {
        let after = |line: &str, key: &str| {
            let (_, rest) = line.split_once(key)?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let executions = log.lines().find_map(|l| after(l, "stat::number_of_executed_units:"));
        let coverage = log.lines().rev().find_map(|l| after(l, " cov: "));
        Self { executions: executions.unwrap_or(0), coverage: coverage.unwrap_or(0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_reads_the_last_coverage() {
        let log = "#2\tINITED cov: 5 ft: 6\n#9\tNEW    cov: 12 ft: 20 corp: 3/9b\n\
                   stat::number_of_executed_units: 4711\nstat::average_exec_per_sec: 9\n";
        assert_eq!(Summary::of(log), Summary { executions: 4711, coverage: 12 });
    }

    #[test]
    fn a_failure_is_told_from_the_panic_on() {
        let log = format!("#1 INITED\nthread 'a' panicked at x.rs:1:\nno\n0x{}\n", "0".repeat(500));
        let told = telling_part(&log);
        assert_eq!((told.len(), told[1].as_str(), told[2].len()), (3, "no", 200));
    }

    #[test]
    fn a_log_without_statistics_counts_as_nothing_run() {
        assert_eq!(Summary::of("no such thing\n"), Summary { executions: 0, coverage: 0 });
    }
}
