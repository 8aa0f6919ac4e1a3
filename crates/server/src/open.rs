//! From paths to disks: opening, owning, looking before taking.
//!
//! Owns what a path may be (`memory:SIZE`, a file, a block device), the choice of a backend, and the checks that keep other people's
//! data whole. Invariants: a disk that is handed out is owned (rule C6); nothing foreign is given to the engine
//! to be overwritten unless that was asked for. Who owned a disk from another machine is `open/owner.rs`'s matter, which
//! paths lead to one disk `open/distinct.rs`'s.

pub mod distinct;
pub mod owner;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::time::{Duration, Instant};

use forestall_disk::{
    Access, AnyDisk, Content, InjectedDisk, MemoryDisk, OwnError, OwnedFile, PROBE_LEN, PreadDisk,
    create_sparse, probe,
};
use forestall_engine::format::label::{Label, LabelError};
use forestall_engine::words::exact;
use forestall_engine::{
    Array, BLOCK_SIZE, Buf, CreateError, CreateSpec, Disk, DiskFault, DiskIdentity, NewDisk, Notes,
};
use thiserror::Error;

use crate::runtime::{self, CompioRuntime, ServerEnv};

/// How long a disk or a socket may still be held by a server that is gone: the kernel tears the io_uring of a killed process
/// down after the process, and until then requests under way keep what they use open.
pub const DYING_MAX: Duration = Duration::from_secs(2);

/// Pause between two tries to have what a dying server still holds.
const RETRY: Duration = Duration::from_millis(20);

/// How files and devices are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IoChoice {
    /// io_uring with O_DIRECT, as far as both are to be had.
    #[default]
    Uring,
    /// `pread` and `pwrite` on threads.
    Pread,
}

impl FromStr for IoChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "uring" => Ok(Self::Uring),
            "pread" => Ok(Self::Pread),
            _ => Err(format!("{text:?} is no way to use disks: give uring or pread")),
        }
    }
}

impl fmt::Display for IoChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uring => "uring",
            Self::Pread => "pread",
        })
    }
}

/// Why a disk was not opened. No byte of it was changed.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is nothing, nobody may have it, or it is no disk.
    #[error(transparent)]
    Own(#[from] OwnError),
    /// One disk under two names, or one name twice.
    #[error("{}", twice_words(.path, .first))]
    Twice {
        /// The second name.
        path: String,
        /// The first.
        first: String,
    },
    /// A server on another machine keeps it.
    #[error("{path}: in use by a server on another machine, which is alive; stop that one first")]
    Elsewhere {
        /// The disk's path.
        path: String,
    },
    /// Nothing there, and nobody said how large a new file shall be.
    #[error("{path}: no such file; give --size SIZE to make it")]
    NoSize {
        /// The disk's path.
        path: String,
    },
    /// Smaller than asked for.
    #[error("{path}: has {}, less than the {} asked for", exact(*.size), exact(*.wanted))]
    Small {
        /// The disk's path.
        path: String,
        /// Its size in bytes.
        size: u64,
        /// What was asked for, in bytes.
        wanted: u64,
    },
    /// Somebody's data.
    #[error("{path}: holds {what}; it would be overwritten; give --force if that is what you want")]
    Foreign {
        /// The disk's path.
        path: String,
        /// What is on it.
        what: String,
    },
    /// Not ours, where only ours makes sense.
    #[error("{path}: holds no Forestall label; nothing was changed")]
    NotOurs {
        /// The disk's path.
        path: String,
    },
    /// A size that cannot be read, or a disk in memory where it makes no sense.
    #[error("{path}: {why}")]
    Memory {
        /// What was given.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The disk failed while it was looked at.
    #[error("{path}: {fault}")]
    Fault {
        /// The disk's path.
        path: String,
        /// What failed.
        fault: DiskFault,
    },
    /// The operating system refused something else.
    #[error("{path}: {error}")]
    Io {
        /// The disk's path.
        path: String,
        /// What it says.
        error: io::Error,
    },
}

fn twice_words(path: &str, first: &str) -> String {
    if path == first {
        return format!("{path}: given twice; leave one of them out");
    }
    format!("{first} and {path} are the same disk, given twice; leave one of them out")
}

impl OpenError {
    /// Whether there is simply nothing at the path.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Own(OwnError::NotFound(_)))
    }
}

/// Why no array was created.
#[derive(Debug, Error)]
pub enum CreateFailure {
    /// A path could not be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The engine refused.
    #[error(transparent)]
    Create(#[from] CreateError),
    /// No runtime to work in.
    #[error("cannot do I/O here: {0}")]
    Runtime(io::Error),
}

// Not by `#[from]`: its text stands in ours already, and a cause is told again by whoever prints the chain.
impl From<io::Error> for CreateFailure {
    fn from(error: io::Error) -> Self {
        Self::Runtime(error)
    }
}

/// An open, owned disk. Clones are handles to the same disk.
#[derive(Clone)]
pub struct Opened {
    /// The disk.
    pub disk: InjectedDisk<AnyDisk>,
    /// Where it is.
    pub identity: DiskIdentity,
    /// What a person should know about how it is used.
    pub note: Option<String>,
}

impl Opened {
    /// For the engine.
    pub fn new_disk(&self) -> NewDisk<ServerEnv> {
        NewDisk { disk: self.disk.clone(), identity: self.identity.clone() }
    }

    fn path(&self) -> String {
        self.identity.path.clone()
    }

    async fn read(&self, offset: u64, len: u64) -> Result<Buf, OpenError> {
        let len = usize::try_from(len).expect("small reads");
        let (result, buf) = self.disk.read(offset, Buf::zeroed(len)).await;
        result.map_err(|fault| OpenError::Fault { path: self.path(), fault })?;
        Ok(buf)
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), OpenError> {
        let result = self.disk.write(offset, buf).await;
        result.map_err(|fault| OpenError::Fault { path: self.path(), fault })
    }

    /// The label at the start, or else its copy at the end; `Err` of the first where neither is whole.
    pub async fn label(&self) -> Result<Result<Label, LabelError>, OpenError> {
        let size = self.disk.size();
        if size < 2 * BLOCK_SIZE {
            return Ok(Err(LabelError::NotOurs));
        }
        let first = self.read(0, BLOCK_SIZE).await.map(|block| Label::decode(&block));
        match first {
            Ok(Ok(label)) => return Ok(Ok(label)),
            Ok(Err(LabelError::TooNew(_))) => return first,
            Ok(Err(_)) | Err(_) => {}
        }
        match self.read(size - BLOCK_SIZE, BLOCK_SIZE).await.map(|block| Label::decode(&block)) {
            Ok(Err(LabelError::NotOurs)) | Err(_) => first,
            copy => copy,
        }
    }

    /// What would be lost if the disk were taken, in words.
    async fn content(&self) -> Result<Option<String>, OpenError> {
        match self.label().await? {
            Ok(label) => {
                let number = label.number;
                return Ok(Some(format!("disk {number} of the array {:?}", label.name)));
            }
            Err(LabelError::NotOurs) => {}
            Err(error) => return Ok(Some(format!("a disk of a Forestall array ({error})"))),
        }
        let size = self.disk.size();
        let len = size.min(PROBE_LEN as u64);
        let (head, tail) = (self.read(0, len).await?, self.read(size - len, len).await?);
        Ok(Content::describe(probe(&head, &tail, size)).map(Into::into))
    }
}

/// The size in a path of the form `memory:SIZE`; `None` for other paths.
pub fn memory_size(path: &str) -> Option<Result<u64, String>> {
    let text = path.strip_prefix("memory:")?;
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let unit: Option<u64> = match &text[digits..] {
        "" | "B" => Some(1),
        "KiB" | "K" => Some(1 << 10),
        "MiB" | "M" => Some(1 << 20),
        "GiB" | "G" => Some(1 << 30),
        "TiB" | "T" => Some(1 << 40),
        "kB" | "KB" => Some(1000),
        "MB" => Some(1_000_000),
        "GB" => Some(1_000_000_000),
        "TB" => Some(1_000_000_000_000),
        _ => None,
    };
    let size = text[..digits].parse::<u64>().ok().zip(unit);
    let size = size.and_then(|(number, unit)| number.checked_mul(unit));
    Some(size.filter(|size| *size <= 1 << 46).ok_or_else(|| {
        format!("{text:?} is no size for a disk in memory; give memory:512MiB or the like")
    }))
}

/// Opens what is at `path` and takes ownership of it on this machine; waits up to [`DYING_MAX`] for a server that is dying.
///
/// # Errors
/// [`OpenError`], naming the path.
pub async fn open(path: &str, io: IoChoice) -> Result<Opened, OpenError> {
    open_within(path, io, DYING_MAX).await
}

async fn open_within(path: &str, io: IoChoice, patience: Duration) -> Result<Opened, OpenError> {
    once_let_go(patience, || open_now(path, io)).await
}

/// What `open` answers once no other process has the disk, or has had it for `patience`.
async fn once_let_go<T>(
    patience: Duration,
    open: impl Fn() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let deadline = Instant::now() + patience;
    loop {
        match open() {
            Err(OpenError::Own(OwnError::InUse { .. })) if Instant::now() < deadline => {
                compio::time::sleep(RETRY).await;
            }
            result => return result,
        }
    }
}

/// As [`open`], without waiting.
///
/// # Errors
/// As [`open`].
pub fn open_now(path: &str, io: IoChoice) -> Result<Opened, OpenError> {
    let identity = DiskIdentity { path: path.into(), ..DiskIdentity::default() };
    if let Some(size) = memory_size(path) {
        let size = size.map_err(|why| OpenError::Memory { path: path.into(), why })?;
        let disk = InjectedDisk::new(AnyDisk::Memory(MemoryDisk::new(size)));
        return Ok(Opened { disk, identity, note: None });
    }
    let file = OwnedFile::open(Path::new(path), Access::ReadWrite)?;
    let identity = file.identity().clone();
    let failed = |error| OpenError::Io { path: path.into(), error };
    let (disk, note) = match io {
        IoChoice::Uring => AnyDisk::uring_or_pread(file).map_err(failed)?,
        IoChoice::Pread => (AnyDisk::Pread(PreadDisk::new(file).map_err(failed)?), None),
    };
    let note = note.map(|note| format!("{path}: {note}"));
    Ok(Opened { disk: InjectedDisk::new(disk), identity, note })
}

/// Opens what is at `path` for reading only; waits as [`open`] does. Nobody else may have it meanwhile.
///
/// # Errors
/// As [`open`].
pub async fn open_read_only(path: &str) -> Result<(Rc<PreadDisk>, DiskIdentity), OpenError> {
    let open = || Ok(OwnedFile::open(Path::new(path), Access::Read)?);
    let file = once_let_go(DYING_MAX, open).await?;
    let identity = file.identity().clone();
    let failed = |error| OpenError::Io { path: path.into(), error };
    Ok((Rc::new(PreadDisk::new(file).map_err(failed)?), identity))
}

/// Opens disks that will be labelled: makes missing files sparse with `size`, and refuses what holds somebody's data unless `force` says otherwise. Those
/// that another machine may be using are watched together, which `tell` says.
///
/// # Errors
/// [`OpenError`], naming the path. Files that were made are removed again.
pub async fn open_new(
    paths: &[impl AsRef<str>],
    io: IoChoice,
    size: Option<u64>,
    force: bool,
    tell: &dyn Fn(&str),
) -> Result<Vec<New>, OpenError> {
    let mut new = Vec::new();
    for path in paths {
        new.push(open_to_label(path.as_ref(), io, size, force).await?);
    }
    let opened: Vec<_> = new.iter().map(|new| new.opened.clone()).collect();
    owner::watch(&opened, tell).await?;
    Ok(new)
}

/// One of [`open_new`], not watched yet.
async fn open_to_label(
    path: &str,
    io: IoChoice,
    size: Option<u64>,
    force: bool,
) -> Result<New, OpenError> {
    let mut made = None;
    if memory_size(path).is_none() && !Path::new(path).exists() {
        let size = size.ok_or_else(|| OpenError::NoSize { path: path.into() })?;
        create_sparse(Path::new(path), size)
            .map_err(|error| OpenError::Io { path: path.into(), error })?;
        made = Some(MadeFile(path.into()));
    }
    let opened = open(path, io).await?;
    let found = opened.disk.size();
    if let Some(wanted) = size.filter(|wanted| wanted / BLOCK_SIZE * BLOCK_SIZE > found) {
        return Err(OpenError::Small { path: path.into(), size: found, wanted });
    }
    if !force && let Some(what) = opened.content().await? {
        return Err(OpenError::Foreign { path: path.into(), what });
    }
    Ok(New { opened, made })
}

/// A disk that was opened to be labelled. Until it is kept, dropping it removes the file that was made for it.
pub struct New {
    /// The disk.
    pub opened: Opened,
    made: Option<MadeFile>,
}

impl New {
    /// The disk is labelled: its file stays.
    pub fn keep(self) -> Opened {
        if let Some(made) = self.made {
            made.keep();
        }
        self.opened
    }
}

/// A file that goes again unless it is kept.
struct MadeFile(PathBuf);

impl MadeFile {
    fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for MadeFile {
    fn drop(&mut self) {
        // There is an earlier error to tell.
        let _ignored = std::fs::remove_file(&self.0);
    }
}

/// Paths below `dirs` (not below their subdirectories) that carry a label of ours. A look only: nothing is locked.
///
/// # Errors
/// If a directory cannot be read.
pub fn scan(dirs: &[PathBuf]) -> Result<Vec<String>, (PathBuf, io::Error)> {
    let mut found = Vec::new();
    for dir in dirs {
        let failed = |error| (dir.clone(), error);
        for entry in std::fs::read_dir(dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if has_label(&path).unwrap_or(false) {
                found.push(path.display().to_string());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn has_label(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::{FileExt, FileTypeExt};
    let file_type = std::fs::metadata(path)?.file_type();
    if !file_type.is_file() && !file_type.is_block_device() {
        return Ok(false);
    }
    let mut file = std::fs::File::open(path)?;
    let size = io::Seek::seek(&mut file, io::SeekFrom::End(0))? / BLOCK_SIZE * BLOCK_SIZE;
    let ours = |offset: u64| {
        let mut block = vec![0; BLOCK_SIZE as usize];
        file.read_exact_at(&mut block, offset)
            .is_ok_and(|()| !matches!(Label::decode(&block), Err(LabelError::NotOurs)))
    };
    Ok(size >= BLOCK_SIZE && (ours(0) || ours(size - BLOCK_SIZE)))
}

/// Makes a new array of the disks at `paths`, without serving it; `tell` says what takes its time.
///
/// # Errors
/// [`CreateFailure`]; files that were made for it are removed again if nothing was labelled.
pub fn create(
    spec: CreateSpec,
    paths: &[String],
    size: Option<u64>,
    io: IoChoice,
    force: bool,
    tell: &dyn Fn(&str),
) -> Result<Notes, CreateFailure> {
    distinct::check(paths)?;
    if let Some(path) = paths.iter().find(|path| memory_size(path).is_some()) {
        let why = "a disk in memory ends with its process; use it with serve".into();
        return Err(OpenError::Memory { path: path.clone(), why }.into());
    }
    runtime::build()?.block_on(async {
        let disks = open_new(paths, io, size, force, tell).await?;
        let handles = disks.iter().map(|new| new.opened.new_disk()).collect();
        let notes = Array::<ServerEnv>::create(CompioRuntime::new(), spec, handles).await?;
        disks.into_iter().for_each(|new| drop(new.keep()));
        Ok(notes)
    })
}

/// Wipes the labels of the disks at `paths`, so that they belong to no array any more; `tell` says what takes its time. Answers what was wiped.
///
/// # Errors
/// [`OpenError`]: all disks are opened and looked at before the first is changed.
pub fn destroy(
    paths: &[String],
    io: IoChoice,
    tell: &dyn Fn(&str),
) -> Result<Vec<String>, OpenError> {
    distinct::check(paths)?;
    let runtime =
        runtime::build().map_err(|error| OpenError::Io { path: "the runtime".into(), error })?;
    runtime.block_on(async {
        let mut disks = Vec::new();
        for path in paths {
            let opened = open(path, io).await?;
            let label = opened.label().await?;
            if label == Err(LabelError::NotOurs) {
                return Err(OpenError::NotOurs { path: path.clone() });
            }
            disks.push((opened, label));
        }
        let all: Vec<_> = disks.iter().map(|(opened, _)| opened.clone()).collect();
        owner::watch(&all, tell).await?;
        let mut wiped = Vec::new();
        for (opened, label) in disks {
            wipe(&opened, label.as_ref().ok()).await?;
            let path = opened.path();
            wiped.push(match label {
                Ok(label) => format!("{path}: disk {} of {:?}", label.number, label.name),
                Err(error) => format!("{path}: {error}"),
            });
        }
        Ok(wiped)
    })
}

/// Blanks both labels and all regions that are read at a start, so that nothing of the array is found again, and what a look at a new disk reads, so that
/// it can be added anywhere. What follows them before the data space (reserved, and gigabytes on a large disk) is only given back. The first label goes
/// last: until then the disk is known as ours.
async fn wipe(opened: &Opened, label: Option<&Label>) -> Result<(), OpenError> {
    let size = opened.disk.size();
    let probed = PROBE_LEN as u64;
    blank(opened, size.saturating_sub(probed).max(BLOCK_SIZE), size).await?;
    if let Some(copy) = label.map(|label| label.layout.label_copy).filter(|c| c.end() <= size) {
        // Not the last block of a disk that has grown; found again once it has its old size.
        blank(opened, copy.offset, copy.end()).await?;
    }
    let data = label.map_or(BLOCK_SIZE, |label| label.layout.data.offset.min(size));
    let reserved = label.map_or(data, |label| label.layout.differential[0].offset.min(data));
    let end = reserved.max(probed).min(size);
    blank(opened, BLOCK_SIZE, end).await?;
    if end < data {
        // Space is saved where the disk can: without a label nobody reads there.
        let _kept = opened.disk.discard(end, data - end).await;
    }
    let flush = async || {
        let result = opened.disk.flush().await;
        result.map_err(|fault| OpenError::Fault { path: opened.path(), fault })
    };
    flush().await?;
    opened.write(0, Buf::zeroed(BLOCK_SIZE as usize)).await?;
    flush().await
}

/// Writes zeroes from `at` to `end`.
async fn blank(opened: &Opened, mut at: u64, end: u64) -> Result<(), OpenError> {
    const STEP: u64 = 1 << 20;
    while at < end {
        let len = STEP.min(end - at);
        opened.write(at, Buf::zeroed(usize::try_from(len).expect("at most a step"))).await?;
        at += len;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
