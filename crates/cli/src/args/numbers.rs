//! Numbers as typed: what is none, or cannot be meant, is told in words that say what can.
//!
//! Owns the parsers of counts and thresholds, and that a number below zero is read as the value that it was meant for: the grammar would take it for an
//! unknown flag.

use std::any::TypeId;
use std::str::FromStr;

use clap::{Arg, Command};
use forestall_engine::health::THRESHOLD_MAX;

/// Numbers with units and lists of numbers: the grammar does not see that they are numbers.
const NOT_SEEN: [&str; 7] = ["size", "chunk", "rate", "offset", "len", "disks", "serves"];

/// The same command line, with numbers below zero as values: their parsers refuse them.
pub fn with_negative_values(command: Command) -> Command {
    command.mut_subcommands(with_negative_values).mut_args(negative_values)
}

fn negative_values(arg: Arg) -> Arg {
    let numbers = [TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<usize>()];
    let parsed = arg.get_value_parser().type_id();
    if !arg.get_action().takes_values() || !numbers.iter().any(|number| parsed == *number) {
        return arg;
    }
    let not_seen = NOT_SEEN.contains(&arg.get_id().as_str());
    arg.allow_negative_numbers(true).allow_hyphen_values(not_seen)
}

/// A whole number from 0 on.
pub fn parse_whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is not a whole number from 0 on"))
}

/// Bits of a bitmap.
pub fn parse_bits(text: &str) -> Result<u64, String> {
    const MAX: u64 = 1 << 20;
    let bits = text.parse().ok().filter(|bits| (1..=MAX).contains(bits));
    bits.ok_or_else(|| format!("`{text}`: 1 to {MAX} bits can be shown"))
}

/// Errors at once; those that are numbers and cannot be meant are the server's to refuse.
pub fn parse_threshold(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("`{text}`: a threshold is 1 to {THRESHOLD_MAX} errors"))
}
