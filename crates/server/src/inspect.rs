//! What is on a disk, read offline: label, configuration slots, maps, event log, and what of it is damaged.
//!
//! Owns the look at one disk, by itself, with no lock and no write: it may be taken of a disk in use, and then shows a moment
//! that can be torn. Invariant: damage is reported, never an error; an error means that the disk could not be read at all.
//! Which of several disks to believe is the engine's matter at assembly.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use forestall_engine::format::label::{Label, LabelError, RegionKind, named_regions};
use forestall_engine::format::layout::{Layout, Region};
use forestall_engine::format::owner::Owner;
use forestall_engine::format::page::{LOST_PAGES, PAGE_BITS, PageError, PageKind};
use forestall_engine::format::{config, events, page};
use forestall_engine::words::exact;
use forestall_engine::{
    BLOCK_SIZE, Configuration, DiskNumber, DiskRole, Extent, GroupNumber, Level, Service,
    SlotEntry, SlotState, VolumeNumber,
};
use serde::Serialize;

/// What was found on one disk.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The path that was looked at.
    pub path: String,
    /// Bytes of the file or device.
    pub size: u64,
    /// The label in the first block and its copy in the last, each in words: `valid`, or what is wrong.
    pub labels: [String; 2],
    /// What the label says; absent if neither copy can be used.
    pub label: Option<LabelFacts>,
    /// Who uses or last used the disk, in words.
    pub owner: String,
    /// The two configuration slots.
    pub configurations: Vec<SlotFacts>,
    /// Where everything lies.
    pub regions: Vec<RegionFacts>,
    /// The maps of the group that this disk belongs to.
    pub maps: Vec<MapFacts>,
    /// Events kept on this disk.
    pub events: usize,
    /// What is damaged, and what that means; empty if nothing.
    pub damage: Vec<String>,
    /// It is smaller than when it was labelled.
    pub cut_short: bool,
    /// What is damaged and missed by nobody: it is overwritten in the course of time.
    pub notes: Vec<String>,
}

/// What a label says.
#[derive(Clone, Debug, Serialize)]
pub struct LabelFacts {
    /// The array's identity.
    pub array: String,
    /// The array's name when the disk was labelled.
    pub name: String,
    /// The disk's identity.
    pub disk: String,
    /// The disk's number.
    pub number: DiskNumber,
    /// Its size when it was labelled.
    pub disk_size: u64,
    /// When it was labelled, milliseconds since 1970.
    pub created_ms: u64,
}

/// One configuration slot.
#[derive(Clone, Debug, Serialize)]
pub struct SlotFacts {
    /// `valid`, or what is wrong.
    pub state: String,
    /// What it holds.
    pub configuration: Option<ConfigurationFacts>,
}

/// What a configuration says.
#[derive(Clone, Debug, Serialize)]
pub struct ConfigurationFacts {
    /// Its generation.
    pub generation: u64,
    /// When it was committed, milliseconds since 1970.
    pub committed_at_ms: u64,
    /// The array's name.
    pub name: String,
    /// Runs of the array that it knows.
    pub runs: usize,
    /// Disks.
    pub disks: Vec<ConfiguredDisk>,
    /// Groups.
    pub groups: Vec<ConfiguredGroup>,
    /// Volumes.
    pub volumes: Vec<ConfiguredVolume>,
}

/// A disk as a configuration has it.
#[derive(Clone, Debug, Serialize)]
pub struct ConfiguredDisk {
    /// Its number.
    pub number: DiskNumber,
    /// What it is for.
    pub role: DiskRole,
    /// Whether it is relied on.
    pub service: Service,
    /// Where it was last seen.
    pub path: String,
    /// Its serial number, if known.
    pub serial: String,
}

/// A group as a configuration has it.
#[derive(Clone, Debug, Serialize)]
pub struct ConfiguredGroup {
    /// Its number.
    pub number: GroupNumber,
    /// Its level.
    pub level: Level,
    /// Its chunk in bytes.
    pub chunk: u32,
    /// Its stripes.
    pub stripes: u64,
    /// It was stopped in order.
    pub clean: bool,
    /// Its members in order, each with how far it is trusted.
    pub slots: Vec<(DiskNumber, SlotState)>,
}

/// A volume as a configuration has it.
#[derive(Clone, Debug, Serialize)]
pub struct ConfiguredVolume {
    /// Its number.
    pub number: VolumeNumber,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: GroupNumber,
    /// Its size in bytes.
    pub size: u64,
    /// Where it lies.
    pub extents: Vec<Extent>,
}

/// One region.
#[derive(Clone, Debug, Serialize)]
pub struct RegionFacts {
    /// What it is for.
    pub name: String,
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// One map of a group, both places together.
#[derive(Clone, Debug, Serialize)]
pub struct MapFacts {
    /// Which map.
    pub name: &'static str,
    /// The group.
    pub group: GroupNumber,
    /// Pages that were written at least once.
    pub written: u64,
    /// Pages with one of two places damaged: as after a crash, the other place serves.
    pub torn: u64,
    /// Pages with no place left that can be used though one was written.
    pub damaged: u64,
}

/// Looks at the disk at `path`.
///
/// # Errors
/// If it cannot be opened or read.
pub fn inspect(path: &str) -> io::Result<Inspection> {
    let mut file = File::open(path)?;
    // A block device has no length in its metadata; its end has a position.
    let size = file.seek(SeekFrom::End(0))?;
    let mut found = Inspection {
        path: path.to_owned(),
        size,
        labels: [String::new(), String::new()],
        label: None,
        owner: "unknown: no label".into(),
        configurations: Vec::new(),
        regions: Vec::new(),
        maps: Vec::new(),
        events: 0,
        damage: Vec::new(),
        cut_short: false,
        notes: Vec::new(),
    };
    let Some(label) = labels(&file, &mut found)? else { return Ok(found) };
    if size < label.disk_size {
        found.cut_short = true;
        found.damage.push(format!(
            "the disk had {} when it was labelled and has {} now: it must not be used",
            exact(label.disk_size),
            exact(size)
        ));
    }
    found.regions = named_regions(&label.layout)
        .into_iter()
        .map(|(kind, place, region)| RegionFacts {
            name: region_name(kind, place),
            offset: region.offset,
            len: region.len,
        })
        .collect();
    found.owner = owner(&file, &label.layout, &mut found.notes)?;
    if let Some(newest) = configurations(&file, &label, &mut found)? {
        maps(&file, &label, &newest, &mut found)?;
    }
    event_log(&file, &label, &mut found)?;
    Ok(found)
}

/// Bytes of a region or block; what lies past the end of the disk reads as damaged.
fn read(file: &File, region: Region) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; region.len as usize];
    let mut at = 0;
    while at < bytes.len() {
        match file.read_at(&mut bytes[at..], region.offset + at as u64) {
            Ok(0) => {
                bytes.truncate(at);
                break;
            }
            Ok(read) => at += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

fn labels(file: &File, found: &mut Inspection) -> io::Result<Option<Label>> {
    let offsets = [Some(0), Layout::label_copy_offset(found.size)];
    let mut labels = [None, None];
    for ((label, words), offset) in labels.iter_mut().zip(&mut found.labels).zip(offsets) {
        let region = offset.map(|offset| Region { offset, len: BLOCK_SIZE });
        let block = region.map_or(Ok(Vec::new()), |region| read(file, region))?;
        match Label::decode(&block) {
            Ok(read) => {
                "valid".clone_into(words);
                *label = Some(read);
            }
            Err(error) => *words = error.to_string(),
        }
        if matches!(Label::decode(&block), Err(LabelError::TooNew(_))) {
            found.damage.push("the label was written by a newer version: use that one".into());
        }
    }
    let [first, last] = labels;
    match (&first, &last) {
        (Some(first), None) if first.disk_size < found.size => found.damage.push(format!(
            "the disk had {} when it was labelled and has {} now: the label's copy is not at its end; the first one serves",
            exact(first.disk_size),
            exact(found.size)
        )),
        // Told below, as what it is.
        (Some(first), None) if first.disk_size > found.size => {}
        (Some(_), None) => {
            found.damage.push("the label's copy cannot be used; the first one serves".into())
        }
        (None, Some(_)) => {
            found.damage.push("the first label cannot be used; its copy serves".into())
        }
        (Some(a), Some(b)) if a != b => {
            found.damage.push("the two labels differ; the first one serves".into())
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    let label = first.or(last);
    found.label = label.as_ref().map(|label| LabelFacts {
        array: label.array.to_string(),
        name: label.name.clone(),
        disk: label.disk.to_string(),
        number: label.number,
        disk_size: label.disk_size,
        created_ms: label.created_ms,
    });
    Ok(label)
}

fn owner(file: &File, layout: &Layout, notes: &mut Vec<String>) -> io::Result<String> {
    Ok(match Owner::decode(&read(file, layout.owner)?) {
        Ok(None) => "nobody".into(),
        Ok(Some(owner)) => format!(
            "server {:032x}, beat {}, every {} ms",
            owner.owner, owner.beat, owner.period_ms
        ),
        Err(error) => {
            notes.push(format!("{error}; the next server writes it anew"));
            error.to_string()
        }
    })
}

/// Both slots; answers the newer of the valid ones.
fn configurations(
    file: &File,
    label: &Label,
    found: &mut Inspection,
) -> io::Result<Option<Configuration>> {
    let mut newest: Option<Configuration> = None;
    let mut blank = 0;
    for (place, region) in label.layout.config.into_iter().enumerate() {
        let slot = match config::decode(&record(file, region)?) {
            Ok(configuration) => {
                let facts =
                    SlotFacts { state: "valid".into(), configuration: Some(facts(&configuration)) };
                if newest.as_ref().is_none_or(|n| n.generation < configuration.generation) {
                    newest = Some(configuration);
                }
                facts
            }
            Err(error) => {
                match error {
                    config::ConfigError::Blank => blank += 1,
                    _ => found.damage.push(format!("configuration slot {place}: {error}")),
                }
                SlotFacts { state: error.to_string(), configuration: None }
            }
        };
        found.configurations.push(slot);
    }
    if newest.is_none() {
        let why = if blank == 2 { "was never written" } else { "cannot be read in either slot" };
        found.damage.push(format!("the configuration {why}; other disks of the array may have it"));
    }
    Ok(newest)
}

/// As much of a slot as its record takes.
fn record(file: &File, slot: Region) -> io::Result<Vec<u8>> {
    let first = read(file, Region { len: slot.len.min(BLOCK_SIZE), ..slot })?;
    match config::record_len(&first, slot.len) {
        BLOCK_SIZE => Ok(first),
        len => read(file, Region { len, ..slot }),
    }
}

fn facts(configuration: &Configuration) -> ConfigurationFacts {
    ConfigurationFacts {
        generation: configuration.generation,
        committed_at_ms: configuration.committed_at_ms,
        name: configuration.name.clone(),
        runs: configuration.history.len(),
        disks: configuration
            .disks
            .iter()
            .map(|d| ConfiguredDisk {
                number: d.number,
                role: d.role,
                service: d.service,
                path: d.path_hint.clone(),
                serial: d.serial.clone(),
            })
            .collect(),
        groups: configuration
            .groups
            .iter()
            .map(|g| ConfiguredGroup {
                number: g.number,
                level: g.level,
                chunk: g.chunk,
                stripes: g.stripes,
                clean: g.clean,
                slots: g.slots.iter().map(|s| (s.disk, s.state)).collect(),
            })
            .collect(),
        volumes: configuration
            .volumes
            .iter()
            .map(|v| ConfiguredVolume {
                number: v.number,
                name: v.name.clone(),
                group: v.group,
                size: v.size,
                extents: v.extents.clone(),
            })
            .collect(),
    }
}

fn maps(
    file: &File,
    label: &Label,
    configuration: &Configuration,
    found: &mut Inspection,
) -> io::Result<()> {
    let Some((number, _)) = configuration.slot_of(label.number) else { return Ok(()) };
    let group = configuration.group(number).expect("slot_of names a group that is there");
    let layout = &label.layout;
    let relied_on = |slot: &SlotEntry| slot.disk == label.number && slot.state == SlotState::InSync;
    let is_member = group.slots.iter().any(relied_on);
    let pages = |bits: u64| bits.div_ceil(PAGE_BITS as u64);
    let regions = (group.stripes * u64::from(group.chunk)).div_ceil(group.intent_region.max(1));
    let units = group.stripes.div_ceil(u64::from(group.unwritten_unit.max(1)));
    let kinds = [
        ("intent", PageKind::Intent, layout.intent, pages(regions)),
        ("unwritten", PageKind::Unwritten, layout.unwritten, pages(units)),
        ("lost blocks", PageKind::Lost, layout.lost, LOST_PAGES as u64),
        ("cursors", PageKind::Cursor, layout.cursors, 1),
    ];
    let number = group.number;
    for (name, kind, places, used) in kinds {
        let mut map = MapFacts { name, group: number, written: 0, torn: 0, damaged: 0 };
        let bytes = [read(file, places[0])?, read(file, places[1])?];
        for index in 0..places[0].blocks() {
            let state = |place: &Vec<u8>| {
                let start = (index * BLOCK_SIZE) as usize;
                let block = place.get(start..start + BLOCK_SIZE as usize).unwrap_or_default();
                page::decode(block, kind, group.uuid, index).map(|_| ())
            };
            let states = bytes.each_ref().map(state);
            let valid = states.contains(&Ok(()));
            // Every page of a member was written in both places when it joined: what is no page there was overwritten.
            let written = is_member && index < used;
            let is_bad = |state: &Result<(), PageError>| match state {
                Ok(()) => false,
                Err(PageError::Damaged) => true,
                Err(PageError::Blank | PageError::Foreign) => written,
            };
            let torn = states.iter().any(is_bad);
            map.written += u64::from(valid);
            map.torn += u64::from(torn && valid);
            map.damaged += u64::from(torn && !valid);
        }
        if map.torn != 0 {
            found.notes.push(format!(
                "{} pages of the map of {name} are damaged in one of two places; the other one serves",
                map.torn
            ));
        }
        if map.damaged != 0 {
            found.damage.push(format!(
                "{} pages of the map of {name} cannot be read in either place",
                map.damaged
            ));
        }
        found.maps.push(map);
    }
    Ok(())
}

fn event_log(file: &File, label: &Label, found: &mut Inspection) -> io::Result<()> {
    let bytes = read(file, label.layout.events)?;
    let mut damaged = 0;
    for block in bytes.chunks(BLOCK_SIZE as usize) {
        match events::decode_page(block, label.array) {
            Ok(page) => found.events += page.events.len(),
            Err(events::EventPageError::Damaged) => damaged += 1,
            Err(events::EventPageError::Blank | events::EventPageError::Foreign) => {}
        }
    }
    if damaged != 0 {
        found.notes.push(format!(
            "{damaged} pages of the event log are damaged; other disks keep the log too"
        ));
    }
    Ok(())
}

fn region_name(kind: RegionKind, place: u32) -> String {
    let (name, two) = match kind {
        RegionKind::Label => ("label", true),
        RegionKind::Owner => ("owner", false),
        RegionKind::Config => ("configuration", true),
        RegionKind::Events => ("events", false),
        RegionKind::Intent => ("intent map", true),
        RegionKind::Unwritten => ("unwritten map", true),
        RegionKind::Lost => ("lost blocks", true),
        RegionKind::Cursors => ("cursors", true),
        RegionKind::Differential => ("differential bitmap", true),
        RegionKind::Checksums => ("checksums", false),
        RegionKind::Journal => ("journal", false),
        RegionKind::Data => ("data", false),
    };
    if two { format!("{name} {place}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests;
