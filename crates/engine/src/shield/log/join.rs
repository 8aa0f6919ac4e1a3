//! A leg made equal to the others while the log is in use (rule B7).
//!
//! Owns the copy. Invariants: the new leg takes every write from before the copy begins, and gives nothing until a counting configuration has
//! it in service; a slot is copied while nobody writes it; entries of this log that a returned leg holds from before are gone when it is equal.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use super::super::space::Copy;
use super::recover::read_table;
use super::{Log, PAGES_AT_ONCE};
use crate::buf::Buf;
use crate::drive::{Drive, Request, Timed};
use crate::error::IoError;
use crate::format::log::{LogEntry, LogShape, payload_crc};
use crate::ids::BLOCK_SIZE;
use crate::runtime::Env;
use crate::sync::{Hold, join_all};

/// Slots copied under one lock.
const SLOTS_AT_ONCE: u64 = 64;

impl<E: Env> Log<E> {
    /// Makes `leg` hold what the others do. It goes on taking what is written until it is in service, leaves or fails.
    pub(crate) async fn copy_to(&self, leg: &Rc<Drive<E>>) -> Result<(), IoError> {
        self.space.join(leg)?;
        let copied = self.fill(leg).await;
        if copied.is_ok() && self.space.is_joining(leg) {
            return Ok(());
        }
        self.space.leave(leg);
        copied.and(Err(IoError::Io))
    }

    async fn fill(&self, leg: &Rc<Drive<E>>) -> Result<(), IoError> {
        let (log, shape, end) = {
            let book = self.book.borrow();
            (book.log, book.shape, book.fresh())
        };
        let old = read_table(&Copy::Leg(Rc::clone(leg)), shape, log).await;
        for first in (1..end).step_by(SLOTS_AT_ONCE as usize) {
            let window = first..(first + SLOTS_AT_ONCE).min(end);
            let _still = self.slots.lock(window.clone(), Hold::Exclusive).await;
            let payloads = self.book.borrow().payloads(window);
            let copies = payloads.iter().map(|(slot, entry)| self.copy_slot(leg, *slot, entry));
            join_all(copies.collect::<Vec<_>>()).await.into_iter().collect::<Result<(), _>>()?;
        }
        let mut pages: BTreeSet<u64> = used_pages(end).collect();
        // The index and the mark follow with the flush, the mark also where nothing is used yet.
        self.book.borrow_mut().doubt_index(pages.iter().copied().chain([0]));
        pages.extend(old.entries.keys().map(|slot| LogShape::page_of(*slot)));
        pages.extend(old.unreadable);
        for some in pages.into_iter().collect::<Vec<_>>().chunks(PAGES_AT_ONCE as usize) {
            self.store(some.iter().copied().collect()).await?;
        }
        self.flush().await
    }

    /// One payload. What no copy gives any more the new leg does not get either.
    async fn copy_slot(
        &self,
        leg: &Rc<Drive<E>>,
        slot: u64,
        entry: &LogEntry,
    ) -> Result<(), IoError> {
        let at = self.book.borrow().shape.payload(slot);
        let Some(buf) = self.payload(at, entry).await else { return Ok(()) };
        match leg.write_data(at, buf).await {
            Timed::Done(result) => result.map_err(|_| IoError::Io),
            Timed::Late(request) => {
                leg.abandon(request, Request::Write);
                Err(IoError::Io)
            }
        }
    }

    /// A payload as its entry says, from any copy.
    async fn payload(&self, at: u64, entry: &LogEntry) -> Option<Buf> {
        for copy in self.space.copies() {
            if let Ok(buf) = copy.read(at, BLOCK_SIZE).await
                && payload_crc(&buf) == entry.payload
            {
                return Some(buf);
            }
        }
        None
    }
}

/// Pages with the entries of the slots below `end`.
fn used_pages(end: u64) -> Range<u64> {
    0..if end > 1 { LogShape::page_of(end - 1) + 1 } else { 0 }
}
