//! The playbill.
//!
//! Owns the list of every story by name. Invariant: a name is used once, and for good.

use super::*;

/// Every story.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "replace-then-fail-another",
        story: "after a replace the group is whole: any other member may fail",
        script: replace_then_fail_another,
    },
    Scenario {
        name: "crash-and-loss",
        story: "a parity group crashes under writers and comes back without as many members as it survives",
        script: crash_and_loss,
    },
    Scenario {
        name: "damaged-journal",
        story: "after a crash under writers the journal of one member is damaged; the group starts, and then loses as many more as it survives",
        script: damaged_journal,
    },
    Scenario {
        name: "crash-in-a-replay",
        story: "the start that replays a journal crashes again and again, then a member is lost",
        script: crash_in_a_replay,
    },
    Scenario {
        name: "trimmed-and-written-again",
        story: "what was written after a trim is not overwritten by a record from before it",
        script: trimmed_and_written_again,
    },
    Scenario {
        name: "cut-stripe-and-bad-sectors",
        story: "a crash cuts full stripes, one member is lost, another does not read its part of them",
        script: cut_stripe_and_bad_sectors,
    },
    Scenario {
        name: "crash-while-copied-directly",
        story: "a disk is copied without a shield, the machine crashes and a member is lost",
        script: crash_while_copied_directly,
    },
    Scenario {
        name: "fail-and-readd",
        story: "a member that was out while hosts wrote returns and alone holds everything",
        script: fail_and_readd,
    },
    Scenario {
        name: "spare-dies-in-rebuild",
        story: "the spare dies while it is filled, the next one takes over",
        script: spare_dies_in_rebuild,
    },
    Scenario {
        name: "two-spares",
        story: "two members die at once, two spares take over, two others may die",
        script: two_spares,
    },
    Scenario {
        name: "stale-return",
        story: "a disk that was away while hosts wrote returns and is not believed until it is brought up to date",
        script: stale_return,
    },
    Scenario {
        name: "rolled-back",
        story: "a disk in service is put back to an image of long ago and is never believed",
        script: rolled_back,
    },
    Scenario {
        name: "dead-disk-returns-after-crash",
        story: "a disk dies, hosts flush, the machine crashes, the disk is back: old data is not served",
        script: dead_disk_returns,
    },
    Scenario {
        name: "repair-does-not-destroy",
        story: "a repairing scrub meets unreadable sectors everywhere and mends them from redundancy",
        script: repair_does_not_destroy,
    },
    Scenario {
        name: "rot-is-mended",
        story: "bits flip on as many members as the level survives; all is had and mended",
        script: falsehoods::rot_is_mended,
    },
    Scenario {
        name: "rot-without-redundancy",
        story: "what rots where nothing else gives it is an error of exactly its blocks",
        script: falsehoods::rot_without_redundancy,
    },
    Scenario {
        name: "writes-go-astray",
        story: "a disk loses writes or does them elsewhere; both places are found out and mended",
        script: falsehoods::writes_go_astray,
    },
    Scenario {
        name: "rot-is-never-copied",
        story: "a disk with rotten blocks is replaced, a peer rots in a rebuild",
        script: falsehoods::rot_is_never_copied,
    },
    Scenario {
        name: "rot-after-a-crash",
        story: "what was flushed rots while the journal or the intent bitmap still names it",
        script: falsehoods::rot_after_a_crash,
    },
    Scenario {
        name: "checksums-are-damaged",
        story: "the checksums themselves cannot be read, or rot",
        script: falsehoods::checksums_are_damaged,
    },
    Scenario {
        name: "checksums-beside-missing-members",
        story: "members are missing, and the checksums of another cannot be read: hosts write, and no block is lost",
        script: falsehoods::checksums_beside_missing_members,
    },
    Scenario {
        name: "resync-then-lose-any",
        story: "after a crash and a resync each member in turn may be lost",
        script: resync_then_lose_any,
    },
    Scenario {
        name: "crashes-in-a-row",
        story: "a machine crashes in start after start, then a member is lost: configuration and maps are there",
        script: crashes_in_a_row,
    },
    Scenario {
        name: "primary-lost-a-block",
        story: "a block of a primary cannot be read: all others follow, it is told once, and a write of it makes the pair equal",
        script: primary_lost_a_block,
    },
    Scenario {
        name: "torn-pages-are-mended",
        story: "pages of maps are torn on one disk, a start that mends them crashes at each step, and the other disk is lost",
        script: torn_pages_are_mended,
    },
    Scenario {
        name: "one-place-is-damaged-everywhere",
        story: "one of the two places of a map or of the configuration goes bad on every disk: the other has the same",
        script: one_place_is_damaged_everywhere,
    },
    Scenario {
        name: "bad-sectors-behind-configurations",
        story: "sectors go bad in both slots of a disk's configuration, behind what stands there: it starts, alone",
        script: bad_sectors_behind_configurations,
    },
    Scenario {
        name: "ailing-disk-is-replaced",
        story: "a member errs on reads again and again: it is copied to the spare by itself, and a crash forgets no verdict",
        script: ailing_disk_is_replaced,
    },
    Scenario {
        name: "believed-by-many",
        story: "many read blocks at once whose checksums a disk cannot give, with members missing: they are believed, and no mismatch is counted (K1)",
        script: believed_by_many,
    },
    Scenario {
        name: "errors-of-peers-count",
        story: "blocks of a missing member are rebuilt from a disk that does not read everywhere: its errors count against it, and are mended",
        script: errors_of_peers_count,
    },
    Scenario {
        name: "each-error-counts-once",
        story: "hosts write beside a block that does not read, and read what needs it, again and again: it counts once, and is mended",
        script: each_error_counts_once,
    },
    Scenario {
        name: "each-failure-counts-once",
        story: "with a member missing a block of another does not read: each request that fails for it counts one error",
        script: each_failure_counts_once,
    },
    Scenario {
        name: "ailing-spare-is-not-used",
        story: "with no spare, only an ailing one or the policy to advise, an ailing member stays and somebody is told",
        script: ailing_spare_is_not_used,
    },
    Scenario {
        name: "pause-gives-way",
        story: "a paused copy goes on when the old member dies, and a disk whose copy was paused is filled again later",
        script: pause_gives_way,
    },
    Scenario {
        name: "transport-burst",
        story: "four disks do not answer for a moment: no spare is spent, nobody is judged",
        script: transport_burst,
    },
    Scenario {
        name: "slow-disk-is-sat-out",
        story: "a disk five times slower than its peers is not read within seconds; where all are slow nobody is accused",
        script: slow_disk_is_sat_out,
    },
    Scenario {
        name: "copy-of-a-lone-disk",
        story: "the only copy of everything is copied to a spare while hosts write, with crashes: what was read stays",
        script: copy_of_a_lone_disk,
    },
    Scenario {
        name: "reads-while-a-flush-fails",
        story: "a read is on its way while the same disk fails a flush and forgets what it took: old data is not served",
        script: reads_while_a_flush_fails,
    },
    Scenario {
        name: "scheduled-scrub-repairs-nothing",
        story: "one of two copies changes silently and the schedule scrubs: it tells, and makes neither copy like the other",
        script: scheduled_scrub_repairs_nothing,
    },
    Scenario {
        name: "shielded-replace",
        story: "while a disk is copied, hosts' writes never reach the group and their reads never the ailing disk",
        script: shielded_replace,
    },
    Scenario {
        name: "crash-while-shielded",
        story: "crashes in every state of an avoidance: nothing flushed is lost, nothing that was read changes",
        script: crash_while_shielded,
    },
    Scenario {
        name: "another-member-dies",
        story: "another member dies in the middle of the copy: what the ailing disk still reads is not lost",
        script: another_member_dies,
    },
    Scenario {
        name: "spare-dies-in-copy",
        story: "the spare dies under the shield, and the next one: the old member stays and the shield comes down",
        script: spare_dies_in_copy,
    },
    Scenario {
        name: "leg-dies",
        story: "a work disk loses legs while it holds the newest writes",
        script: leg_dies,
    },
    Scenario {
        name: "log-fills-up",
        story: "far more is written than the work disk holds: nothing is refused and its space comes back",
        script: log_fills_up,
    },
    Scenario {
        name: "cancel-while-shielded",
        story: "an avoidance is given up half-way: updates go home with the old member in its place",
        script: cancel_while_shielded,
    },
    Scenario {
        name: "bad-areas-are-left-for-last",
        story: "the ailing disk has unreadable places: what it reads well is copied first, once, the rest comes from the peers",
        script: bad_areas_are_left_for_last,
    },
    Scenario {
        name: "paired-replace",
        story: "writes go to secondaries in a free group while a disk is copied; the group takes none, and the secondaries are gone after",
        script: paired_replace,
    },
    Scenario {
        name: "crash-while-paired",
        story: "crashes at any moment of an avoidance with new pairs: a bit is durable after its data, and cleared after home (B2)",
        script: crash_while_paired,
    },
    Scenario {
        name: "crash-in-a-flush",
        story: "with new pairs, crashes around flushes: a bit that is on disk tells of data that is on disk (B2)",
        script: crash_in_a_flush,
    },
    Scenario {
        name: "overwritten-at-home",
        story: "what was written back and then overwritten never returns to its old version (B5)",
        script: overwritten_at_home,
    },
    Scenario {
        name: "secondary-loses-redundancy",
        story: "the group of the secondaries loses members: new writes go where they are as safe as home (B6)",
        script: secondary_loses_redundancy,
    },
    Scenario {
        name: "no-group-for-a-pair",
        story: "groups that are full, in use or less safe take no secondary, and asking for one is refused with the reason (B6, B8)",
        script: no_group_for_a_pair,
    },
    Scenario {
        name: "backup-is-missing",
        story: "the group that holds the newest writes is away at a start: the array does not come up without it",
        script: backup_is_missing,
    },
    Scenario {
        name: "secondary-follows",
        story: "a pair is made, held, split and made equal again under writes: the secondary is equal whenever no bit is left",
        script: secondary_follows,
    },
    Scenario {
        name: "crash-while-mirroring",
        story: "crashes at any moment of a pair's copying: what differs is marked (B2), and is equal again after",
        script: crash_while_mirroring,
    },
    Scenario {
        name: "damaged-leg",
        story: "one leg of a work disk holds something else than was written there: it is told, a crash alone is not, and the other leg gives every block",
        script: damaged_leg,
    },
    Scenario {
        name: "trimmed-before-the-pair",
        story: "a volume is trimmed and made a primary before that is durable, and the machine crashes: no bit left means equal volumes",
        script: trimmed_before_the_pair,
    },
    Scenario {
        name: "secondary-is-lost",
        story: "the secondary's group takes no more writes, or is away at a start: the primary goes on, and the pair ends, or waits",
        script: secondary_is_lost,
    },
    Scenario {
        name: "whole-group-is-away",
        story: "each level: all disks of a group are missing at one start, or two, after a crash too, and are brought back: it has all that it had",
        script: whole_group_is_away,
    },
    Scenario {
        name: "secondary-is-away",
        story: "the secondary's group is away for a start or two: the pair waits, and all of it is copied when the group is back",
        script: secondary_is_away,
    },
    Scenario {
        name: "no-such-pair",
        story: "volumes of other sizes, of one group, with data, in a pair already: refused, nothing changed",
        script: no_such_pair,
    },
    Scenario {
        name: "hung-member-is-read-around",
        story: "a member answers no more: host reads go to its peers after a fraction of the time limit, and it is failed in the end",
        script: hung_member_is_read_around,
    },
    Scenario {
        name: "hung-member-under-writes",
        story: "a member answers no more while hosts write: it is failed at the time limit, and reads wait no longer than that",
        script: hung_member_under_writes,
    },
    Scenario {
        name: "hung-copied-disk-holds-up-no-host",
        story: "a disk that is being copied answers no more: the copy goes on from its peers, and no host waits for the time limit",
        script: hung_copied_disk_holds_up_no_host,
    },
    Scenario {
        name: "slow-parity-is-not-left-behind",
        story: "beside a lost block a row is written whose parity does not answer: the parity follows or is listed lost",
        script: slow_parity_is_not_left_behind,
    },
    Scenario {
        name: "stripe-of-a-dead-disk",
        story: "parts of a stripe are written just after a disk of it died: the record of the whole stripe does not speak against them (J4)",
        script: stripe_of_a_dead_disk,
    },
    Scenario {
        name: "zeroed-again-and-cut",
        story: "a group without redundancy left is cut while a block is zeroed again and again: zeroes of before are not taken for a batch that had begun (J2)",
        script: zeroed_again_and_cut,
    },
    Scenario {
        name: "parity-that-was-not-written",
        story: "with members missing a disk does not take parity, then others of the row are written, and the power goes: no older parity is written (J2)",
        script: parity_that_was_not_written,
    },
    Scenario {
        name: "flushed-and-gone-in-place",
        story: "with a member missing the newest record is damaged and its flushed block does not read: an error, never what stood there before (J2)",
        script: flushed_and_gone_in_place,
    },
    Scenario {
        name: "out-before-it-was-told",
        story: "a disk is gone for a moment under writes, and back after the power went, before any disk was told that it is out: the parity it missed is made good (J1)",
        script: out_before_it_was_told,
    },
    Scenario {
        name: "swept-beside-a-flush",
        story: "a copy with a shield is cancelled while hosts write and flush, and the power goes: regions of a flush under way keep their bits (M2)",
        script: swept_beside_a_flush,
    },
    Scenario {
        name: "list-fails-with-the-flush",
        story: "a disk that cannot be spared fails a flush while the list of lost blocks cannot be written: the next flush writes it (F2, M5)",
        script: list_fails_with_the_flush,
    },
    Scenario {
        name: "flush-fails-then-crash",
        story: "a mirror's flush fails last, and the power goes when the host's is answered: what it covers reads (C1, F1)",
        script: flush_fails_then_crash,
    },
    Scenario {
        name: "out-while-bits-are-swept",
        story: "a member is out for a minute under writes and comes back: all of them are copied to it (M2)",
        script: out_while_bits_are_swept,
    },
    Scenario {
        name: "written-again-in-a-flush",
        story: "trimmed space is written a little and the power goes in the flush: all else reads as zeroes (M6)",
        script: written_again_in_a_flush,
    },
    Scenario {
        name: "hung-only-copy-is-given-up",
        story: "a member that cannot be spared answers neither a write nor a configuration: both end, the write with an error",
        script: hung_only_copy_is_given_up,
    },
    Scenario {
        name: "stop-meets-a-pause",
        story: "too many disks are found dead by an orderly stop, and nobody says that it may go on: it ends, and tells so (C3)",
        script: stop_meets_a_pause,
    },
    Scenario {
        name: "write-home-takes-long",
        story: "a write is on its way home when the shield goes up, and takes long: the copy begins after it (A1)",
        script: write_home_takes_long,
    },
    Scenario {
        name: "cursor-is-faster-than-the-spare",
        story: "the spare is slow, and the power goes when the cursor stands elsewhere: what is below it is on the spare (A2)",
        script: cursor_is_faster_than_the_spare,
    },
    Scenario {
        name: "flush-meets-a-slow-commit",
        story: "a mirror errs while a commit waits for a slow disk, and the power goes when the flush after is answered (F1)",
        script: flush_meets_a_slow_commit,
    },
    Scenario {
        name: "few-do-not-go-on-alone",
        story: "three of four disks are lost at once: the fourth promises nothing alone, whoever starts next (C2)",
        script: few_do_not_go_on_alone,
    },
    Scenario {
        name: "maps-change-while-a-disk-joins",
        story: "maps change between their copy to a disk and the commit that makes it a member, and soon it is alone (M1)",
        script: maps_change_while_a_disk_joins,
    },
    Scenario {
        name: "configuration-is-torn-twice",
        story: "the configuration is torn on one disk, and the next one too in the start after that: it starts alone (C1)",
        script: configuration_is_torn_twice,
    },
    Scenario {
        name: "unflushed-when-bits-are-swept",
        story: "no host flushes, bits are swept, and a mirror loses what it was not made to keep: nothing differs unmarked (M2)",
        script: unflushed_when_bits_are_swept,
    },
    Scenario {
        name: "bits-are-gone-before-a-crash",
        story: "a pair is equal, no host flushed, and one side loses what it was not made to keep: no bit left means equal (B2)",
        script: bits_are_gone_before_a_crash,
    },
    Scenario {
        name: "spare-loses-what-is-below-the-cursor",
        story: "a spare that is copied to without a shield loses in a crash what hosts wrote below the cursor: it is copied again (M4)",
        script: spare_loses_what_is_below_the_cursor,
    },
];
