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
use crate::counts::{each_error_counts_once, each_failure_counts_once, errors_of_peers_count};
use crate::doubts::{
    copy_of_a_lone_disk, flush_fails_then_crash, out_while_bits_are_swept,
    reads_while_a_flush_fails, scheduled_scrub_repairs_nothing, written_again_in_a_flush,
};
use crate::falsehoods;
use crate::health::{
    ailing_disk_is_replaced, ailing_spare_is_not_used, believed_by_many, pause_gives_way,
    slow_disk_is_sat_out, transport_burst,
};
use crate::hung::{
    hung_copied_disk_holds_up_no_host, hung_member_is_read_around, hung_member_under_writes,
    hung_only_copy_is_given_up, slow_parity_is_not_left_behind, stop_meets_a_pause,
};
use crate::journal::{
    crash_and_loss, crash_in_a_replay, crash_while_copied_directly, cut_stripe_and_bad_sectors,
    damaged_journal, stripe_of_a_dead_disk, trimmed_and_written_again, zeroed_again_and_cut,
};
use crate::maps::{
    bad_sectors_behind_configurations, crashes_in_a_row, one_place_is_damaged_everywhere,
    torn_pages_are_mended,
};
use crate::mirrors::{
    crash_while_mirroring, no_such_pair, primary_lost_a_block, secondary_follows,
    secondary_is_away, secondary_is_lost, trimmed_before_the_pair,
};
use crate::narrow::{
    bits_are_gone_before_a_crash, configuration_is_torn_twice, cursor_is_faster_than_the_spare,
    few_do_not_go_on_alone, flush_meets_a_slow_commit, list_fails_with_the_flush,
    maps_change_while_a_disk_joins, spare_loses_what_is_below_the_cursor, swept_beside_a_flush,
    unflushed_when_bits_are_swept, write_home_takes_long,
};
use crate::pairs::{
    backup_is_missing, crash_in_a_flush, crash_while_paired, no_group_for_a_pair,
    overwritten_at_home, paired_replace, secondary_loses_redundancy,
};
use crate::replays::{
    flushed_and_gone_in_place, out_before_it_was_told, parity_that_was_not_written,
};
use crate::run::Failure;
use crate::script::{Script, stage_of};
use crate::shield::{
    another_member_dies, bad_areas_are_left_for_last, cancel_while_shielded, crash_while_shielded,
    damaged_leg, leg_dies, log_fills_up, shielded_replace, spare_dies_in_copy,
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

pub use list::SCENARIOS;

mod list;

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
            s.expect(1, DiskState::Spare).await;
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
