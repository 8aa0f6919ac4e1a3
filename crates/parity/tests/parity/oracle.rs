//! The same bytes as `rusty_erasure`, which is byte-identical with ISA-L.

use forestall_parity::{PQ_DATA_MAX, implementations};

use super::{LENGTHS, columns, pq, slices, xor};

#[test]
fn p_and_q_are_those_of_the_oracle() {
    for count in 2..=PQ_DATA_MAX {
        for len in LENGTHS {
            let data = columns(count, len);
            let (mut p, mut q, mut only_p) = (vec![0; len], vec![0; len], vec![0; len]);
            rusty_erasure::raid::pq_gen(&slices(&data), &mut p, &mut q).unwrap();
            rusty_erasure::raid::xor_gen(&slices(&data), &mut only_p).unwrap();
            for implementation in implementations() {
                let (our_p, our_q) = pq(implementation, &data);
                assert_eq!(our_p, p, "P of {count} columns of {len}, {implementation:?}");
                assert_eq!(our_q, q, "Q of {count} columns of {len}, {implementation:?}");
                assert_eq!(xor(implementation, &data), only_p, "XOR, {implementation:?}");
            }
        }
    }
}

#[test]
fn a_stripe_recovered_passes_the_oracles_check() {
    for implementation in implementations() {
        let len = 100;
        let mut stripe = columns(9, len);
        let (mut p, mut q) = (vec![0; len], vec![0; len]);
        rusty_erasure::raid::pq_gen(&slices(&stripe), &mut p, &mut q).unwrap();
        stripe.extend([p, q]);
        for (first, second) in [(0, 8), (3, 9), (4, 10), (9, 10)] {
            stripe[first].fill(0x77);
            stripe[second].fill(0x77);
            let lost = [first, second];
            implementation.recover_pq(&mut super::slices_mut(&mut stripe), &lost, &lost).unwrap();
            let (data, parity) = stripe.split_at(9);
            let verdict = rusty_erasure::raid::pq_check(&slices(data), &parity[0], &parity[1]);
            assert!(matches!(verdict, Ok(None)), "{lost:?}, {implementation:?}");
        }
    }
}
