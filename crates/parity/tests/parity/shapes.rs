//! Every way to miss columns: all small widths with all sets, and all pairs of the widest stripe.

use forestall_parity::{Implementation, PQ_DATA_MAX, RecoverError, XOR_DATA_MAX, implementations};

use super::{LENGTHS, columns, pq, slices_mut, xor};

/// A stripe and the function that recovers it.
struct Stripe {
    implementation: Implementation,
    parities: usize,
    columns: Vec<Vec<u8>>,
}

impl Stripe {
    fn with_xor(implementation: Implementation, data_count: usize, len: usize) -> Self {
        let mut columns = columns(data_count, len);
        columns.push(xor(implementation, &columns));
        Self { implementation, parities: 1, columns }
    }

    fn with_pq(implementation: Implementation, data_count: usize, len: usize) -> Self {
        let mut columns = columns(data_count, len);
        let (p, q) = pq(implementation, &columns);
        columns.extend([p, q]);
        Self { implementation, parities: 2, columns }
    }

    fn recover(
        &self,
        columns: &mut [Vec<u8>],
        missing: &[usize],
        wanted: &[usize],
    ) -> Result<(), RecoverError> {
        let recover = match self.parities {
            1 => Implementation::recover_xor,
            _ => Implementation::recover_pq,
        };
        recover(self.implementation, &mut slices_mut(columns), missing, wanted)
    }

    /// Loses `missing`, asks for `wanted`, and expects exactly the original bytes of all but the
    /// columns not asked for, which stay as they were: empty.
    fn check(&self, missing: &[usize], wanted: &[usize]) {
        let mut damaged = self.columns.clone();
        let mut expected = self.columns.clone();
        for &index in missing {
            if wanted.contains(&index) {
                damaged[index].fill(0xee);
            } else {
                damaged[index].clear();
                expected[index].clear();
            }
        }
        assert_eq!(self.recover(&mut damaged, missing, wanted), Ok(()));
        assert!(
            damaged == expected,
            "{:?}: {} columns of {} bytes, {missing:?} missing, {wanted:?} wanted",
            self.implementation,
            self.columns.len(),
            self.columns[0].len(),
        );
    }

    /// Every set of missing columns that the parity covers, in both orders, with every subset
    /// wanted.
    fn check_all(&self) {
        let width = self.columns.len();
        self.check(&[], &[]);
        for x in 0..width {
            self.check(&[x], &[]);
            self.check(&[x], &[x]);
            for y in (0..width).filter(|y| self.parities == 2 && *y != x) {
                for wanted in [&[][..], &[x], &[y], &[x, y]] {
                    self.check(&[x, y], wanted);
                }
            }
        }
    }
}

#[test]
fn every_loss_of_every_small_stripe() {
    for implementation in implementations() {
        for data_count in 1..=6 {
            for len in LENGTHS {
                Stripe::with_pq(implementation, data_count, len).check_all();
                Stripe::with_xor(implementation, data_count, len).check_all();
            }
        }
    }
}

#[test]
fn every_loss_of_the_widest_stripes() {
    for implementation in implementations() {
        Stripe::with_pq(implementation, PQ_DATA_MAX, 65).check_all();
        Stripe::with_xor(implementation, XOR_DATA_MAX, 65).check_all();
    }
}

#[test]
fn one_loss_too_many_is_an_error_and_writes_nothing() {
    for implementation in implementations() {
        for parities in [1, 2] {
            let stripe = match parities {
                1 => Stripe::with_xor(implementation, 3, 40),
                _ => Stripe::with_pq(implementation, 3, 40),
            };
            let missing: Vec<_> = (0..=parities).collect();
            let mut columns = stripe.columns.clone();
            let error = stripe.recover(&mut columns, &missing, &missing[..1]).unwrap_err();
            let expected =
                RecoverError::TooManyMissing { missing: parities + 1, tolerated: parities };
            assert_eq!(error, expected);
            assert_eq!(columns, stripe.columns);
        }
    }
}
