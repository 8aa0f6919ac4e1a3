//! A group that waits for a spare behind its shield, with the real server.
//!
//! The policy, the words, a restart, and the spare that ends it; what happens inside is the simulator's matter.

use super::{Bench, state, wait_state};
use crate::util::*;

#[test]
fn an_ailing_disk_without_a_spare_waits_behind_the_shield() {
    let (bench, server) = Bench::with_work_disk("24MiB");
    server.ok(&["disk", "remove", "5"]);
    assert!(server.ok(&["policy", "show"]).contains("shelter     off"));
    server.run(&["policy", "shelter", "maybe"]).usage(&["maybe", "off"]);
    assert!(server.ok(&["policy", "shelter", "on"]).contains("while there is no spare"));
    assert_eq!(server.status()["policy"]["shelter"], true);
    assert_eq!(server.json(&["policy", "show"])["mode"], "auto", "the other setting is as it was");

    let data = server.fill("vault", 3);
    server.ok(&["health", "set", "recovered-read", "4"]);
    let start = region(&bench.dir.disk(2), "data").start.to_string();
    server.ok(&[
        "inject", "disk", "2", "--op", "read", "--kind", "error", "--offset", &start, "--len",
        "1MiB", "--count", "40",
    ]);
    server.verify("vault", &data, "while disk 2 errs");
    server.ok(&["inject", "disk", "2", "--clear"]);
    wait_state(&server, "sheltered");
    let data = server.fill("vault", 4);
    let status = server.run(&["status"]).exits(3).stdout;
    for words in ["there is no spare", "forestall replace cancel 2", "work disk 60"] {
        assert!(status.contains(words), "{words} in {status}");
    }
    assert!(server.ok(&["events"]).contains("group-sheltered"));
    server.run(&["replace", "pause", "2"]).refused(&["waits for a spare"]);

    // Neither the state nor the policy is forgotten.
    server.stop();
    let paths: Vec<String> = bench.dir.disks(4).into_iter().chain(bench.legs()).collect();
    let server = bench.dir.serve_with(&paths, &[]);
    assert_eq!(state(&server), "sheltered");
    assert_eq!(server.status()["policy"]["shelter"], true);
    server.verify("vault", &data, "after a restart");

    server.ok(&["disk", "add", &bench.dir.disk(6), "--size", "24MiB"]);
    server.healed();
    assert_eq!(state(&server), "none");
    let members = server.json(&["group", "list"])[0]["members"].clone();
    assert!(!members.as_array().expect("a list").contains(&2.into()), "{members}");
    server.verify("vault", &data, "after the copy");
}
