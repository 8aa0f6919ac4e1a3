//! Flushing a group: when data, maps and failures are all durable (rules F1, F2).
//!
//! Owns the order of a flush. Invariants: one flush runs at a time and serves everybody who asked before it began; it is answered
//! with success only if every drive in service flushed, every drive that did not is out of a counting configuration, and the maps
//! that depend on the flushed data are durable. A failed flush is never retried into success (rule F2).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Group;
use super::lost::Overwritten;
use super::ranges::Ranges;
use super::unwritten::Settle;
use crate::disk::DiskFault;
use crate::drive::Drive;
use crate::error::IoError;
use crate::ids::Slot;
use crate::runtime::{Env, Runtime};
use crate::sync::{Giver, join_all, oneshot};

/// Collects those who wait for the next flush.
#[derive(Default)]
pub(super) struct FlushGate {
    waiting: RefCell<Vec<Giver<Result<(), IoError>>>>,
    /// One of them waits for what was copied, too.
    copied: Cell<bool>,
    running: Cell<bool>,
}

impl<E: Env> Group<E> {
    /// Makes every write that completed before this call durable, and what was copied to drives that are being filled.
    pub(crate) async fn flush(self: &Rc<Self>) -> Result<(), IoError> {
        self.flush_with(true).await
    }

    /// [`Group::flush`] of what hosts wrote. What a copy wrote counts only from its next checkpoint (rule A2): where nothing else was written, it is not
    /// waited for.
    pub(crate) async fn flush_written(self: &Rc<Self>) -> Result<(), IoError> {
        self.flush_with(false).await
    }

    async fn flush_with(self: &Rc<Self>, copied: bool) -> Result<(), IoError> {
        self.answering().await;
        let (giver, taker) = oneshot();
        self.flushes.copied.set(self.flushes.copied.get() || copied);
        self.flushes.waiting.borrow_mut().push(giver);
        if !self.flushes.running.replace(true) {
            let group = Rc::clone(self);
            self.rt.spawn(Box::pin(async move { group.run_flushes().await }));
        }
        taker.take().await.unwrap_or(Err(IoError::Stopped))
    }

    async fn run_flushes(self: Rc<Self>) {
        loop {
            let waiting = self.flushes.waiting.take();
            if waiting.is_empty() {
                self.flushes.running.set(false);
                return;
            }
            let copied = self.flushes.copied.take();
            let result = self.flush_now(copied).await;
            waiting.into_iter().for_each(|giver| giver.give(result));
        }
    }

    async fn flush_now(self: &Rc<Self>, copied: bool) -> Result<(), IoError> {
        // Everything noted up to here was written before the flush and is covered by it.
        let regions = self.begin_flushing();
        let units = self.unwritten.take();
        let overwritten = self.take_overwritten();
        let in_place = self.journal.as_ref().is_none_or(|journal| journal.is_in_place());
        let wrote = regions || !units.is_empty() || !overwritten.is_empty() || !in_place;
        let settled = self.flush_and_settle(copied || wrote, &units, overwritten).await;
        self.end_flushing(settled.is_ok());
        match settled {
            Ok(trimmed) => {
                self.answering().await;
                self.discard_in_background(trimmed);
                Ok(())
            }
            Err(error) => {
                // The next flush has it all to settle again.
                self.unwritten.give_back(&units);
                Err(error)
            }
        }
    }

    /// The durable steps in their order; answers the units whose space can be given back.
    async fn flush_and_settle(
        self: &Rc<Self>,
        copied: bool,
        units: &Settle,
        overwritten: Overwritten,
    ) -> Result<Ranges, IoError> {
        let flushed = self.flush_drives_with(copied).await;
        self.failures_committed().await?;
        flushed?;
        // New lost entries before anything relies on them; old ones go last, since a unit that was trimmed reads as zeroes only
        // once the unwritten map says so on disk (rule M5).
        self.persist_lost().await?;
        let trimmed = self.settle_unwritten(units).await?;
        self.clear_lost(overwritten).await?;
        Ok(trimmed)
    }

    fn discard_in_background(self: &Rc<Self>, units: Ranges) {
        if units.is_empty() {
            return;
        }
        let group = Rc::clone(self);
        self.background.set(self.background.get() + 1);
        self.rt.spawn(Box::pin(async move {
            group.discard_units(units).await;
            group.background.set(group.background.get() - 1);
            group.committed.notify();
        }));
    }

    /// Flushes every drive that was written since its last flush. One at a time: whoever finds nothing to flush may be sure that it
    /// is durable, not on its way.
    pub(super) async fn flush_drives(self: &Rc<Self>) -> Result<(), IoError> {
        self.flush_drives_with(true).await
    }

    /// [`Group::flush_drives`]; unless what was `copied` matters, drives that are being filled are left alone where no member is to be flushed.
    async fn flush_drives_with(self: &Rc<Self>, copied: bool) -> Result<(), IoError> {
        let _turn = self.flush_turn.lock().await;
        let settled = self.journal.as_ref().map(|journal| journal.settled());
        if !copied && !self.has_unflushed_member() {
            return Ok(());
        }
        let drives: Vec<_> =
            self.drives_in_service().into_iter().filter(|d| d.is_unflushed()).collect();
        // The consequence of a failure is drawn at once, not when the slowest flush has ended: what a drive lost must not be read.
        let results = join_all(drives.iter().map(|drive| async {
            // Checksums first: those of all that the flush is to cover are then covered too (rule K1).
            let written = self.write_checksums(drive).await;
            drive.begin_flush();
            let result = match written {
                Ok(()) => self.flush_drive(drive).await,
                Err(fault) => Err(fault),
            };
            drive.end_flush();
            match result {
                Ok(()) if !drive.has_doomed() => true,
                Ok(()) => self.flush_failed(drive, "an earlier flush failed".into()),
                Err(fault) => self.flush_failed(drive, format!("{fault} on flush")),
            }
        }))
        .await;
        if results.iter().all(|well| *well) {
            if let (Some(journal), Some(settled)) = (&self.journal, settled) {
                journal.flushed(settled);
            }
            return Ok(());
        }
        // Entries that cannot be made durable now stay in memory and are tried again by the next flush.
        let _ = self.persist_lost().await;
        Err(IoError::Io)
    }

    fn has_unflushed_member(&self) -> bool {
        let slots = self.slots.borrow();
        slots.iter().filter_map(|s| s.main.as_ref()).any(|main| main.is_unflushed())
    }

    /// Rule F2: what a drive took since its last good flush is unknown. It is given up (answers `true`), or, if it cannot be
    /// spared, those blocks are lost from now on. A drive of another group does not concern this one.
    pub(crate) fn flush_failed(&self, drive: &Rc<Drive<E>>, reason: String) -> bool {
        if self.give_up(drive, reason) {
            return true;
        }
        let slot = self.with_slots(|slots| {
            slots.iter().position(|s| s.main.as_ref().is_some_and(|m| Rc::ptr_eq(m, drive)))
        });
        let doomed = drive.take_doomed();
        if let Some(slot) = slot.map(|slot| Slot(slot as u8))
            && !doomed.is_empty()
            && !self.lost.insert(slot, &doomed)
        {
            self.force_out(slot, "the map of its lost blocks is full");
        }
        false
    }

    /// Flushes one drive; one that takes too long is given up if it can be spared, else waited for.
    pub(super) async fn flush_drive(&self, drive: &Rc<Drive<E>>) -> Result<(), DiskFault> {
        drive.flush_or(|| self.give_up(drive, "a flush timed out".into())).await
    }

    /// Completes the lazy part of intent keeping: flushes what is pending and clears the bits of regions at rest.
    pub(crate) async fn sweep(self: &Rc<Self>, all: bool) -> Result<(), IoError> {
        if self.is_paused() {
            return if all { Err(IoError::Io) } else { Ok(()) };
        }
        // A flush under way has taken what it covers, and that is not durable yet.
        if self.flushes.running.get()
            || self.unwritten.is_unsettled()
            || !self.take_overwritten().is_empty()
            || self.drives_in_service().iter().any(|d| d.is_unflushed())
        {
            self.flush().await?;
        }
        self.sweep_intent(all).await
    }
}
