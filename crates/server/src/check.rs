//! `check`: everything that can be told of an array without a server, and without writing a byte.
//!
//! Owns the look at all disks of an array. Each disk is looked at by itself first (`inspect`); then the array is assembled by the shipped engine,
//! on disks that are open for reading only and keep in memory what a start writes. So what is judged is what a start would make of the disks: which
//! configuration counts, every map page in both places, journals replayed, logs and bitmaps recovered. Invariants: nothing is written and
//! no background work runs; what is wrong is a finding, never an error; an error means that the disks are not to be had. What volumes
//! answer and whether copies and parity agree is `data`'s matter.

mod data;

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;

use forestall_disk::{AnyDisk, InjectedDisk, OverlayDisk, OwnError, PreadDisk};
use forestall_engine::format::label::LabelError;
use forestall_engine::{
    Array, AssembleError, AssembleOptions, DiskIdentity, Event, Health, LegDamage, NewDisk,
    Severity, words,
};
use serde::Serialize;

use crate::inspect::{Inspection, inspect};
use crate::open::{self, OpenError, distinct};
use crate::runtime::{self, CompioRuntime, ServerEnv};

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grade {
    /// Worth knowing; nothing is to be done.
    Sound,
    /// Redundancy gives it back: at the next start, by `repair`, or by a command that the finding names.
    Repairable,
    /// Nothing that is here gives it.
    Lost,
}

/// One thing found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// How much it matters.
    pub grade: Grade,
    /// The disk's path, or the array, group or volume.
    pub about: String,
    /// What is so.
    pub what: String,
    /// What follows, or what to do.
    pub way_out: String,
}

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct CheckReport {
    /// The worst of the findings.
    pub verdict: Grade,
    /// The array's name, if it could be told.
    pub array: Option<String>,
    /// Paths looked at.
    pub paths: Vec<String>,
    /// Whether volumes were read and copies and parity compared.
    pub data: bool,
    /// What was found, worst first.
    pub findings: Vec<Finding>,
}

/// Why nothing could be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A disk that somebody uses, or that was named twice.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A folder cannot be read.
    #[error("{path}: cannot look for disks: {error}; --scan takes folders, disks stand before it")]
    Scan {
        /// The folder.
        path: String,
        /// What the operating system says.
        error: std::io::Error,
    },
    /// Nothing was given or found.
    #[error("there is no disk of a Forestall array to look at: {0}")]
    NoDisks(String),
    /// The disks are not one array's, or a newer version's.
    #[error(transparent)]
    Refused(AssembleError),
    /// No runtime to be had.
    #[error("the operating system refuses: {0}")]
    System(std::io::Error),
}

/// A disk open for reading.
pub(crate) struct Looked {
    pub(crate) disk: Rc<PreadDisk>,
    pub(crate) identity: DiskIdentity,
    pub(crate) inspection: Inspection,
}

/// An array assembled on overlays, which stand in the order of the disks.
pub(crate) type Assembled = (Rc<Array<ServerEnv>>, Vec<OverlayDisk>);

impl Finding {
    fn new(grade: Grade, about: impl fmt::Display, what: impl Into<String>, way_out: &str) -> Self {
        Self { grade, about: about.to_string(), what: what.into(), way_out: way_out.into() }
    }
}

/// Looks at an array.
///
/// # Errors
/// [`CheckError`], if there is nothing to look at or somebody uses it.
pub fn check(paths: &[String], scan: &[PathBuf], data: bool) -> Result<CheckReport, CheckError> {
    runtime::build().map_err(CheckError::System)?.block_on(async {
        let (disks, mut strangers) = look(paths, scan).await?;
        let mut findings = of_disks(&disks);
        let paths = disks.iter().map(|disk| disk.identity.path.clone()).collect();
        let mut array = None;
        if let Some((assembled, _overlays)) = assemble(&disks, &mut findings).await? {
            array = Some(assembled.report().name);
            strangers_are_none_of(&assembled, &mut strangers);
            judge(&assembled, &mut findings);
            findings.extend(of_legs(&assembled, data).await);
            if data {
                data::check(&assembled, &mut findings).await;
            }
        }
        findings.extend(strangers);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.grade));
        let verdict = findings.first().map_or(Grade::Sound, |finding| finding.grade);
        Ok(CheckReport { verdict, array, paths, data, findings })
    })
}

/// Opens every disk for reading and looks at each by itself. Answers the disks, and what is to be told of paths that are, or may be, none of the array.
pub(crate) async fn look(
    paths: &[String],
    scan: &[PathBuf],
) -> Result<(Vec<Looked>, Vec<Finding>), CheckError> {
    let mut paths = paths.to_vec();
    let scanned = open::scan(scan)
        .map_err(|(dir, error)| CheckError::Scan { path: dir.display().to_string(), error })?;
    distinct::check(&paths)?;
    distinct::add_scanned(&mut paths, scanned);
    let (mut disks, mut strangers) = (Vec::new(), Vec::new());
    for path in paths {
        let opened = match open::open_read_only(&path).await {
            Err(error @ OpenError::Own(OwnError::InUse { .. })) => return Err(error.into()),
            opened => opened.map_err(|error| error.to_string()),
        };
        let looked = opened.and_then(|(disk, identity)| {
            let inspection = inspect(&path).map_err(|error| error.to_string())?;
            Ok(Looked { disk, identity, inspection })
        });
        match looked {
            Ok(looked) => {
                strangers.extend(unlabelled(&looked.inspection));
                disks.push(looked);
            }
            Err(why) => strangers.push(Finding::new(
                Grade::Repairable,
                &path,
                why.strip_prefix(&format!("{path}: ")).unwrap_or(&why),
                "counted as missing: the groups' findings tell what that costs",
            )),
        }
    }
    if disks.iter().all(|disk| is_foreign(&disk.inspection)) {
        let why = strangers.into_iter().map(|f| format!("{}: {}", f.about, f.what));
        let why: Vec<String> = why.collect();
        let none = "none was given, and none was found".to_owned();
        return Err(CheckError::NoDisks(if why.is_empty() { none } else { why.join("; ") }));
    }
    Ok((disks, strangers))
}

/// Whether nothing tells that this is, or was, a disk of an array.
fn is_foreign(found: &Inspection) -> bool {
    let no_label = LabelError::NotOurs.to_string();
    found.label.is_none() && found.labels.iter().all(|label| *label == no_label)
}

/// An array that lacks no disk has nothing to do with what cannot be opened or has no label, such as a path mistyped.
pub(crate) fn strangers_are_none_of(array: &Array<ServerEnv>, strangers: &mut [Finding]) {
    if of_this_start(array).iter().any(|event| event.kind == "disk-missing") {
        return;
    }
    for stranger in strangers {
        stranger.grade = Grade::Sound;
        "none of the array, which lacks no disk".clone_into(&mut stranger.way_out);
    }
}

/// A disk without a label.
fn unlabelled(found: &Inspection) -> Option<Finding> {
    if found.label.is_none() {
        let what = format!("no label can be used: {}; copy: {}", found.labels[0], found.labels[1]);
        let way = "counted as missing. If it was a member of the array: serve without it, and give it back as a new disk with \
                   `forestall disk add PATH --force`";
        return Some(Finding::new(Grade::Repairable, &found.path, what, way));
    }
    None
}

/// What the disks show by themselves.
pub(crate) fn of_disks(disks: &[Looked]) -> Vec<Finding> {
    disks.iter().flat_map(|disk| of_disk(&disk.inspection)).collect()
}

fn of_disk(found: &Inspection) -> Vec<Finding> {
    let path = &found.path;
    let mends = if found.cut_short {
        "counted as missing: give it its old size back, or give it to the array as a new disk with `forestall disk add PATH --force`, if it is large enough"
    } else {
        "`forestall repair` or the next `serve` writes it anew from what is whole"
    };
    let damage = found.damage.iter().map(|what| Finding::new(Grade::Repairable, path, what, mends));
    let passes = "nothing to do: it is overwritten in the course of time";
    let notes = found.notes.iter().map(|what| Finding::new(Grade::Sound, path, what, passes));
    damage.chain(notes).collect()
}

/// New overlays over the disks, and the array that a start with `options` makes of them.
pub(crate) async fn attempt(
    disks: &[Looked],
    options: AssembleOptions,
) -> Result<Assembled, AssembleError> {
    let overlays: Vec<OverlayDisk> =
        disks.iter().map(|looked| OverlayDisk::new(Rc::clone(&looked.disk))).collect();
    let new = disks.iter().zip(&overlays).map(|(looked, overlay)| NewDisk {
        disk: InjectedDisk::new(AnyDisk::Overlay(overlay.clone())),
        identity: looked.identity.clone(),
    });
    let assembled = Array::assemble(CompioRuntime::new(), new.collect(), options).await;
    assembled.map(|array| (array, overlays)).map_err(|(error, _)| error)
}

/// Assembles as a start would, then with what an operator may allow, as far as needed.
async fn assemble(
    disks: &[Looked],
    findings: &mut Vec<Finding>,
) -> Result<Option<Assembled>, CheckError> {
    let mut options = AssembleOptions::default();
    loop {
        let error = match attempt(disks, options.clone()).await {
            Ok(assembled) => return Ok(Some(assembled)),
            Err(error) => error,
        };
        let grade = match &error {
            AssembleError::Mixed(_) | AssembleError::TooNew(_) => {
                return Err(CheckError::Refused(error));
            }
            AssembleError::TooFew(_) if !options.degraded => {
                options.degraded = true;
                Grade::Repairable
            }
            AssembleError::WriteHole(_) if !options.accept_write_hole => {
                options.accept_write_hole = true;
                Grade::Lost
            }
            AssembleError::Shield(_) if !options.give_up_backups => {
                options.give_up_backups = true;
                Grade::Lost
            }
            _ => {
                let way =
                    "the array does not start like this; docs/operations.md has a chapter for it";
                findings.push(Finding::new(Grade::Lost, "the array", error.to_string(), way));
                return Ok(None);
            }
        };
        let way = "it does not start by itself like this; the other findings are those of a start that was told to";
        findings.push(Finding::new(grade, "the array", error.to_string(), way));
    }
}

/// What the assembled array tells of itself.
pub(crate) fn judge(array: &Rc<Array<ServerEnv>>, findings: &mut Vec<Finding>) {
    let report = array.report();
    for problem in &report.problems {
        let grade = match problem.health {
            Health::Healthy => Grade::Sound,
            Health::Degraded => Grade::Repairable,
            Health::Failed => Grade::Lost,
        };
        let said = [problem.action.as_str(), &problem.risk];
        let said = said.into_iter().filter(|words| !words.is_empty()).collect::<Vec<_>>();
        let way = format!("a start says to that: {}", said.join("; "));
        findings.push(Finding::new(grade, "the array", &problem.what, &way));
    }
    for group in report.groups.iter().filter(|group| group.lost_blocks > 0) {
        let what = format!("{} blocks of 4096 bytes are listed lost", group.lost_blocks);
        let way = "they answer EIO until they are written anew; restore them from a backup";
        findings.push(Finding::new(Grade::Lost, format!("group {}", group.number), what, way));
    }
    for event in of_this_start(array) {
        let grade = match (event.severity, event.kind.as_str()) {
            (Severity::Critical, _) => Grade::Lost,
            (_, "journal-replayed") => Grade::Sound,
            _ => continue,
        };
        let way = "a start in memory, which changes no disk, came to this; `forestall repair` or the next `serve` does it on the disks";
        findings.push(Finding::new(grade, "the array", &event.message, way));
    }
}

/// What the legs of work disks lack that another leg has.
async fn of_legs(array: &Array<ServerEnv>, data: bool) -> Vec<Finding> {
    let disks = array.report().disks;
    let path = |damage: &LegDamage| {
        let disk = disks.iter().find(|disk| disk.number == damage.disk);
        disk.map_or_else(|| damage.disk.to_string(), |disk| disk.identity.path.clone())
    };
    let mut findings = Vec::new();
    for damage in array.damage_of_legs(data).await {
        let table = (
            damage.pages,
            format!(
                "{} of the table of redirected writes damaged",
                words::counted(damage.pages, "page")
            ),
            "`forestall repair` or the next `serve` writes it anew from the other legs",
        );
        let payload = (
            damage.blocks,
            format!(
                "{} of redirected writes not as written",
                words::counted(damage.blocks, "block")
            ),
            "they are had from the other legs if those hold them, and written anew when they are read or go home; watch the disk, it may be failing",
        );
        for (_, what, way) in [table, payload].into_iter().filter(|(count, ..)| *count > 0) {
            findings.push(Finding::new(Grade::Repairable, path(&damage), what, way));
        }
    }
    findings
}

/// What the start that was tried told: journals are replayed before it is announced.
pub(crate) fn of_this_start(array: &Array<ServerEnv>) -> Vec<Event> {
    let mut events = array.events_after(0);
    let mut from = events.iter().rposition(|e| e.kind == "array-started").unwrap_or(events.len());
    while from > 0 && events[from - 1].kind == "journal-replayed" {
        from -= 1;
    }
    events.split_off(from)
}

#[cfg(test)]
mod tests;
