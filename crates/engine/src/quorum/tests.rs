//! Named cases of the deciders: one for each sentence of rules C2, C4 and C5.

use super::*;
use crate::config::{DropReason, HistoryEntry, Service};
use crate::format::samples;
use crate::ids::Uuid;

fn list(disks: &[u32]) -> Vec<DiskNumber> {
    disks.iter().copied().map(DiskNumber).collect()
}

fn put_in_service(config: &mut Configuration, disks: &[u32]) {
    let stamp = Stamp::of(config);
    for disk in &mut config.disks {
        let (history, generation) = (stamp.history, stamp.generation);
        disk.service = if disks.contains(&disk.number.0) {
            Service::InService
        } else {
            Service::Dropped { history, generation, reason: DropReason::Failed, at_ms: 0 }
        };
    }
}

/// Generation 4 of run 1, with disks 1 to 6 of which `disks` are in service.
fn base(disks: &[u32]) -> Configuration {
    let mut config = samples::configuration();
    config.disks = (1..=6).map(samples::disk).collect();
    (config.groups, config.volumes, config.uncounted) = (Vec::new(), Vec::new(), Vec::new());
    config.backups = crate::config::BackupTable::default();
    config.retired.clear();
    config.failed_tests.clear();
    config.counted_generation = 0;
    config.generation = 4;
    config.history = vec![HistoryEntry { id: 1, first_generation: 1 }];
    put_in_service(&mut config, disks);
    config
}

fn after(config: &Configuration, counted: bool, disks: &[u32]) -> Configuration {
    let mut next = successor(config, counted);
    put_in_service(&mut next, disks);
    next
}

fn found(disk: u32, configs: &[&Configuration]) -> FoundDisk {
    FoundDisk {
        number: DiskNumber(disk),
        uuid: samples::disk(disk).uuid,
        configs: configs.iter().map(|&config| config.clone()).collect(),
    }
}

fn plain(found: &[FoundDisk]) -> Result<Choice, Refusal> {
    choose(found, Options::default())
}

fn forced(found: &[FoundDisk]) -> Choice {
    choose(found, Options { degraded: true, choose: None }).unwrap()
}

fn seats(seats: &[Seat]) -> Vec<u32> {
    seats.iter().map(|seat| seat.disk.0).collect()
}

#[test]
fn c2_a_list_keeps_half_of_every_list_since_the_last_that_counted() {
    let four = base(&[1, 2, 3, 4]);
    assert_eq!(may_commit(&four, true, &list(&[1, 2])), Ok(()));
    assert!(may_commit(&four, true, &list(&[1])).is_err());
    let two = after(&four, true, &[1, 2]);
    assert_eq!(two.uncounted, [list(&[1, 2, 3, 4])]);
    assert_eq!(may_commit(&two, true, &list(&[1])), Ok(()));
    let short = may_commit(&two, false, &list(&[1]));
    assert_eq!(short, Err(Short::KeepsTooFew { list: list(&[1, 2, 3, 4]), kept: 1 }));
    assert_eq!(successor(&two, false).uncounted, [list(&[1, 2, 3, 4]), list(&[1, 2])]);
    assert_eq!(successor(&two, true).uncounted, [list(&[1, 2])]);
    assert_eq!(successor(&successor(&two, true), false).uncounted, [list(&[1, 2])]);
}

#[test]
fn c2_a_commit_that_adds_disks_drops_none() {
    let config = base(&[1, 2]);
    assert_eq!(may_commit(&config, true, &list(&[1, 2, 3])), Ok(()));
    let both = may_commit(&config, true, &list(&[1, 3]));
    assert_eq!(both, Err(Short::AddsAndDrops { added: list(&[3]), dropped: list(&[2]) }));
}

#[test]
fn c4_more_than_half_starts_and_half_asks() {
    let config = base(&[1, 2, 3, 4]);
    let disks: Vec<FoundDisk> = (1..=4).map(|n| found(n, &[&config])).collect();
    let choice = plain(&disks[..3]).unwrap();
    assert_eq!((choice.missing.clone(), choice.counted), (list(&[4]), false));
    let refusal = plain(&disks[..2]).unwrap_err();
    assert!(refusal.to_string().contains("3, 4 are missing"), "{refusal}");
    assert!(forced(&disks[..2]).forced);
    assert!(plain(&disks).unwrap().counted);
}

#[test]
fn c4_a_mirror_that_lost_a_disk_while_running_restarts_by_itself() {
    let whole = base(&[1, 2]);
    let one = after(&whole, true, &[1]);
    assert!(!wants_seal(&one));
    let choice = plain(&[found(1, &[&whole, &one]), found(2, &[&whole])]).unwrap();
    assert_eq!(
        (seats(&choice.in_service_present), seats(&choice.stale_dropped)),
        (vec![1], vec![2])
    );
    assert!(plain(&[found(1, &[&whole, &one])]).is_ok());
    assert!(matches!(plain(&[found(2, &[&whole])]), Err(Refusal::TooFew { generation: 4, .. })));
    assert!(matches!(plain(&[found(1, &[&whole])]), Err(Refusal::TooFew { .. })));
}

#[test]
fn c4_after_several_disks_were_dropped_at_once_a_seal_restores_the_majority() {
    let five = base(&[1, 2, 3, 4, 5]);
    let three = after(&five, true, &[1, 2, 3]);
    assert!(wants_seal(&three));
    let some = |config| [found(2, &[config]), found(3, &[config])];
    // Generation 5 may not have counted: disks 1, 4 and 5 could start on generation 4 at the same time.
    assert!(
        matches!(plain(&some(&three)), Err(Refusal::TooFew { list: l, .. }) if l == list(&[1, 2, 3, 4, 5]))
    );
    let seal = after(&three, true, &[1, 2, 3]);
    assert!(!wants_seal(&seal));
    assert_eq!(plain(&some(&seal)).unwrap().missing, list(&[1]));
}

#[test]
fn c4_more_disks_added_than_there_were_do_not_start_alone() {
    let old = base(&[1, 2]);
    let new = after(&old, true, &[1, 2, 3, 4, 5]);
    let added = [3, 4, 5].map(|n| found(n, &[&new]));
    assert!(matches!(plain(&added), Err(Refusal::TooFew { .. })));
    assert!(plain(&[found(1, &[&old]), found(2, &[&old])]).is_ok());
}

#[test]
fn c5_a_disk_that_missed_a_commit_takes_part_if_it_is_in_service() {
    let old = base(&[1, 2]);
    let new = after(&old, true, &[1, 2, 3]);
    // Disk 2 missed the commit; disk 3 is being added by it and never held one.
    let choice = plain(&[found(1, &[&old, &new]), found(2, &[&old]), found(3, &[])]).unwrap();
    assert_eq!(choice.config, new);
    assert_eq!(seats(&choice.in_service_present), [1, 2, 3]);
    assert!(!choice.counted && choice.missing.is_empty());
}

#[test]
fn c1_a_disk_that_was_put_back_to_an_older_state_does_not_take_part() {
    let old = base(&[1, 2, 3]);
    let new = after(&old, true, &[1, 2, 3]);
    let newer = after(&new, true, &[1, 2, 3]);
    let (one, two) = (found(1, &[&new, &newer]), found(2, &[&new]));
    for put_back in [found(3, &[&old]), found(3, &[])] {
        let choice = plain(&[one.clone(), two.clone(), put_back.clone()]).unwrap();
        assert_eq!(seats(&choice.in_service_present), [1, 2]);
        assert_eq!((seats(&choice.stale_dropped), choice.missing.clone()), (vec![3], list(&[3])));
        assert!(!choice.recommit(9, 0).disk(DiskNumber(3)).unwrap().in_service());
        assert!(matches!(plain(&[one.clone(), put_back]), Err(Refusal::TooFew { .. })));
    }
}

#[test]
fn c5_each_start_opens_a_run_and_records_what_missing_disks_hold() {
    let config = base(&[1, 2, 3]);
    let choice = plain(&[found(1, &[&config]), found(2, &[&config])]).unwrap();
    let next = choice.recommit(77, 1234);
    assert_eq!(
        (Stamp::of(&next), next.committed_at_ms),
        (Stamp { history: 77, generation: 5 }, 1234)
    );
    assert!(Stamp::of(&config).is_on_line_of(&next));
    assert!(!Stamp { history: 1, generation: 5 }.is_on_line_of(&next));
    let missing =
        Service::Dropped { history: 1, generation: 4, reason: DropReason::Missing, at_ms: 1234 };
    assert_eq!(next.disk(DiskNumber(3)).unwrap().service, missing);
    assert_eq!(next.uncounted, [list(&[1, 2, 3])]);
    assert_eq!(may_commit(&config, false, &next.in_service().collect::<Vec<_>>()), Ok(()));
}

#[test]
fn c5_both_halves_of_a_mirror_run_by_force_refuse_until_one_is_chosen() {
    let config = base(&[1, 2]);
    let left = forced(&[found(1, &[&config])]).recommit(7, 100);
    let right = forced(&[found(2, &[&config])]).recommit(8, 200);
    let disks = [found(1, &[&config, &left]), found(2, &[&config, &right])];
    let Err(Refusal::Diverged { sides }) = plain(&disks) else { panic!("both went on") };
    let told: Vec<_> = sides.iter().map(|s| (s.disks.clone(), s.committed_at_ms)).collect();
    assert_eq!(told, [(list(&[2]), 200), (list(&[1]), 100)]);
    assert!(matches!(
        choose(&disks, Options { degraded: true, choose: None }),
        Err(Refusal::Diverged { .. })
    ));

    let options = Options { degraded: false, choose: Some(DiskNumber(2)) };
    let choice = choose(&disks, options).unwrap();
    assert_eq!((choice.config.clone(), seats(&choice.diverged)), (right, vec![1]));
    // What was decided once is not asked again, and disk 1 stays out.
    let next = choice.recommit(9, 300);
    let again = plain(&[found(1, &[&config, &left]), found(2, &[&next])]).unwrap();
    assert_eq!((again.config, seats(&again.diverged)), (next, vec![1]));
    let nobody = Options { degraded: false, choose: Some(DiskNumber(5)) };
    assert_eq!(choose(&disks, nobody).unwrap_err(), Refusal::NotThere(DiskNumber(5)));
}

#[test]
fn c5_a_commit_cut_short_on_a_disk_that_was_away_does_not_stop_the_array() {
    let config = base(&[1, 2, 3]);
    let cut = after(&after(&config, true, &[1, 2, 3]), false, &[1, 3]);
    let next = plain(&[found(1, &[&config]), found(2, &[&config])]).unwrap().recommit(7, 0);
    let disks = [found(1, &[&next]), found(2, &[&next]), found(3, &[&cut])];
    let choice = plain(&disks).unwrap();
    assert_eq!((choice.config.clone(), seats(&choice.diverged)), (next, vec![3]));
    // The next generation is above everything found, and the gap belongs to nobody.
    assert_eq!(choice.generation_found, 6);
    let after_gap = choice.recommit(8, 0);
    assert_eq!(after_gap.generation, 7);
    assert!(!Stamp { history: 7, generation: 6 }.is_on_line_of(&after_gap));
    assert!(!Stamp { history: NO_HISTORY, generation: 6 }.is_on_line_of(&after_gap));
}

#[test]
fn strangers_and_twins_are_named() {
    let config = base(&[1, 2, 3]);
    let mut stranger = found(3, &[&config]);
    stranger.uuid = Uuid([9; 16]);
    let mut unknown = found(9, &[]);
    unknown.uuid = Uuid([8; 16]);
    let disks = [found(1, &[&config]), stranger, found(2, &[&config]), unknown];
    let choice = plain(&disks).unwrap();
    assert_eq!((choice.foreign, choice.missing), (vec![1, 3], list(&[3])));
    let twins = [found(1, &[&config]), found(2, &[&config]), found(1, &[])];
    assert_eq!(
        plain(&twins).unwrap_err(),
        Refusal::Duplicate { number: DiskNumber(1), first: 0, second: 2 }
    );
    assert_eq!(plain(&[found(1, &[])]).unwrap_err(), Refusal::NothingFound);
    assert_eq!(plain(&[]).unwrap_err(), Refusal::NothingFound);
}

#[test]
fn a_history_stays_short_and_a_disk_older_than_it_counts_as_diverged() {
    let first = base(&[1, 2, 3]);
    let mut config = first.clone();
    for run in 0..HISTORY_KEPT as u64 + 5 {
        let disks = [1, 2, 3].map(|n| found(n, &[&config]));
        config = plain(&disks).unwrap().recommit(100 + run, 0);
    }
    assert_eq!(config.history.len(), HISTORY_KEPT);
    assert!(crate::format::config::check(&config).is_ok());
    assert!(!Stamp::of(&first).is_on_line_of(&config));
}
