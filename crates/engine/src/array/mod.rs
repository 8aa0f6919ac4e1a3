//! The array: what the server, the command line and the simulator call.
//!
//! Owns the state of a running array: the configuration that counts, the open drives, the groups and volumes made of them. Invariants:
//! state that the configuration names changes only by `commit`, and takes effect in `apply` once its generation counts (rule C1);
//! one thread owns it all, so nothing is locked on the data path. The parts live in the modules below.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use crate::config::{BackupPlace, Configuration, DropReason};
use crate::drive::{Drive, TIMEOUT_NS_DEFAULT};
use crate::error::CommandError;
use crate::group::{Away, Group, Trouble};
use crate::ids::{DiskNumber, GroupNumber, VolumeNumber};
use crate::pair::{Mirror, Pair};
use crate::quorum::Stamp;
use crate::report::Severity;
use crate::runtime::{Env, Runtime};
use crate::shield::{LegFailures, Log};
use crate::sync::{Counted, Event, First, Mutex, MutexGuard, race};
use crate::volume::VolumeRt;

mod abandon;
mod advice;
mod apply;
mod assemble;
mod avoidance;
mod backing;
mod chaining;
mod commit;
mod create;
mod disks;
mod doubling;
mod events;
mod fillers;
mod following;
mod give_way;
mod given_up;
mod groups;
mod health;
mod jobs;
mod labels;
mod legs;
mod lost;
mod maintain;
mod mirroring;
mod mirrors;
mod overflow;
mod readd;
mod recover;
mod replace;
mod replacing;
mod retire;
mod reversal;
mod secondaries;
mod shelter;
mod spec;
mod status;
mod strategy;
mod tables;
mod tend;
mod volumes;
mod waiting;
mod work;

pub use labels::wipe;
pub use spec::{AssembleOptions, CreateGroup, CreateSpec, GroupSpec, NewDisk, VolumeSpec};

/// What was decided for the user, to be said aloud.
pub type Notes = Vec<String>;

/// How a disk that is missing in the configuration was found at the start after all.
#[derive(Clone, PartialEq, Eq, Debug)]
enum AtStart {
    /// With writes of its own (rule C5).
    Diverged,
    /// With an older state.
    Stale,
    /// With a label, and no configuration that can be read.
    Blank,
    /// Without a label that can be used, for this reason.
    Unfit(String),
}

/// A running array. One thread owns it; clones of the `Rc` share it.
pub struct Array<E: Env> {
    pub(crate) rt: E::Runtime,
    /// The configuration that counts.
    config: RefCell<Configuration>,
    /// The last one written, whether it counts or not.
    written: RefCell<Configuration>,
    counted: Cell<bool>,
    /// The generation that stands in both slots of every disk in service.
    doubled: Cell<u64>,
    commit_turn: Mutex,
    /// Every open disk of the array, also dropped ones that still answer.
    drives: RefCell<BTreeMap<DiskNumber, Rc<Drive<E>>>>,
    /// The newest configuration that each disk is known to hold.
    holds: RefCell<BTreeMap<DiskNumber, Stamp>>,
    /// Drives that were given up, on their way out of the configuration.
    failing: RefCell<BTreeMap<DiskNumber, DropReason>>,
    /// Of these, the ones that must not be taken for whole when they come back.
    untrusted: RefCell<BTreeSet<DiskNumber>>,
    /// Disks that fail and cannot be spared, already told of.
    alarmed: RefCell<BTreeSet<DiskNumber>>,
    groups: RefCell<BTreeMap<GroupNumber, Rc<Group<E>>>>,
    volumes: RefCell<BTreeMap<VolumeNumber, Rc<VolumeRt<E>>>>,
    /// Rule C3: an operator said to go on with fewer disks.
    leave: Cell<bool>,
    left: Event,
    /// Something changed that background work may want to act on.
    changed: Event,
    changes: Cell<u64>,
    stopping: Cell<bool>,
    /// Steps of background work, which an orderly stop waits for: what they write comes before the configuration that calls groups clean.
    steps: Counted,
    jobs: jobs::Jobs,
    /// Replacements that an operator has paused, by the disk being filled; until resumed, or until the old member or the
    /// copy is gone.
    paused: RefCell<BTreeSet<DiskNumber>>,
    /// Slots whose disk was being copied to a spare that was lost, not as what the shield of its group is up for: the next spare starts over.
    again: RefCell<BTreeSet<(GroupNumber, crate::ids::Slot)>>,
    /// Disks that were lost while they were filled into a slot, until another is there or the copy has ended.
    failed_fillers: RefCell<BTreeMap<(GroupNumber, crate::ids::Slot), DiskNumber>>,
    /// Why copies under way go without a shield, where they were begun by this start.
    direct: RefCell<BTreeMap<(GroupNumber, crate::ids::Slot), String>>,
    log: events::EventLog,
    watches: health::Watches,
    /// Logs of redirected writes in use, or about to be.
    logs: RefCell<BTreeMap<BackupPlace, Rc<Log<E>>>>,
    /// Pairs at work, or about to be, by primary.
    pairs: RefCell<BTreeMap<VolumeNumber, Rc<Pair<E>>>>,
    /// Secondaries that follow their primaries, by primary.
    mirrors: RefCell<BTreeMap<VolumeNumber, Rc<Mirror<E>>>>,
    leg_failures: RefCell<Option<Rc<LegFailures>>>,
    /// Weakened backups are being drained.
    draining: Cell<bool>,
    /// Volumes whose backups are full, as people were told.
    overflowing: RefCell<BTreeSet<VolumeNumber>>,
    /// A log that is gone is being let go.
    letting_go: Cell<bool>,
    /// Chains of backups are being made longer.
    chaining: Cell<bool>,
    /// How often each disk was replaced and was to be tested since the start.
    retirements: RefCell<BTreeMap<DiskNumber, u64>>,
    timeout_ns: u64,
    scrub_every_s: u64,
    started_at_ms: u64,
    /// What the start found of disks that it could not use; counts for those that are still missing.
    at_start: RefCell<BTreeMap<DiskNumber, AtStart>>,
    /// What this start gave up of redirected writes.
    given_up: RefCell<Vec<given_up::GivenUp>>,
    /// Commands that change disks, groups or volumes take turns.
    command_turn: Mutex,
}

impl<E: Env> Array<E> {
    fn new(
        rt: E::Runtime,
        config: Configuration,
        counted: bool,
        timeout_ns: u64,
        scrub_every_s: u64,
    ) -> Rc<Self> {
        let timeout_ns = if timeout_ns == 0 { TIMEOUT_NS_DEFAULT } else { timeout_ns };
        let array = Rc::new(Self {
            started_at_ms: rt.unix_ms(),
            at_start: RefCell::default(),
            given_up: RefCell::default(),
            rt,
            written: RefCell::new(config.clone()),
            config: RefCell::new(config),
            counted: Cell::new(counted),
            doubled: Cell::new(0),
            commit_turn: Mutex::default(),
            drives: RefCell::default(),
            holds: RefCell::default(),
            failing: RefCell::default(),
            untrusted: RefCell::default(),
            alarmed: RefCell::default(),
            groups: RefCell::default(),
            volumes: RefCell::default(),
            leave: Cell::new(false),
            left: Event::default(),
            changed: Event::default(),
            changes: Cell::new(0),
            stopping: Cell::new(false),
            steps: Counted::default(),
            jobs: jobs::Jobs::default(),
            paused: RefCell::default(),
            direct: RefCell::default(),
            again: RefCell::default(),
            failed_fillers: RefCell::default(),
            log: events::EventLog::default(),
            watches: health::Watches::default(),
            logs: RefCell::default(),
            pairs: RefCell::default(),
            mirrors: RefCell::default(),
            leg_failures: RefCell::default(),
            draining: Cell::new(false),
            overflowing: RefCell::default(),
            letting_go: Cell::new(false),
            chaining: Cell::new(false),
            retirements: RefCell::default(),
            timeout_ns,
            scrub_every_s,
            command_turn: Mutex::default(),
        });
        let failures = array.leg_failures();
        *array.leg_failures.borrow_mut() = Some(failures);
        array
    }

    /// Wakes whoever waits for a change.
    fn note_change(&self) {
        self.changes.set(self.changes.get() + 1);
        self.changed.notify();
    }

    fn group(&self, number: GroupNumber) -> Result<Rc<Group<E>>, CommandError> {
        let group = self.groups.borrow().get(&number).cloned();
        group.ok_or_else(|| {
            CommandError::NotFound(format!(
                "there is no group {number}; see `forestall group list`"
            ))
        })
    }

    fn path_of(&self, disk: DiskNumber) -> String {
        let open = self.drives.borrow().get(&disk).map(|d| d.identity.path.clone());
        open.or_else(|| self.config.borrow().disk(disk).map(|d| d.path_hint.clone()))
            .unwrap_or_default()
    }

    fn pause_groups(&self, paused: bool) {
        self.groups.borrow().values().for_each(|group| group.pause(paused));
    }

    /// No disk takes configurations any more.
    fn halt(&self) {
        self.groups.borrow().values().for_each(|group| group.halt());
        self.event(
            Severity::Critical,
            "array-halted",
            None,
            None,
            "no disk takes the configuration any more: nothing can be made durable. Stop, mend the disks, start again".into(),
        );
    }

    /// What a group calls when it gives a drive up.
    fn failure_sink(self: &Rc<Self>) -> crate::group::FailureSink {
        let array = Rc::downgrade(self);
        Rc::new(move |disk, reason, trouble| {
            let Some(array) = array.upgrade() else { return };
            match trouble {
                Trouble::Out | Trouble::Untrusted => {
                    if trouble == Trouble::Untrusted {
                        array.untrusted.borrow_mut().insert(disk);
                    }
                    array.note_failing(disk, reason, DropReason::Failed);
                    array.tend_failures();
                }
                Trouble::Needed => array.alarm(disk, &reason),
            }
        })
    }

    /// A disk fails that cannot be spared: said once, until it is well again or out.
    fn alarm(&self, disk: DiskNumber, reason: &str) {
        if !self.alarmed.borrow_mut().insert(disk) {
            return;
        }
        let group = self.config.borrow().slot_of(disk).map(|(group, _)| group);
        let what = format!(
            "disk {disk} ({}) fails and cannot be spared: {reason}. What only it holds answers with an error",
            self.path_of(disk)
        );
        self.event(Severity::Critical, "disk-needed-fails", Some(disk), group, what);
    }

    /// The turn to change the array by a command.
    async fn turn(&self) -> Result<MutexGuard<'_>, CommandError> {
        let turn = self.command_turn.lock().await;
        match self.stopping.get() {
            false => Ok(turn),
            true => Err(CommandError::Refused("the array is being stopped".into())),
        }
    }

    /// Sleeps, unless the array stops meanwhile.
    async fn sleep_unless_stopped(&self, ns: u64) {
        let mut sleep = Box::pin(self.rt.sleep_ns(ns));
        let mut stop = Box::pin(self.changed.wait_until(|| self.stopping.get()));
        race(&mut sleep, &mut stop).await;
    }

    /// Orderly stop: refuses new requests and commands, drains those under way, waits for background work, flushes, clears intent, commits a clean configuration.
    ///
    /// # Errors
    /// If not everything could be made durable; what is wrong is said.
    pub async fn stop(self: &Rc<Self>) -> Result<(), CommandError> {
        self.stopping.set(true);
        self.jobs.stop_all();
        self.note_change();
        let volumes: Vec<_> = self.volumes.borrow().values().cloned().collect();
        volumes.iter().for_each(|v| v.close());
        let is_paused = || self.groups.borrow().values().any(|g| g.is_paused());
        // A pause ends by an operator alone (rule C3), and what waits for it holds up whatever is waited for here.
        let mut pause = Box::pin(self.changed.wait_until(is_paused));
        let mut rest = Box::pin(self.stop_in_order(&volumes));
        match race(&mut pause, &mut rest).await {
            First::Left(()) => Err(CommandError::Failed(
                "host I/O was paused: what was not flushed may be lost".into(),
            )),
            First::Right(stopped) => stopped,
        }
    }

    async fn stop_in_order(
        self: &Rc<Self>,
        volumes: &[Rc<VolumeRt<E>>],
    ) -> Result<(), CommandError> {
        for volume in volumes {
            volume.drained().await;
        }
        self.mirrors_at_rest().await;
        self.jobs.ended(|_| true).await;
        self.steps.none().await;
        let _turn = self.command_turn.lock().await; // Commands on their way end, others are refused.
        let groups: Vec<_> = self.groups.borrow().values().cloned().collect();
        for group in &groups {
            // Discards on their way need not end, others do not begin.
            group.close(true);
            group.settled().await;
        }
        let mut clean = Vec::new();
        let mut wrong = Vec::new();
        for volume in volumes.iter().filter(|v| v.shield().is_some()) {
            if let Err(error) = volume.flush_all().await {
                let name = volume.report().name;
                wrong.push(format!("volume {name:?}: {error} while flushing what was redirected"));
            }
        }
        for group in groups.iter().filter(|group| group.away() == Away::Here) {
            match group.sweep(true).await {
                Ok(()) => clean.push((group.number, group.is_resynced())),
                Err(error) => wrong.push(format!("group {}: {error} while flushing", group.number)),
            }
            if group.checkpoint_all().await.is_err() {
                wrong.push(format!("group {}: its copy cursor could not be written", group.number));
            }
            // Second places are a precaution: what counts is durable without them.
            let _ = group.double_pages(true).await;
        }
        self.event(Severity::Info, "array-stopped", None, None, "orderly stop".into());
        self.log_written().await;
        self.commit(|next| {
            self.keep_health(next);
            for (number, resynced) in clean {
                if let Some(entry) = next.group_mut(number) {
                    entry.clean = resynced;
                }
            }
        })
        .await?;
        // Once more, so that the disks tell that the orderly stop counted: an image from before it is recognised.
        self.commit(|_| ()).await?;
        self.double_configuration().await;
        if wrong.is_empty() { Ok(()) } else { Err(CommandError::Failed(wrong.join("; "))) }
    }
}
