//! A large array of bytes that costs memory only where something other than zero was written.
//!
//! Owns the pages. Invariant: a page that is not there reads as zeroes.

use std::collections::BTreeMap;
use std::ops::Range;

/// Bytes of a page.
const PAGE: usize = 64 * 1024;

/// The bytes.
#[derive(Clone)]
pub(super) struct Sparse {
    pages: BTreeMap<usize, Box<[u8]>>,
    len: usize,
}

impl Sparse {
    /// So many zeroes.
    pub(super) fn new(len: usize) -> Self {
        Self { pages: BTreeMap::new(), len }
    }

    /// These bytes.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let mut sparse = Self::new(bytes.len());
        sparse.write(0, bytes);
        sparse
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Copies bytes out.
    pub(super) fn read_into(&self, offset: usize, to: &mut [u8]) {
        for (page, within, part) in pieces(offset, to.len()) {
            match self.pages.get(&page) {
                Some(bytes) => to[part].copy_from_slice(&bytes[within]),
                None => to[part].fill(0),
            }
        }
    }

    /// Copies bytes in.
    pub(super) fn write(&mut self, offset: usize, from: &[u8]) {
        for (page, within, part) in pieces(offset, from.len()) {
            let from = &from[part];
            match self.pages.get_mut(&page) {
                Some(bytes) => bytes[within].copy_from_slice(from),
                None if from.iter().all(|byte| *byte == 0) => {}
                None => {
                    let mut bytes = vec![0; PAGE].into_boxed_slice();
                    bytes[within].copy_from_slice(from);
                    self.pages.insert(page, bytes);
                }
            }
        }
    }

    /// Copies a range of another one to the same place here.
    pub(super) fn take_from(&mut self, other: &Self, range: Range<usize>) {
        let mut bytes = vec![0; range.len()];
        other.read_into(range.start, &mut bytes);
        self.write(range.start, &bytes);
    }
}

/// The pages that a range touches: number of the page, the range inside it, the range inside the whole.
fn pieces(offset: usize, len: usize) -> impl Iterator<Item = (usize, Range<usize>, Range<usize>)> {
    let end = offset + len;
    (offset / PAGE..end.div_ceil(PAGE)).map(move |page| {
        let (from, to) = (offset.max(page * PAGE), end.min((page + 1) * PAGE));
        (page, from - page * PAGE..to - page * PAGE, from - offset..to - offset)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_the_rest_is_zero() {
        let mut sparse = Sparse::new(5 * PAGE);
        let bytes: Vec<u8> = (0..PAGE + 100).map(|i| 1 + (i % 250) as u8).collect();
        sparse.write(PAGE - 50, &bytes);
        let mut read = vec![9; 3 * PAGE];
        sparse.read_into(0, &mut read);
        assert!(read[..PAGE - 50].iter().all(|byte| *byte == 0));
        assert_eq!(read[PAGE - 50..2 * PAGE + 50], bytes);
        assert!(read[2 * PAGE + 50..].iter().all(|byte| *byte == 0));
        sparse.write(PAGE, &vec![0; PAGE]);
        let mut other = Sparse::new(5 * PAGE);
        other.take_from(&sparse, PAGE - 50..PAGE + 50);
        other.read_into(PAGE - 50, &mut read[..100]);
        assert_eq!(read[..50], bytes[..50]);
        assert_eq!(read[50..100], [0; 50]);
    }
}
