//! Simulated disks: the shipped engine's [`Disk`] over a [`Medium`], [`Faults`] and virtual time.
//!
//! Owns [`Drive`], the thing in the shelf that outlives crashes, and [`SimDisk`], one opening of it. A request takes effect
//! at one moment between its submission and its answer, after a seeded latency (or that of a model, [`Drive::set_model`]); so requests under way at once complete in
//! any order. Invariants, asserted: requests are aligned and inside the disk; no two writes under way overlap (rule F3);
//! a handle of before a crash reaches the disk no more. A request runs to its end even if its future is dropped.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::rc::Rc;

use forestall_engine::{BLOCK_SIZE, Buf, Disk, DiskFault, Runtime};

use crate::executor::{Happening, SimRuntime};
use crate::faults::{Faults, Injected};
use crate::mechanics::Mechanics;
use crate::medium::{Loss, Medium, SECTOR};
use crate::pattern::is_zero;
use crate::rng::Rng;

mod effect;
mod request;

use request::{Answer, Pending, Request, UnderWay};

/// Requests that a drive took, by class. Data lies inside the range given by [`Drive::set_data`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accesses {
    /// Reads of the data range.
    pub data_reads: u64,
    /// Writes of the data range.
    pub data_writes: u64,
    /// Bytes read and written in the data range.
    pub data_bytes: u64,
    /// Reads elsewhere.
    pub other_reads: u64,
    /// Writes elsewhere.
    pub other_writes: u64,
    /// Bytes read and written elsewhere.
    pub other_bytes: u64,
    /// The longest read or write.
    pub longest: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
}

impl Accesses {
    /// What came after `before`; the longest request is that of all time.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            data_reads: self.data_reads - before.data_reads,
            data_writes: self.data_writes - before.data_writes,
            data_bytes: self.data_bytes - before.data_bytes,
            other_reads: self.other_reads - before.other_reads,
            other_writes: self.other_writes - before.other_writes,
            other_bytes: self.other_bytes - before.other_bytes,
            longest: self.longest,
            flushes: self.flushes - before.flushes,
            discards: self.discards - before.discards,
        }
    }
}

/// A drive in the shelf: its medium, its faults, and who has it open. Clones are the same drive.
#[derive(Clone)]
pub struct Drive(Rc<Inner>);

struct Inner {
    name: String,
    size: u64,
    medium: RefCell<Medium>,
    faults: RefCell<Faults>,
    rng: RefCell<Rng>,
    /// How long it takes, if not at random.
    mechanics: RefCell<Option<Mechanics>>,
    runtime: RefCell<Option<SimRuntime>>,
    session: Cell<u64>,
    /// Handles older than this are of before a crash; other old ones are of a disk that was unplugged.
    crashed: Cell<u64>,
    numbers: Cell<u64>,
    under_way: RefCell<BTreeMap<u64, UnderWay>>,
    data: RefCell<Range<u64>>,
    accesses: Cell<Accesses>,
    injected: RefCell<BTreeMap<Injected, u64>>,
    last_written: RefCell<VecDeque<u64>>,
    /// An image was put on it.
    restored: Cell<bool>,
}

/// How many places of writes are remembered.
const REMEMBERED: usize = 16;

impl Drive {
    /// A drive of `size` zero bytes.
    ///
    /// # Panics
    /// If the size is not a positive multiple of 4096.
    #[must_use]
    pub fn new(name: impl Into<String>, size: u64, rng: Rng) -> Self {
        assert!(size > 0 && size.is_multiple_of(BLOCK_SIZE), "a disk is a whole number of blocks");
        Self(Rc::new(Inner {
            name: name.into(),
            size,
            medium: RefCell::new(Medium::new(size)),
            faults: RefCell::default(),
            rng: RefCell::new(rng),
            mechanics: RefCell::default(),
            runtime: RefCell::default(),
            session: Cell::new(0),
            crashed: Cell::new(0),
            numbers: Cell::new(0),
            under_way: RefCell::default(),
            data: RefCell::new(0..size),
            accesses: Cell::default(),
            injected: RefCell::default(),
            last_written: RefCell::default(),
            restored: Cell::default(),
        }))
    }

    /// Opens the drive under `runtime`. Earlier handles of this run stay good: they are the same drive.
    #[must_use]
    pub fn open(&self, runtime: &SimRuntime) -> SimDisk {
        *self.0.runtime.borrow_mut() = Some(runtime.clone());
        SimDisk { drive: self.clone(), session: self.0.session.get() }
    }

    /// The drive's name: its path in the array's eyes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.size
    }

    /// Its faults, to look at.
    pub fn faults(&self) -> Ref<'_, Faults> {
        self.0.faults.borrow()
    }

    /// Its faults, to change.
    pub fn faults_mut(&self) -> RefMut<'_, Faults> {
        self.0.faults.borrow_mut()
    }

    /// Says which range holds data, for counting; the rest counts as other.
    pub fn set_data(&self, range: Range<u64>) {
        *self.0.data.borrow_mut() = range;
    }

    /// Requests since the drive was made.
    #[must_use]
    pub fn accesses(&self) -> Accesses {
        self.0.accesses.get()
    }

    /// Faults that requests met since the drive was made.
    #[must_use]
    pub fn injected(&self) -> BTreeMap<Injected, u64> {
        self.0.injected.borrow().clone()
    }

    /// Where the last few writes began.
    #[must_use]
    pub fn last_written(&self) -> Vec<u64> {
        self.0.last_written.borrow().iter().copied().collect()
    }

    /// Whether anything stands on the block at `offset`.
    #[must_use]
    pub fn is_written(&self, offset: u64) -> bool {
        !is_zero(&self.0.medium.borrow().read(offset, BLOCK_SIZE as usize))
    }

    /// Whether any sector silently holds something else than what was written there last.
    #[must_use]
    pub fn is_wrong(&self) -> bool {
        self.0.medium.borrow().is_wrong()
    }

    /// Whether it ever held what was not written there.
    #[must_use]
    pub fn was_tampered_with(&self) -> bool {
        let lies = [Injected::BitRot, Injected::LostWrite, Injected::MisdirectedWrite];
        let injected = self.0.injected.borrow();
        self.0.restored.get() || lies.iter().any(|kind| injected.contains_key(kind))
    }

    /// Flips a bit of the sector at `offset`, without any error. `false`: it is not durable yet, or wrong already.
    pub fn rot(&self, offset: u64) -> bool {
        let mut medium = self.0.medium.borrow_mut();
        let mut sector: [u8; SECTOR as usize] =
            medium.read(offset, SECTOR as usize).try_into().expect("a whole sector");
        let bit = self.0.rng.borrow_mut().below(SECTOR * 8);
        sector[(bit / 8) as usize] ^= 1 << (bit % 8);
        let rotten = medium.corrupt(offset, &sector);
        if rotten {
            *self.0.injected.borrow_mut().entry(Injected::BitRot).or_default() += 1;
        }
        rotten
    }

    /// What a read of the whole drive returns, without any fault.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.0.medium.borrow().image()
    }

    /// Puts an older image back (a restored backup, a disk that returns from long ago), all of it durable.
    ///
    /// # Panics
    /// If the image has another size or requests are under way.
    pub fn restore(&self, image: Vec<u8>) {
        assert_eq!(image.len() as u64, self.0.size);
        assert!(self.0.under_way.borrow().is_empty(), "restored while in use");
        self.0.restored.set(true);
        *self.0.medium.borrow_mut() = Medium::from_image(image);
    }

    /// The machine loses power or the process is killed: requests under way end nowhere, unflushed writes go as `loss` says,
    /// handles opened before are dead. Faults stay, but for a stall.
    pub fn crash(&self, loss: Loss) {
        self.power_cycle(loss);
        self.0.under_way.borrow_mut().clear();
        self.0.crashed.set(self.0.session.get());
        self.0.faults.borrow_mut().stall(0);
        *self.0.runtime.borrow_mut() = None;
    }

    /// The drive alone loses power or is unplugged, and comes back: unflushed writes go as `loss` says, handles opened before
    /// answer that it is gone. Faults stay.
    pub fn power_cycle(&self, loss: Loss) {
        let under_way = self.0.under_way.borrow();
        let current = under_way.values().filter(|u| u.session == self.0.session.get());
        let in_flight: Vec<(u64, &[u8])> = current
            .filter_map(|u| match &u.request {
                Request::Write { offset, buf } => Some((*offset, &buf[..])),
                Request::Read { .. } | Request::Flush { .. } | Request::Discard { .. } => None,
            })
            .collect();
        self.0.medium.borrow_mut().crash(&in_flight, loss, &mut self.0.rng.borrow_mut());
        self.0.session.set(self.0.session.get() + 1);
    }

    fn submit(&self, session: u64, request: Request) -> Pending {
        let inner = &self.0;
        assert!(
            session >= inner.crashed.get(),
            "{}: used after a crash by a handle of before",
            inner.name
        );
        let runtime = inner.runtime.borrow().clone().expect("an open drive has a runtime");
        assert!(!runtime.stopped(), "{}: a destructor touched the disk", inner.name);
        let range = request.range();
        assert!(
            range.start.is_multiple_of(BLOCK_SIZE)
                && range.end.is_multiple_of(BLOCK_SIZE)
                && range.end <= inner.size,
            "{}: {} of {range:?} is unaligned or outside the disk's {} bytes",
            inner.name,
            request.word(),
            inner.size
        );
        self.assert_no_overlap(session, &request, &range);
        self.count(&request, &range);
        let number = inner.numbers.get() + 1;
        inner.numbers.set(number);
        runtime.trace().note(request.code(), number, range.start);
        runtime.trace().line(
            runtime.now_ns(),
            format_args!(
                "{} {} {}+{} submitted",
                inner.name,
                request.word(),
                range.start,
                range.end - range.start
            ),
        );
        let drive = matches!(request, Request::Flush { .. }).then(|| self.clone());
        let delay = self.latency(&request, runtime.now_ns());
        let answer = Rc::<Answer>::default();
        inner
            .under_way
            .borrow_mut()
            .insert(number, UnderWay { session, request, answer: Rc::clone(&answer) });
        runtime.at(delay, Rc::new(self.clone()), number);
        Pending { answer, drive }
    }

    /// Rule F3: two writes under way to one place end in an order that nobody knows.
    fn assert_no_overlap(&self, session: u64, request: &Request, range: &Range<u64>) {
        if !request.changes() {
            return;
        }
        let under_way = self.0.under_way.borrow();
        for other in under_way.values().filter(|u| u.request.changes() && u.session == session) {
            let there = other.request.range();
            assert!(
                there.end <= range.start || range.end <= there.start,
                "{}: {} of {range:?} while a {} of {there:?} is under way (rule F3)",
                self.0.name,
                request.word(),
                other.request.word()
            );
        }
    }

    fn count(&self, request: &Request, range: &Range<u64>) {
        let data = self.0.data.borrow();
        let in_data = range.start < data.end && data.start < range.end;
        if matches!(request, Request::Write { .. }) {
            let mut last = self.0.last_written.borrow_mut();
            last.truncate(REMEMBERED - 1);
            last.push_front(range.start);
        }
        let mut counts = self.0.accesses.get();
        match (request, in_data) {
            (Request::Read { .. }, true) => counts.data_reads += 1,
            (Request::Read { .. }, false) => counts.other_reads += 1,
            (Request::Write { .. }, true) => counts.data_writes += 1,
            (Request::Write { .. }, false) => counts.other_writes += 1,
            (Request::Flush { .. }, _) => counts.flushes += 1,
            (Request::Discard { .. }, _) => counts.discards += 1,
        }
        if matches!(request, Request::Read { .. } | Request::Write { .. }) {
            let len = range.end - range.start;
            *(if in_data { &mut counts.data_bytes } else { &mut counts.other_bytes }) += len;
            counts.longest = counts.longest.max(len);
        }
        self.0.accesses.set(counts);
    }
}

impl Happening for Drive {
    fn happen(&self, number: u64) {
        let Some(UnderWay { session, request, answer }) =
            self.0.under_way.borrow_mut().remove(&number)
        else {
            return;
        };
        let (word, range) = (request.word(), request.range());
        let (result, buf) = self.perform(session, request);
        let runtime =
            self.0.runtime.borrow().clone().expect("a drive with requests under way is open");
        let kind = result.err().map_or(0, |fault| 1 + fault.kind as u64);
        runtime.trace().note(14, number, kind);
        let outcome = match &result {
            Ok(()) => "done".to_owned(),
            Err(fault) => fault.to_string(),
        };
        runtime.trace().line(
            runtime.now_ns(),
            format_args!(
                "{} {word} {}+{} {outcome}",
                self.0.name,
                range.start,
                range.end - range.start
            ),
        );
        *answer.result.borrow_mut() = Some((result, buf));
        if let Some(waker) = answer.waker.take() {
            waker.wake();
        }
    }
}

/// One opening of a [`Drive`].
pub struct SimDisk {
    drive: Drive,
    session: u64,
}

impl SimDisk {
    /// The drive behind it.
    #[must_use]
    pub fn drive(&self) -> &Drive {
        &self.drive
    }
}

impl Disk for SimDisk {
    fn size(&self) -> u64 {
        self.drive.size()
    }

    async fn read(&self, offset: u64, buf: Buf) -> (Result<(), DiskFault>, Buf) {
        let (result, buf) = self.drive.submit(self.session, Request::Read { offset, buf }).await;
        (result, buf.expect("a read hands its buffer back"))
    }

    async fn write(&self, offset: u64, buf: Buf) -> Result<(), DiskFault> {
        self.drive.submit(self.session, Request::Write { offset, buf }).await.0
    }

    async fn flush(&self) -> Result<(), DiskFault> {
        let mark = self.drive.0.medium.borrow().mark();
        self.drive.submit(self.session, Request::Flush { mark }).await.0
    }

    async fn discard(&self, offset: u64, len: u64) -> Result<(), DiskFault> {
        self.drive.submit(self.session, Request::Discard { range: offset..offset + len }).await.0
    }
}

#[cfg(test)]
#[path = "disk/tests.rs"]
mod tests;
