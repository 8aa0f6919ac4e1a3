//! The tables of the drawings that tell of pairs and redirected writes: T2, T4 to T7.
//!
//! Owns their rows, made from the configuration, the pairs and the logs at this moment. Invariant: a place is shown in use where writes go or lie, not where they only
//! may go, or would if it were safer. Changes nothing.

use std::collections::BTreeSet;

use super::Array;
use super::volumes::geometry_of;
use crate::config::{
    AvoidanceEntry, AvoidanceState, BackupPlace, Configuration, PairEntry, PairStatus,
    ShieldedVolume, VolumeEntry,
};
use crate::format::log::LogShape;
use crate::ids::{BLOCK_SIZE, DiskNumber, GroupNumber, VolumeNumber};
use crate::report::{T2Row, T4Row, T5Row, T6Row, T7Row};
use crate::runtime::Env;

/// What T5 says of the disks of a group whose writes go to a work disk.
const RENEWED: &str = "RENEWED DATA BEING BACKED UP";

/// A size as the drawings print it: decimal, rounded, in GB from 1 GB on.
fn capacity(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    // What would be rounded up to the next unit is printed in it.
    let unit = UNITS.iter().find(|(unit, _)| bytes >= unit - unit / 2000);
    unit.map_or_else(|| format!("{bytes}B"), |(u, name)| format!("{}{name}", (bytes + u / 2) / u))
}

/// Bits as the drawings print them.
fn bits(bits: &[bool]) -> String {
    bits.iter().map(|bit| if *bit { '1' } else { '0' }).collect()
}

/// Bytes of a volume that one bit of T2 stands for.
const REGION: u64 = 1 << 20;

impl<E: Env> Array<E> {
    /// Table T2, with `count` bits in a row; pairs in the order in which they were made.
    #[must_use]
    pub fn table_t2(&self, count: u64) -> Vec<T2Row> {
        let config = self.config.borrow();
        let pairs = self.pairs.borrow();
        let row = |pair: &PairEntry| {
            let all = size_of(&config, pair.primary).div_ceil(REGION);
            let count = count.min(all);
            let away = || vec![pair.away; count as usize];
            let first = pairs.get(&pair.primary).map_or_else(away, |pair| pair.bits(count, REGION));
            T2Row {
                primary_volume: pair.primary,
                secondary_volume: pair.secondary,
                pairing_status: if pair.away { PairStatus::Split } else { pair.status }.to_string(),
                differential_bitmap: bits(&first),
                bits: all,
            }
        };
        config.backups.pairs.iter().map(row).collect()
    }

    /// The shielded groups, with their volumes, that use a place of a log: the volume's writes go there first, or some of them lie there. A place further
    /// down the chain that nothing came to yet is only kept ready, and so is one that takes nothing at the moment.
    fn using(
        &self,
        config: &Configuration,
        place: BackupPlace,
    ) -> Vec<(GroupNumber, VolumeNumber)> {
        let logs = self.logs.borrow();
        let uses = |avoidance: &AvoidanceEntry, volume: &ShieldedVolume| {
            let takes = avoidance.state == AvoidanceState::WritingBack
                || self.takes_writes(config, volume.volume, place);
            let is_here = || logs.get(&place).is_some_and(|log| log.marks_of(volume.volume) > 0);
            volume.chain.first() == Some(&place) && takes
                || volume.chain.contains(&place) && is_here()
        };
        let shielded = config.backups.avoidances.iter();
        let shielded = shielded.flat_map(|a| a.volumes.iter().map(move |volume| (a, volume)));
        shielded.filter(|(a, v)| uses(a, v)).map(|(a, v)| (a.group, v.volume)).collect()
    }

    /// Table T4, with `count` bits in a row.
    #[must_use]
    pub fn table_t4(&self, count: u64) -> Vec<T4Row> {
        let config = self.config.borrow();
        let logs = self.logs.borrow();
        let row = |volume: VolumeNumber| {
            let place = BackupPlace::WorkVolume(volume);
            let in_use = config.backups.work_at(place).is_some_and(|work| work.log != 0);
            let log = logs.get(&place).filter(|_| in_use);
            let users = self.using(&config, place);
            let size = size_of(&config, volume);
            let all = LogShape::of(size / BLOCK_SIZE).map_or(0, |shape| shape.slots);
            let count = count.min(all);
            let none = || vec![false; count as usize];
            T4Row {
                work_volume: volume,
                capacity: capacity(size),
                primary_volumes: users.into_iter().map(|(_, volume)| volume).collect(),
                terminal_address: log.and_then(|log| log.terminal()),
                differential_bitmap: bits(&log.map_or_else(none, |log| log.bits(count))),
                bits: all,
            }
        };
        let volumes = config.backups.work.iter().filter_map(|work| match work.place {
            BackupPlace::WorkVolume(volume) => Some(volume),
            _ => None,
        });
        volumes.map(row).collect()
    }

    /// Table T5.
    #[must_use]
    pub fn table_t5(&self) -> Vec<T5Row> {
        let config = self.config.borrow();
        let drives = self.drives.borrow();
        let sets = config.backups.work.iter().map(|work| work.place);
        let sets = sets.filter(|place| matches!(place, BackupPlace::WorkDisk(_)));
        let users = sets.flat_map(|place| self.using(&config, place));
        let backed: BTreeSet<_> = users.map(|(group, _)| group).collect();
        let on_work_disk = |disk: DiskNumber| {
            config.slot_of(disk).is_some_and(|(group, slot)| {
                let is_member =
                    config.group(group).is_some_and(|g| g.slots[usize::from(slot.0)].disk == disk);
                is_member && backed.contains(&group)
            })
        };
        let rows = config.disks.iter().filter(|d| config.backups.set_of_leg(d.number).is_none());
        rows.map(|disk| {
            let size = drives.get(&disk.number).map_or(disk.data_len, |d| d.size());
            T5Row {
                disk: disk.number,
                capacity: capacity(size),
                status: on_work_disk(disk.number).then(|| RENEWED.to_owned()),
            }
        })
        .collect()
    }

    /// Places whose logs are in use, also those that hold nothing at the moment.
    #[must_use]
    pub fn logs_in_use(&self) -> Vec<BackupPlace> {
        let config = self.config.borrow();
        config.backups.work.iter().filter(|work| work.log != 0).map(|work| work.place).collect()
    }

    /// Table T6.
    #[must_use]
    pub fn table_t6(&self) -> Vec<T6Row> {
        let config = self.config.borrow();
        let (logs, drives) = (self.logs.borrow(), self.drives.borrow());
        let sets = config.backups.work.iter().filter_map(|work| match work.place {
            BackupPlace::WorkDisk(set) => Some((set, work)),
            _ => None,
        });
        sets.map(|(set, work)| {
            let users = self.using(&config, work.place).into_iter();
            let mut groups: Vec<_> = users.map(|(group, _)| group).collect();
            groups.dedup();
            let main_disks: Vec<DiskNumber> = groups
                .iter()
                .filter_map(|group| config.group(*group))
                .flat_map(|group| group.slots.iter().map(|slot| slot.disk))
                .collect();
            let size = |leg: &DiskNumber| drives.get(leg).map(|drive| drive.size());
            let size = work.legs.iter().filter_map(size).min().unwrap_or(0);
            T6Row {
                disk: set,
                capacity: capacity(size),
                status: if groups.is_empty() { "UNUSED" } else { "IN USE" }.into(),
                main_disks,
                terminal_address: logs
                    .get(&work.place)
                    .filter(|_| work.log != 0)
                    .and_then(|log| log.terminal()),
            }
        })
        .collect()
    }

    /// Table T7.
    #[must_use]
    pub fn table_t7(&self) -> Vec<T7Row> {
        let config = self.config.borrow();
        let logs = self.logs.borrow();
        let mut rows = Vec::new();
        for (place, log) in logs.iter() {
            let BackupPlace::WorkDisk(set) = *place else { continue };
            for (slot, entry) in log.marked_slots() {
                let volume = config.volumes.iter().find(|v| v.number.0 == entry.volume);
                let Some((main_disk, address)) =
                    volume.and_then(|volume| main_address(&config, volume, entry.block))
                else {
                    continue;
                };
                rows.push(T7Row {
                    main_disk,
                    main_disk_address: address / BLOCK_SIZE + 1,
                    work_disk: set,
                    work_disk_address: slot,
                });
            }
        }
        rows.sort_by_key(|row| (row.work_disk, row.work_disk_address));
        rows
    }
}

fn size_of(config: &Configuration, volume: VolumeNumber) -> u64 {
    config.volumes.iter().find(|v| v.number == volume).map_or(0, |v| v.size)
}

/// The disk and the member address of a block of a volume; of copies the first.
fn main_address(
    config: &Configuration,
    volume: &VolumeEntry,
    block: u64,
) -> Option<(DiskNumber, u64)> {
    let group = config.group(volume.group)?;
    let geometry = geometry_of(group);
    let mut left = block * BLOCK_SIZE;
    for extent in &volume.extents {
        let len = extent.stripes * geometry.stripe_len();
        if left < len {
            let place = geometry.locate(extent.start * geometry.stripe_len() + left);
            let slot = geometry.copies(place.stripe, place.column).iter().next()?;
            let address = geometry.member_address(place.stripe, place.row);
            return Some((group.slots[usize::from(slot.0)].disk, address));
        }
        left -= len;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal_and_rounded() {
        assert_eq!(capacity(18_000_000_000), "18GB");
        assert_eq!(capacity(3 << 30), "3GB");
        assert_eq!(capacity(2_999_975_936), "3GB");
        assert_eq!(capacity(999_999_999), "1GB");
        assert_eq!(capacity(64 << 20), "67MB");
        assert_eq!(capacity(16_000_000_000_000), "16000GB");
        assert_eq!(capacity(512), "512B");
    }

    #[test]
    fn bits_are_ones_and_zeroes() {
        assert_eq!(bits(&[true, false, true]), "101");
    }
}
