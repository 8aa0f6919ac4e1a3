//! The data thread: one array, its disks and its clients on one runtime.
//!
//! Owns the thread's life from opening the disks to letting them go, and the way in from other threads ([`DataThread::run`]). Invariants: only
//! this thread touches the array; work that was handed in runs to its end even if nobody waits for it; after
//! [`DataThread::stop`] returned the disks are closed.

mod disks;
mod start;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use async_channel::{Receiver, Sender};
use forestall_engine::{Array, AssembleOptions, CreateGroup, VolumeHandle, VolumeReport, words};
use forestall_nbd::{BlockSizes, ExportInfo, Exports};
use thiserror::Error;

use crate::listen::{Bound, ListenError, Listener, NbdAddr, Plane};
use crate::open::IoChoice;
use crate::open::owner::Keeper;
use crate::runtime::{self, CompioRuntime, ServerEnv, spawn};
use crate::session::Catalog;

pub use disks::DiskError;
pub use start::StartError;

/// How long a stop waits for clients to take their answers.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Commands from other threads that wait to be begun.
const COMMANDS_MAX: usize = 64;

/// What to serve.
pub struct ServeOptions {
    /// The disks; all of them `memory:SIZE`, or none.
    pub paths: Vec<String>,
    /// Folders in which disks are looked for.
    pub scan: Vec<PathBuf>,
    /// Where clients connect.
    pub nbd: Vec<NbdAddr>,
    /// How disks are used.
    pub io: IoChoice,
    /// How to assemble.
    pub assemble: AssembleOptions,
    /// Seconds to wait for disks that are missing.
    pub wait_s: u64,
    /// What to make of disks in memory; without, a RAID 0 and the volume `memory` over all of it.
    pub memory: Option<CreateGroup>,
    /// Takes lines for people.
    pub log: Arc<dyn Fn(&str) + Send + Sync>,
    /// Set by others to give up waiting.
    pub abort: Arc<AtomicBool>,
}

/// The data thread has ended or is ending.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the server is stopping")]
pub struct Stopped;

/// Work for the data thread.
type Command = Box<dyn FnOnce(Rc<Context>) -> Pin<Box<dyn Future<Output = ()>>> + Send>;

/// A handle to the data thread; clones are handles to the same one.
#[derive(Clone)]
pub struct DataThread {
    commands: Sender<Command>,
    stop: Sender<()>,
    /// Closed once the thread is gone.
    gone: Receiver<()>,
    ended: Arc<Mutex<Result<(), String>>>,
    addresses: Arc<[NbdAddr]>,
}

/// What work on the data thread can reach.
pub struct Context {
    /// The array.
    pub array: Rc<Array<ServerEnv>>,
    /// Its time and tasks.
    pub runtime: CompioRuntime,
    io: IoChoice,
    keeper: Rc<Keeper>,
    plane: Rc<Plane<Volumes>>,
    log: Arc<dyn Fn(&str) + Send + Sync>,
}

impl DataThread {
    /// Opens the disks, takes ownership, assembles, starts and listens. Blocks until clients may connect; answers what
    /// people should know, too.
    ///
    /// # Errors
    /// [`StartError`]; then everything that was opened is closed again.
    pub fn start(options: ServeOptions) -> Result<(Self, Vec<String>), StartError> {
        let (commands, queue) = async_channel::bounded(COMMANDS_MAX);
        let (stop, stopping) = async_channel::bounded(1);
        let (going, gone) = async_channel::bounded(1);
        let (ready, started) = mpsc::channel();
        let ended = Arc::new(Mutex::new(Ok(())));
        let outcome = Arc::clone(&ended);
        thread::Builder::new().name("data".into()).spawn(move || {
            let ended = live(options, &queue, &stopping, &ready);
            *outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = ended;
            drop(going);
        })?;
        match started.recv() {
            Ok(Ok((addresses, notes))) => {
                let addresses: Arc<[NbdAddr]> = addresses.into();
                Ok((Self { commands, stop, gone, ended, addresses }, notes))
            }
            Ok(Err(error)) => {
                // It is on its way out: what it opened is closed when this returns.
                let _closed = gone.recv_blocking();
                Err(error)
            }
            Err(mpsc::RecvError) => unreachable!("a panic of the data thread ends the process"),
        }
    }

    /// Runs `f` on the data thread and answers what it answers.
    ///
    /// # Errors
    /// [`Stopped`] once the thread is ending; then `f` may have been begun or not.
    pub async fn run<T, F, Fut>(&self, f: F) -> Result<T, Stopped>
    where
        F: FnOnce(Rc<Context>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (command, answer) = command(f);
        self.commands.send(command).await.map_err(|_| Stopped)?;
        answer.recv().await.map_err(|_| Stopped)
    }

    /// As [`DataThread::run`], for threads without a runtime.
    ///
    /// # Errors
    /// As [`DataThread::run`].
    pub fn run_blocking<T, F, Fut>(&self, f: F) -> Result<T, Stopped>
    where
        F: FnOnce(Rc<Context>) -> Fut + Send + 'static,
        Fut: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        let (command, answer) = command(f);
        self.commands.send_blocking(command).map_err(|_| Stopped)?;
        answer.recv_blocking().map_err(|_| Stopped)
    }

    /// Orderly stop: no new clients, no new requests, those under way answered, array stopped, disks closed. Returns when the thread
    /// is gone; to ask again waits for the same end.
    ///
    /// # Errors
    /// What could not be made durable.
    pub async fn stop(&self) -> Result<(), String> {
        // Full or closed: somebody asked before.
        let _asked = self.stop.try_send(());
        let _gone = self.gone.recv().await;
        self.outcome()
    }

    /// As [`DataThread::stop`], for threads without a runtime.
    ///
    /// # Errors
    /// As [`DataThread::stop`].
    pub fn stop_blocking(&self) -> Result<(), String> {
        let _asked = self.stop.try_send(());
        let _gone = self.gone.recv_blocking();
        self.outcome()
    }

    fn outcome(&self) -> Result<(), String> {
        self.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Where clients connect, with the real ports.
    pub fn nbd_addresses(&self) -> Vec<NbdAddr> {
        self.addresses.to_vec()
    }
}

fn command<T, F, Fut>(f: F) -> (Command, Receiver<T>)
where
    F: FnOnce(Rc<Context>) -> Fut + Send + 'static,
    Fut: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (answer, answered) = async_channel::bounded(1);
    let command: Command = Box::new(move |context| {
        let work = f(context);
        Box::pin(async move {
            let result = work.await;
            // Whoever asked may have gone; the work is done all the same.
            let _gone = answer.try_send(result);
        })
    });
    (command, answered)
}

impl Context {
    /// Volumes came, went or changed their names: clients see it when they connect; nothing is kept that could be stale.
    pub fn exports_changed(&self) {}

    /// Connected clients.
    pub fn sessions(&self) -> usize {
        self.plane.sessions()
    }
}

/// The thread's whole life.
fn live(
    options: ServeOptions,
    queue: &Receiver<Command>,
    stopping: &Receiver<()>,
    ready: &mpsc::Sender<Result<(Vec<NbdAddr>, Vec<String>), StartError>>,
) -> Result<(), String> {
    let tell = |started| ready.send(started).expect("start waits for this");
    let runtime = match runtime::build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(Err(error.into()));
            return Ok(());
        }
    };
    runtime.block_on(async {
        let (context, listeners, notes) = match begin(&options).await {
            Ok(begun) => begun,
            Err(error) => {
                tell(Err(error));
                return Ok(());
            }
        };
        let addresses = listeners.iter().map(|(addr, _)| addr.clone()).collect();
        tell(Ok((addresses, notes)));
        serve_commands(&context, queue, stopping).await;
        end(&context, listeners).await
    })
    // Dropping the runtime drops what is left of tasks, and with it the last handles to the disks.
}

/// From paths to listening sockets.
async fn begin(
    options: &ServeOptions,
) -> Result<(Rc<Context>, Vec<(NbdAddr, Listener)>, Vec<String>), StartError> {
    // Before any disk is touched: an address that is taken is a server that runs already.
    let bound: Vec<Bound> =
        options.nbd.iter().map(Bound::bind).collect::<Result<_, ListenError>>()?;
    let clock = CompioRuntime::new();
    let log = Arc::clone(&options.log);
    let (array, opened, notes) = start::assemble(options, &clock).await?;
    let say = Arc::clone(&log);
    let plane = Plane::new(Volumes(Rc::clone(&array)), move |line| say(line));
    let say = Arc::clone(&log);
    let keeper = Keeper::new(&clock, Rc::clone(&plane.limits), move |line| say(line));
    opened.into_iter().for_each(|disk| keeper.keep(disk));
    keeper.start().await;
    array.start();
    let mut listeners = Vec::new();
    for bound in bound {
        let addr = bound.addr();
        listeners.push((addr, plane.listen(bound)?));
    }
    let context = Context { array, runtime: clock, io: options.io, keeper, plane, log };
    Ok((Rc::new(context), listeners, notes))
}

/// Begins each command as it comes, until the stop.
async fn serve_commands(context: &Rc<Context>, queue: &Receiver<Command>, stopping: &Receiver<()>) {
    let working = Rc::clone(context);
    let commands = queue.clone();
    let loop_ = compio::runtime::spawn(async move {
        while let Ok(command) = commands.recv().await {
            spawn(command(Rc::clone(&working)));
        }
    });
    // Closed, if every handle is gone: nobody can ask any more, which is a stop as well.
    let _asked = stopping.recv().await;
    drop(loop_);
    // Whoever asked and was not begun hears so; what stayed in the queue would keep them waiting as long as there are handles.
    queue.close();
    while queue.try_recv().is_ok() {}
}

/// The way down.
async fn end(context: &Rc<Context>, listeners: Vec<(NbdAddr, Listener)>) -> Result<(), String> {
    drop(listeners);
    let left = context.plane.drain(DRAIN_MAX).await;
    if left > 0 {
        let bytes = context.plane.limits.used();
        (context.log)(&format!(
            "{} did not take the last answers in time ({})",
            words::counted(left as u64, "client"),
            words::bytes(bytes)
        ));
    }
    let stopped = context.array.stop().await.map_err(|error| error.to_string());
    context.keeper.release().await;
    stopped
}

/// The volumes of the array, as exports.
struct Volumes(Rc<Array<ServerEnv>>);

impl Volumes {
    /// Work volumes and secondaries are no host's business.
    fn served(&self) -> Vec<VolumeReport> {
        self.0.volumes().into_iter().filter(|volume| !volume.reserved).collect()
    }

    fn info(volume: &VolumeReport) -> ExportInfo {
        ExportInfo {
            read_only: volume.read_only,
            description: format!("volume {} in group {}", volume.number, volume.group),
            block_sizes: BlockSizes::default(),
            ..ExportInfo::new(volume.name.clone(), volume.size)
        }
    }
}

impl Exports for Volumes {
    fn list(&self) -> Vec<ExportInfo> {
        self.served().iter().map(Self::info).collect()
    }

    /// The empty name stands for the only volume, if there is only one.
    fn find(&self, name: &str) -> Option<ExportInfo> {
        let volumes = self.served();
        match (name, &volumes[..]) {
            ("", [only]) => Some(Self::info(only)),
            _ => volumes.iter().find(|volume| volume.name == name).map(Self::info),
        }
    }
}

impl Catalog for Volumes {
    type Export = VolumeHandle<ServerEnv>;

    fn open(&self, name: &str) -> Option<Self::Export> {
        self.0.open_volume(name).filter(|volume| !volume.info().reserved)
    }
}

#[cfg(test)]
mod tests;
