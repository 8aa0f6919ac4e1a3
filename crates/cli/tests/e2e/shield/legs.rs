//! A work disk that lost a leg, or has one that is ailing: what is told, and what helps.

use serde_json::{Value, json};

use super::{Bench, wait_state};
use crate::util::*;

fn legs(server: &Server) -> Vec<String> {
    let disks = server.json(&["disk", "list"]);
    let legs = disks.as_array().expect("a list").iter();
    let legs = legs.filter(|d| d["work_disk"] == 60 && d["state"] == "work");
    legs.map(|leg| leg["number"].to_string()).collect()
}

/// STATUS of work disk 60 in T6, and how many disks T5 tells to be backed up.
fn tables(server: &Server) -> (Value, usize) {
    let t5 = server.json(&["show", "t5"]);
    let backed = t5.as_array().expect("a list").iter().filter(|row| !row["status"].is_null());
    (server.json(&["show", "t6"])[0]["status"].clone(), backed.count())
}

fn has_all(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} in {text}");
    }
}

#[test]
fn a_work_disk_that_is_too_weak_is_not_said_to_take_writes() {
    let (bench, server) = Bench::with_work_disk("24MiB");
    let data = server.fill("vault", 1);
    server.ok(&["replace", "1", "--backup", "work-disk", "--rate", "1"]);
    wait_state(&server, "copying");
    let write = || server.connect("vault").write(0, &data[..4096], false).expect("written");
    write();
    assert_eq!(tables(&server), (json!("IN USE"), 4));
    let lost = legs(&server)[0].clone();
    server.ok(&["disk", "fail", &lost]);
    wait_for("the early way home", || {
        server.json(&["events"]).to_string().contains("drained-early").then_some(())
    });
    write();
    assert_eq!(tables(&server), (json!("UNUSED"), 0), "writes go home");
    let status = server.run(&["status"]).exits(3).stdout;
    has_all(
        &status,
        &["go home (work disk 60 takes none while it lacks a leg", "everything is home"],
    );
    assert!(!status.contains("to work disk 60"), "{status}");
    has_all(&server.ok(&["jobs"]), &["writes go home: work disk 60 takes none"]);
    let resting = super::avoidance(&server)["volumes"][0]["resting"].clone();
    assert_eq!(resting, json!([{"work-disk": 60}]));

    // A new leg: it takes writes again, and what it lost is to be taken out.
    let new = bench.dir.text("n1");
    let told = server.ok(&["work-disk", "add", "60", "--legs", &new, "--size", "24MiB"]);
    let remove = format!("forestall disk remove {lost}");
    has_all(&told, &["joined work disk 60, which has 2 legs now", &remove]);
    write();
    assert_eq!(tables(&server), (json!("IN USE"), 4));
    let status = server.run(&["status"]).exits(3).stdout;
    has_all(
        &status,
        &["writes of volume 1 (vault) to work disk 60", "work disk 60 has 2 legs", &remove],
    );
    server.run(&["disk", "remove", &lost]).refused(&["lost", "once their updates are home"]);
    server.ok(&["replace", "cancel", "1"]);
    server.healed();
    has_all(&server.run(&["status"]).exits(0).stdout, &["work disk 60 has 2 legs", &remove]);
    server.ok(&["disk", "remove", &lost]);
    let status = server.run(&["status"]).exits(0).stdout;
    assert!(!status.contains(&remove), "{status}");
    server.verify("vault", &data, "all is home");
}

#[test]
fn an_ailing_leg_is_told_of_as_a_leg() {
    let (_bench, server) = Bench::with_work_disk("24MiB");
    let data = server.fill("vault", 1);
    server.ok(&["health", "set", "recovered-read", "2"]);
    server.ok(&["replace", "1", "--backup", "work-disk", "--rate", "1"]);
    wait_state(&server, "copying");
    server.connect("vault").write(0, &data[..MIB as usize], false).expect("written");
    // Numbers come from the top: this is the first leg, which is read as long as it gives what is asked.
    let leg = legs(&server)[1].clone();
    server.ok(&["inject", "disk", &leg, "--op", "read", "--kind", "error"]);
    wait_for("the leg to be ailing", || {
        server.connect("vault").read(0, &mut vec![0; MIB as usize]).expect("read");
        let status = server.run(&["status"]).stdout;
        status.contains(&format!("disk {leg} (")).then_some(())?;
        has_all(
            &status,
            &["a leg of work disk 60, is ailing", &format!("forestall disk fail {leg}")],
        );
        has_all(&status, &["forestall work-disk add 60 --legs PATH", "is on 1 leg more"]);
        assert!(!status.contains("as a spare"), "{status}");
        Some(())
    });
    has_all(&server.ok(&["events"]), &["a leg of work disk 60, is ailing"]);
}
