//! Lists of stories, each with a test of its own.
//!
//! Owns the macro that makes the tests. Invariant: a story of the list that no test names is an error.

use forestall_faultsim::{Lines, play};

/// Plays a story under seeds 1 to `seeds`.
pub fn play_all(name: &str, seeds: u64) {
    for seed in 1..=seeds {
        if let Err(failure) = play(name, seed, Lines::Keep).expect("a scenario of that name") {
            panic!("{failure}");
        }
    }
}

/// One test for each story of a list, under so many seeds, and one that none is left out.
macro_rules! stories {
    ($list:expr; $($test:ident = $name:literal x $seeds:literal),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                stories::play_all($name, $seeds);
            }
        )*

        #[test]
        fn each_story_is_tested() {
            let tested = [$($name),*];
            let untested: Vec<_> =
                $list.iter().map(|s| s.name).filter(|n| !tested.contains(n)).collect();
            assert!(untested.is_empty(), "without a test: {untested:?}");
        }
    };
}

pub(crate) use stories;
