//! Rows of the tables of the drawings, T1 to T7: their data, and the headings and cells in which they are shown.
//!
//! Owns the drawings' words and columns, so that whoever shows a table shows the same. Invariants: a row has as many cells as its table has headings, in
//! their order; what is empty is NULL. Making the rows is the array's matter, laying the cells out the command line's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::config::Level;
use crate::health::{ErrorClass, Verdict};
use crate::ids::{DiskNumber, GroupNumber, VolumeNumber};

/// A row of one of the tables.
pub trait TableRow: Serialize {
    /// The headings of the table.
    fn headings() -> Vec<String>;

    /// The cells of the row, under the headings.
    fn cells(&self) -> Vec<String>;
}

/// One row of table T1, in the drawings' columns.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct T1Row {
    /// GROUP#.
    pub group: GroupNumber,
    /// VOLUME#: empty is shown as NULL.
    pub volumes: Vec<VolumeNumber>,
    /// DISK#.
    pub disks: Vec<DiskNumber>,
    /// RAID LEVEL.
    pub level: Level,
}

/// One row of table T2 (drawings, FIG. 3A).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct T2Row {
    /// PRIMARY VOLUME#.
    pub primary_volume: VolumeNumber,
    /// SECONDARY VOLUME#.
    pub secondary_volume: VolumeNumber,
    /// PAIRING STATUS, in the drawings' words.
    pub pairing_status: String,
    /// DIFFERENTIAL BITMAP: for each region of 1 MiB whether a block in it differs; the first ones, as many as were asked for.
    pub differential_bitmap: String,
    /// How many bits there are in all; the cell ends in `...` where it does not show all of them.
    pub bits: u64,
}

/// One row of table T3.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct T3Row {
    /// DISK#.
    pub disk: DiskNumber,
    /// Errors by class since the disk was added or cleared.
    pub counts: BTreeMap<ErrorClass, u64>,
    /// LEVEL of the leaky bucket, in percent of a full one.
    pub level_percent: f64,
    /// THRESHOLD: the level that counts as ailing, in percent.
    pub threshold_percent: f64,
    /// VERDICT.
    pub verdict: Verdict,
    /// REASON, with the figures that led to it.
    pub reason: String,
}

/// One row of table T4 (drawings, FIG. 11A).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct T4Row {
    /// WORK VOLUME#.
    pub work_volume: VolumeNumber,
    /// CAPACITY, in decimal units, rounded.
    pub capacity: String,
    /// PRIMARY VOLUME#: the volumes whose writes come here; empty is NULL.
    pub primary_volumes: Vec<VolumeNumber>,
    /// TERMINAL ADDRESS: the slot used last, from 1.
    pub terminal_address: Option<u64>,
    /// DIFFERENTIAL BITMAP: for each slot whether it holds what is not yet written back; the first ones, as many as were asked for.
    pub differential_bitmap: String,
    /// How many bits there are in all; the cell ends in `...` where it does not show all of them.
    pub bits: u64,
}

/// One row of table T5 (drawings, FIG. 15A).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct T5Row {
    /// DISK#.
    pub disk: DiskNumber,
    /// CAPACITY, in decimal units, rounded.
    pub capacity: String,
    /// STATUS; `None` is NULL.
    pub status: Option<String>,
}

/// One row of table T6 (drawings, FIG. 15B).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct T6Row {
    /// DISK#: the work-disk set.
    pub disk: DiskNumber,
    /// CAPACITY of each of its legs, in decimal units, rounded.
    pub capacity: String,
    /// STATUS: `IN USE` or `UNUSED`.
    pub status: String,
    /// MAIN DISK#: the disks of the groups whose writes come here; empty is NULL.
    pub main_disks: Vec<DiskNumber>,
    /// TERMINAL ADDRESS: the slot used last, from 1.
    pub terminal_address: Option<u64>,
}

/// One row of table T7 (drawings, FIG. 16).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct T7Row {
    /// MAIN DISK#: the disk that is in the slot at this moment.
    pub main_disk: DiskNumber,
    /// MAIN DISK ADDRESS, in units of 4 KiB from 1.
    pub main_disk_address: u64,
    /// WORK DISK#.
    pub work_disk: DiskNumber,
    /// WORK DISK ADDRESS: the slot, from 1.
    pub work_disk_address: u64,
}

impl TableRow for T1Row {
    fn headings() -> Vec<String> {
        words(&["GROUP#", "VOLUME#", "DISK#", "RAID LEVEL"])
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.group.to_string(),
            numbers(&self.volumes),
            numbers(&self.disks),
            self.level.to_string(),
        ]
    }
}

impl TableRow for T2Row {
    fn headings() -> Vec<String> {
        words(&["PRIMARY VOLUME#", "SECONDARY VOLUME#", "PAIRING STATUS", "DIFFERENTIAL BITMAP"])
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.primary_volume.to_string(),
            self.secondary_volume.to_string(),
            self.pairing_status.clone(),
            bitmap(&self.differential_bitmap, self.bits),
        ]
    }
}

impl TableRow for T3Row {
    fn headings() -> Vec<String> {
        let mut headings = words(&["DISK#"]);
        headings.extend(
            ErrorClass::ALL.iter().map(|class| class.word().replace('-', " ").to_uppercase()),
        );
        headings.extend(words(&["LEVEL", "THRESHOLD", "VERDICT", "REASON"]));
        headings
    }

    fn cells(&self) -> Vec<String> {
        let count = |class| self.counts.get(class).copied().unwrap_or(0).to_string();
        let mut cells = vec![self.disk.to_string()];
        cells.extend(ErrorClass::ALL.iter().map(count));
        cells.push(format!("{:.1} %", self.level_percent));
        cells.push(format!("{:.1} %", self.threshold_percent));
        cells.extend([self.verdict.word().to_owned(), self.reason.clone()]);
        cells
    }
}

impl TableRow for T4Row {
    fn headings() -> Vec<String> {
        words(&[
            "WORK VOLUME#",
            "CAPACITY",
            "PRIMARY VOLUME#",
            "TERMINAL ADDRESS",
            "DIFFERENTIAL BITMAP",
        ])
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.work_volume.to_string(),
            self.capacity.clone(),
            numbers(&self.primary_volumes),
            or_null(self.terminal_address),
            bitmap(&self.differential_bitmap, self.bits),
        ]
    }
}

impl TableRow for T5Row {
    fn headings() -> Vec<String> {
        words(&["DISK#", "CAPACITY", "STATUS"])
    }

    fn cells(&self) -> Vec<String> {
        vec![self.disk.to_string(), self.capacity.clone(), or_null(self.status.as_ref())]
    }
}

impl TableRow for T6Row {
    fn headings() -> Vec<String> {
        words(&["DISK#", "CAPACITY", "STATUS", "MAIN DISK#", "TERMINAL ADDRESS"])
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.disk.to_string(),
            self.capacity.clone(),
            self.status.clone(),
            numbers(&self.main_disks),
            or_null(self.terminal_address),
        ]
    }
}

impl TableRow for T7Row {
    fn headings() -> Vec<String> {
        words(&["MAIN DISK#", "MAIN DISK ADDRESS", "WORK DISK#", "WORK DISK ADDRESS"])
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.main_disk.to_string(),
            self.main_disk_address.to_string(),
            self.work_disk.to_string(),
            self.work_disk_address.to_string(),
        ]
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// Numbers as the drawings list them.
fn numbers<T: ToString>(numbers: &[T]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    if numbers.is_empty() { "NULL".into() } else { numbers.join(", ") }
}

/// The first bits of a bitmap as the drawings print them.
fn bitmap(first: &str, bits: u64) -> String {
    let more = if (first.len() as u64) < bits { "..." } else { "" };
    format!("{first}{more}")
}

fn or_null(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "NULL".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headings and rows, separated by tabs.
    fn text<R: TableRow>(rows: &[R]) -> String {
        let lines = std::iter::once(R::headings()).chain(rows.iter().map(TableRow::cells));
        lines.map(|cells| cells.join("\t") + "\n").collect()
    }

    fn disks(numbers: &[u32]) -> Vec<DiskNumber> {
        numbers.iter().copied().map(DiskNumber).collect()
    }

    fn volumes(numbers: &[u32]) -> Vec<VolumeNumber> {
        numbers.iter().copied().map(VolumeNumber).collect()
    }

    #[test]
    fn table_t2_has_the_words_of_figure_3b() {
        let row = T2Row {
            primary_volume: VolumeNumber(1),
            secondary_volume: VolumeNumber(13),
            pairing_status: "UPDATE DATA BEING BACKED UP".into(),
            differential_bitmap: "110000100011".into(),
            bits: 2862,
        };
        assert_eq!(
            text(&[row]),
            "PRIMARY VOLUME#\tSECONDARY VOLUME#\tPAIRING STATUS\tDIFFERENTIAL BITMAP\n\
             1\t13\tUPDATE DATA BEING BACKED UP\t110000100011...\n"
        );
    }

    #[test]
    fn a_bitmap_that_is_shown_to_its_end_ends_without_dots() {
        assert_eq!(bitmap("1010", 5), "1010...");
        assert_eq!(bitmap("1010", 4), "1010");
    }

    #[test]
    fn table_t3_has_a_column_for_each_class_of_errors() {
        let row = T3Row {
            disk: DiskNumber(7),
            counts: BTreeMap::from([(ErrorClass::ALL[1], 3)]),
            level_percent: 12.34,
            threshold_percent: 100.0,
            verdict: Verdict::default(),
            reason: "none".into(),
        };
        let headings = T3Row::headings();
        let cells = row.cells();
        assert_eq!(headings.len(), cells.len());
        assert_eq!(headings.len(), ErrorClass::ALL.len() + 5);
        assert_eq!((cells[1].as_str(), cells[2].as_str()), ("0", "3"));
        assert_eq!(cells[ErrorClass::ALL.len() + 1..][..2], ["12.3 %", "100.0 %"]);
    }

    #[test]
    fn table_t4_is_that_of_figures_11a_and_20a() {
        let row = |number, users: &[u32], terminal, bits: &str| T4Row {
            work_volume: VolumeNumber(number),
            capacity: "3GB".into(),
            primary_volumes: volumes(users),
            terminal_address: terminal,
            differential_bitmap: bits.into(),
            bits: 700_000,
        };
        let rows = [row(10, &[1, 4], Some(3), "1110000000"), row(11, &[], None, "0000000000")];
        assert_eq!(
            text(&rows),
            "WORK VOLUME#\tCAPACITY\tPRIMARY VOLUME#\tTERMINAL ADDRESS\tDIFFERENTIAL BITMAP\n\
             10\t3GB\t1, 4\t3\t1110000000...\n\
             11\t3GB\tNULL\tNULL\t0000000000...\n"
        );
    }

    #[test]
    fn tables_t5_t6_and_t7_are_those_of_figures_15_and_16() {
        let backed = "RENEWED DATA BEING BACKED UP";
        let t5_row = |disk, status: Option<&str>| T5Row {
            disk: DiskNumber(disk),
            capacity: "18GB".into(),
            status: status.map(Into::into),
        };
        assert_eq!(
            text(&[t5_row(1, Some(backed)), t5_row(5, None)]),
            "DISK#\tCAPACITY\tSTATUS\n1\t18GB\tRENEWED DATA BEING BACKED UP\n5\t18GB\tNULL\n"
        );
        let t6_row = |disk, status: &str, main: &[u32], terminal| T6Row {
            disk: DiskNumber(disk),
            capacity: "18GB".into(),
            status: status.into(),
            main_disks: disks(main),
            terminal_address: terminal,
        };
        let rows = [t6_row(60, "IN USE", &[1, 2, 3, 4], Some(6)), t6_row(61, "UNUSED", &[], None)];
        assert_eq!(
            text(&rows),
            "DISK#\tCAPACITY\tSTATUS\tMAIN DISK#\tTERMINAL ADDRESS\n\
             60\t18GB\tIN USE\t1, 2, 3, 4\t6\n61\t18GB\tUNUSED\tNULL\tNULL\n"
        );
        let row = T7Row {
            main_disk: DiskNumber(2),
            main_disk_address: 5,
            work_disk: DiskNumber(60),
            work_disk_address: 3,
        };
        assert_eq!(
            text(&[row]),
            "MAIN DISK#\tMAIN DISK ADDRESS\tWORK DISK#\tWORK DISK ADDRESS\n2\t5\t60\t3\n"
        );
    }
}
