//! Every scripted scenario, under a few seeds each.

use forestall_faultsim::{Lines, SCENARIOS, play};

fn all(name: &str) {
    for seed in 1..=4 {
        if let Err(failure) = play(name, seed, Lines::Keep).expect("a scenario of that name") {
            panic!("{failure}");
        }
    }
}

macro_rules! scenarios {
    ($($test:ident = $name:literal),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                all($name);
            }
        )*

        #[test]
        fn each_scenario_is_tested() {
            let tested = [$($name),*];
            let untested: Vec<_> = SCENARIOS.iter().map(|s| s.name).filter(|n| !tested.contains(n)).collect();
            assert!(untested.is_empty(), "without a test: {untested:?}");
        }
    };
}

scenarios! {
    replace_then_fail_another = "replace-then-fail-another",
    j1_a_crash_and_a_loss = "crash-and-loss",
    j2_a_crash_in_a_replay = "crash-in-a-replay",
    j2_trimmed_and_written_again = "trimmed-and-written-again",
    j4_a_cut_stripe_and_bad_sectors = "cut-stripe-and-bad-sectors",
    j5_a_crash_while_copied_directly = "crash-while-copied-directly",
    fail_and_readd = "fail-and-readd",
    a_spare_dies_in_rebuild = "spare-dies-in-rebuild",
    two_spares = "two-spares",
    a_stale_disk_returns = "stale-return",
    a_rolled_back_disk = "rolled-back",
    a_dead_disk_returns_after_a_crash = "dead-disk-returns-after-crash",
    repair_does_not_destroy = "repair-does-not-destroy",
    a_scheduled_scrub_repairs_nothing = "scheduled-scrub-repairs-nothing",
    resync_then_lose_any = "resync-then-lose-any",
    an_ailing_disk_is_replaced = "ailing-disk-is-replaced",
    an_ailing_spare_is_not_used = "ailing-spare-is-not-used",
    a_pause_gives_way = "pause-gives-way",
    a_burst_of_transport_errors = "transport-burst",
    a_slow_disk_is_sat_out = "slow-disk-is-sat-out",
    the_copy_of_a_lone_disk = "copy-of-a-lone-disk",
    reads_while_a_flush_fails = "reads-while-a-flush-fails",
    shielded_replace = "shielded-replace",
    crash_while_shielded = "crash-while-shielded",
    another_member_dies = "another-member-dies",
    spare_dies_in_copy = "spare-dies-in-copy",
    leg_dies = "leg-dies",
    log_fills_up = "log-fills-up",
    cancel_while_shielded = "cancel-while-shielded",
    bad_areas_are_left_for_last = "bad-areas-are-left-for-last",
    paired_replace = "paired-replace",
    crash_while_paired = "crash-while-paired",
    a_crash_in_a_flush = "crash-in-a-flush",
    overwritten_at_home = "overwritten-at-home",
    a_secondary_loses_redundancy = "secondary-loses-redundancy",
    no_group_for_a_pair = "no-group-for-a-pair",
    a_backup_is_missing = "backup-is-missing",
    a_secondary_follows = "secondary-follows",
    crash_while_mirroring = "crash-while-mirroring",
    a_secondary_is_lost = "secondary-is-lost",
    no_such_pair = "no-such-pair",
    a_hung_member_is_read_around = "hung-member-is-read-around",
    a_hung_member_under_writes = "hung-member-under-writes",
    slow_parity_is_not_left_behind = "slow-parity-is-not-left-behind",
}

#[test]
fn an_unknown_scenario_is_not_played() {
    assert!(play("no-such-thing", 1, Lines::Off).is_none());
}
