//! One backup storage of a volume: a log, or the volume's secondary.
//!
//! Owns what a shield asks of a storage, whichever it is. Invariants that each keeps: what was stored is marked before [`Backup::store`] answers;
//! a flush has three steps: [`Backup::begin_flush`] takes what changed, [`Backup::flush`] makes what was stored durable, and [`Backup::settle`],
//! called once every other storage and home are durable too, makes what was taken durable (rules B1, B2, B5).

use std::ops::Range;
use std::rc::Rc;

use super::book::Clearing;
use super::log::{Log, Refused};
use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::VolumeNumber;
use crate::pair::{Pair, Taken};
use crate::runtime::Env;
use crate::sync::join_all;

/// Blocks read from a log at once.
const READS_AT_ONCE: usize = 32;

/// A storage in the chain of a volume.
pub(crate) enum Backup<E: Env> {
    Log(Rc<Log<E>>),
    Pair(Rc<Pair<E>>),
}

/// What a flush took to settle.
pub(super) enum Covered {
    Log(Vec<Clearing>),
    Pair(Taken),
}

impl<E: Env> Backup<E> {
    /// Whether both are the same storage.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Log(a), Self::Log(b)) => Rc::ptr_eq(a, b),
            (Self::Pair(a), Self::Pair(b)) => Rc::ptr_eq(a, b),
            (Self::Log(_), Self::Pair(_)) | (Self::Pair(_), Self::Log(_)) => false,
        }
    }

    /// How many more failures what is stored now survives (rule B6).
    pub(super) fn spare_copies(&self) -> u32 {
        match self {
            Self::Log(log) => log.space().spare_copies(),
            Self::Pair(pair) => pair.group().failures_left(),
        }
    }

    /// Whether anything new may be stored here.
    pub(super) fn takes_more(&self) -> bool {
        match self {
            Self::Log(log) => log.space().takes_more(),
            Self::Pair(_) => true,
        }
    }

    /// Whether there is hardly any room left. A secondary has room for every block.
    pub(super) fn is_nearly_full(&self) -> bool {
        match self {
            Self::Log(log) => log.is_nearly_full(),
            Self::Pair(_) => false,
        }
    }

    /// Whether it is time to look for another one that goes on when this one is full.
    pub(super) fn is_half_full(&self) -> bool {
        match self {
            Self::Log(log) => log.is_half_full(),
            Self::Pair(_) => false,
        }
    }

    /// Whether every copy of what is stored here can be asked: what does not read is then gone.
    pub(super) fn answers(&self) -> bool {
        match self {
            Self::Log(log) => log.space().answers(),
            Self::Pair(pair) => pair.group().answers(),
        }
    }

    /// Blocks of a volume that are to be read here.
    pub(super) fn marks_of(&self, volume: VolumeNumber) -> u64 {
        match self {
            Self::Log(log) => log.marks_of(volume),
            Self::Pair(pair) => pair.marks(),
        }
    }

    /// Marked blocks inside a range, ascending.
    pub(super) fn marked_in(&self, volume: VolumeNumber, blocks: Range<u64>) -> Vec<u64> {
        match self {
            Self::Log(log) => log.marked_in(volume, blocks),
            Self::Pair(pair) => pair.marked_in(blocks),
        }
    }

    /// The first marked block inside a range.
    pub(super) fn next_marked(&self, volume: VolumeNumber, blocks: Range<u64>) -> Option<u64> {
        match self {
            Self::Log(log) => log.next_marked(volume, blocks),
            Self::Pair(pair) => pair.next_marked(blocks),
        }
    }

    /// Reads marked blocks.
    pub(super) async fn read(
        &self,
        volume: VolumeNumber,
        blocks: Range<u64>,
    ) -> Result<Vec<Buf>, IoError> {
        let log = match self {
            Self::Log(log) => log,
            Self::Pair(pair) => return pair.read(blocks).await,
        };
        let mut bufs = Vec::new();
        let blocks: Vec<u64> = blocks.collect();
        for batch in blocks.chunks(READS_AT_ONCE) {
            for buf in join_all(batch.iter().map(|block| log.read(volume, *block))).await {
                bufs.push(buf?);
            }
        }
        Ok(bufs)
    }

    /// Stores blocks, with their data or as zeroes.
    pub(super) async fn store(
        &self,
        volume: VolumeNumber,
        blocks: Range<u64>,
        data: Option<Buf>,
    ) -> Result<(), Refused> {
        match self {
            Self::Log(log) => {
                log.append(volume, blocks.start, blocks.end - blocks.start, data).await
            }
            Self::Pair(pair) => pair.store(blocks, data).await.map_err(|_| Refused::Failed),
        }
    }

    /// Something else is newer than what is stored here of these blocks.
    pub(super) fn unmark(&self, volume: VolumeNumber, blocks: Range<u64>) {
        match self {
            Self::Log(log) => {
                for block in log.marked_in(volume, blocks) {
                    log.unmark(volume, block);
                }
            }
            Self::Pair(pair) => pair.unmark(blocks),
        }
    }

    /// Takes what is to be settled by a flush that begins now.
    pub(super) fn begin_flush(&self, volume: VolumeNumber) -> Covered {
        match self {
            Self::Log(log) => Covered::Log(log.take_clearings(volume)),
            Self::Pair(pair) => Covered::Pair(pair.take_changed()),
        }
    }

    /// Whether a flush of the volume concerns this storage: a log that has nothing of it, and from which nothing of it is to be cleared, may
    /// be as gone as it will.
    pub(super) fn matters(&self, volume: VolumeNumber, covered: &Covered) -> bool {
        match (self, covered) {
            (Self::Log(log), Covered::Log(clearings)) => {
                log.marks_of(volume) > 0 || !clearings.is_empty()
            }
            _ => true,
        }
    }

    /// Makes what was stored so far durable.
    pub(super) async fn flush(&self) -> Result<(), IoError> {
        match self {
            Self::Log(log) => log.flush().await,
            Self::Pair(pair) => pair.flush().await,
        }
    }

    /// Makes what [`Backup::begin_flush`] took durable.
    pub(super) async fn settle(
        &self,
        volume: VolumeNumber,
        covered: &Covered,
    ) -> Result<(), IoError> {
        match (self, covered) {
            (Self::Log(log), Covered::Log(clearings)) if !clearings.is_empty() => {
                log.clear(volume, clearings).await?;
                log.flush().await
            }
            (Self::Pair(pair), Covered::Pair(taken)) => pair.persist(taken.clone()).await,
            _ => Ok(()),
        }
    }

    /// The flush failed: what it took is to be settled by the next.
    pub(super) fn give_back(&self, volume: VolumeNumber, covered: Covered) {
        match (self, covered) {
            (Self::Log(log), Covered::Log(clearings)) => log.give_back(volume, clearings),
            (Self::Pair(pair), Covered::Pair(taken)) => pair.give_back(&taken),
            _ => unreachable!("what a storage took is of its kind"),
        }
    }
}
