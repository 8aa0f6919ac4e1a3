//! `inject`: from typed words to one rule.

use std::process::ExitCode;

use anyhow::Result;
use forestall_disk::{ByteRange, InjectKind, InjectOp, InjectRule};
use forestall_engine::DiskNumber;
use forestall_server::api::types::{Done, Inject};

use super::Session;
use crate::args::{FaultWord, InjectArgs, OpWord};

pub fn inject(session: &Session, args: &InjectArgs) -> Result<ExitCode> {
    let body = Inject { disk: DiskNumber(args.disk), rule: rule(args) };
    let done: Done = session.client()?.post("/v1/inject", &body)?;
    session.print(&done, || match body.rule {
        Some(_) => {
            format!("disk {} misbehaves now; `--clear` takes the rules away again", args.disk)
        }
        None => format!("disk {} behaves again", args.disk),
    })
}

/// The rule that was typed; none to clear all.
fn rule(args: &InjectArgs) -> Option<InjectRule> {
    let kind = match args.kind? {
        FaultWord::Error => InjectKind::Error,
        FaultWord::Delay => InjectKind::Delay { ms: args.ms.unwrap_or_default() },
        FaultWord::Stall => InjectKind::Stall,
        FaultWord::Corrupt => InjectKind::Corrupt,
        FaultWord::Death => InjectKind::Death,
    };
    let op = match args.op {
        OpWord::Read => InjectOp::Read,
        OpWord::Write => InjectOp::Write,
        OpWord::Flush => InjectOp::Flush,
        OpWord::Any => InjectOp::Any,
    };
    let range = args.offset.zip(args.len).map(|(start, len)| ByteRange { start, len });
    Some(InjectRule { op, range, kind, count: args.count, percent: None, seed: 0 })
}
