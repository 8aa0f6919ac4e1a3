//! Groups: making, deleting, going on with fewer disks.
//!
//! Owns how a group's shape follows from its members. Invariants: the smallest usable size wins; units, regions and maps fit the
//! regions reserved on every member; a group's map pages are on all its members before the group counts (rule M1).

use std::rc::Rc;

use super::work::{Deleted, refuse_if_kept_for};
use super::{Array, GroupSpec, Notes};
use crate::config::{
    BackupPlace, Configuration, DiskEntry, DiskRole, GroupEntry, JournalMode, Level, SlotEntry,
    SlotState,
};
use crate::error::CommandError;
use crate::format::layout::{Layout, UNWRITTEN_UNIT};
use crate::format::page::{PAGE_BITS, PageKind};
use crate::geometry::{CHUNK_MAX, CHUNK_MIN, Geometry};
use crate::group::{Group, pages_in};
use crate::ids::{DiskNumber, GroupNumber, Uuid};
use crate::report::{JobKind, Severity};
use crate::runtime::{Env, Runtime};
use crate::words;

/// Smallest intent region, and the one that larger members start from.
const REGION_SMALL: u64 = 64 << 10;
const REGION: u64 = 1 << 20;
/// Members below this size take small regions.
const SMALL_MEMBER: u64 = 64 << 20;

/// The shape of a new group, or why it cannot be.
pub(super) fn plan_group(
    number: GroupNumber,
    uuid: Uuid,
    level: Level,
    chunk: u32,
    (journal, checksums): (JournalMode, bool),
    members: &[(&DiskEntry, Layout)],
) -> Result<(GroupEntry, Notes), String> {
    if !chunk.is_power_of_two() || !(CHUNK_MIN..=CHUNK_MAX).contains(&chunk) {
        return Err(format!(
            "a chunk of {chunk} bytes: it is a power of two from {} to {}",
            words::bytes(CHUNK_MIN.into()),
            words::bytes(CHUNK_MAX.into())
        ));
    }
    let smallest = members.iter().map(|(d, _)| d.data_len).min().ok_or("a group needs disks")?;
    let unit = (UNWRITTEN_UNIT / u64::from(chunk)).max(1);
    let stripes = Geometry::max_stripes(level, smallest, chunk) / unit * unit;
    let geometry =
        Geometry::new(level, members.len(), chunk, stripes).map_err(|e| e.to_string())?;
    let member_len = stripes * u64::from(chunk);
    let capacity = members
        .iter()
        .map(|(_, layout)| (pages_in(layout, PageKind::Intent) * PAGE_BITS) as u64)
        .min()
        .expect("there are members");
    let mut region = if member_len < SMALL_MEMBER { REGION_SMALL } else { REGION };
    region = region.max(u64::from(chunk) * unit);
    while member_len.div_ceil(region) > capacity {
        region *= 2;
    }
    let mut notes = Notes::new();
    if members.iter().any(|(d, _)| d.data_len > smallest) {
        let larger: Vec<String> = members
            .iter()
            .filter(|(d, _)| d.data_len > smallest)
            .map(|(d, _)| d.number.to_string())
            .collect();
        notes.push(format!(
            "the disks differ in size: the smallest usable size, {}, counts; the rest of {} {} is not used",
            words::exact(member_len),
            if larger.len() == 1 { "disk" } else { "disks" },
            larger.join(", ")
        ));
    }
    if geometry.parity_columns() > 0 && journal == JournalMode::Off {
        notes.push(
            "without a journal a crash together with a lost member may lose data: such a start is refused without --accept-write-hole"
                .into(),
        );
    }
    let slots = members
        .iter()
        .map(|(d, _)| SlotEntry { disk: d.number, state: SlotState::InSync, replacement: None })
        .collect();
    let entry = GroupEntry {
        number,
        uuid,
        level,
        chunk,
        stripes,
        intent_region: region,
        unwritten_unit: unit as u32,
        journal: if geometry.parity_columns() > 0 { journal } else { JournalMode::Off },
        checksums,
        slots,
        clean: true,
    };
    Ok((entry, notes))
}

/// What is to be said if spares of the array become members.
fn spares_taken(config: &Configuration, taken: &[DiskNumber]) -> Option<String> {
    let spares = config.disks.iter().filter(|disk| disk.role == DiskRole::Spare);
    let spares: Vec<&DiskEntry> =
        spares.filter(|disk| disk.in_service() && config.slot_of(disk.number).is_none()).collect();
    let (gone, left): (Vec<_>, Vec<_>) =
        spares.into_iter().map(|disk| disk.number).partition(|number| taken.contains(number));
    let left = match left.len() {
        0 => "no spare stands by any more".to_owned(),
        1 => "1 spare stands by still".to_owned(),
        left => format!("{left} spares stand by still"),
    };
    match gone.len() {
        0 => None,
        1 => Some(format!("disk {} was a spare: {left}", list(&gone))),
        _ => Some(format!("disks {} were spares: {left}", list(&gone))),
    }
}

impl<E: Env> Array<E> {
    /// Makes a group of free or spare disks and answers its number.
    ///
    /// # Errors
    /// If a disk does not exist, is in use or named twice, or the shape is impossible; then nothing changed.
    pub async fn create_group(
        self: &Rc<Self>,
        spec: GroupSpec,
    ) -> Result<(GroupNumber, Notes), CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let mut members = Vec::new();
        for (i, number) in spec.disks.iter().enumerate() {
            if spec.disks[..i].contains(number) {
                return Err(CommandError::Refused(format!("disk {number} is named twice")));
            }
            members.push((self.unused_disk(&config, *number)?, self.layout_of(*number)?));
        }
        let number = (1..)
            .map(GroupNumber)
            .find(|n| config.group(*n).is_none())
            .expect("numbers do not run out");
        let uuid = Uuid::from_random(self.rt.random_u64(), self.rt.random_u64());
        let (mut entry, mut notes) = plan_group(
            number,
            uuid,
            spec.level,
            spec.chunk,
            (spec.journal, spec.checksums),
            &members,
        )
        .map_err(CommandError::Refused)?;
        entry.clean = false;
        notes.extend(spares_taken(&config, &spec.disks));
        // The pages come first: nobody reads them before the group counts.
        let blank = Group::<E>::new(self.rt.clone(), &entry, Rc::new(|_, _, _| ()));
        for number in &spec.disks {
            let drive = self.drives.borrow().get(number).cloned();
            let drive =
                drive.ok_or_else(|| CommandError::Refused(format!("disk {number} is not open")))?;
            if self.in_time(drive.rests()).await.is_none() {
                return Err(CommandError::Refused(format!("disk {number} does not answer")));
            }
            let failed =
                |fault| CommandError::Failed(format!("disk {number}: {fault}; no group was made"));
            blank.write_all_pages(&drive).await.map_err(failed)?;
        }
        self.commit(|next| {
            for disk in &spec.disks {
                if let Some(disk) = next.disk_mut(*disk) {
                    disk.role = DiskRole::Member;
                }
            }
            let at =
                next.groups.iter().position(|g| g.number > number).unwrap_or(next.groups.len());
            next.groups.insert(at, entry);
        })
        .await?;
        let group = self.group(number)?;
        group.adopt_new_pages();
        let epoch = self.config.borrow().generation;
        group.open_journal(epoch).await;
        self.tend_group(&group);
        let what = format!("group {number} of disks {}", list(&spec.disks));
        self.event(Severity::Info, "group-created", None, Some(number), what);
        Ok((number, notes))
    }

    /// Deletes a group without volumes; its disks become free.
    ///
    /// # Errors
    /// If there is no such group or it holds volumes.
    pub async fn delete_group(self: &Rc<Self>, number: GroupNumber) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let group = self.group(number)?;
        let volumes: Vec<String> = config
            .volumes
            .iter()
            .filter(|v| v.group == number)
            .map(|v| format!("{:?}", v.name))
            .collect();
        if !volumes.is_empty() {
            return Err(CommandError::Refused(format!(
                "group {number} holds volumes {}: delete them first",
                volumes.join(", ")
            )));
        }
        refuse_if_kept_for(&config, Deleted::Group(number))?;
        // Nothing of the group may still be on its way to disks that may soon belong to another.
        group.close(true);
        // A disk that left the group is tested on; that it is a spare then takes the turn that is held here.
        let ends = |job: &super::jobs::Job| job.group == number && job.kind != JobKind::Test;
        self.jobs.stop_those(ends);
        self.jobs.ended(ends).await;
        let _ = group.flush().await;
        group.settled().await;
        let deleted = self.commit(|next| {
            let Some(entry) = next.group(number).cloned() else { return };
            next.groups.retain(|g| g.number != number);
            for work in &mut next.backups.work {
                if matches!(work.place, BackupPlace::WorkDisk(_)) {
                    work.serves.retain(|group| *group != number.0);
                }
            }
            for disk in entry.slots.iter().flat_map(|s| [Some(s.disk), s.replacement]).flatten() {
                if let Some(disk) = next.disk_mut(disk) {
                    disk.role = DiskRole::Free;
                }
            }
        });
        if let Err(error) = deleted.await {
            group.close(false);
            self.note_change();
            return Err(error);
        }
        group.set_slots(|slots| {
            for slot in slots {
                (slot.main, slot.filler) = (None, None);
            }
        });
        group.halt();
        self.event(
            Severity::Info,
            "group-deleted",
            None,
            None,
            format!("group {number} was deleted"),
        );
        Ok(())
    }

    /// Commits the smaller list that rule C3 waits for.
    ///
    /// # Errors
    /// If there is no such group or nothing is paused.
    pub async fn continue_group(self: &Rc<Self>, number: GroupNumber) -> Result<(), CommandError> {
        let group = self.group(number)?;
        if !group.is_paused() {
            return Err(CommandError::Refused(format!("group {number} is not paused")));
        }
        self.leave.set(true);
        self.left.notify();
        Ok(())
    }

    /// A disk that no group uses.
    pub(super) fn unused_disk<'a>(
        &self,
        config: &'a Configuration,
        number: DiskNumber,
    ) -> Result<&'a DiskEntry, CommandError> {
        let disk = config.disk(number).ok_or_else(|| super::disks::no_disk(number))?;
        if let Some((group, _)) = config.slot_of(number) {
            return Err(CommandError::Refused(format!("disk {number} is in use by group {group}")));
        }
        if let Some(set) = config.backups.set_of_leg(number) {
            return Err(CommandError::Refused(format!("disk {number} is a leg of {}", set.place)));
        }
        if config.backups.retiring_in(number).is_some() {
            return Err(CommandError::Refused(format!(
                "disk {number} was just replaced and is kept until its group's updates are home"
            )));
        }
        if !disk.in_service() {
            return Err(CommandError::Refused(format!(
                "disk {number} is out of service; see `forestall disk list`"
            )));
        }
        Ok(disk)
    }

    fn layout_of(&self, number: DiskNumber) -> Result<Layout, CommandError> {
        let drives = self.drives.borrow();
        let drive = drives.get(&number).filter(|d| !d.is_gone());
        Ok(drive
            .ok_or_else(|| CommandError::Refused(format!("disk {number} does not answer")))?
            .layout)
    }
}

pub(super) fn list(disks: &[DiskNumber]) -> String {
    disks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Service;

    fn disk(number: u32, size: u64) -> (DiskEntry, Layout) {
        let layout = Layout::for_size(size).expect("large enough");
        let entry = DiskEntry {
            number: DiskNumber(number),
            uuid: Uuid([number as u8; 16]),
            data_len: layout.data.len,
            role: DiskRole::Free,
            service: Service::InService,
            path_hint: String::new(),
            serial: String::new(),
        };
        (entry, layout)
    }

    #[test]
    fn spares_that_become_members_are_named() {
        let mut config = crate::format::samples::configuration();
        config.groups.clear();
        let number = |at: usize| config.disks[at].number;
        let (first, second, free) = (number(0), number(2), number(3));
        for disk in &mut config.disks {
            disk.role = if [first, second].contains(&disk.number) {
                DiskRole::Spare
            } else {
                DiskRole::Free
            };
        }
        let said = |taken: &[DiskNumber]| spares_taken(&config, taken);
        assert_eq!(said(&[free]), None);
        assert_eq!(
            said(&[free, first]),
            Some("disk 1 was a spare: 1 spare stands by still".into())
        );
        let both = said(&[first, second]);
        assert_eq!(both, Some("disks 1, 3 were spares: no spare stands by any more".into()));
    }

    #[test]
    fn the_smallest_usable_size_wins_and_is_said() {
        let disks = [disk(1, 64 << 20), disk(2, 96 << 20), disk(3, 64 << 20)];
        let members: Vec<_> = disks.iter().map(|(d, l)| (d, *l)).collect();
        let (entry, notes) = plan_group(
            GroupNumber(1),
            Uuid::default(),
            Level::Raid5,
            65536,
            (JournalMode::Partial, true),
            &members,
        )
        .expect("possible");
        assert_eq!(entry.stripes * 65536, disks[0].0.data_len / 65536 * 65536);
        assert!(
            notes[0].contains("smallest usable size") && notes[0].contains("rest of disk 2 is"),
            "{notes:?}"
        );
    }

    #[test]
    fn intent_regions_fit_the_pages_of_any_size_and_hold_whole_units() {
        for shift in [21_u32, 26, 34, 44, 52] {
            for chunk in [4096_u32, 65536, 1 << 20] {
                let disks = [disk(1, 1 << shift), disk(2, 1 << shift)];
                let members: Vec<_> = disks.iter().map(|(d, l)| (d, *l)).collect();
                let Ok((entry, _)) = plan_group(
                    GroupNumber(1),
                    Uuid::default(),
                    Level::Raid1,
                    chunk,
                    (JournalMode::Partial, true),
                    &members,
                ) else {
                    assert!(
                        shift == 21,
                        "only the smallest disks are too small for a chunk of 1 MiB"
                    );
                    continue;
                };
                let member_len = entry.stripes * u64::from(chunk);
                let bits = (pages_in(&disks[0].1, PageKind::Intent) * PAGE_BITS) as u64;
                assert!(member_len.div_ceil(entry.intent_region) <= bits);
                assert_eq!(
                    entry.intent_region % (u64::from(chunk) * u64::from(entry.unwritten_unit)),
                    0
                );
                let units = entry.stripes.div_ceil(u64::from(entry.unwritten_unit));
                assert!(units <= (pages_in(&disks[0].1, PageKind::Unwritten) * PAGE_BITS) as u64);
            }
        }
    }
}
