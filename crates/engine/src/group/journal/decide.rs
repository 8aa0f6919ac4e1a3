//! Which records of a journal count after a crash (rule J2).
//!
//! Owns the pure decision from the frames that the members hold to the records that are applied. Invariants: of the frames only those of the last start and
//! from the durable tail on count; a record of the newest batch counts if every member that is there and takes part holds it, or does not read
//! where it may hold it: its writes in place began only when all held it; an older batch was durable before the next began, so what cannot
//! be read of it was there. What the newest batch tells beyond that is handed on as doubtful: the rows in place say whether it had begun.

use std::collections::{BTreeMap, BTreeSet};

use crate::buf::Buf;
use crate::format::journal::{Frame, Piece};
use crate::ids::Slot;

/// A frame as found, with the payload that fits its checksums: by record and place of the piece.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) frame: Frame,
    pub(super) payload: BTreeMap<(u16, usize), Buf>,
    /// Blocks of the payload did not read.
    pub(super) unread: bool,
}

/// What the journal of one member holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    pub(super) frames: Vec<Found>,
    /// A block in which the header of one more frame may lie did not read.
    pub(super) unread: bool,
}

/// Where a piece of a record that counts can be had.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// The new contents.
    Payload(Buf),
    /// In place, old, new or both by sectors; only the new checksums were told.
    InPlace,
    /// The member is there, but its part of the record cannot be read.
    Unreadable,
    /// The member is not there.
    Missing,
}

/// A record that counts, or may.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) pieces: Vec<(Piece, Source)>,
    /// Of the newest batch, and not held by all: it counts only if its writes in place had begun, so that it was held by all and is damaged.
    pub(super) doubtful: bool,
}

/// The records that a start has to make good, newest first, those of one batch never overlapping, from what each slot's member holds; `None`: the member is not there, or holds nothing that may be believed.
pub(super) fn decide(slots: &[Option<Held>]) -> Vec<Counting> {
    let frames = || slots.iter().flatten().flat_map(|held| &held.frames).map(|found| &found.frame);
    let Some(epoch) = frames().map(|f| f.epoch).max() else { return Vec::new() };
    let of_epoch = || frames().filter(|f| f.epoch == epoch);
    let tail = of_epoch().map(|f| f.tail).max().unwrap_or(0);
    let newest = of_epoch().map(|f| f.batch).max().unwrap_or(0);
    let live = |found: &&Found| found.frame.epoch == epoch && found.frame.batch >= tail;

    let mut told: BTreeMap<(u64, u16), &[Piece]> = BTreeMap::new();
    let mut held: BTreeMap<(u64, u16, Slot), &Found> = BTreeMap::new();
    for (at, slot) in slots.iter().enumerate() {
        for found in slot.iter().flat_map(|held| &held.frames).filter(live) {
            for record in &found.frame.records {
                told.insert((found.frame.batch, record.index), &record.pieces);
                held.insert((found.frame.batch, record.index, Slot(at as u8)), found);
            }
        }
    }
    let mut records = Vec::new();
    for ((batch, index), pieces) in told.into_iter().rev() {
        let payload = |at: usize, slot: Slot| {
            held.get(&(batch, index, slot))?.payload.get(&(index, at)).cloned()
        };
        let source = |(at, piece): (usize, &Piece)| {
            let there = slots.get(usize::from(piece.slot.0)).is_some_and(Option::is_some);
            match (there, piece.has_payload) {
                (false, _) => Source::Missing,
                (true, true) => payload(at, piece.slot).map_or(Source::Unreadable, Source::Payload),
                (true, false) => Source::InPlace,
            }
        };
        let pieces: Vec<(Piece, Source)> =
            pieces.iter().enumerate().map(|piece| (piece.1.clone(), source(piece))).collect();
        let part_in: BTreeSet<Slot> = pieces
            .iter()
            .filter(|(_, s)| !matches!(s, Source::Missing))
            .map(|(p, _)| p.slot)
            .collect();
        let is_there = |slot: Slot| {
            let Some(Some(journal)) = slots.get(usize::from(slot.0)) else { return true };
            held.get(&(batch, index, slot)).map_or(journal.unread, |found| {
                let lacks = |(piece, source): &(Piece, Source)| {
                    piece.slot == slot && matches!(source, Source::Unreadable)
                };
                found.unread || !pieces.iter().any(lacks)
            })
        };
        let doubtful = batch == newest && !part_in.iter().all(|slot| is_there(*slot));
        records.push(Counting { pieces, doubtful });
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::journal::Record;

    fn piece(slot: u8, start: u64, has_payload: bool) -> Piece {
        Piece { slot: Slot(slot), has_payload, start, crcs: vec![u32::from(slot)] }
    }

    fn found(batch: u64, tail: u64, pieces: &[Piece], own: &[usize]) -> Found {
        let records = vec![Record { index: 0, pieces: pieces.to_vec() }];
        let frame = Frame { epoch: 5, batch, tail, place: 2, payload: 1, records };
        let payload = own.iter().map(|at| ((0, *at), Buf::zeroed(4096))).collect();
        Found { frame, payload, unread: false }
    }

    fn held(frames: Vec<Found>) -> Option<Held> {
        Some(Held { frames, unread: false })
    }

    /// One word for each record, one letter for each piece, and a question mark where it is doubtful.
    fn sources(records: &[Counting]) -> Vec<String> {
        let letter = |source: &Source| match source {
            Source::Payload(_) => 'p',
            Source::InPlace => 'i',
            Source::Unreadable => 'u',
            Source::Missing => 'm',
        };
        let mark = |r: &Counting| r.doubtful.then_some('?');
        let word = |r: &Counting| {
            r.pieces.iter().map(|(_, source)| letter(source)).chain(mark(r)).collect()
        };
        records.iter().map(word).collect()
    }

    #[test]
    fn the_newest_batch_counts_only_if_every_member_that_is_there_holds_it() {
        let pieces = [piece(0, 7, true), piece(2, 7, true)];
        let (d, p) = (found(3, 1, &pieces, &[0]), found(3, 1, &pieces, &[1]));
        let all = [held(vec![d.clone()]), held(vec![]), held(vec![p.clone()])];
        assert_eq!(sources(&decide(&all)), ["pp"]);
        let torn = [held(vec![]), held(vec![]), held(vec![p.clone()])];
        assert_eq!(
            sources(&decide(&torn)),
            ["up?"],
            "its writes in place never began, or it is damaged"
        );
        let lost = [None, held(vec![]), held(vec![p.clone()])];
        assert_eq!(sources(&decide(&lost)), ["mp"]);
        let mut damaged = d;
        damaged.payload.clear();
        let cut = [held(vec![damaged]), held(vec![]), held(vec![p])];
        assert_eq!(sources(&decide(&cut)), ["up?"]);
    }

    #[test]
    fn what_does_not_read_may_have_held_the_newest_batch() {
        let pieces = [piece(0, 7, true), piece(2, 7, true)];
        let (mut d, p) = (found(3, 1, &pieces, &[0]), found(3, 1, &pieces, &[1]));
        let unread = Some(Held { frames: vec![], unread: true });
        let header = [unread, held(vec![]), held(vec![p.clone()])];
        assert_eq!(sources(&decide(&header)), ["up"]);
        d.payload.clear();
        d.unread = true;
        let payload = [held(vec![d]), held(vec![]), held(vec![p.clone()])];
        assert_eq!(sources(&decide(&payload)), ["up"]);
        let elsewhere = Some(Held { frames: vec![], unread: true });
        let another = [held(vec![]), elsewhere, held(vec![p])];
        assert_eq!(
            sources(&decide(&another)),
            ["up?"],
            "a member that takes no part proves nothing"
        );
    }

    #[test]
    fn a_batch_that_was_followed_counts_also_where_it_cannot_be_read() {
        let pieces = [piece(0, 7, true), piece(2, 7, true)];
        let p = found(3, 1, &pieces, &[1]);
        let next = found(4, 1, &[piece(1, 9, true)], &[0]);
        let decision = decide(&[held(vec![]), held(vec![next]), held(vec![p])]);
        assert_eq!(sources(&decision), ["p", "up"]);
    }

    #[test]
    fn what_the_tail_has_passed_and_what_an_earlier_start_left_count_no_more() {
        let pieces = [piece(0, 7, true)];
        let (old, new) = (found(3, 1, &pieces, &[0]), found(4, 4, &pieces, &[0]));
        assert_eq!(decide(&[held(vec![old.clone(), new])]).len(), 1);
        let mut opening = found(1, 1, &[], &[]);
        (opening.frame.epoch, opening.frame.records) = (6, Vec::new());
        assert!(decide(&[held(vec![old, opening])]).is_empty());
        assert!(decide(&[held(vec![]), None]).is_empty());
    }

    #[test]
    fn full_stripes_tell_checksums_and_stay_in_place() {
        let pieces = [piece(0, 7, false), piece(1, 7, false)];
        let (a, b) = (found(3, 1, &pieces, &[]), found(3, 1, &pieces, &[]));
        let decision = decide(&[held(vec![a.clone()]), held(vec![b])]);
        assert_eq!(sources(&decision), ["ii"]);
        assert_eq!(sources(&decide(&[held(vec![a.clone()]), held(vec![])])), ["ii?"]);
        assert_eq!(sources(&decide(&[held(vec![a]), None])), ["im"]);
    }
}
