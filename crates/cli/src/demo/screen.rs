//! The demo on the terminal: lines of the story, and one bar that comes and goes.
//!
//! On a terminal the bar is alive; elsewhere only the lines are printed. With `--json` the story goes to stderr.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::say;

/// Where the story is told.
pub struct Screen {
    json: bool,
    live: bool,
    bar: RefCell<Option<(String, ProgressBar)>>,
}

impl Screen {
    /// A screen; with `json` standard output is left to the summary.
    pub fn new(json: bool) -> Self {
        let live = std::io::stderr().is_terminal() && (json || std::io::stdout().is_terminal());
        Self { json, live, bar: RefCell::new(None) }
    }

    /// One line of the story.
    pub fn say(&self, line: &str) {
        self.clear();
        if self.json {
            say::err(line);
        } else {
            say::out(line);
        }
    }

    /// How far something is.
    pub fn progress(&self, what: &str, done: u64, total: u64) {
        if !self.live {
            return;
        }
        let mut shown = self.bar.borrow_mut();
        if shown.as_ref().is_none_or(|(name, _)| name != what) {
            if let Some((_, old)) = shown.take() {
                old.finish_and_clear();
            }
            let style = ProgressStyle::with_template("  {spinner} {msg} {bar:40} {percent:>3} %");
            let bar =
                ProgressBar::new(total).with_style(style.expect("the template is well formed"));
            bar.set_message(what.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            *shown = Some((what.to_owned(), bar));
        }
        if let Some((_, bar)) = shown.as_ref() {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some((_, bar)) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}
