//! What must hold of hosts and copies in virtual time, on disks that take the time of a model.
//!
//! Owns comparisons alone: the figures of one day stand in `docs/simulation.md`. A seed gives the same figures on any machine, so nothing here is a matter of luck.

use forestall_faultsim::{DiskModel, Figures, Load, Measured, Setting, State, measure};

const SEED: u64 = 1;
const RAID1: Setting = Setting::ALL[0];
const RAID5: Setting = Setting::ALL[1];

fn on_hdd(setting: Setting, load: Load, state: State) -> Measured {
    measure(DiskModel::HDD, setting, load, state, SEED)
}

fn copy_ns(setting: Setting, load: Load, state: State) -> u64 {
    on_hdd(setting, load, state).copy_ns.expect("a copy was measured")
}

/// Requests that were answered, enough of them to compare.
fn figures(setting: Setting, load: Load, state: State) -> Figures {
    let figures = on_hdd(setting, load, state).figures;
    assert!(figures.requests >= 20, "{load}, {state}: {} requests", figures.requests);
    figures
}

#[test]
fn a_seed_gives_the_same_figures_again() {
    let play = |seed| measure(DiskModel::HDD, RAID5, Load::RandomWrite, State::Shielded, seed);
    let first = play(SEED);
    assert_eq!(first, play(SEED));
    assert_ne!(first.figures, play(SEED + 1).figures);
}

/// A copy reads and writes at once: it takes well less than the one after the other, with its halts.
#[test]
fn a_copy_reads_while_it_writes() {
    let model = DiskModel::SSD;
    for state in [State::Shielded, State::Direct] {
        let copied = measure(model, RAID5, Load::Idle, state, SEED).copy_ns.expect("a copy");
        let there_and_back = 2 * (61 << 20) * 1_000_000_000 / model.bytes_per_sec;
        assert!(copied * 10 < there_and_back * 8, "{state}: {copied} of {there_and_back} ns");
    }
}

/// What the copy has written is not flushed for hosts that are redirected: they wait for the log alone.
#[test]
fn flushed_small_writes_are_nearly_as_fast_shielded_as_healthy() {
    for setting in Setting::ALL {
        let of = |state| {
            measure(DiskModel::SSD, setting, Load::RandomWrite, state, SEED)
                .figures
                .requests_per_sec()
        };
        let (shielded, healthy) = (of(State::Shielded), of(State::Healthy));
        assert!(shielded > healthy * 0.9, "{}: {shielded}/s, {healthy}/s", setting.level);
    }
}

/// A shielded copy is not held up by what hosts write: that goes elsewhere. A direct one is.
#[test]
fn hosts_that_write_hold_up_a_direct_copy_and_no_shielded_one() {
    for setting in [RAID1, RAID5] {
        let alone = copy_ns(setting, Load::Idle, State::Shielded);
        let shielded = copy_ns(setting, Load::RandomWrite, State::Shielded);
        let direct = copy_ns(setting, Load::RandomWrite, State::Direct);
        let level = setting.level;
        assert!(shielded <= alone * 11 / 10, "{level}: {shielded} ns, {alone} ns without a host");
        assert!(shielded * 2 < direct, "{level}: {shielded} ns shielded, {direct} ns direct");
    }
}

/// Reads during a shielded copy stay off the ailing disk, but have the spare where it is copied: better than with a member gone.
#[test]
fn reads_in_a_shielded_copy_fare_better_than_with_a_member_missing() {
    for setting in [RAID1, RAID5] {
        let of = |state| figures(setting, Load::RandomRead, state);
        let [healthy, missing, shielded] =
            [State::Healthy, State::Missing, State::Shielded].map(|state| of(state).mean_ns);
        let level = setting.level;
        assert!(healthy < shielded, "{level}: {healthy} ns healthy, {shielded} ns shielded");
        assert!(shielded < missing, "{level}: {shielded} ns shielded, {missing} ns one missing");
    }
}

/// Parity is not made while shielded, so that a stream of writes fares better than one that goes home.
#[test]
fn a_stream_of_writes_to_a_parity_group_is_faster_shielded_than_direct() {
    let shielded = figures(RAID5, Load::SequentialWrite, State::Shielded);
    let direct = figures(RAID5, Load::SequentialWrite, State::Direct);
    assert!(shielded.requests_per_sec() > direct.requests_per_sec(), "{shielded:?} {direct:?}");
}

/// One flush of the log serves every host that asked before it began. On parity groups, redirected writes then cost less than those that go home.
#[test]
fn flushed_small_writes_are_no_slower_shielded_than_direct() {
    for setting in Setting::ALL {
        let of = |state| figures(setting, Load::RandomWrite, state).requests_per_sec();
        let (shielded, direct) = (of(State::Shielded), of(State::Direct));
        let least = if setting == RAID1 { direct * 0.9 } else { direct };
        assert!(shielded >= least, "{}: {shielded}/s shielded, {direct}/s direct", setting.level);
    }
}

/// Before its swap a direct copy empties the journal, and hosts that keep the journal busy do not keep it from that.
#[test]
fn a_direct_copy_under_a_stream_of_writes_comes_to_its_end() {
    for setting in Setting::ALL {
        let copied = measure(DiskModel::SSD, setting, Load::SequentialWrite, State::Direct, SEED);
        assert!(copied.ended, "{}: {:?} ns and no end", setting.level, copied.copy_ns);
    }
}
