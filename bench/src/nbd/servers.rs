//! The servers that are compared, started for one run and ended with it.
//!
//! Owns their processes. All serve memory: forestall a one-disk RAID0 on `memory:`, nbdkit its memory plugin, qemu-nbd a raw file
//! on a file system in memory.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::machine::version_of;

/// How long a server may take to listen.
const START_MAX: Duration = Duration::from_secs(30);

/// Hundredths of a second, in which Linux counts processor time to users.
const TICK: f64 = 0.01;

/// A server under test.
pub struct Server {
    /// For people.
    pub name: &'static str,
    /// What it says of its version.
    pub version: String,
    /// Where it listens.
    pub socket: PathBuf,
    /// Which export.
    pub export: &'static str,
    process: Child,
}

impl Server {
    /// Processor time that it has used, in seconds, to a hundredth.
    pub fn cpu_seconds(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.process.id());
        let stat = std::fs::read_to_string(path).unwrap_or_default();
        // The name, in brackets, may hold anything; user and system time are the 12th and 13th after it.
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: Vec<f64> = fields.skip(11).take(2).filter_map(|f| f.parse().ok()).collect();
        ticks.iter().sum::<f64>() * TICK
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It serves memory: nothing of it is to be kept, and what it may still say is of no interest.
        let _ignored = self.process.kill();
        let _ignored = self.process.wait();
    }
}

/// Starts ours: the binary at `program`.
///
/// # Errors
/// If it does not come up.
pub fn forestall(program: &Path, dir: &Path, size: u64) -> Result<Server> {
    let socket = dir.join("forestall.nbd");
    let mut process = Command::new(program)
        .args(["serve", &format!("memory:{size}"), "--volume", "memory"])
        .arg("--socket")
        .arg(dir.join("forestall.sock"))
        .arg("--nbd")
        .arg(format!("unix:{}", socket.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log(dir, "forestall")?)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let stdout = process.stdout.take().expect("was piped");
    let version = version_of(&program.display().to_string()).unwrap_or_default();
    let server = Server { name: "forestall", version, socket, export: "memory", process };
    let ready = BufReader::new(stdout).lines().map_while(|line| line.ok()).any(|l| l == "ready");
    if !ready {
        bail!("forestall did not get ready: {}", said(dir, "forestall"));
    }
    Ok(server)
}

/// Starts nbdkit; `None` if it is not installed.
///
/// # Errors
/// If it is there and does not come up.
pub fn nbdkit(dir: &Path, size: u64) -> Result<Option<Server>> {
    let Some(version) = version_of("nbdkit") else { return Ok(None) };
    let socket = dir.join("nbdkit.nbd");
    let mut command = Command::new("nbdkit");
    command.args(["--foreground", "--exit-with-parent", "--unix"]).arg(&socket);
    command.args(["memory", &format!("size={size}")]);
    start("nbdkit", version, command, dir, socket).map(Some)
}

/// Starts qemu-nbd; `None` if it is not installed.
///
/// # Errors
/// If it is there and does not come up.
pub fn qemu_nbd(dir: &Path, size: u64) -> Result<Option<Server>> {
    let Some(version) = version_of("qemu-nbd") else { return Ok(None) };
    let (socket, image) = (dir.join("qemu.nbd"), dir.join("qemu.raw"));
    File::create(&image)?.set_len(size)?;
    let mut command = Command::new("qemu-nbd");
    command.args(["--format=raw", "--persistent", "--shared=8", "--socket"]);
    command.arg(&socket).arg(&image);
    start("qemu-nbd", version, command, dir, socket).map(Some)
}

fn start(
    name: &'static str,
    version: String,
    mut command: Command,
    dir: &Path,
    socket: PathBuf,
) -> Result<Server> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log(dir, name)?);
    let process = command.spawn().with_context(|| format!("starting {name}"))?;
    let mut server = Server { name, version, socket, export: "", process };
    let start = Instant::now();
    while UnixStream::connect(&server.socket).is_err() {
        if server.process.try_wait()?.is_some() || start.elapsed() > START_MAX {
            bail!("{name} does not listen: {}", said(dir, name));
        }
        // A pause between two polls of the condition.
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(server)
}

fn log(dir: &Path, name: &str) -> Result<File> {
    Ok(File::create(dir.join(name).with_extension("log"))?)
}

fn said(dir: &Path, name: &str) -> String {
    std::fs::read_to_string(dir.join(name).with_extension("log")).unwrap_or_default()
}

/// Builds the `forestall` of this source tree like this program itself and answers where it is.
///
/// # Errors
/// If it does not build.
pub fn build() -> Result<PathBuf> {
    let profile = if cfg!(debug_assertions) { "test" } else { "release" };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--package", "forestall", "--bin", "forestall", "--profile", profile])
        .args(["--message-format", "json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo; give --forestall PATH if there is none")?;
    if !output.status.success() {
        bail!("forestall does not build; give --forestall PATH to measure another build");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let artifacts = text.lines().filter_map(|line| serde_json::from_str(line).ok());
    let mut program = artifacts.filter_map(|artifact: serde_json::Value| {
        artifact["executable"].as_str().map(PathBuf::from)
    });
    program.next_back().context("cargo names no program that it built")
}
