//! Making dirty regions whole after an unclean start (rules M4, F5).
//!
//! Owns the resync. Invariants: a dirty region of a mirror is read from one fixed copy and copied from that same copy, and flushed, before
//! any host read of it is answered; parity of a dirty region is made anew from the data before it is an input to anything.
//! A region is taken off the dirty set only when its members are flushed.

use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::around::Patience;
use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::{BLOCK_SIZE, Slot, SlotSet, Stripe};
use crate::progress::Progress;
use crate::runtime::Env;
use crate::sync::{Hold, join_all};

impl<E: Env> Group<E> {
    /// Resyncs every dirty region, lowest first. `false`: asked to stop.
    pub(crate) async fn resync(self: &Rc<Self>, progress: &Progress) -> Result<bool, IoError> {
        loop {
            let region = self.intent.dirty.borrow().first().copied();
            let Some(region) = region else { return Ok(true) };
            if progress.stop.get() {
                return Ok(false);
            }
            self.resync_region(region).await?;
            progress.done.set(progress.done.get() + self.intent.region_len());
            progress.pace(&self.rt, self.intent.region_len()).await;
        }
    }

    /// Rule F5 for mirrors: what a host reads of a dirty region must not change when the copy that gave it fails.
    pub(super) async fn make_whole_before_read(
        self: &Rc<Self>,
        address: u64,
    ) -> Result<(), IoError> {
        let region = self.intent.region_of(address);
        if self.has_parity() && !self.checksums || !self.intent.is_dirty(region) {
            return Ok(());
        }
        let group = Rc::clone(self);
        self.detached(async move { group.resync_region(region).await }).await
    }

    /// With checksums, what a crash cut does not fit until it was made whole.
    pub(super) async fn make_whole_before_copy(
        self: &Rc<Self>,
        window: &Range<u64>,
    ) -> Result<(), IoError> {
        if self.checksums {
            for address in window.clone().step_by(self.intent.region_len() as usize) {
                self.make_whole_before_read(address).await?;
            }
            self.make_whole_before_read(window.end - 1).await?;
        }
        Ok(())
    }

    /// Whether [`Group::make_whole_before_copy`] has nothing to do.
    pub(super) fn is_whole_to_copy(&self, window: &Range<u64>) -> bool {
        let first = self.intent.region_of(window.start);
        let last = self.intent.region_of(window.end - 1);
        !self.checksums || !(first..=last).any(|region| self.intent.is_dirty(region))
    }

    async fn resync_region(self: &Rc<Self>, region: u64) -> Result<(), IoError> {
        let chunk = u64::from(self.geometry.chunk());
        let len = self.intent.region_len();
        let end = ((region + 1) * len).min(self.member_len());
        // The whole region under one lock: host writes wait, and nobody copies it twice.
        let _guard = self.rows.lock(region * len..end, Hold::Exclusive).await;
        if !self.intent.is_dirty(region) {
            return Ok(());
        }
        for stripe in region * len / chunk..end / chunk {
            if !self.unwritten.reads_zero(Stripe(stripe)) {
                self.resync_stripe(Stripe(stripe)).await?;
            }
        }
        self.flush_drives().await?;
        self.failures_committed().await?;
        self.intent.not_dirty(region);
        Ok(())
    }

    async fn resync_stripe(self: &Rc<Self>, stripe: Stripe) -> Result<(), IoError> {
        self.settle_checksums(stripe).await;
        self.resync_rows_or_blocks(stripe, 0..self.geometry.chunk()).await
    }

    /// Makes rows of a stripe agree; block by block where they cannot be read as a whole.
    pub(super) async fn resync_rows_or_blocks(
        self: &Rc<Self>,
        stripe: Stripe,
        rows: Range<u32>,
    ) -> Result<(), IoError> {
        let whole = match self.resync_rows(stripe, rows.clone()).await {
            Ok(()) => return Ok(()),
            Err(Unsure::Write(error)) => return Err(error),
            Err(Unsure::Read) => rows,
        };
        for row in whole.step_by(BLOCK_SIZE as usize) {
            let rows = row..row + BLOCK_SIZE as u32;
            match self.resync_rows(stripe, rows.clone()).await {
                Ok(()) => {}
                Err(Unsure::Write(error)) => return Err(error),
                // A data block that cannot be read, and whose parity may be old: nothing can tell its content.
                Err(Unsure::Read) => self.lose_unreadable(stripe, rows).await?,
            }
        }
        Ok(())
    }

    async fn resync_rows(self: &Rc<Self>, stripe: Stripe, rows: Range<u32>) -> Result<(), Unsure> {
        if !self.has_redundancy() {
            Ok(())
        } else if self.has_parity() {
            self.remake_parity(stripe, rows).await
        } else {
            self.copy_from_fixed(stripe, rows).await
        }
    }

    /// Mirrors: the lowest readable copy is the fixed one; the others are made equal to it.
    async fn copy_from_fixed(
        self: &Rc<Self>,
        stripe: Stripe,
        rows: Range<u32>,
    ) -> Result<(), Unsure> {
        let address = self.geometry.member_address(stripe, rows.start);
        for column in 0..self.geometry.data_columns() {
            let copies = self.geometry.copies(stripe, column);
            let view = self.view(stripe, rows.clone());
            let Some(fixed) = copies.and(view.readable).iter().next() else { continue };
            let others = copies.and(view.writable).without(fixed);
            if others.is_empty() && !self.checksums {
                continue;
            }
            let read = self.read_slot_with(Patience::Long, fixed, address, rows.len()).await;
            let Some(buf) = (match read {
                Ok(buf) => Some(buf),
                Err(_) if rows.len() as u64 > BLOCK_SIZE => return Err(Unsure::Read),
                Err(_) => {
                    // What stands where a block is lost is no copy of it (rule M5).
                    let sources = others.and(view.readable);
                    self.from_another_copy(stripe, (fixed, sources), rows.clone()).await?
                }
            }) else {
                continue;
            };
            for result in
                join_all(others.iter().map(|slot| self.write_slot(slot, address, buf.clone())))
                    .await
            {
                result.map_err(|_| Unsure::Write(IoError::Io))?;
            }
        }
        Ok(())
    }

    /// A block that the fixed copy of a mirror cannot give, or that does not fit its checksum: the next copy is as good, and becomes the source.
    /// Where none fits it is a write that was cut, and stays as the first copy has it that can be read.
    async fn from_another_copy(
        self: &Rc<Self>,
        stripe: Stripe,
        (fixed, sources): (Slot, SlotSet),
        rows: Range<u32>,
    ) -> Result<Option<Buf>, Unsure> {
        let address = self.geometry.member_address(stripe, rows.start);
        let not = SlotSet::one(fixed);
        let mut found = self.slot_contents(stripe, fixed, rows.clone(), not).await.ok();
        for slot in std::iter::once(fixed).chain(sources.iter()) {
            if found.is_none() {
                let block = address / BLOCK_SIZE;
                self.believe_blocks(slot, block..block + 1).await;
                let read = self.read_slot_with(Patience::Long, slot, address, rows.len()).await;
                found = read.ok();
            }
        }
        if let Some(buf) = &found {
            let written = self.write_slot(fixed, address, buf.clone()).await;
            written.map_err(|_| Unsure::Write(IoError::Io))?;
        }
        Ok(found)
    }

    /// Parity levels: P and Q are made from the data as it is. With a data member missing parity is all there is of it, and
    /// stays as it is (that start was refused unless the operator accepted the write hole).
    pub(super) async fn remake_parity(
        self: &Rc<Self>,
        stripe: Stripe,
        rows: Range<u32>,
    ) -> Result<(), Unsure> {
        let k = self.geometry.data_columns();
        let data: SlotSet = (0..k).flat_map(|c| self.geometry.copies(stripe, c).iter()).collect();
        let view = self.view(stripe, rows.clone());
        let parity: Vec<Slot> =
            self.geometry.p_slot(stripe).into_iter().chain(self.geometry.q_slot(stripe)).collect();
        if !data.minus(view.writable).is_empty() {
            return Ok(());
        }
        if !data.minus(view.readable).is_empty() {
            // A lost block of the data: its row's parity cannot be made; it leaves the plans with the block.
            return if rows.len() as u64 > BLOCK_SIZE { Err(Unsure::Read) } else { Ok(()) };
        }
        let bufs = self.read_slots(stripe, data, rows.clone()).await.map_err(|_| Unsure::Read)?;
        let columns = self.columns_of(stripe, bufs);
        let inputs: Vec<&[u8]> =
            columns[..k].iter().map(|c| c.as_deref().expect("all data was read")).collect();
        let made = self.make_parity(&inputs, rows.len());
        let address = self.geometry.member_address(stripe, rows.start);
        let writes = parity.into_iter().zip(made).filter(|(slot, _)| view.writable.contains(*slot));
        for result in join_all(writes.map(|(slot, buf)| self.write_slot(slot, address, buf))).await
        {
            result.map_err(|_| Unsure::Write(IoError::Io))?;
        }
        Ok(())
    }

    /// Enters the data blocks of a row that cannot be read as lost.
    async fn lose_unreadable(
        self: &Rc<Self>,
        stripe: Stripe,
        rows: Range<u32>,
    ) -> Result<(), IoError> {
        let address = self.geometry.member_address(stripe, rows.start);
        for column in 0..self.geometry.data_columns() {
            for slot in self.geometry.copies(stripe, column).iter() {
                match self.read_slot(slot, address, rows.len()).await {
                    Ok(_) => {}
                    Err(fault) if fault.kind.is_of_block() => {
                        self.lose(slot, address, rows.len() as u64).await?;
                    }
                    // It may answer later: the region stays dirty until then.
                    Err(_) => return Err(IoError::Io),
                }
            }
        }
        Ok(())
    }
}

/// Why rows were not made whole.
pub(super) enum Unsure {
    /// Something could not be read.
    Read,
    /// Something could not be written by a member that cannot be spared.
    Write(IoError),
}
