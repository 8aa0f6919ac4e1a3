//! The alert hook: runs the operator's command for events that matter.
//!
//! Owns the order and the bounds: events in sequence, at most [`HOOKS_MAX`] commands at once, each killed after
//! [`HOOK_TIME_MAX`]. A hook that is slow delays only later hooks: events wait in the array's log, never on the data thread.
//! What an event means, and its severity, is the engine's matter.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use forestall_engine::{Event, Severity};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::api::control::Control;
use crate::serve::Log;

/// Most commands that run at the same time.
const HOOKS_MAX: usize = 4;

/// Longest that one command may run.
const HOOK_TIME_MAX: Duration = Duration::from_secs(60);

/// Longest that one look for events waits; it only bounds how long the end of the server goes unnoticed.
const LOOK: Duration = Duration::from_secs(3600);

/// What to run, and for which events.
#[derive(Clone, Debug)]
pub struct Hook {
    /// A command line for `sh -c`.
    pub command: String,
    /// The least severity that runs it.
    pub least: Severity,
}

/// Runs `hook` for each new event until the server ends, then waits for the commands under way. Events from before
/// `since_ms` (milliseconds since 1970) belong to earlier runs of the server and are passed over.
pub async fn run(hook: Hook, control: Arc<Control>, since_ms: u64, log: Log) {
    let places = Arc::new(Semaphore::new(HOOKS_MAX));
    let mut seen = 0;
    loop {
        let fetched = control.run(move |context| async move {
            (context.array.report().name, context.array.events_after(seen))
        });
        let Ok((array, events)) = fetched.await else { break };
        for event in events {
            seen = event.sequence;
            if event.at_ms < since_ms || rank(event.severity) < rank(hook.least) {
                continue;
            }
            let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
            let (command, array, log) = (hook.command.clone(), array.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                if let Err(why) = run_one(&command, &array, &event).await {
                    log(&format!(
                        "--on-event for event {} ({}): {why}",
                        event.sequence, event.kind
                    ));
                }
                drop(place);
            });
        }
        tokio::select! {
            () = control.wait_event(seen, LOOK) => {}
            _ = control.wait_ended() => break,
        }
    }
    // All places free again: nothing runs any more.
    let _ = places.acquire_many(HOOKS_MAX as u32).await;
}

/// Severities in order.
fn rank(severity: Severity) -> u8 {
    match severity {
        Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Critical => 2,
    }
}

async fn run_one(command: &str, array: &str, event: &Event) -> Result<(), String> {
    let mut child = Command::new("sh")
        .arg("-c")
        .arg(command)
        .envs(variables(array, event))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| format!("cannot run sh: {e}"))?;
    let json = serde_json::to_vec(event).expect("events are serialisable");
    let mut stdin = child.stdin.take().expect("piped");
    let ended = tokio::time::timeout(HOOK_TIME_MAX, async {
        // A command that does not read its input is none the worse for it.
        let _ = stdin.write_all(&json).await;
        drop(stdin);
        child.wait().await
    });
    match ended.await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("ended with {status}")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("killed after {} s", HOOK_TIME_MAX.as_secs())),
    }
}

/// The variables that a hook finds in its environment; absent disk and group are empty.
fn variables(array: &str, event: &Event) -> [(&'static str, String); 8] {
    let severity = match event.severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    [
        ("FORESTALL_ARRAY", array.to_owned()),
        ("FORESTALL_EVENT_SEQUENCE", event.sequence.to_string()),
        ("FORESTALL_EVENT_KIND", event.kind.clone()),
        ("FORESTALL_EVENT_SEVERITY", severity.to_owned()),
        ("FORESTALL_EVENT_MESSAGE", event.message.clone()),
        ("FORESTALL_EVENT_TIME_MS", event.at_ms.to_string()),
        ("FORESTALL_EVENT_DISK", event.disk.map(|d| d.to_string()).unwrap_or_default()),
        ("FORESTALL_EVENT_GROUP", event.group.map(|g| g.to_string()).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use forestall_engine::DiskNumber;

    use super::*;

    fn event() -> Event {
        Event {
            sequence: 7,
            at_ms: 1000,
            severity: Severity::Warning,
            kind: "disk-failed".into(),
            disk: Some(DiskNumber(3)),
            group: None,
            message: "disk 3 \"$(reboot)\" failed".into(),
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
    }

    #[test]
    fn a_hook_sees_the_event_as_variables_and_as_json() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let out = folder.path().join("out");
        let names = "$FORESTALL_ARRAY|$FORESTALL_EVENT_KIND|$FORESTALL_EVENT_SEVERITY|$FORESTALL_EVENT_DISK|\
                     $FORESTALL_EVENT_GROUP|$FORESTALL_EVENT_SEQUENCE|$FORESTALL_EVENT_MESSAGE";
        let command = format!("{{ printf '%s\\n' \"{names}\"; cat; }} > '{}'", out.display());
        runtime().block_on(run_one(&command, "vault", &event())).expect("the command succeeds");
        let written = std::fs::read_to_string(out).expect("written");
        let (line, json) = written.split_once('\n').expect("two lines");
        assert_eq!(line, "vault|disk-failed|warning|3||7|disk 3 \"$(reboot)\" failed");
        assert_eq!(serde_json::from_str::<Event>(json).expect("JSON"), event());
    }

    #[test]
    fn a_hook_that_fails_is_an_error_to_log() {
        let failed = runtime().block_on(run_one("exit 3", "vault", &event()));
        assert_eq!(failed, Err("ended with exit status: 3".into()));
    }
}
