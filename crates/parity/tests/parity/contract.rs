//! Broken preconditions panic and say what was wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};

use forestall_parity::{
    PQ_DATA_MAX, XOR_DATA_MAX, pq_apply_delta, pq_gen, pq_update, recover_pq, recover_xor, xor_gen,
    xor_into,
};

#[track_caller]
fn panics(expected: &str, call: impl FnOnce()) {
    let payload = catch_unwind(AssertUnwindSafe(call)).expect_err("the call panics");
    let message = match payload.downcast_ref::<String>() {
        Some(message) => message.as_str(),
        None => payload.downcast_ref::<&str>().expect("a panic message is a string"),
    };
    assert!(message.contains(expected), "{message:?} does not say {expected:?}");
}

#[test]
fn widths_out_of_range() {
    let column = [0u8; 4];
    let (mut p, mut q) = ([0; 4], [0; 4]);
    panics("0 data columns", || xor_gen(&[], &mut p));
    panics("64 data columns", || xor_gen(&[&column[..]; XOR_DATA_MAX + 1], &mut p));
    panics("0 data columns", || pq_gen(&[], &mut p, &mut q));
    panics("63 data columns", || pq_gen(&[&column[..]; PQ_DATA_MAX + 1], &mut p, &mut q));
    panics("data column 63 is not below 63", || {
        pq_apply_delta(XOR_DATA_MAX, &column, Some(&mut p), None);
    });
    panics("data column 62 is not below 62", || {
        pq_apply_delta(PQ_DATA_MAX, &column, None, Some(&mut q));
    });
    panics("1 columns", || recover_xor(&mut [&mut p], &[], &[]).unwrap());
    panics("2 columns", || recover_pq(&mut [&mut p, &mut q], &[], &[]).unwrap());
}

#[test]
fn lengths_that_differ() {
    let (short, long) = ([0u8; 3], [0u8; 4]);
    let (mut p, mut q) = ([0; 4], [0; 4]);
    let mut small = [0; 3];
    panics("differ in length", || xor_into(&mut p, &short));
    panics("data column 1", || xor_gen(&[&long, &short], &mut p));
    panics("data column 0", || pq_gen(&[&short, &long], &mut p, &mut q));
    panics("P and Q", || pq_gen(&[&long], &mut p, &mut small));
    panics("old and new", || pq_update(0, &long, &short, Some(&mut p), None));
    panics("parity and its change", || pq_update(0, &long, &long, Some(&mut small), None));
    panics("parity and its change", || pq_apply_delta(0, &long, None, Some(&mut small)));
    panics("columns of one stripe", || {
        recover_pq(&mut [&mut [0; 4], &mut p, &mut small], &[0], &[0]).unwrap();
    });
    panics("columns of one stripe", || {
        recover_xor(&mut [&mut [0; 4], &mut small], &[0], &[0]).unwrap();
    });
}

#[test]
fn lists_that_make_no_sense() {
    let recover = |missing: &[usize], wanted: &[usize]| {
        let mut stripe = [[0u8; 4]; 5];
        let mut columns: Vec<_> = stripe.iter_mut().map(|column| &mut column[..]).collect();
        recover_pq(&mut columns, missing, wanted).unwrap();
    };
    panics("missing column 5 of 5", || recover(&[5], &[]));
    panics("missing column 2 is listed twice", || recover(&[2, 2], &[]));
    panics("wanted column 9 of 5", || recover(&[1], &[9]));
    panics("wanted column 1 is listed twice", || recover(&[1], &[1, 1]));
    panics("column 3 is wanted but not missing", || recover(&[1], &[3]));
}
