//! Write-back: what was redirected goes home, in address order (rules A5, B5).
//!
//! Owns the walk over a volume's marked blocks. Invariants: a block is read from its backup and written home under the volume's block lock, so
//! that a host's write comes before or after it as a whole; marks are cleared on disk only after home was flushed.

use std::ops::Range;
use std::rc::Rc;

use super::{Backup, Log, Shield, Source};
use crate::buf::Buf;
use crate::error::IoError;
use crate::ids::BLOCK_SIZE;
use crate::progress::Progress;
use crate::runtime::{Env, Runtime};
use crate::sync::Hold;
use crate::volume::VolumeRt;

/// Bytes of the volume under one lock, at least; whole stripes.
const WINDOW: u64 = 1 << 20;
/// Bytes written home between two flushes.
const FLUSH_EVERY: u64 = 32 << 20;

/// What becomes of blocks that their backup does not give although every copy was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    /// They are listed lost at home (rule M5).
    Lose,
    /// They stay in the backup.
    Keep,
}

/// How a write-back ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum DrainEnd {
    /// Everything is home, durably.
    Done,
    /// Somebody asked for it.
    Stopped,
    /// Something could not be read or written: it stays where it is.
    Failed(String),
}

impl<E: Env> Shield<E> {
    /// Takes everything home that `which` logs hold, or as much until `interrupted`. A block that does not read holds up no other.
    pub(crate) async fn drain(
        &self,
        home: &Rc<VolumeRt<E>>,
        progress: &Progress,
        which: &dyn Fn(&Backup<E>) -> bool,
        unreadable: Unreadable,
        interrupted: &dyn Fn() -> bool,
    ) -> DrainEnd {
        let mut walk = Walk { progress, which, unreadable, kept: None };
        let stripe = home.group().geometry.stripe_len();
        let window = WINDOW.next_multiple_of(stripe) / BLOCK_SIZE;
        let mut moved_since = 0;
        let mut block = 0;
        while let Some(first) = self.next_marked_of(block..u64::MAX, which) {
            if progress.stop.get() || interrupted() {
                return DrainEnd::Stopped;
            }
            let end = first / window * window + window;
            let served = home.requests();
            let begun = home.runtime().now_ns();
            let moved = match self.drain_window(home, first..end, &mut walk).await {
                Ok(moved) => moved,
                Err((block, error)) => {
                    return DrainEnd::Failed(format!(
                        "volume {}, block {block}: {error}",
                        self.volume
                    ));
                }
            };
            progress.done.set(progress.done.get() + moved);
            moved_since += moved;
            block = end;
            if moved_since >= FLUSH_EVERY {
                moved_since = 0;
                if let Err(error) = home.flush_all().await {
                    return DrainEnd::Failed(format!("volume {}: {error}", self.volume));
                }
            }
            progress.pace(home.runtime(), moved).await;
            if home.requests() != served && !self.presses() {
                // Hosts are at work: they get as much time as the window took.
                let took = home.runtime().now_ns().saturating_sub(begun);
                home.runtime().sleep_ns(took).await;
            }
        }
        match (home.flush_all().await, walk.kept) {
            (Ok(()), None) => DrainEnd::Done,
            (Ok(()), Some(block)) => DrainEnd::Failed(format!(
                "volume {}, block {block}: its backup does not give it now",
                self.volume
            )),
            (Err(error), _) => DrainEnd::Failed(format!("volume {}: {error}", self.volume)),
        }
    }

    /// Empties a log that is given up: what it still gives goes home, the rest is lost there (rule M5), durably. Answers how many blocks each are. The
    /// caller holds the lock of the whole volume.
    pub(crate) async fn abandon(
        &self,
        home: &Rc<VolumeRt<E>>,
        log: &Rc<Log<E>>,
    ) -> Result<(u64, u64), IoError> {
        let (mut moved, mut lost, mut at) = (0, 0, 0);
        while let Some(block) = log.next_marked(self.volume, at..u64::MAX) {
            at = block + 1;
            if self.take_home(home, &(block..at)).await.map_err(|(_, error)| error)? {
                moved += 1;
                continue;
            }
            home.lose_home(block * BLOCK_SIZE..at * BLOCK_SIZE).await?;
            self.unmark_others(&(block..at), None);
            lost += 1;
        }
        home.flush_kept().await?;
        Ok((moved, lost))
    }

    /// Whether a backup is nearly full or lost a copy: hosts' load gives way to what is to be taken home.
    fn presses(&self) -> bool {
        let full = |backup: &Backup<E>| backup.marks_of(self.volume) > 0 && backup.is_nearly_full();
        self.is_weak() || self.chain.iter().any(full)
    }

    async fn drain_window(
        &self,
        home: &Rc<VolumeRt<E>>,
        blocks: Range<u64>,
        walk: &mut Walk<'_, E>,
    ) -> Result<u64, (u64, IoError)> {
        let len = (blocks.end - blocks.start) * BLOCK_SIZE;
        let _guard = home.lock(blocks.start * BLOCK_SIZE, len, Hold::Exclusive).await;
        let mut moved = 0;
        // Runs of any backups that touch go home as one write.
        let mut pending: Vec<Range<u64>> = Vec::new();
        for (run, source) in self.runs(blocks) {
            let Source::Backup(at) = source else { continue };
            match pending.last_mut() {
                _ if !(walk.which)(&self.chain[at]) => {}
                Some(last) if last.end == run.start => last.end = run.end,
                _ => pending.push(run),
            }
        }
        for run in pending {
            if self.take_home(home, &run).await? {
                moved += (run.end - run.start) * BLOCK_SIZE;
                continue;
            }
            for block in run {
                if self.take_home(home, &(block..block + 1)).await? {
                    moved += BLOCK_SIZE;
                } else {
                    self.give_up_block(home, block, walk).await.map_err(|error| (block, error))?;
                }
            }
        }
        Ok(moved)
    }

    /// Takes a run home. `false`: not all of it can be read.
    async fn take_home(
        &self,
        home: &Rc<VolumeRt<E>>,
        run: &Range<u64>,
    ) -> Result<bool, (u64, IoError)> {
        let bytes = run.start * BLOCK_SIZE..run.end * BLOCK_SIZE;
        let Ok(bufs) = self.read(home, bytes.clone()).await else { return Ok(false) };
        let written = home.write_kept(bytes.start, Buf::joined(bufs)).await;
        written.map_err(|error| (run.start, error))?;
        self.unmark_others(run, None);
        Ok(true)
    }

    /// A block that its backup does not give: lost if every copy of it was asked (rule M5), else left for another time.
    async fn give_up_block(
        &self,
        home: &Rc<VolumeRt<E>>,
        block: u64,
        walk: &mut Walk<'_, E>,
    ) -> Result<(), IoError> {
        let holds =
            |backup: &&Backup<E>| backup.next_marked(self.volume, block..block + 1).is_some();
        let asked = self.chain.iter().filter(holds).all(Backup::answers);
        if walk.unreadable == Unreadable::Keep || !asked {
            walk.kept = walk.kept.or(Some(block));
            return Ok(());
        }
        home.lose_home(block * BLOCK_SIZE..(block + 1) * BLOCK_SIZE).await?;
        self.unmark_others(&(block..block + 1), None);
        walk.progress.lost.set(walk.progress.lost.get() + 1);
        Ok(())
    }
}

/// What a write-back is to do, and what it could not.
struct Walk<'a, E: Env> {
    progress: &'a Progress,
    which: &'a dyn Fn(&Backup<E>) -> bool,
    unreadable: Unreadable,
    /// The first block that stays in its backup.
    kept: Option<u64>,
}
