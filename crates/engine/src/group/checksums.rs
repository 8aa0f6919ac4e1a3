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
use crate::format::checksum::{Seed, UNKNOWN};
use crate::ids::{BLOCK_SIZE, Slot, Stripe};
use crate::runtime::Env;

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
        let fitting = self.checksums_of(slot, address, &buf);
        if stored == fitting {
            return Ok(buf);
        }
        // Said at once: whoever reads the same may come to believe the block meanwhile.
        let misfits = |(stored, fitting): (u32, u32)| stored != fitting && stored != UNKNOWN;
        let wrong = stored.into_iter().zip(fitting).any(misfits);
        Err(DiskFault::new(if wrong { FaultKind::Checksum } else { FaultKind::Unverified }))
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
        let blocks = blocks(address, data.len());
        loop {
            drive.set_checksums(blocks.start, &sums).await?;
            if !drive.has_fresh_checksums(&blocks) {
                break;
            }
            // A full file system below says so now, and not when a flush is to keep what was answered.
            self.write_checksums(drive).await?;
            if !drive.has_fresh_checksums(&blocks) {
                break;
            }
        }
        if drive.has_many_changed_checksums() {
            self.write_checksums(drive).await?;
        }
        Ok(())
    }

    /// Writes the checksums that changed; they are durable once the drive is flushed after that.
    pub(super) async fn write_checksums(&self, drive: &Rc<Drive<E>>) -> Result<(), DiskFault> {
        drive.write_checksums(|| self.give_up(drive, "writing checksums timed out".into())).await
    }

    /// A block of `slot` was read by itself under its row lock and did not fit. In a region that is still to be made whole after a crash that says
    /// nothing of the disk.
    pub(super) fn count_mismatch(&self, slot: Slot, address: u64, fault: DiskFault) {
        let (main, filler) = self.drives_at(slot, address);
        if fault.kind == FaultKind::Checksum
            && !self.intent.is_dirty(self.intent.region_of(address))
            && let Some(drive) = main.or(filler)
        {
            drive.count_error(|e| e.checksums += 1);
        }
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

    /// A stripe of a region that was being written when the array stopped: what does not fit may be a write that was cut, and stays. Where there are
    /// copies the resync takes one that fits, if any does. The caller holds the row lock.
    pub(super) async fn settle_checksums(&self, stripe: Stripe) {
        if !self.checksums || self.geometry.copies(stripe, 0).len() > 1 {
            return;
        }
        let first = self.geometry.member_address(stripe, 0) / BLOCK_SIZE;
        let run = first..first + u64::from(self.geometry.chunk()) / BLOCK_SIZE;
        for column in 0..self.geometry.data_columns() {
            for slot in self.geometry.copies(stripe, column).iter() {
                self.believe_blocks(slot, run.clone()).await;
            }
        }
    }
}
