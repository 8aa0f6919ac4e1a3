//! What backs the volumes of shielded groups, in memory: opened, read back at a start, put over the volumes.
//!
//! Owns the step from a configuration that counts to the shields and pairs that obey it. Invariants: a volume has a shield exactly while a counting
//! configuration gives it a chain whose storages are all open; at a start nothing is served before every storage in use was read back.

use std::rc::Rc;

use super::Array;
use super::strategy::home_of;
use crate::config::{AvoidanceState, BackupPlace, Configuration, PairEntry};
use crate::ids::GroupNumber;
use crate::runtime::Env;
use crate::shield::{Backup, Log, Shield, Unrecovered};

impl<E: Env> Array<E> {
    /// Brings the shields in memory in line with the configuration, which counts now.
    pub(super) fn apply_shields(&self, config: &Configuration) {
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
                    volume.set_shield(Some(Shield::new(*number, tolerance, redirect, chain)));
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

    /// Whether everything that holds redirected writes is there, at assembly, before any byte is changed. What stands in a group is not read
    /// before the group is whole.
    pub(super) fn check_backups(self: &Rc<Self>) -> Result<(), String> {
        let config = self.config.borrow().clone();
        let groups = self.groups.borrow().clone();
        let readable = |group: GroupNumber| groups.get(&group).is_some_and(|g| g.is_readable());
        for work in config.backups.work.iter().filter(|w| w.log != 0) {
            let home = home_of(&config, work.place);
            if !home.is_none_or(readable) || self.open_space(work.place).is_none() {
                return Err(unreachable(&config, work.place));
            }
        }
        for entry in &config.backups.pairs {
            let there = self.pair_at(&config, entry).is_some_and(|p| p.group().is_readable());
            if !there && (entry.temporary || entry.reversed) {
                return Err(unreachable(&config, BackupPlace::Pair(entry.primary)));
            }
        }
        Ok(())
    }

    /// Reads the bits of a pair. One whose group is away waits for it, if its primary is whole without it.
    async fn recover_pair(
        self: &Rc<Self>,
        config: &Configuration,
        entry: &PairEntry,
    ) -> Result<(), String> {
        let pair = self.pair_at(config, entry).filter(|pair| pair.group().is_readable());
        let there = pair.is_some();
        let mut durable = false;
        if let Some(pair) = pair
            && pair.load().await.is_ok()
        {
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
        if !durable && (entry.temporary || entry.reversed) {
            return Err(unreachable(config, BackupPlace::Pair(entry.primary)));
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
            Err(format!("the pair of volume {} could not be let go", entry.primary))
        }
    }

    /// Reads the bits of pairs and the logs in use back, at assembly: nothing of what they back may be served before.
    pub(super) async fn recover_backups(self: &Rc<Self>) -> Result<(), String> {
        let config = self.config.borrow().clone();
        for entry in &config.backups.pairs {
            self.recover_pair(&config, entry).await?;
        }
        self.apply_mirrors();
        for work in config.backups.work.iter().filter(|w| w.log != 0) {
            let lost = || unreachable(&config, work.place);
            let space = self.open_space(work.place).ok_or_else(lost)?;
            let log = Log::recover(work.log, space).await;
            let log = log.map_err(|why| unrecovered(&config, work.place, &why))?;
            self.logs.borrow_mut().insert(work.place, log);
        }
        let config = self.config.borrow().clone();
        self.apply_shields(&config);
        for avoidance in config.backups.avoidances.iter().filter(|a| a.paused) {
            let slots = config.group(avoidance.group).map(|g| g.slots.clone()).unwrap_or_default();
            self.paused.borrow_mut().extend(slots.iter().filter_map(|s| s.replacement));
        }
        Ok(())
    }
}

/// Words for a log that was not read back.
fn unrecovered(config: &Configuration, place: BackupPlace, why: &Unrecovered) -> String {
    let users = config.backups.users_in_words(place);
    let damage = match why {
        Unrecovered::Failed => return unreachable(config, place),
        Unrecovered::NoMark => "its marks are".into(),
        Unrecovered::Slots(slots) => match slots[..] {
            [slot] => format!("what it says of slot {slot} is"),
            _ => format!("what it says of {} slots from {} on is", slots.len(), slots[0]),
        },
    };
    format!(
        "{place} holds the newest writes of {users}, and {damage} damaged in every copy: which blocks lie there is not known, \
         and none may be served old; bring back a disk of it that still has a good copy"
    )
}

/// Words for redirected writes that cannot be had.
fn unreachable(config: &Configuration, place: BackupPlace) -> String {
    let users = config.backups.users_in_words(place);
    format!("{place} holds the newest writes of {users} and cannot be read: bring its disks back")
}
