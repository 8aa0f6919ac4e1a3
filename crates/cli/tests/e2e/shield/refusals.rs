//! What is refused around an avoidance, each naming what stands in the way and changing nothing; and cancelling in every state.

use serde_json::{Value, json};

use super::{Bench, avoidance, quick, slow, state, wait_state, with_work_volume};
use crate::util::*;

/// All that a refusal must leave as it is.
fn picture(server: &Server) -> [Value; 5] {
    let disks = server.json(&["disk", "list"]);
    let disk = |d: &Value| json!([d["number"], d["state"], d["group"], d["slot"], d["work_disk"]]);
    let disks = disks.as_array().expect("a list").iter().map(disk).collect();
    let mut groups = server.json(&["group", "list"]);
    groups[0]["avoidance"]["away_blocks"].take();
    let tables = [["show", "t5"], ["show", "t6"]].map(|table| server.json(&table));
    let [t5, t6] = tables;
    [Value::Array(disks), groups, server.json(&["volume", "list"]), t5, t6]
}

#[track_caller]
fn refused(server: &Server, line: &str, words: &[&str]) {
    let before = picture(server);
    let args: Vec<&str> = line.split_whitespace().collect();
    server.run(&args).refused(words);
    assert_eq!(picture(server), before, "{line}: nothing changed");
}

#[test]
fn a_replacement_that_cannot_be_is_refused() {
    let dir = Dir::new();
    dir.create(9, "24MiB", &["--allow-injection"]);
    let server = dir.serve(9);
    server.ok(&["group", "create", "--level", "5", "--disks", "1,2,3"]);
    server.ok(&["group", "create", "--level", "5", "--disks", "4,5,6"]);
    server.ok(&["volume", "create", "vault", "--group", "1", "--size", "8MiB"]);
    refused(&server, "replace 1", &["no spare", "disk add"]);
    refused(&server, "replace 1 --with 1", &["disk 1 cannot replace itself"]);
    refused(&server, "replace 1 --with 4", &["disk 4", "group 2"]);
    refused(&server, "replace 1 --with 99", &["disk 99"]);
    refused(&server, "replace 99", &["disk 99"]);
    refused(&server, "replace 9", &["disk 9 is in no group"]);
    // Disk 10 is large enough for neither group; as a free disk it may be added.
    server.ok(&["disk", "add", &dir.disk(10), "--role", "free", "--size", "16MiB"]);
    refused(&server, "replace 1 --with 10", &["disk 10", "are needed"]);
    server.ok(&["disk", "fail", "8"]);
    refused(&server, "replace 1 --with 8", &["disk 8"]);
    refused(&server, "replace 1 --with 7 --backup work-disk", &["no work disk", "work-disk add"]);
    refused(
        &server,
        "replace 1 --with 7 --backup work-volume",
        &["no work volume", "work-volume add"],
    );
    server.ok(&["replace", "1", "--with", "7", "--backup", "auto"]);
    server.healed_group();
}

#[test]
fn status_tells_why_an_ailing_disk_is_copied_away() {
    let (bench, server) = Bench::with_work_disk("24MiB");
    server.fill("vault", 1);
    server.ok(&["policy", "set", "advise"]);
    server.ok(&["health", "set", "recovered-read", "2"]);
    server.ok(&["replace", "1", "--with", "5"]);
    server.healed();
    // Disk 5 is a member now, and errs; it stays ailing when it is an unused disk again.
    let start = region(&bench.dir.disk(5), "data").start.to_string();
    server.ok(&[
        "inject", "disk", "5", "--op", "read", "--kind", "error", "--offset", &start, "--len",
        "8MiB", "--count", "40",
    ]);
    server.read_all("vault");
    wait_for("disk 5 to be ailing", || {
        let rows = server.json(&["show", "t3"]);
        let row = rows.as_array()?.iter().find(|row| row["disk"] == 5)?["verdict"].clone();
        (row == "ailing").then_some(())
    });
    let status = server.run(&["status"]).exits(3).stdout;
    assert!(status.contains("disk 5"), "{status}");
    server.ok(&["inject", "disk", "5", "--clear"]);
    server.ok(&["disk", "remove", "1"]);
    server.ok(&["disk", "add", &bench.dir.disk(1), "--force"]);
    server.ok(&["replace", "5", "--with", "1", "--backup", "work-disk", "--rate", "1"]);
    let status = server.run(&["status"]).exits(3).stdout;
    assert!(
        status.contains("is shielded: disk 5") && status.contains("it is ailing: "),
        "{status}"
    );
    assert_eq!(avoidance(&server)["disk"], 5);
}

#[test]
fn an_ailing_disk_replaces_nobody() {
    let dir = Dir::new();
    let server = with_work_volume(&dir, "24MiB");
    server.ok(&["policy", "set", "advise"]);
    server.ok(&["health", "set", "recovered-read", "2"]);
    server.ok(&["work-volume", "remove", "spool"]);
    server.fill("spool", 1);
    let start = region(&dir.disk(5), "data").start.to_string();
    let errs = ["--op", "read", "--kind", "error", "--offset", &start, "--len", "8MiB"];
    run(forestall(&["inject", "disk", "5", "--count", "40", "-s"]).arg(&server.socket).args(errs))
        .ok();
    server.read_all("spool");
    wait_for("disk 5 to be ailing", || {
        (server.json(&["show", "t3"])[4]["verdict"] == "ailing").then_some(())
    });
    server.ok(&["volume", "delete", "spool"]);
    server.ok(&["group", "delete", "2"]);
    refused(&server, "replace 1 --with 5", &["disk 5 is ailing itself", "health clear 5"]);
    server.ok(&["health", "clear", "5"]);
    server.ok(&["inject", "disk", "5", "--clear"]);
    server.ok(&["replace", "1", "--with", "5"]);
}

#[test]
fn work_disks_that_cannot_be_are_refused_and_leave_no_file() {
    let (bench, server) = Bench::with_work_disk("24MiB");
    let path = |name: &str| bench.dir.text(name);
    let (x, y, d1, w1) = (path("x"), path("y"), path("d1"), path("w1"));
    let pair = format!("{x},{y}");
    let small = |size: &str| format!("work-disk add 61 --legs {pair} --size {size}");
    refused(&server, &small("64KiB"), &["x", "nothing was changed"]);
    refused(
        &server,
        &format!("work-disk add 60 --legs {pair} --size 24MiB"),
        &["60 is there already", "lacks no leg"],
    );
    refused(&server, &format!("work-disk add 5 --legs {pair} --size 24MiB"), &["disk 5 already"]);
    refused(&server, &format!("work-disk add 0 --legs {pair} --size 24MiB"), &["numbered from 1"]);
    refused(&server, &format!("work-disk add 61 --legs {pair} --for 9 --size 24MiB"), &["group 9"]);
    refused(&server, &format!("work-disk add 61 --legs {x},{x} --size 24MiB"), &["given twice"]);
    refused(
        &server,
        &format!("work-disk add 61 --legs {x},{d1} --size 24MiB"),
        &["disk 1 of this array"],
    );
    refused(&server, &format!("work-disk add 61 --legs {x},{w1} --size 24MiB"), &["disk 10"]);
    refused(&server, &format!("work-disk add 61 --legs {pair}"), &["--size"]);
    for file in [&x, &y] {
        assert!(!std::path::Path::new(file).exists(), "{file} is not left behind");
    }
    std::fs::write(&y, [[0; 510].as_slice(), &[0x55, 0xaa], &vec![0; 24 << 20]].concat())
        .expect("written");
    let before = contents(&y);
    refused(&server, &format!("work-disk add 61 --legs {x},{y} --size 24MiB"), &["y", "--force"]);
    assert_same(&contents(&y), &before, "somebody's data");
    server.ok(&["work-disk", "add", "61", "--legs", &pair, "--size", "24MiB", "--force"]);
    server.ok(&["work-disk", "remove", "61"]);
    refused(&server, "work-disk remove 61", &["no work disk 61"]);
    // The number of a work disk is no disk's.
    server.ok(&["work-disk", "add", "6", "--legs", &x, "--force"]);
    let added = server.json(&["disk", "add", &path("d7"), "--size", "24MiB"]);
    assert_eq!(added["disk"], 7);
    server.ok(&["work-disk", "remove", "6"]);
    // One leg is less safe than home.
    server.ok(&["work-disk", "remove", "60"]);
    server.ok(&["work-disk", "add", "62", "--legs", &path("z"), "--size", "24MiB"]);
    server.fill("vault", 1);
    refused(&server, "replace 1 --backup work-disk", &["work disk 62", "less safe than home"]);
    // What is kept for one group would be for any without it.
    server.ok(&["work-disk", "remove", "62"]);
    server.ok(&[
        "work-disk",
        "add",
        "63",
        "--legs",
        &x,
        "--size",
        "24MiB",
        "--for",
        "1",
        "--force",
    ]);
    server.ok(&["volume", "delete", "vault"]);
    refused(&server, "group delete 1", &["work disk 63 is kept for group 1 alone"]);
    server.ok(&["work-disk", "remove", "63"]);
    server.ok(&["group", "delete", "1"]);
}

#[test]
fn work_volumes_that_cannot_be_are_refused() {
    let dir = Dir::new();
    let server = with_work_volume(&dir, "24MiB");
    server.ok(&["volume", "create", "full", "--group", "2", "--size", "1MiB"]);
    server.ok(&["volume", "create", "tiny", "--group", "2", "--size", "4KiB"]);
    server.fill("full", 1);
    refused(&server, "work-volume add full", &["\"full\" holds data"]);
    refused(&server, "work-volume add tiny", &["\"tiny\"", "too small"]);
    refused(&server, "work-volume add spool", &["a work volume already"]);
    refused(&server, "work-volume add none", &["no volume \"none\""]);
    refused(&server, "work-volume add full --for none", &["no volume \"none\""]);
    refused(&server, "work-volume add tiny --for full", &["group 2", "belong elsewhere"]);
    refused(&server, "work-volume remove full", &["no work volume"]);
    refused(&server, "work-volume abandon full", &["\"full\" is no work volume"]);
    refused(&server, "volume delete vault", &["work volume 10 is kept for volume 1 alone"]);
    refused(&server, "volume delete spool", &["is a work volume", "work-volume remove 10"]);
    refused(&server, "volume grow 10 --size 14MiB", &["is a work volume"]);
    refused(
        &server,
        "volume set spool --backup pair",
        &["is a work volume", "nothing was changed"],
    );
    refused(&server, "group delete 2", &["group 2 holds volumes", "\"spool\""]);
    // In use, it stays.
    server.fill("vault", 2);
    server.ok(&["replace", "1", "--backup", "work-volume", "--rate", "1"]);
    server.ok(&["replace", "pause", "1"]);
    wait_state(&server, "copying");
    refused(&server, "work-volume remove spool", &["work volume 10", "volume 1 of group 1"]);
    server.ok(&["replace", "cancel", "1"]);
    server.healed();
    server.ok(&["work-volume", "remove", "10"]);
    let blank = server.read_all("spool");
    assert_same(&blank, &vec![0; blank.len()], "an ordinary, empty volume");
}

#[test]
fn what_a_shield_uses_cannot_be_taken_away() {
    let (bench, server) = Bench::with_work_disk("24MiB");
    let data = server.fill("vault", 1);
    let leg = server
        .json(&["disk", "list"])
        .as_array()
        .expect("a list")
        .iter()
        .find(|d| d["work_disk"] == 60)
        .expect("a leg")["number"]
        .to_string();
    refused(&server, &format!("disk remove {leg}"), &["leg of work disk 60", "work-disk remove"]);
    server.ok(&["replace", "1", "--backup", "work-disk", "--rate", "1"]);
    server.ok(&["replace", "pause", "1"]);
    wait_state(&server, "copying");
    server.connect("vault").write(0, &data[..4096], true).expect("written");
    refused(
        &server,
        "work-disk remove 60",
        &["work disk 60", "volume 1 of group 1", "forestall jobs"],
    );
    refused(&server, &format!("disk remove {leg}"), &["leg of work disk 60"]);
    refused(&server, "disk remove 1", &["disk 1 is in slot 0 of group 1"]);
    refused(&server, "disk remove 5", &["being filled", "replace cancel 5"]);
    refused(&server, "volume delete vault", &["group 1 is shielded", "\"vault\""]);
    refused(&server, "volume grow vault --size 60MiB", &["group 1 is shielded"]);
    refused(&server, "group delete 1", &["\"vault\""]);
    refused(&server, "replace 1", &["disk 1 is being replaced"]);
    refused(&server, "replace pause 1", &["paused already"]);
    // The first leg may fail; the last one holds what is not home.
    server.ok(&["disk", "fail", &leg]);
    let status = server.run(&["status"]).exits(3).stdout;
    for words in [
        "work disk 60 has 1 of 2 legs",
        &format!("disk {leg}"),
        "work-disk add 60 --legs PATH",
        "go home (work disk 60 takes none while it lacks a leg",
    ] {
        assert!(status.contains(words), "{words:?} in {status}");
    }
    let last = server
        .json(&["disk", "list"])
        .as_array()
        .expect("a list")
        .iter()
        .find(|d| d["state"] == "work")
        .expect("a leg")["number"]
        .to_string();
    // What one leg alone holds is taken home early (rule B7), beside whatever else is asked: a refusal is looked at once that is done.
    wait_for("the early way home", || {
        server.json(&["events"]).to_string().contains("drained-early").then_some(())
    });
    refused(&server, &format!("disk fail {last}"), &["last leg of work disk 60"]);
    server.verify("vault", &data, "one leg is left");
    // A new leg is made equal while the log is in use: then the old one may go.
    let new = bench.dir.text("n1");
    refused(
        &server,
        &format!("work-disk add 60 --legs {new} --size 1MiB"),
        &["nothing was changed"],
    );
    server.ok(&["work-disk", "add", "60", "--legs", &new, "--size", "24MiB"]);
    server.ok(&["disk", "fail", &last]);
    server.verify("vault", &data, "the new leg is left");
}

#[test]
fn a_replacement_is_cancelled_in_every_state() {
    let (_bench, server) = Bench::with_work_disk("24MiB");
    let mut data = server.fill("vault", 1);
    let kept = |server: &Server| {
        server.healed();
        assert_eq!(
            (&server.disk(1)["state"], &server.disk(5)["state"]),
            (&"in-sync".into(), &"spare".into())
        );
        assert_eq!(state(server), "none");
    };
    let replace = || server.ok(&["replace", "1", "--backup", "work-disk", "--rate", "1"]);
    let mut write = |seed: u64| {
        let news = noise(seed, MIB);
        server.connect("vault").write(seed * MIB, &news, false).expect("written");
        data[(seed * MIB) as usize..][..MIB as usize].copy_from_slice(&news);
        data.clone()
    };

    slow(&server, &[2, 3, 4], "flush", "1000");
    replace();
    assert_eq!(state(&server), "entering");
    server.ok(&["replace", "cancel", "1"]);
    quick(&server, &[2, 3, 4]);
    kept(&server);

    replace();
    wait_state(&server, "copying");
    server.verify("vault", &write(2), "redirected");
    server.ok(&["replace", "cancel", "5"]);
    kept(&server);

    replace();
    server.ok(&["replace", "pause", "1"]);
    let now = write(3);
    server.ok(&["replace", "cancel", "1"]);
    kept(&server);
    server.verify("vault", &now, "all is home again");
    server.ok(&["disk", "fail", "2"]);
    server.verify("vault", &now, "the old disk holds what was written meanwhile");
    server.ok(&["disk", "readd", "2"]);
    server.healed();

    // Once the disks have changed places it is too late.
    replace();
    server.ok(&["replace", "pause", "1"]);
    let now = write(4);
    slow(&server, &[2, 3, 4], "write", "300");
    server.ok(&["replace", "resume", "1"]);
    let job = wait_for("the copy to run", || {
        let jobs = server.json(&["jobs"]);
        jobs.as_array()?.iter().find(|j| j["state"] == "running")?["id"].as_u64()
    });
    server.unlimit(job);
    wait_state(&server, "writing-back");
    let status = server.run(&["status"]).exits(3).stdout;
    assert!(status.contains("disk 1") && status.contains("last resort"), "{status}");
    assert_eq!(server.disk(1)["state"], "retiring");
    let jobs = server.ok(&["jobs"]);
    assert!(jobs.contains("write-back of group 1"), "{jobs}");
    refused(&server, "replace cancel 1", &["disk 1 was replaced already", "too late"]);
    refused(&server, "replace pause 1", &["disk 1 was replaced already"]);
    refused(&server, "disk remove 1", &["updates are home"]);
    quick(&server, &[2, 3, 4]);
    server.healed();
    server.verify("vault", &now, "after the write-back");
}
