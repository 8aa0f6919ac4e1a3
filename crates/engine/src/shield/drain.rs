//! Write-back: what was redirected goes home, in address order (rules A5, B5).
//!
//! Owns the walk over a volume's marked blocks. Invariants: a block is read from its backup and written home under the volume's block lock, so
//! that a host's write comes before or after it as a whole; marks are cleared on disk only after home was flushed.

use std::ops::Range;
use std::rc::Rc;

use super::{Backup, Shield, Source};
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
    /// Takes everything home that `which` logs hold, or as much until `interrupted`.
    pub(crate) async fn drain(
        &self,
        home: &Rc<VolumeRt<E>>,
        progress: &Progress,
        which: &dyn Fn(&Backup<E>) -> bool,
        interrupted: &dyn Fn() -> bool,
    ) -> DrainEnd {
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
            let moved = match self.drain_window(home, first..end, which).await {
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
            if home.requests() != served {
                // Hosts are at work: they get as much time as the window took.
                let took = home.runtime().now_ns().saturating_sub(begun);
                home.runtime().sleep_ns(took).await;
            }
        }
        match home.flush_all().await {
            Ok(()) => DrainEnd::Done,
            Err(error) => DrainEnd::Failed(format!("volume {}: {error}", self.volume)),
        }
    }

    async fn drain_window(
        &self,
        home: &Rc<VolumeRt<E>>,
        blocks: Range<u64>,
        which: &dyn Fn(&Backup<E>) -> bool,
    ) -> Result<u64, (u64, IoError)> {
        let len = (blocks.end - blocks.start) * BLOCK_SIZE;
        let _guard = home.lock(blocks.start * BLOCK_SIZE, len, Hold::Exclusive).await;
        let mut moved = 0;
        // Runs of any backups that touch go home as one write.
        let mut pending: Vec<Range<u64>> = Vec::new();
        for (run, source) in self.runs(blocks) {
            let Source::Backup(at) = source else { continue };
            match pending.last_mut() {
                _ if !which(&self.chain[at]) => {}
                Some(last) if last.end == run.start => last.end = run.end,
                _ => pending.push(run),
            }
        }
        for run in pending {
            let first = run.start;
            let failed = |error| (first, error);
            let bytes = run.start * BLOCK_SIZE..run.end * BLOCK_SIZE;
            let bufs = self.read(home, bytes.clone()).await.map_err(failed)?;
            home.write_kept(bytes.start, Buf::joined(bufs)).await.map_err(failed)?;
            self.unmark_others(&run, None);
            moved += bytes.end - bytes.start;
        }
        Ok(moved)
    }
}
