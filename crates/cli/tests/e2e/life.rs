//! The life of disks, groups and volumes: spares, replacement, readd, growth, names.

use forestall_nbd::{ClientOptions, ConnectError, list_exports};
use serde_json::json;

use crate::util::*;

/// Reads a field of every disk.
fn states(server: &Server) -> Vec<String> {
    let disks = server.json(&["disk", "list"]);
    disks
        .as_array()
        .expect("a list")
        .iter()
        .map(|d| d["state"].as_str().expect("a word").to_owned())
        .collect()
}

#[test]
fn a_spare_takes_a_failed_members_place_by_itself() {
    let dir = Dir::new();
    let made = dir.create(5, "16MiB", &["--level", "5", "--spares", "1"]);
    let next = format!("forestall serve {}\n", dir.disks(5).join(" "));
    assert!(made.ends_with(&next), "the command to type next: {made}");
    let server = dir.serve(5);
    let data = server.fill("vault", 1);
    server.ok(&["disk", "fail", "2"]);
    server.healed();
    server.verify("vault", &data, "after the rebuild");
    assert_eq!(states(&server), ["in-sync", "failed", "in-sync", "in-sync", "in-sync"]);
    assert_eq!(server.json(&["show", "t1"])[0]["disks"], json!([1, 5, 3, 4]));
    let jobs = server.json(&["jobs"]);
    assert_eq!(
        (&jobs[0]["kind"], &jobs[0]["state"], &jobs[0]["disk"]),
        (&json!("rebuild"), &json!("done"), &json!(5))
    );
    // A note, not a problem: the spent disk, why it is spent, and what to do with it.
    let status = server.run(&["status"]).exits(0).stdout;
    for words in ["HEALTHY, 1 note", "failed by the operator", "forestall disk remove 2"] {
        assert!(status.contains(words), "{words} in {status}");
    }
    assert!(status.contains(&format!("replace the hardware ({})", dir.disk(2))), "{status}");
    // What the spare took is real: the data needs it now.
    server.ok(&["disk", "fail", "1"]);
    server.verify("vault", &data, "read through the former spare");
    server.ok(&["disk", "remove", "2"]);
    run(&mut forestall(&["inspect", &dir.disk(2)])).exits(1);
    server.stop();
    let server = dir.serve_with(&[dir.disk(3), dir.disk(4), dir.disk(5)], &[]);
    server.verify("vault", &data, "after a restart");
}

#[test]
fn waiting_for_jobs_includes_the_rebuild_that_is_about_to_start() {
    let dir = Dir::new();
    dir.create(4, "16MiB", &["--level", "1", "--spares", "2", "--allow-injection"]);
    let server = dir.serve(4);
    server.fill("vault", 1);
    for (lost, spare) in [(1, 3), (2, 4)] {
        // So slow that it neither begins nor ends before it is looked for.
        let slow = ["--op", "write", "--kind", "delay", "--ms", "100"];
        server.ok(&[&["inject", "disk", &spare.to_string()][..], &slow].concat());
        server.ok(&["disk", "fail", &lost.to_string()]);
        let ended = server.json(&["jobs", "--wait"]);
        assert_eq!(
            (&ended[0]["kind"], &ended[0]["state"], &ended[0]["disk"]),
            (&json!("rebuild"), &json!("done"), &json!(spare)),
            "{ended}"
        );
        assert_eq!(server.health(), "healthy");
    }
    assert_eq!(server.json(&["jobs", "--wait"]), json!([]), "nothing is due any more");
}

#[test]
fn a_spare_that_is_busy_elsewhere_is_not_promised() {
    let dir = Dir::new();
    dir.create(4, "16MiB", &["--allow-injection"]);
    let server = dir.serve_with(&dir.disks(4), &["--disk-timeout", "600000"]);
    server.ok(&["group", "create", "--level", "1", "--disks", "1,2"]);
    server.ok(&["group", "create", "--level", "1", "--disks", "3,4"]);
    server.ok(&["volume", "create", "v", "--group", "1", "--size", "8MiB"]);
    server.fill("v", 4);
    server.ok(&["disk", "add", &dir.text("spare"), "--size", "16MiB"]);
    let data = region(&dir.text("spare"), "data");
    let (start, len) = (data.start.to_string(), (data.end - data.start).to_string());
    // It is filled as long as this test lasts.
    server.ok(&[
        "inject", "disk", "5", "--op", "write", "--kind", "stall", "--offset", &start, "--len",
        &len,
    ]);
    server.ok(&["disk", "fail", "1"]);
    wait_for("the spare to be filled", || (server.disk(5)["state"] == "rebuilding").then_some(()));
    server.ok(&["disk", "fail", "3"]);
    let problems = server.status()["problems"].to_string();
    assert!(problems.contains("the only spare, disk 5, is being filled in group 1"), "{problems}");
    assert!(!problems.contains("about to take its place"), "{problems}");
}

#[test]
fn a_size_that_is_not_whole_blocks_is_rounded_aloud() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &[]);
    let server = dir.serve(2);
    server.ok(&["group", "create", "--level", "0", "--disks", "1,2"]);
    let made = server.ok(&["volume", "create", "v", "--group", "1", "--size", "513"]);
    assert!(made.contains("513 B were asked for, it has 4 KiB"), "{made}");
    let made = server.json(&["volume", "create", "w", "--group", "1", "--size", "4097"]);
    assert_eq!(made, json!({"volume": 2, "size": 8192}));
    let grown = server.ok(&["volume", "grow", "v", "--size", "9000"]);
    assert!(grown.contains("v has 12 KiB now") && grown.contains("were asked for"), "{grown}");
    let whole = server.ok(&["volume", "create", "x", "--group", "1", "--size", "1MiB"]);
    assert!(!whole.contains("asked for"), "{whole}");
}

#[test]
fn a_spare_that_dies_gives_way_to_the_next() {
    let dir = Dir::new();
    dir.create(5, "16MiB", &["--level", "1", "--spares", "3", "--allow-injection"]);
    let server = dir.serve(5);
    let data = server.fill("vault", 2);
    // It dies only once it is written to, which is when it is a spare no more.
    server.ok(&["inject", "disk", "3", "--op", "write", "--kind", "death"]);
    server.ok(&["disk", "fail", "1"]);
    wait_for("another spare to take the place", || {
        (server.json(&["show", "t1"])[0]["disks"] == json!([4, 2])).then_some(())
    });
    server.ok(&["jobs", "--wait"]);
    server.verify("vault", &data, "after two failures");
    wait_for("the group to be whole", || {
        (server.json(&["group", "list"])[0]["health"] == "healthy").then_some(())
    });
    assert_eq!(server.disk(3)["state"], "failed");
    server.ok(&["disk", "fail", "2"]);
    server.healed_group();
    server.verify("vault", &data, "on spares alone");
}

#[test]
fn a_copy_that_starts_over_on_another_spare_says_so() {
    let dir = Dir::new();
    dir.create(5, "24MiB", &["--level", "5", "--spares", "2", "--allow-injection"]);
    let server = dir.serve(5);
    let data = server.fill("vault", 2);
    server.ok(&["replace", "1", "--with", "5", "--rate", "1"]);
    server.ok(&["inject", "disk", "5", "--op", "write", "--kind", "death"]);
    let jobs = wait_for("the copy to the other spare", || {
        let jobs = server.json(&["jobs"]).as_array()?.clone();
        jobs.iter().any(|job| job["disk"] == 4).then_some(jobs)
    });
    let message = |disk: u32| {
        let job = jobs.iter().find(|job| job["disk"] == disk).expect("a job");
        job["message"].as_str().expect("words").to_owned()
    };
    assert!(message(5).contains("disk 4 is filled in its stead"), "{jobs:?}");
    assert!(message(4).contains("in the stead of disk 5"), "{jobs:?}");
    let events = server.ok(&["events"]);
    assert!(events.contains("disk 4 fills slot 0 of group 1 in the stead of disk 5"), "{events}");
    assert!(!events.contains("as asked"), "{events}");
    server.unlimit(jobs.last().expect("a job")["id"].as_u64().expect("an id"));
    wait_for("the swap", || (server.disk(4)["state"] == "in-sync").then_some(()));
    server.verify("vault", &data, "after the swap");
}

#[test]
fn replace_copies_a_disk_that_stays_in_service() {
    let dir = Dir::new();
    dir.create(5, "24MiB", &["--level", "6", "--spares", "1"]);
    let server = dir.serve(5);
    let mut data = server.fill("vault", 3);
    let job = server.json(&["replace", "2", "--with", "5", "--rate", "8"])["job"]
        .as_u64()
        .expect("an id");
    assert_eq!(
        server.json(&["group", "list"])[0]["failures_left"],
        2,
        "redundancy is never given up"
    );
    // Writes during the copy arrive on both.
    let mut client = server.connect("vault");
    for at in (0..data.len() as u64 - 5000).step_by(1_500_007) {
        let piece = noise(at, 5000);
        client.write(at, &piece, false).expect("written");
        data[at as usize..at as usize + 5000].copy_from_slice(&piece);
    }
    client.flush().expect("flushed");
    server.unlimit(job);
    server.healed();
    assert_eq!(server.json(&["show", "t1"])[0]["disks"], json!([1, 5, 3, 4]));
    // Tested in the background and found healthy.
    wait_for("the test of the replaced disk", || {
        (server.disk(2)["state"] == "spare").then_some(())
    });
    server.ok(&["disk", "remove", "2"]);
    server.ok(&["disk", "fail", "1"]);
    server.ok(&["disk", "fail", "3"]);
    server.verify("vault", &data, "with the replacement and one other");
}

#[test]
fn replace_then_fail_another_member() {
    let dir = Dir::new();
    dir.create(5, "24MiB", &["--level", "5", "--spares", "1"]);
    let server = dir.serve(5);
    let data = server.fill("vault", 4);
    server.ok(&["replace", "1", "--rate", "2"]);
    server.ok(&["disk", "fail", "3"]);
    // The copy's limit does not count while a member is out.
    server.verify("vault", &data, "while the copy ends, a member less");
    server.ok(&["jobs", "--wait"]);
    server.verify("vault", &data, "after the copy");
}

#[test]
fn a_disk_that_comes_back_is_given_only_what_changed() {
    let dir = Dir::new();
    dir.create(4, "48MiB", &["--level", "5"]);
    let server = dir.serve(4);
    let mut data = server.fill("vault", 5);
    // Stopped cleanly no region is marked; while it runs, marks of written regions are cleared lazily.
    server.stop();
    let server = dir.serve(4);
    server.ok(&["disk", "fail", "2"]);
    let before = server.disk(2)["accesses"]["written_bytes"].as_u64().expect("a number");
    let change = noise(6, 100_000);
    server.connect("vault").write(70_000_000, &change, true).expect("written");
    data[70_000_000..70_100_000].copy_from_slice(&change);
    server.ok(&["disk", "readd", "2"]);
    server.healed();
    let written = server.disk(2)["accesses"]["written_bytes"].as_u64().expect("a number") - before;
    assert!((1..4 << 20).contains(&written), "{written} bytes were copied for a change of 100000");
    let jobs = server.json(&["jobs"]);
    assert_eq!(jobs[0]["kind"], "readd", "{jobs}");
    server.ok(&["disk", "fail", "1"]);
    server.verify("vault", &data, "with the disk that came back");
}

#[test]
fn a_stale_disk_is_not_used_until_it_is_readded() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "1"]);
    let server = dir.serve(3);
    server.fill("vault", 7);
    server.ok(&["disk", "fail", "1"]);
    let data = server.fill("vault", 8);
    server.stop();
    // The stale one is named first.
    let server = dir.serve(3);
    server.verify("vault", &data, "a stale disk is present");
    assert_eq!(server.disk(1)["state"], "failed");
    assert_eq!(server.health(), "degraded");
    server.ok(&["disk", "readd", "1", &dir.disk(1)]);
    server.healed();
    server.ok(&["disk", "fail", "2"]);
    server.ok(&["disk", "fail", "3"]);
    server.verify("vault", &data, "from the disk that was stale");
}

#[test]
fn disks_are_added_and_removed() {
    let dir = Dir::new();
    dir.create(2, "16MiB", &["--level", "1"]);
    let server = dir.serve(2);
    assert_eq!(server.json(&["disk", "add", &dir.disk(3), "--size", "16MiB"])["disk"], 3);
    assert!(
        server
            .ok(&["disk", "add", &dir.disk(4), "--role", "free", "--size", "16MiB"])
            .contains("disk 4")
    );
    assert_eq!(states(&server), ["in-sync", "in-sync", "spare", "free"]);
    server.run(&["disk", "remove", "1"]).refused(&["disk 1", "group 1", "replace 1"]);
    server.run(&["disk", "remove", "9"]).refused(&["disk 9"]);
    server.ok(&["disk", "remove", "3"]);
    run(&mut forestall(&["inspect", &dir.disk(3)])).exits(1);
    // A removed disk is free for others, and its number too.
    assert_eq!(server.json(&["disk", "add", &dir.disk(3)])["disk"], 3);
    server.stop();
    let server = dir.serve(4);
    assert_eq!(states(&server), ["in-sync", "in-sync", "spare", "free"]);
}

#[test]
fn groups_and_volumes_come_and_go() {
    let dir = Dir::new();
    dir.create(6, "16MiB", &[]);
    let server = dir.serve(6);
    assert_eq!(server.json(&["group", "create", "--level", "5", "--disks", "1,2,3"])["group"], 1);
    assert_eq!(
        server.json(&["group", "create", "--level", "1", "--disks", "6,5", "--chunk", "4KiB"])["group"],
        2
    );
    assert_eq!(
        server.json(&["volume", "create", "a", "--group", "1", "--size", "4MiB"])["volume"],
        1
    );
    assert_eq!(
        server.json(&["volume", "create", "b", "--group", "2", "--size", "2MiB", "--number", "7"])
            ["volume"],
        7
    );
    assert_eq!(
        server.json(&["show", "t1"])[1],
        json!({"group": 2, "volumes": [7], "disks": [6, 5], "level": "1"})
    );
    let (a, b) = (server.fill("a", 1), server.fill("b", 2));

    server.run(&["group", "delete", "1"]).refused(&["group 1", "\"a\"", "delete"]);
    server.ok(&["group", "create", "--level", "0", "--disks", "4"]);
    server.ok(&["group", "delete", "3"]);
    assert_eq!(server.disk(4)["state"], "free");
    server.verify("a", &a, "others came and went");

    let mut open = server.connect("a");
    server.ok(&["volume", "delete", "a"]);
    assert!(open.read(0, &mut [0; 512]).is_err(), "a deleted volume answers");
    assert!(
        server
            .json(&["volume", "list"])
            .as_array()
            .expect("a list")
            .iter()
            .all(|v| v["name"] != "a")
    );
    server.ok(&["group", "delete", "1"]);
    server.ok(&["group", "create", "--level", "5", "--disks", "1,2,3,4"]);
    server.ok(&["volume", "create", "a", "--group", "1", "--size", "4MiB"]);
    server.verify("a", &vec![0; 4 << 20], "a new volume reads as zeroes");
    server.verify("b", &b, "the other group");
    server.stop();
    dir.serve(6).verify("b", &b, "after a restart");
}

#[test]
fn a_volume_grows_and_changes_its_name() {
    let dir = Dir::new();
    dir.create(3, "32MiB", &[]);
    let server = dir.serve(3);
    server.ok(&["group", "create", "--level", "5", "--disks", "1,2,3"]);
    server.ok(&["volume", "create", "a", "--group", "1", "--size", "5MiB"]);
    // In the way, so that growing takes a second extent.
    server.ok(&["volume", "create", "wall", "--group", "1", "--size", "1MiB"]);
    let mut data = server.fill("a", 1);
    let mut old = server.connect("a");
    server.ok(&["volume", "grow", "a", "--size", "12MiB"]);
    data.resize(12 << 20, 0);
    server.verify("a", &data, "grown, and the new part reads as zeroes");
    assert_eq!(old.export().size, 5 << 20);
    old.write(0, &data[..512], false).expect("connections from before go on");
    server.run(&["volume", "grow", "a", "--size", "1MiB"]).refused(&["\"a\"", "shrink"]);

    server.ok(&["volume", "rename", "a", "b c/ü"]);
    server.verify("b c/ü", &data, "under the new name");
    old.read(0, &mut [0; 512]).expect("connections from before go on");
    let stream = std::os::unix::net::UnixStream::connect(server.nbd_socket()).expect("it listens");
    let refused = forestall_nbd::Client::connect(stream, &ClientOptions::new("a"))
        .expect_err("the old name is gone");
    assert!(matches!(refused, ConnectError::Refused { .. }), "{refused}");
    let stream = std::os::unix::net::UnixStream::connect(server.nbd_socket()).expect("it listens");
    let listed = list_exports(stream).expect("a list");
    let names: Vec<&str> = listed.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["b c/ü", "wall"]);
    // By number as well.
    server.ok(&["volume", "rename", "2", "fence"]);
    server.ok(&["volume", "delete", "fence"]);
    server.stop();
    dir.serve(3).verify("b c/ü", &data, "after a restart");
}

#[test]
fn a_volume_whose_requests_hang_is_deleted_without_holding_up_other_commands() {
    let dir = Dir::new();
    dir.create(5, "16MiB", &["--allow-injection"]);
    let server = dir.serve(5);
    server.ok(&["group", "create", "--level", "1", "--disks", "1,2,3,4,5"]);
    server.ok(&["volume", "create", "a", "--group", "1", "--size", "4MiB"]);
    // The data hangs and the regions of the array do not.
    let data = region(&dir.disk(1), "data");
    let (at, len) = (data.start.to_string(), (data.end - data.start).to_string());
    let hang = ["--op", "write", "--kind", "stall", "--offset", &at, "--len", &len];
    for disk in ["1", "2", "3", "4", "5"] {
        server.ok(&[&["inject", "disk", disk][..], &hang].concat());
    }
    let mut client = server.connect("a");
    let writer = std::thread::spawn(move || client.write(0, &[7; 4096], true));
    wait_for("the write to be under way", || {
        let disks = server.json(&["disk", "list"]).to_string();
        (disks.matches("stall, 1 time").count() == 5).then_some(())
    });
    std::thread::scope(|scope| {
        let delete = scope.spawn(|| server.ok(&["volume", "delete", "a"]));
        server.shuts("a");
        server.ok(&["volume", "create", "b", "--group", "1", "--size", "4MiB"]);
        assert!(!delete.is_finished(), "its write hangs");
        for disk in ["1", "2", "3", "4", "5"] {
            server.ok(&["inject", "disk", disk, "--clear"]);
        }
        delete.join().expect("deleted in the end");
    });
    writer.join().expect("no panic").expect("accepted before, and done");
    let volumes = server.json(&["volume", "list"]);
    assert_eq!((volumes[0]["name"].as_str(), &volumes[1]), (Some("b"), &json!(null)));
    let mut seen = [1; 4096];
    server.connect("b").read(0, &mut seen).expect("it is another one");
    assert_eq!(seen, [0; 4096]);
}
