//! Map pages on the members: written in turn to two places, newest generation read (rule M1).
//!
//! Owns generations and the ordering of page writes. Invariants: a page goes to the place that no drive's newest copy is in, so
//! drives that a crash left behind get that copy first; a page counts as durable only when it is written and
//! flushed on every drive of the group that is in service; a drive that cannot take it is failed first, so that it is committed out before
//! anybody relies on the page; a page at rest stands in both places; writers of one page take turns and one write serves all who waited. What the bits mean is
//! left to the maps.

use std::cell::RefCell;
use std::rc::Rc;

use super::Group;
use crate::buf::Buf;
use crate::disk::DiskFault;
use crate::drive::Drive;
use crate::error::IoError;
use crate::format::codec::crc32c;
use crate::format::layout::{Layout, Region};
use crate::format::page::{self, PageKind};
use crate::ids::{BLOCK_SIZE, DiskNumber, Uuid};
use crate::runtime::Env;
use crate::sync::{Event, join_all};

#[derive(Default)]
struct PageState {
    /// Generation last written.
    generation: u64,
    /// Counts changes in memory.
    wanted: u64,
    /// The change that is durable.
    durable: u64,
    writing: bool,
    /// Checksum of what the newest copy holds.
    newest: Option<u32>,
    /// Only the newest copy holds that: the other place has what was before.
    alone: bool,
    /// The generation when it was last looked whether the page rests.
    seen: u64,
    /// Drives whose newest copy is an older one, as a crash left them.
    behind: Option<Behind>,
}

/// Drives that missed the last write of a page, and what it wrote.
struct Behind {
    drives: Vec<DiskNumber>,
    generation: u64,
    payload: Vec<u8>,
}

/// The pages of one map of one group.
pub(super) struct Pages {
    kind: PageKind,
    states: RefCell<Vec<PageState>>,
    event: Event,
}

/// The two places of a disk that hold pages of `kind`.
fn places(layout: &Layout, kind: PageKind) -> [Region; 2] {
    match kind {
        PageKind::Intent => layout.intent,
        PageKind::Unwritten => layout.unwritten,
        PageKind::Lost => layout.lost,
        PageKind::Cursor => layout.cursors,
        PageKind::Differential => layout.differential,
    }
}

/// Pages of `kind` that a disk of this layout can hold.
pub(crate) fn pages_in(layout: &Layout, kind: PageKind) -> usize {
    (places(layout, kind)[0].len / BLOCK_SIZE) as usize
}

fn place(layout: &Layout, kind: PageKind, page: usize, generation: u64) -> u64 {
    places(layout, kind)[(generation % 2) as usize].offset + page as u64 * BLOCK_SIZE
}

impl Pages {
    pub(super) fn new(kind: PageKind, pages: usize) -> Self {
        Self {
            kind,
            states: RefCell::new((0..pages).map(|_| PageState::default()).collect()),
            event: Event::default(),
        }
    }

    pub(super) fn count(&self) -> usize {
        self.states.borrow().len()
    }

    /// The pages stand on every member at `generation`.
    pub(super) fn adopt(&self, generation: u64) {
        self.states.borrow_mut().iter_mut().for_each(|state| state.generation = generation);
    }

    /// Notes that `page` changed in memory and is to be persisted.
    pub(super) fn touch(&self, page: usize) {
        self.states.borrow_mut()[page].wanted += 1;
    }

    /// Whether a page changed since it was last durable.
    pub(super) fn is_stale(&self, page: usize) -> bool {
        let state = &self.states.borrow()[page];
        state.wanted > state.durable
    }

    /// Pages that changed since they were last durable.
    pub(super) fn stale(&self) -> Vec<usize> {
        let states = self.states.borrow();
        (0..states.len()).filter(|i| states[*i].wanted > states[*i].durable).collect()
    }

    /// Notes as changed every page at rest whose other place holds something older: written once more, it stands in both, and damage to either
    /// place of every drive takes nothing away. A page rests if it was not written since the last call, or at once if `all` do.
    pub(super) fn touch_alone(&self, all: bool) {
        for state in self.states.borrow_mut().iter_mut() {
            let rests = state.seen == state.generation || all;
            state.seen = state.generation;
            if state.alone && rests && !state.writing {
                state.wanted += 1;
            }
        }
    }

    /// Makes everything noted so far for `page` durable. `payload` is asked for the page's bytes when it is written, and
    /// `done` is told once they are durable.
    pub(super) async fn persist<E: Env>(
        &self,
        group: &Rc<Group<E>>,
        page: usize,
        payload: impl Fn() -> Vec<u8>,
        done: impl Fn(&[u8]),
    ) -> Result<(), IoError> {
        let target = self.states.borrow()[page].wanted;
        loop {
            self.event.wait_until(|| !self.states.borrow()[page].writing).await;
            let (version, generation) = {
                let state = &mut self.states.borrow_mut()[page];
                if state.durable >= target {
                    return Ok(());
                }
                state.writing = true;
                (state.wanted, state.generation + 1)
            };
            self.catch_up(group, page).await;
            let bytes = payload();
            let written = self.write_everywhere(group, page, generation, &bytes).await;
            {
                let state = &mut self.states.borrow_mut()[page];
                state.writing = false;
                // What no drive took is written to the same place again: the other one holds the last page that can be relied on.
                if written.is_ok() {
                    state.generation = generation;
                    state.durable = state.durable.max(version);
                    let sum = Some(crc32c(&bytes));
                    state.alone = std::mem::replace(&mut state.newest, sum) != sum;
                }
            }
            if written.is_ok() {
                done(&bytes);
            }
            self.event.notify();
            written?;
        }
    }

    /// Gives drives that lack the last generation of a page just that: its place is the one that their newest copy is not in. The next one goes to
    /// the other place, and were that torn too, they would hold none at all (rule M1).
    async fn catch_up<E: Env>(&self, group: &Rc<Group<E>>, page: usize) {
        let behind = self.states.borrow_mut()[page].behind.take();
        let Some(behind) = behind else { return };
        let mut drives = group.drives_in_service();
        drives.retain(|drive| behind.drives.contains(&drive.number));
        self.write_to(&drives, group, page, behind.generation, &behind.payload).await;
    }

    async fn write_everywhere<E: Env>(
        &self,
        group: &Rc<Group<E>>,
        page: usize,
        generation: u64,
        payload: &[u8],
    ) -> Result<(), IoError> {
        let drives = group.drives_in_service();
        let stored = self.write_to(&drives, group, page, generation, payload).await;
        group.failures_committed().await?;
        if stored == 0 { Err(IoError::Io) } else { Ok(()) }
    }

    /// Writes a page to these drives; one that does not take it fails. Answers how many took it.
    async fn write_to<E: Env>(
        &self,
        drives: &[Rc<Drive<E>>],
        group: &Rc<Group<E>>,
        page: usize,
        generation: u64,
        payload: &[u8],
    ) -> usize {
        let buf = page::encode(self.kind, group.uuid, page as u64, generation, payload);
        let results = join_all(
            drives.iter().map(|drive| self.write_one(group, drive, page, generation, buf.clone())),
        )
        .await;
        let mut stored = 0;
        for (drive, result) in drives.iter().zip(results) {
            match result {
                Ok(()) => stored += 1,
                Err(fault) => group.metadata_fault(drive, fault),
            }
        }
        stored
    }

    /// What each page's two places on a drive hold, read in large requests.
    async fn held_on<E: Env>(&self, group: Uuid, drive: &Rc<Drive<E>>) -> Vec<OnDrive> {
        let mut held = vec![OnDrive::default(); self.count()];
        for region in places(&drive.layout, self.kind) {
            for first in (0..self.count()).step_by(PAGES_AT_ONCE) {
                let count = PAGES_AT_ONCE.min(self.count() - first);
                for (page, bytes) in (first..).zip(read_pages(drive, region, first, count).await) {
                    let Some(bytes) = bytes else { continue };
                    if let Ok(found) = page::decode(&bytes, self.kind, group, page as u64) {
                        held[page].add((found.generation, found.payload.to_vec()));
                    }
                }
            }
        }
        held
    }

    async fn write_one<E: Env>(
        &self,
        group: &Group<E>,
        drive: &Rc<Drive<E>>,
        page: usize,
        generation: u64,
        buf: Buf,
    ) -> Result<(), DiskFault> {
        let at = place(&drive.layout, self.kind, page, generation);
        let give_up = || {
            group.give_up(
                drive,
                "it did not answer in time when the group's maps were written".into(),
            )
        };
        drive.write_meta_or(at, buf, give_up).await?;
        let flushed = group.flush_drive(drive).await;
        if let Err(fault) = flushed {
            group.flush_failed(drive, format!("{fault} on flushing the group's maps"));
        }
        flushed
    }

    /// Writes every page to a drive that joins the group, before it counts as in service. Answers the generations written;
    /// pages that went on meanwhile are brought up to date by [`Pages::touch_newer`] once it has joined.
    pub(super) async fn copy_to<E: Env>(
        &self,
        group: Uuid,
        drive: &Rc<Drive<E>>,
        payload: impl Fn(usize) -> Vec<u8>,
    ) -> Result<Vec<u64>, DiskFault> {
        let mut generations = Vec::new();
        for page in 0..self.count() {
            self.event.wait_until(|| !self.states.borrow()[page].writing).await;
            let generation = self.states.borrow()[page].generation.max(1);
            // Both places, so that nothing older that happens to lie there is ever taken for this group's.
            for generation in [generation - 1, generation] {
                let buf = page::encode(self.kind, group, page as u64, generation, &payload(page));
                drive.write_meta(place(&drive.layout, self.kind, page, generation), buf).await?;
            }
            if let Some(behind) = &mut self.states.borrow_mut()[page].behind {
                behind.drives.retain(|number| *number != drive.number);
            }
            generations.push(generation);
        }
        Ok(generations)
    }

    /// Notes as changed every page that has been written since `copy_to` answered `copied`.
    pub(super) fn touch_newer(&self, copied: &[u64]) {
        for (state, copied) in self.states.borrow_mut().iter_mut().zip(copied) {
            if state.generation > *copied || state.writing {
                state.wanted += 1;
            }
        }
    }

    /// Reads the newest generation of each page among `drives` and hands its payload to `take`. A page that not every drive holds
    /// alike, or of which a place was damaged, is noted as changed, so that it is written to all before anybody relies on it. A page that no
    /// drive holds is an error: it was written when the group was made, in both places.
    pub(super) async fn load<E: Env>(
        &self,
        group: Uuid,
        drives: &[Rc<Drive<E>>],
        mut take: impl FnMut(usize, &[u8]),
    ) -> Result<(), MissingPage> {
        let mut on_drives = Vec::new();
        for drive in drives {
            on_drives.push(self.held_on(group, drive).await);
        }
        for page in 0..self.count() {
            let whole = on_drives.iter().all(|on| on[page].places == 2);
            let alone = !on_drives.iter().all(|on| on[page].twice);
            let held: Vec<Option<Held>> =
                on_drives.iter_mut().map(|on| on[page].newest.take()).collect();
            let best = page::newest(held.iter().flatten().cloned());
            let (generation, payload) = best.ok_or(MissingPage { kind: self.kind, page })?;
            let alike = held.iter().all(|h| h.as_ref() == Some(&(generation, payload.clone())));
            {
                let state = &mut self.states.borrow_mut()[page];
                (state.generation, state.alone) = (generation, alone);
                state.newest = Some(crc32c(&payload));
                state.wanted += u64::from(!alike || !whole);
                state.behind = behind(drives, &held, generation, &payload);
            }
            take(page, &payload);
        }
        Ok(())
    }
}

/// The drives whose newest copy in `held` is older than `generation`.
fn behind<E: Env>(
    drives: &[Rc<Drive<E>>],
    held: &[Option<Held>],
    generation: u64,
    payload: &[u8],
) -> Option<Behind> {
    let older = |held: &Option<Held>| held.as_ref().is_none_or(|held| held.0 < generation);
    let of_older = drives.iter().zip(held).filter(|(_, held)| older(held));
    let drives: Vec<DiskNumber> = of_older.map(|(drive, _)| drive.number).collect();
    (!drives.is_empty()).then(|| Behind { drives, generation, payload: payload.to_vec() })
}

/// A page's generation and payload.
type Held = (u64, Vec<u8>);

/// What a drive holds of a page.
#[derive(Clone, Default)]
struct OnDrive {
    newest: Option<Held>,
    /// How many of its two places can be read.
    places: usize,
    /// Both hold the same payload.
    twice: bool,
}

impl OnDrive {
    fn add(&mut self, found: Held) {
        self.places += 1;
        self.twice = self.newest.as_ref().is_some_and(|other| other.1 == found.1);
        self.newest = page::newest(self.newest.take().into_iter().chain([found]));
    }
}

/// Pages read in one request.
const PAGES_AT_ONCE: usize = (1 << 20) / BLOCK_SIZE as usize;

/// So many pages of a region; one that cannot be read is `None`.
async fn read_pages<E: Env>(
    drive: &Rc<Drive<E>>,
    region: Region,
    first: usize,
    count: usize,
) -> Vec<Option<Buf>> {
    let block = BLOCK_SIZE as usize;
    let at = |page: usize| region.offset + page as u64 * BLOCK_SIZE;
    if let Ok(bytes) = drive.read_meta(at(first), (count * block) as u64).await {
        return (0..count).map(|i| Some(bytes.slice(i * block..(i + 1) * block))).collect();
    }
    let mut pages = Vec::new();
    for page in first..first + count {
        pages.push(drive.read_meta(at(page), BLOCK_SIZE).await.ok());
    }
    pages
}

/// A map page that none of a group's drives can give.
#[derive(Debug)]
pub(crate) struct MissingPage {
    /// Of which map.
    pub(crate) kind: PageKind,
    /// Which page.
    pub(crate) page: usize,
}
