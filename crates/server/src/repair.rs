//! `repair`: makes good, without serving, what redundancy gives back.
//!
//! Owns nothing that decides: a repair is a start and an orderly stop of the shipped engine, so it writes what `serve` would (labels and configurations from
//! whole copies, map pages from other members, journals and logs made good) and nothing else. Invariants: what will be written is found out first, on
//! disks that are only read, and is told before the first byte is written; disks in use are refused; nothing is overridden: what a start refuses
//! is refused here, with the way out, and so is an array of which a disk is missing, because a start would go on without it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use forestall_engine::{Array, AssembleError, AssembleOptions};
use serde::Serialize;

use crate::check::{self, CheckError, CheckReport, Finding, Grade, Looked};
use crate::open::{self, IoChoice, OpenError, owner};
use crate::runtime::{self, CompioRuntime, ServerEnv};

/// What a repair writes, or would.
#[derive(Clone, Debug, Serialize)]
pub struct RepairPlan {
    /// Whether there is anything to repair; else nothing is written.
    pub needed: bool,
    /// What `check` finds: of that, a repair mends damage, and what journals and logs hold.
    pub findings: Vec<Finding>,
    /// For each disk, which regions are written, in words.
    pub writes: Vec<String>,
}

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The disks are not to be had.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// A start refuses; nothing was written.
    #[error("nothing was written, because the array does not start like this: {0}")]
    Refused(AssembleError),
    /// A disk is missing: a start would take it out.
    #[error(
        "nothing was written: {0}. Give all disks of the array, or start it without those that are gone with `forestall serve`"
    )]
    Missing(String),
    /// It began and could not end.
    #[error("the repair did not end well: {0}; look with `forestall check`")]
    Failed(forestall_engine::CommandError),
}

// Not by `#[from]`: its text stands in ours already, and a cause is told again by whoever prints the chain.
impl From<AssembleError> for RepairError {
    fn from(error: AssembleError) -> Self {
        Self::Refused(error)
    }
}

impl From<OpenError> for RepairError {
    fn from(error: OpenError) -> Self {
        Self::Check(error.into())
    }
}

/// What a repair would do. Writes nothing.
///
/// # Errors
/// [`RepairError`], if the disks are not to be had or the array does not start by itself.
pub fn plan(paths: &[String], scan: &[PathBuf]) -> Result<RepairPlan, RepairError> {
    runtime::build().map_err(CheckError::System)?.block_on(async {
        let (disks, mut strangers) = check::look(paths, scan).await?;
        let mut findings = check::of_disks(&disks);
        let (array, overlays) = check::attempt(&disks, AssembleOptions::default()).await?;
        let told = check::of_this_start(&array).into_iter();
        let missing: Vec<String> =
            told.filter(|event| event.kind == "disk-missing").map(|event| event.message).collect();
        if !missing.is_empty() {
            return Err(RepairError::Missing(missing.join("; ")));
        }
        let needed = unclean(&disks) || findings.iter().any(|f| f.grade != Grade::Sound);
        check::strangers_are_none_of(&array, &mut strangers);
        findings.extend(strangers);
        check::judge(&array, &mut findings);
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.grade));
        array.stop().await.map_err(RepairError::Failed)?;
        let writes = disks.iter().zip(&overlays).map(|(d, overlay)| words(d, &overlay.written()));
        Ok(RepairPlan { needed, findings, writes: writes.flatten().collect() })
    })
}

/// Whether a group was not stopped in order, so that its journal or its marks are to be made good.
fn unclean(disks: &[Looked]) -> bool {
    let slots = disks.iter().flat_map(|disk| &disk.inspection.configurations);
    let newest = slots.filter_map(|slot| slot.configuration.as_ref()).max_by_key(|c| c.generation);
    newest.is_some_and(|newest| newest.groups.iter().any(|group| !group.clean))
}

/// Which regions of a disk are written.
fn words(disk: &Looked, written: &[u64]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for at in written {
        let holds = |len: u64, offset: u64| (offset..offset + len).contains(at);
        let region = disk.inspection.regions.iter().find(|r| holds(r.len, r.offset));
        *counts.entry(region.map_or("other blocks", |region| &region.name)).or_default() += 1;
    }
    let parts: Vec<String> =
        counts.iter().map(|(name, count)| format!("{name} ({count})")).collect();
    (!parts.is_empty())
        .then(|| format!("{}: {}, in blocks of 4 KiB", disk.identity.path, parts.join(", ")))
}

/// Does what [`plan`] told, if it is still so, and looks at the array again. `tell` hears why it takes its time.
///
/// # Errors
/// As for [`plan`], and if a disk cannot be written.
pub fn repair(
    paths: &[String],
    scan: &[PathBuf],
    tell: &dyn Fn(&str),
) -> Result<CheckReport, RepairError> {
    plan(paths, scan)?;
    let planned = runtime::build().map_err(CheckError::System)?.block_on(async {
        let (disks, _) = check::look(paths, scan).await?;
        let paths: Vec<String> = disks.iter().map(|disk| disk.identity.path.clone()).collect();
        drop(disks);
        let mut opened = Vec::new();
        for path in &paths {
            opened.push(open::open(path, IoChoice::default()).await?);
        }
        owner::watch(&opened, tell).await?;
        let new = opened.iter().map(open::Opened::new_disk).collect();
        let options = AssembleOptions::default();
        let array = Array::<ServerEnv>::assemble(CompioRuntime::new(), new, options).await;
        let array = array.map_err(|(error, _)| error)?;
        array.stop().await.map_err(RepairError::Failed)?;
        Ok::<_, RepairError>(paths)
    })?;
    Ok(check::check(&planned, &[], false)?)
}
