//! Stories of pairs in their primary's place in which something fails: members of either group, all of the secondary's, a command.
//!
//! Owns the scripts; the list is in `existing.rs`.

use std::rc::Rc;

use forestall_engine::{
    AccessCounts, AssembleOptions, Buf, DiskNumber, DiskRole, DiskState, IoError, Level,
    PairStatus, Strategy,
};

use super::super::events::spoil;
use super::{PHASES, Phase, REVERSED, as_safe_as};
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::shield::{LEVELS, SLOW, accesses};
use crate::stage::Stage;
use crate::trace::Trace;

pub(super) fn less_safe(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        for (phase, with_work_disk) in PHASES.into_iter().flat_map(|p| [(p, true), (p, false)]) {
            let mut stage = stage_of(seed, trace.clone(), level, members, 2);
            let (other, others) = as_safe_as(tolerance);
            stage.run(AssembleOptions::default(), None, move |machine| async move {
                let mut s = Script::new(&machine);
                s.add_secondary(other, others).await;
                if with_work_disk {
                    s.add_work_disk(tolerance + 1).await;
                }
                s.go_to(phase, Strategy::Auto).await;
                s.scribble(5).await;
                s.kill_secondary(members, 0..1);
                s.scribble(10).await;
                s.flush().await;
                s.verify().await;
                let returned = |s: &Script| !matches!(s.pair(), Some((PairStatus::BackingUp, _)));
                s.await_that("the direction's return", returned).await;
                if phase == Phase::Reversed {
                    let before = accesses(&s.machine.array.report(), members);
                    s.scribble(10).await;
                    s.flush().await;
                    let after = accesses(&s.machine.array.report(), members);
                    let writes = |of: &[AccessCounts]| of.iter().map(|a| a.writes).sum::<u64>();
                    if (writes(&before) == writes(&after)) != with_work_disk {
                        s.machine.complain("writes went where they should not".into());
                    }
                }
                // All of it is gone: what followed is no more, and the primary does not mind.
                s.kill_secondary(members, 1..others);
                s.scribble(10).await;
                s.flush().await;
                s.verify().await;
                s.await_that("the end of the pair", |s| s.pair().is_none()).await;
                if phase == Phase::Reversed {
                    s.go_on().await;
                }
                s.whole_again().await;
                s.verify().await;
            });
            stage.end(false); // A group that is gone is not stopped in good order.
            act(&mut stage, degraded(), |s| async move { s.verify().await });
        }
    }
}

pub(super) fn secondary_lost(seed: u64, trace: Trace) {
    for with_updates in [true, false] {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 2);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.have_pair(1).await;
            s.stand_reversed().await;
            if with_updates {
                s.write(64 * 1024, 64 * 1024).await;
                s.flush().await;
            }
            s.kill_secondary(3, 0..2);
            let updated = 64 * 1024..128 * 1024;
            for at in (0..s.size()).step_by(64 * 1024) {
                let read = s.host.read(at, (64 * 1024).min(s.size() - at)).await;
                if (with_updates && updated.contains(&at)) != read.is_err() {
                    s.machine.complain(format!("a read at {at} was answered with {read:?}"));
                }
            }
            if with_updates {
                return;
            }
            // Nothing was newer there: the primary goes on alone.
            s.scribble(10).await;
            s.flush().await;
            s.await_that("the end of the pair", |s| s.pair().is_none()).await;
            s.go_on().await;
            s.whole_again().await;
            s.verify().await;
            s.lose(1);
            s.verify().await;
        });
        if !with_updates {
            act(&mut stage, degraded(), |s| async move { s.verify().await });
        }
    }
}

pub(super) fn home_loses(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        for (phase, disk) in PHASES.into_iter().flat_map(|p| [(p, 1), (p, 2)]) {
            let mut stage = stage_of(seed, trace.clone(), level, members, 2);
            let (other, others) = as_safe_as(tolerance);
            act(&mut stage, AssembleOptions::default(), move |mut s| async move {
                s.add_secondary(other, others).await;
                s.go_to(phase, Strategy::Pair).await;
                s.kill(&format!("d{disk}"));
                s.scribble(10).await;
                s.flush().await;
                s.verify().await;
                if phase == Phase::Reversed {
                    s.go_on().await; // Nobody has noticed: the group is silent.
                }
                s.scribble(10).await;
                s.as_before(0).await;
            });
            act(&mut stage, degraded(), |s| async move { s.verify().await });
        }
    }
}

pub(super) fn lost_at_home(seed: u64, trace: Trace) {
    const CHUNK: u64 = 16 * 1024;
    for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 3)] {
        let mut stage = stage_of(seed, trace.clone(), level, members, 2);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.add_secondary(Level::Raid1, 2).await;
            s.write(0, s.size()).await;
            s.pair_up().await;
            s.equal().await;
            s.stand_reversed().await;
            for disk in ["d1", "d2"] {
                spoil(&s, disk, 8 * CHUNK, 4096);
            }
            s.go_on().await;
            let lost = |s: &Script| s.machine.array.report().groups[0].lost_blocks;
            s.await_that("a lost block", |s| lost(s) > 0).await;
            s.verify().await;
            s.as_before(1).await;
            if lost(&s) > 0 {
                s.machine.complain("blocks that the secondary had are listed lost".into());
            }
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

pub(super) fn stop_and_cancel(seed: u64, trace: Trace) {
    for (phase, cancel) in PHASES.into_iter().flat_map(|p| [(p, false), (p, true)]) {
        if cancel && phase == Phase::Returning {
            continue; // Too late for that.
        }
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 2);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.add_secondary(Level::Raid1, 2).await;
            s.go_to(phase, Strategy::Pair).await;
            s.scribble(5).await;
            if cancel {
                s.must(s.machine.array.cancel_replace(DiskNumber(1)).await, "cancel");
                s.scribble(10).await;
            }
        });
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.verify().await;
            s.scribble(5).await;
            if phase == Phase::Reversed && !cancel {
                s.expect_pairs(&[REVERSED]);
                s.go_on().await;
            }
            s.whole_again().await;
            let kept = s.machine.array.report().groups[0].members.contains(&DiskNumber(1));
            if kept != cancel {
                s.machine.complain("the wrong disk is in the first slot".into());
            }
            s.as_before(1).await;
        });
    }
}

/// Rule M2: the stop meets a pair that is just being reversed; nothing is written after it.
pub(super) fn stopped_as_it_reverses(seed: u64, trace: Trace) {
    for round in 0..16 {
        let mut stage = stage_of(seed * 100 + round, trace.clone(), Level::Raid5, 3, 2);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.have_pair(1).await;
            s.write(8192, 300 << 10).await;
            s.replace(1, SLOW, Strategy::Pair).await;
        });
        // The next start goes about the reversal at once.
        let wait = stage.rng.below(3_000_000);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.machine.pause(wait).await;
        });
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.whole_again().await;
            s.verify().await;
        });
    }
}

pub(super) fn refusals(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid6, 4, 2);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        let array = Rc::clone(&s.machine.array);
        let asked = || array.replace_shielded(DiskNumber(1), None, SLOW, Strategy::Pair);
        s.add_secondary(Level::Raid1, 2).await;
        s.pair_up().await;
        s.equal().await;
        s.must_refuse(asked().await, "survives 1 failure and group 1 survives 2");
        s.must(array.delete_pair("v1").await, "pair delete");
        s.must(array.delete_volume("s").await, "volume delete");
        s.add_secondary(Level::Raid6, 4).await;
        s.pair_up().await;
        s.equal().await;
        s.must(array.split_pair("v1").await, "pair split");
        s.must_refuse(asked().await, "is split");
        s.must(array.resync_pair("v1").await, "pair resync");
        s.must(array.hold_pair("v1", true).await, "pair hold");
        s.must_refuse(asked().await, "is held");
        s.must(array.hold_pair("v1", false).await, "pair release");
        s.stand_reversed().await;
        for _ in 0..2 {
            s.must_refuse(array.split_pair("v1").await, "backs group 1");
            s.must_refuse(array.resync_pair("v1").await, "backs group 1");
            s.must_refuse(array.hold_pair("v1", true).await, "backs group 1");
            s.must_refuse(array.hold_pair("v1", false).await, "backs group 1");
            s.must_refuse(array.delete_pair("v1").await, "backs group 1");
            s.must_refuse(array.delete_volume("s").await, "secondary of a pair");
            s.must_refuse(array.grow_volume("v1", 1 << 30).await, "pair");
            s.scribble(10).await;
        }
        let secondary = array.open_volume("s").expect("the volume is there");
        if secondary.write(0, Buf::zeroed(4096), false).await != Err(IoError::Stopped) {
            s.machine.complain("a host wrote to a secondary that has its primary's place".into());
        }
        s.flush().await;
    });
    let withhold = |stage: &Stage, withheld| {
        // Behind the home group, its spares and the group that was not safe enough.
        for bay in ["d9", "d10", "d11", "d12"] {
            stage.world.shelf.named(bay).expect("it is on the shelf").withheld.set(withheld);
        }
    };
    withhold(&stage, true);
    let why = stage.refused(degraded());
    if !why.contains("the secondary of volume 1 holds the newest writes of volume 1 of group 1") {
        stage.world.complain(format!("refused for another reason: {why}"));
    }
    withhold(&stage, false);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        s.verify().await;
        s.go_on().await;
        s.as_before(2).await;
    });
}

pub(super) fn secondary_ails(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 2);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        // Disks 6 to 8 with room for a volume of their own, and a spare that is large enough for them.
        let array = Rc::clone(&s.machine.array);
        let group = s.add_secondary(Level::Raid5, 3).await;
        s.add_volume("v2", group, 512 * 1024, true).await;
        let bay = s.machine.world.shelf.add(s.size() + (3 << 20), s.machine.world.seed);
        let spare = array.add_disk(bay.hand_over(&s.machine.runtime), DiskRole::Spare).await;
        s.must(spare, "disk add");
        s.add_work_disk(2).await;
        s.pair_up().await;
        s.scribble(20).await;
        s.equal().await;
        s.replace(6, SLOW, Strategy::WorkDisk).await;
        let asked = array.replace_shielded(DiskNumber(1), None, SLOW, Strategy::Pair).await;
        s.must_refuse(asked, "is shielded itself");
        let whole = |s: &Script| s.machine.array.avoidance(group).is_none();
        s.await_that("the end of the other avoidance", whole).await;
        s.expect(6, DiskState::Spare).await;
        s.stand_reversed().await;
        s.scribble(20).await;
        s.replace(7, SLOW, Strategy::WorkDisk).await;
        let v2 = s.machine.connect("v2");
        for at in 0..10 {
            v2.must(v2.write(at * 40_000, 30_000, false).await, "a write");
            s.scribble(3).await;
        }
        s.flush().await;
        s.expect_pairs(&[REVERSED]);
        s.await_that("the end of the other avoidance", whole).await;
        s.verify().await;
        s.go_on().await;
        s.scribble(5).await;
        s.as_before(1).await;
    });
    act(&mut stage, degraded(), |s| async move { s.verify().await });
}
