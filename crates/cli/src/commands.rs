//! What each command means: resolves what was typed, asks the server or works offline, prints.
//!
//! Owns the choice of socket and the two ways of printing, text and JSON. What a screen looks like is `render`'s matter,
//! what may be done the engine's.

mod array;
mod backups;
mod check;
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

use anyhow::{Result, bail};
use clap::CommandFactory;
use forestall_engine::{
    ArrayReport, Health, T1Row, T2Row, T3Row, T4Row, T5Row, T6Row, T7Row, TableRow,
};
use forestall_server::api::types::{Done, ServerInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;

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
        Command::Check(args) => check::check(&session, &args),
        Command::Repair(args) => check::repair(&session, &args),
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
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "forestall", &mut script);
            io::stdout().write_all(&script)?;
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
    if args.bits.is_some() && !matches!(args.table, TableWord::T2 | TableWord::T4) {
        bail!("only tables t2 and t4 have bits: leave out --bits");
    }
    let bits = args.bits.map_or_else(String::new, |bits| format!("?bits={bits}"));
    match args.table {
        TableWord::T1 => show_table::<T1Row>(session, "t1"),
        TableWord::T2 => show_table::<T2Row>(session, &format!("t2{bits}")),
        TableWord::T3 => show_table::<T3Row>(session, "t3"),
        TableWord::T4 => show_table::<T4Row>(session, &format!("t4{bits}")),
        TableWord::T5 => show_table::<T5Row>(session, "t5"),
        TableWord::T6 => show_table::<T6Row>(session, "t6"),
        TableWord::T7 => show_table::<T7Row>(session, "t7"),
    }
}

fn show_table<R: TableRow + DeserializeOwned>(session: &Session, table: &str) -> Result<ExitCode> {
    let rows: Vec<R> = session.client()?.get(&format!("/v1/show/{table}"))?;
    session.print(&rows, || render::tables::drawn(&rows, io::stdout().is_terminal()))
}

fn stop(session: &Session) -> Result<ExitCode> {
    let done: Done = session.client()?.post("/v1/stop", &Done {})?;
    session.print(&done, || "stopped: everything is on the disks".into())
}
