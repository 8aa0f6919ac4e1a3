//! Stories of avoidances: one for each rule (B1, B3 to B8, A1 to A6) and one for each cell of the table of events.
//!
//! Owns their list and the small verbs they share. `rules.rs` and `states.rs` tell those named for rules, `events.rs` and `cells.rs` those of the table of events, `matrix.rs`
//! every level with every backup storage, `sheltered.rs` those of groups that wait for a spare, `limits.rs` those of limits given to copies, `many.rs` those of several groups at once, `abandon.rs` those of logs that are gone, `given_up.rs` those of starts without them, `sources.rs` those
//! of the last source of a block, `tail.rs` those of a log's end, `regained.rs` those of disks that were copied away,
//! `existing.rs` those of a pair that takes its primary's place.

use forestall_engine::{AvoidanceState, DiskNumber, DiskReport, DiskState, Strategy};

use crate::scenarios::{SCENARIOS, Scenario};
use crate::script::Script;

mod abandon;
mod cells;
mod chained;
mod events;
mod existing;
mod given_up;
mod limits;
mod many;
mod matrix;
mod regained;
mod rules;
mod sheltered;
mod sources;
mod states;
mod tail;
mod tested;
mod told;

pub use existing::EXISTING_PAIR_SCENARIOS;
pub use matrix::{Cell, cells, play_cell};

/// Every story of an avoidance but the first few, which [`crate::SCENARIOS`] has.
pub const AVOIDANCE_SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "b1-one-backup-at-a-time",
        story: "a block moves from a backup that is full to the next one, with crashes: its older versions never return",
        script: rules::b1_one_backup_at_a_time,
    },
    Scenario {
        name: "b1-next-of-its-kind",
        story: "a work volume or work disk ends and the next one goes on: no write goes home, and a crash loses nothing",
        script: chained::next_of_its_kind,
    },
    Scenario {
        name: "b1-chain-grows-under-load",
        story: "chains grow while hosts write, place after place until all are full, with crashes",
        script: chained::grows_under_load,
    },
    Scenario {
        name: "b6-hung-place-is-passed-over",
        story: "a work volume whose group hangs is not waited for: the next one takes the writes",
        script: chained::hung_place_is_passed_over,
    },
    Scenario {
        name: "b3-leg-that-missed-writes",
        story: "a leg was away while blocks were redirected: it is never believed, and takes part again only once all is copied to it",
        script: rules::b3_leg_that_missed_writes,
    },
    Scenario {
        name: "b3-earlier-use-of-the-log",
        story: "a log is used again: entries of its earlier use are never taken",
        script: rules::b3_earlier_use_of_the_log,
    },
    Scenario {
        name: "b4-log-wraps-with-crashes",
        story: "a small log is overwritten again and again, with crashes and the loss of a leg: no slot is used too early",
        script: rules::b4_log_wraps_with_crashes,
    },
    Scenario {
        name: "b5-written-back-then-overwritten",
        story: "a block that was written back and then overwritten by a host never returns to its old version",
        script: rules::b5_written_back_then_overwritten,
    },
    Scenario {
        name: "b6-less-safe-than-home",
        story: "a backup that survives less than home is refused, and nothing is changed",
        script: rules::b6_less_safe_than_home,
    },
    Scenario {
        name: "b7-lost-leg-next-backup",
        story: "a backup loses a copy: new writes go to the next one that is safe enough, not to the group",
        script: rules::b7_lost_copy_next_backup,
    },
    Scenario {
        name: "b7-last-leg-is-kept",
        story: "the last copy of redirected blocks is not given up at an operator's word",
        script: rules::b7_last_leg_is_kept,
    },
    Scenario {
        name: "b7-leg-fails-under-reads",
        story: "a leg fails a flush while blocks are read from it: the other leg gives them, no host hears of it",
        script: rules::b7_leg_fails_under_reads,
    },
    Scenario {
        name: "f2-only-leg-fails-a-flush",
        story: "the only leg of a RAID0's backup fails a flush: what it lost is written again, or no flush succeeds",
        script: rules::f2_only_leg_fails_a_flush,
    },
    Scenario {
        name: "b8-backup-volume-ails",
        story: "the group of a work volume in use becomes ailing itself: its backup volume goes direct",
        script: many::b8_backup_volume_ails,
    },
    Scenario {
        name: "a1-copy-begins-at-rest",
        story: "the copy begins when no write is on its way home and every intent bit is clear; a scrub is stopped",
        script: states::a1_copy_begins_at_rest,
    },
    Scenario {
        name: "a2-cursor-behind-durable",
        story: "crashes in the middle of a copy that keeps its place: what lies below the cursor is on the spare",
        script: states::a2_cursor_behind_durable,
    },
    Scenario {
        name: "a3-swap-is-one-commit",
        story: "crashes at every step around the swap: the slot, the retiring disk and the state change together",
        script: states::a3_swap_is_one_commit,
    },
    Scenario {
        name: "a4-retired-disk-stays",
        story: "the replaced disk is kept as it is until write-back has drained",
        script: states::a4_retired_disk_stays,
    },
    Scenario {
        name: "a5-write-back-into-a-whole-group",
        story: "another member is lost in Copying and a spare is there: it is rebuilt before anything is written back",
        script: states::a5_write_back_into_a_whole_group,
    },
    Scenario {
        name: "a6-cancel-refused-once-dead",
        story: "a copy whose old member is dead is not cancelled; a spare given back is filled from the start later",
        script: states::a6_cancel_refused_once_dead,
    },
    Scenario {
        name: "ailing-dies-in-copying",
        story: "the ailing disk dies in mid-copy: the rest comes from its peers, under the shield",
        script: events::ailing_dies_in_copying,
    },
    Scenario {
        name: "spare-dies-in-write-back",
        story: "the new member dies while updates go home: the next spare, under the same shield",
        script: events::spare_dies_in_write_back,
    },
    Scenario {
        name: "another-dies-in-write-back",
        story: "another member dies while updates go home: a new avoidance under the same shield",
        script: events::another_dies_in_write_back,
    },
    Scenario {
        name: "leg-dies-in-write-back",
        story: "a leg dies while updates go home: the other one gives them all",
        script: events::leg_dies_in_write_back,
    },
    Scenario {
        name: "unreadable-on-ailing-and-peer",
        story: "blocks unreadable on the ailing disk, on a peer, on both: only the last are lost, exactly those",
        script: events::unreadable_on_ailing_and_peer,
    },
    Scenario {
        name: "orderly-stop-in-each-state",
        story: "the array is stopped in good order in each state of an avoidance and goes on at the next start",
        script: events::orderly_stop_in_each_state,
    },
    Scenario {
        name: "copy-is-hastened",
        story: "another member fails while a copy trickles under a limit: the limit does not count, and the spare is in place soon",
        script: limits::copy_is_hastened,
    },
    Scenario {
        name: "limit-ends-with-its-copy",
        story: "a copied disk dies, and then the one in its place: no rebuild keeps the limit that the copy had",
        script: limits::limit_ends_with_its_copy,
    },
    Scenario {
        name: "changed-limit-is-kept",
        story: "the limit of a copy is changed, or taken away: so it is after a restart",
        script: limits::changed_limit_is_kept,
    },
    Scenario {
        name: "queued-copy-has-its-number",
        story: "a second disk of the group is to be copied while the first one is: the command tells its own job and what it waits for",
        script: limits::queued_copy_has_its_number,
    },
    Scenario {
        name: "backup-fills-up-with-crashes",
        story: "the backup is full and writes go home: no host is refused, and a crash loses nothing",
        script: events::backup_fills_up_with_crashes,
    },
    Scenario {
        name: "matrix",
        story: "each level with each backup storage: members die at quarters of the copy, backups fill up or lose a copy, restarts, and more",
        script: matrix::matrix,
    },
    Scenario {
        name: "another-fails-worse",
        story: "one spare and another member dies: it is switched while less than half is copied, else the copy ends first",
        script: cells::another_fails_worse,
    },
    Scenario {
        name: "lost-blocks-come-back",
        story: "a disk that was copied away reads again what it and a peer could not: it comes back, but for what a host wrote meanwhile",
        script: regained::lost_blocks_come_back,
    },
    Scenario {
        name: "old-versions-stay-away",
        story: "stripes with lost blocks are written and the slot is copied again before the first disk reads again: nothing old returns",
        script: regained::old_versions_stay_away,
    },
    Scenario {
        name: "repair-brings-back-lost-blocks",
        story: "blocks and parity lost with a copied disk come back by a scrub with repair once the peers read again",
        script: regained::repair_brings_back_what_was_lost,
    },
    Scenario {
        name: "came-back-owes-nothing",
        story: "a copy that found lost blocks is cancelled; its disk is failed, caught up and copied away: what stands there now is not taken for them",
        script: regained::a_disk_that_came_back_owes_nothing,
    },
    Scenario {
        name: "kept-over-a-restart",
        story: "blocks are lost in a copy, and the array starts anew before updates are home: the replaced disk is tested only when nothing is lost",
        script: regained::kept_over_a_restart,
    },
    Scenario {
        name: "retired-disks-are-tested",
        story: "every disk that was copied away is tested, without a shield and as the first of two; a failed test is told",
        script: regained::retired_disks_are_tested,
    },
    Scenario {
        name: "test-goes-on-after-a-stop",
        story: "a stop or a crash interrupts the test of a replaced disk: the next start tests it, and nobody is told to bring it back untested",
        script: tested::test_goes_on_after_a_stop,
    },
    Scenario {
        name: "swap-cut-before-it-leaves",
        story: "crashes at every step around a swap without a shield: the replaced disk leaves, is tested and is a spare again",
        script: tested::swap_cut_before_it_leaves,
    },
    Scenario {
        name: "owing-disk-over-a-restart",
        story: "a replaced disk owes blocks, and the array starts anew: it is kept, people are told so, and it is tested once nothing is lost",
        script: tested::owing_disk_over_a_restart,
    },
    Scenario {
        name: "ended-test-stays-ended",
        story: "a test that failed, and one that was stopped, do not begin again by a start: why it failed is told still, and the disk is used only after another test",
        script: tested::ended_test_stays_ended,
    },
    Scenario {
        name: "failed-test-outlives-its-group",
        story: "the group that a disk served is deleted after its test failed: over a restart too it is not used before somebody trusts it",
        script: tested::failed_test_outlives_its_group,
    },
    Scenario {
        name: "kept-for-a-group-that-fails",
        story: "the spare is gone after the swap, and with it what the group can give: the disk that was copied away is kept, not tested",
        script: tested::kept_for_a_group_that_fails,
    },
    Scenario {
        name: "retired-again",
        story: "a disk that owed blocks comes back and is copied away from another slot: it is not tested for what it owed first",
        script: tested::retired_again,
    },
    Scenario {
        name: "copy-ends-without-a-spare",
        story: "the only spare of a copy by command dies or is missing at a start: the copy ends, is told of once and does not begin by itself later",
        script: told::copy_ends_without_a_spare,
    },
    Scenario {
        name: "next-spare-stands-in",
        story: "the spare of a paused copy dies, or is missing at a start: the next one stands in for it, and that is said",
        script: told::next_spare_stands_in,
    },
    Scenario {
        name: "pause-ends-with-its-spare",
        story: "the spare of a paused copy is lost: the next one is filled, and no start lets it stand still",
        script: told::pause_ends_with_its_spare,
    },
    Scenario {
        name: "pause-ends-with-its-member",
        story: "the old member of a paused copy is missing at a start: its slot is rebuilt without a word",
        script: told::pause_ends_with_its_member,
    },
    Scenario {
        name: "one-of-two-copies-is-paused",
        story: "one of two copies of a group is paused: a start lets that one alone stand still, and giving the other up keeps the shield",
        script: told::one_of_two_copies_is_paused,
    },
    Scenario {
        name: "third-spare-stands-in",
        story: "a spare dies in a copy and the next one takes no maps: the third stands in",
        script: told::third_spare_stands_in,
    },
    Scenario {
        name: "ailing-disk-waits",
        story: "the only spare of an ailing disk dies: its copy is not said to have ended, and goes on once there is a spare",
        script: told::ailing_disk_waits,
    },
    Scenario {
        name: "paused-copy-is-listed",
        story: "a copy is paused, before it begins or in the middle, also over a restart: its job is listed as paused with what makes it go on",
        script: told::paused_copy_is_listed,
    },
    Scenario {
        name: "verdict-is-told-once",
        story: "a disk is found ailing: that is told once, whatever starts come, and again only after it was cleared",
        script: told::verdict_is_told_once,
    },
    Scenario {
        name: "why-there-is-no-spare",
        story: "a copy is asked for and the spares are ailing, too small or in use: each is named; one without a backup tells what would take the writes",
        script: told::why_there_is_no_spare,
    },
    Scenario {
        name: "new-limit-holds-no-rows",
        story: "a copy gets a limit while it has read ahead: no host waits for as long as the copy does",
        script: limits::new_limit_holds_no_rows,
    },
    Scenario {
        name: "two-retired-disks",
        story: "two disks of one group are replaced under one shield: a block that the first could not give is not taken from the second",
        script: cells::two_retired_disks,
    },
    Scenario {
        name: "another-ails",
        story: "a second member is found ailing: in the copy of the first it gets its turn under the same shield, in write-back after its end",
        script: cells::another_ails,
    },
    Scenario {
        name: "unreadable-in-write-back",
        story: "blocks of a member become unreadable while updates go home: normal repair",
        script: cells::unreadable_in_write_back,
    },
    Scenario {
        name: "retired-dies-in-write-back",
        story: "the retired disk dies while updates go home",
        script: cells::retired_dies_in_write_back,
    },
    Scenario {
        name: "full-backup-is-drained-faster",
        story: "a nearly full backup is drained without giving way to hosts",
        script: cells::full_backup_is_drained_faster,
    },
    Scenario {
        name: "cancel-in-every-state",
        story: "a replacement is given up in each state: done, or refused with nothing changed",
        script: cells::cancel_in_every_state,
    },
    Scenario {
        name: "most-disks-are-legs",
        story: "a work disk with most of the array's disks is removed: the array is not paused",
        script: cells::most_disks_are_legs,
    },
    Scenario {
        name: "no-spare-is-left",
        story: "each spare dies in the copy: the next starts over, and with none left the shield comes down",
        script: cells::no_spare_is_left,
    },
    Scenario {
        name: "last-leg-refuses-configurations",
        story: "the last leg takes no configuration any more: it is read to the end, after a restart too, and no other in its place",
        script: sources::last_leg_refuses_configurations,
    },
    Scenario {
        name: "flush-waits-for-a-lost-leg",
        story: "a flush that the other leg takes is answered once the lost one is out of the configuration (F1)",
        script: sources::flush_waits_for_a_lost_leg,
    },
    Scenario {
        name: "block-that-no-leg-gives",
        story: "blocks that no leg gives end as lost blocks of the group, exactly those, and the write-back ends (M5)",
        script: sources::block_that_no_leg_gives,
    },
    Scenario {
        name: "log-is-copied-anew",
        story: "a lost leg is made up for by a new one while hosts write and the log is in use; then the old one dies, with a crash (B7)",
        script: sources::log_is_copied_anew,
    },
    Scenario {
        name: "weak-log-is-mended",
        story: "a log that is less safe than home takes nothing more, until a new leg holds all of it",
        script: sources::weak_log_is_mended,
    },
    Scenario {
        name: "durable-tail-is-damaged",
        story: "the last entries of a log that were flushed are damaged: healed from another place, or an error of exactly that block, never older data",
        script: tail::durable_tail_is_damaged,
    },
    Scenario {
        name: "unflushed-tail-is-torn",
        story: "the last entry of a log, which no flush was answered for, is torn on every leg: it never happened",
        script: tail::unflushed_tail_is_torn,
    },
    Scenario {
        name: "cleared-tail-is-damaged",
        story: "what a log went home with is damaged in its table: the index still says that home is newer",
        script: tail::cleared_tail_is_damaged,
    },
    Scenario {
        name: "durable-tail-costs",
        story: "what a write and a flush cost each leg of a log, counted",
        script: tail::durable_tail_costs,
    },
    Scenario {
        name: "rate-outlives-a-restart",
        story: "a copy goes on after a restart no faster than was asked",
        script: sources::rate_outlives_a_restart,
    },
    Scenario {
        name: "hung-copy-is-read-around",
        story: "the disk being filled hangs: reads of what was copied go to the peers after the first",
        script: sources::hung_copy_is_read_around,
    },
    Scenario {
        name: "only-map-is-not-destroyed",
        story: "the only drive fails to take a page of a map, and the machine crashes when that is tried again: the last page stands",
        script: sources::only_map_is_not_destroyed,
    },
    Scenario {
        name: "last-legs-are-gone",
        story: "all legs die or hang at once: the way out is named, and giving the log up lists exactly what only it had",
        script: abandon::last_legs_are_gone,
    },
    Scenario {
        name: "empty-log-is-let-go",
        story: "all legs die while nothing is away: no host hears of it, and a start does not ask for them",
        script: abandon::empty_log_is_let_go,
    },
    Scenario {
        name: "b9-given-up-at-a-start",
        story: "each level, each storage: it is gone at a start, which is refused; given up, its volume holds what home has, and what comes back is not believed",
        script: given_up::at_a_start,
    },
    Scenario {
        name: "b9-crash-while-giving-up",
        story: "each storage: crashes all through a start that gives it up: the storage is as it was, or gone",
        script: given_up::crash_while_giving_up,
    },
    Scenario {
        name: "b9-readable-is-kept",
        story: "each level: a start that may give up what it cannot read, with all or one of the legs, gives nothing up",
        script: given_up::readable_is_kept,
    },
    Scenario {
        name: "b9-only-what-is-gone",
        story: "two groups shielded by two storages, one of which is gone: only its volume is put back",
        script: given_up::only_what_is_gone,
    },
    Scenario {
        name: "b9-damaged-is-given-up",
        story: "what tells where blocks lie is spoilt in every copy of a log, or of a pair's bits: refused, and given up only when asked",
        script: given_up::damaged_is_given_up,
    },
    Scenario {
        name: "sheltered-waits",
        story: "each level: spares die in the copy and none is left, so the shield stays up, over restarts, until one is added",
        script: sheltered::waits,
    },
    Scenario {
        name: "sheltered-without-any-spare",
        story: "each level: a disk is ailing and there is no spare: the group is shielded at once; crashes; then a spare comes",
        script: sheltered::without_any_spare,
    },
    Scenario {
        name: "sheltered-members-die",
        story: "the ailing disk, or another member, dies while its group is sheltered",
        script: sheltered::members_die,
    },
    Scenario {
        name: "sheltered-another-first",
        story: "another member dies while a group is sheltered: the spare that comes is its, and the ailing disk goes on waiting",
        script: sheltered::another_first,
    },
    Scenario {
        name: "sheltered-another-ails",
        story: "a second member is found ailing while its group is sheltered: it gets its turn after the first",
        script: sheltered::another_ails,
    },
    Scenario {
        name: "sheltered-given-up",
        story: "each level: given up by command or by policy, also when its turn would come again",
        script: sheltered::given_up,
    },
    Scenario {
        name: "sheltered-backup-ends",
        story: "the backup fills up, or loses a copy, while the group is sheltered: blocks go home, no host is refused",
        script: sheltered::backup_ends,
    },
    Scenario {
        name: "sheltered-unreadable",
        story: "blocks unreadable on the ailing disk and on its peer while sheltered: an error, and whole again once written",
        script: sheltered::unreadable,
    },
    Scenario {
        name: "two-groups-share",
        story: "two groups avoid at once over one work disk and one work volume; the logs wrap around, with crashes",
        script: many::two_groups_share,
    },
    Scenario {
        name: "a-day-of-writes",
        story: "a day of writes under a shield that stands still leaks no space of the log",
        script: many::a_day_of_writes,
    },
];

/// Every story, those of avoidances too.
pub fn all_scenarios() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().chain(AVOIDANCE_SCENARIOS).chain(EXISTING_PAIR_SCENARIOS)
}

impl Script {
    /// Waits until the avoidance is in `state`, looking so often that no state is missed.
    pub(crate) async fn sees(&self, state: AvoidanceState) {
        for _ in 0..4_000_000 {
            if self.state() == Some(state) {
                return;
            }
            self.machine.pause(20_000).await;
        }
        self.machine.complain(format!(
            "the avoidance was never {state}; events: {:?}",
            self.machine.array.events_after(0)
        ));
    }

    /// Copies disk 1 under a shield that stands still in Copying.
    pub(crate) async fn stand_still(&self, rate: u64, strategy: Strategy) {
        self.replace(1, rate, strategy).await;
        self.must(self.machine.array.pause_replace(DiskNumber(1)).await, "pause");
        self.copying().await;
    }

    /// Lets the copy of disk 1 go on.
    pub(crate) async fn go_on(&self) {
        self.must(self.machine.array.resume_replace(DiskNumber(1)).await, "resume");
    }

    /// Whether every slot of the first group holds a member in sync, with nothing being filled.
    pub(crate) fn is_whole(&self) -> bool {
        let report = self.machine.array.report();
        let filling = |d: &DiskReport| d.state == DiskState::Rebuilding;
        report.groups[0].absent.is_empty() && !report.disks.iter().any(filling)
    }

    /// A command that must be refused.
    pub(crate) fn must_refuse<T, E: std::fmt::Display>(&self, result: Result<T, E>, word: &str) {
        match result {
            Ok(_) => self.machine.complain(format!("it should have been refused: {word}")),
            Err(error) if error.to_string().contains(word) => {}
            Err(error) => self.machine.complain(format!("refused without {word:?}: {error}")),
        }
    }
}
