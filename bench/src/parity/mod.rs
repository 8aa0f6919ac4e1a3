//! Kernels of `forestall-parity` against ISA-L and `rusty_erasure`, in one core.
//!
//! Owns the memory that is worked on and the order of a run: in every round each contender is measured once, one after the
//! other. Before anything is timed, all must give the same bytes. Figures are bytes of data, without parity.

mod isal;

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use forestall_engine::Buf;
use forestall_parity::{Implementation, implementations};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::stats::{median, median_ratio};
use crate::{Report, table};

/// `parity`.
#[derive(Args)]
pub struct Options {
    /// Seconds of each single measurement
    #[arg(long, default_value_t = 0.1)]
    pub seconds: f64,
    /// Measurements of each contender in each case; the median is reported
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// MiB of all columns in the cold cases; must be well above the last level cache
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    pub cold_mib: u64,
}

/// Who computes.
#[derive(Clone, Copy)]
enum Contender {
    Ours(Implementation),
    IsaL,
    RustyErasure,
}

/// What is computed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    Xor,
    Pq,
}

/// One line of the comparison.
struct Case {
    code: Code,
    /// Data columns.
    k: usize,
    /// Bytes of a column.
    column: usize,
    /// Stripes that are gone through in turn.
    stripes: usize,
    name: String,
}

/// Stripes of aligned columns: data, then parity.
struct Stripes {
    columns: Vec<Buf>,
    k: usize,
    m: usize,
}

/// One contender in one case: GB/s by round.
struct Line {
    contender: String,
    rates: Vec<f64>,
}

/// Runs the comparison.
///
/// # Errors
/// If two contenders differ in a byte.
pub fn run(options: &Options) -> Result<Report> {
    let mut contenders: Vec<Contender> = implementations().map(Contender::Ours).collect();
    // The best of ours leads; the scalar reference comes last of ours.
    contenders.reverse();
    let mut missing = Vec::new();
    if isal::LINKED {
        contenders.push(Contender::IsaL);
    } else {
        missing
            .push("ISA-L was not found at build time (Debian: libisal-dev): not compared".into());
    }
    contenders.push(Contender::RustyErasure);
    let mut rows = Vec::new();
    let mut cases = Vec::new();
    for case in all_cases(options) {
        eprintln!("{}", case.name);
        let lines = measure(options, &case, &contenders)?;
        for line in &lines {
            let ratio = median_ratio(&lines[0].rates, &line.rates);
            let rate = median(&line.rates);
            rows.push([
                format!("{}, {}", case.name, line.contender),
                format!("{rate:.1}"),
                format!("{ratio:.2}"),
            ]);
            cases.push(json!({
                "case": case.name, "contender": line.contender, "gb_per_second": line.rates,
                "median": rate, "ours_to_it": ratio,
            }));
        }
    }
    let text = table::render(["case", "GB/s", "our best / it"], &rows);
    let json = json!({ "bench": "parity", "cases": cases });
    Ok(Report { text, json, missing, right: true })
}

fn all_cases(options: &Options) -> Vec<Case> {
    let mut cases = Vec::new();
    for (code, k) in [(Code::Xor, 4), (Code::Pq, 4), (Code::Pq, 8)] {
        let m = code.parity();
        // A hot stripe fits the second level cache of any machine of the last years, and is not in the first one's.
        for (heat, column, room) in
            [("hot", 16 << 10, 0), ("cold", 64 << 10, (options.cold_mib as usize) << 20)]
        {
            let stripes = (room / ((k + m) * column)).max(1);
            cases.push(Case { code, k, column, stripes, name: format!("{k}+{m} {heat}") });
        }
    }
    cases
}

impl Code {
    fn parity(self) -> usize {
        match self {
            Self::Xor => 1,
            Self::Pq => 2,
        }
    }
}

impl Contender {
    fn name(self) -> String {
        match self {
            Self::Ours(implementation) => format!("forestall {}", implementation.name()),
            Self::IsaL => "ISA-L".into(),
            Self::RustyErasure => "rusty_erasure".into(),
        }
    }

    /// Makes the parity of one stripe; false if it refuses.
    fn make(self, data: &[&[u8]], parity: &mut [Buf]) -> bool {
        match parity {
            [p] => match self {
                Self::Ours(ours) => ours.xor_gen(data, p.bytes_mut()),
                Self::IsaL => return isal::xor_gen(data, p.bytes_mut()),
                Self::RustyErasure => {
                    return rusty_erasure::raid::xor_gen(data, p.bytes_mut()).is_ok();
                }
            },
            [p, q] => match self {
                Self::Ours(ours) => ours.pq_gen(data, p.bytes_mut(), q.bytes_mut()),
                Self::IsaL => return isal::pq_gen(data, p.bytes_mut(), q.bytes_mut()),
                Self::RustyErasure => {
                    let made = rusty_erasure::raid::pq_gen(data, p.bytes_mut(), q.bytes_mut());
                    return made.is_ok();
                }
            },
            _ => unreachable!("one or two parity columns"),
        }
        true
    }
}

impl Stripes {
    fn new(case: &Case) -> Self {
        let (k, m) = (case.k, case.code.parity());
        let mut state = 1u64;
        let column = |_| {
            let mut buf = Buf::zeroed(case.column);
            for word in buf.bytes_mut().chunks_mut(8) {
                // Knuth's MMIX generator.
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
            }
            buf
        };
        Self { columns: (0..case.stripes * (k + m)).map(column).collect(), k, m }
    }

    /// Makes the parity of stripe `number`, counted round and round.
    fn make(&mut self, number: usize, contender: Contender) -> bool {
        let width = self.k + self.m;
        let at = number % (self.columns.len() / width) * width;
        let (data, parity) = self.columns[at..at + width].split_at_mut(self.k);
        let mut slices: [&[u8]; 8] = [&[]; 8];
        data.iter().zip(&mut slices).for_each(|(column, slice)| *slice = column);
        contender.make(black_box(&slices[..self.k]), parity)
    }

    /// The parity of the first stripe.
    fn parity(&self) -> Vec<u8> {
        let parity = &self.columns[self.k..self.k + self.m];
        parity.iter().flat_map(|column| column.iter().copied()).collect()
    }
}

fn measure(options: &Options, case: &Case, contenders: &[Contender]) -> Result<Vec<Line>> {
    let mut stripes = Stripes::new(case);
    let mut made = Vec::new();
    for contender in contenders {
        let name = contender.name();
        ensure!(stripes.make(0, *contender), "{name} refuses {}", case.name);
        made.push(stripes.parity());
        ensure!(made[0] == made[made.len() - 1], "{name} makes other parity in {}", case.name);
    }
    let mut lines: Vec<Line> = contenders
        .iter()
        .map(|contender| Line { contender: contender.name(), rates: Vec::new() })
        .collect();
    let time = Duration::from_secs_f64(options.seconds);
    for _ in 0..options.rounds {
        for (contender, line) in contenders.iter().zip(&mut lines) {
            line.rates.push(rate(&mut stripes, case, *contender, time));
        }
    }
    Ok(lines)
}

/// GB/s of data, by the processor time of this thread: what others do on the machine does not count as ours.
fn rate(stripes: &mut Stripes, case: &Case, contender: Contender, time: Duration) -> f64 {
    // The clock is looked at rarely: a hot stripe takes a microsecond.
    const AT_ONCE: usize = 16;
    // What is hot is so for everybody.
    stripes.make(0, contender);
    let start = thread_time();
    let mut number = 0;
    loop {
        for _ in 0..AT_ONCE {
            stripes.make(number, contender);
            number += 1;
        }
        let elapsed = thread_time() - start;
        if elapsed >= time {
            return (number * case.k * case.column) as f64 / elapsed.as_secs_f64() / 1e9;
        }
    }
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.try_into().expect("processor time is never negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_makes_the_same_parity_and_is_measured() {
        let report = run(&Options { seconds: 0.001, rounds: 1, cold_mib: 4 }).unwrap();
        for missing in &report.missing {
            println!("NOT TESTED: bench parity: {missing}");
        }
        let lines = report.json["cases"].as_array().unwrap();
        assert_eq!(lines.len(), 6 * (implementations().count() + 1 + usize::from(isal::LINKED)));
        assert!(lines.iter().all(|line| line["median"].as_f64().unwrap() > 0.0));
    }
}
