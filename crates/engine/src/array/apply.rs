//! From the configuration that counts to the groups and volumes in memory.
//!
//! Owns that step. Invariant: it is taken once for each generation that counts, in one go without a wait, so nobody sees half of it.

use std::rc::Rc;

use super::Array;
use crate::config::{GroupEntry, SlotState};
use crate::group::{Group, SlotRt, Stale};
use crate::ids::DiskNumber;
use crate::runtime::Env;

impl<E: Env> Array<E> {
    /// Brings the groups and volumes in memory in line with the configuration, which counts now.
    pub(super) fn apply(self: &Rc<Self>) {
        let config = self.config.borrow().clone();
        self.failing
            .borrow_mut()
            .retain(|disk, _| config.disk(*disk).is_some_and(|d| d.in_service()));
        // A pause ends with the copy it was for; redundancy that was lost meanwhile is restored without being asked.
        self.paused.borrow_mut().retain(|disk| {
            let mut slots = config.groups.iter().flat_map(|g| &g.slots);
            slots.any(|s| s.copied_to() == Some(*disk))
        });
        self.forget_fillers(&config);
        self.alarmed.borrow_mut().retain(|disk| config.disk(*disk).is_some_and(|d| d.in_service()));
        for entry in &config.groups {
            let group = self.groups.borrow().get(&entry.number).cloned();
            let group = match group {
                Some(group) => group,
                None => {
                    let group = Group::new(self.rt.clone(), entry, self.failure_sink());
                    self.groups.borrow_mut().insert(entry.number, Rc::clone(&group));
                    group
                }
            };
            self.apply_slots(&group, entry);
        }
        self.groups.borrow_mut().retain(|number, _| config.group(*number).is_some());
        self.apply_volumes(&config);
        self.apply_shields(&config);
        self.apply_mirrors();
        self.hasten_copies();
        self.note_change();
    }

    /// The slots of one group as configured, on the drives that are open.
    fn apply_slots(&self, group: &Group<E>, entry: &GroupEntry) {
        let drives = self.drives.borrow();
        let open = |disk: DiskNumber| drives.get(&disk).filter(|d| !d.is_gone()).cloned();
        group.set_slots(|slots| {
            for (i, slot) in entry.slots.iter().enumerate() {
                let main = (slot.state == SlotState::InSync).then(|| open(slot.disk)).flatten();
                let filling = match slot.state {
                    SlotState::Rebuilding | SlotState::Catching => Some(slot.disk),
                    SlotState::InSync | SlotState::Out => slot.replacement,
                };
                let filler = filling.and_then(open);
                // A drive given up after this configuration was made is still on its way out.
                let uncommitted = slot.state == SlotState::InSync && main.is_none()
                    || filling.is_some() && filler.is_none();
                let before = slots.get(i);
                let same = before
                    .and_then(|b| b.filler.clone())
                    .zip(filler.clone())
                    .is_some_and(|(a, b)| Rc::ptr_eq(&a, &b));
                let (cursor, stale, deferred, filler_life) = match before {
                    Some(before) if same => {
                        let (stale, deferred) = (before.stale.clone(), before.deferred.clone());
                        (before.cursor, stale, deferred, before.filler_life)
                    }
                    _ => {
                        let (cursor, stale) = group.filler_starts(slot.state);
                        (cursor, stale, Stale::default(), group.next_filler_life())
                    }
                };
                let next = SlotRt {
                    disk: slot.disk,
                    state: slot.state,
                    main,
                    filler,
                    cursor,
                    stale,
                    deferred,
                    uncommitted,
                    filler_life,
                    swapping: before.is_some_and(|before| before.swapping),
                };
                match slots.get_mut(i) {
                    Some(old) => *old = next,
                    None => slots.push(next),
                }
            }
        });
    }
}

impl<E: Env> Group<E> {
    /// Where a filler that has just come starts: at the beginning, or, if it returned, everywhere but in marked regions.
    fn filler_starts(&self, state: SlotState) -> (u64, Stale) {
        match state {
            SlotState::Catching => (self.member_len(), self.marked_stale()),
            SlotState::InSync | SlotState::Out | SlotState::Rebuilding => (0, Stale::default()),
        }
    }
}
