//! kill -9 of the real server under load, checked against a model of every sector.
//!
//! Several connections write, zero, flush and use FUA at once on neighbouring pieces of one volume, until the server is killed at a moment that
//! depends on what it answered so far. After each restart every 512-byte sector must be its last flushed version or a later one that was
//! asked for, at once (while the resync runs) and after the resync. What was found there is what it must stay (nobody writes it).
//!
//! A few cycles run in the suite; `FORESTALL_KILL_CYCLES=200 cargo test -p forestall --test e2e crash::` runs the full number.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use forestall_nbd::ZeroOptions;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::util::*;

pub const SECTOR: usize = 512;
/// Sectors of a block: what answers as a whole.
pub const BLOCK: usize = 8;
/// Sectors that one connection owns before the next one's begin: much less than a stripe, so connections meet in every stripe.
const PIECE: usize = 24;
const CONNECTIONS: usize = 4;
const CYCLES: u64 = 10;

/// Marks a version that is all zeroes.
const ZERO: u32 = 1 << 31;

/// What may stand in a sector.
#[derive(Clone, Default)]
struct Sector {
    /// The version that is certain: flushed, or found after a crash.
    certain: u32,
    /// Versions asked for since, oldest first; an answer does not make them certain, a flush does.
    open: Vec<u32>,
    /// The newest version that was answered.
    answered: u32,
}

pub struct Model {
    sectors: Vec<Sector>,
    next: u32,
}

impl Model {
    pub fn new(sectors: usize) -> Self {
        let blank = Sector { certain: ZERO, open: Vec::new(), answered: ZERO };
        Self { sectors: vec![blank; sectors], next: 1 }
    }

    /// A new version of a range is on its way.
    fn ask(&mut self, first: usize, count: usize, zero: bool) -> u32 {
        let version = self.next | if zero { ZERO } else { 0 };
        self.next += 1;
        self.sectors[first..first + count].iter_mut().for_each(|sector| sector.open.push(version));
        version
    }

    fn answer(&mut self, first: usize, count: usize, version: u32, durable: bool) {
        for sector in &mut self.sectors[first..first + count] {
            sector.answered = version;
            if durable {
                sector.make_certain(version);
            }
        }
    }

    /// What a flush that is sent now will cover.
    fn covered(&self) -> Vec<u32> {
        self.sectors.iter().map(|sector| sector.answered).collect()
    }

    fn flushed(&mut self, covered: &[u32]) {
        for (sector, version) in self.sectors.iter_mut().zip(covered) {
            sector.make_certain(*version);
        }
    }

    /// Compares a volume with the model; what is found is certain from here on. Answers how many sectors had an answer that did not outlive
    /// the crash, as none of them was flushed.
    pub fn settle(&mut self, data: &[u8], what: &str) -> usize {
        self.settle_but(data, &BTreeSet::new(), what)
    }

    /// The same, but for blocks that answered with an error: such a block must have been under way, and stays uncertain until it is written.
    pub fn settle_but(&mut self, data: &[u8], holes: &BTreeSet<usize>, what: &str) -> usize {
        for hole in holes {
            let under_way = self.sectors[hole * BLOCK..(hole + 1) * BLOCK].iter();
            let any = under_way.clone().any(|sector| !sector.open.is_empty());
            assert!(any, "{what}: block {hole} gives an error, and nothing of it was under way");
        }
        let mut lost = 0;
        for (index, (sector, found)) in self.sectors.iter_mut().zip(data.chunks(SECTOR)).enumerate()
        {
            if holes.contains(&(index / BLOCK)) {
                continue;
            }
            let mut allowed = std::iter::once(sector.certain).chain(sector.open.iter().copied());
            let Some(version) = allowed.find(|version| found == body(index, *version)) else {
                let told = &found[..16];
                panic!(
                    "{what}: sector {index} is none of {:?} and {:?}; it starts with {told:?}, which is {}",
                    sector.certain,
                    sector.open,
                    whose(found, index)
                );
            };
            let order = |of: u32| sector.open.iter().position(|open| *open == of);
            lost += usize::from(order(version) < order(sector.answered));
            *sector = Sector { certain: version, open: Vec::new(), answered: version };
        }
        lost
    }

    /// Writes a range whole, and makes it certain.
    pub fn write(&mut self, server: &Server, first: usize, count: usize) {
        let mut client = server.connect("vault");
        for from in (first..first + count).step_by(MIB as usize / SECTOR) {
            let some = (first + count - from).min(MIB as usize / SECTOR);
            let version = self.ask(from, some, false);
            client
                .write((from * SECTOR) as u64, &bodies(from, some, version), true)
                .expect("written");
            self.answer(from, some, version, true);
        }
    }
}

impl Sector {
    fn make_certain(&mut self, version: u32) {
        if let Some(at) = self.open.iter().position(|open| *open == version) {
            self.open.drain(..=at);
            self.certain = version;
        }
    }
}

/// The contents of a version of a sector: its number, its version, and bytes that depend on both.
fn body(sector: usize, version: u32) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    if version & ZERO != 0 {
        return bytes;
    }
    let mut state = (sector as u64) << 32 | u64::from(version);
    bytes[..8].copy_from_slice(&state.to_le_bytes());
    for word in bytes[8..].chunks_mut(8) {
        state = (state ^ state >> 31)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(0x1234_5678_9abc_def1);
        word.copy_from_slice(&state.to_le_bytes());
    }
    bytes
}

fn bodies(first: usize, count: usize, version: u32) -> Vec<u8> {
    (first..first + count).flat_map(|sector| body(sector, version)).collect()
}

/// Words for what a wrong sector holds.
fn whose(found: &[u8], index: usize) -> String {
    let state = u64::from_le_bytes(found[..8].try_into().expect("8 bytes"));
    let (sector, version) = ((state >> 32) as usize, state as u32);
    if found.iter().all(|byte| *byte == 0) {
        "zero".into()
    } else if sector < 1 << 24 && found == body(sector, version) {
        format!(
            "version {version} of sector {sector}{}",
            if sector == index { "" } else { ": misplaced" }
        )
    } else {
        "torn or foreign".into()
    }
}

/// One connection's load; ends when the server is gone.
fn load(server: &Server, model: &Mutex<Model>, answers: &AtomicU64, connection: usize, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let Ok(mut client) = server.try_connect("vault") else { return };
    let sectors = model.lock().expect("nobody panicked").sectors.len();
    loop {
        // A batch in flight at once, never two on one sector: a sector's versions then come in order.
        let mut sent = Vec::new();
        let mut pieces: Vec<usize> = Vec::new();
        for _ in 0..random.random_range(1..=6) {
            let piece =
                random.random_range(0..sectors / PIECE / CONNECTIONS) * CONNECTIONS + connection;
            if pieces.contains(&piece) {
                continue;
            }
            pieces.push(piece);
            // Often a piece as a whole: with chunks of 4 KiB and three of data that is a full stripe.
            let from = if random.random_bool(0.25) { 0 } else { random.random_range(0..PIECE) };
            let first = piece * PIECE + from;
            let count = if from == 0 { PIECE } else { random.random_range(1..=PIECE - from) };
            let (zero, fua) = (random.random_bool(0.1), random.random_bool(0.05));
            let version = model.lock().expect("nobody panicked").ask(first, count, zero);
            let (at, length) = ((first * SECTOR) as u64, (count * SECTOR) as u64);
            let cookie = if zero {
                client.send_write_zeroes(at, length, ZeroOptions { fua, ..ZeroOptions::default() })
            } else {
                client.send_write(at, &bodies(first, count, version), fua)
            };
            let Ok(cookie) = cookie else { return };
            sent.push((cookie, first, count, version, fua));
        }
        while client.in_flight() > 0 {
            let Ok(reply) = client.recv_reply(&mut []) else { return };
            if reply.result.is_err() {
                // A server on its way down may say so; nothing is promised then.
                return;
            }
            let (_, first, count, version, fua) =
                *sent.iter().find(|s| s.0 == reply.cookie).expect("one of ours");
            model.lock().expect("nobody panicked").answer(first, count, version, fua);
            answers.fetch_add(1, Ordering::Relaxed);
        }
        if random.random_bool(0.2) {
            let covered = model.lock().expect("nobody panicked").covered();
            if client.flush().is_err() {
                return;
            }
            model.lock().expect("nobody panicked").flushed(&covered);
        }
    }
}

/// Loads the server until it has answered `enough` requests, and kills it in the middle.
pub fn load_and_kill(server: Server, model: &Mutex<Model>, enough: u64, seed: u64) {
    load_and_end(server, model, seed, "KILL", |_, answers| answers >= enough);
}

/// Loads the server until `when` holds of it and of the number of requests that it answered, and ends it with a signal in the middle.
pub fn load_and_end(
    mut server: Server,
    model: &Mutex<Model>,
    seed: u64,
    name: &str,
    mut when: impl FnMut(&Server, u64) -> bool,
) {
    let answers = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let served = &server;
        let loads: Vec<_> = (0..CONNECTIONS)
            .map(|connection| {
                let answers = &answers;
                scope.spawn(move || {
                    load(served, model, answers, connection, seed * 100 + connection as u64)
                })
            })
            .collect();
        wait_for("the moment to end the server", || {
            let early = loads.iter().any(std::thread::ScopedJoinHandle::is_finished);
            assert!(!early, "a connection ended although the server runs: {}", served.log());
            when(served, answers.load(Ordering::Relaxed)).then_some(())
        });
        signal(served.pid(), name);
    });
    match name {
        "KILL" => server.kill_now(),
        _ => drop(server.ended()),
    }
}

/// How often to crash: what the environment says, else as given.
pub fn cycles(few: u64) -> u64 {
    std::env::var("FORESTALL_KILL_CYCLES")
        .map_or(few, |text| text.parse().expect("FORESTALL_KILL_CYCLES is a number"))
}

fn survive(level: &str, disks: u32, io: &str) {
    let dir = Dir::new();
    dir.create(disks, "12MiB", &["--level", level, "--chunk", "16KiB"]);
    let start = || dir.serve_with(&dir.disks(disks), &["--io", io]);
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut server = start();
    let sectors = server.connect("vault").export().size as usize / SECTOR;
    let model = Mutex::new(Model::new(sectors));
    for cycle in 0..cycles(CYCLES) {
        let enough = if cycle % 5 == 4 { 0 } else { random.random_range(1..3000) };
        load_and_kill(server, &model, enough, cycle);
        server = start();
        let mut model = model.lock().expect("nobody panicked");
        model.settle(&server.read_all("vault"), &format!("cycle {cycle}, right after the restart"));
        // Sometimes the next crash comes in the middle of the resync.
        if random.random_bool(0.5) {
            server.healed();
            model.settle(&server.read_all("vault"), &format!("cycle {cycle}, after the resync"));
        }
    }
    server.healed();
    server.ok(&["scrub", "1"]);
    server.ok(&["jobs", "--wait"]);
    let jobs = server.json(&["jobs"]);
    let scrub = jobs
        .as_array()
        .expect("a list")
        .iter()
        .find(|job| job["kind"] == "check")
        .expect("the scrub");
    assert_eq!(
        (&scrub["state"], &scrub["mismatches"]),
        (&"done".into(), &0.into()),
        "copies and parity agree"
    );
    server.ok(&["disk", "fail", "1"]);
    let mut model = model.into_inner().expect("nobody panicked");
    model.settle(&server.read_all("vault"), "without disk 1");
    server.stop();
}

#[test]
fn raid5_survives_kill_9() {
    survive("5", 4, "uring");
}

#[test]
fn raid1_survives_kill_9() {
    survive("1", 2, "pread");
}

#[test]
fn a_mirror_survives_kill_9_and_the_loss_of_a_disk_together() {
    let dir = Dir::new();
    dir.create(3, "12MiB", &["--level", "1"]);
    let mut server = dir.serve(3);
    let sectors = server.connect("vault").export().size as usize / SECTOR;
    let model = Mutex::new(Model::new(sectors));
    load_and_kill(server, &model, 700, 1);
    // Disk 1 is gone for this start; the two others are a majority.
    server = dir.serve_with(&[dir.disk(2), dir.disk(3)], &[]);
    let mut model = model.into_inner().expect("nobody panicked");
    model.settle(&server.read_all("vault"), "crash and loss together");
    server.ok(&["jobs", "--wait"]);
    server.ok(&["disk", "readd", "1", &dir.disk(1)]);
    server.healed();
    server.ok(&["disk", "fail", "2"]);
    server.ok(&["disk", "fail", "3"]);
    model.settle(&server.read_all("vault"), "from the disk that was away");
}

/// Kills a loaded server and starts it without as many members as the level survives, so that only the journal tells what was under way
/// (rules J1, J2): nothing that was flushed, and nothing that nobody wrote, may differ.
fn parity_survives_kill_9_and_a_loss(level: &str, disks: u32, lost: &[u32], seed: u64) {
    let dir = Dir::new();
    dir.create(disks, "12MiB", &["--level", level, "--chunk", "16KiB", "--journal", "full"]);
    let mut server = dir.serve(disks);
    let sectors = server.connect("vault").export().size as usize / SECTOR;
    let mut model = Model::new(sectors);
    for round in 0..4 {
        let shared = Mutex::new(model);
        load_and_kill(server, &shared, 400, seed + round);
        let there: Vec<String> =
            (1..=disks).filter(|d| !lost.contains(d)).map(|d| dir.disk(d)).collect();
        server = dir.serve_with(&there, &["--degraded"]);
        model = shared.into_inner().expect("nobody panicked");
        model.settle(&server.read_all("vault"), "crash and loss together");
        for disk in lost {
            server.ok(&["disk", "readd", &disk.to_string(), &dir.disk(*disk)]);
        }
        server.healed();
        model.settle(&server.read_all("vault"), "with the members back");
    }
}

#[test]
fn a_raid5_survives_kill_9_and_the_loss_of_a_disk_together() {
    parity_survives_kill_9_and_a_loss("5", 4, &[2], 40);
}

#[test]
fn a_raid6_survives_kill_9_and_the_loss_of_two_disks_together() {
    parity_survives_kill_9_and_a_loss("6", 5, &[1, 4], 50);
}

#[test]
fn an_unclean_parity_group_without_a_journal_that_lacks_a_member_asks_first() {
    let dir = Dir::new();
    dir.create(4, "12MiB", &["--level", "5", "--chunk", "16KiB", "--journal", "off"]);
    let server = dir.serve(4);
    let sectors = server.connect("vault").export().size as usize / SECTOR;
    let model = Mutex::new(Model::new(sectors));
    load_and_kill(server, &model, 500, 2);
    let present = [dir.disk(1), dir.disk(2), dir.disk(4)];
    dir.serve_refused(&present, &[], &["group 1", "disk 3", &dir.disk(3), "--accept-write-hole"]);
    // The refusal changed nothing: with the disk back, all is well.
    let server = dir.serve(4);
    let mut model = model.into_inner().expect("nobody panicked");
    model.settle(&server.read_all("vault"), "the member is back");
    server.kill();
    let server = dir.serve_with(&present, &["--accept-write-hole"]);
    assert_eq!(server.health(), "degraded");
    server.read_all("vault");
}
