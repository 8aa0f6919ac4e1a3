//! Laws that hold for any content, length and alignment, tried at random.

use forestall_parity::{Implementation, implementations};
use proptest::prelude::*;

use super::{columns, slices};

/// Bytes at a chosen distance from an aligned address.
struct Unaligned {
    buffer: Vec<u8>,
    start: usize,
}

impl Unaligned {
    fn new(content: &[u8], offset: usize) -> Self {
        let mut buffer = vec![0xdd; content.len() + 128];
        let start = buffer.as_ptr().align_offset(64) + offset;
        buffer[start..start + content.len()].copy_from_slice(content);
        Self { buffer, start }
    }

    fn bytes(&self, len: usize) -> &[u8] {
        &self.buffer[self.start..self.start + len]
    }

    fn bytes_mut(&mut self, len: usize) -> &mut [u8] {
        &mut self.buffer[self.start..self.start + len]
    }

    /// Nothing around the content was written.
    fn edges_intact(&self, len: usize) -> bool {
        let (before, after) = (&self.buffer[..self.start], &self.buffer[self.start + len..]);
        before.iter().chain(after).all(|byte| *byte == 0xdd)
    }
}

fn scalar_pq(data: &[&[u8]], len: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut p, mut q) = (vec![0; len], vec![0; len]);
    Implementation::scalar().pq_gen(data, &mut p, &mut q);
    (p, q)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_implementation_agrees_at_any_alignment(
        count in 1usize..=62,
        len in 0usize..1500,
        offset in 0usize..64,
        stagger in 0usize..64,
    ) {
        let content = columns(count, len);
        let data: Vec<_> = content
            .iter()
            .enumerate()
            .map(|(i, column)| Unaligned::new(column, (offset + i * stagger) % 64))
            .collect();
        let data: Vec<_> = data.iter().map(|column| column.bytes(len)).collect();
        let (expected_p, expected_q) = scalar_pq(&slices(&content), len);
        for implementation in implementations() {
            let mut p = Unaligned::new(&vec![1; len], (offset + 7) % 64);
            let mut q = Unaligned::new(&vec![2; len], (offset + 31) % 64);
            implementation.pq_gen(&data, p.bytes_mut(len), q.bytes_mut(len));
            prop_assert_eq!(p.bytes(len), &expected_p[..]);
            prop_assert_eq!(q.bytes(len), &expected_q[..]);
            prop_assert!(p.edges_intact(len) && q.edges_intact(len));

            p.bytes_mut(len).fill(3);
            implementation.xor_gen(&data, p.bytes_mut(len));
            prop_assert_eq!(p.bytes(len), &expected_p[..]);
            prop_assert!(p.edges_intact(len));
        }
    }

    #[test]
    fn a_delta_update_equals_making_the_parity_anew(
        (count, col) in (1usize..=62).prop_flat_map(|count| (Just(count), 0..count)),
        new in proptest::collection::vec(any::<u8>(), 0..700),
        offset in 0usize..64,
    ) {
        let len = new.len();
        let old = columns(count, len);
        let (old_p, old_q) = scalar_pq(&slices(&old), len);
        let mut changed = slices(&old);
        changed[col] = &new;
        let (new_p, new_q) = scalar_pq(&changed, len);
        let delta: Vec<_> = old[col].iter().zip(&new).map(|(old, new)| old ^ new).collect();

        for implementation in implementations() {
            for (with_p, with_q) in [(true, true), (true, false), (false, true), (false, false)] {
                for by_delta in [false, true] {
                    let mut p = Unaligned::new(&old_p, offset);
                    let mut q = Unaligned::new(&old_q, 63 - offset);
                    let some_p = with_p.then(|| p.bytes_mut(len));
                    let some_q = with_q.then(|| q.bytes_mut(len));
                    if by_delta {
                        implementation.pq_apply_delta(col, &delta, some_p, some_q);
                    } else {
                        implementation.pq_update(col, &old[col], &new, some_p, some_q);
                    }
                    prop_assert_eq!(p.bytes(len), if with_p { &new_p[..] } else { &old_p[..] });
                    prop_assert_eq!(q.bytes(len), if with_q { &new_q[..] } else { &old_q[..] });
                    prop_assert!(p.edges_intact(len) && q.edges_intact(len));
                }
            }
        }
    }

    #[test]
    fn any_two_losses_come_back_at_any_alignment(
        (count, x, y) in (1usize..=62).prop_flat_map(|count| {
            (Just(count), 0..count + 2, 0..count + 2)
        }),
        len in 0usize..700,
        stagger in 0usize..64,
    ) {
        let mut content = columns(count, len);
        let (p, q) = scalar_pq(&slices(&content), len);
        content.extend([p, q]);
        let missing: &[usize] = if x == y { &[x] } else { &[x, y] };
        for implementation in implementations() {
            let mut stripe: Vec<_> = content
                .iter()
                .enumerate()
                .map(|(i, column)| Unaligned::new(column, (i * stagger) % 64))
                .collect();
            let mut all: Vec<_> = stripe.iter_mut().map(|column| column.bytes_mut(len)).collect();
            for &index in missing {
                all[index].fill(0x99);
            }
            implementation.recover_pq(&mut all, missing, missing).unwrap();
            for (column, expected) in stripe.iter().zip(&content) {
                prop_assert_eq!(column.bytes(len), &expected[..]);
                prop_assert!(column.edges_intact(len));
            }
        }
    }
}
