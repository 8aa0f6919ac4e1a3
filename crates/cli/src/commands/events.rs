//! `events`: the kept log, and new entries as they come.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use forestall_engine::Event;

use super::Session;
use crate::args::EventsArgs;
use crate::render::{Paint, tables};

pub fn events(session: &Session, args: &EventsArgs) -> Result<ExitCode> {
    let client = session.client()?;
    let paint = Paint::for_stdout();
    let found: Vec<Event> = client.get(&format!("/v1/events?after={}", args.after))?;
    if !args.follow {
        return session
            .print(&found, || found.iter().map(|e| tables::event(e, paint) + "\n").collect());
    }
    let mut after = args.after;
    let mut found = found;
    loop {
        let mut out = std::io::stdout().lock();
        for event in &found {
            after = event.sequence;
            if session.json {
                serde_json::to_writer(&mut out, event).map_err(std::io::Error::from)?;
                writeln!(out)?;
            } else {
                writeln!(out, "{}", tables::event(event, paint))?;
            }
        }
        out.flush()?;
        drop(out);
        found = client.get(&format!("/v1/events?after={after}&wait=1"))?;
    }
}
