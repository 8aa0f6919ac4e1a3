//! The listing of pairs.

use forestall_engine::PairReport;

use super::Columns;
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
        if pair.away {
            notes.push("the secondary's group is not there: all is copied when it is back");
        }
        if pair.temporary {
            notes.push("until the updates are home");
        }
        table.row(vec![
            format!("{} ({})", pair.primary, pair.primary_name),
            format!("{} ({})", pair.secondary, pair.secondary_name),
            pair.status.to_string(),
            size::bytes(pair.differing),
            notes.join("; "),
        ]);
    }
    table
}
