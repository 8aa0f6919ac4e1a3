//! The section of failure avoidance, field by field.
//!
//! Owns its encoding. Invariant: what [`write`] writes, [`read`] gives back; a body that is missing is an empty table.

use std::collections::BTreeSet;

use super::super::codec::{CodecError, Reader, Writer};
use super::check::{DISKS_MAX, EXTENTS_MAX, GROUPS_MAX, VOLUMES_MAX};
use crate::config::{
    AvoidanceEntry, AvoidanceState, BackupPlace, BackupTable, Extent, PairEntry, PairStatus,
    Retired, ShieldedVolume, Strategy, WorkEntry,
};
use crate::ids::{DiskNumber, GroupNumber, Slot, Uuid, VolumeNumber};

/// Most places that hold logs.
pub const WORK_MAX: usize = 1024;
/// Most legs of a work-disk set.
pub const LEGS_MAX: usize = 8;
/// Most backup storages of one volume during one avoidance.
pub const CHAIN_MAX: usize = 16;

/// In a rate: the copy into the slot stands still.
const PAUSED: u64 = 1 << 63;

/// Writes the section's body.
pub fn write(w: &mut Writer, table: &BackupTable) {
    w.list(&table.avoidances, |w, avoidance| {
        let state = match avoidance.state {
            AvoidanceState::Entering => 1,
            AvoidanceState::Copying => 2,
            AvoidanceState::WritingBack => 3,
            AvoidanceState::Sheltered => 4,
        };
        w.u32(avoidance.group.0).u8(avoidance.slot.0).u8(state).flag(avoidance.paused);
        w.u8(strategy_code(avoidance.asked));
        w.u32(avoidance.retiring.map_or(0, |old| old.disk.0));
        w.u8(avoidance.retiring.map_or(0, |old| old.slot.0));
        w.list(&avoidance.volumes, |w, volume| {
            w.u32(volume.volume.0);
            w.list(&volume.chain, |w, place| write_place(w, *place));
        });
    });
    w.list(&table.work, |w, work| {
        write_place(w, work.place);
        w.list(&work.legs, |w, leg| {
            w.u32(leg.0);
        });
        w.list(&work.serves, |w, number| {
            w.u32(*number);
        });
        w.u64(work.log);
    });
    let strategies: Vec<_> = table.strategies.iter().collect();
    w.list(&strategies, |w, (volume, strategy)| {
        w.u32(volume.0).u8(strategy_code(**strategy));
    });
    w.list(&table.suspected, |w, disk| {
        w.u32(disk.0);
    });
    w.list(&table.pairs, write_pair);
    let slots: BTreeSet<_> = table.rates.keys().chain(&table.paused).copied().collect();
    let rates: Vec<_> = slots.into_iter().collect();
    w.list(&rates, |w, at| {
        let rate = table.rates.get(at).copied().unwrap_or(0).min(!PAUSED);
        let paused = if table.paused.contains(at) { PAUSED } else { 0 };
        w.u32(at.0.0).u8(at.1.0).u64(rate | paused);
    });
}

fn write_pair(w: &mut Writer, pair: &PairEntry) {
    let status = match pair.status {
        PairStatus::Duplex => 1,
        PairStatus::Syncing => 2,
        PairStatus::Split => 3,
        PairStatus::BackingUp => 4,
    };
    w.bytes(&pair.id.0).u32(pair.primary.0).u32(pair.secondary.0).u8(status);
    w.flag(pair.hold).flag(pair.reversed).flag(pair.temporary).flag(pair.away);
    w.list(&pair.bitmap, |w, extent| {
        w.u64(extent.start).u64(extent.stripes);
    });
}

fn read_pair(r: &mut Reader<'_>) -> Result<PairEntry, CodecError> {
    let id = Uuid(r.array()?);
    let (primary, secondary) = (VolumeNumber(r.u32()?), VolumeNumber(r.u32()?));
    let status = match r.u8()? {
        1 => PairStatus::Duplex,
        2 => PairStatus::Syncing,
        3 => PairStatus::Split,
        4 => PairStatus::BackingUp,
        _ => return Err(CodecError::Value("status of a pair")),
    };
    let (hold, reversed, temporary) = (r.flag("hold")?, r.flag("reversed")?, r.flag("temporary")?);
    let away = r.flag("away")?;
    let bitmap = r.list(EXTENTS_MAX, "extents", |r| {
        Ok::<_, CodecError>(Extent { start: r.u64()?, stripes: r.u64()? })
    })?;
    Ok(PairEntry { id, primary, secondary, status, hold, reversed, temporary, away, bitmap })
}

/// Reads the section's body.
pub fn read(body: &[u8]) -> Result<BackupTable, CodecError> {
    if body.is_empty() {
        return Ok(BackupTable::default());
    }
    let mut r = Reader::new(body);
    let avoidances = r.list(GROUPS_MAX, "avoidances", read_avoidance)?;
    let work = r.list(WORK_MAX, "work places", |r| {
        let place = read_place(r)?;
        let legs = r.list(LEGS_MAX, "legs", |r| Ok::<_, CodecError>(DiskNumber(r.u32()?)))?;
        let serves = r.list(VOLUMES_MAX, "serves", Reader::u32)?;
        Ok::<_, CodecError>(WorkEntry { place, legs, serves, log: r.u64()? })
    })?;
    let strategies = r.list(VOLUMES_MAX, "strategies", |r| {
        Ok::<_, CodecError>((VolumeNumber(r.u32()?), read_strategy(r)?))
    })?;
    let suspected =
        r.list(DISKS_MAX, "suspected", |r| Ok::<_, CodecError>(DiskNumber(r.u32()?)))?;
    let pairs = r.list(VOLUMES_MAX, "pairs", read_pair)?;
    let rates = r.list(DISKS_MAX, "rates", |r| {
        Ok::<_, CodecError>(((GroupNumber(r.u32()?), Slot(r.u8()?)), r.u64()?))
    })?;
    r.end()?;
    let strategies = strategies.into_iter().collect();
    let rates: Vec<((GroupNumber, Slot), u64)> = rates;
    let is_paused = |entry: &&(_, u64)| entry.1 & PAUSED != 0;
    let paused = rates.iter().filter(is_paused).map(|(at, _)| *at).collect();
    let rates = rates.into_iter().map(|(at, rate)| (at, rate & !PAUSED));
    let rates = rates.filter(|(_, rate)| *rate != 0).collect();
    Ok(BackupTable { avoidances, work, strategies, suspected, pairs, rates, paused })
}

fn read_avoidance(r: &mut Reader<'_>) -> Result<AvoidanceEntry, CodecError> {
    let (group, slot) = (GroupNumber(r.u32()?), Slot(r.u8()?));
    let state = match r.u8()? {
        1 => AvoidanceState::Entering,
        2 => AvoidanceState::Copying,
        3 => AvoidanceState::WritingBack,
        4 => AvoidanceState::Sheltered,
        _ => return Err(CodecError::Value("state of an avoidance")),
    };
    let (paused, asked) = (r.flag("paused")?, read_strategy(r)?);
    let (disk, its_slot) = (r.u32()?, Slot(r.u8()?));
    let retiring = (disk != 0).then_some(Retired { disk: DiskNumber(disk), slot: its_slot });
    let volumes = r.list(VOLUMES_MAX, "shielded volumes", |r| {
        let volume = VolumeNumber(r.u32()?);
        let chain = r.list(CHAIN_MAX, "chain", read_place)?;
        Ok::<_, CodecError>(ShieldedVolume { volume, chain })
    })?;
    Ok(AvoidanceEntry { group, slot, state, paused, asked, retiring, volumes })
}

fn strategy_code(strategy: Strategy) -> u8 {
    match strategy {
        Strategy::Auto => 0,
        Strategy::Pair => 1,
        Strategy::WorkVolume => 2,
        Strategy::WorkDisk => 3,
        Strategy::Direct => 4,
    }
}

fn read_strategy(r: &mut Reader<'_>) -> Result<Strategy, CodecError> {
    match r.u8()? {
        0 => Ok(Strategy::Auto),
        1 => Ok(Strategy::Pair),
        2 => Ok(Strategy::WorkVolume),
        3 => Ok(Strategy::WorkDisk),
        4 => Ok(Strategy::Direct),
        _ => Err(CodecError::Value("strategy")),
    }
}

fn write_place(w: &mut Writer, place: BackupPlace) {
    match place {
        BackupPlace::Pair(volume) => w.u8(1).u32(volume.0),
        BackupPlace::WorkVolume(volume) => w.u8(2).u32(volume.0),
        BackupPlace::WorkDisk(disk) => w.u8(3).u32(disk.0),
    };
}

fn read_place(r: &mut Reader<'_>) -> Result<BackupPlace, CodecError> {
    let (kind, number) = (r.u8()?, r.u32()?);
    match kind {
        1 => Ok(BackupPlace::Pair(VolumeNumber(number))),
        2 => Ok(BackupPlace::WorkVolume(VolumeNumber(number))),
        3 => Ok(BackupPlace::WorkDisk(DiskNumber(number))),
        _ => Err(CodecError::Value("kind of a backup storage")),
    }
}
