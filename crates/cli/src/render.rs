//! How reports look on a terminal.
//!
//! Owns colours and aligned columns; [`status`] is the one-screen page, [`tables`] are the listings and the tables of the drawings. Pure functions from
//! reports to text, so that tests can read them; colours only on a terminal and never under `NO_COLOR`.

pub mod pairs;
pub mod status;
pub mod tables;

use std::fmt;
use std::io::IsTerminal;

use forestall_engine::{Health, Severity};

/// Whether text may be coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paint {
    /// No escape codes.
    Plain,
    /// ANSI colours.
    Colour,
}

impl Paint {
    /// What fits standard output.
    #[must_use]
    pub fn for_stdout() -> Self {
        Self::choose(std::io::stdout().is_terminal())
    }

    fn choose(terminal: bool) -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        if terminal && !forbidden && !dumb { Self::Colour } else { Self::Plain }
    }

    fn with(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colour => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    /// Headings.
    #[must_use]
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What may be passed over.
    #[must_use]
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// Text in the colour of a health: green, yellow, red.
    #[must_use]
    pub fn health(self, health: Health, text: &str) -> String {
        let code = match health {
            Health::Healthy => "32",
            Health::Degraded => "33;1",
            Health::Failed => "31;1",
        };
        self.with(code, text)
    }

    /// Text in the colour of a severity.
    #[must_use]
    pub fn severity(self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Info => text.to_owned(),
            Severity::Warning => self.with("33", text),
            Severity::Critical => self.with("31;1", text),
        }
    }
}

/// The word for a health.
#[must_use]
pub fn health_word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Failed => "failed",
    }
}

/// Rows of text in columns that line up. Colours are put on after the width is known.
#[derive(Debug, Default)]
pub struct Columns {
    rows: Vec<Row>,
    indent: usize,
}

#[derive(Debug)]
struct Row {
    cells: Vec<String>,
    /// Escape codes before and after the row; empty for none.
    colour: Option<&'static str>,
}

impl Columns {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let cells = headings.iter().map(|h| (*h).to_owned()).collect();
        Self { rows: vec![Row { cells, colour: None }], indent: 0 }
    }

    /// The same, moved to the right.
    #[must_use]
    pub fn indented(mut self, by: usize) -> Self {
        self.indent = by;
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(Row { cells, colour: None });
    }

    /// Adds a row in the colour of `health`; healthy rows stay plain.
    pub fn row_of(&mut self, health: Health, paint: Paint, cells: Vec<String>) {
        let colour = match (paint, health) {
            (Paint::Plain, _) | (_, Health::Healthy) => None,
            (Paint::Colour, Health::Degraded) => Some("\x1b[33m"),
            (Paint::Colour, Health::Failed) => Some("\x1b[31m"),
        };
        self.rows.push(Row { cells, colour });
    }
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.rows.iter().map(|r| r.cells.len()).max().unwrap_or(0);
        let width = |at: usize| {
            let cells = self.rows.iter().filter_map(|r| r.cells.get(at));
            cells.map(|c| c.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..count).map(width).collect();
        for row in &self.rows {
            let mut line = " ".repeat(self.indent);
            for (cell, width) in row.cells.iter().zip(&widths) {
                line += cell;
                line += &" ".repeat(width - cell.chars().count() + 2);
            }
            let line = line.trim_end();
            match row.colour {
                None => writeln!(f, "{line}")?,
                Some(code) => writeln!(f, "{code}{line}\x1b[0m")?,
            }
        }
        Ok(())
    }
}
