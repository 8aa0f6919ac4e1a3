//! Bringing a disk back (rule M3).
//!
//! Owns `readd`. Invariants: a disk that returns is trusted only where the intent bits prove it current; one that was never wholly in sync, or was put
//! back to an older image, is rebuilt from the start; one that went on alone is refused; of several members that nobody can
//! rebuild only the one that left last comes back as it is.

use std::rc::Rc;

use super::disks::no_disk;
use super::{Array, NewDisk, labels};
use crate::config::{
    Configuration, DiskEntry, DiskRole, GroupEntry, Service, SlotState, WorkEntry,
};
use crate::drive::Drive;
use crate::error::CommandError;
use crate::group::{Away, Group};
use crate::ids::{DiskNumber, GroupNumber, Slot};
use crate::quorum::{Stamp, older_slot};
use crate::report::Severity;
use crate::runtime::Env;
use crate::sync::RangeGuard;

impl<E: Env> Array<E> {
    /// Brings a failed or missing disk back (rule M3). `disk` is the newly opened disk, or `None` if it is still open.
    ///
    /// # Errors
    /// If it is not the disk that left, its slot was rebuilt elsewhere, or it fails again.
    pub async fn readd_disk(
        self: &Rc<Self>,
        number: DiskNumber,
        disk: Option<NewDisk<E>>,
    ) -> Result<(), CommandError> {
        let turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let entry = config.disk(number).ok_or_else(|| no_disk(number))?.clone();
        let Service::Dropped { history, generation, .. } = entry.service else {
            return Err(CommandError::Refused(format!("disk {number} is in service already")));
        };
        refuse_untested(&config, number)?;
        let set = config.backups.set_of_leg(number);
        if let Some(set) = set.filter(|set| set.log != 0) {
            self.refuse_only_source(&config, set, number)?;
        }
        let drive = match disk {
            Some(new) => self.reopened(&config, &entry, new).await?,
            None => {
                let open = self.drives.borrow().get(&number).cloned();
                let open = open.ok_or_else(|| {
                    CommandError::Refused(format!(
                        "disk {number} is not open; name its path: `forestall disk readd {number} PATH`"
                    ))
                })?;
                open.revive().map_err(CommandError::Refused)?;
                open
            }
        };
        let known = Stamp { history, generation };
        let partly = self.holds_enough(&config, &drive, known).await?;
        let place = config.slot_of(number);
        if let Some(set) = set {
            drop(turn);
            self.readd_leg(set.place, drive).await?;
        } else if let Some((group, slot)) = place {
            self.readd_member(&config, group, slot, drive, partly).await?;
        } else {
            self.drives.borrow_mut().insert(number, drive);
            self.commit(|next| {
                // Whatever it was copied away from, it is nobody's last resort any more.
                for avoidance in &mut next.backups.avoidances {
                    avoidance.retiring = avoidance.retiring.filter(|old| old.disk != number);
                }
                if let Some(disk) = next.disk_mut(number) {
                    disk.service = Service::InService;
                    if disk.role != DiskRole::Free {
                        disk.role = DiskRole::Spare;
                    }
                }
            })
            .await?;
        }
        // What it held of a lost block may be written over from now on.
        self.groups.borrow().values().for_each(|group| group.owes_nothing(number));
        let what = self.how_it_is_back(number, set.is_some(), place.map(|p| p.0), partly);
        self.event(
            Severity::Info,
            "disk-readded",
            Some(number),
            place.map(|p| p.0),
            format!("disk {number} {what}"),
        );
        Ok(())
    }

    /// What a disk that is back is now, in words.
    fn how_it_is_back(
        &self,
        number: DiskNumber,
        is_leg: bool,
        group: Option<GroupNumber>,
        partly: bool,
    ) -> String {
        match (group, partly) {
            (None, _) if is_leg => "is back, as a leg that holds what the others hold".into(),
            (None, _) if self.is_ailing(number) => format!(
                "is back, and is no spare as long as it is ailing: `forestall health clear {number}` trusts it again"
            ),
            (None, _) => "is back, as a spare: its slot was rebuilt elsewhere".into(),
            (Some(group), true) => {
                format!("is back in group {group}; what changed meanwhile is copied")
            }
            (Some(group), false) => {
                format!("is back in group {group} and is rebuilt from the start")
            }
        }
    }

    /// The leg that a log is still read from is all there is of it: it cannot be filled from itself.
    fn refuse_only_source(
        &self,
        config: &Configuration,
        set: &WorkEntry,
        number: DiskNumber,
    ) -> Result<(), CommandError> {
        let read =
            self.logs.borrow().get(&set.place).is_some_and(|l| l.space().is_last_leg(number));
        if !read || config.serving_legs(set).next().is_some() {
            return Ok(());
        }
        Err(CommandError::Refused(format!(
            "disk {number} is the last leg of {} and is read until its updates are home: bring it back then, see `forestall jobs`",
            set.place
        )))
    }

    /// A disk handed in for `readd`: it must be the one that left.
    async fn reopened(
        self: &Rc<Self>,
        config: &Configuration,
        entry: &DiskEntry,
        new: NewDisk<E>,
    ) -> Result<Rc<Drive<E>>, CommandError> {
        let path = new.identity.path.clone();
        let number = entry.number;
        let found = labels::read_label(&new.disk).await.map_err(|e| {
            CommandError::Refused(format!(
                "{path}: {e}; a blank disk is added with `forestall disk add {path}`"
            ))
        })?;
        if found.label.array != config.array || found.label.disk != entry.uuid {
            return Err(CommandError::Refused(format!(
                "{path} is disk {} of array {:?} ({}), not disk {number} of this array",
                found.label.number, found.label.name, found.label.array
            )));
        }
        if let Some(old) = self.drives.borrow().get(&number) {
            old.revive().map_err(CommandError::Refused)?;
            old.retire();
        }
        Ok(Drive::new(
            self.rt.clone(),
            number,
            new.disk,
            found.label.layout,
            new.identity,
            self.timeout_ns,
        ))
    }

    /// Whether the disk holds at least what it was known to hold, on this array's line (rule M3's condition).
    pub(super) async fn holds_enough(
        &self,
        config: &Configuration,
        drive: &Rc<Drive<E>>,
        known: Stamp,
    ) -> Result<bool, CommandError> {
        let read =
            self.in_time(labels::read_configs(drive.raw(), &drive.layout, config.array)).await;
        let (configs, _) = read.ok_or_else(|| {
            CommandError::Failed(format!(
                "disk {} does not answer; it was not brought back",
                drive.number
            ))
        })?;
        drive.config_slot.set(older_slot(&configs, config));
        let newest = configs.iter().flatten().max_by_key(|c| c.generation);
        let Some(held) = newest.map(Stamp::of) else {
            return Ok(false);
        };
        if !held.is_on_line_of(config) {
            return Err(CommandError::Refused(format!(
                "disk {} went on without this array (generation {}): it holds what this array does not know. \
                 To use it all the same, wipe it with `forestall destroy` and add it anew",
                drive.number, held.generation
            )));
        }
        Ok(held.generation >= known.generation)
    }

    /// No host has a block of the group's volumes while these are held.
    async fn hold_volumes(&self, group: GroupNumber) -> Vec<RangeGuard> {
        let volumes: Vec<_> = self.volumes.borrow().values().cloned().collect();
        let mut held = Vec::new();
        for volume in volumes.iter().filter(|volume| volume.group().number == group) {
            held.push(volume.lock_all().await);
        }
        held
    }

    async fn readd_member(
        self: &Rc<Self>,
        config: &Configuration,
        number: GroupNumber,
        slot: Slot,
        drive: Rc<Drive<E>>,
        partly: bool,
    ) -> Result<(), CommandError> {
        let group = self.group(number)?;
        let disk = drive.number;
        let entry = config.group(number).expect("the group is there");
        let slot_entry = &entry.slots[usize::from(slot.0)];
        if slot_entry.replacement.is_some() {
            return Err(CommandError::Refused(format!(
                "slot {slot} of group {number} is being filled on a replacement: wait until it is done"
            )));
        }
        let state = if !group.can_rebuild(slot) {
            // Nobody else can give it: what the disk has is all there is, if it was the last to leave.
            let was_whole = partly && config.disk(disk).is_some_and(|d| d.role == DiskRole::Member);
            if !was_whole {
                return Err(CommandError::Refused(format!(
                    "disk {disk} does not hold all of slot {slot}, and group {number} lacks the members to rebuild it: bring others back first"
                )));
            }
            last_to_leave(config, entry, disk)?;
            SlotState::InSync
        } else if partly && config.disk(disk).is_some_and(|d| d.role == DiskRole::Member) {
            SlotState::Catching
        } else {
            SlotState::Rebuilding
        };
        let failed = |what: String| {
            CommandError::Failed(format!("disk {disk}: {what}; it was not brought back"))
        };
        if state == SlotState::Rebuilding {
            group.reset_cursor(slot).await.map_err(|e| failed(e.to_string()))?;
        }
        let away = group.away();
        if away == Away::Unknown {
            learn_maps(&group, &drive).await?;
        }
        let copied = group.write_all_pages(&drive).await.map_err(|e| failed(e.to_string()))?;
        self.drives.borrow_mut().insert(disk, drive);
        // No host has a block of a group that returns before its journal was replayed.
        let held = if away == Away::Here { Vec::new() } else { self.hold_volumes(number).await };
        let returns = away != Away::Here && group.is_readable_with(slot);
        self.commit(|next| {
            if let Some(entry) = next.disk_mut(disk) {
                entry.service = Service::InService;
                if state == SlotState::Rebuilding {
                    entry.role = DiskRole::Spare;
                }
            }
            if let Some(entry) = next.group_mut(number) {
                entry.slots[usize::from(slot.0)].state = state;
                entry.clean &= !returns;
            }
        })
        .await?;
        match away {
            Away::Here => {}
            _ if returns => self.group_returns(&group, entry.clean).await,
            Away::Unknown | Away::Partly => group.set_away(Away::Partly),
        }
        drop(held);
        group.refresh_pages(&copied).await.map_err(|e| failed(e.to_string()))?;
        if group.is_readable() {
            self.pairs_return(number).await;
        }
        Ok(())
    }
}

/// A replaced disk that failed its test is not used before it passes one.
fn refuse_untested(config: &Configuration, number: DiskNumber) -> Result<(), CommandError> {
    let Some(test) = config.failed_tests.get(&number) else { return Ok(()) };
    Err(CommandError::Refused(format!(
        "disk {number} failed the test after it was replaced ({}): it is not used before it passes one. `forestall health clear {number}` \
         {}; else take it out with `forestall disk remove {number}`",
        test.why,
        test.clearing_words(config)
    )))
}

/// The first member that is back tells what the maps of its group are; blank ones would take all data for never written. What a crash left half-way
/// is looked at when enough of them are.
async fn learn_maps<E: Env>(
    group: &Rc<Group<E>>,
    drive: &Rc<Drive<E>>,
) -> Result<(), CommandError> {
    let maps = group.load_maps_of(vec![Rc::clone(drive)], true).await;
    maps.map_err(|missing| {
        CommandError::Refused(format!(
            "disk {} does not hold page {} of the {:?} map of group {}: bring another member back first",
            drive.number, missing.page, missing.kind, group.number
        ))
    })
}

/// Of several members that are out, only the one that left last may come back as it is: the others missed writes since.
fn last_to_leave(
    config: &Configuration,
    group: &GroupEntry,
    disk: DiskNumber,
) -> Result<(), CommandError> {
    let left = |number: DiskNumber| match config.disk(number).map(|d| d.service) {
        Some(Service::Dropped { generation, .. }) => Some(generation),
        _ => None,
    };
    let mine = left(disk);
    let later = group.slots.iter().map(|s| s.disk).find(|d| *d != disk && left(*d) > mine);
    match later {
        Some(later) => Err(CommandError::Refused(format!(
            "group {} went on after disk {disk} left: bring disk {later} back first",
            group.number
        ))),
        None => Ok(()),
    }
}
