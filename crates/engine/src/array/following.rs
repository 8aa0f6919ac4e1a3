//! The task of each pair that copies: what differs is copied behind the hosts' backs, and what follows from there being nothing left.
//!
//! Owns which step is next and when a step that failed is tried again. Invariant: a pair is copied forward by its own task alone, so no copy is under
//! way when its direction changes. The commands are in `mirrors.rs`, the job in `mirroring.rs`, the change of direction and what is taken home in `reversal.rs`.

use std::rc::Rc;

use super::Array;
use crate::config::{PairEntry, PairStatus};
use crate::ids::VolumeNumber;
use crate::pair::{Mirror, Mode};
use crate::report::{JobState, Severity};
use crate::runtime::{Env, Runtime};
use crate::volume::VolumeRt;

/// Time for more writes to come before what differs is copied.
const GATHER_NS: u64 = 20_000_000;
/// Time until a copy that failed is tried again.
const AGAIN_NS: u64 = 10_000_000_000;

/// Why a job that makes volumes equal stopped.
const HALTED: &str = "the pair was held or split";

/// What is to be done for a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum PairStep {
    Copy,
    CallDuplex,
    Reverse,
    Rest,
}

impl<E: Env> Array<E> {
    /// Whether a pair copies now.
    pub(super) fn copies(&self, primary: VolumeNumber) -> bool {
        let config = self.config.borrow();
        let follows = |pair: &PairEntry| {
            !pair.hold && matches!(pair.status, PairStatus::Duplex | PairStatus::Syncing)
        };
        !self.stopping.get() && config.backups.pair_of(primary).is_some_and(follows)
    }

    /// Copies what differs between the volumes of a pair, until it is taken apart or the array stops; reverses a pair whose secondary is to take its
    /// primary's place.
    pub(super) fn tend_pair(self: &Rc<Self>, primary: VolumeNumber) {
        let Some(mirror) = self.mirrors.borrow().get(&primary).cloned() else { return };
        let Some(volume) = self.volumes.borrow().get(&primary).cloned() else { return };
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move {
            let (mut job, mut told) = (None, String::new());
            while !mirror.has_ended() && !array.stopping.get() {
                let next = array.next_of_pair(&volume, &mirror);
                let step = (next != PairStep::Rest).then(|| array.steps.one());
                let done = match next {
                    PairStep::Rest => {
                        let (state, what) = array.why_at_rest(primary, &mirror);
                        array.end_mirroring(&mirror, job.take(), state, what);
                        let seen = || mirror.has_ended() || array.stopping.get();
                        let rests = || array.next_of_pair(&volume, &mirror) == PairStep::Rest;
                        mirror.wake.wait_until(|| seen() || !rests()).await;
                        Ok(())
                    }
                    PairStep::Copy => {
                        if job.is_none() && array.is_syncing(primary) {
                            job = Some(array.begin_mirroring(&volume, &mirror));
                        }
                        array.copy_pair(&volume, &mirror).await
                    }
                    PairStep::Reverse => array.reverse_pair(&volume, &mirror).await,
                    PairStep::CallDuplex => array.call_duplex(primary, &mirror).await,
                };
                // A copy that failed, or succeeds again, changes what the pair is good for while its primary is shielded.
                array.follow_modes();
                if let Err(why) = done {
                    let what = format!("making the secondary of volume {primary} equal: {why}");
                    array.end_mirroring(&mirror, job.take(), JobState::Failed, &what);
                    // Tried again and again, told once.
                    if told != what {
                        told.clone_from(&what);
                        array.event(Severity::Warning, "pair-copy-failed", None, None, what);
                    }
                    let gone = !mirror.pair.group().is_readable();
                    if gone && array.break_pair(primary, mirror.pair.id).await {
                        return;
                    }
                    drop(step);
                    array.sleep_unless_stopped(AGAIN_NS).await;
                } else if job.as_ref().is_some_and(|job| job.progress.stop.get()) {
                    // Held or split, and perhaps let go on since: what its limit was to be is asked anew.
                    array.end_mirroring(&mirror, job.take(), JobState::Stopped, HALTED);
                }
            }
            let what = "the pair ended, or the array stops";
            array.end_mirroring(&mirror, job, JobState::Stopped, what);
        }));
    }

    /// How the job that made a pair equal ended, of one that rests.
    fn why_at_rest(&self, primary: VolumeNumber, mirror: &Mirror<E>) -> (JobState, &'static str) {
        match (mirror.is_reversed(), self.copies(primary)) {
            (true, _) => (JobState::Done, "the secondary has its primary's place"),
            (false, true) => (JobState::Done, "the secondary is equal"),
            (false, false) => (JobState::Stopped, HALTED),
        }
    }

    /// Whether there is nothing to be done for a pair at the moment.
    pub(super) fn pair_rests(&self, primary: VolumeNumber) -> bool {
        let (volumes, mirrors) = (self.volumes.borrow(), self.mirrors.borrow());
        let pair = volumes.get(&primary).zip(mirrors.get(&primary));
        pair.is_none_or(|(volume, mirror)| self.next_of_pair(volume, mirror) == PairStep::Rest)
    }

    fn next_of_pair(&self, volume: &VolumeRt<E>, mirror: &Mirror<E>) -> PairStep {
        let primary = volume.report().number;
        if !self.copies(primary) {
            return PairStep::Rest;
        }
        if self.may_reverse(volume, mirror) {
            PairStep::Reverse
        } else if mirror.pair.marks() > 0 {
            PairStep::Copy
        } else if mirror.mode() == Mode::Follows && self.is_syncing(primary) {
            PairStep::CallDuplex
        } else {
            PairStep::Rest
        }
    }

    async fn copy_pair(
        self: &Rc<Self>,
        volume: &Rc<VolumeRt<E>>,
        mirror: &Mirror<E>,
    ) -> Result<(), String> {
        let primary = volume.report().number;
        self.rt.sleep_ns(GATHER_NS).await;
        let copied = mirror.copy(volume, &mirror.progress(), &|| self.copies(primary)).await;
        copied.map_err(|failed| failed.to_string())
    }

    pub(super) fn is_syncing(&self, primary: VolumeNumber) -> bool {
        let config = self.config.borrow();
        config.backups.pair_of(primary).is_some_and(|p| p.status == PairStatus::Syncing)
    }

    /// Nothing differs any more: the secondary follows from now on.
    async fn call_duplex(
        self: &Rc<Self>,
        primary: VolumeNumber,
        mirror: &Rc<Mirror<E>>,
    ) -> Result<(), String> {
        let committed = self
            .commit(|next| {
                if mirror.mode() == Mode::Follows
                    && let Some(pair) = next.backups.pair_of_mut(primary)
                    && pair.status == PairStatus::Syncing
                    && pair.id == mirror.pair.id
                {
                    pair.status = PairStatus::Duplex;
                }
            })
            .await;
        committed.map_err(|error| error.to_string())?;
        let what = format!("the secondary of volume {primary} is equal to it and follows");
        self.event(Severity::Info, "pair-duplex", None, None, what);
        Ok(())
    }
}
