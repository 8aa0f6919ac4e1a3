//! The first test of this array: a member errs on a write, hosts flush, the machine crashes, the member is back.
//!
//! Bug: a mirror writes to both legs; one leg fails the write. The array notes it in memory, answers the write, answers the
//! FLUSH that follows, and is about to record that the leg is out when the machine crashes. At the next start both legs
//! look in order. The one that missed the write is read, and serves what was overwritten before a completed FLUSH.
//!
//! Cause: the answer to FLUSH did not wait for the record that takes the leg out to be durable on the others.
//!
//! Guarantee (rule F1): a FLUSH is answered only when every member in service holds the data, or a configuration that counts
//! has taken the missing one out. So the machine may crash at any step, before the answer or after it: once FLUSH was
//! answered, old data is never served again, whichever member is asked. Each test crashes at **every** step from the
//! beginning of the run to past the answer, one run for each step.

use forestall_engine::Level;
use forestall_faultsim::{Lines, Trace, caught, erring_member};

/// Plays the story with a crash at `step`; a failure is told with the end of its trace.
fn play(seed: u64, level: Level, members: usize, step: Option<u64>) -> (bool, u64) {
    let trace = Trace::new(Lines::Keep);
    caught(|| erring_member(seed, trace.clone(), level, members, step)).unwrap_or_else(|what| {
        panic!("seed {seed}, {level:?}, crash at {step:?}: {what}\n{}", trace.kept().join("\n"))
    })
}

fn crash_at_every_step(seed: u64, level: Level, members: usize) {
    let (answered, steps) = play(seed, level, members, None);
    assert!(answered, "without a crash the flush is answered");
    let answers =
        (1..=steps + 1).filter(|&step| play(seed, level, members, Some(step)).0).count() as u64;
    assert!(
        answers > 0 && steps - answers > 50,
        "crashes on both sides of the answer: {answers} of {steps} after it"
    );
}

#[test]
fn a_mirror_never_serves_old_data_after_a_flush() {
    for seed in 1..=2 {
        crash_at_every_step(seed, Level::Raid1, 2);
    }
    crash_at_every_step(3, Level::Raid1, 3);
}

#[test]
fn a_raid10_never_serves_old_data_after_a_flush() {
    crash_at_every_step(1, Level::Raid10, 4);
}

#[test]
fn a_parity_group_never_serves_old_data_after_a_flush() {
    crash_at_every_step(1, Level::Raid5, 3);
    crash_at_every_step(2, Level::Raid6, 4);
}
