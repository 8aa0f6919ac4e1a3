//! Every story of an avoidance, under a few seeds each.
//!
//! The table of events, with the stories of each cell; the matrix plays most of them for every level and backup storage, too:
//!
//! | event | in Copying | in WritingBack | in Sheltered |
//! |---|---|---|---|
//! | ailing disk dies | `ailing-dies-in-copying` | `retired-dies-in-write-back` | `sheltered-members-die` |
//! | spare dies | `spare-dies-in-copy`, `no-spare-is-left` | `spare-dies-in-write-back` | `sheltered-waits` |
//! | another member dies | `another-member-dies`, `a5-write-back-into-a-whole-group` | `another-dies-in-write-back` | `sheltered-members-die`, `sheltered-another-first` |
//! | another member fails worse | `another-fails-worse`, `another-ails` | `another-ails` | `sheltered-another-ails` |
//! | block unreadable on ailing disk and on a peer | `unreadable-on-ailing-and-peer` | `unreadable-in-write-back` | `sheltered-unreadable` |
//! | backup full | `b1-one-backup-at-a-time`, `b1-next-of-its-kind`, `b1-chain-grows-under-load`, `backup-fills-up-with-crashes`, `log-fills-up` | `full-backup-is-drained-faster` | `sheltered-backup-ends` |
//! | backup loses a copy | `log-is-copied-anew`, `weak-log-is-mended`, `leg-dies`, `b7-lost-leg-next-backup` | `leg-dies-in-write-back` | `sheltered-backup-ends` |
//! | backup loses its last copy | `last-leg-refuses-configurations`, `last-legs-are-gone`, `empty-log-is-let-go` | `block-that-no-leg-gives`, `last-legs-are-gone` | `sheltered-backup-ends` |
//! | cancel | `cancel-in-every-state`, `cancel-while-shielded` | `cancel-in-every-state`, `a6-cancel-refused-once-dead` | `sheltered-given-up` |
//! | orderly stop | `orderly-stop-in-each-state` | `orderly-stop-in-each-state` | `sheltered-waits` |

mod stories;

use forestall_faultsim::{AVOIDANCE_SCENARIOS, all_scenarios};
use stories::stories;

/// Stories named in the table above, cell by cell.
fn cells() -> Vec<Vec<&'static str>> {
    let lines = include_str!("avoidance.rs").lines();
    let rows = lines.filter_map(|line| line.strip_prefix("//! | ")).skip(1);
    let names = |cell: &'static str| cell.split('`').skip(1).step_by(2).collect();
    rows.flat_map(|row| row.split('|').skip(1).take(3)).map(names).collect()
}

#[test]
fn each_cell_of_the_table_has_a_story() {
    let cells = cells();
    assert_eq!(cells.len(), 30, "three cells for each of ten events");
    for cell in cells {
        assert!(!cell.is_empty());
        let missing: Vec<_> =
            cell.iter().filter(|name| !all_scenarios().any(|s| s.name == **name)).collect();
        assert!(missing.is_empty(), "no such story: {missing:?}");
    }
}

stories! {
    AVOIDANCE_SCENARIOS;
    b1_one_backup_at_a_time = "b1-one-backup-at-a-time" x 3,
    b1_next_of_its_kind = "b1-next-of-its-kind" x 2,
    b1_chain_grows_under_load = "b1-chain-grows-under-load" x 2,
    b6_hung_place_is_passed_over = "b6-hung-place-is-passed-over" x 2,
    b3_leg_that_missed_writes = "b3-leg-that-missed-writes" x 4,
    b3_earlier_use_of_the_log = "b3-earlier-use-of-the-log" x 8,
    b4_log_wraps_with_crashes = "b4-log-wraps-with-crashes" x 2,
    b5_written_back_then_overwritten = "b5-written-back-then-overwritten" x 3,
    b6_less_safe_than_home = "b6-less-safe-than-home" x 1,
    b7_lost_copy_next_backup = "b7-lost-leg-next-backup" x 3,
    b7_last_leg_is_kept = "b7-last-leg-is-kept" x 2,
    b7_leg_fails_under_reads = "b7-leg-fails-under-reads" x 8,
    f2_only_leg_fails_a_flush = "f2-only-leg-fails-a-flush" x 3,
    b8_backup_volume_ails = "b8-backup-volume-ails" x 3,
    a1_copy_begins_at_rest = "a1-copy-begins-at-rest" x 3,
    a2_cursor_behind_durable = "a2-cursor-behind-durable" x 1,
    a3_swap_is_one_commit = "a3-swap-is-one-commit" x 1,
    a4_retired_disk_stays = "a4-retired-disk-stays" x 3,
    a5_write_back_into_a_whole_group = "a5-write-back-into-a-whole-group" x 2,
    a6_cancel_refused_once_dead = "a6-cancel-refused-once-dead" x 2,
    ailing_dies_in_copying = "ailing-dies-in-copying" x 2,
    spare_dies_in_write_back = "spare-dies-in-write-back" x 2,
    another_dies_in_write_back = "another-dies-in-write-back" x 2,
    leg_dies_in_write_back = "leg-dies-in-write-back" x 2,
    unreadable_on_ailing_and_peer = "unreadable-on-ailing-and-peer" x 2,
    orderly_stop_in_each_state = "orderly-stop-in-each-state" x 2,
    a_copy_is_hastened = "copy-is-hastened" x 4,
    a_limit_ends_with_its_copy = "limit-ends-with-its-copy" x 4,
    a_changed_limit_is_kept = "changed-limit-is-kept" x 4,
    a_queued_copy_has_its_number = "queued-copy-has-its-number" x 4,
    backup_fills_up_with_crashes = "backup-fills-up-with-crashes" x 2,
    matrix = "matrix" x 1,
    another_fails_worse = "another-fails-worse" x 1,
    another_ails = "another-ails" x 2,
    unreadable_in_write_back = "unreadable-in-write-back" x 2,
    retired_dies_in_write_back = "retired-dies-in-write-back" x 2,
    full_backup_is_drained_faster = "full-backup-is-drained-faster" x 2,
    cancel_in_every_state = "cancel-in-every-state" x 1,
    most_disks_are_legs = "most-disks-are-legs" x 2,
    no_spare_is_left = "no-spare-is-left" x 2,
    last_leg_refuses_configurations = "last-leg-refuses-configurations" x 3,
    flush_waits_for_a_lost_leg = "flush-waits-for-a-lost-leg" x 3,
    block_that_no_leg_gives = "block-that-no-leg-gives" x 2,
    durable_tail_is_damaged = "durable-tail-is-damaged" x 4,
    unflushed_tail_is_torn = "unflushed-tail-is-torn" x 4,
    cleared_tail_is_damaged = "cleared-tail-is-damaged" x 4,
    durable_tail_costs = "durable-tail-costs" x 1,
    log_is_copied_anew = "log-is-copied-anew" x 3,
    weak_log_is_mended = "weak-log-is-mended" x 2,
    rate_outlives_a_restart = "rate-outlives-a-restart" x 1,
    hung_copy_is_read_around = "hung-copy-is-read-around" x 2,
    only_map_is_not_destroyed = "only-map-is-not-destroyed" x 3,
    two_groups_share = "two-groups-share" x 3,
    a_day_of_writes = "a-day-of-writes" x 1,
    lost_blocks_come_back = "lost-blocks-come-back" x 3,
    old_versions_stay_away = "old-versions-stay-away" x 3,
    m5_repair_brings_back_lost_blocks = "repair-brings-back-lost-blocks" x 2,
    m5_came_back_owes_nothing = "came-back-owes-nothing" x 3,
    a4_kept_over_a_restart = "kept-over-a-restart" x 3,
    a4_retired_disks_are_tested = "retired-disks-are-tested" x 2,
    a4_test_goes_on_after_a_stop = "test-goes-on-after-a-stop" x 2,
    a4_swap_cut_before_it_leaves = "swap-cut-before-it-leaves" x 1,
    a4_owing_disk_over_a_restart = "owing-disk-over-a-restart" x 2,
    a4_ended_test_stays_ended = "ended-test-stays-ended" x 2,
    a4_failed_test_outlives_its_group = "failed-test-outlives-its-group" x 2,
    a4_kept_for_a_group_that_fails = "kept-for-a-group-that-fails" x 2,
    a4_retired_again = "retired-again" x 1,
    copy_ends_without_a_spare = "copy-ends-without-a-spare" x 2,
    next_spare_stands_in = "next-spare-stands-in" x 2,
    pause_ends_with_its_spare = "pause-ends-with-its-spare" x 2,
    pause_ends_with_its_member = "pause-ends-with-its-member" x 2,
    one_of_two_copies_is_paused = "one-of-two-copies-is-paused" x 2,
    third_spare_stands_in = "third-spare-stands-in" x 2,
    ailing_disk_waits = "ailing-disk-waits" x 2,
    paused_copy_is_listed = "paused-copy-is-listed" x 2,
    verdict_is_told_once = "verdict-is-told-once" x 2,
    why_there_is_no_spare = "why-there-is-no-spare" x 1,
    new_limit_holds_no_rows = "new-limit-holds-no-rows" x 1,
    two_retired_disks = "two-retired-disks" x 3,
    last_legs_are_gone = "last-legs-are-gone" x 1,
    empty_log_is_let_go = "empty-log-is-let-go" x 2,
    b9_given_up_at_a_start = "b9-given-up-at-a-start" x 2,
    b9_crash_while_giving_up = "b9-crash-while-giving-up" x 4,
    b9_readable_is_kept = "b9-readable-is-kept" x 2,
    b9_only_what_is_gone = "b9-only-what-is-gone" x 2,
    b9_damaged_is_given_up = "b9-damaged-is-given-up" x 2,
    sheltered_waits = "sheltered-waits" x 2,
    sheltered_without_any_spare = "sheltered-without-any-spare" x 3,
    sheltered_members_die = "sheltered-members-die" x 2,
    sheltered_another_first = "sheltered-another-first" x 2,
    sheltered_another_ails = "sheltered-another-ails" x 2,
    sheltered_given_up = "sheltered-given-up" x 1,
    sheltered_backup_ends = "sheltered-backup-ends" x 2,
    sheltered_unreadable = "sheltered-unreadable" x 2,
}
