//! The table of a measurement, for people.
//!
//! Owns the columns alone. Times are virtual; a line of its own says how the host fared while updates went home.

use std::fmt;

use super::load::{Figures, Load};
use super::{Measured, State};
use crate::mechanics::DiskModel;

/// All cases of one model.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Table {
    /// What the disks are made of.
    pub model: DiskModel,
    /// The cases in order.
    pub rows: Vec<Measured>,
}

impl Measured {
    /// What each disk was asked, and what the array told of.
    #[must_use]
    pub fn details(&self) -> String {
        let requests = self.figures.requests;
        let mut text =
            format!("{} {}, {}: {requests} requests", self.setting.level, self.load, self.state);
        for (name, a) in &self.disks {
            let (reads, writes) = (a.data_reads + a.other_reads, a.data_writes + a.other_writes);
            let kib = (a.data_bytes + a.other_bytes) / 1024;
            let flushes = a.flushes;
            text += &format!(
                "\n  {name}: {reads} reads, {writes} writes, {flushes} flushes, {kib} KiB"
            );
        }
        for event in &self.told {
            text += &format!("\n  {event}");
        }
        text
    }
}

/// Seconds; what was left before its end took longer.
fn seconds(ns: u64, ended: bool) -> String {
    format!("{}{:.2}", if ended { "" } else { ">" }, ns as f64 / 1e9)
}

/// One line: the host's figures and how long the copy or the write-back took.
fn line(
    f: &mut fmt::Formatter<'_>,
    row: &Measured,
    state: &str,
    figures: &Figures,
    took: Option<String>,
) -> fmt::Result {
    let (rate, mean, p99) = if row.load == Load::Idle {
        (String::new(), String::new(), String::new())
    } else {
        let millis = |ns: u64| format!("{:.2}", ns as f64 / 1e6);
        let rate = if row.load.is_sequential() {
            let mib = figures.bytes as f64 / f64::from(1 << 20);
            format!("{:.0} MiB/s", mib * 1e9 / figures.span_ns.max(1) as f64)
        } else {
            format!("{:.0} /s", figures.requests_per_sec())
        };
        (rate, millis(figures.mean_ns), millis(figures.p99_ns))
    };
    let group = format!("{} of {}", row.setting.level, row.setting.members);
    let took = took.unwrap_or_default();
    let (load, rest) = (row.load, format!("{rate:>11} {mean:>8} {p99:>8} {took:>8}"));
    writeln!(f, "{group:<11} {load:<20} {state:<15} {rest}")
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "disks: {}; times are virtual", self.model.name)?;
        let heads = format!("{:>11} {:>8} {:>8} {:>8}", "rate", "mean ms", "p99 ms", "took s");
        writeln!(f, "{:<11} {:<20} {:<15} {heads}", "group", "host", "state")?;
        for row in &self.rows {
            let copied = row.ended || row.home.is_some();
            let copy = row.copy_ns.map(|ns| seconds(ns, copied));
            line(f, row, &row.state.to_string(), &row.figures, copy)?;
            if let (State::Shielded, Some((figures, took_ns))) = (row.state, &row.home) {
                line(f, row, "  going home", figures, Some(seconds(*took_ns, row.ended)))?;
            }
        }
        Ok(())
    }
}
