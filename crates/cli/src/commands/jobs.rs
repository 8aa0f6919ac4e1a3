//! `replace`, `scrub` and `jobs`: starting long work and watching it.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use forestall_engine::{DiskNumber, GroupNumber, GroupReport, JobReport, JobState, Strategy};
use forestall_server::api::types::{Done, JobStarted, LimitJob, NameDisk, ReplaceDisk, ScrubGroup};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Session;
use crate::args::{JobsArgs, ReplaceArgs, ReplaceCommand, ScrubArgs};
use crate::client::Client;
use crate::render::tables;

/// How often progress is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// How long work that is about to start is waited for. It starts within moments, or something keeps it from it that `status` tells.
const DUE_MAX: Duration = Duration::from_secs(10);

pub fn replace(session: &Session, args: &ReplaceArgs) -> Result<ExitCode> {
    let disk = match (args.command, args.disk) {
        (Some(command), _) => return replacing(session, command),
        (None, disk) => disk.expect("required without a subcommand"),
    };
    let body = ReplaceDisk {
        disk: DiskNumber(disk),
        with: args.with.map(DiskNumber),
        rate: args.rate,
        backup: args.backup.map(Strategy::from).unwrap_or_default(),
    };
    let started: JobStarted = session.client()?.post("/v1/replace", &body)?;
    session.print(&started, || match started.behind {
        None => format!(
            "job {}: disk {disk} is being copied; `forestall jobs --wait` shows progress",
            started.job
        ),
        Some(behind) => format!(
            "job {}: disk {disk} is copied once job {behind} of its group has ended; `forestall jobs --wait` shows progress",
            started.job
        ),
    })
}

/// A replacement under way.
fn replacing(session: &Session, command: ReplaceCommand) -> Result<ExitCode> {
    let (path, disk, words) = match command {
        ReplaceCommand::Pause { disk } => ("pause", disk, "stands still"),
        ReplaceCommand::Resume { disk } => ("resume", disk, "goes on"),
        ReplaceCommand::Cancel { disk } => ("cancel", disk, "was given up"),
    };
    let body = NameDisk { disk: DiskNumber(disk) };
    let done: Done = session.client()?.post(&format!("/v1/replace/{path}"), &body)?;
    session.print(&done, || format!("the replacement of disk {disk} {words}"))
}

pub fn scrub(session: &Session, args: &ScrubArgs) -> Result<ExitCode> {
    let body = ScrubGroup { group: GroupNumber(args.group), repair: args.repair, rate: args.rate };
    let started: JobStarted = session.client()?.post("/v1/scrub", &body)?;
    session.print(&started, || {
        format!(
            "job {}: group {} is being read; `forestall jobs --wait` shows progress",
            started.job, args.group
        )
    })
}

pub fn jobs(session: &Session, args: &JobsArgs) -> Result<ExitCode> {
    let client = session.client()?;
    if let (Some(job), Some(rate)) = (args.limit, args.rate) {
        let done: Done = client.post("/v1/jobs/limit", &LimitJob { job, rate })?;
        return session.print(&done, || match rate {
            0 => format!("job {job} has no limit"),
            _ => format!("job {job} is limited to {}", crate::size::rate(rate)),
        });
    }
    if !args.wait {
        let jobs: Vec<JobReport> = client.get("/v1/jobs")?;
        return session.print(&jobs, || match jobs.is_empty() {
            true => "no work since the server started".into(),
            false => tables::jobs(&jobs).to_string(),
        });
    }
    let ended = wait(&client, session.json)?;
    session.print(&ended, || match ended.is_empty() {
        true => "no work is under way".into(),
        false => tables::jobs(&ended).to_string(),
    })?;
    let failed = ended.iter().any(|job| job.state == JobState::Failed);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Waits until nothing runs, nor is about to (a spare takes a place by itself a moment after its disk was lost), and answers what had been
/// running at some time of the wait. A copy that is paused is answered too, and not waited for.
fn wait(client: &Client, quiet: bool) -> Result<Vec<JobReport>> {
    let mut screen = Screen::new(quiet);
    let mut seen: BTreeMap<u64, JobReport> = BTreeMap::new();
    let mut idle_since = Instant::now();
    loop {
        // Before the jobs: what was due then and runs by now is seen there.
        let groups: Vec<GroupReport> = client.get("/v1/groups")?;
        let due = groups.iter().any(|group| group.work_due);
        let jobs: Vec<JobReport> = client.get("/v1/jobs")?;
        // One that was given up before it began is listed no more.
        seen.retain(|id, job| job.state != JobState::Waiting || jobs.iter().any(|j| j.id == *id));
        for job in jobs {
            let goes_on =
                matches!(job.state, JobState::Running | JobState::Paused | JobState::Waiting);
            if goes_on || seen.contains_key(&job.id) {
                screen.show(&job)?;
                seen.insert(job.id, job);
            }
        }
        let none = |state| seen.values().all(|job| job.state != state);
        let (idle, due) = (none(JobState::Running), due || !none(JobState::Waiting));
        if !idle {
            idle_since = Instant::now();
        }
        if idle && (!due || idle_since.elapsed() > DUE_MAX) {
            screen.clear()?;
            return Ok(seen.into_values().collect());
        }
        std::thread::sleep(LOOK);
    }
}

/// Progress on stderr: bars on a terminal, else a line for every tenth of a job.
enum Screen {
    Quiet,
    Bars(MultiProgress, BTreeMap<u64, ProgressBar>),
    Lines(BTreeMap<u64, u64>),
}

impl Screen {
    fn new(quiet: bool) -> Self {
        if quiet {
            Self::Quiet
        } else if std::io::stderr().is_terminal() {
            Self::Bars(MultiProgress::new(), BTreeMap::new())
        } else {
            Self::Lines(BTreeMap::new())
        }
    }

    fn show(&mut self, job: &JobReport) -> std::io::Result<()> {
        match self {
            Self::Quiet => {}
            Self::Bars(all, bars) => {
                let bar = bars.entry(job.id).or_insert_with(|| {
                    let style =
                        ProgressStyle::with_template("{prefix:32} {bar:30} {percent:>3} %  {msg}");
                    let style = style.expect("the template is well formed");
                    all.add(ProgressBar::new(job.total_bytes).with_style(style))
                });
                bar.set_prefix(tables::job_title(job));
                bar.set_length(job.total_bytes);
                bar.set_position(job.done_bytes);
                bar.set_message(tables::job_pace(job));
            }
            Self::Lines(tenths) => {
                let tenth = tables::percent(job) / 10;
                if tenths.insert(job.id, tenth) != Some(tenth) {
                    let (title, pace) = (tables::job_title(job), tables::job_pace(job));
                    writeln!(std::io::stderr(), "{title}: {} %  {pace}", tables::percent(job))?;
                }
            }
        }
        Ok(())
    }

    fn clear(&mut self) -> std::io::Result<()> {
        match self {
            Self::Bars(all, _) => all.clear(),
            Self::Quiet | Self::Lines(_) => Ok(()),
        }
    }
}
