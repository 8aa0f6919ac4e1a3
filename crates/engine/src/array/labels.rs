//! Labels and configuration slots of single disks: reading, writing, wiping.
//!
//! Owns what is done to one disk outside a running array. Invariants: a label is the last thing written to a new disk and the first
//! wiped from an old one; its copy in the last block serves when the first is damaged.

use std::future::Future;

use crate::buf::Buf;
use crate::config::Configuration;
use crate::disk::{Disk, DiskFault, FaultKind};
use crate::format::config::{self, ConfigError};
use crate::format::label::{Label, LabelError};
use crate::format::layout::{Layout, Region};
use crate::ids::{BLOCK_SIZE, Uuid};
use crate::runtime::Runtime;
use crate::sync::{First, race};
use crate::words;

/// A label found on a disk.
pub(super) struct FoundLabel {
    pub(super) label: Label,
    /// Blocks (offsets) that should hold the label and do not.
    pub(super) damaged: Vec<u64>,
}

pub(super) async fn read<D: Disk>(disk: &D, offset: u64, len: u64) -> Result<Buf, DiskFault> {
    let (result, buf) = disk.read(offset, Buf::zeroed(len as usize)).await;
    result.map(|()| buf)
}

/// What `work` answers within a time limit: a disk that hangs must not hold up everything else.
pub(super) async fn within<R: Runtime, T>(
    rt: &R,
    limit_ns: u64,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = Box::pin(work);
    let mut limit = Box::pin(rt.sleep_ns(limit_ns));
    match race(&mut work, &mut limit).await {
        First::Left(value) => Some(value),
        First::Right(()) => None,
    }
}

/// Reads the label: the first block, else the copy in the last.
pub(super) async fn read_label<D: Disk>(disk: &D) -> Result<FoundLabel, LabelError> {
    let size = disk.size();
    let Some(copy_at) = Layout::label_copy_offset(size) else { return Err(LabelError::NotOurs) };
    let mut best: Option<Label> = None;
    let mut damaged = Vec::new();
    let mut why = LabelError::NotOurs;
    for at in [0, copy_at] {
        let decoded = match read(disk, at, BLOCK_SIZE).await {
            Ok(block) => Label::decode(&block),
            Err(_) => Err(LabelError::Damaged),
        };
        match decoded {
            Ok(label) if label.disk_size > size => {
                let made_for = words::exact(label.disk_size);
                why = LabelError::CutShort { made_for, has: words::exact(size) };
            }
            Ok(label) => best = best.or(Some(label)),
            Err(error) => {
                damaged.push(at);
                // What is certainly ours says more than what may be anything.
                if why == LabelError::NotOurs || matches!(error, LabelError::TooNew(_)) {
                    why = error;
                }
            }
        }
    }
    match best {
        Some(label) => Ok(FoundLabel { label, damaged }),
        None => Err(why),
    }
}

/// What a disk's configuration slots hold: `None` where nothing valid of this array is.
pub(super) type Slots = [Option<Configuration>; 2];

/// The valid configurations of a disk's slots, and words about those that are not.
pub(super) async fn read_configs<D: Disk>(
    disk: &D,
    layout: &Layout,
    array: Uuid,
) -> (Slots, Vec<String>) {
    let (mut configs, mut notes) = ([None, None], Vec::new());
    for (i, slot) in layout.config.iter().enumerate() {
        match read_slot(disk, *slot).await.map(|bytes| config::decode(&bytes)) {
            Ok(Ok(config)) if config.array == array => configs[i] = Some(config),
            Ok(Ok(_)) => notes.push(format!("configuration slot {i} belongs to another array")),
            Ok(Err(ConfigError::Blank)) => {}
            Ok(Err(error)) => notes.push(format!("configuration slot {i}: {error}")),
            Err(fault) => notes.push(format!("configuration slot {i}: {fault}")),
        }
    }
    (configs, notes)
}

/// As much of a slot as its record takes: a sector that went bad behind it costs nothing.
async fn read_slot<D: Disk>(disk: &D, slot: Region) -> Result<Buf, DiskFault> {
    let first = read(disk, slot.offset, BLOCK_SIZE).await?;
    match config::record_len(&first, slot.len) {
        BLOCK_SIZE => Ok(first),
        len => read(disk, slot.offset, len).await,
    }
}

async fn write_blank<D: Disk>(disk: &D, region: Region) -> Result<(), DiskFault> {
    const PIECE: u64 = 1 << 20;
    let zeroes = Buf::zeroed(region.len.min(PIECE) as usize);
    let mut at = region.offset;
    while at < region.end() {
        let len = (region.end() - at).min(PIECE);
        disk.write(at, zeroes.slice(0..len as usize)).await?;
        at += len;
    }
    Ok(())
}

/// Prepares every region of a new disk but the label, physically, so that a full file system cannot fail it later.
pub(super) async fn write_regions<D: Disk>(disk: &D, layout: &Layout) -> Result<(), DiskFault> {
    let singles = [layout.owner, layout.events];
    let pairs = [layout.config, layout.intent, layout.unwritten, layout.lost, layout.cursors];
    for region in singles.into_iter().chain(pairs.into_iter().flatten()) {
        write_blank(disk, region).await?;
    }
    Ok(())
}

/// Writes both copies of the label and flushes.
pub(super) async fn write_label<D: Disk>(disk: &D, label: &Label) -> Result<(), DiskFault> {
    let buf = label.encode();
    for region in [label.layout.label_copy, label.layout.label] {
        disk.write(region.offset, buf.clone()).await?;
    }
    disk.flush().await
}

/// Writes the label where it is damaged, and only there: the copy that served may be the last whole one. On a disk that has grown that is also its last
/// block, where the copy is looked for.
pub(super) async fn mend_label<D: Disk>(
    disk: &D,
    label: &Label,
    damaged: &[u64],
) -> Result<(), DiskFault> {
    for at in damaged {
        disk.write(*at, label.encode()).await?;
    }
    disk.flush().await
}

/// Wipes the label, its copy and everything else before the data but the reserved regions: the disk belongs to nobody afterwards.
///
/// # Errors
/// If the disk cannot take it; parts may be wiped then.
pub async fn wipe<D: Disk>(disk: &D) -> Result<(), DiskFault> {
    let size = disk.size();
    let Ok(layout) = Layout::for_size(size) else { return Err(DiskFault::new(FaultKind::Medium)) };
    let layout = read_label(disk).await.map_or(layout, |found| found.label.layout);
    // The label first: what is left of the rest means nothing without it.
    for region in [layout.label, layout.label_copy] {
        write_blank(disk, region).await?;
    }
    write_regions(disk, &layout).await?;
    disk.flush().await
}
