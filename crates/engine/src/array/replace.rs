//! Putting a spare into a slot: by command while the old member stays in service, or for a member that is out.
//!
//! Owns `replace` and the choice of a spare. Invariants: a spare holds its group's maps before the configuration that relies on it
//! counts (rule M1), and its cursor starts at nothing (rule F4). Filling and swapping are `tend`'s matter.

use std::rc::Rc;

use super::Array;
use super::avoidance::{Choice, Raising};
use super::disks::no_disk;
use super::reversal::begin_syncing;
use crate::config::{
    AvoidanceState, Configuration, DiskEntry, DiskRole, DropReason, SlotState, Strategy,
};
use crate::drive::Drive;
use crate::error::CommandError;
use crate::group::Group;
use crate::ids::{DiskNumber, GroupNumber, Slot};
use crate::report::{Event, Severity};
use crate::runtime::Env;
use crate::words;

impl<E: Env> Array<E> {
    /// Copies a member to a spare while it stays in service, then swaps (rules F4, A2, A3). Answers the job's id, also if
    /// other work of the group comes first. `rate` is a limit in bytes a second, 0 for none.
    ///
    /// # Errors
    /// If the disk is not a member in sync, or the spare is missing, too small, in use or out of service; then nothing changed.
    pub async fn replace(
        self: &Rc<Self>,
        disk: DiskNumber,
        with: Option<DiskNumber>,
        rate: u64,
    ) -> Result<u64, CommandError> {
        self.replace_shielded(disk, with, rate, Strategy::Auto).await
    }

    /// [`Array::replace`], with a word on where the group's writes go meanwhile.
    ///
    /// # Errors
    /// As for [`Array::replace`]; or if the strategy asked for cannot be had.
    pub async fn replace_shielded(
        self: &Rc<Self>,
        disk: DiskNumber,
        with: Option<DiskNumber>,
        rate: u64,
        asked: Strategy,
    ) -> Result<u64, CommandError> {
        let _turn = self.turn().await?;
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
                if self.is_ailing(spare) {
                    return Err(CommandError::Refused(format!(
                        "disk {spare} is ailing itself (see `forestall health show`): take another, or trust it again with \
                         `forestall health clear {spare}`"
                    )));
                }
                if found.data_len < group.member_len() {
                    return Err(too_small(spare, found.data_len, group.member_len()));
                }
                spare
            }
            None => self
                .pick_spare(&config, group.member_len())
                .ok_or_else(|| self.no_spare(&config, group.member_len()))?,
        };
        self.failed_fillers.borrow_mut().remove(&(number, slot));
        self.engage(&group, slot, spare, rate, asked).await?;
        self.hold(disk, false);
        let running = self.jobs.running(number, |job| job.disk == Some(spare));
        Ok(running.map_or_else(|| self.jobs.promise(spare), |job| job.id()))
    }

    /// That no spare can take a member's place, and of each that stands by why it cannot.
    fn no_spare(&self, config: &Configuration, member_len: u64) -> CommandError {
        let may_do = |d: &&DiskEntry| match d.role {
            DiskRole::Spare => true,
            DiskRole::Free => d.in_service() && d.data_len >= member_len,
            DiskRole::Member | DiskRole::Work => false,
        };
        let why = config.disks.iter().filter(may_do).map(|spare| {
            let number = spare.number;
            if spare.role == DiskRole::Free {
                format!("; disk {number} is free and would do: `--with {number}`")
            } else if !spare.in_service() {
                format!("; disk {number} is out of service (see `forestall disk list`)")
            } else if let Some((group, _)) = config.slot_of(number) {
                format!("; disk {number} is being filled in group {group}")
            } else if spare.data_len < member_len {
                format!("; disk {number} has only {}", words::exact(spare.data_len))
            } else if self.is_ailing(number) {
                format!(
                    "; disk {number} is ailing (see `forestall health show`): trust it again with `forestall health clear {number}`"
                )
            } else {
                format!("; disk {number} does not answer")
            }
        });
        CommandError::Refused(format!(
            "there is no spare with {} usable{}; add one with `forestall disk add PATH --role spare`",
            words::exact(member_len),
            why.collect::<String>()
        ))
    }

    /// The smallest spare that is large enough.
    pub(super) fn pick_spare(&self, config: &Configuration, member_len: u64) -> Option<DiskNumber> {
        let drives = self.drives.borrow();
        config
            .disks
            .iter()
            .filter(|d| d.role == DiskRole::Spare && d.in_service() && d.data_len >= member_len)
            .filter(|d| {
                !self.is_ailing(d.number)
                    && config.slot_of(d.number).is_none()
                    && drives.get(&d.number).is_some_and(|d| !d.is_gone())
            })
            .min_by_key(|d| (config.backups.suspected.contains(&d.number), d.data_len, d.number))
            .map(|d| d.number)
    }

    /// Puts a spare into a slot: as the slot's disk if the old one is out, else as its replacement.
    pub(super) async fn engage(
        self: &Rc<Self>,
        group: &Rc<Group<E>>,
        slot: Slot,
        spare: DiskNumber,
        rate: u64,
        asked: Strategy,
    ) -> Result<(), CommandError> {
        let number = group.number;
        let goes_on = self.again.borrow().contains(&(number, slot));
        let failed = |what: String| CommandError::Failed(format!("spare {spare}: {what}"));
        let drive = self
            .drives
            .borrow()
            .get(&spare)
            .cloned()
            .ok_or_else(|| failed("it is not open".into()))?;
        let config = self.config.borrow().clone();
        let mut direct = None;
        let raising = match config.backups.of_group(number) {
            Some(_) => None, // The shield is up already, and covers this copy too.
            None => match self.prepare_shield(&config, group, slot, asked).await? {
                Choice::Shield(raising) => Some(*raising),
                Choice::Direct(why) => {
                    direct = Some(why);
                    None
                }
            },
        };
        let engaged = self.fill_slot(group, slot, (spare, &drive), rate, raising.as_ref()).await;
        if engaged.is_err() {
            self.close_unused();
        }
        engaged?;
        self.again.borrow_mut().remove(&(number, slot));
        let stead = self.stead_words((number, slot), spare);
        let from_start = if stead.is_empty() { "" } else { ", from the start" };
        let what = format!("disk {spare} fills slot {slot} of group {number}{stead}{from_start}");
        self.event(Severity::Info, "spare-engaged", Some(spare), Some(number), what);
        if let Some(raising) = &raising {
            self.tell_of_shield(raising);
        }
        let before = self.direct.borrow_mut().remove(&(number, slot)).filter(|_| goes_on);
        if let Some(why) = direct {
            let why = match before {
                Some(before) => before,
                None if goes_on => "as the copy that it goes on with".into(),
                None if asked == Strategy::Direct => "as asked".into(),
                None => why,
            };
            let what = direct_words(number, spare, &why);
            self.event(Severity::Info, "copied-directly", Some(spare), Some(number), what);
            self.direct.borrow_mut().insert((number, slot), why);
        }
        Ok(())
    }

    /// Why a copy has no shield: as it was told when it began, before a restart too.
    pub(super) fn why_direct(
        &self,
        place: (GroupNumber, Slot),
        spare: DiskNumber,
    ) -> Option<String> {
        let now = self.direct.borrow().get(&place).cloned();
        now.or_else(|| {
            let events = self.events_after(0);
            let of_copy = |e: &&Event| {
                e.kind == "copied-directly" && e.group == Some(place.0) && e.disk == Some(spare)
            };
            let told = events.iter().rev().find(of_copy)?;
            direct_why(&told.message).map(str::to_owned)
        })
    }

    /// Readies a spare and commits that it fills a slot, with the shield that comes up for it.
    async fn fill_slot(
        self: &Rc<Self>,
        group: &Rc<Group<E>>,
        slot: Slot,
        (spare, drive): (DiskNumber, &Rc<Drive<E>>),
        rate: u64,
        raising: Option<&Raising>,
    ) -> Result<(), CommandError> {
        let number = group.number;
        let failed = |what: String| CommandError::Failed(format!("spare {spare}: {what}"));
        // A copy to it that was cancelled just now may have writes under way still (rule F3).
        if self.in_time(drive.rests()).await.is_none() {
            self.note_change(); // It is asked again.
            return Err(failed("it does not answer".into()));
        }
        group.reset_cursor(slot).await.map_err(|e| failed(e.to_string()))?;
        let copied = match group.write_all_pages(drive).await {
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
        let rated = (number, slot);
        self.commit(|next| {
            next.backups.keep_rate(rated, rate);
            // Who paused the copy to a disk that was lost since said nothing of the one that stands in for it.
            next.backups.paused.remove(&rated);
            // It is a member from the swap on: one that fails before was never in sync (rule M3).
            let Some(entry) = next.group_mut(number) else { return };
            let filled = &mut entry.slots[usize::from(slot.0)];
            if filled.state == SlotState::Out {
                (filled.disk, filled.state) = (spare, SlotState::Rebuilding);
            } else {
                filled.replacement = Some(spare);
            }
            match (next.backups.of_group_mut(number), raising) {
                // A new avoidance under the same shield.
                (Some(avoidance), _) if avoidance.state == AvoidanceState::WritingBack => {
                    (avoidance.state, avoidance.slot) = (AvoidanceState::Entering, slot);
                    begin_syncing(next, number);
                }
                (Some(avoidance), _) if avoidance.state == AvoidanceState::Sheltered => {
                    avoidance.state = AvoidanceState::Copying;
                }
                (None, Some(raising)) => Self::enter_shield(next, raising),
                _ => {}
            }
        })
        .await?;
        group.refresh_pages(&copied).await.map_err(|e| failed(e.to_string()))
    }
}

/// What comes before the reason in [`direct_words`].
const GOES_HOME: &str = "writes go home (";

fn direct_words(group: GroupNumber, spare: DiskNumber, why: &str) -> String {
    format!("group {group} is not shielded while disk {spare} is filled: {GOES_HOME}{why})")
}

/// The reason in words that [`direct_words`] made; the log may have cut their end off.
fn direct_why(told: &str) -> Option<&str> {
    let (_, why) = told.split_once(GOES_HOME)?;
    Some(why.strip_suffix(')').unwrap_or(why))
}

fn too_small(disk: DiskNumber, has: u64, needs: u64) -> CommandError {
    CommandError::Refused(format!(
        "disk {disk} has {} usable; {} are needed",
        words::exact(has),
        words::exact(needs)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_found_again_in_what_was_told() {
        let why = "volume 1: direct (no group is without volumes)";
        let told = direct_words(GroupNumber(2), DiskNumber(7), why);
        assert_eq!(direct_why(&told), Some(why));
        assert_eq!(direct_why(&told[..told.len() - 20]), Some(&why[..why.len() - 19]));
        assert_eq!(direct_why("something else"), None);
    }
}
