//! From paths to an assembled array.
//!
//! Owns which paths are opened and how long missing ones are waited for. Invariants: a disk that another server has is a refusal,
//! never a missing disk; a disk that is missing or cannot be opened otherwise is left out and said aloud, and the
//! engine decides whether the rest is enough (rule C4).

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use forestall_disk::OwnError;
use forestall_engine::{
    Array, AssembleError, CreateError, CreateGroup, CreateSpec, JournalMode, Level,
};
use thiserror::Error;

use super::ServeOptions;
use crate::listen::ListenError;
use crate::open::{self, OpenError, Opened, memory_size};
use crate::runtime::{CompioRuntime, ServerEnv};

/// How often missing disks are looked for, and an abort is noticed.
const LOOK: Duration = Duration::from_millis(200);

/// Why a server did not start. No byte of any array was changed.
#[derive(Debug, Error)]
pub enum StartError {
    /// A disk is not to be had.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A folder cannot be read.
    #[error("{path}: cannot look for disks: {error}; --scan takes folders, disks stand before it")]
    Scan {
        /// The folder.
        path: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// Nothing to serve was given or found.
    #[error("there is no disk to serve: {0}")]
    NoDisks(String),
    /// The engine refused.
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    /// No array could be made of the disks in memory.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// Disks in memory together with others.
    #[error("disks in memory cannot be mixed with others: {0}")]
    MixedMemory(String),
    /// An address is not to be had.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Somebody asked to stop before it began.
    #[error("stopped while waiting for disks")]
    Aborted,
    /// No thread, no runtime, or no socket to be had.
    #[error("the operating system refuses: {0}")]
    System(io::Error),
}

// Not by `#[from]`: its text stands in ours already, and a cause is told again by whoever prints the chain.
impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

type Assembled = (Rc<Array<ServerEnv>>, Vec<Opened>, Vec<String>);

/// Opens, owns and assembles; answers what people should know, too.
pub async fn assemble(
    options: &ServeOptions,
    clock: &CompioRuntime,
) -> Result<Assembled, StartError> {
    let in_memory = options.paths.iter().filter(|path| memory_size(path).is_some()).count();
    if in_memory > 0 {
        if in_memory < options.paths.len() || !options.scan.is_empty() {
            return Err(StartError::MixedMemory(options.paths.join(", ")));
        }
        return make_in_memory(options, clock).await;
    }
    let deadline = Instant::now() + Duration::from_secs(options.wait_s);
    let mut told = String::new();
    loop {
        let last = Instant::now() >= deadline;
        match attempt(options, clock, last).await? {
            Attempt::Done(assembled) => return Ok(assembled),
            Attempt::Wait(why) if why != told => {
                (options.log)(&format!("waiting for disks: {why}"));
                told = why;
            }
            Attempt::Wait(_) => {}
        }
        compio::time::sleep(LOOK).await;
        if options.abort.load(Ordering::Acquire) {
            return Err(StartError::Aborted);
        }
    }
}

enum Attempt {
    Done(Assembled),
    /// Not everything is there yet, for this reason.
    Wait(String),
}

/// One round of opening and assembling. Unless it is the `last`, anything missing is a reason to wait.
async fn attempt(
    options: &ServeOptions,
    clock: &CompioRuntime,
    last: bool,
) -> Result<Attempt, StartError> {
    let mut paths = options.paths.clone();
    let scanned = open::scan(&options.scan)
        .map_err(|(dir, error)| StartError::Scan { path: dir.display().to_string(), error })?;
    open::distinct::check(&paths)?;
    open::distinct::add_scanned(&mut paths, scanned);
    let (mut disks, mut absent) = (Vec::<Opened>::new(), Vec::new());
    for path in &paths {
        match open::open(path, options.io).await {
            Ok(opened) => disks.push(opened),
            Err(OpenError::Own(error @ OwnError::InUse { .. })) => {
                return Err(OpenError::Own(error).into());
            }
            Err(error) => absent.push(error.to_string()),
        }
    }
    if !absent.is_empty() && !last {
        return Ok(Attempt::Wait(absent.join("; ")));
    }
    if disks.is_empty() {
        let why = if absent.is_empty() {
            "none was given, and none was found".into()
        } else {
            absent.join("; ")
        };
        return if last { Err(StartError::NoDisks(why)) } else { Ok(Attempt::Wait(why)) };
    }
    open::owner::watch(&disks, &|line| (options.log)(line)).await?;
    let new = disks.iter().map(Opened::new_disk).collect();
    match Array::assemble(clock.clone(), new, options.assemble.clone()).await {
        Ok(array) => {
            let mut notes = absent;
            notes.extend(disks.iter().filter_map(|disk| disk.note.clone()));
            notes.extend(not_used(&array));
            // What the array did not take (another array's, or one that diverged) is nothing that this server may write to.
            disks.retain(|opened| opened.disk.is_shared());
            Ok(Attempt::Done((array, disks, notes)))
        }
        Err((AssembleError::TooFew(why) | AssembleError::WriteHole(why), _)) if !last => {
            Ok(Attempt::Wait(why))
        }
        Err((error, _)) => {
            // What could not be opened may be what the refusal misses.
            absent.iter().for_each(|line| (options.log)(line));
            Err(error.into())
        }
    }
}

/// What this start found on the paths given and does not use: a path without a label, a disk that is stale or went its own way.
fn not_used(array: &Array<ServerEnv>) -> Vec<String> {
    let events = array.events_after(0);
    let start = events.iter().rposition(|event| event.kind == "array-started");
    let of_this_start = events.into_iter().skip(start.unwrap_or(0));
    let kinds = ["disk-ignored", "disk-returned", "disk-diverged"];
    of_this_start.filter(|e| kinds.contains(&e.kind.as_str())).map(|e| e.message).collect()
}

/// Makes an array of disks in memory and assembles it from other handles to the same disks.
async fn make_in_memory(
    options: &ServeOptions,
    clock: &CompioRuntime,
) -> Result<Assembled, StartError> {
    let mut disks = Vec::new();
    for (index, path) in options.paths.iter().enumerate() {
        let mut opened = open::open_now(path, options.io)?;
        // Told apart although they may be of one size.
        opened.identity.path = format!("{path}#{}", index + 1);
        disks.push(opened);
    }
    let default = CreateGroup {
        level: Level::Raid0,
        chunk: 64 << 10,
        journal: JournalMode::Off,
        checksums: false,
        spares: 0,
        volume: Some("memory".into()),
    };
    let group = options.memory.clone().unwrap_or(default);
    let spec = CreateSpec { name: "memory".into(), allow_injection: true, group: Some(group) };
    let handles = || disks.iter().map(Opened::new_disk).collect::<Vec<_>>();
    let mut notes = Array::<ServerEnv>::create(clock.clone(), spec, handles()).await?;
    notes.push("the disks are in memory: everything is lost when this server ends".into());
    let array = Array::assemble(clock.clone(), handles(), options.assemble.clone())
        .await
        .map_err(|(error, _)| error)?;
    Ok((array, disks, notes))
}
