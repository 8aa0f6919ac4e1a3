//! What simulations have exercised: cells of the table of avoidance events, paths of recovery.
//!
//! Owns the list of cells and how each is recognised from what the array reports and tells of. Counts belong to the thread that
//! simulates: [`taken`] hands over those since it was last asked. Invariant: counting draws no chance and never touches the array, so a seed
//! runs the same whether or not anybody looks. Fault kinds are counted by the drives (`faults.rs`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use forestall_engine::{
    ArrayReport, AvoidanceReport, AvoidanceState, BackupPlace, DiskState, Event, GroupReport,
    JobKind, JobState, PairReport,
};

/// Something that a standard search has to reach.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Cell {
    /// The disk being copied away dies in Copying.
    CopyingAilingDies,
    /// The spare dies in Copying.
    CopyingSpareDies,
    /// Another member dies in Copying.
    CopyingAnotherDies,
    /// In Copying a block can be read neither from the ailing disk nor from its peers.
    CopyingUnreadableTwice,
    /// A backup is full in Copying.
    CopyingBackupFull,
    /// A backup loses a copy in Copying.
    CopyingBackupLosesCopy,
    /// The disk that was filled dies in WritingBack.
    WritingBackFilledDies,
    /// Another member dies in WritingBack.
    WritingBackAnotherDies,
    /// A backup loses a copy in WritingBack.
    WritingBackBackupLosesCopy,
    /// A copy is cancelled under a shield.
    Cancelled,
    /// A start after a crash in Entering.
    CrashedEntering,
    /// A start after a crash in Copying.
    CrashedCopying,
    /// A start after a crash in Sheltered.
    CrashedSheltered,
    /// A start after a crash in WritingBack.
    CrashedWritingBack,
    /// A journal with records was replayed.
    ReplayWithRecords,
    /// The same, with members missing.
    ReplayWithMissing,
    /// A replay left blocks that nothing proves.
    ReplayUnproved,
    /// A replay found nothing to do.
    ReplayOfNothing,
    /// Dirty regions were resynced.
    Resync,
    /// A start after a crash read a log.
    LogRecovered,
    /// A start after a crash read the bits of a pair made for an avoidance.
    ShieldPairRecovered,
    /// A start after a crash read the bits of a pair that mirrors.
    MirrorRecovered,
    /// A copy or rebuild went on from its checkpoint.
    FillResumed,
    /// A start found blocks listed lost.
    LostListRead,
    /// A start without all members.
    DegradedStart,
}

impl Cell {
    /// All of them.
    pub const ALL: [Self; 25] = [
        Self::CopyingAilingDies,
        Self::CopyingSpareDies,
        Self::CopyingAnotherDies,
        Self::CopyingUnreadableTwice,
        Self::CopyingBackupFull,
        Self::CopyingBackupLosesCopy,
        Self::WritingBackFilledDies,
        Self::WritingBackAnotherDies,
        Self::WritingBackBackupLosesCopy,
        Self::Cancelled,
        Self::CrashedEntering,
        Self::CrashedCopying,
        Self::CrashedSheltered,
        Self::CrashedWritingBack,
        Self::ReplayWithRecords,
        Self::ReplayWithMissing,
        Self::ReplayUnproved,
        Self::ReplayOfNothing,
        Self::Resync,
        Self::LogRecovered,
        Self::ShieldPairRecovered,
        Self::MirrorRecovered,
        Self::FillResumed,
        Self::LostListRead,
        Self::DegradedStart,
    ];
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CopyingAilingDies => "avoidance: the ailing disk dies in copying",
            Self::CopyingSpareDies => "avoidance: the spare dies in copying",
            Self::CopyingAnotherDies => "avoidance: another member dies in copying",
            Self::CopyingUnreadableTwice => {
                "avoidance: a block is unreadable on the ailing disk and on a peer"
            }
            Self::CopyingBackupFull => "avoidance: a backup is full in copying",
            Self::CopyingBackupLosesCopy => "avoidance: a backup loses a copy in copying",
            Self::WritingBackFilledDies => "avoidance: the filled disk dies in writing back",
            Self::WritingBackAnotherDies => "avoidance: another member dies in writing back",
            Self::WritingBackBackupLosesCopy => "avoidance: a backup loses a copy in writing back",
            Self::Cancelled => "avoidance: cancelled",
            Self::CrashedEntering => "recovery: crashed in entering",
            Self::CrashedCopying => "recovery: crashed in copying",
            Self::CrashedSheltered => "recovery: crashed in sheltered",
            Self::CrashedWritingBack => "recovery: crashed in writing back",
            Self::ReplayWithRecords => "recovery: replay of a journal with records",
            Self::ReplayWithMissing => "recovery: replay of records with members missing",
            Self::ReplayUnproved => "recovery: replay that left unproved blocks",
            Self::ReplayOfNothing => "recovery: replay that found nothing to do",
            Self::Resync => "recovery: resync of dirty regions",
            Self::LogRecovered => "recovery: log read after a crash",
            Self::ShieldPairRecovered => "recovery: bits of a shield's pair read after a crash",
            Self::MirrorRecovered => "recovery: bits of a mirroring pair read after a crash",
            Self::FillResumed => "recovery: copy or rebuild resumed from its checkpoint",
            Self::LostListRead => "recovery: start with blocks listed lost",
            Self::DegradedStart => "recovery: start without all members",
        })
    }
}

/// Counts by cell.
pub type Counts = BTreeMap<Cell, u64>;

thread_local! {
    static COUNTS: RefCell<Counts> = const { RefCell::new(BTreeMap::new()) };
}

/// Counts one cell. Stories call it for what no report shows, once they have seen it.
pub(crate) fn reached(cell: Cell) {
    COUNTS.with_borrow_mut(|counts| *counts.entry(cell).or_default() += 1);
}

/// What this thread's simulations reached since the last call.
#[must_use]
pub fn taken() -> Counts {
    COUNTS.take()
}

/// An array has come up: `after_crash` says how the run before ended.
pub(crate) fn started(report: &ArrayReport, pairs: &[PairReport], after_crash: bool) {
    let missing = |g: &&GroupReport| !g.absent.is_empty();
    report.groups.iter().filter(missing).for_each(|_| reached(Cell::DegradedStart));
    if report.groups.iter().any(|g| g.lost_blocks > 0) {
        reached(Cell::LostListRead);
    }
    if !after_crash {
        return;
    }
    if report.groups.iter().any(|g| g.dirty_regions > 0) {
        reached(Cell::Resync);
    }
    for avoidance in report.groups.iter().filter_map(|g| g.avoidance.as_ref()) {
        reached(match avoidance.state {
            AvoidanceState::Entering => Cell::CrashedEntering,
            AvoidanceState::Copying => Cell::CrashedCopying,
            AvoidanceState::Sheltered => Cell::CrashedSheltered,
            AvoidanceState::WritingBack => Cell::CrashedWritingBack,
        });
        for place in avoidance.volumes.iter().flat_map(|v| &v.backups) {
            reached(match place {
                BackupPlace::Pair(_) => Cell::ShieldPairRecovered,
                BackupPlace::WorkVolume(_) | BackupPlace::WorkDisk(_) => Cell::LogRecovered,
            });
        }
    }
    if pairs.iter().any(|pair| !pair.temporary) {
        reached(Cell::MirrorRecovered);
    }
}

/// What an event tells; `report` is of the moment at which it was heard, which may be later.
pub(crate) fn told(event: &Event, report: &ArrayReport) {
    let group = report.groups.iter().find(|g| Some(g.number) == event.group);
    match event.kind.as_str() {
        "disk-failed" => failed(event, report),
        "journal-replayed" => replayed(event, group),
        "replace-cancelled" if group.is_some_and(|g| g.avoidance.is_some()) => {
            reached(Cell::Cancelled);
        }
        "rebuild-started" | "replace-started" => {
            let goes_on = |kind| matches!(kind, JobKind::Rebuild | JobKind::Replace);
            let job = report
                .jobs
                .iter()
                .find(|j| j.disk == event.disk && j.state == JobState::Running && goes_on(j.kind));
            // Told before the first window is copied: what is done already was done before.
            if job.is_some_and(|j| j.done_bytes > 0) {
                reached(Cell::FillResumed);
            }
        }
        _ => {}
    }
}

/// A disk was given up: which cell that is depends on what it was for.
fn failed(event: &Event, report: &ArrayReport) {
    let leg = report.disks.iter().any(|d| Some(d.number) == event.disk && d.work_disk.is_some());
    for group in &report.groups {
        let Some(avoidance) = &group.avoidance else { continue };
        let copying = avoidance.state != AvoidanceState::WritingBack;
        if leg {
            reached(if copying {
                Cell::CopyingBackupLosesCopy
            } else {
                Cell::WritingBackBackupLosesCopy
            });
        } else if Some(group.number) == event.group {
            reached(role_of(event, report, group, avoidance, copying));
        }
    }
}

fn role_of(
    event: &Event,
    report: &ArrayReport,
    group: &GroupReport,
    avoidance: &AvoidanceReport,
    copying: bool,
) -> Cell {
    let disk = report.disks.iter().find(|d| Some(d.number) == event.disk);
    let own_slot = disk.is_some_and(|d| d.slot == Some(avoidance.slot));
    let at_slot = group.members.get(usize::from(avoidance.slot)).copied();
    match (copying, own_slot) {
        (true, true) if event.disk == at_slot && avoidance.filling != event.disk => {
            Cell::CopyingAilingDies
        }
        (true, true) => Cell::CopyingSpareDies,
        (true, false) if disk.is_some_and(|d| d.state == DiskState::Rebuilding) => {
            Cell::CopyingSpareDies
        }
        (true, false) => Cell::CopyingAnotherDies,
        (false, true) => Cell::WritingBackFilledDies,
        (false, false) => Cell::WritingBackAnotherDies,
    }
}

fn replayed(event: &Event, group: Option<&GroupReport>) {
    if event.message.contains("holds no write") {
        reached(Cell::ReplayOfNothing);
        return;
    }
    reached(Cell::ReplayWithRecords);
    if group.is_some_and(|g| !g.absent.is_empty()) {
        reached(Cell::ReplayWithMissing);
    }
    if event.message.contains("cannot be told") {
        reached(Cell::ReplayUnproved);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_handed_over_once() {
        let _ = taken();
        reached(Cell::Resync);
        reached(Cell::Resync);
        reached(Cell::Cancelled);
        assert_eq!(taken(), [(Cell::Resync, 2), (Cell::Cancelled, 1)].into());
        assert!(taken().is_empty());
    }

    #[test]
    fn every_cell_is_on_the_list_once_and_named_for_itself() {
        let cells: std::collections::BTreeSet<_> = Cell::ALL.into_iter().collect();
        let names: std::collections::BTreeSet<_> = cells.iter().map(ToString::to_string).collect();
        assert_eq!((cells.len(), names.len()), (Cell::ALL.len(), Cell::ALL.len()));
    }
}
