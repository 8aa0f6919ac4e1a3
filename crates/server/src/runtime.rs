//! The engine's view of the world in production: time, tasks and randomness over compio.
//!
//! Owns [`CompioRuntime`], [`ServerEnv`] and how the data thread's runtime is built. Invariant: a panic in any task of the data thread ends
//! the process. A broken invariant must not go on serving data; to the array it is one more power loss.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forestall_disk::{AnyDisk, InjectedDisk};
use forestall_engine::{Env, Runtime, Task};
use rustix::rand::GetRandomFlags;

/// Time, tasks and randomness of the thread that a compio runtime runs on.
#[derive(Clone)]
pub struct CompioRuntime {
    start: Instant,
}

/// What a served array is made of.
pub struct ServerEnv;

impl Env for ServerEnv {
    type Disk = InjectedDisk<AnyDisk>;
    type Runtime = CompioRuntime;
}

impl CompioRuntime {
    /// Time starts now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Runtime for CompioRuntime {
    fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos())
            .expect("a server runs for less than 584 years")
    }

    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn sleep_ns(&self, ns: u64) -> impl Future<Output = ()> + 'static {
        compio::time::sleep(Duration::from_nanos(ns))
    }

    fn spawn(&self, task: Task) {
        spawn(task);
    }

    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        let mut filled = 0;
        while filled < bytes.len() {
            // Up to 256 bytes are never interrupted once the system's pool is ready; before that a signal may come.
            match rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => panic!("the system has no randomness: {errno}"),
            }
        }
        u64::from_le_bytes(bytes)
    }
}

/// Runs `task` to its end on this thread; a panic in it ends the process.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    compio::runtime::spawn(crash_on_panic(task)).detach();
}

/// A runtime for the data thread, or for work on disks without a server.
///
/// # Errors
/// If the kernel gives neither io_uring nor epoll.
pub fn build() -> io::Result<compio::runtime::Runtime> {
    let mut proactor = compio::driver::ProactorBuilder::new();
    // Completions wait until the thread looks for them instead of interrupting it. Kernels before 6.0 refuse this.
    proactor.single_issuer(true).coop_taskrun(true).taskrun_flag(true);
    let built = compio::runtime::RuntimeBuilder::new().with_proactor(proactor).build();
    built.or_else(|_| compio::runtime::Runtime::new())
}

/// Polls `task` under a guard that ends the process if it panics.
async fn crash_on_panic(task: impl Future<Output = ()>) {
    let mut task = pin!(task);
    poll_fn(|cx| {
        let guard = AbortOnUnwind;
        let poll = task.as_mut().poll(cx);
        std::mem::forget(guard);
        poll
    })
    .await;
}

struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    /// Runs only while a panic unwinds; its message is out already.
    fn drop(&mut self) {
        std::process::abort();
    }
}
