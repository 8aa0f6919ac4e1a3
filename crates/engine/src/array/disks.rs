//! Disks: adding, removing, failing, bringing back, replacing.
//!
//! Owns the commands on single disks. Invariants: a disk is labelled and holds its group's maps before a configuration names it; a
//! command is refused, with nothing changed, if it would take the last copy of anything; a disk that returns is trusted only
//! where the intent bits prove it current (rule M3).

use std::future::Future;
use std::rc::Rc;

use super::{Array, NewDisk, labels};
use crate::config::{
    Configuration, DiskEntry, DiskRole, DropReason, GroupEntry, Service, SlotState,
};
use crate::disk::Disk;
use crate::drive::Drive;
use crate::error::CommandError;
use crate::format::label::Label;
use crate::format::layout::Layout;
use crate::ids::{DiskNumber, GroupNumber, Slot, Uuid};
use crate::quorum::Stamp;
use crate::report::Severity;
use crate::runtime::{Env, Runtime};

pub(super) fn no_disk(number: DiskNumber) -> CommandError {
    CommandError::NotFound(format!("there is no disk {number}; see `forestall disk list`"))
}

/// A path cut to what the configuration keeps of it: the end says most.
pub(super) fn hint(text: &str, max: usize) -> String {
    let mut start = text.len().saturating_sub(max);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_string()
}

/// The configuration's entry of a new disk.
pub(super) fn new_entry<E: Env>(
    number: DiskNumber,
    uuid: Uuid,
    layout: &Layout,
    disk: &NewDisk<E>,
    role: DiskRole,
) -> DiskEntry {
    DiskEntry {
        number,
        uuid,
        data_len: layout.data.len,
        role,
        service: Service::InService,
        path_hint: hint(&disk.identity.path, 255),
        serial: hint(disk.identity.serial.as_deref().unwrap_or_default(), 63),
    }
}

impl<E: Env> Array<E> {
    /// Adds a disk as a spare or a free disk and answers its number.
    ///
    /// # Errors
    /// If it is too small for any use or fails while being labelled.
    pub async fn add_disk(
        self: &Rc<Self>,
        disk: NewDisk<E>,
        role: DiskRole,
    ) -> Result<DiskNumber, CommandError> {
        let _turn = self.command_turn.lock().await;
        let path = disk.identity.path.clone();
        let layout = Layout::for_size(disk.disk.size())
            .map_err(|e| CommandError::Refused(format!("{path}: {e}")))?;
        let config = self.config.borrow().clone();
        if role == DiskRole::Spare {
            check_spare_size(&config, layout.data.len, &path)?;
        }
        if let Ok(found) = labels::read_label(&disk.disk).await
            && config.disks.iter().any(|d| d.uuid == found.label.disk)
        {
            return Err(CommandError::Refused(format!(
                "{path} is disk {} of this array; use `forestall disk readd {}`",
                found.label.number, found.label.number
            )));
        }
        let number = (1..)
            .map(DiskNumber)
            .find(|n| config.disk(*n).is_none())
            .expect("numbers do not run out");
        let uuid = Uuid::from_random(self.rt.random_u64(), self.rt.random_u64());
        let entry = new_entry(number, uuid, &layout, &disk, role);
        let label = Label {
            array: config.array,
            disk: uuid,
            number,
            name: config.name.clone(),
            disk_size: disk.disk.size(),
            created_ms: self.rt.unix_ms(),
            layout,
            unknown_read_only: 0,
        };
        let failed = |fault| {
            CommandError::Failed(format!("{path}: {fault} while being labelled; it was not added"))
        };
        labels::write_regions(&disk.disk, &layout).await.map_err(failed)?;
        labels::write_label(&disk.disk, &label).await.map_err(failed)?;
        let drive =
            Drive::new(self.rt.clone(), number, disk.disk, layout, disk.identity, self.timeout_ns);
        self.drives.borrow_mut().insert(number, drive);
        let committed = self
            .commit(|next| {
                let at =
                    next.disks.iter().position(|d| d.number > number).unwrap_or(next.disks.len());
                next.disks.insert(at, entry);
            })
            .await;
        if let Err(error) = committed {
            self.drives.borrow_mut().remove(&number);
            return Err(error);
        }
        let what = if role == DiskRole::Spare { "a spare" } else { "a free disk" };
        self.event(
            Severity::Info,
            "disk-added",
            Some(number),
            None,
            format!("{path} is disk {number}, {what}"),
        );
        Ok(number)
    }

    /// Takes an unused disk out of the array; its label is wiped if it still answers.
    ///
    /// # Errors
    /// If there is no such disk or a group relies on it or remembers it in a slot.
    pub async fn remove_disk(self: &Rc<Self>, number: DiskNumber) -> Result<(), CommandError> {
        let _turn = self.command_turn.lock().await;
        let config = self.config.borrow().clone();
        let disk = config.disk(number).ok_or_else(|| no_disk(number))?;
        if let Some((group, slot)) = config.slot_of(number) {
            let what = if disk.in_service() {
                format!("replace it first: `forestall replace {number}`")
            } else {
                "add a spare, and its slot is rebuilt there".to_string()
            };
            return Err(CommandError::Refused(format!(
                "disk {number} is in slot {slot} of group {group}; {what}"
            )));
        }
        if config.in_service().count() == 1 && disk.in_service() {
            return Err(CommandError::Refused(format!(
                "disk {number} is the last one of the array"
            )));
        }
        if disk.in_service() {
            self.commit(|next| self.drop_disk(next, number, DropReason::Removed)).await?;
        }
        self.commit(|next| next.disks.retain(|d| d.number != number)).await?;
        let drive = self.drives.borrow_mut().remove(&number);
        if let Some(drive) = drive {
            let answers = drive.late_requests() == 0;
            drive.retire();
            if answers {
                // The disk is out already; one that cannot be wiped keeps a label that this array disowns.
                let _ = self.in_time(labels::wipe(drive.raw())).await;
            }
        }
        self.holds.borrow_mut().remove(&number);
        self.event(
            Severity::Info,
            "disk-removed",
            Some(number),
            None,
            format!("disk {number} was removed"),
        );
        Ok(())
    }

    /// Stops using a disk, as if it had failed.
    ///
    /// # Errors
    /// If there is no such disk, it is out already, or data would go with it.
    pub async fn fail_disk(self: &Rc<Self>, number: DiskNumber) -> Result<(), CommandError> {
        let _turn = self.command_turn.lock().await;
        let config = self.config.borrow().clone();
        let disk = config.disk(number).ok_or_else(|| no_disk(number))?;
        if !disk.in_service() {
            return Err(CommandError::Refused(format!("disk {number} is out of service already")));
        }
        if config.in_service().count() == 1 {
            return Err(CommandError::Refused(format!(
                "disk {number} is the last one of the array"
            )));
        }
        let drive = self.drives.borrow().get(&number).cloned();
        let place = config.slot_of(number).map(|(group, slot)| (self.group(group), slot));
        if let (Some((group, _)), Some(drive)) = (&place, &drive) {
            let group = group.as_ref().map_err(|_| no_disk(number))?;
            if !group.give_up_by_operator(drive) {
                return Err(CommandError::Refused(format!(
                    "group {} would lose data without disk {number}: bring back or replace what is missing first",
                    group.number
                )));
            }
        }
        self.note_failing(number, "failed by the operator".into(), DropReason::Operator);
        self.commit_failures().await
    }

    /// Brings a failed or missing disk back (rule M3). `disk` is the newly opened disk, or `None` if it is still open.
    ///
    /// # Errors
    /// If it is not the disk that left, its slot was rebuilt elsewhere, or it fails again.
    pub async fn readd_disk(
        self: &Rc<Self>,
        number: DiskNumber,
        disk: Option<NewDisk<E>>,
    ) -> Result<(), CommandError> {
        let _turn = self.command_turn.lock().await;
        let config = self.config.borrow().clone();
        let entry = config.disk(number).ok_or_else(|| no_disk(number))?.clone();
        let Service::Dropped { history, generation, .. } = entry.service else {
            return Err(CommandError::Refused(format!("disk {number} is in service already")));
        };
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
        if let Some((group, slot)) = place {
            self.readd_member(&config, group, slot, drive, partly).await?;
        } else {
            self.drives.borrow_mut().insert(number, drive);
            self.commit(|next| {
                if let Some(disk) = next.disk_mut(number) {
                    disk.service = Service::InService;
                    disk.role =
                        if disk.role == DiskRole::Free { DiskRole::Free } else { DiskRole::Spare };
                }
            })
            .await?;
        }
        let what = match (place, partly) {
            (None, _) => "is back, as a spare: its slot was rebuilt elsewhere".to_string(),
            (Some((group, _)), true) => {
                format!("is back in group {group}; what changed meanwhile is copied")
            }
            (Some((group, _)), false) => {
                format!("is back in group {group} and is rebuilt from the start")
            }
        };
        self.event(
            Severity::Info,
            "disk-readded",
            Some(number),
            place.map(|p| p.0),
            format!("disk {number} {what}"),
        );
        Ok(())
    }

    /// What `work` answers within the time limit of a request: a disk that hangs must not hold up every other command.
    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        labels::within(&self.rt, self.timeout_ns, work).await
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
    async fn holds_enough(
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
        let Some(held) = configs.iter().max_by_key(|c| c.generation).map(Stamp::of) else {
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
        let copied = group.write_all_pages(&drive).await.map_err(|e| failed(e.to_string()))?;
        self.drives.borrow_mut().insert(disk, drive);
        self.commit(|next| {
            if let Some(entry) = next.disk_mut(disk) {
                entry.service = Service::InService;
                if state == SlotState::Rebuilding {
                    entry.role = DiskRole::Spare;
                }
            }
            if let Some(entry) = next.group_mut(number) {
                entry.slots[usize::from(slot.0)].state = state;
            }
        })
        .await?;
        group.refresh_pages(&copied).await.map_err(|e| failed(e.to_string()))
    }

    /// Copies a member to a spare while it stays in service, then swaps (rules F4, A2, A3). Answers the job's id, counted from
    /// the next one to start. `rate` is a limit in bytes a second, 0 for none.
    ///
    /// # Errors
    /// If the disk is not a member in sync, or the spare is missing, too small, in use or out of service; then nothing changed.
    pub async fn replace(
        self: &Rc<Self>,
        disk: DiskNumber,
        with: Option<DiskNumber>,
        rate: u64,
    ) -> Result<u64, CommandError> {
        let _turn = self.command_turn.lock().await;
        let config = self.config.borrow().clone();
        config.disk(disk).ok_or_else(|| no_disk(disk))?;
        let Some((number, slot)) = config.slot_of(disk) else {
            return Err(CommandError::Refused(format!(
                "disk {disk} is in no group: there is nothing to copy"
            )));
        };
        let entry = &config.group(number).expect("slots are in groups").slots[usize::from(slot.0)];
        if entry.replacement.is_some() || !matches!(entry.state, SlotState::InSync | SlotState::Out)
        {
            return Err(CommandError::Refused(format!(
                "disk {disk} is being replaced or rebuilt already"
            )));
        }
        let group = self.group(number)?;
        if entry.state == SlotState::Out && !group.can_rebuild(slot) {
            return Err(CommandError::Refused(format!(
                "group {number} lacks too many members to rebuild disk {disk}: bring one back first, `forestall disk readd N`"
            )));
        }
        let spare = match with {
            Some(spare) if spare == disk => {
                return Err(CommandError::Refused(format!("disk {disk} cannot replace itself")));
            }
            Some(spare) => {
                let found = self.unused_disk(&config, spare)?;
                if found.data_len < group.member_len() {
                    return Err(too_small(spare, found.data_len, group.member_len()));
                }
                spare
            }
            None => self.pick_spare(&config, group.member_len()).ok_or_else(|| {
                CommandError::Refused(format!(
                    "there is no spare with {} usable bytes; add one with `forestall disk add PATH --role spare`",
                    group.member_len()
                ))
            })?,
        };
        self.engage(&group, slot, spare, rate).await?;
        let running = self.jobs.running(number, |job| job.disk == Some(spare));
        Ok(running.map_or_else(|| self.jobs.upcoming(), |job| job.id()))
    }

    /// The smallest spare that is large enough.
    pub(super) fn pick_spare(&self, config: &Configuration, member_len: u64) -> Option<DiskNumber> {
        let drives = self.drives.borrow();
        config
            .disks
            .iter()
            .filter(|d| d.role == DiskRole::Spare && d.in_service() && d.data_len >= member_len)
            .filter(|d| {
                config.slot_of(d.number).is_none()
                    && drives.get(&d.number).is_some_and(|d| !d.is_gone())
            })
            .min_by_key(|d| (d.data_len, d.number))
            .map(|d| d.number)
    }

    /// Puts a spare into a slot: as the slot's disk if the old one is out, else as its replacement.
    pub(super) async fn engage(
        self: &Rc<Self>,
        group: &Rc<crate::group::Group<E>>,
        slot: Slot,
        spare: DiskNumber,
        rate: u64,
    ) -> Result<(), CommandError> {
        let number = group.number;
        let failed = |what: String| CommandError::Failed(format!("spare {spare}: {what}"));
        let drive = self
            .drives
            .borrow()
            .get(&spare)
            .cloned()
            .ok_or_else(|| failed("it is not open".into()))?;
        group.reset_cursor(slot).await.map_err(|e| failed(e.to_string()))?;
        let copied = match group.write_all_pages(&drive).await {
            Ok(copied) => copied,
            Err(fault) => {
                self.note_failing(
                    spare,
                    format!("{fault} on taking a member's place"),
                    DropReason::Failed,
                );
                self.tend_failures();
                return Err(failed(fault.to_string()));
            }
        };
        self.set_rate(number, slot, rate);
        self.commit(|next| {
            // It is a member from the swap on: one that fails before was never in sync (rule M3).
            let Some(entry) = next.group_mut(number) else { return };
            let slot = &mut entry.slots[usize::from(slot.0)];
            if slot.state == SlotState::Out {
                (slot.disk, slot.state) = (spare, SlotState::Rebuilding);
            } else {
                slot.replacement = Some(spare);
            }
        })
        .await?;
        group.refresh_pages(&copied).await.map_err(|e| failed(e.to_string()))?;
        let what = format!("disk {spare} fills slot {slot} of group {number}");
        self.event(Severity::Info, "spare-engaged", Some(spare), Some(number), what);
        Ok(())
    }
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

fn too_small(disk: DiskNumber, has: u64, needs: u64) -> CommandError {
    CommandError::Refused(format!("disk {disk} has {has} usable bytes; {needs} are needed"))
}

/// A spare that could replace no member of any group is no spare.
fn check_spare_size(config: &Configuration, data_len: u64, path: &str) -> Result<(), CommandError> {
    let needs = config.groups.iter().map(|g| g.stripes * u64::from(g.chunk)).min();
    match needs {
        Some(needs) if data_len < needs => Err(CommandError::Refused(format!(
            "{path} has {data_len} usable bytes after its regions; a spare of this array needs {needs}"
        ))),
        _ => Ok(()),
    }
}
