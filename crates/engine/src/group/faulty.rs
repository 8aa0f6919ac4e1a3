//! Blocks that members gave wrong or not at all while something else was asked: counted, and written anew.
//!
//! Owns what becomes of them. Invariants: each error counts once, by whoever draws its consequence, and reading alone draws none; a mending counts
//! what it finds, so that whoever has a block mended does not count it; mendings in the background are few at a time, and none begins in a
//! group that is about to go.

use std::ops::Range;
use std::rc::Rc;

use super::Group;
use crate::disk::{DiskFault, FaultKind};
use crate::ids::{Slot, SlotSet, Stripe};
use crate::runtime::Env;

/// Background mendings of one group at once. What is found beyond them is counted only, and mended when it is met again.
const MENDINGS_MAX: usize = 16;

/// Slots that gave rows wrong or not at all, by what is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Faulty {
    /// Sectors do not read.
    unreadable: SlotSet,
    /// A block does not fit its checksum.
    misfit: SlotSet,
    /// The disk cannot give the checksum of a block, which is no error of the block.
    unverified: SlotSet,
}

impl Faulty {
    /// Notes a fault of `slot`, if it is one of its blocks.
    pub(super) fn note(&mut self, slot: Slot, kind: FaultKind) {
        let of_kind = match kind {
            FaultKind::Medium => &mut self.unreadable,
            FaultKind::Checksum => &mut self.misfit,
            FaultKind::Unverified => &mut self.unverified,
            _ => return,
        };
        *of_kind = of_kind.with(slot);
    }

    pub(super) fn or(self, other: Self) -> Self {
        Self {
            unreadable: self.unreadable.or(other.unreadable),
            misfit: self.misfit.or(other.misfit),
            unverified: self.unverified.or(other.unverified),
        }
    }

    fn within(self, slots: SlotSet) -> Self {
        Self {
            unreadable: self.unreadable.and(slots),
            misfit: self.misfit.and(slots),
            unverified: self.unverified.and(slots),
        }
    }

    fn slots(self) -> SlotSet {
        self.unreadable.or(self.misfit).or(self.unverified)
    }
}

impl<E: Env> Group<E> {
    /// Counts one error of each slot; `had`: what was asked was had elsewhere. The caller holds the row lock.
    pub(super) fn count_faulty(&self, faulty: Faulty, address: u64, had: bool) {
        for slot in faulty.unreadable.iter() {
            self.count_read(slot, address, had);
        }
        for slot in faulty.misfit.iter() {
            self.count_mismatch(slot, address, DiskFault::new(FaultKind::Checksum));
        }
    }

    /// Counts a read error of a slot.
    pub(super) fn count_read(&self, slot: Slot, address: u64, had: bool) {
        let (main, filler) = self.drives_at(slot, address);
        if let Some(drive) = main.or(filler) {
            drive.count_error(
                |e| {
                    if had { e.recovered_reads += 1 } else { e.unrecovered_reads += 1 }
                },
            );
        }
    }

    /// Faults met by a write of `rows`: those of slots that it writes `anew` count, the others are mended.
    pub(super) fn count_or_mend(
        self: &Rc<Self>,
        stripe: Stripe,
        faulty: Faulty,
        anew: SlotSet,
        rows: &Range<u32>,
    ) {
        let address = self.geometry.member_address(stripe, rows.start);
        self.count_faulty(faulty.within(anew), address, true);
        self.mend_faulty(stripe, faulty.within(faulty.slots().minus(anew)), rows);
    }

    /// Looks at each block by itself of rows that slots gave wrong, though what was asked could be had without them: counts its error, and writes it
    /// anew. Nobody waits for it.
    pub(super) fn mend_faulty(self: &Rc<Self>, stripe: Stripe, faulty: Faulty, rows: &Range<u32>) {
        let address = self.geometry.member_address(stripe, rows.start);
        for slot in faulty.slots().iter() {
            let what = (slot, address, rows.len());
            if self.mendings.borrow().contains(&what) {
                continue; // Somebody met it a moment ago.
            }
            let is_full = self.mendings.borrow().len() >= MENDINGS_MAX;
            // A disk that is copied away is not written for its own sake (rule A1).
            if is_full || self.is_closing() || self.copied.get() == Some(slot) {
                self.count_faulty(faulty.within(SlotSet::one(slot)), address, true);
                continue;
            }
            let (group, rows) = (Rc::clone(self), rows.clone());
            self.mendings.borrow_mut().insert(what);
            self.in_background(async move {
                drop(Rc::clone(&group).mend(stripe, slot, rows).await);
                group.mendings.borrow_mut().remove(&what);
            });
        }
    }
}
