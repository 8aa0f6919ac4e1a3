//! What a figure cannot do without: when, where, and with what it was measured.

use std::fmt;
use std::fs::read_to_string;
use std::process::Command;

use serde_json::{Value, json};

/// The machine at this moment.
pub struct Machine {
    date: String,
    cpu: String,
    cores: usize,
    kernel: String,
    /// Load of the last minute before the end of the run: much above 1 there were others.
    load: String,
    command: String,
}

/// Asks the operating system.
pub fn describe() -> Machine {
    let cpus = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let first_word = |text: String| text.split_whitespace().next().unwrap_or("?").to_owned();
    let kernel = read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    Machine {
        date: jiff::Zoned::now().strftime("%Y-%m-%d %H:%M").to_string(),
        cpu: model.map_or("?", |(_, name)| name.trim()).to_owned(),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: first_word(kernel),
        load: first_word(read_to_string("/proc/loadavg").unwrap_or_default()),
        command: format!("forestall-bench {}", arguments.join(" ")),
    }
}

impl Machine {
    /// The same for programs.
    pub fn json(&self) -> Value {
        json!({
            "date": self.date, "cpu": self.cpu, "cores": self.cores, "kernel": self.kernel,
            "load": self.load, "command": self.command, "optimised": !cfg!(debug_assertions),
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, cpu, cores, kernel, load, command } = self;
        writeln!(f, "{date}, {cpu}, {cores} cores, Linux {kernel}, load {load}")?;
        writeln!(f, "{command}")?;
        if cfg!(debug_assertions) {
            writeln!(f, "NOT A RELEASE BUILD: these times mean nothing")?;
        }
        Ok(())
    }
}

/// First line that a program prints when asked for its version; `None` if it is not there.
pub fn version_of(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}
