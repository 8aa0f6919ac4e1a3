//! Stories of disks that are expected to fail, or are wrongly suspected.
//!
//! Owns the scripts; [`crate::scenarios`] lists them. Invariant: a story waits for a condition in virtual time, with a bound after which it
//! complains.

use forestall_engine::format::layout::Layout;
use forestall_engine::health::{ErrorClass, Mode, Verdict};
use forestall_engine::{AssembleOptions, BLOCK_SIZE, DiskNumber, DiskState, Level};

use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_of};
use crate::trace::Trace;

const SECOND: u64 = 1_000_000_000;

impl Script {
    fn verdict(&self, disk: u32) -> Verdict {
        let rows = self.machine.array.table_t3();
        rows.iter().find(|row| row.disk == DiskNumber(disk)).map_or(Verdict::Out, |row| row.verdict)
    }

    pub(crate) fn event(&self, kind: &str) -> bool {
        self.machine.array.events_after(0).iter().any(|event| event.kind == kind)
    }

    /// Goes on with `work` for at most `seconds` until `done` holds.
    async fn until(
        &mut self,
        what: &str,
        seconds: u64,
        mut work: impl AsyncFnMut(&mut Self),
        done: impl Fn(&Self) -> bool,
    ) {
        for _ in 0..seconds * 4 {
            if done(self) {
                return;
            }
            work(self).await;
            self.machine.pause(SECOND / 4).await;
        }
        let table = self.machine.array.table_t3();
        self.machine.complain(format!("{what} did not come about in {seconds} s: {table:?}"));
    }

    /// Lets the data space of a drive be unreadable in many places.
    fn spoil(&self, name: &str) {
        let bay = self.bay(name);
        let size = bay.drive.size();
        for at in (size / 4..size - 65_536).step_by(32_768) {
            bay.drive.faults_mut().spoil(at..at + 512);
        }
    }

    pub(crate) fn in_state(&self, disk: u32, state: DiskState) -> bool {
        let report = self.machine.array.report();
        report.disks.iter().any(|d| d.number == DiskNumber(disk) && d.state == state)
    }

    fn reads(&self, disk: u32) -> u64 {
        let report = self.machine.array.report();
        let found = report.disks.iter().find(|d| d.number == DiskNumber(disk));
        found.map_or(0, |d| d.accesses.reads)
    }
}

pub(crate) fn ailing_disk_is_replaced(seed: u64, trace: Trace) {
    for (level, members) in
        [(Level::Raid1, 2), (Level::Raid5, 4), (Level::Raid6, 5), (Level::Raid10, 4)]
    {
        let mut stage = stage_of(seed, trace.clone(), level, members, 1);
        let spare = members as u32 + 1;
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            // Every place that is spoiled is read.
            for at in (0..s.size()).step_by(256 << 10) {
                s.write(at, (256 << 10).min(s.size() - at)).await;
            }
            s.must(s.machine.array.set_mode(Mode::Advise).await, "policy set advise");
            s.spoil("d1");
            let ailing = |s: &Script| s.verdict(1) == Verdict::Ailing;
            s.until("the verdict", 120, async |s| s.verify().await, ailing).await;
            s.machine.pause(5 * SECOND).await;
            if s.in_state(spare, DiskState::Rebuilding) || s.event("avoidance-started") {
                s.machine.complain("a replacement was started under the policy to advise".into());
            }
        });
        // The verdict outlives the restart; now something is done about it.
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.must(s.machine.array.set_mode(Mode::Auto).await, "policy set auto");
            let swapped = move |s: &Script| s.in_state(spare, DiskState::InSync);
            s.until("the swap", 120, async |s| s.scribble(3).await, swapped).await;
            if !s.event("avoidance-started") {
                s.machine.complain("nobody was told of the avoidance".into());
            }
            // It passed the test that follows.
            s.expect(1, DiskState::Spare).await;
            s.machine.audit().await;
            s.kill("d2");
            s.scribble(10).await;
            s.verify().await;
        });
        act(&mut stage, degraded(), |s| async move { s.verify().await });
    }
}

/// With a member missing a disk cannot give its checksums, and several hosts read the same at once: its blocks are believed as they are, and none of
/// the readers counts an error of it that is none.
pub(crate) fn believed_by_many(seed: u64, trace: Trace) {
    for (level, members, missing) in [(Level::Raid5, 4, 1), (Level::Raid6, 5, 2)] {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), move |s| async move {
            s.write(0, s.size()).await;
            s.flush().await;
        });
        let bays = stage.world.shelf.all();
        bays[..missing].iter().for_each(|bay| bay.withheld.set(true));
        let silent = bays[missing].drive.clone();
        let sums = Layout::for_size(silent.size()).expect("a labelled disk").checksums;
        silent.faults_mut().spoil(sums.offset..sums.end());
        act(&mut stage, degraded(), move |s| async move {
            let latch = Latch::default();
            for _ in 0..4 {
                let reader = Script::new(&s.machine);
                latch.spawn(&s.machine.runtime, async move {
                    for at in (0..reader.size().min(1 << 20)).step_by(BLOCK_SIZE as usize) {
                        reader.must(reader.host.read(at, BLOCK_SIZE).await, "a read");
                    }
                });
            }
            latch.all().await;
            let report = s.machine.array.report();
            let wrong = report.disks.iter().map(|disk| disk.errors.checksums).sum::<u64>();
            if wrong > 0 {
                s.machine.complain(format!("{wrong} blocks are said not to fit their checksum"));
            }
        });
    }
}

/// A pause ends with what was paused: when the old member dies, and when the disk being filled does.
pub(crate) fn pause_gives_way(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace.clone(), Level::Raid5, 3, 1);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.scribble(60).await;
        s.must(s.machine.array.replace(DiskNumber(1), None, 100_000).await, "replace 1");
        s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "replace pause 1");
        s.kill("d1");
        let rebuilt = |s: &Script| s.in_state(4, DiskState::InSync);
        s.until("the rebuild", 600, async |s| s.scribble(3).await, rebuilt).await;
        s.kill("d2");
        s.verify().await;
    });
    act(&mut stage, degraded(), |s| async move { s.verify().await });

    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 1);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.scribble(60).await;
        s.must(s.machine.array.replace(DiskNumber(1), None, 100_000).await, "replace 1");
        s.must(s.machine.array.pause_replace(DiskNumber(1)).await, "replace pause 1");
        s.must(s.machine.array.fail_disk(DiskNumber(4)).await, "fail 4");
        s.must(s.machine.array.readd_disk(DiskNumber(4), None).await, "readd 4");
        s.must(s.machine.array.fail_disk(DiskNumber(2)).await, "fail 2");
        let rebuilt = |s: &Script| s.in_state(4, DiskState::InSync);
        s.until("the rebuild", 120, async |s| s.scribble(3).await, rebuilt).await;
        s.verify().await;
    });
}

pub(crate) fn ailing_spare_is_not_used(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid5, 3, 1);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.scribble(60).await;
        s.must(s.machine.array.set_threshold(ErrorClass::RecoveredRead, 3).await, "health set");
        // The spare served as a member before, erred, passed a test, and says now that it is about to fail.
        s.must(s.machine.array.replace(DiskNumber(1), Some(DiskNumber(4)), 0).await, "replace 1");
        s.expect(4, DiskState::InSync).await;
        s.expect(1, DiskState::Spare).await;
        s.spoil("d4");
        let swapped = |s: &Script| s.in_state(1, DiskState::InSync);
        s.until("the swap back", 120, async |s| s.verify().await, swapped).await;
        s.expect(4, DiskState::Spare).await;
        s.machine.array.smart_failure(DiskNumber(4));
        s.spoil("d2");
        let told = |s: &Script| s.event("avoidance-refused");
        s.until("the refusal", 120, async |s| s.verify().await, told).await;
        s.expect(2, DiskState::InSync).await;
        s.must(s.machine.array.clear_health(DiskNumber(2)).await, "health clear");
        s.verify().await;
    });
}

pub(crate) fn transport_burst(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid6, 5, 1);
    act(&mut stage, AssembleOptions::default(), |mut s| async move {
        s.scribble(40).await;
        s.must(s.machine.array.set_threshold(ErrorClass::Transport, 2).await, "health set");
        for name in ["d1", "d2", "d3", "d4"] {
            s.bay(name).drive.faults_mut().lose_on_the_way(4);
        }
        let told = |s: &Script| s.event("path-problem");
        s.until("the path problem", 60, async |s| s.scribble(10).await, told).await;
        s.machine.pause(30 * SECOND).await;
        s.verify().await;
        for disk in 1..=5 {
            s.expect(disk, DiskState::InSync).await;
            if s.verdict(disk) != Verdict::Healthy {
                s.machine.complain(format!("disk {disk} was judged: {:?}", s.verdict(disk)));
            }
        }
        s.expect(6, DiskState::Spare).await;
        // One disk alone is another matter.
        for _ in 0..3 {
            s.bay("d2").drive.faults_mut().lose_on_the_way(1);
            s.scribble(20).await;
            s.verify().await;
        }
        let swapped = |s: &Script| s.in_state(6, DiskState::InSync);
        s.until("the avoidance", 120, async |s| s.scribble(1).await, swapped).await;
    });
}

pub(crate) fn slow_disk_is_sat_out(seed: u64, trace: Trace) {
    for (level, members) in [(Level::Raid1, 3), (Level::Raid5, 4), (Level::Raid10, 4)] {
        let mut stage = stage_of(seed, trace.clone(), level, members, 0);
        act(&mut stage, AssembleOptions::default(), move |mut s| async move {
            s.scribble(40).await;
            s.bay("d1").drive.faults_mut().slow_down(5);
            let sat_out = |s: &Script| s.verdict(1) == Verdict::SatOut;
            s.until("the sitting out", 30, async |s| s.verify().await, sat_out).await;
            let before = s.reads(1);
            s.verify().await;
            if s.reads(1) != before {
                s.machine.complain("a host read reached a disk that was sat out".into());
            }
            // Its peers slow down too: the next looks find nobody.
            for other in 2..=members {
                s.bay(&format!("d{other}")).drive.faults_mut().slow_down(5);
            }
            let back = |s: &Script| s.verdict(1) == Verdict::Healthy;
            s.until("the end of the sitting", 60, async |s| s.verify().await, back).await;
            for _ in 0..80 {
                s.verify().await;
                s.machine.pause(SECOND / 4).await;
                if (1..=members as u32).any(|disk| s.verdict(disk) != Verdict::Healthy) {
                    s.machine.complain("load that slows all disks accused one".into());
                }
            }
        });
    }
}
