//! Tools that may be missing: looking for them, and saying aloud what could not be tested without them.

use std::path::Path;
use std::process::Command;

/// Whether all these programs are there; else says which test is not run.
pub fn have(programs: &[&str], test: &str) -> bool {
    let missing: Vec<&str> = programs.iter().copied().filter(|p| !found(p)).collect();
    if !missing.is_empty() {
        not_tested(&format!("{test} ({} is not installed)", missing.join(", ")));
    }
    missing.is_empty()
}

/// Debian's Python with libnbd; its bindings belong to the system's interpreter, which need not come first in PATH.
pub fn python(test: &str) -> Option<&'static str> {
    let imports = |python: &&str| {
        let run = Command::new(python).args(["-c", "import nbd"]).output();
        run.is_ok_and(|output| output.status.success())
    };
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| imports(python));
    if python.is_none() {
        not_tested(&format!("{test} (python3-libnbd is not installed)"));
    }
    python
}

/// Whether this user may mount.
pub fn root(test: &str) -> bool {
    use std::os::unix::fs::MetadataExt;
    // A process's own entry belongs to its effective user.
    let root = std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0);
    if !root {
        not_tested(&format!("{test} (this needs root)"));
    }
    root
}

/// Whether a device is there.
pub fn device(path: &str, test: &str) -> bool {
    let there = Path::new(path).exists();
    if !there {
        not_tested(&format!("{test} (there is no {path})"));
    }
    there
}

/// The line that `cargo xtask ci` collects.
pub fn not_tested(what: &str) {
    println!("NOT TESTED: {what}");
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    // A user's PATH often lacks the administrator's tools.
    folders.extend(["/usr/sbin".into(), "/sbin".into()]);
    folders.iter().any(|folder| folder.join(program).is_file())
}
