//! Stories of a group's maps and crashes: of a long list of lost blocks (rule M5), of crashes in a row (rules C1, M1), and of bad
//! sectors in the slots of configurations.
//!
//! Bug of the list: the list stands on two pages, in order. An entry that is made or cleared draws others from one page to the other; if the
//! page that gives is written before the page that receives, a crash between the two leaves them on neither, and what a disk
//! made of those blocks is served as data. Guarantee: once FLUSH was answered, an entry that is still due is found after a crash
//! at any step. Owns the stories alone; where the first crashes is the caller's choice.

use forestall_engine::format::layout::Layout;
use forestall_engine::{
    AssembleOptions, BLOCK_SIZE, Buf, DiskNumber, DiskState, GroupNumber, IoError, JournalMode,
    Level,
};

use crate::machine::Latch;
use crate::scenarios::{act, degraded};
use crate::script::{Script, stage_journaled, stage_of, stage_sized};
use crate::shield::write_until_crash;
use crate::stage::RunEnd;
use crate::trace::Trace;

/// Size of the disk.
const DISK: u64 = 4 << 20;
/// Entries to begin with: more than a page holds.
const ENTRIES: u64 = 300;
/// Block of the first entry; every other block is one.
const FIRST: u64 = 40;
/// Entries that a merge makes one of.
const MERGED: std::ops::Range<u64> = 50..150;
/// Entries that are written again.
const CLEARED: std::ops::Range<u64> = 160..180;
/// Blocks before all entries that are lost one by one.
const NEW: u64 = 12;

/// What happens to the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// Nothing: the story ends where the others begin.
    None,
    /// Many entries become one: later ones move to the first page.
    Merge,
    /// Blocks are written again: the same.
    Clear,
    /// Blocks before the others are lost: entries move to the second page.
    Grow,
    /// Blocks are lost while others are cleared.
    Both,
}

fn block_of(entry: u64) -> u64 {
    FIRST + 2 * entry
}

impl Script {
    async fn put(&self, block: u64, blocks: u64) -> Result<(), IoError> {
        let data = Buf::copy_of(&vec![0x5a; (blocks * BLOCK_SIZE) as usize]);
        self.host.target.write(block * BLOCK_SIZE, data, false).await
    }

    /// Writes made before are lost by a flush that fails, and listed by one that succeeds.
    async fn lose_unflushed(&self) {
        self.bay("d1").drive.faults_mut().fail_flushes(1);
        if self.host.target.flush().await.is_ok() {
            self.machine.complain("a flush that failed was answered as done".into());
        }
        self.must(self.host.target.flush().await, "the flush after");
    }

    async fn merge(&self) {
        let blocks = block_of(MERGED.end) - block_of(MERGED.start);
        self.must(self.put(block_of(MERGED.start), blocks).await, "a write");
        self.lose_unflushed().await;
    }

    async fn clear(&self) {
        for entry in CLEARED {
            self.must(self.put(block_of(entry), 1).await, "a write");
        }
        self.must(self.host.target.flush().await, "a flush");
    }

    /// Blocks that the disk does not take are lost at once.
    async fn grow(&self) {
        for at in 0..NEW {
            let block = 2 * (NEW - at);
            let place = Self::data_offset() + block * BLOCK_SIZE;
            self.bay("d1").drive.faults_mut().protect(place..place + BLOCK_SIZE);
            if self.put(block, 1).await.is_ok() {
                self.machine.complain("a write that failed was answered as done".into());
            }
        }
    }

    fn data_offset() -> u64 {
        let layout = Layout::for_size(DISK).expect("a disk of this size can be labelled");
        layout.data.offset
    }

    /// Every entry that is still due is found.
    async fn entries_are_due(&self) {
        for entry in (0..ENTRIES).filter(|e| !MERGED.contains(e) && !CLEARED.contains(e)) {
            let block = block_of(entry);
            if self.host.target.read(block * BLOCK_SIZE, BLOCK_SIZE).await.is_ok() {
                self.machine.complain(format!("block {block} is lost and was served"));
            }
        }
    }
}

/// Plays the story with a crash at step `crash_at`, or to its end; answers the steps taken.
///
/// # Panics
/// With a violation if a lost block is served.
pub fn lost_list(seed: u64, trace: Trace, change: Change, crash_at: Option<u64>) -> u64 {
    let mut stage = stage_sized(seed, trace, Level::Raid0, 1, 0, DISK);
    let ended = stage.run(AssembleOptions::default(), crash_at, move |machine| async move {
        let s = Script::new(&machine);
        s.must(s.put(0, block_of(ENTRIES) + 20).await, "a write");
        s.must(s.host.target.flush().await, "a flush");
        for entry in 0..ENTRIES {
            s.must(s.put(block_of(entry), 1).await, "a write");
        }
        s.lose_unflushed().await;
        match change {
            Change::None => {}
            Change::Merge => s.merge().await,
            Change::Clear => s.clear().await,
            Change::Grow => s.grow().await,
            Change::Both => {
                let latch = Latch::default();
                let other = Script::new(&machine);
                latch.spawn(&machine.runtime, async move { other.grow().await });
                s.clear().await;
                latch.all().await;
            }
        }
    });
    let steps = match ended {
        RunEnd::Completed(steps) => steps,
        RunEnd::Cut => crash_at.unwrap_or(0),
    };
    stage.world.shelf.all()[0].drive.faults_mut().clear();
    stage.end(false);
    // Twice: the first start may write the pages anew.
    for _ in 0..2 {
        act(&mut stage, AssembleOptions::default(), |s| async move {
            let report = s.machine.array.report();
            let listed = report.groups.iter().find(|g| g.number == GroupNumber(1));
            s.machine.say(format_args!("lost blocks listed: {:?}", listed.map(|g| g.lost_blocks)));
            s.entries_are_due().await;
        });
    }
    steps
}

/// Rows of crashes that each level is played through.
const ROWS: u64 = 60;
/// Crashes in a row.
const CRASHES: u64 = 4;
/// Long enough for second places to be written.
const AT_REST_NS: u64 = 3_000_000_000;

/// A machine crashes while it starts or just after, again and again; then a member is lost. Whatever one crash tore on the others, the
/// next one must not tear what was left there: of the configuration (rule C1) and of the maps (rule M1) each disk keeps one place whole.
pub(crate) fn crashes_in_a_row(seed: u64, trace: Trace) {
    for (level, members) in [(Level::Raid1, 2), (Level::Raid10, 4), (Level::Raid5, 3)] {
        for row in 0..ROWS {
            // Else a whole stripe that is cut may end as listed lost with the member.
            let journal =
                if level == Level::Raid5 { JournalMode::Full } else { JournalMode::default() };
            let shape = (level, members, 0);
            let mut stage = stage_journaled(seed + row, trace.clone(), shape, 2 << 20, journal);
            // A start that goes on to its end, for the number of its steps: those that crash are cut in their commits and in the first writes of maps.
            let start = stage.steps();
            stage.run(AssembleOptions::default(), None, |_| async {});
            let start = stage.steps() - start;
            stage.end(false);
            for _ in 0..CRASHES {
                let cut = stage.rng.within(start / 2..start + 60);
                write_until_crash(&mut stage, cut);
            }
            stage.world.shelf.all()[(row % members as u64) as usize].die();
            act(&mut stage, degraded(), |mut s| async move {
                s.verify().await;
                s.scribble(3).await;
                s.verify().await;
            });
        }
    }
}

/// Sectors behind the record of a configuration went bad in both slots of one disk, and the others are lost: it starts alone all the same.
pub(crate) fn bad_sectors_behind_configurations(seed: u64, trace: Trace) {
    let mut stage = stage_of(seed, trace, Level::Raid1, 2, 0);
    act(&mut stage, AssembleOptions::default(), |mut s| async move { s.scribble(5).await });
    let all = stage.world.shelf.all();
    for slot in Layout::for_size(all[0].drive.size()).expect("a disk of a stage").config {
        all[0].drive.faults_mut().spoil(slot.end() - BLOCK_SIZE..slot.end());
    }
    all[1].die();
    act(&mut stage, degraded(), |mut s| async move {
        s.verify().await;
        s.scribble(3).await;
    });
}

/// After a member was failed and more was written, one of the two places of a map or of the configuration goes bad on every disk: the other one has the same, once it rests
/// or the stop was orderly (rules C1, M1). Else what was written reads as zeroes, and the failed member as current.
pub(crate) fn one_place_is_damaged_everywhere(seed: u64, trace: Trace) {
    for (level, members) in [(Level::Raid1, 2), (Level::Raid5, 3)] {
        for case in 0..PLACES as u64 * 4 {
            one_place_is_damaged(seed + case, trace.clone(), level, members);
        }
    }
}

/// Places that are there twice.
const PLACES: usize = 5;

fn one_place_is_damaged(case: u64, trace: Trace, level: Level, members: usize) {
    let mut stage = stage_of(case, trace, level, members, 0);
    let all = stage.world.shelf.all();
    let layout = Layout::for_size(all[0].drive.size()).expect("a disk of a stage");
    let places: [_; PLACES] =
        [layout.config, layout.intent, layout.unwritten, layout.lost, layout.cursors];
    let place = places[case as usize / 4 % PLACES][(case % 2) as usize];
    let orderly = (case / 2).is_multiple_of(2);
    stage.run(AssembleOptions::default(), None, move |machine| async move {
        let mut s = Script::new(&machine);
        s.scribble(10).await;
        s.must(machine.array.fail_disk(DiskNumber(1)).await, "disk fail");
        s.scribble(20).await;
        s.flush().await;
        if orderly {
            machine.stop().await;
        } else {
            machine.pause(AT_REST_NS).await;
        }
    });
    stage.end(orderly);
    all.iter().for_each(|bay| bay.drive.faults_mut().spoil(place.offset..place.end()));
    act(&mut stage, degraded(), |s| async move {
        s.verify().await;
        let report = s.machine.array.report();
        if report.disks.iter().any(|d| d.number == DiskNumber(1) && d.state == DiskState::InSync) {
            s.machine.complain("the failed member is back".into());
        }
    });
}

/// One place of each map's pages is torn on one disk, the machine crashes at each step of a start that mends that, and the other disk is lost: the
/// first one still has a copy of every page (rule M1).
pub(crate) fn torn_pages_are_mended(seed: u64, trace: Trace) {
    for side in 0..2 {
        let end = torn_pages(seed, trace.clone(), side, None);
        for cut in 1..end {
            torn_pages(seed + cut, trace.clone(), side, Some(cut));
        }
    }
}

/// That story with one crash, at step `cut` or after all of it; answers the steps of the start and what follows.
fn torn_pages(seed: u64, trace: Trace, side: usize, cut: Option<u64>) -> u64 {
    let mut stage = stage_of(seed, trace, Level::Raid1, 2, 0);
    let all = stage.world.shelf.all();
    let layout = Layout::for_size(all[0].drive.size()).expect("a disk of a stage");
    let places = [layout.intent, layout.unwritten, layout.lost, layout.cursors];
    for place in places {
        all[0].drive.faults_mut().spoil(place[side].offset..place[side].end());
    }
    let (before, steps) = (all[0].drive.image(), stage.steps());
    stage.run(AssembleOptions::default(), cut, |machine| async move {
        let mut s = Script::new(&machine);
        s.scribble(3).await;
        s.flush().await;
    });
    let steps = stage.steps() - steps;
    stage.end(false);
    let after = all[0].drive.image();
    for place in places {
        let (torn, left) = (place[side], place[1 - side]);
        let first = torn.offset..torn.offset + BLOCK_SIZE;
        let left = left.offset as usize..(left.offset + BLOCK_SIZE) as usize;
        if all[0].drive.faults_mut().on_read(&first).is_some()
            && before[left.clone()] != after[left]
        {
            stage.world.complain("the last copy of a page is written over".into());
        }
    }
    all[1].die();
    act(&mut stage, degraded(), |s| async move { s.verify().await });
    steps
}
