//! Recovery of missing columns from those that are left.
//!
//! Every case is one shape: the present columns are summed to the syndromes `S_P` and `S_Q`, and a
//! missing column is a fixed combination of the two ([`weights`]). Owns that algebra and the checks
//! of the caller's lists; the sums are made by the kernels, in one pass over memory.

use std::error::Error;
use std::fmt;

use crate::gf;
use crate::kernel::{Implementation, Present, TARGETS_MAX, Target};
use crate::{PQ_DATA_MAX, XOR_DATA_MAX};

/// Why missing columns cannot be recovered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoverError {
    /// More columns are missing than there are parity columns.
    TooManyMissing {
        /// Number of columns missing, parity included.
        missing: usize,
        /// Number that can be recovered: 1 for XOR, 2 for P+Q.
        tolerated: usize,
    },
}

impl fmt::Display for RecoverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyMissing { missing, tolerated } => write!(
                f,
                "{missing} columns of the stripe are missing, parity can recover {tolerated}"
            ),
        }
    }
}

impl Error for RecoverError {}

/// Recovers a missing column of an XOR stripe in place.
///
/// `columns` are the data columns in order (1 to [`XOR_DATA_MAX`]) and then P. `missing` lists the
/// indices whose content is not known, `wanted` those of them to compute. All columns have one
/// length, but one that is missing and not wanted is never looked at and may be empty.
///
/// # Errors
/// [`RecoverError::TooManyMissing`] with more than one index in `missing`; nothing is written then.
///
/// # Panics
/// If lengths differ, the number of columns is out of range, an index is out of range or listed
/// twice, or a column is wanted that is not missing.
pub fn recover_xor(
    columns: &mut [&mut [u8]],
    missing: &[usize],
    wanted: &[usize],
) -> Result<(), RecoverError> {
    Implementation::best().recover_xor(columns, missing, wanted)
}

/// Recovers up to two missing columns of a P+Q stripe in place.
///
/// `columns` are the data columns in order (1 to [`PQ_DATA_MAX`]), then P, then Q. `missing` lists
/// the indices whose content is not known, `wanted` those of them to compute. All columns have one
/// length, but one that is missing and not wanted is never looked at and may be empty: a reader
/// that has not fetched Q lists Q as missing, and a single data column then comes from P alone.
///
/// # Errors
/// [`RecoverError::TooManyMissing`] with more than two indices in `missing`; nothing is written
/// then.
///
/// # Panics
/// If lengths differ, the number of columns is out of range, an index is out of range or listed
/// twice, or a column is wanted that is not missing.
pub fn recover_pq(
    columns: &mut [&mut [u8]],
    missing: &[usize],
    wanted: &[usize],
) -> Result<(), RecoverError> {
    Implementation::best().recover_pq(columns, missing, wanted)
}

impl Implementation {
    /// [`recover_xor`] by this implementation.
    ///
    /// # Errors
    /// As the function.
    pub fn recover_xor(
        self,
        columns: &mut [&mut [u8]],
        missing: &[usize],
        wanted: &[usize],
    ) -> Result<(), RecoverError> {
        self.recover(columns, XOR_DATA_MAX, 1, missing, wanted)
    }

    /// [`recover_pq`] by this implementation.
    ///
    /// # Errors
    /// As the function.
    pub fn recover_pq(
        self,
        columns: &mut [&mut [u8]],
        missing: &[usize],
        wanted: &[usize],
    ) -> Result<(), RecoverError> {
        self.recover(columns, PQ_DATA_MAX, 2, missing, wanted)
    }

    fn recover(
        self,
        columns: &mut [&mut [u8]],
        data_max: usize,
        parities: usize,
        missing: &[usize],
        wanted: &[usize],
    ) -> Result<(), RecoverError> {
        let data_count = columns.len().saturating_sub(parities);
        assert!(
            (1..=data_max).contains(&data_count),
            "{} columns with {parities} of parity: not 1 to {data_max} data columns",
            columns.len()
        );
        assert_lists(columns.len(), missing, wanted);
        if missing.len() > parities {
            return Err(RecoverError::TooManyMissing {
                missing: missing.len(),
                tolerated: parities,
            });
        }

        let mut present = [None; XOR_DATA_MAX + 1];
        let mut targets: [Option<Target<'_>>; TARGETS_MAX] = [None, None];
        let mut free_targets = targets.iter_mut();
        for (index, column) in columns.iter_mut().enumerate() {
            if wanted.contains(&index) {
                let other = missing.iter().copied().find(|&other| other != index);
                let weights = weights(data_count, index, other);
                let target = free_targets.next().expect("no more are wanted than are missing");
                *target = Some(Target { out: column, weights });
            } else if !missing.contains(&index) {
                present[index] = Some(&**column);
            }
        }
        let (data, parity) = present.split_at(data_count);
        let q = if parities == 2 { parity[1] } else { None };
        self.compute(&Present { data, p: parity[0], q }, targets);
        Ok(())
    }

    fn compute(self, present: &Present<'_>, targets: [Option<Target<'_>>; TARGETS_MAX]) {
        let solve = |targets: &mut [Target<'_>]| {
            let len = targets[0].out.len();
            assert!(
                targets.iter().all(|target| target.out.len() == len) && present.all_have_len(len),
                "columns of one stripe differ in length"
            );
            match targets {
                // Where Q plays no part, the present Q is not read at all.
                [Target { out, weights: [1, 0] }] => self.sum(present, out),
                targets => (self.0.solve)(present, targets),
            }
        };
        match targets {
            [None, _] => {}
            [Some(only), None] => solve(&mut [only]),
            [Some(first), Some(second)] => solve(&mut [first, second]),
        }
    }

    /// Computes `S_P`.
    fn sum(self, present: &Present<'_>, out: &mut [u8]) {
        let mut columns: [&[u8]; XOR_DATA_MAX + 1] = [&[]; XOR_DATA_MAX + 1];
        let mut count = 0;
        for column in present.data.iter().chain([&present.p]).copied().flatten() {
            columns[count] = column;
            count += 1;
        }
        (self.0.xor_gen)(&columns[..count], out);
    }
}

/// The factors of `S_P` and `S_Q` that give the missing column `target` when `other`, if any, is
/// missing too. Indices count data columns, then P, then Q.
///
/// With data columns x and y missing, `S_P = Dx + Dy` and `S_Q = 2^x Dx + 2^y Dy`, hence
/// `Dx = (2^y S_P + S_Q) / (2^x + 2^y)`. A missing P or Q takes its own equation away and leaves
/// the other to give x; P and Q themselves are the syndromes plus what x contributes.
fn weights(data_count: usize, target: usize, other: Option<usize>) -> [u8; 2] {
    let (p, q) = (data_count, data_count + 1);
    let other_data = other.filter(|&other| other < data_count).map(gf::exp2);
    if target == p {
        return [1, other_data.map_or(0, gf::inverse)];
    }
    if target == q {
        return [other_data.unwrap_or(0), 1];
    }
    let weight = gf::exp2(target);
    match other_data {
        Some(other_weight) => {
            let divisor = gf::inverse(weight ^ other_weight);
            [gf::mul(other_weight, divisor), divisor]
        }
        None if other == Some(p) => [0, gf::inverse(weight)],
        None => [1, 0],
    }
}

fn assert_lists(columns: usize, missing: &[usize], wanted: &[usize]) {
    for (list, name) in [(missing, "missing"), (wanted, "wanted")] {
        for (position, index) in list.iter().enumerate() {
            assert!(*index < columns, "{name} column {index} of {columns}");
            assert!(!list[..position].contains(index), "{name} column {index} is listed twice");
        }
    }
    for index in wanted {
        assert!(missing.contains(index), "column {index} is wanted but not missing");
    }
}
