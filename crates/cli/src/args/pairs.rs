//! `pair`, as typed.

use clap::Subcommand;

/// `pair`.
#[derive(Debug, Subcommand)]
pub enum PairCommand {
    /// Let an empty volume of equal size, in another group, follow a volume; it is served no longer
    Create {
        /// The volume that hosts use, by name or number
        primary: String,
        /// The volume that follows it, by name or number
        secondary: String,
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
