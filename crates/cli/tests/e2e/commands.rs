//! Every command of the command line at least once: text, `--json`, exit codes.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::util::*;

#[test]
fn usage_errors_exit_2_and_say_what_is_wrong() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["frobnicate"], &["frobnicate"]),
        (&["create", "vault"], &["PATH"]),
        (&["create", "vault", "d1", "--level", "7"], &["7", "--level"]),
        (&["create", "vault", "d1", "--level", "5", "--chunk", "3KiB"], &["power of two"]),
        (&["create", "vault", "d1", "--level", "5", "--chunk", "2MiB"], &["4KiB to 1MiB"]),
        (&["create", "vault", "d1", "--size", "64M"], &["64M", "MiB"]),
        (&["create", "vault", "d1", "--spares", "1"], &["--level"]),
        (&["serve"], &["PATH"]),
        (&["serve", "d1", "--io", "magic"], &["magic", "uring", "pread"]),
        (&["volume", "create", "x", "--group", "1"], &["--size"]),
        (&["volume", "set", "x"], &["--read-only", "--read-write"]),
        (&["volume", "set", "x", "--read-only", "--read-write"], &["cannot be used with"]),
        (&["group", "create", "--level", "5"], &["--disks"]),
        (&["disk", "fail", "two"], &["two"]),
        (&["inject", "disk", "1"], &["--kind"]),
        (&["inject", "disk", "1", "--kind", "delay"], &["--ms"]),
        (&["inject", "volume", "1", "--kind", "error"], &["volume"]),
        (&["replace"], &["DISK"]),
        (&["scrub", "1", "--rate", "fast"], &["fast"]),
        (&["show", "t9"], &["t9"]),
        (&["destroy"], &["PATH"]),
        (&["inspect"], &["PATH"]),
    ];
    for (args, words) in cases {
        run(&mut forestall(args)).usage(words);
    }
    run(&mut forestall(&[])).exits(2);
}

#[test]
fn help_and_version_exit_0() {
    let commands = [
        "create", "serve", "disk", "group", "volume", "replace", "scrub", "jobs", "status", "show",
        "health", "policy", "events", "inject", "inspect", "destroy", "stop", "demo",
    ];
    let all = run(&mut forestall(&["--help"])).ok();
    for command in commands {
        assert!(all.contains(command), "{command} is not in the help");
        assert!(run(&mut forestall(&[command, "--help"])).ok().contains("Usage: forestall"));
    }
    assert!(run(&mut forestall(&["--version"])).ok().starts_with("forestall "));
    assert!(run(&mut forestall(&["completions", "bash"])).ok().contains("_forestall"));
}

#[test]
fn without_a_server_commands_exit_1_and_name_the_socket() {
    let dir = Dir::new();
    let socket = dir.text("none.sock");
    let commands: [&[&str]; 8] = [
        &["status"],
        &["disk", "list"],
        &["group", "list"],
        &["volume", "list"],
        &["jobs", "--wait"],
        &["events"],
        &["show", "t1"],
        &["stop"],
    ];
    for command in commands {
        run(forestall(command).args(["-s", &socket])).refused(&["no server answers", &socket]);
    }
    let by_environment = run(forestall(&["status"]).env("FORESTALL_SOCKET", &socket));
    by_environment.refused(&["no server answers", &socket]);
}

#[test]
fn create_makes_sparse_files_of_the_size_and_says_what_it_made() {
    let dir = Dir::new();
    let made = dir
        .try_create(&dir.disks(4), "64MiB", &["--level", "5", "--spares", "1", "--json"])
        .exits(0);
    let made = made.json();
    assert_eq!((made["array"].as_str(), made["disks"].as_u64()), (Some("vault"), Some(4)));
    for disk in dir.disks(4) {
        let file = std::fs::metadata(&disk).expect("it was made");
        assert_eq!(file.len(), 64 << 20);
        let used = std::os::unix::fs::MetadataExt::blocks(&file) * 512;
        assert!(used < 8 << 20, "{disk} is not sparse: {used} bytes");
    }
    let text = dir.try_create(&[dir.text("e1")], "18MB", &[]).ok();
    assert!(text.contains("vault"), "{text}");
    assert_eq!(std::fs::metadata(dir.path("e1")).expect("made").len(), 18_000_000);
}

#[test]
fn every_listing_prints_text_and_json() {
    let dir = Dir::new();
    dir.create(
        5,
        "16MiB",
        &["--level", "6", "--spares", "1", "--volume", "data", "--chunk", "16KiB"],
    );
    let server = dir.serve(5);

    let disks = server.json(&["disk", "list"]);
    let states: Vec<&str> = disks
        .as_array()
        .expect("a list")
        .iter()
        .map(|d| d["state"].as_str().expect("a word"))
        .collect();
    assert_eq!(states, ["in-sync", "in-sync", "in-sync", "in-sync", "spare"]);
    assert_eq!(disks[0]["identity"]["path"], dir.disk(1).as_str());
    let text = server.ok(&["disk", "list"]);
    assert!(text.starts_with("DISK") && text.contains(&dir.disk(5)), "{text}");

    let groups = server.json(&["group", "list"]);
    assert_eq!(groups[0]["level"], "6");
    assert_eq!(groups[0]["chunk"], 16384);
    assert_eq!(groups[0]["failures_left"], 2);
    assert_eq!(groups[0]["members"], serde_json::json!([1, 2, 3, 4]));
    assert!(server.ok(&["group", "list"]).contains("RAID6"));

    let volumes = server.json(&["volume", "list"]);
    assert_eq!((&volumes[0]["name"], &volumes[0]["number"]), (&"data".into(), &1.into()));
    assert!(volumes[0]["size"].as_u64().expect("a number") > 24 << 20);
    assert!(server.ok(&["volume", "list"]).contains("data"));

    assert_eq!(server.json(&["jobs"]), serde_json::json!([]));
    assert!(server.ok(&["jobs"]).contains("no work"));
    assert_eq!(server.json(&["jobs", "--wait"]), serde_json::json!([]));

    let events = server.json(&["events"]);
    assert!(
        events.as_array().expect("a list").iter().any(|e| e["kind"] == "array-started"),
        "{events}"
    );
    assert!(server.ok(&["events"]).contains("array-started"));

    let t1 = server.json(&["show", "t1"]);
    assert_eq!(
        t1,
        serde_json::json!([{"group": 1, "volumes": [1], "disks": [1, 2, 3, 4], "level": "6"}])
    );
    assert_eq!(
        server.ok(&["show", "t1"]),
        "GROUP#\tVOLUME#\tDISK#\tRAID LEVEL\n1\t1\t1, 2, 3, 4\tRAID6\n"
    );
    server.stop();
}

#[test]
fn status_tells_healthy_degraded_and_failed_apart() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5", "--allow-injection"]);
    let server = dir.serve(3);
    let text = server.run(&["status"]).exits(0).stdout;
    assert!(text.contains("HEALTHY") && text.contains("vault"), "{text}");
    let data = server.fill("vault", 1);

    server.ok(&["disk", "fail", "2"]);
    let text = server.run(&["status"]).exits(3).stdout;
    for word in ["DEGRADED", &dir.disk(2), "another failure", "disk add"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    let report = server.status();
    assert_eq!(report["groups"][0]["absent"], serde_json::json!([2]));
    assert_eq!(report["groups"][0]["failures_left"], 0);
    server.verify("vault", &data, "one member less");

    // A person cannot take the last copy away; a disk can.
    server.run(&["disk", "fail", "3"]).refused(&["group 1", "lose data"]);
    server.ok(&["inject", "disk", "3", "--kind", "death"]);
    let mut client = server.connect("vault");
    let refused = (0..64).find_map(|at| client.read(at * 65536, &mut [0; 4096]).err());
    assert!(refused.is_some(), "RAID5 answers with two members dead");
    wait_for("status to see it", || (server.run(&["status"]).code == Some(4)).then_some(()));
    let text = server.run(&["status"]).exits(4).stdout;
    assert!(text.contains("FAILED") && text.contains(&dir.disk(3)), "{text}");
}

#[test]
fn inspect_shows_a_disk_with_and_without_a_server() {
    let dir = Dir::new();
    dir.create(3, "64MiB", &["--level", "1", "--spares", "1"]);
    let offline = run(&mut forestall(&["inspect", "--json", &dir.disk(2)])).exits(0).json();
    assert_eq!(offline["labels"], serde_json::json!(["valid", "valid"]));
    assert_eq!(offline["label"]["number"], 2);
    assert_eq!(offline["label"]["name"], "vault");
    assert_eq!(offline["damage"], serde_json::json!([]));
    let data = region(&dir.disk(2), "data");
    assert!(data.start.is_multiple_of(MIB) && data.end <= 64 * MIB, "{data:?}");

    let server = dir.serve(3);
    let text = run(&mut forestall(&["inspect", &dir.disk(1)])).ok();
    for word in ["disk 1 of array vault", "label: valid", "no damage", "journal", "RAID1"] {
        assert!(text.contains(word), "no {word:?} in {text}");
    }
    server.stop();
    std::fs::write(dir.path("plain"), b"nothing of ours").expect("written");
    let found = run(&mut forestall(&["inspect", &dir.text("plain")])).exits(1).stdout;
    assert!(found.contains("no Forestall label"), "{found}");
    run(&mut forestall(&["inspect", &dir.text("absent")])).refused(&["absent"]);
}

#[test]
fn destroy_wipes_labels_of_disks_that_nobody_uses() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    std::fs::write(dir.path("plain"), vec![7; 1 << 20]).expect("written");
    let plain = dir.text("plain");
    // One that is not ours stops it before the first is wiped.
    run(&mut forestall(&["destroy", &dir.disk(1), &plain]))
        .refused(&["plain", "no Forestall label"]);
    assert_eq!(contents(&plain), vec![7; 1 << 20]);
    let server = dir.serve(3);
    run(&mut forestall(&["destroy", &dir.disk(1)])).refused(&[&dir.disk(1), "in use"]);
    server.stop();

    let wiped = run(forestall(&["destroy", "--json"]).args(dir.disks(3))).exits(0).json();
    assert_eq!(wiped.as_array().map(Vec::len), Some(3));
    run(&mut forestall(&["inspect", &dir.disk(1)])).exits(1);
    dir.serve_refused(&dir.disks(3), &[], &["d1"]);
    // Blank again: no force is needed.
    dir.create(3, "16MiB", &["--level", "5"]);
}

#[test]
fn events_follow_prints_what_happens() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    let server = dir.serve(2);
    let mut command = forestall(&["events", "--follow", "--json", "-s"]);
    command.arg(&server.socket).stdout(Stdio::piped());
    let mut follower = Killed::spawn(&mut command);
    let lines = BufReader::new(follower.0.stdout.take().expect("piped")).lines();
    server.ok(&["volume", "rename", "vault", "cellar"]);
    // The loop ends with the event or with the server, which is killed when this test is over.
    let renamed = lines
        .map_while(Result::ok)
        .map(|line| serde_json::from_str::<serde_json::Value>(&line).expect("one object a line"));
    let kinds: Vec<String> = {
        let mut kinds = Vec::new();
        for event in renamed {
            kinds.push(event["kind"].as_str().expect("a word").to_owned());
            if event["kind"] == "volume-renamed" {
                break;
            }
        }
        kinds
    };
    assert!(kinds.contains(&"array-started".to_owned()), "old events come first: {kinds:?}");
    let newest =
        server.json(&["events"]).as_array().expect("a list").last().expect("one")["sequence"]
            .clone();
    let after = server.json(&["events", "--after", &newest.to_string()]);
    assert_eq!(after, serde_json::json!([]));
}

#[test]
fn the_demo_keeps_every_byte() {
    let dir = Dir::new();
    let told = run(forestall(&["demo", "--json"]).env("TMPDIR", dir.root())).exits(0).json();
    assert!(told["verified_bytes"].as_u64().expect("a number") > 0, "{told}");
    let (shielded, direct) = (&told["costs"]["shielded"], &told["costs"]["direct"]);
    assert_eq!(shielded["group"], 0.0, "{told}");
    // Two reads and two writes for a small write of RAID5; some of them go to the spare too.
    assert!(direct["group"].as_f64().expect("a number") >= 4.0, "{told}");
    let left = std::fs::read_dir(dir.root()).expect("readable").count();
    assert_eq!(left, 0, "the demo leaves nothing behind");
}

#[test]
fn an_array_in_memory_is_served_without_files() {
    let dir = Dir::new();
    let disks = vec!["memory:32MiB".to_owned(); 3];
    let server = dir.serve_with(&disks, &["--level", "5", "--volume", "quick"]);
    let data = server.fill("quick", 3);
    server.verify("quick", &data, "memory");
    assert_eq!(server.health(), "healthy");
    server.stop();
    dir.serve_refused(&["memory:32MiB".into(), dir.disk(1)], &[], &["memory", "mixed"]);
    dir.serve_refused(&["memory:lots".into()], &[], &["memory:lots"]);
    run(&mut forestall(&["create", "x", "memory:32MiB"])).refused(&["memory"]);
}
