//! Failure avoidance: raising a group's shield, entering, leaving, taking updates home (rules A1 to A6).
//!
//! Owns the state machine's steps; `tend` decides which comes next. Invariants: each state is committed before it takes effect; a shield is up
//! from the commit that names it until a commit that takes it away, which comes only when everything is home and durable; the copy begins only
//! when no write of before is on its way to the group.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::Array;
use super::backing::NewLogs;
use super::reversal;
use super::secondaries::{self, take_temporary_pairs};
use super::strategy::{Plan, choose};
use crate::config::{
    AvoidanceEntry, AvoidanceState, BackupPlace, Configuration, PairEntry, Strategy, VolumeEntry,
};
use crate::error::CommandError;
use crate::group::Group;
use crate::ids::{BLOCK_SIZE, GroupNumber, Slot, VolumeNumber};
use crate::pair::Mode;
use crate::progress::Progress;
use crate::report::{JobKind, JobState, Severity};
use crate::runtime::{Env, Runtime};
use crate::shield::{Backup, DrainEnd, Shield, Unreadable};
use crate::volume::VolumeRt;
use crate::words;

/// Time until updates that could not be taken home are tried again: what does not answer now may do so later.
const AGAIN_NS: u64 = 10_000_000_000;

/// Pairs made for an avoidance, with their secondaries.
type NewPairs = Vec<(PairEntry, VolumeEntry)>;

/// A shield about to be raised.
pub(super) struct Raising {
    plan: Plan,
    entry: AvoidanceEntry,
    logs: NewLogs,
    pairs: NewPairs,
}

/// What came of the choice of backups.
pub(super) enum Choice {
    /// Some writes go elsewhere.
    Shield(Box<Raising>),
    /// All go home, for these reasons.
    Direct(String),
}

impl<E: Env> Array<E> {
    /// Chooses the backups of a group, opens the logs that come into use and readies new pairs.
    pub(super) async fn prepare_shield(
        self: &Rc<Self>,
        config: &Configuration,
        group: &Rc<Group<E>>,
        slot: Slot,
        asked: Strategy,
    ) -> Result<Choice, CommandError> {
        let entry = config.group(group.number).expect("the group is configured");
        let offers = self.offers(config);
        let tolerance = group.geometry.tolerance() as u32;
        let plan = choose(config, entry, tolerance, asked, &offers, &self.whole_groups())
            .map_err(CommandError::Refused)?;
        let places: BTreeSet<BackupPlace> =
            plan.volumes.iter().flat_map(|v| &v.chain).copied().collect();
        if places.is_empty() {
            return Ok(Choice::Direct(plan.why.join("; ")));
        }
        let opened = self.open_storages(&plan, places).await;
        if opened.is_err() {
            self.close_unused();
        }
        let (logs, pairs) = opened?;
        let avoidance = AvoidanceEntry {
            group: group.number,
            slot,
            state: AvoidanceState::Entering,
            paused: false,
            asked,
            retiring: None,
            volumes: plan.volumes.clone(),
        };
        Ok(Choice::Shield(Box::new(Raising { plan, entry: avoidance, logs, pairs })))
    }

    /// Opens logs that come into use, and readies new pairs.
    async fn open_storages(
        self: &Rc<Self>,
        plan: &Plan,
        places: BTreeSet<BackupPlace>,
    ) -> Result<(NewLogs, NewPairs), CommandError> {
        let logs = self.open_logs(places).await?;
        Ok((logs, self.ready_secondaries(&plan.secondaries).await?))
    }

    /// Closes the logs and pairs that the configuration does not use: of a shield that came down, or was not raised.
    pub(super) fn close_unused(&self) {
        let config = self.config.borrow();
        let in_use = |place| config.backups.work_at(place).is_some_and(|w| w.log != 0);
        self.logs.borrow_mut().retain(|place, _| in_use(*place));
        let named = |primary, id| config.backups.pair_of(primary).is_some_and(|p| p.id == id);
        self.pairs.borrow_mut().retain(|primary, pair| named(*primary, pair.id));
    }

    /// Enters a shield into a configuration to be committed.
    pub(super) fn enter_shield(next: &mut Configuration, raising: &Raising) {
        for (place, id) in &raising.logs {
            if let Some(work) = next.backups.work_at_mut(*place) {
                work.log = *id;
            }
        }
        for (pair, secondary) in &raising.pairs {
            secondaries::enter(next, pair, secondary);
        }
        let at = next.backups.avoidances.partition_point(|a| a.group < raising.entry.group);
        next.backups.avoidances.insert(at, raising.entry.clone());
        reversal::begin_syncing(next, raising.entry.group);
    }

    /// Tells of a shield that was raised.
    pub(super) fn tell_of_shield(&self, raising: &Raising) {
        let group = raising.entry.group;
        let what = format!(
            "group {group} is shielded: writes go elsewhere while its disk is copied ({})",
            raising.plan.why.join("; ")
        );
        self.event(Severity::Warning, "shield-raised", None, Some(group), what);
    }

    /// The avoidance under way in a group.
    #[must_use]
    pub fn avoidance(&self, group: GroupNumber) -> Option<AvoidanceEntry> {
        self.config.borrow().backups.of_group(group).cloned()
    }

    /// The shielded volumes of a group.
    fn shielded(&self, group: GroupNumber) -> Vec<(Rc<VolumeRt<E>>, Rc<Shield<E>>)> {
        let volumes = self.volumes.borrow();
        let of_group = volumes.values().filter(|v| v.group().number == group);
        of_group.filter_map(|v| Some((Rc::clone(v), v.shield()?))).collect()
    }

    /// Commits a change of a group's avoidance, if it is still there.
    async fn commit_avoidance(
        self: &Rc<Self>,
        group: GroupNumber,
        change: impl FnOnce(&mut AvoidanceEntry),
    ) -> Result<(), CommandError> {
        self.commit(|next| {
            if let Some(avoidance) = next.backups.of_group_mut(group) {
                change(avoidance);
            }
        })
        .await
    }

    /// Rule A1: what was on its way home when the shield came up is drained and flushed, the intent bits are cleared, and only
    /// then the copy begins.
    pub(super) async fn run_enter(self: &Rc<Self>, group: &Rc<Group<E>>) -> bool {
        // A scrub reads the ailing disk and writes what it mends.
        let scrub = |job: &super::jobs::Job| {
            job.group == group.number && matches!(job.kind, JobKind::Check | JobKind::Repair)
        };
        self.jobs.stop_those(scrub);
        self.jobs.ended(scrub).await;
        for (volume, _) in self.shielded(group.number) {
            volume.pass().await;
        }
        if group.sweep(true).await.is_err() {
            return false;
        }
        let mut shelters = false;
        let entered = self.commit(|next| {
            let entry = next.group(group.number);
            let filled = entry.is_some_and(|g| g.slots.iter().any(|slot| slot.filled().is_some()));
            shelters = next.health.policy.shelter && !filled;
            if let Some(avoidance) = next.backups.of_group_mut(group.number)
                && avoidance.state == AvoidanceState::Entering
            {
                let states = [AvoidanceState::Copying, AvoidanceState::Sheltered];
                avoidance.state = states[usize::from(shelters)];
            }
        });
        let entered = entered.await.is_ok();
        if entered && shelters {
            self.tell_of_shelter(group.number);
        }
        entered
    }

    /// Nothing is left to copy, or nothing to copy to: updates go home.
    pub(super) async fn run_leave(self: &Rc<Self>, group: &Rc<Group<E>>) -> bool {
        let slot = self.avoidance(group.number).map(|avoidance| avoidance.slot);
        let left = self.commit_avoidance(group.number, |avoidance| {
            avoidance.state = AvoidanceState::WritingBack;
        });
        let left = left.await.is_ok();
        if left && let Some(slot) = slot {
            self.end_copy((group.number, slot));
        }
        left
    }

    /// Takes every update home, then the shield down.
    pub(super) async fn run_write_back(self: &Rc<Self>, group: &Rc<Group<E>>) -> bool {
        let number = group.number;
        let volumes = self.shielded(number);
        let total: u64 = volumes.iter().map(|(volume, _)| volume.blocks_away()).sum();
        let progress = Progress::new(total * BLOCK_SIZE, 0, self.rt.now_ns());
        let retired = self.retry_from_retired(number).await;
        let job = self.begin_job(JobKind::WriteBack, number, None, Rc::clone(&progress));
        let end = self.drain_all(group, &volumes, &progress).await;
        let (state, severity, message) = match end {
            DrainEnd::Done => match self.lower_shield(number).await {
                Ok(()) => (JobState::Done, Severity::Info, home_words(&progress)),
                Err(error) => (JobState::Failed, Severity::Warning, error.to_string()),
            },
            DrainEnd::Stopped if !self.stopping.get() => (
                JobState::Stopped,
                Severity::Info,
                "a member that is out is rebuilt first; goes on by itself after that".into(),
            ),
            end => unfinished(end),
        };
        self.end_job(&job, state, message.clone());
        let what = format!("write-back of group {number}: {message}");
        self.event(severity, "write-back-ended", None, Some(number), what);
        if let (JobState::Done, Some(retired)) = (state, retired) {
            self.test_or_keep(group, retired);
        }
        if state == JobState::Failed {
            self.sleep_unless_stopped(AGAIN_NS).await;
            return true;
        }
        state == JobState::Done || self.wants_spare(group)
    }

    async fn drain_all(
        self: &Rc<Self>,
        group: &Rc<Group<E>>,
        volumes: &[(Rc<VolumeRt<E>>, Rc<Shield<E>>)],
        progress: &Progress,
    ) -> DrainEnd {
        for (volume, shield) in volumes {
            // Writes that were redirected before the state changed have ended, and are marked.
            volume.pass().await;
            let interrupted = || self.wants_spare(group);
            let end = match volume.reversed() {
                Some(mirror) => self.return_pair(volume, &mirror, progress, &interrupted).await,
                None => {
                    let lose = Unreadable::Lose;
                    shield.drain(volume, progress, &|_| true, lose, &interrupted).await
                }
            };
            if end != DrainEnd::Done {
                return end;
            }
        }
        DrainEnd::Done
    }

    /// Rule B7: what a backup holds less safely than home would is taken home early, while the copy goes on.
    pub(super) fn drain_weakened(self: &Rc<Self>) {
        let volumes = self.volumes.borrow();
        let weak = volumes.values().any(|volume| self.is_weak(volume));
        if !weak || self.stopping.get() || self.draining.replace(true) {
            return;
        }
        drop(volumes);
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move {
            let _step = array.steps.one();
            let volumes: Vec<_> = array.volumes.borrow().values().cloned().collect();
            for volume in volumes {
                let goes_on = !array.stopping.get() && array.is_weak(&volume);
                let weak = volume.shield().filter(|_| goes_on);
                let Some(shield) = weak else { continue };
                let group = volume.group().number;
                let total = volume.blocks_away() * BLOCK_SIZE;
                let progress = Progress::new(total, 0, array.rt.now_ns());
                let job = array.begin_job(JobKind::WriteBack, group, None, Rc::clone(&progress));
                let weakened = |backup: &Backup<E>| shield.is_weakened(backup);
                let mended = || !shield.is_weak();
                let end = match volume.reversed() {
                    Some(mirror) => array.return_pair(&volume, &mirror, &progress, &|| false).await,
                    None => {
                        let keep = Unreadable::Keep;
                        shield.drain(&volume, &progress, &weakened, keep, &mended).await
                    }
                };
                let failed = matches!(end, DrainEnd::Failed(_));
                let (state, severity, what) = match end {
                    DrainEnd::Done => (
                        JobState::Done,
                        Severity::Warning,
                        format!(
                            "a backup of volume {:?} lost a copy: {} taken home early",
                            volume.report().name,
                            words::counted(progress.done.get() / BLOCK_SIZE, "block")
                        ),
                    ),
                    DrainEnd::Stopped if mended() => (
                        JobState::Stopped,
                        Severity::Info,
                        "the backup has its copies again".into(),
                    ),
                    end => unfinished(end),
                };
                array.end_job(&job, state, what.clone());
                array.event(severity, "drained-early", None, Some(group), what);
                if failed {
                    array.sleep_unless_stopped(AGAIN_NS).await;
                }
            }
            array.draining.set(false);
        }));
    }

    /// Whether something of a volume is less safe where it is than it would be at home (rule B7).
    fn is_weak(&self, volume: &VolumeRt<E>) -> bool {
        let returns = volume.mirror().is_some_and(|mirror| mirror.mode() == Mode::Returning);
        let redirects = |a: AvoidanceEntry| a.state != AvoidanceState::WritingBack;
        returns && self.avoidance(volume.group().number).is_some_and(redirects)
            || volume.shield().is_some_and(|shield| shield.is_weak())
    }

    /// Everything is home: one commit takes the shield down and lets its logs and the replaced disk go.
    async fn lower_shield(self: &Rc<Self>, group: GroupNumber) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let mut removed = Vec::new();
        let idle = |volume: VolumeNumber| {
            let volumes = self.volumes.borrow();
            volumes.get(&volume).and_then(|v| v.shield()).is_none_or(|s| s.marks() == 0)
        };
        self.commit(|next| {
            let Some(avoidance) = next.backups.of_group(group).cloned() else { return };
            let reversed = |v| next.backups.pair_of(v).is_some_and(|pair| pair.reversed);
            let drained = avoidance.state == AvoidanceState::WritingBack
                && avoidance.volumes.iter().all(|v| idle(v.volume) && !reversed(v.volume));
            if !drained {
                return; // A new avoidance began under the same shield.
            }
            next.backups.avoidances.retain(|a| a.group != group);
            removed = take_temporary_pairs(next, &avoidance);
            let table = &mut next.backups;
            for at in 0..table.work.len() {
                if table.users_of(table.work[at].place).next().is_none() {
                    table.work[at].log = 0;
                }
            }
            if let Some(old) = avoidance.retiring {
                self.let_leave(next, group, old);
            }
        })
        .await?;
        self.close_unused();
        self.release_secondaries(&removed).await;
        Ok(())
    }

    /// A slot that waits for a spare which is there: better filled under the shield than written back into.
    fn wants_spare(&self, group: &Rc<Group<E>>) -> bool {
        let config = self.config.borrow();
        config
            .group(group.number)
            .is_some_and(|entry| self.spare_for(&config, group, entry).is_some())
    }
}

/// What a write-back took home.
fn home_words(progress: &Progress) -> String {
    let home = progress.done.get() / BLOCK_SIZE;
    let are = if home == 1 { "is" } else { "are" };
    let home = words::counted(home, "block");
    match progress.lost.get() {
        0 => format!("{home} {are} home; the shield is down"),
        lost => format!(
            "{home} {are} home, {} not to be had from any backup and listed lost; the shield is down",
            words::counted(lost, "block")
        ),
    }
}

/// How a write-back that did not take everything home is told of.
fn unfinished(end: DrainEnd) -> (JobState, Severity, String) {
    match end {
        DrainEnd::Failed(why) => (JobState::Failed, Severity::Critical, why),
        DrainEnd::Done | DrainEnd::Stopped => {
            (JobState::Stopped, Severity::Info, "goes on at the next start".into())
        }
    }
}
