//! The client's side of negotiation.
//!
//! Owns the order of the client's options: the best headers first, then the metadata context, then
//! `GO`. What the server does not have is done without, except for the export itself.

use super::transport::Transport;
use super::{ClientOptions, ConnectError, ListedExport, RemoteExport, Violation};
use crate::bytes::{Cursor, Put};
use crate::reply::ReplyMode;
use crate::wire;
use std::io::{Read, Write};

/// Longest option reply that is accepted, in bytes: two strings and some fields, with room to
/// spare.
const REPLY_MAX: u32 = 32 << 10;
/// Most bytes of replies to one option; ends a listing that never ends.
const REPLIES_TOTAL_MAX: u64 = 4 << 20;

/// What [`go`] agreed on.
type Agreed<S> = (Transport<S>, RemoteExport, ReplyMode, Option<u32>);

/// Lists the exports of a server, ends the session and drops the stream.
///
/// # Errors
/// [`ConnectError::Refused`] when the server does not list its exports.
pub fn list_exports<S: Read + Write>(stream: S) -> Result<Vec<ListedExport>, ConnectError> {
    let mut transport = greet(stream)?;
    let malformed = || Violation::BadOptionReply(wire::OPT_LIST);
    let mut exports = Vec::new();
    for (kind, data) in ask(&mut transport, wire::OPT_LIST, &[])? {
        if kind == wire::REP_SERVER {
            let mut data = Cursor(&data);
            let length = data.u32().ok_or_else(malformed)?;
            let name = usize::try_from(length).ok().and_then(|length| data.take(length));
            let name = text(name.ok_or_else(malformed)?);
            exports.push(ListedExport { name, description: text(data.0) });
        }
    }
    match ask(&mut transport, wire::OPT_ABORT, &[]) {
        // A server may hang up on ABORT without an answer; the list is whole either way.
        Ok(_) | Err(_) => Ok(exports),
    }
}

/// Negotiates up to transmission.
pub(super) fn go<S: Read + Write>(
    stream: S,
    options: &ClientOptions,
) -> Result<Agreed<S>, ConnectError> {
    let mut transport = greet(stream)?;
    let mode = if options.extended && accepted(&mut transport, wire::OPT_EXTENDED_HEADERS)? {
        ReplyMode::Extended
    } else if options.structured && accepted(&mut transport, wire::OPT_STRUCTURED_REPLY)? {
        ReplyMode::Structured
    } else {
        ReplyMode::Simple
    };
    let context = if options.allocation && mode != ReplyMode::Simple {
        select_allocation(&mut transport, &options.export)?
    } else {
        None
    };
    let mut data = counted(&options.export);
    data.put_u16(3);
    for info in [wire::INFO_NAME, wire::INFO_DESCRIPTION, wire::INFO_BLOCK_SIZE] {
        data.put_u16(info);
    }
    let mut export = None;
    let mut details = RemoteExport::default();
    for (kind, data) in ask(&mut transport, wire::OPT_GO, &data)? {
        if kind == wire::REP_INFO {
            let told = learn(&mut details, &data).ok_or(Violation::BadOptionReply(wire::OPT_GO))?;
            export = export.or(told);
        }
    }
    let (size, flags) = export.ok_or(Violation::BadOptionReply(wire::OPT_GO))?;
    Ok((transport, RemoteExport { size, flags, ..details }, mode, context))
}

/// Reads the greeting and sends the client's flags.
fn greet<S: Read + Write>(stream: S) -> Result<Transport<S>, ConnectError> {
    let mut transport = Transport::new(stream);
    if u64::from_be_bytes(transport.take()?) != wire::INIT_MAGIC
        || u64::from_be_bytes(transport.take()?) != wire::OPTION_MAGIC
    {
        return Err(ConnectError::NotNbd);
    }
    let offered = u16::from_be_bytes(transport.take()?);
    if offered & wire::FLAG_FIXED_NEWSTYLE == 0 {
        return Err(ConnectError::NotNbd);
    }
    let zeroes = if offered & wire::FLAG_NO_ZEROES != 0 { wire::FLAG_C_NO_ZEROES } else { 0 };
    transport.out.put_u32(wire::FLAG_C_FIXED_NEWSTYLE | zeroes);
    Ok(transport)
}

/// Sends an option and collects its replies up to the final acknowledgement, which is left out.
fn ask<S: Read + Write>(
    transport: &mut Transport<S>,
    option: u32,
    data: &[u8],
) -> Result<Vec<(u32, Vec<u8>)>, ConnectError> {
    transport.out.put_u64(wire::OPTION_MAGIC);
    transport.out.put_u32(option);
    transport.out.put_u32(u32::try_from(data.len()).expect("options are short"));
    transport.out.put(data);
    transport.send()?;
    let mut replies = Vec::new();
    let mut total = 0;
    loop {
        let magic = u64::from_be_bytes(transport.take()?);
        let answered = u32::from_be_bytes(transport.take()?);
        let kind = u32::from_be_bytes(transport.take()?);
        let length = u32::from_be_bytes(transport.take()?);
        let sane = magic == wire::OPTION_REPLY_MAGIC && answered == option && length <= REPLY_MAX;
        total += 20 + u64::from(length);
        if !sane || total > REPLIES_TOTAL_MAX {
            return Err(Violation::BadOptionReply(option).into());
        }
        let data = transport.take_vec(length as usize)?;
        if kind & wire::REP_ERR_BIT != 0 {
            return Err(ConnectError::Refused { option, code: kind, message: text(&data) });
        }
        if kind == wire::REP_ACK {
            return Ok(replies);
        }
        replies.push((kind, data));
    }
}

/// Asks for a feature without data; a refusal is an answer, too.
fn accepted<S: Read + Write>(
    transport: &mut Transport<S>,
    option: u32,
) -> Result<bool, ConnectError> {
    match ask(transport, option, &[]) {
        Ok(_) => Ok(true),
        Err(ConnectError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Selects `base:allocation`; `None` when the server does not have it.
fn select_allocation<S: Read + Write>(
    transport: &mut Transport<S>,
    export: &str,
) -> Result<Option<u32>, ConnectError> {
    let mut data = counted(export);
    data.put_u32(1);
    data.put(&counted(wire::BASE_ALLOCATION));
    let replies = match ask(transport, wire::OPT_SET_META_CONTEXT, &data) {
        Ok(replies) => replies,
        Err(ConnectError::Refused { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(replies.iter().filter(|(kind, _)| *kind == wire::REP_META_CONTEXT).find_map(|(_, data)| {
        let mut data = Cursor(data);
        let context = data.u32()?;
        (data.0 == wire::BASE_ALLOCATION.as_bytes()).then_some(context)
    }))
}

/// Takes one piece of information: size and flags are returned, details are filled in. `None` if it
/// is malformed.
fn learn(details: &mut RemoteExport, data: &[u8]) -> Option<Option<(u64, u16)>> {
    let mut data = Cursor(data);
    match data.u16()? {
        wire::INFO_EXPORT => {
            let told = (data.u64()?, data.u16()?);
            return data.is_empty().then_some(Some(told));
        }
        wire::INFO_NAME => details.name = text(data.0),
        wire::INFO_DESCRIPTION => details.description = text(data.0),
        wire::INFO_BLOCK_SIZE => {
            details.block_sizes = Some([data.u32()?, data.u32()?, data.u32()?]);
        }
        // Information of other kinds is to be ignored.
        _ => {}
    }
    Some(None)
}

fn counted(text: &str) -> Vec<u8> {
    let mut data = Vec::with_capacity(4 + text.len());
    data.put_u32(u32::try_from(text.len()).expect("names are short"));
    data.put(text.as_bytes());
    data
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
