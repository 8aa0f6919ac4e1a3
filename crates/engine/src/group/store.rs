//! Writing to one slot: its main, and its filler where that is current.
//!
//! Owns what a write that fails means for the drive. Invariants: a slot holds a write, or the drive that does not is out, or the caller hears of it (rule
//! F1); nothing else is written where a late write may still land (rule F3); the checksums of what a drive took are noted with it (rule K1).

use std::rc::Rc;

use super::Group;
use crate::buf::Buf;
use crate::disk::{DiskFault, FaultKind};
use crate::drive::{Drive, Request, Timed};
use crate::ids::Slot;
use crate::runtime::Env;

/// What a write does where the file system below a member is full.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OnFull {
    /// The member is failed if it can be spared: the others hold the write.
    Fail,
    /// The write is reported as not done; no member is failed for it.
    Report,
}

/// How often a write is tried on a drive that cannot be spared.
const WRITE_TRIES: u32 = 3;

impl<E: Env> Group<E> {
    /// Writes to one slot, wherever it has to be. `Ok` means that the slot holds it or that the slot is out; an error, that
    /// the slot cannot be spared and does not hold it.
    pub(super) async fn write_slot(
        self: &Rc<Self>,
        slot: Slot,
        address: u64,
        buf: Buf,
    ) -> Result<(), DiskFault> {
        self.write_slot_or(OnFull::Fail, slot, address, buf).await
    }

    /// [`Group::write_slot`], with a choice of what to do where no space is left below.
    pub(super) async fn write_slot_or(
        self: &Rc<Self>,
        on_full: OnFull,
        slot: Slot,
        address: u64,
        buf: Buf,
    ) -> Result<(), DiskFault> {
        let (main, filler) = self.drives_at(slot, address);
        let to_filler = async {
            let Some(drive) = &filler else { return Ok(()) };
            let Err(fault) = self.write_drive(drive, slot, address, buf.clone()).await else {
                return Ok(());
            };
            // A filler can be spared, the slot is as it was before it (rule F4), unless it has become the main meanwhile.
            let spared =
                self.give_up(drive, format!("{fault} on write at {address} of its data space"));
            if spared { Ok(()) } else { Err(fault) }
        };
        let Some(drive) = &main else {
            return to_filler.await;
        };
        let to_main = async {
            for _ in 0..WRITE_TRIES {
                let Err(fault) = self.write_drive(drive, slot, address, buf.clone()).await else {
                    return Ok(());
                };
                if on_full == OnFull::Report && fault.kind == FaultKind::NoSpace {
                    return Err(fault);
                }
                let spared =
                    self.give_up(drive, format!("{fault} on write at {address} of its data space"));
                if spared {
                    return Ok(());
                }
                if matches!(fault.kind, FaultKind::Gone | FaultKind::NoSpace) {
                    return Err(fault);
                }
            }
            Err(DiskFault::new(FaultKind::Medium))
        };
        if filler.is_none() {
            return to_main.await;
        }
        let (of_main, of_filler) = crate::sync::both(to_main, to_filler).await;
        of_main.and(of_filler)
    }

    /// One write to one drive of a slot. A write that outlives the time limit fails the drive first if it can be spared (rule F3);
    /// else it is waited for, so that nothing else is written there meanwhile.
    pub(super) async fn write_drive(
        self: &Rc<Self>,
        drive: &Rc<Drive<E>>,
        slot: Slot,
        address: u64,
        buf: Buf,
    ) -> Result<(), DiskFault> {
        let mut timed = drive.write_data(address, buf.clone()).await;
        loop {
            match timed {
                Timed::Done(Ok(())) => {
                    return self.note_checksums(drive, slot, address, &buf).await;
                }
                Timed::Done(result) => return result,
                Timed::Late(request) => {
                    // Of a drive that was given up meanwhile nothing is waited for, though the group cannot spare it: it ends no wait.
                    if drive.is_gone()
                        || self.give_up(
                            drive,
                            format!("a write at {address} of its data space timed out"),
                        )
                    {
                        drive.abandon(request, Request::Write);
                        return Err(DiskFault::new(FaultKind::TimedOut));
                    }
                    timed = drive.timed_again(request).await;
                }
            }
        }
    }
}
