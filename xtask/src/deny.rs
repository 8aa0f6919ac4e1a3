//! Licences, sources and bans of the dependencies, judged by cargo-deny under `deny.toml`.
//!
//! Only checks that need no network beside the crates registry run. Advisories need a database
//! fetched from elsewhere: they are checked when it is already here, and named as left out when not.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::ci::Outcome;
use crate::run;

/// Pinned, so that the same commit gives the same verdict next year.
const VERSION: &str = "0.20.2";

/// The workspaces and what each is judged by.
const MANIFESTS: [&str; 2] = ["Cargo.toml", "fuzz/Cargo.toml"];

/// Makes sure that cargo-deny is here, building it once if need be.
///
/// # Errors
/// When it is neither here nor can be built, which most often means no network.
pub fn provide() -> Result<PathBuf> {
    if let Some(program) = run::find_program("cargo-deny") {
        return Ok(program);
    }
    let tools = run::root().join("target/tools");
    let program = tools.join("bin/cargo-deny");
    if version_of(&program).is_some_and(|v| v == VERSION) {
        return Ok(program);
    }
    // A debug build takes a fraction of the time, and its run still ends within seconds.
    let mut install =
        run::cargo(&["install", "cargo-deny", "--debug", "--locked", "--version", VERSION]);
    install.arg("--root").arg(&tools);
    let built = run::succeeds(&mut install).context("cargo-deny is not here")?;
    anyhow::ensure!(built && program.is_file(), "cargo-deny is not here and could not be built");
    Ok(program)
}

/// Checks the product's dependencies and the fuzz targets' own.
pub fn run() -> Result<Outcome> {
    let program = match provide() {
        Ok(program) => program,
        Err(error) => {
            let what = format!("licences and sources of dependencies ({error:#})");
            return Ok(Outcome::not_tested(what));
        }
    };
    let mut passed = true;
    for manifest in MANIFESTS {
        let checks = ["bans", "licenses", "sources"];
        passed &= run::succeeds(
            deny(&program, manifest).arg("check").arg("--hide-inclusion-graph").args(checks),
        )?;
    }
    if !has_advisory_database() {
        let outcome = Outcome::passed_if(passed).with_note("without advisories");
        let why = "advisories of dependencies (no advisory database here, and none is fetched)";
        return Ok(Outcome { not_tested: vec![why.to_owned()], ..outcome });
    }
    for manifest in MANIFESTS {
        let offline = ["--offline", "check", "advisories"];
        passed &= run::succeeds(deny(&program, manifest).args(offline))?;
    }
    Ok(Outcome::passed_if(passed).with_note("with advisories"))
}

fn deny(program: &PathBuf, manifest: &str) -> Command {
    let root = run::root();
    let mut command = Command::new(program);
    command.arg("--manifest-path").arg(root.join(manifest));
    command.arg("--config").arg(root.join("deny.toml")).current_dir(root);
    command
}

fn version_of(program: &PathBuf) -> Option<String> {
    let text = run::output(Command::new(program).arg("--version")).ok()?;
    text.split_whitespace().last().map(str::to_owned)
}

fn has_advisory_database() -> bool {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let databases = home.map(|home| home.join("advisory-dbs"));
    databases
        .and_then(|dir| dir.read_dir().ok())
        .is_some_and(|mut entries| entries.next().is_some())
}
