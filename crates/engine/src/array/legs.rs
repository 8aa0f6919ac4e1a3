//! Legs of a work-disk set: labelling them, adding one to a set that lost one, bringing one back.
//!
//! Owns how a disk becomes a leg. Invariants: a disk is labelled before a configuration names it; a leg is in service only when it holds all that
//! the set's log holds, whether the log was in use before, is now, or came into use meanwhile; a log in use keeps the size that it began with.

use std::rc::Rc;

use super::{Array, NewDisk, labels};
use crate::config::{BackupPlace, Configuration, DiskEntry, DiskRole, Service, WorkEntry};
use crate::disk::Disk;
use crate::drive::Drive;
use crate::error::CommandError;
use crate::format::label::DISKS_MAX;
use crate::format::layout::Layout;
use crate::format::log::LogShape;
use crate::ids::{BLOCK_SIZE, DiskNumber, GroupNumber};
use crate::report::{LegDamage, Severity};
use crate::runtime::Env;
use crate::shield::Log;
use crate::words;

/// Most legs of a work-disk set.
pub(super) const LEGS_MAX: usize = 8;

impl<E: Env> Array<E> {
    /// What the legs of work disks in use do not hold as they should, as far as another leg has it; with `data` every redirected block is read from
    /// each leg. Reads only.
    pub async fn damage_of_legs(&self, data: bool) -> Vec<LegDamage> {
        let logs: Vec<_> = self.logs.borrow().values().cloned().collect();
        let mut found = Vec::new();
        for log in logs {
            found.extend(log.damage(data).await);
        }
        found
    }

    /// Gives new legs to a set that lacks some (rule B7).
    pub(super) async fn add_legs(
        self: &Rc<Self>,
        set: DiskNumber,
        legs: Vec<NewDisk<E>>,
        serves: &[GroupNumber],
    ) -> Result<(), CommandError> {
        let turn = self.turn().await?;
        let (config, place) = (self.config.borrow().clone(), BackupPlace::WorkDisk(set));
        let Some(work) = config.backups.work_at(place) else {
            return Err(CommandError::NotFound(format!("{place} was removed meanwhile")));
        };
        let layouts = check_legs(&config, work, &legs, serves).await?;
        let (entries, open) = self.label_legs(&config, set, legs, layouts).await?;
        for drive in &open {
            self.drives.borrow_mut().insert(drive.number, Rc::clone(drive));
        }
        drop(turn);
        for (entry, drive) in entries.into_iter().zip(open) {
            let number = drive.number;
            let entered = self.enter_leg(place, &drive, |next| {
                let at = next.disks.partition_point(|d| d.number < number);
                next.disks.insert(at, entry);
                if let Some(work) = next.backups.work_at_mut(place) {
                    work.legs.push(number);
                }
            });
            if let Err(error) = entered.await {
                self.let_go(number).await;
                return Err(error);
            }
            let what = format!("disk {number} is a leg of {place} now");
            self.event(Severity::Info, "work-disk-mended", Some(number), None, what);
        }
        Ok(())
    }

    /// Brings a leg back into a set whose log may be in use: it holds older entries, so all is copied anew.
    pub(super) async fn readd_leg(
        self: &Rc<Self>,
        place: BackupPlace,
        drive: Rc<Drive<E>>,
    ) -> Result<(), CommandError> {
        let number = drive.number;
        self.drives.borrow_mut().insert(number, Rc::clone(&drive));
        let entered = self.enter_leg(place, &drive, |next| {
            if let Some(disk) = next.disk_mut(number) {
                disk.service = Service::InService;
            }
        });
        let entered = entered.await;
        if entered.is_err() {
            drive.retire();
        }
        entered
    }

    /// Copies what the log of `place` holds to a leg and commits that it serves. Commands may come and go meanwhile; at the end none does.
    async fn enter_leg(
        self: &Rc<Self>,
        place: BackupPlace,
        drive: &Rc<Drive<E>>,
        enter: impl FnOnce(&mut Configuration),
    ) -> Result<(), CommandError> {
        let in_use = || self.logs.borrow().get(&place).cloned();
        let failed = |error: &dyn std::fmt::Display| {
            CommandError::Failed(format!(
                "disk {} ({}) did not become a leg of {place}: {error}",
                drive.number, drive.identity.path
            ))
        };
        let early = in_use();
        if let Some(log) = &early {
            log.copy_to(drive).await.map_err(|e| failed(&e))?;
        }
        let _turn = self.turn().await?;
        let log = in_use();
        let copied = |log: &Rc<Log<E>>| early.as_ref().is_some_and(|early| Rc::ptr_eq(early, log));
        if let Some(log) = log.as_ref().filter(|log| !copied(log)) {
            log.copy_to(drive).await.map_err(|e| failed(&e))?;
        }
        let mut entered = false;
        let committed = self.commit(|next| {
            // A leg that failed since takes no more writes and is no leg.
            let took_all = log.as_ref().is_none_or(|log| log.space().is_joining(drive));
            if took_all && !drive.is_gone() && next.backups.work_at(place).is_some() {
                enter(next);
                entered = true;
            }
        });
        let committed = committed.await.map_err(|e| failed(&e));
        let serves = self.config.borrow().disk(drive.number).is_some_and(DiskEntry::in_service);
        if committed.is_ok() && entered && serves {
            return Ok(());
        }
        log.iter().for_each(|log| log.space().leave(drive));
        committed.and(Err(failed(&"it failed, or the set was removed meanwhile")))
    }

    /// Labels the legs of work disk `set`. They are disks of the array in every respect; their numbers come from the top.
    pub(super) async fn label_legs(
        &self,
        config: &Configuration,
        set: DiskNumber,
        legs: Vec<NewDisk<E>>,
        layouts: Vec<Layout>,
    ) -> Result<(Vec<DiskEntry>, Vec<Rc<Drive<E>>>), CommandError> {
        let mut entries: Vec<DiskEntry> = Vec::new();
        let mut open = Vec::new();
        for (leg, layout) in legs.into_iter().zip(layouts) {
            let taken = |n: &DiskNumber| {
                *n == set
                    || config.disk(*n).is_some()
                    || self.drives.borrow().contains_key(n)
                    || entries.iter().any(|e: &DiskEntry| e.number == *n)
                    || config.backups.work_at(BackupPlace::WorkDisk(*n)).is_some()
            };
            let number =
                (1..=DISKS_MAX).rev().map(DiskNumber).find(|n| !taken(n)).ok_or_else(|| {
                    CommandError::Refused(format!("there are {DISKS_MAX} disks already"))
                })?;
            let (entry, drive) =
                self.label_new(config, number, leg, layout, DiskRole::Work).await?;
            entries.push(entry);
            open.push(drive);
        }
        Ok((entries, open))
    }
}

/// The layout of a disk that may become a leg.
pub(super) async fn check_leg<E: Env>(
    config: &Configuration,
    leg: &NewDisk<E>,
) -> Result<Layout, CommandError> {
    let refused = |what: String| {
        Err(CommandError::Refused(format!("{}: {what}; nothing was changed", leg.identity.path)))
    };
    let layout = match Layout::for_size(leg.disk.size()) {
        Ok(layout) => layout,
        Err(error) => return refused(error.to_string()),
    };
    if LogShape::of(layout.data.len / BLOCK_SIZE).is_none() {
        return refused("too small for a single record and its entry".into());
    }
    if let Ok(found) = labels::read_label(&leg.disk).await
        && config.disks.iter().any(|d| d.uuid == found.label.disk)
    {
        return refused(format!("it is disk {} of this array", found.label.number));
    }
    Ok(layout)
}

/// The layouts of disks that may become new legs of a set that is there.
async fn check_legs<E: Env>(
    config: &Configuration,
    work: &WorkEntry,
    legs: &[NewDisk<E>],
    serves: &[GroupNumber],
) -> Result<Vec<Layout>, CommandError> {
    let (place, lacks) = (work.place, work.legs.len() - config.serving_legs(work).count());
    let refused = |what: String| Err(CommandError::Refused(format!("{place} {what}")));
    if lacks == 0 {
        return refused("is there already and lacks no leg".into());
    }
    if legs.is_empty() || legs.len() > lacks {
        let lacks = words::counted(lacks as u64, "leg");
        return refused(format!("lacks {lacks}: {} is not what it needs", legs.len()));
    }
    if work.legs.len() + legs.len() > LEGS_MAX {
        return refused(format!(
            "names {LEGS_MAX} legs, those that it lost too: take one of these out with `forestall disk remove N`"
        ));
    }
    if !serves.is_empty() {
        return refused("keeps the groups that it is for: leave --for out".into());
    }
    let needed = config.leg_len(work);
    let mut layouts = Vec::new();
    for leg in legs {
        let layout = check_leg(config, leg).await?;
        if work.log != 0 && layout.data.len < needed {
            return refused(format!(
                "holds updates in {} of each leg, and {} has {} usable; nothing was changed",
                words::exact(needed),
                leg.identity.path,
                words::exact(layout.data.len)
            ));
        }
        layouts.push(layout);
    }
    Ok(layouts)
}
