//! A RAID group at work: members, their states, and the view that plans are made from.
//!
//! Owns the group's state in memory. Invariants: a slot is read only where its drive is known to be current (its main, or a filler
//! below the cursor outside stale regions); a member that failed is out for reads at once and out of the configuration
//! before a flush is answered (rule F1); no member is given up if data would go with it. Reading, writing, journaling, flushing, filling,
//! resyncing and scrubbing live in the modules below; committing is the array's matter.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::rc::Rc;

use crate::config::{GroupEntry, Level, SlotState};
use crate::disk::DiskFault;
use crate::drive::Drive;
use crate::error::IoError;
use crate::geometry::{Geometry, Role};
use crate::ids::{DiskNumber, GroupNumber, Slot, SlotSet, Stripe, Uuid};
use crate::plan::View;
use crate::runtime::{Env, Runtime};
use crate::sync::{Event, Mutex, RangeLocks, oneshot};

mod around;
mod bitmap;
mod checksums;
mod faulty;
mod fill;
mod first_write;
mod flush;
mod intent;
mod journal;
mod life;
mod lost;
mod owed;
mod pages;
mod ranges;
mod read;
mod regain;
mod resync;
mod scrub;
mod store;
mod unwritten;
mod write;

pub(crate) use fill::{FillEnd, Stale};
use intent::Intent;
use journal::Journal;
pub(crate) use life::Away;
use lost::Lost;
use pages::Pages;
pub(crate) use pages::{MissingPage, pages_in};
use unwritten::Unwritten;

/// What a slot consists of at this moment.
pub(crate) struct SlotRt<E: Env> {
    /// The disk in the slot as configured.
    pub(crate) disk: DiskNumber,
    /// Its committed state.
    pub(crate) state: SlotState,
    /// The trusted drive; `None` if there is none or it failed.
    pub(crate) main: Option<Rc<Drive<E>>>,
    /// The drive being filled: the slot's own disk while it is rebuilt or caught up, or a replacement.
    pub(crate) filler: Option<Rc<Drive<E>>>,
    /// The filler is current below this member address, but for `stale` regions (rule F4).
    pub(crate) cursor: u64,
    /// Ranges in which the filler is not current although they lie below the cursor (rules M3, M4).
    pub(crate) stale: Stale,
    /// Ranges below the cursor that the main could not read at once: the copy comes back to them at its end.
    pub(crate) deferred: Stale,
    /// A drive of this slot failed and the configuration that says so does not count yet.
    pub(crate) uncommitted: bool,
    /// Tells this filler's life from that of any before it, also of the same drive.
    pub(crate) filler_life: u64,
    /// A commit that makes the filler the main is under way: it can be spared no more than a main.
    pub(crate) swapping: bool,
}

impl<E: Env> SlotRt<E> {
    /// The cursor as it may stand on disk: after a start everything above it is copied again.
    fn settled_cursor(&self) -> u64 {
        self.deferred.first(1).map_or(self.cursor, |deferred| deferred.start.min(self.cursor))
    }

    fn filler_is_current(&self, address: u64) -> bool {
        self.filler.is_some()
            && address < self.cursor
            && !self.stale.contains(address)
            && !self.deferred.contains(address)
    }
}

/// What a failing drive means for its group.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It was given up and is to be committed out.
    Out,
    /// The same, and what it holds must not be believed again.
    Untrusted,
    /// It cannot be spared and stays.
    Needed,
}

/// Told of each drive that failed: the disk, the reason in words, and what it means.
pub(crate) type FailureSink = Rc<dyn Fn(DiskNumber, String, Trouble)>;

/// One RAID group.
pub(crate) struct Group<E: Env> {
    pub(crate) number: GroupNumber,
    pub(crate) uuid: Uuid,
    pub(crate) geometry: Geometry,
    rt: E::Runtime,
    slots: RefCell<Vec<SlotRt<E>>>,
    /// Member addresses being changed, or read together with their peers.
    rows: Rc<RangeLocks>,
    intent: Intent,
    unwritten: Unwritten,
    lost: Lost,
    cursors: Pages,
    /// What makes a crash together with a loss safe, if the group keeps one.
    journal: Option<Journal<E>>,
    /// Every block has a checksum (rules K).
    checksums: bool,
    checkpoints: RefCell<fill::Checkpoints>,
    flushes: flush::FlushGate,
    flush_turn: Mutex,
    filler_lives: Cell<u64>,
    sink: FailureSink,
    committed: Event,
    /// No commit can be had any more: waiting for one would be for ever.
    halted: Cell<bool>,
    /// The group is about to be deleted.
    closing: Cell<bool>,
    /// Tasks that go on after the request they came from was answered.
    background: Cell<u32>,
    /// What those of them mend that others met: slot, member address and length.
    mendings: RefCell<BTreeSet<(Slot, u64, usize)>>,
    /// Blocks that the last scrub could not have from anywhere.
    pub(crate) unreadable: Cell<u64>,
    /// Reads of hosts that nothing answered although enough members are there, since the last scrub or the start; and whether that was told.
    pub(crate) failed_reads: Cell<u64>,
    pub(crate) failed_reads_told: Cell<bool>,
    /// Rule C3: nothing is answered until an operator decides.
    paused: Cell<bool>,
    /// Slots not to be read while anything else gives the block.
    avoid: Cell<SlotSet>,
    /// The slot whose disk is being copied away: its filler is read first, it itself last.
    copied: Cell<Option<Slot>>,
    /// No member was there at the start, and not enough are back yet.
    away: Cell<Away>,
}

impl<E: Env> Group<E> {
    /// A group as configured, with no slots filled in yet.
    pub(crate) fn new(rt: E::Runtime, entry: &GroupEntry, sink: FailureSink) -> Rc<Self> {
        let geometry = Geometry::new(entry.level, entry.slots.len(), entry.chunk, entry.stripes)
            .expect("a decoded configuration holds valid groups");
        let member_len = entry.stripes * u64::from(entry.chunk);
        Rc::new(Self {
            number: entry.number,
            uuid: entry.uuid,
            geometry,
            rt,
            slots: RefCell::default(),
            rows: Rc::default(),
            intent: Intent::new(entry.intent_region, member_len.div_ceil(entry.intent_region)),
            unwritten: Unwritten::new(u64::from(entry.unwritten_unit), entry.stripes),
            lost: Lost::new(),
            cursors: Pages::new(crate::format::page::PageKind::Cursor, 1),
            journal: Journal::of(entry),
            checksums: entry.checksums,
            checkpoints: RefCell::new([0; crate::ids::MEMBERS_MAX]),
            flushes: flush::FlushGate::default(),
            flush_turn: Mutex::default(),
            filler_lives: Cell::new(0),
            sink,
            committed: Event::default(),
            halted: Cell::new(false),
            closing: Cell::new(false),
            background: Cell::new(0),
            mendings: RefCell::default(),
            unreadable: Cell::new(0),
            failed_reads: Cell::new(0),
            failed_reads_told: Cell::new(false),
            paused: Cell::new(false),
            avoid: Cell::default(),
            copied: Cell::default(),
            away: Cell::new(Away::Here),
        })
    }

    /// Bytes of each member's address space in use.
    pub(crate) fn member_len(&self) -> u64 {
        self.geometry.stripes() * u64::from(self.geometry.chunk())
    }

    /// Whether copies can differ after a crash, so that writes need intent bits (rule M2).
    fn has_redundancy(&self) -> bool {
        self.geometry.level() != Level::Raid0
    }

    /// Whether a write goes to more than one place: also a group without redundancy has two while a disk is copied.
    fn has_two_of_anything(&self) -> bool {
        self.has_redundancy() || self.slots.borrow().iter().any(|slot| slot.filler.is_some())
    }

    /// Whether a write is to be told of before it begins: it goes to two places, or leaves a block and its checksum apart when it is cut.
    pub(crate) fn needs_intent(&self) -> bool {
        self.has_two_of_anything() || self.checksums
    }

    fn has_parity(&self) -> bool {
        self.geometry.parity_columns() > 0
    }

    /// Runs `work` as a task of the engine and waits for it: it goes on to its end even if the waiting stops.
    async fn detached<T: 'static>(
        self: &Rc<Self>,
        work: impl Future<Output = Result<T, IoError>> + 'static,
    ) -> Result<T, IoError> {
        let (giver, taker) = oneshot();
        self.in_background(async move { giver.give(work.await) });
        taker.take().await.unwrap_or(Err(IoError::Stopped))
    }

    /// Runs `work` as a task of the engine.
    fn in_background(self: &Rc<Self>, work: impl Future<Output = ()> + 'static) {
        let group = Rc::clone(self);
        self.background.set(self.background.get() + 1);
        self.rt.spawn(Box::pin(async move {
            work.await;
            group.background.set(group.background.get() - 1);
            group.committed.notify();
        }));
    }

    // --- members ---------------------------------------------------------------------------------------------------

    /// Looks at the slots.
    pub(crate) fn with_slots<T>(&self, look: impl FnOnce(&[SlotRt<E>]) -> T) -> T {
        look(&self.slots.borrow())
    }

    /// Changes the slots as a counting configuration says, and tells those who waited for it.
    pub(crate) fn set_slots(&self, change: impl FnOnce(&mut Vec<SlotRt<E>>)) {
        change(&mut self.slots.borrow_mut());
        self.committed.notify();
    }

    /// Every drive that holds a part of the group and is relied on.
    pub(crate) fn drives_in_service(&self) -> Vec<Rc<Drive<E>>> {
        self.slots.borrow().iter().flat_map(|s| s.main.iter().chain(&s.filler)).cloned().collect()
    }

    /// Slots without a trusted drive.
    pub(crate) fn missing(&self) -> SlotSet {
        let slots = self.slots.borrow();
        (0..slots.len()).filter(|i| slots[*i].main.is_none()).map(|i| Slot(i as u8)).collect()
    }

    /// Slots whose trusted drive no longer answers and cannot be spared.
    pub(crate) fn silent(&self) -> SlotSet {
        let slots = self.slots.borrow();
        let silent = |s: &SlotRt<E>| s.main.as_ref().is_some_and(|m| m.is_silent());
        (0..slots.len()).filter(|i| silent(&slots[*i])).map(|i| Slot(i as u8)).collect()
    }

    /// Whether everything in the group can be had. Of a group without any member not even the maps are known.
    pub(crate) fn is_readable(&self) -> bool {
        self.geometry.still_whole(self.missing())
    }

    /// A read of a host was answered with an error: counted if nothing else tells why. Blocks that are listed lost are told as long as they are.
    pub(crate) fn note_failed_read(&self, error: IoError) {
        if error == IoError::Io && self.is_readable() && self.lost_blocks() == 0 {
            self.failed_reads.set(self.failed_reads.get() + 1);
        }
    }

    /// Whether everything in `slot` can be had from the others.
    pub(crate) fn can_rebuild(&self, slot: Slot) -> bool {
        self.geometry.still_whole(self.missing().with(slot))
    }

    /// How many more members may fail, whichever they are, before something of the group is gone.
    pub(crate) fn failures_left(&self) -> u32 {
        let missing = self.missing().or(self.silent());
        self.geometry.failures_left(missing)
    }

    /// Whether every block can be asked for: what does not read is then gone.
    pub(crate) fn answers(&self) -> bool {
        self.is_readable() && self.silent().is_empty()
    }

    /// Whether there is anything to compare.
    pub(crate) fn can_compare(&self) -> bool {
        self.has_redundancy()
    }

    pub(crate) fn has_filler(&self, slot: Slot) -> bool {
        self.slots.borrow()[usize::from(slot.0)].filler.is_some()
    }

    /// Bytes of a slot's filler that are current.
    pub(crate) fn filled_bytes(&self, slot: Slot) -> u64 {
        let slots = self.slots.borrow();
        let slot = &slots[usize::from(slot.0)];
        slot.cursor.min(self.member_len()) - slot.stale.bytes() - slot.deferred.bytes()
    }

    /// Whether a member is out, rebuilding or being re-added, so that intent bits must be kept (rule M2).
    fn keeps_intent(&self) -> bool {
        self.slots.borrow().iter().any(|s| s.main.is_none() || s.stale.bytes() > 0)
    }

    /// The slots' view of one range of rows of a stripe.
    fn view(&self, stripe: Stripe, rows: Range<u32>) -> View {
        let address = self.geometry.member_address(stripe, rows.start);
        let region = self.intent.region_of(address);
        let len = u64::from(rows.end - rows.start);
        let (mut readable, mut writable) = (SlotSet::EMPTY, SlotSet::EMPTY);
        let mut avoid = self.avoid.get();
        let copied = self.copied.get();
        for (i, slot) in self.slots.borrow().iter().enumerate() {
            if slot.main.is_some() || slot.filler_is_current(address) {
                let at = Slot(i as u8);
                writable = writable.with(at);
                let copy = slot.filler.as_ref().filter(|_| slot.filler_is_current(address));
                let read = if copied == Some(at) {
                    // The copy is read first, and what is known of the disk that is copied says nothing of it.
                    avoid = if copy.is_some() { avoid.without(at) } else { avoid.with(at) };
                    copy.or(slot.main.as_ref())
                } else {
                    slot.main.as_ref().or(copy)
                };
                if read.is_some_and(|d| d.owes_answer()) {
                    avoid = avoid.with(at);
                }
                if !self.lost.overlaps(at, address, len) {
                    readable = readable.with(at);
                }
            }
        }
        if self.has_parity() && self.intent.is_dirty(region) {
            // Parity of a dirty region may not match its data: it is an erasure until the resync has made it anew. With a data
            // member missing it cannot be made anew: it is all there is of that member, and is kept up.
            let parity: SlotSet = self
                .geometry
                .p_slot(stripe)
                .into_iter()
                .chain(self.geometry.q_slot(stripe))
                .collect();
            let data = SlotSet::first(self.geometry.members()).minus(parity);
            if data.minus(writable).is_empty() {
                readable = readable.minus(parity);
            }
        }
        View { readable, preferred: readable.minus(avoid), writable }
    }

    /// The drives that give and take `slot` at `address`: the main, and the filler where it is current.
    fn drives_at(&self, slot: Slot, address: u64) -> (Option<Rc<Drive<E>>>, Option<Rc<Drive<E>>>) {
        let slots = self.slots.borrow();
        let slot = &slots[usize::from(slot.0)];
        let filler = slot.filler_is_current(address);
        (slot.main.clone(), slot.filler.clone().filter(|_| filler))
    }

    /// Takes a drive out of the group if its data can be had without it, tells the array, and answers whether it is out.
    pub(crate) fn give_up(&self, drive: &Rc<Drive<E>>, reason: String) -> bool {
        match self.take_out(drive) {
            Out::Now => {
                (self.sink)(drive.number, reason, Trouble::Out);
                true
            }
            Out::Before => true,
            Out::Needed => {
                (self.sink)(drive.number, reason, Trouble::Needed);
                false
            }
        }
    }

    /// [`Group::give_up`] at an operator's word: the array knows already.
    pub(crate) fn give_up_by_operator(&self, drive: &Rc<Drive<E>>) -> bool {
        !matches!(self.take_out(drive), Out::Needed)
    }

    fn take_out(&self, drive: &Rc<Drive<E>>) -> Out {
        {
            let mut slots = self.slots.borrow_mut();
            let is = |d: &Option<Rc<Drive<E>>>| d.as_ref().is_some_and(|d| Rc::ptr_eq(d, drive));
            let Some(at) = slots.iter().position(|s| is(&s.main) || is(&s.filler)) else {
                return Out::Before;
            };
            if is(&slots[at].main) {
                let missing: SlotSet = (0..slots.len())
                    .filter(|i| *i == at || slots[*i].main.is_none())
                    .map(|i| Slot(i as u8))
                    .collect();
                if !self.geometry.still_whole(missing) {
                    return Out::Needed;
                }
                slots[at].main = None;
            } else {
                let without =
                    |i: usize| i == at && slots[i].swapping || slots[i].main.is_none() && i != at;
                let missing: SlotSet =
                    (0..slots.len()).filter(|i| without(*i)).map(|i| Slot(i as u8)).collect();
                if slots[at].swapping && !self.geometry.still_whole(missing) {
                    return Out::Needed;
                }
                slots[at].filler = None;
            }
            slots[at].uncommitted = true;
        }
        drive.retire();
        Out::Now
    }

    /// Takes a slot's main out although its data may go with it: what it holds must not be read any more.
    fn force_out(&self, slot: Slot, why: &str) {
        let main = {
            let slot = &mut self.slots.borrow_mut()[usize::from(slot.0)];
            slot.uncommitted |= slot.main.is_some();
            slot.main.take()
        };
        if let Some(drive) = main {
            drive.retire();
            (self.sink)(drive.number, why.into(), Trouble::Untrusted);
        }
    }

    /// The slot whose disk is being copied away, if one is.
    pub(crate) fn set_copied(&self, slot: Option<Slot>) {
        self.copied.set(slot);
    }

    /// Keeps hosts' reads off these slots where anything else gives the block.
    pub(crate) fn set_avoid(&self, slots: SlotSet) {
        self.avoid.set(slots);
    }

    /// Whether the group would lose data without `disk`.
    pub(crate) fn needs(&self, disk: DiskNumber) -> bool {
        let slots = self.slots.borrow();
        let at = slots.iter().position(|s| s.main.as_ref().is_some_and(|m| m.number == disk));
        let Some(at) = at else { return false };
        let gone = |i: &usize| *i == at || slots[*i].main.is_none();
        !self.geometry.still_whole((0..slots.len()).filter(gone).map(|i| Slot(i as u8)).collect())
    }

    /// Marks a slot whose filler is being made its main.
    pub(crate) fn set_swapping(&self, slot: Slot, swapping: bool) {
        self.slots.borrow_mut()[usize::from(slot.0)].swapping = swapping;
    }

    /// A number for the life of a filler that has just come.
    pub(crate) fn next_filler_life(&self) -> u64 {
        self.filler_lives.set(self.filler_lives.get() + 1);
        self.filler_lives.get()
    }

    /// A drive could not take or make durable a map page: it is failed if it can be spared.
    fn metadata_fault(&self, drive: &Rc<Drive<E>>, fault: DiskFault) {
        self.give_up(drive, format!("{fault} on writing the group's maps"));
    }

    /// Completes once every drive that was given up is out of the configuration too (rule F1).
    ///
    /// # Errors
    /// If that can never be: then nothing may be called durable any more.
    async fn failures_committed(&self) -> Result<(), IoError> {
        let pending = || self.slots.borrow().iter().any(|s| s.uncommitted);
        self.committed.wait_until(|| self.halted.get() || !pending()).await;
        if pending() { Err(IoError::Io) } else { Ok(()) }
    }

    /// Nothing can be committed any more; waiters go on, and find their drives missing.
    pub(crate) fn halt(&self) {
        self.halted.set(true);
        self.committed.notify();
    }

    /// Starts no more background work, or starts it again.
    pub(crate) fn close(&self, closing: bool) {
        self.closing.set(closing);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Completes when no background task is left.
    pub(crate) async fn settled(&self) {
        self.committed.wait_until(|| self.background.get() == 0).await;
    }

    /// Pauses or resumes all host I/O (rule C3).
    pub(crate) fn pause(&self, paused: bool) {
        self.paused.set(paused);
        self.committed.notify();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// Completes once the group may answer hosts.
    async fn answering(&self) {
        if self.paused.get() {
            self.committed.wait_until(|| !self.paused.get()).await;
        }
    }

    /// What `slot` is for in `stripe`, as an index into d0..dk-1, P, Q.
    fn column_index(&self, stripe: Stripe, slot: Slot) -> usize {
        match self.geometry.role(stripe, slot) {
            Role::Data(column) => column,
            Role::P => self.geometry.data_columns(),
            Role::Q => self.geometry.data_columns() + 1,
        }
    }
}

/// What became of taking a drive out.
enum Out {
    /// It is out by this.
    Now,
    /// It was out before.
    Before,
    /// It stays: data would go with it.
    Needed,
}
