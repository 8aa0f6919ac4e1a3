//! Tests of the register: what it allows and what it catches.

use super::*;

fn allowed(register: &Register, from: Tick) -> Vec<u64> {
    register.readable(from).map(|v| v.op).collect()
}

fn see(register: &mut Register, from: Tick, now: Tick, op: u64) {
    register.read(from, now, |v| v.op == op);
}

#[test]
fn an_acknowledged_write_replaces_what_ended_before_it() {
    let mut r = Register::zero();
    r.begin(1, false, 10);
    assert_eq!(allowed(&r, 11), [0, 1]);
    r.end(1, 20, true, false);
    assert_eq!(allowed(&r, 15), [0, 1], "a read that began before the answer may see either");
    assert_eq!(allowed(&r, 21), [1]);
}

#[test]
fn concurrent_writes_may_land_in_either_order_until_a_read_decides() {
    let mut r = Register::zero();
    r.begin(1, false, 10);
    r.begin(2, false, 11);
    r.end(1, 20, true, false);
    r.end(2, 21, true, false);
    assert_eq!(allowed(&r, 30), [1, 2]);
    see(&mut r, 30, 31, 1);
    assert_eq!(allowed(&r, 32), [1]);
}

#[test]
fn reads_do_not_go_back_in_time() {
    let mut r = Register::zero();
    r.begin(1, false, 10);
    see(&mut r, 11, 12, 1);
    assert_eq!(allowed(&r, 13), [1], "once seen, a write under way has happened");
    assert_eq!(allowed(&r, 11), [0, 1], "for a read that overlaps that one, not yet");
}

#[test]
fn a_failed_write_is_old_or_new_and_the_first_read_decides() {
    let mut r = Register::zero();
    r.begin(1, false, 10);
    r.end(1, 20, false, false);
    assert_eq!(allowed(&r, 30), [0, 1]);
    see(&mut r, 30, 31, 0);
    assert_eq!(allowed(&r, 32), [0]);
}

#[test]
fn a_crash_brings_back_what_no_flush_covered_and_the_first_read_chooses() {
    let mut r = Register::zero();
    r.begin(1, false, 10);
    r.end(1, 11, true, false);
    r.flushed(12);
    r.begin(2, false, 13);
    r.end(2, 14, true, false);
    r.begin(3, false, 15);
    r.crash(20);
    assert_eq!(allowed(&r, 21), [1, 2, 3]);
    see(&mut r, 21, 22, 2);
    assert_eq!(allowed(&r, 21), [2]);
    r.crash(30);
    assert_eq!(allowed(&r, 31), [2], "another crash does not flip it");
}

#[test]
fn a_flush_covers_only_what_was_answered_before_it_was_received() {
    let mut r = Register::zero();
    r.begin(1, false, 10);
    r.end(1, 20, true, false);
    r.flushed(15);
    r.crash(30);
    assert_eq!(allowed(&r, 31), [0, 1]);
}

#[test]
fn fua_is_durable_at_its_answer() {
    let mut r = Register::zero();
    r.begin(1, false, 10);
    r.end(1, 20, true, true);
    r.crash(30);
    assert_eq!(allowed(&r, 31), [1]);
}

#[test]
fn what_a_read_showed_of_a_write_under_way_counts_for_flushes_only_once_acknowledged() {
    let mut r = Register::zero();
    r.begin(1, false, 10);
    r.end(1, 11, true, false);
    r.flushed(12);
    r.begin(2, false, 13);
    see(&mut r, 14, 15, 2);
    r.flushed(16);
    let mut early = r.clone();
    early.crash(17);
    assert_eq!(allowed(&early, 18), [1, 2]);
    r.end(2, 19, true, false);
    r.flushed(20);
    r.crash(21);
    assert_eq!(allowed(&r, 22), [2]);
}

#[test]
fn a_write_after_the_crash_outranks_every_survivor() {
    let mut r = Register::zero();
    r.begin(1, false, 10);
    r.crash(20);
    r.begin(2, true, 21);
    r.end(2, 22, true, false);
    assert_eq!(allowed(&r, 23), [2]);
    r.flushed(24);
    r.prune(25);
    assert!(r.settled());
}
