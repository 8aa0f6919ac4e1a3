//! A set of numbers held as ranges: units, addresses.
//!
//! Owns the arithmetic; what the numbers mean is left to the maps. Invariants: ranges are not empty, do not overlap and do not touch, so that
//! the space taken is by the number of pieces, whatever they span.

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of numbers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Ranges(
    /// End by start.
    BTreeMap<u64, u64>,
);

impl Ranges {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn contains(&self, at: u64) -> bool {
        self.0.range(..=at).next_back().is_some_and(|(_, end)| *end > at)
    }

    /// How many numbers there are.
    pub(super) fn count(&self) -> u64 {
        self.iter().map(|range| range.end - range.start).sum()
    }

    /// The ranges, lowest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().map(|(start, end)| *start..*end)
    }

    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let (mut start, mut to) = (range.start, range.end);
        // Those that overlap or touch, from the last to the first: all become one.
        while let Some((&at, &end)) = self.0.range(..=to).next_back()
            && end >= start
        {
            (start, to) = (start.min(at), to.max(end));
            self.0.remove(&at);
        }
        self.0.insert(start, to);
    }

    pub(super) fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        while let Some((&start, &end)) = self.0.range(..range.end).next_back()
            && end > range.start
        {
            self.0.remove(&start);
            if end > range.end {
                self.0.insert(range.end, end);
            }
            if start < range.start {
                self.0.insert(start, range.start);
                return;
            }
        }
    }
}

impl FromIterator<Range<u64>> for Ranges {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set(changes in prop::collection::vec((any::<bool>(), 0..40_u64, 0..9_u64), 0..60)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (adds, start, len) in changes {
                let range = start..start + len;
                if adds {
                    ranges.insert(range.clone());
                    model.extend(range);
                } else {
                    ranges.remove(range.clone());
                    model.retain(|at| !range.contains(at));
                }
                prop_assert!((0..50).all(|at| ranges.contains(at) == model.contains(&at)));
                prop_assert_eq!(ranges.count(), model.len() as u64);
                prop_assert_eq!(ranges.is_empty(), model.is_empty());
                let pieces: Vec<_> = ranges.iter().collect();
                prop_assert!(pieces.iter().all(|piece| piece.start < piece.end));
                prop_assert!(pieces.windows(2).all(|two| two[0].end < two[1].start), "{:?}", pieces);
            }
        }
    }
}
