//! The unwritten map: stripes that nobody has written yet, which read as zeroes (rule M6).
//!
//! Owns one bit per unit of stripes. Invariants: a unit is called written on disk only after its first write is durable on every
//! member, so that what a disk held before is never read; a trimmed unit may be called unwritten at any time after the
//! trim was accepted. Unwritten units are neither copied, rebuilt, resynced nor scrubbed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::bitmap::Bitmap;
use super::pages::Pages;
use crate::error::IoError;
use crate::format::page::PageKind;
use crate::ids::Stripe;
use crate::runtime::Env;

pub(super) struct Unwritten {
    unit: u64,
    stripes: u64,
    /// Set: the unit reads as zeroes. What hosts see.
    live: RefCell<Bitmap>,
    /// What may stand on disk: like `live`, but units whose first write is not durable yet are still set.
    image: RefCell<Bitmap>,
    /// Units first written since the last flush began.
    fresh: RefCell<BTreeSet<u64>>,
    /// Units trimmed since the last flush, whose space on the disks can be given back.
    trimmed: RefCell<BTreeSet<u64>>,
    pub(super) pages: Pages,
}

/// What a flush has to settle in this map.
#[derive(Default)]
pub(super) struct Settle {
    fresh: BTreeSet<u64>,
    trimmed: BTreeSet<u64>,
}

impl Unwritten {
    pub(super) fn new(unit: u64, stripes: u64) -> Self {
        let live = Bitmap::new(stripes.div_ceil(unit), true);
        let pages = live.pages();
        Self {
            unit,
            stripes,
            image: RefCell::new(live.clone()),
            live: RefCell::new(live),
            fresh: RefCell::default(),
            trimmed: RefCell::default(),
            pages: Pages::new(PageKind::Unwritten, pages),
        }
    }

    pub(super) fn unit_of(&self, stripe: Stripe) -> u64 {
        stripe.0 / self.unit
    }

    /// Stripes per unit.
    pub(super) fn unit(&self) -> u64 {
        self.unit
    }

    /// The stripes of a unit; the last one may be short.
    pub(super) fn stripes_of(&self, unit: u64) -> Range<u64> {
        unit * self.unit..((unit + 1) * self.unit).min(self.stripes)
    }

    pub(super) fn reads_zero(&self, stripe: Stripe) -> bool {
        self.live.borrow().get(self.unit_of(stripe))
    }

    /// Notes the first write of a unit, which has just been stored.
    pub(super) fn set_written(&self, unit: u64) {
        if self.live.borrow_mut().set(unit, false) {
            self.fresh.borrow_mut().insert(unit);
            self.trimmed.borrow_mut().remove(&unit);
        }
    }

    /// Makes a unit read as zeroes.
    pub(super) fn set_unwritten(&self, unit: u64) {
        if self.live.borrow_mut().set(unit, true) {
            self.fresh.borrow_mut().remove(&unit);
            self.trimmed.borrow_mut().insert(unit);
            if self.image.borrow_mut().set(unit, true) {
                self.pages.touch(Bitmap::page_of(unit));
            }
        }
    }

    pub(super) fn take(&self) -> Settle {
        Settle { fresh: self.fresh.take(), trimmed: self.trimmed.take() }
    }

    /// Whether a flush has something to settle.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.fresh.borrow().is_empty() || !self.trimmed.borrow().is_empty()
    }

    /// Gives back what a failed flush took.
    pub(super) fn give_back(&self, settle: Settle) {
        let live = self.live.borrow();
        self.fresh.borrow_mut().extend(settle.fresh.into_iter().filter(|u| !live.get(*u)));
        self.trimmed.borrow_mut().extend(settle.trimmed.into_iter().filter(|u| live.get(*u)));
    }

    /// The first writes in `settle` are durable: they may be called written on disk from now on.
    fn settle_fresh(&self, settle: &Settle) {
        let live = self.live.borrow();
        let mut image = self.image.borrow_mut();
        for unit in &settle.fresh {
            // Trimmed meanwhile, or trimmed and first written again: then a later flush settles it.
            let again = self.fresh.borrow().contains(unit);
            if !live.get(*unit) && !again && image.set(*unit, false) {
                self.pages.touch(Bitmap::page_of(*unit));
            }
        }
    }

    pub(super) fn payload(&self, page: usize) -> Vec<u8> {
        self.image.borrow().payload(page).to_vec()
    }

    pub(super) fn load(&self, page: usize, payload: &[u8]) {
        self.image.borrow_mut().load(page, payload);
        self.live.borrow_mut().load(page, payload);
    }
}

impl<E: Env> Group<E> {
    /// Persists the map after a flush that made `settle`'s first writes durable; answers the trimmed units that are durably
    /// called unwritten now.
    pub(super) async fn settle_unwritten(
        self: &Rc<Self>,
        settle: &Settle,
    ) -> Result<BTreeSet<u64>, IoError> {
        let map = &self.unwritten;
        map.settle_fresh(settle);
        for page in map.pages.stale() {
            map.pages.persist(self, page, || map.payload(page), |_| ()).await?;
        }
        Ok(settle.trimmed.clone())
    }

    /// Gives the space of trimmed units back to the disks, where they are still unwritten.
    pub(super) async fn discard_units(self: &Rc<Self>, units: BTreeSet<u64>) {
        let chunk = u64::from(self.geometry.chunk());
        for unit in units {
            let stripes = self.unwritten.stripes_of(unit);
            let rows = stripes.start * chunk..stripes.end * chunk;
            let _guard = self.rows.lock(rows.clone(), crate::sync::Hold::Exclusive).await;
            if self.is_closing() {
                return;
            }
            if !self.unwritten.reads_zero(Stripe(stripes.start))
                || self.unwritten.image_differs(unit)
            {
                continue;
            }
            let len = rows.end - rows.start;
            let drives = self.drives_in_service();
            crate::sync::join_all(drives.iter().map(|drive| {
                let late = || drive.is_gone() || self.give_up(drive, "a discard timed out".into());
                drive.discard_data(rows.start, len, late)
            }))
            .await;
        }
    }

    /// Makes whole units of stripes read as zeroes. The caller holds the host's locks on them.
    pub(crate) async fn forget_units(self: &Rc<Self>, units: Range<u64>) {
        const AT_ONCE: u64 = 4096;
        let chunk = u64::from(self.geometry.chunk());
        let mut first = units.start;
        while first < units.end {
            let end = (first + AT_ONCE).min(units.end);
            let rows = self.unwritten.stripes_of(first).start * chunk
                ..self.unwritten.stripes_of(end - 1).end * chunk;
            let guard = self.rows.lock(rows.clone(), crate::sync::Hold::Exclusive).await;
            (first..end).for_each(|unit| self.unwritten.set_unwritten(unit));
            // Lost blocks among them are lost no more: they read as zeroes (rule M5).
            for slot in 0..self.geometry.members() {
                self.lost.overwritten(
                    crate::ids::Slot(slot as u8),
                    rows.start,
                    rows.end - rows.start,
                );
            }
            drop(guard);
            first = end;
            crate::sync::yield_now().await;
        }
    }

    /// Persists the map as it stands: new volumes must not show what others left (rule M6).
    pub(crate) async fn persist_unwritten(self: &Rc<Self>) -> Result<(), IoError> {
        self.settle_unwritten(&Settle::default()).await.map(|_| ())
    }

    /// Whether the unit of `stripe` reads as zeroes without a disk being asked.
    pub(crate) fn reads_zero(&self, stripe: Stripe) -> bool {
        self.unwritten.reads_zero(stripe)
    }

    /// Stripes per unit of the unwritten map.
    pub(crate) fn unit_stripes(&self) -> u64 {
        self.unwritten.unit()
    }
}

impl Unwritten {
    /// Whether the disk may still call the unit written.
    fn image_differs(&self, unit: u64) -> bool {
        !self.image.borrow().get(unit) || self.pages.is_stale(Bitmap::page_of(unit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_called_written_only_when_its_first_write_is_settled() {
        let map = Unwritten::new(2, 9);
        assert_eq!(map.stripes_of(4), 8..9);
        map.set_written(1);
        assert!(!map.reads_zero(Stripe(3)));
        assert!(map.image.borrow().get(1));
        let settle = map.take();
        map.settle_fresh(&settle);
        assert!(!map.image.borrow().get(1));
        map.set_unwritten(1);
        assert!(map.image.borrow().get(1), "a trim may be persisted at once");
    }

    #[test]
    fn a_unit_trimmed_and_written_again_during_a_flush_waits_for_the_next() {
        let map = Unwritten::new(1, 4);
        map.set_written(2);
        let settle = map.take();
        map.set_unwritten(2);
        map.set_written(2);
        map.settle_fresh(&settle);
        assert!(map.image.borrow().get(2), "the second write is not durable yet");
        let settle = map.take();
        map.settle_fresh(&settle);
        assert!(!map.image.borrow().get(2));
    }
}
