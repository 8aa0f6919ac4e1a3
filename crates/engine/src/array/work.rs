//! Work volumes and work disks: places kept for the writes of shielded groups.
//!
//! Owns the commands that make and unmake them. Invariants: a volume that holds anything is not taken for a work volume; a disk is labelled as a
//! leg before a configuration names it; nothing is taken away while redirected writes lie there.

use std::rc::Rc;

use super::legs::{LEGS_MAX, check_leg};
use super::{Array, NewDisk};
use crate::config::{BackupPlace, Configuration, DropReason, Strategy, VolumeEntry, WorkEntry};
use crate::error::CommandError;
use crate::format::label::DISKS_MAX;
use crate::format::log::LogShape;
use crate::ids::{BLOCK_SIZE, DiskNumber, GroupNumber, VolumeNumber};
use crate::report::Severity;
use crate::runtime::Env;
use crate::words;

impl<E: Env> Array<E> {
    /// Makes a volume a work volume, for the volumes named or, if none is, for any.
    ///
    /// # Errors
    /// If there is no such volume, it holds data, is shielded itself, is too small, or is one already; then nothing changed.
    pub async fn add_work_volume(
        self: &Rc<Self>,
        name: &str,
        serves: &[String],
    ) -> Result<VolumeNumber, CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let volume = super::volumes::find(&config, name)?.clone();
        let place = BackupPlace::WorkVolume(volume.number);
        if config.backups.work_at(place).is_some() {
            return Err(CommandError::Refused(format!("volume {name:?} is a work volume already")));
        }
        refuse_if_paired(&config, &volume, "made a work volume")?;
        if let Some(avoidance) = config.backups.of_group(volume.group) {
            return Err(CommandError::Refused(format!(
                "group {} of volume {name:?} is shielded itself: wait until it is whole again",
                avoidance.group
            )));
        }
        let mut numbers = Vec::new();
        for other in serves {
            let other = super::volumes::find(&config, other)?;
            if other.group == volume.group {
                return Err(CommandError::Refused(format!(
                    "volume {:?} lies in group {} like {name:?}: redirected writes belong elsewhere",
                    other.name, other.group
                )));
            }
            numbers.push(other.number.0);
        }
        if LogShape::of(volume.size / BLOCK_SIZE).is_none() {
            return Err(CommandError::Refused(format!(
                "volume {name:?} has {} bytes: too small for a single record and its entry",
                volume.size
            )));
        }
        let running = self.volumes.borrow().get(&volume.number).cloned();
        if running.is_some_and(|running| running.holds_data()) {
            return Err(CommandError::Refused(format!(
                "volume {name:?} holds data, which a work volume would overwrite: make a new one, or trim all of it first"
            )));
        }
        let entry = WorkEntry { place, legs: Vec::new(), serves: numbers, log: 0 };
        self.commit(|next| enter(next, entry)).await?;
        let what =
            format!("volume {} {name:?} is a work volume now: it is not served", volume.number);
        self.event(Severity::Info, "work-volume-added", None, Some(volume.group), what);
        Ok(volume.number)
    }

    /// Makes a work volume an ordinary volume again, with nothing in it.
    ///
    /// # Errors
    /// If there is no such work volume or it is in use.
    pub async fn remove_work_volume(self: &Rc<Self>, name: &str) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let volume = super::volumes::find(&config, name)?.clone();
        let place = BackupPlace::WorkVolume(volume.number);
        if config.backups.work_at(place).is_none() {
            return Err(CommandError::Refused(format!("volume {name:?} is no work volume")));
        }
        self.refuse_in_use(&config, place)?;
        let group = self.group(volume.group)?;
        self.blank(&group, &volume.extents).await?;
        self.commit(|next| next.backups.work.retain(|w| w.place != place)).await?;
        let what = format!("volume {} {name:?} is an ordinary volume again", volume.number);
        self.event(Severity::Info, "work-volume-removed", None, Some(volume.group), what);
        Ok(())
    }

    /// Makes a work-disk set: each leg holds a copy of the log. For the groups named or, if none is, for any. A set that is there and lacks
    /// a leg gets new ones; what its log holds is copied to them before this is answered.
    ///
    /// # Errors
    /// If the number is taken, the set lacks no leg, a leg is too small, belongs to this array, or fails while being labelled; then nothing changed.
    pub async fn add_work_disk(
        self: &Rc<Self>,
        set: DiskNumber,
        legs: Vec<NewDisk<E>>,
        serves: Vec<GroupNumber>,
    ) -> Result<(), CommandError> {
        let place = BackupPlace::WorkDisk(set);
        if self.config.borrow().backups.work_at(place).is_some() {
            return self.add_legs(set, legs, &serves).await;
        }
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        if set.0 == 0 || set.0 > DISKS_MAX {
            return Err(CommandError::Refused(format!(
                "work disks are numbered from 1 to {DISKS_MAX}"
            )));
        }
        if config.disk(set).is_some() || config.backups.work_at(place).is_some() {
            return Err(CommandError::Refused(format!("there is a disk {set} already")));
        }
        if legs.is_empty() || legs.len() > LEGS_MAX {
            return Err(CommandError::Refused(format!("a work disk has 1 to {LEGS_MAX} legs")));
        }
        for group in &serves {
            self.group(*group)?;
        }
        // Every leg is looked at before the first is written to.
        let mut layouts = Vec::new();
        for leg in &legs {
            layouts.push(check_leg(&config, leg).await?);
        }
        let (entries, open) = self.label_legs(&config, set, legs, layouts).await?;
        for drive in &open {
            self.drives.borrow_mut().insert(drive.number, Rc::clone(drive));
        }
        let numbers: Vec<DiskNumber> = open.iter().map(|drive| drive.number).collect();
        let serves = serves.iter().map(|group| group.0).collect();
        let work = WorkEntry { place, legs: numbers.clone(), serves, log: 0 };
        let committed = self
            .commit(|next| {
                for entry in entries {
                    let at = next.disks.partition_point(|d| d.number < entry.number);
                    next.disks.insert(at, entry);
                }
                enter(next, work);
            })
            .await;
        if let Err(error) = committed {
            numbers.iter().for_each(|n| drop(self.drives.borrow_mut().remove(n)));
            return Err(error);
        }
        let what = format!(
            "work disk {set} of {}: disks {}",
            words::counted(numbers.len() as u64, "leg"),
            super::groups::list(&numbers)
        );
        self.event(Severity::Info, "work-disk-added", None, None, what);
        Ok(())
    }

    /// Takes a work-disk set away; its legs lose their labels.
    ///
    /// # Errors
    /// If there is no such set or it is in use.
    pub async fn remove_work_disk(self: &Rc<Self>, set: DiskNumber) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let place = BackupPlace::WorkDisk(set);
        let work = config.backups.work_at(place).ok_or_else(|| {
            CommandError::NotFound(format!("there is no work disk {set}; see `forestall show t6`"))
        })?;
        self.refuse_in_use(&config, place)?;
        let legs = work.legs.clone();
        // One by one: most of the array's disks may be legs (rule C2).
        for leg in &legs {
            self.commit(|next| self.drop_disk(next, *leg, DropReason::Removed)).await?;
        }
        self.commit(|next| {
            next.backups.work.retain(|w| w.place != place);
            next.disks.retain(|d| !legs.contains(&d.number));
            next.health.disks.retain(|disk, _| !legs.contains(disk));
        })
        .await?;
        for leg in legs {
            self.forget_health(leg);
            self.let_go(leg).await;
        }
        let what = format!("work disk {set} was removed");
        self.event(Severity::Info, "work-disk-removed", None, None, what);
        Ok(())
    }

    fn refuse_in_use(
        &self,
        config: &Configuration,
        place: BackupPlace,
    ) -> Result<(), CommandError> {
        if config.backups.users_of(place).next().is_none() {
            return Ok(());
        }
        let used = self.use_in_words(config, place);
        Err(CommandError::Refused(format!(
            "{place} {used}: wait until the shield is down; see `forestall jobs`"
        )))
    }

    /// What a place whose log is in use does, and for whom.
    pub(super) fn use_in_words(&self, config: &Configuration, place: BackupPlace) -> String {
        let log = self.logs.borrow().get(&place).cloned();
        let holds = log.is_none_or(|log| !log.marked_slots().is_empty());
        let why = if holds { "holds updates of" } else { "is kept for the next updates of" };
        format!("{why} {}", config.backups.users_in_words(place))
    }

    /// Says where a volume's writes are wanted when its group is shielded.
    ///
    /// # Errors
    /// If there is no such volume, or it is kept for others and no host writes to it.
    pub async fn set_strategy(
        self: &Rc<Self>,
        name: &str,
        strategy: Strategy,
    ) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let volume = {
            let config = self.config.borrow();
            let volume = super::volumes::find(&config, name)?;
            refuse_without_hosts(&config, volume, ", so none of its writes are redirected")?;
            volume.number
        };
        self.commit(|next| {
            if strategy == Strategy::Auto {
                next.backups.strategies.remove(&volume);
            } else {
                next.backups.strategies.insert(volume, strategy);
            }
        })
        .await
    }
}

fn enter(next: &mut Configuration, work: WorkEntry) {
    let at = next.backups.work.partition_point(|w| w.place < work.place);
    next.backups.work.insert(at, work);
}

/// Refuses to delete a group or a volume that is the only one a work place is kept for: with nothing named, it would be for any.
pub(super) fn refuse_if_kept_for(
    config: &Configuration,
    deleted: Deleted,
) -> Result<(), CommandError> {
    let kept_for = |work: &&WorkEntry| match (work.place, deleted) {
        (BackupPlace::WorkVolume(_), Deleted::Volume(volume)) => work.serves == [volume.0],
        (BackupPlace::WorkDisk(_), Deleted::Group(group)) => work.serves == [group.0],
        _ => false,
    };
    let Some(work) = config.backups.work.iter().find(kept_for) else { return Ok(()) };
    let what = match deleted {
        Deleted::Volume(volume) => format!("volume {volume}"),
        Deleted::Group(group) => format!("group {group}"),
    };
    let how = match work.place {
        BackupPlace::WorkVolume(number) => format!("work-volume remove {number}"),
        BackupPlace::WorkDisk(number) => format!("work-disk remove {number}"),
        BackupPlace::Pair(number) => format!("pair delete {number}"),
    };
    Err(CommandError::Refused(format!(
        "{} is kept for {what} alone: `forestall {how}` first",
        work.place
    )))
}

/// Refuses to change how hosts' writes are taken of a volume that takes none; `so` is what follows from that.
pub(super) fn refuse_without_hosts(
    config: &Configuration,
    volume: &VolumeEntry,
    so: &str,
) -> Result<(), CommandError> {
    match kept_as(config, volume.number) {
        None => Ok(()),
        Some(what) => Err(CommandError::Refused(format!(
            "volume {:?} is {what}: no host writes to it{so}; nothing was changed",
            volume.name
        ))),
    }
}

/// What a volume is kept for instead of hosts, if it is.
fn kept_as(config: &Configuration, number: VolumeNumber) -> Option<String> {
    if config.backups.work_at(BackupPlace::WorkVolume(number)).is_some() {
        return Some("a work volume".into());
    }
    let pair = config.backups.pair_with(number).filter(|pair| pair.secondary == number)?;
    Some(format!("the secondary of volume {}", pair.primary))
}

/// What a command deletes.
#[derive(Clone, Copy)]
pub(super) enum Deleted {
    Volume(VolumeNumber),
    Group(GroupNumber),
}

/// Refuses to change a volume that a shield or a log relies on.
pub(super) fn refuse_if_relied_on(
    config: &Configuration,
    volume: &VolumeEntry,
    what: &str,
) -> Result<(), CommandError> {
    if config.backups.work_at(BackupPlace::WorkVolume(volume.number)).is_some() {
        return Err(CommandError::Refused(format!(
            "volume {:?} is a work volume and is not {what}: `forestall work-volume remove {}` first",
            volume.name, volume.number
        )));
    }
    refuse_if_paired(config, volume, what)?;
    let shield = config.backups.of_group(volume.group);
    let covers =
        |v: &crate::config::ShieldedVolume| v.volume == volume.number && !v.chain.is_empty();
    if shield.is_some_and(|a| a.volumes.iter().any(covers)) {
        return Err(CommandError::Refused(format!(
            "group {} is shielded: volume {:?} is not {what} until its updates are home; see `forestall jobs`",
            volume.group, volume.name
        )));
    }
    Ok(())
}

/// Refuses to change a volume that is a part of a pair.
fn refuse_if_paired(
    config: &Configuration,
    volume: &VolumeEntry,
    what: &str,
) -> Result<(), CommandError> {
    let Some(pair) = config.backups.pair_with(volume.number) else { return Ok(()) };
    let part = if pair.primary == volume.number { "primary" } else { "secondary" };
    let how = if pair.temporary {
        "it ends when the updates are home; see `forestall jobs`".to_owned()
    } else {
        format!("`forestall pair delete {}` first", pair.primary)
    };
    Err(CommandError::Refused(format!(
        "volume {:?} is the {part} of a pair and is not {what}: {how}",
        volume.name
    )))
}
