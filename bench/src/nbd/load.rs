//! One client that keeps a fixed number of requests under way.
//!
//! Owns the loop and the time taken. Requests go out when the client would otherwise wait for replies, so that one send carries
//! what one receive made room for: the generator must cost less than what it measures, and is the same for every server.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use forestall_nbd::{Client, ClientOptions};

use super::cases::{Case, Direction, Order};
use crate::stats::percentile;

/// Data of at least this many bytes is not copied together with other requests.
const LARGE: usize = 16 << 10;

/// What one run gave.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Requests done.
    pub requests: f64,
    /// Requests a second.
    pub rate: f64,
    /// Median time from sending a request to having its reply, in microseconds.
    pub p50_us: f64,
    /// 99th percentile of the same.
    pub p99_us: f64,
}

/// A socket whose sends are put off until somebody waits for an answer.
struct Lazy {
    socket: UnixStream,
    out: Vec<u8>,
}

impl Lazy {
    fn send(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.socket.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }
}

impl Read for Lazy {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.send()?;
        self.socket.read(buffer)
    }
}

impl Write for Lazy {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if data.len() < LARGE {
            self.out.extend_from_slice(data);
            return Ok(data.len());
        }
        self.send()?;
        self.socket.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A client of one export.
pub struct Load {
    client: Client<Lazy>,
    buffer: Vec<u8>,
    random: u64,
    next: u64,
}

impl Load {
    /// Connects. Structured replies are asked for, as libnbd and QEMU do, and nothing that not all servers have.
    ///
    /// # Errors
    /// If there is no such export.
    pub fn connect(socket: &Path, export: &str) -> Result<Self> {
        let at = || format!("connecting to {}", socket.display());
        let stream = UnixStream::connect(socket).with_context(at)?;
        let lazy = Lazy { socket: stream, out: Vec::new() };
        let options = ClientOptions {
            export: export.into(),
            structured: true,
            extended: false,
            allocation: false,
        };
        let client = Client::connect(lazy, &options).with_context(at)?;
        Ok(Self { client, buffer: Vec::new(), random: 0x9e37_79b9_7f4a_7c15, next: 0 })
    }

    /// Size of the export in bytes.
    pub fn size(&self) -> u64 {
        self.client.export().size
    }

    /// Writes everything below `size` once, so that no server answers from what was never written.
    ///
    /// # Errors
    /// If the server refuses or goes.
    pub fn prefill(&mut self, size: u64) -> Result<()> {
        let data: Vec<u8> = (0..1u32 << 20).map(|i| (i % 251) as u8).collect();
        for offset in (0..size).step_by(data.len()) {
            let len = (size - offset).min(data.len() as u64) as usize;
            self.client.write(offset, &data[..len], false)?;
        }
        Ok(self.client.flush()?)
    }

    /// Runs `case` on the first `size` bytes for `time`.
    ///
    /// # Errors
    /// If a request fails: a bench of errors would be quick.
    pub fn run(&mut self, case: &Case, size: u64, time: Duration) -> Result<Measured> {
        let blocks = size / case.len as u64;
        ensure!(blocks > 0, "{size} bytes are too few for requests of {}", case.len);
        self.buffer.resize(case.len, 0x5a);
        let mut begun: Vec<(u64, Instant)> = Vec::with_capacity(case.depth);
        let mut latencies: Vec<u64> = Vec::with_capacity(1 << 20);
        let start = Instant::now();
        for _ in 0..case.depth {
            begun.push((self.send(case, blocks)?, Instant::now()));
        }
        let mut elapsed = Duration::ZERO;
        while !begun.is_empty() {
            let reply = self.client.recv_reply(&mut self.buffer)?;
            let now = Instant::now();
            reply.result.map_err(|(errno, text)| anyhow!("the server answers {errno}: {text}"))?;
            let place = begun.iter().position(|(cookie, _)| *cookie == reply.cookie);
            let place = place.expect("the client answers only what was asked");
            latencies.push((now - begun[place].1).as_nanos() as u64);
            elapsed = now - start;
            if elapsed < time {
                begun[place] = (self.send(case, blocks)?, now);
            } else {
                begun.swap_remove(place);
            }
        }
        let mut at = |percent| percentile(&mut latencies, percent) as f64 / 1000.0;
        let (p50_us, p99_us) = (at(50.0), at(99.0));
        let requests = latencies.len() as f64;
        Ok(Measured { requests, rate: requests / elapsed.as_secs_f64(), p50_us, p99_us })
    }

    fn send(&mut self, case: &Case, blocks: u64) -> Result<u64> {
        let block = match case.order {
            Order::Sequential => self.next % blocks,
            Order::Random => self.draw() % blocks,
        };
        self.next = block + 1;
        let offset = block * case.len as u64;
        Ok(match case.direction {
            Direction::Read => self.client.send_read(offset, case.len as u64)?,
            Direction::Write => self.client.send_write(offset, &self.buffer, false)?,
        })
    }

    /// xorshift64: good enough to scatter, and free.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}
