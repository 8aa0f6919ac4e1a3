//! Second places: what is written to one of two places in turn stands in both once it rests (rules C1, M1).
//!
//! Owns the task that sees to that for the configuration and for the maps of groups. Turns alone keep the state before the last change in the other place: right after a crash that
//! tore the change, and wrong, without a sign of it, where the newest place is damaged later on every disk. Invariant: a second place is written only when the first is durable.

use std::rc::Rc;

use super::Array;
use crate::config::DropReason;
use crate::group::Away;
use crate::ids::DiskNumber;
use crate::runtime::Env;

/// How often it is looked for what rests.
const EVERY_NS: u64 = 1_000_000_000;

impl<E: Env> Array<E> {
    pub(super) async fn double_now_and_then(self: Rc<Self>) {
        while !self.stopping.get() {
            self.sleep_unless_stopped(EVERY_NS).await;
            let _step = self.steps.one();
            let groups: Vec<_> = self.groups.borrow().values().cloned().collect();
            for group in groups {
                let rests = self.stopping.get() || group.is_closing() || group.is_paused();
                if !rests && group.away() == Away::Here {
                    // What a disk did not take has consequences of its own; the rest is tried again when it has changed.
                    let _ = group.double_pages(false).await;
                }
            }
            if !self.stopping.get() {
                self.double_configuration().await;
            }
        }
    }

    /// Writes the configuration that counts to the second slot of every disk in service, if it stands in one alone.
    pub(super) async fn double_configuration(self: &Rc<Self>) {
        let _turn = self.commit_turn.lock().await;
        let config = self.written.borrow().clone();
        // What fails just now is dropped in a generation of its own.
        let fails = !self.failing.borrow().is_empty();
        if !self.counted.get() || fails || self.doubled.get() == config.generation {
            return;
        }
        let Ok(buf) = self.encoded(&config) else { return };
        let mut list: Vec<DiskNumber> = config.in_service().collect();
        list.retain(|number| self.drives.borrow().contains_key(number));
        let failed = self.write_everywhere(&config, &list, buf).await;
        self.doubled.set(config.generation);
        if failed.is_empty() {
            return;
        }
        for (disk, reason) in failed {
            self.note_failing(disk, reason, DropReason::Failed);
        }
        self.tend_failures();
    }
}
