//! The shelf of drives that outlives every run of the simulated machine.
//!
//! Owns [`Bay`] and [`Shelf`]: which drives there are, which of them must not be relied on, which the operator took out.
//! Invariant: a drive is suspect from the moment a fault is set on it until it was seen whole in its place again. What a
//! level survives is `shape.rs`'s matter, what to inject `injector.rs`'s.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use forestall_engine::{
    ArrayReport, DiskIdentity, DiskNumber, DiskReport, DiskState, GroupReport, NewDisk,
};

use crate::disk::Drive;
use crate::executor::SimRuntime;
use crate::mechanics::DiskModel;
use crate::medium::Loss;
use crate::rng::Rng;
use crate::target::SimEnv;

/// One drive and what the simulation knows of it.
pub struct Bay {
    /// The drive.
    pub drive: Drive,
    /// A fault was set on it that it may not have got over.
    pub suspect: Cell<bool>,
    /// The operator took it out for good.
    pub removed: Cell<bool>,
    /// Left out of the running start of the machine.
    pub withheld: Cell<bool>,
}

impl Bay {
    /// Whether the array's disk cannot be relied on.
    #[must_use]
    pub fn impaired(&self) -> bool {
        self.suspect.get()
            || self.withheld.get()
            || self.drive.faults().any()
            || self.drive.is_wrong()
    }

    /// It dies.
    pub fn die(&self) {
        self.suspect.set(true);
        self.drive.faults_mut().set_dead(true);
    }

    /// A handle for the engine.
    #[must_use]
    pub fn hand_over(&self, runtime: &SimRuntime) -> NewDisk<SimEnv> {
        let identity =
            DiskIdentity { path: self.drive.name().to_owned(), ..DiskIdentity::default() };
        NewDisk { disk: self.drive.open(runtime), identity }
    }

    /// Whether anything stands on its first or last block: a disk without any label is not the array's.
    #[must_use]
    pub fn labelled(&self) -> bool {
        self.drive.is_written(0) || self.drive.is_written(self.drive.size() - 4096)
    }
}

/// All drives; clones share them.
#[derive(Clone, Default)]
pub struct Shelf {
    bays: Rc<RefCell<Vec<Rc<Bay>>>>,
    /// What drives put on it are made of; none: their times are random.
    model: Rc<Cell<Option<DiskModel>>>,
}

/// The first of the streams of chance of the drives' platters, one a drive.
const PLATTERS: u64 = 1_000_000;

impl Shelf {
    /// From now on drives are made like `model`.
    pub fn set_model(&self, model: DiskModel) {
        self.model.set(Some(model));
    }

    /// Puts a new blank drive of `size` bytes on the shelf.
    pub fn add(&self, size: u64, seed: u64) -> Rc<Bay> {
        let number = self.bays.borrow().len() + 1;
        let drive = Drive::new(format!("d{number}"), size, Rng::new(seed, 100 + number as u64));
        if let Some(model) = self.model.get() {
            drive.set_model(model, Rng::new(seed, PLATTERS + number as u64));
        }
        let bay = Bay {
            drive,
            suspect: Cell::new(false),
            removed: Cell::new(false),
            withheld: Cell::new(false),
        };
        let bay = Rc::new(bay);
        self.bays.borrow_mut().push(Rc::clone(&bay));
        bay
    }

    /// Every drive.
    #[must_use]
    pub fn all(&self) -> Vec<Rc<Bay>> {
        self.bays.borrow().clone()
    }

    /// The drive of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<Rc<Bay>> {
        self.bays.borrow().iter().find(|b| b.drive.name() == name).cloned()
    }

    /// The drive that the array calls `disk`.
    #[must_use]
    pub fn of(&self, report: &ArrayReport, disk: DiskNumber) -> Option<Rc<Bay>> {
        let entry = report.disks.iter().find(|d| d.number == disk)?;
        self.named(&entry.identity.path)
    }

    /// The number of the array's disk on this drive.
    #[must_use]
    pub fn number_of(report: &ArrayReport, bay: &Bay) -> Option<DiskNumber> {
        report.disks.iter().find(|d| d.identity.path == bay.drive.name()).map(|d| d.number)
    }

    /// Whether a group relies on the drive, as a member or as what fills a slot.
    #[must_use]
    pub fn belongs(report: &ArrayReport, group: &GroupReport, bay: &Bay) -> bool {
        let number = Self::number_of(report, bay);
        report.disks.iter().any(|d| Some(d.number) == number && d.group == Some(group.number))
    }

    /// Which members of the group cannot be relied on, in slot order; with `also` counted in.
    #[must_use]
    pub fn impaired(
        &self,
        report: &ArrayReport,
        group: &GroupReport,
        also: Option<&Bay>,
    ) -> Vec<bool> {
        let unreliable = |disk: DiskNumber| {
            self.of(report, disk).is_none_or(|bay| {
                bay.impaired() || also.is_some_and(|a| a.drive.name() == bay.drive.name())
            })
        };
        let members = group.members.iter().enumerate();
        members
            .map(|(slot, &disk)| {
                let of_slot = |d: &&DiskReport| {
                    d.group == Some(group.number) && d.slot.map(usize::from) == Some(slot)
                };
                let in_sync =
                    report.disks.iter().any(|d| d.number == disk && d.state == DiskState::InSync);
                // What is wrong with a disk that fills the slot is the slot's once it has taken its place.
                group.absent.contains(&disk)
                    || !in_sync
                    || unreliable(disk)
                    || report.disks.iter().filter(of_slot).any(|d| unreliable(d.number))
            })
            .collect()
    }

    /// The machine loses power or its process is killed: every drive takes its own loss, or all the same.
    pub fn crash(&self, rng: &mut Rng) {
        let same = Loss::random(rng);
        let alike = rng.percent(70);
        for bay in self.bays.borrow().iter() {
            bay.drive.crash(if alike { same } else { Loss::random(rng) });
        }
    }
}
