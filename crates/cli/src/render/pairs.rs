//! Table T2, the listing of pairs.

use forestall_engine::T2Row;

use super::tables::laid_out;

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
