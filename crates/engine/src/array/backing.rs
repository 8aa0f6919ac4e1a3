//! What backs the volumes of shielded groups, in memory: opened, read back at a start, put over the volumes.
//!
//! Owns the step from a configuration that counts to the shields and pairs that obey it. Invariants: a volume has a shield exactly while a counting
//! configuration gives it a chain whose storages are all open; at a start nothing is served before every storage in use was read back,
//! or was given up by who asked for that (rule B9), which is `given_up`'s matter.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::Array;
use super::strategy::{Offer, home_of};
use crate::config::{AvoidanceState, BackupPlace, Configuration, PairEntry, Service, WorkEntry};
use crate::drive::Drive;
use crate::error::CommandError;
use crate::ids::{BLOCK_SIZE, GroupNumber, VolumeNumber};
use crate::pair::Mode;
use crate::runtime::{Env, Runtime};
use crate::shield::{Backup, LegFailures, Log, Shield, Space, Unrecovered};

/// Logs that come into use, with their identity.
pub(super) type NewLogs = Vec<(BackupPlace, u64)>;

impl<E: Env> Array<E> {
    /// Brings the shields in memory in line with the configuration, which counts now.
    pub(super) fn apply_shields(self: &Rc<Self>, config: &Configuration) {
        self.set_modes(config);
        let logs = self.logs.borrow();
        let serves = |leg| config.disk(leg).is_some_and(|d| d.in_service());
        logs.values().for_each(|log| log.space().keep_legs(serves));
        for (number, group) in self.groups.borrow().iter() {
            let copied = config.backups.of_group(*number);
            let copied = copied.filter(|a| a.state != AvoidanceState::WritingBack);
            group.set_copied(copied.map(|a| a.slot));
        }
        for (number, volume) in self.volumes.borrow().iter() {
            let for_work = config.backups.work_at(BackupPlace::WorkVolume(*number)).is_some();
            let follows = config.backups.is_secondary(*number)
                || self.mirrors.borrow().values().any(|m| m.pair.secondary() == *number);
            volume.reserve(for_work || follows);
            let shielded = config.backups.avoidances.iter().find_map(|a| {
                let entry = a.volumes.iter().find(|v| v.volume == *number)?;
                // A pair that was there before stands behind the shield, in home's place.
                let places = entry.chain.iter().filter(|p| !config.backups.is_lasting_pair(**p));
                let chain: Option<Vec<_>> =
                    places.map(|place| self.backup_at(config, *place)).collect();
                Some((a.state, chain.filter(|_| !entry.chain.is_empty())?))
            });
            let Some((state, chain)) = shielded else {
                volume.set_shield(None);
                continue;
            };
            let redirect = state != AvoidanceState::WritingBack && !self.has_place_taken(*number);
            match volume.shield().filter(|shield| shield.is_over(&chain)) {
                Some(shield) => shield.set_redirect(redirect),
                None => {
                    let tolerance = volume.group().geometry.tolerance() as u32;
                    let array = Rc::downgrade(self);
                    let scarce = Rc::new(move || {
                        array.upgrade().iter().for_each(Self::chain_further);
                    });
                    let shield = Shield::new(*number, tolerance, redirect, chain, scarce);
                    volume.shield().iter().for_each(|before| shield.goes_on_from(before));
                    volume.set_shield(Some(shield));
                }
            }
        }
    }

    /// What is open of a place in a chain.
    fn backup_at(&self, config: &Configuration, place: BackupPlace) -> Option<Backup<E>> {
        match place {
            BackupPlace::Pair(primary) => {
                let id = config.backups.pair_of(primary)?.id;
                let pairs = self.pairs.borrow();
                pairs.get(&primary).filter(|pair| pair.id == id).cloned().map(Backup::Pair)
            }
            BackupPlace::WorkVolume(_) | BackupPlace::WorkDisk(_) => {
                self.logs.borrow().get(&place).cloned().map(Backup::Log)
            }
        }
    }

    /// Whether a place in the chain of a volume takes its writes at this moment. One that would keep them less safely than home does not, until it is mended
    /// (rules B6, B7).
    pub(super) fn takes_writes(
        &self,
        config: &Configuration,
        volume: VolumeNumber,
        place: BackupPlace,
    ) -> bool {
        if config.backups.is_lasting_pair(place) {
            let mirrors = self.mirrors.borrow();
            let takes = [Mode::Syncing, Mode::Reversed];
            return mirrors.get(&volume).is_some_and(|mirror| takes.contains(&mirror.mode()));
        }
        let shield = self.volumes.borrow().get(&volume).and_then(|v| v.shield());
        let open = shield.zip(self.backup_at(config, place));
        open.is_some_and(|(shield, backup)| !shield.is_weakened(&backup))
    }

    /// Opens the logs that come into use with these places.
    pub(super) async fn open_logs(
        self: &Rc<Self>,
        places: BTreeSet<BackupPlace>,
    ) -> Result<NewLogs, CommandError> {
        let mut logs = Vec::new();
        for place in places {
            if matches!(place, BackupPlace::Pair(_)) || self.logs.borrow().contains_key(&place) {
                continue;
            }
            let id = self.rt.random_u64() | 1;
            let log = match self.open_space(place) {
                Some(space) => Log::new(id, space).await,
                None => None,
            };
            let log = log.ok_or_else(|| {
                CommandError::Refused(format!("{place} has no room for a single record"))
            })?;
            let log = log.map_err(|error| {
                CommandError::Refused(format!("{place} does not take a log: {error}"))
            })?;
            self.logs.borrow_mut().insert(place, log);
            logs.push((place, id));
        }
        Ok(logs)
    }

    /// What each work place can take now.
    pub(super) fn offers(&self, config: &Configuration) -> BTreeMap<BackupPlace, Offer> {
        config.backups.work.iter().map(|w| (w.place, self.offer(w.place))).collect()
    }

    fn offer(&self, place: BackupPlace) -> Offer {
        let open = self.logs.borrow().get(&place).cloned();
        let of = |space: &Space<E>, free| {
            let free = if space.is_silent() { 0 } else { free };
            Offer { spare_copies: space.spare_copies(), free }
        };
        match open {
            Some(log) => {
                let (used, all) = log.usage();
                of(log.space(), all - used)
            }
            None => {
                let none = Offer { spare_copies: 0, free: 0 };
                self.open_space(place).map_or(none, |space| of(&space, space.blocks() / 2))
            }
        }
    }

    /// The space of a work place, of what is in service and open of it.
    pub(super) fn open_space(&self, place: BackupPlace) -> Option<Space<E>> {
        match place {
            BackupPlace::Pair(_) => None,
            BackupPlace::WorkVolume(volume) => {
                self.volumes.borrow().get(&volume).cloned().map(Space::Volume)
            }
            BackupPlace::WorkDisk(_) => {
                let config = self.config.borrow();
                let drives = self.drives.borrow();
                let work = config.backups.work_at(place)?;
                let open = |leg| drives.get(&leg).filter(|d| !d.is_gone()).cloned();
                let mut legs: Vec<_> = config.serving_legs(work).filter_map(open).collect();
                let out = legs.is_empty();
                if out {
                    legs.push(self.leg_left_last(&config, work)?);
                }
                let blocks = config.leg_len(work) / BLOCK_SIZE;
                Some(Space::on_legs(legs, blocks, out, self.leg_failures.borrow().clone()?))
            }
        }
    }

    /// The leg that was the last to leave a set in use: it holds what is newest in the log, unless it was put back to an older state.
    fn leg_left_last(&self, config: &Configuration, work: &WorkEntry) -> Option<Rc<Drive<E>>> {
        if work.log == 0 || config.serving_legs(work).next().is_some() {
            return None;
        }
        let leg = *work.legs.first()?;
        let Service::Dropped { generation, .. } = config.disk(leg)?.service else { return None };
        let held = self.holds.borrow().get(&leg).is_some_and(|h| h.generation >= generation);
        let drive = self.drives.borrow().get(&leg).filter(|_| held).cloned()?;
        drive.revive().ok().map(|()| drive)
    }

    /// What the spaces of logs call when a leg fails.
    pub(super) fn leg_failures(self: &Rc<Self>) -> Rc<LegFailures> {
        let (noting, committing) = (Rc::downgrade(self), Rc::downgrade(self));
        Rc::new(LegFailures {
            note: Rc::new(move |disk, reason, drop| {
                if let Some(array) = noting.upgrade() {
                    array.note_failing(disk, reason, drop);
                    array.tend_failures();
                }
            }),
            committed: Rc::new(move || {
                let array = committing.upgrade();
                Box::pin(async move {
                    match array {
                        Some(array) => array.commit_failures().await.is_ok(),
                        None => false,
                    }
                })
            }),
        })
    }

    /// What holds redirected writes and is not there, at assembly, before any byte is changed. What stands in a group is not read before the group
    /// is whole.
    pub(super) fn absent_backups(self: &Rc<Self>, config: &Configuration) -> Vec<BackupPlace> {
        let groups = self.groups.borrow().clone();
        let readable = |group: GroupNumber| groups.get(&group).is_some_and(|g| g.is_readable());
        let logs = config.backups.work.iter().filter(|w| w.log != 0).map(|w| w.place);
        let logs = logs.filter(|place| {
            let home = home_of(config, *place);
            !home.is_none_or(readable) || self.open_space(*place).is_none()
        });
        let pairs = config.backups.pairs.iter().filter(|pair| holds_newest(pair));
        let pairs = pairs.filter(|entry| {
            !self.pair_at(config, entry).is_some_and(|pair| pair.group().is_readable())
        });
        logs.chain(pairs.map(|pair| BackupPlace::Pair(pair.primary))).collect()
    }

    /// Reads the bits of a pair. One whose group is away waits for it, if its primary is whole without it.
    async fn recover_pair(
        self: &Rc<Self>,
        config: &Configuration,
        entry: &PairEntry,
    ) -> Result<(), Unread> {
        let pair = self.pair_at(config, entry).filter(|pair| pair.group().is_readable());
        let there = pair.is_some();
        let place = BackupPlace::Pair(entry.primary);
        let (mut read, mut durable) = (false, false);
        if let Some(pair) = pair
            && pair.load().await.is_ok()
        {
            read = true;
            if entry.temporary {
                self.pairs.borrow_mut().insert(entry.primary, Rc::clone(&pair));
            } else {
                self.open_mirror(entry.primary, Rc::clone(&pair));
            }
            durable = match entry.away {
                true => self.mark_anew(&pair).await.is_ok() && self.pair_follows_again(entry).await,
                false => pair.persist_bits().await.is_ok(),
            };
        }
        if !durable && holds_newest(entry) {
            return Err(match read {
                true => Unread::Kept(unwritable(config, place)),
                false => Unread::Gone(unreachable(config, place)),
            });
        }
        let settled = match (durable, there) {
            (true, _) => true,
            // Its group is there and does not give or take its bits.
            (false, true) => self.break_pair(entry.primary, entry.id).await,
            (false, false) => self.pair_waits(entry).await,
        };
        if settled {
            Ok(())
        } else {
            Err(Unread::Kept(format!("the pair of volume {} could not be let go", entry.primary)))
        }
    }

    /// Reads a log in use back.
    async fn recover_log(
        self: &Rc<Self>,
        config: &Configuration,
        work: &WorkEntry,
    ) -> Result<(), Unread> {
        let space = self.open_space(work.place);
        let space = space.ok_or_else(|| Unread::Gone(unreachable(config, work.place)))?;
        match Log::recover(work.log, space).await {
            Ok(log) => drop(self.logs.borrow_mut().insert(work.place, log)),
            Err(why) => return Err(unrecovered(config, work.place, &why)),
        }
        Ok(())
    }

    /// Reads the bits of pairs and the logs in use back, at assembly: nothing of what they back may be served before. With `may_give_up` what cannot be
    /// read is given up, else it is an error.
    pub(super) async fn recover_backups(self: &Rc<Self>, may_give_up: bool) -> Result<(), String> {
        let config = self.config.borrow().clone();
        let mut gone = Vec::new();
        let mut weigh = |place, read: Result<(), Unread>| match read {
            Ok(()) => Ok(()),
            Err(Unread::Gone(_)) if may_give_up => {
                gone.push(place);
                Ok(())
            }
            Err(Unread::Gone(why) | Unread::Kept(why)) => Err(why),
        };
        for entry in &config.backups.pairs {
            let read = self.recover_pair(&config, entry).await;
            weigh(BackupPlace::Pair(entry.primary), read)?;
        }
        self.apply_mirrors();
        for work in config.backups.work.iter().filter(|w| w.log != 0) {
            weigh(work.place, self.recover_log(&config, work).await)?;
        }
        self.give_up(&gone).await?;
        let config = self.config.borrow().clone();
        self.apply_shields(&config);
        for (number, slot) in &config.backups.paused {
            let entry = config.group(*number).and_then(|g| g.slots.get(usize::from(slot.0)));
            // One whose old member is gone has become a rebuild, which nobody paused.
            self.paused.borrow_mut().extend(entry.and_then(|s| s.copied_to()));
        }
        Ok(())
    }
}

/// Why a start does not go on with a storage.
enum Unread {
    /// What it holds cannot be read, for this reason.
    Gone(String),
    /// It can be read, and something else is in the way.
    Kept(String),
}

/// Whether a secondary has what its primary has not.
fn holds_newest(pair: &PairEntry) -> bool {
    pair.temporary || pair.reversed
}

/// How to start without what cannot be read, and the price.
const WAY_OUT: &str = "`forestall serve --give-up-backups` starts without: these writes are gone then, and the volumes hold what their own group has, \
     which may be old";

/// Why a log was not read back.
fn unrecovered(config: &Configuration, place: BackupPlace, why: &Unrecovered) -> Unread {
    let users = config.backups.users_in_words(place);
    let damage = match why {
        Unrecovered::Failed => return Unread::Kept(unwritable(config, place)),
        Unrecovered::NoMark => "its marks are".into(),
        Unrecovered::Slots(slots) => match slots[..] {
            [slot] => format!("what it says of slot {slot} is"),
            _ => format!("what it says of {} slots from {} on is", slots.len(), slots[0]),
        },
    };
    Unread::Gone(format!(
        "{place} holds the newest writes of {users}, and {damage} damaged in every copy: which blocks lie there is not known, \
         and none may be served old; bring back a disk of it that still has a good copy. If there is none, {WAY_OUT}"
    ))
}

/// Words for redirected writes that cannot be had.
pub(super) fn unreachable(config: &Configuration, place: BackupPlace) -> String {
    let users = config.backups.users_in_words(place);
    format!(
        "{place} holds the newest writes of {users} and cannot be read: bring its disks back. If they are gone for good, {WAY_OUT}"
    )
}

/// Words for redirected writes that can be read in a place that takes none: they are not given up.
fn unwritable(config: &Configuration, place: BackupPlace) -> String {
    let users = config.backups.users_in_words(place);
    format!(
        "{place} holds the newest writes of {users} and can be read, but none of its disks takes a write: put an image of one on a disk that does, \
         and start with that"
    )
}
