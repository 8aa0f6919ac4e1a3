//! The two pages of the lost-block map: how entries are cut into them and which page is written first.
//!
//! Owns the order of two writes, as a pure function. Entries stand in order, so that one cut parts the first page from the second; when
//! it moves, one page receives entries and the other gives them, and the one that receives goes first. Invariant (rule M5): whatever
//! stood on disk and is still due stands on disk after either write. The proof asks that one change of the pair only adds entries or only
//! takes some away; then the blocks that a crash between the writes leaves on the first page alone lie before all that it leaves on the second
//! alone, so that the next change, whatever its cut, has a safe order again.

use crate::format::page::LostRun;
use crate::ids::Slot;

/// The entries of each page.
pub(super) type Pair = [Vec<LostRun>; 2];

/// Cuts entries, which stand in order, into pages of at most `per_page`.
pub(super) fn cut(mut runs: Vec<LostRun>, per_page: usize) -> Pair {
    assert!(runs.len() <= 2 * per_page, "a longer list is refused when an entry is made");
    let second = runs.split_off(runs.len().min(per_page));
    [runs, second]
}

/// Which page is written first to go from what stands on disk to `next`.
pub(super) fn order(written: &Pair, next: &Pair) -> [usize; 2] {
    let first_of_second = next[1].first().map(|run| (run.slot, run.start));
    // The first page lets go of what lies behind the cut.
    let lets_go_safely = written[0].iter().all(|run| match first_of_second {
        Some((slot, _)) if run.slot < slot => true,
        Some((slot, block)) if run.slot == slot => {
            covers(&written[1], slot, run.start.max(block), end(run))
        }
        Some(_) => covers(&written[1], run.slot, run.start, end(run)),
        None => true,
    });
    if lets_go_safely { [0, 1] } else { [1, 0] }
}

/// Whether the entries, which stand in order, list every block of a range.
pub(super) fn covers(runs: &[LostRun], slot: Slot, start: u64, to: u64) -> bool {
    let mut at = start;
    for run in runs.iter().filter(|run| run.slot == slot) {
        if run.start <= at && at < end(run) {
            at = end(run);
        }
    }
    at >= to
}

fn end(run: &LostRun) -> u64 {
    run.start + u64::from(run.count)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Few entries to a page, so that the cut moves all the time.
    const PER_PAGE: usize = 3;
    const BLOCKS: u64 = 32;

    type Blocks = BTreeSet<(Slot, u64)>;

    fn runs_of(blocks: &Blocks) -> Vec<LostRun> {
        let mut runs: Vec<LostRun> = Vec::new();
        for (slot, block) in blocks {
            match runs.last_mut() {
                Some(run) if run.slot == *slot && end(run) == *block => run.count += 1,
                _ => runs.push(LostRun { slot: *slot, start: *block, count: 1 }),
            }
        }
        runs
    }

    fn blocks_of(pair: &Pair) -> Blocks {
        let blocks =
            |run: &LostRun| (run.start..end(run)).map(|b| (run.slot, b)).collect::<Vec<_>>();
        pair.iter().flatten().flat_map(blocks).collect()
    }

    /// Goes over to `next` with a crash before write number `crash_at`; asserts after each write that nothing due is missing.
    fn go_over(disk: &mut Pair, next: &Blocks, crash_at: usize) {
        let (before, pages) = (blocks_of(disk), cut(runs_of(next), PER_PAGE));
        for (n, page) in order(disk, &pages).into_iter().enumerate() {
            if n == crash_at {
                return;
            }
            disk[page].clone_from(&pages[page]);
            let now = blocks_of(disk);
            assert!(before.intersection(next).all(|b| now.contains(b)), "{before:?} to {next:?}");
        }
        assert_eq!(&blocks_of(disk), next);
    }

    fn change() -> impl Strategy<Value = (bool, BTreeSet<u64>, u64, u64, usize)> {
        let blocks = prop::collection::btree_set(0..BLOCKS, 0..6);
        (any::<bool>(), blocks, 0..BLOCKS, 0..12_u64, 0..6_usize)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]
        #[test]
        fn nothing_due_is_ever_missing(changes in prop::collection::vec(change(), 1..20)) {
            let mut disk = Pair::default();
            for (adds, single, start, len, crash_at) in changes {
                let touched: Blocks = single
                    .into_iter()
                    .chain(start..(start + len).min(BLOCKS))
                    .map(|block| (Slot((block / 16) as u8), block % 16))
                    .collect();
                let before = blocks_of(&disk);
                // As the engine does: after a crash the pages are first made what a list of the same entries would be.
                prop_assert!(runs_of(&before).len() <= 2 * PER_PAGE, "the map is as large as before");
                go_over(&mut disk, &before, crash_at);
                if blocks_of(&disk) != before || disk != cut(runs_of(&before), PER_PAGE) {
                    continue;
                }
                let next: Blocks = if adds { &before | &touched } else { &before - &touched };
                if runs_of(&next).len() <= 2 * PER_PAGE {
                    go_over(&mut disk, &next, crash_at);
                }
            }
        }
    }

    #[test]
    fn the_page_that_receives_goes_first() {
        let run = |start| LostRun { slot: Slot(0), start, count: 1 };
        let pair = |starts: &[u64]| cut(starts.iter().map(|s| run(*s)).collect(), 2);
        assert_eq!(order(&pair(&[2, 4, 6]), &pair(&[0, 2, 4, 6])), [1, 0], "4 moves back");
        assert_eq!(order(&pair(&[0, 2, 4, 6]), &pair(&[2, 4, 6])), [0, 1], "4 moves forward");
    }
}
