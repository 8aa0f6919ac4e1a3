//! kill -9 that loses what a power cut would, together with the loss of members, checked against a model of every sector.
//!
//! The server runs on the pread backend behind a write cache of its own process (`volatile/cache.c`, put before it by LD_PRELOAD): what was not flushed is
//! gone with the process, but for sectors that chance let through. Between the crash and the restart as many members are taken away as the level
//! survives. Nothing that was flushed may be lost, and nothing may be there that nobody wrote; with `--journal partial` blocks of a full stripe that
//! was under way may answer EIO while their member is missing, and no others.
//!
//! A few cycles run in the suite; `FORESTALL_KILL_CYCLES=250 cargo test -p forestall --test e2e volatile` runs that many in each of its
//! tests. Without a C compiler the server runs without the cache, and the test says so.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::crash::{BLOCK, Model, SECTOR, cycles, load_and_end, load_and_kill};
use crate::shield::crashes::{hold, let_go};
use crate::shield::{slow, state};
use crate::tools;
use crate::util::*;

/// Cycles of the suite for a campaign in normal work, and for one through the states of an avoidance.
const CYCLES: u64 = 24;
const SHIELD_CYCLES: u64 = 9;
const SIZE: &str = "6MiB";

/// The write cache as a shared object, compiled once; `None` without a compiler.
fn cache() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if !tools::have(&["cc"], "crashes that lose unsynced data: they ran as plain kill -9") {
            return None;
        }
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/volatile/cache.c");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        // Another run of the suite may be loading the one that is there.
        let (new, path) =
            (folder.join(format!("cache-{}.so", std::process::id())), folder.join("cache.so"));
        let flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC", "-o"];
        run(Command::new("cc").args(flags).arg(&new).arg(source)).ok();
        std::fs::rename(&new, &path).expect("a file beside it");
        Some(path)
    });
    built.as_deref()
}

/// A group under attack.
struct Campaign {
    dir: Dir,
    /// The array's disks, the spare among them.
    paths: Vec<String>,
    tolerance: usize,
    partial: bool,
    random: ChaCha8Rng,
    model: Model,
    /// Answered sectors that a crash took; blocks that answered EIO.
    lost: usize,
    holes: usize,
}

impl Campaign {
    fn begin(level: &str, disks: u32, spares: u32, journal: &str, seed: u64) -> (Self, Server) {
        let dir = Dir::new();
        let partial = journal == "partial";
        // With chunks of 4 KiB a piece of the load is a full stripe; with larger ones connections meet in a stripe.
        let chunk = if partial { "4KiB" } else { "16KiB" };
        let (all, count) = (disks + spares, spares.to_string());
        let mut more = vec!["--level", level, "--chunk", chunk, "--journal", journal];
        more.extend(["--allow-injection", "--spares", &count]);
        dir.create(all, SIZE, &more);
        let tolerance = if level == "6" { 2 } else { 1 };
        let mut campaign = Self {
            paths: dir.disks(all),
            dir,
            tolerance,
            partial,
            random: ChaCha8Rng::seed_from_u64(seed),
            model: Model::new(0),
            lost: 0,
            holes: 0,
        };
        let server = campaign.start(&[]);
        let sectors = server.connect("vault").export().size as usize / SECTOR;
        campaign.model = Model::new(sectors);
        // First writes of a unit are not journaled: from here on there are none.
        campaign.model.write(&server, 0, sectors);
        (campaign, server)
    }

    /// Starts the server without some disks.
    fn start(&mut self, without: &[u32]) -> Server {
        if let Some(cache) = cache() {
            let dir = self.dir.root().canonicalize().expect("the test's folder");
            let env = [
                ("LD_PRELOAD", cache.display().to_string()),
                ("VOLATILE_DIR", dir.display().to_string()),
                ("VOLATILE_SEED", self.random.random::<u32>().to_string()),
            ];
            self.dir.set_env(env.map(|(name, value)| (name.to_owned(), value)).to_vec());
        }
        let gone: Vec<String> = without.iter().map(|disk| self.dir.disk(*disk)).collect();
        let there: Vec<String> =
            self.paths.iter().filter(|path| !gone.contains(path)).cloned().collect();
        self.dir.serve_with(&there, &["--io", "pread", "--degraded"])
    }

    /// Whether another crash is due: as many as were asked for, and more of them as long as none took anything, since then the last look fails.
    fn goes_on(&self, cycle: u64, few: u64) -> bool {
        let enough = cycles(few);
        let saw_nothing = cache().is_some() && self.lost == 0;
        cycle < enough || saw_nothing && cycle < 5 * enough
    }

    /// Ends the server while it is loaded, by `end`.
    fn crash(&mut self, server: Server, end: impl FnOnce(Server, &Mutex<Model>, u64)) {
        let shared = Mutex::new(std::mem::replace(&mut self.model, Model::new(0)));
        end(server, &shared, self.random.random_range(0..1 << 40));
        self.model = shared.into_inner().expect("nobody panicked");
    }

    /// None, or as many of `members` as the level survives.
    fn choose(&mut self, members: &[u32]) -> Vec<u32> {
        let count = self.random.random_range(0..=self.tolerance);
        members.choose_multiple(&mut self.random, count).copied().collect()
    }

    /// Compares everything; blocks that may answer EIO are written anew.
    fn settle(&mut self, server: &Server, missing: &[u32], what: &str) {
        let (data, holes) = server.read_around("vault");
        assert!(
            holes.is_empty() || self.partial && !missing.is_empty(),
            "{what}: blocks {holes:?} answer EIO"
        );
        self.lost += self.model.settle_but(&data, &holes, what);
        self.holes += holes.len();
        for hole in holes {
            self.model.write(server, hole * BLOCK, BLOCK);
        }
    }

    /// Brings disks back; a shielded group may take them later only.
    fn readd(&self, server: &Server, missing: &[u32]) {
        for disk in missing {
            let path = self.dir.disk(*disk);
            let mut refusal = String::new();
            wait_for(&format!("disk {disk} to be taken back; {}", server.log()), || {
                let run = server.run(&["disk", "readd", &disk.to_string(), &path]);
                if run.stderr != refusal {
                    refusal.clone_from(&run.stderr);
                    eprint!("{refusal}");
                }
                (run.code == Some(0)).then_some(())
            });
        }
    }

    /// The last look: what the crashes took shows that the cache was there.
    fn end(mut self, server: Server) {
        server.ok(&["scrub", "1"]);
        server.ok(&["jobs", "--wait"]);
        let jobs = server.json(&["jobs"]);
        let scrub = jobs.as_array().expect("a list").iter().find(|job| job["kind"] == "check");
        assert_eq!(scrub.expect("the scrub")["mismatches"], 0, "parity agrees");
        self.settle(&server, &[], "at the end");
        server.stop();
        println!("{} answered sectors lost unflushed, {} blocks with EIO", self.lost, self.holes);
        assert!(cache().is_none() || self.lost > 0, "no crash lost anything: there was no cache");
    }
}

/// Crashes in normal work.
fn in_normal_work(level: &str, disks: u32, journal: &str, seed: u64) {
    let (mut campaign, mut server) = Campaign::begin(level, disks, 0, journal, seed);
    let members: Vec<u32> = (1..=disks).collect();
    let mut cycle = 0;
    while campaign.goes_on(cycle, CYCLES) {
        let enough = campaign.random.random_range(1..600);
        campaign.crash(server, |server, model, seed| load_and_kill(server, model, enough, seed));
        let missing = campaign.choose(&members);
        server = campaign.start(&missing);
        let what = format!("cycle {cycle}, without {missing:?}");
        campaign.settle(&server, &missing, &what);
        campaign.readd(&server, &missing);
        server.healed();
        campaign.settle(&server, &[], &format!("{what}, with the members back"));
        cycle += 1;
    }
    campaign.end(server);
}

#[test]
fn raid5_with_a_full_journal_loses_nothing_flushed() {
    in_normal_work("5", 4, "full", 1);
}

#[test]
fn raid6_with_a_full_journal_loses_nothing_flushed() {
    in_normal_work("6", 5, "full", 2);
}

#[test]
fn raid5_with_a_partial_journal_loses_nothing_flushed() {
    in_normal_work("5", 4, "partial", 3);
}

#[test]
fn raid6_with_a_partial_journal_loses_nothing_flushed() {
    in_normal_work("6", 5, "partial", 4);
}

/// Crashes in each state of an avoidance.
fn in_each_state(level: &str, disks: u32, journal: &str, seed: u64) {
    let (mut campaign, mut server) = Campaign::begin(level, disks, 1, journal, seed);
    let legs: Vec<String> =
        (0..=campaign.tolerance).map(|leg| campaign.dir.text(&format!("w{leg}"))).collect();
    server.ok(&["work-disk", "add", "60", "--legs", &legs.join(","), "--size", SIZE]);
    campaign.paths.extend(legs);
    let mut cycle = 0;
    while campaign.goes_on(cycle, SHIELD_CYCLES) {
        let wanted = ["copying", "writing-back", "entering"][cycle as usize % 3];
        let group = server.json(&["group", "list"])[0].clone();
        let members: Vec<u32> = serde_json::from_value(group["members"].clone()).expect("numbers");
        let old = *members.choose(&mut campaign.random).expect("a member");
        let peers: Vec<u32> = members.iter().copied().filter(|disk| *disk != old).collect();
        hold(&server, wanted, (old, &peers));
        let gone_on = AtomicBool::new(wanted != "writing-back");
        campaign.crash(server, |server, model, seed| {
            load_and_end(server, model, seed, "KILL", |server, answers| {
                if answers >= 200 && !gone_on.swap(true, Ordering::Relaxed) {
                    let_go(server, old);
                }
                answers >= 10 && gone_on.load(Ordering::Relaxed) && state(server) == wanted
            });
        });
        let missing = campaign.choose(&members);
        server = campaign.start(&missing);
        let what = format!("cycle {cycle}, {wanted}, {old} copied away, without {missing:?}");
        campaign.settle(&server, &missing, &what);
        campaign.readd(&server, &missing);
        server.healed();
        campaign.settle(&server, &[], &format!("{what}, with all home"));
        renew(&campaign, &server, disks + 1);
        cycle += 1;
    }
    campaign.end(server);
}

/// Crashes while the secondary of a pair has its primary's place: hosts' blocks are there alone, or go home.
fn in_a_reversed_pair(seed: u64) {
    let (mut campaign, mut server) = Campaign::begin("5", 4, 1, "full", seed);
    let size = server.connect("vault").export().size;
    for disk in [6, 7] {
        let path = campaign.dir.disk(disk);
        let large = (size + (16 << 20)).to_string();
        let added = server.json(&["disk", "add", &path, "--role", "free", "--size", &large]);
        assert_eq!(added["disk"], disk);
        campaign.paths.push(path);
    }
    server.ok(&["group", "create", "--level", "1", "--disks", "6,7"]);
    server.ok(&["volume", "create", "mirror", "--group", "2", "--size", &size.to_string()]);
    server.ok(&["pair", "create", "vault", "mirror"]);
    let status = |server: &Server| server.json(&["pair", "list"])[0]["status"].clone();
    let duplex = |server: &Server| {
        wait_for("a duplex pair", || (status(server) == "duplex").then_some(()));
    };
    let mut cycle = 0;
    while campaign.goes_on(cycle, SHIELD_CYCLES) {
        duplex(&server);
        let wanted = ["copying", "writing-back"][cycle as usize % 2];
        let group = server.json(&["group", "list"])[0].clone();
        let members: Vec<u32> = serde_json::from_value(group["members"].clone()).expect("numbers");
        let old = *members.choose(&mut campaign.random).expect("a member");
        let peers: Vec<u32> = members.iter().copied().filter(|disk| *disk != old).collect();
        if wanted == "writing-back" {
            slow(&server, &peers, "write", "60");
        }
        server.ok(&["replace", &old.to_string(), "--backup", "pair", "--rate", "1"]);
        server.ok(&["replace", "pause", &old.to_string()]);
        wait_for("the pair to be reversed", || (status(&server) == "backing-up").then_some(()));
        let gone_on = AtomicBool::new(wanted != "writing-back");
        campaign.crash(server, |server, model, seed| {
            load_and_end(server, model, seed, "KILL", |server, answers| {
                if answers >= 200 && !gone_on.swap(true, Ordering::Relaxed) {
                    let_go(server, old);
                }
                let reversed = state(server) == wanted && status(server) == "backing-up";
                answers >= 10 && gone_on.load(Ordering::Relaxed) && reversed
            });
        });
        // A member of either group is missing, or none.
        let missing = campaign.choose(if cycle % 3 == 0 { &[6, 7] } else { &members });
        server = campaign.start(&missing);
        let what = format!("cycle {cycle}, {wanted}, {old} copied away, without {missing:?}");
        campaign.settle(&server, &missing, &what);
        campaign.readd(&server, &missing);
        server.run(&["replace", "resume", &old.to_string()]);
        server.healed();
        campaign.settle(&server, &[], &format!("{what}, with all home"));
        renew(&campaign, &server, 5);
        cycle += 1;
    }
    duplex(&server);
    campaign.end(server);
}

#[test]
fn a_reversed_pair_loses_nothing_flushed() {
    in_a_reversed_pair(9);
}

/// Makes every disk that is not a member a spare.
fn renew(campaign: &Campaign, server: &Server, disks: u32) {
    for disk in 1..=disks {
        let state = server.disk(disk)["state"].clone();
        if state != "in-sync" && state != "spare" {
            server.ok(&["disk", "remove", &disk.to_string()]);
            let added = server.json(&["disk", "add", &campaign.dir.disk(disk), "--force"]);
            assert_eq!(added["disk"], disk, "the lowest free number");
        }
    }
}

#[test]
fn raid5_loses_nothing_flushed_in_any_state_of_an_avoidance() {
    in_each_state("5", 4, "full", 5);
}

#[test]
fn raid6_loses_nothing_flushed_in_any_state_of_an_avoidance() {
    in_each_state("6", 5, "full", 6);
}
