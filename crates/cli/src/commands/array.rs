//! `create`, `serve` and `destroy`: the commands that open disks themselves.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use forestall_engine::{AssembleOptions, CreateGroup, CreateSpec, DiskNumber};
use forestall_server::{DataOptions, Hook, IoChoice, ServeOptions};
use serde::Serialize;

use super::Session;
use crate::args::{CreateArgs, LevelWord, ServeArgs};

/// What `create --json` prints.
#[derive(Serialize)]
struct Created {
    array: String,
    disks: usize,
    notes: Vec<String>,
}

pub fn create(session: &Session, args: CreateArgs) -> Result<ExitCode> {
    let group = args.level.map(|level| CreateGroup {
        level: level.into(),
        chunk: args.chunk,
        spares: args.spares,
        volume: args.volume,
    });
    let name = args.name;
    let spec = CreateSpec { name: name.clone(), allow_injection: args.allow_injection, group };
    let notes =
        forestall_server::create(spec, &args.paths, args.size, IoChoice::default(), args.force)?;
    let created = Created { array: name, disks: args.paths.len(), notes };
    session.print(&created, || {
        let mut text = String::new();
        for note in &created.notes {
            text += &format!("{note}\n");
        }
        let plural = if created.disks == 1 { "disk" } else { "disks" };
        text += &format!(
            "array {} made of {} {plural}; serve it with `forestall serve`",
            created.array, created.disks
        );
        text
    })
}

pub fn serve(session: &Session, args: ServeArgs) -> Result<ExitCode> {
    let data = DataOptions {
        paths: absolute_all(&args.paths)?,
        scan: args.scan,
        nbd: args.nbd,
        io: args.io.into(),
        assemble: AssembleOptions {
            degraded: args.degraded,
            accept_write_hole: args.accept_write_hole,
            choose: args.choose.map(DiskNumber),
            disk_timeout_ms: args.disk_timeout,
            scrub_every_s: args.scrub_every.saturating_mul(3600),
        },
        wait_s: args.wait,
        memory: Some(CreateGroup {
            level: args.level.unwrap_or(LevelWord::Raid0).into(),
            chunk: args.chunk.unwrap_or(64 << 10),
            spares: 0,
            volume: Some(args.volume.unwrap_or_else(|| "memory".into())),
        }),
        log: Arc::new(log_line),
        abort: Arc::default(),
    };
    let options = ServeOptions {
        data,
        socket: absolute(session.socket())?,
        hook: args.on_event.map(|command| Hook { command, least: args.on_event_from.into() }),
        handle_signals: true,
    };
    let mut told = Ok(());
    forestall_server::serve(options, |ready| {
        for address in &ready.nbd {
            log_line(&format!("serving NBD at {address}"));
        }
        log_line(&format!("management socket {}", ready.socket.display()));
        told = tell_ready();
    })?;
    told?;
    log_line("stopped: everything is on the disks");
    Ok(ExitCode::SUCCESS)
}

fn tell_ready() -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "ready")?;
    out.flush()
}

fn log_line(line: &str) {
    eprintln!("forestall: {line}");
}

/// Paths must stay what they are said to be, whatever folder a later command or an administrator is in.
fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

fn absolute_all(paths: &[String]) -> Result<Vec<String>> {
    paths.iter().map(|path| super::absolute_disk(path)).collect()
}

pub fn destroy(session: &Session, paths: &[String]) -> Result<ExitCode> {
    let wiped = forestall_server::destroy(paths, IoChoice::default())?;
    session.print(&wiped, || wiped.iter().map(|what| format!("wiped {what}\n")).collect())
}
