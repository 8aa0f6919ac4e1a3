//! Rules for Rust files: a header that says what the file owns, lengths that a reader can hold,
//! nothing unfinished, no test that waits by the clock, `unsafe` only where it is fenced.

use super::Finding;
use super::source::{Source, words};

const LINES_MAX: usize = 600;
const CODE_LINES_AIM: usize = 400;
const FUNCTION_LINES_MAX: usize = 100;
const FUNCTION_LINES_AIM: usize = 70;

/// Where unsafe code may stand: SIMD, buffers for the kernel, and ISA-L as a peer in benches.
const UNSAFE_HOMES: [&str; 3] = ["crates/parity/", "crates/disk/", "bench/"];

/// What a finished change does not hold.
const UNFINISHED: [(&str, &str); 4] = [
    ("todo!", "todo! in committed code"),
    ("unimplemented!", "unimplemented! in committed code"),
    ("dbg!", "dbg! in committed code"),
    ("#[ignore", "an ignored test: fix it or remove it"),
];

/// Checks one file.
pub fn check(path: &str, content: &str) -> Vec<Finding> {
    let source = Source::new(content);
    let mut findings = Vec::new();
    if !content.starts_with("//!") {
        let what = "the first line must be `//!`: what the file owns, and its invariants";
        findings.push(Finding::fatal(1, what));
    }
    lengths(path, content, &source, &mut findings);
    words_of_code(path, &source, &mut findings);
    for (line, comment) in source.comments() {
        let open = ["TODO", "FIXME", "XXX"].iter().any(|w| words(comment, w).next().is_some());
        if open && !names_an_issue(comment) {
            findings.push(Finding::fatal(line, "a TODO carries its issue, as #12, or goes"));
        }
    }
    findings
}

fn lengths(path: &str, content: &str, source: &Source, findings: &mut Vec<Finding>) {
    let total = content.lines().count();
    let code =
        source.code().filter(|(n, line)| !line.trim().is_empty() && !is_test(path, source, *n));
    let code = code.count();
    if total > LINES_MAX {
        let what = format!("{total} lines; {LINES_MAX} are allowed: split the file");
        findings.push(Finding::fatal(0, what));
    } else if code > CODE_LINES_AIM {
        let what = format!("{code} lines of code; aim for {CODE_LINES_AIM} or fewer");
        findings.push(Finding::warning(0, what));
    }
    for function in source.functions() {
        let (start, end) = function.lines.into_inner();
        let (name, length) = (function.name, end - start + 1);
        if length > FUNCTION_LINES_MAX {
            let what = format!("fn {name}: {length} lines; {FUNCTION_LINES_MAX} are allowed");
            findings.push(Finding::fatal(start, what));
        } else if length > FUNCTION_LINES_AIM {
            let what = format!("fn {name}: {length} lines; aim for {FUNCTION_LINES_AIM} or fewer");
            findings.push(Finding::warning(start, what));
        }
    }
}

fn words_of_code(path: &str, source: &Source, findings: &mut Vec<Finding>) {
    for (line, code) in source.code() {
        for (word, what) in UNFINISHED {
            let found = code.find(word);
            if found
                .is_some_and(|at| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
            {
                findings.push(Finding::fatal(line, what));
            }
        }
        if words(code, "unsafe").next().is_some()
            && !UNSAFE_HOMES.iter().any(|home| path.starts_with(home))
        {
            findings.push(Finding::fatal(line, "unsafe outside parity, disk and bench"));
        }
        // The pause between two looks at a condition is fine; a guess at how long it takes is not.
        let polls = source.comment_near(line).to_lowercase().contains("poll");
        if code.contains("thread::sleep") && !polls && is_test(path, source, line) {
            let what = "a test waits for a condition, not for time; a pause between polls of one \
                        says `poll` in its comment";
            findings.push(Finding::fatal(line, what));
        }
    }
}

fn is_test(path: &str, source: &Source, line: usize) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
        || source.test_modules().iter().any(|lines| lines.contains(&line))
}

fn names_an_issue(comment: &str) -> bool {
    comment
        .match_indices('#')
        .any(|(at, _)| comment[at + 1..].starts_with(|c: char| c.is_ascii_digit()))
}
