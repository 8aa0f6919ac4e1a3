//! Reading around a member that takes too long.
//!
//! Owns how long a reader stays with a member that its peers can stand in for. Invariants: a reader leaves only while everything can be had
//! without all the members that owe an answer, so that load which slows every disk sends nobody round in circles; the read that was left
//! goes on to its end and counts against the member as any other; being left fails no member. Whoever leaves must come back with patience
//! before a block is called lost.

use std::rc::Rc;

use super::Group;
use super::faulty::Faulty;
use crate::buf::Buf;
use crate::disk::{DiskFault, FaultKind};
use crate::drive::{Drive, Soon};
use crate::ids::{BLOCK_SIZE, Slot, SlotSet};
use crate::runtime::{Env, Runtime};

/// How long to stay with a slot that does not answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Patience {
    /// To the time limit.
    Long,
    /// A fraction of it, where its peers can stand in.
    Short,
}

/// Why a slot did not give what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Unread {
    /// It has not answered yet.
    Slow,
    /// It answered with a fault, or has not answered to the time limit.
    Fault(DiskFault),
}

impl Unread {
    fn is_unverified(self) -> bool {
        matches!(self, Self::Fault(fault) if fault.kind == FaultKind::Unverified)
    }
}

/// The slots that did not give their rows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Missed {
    pub(super) failed: SlotSet,
    pub(super) slow: SlotSet,
    /// Of those that failed, the ones whose blocks are at fault.
    pub(super) faulty: Faulty,
}

/// Reads that hang on one drive before it is given up, if it can be spared. Where fewer come, since everybody reads around it, the next
/// flush or commit finds it out.
const LATE_READS_MAX: u32 = 4;

impl<E: Env> Group<E> {
    /// Reads from one slot: its main, else its filler. The caller holds the row lock.
    pub(super) async fn read_slot(
        self: &Rc<Self>,
        slot: Slot,
        address: u64,
        len: usize,
    ) -> Result<Buf, DiskFault> {
        match self.read_slot_with(Patience::Long, slot, address, len).await {
            Ok(buf) => Ok(buf),
            Err(Unread::Fault(fault)) => {
                if len as u64 == BLOCK_SIZE {
                    self.count_mismatch(slot, address, fault);
                }
                Err(fault)
            }
            Err(Unread::Slow) => unreachable!("nobody leaves a slot before the time limit"),
        }
    }

    pub(super) async fn read_slot_with(
        self: &Rc<Self>,
        patience: Patience,
        slot: Slot,
        address: u64,
        len: usize,
    ) -> Result<Buf, Unread> {
        let (mut main, mut filler) = self.drives_at(slot, address);
        if self.copied.get() == Some(slot) && filler.is_some() {
            std::mem::swap(&mut main, &mut filler);
        }
        let mut why = Unread::Fault(DiskFault::new(FaultKind::Gone));
        for drive in main.into_iter().chain(filler) {
            match self.read_drive_with(patience, &drive, slot, address, len).await {
                Ok(buf) => return Ok(buf),
                Err(Unread::Slow) => why = Unread::Slow,
                // Of a block of which one drive tells nothing, nothing is known.
                Err(fault) if why != Unread::Slow && !why.is_unverified() => why = fault,
                Err(_) => {}
            }
        }
        Err(why)
    }

    /// Reads from one drive of a slot, verified.
    async fn read_drive_with(
        self: &Rc<Self>,
        patience: Patience,
        drive: &Rc<Drive<E>>,
        slot: Slot,
        address: u64,
        len: usize,
    ) -> Result<Buf, Unread> {
        self.want_checksums(drive, address, len);
        let result = match drive.read_data_soon(address, Buf::scratch(len)).await {
            Soon::Done(result) => result,
            Soon::Slow(rest) if patience == Patience::Short && self.can_do_without(slot) => {
                let (group, drive) = (Rc::clone(self), Rc::clone(drive));
                self.rt.spawn(Box::pin(async move {
                    group.draw_consequence(&drive, address, &rest.await);
                }));
                return Err(Unread::Slow);
            }
            Soon::Slow(rest) => rest.await,
        };
        let result = match result {
            Ok(buf) => self.verify(drive, slot, address, buf).await,
            fault => fault,
        };
        self.draw_consequence(drive, address, &result);
        result.map_err(Unread::Fault)
    }

    /// Reads from a disk that is being copied. A copy holds the lock of what it copies, which hosts need who want the same from the peers:
    /// a disk that owes an answer is not asked again while they can stand in.
    pub(super) async fn read_to_copy(
        self: &Rc<Self>,
        main: &Rc<Drive<E>>,
        slot: Slot,
        address: u64,
        len: usize,
    ) -> Result<Buf, Unread> {
        if main.owes_answer() && self.can_do_without(slot) {
            return Err(Unread::Slow);
        }
        self.read_drive_with(Patience::Short, main, slot, address, len).await
    }

    /// Gives a drive up that is gone, or on which too many reads hang.
    fn draw_consequence(
        &self,
        drive: &Rc<Drive<E>>,
        address: u64,
        result: &Result<Buf, DiskFault>,
    ) {
        let Err(fault) = result else { return };
        let hangs = fault.kind == FaultKind::TimedOut && drive.late_requests() >= LATE_READS_MAX;
        if fault.kind == FaultKind::Gone || hangs {
            self.give_up(drive, format!("{fault} on read at {address} of its data space"));
        }
    }

    /// Whether everything can be had without `slot` and all the members that are missing or owe an answer.
    fn can_do_without(&self, slot: Slot) -> bool {
        let slots = self.slots.borrow();
        let out = |i: &usize| slots[*i].main.as_ref().is_none_or(|main| main.owes_answer());
        let out: SlotSet = (0..slots.len()).filter(out).map(|i| Slot(i as u8)).collect();
        self.geometry.still_whole(out.with(slot))
    }
}
