//! Volumes: making, growing, renaming, protecting, deleting.
//!
//! Owns where volumes lie. Invariants: extents are whole units of the unwritten map, so no stripe serves two volumes; a new or grown
//! volume reads as zeroes where nobody has written, whatever lay there before (rule M6).

use std::rc::Rc;

use super::work::{Deleted, refuse_if_kept_for, refuse_if_relied_on};
use super::{Array, VolumeSpec};
use crate::config::{BackupPlace, Configuration, Extent, GroupEntry, VolumeEntry};
use crate::error::CommandError;
use crate::format::config::name_is_valid;
use crate::geometry::Geometry;
use crate::ids::{BLOCK_SIZE, GroupNumber, VolumeNumber};
use crate::report::{Severity, VolumeReport};
use crate::runtime::Env;
use crate::volume::{VolumeHandle, VolumeRt};
use crate::words;

/// The layout of a configured group.
pub(super) fn geometry_of(group: &GroupEntry) -> Geometry {
    Geometry::new(group.level, group.slots.len(), group.chunk, group.stripes)
        .expect("a decoded configuration holds valid groups")
}

/// Free runs of a group's stripes, in whole units, lowest first.
pub(super) fn free_extents(config: &Configuration, group: &GroupEntry) -> Vec<Extent> {
    let here =
        |number| config.volumes.iter().any(|v| v.number == number && v.group == group.number);
    let of_volumes = config.volumes.iter().filter(|v| v.group == group.number);
    let of_bitmaps = config.backups.pairs.iter().filter(|pair| here(pair.secondary));
    let mut used: Vec<Extent> = of_volumes
        .flat_map(|v| &v.extents)
        .chain(of_bitmaps.flat_map(|pair| &pair.bitmap))
        .copied()
        .collect();
    used.sort_by_key(|e| e.start);
    let unit = u64::from(group.unwritten_unit);
    let mut free = Vec::new();
    let mut at = 0;
    for extent in
        used.into_iter().chain([Extent { start: group.stripes / unit * unit, stripes: 0 }])
    {
        if extent.start > at {
            free.push(Extent { start: at, stripes: extent.start - at });
        }
        at = at.max((extent.start + extent.stripes).next_multiple_of(unit));
    }
    free
}

/// Takes `stripes` stripes from `free`: the first run that is long enough, else runs from the front.
fn take(free: Vec<Extent>, stripes: u64) -> Option<Vec<Extent>> {
    if let Some(run) = free.iter().find(|e| e.stripes >= stripes) {
        return Some(vec![Extent { start: run.start, stripes }]);
    }
    let mut rest = stripes;
    let mut taken = Vec::new();
    for run in free {
        let stripes = run.stripes.min(rest);
        taken.push(Extent { start: run.start, stripes });
        rest -= stripes;
        if rest == 0 {
            return Some(taken);
        }
    }
    None
}

/// Space for `size` more bytes among `free`.
fn allot(group: &GroupEntry, free: Vec<Extent>, size: u64) -> Result<Vec<Extent>, CommandError> {
    let stripe_len = geometry_of(group).stripe_len();
    let left = free.iter().map(|e| e.stripes).sum::<u64>() * stripe_len;
    if size == 0 {
        return Err(too_large(group.number, left, BLOCK_SIZE));
    }
    take(free, stripes_for(group, size)).ok_or_else(|| too_large(group.number, left, size))
}

/// Stripes that hold `size` bytes, in whole units.
fn stripes_for(group: &GroupEntry, size: u64) -> u64 {
    let stripes = size.div_ceil(geometry_of(group).stripe_len());
    stripes.next_multiple_of(u64::from(group.unwritten_unit))
}

/// Space in a group for a volume of `size` bytes, if there is so much.
pub(super) fn room_for(
    config: &Configuration,
    group: &GroupEntry,
    size: u64,
) -> Option<Vec<Extent>> {
    take(free_extents(config, group), stripes_for(group, size))
}

/// Adds extents to a volume's, joining those that touch.
fn join(extents: &mut Vec<Extent>, more: Vec<Extent>) {
    for extent in more {
        match extents.last_mut() {
            Some(last) if last.start + last.stripes == extent.start => {
                last.stripes += extent.stripes
            }
            _ => extents.push(extent),
        }
    }
}

impl<E: Env> Array<E> {
    /// Every volume's report, by number.
    #[must_use]
    pub fn volumes(&self) -> Vec<VolumeReport> {
        let config = self.config.borrow();
        let secondary_of = |volume| {
            let pair = config.backups.pairs.iter().find(|pair| pair.secondary == volume);
            pair.map(|pair| pair.primary)
        };
        let volumes = self.volumes.borrow();
        let report = |volume: &Rc<VolumeRt<E>>| {
            let report = volume.report();
            VolumeReport { secondary_of: secondary_of(report.number), ..report }
        };
        volumes.values().map(report).collect()
    }

    /// The volume called `name`, to serve; stays usable (answering an error) after the volume is deleted.
    #[must_use]
    pub fn open_volume(self: &Rc<Self>, name: &str) -> Option<VolumeHandle<E>> {
        let volumes = self.volumes.borrow();
        volumes.values().find(|v| v.report().name == name).map(|v| VolumeHandle::new(Rc::clone(v)))
    }

    /// Brings the volumes in memory in line with the configuration.
    pub(super) fn apply_volumes(self: &Rc<Self>, config: &Configuration) {
        let mut volumes = self.volumes.borrow_mut();
        for entry in &config.volumes {
            let known = volumes.get(&entry.number).filter(|v| v.report().group == entry.group);
            match known {
                Some(volume) => volume.update(entry.clone()),
                None => {
                    let group = self
                        .groups
                        .borrow()
                        .get(&entry.group)
                        .cloned()
                        .expect("groups are applied first");
                    volumes
                        .insert(entry.number, VolumeRt::new(self.rt.clone(), entry.clone(), group));
                }
            }
        }
        volumes.retain(|number, volume| {
            let stays = config.volumes.iter().any(|v| v.number == *number);
            if !stays {
                volume.close();
            }
            stays
        });
    }

    /// Makes a volume and answers its number.
    ///
    /// # Errors
    /// If the name is taken or not printable, the number is taken, or the group lacks the space; then nothing changed.
    pub async fn create_volume(
        self: &Rc<Self>,
        spec: VolumeSpec,
    ) -> Result<VolumeNumber, CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let number = free_number(&config, spec.number)?;
        self.check_new_name(&config, &spec.name, number)?;
        let group = self.group(spec.group)?;
        let entry = config.group(spec.group).expect("the group is there").clone();
        let free = free_extents(&config, &entry);
        let stripe_len = geometry_of(&entry).stripe_len();
        let size = match spec.size {
            Some(0) => {
                return Err(CommandError::Refused("a volume has at least 4 KiB".into()));
            }
            Some(size) => size
                .checked_next_multiple_of(BLOCK_SIZE)
                .ok_or_else(|| too_large(spec.group, 0, u64::MAX))?,
            None => free.iter().map(|e| e.stripes * stripe_len).max().unwrap_or(0),
        };
        let extents = allot(&entry, free, size)?;
        self.blank(&group, &extents).await?;
        let name = spec.name.clone();
        self.commit(|next| {
            let volume =
                VolumeEntry { number, name, group: spec.group, size, extents, read_only: false };
            let at =
                next.volumes.iter().position(|v| v.number > number).unwrap_or(next.volumes.len());
            next.volumes.insert(at, volume);
        })
        .await?;
        let what = format!(
            "volume {number} {:?} of {} in group {}",
            spec.name,
            words::exact(size),
            spec.group
        );
        self.event(Severity::Info, "volume-created", None, Some(spec.group), what);
        Ok(number)
    }

    /// Grows a volume to `size` bytes, rounded up to 4096.
    ///
    /// # Errors
    /// If there is no such volume, it is larger already, or the group lacks the space; then nothing changed.
    pub async fn grow_volume(self: &Rc<Self>, name: &str, size: u64) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let volume = find(&config, name)?.clone();
        refuse_if_relied_on(&config, &volume, "grown")?;
        let size = size
            .checked_next_multiple_of(BLOCK_SIZE)
            .ok_or_else(|| too_large(volume.group, 0, size))?;
        if size < volume.size {
            return Err(CommandError::Refused(format!(
                "volume {name:?} has {}: volumes grow, they do not shrink",
                words::exact(volume.size)
            )));
        }
        let entry = config.group(volume.group).expect("volumes lie in groups").clone();
        let stripe_len = geometry_of(&entry).stripe_len();
        let has = volume.extents.iter().map(|e| e.stripes).sum::<u64>() * stripe_len;
        let more = if size > has {
            allot(&entry, free_extents(&config, &entry), size - has)?
        } else {
            Vec::new()
        };
        self.blank(&self.group(volume.group)?, &more).await?;
        self.commit(|next| {
            if let Some(v) = next.volumes.iter_mut().find(|v| v.number == volume.number) {
                v.size = size;
                join(&mut v.extents, more);
            }
        })
        .await?;
        self.event(
            Severity::Info,
            "volume-grown",
            None,
            Some(volume.group),
            format!(
                "volume {} {name:?} now has {}; clients see it when they connect anew",
                volume.number,
                words::exact(size)
            ),
        );
        Ok(())
    }

    /// Renames a volume.
    ///
    /// # Errors
    /// If there is no such volume or the new name is taken or not printable.
    pub async fn rename_volume(self: &Rc<Self>, name: &str, new: &str) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let config = self.config.borrow().clone();
        let volume = find(&config, name)?.clone();
        self.check_new_name(&config, new, volume.number)?;
        self.commit(|next| {
            if let Some(v) = next.volumes.iter_mut().find(|v| v.number == volume.number) {
                v.name = new.into();
            }
        })
        .await?;
        let what = format!("volume {} {name:?} is now called {new:?}", volume.number);
        self.event(Severity::Info, "volume-renamed", None, Some(volume.group), what);
        Ok(())
    }

    /// Makes a volume read only, or writable again. Connected clients get an error for each write from then on; that it is read only
    /// is answered once the writes that were accepted before have ended.
    ///
    /// # Errors
    /// If there is no such volume, or no host may write to it anyway.
    pub async fn set_read_only(
        self: &Rc<Self>,
        name: &str,
        read_only: bool,
    ) -> Result<(), CommandError> {
        let turn = self.turn().await?;
        let volume = find(&self.config.borrow(), name)?.clone();
        super::work::refuse_without_hosts(&self.config.borrow(), &volume, "")?;
        if volume.read_only != read_only {
            self.commit_read_only(&volume, read_only).await?;
        }
        // Writes may hang with a disk: others have the turn meanwhile.
        drop(turn);
        let running = self.volumes.borrow().get(&volume.number).cloned();
        if let Some(running) = running.filter(|_| read_only) {
            running.rests_read_only().await;
        }
        Ok(())
    }

    async fn commit_read_only(
        self: &Rc<Self>,
        volume: &VolumeEntry,
        read_only: bool,
    ) -> Result<(), CommandError> {
        let name = &volume.name;
        self.commit(|next| {
            if let Some(v) = next.volumes.iter_mut().find(|v| v.number == volume.number) {
                v.read_only = read_only;
            }
        })
        .await?;
        let what = if read_only { "read only" } else { "writable" };
        let message = format!("volume {} {name:?} is {what} now", volume.number);
        let kind = if read_only { "volume-read-only" } else { "volume-writable" };
        self.event(Severity::Info, kind, None, Some(volume.group), message);
        Ok(())
    }

    /// Deletes a volume and everything in it, once the requests that were accepted before have ended; later ones get an error.
    ///
    /// # Errors
    /// If there is no such volume or something relies on it; then it serves as before.
    pub async fn delete_volume(self: &Rc<Self>, name: &str) -> Result<(), CommandError> {
        let number = {
            let _turn = self.turn().await?;
            self.deletable(name)?.number
        };
        let running = self.volumes.borrow().get(&number).cloned();
        let closing = running.as_ref().map(VolumeRt::closing);
        if let Some(running) = running {
            // Requests may hang with a disk, or be paused (rule C3): meanwhile others have the turn, to fail the disk or to bring one.
            running.drained().await;
        }
        let _turn = self.turn().await?;
        let volume = self.deletable(&number.to_string())?;
        let group = self.group(volume.group)?;
        self.commit(|next| forget_volume(next, number)).await?;
        drop(closing);
        self.release_space(&group, &volume.extents).await;
        let what = format!("volume {number} {:?} was deleted", volume.name);
        self.event(Severity::Info, "volume-deleted", None, Some(volume.group), what);
        Ok(())
    }

    /// A volume that nothing relies on.
    fn deletable(&self, name: &str) -> Result<VolumeEntry, CommandError> {
        let config = self.config.borrow();
        let volume = find(&config, name)?;
        refuse_if_relied_on(&config, volume, "deleted")?;
        refuse_if_kept_for(&config, Deleted::Volume(volume.number))?;
        Ok(volume.clone())
    }

    /// Gives space that nothing uses any more back to the disks; whoever takes it later blanks it again before it counts.
    pub(super) async fn release_space(
        &self,
        group: &Rc<crate::group::Group<E>>,
        extents: &[Extent],
    ) {
        let unit = group.unit_stripes();
        for extent in extents {
            group
                .forget_units(extent.start / unit..(extent.start + extent.stripes).div_ceil(unit))
                .await;
        }
        let _ = group.flush().await;
    }

    /// Rule M6: what lies in these extents is not the new volume's.
    pub(super) async fn blank(
        &self,
        group: &Rc<crate::group::Group<E>>,
        extents: &[Extent],
    ) -> Result<(), CommandError> {
        let unit = group.unit_stripes();
        for extent in extents {
            group
                .forget_units(extent.start / unit..(extent.start + extent.stripes).div_ceil(unit))
                .await;
        }
        let blanked = group.persist_unwritten().await;
        blanked.map_err(|e| {
            CommandError::Failed(format!("group {}: {e} while clearing the space", group.number))
        })
    }

    fn check_new_name(
        &self,
        config: &Configuration,
        name: &str,
        number: VolumeNumber,
    ) -> Result<(), CommandError> {
        if let Some(why) = no_name(name, number) {
            return Err(CommandError::Refused(why));
        }
        match config.volumes.iter().find(|v| v.name == name) {
            Some(other) => Err(CommandError::Refused(format!(
                "volume {} is called {name:?} already",
                other.number
            ))),
            None => Ok(()),
        }
    }
}

/// Why volume `number` cannot have this name. Digits alone could be meant as the number of another volume, by whoever deletes one.
pub(super) fn no_name(name: &str, number: VolumeNumber) -> Option<String> {
    if !name_is_valid(name) {
        return Some(format!(
            "{name:?} is no name for a volume: 1 to 63 bytes, printable, no space at either end"
        ));
    }
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    (digits && name != number.to_string()).then(|| {
        format!(
            "{name:?} is no name for volume {number}: digits alone are taken for a volume's number"
        )
    })
}

pub(super) fn find<'a>(
    config: &'a Configuration,
    name: &str,
) -> Result<&'a VolumeEntry, CommandError> {
    let by_name = config.volumes.iter().find(|v| v.name == name);
    by_name.or_else(|| config.volumes.iter().find(|v| v.number.0.to_string() == name)).ok_or_else(
        || {
            CommandError::NotFound(format!(
                "there is no volume {name:?}; see `forestall volume list`"
            ))
        },
    )
}

/// Takes a volume out of a configuration, and out of everything that serves it.
fn forget_volume(next: &mut Configuration, number: VolumeNumber) {
    next.volumes.retain(|v| v.number != number);
    next.backups.strategies.remove(&number);
    for avoidance in &mut next.backups.avoidances {
        avoidance.volumes.retain(|v| v.volume != number);
    }
    for work in &mut next.backups.work {
        if matches!(work.place, BackupPlace::WorkVolume(_)) {
            work.serves.retain(|served| *served != number.0);
        }
    }
}

fn free_number(
    config: &Configuration,
    wanted: Option<VolumeNumber>,
) -> Result<VolumeNumber, CommandError> {
    let taken = |n: VolumeNumber| config.volumes.iter().any(|v| v.number == n);
    match wanted {
        Some(VolumeNumber(0)) => Err(CommandError::Refused("volumes are numbered from 1".into())),
        Some(number) if taken(number) => {
            Err(CommandError::Refused(format!("there is a volume {number} already")))
        }
        Some(number) => Ok(number),
        None => Ok((1..).map(VolumeNumber).find(|n| !taken(*n)).expect("numbers do not run out")),
    }
}

fn too_large(group: GroupNumber, free: u64, size: u64) -> CommandError {
    CommandError::Refused(format!(
        "group {group} has {} free; {} are needed",
        words::exact(free),
        words::exact(size)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_taken_from_the_first_run_that_fits_else_from_the_front() {
        let free = vec![Extent { start: 0, stripes: 2 }, Extent { start: 5, stripes: 4 }];
        assert_eq!(take(free.clone(), 3), Some(vec![Extent { start: 5, stripes: 3 }]));
        let both = vec![Extent { start: 0, stripes: 2 }, Extent { start: 5, stripes: 3 }];
        assert_eq!(take(free.clone(), 5), Some(both));
        assert_eq!(take(free, 7), None);
    }
}
