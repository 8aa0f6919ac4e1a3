//! The job that tells how far a secondary is from being equal to its primary, and its limit.
//!
//! Owns the job's beginning and end; the copying task in `following.rs` calls them. Invariant: there is such a job only while the pair is SYNCING and
//! copies: a pair that is held, split or taken apart has none, and one that merely follows has none either.

use std::rc::Rc;

use super::Array;
use super::jobs::Job;
use crate::error::CommandError;
use crate::ids::GroupNumber;
use crate::pair::Mirror;
use crate::report::JobState;
use crate::runtime::{Env, Runtime};
use crate::volume::VolumeRt;

impl<E: Env> Array<E> {
    /// Whether a volume of the group is about to be made equal to its secondary: no job tells of it yet.
    pub(super) fn mirroring_is_due(&self, group: GroupNumber) -> bool {
        let config = self.config.borrow();
        let volumes = config.volumes.iter().filter(|v| v.group == group).map(|v| v.number);
        let due = |primary| {
            let runs = || self.jobs.mirroring(group, primary).is_some();
            self.is_syncing(primary) && !self.pair_rests(primary) && !runs()
        };
        volumes.into_iter().any(due)
    }

    /// From now until both volumes are equal there is a job, which is told of and can be limited.
    pub(super) fn begin_mirroring(&self, volume: &VolumeRt<E>, mirror: &Mirror<E>) -> Rc<Job> {
        let progress = mirror.begin_job(self.rt.now_ns());
        self.begin_mirror_job(volume.group().number, volume.report().number, progress)
    }

    pub(super) fn end_mirroring(
        &self,
        mirror: &Mirror<E>,
        job: Option<Rc<Job>>,
        state: JobState,
        what: &str,
    ) {
        if let Some(job) = job {
            mirror.end_job();
            self.end_job(&job, state, what);
        }
    }

    /// Limits how fast the volumes of a pair are made equal, in bytes a second; 0 takes the limit away. Kept until the array stops.
    ///
    /// # Errors
    /// If there is no such pair.
    pub fn limit_pair(&self, primary: &str, rate: u64) -> Result<(), CommandError> {
        let pair = self.find_pair(primary)?;
        if let Some(mirror) = self.mirrors.borrow().get(&pair.primary) {
            mirror.set_limit(rate, self.rt.now_ns());
        }
        Ok(())
    }
}
