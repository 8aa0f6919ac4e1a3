//! `work-volume` and `work-disk`: places kept for the writes of shielded groups.

use std::process::ExitCode;

use anyhow::Result;
use forestall_engine::{DiskNumber, DiskReport, DiskState, GroupNumber, GroupReport, VolumeReport};
use forestall_server::api::types::{
    Abandoned, AddWorkDisk, AddWorkVolume, Done, NameDisk, NameVolume,
};

use super::{Session, absolute_disk};
use crate::args::{WorkDiskCommand, WorkVolumeCommand};
use crate::client::Client;
use crate::size::counted;

pub fn work_volume(session: &Session, command: WorkVolumeCommand) -> Result<ExitCode> {
    let client = session.client()?;
    match command {
        WorkVolumeCommand::Add { volume, serves } => {
            let body = AddWorkVolume { volume: volume.clone(), serves };
            let done: Done = client.post("/v1/work-volumes/add", &body)?;
            let note = of_no_use(&client, &body)?;
            session.print(&done, || {
                format!("volume {volume} is a work volume now and is not served{note}")
            })
        }
        WorkVolumeCommand::Remove { volume } => {
            let body = NameVolume { volume: volume.clone() };
            let done: Done = client.post("/v1/work-volumes/remove", &body)?;
            session
                .print(&done, || format!("volume {volume} is an ordinary volume again, and empty"))
        }
        WorkVolumeCommand::Abandon { volume } => {
            let body = NameVolume { volume: volume.clone() };
            let done: Abandoned = client.post("/v1/work-volumes/abandon", &body)?;
            session.print(&done, || abandoned(&format!("work volume {volume}"), &done))
        }
    }
}

pub fn work_disk(session: &Session, command: WorkDiskCommand) -> Result<ExitCode> {
    let client = session.client()?;
    match command {
        WorkDiskCommand::Add { disk, legs, serves, size, force } => {
            let legs = legs.iter().map(|p| absolute_disk(p)).collect::<Result<Vec<_>>>()?;
            let count = counted(legs.len() as u64, "leg");
            let serves = serves.into_iter().map(GroupNumber).collect();
            let body = AddWorkDisk { disk: DiskNumber(disk), legs, serves, size, force };
            let spare = (body.legs.len() as u32).saturating_sub(1);
            let wanted = body.serves.clone();
            let before = legs_of(&client, body.disk)?;
            let done: Done = client.post("/v1/work-disks/add", &body)?;
            if !before.is_empty() {
                let now = legs_of(&client, body.disk)?;
                return session.print(&done, || mended(body.disk, &before, &now));
            }
            let groups: Vec<GroupReport> = client.get("/v1/groups")?;
            let mut served = groups
                .iter()
                .filter(|g| wanted.is_empty() || wanted.contains(&g.number))
                .peekable();
            let of_no_use =
                served.peek().is_some() && served.all(|group| group.failures_left > spare);
            session.print(&done, || {
                let note = if of_no_use {
                    "; no group can use it yet, each survives more failures than it: remove it, and add it anew with more legs"
                } else {
                    ""
                };
                format!("work disk {disk} is there, with {count}{note}")
            })
        }
        WorkDiskCommand::Remove { disk } => {
            let body = NameDisk { disk: DiskNumber(disk) };
            let done: Done = client.post("/v1/work-disks/remove", &body)?;
            session.print(&done, || {
                format!("work disk {disk} is gone; its legs no longer belong to the array")
            })
        }
        WorkDiskCommand::Abandon { disk } => {
            let body = NameDisk { disk: DiskNumber(disk) };
            let done: Abandoned = client.post("/v1/work-disks/abandon", &body)?;
            session.print(&done, || abandoned(&format!("work disk {disk}"), &done))
        }
    }
}

/// What to say of a work volume whose group survives fewer failures than the group of any volume that it is for.
fn of_no_use(client: &Client, work: &AddWorkVolume) -> Result<String> {
    let volumes: Vec<VolumeReport> = client.get("/v1/volumes")?;
    let groups: Vec<GroupReport> = client.get("/v1/groups")?;
    let is = |volume: &VolumeReport, name: &String| {
        volume.name == *name || volume.number.to_string() == *name
    };
    let Some(own) = volumes.iter().find(|volume| is(volume, &work.volume)) else {
        return Ok(String::new());
    };
    let survives = |number| groups.iter().find(|g| g.number == number).map(|g| g.failures_left);
    let named = |volume: &&VolumeReport| {
        work.serves.is_empty() || work.serves.iter().any(|name| is(volume, name))
    };
    let served = volumes.iter().filter(|volume| volume.group != own.group);
    let mut served = served.filter(named).map(|volume| survives(volume.group)).peekable();
    let least = survives(own.group);
    if served.peek().is_none() || !served.all(|left| left > least) {
        return Ok(String::new());
    }
    Ok(format!(
        "; no volume can use it yet, each that it is for lies in a group that survives more failures than group {} now",
        own.group
    ))
}

/// The legs of a work disk, those that it lost too.
fn legs_of(client: &Client, set: DiskNumber) -> Result<Vec<DiskReport>> {
    let disks: Vec<DiskReport> = client.get("/v1/disks")?;
    Ok(disks.into_iter().filter(|disk| disk.work_disk == Some(set)).collect())
}

/// What a work disk is that had lost legs and was given new ones.
fn mended(set: DiskNumber, before: &[DiskReport], now: &[DiskReport]) -> String {
    let is_new = |leg: &&DiskReport| !before.iter().any(|old| old.number == leg.number);
    let new: Vec<String> =
        now.iter().filter(is_new).map(|leg| format!("disk {}", leg.number)).collect();
    let lost: Vec<&DiskReport> = now.iter().filter(|leg| leg.state != DiskState::Work).collect();
    let serving = counted((now.len() - lost.len()) as u64, "leg");
    let forget: Vec<String> =
        lost.iter().map(|leg| format!("`forestall disk remove {}`", leg.number)).collect();
    let rest = match forget.is_empty() {
        true => String::new(),
        false => format!(
            "; {} takes off the list what it lost, once nothing of it is away",
            forget.join(", ")
        ),
    };
    format!("{} joined work disk {set}, which has {serving} now{rest}", new.join(", "))
}

fn abandoned(what: &str, done: &Abandoned) -> String {
    match done.lost_blocks {
        0 => format!("{what} holds nothing any more; nothing is lost"),
        lost => format!(
            "{what} holds nothing any more; {} of 4 KiB lost: they answer with an error until they are written again",
            counted(lost, "block")
        ),
    }
}
