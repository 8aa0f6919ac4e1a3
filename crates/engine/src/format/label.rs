//! The label: what a disk is, where its regions lie and which features it was written with.
//!
//! Owns the label's bytes and their checks. Invariant: a [`Label`] was made here or read from bytes whose checksum, version, features and
//! region table were all checked; the bytes themselves are a [`RawLabel`], which gives nothing away unchecked. The label is written once, in
//! the first and in the last block of the disk; which copy to read is left to `assemble`.

use thiserror::Error;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, LE, U32, U64, Unaligned};

use super::codec::{CRC_AT, is_sealed, seal};
use super::config::name_is_valid;
use super::layout::{DATA_UNIT, DISK_SIZE_MAX, DISK_SIZE_MIN, Layout, Region};
use crate::buf::Buf;
use crate::ids::{BLOCK_SIZE, DiskNumber, Uuid};

/// First bytes of a label.
pub const MAGIC: [u8; 8] = *b"Forestal";
/// The version of the format that is written, and the newest that is understood.
pub const FORMAT_VERSION: u32 = 1;
/// Features that older software may ignore: none is known yet.
pub const FEATURES_COMPATIBLE: u64 = 0;
/// Features that older software may ignore as long as it only reads: none is known yet.
pub const FEATURES_READ_ONLY: u64 = 0;
/// Features without which a disk must not be touched: none is known yet.
pub const FEATURES_INCOMPATIBLE: u64 = 0;
/// Room for regions in the table.
pub const REGIONS_MAX: usize = 32;
/// Room for the array's name; it is filled up with zeroes.
pub const NAME_LEN: usize = 64;
/// Most disks of an array, and the highest disk number.
pub const DISKS_MAX: u32 = 1024;

/// What a region is for, as the label's table says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RegionKind {
    /// Label (place 0) and its copy (place 1).
    Label = 1,
    /// Owner's beat.
    Owner = 2,
    /// Configuration slots, places 0 and 1.
    Config = 3,
    /// Event log.
    Events = 4,
    /// Intent map, places 0 and 1.
    Intent = 5,
    /// Unwritten map, places 0 and 1.
    Unwritten = 6,
    /// Lost blocks, places 0 and 1.
    Lost = 7,
    /// Copy cursors, places 0 and 1.
    Cursors = 8,
    /// Differential bitmap, places 0 and 1.
    Differential = 9,
    /// Checksums.
    Checksums = 10,
    /// Journal.
    Journal = 11,
    /// Data space.
    Data = 12,
}

/// One entry of the label's region table, as it stands on disk.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawRegion {
    /// A [`RegionKind`].
    pub kind: U32<LE>,
    /// 0 or 1.
    pub place: U32<LE>,
    /// First byte.
    pub offset: U64<LE>,
    /// Bytes.
    pub len: U64<LE>,
}

/// A label as it stands on disk, nothing checked.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct RawLabel {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// [`FORMAT_VERSION`].
    pub version: U32<LE>,
    /// Checksum over the block.
    pub crc: U32<LE>,
    /// Features of [`FEATURES_COMPATIBLE`].
    pub compatible: U64<LE>,
    /// Features of [`FEATURES_READ_ONLY`].
    pub read_only: U64<LE>,
    /// Features of [`FEATURES_INCOMPATIBLE`].
    pub incompatible: U64<LE>,
    /// The array's identity.
    pub array: [u8; 16],
    /// The disk's identity.
    pub disk: [u8; 16],
    /// The disk's number.
    pub number: U32<LE>,
    /// Entries used of the region table.
    pub region_count: U32<LE>,
    /// Size of the disk in bytes when it was labelled.
    pub disk_size: U64<LE>,
    /// When it was labelled, milliseconds since 1970.
    pub created_ms: U64<LE>,
    /// The array's name at that time.
    pub name: [u8; NAME_LEN],
    /// The region table.
    pub regions: [RawRegion; REGIONS_MAX],
    /// Zero.
    pub reserved: [u8; 3168],
}

const _: () = assert!(size_of::<RawLabel>() == BLOCK_SIZE as usize);
const _: () = assert!(std::mem::offset_of!(RawLabel, crc) == CRC_AT);

/// A label that was made here or read and checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// The array's identity.
    pub array: Uuid,
    /// The disk's identity.
    pub disk: Uuid,
    /// The disk's number.
    pub number: DiskNumber,
    /// The array's name when the disk was labelled.
    pub name: String,
    /// Size of the disk in bytes when it was labelled; a device that is smaller now must not be used.
    pub disk_size: u64,
    /// When the disk was labelled, milliseconds since 1970.
    pub created_ms: u64,
    /// Where its regions lie.
    pub layout: Layout,
    /// Read-only-compatible features that are not known here: unless this is 0, the disk may only be read.
    pub unknown_read_only: u64,
}

/// Why a block is not a label that can be used.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum LabelError {
    /// No label of this product: blank, foreign, or damaged in its first eight bytes.
    #[error("no Forestall label")]
    NotOurs,
    /// Ours, but its checksum does not fit.
    #[error("the label is damaged")]
    Damaged,
    /// Written by newer software.
    #[error("the label was written by a newer version: {0}")]
    TooNew(String),
    /// Its checksum fits, yet it says what cannot be.
    #[error("the label contradicts itself: {0}")]
    Inconsistent(String),
    /// The disk is smaller than when it was labelled.
    #[error("it was cut short: it had {made_for} when it was labelled and has {has} now")]
    CutShort {
        /// Its size then, in words.
        made_for: String,
        /// Its size now.
        has: String,
    },
}

/// Every region of `layout` with its kind and place, in the order of the table.
#[must_use]
pub fn named_regions(layout: &Layout) -> Vec<(RegionKind, u32, Region)> {
    let mut regions = vec![(RegionKind::Label, 0, layout.label)];
    regions.push((RegionKind::Label, 1, layout.label_copy));
    regions.push((RegionKind::Owner, 0, layout.owner));
    for (kind, pair) in [
        (RegionKind::Config, layout.config),
        (RegionKind::Intent, layout.intent),
        (RegionKind::Unwritten, layout.unwritten),
        (RegionKind::Lost, layout.lost),
        (RegionKind::Cursors, layout.cursors),
        (RegionKind::Differential, layout.differential),
    ] {
        regions.extend([(kind, 0, pair[0]), (kind, 1, pair[1])]);
    }
    regions.push((RegionKind::Events, 0, layout.events));
    regions.push((RegionKind::Checksums, 0, layout.checksums));
    regions.push((RegionKind::Journal, 0, layout.journal));
    regions.push((RegionKind::Data, 0, layout.data));
    regions
}

impl Label {
    /// The block, ready to be written to the first and the last block of the disk.
    ///
    /// # Panics
    /// If the name is not valid: whoever creates an array checks it first.
    #[must_use]
    pub fn encode(&self) -> Buf {
        assert!(
            name_is_valid(&self.name),
            "an array's name is checked before its disks are labelled"
        );
        let mut raw = RawLabel::new_zeroed();
        raw.magic = MAGIC;
        raw.version.set(FORMAT_VERSION);
        raw.compatible.set(FEATURES_COMPATIBLE);
        raw.read_only.set(FEATURES_READ_ONLY);
        raw.incompatible.set(FEATURES_INCOMPATIBLE);
        raw.array = self.array.0;
        raw.disk = self.disk.0;
        raw.number.set(self.number.0);
        raw.disk_size.set(self.disk_size);
        raw.created_ms.set(self.created_ms);
        raw.name[..self.name.len()].copy_from_slice(self.name.as_bytes());
        let regions = named_regions(&self.layout);
        raw.region_count.set(regions.len() as u32);
        for (entry, (kind, place, region)) in raw.regions.iter_mut().zip(regions) {
            entry.kind.set(kind as u32);
            entry.place.set(place);
            entry.offset.set(region.offset);
            entry.len.set(region.len);
        }
        let mut buf = Buf::copy_of(raw.as_bytes());
        seal(buf.bytes_mut(), CRC_AT);
        buf
    }

    /// The label in a block.
    ///
    /// # Errors
    /// Tells a foreign block, a damaged label, one of newer software, and one that cannot be true apart.
    pub fn decode(block: &[u8]) -> Result<Self, LabelError> {
        let Ok(raw) = RawLabel::ref_from_bytes(block) else { return Err(LabelError::NotOurs) };
        raw.check()
    }
}

impl RawLabel {
    /// Checks everything that a label says of itself.
    fn check(&self) -> Result<Label, LabelError> {
        let lie = |what: String| Err(LabelError::Inconsistent(what));
        if self.magic != MAGIC {
            return Err(LabelError::NotOurs);
        }
        if !is_sealed(self.as_bytes(), CRC_AT) {
            return Err(LabelError::Damaged);
        }
        let version = self.version.get();
        if version > FORMAT_VERSION {
            return Err(LabelError::TooNew(format!("format {version}, known is {FORMAT_VERSION}")));
        }
        let unknown = self.incompatible.get() & !FEATURES_INCOMPATIBLE;
        if unknown != 0 {
            return Err(LabelError::TooNew(format!("incompatible features {unknown:#x}")));
        }
        if version == 0 {
            return lie("format 0".into());
        }
        let number = self.number.get();
        if number == 0 || number > DISKS_MAX {
            return lie(format!("disk number {number}"));
        }
        let name_len = self.name.iter().position(|&byte| byte == 0).unwrap_or(NAME_LEN);
        let (name, padding) = self.name.split_at(name_len);
        let name = match std::str::from_utf8(name) {
            Ok(name) if name_is_valid(name) && padding.iter().all(|&byte| byte == 0) => name,
            _ => return lie("the array's name is not printable".into()),
        };
        Ok(Label {
            array: Uuid(self.array),
            disk: Uuid(self.disk),
            number: DiskNumber(number),
            name: name.to_owned(),
            disk_size: self.disk_size.get(),
            created_ms: self.created_ms.get(),
            layout: self.layout().map_err(LabelError::Inconsistent)?,
            unknown_read_only: self.read_only.get() & !FEATURES_READ_ONLY,
        })
    }

    /// The region table, checked: every region aligned, inside the disk, apart from the others, of a size that can be.
    fn layout(&self) -> Result<Layout, String> {
        let disk_size = self.disk_size.get();
        if !(DISK_SIZE_MIN..=DISK_SIZE_MAX).contains(&disk_size) {
            return Err(format!("a disk of {disk_size} bytes"));
        }
        let count = self.region_count.get() as usize;
        let table = self.regions.get(..count).ok_or_else(|| format!("{count} regions"))?;
        let mut taken: Vec<Region> = Vec::with_capacity(count);
        for entry in table {
            let region = Region { offset: entry.offset.get(), len: entry.len.get() };
            let inside = region.offset.checked_add(region.len).is_some_and(|end| end <= disk_size);
            let aligned = region.offset.is_multiple_of(BLOCK_SIZE)
                && region.len.is_multiple_of(BLOCK_SIZE)
                && region.len > 0;
            if !inside || !aligned {
                return Err(format!("region {} at {region:?}", entry.kind));
            }
            taken.push(region);
        }
        taken.sort_by_key(|region| region.offset);
        if let Some(pair) = taken.windows(2).find(|pair| pair[0].end() > pair[1].offset) {
            return Err(format!("regions overlap at {}", pair[1].offset));
        }
        let layout = Layout {
            label: self.region(RegionKind::Label, 0)?,
            label_copy: self.region(RegionKind::Label, 1)?,
            owner: self.region(RegionKind::Owner, 0)?,
            config: self.pair(RegionKind::Config)?,
            events: self.region(RegionKind::Events, 0)?,
            intent: self.pair(RegionKind::Intent)?,
            unwritten: self.pair(RegionKind::Unwritten)?,
            lost: self.pair(RegionKind::Lost)?,
            cursors: self.pair(RegionKind::Cursors)?,
            differential: self.pair(RegionKind::Differential)?,
            checksums: self.region(RegionKind::Checksums, 0)?,
            journal: self.region(RegionKind::Journal, 0)?,
            data: self.region(RegionKind::Data, 0)?,
        };
        check_sizes(&layout, disk_size)?;
        Ok(layout)
    }

    /// The one region of `kind` in `place`.
    fn region(&self, kind: RegionKind, place: u32) -> Result<Region, String> {
        let count = self.region_count.get() as usize;
        let mut found = self.regions[..count]
            .iter()
            .filter(|entry| entry.kind.get() == kind as u32 && entry.place.get() == place);
        match (found.next(), found.next()) {
            (Some(entry), None) => Ok(Region { offset: entry.offset.get(), len: entry.len.get() }),
            (None, _) => Err(format!("no region {kind:?} {place}")),
            (Some(_), Some(_)) => Err(format!("two regions {kind:?} {place}")),
        }
    }

    fn pair(&self, kind: RegionKind) -> Result<[Region; 2], String> {
        let pair = [self.region(kind, 0)?, self.region(kind, 1)?];
        if pair[0].len != pair[1].len {
            return Err(format!("the two places of {kind:?} differ in size"));
        }
        Ok(pair)
    }
}

/// Sizes that the code relies on beyond what the table's checks say.
fn check_sizes(layout: &Layout, disk_size: u64) -> Result<(), String> {
    let block = |region: Region, offset: Option<u64>| {
        region.len == BLOCK_SIZE && offset.is_none_or(|offset| region.offset == offset)
    };
    if !block(layout.label, Some(0)) || !block(layout.owner, None) {
        return Err("label and owner block are one block each".into());
    }
    if !block(layout.label_copy, Layout::label_copy_offset(disk_size)) {
        return Err("the label's copy is not in the last block".into());
    }
    if !layout.data.len.is_multiple_of(DATA_UNIT) {
        return Err("the data space is not a multiple of 64 KiB".into());
    }
    let needed = Layout::for_size(disk_size).map_err(|error| error.to_string())?;
    // A region may be larger than this version makes it; smaller ones would not hold what the code puts there.
    let small = [
        (layout.config[0], needed.config[0]),
        (layout.unwritten[0], needed.unwritten[0]),
        (layout.differential[0], needed.differential[0]),
        (layout.checksums, needed.checksums),
    ];
    if small.iter().any(|(found, needed)| found.len < needed.len) {
        return Err("a region is too small for the disk".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
