//! The demo's client: writes blocks whose content says which block and version they are, and checks what it reads.
//!
//! Owns the model of what must be on the volume: a version for each block. Each connection has a part of the volume to
//! itself and one request in flight, so after each answer the model is exact, with no "perhaps".

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use forestall_nbd::{Client, ClientOptions};
use serde::Serialize;

/// Bytes of a block of the model.
const BLOCK: usize = 4096;

/// Bytes of a request of `fill` and `verify`.
const LARGE: usize = 1 << 20;

/// Most blocks of a random request.
const BLOCKS_MAX: u64 = 16;

/// Connections that write and read at random at the same time.
const CONNECTIONS: usize = 4;

/// What must be on the volume, or on a part of it.
pub struct Model {
    /// First block of the part.
    first: usize,
    versions: Vec<u32>,
    random: Random,
}

/// A connection and the model.
pub struct Load {
    client: Client<UnixStream>,
    model: Model,
}

/// What the client did while the disks failed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Totals {
    /// Requests answered.
    pub requests: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Bytes read and compared.
    pub read_bytes: u64,
    /// Requests answered with an error.
    pub errors: u64,
    /// Blocks that were not what was last written.
    pub wrong_blocks: u64,
    /// The slowest answer in microseconds.
    pub slowest_us: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.written_bytes += other.written_bytes;
        self.read_bytes += other.read_bytes;
        self.errors += other.errors;
        self.wrong_blocks += other.wrong_blocks;
        self.slowest_us = self.slowest_us.max(other.slowest_us);
    }
}

impl Load {
    /// Connects to an export that nothing was written to yet.
    pub fn connect(socket: &Path, export: &str) -> Result<Self> {
        Self::reconnect(
            socket,
            export,
            Model { first: 0, versions: Vec::new(), random: Random(0x0dd0_5eed) },
        )
    }

    /// Connects to an export that holds what `model` says.
    pub fn reconnect(socket: &Path, export: &str, mut model: Model) -> Result<Self> {
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        let client = Client::connect(stream, &ClientOptions::new(export))?;
        let blocks = client.export().size as usize / BLOCK;
        if model.versions.is_empty() {
            model.versions.resize(blocks, 0);
        }
        ensure!(model.versions.len() as u64 > BLOCKS_MAX, "the volume has only {blocks} blocks");
        Ok(Self { client, model })
    }

    /// Bytes of the volume that the model covers.
    pub fn size(&self) -> u64 {
        (self.model.versions.len() * BLOCK) as u64
    }

    /// Writes every block and flushes.
    pub fn fill(&mut self, progress: impl Fn(u64, u64)) -> Result<()> {
        let mut data = vec![0; LARGE];
        for at in (0..self.size()).step_by(LARGE) {
            let len = LARGE.min((self.size() - at) as usize);
            self.model.next_version(at, &mut data[..len]);
            self.client.write(at, &data[..len], false)?;
            progress(at, self.size());
        }
        self.flush()
    }

    /// Makes everything durable.
    pub fn flush(&mut self) -> Result<()> {
        Ok(self.client.flush()?)
    }

    /// Reads everything and compares; answers the bytes compared.
    pub fn verify(&mut self, progress: impl Fn(u64, u64)) -> Result<u64> {
        let mut data = vec![0; LARGE];
        for at in (0..self.size()).step_by(LARGE) {
            let len = LARGE.min((self.size() - at) as usize);
            self.client.read(at, &mut data[..len])?;
            let wrong = self.model.wrong_blocks(at, &data[..len]);
            ensure!(wrong == 0, "{wrong} blocks near offset {at} are not what was last written");
            progress(at, self.size());
        }
        Ok(self.size())
    }

    /// Writes `count` blocks at random places, and flushes.
    pub fn scribble(&mut self, count: u64) -> Result<()> {
        let mut data = [0; BLOCK];
        for _ in 0..count {
            let at = self.model.random.below(self.model.versions.len() as u64) * BLOCK as u64;
            self.model.next_version(at, &mut data);
            self.client.write(at, &data, false)?;
        }
        self.flush()
    }

    /// Starts the sequence of random places over.
    pub fn reseed(&mut self) {
        self.model.random = Random(0x0dd0_5eed);
    }

    /// Says goodbye and keeps the model.
    pub fn disconnect(self) -> Result<Model> {
        self.client.disconnect()?;
        Ok(self.model)
    }

    /// One request at a random place.
    fn step(&mut self, data: &mut [u8], totals: &mut Totals) -> Result<()> {
        let blocks = 1 + self.model.random.below(BLOCKS_MAX);
        let first = self.model.random.below(self.model.versions.len() as u64 - blocks + 1);
        let first = first + self.model.first as u64;
        let (at, data) = (first * BLOCK as u64, &mut data[..blocks as usize * BLOCK]);
        let writes = self.model.random.below(2) == 0;
        if writes {
            self.model.next_version(at, data);
        }
        let begun = Instant::now();
        let answer =
            if writes { self.client.write(at, data, false) } else { self.client.read(at, data) };
        totals.slowest_us = totals.slowest_us.max(begun.elapsed().as_micros() as u64);
        totals.requests += 1;
        if let Err(error) = answer {
            totals.errors += 1;
            return Err(error.into());
        }
        if writes {
            totals.written_bytes += data.len() as u64;
        } else {
            totals.read_bytes += data.len() as u64;
            totals.wrong_blocks += self.model.wrong_blocks(at, data);
        }
        Ok(())
    }
}

impl Model {
    /// Makes `data` the next version of the blocks at byte `at`.
    fn next_version(&mut self, at: u64, data: &mut [u8]) {
        let first = at as usize / BLOCK;
        for (block, bytes) in (first..).zip(data.chunks_mut(BLOCK)) {
            let version = &mut self.versions[block - self.first];
            *version += 1;
            content(block, *version, bytes);
        }
    }

    fn wrong_blocks(&self, at: u64, data: &[u8]) -> u64 {
        let first = at as usize / BLOCK;
        let mut expected = [0; BLOCK];
        let wrong = (first..).zip(data.chunks(BLOCK)).filter(|(block, bytes)| {
            content(*block, self.versions[block - self.first], &mut expected);
            **bytes != expected[..bytes.len()]
        });
        wrong.count() as u64
    }

    /// The model cut into `count` parts of equal size; the last takes the rest.
    fn split(mut self, count: usize) -> Vec<Self> {
        let each = self.versions.len() / count;
        let mut parts = Vec::new();
        for part in 0..count {
            let rest =
                self.versions.split_off(if part + 1 == count { self.versions.len() } else { each });
            let versions = std::mem::replace(&mut self.versions, rest);
            parts.push(Self { first: part * each, versions, random: Random(self.random.next()) });
        }
        parts
    }

    /// The whole that [`Model::split`] cut.
    fn join(parts: Vec<Self>) -> Self {
        let random = Random(parts.len() as u64);
        let versions = parts.into_iter().flat_map(|part| part.versions).collect();
        Self { first: 0, versions, random }
    }
}

/// What version `version` of block `block` looks like; a block never written is zero.
fn content(block: usize, version: u32, bytes: &mut [u8]) {
    if version == 0 {
        bytes.fill(0);
        return;
    }
    let mut random = Random((block as u64) << 32 | u64::from(version));
    for word in bytes.chunks_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]);
    }
}

/// What a connection's thread comes back with.
type Worked = (Model, Totals, Result<()>);

/// The client at work, each connection in a thread of its own.
pub struct Storm {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Worked>>,
}

impl Storm {
    /// Writes and reads at random until it is stopped or a request fails.
    pub fn start(socket: &Path, export: &str, model: Model) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for part in model.split(CONNECTIONS) {
            let load = Load::reconnect(socket, export, part)?;
            let stop = Arc::clone(&stop);
            let thread = std::thread::Builder::new().name("client".into());
            threads.push(thread.spawn(move || work(load, &stop))?);
        }
        Ok(Self { stop, threads })
    }

    /// Whether a connection has given up by itself.
    pub fn is_over(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Stops the client; answers what must be on the volume now, and what the client did.
    pub fn stop(self) -> Result<(Model, Totals)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut totals = Totals::default();
        let mut parts = Vec::new();
        for thread in self.threads {
            let (part, done, outcome) =
                thread.join().map_err(|_| anyhow!("the client panicked"))?;
            outcome.context("a request of the client failed")?;
            totals.add(&done);
            parts.push(part);
        }
        Ok((Model::join(parts), totals))
    }
}

fn work(mut load: Load, stop: &AtomicBool) -> Worked {
    let mut totals = Totals::default();
    let mut data = vec![0; BLOCKS_MAX as usize * BLOCK];
    let mut outcome = Ok(());
    while outcome.is_ok() && totals.wrong_blocks == 0 && !stop.load(Ordering::Relaxed) {
        outcome = load.step(&mut data, &mut totals);
    }
    (load.model, totals, outcome)
}

/// SplitMix64, by Steele, Lea and Flood: small, and good enough to choose places and fill blocks.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_sees_old_foreign_and_flipped_blocks() {
        let mut model = Model { first: 0, versions: vec![0; 8], random: Random(1) };
        assert_eq!(model.wrong_blocks(0, &[0; 2 * BLOCK]), 0, "never written reads as zero");
        let mut first = vec![0; 2 * BLOCK];
        model.next_version(BLOCK as u64, &mut first);
        assert_eq!(model.wrong_blocks(BLOCK as u64, &first), 0);
        assert_eq!(model.wrong_blocks(0, &first), 2, "blocks of another place");
        let mut second = vec![0; BLOCK];
        model.next_version(BLOCK as u64, &mut second);
        assert_eq!(model.wrong_blocks(BLOCK as u64, &first), 1, "an old version");
        second[4095] ^= 1;
        assert_eq!(model.wrong_blocks(BLOCK as u64, &second), 1, "one flipped bit");
    }

    #[test]
    fn a_model_cut_in_parts_is_joined_to_the_same() {
        let versions: Vec<u32> = (0..11).collect();
        let parts = Model { first: 0, versions: versions.clone(), random: Random(1) }.split(4);
        let firsts: Vec<usize> = parts.iter().map(|part| part.first).collect();
        assert_eq!(firsts, [0, 2, 4, 6]);
        let mut block = vec![0; BLOCK];
        content(7, 7, &mut block);
        assert_eq!(
            parts[3].wrong_blocks(7 * BLOCK as u64, &block),
            0,
            "a part knows where it begins"
        );
        assert_eq!(Model::join(parts).versions, versions);
    }
}
