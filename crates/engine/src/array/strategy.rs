//! Choosing where a shielded group's writes go (design of the five strategies).
//!
//! Owns the decision, a pure function of the configuration and of what the places can take at this moment. Invariants: redirected data is never
//! less redundant than home (rule B6); a target that is shielded itself, or that lies in the same group, is not chosen (rule B8).
//! Where secondaries of new pairs lie is `secondaries`' matter, opening logs and committing `avoidance`'s.

use std::collections::BTreeMap;

use super::secondaries::{NewSecondary, Secondaries};
use crate::config::{
    BackupPlace, Configuration, GroupEntry, JournalMode, Level, PairEntry, PairStatus,
    ShieldedVolume, Strategy,
};
use crate::ids::{GroupNumber, VolumeNumber};
use crate::words;

/// What a place can take at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Offer {
    /// Failures that what it takes survives.
    pub(super) spare_copies: u32,
    /// Slots of 4 KiB that are free.
    pub(super) free: u64,
}

/// What was chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Plan {
    /// Each volume of the group with its backups; none: direct.
    pub(super) volumes: Vec<ShieldedVolume>,
    /// Secondaries to be made.
    pub(super) secondaries: Vec<NewSecondary>,
    /// Why, in words.
    pub(super) why: Vec<String>,
}

/// Chooses backups for every volume of `group`, which survives `tolerance` failures. `whole` are the groups that are whole, with the failures
/// that each survives.
///
/// # Errors
/// If one strategy was asked for and cannot be had for any volume, with the reason.
pub(super) fn choose(
    config: &Configuration,
    group: &GroupEntry,
    tolerance: u32,
    asked: Strategy,
    offers: &BTreeMap<BackupPlace, Offer>,
    whole: &BTreeMap<GroupNumber, u32>,
) -> Result<Plan, String> {
    let mut plan = Plan { volumes: Vec::new(), secondaries: Vec::new(), why: Vec::new() };
    let mut secondaries = Secondaries::new(config, group, tolerance, whole);
    let mut missed = Missed::default();
    let mut load = load(config, offers);
    for volume in config.volumes.iter().filter(|v| v.group == group.number) {
        let number = volume.number;
        let wanted = wanted(config, number, asked);
        if let Some(what) = backup_itself(config, number) {
            plan.why.push(format!("volume {number} is {what} itself: direct"));
            missed.kept.push(format!("volume {number} is {what} itself"));
            plan.volumes.push(ShieldedVolume { volume: number, chain: Vec::new() });
            continue;
        }
        let mut chain = Vec::new();
        let mut unused_pair = String::new();
        let known = missed.refusals.len();
        if matches!(wanted, Strategy::Auto | Strategy::Pair) {
            let taken = match config.backups.pair_of(number) {
                Some(pair) => existing_pair(config, group, tolerance, pair, whole),
                None => secondaries.add(volume),
            };
            match taken {
                Ok(()) => chain.push(BackupPlace::Pair(number)),
                Err(why) => {
                    if config.backups.pair_of(number).is_some() {
                        unused_pair = format!(", since {why}");
                    }
                    missed.refusals.push(why);
                }
            }
        }
        for kind in [Strategy::WorkVolume, Strategy::WorkDisk] {
            if wanted != Strategy::Auto && wanted != kind {
                continue;
            }
            let (fit, unfit) = candidates(config, group, number, tolerance, kind, offers);
            missed.refusals.extend(unfit);
            if let Some(place) = fit.into_iter().min_by_key(|p| (load[p], *p)) {
                *load.entry(place).or_default() += 1;
                chain.push(place);
            }
        }
        plan.why.push(match chain.first() {
            Some(place) => format!("volume {number}: {place}{unused_pair}"),
            None if wanted == Strategy::Direct => format!("volume {number}: direct, as asked"),
            None if wanted != Strategy::Auto && missed.refusals.len() == known => {
                format!("volume {number}: direct, since there is no {} for it", noun(wanted))
            }
            None => format!("volume {number}: direct"),
        });
        if chain.is_empty() && wanted != Strategy::Direct {
            missed.wanted = missed.wanted.or(Some(wanted));
        }
        plan.volumes.push(ShieldedVolume { volume: number, chain });
    }
    plan.secondaries = secondaries.chosen;
    conclude(plan, group.number, asked, missed)
}

/// What could not be had, and why.
#[derive(Default)]
struct Missed {
    refusals: Vec<String>,
    /// Volumes that hold other volumes' writes themselves.
    kept: Vec<String>,
    /// What was wanted first and not had.
    wanted: Option<Strategy>,
}

/// A plan that shields nothing says why, and what would; it is refused if one strategy was asked for.
fn conclude(
    mut plan: Plan,
    group: GroupNumber,
    asked: Strategy,
    missed: Missed,
) -> Result<Plan, String> {
    let Missed { mut refusals, kept, wanted } = missed;
    if plan.volumes.iter().any(|v| !v.chain.is_empty()) {
        return Ok(plan);
    }
    if plan.volumes.is_empty() {
        plan.why.push("it has no volume".into());
        return Ok(plan);
    }
    refusals.sort();
    refusals.dedup();
    if matches!(asked, Strategy::Auto | Strategy::Direct) {
        plan.why.extend(refusals);
        plan.why.extend(wanted.map(|wanted| how_to(wanted).to_string()));
        return Ok(plan);
    }
    if refusals.is_empty() {
        refusals.push(format!("there is no {} for group {group}", noun(asked)));
    }
    refusals.extend(kept);
    Err(format!("{}; {}", refusals.join("; "), how_to(asked)))
}

/// The strategy for a volume: its own, unless another one was asked for.
fn wanted(config: &Configuration, volume: VolumeNumber, asked: Strategy) -> Strategy {
    let set = config.backups.strategies.get(&volume).copied().unwrap_or_default();
    if asked == Strategy::Auto { set } else { asked }
}

/// How many volumes use each place.
fn load(
    config: &Configuration,
    offers: &BTreeMap<BackupPlace, Offer>,
) -> BTreeMap<BackupPlace, usize> {
    offers.keys().map(|p| (*p, config.backups.users_of(*p).count())).collect()
}

/// The place that goes on when those in the chain of a volume of `group` have no room: the next of the kinds that its strategy allows, in the same
/// order and of the same places as at first. Places whose offer has nothing free are no choice.
pub(super) fn further(
    config: &Configuration,
    group: &GroupEntry,
    tolerance: u32,
    asked: Strategy,
    offers: &BTreeMap<BackupPlace, Offer>,
    shielded: &ShieldedVolume,
) -> Option<BackupPlace> {
    let wanted = wanted(config, shielded.volume, asked);
    let load = load(config, offers);
    let kinds = [Strategy::WorkVolume, Strategy::WorkDisk];
    kinds.into_iter().filter(|kind| [Strategy::Auto, *kind].contains(&wanted)).find_map(|kind| {
        let (fit, _) = candidates(config, group, shielded.volume, tolerance, kind, offers);
        let new = fit.into_iter().filter(|place| !shielded.chain.contains(place));
        new.min_by_key(|place| (load[place], *place))
    })
}

/// Whether the secondary of a pair that is there already may take its primary's place.
///
/// A split or held pair may not: its secondary is kept as it was at some moment, at an operator's word, and would not stay so.
fn existing_pair(
    config: &Configuration,
    home: &GroupEntry,
    tolerance: u32,
    pair: &PairEntry,
    whole: &BTreeMap<GroupNumber, u32>,
) -> Result<(), String> {
    let PairEntry { primary, secondary, .. } = *pair;
    let lies_in = config.volumes.iter().find(|v| v.number == secondary).map(|v| v.group);
    let group = lies_in.ok_or_else(|| format!("volume {secondary} is not there"))?;
    if pair.status == PairStatus::Split {
        return Err(format!(
            "the pair of volumes {primary} and {secondary} is split: its secondary is kept as it was; `forestall pair resync {primary}` \
             lets it be used"
        ));
    }
    if pair.hold {
        return Err(format!(
            "the pair of volumes {primary} and {secondary} is held: its bits stand still; `forestall pair release {primary}` lets it be used"
        ));
    }
    let group = config.group(group).ok_or_else(|| format!("group {group} is not there"))?;
    let what = format!("group {} of the secondary {secondary}", group.number);
    may_take_secondaries(config, (home, tolerance), (group, &what), whole)
}

/// Whether a group, `what` in words, may take secondaries of the volumes of `home`, which survives `tolerance` failures.
pub(super) fn may_take_secondaries(
    config: &Configuration,
    (home, tolerance): (&GroupEntry, u32),
    (group, what): (&GroupEntry, &str),
    whole: &BTreeMap<GroupNumber, u32>,
) -> Result<(), String> {
    if config.backups.of_group(group.number).is_some() {
        return Err(format!("{what} is shielded itself"));
    }
    let survives = *whole.get(&group.number).ok_or_else(|| format!("{what} is not whole"))?;
    let less_safe = if survives < tolerance {
        let survives = words::counted(u64::from(survives), "failure");
        format!("survives {survives} and group {} survives {tolerance}", home.number)
    } else if journal_kept(group) < journal_due(home) {
        format!("has --journal {} and group {} {}", group.journal, home.number, journal_due(home))
    } else {
        return Ok(());
    };
    Err(format!("{what} {less_safe}: redirected data would be less safe than home"))
}

/// What a group's writes are as safe as when a crash comes together with the loss of a member: levels without parity have no write hole.
fn journal_kept(group: &GroupEntry) -> JournalMode {
    match group.level {
        Level::Raid5 | Level::Raid6 => group.journal,
        Level::Raid0 | Level::Raid1 | Level::Raid10 => JournalMode::Full,
    }
}

/// The least that a group in which writes of `home` are written in place must keep, for these to be as safe as at home (rule B6).
fn journal_due(home: &GroupEntry) -> JournalMode {
    match home.level {
        Level::Raid5 | Level::Raid6 => home.journal,
        Level::Raid1 | Level::Raid10 => JournalMode::default(),
        Level::Raid0 => JournalMode::Off,
    }
}

/// What a volume is that holds other volumes' writes.
fn backup_itself(config: &Configuration, volume: VolumeNumber) -> Option<&'static str> {
    if config.backups.work_at(BackupPlace::WorkVolume(volume)).is_some() {
        return Some("a work volume");
    }
    config.backups.is_secondary(volume).then_some("a secondary")
}

/// Places of one kind that may back a volume, and why others may not.
fn candidates(
    config: &Configuration,
    group: &GroupEntry,
    volume: VolumeNumber,
    tolerance: u32,
    kind: Strategy,
    offers: &BTreeMap<BackupPlace, Offer>,
) -> (Vec<BackupPlace>, Vec<String>) {
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for work in &config.backups.work {
        let (of_kind, serves) = match work.place {
            BackupPlace::WorkVolume(_) => {
                (kind == Strategy::WorkVolume, work.serves.contains(&volume.0))
            }
            BackupPlace::WorkDisk(_) => {
                (kind == Strategy::WorkDisk, work.serves.contains(&group.number.0))
            }
            BackupPlace::Pair(_) => continue,
        };
        if !of_kind || !(serves || work.serves.is_empty()) {
            continue;
        }
        let place = work.place;
        let home = home_of(config, place);
        let shielded = home.is_some_and(|home| config.backups.of_group(home).is_some());
        let offer = offers.get(&place).copied().unwrap_or(Offer { spare_copies: 0, free: 0 });
        if home == Some(group.number) {
            unfit.push(format!("{place} lies in group {} itself", group.number));
        } else if shielded {
            unfit.push(format!("the group of {place} is shielded itself"));
        } else if offer.free == 0 {
            unfit.push(format!("{place} is full or does not answer"));
        } else if offer.spare_copies < tolerance {
            unfit.push(less_safe(place, offer.spare_copies, group.number, tolerance));
        } else if home.is_some_and(|home| forgets_the_old(config, home, group)) {
            unfit.push(format!(
                "the group of {place} has --journal off: redirected data would be less safe than in group {}",
                group.number
            ));
        } else {
            fit.push(place);
        }
    }
    (fit, unfit)
}

/// Whether a crash with a lost member may cost the group of a work volume what was written before, and `home` not. A write to a log leaves what its block
/// was alone, so that any journal is enough.
fn forgets_the_old(config: &Configuration, of_log: GroupNumber, home: &GroupEntry) -> bool {
    let kept = config.group(of_log).map_or(JournalMode::Off, journal_kept);
    kept == JournalMode::Off && journal_due(home) != JournalMode::Off
}

/// Words for rule B6.
fn less_safe(place: BackupPlace, survives: u32, home: GroupNumber, tolerance: u32) -> String {
    let needs = match place {
        BackupPlace::WorkDisk(_) => format!("{} legs", tolerance + 1),
        BackupPlace::WorkVolume(_) | BackupPlace::Pair(_) => "a group that survives as many".into(),
    };
    let survives = words::counted(u64::from(survives), "failure");
    format!(
        "{place} survives {survives} and group {home} survives {tolerance}: redirected data would be less safe than home; it takes {needs}"
    )
}

/// The group in which a place lies.
pub(super) fn home_of(config: &Configuration, place: BackupPlace) -> Option<GroupNumber> {
    match place {
        BackupPlace::WorkVolume(volume) => {
            config.volumes.iter().find(|v| v.number == volume).map(|v| v.group)
        }
        BackupPlace::Pair(_) | BackupPlace::WorkDisk(_) => None,
    }
}

fn noun(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::Pair => "pair",
        Strategy::WorkVolume => "work volume",
        Strategy::WorkDisk => "work disk",
        Strategy::Auto | Strategy::Direct => "backup storage",
    }
}

fn how_to(strategy: Strategy) -> &'static str {
    match strategy {
        Strategy::WorkVolume => "make one with `forestall work-volume add VOLUME`",
        Strategy::WorkDisk => "make one with `forestall work-disk add N --legs PATH,PATH`",
        Strategy::Pair => "make a group with `forestall group create`, or use --backup auto",
        Strategy::Auto | Strategy::Direct => {
            "a work disk or a work volume can take its writes: `forestall work-disk add N --legs PATH,PATH` or `forestall work-volume add VOLUME`"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WorkEntry;
    use crate::format::samples;
    use crate::ids::DiskNumber;

    #[test]
    fn the_secondary_of_a_pair_is_used_unless_it_is_kept_or_less_safe() {
        let mut config = samples::configuration();
        config.backups.avoidances.clear();
        config.backups.work.clear();
        let pair = &mut config.backups.pairs[0];
        (pair.status, pair.hold, pair.temporary) = (PairStatus::Syncing, false, false);
        let whole = |survives| [(GroupNumber(1), 2), (GroupNumber(2), survives)].into();
        let choose = |config: &Configuration, whole: &BTreeMap<GroupNumber, u32>| {
            let asked = Strategy::Pair;
            super::choose(config, &config.groups[0], 2, asked, &BTreeMap::new(), whole)
        };
        let first = |plan: Plan| (plan.volumes[0].chain.clone(), plan.secondaries);
        let used = choose(&config, &whole(2)).map(first);
        assert_eq!(used, Ok((vec![BackupPlace::Pair(VolumeNumber(1))], Vec::new())));
        let refused = |config: &Configuration, whole: &BTreeMap<GroupNumber, u32>, why: &str| {
            let refused = choose(config, whole).expect_err(why);
            assert!(refused.contains(why), "{refused}");
        };
        refused(&config, &whole(1), "group 2 of the secondary 3 survives 1 failure");
        refused(&config, &[(GroupNumber(1), 2)].into(), "group 2 of the secondary 3 is not whole");
        config.backups.pairs[0].hold = true;
        refused(&config, &whole(2), "`forestall pair release 1` lets it be used");
        config.backups.pairs[0].hold = false;
        config.backups.pairs[0].status = PairStatus::Split;
        refused(&config, &whole(2), "`forestall pair resync 1` lets it be used");
        // A work volume without a journal does for those alone that have none either.
        let mut holed = samples::configuration();
        let mut home = holed.groups[0].clone();
        (home.level, home.journal) = (Level::Raid5, JournalMode::Full);
        for (kept, fits) in [(JournalMode::Off, false), (JournalMode::Partial, true)] {
            (holed.groups[1].level, holed.groups[1].journal) = (Level::Raid5, kept);
            assert_eq!(forgets_the_old(&holed, holed.groups[1].number, &home), !fits, "{kept}");
        }
        home.level = Level::Raid0;
        holed.groups[1].journal = JournalMode::Off;
        assert!(!forgets_the_old(&holed, holed.groups[1].number, &home));
        // Another place is taken, and the reason told.
        let place = BackupPlace::WorkDisk(DiskNumber(600));
        let legs = vec![DiskNumber(6)];
        config.backups.work = vec![WorkEntry { place, legs, serves: Vec::new(), log: 0 }];
        let offers = [(place, Offer { spare_copies: 2, free: 9 })].into();
        let auto = Strategy::Auto;
        let plan = super::choose(&config, &config.groups[0], 2, auto, &offers, &whole(2));
        let plan = plan.expect("a work disk is there");
        assert_eq!(plan.volumes[0].chain, [place]);
        assert!(plan.why[0].contains("work disk 600, since the pair of volumes 1 and 3 is split"));
    }

    #[test]
    fn a_plan_that_shields_nothing_says_why_and_what_would() {
        let mut config = samples::configuration();
        config.backups = crate::config::BackupTable::default();
        let why = |config: &Configuration, asked| {
            let group = &config.groups[0];
            super::choose(config, group, 2, asked, &BTreeMap::new(), &BTreeMap::new())
        };
        let words = |config: &Configuration| {
            why(config, Strategy::Auto).expect("nothing was asked for").why.join("; ")
        };
        let auto = words(&config);
        assert!(auto.contains("no group is without volumes"), "{auto}");
        for how in ["`forestall work-disk add N", "`forestall work-volume add VOLUME`"] {
            assert!(auto.contains(how), "{auto}");
        }
        let refused = why(&config, Strategy::WorkDisk).expect_err("there is none");
        assert!(refused.starts_with("there is no work disk for group 1; make one"), "{refused}");
        for volume in [1, 2].map(VolumeNumber) {
            config.backups.strategies.insert(volume, Strategy::WorkDisk);
        }
        let set = words(&config);
        assert!(set.contains("volume 1: direct, since there is no work disk for it"), "{set}");
        assert!(set.contains("`forestall work-disk add N") && !set.contains("volume add"), "{set}");
        config.backups.strategies = [1, 2].map(|v| (VolumeNumber(v), Strategy::Direct)).into();
        let direct = words(&config);
        assert_eq!(direct, "volume 1: direct, as asked; volume 2: direct, as asked");
        config.volumes.clear();
        assert_eq!(words(&config), "it has no volume");
    }
}
