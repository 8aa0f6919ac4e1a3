//! No set of reads cheaper than the planner's gives the new parity: searched through, by linear algebra.
//!
//! Each slot's old block is a vector over the old data columns in GF(2^8). New parity can be computed from some reads
//! and the new data exactly if the share of the columns that are not written is a combination of the vectors read.

use super::*;

/// One row of the code: what a slot holds, as factors of the data columns.
type Row = [u8; 6];

fn mul(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = a << 1 ^ if a & 0x80 == 0 { 0 } else { 0x1d };
        b >>= 1;
    }
    product
}

fn inverse(a: u8) -> u8 {
    (1..=255).find(|b| mul(a, *b) == 1).expect("0 is not inverted")
}

fn parity_row(columns: usize, q: bool) -> Row {
    let mut row = [0; 6];
    let mut factor = 1;
    for cell in &mut row[..columns] {
        *cell = if q { factor } else { 1 };
        factor = mul(factor, 2);
    }
    row
}

fn row_of(geometry: &Geometry, slot: Slot) -> Row {
    match geometry.role(Stripe(0), slot) {
        Role::Data(column) => {
            let mut row = [0; 6];
            row[column] = 1;
            row
        }
        Role::P => parity_row(geometry.data_columns(), false),
        Role::Q => parity_row(geometry.data_columns(), true),
    }
}

/// Takes `row` apart by `basis`, whose rows each lead with a 1 in a column of their own.
fn reduce(mut row: Row, basis: &[(usize, Row)]) -> Row {
    for (lead, by) in basis {
        let factor = row[*lead];
        for (cell, other) in row.iter_mut().zip(by) {
            *cell ^= mul(factor, *other);
        }
    }
    row
}

fn spans(rows: impl Iterator<Item = Row>, targets: &[Row]) -> bool {
    let mut basis = Vec::new();
    for row in rows {
        let mut row = reduce(row, &basis);
        if let Some(lead) = row.iter().position(|cell| *cell != 0) {
            let factor = inverse(row[lead]);
            row.iter_mut().for_each(|cell| *cell = mul(*cell, factor));
            basis.push((lead, row));
        }
    }
    targets.iter().all(|target| reduce(*target, &basis) == [0; 6])
}

/// Reads of merely readable slots, and all reads.
fn cost(reads: SlotSet, view: View) -> (usize, usize) {
    (reads.minus(view.preferred).len(), reads.len())
}

/// The cost of the cheapest reads that give the writable parity, if any do.
fn cheapest(geometry: &Geometry, written: ColumnSet, view: View) -> Option<(usize, usize)> {
    let parity = [geometry.p_slot(Stripe(0)), geometry.q_slot(Stripe(0))];
    let wanted = parity.into_iter().flatten().filter(|slot| view.writable.contains(*slot));
    let targets: Vec<Row> = wanted
        .map(|slot| {
            let mut row = row_of(geometry, slot);
            written.iter().for_each(|column| row[column] = 0);
            row
        })
        .collect();
    let mut sets: Vec<SlotSet> = (0..1 << geometry.members())
        .map(SlotSet)
        .filter(|set| set.minus(view.readable).is_empty())
        .collect();
    sets.sort_by_key(|set| cost(*set, view));
    let enough = |set: &&SlotSet| spans(set.iter().map(|slot| row_of(geometry, slot)), &targets);
    sets.iter().find(enough).map(|set| cost(*set, view))
}

#[test]
fn no_cheaper_reads_give_the_parity() {
    for (level, least) in [(Level::Raid5, 3), (Level::Raid6, 4)] {
        for members in least..=6 {
            let geometry = Geometry::new(level, members, BLOCK as u32, 1).unwrap();
            let columns = geometry.data_columns() as u64;
            let ranges =
                (0..columns).flat_map(|start| (start + 1..=columns).map(move |end| start..end));
            for range in ranges {
                check_ranges(&geometry, range);
            }
        }
    }
}

fn check_ranges(geometry: &Geometry, range: Range<u64>) {
    let all = SlotSet::first(geometry.members());
    for readable in (0..=all.0).map(SlotSet) {
        for preferred in (0..=all.0).map(SlotSet).filter(|set| set.minus(readable).is_empty()) {
            let view = View { readable, preferred, writable: all };
            let written = range.clone().map(|column| column as usize).collect();
            let cheapest = cheapest(geometry, written, view);
            match (band(geometry, range.clone(), view), cheapest) {
                (Ok(band), Some(least)) => {
                    assert_eq!(cost(band.reads, view), least, "{band:?} in {view:?}");
                    assert!(band.write_p && band.write_q == (geometry.parity_columns() == 2));
                }
                // Parity cannot be had: some of it stays unwritten, or the write is refused.
                (Ok(band), None) => {
                    assert!(!band.write_p || !band.write_q && geometry.parity_columns() == 2);
                }
                (Err(refusal), None) => {
                    assert!(matches!(refusal, Unwritable::ParityUnknown { .. }), "{refusal:?}");
                }
                (Err(refusal), Some(_)) => panic!("{refusal:?} in {view:?}"),
            }
        }
    }
}
