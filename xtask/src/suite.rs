//! The tests of the whole workspace, with their output passed on as it is, and added up.
//!
//! A test that lacks a client prints a line `NOT TESTED: reason` and passes. The harness hides what
//! a passing test prints, so it is told not to; those lines are collected for the summary.

use anyhow::Result;

use crate::ci::{Outcome, Verdict};
use crate::run;

const NOT_TESTED: &str = "NOT TESTED: ";
const RESULT: &str = "test result: ";

/// Runs `cargo test --workspace`; arguments given by hand replace the default ones after it.
pub fn run(args: &[&str]) -> Result<Outcome> {
    let mut command = run::cargo(&["test", "--workspace", "--no-fail-fast"]);
    if args.is_empty() {
        command.args(["--", "--show-output"]);
    }
    command.args(args);
    let (passed, lines) =
        run::watched(&mut command, |line| line.starts_with(RESULT) || line.contains(NOT_TESTED))?;

    let mut sum = Sum::default();
    let mut outcome = Outcome::passed_if(passed);
    for line in &lines {
        if let Some((_, reason)) = line.split_once(NOT_TESTED) {
            if !outcome.not_tested.iter().any(|known| known == reason) {
                outcome.not_tested.push(reason.to_owned());
            }
        } else {
            sum.add(line);
        }
    }
    if passed && args.is_empty() && sum.passed == 0 {
        outcome.verdict = Verdict::Failed;
        return Ok(outcome.with_note("no test ran"));
    }
    let note = format!("{} passed, {} failed, {} ignored", sum.passed, sum.failed, sum.ignored);
    println!("\ntests: {note}, in {} test programs", sum.programs);
    Ok(outcome.with_note(note))
}

/// The counts of all test programs together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    programs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Sum {
    /// Adds a closing line: `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; ...`.
    fn add(&mut self, line: &str) {
        self.programs += 1;
        let mut previous = "0";
        for word in line.split_whitespace() {
            let count = previous.parse().unwrap_or(0);
            match word {
                "passed;" => self.passed += count,
                "failed;" => self.failed += count,
                "ignored;" => self.ignored += count,
                _ => {}
            }
            previous = word;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_added_up() {
        let mut sum = Sum::default();
        sum.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 7 filtered out; 0.1s");
        sum.add("test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(sum, Sum { programs: 2, passed: 13, failed: 2, ignored: 1 });
    }
}
