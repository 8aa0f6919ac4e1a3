//! The intent bitmap: which regions may differ between members after a crash (rules M2, M3, M4).
//!
//! Owns one bit per region of member address space. Invariants: a bit is durable before an in-place write to its region begins;
//! it is cleared only after a flush that followed the region's last write, while no member is out; a region that was found set
//! at an unclean start is dirty until it has been resynced. When to sweep is the flush module's matter.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use super::Group;
use super::bitmap::Bitmap;
use super::pages::Pages;
use crate::error::IoError;
use crate::format::page::PageKind;
use crate::runtime::Env;

pub(super) struct Intent {
    region: u64,
    /// What is wanted on disk.
    bits: RefCell<Bitmap>,
    /// What is durable on disk.
    durable: RefCell<Bitmap>,
    pub(super) pages: Pages,
    /// Writes under way in each region.
    busy: RefCell<Vec<u32>>,
    /// Regions written since the last flush began.
    unflushed: RefCell<BTreeSet<u64>>,
    /// Regions that the flush under way covers.
    flushing: RefCell<BTreeSet<u64>>,
    /// Regions written since the last sweep.
    recent: RefCell<BTreeSet<u64>>,
    /// Regions to be resynced after an unclean start.
    pub(super) dirty: RefCell<BTreeSet<u64>>,
    any_dirty: Cell<bool>,
}

/// Counts a write under way in a region until dropped.
pub(super) struct Busy<E: Env> {
    group: Rc<Group<E>>,
    region: u64,
}

impl<E: Env> Drop for Busy<E> {
    fn drop(&mut self) {
        let intent = &self.group.intent;
        intent.busy.borrow_mut()[self.region as usize] -= 1;
        intent.unflushed.borrow_mut().insert(self.region);
        intent.recent.borrow_mut().insert(self.region);
    }
}

impl Intent {
    pub(super) fn new(region: u64, regions: u64) -> Self {
        let bits = Bitmap::new(regions, false);
        let pages = bits.pages();
        Self {
            region,
            durable: RefCell::new(bits.clone()),
            bits: RefCell::new(bits),
            pages: Pages::new(PageKind::Intent, pages),
            busy: RefCell::new(vec![0; regions as usize]),
            unflushed: RefCell::default(),
            flushing: RefCell::default(),
            recent: RefCell::default(),
            dirty: RefCell::default(),
            any_dirty: Cell::new(false),
        }
    }

    /// The region of a member address.
    pub(super) fn region_of(&self, address: u64) -> u64 {
        address / self.region
    }

    /// Bytes of a region.
    pub(super) fn region_len(&self) -> u64 {
        self.region
    }

    pub(super) fn is_dirty(&self, region: u64) -> bool {
        self.any_dirty.get() && self.dirty.borrow().contains(&region)
    }

    /// Regions still to be resynced.
    pub(super) fn dirty_count(&self) -> u64 {
        self.dirty.borrow().len() as u64
    }

    pub(super) fn set_dirty(&self, regions: BTreeSet<u64>) {
        self.any_dirty.set(!regions.is_empty());
        *self.dirty.borrow_mut() = regions;
    }

    pub(super) fn not_dirty(&self, region: u64) {
        let mut dirty = self.dirty.borrow_mut();
        dirty.remove(&region);
        self.any_dirty.set(!dirty.is_empty());
    }

    /// The regions whose bits are set.
    pub(super) fn marked(&self) -> BTreeSet<u64> {
        self.bits.borrow().ones().collect()
    }

    /// Takes a page as read at assembly.
    pub(super) fn load(&self, page: usize, payload: &[u8]) {
        self.bits.borrow_mut().load(page, payload);
        self.durable.borrow_mut().load(page, payload);
    }

    pub(super) fn payload(&self, page: usize) -> Vec<u8> {
        self.bits.borrow().payload(page).to_vec()
    }
}

impl<E: Env> Group<E> {
    /// Makes the intent bit of the region at `address` durable and counts a write under way there (rule M2).
    pub(super) async fn begin_write(
        self: &Rc<Self>,
        address: u64,
    ) -> Result<Option<Busy<E>>, IoError> {
        if !self.needs_intent() {
            return Ok(None);
        }
        let region = self.intent.region_of(address);
        self.intent.busy.borrow_mut()[region as usize] += 1;
        let busy = Busy { group: Rc::clone(self), region };
        if self.intent.bits.borrow_mut().set(region, true) {
            self.intent.pages.touch(Bitmap::page_of(region));
        }
        if !self.intent.durable.borrow().get(region) {
            self.persist_intent(Bitmap::page_of(region)).await?;
        }
        Ok(Some(busy))
    }

    pub(super) async fn persist_intent(self: &Rc<Self>, page: usize) -> Result<(), IoError> {
        let intent = &self.intent;
        intent
            .pages
            .persist(
                self,
                page,
                || {
                    // From now on the page on disk may lack what this snapshot lacks.
                    let bytes = intent.payload(page);
                    intent.durable.borrow_mut().keep(page, &bytes);
                    bytes
                },
                |bytes| intent.durable.borrow_mut().load(page, bytes),
            )
            .await
    }

    /// A flush begins that covers the regions written so far; answers whether there are any. One flush at a time.
    pub(super) fn begin_flushing(&self) -> bool {
        let regions = self.intent.unflushed.take();
        let any = !regions.is_empty();
        *self.intent.flushing.borrow_mut() = regions;
        any
    }

    /// It has ended; what one that failed was to cover is the next one's.
    pub(super) fn end_flushing(&self, well: bool) {
        let regions = self.intent.flushing.take();
        if !well {
            self.intent.unflushed.borrow_mut().extend(regions);
        }
    }

    /// Clears the bits of regions at rest: flushed since their last write, not written since the last sweep (unless `all`),
    /// not dirty, and nobody out who would need them (rules M2, M3).
    pub(crate) async fn sweep_intent(self: &Rc<Self>, all: bool) -> Result<(), IoError> {
        let recent = self.intent.recent.take();
        if self.keeps_intent() {
            return Ok(());
        }
        let pages: BTreeSet<usize> = {
            let mut bits = self.intent.bits.borrow_mut();
            let (busy, unflushed) = (self.intent.busy.borrow(), self.intent.unflushed.borrow());
            let flushing = self.intent.flushing.borrow();
            let is_durable = |r: &u64| !unflushed.contains(r) && !flushing.contains(r);
            let at_rest: Vec<u64> = bits
                .ones()
                .filter(|r| busy[*r as usize] == 0 && is_durable(r) && !self.intent.is_dirty(*r))
                .filter(|r| all || !recent.contains(r))
                .collect();
            for region in &at_rest {
                bits.set(*region, false);
                // A write that comes before the page is written must wait for the page after.
                self.intent.durable.borrow_mut().set(*region, false);
            }
            at_rest.into_iter().map(Bitmap::page_of).collect()
        };
        for page in pages {
            self.intent.pages.touch(page);
            self.persist_intent(page).await?;
        }
        Ok(())
    }
}
