//! Stories of what must not be believed: answers of a disk whose flush fails meanwhile, two copies that a crash or a disk that lies made
//! differ, a member that was out, space that was trimmed.
//!
//! Owns the scripts; [`crate::scenarios`] lists them.

use forestall_engine::format::layout::Layout;
use forestall_engine::{AssembleOptions, DiskNumber, DiskState, Level, Runtime};

use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of, stage_unchecked};
use crate::stage::RunEnd;
use crate::target::Zeroing;
use crate::trace::Trace;

/// Crashes while a RAID0 of one disk is copied to a spare: the two may hold different versions of what was not flushed
/// (rules A2, F4, M4). What a host read once is what it reads ever after, also once the spare has taken over.
pub(crate) fn copy_of_a_lone_disk(seed: u64, trace: Trace) {
    for round in 0..12 {
        let mut stage = stage_of(seed * 100 + round, trace.clone(), Level::Raid0, 1, 1);
        act(&mut stage, AssembleOptions::default(), |mut s| async move { s.scribble(30).await });
        let cut = stage.rng.within(300..3000);
        stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
            let mut s = Script::new(&machine);
            s.scribble(5).await;
            s.must(s.machine.array.replace(DiskNumber(1), None, 4 << 20).await, "replace 1");
            s.scribble(1000).await;
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.verify().await;
            s.verify().await;
            s.machine.quiet().await;
            s.verify().await;
        });
    }
}

/// Reads of one mirror's disk that were sent before its flush failed and answered after (rule F2).
pub(crate) fn reads_while_a_flush_fails(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid1, 2, 0);
    act(&mut stage, AssembleOptions::default(), |s| async move {
        for round in 0..12 {
            s.write(round * 65_536, 49_152).await;
            s.bay("d2").drive.faults_mut().fail_flushes(1);
            let latch = Latch::default();
            for task in 0..6 {
                let host = s.machine.connect("v1");
                latch.spawn(&s.machine.runtime, async move {
                    let result = match task {
                        0 => host.flush().await,
                        _ => host.read(round * 65_536, 49_152).await,
                    };
                    host.must(result, "a request while a flush fails");
                });
            }
            latch.all().await;
            s.expect(2, DiskState::Failed).await;
            s.must(s.machine.array.readd_disk(DiskNumber(2), None).await, "readd 2");
            s.expect(2, DiskState::InSync).await;
        }
    });
}

/// A disk changes a block of its copy silently, and the schedule scrubs: nothing tells which of two copies is right, so neither is
/// made like the other unasked.
pub(crate) fn scheduled_scrub_repairs_nothing(seed: u64, trace: Trace) {
    const EVERY_S: u64 = 120;
    let mut stage = stage_unchecked(seed, trace, Level::Raid1, 2, 0);
    act(&mut stage, AssembleOptions::default(), |s| async move { s.write(0, 65_536).await });
    let drives = [0, 1].map(|disk| stage.world.shelf.all()[disk].drive.clone());
    let start = Layout::for_size(drives[0].size()).expect("a labelled disk").data.offset as usize;
    let rot = |disk: usize| {
        let mut image = drives[disk].image();
        image[start + 100] ^= 0x10;
        drives[disk].restore(image);
    };
    let copy = |disk: usize| drives[disk].image()[start..start + 65_536].to_vec();
    for rotten in [0, 1] {
        rot(rotten);
        let before = [copy(0), copy(1)];
        let options = AssembleOptions { scrub_every_s: EVERY_S, ..AssembleOptions::default() };
        act(&mut stage, options, |s| async move {
            s.machine.runtime.sleep_ns((EVERY_S + 60) * 1_000_000_000).await;
            let found = s.machine.array.jobs().iter().map(|job| job.mismatches).sum::<u64>();
            if found != 1 {
                s.machine
                    .complain(format!("the scheduled scrub found {found} blocks to differ, not 1"));
            }
            let told = s.machine.array.report().problems;
            if !told.iter().any(|problem| problem.what.contains("differ")) {
                s.machine.complain(format!("nobody is told of what differs: {told:?}"));
            }
        });
        assert!([copy(0), copy(1)] == before, "a scrub that nobody asked to repair changed a copy");
        rot(rotten);
    }
    act(&mut stage, AssembleOptions::default(), |s| async move { s.verify().await });
}

/// One mirror's flush fails after the other's has ended, and the power goes the moment that the host's flush is answered: by then the
/// member is out of a configuration that counts, for what it lost was promised (rules C1, F1).
pub(crate) fn flush_fails_then_crash(seed: u64, trace: Trace) {
    for round in 0..8 {
        let mut stage = stage_of(seed * 100 + round, trace.clone(), Level::Raid1, 2, 2);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.write(0, s.size()).await });
        stage.run(AssembleOptions::default(), None, |machine| async move {
            let s = Script::new(&machine);
            for at in (0..s.size()).step_by(64 * 1024) {
                s.write(at, 8192).await;
            }
            let bay = s.bay("d1");
            bay.suspect.set(true);
            bay.drive.faults_mut().fail_flushes(1);
            bay.drive.faults_mut().slow_down(20);
            s.flush().await;
        });
        stage.world.shelf.all()[0].drive.faults_mut().clear();
        stage.end(false);
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

/// A member is out while the bits of regions would be swept, and comes back: what was written meanwhile is copied to it (rule M2).
pub(crate) fn out_while_bits_are_swept(seed: u64, trace: Trace) {
    for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 3), (Level::Raid10, 4)] {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.write(0, s.size()).await;
            s.must(s.machine.array.fail_disk(DiskNumber(1)).await, "fail 1");
            s.write(0, s.size()).await;
            s.flush().await;
            // Bits of regions at rest are swept every five seconds of virtual time, at the second look.
            s.machine.runtime.sleep_ns(60_000_000_000).await;
            s.must(s.machine.array.readd_disk(DiskNumber(1), None).await, "readd 1");
            s.expect(1, DiskState::InSync).await;
            s.kill("d2");
            s.verify().await;
        });
    }
}

/// Space that was trimmed still holds what it held, a little is written there, and the power goes in the flush: all else reads as zeroes
/// (rule M6).
pub(crate) fn written_again_in_a_flush(seed: u64, trace: Trace) {
    for round in 0..24 {
        let mut stage = stage_of(seed * 100 + round, trace.clone(), Level::Raid1, 2, 0);
        act(&mut stage, AssembleOptions::default(), |s| async move {
            s.write(0, s.size()).await;
            s.flush().await;
            let trimmed = s.host.zero(0, s.size(), Zeroing::Trim, true).await;
            s.host.must(trimmed, "a trim");
        });
        let started = stage.run(AssembleOptions::default(), None, |_| async {});
        let RunEnd::Completed(start) = started else { panic!("nothing cuts this run") };
        stage.end(false);
        let cut = start + stage.rng.within(20..300);
        stage.run(AssembleOptions::default(), Some(cut), |machine| async move {
            let s = Script::new(&machine);
            for at in (0..s.size()).step_by(64 * 1024) {
                s.write(at + 8192, 4096).await;
                s.flush().await;
            }
        });
        stage.end(false);
        act(&mut stage, AssembleOptions::default(), |s| async move { s.verify().await });
    }
}
