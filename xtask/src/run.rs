//! Starting other programs: where the repository is, how a command is shown, run and listened to.
//!
//! Every command is printed before it runs, so that a reader of the log can repeat it by hand.
//! Output always reaches the terminal as it comes; [`watched`] only reads along.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// The root of the repository. Cargo names this package's directory at run time, which stays right
/// when a checkout was moved after the build.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().expect("the package lies inside the workspace").to_path_buf()
}

/// A cargo command in the repository's root, of the same toolchain that built this program.
pub fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Runs a command to its end with our own output, and says whether it succeeded.
pub fn succeeds(command: &mut Command) -> Result<bool> {
    announce(command);
    let status = command.status().with_context(|| format!("cannot start {}", name(command)))?;
    Ok(status.success())
}

/// Runs a command silently, and says whether it could be started and succeeded.
pub fn probe(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

/// Runs a command and returns its standard output; a failure carries its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {}", name(command)))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{} failed: {}", name(command), errors.trim());
    String::from_utf8(output.stdout).with_context(|| format!("{} printed no UTF-8", name(command)))
}

/// Runs a command, passes its output on line by line, and returns whether it succeeded together
/// with every line that `keep` picks.
pub fn watched(command: &mut Command, keep: fn(&str) -> bool) -> Result<(bool, Vec<String>)> {
    announce(command);
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", name(command)))?;
    let out = child.stdout.take().expect("standard output was piped");
    let err = child.stderr.take().expect("standard error was piped");
    let mut kept = Vec::new();
    std::thread::scope(|scope| {
        let errors = scope.spawn(move || pass_on(err, std::io::stderr(), keep));
        kept.extend(pass_on(out, std::io::stdout(), keep));
        kept.extend(errors.join().expect("the reader of standard error does not panic"));
    });
    let status = child.wait().context("cannot wait for a child")?;
    Ok((status.success(), kept))
}

fn pass_on(from: impl Read, mut to: impl Write, keep: fn(&str) -> bool) -> Vec<String> {
    let mut from = BufReader::new(from);
    let mut kept = Vec::new();
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        // Whoever reads our output may have gone away; the command still runs to its end.
        let _ = to.write_all(&line).and_then(|()| to.flush());
        let text = String::from_utf8_lossy(&line);
        if keep(text.trim()) {
            kept.push(text.trim().to_owned());
        }
        line.clear();
    }
    kept
}

/// The program of that name on PATH. The administrator's directories count too: an ordinary user's
/// PATH often lacks them, and mkfs and losetup live there.
pub fn find_program(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|d| d.join(program)).find(|p| is_program(p))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

fn name(command: &Command) -> String {
    Path::new(command.get_program())
        .file_name()
        .unwrap_or(command.get_program())
        .to_string_lossy()
        .into_owned()
}

fn announce(command: &Command) {
    let args: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    println!("$ {} {}", name(command), args.join(" "));
}
