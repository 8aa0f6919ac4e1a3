//! The demo's array: its files, its server in this process, and requests to its management socket.
//!
//! Owns the temporary folder, which is removed at the end unless it is to be kept.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use forestall_disk::{InjectKind, InjectOp};
use forestall_engine::{
    ArrayReport, AssembleOptions, CreateGroup, CreateSpec, DiskNumber, JobReport, JournalMode,
    Level,
};
use forestall_server::api::types::{
    AddWorkDisk, Done, Inject, JobStarted, LimitJob, NameDisk, ReplaceDisk,
};
use forestall_server::{DataOptions, IoChoice, NbdAddr, Ready, ServeError, ServeOptions};
use tempfile::TempDir;

use super::load::Storm;
use super::screen::Screen;
use super::{opening, rule};
use crate::client::Client;

/// Disks of the group.
pub const MEMBERS: u32 = 4;

/// Disks that stand by.
pub const SPARES: u32 = 3;

/// Where host writes go while the group is shielded.
pub const WORK_DISK: DiskNumber = DiskNumber(60);

/// Its legs: as many as what they take has to survive, and one.
const LEGS: u32 = 2;

/// Bytes of each disk.
pub const DISK_SIZE: u64 = 64 << 20;

/// Name of the volume and of the array.
pub const VOLUME: &str = "demo";

/// Longest wait for any one thing to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the server is asked whether it has.
const LOOK: Duration = Duration::from_millis(30);

type ServerThread = JoinHandle<Result<(), ServeError>>;

/// Files, server and client of the demo.
pub struct Bench {
    folder: Folder,
    server: Option<ServerThread>,
    client: Client,
    /// What the server said; shown if the demo fails.
    said: Arc<Mutex<Vec<String>>>,
}

/// Removed at the end, or kept.
enum Folder {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Temporary(folder) => folder.path(),
            Self::Kept(path) => path,
        }
    }
}

impl Bench {
    /// Makes the array and serves it.
    pub fn make(screen: &Screen, keep: bool) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("forestall-demo-").tempdir()?;
        let folder = if keep { Folder::Kept(folder.keep()) } else { Folder::Temporary(folder) };
        screen.say(&opening(folder.path()));
        let client = Client::new(&folder.path().join("forestall.sock"))?;
        let mut bench = Self { folder, server: None, client, said: Arc::default() };
        let spec = CreateSpec {
            name: VOLUME.into(),
            allow_injection: true,
            group: Some(CreateGroup {
                level: Level::Raid5,
                chunk: 64 << 10,
                journal: JournalMode::Off,
                checksums: true,
                spares: SPARES as usize,
                volume: Some(VOLUME.into()),
            }),
        };
        forestall_server::create(
            spec,
            &bench.disks(1..=MEMBERS + SPARES),
            Some(DISK_SIZE),
            IoChoice::default(),
            false,
            &|_| {},
        )?;
        bench.serve()?;
        let legs = AddWorkDisk {
            disk: WORK_DISK,
            legs: bench.disks(WORK_DISK.0..=WORK_DISK.0 + LEGS - 1),
            serves: Vec::new(),
            size: Some(DISK_SIZE),
            force: false,
        };
        bench.client.post::<_, Done>("/v1/work-disks/add", &legs)?;
        Ok(bench)
    }

    /// Where the files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn disks(&self, numbers: RangeInclusive<u32>) -> Vec<String> {
        let path = |n: u32| self.folder().join(format!("disk{n}")).to_string_lossy().into_owned();
        numbers.map(path).collect()
    }

    /// Every disk that is there.
    fn all_disks(&self) -> Vec<String> {
        let mut paths = self.disks(1..=WORK_DISK.0 + LEGS - 1);
        paths.retain(|path| Path::new(path).exists());
        paths
    }

    fn socket(&self) -> PathBuf {
        self.folder().join("forestall.sock")
    }

    /// Where NBD clients connect.
    pub fn nbd_socket(&self) -> Result<PathBuf> {
        match forestall_server::default_nbd(&self.socket()) {
            NbdAddr::Unix(path) => Ok(path),
            other => bail!("the demo serves a unix socket, not {other}"),
        }
    }

    fn serve(&mut self) -> Result<()> {
        let said = Arc::clone(&self.said);
        let log = move |line: &str| {
            said.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned())
        };
        let options = ServeOptions {
            data: DataOptions {
                paths: self.all_disks(),
                scan: Vec::new(),
                nbd: Vec::new(),
                io: IoChoice::default(),
                assemble: AssembleOptions::default(),
                wait_s: 0,
                memory: None,
                log: Arc::new(log),
                abort: Arc::default(),
            },
            socket: self.socket(),
            hook: None,
            handle_signals: true,
        };
        let (tell, told) = mpsc::channel::<Ready>();
        let server = std::thread::Builder::new().name("serve".into()).spawn(move || {
            forestall_server::serve(options, |ready| {
                // Nobody waits any more if the demo has given up.
                let _ = tell.send(ready.clone());
            })
        })?;
        if told.recv().is_err() {
            join(server)?;
            bail!("the server ended before it was ready");
        }
        self.server = Some(server);
        Ok(())
    }

    /// Stops the server in order and starts it again on the same files.
    pub fn restart(&mut self, screen: &Screen) -> Result<()> {
        screen.progress("restarting the server", 0, 1);
        self.stop()?;
        self.serve()
    }

    /// Stops the server.
    pub fn stop(&mut self) -> Result<()> {
        let Some(server) = self.server.take() else { return Ok(()) };
        if !server.is_finished() {
            self.client.post::<Done, Done>("/v1/stop", &Done {})?;
        }
        join(server)
    }

    /// Waits until a signal has stopped the server.
    pub fn wait_stopped(&mut self) -> Result<()> {
        self.server.take().map_or(Ok(()), join)
    }

    /// Makes a disk misbehave.
    pub fn inject(
        &self,
        disk: DiskNumber,
        op: InjectOp,
        kind: InjectKind,
        count: Option<u64>,
    ) -> Result<()> {
        let body = Inject { disk, rule: Some(rule(op, kind, count)) };
        self.client.post::<_, Done>("/v1/inject", &body).map(drop)
    }

    /// The disk behaves again.
    pub fn clear_injection(&self, disk: DiskNumber) -> Result<()> {
        self.client.post::<_, Done>("/v1/inject", &Inject { disk, rule: None }).map(drop)
    }

    /// Begins to copy a disk.
    pub fn replace(&self, body: &ReplaceDisk) -> Result<()> {
        self.client.post::<_, JobStarted>("/v1/replace", body).map(drop)
    }

    /// `pause` or `cancel`.
    pub fn replacing(&self, verb: &str, disk: DiskNumber) -> Result<()> {
        let path = format!("/v1/replace/{verb}");
        self.client.post::<_, Done>(&path, &NameDisk { disk }).map(drop)
    }

    /// Limits a job; one that has ended meanwhile needs no limit.
    pub fn limit(&self, job: u64, rate: u64) -> Result<()> {
        let limited = self.client.post::<_, Done>("/v1/jobs/limit", &LimitJob { job, rate });
        if limited.is_err()
            && self
                .jobs()?
                .iter()
                .any(|j| j.id == job && j.state == forestall_engine::JobState::Running)
        {
            return limited.map(drop);
        }
        Ok(())
    }

    fn jobs(&self) -> Result<Vec<JobReport>> {
        self.client.get("/v1/jobs")
    }

    /// What `status` shows, with all jobs that ran.
    pub fn report(&self) -> Result<ArrayReport> {
        let mut report: ArrayReport = self.client.get("/v1/status")?;
        report.jobs = self.jobs()?;
        Ok(report)
    }

    /// Waits until `there` finds what it looks for in the report. A client that works meanwhile must not give up.
    pub fn wait(
        &self,
        storm: Option<&Storm>,
        what: &str,
        there: impl Fn(&ArrayReport) -> bool,
    ) -> Result<ArrayReport> {
        let begun = Instant::now();
        loop {
            let report = self.report()?;
            if there(&report) {
                return Ok(report);
            }
            if storm.is_some_and(Storm::is_over) {
                bail!("the client gave up while waiting for {what}");
            }
            if begun.elapsed() > PATIENCE {
                bail!("waited {} s for {what} in vain", PATIENCE.as_secs());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// For the end of a demo that failed: what the server said.
    pub fn where_it_is(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).join("\n  ");
        if said.is_empty() {
            "the server said nothing.".into()
        } else {
            format!("the server said:\n  {said}")
        }
    }

    /// Lines to paste, for an array that is kept running.
    pub fn how_to_mount(&self) -> String {
        let nbd = forestall_server::default_nbd(&self.socket()).to_string();
        let nbd = nbd.trim_start_matches("unix:");
        let folder = self.folder().display();
        let socket = self.socket();
        let socket = socket.display();
        let uri = format!("nbd+unix:///{VOLUME}?socket={nbd}");
        format!(
            "\nThe array is still served. In another terminal:\n\
             \n  forestall -s {socket} status\n\
             \nMount it with nbdfuse and a loop device (as root; package libnbd-bin):\n\
             \n  mkdir {folder}/fuse {folder}/mnt\n  \
             nbdfuse {folder}/fuse/volume '{uri}' &\n  \
             dev=$(losetup --find --show {folder}/fuse/volume)\n  \
             mkfs.ext4 $dev && mount $dev {folder}/mnt\n\
             \nor with the kernel's nbd module (as root):\n\
             \n  nbd-client -unix {nbd} -N {VOLUME} /dev/nbd0\n  \
             qemu-nbd --connect=/dev/nbd0 -f raw '{uri}'\n\
             \nControl-C stops the server in order."
        )
    }
}

fn join(server: ServerThread) -> Result<()> {
    server.join().map_err(|_| anyhow!("the server panicked"))?.context("the server")
}
