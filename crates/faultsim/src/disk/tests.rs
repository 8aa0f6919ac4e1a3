//! Tests of the simulated disk: order, crashes, faults, misuse.

use std::future::Future;
use std::task::Poll;

use forestall_engine::FaultKind;

use super::*;
use crate::executor::{Executor, Limits};
use crate::medium::SECTOR;
use crate::trace::Trace;

const B: u64 = BLOCK_SIZE;

fn machine(seed: u64) -> (Executor, Drive) {
    (Executor::new(seed, 0, Trace::default()), Drive::new("d1", 16 * B, Rng::new(seed, 9)))
}

fn block(value: u8) -> Buf {
    Buf::copy_of(&[value; B as usize])
}

fn first_bytes(drive: &Drive) -> Vec<u8> {
    drive.image().chunks(B as usize).map(|b| b[0]).collect()
}

#[test]
fn what_a_flush_covered_survives_and_what_came_later_may_not() {
    for seed in 0..50 {
        let (mut executor, drive) = machine(seed);
        let disk = drive.open(&executor.runtime());
        executor
            .run(
                async move {
                    disk.write(0, block(1)).await.unwrap();
                    disk.flush().await.unwrap();
                    disk.write(B, block(2)).await.unwrap();
                    let (result, buf) = disk.read(B, Buf::zeroed(B as usize)).await;
                    assert!(result.is_ok());
                    assert_eq!(buf[0], 2, "an unflushed write is read all the same");
                },
                Limits::AMPLE,
            )
            .done();
        executor.crash();
        drive.crash(if seed % 2 == 0 { Loss::All } else { Loss::Nothing });
        assert_eq!(first_bytes(&drive)[..2], [1, if seed % 2 == 0 { 0 } else { 2 }]);
    }
}

#[test]
fn a_write_after_the_flush_was_called_is_not_covered() {
    let mut lost = 0;
    for seed in 0..50 {
        let (mut executor, drive) = machine(seed);
        let disk = Rc::new(drive.open(&executor.runtime()));
        let late = Rc::clone(&disk);
        let runtime = executor.runtime();
        executor
            .run(
                async move {
                    let flushed = Rc::clone(&disk);
                    runtime.spawn(Box::pin(async move { late.write(0, block(7)).await.unwrap() }));
                    flushed.flush().await.unwrap();
                    runtime.sleep_ns(10_000_000).await;
                },
                Limits::AMPLE,
            )
            .done();
        executor.crash();
        drive.crash(Loss::All);
        lost += u32::from(first_bytes(&drive)[0] == 0);
    }
    assert_eq!(lost, 50);
}

#[test]
fn requests_under_way_complete_in_any_order_and_outlive_their_futures() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let (mut executor, drive) = machine(seed);
        let disk = Rc::new(drive.open(&executor.runtime()));
        let order = Rc::new(RefCell::new(Vec::new()));
        for i in 0..3 {
            let (disk, order) = (Rc::clone(&disk), Rc::clone(&order));
            executor.runtime().spawn(Box::pin(async move {
                disk.write(i * B, block(1)).await.unwrap();
                order.borrow_mut().push(i);
            }));
        }
        let dropped = Rc::clone(&disk);
        executor.runtime().spawn(Box::pin(async move {
            let mut write = Box::pin(dropped.write(3 * B, block(4)));
            std::future::poll_fn(|cx| {
                assert!(write.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
        }));
        let _ = executor.run(std::future::pending::<()>(), Limits::AMPLE);
        assert_eq!(first_bytes(&drive)[3], 4);
        orders.insert(order.take());
    }
    assert_eq!(orders.len(), 6);
}

#[test]
fn faults_answer_as_their_kind_and_leave_sectors_old_or_new() {
    let (mut executor, drive) = machine(4);
    let disk = drive.open(&executor.runtime());
    let shelf = drive.clone();
    executor
        .run(
            async move {
                let drive = shelf;
                drive.faults_mut().spoil(0..SECTOR);
                let (result, _) = disk.read(0, Buf::zeroed(B as usize)).await;
                assert_eq!(result.unwrap_err().kind, FaultKind::Medium);
                disk.write(0, block(1)).await.unwrap();
                assert!(disk.read(0, Buf::zeroed(B as usize)).await.0.is_ok());
                drive.faults_mut().fail_writes(1);
                assert_eq!(disk.write(0, block(2)).await.unwrap_err().kind, FaultKind::Medium);
                let (_, buf) = disk.read(0, Buf::zeroed(B as usize)).await;
                assert!(buf.chunks(512).all(|s| s == [1; 512] || s == [2; 512]));
                drive.faults_mut().set_full(true);
                assert_eq!(disk.write(B, block(2)).await.unwrap_err().kind, FaultKind::NoSpace);
                drive.faults_mut().clear();
                drive.faults_mut().fail_flushes(1);
                assert!(disk.flush().await.is_err());
                assert!(disk.flush().await.is_ok());
                drive.faults_mut().set_dead(true);
                assert_eq!(disk.flush().await.unwrap_err().kind, FaultKind::Gone);
                assert_eq!(drive.injected()[&Injected::LatentSector], 1);
                assert_eq!(drive.accesses().flushes, 3);
            },
            Limits::AMPLE,
        )
        .done();
}

#[test]
fn a_stall_holds_requests_up_until_its_end() {
    let (mut executor, drive) = machine(4);
    let disk = drive.open(&executor.runtime());
    let rt = executor.runtime();
    drive.faults_mut().stall(5_000_000_000);
    executor.run(async move { disk.flush().await }, Limits::AMPLE).done().unwrap();
    assert!(rt.now_ns() >= 5_000_000_000);
    assert_eq!(drive.injected()[&Injected::Stall], 1);
}

#[test]
#[should_panic(expected = "rule F3")]
fn overlapping_writes_under_way_are_a_defect() {
    let (mut executor, drive) = machine(1);
    let disk = Rc::new(drive.open(&executor.runtime()));
    for len in [1, 2] {
        let disk = Rc::clone(&disk);
        executor.runtime().spawn(Box::pin(async move {
            let _ = disk.write(0, Buf::zeroed(len * B as usize)).await;
        }));
    }
    let _ = executor.run(std::future::pending::<()>(), Limits::AMPLE);
}

#[test]
#[should_panic(expected = "unaligned or outside")]
fn requests_outside_the_disk_are_a_defect() {
    let (mut executor, drive) = machine(1);
    let disk = drive.open(&executor.runtime());
    let _ = executor.run(async move { disk.write(16 * B, block(1)).await }, Limits::AMPLE);
}

#[test]
#[should_panic(expected = "a handle of before")]
fn a_handle_of_before_a_crash_is_dead() {
    let (executor, drive) = machine(1);
    let disk = drive.open(&executor.runtime());
    drive.crash(Loss::All);
    let mut next = Executor::new(2, 0, Trace::default());
    let _again = drive.open(&next.runtime());
    let _ = next.run(async move { disk.flush().await }, Limits::AMPLE);
}

#[test]
fn an_unplugged_disk_is_gone_for_old_handles_and_back_for_new_ones() {
    let (mut executor, drive) = machine(1);
    let old = drive.open(&executor.runtime());
    let (shelf, runtime) = (drive.clone(), executor.runtime());
    executor
        .run(
            async move {
                old.write(0, block(1)).await.unwrap();
                let under_way = runtime.clone();
                let late = shelf.open(&runtime);
                under_way.spawn(Box::pin(async move {
                    assert_eq!(late.write(B, block(2)).await.unwrap_err().kind, FaultKind::Gone);
                }));
                runtime.sleep_ns(1).await;
                shelf.power_cycle(Loss::All);
                let new = shelf.open(&runtime);
                assert_eq!(old.write(0, block(3)).await.unwrap_err().kind, FaultKind::Gone);
                new.write(2 * B, block(4)).await.unwrap();
                runtime.sleep_ns(100_000_000).await;
            },
            Limits::AMPLE,
        )
        .done();
    assert_eq!(first_bytes(&drive)[..3], [0, 0, 4]);
}
