//! Lines for people, which nothing depends on.
//!
//! Owns what happens when nobody can read them: nothing. A log on a full disk or a pipe whose reader died ends no server; `println!` and
//! `eprintln!` would panic.

use std::fmt::Display;
use std::io::{self, Write};

/// A line on standard output.
pub fn out(line: impl Display) {
    let _unread = writeln!(io::stdout(), "{line}");
}

/// A line on standard error.
pub fn err(line: impl Display) {
    let _unread = writeln!(io::stderr(), "{line}");
}
