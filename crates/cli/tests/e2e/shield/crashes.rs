//! SIGTERM and kill -9 in each state of an avoidance, under load, checked against a model of every sector.
//!
//! A state is held for as long as it takes by slow disks: flushes of the members for Entering, a limit for Copying, writes of the members
//! for WritingBack. `FORESTALL_KILL_CYCLES` says how often; a cycle is one state and one way to end the server.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Bench, slow, state, wait_state};
use crate::crash::{Model, SECTOR, cycles, load_and_end};
use crate::util::*;

/// Cycles of the suite.
const CYCLES: u64 = 5;

/// Brings group 1 into `wanted`, and holds it there.
pub fn hold(server: &Server, wanted: &str, (old, peers): (u32, &[u32])) {
    let old = old.to_string();
    match wanted {
        "entering" => slow(server, peers, "flush", "800"),
        "writing-back" => slow(server, peers, "write", "60"),
        _ => {}
    }
    server.ok(&["replace", &old, "--backup", "work-disk", "--rate", "1"]);
    if wanted != "writing-back" {
        return;
    }
    // Enough that is not home yet before the copy ends.
    server.ok(&["replace", "pause", &old]);
    wait_state(server, "copying");
}

/// Lets a copy that `hold` let stand still run to its end.
pub fn let_go(server: &Server, old: u32) {
    server.ok(&["replace", "resume", &old.to_string()]);
    let job = wait_for("the copy to run", || {
        let jobs = server.json(&["jobs"]);
        jobs.as_array()?.iter().find(|j| j["state"] == "running")?["id"].as_u64()
    });
    server.unlimit(job);
}

#[test]
fn every_state_survives_sigterm_and_kill_9() {
    let (bench, mut server) = Bench::with_work_disk("12MiB");
    let sectors = server.connect("vault").export().size as usize / SECTOR;
    let model = Mutex::new(Model::new(sectors));
    // Every unit is written, so that there is something to copy.
    load_and_end(server, &model, 1000, "TERM", |_, answers| answers >= 2000);
    server = bench.serve();
    // Which disk is copied to which: they change places in each cycle.
    let (mut old, mut spare) = (1, 5);
    for cycle in 0..cycles(CYCLES) {
        let wanted = ["copying", "writing-back", "entering"][cycle as usize % 3];
        let name = ["KILL", "TERM"][cycle as usize % 2];
        let what = format!("cycle {cycle}, {name} in {wanted}");
        let peers: Vec<u32> = (1..=5).filter(|disk| *disk != old && *disk != spare).collect();
        hold(&server, wanted, (old, &peers));
        let reached = AtomicU64::new(0);
        load_and_end(server, &model, 2000 + cycle, name, |server, answers| {
            if wanted == "writing-back" && answers >= 300 && reached.load(Ordering::Relaxed) == 0 {
                reached.store(1, Ordering::Relaxed);
                let_go(server, old);
            }
            state(server) == wanted
                && answers >= 10
                && (wanted != "writing-back" || reached.load(Ordering::Relaxed) != 0)
        });
        server = bench.serve();
        let mut model = model.lock().expect("nobody panicked");
        model.settle(&server.read_all("vault"), &format!("{what}, right after the restart"));
        // By itself it goes on to its end.
        server.healed();
        model.settle(&server.read_all("vault"), &format!("{what}, after the write-back"));
        assert_eq!(server.disk(spare)["state"], "in-sync", "{what}");
        renew(&bench, &server, old);
        (old, spare) = (spare, old);
    }
    server.ok(&["disk", "fail", "2"]);
    let mut model = model.into_inner().expect("nobody panicked");
    model.settle(&server.read_all("vault"), "from the disks that were filled");
    server.stop();
}

/// Makes the disk that was replaced a spare with the same number and path.
fn renew(bench: &Bench, server: &Server, disk: u32) {
    server.ok(&["disk", "remove", &disk.to_string()]);
    let added = server.json(&["disk", "add", &bench.dir.disk(disk), "--force"]);
    assert_eq!(added["disk"], disk, "the lowest free number");
}
