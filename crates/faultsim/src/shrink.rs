//! Cutting a simulation that found something down to a small one that still does.
//!
//! Owns [`Caps`], what a simulation may be cut down to, and the search for the smallest. Invariant: a cut simulation draws the same chance
//! as the whole one and is replayed exactly by its seed and the arguments that [`Caps`] prints. What it finds may be something
//! else than what the whole one found: any failure will do.

use std::fmt;
use std::time::{Duration, Instant};

use crate::run::{Failure, Options, simulate};
use crate::trace::Lines;

/// Upper limits of a simulation; `None` leaves it as it was drawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caps {
    /// Runs of the machine; the last one ends with the audit.
    pub runs: Option<u64>,
    /// Groups.
    pub groups: Option<usize>,
    /// Operator's commands in each run.
    pub commands: Option<u64>,
    /// Faults in each run.
    pub faults: Option<u64>,
    /// Host requests in each run.
    pub requests: Option<u64>,
}

impl fmt::Display for Caps {
    /// As arguments of the command line, each after a space.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = self.groups.map(|g| g as u64);
        let caps = [
            ("runs", self.runs),
            ("groups", groups),
            ("commands", self.commands),
            ("faults", self.faults),
            ("requests", self.requests),
        ];
        for (name, cap) in caps.into_iter().filter_map(|(n, c)| Some((n, c?))) {
            write!(f, " --{name} {cap}")?;
        }
        Ok(())
    }
}

/// One thing that can be cut: the least and the most that a simulation draws of it, and how to cut it.
type Knob = (u64, u64, fn(&mut Caps, u64));

const KNOBS: [Knob; 5] = [
    (1, 6, |caps, to| caps.runs = Some(to)),
    (1, 3, |caps, to| caps.groups = Some(to as usize)),
    (0, 12, |caps, to| caps.commands = Some(to)),
    (0, 6, |caps, to| caps.faults = Some(to)),
    (0, 1500, |caps, to| caps.requests = Some(to)),
];

/// Looks for the smallest caps under which `seed` still finds something, for at most `time`. Answers the options to replay it with, and the failure;
/// `None` if the seed finds nothing.
#[must_use]
pub fn shrink(seed: u64, options: Options, time: Duration) -> Option<(Options, Failure)> {
    let start = Instant::now();
    let options = Options { lines: Lines::Keep, ..options };
    let mut best = (options, *simulate(seed, options).err()?);
    let caps = smallest(best.0.caps, |caps| {
        if start.elapsed() > time {
            return false;
        }
        let options = Options { caps, ..options };
        match simulate(seed, options) {
            Ok(_) => false,
            Err(failure) => {
                best = (options, *failure);
                true
            }
        }
    });
    debug_assert_eq!(best.0.caps, caps);
    Some(best)
}

/// Cuts one thing after another as far as `fails` says, by halves, until nothing can be cut further.
fn smallest(mut caps: Caps, mut fails: impl FnMut(Caps) -> bool) -> Caps {
    let mut most = KNOBS.map(|(_, most, _)| most);
    loop {
        let before = caps;
        for ((least, _, cut), most) in KNOBS.into_iter().zip(&mut most) {
            // Fails at `most`; below `least` nothing is known yet.
            let mut least = least;
            while least < *most {
                let middle = least + (*most - least) / 2;
                let mut tried = caps;
                cut(&mut tried, middle);
                if fails(tried) {
                    (caps, *most) = (tried, middle);
                } else {
                    least = middle + 1;
                }
            }
        }
        if caps == before {
            return caps;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_cut_as_far_as_it_still_fails() {
        let mut tries = 0;
        let caps = smallest(Caps::default(), |caps| {
            tries += 1;
            // It takes the second run, seven requests and one fault, but no command.
            caps.runs.is_none_or(|n| n >= 2)
                && caps.requests.is_none_or(|n| n >= 7)
                && caps.faults.is_none_or(|n| n >= 1)
        });
        assert_eq!(caps.to_string(), " --runs 2 --groups 1 --commands 0 --faults 1 --requests 7");
        assert!(tries < 60, "{tries}");
    }

    #[test]
    fn what_fails_only_whole_stays_whole() {
        assert_eq!(smallest(Caps::default(), |_| false), Caps::default());
        assert_eq!(Caps::default().to_string(), "");
    }

    #[test]
    fn a_capped_seed_replays_bit_for_bit() {
        let caps = Caps { runs: Some(2), requests: Some(40), groups: Some(1), ..Caps::default() };
        let options = Options { caps, ..Options::default() };
        let run = || simulate(5, options).map(|r| (r.hash, r.epochs)).map_err(|f| f.to_string());
        let (first, second) = (run(), run());
        assert_eq!(first, second);
        assert!(first.is_ok_and(|(_, runs)| runs <= 3), "one run makes the array");
    }
}
