//! Checksums of blocks: what a disk gives is compared, what it takes is noted (rules K1, K2).
//!
//! Owns the comparison and its exceptions. Invariants: nothing that does not fit its checksum is handed on, computed with or copied; a block counts as one
//! mismatch when it was read by itself and nobody was writing it. Two things are believed as read, and get a new checksum: blocks that a crash
//! caught half-way, where the journal or the intent bitmap names them and no copy fits; and blocks whose checksum the disk
//! cannot give, once their peers cannot give them either. Both are no mismatch.

use std::ops::Range;
use std::rc::Rc;

use super::Group;
use crate::buf::Buf;
use crate::disk::{DiskFault, FaultKind};
use crate::drive::Drive;
use crate::error::IoError;
use crate::format::checksum::{Seed, UNKNOWN};
use crate::ids::{BLOCK_SIZE, Slot, SlotSet, Stripe};
use crate::runtime::Env;
use crate::sync::join_all;

const BLOCK: usize = BLOCK_SIZE as usize;

fn blocks(address: u64, len: usize) -> Range<u64> {
    address / BLOCK_SIZE..(address + len as u64) / BLOCK_SIZE
}

fn has_unknown<E: Env>(drive: &Drive<E>, address: u64) -> bool {
    drive.checksums(&blocks(address, BLOCK)).is_some_and(|sums| sums[0] == UNKNOWN)
}

impl<E: Env> Group<E> {
    fn seed(&self, slot: Slot) -> Seed {
        Seed::new(self.uuid, slot)
    }

    fn checksums_of(&self, slot: Slot, address: u64, data: &[u8]) -> Vec<u32> {
        let seed = self.seed(slot);
        blocks(address, data.len())
            .zip(data.chunks(BLOCK))
            .map(|(at, block)| seed.of(at, block))
            .collect()
    }

    /// Begins to read the checksums that a read will be compared with.
    pub(super) fn want_checksums(&self, drive: &Rc<Drive<E>>, address: u64, len: usize) {
        if self.checksums {
            drive.want_checksums(blocks(address, len));
        }
    }

    async fn stored(
        &self,
        drive: &Rc<Drive<E>>,
        blocks: Range<u64>,
    ) -> Result<Vec<u32>, DiskFault> {
        loop {
            if let Some(sums) = drive.checksums(&blocks) {
                return Ok(sums);
            }
            drive.load_checksums(blocks.clone()).await?;
        }
    }

    /// What a drive of `slot` gave at `address`, if it fits.
    pub(super) async fn verify(
        &self,
        drive: &Rc<Drive<E>>,
        slot: Slot,
        address: u64,
        buf: Buf,
    ) -> Result<Buf, DiskFault> {
        if !self.checksums {
            return Ok(buf);
        }
        let stored = self.stored(drive, blocks(address, buf.len())).await?;
        if stored == self.checksums_of(slot, address, &buf) {
            Ok(buf)
        } else {
            Err(DiskFault::new(FaultKind::Checksum))
        }
    }

    /// Reads from a drive that holds, or held, `slot`.
    pub(super) async fn read_verified(
        &self,
        drive: &Rc<Drive<E>>,
        slot: Slot,
        address: u64,
        len: usize,
    ) -> Result<Buf, DiskFault> {
        self.want_checksums(drive, address, len);
        let buf = drive.read_data(address, Buf::scratch(len)).await?;
        self.verify(drive, slot, address, buf).await
    }

    /// Notes the checksums of what a drive of `slot` has just taken. They are durable with the next flush.
    pub(super) async fn note_checksums(
        &self,
        drive: &Rc<Drive<E>>,
        slot: Slot,
        address: u64,
        data: &[u8],
    ) -> Result<(), DiskFault> {
        if !self.checksums {
            return Ok(());
        }
        let sums = self.checksums_of(slot, address, data);
        drive.set_checksums(address / BLOCK_SIZE, &sums).await?;
        if drive.has_many_changed_checksums() {
            self.write_checksums(drive).await?;
        }
        Ok(())
    }

    /// Writes the checksums that changed; they are durable once the drive is flushed after that.
    pub(super) async fn write_checksums(&self, drive: &Rc<Drive<E>>) -> Result<(), DiskFault> {
        drive.write_checksums(|| self.give_up(drive, "writing checksums timed out".into())).await
    }

    /// A block of `slot` was read by itself under its row lock and did not fit.
    pub(super) fn count_mismatch(&self, slot: Slot, address: u64, fault: DiskFault) {
        let (main, filler) = self.drives_at(slot, address);
        if fault.kind == FaultKind::Checksum
            && !self.is_unknown(slot, address)
            && let Some(drive) = main.or(filler)
        {
            drive.count_error(|e| e.checksums += 1);
        }
    }

    /// Whether the checksum of the block at `address` could not be read, so that nothing was found out about the block.
    pub(super) fn is_unknown(&self, slot: Slot, address: u64) -> bool {
        let (main, filler) = self.drives_at(slot, address);
        main.into_iter().chain(filler).any(|drive| has_unknown(&drive, address))
    }

    /// Believes blocks of a row as they are whose checksum the disks cannot give; answers whether there were any. The caller holds the row
    /// lock and has tried everything else.
    pub(super) async fn believe_unknown(&self, stripe: Stripe, rows: Range<u32>) -> bool {
        if !self.checksums || rows.len() != BLOCK {
            return false;
        }
        let address = self.geometry.member_address(stripe, rows.start);
        let mut any = false;
        for slot in self.view(stripe, rows).readable.iter() {
            let (main, filler) = self.drives_at(slot, address);
            for drive in main.into_iter().chain(filler) {
                if has_unknown(&drive, address) {
                    any |= self.believe(&drive, slot, address, BLOCK).await.is_ok();
                }
            }
        }
        any
    }

    /// Gives blocks of a drive, as they are, checksums that fit.
    async fn believe(
        &self,
        drive: &Rc<Drive<E>>,
        slot: Slot,
        address: u64,
        len: usize,
    ) -> Result<(), DiskFault> {
        self.want_checksums(drive, address, len);
        let buf = drive.read_data(address, Buf::scratch(len)).await?;
        let stored = self.stored(drive, blocks(address, len)).await?;
        let fitting = self.checksums_of(slot, address, &buf);
        for ((block, was), sum) in blocks(address, len).zip(stored).zip(fitting) {
            if was != sum {
                drive.set_checksums(block, &[sum]).await?;
            }
        }
        Ok(())
    }

    /// Blocks of `slot`, by number, that a crash may have caught half-way: they stay as they are (rule J4). Nothing else is under way there.
    pub(super) async fn believe_blocks(&self, slot: Slot, run: Range<u64>) {
        if !self.checksums {
            return;
        }
        let len = (run.end - run.start) as usize * BLOCK;
        let Some(main) = self.drives_at(slot, run.start * BLOCK_SIZE).0 else { return };
        if self.believe(&main, slot, run.start * BLOCK_SIZE, len).await.is_ok() {
            return;
        }
        // What of it cannot be read is an erasure, as ever.
        for block in run {
            let _ = self.believe(&main, slot, block * BLOCK_SIZE, BLOCK).await;
        }
    }

    /// A stripe of a region that was being written when the array stopped: what does not fit may be a write that was cut. Where a copy fits,
    /// that one is taken by the resync; else the blocks stay as they are. The caller holds the row lock.
    pub(super) async fn settle_checksums(self: &Rc<Self>, stripe: Stripe) -> Result<(), IoError> {
        if !self.checksums {
            return Ok(());
        }
        let chunk = self.geometry.chunk() as usize;
        let address = self.geometry.member_address(stripe, 0);
        let writable = self.view(stripe, 0..chunk as u32).writable;
        let mains = writable
            .iter()
            .filter_map(|slot| self.drives_at(slot, address).0.map(|main| (slot, main)));
        let mut cut: Vec<(Slot, Rc<Drive<E>>, Vec<bool>)> = Vec::new();
        for (slot, main) in mains {
            match self.misfits(&main, slot, address, chunk).await {
                Ok(misfits) => cut.push((slot, main, misfits)),
                // Its peers have everything: it is out.
                Err(fault) if self.give_up(&main, format!("{fault} on reading checksums")) => {}
                Err(_) => return Err(IoError::Io),
            }
        }
        for (slot, main, misfits) in &cut {
            let copies = self.copies_of_slot(stripe, *slot);
            let first = address / BLOCK_SIZE;
            let alone = |block: u64| {
                let at = (block - first) as usize;
                let fits = |(s, _, m): &(Slot, Rc<Drive<E>>, Vec<bool>)| {
                    copies.contains(*s)
                        && !m[at]
                        && !self.lost.overlaps(*s, block * BLOCK_SIZE, BLOCK_SIZE)
                };
                misfits[at] && !cut.iter().any(fits)
            };
            for block in (first..first + misfits.len() as u64).filter(|block| alone(*block)) {
                // One that cannot be read is the resync's matter.
                let _ = self.believe(main, *slot, block * BLOCK_SIZE, BLOCK).await;
            }
        }
        Ok(())
    }

    /// The other slots that hold the same as `slot`, parity's peers excepted.
    fn copies_of_slot(&self, stripe: Stripe, slot: Slot) -> SlotSet {
        let column = self.column_index(stripe, slot);
        if column >= self.geometry.data_columns() {
            return SlotSet::EMPTY;
        }
        self.geometry.copies(stripe, column).without(slot)
    }

    /// Which blocks of a range do not fit, or cannot be read.
    async fn misfits(
        &self,
        drive: &Rc<Drive<E>>,
        slot: Slot,
        address: u64,
        len: usize,
    ) -> Result<Vec<bool>, DiskFault> {
        let stored = self.stored(drive, blocks(address, len)).await?;
        if let Ok(buf) = drive.read_data(address, Buf::scratch(len)).await {
            let fitting = self.checksums_of(slot, address, &buf);
            return Ok(stored.iter().zip(&fitting).map(|(was, fits)| was != fits).collect());
        }
        let at = |i: usize| address + (i * BLOCK) as u64;
        let reads = (0..stored.len()).map(|i| drive.read_data(at(i), Buf::scratch(BLOCK)));
        let read = join_all(reads).await;
        let misfit = |i: usize| match &read[i] {
            Ok(buf) => self.checksums_of(slot, at(i), buf)[0] != stored[i],
            Err(_) => true,
        };
        Ok((0..stored.len()).map(misfit).collect())
    }
}
