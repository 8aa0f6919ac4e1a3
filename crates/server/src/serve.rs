//! A server from start to end: the two threads put together.
//!
//! Order: the management socket first (a second server on it must not touch a disk), then the data thread opens, assembles and
//! listens, then the start is told; until a signal, a request or the data thread's end stops it. The way down: no new
//! clients, drain, flush, a clean commit, disks closed; only then are requests to stop answered and the socket removed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};
use thiserror::Error;

use crate::api::control::{Control, ControlThread};
use crate::api::socket::{ManagementSocket, SocketError};
use crate::data::{self, DataThread, StartError};
use crate::hook::{self, Hook};
use crate::listen::NbdAddr;

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
    /// SIGTERM and SIGINT stop the server, a second one ends the process at once.
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
    System(#[from] std::io::Error),
    /// The stop did not make everything durable.
    #[error("the array did not stop cleanly: {0}")]
    Stop(String),
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

fn watch_signals(control: &Arc<Control>) -> std::io::Result<Handle> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let handle = signals.handle();
    let control = Arc::clone(control);
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut told = false;
        for signal in signals.forever() {
            if told {
                // Somebody is in a hurry; the array is as after a crash and starts again as such.
                std::process::exit(128 + signal);
            }
            told = true;
            control.request_stop();
        }
    })?;
    Ok(handle)
}
