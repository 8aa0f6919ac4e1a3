//! `health` and `policy`: what the array thinks of its disks, and what it does about it.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Result;
use forestall_engine::health::{ErrorClass, LOWER_MARK, Mode, Policy, percent, threshold_words};
use forestall_engine::{DiskNumber, HealthReport};
use forestall_server::api::types::{Done, NameDisk, SetPolicy, SetThreshold};

use super::Session;
use crate::args::{HealthCommand, PolicyCommand, Switch};
use crate::render::tables;

pub fn health(session: &Session, command: HealthCommand) -> Result<ExitCode> {
    let client = session.client()?;
    match command {
        HealthCommand::Show => {
            let report: HealthReport = client.get("/v1/health")?;
            session.print(&report, || {
                let table = tables::drawn(&report.disks, io::stdout().is_terminal());
                format!("{}\n{table}", policy_words(&report.policy))
            })
        }
        HealthCommand::Set { class, threshold } => {
            let class = ErrorClass::from(class);
            let done: Done = client.post("/v1/health/set", &SetThreshold { class, threshold })?;
            session.print(&done, || threshold_words(threshold, class))
        }
        HealthCommand::Clear { disk } => {
            let done: Done =
                client.post("/v1/health/clear", &NameDisk { disk: DiskNumber(disk) })?;
            session.print(&done, || format!("the errors of disk {disk} are forgotten"))
        }
    }
}

pub fn policy(session: &Session, command: PolicyCommand) -> Result<ExitCode> {
    let client = session.client()?;
    match command {
        PolicyCommand::Set { mode } => {
            let mode = Mode::from(mode);
            let body = SetPolicy { mode: Some(mode), shelter: None };
            let done: Done = client.post("/v1/policy/set", &body)?;
            session.print(&done, || mode_words(mode).to_owned())
        }
        PolicyCommand::Shelter { switch } => {
            let shelter = switch == Switch::On;
            let body = SetPolicy { mode: None, shelter: Some(shelter) };
            let done: Done = client.post("/v1/policy/set", &body)?;
            session.print(&done, || format!("shelter {}", shelter_words(shelter)))
        }
        PolicyCommand::Show => {
            let report: HealthReport = client.get("/v1/health")?;
            session.print(&report.policy, || policy_words(&report.policy))
        }
    }
}

fn shelter_words(shelter: bool) -> &'static str {
    match shelter {
        true => "on: a group with an ailing disk is shielded also while there is no spare",
        false => "off: without a spare a group is not shielded",
    }
}

fn mode_words(mode: Mode) -> &'static str {
    match mode {
        Mode::Auto => "auto: an ailing disk is copied to a spare by itself",
        Mode::Advise => "advise: of an ailing disk you are told, nothing is done by itself",
    }
}

fn policy_words(policy: &Policy) -> String {
    let thresholds: Vec<String> = ErrorClass::ALL
        .into_iter()
        .map(|class| format!("{class} {}", policy.thresholds[class as usize]))
        .collect();
    format!(
        "policy      {}\nshelter     {}\nat once     {}\nthresholds  {}\nleak        {} % of a full bucket a day; watched from {} %\n",
        mode_words(policy.mode),
        shelter_words(policy.shelter),
        crate::size::counted(policy.at_once.into(), "disk"),
        thresholds.join(", "),
        policy.leak_percent,
        percent(LOWER_MARK)
    )
}
