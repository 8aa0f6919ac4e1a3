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
    wait_for("the spare to take over", || {
        let swapped = server.disk(5)["state"] == "in-sync" && server.disk(2)["state"] == "replaced";
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
    server.run(&["health", "set", "fever", "3"]).usage(&["fever", "recovered-read"]);
    server.run(&["policy", "set", "panic"]).usage(&["panic", "advise"]);
    server.run(&["health", "clear", "9"]).refused(&["disk 9"]);
    assert_eq!(server.ok(&["health", "show"]), before, "nothing changed");
    server.ok(&["health", "set", "timeout", "7"]);
    assert!(server.ok(&["health", "show"]).contains("timeout 7"));
}
