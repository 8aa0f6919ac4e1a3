//! The one binary. `main` parses, runs a command and sets the exit code: 0 done, 1 refused or failed, 2 usage; `status`
//! answers 3 for degraded and 4 for failed.

mod args;
mod client;
mod commands;
mod demo;
mod render;
mod say;
mod size;

use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    match commands::run(cli) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            say::err(format_args!("forestall: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// `forestall events | head` is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
