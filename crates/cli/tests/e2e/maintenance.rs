//! Scrubs, injected errors, alerts and the event log.

use std::fs;

use serde_json::json;

use crate::util::*;

/// Runs a scrub and answers its job.
fn scrub(server: &Server, more: &[&str]) -> serde_json::Value {
    let started = server.json(&[&["scrub", "1"], more].concat());
    server.ok(&["jobs", "--wait"]);
    let jobs = server.json(&["jobs"]);
    let job = jobs.as_array().expect("a list").iter().find(|j| j["id"] == started["job"]);
    job.unwrap_or_else(|| panic!("job {started} is not in {jobs}")).clone()
}

/// Flips a bit of a member's data space while nobody serves it.
fn rot(disk: &str, offset: u64) {
    let data = region(disk, "data");
    edit(disk, data.start + offset, |bytes| bytes[100] ^= 0x10, 4096);
}

#[test]
fn a_scrub_finds_silent_corruption_and_repair_mends_it() {
    for (level, disks, bad) in [("5", 4, 4), ("6", 5, 5), ("1", 3, 3), ("10", 4, 2)] {
        let dir = Dir::new();
        dir.create(disks, "16MiB", &["--level", level, "--no-checksums"]);
        let server = dir.serve(disks);
        let data = server.fill("vault", 1);
        assert_eq!(scrub(&server, &[])["mismatches"], 0, "level {level}");
        server.stop();
        // In the first stripe: parity of levels 5 and 6, a later copy of the mirrors.
        rot(&dir.disk(bad), 0);

        let server = dir.serve(disks);
        let found = scrub(&server, &[]);
        assert_eq!(
            (&found["kind"], &found["state"]),
            (&json!("check"), &json!("done")),
            "level {level}"
        );
        assert!(found["mismatches"].as_u64() > Some(0), "level {level}: {found}");
        assert_eq!(
            scrub(&server, &[])["mismatches"],
            found["mismatches"],
            "level {level}: a check changes nothing"
        );
        let told = server.status()["problems"].to_string();
        assert!(told.contains("copies or parity differ") && told.contains("--repair"), "{told}");
        let mended = scrub(&server, &["--repair"]);
        assert_eq!(
            (&mended["kind"], &mended["mismatches"]),
            (&json!("repair"), &found["mismatches"]),
            "level {level}"
        );
        assert_eq!(server.health(), "healthy", "level {level}: repaired");
        assert_eq!(scrub(&server, &[])["mismatches"], 0, "level {level}");
        server.verify("vault", &data, "repair does not destroy");
        // The mended disk is needed now.
        server.ok(&["disk", "fail", "1"]);
        server.verify("vault", &data, "with the mended disk");
    }
}

#[test]
fn what_does_not_fit_its_checksum_is_answered_from_the_others_and_mended() {
    for (level, disks, bad) in [("5", 4, 1), ("6", 5, 2), ("1", 2, 1), ("10", 4, 1)] {
        let dir = Dir::new();
        dir.create(disks, "16MiB", &["--level", level]);
        let server = dir.serve(disks);
        let data = server.fill("vault", 1);
        server.stop();
        for offset in [0, 8 << 12, 300 << 12] {
            rot(&dir.disk(bad), offset);
        }
        let told = run(forestall(&["check", "--data"]).args(dir.disks(disks))).exits(3);
        assert!(told.stdout.contains("checksum"), "{}", told.stdout);
        let server = dir.serve(disks);
        server.verify("vault", &data, "of a disk that rots");
        let scrub = scrub(&server, &[]);
        assert_eq!((&scrub["state"], &scrub["mismatches"]), (&json!("done"), &json!(0)), "{scrub}");
        let counted = server.disk(bad)["errors"]["checksums"].as_u64();
        assert_eq!(counted, Some(3), "level {level}: each rotten block once");
        let status = server.ok(&["status"]);
        assert!(status.contains("3 checksum mismatches"), "{status}");
        server.stop();
        // Another one is gone: what was mended is needed.
        let there: Vec<String> =
            (1..=disks).filter(|disk| *disk != bad + 1).map(|disk| dir.disk(disk)).collect();
        let server = dir.serve_with(&there, &["--degraded"]);
        server.verify("vault", &data, "after the disk was mended");
    }
}

#[test]
fn without_redundancy_what_does_not_fit_is_an_error_until_it_is_written() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "0", "--chunk", "4KiB"]);
    let server = dir.serve(2);
    server.fill("vault", 1);
    server.stop();
    rot(&dir.disk(1), 5 << 12);
    let server = dir.serve(2);
    // Chunk 5 of disk 1 is block 10 of the volume.
    let (bad, block) = (10 << 12, vec![7; 4096]);
    let (_, errors) = server.read_around("vault");
    assert_eq!(errors.into_iter().collect::<Vec<_>>(), [10], "that block and no other");
    server.stop();
    let told = run(forestall(&["check", "--data"]).args(dir.disks(2))).exits(4);
    assert!(told.stdout.contains("checksum"), "{}", told.stdout);
    let server = dir.serve(2);
    let mut client = server.connect("vault");
    client.write(bad, &block, false).expect("a whole block is written");
    let mut read = vec![0; 4096];
    client.read(bad, &mut read).expect("and read");
    assert_eq!(read, block);
}

#[test]
fn unreadable_blocks_are_answered_from_the_others_and_rewritten() {
    let dir = Dir::new();
    dir.create(4, "24MiB", &["--level", "5", "--allow-injection"]);
    let server = dir.serve(4);
    let data = server.fill("vault", 2);
    let start = region(&dir.disk(2), "data").start;
    let (offset, length) = (start.to_string(), (64 * KIB).to_string());
    server.ok(&[
        "inject", "disk", "2", "--op", "read", "--kind", "error", "--offset", &offset, "--len",
        &length, "--count", "3",
    ]);
    let notes = server.disk(2)["notes"].to_string();
    assert!(notes.contains("injection in force"), "{notes}");
    server.verify("vault", &data, "with read errors");
    let disk = server.disk(2);
    assert!(disk["errors"]["recovered_reads"].as_u64() > Some(0), "{disk}");
    assert_eq!(disk["state"], "in-sync", "a read error alone fails no disk");
    server.ok(&["inject", "disk", "2", "--clear"]);
    assert_eq!(scrub(&server, &[])["mismatches"], 0);
}

#[test]
fn a_dying_member_costs_no_request() {
    let dir = Dir::new();
    dir.create(5, "24MiB", &["--level", "6", "--spares", "1", "--allow-injection"]);
    let server = dir.serve(5);
    server.fill("vault", 3);
    server.ok(&["inject", "disk", "1", "--op", "write", "--kind", "death"]);
    let data = server.fill("vault", 4);
    server.verify("vault", &data, "a member died under it");
    server.ok(&["inject", "disk", "3", "--op", "flush", "--kind", "error"]);
    let data = server.fill("vault", 5);
    server.verify("vault", &data, "a second one cannot flush");
    let failed = server.json(&["events"]).to_string();
    assert!(failed.contains("disk-failed"), "{failed}");
}

#[test]
fn slow_and_stalled_disks_are_waited_for_or_left_behind() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "1", "--allow-injection"]);
    let server = dir.serve_with(&dir.disks(3), &["--disk-timeout", "300"]);
    server.ok(&["inject", "disk", "1", "--kind", "delay", "--ms", "20", "--count", "5"]);
    let data = server.fill("vault", 6);
    assert_eq!(server.health(), "healthy");
    server.ok(&["inject", "disk", "2", "--op", "write", "--kind", "stall"]);
    let mut client = server.connect("vault");
    let piece = noise(7, 4096);
    client.write(0, &piece, true).expect("the stalled disk is left behind");
    assert_eq!(server.disk(2)["state"], "failed");
    assert!(server.disk(2)["errors"]["timeouts"].as_u64() > Some(0));
    let mut found = vec![0; data.len()];
    client.read(0, &mut found[..1 << 20]).expect("read");
    assert_same(&found[..4096], &piece, "the write that was answered");
    server.ok(&["inject", "disk", "2", "--clear"]);
    // What stalled lands now; until it has, the disk is not taken back (rule F3).
    wait_for("disk 2 to be taken back", || {
        let readd = server.run(&["disk", "readd", "2"]);
        if readd.code == Some(0) {
            return Some(());
        }
        readd.refused(&["requests under way that timed out"]);
        None
    });
    server.healed();
}

#[test]
fn injection_is_refused_unless_the_array_allows_it() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    let server = dir.serve(2);
    server.run(&["inject", "disk", "1", "--kind", "error"]).refused(&["--allow-injection"]);
}

#[test]
fn events_are_kept_across_restarts() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    let server = dir.serve(3);
    server.ok(&["volume", "rename", "vault", "first"]);
    server.ok(&["disk", "fail", "3"]);
    let before = server.json(&["events"]);
    server.stop();
    let server = dir.serve(3);
    let after = server.json(&["events"]);
    let (before, after) = (before.as_array().expect("a list"), after.as_array().expect("a list"));
    assert!(after.len() > before.len(), "a restart is an event");
    assert_eq!(&after[..before.len()], &before[..], "what was told is told again");
    let sequences: Vec<u64> =
        after.iter().map(|e| e["sequence"].as_u64().expect("a number")).collect();
    assert!(sequences.windows(2).all(|pair| pair[0] < pair[1]), "{sequences:?}");
    for kind in ["array-started", "volume-renamed", "disk-failed"] {
        assert!(after.iter().any(|e| e["kind"] == kind), "no {kind}");
    }
}

#[test]
fn the_hook_is_run_for_warnings() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1", "--volume", "data"]);
    let (told, raw) = (dir.path("told"), dir.path("raw"));
    let hook = format!(
        "cat > '{}.part' && mv '{0}.part' '{0}' && printf '%s|%s|%s|%s' \"$FORESTALL_ARRAY\" \"$FORESTALL_EVENT_KIND\" \
         \"$FORESTALL_EVENT_DISK\" \"$FORESTALL_EVENT_SEVERITY\" > '{}.part' && mv '{1}.part' '{1}'",
        raw.display(),
        told.display(),
    );
    let server = dir.serve_with(&dir.disks(2), &["--on-event", &hook]);
    assert!(!told.exists(), "a healthy start is no warning");
    server.ok(&["disk", "fail", "2"]);
    let line = wait_for("the hook", || fs::read_to_string(&told).ok());
    assert_eq!(line, "vault|disk-failed|2|warning");
    let event: serde_json::Value = serde_json::from_slice(&contents(&raw)).expect("JSON on stdin");
    assert_eq!((&event["kind"], &event["disk"]), (&json!("disk-failed"), &json!(2)));
    server.stop();
}
