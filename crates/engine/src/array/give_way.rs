//! Another member fails worse than the one that is copied: which of them the only spare is for.
//!
//! Owns the choice and the switch, and that a copy which others wait for is not held up by a limit. Invariants: a copy gives way only where its old member is in service and less than half of it is copied, no
//! other spare is there, and the slot that is out can be rebuilt; a member that does not answer is out by then, since the commit that would
//! switch finds it out. The spare is filled from the start in its new slot (rule A6).

use std::rc::Rc;

use super::Array;
use super::jobs::Job;
use crate::config::{Configuration, SlotState};
use crate::group::Group;
use crate::ids::Slot;
use crate::report::{JobKind, Severity};
use crate::runtime::Env;
use crate::words;

impl<E: Env> Array<E> {
    /// The slot whose copy is to give way.
    pub(super) fn gives_way(&self, config: &Configuration, group: &Rc<Group<E>>) -> Option<Slot> {
        let entry = config.group(group.number)?;
        let slot_that = |is: &dyn Fn(usize) -> bool| {
            (0..entry.slots.len()).find(|i| is(*i)).map(|i| Slot(i as u8))
        };
        let out = slot_that(&|i| entry.slots[i].state == SlotState::Out)?;
        let copied = slot_that(&|i| {
            entry.slots[i].state == SlotState::InSync && entry.slots[i].replacement.is_some()
        })?;
        let early = 2 * group.filled_bytes(copied) < group.member_len();
        let kept = group.with_slots(|slots| {
            let slot = &slots[usize::from(copied.0)];
            slot.main.is_some() && slot.filler.is_some() && !slot.swapping
        });
        let needed = self.pick_spare(config, group.member_len()).is_none();
        (early && kept && needed && group.can_rebuild(out)).then_some(copied)
    }

    /// Stops the copies that are to give way; the group's tending does the rest.
    pub(super) fn stop_copies_that_give_way(&self) {
        let config = self.config.borrow();
        for group in self.groups.borrow().values() {
            if let Some(slot) = self.gives_way(&config, group)
                && let Some(entry) = config.group(group.number)
            {
                let spare = entry.slots[usize::from(slot.0)].replacement;
                self.jobs.stop_those(|job| job.group == group.number && job.disk == spare);
            }
        }
    }

    /// Copies whose limit does not count from now on, since a member of their group is out, and whatever is to take its place waits for them.
    pub(super) fn hasten_copies(&self) {
        for group in self.groups.borrow().values().filter(|g| g.misses_a_member()) {
            let limited = |job: &Job| job.kind == JobKind::Replace && job.progress.limit.get() > 0;
            let Some(job) = self.jobs.running(group.number, limited) else { continue };
            if job.hastened.replace(true) {
                continue;
            }
            job.progress.lifted.set(true);
            let what = format!(
                "a member of group {} is out: the copy under way goes on without its limit of {}, so that the group is whole again soon",
                group.number,
                words::rate(job.progress.limit.get())
            );
            self.event(Severity::Warning, "copy-hastened", job.disk, Some(group.number), what);
        }
    }

    /// Takes the spare from the copy of `slot`; it is the next thing that the slot that is out finds.
    pub(super) async fn run_give_way(self: &Rc<Self>, group: &Rc<Group<E>>, slot: Slot) -> bool {
        let Ok(_turn) = self.turn().await else { return false };
        let config = self.config.borrow().clone();
        if self.gives_way(&config, group) != Some(slot) {
            return true; // Somebody acted while we waited for our turn.
        }
        let at = usize::from(slot.0);
        let entry = config.group(group.number).map(|g| g.slots[at].clone());
        let Some((old, spare)) = entry.and_then(|s| Some((s.disk, s.replacement?))) else {
            return true;
        };
        let mut given = false;
        let committed = self.commit(|next| {
            let Some(entry) = next.group_mut(group.number) else { return };
            let slot = &mut entry.slots[at];
            given = slot.state == SlotState::InSync && slot.replacement == Some(spare);
            if given {
                slot.replacement = None;
            }
        });
        if committed.await.is_err() {
            return false;
        }
        if given {
            let what = format!(
                "another member of group {} failed and there is no other spare: less than half of disk {old} was copied, so disk {spare} \
                 takes the failed one's place first",
                group.number
            );
            self.event(Severity::Warning, "spare-switched", Some(old), Some(group.number), what);
        }
        true
    }
}
