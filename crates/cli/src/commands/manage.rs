//! `disk`, `group` and `volume`: one request each to the running server.

use std::process::ExitCode;

use anyhow::{Result, bail};
use forestall_engine::{
    DiskNumber, DiskReport, GroupNumber, GroupReport, GroupSpec, LostReport, Strategy,
    VolumeNumber, VolumeReport, VolumeSpec,
};
use forestall_server::api::types::{
    AddDisk, DiskMade, Done, GroupMade, GrowVolume, NameDisk, NameGroup, NameVolume, ReaddDisk,
    RenameVolume, SetVolume, VolumeGrown, VolumeMade,
};

use super::{Session, absolute_disk};
use crate::args::{DiskCommand, GroupCommand, RoleWord, VolumeCommand};
use crate::render::{Paint, tables};
use crate::size::exact;

pub fn disk(session: &Session, command: DiskCommand) -> Result<ExitCode> {
    let client = session.client()?;
    match command {
        DiskCommand::Add { path, role, size, force } => {
            let path = absolute_disk(&path)?;
            let word = if role == RoleWord::Spare { "a spare" } else { "a free disk" };
            let body = AddDisk { path: path.clone(), role: role.into(), size, force };
            let made: DiskMade = client.post("/v1/disks/add", &body)?;
            session.print(&made, || format!("{path} is disk {}, {word}", made.disk))
        }
        DiskCommand::Remove { disk } => {
            let done: Done =
                client.post("/v1/disks/remove", &NameDisk { disk: DiskNumber(disk) })?;
            session.print(&done, || format!("disk {disk} no longer belongs to the array"))
        }
        DiskCommand::Fail { disk } => {
            let done: Done = client.post("/v1/disks/fail", &NameDisk { disk: DiskNumber(disk) })?;
            session.print(&done, || format!("disk {disk} is no longer used"))
        }
        DiskCommand::Readd { disk, path } => {
            let path = path.map(|p| absolute_disk(&p)).transpose()?;
            let body = ReaddDisk { disk: DiskNumber(disk), path };
            let done: Done = client.post("/v1/disks/readd", &body)?;
            session.print(&done, || {
                format!("disk {disk} is back; `forestall disk list` shows what it is now, and `forestall jobs` what is copied to it")
            })
        }
        DiskCommand::List => {
            let disks: Vec<DiskReport> = client.get("/v1/disks")?;
            session.print(&disks, || tables::disks(&disks, Paint::for_stdout()).to_string())
        }
    }
}

pub fn group(session: &Session, command: GroupCommand) -> Result<ExitCode> {
    let client = session.client()?;
    match command {
        GroupCommand::Create { level, disks, chunk, journal, no_checksums } => {
            let disks = disks.into_iter().map(DiskNumber).collect();
            let spec = GroupSpec {
                level: level.into(),
                disks,
                chunk,
                journal: journal.into(),
                checksums: !no_checksums,
            };
            let made: GroupMade = client.post("/v1/groups/create", &spec)?;
            session.print(&made, || {
                let mut text: String = made.notes.iter().map(|note| format!("{note}\n")).collect();
                text += &format!("group {} is there", made.group);
                text
            })
        }
        GroupCommand::Delete { group } => {
            let done: Done =
                client.post("/v1/groups/delete", &NameGroup { group: GroupNumber(group) })?;
            session.print(&done, || format!("group {group} is gone; its disks are free"))
        }
        GroupCommand::Continue { group } => {
            let done: Done =
                client.post("/v1/groups/continue", &NameGroup { group: GroupNumber(group) })?;
            session.print(&done, || format!("group {group} goes on without the disks it lost"))
        }
        GroupCommand::List => {
            let groups: Vec<GroupReport> = client.get("/v1/groups")?;
            session.print(&groups, || tables::groups(&groups, Paint::for_stdout()).to_string())
        }
    }
}

pub fn volume(session: &Session, command: VolumeCommand) -> Result<ExitCode> {
    let client = session.client()?;
    match command {
        VolumeCommand::Create { name, group, size, number } => {
            let spec = VolumeSpec {
                name: name.clone(),
                group: GroupNumber(group),
                size: Some(size),
                number: number.map(VolumeNumber),
            };
            let made: VolumeMade = client.post("/v1/volumes/create", &spec)?;
            let rounded = rounded_words(size, made.size);
            session.print(&made, || {
                format!("volume {} is there, exported as {name}{rounded}", made.volume)
            })
        }
        VolumeCommand::Grow { volume, size } => {
            let grown: VolumeGrown =
                client.post("/v1/volumes/grow", &GrowVolume { volume: volume.clone(), size })?;
            let rounded = rounded_words(size, grown.size);
            session
                .print(&grown, || format!("volume {volume} has {} now{rounded}", exact(grown.size)))
        }
        VolumeCommand::Rename { volume, name } => {
            let body = RenameVolume { volume: volume.clone(), name: name.clone() };
            let done: Done = client.post("/v1/volumes/rename", &body)?;
            session.print(&done, || format!("volume {volume} is called {name} now"))
        }
        VolumeCommand::Set { volume, read_only, read_write, backup } => {
            let read_only = (read_only || read_write).then_some(read_only);
            let backup = backup.map(Strategy::from);
            let body = SetVolume { volume: volume.clone(), read_only, backup };
            let done: Done = client.post("/v1/volumes/set", &body)?;
            session.print(&done, || set_words(&volume, read_only, backup))
        }
        VolumeCommand::Delete { volume } => {
            let done: Done =
                client.post("/v1/volumes/delete", &NameVolume { volume: volume.clone() })?;
            session.print(&done, || format!("volume {volume} is gone"))
        }
        VolumeCommand::Lost { volume } => lost(session, volume.as_deref()),
        VolumeCommand::List => {
            let volumes: Vec<VolumeReport> = client.get("/v1/volumes")?;
            session.print(&volumes, || tables::volumes(&volumes).to_string())
        }
    }
}

fn lost(session: &Session, volume: Option<&str>) -> Result<ExitCode> {
    let client = session.client()?;
    let mut lost: Vec<LostReport> = client.get("/v1/volumes/lost")?;
    if let Some(wanted) = volume {
        let volumes: Vec<VolumeReport> = client.get("/v1/volumes")?;
        let is_it =
            |name: &str, number: VolumeNumber| name == wanted || number.to_string() == wanted;
        if !volumes.iter().any(|v| is_it(&v.name, v.number)) {
            bail!("there is no volume {wanted}; see `forestall volume list`");
        }
        lost.retain(|report| is_it(&report.name, report.volume));
    }
    session.print(&lost, || match lost.is_empty() {
        true => "no block is listed lost".into(),
        false => tables::lost(&lost).to_string(),
    })
}

fn set_words(volume: &str, read_only: Option<bool>, backup: Option<Strategy>) -> String {
    let mut words = Vec::new();
    if let Some(read_only) = read_only {
        let word = if read_only { "read only" } else { "writable" };
        words.push(format!("volume {volume} is {word} now"));
    }
    if let Some(backup) = backup {
        words.push(format!("while its group is shielded, writes of volume {volume} go: {backup}"));
    }
    words.join("\n")
}

/// What a volume got that is not what was asked for.
fn rounded_words(asked: u64, has: u64) -> String {
    if has == asked {
        return String::new();
    }
    format!(
        "; volumes are whole blocks of 4 KiB: {} were asked for, it has {}",
        exact(asked),
        exact(has)
    )
}
