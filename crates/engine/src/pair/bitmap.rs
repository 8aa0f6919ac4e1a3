//! The differential bitmap of a pair on disk: pages in stripes of the secondary's group.
//!
//! Owns how pages get there and back. Invariants: a page is written to the place that its newest copy is not in, so a torn write leaves the copy
//! before it; one write of pages is under way at a time; a page of which one copy cannot be read is not guessed from the other. The bitmap is as
//! redundant as the secondary's group, because every write of it goes through that group (`docs/decisions/0006-pair-bitmaps.md`).

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use super::bits::{Bits, Taken};
use crate::buf::Buf;
use crate::error::IoError;
use crate::format::page::{self, PageError, PageKind};
use crate::ids::{BLOCK_SIZE, Uuid};
use crate::runtime::Env;
use crate::sync::{Mutex, join_all};
use crate::volume::VolumeRt;

/// Pages read or written at once.
const PAGES_AT_ONCE: u64 = 128;

/// Where a page's newest copy is.
#[derive(Clone, Copy, Default)]
struct Newest {
    generation: u64,
    place: u64,
}

/// Bytes that the bitmap of a volume of `size` bytes takes: two places for each page.
pub(crate) fn bitmap_bytes(size: u64) -> u64 {
    2 * BLOCK_SIZE * Bits::new(size.div_ceil(BLOCK_SIZE)).pages()
}

/// The bitmap of one pair.
pub(crate) struct Bitmap<E: Env> {
    id: Uuid,
    /// The stripes that hold it, seen as a volume of the secondary's group.
    area: Rc<VolumeRt<E>>,
    pub(super) bits: RefCell<Bits>,
    newest: RefCell<BTreeMap<u64, Newest>>,
    turn: Mutex,
}

impl<E: Env> Bitmap<E> {
    /// A bitmap of `blocks` bits, none set; what lies in `area` was never written.
    pub(super) fn new(id: Uuid, area: Rc<VolumeRt<E>>, blocks: u64) -> Self {
        Self {
            id,
            area,
            bits: RefCell::new(Bits::new(blocks)),
            newest: RefCell::default(),
            turn: Mutex::default(),
        }
    }

    /// Reads what is on disk. What was read may not be durable: it counts as changed until it is written anew.
    pub(super) async fn load(&self) -> Result<(), IoError> {
        let pages = self.bits.borrow().pages();
        for first in (0..pages).step_by(PAGES_AT_ONCE as usize) {
            let numbers = first..(first + PAGES_AT_ONCE).min(pages);
            let places =
                [self.read(0, numbers.clone()).await?, self.read(1, numbers.clone()).await?];
            for (at, number) in numbers.enumerate() {
                let at = at * BLOCK_SIZE as usize;
                let mut candidates = Vec::new();
                for (place, bytes) in places.iter().enumerate() {
                    let bytes = &bytes[at..at + BLOCK_SIZE as usize];
                    match page::decode(bytes, PageKind::Differential, self.id, number) {
                        Ok(page) => {
                            candidates.push((page.generation, (place as u64, page.payload)))
                        }
                        // Blank or torn in the middle of a write that nobody relied on yet.
                        Err(PageError::Blank | PageError::Damaged | PageError::Foreign) => {}
                    }
                }
                if let Some((generation, (place, payload))) = page::newest(candidates) {
                    self.bits.borrow_mut().load(number, payload);
                    self.newest.borrow_mut().insert(number, Newest { generation, place });
                }
            }
        }
        Ok(())
    }

    async fn read(&self, place: u64, pages: Range<u64>) -> Result<Buf, IoError> {
        let (from, to) = (self.offset(place, pages.start), self.offset(place, pages.end));
        Ok(Buf::joined(self.area.read_home(from..to).await?))
    }

    /// Where a page lies: first all first places, then all second ones.
    fn offset(&self, place: u64, page: u64) -> u64 {
        (place * self.bits.borrow().pages() + page) * BLOCK_SIZE
    }

    /// Makes everything that changed durable, as it is now.
    pub(super) async fn persist_changed(&self) -> Result<(), IoError> {
        let _turn = self.turn.lock().await;
        if !self.bits.borrow().has_changed() {
            return Ok(()); // Whoever had the turn before wrote it.
        }
        let taken = self.bits.borrow_mut().take_changed();
        self.write(taken).await
    }

    /// Makes pages durable as they were when they were taken; they are given back if that fails.
    pub(super) async fn persist(&self, taken: Taken) -> Result<(), IoError> {
        let _turn = self.turn.lock().await;
        self.write(taken).await
    }

    async fn write(&self, taken: Taken) -> Result<(), IoError> {
        if taken.is_empty() {
            return Ok(());
        }
        let written = self.write_pages(&taken).await;
        if written.is_err() {
            self.bits.borrow_mut().give_back(&taken);
        }
        written
    }

    async fn write_pages(&self, taken: &Taken) -> Result<(), IoError> {
        let next = |number: &u64| match self.newest.borrow().get(number) {
            Some(newest) => Newest { generation: newest.generation + 1, place: 1 - newest.place },
            None => Newest { generation: 1, place: 0 },
        };
        let pages: Vec<(u64, Newest)> = taken.keys().map(|n| (*n, next(n))).collect();
        for some in pages.chunks(PAGES_AT_ONCE as usize) {
            let writes = some.iter().map(|(number, next)| {
                let kind = PageKind::Differential;
                let buf = page::encode(kind, self.id, *number, next.generation, &taken[number]);
                self.area.write_home(self.offset(next.place, *number), buf)
            });
            join_all(writes.collect::<Vec<_>>()).await.into_iter().collect::<Result<(), _>>()?;
        }
        self.area.group().flush().await?;
        self.newest.borrow_mut().extend(pages);
        Ok(())
    }
}
