//! The same load by fio, a generator that nobody here wrote. It costs more than the own one, so differences shrink.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::cases::{Case, Direction, Order};
use super::load::Measured;

/// Runs `case` on the first `size` bytes of an export for `time`.
///
/// # Errors
/// If fio is missing, lacks its NBD engine, or fails.
pub fn run(
    socket: &Path,
    export: &str,
    case: &Case,
    size: u64,
    time: Duration,
) -> Result<Measured> {
    let rw = match (case.direction, case.order) {
        (Direction::Read, Order::Random) => "randread",
        (Direction::Write, Order::Random) => "randwrite",
        (Direction::Read, Order::Sequential) => "read",
        (Direction::Write, Order::Sequential) => "write",
    };
    let output = Command::new("fio")
        .args(["--name=bench", "--ioengine=nbd", "--time_based", "--output-format=json"])
        .args(["--norandommap", "--randrepeat=0"])
        .arg(format!("--uri=nbd+unix:///{export}?socket={}", socket.display()))
        .arg(format!("--rw={rw}"))
        .arg(format!("--bs={}", case.len))
        .arg(format!("--iodepth={}", case.depth))
        .arg(format!("--size={size}"))
        // fio takes whole seconds.
        .arg(format!("--runtime={}", time.as_secs_f64().ceil().max(1.0)))
        .output()
        .context("starting fio")?;
    if !output.status.success() {
        bail!("fio: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    // Warnings may come before the JSON.
    let text = String::from_utf8_lossy(&output.stdout);
    let json = text.find('{').map_or("", |at| &text[at..]);
    let json: Value = serde_json::from_str(json).context("fio's answer")?;
    let job = &json["jobs"][0];
    let side = &job[if case.direction == Direction::Read { "read" } else { "write" }];
    let number = |value: &Value| value.as_f64().context("fio's answer lacks a figure");
    let latency = &side["clat_ns"]["percentile"];
    Ok(Measured {
        requests: number(&side["total_ios"])?,
        rate: number(&side["iops"])?,
        p50_us: number(&latency["50.000000"])? / 1000.0,
        p99_us: number(&latency["99.000000"])? / 1000.0,
    })
}
