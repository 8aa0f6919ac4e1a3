//! An exhaustive model of the journal's order (rules J1, J2, J3) around the shipped decider.
//!
//! Owns a row of two data blocks and their parity, up to three writes to it, each its own batch, and every way in which a crash may leave
//! frames and blocks on three disks, of which one may be missing or have lost its frame of the last batch. Invariant checked: each data block, read or computed, is a version from the
//! last flush on, and the parity fits. Each rule, when it is weakened, must be found out.

use std::collections::BTreeMap;

use super::decide::{Counting, Found, Held, Source, decide};
use crate::buf::Buf;
use crate::format::journal::{Frame, Piece, Record};
use crate::ids::Slot;

/// Which rule the modelled engine breaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Weak {
    Nothing,
    /// The newest batch is taken to be durable without being held by all.
    NewestIsBelieved,
    /// Of a row only the newest record is applied, not of each block.
    OneRecordPerRow,
    /// Writes in place begin before the frames are durable.
    InPlaceFirst,
    /// The tail passes batches before their writes in place are flushed.
    TailWithoutFlush,
    /// Records of before an emptied journal are replayed.
    EpochIgnored,
    /// A frame of the newest batch that does not read, or is damaged, is taken for one that was cut.
    DamagedIsCut,
    /// Older records are applied before it is looked whether a newest batch that not all hold is in place.
    OlderComeFirst,
    /// A newest batch that not all hold is applied, whether it had begun in place or not.
    CutIsApplied,
}

const P: usize = 2;

/// The blocks of a row: two of data, and their parity.
type Row = [u8; 3];

fn write(row: Row, slot: usize, value: u8) -> Row {
    let mut next = row;
    next[slot] = value;
    next[P] = next[0] ^ next[1];
    next
}

/// A history: the slot that each batch writes, how many batches were flushed in place, and whether frames of an earlier start are about.
#[derive(Clone, Debug)]
struct History {
    slots: Vec<usize>,
    flushed: usize,
    /// Of the batches that were flushed, how many the frames tell.
    told: usize,
    older: bool,
}

impl History {
    /// The row after so many batches.
    fn row(&self, batches: usize) -> Row {
        let first = [0x80, 0x40, 0xc0];
        let step = |row, (at, slot): (usize, &usize)| write(row, *slot, 1 << at | 0x10 << slot);
        self.slots[..batches].iter().enumerate().fold(first, step)
    }

    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for count in 1..=3 {
            for bits in 0..1 << count {
                let slots: Vec<usize> = (0..count).map(|at| bits >> at & 1).collect();
                for flushed in 0..=count {
                    for (told, older) in (0..=flushed).flat_map(|t| [(t, false), (t, true)]) {
                        all.push(Self { slots: slots.clone(), flushed, told, older });
                    }
                }
            }
        }
        all
    }

    /// The frame of a batch on a disk.
    fn frame(&self, batch: usize, disk: usize, weak: Weak) -> Found {
        let row = self.row(batch + 1);
        let piece = |slot: usize| Piece {
            slot: Slot(slot as u8),
            has_payload: true,
            start: 0,
            crcs: vec![row[slot].into()],
        };
        let changed = [self.slots[batch], P];
        let at = changed.iter().position(|slot| *slot == disk).expect("it takes part");
        let tail = match weak {
            Weak::TailWithoutFlush => batch as u64 + 1,
            _ => self.told.min(batch) as u64 + 1,
        };
        let pieces = changed.iter().map(|slot| piece(*slot)).collect();
        let records = vec![Record { index: 0, pieces }];
        let frame =
            Frame { epoch: 2, batch: batch as u64 + 1, tail, place: 2, payload: 1, records };
        Found {
            frame,
            payload: BTreeMap::from([((0, at), Buf::copy_of(&[row[disk]]))]),
            unread: false,
        }
    }

    /// A frame of the start before, which was replayed, and an empty one that opened this start.
    fn left_over(disk: usize, weak: Weak) -> [Found; 2] {
        let pieces = [0, P].map(|slot| Piece {
            slot: Slot(slot as u8),
            has_payload: true,
            start: 0,
            crcs: vec![0],
        });
        let records = vec![Record { index: 0, pieces: pieces.to_vec() }];
        let epoch = if weak == Weak::EpochIgnored { 2 } else { 1 };
        let batch = if weak == Weak::EpochIgnored { 1 } else { 9 };
        let at = usize::from(disk == P);
        let old = Frame { epoch, batch, tail: 1, place: 5, payload: 1, records };
        let payload = BTreeMap::from([((0, at), Buf::copy_of(&[0x7f]))]);
        let opening =
            Frame { epoch: 2, batch: 1, tail: 1, place: 0, payload: 0, records: Vec::new() };
        [
            Found { frame: old, payload, unread: false },
            Found { frame: opening, payload: BTreeMap::new(), unread: false },
        ]
    }
}

/// What a crash leaves: the frames of the last batch and the writes in place that are on disk, as sets of disks.
#[derive(Clone, Copy, Debug)]
struct Crash {
    /// Disks on which the frame of the last batch is whole.
    framed: usize,
    /// For each batch that was not flushed, the disks on which its write in place survives.
    placed: usize,
    missing: Option<usize>,
    /// The disk that held the frame of the last batch, and whether it reads as something else (`true`) or not at all.
    damaged: Option<(usize, bool)>,
    /// A first replay was cut after so many writes, before the one that is judged.
    cut: Option<usize>,
}

/// Whether a crash could leave this, by the rules that the engine keeps.
fn possible(history: &History, crash: Crash, weak: Weak) -> bool {
    let last = history.slots.len() - 1;
    // Nothing is said of disks that a batch does not write, nor of batches that were flushed.
    let open = |batch: usize| match batch < history.flushed {
        true => 0,
        false => (1 << history.slots[batch] | 1 << P) << (3 * batch),
    };
    if crash.placed & !(0..=last).fold(0, |bits, batch| bits | open(batch)) != 0 {
        return false;
    }
    let changed = 1 << history.slots[last] | 1 << P;
    let complete = crash.framed & changed == changed;
    let touched = crash.placed >> (3 * last) & 7;
    let held = |(disk, _): (usize, bool)| complete && changed >> disk & 1 == 1;
    // One fault: a disk is missing, or a frame is damaged.
    let damage = crash.damaged.is_none_or(|at| held(at) && crash.missing.is_none());
    let begun = touched != 0 || history.flushed > last;
    let order = complete || !begun || weak == Weak::InPlaceFirst;
    crash.framed & !changed == 0 && order && damage
}

/// The blocks as the crash leaves them.
fn blocks(history: &History, crash: Crash) -> Row {
    let mut row = history.row(history.flushed);
    for batch in history.flushed..history.slots.len() {
        let after = history.row(batch + 1);
        for disk in [history.slots[batch], P] {
            if crash.placed >> (3 * batch + disk) & 1 == 1 {
                row[disk] = after[disk];
            }
        }
    }
    row
}

/// What a start finds in the journals.
fn journals(history: &History, crash: Crash, weak: Weak) -> Vec<Option<Held>> {
    let last = history.slots.len() - 1;
    let journal = |disk: usize| {
        let mut frames = Vec::new();
        if history.older && disk != 1 {
            frames.extend(History::left_over(disk, weak));
        }
        let damaged = crash.damaged.is_some_and(|(at, _)| at == disk);
        for batch in 0..=last {
            let takes_part = disk == P || disk == history.slots[batch];
            if takes_part && (batch < last || crash.framed >> disk & 1 == 1 && !damaged) {
                frames.push(history.frame(batch, disk, weak));
            }
        }
        if weak == Weak::NewestIsBelieved {
            let batch = last as u64 + 2;
            let proof =
                Frame { epoch: 2, batch, tail: 1, place: 9, payload: 0, records: Vec::new() };
            frames.push(Found { frame: proof, payload: BTreeMap::new(), unread: false });
        }
        let unread = crash.damaged == Some((disk, false)) && weak != Weak::DamagedIsCut;
        (crash.missing != Some(disk)).then_some(Held { frames, unread })
    };
    (0..3).map(journal).collect()
}

/// The disks of a row, with the writes that are left before the replay is cut.
struct Disks {
    row: Row,
    left: usize,
}

impl Disks {
    fn write(&mut self, slot: usize, value: u8) {
        if self.left > 0 {
            self.left -= 1;
            self.row[slot] = value;
        }
    }

    /// Of each block the newest record; what a present disk lost of it is computed where it is not in place.
    fn apply(&mut self, records: Vec<Counting>, weak: Weak) {
        let mut seen = [false; 3];
        let mut lost = Vec::new();
        for record in records {
            for (piece, source) in record.pieces {
                let slot = usize::from(piece.slot.0);
                if std::mem::replace(&mut seen[slot], true) {
                    continue;
                }
                match source {
                    Source::Payload(data) => self.write(slot, data[0]),
                    Source::Unreadable => lost.push((slot, piece.crcs[0])),
                    Source::InPlace | Source::Missing => {}
                }
            }
            if weak == Weak::OneRecordPerRow {
                break;
            }
        }
        for (slot, crc) in lost {
            let others = (0..3).filter(|at| *at != slot);
            let computed = others.fold(0, |sum, at| sum ^ self.row[at]);
            if u32::from(self.row[slot]) != crc && u32::from(computed) == crc {
                self.write(slot, computed);
            }
        }
    }
}

/// Whether a block in place is the new one of a doubtful record, where an older record tells another.
fn newest_is_in_place(records: &[Counting], crash: Crash, row: Row) -> bool {
    let pieces = |doubtful: bool| {
        let records = records.iter().filter(move |record| record.doubtful == doubtful);
        records.flat_map(|record| record.pieces.iter().map(|(piece, _)| piece))
    };
    pieces(true).any(|piece| {
        let older = pieces(false).find(|older| older.slot == piece.slot);
        let slot = usize::from(piece.slot.0);
        older.is_some_and(|older| older.crcs != piece.crcs)
            && crash.missing != Some(slot)
            && u32::from(row[slot]) == piece.crcs[0]
    })
}

/// Replays as the engine does: what counts for certain, then what is doubtful and had begun.
fn replay(history: &History, crash: Crash, weak: Weak) -> Row {
    let mut disks = Disks { row: blocks(history, crash), left: usize::MAX };
    for cut in crash.cut.into_iter().chain([usize::MAX]) {
        // The member that is missing is lost after the replay that was cut.
        let replaying = Crash { missing: crash.missing.filter(|_| cut == usize::MAX), ..crash };
        disks.left = cut;
        let mut records = decide(&journals(history, replaying, weak));
        if weak != Weak::OlderComeFirst && newest_is_in_place(&records, replaying, disks.row) {
            records.iter_mut().for_each(|record| record.doubtful = false);
        }
        let (doubtful, sure): (Vec<_>, Vec<_>) = records.into_iter().partition(|r| r.doubtful);
        disks.apply(sure, weak);
        let [a, b, p] = disks.row;
        let begun = match weak {
            Weak::DamagedIsCut => false,
            Weak::CutIsApplied => true,
            _ => replaying.missing.is_none() && p != a ^ b,
        };
        if begun {
            disks.apply(doubtful, weak);
        }
    }
    disks.row
}

/// What is wrong after the replay, if anything is.
fn fault(history: &History, crash: Crash, weak: Weak) -> Option<String> {
    let row = replay(history, crash, weak);
    let allowed = |slot: usize, value: u8| {
        (history.flushed..=history.slots.len()).any(|batch| history.row(batch)[slot] == value)
    };
    for slot in [0, 1] {
        let value = if crash.missing == Some(slot) { row[P] ^ row[1 - slot] } else { row[slot] };
        if !allowed(slot, value) {
            return Some(format!("block {slot} is {value:#x}: {history:?}, {crash:?}"));
        }
    }
    let whole = crash.missing.is_some() || row[P] == row[0] ^ row[1];
    (!whole).then(|| format!("the parity does not fit: {history:?}, {crash:?}"))
}

type Faults = (Option<usize>, Option<(usize, bool)>, Option<usize>);

/// What may go wrong beside the crash.
fn faults() -> Vec<Faults> {
    let missing = [None, Some(0), Some(1), Some(P)].map(|at| (at, None));
    let damaged = [0, 1, P].into_iter().flat_map(|at| [(at, false), (at, true)]);
    let kinds = missing.into_iter().chain(damaged.map(|at| (None, Some(at))));
    let cuts = [None, Some(0), Some(1), Some(2), Some(3)];
    kinds.flat_map(|(missing, damaged)| cuts.map(|cut| (missing, damaged, cut))).collect()
}

/// Goes through everything; answers how many states there were, and the first fault.
fn search(weak: Weak) -> (u64, Option<String>) {
    let mut states = 0;
    for history in History::all() {
        for framed in 0..8 {
            for placed in 0..1 << (3 * history.slots.len()) {
                for (missing, damaged, cut) in faults() {
                    let crash = Crash { framed, placed, missing, damaged, cut };
                    if !possible(&history, crash, weak) {
                        continue;
                    }
                    states += 1;
                    if let Some(what) = fault(&history, crash, weak) {
                        return (states, Some(what));
                    }
                }
            }
        }
    }
    (states, None)
}

#[test]
fn j2_every_crash_with_any_member_missing_is_made_good() {
    let (states, fault) = search(Weak::Nothing);
    assert_eq!(fault, None);
    assert!(states > 10_000, "{states} states");
}

#[test]
fn each_rule_is_needed() {
    for weak in [
        Weak::NewestIsBelieved,
        Weak::OneRecordPerRow,
        Weak::InPlaceFirst,
        Weak::TailWithoutFlush,
        Weak::EpochIgnored,
        Weak::DamagedIsCut,
        Weak::OlderComeFirst,
        Weak::CutIsApplied,
    ] {
        assert!(search(weak).1.is_some(), "{weak:?} is not found out");
    }
}
