//! The first write of a unit that nobody wrote (rule M6).
//!
//! Owns it: the whole unit is written on every member, the data and zeroes around it, so that nothing is read and nothing of what lay there before is
//! ever seen. Invariant: the unit reads as zeroes until a flush has settled it, so the write needs no journal.

use std::ops::Range;
use std::rc::Rc;

use super::Group;
use super::store::OnFull;
use super::write::{SlotWrite, column_parts};
use crate::buf::Buf;
use crate::disk::{DiskFault, FaultKind};
use crate::error::IoError;
use crate::ids::{SlotSet, Stripe};
use crate::runtime::Env;
use crate::sync::join_all;

impl<E: Env> Group<E> {
    /// Writes a whole unit: the data, and zeroes everywhere else. Nothing is read.
    pub(super) async fn write_first(
        self: &Rc<Self>,
        stripe: Stripe,
        within: Range<u64>,
        data: &Buf,
    ) -> Result<(), IoError> {
        let chunk = self.geometry.chunk() as usize;
        let unit = self.unwritten.unit_of(stripe);
        let stripes = self.unwritten.stripes_of(unit);
        let members = self.geometry.members();
        let unit_rows = chunk * (stripes.end - stripes.start) as usize;
        let mut slots: Vec<Buf> = (0..members).map(|_| Buf::zeroed(unit_rows)).collect();
        let base = chunk * (stripe.0 - stripes.start) as usize;
        for (column, rows, from) in column_parts(chunk as u64, within.clone()) {
            let part = &data[from..from + rows.len()];
            for slot in self.geometry.copies(stripe, column).iter() {
                slots[usize::from(slot.0)].bytes_mut()[base + rows.start..base + rows.end]
                    .copy_from_slice(part);
            }
        }
        self.fill_parity(stripe, base, &mut slots);
        let address = stripes.start * chunk as u64;
        let view = self.view(stripe, 0..chunk as u32);
        let writable = SlotSet::first(members).and(view.writable);
        if !self.geometry.still_whole(SlotSet::first(members).minus(writable)) {
            // Beyond the tolerance: only what lies on present members can be taken.
            let touched = column_parts(chunk as u64, within)
                .all(|(column, ..)| !self.geometry.copies(stripe, column).and(writable).is_empty());
            if !touched || self.has_parity() {
                return Err(IoError::Io);
            }
        }
        let writes = writable.iter().map(|slot| SlotWrite {
            slot,
            address,
            buf: slots[usize::from(slot.0)].clone(),
        });
        let results =
            join_all(writes.map(|w| self.write_slot_or(OnFull::Report, w.slot, w.address, w.buf)))
                .await;
        for (slot, result) in writable.iter().zip(results) {
            match result {
                Ok(()) => self.lost.overwritten(slot, address, unit_rows as u64),
                // The unit stays unwritten: nothing of it was, or is, to be read.
                Err(DiskFault { kind: FaultKind::NoSpace, .. }) => return Err(IoError::NoSpace),
                Err(_) => return Err(IoError::Io),
            }
        }
        self.unwritten.set_written(unit);
        Ok(())
    }

    /// Makes P and Q of one stripe inside per-slot buffers of a unit; the stripe's rows start at `base`.
    fn fill_parity(&self, stripe: Stripe, base: usize, slots: &mut [Buf]) {
        let chunk = self.geometry.chunk() as usize;
        let Some(p) = self.geometry.p_slot(stripe) else { return };
        let rows = base..base + chunk;
        let mut p_buf = std::mem::replace(&mut slots[usize::from(p.0)], Buf::zeroed(0));
        let q = self.geometry.q_slot(stripe);
        let mut q_buf = q.map(|q| std::mem::replace(&mut slots[usize::from(q.0)], Buf::zeroed(0)));
        {
            let data: Vec<&[u8]> = (0..self.geometry.data_columns())
                .map(|c| {
                    let slot = self
                        .geometry
                        .copies(stripe, c)
                        .iter()
                        .next()
                        .expect("every column has a slot");
                    &slots[usize::from(slot.0)][rows.clone()]
                })
                .collect();
            let p_rows = &mut p_buf.bytes_mut()[rows.clone()];
            match &mut q_buf {
                Some(q_buf) => {
                    forestall_parity::pq_gen(&data, p_rows, &mut q_buf.bytes_mut()[rows.clone()])
                }
                None => forestall_parity::xor_gen(&data, p_rows),
            }
        }
        slots[usize::from(p.0)] = p_buf;
        if let (Some(q), Some(q_buf)) = (q, q_buf) {
            slots[usize::from(q.0)] = q_buf;
        }
    }
}
