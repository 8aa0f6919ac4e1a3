//! Health at work: feeding the deciders of [`crate::health`] and acting on what they find.
//!
//! Owns each disk's record while the array runs, the sitting out of slow disks and the automatic replacement of ailing ones. Invariants: no
//! redundancy is given up on a verdict, an ailing disk stays a member until its copy has taken its place; an ailing or slow disk is only
//! read by hosts where nothing else gives the block; counts are kept in the configuration now and then, so a crash forgets at most the last
//! minute's.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use super::Array;
use crate::config::{AvoidanceState, Configuration, HealthEntry, SlotState};
use crate::drive::Drive;
use crate::error::CommandError;
use crate::group::Group;
use crate::health::{
    ErrorClass, FULL, Finding, Latencies, Member, Mode, Paths, Policy, Record, Sitting, Verdict,
    brake, is_slow, judge,
};
use crate::ids::{DiskNumber, GroupNumber, Slot, SlotSet};
use crate::report::{ErrorCounts, Severity};
use crate::runtime::{Env, Runtime};

mod table;

use table::{REPLACED, part_of};

/// Time between two looks.
const LOOK_NS: u64 = 1_000_000_000;
/// Least time over which latencies are compared.
const WINDOW_NS: u64 = 2_000_000_000;
/// Longest time over which they are gathered where there is little to do.
const WINDOW_NS_MAX: u64 = 60_000_000_000;
/// Changed counts are kept after this time, verdicts at once.
const SAVE_NS: u64 = 60_000_000_000;

/// What is known of one disk.
#[derive(Default)]
struct Watch {
    record: Record,
    /// The drive's own counts at the last look.
    seen: ErrorCounts,
    sitting: Sitting,
    sat_out: bool,
    ailing: bool,
    /// Not replaced by itself: an operator cancelled that.
    held: bool,
    finding: Option<Finding>,
    /// The verdict that people were told of last, also before the start.
    told: Verdict,
    /// Why it was not replaced by itself, said once.
    refused: String,
}

/// Health of all disks.
#[derive(Default)]
pub(super) struct Watches {
    disks: RefCell<BTreeMap<DiskNumber, Watch>>,
    paths: RefCell<Paths>,
    /// When each group's latencies were last taken.
    windows: RefCell<BTreeMap<GroupNumber, u64>>,
    looked_ns: Cell<u64>,
    saved_ns: Cell<u64>,
    /// Something differs from what is kept.
    changed: Cell<bool>,
    /// It is to be kept at once.
    urgent: Cell<bool>,
    braked: Cell<bool>,
}

/// New errors by class since the counts were last seen.
fn news(seen: &ErrorCounts, now: &ErrorCounts) -> [(ErrorClass, u64); 6] {
    // A disk that was opened anew counts from nothing.
    let new = |now: u64, seen: u64| now.checked_sub(seen).unwrap_or(now);
    [
        (ErrorClass::RecoveredRead, new(now.recovered_reads, seen.recovered_reads)),
        (ErrorClass::UnrecoveredRead, new(now.unrecovered_reads, seen.unrecovered_reads)),
        (ErrorClass::WriteError, new(now.writes, seen.writes) + new(now.flushes, seen.flushes)),
        (ErrorClass::Timeout, new(now.timeouts, seen.timeouts)),
        (ErrorClass::Transport, new(now.transports, seen.transports)),
        (ErrorClass::Checksum, new(now.checksums, seen.checksums)),
    ]
}

impl<E: Env> Array<E> {
    /// Takes over what the configuration keeps of health; at assembly.
    pub(super) fn load_health(&self) {
        let config = self.config.borrow();
        let watch = |entry: &HealthEntry| Watch {
            record: Record::new(entry.counts, entry.level.into()),
            ailing: entry.ailing,
            told: if entry.ailing { Verdict::Ailing } else { Verdict::default() },
            held: entry.held,
            ..Watch::default()
        };
        *self.watches.disks.borrow_mut() =
            config.health.disks.iter().map(|(disk, entry)| (*disk, watch(entry))).collect();
    }

    /// Writes what is known of health into a configuration to be committed.
    pub(super) fn keep_health(&self, next: &mut Configuration) {
        let watches = self.watches.disks.borrow();
        next.health.disks = watches
            .iter()
            .filter(|(disk, w)| {
                next.disk(**disk).is_some() && (w.ailing || w.held || !w.record.is_clean())
            })
            .map(|(disk, w)| {
                let level = w.record.level as u32; // At most twice a full bucket.
                let counts = w.record.counts;
                (*disk, HealthEntry { counts, level, ailing: w.ailing, held: w.held })
            })
            .collect();
    }

    /// Looks at every disk once a second until the array stops.
    pub(super) async fn watch_health(self: Rc<Self>) {
        self.watches.looked_ns.set(self.rt.now_ns());
        self.watches.saved_ns.set(self.rt.now_ns());
        while !self.stopping.get() {
            self.rt.sleep_ns(LOOK_NS).await;
            if self.stopping.get() {
                return;
            }
            self.look();
            self.follow_modes();
            self.drain_weakened();
            self.chain_further();
            self.tell_of_full_backups();
            self.tell_of_failed_reads();
            self.let_go_of_empty_logs();
            self.save_health().await;
            self.avoid_ailing().await;
        }
    }

    fn policy(&self) -> Policy {
        self.config.borrow().health.policy.clone()
    }

    /// One look: new errors, latencies, verdicts.
    fn look(self: &Rc<Self>) {
        let now = self.rt.now_ns();
        let elapsed = now.saturating_sub(self.watches.looked_ns.replace(now));
        let policy = self.policy();
        self.count_errors(&policy, elapsed, now);
        let groups: Vec<_> = self.groups.borrow().values().cloned().collect();
        for group in &groups {
            self.compare_latencies(&policy, group, now);
        }
        self.judge_all(&groups);
    }

    fn count_errors(self: &Rc<Self>, policy: &Policy, elapsed: u64, now: u64) {
        let drives = self.drives.borrow();
        let mut watches = self.watches.disks.borrow_mut();
        let mut paths = self.watches.paths.borrow_mut();
        watches.retain(|disk, _| self.config.borrow().disk(*disk).is_some());
        for (disk, drive) in drives.iter() {
            let watch = watches.entry(*disk).or_default();
            watch.record.leak(policy, elapsed);
            let errors = drive.errors.get();
            for (class, n) in news(&watch.seen, &errors).into_iter().filter(|(_, n)| *n > 0) {
                self.watches.changed.set(true);
                if class == ErrorClass::Transport {
                    // Whose they are is told once it is known whether others have them too.
                    watch.record.count(class, n);
                    paths.add(*disk, n, now);
                } else {
                    watch.record.add(policy, class, n);
                }
            }
            watch.seen = errors;
        }
        let settled = paths.settle(now);
        for (disk, n) in settled.own {
            if let Some(watch) = watches.get_mut(&disk) {
                watch.record.fill(policy, ErrorClass::Transport, n);
            }
        }
        if !settled.path.is_empty() {
            let disks: Vec<DiskNumber> = settled.path.into_iter().collect();
            self.event(
                Severity::Warning,
                "path-problem",
                None,
                None,
                format!(
                    "transport errors on disks {} at once: look at what they share (cable, controller, enclosure); no disk is judged by them",
                    super::groups::list(&disks)
                ),
            );
        }
    }

    /// Sets each member's request times against its peers'.
    fn compare_latencies(self: &Rc<Self>, policy: &Policy, group: &Rc<Group<E>>, now: u64) {
        let since = *self.watches.windows.borrow_mut().entry(group.number).or_insert(now);
        let age = now.saturating_sub(since);
        if age < WINDOW_NS {
            return;
        }
        let mains: Vec<Rc<Drive<E>>> =
            group.with_slots(|slots| slots.iter().filter_map(|s| s.main.clone()).collect());
        let told = mains.iter().filter(|d| d.latencies.borrow().can_tell()).count();
        if told < 2 && age < WINDOW_NS_MAX {
            return;
        }
        self.watches.windows.borrow_mut().insert(group.number, now);
        let times: Vec<(DiskNumber, Latencies)> =
            mains.iter().map(|d| (d.number, d.latencies.take())).collect();
        let mut watches = self.watches.disks.borrow_mut();
        for (at, (disk, own)) in times.iter().enumerate().filter(|(_, (_, own))| own.can_tell()) {
            let peers: Vec<&Latencies> =
                times.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, (_, l))| l).collect();
            let slow = is_slow(own, &peers);
            let watch = watches.entry(*disk).or_default();
            if watch.sitting.look(slow.is_some(), now) {
                watch.record.add(policy, ErrorClass::Slow, 1);
                self.watches.changed.set(true);
                let (mine, theirs) = slow.unwrap_or_default();
                self.event(
                    Severity::Warning,
                    "disk-sat-out",
                    Some(*disk),
                    Some(group.number),
                    format!(
                        "disk {disk} ({}) takes {:.1} ms where its peers take {:.1} ms: it is not read for a while",
                        self.path_of(*disk),
                        mine as f64 / 1e6,
                        theirs as f64 / 1e6
                    ),
                );
            }
        }
    }

    /// Judges every disk beside those that share its fate, tells of changes, and keeps hosts' reads off those that are ill.
    fn judge_all(self: &Rc<Self>, groups: &[Rc<Group<E>>]) {
        let now = self.rt.now_ns();
        let mut together: Vec<(Option<GroupNumber>, Vec<DiskNumber>)> = groups
            .iter()
            .map(|g| {
                let mains = |slots: &[crate::group::SlotRt<E>]| {
                    slots.iter().filter_map(|s| s.main.as_ref()).map(|m| m.number).collect()
                };
                (Some(g.number), g.with_slots(mains))
            })
            .collect();
        let members: Vec<DiskNumber> = together.iter().flat_map(|(_, d)| d.clone()).collect();
        let alone = self.watches.disks.borrow().keys().copied().collect::<Vec<_>>();
        together.extend(
            alone.into_iter().filter(|d| !members.contains(d)).map(|disk| (None, vec![disk])),
        );
        for (group, disks) in together {
            let findings = {
                let mut watches = self.watches.disks.borrow_mut();
                let members: Vec<Member> = disks
                    .iter()
                    .map(|disk| {
                        let watch = watches.entry(*disk).or_default();
                        watch.sat_out = watch.sitting.is_sat_out(now);
                        Member {
                            disk: *disk,
                            record: watch.record,
                            sat_out: watch.sat_out,
                            was_ailing: watch.ailing,
                        }
                    })
                    .collect();
                judge(&members)
            };
            for finding in findings {
                self.note_finding(group, finding);
            }
        }
        for group in groups {
            let watches = self.watches.disks.borrow();
            let ill = |disk: DiskNumber| watches.get(&disk).is_some_and(|w| w.ailing || w.sat_out);
            group.set_avoid(group.with_slots(|slots| {
                let ill = |i: &usize| slots[*i].main.as_ref().is_some_and(|m| ill(m.number));
                (0..slots.len()).filter(ill).map(|i| Slot(i as u8)).collect::<SlotSet>()
            }));
        }
    }

    fn note_finding(self: &Rc<Self>, group: Option<GroupNumber>, finding: Finding) {
        let disk = finding.disk;
        if finding.verdict == Verdict::Ailing && !self.is_ailing(disk) {
            self.distrust(disk);
        }
        let part = {
            let config = self.config.borrow();
            let serves = config.disk(disk).is_some_and(|entry| entry.in_service());
            // What is used no longer is no news; should it come back it is looked at anew.
            if !serves || self.failing.borrow().contains_key(&disk) {
                return;
            }
            part_of(&config, disk)
        };
        let before = {
            let mut watches = self.watches.disks.borrow_mut();
            let watch = watches.entry(disk).or_default();
            watch.finding = Some(finding.clone());
            std::mem::replace(&mut watch.told, finding.verdict)
        };
        if before == finding.verdict {
            return;
        }
        let (severity, kind) = match finding.verdict {
            Verdict::Ailing => (Severity::Warning, "disk-ailing"),
            Verdict::Watched => (Severity::Warning, "disk-watched"),
            Verdict::Healthy if before != Verdict::Ailing => (Severity::Info, "disk-well"),
            Verdict::Healthy | Verdict::SatOut | Verdict::Out => return,
        };
        // A disk that was replaced is about to leave: nothing is to be done about it.
        let severity = if part.as_deref() == Some(REPLACED) { Severity::Info } else { severity };
        let what = finding.words(&self.path_of(disk), part.as_deref());
        self.event(severity, kind, Some(disk), group, what);
    }

    async fn save_health(self: &Rc<Self>) {
        let now = self.rt.now_ns();
        let due = now.saturating_sub(self.watches.saved_ns.get()) >= SAVE_NS;
        if !self.watches.changed.get() || !(due || self.watches.urgent.get()) {
            return;
        }
        self.watches.saved_ns.set(now);
        self.watches.changed.set(false);
        self.watches.urgent.set(false);
        // Counts that could not be kept are kept with the next change.
        if self.commit(|next| self.keep_health(next)).await.is_err() {
            self.watches.changed.set(true);
        }
    }

    // --- acting ------------------------------------------------------------------------------------------------------

    /// Starts to replace ailing members, as many at once as the policy says.
    async fn avoid_ailing(self: &Rc<Self>) {
        let (candidates, ailing, disks, running) = {
            let config = self.config.borrow();
            let watches = self.watches.disks.borrow();
            let is_held = |disk: DiskNumber| watches.get(&disk).is_some_and(|w| w.held);
            let slots = || config.groups.iter().flat_map(|g| &g.slots);
            let in_sync = || slots().filter(|s| s.state == SlotState::InSync);
            let candidates: Vec<DiskNumber> = in_sync()
                .filter(|s| s.replacement.is_none() && self.is_ailing(s.disk) && !is_held(s.disk))
                .filter(|s| !is_queued(&config, s.disk))
                .map(|s| s.disk)
                .collect();
            let ailing = in_sync().filter(|s| self.is_ailing(s.disk)).count();
            let running = slots().filter(|s| s.replacement.is_some()).count();
            (candidates, ailing, slots().count(), running)
        };
        let policy = self.policy();
        let braked = brake(ailing, disks);
        if braked && !self.watches.braked.get() {
            self.event(
                Severity::Critical,
                "avoidance-braked",
                None,
                None,
                format!(
                    "{ailing} of {disks} members look ill at once: something they share is likelier. Nothing is replaced by itself; \
                     `forestall replace DISK` still works, `forestall health clear DISK` takes a verdict back"
                ),
            );
        }
        self.watches.braked.set(braked);
        if braked || policy.mode == Mode::Advise {
            return;
        }
        let free = (policy.at_once as usize).saturating_sub(running);
        for disk in candidates.into_iter().take(free) {
            self.replace_by_itself(disk).await;
        }
    }

    async fn replace_by_itself(self: &Rc<Self>, disk: DiskNumber) {
        let group = self.config.borrow().slot_of(disk).map(|(group, _)| group);
        let shelters = self.policy().shelter && self.lacks_spare(disk);
        let outcome = match shelters {
            true => self.shelter(disk).await,
            false => self.replace(disk, None, 0).await.map(|_| true),
        };
        let mut watches = self.watches.disks.borrow_mut();
        let Some(watch) = watches.get_mut(&disk) else { return };
        match outcome {
            Ok(false) => {} // Somebody acted meanwhile: the next look tells.
            Ok(true) => {
                watch.refused.clear();
                let reason = watch.finding.as_ref().map_or_else(String::new, |f| f.reason.clone());
                let what = match shelters {
                    true => format!("disk {disk} waits for a spare behind a shield: {reason}"),
                    false => format!("disk {disk} is copied away before it fails: {reason}"),
                };
                self.event(Severity::Warning, "avoidance-started", Some(disk), group, what);
            }
            Err(error) => {
                let words = error.to_string();
                if watch.refused == words {
                    return;
                }
                let what = format!("disk {disk} is ailing and was not replaced: {words}");
                watch.refused = words;
                self.event(Severity::Critical, "avoidance-refused", Some(disk), group, what);
            }
        }
    }

    /// Whether no spare is there for a member.
    fn lacks_spare(&self, disk: DiskNumber) -> bool {
        let config = self.config.borrow();
        let group = config.slot_of(disk).and_then(|(group, _)| self.group(group).ok());
        group.is_some_and(|group| self.pick_spare(&config, group.member_len()).is_none())
    }

    /// A disk that proved healthy in its test starts anew, marked as once suspected.
    pub(super) async fn trust_again(self: &Rc<Self>, disk: DiskNumber) -> Result<(), CommandError> {
        self.watch_anew(disk);
        self.commit(|next| {
            self.keep_health(next);
            next.failed_tests.remove(&disk);
            let suspected = &mut next.backups.suspected;
            if let Err(at) = suspected.binary_search(&disk) {
                suspected.insert(at, disk);
            }
        })
        .await
    }

    /// A disk is ailing, whatever its errors, until an operator clears that: it is no spare, and is to be replaced.
    pub(super) fn distrust(&self, disk: DiskNumber) {
        self.watches.disks.borrow_mut().entry(disk).or_default().ailing = true;
        self.watches.changed.set(true);
        self.watches.urgent.set(true);
    }

    /// Forgets a disk's errors; what it made so far counts no more.
    fn watch_anew(&self, disk: DiskNumber) {
        let seen = self.drives.borrow().get(&disk).map(|d| d.errors.get()).unwrap_or_default();
        self.watches.disks.borrow_mut().insert(disk, Watch { seen, ..Watch::default() });
    }

    /// The disk itself says that it will fail (SMART).
    pub fn smart_failure(self: &Rc<Self>, disk: DiskNumber) {
        if self.config.borrow().disk(disk).is_none() {
            return;
        }
        let policy = self.policy();
        let mut watches = self.watches.disks.borrow_mut();
        let watch = watches.entry(disk).or_default();
        watch.record.add(&policy, ErrorClass::Smart, 1);
        // At once: by the next look the bucket has leaked a little.
        watch.ailing |= watch.record.level >= FULL;
        self.watches.changed.set(true);
        self.watches.urgent.set(true);
        drop(watches);
        let config = self.config.borrow();
        if !config.disk(disk).is_some_and(|entry| entry.in_service()) {
            return; // It is used no longer: nobody is to be woken.
        }
        let group = config.slot_of(disk).map(|(group, _)| group);
        drop(config);
        let what =
            format!("disk {disk} ({}) says itself that it will fail (SMART)", self.path_of(disk));
        self.event(Severity::Warning, "smart-failure", Some(disk), group, what);
    }

    /// Whether a disk is expected to fail.
    pub(super) fn is_ailing(&self, disk: DiskNumber) -> bool {
        self.watches.disks.borrow().get(&disk).is_some_and(|w| w.ailing)
    }

    /// Whether a disk is copied away by itself as soon as a spare is there.
    pub(super) fn is_replaced_by_itself(&self, disk: DiskNumber) -> bool {
        let ails = |watch: &Watch| watch.ailing && !watch.held;
        let by_itself = self.policy().mode == Mode::Auto && !self.watches.braked.get();
        by_itself && self.watches.disks.borrow().get(&disk).is_some_and(ails)
    }

    /// Keeps a disk from being replaced by itself, or allows it again.
    pub(super) fn hold(&self, disk: DiskNumber, held: bool) {
        self.watches.disks.borrow_mut().entry(disk).or_default().held = held;
    }

    /// A disk that comes into the array, or leaves it, has no past.
    pub(super) fn forget_health(&self, disk: DiskNumber) {
        self.watches.disks.borrow_mut().remove(&disk);
    }
}

/// Whether an ailing member waits until the avoidance of its group has come to an end, or is the one that it is about.
fn is_queued(config: &Configuration, disk: DiskNumber) -> bool {
    let Some((group, slot)) = config.slot_of(disk) else { return false };
    config.backups.of_group(group).is_some_and(|avoidance| match avoidance.state {
        AvoidanceState::WritingBack | AvoidanceState::Sheltered => true,
        AvoidanceState::Entering | AvoidanceState::Copying => avoidance.slot == slot,
    })
}
