//! Units that were trimmed since the journal was last emptied.
//!
//! Owns the rule that the first write of a unit, which is not journaled since nothing of the unit is read before it is settled, never meets a record
//! from before the trim. Invariant: a unit leaves the set only when a flush has made durable that it was trimmed and the journal was emptied after.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::super::Group;
use super::super::ranges::Ranges;
use crate::error::IoError;
use crate::runtime::Env;
use crate::sync::Mutex;

#[derive(Default)]
pub(super) struct Trims {
    /// Units trimmed since the emptying under way began.
    fresh: RefCell<Ranges>,
    /// Those before.
    leaving: RefCell<Ranges>,
    turn: Mutex,
}

impl Trims {
    fn contains(&self, unit: u64) -> bool {
        self.fresh.borrow().contains(unit) || self.leaving.borrow().contains(unit)
    }
}

impl<E: Env> Group<E> {
    /// Notes units that were trimmed. The caller holds their rows.
    pub(in super::super) fn note_trimmed(&self, units: Range<u64>) {
        if let Some(journal) = &self.journal {
            journal.trims.fresh.borrow_mut().insert(units);
        }
    }

    /// Makes sure that no record from before a trim of `unit` counts. The caller holds its rows.
    pub(in super::super) async fn forget_records(
        self: &Rc<Self>,
        unit: u64,
    ) -> Result<(), IoError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        let trims = &journal.trims;
        if !trims.contains(unit) {
            return Ok(());
        }
        let _turn = trims.turn.lock().await;
        if !trims.contains(unit) {
            return Ok(());
        }
        let fresh = trims.fresh.take();
        fresh.iter().for_each(|units| trims.leaving.borrow_mut().insert(units));
        self.flush().await?;
        self.empty_journal().await?;
        trims.leaving.take();
        Ok(())
    }
}
