//! `check` and `repair`: an array without a server, for people and for scripts.
//!
//! Owns the words around the findings and the exit codes: 0 sound, 3 repairable, 4 something is lost.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use forestall_engine::words;
use forestall_server::{CheckReport, Finding, Grade, RepairPlan};
use serde::Serialize;

use super::Session;
use crate::args::{CheckArgs, RepairArgs};
use crate::say;

pub fn check(session: &Session, args: &CheckArgs) -> Result<ExitCode> {
    let report = forestall_server::check(&args.paths, &args.scan, args.data)?;
    session.print(&report, || page(&report))?;
    Ok(code(report.verdict))
}

/// What `repair` did, or would do.
#[derive(Serialize)]
struct Repaired {
    /// What was wrong, and what is written.
    plan: RepairPlan,
    /// The array as it is afterwards; absent if nothing was written.
    after: Option<CheckReport>,
}

pub fn repair(session: &Session, args: &RepairArgs) -> Result<ExitCode> {
    let plan = forestall_server::plan_repair(&args.paths, &args.scan)?;
    let text = plan_page(&plan);
    if args.dry_run || !plan.needed {
        let worst = plan.findings.iter().map(|f| f.grade).max().unwrap_or(Grade::Sound);
        let words = match (plan.needed, worst) {
            (true, _) => "nothing was written (--dry-run)",
            (false, Grade::Sound) => "nothing to repair",
            (false, _) => "nothing was written: none of this is for a repair to mend",
        };
        session.print(&Repaired { plan, after: None }, || format!("{text}{words}"))?;
        return Ok(code(worst));
    }
    if !session.json {
        // Said before it is done.
        session.print(&(), || text)?;
    }
    let after = forestall_server::repair(&args.paths, &args.scan, &|line| say::err(line))?;
    let verdict = after.verdict;
    let done = match verdict {
        Grade::Sound => "repaired; as it is now",
        _ => "what a repair can mend is mended; the rest is for the next `serve`, or for you",
    };
    let words = format!("{done}:\n{}", page(&after));
    session.print(&Repaired { plan, after: Some(after) }, || words)?;
    Ok(code(verdict))
}

fn code(verdict: Grade) -> ExitCode {
    ExitCode::from(match verdict {
        Grade::Sound => 0,
        Grade::Repairable => 3,
        Grade::Lost => 4,
    })
}

fn page(report: &CheckReport) -> String {
    let name =
        report.array.as_deref().map_or("no array".to_owned(), |name| format!("array {name}"));
    let disks = words::counted(report.paths.len() as u64, "disk");
    let verdict = match report.verdict {
        Grade::Sound => "SOUND",
        Grade::Repairable => "REPAIRABLE",
        Grade::Lost => "SOMETHING IS LOST",
    };
    let mut text = format!("{name}, {disks}: {verdict}\n");
    findings(&mut text, &report.findings);
    text += match report.data {
        true => "data was read and compared; nothing was written\n",
        false => "data was not read (--data does so); nothing was written\n",
    };
    text
}

fn findings(text: &mut String, findings: &[Finding]) {
    for finding in findings {
        let grade = match finding.grade {
            Grade::Sound => "note",
            Grade::Repairable => "REPAIRABLE",
            Grade::Lost => "LOST",
        };
        let _ =
            writeln!(text, "{grade}: {}: {}\n  {}", finding.about, finding.what, finding.way_out);
    }
}

fn plan_page(plan: &RepairPlan) -> String {
    let mut text = String::new();
    findings(&mut text, &plan.findings);
    if plan.needed {
        text += "a start and an orderly stop of the array write these regions (data: what the journal makes good):\n";
        plan.writes.iter().for_each(|line| {
            let _ = writeln!(text, "  {line}");
        });
    }
    text
}
