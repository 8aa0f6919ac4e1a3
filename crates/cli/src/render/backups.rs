//! The tables of redirected writes, T4 to T7, in the words of the drawings: aligned for people, separated by tabs for programs.

use forestall_engine::{T4Row, T5Row, T6Row, T7Row};

use super::tables::{laid_out, numbers};

/// Table T4 (FIG. 11A): work volumes.
#[must_use]
pub fn t4(rows: &[T4Row], aligned: bool) -> String {
    let headings =
        ["WORK VOLUME#", "CAPACITY", "PRIMARY VOLUME#", "TERMINAL ADDRESS", "DIFFERENTIAL BITMAP"];
    let cells = rows.iter().map(|row| {
        vec![
            row.work_volume.to_string(),
            row.capacity.clone(),
            numbers(&row.primary_volumes),
            or_null(row.terminal_address),
            row.differential_bitmap.clone(),
        ]
    });
    laid_out(&headings, cells, aligned)
}

/// Table T5 (FIG. 15A): disks, and whether their groups' writes go to a work disk.
#[must_use]
pub fn t5(rows: &[T5Row], aligned: bool) -> String {
    let cells = rows
        .iter()
        .map(|row| vec![row.disk.to_string(), row.capacity.clone(), or_null(row.status.as_ref())]);
    laid_out(&["DISK#", "CAPACITY", "STATUS"], cells, aligned)
}

/// Table T6 (FIG. 15B): work disks.
#[must_use]
pub fn t6(rows: &[T6Row], aligned: bool) -> String {
    let headings = ["DISK#", "CAPACITY", "STATUS", "MAIN DISK#", "TERMINAL ADDRESS"];
    let cells = rows.iter().map(|row| {
        vec![
            row.disk.to_string(),
            row.capacity.clone(),
            row.status.clone(),
            numbers(&row.main_disks),
            or_null(row.terminal_address),
        ]
    });
    laid_out(&headings, cells, aligned)
}

/// Table T7 (FIG. 16): what lies on work disks.
#[must_use]
pub fn t7(rows: &[T7Row], aligned: bool) -> String {
    let headings = ["MAIN DISK#", "MAIN DISK ADDRESS", "WORK DISK#", "WORK DISK ADDRESS"];
    let cells = rows.iter().map(|row| {
        vec![
            row.main_disk.to_string(),
            row.main_disk_address.to_string(),
            row.work_disk.to_string(),
            row.work_disk_address.to_string(),
        ]
    });
    laid_out(&headings, cells, aligned)
}

fn or_null(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "NULL".into(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use forestall_engine::{DiskNumber, VolumeNumber};

    use super::*;

    #[test]
    fn table_t4_is_that_of_figures_11a_and_20a() {
        let row = |number, users: &[u32], terminal, bits: &str| T4Row {
            work_volume: VolumeNumber(number),
            capacity: "3GB".into(),
            primary_volumes: users.iter().copied().map(VolumeNumber).collect(),
            terminal_address: terminal,
            differential_bitmap: bits.into(),
        };
        let rows =
            [row(10, &[1, 4], Some(3), "1110000000..."), row(11, &[], None, "0000000000...")];
        assert_eq!(
            t4(&rows, false),
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
            t5(&[t5_row(1, Some(backed)), t5_row(5, None)], false),
            "DISK#\tCAPACITY\tSTATUS\n1\t18GB\tRENEWED DATA BEING BACKED UP\n5\t18GB\tNULL\n"
        );
        let t6_row = |disk, status: &str, main: &[u32], terminal| T6Row {
            disk: DiskNumber(disk),
            capacity: "18GB".into(),
            status: status.into(),
            main_disks: main.iter().copied().map(DiskNumber).collect(),
            terminal_address: terminal,
        };
        let rows = [t6_row(60, "IN USE", &[1, 2, 3, 4], Some(6)), t6_row(61, "UNUSED", &[], None)];
        assert_eq!(
            t6(&rows, false),
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
            t7(&[row], false),
            "MAIN DISK#\tMAIN DISK ADDRESS\tWORK DISK#\tWORK DISK ADDRESS\n2\t5\t60\t3\n"
        );
    }
}
