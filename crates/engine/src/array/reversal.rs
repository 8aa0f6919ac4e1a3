//! A pair whose secondary takes its shielded primary's place (the strategy "existing pair"; rules B2, B5 to B8).
//!
//! Owns which mode each pair is in, and the two changes of direction. Invariants: the direction changes by a counting commit, while no host has a block
//! of the volume, no bit is left and both sides are durable, so a crash finds the sides equal whichever direction it finds; a pair is reversed only while
//! an avoidance names it. What the modes mean is `pair/sides.rs`'s matter.

use std::rc::Rc;

use super::Array;
use crate::config::{
    AvoidanceState, BackupPlace, BackupTable, Configuration, PairEntry, PairStatus,
};
use crate::ids::{BLOCK_SIZE, GroupNumber, VolumeNumber};
use crate::pair::{Mirror, Mode};
use crate::progress::Progress;
use crate::report::Severity;
use crate::runtime::Env;
use crate::shield::DrainEnd;
use crate::volume::VolumeRt;

/// Blocks that may differ when hosts are made to wait for the change of direction: what one step of a copy moves at most.
const FEW: u64 = (1 << 20) / BLOCK_SIZE;

/// What a pair does. `safe`: its secondary survives as many failures as home (rule B6).
fn mode_of(table: &BackupTable, pair: &PairEntry, safe: bool) -> Mode {
    let avoidance = table.users_of(BackupPlace::Pair(pair.primary)).next().map(|(a, _)| a.state);
    let redirects = avoidance.is_some_and(|state| state != AvoidanceState::WritingBack) && safe;
    match (pair.reversed, redirects) {
        (false, false) => Mode::Follows,
        (false, true) => Mode::Syncing,
        (true, true) => Mode::Reversed,
        (true, false) => Mode::Returning,
    }
}

/// Pairs that an avoidance of `group` begins to use are made equal from here on.
pub(super) fn begin_syncing(next: &mut Configuration, group: GroupNumber) {
    let Some(avoidance) = next.backups.of_group(group) else { return };
    let used: Vec<VolumeNumber> = avoidance
        .volumes
        .iter()
        .filter(|v| v.chain.contains(&BackupPlace::Pair(v.volume)))
        .map(|v| v.volume)
        .collect();
    for pair in &mut next.backups.pairs {
        if used.contains(&pair.primary) && pair.status == PairStatus::Duplex {
            pair.status = PairStatus::Syncing;
        }
    }
}

/// The avoidance that uses a pair, in words for a refusal.
pub(super) fn refused_while_in_use(config: &Configuration, pair: &PairEntry) -> Option<String> {
    let (avoidance, _) = config.backups.users_of(BackupPlace::Pair(pair.primary)).next()?;
    Some(format!(
        "the pair of volumes {} and {} backs group {}, which is shielded ({}): wait until its updates are home; see `forestall jobs`",
        pair.primary, pair.secondary, avoidance.group, avoidance.state
    ))
}

impl<E: Env> Array<E> {
    /// What each pair is to do by a configuration that counts, and by how safe its secondary is now.
    fn modes(&self, config: &Configuration) -> Vec<(Rc<Mirror<E>>, Mode)> {
        let (mirrors, volumes) = (self.mirrors.borrow(), self.volumes.borrow());
        let mode = |(primary, mirror): (&VolumeNumber, &Rc<Mirror<E>>)| {
            let entry = config.backups.pair_of(*primary).filter(|pair| pair.id == mirror.pair.id);
            let mode = mode_of(&config.backups, entry?, is_safe(volumes.get(primary)?, mirror));
            Some((Rc::clone(mirror), mode))
        };
        mirrors.iter().filter_map(mode).collect()
    }

    /// Brings what pairs do in line with a configuration that counts.
    pub(super) fn set_modes(&self, config: &Configuration) {
        self.modes(config).into_iter().for_each(|(mirror, mode)| mirror.set_mode(mode));
    }

    /// Brings pairs and shields in line with how safe secondaries are now.
    pub(super) fn follow_modes(self: &Rc<Self>) {
        let config = self.config.borrow().clone();
        if self.modes(&config).iter().any(|(mirror, mode)| mirror.mode() != *mode) {
            self.apply_shields(&config);
        }
    }

    /// Whether a pair has a volume's writes now, so that storages after it have not.
    pub(super) fn has_place_taken(&self, primary: VolumeNumber) -> bool {
        let mirrors = self.mirrors.borrow();
        mirrors.get(&primary).is_some_and(|mirror| mirror.mode() != Mode::Follows)
    }

    /// Whether nothing, or hardly anything, keeps a pair from being reversed.
    pub(super) fn may_reverse(&self, volume: &VolumeRt<E>, mirror: &Mirror<E>) -> bool {
        let elsewhere = volume.shield().map_or(0, |shield| shield.marks());
        mirror.mode() == Mode::Syncing && elsewhere == 0 && mirror.differing() <= FEW
    }

    /// Reverses a pair: hosts' blocks are on the secondary alone from here on.
    pub(super) async fn reverse_pair(
        self: &Rc<Self>,
        volume: &Rc<VolumeRt<E>>,
        mirror: &Rc<Mirror<E>>,
    ) -> Result<(), String> {
        let (primary, secondary) = (volume.report().number, mirror.pair.secondary());
        let held = volume.lock_all().await;
        if !self.may_reverse(volume, mirror) {
            return Ok(());
        }
        mirror.finish(volume).await.map_err(|failed| failed.to_string())?;
        let change = self.change_direction(primary, mirror, Mode::Syncing, |pair| {
            (pair.reversed, pair.status) = (true, PairStatus::BackingUp);
        });
        let changed = change.await?;
        drop(held);
        if changed {
            let what = format!(
                "the secondary {secondary} of volume {primary} is equal to it and takes its place: hosts leave group {} alone",
                volume.group().number
            );
            self.event(Severity::Info, "pair-reversed", None, Some(volume.group().number), what);
        }
        Ok(())
    }

    /// Takes home what the secondary of a reversed pair has newer, then lets the primary have its place again.
    pub(super) async fn return_pair(
        self: &Rc<Self>,
        volume: &Rc<VolumeRt<E>>,
        mirror: &Rc<Mirror<E>>,
        progress: &Progress,
        interrupted: &dyn Fn() -> bool,
    ) -> DrainEnd {
        let primary = volume.report().number;
        let goes_on = || {
            mirror.mode() == Mode::Returning
                && !mirror.has_ended()
                && !progress.stop.get()
                && !interrupted()
        };
        let failed = |what: String| DrainEnd::Failed(format!("volume {primary}: {what}"));
        if volume.group().lost_blocks() > 0 {
            mirror.mark_lost_at_home(volume, &goes_on).await;
        }
        while mirror.is_reversed() {
            if !goes_on() {
                return DrainEnd::Stopped;
            }
            if let Err(error) = mirror.copy(volume, progress, &goes_on).await {
                return failed(error.to_string());
            }
            if mirror.differing() > FEW {
                continue;
            }
            let _held = volume.lock_all().await;
            if !goes_on() {
                continue;
            }
            if let Err(error) = mirror.finish(volume).await {
                return failed(error.to_string());
            }
            let change = self.change_direction(primary, mirror, Mode::Returning, |pair| {
                (pair.reversed, pair.status) = (false, PairStatus::Duplex);
            });
            match change.await {
                Ok(true) => {
                    let what = format!(
                        "volume {primary} has its place again; its secondary is equal to it and follows"
                    );
                    self.event(
                        Severity::Info,
                        "pair-returned",
                        None,
                        Some(volume.group().number),
                        what,
                    );
                }
                Ok(false) => {}
                Err(error) => return failed(error),
            }
        }
        DrainEnd::Done
    }

    /// Commits a change of direction, if the pair is still in `mode` then; answers whether it was. The caller holds the lock of the whole volume and
    /// has finished both sides. A commit that fails has written nothing, or the array has halted: the direction is as it was.
    async fn change_direction(
        self: &Rc<Self>,
        primary: VolumeNumber,
        mirror: &Rc<Mirror<E>>,
        mode: Mode,
        change: impl FnOnce(&mut PairEntry),
    ) -> Result<bool, String> {
        assert_eq!(mirror.pair.marks(), 0, "a bit would change its meaning");
        let Some(volume) = self.volumes.borrow().get(&primary).cloned() else { return Ok(false) };
        let mut changed = false;
        let committed = self.commit(|next| {
            let safe = is_safe(&volume, mirror);
            let entry = next.backups.pair_of(primary).filter(|pair| pair.id == mirror.pair.id);
            changed = entry.is_some_and(|entry| mode_of(&next.backups, entry, safe) == mode);
            if let Some(entry) = next.backups.pair_of_mut(primary).filter(|_| changed) {
                change(entry);
            }
        });
        committed.await.map_err(|error| error.to_string())?;
        Ok(changed)
    }
}

/// Rule B6: whether a secondary survives as many failures as its primary's group, and can be relied on to become equal.
fn is_safe<E: Env>(volume: &VolumeRt<E>, mirror: &Mirror<E>) -> bool {
    let tolerance = volume.group().geometry.tolerance() as u32;
    let group = mirror.pair.group();
    let serves = group.is_readable() && !group.is_closing();
    serves && group.failures_left() >= tolerance && (mirror.is_reversed() || !mirror.is_stuck())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::samples;

    /// The sample's pair as one that was there before, with its avoidance so far.
    fn table(state: AvoidanceState, reversed: bool) -> (BackupTable, PairEntry) {
        let mut table = samples::configuration().backups;
        table.avoidances[0].state = state;
        (table.pairs[0].reversed, table.pairs[0].temporary) = (reversed, false);
        let pair = table.pairs[0].clone();
        (table, pair)
    }

    #[test]
    fn what_a_pair_does_follows_from_direction_avoidance_and_safety() {
        use AvoidanceState::{Copying, Entering, Sheltered, WritingBack};
        for (state, reversed, safe, mode) in [
            (Entering, false, true, Mode::Syncing),
            (Copying, false, true, Mode::Syncing),
            (Sheltered, false, true, Mode::Syncing),
            (Sheltered, true, true, Mode::Reversed),
            (Copying, false, false, Mode::Follows),
            (WritingBack, false, true, Mode::Follows),
            (Entering, true, true, Mode::Reversed),
            (Copying, true, true, Mode::Reversed),
            (Copying, true, false, Mode::Returning),
            (WritingBack, true, true, Mode::Returning),
            (WritingBack, true, false, Mode::Returning),
        ] {
            let (table, pair) = table(state, reversed);
            assert_eq!(mode_of(&table, &pair, safe), mode, "{state} {reversed} {safe}");
        }
        let (mut table, pair) = table(Copying, false);
        table.leave_chains(BackupPlace::Pair(pair.primary));
        assert_eq!(mode_of(&table, &pair, true), Mode::Follows, "no avoidance uses it");
    }

    #[test]
    fn an_avoidance_makes_the_pairs_it_uses_equal_and_leaves_others_alone() {
        let mut config = samples::configuration();
        let status = |config: &Configuration| config.backups.pairs[0].status;
        config.backups.pairs[0].status = PairStatus::Duplex;
        let mut unused = config.clone();
        unused.backups.avoidances[0].volumes[0].chain.clear();
        begin_syncing(&mut unused, GroupNumber(1));
        assert_eq!(status(&unused), PairStatus::Duplex);
        begin_syncing(&mut config, GroupNumber(1));
        assert_eq!(status(&config), PairStatus::Syncing);
        config.backups.pairs[0].status = PairStatus::BackingUp;
        begin_syncing(&mut config, GroupNumber(1));
        assert_eq!(status(&config), PairStatus::BackingUp, "it is reversed already");
    }
}
