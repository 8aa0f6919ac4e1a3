//! Failure avoidance with the real server: a disk is copied away while its group is shielded and clients go on.
//!
//! The story under load with each kind of log, and the tables to the letter. SIGTERM and kill -9 in every state are `crashes`' matter,
//! cancelling and what is refused `refusals`'.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use crate::crash::SECTOR;
use crate::util::*;

pub mod crashes;
mod legs;
mod refusals;
mod sheltered;

/// A RAID5 group of disks 1 to 4 with the volume `vault`, spare 5, and work disk 60 on two files beside them.
pub struct Bench {
    pub dir: Dir,
}

impl Bench {
    pub fn with_work_disk(size: &str) -> (Self, Server) {
        let dir = Dir::new();
        dir.create(5, size, &["--level", "5", "--spares", "1", "--allow-injection"]);
        let server = dir.serve(5);
        let bench = Self { dir };
        let legs = bench.legs().join(",");
        server.ok(&["work-disk", "add", "60", "--legs", &legs, "--size", size]);
        (bench, server)
    }

    pub fn legs(&self) -> Vec<String> {
        vec![self.dir.text("w1"), self.dir.text("w2")]
    }

    /// Starts the server again, on everything.
    pub fn serve(&self) -> Server {
        let paths: Vec<String> = self.dir.disks(5).into_iter().chain(self.legs()).collect();
        self.dir.serve_with(&paths, &[])
    }
}

/// Two RAID5 groups, disks 1 to 4 with the volume `vault` and 5 to 8 with `spool`, which is a work volume; 9 is a spare.
pub fn with_work_volume(dir: &Dir, size: &str) -> Server {
    dir.create(8, size, &["--allow-injection"]);
    let server = dir.serve(8);
    server.ok(&["group", "create", "--level", "5", "--disks", "1,2,3,4"]);
    server.ok(&["group", "create", "--level", "5", "--disks", "5,6,7,8"]);
    server.ok(&["volume", "create", "vault", "--group", "1", "--size", "12MiB"]);
    server.ok(&["volume", "create", "spool", "--group", "2", "--size", "12MiB", "--number", "10"]);
    server.ok(&["disk", "add", &dir.disk(9), "--size", size]);
    server.ok(&["work-volume", "add", "spool", "--for", "vault"]);
    server
}

pub fn avoidance(server: &Server) -> Value {
    server.json(&["group", "list"])[0]["avoidance"].clone()
}

pub fn state(server: &Server) -> String {
    avoidance(server)["state"].as_str().unwrap_or("none").to_owned()
}

pub fn wait_state(server: &Server, wanted: &str) {
    wait_for(&format!("the state {wanted}"), || (state(server) == wanted).then_some(()));
}

/// Makes an operation of some disks slow.
pub fn slow(server: &Server, disks: &[u32], op: &str, ms: &str) {
    for disk in disks {
        let disk = disk.to_string();
        server.ok(&["inject", "disk", &disk, "--op", op, "--kind", "delay", "--ms", ms]);
    }
}

pub fn quick(server: &Server, disks: &[u32]) {
    disks.iter().for_each(|disk| {
        server.ok(&["inject", "disk", &disk.to_string(), "--clear"]);
    });
}

/// Writes to the data space of the members of group 1, and reads of `disk`.
fn accesses(server: &Server, disk: u32) -> (u64, u64) {
    let members = server.json(&["group", "list"])[0]["members"].clone();
    let disks = server.json(&["disk", "list"]);
    let all = disks.as_array().expect("a list").iter();
    let count = |d: &Value, what: &str| d["accesses"][what].as_u64().expect("a number");
    let is_member = |d: &&Value| members.as_array().expect("a list").contains(&d["number"]);
    let writes = all.clone().filter(is_member).map(|d| count(d, "writes")).sum();
    let reads = all.filter(|d| d["number"] == disk).map(|d| count(d, "reads")).sum();
    (writes, reads)
}

/// A client that writes and reads back at random, and knows every byte.
struct Busy<'a> {
    stop: &'a AtomicBool,
    steps: &'a AtomicU64,
}

impl Busy<'_> {
    /// Works until it is stopped; answers what the volume must hold.
    fn work(&self, server: &Server, mut image: Vec<u8>) -> Vec<u8> {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let mut client = server.connect("vault");
        let sectors = image.len() / SECTOR;
        while !self.stop.load(Ordering::Relaxed) {
            let count = random.random_range(1..=64);
            let first = random.random_range(0..sectors - count);
            let (range, at) = (first * SECTOR..(first + count) * SECTOR, (first * SECTOR) as u64);
            if random.random_bool(0.5) {
                random.fill(&mut image[range.clone()]);
                client.write(at, &image[range], random.random_bool(0.05)).expect("written");
            } else {
                let mut found = vec![0; range.len()];
                client.read(at, &mut found).expect("read");
                assert_same(&found, &image[range], "while the group is shielded");
            }
            if random.random_bool(0.02) {
                client.flush().expect("flushed");
            }
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        client.flush().expect("flushed");
        image
    }

    /// Waits until the client has done some more.
    fn goes_on(&self) {
        let before = self.steps.load(Ordering::Relaxed);
        wait_for("the client", || {
            (self.steps.load(Ordering::Relaxed) > before + 100).then_some(())
        });
    }
}

/// Replaces disk 1 with `backup` while a client works: shielded, paused, resumed, written back.
fn story(server: &Server, backup: &str, place: &str, spare: u32) {
    let data = server.fill("vault", 3);
    let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
    let busy = Busy { stop: &stop, steps: &steps };
    let data = std::thread::scope(|scope| {
        let client = scope.spawn(|| busy.work(server, data));
        // A test that fails must not wait for a client that nobody stops.
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            told_while_busy(server, &busy, backup, place);
        }));
        stop.store(true, Ordering::Relaxed);
        let data = client.join();
        told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        data.expect("the client is content")
    });
    server.healed();
    assert_eq!(state(server), "none");
    assert_eq!(server.disk(spare)["state"], "in-sync");
    // Tested in the background and found healthy: a spare again.
    wait_for("the test of the replaced disk", || {
        (server.disk(1)["state"] == "spare").then_some(())
    });
    server.verify("vault", &data, "after the write-back");
    let kinds: Vec<Value> = server
        .json(&["jobs"])
        .as_array()
        .expect("a list")
        .iter()
        .map(|j| j["kind"].clone())
        .collect();
    assert!(kinds.contains(&json!("write-back")), "{kinds:?}");
    let events = server.ok(&["events"]);
    for kind in ["shield-raised", "replace-ended", "write-back-ended"] {
        assert!(events.contains(kind), "{kind} in {events}");
    }
    server.ok(&["disk", "fail", "2"]);
    server.verify("vault", &data, "from the replacement");
}

fn told_while_busy(server: &Server, busy: &Busy<'_>, backup: &str, place: &str) {
    busy.goes_on();
    server.ok(&["replace", "1", "--backup", backup, "--rate", "1"]);
    server.ok(&["replace", "pause", "1"]);
    wait_state(server, "copying");
    let before = accesses(server, 1);
    busy.goes_on();
    assert_eq!(accesses(server, 1), before, "no write reaches the group, no read the old disk");
    let status = server.run(&["status"]).exits(3).stdout;
    for words in [
        "is shielded: disk 1",
        "(by command)",
        &format!("volume 1 (vault) to {place}"),
        "not home yet",
        "stands still",
        "survive 1 failure",
    ] {
        assert!(status.contains(words), "{words:?} in {status}");
    }
    let told = avoidance(server);
    assert_eq!(
        (&told["disk"], &told["paused"], &told["retiring"]),
        (&json!(1), &json!(true), &json!(null))
    );
    assert!(told["away_blocks"].as_u64().expect("a number") > 0, "{told}");
    server.ok(&["replace", "resume", "1"]);
    let job = wait_for("the copy to go on", || {
        let jobs = server.json(&["jobs"]);
        jobs.as_array()?.iter().find(|j| j["state"] == "running")?["id"].as_u64()
    });
    busy.goes_on();
    server.unlimit(job);
    wait_for("the swap", || (server.disk(1)["state"] != "in-sync").then_some(()));
    busy.goes_on();
}

#[test]
fn a_client_works_over_a_work_disk_while_a_disk_is_copied() {
    let (_bench, server) = Bench::with_work_disk("24MiB");
    story(&server, "work-disk", "work disk 60", 5);
}

#[test]
fn a_client_works_over_a_work_volume_while_a_disk_is_copied() {
    let dir = Dir::new();
    let server = with_work_volume(&dir, "24MiB");
    story(&server, "work-volume", "work volume 10", 9);
}

#[test]
fn a_volume_says_where_its_writes_go() {
    let (_bench, server) = Bench::with_work_disk("24MiB");
    server.fill("vault", 1);
    server.ok(&["volume", "set", "vault", "--backup", "direct"]);
    server.ok(&["replace", "1", "--rate", "1"]);
    assert_eq!(state(&server), "none", "nothing to shield");
    server.ok(&["replace", "cancel", "1"]);
    server.ok(&["volume", "set", "1", "--backup", "auto"]);
    server.ok(&["replace", "1", "--rate", "1"]);
    assert_eq!(avoidance(&server)["volumes"][0]["backups"], json!([{"work-disk": 60}]));
}

#[test]
fn the_tables_of_a_work_disk_are_those_of_figures_15_and_16() {
    let (_bench, server) = Bench::with_work_disk("24MiB");
    let data = server.fill("vault", 5);
    let unused =
        "DISK#\tCAPACITY\tSTATUS\tMAIN DISK#\tTERMINAL ADDRESS\n60\t25MB\tUNUSED\tNULL\tNULL\n";
    assert_eq!(server.ok(&["show", "t6"]), unused);
    let t5 = |status: &str| {
        let rows = (1..=4).map(|n| format!("{n}\t25MB\t{status}\n")).collect::<String>();
        format!("DISK#\tCAPACITY\tSTATUS\n{rows}5\t25MB\tNULL\n")
    };
    assert_eq!(server.ok(&["show", "t5"]), t5("NULL"));
    server.ok(&["replace", "1", "--backup", "work-disk", "--rate", "1"]);
    server.ok(&["replace", "pause", "1"]);
    let mut client = server.connect("vault");
    for at in [0, 4096, 81920, 69632, 86016, 139_264] {
        client.write(at, &data[at as usize..][..4096], false).expect("written");
    }
    assert_eq!(server.ok(&["show", "t5"]), t5("RENEWED DATA BEING BACKED UP"));
    let in_use =
        "DISK#\tCAPACITY\tSTATUS\tMAIN DISK#\tTERMINAL ADDRESS\n60\t25MB\tIN USE\t1, 2, 3, 4\t6\n";
    assert_eq!(server.ok(&["show", "t6"]), in_use);
    let t7 = "MAIN DISK#\tMAIN DISK ADDRESS\tWORK DISK#\tWORK DISK ADDRESS\n\
              1\t1\t60\t1\n1\t2\t60\t2\n2\t5\t60\t3\n2\t2\t60\t4\n2\t6\t60\t5\n3\t3\t60\t6\n";
    assert_eq!(server.ok(&["show", "t7"]), t7);
    let row = json!({"disk": 60, "capacity": "25MB", "status": "IN USE", "main_disks": [1, 2, 3, 4], "terminal_address": 6});
    assert_eq!(server.json(&["show", "t6"]), json!([row]));
    assert_eq!(
        server.json(&["show", "t7"])[5],
        json!({"main_disk": 3, "main_disk_address": 3, "work_disk": 60, "work_disk_address": 6})
    );
    assert_eq!(
        server.json(&["show", "t5"])[0],
        json!({"disk": 1, "capacity": "25MB", "status": "RENEWED DATA BEING BACKED UP"})
    );
    server.ok(&["replace", "resume", "1"]);
    server.ok(&["replace", "cancel", "1"]);
    server.healed();
    assert_eq!(
        (server.ok(&["show", "t5"]), server.ok(&["show", "t6"])),
        (t5("NULL"), unused.to_owned())
    );
    server.verify("vault", &data, "all is home");
}

#[test]
fn the_table_of_a_work_volume_is_that_of_figure_11() {
    let dir = Dir::new();
    let server = with_work_volume(&dir, "24MiB");
    server.fill("vault", 1);
    let head = "WORK VOLUME#\tCAPACITY\tPRIMARY VOLUME#\tTERMINAL ADDRESS\tDIFFERENTIAL BITMAP\n";
    assert_eq!(server.ok(&["show", "t4"]), format!("{head}10\t13MB\tNULL\tNULL\t0000000000...\n"));
    let exports = server.ok(&["volume", "list"]);
    assert!(exports.contains("work volume"), "{exports}");
    assert!(server.try_connect("spool").is_err(), "it is not served");
    server.ok(&["replace", "1", "--backup", "work-volume", "--rate", "1"]);
    server.ok(&["replace", "pause", "1"]);
    let mut client = server.connect("vault");
    for at in [0, 40960, 8192] {
        client.write(at, &[7; 4096], false).expect("written");
    }
    assert_eq!(server.ok(&["show", "t4"]), format!("{head}10\t13MB\t1\t3\t1110000000...\n"));
    assert_eq!(
        server.ok(&["show", "t4", "--bits", "4"]),
        format!("{head}10\t13MB\t1\t3\t1110...\n")
    );
    let row = json!({"work_volume": 10, "capacity": "13MB", "primary_volumes": [1], "terminal_address": 3, "differential_bitmap": "1110000000", "bits": 2976});
    assert_eq!(server.json(&["show", "t4"]), json!([row]));
    assert_eq!(server.ok(&["show", "t1"]).lines().nth(2), Some("2\t10\t5, 6, 7, 8\tRAID5"));
}

#[test]
fn a_pause_outlives_a_restart_and_so_does_what_is_not_home() {
    let (bench, server) = Bench::with_work_disk("24MiB");
    let mut data = server.fill("vault", 5);
    server.ok(&["replace", "1", "--backup", "work-disk", "--rate", "1"]);
    server.ok(&["replace", "pause", "1"]);
    let mut client = server.connect("vault");
    let news = noise(9, MIB);
    client.write(3 * MIB, &news, false).expect("written");
    client.flush().expect("flushed");
    data[3 * MIB as usize..4 * MIB as usize].copy_from_slice(&news);
    drop(client);
    server.terminate();
    let server = bench.serve();
    assert_eq!(avoidance(&server)["away_blocks"], json!(256));
    server.verify("vault", &data, "after SIGTERM");
    server.kill();
    let server = bench.serve();
    wait_state(&server, "copying");
    assert_eq!(avoidance(&server)["paused"], true);
    server.verify("vault", &data, "after kill -9");
    server.ok(&["replace", "resume", "1"]);
    server.healed();
    server.verify("vault", &data, "at the end");
    assert_eq!(server.disk(5)["state"], "in-sync");
}
