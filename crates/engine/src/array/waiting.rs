//! A pair whose secondary's group is not there at a start: it waits for the group, and is made equal anew when that is back.
//!
//! Owns both changes. Invariants: that a pair waits is committed before a host writes to its primary unnoted; one that waits has no secondary as far as
//! hosts and shields go; when the group is back everything is marked, durably, before the commit that says that the pair follows again, since what
//! differs was noted nowhere meanwhile. A pair that is reversed does not wait: the secondary has what is newest, so the start is refused.

use std::rc::Rc;

use super::Array;
use crate::config::{BackupPlace, PairEntry, PairStatus};
use crate::error::IoError;
use crate::ids::{BLOCK_SIZE, GroupNumber};
use crate::pair::Pair;
use crate::report::Severity;
use crate::runtime::Env;

impl<E: Env> Array<E> {
    /// Commits that a pair waits for its secondary's group, at assembly; answers whether that counts.
    pub(super) async fn pair_waits(self: &Rc<Self>, entry: &PairEntry) -> bool {
        self.pairs.borrow_mut().remove(&entry.primary);
        self.end_mirror(entry.primary);
        if entry.away {
            return true;
        }
        let committed = self.commit(|next| {
            if let Some(pair) = next.backups.pair_of_mut(entry.primary) {
                pair.away = true;
                if pair.status == PairStatus::Duplex {
                    pair.status = PairStatus::Syncing;
                }
            }
            // It has nothing that its primary has not.
            next.backups.leave_chains(BackupPlace::Pair(entry.primary));
        });
        if committed.await.is_err() {
            return false;
        }
        let what = format!(
            "the group of the secondary {} of volume {} is not there: nothing follows the volume until it is back, then all of it is copied again",
            entry.secondary, entry.primary
        );
        self.event(Severity::Warning, "pair-waits", None, None, what);
        true
    }

    /// Everything of a pair that waited is to be copied again; its secondary's group is there, and its bits were read, so that the pages written now
    /// are newer. The bits are durable when this is answered.
    pub(super) async fn mark_anew(&self, pair: &Pair<E>) -> Result<(), IoError> {
        pair.mark(0..pair.blocks());
        pair.persist_bits().await
    }

    /// Commits that a pair that waited follows again.
    pub(super) async fn pair_follows_again(self: &Rc<Self>, entry: &PairEntry) -> bool {
        let committed = self.commit(|next| {
            if let Some(pair) = next.backups.pair_of_mut(entry.primary).filter(|p| p.id == entry.id)
            {
                pair.away = false;
            }
        });
        if committed.await.is_err() {
            return false;
        }
        let what = format!(
            "the group of the secondary {} of volume {} is back: all of it is copied again",
            entry.secondary, entry.primary
        );
        self.event(Severity::Info, "pair-resync", None, None, what);
        true
    }

    /// A group can give everything again: pairs that waited for it follow their primaries. One that cannot yet does so at the next start.
    pub(super) async fn pairs_return(self: &Rc<Self>, group: GroupNumber) {
        let config = self.config.borrow().clone();
        for entry in config.backups.pairs.iter().filter(|pair| pair.away) {
            let Some(pair) = self.pair_at(&config, entry) else { continue };
            let primary = self.volumes.borrow().get(&entry.primary).cloned();
            let Some(primary) = primary.filter(|_| pair.group().number == group) else { continue };
            if !pair.group().is_readable() || pair.load().await.is_err() {
                continue;
            }
            // From here on what hosts write is noted; what they are writing now is before everything is marked.
            self.open_mirror(entry.primary, Rc::clone(&pair));
            primary.set_mirror(self.mirrors.borrow().get(&entry.primary).cloned());
            primary.pass().await;
            let marked = self.mark_anew(&pair).await.is_ok();
            if marked && self.pair_follows_again(entry).await {
                self.tend_pair(entry.primary);
            } else {
                self.end_mirror(entry.primary);
                self.pairs.borrow_mut().remove(&entry.primary);
                self.apply_shields(&self.config.borrow().clone());
            }
        }
    }

    /// Bytes of a pair that are not known to be equal.
    pub(super) fn differing(&self, pair: &PairEntry) -> u64 {
        if pair.away {
            let config = self.config.borrow();
            let primary = config.volumes.iter().find(|v| v.number == pair.primary);
            return primary.map_or(0, |volume| volume.size);
        }
        self.pairs.borrow().get(&pair.primary).map_or(0, |p| p.marks() * BLOCK_SIZE)
    }
}
