//! `create`, `serve` and `destroy`: the commands that open disks themselves.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use forestall_engine::{AssembleOptions, CreateGroup, CreateSpec, DiskNumber, JournalMode};
use forestall_server::{DataOptions, Hook, IoChoice, ServeOptions};
use serde::Serialize;

use super::Session;
use crate::args::{CreateArgs, LevelWord, ServeArgs};
use crate::say;
use crate::size::counted;

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
        journal: args.journal.into(),
        checksums: !args.no_checksums,
        spares: args.spares,
        volume: args.volume,
    });
    let name = args.name;
    let spec = CreateSpec { name: name.clone(), allow_injection: args.allow_injection, group };
    let notes = forestall_server::create(
        spec,
        &args.paths,
        args.size,
        IoChoice::default(),
        args.force,
        &log_line,
    )?;
    let created = Created { array: name, disks: args.paths.len(), notes };
    session.print(&created, || {
        let mut text = String::new();
        for note in &created.notes {
            text += &format!("{note}\n");
        }
        let disks = counted(created.disks as u64, "disk");
        text += &format!(
            "array {} made of {disks}; serve it with:\n  {}\n",
            created.array,
            serve_line(session.socket(), &args.paths)
        );
        text
    })
}

/// What to type next, as a shell takes it.
fn serve_line(socket: &Path, paths: &[String]) -> String {
    let mut words = vec!["forestall".to_owned(), "serve".into()];
    words.extend(paths.iter().map(|path| quoted(path)));
    if socket != forestall_server::default_socket() {
        words.extend(["--socket".into(), quoted(&socket.to_string_lossy())]);
    }
    words.join(" ")
}

/// A word for a shell: as it is where that is safe, else between quotes.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+=:,@%".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let dash = if word.starts_with('-') { "./" } else { "" };
    format!("'{}'", format!("{dash}{word}").replace('\'', "'\\''"))
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
            give_up_backups: args.give_up_backups,
            choose: args.choose.map(DiskNumber),
            disk_timeout_ms: args.disk_timeout,
            scrub_every_s: args.scrub_every.saturating_mul(3600),
        },
        wait_s: args.wait,
        memory: Some(CreateGroup {
            level: args.level.unwrap_or(LevelWord::Raid0).into(),
            chunk: args.chunk.unwrap_or(64 << 10),
            // Memory survives no crash and keeps what it was given.
            journal: JournalMode::Off,
            checksums: false,
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
    forestall_server::serve(options, |ready| {
        for address in &ready.nbd {
            log_line(&format!("serving NBD at {address}"));
        }
        log_line(&format!("management socket {}", ready.socket.display()));
        say::out("ready");
    })?;
    log_line("stopped: everything is on the disks");
    Ok(ExitCode::SUCCESS)
}

fn log_line(line: &str) {
    say::err(format_args!("forestall: {line}"));
}

/// Paths must stay what they are said to be, whatever folder a later command or an administrator is in.
fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path)?)
}

fn absolute_all(paths: &[String]) -> Result<Vec<String>> {
    paths.iter().map(|path| super::absolute_disk(path)).collect()
}

pub fn destroy(session: &Session, paths: &[String]) -> Result<ExitCode> {
    let wiped = forestall_server::destroy(paths, IoChoice::default(), &log_line)?;
    session.print(&wiped, || wiped.iter().map(|what| format!("wiped {what}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_to_type_next_is_whole_and_safe_in_a_shell() {
        let words = |paths: &[&str]| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            serve_line(Path::new("/run/a b.sock"), &paths)
        };
        let line = words(&["d1", "/dev/sd b", "it's", "-x", "$(reboot)"]);
        assert_eq!(
            line,
            r"forestall serve d1 '/dev/sd b' 'it'\''s' './-x' '$(reboot)' --socket '/run/a b.sock'"
        );
        let default = serve_line(&forestall_server::default_socket(), &["d1".into()]);
        assert_eq!(default, "forestall serve d1");
    }
}
