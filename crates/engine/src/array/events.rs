//! The event log: what happened to the array, kept across restarts.
//!
//! Owns the list in memory and its ring on every disk in service. Invariants: sequences only grow; the ring is a record for
//! people, so it is written without being waited for and no state depends on it; the newest copy found wins.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::Array;
use crate::drive::Drive;
use crate::format::events::{decode_page, encode_page};
use crate::ids::{BLOCK_SIZE, DiskNumber, GroupNumber, Uuid};
use crate::report::{Event, Severity};
use crate::runtime::{Env, Runtime};
use crate::sync::{self, join_all};

/// Events kept in memory.
const KEPT: usize = 4096;

#[derive(Default)]
pub(super) struct EventLog {
    events: RefCell<Vec<Event>>,
    /// Events of the page being filled.
    page: RefCell<Vec<Event>>,
    page_sequence: Cell<u64>,
    last: Cell<u64>,
    arrived: sync::Event,
    writing: Cell<bool>,
    /// The last sequence that was written to the disks.
    stored: Cell<u64>,
    idle: sync::Event,
}

impl<E: Env> Array<E> {
    /// Records an event and has it written in the background.
    pub(super) fn event(
        &self,
        severity: Severity,
        kind: &str,
        disk: Option<DiskNumber>,
        group: Option<GroupNumber>,
        message: String,
    ) {
        let sequence = self.log.last.get() + 1;
        self.log.last.set(sequence);
        let event = Event {
            sequence,
            at_ms: self.rt.unix_ms(),
            severity,
            kind: kind.into(),
            disk,
            group,
            message,
        };
        let mut events = self.log.events.borrow_mut();
        events.push(event);
        let surplus = events.len().saturating_sub(KEPT);
        events.drain(..surplus);
        drop(events);
        self.log.arrived.notify();
    }

    /// Writes events to the disks as they come; runs until the array stops.
    pub(super) async fn keep_log(self: Rc<Self>) {
        while !self.stopping.get() {
            self.log
                .arrived
                .wait_until(|| self.log.last.get() > self.log.stored.get() || self.stopping.get())
                .await;
            self.log_written().await;
        }
    }

    /// Completes when all events so far are on the disks.
    pub(super) async fn log_written(self: &Rc<Self>) {
        self.log.idle.wait_until(|| !self.log.writing.replace(true)).await;
        while self.log.stored.get() < self.log.last.get() {
            let (after, upto) = (self.log.stored.get(), self.log.last.get());
            self.log.page.borrow_mut().extend(self.events_after(after));
            self.log.stored.set(upto);
            self.write_pages().await;
        }
        self.log.writing.set(false);
        self.log.idle.notify();
    }

    async fn write_pages(self: &Rc<Self>) {
        let array = self.config.borrow().array;
        loop {
            let pending = self.log.page.borrow().clone();
            if pending.is_empty() {
                return;
            }
            let sequence = self.log.page_sequence.get();
            let (buf, fitted) = encode_page(array, sequence, &pending);
            let drives: Vec<Rc<Drive<E>>> =
                self.drives.borrow().values().filter(|d| !d.is_gone()).cloned().collect();
            join_all(drives.iter().map(|drive| {
                let ring = drive.layout.events;
                // A page that a disk could not take is not missed: the log is a record, not state.
                drive.write_meta(ring.block(sequence % ring.blocks()), buf.clone())
            }))
            .await;
            if fitted == pending.len() {
                return;
            }
            self.log.page.borrow_mut().drain(..fitted);
            self.log.page_sequence.set(sequence + 1);
        }
    }

    /// Reads the newest copy of the log among the open drives; what happened at this start before comes behind it.
    pub(super) async fn load_log(self: &Rc<Self>) {
        let array = self.config.borrow().array;
        let drives: Vec<Rc<Drive<E>>> = self.drives.borrow().values().cloned().collect();
        let mut pages = std::collections::BTreeMap::new();
        for drive in drives {
            for (sequence, events) in read_ring(&drive, array).await {
                let known = pages.entry(sequence).or_insert_with(Vec::new);
                if events.len() > known.len() {
                    *known = events;
                }
            }
        }
        let mut all: Vec<Event> = pages
            .into_iter()
            .flat_map(|(page, events)| {
                self.log.page_sequence.set(page + 1);
                events
            })
            .collect();
        all.sort_by_key(|e| e.sequence);
        all.dedup_by_key(|e| e.sequence);
        let last = all.last().map_or(0, |e| e.sequence);
        // What this start has told of already comes after what earlier ones did, and is written with what follows.
        let mut told = self.log.events.take();
        for (event, sequence) in told.iter_mut().zip(last + 1..) {
            event.sequence = sequence;
        }
        self.log.last.set(last + told.len() as u64);
        self.log.stored.set(last);
        all.extend(told);
        *self.log.events.borrow_mut() = all;
    }

    /// Kept events with a sequence above `after`, oldest first.
    pub fn events_after(&self, after: u64) -> Vec<Event> {
        self.log.events.borrow().iter().filter(|e| e.sequence > after).cloned().collect()
    }

    /// Completes when there is an event with a sequence above `after`, or when the array stops.
    pub async fn wait_event(self: &Rc<Self>, after: u64) {
        self.log.arrived.wait_until(|| self.log.last.get() > after).await;
    }
}

async fn read_ring<E: Env>(drive: &Rc<Drive<E>>, array: Uuid) -> Vec<(u64, Vec<Event>)> {
    let ring = drive.layout.events;
    let Ok(bytes) = drive.read_meta(ring.offset, ring.len).await else { return Vec::new() };
    bytes
        .chunks_exact(BLOCK_SIZE as usize)
        .filter_map(|block| decode_page(block, array).ok())
        .map(|page| (page.sequence, page.events))
        .collect()
}
