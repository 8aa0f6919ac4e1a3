//! Redirected writes that a start cannot read, given up at an operator's word (rule B9).
//!
//! Owns the way out of a start that is refused because a backup storage is gone. Invariants: a storage that can be read is never given up; one that is
//! given up leaves in one commit that counts before anything is served (rule C1), so a crash finds it as it was or gone, and its log or its pair is
//! nobody's from then on, whatever of it comes back; no host learns of it by old data alone: an event and `status` name every volume.

use std::rc::Rc;

use super::Array;
use super::secondaries::take_pair;
use crate::config::{BackupPlace, Configuration};
use crate::ids::{GroupNumber, VolumeNumber};
use crate::report::{Health, Problem, ProblemKind, Severity};
use crate::runtime::Env;

/// What an operator does about a volume that may be old.
const WHAT_NOW: &str = "check its file system, restore from a backup what is missing; told until the next start, and kept in `forestall events`";

/// A volume whose newest writes were given up at this start, and where they lay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct GivenUp {
    volume: VolumeNumber,
    group: GroupNumber,
    place: BackupPlace,
}

/// Takes a storage that cannot be read out of a configuration to be committed. An avoidance whose volumes have no other goes on as with `direct`.
pub(super) fn take_out(next: &mut Configuration, place: BackupPlace) {
    match place {
        // A secondary that was there before stays, as a volume of its own; the direction goes with the pair.
        BackupPlace::Pair(primary) => drop(take_pair(next, primary)),
        BackupPlace::WorkVolume(_) | BackupPlace::WorkDisk(_) => {
            if let Some(work) = next.backups.work_at_mut(place) {
                work.log = 0;
            }
        }
    }
    next.backups.leave_chains(place);
}

impl<E: Env> Array<E> {
    /// Gives up storages that turned out, after the commit of the start, not to be readable.
    ///
    /// # Errors
    /// If that does not count.
    pub(super) async fn give_up(self: &Rc<Self>, places: &[BackupPlace]) -> Result<(), String> {
        if places.is_empty() {
            return Ok(());
        }
        let before = self.config.borrow().clone();
        for place in places {
            if let BackupPlace::Pair(primary) = place {
                self.end_mirror(*primary);
                self.pairs.borrow_mut().remove(primary);
            }
        }
        // Whoever starts an array has said what may be missing: nobody could be asked before it runs (rule C4).
        self.leave.set(true);
        let committed = self.commit(|next| places.iter().for_each(|place| take_out(next, *place)));
        let committed = committed.await;
        self.leave.set(false);
        committed.map_err(|error| format!("redirected writes could not be given up: {error}"))?;
        self.tell_of_given_up(&before, places);
        Ok(())
    }

    /// Tells which volumes lost their newest writes with these storages, which `before` still names.
    pub(super) fn tell_of_given_up(&self, before: &Configuration, places: &[BackupPlace]) {
        for place in places.iter().copied() {
            for (avoidance, volume) in before.backups.users_of(place) {
                let group = avoidance.group;
                self.given_up.borrow_mut().push(GivenUp { volume, group, place });
                let what = format!(
                    "{place} could not be read and was given up: what hosts wrote there to volume {volume} of group {group} is gone, and the volume \
                     holds what its own group has, which may be old{}",
                    rescue(before, place)
                );
                self.event(Severity::Critical, "backup-given-up", None, Some(group), what);
            }
        }
    }

    /// What this start gave up, until the array stops.
    pub(super) fn given_up_problems(&self) -> Vec<Problem> {
        let config = self.config.borrow();
        let given_up = self.given_up.borrow();
        let there = |g: &&GivenUp| config.volumes.iter().any(|v| v.number == g.volume);
        let problem = |g: &GivenUp| Problem {
            kind: ProblemKind::WritesGivenUp,
            health: Health::Failed,
            what: format!(
                "volume {} of group {} may hold old data: its newest writes lay in {}, which this start gave up",
                g.volume, g.group, g.place
            ),
            action: WHAT_NOW.into(),
            risk: String::new(),
        };
        given_up.iter().filter(there).map(problem).collect()
    }
}

/// Where the newest writes may still be had if the disks come back after all.
fn rescue(before: &Configuration, place: BackupPlace) -> String {
    let BackupPlace::Pair(primary) = place else { return String::new() };
    match before.backups.pair_of(primary).filter(|pair| !pair.temporary) {
        Some(pair) => format!(
            "; if the disks of volume {} come back, that volume has what was newest, as one of its own",
            pair.secondary
        ),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ShieldedVolume, WorkEntry};
    use crate::format::samples;
    use crate::ids::DiskNumber;

    const DISK: BackupPlace = BackupPlace::WorkDisk(DiskNumber(600));

    /// The sample, whose first volume is backed by its pair and a log, and shares the log with the second.
    fn configuration(temporary: bool) -> Configuration {
        let mut config = samples::configuration();
        let pair = &mut config.backups.pairs[0];
        (pair.temporary, pair.reversed) = (temporary, !temporary);
        let primary = pair.primary;
        let shielded = |volume, chain| ShieldedVolume { volume, chain };
        config.backups.avoidances[0].volumes = vec![
            shielded(primary, vec![BackupPlace::Pair(primary), DISK]),
            shielded(VolumeNumber(2), vec![DISK]),
        ];
        let legs = vec![DiskNumber(6)];
        config.backups.work = vec![WorkEntry { place: DISK, legs, serves: Vec::new(), log: 7 }];
        config
    }

    #[test]
    fn a_log_that_is_given_up_is_nobodys_and_its_place_stays() {
        let mut config = configuration(true);
        let before = config.clone();
        take_out(&mut config, DISK);
        let primary = before.backups.pairs[0].primary;
        let chains: Vec<_> =
            config.backups.avoidances[0].volumes.iter().map(|v| v.chain.clone()).collect();
        assert_eq!(chains, [vec![BackupPlace::Pair(primary)], Vec::new()]);
        assert_eq!(config.backups.work, [WorkEntry { log: 0, ..before.backups.work[0].clone() }]);
        assert_eq!(
            (&config.backups.pairs, &config.volumes),
            (&before.backups.pairs, &before.volumes)
        );
    }

    #[test]
    fn a_pair_that_is_given_up_leaves_with_a_secondary_that_was_made_for_it() {
        for temporary in [true, false] {
            let mut config = configuration(temporary);
            let before = config.clone();
            let pair = before.backups.pairs[0].clone();
            take_out(&mut config, BackupPlace::Pair(pair.primary));
            assert_eq!(config.backups.pair_of(pair.primary), None);
            assert_eq!(config.backups.avoidances[0].volumes[0].chain, [DISK]);
            assert_eq!(config.backups.work, before.backups.work);
            let stays = config.volumes.iter().any(|v| v.number == pair.secondary);
            assert_eq!(stays, !temporary, "volumes of an operator are not deleted");
            let others = before.volumes.iter().filter(|v| v.number != pair.secondary).count();
            assert_eq!(config.volumes.len(), others + usize::from(stays));
        }
    }
}
