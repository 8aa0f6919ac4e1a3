//! The oracle: what every read of every volume may return (design.md §5).
//!
//! Owns the model of the volumes: one register for each 512-byte sector, cut finer where hosts write parts of a sector,
//! and the record of all host operations for the history that a violation prints. Invariant: it sees only what a host
//! sees (requests, answers, crashes), never the engine's state. TRIM and WRITE_ZEROES are writes of zeroes; a volume
//! begins as zeroes.

use std::collections::BTreeMap;
use std::fmt;

use forestall_engine::{BLOCK_SIZE, Buf};

use crate::medium::SECTOR;
use crate::pattern;
use crate::register::{NEVER, Register, Tick, Version};

mod history;

pub use history::{Operation, Outcome, Request};

/// A promise of design.md §5 that was broken.
#[derive(Clone, Debug)]
pub struct Violation {
    /// What was seen and what was allowed.
    pub what: String,
    /// The operations that touched the place, oldest first.
    pub history: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.what)?;
        for line in &self.history {
            writeln!(f, "    {line}")?;
        }
        Ok(())
    }
}

/// A sector's registers with their ends inside the sector, in order.
type Sector = Vec<(u16, Register)>;

/// What a volume held at some moment, to be put back by [`Oracle::put_back`].
#[derive(Clone)]
pub struct Kept {
    sectors: Vec<Option<Box<Sector>>>,
}

struct VolumeModel {
    tag: u8,
    size: u64,
    sectors: Vec<Option<Box<Sector>>>,
    /// Sectors with more than one possible version.
    open: Vec<u64>,
    /// Blocks of 4096 bytes that were being written, or not flushed, at some crash, and the longest of these writes.
    in_flight: BTreeMap<u64, u64>,
}

/// The model of all volumes of one simulated array.
#[derive(Default)]
pub struct Oracle {
    volumes: BTreeMap<String, VolumeModel>,
    operations: Vec<Operation>,
    reads: BTreeMap<u64, Tick>,
    now: Tick,
    tags: u8,
    epoch: u32,
}

impl Oracle {
    /// A model without volumes.
    #[must_use]
    pub fn new() -> Self {
        // Operation 0 is the zeroes at the beginning.
        Self { operations: vec![Operation::creation()], ..Self::default() }
    }

    /// A volume of `size` zero bytes is there.
    ///
    /// # Panics
    /// If there is one of that name, or the 64th was made.
    pub fn create_volume(&mut self, name: &str, size: u64) {
        let sectors = vec![None; size.div_ceil(SECTOR) as usize];
        let model = VolumeModel {
            tag: self.tags,
            size,
            sectors,
            open: Vec::new(),
            in_flight: BTreeMap::new(),
        };
        self.tags += 1;
        assert!(self.tags < 64, "too many volumes for the pattern");
        assert!(self.volumes.insert(name.to_owned(), model).is_none(), "volume {name} twice");
    }

    /// A volume is gone.
    pub fn delete_volume(&mut self, name: &str) {
        self.volumes.remove(name);
    }

    /// A volume has grown; the new part reads as zeroes.
    ///
    /// # Panics
    /// If there is none of that name.
    pub fn grow_volume(&mut self, name: &str, size: u64) {
        let model = self.volumes.get_mut(name).expect("a known volume");
        model.size = size;
        model.sectors.resize(size.div_ceil(SECTOR) as usize, None);
    }

    /// What a volume holds now; the array was stopped in good order, so there is one version of everything.
    ///
    /// # Panics
    /// If there is none of that name, or more may be there.
    #[must_use]
    pub fn kept(&self, name: &str) -> Kept {
        let sectors = self.volumes[name].sectors.clone();
        let all = sectors.iter().flatten().flat_map(|sector| sector.iter());
        assert!(all.clone().all(|(_, register)| register.settled()), "{name} is not at rest");
        Kept { sectors }
    }

    /// An operator gave up what was written to a volume since: it holds what it held then, all of it and nothing else.
    ///
    /// # Panics
    /// If there is none of that name, or it has grown.
    pub fn put_back(&mut self, name: &str, kept: Kept) {
        let model = self.volumes.get_mut(name).expect("a known volume");
        assert_eq!(model.sectors.len(), kept.sectors.len(), "{name} is of another size");
        model.sectors = kept.sectors;
        model.open.clear();
    }

    /// Names and sizes of the volumes.
    #[must_use]
    pub fn volumes(&self) -> Vec<(String, u64)> {
        self.volumes.iter().map(|(name, v)| (name.clone(), v.size)).collect()
    }

    /// Host operations so far.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations.len() as u64 - 1
    }

    /// A request is submitted by connection `connection`; answers its number. The write's bytes come from
    /// [`Oracle::data`].
    ///
    /// # Panics
    /// If the range is not inside a known volume.
    pub fn begin(&mut self, connection: u32, volume: &str, request: Request) -> u64 {
        let now = self.tick();
        let op = self.operations.len() as u64;
        let epoch = self.epoch;
        self.operations.push(Operation::new(op, epoch, connection, volume, request, now));
        match request {
            Request::Read { .. } => {
                self.reads.insert(op, now);
            }
            Request::Flush => {}
            Request::Write { offset, len, .. } => self.begin_write(op, volume, offset, len, false),
            Request::Zero { offset, len, .. } => self.begin_write(op, volume, offset, len, true),
        }
        op
    }

    /// The bytes that write `op` carries.
    ///
    /// # Panics
    /// If `op` is not a write.
    #[must_use]
    pub fn data(&self, op: u64) -> Buf {
        let operation = &self.operations[op as usize];
        let Request::Write { offset, len, .. } = operation.request else {
            panic!("operation {op} is not a write")
        };
        let mut buf = Buf::zeroed(len as usize);
        pattern::fill(op, self.volumes[&operation.volume].tag, offset, buf.bytes_mut());
        buf
    }

    /// A write, zero or flush is answered.
    pub fn end(&mut self, op: u64, ok: bool) {
        let now = self.tick();
        let operation = &mut self.operations[op as usize];
        operation.end = Some((now, if ok { Outcome::Done } else { Outcome::Failed }));
        let (request, start, name) = (operation.request, operation.start, operation.volume.clone());
        let oldest = self.oldest_read();
        let Some(model) = self.volumes.get_mut(&name) else { return };
        match request {
            Request::Read { .. } => panic!("reads end by `read`"),
            Request::Write { offset, len, fua } | Request::Zero { offset, len, fua } => {
                model.visit(offset, len, |_, register| register.end(op, now, ok, fua));
            }
            Request::Flush if ok => model.flushed(start, oldest),
            Request::Flush => {}
        }
    }

    /// A read is answered with `pieces`, or with an error.
    ///
    /// # Errors
    /// If a sector holds what it must not.
    pub fn read(&mut self, op: u64, pieces: Option<&[Buf]>) -> Result<(), Violation> {
        let now = self.tick();
        self.reads.remove(&op);
        let operation = &mut self.operations[op as usize];
        operation.end = Some((now, if pieces.is_some() { Outcome::Done } else { Outcome::Failed }));
        let Request::Read { offset, len } = operation.request else {
            panic!("operation {op} is not a read")
        };
        let (start, name) = (operation.start, operation.volume.clone());
        let Some(pieces) = pieces else { return Ok(()) };
        let got: u64 = pieces.iter().map(|p| p.len() as u64).sum();
        if got != len {
            return Err(self.violation(
                &name,
                offset,
                format!("read #{op} asked for {len} bytes and got {got}"),
            ));
        }
        let mut at = offset;
        for piece in pieces {
            self.check(&name, at, piece, start, now)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// The machine crashed: requests under way are never answered.
    pub fn crash(&mut self) {
        let now = self.tick();
        self.epoch += 1;
        self.reads.clear();
        for model in self.volumes.values_mut() {
            model.note_in_flight(&self.operations);
            model.each_open(|register| {
                register.crash(now);
                register.prune(NEVER);
            });
        }
    }

    /// Whether any block of a range was in flight at a crash, in a write of at least `least` bytes.
    #[must_use]
    pub fn was_in_flight(&self, volume: &str, offset: u64, len: u64, least: u64) -> bool {
        let blocks = offset / BLOCK_SIZE..(offset + len).div_ceil(BLOCK_SIZE);
        let model = self.volumes.get(volume);
        model.is_some_and(|m| m.in_flight.range(blocks).any(|(_, longest)| *longest >= least))
    }

    /// The array stopped in good order and is about to start again: all that was answered is durable.
    pub fn stop(&mut self) {
        let now = self.tick();
        for model in self.volumes.values_mut() {
            model.flushed(now, NEVER);
        }
        self.crash();
    }

    /// A violation that no single sector shows.
    #[must_use]
    pub fn complaint(&self, what: String) -> Violation {
        let last = self.operations.iter().rev().take(20).collect::<Vec<_>>();
        Violation { what, history: last.into_iter().rev().map(ToString::to_string).collect() }
    }

    /// A violation with the history of the sector at `offset`.
    #[must_use]
    pub fn violation(&self, volume: &str, offset: u64, what: String) -> Violation {
        let sector = offset / SECTOR * SECTOR;
        let touching = self
            .operations
            .iter()
            .filter(|o| o.volume == volume && o.touches(sector..sector + SECTOR));
        let mut history: Vec<String> = touching.map(ToString::to_string).collect();
        if history.len() > 40 {
            let cut = history.len() - 40;
            history.drain(..cut);
            history.insert(0, format!("... {cut} earlier operations"));
        }
        Violation { what, history }
    }

    fn tick(&mut self) -> Tick {
        self.now += 1;
        self.now
    }

    fn oldest_read(&self) -> Tick {
        self.reads.values().min().copied().unwrap_or(NEVER)
    }

    fn begin_write(&mut self, op: u64, volume: &str, offset: u64, len: u64, zero: bool) {
        let now = self.now;
        let model = self.volumes.get_mut(volume).expect("a known volume");
        assert!(offset + len <= model.size, "the workload stays inside the volume");
        model.split(offset, len);
        model.visit(offset, len, |_, register| register.begin(op, zero, now));
    }

    /// Checks `bytes` read at `offset` by a read that began at `from`.
    fn check(
        &mut self,
        name: &str,
        offset: u64,
        bytes: &[u8],
        from: Tick,
        now: Tick,
    ) -> Result<(), Violation> {
        let Some(model) = self.volumes.get_mut(name) else { return Ok(()) };
        let tag = model.tag;
        let end = offset + bytes.len() as u64;
        let mut at = offset;
        while at < end {
            let index = at / SECTOR;
            let stop = end.min((index + 1) * SECTOR);
            let seen = &bytes[(at - offset) as usize..(stop - offset) as usize];
            let fits = match &mut model.sectors[index as usize] {
                None => pattern::is_zero(seen),
                Some(sector) => check_sector(sector, tag, at, seen, from, now),
            };
            if !fits {
                let what = self.describe(name, at, seen, from);
                return Err(self.violation(name, at, what));
            }
            at = stop;
        }
        Ok(())
    }

    /// Says what was seen in a sector and what was allowed.
    fn describe(&self, name: &str, at: u64, seen: &[u8], from: Tick) -> String {
        let model = &self.volumes[name];
        let sector = at / SECTOR;
        let expected = match &model.sectors[sector as usize] {
            None => "zeroes".to_owned(),
            Some(pieces) => history::versions_in_words(pieces, from),
        };
        let holds =
            history::content_in_words(at, seen, self.operations.len() as u64, self.tags, |tag| {
                self.volumes
                    .iter()
                    .find(|(_, v)| v.tag == tag)
                    .map_or_else(|| "a deleted volume".to_owned(), |v| v.0.clone())
            });
        format!("volume {name}: sector {sector} (byte {at}) holds {holds}; allowed: {expected}")
    }
}

fn check_sector(sector: &mut Sector, tag: u8, at: u64, seen: &[u8], from: Tick, now: Tick) -> bool {
    let base = at / SECTOR * SECTOR;
    let mut begin = base;
    for (end, register) in sector {
        let end = base + u64::from(*end);
        let (lo, hi) = (begin.max(at), end.min(at + seen.len() as u64));
        begin = end;
        if lo >= hi {
            continue;
        }
        let part = &seen[(lo - at) as usize..(hi - at) as usize];
        let is = |v: &Version| {
            if v.zero { pattern::is_zero(part) } else { pattern::matches(v.op, tag, lo, part) }
        };
        if !register.readable(from).any(is) {
            return false;
        }
        if !register.settled() {
            register.read(from, now, is);
        }
    }
    true
}

impl VolumeModel {
    /// Cuts registers so that a write of the range covers whole ones.
    fn split(&mut self, offset: u64, len: u64) {
        if len == 0 {
            return;
        }
        for index in offset / SECTOR..(offset + len).div_ceil(SECTOR) {
            let base = index * SECTOR;
            let slot = &mut self.sectors[index as usize];
            let sector =
                slot.get_or_insert_with(|| Box::new(vec![(SECTOR as u16, Register::zero())]));
            for cut in [offset.max(base) - base, (offset + len).min(base + SECTOR) - base] {
                let at = sector.partition_point(|(end, _)| u64::from(*end) < cut);
                if cut > 0 && u64::from(sector[at].0) != cut {
                    let copy = sector[at].1.clone();
                    sector.insert(at, (cut as u16, copy));
                }
            }
            self.open.push(index);
        }
    }

    /// Notes which blocks a crash now finds being written or not flushed.
    fn note_in_flight(&mut self, operations: &[Operation]) {
        for &sector in &self.open {
            let pieces = self.sectors[sector as usize].iter().flat_map(|pieces| pieces.iter());
            // The oldest version is the one that is durable.
            let under_way = pieces.flat_map(|(_, register)| register.versions().iter().skip(1));
            let longest = under_way.map(|v| operations[v.op as usize].bytes()).max();
            let noted = self.in_flight.entry(sector * SECTOR / BLOCK_SIZE).or_default();
            *noted = (*noted).max(longest.unwrap_or(0));
        }
    }

    /// Visits every register inside the range, with its offset.
    fn visit(&mut self, offset: u64, len: u64, mut f: impl FnMut(u64, &mut Register)) {
        let range = offset..offset + len;
        for index in offset / SECTOR..range.end.div_ceil(SECTOR) {
            let Some(sector) = &mut self.sectors[index as usize] else { continue };
            let mut at = index * SECTOR;
            for (end, register) in sector.iter_mut() {
                let stop = index * SECTOR + u64::from(*end);
                if at >= range.start && stop <= range.end {
                    f(at, register);
                }
                at = stop;
            }
        }
    }

    fn flushed(&mut self, from: Tick, oldest_read: Tick) {
        self.each_open(|register| {
            register.flushed(from);
            register.prune(oldest_read);
        });
    }

    /// Visits every register of the open sectors, then forgets those that have settled, joining their pieces where they
    /// have become equal.
    fn each_open(&mut self, mut f: impl FnMut(&mut Register)) {
        let mut open = std::mem::take(&mut self.open);
        open.sort_unstable();
        open.dedup();
        open.retain(|&index| {
            let sector =
                self.sectors[index as usize].as_mut().expect("an open sector has registers");
            sector.iter_mut().for_each(|(_, register)| f(register));
            sector.dedup_by(|next, first| {
                let same = next.1 == first.1;
                if same {
                    first.0 = next.0;
                }
                same
            });
            !sector.iter().all(|(_, register)| register.settled())
        });
        self.open = open;
    }
}

#[cfg(test)]
mod tests;
