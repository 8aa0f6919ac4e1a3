//! Waiting for a condition on one thread.
//!
//! Owns [`Signal`]. Invariant: who changes what a condition depends on calls [`Signal::notify`] afterwards; a waiter looks again each
//! time, so that no change is missed and none has to be counted.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Wakes everybody who waits.
#[derive(Default)]
pub struct Signal(RefCell<Vec<Waker>>);

impl Signal {
    /// Completes when `ready` says so; asked at once and after each [`Signal::notify`].
    pub async fn until(&self, mut ready: impl FnMut() -> bool) {
        poll_fn(|cx| {
            if ready() {
                return Poll::Ready(());
            }
            let mut wakers = self.0.borrow_mut();
            if !wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                wakers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }

    /// Lets all who wait look again.
    pub fn notify(&self) {
        if self.0.borrow().is_empty() {
            return;
        }
        for waker in self.0.take() {
            waker.wake();
        }
    }
}
