//! A server from start to end: the two threads put together.
//!
//! Order: the management socket first (a second server on it must not touch a disk), then the data thread opens, assembles and
//! listens, then the start is told; until a signal, a request or the data thread's end stops it. The way down: no new
//! clients, drain, flush, a clean commit, disks closed; only then are requests to stop answered and the socket removed.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};
use thiserror::Error;

use crate::api::control::{Control, ControlThread};
use crate::api::socket::{ManagementSocket, SocketError};
use crate::data::{self, DataThread, StartError};
use crate::hook::{self, Hook};
use crate::listen::NbdAddr;
use crate::smart;

/// A signal that comes sooner than this after the first says the same thing twice: a service manager and a shell may both
/// tell a whole group of processes to end.
const SAME_WISH: Duration = Duration::from_secs(1);

/// Where lines for people go.
pub type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// How to serve.
pub struct ServeOptions {
    /// The disks, the exports' addresses and how to assemble.
    pub data: data::ServeOptions,
    /// The management socket.
    pub socket: PathBuf,
    /// The alert hook.
    pub hook: Option<Hook>,
    /// SIGTERM and SIGINT stop the server, one that comes a second or more after the first ends the process at once.
    pub handle_signals: bool,
}

/// What is known once clients may connect.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The management socket.
    pub socket: PathBuf,
    /// Where NBD clients connect.
    pub nbd: Vec<NbdAddr>,
}

/// Why a server did not start or did not end well.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The management socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The disks, the array or the exports' addresses.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The operating system gave no thread or signal handler.
    #[error("cannot start the server: {0}")]
    System(io::Error),
    /// The stop did not make everything durable.
    #[error("the array did not stop cleanly: {0}")]
    Stop(String),
}

// Not by `#[from]`: its text stands in ours already, and a cause is told again by whoever prints the chain.
impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// The address served when none is asked for: a unix socket beside the management socket, its extension `nbd`.
#[must_use]
pub fn default_nbd(socket: &std::path::Path) -> NbdAddr {
    NbdAddr::Unix(socket.with_extension("nbd"))
}

/// Serves until told to stop. `on_ready` is called once, when clients may connect.
///
/// # Errors
/// If the server cannot start; then no byte of any disk was changed by a refused start. If the stop was not clean.
pub fn serve(mut options: ServeOptions, on_ready: impl FnOnce(&Ready)) -> Result<(), ServeError> {
    let since_ms =
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let socket = ManagementSocket::bind(&options.socket)?;
    if options.data.nbd.is_empty() {
        options.data.nbd.push(default_nbd(&options.socket));
    }
    let (control, mut stop_requests) = Control::new(Arc::clone(&options.data.abort));
    let thread = ControlThread::start(Arc::clone(&control), &socket)?;
    let signals = match options.handle_signals.then(|| watch_signals(&control)) {
        Some(Err(error)) => {
            thread.finish(Err(error.to_string()));
            return Err(error.into());
        }
        Some(Ok(handle)) => Some(handle),
        None => None,
    };

    let log = Arc::clone(&options.data.log);
    let tell = Arc::clone(&control);
    let say = Arc::clone(&log);
    options.data.log = Arc::new(move |line| {
        tell.say_starting(line);
        say(line);
    });
    let ended = match DataThread::start(options.data) {
        Err(error) => {
            thread.finish(Err(format!("the server did not start: {error}")));
            Err(error.into())
        }
        Ok((data, notes)) => {
            notes.iter().for_each(|note| log(note));
            control.set_running(data.clone());
            let pump = Arc::clone(&control);
            thread.spawn(async move { pump.pump_events().await });
            thread.spawn(smart::watch("smartctl".into(), Arc::clone(&control), Arc::clone(&log)));
            if let Some(hook) = options.hook {
                thread.spawn(hook::run(hook, Arc::clone(&control), since_ms, Arc::clone(&log)));
            }
            on_ready(&Ready { socket: socket.path().to_owned(), nbd: data.nbd_addresses() });
            // The control thread holds a sender as long as we do; there is always somebody to ask us.
            stop_requests.blocking_recv();
            log("stopping: no new clients, draining and flushing");
            let stopped = data.stop_blocking();
            // Before anybody hears that it is over: the next server must find the place free.
            drop(socket);
            thread.finish(stopped.clone());
            stopped.map_err(ServeError::Stop)
        }
    };
    if let Some(handle) = signals {
        handle.close();
    }
    ended
}

fn watch_signals(control: &Arc<Control>) -> io::Result<Handle> {
    // A write beyond the limit of a file's size is an error of that write. Unhandled, the signal would end the server on top of it.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGXFSZ])?;
    let handle = signals.handle();
    let control = Arc::clone(control);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut first = None;
        for signal in signals.forever().filter(|signal| *signal != SIGXFSZ) {
            match asked(&mut first, Instant::now()) {
                Asked::Stop => control.request_stop(),
                Asked::Again => {}
                // The array is as after a crash and starts again as such.
                Asked::Now => std::process::exit(128 + signal),
            }
        }
    })?;
    Ok(handle)
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// To stop in good order.
    Stop,
    /// What was asked for already.
    Again,
    /// To end, whatever is under way: somebody has waited and is in a hurry.
    Now,
}

/// What a signal at `now` asks for; `first` is when the first one came.
fn asked(first: &mut Option<Instant>, now: Instant) -> Asked {
    match *first {
        None => {
            *first = Some(now);
            Asked::Stop
        }
        Some(since) if now.saturating_duration_since(since) < SAME_WISH => Asked::Again,
        Some(_) => Asked::Now,
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    #[test]
    fn what_the_operating_system_says_is_told_once() {
        let io = || io::Error::other("no thread to be had");
        let path = PathBuf::from("/m.sock");
        let errors: [Box<dyn Error>; 4] = [
            Box::new(ServeError::Socket(SocketError::Io { path, error: io() })),
            Box::new(ServeError::System(io())),
            Box::new(ServeError::Start(StartError::System(io()))),
            Box::new(crate::open::CreateFailure::Runtime(io())),
        ];
        for error in errors {
            // As the command line prints an error: with all its causes.
            let mut told = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                told += &format!(": {error}");
                cause = error.source();
            }
            assert_eq!(told.matches("no thread to be had").count(), 1, "{told}");
        }
    }

    #[test]
    fn only_a_signal_well_after_the_first_ends_the_server_at_once() {
        let start = Instant::now();
        let mut first = None;
        let mut at = |ms| asked(&mut first, start + Duration::from_millis(ms));
        assert_eq!(at(0), Asked::Stop);
        assert_eq!([at(0), at(20), at(999)], [Asked::Again; 3], "one wish told several times");
        assert_eq!(at(1000), Asked::Now, "counted from the first, not from the last");
    }
}
