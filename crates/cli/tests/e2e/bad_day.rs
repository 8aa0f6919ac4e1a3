//! `check`, `repair`, and the page that tells what to do: every alert and every problem of the code stands in `docs/operations.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use forestall_engine::ProblemKind;

use crate::shield::{Bench, wait_state};
use crate::util::*;

const PAGE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md"));

/// `check` of some paths: its exit code and the JSON.
fn check(paths: &[String], more: &[&str]) -> (Option<i32>, serde_json::Value) {
    let before: Vec<Vec<u8>> = paths.iter().map(contents).collect();
    let run = run(forestall(&["check", "--json"]).args(paths).args(more));
    let after: Vec<Vec<u8>> = paths.iter().map(contents).collect();
    assert!(before == after, "a check writes nothing");
    (run.code, run.json())
}

#[test]
fn a_crashed_array_is_checked_repaired_and_served_again() {
    let dir = Dir::new();
    dir.create(4, "12MiB", &["--level", "5", "--chunk", "16KiB"]);
    let server = dir.serve(4);
    let data = server.fill("vault", 5);
    run(forestall(&["check"]).args(dir.disks(4))).refused(&["in use", &dir.disk(1)]);
    run(forestall(&["repair"]).args(dir.disks(4))).refused(&["in use", &dir.disk(1)]);
    server.kill();
    let label = region(&dir.disk(2), "label 0");
    edit(&dir.disk(2), label.start, |bytes| bytes.fill(0), 4096);

    // In another order, under other names.
    fs::rename(dir.disk(1), dir.text("other")).expect("renamed");
    let paths = [dir.disk(4), dir.text("other"), dir.disk(3), dir.disk(2)];
    let (code, found) = check(&paths, &["--data"]);
    assert_eq!((code, &found["verdict"]), (Some(3), &"repairable".into()), "{found}");
    assert!(found["findings"].to_string().contains("first label"), "{found}");
    let before: Vec<Vec<u8>> = paths.iter().map(contents).collect();
    let planned = run(forestall(&["repair", "--dry-run"]).args(&paths)).exits(3);
    assert!(planned.stdout.contains("label 0"), "{planned}");
    assert!(before == paths.iter().map(contents).collect::<Vec<_>>(), "a dry run writes nothing");
    run(forestall(&["repair"]).args(&paths)).exits(0);
    assert_eq!(check(&paths, &["--data"]).0, Some(0));

    // Without a disk it can be given back, without two not.
    assert_eq!(check(&paths[1..], &[]).0, Some(3));
    let (code, found) = check(&paths[2..], &["--data"]);
    assert_eq!((code, &found["verdict"]), (Some(4), &"lost".into()), "{found}");
    let server = dir.serve_with(&paths, &[]);
    server.verify("vault", &data, "after the repair");
    let events = server.json(&["events"]);
    assert!(
        events.to_string().contains("journal-replayed"),
        "the repair's start is told: {events}"
    );
    server.stop();
}

#[test]
fn updates_that_are_away_are_read_from_either_copy_of_their_log() {
    let (bench, server) = Bench::with_work_disk("12MiB");
    server.fill("vault", 5);
    server.ok(&["replace", "1", "--backup", "work-disk", "--rate", "1"]);
    server.ok(&["replace", "pause", "1"]);
    wait_state(&server, "copying");
    let mut client = server.connect("vault");
    for piece in 0..4 {
        client.write(piece * MIB, &noise(piece, MIB), false).expect("written");
    }
    client.flush().expect("flushed");
    // What is entered after a flush proves that everything before it is durable: damaged on every leg it is a loss, no torn write.
    client.write(8 * MIB, &noise(9, MIB), true).expect("written");
    server.kill();
    let members = bench.dir.disks(5);
    let all: Vec<String> = members.iter().cloned().chain(bench.legs()).collect();
    let (code, found) = check(&all, &["--data"]);
    assert!(code == Some(3) && found.to_string().contains("is shielded"), "{found}");
    let (code, found) = check(&members, &[]);
    assert!(code == Some(4) && found.to_string().contains("work disk 60"), "{found}");
    let repaired = run(forestall(&["repair"]).args(&all)).exits(3);
    assert!(repaired.stdout.contains("is shielded"), "it stays so: {repaired}");
    // What was redirected lies behind the table.
    for (leg, wanted) in bench.legs().iter().zip([3, 4]) {
        let data = region(leg, "data");
        edit(leg, data.start + MIB, |bytes| bytes.fill(0x5a), 2 * MIB as usize);
        let (code, found) = check(&all, &["--data"]);
        assert_eq!(code, Some(wanted), "{leg}: {found}");
    }
}

/// First cells of the table below a heading of the page.
fn listed(heading: &str) -> BTreeSet<String> {
    let from = PAGE.find(&format!("\n## {heading}\n")).expect("the heading is there");
    let body = &PAGE[from + 4..];
    let body = &body[..body.find("\n## ").unwrap_or(body.len())];
    let rows = body.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells
        .flat_map(|cell| cell.split(','))
        .map(|word| word.trim().trim_matches('`').to_owned())
        .collect()
}

#[test]
fn every_problem_is_in_the_page() {
    let word = |kind: &ProblemKind| {
        serde_json::to_value(kind).expect("a word").as_str().expect("a word").to_owned()
    };
    let known: BTreeSet<String> = ProblemKind::ALL.iter().map(word).collect();
    assert_eq!(listed("Problems"), known);
}

/// Words like `disk-failed` that stand in quotes.
fn kinds_in(text: &str) -> Vec<String> {
    let is_kind = |word: &&str| {
        word.contains('-')
            && word.chars().all(|c| c == '-' || c.is_ascii_lowercase())
            && !word.starts_with('-')
    };
    text.split('"').skip(1).step_by(2).filter(is_kind).map(str::to_owned).collect()
}

/// The text of a call from its opening bracket on.
fn arguments(text: &str) -> &str {
    let mut depth = 0;
    let end = text.find(|c| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        depth == 0
    });
    &text[..end.unwrap_or(text.len())]
}

#[test]
fn every_alert_is_in_the_page() {
    let mut alerts = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src/array")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the engine's source") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("text");
            for (at, _) in text.match_indices(".event(") {
                let call = arguments(&text[at + ".event".len()..]);
                let severity = call[1..].trim_start();
                if severity.starts_with("Severity::Info") {
                    continue;
                }
                if call.contains("\"{}-ended\"") {
                    // A fill, by what it fills for.
                    alerts.extend(
                        ["readd", "rebuild", "replace"].map(|fill| format!("{fill}-ended")),
                    );
                }
                alerts.extend(kinds_in(call).into_iter().take(1));
            }
            // Severity and kind chosen together, ahead of the call.
            for severity in ["(Severity::Warning, \"", "(Severity::Critical, \""] {
                let chosen = text.match_indices(severity);
                alerts.extend(chosen.flat_map(|(at, _)| kinds_in(arguments(&text[at..]))));
            }
        }
    }
    assert!(alerts.len() > 25, "the source is read: {alerts:?}");
    assert_eq!(listed("Alerts"), alerts);
}
