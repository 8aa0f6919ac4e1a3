//! Groups at a start: their maps, the write hole, and what a crash left half-way (rules M1, M4, J2).
//!
//! Owns the two steps around the commit of a start. Invariants: what cannot be told without a member is refused before that commit, so that
//! nothing changed; a journal is replayed after it, when the members that are missing are out, and before anything is served.

use std::rc::Rc;

use super::{Array, AssembleOptions};
use crate::config::{GroupEntry, SlotState};
use crate::error::{AssembleError, IoError};
use crate::group::{Away, Group, MissingPage};
use crate::report::Severity;
use crate::runtime::Env;
use crate::words;

impl<E: Env> Array<E> {
    /// Reads the groups' maps, and refuses a start that could compute wrong data.
    pub(super) async fn load_groups(
        self: &Rc<Self>,
        entries: &[GroupEntry],
        options: &AssembleOptions,
    ) -> Result<(), AssembleError> {
        for entry in entries {
            let group = self.group(entry.number).expect("applied groups are there");
            if let Err(missing) = group.load_maps(entry.clean).await {
                if group.with_slots(|slots| slots.iter().all(|s| s.main.is_none())) {
                    group.set_away(Away::Unknown); // No member at all: nothing of it answers.
                    continue;
                }
                return Err(AssembleError::Commit(lost_page(entry, &missing)));
            }
            if group.has_write_hole() && !options.accept_write_hole {
                return Err(AssembleError::WriteHole(self.write_hole(entry)));
            }
        }
        Ok(())
    }

    fn write_hole(&self, entry: &GroupEntry) -> String {
        let out: Vec<String> = entry
            .slots
            .iter()
            .filter(|s| s.state != SlotState::InSync)
            .map(|s| format!("{} ({})", s.disk, self.path_of(s.disk)))
            .collect();
        format!(
            "group {} was not stopped cleanly and lacks disk {}: where writes were under way, what is computed for it may be \
             wrong. Bring the disk back, or accept that with --accept-write-hole",
            entry.number,
            out.join(", ")
        )
    }

    /// Brings the maps of every group to all its members and replays the journals.
    pub(super) async fn recover_groups(
        self: &Rc<Self>,
        entries: &[GroupEntry],
        options: &AssembleOptions,
    ) -> Result<(), AssembleError> {
        for entry in entries {
            let Ok(group) = self.group(entry.number) else { continue };
            if group.away() != Away::Here {
                continue; // Nothing is known of its maps and journal before a member is back.
            }
            // A group without members keeps what it could not write as changed, and tries again with its next flush.
            let _ = group.persist_stale_pages().await;
            if self.replay(&group, entry.clean).await.is_ok() {
                continue;
            }
            // What was under way is not known to be whole: as without a journal.
            group.mark_all_dirty();
            if group.has_write_hole() && !options.accept_write_hole {
                return Err(AssembleError::WriteHole(format!(
                    "the journal of group {} could not be replayed: a member cannot be read or written, or its map of lost blocks is full. \
                     Look at its disks with `forestall inspect`, bring those that are missing, or start all the same with --accept-write-hole",
                    entry.number
                )));
            }
            let what = format!(
                "the journal of group {} could not be replayed: it is resynced",
                entry.number
            );
            self.event(Severity::Critical, "journal-replayed", None, Some(entry.number), what);
        }
        Ok(())
    }

    /// A group that was away since the start can give everything again: what a crash before left half-way in it is made good before any host has a
    /// block of it.
    pub(super) async fn group_returns(self: &Rc<Self>, group: &Rc<Group<E>>, clean: bool) {
        if !clean && !group.is_journaled() && group.needs_intent() {
            group.mark_all_dirty();
        }
        if self.replay(group, clean).await.is_err() {
            group.mark_all_dirty();
            let what = format!(
                "the journal of group {}, which was away, could not be replayed: it is resynced",
                group.number
            );
            self.event(Severity::Critical, "journal-replayed", None, Some(group.number), what);
        }
        group.set_away(Away::Here);
    }

    /// Makes good what a crash left half-way in a group with a journal, and opens the journal anew.
    async fn replay(self: &Rc<Self>, group: &Rc<Group<E>>, clean: bool) -> Result<(), IoError> {
        if !group.is_journaled() {
            return Ok(());
        }
        let epoch = self.config.borrow().generation;
        group.begin_epoch(epoch);
        if !clean {
            let done = group.replay_journal().await?;
            let made_good = match done.records {
                0 => "its journal holds no write that was under way".to_string(),
                some => format!("{} made good from its journal", words::counted(some, "write")),
            };
            let mut what = format!("group {} was not stopped cleanly: {made_good}", group.number);
            if done.unproved > 0 {
                what += &format!(
                    "; what {} of a missing member should hold, in full stripes that were being written, cannot be told: reads of them are \
                     errors until they are written",
                    words::counted(done.unproved, "block")
                );
            }
            let severity = if done.unproved > 0 { Severity::Critical } else { Severity::Info };
            self.event(severity, "journal-replayed", None, Some(group.number), what);
        }
        group.open_journal(epoch).await;
        Ok(())
    }
}

fn lost_page(entry: &GroupEntry, missing: &MissingPage) -> String {
    format!(
        "group {}: page {} of its {} map is damaged on every member that is here, so nobody knows what its blocks are worth. \
         Bring the members that are missing, or put an image of a member's disk back (`forestall inspect PATH` tells which are whole); \
         without one, make the array anew with `forestall create --force` and restore a backup",
        entry.number,
        missing.page,
        format!("{:?}", missing.kind).to_lowercase(),
    )
}
