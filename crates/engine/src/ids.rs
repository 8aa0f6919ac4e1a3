//! Names for numbers: the identities and units that the rest of the engine speaks in.
//!
//! Owns the newtypes and the block size. Invariant: disks, groups and volumes are numbered from 1, slots and stripes
//! from 0. What the numbers mean is left to the modules that use them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes in a block: the unit of maps, checksums, locks and versions.
pub const BLOCK_SIZE: u64 = 4096;

/// Most members that a group may have.
pub const MEMBERS_MAX: usize = 64;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A disk's number inside its array, from 1.
    DiskNumber(u32)
}
number! {
    /// A group's number, from 1.
    GroupNumber(u32)
}
number! {
    /// A volume's number, from 1.
    VolumeNumber(u32)
}
number! {
    /// A position inside a group, from 0.
    Slot(u8)
}
number! {
    /// A stripe's index inside a group, from 0.
    Stripe(u64)
}

/// A 128-bit identity, drawn at random; printed as a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// The identity made of two random words.
    #[must_use]
    pub fn from_random(high: u64, low: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_le_bytes());
        bytes[8..].copy_from_slice(&low.to_le_bytes());
        Self(bytes)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of slots of one group.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct SlotSet(pub u64);

impl SlotSet {
    /// No slot.
    pub const EMPTY: Self = Self(0);

    /// Slots `0..count`.
    ///
    /// # Panics
    /// If `count` is over [`MEMBERS_MAX`].
    #[must_use]
    pub fn first(count: usize) -> Self {
        assert!(count <= MEMBERS_MAX);
        if count == 64 { Self(u64::MAX) } else { Self((1 << count) - 1) }
    }

    /// The set of one slot.
    #[must_use]
    pub fn one(slot: Slot) -> Self {
        Self(1 << slot.0)
    }

    /// Whether `slot` is in the set.
    #[must_use]
    pub fn contains(self, slot: Slot) -> bool {
        self.0 >> slot.0 & 1 == 1
    }

    /// The set with `slot` added.
    #[must_use]
    pub fn with(self, slot: Slot) -> Self {
        Self(self.0 | 1 << slot.0)
    }

    /// The set with `slot` taken out.
    #[must_use]
    pub fn without(self, slot: Slot) -> Self {
        Self(self.0 & !(1 << slot.0))
    }

    /// Slots in both sets.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Slots in either set.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Slots in this set and not in `other`.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// How many slots there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The slots, lowest first.
    pub fn iter(self) -> impl Iterator<Item = Slot> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            if rest == 0 {
                return None;
            }
            let slot = rest.trailing_zeros() as u8;
            rest &= rest - 1;
            Some(Slot(slot))
        })
    }
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(slots: I) -> Self {
        slots.into_iter().fold(Self::EMPTY, Self::with)
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(|s| s.0)).finish()
    }
}
