//! Where a group's bytes lie: the pure map between its data space and the slots of its members.
//!
//! Owns the layout of every level, both ways. Invariants: a stripe takes one chunk of each member, at the same address
//! on all of them, so stripe `s` is bytes `s * chunk .. (s + 1) * chunk` of every member; each address of each slot has
//! exactly one role; data columns of a stripe follow each other in the data space. RAID 5 and 6 are laid out and coded
//! as Linux md's left-symmetric algorithm does (`ALGORITHM_LEFT_SYMMETRIC` in its `raid5.c`), RAID 10 pairs slots `2i`
//! and `2i + 1`. Which members can be used, and what to read and write, is left to `plan`.

use std::ops::Range;

use thiserror::Error;

use crate::config::Level;
use crate::ids::{BLOCK_SIZE, MEMBERS_MAX, Slot, SlotSet, Stripe};

#[cfg(test)]
mod tests;

/// Smallest chunk, in bytes.
pub const CHUNK_MIN: u32 = BLOCK_SIZE as u32;

/// Largest chunk, in bytes.
pub const CHUNK_MAX: u32 = 1 << 20;

/// Most bytes of a member that a group uses: with 64 members, a group's capacity still fits a signed 64-bit offset.
pub const MEMBER_LEN_MAX: u64 = 1 << 56;

const _: () = assert!(MEMBER_LEN_MAX as u128 * (MEMBERS_MAX as u128) < i64::MAX as u128);
const _: () = assert!(CHUNK_MIN.is_power_of_two() && CHUNK_MAX.is_power_of_two());

/// Why a group of this shape cannot be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum GeometryError {
    /// The level does not take this number of members.
    #[error("{level} takes {}, not {members}", member_rule(*.level))]
    Members {
        /// The level asked for.
        level: Level,
        /// The number of members asked for.
        members: usize,
    },
    /// The chunk is not a power of two from [`CHUNK_MIN`] to [`CHUNK_MAX`].
    #[error("a chunk is a power of two from 4096 to 1048576 bytes, not {0}")]
    Chunk(u32),
    /// There is no stripe, or the members would use more than [`MEMBER_LEN_MAX`] bytes each.
    #[error(
        "a group has at least one stripe and uses at most 2^56 bytes of a member; {0} stripes do not fit that"
    )]
    Stripes(u64),
}

fn member_rule(level: Level) -> &'static str {
    match level {
        Level::Raid0 => "1 to 64 members",
        Level::Raid1 => "2 to 64 members",
        Level::Raid5 => "3 to 64 members",
        Level::Raid6 => "4 to 64 members",
        Level::Raid10 => "an even number of members from 4 to 64",
    }
}

/// What a slot holds in one stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// A copy of this data column.
    Data(usize),
    /// The XOR of the data columns.
    P,
    /// The sum of the data columns weighted by powers of 2 in GF(2^8): column `i` by `2^i`.
    Q,
}

/// One byte of the data space, by stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The stripe.
    pub stripe: Stripe,
    /// The data column, from 0.
    pub column: usize,
    /// The byte inside the chunk, `0..chunk`.
    pub row: u32,
}

/// The part of a request that lies in one chunk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The stripe.
    pub stripe: Stripe,
    /// The data column, from 0.
    pub column: usize,
    /// Bytes inside the chunk; never empty.
    pub rows: Range<u32>,
    /// Where the piece starts inside the request, in bytes.
    pub at: u64,
}

/// The part of a request that lies in one stripe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StripeRange {
    /// The stripe.
    pub stripe: Stripe,
    /// Data bytes inside the stripe, `0..stripe_len`; never empty.
    pub within: Range<u64>,
    /// Where the part starts inside the request, in bytes.
    pub at: u64,
}

/// The layout of one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    level: Level,
    members: u8,
    chunk: u32,
    stripes: u64,
}

impl Geometry {
    /// The layout of `members` slots at `level`, in `stripes` stripes of `chunk` bytes a member.
    ///
    /// # Errors
    /// [`GeometryError`] if the level does not take that many members, the chunk is no power of two from 4 KiB to
    /// 1 MiB, or the number of stripes is 0 or too large.
    pub fn new(
        level: Level,
        members: usize,
        chunk: u32,
        stripes: u64,
    ) -> Result<Self, GeometryError> {
        let fits = match level {
            Level::Raid0 => members >= 1,
            Level::Raid1 => members >= 2,
            Level::Raid5 => members >= 3,
            Level::Raid6 => members >= 4,
            Level::Raid10 => members >= 4 && members.is_multiple_of(2),
        };
        if !fits || members > MEMBERS_MAX {
            return Err(GeometryError::Members { level, members });
        }
        if !chunk.is_power_of_two() || !(CHUNK_MIN..=CHUNK_MAX).contains(&chunk) {
            return Err(GeometryError::Chunk(chunk));
        }
        if stripes == 0 || stripes > MEMBER_LEN_MAX / u64::from(chunk) {
            return Err(GeometryError::Stripes(stripes));
        }
        Ok(Self { level, members: members as u8, chunk, stripes })
    }

    /// Stripes that fit on members with `member_len` bytes of data space: 0 if not even one does. The same for every
    /// level, since each takes one chunk of each member a stripe; `chunk` is in bytes and not 0.
    #[must_use]
    pub fn max_stripes(_level: Level, member_len: u64, chunk: u32) -> u64 {
        member_len.min(MEMBER_LEN_MAX) / u64::from(chunk)
    }

    /// The level.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// Number of slots.
    #[must_use]
    pub fn members(&self) -> usize {
        usize::from(self.members)
    }

    /// Bytes of a chunk.
    #[must_use]
    pub fn chunk(&self) -> u32 {
        self.chunk
    }

    /// Number of stripes.
    #[must_use]
    pub fn stripes(&self) -> u64 {
        self.stripes
    }

    /// Data columns of a stripe.
    #[must_use]
    pub fn data_columns(&self) -> usize {
        match self.level {
            Level::Raid1 => 1,
            Level::Raid10 => self.members() / 2,
            Level::Raid0 | Level::Raid5 | Level::Raid6 => self.members() - self.parity_columns(),
        }
    }

    /// Parity columns of a stripe: 0, 1 (P) or 2 (P and Q).
    #[must_use]
    pub fn parity_columns(&self) -> usize {
        match self.level {
            Level::Raid0 | Level::Raid1 | Level::Raid10 => 0,
            Level::Raid5 => 1,
            Level::Raid6 => 2,
        }
    }

    /// How many members may be lost, whichever they are, with no data lost.
    #[must_use]
    pub fn tolerance(&self) -> usize {
        match self.level {
            Level::Raid0 => 0,
            Level::Raid1 => self.members() - 1,
            Level::Raid5 | Level::Raid10 => 1,
            Level::Raid6 => 2,
        }
    }

    /// Data bytes of a stripe.
    #[must_use]
    pub fn stripe_len(&self) -> u64 {
        self.data_columns() as u64 * u64::from(self.chunk)
    }

    /// Data bytes of the group.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.stripes * self.stripe_len()
    }

    /// The slots that hold data column `column` of `stripe` as it is: one, or all copies of a mirror.
    ///
    /// # Panics
    /// If there is no such column.
    #[must_use]
    pub fn copies(&self, stripe: Stripe, column: usize) -> SlotSet {
        assert!(column < self.data_columns(), "column {column} of {}", self.data_columns());
        match self.level {
            Level::Raid0 => SlotSet::one(Slot(column as u8)),
            Level::Raid1 => SlotSet::first(self.members()),
            Level::Raid5 | Level::Raid6 => {
                SlotSet::one(self.after_p(stripe, self.parity_columns() + column))
            }
            Level::Raid10 => {
                let first = Slot(2 * column as u8);
                SlotSet::one(first).with(Slot(first.0 + 1))
            }
        }
    }

    /// The slot that holds P of `stripe`, for levels that have it.
    #[must_use]
    pub fn p_slot(&self, stripe: Stripe) -> Option<Slot> {
        (self.parity_columns() >= 1).then(|| self.after_p(stripe, 0))
    }

    /// The slot that holds Q of `stripe`, for levels that have it.
    #[must_use]
    pub fn q_slot(&self, stripe: Stripe) -> Option<Slot> {
        (self.parity_columns() >= 2).then(|| self.after_p(stripe, 1))
    }

    /// What `slot` holds in `stripe`.
    ///
    /// # Panics
    /// If the group has no such slot.
    #[must_use]
    pub fn role(&self, stripe: Stripe, slot: Slot) -> Role {
        let index = usize::from(slot.0);
        assert!(index < self.members(), "slot {slot} of {}", self.members());
        match self.level {
            Level::Raid0 => Role::Data(index),
            Level::Raid1 => Role::Data(0),
            Level::Raid10 => Role::Data(index / 2),
            Level::Raid5 | Level::Raid6 => {
                let n = self.members();
                let step = (index + n - self.p_index(stripe)) % n;
                match (step, self.parity_columns()) {
                    (0, _) => Role::P,
                    (1, 2) => Role::Q,
                    (step, parities) => Role::Data(step - parities),
                }
            }
        }
    }

    /// The byte of each member's address space at which row `row` of `stripe` lies.
    #[must_use]
    pub fn member_address(&self, stripe: Stripe, row: u32) -> u64 {
        stripe.0 * u64::from(self.chunk) + u64::from(row)
    }

    /// The stripe and row at byte `address` of a member: the way back of [`Geometry::member_address`].
    #[must_use]
    pub fn at_address(&self, address: u64) -> (Stripe, u32) {
        let chunk = u64::from(self.chunk);
        (Stripe(address / chunk), (address % chunk) as u32)
    }

    /// Where byte `offset` of the data space lies. Offsets at or past the capacity give stripes past the last.
    #[must_use]
    pub fn locate(&self, offset: u64) -> Place {
        let (stripe, within) = (offset / self.stripe_len(), offset % self.stripe_len());
        let chunk = u64::from(self.chunk);
        Place {
            stripe: Stripe(stripe),
            column: (within / chunk) as usize,
            row: (within % chunk) as u32,
        }
    }

    /// The byte of the data space at `place`: the way back of [`Geometry::locate`].
    #[must_use]
    pub fn offset_of(&self, place: Place) -> u64 {
        place.stripe.0 * self.stripe_len()
            + place.column as u64 * u64::from(self.chunk)
            + u64::from(place.row)
    }

    /// The parts of the data space's bytes `offset .. offset + len` by chunk, in order.
    ///
    /// # Panics
    /// If the range does not lie inside the capacity.
    pub fn pieces(&self, offset: u64, len: u64) -> impl Iterator<Item = Piece> + use<> {
        let geometry = *self;
        self.cut(offset, len, u64::from(self.chunk)).map(move |(start, end)| {
            let Place { stripe, column, row } = geometry.locate(start);
            Piece { stripe, column, rows: row..row + (end - start) as u32, at: start - offset }
        })
    }

    /// The parts of the data space's bytes `offset .. offset + len` by stripe, in order.
    ///
    /// # Panics
    /// If the range does not lie inside the capacity.
    pub fn stripe_ranges(
        &self,
        offset: u64,
        len: u64,
    ) -> impl Iterator<Item = StripeRange> + use<> {
        let stripe_len = self.stripe_len();
        self.cut(offset, len, stripe_len).map(move |(start, end)| {
            let (stripe, within) = (start / stripe_len, start % stripe_len);
            StripeRange {
                stripe: Stripe(stripe),
                within: within..within + (end - start),
                at: start - offset,
            }
        })
    }

    /// Whether all data can be read or recovered with the slots of `missing` gone.
    #[must_use]
    pub fn still_whole(&self, missing: SlotSet) -> bool {
        let members = SlotSet::first(self.members());
        let missing = missing.and(members);
        match self.level {
            Level::Raid0 | Level::Raid5 | Level::Raid6 => missing.len() <= self.tolerance(),
            Level::Raid1 => missing != members,
            Level::Raid10 => missing.0 & (missing.0 >> 1) & PAIR_FIRSTS == 0,
        }
    }

    /// How many more members may fail, whichever they are, with the slots of `missing` already gone: 0 also when data
    /// is lost already.
    #[must_use]
    pub fn failures_left(&self, missing: SlotSet) -> u32 {
        let missing = missing.and(SlotSet::first(self.members()));
        let gone = match self.level {
            // A member of another pair may still go, yet not any member.
            Level::Raid10 => missing.len().min(1),
            _ => missing.len(),
        };
        self.tolerance().saturating_sub(gone) as u32
    }

    /// P moves from the last slot towards the first, one slot a stripe.
    fn p_index(&self, stripe: Stripe) -> usize {
        let n = u64::from(self.members);
        (n - 1 - stripe.0 % n) as usize
    }

    /// The slot `steps` after P's, round the end.
    fn after_p(&self, stripe: Stripe, steps: usize) -> Slot {
        Slot(((self.p_index(stripe) + steps) % self.members()) as u8)
    }

    /// Cuts a range of the data space at the multiples of `unit`.
    fn cut(&self, offset: u64, len: u64, unit: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let end = offset.checked_add(len).expect("a range ends below 2^64");
        assert!(end <= self.capacity(), "range {offset}+{len} past {}", self.capacity());
        let mut start = offset;
        std::iter::from_fn(move || {
            if start == end {
                return None;
            }
            let from = start;
            start = end.min((from / unit + 1) * unit);
            Some((from, start))
        })
    }
}

/// Slots that are the first of a RAID 10 pair.
const PAIR_FIRSTS: u64 = 0x5555_5555_5555_5555;
