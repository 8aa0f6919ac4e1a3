//! What every test needs: a directory, commands with a deadline, servers that end with their test.
//!
//! Invariants: nothing outlives a test (servers and children are killed on drop), no wait is without a deadline, and what fails shows the
//! command, its output and the server's log.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use forestall_nbd::{Client, ClientOptions, ConnectError};
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;

/// Longest that anything may take; generous, because machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The program under test.
pub const FORESTALL: &str = env!("CARGO_BIN_EXE_forestall");

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;

/// Looks at a condition until it gives something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited too long for {what}");
        // A pause between two polls of the condition.
        std::thread::sleep(LOOK);
    }
}

/// Bytes that depend on the seed alone.
pub fn noise(seed: u64, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; len as usize];
    ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Every byte of a file, holes read as zeroes; compared with [`assert_same`] it says more than a checksum.
pub fn contents(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Fails without printing megabytes.
#[track_caller]
pub fn assert_same(found: &[u8], wanted: &[u8], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: lengths");
    let differs = found.iter().zip(wanted).position(|(a, b)| a != b);
    if let Some(at) = differs {
        let count = found.iter().zip(wanted).filter(|(a, b)| a != b).count();
        panic!("{what}: {count} bytes differ, the first at {at}: {} for {}", found[at], wanted[at]);
    }
}

/// What a command did.
#[derive(Debug)]
pub struct Run {
    what: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    fn new(what: String, output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        Self { what, code: output.status.code(), stdout, stderr }
    }

    /// The command ended with `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// The command was done; answers what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        self.exits(0).stdout
    }

    /// The command was refused with a message that has all these words; answers the message.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> String {
        self.fails_with(1, words)
    }

    /// The command line was not understood, and the message has all these words.
    #[track_caller]
    pub fn usage(self, words: &[&str]) -> String {
        self.fails_with(2, words)
    }

    #[track_caller]
    fn fails_with(self, code: i32, words: &[&str]) -> String {
        let run = self.exits(code);
        assert!(!run.stderr.contains("panicked"), "{run}");
        for word in words {
            assert!(run.stderr.contains(word), "no {word:?} in the message: {run}");
        }
        run.stderr
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON, {error}: {self}"))
    }
}

impl std::fmt::Display for Run {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { what, code, stdout, stderr } = self;
        write!(f, "{what}\nended with {code:?}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }
}

/// Runs a command to its end, or kills it and fails.
#[track_caller]
pub fn run(command: &mut Command) -> Run {
    let what = format!("{command:?}");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("{what}: {error}"));
    let pid = child.id();
    let (done, ended) = mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(PATIENCE) {
        Ok(output) => Run::new(what, output.expect("its output can be read")),
        Err(_) => {
            signal(pid, "KILL");
            let output = ended.recv().expect("it is dead").expect("its output can be read");
            panic!("took longer than {PATIENCE:?}: {}", Run::new(what, output));
        }
    }
}

/// Sends a signal to a process that this test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status();
    assert!(sent.expect("there is a shell").success(), "cannot send {name} to {pid}");
}

/// `forestall` with arguments, free of what the environment may say.
pub fn forestall(args: &[&str]) -> Command {
    let mut command = Command::new(FORESTALL);
    command.args(args).env_remove("FORESTALL_SOCKET").env("NO_COLOR", "1");
    command
}

/// A fresh directory with disks and sockets.
pub struct Dir {
    temp: TempDir,
    logs: Cell<u32>,
    /// What servers find in their environment.
    env: RefCell<Vec<(String, String)>>,
}

impl Dir {
    pub fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("fs").tempdir().expect("a temporary folder");
        Self { temp, logs: Cell::new(0), env: RefCell::default() }
    }

    /// What servers find in their environment from the next start on.
    pub fn set_env(&self, env: Vec<(String, String)>) {
        *self.env.borrow_mut() = env;
    }

    pub fn root(&self) -> &Path {
        self.temp.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("temporary folders are UTF-8").to_owned()
    }

    /// The paths `d1` to `dN`.
    pub fn disks(&self, count: u32) -> Vec<String> {
        (1..=count).map(|number| self.disk(number)).collect()
    }

    pub fn disk(&self, number: u32) -> String {
        self.text(&format!("d{number}"))
    }

    /// `create vault d1..dN --size SIZE ...`
    #[track_caller]
    pub fn create(&self, disks: u32, size: &str, more: &[&str]) -> String {
        self.try_create(&self.disks(disks), size, more).ok()
    }

    #[track_caller]
    pub fn try_create(&self, disks: &[String], size: &str, more: &[&str]) -> Run {
        run(forestall(&["create", "vault"]).args(disks).args(["--size", size]).args(more))
    }

    /// A server of the first `disks` disks.
    #[track_caller]
    pub fn serve(&self, disks: u32) -> Server {
        self.serve_with(&self.disks(disks), &[])
    }

    #[track_caller]
    pub fn serve_with(&self, paths: &[String], more: &[&str]) -> Server {
        self.try_serve(paths, more).unwrap_or_else(|run| panic!("the server did not start: {run}"))
    }

    /// A start that must be refused.
    #[track_caller]
    pub fn serve_refused(&self, paths: &[String], more: &[&str], words: &[&str]) -> String {
        match self.try_serve(paths, more) {
            Ok(_) => panic!("serve {paths:?} {more:?} was not refused"),
            Err(run) => run.refused(words),
        }
    }

    /// Starts a server and waits until it is ready or has ended.
    pub fn try_serve(&self, paths: &[String], more: &[&str]) -> Result<Server, Run> {
        self.try_serve_at("", paths, more)
    }

    /// The same, with sockets of another name.
    pub fn try_serve_at(&self, at: &str, paths: &[String], more: &[&str]) -> Result<Server, Run> {
        self.logs.set(self.logs.get() + 1);
        let log = self.path(&format!("log{at}{}", self.logs.get()));
        let socket = self.path(&format!("m{at}.sock"));
        let nbd = self.path(&format!("n{at}.sock"));
        let mut command = forestall(&["serve"]);
        command.args(paths).arg("--socket").arg(&socket);
        command.arg("--nbd").arg(format!("unix:{}", nbd.display())).args(more);
        command.envs(self.env.borrow().iter().cloned());
        let what = format!("{command:?}");
        let errors = File::create(&log).expect("a new file");
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn();
        let mut child = child.expect("the program under test can be run");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let (tell, told) = mpsc::channel();
        // Ends with the server, at the latest when it is dropped and killed.
        std::thread::spawn(move || {
            let mut line = String::new();
            // Whoever waited may have given up.
            let _ = out.read_line(&mut line).map(|_| tell.send(line));
        });
        let mut server = Server { child: Some(child), socket, nbd, log };
        let line = told.recv_timeout(PATIENCE).unwrap_or_default();
        if line == "ready\n" {
            return Ok(server);
        }
        let status = server.wait_end();
        let stderr = server.log();
        server.child = None;
        Err(Run { what, code: status.code(), stdout: line, stderr })
    }
}

/// A running server; killed when dropped.
pub struct Server {
    child: Option<Child>,
    pub socket: PathBuf,
    nbd: PathBuf,
    log: PathBuf,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `forestall -s SOCKET ...`
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Run {
        run(forestall(args).arg("-s").arg(&self.socket))
    }

    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    /// The same with `--json`; it must be done.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let run = run(forestall(args).arg("--json").arg("-s").arg(&self.socket)).exits(0);
        run.json()
    }

    /// `status --json`, whatever the health.
    #[track_caller]
    pub fn status(&self) -> Value {
        let run = run(forestall(&["status", "--json", "-s"]).arg(&self.socket));
        let health = run.json()["health"].as_str().expect("a word").to_owned();
        let code = ["healthy", "", "", "degraded", "failed"].iter().position(|h| *h == health);
        assert_eq!(run.code, code.map(|c| c as i32), "exit code and health: {run}");
        run.json()
    }

    pub fn health(&self) -> String {
        self.status()["health"].as_str().expect("a word").to_owned()
    }

    /// One disk of `disk list`.
    #[track_caller]
    pub fn disk(&self, number: u32) -> Value {
        let disks = self.json(&["disk", "list"]);
        let disks = disks.as_array().expect("a list");
        disks.iter().find(|d| d["number"] == number).expect("the disk is listed").clone()
    }

    /// Takes a job's limit away, if it has not ended by itself.
    #[track_caller]
    pub fn unlimit(&self, job: u64) {
        let run = self.run(&["jobs", "--limit", &job.to_string(), "--rate", "0"]);
        if run.code != Some(0) {
            run.refused(&["has ended already"]);
        }
    }

    /// Waits until no work is under way and all is well.
    #[track_caller]
    pub fn healed(&self) {
        wait_for(&format!("a healthy array; {}", self.socket.display()), || {
            self.ok(&["jobs", "--wait"]);
            (self.health() == "healthy").then_some(())
        });
    }

    /// Waits until no work is under way and group 1 is whole; disks that belong to no group may be what they are.
    #[track_caller]
    pub fn healed_group(&self) {
        wait_for("group 1 to be whole", || {
            self.ok(&["jobs", "--wait"]);
            (self.json(&["group", "list"])[0]["health"] == "healthy").then_some(())
        });
    }

    /// The URI of an export.
    pub fn uri(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.nbd.display())
    }

    pub fn nbd_socket(&self) -> &Path {
        &self.nbd
    }

    /// A client of an export with everything that the protocol has.
    #[track_caller]
    pub fn connect(&self, export: &str) -> Client<UnixStream> {
        self.try_connect(export).expect("the server listens and has the export")
    }

    /// The same from a server that may be gone.
    pub fn try_connect(&self, export: &str) -> Result<Client<UnixStream>, ConnectError> {
        let stream = UnixStream::connect(&self.nbd)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Client::connect(stream, &ClientOptions::new(export))
    }

    /// Waits until an export that is still there takes no more requests. What is asked meanwhile may hang, and is left behind.
    #[track_caller]
    pub fn shuts(&self, export: &str) {
        wait_for("the export to take no more requests", || {
            let stream = UnixStream::connect(&self.nbd).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            let client = Client::connect(stream, &ClientOptions::new(export));
            let refused = client.ok()?.read(MIB, &mut [0; 512]).err()?;
            refused.to_string().contains("ESHUTDOWN").then_some(())
        });
    }

    /// Fills the export with noise and flushes; answers the noise.
    #[track_caller]
    pub fn fill(&self, export: &str, seed: u64) -> Vec<u8> {
        let mut client = self.connect(export);
        let data = noise(seed, client.export().size);
        for (index, piece) in data.chunks(MIB as usize).enumerate() {
            client.write(index as u64 * MIB, piece, false).expect("written");
        }
        client.flush().expect("flushed");
        data
    }

    /// All of an export.
    #[track_caller]
    pub fn read_all(&self, export: &str) -> Vec<u8> {
        let mut client = self.connect(export);
        let mut data = vec![0; client.export().size as usize];
        for (index, piece) in data.chunks_mut(MIB as usize).enumerate() {
            client.read(index as u64 * MIB, piece).expect("read");
        }
        data
    }

    /// All of an export but the blocks of 4 KiB that answer EIO, which are told by number.
    #[track_caller]
    pub fn read_around(&self, export: &str) -> (Vec<u8>, BTreeSet<usize>) {
        const BLOCK: usize = 4096;
        let mut client = self.connect(export);
        let mut data = vec![0; client.export().size as usize];
        let mut holes = BTreeSet::new();
        for (index, piece) in data.chunks_mut(MIB as usize).enumerate() {
            let at = index * MIB as usize;
            if client.read(at as u64, piece).is_ok() {
                continue;
            }
            for (block, bytes) in piece.chunks_mut(BLOCK).enumerate() {
                let at = at + block * BLOCK;
                if let Err(error) = client.read(at as u64, bytes) {
                    assert!(error.to_string().contains("EIO"), "block at {at}: {error}");
                    holes.insert(at / BLOCK);
                }
            }
        }
        (data, holes)
    }

    #[track_caller]
    pub fn verify(&self, export: &str, wanted: &[u8], what: &str) {
        assert_same(&self.read_all(export), wanted, what);
    }

    /// `forestall stop`; the server must end well.
    #[track_caller]
    pub fn stop(mut self) {
        self.ok(&["stop"]);
        let status = self.wait_end();
        assert!(status.success(), "the server ended with {status}: {}", self.log());
        self.child = None;
    }

    /// SIGTERM; the server must end well. Answers its log.
    #[track_caller]
    pub fn terminate(mut self) -> String {
        signal(self.pid(), "TERM");
        self.ended()
    }

    /// Waits for an end that was asked for; it must be a good one. Answers the log.
    #[track_caller]
    pub fn ended(&mut self) -> String {
        let status = self.wait_end();
        assert!(status.success(), "the server ended with {status}: {}", self.log());
        self.child = None;
        self.log()
    }

    /// SIGKILL, and gone when this returns.
    pub fn kill(self) {
        drop(self);
    }

    /// The same at any time, for a server that others still look at.
    pub fn kill_now(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself, which tests see elsewhere.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn wait_end(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        wait_for("the server's end", || child.try_wait().expect("it is our child"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_now();
        if std::thread::panicking() {
            eprintln!("--- the server's log\n{}---", self.log());
        }
    }
}

/// A child process that is killed on drop.
pub struct Killed(pub Child);

impl Killed {
    pub fn spawn(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        Self(command.spawn().unwrap_or_else(|error| panic!("{what}: {error}")))
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a disk's region lies, by `inspect`.
#[track_caller]
pub fn region(path: &str, name: &str) -> std::ops::Range<u64> {
    let found = run(&mut forestall(&["inspect", "--json", path])).exits(0).json();
    let regions = found["regions"].as_array().expect("a list").clone();
    let region = regions.iter().find(|r| r["name"] == name);
    let region = region.unwrap_or_else(|| panic!("no region {name:?} in {regions:?}"));
    let number = |key: &str| region[key].as_u64().expect("a number");
    number("offset")..number("offset") + number("len")
}

/// Changes bytes of a file behind everybody's back.
pub fn edit(path: &str, offset: u64, change: impl FnOnce(&mut [u8]), len: usize) {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new().read(true).write(true).open(path).expect("the disk opens");
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).expect("inside the disk");
    change(&mut bytes);
    file.write_all_at(&bytes, offset).expect("written");
    file.sync_all().expect("synced");
}

/// Copies files, holes and all.
pub fn copy(from: &str, to: &str) {
    run(Command::new("cp").args(["--sparse=always", from, to])).ok();
}
