//! Tests of the oracle: right answers pass, planted wrong ones are caught and named.

use super::*;

const V: &str = "v1";

fn oracle() -> Oracle {
    let mut oracle = Oracle::new();
    oracle.create_volume(V, 64 * SECTOR);
    oracle
}

fn write(oracle: &mut Oracle, offset: u64, len: u64, fua: bool) -> Buf {
    let op = oracle.begin(1, V, Request::Write { offset, len, fua });
    let data = oracle.data(op);
    oracle.end(op, true);
    data
}

fn flush(oracle: &mut Oracle) {
    let op = oracle.begin(1, V, Request::Flush);
    oracle.end(op, true);
}

fn read(oracle: &mut Oracle, offset: u64, data: &[u8]) -> Result<(), Violation> {
    let op = oracle.begin(2, V, Request::Read { offset, len: data.len() as u64 });
    oracle.read(op, Some(&[Buf::copy_of(data)]))
}

#[test]
fn what_was_written_is_read_at_any_alignment() {
    let mut o = oracle();
    let mut model = vec![0u8; 64 * SECTOR as usize];
    for (offset, len) in [(0, 4096), (100, 7), (511, 2), (1000, 3000), (512, 512), (700, 1)] {
        let data = write(&mut o, offset, len, false);
        model[offset as usize..(offset + len) as usize].copy_from_slice(&data);
        for (from, to) in [(0, 5000), (99, 108), (1, 2), (500, 1024)] {
            read(&mut o, from, &model[from as usize..to]).unwrap();
        }
    }
    let zero = o.begin(1, V, Request::Zero { offset: 90, len: 2000, fua: false });
    o.end(zero, true);
    model[90..2090].fill(0);
    read(&mut o, 0, &model).unwrap();
}

#[test]
fn a_lost_write_and_a_misplaced_one_are_named() {
    let mut o = oracle();
    let first = write(&mut o, 0, 512, false);
    let second = write(&mut o, 0, 512, false);
    read(&mut o, 0, &second).unwrap();
    let lost = read(&mut o, 0, &first).unwrap_err();
    assert!(lost.what.contains("sector 0") && lost.what.contains("holds write #1 of v1"), "{lost}");
    assert!(lost.what.contains("allowed: write #2"), "{lost}");
    assert_eq!(lost.history.len(), 4);
    let far = write(&mut o, 10 * SECTOR, 512, false);
    let misplaced = read(&mut o, 0, &far).unwrap_err();
    assert!(misplaced.what.contains("of sector 10 of v1"), "{misplaced}");
    assert!(read(&mut o, 0, &[0; 512]).unwrap_err().what.contains("holds zeroes"));
    assert!(read(&mut o, 0, &[9; 512]).unwrap_err().what.contains("bytes of nobody"));
    assert!(read(&mut o, 20 * SECTOR, &[9; 512]).is_err(), "what nobody wrote never changes");
}

#[test]
fn a_torn_sector_is_caught_and_a_torn_block_after_a_crash_is_not() {
    let mut o = oracle();
    let old = write(&mut o, 0, 4096, true);
    let new = write(&mut o, 0, 4096, false);
    o.crash();
    let mut block = old.to_vec();
    block[512..1024].copy_from_slice(&new[512..1024]);
    read(&mut o, 0, &block).unwrap();
    assert!(read(&mut o, 0, &new).is_err(), "the first read after the crash decided");
    let mut o = oracle();
    let old = write(&mut o, 0, 512, true);
    let new = write(&mut o, 0, 512, false);
    o.crash();
    let mut torn = old.to_vec();
    torn[256..].copy_from_slice(&new[256..]);
    let found = read(&mut o, 0, &torn).unwrap_err();
    assert!(found.what.contains("a mixture"), "{found}");
}

#[test]
fn a_flushed_write_lost_in_a_crash_is_caught() {
    let mut o = oracle();
    let old = write(&mut o, 0, 512, false);
    flush(&mut o);
    let new = write(&mut o, 0, 512, false);
    let mut unflushed = Oracle::new();
    unflushed.create_volume(V, 64 * SECTOR);
    flush(&mut o);
    o.crash();
    assert!(read(&mut o, 0, &old).is_err());
    read(&mut o, 0, &new).unwrap();
}

#[test]
fn an_unflushed_write_may_be_lost_in_a_crash_once() {
    let mut o = oracle();
    let old = write(&mut o, 0, 512, true);
    let new = write(&mut o, 0, 512, false);
    o.crash();
    read(&mut o, 0, &old).unwrap();
    assert!(read(&mut o, 0, &new).is_err());
    o.crash();
    read(&mut o, 0, &old).unwrap();
    assert!(read(&mut o, 0, &new).is_err(), "another crash does not flip it");
}

#[test]
fn an_orderly_stop_keeps_everything() {
    let mut o = oracle();
    let old = write(&mut o, 0, 512, false);
    let new = write(&mut o, 0, 512, false);
    o.stop();
    assert!(read(&mut o, 0, &old).is_err());
    read(&mut o, 0, &new).unwrap();
}

#[test]
fn pieces_of_a_sector_join_again() {
    let mut o = oracle();
    for offset in [10, 100, 200] {
        write(&mut o, offset, 50, false);
    }
    assert!(o.volumes[V].sectors[0].as_ref().unwrap().len() > 5);
    write(&mut o, 0, 512, false);
    flush(&mut o);
    assert_eq!(o.volumes[V].sectors[0].as_ref().unwrap().len(), 1);
    assert!(o.volumes[V].open.is_empty());
}
