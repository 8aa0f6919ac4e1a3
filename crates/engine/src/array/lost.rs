//! Lost blocks as hosts know them: by volume and offset.
//!
//! Owns the way from a group's list to its volumes, and the words of the problem. Changes nothing. Parity that is lost is in no volume: then its stripes
//! survive less.

use std::ops::Range;

use super::Array;
use crate::config::{Configuration, Level, VolumeEntry};
use crate::geometry::Geometry;
use crate::ids::BLOCK_SIZE;
use crate::report::{GroupReport, Health, LostRange, LostReport, Problem, ProblemKind, Severity};
use crate::runtime::Env;
use crate::words;

impl<E: Env> Array<E> {
    /// Volumes of which blocks are listed lost, by number, with the blocks.
    #[must_use]
    pub fn lost(&self) -> Vec<LostReport> {
        self.lost_of(&self.config.borrow())
    }

    /// [`Array::lost`] under a configuration.
    pub(super) fn lost_of(&self, config: &Configuration) -> Vec<LostReport> {
        let groups = self.groups.borrow();
        let lost = groups.values().filter(|group| group.lost_blocks() > 0);
        let mut reports = Vec::new();
        for (group, lost) in lost.map(|group| (group, group.lost_data())) {
            for volume in config.volumes.iter().filter(|v| v.group == group.number) {
                let ranges = ranges_of(&group.geometry, volume, &lost.ranges);
                if ranges.is_empty() {
                    continue;
                }
                let pair = config.backups.pair_of(volume.number);
                let secondary = pair.filter(|pair| pair.reversed && !pair.temporary);
                reports.push(LostReport {
                    volume: volume.number,
                    name: volume.name.clone(),
                    group: group.number,
                    blocks: ranges.iter().map(|range| range.len.div_ceil(BLOCK_SIZE)).sum(),
                    ranges,
                    more: lost.more,
                    held_by: secondary.map(|pair| pair.secondary),
                });
            }
        }
        reports.sort_by_key(|report| report.volume);
        reports
    }
}

/// The parts of a volume behind ranges of its group's data space.
fn ranges_of(geometry: &Geometry, volume: &VolumeEntry, lost: &[Range<u64>]) -> Vec<LostRange> {
    let stripe_len = geometry.stripe_len();
    let mut base = 0;
    let mut ranges: Vec<LostRange> = Vec::new();
    for extent in &volume.extents {
        let (start, len) = (extent.start * stripe_len, extent.stripes * stripe_len);
        for range in lost {
            let from = range.start.max(start);
            let end = range.end.min(start + len);
            if from >= end {
                continue;
            }
            let offset = base + (from - start);
            let end = (base + (end - start)).min(volume.size);
            if offset >= end {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if last.offset + last.len == offset => last.len = end - last.offset,
                _ => ranges.push(LostRange { offset, len: end - offset }),
            }
        }
        base += len;
    }
    ranges
}

/// Volumes with lost blocks, and how many each has.
pub(super) fn lost_words(lost: &[&LostReport]) -> String {
    let volume = |report: &&LostReport| {
        let more = if report.more { "more than " } else { "" };
        let (number, name) = (report.volume, &report.name);
        format!("volume {number} ({name}): {more}{}", words::counted(report.blocks, "block"))
    };
    lost.iter().map(volume).collect::<Vec<_>>().join(", ")
}

/// Blocks that nothing gives any more, or nothing in their own group.
pub(super) fn lost_problem(group: &GroupReport, lost: &[LostReport]) -> Option<Problem> {
    if group.lost_blocks == 0 {
        return None;
    }
    let of_group = lost.iter().filter(|report| report.group == group.number);
    let (held, gone): (Vec<&LostReport>, Vec<&LostReport>) =
        of_group.partition(|report| report.held_by.is_some());
    let mut told: Vec<String> = Vec::new();
    if !gone.is_empty() {
        told.push(format!(
            "they answer with an error until they are written again ({}); `forestall volume lost` lists them, restore them from a backup",
            lost_words(&gone)
        ));
    }
    if !held.is_empty() {
        told.push(format!(
            "their secondaries have them and give them back ({}): hosts notice nothing",
            lost_words(&held)
        ));
    }
    let listed: u64 = gone.iter().chain(&held).map(|report| report.blocks).sum();
    if !told.is_empty()
        && matches!(group.level, Level::Raid5 | Level::Raid6)
        && listed < group.lost_blocks
    {
        told.push(format!(
            "the rest is parity, whose stripes lack redundancy: {} makes it anew where all data reads",
            scrub_words(group, " --repair")
        ));
    }
    if told.is_empty() {
        told.push(
            format!(
                "they are parity: a block of their stripes that its disk does not read answers with an error; {} makes them anew from the data",
                scrub_words(group, " --repair")
            ),
        );
    }
    let risk = match (gone.is_empty(), group.failures_left) {
        (true, _) => "a failure in this group may lose data of these stripes".into(),
        (false, 0) => "another failure in this group loses more data".into(),
        (false, n) => format!(
            "besides them {} of this group may fail without loss",
            words::counted(n.into(), "more disk")
        ),
    };
    Some(Problem {
        kind: ProblemKind::BlocksLost,
        health: if held.is_empty() || !gone.is_empty() { Health::Failed } else { Health::Degraded },
        what: format!(
            "group {} ({}): {} of 4 KiB lost",
            group.number,
            group.level,
            words::counted(group.lost_blocks, "block")
        ),
        action: told.join("; "),
        risk,
    })
}

/// A scrub as advice: it compares nothing as long as a member is out, or updates are away, and what comes first is said first.
pub(super) fn scrub_words(group: &GroupReport, repair: &str) -> String {
    let scrub = format!("`forestall scrub {}{repair}`", group.number);
    match (group.absent.is_empty(), &group.avoidance) {
        (false, _) => {
            format!("once the member that is out is back or rebuilt (see there), {scrub}")
        }
        (true, Some(_)) => format!("once the updates of the group are home, {scrub}"),
        (true, None) => scrub,
    }
}

/// Blocks that a scrub could not have from anywhere: hosts that read them get an error, and nothing has listed them.
pub(super) fn unreadable_problem(group: &GroupReport) -> Option<Problem> {
    let GroupReport { number, level, unreadable_blocks, .. } = group;
    (*unreadable_blocks > 0).then(|| Problem {
        kind: ProblemKind::BlocksLost,
        health: Health::Failed,
        what: format!(
            "group {number} ({level}): {} of 4 KiB could not be had from anywhere by the last scrub",
            words::counted(*unreadable_blocks, "block")
        ),
        action: format!(
            "they answer with an error as long as their disks do not read them; restore what lies there; {} looks again",
            scrub_words(group, "")
        ),
        risk: "a failure in this group may lose more of these stripes".into(),
    })
}

impl<E: Env> Array<E> {
    /// An event for each group that answers reads of hosts with errors, once until it is scrubbed.
    pub(super) fn tell_of_failed_reads(&self) {
        for group in self.groups.borrow().values() {
            if group.failed_reads.get() > 0 && !group.failed_reads_told.replace(true) {
                let number = group.number;
                let what = format!(
                    "reads of hosts in group {number} were answered with errors: neither their disk nor its peers give these blocks; \
                     `forestall scrub {number}` tells how many"
                );
                self.event(Severity::Critical, "reads-failed", None, Some(number), what);
            }
        }
    }
}

/// Reads of hosts that nothing answered, where nothing else tells of blocks that are gone.
pub(super) fn failed_reads_problem(group: &GroupReport) -> Option<Problem> {
    let GroupReport { number, level, failed_reads, .. } = group;
    let told = group.lost_blocks + group.unreadable_blocks > 0;
    (*failed_reads > 0 && !told).then(|| Problem {
        kind: ProblemKind::BlocksLost,
        health: Health::Degraded,
        what: format!(
            "group {number} ({level}): {} of hosts answered with an error: no disk gives these blocks",
            words::counted(*failed_reads, "read")
        ),
        action: format!(
            "{} tells how many they are; look at the disks of the group with `forestall health show`",
            scrub_words(group, "")
        ),
        risk: "a failure in this group may lose these blocks for good".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Extent;
    use crate::ids::{GroupNumber, VolumeNumber};

    #[test]
    fn a_scrub_is_advised_after_what_it_waits_for() {
        let mut group = GroupReport {
            number: GroupNumber(1),
            level: Level::Raid5,
            chunk: 65_536,
            journal: crate::config::JournalMode::default(),
            checksums: true,
            health: Health::Failed,
            members: Vec::new(),
            absent: Vec::new(),
            capacity: 0,
            free: 0,
            largest_free: 0,
            failures_left: 0,
            lost_blocks: 2,
            unreadable_blocks: 0,
            failed_reads: 0,
            dirty_regions: 0,
            paused: false,
            work_due: false,
            avoidance: None,
        };
        let advice = |group: &GroupReport| lost_problem(group, &[]).expect("a problem").action;
        assert!(advice(&group).contains("an error; `forestall scrub 1 --repair` makes"));
        group.absent = vec![crate::ids::DiskNumber(3)];
        let words =
            "once the member that is out is back or rebuilt (see there), `forestall scrub 1";
        assert!(advice(&group).contains(words), "{}", advice(&group));
    }

    #[test]
    fn a_volume_of_several_extents_has_its_own_offsets() {
        let geometry = Geometry::new(Level::Raid5, 3, 16 << 10, 64).expect("a geometry");
        let stripe = geometry.stripe_len();
        let extents = vec![Extent { start: 8, stripes: 2 }, Extent { start: 2, stripes: 2 }];
        let volume = VolumeEntry {
            number: VolumeNumber(1),
            name: "v1".into(),
            group: GroupNumber(1),
            size: 4 * stripe - 4096,
            extents,
            read_only: false,
        };
        // In no extent; across the end of the first; all of the second and before it.
        let lost = [0..4096, stripe..4 * stripe, 10 * stripe - 8192..11 * stripe];
        let ranges = ranges_of(&geometry, &volume, &lost);
        let expected = LostRange { offset: 2 * stripe - 8192, len: 2 * stripe + 8192 - 4096 };
        assert_eq!(ranges, [expected], "cut at the volume's end, joined where they touch");
    }
}
