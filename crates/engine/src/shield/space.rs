//! The space of a log: the legs of a work-disk set, or a volume of another group.
//!
//! Owns how a log's bytes get to where they are kept. Invariants: what [`Space::write`] answers with success stands on every leg in service; a leg
//! that cannot take something is given up and out of a counting configuration before success is answered (rules F1, B7), but for the
//! last one, which nobody can spare; a log in a volume goes through that volume's group like any write (rule B8).

use std::cell::RefCell;
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
    /// Alike on each of these disks, from the start of their data space.
    Legs(RefCell<Vec<Rc<Drive<E>>>>, Rc<LegFailures>),
    /// In a volume.
    Volume(Rc<VolumeRt<E>>),
}

/// One copy of a log's bytes: it can be asked also when it is given up meanwhile, and then does not answer.
pub(super) enum Copy<E: Env> {
    Leg(Rc<Drive<E>>),
    Volume(Rc<VolumeRt<E>>),
}

impl<E: Env> Copy<E> {
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
    /// Blocks of 4 KiB.
    pub(crate) fn blocks(&self) -> u64 {
        match self {
            Self::Legs(legs, _) => {
                let smallest = legs.borrow().iter().map(|leg| leg.layout.data.len).min();
                smallest.unwrap_or(0) / BLOCK_SIZE
            }
            Self::Volume(volume) => volume.report().size / BLOCK_SIZE,
        }
    }

    /// Copies of each byte in service at this moment.
    pub(super) fn copies(&self) -> Vec<Copy<E>> {
        match self {
            Self::Legs(legs, _) => legs.borrow().iter().cloned().map(Copy::Leg).collect(),
            Self::Volume(volume) => vec![Copy::Volume(Rc::clone(volume))],
        }
    }

    fn can_spare_a_leg(&self) -> bool {
        matches!(self, Self::Legs(legs, _) if legs.borrow().len() > 1)
    }

    /// How many more failures what is written now survives.
    pub(crate) fn spare_copies(&self) -> u32 {
        match self {
            Self::Legs(legs, _) => (legs.borrow().len() as u32).saturating_sub(1),
            Self::Volume(volume) => volume.group().failures_left(),
        }
    }

    /// Writes to every copy.
    pub(super) async fn write(&self, offset: u64, buf: Buf) -> Result<(), IoError> {
        match self {
            Self::Legs(legs, failures) => {
                let drives = legs.borrow().clone();
                let results =
                    join_all(drives.iter().map(|leg| self.write_leg(leg, offset, buf.clone())))
                        .await;
                self.settle(failures, &drives, results).await
            }
            Self::Volume(volume) => volume.write_home(offset, buf).await,
        }
    }

    async fn write_leg(&self, leg: &Rc<Drive<E>>, offset: u64, buf: Buf) -> Result<(), DiskFault> {
        let mut timed = leg.write_data(offset, buf).await;
        loop {
            match timed {
                Timed::Done(result) => return result,
                Timed::Late(request) if leg.is_gone() || self.can_spare_a_leg() => {
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
            Self::Legs(legs, failures) => {
                let drives = legs.borrow().clone();
                let results = join_all(drives.iter().map(|leg| async {
                    leg.begin_flush();
                    let result = leg.flush_or(|| self.can_spare_a_leg()).await;
                    leg.end_flush();
                    // What an earlier flush failed to keep, that of a configuration too, this one does not bring back (rule F2).
                    match (leg.take_doomed().is_empty(), result) {
                        (false, Ok(())) => Err(DiskFault::new(FaultKind::Medium)),
                        (_, result) => result,
                    }
                }))
                .await;
                self.settle(failures, &drives, results).await
            }
            Self::Volume(volume) => volume.group().flush().await,
        }
    }

    /// Gives up the legs that failed, unless none would be left.
    async fn settle(
        &self,
        failures: &LegFailures,
        drives: &[Rc<Drive<E>>],
        results: Vec<Result<(), DiskFault>>,
    ) -> Result<(), IoError> {
        let Self::Legs(legs, _) = self else { return Ok(()) };
        let mut took = false;
        let mut failed = Vec::new();
        for (leg, result) in drives.iter().zip(results) {
            match result {
                Ok(()) => took = true,
                Err(fault) => failed.push((leg, fault)),
            }
        }
        if failed.is_empty() {
            return Ok(());
        }
        if !took {
            return Err(IoError::Io);
        }
        for (leg, fault) in failed {
            legs.borrow_mut().retain(|l| !Rc::ptr_eq(l, leg));
            (failures.note)(
                leg.number,
                format!("{fault} on a copy of redirected data"),
                DropReason::Failed,
            );
        }
        if (failures.committed)().await { Ok(()) } else { Err(IoError::Io) }
    }

    /// A leg is out of service: it is neither asked nor written any more. The last one stays, it is all there is.
    pub(crate) fn forget_leg(&self, disk: DiskNumber) {
        if let Self::Legs(legs, _) = self {
            let mut legs = legs.borrow_mut();
            if legs.len() > 1 {
                legs.retain(|leg| leg.number != disk);
            }
        }
    }
}
