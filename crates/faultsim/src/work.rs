//! Work disks and work volumes of random simulations: which there are, and what of them may fail.
//!
//! Owns [`WorkSets`], the operator's commands on backup storages, and what must hold of them once everything is quiet. Invariant: a work-disk
//! set counts like a group that must keep one copy: a leg is impaired only while another leg of its set is whole and in service.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use forestall_engine::{
    ArrayReport, BackupPlace, DiskNumber, DiskReport, DiskState, GroupNumber, GroupReport, Runtime,
    Strategy, VolumeSpec,
};

use crate::machine::{Machine, PATIENCE_NS};
use crate::rng::Rng;
use crate::shelf::Bay;

/// The number of the first work-disk set; others follow.
const FIRST_SET: u32 = 60;
/// How many sets there are at most.
const SETS_MAX: u32 = 3;
/// Size of a leg in bytes: logs of some hundred slots, which fill up now and then.
const LEG_BYTES: (u64, u64) = (2 << 20, 3 << 20);

/// The legs of every work-disk set that is there, or may be.
#[derive(Clone, Default)]
pub struct WorkSets(Rc<RefCell<BTreeMap<DiskNumber, Vec<Rc<Bay>>>>>);

impl WorkSets {
    /// Whether every set keeps a leg that can be relied on without `bay`.
    #[must_use]
    pub fn may_lose(&self, report: &ArrayReport, bay: &Bay) -> bool {
        let same = |other: &Bay| other.drive.name() == bay.drive.name();
        self.0.borrow().values().all(|legs| {
            !legs.iter().any(|leg| same(leg))
                || legs.iter().any(|leg| {
                    !same(leg) && !leg.impaired() && {
                        let path = leg.drive.name();
                        let serves = |d: &DiskReport| d.state == DiskState::Work;
                        report.disks.iter().any(|d| d.identity.path == path && serves(d))
                    }
                })
        })
    }

    /// Whether a drive is a leg.
    #[must_use]
    pub fn has(&self, bay: &Bay) -> bool {
        let sets = self.0.borrow();
        sets.values().flatten().any(|leg| leg.drive.name() == bay.drive.name())
    }

    /// What a crash left open: the array's word is taken for which sets there are.
    fn settle(&self, there: &[DiskNumber]) {
        self.0.borrow_mut().retain(|set, legs| {
            let stays = there.contains(set);
            if !stays {
                legs.iter().for_each(|leg| leg.removed.set(true));
            }
            stays
        });
    }
}

/// Takes the array's word for what a crash left open.
pub fn settle_work(machine: &Machine) {
    let there: Vec<_> = machine.array.table_t6().into_iter().map(|row| row.disk).collect();
    machine.world.sets.settle(&there);
}

/// Adds a work-disk set of so many legs under the lowest free number.
pub async fn add_set(machine: &Machine, legs: usize, rng: &mut Rng) {
    let there: Vec<_> = machine.array.table_t6().into_iter().map(|row| row.disk).collect();
    let numbers = (FIRST_SET..FIRST_SET + SETS_MAX).map(DiskNumber);
    let Some(set) = numbers.into_iter().find(|n| !there.contains(n)) else { return };
    let size = rng.within(LEG_BYTES.0 / 4096..LEG_BYTES.1 / 4096) * 4096;
    let shelf = &machine.world.shelf;
    let bays: Vec<_> = (0..legs).map(|_| shelf.add(size, machine.world.seed)).collect();
    let disks = bays.iter().map(|bay| bay.hand_over(&machine.runtime)).collect();
    machine.world.sets.0.borrow_mut().insert(set, bays.clone());
    let result = machine.array.add_work_disk(set, disks, Vec::new()).await;
    machine.did("work disk add", &result);
    if result.is_err() {
        bays.iter().for_each(|bay| bay.removed.set(true));
        machine.world.sets.0.borrow_mut().remove(&set);
    }
}

/// Removes a work-disk set.
async fn remove_set(machine: &Machine, set: DiskNumber) {
    let result = machine.array.remove_work_disk(set).await;
    machine.did("work disk remove", &result);
    if result.is_ok()
        && let Some(legs) = machine.world.sets.0.borrow_mut().remove(&set)
    {
        legs.iter().for_each(|leg| leg.removed.set(true));
    }
}

/// Makes a volume of `size` bytes and keeps it for redirected writes.
pub async fn add_volume(machine: &Machine, group: GroupNumber, size: u64) {
    let taken = |name: &str| machine.array.volumes().iter().any(|v| v.name == name);
    let Some(name) = (1..9).map(|n| format!("w{n}")).find(|name| !taken(name)) else { return };
    let spec = VolumeSpec { name: name.clone(), group, size: Some(size), number: None };
    let created = machine.array.create_volume(spec).await;
    machine.did("create", &created);
    if created.is_ok() {
        let result = machine.array.add_work_volume(&name, &[]).await;
        machine.did("work volume add", &result);
    }
}

/// Names of the volumes that were made for redirected writes, and whether they still are.
fn work_volumes(machine: &Machine) -> Vec<(String, bool)> {
    let volumes = machine.array.volumes().into_iter().filter(|v| v.name.starts_with('w'));
    volumes.map(|v| (v.name, v.reserved)).collect()
}

async fn remove_volume(machine: &Machine, name: &str, reserved: bool) {
    if reserved {
        let result = machine.array.remove_work_volume(name).await;
        machine.did("work volume remove", &result);
        if result.is_err() {
            return;
        }
    }
    let result = machine.array.delete_volume(name).await;
    machine.did("delete", &result);
}

/// One command on backup storages.
pub async fn change_work(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let sets: Vec<_> = machine.array.table_t6().into_iter().map(|row| row.disk).collect();
    let volumes = work_volumes(machine);
    match rng.below(13) {
        0..3 => add_set(machine, rng.pick(&[1, 2, 2, 3]), rng).await,
        3..5 if !sets.is_empty() => remove_set(machine, rng.pick(&sets)).await,
        5..7 => {
            let group = &report.groups[rng.index(report.groups.len())];
            if group.largest_free >= 8192 {
                let size = rng.log_scaled(group.largest_free.min(1 << 20)).max(8192);
                add_volume(machine, group.number, size).await;
            }
        }
        7..9 if !volumes.is_empty() => {
            let (name, reserved) = &volumes[rng.index(volumes.len())];
            remove_volume(machine, name, *reserved).await;
        }
        9 | 10 => {
            let result = machine.array.set_shelter(rng.coin()).await;
            machine.did("policy shelter", &result);
        }
        11 => abandon(machine, &sets, &volumes, rng).await,
        _ => {
            let volumes = machine.world.oracle.borrow().volumes();
            let (name, _) = &volumes[rng.index(volumes.len())];
            let result = machine.array.set_strategy(name, strategy(rng)).await;
            machine.did("strategy", &result);
        }
    }
}

/// Gives up a storage, which is refused as long as a copy of it answers; one of each set does, so that nothing that hosts wrote may be lost by it.
async fn abandon(
    machine: &Machine,
    sets: &[DiskNumber],
    volumes: &[(String, bool)],
    rng: &mut Rng,
) {
    let of_volume = rng.coin();
    let result = if of_volume && !volumes.is_empty() {
        let (name, _) = &volumes[rng.index(volumes.len())];
        machine.array.abandon_work_volume(name).await
    } else if !sets.is_empty() {
        machine.array.abandon_work_disk(rng.pick(sets)).await
    } else {
        return;
    };
    machine.did("abandon", &result);
    if let Ok(lost @ 1..) = result {
        machine.complain(format!("{lost} blocks of a storage that answers were given up"));
    }
}

/// Any strategy.
pub fn strategy(rng: &mut Rng) -> Strategy {
    rng.pick(&[
        Strategy::Auto,
        Strategy::Auto,
        Strategy::Pair,
        Strategy::Pair,
        Strategy::WorkVolume,
        Strategy::WorkDisk,
        Strategy::WorkDisk,
        Strategy::Direct,
    ])
}

/// Pauses, resumes or cancels a copy under way, if there is one.
pub async fn steer(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let filling: Vec<_> = report
        .disks
        .iter()
        .filter(|d| d.state == DiskState::Rebuilding)
        .map(|d| d.number)
        .collect();
    let any: Vec<_> = report.disks.iter().map(|d| d.number).collect();
    let disk = rng.pick(if filling.is_empty() { &any } else { &filling });
    match rng.below(5) {
        0 | 1 => machine.did("pause", &machine.array.pause_replace(disk).await),
        2 | 3 => machine.did("resume", &machine.array.resume_replace(disk).await),
        _ => machine.did("cancel", &machine.array.cancel_replace(disk).await),
    }
}

/// Lets every avoidance come to its end.
///
/// # Panics
/// With a violation if one does not.
pub async fn settle_avoidances(machine: &Machine) {
    let deadline = machine.runtime.now_ns() + PATIENCE_NS;
    // What waits for a spare would wait for ever.
    if machine.array.report().policy.shelter {
        machine.did("policy shelter", &machine.array.set_shelter(false).await);
    }
    loop {
        let report = machine.array.report();
        let avoidance = |g: &GroupReport| machine.array.avoidance(g.number);
        let open: Vec<_> = report.groups.iter().filter_map(avoidance).collect();
        if open.is_empty() {
            return;
        }
        if machine.runtime.now_ns() > deadline {
            machine.complain(format!("an avoidance never ends: {open:?}, {:?}", report.jobs));
        }
        for disk in report.disks.iter().filter(|d| d.state == DiskState::Rebuilding) {
            // Most are not paused, which is refused.
            let _ = machine.array.resume_replace(disk.number).await;
        }
        machine.pause(100_000_000).await;
    }
}

/// Whether any group is shielded.
pub fn is_shielded(machine: &Machine) -> bool {
    let groups = machine.array.report().groups;
    groups.iter().any(|g| machine.array.avoidance(g.number).is_some())
}

/// Whether an avoidance that began meanwhile uses `place`: a disk was found ailing, or a slot that was out found a spare.
fn is_used(machine: &Machine, place: BackupPlace) -> bool {
    let groups = machine.array.report().groups;
    let avoidances = groups.iter().filter_map(|g| machine.array.avoidance(g.number));
    avoidances.flat_map(|a| a.volumes).any(|volume| volume.chain.contains(&place))
}

/// Once no group is shielded, no backup storage holds anything or is held by anything.
///
/// # Panics
/// With a violation.
pub async fn check_released(machine: &Machine) {
    let array = &machine.array;
    if is_shielded(machine) {
        return;
    }
    let t4 = array.table_t4(4);
    let t6 = array.table_t6();
    let free4 = |r: &forestall_engine::T4Row| {
        r.primary_volumes.is_empty()
            && r.terminal_address.is_none()
            && !r.differential_bitmap.contains('1')
    };
    let free6 = |r: &forestall_engine::T6Row| {
        r.status == "UNUSED" && r.main_disks.is_empty() && r.terminal_address.is_none()
    };
    let released = array.logs_in_use().is_empty();
    if !released || !t4.iter().all(free4) || !t6.iter().all(free6) {
        machine.complain(format!("backup storages are not released: {t4:?} {t6:?}"));
    }
    if !array.table_t7().is_empty() || array.table_t5().iter().any(|row| row.status.is_some()) {
        machine.complain(format!("redirected blocks are left: {:?}", array.table_t7()));
    }
    for row in t6 {
        let place = BackupPlace::WorkDisk(row.disk);
        let mut removed = array.remove_work_disk(row.disk).await;
        while removed.is_err() && is_used(machine, place) {
            settle_avoidances(machine).await;
            removed = array.remove_work_disk(row.disk).await;
        }
        if let Err(error) = removed {
            machine.complain(format!("an unused work disk cannot be removed: {error}"));
        }
        if let Some(legs) = machine.world.sets.0.borrow_mut().remove(&row.disk) {
            legs.iter().for_each(|leg| leg.removed.set(true));
        }
    }
    for (name, reserved) in work_volumes(machine) {
        let mut removed = Ok(());
        if reserved {
            let number = array.volumes().into_iter().find(|v| v.name == name).map(|v| v.number);
            let place = BackupPlace::WorkVolume(number.expect("it is listed"));
            removed = array.remove_work_volume(&name).await;
            while removed.is_err() && is_used(machine, place) {
                settle_avoidances(machine).await;
                removed = array.remove_work_volume(&name).await;
            }
        }
        if let Err(error) = removed {
            machine.complain(format!("an unused work volume cannot be removed: {error}"));
        }
    }
}
