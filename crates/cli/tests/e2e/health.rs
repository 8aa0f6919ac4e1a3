//! Health: errors that are counted, thresholds that are set, a disk that is copied away before it fails.

use crate::util::*;

/// Waits until `done` holds of the row of disk 2 in `show t3`.
fn verdict_on_disk_2(server: &Server, wanted: &str) {
    wait_for(&format!("disk 2 to be {wanted}"), || {
        let rows = server.json(&["show", "t3"]);
        (rows[1]["disk"] == 2 && rows[1]["verdict"] == wanted).then_some(())
    });
}

#[test]
fn an_erring_disk_is_copied_to_the_spare_by_itself() {
    let dir = Dir::new();
    dir.create(5, "24MiB", &["--level", "5", "--spares", "1", "--allow-injection"]);
    let server = dir.serve(5);
    let data = server.fill("vault", 3);
    server.ok(&["policy", "set", "advise"]);
    server.ok(&["health", "set", "recovered-read", "4"]);
    let start = region(&dir.disk(2), "data").start.to_string();
    server.ok(&[
        "inject", "disk", "2", "--op", "read", "--kind", "error", "--offset", &start, "--len",
        "1MiB", "--count", "40",
    ]);
    server.verify("vault", &data, "while disk 2 errs");
    verdict_on_disk_2(&server, "ailing");
    let status = server.run(&["status"]).exits(3).stdout;
    assert!(status.contains("forestall replace 2"), "advice: {status}");
    let text = server.ok(&["show", "t3"]);
    let head = "DISK#\tRECOVERED READ\tUNRECOVERED READ\tWRITE ERROR\tTIMEOUT\tSLOW\tCHECKSUM\tTRANSPORT\tSMART\tLEVEL\tTHRESHOLD\tVERDICT\tREASON";
    assert_eq!(text.lines().next(), Some(head));
    server.ok(&["inject", "disk", "2", "--clear"]);

    // Counts and verdicts outlive a restart.
    server.stop();
    let server = dir.serve(5);
    verdict_on_disk_2(&server, "ailing");
    server.ok(&["policy", "set", "auto"]);
    // The ailing disk errs no more, and passes the test that follows.
    wait_for("the spare to take over", || {
        let swapped = server.disk(5)["state"] == "in-sync" && server.disk(2)["state"] == "spare";
        swapped.then_some(())
    });
    server.verify("vault", &data, "after the swap");
    let events = server.ok(&["events"]);
    for kind in ["disk-ailing", "avoidance-started", "replace-ended"] {
        assert!(events.contains(kind), "{kind} in {events}");
    }
    server.run(&["status"]).exits(0);
}

#[test]
fn thresholds_that_cannot_be_meant_and_unknown_disks_are_refused() {
    let dir = Dir::new();
    dir.create(3, "16MiB", &["--level", "5"]);
    let server = dir.serve(3);
    let before = server.ok(&["health", "show"]);
    server.run(&["health", "set", "timeout", "0"]).refused(&["threshold", "timeout"]);
    server.run(&["health", "set", "timeout", "1000001"]).refused(&["1000000"]);
    server.run(&["health", "set", "timeout", "-1"]).usage(&["`-1`", "1 to 1000000"]);
    server.run(&["health", "set", "fever", "3"]).usage(&["fever", "recovered-read"]);
    server.run(&["policy", "set", "panic"]).usage(&["panic", "advise"]);
    server.run(&["health", "clear", "9"]).refused(&["disk 9"]);
    assert_eq!(server.ok(&["health", "show"]), before, "nothing changed");
    server.ok(&["health", "set", "timeout", "7"]);
    assert!(server.ok(&["health", "show"]).contains("timeout 7"));
    let thresholds = server.json(&["status"])["policy"]["thresholds"].clone();
    assert_eq!((&thresholds["timeout"], &thresholds["smart"]), (&7.into(), &1.into()));
    let one = server.ok(&["health", "set", "timeout", "1"]);
    assert!(one.contains("1 error of class timeout makes"), "{one}");
}

#[test]
fn a_disk_that_is_out_is_no_ailing_disk() {
    let dir = Dir::new();
    dir.create(4, "16MiB", &["--level", "5", "--spares", "1", "--allow-injection"]);
    let server = dir.serve(4);
    server.ok(&["inject", "disk", "2", "--op", "write", "--kind", "error"]);
    server.fill("vault", 3);
    wait_for("the errors of disk 2 to be weighed", || {
        let row = server.json(&["show", "t3"])[1].clone();
        (row["verdict"] == "out" && row["level_percent"].as_f64()? > 50.0).then_some(())
    });
    let events = server.ok(&["events"]);
    assert!(events.contains("disk-failed") && !events.contains("disk-ailing"), "{events}");
}

#[test]
fn a_replacement_is_paused_resumed_and_cancelled() {
    let dir = Dir::new();
    dir.create(4, "64MiB", &["--level", "5", "--spares", "1"]);
    let server = dir.serve(4);
    let data = server.fill("vault", 4);
    for verb in ["pause", "resume", "cancel"] {
        server.run(&["replace", verb, "1"]).refused(&["disk 1 is not being replaced"]);
        server.run(&["replace", verb, "9"]).refused(&["disk 9"]);
    }
    server.run(&["replace"]).usage(&["DISK"]);
    server.ok(&["replace", "1", "--rate", "1"]);
    server.ok(&["replace", "pause", "1"]);
    server.run(&["replace", "pause", "1"]).refused(&["paused already"]);
    let running = server.json(&["jobs"]).to_string();
    assert!(!running.contains("\"running\""), "{running}");
    assert_eq!(server.disk(4)["state"], "rebuilding");
    server.verify("vault", &data, "while the copy stands still");
    server.ok(&["replace", "cancel", "1"]);
    assert_eq!(
        (&server.disk(1)["state"], &server.disk(4)["state"]),
        (&"in-sync".into(), &"spare".into())
    );
    server.run(&["status"]).exits(0);
    server.run(&["replace", "resume", "1"]).refused(&["not being replaced"]);

    server.ok(&["replace", "1", "--rate", "1"]);
    server.ok(&["replace", "pause", "4"]);
    let data = server.fill("vault", 5);
    // The pause of a copy without a shield outlives a restart, and `status` tells of it.
    server.stop();
    let server = dir.serve(4);
    let status = server.run(&["status"]).exits(0).stdout;
    for words in ["is copied to disk 4, direct", "stands still", "replace resume 1"] {
        assert!(status.contains(words), "{words} in {status}");
    }
    // So does the list of jobs, and nobody waits for it.
    for args in [&["jobs"][..], &["jobs", "--wait"]] {
        let listed = server.ok(args);
        assert!(listed.contains(" paused "), "{listed}");
        assert!(listed.contains("go on with `forestall replace resume 1`"), "{listed}");
        assert_eq!(server.json(args)[0]["state"], "paused");
    }
    server.ok(&["replace", "resume", "4"]);
    server.run(&["replace", "resume", "4"]).refused(&["not paused"]);
    let job =
        server.json(&["jobs"]).as_array().expect("a list").last().expect("a job")["id"].clone();
    wait_for("the copy to be without a limit", || {
        let run = server.run(&["jobs", "--limit", &job.to_string(), "--rate", "0"]);
        let newest = server.json(&["jobs"]).as_array()?.last()?["state"].clone();
        (run.code == Some(0) || newest == "done").then_some(())
    });
    wait_for("the swap", || (server.disk(4)["state"] == "in-sync").then_some(()));
    server.ok(&["disk", "fail", "2"]);
    server.verify("vault", &data, "from the replacement");
}
