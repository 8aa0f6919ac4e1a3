//! The sections of a configuration, field by field.
//!
//! Owns the encoding of the data model. Invariant: what [`write`] writes, [`read`] gives back. Whether the values make sense together is
//! left to `check`.

use std::collections::BTreeMap;

use super::super::codec::{CodecError, Reader, Writer};
use super::check::{
    DISKS_MAX, EXTENTS_MAX, GROUPS_MAX, HISTORY_MAX, NAME_MAX, PATH_MAX, SERIAL_MAX, UNCOUNTED_MAX,
    VOLUMES_MAX, WHY_MAX,
};
use super::{SECTIONS, Section, backups};
use crate::config::{
    Configuration, DiskEntry, DiskRole, DropReason, Extent, FailedTest, GroupEntry, HealthEntry,
    HealthTable, HistoryEntry, JournalMode, Level, Service, SlotEntry, SlotState, VolumeEntry,
};
use crate::health::{Mode, Policy};
use crate::ids::{DiskNumber, GroupNumber, MEMBERS_MAX, Slot, Uuid, VolumeNumber};

/// Every section of `config` in the order of the tags.
pub fn write(config: &Configuration) -> [(Section, Vec<u8>); SECTIONS] {
    let body = |fill: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new();
        fill(&mut writer);
        writer.finish()
    };
    let array = body(&|w| {
        w.string(&config.name).u64(config.committed_at_ms).flag(config.allow_injection);
        w.u64(config.counted_generation);
    });
    let history = body(&|w| {
        w.list(&config.history, |w, entry| {
            w.u64(entry.id).u64(entry.first_generation);
        });
    });
    let uncounted = body(&|w| {
        w.list(&config.uncounted, |w, list| {
            w.list(list, |w, disk| {
                w.u32(disk.0);
            });
        });
    });
    let disks = body(&|w| {
        w.list(&config.disks, write_disk);
    });
    let groups = body(&|w| {
        w.list(&config.groups, write_group);
    });
    let volumes = body(&|w| {
        w.list(&config.volumes, write_volume);
    });
    let health = body(&|w| write_health(w, &config.health));
    let backups = body(&|w| backups::write(w, &config.backups));
    let retired = body(&|w| write_retired(w, &config.retired));
    let failed_tests = body(&|w| write_failed_tests(w, &config.failed_tests));
    [
        (Section::Array, array),
        (Section::History, history),
        (Section::Uncounted, uncounted),
        (Section::Disks, disks),
        (Section::Groups, groups),
        (Section::Volumes, volumes),
        (Section::Health, health),
        (Section::Backups, backups),
        (Section::Retired, retired),
        (Section::FailedTests, failed_tests),
    ]
}

/// The configuration whose sections are `bodies`, in the order of the tags.
pub fn read(
    array: Uuid,
    generation: u64,
    bodies: &[&[u8]; SECTIONS],
) -> Result<Configuration, CodecError> {
    let [of_array, history, uncounted, disks, groups, volumes, health, backups, ..] = *bodies;
    let [.., retired, failed_tests] = *bodies;
    let mut r = Reader::new(of_array);
    let (name, committed_at_ms) = (r.string(NAME_MAX, "name")?, r.u64()?);
    let allow_injection = r.flag("allow_injection")?;
    let counted_generation = r.u64()?;
    r.end()?;
    Ok(Configuration {
        array,
        name,
        generation,
        history: whole(history, HISTORY_MAX, "history", |r| {
            Ok(HistoryEntry { id: r.u64()?, first_generation: r.u64()? })
        })?,
        committed_at_ms,
        uncounted: whole(uncounted, UNCOUNTED_MAX, "uncounted lists", |r| {
            r.list(DISKS_MAX, "uncounted list", |r| Ok::<_, CodecError>(DiskNumber(r.u32()?)))
        })?,
        counted_generation,
        allow_injection,
        disks: whole(disks, DISKS_MAX, "disks", read_disk)?,
        groups: whole(groups, GROUPS_MAX, "groups", read_group)?,
        volumes: whole(volumes, VOLUMES_MAX, "volumes", read_volume)?,
        health: read_health(health)?,
        backups: backups::read(backups)?,
        retired: read_retired(retired)?,
        failed_tests: read_failed_tests(failed_tests)?,
    })
}

/// A section that is one list.
fn whole<T>(
    body: &[u8],
    max: usize,
    what: &'static str,
    item: impl FnMut(&mut Reader<'_>) -> Result<T, CodecError>,
) -> Result<Vec<T>, CodecError> {
    let mut reader = Reader::new(body);
    let items = reader.list(max, what, item)?;
    reader.end()?;
    Ok(items)
}

fn write_disk(w: &mut Writer, disk: &DiskEntry) {
    let role = match disk.role {
        DiskRole::Member => 1,
        DiskRole::Spare => 2,
        DiskRole::Free => 3,
        DiskRole::Work => 4,
    };
    w.u32(disk.number.0).bytes(&disk.uuid.0).u64(disk.data_len).u8(role);
    match disk.service {
        Service::InService => {
            w.u8(0);
        }
        Service::Dropped { history, generation, reason, at_ms } => {
            let reason = match reason {
                DropReason::Missing => 1,
                DropReason::Failed => 2,
                DropReason::Operator => 3,
                DropReason::Replaced => 4,
                DropReason::Removed => 5,
            };
            w.u8(reason).u64(history).u64(generation).u64(at_ms);
        }
    }
    w.string(&disk.path_hint).string(&disk.serial);
}

fn read_disk(r: &mut Reader<'_>) -> Result<DiskEntry, CodecError> {
    let (number, uuid, data_len) = (DiskNumber(r.u32()?), Uuid(r.array()?), r.u64()?);
    let role = match r.u8()? {
        1 => DiskRole::Member,
        2 => DiskRole::Spare,
        3 => DiskRole::Free,
        4 => DiskRole::Work,
        _ => return Err(CodecError::Value("role")),
    };
    let reason = match r.u8()? {
        0 => None,
        1 => Some(DropReason::Missing),
        2 => Some(DropReason::Failed),
        3 => Some(DropReason::Operator),
        4 => Some(DropReason::Replaced),
        5 => Some(DropReason::Removed),
        _ => return Err(CodecError::Value("service")),
    };
    let service = match reason {
        None => Service::InService,
        Some(reason) => {
            let (history, generation, at_ms) = (r.u64()?, r.u64()?, r.u64()?);
            Service::Dropped { history, generation, reason, at_ms }
        }
    };
    let path_hint = r.string(PATH_MAX, "path hint")?;
    let serial = r.string(SERIAL_MAX, "serial")?;
    Ok(DiskEntry { number, uuid, data_len, role, service, path_hint, serial })
}

fn write_group(w: &mut Writer, group: &GroupEntry) {
    let level = match group.level {
        Level::Raid0 => 0,
        Level::Raid1 => 1,
        Level::Raid5 => 5,
        Level::Raid6 => 6,
        Level::Raid10 => 10,
    };
    w.u32(group.number.0).bytes(&group.uuid.0).u8(level).u32(group.chunk).u64(group.stripes);
    let journal = match group.journal {
        JournalMode::Off => 0,
        JournalMode::Partial => 1,
        JournalMode::Full => 2,
    };
    w.u64(group.intent_region).u32(group.unwritten_unit).u8(journal).flag(group.checksums);
    w.flag(group.clean);
    w.list(&group.slots, |w, slot| {
        let state = match slot.state {
            SlotState::InSync => 1,
            SlotState::Out => 2,
            SlotState::Rebuilding => 3,
            SlotState::Catching => 4,
        };
        // Disks are numbered from 1, so 0 stands for none.
        w.u32(slot.disk.0).u8(state).u32(slot.replacement.map_or(0, |disk| disk.0));
    });
}

fn read_group(r: &mut Reader<'_>) -> Result<GroupEntry, CodecError> {
    let (number, uuid) = (GroupNumber(r.u32()?), Uuid(r.array()?));
    let level = match r.u8()? {
        0 => Level::Raid0,
        1 => Level::Raid1,
        5 => Level::Raid5,
        6 => Level::Raid6,
        10 => Level::Raid10,
        _ => return Err(CodecError::Value("level")),
    };
    let (chunk, stripes) = (r.u32()?, r.u64()?);
    let (intent_region, unwritten_unit) = (r.u64()?, r.u32()?);
    let journal = match r.u8()? {
        0 => JournalMode::Off,
        1 => JournalMode::Partial,
        2 => JournalMode::Full,
        _ => return Err(CodecError::Value("journal")),
    };
    let checksums = r.flag("checksums")?;
    let clean = r.flag("clean")?;
    let slots = r.list(MEMBERS_MAX, "slots", |r| {
        let disk = DiskNumber(r.u32()?);
        let state = match r.u8()? {
            1 => SlotState::InSync,
            2 => SlotState::Out,
            3 => SlotState::Rebuilding,
            4 => SlotState::Catching,
            _ => return Err(CodecError::Value("state of a slot")),
        };
        let replacement = Some(r.u32()?).filter(|&disk| disk != 0).map(DiskNumber);
        Ok(SlotEntry { disk, state, replacement })
    })?;
    Ok(GroupEntry {
        number,
        uuid,
        level,
        chunk,
        stripes,
        intent_region,
        unwritten_unit,
        journal,
        checksums,
        slots,
        clean,
    })
}

fn write_volume(w: &mut Writer, volume: &VolumeEntry) {
    w.u32(volume.number.0).string(&volume.name).u32(volume.group.0).u64(volume.size);
    w.flag(volume.read_only);
    w.list(&volume.extents, |w, extent| {
        w.u64(extent.start).u64(extent.stripes);
    });
}

fn read_volume(r: &mut Reader<'_>) -> Result<VolumeEntry, CodecError> {
    let (number, name) = (VolumeNumber(r.u32()?), r.string(NAME_MAX, "name of a volume")?);
    let (group, size, read_only) = (GroupNumber(r.u32()?), r.u64()?, r.flag("read_only")?);
    let extents = r.list(EXTENTS_MAX, "extents", |r| {
        Ok::<_, CodecError>(Extent { start: r.u64()?, stripes: r.u64()? })
    })?;
    Ok(VolumeEntry { number, name, group, size, extents, read_only })
}

fn write_health(w: &mut Writer, health: &HealthTable) {
    let Policy { mode, thresholds, leak_percent, at_once, shelter } = &health.policy;
    w.u8(match mode {
        Mode::Auto => 1,
        Mode::Advise => 2,
    });
    w.u32(*leak_percent).u32(*at_once).flag(*shelter);
    w.list(thresholds, |w, threshold| {
        w.u32(*threshold);
    });
    let disks: Vec<_> = health.disks.iter().collect();
    w.list(&disks, |w, (disk, entry)| {
        w.u32(disk.0).u32(entry.level).flag(entry.ailing).flag(entry.held);
        w.list(&entry.counts, |w, count| {
            w.u64(*count);
        });
    });
}

/// A configuration written before health was kept has no such section: then nothing is known of any disk.
fn read_health(body: &[u8]) -> Result<HealthTable, CodecError> {
    if body.is_empty() {
        return Ok(HealthTable::default());
    }
    let mut r = Reader::new(body);
    let mode = match r.u8()? {
        1 => Mode::Auto,
        2 => Mode::Advise,
        _ => return Err(CodecError::Value("policy")),
    };
    let (leak_percent, at_once, shelter) = (r.u32()?, r.u32()?, r.flag("shelter")?);
    let thresholds = eight(&mut r, "thresholds", Reader::u32)?;
    let disks = r.list(DISKS_MAX, "health of disks", |r| {
        let (disk, level) = (DiskNumber(r.u32()?), r.u32()?);
        let (ailing, held) = (r.flag("ailing")?, r.flag("held")?);
        let counts = eight(r, "counts", Reader::u64)?;
        Ok::<_, CodecError>((disk, HealthEntry { counts, level, ailing, held }))
    })?;
    r.end()?;
    let policy = Policy { mode, thresholds, leak_percent, at_once, shelter };
    Ok(HealthTable { policy, disks: disks.into_iter().collect() })
}

fn write_retired(w: &mut Writer, retired: &BTreeMap<DiskNumber, (GroupNumber, Slot)>) {
    let retired: Vec<_> = retired.iter().collect();
    w.list(&retired, |w, (disk, (group, slot))| {
        w.u32(disk.0).u32(group.0).u8(slot.0);
    });
}

/// Where no disk is to be tested the section is missing.
fn read_retired(body: &[u8]) -> Result<BTreeMap<DiskNumber, (GroupNumber, Slot)>, CodecError> {
    if body.is_empty() {
        return Ok(BTreeMap::new());
    }
    let retired = whole(body, DISKS_MAX, "retired disks", |r| {
        let (disk, group, slot) = (DiskNumber(r.u32()?), GroupNumber(r.u32()?), Slot(r.u8()?));
        Ok::<_, CodecError>((disk, (group, slot)))
    })?;
    Ok(retired.into_iter().collect())
}

fn write_failed_tests(w: &mut Writer, failed: &BTreeMap<DiskNumber, FailedTest>) {
    let failed: Vec<_> = failed.iter().collect();
    w.list(&failed, |w, (disk, test)| {
        w.u32(disk.0).u32(test.group.0).u8(test.slot.0).string(&test.why);
    });
}

/// Where no disk failed its test the section is missing.
fn read_failed_tests(body: &[u8]) -> Result<BTreeMap<DiskNumber, FailedTest>, CodecError> {
    if body.is_empty() {
        return Ok(BTreeMap::new());
    }
    let failed = whole(body, DISKS_MAX, "failed tests", |r| {
        let disk = DiskNumber(r.u32()?);
        let (group, slot) = (GroupNumber(r.u32()?), Slot(r.u8()?));
        Ok::<_, CodecError>((disk, FailedTest { group, slot, why: r.string(WHY_MAX, "why")? }))
    })?;
    Ok(failed.into_iter().collect())
}

/// A list of one value for each class of errors.
fn eight<'a, T>(
    r: &mut Reader<'a>,
    what: &'static str,
    item: impl FnMut(&mut Reader<'a>) -> Result<T, CodecError>,
) -> Result<[T; 8], CodecError> {
    r.list(8, what, item)?.try_into().map_err(|_| CodecError::Value(what))
}
