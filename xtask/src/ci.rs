//! The whole run: every step in order, none skipped because an earlier one failed, and a summary.
//!
//! A step fails, passes, or could not be done. What could not be done is never silent: it is
//! collected from all steps and stands in a block of its own after the table.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{deny, fuzz, run, setup, suite, tidy};

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The step did all it should and found nothing wrong.
    Passed,
    /// The step found something wrong, or could not run for a reason that is the project's own.
    Failed,
    /// The step could not run because this machine lacks something.
    NotTested,
}

/// What a step reports.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// A few words for the table.
    pub note: String,
    /// What this machine kept from being tested, one sentence each.
    pub not_tested: Vec<String>,
}

impl Outcome {
    /// Passed or failed, with nothing left out.
    pub fn passed_if(passed: bool) -> Self {
        let verdict = if passed { Verdict::Passed } else { Verdict::Failed };
        Self { verdict, note: String::new(), not_tested: Vec::new() }
    }

    /// The step could not run at all.
    pub fn not_tested(why: String) -> Self {
        Self { verdict: Verdict::NotTested, note: String::new(), not_tested: vec![why] }
    }

    /// The same outcome with a note for the table.
    pub fn with_note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }
}

struct Row {
    step: &'static str,
    took: Duration,
    outcome: Outcome,
}

type Step = (&'static str, fn() -> Result<Outcome>);

/// Quick checks come first; the tests come last, so that their closing lines end the log.
const STEPS: [Step; 8] = [
    ("setup", setup::run),
    ("fmt", fmt),
    ("tidy", tidy::run),
    ("deny", deny::run),
    ("clippy", clippy),
    ("doc", doc),
    ("fuzz", || fuzz::run(fuzz::DEFAULT_TIME)),
    ("test", || suite::run(&[])),
];

/// Runs every step and prints the summary.
pub fn run() -> ExitCode {
    let rows: Vec<Row> = STEPS.into_iter().map(run_step).collect();
    print_table(&rows);
    let mut not_tested = Vec::new();
    for sentence in rows.iter().flat_map(|row| &row.outcome.not_tested) {
        if !not_tested.contains(sentence) {
            not_tested.push(sentence.clone());
        }
    }
    print_not_tested(&not_tested);
    let failed: Vec<&str> =
        rows.iter().filter(|r| r.outcome.verdict == Verdict::Failed).map(|r| r.step).collect();
    match (failed.is_empty(), not_tested.len()) {
        (false, _) => {
            println!("ci: FAILED: {}", failed.join(", "));
            return ExitCode::FAILURE;
        }
        (true, 0) => println!("ci: passed"),
        (true, n) => println!("ci: passed, with {n} thing(s) NOT TESTED, listed above"),
    }
    ExitCode::SUCCESS
}

fn run_step((step, work): Step) -> Row {
    println!("\n=== {step} ===");
    let start = Instant::now();
    let outcome = work().unwrap_or_else(|error| {
        eprintln!("error: {step}: {error:#}");
        Outcome::passed_if(false).with_note("could not run, see its output")
    });
    Row { step, took: start.elapsed(), outcome }
}

fn fmt() -> Result<Outcome> {
    let product = run::succeeds(&mut run::cargo(&["fmt", "--all", "--", "--check"]))?;
    let manifest = ["fmt", "--manifest-path", "fuzz/Cargo.toml", "--", "--check"];
    let fuzz = run::succeeds(&mut run::cargo(&manifest))?;
    Ok(Outcome::passed_if(product && fuzz))
}

fn clippy() -> Result<Outcome> {
    let args = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    Ok(Outcome::passed_if(run::succeeds(&mut run::cargo(&args))?))
}

fn doc() -> Result<Outcome> {
    let mut doc = run::cargo(&["doc", "--workspace", "--no-deps"]);
    Ok(Outcome::passed_if(run::succeeds(doc.env("RUSTDOCFLAGS", "-D warnings"))?))
}

fn print_table(rows: &[Row]) {
    println!("\n=== summary ===\n{:<8} {:<11} {:>8}  note", "step", "result", "seconds");
    for Row { step, took, outcome } in rows {
        let result = match outcome.verdict {
            Verdict::Passed if !outcome.not_tested.is_empty() => "incomplete",
            Verdict::Passed => "ok",
            Verdict::Failed => "FAILED",
            Verdict::NotTested => "NOT TESTED",
        };
        let line = format!("{step:<8} {result:<11} {:>8.1}  {}", took.as_secs_f64(), outcome.note);
        println!("{}", line.trim_end());
    }
}

/// Prints the block that names everything this machine kept from being tested.
pub fn print_not_tested(sentences: &[String]) {
    if sentences.is_empty() {
        return;
    }
    let bar = "!".repeat(78);
    println!("\n{bar}");
    for sentence in sentences {
        println!("NOT TESTED: {sentence}");
    }
    println!("{bar}");
}
