//! Which bytes of the data space are listed lost.
//!
//! Owns the way back from runs of slots to ranges of the data space. Changes nothing. Parity that is lost is no byte of the data space.

use std::ops::Range;

use super::super::Group;
use crate::format::page::UNPROVED;
use crate::geometry::{Geometry, Place, Role};
use crate::ids::{BLOCK_SIZE, Slot};
use crate::runtime::Env;

/// Pieces of chunks that are looked at: a slot that is lost as a whole is not gone through chunk by chunk.
const PIECES_MAX: usize = 1 << 16;

/// What is listed lost of a group's data space.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct LostData {
    /// Ranges of its bytes, in order, that do not touch.
    pub(crate) ranges: Vec<Range<u64>>,
    /// There is more than was looked at.
    pub(crate) more: bool,
}

impl<E: Env> Group<E> {
    /// What of the data space is listed lost.
    pub(crate) fn lost_data(&self) -> LostData {
        let runs = self.lost.runs.borrow();
        let lost = runs.iter().filter(|(_, run)| run.is_lost());
        data_of(&self.geometry, lost.map(|((slot, start), run)| (*slot, *start..run.end)))
    }
}

/// The bytes of the data space behind runs of blocks of slots.
fn data_of(geometry: &Geometry, runs: impl Iterator<Item = (Slot, Range<u64>)>) -> LostData {
    let chunk = u64::from(geometry.chunk());
    let end = geometry.stripes() * chunk;
    let mut pieces: Vec<Range<u64>> = Vec::new();
    let mut looked_at = 0;
    let mut more = false;
    for (slot, run) in runs {
        let slot = Slot(slot.0 & !UNPROVED);
        let mut at = run.start * BLOCK_SIZE;
        let run_end = (run.end * BLOCK_SIZE).min(end);
        while at < run_end {
            if looked_at == PIECES_MAX {
                more = true;
                break;
            }
            looked_at += 1;
            let next = ((at / chunk + 1) * chunk).min(run_end);
            let (stripe, row) = geometry.at_address(at);
            if let Role::Data(column) = geometry.role(stripe, slot) {
                let start = geometry.offset_of(Place { stripe, column, row });
                pieces.push(start..start + (next - at));
            }
            at = next;
        }
    }
    pieces.sort_by_key(|piece| piece.start);
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for piece in pieces {
        match ranges.last_mut() {
            Some(last) if piece.start <= last.end => last.end = last.end.max(piece.end),
            _ => ranges.push(piece),
        }
    }
    LostData { ranges, more }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Level;
    use crate::ids::Stripe;

    const CHUNK: u64 = 16 << 10;

    fn geometry(level: Level, members: usize) -> Geometry {
        Geometry::new(level, members, CHUNK as u32, 64).expect("a geometry")
    }

    #[test]
    fn copies_of_a_block_are_one_and_parity_is_none() {
        let mirror = geometry(Level::Raid1, 2);
        let runs = [(Slot(0), 4..6), (Slot(1 | UNPROVED), 5..7)];
        let lost = data_of(&mirror, runs.into_iter());
        let whole = 4 * 4096..7 * 4096;
        assert_eq!(lost, LostData { ranges: Vec::from([whole]), more: false });
        let parity = geometry(Level::Raid5, 3);
        let p = parity.p_slot(Stripe(0)).expect("it has parity");
        assert_eq!(data_of(&parity, std::iter::once((p, 0..4))), LostData::default());
    }

    #[test]
    fn every_byte_listed_is_one_of_the_slot() {
        let geometry = geometry(Level::Raid6, 5);
        let run = 2..40;
        let lost = data_of(&geometry, std::iter::once((Slot(2), run.clone())));
        let listed = |offset| lost.ranges.iter().any(|range| range.contains(&offset));
        for offset in (0..geometry.capacity()).step_by(4096) {
            let Place { stripe, column, row } = geometry.locate(offset);
            let held = geometry.copies(stripe, column).contains(Slot(2));
            let block = geometry.member_address(stripe, row) / 4096;
            assert_eq!(listed(offset), held && run.contains(&block), "at {offset}");
        }
    }

    #[test]
    fn a_huge_loss_is_cut() {
        let geometry = Geometry::new(Level::Raid0, 2, 4096, 1 << 20).expect("a geometry");
        let lost = data_of(&geometry, std::iter::once((Slot(0), 0..1 << 20)));
        assert!(lost.more && lost.ranges.len() == PIECES_MAX);
    }
}
