//! Assembly: from disks in any order, under any names, to an array ready to serve (rules C4, C5, M4).
//!
//! Owns the order of a start. Invariants: no byte is changed before every refusal has been ruled out; what was chosen is committed again
//! before anything is served; after an unclean stop every marked region is dirty. Which configuration to believe is `quorum`'s matter.

use std::rc::Rc;

use super::{Array, AssembleOptions, AtStart, NewDisk, backing, commit, given_up, labels};
use crate::drive::{Drive, TIMEOUT_NS_DEFAULT};
use crate::error::AssembleError;
use crate::format::label::{Label, LabelError};
use crate::format::layout::Layout;
use crate::group::Away;
use crate::ids::DiskNumber;
use crate::quorum::{Choice, FoundDisk, Options, Refusal, choose, older_slot};
use crate::report::Severity;
use crate::runtime::{Env, Runtime};
use crate::words;

/// A disk with its label.
struct Candidate<E: Env> {
    disk: NewDisk<E>,
    label: Label,
    damaged: Vec<u64>,
    notes: Vec<String>,
    configs: labels::Slots,
}

/// A disk that was given and holds no label that can be used.
struct Unfit {
    path: String,
    why: String,
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

pub(super) fn open_drive<E: Env>(
    rt: &E::Runtime,
    number: DiskNumber,
    disk: NewDisk<E>,
    layout: Layout,
    timeout_ns: u64,
) -> Rc<Drive<E>> {
    Drive::new(rt.clone(), number, disk.disk, layout, disk.identity, timeout_ns)
}

/// An assembly refused, and the disks handed back.
type Refused<E> = (AssembleError, Vec<NewDisk<E>>);

impl<E: Env> Array<E> {
    /// Finds the array on `disks` (in any order, under any names), re-commits what it chose and makes it ready to serve
    /// (rules C4, C5). Background work (resync, rebuilds) starts with [`Array::start`].
    ///
    /// # Errors
    /// A refusal that names the missing or diverged disks and the way out; then no byte changed, and the disks are handed back
    /// (but for a failure of the commit itself).
    pub async fn assemble(
        rt: E::Runtime,
        disks: Vec<NewDisk<E>>,
        options: AssembleOptions,
    ) -> Result<Rc<Self>, Refused<E>> {
        let timeout_ns = match options.disk_timeout_ms.saturating_mul(1_000_000) {
            0 => TIMEOUT_NS_DEFAULT,
            limit => limit,
        };
        let (candidates, unfit) = read_all(&rt, timeout_ns, disks).await?;
        let found: Vec<FoundDisk> = candidates
            .iter()
            .map(|c| FoundDisk {
                number: c.label.number,
                uuid: c.label.disk,
                configs: c.configs.iter().flatten().cloned().collect(),
            })
            .collect();
        let quorum = Options { degraded: options.degraded, choose: options.choose };
        let choice = match choose(&found, quorum) {
            Ok(choice) => choice,
            Err(refusal) => return Err((refused(&candidates, refusal), hand_back(candidates))),
        };
        let array = Self::new(
            rt.clone(),
            choice.config.clone(),
            choice.counted,
            timeout_ns,
            options.scrub_every_s,
        );
        let damaged = array.take_disks(candidates, &choice);
        if let Err(error) = array.build(&choice, &options).await {
            return Err((error, Vec::new()));
        }
        array.load_health();
        array.load_log().await;
        for (label, bad, drive) in damaged {
            // The other copy served; mending it is a courtesy that may fail.
            let _ = labels::mend_label(drive.raw(), &label, &bad).await;
        }
        array.announce(&choice);
        array.announce_unfit(unfit);
        if !array.given_up.borrow().is_empty() {
            // Nothing else tells of it at the next start.
            array.log_written().await;
        }
        Ok(array)
    }

    /// Makes drives of the disks that take part; the others stay closed. Answers those whose label needs mending, and where.
    fn take_disks(
        self: &Rc<Self>,
        candidates: Vec<Candidate<E>>,
        choice: &Choice,
    ) -> Vec<(Label, Vec<u64>, Rc<Drive<E>>)> {
        let mut damaged = Vec::new();
        let diverged = choice.diverged.iter().map(|seat| (seat.disk, AtStart::Diverged));
        let stale = choice.stale_dropped.iter().map(|seat| {
            (seat.disk, if seat.held.is_some() { AtStart::Stale } else { AtStart::Blank })
        });
        self.at_start.borrow_mut().extend(stale.chain(diverged));
        for (index, candidate) in candidates.into_iter().enumerate() {
            let seats = [&choice.in_service_present, &choice.stale_dropped];
            let Some(seat) = seats.into_iter().flatten().find(|seat| seat.index == index) else {
                continue;
            };
            let Candidate { disk, label, damaged: bad, notes, configs } = candidate;
            let drive = open_drive(&self.rt, label.number, disk, label.layout, self.timeout_ns);
            drive.config_slot.set(older_slot(&configs, &choice.config));
            let words = bad
                .iter()
                .map(|at| format!("the label at byte {at} was damaged; the other copy served"));
            drive.notes.borrow_mut().extend(words.chain(notes));
            if let Some(held) = seat.held {
                self.holds.borrow_mut().insert(label.number, held);
            }
            if choice.stale_dropped.iter().any(|s| s.index == index) {
                drive.retire(); // Not relied on: `readd` brings it back.
            } else if !bad.is_empty() {
                damaged.push((label.clone(), bad, Rc::clone(&drive)));
            }
            self.drives.borrow_mut().insert(label.number, drive);
        }
        damaged
    }

    /// Groups, maps, the write-hole check, and the commit.
    async fn build(
        self: &Rc<Self>,
        choice: &Choice,
        options: &AssembleOptions,
    ) -> Result<(), AssembleError> {
        let mut start = choice.config.clone();
        for disk in choice.missing.iter().chain(choice.diverged.iter().map(|s| &s.disk)) {
            commit::take_out_of_slots(&mut start, *disk);
        }
        *self.config.borrow_mut() = start.clone();
        self.apply();
        self.load_groups(&start.groups, options).await?;
        let gone = self.absent_backups(&start);
        let may_give_up = options.give_up_backups;
        if let Some(place) = gone.first().filter(|_| !may_give_up) {
            return Err(AssembleError::Shield(backing::unreachable(&start, *place)));
        }
        let history = self.rt.random_u64().max(1);
        let mut next = choice.recommit(history, self.rt.unix_ms());
        for disk in choice.missing.iter().chain(choice.diverged.iter().map(|s| &s.disk)) {
            commit::take_out_of_slots(&mut next, *disk);
        }
        for group in &mut next.groups {
            // One that is away stays as it was left: nothing is written to it before it is back.
            let live = self.groups.borrow().get(&group.number).cloned();
            group.clean &= live.is_some_and(|live| live.away() != Away::Here);
        }
        for disk in &mut next.disks {
            if let Some(drive) = self.drives.borrow().get(&disk.number) {
                disk.path_hint = super::disks::hint(&drive.identity.path, 255);
            }
        }
        // Rule C1: before anything is served, and with what tells that the disks are missing.
        gone.iter().for_each(|place| given_up::take_out(&mut next, *place));
        if self.encoded(&next).is_err() {
            // Longer paths must not keep an array from starting: they are hints.
            next.disks.iter_mut().for_each(|disk| disk.path_hint.clear());
        }
        self.written.borrow_mut().clone_from(&choice.config);
        self.commit_exactly(next).await.map_err(|e| AssembleError::Commit(e.to_string()))?;
        self.tell_of_given_up(&start, &gone);
        self.note_lost_fillers(&choice.config, &self.config.borrow());
        self.recover_groups(&start.groups, options).await?;
        self.recover_backups(may_give_up).await.map_err(AssembleError::Shield)
    }

    /// Tells which disks could not be used at all. One at the place where a disk that is not here was last seen is most likely that disk.
    fn announce_unfit(self: &Rc<Self>, unfit: Vec<Unfit>) {
        for found in unfit {
            let what = format!("{found}: left alone");
            self.event(Severity::Warning, "disk-ignored", None, None, what);
            let here = |disk: DiskNumber| self.drives.borrow().contains_key(&disk);
            let config = self.config.borrow();
            let away = config.disks.iter().find(|d| d.path_hint == found.path && !here(d.number));
            if let Some(disk) = away {
                self.at_start.borrow_mut().insert(disk.number, AtStart::Unfit(found.why));
            }
        }
    }

    /// Tells what the start found.
    fn announce(self: &Rc<Self>, choice: &Choice) {
        let name = self.config.borrow().name.clone();
        self.event(
            Severity::Info,
            "array-started",
            None,
            None,
            format!("array {name:?} was assembled"),
        );
        for disk in &choice.missing {
            let what = format!("disk {disk} ({}) is missing", self.path_of(*disk));
            let group = self.config.borrow().slot_of(*disk).map(|(g, _)| g);
            self.event(Severity::Warning, "disk-missing", Some(*disk), group, what);
        }
        // Those that are to be tested are told of when that is taken up; of those that are spent the status says so for as long as they are there.
        let is_no_news = |disk| {
            let config = self.config.borrow();
            let ailing = config.health.disks.get(&disk).is_some_and(|h| h.ailing);
            let is_known =
                config.retired.contains_key(&disk) || config.failed_tests.contains_key(&disk);
            config.is_replaced(disk) && (is_known || ailing)
        };
        for seat in choice.stale_dropped.iter().filter(|seat| !is_no_news(seat.disk)) {
            let (disk, path) = (seat.disk, self.path_of(seat.disk));
            let what = format!(
                "disk {disk} ({path}) came back; it is not used until `forestall disk readd {disk}`"
            );
            self.event(Severity::Warning, "disk-returned", Some(seat.disk), None, what);
        }
        for seat in &choice.diverged {
            let what = format!(
                "disk {} went on without this array: it is not used; see docs/operations.md",
                seat.disk
            );
            self.event(Severity::Warning, "disk-diverged", Some(seat.disk), None, what);
        }
        let groups: Vec<_> = self.groups.borrow().values().cloned().collect();
        for group in groups.iter().filter(|g| !g.is_resynced()) {
            let what = format!(
                "group {} was not stopped cleanly: {} of {} to resync",
                group.number,
                words::counted(group.dirty_regions(), "region"),
                words::bytes(group.region_len())
            );
            self.event(Severity::Warning, "group-unclean", None, Some(group.number), what);
        }
    }
}

fn hand_back<E: Env>(candidates: Vec<Candidate<E>>) -> Vec<NewDisk<E>> {
    candidates.into_iter().map(|c| c.disk).collect()
}

/// Candidates, and words about disks that carry no label and are left alone.
type Found<E> = (Vec<Candidate<E>>, Vec<Unfit>);

/// Reads labels and configurations; all must be of one array.
async fn read_all<E: Env>(
    rt: &E::Runtime,
    timeout_ns: u64,
    disks: Vec<NewDisk<E>>,
) -> Result<Found<E>, Refused<E>> {
    let mut candidates: Vec<Candidate<E>> = Vec::new();
    let mut error = None;
    let mut unfit: Vec<Unfit> = Vec::new();
    let mut rest = Vec::new();
    for disk in disks {
        let in_time = labels::within(rt, timeout_ns, labels::read_label(&disk.disk)).await;
        match in_time {
            Some(Ok(found)) => {
                let (configs, notes) =
                    labels::read_configs(&disk.disk, &found.label.layout, found.label.array).await;
                if found.label.unknown_read_only != 0 {
                    error = error.or(Some(AssembleError::TooNew(format!(
                        "{}: its label has features that this version may only read; use a newer forestall",
                        disk.identity.path
                    ))));
                }
                candidates.push(Candidate {
                    disk,
                    label: found.label,
                    damaged: found.damaged,
                    notes,
                    configs,
                });
            }
            other => {
                let why = match &other {
                    Some(Err(why)) => why.to_string(),
                    _ => "the disk does not answer".into(),
                };
                let path = disk.identity.path.clone();
                if matches!(other, Some(Err(LabelError::TooNew(_)))) {
                    let what = format!("{path}: {why}; use a newer forestall");
                    error = Some(AssembleError::TooNew(what));
                }
                unfit.push(Unfit { path, why });
                rest.push(disk);
            }
        }
    }
    if !unfit.is_empty() && candidates.is_empty() {
        let all: Vec<String> = unfit.iter().map(ToString::to_string).collect();
        error = error.or(Some(AssembleError::NothingFound(all.join("; "))));
    }
    if error.is_none()
        && let Some((first, others)) = candidates.split_first()
        && let Some(other) = others.iter().find(|c| c.label.array != first.label.array)
    {
        error = Some(AssembleError::Mixed(format!(
            "{} belongs to array {:?} ({}), {} to {:?} ({}): serve one array at a time",
            first.disk.identity.path,
            first.label.name,
            first.label.array,
            other.disk.identity.path,
            other.label.name,
            other.label.array
        )));
    }
    match error {
        None => Ok((candidates, unfit)),
        Some(error) => {
            rest.extend(hand_back(candidates));
            Err((error, rest))
        }
    }
}

/// Why no side can be chosen by disk `number`, and by which disks one could be.
fn not_there<E: Env>(candidates: &[Candidate<E>], number: DiskNumber) -> String {
    let why = match candidates.iter().find(|c| c.label.number == number) {
        Some(found) => {
            format!("disk {number} ({}) holds no configuration", found.disk.identity.path)
        }
        None => format!("disk {number} is not among those given"),
    };
    let holds = |c: &&Candidate<E>| c.configs.iter().any(Option::is_some);
    let mut others: Vec<(DiskNumber, &str)> = candidates
        .iter()
        .filter(holds)
        .map(|c| (c.label.number, c.disk.identity.path.as_str()))
        .collect();
    others.sort_unstable();
    let others: Vec<String> = others.iter().map(|(n, path)| format!("{n} ({path})")).collect();
    format!(
        "{why}, so it cannot be chosen; the side is named by one of: {}. Where nothing asks you to choose, leave --choose out",
        others.join(", ")
    )
}

/// Words for a refusal of the quorum.
fn refused<E: Env>(candidates: &[Candidate<E>], refusal: Refusal) -> AssembleError {
    let path = |number: DiskNumber| {
        let found = candidates.iter().find(|c| c.label.number == number);
        found.map(|c| c.disk.identity.path.clone()).unwrap_or_default()
    };
    match refusal {
        Refusal::NothingFound => AssembleError::NothingFound(refusal.to_string()),
        Refusal::Duplicate { number, first, second } => AssembleError::Mixed(format!(
            "{} and {} are both disk {number}: a copy, or two paths to one disk. Leave one of them out",
            candidates[first].disk.identity.path, candidates[second].disk.identity.path
        )),
        Refusal::NotThere(number) => AssembleError::NoSuchChoice(not_there(candidates, number)),
        Refusal::Diverged { sides } => {
            let words: Vec<String> = sides
                .iter()
                .map(|side| {
                    let disks: Vec<String> =
                        side.disks.iter().map(|d| format!("{d} ({})", path(*d))).collect();
                    format!(
                        "disk {} at generation {}, last committed at {}",
                        disks.join(", "),
                        side.stamp.generation,
                        words::utc(side.committed_at_ms)
                    )
                })
                .collect();
            AssembleError::Diverged {
                message: format!(
                    "the array went on in more than one way: {}. Choose the side to keep with --choose DISK; \
                     the disks of the other are not used then",
                    words.join(" | ")
                ),
                sides: sides.iter().filter_map(|s| s.disks.first().copied()).collect(),
            }
        }
        Refusal::TooFew { generation, list, missing } => {
            let missing: Vec<String> = missing
                .iter()
                .map(|d| {
                    let serial = if d.serial.is_empty() {
                        String::new()
                    } else {
                        format!(", serial {}", d.serial)
                    };
                    format!("disk {} (last seen at {}{serial})", d.number, d.path_hint)
                })
                .collect();
            AssembleError::TooFew(format!(
                "half or more of the {} in service at generation {generation} are missing: {}. Bring them, wait for them with \
                 --wait SECS, or start without them with --degraded",
                words::counted(list.len() as u64, "disk"),
                if missing.is_empty() {
                    "they hold an older state".to_string()
                } else {
                    missing.join(", ")
                }
            ))
        }
    }
}
