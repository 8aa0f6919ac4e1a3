//! The deciders' tests: each names what an administrator relies on.

use super::*;
use crate::ids::DiskNumber;

const DAY: u64 = 86_400_000_000_000;
const SECOND: u64 = 1_000_000_000;

fn member(disk: u32, record: Record) -> Member {
    Member { disk: DiskNumber(disk), record, sat_out: false, was_ailing: false }
}

fn verdicts(members: &[Member]) -> Vec<Verdict> {
    judge(members).into_iter().map(|f| f.verdict).collect()
}

#[test]
fn as_many_errors_as_the_threshold_says_make_a_disk_ailing() {
    let policy = Policy::default();
    for class in ErrorClass::ALL {
        let threshold = u64::from(class.default_threshold());
        let mut record = Record::default();
        record.add(&policy, class, threshold - 1);
        assert_ne!(verdicts(&[member(1, record)]), [Verdict::Ailing], "{class}");
        record.add(&policy, class, 1);
        assert_eq!(verdicts(&[member(1, record)]), [Verdict::Ailing], "{class}");
    }
}

#[test]
fn one_recovered_error_a_day_for_years_triggers_nothing() {
    let policy = Policy::default();
    let mut record = Record::default();
    for _ in 0..3650 {
        record.add(&policy, ErrorClass::RecoveredRead, 1);
        assert_eq!(verdicts(&[member(1, record)]), [Verdict::Healthy]);
        // In the steps of the array's own loop, or nearly.
        (0..24 * 60).for_each(|_| record.leak(&policy, DAY / 24 / 60));
    }
    assert_eq!(record.counts[0], 3650);
}

#[test]
fn cumulative_media_errors_trigger_although_each_day_is_small() {
    let policy = Policy::default();
    let mut record = Record::default();
    let day = (1..60).find(|_| {
        record.add(&policy, ErrorClass::RecoveredRead, 4);
        let ailing = verdicts(&[member(1, record)]) == [Verdict::Ailing];
        record.leak(&policy, DAY);
        ailing
    });
    assert_eq!(day, Some(9), "20 % in, 10 % out a day");
}

#[test]
fn short_steps_leak_as_much_as_long_ones() {
    let policy = Policy::default();
    let mut long = Record::new([0; 8], FULL);
    let mut short = long;
    long.leak(&policy, 3600 * SECOND);
    (0..36_000).for_each(|_| short.leak(&policy, SECOND / 10));
    assert_eq!(long.level, short.level);
    assert_eq!(long.level, FULL - FULL / 10 / 24);
}

#[test]
fn two_members_past_the_lower_mark_lower_the_threshold_to_the_midpoint() {
    let at = |percent: u64| Record::new([1, 0, 0, 0, 0, 0, 0, 0], FULL / 100 * percent);
    assert_eq!(verdicts(&[member(1, at(80)), member(2, at(49))])[0], Verdict::Watched);
    let both = judge(&[member(1, at(80)), member(2, at(50)), member(3, at(0))]);
    assert_eq!(both[0].verdict, Verdict::Ailing);
    assert_eq!(both[1].verdict, Verdict::Watched);
    assert_eq!(both[2].verdict, Verdict::Healthy);
    assert_eq!(both[0].threshold, FULL / 4 * 3);
    assert!(both[0].reason.contains("80.0 % of 75.0 %"), "{}", both[0].reason);
}

#[test]
fn an_ailing_disk_stays_ailing_until_it_is_cleared() {
    let mut ailing = member(1, Record::new([3, 0, 0, 0, 0, 0, 0, 0], 10));
    ailing.was_ailing = true;
    assert_eq!(verdicts(&[ailing]), [Verdict::Ailing]);
}

#[test]
fn a_burst_of_transport_errors_on_four_disks_is_a_path() {
    let mut paths = Paths::default();
    for tick in 0..30 {
        let now = tick * SECOND;
        if tick < 12 {
            (1..=4).for_each(|disk| paths.add(DiskNumber(disk), 40, now));
        }
        assert_eq!(paths.settle(now).own, [], "at {tick} s");
    }
}

#[test]
fn the_tail_of_a_burst_belongs_to_it() {
    let mut paths = Paths::default();
    paths.add(DiskNumber(1), 1, 0);
    paths.add(DiskNumber(2), 1, SECOND);
    assert_eq!(paths.settle(10 * SECOND).path.len(), 2);
    paths.add(DiskNumber(2), 1, 11 * SECOND);
    let tail = paths.settle(21 * SECOND);
    assert_eq!((tail.own.len(), tail.path.len()), (0, 1));
}

#[test]
fn transport_errors_of_one_disk_alone_are_its_own() {
    let mut paths = Paths::default();
    paths.add(DiskNumber(3), 7, 0);
    assert_eq!(paths.settle(9 * SECOND), Settled::default());
    assert_eq!(paths.settle(10 * SECOND).own, [(DiskNumber(3), 7)]);
}

fn latencies(ns: u64) -> Latencies {
    let mut all = Latencies::default();
    (0..20).for_each(|i| all.add(SizeClass::of(false, 4096), ns + ns / 50 * i));
    all
}

#[test]
fn a_disk_five_times_slower_than_its_peers_is_slow() {
    let (slow, fast) = (latencies(10_000_000), latencies(2_000_000));
    assert!(is_slow(&slow, &[&fast, &fast, &fast]).is_some());
    assert!(is_slow(&fast, &[&slow, &fast, &fast]).is_none(), "one bad peer accuses nobody");
    assert!(is_slow(&slow, &[&slow, &slow, &slow]).is_none(), "all are slow: load");
    let (a, b) = (latencies(200_000), latencies(40_000));
    assert!(is_slow(&a, &[&b, &b]).is_none(), "nobody suffers from 160 microseconds");
    let mut large = Latencies::default();
    (0..20).for_each(|_| large.add(SizeClass::of(false, 1 << 20), 10_000_000));
    assert!(is_slow(&large, &[&fast, &fast]).is_none(), "other sizes are not compared");
    assert!(is_slow(&slow, &[]).is_none());
}

#[test]
fn a_slow_disk_is_sat_out_after_three_looks_and_longer_each_time() {
    let mut sitting = Sitting::default();
    assert!(!sitting.look(true, 0) && !sitting.look(true, SECOND));
    assert!(sitting.look(true, 2 * SECOND));
    assert!(sitting.is_sat_out(3 * SECOND) && sitting.is_sat_out(32 * SECOND - 1));
    assert!(!sitting.is_sat_out(32 * SECOND));
    assert!(!sitting.look(true, 33 * SECOND) && !sitting.look(false, 34 * SECOND));
    assert!(!sitting.look(true, 35 * SECOND), "looks in a row count");
    assert!(!sitting.look(true, 36 * SECOND) && sitting.look(true, 37 * SECOND));
    assert!(sitting.is_sat_out(96 * SECOND));
    assert!(!sitting.is_sat_out(97 * SECOND));
}

#[test]
fn histogram_steps_keep_times_to_within_a_fourth() {
    for ns in [4, 5, 1000, 123_456, 10_000_000, u64::MAX / 2] {
        let start = slow::start_of(slow::step_of(ns));
        assert!(start <= ns && ns - start <= start / 4, "{ns} starts at {start}");
    }
}

#[test]
fn too_many_ill_disks_are_not_believed() {
    assert!(!brake(1, 2) && !brake(2, 4) && !brake(2, 8));
    assert!(brake(3, 8) && !brake(3, 12) && brake(4, 12));
}

#[test]
fn absurd_thresholds_are_refused() {
    let mut policy = Policy::default();
    assert!(policy.set_threshold(ErrorClass::Timeout, 0).is_err());
    assert!(policy.set_threshold(ErrorClass::Timeout, THRESHOLD_MAX + 1).is_err());
    assert_eq!(policy, Policy::default());
    assert!(policy.set_threshold(ErrorClass::Timeout, 3).is_ok());
    assert_eq!(policy.thresholds[3], 3);
}

#[test]
fn a_finding_says_what_the_disk_is() {
    let record = Record::default();
    let member = Member { disk: DiskNumber(9), record, sat_out: false, was_ailing: true };
    let finding = &judge(&[member])[0];
    let told = finding.words("/d9", Some("a leg of work disk 60"));
    assert!(told.starts_with("disk 9 (/d9), a leg of work disk 60, is ailing: "), "{told}");
    assert!(finding.words("/d9", None).starts_with("disk 9 (/d9) is ailing: "));
}
