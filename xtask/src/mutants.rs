//! The mutation proof: known defects are planted one by one, and the simulator has to find each.
//!
//! Owns the copy of the tree into which the defects go, its build, and the table. The defects stand in `crates/faultsim/mutants/`, one a
//! file. One build holds them all; each run of the simulator switches on one and plays the scenario that is about it, if there is one, then searches random seeds, then
//! all scripted scenarios, then more seeds. Invariants:
//! the working tree is never changed; the same build without any defect has to find nothing, or no verdict means anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::ci::Outcome;
use crate::{run, tidy};

mod patch;

use patch::Mutant;

/// Where the defects stand.
const HOME: &str = "crates/faultsim/mutants";
/// The variable that switches a defect on.
const VARIABLE: &str = "FORESTALL_PLANTED";
/// Minutes of random search before the scenarios.
const FIRST_MINUTES: f64 = 0.5;
/// The crate that takes the defects; its root gets the switch.
const ENGINE: &str = "crates/engine/src/lib.rs";
/// Seeds under which the scenario of a defect is played.
const STORY_SEEDS: &str = "3";
/// How much longer than asked a run may take before it is ended without a verdict. The simulator says by itself which seed does not end; this is
/// for one that does not even do that, and far more than all scenarios take on a busy machine.
const GRACE: Duration = Duration::from_secs(1800);

/// What the copy of the engine asks at each planted place.
const SWITCH: &str = "
pub(crate) fn planted(name: &str) -> bool {
    static NAME: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    NAME.get_or_init(|| std::env::var(\"FORESTALL_PLANTED\").ok()).as_deref() == Some(name)
}
";

/// What to do.
#[derive(Debug, Default)]
pub struct Options {
    /// Minutes of random search for each defect; 0 stands for the default.
    pub minutes: f64,
    /// Only defects whose names begin with one of these; all if empty.
    pub names: Vec<String>,
    /// Without the scripted scenarios.
    pub random_only: bool,
}

/// How a hunt for one defect ended.
#[derive(Debug, PartialEq, Eq)]
enum Hunt {
    /// By which seed or scenario.
    Caught(String),
    Missed,
    /// The simulator did not end, and named no seed: nothing is known.
    Unknown,
}

/// Plants and hunts.
pub fn run(options: &Options) -> Result<Outcome> {
    let minutes = if options.minutes > 0.0 { options.minutes } else { 3.0 };
    let wanted = |m: &Mutant| {
        options.names.is_empty() || options.names.iter().any(|n| m.name.starts_with(n.as_str()))
    };
    let root = run::root();
    let mutants = all(&root)?;
    let chosen: Vec<&Mutant> = mutants.iter().filter(|m| wanted(m)).collect();
    ensure!(!chosen.is_empty(), "no mutant of that name in {HOME}");
    let program = build(&root, &mutants)?;

    let (healthy, _) = hunt(&program, None, minutes.min(0.5), options.random_only)?;
    if healthy != Hunt::Missed {
        println!("without any defect: {}", told(&healthy));
        let note = "the tree without a planted defect does not pass: mend that first";
        return Ok(Outcome::passed_if(false).with_note(note));
    }
    let mut missed = Vec::new();
    println!("{:<36} {:<5} {:>8}  caught by", "mutant", "rule", "seconds");
    for mutant in &chosen {
        let (end, took) = hunt(&program, Some(mutant), minutes, options.random_only)?;
        let seconds = took.as_secs_f64();
        println!("{:<36} {:<5} {seconds:>8.1}  {}", mutant.name, mutant.rule, told(&end));
        if !matches!(end, Hunt::Caught(_)) {
            println!("    {}", mutant.what);
            missed.push(mutant.name.as_str());
        }
    }
    let caught = chosen.len() - missed.len();
    let note = match missed.is_empty() {
        true => format!("{caught} planted defects, all caught"),
        false => format!("{caught} of {} caught; not: {}", chosen.len(), missed.join(", ")),
    };
    println!("mutants: {note}");
    Ok(Outcome::passed_if(missed.is_empty()).with_note(note))
}

fn told(end: &Hunt) -> &str {
    match end {
        Hunt::Caught(by) => by,
        Hunt::Missed => "NOT CAUGHT",
        Hunt::Unknown => "NOT CAUGHT: the simulator took too long and named no seed",
    }
}

/// Every defect, by name.
fn all(root: &Path) -> Result<Vec<Mutant>> {
    let home = root.join(HOME);
    let mut names = BTreeSet::new();
    for entry in home.read_dir().with_context(|| format!("cannot list {}", home.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "txt") {
            names.insert(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        }
    }
    let read = |name: &String| {
        let path = home.join(format!("{name}.txt"));
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Mutant::parse(name, &text)
    };
    names.iter().map(read).collect()
}

/// The files that the defects change, with all of them planted.
fn planted(root: &Path, mutants: &[Mutant]) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let content = |file: &str| {
        fs::read_to_string(root.join(file)).with_context(|| format!("cannot read {file}"))
    };
    // The choices are written by a program and bring parentheses that no person would.
    let root_file = format!("#![allow(warnings)]\n{}{SWITCH}", content(ENGINE)?);
    files.insert(ENGINE.to_owned(), root_file);
    for mutant in mutants {
        for edit in &mutant.edits {
            ensure!(
                edit.file.starts_with("crates/engine/src/"),
                "mutant {}: {} is no file of the engine",
                mutant.name,
                edit.file
            );
            if !files.contains_key(&edit.file) {
                files.insert(edit.file.clone(), content(&edit.file)?);
            }
            let text = files.get_mut(&edit.file).expect("just put there");
            *text = edit.apply(&mutant.name, text)?;
        }
    }
    Ok(files)
}

/// Copies the tree, plants every defect and builds the simulator.
fn build(root: &Path, mutants: &[Mutant]) -> Result<PathBuf> {
    let target = root.join("target/mutants");
    let tree = target.join("tree");
    let planted = planted(root, mutants)?;
    for path in tidy::Files::list(root)?.iter() {
        let from = root.join(path);
        if !from.is_file() {
            continue;
        }
        let content = match planted.get(path) {
            Some(text) => text.clone().into_bytes(),
            None => fs::read(&from).with_context(|| format!("cannot read {path}"))?,
        };
        let to = tree.join(path);
        // What is the same keeps its time, so that only what changed is built again.
        if fs::read(&to).is_ok_and(|there| there == content) {
            continue;
        }
        fs::create_dir_all(to.parent().expect("a file lies in a folder"))?;
        fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))?;
    }
    let mut cargo = run::cargo(&["build", "--profile", "mutants", "-p", "forestall-faultsim"]);
    cargo.current_dir(&tree).env("CARGO_TARGET_DIR", &target);
    ensure!(run::succeeds(&mut cargo)?, "the tree with the planted defects does not build");
    Ok(target.join("mutants/forestall-faultsim"))
}

/// Runs the simulator with one defect, or none, until it is found or the time is over.
fn hunt(
    program: &Path,
    mutant: Option<&Mutant>,
    minutes: f64,
    random_only: bool,
) -> Result<(Hunt, Duration)> {
    let name = mutant.map_or("", |mutant| mutant.name.as_str());
    let start = Instant::now();
    let limit = Duration::from_secs_f64(minutes * 60.0) + GRACE;
    // Most are found within seconds; the scenarios take longer than that, and find what chance rarely meets.
    let (first, rest) = (minutes.min(FIRST_MINUTES).to_string(), minutes.to_string());
    let scenarios: &[&str] = &["scenarios"];
    let quick: &[&str] = &["search", "--no-shrink", "--minutes", &first];
    let long: &[&str] = &["search", "--no-shrink", "--minutes", &rest, "--from", "1000001"];
    let story = mutant.and_then(|mutant| mutant.story.as_deref());
    let story = story.map(|story| ["scenarios", story, "--seeds", STORY_SEEDS]);
    let mut steps = if random_only { vec![quick, long] } else { vec![quick, scenarios, long] };
    if let (Some(story), false) = (&story, random_only) {
        steps.insert(0, story);
    }
    for args in steps {
        let end = one_run(program, name, args, limit)?;
        if end != Hunt::Missed {
            return Ok((end, start.elapsed()));
        }
    }
    Ok((Hunt::Missed, start.elapsed()))
}

fn one_run(program: &Path, name: &str, args: &[&str], limit: Duration) -> Result<Hunt> {
    let log = program.with_file_name("hunt.log");
    let output =
        fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = Command::new(program)
        .args(args)
        .env(VARIABLE, name)
        .stdout(Stdio::null())
        .stderr(output)
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > limit {
            child.kill()?;
            child.wait()?;
            return Ok(Hunt::Unknown);
        }
        // The pause between two looks of this poll.
        std::thread::sleep(Duration::from_millis(50));
    };
    let told = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    match status.code() {
        Some(0) => Ok(Hunt::Missed),
        Some(1) => Ok(Hunt::Caught(first_words(&told))),
        _ => anyhow::bail!("the simulator ended with {status}: {}", told.trim()),
    }
}

/// The seed or scenario that found it, and what it saw, in one line.
fn first_words(told: &str) -> String {
    let line = told.lines().find(|l| l.contains("seed ")).unwrap_or("an unknown seed");
    let scenario = told.lines().find_map(|l| l.strip_prefix("in scenario "));
    let line = scenario.map_or_else(|| line.to_owned(), |s| format!("scenario {s}, {line}"));
    let short: String = line.chars().take(110).collect();
    if short.len() < line.len() { short + "..." } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_fits_the_tree() {
        let root = run::root();
        let mutants = all(&root).expect("the mutants can be read");
        assert!(mutants.len() >= 20, "only {} mutants", mutants.len());
        let files = planted(&root, &mutants).expect("each text stands exactly once");
        assert!(files.len() > 10 && files[ENGINE].contains(VARIABLE));
        let rules = fs::read_to_string(root.join("docs/safety-rules.md")).expect("the rules");
        let lists = ["scenarios/list.rs", "avoidance.rs", "avoidance/existing.rs"];
        let lists: String = lists
            .map(|list| root.join("crates/faultsim/src").join(list))
            .map(|list| fs::read_to_string(list).expect("a list of scenarios"))
            .concat();
        for mutant in &mutants {
            assert!(rules.contains(&format!("**{}**", mutant.rule)), "{}: no rule", mutant.name);
            let first = mutant.rule.to_lowercase();
            assert!(mutant.name.starts_with(&first), "{} is named for another rule", mutant.name);
            let there = |story: &String| lists.contains(&format!("name: \"{story}\""));
            assert!(mutant.story.as_ref().is_none_or(there), "{}: no such story", mutant.name);
        }
    }

    #[test]
    fn a_catch_is_told_by_its_seed() {
        let told = "\nseed 7: volume v1: sector 3 holds zeroes\n    #1\n";
        assert_eq!(first_words(told), "seed 7: volume v1: sector 3 holds zeroes");
        let told = "seed 1: it never ends\nin scenario leg-dies\n";
        assert_eq!(first_words(told), "scenario leg-dies, seed 1: it never ends");
        assert_eq!(first_words(""), "an unknown seed");
    }
}
