//! How long a disk takes: a model of one head over one medium, and of the cache before it.
//!
//! Owns the head's place, the time from which the medium is free and the cached writes that are still on their way to it. It knows no bytes and no clock: the
//! caller says what is asked and when, and is told when it is answered. Invariants: one request at a time, in order of arrival, is at the medium; a flush is
//! answered only when every write that was answered before it is on the medium; the same requests at the same times get the same answers.
//!
//! Simple on purpose. Nothing is sorted: neither by the disk's own queue nor by an elevator before it, so random requests that wait together gain less than on a
//! real disk. The cache holds a number of writes, whatever their size, and a read waits for those before it. Transfer is as fast everywhere on the disk.
//! Where a disk is small, it is taken for one whose bytes span the full stroke: seeks are as long as on a full-sized one, the way between two places is not.

use std::collections::VecDeque;

use crate::rng::Rng;

const SECOND_NS: u64 = 1_000_000_000;

/// What a disk is made of. All times in nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskModel {
    /// Its name on the command line.
    pub name: &'static str,
    /// Time that every request takes at the medium before anything moves.
    pub access_ns: u64,
    /// A seek to the next track.
    pub seek_ns_min: u64,
    /// A seek over the whole disk.
    pub seek_ns_max: u64,
    /// One turn of the platters; 0 for none.
    pub revolution_ns: u64,
    /// What passes under the head in a second.
    pub bytes_per_sec: u64,
    /// What the cable carries in a second.
    pub cable_bytes_per_sec: u64,
    /// Places no further apart than this need no seek; forward they pass under the head.
    pub track_bytes: u64,
    /// So many writes are answered before they are on the medium.
    pub cached_writes: usize,
}

impl DiskModel {
    /// A nearline disk of 7200 revolutions a minute, 200 MB/s.
    ///
    /// A revolution of 8.33 ms, so 4.16 ms to wait on average, is what makers state (Western Digital, Ultrastar DC HC310 specification, 4.5.1.3). Seeks of
    /// 8.5 ms on average and 0.44 ms to the next track are the writes of Seagate's Constellation.2 (SAS Product Manual, Rev. H, 5.2.1). Between, a seek grows with the
    /// square root of the way, as while an arm speeds up and slows down; a full stroke then takes 15.6 ms (the manual has 18.1). 200 MB/s is a round figure
    /// for the outer half of such a disk, 550 MB/s what a cable of 6 Gb/s leaves.
    pub const HDD: Self = Self {
        name: "hdd",
        access_ns: 0,
        seek_ns_min: 440_000,
        seek_ns_max: 15_552_500,
        revolution_ns: 8_333_333,
        bytes_per_sec: 200_000_000,
        cable_bytes_per_sec: 550_000_000,
        track_bytes: 256 * 1024,
        cached_writes: 16,
    };

    /// A SATA SSD: 80 µs a request and 500 MB/s, round figures of no one's data sheet. One request at a time, so a queue gains nothing here, and a flush costs
    /// nothing beyond what is written.
    pub const SSD: Self = Self {
        name: "ssd",
        access_ns: 80_000,
        seek_ns_min: 0,
        seek_ns_max: 0,
        revolution_ns: 0,
        bytes_per_sec: 500_000_000,
        cable_bytes_per_sec: 550_000_000,
        track_bytes: 0,
        cached_writes: 16,
    };

    /// The models that have a name.
    pub const ALL: [Self; 2] = [Self::HDD, Self::SSD];

    /// The model called `name`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|model| model.name == name)
    }

    /// A seek of `distance` bytes on a disk of `size`.
    fn seek_ns(&self, distance: u64, size: u64) -> u64 {
        if distance <= self.track_bytes {
            return 0;
        }
        // The root of a fraction of 2^40 is a fraction of 2^20.
        let root = ((u128::from(distance) << 40) / u128::from(size)).isqrt();
        let longest = u128::from(self.seek_ns_max - self.seek_ns_min);
        self.seek_ns_min + ((longest * root) >> 20) as u64
    }

    fn transfer_ns(&self, len: u64) -> u64 {
        part_of_second(len, self.bytes_per_sec)
    }
}

fn part_of_second(len: u64, per_sec: u64) -> u64 {
    (u128::from(len) * u128::from(SECOND_NS) / u128::from(per_sec)) as u64
}

/// What is asked of a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// A read of so many bytes there.
    Read(u64, u64),
    /// A write of so many bytes there.
    Write(u64, u64),
    /// A flush.
    Flush,
    /// A discard: a note in the disk's tables.
    Discard,
}

/// One disk at work.
#[derive(Clone, Debug)]
pub struct Mechanics {
    model: DiskModel,
    size: u64,
    /// Where the last request at the medium ended.
    head: u64,
    /// From when the medium has nothing to do.
    free_ns: u64,
    /// When each cached write is on the medium, the oldest first.
    cached: VecDeque<u64>,
    /// Where the platters stand when a seek ends.
    rng: Rng,
}

impl Mechanics {
    /// A disk of `size` bytes at rest, its head at the first.
    #[must_use]
    pub fn new(model: DiskModel, size: u64, rng: Rng) -> Self {
        Self { model, size, head: 0, free_ns: 0, cached: VecDeque::new(), rng }
    }

    /// Takes a request at `now_ns`, never earlier than the one before; answers when it is answered.
    pub fn answer_at(&mut self, now_ns: u64, asked: Asked) -> u64 {
        while self.cached.front().is_some_and(|&done| done <= now_ns) {
            self.cached.pop_front();
        }
        match asked {
            Asked::Read(offset, len) => self.serve(now_ns, offset, len, true),
            Asked::Write(offset, len) => {
                let arrived = now_ns + part_of_second(len, self.model.cable_bytes_per_sec);
                let over = (self.cached.len() + 1).checked_sub(self.model.cached_writes);
                let room = over.filter(|&over| over > 0).map_or(now_ns, |n| self.cached[n - 1]);
                let done = self.serve(now_ns, offset, len, false).max(arrived);
                self.cached.push_back(done);
                arrived.max(room)
            }
            // What is on the medium in order of arrival is there when the last of it is.
            Asked::Flush => self.cached.back().map_or(now_ns, |&done| done.max(now_ns)),
            Asked::Discard => now_ns,
        }
    }

    /// Takes a request to the medium once it is free; answers when it is done there.
    fn serve(&mut self, now_ns: u64, offset: u64, len: u64, read: bool) -> u64 {
        let begin = now_ns.max(self.free_ns) + self.model.access_ns;
        let idle_ns = now_ns.saturating_sub(self.free_ns);
        let streams = read || now_ns < self.free_ns;
        let done = begin + self.position_ns(offset, idle_ns, streams) + self.model.transfer_ns(len);
        self.head = offset + len;
        self.free_ns = done;
        done
    }

    /// Time until `offset` is under the head. What follows is there at once: a disk reads ahead into its cache, and writes that wait in it follow each other.
    fn position_ns(&mut self, offset: u64, idle_ns: u64, streams: bool) -> u64 {
        let turn = self.model.revolution_ns;
        let ahead = offset.checked_sub(self.head).filter(|&gap| gap <= self.model.track_bytes);
        match ahead {
            Some(gap) if streams => self.model.transfer_ns(gap),
            // The place has just gone by: what is left of the turn.
            Some(0) if turn > 0 => turn - idle_ns % turn,
            _ if turn == 0 => self.model.seek_ns(offset.abs_diff(self.head), self.size),
            _ => self.model.seek_ns(offset.abs_diff(self.head), self.size) + self.rng.below(turn),
        }
    }
}

#[cfg(test)]
#[path = "mechanics/tests.rs"]
mod tests;
