//! Making a new array: labelling disks and committing the first configuration.
//!
//! Owns `create`. Invariants: everything is checked before the first byte is written; labels are written last, when all else is
//! durable, so that a half-made array is never taken for one.

use std::collections::BTreeMap;

use super::assemble::open_drive;
use super::{Array, CreateGroup, CreateSpec, NewDisk, Notes, disks, groups, labels, volumes};
use crate::config::{
    BackupTable, Configuration, DiskEntry, DiskRole, Extent, GroupEntry, HealthTable, HistoryEntry,
    VolumeEntry,
};
use crate::disk::{Disk, DiskFault};
use crate::drive::TIMEOUT_NS_DEFAULT;
use crate::error::CreateError;
use crate::format::config::{self, name_is_valid};
use crate::format::label::Label;
use crate::format::layout::Layout;
use crate::group::Group;
use crate::ids::{DiskNumber, GroupNumber, Uuid, VolumeNumber};
use crate::runtime::{Env, Runtime};
use crate::words;

/// A disk to be labelled.
struct Blank<E: Env> {
    disk: NewDisk<E>,
    layout: Layout,
    entry: DiskEntry,
}

impl<E: Env> Array<E> {
    /// Labels `disks` as disks 1..n of a new array and commits its first configuration; starts nothing. The notes say aloud
    /// what was decided (the smallest usable size wins, …).
    ///
    /// # Errors
    /// If the specification cannot be met; then nothing was written. If a disk fails while being labelled.
    pub async fn create(
        rt: E::Runtime,
        spec: CreateSpec,
        disks: Vec<NewDisk<E>>,
    ) -> Result<Notes, CreateError> {
        let (blanks, config, notes) = plan::<E>(&rt, &spec, disks)?;
        let slot = blanks.iter().map(|b| b.layout.config[0].len).min().expect("there are disks");
        let encoded =
            config::encode(&config, slot).map_err(|e| CreateError::Refused(e.to_string()))?;
        for blank in &blanks {
            labels::write_regions(&blank.disk.disk, &blank.layout)
                .await
                .map_err(|f| failed(blank, f))?;
            let at = blank.layout.config[0].offset;
            blank.disk.disk.write(at, encoded.clone()).await.map_err(|f| failed(blank, f))?;
        }
        let group = config
            .groups
            .first()
            .map(|g| Group::<E>::new(rt.clone(), g, std::rc::Rc::new(|_, _, _| ())));
        let mut drives = Vec::new();
        for blank in blanks {
            let label = Label {
                array: config.array,
                disk: blank.entry.uuid,
                number: blank.entry.number,
                name: config.name.clone(),
                disk_size: blank.disk.disk.size(),
                created_ms: rt.unix_ms(),
                layout: blank.layout,
                unknown_read_only: 0,
            };
            let path = blank.disk.identity.path.clone();
            let is_member = blank.entry.role == DiskRole::Member;
            let drive =
                open_drive(&rt, blank.entry.number, blank.disk, blank.layout, TIMEOUT_NS_DEFAULT);
            if let (Some(group), true) = (&group, is_member) {
                let written = group.write_all_pages(&drive).await;
                written.map_err(|fault| CreateError::Disk { path: path.clone(), fault })?;
            }
            drives.push((label, path, drive));
        }
        for (label, path, drive) in &drives {
            drive.flush().await.map_err(|fault| CreateError::Disk { path: path.clone(), fault })?;
            labels::write_label(drive.raw(), label)
                .await
                .map_err(|fault| CreateError::Disk { path: path.clone(), fault })?;
        }
        Ok(notes)
    }
}

fn failed<E: Env>(blank: &Blank<E>, fault: DiskFault) -> CreateError {
    CreateError::Disk { path: blank.disk.identity.path.clone(), fault }
}

fn refuse<T>(why: impl Into<String>) -> Result<T, CreateError> {
    Err(CreateError::Refused(why.into()))
}

/// Checks the whole specification and makes the first configuration of it.
fn plan<E: Env>(
    rt: &E::Runtime,
    spec: &CreateSpec,
    disks: Vec<NewDisk<E>>,
) -> Result<(Vec<Blank<E>>, Configuration, Notes), CreateError> {
    if !name_is_valid(&spec.name) {
        return refuse(format!(
            "{:?} is no name for an array: 1 to 63 bytes, printable, no space at either end",
            spec.name
        ));
    }
    if disks.is_empty() {
        return refuse("an array needs at least one disk");
    }
    let spares = spec.group.as_ref().map_or(0, |g| g.spares);
    if spec.group.is_some() && spares >= disks.len() {
        return refuse(format!("{spares} of {} as spares leave none for the group", disks.len()));
    }
    let members = disks.len() - spares;
    let mut blanks = Vec::new();
    for (i, disk) in disks.into_iter().enumerate() {
        let layout = Layout::for_size(disk.disk.size())
            .map_err(|e| CreateError::Refused(format!("{}: {e}", disk.identity.path)))?;
        let role = match &spec.group {
            None => DiskRole::Free,
            Some(_) if i < members => DiskRole::Member,
            Some(_) => DiskRole::Spare,
        };
        let uuid = Uuid::from_random(rt.random_u64(), rt.random_u64());
        let entry = disks::new_entry(DiskNumber(i as u32 + 1), uuid, &layout, &disk, role);
        blanks.push(Blank { disk, layout, entry });
    }
    let (groups, volumes, notes) = match &spec.group {
        None => (Vec::new(), Vec::new(), Notes::new()),
        Some(group) => plan_group_and_volume(rt, spec, group, &blanks, members)?,
    };
    let config = Configuration {
        array: Uuid::from_random(rt.random_u64(), rt.random_u64()),
        name: spec.name.clone(),
        generation: 1,
        history: vec![HistoryEntry { id: rt.random_u64() | 1, first_generation: 1 }],
        committed_at_ms: rt.unix_ms(),
        uncounted: Vec::new(),
        counted_generation: 0,
        allow_injection: spec.allow_injection,
        disks: blanks.iter().map(|b| b.entry.clone()).collect(),
        groups,
        volumes,
        health: HealthTable::default(),
        backups: BackupTable::default(),
        retired: BTreeMap::new(),
        failed_tests: BTreeMap::new(),
    };
    Ok((blanks, config, notes))
}

type Shape = (Vec<GroupEntry>, Vec<VolumeEntry>, Notes);

fn plan_group_and_volume<E: Env>(
    rt: &E::Runtime,
    spec: &CreateSpec,
    group: &CreateGroup,
    blanks: &[Blank<E>],
    members: usize,
) -> Result<Shape, CreateError> {
    let shape: Vec<(&DiskEntry, Layout)> =
        blanks[..members].iter().map(|b| (&b.entry, b.layout)).collect();
    let uuid = Uuid::from_random(rt.random_u64(), rt.random_u64());
    let (entry, notes) = groups::plan_group(
        GroupNumber(1),
        uuid,
        group.level,
        group.chunk,
        (group.journal, group.checksums),
        &shape,
    )
    .map_err(CreateError::Refused)?;
    let needs = entry.stripes * u64::from(entry.chunk);
    if let Some(small) = blanks[members..].iter().find(|b| b.entry.data_len < needs) {
        return refuse(format!(
            "spare {} has {} usable after its regions; the group's members use {}",
            small.disk.identity.path,
            words::exact(small.entry.data_len),
            words::exact(needs)
        ));
    }
    let name = group.volume.clone().unwrap_or_else(|| spec.name.clone());
    if let Some(why) = volumes::no_name(&name, VolumeNumber(1)) {
        return refuse(why);
    }
    let volume = VolumeEntry {
        number: VolumeNumber(1),
        name,
        group: GroupNumber(1),
        size: volumes::geometry_of(&entry).capacity(),
        extents: vec![Extent { start: 0, stripes: entry.stripes }],
        read_only: false,
    };
    Ok((vec![entry], vec![volume], notes))
}
