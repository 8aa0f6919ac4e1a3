//! Filling a drive: rebuilding a failed member, copying one to its replacement, catching a returned one up.
//!
//! Owns the copy cursor. Invariants: the cursor moves only under the row lock of what was just copied; it is persisted only after the
//! filled drive was flushed (rule A2); below it the drive is in service (rule F4), but for stale ranges, which are copied
//! first (rules M3, M4). Unwritten units are skipped (rule M6); a block that nothing gives is entered as lost and the
//! copy goes on (rule M5). Putting the drive in the member's place is the array's commit.

use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::around::Unread;
use super::ranges::Ranges;
use crate::buf::Buf;
use crate::disk::FaultKind;
use crate::drive::Drive;
use crate::error::IoError;
use crate::format::page::encode_cursors;
use crate::ids::{BLOCK_SIZE, MEMBERS_MAX, Slot, SlotSet, Stripe};
use crate::progress::Progress;
use crate::runtime::Env;
use crate::sync::{Hold, RangeGuard, both, join_all};

/// Bytes of member address space copied under one row lock.
const WINDOW: u64 = 1 << 20;

/// Bytes between two checkpoints, unless the member is small.
const CHECKPOINT: u64 = 64 << 20;

/// Bytes of a request where a large one did not go through.
const SMALL: u64 = 64 << 10;

/// How a fill ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum FillEnd {
    /// The drive holds everything (but lost blocks) and is flushed.
    Done,
    /// The drive being filled failed or was taken away.
    TargetFailed,
    /// Too many of the others do not answer.
    SourcesFailed(String),
    /// Somebody asked for it.
    Stopped,
}

/// Ranges of member addresses in which a drive is not current.
#[derive(Clone, Default, Debug)]
pub(crate) struct Stale(Ranges);

impl Stale {
    /// The regions `regions` of `region_len` bytes below `end`.
    pub(crate) fn of_regions(
        regions: impl IntoIterator<Item = u64>,
        region_len: u64,
        end: u64,
    ) -> Self {
        let range = |region: u64| region * region_len..((region + 1) * region_len).min(end);
        Self(regions.into_iter().map(range).collect())
    }

    pub(crate) fn contains(&self, address: u64) -> bool {
        self.0.contains(address)
    }

    /// The first stale range, cut to `max` bytes.
    pub(super) fn first(&self, max: u64) -> Option<Range<u64>> {
        self.0.iter().next().map(|range| range.start..range.end.min(range.start + max))
    }

    /// The front of the first range was copied.
    fn copied(&mut self, done: &Range<u64>) {
        debug_assert_eq!(self.0.iter().next().map(|range| range.start), Some(done.start));
        self.0.remove(done.clone());
    }

    /// Adds a range.
    fn add(&mut self, range: Range<u64>) {
        self.0.insert(range);
    }

    /// Bytes that are stale.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.count()
    }
}

/// Why a window is copied.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    /// It is stale.
    Stale,
    /// It comes next.
    Next,
    /// It could not be read at once.
    Deferred,
}

/// A window under its row lock, read and not written yet.
struct Window {
    rows: Range<u64>,
    turn: Turn,
    guard: RangeGuard,
    /// Its parts that hold something; without bytes where a large request did not go through.
    parts: Vec<(Range<u64>, Option<Buf>)>,
}

impl Window {
    /// Bytes that are to be written, at most.
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|(run, _)| run.end - run.start).sum()
    }
}

/// Why a window was not copied.
enum Broken {
    Target,
    Sources(String),
}

impl<E: Env> Group<E> {
    /// Fills the slot's filler to its end. The slot's main, if it has one, is read first; else the peers.
    pub(crate) async fn fill(self: &Rc<Self>, slot: Slot, progress: &Progress) -> FillEnd {
        let at = usize::from(slot.0);
        let (target, life, copies) = {
            let slots = self.slots.borrow();
            let Some(target) = slots[at].filler.clone() else { return FillEnd::TargetFailed };
            (target, slots[at].filler_life, slots[at].main.is_some())
        };
        self.owes_nothing(target.number); // What it held is written over.
        // The same drive may fail and come back while something is awaited: that is another filler.
        let alive = || {
            let slots = self.slots.borrow();
            slots[at].filler.is_some() && slots[at].filler_life == life
        };
        let mut copied_since = 0;
        let mut ahead: Option<Window> = None;
        let checkpoint_every = CHECKPOINT.min(self.member_len() / 16).max(WINDOW);
        loop {
            if progress.stop.get() {
                return FillEnd::Stopped;
            }
            let window = match ahead.take() {
                Some(window) => window,
                None => {
                    let Some((rows, turn)) = self.next_window(slot) else { break };
                    if self.make_whole_before_copy(&rows).await.is_err() {
                        return FillEnd::SourcesFailed(
                            "what was being written at the last stop could not be made whole"
                                .into(),
                        );
                    }
                    let guard = self.rows.lock(rows.clone(), Hold::Exclusive).await;
                    self.read_window(slot, rows, turn, guard).await
                }
            };
            if !alive() {
                return FillEnd::TargetFailed;
            }
            // While it is written the next one is read, unless something comes between the two.
            let rests = progress.is_limited() || copied_since + window.bytes() >= checkpoint_every;
            let next = if rests { None } else { self.claim_after(slot, &window) };
            let written = self.write_window(slot, &target, window, progress, &alive);
            let read = async {
                let (rows, guard) = next?;
                Some(self.read_window(slot, rows, Turn::Next, guard).await)
            };
            let (written, read) = both(written, read).await;
            ahead = read;
            let moved = match written {
                Ok(moved) => moved,
                Err(Broken::Target) => return FillEnd::TargetFailed,
                Err(Broken::Sources(why)) => return FillEnd::SourcesFailed(why),
            };
            copied_since += moved;
            if progress.is_limited() {
                ahead = None; // The limit is new: no row is held while the copy waits, and the window is read again.
            }
            if copied_since >= checkpoint_every {
                copied_since = 0;
                if self.checkpoint(slot, &target, &alive).await.is_err() {
                    return FillEnd::TargetFailed;
                }
            }
            progress.pace_unless(&self.rt, moved, || copies && self.misses_a_member()).await;
        }
        // From the commit that makes the drive the slot's own, its journal counts: nothing from before it took part may be replayed (rule J5).
        if self.flush().await.is_err() || self.empty_journal().await.is_err() {
            return FillEnd::SourcesFailed("the group could not be flushed".into());
        }
        if alive() { FillEnd::Done } else { FillEnd::TargetFailed }
    }

    /// What to copy next: stale ranges first, then from the cursor on, at last what could not be read at once.
    fn next_window(&self, slot: Slot) -> Option<(Range<u64>, Turn)> {
        let slots = self.slots.borrow();
        let rt = &slots[usize::from(slot.0)];
        if let Some(stale) = rt.stale.first(WINDOW) {
            return Some((stale, Turn::Stale));
        }
        let end = self.member_len();
        if rt.cursor < end {
            return Some((rt.cursor..(rt.cursor + WINDOW).min(end), Turn::Next));
        }
        Some((rt.deferred.first(WINDOW)?, Turn::Deferred))
    }

    /// The rows after a window, locked, if they come next and nobody has to be waited for. Where hosts' requests reach the group, their turn is between
    /// a window and the next.
    fn claim_after(
        self: &Rc<Self>,
        slot: Slot,
        window: &Window,
    ) -> Option<(Range<u64>, RangeGuard)> {
        let hosts = self.copied.get().is_none() && self.is_at_work();
        let start = window.rows.end;
        let rows = start..(start + WINDOW).min(self.member_len());
        let is_stale = self.slots.borrow()[usize::from(slot.0)].stale.bytes() > 0;
        let follows = window.turn == Turn::Next && !is_stale && !rows.is_empty();
        if hosts || !follows || !self.is_whole_to_copy(&rows) {
            return None;
        }
        let guard = self.rows.try_lock(rows.clone(), Hold::Exclusive)?;
        Some((rows, guard))
    }

    /// Whether a member has a request under way.
    fn is_at_work(&self) -> bool {
        self.slots.borrow().iter().any(|s| s.main.as_ref().is_some_and(|main| main.is_busy()))
    }

    /// Reads a window in the requests in which it is copied, one after the other.
    async fn read_window(
        self: &Rc<Self>,
        slot: Slot,
        rows: Range<u64>,
        turn: Turn,
        guard: RangeGuard,
    ) -> Window {
        let mut parts = Vec::new();
        for run in self.pieces_of(rows.clone(), turn) {
            let buf = self.copy_whole(slot, &run).await;
            parts.push((run, buf));
        }
        Window { rows, turn, guard, parts }
    }

    /// Writes what was read of a window and what is to be had of the rest, and moves the cursor. Answers how many bytes were written.
    async fn write_window(
        self: &Rc<Self>,
        slot: Slot,
        target: &Rc<Drive<E>>,
        window: Window,
        progress: &Progress,
        alive: &impl Fn() -> bool,
    ) -> Result<u64, Broken> {
        let Window { rows, turn, guard, parts } = window;
        let mut moved = 0;
        for (run, buf) in parts {
            let buf = match buf {
                Some(buf) => buf,
                None if turn == Turn::Next && self.reads_the_main(slot, &run) => {
                    // An ailing disk is not dwelt upon: first all that it reads well, in large requests.
                    self.slots.borrow_mut()[usize::from(slot.0)].deferred.add(run);
                    continue;
                }
                None => self.copy_blocks(slot, &run, progress).await?,
            };
            moved += buf.len() as u64;
            if let Err(fault) = self.write_drive(target, slot, run.start, buf).await {
                self.give_up(
                    target,
                    format!("{fault} on write at {} of its data space", run.start),
                );
                return Err(Broken::Target);
            }
        }
        if !alive() {
            return Err(Broken::Target);
        }
        {
            let rt = &mut self.slots.borrow_mut()[usize::from(slot.0)];
            match turn {
                Turn::Stale => rt.stale.copied(&rows),
                Turn::Next => rt.cursor = rows.end,
                Turn::Deferred => rt.deferred.copied(&rows),
            }
            let behind = rt.stale.bytes() + rt.deferred.bytes();
            progress.done.set(rt.cursor.min(self.member_len()) - behind);
        }
        drop(guard);
        Ok(moved)
    }

    /// The requests in which a window is copied: large ones, and smaller ones where a large one did not go through.
    fn pieces_of(&self, window: Range<u64>, turn: Turn) -> Vec<Range<u64>> {
        let runs = self.written_runs(window);
        if turn != Turn::Deferred {
            return runs;
        }
        let cut = |run: Range<u64>| {
            let end = run.end;
            run.step_by(SMALL as usize).map(move |at| at..(at + SMALL).min(end))
        };
        runs.into_iter().flat_map(cut).collect()
    }

    /// Whether a run is copied from the slot's own disk, and nothing of it is lost.
    fn reads_the_main(&self, slot: Slot, run: &Range<u64>) -> bool {
        self.slots.borrow()[usize::from(slot.0)].main.is_some()
            && !self.lost.overlaps(slot, run.start, run.end - run.start)
    }

    /// Parts of a window that hold something.
    pub(super) fn written_runs(&self, window: Range<u64>) -> Vec<Range<u64>> {
        let chunk = u64::from(self.geometry.chunk());
        let mut runs: Vec<Range<u64>> = Vec::new();
        for stripe in window.start / chunk..window.end.div_ceil(chunk) {
            if self.unwritten.reads_zero(Stripe(stripe)) {
                continue;
            }
            let rows = (stripe * chunk).max(window.start)..((stripe + 1) * chunk).min(window.end);
            match runs.last_mut() {
                Some(last) if last.end == rows.start => last.end = rows.end,
                _ => runs.push(rows),
            }
        }
        runs
    }

    /// A run in large requests; `None` if any part of it takes more than that.
    async fn copy_whole(self: &Rc<Self>, slot: Slot, run: &Range<u64>) -> Option<Buf> {
        let len = (run.end - run.start) as usize;
        if self.lost.overlaps(slot, run.start, len as u64) {
            return None;
        }
        let main = self.slots.borrow()[usize::from(slot.0)].main.clone();
        if let Some(main) = main {
            match self.read_to_copy(&main, slot, run.start, len).await {
                Ok(buf) => return Some(buf),
                Err(Unread::Fault(_)) => return None,
                Err(Unread::Slow) => {} // Its peers stand in.
            }
        }
        let chunk = u64::from(self.geometry.chunk());
        let not = SlotSet::one(slot);
        let parts = (run.start / chunk..run.end.div_ceil(chunk)).map(|stripe| {
            let base = stripe * chunk;
            let rows =
                (run.start.max(base) - base) as u32..(run.end.min(base + chunk) - base) as u32;
            self.slot_contents(Stripe(stripe), slot, rows, not)
        });
        let mut whole = Buf::scratch(len);
        let mut at = 0;
        for part in join_all(parts).await {
            let part = part.ok()?;
            whole.bytes_mut()[at..at + part.len()].copy_from_slice(&part);
            at += part.len();
        }
        Some(whole)
    }

    /// A run block by block: from the main, else from the peers, else lost.
    async fn copy_blocks(
        self: &Rc<Self>,
        slot: Slot,
        run: &Range<u64>,
        progress: &Progress,
    ) -> Result<Buf, Broken> {
        let mut whole = Buf::zeroed((run.end - run.start) as usize);
        for address in run.clone().step_by(BLOCK_SIZE as usize) {
            let (stripe, row) = self.geometry.at_address(address);
            let rows = row..row + BLOCK_SIZE as u32;
            let was_lost = self.lost.overlaps(slot, address, BLOCK_SIZE);
            match self.copy_block(slot, stripe, rows, was_lost).await {
                Ok(block) => {
                    let at = (address - run.start) as usize;
                    whole.bytes_mut()[at..at + BLOCK_SIZE as usize].copy_from_slice(&block);
                }
                Err(_) => {
                    // Lost is what was read and is bad, not what cannot be asked just now (rule M5).
                    if let Some(disk) = self.silent_member() {
                        return Err(Broken::Sources(format!("disk {disk} does not answer")));
                    }
                    if !self.can_fill(slot) {
                        return Err(Broken::Sources("too many members are missing".into()));
                    }
                    progress.lost.set(progress.lost.get() + 1);
                    if self.lose(slot, address, BLOCK_SIZE).await.is_err() {
                        return Err(Broken::Sources(
                            "the map of lost blocks is full or cannot be written".into(),
                        ));
                    }
                    let main = self.slots.borrow()[usize::from(slot.0)].main.clone();
                    if let Some(main) = main.filter(|_| !was_lost) {
                        self.may_be_regained(slot, address, main.number);
                    }
                }
            }
        }
        Ok(whole)
    }

    async fn copy_block(
        self: &Rc<Self>,
        slot: Slot,
        stripe: Stripe,
        rows: Range<u32>,
        was_lost: bool,
    ) -> Result<Buf, IoError> {
        let address = self.geometry.member_address(stripe, rows.start);
        let main = self.slots.borrow()[usize::from(slot.0)].main.clone();
        let main = main.filter(|_| !was_lost);
        let (mut unfit, mut unknown, mut slow) = (false, false, false);
        if let Some(main) = &main {
            match self.read_to_copy(main, slot, address, rows.len()).await {
                Ok(buf) => return Ok(buf),
                Err(Unread::Slow) => slow = true,
                Err(Unread::Fault(fault)) => {
                    unfit = fault.kind.is_unfit();
                    unknown = fault.kind == FaultKind::Unverified;
                    self.count_mismatch(slot, address, fault);
                }
            }
        }
        let mut found = self.slot_contents(stripe, slot, rows.clone(), SlotSet::one(slot)).await;
        if let (Err(_), true, Some(main)) = (&found, unknown || slow, &main) {
            // Nothing was known of it, and by now it was believed; or nobody could stand in for it after all.
            let read = self.read_verified(main, slot, address, rows.len()).await;
            found = read.map_err(|_| IoError::Io);
        }
        match (found, main) {
            (Ok(buf), None) if was_lost => {
                // The peers can give it after all: it is whole again wherever the slot lives.
                if self.write_slot(slot, address, buf.clone()).await.is_ok() {
                    self.lost.overwritten(slot, address, BLOCK_SIZE);
                }
                Ok(buf)
            }
            (Ok(buf), Some(main)) => {
                if !unfit && !slow {
                    main.count_error(|e| e.recovered_reads += 1);
                }
                Ok(buf)
            }
            (found, _) => found,
        }
    }

    /// A member that does not answer, yet cannot be spared.
    fn silent_member(&self) -> Option<crate::ids::DiskNumber> {
        let slots = self.slots.borrow();
        slots.iter().find(|s| s.main.as_ref().is_some_and(|main| main.is_silent())).map(|s| s.disk)
    }

    /// Whether a member is out: what a copy was limited to for the hosts' sake counts less then than being whole again soon.
    pub(crate) fn misses_a_member(&self) -> bool {
        !self.missing().is_empty()
    }

    /// Whether there is anything to fill a slot from: its own main, or enough peers.
    pub(crate) fn can_fill(&self, slot: Slot) -> bool {
        self.slots.borrow()[usize::from(slot.0)].main.is_some() || self.can_rebuild(slot)
    }

    /// Rule A2: flush what was filled, then persist how far it is.
    async fn checkpoint(
        self: &Rc<Self>,
        slot: Slot,
        target: &Rc<Drive<E>>,
        alive: &impl Fn() -> bool,
    ) -> Result<(), IoError> {
        let cursor = self.slots.borrow()[usize::from(slot.0)].settled_cursor();
        if !self.has_redundancy() && self.flush_drives().await.is_err() {
            // What was copied was written before any intent bit was kept and may not be durable where it came from: after
            // a crash the two would differ unmarked. The cursor stays behind until it is.
            return Ok(());
        }
        let flushed = match self.write_checksums(target).await {
            Ok(()) => target.flush().await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = flushed {
            self.give_up(target, format!("{fault} on flush"));
            return Err(IoError::Io);
        }
        if target.has_doomed() {
            self.give_up(target, "an earlier flush failed".into());
            return Err(IoError::Io);
        }
        if !alive() {
            return Err(IoError::Io);
        }
        self.persist_cursor(slot, cursor).await
    }

    /// Makes a cursor durable.
    pub(crate) async fn persist_cursor(
        self: &Rc<Self>,
        slot: Slot,
        cursor: u64,
    ) -> Result<(), IoError> {
        self.checkpoints.borrow_mut()[usize::from(slot.0)] = cursor;
        self.cursors.touch(0);
        self.cursors.persist(self, 0, || encode_cursors(&self.checkpoints.borrow()), |_| ()).await
    }
}

/// Cursors as they stand on disk.
pub(super) type Checkpoints = [u64; MEMBERS_MAX];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_regions_join_and_are_copied_from_the_front() {
        let mut stale = Stale::of_regions([1, 2, 5], 100, 550);
        assert!(stale.contains(100) && stale.contains(299) && !stale.contains(300));
        assert!(stale.contains(549) && !stale.contains(550));
        assert_eq!(stale.bytes(), 250);
        assert_eq!(stale.first(150), Some(100..250));
        stale.copied(&(100..250));
        assert_eq!(stale.first(150), Some(250..300));
        stale.copied(&(250..300));
        assert_eq!(stale.first(150), Some(500..550));
    }
}
