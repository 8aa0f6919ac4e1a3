//! The search through every history of the model, and what it has to show.

use super::{Bounds, State, Weak};
use crate::breadth;

/// A state, and what the search is about.
#[derive(Hash)]
struct Case {
    state: State,
    weak: Weak,
    damage: bool,
}

impl Case {
    fn with(&self, state: State) -> Self {
        Self { state, ..*self }
    }
}

impl breadth::State for Case {
    fn crash_digest(&self) -> u64 {
        let state = &self.state;
        breadth::digest((&state.disks, &state.floor, &state.given, state.left))
    }

    fn crashed(&self) -> Result<Vec<Self>, String> {
        let starts = self.state.crash(self.weak, self.damage)?;
        let more = self.state.left[3] > 0;
        Ok(starts.into_iter().filter(|_| more).map(|start| self.with(start)).collect())
    }

    fn following(&self) -> Vec<Self> {
        self.state.next(self.weak).into_iter().map(|next| self.with(next)).collect()
    }
}

fn search(bounds: Bounds, weak: Weak) -> (usize, Option<String>) {
    breadth::search(Case { state: State::new(bounds), weak, damage: bounds.damage })
}

/// One log on one leg.
const ONE_LEG: Bounds = Bounds {
    logs: 1,
    legs: 1,
    blocks: 2,
    writes: 2,
    homes: 1,
    flushes: 2,
    crashes: 1,
    damage: true,
};
/// One log on two legs, of which one may be lost in the crash.
const TWO_LEGS: Bounds = Bounds { legs: 2, blocks: 1, homes: 0, damage: false, ..ONE_LEG };
/// A chain of two logs.
const CHAIN: Bounds = Bounds { logs: 2, blocks: 1, crashes: 0, damage: false, ..ONE_LEG };

fn holds(bounds: Bounds, told: usize) {
    let (states, fault) = search(bounds, Weak::Nothing);
    assert_eq!(fault, None, "after {states} states");
    assert_eq!(states, told, "docs/simulation.md says how many");
}

#[test]
fn b3_b4_b5_whatever_a_crash_or_damage_leaves_reads_right_or_not_at_all() {
    holds(ONE_LEG, 124_197);
}

#[test]
fn b3_f1_a_leg_may_be_lost_in_the_crash() {
    holds(TWO_LEGS, 12_109);
}

#[test]
fn b1_a_block_belongs_to_one_backup() {
    holds(CHAIN, 23_598);
}

#[test]
fn each_rule_is_needed() {
    for (weak, bounds) in [
        (Weak::EarlierBackupWins, CHAIN),
        (Weak::TornEntriesStay, ONE_LEG),
        (Weak::NothingProves, ONE_LEG),
        (Weak::ProofComesEarly, ONE_LEG),
        (Weak::ProofComesLate, ONE_LEG),
        (Weak::MarkTellsOfMore, ONE_LEG),
        (Weak::SlotsComeFreeEarly, ONE_LEG),
        (Weak::ClearedBeforeHome, ONE_LEG),
        (Weak::OneLegIsFlushed, TWO_LEGS),
    ] {
        assert!(search(bounds, weak).1.is_some(), "{weak:?} is not found out");
    }
}
