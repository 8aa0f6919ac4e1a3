//! Faults on demand, before any backend.
//!
//! Owns [`InjectedDisk`] and the rules that rule it. Without a rule a request costs one look at a flag. Rules are matched in
//! the order in which they were added; delays add up, the first rule that fails or hangs a request decides it. Invariants: a request
//! that was begun runs to its end even if nobody waits for it, also behind a delay or a stall (rule F3); chance is seeded, so the
//! same requests meet the same fate.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ops::Range;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use forestall_engine::{Buf, Disk, DiskFault, FaultKind};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::run_to_end::RunToEnd;

/// Which requests a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InjectOp {
    /// All of them, discards included.
    #[default]
    Any,
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Flushes.
    Flush,
}

/// What a rule does to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum InjectKind {
    /// It fails with EIO; nothing is read or written.
    Error,
    /// It begins later.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// It hangs until the rule is cleared, then goes on.
    Stall,
    /// One bit in each block that lies in the rule's range is flipped, silently.
    Corrupt,
    /// It fails, and so does every later request of the disk until the rule is cleared.
    Death,
}

/// Bytes of the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ByteRange {
    /// First byte.
    pub start: u64,
    /// Number of bytes.
    pub len: u64,
}

/// One rule.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct InjectRule {
    /// Which requests.
    #[serde(default)]
    pub op: InjectOp,
    /// Only requests that touch this part of the disk; flushes touch no part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ByteRange>,
    /// What happens to them.
    pub kind: InjectKind,
    /// How often it happens before the rule is spent; without, until it is cleared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Chance in percent that it happens to a request that matches; without, always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<f64>,
    /// Seed of that chance.
    #[serde(default)]
    pub seed: u64,
}

/// Why a rule was not taken.
#[derive(Clone, Copy, PartialEq, Debug, Error)]
pub enum RuleError {
    /// The chance is no percentage.
    #[error("{0} is no percentage: give a number above 0 and up to 100")]
    Percent(f64),
    /// The rule would never do anything.
    #[error("a count or a range of 0 would never do anything")]
    Nothing,
    /// Corruption needs data.
    #[error("only reads and writes can be corrupted")]
    CorruptFlush,
}

/// A rule in force.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ActiveRule {
    /// Its number, from 1, never used twice for a disk.
    pub id: u64,
    /// The rule as it was added.
    pub rule: InjectRule,
    /// How often it has acted.
    pub hits: u64,
    /// Its count is used up; kept for listing until cleared.
    pub spent: bool,
}

/// The switch of one disk's injections. Clones are handles to the same rules.
#[derive(Clone, Default)]
pub struct Injector(Rc<State>);

#[derive(Default)]
struct State {
    /// Whether any rule can still act: the only thing that a request looks at otherwise.
    armed: Cell<bool>,
    next_id: Cell<u64>,
    rules: RefCell<Vec<Armed>>,
    /// Requests that hang until the rules change.
    waiting: RefCell<Vec<Waker>>,
}

struct Armed {
    active: ActiveRule,
    random: u64,
    /// A death that has happened.
    dead: bool,
}

/// What the rules say of one request.
#[derive(Default)]
struct Verdict {
    delay_ms: u64,
    fault: Option<DiskFault>,
    stall: Option<u64>,
    corrupt: Option<(Range<u64>, u64)>,
}

/// One request as the rules see it.
#[derive(Clone, Copy)]
struct Seen {
    op: Option<InjectOp>,
    offset: u64,
    len: u64,
}

impl Injector {
    /// Adds a rule and answers its number. It acts on requests that begin from now on.
    ///
    /// # Errors
    /// [`RuleError`] for a rule that makes no sense.
    pub fn add(&self, rule: InjectRule) -> Result<u64, RuleError> {
        if let Some(percent) = rule.percent
            && !(percent > 0.0 && percent <= 100.0)
        {
            return Err(RuleError::Percent(percent));
        }
        if rule.count == Some(0) || rule.range.is_some_and(|range| range.len == 0) {
            return Err(RuleError::Nothing);
        }
        if rule.kind == InjectKind::Corrupt && rule.op == InjectOp::Flush {
            return Err(RuleError::CorruptFlush);
        }
        let id = self.0.next_id.get() + 1;
        self.0.next_id.set(id);
        let random = rule.seed;
        let active = ActiveRule { id, rule, hits: 0, spent: false };
        self.0.rules.borrow_mut().push(Armed { active, random, dead: false });
        self.changed();
        Ok(id)
    }

    /// Takes rule `id` away; requests that it stalls go on. Answers whether there was one.
    pub fn remove(&self, id: u64) -> bool {
        let mut rules = self.0.rules.borrow_mut();
        let before = rules.len();
        rules.retain(|armed| armed.active.id != id);
        let found = rules.len() < before;
        drop(rules);
        self.changed();
        found
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        self.0.rules.borrow_mut().clear();
        self.changed();
    }

    /// The rules in the order in which they were added.
    #[must_use]
    pub fn list(&self) -> Vec<ActiveRule> {
        self.0.rules.borrow().iter().map(|armed| armed.active.clone()).collect()
    }

    fn rearm(&self) {
        self.0.armed.set(self.0.rules.borrow().iter().any(Armed::can_act));
    }

    fn changed(&self) {
        self.rearm();
        for waker in self.0.waiting.take() {
            waker.wake();
        }
    }

    fn judge(&self, seen: Seen) -> Verdict {
        let mut verdict = Verdict::default();
        for armed in self.0.rules.borrow_mut().iter_mut() {
            if armed.dead {
                verdict.fault = Some(GONE);
                break;
            }
            if !armed.hits(seen) {
                continue;
            }
            match armed.active.rule.kind {
                InjectKind::Delay { ms } => verdict.delay_ms = verdict.delay_ms.saturating_add(ms),
                InjectKind::Corrupt => {
                    verdict.corrupt = Some((armed.active.rule.overlap(seen), armed.random));
                }
                InjectKind::Stall => {
                    verdict.stall = Some(armed.active.id);
                    break;
                }
                InjectKind::Error => {
                    let errno = Errno::IO.raw_os_error();
                    verdict.fault = Some(DiskFault { kind: FaultKind::Medium, errno });
                    break;
                }
                InjectKind::Death => {
                    armed.dead = true;
                    verdict.fault = Some(GONE);
                    break;
                }
            }
        }
        self.rearm();
        verdict
    }

    /// Waits until rule `id` is cleared.
    async fn cleared(&self, id: u64) {
        poll_fn(|cx| {
            if self.0.rules.borrow().iter().all(|armed| armed.active.id != id) {
                return Poll::Ready(());
            }
            self.0.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Applies delay, stall and fault; answers what to corrupt.
    async fn pass(&self, seen: Seen) -> Result<Option<(Range<u64>, u64)>, DiskFault> {
        let verdict = self.judge(seen);
        if verdict.delay_ms > 0 {
            compio::time::sleep(Duration::from_millis(verdict.delay_ms)).await;
        }
        if let Some(id) = verdict.stall {
            self.cleared(id).await;
        }
        verdict.fault.map_or(Ok(verdict.corrupt), Err)
    }
}

const GONE: DiskFault = DiskFault::new(FaultKind::Gone);

impl InjectRule {
    /// The part of the request that lies in the rule's range.
    fn overlap(&self, seen: Seen) -> Range<u64> {
        let end = seen.offset + seen.len;
        match self.range {
            None => seen.offset..end,
            Some(range) => {
                range.start.max(seen.offset)..range.start.saturating_add(range.len).min(end)
            }
        }
    }
}

impl Armed {
    fn can_act(&self) -> bool {
        self.dead || !self.active.spent
    }

    /// Whether the rule acts on this request; counts it if so.
    fn hits(&mut self, seen: Seen) -> bool {
        let rule = &self.active.rule;
        let op = rule.op == InjectOp::Any || seen.op == Some(rule.op);
        let data = matches!(seen.op, Some(InjectOp::Read | InjectOp::Write));
        let kind = rule.kind != InjectKind::Corrupt || data;
        let place = rule.range.is_none() || !rule.overlap(seen).is_empty();
        if self.active.spent || !op || !kind || !place {
            return false;
        }
        self.random = next_random(self.random);
        // 53 bits make a fraction in [0, 1) without rounding.
        let fraction = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        if rule.percent.is_some_and(|percent| fraction * 100.0 >= percent) {
            return false;
        }
        self.active.hits += 1;
        self.active.spent = rule.count.is_some_and(|count| self.active.hits >= count);
        true
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", 2014), state and output in one: the
/// output function is a bijection, so feeding it back with the increment added still visits every state's image.
fn next_random(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Flips one bit in each 4096 bytes of `range`, given in bytes of the disk; `offset` is the buffer's place on it.
fn flip(bytes: &mut [u8], offset: u64, range: Range<u64>, seed: u64) {
    let within = |at: u64| usize::try_from(at - offset).expect("inside the buffer");
    let mut random = seed;
    for block in bytes[within(range.start)..within(range.end)].chunks_mut(4096) {
        random = next_random(random);
        let at = (random >> 3) as usize % block.len();
        block[at] ^= 1 << (random & 7);
    }
}

/// A disk with rules before it. Clones are handles to the same disk and the same rules.
pub struct InjectedDisk<D> {
    inner: Rc<D>,
    injector: Injector,
}

impl<D> Clone for InjectedDisk<D> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner), injector: self.injector.clone() }
    }
}

impl<D: Disk> InjectedDisk<D> {
    /// Puts an injector without rules before `inner`.
    #[must_use]
    pub fn new(inner: D) -> Self {
        Self { inner: Rc::new(inner), injector: Injector::default() }
    }

    /// The switch.
    #[must_use]
    pub fn injector(&self) -> Injector {
        self.injector.clone()
    }

    /// Whether `other` is a handle to the same disk.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether there are other handles to this disk, or requests of it under way.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Rc::strong_count(&self.inner) > 1
    }

    /// The disk behind.
    #[must_use]
    pub fn inner(&self) -> &D {
        &self.inner
    }

    fn armed(&self) -> bool {
        self.injector.0.armed.get()
    }

    fn parts(&self) -> (Rc<D>, Injector) {
        (Rc::clone(&self.inner), self.injector.clone())
    }
}

impl<D: Disk> Disk for InjectedDisk<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    async fn read(&self, offset: u64, buf: Buf) -> (Result<(), DiskFault>, Buf) {
        if !self.armed() {
            return self.inner.read(offset, buf).await;
        }
        let (inner, injector) = self.parts();
        let seen = Seen { op: Some(InjectOp::Read), offset, len: buf.len() as u64 };
        RunToEnd::new(async move {
            match injector.pass(seen).await {
                Err(fault) => (Err(fault), buf),
                Ok(corrupt) => {
                    let (result, mut buf) = inner.read(offset, buf).await;
                    if let Some((range, seed)) = corrupt {
                        flip(buf.bytes_mut(), offset, range, seed);
                    }
                    (result, buf)
                }
            }
        })
        .await
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), DiskFault> {
        if !self.armed() {
            return self.inner.write(offset, buf).await;
        }
        let (inner, injector) = self.parts();
        let seen = Seen { op: Some(InjectOp::Write), offset, len: buf.len() as u64 };
        RunToEnd::new(async move {
            let mut buf = buf;
            if let Some((range, seed)) = injector.pass(seen).await? {
                buf = Buf::copy_of(&buf);
                flip(buf.bytes_mut(), offset, range, seed);
            }
            inner.write(offset, buf).await
        })
        .await
    }

    async fn flush(&self) -> Result<(), DiskFault> {
        if !self.armed() {
            return self.inner.flush().await;
        }
        let (inner, injector) = self.parts();
        let seen = Seen { op: Some(InjectOp::Flush), offset: 0, len: 0 };
        RunToEnd::new(async move {
            injector.pass(seen).await?;
            inner.flush().await
        })
        .await
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), DiskFault> {
        if !self.armed() {
            return self.inner.discard(offset, len).await;
        }
        let (inner, injector) = self.parts();
        RunToEnd::new(async move {
            injector.pass(Seen { op: None, offset, len }).await?;
            inner.discard(offset, len).await
        })
        .await
    }
}

#[cfg(test)]
mod tests;
