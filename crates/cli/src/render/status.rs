//! The page an administrator wants at 3 am.
//!
//! Owns its order: first whether all is well, then what is wrong, worst first, each with what is being done and what another
//! failure would cost; then work under way; then the array itself, calmly. One screen: where there are many disks only
//! those that need a look are listed. Which words a problem has is the engine's matter.

use std::collections::BTreeMap;
use std::fmt::Write;

use forestall_engine::{
    ArrayReport, DiskReport, DiskState, GroupReport, Health, JobReport, Problem,
};

use super::{Paint, health_word, tables};
use crate::size;

/// Up to this many disks are listed one by one.
const DISKS_SHOWN_MAX: usize = 12;

/// Characters of a progress bar.
const BAR: u64 = 24;

/// How to show it.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Colours or none.
    pub paint: Paint,
    /// List every disk.
    pub all_disks: bool,
}

/// The whole page. `nbd` is where clients connect.
#[must_use]
pub fn screen(report: &ArrayReport, nbd: &[String], look: &Look) -> String {
    let mut text = headline(report, look.paint);
    problems(&mut text, report, look.paint);
    if !report.jobs.is_empty() {
        text.push('\n');
        for job in &report.jobs {
            let _ = writeln!(text, "{}", job_line(job));
        }
    }
    let _ = writeln!(text, "\n{}", look.paint.bold("Groups"));
    if report.groups.is_empty() {
        text += "  none; `forestall group create` makes one\n";
    } else {
        let _ = write!(text, "{}", tables::groups(&report.groups, look.paint).indented(2));
    }
    let _ = writeln!(text, "\n{}", look.paint.bold("Disks"));
    disks(&mut text, report, look);
    let _ = writeln!(text, "\n{}", look.paint.bold("Volumes"));
    if report.volumes.is_empty() {
        text += "  none; `forestall volume create` makes one\n";
    } else {
        let _ = write!(text, "{}", tables::volumes(&report.volumes).indented(2));
    }
    if !nbd.is_empty() {
        let _ = writeln!(text, "\nServed over NBD at {}", nbd.join(" and "));
    }
    text
}

fn headline(report: &ArrayReport, paint: Paint) -> String {
    let word = paint.health(report.health, &health_word(report.health).to_uppercase());
    let up = size::duration(report.now_ms.saturating_sub(report.started_at_ms) / 1000);
    let is_note = |problem: &&Problem| problem.health == Health::Healthy;
    let notes = report.problems.iter().filter(is_note).count();
    let problems = report.problems.len() - notes;
    let summary: String = [(problems, "problem"), (notes, "note")]
        .into_iter()
        .filter(|(count, _)| *count != 0)
        .map(|(count, what)| format!(", {}", size::counted(count as u64, what)))
        .collect();
    let name = paint.bold(&report.name);
    let mut line = format!(
        "Array {name} is {word}{summary}.  Up {up}, as of {}.\n",
        size::local_time(report.now_ms)
    );
    if report.health == Health::Healthy && problems == 0 {
        line += &reserve(report);
    }
    line
}

/// What a healthy array could lose without anybody noticing.
fn reserve(report: &ArrayReport) -> String {
    let (bare, covered): (Vec<&GroupReport>, Vec<&GroupReport>) =
        report.groups.iter().partition(|group| group.failures_left == 0);
    let mut may: Vec<String> = Vec::new();
    if let Some(left) = covered.iter().map(|group| group.failures_left).min() {
        let which = if bare.is_empty() { "Every group" } else { "Every other group" };
        may.push(format!(
            "{which} can lose any {} without loss.",
            size::counted(left.into(), "disk")
        ));
    }
    for group in bare {
        let used = report.volumes.iter().any(|volume| volume.group == group.number);
        let cost =
            if used { "a failing disk of it loses data" } else { "it has no volume to lose" };
        let (number, level) = (group.number, tables::level_word(group.level));
        may.insert(0, format!("Group {number} ({level}) is without redundancy: {cost}."));
    }
    if may.is_empty() {
        return String::new();
    }
    let spares = report.disks.iter().filter(|disk| disk.state == DiskState::Spare).count();
    may.push(match spares {
        0 => "No spare stands by.".to_owned(),
        1 => "1 spare stands by.".into(),
        n => format!("{n} spares stand by."),
    });
    may.join(" ") + "\n"
}

fn problems(text: &mut String, report: &ArrayReport, paint: Paint) {
    for problem in &report.problems {
        let mark = match problem.health {
            Health::Failed => "!!",
            Health::Degraded => " !",
            Health::Healthy => " -",
        };
        let _ = writeln!(
            text,
            "\n{} {}",
            paint.health(problem.health, mark),
            paint.bold(&problem.what)
        );
        let action = if problem.health == Health::Healthy { "next" } else { "now" };
        for (label, words) in [(action, &problem.action), ("risk", &problem.risk)] {
            if !words.is_empty() {
                let _ = writeln!(text, "   {} {words}", paint.dim(&format!("{label:5}")));
            }
        }
    }
}

fn job_line(job: &JobReport) -> String {
    let percent = tables::percent(job);
    let full = percent * BAR / 100;
    let bar: String = (0..BAR).map(|at| if at < full { '#' } else { '.' }).collect();
    let done = format!("{} of {}", size::bytes(job.done_bytes), size::bytes(job.total_bytes));
    format!(
        "Job {}: {}  [{bar}] {percent} %  {done}, {}",
        job.id,
        tables::job_title(job),
        tables::job_pace(job)
    )
}

fn disks(text: &mut String, report: &ArrayReport, look: &Look) {
    let needs_a_look = |disk: &&DiskReport| tables::disk_health(disk) != Health::Healthy;
    let all = look.all_disks || report.disks.len() <= DISKS_SHOWN_MAX;
    let shown: Vec<DiskReport> =
        report.disks.iter().filter(|disk| all || needs_a_look(disk)).cloned().collect();
    if !shown.is_empty() {
        let _ = write!(text, "{}", tables::disks(&shown, look.paint).indented(2));
    }
    if !all {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for disk in report.disks.iter().filter(|disk| !needs_a_look(disk)) {
            *counts.entry(tables::disk_word(disk.state)).or_default() += 1;
        }
        let counts: Vec<String> = counts.iter().map(|(word, n)| format!("{n} {word}")).collect();
        if !counts.is_empty() {
            let _ = writeln!(text, "  {} without errors (`--all` lists them)", counts.join(", "));
        }
    }
}

#[cfg(test)]
mod tests;
