//! What a request does to a simulated disk, and how long it takes.
//!
//! Owns latency and effect. Invariant: the medium changes here and at power losses only; a faulty write leaves any subset of
//! its sectors, except where the fault says that nothing changed.

use std::ops::Range;

use forestall_engine::format::layout::Layout;
use forestall_engine::{BLOCK_SIZE, Buf, DiskFault};

use super::Drive;
use super::request::Request;
use crate::faults::{Astray, Injected, gone};
use crate::mechanics::{Asked, DiskModel, Mechanics};
use crate::medium::{Loss, Medium, SECTOR};
use crate::rng::Rng;

impl Drive {
    /// Gives the drive the times of a model in place of random ones, from now on.
    pub fn set_model(&self, model: DiskModel, rng: Rng) {
        *self.0.mechanics.borrow_mut() = Some(Mechanics::new(model, self.0.size, rng));
    }

    /// Time of one request by the drive's model, if it has one.
    fn modelled(&self, request: &Request, now_ns: u64) -> Option<u64> {
        let mut mechanics = self.0.mechanics.borrow_mut();
        let asked = match request {
            Request::Read { offset, buf } => Asked::Read(*offset, buf.len() as u64),
            Request::Write { offset, buf } => Asked::Write(*offset, buf.len() as u64),
            Request::Flush { .. } => Asked::Flush,
            Request::Discard { .. } => Asked::Discard,
        };
        mechanics.as_mut().map(|mechanics| mechanics.answer_at(now_ns, asked) - now_ns)
    }

    /// Seeded time for one request in nanoseconds: a base, a share for the bytes, jitter, now and then a slow one.
    fn random_time(&self, request: &Request) -> u64 {
        let mut rng = self.0.rng.borrow_mut();
        let base = match request {
            Request::Read { buf, .. } => 60_000 + buf.len() as u64,
            Request::Write { buf, .. } => 40_000 + buf.len() as u64,
            Request::Flush { .. } => 300_000,
            Request::Discard { .. } => 30_000,
        };
        let slow = if rng.percent(2) { 20 } else { 1 };
        (base / 2 + rng.below(base)) * slow
    }

    /// Time for one request in nanoseconds, with the rest of a stall.
    pub(super) fn latency(&self, request: &Request, now_ns: u64) -> u64 {
        let time = self.modelled(request, now_ns).unwrap_or_else(|| self.random_time(request));
        let time = time * self.0.faults.borrow().slowness();
        let stalled = self.0.faults.borrow().stalled_until_ns().saturating_sub(now_ns);
        if stalled > 0 && !self.0.faults.borrow().dead() {
            self.met(Injected::Stall);
        }
        time + stalled
    }

    /// Whoever asked for a flush hears of its failure.
    pub(super) fn failure_heard(&self) {
        self.0.medium.borrow_mut().failure_heard();
    }

    fn met(&self, kind: Injected) {
        *self.0.injected.borrow_mut().entry(kind).or_default() += 1;
    }

    /// Lets a request take effect.
    pub(super) fn perform(
        &self,
        session: u64,
        request: Request,
    ) -> (Result<(), DiskFault>, Option<Buf>) {
        let range = request.range();
        let mut rng = self.0.rng.borrow_mut();
        let mut medium = self.0.medium.borrow_mut();
        let mut faults = self.0.faults.borrow_mut();
        let unplugged = session != self.0.session.get();
        let judged = match &request {
            _ if unplugged => Some(gone()),
            Request::Read { .. } => faults.on_read(&range),
            Request::Write { .. } => faults.on_write(&range),
            Request::Flush { .. } => faults.on_flush(),
            Request::Discard { .. } if faults.dead() => faults.on_read(&range),
            Request::Discard { .. } => None,
        };
        let fault = judged.map(|(kind, fault)| {
            self.met(kind);
            (kind, fault)
        });
        let result = fault.map_or(Ok(()), |(_, fault)| Err(fault));
        match request {
            Request::Read { offset, mut buf } => {
                if result.is_ok() {
                    medium.read_into(offset, buf.bytes_mut());
                    self.tear_read(offset, &mut buf, &mut rng);
                } else {
                    buf.bytes_mut().fill(0xbd);
                }
                return (result, Some(buf));
            }
            Request::Write { offset, buf } => match fault {
                None => match faults.astray(&range, &self.data_space()) {
                    None => medium.write(offset, &buf),
                    Some(Astray::Lost) => {
                        medium.lose_write(offset, buf.len());
                        self.met(Injected::LostWrite);
                    }
                    Some(Astray::Misdirected) => {
                        medium.lose_write(offset, buf.len());
                        self.met(Injected::MisdirectedWrite);
                        let blocks = (self.data_space().end - self.data_space().start) / BLOCK_SIZE;
                        let to = self.data_space().start + rng.below(blocks) * BLOCK_SIZE;
                        self.land(&mut medium, to, &buf);
                    }
                },
                Some((Injected::NoSpace | Injected::Transport, _)) => {}
                // What it left was decided when the disk was unplugged.
                Some(_) if unplugged => {}
                Some(_) => {
                    let loss = Loss::random(&mut rng);
                    medium.write_some(offset, &buf, loss, &mut rng);
                }
            },
            Request::Flush { mark } if result.is_ok() => medium.flush(mark),
            Request::Flush { .. } if unplugged => {}
            Request::Flush { mark } => medium.fail_flush(mark, &mut rng),
            Request::Discard { range } => {
                // Undefined content: what was there, zeroes, or something of nobody's.
                if result.is_ok() && rng.coin() {
                    let filler = if rng.coin() { 0 } else { 0xdd };
                    medium.write(range.start, &vec![filler; (range.end - range.start) as usize]);
                }
            }
        }
        (result, None)
    }

    /// Where members' data lies.
    fn data_space(&self) -> Range<u64> {
        Layout::for_size(self.0.size).map_or(0..0, |layout| layout.data.offset..layout.data.end())
    }

    /// The first block of a misdirected write lands elsewhere.
    fn land(&self, medium: &mut Medium, to: u64, data: &[u8]) {
        for (i, sector) in data.chunks_exact(SECTOR as usize).take(8).enumerate() {
            let at = to + i as u64 * SECTOR;
            let under_way = self.0.under_way.borrow();
            let meets = |r: Range<u64>| r.start < at + SECTOR && at < r.end;
            if !under_way.values().any(|u| u.request.changes() && meets(u.request.range())) {
                medium.corrupt(at, sector.try_into().expect("a whole sector"));
            }
        }
    }

    /// A read that crosses a write under way may see any sector of it.
    fn tear_read(&self, offset: u64, buf: &mut Buf, rng: &mut Rng) {
        let end = offset + buf.len() as u64;
        for other in
            self.0.under_way.borrow().values().filter(|u| u.session == self.0.session.get())
        {
            let Request::Write { offset: at, buf: data } = &other.request else { continue };
            let (from, to) = ((*at).max(offset), (*at + data.len() as u64).min(end));
            for sector in (from..to).step_by(SECTOR as usize) {
                if rng.coin() {
                    let source = &data[(sector - at) as usize..][..SECTOR as usize];
                    buf.bytes_mut()[(sector - offset) as usize..][..SECTOR as usize]
                        .copy_from_slice(source);
                }
            }
        }
    }
}
