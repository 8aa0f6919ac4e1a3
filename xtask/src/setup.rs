//! The clients and tools that the checks use: which are here, installing them, naming the missing.
//!
//! A need is judged by looking for the thing itself, never by asking a package manager, so that any
//! distribution will do. Only root on a machine with `apt-get` gets Debian's packages installed;
//! everybody else is told the command. Nothing here fails a run: what stays missing is reported as
//! not tested, and the tests that need it say so too.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::ci::{Outcome, Verdict};
use crate::{deny, run};

/// Something that a check needs, where Debian has it, and what is lost without it.
struct Need {
    package: &'static str,
    present: fn() -> bool,
    without: &'static str,
}

const NEEDS: [Need; 13] = [
    Need {
        package: "libnbd-bin",
        present: || ["nbdinfo", "nbdcopy", "nbdfuse"].iter().all(|p| has(p)),
        without: "NBD exports with nbdinfo and nbdcopy, and file systems on nbdfuse",
    },
    Need {
        package: "python3-libnbd",
        present: python_has_libnbd,
        without: "NBD exports with libnbd from Python",
    },
    Need {
        package: "qemu-utils",
        present: || ["qemu-img", "qemu-io", "qemu-nbd"].iter().all(|p| has(p)),
        without: "NBD exports with qemu-img and qemu-io; benches against qemu-nbd",
    },
    Need {
        package: "fio",
        present: || has("fio"),
        without: "verified random load with fio; benches",
    },
    Need { package: "nbdkit", present: || has("nbdkit"), without: "benches against nbdkit" },
    Need {
        package: "e2fsprogs",
        present: || has("mkfs.ext4") && has("e2fsck"),
        without: "ext4 on an export",
    },
    Need {
        package: "xfsprogs",
        present: || has("mkfs.xfs") && has("xfs_repair"),
        without: "xfs on an export",
    },
    Need {
        package: "fuse3",
        present: || has("fusermount3"),
        without: "exports mounted through FUSE",
    },
    Need {
        package: "mount",
        present: || has("mount") && has("losetup"),
        without: "file systems on loop devices",
    },
    Need {
        package: "libisal-dev",
        present: || Path::new("/usr/include/isa-l.h").exists(),
        without: "parity against ISA-L in benches",
    },
    Need { package: "gcc", present: || has("cc"), without: "parity against ISA-L in benches" },
    Need { package: "g++", present: || has("c++"), without: "fuzzing (libFuzzer is C++)" },
    Need { package: "git", present: || has("git"), without: "tidy on tracked files only" },
];

/// What no package brings.
const SURROUNDINGS: [(fn() -> bool, &str); 4] = [
    (is_root, "mounts: file systems on an export need root (this user is not)"),
    (|| Path::new("/dev/fuse").exists(), "mounts through FUSE: there is no /dev/fuse"),
    (|| Path::new("/dev/loop-control").exists(), "loop devices: there is no /dev/loop-control"),
    (io_uring_allowed, "io_uring: kernel.io_uring_disabled forbids it"),
];

/// Installs what it may and reports what is still missing.
pub fn run() -> Result<Outcome> {
    let mut missing = missing_needs();
    if !missing.is_empty() {
        let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
        if is_root() && has("apt-get") {
            install(&packages)?;
            missing = missing_needs();
        } else {
            println!("missing; on Debian: sudo apt-get install -y {}", packages.join(" "));
        }
    }
    let mut not_tested: Vec<String> = missing
        .iter()
        .map(|need| format!("{} ({} is not installed)", need.without, need.package))
        .collect();
    not_tested.extend(
        SURROUNDINGS.iter().filter(|(present, _)| !present()).map(|(_, why)| (*why).to_owned()),
    );
    if let Err(error) = deny::provide() {
        not_tested.push(format!("licences and sources of dependencies ({error:#})"));
    }
    let note = if not_tested.is_empty() { "everything is here" } else { "something is missing" };
    println!("setup: {note}");
    Ok(Outcome { verdict: Verdict::Passed, note: note.to_owned(), not_tested })
}

/// Whether a C++ compiler is here, which libFuzzer needs.
pub fn has_cpp_compiler() -> bool {
    has("c++")
}

fn missing_needs() -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| !(need.present)()).collect()
}

/// Debian's bindings belong to Debian's Python, which need not be the first on PATH.
fn python_has_libnbd() -> bool {
    let imports = |python| run::probe(Command::new(python).args(["-c", "import nbd"]));
    imports("/usr/bin/python3") || imports("python3")
}

fn has(program: &str) -> bool {
    run::find_program(program).is_some()
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    // A process's own /proc entry belongs to its effective user.
    std::fs::metadata("/proc/self").is_ok_and(|entry| entry.uid() == 0)
}

fn io_uring_allowed() -> bool {
    // Kernels older than the switch have no file and no ban; 1 still lets root in.
    match std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
        Ok(value) => value.trim() == "0" || (value.trim() == "1" && is_root()),
        Err(_) => true,
    }
}

/// One call for all packages; if that fails, one call each, so that a package which this release
/// does not know costs only itself.
fn install(packages: &[&str]) -> Result<()> {
    // Stale lists still install most packages, so a failed update is no reason to stop.
    if !run::succeeds(&mut apt_get(&["update", "-q"]))? {
        eprintln!("warning: apt-get update failed; trying with the lists that are here");
    }
    if run::succeeds(apt_get(&["install", "-y", "-q", "--no-install-recommends"]).args(packages))? {
        return Ok(());
    }
    for package in packages {
        let one = ["install", "-y", "-q", "--no-install-recommends", package];
        if !run::succeeds(&mut apt_get(&one))? {
            eprintln!("warning: cannot install {package}");
        }
    }
    Ok(())
}

fn apt_get(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    // Another package run on the machine ends within minutes; waiting beats failing.
    command.args(["-o", "DPkg::Lock::Timeout=120"]).args(args);
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(std::process::Stdio::null());
    command
}
