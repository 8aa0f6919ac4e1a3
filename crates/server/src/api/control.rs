//! The control thread: one tokio runtime beside the data thread.
//!
//! Owns the server's phase (starting, running, stopped) as the handlers see it, and the only waiter for events: one pump
//! publishes the newest sequence, so that clients that come and go leave nothing behind on the data thread.
//! Invariant: a request to stop is answered only after the data thread has let go of every disk.

use std::future::Future;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};

use super::connections;
use super::error::ApiError;
use super::routes;
use super::socket::ManagementSocket;
use super::types::ErrorKind;
use crate::data::{Context, DataThread, Stopped};

/// How long the thread waits for open connections to end once everything else has.
const GOODBYE: Duration = Duration::from_secs(2);

/// How the server ended: nothing while it runs.
pub type Ended = Option<Result<(), String>>;

/// What every handler shares.
pub struct Control {
    /// Set once the array is assembled.
    data: OnceLock<DataThread>,
    /// What the start is at, for those who ask meanwhile.
    starting: Mutex<String>,
    /// Newest event sequence known.
    newest: watch::Sender<u64>,
    ended: watch::Sender<Ended>,
    /// Gives up a start that still waits for disks.
    abort: Arc<AtomicBool>,
    stop: mpsc::UnboundedSender<()>,
}

impl Control {
    /// A control plane whose server is starting. A request to stop sets `abort` and arrives at the receiver.
    #[must_use]
    pub fn new(abort: Arc<AtomicBool>) -> (Arc<Self>, mpsc::UnboundedReceiver<()>) {
        let (stop, stop_requests) = mpsc::unbounded_channel();
        let control = Self {
            data: OnceLock::new(),
            starting: Mutex::new(String::new()),
            newest: watch::Sender::new(0),
            ended: watch::Sender::new(None),
            abort,
            stop,
        };
        (Arc::new(control), stop_requests)
    }

    /// Notes what the start is at.
    pub fn say_starting(&self, line: &str) {
        line.clone_into(&mut self.starting.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Requests are answered by `data` from now on.
    pub fn set_running(&self, data: DataThread) {
        assert!(self.data.set(data).is_ok(), "a server starts once");
    }

    /// Asks the server to stop; to ask again changes nothing.
    pub fn request_stop(&self) {
        self.abort.store(true, Ordering::Release);
        // Nobody listens any more once the server stops: then there is nothing to ask for.
        let _ = self.stop.send(());
    }

    /// The server has ended; lets waiting requests go.
    pub fn set_ended(&self, how: Result<(), String>) {
        self.ended.send_replace(Some(how));
    }

    /// Completes when the server has ended.
    pub async fn wait_ended(&self) -> Result<(), String> {
        let mut ended = self.ended.subscribe();
        let how = ended.wait_for(Option::is_some).await.expect("the sender lives as long as self");
        how.clone().expect("waited for")
    }

    /// The data thread.
    ///
    /// # Errors
    /// While the server is starting.
    pub fn data(&self) -> Result<&DataThread, ApiError> {
        self.data.get().ok_or_else(|| {
            let line = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
            let what = if line.is_empty() { "opening disks" } else { line.as_str() };
            ApiError::new(ErrorKind::Starting, format!("the server is starting: {what}"))
        })
    }

    /// Runs `f` on the data thread and awaits its answer.
    ///
    /// # Errors
    /// While the server is starting or once it is stopping.
    pub async fn run<T, F, Fut>(&self, f: F) -> Result<T, ApiError>
    where
        F: FnOnce(Rc<Context>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        Ok(self.data()?.run(f).await?)
    }

    /// Completes when an event above `after` is there, or the server ends, or `limit` is over.
    pub async fn wait_event(&self, after: u64, limit: Duration) {
        let mut newest = self.newest.subscribe();
        tokio::select! {
            _ = newest.wait_for(|newest| *newest > after) => {}
            _ = self.wait_ended() => {}
            () = tokio::time::sleep(limit) => {}
        }
    }

    /// Publishes the newest sequence until the data thread is gone.
    pub async fn pump_events(&self) {
        let Ok(data) = self.data() else { return };
        let mut seen = 0;
        loop {
            let newest: Result<u64, Stopped> = data
                .run(move |context| async move {
                    context.array.wait_event(seen).await;
                    context.array.events_after(seen).last().map_or(seen, |event| event.sequence)
                })
                .await;
            let Ok(newest) = newest else { return };
            seen = newest;
            self.newest.send_replace(newest);
        }
    }
}

/// The running control thread.
pub struct ControlThread {
    control: Arc<Control>,
    runtime: Handle,
    /// Held by each task in the background; the thread ends when all are gone, or after [`GOODBYE`].
    alive: mpsc::Sender<()>,
    thread: JoinHandle<()>,
}

impl ControlThread {
    /// Starts answering on `socket`.
    ///
    /// # Errors
    /// If the operating system gives no thread or runtime.
    pub fn start(control: Arc<Control>, socket: &ManagementSocket) -> std::io::Result<Self> {
        let listener = socket.listener()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (alive, all_gone) = mpsc::channel(1);
        let shared = Arc::clone(&control);
        let thread = std::thread::Builder::new()
            .name("control".into())
            .spawn(move || runtime.block_on(answer(listener, shared, all_gone)))?;
        Ok(Self { control, runtime: handle, alive, thread })
    }

    /// Runs `task` on the control thread; the end of the server waits for it, but not long.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let alive = self.alive.clone();
        self.runtime.spawn(async move {
            task.await;
            drop(alive);
        });
    }

    /// Answers what still waits and ends the thread.
    pub fn finish(self, how: Result<(), String>) {
        self.control.set_ended(how);
        drop(self.alive);
        self.thread.join().expect("the control thread does not panic");
    }
}

/// Serves the API until the server has ended and its last requests are answered.
async fn answer(listener: UnixListener, control: Arc<Control>, mut all_gone: mpsc::Receiver<()>) {
    let listener = tokio::net::UnixListener::from_std(listener).expect("a listening socket");
    let ended = || {
        let control = Arc::clone(&control);
        async move {
            // How it ended is what the handlers answer.
            let _ = control.wait_ended().await;
        }
    };
    let served = connections::serve(listener, routes::router(Arc::clone(&control)), ended);
    let last_words = async {
        served.await;
        all_gone.recv().await;
    };
    let goodbye = async {
        let _ = control.wait_ended().await;
        tokio::time::sleep(GOODBYE).await;
    };
    tokio::select! {
        () = last_words => {}
        () = goodbye => {}
    }
}
