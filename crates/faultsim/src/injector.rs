//! Faults during a run, within what each group survives.
//!
//! Owns the choice of what breaks when. Invariant: before a fault is set on a member, every group survives the loss of that
//! member together with all that is impaired already; short stalls and faults of spares are always allowed. What a fault
//! does is `faults.rs`'s matter.

use forestall_engine::{ArrayReport, Level, Runtime};

use crate::faults::Injected;
use crate::machine::Machine;
use crate::rng::Rng;
use crate::shape::has_write_hole;
use crate::shelf::{Bay, Shelf};

/// Sets up to `count` faults at random times until the run closes. Disks answer wrongly only in a run that ends in good order: what rots
/// before a flush covered it, and then meets a crash, cannot be told from a write that was cut.
pub async fn injector(machine: Machine, mut rng: Rng, count: u64, in_order: bool) {
    for _ in 0..count {
        machine.pause(rng.log_scaled(80_000_000)).await;
        if machine.closing.get() {
            return;
        }
        let bays: Vec<_> =
            machine.world.shelf.all().into_iter().filter(|b| !b.removed.get()).collect();
        let bay = &bays[rng.index(bays.len())];
        match rng.below(100) {
            0..15 => {
                stall(&machine, bay, rng.log_scaled(200_000_000));
                continue;
            }
            15..22 => {
                slow_down(&machine, bay, rng.within(2..60));
                continue;
            }
            _ => {}
        }
        let report = machine.array.report();
        let redundant = report.groups.iter().any(|g| g.level != Level::Raid0);
        if redundant && !bay.impaired() && machine.may_lose(&report, bay) {
            let member = report
                .groups
                .iter()
                .any(|g| g.members.iter().any(|&m| Some(m) == Shelf::number_of(&report, bay)))
                || machine.world.sets.has(bay);
            if in_order && checks_itself(&report, bay) && rng.percent(60) {
                falsify(&machine, bay, &mut rng);
            } else {
                strike(&machine, bay, member, &mut rng);
            }
        }
    }
}

fn stall(machine: &Machine, bay: &Bay, ns: u64) {
    machine.say(format_args!("fault: {} stalls for {} us", bay.drive.name(), ns / 1000));
    bay.drive.faults_mut().stall(machine.runtime.now_ns() + ns);
}

/// The disk does all it should, and takes its time until it is looked after between two runs.
fn slow_down(machine: &Machine, bay: &Bay, times: u64) {
    machine.say(format_args!("fault: {} takes {times} times as long", bay.drive.name()));
    bay.drive.faults_mut().slow_down(times);
    machine.world.count(Injected::Slow);
}

/// Whether what the disk gives wrong is found out, also after a crash: what is being written when a group without a journal stops is not,
/// nor what a resync has not come to.
fn checks_itself(report: &ArrayReport, bay: &Bay) -> bool {
    let number = Shelf::number_of(report, bay);
    report.groups.iter().any(|group| {
        group.members.iter().any(|&m| Some(m) == number)
            && group.checksums
            && group.dirty_regions == 0
            && !has_write_hole(group.level, group.journal)
    })
}

/// The disk answers without any error, and not with what was written.
fn falsify(machine: &Machine, bay: &Bay, rng: &mut Rng) {
    let name = bay.drive.name();
    let what = match rng.below(3) {
        0 => {
            let written = bay.drive.last_written();
            for _ in 0..rng.within(1..6) {
                let anywhere = rng.below(bay.drive.size() / 512) * 512;
                let at = match written.is_empty() || rng.coin() {
                    true => anywhere,
                    false => rng.pick(&written) + rng.below(8) * 512,
                };
                bay.drive.rot(at);
            }
            "rots"
        }
        1 => {
            bay.drive.faults_mut().lose_writes(rng.within(1..6));
            "loses the next writes"
        }
        _ => {
            bay.drive.faults_mut().misdirect_writes(rng.within(1..4));
            "writes to a wrong place"
        }
    };
    machine.say(format_args!("fault: {name} {what}"));
    machine.moment();
}

/// One fault that may cost the array the disk.
fn strike(machine: &Machine, bay: &Bay, member: bool, rng: &mut Rng) {
    let name = bay.drive.name();
    bay.suspect.set(true);
    let mut faults = bay.drive.faults_mut();
    let what = match rng.below(100) {
        0..30 => {
            // An unreadable sector alone makes no suspect: once it is rewritten, the disk is as good as before.
            bay.suspect.set(false);
            // Half of them where something was written a moment ago: journals, maps and configurations lie there, and little of a disk is theirs.
            let written = bay.drive.last_written();
            for _ in 0..rng.within(1..4) {
                let anywhere = rng.below(bay.drive.size() / 512) * 512;
                let from = match written.is_empty() || rng.coin() {
                    true => anywhere,
                    false => rng.pick(&written) + rng.below(8) * 512,
                };
                faults.spoil(from..(from + rng.log_scaled(64) * 512).min(bay.drive.size()));
            }
            "sectors become unreadable"
        }
        30..40 => {
            faults.fail_writes(rng.within(1..4));
            "the next writes fail"
        }
        40..45 => {
            faults.lose_on_the_way(rng.within(1..8));
            "the next requests do not reach it"
        }
        // On a spare it would lie hidden until the spare is a member, and then be one fault more than its group survives.
        45..55 if member => {
            let from = rng.below(bay.drive.size() / 4096) * 4096;
            faults.protect(from..(from + 65536).min(bay.drive.size()));
            "a range becomes unwritable"
        }
        45..67 => {
            faults.fail_flushes(1);
            "the next flush fails"
        }
        67..75 => {
            faults.stall(machine.runtime.now_ns() + rng.within(1..120) * 1_000_000_000);
            "stalls for long"
        }
        75..80 => {
            faults.set_full(true);
            machine.world.full.set(true);
            "is full"
        }
        _ => {
            faults.set_dead(true);
            machine.world.count(Injected::Death);
            "dies"
        }
    };
    machine.say(format_args!("fault: {name} {what}"));
    machine.moment();
}
