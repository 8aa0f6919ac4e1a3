//! The style rules that a program can check, over every file that is or would be committed.
//!
//! Owns the list of files and the report. The rules are pure functions of a path and a text:
//! [`rust`] for source files, [`text`] for all text files, [`links`] for Markdown. A finding either
//! fails the run or is a warning, which is printed and changes nothing.

mod links;
mod rust;
mod source;
mod text;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::ci::Outcome;
use crate::run;

/// Larger files bloat every clone for ever; generate or download them instead.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Something that a rule found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong, and the way out where that is not plain.
    pub what: String,
    /// Whether the run fails by it.
    pub fatal: bool,
}

impl Finding {
    fn fatal(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into(), fatal: true }
    }

    fn warning(line: usize, what: impl Into<String>) -> Self {
        Self { line, what: what.into(), fatal: false }
    }
}

/// Checks every file of the repository.
pub fn run() -> Result<Outcome> {
    let root = run::root();
    let files = Files::list(&root)?;
    let mut errors = 0;
    let mut warnings = 0;
    for path in files.iter() {
        for Finding { line, what, fatal } in check_file(&root, path, &files)? {
            let kind = if fatal { "error" } else { "warning" };
            println!("{kind}: {path}:{line}: {what}");
            *(if fatal { &mut errors } else { &mut warnings }) += 1;
        }
    }
    let note = format!("{} files, {errors} errors, {warnings} warnings", files.iter().count());
    println!("tidy: {note}");
    Ok(Outcome::passed_if(errors == 0).with_note(note))
}

fn check_file(root: &Path, path: &str, files: &Files) -> Result<Vec<Finding>> {
    let full = root.join(path);
    let Ok(meta) = full.symlink_metadata() else {
        return Ok(Vec::new()); // Tracked, but deleted and not yet committed.
    };
    let mut findings = Vec::new();
    if !meta.is_file() {
        return Ok(findings);
    }
    if meta.len() > FILE_BYTES_MAX && !path.ends_with("Cargo.lock") {
        let kib = meta.len() / 1024;
        findings.push(Finding::fatal(0, format!("{kib} KiB in one file; 256 are allowed")));
    }
    if !text::is_text(path) {
        return Ok(findings);
    }
    let content = std::fs::read_to_string(&full).with_context(|| format!("cannot read {path}"))?;
    findings.extend(text::check(&content));
    if path.ends_with(".rs") {
        findings.extend(rust::check(path, &content));
    }
    if path.ends_with(".md") {
        let heads = |other: &str| {
            let other = std::fs::read_to_string(root.join(other)).unwrap_or_default();
            links::anchors(&other)
        };
        findings.extend(links::check(path, &content, |p| files.exists(p), heads));
    }
    Ok(findings)
}

/// The files that git tracks or would add, by path from the root with `/`.
pub struct Files(BTreeSet<String>);

impl Files {
    /// Lists them.
    pub fn list(root: &Path) -> Result<Self> {
        // A checkout owned by another user is still only read here.
        let mut git = Command::new("git");
        git.args(["-c", "safe.directory=*", "ls-files", "-coz", "--exclude-standard"]);
        let listed = match run::output(git.current_dir(root)) {
            Ok(listed) => listed.split('\0').filter(|p| !p.is_empty()).map(str::to_owned).collect(),
            Err(error) => {
                println!("no list from git ({error:#}); walking the folder instead");
                let mut found = BTreeSet::new();
                walk(root, "", &mut found)?;
                found
            }
        };
        Ok(Self(listed))
    }

    /// Each path, in order.
    pub fn iter(&self) -> impl Iterator<Item = &String> {
        self.0.iter()
    }

    /// Whether the path names a listed file or a folder that holds one.
    fn exists(&self, path: &str) -> bool {
        let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
        self.0.contains(path)
            || self.0.range(folder.clone()..).next().is_some_and(|p| p.starts_with(&folder))
    }
}

/// An unpacked source archive has no git; leave out what `.gitignore` would.
fn walk(root: &Path, under: &str, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in root.join(under).read_dir()? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if under.is_empty() { name.clone() } else { format!("{under}/{name}") };
        if !entry.file_type()?.is_dir() {
            found.insert(path);
        } else if !["target", ".git", "corpus", "artifacts"].contains(&name.as_str()) {
            walk(root, &path, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
