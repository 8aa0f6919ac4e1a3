//! The engine on memory disks, run to the end of each request on this very thread.
//!
//! Owns an executor that polls everything in turn. Memory answers at once and no background work is started, so nothing ever
//! sleeps: the accesses between two requests are those of the request.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use anyhow::{Context as _, Result, bail};
use forestall_disk::MemoryDisk;
use forestall_engine::format::layout::UNWRITTEN_UNIT;
use forestall_engine::geometry::Geometry;
use forestall_engine::{
    Array, AssembleOptions, Buf, CreateGroup, CreateSpec, DiskIdentity, DiskNumber, Env,
    JournalMode, Level, NewDisk, Runtime, Slot, Task, VolumeHandle,
};

use super::Count;

/// Large enough that a region of the intent map holds many stripes.
const DISK_SIZE: u64 = 128 << 20;
const CHUNK: u32 = 64 << 10;

/// Looks at everything until a request is surely stuck.
const LOOKS_MAX: u32 = 1_000_000;

struct MemoryEnv;

impl Env for MemoryEnv {
    type Disk = MemoryDisk;
    type Runtime = Inline;
}

/// Time stands still, tasks wait for [`Inline::run`].
#[derive(Clone, Default)]
struct Inline {
    tasks: Rc<RefCell<Vec<Task>>>,
    drawn: Rc<Cell<u64>>,
}

impl Runtime for Inline {
    fn now_ns(&self) -> u64 {
        0
    }

    fn unix_ms(&self) -> u64 {
        0
    }

    fn sleep_ns(&self, _ns: u64) -> impl Future<Output = ()> + 'static {
        pending()
    }

    fn spawn(&self, task: Task) {
        self.tasks.borrow_mut().push(task);
    }

    fn random_u64(&self) -> u64 {
        self.drawn.set(self.drawn.get() + 1);
        self.drawn.get()
    }
}

impl Inline {
    /// Runs `main` to its end, and with it the tasks that it spawns.
    fn run<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..LOOKS_MAX {
            if let Poll::Ready(value) = main.as_mut().poll(&mut cx) {
                return value;
            }
            let mut tasks = self.tasks.take();
            tasks.retain_mut(|task| task.as_mut().poll(&mut cx).is_pending());
            // What was spawned meanwhile comes after.
            tasks.append(&mut self.tasks.borrow_mut());
            *self.tasks.borrow_mut() = tasks;
        }
        panic!("a request on memory disks does not end");
    }
}

/// An array of one group and one volume over all of it.
pub struct BenchArray {
    rt: Inline,
    array: Rc<Array<MemoryEnv>>,
    volume: VolumeHandle<MemoryEnv>,
    /// The group's geometry; the volume starts where the group does.
    pub geometry: Geometry,
}

impl BenchArray {
    /// A new array with nothing written.
    ///
    /// # Errors
    /// If the engine refuses the shape.
    pub fn new(level: Level, members: usize) -> Result<Self> {
        let rt = Inline::default();
        let disks: Vec<_> = (0..members).map(|_| MemoryDisk::new(DISK_SIZE)).collect();
        let handles = || {
            let new = |disk: &MemoryDisk| NewDisk {
                disk: disk.clone(),
                identity: DiskIdentity::default(),
            };
            disks.iter().map(new).collect::<Vec<_>>()
        };
        let group = CreateGroup {
            level,
            chunk: CHUNK,
            journal: JournalMode::Off,
            checksums: true,
            spares: 0,
            volume: None,
        };
        let spec = CreateSpec { name: "bench".into(), allow_injection: false, group: Some(group) };
        rt.run(Array::<MemoryEnv>::create(rt.clone(), spec, handles()))?;
        let assembled = rt.run(Array::assemble(rt.clone(), handles(), AssembleOptions::default()));
        let array = assembled.map_err(|(error, _disks)| error)?;
        let volume = array.open_volume("bench").context("the array has no volume")?;
        let capacity = array.report().groups[0].capacity;
        let stripe_len = Geometry::new(level, members, CHUNK, 1)?.stripe_len();
        let geometry = Geometry::new(level, members, CHUNK, capacity / stripe_len)?;
        Ok(Self { rt, array, volume, geometry })
    }

    /// Bytes that become written by the first write to any of them.
    pub fn unit_len(&self) -> u64 {
        let stripes = (UNWRITTEN_UNIT / u64::from(CHUNK)).max(1);
        stripes * self.geometry.stripe_len()
    }

    /// Writes and counts.
    ///
    /// # Errors
    /// What the engine answers.
    pub fn write(&mut self, offset: u64, len: u64) -> Result<Count> {
        let data = Buf::copy_of(&vec![0x5a; usize::try_from(len)?]);
        self.counted(|this| Ok(this.rt.run(this.volume.write(offset, data, false))?))
    }

    /// Reads and counts.
    ///
    /// # Errors
    /// What the engine answers.
    pub fn read(&mut self, offset: u64, len: u64) -> Result<Count> {
        self.counted(|this| {
            let read: usize =
                this.rt.run(this.volume.read(offset, len))?.iter().map(|buf| buf.len()).sum();
            if read as u64 != len {
                bail!("{read} bytes were read instead of {len}");
            }
            Ok(())
        })
    }

    /// Takes the member in `slot` out.
    ///
    /// # Errors
    /// What the engine answers.
    pub fn fail(&mut self, slot: Slot) -> Result<()> {
        // Disks were labelled from 1 in slot order.
        let disk = DiskNumber(u32::from(slot.0) + 1);
        Ok(self.rt.run(self.array.fail_disk(disk))?)
    }

    fn counted(&mut self, act: impl FnOnce(&mut Self) -> Result<()>) -> Result<Count> {
        let before = self.total();
        act(self)?;
        let after = self.total();
        Ok(Count {
            reads: after.reads - before.reads,
            writes: after.writes - before.writes,
            metadata: after.metadata - before.metadata,
        })
    }

    fn total(&self) -> Count {
        let report = self.array.report();
        let all = report.disks.iter().map(|disk| disk.accesses);
        all.fold(Count { reads: 0, writes: 0, metadata: 0 }, |sum, one| Count {
            reads: sum.reads + one.reads,
            writes: sum.writes + one.writes,
            metadata: sum.metadata + one.metadata,
        })
    }
}
