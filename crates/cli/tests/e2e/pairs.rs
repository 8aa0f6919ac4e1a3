//! Pairs of volumes: made, held, split, taken apart, over a restart too.

use serde_json::{Value, json};

use crate::util::*;

/// An array of two groups: disks 1 to 3 with "vault" of 8 MiB, disks 4 and 5 with "copy" of the same size.
fn two_groups(dir: &Dir) -> Server {
    dir.create(3, "24MiB", &["--level", "5", "--volume", "whole"]);
    let server = dir.serve(3);
    server.ok(&["volume", "delete", "whole"]);
    for disk in [dir.disk(4), dir.disk(5)] {
        server.ok(&["disk", "add", &disk, "--size", "32MiB"]);
    }
    server.ok(&["group", "create", "--level", "1", "--disks", "4,5"]);
    server.ok(&["volume", "create", "vault", "--group", "1", "--size", "8MiB"]);
    server.ok(&["volume", "create", "copy", "--group", "2", "--size", "8MiB"]);
    server
}

fn duplex(server: &Server) {
    wait_for("an equal pair", || {
        let pairs = server.json(&["pair", "list"]);
        (pairs[0]["status"] == "duplex" && pairs[0]["differing"] == 0).then_some(())
    });
}

/// The job that makes volumes equal, the newest one, as soon as it is as `wanted` says.
fn mirroring(server: &Server, wanted: impl Fn(&Value) -> bool) -> Value {
    wait_for("a job that makes the volumes equal", || {
        let jobs = server.json(&["jobs"]);
        let job = jobs.as_array()?.iter().rfind(|job| job["kind"] == "mirror")?;
        wanted(job).then(|| job.clone())
    })
}

#[test]
fn making_a_pair_equal_is_a_job_with_a_limit() {
    let dir = Dir::new();
    let server = two_groups(&dir);
    let data = server.fill("vault", 1);
    server.ok(&["pair", "create", "vault", "copy", "--rate", "1"]);
    let job = mirroring(&server, |job| job["state"] == "running" && job["done_bytes"] != 0);
    assert_eq!((&job["volume"], &job["limit"]), (&json!(1), &json!(1 << 20)));
    assert_eq!(job["total_bytes"], 8 << 20);
    assert_eq!(server.json(&["pair", "list"])[0]["status"], "syncing");
    let told = server.ok(&["jobs"]);
    assert!(told.contains("mirroring of volume 1 in group 1"), "{told}");
    let volumes = server.ok(&["volume", "list"]);
    assert!(volumes.contains("secondary of volume 1"), "{volumes}");
    assert_eq!(server.json(&["volume", "list"])[1]["secondary_of"], 1);

    // A split does not wait until the limit lets the copy go on.
    server.ok(&["pair", "split", "vault"]);
    let stopped = mirroring(&server, |job| job["state"] == "stopped");
    assert_eq!(stopped["id"], job["id"]);
    assert!(stopped["done_bytes"].as_u64() < Some(8 << 20), "{stopped}");
    server.ok(&["pair", "resync", "vault"]);
    server.ok(&["jobs", "--wait"]);
    let done = mirroring(&server, |job| job["state"] == "done");
    assert_ne!(done["id"], job["id"]);
    assert_eq!(server.json(&["pair", "list"])[0]["status"], "duplex");
    server.ok(&["pair", "delete", "vault"]);
    server.verify("copy", &data, "equal when the job is done");
    let volumes = server.ok(&["volume", "list"]);
    assert!(!volumes.contains("secondary"), "{volumes}");
    server.stop();
}

#[test]
fn a_secondary_follows_and_is_equal_when_the_pair_is_taken_apart() {
    let dir = Dir::new();
    let server = two_groups(&dir);
    let first = server.fill("vault", 1);
    server.run(&["pair", "create", "vault", "vault"]).refused(&["cannot follow itself"]);
    server.ok(&["pair", "create", "vault", "copy"]);
    duplex(&server);
    assert!(server.try_connect("copy").is_err(), "a secondary is not served");
    server.run(&["volume", "delete", "copy"]).refused(&["secondary of a pair", "pair delete"]);
    server.ok(&["pair", "hold", "vault"]);
    let second = server.fill("vault", 2);
    let rows = server.json(&["show", "t2", "--bits", "64"]);
    let expected = json!([{
        "primary_volume": 1,
        "secondary_volume": 2,
        "pairing_status": "DUPLEX",
        "differential_bitmap": "11111111",
        "bits": 8,
    }]);
    assert_eq!(rows, expected);
    assert_eq!(
        server.ok(&["show", "t2"]),
        "PRIMARY VOLUME#\tSECONDARY VOLUME#\tPAIRING STATUS\tDIFFERENTIAL BITMAP\n\
         1\t2\tDUPLEX\t11111111\n",
        "FIG. 3A, with as many bits as there are"
    );
    assert!(server.ok(&["show", "t2", "--bits", "5"]).ends_with("\t11111...\n"));
    for volume in ["copy", "2"] {
        let set = server.run(&["volume", "set", volume, "--backup", "pair"]);
        set.refused(&["\"copy\" is the secondary of volume 1", "nothing was changed"]);
    }
    server.run(&["pair", "hold", "vault"]).refused(&["nothing to change"]);
    server.stop();

    let server = dir.serve(5);
    assert_eq!(server.json(&["show", "t2", "--bits", "8"]), expected, "the bits survive a restart");
    server.ok(&["pair", "split", "1"]);
    server.ok(&["pair", "delete", "vault"]);
    server.verify("copy", &first, "what was copied before the hold");
    server.verify("vault", &second, "what hosts wrote");
    server.run(&["pair", "create", "vault", "copy"]).refused(&["holds data"]);
    server.ok(&["volume", "delete", "copy"]);
    server.ok(&["volume", "create", "copy", "--group", "2", "--size", "8MiB"]);
    server.ok(&["pair", "create", "vault", "copy"]);
    duplex(&server);
    let third = server.fill("vault", 3);
    duplex(&server);
    server.ok(&["pair", "delete", "vault"]);
    server.verify("copy", &third, "equal when no bit is left");
    server.stop();
}

#[test]
fn a_secondary_takes_its_primarys_place_while_a_disk_is_copied() {
    let dir = Dir::new();
    let server = two_groups(&dir);
    server.ok(&["disk", "add", &dir.disk(6), "--size", "24MiB", "--role", "spare"]);
    server.fill("vault", 1);
    server.ok(&["pair", "create", "vault", "copy"]);
    duplex(&server);
    server.ok(&["pair", "hold", "vault"]);
    server.run(&["replace", "1", "--backup", "pair"]).refused(&["is held", "pair release 1"]);
    server.ok(&["pair", "release", "vault"]);
    server.ok(&["replace", "1", "--backup", "pair", "--rate", "1"]);
    server.ok(&["replace", "pause", "1"]);
    wait_for("a reversed pair", || {
        let rows = server.json(&["show", "t2"]);
        (rows[0]["pairing_status"] == "UPDATE DATA BEING BACKED UP").then_some(())
    });
    let second = server.fill("vault", 2);
    let held = ["backs group 1", "forestall jobs"];
    server.run(&["pair", "split", "vault"]).refused(&held);
    server.run(&["pair", "delete", "vault"]).refused(&held);
    assert!(server.try_connect("copy").is_err(), "a secondary is not served");
    assert_eq!(server.json(&["pair", "list"])[0]["differing"], 8 << 20, "all of it is newer there");
    server.stop();

    let server = dir.serve(6);
    server.verify("vault", &second, "what the secondary took, after a restart");
    server.ok(&["replace", "resume", "1"]);
    server.ok(&["jobs", "--wait"]);
    server.healed();
    duplex(&server);
    server.verify("vault", &second, "what went home");
    server.ok(&["pair", "delete", "vault"]);
    server.verify("copy", &second, "the pair was equal again");
    server.stop();
}
