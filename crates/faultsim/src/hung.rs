//! Stories of a member that stops answering: hosts hardly notice, and it is failed when the rules say so.
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: what a host waited is measured in virtual time for every request that is timed.

use std::cell::Cell;
use std::rc::Rc;

use forestall_engine::format::layout::Layout;
use forestall_engine::{
    AssembleOptions, BLOCK_SIZE, DiskNumber, DiskState, Level, Runtime, Strategy,
};

use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of, stage_sized};
use crate::shield::LEVELS;
use crate::trace::Trace;

const SECOND: u64 = 1_000_000_000;
/// The engine's time limit of a request.
const LIMIT: u64 = 30 * SECOND;
/// Longer than any story.
const FOR_EVER: u64 = 100_000 * SECOND;

/// What hosts waited at most.
#[derive(Clone, Default)]
struct Waits(Rc<Cell<u64>>);

impl Waits {
    fn note(&self, waited_ns: u64) {
        self.0.set(self.0.get().max(waited_ns));
    }
}

impl Script {
    fn hang(&self, name: &str) {
        let bay = self.bay(name);
        bay.suspect.set(true);
        bay.drive.faults_mut().stall(FOR_EVER);
        self.machine.say(format_args!("script: {name} answers no more"));
    }

    /// Reads the whole volume in pieces of `len` bytes, each timed.
    async fn timed_reads(&self, len: u64, waits: &Waits) {
        for offset in (0..self.size()).step_by(len as usize) {
            let begun = self.machine.runtime.now_ns();
            let result = self.host.read(offset, len.min(self.size() - offset)).await;
            self.host.must(result, "a read");
            waits.note(self.machine.runtime.now_ns() - begun);
        }
    }

    /// One write, and how long it took.
    async fn timed_scribble(&mut self, waits: &Waits) {
        let begun = self.machine.runtime.now_ns();
        self.scribble(1).await;
        waits.note(self.machine.runtime.now_ns() - begun);
    }

    fn within(&self, what: &str, waits: &Waits, limit: u64) {
        let waited = waits.0.get();
        self.machine.say(format_args!("script: {what} waited {} ms at most", waited / 1_000_000));
        if waited > limit {
            self.machine.complain(format!("{what} waited {} s", waited as f64 / 1e9));
        }
    }
}

/// What readers read at once: one block at a time by one of them, or many of all sizes.
fn pieces(members: usize) -> &'static [u64] {
    if members == 4 { &[4096] } else { &[4096, 20_000, 300_000] }
}

/// Host reads wait a fraction of the time limit once, then go round the member; it is not failed before the limit, and soon after.
pub(crate) fn hung_member_is_read_around(seed: u64, trace: Trace) {
    for (level, members) in
        [(Level::Raid1, 2), (Level::Raid5, 4), (Level::Raid6, 5), (Level::Raid10, 4)]
    {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.scribble(60).await;
            s.flush().await;
            // Nothing is left to be flushed or swept: reads alone meet the member.
            s.machine.pause(120 * SECOND).await;
            s.hang("d1");
            let begun = s.machine.runtime.now_ns();
            let (waits, latch) = (Waits::default(), Latch::default());
            for &len in pieces(members) {
                let (reader, waits) = (Script::new(&s.machine), waits.clone());
                latch.spawn(&s.machine.runtime, async move {
                    reader.timed_reads(len, &waits).await;
                });
            }
            latch.all().await;
            s.within("a read", &waits, LIMIT / 10);
            let all = s.machine.runtime.now_ns() - begun;
            if all > LIMIT {
                s.machine.complain(format!("all reads took {} s", all as f64 / 1e9));
            }
            if s.event("disk-failed") {
                s.machine.complain("the member was failed before the time limit".into());
            }
            // Enough reads hang, or the counts of health are written to all disks.
            while !s.event("disk-failed") {
                s.timed_reads(100_000, &waits).await;
                s.machine.pause(SECOND).await;
                if s.machine.runtime.now_ns() - begun > 4 * LIMIT {
                    s.machine.complain("the member was not failed".into());
                }
            }
            s.within("a read later", &waits, LIMIT / 10);
            s.verify().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

/// With writes about, the member is failed at the first time limit; reads that wait for those writes wait no longer.
pub(crate) fn hung_member_under_writes(seed: u64, trace: Trace) {
    for (level, members) in
        [(Level::Raid1, 2), (Level::Raid5, 4), (Level::Raid6, 5), (Level::Raid10, 4)]
    {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.scribble(60).await;
            s.hang("d1");
            let (waits, latch) = (Waits::default(), Latch::default());
            for _ in 0..3 {
                let mut writer = Script::new(&s.machine);
                latch.spawn(&s.machine.runtime, async move { writer.scribble(20).await });
                let (reader, waits) = (Script::new(&s.machine), waits.clone());
                latch.spawn(&s.machine.runtime, async move {
                    for len in [4096, 100_000] {
                        reader.timed_reads(len, &waits).await;
                    }
                });
            }
            latch.all().await;
            s.within("a read beside writes", &waits, LIMIT + LIMIT / 10);
            s.expect(1, DiskState::Failed).await;
            s.verify().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

/// The disk that is being copied answers no more. Hosts, who are served by its peers and the backup, wait for no more than a slow read of the
/// copy; the copy takes the rest from the peers before the time limit, and the disk is found out.
pub(crate) fn hung_copied_disk_holds_up_no_host(seed: u64, trace: Trace) {
    for (level, members, tolerance) in LEVELS.into_iter().filter(|(_, _, t)| *t > 0) {
        let mut stage = stage_sized(seed, trace.clone(), level, members, 2, 6 << 20);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.add_work_disk(tolerance + 1).await;
            for at in (0..s.size()).step_by(65_536) {
                s.write(at, 65_536.min(s.size() - at)).await;
            }
            s.flush().await;
            // Nothing is left to be swept: the copy alone meets the disk.
            s.machine.pause(120 * SECOND).await;
            s.replace(1, 400_000, Strategy::WorkDisk).await;
            s.copying().await;
            s.hang("d1");
            let begun = s.machine.runtime.now_ns();
            let (waits, latch) = (Waits::default(), Latch::default());
            for mut host in (0..2).map(|_| Script::new(&s.machine)) {
                let waits = waits.clone();
                latch.spawn(&s.machine.runtime, async move {
                    while host.machine.runtime.now_ns() < begun + LIMIT {
                        host.timed_scribble(&waits).await;
                        host.timed_reads(300_000, &waits).await;
                        host.machine.pause(SECOND / 4).await;
                    }
                });
            }
            latch.all().await;
            s.within("a host", &waits, LIMIT / 10);
            s.whole_and_sound().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

/// A data block is listed lost, and its parity is readable all the same. While the parity's disk does not answer another block of the
/// row is written: the parity must follow or be listed too, else it would give the lost block back as something that nobody wrote.
pub(crate) fn slow_parity_is_not_left_behind(seed: u64, trace: Trace) {
    for seconds in [1, 10, 45] {
        let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 1);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.write(0, 32 * 1024).await;
            s.flush().await;
            // The first stripe: data on d1 and d2, parity on d3. The copy of d1 finds neither its block nor the parity.
            let layout = Layout::for_size(s.bay("d1").drive.size()).expect("a labelled disk");
            let block = layout.data.offset..layout.data.offset + BLOCK_SIZE;
            s.bay("d1").drive.faults_mut().spoil(block.clone());
            s.bay("d3").drive.faults_mut().spoil(block);
            let spare = Some(DiskNumber(4));
            s.must(s.machine.array.replace(DiskNumber(1), spare, 0).await, "replace 1");
            s.expect(4, DiskState::InSync).await;
            let lost = s.machine.array.report().groups[0].lost_blocks;
            if lost != 1 {
                s.machine.complain(format!("{lost} blocks are listed lost instead of one"));
            }
            s.bay("d3").drive.faults_mut().clear();
            let until = s.machine.runtime.now_ns() + seconds * SECOND;
            s.bay("d3").drive.faults_mut().stall(until);
            s.write(16 * 1024, BLOCK_SIZE).await;
            s.machine.pause(100 * SECOND).await;
            let read = s.host.read(0, BLOCK_SIZE).await;
            if seconds * SECOND < LIMIT {
                s.host.must(read, "a read of what the parity gives");
            }
        });
    }
}

/// A member that its group cannot spare answers neither a host's write nor a configuration. It is given up in the end, and then the
/// write ends, with an error: nothing waits for it, and nobody runs in a circle.
pub(crate) fn hung_only_copy_is_given_up(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid0, 2, 3);
    stage.run(AssembleOptions::default(), None, |machine| async move {
        let mut s = Script::new(&machine);
        s.scribble(20).await;
        s.flush().await;
        s.hang("d1");
        let (writer, latch) = (Script::new(&machine), Latch::default());
        latch.spawn(&machine.runtime, async move {
            let result = writer.host.write(0, writer.size(), false).await;
            if result.is_ok() {
                writer.machine.complain("a write succeeded that a member never took".into());
            }
        });
        let changed = machine.array.set_strategy("v1", Strategy::Direct).await;
        s.must(changed, "volume set");
        latch.all().await;
        if !s.event("disk-failed") {
            machine.complain("the member was not failed".into());
        }
    });
    stage.end(false); // A group that is gone is not stopped in good order.
}

/// A stop finds out that two members and both spares are dead: more than a configuration may drop unasked.
pub(crate) fn stop_meets_a_pause(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid6, 5, 2);
    stage.run(AssembleOptions::default(), None, |machine| async move {
        let mut s = Script::new(&machine);
        s.scribble(10).await;
        machine.stopped.set(true); // Nobody looks after it.
        ["d1", "d2", "d6", "d7"].iter().for_each(|disk| s.kill(disk));
        match machine.array.stop().await {
            Err(error) if error.to_string().contains("paused") => {}
            other => machine.complain(format!("the stop ended with {other:?}")),
        }
    });
    stage.end(false);
    act(&mut stage, degraded(), |s| async move { s.verify().await });
}
