//! What volumes answer, and whether copies and parity agree.
//!
//! Owns the reading of all data of an array that was assembled to be looked at. Invariant: memory stays bounded by one request; what was never written is
//! not read.

use std::rc::Rc;
use std::time::Duration;

use forestall_engine::{Array, BLOCK_SIZE, JobState, Level, VolumeHandle, words};

use super::{Finding, Grade};
use crate::runtime::ServerEnv;

/// Bytes of one read.
const STEP: u64 = 1 << 20;
/// How often a scrub is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Reads every volume whole and compares every group.
pub(super) async fn check(array: &Rc<Array<ServerEnv>>, findings: &mut Vec<Finding>) {
    for volume in array.volumes() {
        let Some(handle) = array.open_volume(&volume.name) else { continue };
        let bad = unreadable(&handle, volume.size).await;
        if let Some(first) = bad.first() {
            let what = format!(
                "{} blocks of 4096 bytes cannot be had, the first at byte {first}",
                bad.len()
            );
            let way = "restore them from a backup, or overwrite them";
            let about = format!("volume {:?}", volume.name);
            findings.push(Finding::new(Grade::Lost, about, what, way));
        }
    }
    compare(array, findings).await;
    for disk in array.report().disks.iter().filter(|disk| disk.errors.checksums > 0) {
        let what = format!(
            "it holds what was not written there: {} of its blocks met a wrong checksum",
            words::counted(disk.errors.checksums, "read")
        );
        let way = "`forestall scrub GROUP` on the served array writes them anew from the other disks; watch the disk, it may be failing";
        findings.push(Finding::new(Grade::Repairable, &disk.identity.path, what, way));
    }
}

/// Compares copies and parity of every group.
async fn compare(array: &Rc<Array<ServerEnv>>, findings: &mut Vec<Finding>) {
    for group in array.report().groups {
        let about = format!("group {}", group.number);
        if group.level == Level::Raid0 {
            continue;
        }
        let job = match array.scrub(group.number, false, 0).await {
            Ok(job) => job,
            Err(error) => {
                let what = format!("copies and parity were not compared: {error}");
                findings.push(Finding::new(
                    Grade::Sound,
                    about,
                    what,
                    "check it again when that is over",
                ));
                continue;
            }
        };
        let ended = loop {
            let found = array.jobs().into_iter().find(|report| report.id == job);
            match found {
                Some(report) if report.state == JobState::Running => {
                    // A pause between two polls of the job.
                    compio::time::sleep(LOOK).await;
                }
                other => break other,
            }
        };
        let Some(ended) = ended else { continue };
        if ended.mismatches > 0 {
            let what =
                format!("{} rows of blocks differ from their parity or copies", ended.mismatches);
            let way = "`forestall scrub GROUP --repair` on the served array makes them agree; find out why they differ first";
            findings.push(Finding::new(Grade::Repairable, about, what, way));
        } else if ended.state != JobState::Done {
            let way = "look at the disks of the group";
            findings.push(Finding::new(Grade::Repairable, about, ended.message, way));
        }
    }
}

/// Offsets of the blocks that cannot be read.
async fn unreadable(volume: &VolumeHandle<ServerEnv>, size: u64) -> Vec<u64> {
    let mut bad = Vec::new();
    let mut at = 0;
    while at < size {
        let Ok(runs) = volume.allocation(at, size - at, 1) else { break };
        let Some(run) = runs.first().copied() else { break };
        if run.hole {
            at += run.len;
            continue;
        }
        let len = run.len.min(STEP);
        if volume.read(at, len).await.is_err() {
            for block in (at..at + len).step_by(BLOCK_SIZE as usize) {
                let part = BLOCK_SIZE.min(at + len - block);
                if volume.read(block, part).await.is_err() {
                    bad.push(block);
                }
            }
        }
        at += len;
    }
    bad
}
