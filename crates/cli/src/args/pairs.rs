//! `pair`, as typed.

use clap::Subcommand;

use crate::size::parse_rate;

/// `pair`.
#[derive(Debug, Subcommand)]
pub enum PairCommand {
    /// Let an empty volume of equal size, in another group, follow a volume; it is served no longer
    Create {
        /// The volume that hosts use, by name or number
        primary: String,
        /// The volume that follows it, by name or number
        secondary: String,
        /// Limit of the copying until both are equal, in MiB a second; 0 for none
        #[arg(long, value_parser = parse_rate, default_value = "0", value_name = "MIB_S")]
        rate: u64,
    },
    /// Stop copying; what differs from then on is noted
    Split {
        /// The volume that hosts use, by name or number
        primary: String,
    },
    /// Let a split pair follow again: what differs is copied
    Resync {
        /// The volume that hosts use, by name or number
        primary: String,
        /// Limit of the copying until both are equal, in MiB a second; 0 for none
        #[arg(long, value_parser = parse_rate, default_value = "0", value_name = "MIB_S")]
        rate: u64,
    },
    /// Let the bits of the bitmap stand still: what differs is noted, nothing is copied
    Hold {
        /// The volume that hosts use, by name or number
        primary: String,
    },
    /// End a hold
    Release {
        /// The volume that hosts use, by name or number
        primary: String,
    },
    /// Take a pair apart; the second volume is served again, with what was copied so far
    Delete {
        /// The volume that hosts use, by name or number
        primary: String,
    },
    /// List pairs
    List,
}
