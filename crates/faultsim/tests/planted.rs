//! The simulator's own proof: arrays that are broken on purpose are found out, a right one is not.
//!
//! A toy mirror of two simulated disks stands in for the engine. Each planted defect is one that a real array could have and
//! that no test would show which only reads back what it wrote.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::Poll;

use forestall_engine::{Buf, Disk, IoError, Runtime};
use forestall_faultsim::{
    Budget, Drive, Executor, Habits, Host, Limits, Loss, Oracle, Rng, SimDisk, SimRuntime, Target,
    Trace, Zeroing, caught, connection,
};

const SIZE: u64 = 256 * 1024;
const BLOCK: u64 = 4096;

/// What is wrong with the toy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Defect {
    /// Nothing.
    None,
    /// FLUSH is answered without flushing the disks.
    FlushLies,
    /// FUA is taken for a plain write.
    FuaForgotten,
    /// After a crash reads come from either leg, and nobody makes them equal.
    NoResync,
    /// Two requests merge into one block at the same time.
    NoLock,
    /// Every now and then a write goes to the next block.
    Misdirected,
    /// Every now and then a write is answered and never made.
    LostWrite,
    /// TRIM leaves the last sector.
    ShortTrim,
    /// A write is answered when the first leg has it; flush waits for nothing.
    EarlyAnswer,
}

struct Toy {
    legs: [Rc<SimDisk>; 2],
    defect: Defect,
    busy: Cell<bool>,
    runtime: SimRuntime,
    reads: Cell<u64>,
    writes: Cell<u64>,
}

impl Toy {
    async fn lock(&self) {
        if self.defect == Defect::NoLock {
            return;
        }
        while self.busy.replace(true) {
            self.runtime.sleep_ns(20_000).await;
        }
    }

    async fn blocks(&self, offset: u64, len: u64) -> (u64, Buf) {
        let start = offset / BLOCK * BLOCK;
        let end = (offset + len).next_multiple_of(BLOCK);
        self.reads.set(self.reads.get() + 1);
        let leg = if self.defect == Defect::NoResync { self.reads.get() % 2 } else { 0 };
        let (result, buf) =
            self.legs[leg as usize].read(start, Buf::zeroed((end - start) as usize)).await;
        assert!(result.is_ok());
        (start, buf)
    }

    async fn change(&self, offset: u64, bytes: &[u8], fua: bool) -> Result<(), IoError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.lock().await;
        let (mut start, mut buf) = self.blocks(offset, bytes.len() as u64).await;
        let at = (offset - start) as usize;
        buf.bytes_mut()[at..at + bytes.len()].copy_from_slice(bytes);
        self.writes.set(self.writes.get() + 1);
        if self.defect == Defect::Misdirected
            && self.writes.get().is_multiple_of(15)
            && start + buf.len() as u64 + BLOCK <= SIZE
        {
            start += BLOCK;
        }
        if self.defect != Defect::LostWrite || !self.writes.get().is_multiple_of(15) {
            self.store(start, buf).await;
        }
        if fua && self.defect != Defect::FuaForgotten {
            self.flush_legs().await;
        }
        self.busy.set(false);
        Ok(())
    }

    async fn store(&self, start: u64, buf: Buf) {
        if self.defect == Defect::NoLock {
            // Without locks the two legs' writes would overlap others, which the disks themselves find out.
            let _ = both(
                self.write_unlocked(0, start, buf.clone()),
                self.write_unlocked(1, start, buf),
            )
            .await;
            return;
        }
        if self.defect == Defect::EarlyAnswer {
            let (leg, late) = (Rc::clone(&self.legs[1]), buf.clone());
            let runtime = self.runtime.clone();
            self.runtime.spawn(Box::pin(async move {
                runtime.sleep_ns(3_000_000).await;
                let _ = leg.write(start, late).await;
            }));
            let _ = self.legs[0].write(start, buf).await;
            return;
        }
        let _ = both(self.legs[0].write(start, buf.clone()), self.legs[1].write(start, buf)).await;
    }

    async fn write_unlocked(&self, leg: usize, start: u64, buf: Buf) {
        while self.busy.replace(true) {
            self.runtime.sleep_ns(20_000).await;
        }
        let _ = self.legs[leg].write(start, buf).await;
        self.busy.set(false);
    }

    async fn flush_legs(&self) {
        let _ = both(self.legs[0].flush(), self.legs[1].flush()).await;
    }

    /// Makes the second leg equal to the first.
    async fn resync(&self) {
        if self.defect == Defect::NoResync {
            return;
        }
        let (_, all) = self.legs[0].read(0, Buf::zeroed(SIZE as usize)).await;
        let _ = self.legs[1].write(0, all).await;
        self.flush_legs().await;
    }
}

async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    let (mut left, mut right) = (None, None);
    std::future::poll_fn(move |cx| {
        if left.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            left = Some(value);
        }
        if right.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            right = Some(value);
        }
        match (left.take(), right.take()) {
            (Some(l), Some(r)) => Poll::Ready((l, r)),
            (l, r) => {
                (left, right) = (l, r);
                Poll::Pending
            }
        }
    })
    .await
}

impl Target for Toy {
    async fn read(&self, offset: u64, len: u64) -> Result<Vec<Buf>, IoError> {
        if len == 0 {
            return Ok(Vec::new());
        }
        self.lock().await;
        let (start, buf) = self.blocks(offset, len).await;
        self.busy.set(false);
        Ok(vec![buf.slice((offset - start) as usize..(offset - start + len) as usize)])
    }

    async fn write(&self, offset: u64, data: Buf, fua: bool) -> Result<(), IoError> {
        self.change(offset, &data, fua).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        if self.defect != Defect::FlushLies {
            self.lock().await;
            self.flush_legs().await;
            self.busy.set(false);
        }
        Ok(())
    }

    async fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> Result<(), IoError> {
        let short = self.defect == Defect::ShortTrim && how == Zeroing::Trim && len > 512;
        let len = if short { len - 512 } else { len };
        self.change(offset, &vec![0; len as usize], fua).await
    }
}

/// Two runs of the toy, the first cut off somewhere; in the end either leg may be lost. What the oracle found, if anything.
fn simulate(seed: u64, defect: Defect) -> Result<(), String> {
    caught(|| {
        let mut rng = Rng::new(seed, 0);
        let drives: Vec<Drive> =
            (1..3).map(|i| Drive::new(format!("d{i}"), SIZE, Rng::new(seed, 100 + i))).collect();
        let oracle = Rc::new(RefCell::new(Oracle::new()));
        oracle.borrow_mut().create_volume("v1", SIZE);
        for run in 0..3u64 {
            let mut executor = Executor::new(rng.word(), run * 1_000_000_000, Trace::default());
            let runtime = executor.runtime();
            // A mirror may lose a leg: in the last run it is the first one, so what the second holds shows.
            let (a, b) = if run == 2 { (1, 1) } else { (0, 1) };
            let toy = Rc::new(Toy {
                legs: [Rc::new(drives[a].open(&runtime)), Rc::new(drives[b].open(&runtime))],
                defect,
                busy: Cell::new(false),
                runtime: runtime.clone(),
                reads: Cell::new(0),
                writes: Cell::new(0),
            });
            let host = |connection| Host {
                may_lose: None,
                target: Rc::clone(&toy),
                volume: "v1".into(),
                connection,
                oracle: Rc::clone(&oracle),
                full: Rc::default(),
                runtime: runtime.clone(),
            };
            let budget = Budget::default();
            budget.set(if run == 2 { 0 } else { 60 });
            let habits = Habits::random(SIZE, 16384, 32768, &mut rng);
            let workers: Vec<_> = (0..3)
                .map(|i| {
                    connection(
                        host(i),
                        habits.clone(),
                        Rng::new(seed, 50 + u64::from(i)),
                        Rc::clone(&budget),
                        true,
                    )
                })
                .collect();
            let checker = host(9);
            let starting = Rc::clone(&toy);
            let main = async move {
                if run < 2 {
                    starting.resync().await;
                }
                for worker in workers {
                    runtime.spawn(Box::pin(worker));
                }
                while budget.get() > 0 {
                    runtime.sleep_ns(1_000_000).await;
                }
                runtime.sleep_ns(100_000_000).await;
                checker.verify(SIZE).await.unwrap();
                checker.verify(SIZE).await.unwrap();
                if run < 2 {
                    checker.flush().await.unwrap();
                }
            };
            let last_step = if run == 0 { rng.within(20..2500) } else { 1_000_000 };
            let _ = executor.run(main, Limits { last_step, ..Limits::AMPLE });
            executor.crash();
            let loss = Loss::random(&mut rng);
            drives.iter().for_each(|d| d.crash(loss));
            oracle.borrow_mut().crash();
        }
    })
}

#[test]
fn a_right_array_passes() {
    for seed in 0..40 {
        if let Err(what) = simulate(seed, Defect::None) {
            panic!("seed {seed}: {what}");
        }
    }
}

#[test]
fn every_planted_defect_is_found() {
    for defect in [
        Defect::FlushLies,
        Defect::FuaForgotten,
        Defect::NoResync,
        Defect::NoLock,
        Defect::Misdirected,
        Defect::LostWrite,
        Defect::ShortTrim,
        Defect::EarlyAnswer,
    ] {
        let found = (0..80).find(|&seed| simulate(seed, defect).is_err());
        assert!(found.is_some(), "{defect:?} was not found");
    }
}
