//! One request of a simulated disk, from its submission to its answer.
//!
//! Owns the requests under way and the future that waits for one. Invariant: an answer is given once; whoever waits may go away
//! before. When a request takes effect, and how, is `effect.rs`'s matter.

use std::cell::RefCell;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use forestall_engine::{Buf, DiskFault};

use super::Drive;

/// A request between submission and answer.
pub(super) struct UnderWay {
    pub(super) session: u64,
    pub(super) request: Request,
    pub(super) answer: Rc<Answer>,
}

pub(super) enum Request {
    Read { offset: u64, buf: Buf },
    Write { offset: u64, buf: Buf },
    Flush { mark: u64 },
    Discard { range: Range<u64> },
}

#[derive(Default)]
pub(super) struct Answer {
    pub(super) result: RefCell<Option<(Result<(), DiskFault>, Option<Buf>)>>,
    pub(super) waker: RefCell<Option<Waker>>,
}

impl Request {
    pub(super) fn range(&self) -> Range<u64> {
        match self {
            Self::Read { offset, buf } | Self::Write { offset, buf } => {
                *offset..*offset + buf.len() as u64
            }
            Self::Flush { .. } => 0..0,
            Self::Discard { range } => range.clone(),
        }
    }

    pub(super) fn changes(&self) -> bool {
        matches!(self, Self::Write { .. } | Self::Discard { .. })
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Read { .. } => "read",
            Self::Write { .. } => "write",
            Self::Flush { .. } => "flush",
            Self::Discard { .. } => "discard",
        }
    }

    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Read { .. } => 10,
            Self::Write { .. } => 11,
            Self::Flush { .. } => 12,
            Self::Discard { .. } => 13,
        }
    }
}

/// Waits for one request's answer; dropping it does not end the request.
pub(super) struct Pending {
    pub(super) answer: Rc<Answer>,
    /// Told when a failed flush is heard of.
    pub(super) drive: Option<Drive>,
}

impl Future for Pending {
    type Output = (Result<(), DiskFault>, Option<Buf>);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(answer) = self.answer.result.borrow_mut().take() {
            if let (Err(_), Some(drive)) = (answer.0, &self.drive) {
                drive.failure_heard();
            }
            return Poll::Ready(answer);
        }
        *self.answer.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}
