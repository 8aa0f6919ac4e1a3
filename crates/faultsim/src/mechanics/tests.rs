//! The figures of the model, by hand.

use super::*;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 64 * MIB;
/// 4 KiB at 200 MB/s.
const BLOCK_NS: u64 = 20_480;
const TURN: u64 = DiskModel::HDD.revolution_ns;

fn hdd() -> Mechanics {
    Mechanics::new(DiskModel::HDD, SIZE, Rng::new(1, 0))
}

#[test]
fn a_seek_takes_eight_and_a_half_milliseconds_on_average() {
    let places = 256;
    let step = SIZE / places;
    let seeks = (0..places).flat_map(|from| (0..places).map(move |to| from.abs_diff(to) * step));
    let sum: u64 = seeks.map(|distance| DiskModel::HDD.seek_ns(distance, SIZE)).sum();
    let mean_us = sum / (places * places) / 1000;
    assert!((8_400..8_600).contains(&mean_us), "{mean_us} us");
    assert_eq!(DiskModel::HDD.seek_ns(SIZE, SIZE), 15_552_500);
    assert_eq!(DiskModel::HDD.seek_ns(SIZE / 4, SIZE), 440_000 + (15_552_500 - 440_000) / 2);
    assert_eq!(DiskModel::HDD.seek_ns(DiskModel::HDD.track_bytes, SIZE), 0);
}

#[test]
fn the_platters_are_waited_for_half_a_turn_on_average() {
    let mut disk = hdd();
    let (mut now, mut waits) = (0, 0);
    for round in 0..2000 {
        let offset = if round % 2 == 0 { SIZE / 2 } else { 0 };
        let seek = DiskModel::HDD.seek_ns(offset.abs_diff(disk.head), SIZE);
        let done = disk.answer_at(now, Asked::Read(offset, 4096));
        waits += done - now - seek - BLOCK_NS;
        now = done;
    }
    let mean_us = waits / 2000 / 1000;
    assert!((4_060..4_260).contains(&mean_us), "{mean_us} us");
}

#[test]
fn what_follows_costs_its_transfer_alone() {
    let mut disk = hdd();
    assert_eq!(disk.answer_at(0, Asked::Read(0, MIB)), 5_242_880);
    assert_eq!(disk.answer_at(0, Asked::Read(MIB, MIB)), 2 * 5_242_880);
    // The disk has read ahead meanwhile; a gap of a chunk passes under the head.
    assert_eq!(disk.answer_at(SECOND_NS, Asked::Read(2 * MIB, 4096)), SECOND_NS + BLOCK_NS);
    let after_gap = disk.answer_at(2 * SECOND_NS, Asked::Read(2 * MIB + 69_632, 4096));
    assert_eq!(after_gap, 2 * SECOND_NS + 65_536 * 5 + BLOCK_NS);
}

#[test]
fn requests_wait_for_those_before_them() {
    let mut disk = hdd();
    let first = disk.answer_at(0, Asked::Read(SIZE / 2, 4096));
    let second = disk.answer_at(0, Asked::Read(SIZE / 2 + 4096, 4096));
    assert_eq!(second, first + BLOCK_NS);
}

#[test]
fn a_flush_waits_for_what_was_written() {
    let mut disk = hdd();
    let answered = disk.answer_at(0, Asked::Write(SIZE / 2, 4096));
    assert_eq!(answered, 4096 * SECOND_NS / 550_000_000, "into the cache");
    let flushed = disk.answer_at(answered, Asked::Flush);
    let seek = DiskModel::HDD.seek_ns(SIZE / 2, SIZE);
    assert!((seek + BLOCK_NS..seek + TURN + BLOCK_NS).contains(&flushed), "{flushed} ns");
    assert_eq!(disk.answer_at(flushed, Asked::Flush), flushed, "nothing is left to write");
}

#[test]
fn a_write_that_comes_just_too_late_waits_a_turn() {
    let mut disk = hdd();
    disk.answer_at(0, Asked::Write(0, 4096));
    let first = disk.answer_at(0, Asked::Flush);
    disk.answer_at(first, Asked::Write(4096, 4096));
    assert_eq!(disk.answer_at(first, Asked::Flush), first + TURN + BLOCK_NS);
    let mut streaming = hdd();
    streaming.answer_at(0, Asked::Write(0, 4096));
    let one = streaming.answer_at(0, Asked::Flush);
    streaming.answer_at(one - 1, Asked::Write(4096, 4096));
    assert_eq!(streaming.answer_at(one - 1, Asked::Flush), one + BLOCK_NS);
}

#[test]
fn a_full_cache_holds_a_write_up() {
    let mut disk = hdd();
    let places = |n: u64| if n.is_multiple_of(2) { SIZE / 2 } else { 0 };
    let quick = 4096 * SECOND_NS / 550_000_000;
    for n in 0..16 {
        assert_eq!(disk.answer_at(0, Asked::Write(places(n), 4096)), quick);
    }
    let oldest = disk.cached[0];
    assert_eq!(disk.answer_at(0, Asked::Write(places(16), 4096)), oldest);
    let next = disk.cached[1];
    assert_eq!(disk.answer_at(0, Asked::Write(places(17), 4096)), next);
    // Room comes as the medium takes what is cached.
    let last = *disk.cached.back().expect("writes are cached");
    assert_eq!(disk.answer_at(last, Asked::Write(places(18), 4096)), last + quick);
}

#[test]
fn an_ssd_takes_as_long_everywhere() {
    let mut disk = Mechanics::new(DiskModel::SSD, SIZE, Rng::new(1, 0));
    assert_eq!(disk.answer_at(0, Asked::Read(SIZE / 2, 4096)), 88_192);
    assert_eq!(disk.answer_at(0, Asked::Read(0, 4096)), 2 * 88_192);
    let written = disk.answer_at(SECOND_NS, Asked::Write(MIB, 4096));
    assert_eq!(written, SECOND_NS + 7_447);
    assert_eq!(disk.answer_at(written, Asked::Flush), SECOND_NS + 88_192);
    assert_eq!(disk.answer_at(2 * SECOND_NS, Asked::Discard), 2 * SECOND_NS);
}
