//! Plans by name for the cases that count, then every view of every small shape executed on a model of the stripe.

use std::ops::Range;

use super::*;
use crate::config::Level;
use crate::ids::BLOCK_SIZE;

mod minimal;
mod model;

use model::Model;

const CHUNK: u32 = 2 * BLOCK_SIZE as u32;
const BLOCK: u64 = BLOCK_SIZE;

fn geometry(level: Level, members: usize) -> Geometry {
    Geometry::new(level, members, CHUNK, 64).unwrap()
}

fn slots(slots: &[u8]) -> SlotSet {
    slots.iter().copied().map(Slot).collect()
}

fn columns(columns: &[usize]) -> ColumnSet {
    columns.iter().copied().collect()
}

/// All members well, but for `gone`, which can be neither read nor written.
fn without(geometry: &Geometry, gone: &[u8]) -> View {
    let left = SlotSet::first(geometry.members()).minus(slots(gone));
    View { readable: left, preferred: left, writable: left }
}

/// The only band of a write of `blocks` blocks of stripe 0 from block `block` on.
fn band(geometry: &Geometry, blocks: Range<u64>, view: View) -> Result<Band, Unwritable> {
    let plan = plan_write(geometry, Stripe(0), blocks.start * BLOCK..blocks.end * BLOCK, view)?;
    assert_eq!(plan.bands.len(), 1, "{plan:?}");
    Ok(plan.bands[0].clone())
}

fn accesses_of(level: Level, members: usize, within: Range<u64>) -> (usize, usize) {
    let geometry = geometry(level, members);
    accesses(&plan_write(&geometry, Stripe(0), within, View::whole(&geometry)).unwrap())
}

#[test]
fn accesses_of_healthy_groups() {
    let one_block = 0..BLOCK;
    assert_eq!(accesses_of(Level::Raid5, 8, one_block.clone()), (2, 2));
    assert_eq!(accesses_of(Level::Raid6, 10, one_block.clone()), (3, 3));
    assert_eq!(accesses_of(Level::Raid1, 5, one_block.clone()), (0, 5));
    assert_eq!(accesses_of(Level::Raid10, 6, one_block.clone()), (0, 2));
    assert_eq!(accesses_of(Level::Raid0, 6, one_block.clone()), (0, 1));
    // With few columns it is cheaper, or as cheap, to read the other ones.
    assert_eq!(accesses_of(Level::Raid5, 3, one_block.clone()), (1, 2));
    assert_eq!(accesses_of(Level::Raid5, 4, one_block.clone()), (2, 2));
    assert_eq!(accesses_of(Level::Raid6, 5, one_block), (2, 3));
    for (level, least) in [(Level::Raid5, 3), (Level::Raid6, 4), (Level::Raid1, 2)] {
        for members in least..=64 {
            let stripe_len = geometry(level, members).stripe_len();
            assert_eq!(accesses_of(level, members, 0..stripe_len), (0, members));
        }
    }
}

#[test]
fn bands_that_touch_are_one_access() {
    // Blocks 1 and 2 of a chunk of two: the end of column 0, the start of column 1. In neither row is much written, so
    // each is a read-modify-write of its column and P, and both rows of P are one read and one write.
    let geometry = geometry(Level::Raid5, 8);
    let plan = plan_write(&geometry, Stripe(0), BLOCK..3 * BLOCK, View::whole(&geometry)).unwrap();
    assert_eq!(plan.bands.len(), 2);
    assert_eq!(plan.bands[0].columns, columns(&[1]));
    assert_eq!(plan.bands[1].columns, columns(&[0]));
    assert!(plan.bands.iter().all(|band| band.method == Method::ReadModifyWrite));
    assert_eq!(accesses(&plan), (3, 3));
}

#[test]
fn a_range_is_cut_into_at_most_three_bands() {
    let chunk = 4 * BLOCK as u32;
    let geometry = Geometry::new(Level::Raid5, 5, chunk, 1).unwrap();
    let cut = |blocks: Range<u64>| -> Vec<(Range<u32>, Vec<usize>)> {
        let within = blocks.start * BLOCK..blocks.end * BLOCK;
        let plan = plan_write(&geometry, Stripe(0), within, View::whole(&geometry)).unwrap();
        let band = |band: &Band| {
            let rows = band.rows.start / 4096..band.rows.end / 4096;
            (rows, band.columns.iter().collect())
        };
        plan.bands.iter().map(band).collect()
    };
    assert_eq!(cut(0..16), [(0..4, vec![0, 1, 2, 3])]);
    assert_eq!(cut(5..7), [(1..3, vec![1])]);
    assert_eq!(cut(4..8), [(0..4, vec![1])]);
    assert_eq!(cut(3..5), [(0..1, vec![1]), (3..4, vec![0])]);
    assert_eq!(cut(3..9), [(0..1, vec![1, 2]), (1..3, vec![1]), (3..4, vec![0, 1])]);
    assert_eq!(cut(1..7), [(0..1, vec![1]), (1..3, vec![0, 1]), (3..4, vec![0])]);
    assert_eq!(cut(2..6), [(0..2, vec![1]), (2..4, vec![0])]);
    assert_eq!(cut(0..6), [(0..2, vec![0, 1]), (2..4, vec![0])]);
    assert_eq!(cut(1..8), [(0..1, vec![1]), (1..4, vec![0, 1])]);
}

// In stripe 0 of five members, RAID 5 has its columns in slots 0 to 3 and P in slot 4; RAID 6 of six members has Q in
// slot 0, its columns in slots 1 to 4 and P in slot 5.

#[test]
fn reads_go_round_an_ailing_member_and_come_to_it_last() {
    let geometry = geometry(Level::Raid5, 5);
    let read = |view| plan_read(&geometry, Stripe(0), 1, view);
    let all = View::whole(&geometry);
    assert_eq!(read(all), ReadPlan::Direct(slots(&[1])));
    let ailing = View { preferred: all.preferred.without(Slot(1)), ..all };
    assert_eq!(read(ailing), ReadPlan::Rebuild { reads: slots(&[0, 2, 3, 4]) });
    let and_one_gone = View { readable: all.readable.without(Slot(3)), ..ailing };
    assert_eq!(read(and_one_gone), ReadPlan::Direct(slots(&[1])));
    let two_gone = without(&geometry, &[1, 3]);
    assert_eq!(read(two_gone), ReadPlan::Lost);
    // Another member ails and this one is gone: nothing else can give the block.
    let gone = without(&geometry, &[1]);
    let gone = View { preferred: gone.preferred.without(Slot(2)), ..gone };
    assert_eq!(read(gone), ReadPlan::Rebuild { reads: slots(&[0, 2, 3, 4]) });
}

#[test]
fn raid6_rebuilds_with_xor_where_it_can() {
    let geometry = geometry(Level::Raid6, 6);
    let gone = without(&geometry, &[2]);
    let read = plan_read(&geometry, Stripe(0), 1, gone);
    assert_eq!(read, ReadPlan::Rebuild { reads: slots(&[1, 3, 4, 5]) });
    let ailing = View { preferred: gone.preferred.without(Slot(3)), ..gone };
    let read = plan_read(&geometry, Stripe(0), 1, ailing);
    assert_eq!(read, ReadPlan::Rebuild { reads: slots(&[0, 1, 4, 5]) });
}

#[test]
fn a_write_to_a_missing_column_shows_in_parity() {
    let geometry = geometry(Level::Raid5, 5);
    let band = band(&geometry, 2..3, without(&geometry, &[1])).unwrap();
    assert_eq!(band.method, Method::Reconstruct);
    assert_eq!(band.reads, slots(&[0, 2, 3]));
    assert_eq!((band.data_writes, band.write_p), (SlotSet::EMPTY, true));
}

#[test]
fn a_write_beside_a_missing_column_changes_parity() {
    let geometry = geometry(Level::Raid5, 5);
    let band = band(&geometry, 2..3, without(&geometry, &[3])).unwrap();
    assert_eq!(band.method, Method::ReadModifyWrite);
    assert_eq!(band.reads, slots(&[1, 4]));
    assert_eq!((band.data_writes, band.write_p), (slots(&[1]), true));
}

#[test]
fn without_parity_only_the_data_is_written() {
    let five = geometry(Level::Raid5, 5);
    let alone = band(&five, 2..3, without(&five, &[4])).unwrap();
    assert_eq!((alone.method, alone.reads), (Method::DataOnly, SlotSet::EMPTY));
    assert_eq!((alone.data_writes, alone.write_p), (slots(&[1]), false));
    // RAID 6 of many columns with one parity missing changes the other.
    let eight = geometry(Level::Raid6, 8);
    let (p, q) = (eight.p_slot(Stripe(0)).unwrap(), eight.q_slot(Stripe(0)).unwrap());
    let column = eight.copies(Stripe(0), 1);
    for (gone, kept) in [(p, q), (q, p)] {
        let band = band(&eight, 2..3, without(&eight, &[gone.0])).unwrap();
        assert_eq!((band.method, band.reads), (Method::ReadModifyWrite, column.with(kept)));
        assert_eq!((band.write_p, band.write_q), (kept == p, kept == q));
    }
}

#[test]
fn two_missing_columns_are_recovered_for_new_parity() {
    // Column 0 is written and missing, column 3 is missing: P and Q give back column 3.
    let geometry = geometry(Level::Raid6, 6);
    let band = band(&geometry, 0..1, without(&geometry, &[1, 4])).unwrap();
    assert_eq!(band.method, Method::Recover);
    assert_eq!((band.reads, band.recover), (slots(&[0, 2, 3, 5]), columns(&[3])));
    assert_eq!((band.data_writes, band.write_p, band.write_q), (SlotSet::EMPTY, true, true));
}

#[test]
fn lost_parity_is_made_from_scratch() {
    let geometry = geometry(Level::Raid5, 8);
    let p = geometry.p_slot(Stripe(0)).unwrap();
    let all = View::whole(&geometry);
    let view = View { readable: all.readable.without(p), ..all };
    let band = band(&geometry, 0..1, view).unwrap();
    assert_eq!(band.method, Method::Reconstruct);
    assert!(band.write_p && !band.reads.contains(p));
}

#[test]
fn a_full_band_needs_no_old_block() {
    let geometry = geometry(Level::Raid6, 6);
    let view = View { readable: SlotSet::EMPTY, ..View::whole(&geometry) };
    let band = band(&geometry, 0..8, view).unwrap();
    assert_eq!((band.method, band.reads), (Method::Full, SlotSet::EMPTY));
    assert_eq!(band.data_writes, slots(&[1, 2, 3, 4]));
    assert!(band.write_p && band.write_q);
}

#[test]
fn writes_go_round_an_ailing_member() {
    // The written column ails: its old block is not read, the others are.
    let geometry = geometry(Level::Raid5, 8);
    let all = View::whole(&geometry);
    let ailing = |slot| View { preferred: all.preferred.without(slot), ..all };
    let written = geometry.copies(Stripe(0), 0).iter().next().unwrap();
    let around = band(&geometry, 0..1, ailing(written)).unwrap();
    assert_eq!(around.method, Method::Reconstruct);
    assert!(!around.reads.contains(written));
    // P ails: the same. Another column ails: old data and P are read, as in a healthy group.
    let p = geometry.p_slot(Stripe(0)).unwrap();
    assert_eq!(band(&geometry, 0..1, ailing(p)).unwrap().method, Method::Reconstruct);
    let other = geometry.copies(Stripe(0), 3).iter().next().unwrap();
    assert_eq!(band(&geometry, 0..1, ailing(other)).unwrap().method, Method::ReadModifyWrite);
}

#[test]
fn data_without_a_place_is_refused() {
    let mirror = geometry(Level::Raid1, 2);
    assert_eq!(band(&mirror, 0..1, without(&mirror, &[0, 1])), Err(Unwritable::NoPlace));
    let stripe = geometry(Level::Raid0, 2);
    assert_eq!(band(&stripe, 0..1, without(&stripe, &[0])), Err(Unwritable::NoPlace));
    let five = geometry(Level::Raid5, 5);
    assert_eq!(band(&five, 2..3, without(&five, &[1, 4])), Err(Unwritable::NoPlace));
    assert_eq!(band(&five, 2..3, without(&five, &[1, 3])), Err(Unwritable::NoPlace));
}

#[test]
fn beyond_the_tolerance_readable_parity_is_changed_or_entered_as_lost() {
    // Columns 2 and 3 are lost. Column 1 can be written: P is changed and stays true, so that either would come back
    // with the other.
    let geometry = geometry(Level::Raid5, 5);
    let view = without(&geometry, &[2, 3]);
    let changed = band(&geometry, 2..3, view).unwrap();
    assert_eq!((changed.method, changed.reads), (Method::ReadModifyWrite, slots(&[1, 4])));
    // With column 1 a lost block too, nobody knows what P should be.
    let view = View { readable: slots(&[0, 4]), ..view };
    let spoils = slots(&[4]);
    assert_eq!(band(&geometry, 2..3, view), Err(Unwritable::ParityUnknown { spoils }));
    let entered = View { readable: view.readable.minus(spoils), ..view };
    let alone = band(&geometry, 2..3, entered).unwrap();
    assert_eq!((alone.method, alone.data_writes), (Method::DataOnly, slots(&[1])));
    assert!(!alone.write_p);
}

#[test]
fn beyond_the_tolerance_lost_parity_stays_lost() {
    // Columns 2 and 3 and Q are lost: P is changed, Q cannot be made, though its slot would take it.
    let geometry = geometry(Level::Raid6, 6);
    let (p, q) = (geometry.p_slot(Stripe(0)).unwrap(), geometry.q_slot(Stripe(0)).unwrap());
    let gone = without(&geometry, &[3, 4]);
    let view = View { readable: gone.readable.without(q), ..gone };
    let changed = band(&geometry, 0..1, view).unwrap();
    assert_eq!(changed.method, Method::ReadModifyWrite);
    assert_eq!(changed.reads, geometry.copies(Stripe(0), 0).with(p));
    assert_eq!((changed.write_p, changed.write_q), (true, false));
}

#[test]
fn a_write_that_would_cost_another_column_is_refused() {
    // Column 3 lives in P alone, and P takes no writes.
    let geometry = geometry(Level::Raid5, 5);
    let view = without(&geometry, &[3]);
    let view = View { writable: view.writable.without(Slot(4)), ..view };
    assert_eq!(band(&geometry, 2..3, view), Err(Unwritable::WouldLose));
    // Nothing depends on it once column 3 is there: P goes stale and is named.
    let view = View { writable: slots(&[0, 1, 2, 3]), ..View::whole(&geometry) };
    assert_eq!(band(&geometry, 2..3, view).unwrap().stale, slots(&[4]));
}

#[test]
#[should_panic(expected = "whole blocks")]
fn part_of_a_block_is_a_mistake() {
    let geometry = geometry(Level::Raid5, 5);
    let _ = plan_write(&geometry, Stripe(0), 0..512, View::whole(&geometry));
}

/// Every shape of up to six members with chunks of two blocks, and of up to four members with chunks of four.
fn shapes() -> impl Iterator<Item = Geometry> {
    let levels = [Level::Raid0, Level::Raid1, Level::Raid5, Level::Raid6, Level::Raid10];
    levels.into_iter().flat_map(|level| {
        let short = (1..=6).map(|members| (members, CHUNK));
        let long = (1..=4).map(|members| (members, 2 * CHUNK));
        let all = short.chain(long);
        all.filter_map(move |(members, chunk)| Geometry::new(level, members, chunk, 64).ok())
    })
}

/// Every view in which at most one slot more than the tolerance is not readable, and as many not writable; each with
/// one of the stripes, in turn, so that every slot comes to every role. Of six members at most one is put last.
fn views(geometry: Geometry) -> impl Iterator<Item = (Stripe, View)> {
    let members = geometry.members();
    let all = SlotSet::first(members);
    let sets = (0..1_u64 << members).map(SlotSet);
    let enough = move |set: &SlotSet| all.minus(*set).len() <= geometry.tolerance() + 1;
    let readable = sets.clone().filter(enough);
    let pairs = readable.flat_map(move |readable| {
        sets.clone().filter(enough).map(move |writable| (readable, writable))
    });
    let views = pairs.flat_map(move |(readable, writable)| {
        let subsets = (0..1_u64 << members).map(SlotSet);
        let last_max = if members < 6 { members } else { 1 };
        let preferred = subsets.filter(move |set| {
            set.minus(readable).is_empty() && readable.minus(*set).len() <= last_max
        });
        preferred.map(move |preferred| View { readable, preferred, writable })
    });
    views.enumerate().map(move |(i, view)| (Stripe((i % members) as u64), view))
}

#[test]
fn every_block_is_read_in_the_promised_order() {
    for geometry in shapes() {
        let all = SlotSet::first(geometry.members());
        for (stripe, view) in views(geometry).filter(|(_, view)| view.writable == all) {
            for stripe in (0..geometry.members() as u64).map(|more| Stripe(stripe.0 + more)) {
                for slot in all.iter() {
                    check_read_order(&geometry, stripe, slot, view);
                }
                let model = Model::new(geometry, stripe, view);
                model.check(|column, row| model.readable(column, row));
            }
        }
    }
}

fn check_read_order(geometry: &Geometry, stripe: Stripe, slot: Slot, view: View) {
    let plan = plan_rebuild_slot(geometry, stripe, slot, view);
    let holders = match geometry.role(stripe, slot) {
        Role::Data(column) => {
            assert_eq!(plan_read(geometry, stripe, column, view), plan);
            geometry.copies(stripe, column)
        }
        Role::P | Role::Q => SlotSet::one(slot),
    };
    let needed = geometry.data_columns();
    let enough = |slots: SlotSet| geometry.parity_columns() > 0 && slots.len() >= needed;
    let preferred = view.preferred;
    if !holders.and(preferred).is_empty() {
        assert_eq!(plan, ReadPlan::Direct(holders.and(preferred)));
    } else if enough(preferred) {
        let ReadPlan::Rebuild { reads } = plan else { panic!("{plan:?}") };
        assert!(reads.len() == needed && reads.minus(preferred).is_empty());
    } else if !holders.and(view.readable).is_empty() {
        assert_eq!(plan, ReadPlan::Direct(holders.and(view.readable)));
    } else if enough(view.readable) {
        let ReadPlan::Rebuild { reads } = plan else { panic!("{plan:?}") };
        assert!(reads.len() == needed && reads.minus(view.readable).is_empty());
        assert_eq!(reads.and(preferred), preferred, "every preferred slot before any other");
    } else {
        assert_eq!(plan, ReadPlan::Lost);
    }
}

#[test]
fn every_write_of_every_small_shape_does_as_it_says() {
    for geometry in shapes() {
        let blocks = geometry.stripe_len() / BLOCK;
        let mut refused = 0;
        let mut written = 0;
        for (stripe, view) in views(geometry) {
            for start in 0..blocks {
                for end in start + 1..=blocks {
                    match execute_write(geometry, stripe, view, start * BLOCK..end * BLOCK) {
                        Ok(()) => written += 1,
                        Err(_) => refused += 1,
                    }
                }
            }
        }
        assert!(written > 0 && refused > 0, "{geometry:?}: {written} written, {refused} refused");
    }
}

/// Plans, executes and checks one write; a refusal is checked to be right.
fn execute_write(
    geometry: Geometry,
    stripe: Stripe,
    view: View,
    within: Range<u64>,
) -> Result<(), Unwritable> {
    let plan = match plan_write(&geometry, stripe, within.clone(), view) {
        Ok(plan) => plan,
        Err(refusal) => {
            check_refusal(geometry, stripe, view, within, refusal);
            return Err(refusal);
        }
    };
    let mut model = Model::new(geometry, stripe, view);
    let rows = (geometry.chunk() / BLOCK as u32) as usize;
    let readable: Vec<Vec<bool>> = (0..geometry.data_columns())
        .map(|column| (0..rows).map(|row| model.readable(column, row)).collect())
        .collect();
    model.write(within.clone(), &plan);
    let written = |column: usize, row: usize| {
        let at = column as u64 * u64::from(geometry.chunk()) + row as u64 * BLOCK;
        within.contains(&at)
    };
    model.check(|column, row| readable[column][row] || written(column, row));

    let parity = [geometry.p_slot(stripe), geometry.q_slot(stripe)];
    for band in &plan.bands {
        let slots_of = |column: usize| geometry.copies(stripe, column);
        let should: SlotSet =
            band.columns.iter().flat_map(|column| slots_of(column).iter()).collect();
        assert_eq!(band.data_writes, should.and(view.writable), "every copy is written");
        let known = (0..geometry.data_columns())
            .all(|column| band.columns.contains(column) || readable[column][0]);
        for (slot, write) in parity.into_iter().zip([band.write_p, band.write_q]) {
            let writable = slot.is_some_and(|slot| view.writable.contains(slot));
            assert!(write == writable || !known && writable, "{band:?} in {view:?}");
        }
    }
    Ok(())
}

/// A refusal has a cause: something does not take writes, or too much is lost. A refusal for unknown parity is lifted by
/// entering that parity as lost.
fn check_refusal(
    geometry: Geometry,
    stripe: Stripe,
    view: View,
    within: Range<u64>,
    refusal: Unwritable,
) {
    let all = SlotSet::first(geometry.members());
    assert!(
        !geometry.still_whole(all.minus(view.readable.and(view.writable))),
        "{refusal:?} of {within:?} within the tolerance: {view:?}"
    );
    let slot_of = |at: u64| geometry.copies(stripe, (at / u64::from(geometry.chunk())) as usize);
    match refusal {
        Unwritable::NoPlace => {
            let mut blocks = within.step_by(BLOCK as usize);
            assert!(blocks.any(|at| slot_of(at).and(view.writable).is_empty()), "{view:?}");
        }
        Unwritable::WouldLose => assert!(!view.readable.minus(view.writable).is_empty()),
        Unwritable::ParityUnknown { spoils } => {
            check_spoils(geometry, stripe, view, within, spoils)
        }
    }
}

fn check_spoils(
    geometry: Geometry,
    stripe: Stripe,
    view: View,
    within: Range<u64>,
    spoils: SlotSet,
) {
    let parity = geometry.p_slot(stripe).into_iter().chain(geometry.q_slot(stripe));
    let readable_parity = parity.collect::<SlotSet>().and(view.readable);
    assert!(!spoils.is_empty() && spoils.minus(readable_parity).is_empty());
    let readable = view.readable.minus(spoils);
    let entered = View { readable, preferred: view.preferred.minus(spoils), ..view };
    let column_of = |at: u64| (at / u64::from(geometry.chunk())) as usize;
    let mut old = within.clone().step_by(BLOCK as usize).map(column_of);
    let unknown = |column| geometry.copies(stripe, column).and(view.readable).is_empty();
    assert!(old.any(unknown), "parity can be changed where all old data is readable: {view:?}");
    // Another band may be refused for another reason; this parity is not named again.
    if let Err(Unwritable::ParityUnknown { spoils: more }) =
        execute_write(geometry, stripe, entered, within)
    {
        assert!(more.and(spoils).is_empty());
    }
    for column in 0..geometry.data_columns() {
        let lost = |view| plan_read(&geometry, stripe, column, view) == ReadPlan::Lost;
        assert_eq!(lost(view), lost(entered), "column {column} is not lost by it");
    }
}

#[test]
fn parity_that_is_not_read_just_now_is_written_or_named() {
    let geometry = Geometry::new(Level::Raid5, 3, 16384, 8).unwrap();
    let stripe = Stripe(0);
    let whole = View::whole(&geometry);
    let slot = |column| geometry.copies(stripe, column).iter().next().unwrap();
    let p = SlotSet::one(geometry.p_slot(stripe).unwrap());
    let within = 16384..16384 + 4096;
    let plan = plan_write_around(&geometry, stripe, within.clone(), whole, p).unwrap();
    assert!(plan.bands.iter().all(|band| band.write_p && band.reads.and(p).is_empty()));
    // Beside a lost column it cannot be made: it would be untrue, and must not be taken for true later.
    let lost = View { readable: whole.readable.without(slot(0)), ..whole };
    let refused = plan_write_around(&geometry, stripe, within.clone(), lost, p);
    assert_eq!(refused, Err(Unwritable::ParityUnknown { spoils: p }));
    let listed = View { readable: lost.readable.minus(p), ..lost };
    assert!(plan_write_around(&geometry, stripe, within, listed, p).is_ok(), "it is listed lost");
}
