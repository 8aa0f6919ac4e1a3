//! The command behind `cargo xtask`: everything that a commit must pass, and the parts one by one.
//!
//! Owns the command line of the checks and nothing of the product: it never links a product crate,
//! so it builds and reports even when those do not compile. Each step lives in its own module and
//! answers with an [`Outcome`]; a step never prints a verdict of its own for the whole run.

mod ci;
mod deny;
mod fuzz;
mod mutants;
mod run;
mod setup;
mod suite;
mod tidy;

use std::process::ExitCode;
use std::time::Duration;

use crate::ci::{Outcome, Verdict};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  ci                  setup, then every check: fmt, tidy, deny, clippy, doc, fuzz, test
  setup               install the clients and tools that the tests use, or say which are missing
  test [ARG...]       the tests of the whole workspace; ARGs go to `cargo test`
  tidy                the style rules that a program can check
  deny                licences, sources and bans of the dependencies
  fuzz [--seconds N]  every fuzz target for N seconds (default 5)
  mutants [--minutes M] [--random-only] [NAME...]
                      plants known defects (all, or those that begin with NAME) and shows that the
                      simulator finds each within M minutes of search (default 3); not part of ci
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["ci"] => return ci::run(),
        ["setup"] => setup::run(),
        ["test", rest @ ..] => suite::run(rest),
        ["tidy"] => tidy::run(),
        ["deny"] => deny::run(),
        ["fuzz"] => fuzz::run(fuzz::DEFAULT_TIME),
        ["fuzz", "--seconds", n] => match n.parse() {
            Ok(n) if n > 0 => fuzz::run(Duration::from_secs(n)),
            _ => return usage(&format!("--seconds takes a whole number above 0, not `{n}`")),
        },
        ["mutants", rest @ ..] => match mutants_options(rest) {
            Ok(options) => mutants::run(&options),
            Err(problem) => return usage(&problem),
        },
        ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        [] => return usage("no command given"),
        _ => return usage(&format!("not understood: {}", words.join(" "))),
    };
    finish_one(outcome)
}

fn mutants_options(words: &[&str]) -> Result<mutants::Options, String> {
    let mut options = mutants::Options::default();
    let mut words = words.iter();
    while let Some(&word) = words.next() {
        match word {
            "--random-only" => options.random_only = true,
            "--minutes" => {
                let value = words.next().copied().unwrap_or_default();
                options.minutes = value.parse().unwrap_or_default();
                if !(options.minutes > 0.0 && options.minutes < 1e6) {
                    return Err(format!("--minutes takes a number above 0, not `{value}`"));
                }
            }
            _ if word.starts_with('-') => return Err(format!("not understood: {word}")),
            name => options.names.push(name.to_owned()),
        }
    }
    Ok(options)
}

/// Prints what one step on its own found, and turns it into the exit code.
fn finish_one(outcome: anyhow::Result<Outcome>) -> ExitCode {
    match outcome {
        Ok(outcome) => {
            ci::print_not_tested(&outcome.not_tested);
            if outcome.verdict == Verdict::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("error: {problem}\n\n{USAGE}");
    ExitCode::from(2)
}
