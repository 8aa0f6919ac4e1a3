//! A log that no longer answers is let go: by command, or by itself when nothing lies only there.
//!
//! Owns the way out of an avoidance whose backup is gone for good. Invariants: a log is given up only if none of its copies answers; what it still
//! gives goes home, and only what nothing gives is listed lost (rule M5); home and its list are durable before the commit that takes the log out
//! of every chain, and no host has a block of the volumes concerned meanwhile, so nothing is read from it or written to it after.

use std::rc::Rc;

use super::Array;
use crate::config::{BackupPlace, DropReason};
use crate::error::CommandError;
use crate::ids::{DiskNumber, VolumeNumber};
use crate::report::Severity;
use crate::runtime::{Env, Runtime};
use crate::shield::Log;
use crate::volume::VolumeRt;
use crate::words;

/// What became of the blocks that a log had when it was given up.
#[derive(Clone, Copy, Default)]
struct Outcome {
    home: u64,
    lost: u64,
}

impl<E: Env> Array<E> {
    /// Gives up what a work disk holds of which no leg answers any more. Answers how many blocks are lost.
    ///
    /// # Errors
    /// If there is no such work disk, it holds nothing, a leg answers, or the volumes' own groups cannot be written.
    pub async fn abandon_work_disk(self: &Rc<Self>, set: DiskNumber) -> Result<u64, CommandError> {
        self.abandon(BackupPlace::WorkDisk(set)).await
    }

    /// Gives up what a work volume holds whose group does not answer any more. Answers how many blocks are lost.
    ///
    /// # Errors
    /// As for [`Array::abandon_work_disk`].
    pub async fn abandon_work_volume(self: &Rc<Self>, name: &str) -> Result<u64, CommandError> {
        let volume = super::volumes::find(&self.config.borrow(), name)?.number;
        let place = BackupPlace::WorkVolume(volume);
        if self.config.borrow().backups.work_at(place).is_none() {
            return Err(CommandError::Refused(format!("volume {name:?} is no work volume")));
        }
        self.abandon(place).await
    }

    async fn abandon(self: &Rc<Self>, place: BackupPlace) -> Result<u64, CommandError> {
        let _turn = self.turn().await?;
        if self.config.borrow().backups.work_at(place).is_none() {
            return Err(CommandError::NotFound(format!("there is no {place}")));
        }
        let log = self.logs.borrow().get(&place).cloned().ok_or_else(|| {
            CommandError::Refused(format!("{place} holds no updates: there is nothing to give up"))
        })?;
        if !log.space().is_silent() {
            return Err(CommandError::Refused(format!(
                "{place} still answers: what it holds is taken home as far as it can be read; see `forestall status`"
            )));
        }
        let outcome = self.let_go_of(place, &log, |_| true).await?;
        Ok(outcome.map_or(0, |outcome| outcome.lost))
    }

    /// Lets go of logs that are gone and of which nothing is away: nobody misses them, and a start would look for them.
    pub(super) fn let_go_of_empty_logs(self: &Rc<Self>) {
        let logs = self.logs.borrow();
        let is_due = |log: &Log<E>| log.space().is_gone() && log.marked_slots().is_empty();
        let due = logs.iter().find(|(_, log)| is_due(log));
        let due = due.map(|(place, log)| (*place, Rc::clone(log)));
        let Some((place, log)) = due.filter(|_| !self.stopping.get()) else { return };
        if self.letting_go.replace(true) {
            return;
        }
        drop(logs);
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move {
            if let Ok(_turn) = array.turn().await {
                // What cannot be made durable at home now is tried again with the next look.
                let _ = array.let_go_of(place, &log, is_due).await;
            }
            array.letting_go.set(false);
        }));
    }

    /// Empties a log and takes it out of every chain, if it is still `due` once no host has a block of its volumes.
    async fn let_go_of(
        self: &Rc<Self>,
        place: BackupPlace,
        log: &Rc<Log<E>>,
        due: impl Fn(&Log<E>) -> bool,
    ) -> Result<Option<Outcome>, CommandError> {
        // Requests that wait for its disks end now.
        for leg in log.space().give_up() {
            self.failing.borrow_mut().insert(leg, DropReason::Failed);
        }
        let mut held = Vec::new();
        let users = self.users_of(place);
        for volume in &users {
            held.push(volume.lock_all().await);
        }
        if !due(log) {
            return Ok(None);
        }
        let mut outcome = Outcome::default();
        for volume in &users {
            let Some(shield) = volume.shield() else { continue };
            let emptied = shield.abandon(volume, log).await.map_err(|error| {
                CommandError::Failed(format!(
                    "volume {:?}: {error} at home: {place} is not given up before that is mended; see `forestall status`",
                    volume.report().name
                ))
            });
            let (home, lost) = emptied?;
            (outcome.home, outcome.lost) = (outcome.home + home, outcome.lost + lost);
        }
        self.commit(|next| {
            next.backups.leave_chains(place);
            if let Some(work) = next.backups.work_at_mut(place) {
                work.log = 0;
            }
        })
        .await?;
        drop(held);
        self.close_unused();
        self.tell_of_abandoned(place, outcome);
        Ok(Some(outcome))
    }

    fn users_of(&self, place: BackupPlace) -> Vec<Rc<VolumeRt<E>>> {
        let config = self.config.borrow();
        let volumes = self.volumes.borrow();
        let users = config.backups.users_of(place);
        let numbers: std::collections::BTreeSet<VolumeNumber> = users.map(|(_, v)| v).collect();
        numbers.iter().filter_map(|number| volumes.get(number).cloned()).collect()
    }

    fn tell_of_abandoned(&self, place: BackupPlace, outcome: Outcome) {
        let Outcome { home, lost } = outcome;
        let (severity, what) = match lost {
            0 => (Severity::Warning, "nothing lay only there".to_owned()),
            lost => (
                Severity::Critical,
                format!(
                    "{} that only it had answer with an error until they are written",
                    words::counted(lost, "block")
                ),
            ),
        };
        let taken = match home {
            0 => String::new(),
            home => format!("; {} went home", words::counted(home, "block")),
        };
        let what = format!("{place} does not answer and was given up: {what}{taken}");
        self.event(severity, "backup-abandoned", None, None, what);
    }
}
