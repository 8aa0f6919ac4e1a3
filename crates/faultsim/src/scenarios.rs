//! Scripted scenarios: short stories with names, played step by step on the shipped engine.
//!
//! Owns the stories that people ask about, md's own tests among them. Each is played under a seed, which decides the order of
//! tasks and the latencies, never the story. Every host request passes the oracle; a scenario adds what must come of it.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use forestall_engine::{AssembleOptions, DiskNumber, DiskState, GroupNumber, Level};

use crate::avoidance::all_scenarios;
use crate::away::whole_group_is_away;
use crate::catch::caught;
use crate::doubts::{
    copy_of_a_lone_disk, flush_fails_then_crash, out_while_bits_are_swept,
    reads_while_a_flush_fails, scheduled_scrub_repairs_nothing, written_again_in_a_flush,
};
use crate::falsehoods;
use crate::health::{
    ailing_disk_is_replaced, ailing_spare_is_not_used, pause_gives_way, slow_disk_is_sat_out,
    transport_burst,
};
use crate::hung::{
    hung_member_is_read_around, hung_member_under_writes, hung_only_copy_is_given_up,
    slow_parity_is_not_left_behind,
};
use crate::journal::{
    crash_and_loss, crash_in_a_replay, crash_while_copied_directly, cut_stripe_and_bad_sectors,
    trimmed_and_written_again,
};
use crate::mirrors::{
    crash_while_mirroring, no_such_pair, secondary_follows, secondary_is_away, secondary_is_lost,
};
use crate::pairs::{
    backup_is_missing, crash_in_a_flush, crash_while_paired, no_group_for_a_pair,
    overwritten_at_home, paired_replace, secondary_loses_redundancy,
};
use crate::run::Failure;
use crate::script::{Script, stage_of};
use crate::shield::{
    another_member_dies, bad_areas_are_left_for_last, cancel_while_shielded, crash_while_shielded,
    leg_dies, log_fills_up, shielded_replace, spare_dies_in_copy,
};
use crate::stage::{RunEnd, Stage};
use crate::trace::{Lines, Trace};

/// One story.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it tells.
    pub story: &'static str,
    pub(crate) script: fn(u64, Trace),
}

/// Every story.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "replace-then-fail-another",
        story: "after a replace the group is whole: any other member may fail",
        script: replace_then_fail_another,
    },
    Scenario {
        name: "crash-and-loss",
        story: "a parity group crashes under writers and comes back without as many members as it survives",
        script: crash_and_loss,
    },
    Scenario {
        name: "crash-in-a-replay",
        story: "the start that replays a journal crashes again and again, then a member is lost",
        script: crash_in_a_replay,
    },
    Scenario {
        name: "trimmed-and-written-again",
        story: "what was written after a trim is not overwritten by a record from before it",
        script: trimmed_and_written_again,
    },
    Scenario {
        name: "cut-stripe-and-bad-sectors",
        story: "a crash cuts full stripes, one member is lost, another does not read its part of them",
        script: cut_stripe_and_bad_sectors,
    },
    Scenario {
        name: "crash-while-copied-directly",
        story: "a disk is copied without a shield, the machine crashes and a member is lost",
        script: crash_while_copied_directly,
    },
    Scenario {
        name: "fail-and-readd",
        story: "a member that was out while hosts wrote returns and alone holds everything",
        script: fail_and_readd,
    },
    Scenario {
        name: "spare-dies-in-rebuild",
        story: "the spare dies while it is filled, the next one takes over",
        script: spare_dies_in_rebuild,
    },
    Scenario {
        name: "two-spares",
        story: "two members die at once, two spares take over, two others may die",
        script: two_spares,
    },
    Scenario {
        name: "stale-return",
        story: "a disk that was away while hosts wrote returns and is not believed until it is brought up to date",
        script: stale_return,
    },
    Scenario {
        name: "rolled-back",
        story: "a disk in service is put back to an image of long ago and is never believed",
        script: rolled_back,
    },
    Scenario {
        name: "dead-disk-returns-after-crash",
        story: "a disk dies, hosts flush, the machine crashes, the disk is back: old data is not served",
        script: dead_disk_returns,
    },
    Scenario {
        name: "repair-does-not-destroy",
        story: "a repairing scrub meets unreadable sectors everywhere and mends them from redundancy",
        script: repair_does_not_destroy,
    },
    Scenario {
        name: "rot-is-mended",
        story: "bits flip on as many members as the level survives; all is had and mended",
        script: falsehoods::rot_is_mended,
    },
    Scenario {
        name: "rot-without-redundancy",
        story: "what rots where nothing else gives it is an error of exactly its blocks",
        script: falsehoods::rot_without_redundancy,
    },
    Scenario {
        name: "writes-go-astray",
        story: "a disk loses writes or does them elsewhere; both places are found out and mended",
        script: falsehoods::writes_go_astray,
    },
    Scenario {
        name: "rot-is-never-copied",
        story: "a disk with rotten blocks is replaced, a peer rots in a rebuild",
        script: falsehoods::rot_is_never_copied,
    },
    Scenario {
        name: "rot-after-a-crash",
        story: "what was flushed rots while the journal or the intent bitmap still names it",
        script: falsehoods::rot_after_a_crash,
    },
    Scenario {
        name: "checksums-are-damaged",
        story: "the checksums themselves cannot be read, or rot",
        script: falsehoods::checksums_are_damaged,
    },
    Scenario {
        name: "resync-then-lose-any",
        story: "after a crash and a resync each member in turn may be lost",
        script: resync_then_lose_any,
    },
    Scenario {
        name: "ailing-disk-is-replaced",
        story: "a member errs on reads again and again: it is copied to the spare by itself, and a crash forgets no verdict",
        script: ailing_disk_is_replaced,
    },
    Scenario {
        name: "ailing-spare-is-not-used",
        story: "with no spare, only an ailing one or the policy to advise, an ailing member stays and somebody is told",
        script: ailing_spare_is_not_used,
    },
    Scenario {
        name: "pause-gives-way",
        story: "a paused copy goes on when the old member dies, and a disk whose copy was paused is filled again later",
        script: pause_gives_way,
    },
    Scenario {
        name: "transport-burst",
        story: "four disks do not answer for a moment: no spare is spent, nobody is judged",
        script: transport_burst,
    },
    Scenario {
        name: "slow-disk-is-sat-out",
        story: "a disk five times slower than its peers is not read within seconds; where all are slow nobody is accused",
        script: slow_disk_is_sat_out,
    },
    Scenario {
        name: "copy-of-a-lone-disk",
        story: "the only copy of everything is copied to a spare while hosts write, with crashes: what was read stays",
        script: copy_of_a_lone_disk,
    },
    Scenario {
        name: "reads-while-a-flush-fails",
        story: "a read is on its way while the same disk fails a flush and forgets what it took: old data is not served",
        script: reads_while_a_flush_fails,
    },
    Scenario {
        name: "scheduled-scrub-repairs-nothing",
        story: "one of two copies changes silently and the schedule scrubs: it tells, and makes neither copy like the other",
        script: scheduled_scrub_repairs_nothing,
    },
    Scenario {
        name: "shielded-replace",
        story: "while a disk is copied, hosts' writes never reach the group and their reads never the ailing disk",
        script: shielded_replace,
    },
    Scenario {
        name: "crash-while-shielded",
        story: "crashes in every state of an avoidance: nothing flushed is lost, nothing that was read changes",
        script: crash_while_shielded,
    },
    Scenario {
        name: "another-member-dies",
        story: "another member dies in the middle of the copy: what the ailing disk still reads is not lost",
        script: another_member_dies,
    },
    Scenario {
        name: "spare-dies-in-copy",
        story: "the spare dies under the shield, and the next one: the old member stays and the shield comes down",
        script: spare_dies_in_copy,
    },
    Scenario {
        name: "leg-dies",
        story: "a work disk loses legs while it holds the newest writes",
        script: leg_dies,
    },
    Scenario {
        name: "log-fills-up",
        story: "far more is written than the work disk holds: nothing is refused and its space comes back",
        script: log_fills_up,
    },
    Scenario {
        name: "cancel-while-shielded",
        story: "an avoidance is given up half-way: updates go home with the old member in its place",
        script: cancel_while_shielded,
    },
    Scenario {
        name: "bad-areas-are-left-for-last",
        story: "the ailing disk has unreadable places: what it reads well is copied first, once, the rest comes from the peers",
        script: bad_areas_are_left_for_last,
    },
    Scenario {
        name: "paired-replace",
        story: "writes go to secondaries in a free group while a disk is copied; the group takes none, and the secondaries are gone after",
        script: paired_replace,
    },
    Scenario {
        name: "crash-while-paired",
        story: "crashes at any moment of an avoidance with new pairs: a bit is durable after its data, and cleared after home (B2)",
        script: crash_while_paired,
    },
    Scenario {
        name: "crash-in-a-flush",
        story: "with new pairs, crashes around flushes: a bit that is on disk tells of data that is on disk (B2)",
        script: crash_in_a_flush,
    },
    Scenario {
        name: "overwritten-at-home",
        story: "what was written back and then overwritten never returns to its old version (B5)",
        script: overwritten_at_home,
    },
    Scenario {
        name: "secondary-loses-redundancy",
        story: "the group of the secondaries loses members: new writes go where they are as safe as home (B6)",
        script: secondary_loses_redundancy,
    },
    Scenario {
        name: "no-group-for-a-pair",
        story: "groups that are full, in use or less safe take no secondary, and asking for one is refused with the reason (B6, B8)",
        script: no_group_for_a_pair,
    },
    Scenario {
        name: "backup-is-missing",
        story: "the group that holds the newest writes is away at a start: the array does not come up without it",
        script: backup_is_missing,
    },
    Scenario {
        name: "secondary-follows",
        story: "a pair is made, held, split and made equal again under writes: the secondary is equal whenever no bit is left",
        script: secondary_follows,
    },
    Scenario {
        name: "crash-while-mirroring",
        story: "crashes at any moment of a pair's copying: what differs is marked (B2), and is equal again after",
        script: crash_while_mirroring,
    },
    Scenario {
        name: "secondary-is-lost",
        story: "the secondary's group takes no more writes, or is away at a start: the primary goes on, and the pair ends, or waits",
        script: secondary_is_lost,
    },
    Scenario {
        name: "whole-group-is-away",
        story: "each level: all disks of a group are missing at one start, or two, after a crash too, and are brought back: it has all that it had",
        script: whole_group_is_away,
    },
    Scenario {
        name: "secondary-is-away",
        story: "the secondary's group is away for a start or two: the pair waits, and all of it is copied when the group is back",
        script: secondary_is_away,
    },
    Scenario {
        name: "no-such-pair",
        story: "volumes of other sizes, of one group, with data, in a pair already: refused, nothing changed",
        script: no_such_pair,
    },
    Scenario {
        name: "hung-member-is-read-around",
        story: "a member answers no more: host reads go to its peers after a fraction of the time limit, and it is failed in the end",
        script: hung_member_is_read_around,
    },
    Scenario {
        name: "hung-member-under-writes",
        story: "a member answers no more while hosts write: it is failed at the time limit, and reads wait no longer than that",
        script: hung_member_under_writes,
    },
    Scenario {
        name: "slow-parity-is-not-left-behind",
        story: "beside a lost block a row is written whose parity does not answer: the parity follows or is listed lost",
        script: slow_parity_is_not_left_behind,
    },
    Scenario {
        name: "flush-fails-then-crash",
        story: "a mirror's flush fails last, and the power goes when the host's is answered: what it covers reads (C1, F1)",
        script: flush_fails_then_crash,
    },
    Scenario {
        name: "out-while-bits-are-swept",
        story: "a member is out for a minute under writes and comes back: all of them are copied to it (M2)",
        script: out_while_bits_are_swept,
    },
    Scenario {
        name: "written-again-in-a-flush",
        story: "trimmed space is written a little and the power goes in the flush: all else reads as zeroes (M6)",
        script: written_again_in_a_flush,
    },
    Scenario {
        name: "hung-only-copy-is-given-up",
        story: "a member that cannot be spared answers neither a write nor a configuration: both end, the write with an error",
        script: hung_only_copy_is_given_up,
    },
];

/// Plays a story under a seed; `None` if there is none of that name.
#[must_use]
pub fn play(name: &str, seed: u64, lines: Lines) -> Option<Result<(), Box<Failure>>> {
    let scenario = all_scenarios().find(|s| s.name == name)?;
    let trace = Trace::new(lines);
    Some(caught(|| (scenario.script)(seed, trace.clone())).map_err(|what| {
        Box::new(Failure {
            seed,
            arguments: format!(" --scenario {name}"),
            setting: format!("scenario {name}"),
            what,
            trace: trace.kept(),
        })
    }))
}

/// Plays `act` on a started array and stops it in good order.
pub(crate) fn act<F>(
    stage: &mut Stage,
    options: AssembleOptions,
    act: impl FnOnce(Script) -> F + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    let ended = stage.run(options, None, |machine| async move {
        act(Script::new(&machine)).await;
        machine.stop().await;
    });
    assert!(matches!(ended, RunEnd::Completed(_)), "nothing cuts this run");
    stage.end(true);
}

pub(crate) fn degraded() -> AssembleOptions {
    AssembleOptions { degraded: true, ..AssembleOptions::default() }
}

fn replace_then_fail_another(seed: u64, trace: Trace) {
    for (level, members) in
        [(Level::Raid1, 2), (Level::Raid5, 4), (Level::Raid6, 5), (Level::Raid10, 4)]
    {
        let mut stage = stage_of(seed, trace.clone(), level, members, 1);
        let spare = members as u32 + 1;
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.scribble(20).await;
            s.must(s.machine.array.replace(DiskNumber(1), None, 0).await, "replace 1");
            s.scribble(20).await;
            s.expect(1, DiskState::Replaced).await;
            s.expect(spare, DiskState::InSync).await;
            s.kill("d2");
            s.scribble(20).await;
            s.verify().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

fn fail_and_readd(seed: u64, trace: Trace) {
    for (level, members) in
        [(Level::Raid1, 2), (Level::Raid5, 3), (Level::Raid6, 4), (Level::Raid10, 4)]
    {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), |mut s| async move {
            s.scribble(20).await;
            s.must(s.machine.array.fail_disk(DiskNumber(1)).await, "fail 1");
            s.scribble(20).await;
            s.verify().await;
            s.must(s.machine.array.readd_disk(DiskNumber(1), None).await, "readd 1");
            s.scribble(20).await;
            s.expect(1, DiskState::InSync).await;
            s.kill("d2");
            s.scribble(10).await;
            s.verify().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

fn spare_dies_in_rebuild(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 2);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.scribble(40).await;
        s.kill("d1");
        s.scribble(3).await;
        // The first spare is being filled now, or will be; it must not come far.
        s.bay("d4").drive.faults_mut().fail_writes(u64::MAX);
        s.scribble(20).await;
        s.expect(5, DiskState::InSync).await;
        s.expect(4, DiskState::Failed).await;
        s.verify().await;
        s.kill("d2");
        s.verify().await;
    });
    act(&mut stage, degraded(), |s| async move { s.verify().await });
}

fn two_spares(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid6, 5, 2);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.scribble(30).await;
        s.kill("d1");
        s.kill("d3");
        s.scribble(20).await;
        s.expect(6, DiskState::InSync).await;
        s.expect(7, DiskState::InSync).await;
        s.machine.audit().await;
        s.kill("d2");
        s.kill("d6");
        s.scribble(10).await;
        s.verify().await;
    });
    act(&mut stage, degraded(), |s| async move { s.verify().await });
}

fn stale_return(seed: u64, trace: Trace) {
    for (level, members) in
        [(Level::Raid1, 3), (Level::Raid5, 3), (Level::Raid6, 5), (Level::Raid10, 4)]
    {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), |mut s| async move { s.scribble(30).await });
        let away = stage.world.shelf.all()[2].clone();
        away.withheld.set(true);
        act(&mut stage, degraded(), |mut s| async move { s.scribble(30).await });
        away.withheld.set(false);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.return_of(3, "d1").await });
    }
}

fn rolled_back(seed: u64, trace: Trace) {
    for (level, members) in
        [(Level::Raid1, 3), (Level::Raid5, 3), (Level::Raid6, 5), (Level::Raid10, 4)]
    {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), |mut s| async move { s.scribble(30).await });
        let old = stage.world.shelf.all()[2].drive.image();
        act(&mut stage, AssembleOptions::default(), |mut s| async move { s.scribble(30).await });
        stage.world.shelf.all()[2].drive.restore(old);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.return_of(3, "d1").await });
    }
}

fn dead_disk_returns(seed: u64, trace: Trace) {
    for level in [Level::Raid1, Level::Raid10] {
        let mut stage =
            stage_of(seed, trace.clone(), level, if level == Level::Raid1 { 2 } else { 4 }, 0);
        act(&mut stage, AssembleOptions::default(), |mut s| async move { s.scribble(30).await });
        stage.run(AssembleOptions::default(), None, |machine| async move {
            let mut s = Script::new(&machine);
            s.kill("d1");
            s.scribble(30).await;
            s.flush().await;
        });
        stage.end(false);
        stage.world.shelf.all()[0].drive.faults_mut().repair();
        act(&mut stage, AssembleOptions::default(), |s| async move {
            for _ in 0..5 {
                s.verify().await;
            }
            s.must(s.machine.array.readd_disk(DiskNumber(1), None).await, "readd 1");
            s.expect(1, DiskState::InSync).await;
            s.kill("d2");
            s.verify().await;
        });
    }
}

fn repair_does_not_destroy(seed: u64, trace: Trace) {
    for (level, members) in
        [(Level::Raid1, 2), (Level::Raid5, 4), (Level::Raid6, 4), (Level::Raid10, 4)]
    {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.scribble(60).await;
            s.flush().await;
            let report = s.machine.array.report();
            let data = report.disks[0].size - 4096 - report.disks[0].data_len;
            // One member at a time is unreadable in any stripe: pieces of 64 KiB take turns.
            for (i, piece) in (data..data + report.disks[0].data_len).step_by(65536).enumerate() {
                let bay = s.bay(&format!("d{}", i % members + 1));
                bay.drive.faults_mut().spoil(piece..piece + 4096 * (1 + i as u64 % 4));
            }
            s.must(s.machine.array.scrub(GroupNumber(1), true, 0).await, "repair");
            s.scribble(10).await;
            s.verify().await;
            s.machine.quiet().await;
            s.machine.audit().await;
            for disk in 1..=members as u32 {
                s.expect(disk, DiskState::InSync).await;
            }
        });
    }
}

fn resync_then_lose_any(seed: u64, trace: Trace) {
    for (level, members) in
        [(Level::Raid1, 3), (Level::Raid5, 3), (Level::Raid6, 4), (Level::Raid10, 4)]
    {
        for lost in 1..=members {
            let mut stage = stage_of(seed, trace.clone(), level, members, 0);
            let cut = stage.rng.within(200..1500);
            stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
                Script::new(&machine).scribble(1000).await;
            });
            stage.end(false);
            act(&mut stage, AssembleOptions::default(), move |s| async move {
                s.verify().await;
                s.machine.quiet().await;
                s.kill(&format!("d{lost}"));
                s.verify().await;
                s.verify().await;
            });
        }
    }
}

/// The story of the first test: a member errs on one write, the host flushes, the machine crashes at step `crash_at` (or goes
/// on a while), and starts again with the member back. Answers whether the flush was answered, and the steps taken.
///
/// # Panics
/// With a violation if anything is served that must not be.
pub fn erring_member(
    seed: u64,
    trace: Trace,
    level: Level,
    members: usize,
    crash_at: Option<u64>,
) -> (bool, u64) {
    let mut stage = stage_of(seed, trace, level, members, 0);
    let flushed = Rc::new(Cell::new(false));
    let note = Rc::clone(&flushed);
    let ended = stage.run(AssembleOptions::default(), crash_at, move |machine| async move {
        let s = Script::new(&machine);
        s.write(0, 48 * 1024).await;
        s.flush().await;
        s.bay("d2").drive.faults_mut().fail_writes(1);
        s.write(8192, 32 * 1024).await;
        s.flush().await;
        note.set(true);
        machine.pause(20_000_000).await;
    });
    let steps = match ended {
        RunEnd::Completed(steps) => steps,
        RunEnd::Cut => crash_at.unwrap_or(0),
    };
    stage.world.shelf.all()[1].drive.faults_mut().repair();
    stage.end(false);
    let mirror = matches!(level, Level::Raid1 | Level::Raid10);
    let answered = flushed.get();
    if !mirror && !answered {
        // A parity group that crashes with a member in doubt, before anything was promised: until there is a journal this is
        // the write hole, which the start names and refuses. Nothing can be asked of the content then.
        return (answered, steps);
    }
    let options = AssembleOptions { accept_write_hole: !mirror, ..AssembleOptions::default() };
    act(&mut stage, options, move |s| async move {
        s.verify().await;
        s.verify().await;
        let report = s.machine.quiet().await;
        let in_sync = report.disks.iter().filter(|d| d.state == DiskState::InSync).count();
        if in_sync == members {
            // All are believed: then each must hold what was flushed, the one that erred above all.
            s.kill("d1");
            s.verify().await;
        }
    });
    (answered, steps)
}
