//! Stories of pairs that were there before: the secondary takes its shielded primary's place (rules B2, B5 to B8).
//!
//! Owns their list and the scripts of runs that lose nothing but power; `existing/failures.rs` those in which something fails, or is refused. Invariant: at the end of each the pair is as it was before, which is seen by comparing the volumes, unless the story
//! is about its end.

use forestall_engine::{
    AssembleOptions, AvoidanceState, DiskNumber, Level, PairStatus, Runtime, Strategy,
};

use crate::scenarios::{Scenario, act, degraded};
use crate::script::{Script, stage_of};
use crate::shield::{LEVELS, SLOW, accesses, crash_often};
use crate::stage::{RunEnd, Stage};
use crate::target::Zeroing;
use crate::trace::Trace;

mod failures;

/// Every story of a pair that takes its primary's place.
pub const EXISTING_PAIR_SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "b2-existing-pair-silent-group",
        story: "each level: a group whose only volume is on a reversed pair sees no access of a host at all, and is whole after",
        script: silent_group,
    },
    Scenario {
        name: "b2-existing-pair-bit-first",
        story: "each level: crashes under writes while the sides are made equal, reversed and going home lose and change nothing",
        script: bit_first,
    },
    Scenario {
        name: "b2-existing-pair-crash-anywhere",
        story: "each level: a crash at any moment from the command to the direction's return",
        script: crash_anywhere,
    },
    Scenario {
        name: "b5-existing-pair-overwritten",
        story: "a block that went home from the secondary and was then overwritten never returns to its old version",
        script: overwritten,
    },
    Scenario {
        name: "b7-existing-pair-less-safe",
        story: "a member of the secondary's group dies while the pair syncs, is reversed, goes home: the next storage, or home; then all of them die",
        script: failures::less_safe,
    },
    Scenario {
        name: "b7-existing-pair-lost",
        story: "all of the secondary's group dies at once: what it has not newer is served, the rest is an error, never old; or it had nothing newer",
        script: failures::secondary_lost,
    },
    Scenario {
        name: "existing-pair-home-loses-a-member",
        story: "each level: another member, or the ailing disk, dies while the pair syncs, is reversed, goes home",
        script: failures::home_loses,
    },
    Scenario {
        name: "existing-pair-lost-at-home",
        story: "blocks that are unreadable on the ailing disk and on a peer: the secondary has them, so nothing is lost",
        script: failures::lost_at_home,
    },
    Scenario {
        name: "existing-pair-stop-and-cancel",
        story: "stopped in good order while the pair syncs, is reversed, goes home; or given up there",
        script: failures::stop_and_cancel,
    },
    Scenario {
        name: "m2-existing-pair-stopped-as-it-reverses",
        story: "a start goes about the reversal of a pair, and is stopped in good order in the middle of it: nothing is written after the stop",
        script: failures::stopped_as_it_reverses,
    },
    Scenario {
        name: "existing-pair-refusals",
        story: "pairs that are not used, and why; commands that a pair in use refuses; a cycle of pairs; a start without the secondary",
        script: failures::refusals,
    },
    Scenario {
        name: "b8-existing-pair-secondary-ails",
        story: "the secondary's group becomes ailing itself while the pair is reversed: its volume goes direct there",
        script: failures::secondary_ails,
    },
];

/// The pair of "v1" and "s", in the words of T2.
const REVERSED: (u32, u32, &str) = (1, 2, "UPDATE DATA BEING BACKED UP");
const DUPLEX: (u32, u32, &str) = (1, 2, "DUPLEX");

/// Level and members of a secondary's group that survives so many failures.
fn as_safe_as(tolerance: usize) -> (Level, usize) {
    match tolerance {
        0 => (Level::Raid0, 2),
        1 => (Level::Raid1, 2),
        _ => (Level::Raid6, 4),
    }
}

/// How far a pair is in its primary's avoidance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Syncing,
    Reversed,
    Returning,
}

const PHASES: [Phase; 3] = [Phase::Syncing, Phase::Reversed, Phase::Returning];

impl Script {
    /// Makes a pair of "v1" and "s", equal from the start of the story.
    pub(crate) async fn have_pair(&self, tolerance: usize) {
        let (level, members) = as_safe_as(tolerance);
        self.add_secondary(level, members).await;
        self.write(self.size() / 3, self.size() / 2).await;
        self.pair_up().await;
        self.equal().await;
    }

    /// Waits until the secondary has its primary's place.
    pub(super) async fn reversed(&self) {
        let reversed = |s: &Self| matches!(s.pair(), Some((PairStatus::BackingUp, _)));
        self.await_that("a reversed pair", reversed).await;
    }

    /// Replaces disk 1 by the pair, with the copy standing still.
    async fn stand_reversed(&self) {
        self.stand_still(SLOW, Strategy::Pair).await;
        self.reversed().await;
    }

    /// Makes a pair, replaces disk 1 by it and goes on until it is so far, with redirected blocks all over the volume from then on.
    async fn go_to(&self, phase: Phase, strategy: Strategy) {
        self.write(0, self.size()).await;
        self.pair_up().await;
        if phase == Phase::Syncing {
            // All of it is to be copied, which takes a while.
            self.replace(1, SLOW, strategy).await;
            self.expect_pairs(&[(1, 2, "SYNCING")]);
            return;
        }
        self.equal().await;
        self.stand_still(SLOW, strategy).await;
        self.reversed().await;
        for at in (0..self.size()).step_by(32 * 1024) {
            self.write(at, 12 * 1024).await;
        }
        if phase == Phase::Returning {
            self.go_on().await;
            self.sees(AvoidanceState::WritingBack).await;
        }
    }

    /// Kills members of the secondary's group, which stands behind `members` members and two spares.
    fn kill_secondary(&self, members: usize, which: std::ops::Range<usize>) {
        which.for_each(|at| self.kill(&format!("d{}", members + 3 + at)));
    }

    /// The avoidance ends, the pair is as before, and as many members as may be lost are lost.
    async fn as_before(&self, tolerance: usize) {
        self.whole_again().await;
        self.equal().await;
        self.expect_pairs(&[DUPLEX]);
        self.verify().await;
        self.compare().await;
        self.machine.audit().await;
        self.lose(tolerance);
        self.verify().await;
    }
}

fn silent_group(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let mut stage = stage_of(seed, trace.clone(), level, members, 2);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.have_pair(tolerance).await;
            s.stand_reversed().await;
            s.expect_pairs(&[REVERSED]);
            let before = accesses(&s.machine.array.report(), members);
            s.scribble(40).await;
            s.flush().await;
            let (at, len) = (s.size() / 3 + 1000, s.size() / 4);
            for how in [Zeroing::Trim, Zeroing::NoHole] {
                s.host.must(s.host.zero(at, len, how, true).await, "zeroes");
                s.scribble(10).await;
            }
            s.verify().await;
            s.flush().await;
            let after = accesses(&s.machine.array.report(), members);
            if before != after {
                s.machine.complain(format!("the group is not silent: {before:?}, then {after:?}"));
            }
            s.go_on().await;
            s.scribble(20).await;
            s.as_before(tolerance).await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

fn bit_first(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        for round in 0..4 {
            let mut stage = stage_of(seed * 10 + round, trace.clone(), level, members, 2);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.have_pair(tolerance).await;
                // Every other time with a work disk next in the chain.
                let strategy = if round % 2 == 0 { Strategy::Pair } else { Strategy::Auto };
                if strategy == Strategy::Auto {
                    s.add_work_disk(tolerance + 1).await;
                }
                s.scribble(20).await;
                s.replace(1, SLOW, strategy).await;
                s.scribble(3).await;
            });
            crash_often(&mut stage);
            act(&mut stage, AssembleOptions::default(), move |s| async move {
                s.verify().await;
                s.as_before(tolerance).await;
            });
        }
    }
}

/// From the command to the end: hosts write all the while, the pair is made equal, reversed, written back, and returns.
async fn whole_story(mut s: Script) {
    // Another connection flushes, so that writes come between a flush and the clearing of bits.
    let other = s.machine.clone();
    s.machine.runtime.spawn(Box::pin(async move {
        let host = other.connect("v1");
        loop {
            host.must(host.flush().await, "a flush");
            other.pause(700_000).await;
        }
    }));
    s.replace(1, 16 * SLOW, Strategy::Pair).await;
    for _ in 0..100_000 {
        s.scribble(4).await;
        s.machine.pause(5_000_000).await;
        if s.state().is_none() {
            return;
        }
    }
    s.machine.complain("the avoidance does not end under load".into());
}

/// Crashes of a story at each level under one seed: the story has some ten thousand steps.
const CRASHES: u64 = 20;

fn crash_anywhere(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS {
        let set = |seed: u64| {
            let mut stage = stage_of(seed, trace.clone(), level, members, 2);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.have_pair(tolerance).await;
                s.scribble(5).await;
            });
            stage
        };
        let play = |stage: &mut Stage, cut| {
            stage.run(AssembleOptions::default(), cut, |m| whole_story(Script::new(&m)))
        };
        let mut whole = set(seed);
        let RunEnd::Completed(steps) = play(&mut whole, None) else { panic!("nothing cuts it") };
        // A step of the whole story takes a crash each in turn, at an even distance, and another one with each seed.
        let apart = (steps / CRASHES).max(1);
        for crash in 0..CRASHES {
            let mut stage = set(seed);
            let cut = (crash * apart + whole.rng.within(1..apart + 1)).min(steps);
            play(&mut stage, Some(cut));
            stage.end(false);
            act(&mut stage, AssembleOptions::default(), move |s| async move {
                s.verify().await;
                s.verify().await;
                s.as_before(tolerance).await;
            });
        }
    }
}

fn overwritten(seed: u64, trace: Trace) {
    for round in 0..12 {
        let mut stage = stage_of(seed * 100 + round, trace.clone(), Level::Raid5, 3, 2);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.have_pair(1).await;
            s.write(0, s.size()).await;
            s.stand_reversed().await;
            // Every other chunk, so that write-back takes a while.
            for at in (0..s.size()).step_by(32 * 1024) {
                s.write(at, 12 * 1024).await;
            }
            s.flush().await;
        });
        let wait = stage.rng.below(200) * 10_000;
        stage.run(AssembleOptions::default(), None, move |machine| async move {
            let s = Script::new(&machine);
            s.must(s.machine.array.resume_replace(DiskNumber(1)).await, "resume");
            s.sees(AvoidanceState::WritingBack).await;
            machine.pause(wait).await;
            for at in (0..s.size()).step_by(64 * 1024) {
                s.write(at + 4096, 20 * 1024).await;
            }
            s.flush().await;
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.verify().await;
            s.as_before(1).await;
        });
    }
}
