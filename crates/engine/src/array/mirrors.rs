//! Pairs as a feature of their own: a secondary follows its primary, behind the hosts' backs.
//!
//! Owns the commands, and the end of a pair that broke; copying is `following.rs`'s matter. Invariants: a volume is in one pair at most, so pairs form neither chains nor loops; writes are
//! noted from before the configuration names the pair; a pair whose bits cannot be made durable ends before the write is answered, and the
//! primary goes on alone.

use std::rc::Rc;

use super::Array;
use super::reversal::refused_while_in_use;
use super::volumes::{find, room_for};
use crate::config::{
    BackupPlace, Configuration, Extent, GroupEntry, PairEntry, PairStatus, VolumeEntry,
};
use crate::error::CommandError;
use crate::ids::{GroupNumber, Uuid, VolumeNumber};
use crate::pair::{Mirror, OnBroken, Pair, bitmap_bytes};
use crate::report::{PairReport, Severity};
use crate::runtime::{Env, Runtime};
use crate::volume::VolumeRt;
use crate::words;

impl<E: Env> Array<E> {
    /// Pairs in the order in which they were made.
    #[must_use]
    pub fn pairs(&self) -> Vec<PairReport> {
        let config = self.config.borrow();
        let name_of = |number| {
            let volume = config.volumes.iter().find(|v| v.number == number);
            volume.map(|v| v.name.clone()).unwrap_or_default()
        };
        let report = |pair: &PairEntry| PairReport {
            primary: pair.primary,
            primary_name: name_of(pair.primary),
            secondary: pair.secondary,
            secondary_name: name_of(pair.secondary),
            status: pair.status,
            hold: pair.hold,
            temporary: pair.temporary,
            away: pair.away,
            differing: self.differing(pair),
        };
        config.backups.pairs.iter().map(report).collect()
    }

    /// Lets the volume `secondary` follow the volume `primary`; no host has to do with it from then on.
    ///
    /// # Errors
    /// If one of them is not there, is in a pair, serves redirected writes, or lies in a shielded group; if they are of other sizes or lie in one
    /// group; if the secondary holds data, or its group has no space for the bitmap. Then nothing changed.
    pub async fn create_pair(
        self: &Rc<Self>,
        primary: &str,
        secondary: &str,
    ) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let (first, second) = (find(&config, primary)?.clone(), find(&config, secondary)?.clone());
        check_pair(&config, &first, &second).map_err(CommandError::Refused)?;
        let entry = config.group(second.group).expect("volumes lie in groups");
        let bitmap = room_for_bitmap(&config, entry, second.size)?;
        let running = |number| self.volumes.borrow().get(&number).cloned();
        let (Some(volume), Some(other)) = (running(first.number), running(second.number)) else {
            return Err(CommandError::Failed("the volumes are not open".into()));
        };
        let pair = PairEntry {
            id: Uuid::from_random(self.rt.random_u64(), self.rt.random_u64()),
            primary: first.number,
            secondary: second.number,
            status: PairStatus::Syncing,
            hold: false,
            reversed: false,
            temporary: false,
            away: false,
            bitmap,
        };
        let made = self.make_pair(&pair, &volume, (&second, &other)).await;
        if made.is_err() {
            self.end_mirror(first.number);
            self.close_unused();
        }
        made?;
        self.tend_pair(first.number);
        let what = format!("volume {} follows volume {} now", second.number, first.number);
        self.event(Severity::Info, "pair-created", None, Some(first.group), what);
        Ok(())
    }

    /// Notes what differs and commits the pair: whatever hosts write meanwhile is noted too.
    async fn make_pair(
        self: &Rc<Self>,
        entry: &PairEntry,
        primary: &Rc<VolumeRt<E>>,
        (secondary, running): (&VolumeEntry, &Rc<VolumeRt<E>>),
    ) -> Result<(), CommandError> {
        let group = self.group(secondary.group)?;
        let pair = Pair::new(&self.rt, entry, secondary, &group);
        self.open_mirror(entry.primary, Rc::clone(&pair));
        // No host has to do with it from here on, whatever else is committed meanwhile.
        running.reserve(true);
        running.drained().await;
        if running.holds_data() {
            return Err(CommandError::Refused(format!(
                "volume {:?} holds data, which the secondary of a pair loses: make a new one, or trim all of it first",
                secondary.name
            )));
        }
        self.blank(&group, &[&secondary.extents[..], &entry.bitmap].concat()).await?;
        primary.set_mirror(self.mirrors.borrow().get(&entry.primary).cloned());
        primary.pass().await;
        // What was trimmed before and is not durable would come back with a crash, and nothing would tell that the secondary has not got it.
        primary.flush_all().await.map_err(|e| {
            CommandError::Failed(format!("{e} while flushing volume {}", entry.primary))
        })?;
        primary.blocks_with_data().into_iter().for_each(|blocks| pair.mark(blocks));
        pair.persist_bits().await.map_err(|e| {
            CommandError::Failed(format!("{e} while writing the bitmap of the pair"))
        })?;
        self.commit(|next| next.backups.pairs.push(entry.clone())).await
    }

    /// Takes a pair apart: both volumes are ordinary ones again, the secondary with what was copied so far.
    ///
    /// # Errors
    /// If there is no such pair, or it backs a shielded group.
    pub async fn delete_pair(self: &Rc<Self>, primary: &str) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let pair = self.find_pair(primary)?;
        let group = self.group_of(pair.secondary)?;
        self.commit(|next| next.backups.pairs.retain(|p| p.id != pair.id)).await?;
        if let Some(mirror) = self.end_mirror(pair.primary) {
            mirror.at_rest().await;
        }
        self.close_unused();
        self.release_space(&self.group(group)?, &pair.bitmap).await;
        let what = format!("volume {} no longer follows volume {}", pair.secondary, pair.primary);
        self.event(Severity::Info, "pair-deleted", None, Some(group), what);
        Ok(())
    }

    /// Stops copying: what differs is noted.
    ///
    /// # Errors
    /// If there is no such pair, or it is split already.
    pub async fn split_pair(self: &Rc<Self>, primary: &str) -> Result<(), CommandError> {
        self.change_pair(primary, "pair-split", "is split", |pair| {
            let was = std::mem::replace(&mut pair.status, PairStatus::Split);
            was != PairStatus::Split
        })
        .await?;
        self.rest_of(primary).await
    }

    /// Lets a split pair follow again.
    ///
    /// # Errors
    /// If there is no such pair, or it is not split.
    pub async fn resync_pair(self: &Rc<Self>, primary: &str) -> Result<(), CommandError> {
        let pair = self.find_pair(primary)?;
        if pair.hold {
            return Err(CommandError::Refused(format!(
                "the pair of volume {0} is held: nothing is copied before `forestall pair release {0}`",
                pair.primary
            )));
        }
        self.change_pair(primary, "pair-resync", "is made equal again", |pair| {
            let was = std::mem::replace(&mut pair.status, PairStatus::Syncing);
            was == PairStatus::Split
        })
        .await
    }

    /// Lets the bits of a pair stand still, or change again: while they do nothing is copied.
    ///
    /// # Errors
    /// If there is no such pair, or that is so already.
    pub async fn hold_pair(self: &Rc<Self>, primary: &str, hold: bool) -> Result<(), CommandError> {
        let words = if hold { "is held" } else { "goes on" };
        self.change_pair(primary, "pair-hold", words, |pair| {
            std::mem::replace(&mut pair.hold, hold) != hold
        })
        .await?;
        if hold { self.rest_of(primary).await } else { Ok(()) }
    }

    /// Commits a change of a pair; `change` answers whether there was anything to change.
    async fn change_pair(
        self: &Rc<Self>,
        primary: &str,
        kind: &str,
        words: &str,
        change: impl Fn(&mut PairEntry) -> bool,
    ) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let pair = self.find_pair(primary)?;
        if !change(&mut pair.clone()) {
            let held = if pair.hold {
                format!(" and held; `forestall pair release {}` lets it go on", pair.primary)
            } else {
                String::new()
            };
            return Err(CommandError::Refused(format!(
                "there is nothing to change: the pair of volume {} is {}{held}",
                pair.primary, pair.status
            )));
        }
        self.commit(|next| {
            let found = next.backups.pairs.iter_mut().find(|p| p.id == pair.id);
            found.map(change);
        })
        .await?;
        let what = format!("the pair of volumes {} and {} {words}", pair.primary, pair.secondary);
        self.event(Severity::Info, kind, None, None, what);
        Ok(())
    }

    pub(super) fn find_pair(&self, primary: &str) -> Result<PairEntry, CommandError> {
        let config = self.config.borrow();
        let volume = find(&config, primary)?;
        let pair = config.backups.pair_of(volume.number).cloned().ok_or_else(|| {
            CommandError::NotFound(format!(
                "volume {:?} is the primary of no pair; see `forestall pair list`",
                volume.name
            ))
        })?;
        match refused_while_in_use(&config, &pair) {
            Some(why) => Err(CommandError::Refused(why)),
            None => Ok(pair),
        }
    }

    fn group_of(&self, volume: VolumeNumber) -> Result<GroupNumber, CommandError> {
        let config = self.config.borrow();
        let found = config.volumes.iter().find(|v| v.number == volume).map(|v| v.group);
        found.ok_or_else(|| CommandError::NotFound(format!("there is no volume {volume}")))
    }

    /// Completes when nothing is copied any more.
    async fn rest_of(&self, primary: &str) -> Result<(), CommandError> {
        let number = find(&self.config.borrow(), primary)?.number;
        let mirror = self.mirrors.borrow().get(&number).cloned();
        if let Some(mirror) = mirror {
            mirror.at_rest().await;
        }
        Ok(())
    }

    /// Opens what follows a primary; it is told of writes once it is set over the volume.
    pub(super) fn open_mirror(self: &Rc<Self>, primary: VolumeNumber, pair: Rc<Pair<E>>) {
        let (array, id) = (Rc::downgrade(self), pair.id);
        let on_broken: OnBroken = Rc::new(move || {
            let array = array.upgrade();
            Box::pin(async move {
                match array {
                    Some(array) => array.break_pair(primary, id).await,
                    None => false,
                }
            })
        });
        self.pairs.borrow_mut().insert(primary, Rc::clone(&pair));
        self.mirrors.borrow_mut().insert(primary, Mirror::new(pair, on_broken));
    }

    /// Nothing follows a primary any more.
    pub(super) fn end_mirror(&self, primary: VolumeNumber) -> Option<Rc<Mirror<E>>> {
        let mirror = self.mirrors.borrow_mut().remove(&primary)?;
        mirror.end();
        let volumes = self.volumes.borrow();
        if let Some(volume) = volumes.get(&primary) {
            volume.set_mirror(None);
        }
        if let Some(volume) = volumes.get(&mirror.pair.secondary()) {
            volume.reserve(false);
        }
        Some(mirror)
    }

    /// A pair's secondary takes no more: it ends, and its primary goes on alone. Answers whether that counts. One that is reversed ends only if its
    /// secondary's group is gone and home has everything.
    pub(super) async fn break_pair(self: &Rc<Self>, primary: VolumeNumber, id: Uuid) -> bool {
        let entry = self.config.borrow().backups.pair_of(primary).filter(|p| p.id == id).cloned();
        if let Some(entry) = entry {
            let volume = self.volumes.borrow().get(&primary).cloned();
            let reversed = volume.and_then(|volume| Some((volume.reversed()?, volume)));
            let ended = match reversed {
                Some((mirror, _)) if mirror.pair.group().is_readable() => false,
                Some((mirror, volume)) => mirror.leave(&volume, self.commit_end(&entry)).await,
                None => self.commit_end(&entry).await,
            };
            if !ended {
                return false;
            }
            let what = format!(
                "the pair of volume {primary} ended: the group of its secondary does not take its bits. Make a new one elsewhere"
            );
            self.event(Severity::Critical, "pair-broken", None, None, what);
        }
        if self.mirrors.borrow().get(&primary).is_some_and(|m| m.pair.id == id) {
            self.end_mirror(primary);
            self.pairs.borrow_mut().remove(&primary);
        }
        true
    }

    /// Commits that a pair is no more, unless its direction changed meanwhile; answers whether that counts.
    async fn commit_end(self: &Rc<Self>, entry: &PairEntry) -> bool {
        let mut ends = false;
        let committed = self.commit(|next| {
            // Of several that find it broken at once the first ends it for all.
            let pair = next.backups.pairs.iter().find(|pair| pair.id == entry.id);
            ends = pair.is_none_or(|pair| pair.reversed == entry.reversed);
            if ends {
                next.backups.pairs.retain(|pair| pair.id != entry.id);
                next.backups.leave_chains(BackupPlace::Pair(entry.primary));
            }
        });
        committed.await.is_ok() && ends
    }

    /// Brings what follows volumes in line with the configuration, which counts now.
    pub(super) fn apply_mirrors(&self) {
        let volumes = self.volumes.borrow();
        for (primary, mirror) in self.mirrors.borrow().iter() {
            if let Some(volume) = volumes.get(primary) {
                volume.set_mirror(Some(Rc::clone(mirror)));
            }
            mirror.wake.notify();
        }
    }

    /// Completes when nothing is copied any more, and nothing will be: the array stops.
    pub(super) async fn mirrors_at_rest(&self) {
        let mirrors: Vec<_> = self.mirrors.borrow().values().cloned().collect();
        for mirror in mirrors {
            mirror.end();
            mirror.at_rest().await;
        }
    }
}

/// Whether two volumes may become a pair, and why not.
fn check_pair(
    config: &Configuration,
    first: &VolumeEntry,
    second: &VolumeEntry,
) -> Result<(), String> {
    if first.number == second.number {
        return Err(format!("volume {:?} cannot follow itself", first.name));
    }
    if first.size != second.size {
        return Err(format!(
            "volume {:?} has {} and volume {:?} has {}: the volumes of a pair are of one size",
            first.name,
            words::exact(first.size),
            second.name,
            words::exact(second.size)
        ));
    }
    if first.group == second.group {
        return Err(format!(
            "volumes {:?} and {:?} both lie in group {}: a secondary belongs elsewhere",
            first.name, second.name, first.group
        ));
    }
    for volume in [first, second] {
        let (number, name) = (volume.number, &volume.name);
        if let Some(pair) = config.backups.pair_with(number) {
            return Err(format!(
                "volume {name:?} is in the pair of {} and {} already: pairs form no chains",
                pair.primary, pair.secondary
            ));
        }
        if config.backups.work_at(BackupPlace::WorkVolume(number)).is_some() {
            return Err(format!("volume {name:?} is a work volume"));
        }
        if config.backups.of_group(volume.group).is_some() {
            return Err(format!(
                "group {} of volume {name:?} is shielded: wait until it is whole again",
                volume.group
            ));
        }
    }
    Ok(())
}

fn room_for_bitmap(
    config: &Configuration,
    group: &GroupEntry,
    size: u64,
) -> Result<Vec<Extent>, CommandError> {
    let bytes = bitmap_bytes(size);
    room_for(config, group, bytes).ok_or_else(|| {
        CommandError::Refused(format!(
            "group {} has no space for the bitmap of the pair, which takes {}: make the volumes smaller",
            group.number,
            words::exact(bytes)
        ))
    })
}
