//! Every scripted scenario, under a few seeds each.

mod stories;

use forestall_faultsim::{Lines, SCENARIOS, play};
use stories::stories;

stories! {
    SCENARIOS;
    replace_then_fail_another = "replace-then-fail-another" x 4,
    j1_a_crash_and_a_loss = "crash-and-loss" x 4,
    j2_a_damaged_journal = "damaged-journal" x 4,
    j2_a_crash_in_a_replay = "crash-in-a-replay" x 4,
    j2_trimmed_and_written_again = "trimmed-and-written-again" x 4,
    j4_a_cut_stripe_and_bad_sectors = "cut-stripe-and-bad-sectors" x 4,
    j5_a_crash_while_copied_directly = "crash-while-copied-directly" x 4,
    fail_and_readd = "fail-and-readd" x 4,
    a_spare_dies_in_rebuild = "spare-dies-in-rebuild" x 4,
    two_spares = "two-spares" x 4,
    a_stale_disk_returns = "stale-return" x 4,
    a_rolled_back_disk = "rolled-back" x 4,
    a_dead_disk_returns_after_a_crash = "dead-disk-returns-after-crash" x 4,
    repair_does_not_destroy = "repair-does-not-destroy" x 4,
    a_scheduled_scrub_repairs_nothing = "scheduled-scrub-repairs-nothing" x 4,
    k1_rot_is_mended = "rot-is-mended" x 4,
    k1_rot_without_redundancy = "rot-without-redundancy" x 4,
    k2_writes_go_astray = "writes-go-astray" x 4,
    k2_rot_is_never_copied = "rot-is-never-copied" x 4,
    k1_rot_after_a_crash = "rot-after-a-crash" x 4,
    k1_checksums_are_damaged = "checksums-are-damaged" x 4,
    resync_then_lose_any = "resync-then-lose-any" x 4,
    c1_m1_crashes_in_a_row = "crashes-in-a-row" x 4,
    c1_bad_sectors_behind_configurations = "bad-sectors-behind-configurations" x 4,
    m1_one_place_is_damaged_everywhere = "one-place-is-damaged-everywhere" x 1,
    m1_torn_pages_are_mended = "torn-pages-are-mended" x 2,
    a_primary_lost_a_block = "primary-lost-a-block" x 4,
    an_ailing_disk_is_replaced = "ailing-disk-is-replaced" x 4,
    an_ailing_spare_is_not_used = "ailing-spare-is-not-used" x 4,
    a_pause_gives_way = "pause-gives-way" x 4,
    a_burst_of_transport_errors = "transport-burst" x 4,
    a_slow_disk_is_sat_out = "slow-disk-is-sat-out" x 4,
    the_copy_of_a_lone_disk = "copy-of-a-lone-disk" x 4,
    reads_while_a_flush_fails = "reads-while-a-flush-fails" x 4,
    shielded_replace = "shielded-replace" x 4,
    crash_while_shielded = "crash-while-shielded" x 4,
    another_member_dies = "another-member-dies" x 4,
    spare_dies_in_copy = "spare-dies-in-copy" x 4,
    leg_dies = "leg-dies" x 4,
    log_fills_up = "log-fills-up" x 4,
    cancel_while_shielded = "cancel-while-shielded" x 4,
    bad_areas_are_left_for_last = "bad-areas-are-left-for-last" x 4,
    paired_replace = "paired-replace" x 4,
    crash_while_paired = "crash-while-paired" x 4,
    a_crash_in_a_flush = "crash-in-a-flush" x 4,
    overwritten_at_home = "overwritten-at-home" x 4,
    a_secondary_loses_redundancy = "secondary-loses-redundancy" x 4,
    no_group_for_a_pair = "no-group-for-a-pair" x 4,
    a_backup_is_missing = "backup-is-missing" x 4,
    a_secondary_follows = "secondary-follows" x 4,
    crash_while_mirroring = "crash-while-mirroring" x 4,
    b2_trimmed_before_the_pair = "trimmed-before-the-pair" x 4,
    a_secondary_is_lost = "secondary-is-lost" x 4,
    a_secondary_is_away = "secondary-is-away" x 4,
    a_whole_group_is_away = "whole-group-is-away" x 8,
    no_such_pair = "no-such-pair" x 4,
    a_hung_member_is_read_around = "hung-member-is-read-around" x 4,
    a_hung_member_under_writes = "hung-member-under-writes" x 4,
    a_hung_copied_disk_holds_up_no_host = "hung-copied-disk-holds-up-no-host" x 4,
    slow_parity_is_not_left_behind = "slow-parity-is-not-left-behind" x 4,
    f1_a_flush_fails_then_a_crash = "flush-fails-then-crash" x 4,
    m2_out_while_bits_are_swept = "out-while-bits-are-swept" x 4,
    m6_written_again_in_a_flush = "written-again-in-a-flush" x 4,
    a_hung_only_copy_is_given_up = "hung-only-copy-is-given-up" x 4,
}

#[test]
fn an_unknown_scenario_is_not_played() {
    assert!(play("no-such-thing", 1, Lines::Off).is_none());
}
