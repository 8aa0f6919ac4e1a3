//! `inject` as typed.

use clap::{Args, ValueEnum};

use super::numbers::parse_whole;
use crate::size::parse_size;

/// `inject disk N ...`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    forestall inject disk 2 --op read --kind error --offset 8MiB --len 1MiB\n  \
    forestall inject disk 3 --kind delay --ms 200\n  \
    forestall inject disk 4 --kind death\n  \
    forestall inject disk 3 --clear\n\n\
    Offsets count from the start of the disk. Rules add up; the first that fits a request applies.")]
pub struct InjectArgs {
    /// The word `disk`
    #[arg(value_parser = ["disk"])]
    pub what: String,
    /// Its number
    #[arg(value_name = "N")]
    pub disk: u32,
    /// Which requests
    #[arg(long, default_value = "any")]
    pub op: OpWord,
    /// What happens to them
    #[arg(long, required_unless_present = "clear")]
    pub kind: Option<FaultWord>,
    /// Milliseconds of a delay
    #[arg(long, required_if_eq("kind", "delay"), value_parser = parse_whole::<u64>)]
    pub ms: Option<u64>,
    /// Only requests that touch the range from here ...
    #[arg(long, value_parser = parse_size, requires = "len", value_name = "SIZE")]
    pub offset: Option<u64>,
    /// ... with this length
    #[arg(long, value_parser = parse_size, value_name = "SIZE", requires = "offset")]
    pub len: Option<u64>,
    /// Only this many times
    #[arg(long, value_name = "N", value_parser = parse_whole::<u64>)]
    pub count: Option<u64>,
    /// Take all rules away again; what already failed stays failed
    #[arg(long, conflicts_with_all = ["kind", "op", "ms", "offset", "len", "count"])]
    pub clear: bool,
}

/// Which requests misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OpWord {
    /// Reads
    Read,
    /// Writes
    Write,
    /// Flushes
    Flush,
    /// All of them
    Any,
}

/// How they misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FaultWord {
    /// Fail with a medium error
    Error,
    /// Take --ms longer
    Delay,
    /// Never answer until cleared
    Stall,
    /// Succeed with wrong bytes
    Corrupt,
    /// The disk answers nothing any more
    Death,
}
