//! What each command means: resolves what was typed, asks the server or works offline, prints.
//!
//! Owns the choice of socket and the two ways of printing, text and JSON. What a screen looks like is `render`'s matter,
//! what may be done the engine's.

mod array;
mod backups;
mod events;
mod health;
mod inject;
mod inspect;
mod jobs;
mod manage;
mod pairs;
mod words;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;
use forestall_engine::{ArrayReport, Health, T1Row, T2Row, T3Row, T4Row, T5Row, T6Row, T7Row};
use forestall_server::api::types::{Done, ServerInfo};
use serde::Serialize;

use crate::args::{Cli, Command, ShowArgs, StatusArgs, TableWord};
use crate::client::Client;
use crate::demo;
use crate::render::{self, Paint};

/// What every command knows.
pub struct Session {
    socket: PathBuf,
    json: bool,
}

/// Runs the command.
pub fn run(cli: Cli) -> Result<ExitCode> {
    let socket = cli.socket.unwrap_or_else(forestall_server::default_socket);
    let session = Session { socket, json: cli.json };
    match cli.command {
        Command::Create(args) => array::create(&session, args),
        Command::Serve(args) => array::serve(&session, args),
        Command::Destroy(args) => array::destroy(&session, &args.paths),
        Command::Inspect(args) => inspect::inspect(&session, &args.path),
        Command::Disk(command) => manage::disk(&session, command),
        Command::Group(command) => manage::group(&session, command),
        Command::Volume(command) => manage::volume(&session, command),
        Command::Replace(args) => jobs::replace(&session, &args),
        Command::WorkVolume(command) => backups::work_volume(&session, command),
        Command::WorkDisk(command) => backups::work_disk(&session, command),
        Command::Pair(command) => pairs::pair(&session, command),
        Command::Scrub(args) => jobs::scrub(&session, &args),
        Command::Jobs(args) => jobs::jobs(&session, &args),
        Command::Status(args) => status(&session, &args),
        Command::Show(args) => show(&session, &args),
        Command::Health(command) => health::health(&session, command),
        Command::Policy(command) => health::policy(&session, command),
        Command::Events(args) => events::events(&session, &args),
        Command::Inject(args) => inject::inject(&session, &args),
        Command::Stop => stop(&session),
        Command::Demo(args) => demo::run(&args, session.json),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "forestall", &mut io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

impl Session {
    fn client(&self) -> Result<Client> {
        Client::new(&self.socket)
    }

    fn socket(&self) -> &Path {
        &self.socket
    }

    /// Prints `value` as JSON where that was asked for, else the text.
    fn print<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) -> Result<ExitCode> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            let text = text();
            let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
            write!(out, "{text}{end}")?;
        }
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// A disk's path as it is named to the server, which may run in another folder, and in `status`.
fn absolute_disk(path: &str) -> Result<String> {
    if path.starts_with("memory:") {
        return Ok(path.to_owned());
    }
    Ok(std::path::absolute(path)?.to_string_lossy().into_owned())
}

fn status(session: &Session, args: &StatusArgs) -> Result<ExitCode> {
    let client = session.client()?;
    let report: ArrayReport = client.get("/v1/status")?;
    let server: ServerInfo = client.get("/v1/server")?;
    session.print(&report, || {
        render::status::screen(
            &report,
            &server.nbd,
            &render::status::Look { paint: Paint::for_stdout(), all_disks: args.all },
        )
    })?;
    Ok(ExitCode::from(match report.health {
        Health::Healthy => 0,
        Health::Degraded => 3,
        Health::Failed => 4,
    }))
}

fn show(session: &Session, args: &ShowArgs) -> Result<ExitCode> {
    let (client, aligned) = (session.client()?, io::stdout().is_terminal());
    let bits = args.bits.map_or_else(String::new, |bits| format!("?bits={bits}"));
    match args.table {
        TableWord::T1 => {
            let rows: Vec<T1Row> = client.get("/v1/show/t1")?;
            session.print(&rows, || render::tables::t1(&rows, aligned))
        }
        TableWord::T2 => {
            let rows: Vec<T2Row> = client.get(&format!("/v1/show/t2{bits}"))?;
            session.print(&rows, || render::pairs::t2(&rows, aligned))
        }
        TableWord::T3 => {
            let rows: Vec<T3Row> = client.get("/v1/show/t3")?;
            session.print(&rows, || render::tables::t3(&rows, aligned))
        }
        TableWord::T4 => {
            let rows: Vec<T4Row> = client.get(&format!("/v1/show/t4{bits}"))?;
            session.print(&rows, || render::backups::t4(&rows, aligned))
        }
        TableWord::T5 => {
            let rows: Vec<T5Row> = client.get("/v1/show/t5")?;
            session.print(&rows, || render::backups::t5(&rows, aligned))
        }
        TableWord::T6 => {
            let rows: Vec<T6Row> = client.get("/v1/show/t6")?;
            session.print(&rows, || render::backups::t6(&rows, aligned))
        }
        TableWord::T7 => {
            let rows: Vec<T7Row> = client.get("/v1/show/t7")?;
            session.print(&rows, || render::backups::t7(&rows, aligned))
        }
    }
}

fn stop(session: &Session) -> Result<ExitCode> {
    let done: Done = session.client()?.post("/v1/stop", &Done {})?;
    session.print(&done, || "stopped: everything is on the disks".into())
}
