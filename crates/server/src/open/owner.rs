//! Ownership that other machines can see (rule C6).
//!
//! Owns the beat. Each disk has a block that names its owner and a counter that the owner moves every [`PERIOD`]. Locks keep servers on
//! this machine apart; the beat is for disks that two machines can reach. Invariants:
//! - An owner with this machine's id is gone once we hold the lock, and is taken over at once. Any other is watched by our
//!   own clock for three of its beats, and refused only if its counter moves.
//! - Answers go out on a lease of two beats. A server that was stopped for longer (a suspended process or machine) answers
//!   nobody until it has read that the disks are still its own; if they are not, it never answers again.
//!
//! This narrows a window and cannot close it: a request already handed to the kernel is past any check of ours.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use forestall_disk::{AnyDisk, machine_id};
use forestall_engine::format::owner::{Owner, OwnerDamaged};
use forestall_engine::words::duration;
use forestall_engine::{BLOCK_SIZE, Disk, Runtime};

use super::{OpenError, Opened, distinct};
use crate::runtime::{CompioRuntime, spawn};
use crate::session::{Limits, Signal};

/// Time between two beats. Two of them are the longest silence before answers stop, three the wait before a takeover from
/// another machine.
pub const PERIOD: Duration = Duration::from_secs(2);

/// Longest beat that is believed of another owner.
const PERIOD_MAX: Duration = Duration::from_secs(60);

/// Where the owner block of a disk is and what it says; `None` for a disk without a label, or in memory.
async fn block(opened: &Opened) -> Option<(u64, Result<Option<Owner>, OwnerDamaged>)> {
    if matches!(opened.disk.inner(), AnyDisk::Memory(_)) {
        return None;
    }
    // A disk that cannot be read is not kept by anybody; the engine will judge it.
    let place = opened.label().await.ok()?.ok()?.layout.owner.offset;
    let bytes = opened.read(place, BLOCK_SIZE).await.ok()?;
    Some((place, Owner::decode(&bytes)))
}

/// Makes sure that no other machine uses any of `disks`: waits three beats if one seems to, and says so.
///
/// # Errors
/// [`OpenError::Elsewhere`] if an owner's counter moved.
pub async fn watch(disks: &[Opened], tell: &dyn Fn(&str)) -> Result<(), OpenError> {
    let (suspects, wait) = suspects(disks, machine_id()).await;
    if suspects.is_empty() {
        return Ok(());
    }
    tell(&watch_words(&suspects, wait));
    compio::time::sleep(wait).await;
    refuse_moved(suspects).await
}

/// A disk that another machine may be using, and its owner block at the first look.
struct Suspect<'a> {
    opened: &'a Opened,
    seen: Result<Option<Owner>, OwnerDamaged>,
}

/// The disks that a machine other than `ours` may be using, and how long they are to be watched: three beats.
async fn suspects(disks: &[Opened], ours: Option<[u8; 16]>) -> (Vec<Suspect<'_>>, Duration) {
    let mut suspects = Vec::new();
    let mut wait = Duration::ZERO;
    for opened in disks {
        let Some((_, seen)) = block(opened).await else { continue };
        let period = match &seen {
            Ok(None) => continue,
            Ok(Some(owner)) if Some(owner.machine) == ours => continue,
            Ok(Some(owner)) => Duration::from_millis(u64::from(owner.period_ms)),
            // Torn, perhaps by an owner that is writing it just now.
            Err(OwnerDamaged) => PERIOD,
        };
        wait = wait.max(3 * period.clamp(PERIOD, PERIOD_MAX));
        suspects.push(Suspect { opened, seen });
    }
    (suspects, wait)
}

/// Why a start takes its time.
fn watch_words(suspects: &[Suspect<'_>], wait: Duration) -> String {
    let why = |suspect: &Suspect<'_>| {
        let why = match suspect.seen {
            Err(OwnerDamaged) => "what it says of its owner is damaged",
            Ok(_) => "a server on another machine had it and did not let it go",
        };
        format!("{} ({why})", suspect.opened.path())
    };
    let disks: Vec<String> = suspects.iter().map(why).collect();
    let wait = duration(wait.as_secs());
    format!("waiting {wait}: looking whether another machine uses {}", disks.join(", "))
}

/// The second look.
async fn refuse_moved(suspects: Vec<Suspect<'_>>) -> Result<(), OpenError> {
    for Suspect { opened, seen: before } in suspects {
        let now = block(opened).await.map(|(_, seen)| seen);
        // What has gone in between, by an orderly stop of its owner, is free.
        if now.is_some_and(|now| now != before && now != Ok(None)) {
            return Err(OpenError::Elsewhere { path: opened.path() });
        }
    }
    Ok(())
}

/// One disk that is being kept.
struct Kept {
    opened: Opened,
    /// Where its owner block is, once it has a label.
    place: Cell<Option<u64>>,
    /// A beat is under way; a disk that hangs gets no second one.
    busy: Cell<bool>,
    /// It is leaving: no more beats.
    quiet: Cell<bool>,
}

/// Keeps the disks of a server.
pub struct Keeper {
    me: Cell<Owner>,
    period: Duration,
    /// A beat has ended.
    ended: Signal,
    disks: RefCell<Vec<Rc<Kept>>>,
    limits: Rc<Limits>,
    log: Box<dyn Fn(&str)>,
    stopped: Cell<bool>,
}

impl Keeper {
    /// Keeps nothing yet.
    pub fn new(
        runtime: &CompioRuntime,
        limits: Rc<Limits>,
        log: impl Fn(&str) + 'static,
    ) -> Rc<Self> {
        Self::beating(PERIOD, runtime, limits, log)
    }

    /// As [`Keeper::new`], with a beat every `period`.
    fn beating(
        period: Duration,
        runtime: &CompioRuntime,
        limits: Rc<Limits>,
        log: impl Fn(&str) + 'static,
    ) -> Rc<Self> {
        let owner = u128::from(runtime.random_u64()) << 64 | u128::from(runtime.random_u64());
        let me = Owner {
            machine: machine_id().unwrap_or_default(),
            owner,
            beat: 0,
            period_ms: u32::try_from(period.as_millis()).expect("a few seconds"),
            started_ms: runtime.unix_ms(),
        };
        Rc::new(Self {
            me: Cell::new(me),
            period,
            ended: Signal::default(),
            disks: RefCell::default(),
            limits,
            log: Box::new(log),
            stopped: Cell::new(false),
        })
    }

    /// Keeps one more disk, from the next beat on.
    pub fn keep(&self, opened: Opened) {
        let kept = Kept {
            opened,
            place: Cell::new(None),
            busy: Cell::new(false),
            quiet: Cell::new(false),
        };
        self.disks.borrow_mut().push(Rc::new(kept));
    }

    /// Lets a disk go.
    pub fn forget(&self, disk: &Opened) {
        self.disks.borrow_mut().retain(|kept| !kept.opened.disk.is_same(&disk.disk));
    }

    /// The open disk at `path`; of several, the one that came last.
    pub fn find(&self, path: &str) -> Option<Opened> {
        let disks = self.disks.borrow();
        let is_there = |kept: &&Rc<Kept>| distinct::same(&kept.opened.identity.path, path);
        disks.iter().rev().find(is_there).map(|kept| kept.opened.clone())
    }

    /// Beats no more on a disk that is about to be wiped; a beat under way ends first, or is given up with a disk that hangs.
    pub async fn quieten(&self, disk: &Opened) {
        let kept = self.set_quiet(disk, true);
        if let Some(kept) = kept {
            let ended = self.ended.until(|| !kept.busy.get());
            // A disk that hangs is not wiped either.
            let _hangs = compio::time::timeout(self.period, ended).await;
        }
    }

    /// The disk stays after all.
    pub fn resume(&self, disk: &Opened) {
        self.set_quiet(disk, false);
    }

    fn set_quiet(&self, disk: &Opened, quiet: bool) -> Option<Rc<Kept>> {
        let disks = self.disks.borrow();
        let kept = disks.iter().find(|kept| kept.opened.disk.is_same(&disk.disk))?;
        kept.quiet.set(quiet);
        Some(Rc::clone(kept))
    }

    /// Writes the first beat to every disk, then goes on by itself until [`Keeper::release`].
    pub async fn start(self: &Rc<Self>) {
        self.step();
        let disks = self.disks.borrow().clone();
        for kept in disks {
            self.beat(&kept).await;
        }
        self.limits.fence.renew(Instant::now() + 2 * self.period);
        spawn(Rc::clone(self).run());
    }

    async fn run(self: Rc<Self>) {
        loop {
            compio::time::sleep(self.period).await;
            if self.stopped.get() {
                return;
            }
            if self.limits.fence.is_closed()
                && let Some(path) = self.taken().await
            {
                (self.log)(&format!(
                    "{path}: another server took this disk while this one could not run; nobody is answered any \
                     more; stop this server"
                ));
                return;
            }
            self.step();
            for kept in self.disks.borrow().iter().filter(|kept| !kept.busy.get()) {
                kept.busy.set(true);
                let (keeper, kept) = (Rc::clone(&self), Rc::clone(kept));
                spawn(async move {
                    keeper.beat(&kept).await;
                    kept.busy.set(false);
                    keeper.ended.notify();
                });
            }
            self.limits.fence.renew(Instant::now() + 2 * self.period);
        }
    }

    fn step(&self) {
        let me = self.me.get();
        self.me.set(Owner { beat: me.beat + 1, ..me });
    }

    async fn beat(&self, kept: &Kept) {
        if kept.place.get().is_none() {
            kept.place.set(block(&kept.opened).await.map(|(place, _)| place));
        }
        if let Some(place) = kept.place.get()
            && !self.stopped.get()
            && !kept.quiet.get()
        {
            // A disk that cannot take a beat cannot take data either; the engine finds out and judges it.
            let _failing = kept.opened.write(place, self.me.get().encode()).await;
        }
    }

    /// A disk whose owner is no longer us.
    async fn taken(&self) -> Option<String> {
        let me = self.me.get();
        let disks = self.disks.borrow().clone();
        for kept in disks {
            let seen = block(&kept.opened).await.map(|(_, seen)| seen);
            if let Some(Ok(Some(owner))) = seen
                && owner.owner != me.owner
            {
                return Some(kept.opened.path());
            }
        }
        None
    }

    /// Ends the beats, blanks the owner blocks and lets all disks go.
    pub async fn release(&self) {
        self.stopped.set(true);
        // A fence that closed stays a reason not to write.
        let taken = self.limits.fence.is_closed() && self.taken().await.is_some();
        let disks = self.disks.take();
        if taken {
            return;
        }
        for kept in disks.into_iter().filter(|kept| !kept.busy.get()) {
            if let Some(place) = kept.place.get() {
                // What stays behind names this machine and is taken over at once, or no longer moves.
                let _stays = kept.opened.disk.write(place, Owner::encode_none()).await;
            }
        }
    }
}

/// Whether two paths lead to the same place.
#[cfg(test)]
mod tests;
