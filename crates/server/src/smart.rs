//! SMART: asking block devices whether they themselves expect to fail.
//!
//! Owns how `smartctl` is asked and what its answer means. Invariants: nothing here touches the data path; a disk that cannot be asked (a file,
//! no `smartctl`, no permission) is told nothing of; a disk that says it fails is told of once while it goes on saying so. What a verdict
//! costs is the engine's matter (table T3).

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use forestall_engine::{DiskNumber, DiskState};
use serde::Deserialize;
use tokio::process::Command;

use crate::api::control::Control;
use crate::serve::Log;

/// Time between two rounds.
const EVERY: Duration = Duration::from_secs(600);

/// Longest that one answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// What `smartctl --json -H` says, as far as it matters.
#[derive(Deserialize)]
struct Answer {
    smart_status: Option<Status>,
}

#[derive(Deserialize)]
struct Status {
    passed: bool,
}

/// Whether the disk says that it fails; `None` if it says nothing.
fn says_it_fails(json: &[u8]) -> Option<bool> {
    let answer: Answer = serde_json::from_slice(json).ok()?;
    answer.smart_status.map(|status| !status.passed)
}

/// Asks every disk in service that is a block device, now and then, until the server ends.
pub async fn watch(program: String, control: Arc<Control>, log: Log) {
    let mut failing: BTreeSet<DiskNumber> = BTreeSet::new();
    loop {
        let Ok(disks) = control.run(|context| async move { context.array.report().disks }).await
        else {
            return;
        };
        for disk in disks {
            let asked = !matches!(disk.state, DiskState::Failed | DiskState::Missing);
            if !asked || !is_block_device(&disk.identity.path) {
                continue;
            }
            match ask(&program, &disk.identity.path).await {
                Ok(Some(true)) if failing.insert(disk.number) => {
                    let number = disk.number;
                    let told = control
                        .run(move |context| async move { context.array.smart_failure(number) });
                    if told.await.is_err() {
                        return;
                    }
                }
                Ok(Some(false)) => drop(failing.remove(&disk.number)),
                Ok(_) => {}
                Err(why) => {
                    log(&format!("{program}: {why}: SMART of the disks is not looked at"));
                    return;
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            _ = control.wait_ended() => return,
        }
    }
}

fn is_block_device(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.file_type().is_block_device())
}

/// One disk's word. An error means that the program cannot be run at all.
async fn ask(program: &str, path: &str) -> Result<Option<bool>, std::io::Error> {
    let mut command = Command::new(program);
    command.args(["--json", "-H", "--", path]).kill_on_drop(true);
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let child = command.spawn()?;
    // Its exit status has a bit for each of many findings; the answer itself says what counts.
    match tokio::time::timeout(ANSWER_TIME_MAX, child.wait_with_output()).await {
        Ok(output) => Ok(says_it_fails(&output?.stdout)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_a_clear_word_counts() {
        assert_eq!(says_it_fails(br#"{"smart_status":{"passed":true}}"#), Some(false));
        let long =
            br#"{"json_format_version":[1,0],"smart_status":{"passed":false,"nvme":{"value":4}}}"#;
        assert_eq!(says_it_fails(long), Some(true));
        assert_eq!(says_it_fails(br#"{"smartctl":{"exit_status":2}}"#), None);
        assert_eq!(says_it_fails(b"smartctl: command line error"), None);
        assert_eq!(says_it_fails(b""), None);
    }

    #[tokio::test]
    async fn the_program_is_asked_about_the_path() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("smartctl");
        let script = "#!/bin/sh\n[ \"$1 $2 $3 $4\" = '--json -H -- /dev/sdx' ] || exit 1\n\
                      echo '{\"smart_status\":{\"passed\":false}}'\nexit 8\n";
        std::fs::write(&program, script).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("set");
        let program = program.to_str().expect("a plain path");
        assert_eq!(ask(program, "/dev/sdx").await.expect("it ran"), Some(true));
        assert_eq!(ask(program, "/dev/other").await.expect("it ran"), None);
        assert!(ask("/nowhere/smartctl", "/dev/sdx").await.is_err());
    }
}
