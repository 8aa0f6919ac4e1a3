//! A group's maps as a whole: writing them to a drive that joins, reading them at assembly, telling of them.
//!
//! Owns what joins and leaves. Invariants: a drive holds every map page before it counts as in service, and those that changed
//! meanwhile right after (rule M1); at assembly the newest generation among members in service is taken; after an unclean stop
//! every marked region is dirty, and a filler is not current there (rule M4).

use std::rc::Rc;

use super::{Group, MissingPage, Stale};
use crate::config::SlotState;
use crate::disk::DiskFault;
use crate::drive::Drive;
use crate::error::IoError;
use crate::format::page::{PAGE_PAYLOAD, decode_cursors, encode_cursors};
use crate::ids::Slot;
use crate::runtime::Env;

/// A group of which no member was there at the start: nothing was written to it since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Away {
    /// It was there, or is again.
    Here,
    /// What its maps say is not known.
    Unknown,
    /// Members are back, and not enough of them to give everything.
    Partly,
}

/// The generations of the pages written to a drive, to be compared once it has joined.
pub(crate) struct Copied {
    intent: Vec<u64>,
    unwritten: Vec<u64>,
    lost: Vec<u64>,
    cursors: Vec<u64>,
}

impl<E: Env> Group<E> {
    /// Writes every map page to a drive that is about to join, and flushes it.
    pub(crate) async fn write_all_pages(
        self: &Rc<Self>,
        drive: &Rc<Drive<E>>,
    ) -> Result<Copied, DiskFault> {
        let copied = Copied {
            intent: self.intent.pages.copy_to(self.uuid, drive, |p| self.intent.payload(p)).await?,
            unwritten: self
                .unwritten
                .pages
                .copy_to(self.uuid, drive, |p| self.unwritten.payload(p))
                .await?,
            lost: {
                // Both pages of one moment: entries move between them.
                let _turn = self.lost.turn.lock().await;
                let lost = &self.lost;
                lost.pages.copy_to(self.uuid, drive, |p| lost.written_payload(p)).await?
            },
            cursors: self
                .cursors
                .copy_to(self.uuid, drive, |_| encode_cursors(&self.checkpoints.borrow()))
                .await?,
        };
        drive.flush().await?;
        Ok(copied)
    }

    /// The drive has joined: pages that were written between are written again, to all.
    pub(crate) async fn refresh_pages(self: &Rc<Self>, copied: &Copied) -> Result<(), IoError> {
        self.intent.pages.touch_newer(&copied.intent);
        self.unwritten.pages.touch_newer(&copied.unwritten);
        self.lost.pages.touch_newer(&copied.lost);
        self.cursors.touch_newer(&copied.cursors);
        self.persist_stale_pages().await
    }

    /// Writes every page that changed, or that not every drive held at assembly (rule M1).
    pub(crate) async fn persist_stale_pages(self: &Rc<Self>) -> Result<(), IoError> {
        for page in self.intent.pages.stale() {
            self.persist_intent(page).await?;
        }
        self.persist_unwritten().await?;
        self.persist_lost().await?;
        for page in self.cursors.stale() {
            self.cursors
                .persist(self, page, || encode_cursors(&self.checkpoints.borrow()), |_| ())
                .await?;
        }
        Ok(())
    }

    /// Writes pages at rest, or with `all` every page, to their second place too, where that holds something older.
    pub(crate) async fn double_pages(self: &Rc<Self>, all: bool) -> Result<(), IoError> {
        for pages in [&self.intent.pages, &self.unwritten.pages, &self.lost.pages, &self.cursors] {
            pages.touch_alone(all);
        }
        self.persist_stale_pages().await
    }

    /// Completes when everything that began to change the group before this call has ended.
    pub(crate) async fn those_before_have_ended(&self) {
        self.rows.passed().await;
    }

    /// A group that was just made: its pages stand on its members at generation 1.
    pub(crate) fn adopt_new_pages(&self) {
        for pages in [&self.intent.pages, &self.unwritten.pages, &self.lost.pages, &self.cursors] {
            pages.adopt(1);
        }
    }

    /// Reads all maps from the group's drives in service. `clean`: the last stop was orderly.
    pub(crate) async fn load_maps(self: &Rc<Self>, clean: bool) -> Result<(), MissingPage> {
        // A drive that is being filled may hold older pages; it is asked too, since the newest wins.
        self.load_maps_of(self.drives_in_service(), clean).await
    }

    /// Reads all maps from `drives`: nothing was known of them before.
    pub(crate) async fn load_maps_of(
        self: &Rc<Self>,
        drives: Vec<Rc<Drive<E>>>,
        clean: bool,
    ) -> Result<(), MissingPage> {
        self.intent.pages.load(self.uuid, &drives, |p, bytes| self.intent.load(p, bytes)).await?;
        self.unwritten
            .pages
            .load(self.uuid, &drives, |p, bytes| self.unwritten.load(p, bytes))
            .await?;
        self.lost.pages.load(self.uuid, &drives, |p, bytes| self.lost.load(p, bytes)).await?;
        self.cursors
            .load(self.uuid, &drives, |_, bytes| {
                if let Ok(cursors) = decode_cursors(bytes) {
                    *self.checkpoints.borrow_mut() = cursors;
                }
            })
            .await?;
        // What a journal covers is made good by replaying it, whatever the bits say (rule J1).
        if !clean && self.needs_intent() && !self.is_journaled() {
            self.intent.set_dirty(self.intent.marked());
        }
        let end = self.member_len();
        let checkpoints = *self.checkpoints.borrow();
        for (i, slot) in self.slots.borrow_mut().iter_mut().enumerate() {
            if slot.state == SlotState::Catching {
                (slot.cursor, slot.stale) = (end, self.marked_stale());
            } else if slot.filler.is_some() {
                slot.cursor = checkpoints[i].min(end);
                // Also after an orderly stop: a marked region may have been stale when it came.
                slot.stale = self.marked_stale_below(slot.cursor);
            }
        }
        Ok(())
    }

    /// Ranges whose intent bit is set.
    pub(crate) fn marked_stale(&self) -> Stale {
        self.marked_stale_below(self.member_len())
    }

    fn marked_stale_below(&self, end: u64) -> Stale {
        Stale::of_regions(self.intent.marked(), self.intent.region_len(), end)
    }

    /// Whether a parity group is marked dirty while a member is missing: its missing data may not be computable (write hole).
    pub(crate) fn has_write_hole(&self) -> bool {
        self.has_parity() && self.intent.dirty_count() > 0 && !self.missing().is_empty()
    }

    /// How much of the group was away since the start.
    pub(crate) fn away(&self) -> Away {
        self.away.get()
    }

    pub(crate) fn set_away(&self, away: Away) {
        self.away.set(away);
        if away == Away::Unknown {
            // Nothing is taken for never written, which would read as zeroes.
            for page in 0..self.unwritten.pages.count() {
                self.unwritten.load(page, &[0; PAGE_PAYLOAD]);
            }
        }
    }

    /// Whether everything in the group can be had once `slot` is back.
    pub(crate) fn is_readable_with(&self, slot: Slot) -> bool {
        self.geometry.still_whole(self.missing().without(slot))
    }

    /// Every marked region is to be resynced.
    pub(crate) fn mark_all_dirty(&self) {
        self.intent.set_dirty(self.intent.marked());
    }

    /// Regions still to be resynced.
    pub(crate) fn dirty_regions(&self) -> u64 {
        self.intent.dirty_count()
    }

    /// Bytes of one of them.
    pub(crate) fn region_len(&self) -> u64 {
        self.intent.region_len()
    }

    pub(crate) fn is_resynced(&self) -> bool {
        self.intent.dirty_count() == 0
    }

    /// The filler of a slot gives up its progress: the next one starts over.
    pub(crate) async fn reset_cursor(self: &Rc<Self>, slot: Slot) -> Result<(), IoError> {
        self.persist_cursor(slot, 0).await
    }

    /// At an orderly stop: fillers are flushed and their cursors persisted, so that nothing is copied twice.
    pub(crate) async fn checkpoint_all(self: &Rc<Self>) -> Result<(), IoError> {
        let fillers: Vec<(Slot, u64, bool)> = self.with_slots(|slots| {
            slots
                .iter()
                .enumerate()
                .filter(|(_, s)| s.filler.is_some() && s.state != SlotState::Catching)
                .map(|(i, s)| (Slot(i as u8), s.settled_cursor(), s.stale.bytes() == 0))
                .collect()
        });
        for (slot, cursor, whole) in fillers {
            if whole {
                self.flush().await?;
                self.persist_cursor(slot, cursor).await?;
            }
        }
        Ok(())
    }
}
