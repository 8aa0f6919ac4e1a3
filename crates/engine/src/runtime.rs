//! What the engine asks of the world besides disks: time, tasks and random numbers.
//!
//! Owns the [`Runtime`] and [`Env`] traits. Production implements them over an io_uring runtime, the simulator over a seeded
//! executor with a virtual clock; the engine's code is the same in both.

use std::future::Future;
use std::pin::Pin;

use crate::disk::Disk;

/// A boxed task of the engine's own thread.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Time, tasks and randomness for one engine thread.
pub trait Runtime: Clone + 'static {
    /// Monotonic time in nanoseconds from an arbitrary start.
    fn now_ns(&self) -> u64;

    /// Wall-clock time in milliseconds since 1970, for events and commit times only; never for decisions.
    fn unix_ms(&self) -> u64;

    /// Completes after `ns` nanoseconds.
    fn sleep_ns(&self, ns: u64) -> impl Future<Output = ()> + 'static;

    /// Runs `task` to its end on this thread. Never runs it inside the call.
    fn spawn(&self, task: Task);

    /// The next random number; seeded in the simulator.
    fn random_u64(&self) -> u64;
}

/// The pair of types an array is generic over.
pub trait Env: 'static {
    /// The disks.
    type Disk: Disk;
    /// Time and tasks.
    type Runtime: Runtime;
}
