//! Disk accesses for each host request, counted by the engine itself on memory disks.
//!
//! Owns what each count should be: one access for each run of consecutive bytes on a member, no more than the level needs. The
//! counts do not depend on the machine, so that they are judged, here and in the test.

mod array;

use std::fmt;

use anyhow::Result;
use forestall_engine::geometry::Role;
use forestall_engine::{BLOCK_SIZE, Level, Slot, Stripe};
use serde_json::json;

use crate::{Report, table};
use array::BenchArray;

/// Levels and numbers of members.
const SHAPES: [(Level, usize); 8] = [
    (Level::Raid0, 4),
    (Level::Raid1, 2),
    (Level::Raid1, 3),
    (Level::Raid10, 4),
    (Level::Raid5, 4),
    (Level::Raid5, 6),
    (Level::Raid6, 6),
    (Level::Raid6, 8),
];

/// The member that is failed for the degraded counts.
const VICTIM: Slot = Slot(0);

/// Accesses of all members together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count {
    /// Reads of data or parity.
    pub reads: u64,
    /// Writes of data or parity.
    pub writes: u64,
    /// Reads and writes of maps, labels and configuration.
    pub metadata: u64,
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}r + {}w)", self.reads + self.writes, self.reads, self.writes)?;
        if self.metadata > 0 { write!(f, " + {} metadata", self.metadata) } else { Ok(()) }
    }
}

/// One line: a request on a shape.
struct Line {
    shape: String,
    what: &'static str,
    counted: Count,
    expected: Count,
}

/// What the numbers of a level are.
struct Shape {
    /// Data columns.
    k: u64,
    /// Parity columns.
    m: u64,
    /// Copies of each column.
    copies: u64,
    /// Members.
    n: u64,
}

impl Shape {
    fn of(array: &BenchArray) -> Self {
        let geometry = &array.geometry;
        let copies = geometry.copies(Stripe(0), 0).len() as u64;
        let (k, m) = (geometry.data_columns() as u64, geometry.parity_columns() as u64);
        Self { k, m, copies, n: geometry.members() as u64 }
    }

    /// A block of a stripe that is all there: the block and each parity are read and written, or the other columns are read
    /// where they are no more than that.
    fn small_write(&self) -> Count {
        let reads = if self.m == 0 { 0 } else { (1 + self.m).min(self.k - 1) };
        count(reads, self.copies + self.m)
    }
}

const fn count(reads: u64, writes: u64) -> Count {
    Count { reads, writes, metadata: 0 }
}

/// Counts everything.
///
/// # Errors
/// If the engine refuses something; never for a wrong count, which the report tells.
pub fn run() -> Result<Report> {
    let mut lines = Vec::new();
    for (level, members) in SHAPES {
        healthy(&mut lines, level, members)?;
        if level != Level::Raid0 {
            degraded(&mut lines, level, members)?;
        }
    }
    let wrong = lines.iter().filter(|line| line.counted != line.expected).count();
    let rows: Vec<_> = lines.iter().map(Line::row).collect();
    let mut text = table::render(["array, request", "accesses", "should be"], &rows);
    text += &match wrong {
        0 => format!("\nall {} counts are as they should be\n", lines.len()),
        wrong => format!("\nWRONG: {wrong} of {} counts\n", lines.len()),
    };
    let json = lines.iter().map(Line::json).collect::<Vec<_>>();
    let json = json!({ "bench": "accesses", "counts": json, "wrong": wrong });
    Ok(Report { text, json, missing: Vec::new(), right: wrong == 0 })
}

impl Line {
    fn row(&self) -> [String; 3] {
        let verdict = if self.counted == self.expected { "" } else { "WRONG: " };
        [
            format!("{}, {}", self.shape, self.what),
            self.counted.to_string(),
            format!("{verdict}{}", self.expected),
        ]
    }

    fn json(&self) -> serde_json::Value {
        let count =
            |c: Count| json!({ "reads": c.reads, "writes": c.writes, "metadata": c.metadata });
        json!({
            "array": self.shape, "request": self.what,
            "counted": count(self.counted), "expected": count(self.expected),
        })
    }
}

fn name_of(level: Level, members: usize) -> String {
    let level = match level {
        Level::Raid0 => "RAID0",
        Level::Raid1 => "RAID1",
        Level::Raid5 => "RAID5",
        Level::Raid6 => "RAID6",
        Level::Raid10 => "RAID10",
    };
    format!("{level} of {members}")
}

/// Collects the lines of one shape.
struct Counting<'a> {
    lines: &'a mut Vec<Line>,
    shape: String,
}

impl Counting<'_> {
    fn line(&mut self, what: &'static str, counted: Count, expected: Count) {
        self.lines.push(Line { shape: self.shape.clone(), what, counted, expected });
    }
}

fn healthy(lines: &mut Vec<Line>, level: Level, members: usize) -> Result<()> {
    let mut array = BenchArray::new(level, members)?;
    let shape = Shape::of(&array);
    let mut to = Counting { lines, shape: name_of(level, members) };
    let stripe = array.geometry.stripe_len();
    let unit = array.unit_len();
    // That the region is being written is noted first, in a map on every member. The first write where a page of checksums lies reads the page and
    // finds room for it.
    let first = Count { metadata: 3 * shape.n, ..count(0, shape.n) };
    to.line("first 4 KiB write of a region", array.write(0, BLOCK_SIZE)?, first);
    let counted = array.write(unit, BLOCK_SIZE)?;
    to.line("first 4 KiB write of another unit", counted, count(0, shape.n));
    to.line("4 KiB write", array.write(stripe, BLOCK_SIZE)?, shape.small_write());
    to.line("full stripe write", array.write(stripe, stripe)?, count(0, shape.n));
    to.line("4 KiB read", array.read(stripe, BLOCK_SIZE)?, count(1, 0));
    to.line("full stripe read", array.read(stripe, stripe)?, count(shape.k, 0));
    to.line("4 KiB read, never written", array.read(2 * unit, BLOCK_SIZE)?, count(0, 0));
    Ok(())
}

fn degraded(lines: &mut Vec<Line>, level: Level, members: usize) -> Result<()> {
    let mut array = BenchArray::new(level, members)?;
    let Shape { k, m, copies, n } = Shape::of(&array);
    let geometry = array.geometry;
    // In as many stripes as there are members every role comes up.
    let stripes = n;
    array.write(0, stripes * geometry.stripe_len())?;
    array.fail(VICTIM)?;
    let mut to = Counting { lines, shape: name_of(level, members) + ", one out" };
    let found = |wanted: &dyn Fn(Role) -> bool| {
        let mut stripes = (0..stripes).map(Stripe);
        stripes.find(|stripe| wanted(geometry.role(*stripe, VICTIM)))
    };
    let stripe = found(&|role| matches!(role, Role::Data(_))).expect("it holds data somewhere");
    let Role::Data(column) = geometry.role(stripe, VICTIM) else { unreachable!("was looked for") };
    let base = stripe.0 * geometry.stripe_len();
    let chunk = u64::from(geometry.chunk());
    let (missing, other) = (base + column as u64 * chunk, (column as u64 + 1) % k);

    let read = if m > 0 { count(k, 0) } else { count(1, 0) };
    to.line("4 KiB read of what it held", array.read(missing, BLOCK_SIZE)?, read);
    let write = if m > 0 { count(k - 1, m) } else { count(0, copies - 1) };
    to.line("4 KiB write of what it held", array.write(missing, BLOCK_SIZE)?, write);
    let counted = array.write(base, geometry.stripe_len())?;
    to.line("full stripe write", counted, count(0, n - 1));
    if k > 1 {
        let write = if m > 0 { count(1 + m, 1 + m) } else { count(0, copies) };
        let counted = array.write(base + other * chunk, BLOCK_SIZE)?;
        to.line("4 KiB write beside it", counted, write);
    }
    if let Some(stripe) = found(&|role| role == Role::P) {
        // What is left of the parity is kept true.
        let write = if m == 1 { count(0, 1) } else { count(2, 2) };
        let counted = array.write(stripe.0 * geometry.stripe_len(), BLOCK_SIZE)?;
        to.line("4 KiB write where it held P", counted, write);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_costs_what_it_should() {
        let report = run().unwrap();
        assert!(report.right, "{}", report.text);
    }

    /// The numbers that the documents give, written out, so that the rules above cannot drift with the engine.
    #[test]
    fn the_numbers_of_the_documents() {
        let small = [
            (Level::Raid0, 4, count(0, 1)),
            (Level::Raid1, 3, count(0, 3)),
            (Level::Raid10, 4, count(0, 2)),
            (Level::Raid5, 4, count(2, 2)),
            (Level::Raid5, 6, count(2, 2)),
            (Level::Raid6, 6, count(3, 3)),
        ];
        for (level, members, expected) in small {
            let mut array = BenchArray::new(level, members).unwrap();
            let stripe = array.geometry.stripe_len();
            array.write(0, stripe).unwrap();
            assert_eq!(array.write(4096, 4096).unwrap(), expected, "{level:?} of {members}");
            let full = array.write(0, stripe).unwrap();
            assert_eq!(full, count(0, members as u64), "{level:?} of {members}, full stripe");
        }
    }
}
