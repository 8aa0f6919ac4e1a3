//! Tests of the executor: determinism, the clock, crashes.

use std::cell::RefCell;

use super::*;

/// Five tasks that sleep and log; answers the log and the trace's hash.
fn play(seed: u64) -> (Vec<(u64, u64)>, u64) {
    let mut executor = Executor::new(seed, 0, Trace::default());
    let runtime = executor.runtime();
    let log = Rc::new(RefCell::new(Vec::new()));
    for task in 0..5 {
        let (rt, log) = (runtime.clone(), Rc::clone(&log));
        runtime.spawn(Box::pin(async move {
            for _ in 0..4 {
                rt.sleep_ns(rt.random_u64() % 3).await;
                log.borrow_mut().push((task, rt.now_ns()));
            }
        }));
    }
    let ended = executor.run(std::future::pending::<()>(), Limits::AMPLE);
    assert_eq!(ended, Ended::Stuck);
    let hash = runtime.trace().hash();
    let log = log.borrow().clone();
    (log, hash)
}

#[test]
fn one_seed_gives_one_order_and_seeds_differ() {
    assert_eq!(play(3), play(3));
    assert!((0..8).any(|seed| play(seed).0 != play(seed + 100).0));
    assert_eq!(play(5).0.len(), 20);
}

#[test]
fn ready_tasks_are_picked_in_every_order() {
    let mut firsts = std::collections::BTreeSet::new();
    for seed in 0..64 {
        let mut executor = Executor::new(seed, 0, Trace::default());
        let first = Rc::new(Cell::new(None));
        for task in 0..4 {
            let first = Rc::clone(&first);
            executor.runtime().spawn(Box::pin(async move {
                if first.get().is_none() {
                    first.set(Some(task));
                }
            }));
        }
        let _ = executor.run(std::future::pending::<()>(), Limits::AMPLE);
        firsts.insert(first.get());
    }
    assert_eq!(firsts.len(), 4);
}

#[test]
fn the_clock_moves_only_to_events() {
    let mut executor = Executor::new(1, 500, Trace::default());
    let rt = executor.runtime();
    let now = executor.run(
        async move {
            let before = rt.now_ns();
            rt.sleep_ns(3_600_000_000_000).await;
            (before, rt.now_ns())
        },
        Limits::AMPLE,
    );
    assert_eq!(now, Ended::Done((500, 3_600_000_000_500)));
}

#[test]
fn limits_end_a_run_and_it_can_go_on() {
    let mut executor = Executor::new(1, 0, Trace::default());
    let rt = executor.runtime();
    let ticks = Rc::new(Cell::new(0));
    let counted = Rc::clone(&ticks);
    executor.runtime().spawn(Box::pin(async move {
        loop {
            rt.sleep_ns(10).await;
            counted.set(counted.get() + 1);
        }
    }));
    let few = Limits { last_step: 20, ..Limits::AMPLE };
    assert_eq!(executor.run(std::future::pending::<()>(), few), Ended::OutOfSteps);
    assert_eq!(executor.steps(), 20);
    let before = ticks.get();
    let short = Limits { last_ns: 1000, ..Limits::AMPLE };
    assert_eq!(executor.run(std::future::pending::<()>(), short), Ended::OutOfTime);
    assert!(ticks.get() > before && before > 0);
}

/// Spawns from its destructor, as a careless guard might.
struct Guard(SimRuntime, Rc<Cell<bool>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let ran = Rc::clone(&self.1);
        assert!(self.0.stopped());
        self.0.spawn(Box::pin(async move { ran.set(true) }));
    }
}

#[test]
fn a_crash_drops_everything_and_runs_nothing() {
    let mut executor = Executor::new(1, 0, Trace::default());
    let runtime = executor.runtime();
    let ran = Rc::new(Cell::new(false));
    let guard = Guard(runtime.clone(), Rc::clone(&ran));
    runtime.spawn(Box::pin(async move {
        std::future::pending::<()>().await;
        drop(guard);
    }));
    let rt = runtime.clone();
    runtime.spawn(Box::pin(async move { rt.sleep_ns(5).await }));
    let few = Limits { last_step: 3, ..Limits::AMPLE };
    let _ = executor.run(std::future::pending::<()>(), few);
    executor.crash();
    assert!(!ran.get());
    assert_eq!(Rc::strong_count(&ran), 1, "nothing of the crashed run is left");
}

#[test]
fn a_stale_waker_does_not_disturb_the_next_task_in_its_slot() {
    let mut executor = Executor::new(1, 0, Trace::default());
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let keep = Rc::clone(&kept);
    executor
        .run(
            std::future::poll_fn(move |cx| {
                *keep.borrow_mut() = Some(cx.waker().clone());
                Poll::Ready(())
            }),
            Limits::AMPLE,
        )
        .done();
    let polls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&polls);
    executor.runtime().spawn(Box::pin(std::future::poll_fn(move |_| {
        counted.set(counted.get() + 1);
        Poll::Pending
    })));
    kept.borrow().as_ref().expect("the first task ran").wake_by_ref();
    let _ = executor.run(std::future::pending::<()>(), Limits { last_step: 50, ..Limits::AMPLE });
    assert_eq!(polls.get(), 1);
}

#[test]
fn an_orderly_executor_keeps_the_order_whatever_the_seed() {
    for seed in 0..20 {
        let mut executor = Executor::new(seed, 0, Trace::default()).orderly();
        let runtime = executor.runtime();
        let order = Rc::new(RefCell::new(Vec::new()));
        for number in 0..8 {
            let (order, clock) = (Rc::clone(&order), runtime.clone());
            runtime.spawn(Box::pin(async move {
                order.borrow_mut().push(number);
                clock.sleep_ns(1000).await;
                order.borrow_mut().push(number);
            }));
        }
        executor.run(runtime.sleep_ns(2000), Limits::AMPLE).done();
        let twice: Vec<_> = (0..8).chain(0..8).collect();
        assert_eq!(*order.borrow(), twice, "seed {seed}");
    }
}
