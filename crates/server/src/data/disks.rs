//! Commands on single disks: what is opened, owned and let go around the engine's part.
//!
//! Owns the order of the two. Invariants: a disk is owned before the engine has it, and let go only once the engine does not have it;
//! what was kept before a command that is refused is kept after it, and nothing else; a refused `add` leaves no new file behind.

use forestall_disk::{Injector, OwnError};
use forestall_engine::{CommandError, DiskNumber, DiskRole};
use thiserror::Error;

use super::Context;
use crate::api::types::AddWorkDisk;
use crate::open::{self, OpenError, Opened};

/// Why a command on a disk came to nothing.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The path could not be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine refused or failed.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl Context {
    /// The injections of a disk that is open.
    pub fn injector(&self, disk: DiskNumber) -> Option<Injector> {
        self.opened(disk).map(|opened| opened.disk.injector())
    }

    /// Adds the disk at `path`; a missing file is made sparse with `size` bytes. Foreign data is overwritten only with `force`.
    ///
    /// # Errors
    /// [`DiskError`]; then a file that was made for it is gone again.
    pub async fn add_disk(
        &self,
        path: &str,
        role: DiskRole,
        size: Option<u64>,
        force: bool,
    ) -> Result<DiskNumber, DiskError> {
        self.refuse_held(path)?;
        let new = open::open_new(&[path], self.io, size, force, &|line| (self.log)(line)).await?;
        let new = new.into_iter().next().expect("one was opened");
        self.say_note(&new.opened);
        // Kept only once it has a label: a beat needs one.
        let number = self.array.add_disk(new.opened.new_disk(), role).await?;
        self.keeper.keep(new.keep());
        Ok(number)
    }

    /// Makes a work disk of the disks at `legs`; missing files are made sparse with `size` bytes. Foreign data is overwritten only
    /// with `force`.
    ///
    /// # Errors
    /// [`DiskError`]; then files that were made for it are gone again.
    pub async fn add_work_disk(&self, body: AddWorkDisk) -> Result<(), DiskError> {
        open::distinct::check(&body.legs)?;
        for path in &body.legs {
            self.refuse_held(path)?;
        }
        let (size, force) = (body.size, body.force);
        let legs =
            open::open_new(&body.legs, self.io, size, force, &|line| (self.log)(line)).await?;
        legs.iter().for_each(|leg| self.say_note(&leg.opened));
        let disks = legs.iter().map(|leg| leg.opened.new_disk()).collect();
        self.array.add_work_disk(body.disk, disks, body.serves).await?;
        legs.into_iter().for_each(|leg| self.keeper.keep(leg.keep()));
        Ok(())
    }

    /// Takes a work disk away and lets its legs go; their beats end before the engine wipes them.
    ///
    /// # Errors
    /// As the engine's.
    pub async fn remove_work_disk(&self, set: DiskNumber) -> Result<(), CommandError> {
        let disks = self.array.report().disks;
        let legs = disks.into_iter().filter(|report| report.work_disk == Some(set));
        let legs: Vec<Opened> =
            legs.filter_map(|leg| self.keeper.find(&leg.identity.path)).collect();
        for leg in &legs {
            self.keeper.quieten(leg).await;
        }
        let removed = self.array.remove_work_disk(set).await;
        for leg in &legs {
            match &removed {
                Ok(()) => self.keeper.forget(leg),
                Err(_) => self.keeper.resume(leg),
            }
        }
        removed
    }

    /// Brings a disk back: the one at `path`, or, without a path, the one that is still open.
    ///
    /// A path is opened anew where that is possible, since a device that went away and came back is another one to the system. Where
    /// it is not, because this server itself holds the disk, the open one is used.
    ///
    /// # Errors
    /// [`DiskError`].
    pub async fn readd_disk(&self, disk: DiskNumber, path: Option<&str>) -> Result<(), DiskError> {
        let Some(path) = path else { return Ok(self.array.readd_disk(disk, None).await?) };
        let before = self.keeper.find(path);
        let opened = match (open::open_now(path, self.io), &before) {
            (Err(OpenError::Own(OwnError::InUse { .. })), Some(held)) => {
                return Ok(self.array.readd_disk(disk, Some(held.new_disk())).await?);
            }
            (Err(OpenError::Own(OwnError::InUse { .. })), None) => {
                open::open(path, self.io).await?
            }
            (opened, _) => opened?,
        };
        open::owner::watch(std::slice::from_ref(&opened), &|line| (self.log)(line)).await?;
        self.say_note(&opened);
        self.array.readd_disk(disk, Some(opened.new_disk())).await?;
        if let Some(gone) = before {
            self.keeper.forget(&gone);
        }
        self.keeper.keep(opened);
        Ok(())
    }

    /// Takes a disk out of the array and lets it go, so that others may have it. Its beat ends before the engine wipes it.
    ///
    /// # Errors
    /// As the engine's.
    pub async fn remove_disk(&self, disk: DiskNumber) -> Result<(), CommandError> {
        let opened = self.opened(disk);
        if let Some(opened) = &opened {
            self.keeper.quieten(opened).await;
        }
        let removed = self.array.remove_disk(disk).await;
        if let Some(opened) = &opened {
            match &removed {
                Ok(()) => self.keeper.forget(opened),
                Err(_) => self.keeper.resume(opened),
            }
        }
        removed
    }

    /// The open disk with this number.
    fn opened(&self, disk: DiskNumber) -> Option<Opened> {
        let disks = self.array.report().disks;
        let path = disks.into_iter().find(|report| report.number == disk)?.identity.path;
        self.keeper.find(&path)
    }

    /// The disk of this array that `path` leads to. A device that went away may have left its name to another one, which can be
    /// opened: that is none of ours.
    fn held_at(&self, path: &str) -> Option<DiskNumber> {
        let held = self.keeper.find(path)?;
        let in_use = open::open_now(path, self.io)
            .is_err_and(|error| matches!(error, OpenError::Own(OwnError::InUse { .. })));
        // Of several that had this path, the one that came last.
        let mut disks = self.array.report().disks.into_iter().rev();
        let number = disks.find(|report| report.identity.path == held.identity.path)?.number;
        in_use.then_some(number)
    }

    fn refuse_held(&self, path: &str) -> Result<(), CommandError> {
        match self.held_at(path) {
            Some(number) => Err(CommandError::Refused(format!(
                "{path} is disk {number} of this array already; `forestall disk list` shows what it does"
            ))),
            None => Ok(()),
        }
    }

    fn say_note(&self, opened: &Opened) {
        if let Some(note) = &opened.note {
            (self.log)(note);
        }
    }
}
