//! `pair`: two volumes, one of which follows the other.

use std::process::ExitCode;

use anyhow::Result;
use forestall_engine::PairReport;
use forestall_server::api::types::{CreatePair, Done, NameVolume, ResyncPair};

use super::Session;
use crate::args::PairCommand;
use crate::render;

pub fn pair(session: &Session, command: PairCommand) -> Result<ExitCode> {
    let (word, primary, told) = match command {
        PairCommand::List => return list(session),
        PairCommand::Create { primary, secondary, rate } => {
            return create(session, CreatePair { primary, secondary, rate });
        }
        PairCommand::Resync { primary, rate } => {
            return resync(session, ResyncPair { volume: primary, rate });
        }
        PairCommand::Split { primary } => ("split", primary, "is split: nothing is copied"),
        PairCommand::Hold { primary } => ("hold", primary, "is held: its bits stand still"),
        PairCommand::Release { primary } => ("release", primary, "goes on"),
        PairCommand::Delete { primary } => {
            ("delete", primary, "is no more: both volumes are served")
        }
    };
    let body = NameVolume { volume: primary.clone() };
    let done: Done = session.client()?.post(&format!("/v1/pairs/{word}"), &body)?;
    session.print(&done, || format!("the pair of volume {primary} {told}"))
}

fn create(session: &Session, pair: CreatePair) -> Result<ExitCode> {
    let done: Done = session.client()?.post("/v1/pairs/create", &pair)?;
    session.print(&done, || {
        format!("volume {} follows volume {} now and is not served", pair.secondary, pair.primary)
    })
}

fn resync(session: &Session, pair: ResyncPair) -> Result<ExitCode> {
    let done: Done = session.client()?.post("/v1/pairs/resync", &pair)?;
    session.print(&done, || format!("the pair of volume {} is being made equal again", pair.volume))
}

fn list(session: &Session) -> Result<ExitCode> {
    let pairs: Vec<PairReport> = session.client()?.get("/v1/pairs")?;
    session.print(&pairs, || render::pairs::pairs(&pairs).to_string())
}
