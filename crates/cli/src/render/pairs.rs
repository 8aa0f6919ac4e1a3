//! The listing of pairs, and table T2.

use forestall_engine::{PairReport, T2Row};

use super::Columns;
use super::tables::laid_out;
use crate::size;

/// Pairs with what differs between their volumes.
#[must_use]
pub fn pairs(pairs: &[PairReport]) -> Columns {
    let mut table = Columns::new(&["PRIMARY", "SECONDARY", "STATUS", "DIFFERS", "NOTES"]);
    for pair in pairs {
        let mut notes = Vec::new();
        if pair.hold {
            notes.push("held: nothing is copied");
        }
        if pair.temporary {
            notes.push("until the updates are home");
        }
        table.row(vec![
            pair.primary.to_string(),
            pair.secondary.to_string(),
            pair.status.to_string(),
            size::bytes(pair.differing),
            notes.join("; "),
        ]);
    }
    table
}

/// Table T2 in the words of FIG. 3A: aligned for people, separated by tabs for programs.
#[must_use]
pub fn t2(rows: &[T2Row], aligned: bool) -> String {
    let headings =
        ["PRIMARY VOLUME#", "SECONDARY VOLUME#", "PAIRING STATUS", "DIFFERENTIAL BITMAP"];
    let cells = rows.iter().map(|row| {
        vec![
            row.primary_volume.to_string(),
            row.secondary_volume.to_string(),
            row.pairing_status.clone(),
            row.differential_bitmap.clone(),
        ]
    });
    laid_out(&headings, cells, aligned)
}

#[cfg(test)]
mod tests {
    use forestall_engine::VolumeNumber;

    use super::*;

    #[test]
    fn t2_has_the_words_of_the_drawings() {
        let row = T2Row {
            primary_volume: VolumeNumber(1),
            secondary_volume: VolumeNumber(13),
            pairing_status: "UPDATE DATA BEING BACKED UP".into(),
            differential_bitmap: "110000100011...".into(),
        };
        assert_eq!(
            t2(&[row], false),
            "PRIMARY VOLUME#\tSECONDARY VOLUME#\tPAIRING STATUS\tDIFFERENTIAL BITMAP\n\
             1\t13\tUPDATE DATA BEING BACKED UP\t110000100011...\n"
        );
    }
}
