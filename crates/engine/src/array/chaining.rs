//! Chains that grow: when each backup of a shielded volume is half full, the next work volume or work disk is put behind them (rule B1).
//!
//! Owns that step. Invariants: a chain is only ever appended to, in the commit that brings the new place into use, so a block is never marked in a
//! storage that a start would not read; a volume whose writes go home from the beginning is not shielded by it, since the writes that are on
//! their way to its group were not waited for (rule A1).

use std::collections::BTreeSet;
use std::rc::Rc;

use super::Array;
use super::backing::NewLogs;
use super::strategy::further;
use crate::config::{AvoidanceState, BackupPlace, Configuration, ShieldedVolume};
use crate::error::CommandError;
use crate::format::config::CHAIN_MAX;
use crate::ids::{GroupNumber, VolumeNumber};
use crate::report::Severity;
use crate::runtime::{Env, Runtime};

/// Time until a place that took no log is tried again.
const AGAIN_NS: u64 = 10_000_000_000;

/// A place to be put behind the others of a volume.
type Link = (GroupNumber, VolumeNumber, BackupPlace);

impl<E: Env> Array<E> {
    /// Puts further places behind the backups that fill up, in the background, if there are any.
    pub(super) fn chain_further(self: &Rc<Self>) {
        if self.stopping.get() || self.links().is_empty() || self.chaining.replace(true) {
            return;
        }
        let array = Rc::clone(self);
        self.rt.spawn(Box::pin(async move {
            if array.add_links().await.is_err() {
                array.sleep_unless_stopped(AGAIN_NS).await;
            }
            array.chaining.set(false);
        }));
    }

    /// What is to be appended to chains now.
    fn links(&self) -> Vec<Link> {
        let volumes = self.volumes.borrow();
        let wants = |v: &&ShieldedVolume| {
            let shield = volumes.get(&v.volume).and_then(|volume| volume.shield());
            v.chain.len() < CHAIN_MAX && shield.is_some_and(|shield| shield.wants_more())
        };
        let config = self.config.borrow();
        let short = config.backups.avoidances.iter().any(|a| a.volumes.iter().any(|v| wants(&v)));
        if !short {
            return Vec::new();
        }
        let mut offers = self.offers(&config);
        let logs = self.logs.borrow();
        offers.retain(|place, _| !logs.get(place).is_some_and(|log| log.is_nearly_full()));
        let mut links = Vec::new();
        for avoidance in &config.backups.avoidances {
            let number = avoidance.group;
            let (Some(entry), Ok(group)) = (config.group(number), self.group(number)) else {
                continue;
            };
            let tolerance = group.geometry.tolerance() as u32;
            let next = |v| further(&config, entry, tolerance, avoidance.asked, &offers, v);
            let short = avoidance.volumes.iter().filter(wants);
            links.extend(short.filter_map(|v| Some((number, v.volume, next(v)?))));
        }
        links
    }

    async fn add_links(self: &Rc<Self>) -> Result<(), CommandError> {
        let _turn = self.turn().await?;
        let links = self.links();
        let places: BTreeSet<BackupPlace> = links.iter().map(|(_, _, place)| *place).collect();
        let added = match self.open_logs(places).await {
            Ok(logs) => self.commit(|next| append(next, &links, &logs)).await,
            Err(error) => Err(error),
        };
        self.close_unused();
        added?;
        links.iter().for_each(|link| self.tell_of_link(link));
        Ok(())
    }

    fn tell_of_link(&self, (group, volume, place): &Link) {
        let config = self.config.borrow();
        let entry = config.volumes.iter().find(|v| v.number == *volume);
        let name = entry.map_or("", |entry| entry.name.as_str());
        let avoidance = config.backups.of_group(*group);
        let chain = avoidance.and_then(|a| a.volumes.iter().find(|v| v.volume == *volume));
        let Some(chain) = chain.map(|v| &v.chain).filter(|chain| chain.contains(place)) else {
            return;
        };
        let before = chain.iter().take_while(|p| *p != place).map(BackupPlace::to_string);
        let before = before.collect::<Vec<_>>().join(", ");
        let what = format!(
            "the backup ({before}) of volume {volume} ({name}) is half full or takes no more: {place} goes on when there is no room"
        );
        drop(config);
        self.event(Severity::Info, "backup-chained", None, Some(*group), what);
    }
}

/// Appends to the chains of volumes whose writes are still redirected, and brings the logs into use that this takes.
fn append(next: &mut Configuration, links: &[Link], logs: &NewLogs) {
    for (group, volume, place) in links {
        let avoidance = next.backups.of_group_mut(*group);
        let Some(avoidance) = avoidance.filter(|a| a.state != AvoidanceState::WritingBack) else {
            continue;
        };
        let shielded = avoidance.volumes.iter_mut().find(|v| v.volume == *volume);
        // A chain that was emptied meanwhile is no shield any more.
        let grows = |v: &&mut ShieldedVolume| !v.chain.is_empty() && !v.chain.contains(place);
        if let Some(shielded) = shielded.filter(grows) {
            shielded.chain.push(*place);
        }
    }
    for (place, id) in logs {
        let used = next.backups.users_of(*place).next().is_some();
        if let Some(work) = next.backups.work_at_mut(*place).filter(|_| used) {
            work.log = *id;
        }
    }
}
