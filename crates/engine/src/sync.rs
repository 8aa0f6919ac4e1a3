//! Small synchronisation tools for one thread: events, one-shot answers, joining, racing and range locks.
//!
//! Owns waiting; nothing here touches disks or time. Invariants: everything is `Rc`/`Cell`, waiters are woken in the order
//! they came, and dropping a waiting future takes it out of its queue.

use std::cell::{Cell, RefCell};
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

/// A mutual exclusion for flows: one holder, waiters in no particular order.
#[derive(Default)]
pub(crate) struct Mutex {
    held: Cell<bool>,
    event: Event,
}

/// Holds a [`Mutex`] until dropped.
pub(crate) struct MutexGuard<'a>(&'a Mutex);

impl Mutex {
    /// Waits for the lock.
    pub(crate) async fn lock(&self) -> MutexGuard<'_> {
        self.event.wait_until(|| !self.held.replace(true)).await;
        MutexGuard(self)
    }
}

impl Drop for MutexGuard<'_> {
    fn drop(&mut self) {
        self.0.held.set(false);
        self.0.event.notify();
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
