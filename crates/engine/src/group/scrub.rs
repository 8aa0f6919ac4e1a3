//! Scrubbing: comparing copies and parity while they are idle, and mending what differs.
//!
//! Owns check and repair. Invariants: a stripe is compared under its row lock; blocks that cannot be read are mended from their
//! peers whichever was asked; where redundancy tells which member is wrong (RAID 6, mirrors of three and more) that one is mended,
//! else the data is believed over parity and the first copy over the second; a repair brings lost blocks back that the others can give by
//! now; other lost, dirty and unwritten blocks are not compared (rules M5, M6). A check writes nothing but mended read errors.

use std::ops::Range;
use std::rc::Rc;

use super::Group;
use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::{BLOCK_SIZE, Slot, SlotSet, Stripe};
use crate::progress::Progress;
use crate::runtime::Env;
use crate::sync::Hold;

/// What was found out about one row of blocks.
enum Verdict {
    /// All agree, or too few can be read to compare.
    Agrees,
    /// These slots should hold these blocks instead.
    Differs(Vec<(Slot, Buf)>),
}

impl<E: Env> Group<E> {
    /// Compares the whole group. `false`: asked to stop.
    pub(crate) async fn scrub(
        self: &Rc<Self>,
        repair: bool,
        progress: &Progress,
    ) -> Result<bool, IoError> {
        let chunk = u64::from(self.geometry.chunk());
        for stripe in 0..self.geometry.stripes() {
            if progress.stop.get() {
                return Ok(false);
            }
            self.answering().await;
            let stripe = Stripe(stripe);
            let region = self.intent.region_of(stripe.0 * chunk);
            let mut moved = 0;
            if !self.unwritten.reads_zero(stripe) && !self.intent.is_dirty(region) {
                self.scrub_stripe(stripe, repair, progress).await?;
                moved = chunk;
            }
            progress.done.set(progress.done.get() + chunk);
            progress.pace(&self.rt, moved).await;
        }
        if repair && progress.mismatches.get() + progress.remade.get() > 0 {
            self.flush().await?;
        }
        Ok(true)
    }

    async fn scrub_stripe(
        self: &Rc<Self>,
        stripe: Stripe,
        repair: bool,
        progress: &Progress,
    ) -> Result<(), IoError> {
        let chunk = self.geometry.chunk();
        let base = self.geometry.member_address(stripe, 0);
        let _guard = self.rows.lock(base..base + u64::from(chunk), Hold::Exclusive).await;
        if self.unwritten.reads_zero(stripe) || self.intent.is_dirty(self.intent.region_of(base)) {
            return Ok(());
        }
        let all = SlotSet::first(self.geometry.members());
        let view = self.view(stripe, 0..chunk);
        // Members that are there but cannot be read whole are looked at block by block, and mended.
        let bufs = match self.read_slots(stripe, all.and(view.readable), 0..chunk).await {
            Ok(bufs) if view.readable == view.writable => Some(bufs),
            _ => None,
        };
        let mut busy = if bufs.is_none() { self.begin_write(base).await? } else { None };
        for row in (0..chunk).step_by(BLOCK_SIZE as usize) {
            let rows = row..row + BLOCK_SIZE as u32;
            let blocks = match &bufs {
                Some(bufs) => {
                    let part = |buf: &Buf| buf.slice(rows.start as usize..rows.end as usize);
                    bufs.iter().map(|(slot, buf)| (*slot, part(buf))).collect()
                }
                None => {
                    if repair {
                        self.bring_back(stripe, rows.clone(), progress).await?;
                    }
                    self.mend_row(stripe, rows.clone(), progress).await
                }
            };
            if let Verdict::Differs(mends) = self.judge(stripe, blocks) {
                progress.mismatches.set(progress.mismatches.get() + 1);
                if repair {
                    if busy.is_none() {
                        busy = self.begin_write(base).await?;
                    }
                    for (slot, buf) in mends {
                        self.write_slot(slot, base + u64::from(row), buf)
                            .await
                            .map_err(|_| IoError::Io)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes blocks of a row that are listed lost and that the others can give by now, as a reader would get them.
    async fn bring_back(
        self: &Rc<Self>,
        stripe: Stripe,
        rows: Range<u32>,
        progress: &Progress,
    ) -> Result<(), IoError> {
        let address = self.geometry.member_address(stripe, rows.start);
        let len = u64::from(rows.end - rows.start);
        for slot in self.view(stripe, rows.clone()).writable.iter() {
            let lost = self.lost.overlaps(slot, address, len);
            if !lost || self.lost.is_unproved(slot, address, len) {
                continue;
            }
            let found = self.slot_contents(stripe, slot, rows.clone(), SlotSet::one(slot)).await;
            let Ok(buf) = found else { continue };
            self.write_slot(slot, address, buf).await.map_err(|_| IoError::Io)?;
            self.lost.overwritten(slot, address, len);
            progress.remade.set(progress.remade.get() + 1);
        }
        Ok(())
    }

    /// Every block of a row that can be had from its own slot, after mending those that could not be read.
    async fn mend_row(
        self: &Rc<Self>,
        stripe: Stripe,
        rows: Range<u32>,
        progress: &Progress,
    ) -> Vec<(Slot, Buf)> {
        let view = self.view(stripe, rows.clone());
        let mut blocks = Vec::new();
        for slot in view.readable.iter() {
            match self.mend_block_told(stripe, slot, rows.clone(), &progress.misfits).await {
                Ok(buf) => blocks.push((slot, buf)),
                Err(_) => progress.lost.set(progress.lost.get() + 1),
            }
        }
        blocks
    }

    fn judge(&self, stripe: Stripe, blocks: Vec<(Slot, Buf)>) -> Verdict {
        if self.has_parity() {
            self.judge_parity(stripe, blocks)
        } else {
            self.judge_copies(stripe, &blocks)
        }
    }

    /// Mirrors: the majority is right; without one, the first copy.
    fn judge_copies(&self, stripe: Stripe, blocks: &[(Slot, Buf)]) -> Verdict {
        let mut mends = Vec::new();
        for column in 0..self.geometry.data_columns() {
            let copies = self.geometry.copies(stripe, column);
            let mine: Vec<&(Slot, Buf)> =
                blocks.iter().filter(|(slot, _)| copies.contains(*slot)).collect();
            let votes = |buf: &Buf| mine.iter().filter(|(_, b)| b[..] == buf[..]).count();
            // The first of those with most votes.
            let Some((_, right)) = mine.iter().rev().max_by_key(|(_, buf)| votes(buf)) else {
                continue;
            };
            let wrong = mine.iter().filter(|(_, buf)| buf[..] != right[..]);
            mends.extend(wrong.map(|(slot, _)| (*slot, right.clone())));
        }
        if mends.is_empty() { Verdict::Agrees } else { Verdict::Differs(mends) }
    }

    fn judge_parity(&self, stripe: Stripe, blocks: Vec<(Slot, Buf)>) -> Verdict {
        if blocks.len() < self.geometry.members() {
            return Verdict::Agrees;
        }
        let k = self.geometry.data_columns();
        let columns = self.columns_of(stripe, blocks);
        let all: Vec<&[u8]> =
            columns.iter().map(|c| c.as_deref().expect("every slot was read")).collect();
        let made = self.make_parity(&all[..k], BLOCK_SIZE as usize);
        let wrong: Vec<usize> = (0..made.len()).filter(|i| made[*i][..] != *all[k + i]).collect();
        if wrong.is_empty() {
            return Verdict::Agrees;
        }
        let p_and_q = [self.geometry.p_slot(stripe), self.geometry.q_slot(stripe)];
        if wrong.len() == 2
            && let Some((column, right)) = self.single_wrong_column(&all)
        {
            let slot = self
                .geometry
                .copies(stripe, column)
                .iter()
                .next()
                .expect("every column has a slot");
            return Verdict::Differs(vec![(slot, right)]);
        }
        let mends =
            wrong.into_iter().map(|i| (p_and_q[i].expect("the level has it"), made[i].clone()));
        Verdict::Differs(mends.collect())
    }

    /// RAID 6, P and Q both wrong: the one data column that explains both, if there is exactly one.
    fn single_wrong_column(&self, all: &[&[u8]]) -> Option<(usize, Buf)> {
        let k = self.geometry.data_columns();
        let len = all[0].len();
        let mut found = (0..k).filter_map(|column| {
            // Taking P as right gives the column; it is the culprit if Q then agrees too.
            let mut right = Buf::copy_of(all[k]);
            (0..k)
                .filter(|c| *c != column)
                .for_each(|c| forestall_parity::xor_into(right.bytes_mut(), all[c]));
            let inputs: Vec<&[u8]> =
                (0..k).map(|c| if c == column { &right[..] } else { all[c] }).collect();
            let made = self.make_parity(&inputs, len);
            (made[1][..] == *all[k + 1]).then_some((column, right))
        });
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// P, or P and Q, of one row of data columns.
    pub(super) fn make_parity(&self, data: &[&[u8]], len: usize) -> Vec<Buf> {
        let mut p = Buf::scratch(len);
        if self.geometry.parity_columns() == 1 {
            forestall_parity::xor_gen(data, p.bytes_mut());
            return vec![p];
        }
        let mut q = Buf::scratch(len);
        forestall_parity::pq_gen(data, p.bytes_mut(), q.bytes_mut());
        vec![p, q]
    }
}
