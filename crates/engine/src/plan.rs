//! The stripe planner: what to read and write, decided before anything is.
//!
//! Owns the choice of members for reads, rebuilds and writes of one stripe: pure functions from a layout and a [`View`]
//! to plans that the group's I/O executes. Invariants: a plan reads only readable slots and writes only writable ones;
//! a block outside the view's readable slots is an erasure, never an input (rule M5); parity that is readable after a
//! write is true for the whole stripe; and no write makes a column unreadable that could be read before it. Why a member
//! is in a view or not (failed, ailing, lost blocks, cursors, dirty regions) and the order of durable steps are left to
//! the caller.

use crate::geometry::{Geometry, Role};
use crate::ids::{Slot, SlotSet, Stripe};

#[cfg(test)]
mod tests;
mod write;

pub use write::{Band, Method, Unwritable, WritePlan, accesses, plan_write, plan_write_around};

/// Which members can be used for one range of rows of one stripe.
///
/// A slot with a lost block in these rows is not readable, nor is a parity slot that may not match its data (a dirty
/// region after an unclean start). Callers that want less to depend on one bad block ask for fewer rows at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct View {
    /// Slots whose blocks are all there and true.
    pub readable: SlotSet,
    /// Readable slots to be read first; the others only when nothing else gives the block. Slots that are not readable
    /// do not count.
    pub preferred: SlotSet,
    /// Slots that take writes. A slot may be writable and not readable (a lost block is cleared by writing it), or
    /// readable and not writable.
    pub writable: SlotSet,
}

impl View {
    /// The view of a stripe whose members are all well.
    #[must_use]
    pub fn whole(geometry: &Geometry) -> Self {
        let all = SlotSet::first(geometry.members());
        Self { readable: all, preferred: all, writable: all }
    }

    /// The first `count` readable slots out of `slots`, preferred ones first and then in the order given; `None` if
    /// there are fewer.
    fn pick(&self, slots: impl Iterator<Item = Slot> + Clone, count: usize) -> Option<SlotSet> {
        let preferred = self.readable.and(self.preferred);
        let rest = self.readable.minus(self.preferred);
        let first = slots.clone().filter(|slot| preferred.contains(*slot));
        let then = slots.filter(|slot| rest.contains(*slot));
        let picked: SlotSet = first.chain(then).take(count).collect();
        (picked.len() == count).then_some(picked)
    }
}

/// A set of data columns of one stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct ColumnSet(pub u64);

impl ColumnSet {
    /// No column.
    pub const EMPTY: Self = Self(0);

    /// Whether `column` is in the set.
    #[must_use]
    pub fn contains(self, column: usize) -> bool {
        self.0 >> column & 1 == 1
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The columns, lowest first.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |column| self.contains(*column))
    }
}

impl FromIterator<usize> for ColumnSet {
    fn from_iter<I: IntoIterator<Item = usize>>(columns: I) -> Self {
        columns.into_iter().fold(Self::EMPTY, |set, column| Self(set.0 | 1 << column))
    }
}

/// How to get the contents of one block of a stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadPlan {
    /// Read any one of these slots; never empty. Either all of them are preferred or none is.
    Direct(SlotSet),
    /// Read all of these slots, as many as there are data columns, and compute the block from them; every other slot
    /// counts as missing.
    Rebuild {
        /// The slots to read.
        reads: SlotSet,
    },
    /// Nothing can give the block.
    Lost,
}

/// How to read data column `column` of `stripe`.
///
/// In this order: a preferred copy; a rebuild from preferred slots alone, which keeps an ailing member out; a copy that
/// is merely readable; a rebuild with merely readable slots where preferred ones do not suffice.
///
/// # Panics
/// If there is no such column.
#[must_use]
pub fn plan_read(geometry: &Geometry, stripe: Stripe, column: usize, view: View) -> ReadPlan {
    plan_block(geometry, stripe, geometry.copies(stripe, column), view)
}

/// How to get what `slot` should hold in `stripe` (data, P, Q or a mirror's copy), in [`plan_read`]'s order.
///
/// Where `slot` itself is readable its own block is a copy like any other: to build it from its peers alone, leave it
/// out of the view.
///
/// # Panics
/// If there is no such slot.
#[must_use]
pub fn plan_rebuild_slot(geometry: &Geometry, stripe: Stripe, slot: Slot, view: View) -> ReadPlan {
    let holders = match geometry.role(stripe, slot) {
        Role::Data(column) => geometry.copies(stripe, column),
        Role::P | Role::Q => SlotSet::one(slot),
    };
    plan_block(geometry, stripe, holders, view)
}

fn plan_block(geometry: &Geometry, stripe: Stripe, holders: SlotSet, view: View) -> ReadPlan {
    let readable = holders.and(view.readable);
    let preferred = readable.and(view.preferred);
    if !preferred.is_empty() {
        return ReadPlan::Direct(preferred);
    }
    let rebuild = plan_rebuild(geometry, stripe, view);
    match rebuild {
        Some(reads) if reads.minus(view.preferred).is_empty() => ReadPlan::Rebuild { reads },
        _ if !readable.is_empty() => ReadPlan::Direct(readable),
        Some(reads) => ReadPlan::Rebuild { reads },
        None => ReadPlan::Lost,
    }
}

/// The slots that give every block of the stripe, for levels with parity: any as many as there are data columns
/// (the code is maximum distance separable). Parity comes last, since data alone or data with P is cheapest to compute.
fn plan_rebuild(geometry: &Geometry, stripe: Stripe, view: View) -> Option<SlotSet> {
    if geometry.parity_columns() == 0 {
        return None;
    }
    let columns = geometry.data_columns();
    let data = (0..columns).flat_map(|column| one_slot(geometry, stripe, column));
    let parity = geometry.p_slot(stripe).into_iter().chain(geometry.q_slot(stripe));
    view.pick(data.chain(parity), columns)
}

/// The slot of a data column, for levels without mirrors.
fn one_slot(geometry: &Geometry, stripe: Stripe, column: usize) -> Option<Slot> {
    geometry.copies(stripe, column).iter().next()
}
