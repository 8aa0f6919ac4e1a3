//! When a receiver sleeps, and when others have their turn.
//!
//! Owns [`Patience`]. A client that just got an answer most likely sends its next request at once, and to put a thread to sleep and to
//! wake it on another core takes longer than that: so a receiver looks again for a short time before it sleeps (decision 0005). Invariants:
//! - Between two looks, and after [`STREAK_MAX`] receives that had not to wait, every other task of the thread has its turn.
//! - A wait turns into a sleep after [`LOOKS_FOR`].
//! - Looking that did not pay is given up for a number of waits that doubles each time.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How long one wait looks again. Waking a sleeping core takes some 5 µs on bare metal and up to 30 µs on a virtual machine; that
/// is twice within one turn of request and answer.
const LOOKS_FOR: Duration = Duration::from_micros(50);

/// Waits in a row that go without looking, at most.
const REST_MAX: u32 = 255;

/// Receives in a row that find something at once before others have their turn.
const STREAK_MAX: u32 = 16;

/// How patient one receiver is.
pub struct Patience {
    /// Whether there is a second core on which the client could be.
    useful: bool,
    /// Waits that go without looking, once looking has failed again.
    penalty: u32,
    /// Of these, how many are left.
    rest: u32,
    /// Receives in a row that found something at once.
    streak: u32,
}

impl Patience {
    /// Looks at the first wait.
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism();
        Self { useful: cores.is_ok_and(|cores| cores.get() > 1), penalty: 0, rest: 0, streak: 0 }
    }

    /// What `receive` finds, now or soon; `None` if it is time to sleep.
    pub async fn look(
        &mut self,
        mut receive: impl FnMut() -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        self.streak += 1;
        if self.streak > STREAK_MAX {
            self.streak = 0;
            others_first().await;
        }
        let found = receive()?;
        if found.is_some() {
            return Ok(found);
        }
        self.streak = 0;
        if !self.useful {
            return Ok(None);
        }
        if self.rest > 0 {
            self.rest -= 1;
            return Ok(None);
        }
        self.look_again(receive).await
    }

    async fn look_again(
        &mut self,
        mut receive: impl FnMut() -> io::Result<Option<usize>>,
    ) -> io::Result<Option<usize>> {
        let begun = Instant::now();
        while begun.elapsed() < LOOKS_FOR {
            others_first().await;
            let found = receive()?;
            if found.is_some() {
                self.penalty = 0;
                return Ok(found);
            }
        }
        self.penalty = (self.penalty * 2 + 1).min(REST_MAX);
        self.rest = self.penalty;
        Ok(None)
    }
}

/// Lets every other task that can go on do so, once.
async fn others_first() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    /// Runs one wait to its end; answers what it found and how often others had their turn.
    fn wait(patience: &mut Patience, finds: Option<usize>) -> (Option<usize>, u32) {
        let mut look = pin!(patience.look(|| Ok(finds)));
        let mut turns = 0;
        loop {
            match look.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(found) => return (found.expect("no error"), turns),
                Poll::Pending => turns += 1,
            }
        }
    }

    #[test]
    fn a_client_that_never_stops_sending_leaves_others_their_turn() {
        let mut patience = Patience::new();
        let turns: u32 = (0..100)
            .map(|_| wait(&mut patience, Some(1)))
            .inspect(|(found, _)| assert_eq!(*found, Some(1)))
            .map(|(_, turns)| turns)
            .sum();
        assert_eq!(turns, 100 / (STREAK_MAX + 1));
    }

    #[test]
    fn looking_that_never_pays_is_given_up_and_tried_again_seldom() {
        let mut patience = Patience { useful: true, ..Patience::new() };
        let mut looked = 0;
        for _ in 0..10 * REST_MAX {
            let (found, turns) = wait(&mut patience, None);
            assert_eq!(found, None);
            looked += u32::from(turns > 0);
        }
        assert!((1..=10 + REST_MAX.ilog2() + 1).contains(&looked), "{looked} times");
    }

    #[test]
    fn where_there_is_no_second_core_nobody_looks_again() {
        let mut patience = Patience { useful: false, ..Patience::new() };
        assert_eq!(wait(&mut patience, None), (None, 0));
    }
}
