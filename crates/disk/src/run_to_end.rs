//! Requests that end by themselves, whoever still waits for them.
//!
//! Owns [`RunToEnd`]. The runtime cancels an operation whose future is dropped; a write cancelled half-way would be neither old
//! nor new to whoever issues the next one (rule F3). So a request that was begun and is then dropped goes on as a
//! task of its own, with its buffer.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use compio::runtime::Runtime;

/// A future that, once polled, runs to its end on the current runtime even if it is dropped.
pub struct RunToEnd<F: Future + 'static> {
    request: Option<Pin<Box<F>>>,
    begun: bool,
}

impl<F: Future + 'static> RunToEnd<F> {
    /// Wraps `request`, which is not begun before the first poll.
    pub fn new(request: F) -> Self {
        Self { request: Some(Box::pin(request)), begun: false }
    }
}

impl<F: Future + 'static> Future for RunToEnd<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.begun = true;
        let request = self.request.as_mut().expect("polled again after it was ready");
        let output = std::task::ready!(request.as_mut().poll(cx));
        self.request = None;
        Poll::Ready(output)
    }
}

impl<F: Future + 'static> Drop for RunToEnd<F> {
    fn drop(&mut self) {
        if !self.begun {
            return;
        }
        // Outside of a runtime, that is when it ends itself, nothing can be waited for any more.
        if let Some(request) = self.request.take()
            && let Some(runtime) = Runtime::try_current()
        {
            runtime.spawn(request).detach();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_begun_ends_and_what_was_not_does_not() {
        Runtime::new().expect("a runtime").block_on(async {
            let (ended, never) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
            let (sender, receiver) = async_channel::bounded::<()>(1);
            let count = |cell: &Rc<Cell<u32>>| {
                let (cell, sender) = (Rc::clone(cell), sender.clone());
                async move {
                    compio::time::sleep(Duration::from_millis(1)).await;
                    cell.set(cell.get() + 1);
                    sender.send(()).await.expect("the test waits");
                }
            };
            drop(RunToEnd::new(count(&never)));
            let mut begun = Box::pin(RunToEnd::new(count(&ended)));
            let poll = std::future::poll_fn(|cx| Poll::Ready(begun.as_mut().poll(cx))).await;
            assert!(poll.is_pending());
            drop(begun);
            receiver.recv().await.expect("the dropped request ends");
            assert_eq!((ended.get(), never.get()), (1, 0));
        });
    }
}
