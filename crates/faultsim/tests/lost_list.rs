//! A list of lost blocks longer than a page changes, and the machine crashes at every step of that.
//!
//! Bug: the list was written page by page with whatever it held at each moment, the last page first when entries were made and the
//! first page first when they were cleared. An entry made can also join others, and entries are made while others are cleared; then
//! the page that gives entries was written before the page that receives them, and a crash between the two lost them.
//!
//! Guarantee (rule M5): an entry that is durable and still due is found after a crash at any step.

use forestall_faultsim::{Change, Lines, Trace, caught, lost_list};

fn play(seed: u64, change: Change, step: Option<u64>) -> u64 {
    let trace = Trace::new(Lines::Keep);
    caught(|| lost_list(seed, trace.clone(), change, step)).unwrap_or_else(|what| {
        panic!("seed {seed}, {change:?}, crash at {step:?}: {what}\n{}", trace.kept().join("\n"))
    })
}

/// Crashes at each step of the change, or at one of `every`.
fn crash_while(seed: u64, change: Change, every: usize) {
    let end = play(seed, change, None);
    let begin = play(seed, Change::None, None);
    assert!(end - begin > 20 * every as u64, "few crashes from {begin} to {end}");
    for step in (begin..end).step_by(every) {
        play(seed, change, Some(step));
    }
}

#[test]
fn entries_that_become_one() {
    crash_while(1, Change::Merge, 1);
}

#[test]
fn entries_that_are_cleared() {
    crash_while(1, Change::Clear, 1);
}

#[test]
fn entries_made_before_the_others() {
    crash_while(1, Change::Grow, 3);
}

#[test]
fn entries_made_while_others_are_cleared() {
    for seed in 1..=3 {
        crash_while(seed, Change::Both, 3);
    }
}
