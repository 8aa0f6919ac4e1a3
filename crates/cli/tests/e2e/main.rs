//! The real binary against clients that nobody here wrote, and against everything an administrator can do wrong.
//!
//! One test program. Each test has a fresh directory, sparse files for disks and sockets of its own, so all may run at once; every
//! server is killed when its test ends. Nothing sleeps in place of a condition: servers are waited for by their line `ready`,
//! work by `jobs --wait` and `status`, each with a deadline.
//!
//! A test that lacks a tool, root, `/dev/fuse` or a loop device prints `NOT TESTED: reason` and passes; `cargo xtask setup` installs
//! the tools. The crash tests run a few cycles; the full number is run by
//!
//! ```text
//! FORESTALL_KILL_CYCLES=200 cargo test -p forestall --test e2e crash -- --nocapture
//! FORESTALL_KILL_CYCLES=250 cargo test -p forestall --test e2e volatile -- --nocapture
//! ```

mod bad_clients;
mod bad_day;
mod bad_disks;
mod bad_requests;
mod block_devices;
mod clients;
mod commands;
mod crash;
mod diverged;
mod filesystems;
mod health;
mod levels;
mod life;
mod maintenance;
mod pairs;
mod restarts;
mod shield;
mod tools;
mod util;
mod volatile;
