//! Small synchronisation tools for one thread: events, one-shot answers, joining, racing and range locks.
//!
//! Owns waiting; nothing here touches disks or time. Invariants: everything is `Rc`/`Cell`, waiters are woken in the order
//! they came, and dropping a waiting future takes it out of its queue.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Wakes everybody who waits for something to change.
#[derive(Default)]
pub(crate) struct Event {
    wakers: RefCell<Vec<Waker>>,
}

impl Event {
    /// Wakes all present waiters; each looks at its own condition again.
    pub(crate) fn notify(&self) {
        for waker in self.wakers.take() {
            waker.wake();
        }
    }

    /// Completes once `condition` holds; it is looked at now and after each [`Event::notify`].
    pub(crate) async fn wait_until(&self, mut condition: impl FnMut() -> bool) {
        poll_fn(|cx| {
            if condition() {
                return Poll::Ready(());
            }
            let mut wakers = self.wakers.borrow_mut();
            if !wakers.last().is_some_and(|last| last.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

struct Slot<T> {
    value: Cell<Option<T>>,
    event: Event,
    gone: Cell<bool>,
}

/// The giving half of a one-shot answer.
pub(crate) struct Giver<T>(Rc<Slot<T>>);

/// The taking half of a one-shot answer.
pub(crate) struct Taker<T>(Rc<Slot<T>>);

/// A place for one answer.
pub(crate) fn oneshot<T>() -> (Giver<T>, Taker<T>) {
    let slot =
        Rc::new(Slot { value: Cell::new(None), event: Event::default(), gone: Cell::new(false) });
    (Giver(Rc::clone(&slot)), Taker(slot))
}

impl<T> Giver<T> {
    /// Gives the answer; if nobody takes it any more it is dropped.
    pub(crate) fn give(self, value: T) {
        self.0.value.set(Some(value));
        self.0.event.notify();
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        self.0.gone.set(true);
        self.0.event.notify();
    }
}

impl<T> Taker<T> {
    /// The answer, or `None` if the giver went away without one.
    pub(crate) async fn take(self) -> Option<T> {
        let mut got = None;
        self.0
            .event
            .wait_until(|| {
                got = self.0.value.take();
                got.is_some() || self.0.gone.get()
            })
            .await;
        got
    }
}

/// Runs all futures at once and answers their outputs in order. For a few dozen futures: each wake polls those not done.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<(Option<Pin<Box<F>>>, Option<F::Output>)> =
        futures.into_iter().map(|f| (Some(Box::pin(f)), None)).collect();
    poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in &mut running {
            let Some(f) = future else { continue };
            match f.as_mut().poll(cx) {
                Poll::Ready(value) => {
                    *output = Some(value);
                    *future = None;
                }
                Poll::Pending => pending = true,
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().map(|(_, output)| output.expect("every future is done")).collect()
}

/// Runs two futures at once and answers both outputs.
pub(crate) async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut of_a, mut of_b) = (None, None);
    poll_fn(|cx| {
        if of_a.is_none()
            && let Poll::Ready(value) = a.as_mut().poll(cx)
        {
            of_a = Some(value);
        }
        if of_b.is_none()
            && let Poll::Ready(value) = b.as_mut().poll(cx)
        {
            of_b = Some(value);
        }
        if of_a.is_some() && of_b.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (of_a.expect("it is done"), of_b.expect("it is done"))
}

/// Lets other tasks run once.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Which of two futures was ready first.
pub(crate) enum First<A, B> {
    /// The left one.
    Left(A),
    /// The right one.
    Right(B),
}

/// Completes with the first of the two; looks at the left one first. Neither is dropped: the caller owns them.
pub(crate) async fn race<A: Future + Unpin, B: Future + Unpin>(
    left: &mut A,
    right: &mut B,
) -> First<A::Output, B::Output> {
    let mut left = pin!(left);
    let mut right = pin!(right);
    poll_fn(|cx| {
        if let Poll::Ready(value) = left.as_mut().poll(cx) {
            return Poll::Ready(First::Left(value));
        }
        if let Poll::Ready(value) = right.as_mut().poll(cx) {
            return Poll::Ready(First::Right(value));
        }
        Poll::Pending
    })
    .await
}

/// A mutual exclusion for flows: one holder, and the others in the order in which they came, so that nobody starves.
#[derive(Default)]
pub(crate) struct Mutex {
    /// Who holds it, and who waits behind.
    line: RefCell<VecDeque<(u64, Option<Waker>)>>,
    next: Cell<u64>,
}

/// Holds (or waits for) a [`Mutex`] until dropped.
pub(crate) struct MutexGuard<'a> {
    mutex: &'a Mutex,
    id: u64,
}

impl Mutex {
    /// Waits for the lock.
    pub(crate) async fn lock(&self) -> MutexGuard<'_> {
        let id = self.next.get();
        self.next.set(id + 1);
        self.line.borrow_mut().push_back((id, None));
        let guard = MutexGuard { mutex: self, id };
        poll_fn(|cx| {
            let mut line = self.line.borrow_mut();
            if line.front().is_some_and(|(first, _)| *first == id) {
                return Poll::Ready(());
            }
            let mine = line.iter_mut().find(|(other, _)| *other == id);
            mine.expect("it waits in the line").1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        guard
    }
}

impl Drop for MutexGuard<'_> {
    fn drop(&mut self) {
        let mut line = self.mutex.line.borrow_mut();
        let at = line.iter().position(|(id, _)| *id == self.id).expect("it stands in the line");
        line.remove(at);
        let first = (at == 0).then(|| line.front_mut().and_then(|(_, waker)| waker.take()));
        drop(line);
        if let Some(waker) = first.flatten() {
            waker.wake();
        }
    }
}

/// Work that is done by one at a time and serves everybody who asked for it before it began.
#[derive(Default)]
pub(crate) struct Served {
    turn: Mutex,
    asked: Cell<u64>,
    /// How many of those who asked are served.
    served: Cell<u64>,
}

impl Served {
    /// Has the work done once more, unless somebody does it who began after this call. Work that fails serves nobody: the next in line tries again.
    pub(crate) async fn by<F, X>(&self, work: impl FnOnce() -> F) -> Result<(), X>
    where
        F: Future<Output = Result<(), X>>,
    {
        let mine = self.asked.get() + 1;
        self.asked.set(mine);
        let _turn = self.turn.lock().await;
        if self.served.get() >= mine {
            return Ok(());
        }
        let asked = self.asked.get();
        work().await?;
        self.served.set(asked);
        Ok(())
    }
}

/// Counts what is under way.
#[derive(Default)]
pub(crate) struct Counted {
    count: Cell<u32>,
    ended: Event,
}

/// One of those counted, until dropped.
pub(crate) struct One<'a>(&'a Counted);

impl Counted {
    /// Counts one more.
    pub(crate) fn one(&self) -> One<'_> {
        self.count.set(self.count.get() + 1);
        One(self)
    }

    /// Whether there is any.
    pub(crate) fn is_any(&self) -> bool {
        self.count.get() > 0
    }

    /// Completes when there are none.
    pub(crate) async fn none(&self) {
        self.ended.wait_until(|| self.count.get() == 0).await;
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        let left = self.0.count.get() - 1;
        self.0.count.set(left);
        if left == 0 {
            self.0.ended.notify();
        }
    }
}

/// How a range is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Hold {
    /// With other shared holders.
    Shared,
    /// Alone.
    Exclusive,
}

struct Claim {
    id: u64,
    range: Range<u64>,
    hold: Hold,
    granted: bool,
    waker: Option<Waker>,
}

/// Locks on ranges of an address space, granted in the order they were asked for where they overlap, so that nobody starves.
#[derive(Default)]
pub(crate) struct RangeLocks {
    claims: RefCell<Vec<Claim>>,
    next: Cell<u64>,
    released: Event,
}

/// Holds (or waits for) a range until dropped.
pub(crate) struct RangeGuard {
    locks: Rc<RangeLocks>,
    id: u64,
}

fn conflict(a: &Claim, b: &Claim) -> bool {
    a.range.start < b.range.end
        && b.range.start < a.range.end
        && (a.hold == Hold::Exclusive || b.hold == Hold::Exclusive)
}

impl RangeLocks {
    /// Waits until `range` is free of conflicting holders and of earlier conflicting waiters.
    pub(crate) async fn lock(self: &Rc<Self>, range: Range<u64>, hold: Hold) -> RangeGuard {
        let id = self.next.get();
        self.next.set(id + 1);
        let mut claim = Claim { id, range, hold, granted: false, waker: None };
        {
            let mut claims = self.claims.borrow_mut();
            claim.granted = !claims.iter().any(|c| conflict(c, &claim));
            claims.push(claim);
        }
        let guard = RangeGuard { locks: Rc::clone(self), id };
        poll_fn(|cx| {
            let mut claims = self.claims.borrow_mut();
            let claim =
                claims.iter_mut().find(|c| c.id == id).expect("a claim lives as long as its guard");
            if claim.granted {
                return Poll::Ready(());
            }
            claim.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        guard
    }

    /// [`RangeLocks::lock`] if nobody has to be waited for.
    pub(crate) fn try_lock(self: &Rc<Self>, range: Range<u64>, hold: Hold) -> Option<RangeGuard> {
        let id = self.next.get();
        let claim = Claim { id, range, hold, granted: true, waker: None };
        let mut claims = self.claims.borrow_mut();
        if claims.iter().any(|c| conflict(c, &claim)) {
            return None;
        }
        self.next.set(id + 1);
        claims.push(claim);
        Some(RangeGuard { locks: Rc::clone(self), id })
    }

    /// Completes when everybody who asked for a range before this call has given it back. Nobody waits for this one.
    pub(crate) async fn passed(&self) {
        let before = self.next.get();
        self.released
            .wait_until(|| self.claims.borrow().iter().all(|claim| claim.id >= before))
            .await;
    }

    fn release(&self, id: u64) {
        let mut claims = self.claims.borrow_mut();
        let at = claims.iter().position(|c| c.id == id).expect("a guard is released once");
        claims.remove(at);
        // Only claims that came after the released one can have waited for it.
        let mut wake = Vec::new();
        for i in at..claims.len() {
            if !claims[i].granted && !claims[..i].iter().any(|c| conflict(c, &claims[i])) {
                claims[i].granted = true;
                wake.extend(claims[i].waker.take());
            }
        }
        drop(claims);
        wake.into_iter().for_each(Waker::wake);
        self.released.notify();
    }
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        self.locks.release(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Context;

    fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn whoever_lets_a_mutex_go_and_wants_it_again_stands_behind_the_others() {
        let mutex = Mutex::default();
        let mut a = Box::pin(mutex.lock());
        let Poll::Ready(guard_a) = poll_once(a.as_mut()) else { panic!("it is free") };
        let (mut b, mut c) = (Box::pin(mutex.lock()), Box::pin(mutex.lock()));
        assert!(poll_once(b.as_mut()).is_pending());
        assert!(poll_once(c.as_mut()).is_pending());
        drop(guard_a);
        let mut again = Box::pin(mutex.lock());
        assert!(poll_once(again.as_mut()).is_pending(), "b came first");
        assert!(poll_once(c.as_mut()).is_pending());
        drop(b);
        let Poll::Ready(_guard_c) = poll_once(c.as_mut()) else {
            panic!("b does not wait any more")
        };
        assert!(poll_once(again.as_mut()).is_pending());
    }

    #[test]
    fn work_serves_those_who_asked_before_it_began() {
        let (served, began) = (Served::default(), Cell::new(0));
        let (finish, done) = (Event::default(), Cell::new(Err(())));
        let work = || async {
            began.set(began.get() + 1);
            finish.wait_until(|| done.get() != Err(())).await;
            done.replace(Err(())).unwrap_or(Err(()))
        };
        let ask = || Box::pin(served.by(work));
        let (mut a, mut b, mut c) = (ask(), ask(), ask());
        assert!(poll_once(a.as_mut()).is_pending());
        assert!(poll_once(b.as_mut()).is_pending());
        assert!(poll_once(c.as_mut()).is_pending());
        done.set(Ok(Ok(())));
        assert_eq!(poll_once(a.as_mut()), Poll::Ready(Ok(())));
        let mut d = ask();
        assert!(poll_once(b.as_mut()).is_pending(), "a began before b asked");
        assert!(poll_once(d.as_mut()).is_pending());
        assert_eq!(began.get(), 2);
        done.set(Ok(Err(())));
        assert_eq!(poll_once(b.as_mut()), Poll::Ready(Err(())));
        assert!(poll_once(c.as_mut()).is_pending(), "what failed serves nobody");
        assert_eq!(began.get(), 3);
        done.set(Ok(Ok(())));
        assert_eq!(poll_once(c.as_mut()), Poll::Ready(Ok(())));
        assert_eq!(poll_once(d.as_mut()), Poll::Ready(Ok(())), "it asked before c began");
        assert_eq!(began.get(), 3);
    }

    #[test]
    fn a_range_is_had_at_once_only_if_nobody_holds_it_or_waits_for_it() {
        let locks: Rc<RangeLocks> = Rc::default();
        let held = locks.try_lock(0..10, Hold::Exclusive).expect("it is free");
        assert!(locks.try_lock(9..20, Hold::Shared).is_none());
        let mut waits = Box::pin(locks.lock(5..30, Hold::Shared));
        assert!(poll_once(waits.as_mut()).is_pending());
        assert!(locks.try_lock(20..30, Hold::Exclusive).is_none(), "somebody waits for it");
        drop(locks.try_lock(30..40, Hold::Exclusive).expect("it is free"));
        drop(held);
        assert!(poll_once(waits.as_mut()).is_ready());
        assert!(locks.try_lock(0..10, Hold::Shared).is_some());
    }

    #[test]
    fn range_locks_are_granted_in_order() {
        let locks = Rc::new(RangeLocks::default());
        let mut a = Box::pin(locks.lock(0..10, Hold::Exclusive));
        let Poll::Ready(guard_a) = poll_once(a.as_mut()) else { panic!("free range") };
        let mut b = Box::pin(locks.lock(5..15, Hold::Shared));
        let mut c = Box::pin(locks.lock(12..20, Hold::Exclusive));
        let mut d = Box::pin(locks.lock(30..40, Hold::Exclusive));
        assert!(poll_once(b.as_mut()).is_pending());
        assert!(poll_once(c.as_mut()).is_pending(), "behind b, though its own range is free");
        assert!(poll_once(d.as_mut()).is_ready());
        drop(guard_a);
        let Poll::Ready(guard_b) = poll_once(b.as_mut()) else { panic!("a is gone") };
        assert!(poll_once(c.as_mut()).is_pending());
        drop(guard_b);
        assert!(poll_once(c.as_mut()).is_ready());
    }

    #[test]
    fn those_who_came_before_are_waited_for_and_hold_nobody_up() {
        let locks = Rc::new(RangeLocks::default());
        let mut a = Box::pin(locks.lock(0..10, Hold::Shared));
        let Poll::Ready(guard_a) = poll_once(a.as_mut()) else { panic!("free range") };
        let mut passed = Box::pin(locks.passed());
        assert!(poll_once(passed.as_mut()).is_pending());
        let mut b = Box::pin(locks.lock(0..10, Hold::Shared));
        let Poll::Ready(_guard_b) = poll_once(b.as_mut()) else { panic!("it is shared") };
        drop(guard_a);
        assert!(poll_once(passed.as_mut()).is_ready(), "b came later");
    }

    #[test]
    fn a_dropped_waiter_leaves_the_queue() {
        let locks = Rc::new(RangeLocks::default());
        let mut a = Box::pin(locks.lock(0..10, Hold::Shared));
        let Poll::Ready(_guard) = poll_once(a.as_mut()) else { panic!("free range") };
        let mut b = Box::pin(locks.lock(0..10, Hold::Exclusive));
        assert!(poll_once(b.as_mut()).is_pending());
        let mut c = Box::pin(locks.lock(0..10, Hold::Shared));
        assert!(poll_once(c.as_mut()).is_pending());
        drop(b);
        assert!(poll_once(c.as_mut()).is_ready());
    }
}
