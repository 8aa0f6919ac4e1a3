//! The shield of a volume: host writes go to backup storages while a member of its group is copied, and back home after.
//!
//! Owns the routing of one volume's blocks between home and its backups. Invariants: a block belongs to one backup at a time, and never
//! moves to one earlier in the chain (rule B1); what a write stored in a backup is marked before it is answered; a block is unmarked only
//! once home holds what is newer, and cleared on disk only once home is durable (rule B5). The caller holds the volume's block locks. What a
//! storage looks like is `backup.rs`'s matter; when a group is shielded, the array's; that "home" is both sides of a pair, or the secondary, the volume's.

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::{BLOCK_SIZE, VolumeNumber};
use crate::runtime::Env;
use crate::sync::join_all;
use crate::volume::VolumeRt;

mod backup;
mod book;
mod drain;
mod log;
mod space;

#[cfg(test)]
mod model;

pub(crate) use backup::Backup;
pub(crate) use drain::{DrainEnd, Unreadable};
use log::Refused;
pub(crate) use log::{Log, Unrecovered};
pub(crate) use space::{LegFailures, Space};

/// Where a run of blocks is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    Home,
    /// The backup at this place of the chain.
    Backup(usize),
}

/// The shield of one volume.
pub(crate) struct Shield<E: Env> {
    volume: VolumeNumber,
    /// Failures that redirected data has to survive (rule B6).
    tolerance: u32,
    /// New writes go to the backups; else home.
    redirect: Cell<bool>,
    chain: Vec<Backup<E>>,
    /// Blocks that went home since none of the backups had room for them.
    overflowed: Cell<u64>,
    /// They did so, and there is no room to speak of since.
    full: Cell<bool>,
    /// Blocks that had gone home at the last look for room.
    looked: Cell<u64>,
    /// Called when room gets scarce, once until a place is added.
    scarce: Rc<dyn Fn()>,
    told: Cell<bool>,
}

impl<E: Env> Shield<E> {
    pub(crate) fn new(
        volume: VolumeNumber,
        tolerance: u32,
        redirect: bool,
        chain: Vec<Backup<E>>,
        scarce: Rc<dyn Fn()>,
    ) -> Rc<Self> {
        Rc::new(Self {
            volume,
            tolerance,
            redirect: Cell::new(redirect),
            chain,
            overflowed: Cell::new(0),
            full: Cell::new(false),
            looked: Cell::new(0),
            scarce,
            told: Cell::new(false),
        })
    }

    /// Takes over what was counted under the shield that this one replaces: the chain of its backups has changed.
    pub(crate) fn goes_on_from(&self, before: &Self) {
        self.overflowed.set(before.overflowed());
        self.looked.set(before.overflowed());
    }

    /// Whether this is the shield over exactly these backups.
    pub(crate) fn is_over(&self, chain: &[Backup<E>]) -> bool {
        self.chain.len() == chain.len() && self.chain.iter().zip(chain).all(|(a, b)| a.is(b))
    }

    pub(crate) fn set_redirect(&self, redirect: bool) {
        self.redirect.set(redirect);
    }

    /// Blocks that are not home yet.
    pub(crate) fn marks(&self) -> u64 {
        self.chain.iter().map(|backup| backup.marks_of(self.volume)).sum()
    }

    /// Whether a byte range has a block that is not home.
    pub(crate) fn holds_any(&self, range: Range<u64>) -> bool {
        let blocks = range.start / BLOCK_SIZE..range.end.div_ceil(BLOCK_SIZE);
        self.next_marked(blocks).is_some()
    }

    /// Blocks that went home, written by hosts, since no backup had room for them.
    pub(crate) fn overflowed(&self) -> u64 {
        self.overflowed.get()
    }

    /// Whether writes go home for want of room: from the first that did until [`Shield::look_for_room`] finds some.
    pub(crate) fn is_full(&self) -> bool {
        self.full.get() && self.redirect.get()
    }

    /// Room is there again when a backup is not nearly full and nothing went past it since the last look: a large write may find no room
    /// where small ones do.
    pub(crate) fn look_for_room(&self) {
        let before = self.looked.replace(self.overflowed.get());
        if before == self.overflowed.get() && self.has_room() {
            self.full.set(false);
        }
    }

    /// Whether a backup takes more, and is not nearly full.
    fn has_room(&self) -> bool {
        self.chain.iter().any(|backup| !self.is_weakened(backup) && !backup.is_nearly_full())
    }

    /// Whether it is time for another backup: each of them is half full, or takes nothing.
    pub(crate) fn wants_more(&self) -> bool {
        let has_time = |b: &Backup<E>| !self.is_weakened(b) && !b.is_half_full();
        self.redirect.get() && !self.chain.iter().any(has_time)
    }

    fn next_marked(&self, blocks: Range<u64>) -> Option<u64> {
        self.next_marked_of(blocks, &|_| true)
    }

    fn next_marked_of(
        &self,
        blocks: Range<u64>,
        which: &dyn Fn(&Backup<E>) -> bool,
    ) -> Option<u64> {
        let backups = self.chain.iter().filter(|backup| which(backup));
        backups.filter_map(|backup| backup.next_marked(self.volume, blocks.clone())).min()
    }

    /// Whether a backup holds blocks less safely than home would (rule B7).
    pub(crate) fn is_weak(&self) -> bool {
        self.chain.iter().any(|backup| self.is_weakened(backup) && backup.marks_of(self.volume) > 0)
    }

    /// Whether a backup survives fewer failures than home (rule B6), or takes nothing more.
    pub(crate) fn is_weakened(&self, backup: &Backup<E>) -> bool {
        backup.spare_copies() < self.tolerance || !backup.takes_more()
    }

    /// Runs of blocks with one source each, in order.
    fn runs(&self, blocks: Range<u64>) -> Vec<(Range<u64>, Source)> {
        let mut marked = std::collections::BTreeMap::new();
        for (at, backup) in self.chain.iter().enumerate() {
            let here = backup.marked_in(self.volume, blocks.clone());
            marked.extend(here.into_iter().map(|block| (block, at)));
        }
        let mut runs: Vec<(Range<u64>, Source)> = Vec::new();
        let mut push = |range: Range<u64>, source| match runs.last_mut() {
            _ if range.is_empty() => {}
            Some((last, same)) if *same == source && last.end == range.start => {
                last.end = range.end;
            }
            _ => runs.push((range, source)),
        };
        let mut next = blocks.start;
        for (block, at) in marked {
            push(next..block, Source::Home);
            push(block..block + 1, Source::Backup(at));
            next = block + 1;
        }
        push(next..blocks.end, Source::Home);
        runs
    }

    /// Reads whole blocks; the buffers in order make up the range.
    pub(crate) async fn read(
        &self,
        home: &VolumeRt<E>,
        range: Range<u64>,
    ) -> Result<Vec<Buf>, IoError> {
        let blocks = range.start / BLOCK_SIZE..range.end / BLOCK_SIZE;
        let mut bufs = Vec::new();
        for (run, source) in self.runs(blocks) {
            match source {
                Source::Home => {
                    let bytes = run.start * BLOCK_SIZE..run.end * BLOCK_SIZE;
                    bufs.extend(home.read_kept(bytes).await?);
                }
                Source::Backup(at) => bufs.extend(self.chain[at].read(self.volume, run).await?),
            }
        }
        Ok(bufs)
    }

    /// Writes whole blocks.
    pub(crate) async fn write(
        &self,
        home: &VolumeRt<E>,
        offset: u64,
        data: Buf,
    ) -> Result<(), IoError> {
        let first = offset / BLOCK_SIZE;
        let blocks = first..first + data.len() as u64 / BLOCK_SIZE;
        for (run, source) in self.runs(blocks) {
            let at = ((run.start - first) * BLOCK_SIZE) as usize;
            let part = data.slice(at..at + ((run.end - run.start) * BLOCK_SIZE) as usize);
            self.store(home, run, source, Some(part)).await?;
        }
        Ok(())
    }

    /// Makes whole blocks zero.
    pub(crate) async fn zero(&self, home: &VolumeRt<E>, blocks: Range<u64>) -> Result<(), IoError> {
        for (run, source) in self.runs(blocks) {
            self.store(home, run, source, None).await?;
        }
        Ok(())
    }

    /// Stores a run that is at `source` now: in the first backup from there on that takes it, at last at home.
    async fn store(
        &self,
        home: &VolumeRt<E>,
        run: Range<u64>,
        source: Source,
        data: Option<Buf>,
    ) -> Result<(), IoError> {
        let from = match source {
            Source::Home => 0,
            Source::Backup(at) => at,
        };
        let mut full = false;
        if self.redirect.get() {
            for at in from..self.chain.len() {
                let backup = &self.chain[at];
                if self.is_weakened(backup) {
                    continue; // Rule B6.
                }
                match backup.store(self.volume, run.clone(), data.clone()).await {
                    Ok(()) => {
                        self.unmark_others(&run, Some(at));
                        if !self.told.get() && self.wants_more() {
                            self.told.set(true);
                            (self.scarce)();
                        }
                        return Ok(());
                    }
                    Err(refused) => full |= refused == Refused::Full,
                }
            }
        }
        if full {
            self.full.set(true);
            self.overflowed.set(self.overflowed.get() + run.end - run.start);
        }
        let bytes = run.start * BLOCK_SIZE..run.end * BLOCK_SIZE;
        match data {
            Some(data) => home.write_kept(bytes.start, data).await?,
            None => home.zero_kept(bytes).await?,
        }
        self.unmark_others(&run, None);
        Ok(())
    }

    fn unmark_others(&self, run: &Range<u64>, holder: Option<usize>) {
        for (at, backup) in self.chain.iter().enumerate() {
            if Some(at) != holder {
                backup.unmark(self.volume, run.clone());
            }
        }
    }

    /// Makes everything written so far durable, wherever it went (rules B1, B2, B5).
    pub(crate) async fn flush(&self, home: &VolumeRt<E>) -> Result<(), IoError> {
        // What was unmarked up to here was written home, or to another backup, before this flush.
        let covered: Vec<_> =
            self.chain.iter().map(|backup| backup.begin_flush(self.volume)).collect();
        let flushed = async {
            let asked = self.chain.iter().zip(&covered);
            let asked = asked.filter(|(backup, covered)| backup.matters(self.volume, covered));
            let stored = join_all(asked.map(|(backup, _)| backup.flush())).await;
            home.flush_kept().await?;
            stored.into_iter().collect::<Result<(), IoError>>()?;
            for (backup, covered) in self.chain.iter().zip(&covered) {
                backup.settle(self.volume, covered).await?;
            }
            Ok(())
        };
        let result = flushed.await;
        if result.is_err() {
            for (backup, covered) in self.chain.iter().zip(covered) {
                backup.give_back(self.volume, covered);
            }
        }
        result
    }
}
