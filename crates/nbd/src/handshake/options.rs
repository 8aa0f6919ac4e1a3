//! What each option is answered.
//!
//! Owns the contents of options and of their replies. Invariant: data is parsed to its very end
//! before anything is answered or remembered, so a malformed option gets one error reply and has no
//! effect (but for `SET_META_CONTEXT`, which by the specification always forgets the former
//! selection).

use super::{CloseReason, Outcome, ServerHandshake};
use crate::bytes::{Cursor, Put};
use crate::export::{ExportInfo, Exports};
use crate::reply::ReplyMode;
use crate::wire;

/// The number given to `base:allocation`. Not 0, so that a client which confuses it with the
/// reserved number of a listing is noticed.
pub(super) const ALLOCATION_CONTEXT: u32 = 1;

/// An error reply; the session goes on.
struct Refusal {
    code: u32,
    message: &'static str,
}

const fn refusal(code: u32, message: &'static str) -> Refusal {
    Refusal { code, message }
}

const UNKNOWN_EXPORT: Refusal = refusal(wire::REP_ERR_UNKNOWN, "no export of this name");
const MALFORMED: Refusal = refusal(wire::REP_ERR_INVALID, "option data is malformed");

impl ServerHandshake {
    pub(super) fn answer(
        &mut self,
        exports: &dyn Exports,
        option: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Outcome {
        let answered = match option {
            wire::OPT_EXPORT_NAME => return self.export_name(exports, data, out),
            wire::OPT_GO => match self.info(exports, option, data, out) {
                Ok(export) => {
                    reply(out, option, wire::REP_ACK, &[]);
                    return Outcome::Transmission(self.negotiated(export));
                }
                Err(refusal) => Err(refusal),
            },
            wire::OPT_INFO => self.info(exports, option, data, out).map(|_| ()),
            wire::OPT_LIST => no_data(data).map(|()| list(exports, out)),
            wire::OPT_STARTTLS => no_data(data)
                .and(Err(refusal(wire::REP_ERR_UNSUP, "TLS is not supported by this server"))),
            wire::OPT_STRUCTURED_REPLY => self.structured_reply(data),
            wire::OPT_EXTENDED_HEADERS => no_data(data).map(|()| self.extended = true),
            wire::OPT_LIST_META_CONTEXT => self.list_meta_context(exports, data, out),
            wire::OPT_SET_META_CONTEXT => self.set_meta_context(exports, data, out),
            _ => Err(refusal(wire::REP_ERR_UNSUP, "unknown option")),
        };
        match answered {
            Ok(()) => reply(out, option, wire::REP_ACK, &[]),
            Err(refusal) => reply(out, option, refusal.code, &[refusal.message.as_bytes()]),
        }
        Outcome::Continue
    }

    /// The one option that has no room for an error: what it cannot have closes the connection.
    fn export_name(&mut self, exports: &dyn Exports, data: &[u8], out: &mut Vec<u8>) -> Outcome {
        if self.extended {
            return Outcome::Closed(CloseReason::OptionNotAllowed(wire::OPT_EXPORT_NAME));
        }
        let Ok(name) = text(data) else { return Outcome::Closed(CloseReason::BadExportName) };
        let Some(export) = exports.find(name) else {
            return Outcome::Closed(CloseReason::UnknownExport(name.to_owned()));
        };
        out.put_u64(export.size);
        out.put_u16(export.transmission_flags(self.mode()));
        if !self.no_zeroes {
            out.put(&[0; wire::EXPORT_NAME_PADDING]);
        }
        Outcome::Transmission(self.negotiated(export))
    }

    /// `INFO` and `GO` up to their final reply.
    fn info(
        &self,
        exports: &dyn Exports,
        option: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<ExportInfo, Refusal> {
        let mut data = Cursor(data);
        let name = counted_text(&mut data)?;
        let count = data.u16().ok_or(MALFORMED)?;
        let (mut wants_name, mut wants_description, mut wants_sizes) = (false, false, false);
        for _ in 0..count {
            match data.u16().ok_or(MALFORMED)? {
                wire::INFO_NAME => wants_name = true,
                wire::INFO_DESCRIPTION => wants_description = true,
                wire::INFO_BLOCK_SIZE => wants_sizes = true,
                // INFO_EXPORT is always sent; what is unknown is ignored.
                _ => {}
            }
        }
        at_end(data)?;
        let export = exports.find(name).ok_or(UNKNOWN_EXPORT)?;
        let flags = export.transmission_flags(self.mode());
        let mut info = |kind: u16, parts: [&[u8]; 3]| {
            let [a, b, c] = parts;
            reply(out, option, wire::REP_INFO, &[&kind.to_be_bytes(), a, b, c]);
        };
        info(wire::INFO_EXPORT, [&export.size.to_be_bytes(), &flags.to_be_bytes(), &[]]);
        if wants_name {
            info(wire::INFO_NAME, [export.name.as_bytes(), &[], &[]]);
        }
        if wants_description && !export.description.is_empty() {
            info(wire::INFO_DESCRIPTION, [export.description.as_bytes(), &[], &[]]);
        }
        if wants_sizes {
            let sizes = &export.block_sizes;
            let fields = [sizes.minimum(), sizes.preferred(), sizes.payload_max()];
            let [minimum, preferred, payload_max] = fields.map(u32::to_be_bytes);
            info(wire::INFO_BLOCK_SIZE, [&minimum, &preferred, &payload_max]);
        }
        Ok(export)
    }

    fn structured_reply(&mut self, data: &[u8]) -> Result<(), Refusal> {
        no_data(data)?;
        if self.extended {
            return Err(refusal(
                wire::REP_ERR_EXT_HEADER_REQD,
                "extended headers are already in use",
            ));
        }
        self.structured = true;
        Ok(())
    }

    fn list_meta_context(
        &self,
        exports: &dyn Exports,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let queries = self.context_queries(exports, data)?;
        let asked = queries.none || queries.wildcard || queries.allocation;
        if asked && queries.export.block_status {
            // The number is reserved in a listing.
            context_reply(out, wire::OPT_LIST_META_CONTEXT, 0);
        }
        Ok(())
    }

    fn set_meta_context(
        &mut self,
        exports: &dyn Exports,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        self.allocation_for = None;
        let queries = self.context_queries(exports, data)?;
        if queries.allocation && queries.export.block_status {
            context_reply(out, wire::OPT_SET_META_CONTEXT, ALLOCATION_CONTEXT);
            self.allocation_for = Some(queries.export.name);
        }
        Ok(())
    }

    fn context_queries(&self, exports: &dyn Exports, data: &[u8]) -> Result<Queries, Refusal> {
        if self.mode() == ReplyMode::Simple {
            return Err(refusal(wire::REP_ERR_INVALID, "structured replies come first"));
        }
        let mut data = Cursor(data);
        let name = counted_text(&mut data)?;
        let count = data.u32().ok_or(MALFORMED)?;
        let (mut wildcard, mut allocation) = (false, false);
        // Ends with the data at the latest: each query takes up at least its length field.
        for _ in 0..count {
            match counted_text(&mut data)? {
                wire::BASE_WILDCARD => wildcard = true,
                wire::BASE_ALLOCATION => allocation = true,
                // Other names and namespaces are ignored, as the specification demands.
                _ => {}
            }
        }
        at_end(data)?;
        let export = exports.find(name).ok_or(UNKNOWN_EXPORT)?;
        Ok(Queries { export, none: count == 0, wildcard, allocation })
    }
}

/// What the queries of a metadata option ask for.
struct Queries {
    export: ExportInfo,
    none: bool,
    wildcard: bool,
    allocation: bool,
}

/// Appends one reply to an option, its data given in parts.
pub(super) fn reply(out: &mut Vec<u8>, option: u32, kind: u32, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    out.put_u64(wire::OPTION_REPLY_MAGIC);
    out.put_u32(option);
    out.put_u32(kind);
    out.put_u32(u32::try_from(length).expect("replies consist of short strings"));
    for part in parts {
        out.put(part);
    }
}

/// Answers an option whose data was skipped.
pub(super) fn refuse_oversize(out: &mut Vec<u8>, option: u32) {
    let known = matches!(
        option,
        wire::OPT_LIST
            | wire::OPT_STARTTLS
            | wire::OPT_INFO
            | wire::OPT_GO
            | wire::OPT_STRUCTURED_REPLY
            | wire::OPT_LIST_META_CONTEXT
            | wire::OPT_SET_META_CONTEXT
            | wire::OPT_EXTENDED_HEADERS
    );
    let (code, message): (u32, &[u8]) = if known {
        (wire::REP_ERR_TOO_BIG, b"option data is too large")
    } else {
        (wire::REP_ERR_UNSUP, b"unknown option")
    };
    reply(out, option, code, &[message]);
}

fn list(exports: &dyn Exports, out: &mut Vec<u8>) {
    for export in exports.list() {
        let name = export.name.as_bytes();
        let length = u32::try_from(name.len()).expect("names are short strings").to_be_bytes();
        let parts = [&length, name, export.description.as_bytes()];
        reply(out, wire::OPT_LIST, wire::REP_SERVER, &parts);
    }
}

fn context_reply(out: &mut Vec<u8>, option: u32, context: u32) {
    let parts = [&context.to_be_bytes(), wire::BASE_ALLOCATION.as_bytes()];
    reply(out, option, wire::REP_META_CONTEXT, &parts);
}

fn no_data(data: &[u8]) -> Result<(), Refusal> {
    if data.is_empty() {
        Ok(())
    } else {
        Err(refusal(wire::REP_ERR_INVALID, "this option takes no data"))
    }
}

fn at_end(data: Cursor<'_>) -> Result<(), Refusal> {
    if data.is_empty() { Ok(()) } else { Err(MALFORMED) }
}

/// A string with its length before it.
fn counted_text<'a>(data: &mut Cursor<'a>) -> Result<&'a str, Refusal> {
    let length = data.u32().and_then(|length| usize::try_from(length).ok()).ok_or(MALFORMED)?;
    text(data.take(length).ok_or(MALFORMED)?)
}

fn text(bytes: &[u8]) -> Result<&str, Refusal> {
    if bytes.len() > wire::STRING_MAX {
        return Err(refusal(wire::REP_ERR_TOO_BIG, "strings may have at most 4096 bytes"));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0) => Ok(text),
        _ => Err(refusal(wire::REP_ERR_INVALID, "strings are UTF-8 without NUL")),
    }
}
