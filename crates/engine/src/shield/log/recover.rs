//! A log read back after a stop or a crash (rule B3).
//!
//! Owns the reading and the mending; what counts is decided in `decide.rs`. Invariant: what any copy lacks is written to it and flushed before anything
//! is served.

use std::collections::BTreeSet;
use std::ops::Range;
use std::rc::Rc;

use super::super::book::Book;
use super::super::space::{Copy, Space};
use super::decide::{Found, Table};
use super::{Log, PAGES_AT_ONCE};
use crate::error::IoError;
use crate::format::log::{
    ENTRIES_PER_PAGE, ENTRY_LEN, LogEntry, LogMark, LogShape, MARK_LEN, payload_crc,
};
use crate::ids::BLOCK_SIZE;
use crate::runtime::Env;

/// Why a log cannot be read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unrecovered {
    /// No copy can be written.
    Failed,
    /// The mark is damaged in both places of every copy.
    NoMark,
    /// What these slots hold is told nowhere.
    Slots(Vec<u64>),
}

impl<E: Env> Log<E> {
    /// Reads a log back: entries are merged over all copies, those that are not known to have been durable are believed only with a payload
    /// that fits, and what any copy lacks is written to it and flushed before anything is served.
    ///
    /// # Errors
    /// If something that it held cannot be told, or no copy can be written.
    pub(crate) async fn recover(id: u64, space: Space<E>) -> Result<Rc<Self>, Unrecovered> {
        let shape = LogShape::of(space.blocks()).ok_or(Unrecovered::Failed)?;
        let legs: Vec<_> = space.copies().iter().map(Copy::leg).collect();
        let found = read(&space, shape, id).await?;
        let weighed = found.weigh()?;
        let mut fits = Vec::new();
        for (slot, entry) in weighed.doubtful() {
            let payload = settle_payload(&space, shape, slot, &entry).await;
            if payload.map_err(|_| Unrecovered::Failed)? {
                fits.push((slot, entry));
            }
        }
        let chosen = weighed.choose(&fits);
        let repair = found.repairs(&chosen);
        let mark = LogMark { durable: weighed.durable, ..found.mark };
        let damaged = found.damaged(&chosen, weighed.durable);
        let damaged = legs.into_iter().zip(damaged).filter_map(|(leg, pages)| Some((leg?, pages)));
        let damaged = damaged.collect();
        let differs = found.marks_differ || mark != found.mark;
        let log = Self::with(space, Book::recovered(shape, mark, chosen));
        log.damaged.replace(damaged);
        if differs {
            log.book.borrow_mut().doubt_index([0]);
        }
        if !repair.is_empty() {
            log.book.borrow_mut().doubt_index(repair.iter().copied());
            log.store(repair).await.map_err(|_| Unrecovered::Failed)?;
        }
        log.flush().await.map_err(|_| Unrecovered::Failed)?;
        Ok(log)
    }
}

/// Whether a slot's payload is what its entry says; made alike on every copy if it is.
async fn settle_payload<E: Env>(
    space: &Space<E>,
    shape: LogShape,
    slot: u64,
    entry: &LogEntry,
) -> Result<bool, IoError> {
    let at = shape.payload(slot);
    let mut good = None;
    let mut alike = true;
    for copy in space.copies() {
        match copy.read(at, BLOCK_SIZE).await {
            Ok(buf) if payload_crc(&buf) == entry.payload => good = good.or(Some(buf)),
            _ => alike = false,
        }
    }
    match good {
        Some(buf) if !alike => space.write(at, buf).await.map(|()| true),
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

/// What each copy says. The index is read as far as the mark says that it goes.
async fn read<E: Env>(space: &Space<E>, shape: LogShape, id: u64) -> Result<Found, Unrecovered> {
    let copies = space.copies();
    let mut marks = Vec::new();
    for copy in &copies {
        for at in shape.marks() {
            let block = copy.read(at, BLOCK_SIZE).await.ok();
            marks.push(block.and_then(|block| LogMark::decode(&block[..MARK_LEN], id)));
        }
    }
    // Each place has an older mark or a newer one, and both are true.
    let newest = marks.iter().flatten().max_by_key(|mark| (mark.durable, mark.fresh));
    let mark = *newest.ok_or(Unrecovered::NoMark)?;
    let fresh = mark.fresh.clamp(1, shape.slots + 1);
    let mark = LogMark { fresh, ..mark };
    let indexed = (fresh - 1).div_ceil(ENTRIES_PER_PAGE);
    let (mut tables, mut indexes) = (Vec::new(), Vec::new());
    for copy in &copies {
        tables.push(read_table(copy, shape, id).await);
        indexes.push(read_pages(copy, shape, id, 0..indexed, |page| shape.index(page)).await);
    }
    let marks_differ = marks.iter().any(|other| *other != Some(mark));
    Ok(Found { mark, marks_differ, tables, indexes })
}

/// The table of log `id` on one copy.
pub(super) async fn read_table<E: Env>(copy: &Copy<E>, shape: LogShape, id: u64) -> Table {
    read_pages(copy, shape, id, 0..shape.pages, |page| shape.table(page)).await
}

async fn read_pages<E: Env>(
    copy: &Copy<E>,
    shape: LogShape,
    id: u64,
    pages: Range<u64>,
    place: impl Fn(u64) -> u64,
) -> Table {
    let mut table = Table::default();
    for page in pages.clone().step_by(PAGES_AT_ONCE as usize) {
        let run = page..(page + PAGES_AT_ONCE).min(pages.end);
        let bytes = match copy.read(place(page), (run.end - page) * BLOCK_SIZE).await {
            Ok(bytes) => bytes.to_vec(),
            Err(_) => read_page_by_page(copy, run, &place, &mut table.unreadable).await,
        };
        for (i, bytes) in bytes.chunks_exact(ENTRY_LEN).enumerate() {
            let slot = page * ENTRIES_PER_PAGE + i as u64 + 1;
            if slot <= shape.slots
                && let Some(entry) = LogEntry::decode(bytes, id)
            {
                table.entries.insert(slot, entry);
            }
        }
    }
    table
}

async fn read_page_by_page<E: Env>(
    copy: &Copy<E>,
    pages: Range<u64>,
    place: &impl Fn(u64) -> u64,
    unreadable: &mut BTreeSet<u64>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    for page in pages {
        match copy.read(place(page), BLOCK_SIZE).await {
            Ok(page) => bytes.extend_from_slice(&page),
            Err(_) => {
                unreadable.insert(page);
                bytes.extend([0; BLOCK_SIZE as usize]);
            }
        }
    }
    bytes
}
