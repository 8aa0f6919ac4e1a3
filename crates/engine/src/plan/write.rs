//! Write plans: which old blocks to read, how to make parity, what to write.
//!
//! Owns the cut of a request into bands of rows and the choice of a [`Method`] for each. Invariants: in a band the set
//! of written columns is the same in every row, so a whole band is one computation; old blocks are read only where they
//! are needed, from as few merely readable slots as possible and then from as few slots as possible. The first choice
//! between equals is [`Method::Reconstruct`] over [`Method::ReadModifyWrite`], because it does not build on old parity;
//! then [`Method::Recover`], which computes most.
//!
//! What is refused ([`Unwritable`]): the true contents of every slot that is readable after the write must be known, all
//! written columns must be readable directly or through parity, and every other column that could be read before must
//! be readable still. Parity that is no longer readable and cannot be computed (too much of the stripe is lost) stays an
//! erasure; it is never made up.

use std::ops::Range;

use thiserror::Error;

use super::{ColumnSet, View, plan_rebuild};
use crate::geometry::{Geometry, Role};
use crate::ids::{BLOCK_SIZE, SlotSet, Stripe};

/// How to write one logical range of a stripe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WritePlan {
    /// At most three, by ascending rows, disjoint. Neither their reads nor their writes depend on each other.
    pub bands: Vec<Band>,
}

/// Rows of a stripe in which the same data columns are overwritten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Band {
    /// Bytes inside the chunk, the same on every slot; block-aligned, not empty.
    pub rows: Range<u32>,
    /// Data columns that are overwritten in all of these rows.
    pub columns: ColumnSet,
    /// How parity is made.
    pub method: Method,
    /// Slots whose old blocks are read first. All of them are needed.
    pub reads: SlotSet,
    /// Data columns that are not written nor read, and whose contents must be computed from `reads` before parity can
    /// be. Empty but for [`Method::Recover`].
    pub recover: ColumnSet,
    /// Slots to which the new data of their column is written.
    pub data_writes: SlotSet,
    /// Whether P is written.
    pub write_p: bool,
    /// Whether Q is written.
    pub write_q: bool,
    /// Readable slots whose contents this band makes untrue, because they should change and are not writable. They
    /// must be out for reads of these rows from the first write of the band on, and durably so before the write is
    /// answered as flushed (rule F1). Empty where every readable slot is writable.
    pub stale: SlotSet,
}

/// How a band is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Levels without parity: copies are written, nothing is read.
    Plain,
    /// Every data column is new: parity is made from them, nothing is read.
    Full,
    /// Reads the old blocks of the written columns and of the parity that is written; applies the difference.
    ReadModifyWrite,
    /// Reads all other data columns; makes parity from scratch.
    Reconstruct,
    /// Reads as many slots as there are data columns, recovers the columns in [`Band::recover`] (every slot that is
    /// not read counts as missing), overlays the new data and makes parity from scratch.
    Recover,
    /// No parity can be written: just the data, nothing is read.
    DataOnly,
}

/// Why a range cannot be written as the view stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Unwritable {
    /// A written column could neither be stored nor be given back by parity afterwards.
    #[error("too few members take writes: new data would have no place")]
    NoPlace,
    /// A column that is not written can be read now only through a slot that would become untrue, because it should
    /// change and is not writable.
    #[error("too few members take writes: data that can still be read would be lost")]
    WouldLose,
    /// Readable parity would become untrue: it can neither be changed (the old data is unreadable) nor be made from
    /// scratch (another column of the stripe is lost). That parity gives no column back as things are. Once the caller
    /// has entered its blocks as lost (rule M5), so that they leave the view, the same write can be planned.
    #[error("parity cannot be kept true: other blocks of the stripe are lost")]
    ParityUnknown {
        /// The parity slots to be entered as lost.
        spoils: SlotSet,
    },
}

/// How to write the data bytes `within` of `stripe`, in multiples of [`BLOCK_SIZE`].
///
/// # Errors
/// [`Unwritable`], in any band; then nothing may be written. The module says what is refused and why.
///
/// # Panics
/// If `within` is empty, not aligned to blocks or not inside the stripe, or the view names slots that the group lacks.
pub fn plan_write(
    geometry: &Geometry,
    stripe: Stripe,
    within: Range<u64>,
    view: View,
) -> Result<WritePlan, Unwritable> {
    let aligned = within.start.is_multiple_of(BLOCK_SIZE) && within.end.is_multiple_of(BLOCK_SIZE);
    assert!(aligned && !within.is_empty(), "{within:?} is no range of whole blocks");
    assert!(within.end <= geometry.stripe_len(), "{within:?} past {}", geometry.stripe_len());
    let outside = view.readable.or(view.writable).minus(SlotSet::first(geometry.members()));
    assert!(outside.is_empty(), "the group has no slots {outside:?}");
    let bands = cut(u64::from(geometry.chunk()), within)
        .map(|(rows, columns)| Planner::new(geometry, stripe, view, columns).plan(rows))
        .collect::<Result<_, _>>()?;
    Ok(WritePlan { bands })
}

/// [`plan_write`] without reading the slots in `unread`, which hold what they should but do not give it just now.
///
/// Unlike a block that is listed lost they may be read again later, so the plan must not leave them untrue.
///
/// # Errors
/// As for [`plan_write`]; also [`Unwritable::ParityUnknown`] if parity among `unread` would not be written.
///
/// # Panics
/// As for [`plan_write`].
pub fn plan_write_around(
    geometry: &Geometry,
    stripe: Stripe,
    within: Range<u64>,
    view: View,
    unread: SlotSet,
) -> Result<WritePlan, Unwritable> {
    let around = View { readable: view.readable.minus(unread), ..view };
    let plan = plan_write(geometry, stripe, within, around)?;
    let p: SlotSet = geometry.p_slot(stripe).into_iter().collect();
    let q: SlotSet = geometry.q_slot(stripe).into_iter().collect();
    let left = plan.bands.iter().fold(SlotSet::EMPTY, |left, band| {
        let p = if band.write_p { SlotSet::EMPTY } else { p };
        let q = if band.write_q { SlotSet::EMPTY } else { q };
        left.or(p).or(q)
    });
    let spoils = left.and(unread).and(view.readable);
    if spoils.is_empty() { Ok(plan) } else { Err(Unwritable::ParityUnknown { spoils }) }
}

/// Member accesses of a plan: contiguous reads and contiguous writes, summed over the slots. Bands that touch are one
/// access to a slot that both use.
#[must_use]
pub fn accesses(plan: &WritePlan) -> (usize, usize) {
    // P and Q lie in the same slots in all bands and never where data lies.
    type Writes = (SlotSet, bool, bool);
    let (mut reads, mut writes) = (0, 0);
    let mut before: Option<(u32, SlotSet, Writes)> = None;
    for band in &plan.bands {
        let (joined_reads, (joined_data, joined_p, joined_q)) = match before {
            Some((end, reads, writes)) if end == band.rows.start => (reads, writes),
            _ => (SlotSet::EMPTY, (SlotSet::EMPTY, false, false)),
        };
        reads += band.reads.minus(joined_reads).len();
        writes += band.data_writes.minus(joined_data).len()
            + usize::from(band.write_p && !joined_p)
            + usize::from(band.write_q && !joined_q);
        let band_writes = (band.data_writes, band.write_p, band.write_q);
        before = Some((band.rows.end, band.reads, band_writes));
    }
    (reads, writes)
}

/// Cuts a logical range of a stripe into bands: only its first and last column can be partly written, so the set of
/// written columns changes at most at the row where the range starts and at the row where it ends.
fn cut(chunk: u64, within: Range<u64>) -> impl Iterator<Item = (Range<u32>, ColumnSet)> {
    let (first, last) = (within.start / chunk, (within.end - 1) / chunk);
    let (start_row, end_row) = (within.start - first * chunk, within.end - last * chunk);
    let (low, high) = (start_row.min(end_row), start_row.max(end_row));
    [0..low, low..high, high..chunk].into_iter().filter_map(move |rows| {
        let written = |column: &u64| within.contains(&(column * chunk + rows.start));
        let columns: ColumnSet =
            (first..=last).filter(written).map(|column| column as usize).collect();
        let rows = rows.start as u32..rows.end as u32;
        (!rows.is_empty() && !columns.is_empty()).then_some((rows, columns))
    })
}

/// One band's choice. Slots below are those of one stripe.
struct Planner<'a> {
    geometry: &'a Geometry,
    stripe: Stripe,
    view: View,
    columns: ColumnSet,
    /// Slots of the written columns.
    written: SlotSet,
    /// Slots of the other data columns.
    others: SlotSet,
    p: SlotSet,
    q: SlotSet,
}

/// A way to make parity.
#[derive(Clone, Copy)]
struct Way {
    method: Method,
    reads: SlotSet,
    /// Parity slots that are written.
    parity: SlotSet,
}

impl<'a> Planner<'a> {
    fn new(geometry: &'a Geometry, stripe: Stripe, view: View, columns: ColumnSet) -> Self {
        let slots = |written: bool| -> SlotSet {
            (0..geometry.data_columns())
                .filter(|column| columns.contains(*column) == written)
                .flat_map(|column| geometry.copies(stripe, column).iter())
                .collect()
        };
        Self {
            geometry,
            stripe,
            view,
            columns,
            written: slots(true),
            others: slots(false),
            p: geometry.p_slot(stripe).into_iter().collect(),
            q: geometry.q_slot(stripe).into_iter().collect(),
        }
    }

    fn plan(&self, rows: Range<u32>) -> Result<Band, Unwritable> {
        let way = self.way()?;
        let data_writes = self.written.and(self.view.writable);
        let changed = self.written.or(self.p).or(self.q);
        let stale = changed.and(self.view.readable).minus(data_writes.or(way.parity));
        let after = self.view.readable.or(data_writes).or(way.parity).minus(stale);
        self.check(after)?;
        let recover = match way.method {
            Method::Recover => self.columns_of(self.others.minus(way.reads)),
            _ => ColumnSet::EMPTY,
        };
        Ok(Band {
            rows,
            columns: self.columns,
            method: way.method,
            reads: way.reads,
            recover,
            data_writes,
            write_p: !self.p.and(way.parity).is_empty(),
            write_q: !self.q.and(way.parity).is_empty(),
            stale,
        })
    }

    /// The cheapest way to write all parity that takes writes; else what comes closest to it and keeps it true.
    fn way(&self) -> Result<Way, Unwritable> {
        let parity = self.p.or(self.q).and(self.view.writable);
        let way = |method, reads| Way { method, reads, parity };
        if self.geometry.parity_columns() == 0 {
            return Ok(way(Method::Plain, SlotSet::EMPTY));
        }
        if parity.is_empty() {
            return Ok(way(Method::DataOnly, SlotSet::EMPTY));
        }
        if self.others.is_empty() {
            return Ok(way(Method::Full, SlotSet::EMPTY));
        }
        let change = self.written.or(parity);
        let recover = plan_rebuild(self.geometry, self.stripe, self.view);
        let ways = [
            self.can_read(self.others).then(|| way(Method::Reconstruct, self.others)),
            self.can_read(change).then(|| way(Method::ReadModifyWrite, change)),
            recover.map(|reads| way(Method::Recover, reads)),
        ];
        let cost = |way: &Way| (way.reads.minus(self.view.preferred).len(), way.reads.len());
        match ways.into_iter().flatten().min_by_key(cost) {
            Some(way) => Ok(way),
            None => self.way_beyond_tolerance(parity),
        }
    }

    /// Some other column is lost, so parity cannot be made from scratch: what is readable of it is changed, the rest
    /// stays an erasure.
    fn way_beyond_tolerance(&self, parity: SlotSet) -> Result<Way, Unwritable> {
        let parity = parity.and(self.view.readable);
        let reads = self.written.or(parity);
        if parity.is_empty() {
            Ok(Way { method: Method::DataOnly, reads: SlotSet::EMPTY, parity })
        } else if self.can_read(reads) {
            Ok(Way { method: Method::ReadModifyWrite, reads, parity })
        } else if self.written.minus(self.view.writable).is_empty() {
            Err(Unwritable::ParityUnknown { spoils: parity })
        } else {
            Err(Unwritable::NoPlace)
        }
    }

    fn can_read(&self, slots: SlotSet) -> bool {
        slots.minus(self.view.readable).is_empty()
    }

    /// Refuses the write if `after`, the slots that are readable and true after it, do not give every written column
    /// and every other column that could be read before.
    fn check(&self, after: SlotSet) -> Result<(), Unwritable> {
        for column in 0..self.geometry.data_columns() {
            if self.gives(after, column) {
                continue;
            }
            if self.columns.contains(column) {
                return Err(Unwritable::NoPlace);
            }
            if self.gives(self.view.readable, column) {
                return Err(Unwritable::WouldLose);
            }
        }
        Ok(())
    }

    /// Whether a data column can be read from, or computed out of, the blocks of `slots`.
    fn gives(&self, slots: SlotSet, column: usize) -> bool {
        let copies = self.geometry.copies(self.stripe, column);
        let mirrored = self.geometry.parity_columns() == 0;
        !copies.and(slots).is_empty() || !mirrored && slots.len() >= self.geometry.data_columns()
    }

    /// The data columns that the data slots `slots` hold.
    fn columns_of(&self, slots: SlotSet) -> ColumnSet {
        slots
            .iter()
            .filter_map(|slot| match self.geometry.role(self.stripe, slot) {
                Role::Data(column) => Some(column),
                Role::P | Role::Q => None,
            })
            .collect()
    }
}
