//! What is on a simulated disk: the durable image and what a power loss may still take away.
//!
//! Owns the bytes. Writes land in the current image at once and wait, in the order they took effect, until a flush makes
//! them durable. Invariants: after a crash each 512-byte sector holds its durable content or that of one later write,
//! never anything else; what a successful flush covered is never lost. Whether a request succeeds at all is decided by
//! the faults, kept apart in `faults.rs`.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use self::sparse::Sparse;
use crate::rng::Rng;

mod sparse;

/// Bytes that a disk writes all or not at all.
pub const SECTOR: u64 = 512;

/// What a power loss does to writes that no flush made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// All are lost.
    All,
    /// All are kept: the process was killed, the machine went on.
    Nothing,
    /// Each write is kept or lost as a whole.
    Writes,
    /// Each 512-byte sector of each write is kept or lost by itself.
    Sectors,
}

impl Loss {
    /// Any of them.
    pub fn random(rng: &mut Rng) -> Self {
        rng.pick(&[Self::All, Self::Nothing, Self::Writes, Self::Sectors, Self::Sectors])
    }
}

/// A write that took effect and is not yet durable.
struct Pending {
    number: u64,
    offset: u64,
    data: Vec<u8>,
}

/// The bytes of one disk.
pub struct Medium {
    /// What every later crash leaves at least.
    durable: Sparse,
    /// What reads return.
    current: Sparse,
    pending: VecDeque<Pending>,
    /// Ranges that a failed flush gave up: readable until the next crash, durable never.
    forsaken: Vec<Range<usize>>,
    /// Ranges that a failed flush lost; still readable until the failure has been heard.
    doomed: Vec<Range<usize>>,
    /// Sectors that hold what nobody wrote there, without any error, and what stood there before; `None` where a write never came.
    wrong: BTreeMap<u64, Option<[u8; SECTOR as usize]>>,
    numbers: u64,
}

impl Medium {
    /// A medium of `size` bytes, all zero.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let (durable, current) = (Sparse::new(size as usize), Sparse::new(size as usize));
        Self {
            durable,
            current,
            pending: VecDeque::new(),
            forsaken: Vec::new(),
            doomed: Vec::new(),
            wrong: BTreeMap::new(),
            numbers: 0,
        }
    }

    /// A medium holding `image`, all of it durable.
    #[must_use]
    pub fn from_image(image: Vec<u8>) -> Self {
        let current = Sparse::from_bytes(&image);
        Self {
            durable: current.clone(),
            current,
            pending: VecDeque::new(),
            forsaken: Vec::new(),
            doomed: Vec::new(),
            wrong: BTreeMap::new(),
            numbers: 0,
        }
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.current.len() as u64
    }

    /// What a read of `len` bytes returns.
    #[must_use]
    pub fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.read_into(offset, &mut bytes);
        bytes
    }

    /// Reads into `bytes`.
    pub fn read_into(&self, offset: u64, bytes: &mut [u8]) {
        self.current.read_into(offset as usize, bytes);
    }

    /// A copy of what reads return.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.read(0, self.current.len())
    }

    /// Whether any sector silently holds something else than what was written there last.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// Lets a durable sector hold other bytes, without any error. Refused where a write is on its way to the medium: a disk that loses
    /// power *and* corrupts the very sector is one fault more.
    pub fn corrupt(&mut self, offset: u64, bytes: &[u8; SECTOR as usize]) -> bool {
        let range = offset as usize..(offset + SECTOR) as usize;
        let sector = offset / SECTOR;
        let meets = |r: &Range<usize>| r.start < range.end && range.start < r.end;
        let on_its_way = self
            .pending
            .iter()
            .any(|w| meets(&(w.offset as usize..w.offset as usize + w.data.len())));
        if on_its_way
            || self.forsaken.iter().chain(&self.doomed).any(meets)
            || self.wrong.contains_key(&sector)
        {
            return false;
        }
        let mut before = [0; SECTOR as usize];
        self.durable.read_into(range.start, &mut before);
        self.wrong.insert(sector, Some(before));
        self.durable.write(range.start, bytes);
        self.current.write(range.start, bytes);
        true
    }

    /// A write that the disk says it took, and did not.
    pub fn lose_write(&mut self, offset: u64, len: usize) {
        for sector in offset / SECTOR..(offset + len as u64) / SECTOR {
            self.wrong.entry(sector).or_insert(None);
        }
    }

    /// Whatever comes there, the sectors hold what is written; should that be lost, what stood there before they went wrong.
    fn heal(&mut self, offset: u64, len: usize) {
        for sector in offset / SECTOR..(offset + len as u64) / SECTOR {
            if let Some(Some(before)) = self.wrong.remove(&sector) {
                self.durable.write((sector * SECTOR) as usize, &before);
            }
        }
    }

    /// Lets a write take effect.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        if !self.wrong.is_empty() {
            self.heal(offset, data.len());
        }
        self.current.write(offset as usize, data);
        self.numbers += 1;
        self.pending.push_back(Pending { number: self.numbers, offset, data: data.to_vec() });
    }

    /// Lets any subset of a write's sectors take effect, as a failed or interrupted write may.
    pub fn write_some(&mut self, offset: u64, data: &[u8], loss: Loss, rng: &mut Rng) {
        for (at, len) in surviving(offset, data.len(), loss, rng) {
            let from = (at - offset) as usize;
            self.write(at, &data[from..from + len]);
        }
    }

    /// The writes that a flush called now must cover.
    #[must_use]
    pub fn mark(&self) -> u64 {
        self.numbers
    }

    /// Makes the writes up to `mark` durable.
    pub fn flush(&mut self, mark: u64) {
        while let Some(write) = self.pending.pop_front_if(|w| w.number <= mark) {
            self.durable.write(write.offset as usize, &write.data);
        }
    }

    /// Fails a flush: each sector up to `mark` becomes durable, is lost, or stays readable until the next crash and is lost
    /// then. No later flush makes it durable. What is lost vanishes with [`Medium::failure_heard`]: before that nobody could
    /// know better than to read it.
    pub fn fail_flush(&mut self, mark: u64, rng: &mut Rng) {
        while let Some(write) = self.pending.pop_front_if(|w| w.number <= mark) {
            for (i, sector) in write.data.chunks(SECTOR as usize).enumerate() {
                let at = write.offset as usize + i * SECTOR as usize;
                let range = at..at + sector.len();
                match rng.below(3) {
                    0 => self.durable.write(range.start, sector),
                    1 => self.doomed.push(range),
                    _ => self.forsaken.push(range),
                }
            }
        }
    }

    /// The failure of a flush was heard by whoever asked for it: what it lost is gone.
    pub fn failure_heard(&mut self) {
        for range in self.doomed.drain(..) {
            self.current.take_from(&self.durable, range);
        }
        // What was written since came later.
        for write in &self.pending {
            self.current.write(write.offset as usize, &write.data);
        }
    }

    /// A power loss: what was not durable is kept or lost as `loss` says; `in_flight` are writes that had not yet taken
    /// effect and may have reached the medium in part.
    pub fn crash(&mut self, in_flight: &[(u64, &[u8])], loss: Loss, rng: &mut Rng) {
        let pending = std::mem::take(&mut self.pending);
        let mut touched: Vec<Range<usize>> = std::mem::take(&mut self.forsaken);
        touched.append(&mut self.doomed);
        for write in &pending {
            let at = write.offset as usize;
            touched.push(at..at + write.data.len());
            for (offset, len) in surviving(write.offset, write.data.len(), loss, rng) {
                let from = (offset - write.offset) as usize;
                self.durable.write(offset as usize, &write.data[from..from + len]);
            }
        }
        for &(offset, data) in in_flight {
            // Even a disk that keeps everything it took has not taken all of a request in flight.
            let loss = if loss == Loss::Nothing { Loss::Sectors } else { loss };
            touched.push(offset as usize..offset as usize + data.len());
            for (at, len) in surviving(offset, data.len(), loss, rng) {
                let from = (at - offset) as usize;
                self.durable.write(at as usize, &data[from..from + len]);
            }
        }
        for range in touched {
            self.current.take_from(&self.durable, range);
        }
        assert!(self.pending.is_empty() && self.forsaken.is_empty());
    }
}

/// The runs of sectors of a write that survive.
fn surviving(offset: u64, len: usize, loss: Loss, rng: &mut Rng) -> Vec<(u64, usize)> {
    match loss {
        Loss::All => Vec::new(),
        Loss::Nothing => vec![(offset, len)],
        Loss::Writes => {
            if rng.coin() {
                vec![(offset, len)]
            } else {
                Vec::new()
            }
        }
        Loss::Sectors => {
            let mut runs: Vec<(u64, usize)> = Vec::new();
            // Runs of some length are likelier on a real disk than coin flips, and find other defects.
            let mut kept = rng.coin();
            for at in (offset..offset + len as u64).step_by(SECTOR as usize) {
                if rng.percent(30) {
                    kept = rng.coin();
                }
                if kept {
                    match runs.last_mut() {
                        Some((start, run)) if *start + *run as u64 == at => *run += SECTOR as usize,
                        _ => runs.push((at, SECTOR as usize)),
                    }
                }
            }
            runs
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sectors(medium: &Medium, count: usize) -> Vec<u8> {
        (0..count).map(|i| medium.read(i as u64 * SECTOR, 1)[0]).collect()
    }

    #[test]
    fn a_flush_covers_what_came_before_its_mark_and_a_crash_takes_the_rest() {
        let mut rng = Rng::new(1, 0);
        let mut medium = Medium::new(8 * SECTOR);
        medium.write(0, &[1; 1024]);
        let mark = medium.mark();
        medium.write(512, &[2; 1024]);
        medium.flush(mark);
        assert_eq!(sectors(&medium, 4), [1, 2, 2, 0]);
        medium.crash(&[], Loss::All, &mut rng);
        assert_eq!(sectors(&medium, 4), [1, 1, 0, 0]);
        medium.write(0, &[3; 512]);
        medium.crash(&[(512, &[4; 512])], Loss::Nothing, &mut rng);
        assert_eq!(sectors(&medium, 1), [3]);
    }

    #[test]
    fn a_torn_crash_leaves_every_mixture_and_nothing_else() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let mut rng = Rng::new(seed, 0);
            let mut medium = Medium::new(4 * SECTOR);
            medium.write(0, &[1; 1024]);
            medium.flush(medium.mark());
            medium.write(0, &[2; 1024]);
            medium.crash(&[(512, &[3; 512])], Loss::Sectors, &mut rng);
            assert_eq!(medium.read(0, 512), [medium.read(0, 1)[0]; 512]);
            seen.insert(sectors(&medium, 3));
        }
        let all = [1, 2].into_iter().flat_map(|a| [1, 2, 3].map(|b| vec![a, b, 0]));
        assert_eq!(seen, all.collect());
    }

    #[test]
    fn a_corrupt_sector_is_told_by_nobody_and_healed_by_a_write() {
        let mut rng = Rng::new(1, 0);
        let mut medium = Medium::new(4 * SECTOR);
        medium.write(0, &[1; 1024]);
        assert!(!medium.corrupt(0, &[9; 512]), "not durable yet");
        medium.flush(medium.mark());
        assert!(medium.corrupt(0, &[9; 512]) && !medium.corrupt(0, &[8; 512]));
        medium.lose_write(512, 512);
        assert_eq!(sectors(&medium, 2), [9, 1]);
        assert!(medium.is_wrong());
        medium.crash(&[], Loss::All, &mut rng);
        assert_eq!(sectors(&medium, 2), [9, 1], "it is there for good");
        medium.write(0, &[3; 1024]);
        assert!(!medium.is_wrong());
        medium.crash(&[], Loss::All, &mut rng);
        assert_eq!(sectors(&medium, 2), [1, 1], "the write was lost, and the fault with it");
    }

    #[test]
    fn what_a_failed_flush_lost_no_later_flush_brings_back() {
        let mut outcomes = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let mut rng = Rng::new(seed, 0);
            let mut medium = Medium::new(4 * SECTOR);
            medium.write(0, &[1; 512]);
            medium.fail_flush(medium.mark(), &mut rng);
            assert_eq!(medium.read(0, 1)[0], 1, "nobody has heard yet");
            medium.failure_heard();
            let after_failure = medium.read(0, 1)[0];
            medium.flush(medium.mark());
            medium.crash(&[], Loss::Nothing, &mut rng);
            outcomes.insert((after_failure, medium.read(0, 1)[0]));
        }
        assert_eq!(outcomes, [(0, 0), (1, 0), (1, 1)].into());
    }
}
