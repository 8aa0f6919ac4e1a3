//! Values worked out by hand from the definition that Linux md and ISA-L share:
//! `P = d0 + d1 + ...` and `Q = d0 + 2 d1 + 4 d2 + ...` modulo x^8 + x^4 + x^3 + x^2 + 1.

use forestall_parity::{PQ_DATA_MAX, XOR_DATA_MAX, implementations, is_zero};

use super::{LENGTHS, columns, pq, slices, xor};

/// Doubling as the definition has it: shift, and subtract 0x11d where the ninth bit came up.
fn times_two(value: u8) -> u8 {
    let shifted = u16::from(value) << 1;
    u8::try_from(if shifted > 0xff { shifted ^ 0x11d } else { shifted }).unwrap()
}

/// The first bytes of P and Q for columns of one repeated byte each.
fn pq_of_bytes(data: &[u8], check: impl Fn(u8, u8)) {
    for implementation in implementations() {
        let data: Vec<_> = data.iter().map(|byte| vec![*byte; 129]).collect();
        let (p, q) = pq(implementation, &data);
        assert!(p.iter().all(|byte| *byte == p[0]) && q.iter().all(|byte| *byte == q[0]));
        check(p[0], q[0]);
    }
}

#[test]
fn small_stripes_by_hand() {
    // One column: both parities are copies.
    pq_of_bytes(&[0xc3], |p, q| assert_eq!((p, q), (0xc3, 0xc3)));
    // 1 + 2 + 4, no carry.
    pq_of_bytes(&[1, 1, 1], |p, q| assert_eq!((p, q), (1, 7)));
    // 0x80 * 2 carries to 0x1d; 0x80 + 0x1d = 0x9d.
    pq_of_bytes(&[0x80, 0x80], |p, q| assert_eq!((p, q), (0, 0x9d)));
    // 0xff + 2*0xff = 0xff + 0xe3 = 0x1c; 4*0xff = 2*0xe3 = 0xdb; together 0xc7.
    pq_of_bytes(&[0xff, 0xff, 0xff], |p, q| assert_eq!((p, q), (0xff, 0xc7)));
}

#[test]
fn a_single_one_shows_the_weight_of_its_column() {
    let by_hand = [(0, 0x01), (7, 0x80), (8, 0x1d), (9, 0x3a), (12, 0xcd), (25, 3), (61, 0x6f)];
    let mut weight = 1;
    for column in 0..PQ_DATA_MAX {
        let mut data = [0; PQ_DATA_MAX];
        data[column] = 1;
        pq_of_bytes(&data, |p, q| assert_eq!((p, q), (1, weight), "column {column}"));
        if let Some((_, expected)) = by_hand.iter().find(|(number, _)| *number == column) {
            assert_eq!(weight, *expected, "column {column} by hand");
        }
        weight = times_two(weight);
    }
}

#[test]
fn every_width_and_length_follows_the_definition() {
    for implementation in implementations() {
        for len in LENGTHS {
            for count in [1, 2, 3, 4, 5, 8, 17, PQ_DATA_MAX] {
                let data = columns(count, len);
                let (mut p, mut q) = (vec![0; len], vec![0; len]);
                for column in data.iter().rev() {
                    for (at, byte) in column.iter().enumerate() {
                        p[at] ^= byte;
                        q[at] = times_two(q[at]) ^ byte;
                    }
                }
                assert_eq!(pq(implementation, &data), (p.clone(), q), "{implementation:?}");
                assert_eq!(xor(implementation, &data), p, "{implementation:?}");
            }
        }
    }
}

#[test]
fn the_widest_xor_stripe_sums_to_zero_with_its_parity() {
    for implementation in implementations() {
        let data = columns(XOR_DATA_MAX, 333);
        let mut sum = xor(implementation, &data);
        assert!(!is_zero(&sum));
        for column in slices(&data) {
            implementation.xor_into(&mut sum, column);
        }
        assert!(is_zero(&sum), "{implementation:?}");
    }
}

#[test]
fn is_zero_sees_every_bit() {
    for len in LENGTHS {
        let mut bytes = vec![0; len];
        assert!(is_zero(&bytes));
        for at in 0..len {
            bytes[at] = 1 << (at % 8);
            assert!(!is_zero(&bytes), "byte {at} of {len}");
            bytes[at] = 0;
        }
    }
}

#[test]
fn the_scalar_reference_comes_first_and_the_best_last() {
    let names: Vec<_> = implementations().map(|each| each.name()).collect();
    assert_eq!(names.first(), Some(&"scalar"));
    assert_eq!(names.last(), Some(&forestall_parity::Implementation::best().name()));
    #[cfg(target_arch = "x86_64")]
    assert_eq!(names.contains(&"avx2"), is_x86_feature_detected!("avx2"));
}
