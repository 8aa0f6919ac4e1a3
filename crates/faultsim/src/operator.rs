//! The simulated operator: commands at random, none of which would lose data.
//!
//! Owns the choice of commands and the record of what was under way at a crash. A command may be refused; what matters is
//! that no promise to a host is broken by it. Invariant: a disk is failed, replaced or removed only if its group survives
//! that together with all that is impaired already.

use std::rc::Rc;

use forestall_engine::{
    ArrayReport, DiskNumber, DiskReport, DiskRole, DiskState, GroupNumber, GroupReport, VolumeSpec,
};

use crate::client::{Budget, Habits, connection};
use crate::followers::change_pairs;
use crate::machine::{Doubt, Machine};
use crate::medium::Loss;
use crate::rng::Rng;
use crate::shape::{data_members, has_write_hole};
use crate::shelf::Shelf;
use crate::work::{change_work, steer, strategy};

/// Most drives ever on the shelf.
const DRIVES_MAX: usize = 20;
/// Most volumes that a run makes in its life.
const VOLUMES_MAX: u64 = 40;

/// Gives up to `count` commands at random times until the run closes. Without `losses` no member is failed.
pub async fn operator(machine: Machine, mut rng: Rng, count: u64, losses: bool) {
    for _ in 0..count {
        machine.pause(rng.log_scaled(60_000_000)).await;
        if machine.closing.get() {
            return;
        }
        let report = machine.array.report();
        match rng.below(100) {
            0..20 if losses => fail(&machine, &report, &mut rng).await,
            0..36 => bring_back(&machine, &report, &mut rng).await,
            36..54 => replace(&machine, &report, &mut rng).await,
            54..63 => steer(&machine, &report, &mut rng).await,
            63..69 => scrub(&machine, &report, &mut rng).await,
            69..74 => add(&machine, &report, &mut rng).await,
            74..79 => change_work(&machine, &report, &mut rng).await,
            79..88 => change_pairs(&machine, &report, &mut rng).await,
            88..94 => scratch_volume(&machine, &report, &mut rng).await,
            _ => grow(&machine, &report, &mut rng).await,
        }
    }
}

async fn fail(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let disk = rng.pick(&numbers(report));
    let Some(bay) = machine.world.shelf.of(report, disk) else { return };
    if !bay.impaired() && machine.may_lose(report, &bay) {
        bay.suspect.set(true);
        let result = machine.array.fail_disk(disk).await;
        machine.did("fail", &result);
    }
}

/// Readds a disk that is out, or takes it away and adds a new one.
async fn bring_back(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let out = |d: &&DiskReport| {
        matches!(d.state, DiskState::Failed | DiskState::Missing | DiskState::Replaced)
    };
    let candidates: Vec<_> = report.disks.iter().filter(out).collect();
    if candidates.is_empty() {
        return;
    }
    let disk = candidates[rng.index(candidates.len())];
    let Some(bay) = machine.world.shelf.named(&disk.identity.path) else { return };
    if bay.withheld.get() {
        return;
    }
    if rng.percent(25) {
        let result = machine.array.remove_disk(disk.number).await;
        machine.did("remove", &result);
        if result.is_ok() {
            bay.removed.set(true);
        }
        return;
    }
    let unplugged = bay.drive.faults().dead() || rng.coin();
    bay.drive.faults_mut().repair();
    let handle = unplugged.then(|| {
        bay.drive.power_cycle(Loss::random(rng));
        bay.hand_over(&machine.runtime)
    });
    let result = machine.array.readd_disk(disk.number, handle).await;
    machine.did("readd", &result);
}

async fn replace(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let in_sync = |d: &&DiskReport| d.state == DiskState::InSync;
    let members: Vec<_> = report.disks.iter().filter(in_sync).map(|d| d.number).collect();
    let any = members.is_empty() || rng.percent(5);
    let disk = rng.pick(&if any { numbers(report) } else { members });
    let spares: Vec<_> =
        report.disks.iter().filter(|d| d.state == DiskState::Spare).map(|d| d.number).collect();
    if spares.is_empty() && rng.percent(90) {
        add(machine, report, rng).await;
    }
    let with = (!spares.is_empty() && rng.coin()).then(|| rng.pick(&spares));
    let rate = rng.pick(&[0, 16 << 20, 4 << 20, 1 << 20]);
    let result = machine.array.replace_shielded(disk, with, rate, strategy(rng)).await;
    machine.did("replace", &result);
}

async fn scrub(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let group = &report.groups[rng.index(report.groups.len())];
    let result = machine.array.scrub(group.number, rng.coin(), rng.pick(&[0, 4 << 20])).await;
    machine.did("scrub", &result);
}

async fn add(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let drives = machine.world.shelf.all();
    if drives.len() >= DRIVES_MAX {
        return;
    }
    let size = report.disks.iter().map(|d| d.size).max().unwrap_or(0);
    let bay = machine.world.shelf.add(size + rng.below(4) * 4096, machine.world.seed);
    let role = if rng.percent(80) { DiskRole::Spare } else { DiskRole::Free };
    let result = machine.array.add_disk(bay.hand_over(&machine.runtime), role).await;
    machine.did("add", &result);
    if result.is_err() {
        bay.removed.set(true);
    }
}

/// Makes a volume, uses it and, often, deletes it.
async fn scratch_volume(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let group = &report.groups[rng.index(report.groups.len())];
    let number = machine.world.next_volume();
    if group.largest_free < 4096 || number > VOLUMES_MAX {
        return;
    }
    let size = rng.log_scaled(group.largest_free.min(512 * 1024));
    let name = format!("v{number}");
    if !create_volume(machine, &name, group.number, Some(size)).await {
        return;
    }
    let habits = habits(group, volume_size(machine, &name), rng);
    let budget = Budget::default();
    budget.set(rng.log_scaled(12));
    let strict = !machine.closing.get();
    connection(machine.connect(&name), habits, rng.clone(), budget, strict).await;
    if rng.percent(70) {
        machine.world.doubts.borrow_mut().insert(name.clone(), Doubt::Deleting);
        let result = machine.array.delete_volume(&name).await;
        machine.did("delete", &result);
        machine.world.doubts.borrow_mut().remove(&name);
        if result.is_ok() {
            machine.world.oracle.borrow_mut().delete_volume(&name);
        }
    }
}

/// Makes a volume and tells the oracle; false if it was refused.
pub async fn create_volume(
    machine: &Machine,
    name: &str,
    group: GroupNumber,
    size: Option<u64>,
) -> bool {
    machine.world.doubts.borrow_mut().insert(name.to_owned(), Doubt::Creating);
    let spec = VolumeSpec { name: name.to_owned(), group, size, number: None };
    let result = machine.array.create_volume(spec).await;
    machine.did("create", &result);
    machine.world.doubts.borrow_mut().remove(name);
    if result.is_ok() {
        machine.world.oracle.borrow_mut().create_volume(name, volume_size(machine, name));
    }
    result.is_ok()
}

async fn grow(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let volumes = machine.world.oracle.borrow().volumes();
    let (name, size) = &volumes[rng.index(volumes.len())];
    let Some(volume) = report.volumes.iter().find(|v| v.name == *name) else { return };
    let Some(group) = report.groups.iter().find(|g| g.number == volume.group) else { return };
    if group.largest_free == 0 || machine.world.doubts.borrow().contains_key(name) {
        return;
    }
    let wanted = size + rng.log_scaled(group.largest_free);
    machine.world.doubts.borrow_mut().insert(name.clone(), Doubt::Growing(wanted));
    let result = machine.array.grow_volume(name, wanted).await;
    machine.did("grow", &result);
    machine.world.doubts.borrow_mut().remove(name);
    if result.is_ok() {
        machine.world.oracle.borrow_mut().grow_volume(name, volume_size(machine, name));
    }
}

/// The size that the array says a volume has.
///
/// # Panics
/// With a violation if it has none of that name.
#[must_use]
pub fn volume_size(machine: &Machine, name: &str) -> u64 {
    match machine.array.volumes().into_iter().find(|v| v.name == name) {
        Some(volume) => volume.size,
        None => machine.complain(format!("volume {name} is not listed")),
    }
}

/// Habits that fit a volume of a group.
pub fn habits(group: &GroupReport, size: u64, rng: &mut Rng) -> Habits {
    let chunk = u64::from(group.chunk);
    Habits::random(size, chunk, chunk * data_members(group.level, group.members.len()), rng)
}

/// Settles, after a crash, whether changes of volumes that were under way happened; what is half deleted is deleted again.
pub async fn settle_doubts(machine: &Machine) {
    let doubts = std::mem::take(&mut *machine.world.doubts.borrow_mut());
    for (name, doubt) in doubts {
        let found = machine.array.volumes().into_iter().find(|v| v.name == name);
        let mut deleting = false;
        {
            let mut oracle = machine.world.oracle.borrow_mut();
            match (doubt, found) {
                (Doubt::Creating, Some(volume)) => oracle.create_volume(&name, volume.size),
                (Doubt::Creating, None) => {}
                (Doubt::Growing(_), Some(volume)) => oracle.grow_volume(&name, volume.size),
                (Doubt::Deleting, None) => oracle.delete_volume(&name),
                (Doubt::Deleting, Some(_)) => deleting = true,
                (Doubt::Growing(_), None) => {
                    drop(oracle);
                    machine.complain(format!("volume {name} vanished while it was grown"));
                }
            }
        }
        if deleting {
            machine.world.doubts.borrow_mut().insert(name.clone(), Doubt::Deleting);
            let result = machine.array.delete_volume(&name).await;
            machine.did("delete", &result);
            machine.world.doubts.borrow_mut().remove(&name);
            machine.world.oracle.borrow_mut().delete_volume(&name);
        }
    }
}

/// Whether all members of all groups with a write hole are whole, so that a crash loses nothing.
#[must_use]
pub fn crash_is_safe(shelf: &Shelf, report: &ArrayReport) -> bool {
    let open = report.groups.iter().filter(|g| has_write_hole(g.level, g.journal));
    open.clone().all(|g| shelf.impaired(report, g, None).iter().all(|&i| !i))
}

fn numbers(report: &ArrayReport) -> Vec<DiskNumber> {
    report.disks.iter().map(|d| d.number).collect()
}

/// Shares the budget of requests among connections of every volume.
pub fn connect_all(
    machine: &Machine,
    latch: &crate::machine::Latch,
    rng: &mut Rng,
    budget: &Budget,
) {
    let report = machine.array.report();
    let volumes = machine.world.oracle.borrow().volumes();
    for (name, size) in volumes {
        let Some(volume) = report.volumes.iter().find(|v| v.name == name) else { continue };
        let Some(group) = report.groups.iter().find(|g| g.number == volume.group) else { continue };
        let habits = habits(group, size, rng);
        for stream in 0..rng.within(1..5) {
            let rng = machine.rng(1000 + stream + 10 * u64::from(machine.connections.get()));
            let host = machine.connect(&name);
            latch.spawn(
                &machine.runtime,
                connection(host, habits.clone(), rng, Rc::clone(budget), true),
            );
        }
    }
}
