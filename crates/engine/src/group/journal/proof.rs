//! Rows of full stripes that a journal told by checksum: which are proved to be whole (rule J4).
//!
//! Owns the proof. Invariants: rows count as new only if each of their blocks fits what was told of it, as it is or computed from the others; blocks of a
//! row that is not proved stay as they are, and the checksums of the disk are made to fit them.

use std::ops::Range;
use std::rc::Rc;

use super::super::Group;
use super::super::ranges::Ranges;
use super::replay::{Doubts, Row};
use crate::buf::Buf;
use crate::error::IoError;
use crate::format::codec::crc32c;
use crate::ids::{BLOCK_SIZE, Slot, SlotSet, Stripe};
use crate::runtime::Env;
use crate::sync::join_all;

impl<E: Env> Group<E> {
    /// Whether rows of one stripe are new in every block. One that a disk gave wrong, or not at all, is made good from the others, where that
    /// fits what was told of it: so what was flushed is not taken for a write that was cut.
    pub(super) async fn prove_rows(
        self: &Rc<Self>,
        stripe: Stripe,
        rows: &Range<u32>,
        doubts: &Doubts,
    ) -> Result<bool, IoError> {
        if !self.checksums {
            return Ok(false);
        }
        let address = self.geometry.member_address(stripe, rows.start);
        let slots = || SlotSet::first(self.geometry.members()).iter();
        let reads = slots().map(|slot| async move {
            let main = self.drives_at(slot, address).0?;
            main.read_data(address, Buf::scratch(rows.len())).await.ok()
        });
        let read = join_all(reads).await;
        let mut mends = Vec::new();
        for at in (0..rows.len()).step_by(BLOCK_SIZE as usize) {
            let part =
                |buf: &Option<Buf>| buf.as_ref().map(|buf| buf.slice(at..at + BLOCK_SIZE as usize));
            let row = self.row_as_told(stripe, address + at as u64, read.iter().map(part), doubts);
            let told = |slot: Slot| doubts.told(slot, row.address);
            if row.erased.len() > self.geometry.parity_columns() {
                return Ok(false);
            }
            let proved = |contents: &Vec<Buf>| {
                slots().all(|slot| {
                    let column = &contents[self.column_index(stripe, slot)];
                    match told(slot) {
                        Some(crc) => crc == crc32c(column),
                        None => row.bufs[usize::from(slot.0)]
                            .as_ref()
                            .is_none_or(|b| b[..] == column[..]),
                    }
                })
            };
            let Some(contents) = self.candidates(&row).into_iter().find(proved) else {
                return Ok(false);
            };
            mends.push((row, contents));
        }
        for (slot, buf) in slots().zip(read) {
            if let (Some(buf), Some(main)) = (buf, self.drives_at(slot, address).0) {
                let noted = self.note_checksums(&main, slot, address, &buf).await;
                noted.map_err(|_| IoError::Io)?;
            }
        }
        for (row, contents) in mends {
            let lost = self.write_row(&row, &contents).await?;
            // What was told is proved; what was not, and stood for nothing, was written by this.
            let proved = |slot: &Slot| {
                doubts.told(*slot, row.address).is_some()
                    || row.erased.contains(*slot) && self.drives_at(*slot, address).0.is_some()
            };
            for slot in slots().filter(|slot| !lost.contains(*slot)).filter(proved) {
                self.lost.overwritten(slot, row.address, BLOCK_SIZE);
            }
        }
        Ok(true)
    }

    /// One row as the members hold it: what does not fit what was told is erased, and what stands where a block is listed lost, unless that was told.
    fn row_as_told(
        &self,
        stripe: Stripe,
        address: u64,
        read: impl Iterator<Item = Option<Buf>>,
        doubts: &Doubts,
    ) -> Row {
        let slots = || SlotSet::first(self.geometry.members()).iter();
        let is_lost = |slot: Slot| {
            doubts.told(slot, address).is_none() && self.lost.overlaps(slot, address, BLOCK_SIZE)
        };
        let counts = |(slot, buf): (Slot, Option<Buf>)| buf.filter(|_| !is_lost(slot));
        let bufs: Vec<Option<Buf>> = slots().zip(read).map(counts).collect();
        // What a later record has written stands already.
        let fits = |slot: &Slot| {
            let told = doubts.told(*slot, address);
            let buf = bufs[usize::from(slot.0)].as_ref();
            buf.is_some_and(|buf| told.is_none_or(|crc| crc == crc32c(buf)))
        };
        let erased = slots().filter(|slot| !fits(slot)).collect();
        Row { stripe, address, bufs, erased }
    }

    /// Blocks whose new contents were only told by checksum, or whose record cannot be read: they stay as they are.
    pub(super) async fn believe_in_flight(self: &Rc<Self>, blocks: Range<u64>, doubts: &Doubts) {
        for slot in SlotSet::first(self.geometry.members()).iter() {
            let told = |block: &u64| doubts.told(slot, *block * BLOCK_SIZE).is_some();
            let runs: Ranges = blocks.clone().filter(told).map(|block| block..block + 1).collect();
            for run in runs.iter() {
                self.believe_blocks(slot, run).await;
            }
        }
    }
}
