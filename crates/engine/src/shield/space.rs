//! The space of a log: the legs of a work-disk set, or a volume of another group.
//!
//! Owns how a log's bytes get to where they are kept. Invariants: what [`Space::write`] answers with success stands on every leg in service; a leg
//! that cannot take something is given up and out of a counting configuration before success is answered (rules F1, B7), but for the
//! last one, which nobody can spare: it is asked to the end, and takes nothing new once it is out of service; no flush is answered while
//! a leg that missed something is in service (rule F1); a log in a volume goes through that volume's group like any write (rule B8).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::buf::Buf;
use crate::config::DropReason;
use crate::disk::{DiskFault, FaultKind};
use crate::drive::{Drive, Request, Timed};
use crate::error::IoError;
use crate::ids::{BLOCK_SIZE, DiskNumber};
use crate::runtime::Env;
use crate::sync::join_all;
use crate::volume::VolumeRt;

/// What the array does about a leg that failed.
pub(crate) struct LegFailures {
    /// Told of each leg that is given up, and why.
    pub(crate) note: Rc<dyn Fn(DiskNumber, String, DropReason)>,
    /// Completes when every leg given up is out of a counting configuration.
    pub(crate) committed: Rc<dyn Fn() -> Pin<Box<dyn Future<Output = bool>>>>,
}

/// Where a log is kept.
pub(crate) enum Space<E: Env> {
    /// Alike on each of these disks.
    Legs(Legs<E>),
    /// In a volume.
    Volume(Rc<VolumeRt<E>>),
}

/// The legs of a work-disk set, each of which holds the log from the start of its data space.
pub(crate) struct Legs<E: Env> {
    legs: RefCell<Vec<Rc<Drive<E>>>>,
    /// A leg that is being made equal to the others: it takes every write and gives nothing yet.
    joining: RefCell<Option<Rc<Drive<E>>>>,
    /// Blocks of each leg that the log uses, whichever legs are there.
    blocks: u64,
    failures: Rc<LegFailures>,
    /// Legs were given up that may be in service still, as far as a counting configuration says.
    uncommitted: Cell<u32>,
    /// No leg is in service: the last one is all there is of what the log holds.
    out: Cell<bool>,
}

/// One copy of a log's bytes: it can be asked also when it is given up meanwhile, and then does not answer.
pub(super) enum Copy<E: Env> {
    Leg(Rc<Drive<E>>),
    Volume(Rc<VolumeRt<E>>),
}

impl<E: Env> Copy<E> {
    /// Whether both are the same copy.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Leg(a), Self::Leg(b)) => Rc::ptr_eq(a, b),
            (Self::Volume(a), Self::Volume(b)) => Rc::ptr_eq(a, b),
            (Self::Leg(_), Self::Volume(_)) | (Self::Volume(_), Self::Leg(_)) => false,
        }
    }

    /// The disk that is this copy, if one is.
    pub(super) fn leg(&self) -> Option<DiskNumber> {
        match self {
            Self::Leg(leg) => Some(leg.number),
            Self::Volume(_) => None,
        }
    }

    /// Bytes of this copy.
    pub(super) async fn read(&self, offset: u64, len: u64) -> Result<Buf, IoError> {
        match self {
            Self::Leg(leg) => {
                leg.read_data(offset, Buf::scratch(len as usize)).await.map_err(|_| IoError::Io)
            }
            Self::Volume(volume) => Ok(Buf::joined(volume.read_home(offset..offset + len).await?)),
        }
    }

    /// Something that it gave was not what was written there.
    pub(super) fn note_bad(&self, had_elsewhere: bool) {
        if let Self::Leg(leg) = self {
            leg.count_error(|e| {
                if had_elsewhere { e.recovered_reads += 1 } else { e.unrecovered_reads += 1 }
            });
        }
    }
}

impl<E: Env> Space<E> {
    /// A space of so many blocks on legs, of which at least one is there; `out` if it is not in service.
    pub(crate) fn on_legs(
        legs: Vec<Rc<Drive<E>>>,
        blocks: u64,
        out: bool,
        failures: Rc<LegFailures>,
    ) -> Self {
        Self::Legs(Legs {
            legs: RefCell::new(legs),
            joining: RefCell::default(),
            blocks,
            failures,
            uncommitted: Cell::new(0),
            out: Cell::new(out),
        })
    }

    /// Whether anything new may be put there.
    pub(super) fn takes_more(&self) -> bool {
        !matches!(self, Self::Legs(legs) if legs.out.get())
    }

    /// Whether every copy can be asked: what none of them gives is then gone.
    pub(super) fn answers(&self) -> bool {
        match self {
            Self::Legs(legs) => !legs.legs.borrow().iter().any(|leg| leg.is_silent()),
            Self::Volume(volume) => volume.group().answers(),
        }
    }

    /// Whether no copy answers at the moment.
    pub(crate) fn is_silent(&self) -> bool {
        match self {
            Self::Legs(legs) => legs.legs.borrow().iter().all(|leg| leg.is_silent()),
            Self::Volume(volume) => !volume.group().answers(),
        }
    }

    /// Whether no leg is in service any more, nor answers.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Legs(legs) if legs.out.get()) && self.is_silent()
    }

    /// Asks no leg any more, and lets those go that wait for one; answers which there were.
    pub(crate) fn give_up(&self) -> Vec<DiskNumber> {
        let Self::Legs(legs) = self else { return Vec::new() };
        let legs = legs.legs.borrow();
        legs.iter().for_each(|leg| leg.retire());
        legs.iter().map(|leg| leg.number).collect()
    }

    /// Blocks of 4 KiB.
    pub(crate) fn blocks(&self) -> u64 {
        match self {
            Self::Legs(legs) => legs.blocks,
            Self::Volume(volume) => volume.report().size / BLOCK_SIZE,
        }
    }

    /// Copies of each byte in service at this moment.
    pub(super) fn copies(&self) -> Vec<Copy<E>> {
        match self {
            Self::Legs(Legs { legs, .. }) => legs.borrow().iter().cloned().map(Copy::Leg).collect(),
            Self::Volume(volume) => vec![Copy::Volume(Rc::clone(volume))],
        }
    }

    fn can_spare(&self, leg: &Rc<Drive<E>>) -> bool {
        matches!(self, Self::Legs(legs) if legs.is_joining(leg) || legs.legs.borrow().len() > 1)
    }

    /// How many more failures what is written now survives.
    pub(crate) fn spare_copies(&self) -> u32 {
        match self {
            Self::Legs(Legs { legs, .. }) => (legs.borrow().len() as u32).saturating_sub(1),
            Self::Volume(volume) => volume.group().failures_left(),
        }
    }

    /// Writes to every copy.
    pub(super) async fn write(&self, offset: u64, buf: Buf) -> Result<(), IoError> {
        match self {
            Self::Legs(legs) => {
                let drives = legs.written();
                let results =
                    join_all(drives.iter().map(|leg| self.write_leg(leg, offset, buf.clone())))
                        .await;
                legs.settle(&drives, results).await
            }
            Self::Volume(volume) => volume.write_home(offset, buf).await,
        }
    }

    async fn write_leg(&self, leg: &Rc<Drive<E>>, offset: u64, buf: Buf) -> Result<(), DiskFault> {
        let mut timed = leg.write_data(offset, buf).await;
        loop {
            match timed {
                Timed::Done(result) => return result,
                Timed::Late(request) if leg.is_gone() || self.can_spare(leg) => {
                    // No other write may go to that range before this one lands (rule F3): the leg is given up.
                    leg.abandon(request, Request::Write);
                    return Err(DiskFault::new(FaultKind::TimedOut));
                }
                Timed::Late(request) => timed = leg.timed_again(request).await,
            }
        }
    }

    /// Makes everything written so far durable.
    pub(super) async fn flush(&self) -> Result<(), IoError> {
        match self {
            Self::Legs(legs) => {
                let drives = legs.written();
                let results = join_all(drives.iter().map(|leg| async {
                    leg.begin_flush();
                    let result = leg.flush_or(|| self.can_spare(leg)).await;
                    leg.end_flush();
                    // What an earlier flush failed to keep, that of a configuration too, this one does not bring back (rule F2).
                    match (leg.take_doomed().is_empty(), result) {
                        (false, Ok(())) => Err(DiskFault::new(FaultKind::Medium)),
                        (_, result) => result,
                    }
                }))
                .await;
                legs.settle(&drives, results).await?;
                // Whoever gave a leg up is about to take it out; what went only to the others since is safe when it is (rule F1).
                if legs.uncommitted.get() > 0 { legs.committed().await } else { Ok(()) }
            }
            Self::Volume(volume) => volume.group().flush().await,
        }
    }

    /// The leg that is the last to be asked, if it is `disk`.
    pub(crate) fn is_last_leg(&self, disk: DiskNumber) -> bool {
        matches!(self, Self::Legs(legs) if legs.last() == Some(disk))
    }

    /// From now on `leg` takes every write, until it is in service or fails.
    pub(super) fn join(&self, leg: &Rc<Drive<E>>) -> Result<(), IoError> {
        match self {
            Self::Legs(legs) if legs.joining.borrow().is_none() => {
                *legs.joining.borrow_mut() = Some(Rc::clone(leg));
                Ok(())
            }
            _ => Err(IoError::Io),
        }
    }

    /// Whether `leg` took everything so far.
    pub(crate) fn is_joining(&self, leg: &Rc<Drive<E>>) -> bool {
        matches!(self, Self::Legs(legs) if legs.is_joining(leg))
    }

    /// `leg` is not to be in service after all.
    pub(crate) fn leave(&self, leg: &Rc<Drive<E>>) {
        if let Self::Legs(legs) = self
            && legs.is_joining(leg)
        {
            legs.joining.take();
        }
    }

    /// Legs that are not in service are neither asked nor written any more; if none is, the last one stays. One that joined serves once it
    /// is in service.
    pub(crate) fn keep_legs(&self, serves: impl Fn(DiskNumber) -> bool) {
        if let Self::Legs(Legs { legs, joining, out, .. }) = self {
            let mut legs = legs.borrow_mut();
            legs.extend(joining.borrow_mut().take_if(|leg| serves(leg.number)));
            let stays = legs.iter().find(|leg| !leg.is_gone()).or(legs.first()).map(|l| l.number);
            out.set(!legs.iter().any(|leg| serves(leg.number)));
            legs.retain(|leg| serves(leg.number) || out.get() && Some(leg.number) == stays);
        }
    }
}

impl<E: Env> Legs<E> {
    /// Every leg that takes writes.
    fn written(&self) -> Vec<Rc<Drive<E>>> {
        self.legs.borrow().iter().chain(&*self.joining.borrow()).cloned().collect()
    }

    fn is_joining(&self, leg: &Rc<Drive<E>>) -> bool {
        self.joining.borrow().as_ref().is_some_and(|joining| Rc::ptr_eq(joining, leg))
    }

    /// The only leg that was not given up.
    fn last(&self) -> Option<DiskNumber> {
        let legs = self.legs.borrow();
        let mut left = legs.iter().filter(|leg| !leg.is_gone());
        let first = left.next()?.number;
        left.next().is_none().then_some(first)
    }

    /// Completes when every leg given up is out of a counting configuration.
    async fn committed(&self) -> Result<(), IoError> {
        if (self.failures.committed)().await { Ok(()) } else { Err(IoError::Io) }
    }

    /// Gives up the legs that failed, unless none would be left.
    async fn settle(
        &self,
        drives: &[Rc<Drive<E>>],
        results: Vec<Result<(), DiskFault>>,
    ) -> Result<(), IoError> {
        let mut took = false;
        let mut failed = Vec::new();
        for (leg, result) in drives.iter().zip(results) {
            match result {
                Ok(()) => took |= !self.is_joining(leg),
                Err(fault) => failed.push((leg, fault)),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        if !took {
            return Err(IoError::Io);
        }
        self.uncommitted.set(self.uncommitted.get() + 1);
        for (leg, fault) in failed {
            self.legs.borrow_mut().retain(|l| !Rc::ptr_eq(l, leg));
            self.joining.borrow_mut().take_if(|l| Rc::ptr_eq(l, leg));
            (self.failures.note)(
                leg.number,
                format!("{fault} on a copy of redirected data"),
                DropReason::Failed,
            );
        }
        let committed = self.committed().await;
        self.uncommitted.set(self.uncommitted.get() - u32::from(committed.is_ok()));
        committed
    }
}
