//! Every story of a pair that takes its primary's place, under a few seeds each.

mod stories;

use forestall_faultsim::EXISTING_PAIR_SCENARIOS;
use stories::stories;

stories! {
    EXISTING_PAIR_SCENARIOS;
    b2_silent_group = "b2-existing-pair-silent-group" x 4,
    b2_bit_first = "b2-existing-pair-bit-first" x 2,
    b2_crash_anywhere = "b2-existing-pair-crash-anywhere" x 2,
    b7_less_safe = "b7-existing-pair-less-safe" x 4,
    b7_lost = "b7-existing-pair-lost" x 2,
    home_loses_a_member = "existing-pair-home-loses-a-member" x 1,
    lost_at_home = "existing-pair-lost-at-home" x 2,
    m2_stopped_as_it_reverses = "m2-existing-pair-stopped-as-it-reverses" x 2,
    stop_and_cancel = "existing-pair-stop-and-cancel" x 2,
    refusals = "existing-pair-refusals" x 1,
    b8_secondary_ails = "b8-existing-pair-secondary-ails" x 2,
    b5_overwritten = "b5-existing-pair-overwritten" x 3,
}
