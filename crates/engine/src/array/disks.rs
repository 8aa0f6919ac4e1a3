//! Disks: adding, removing, failing.
//!
//! Owns the commands on single disks that bring nothing back and copy nothing. Invariants: a disk is labelled before a configuration names it; a
//! command is refused, with nothing changed, if it would take the last copy of anything.

use std::future::Future;
use std::rc::Rc;

use super::{Array, NewDisk, labels};
use crate::config::{BackupPlace, Configuration, DiskEntry, DiskRole, DropReason, Service};
use crate::disk::Disk;
use crate::drive::Drive;
use crate::error::CommandError;
use crate::format::label::Label;
use crate::format::layout::Layout;
use crate::ids::{DiskNumber, Uuid};
use crate::report::Severity;
use crate::runtime::{Env, Runtime};
use crate::words;

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
        let _turn = self.turn().await?;
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
                "{path} is disk {0} of this array; bring it back with `forestall disk readd {0} {path}`, or wipe it first: \
                 `forestall destroy {path}`",
                found.label.number
            )));
        }
        let number = (1..)
            .map(DiskNumber)
            .find(|n| {
                let work = config.backups.work_at(BackupPlace::WorkDisk(*n));
                config.disk(*n).is_none() && work.is_none()
            })
            .expect("numbers do not run out");
        let (entry, drive) = self.label_new(&config, number, disk, layout, role).await?;
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

    /// Labels a disk that is to join the array; no configuration names it yet.
    pub(super) async fn label_new(
        &self,
        config: &Configuration,
        number: DiskNumber,
        disk: NewDisk<E>,
        layout: Layout,
        role: DiskRole,
    ) -> Result<(DiskEntry, Rc<Drive<E>>), CommandError> {
        let path = disk.identity.path.clone();
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
        Ok((entry, drive))
    }

    /// Takes an unused disk out of the array; its label is wiped if it still answers.
    ///
    /// # Errors
    /// If there is no such disk or a group relies on it or remembers it in a slot.
    pub async fn remove_disk(self: &Rc<Self>, number: DiskNumber) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let disk = config.disk(number).ok_or_else(|| no_disk(number))?;
        if let Some((group, slot)) = config.slot_of(number) {
            let filled = config.group(group).map(|g| &g.slots[usize::from(slot.0)]);
            let what = if filled.is_some_and(|s| s.replacement == Some(number)) {
                format!(
                    "it is being filled there: wait for it, or `forestall replace cancel {number}`"
                )
            } else if filled.is_some_and(|s| s.replacement.is_some()) && disk.in_service() {
                format!(
                    "it is being copied away from there: wait for that, or `forestall replace cancel {number}`"
                )
            } else if disk.in_service() {
                format!("replace it first: `forestall replace {number}`")
            } else {
                "add a spare, and its slot is rebuilt there".to_string()
            };
            return Err(CommandError::Refused(format!(
                "disk {number} is in slot {slot} of group {group}; {what}"
            )));
        }
        refuse_leg(&config, disk)?;
        if let Some(avoidance) = config.backups.retiring_in(number) {
            return Err(CommandError::Refused(format!(
                "disk {number} was replaced in group {} and is kept until the group's updates are home; see `forestall jobs`",
                avoidance.group
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
        self.commit(|next| {
            next.disks.retain(|d| d.number != number);
            next.health.disks.remove(&number);
            next.backups.suspected.retain(|disk| *disk != number);
            next.backups.work.iter_mut().for_each(|work| work.legs.retain(|leg| *leg != number));
        })
        .await?;
        self.forget_health(number);
        self.let_go(number).await;
        self.event(
            Severity::Info,
            "disk-removed",
            Some(number),
            None,
            format!("disk {number} was removed"),
        );
        Ok(())
    }

    /// Closes a disk that the configuration no longer names, and wipes its label if it still answers.
    pub(super) async fn let_go(self: &Rc<Self>, number: DiskNumber) {
        let drive = self.drives.borrow_mut().remove(&number);
        if let Some(drive) = drive {
            drive.retire();
            // A page of the event log on its way to it must not land on what is wiped now (rule F3).
            self.log_written().await;
            // Nor a write of its test: whoever labels the disk next relies on it.
            let hangs = drive.late_requests() > 0 || self.in_time(drive.rests()).await.is_none();
            let answers = !hangs && drive.late_requests() == 0;
            if answers {
                // The disk is out already; one that cannot be wiped keeps a label that this array disowns.
                let _ = self.in_time(labels::wipe(drive.raw())).await;
            }
        }
        self.holds.borrow_mut().remove(&number);
    }

    /// Stops using a disk, as if it had failed.
    ///
    /// # Errors
    /// If there is no such disk, it is out already, or data would go with it.
    pub async fn fail_disk(self: &Rc<Self>, number: DiskNumber) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
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
        self.refuse_last_leg(&config, number)?;
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

    /// A leg whose peers are all gone holds the only copy of what was redirected to it, and takes what is redirected next.
    fn refuse_last_leg(
        &self,
        config: &Configuration,
        number: DiskNumber,
    ) -> Result<(), CommandError> {
        let Some(work) = config.backups.set_of_leg(number).filter(|work| work.log != 0) else {
            return Ok(());
        };
        if config.serving_legs(work).any(|leg| leg != number) {
            return Ok(());
        }
        let used = self.use_in_words(config, work.place);
        Err(CommandError::Refused(format!(
            "disk {number} is the last leg of {}, which {used}: give it another leg with `forestall work-disk add`, or wait until the shield is down; see \
             `forestall jobs`",
            work.place
        )))
    }

    /// What `work` answers within the time limit of a request: a disk that hangs must not hold up every other command.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        labels::within(&self.rt, self.timeout_ns, work).await
    }
}

/// A leg leaves with its set, or alone once it is lost and nothing relies on the set.
fn refuse_leg(config: &Configuration, disk: &DiskEntry) -> Result<(), CommandError> {
    let number = disk.number;
    let Some(set) = config.backups.set_of_leg(number) else { return Ok(()) };
    let lost = !disk.in_service() && config.serving_legs(set).next().is_some();
    match (lost, set.log) {
        (true, 0) => return Ok(()),
        (true, _) => {
            return Err(CommandError::Refused(format!(
                "disk {number} is a leg that {} lost, and groups are shielded by that: it can be taken out once their updates are home, see `forestall jobs`",
                set.place
            )));
        }
        (false, _) => {}
    }
    let how = match set.place {
        BackupPlace::WorkDisk(set) => format!("`forestall work-disk remove {set}`"),
        BackupPlace::WorkVolume(_) | BackupPlace::Pair(_) => "with its place".into(),
    };
    Err(CommandError::Refused(format!(
        "disk {number} is a leg of {}: the set is removed as a whole, {how}",
        set.place
    )))
}

/// A spare that could replace no member of any group is no spare.
fn check_spare_size(config: &Configuration, data_len: u64, path: &str) -> Result<(), CommandError> {
    let needs = config.groups.iter().map(|g| g.stripes * u64::from(g.chunk)).min();
    match needs {
        Some(needs) if data_len < needs => Err(CommandError::Refused(format!(
            "{path} has {} usable after its regions; a spare of this array needs {}",
            words::exact(data_len),
            words::exact(needs)
        ))),
        _ => Ok(()),
    }
}
