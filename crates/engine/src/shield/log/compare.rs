//! What each leg of a log holds, compared with what the log tells.
//!
//! Owns the look at the copies. Invariant: nothing is written; what a leg lacks is answered.

use super::super::space::Copy;
use super::Log;
use crate::format::log::{EntryKind, payload_crc};
use crate::ids::BLOCK_SIZE;
use crate::report::LegDamage;
use crate::runtime::Env;

impl<E: Env> Log<E> {
    /// What each leg lacks; with `data` every redirected block is read from each. None of a log in a volume, which has a group to look after it.
    pub(crate) async fn damage(&self, data: bool) -> Vec<LegDamage> {
        let mut found = Vec::new();
        for copy in self.space.copies() {
            let Some(disk) = copy.leg() else { continue };
            let pages = self.damaged.borrow().get(&disk).copied().unwrap_or(0);
            let blocks = if data { self.unfit(&copy).await } else { 0 };
            if pages + blocks > 0 {
                found.push(LegDamage { disk, pages, blocks });
            }
        }
        found
    }

    /// Blocks of one copy that are not what was written there.
    async fn unfit(&self, copy: &Copy<E>) -> u64 {
        let (shape, payloads) = {
            let book = self.book.borrow();
            (book.shape, book.marked_slots())
        };
        let mut unfit = 0;
        for (slot, entry) in payloads.into_iter().filter(|(_, e)| e.kind == EntryKind::Data) {
            let read = copy.read(shape.payload(slot), BLOCK_SIZE).await;
            unfit += u64::from(!read.is_ok_and(|buf| payload_crc(&buf) == entry.payload));
        }
        unfit
    }
}
