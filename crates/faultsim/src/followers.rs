//! Pairs of random simulations: made, split, held and taken apart by the operator, and compared at the end.
//!
//! Owns the operator's commands on pairs and what must hold of them once everything is quiet: a pair without a bit left has two equal volumes,
//! whatever crashed and failed before, and no avoidance leaves a pair behind. Invariant: names of secondaries begin with `m`; no host
//! ever writes to one.

use forestall_engine::{
    ArrayReport, BLOCK_SIZE, Buf, GroupReport, PairReport, PairStatus, Runtime, VolumeSpec,
};

use crate::machine::{Machine, PATIENCE_NS};
use crate::rng::Rng;
use crate::work::{is_shielded, settle_avoidances};

/// How many secondaries there are at most.
const SECONDARIES_MAX: usize = 4;
/// Bytes compared at once.
const PIECE: u64 = 256 * 1024;

/// Names of the volumes that the operator made as secondaries, and whether they are in a pair.
fn secondaries(machine: &Machine) -> Vec<(String, bool)> {
    let pairs = machine.array.pairs();
    let volumes = machine.array.volumes().into_iter().filter(|v| v.name.starts_with('m'));
    let follows = |number| pairs.iter().any(|pair| pair.secondary == number);
    volumes.map(|v| (v.name, follows(v.number))).collect()
}

/// One command on pairs.
pub async fn change_pairs(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let pairs: Vec<_> = machine.array.pairs().into_iter().filter(|p| !p.temporary).collect();
    if pairs.is_empty() || rng.percent(25) {
        return create(machine, report, rng).await;
    }
    let pair = &pairs[rng.index(pairs.len())];
    let primary = pair.primary.to_string();
    let array = &machine.array;
    match rng.below(10) {
        0..4 if pair.status == PairStatus::Split => {
            machine.did("pair resync", &array.resync_pair(&primary).await);
        }
        0..4 => machine.did("pair split", &array.split_pair(&primary).await),
        4..8 if pair.hold => {
            machine.did("pair release", &array.hold_pair(&primary, false).await);
        }
        4..8 => machine.did("pair hold", &array.hold_pair(&primary, true).await),
        _ => machine.did("pair delete", &array.delete_pair(&primary).await),
    }
}

/// Makes a pair of a volume and a new one elsewhere; or deletes a volume that was left of an earlier one.
async fn create(machine: &Machine, report: &ArrayReport, rng: &mut Rng) {
    let there = secondaries(machine);
    if let Some((left, _)) = there.iter().find(|(_, follows)| !follows) {
        machine.did("delete", &machine.array.delete_volume(left).await);
        return;
    }
    let volumes = machine.world.oracle.borrow().volumes();
    let (primary, _) = &volumes[rng.index(volumes.len())];
    let Some(volume) = report.volumes.iter().find(|v| v.name == *primary) else { return };
    let elsewhere = |g: &&GroupReport| g.number != volume.group && g.largest_free >= volume.size;
    let groups: Vec<_> = report.groups.iter().filter(elsewhere).collect();
    if groups.is_empty() || there.len() >= SECONDARIES_MAX {
        return;
    }
    let group = groups[rng.index(groups.len())].number;
    let taken = |name: &str| machine.array.volumes().iter().any(|v| v.name == name);
    let Some(name) = (1..9).map(|n| format!("m{n}")).find(|name| !taken(name)) else { return };
    let spec = VolumeSpec { name: name.clone(), group, size: Some(volume.size), number: None };
    let created = machine.array.create_volume(spec).await;
    machine.did("create", &created);
    if created.is_err() {
        return;
    }
    let paired = machine.array.create_pair(primary, &name).await;
    machine.did("pair create", &paired);
    if paired.is_err() {
        machine.did("delete", &machine.array.delete_volume(&name).await);
    }
}

/// Lets every pair follow until nothing differs, takes it apart and compares its volumes. No host is at work any more.
///
/// # Panics
/// With a violation if volumes differ, or a pair never becomes equal.
pub async fn settle_pairs(machine: &Machine) {
    let array = &machine.array;
    for pair in array.pairs() {
        if pair.temporary && !is_shielded(machine) {
            machine.complain(format!("a pair outlived its avoidance: {pair:?}"));
        }
        if pair.temporary {
            continue; // A disk was found ailing a moment ago, and replaced by itself.
        }
        let primary = pair.primary.to_string();
        if pair.hold {
            machine.did("pair release", &array.hold_pair(&primary, false).await);
        }
        if pair.status == PairStatus::Split {
            machine.did("pair resync", &array.resync_pair(&primary).await);
        }
        if equal(machine, &pair).await {
            let mut result = array.delete_pair(&primary).await;
            while result.is_err() && is_shielded(machine) {
                // A disk was found ailing a moment ago, and the pair backs its group.
                settle_avoidances(machine).await;
                result = array.delete_pair(&primary).await;
            }
            machine.did("pair delete", &result);
            if let Err(error) = result {
                machine.complain(format!("a pair is not taken apart: {error}"));
            }
            compare(machine, &pair).await;
        }
    }
    // A pair whose secondary's group is not there waits for it, and stays.
    let waits = |name: &String| array.pairs().iter().any(|p| p.away && p.secondary_name == *name);
    for (name, _) in secondaries(machine).into_iter().filter(|(name, _)| !waits(name)) {
        let mut deleted = array.delete_volume(&name).await;
        while deleted.is_err() && is_shielded(machine) {
            settle_avoidances(machine).await;
            deleted = array.delete_volume(&name).await;
        }
        if let Err(error) = deleted {
            machine.complain(format!("a volume in no pair is not deleted: {error}"));
        }
    }
}

/// Waits until nothing differs; false if the pair ended before.
async fn equal(machine: &Machine, pair: &PairReport) -> bool {
    let deadline = machine.runtime.now_ns() + PATIENCE_NS;
    loop {
        let now = machine.array.pairs().into_iter().find(|p| p.primary == pair.primary);
        match now {
            None => return false,
            Some(now) if now.away => return false,
            Some(now) if now.status == PairStatus::Duplex && now.differing == 0 => return true,
            Some(now) if now.differing > 0 && now.differing <= lost_of(machine, &now) => {
                return true;
            }
            Some(now) if machine.runtime.now_ns() > deadline => {
                machine.complain(format!("a pair never becomes equal: {now:?}"));
            }
            Some(_) => machine.pause(20_000_000).await,
        }
    }
}

/// Bytes of the primary that are listed lost: nothing can be made equal to them.
fn lost_of(machine: &Machine, pair: &PairReport) -> u64 {
    let lost = machine.array.lost();
    lost.iter().filter(|v| v.volume == pair.primary).map(|v| v.blocks * BLOCK_SIZE).sum()
}

/// Bytes that the primary's group lists as lost.
fn lost(machine: &Machine, pair: &PairReport) -> u64 {
    let report = machine.array.report();
    let volume = machine.array.volumes().into_iter().find(|v| v.number == pair.primary);
    let group = volume.and_then(|v| report.groups.iter().find(|g| g.number == v.group));
    group.map_or(0, |group| group.lost_blocks * BLOCK_SIZE)
}

async fn compare(machine: &Machine, pair: &PairReport) {
    let volumes = machine.array.volumes();
    let named = |number| {
        let volume = volumes.iter().find(|v| v.number == number);
        volume.unwrap_or_else(|| machine.complain(format!("volume {number} is not listed")))
    };
    let (first, second) = (named(pair.primary), named(pair.secondary));
    for at in (0..first.size).step_by(PIECE as usize) {
        let len = PIECE.min(first.size - at);
        let read = async |name: &str| {
            let Some(volume) = machine.array.open_volume(name) else {
                machine.complain(format!("volume {name} is not served"));
            };
            match volume.read(at, len).await {
                Ok(bufs) => Some(Buf::joined(bufs)),
                Err(_) if name == first.name && lost(machine, pair) > 0 => None,
                Err(error) => machine.complain(format!("volume {name} at {at}: {error}")),
            }
        };
        let (Some(one), Some(other)) = (read(&first.name).await, read(&second.name).await) else {
            continue;
        };
        if let Some(byte) = (0..len as usize).find(|byte| one[*byte] != other[*byte]) {
            let byte = at + byte as u64;
            machine.complain(format!(
                "no bit is set and the volumes of {pair:?} differ at byte {byte}"
            ));
        }
    }
}
