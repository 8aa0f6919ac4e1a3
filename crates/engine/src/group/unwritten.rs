//! The unwritten map: stripes that nobody has written yet, which read as zeroes (rule M6).
//!
//! Owns one bit per unit of stripes. Invariants: a unit is called written on disk only after its first write is durable on every
//! member, so that what a disk held before is never read; a trimmed unit may be called unwritten at any time after the
//! trim was accepted. Unwritten units are neither copied, rebuilt, resynced nor scrubbed.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::bitmap::Bitmap;
use super::pages::Pages;
use super::ranges::Ranges;
use crate::error::IoError;
use crate::format::page::PageKind;
use crate::ids::Stripe;
use crate::runtime::Env;

/// Member address space that is discarded under one row lock.
const DISCARD_AT_ONCE: u64 = 16 << 20;

pub(super) struct Unwritten {
    unit: u64,
    stripes: u64,
    /// Set: the unit reads as zeroes. What hosts see.
    live: RefCell<Bitmap>,
    /// What may stand on disk: like `live`, but units whose first write is not durable yet are still set.
    image: RefCell<Bitmap>,
    /// Units first written since the last flush began.
    fresh: RefCell<Ranges>,
    /// Units trimmed since the last flush, whose space on the disks can be given back.
    trimmed: RefCell<Ranges>,
    pub(super) pages: Pages,
}

/// What a flush has to settle in this map.
#[derive(Default)]
pub(super) struct Settle {
    fresh: Ranges,
    trimmed: Ranges,
}

impl Settle {
    pub(super) fn is_empty(&self) -> bool {
        self.fresh.is_empty() && self.trimmed.is_empty()
    }
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
            self.fresh.borrow_mut().insert(unit..unit + 1);
            self.trimmed.borrow_mut().remove(unit..unit + 1);
        }
    }

    /// Makes units read as zeroes.
    pub(super) fn set_unwritten(&self, units: Range<u64>) {
        let written: Vec<Range<u64>> = self.live.borrow().runs(units, false).collect();
        let (mut live, mut image) = (self.live.borrow_mut(), self.image.borrow_mut());
        for run in written {
            self.fresh.borrow_mut().remove(run.clone());
            self.trimmed.borrow_mut().insert(run.clone());
            for unit in run {
                live.set(unit, true);
                if image.set(unit, true) {
                    self.pages.touch(Bitmap::page_of(unit));
                }
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

    /// Gives back what a failed flush took, as far as it is so still.
    pub(super) fn give_back(&self, settle: &Settle) {
        let live = self.live.borrow();
        let (mut fresh, mut trimmed) = (self.fresh.borrow_mut(), self.trimmed.borrow_mut());
        let still = |taken: &Ranges, value| -> Vec<Range<u64>> {
            taken.iter().flat_map(|units| live.runs(units, value)).collect()
        };
        still(&settle.fresh, false).into_iter().for_each(|units| fresh.insert(units));
        still(&settle.trimmed, true).into_iter().for_each(|units| trimmed.insert(units));
    }

    /// The first writes in `settle` are durable: they may be called written on disk from now on.
    fn settle_fresh(&self, settle: &Settle) {
        let (live, fresh) = (self.live.borrow(), self.fresh.borrow());
        let mut image = self.image.borrow_mut();
        for unit in settle.fresh.iter().flat_map(|units| live.runs(units, false)).flatten() {
            // Trimmed and first written again meanwhile: then a later flush settles it.
            if !fresh.contains(unit) && image.set(unit, false) {
                self.pages.touch(Bitmap::page_of(unit));
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
    ) -> Result<Ranges, IoError> {
        let map = &self.unwritten;
        map.settle_fresh(settle);
        for page in map.pages.stale() {
            map.pages.persist(self, page, || map.payload(page), |_| ()).await?;
        }
        Ok(settle.trimmed.clone())
    }

    /// Gives the space of trimmed units back to the disks, where they are still unwritten.
    pub(super) async fn discard_units(self: &Rc<Self>, units: Ranges) {
        let at_once = (DISCARD_AT_ONCE / self.unit_len()).max(1);
        for run in units.iter() {
            for first in run.clone().step_by(at_once as usize) {
                let piece = first..(first + at_once).min(run.end);
                let _guard = self
                    .rows
                    .lock(self.unit_range(piece.clone()), crate::sync::Hold::Exclusive)
                    .await;
                if self.is_closing() {
                    return;
                }
                for still in self.unwritten.settled_holes(piece).iter() {
                    self.discard_rows(self.unit_range(still)).await;
                }
            }
        }
    }

    async fn discard_rows(self: &Rc<Self>, rows: Range<u64>) {
        let drives = self.drives_in_service();
        crate::sync::join_all(drives.iter().map(|drive| {
            let late = || drive.is_gone() || self.give_up(drive, "a discard timed out".into());
            drive.discard_data(rows.start, rows.end - rows.start, late)
        }))
        .await;
    }

    /// Member address space of a unit.
    fn unit_len(&self) -> u64 {
        self.unwritten.unit * u64::from(self.geometry.chunk())
    }

    /// The member addresses of units, of which there is at least one.
    fn unit_range(&self, units: Range<u64>) -> Range<u64> {
        let chunk = u64::from(self.geometry.chunk());
        self.unwritten.stripes_of(units.start).start * chunk
            ..self.unwritten.stripes_of(units.end - 1).end * chunk
    }

    /// Makes whole units of stripes read as zeroes. The caller holds the host's locks on them.
    pub(crate) async fn forget_units(self: &Rc<Self>, units: Range<u64>) {
        const AT_ONCE: u64 = 4096;
        let mut first = units.start;
        while first < units.end {
            let end = (first + AT_ONCE).min(units.end);
            let rows = self.unit_range(first..end);
            let guard = self.rows.lock(rows.clone(), crate::sync::Hold::Exclusive).await;
            self.unwritten.set_unwritten(first..end);
            self.note_trimmed(first..end);
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
    /// The units of a range that read as zeroes and are called so by every disk.
    fn settled_holes(&self, units: Range<u64>) -> Ranges {
        let (live, image) = (self.live.borrow(), self.image.borrow());
        let settled = |unit: &u64| image.get(*unit) && !self.pages.is_stale(Bitmap::page_of(*unit));
        let holes = live.runs(units, true).flatten().filter(settled);
        holes.map(|unit| unit..unit + 1).collect()
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
        map.set_unwritten(1..2);
        assert!(map.image.borrow().get(1), "a trim may be persisted at once");
    }

    #[test]
    fn a_unit_trimmed_and_written_again_during_a_flush_waits_for_the_next() {
        let map = Unwritten::new(1, 4);
        map.set_written(2);
        let settle = map.take();
        map.set_unwritten(2..3);
        map.set_written(2);
        map.settle_fresh(&settle);
        assert!(map.image.borrow().get(2), "the second write is not durable yet");
        let settle = map.take();
        map.settle_fresh(&settle);
        assert!(!map.image.borrow().get(2));
    }

    #[test]
    fn a_volume_trimmed_whole_is_one_run() {
        let units = 1 << 20;
        let whole = Ranges::from_iter(std::iter::once(0..units));
        let map = Unwritten::new(1, units);
        (0..units).for_each(|unit| map.set_written(unit));
        assert_eq!(*map.fresh.borrow(), whole);
        for first in (0..units).step_by(4096) {
            map.set_unwritten(first..first + 4096);
        }
        let settle = map.take();
        assert_eq!(settle.trimmed, whole);
        assert!(settle.fresh.is_empty());
        map.set_written(5);
        map.give_back(&settle);
        assert_eq!(map.trimmed.borrow().iter().collect::<Vec<_>>(), [0..5, 6..units]);
        (0..map.pages.count()).for_each(|page| assert!(!map.pages.is_stale(page), "never told"));
    }

    #[test]
    fn only_units_that_every_disk_calls_unwritten_are_discarded() {
        let map = Unwritten::new(1, 8);
        (0..4).for_each(|unit| map.set_written(unit));
        let settle = map.take();
        map.settle_fresh(&settle);
        assert_eq!(map.settled_holes(0..8).iter().count(), 0, "the page is not persisted yet");
        let map = Unwritten::new(1, 8);
        map.set_written(3);
        assert_eq!(map.settled_holes(1..6).iter().collect::<Vec<_>>(), [1..3, 4..6]);
    }
}
