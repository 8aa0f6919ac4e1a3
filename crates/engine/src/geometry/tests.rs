//! The layout against Linux md's published tables, and against itself: small shapes enumerated fully.

use std::collections::BTreeMap;

use super::*;

const LEVELS: [Level; 5] = [Level::Raid0, Level::Raid1, Level::Raid5, Level::Raid6, Level::Raid10];

/// Every level and number of members up to 8, with chunks of 1 and 4 blocks and stripe counts round the rotation.
fn small_shapes() -> impl Iterator<Item = Geometry> {
    LEVELS.into_iter().flat_map(|level| {
        (1..=8).flat_map(move |members| {
            let stripes = [1, 2, members as u64, 2 * members as u64 + 1];
            let shapes = [4096, 16384].into_iter().flat_map(move |chunk| {
                stripes.map(|stripes| Geometry::new(level, members, chunk, stripes))
            });
            shapes.filter_map(Result::ok)
        })
    })
}

#[test]
fn shapes_outside_the_rules_are_refused() {
    let members = |level| -> Vec<usize> {
        (0..=65).filter(|n| Geometry::new(level, *n, 4096, 1).is_ok()).collect()
    };
    assert_eq!(members(Level::Raid0), (1..=64).collect::<Vec<_>>());
    assert_eq!(members(Level::Raid1), (2..=64).collect::<Vec<_>>());
    assert_eq!(members(Level::Raid5), (3..=64).collect::<Vec<_>>());
    assert_eq!(members(Level::Raid6), (4..=64).collect::<Vec<_>>());
    assert_eq!(members(Level::Raid10), (4..=64).step_by(2).collect::<Vec<_>>());

    let with = |chunk, stripes| Geometry::new(Level::Raid5, 3, chunk, stripes);
    for chunk in [0, 1, 2048, 4095, 4097, 12288, 1 << 21, 1 << 31] {
        assert_eq!(with(chunk, 1), Err(GeometryError::Chunk(chunk)));
    }
    for shift in 12..=20 {
        assert!(with(1 << shift, 1).is_ok());
    }
    assert_eq!(with(4096, 0), Err(GeometryError::Stripes(0)));
    assert!(with(4096, MEMBER_LEN_MAX / 4096).is_ok());
    assert!(matches!(with(4096, MEMBER_LEN_MAX / 4096 + 1), Err(GeometryError::Stripes(_))));
    assert_eq!(
        Geometry::new(Level::Raid6, 3, 4096, 1).map_err(|error| error.to_string()),
        Err("RAID6 takes 4 to 64 members, not 3".to_owned())
    );
}

#[test]
fn the_largest_group_has_no_offset_past_63_bits() {
    let stripes = Geometry::max_stripes(Level::Raid0, u64::MAX, CHUNK_MAX);
    let geometry = Geometry::new(Level::Raid0, 64, CHUNK_MAX, stripes).unwrap();
    assert!(geometry.capacity() <= i64::MAX as u64);
    let last = geometry.locate(geometry.capacity() - 1);
    assert_eq!(last, Place { stripe: Stripe(stripes - 1), column: 63, row: CHUNK_MAX - 1 });
    assert_eq!(geometry.offset_of(last), geometry.capacity() - 1);
    assert_eq!(geometry.copies(Stripe(0), 63), SlotSet::one(Slot(63)));
}

#[test]
fn stripes_are_the_whole_chunks_of_a_member() {
    for level in LEVELS {
        assert_eq!(Geometry::max_stripes(level, 65535, 65536), 0);
        assert_eq!(Geometry::max_stripes(level, 65536, 65536), 1);
        assert_eq!(Geometry::max_stripes(level, 10 * 65536 + 4096, 65536), 10);
    }
}

/// A stripe as a line of a table: the number of the chunk of data in each slot, or P or Q.
fn table(level: Level, members: usize) -> Vec<String> {
    let geometry = Geometry::new(level, members, 4096, members as u64).unwrap();
    let columns = geometry.data_columns() as u64;
    let line = |stripe: u64| {
        let cells =
            (0..members).map(|slot| match geometry.role(Stripe(stripe), Slot(slot as u8)) {
                Role::Data(column) => (stripe * columns + column as u64).to_string(),
                Role::P => "P".to_owned(),
                Role::Q => "Q".to_owned(),
            });
        cells.collect::<Vec<_>>().join(" ")
    };
    (0..members as u64).map(line).collect()
}

#[test]
fn raid5_and_raid6_are_md_left_symmetric() {
    assert_eq!(table(Level::Raid5, 4), ["0 1 2 P", "4 5 P 3", "8 P 6 7", "P 9 10 11"]);
    assert_eq!(
        table(Level::Raid5, 5),
        ["0 1 2 3 P", "5 6 7 P 4", "10 11 P 8 9", "15 P 12 13 14", "P 16 17 18 19"]
    );
    assert_eq!(table(Level::Raid6, 4), ["Q 0 1 P", "2 3 P Q", "5 P Q 4", "P Q 6 7"]);
    assert_eq!(
        table(Level::Raid6, 5),
        ["Q 0 1 2 P", "3 4 5 P Q", "7 8 P Q 6", "11 P Q 9 10", "P Q 12 13 14"]
    );
}

#[test]
fn mirrors_and_plain_stripes_lie_as_drawn() {
    assert_eq!(table(Level::Raid0, 3), ["0 1 2", "3 4 5", "6 7 8"]);
    assert_eq!(table(Level::Raid1, 3), ["0 0 0", "1 1 1", "2 2 2"]);
    assert_eq!(table(Level::Raid10, 4), ["0 0 1 1", "2 2 3 3", "4 4 5 5", "6 6 7 7"]);
}

#[test]
fn every_offset_has_its_place_and_every_address_its_one_role() {
    for geometry in small_shapes() {
        let mut hits = BTreeMap::new();
        for block in 0..geometry.capacity() / BLOCK_SIZE {
            for offset in [block * BLOCK_SIZE, block * BLOCK_SIZE + 1, (block + 1) * BLOCK_SIZE - 1]
            {
                let place = geometry.locate(offset);
                assert!(place.stripe.0 < geometry.stripes() && place.row < geometry.chunk());
                assert_eq!(geometry.offset_of(place), offset, "{geometry:?}");
                let address = geometry.member_address(place.stripe, place.row);
                assert_eq!(geometry.at_address(address), (place.stripe, place.row));
            }
            let Place { stripe, column, row } = geometry.locate(block * BLOCK_SIZE);
            for slot in geometry.copies(stripe, column).iter() {
                assert_eq!(geometry.role(stripe, slot), Role::Data(column), "{geometry:?}");
                *hits.entry((slot, geometry.member_address(stripe, row))).or_insert(0) += 1;
            }
        }
        for stripe in (0..geometry.stripes()).map(Stripe) {
            let (p, q) = (geometry.p_slot(stripe), geometry.q_slot(stripe));
            for (slot, role) in [(p, Role::P), (q, Role::Q)] {
                let Some(slot) = slot else { continue };
                assert_eq!(geometry.role(stripe, slot), role, "{geometry:?}");
                for row in (0..geometry.chunk()).step_by(BLOCK_SIZE as usize) {
                    *hits.entry((slot, geometry.member_address(stripe, row))).or_insert(0) += 1;
                }
            }
            let parities = usize::from(p.is_some()) + usize::from(q.is_some());
            assert_eq!(parities, geometry.parity_columns());
        }
        let member_blocks = geometry.stripes() * u64::from(geometry.chunk()) / BLOCK_SIZE;
        assert_eq!(hits.len() as u64, member_blocks * geometry.members() as u64, "{geometry:?}");
        assert!(hits.values().all(|count| *count == 1), "{geometry:?}");
        assert!(hits.keys().all(|(slot, _)| usize::from(slot.0) < geometry.members()));
    }
}

#[test]
fn requests_are_cut_without_gap_or_overlap() {
    for geometry in small_shapes().filter(|geometry| geometry.members() <= 4) {
        let step = BLOCK_SIZE as usize;
        let capacity = geometry.capacity().min(12 * BLOCK_SIZE);
        for start in (0..capacity).step_by(step).flat_map(|block| [block, block + 511]) {
            for end in (0..=capacity).step_by(step).flat_map(|block| [block, block + 1]) {
                if (start..=geometry.capacity()).contains(&end) {
                    check_cuts(&geometry, start, end - start);
                }
            }
        }
    }
}

fn check_cuts(geometry: &Geometry, offset: u64, len: u64) {
    let mut at = 0;
    for piece in geometry.pieces(offset, len) {
        let Piece { stripe, column, rows, at: piece_at } = piece;
        assert!(!rows.is_empty() && rows.end <= geometry.chunk());
        assert_eq!(piece_at, at);
        assert_eq!(geometry.locate(offset + at), Place { stripe, column, row: rows.start });
        at += u64::from(rows.end - rows.start);
        assert!(at == len || rows.end == geometry.chunk(), "a piece ends with its chunk");
    }
    assert_eq!(at, len);

    let mut at = 0;
    for StripeRange { stripe, within, at: range_at } in geometry.stripe_ranges(offset, len) {
        assert!(!within.is_empty() && within.end <= geometry.stripe_len());
        assert_eq!(range_at, at);
        assert_eq!(stripe.0 * geometry.stripe_len() + within.start, offset + at);
        at += within.end - within.start;
        assert!(at == len || within.end == geometry.stripe_len(), "a range ends with its stripe");
    }
    assert_eq!(at, len);
}

#[test]
#[should_panic(expected = "past")]
fn a_request_past_the_end_is_a_mistake() {
    let geometry = Geometry::new(Level::Raid0, 2, 4096, 2).unwrap();
    let _ = geometry.pieces(geometry.capacity() - 1, 2);
}

/// Whether all data survives, from the code's definition: a mirror needs a copy of each column, a stripe with parity as
/// many blocks as there are data columns.
fn whole(geometry: &Geometry, missing: SlotSet) -> bool {
    (0..geometry.stripes()).map(Stripe).all(|stripe| {
        (0..geometry.data_columns()).all(|column| {
            let copies_left = !geometry.copies(stripe, column).minus(missing).is_empty();
            let left = geometry.members() - missing.len();
            copies_left || geometry.parity_columns() > 0 && left >= geometry.data_columns()
        })
    })
}

#[test]
fn failures_left_is_what_every_further_loss_shows() {
    let shapes = small_shapes().filter(|geometry| geometry.stripes() == geometry.members() as u64);
    for geometry in shapes {
        let n = geometry.members();
        for missing in (0..1 << n).map(SlotSet) {
            assert_eq!(geometry.still_whole(missing), whole(&geometry, missing), "{missing:?}");
            let survives = |more: usize| {
                let further = (0..1 << n).map(SlotSet);
                further
                    .filter(|lost| lost.len() == more && lost.and(missing).is_empty())
                    .all(|lost| whole(&geometry, lost.or(missing)))
            };
            let room = n - missing.len();
            let left = (1..=room).take_while(|more| survives(*more)).count() as u32;
            let left = if whole(&geometry, missing) { left } else { 0 };
            assert_eq!(geometry.failures_left(missing), left, "{geometry:?} {missing:?}");
            // Slots that the group does not have make no difference.
            let outside = SlotSet(missing.0 | 1 << 63);
            assert_eq!(geometry.still_whole(outside), geometry.still_whole(missing));
            assert_eq!(geometry.failures_left(outside), geometry.failures_left(missing));
        }
        assert_eq!(geometry.failures_left(SlotSet::EMPTY) as usize, geometry.tolerance());
    }
}
