//! Backups that are full, or too weak: people are told that writes go home to the group whose disk is copied.
//!
//! Owns the telling, once for each time that a volume's backups are full and once when there is room again, and the words. When they are, is the
//! shield's matter. Invariant: nothing depends on it.

use std::collections::BTreeSet;

use super::Array;
use crate::config::{AvoidanceEntry, AvoidanceState, BackupPlace};
use crate::ids::{GroupNumber, VolumeNumber};
use crate::report::Severity;
use crate::runtime::Env;
use crate::words;

impl<E: Env> Array<E> {
    /// Tells of volumes whose backups are full since the last look, and of those that have room again.
    pub(super) fn tell_of_full_backups(&self) {
        if self.chaining.get() {
            return; // Another place may go on in a moment.
        }
        let full = self.volumes_that_overflow();
        let before = self.overflowing.replace(full.clone());
        for number in full.difference(&before) {
            self.tell_of_backup(Severity::Warning, "backup-full", *number, |name, places, group| {
                format!(
                    "{places} of volume {name} is full: writes for which it has no room go home to group {group} until the copy has ended, or \
                     there is room again"
                )
            });
        }
        for number in before.difference(&full) {
            self.tell_of_backup(Severity::Info, "backup-has-room", *number, |name, places, group| {
                format!("{places} of volume {name} has room again: fewer writes go home to group {group}")
            });
        }
    }

    /// Looks for room in the backups, and names the volumes whose backups are full.
    fn volumes_that_overflow(&self) -> BTreeSet<VolumeNumber> {
        let volumes = self.volumes.borrow();
        let shields = volumes.iter().filter_map(|(number, v)| Some((*number, v.shield()?)));
        let looked = shields.inspect(|(_, shield)| shield.look_for_room());
        looked.filter(|(_, shield)| shield.is_full()).map(|(number, _)| number).collect()
    }

    /// An event about the backups of a volume, if it is shielded still.
    fn tell_of_backup(
        &self,
        severity: Severity,
        kind: &str,
        volume: VolumeNumber,
        words: impl Fn(&str, &str, GroupNumber) -> String,
    ) {
        let config = self.config.borrow();
        // Once updates go home all writes do.
        let redirects = |a: &&AvoidanceEntry| a.state != AvoidanceState::WritingBack;
        let mut avoidances = config.backups.avoidances.iter().filter(redirects);
        let shielded =
            avoidances.find_map(|a| Some((a, a.volumes.iter().find(|v| v.volume == volume)?)));
        let entry = config.volumes.iter().find(|v| v.number == volume);
        let (Some((avoidance, shielded)), Some(entry)) = (shielded, entry) else { return };
        let places: Vec<String> = shielded.chain.iter().map(BackupPlace::to_string).collect();
        let name = format!("{volume} ({})", entry.name);
        let what = words(&name, &format!("the backup ({})", places.join(", ")), avoidance.group);
        self.event(severity, kind, None, Some(avoidance.group), what);
    }

    /// What the job that works on a group is to say of backups that take no writes, or are or were full; empty if there is none.
    pub(super) fn backup_words(&self, group: GroupNumber) -> String {
        let mut words = vec![self.resting_words_of(group), self.overflow_words(group)];
        words.retain(|words| !words.is_empty());
        words.join("; ")
    }

    /// The places that some volume of a shielded group has and its writes go past for the time being, in words.
    fn resting_words_of(&self, group: GroupNumber) -> String {
        let config = self.config.borrow();
        let redirects = |a: &&AvoidanceEntry| a.state != AvoidanceState::WritingBack;
        let avoidance = config.backups.of_group(group).filter(redirects);
        let volumes = avoidance.map_or(&[][..], |a| &a.volumes);
        let mut all = BTreeSet::new();
        let mut go_home = false;
        for volume in volumes {
            let resting = self.resting(&config, volume);
            go_home |= !resting.is_empty() && resting.len() == volume.chain.len();
            all.extend(resting);
        }
        let why = resting_words(&all.into_iter().collect::<Vec<_>>());
        if go_home { format!("writes go home: {why}") } else { why }
    }

    fn overflow_words(&self, group: GroupNumber) -> String {
        let volumes = self.volumes.borrow();
        let shields = volumes.values().filter(|v| v.group().number == group);
        let shields: Vec<_> = shields.filter_map(|v| v.shield()).collect();
        let blocks: u64 = shields.iter().map(|s| s.overflowed()).sum();
        let now = shields.iter().any(|s| s.is_full());
        overflow_words(now, blocks)
    }
}

/// That places take no writes for the time being, and why; empty if there are none.
pub(super) fn resting_words(places: &[BackupPlace]) -> String {
    let words = places.iter().map(|place| {
        let lacks = match place {
            BackupPlace::WorkDisk(_) => "it lacks a leg",
            BackupPlace::WorkVolume(_) => "its group lacks a member",
            BackupPlace::Pair(_) => "the secondary's group lacks a member",
        };
        format!("{place} takes none while {lacks}, since home is safer")
    });
    words.collect::<Vec<_>>().join("; ")
}

/// That a backup is or was full, and what that meant so far.
pub(super) fn overflow_words(full: bool, blocks: u64) -> String {
    let how = if full { "is" } else { "was" };
    match blocks {
        0 => String::new(),
        n => format!("its backup {how} full: {} of 4 KiB went home", words::counted(n, "block")),
    }
}
