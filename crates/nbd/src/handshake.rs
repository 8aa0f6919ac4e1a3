//! The server's side of fixed newstyle negotiation.
//!
//! ```text
//!  begin: greeting ─▶ ClientFlags ─▶ Options ──EXPORT_NAME, GO──▶ Transmission
//!                          │          │  ▲ └──ABORT, violation──▶ Closed
//!                          │          ▼  │
//!                          │    Skipping too large data
//!                          └─unknown flag──▶ Closed
//! ```
//!
//! Owns the framing of options and their order; what each option is answered stands in
//! `handshake/options.rs`. Invariants:
//! - Nothing received is kept: the caller's buffer is the only one, and [`HANDSHAKE_INPUT_MAX`]
//!   bytes in it are always enough for progress. Larger options are skipped, not stored.
//! - At most [`OPTIONS_MAX`] options are answered, one for each call, so that pipelined options
//!   cannot make the output grow without the caller sending in between.
//!
//! How long a client may take is the server's matter: this code has no clock.

mod options;

use crate::bytes::{Cursor, Put};
use crate::export::{ExportInfo, Exports};
use crate::reply::ReplyMode;
use crate::wire;

/// Largest option data that is looked at, in bytes: room for an export name and several queries,
/// even long ones.
const OPTION_DATA_MAX: usize = 16 << 10;

/// Magic, number and length of an option.
const OPTION_HEADER_LEN: usize = 16;

/// Received bytes, at most, that [`ServerHandshake::advance`] needs to see at once.
pub const HANDSHAKE_INPUT_MAX: usize = OPTION_HEADER_LEN + OPTION_DATA_MAX;

/// Options, at most, that one client may send. Far more than any client uses, yet it ends a session
/// that only talks.
pub const OPTIONS_MAX: u32 = 1024;

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    /// The export, as it was described to the client.
    pub export: ExportInfo,
    /// How replies look, and with it the form of requests.
    pub mode: ReplyMode,
    /// The number of `base:allocation` if the client selected it for this export.
    pub allocation_context: Option<u32>,
}

/// Where the negotiation stands.
#[derive(Debug)]
pub enum Outcome {
    /// Receive more. Output may be waiting to be sent.
    NeedMore,
    /// One message was handled; there may be more in the buffer. Send the output, then call again.
    Continue,
    /// Send the output; what follows the consumed bytes are requests.
    Transmission(Box<Negotiated>),
    /// Send the output, then close the connection.
    Closed(CloseReason),
}

/// Why a negotiation ended without an export.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The client said goodbye, as is its right.
    #[error("the client ended the negotiation")]
    Abort,
    /// Flags that were never offered.
    #[error("unknown client flags {0:#x}")]
    ClientFlags(u32),
    /// Something else stands where an option should start.
    #[error("no option magic: this is not an NBD client")]
    BadMagic,
    /// An option that cannot be answered with an error, in a state that does not allow it.
    #[error("option {0} is not allowed here")]
    OptionNotAllowed(u32),
    /// `EXPORT_NAME` with a name that is too long or no text.
    #[error("malformed export name")]
    BadExportName,
    /// `EXPORT_NAME` for an export that does not exist.
    #[error("no export named {0:?}")]
    UnknownExport(String),
    /// More than [`OPTIONS_MAX`] options.
    #[error("more than {OPTIONS_MAX} options without choosing an export")]
    TooManyOptions,
    /// The negotiation had already ended.
    #[error("the negotiation had already ended")]
    Ended,
}

/// The result of one call.
#[derive(Debug)]
pub struct HandshakeStep {
    /// Bytes of the input to drop before the next call.
    pub consumed: usize,
    /// What to do next.
    pub outcome: Outcome,
}

#[derive(Debug, Clone, Copy)]
enum State {
    ClientFlags,
    Options,
    Skipping { option: u32, left: usize },
    Ended,
}

/// Negotiation with one client.
#[derive(Debug)]
pub struct ServerHandshake {
    state: State,
    options_seen: u32,
    fixed_newstyle: bool,
    no_zeroes: bool,
    structured: bool,
    extended: bool,
    /// The export for which `base:allocation` is selected.
    allocation_for: Option<String>,
}

impl ServerHandshake {
    /// Starts by appending the greeting to `out`.
    pub fn begin(out: &mut Vec<u8>) -> Self {
        out.put_u64(wire::INIT_MAGIC);
        out.put_u64(wire::OPTION_MAGIC);
        out.put_u16(wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES);
        Self {
            state: State::ClientFlags,
            options_seen: 0,
            fixed_newstyle: false,
            no_zeroes: false,
            structured: false,
            extended: false,
            allocation_for: None,
        }
    }

    /// Handles at most one message at the start of `input` and appends its answer to `out`.
    ///
    /// `input` is everything received and not yet consumed; it never has to be longer than
    /// [`HANDSHAKE_INPUT_MAX`].
    pub fn advance(
        &mut self,
        exports: &dyn Exports,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> HandshakeStep {
        let step = match self.state {
            State::ClientFlags => self.client_flags(input),
            State::Options => self.option(exports, input, out),
            State::Skipping { option, left } => self.skip(option, left, input, out),
            State::Ended => step(0, Outcome::Closed(CloseReason::Ended)),
        };
        if matches!(step.outcome, Outcome::Transmission(_) | Outcome::Closed(_)) {
            self.state = State::Ended;
        }
        step
    }

    fn client_flags(&mut self, input: &[u8]) -> HandshakeStep {
        let Some(flags) = Cursor(input).u32() else { return step(0, Outcome::NeedMore) };
        let known = wire::FLAG_C_FIXED_NEWSTYLE | wire::FLAG_C_NO_ZEROES;
        if flags & !known != 0 {
            return step(4, Outcome::Closed(CloseReason::ClientFlags(flags)));
        }
        self.fixed_newstyle = flags & wire::FLAG_C_FIXED_NEWSTYLE != 0;
        self.no_zeroes = flags & wire::FLAG_C_NO_ZEROES != 0;
        self.state = State::Options;
        step(4, Outcome::Continue)
    }

    fn option(&mut self, exports: &dyn Exports, input: &[u8], out: &mut Vec<u8>) -> HandshakeStep {
        // Compared byte by byte, so that garbage shorter than a header is not waited on.
        let magic = wire::OPTION_MAGIC.to_be_bytes();
        if input.iter().zip(magic).any(|(found, expected)| *found != expected) {
            return step(0, Outcome::Closed(CloseReason::BadMagic));
        }
        let Some((option, length)) = option_header(input) else {
            return step(0, Outcome::NeedMore);
        };
        if self.options_seen == OPTIONS_MAX {
            return step(0, Outcome::Closed(CloseReason::TooManyOptions));
        }
        if !self.fixed_newstyle && option != wire::OPT_EXPORT_NAME {
            return step(0, Outcome::Closed(CloseReason::OptionNotAllowed(option)));
        }
        if option == wire::OPT_ABORT {
            // Data with it is ignored, so its arrival is not waited for.
            options::reply(out, option, wire::REP_ACK, &[]);
            return step(input.len(), Outcome::Closed(CloseReason::Abort));
        }
        if length > OPTION_DATA_MAX {
            if option == wire::OPT_EXPORT_NAME {
                return step(0, Outcome::Closed(CloseReason::BadExportName));
            }
            self.options_seen += 1;
            self.state = State::Skipping { option, left: length };
            return step(OPTION_HEADER_LEN, Outcome::Continue);
        }
        let end = OPTION_HEADER_LEN + length;
        let Some(data) = input.get(OPTION_HEADER_LEN..end) else {
            return step(0, Outcome::NeedMore);
        };
        self.options_seen += 1;
        step(end, self.answer(exports, option, data, out))
    }

    fn skip(&mut self, option: u32, left: usize, input: &[u8], out: &mut Vec<u8>) -> HandshakeStep {
        let skipped = left.min(input.len());
        if skipped < left {
            self.state = State::Skipping { option, left: left - skipped };
            return step(skipped, Outcome::NeedMore);
        }
        self.state = State::Options;
        options::refuse_oversize(out, option);
        step(skipped, Outcome::Continue)
    }

    fn mode(&self) -> ReplyMode {
        match (self.extended, self.structured) {
            (true, _) => ReplyMode::Extended,
            (false, true) => ReplyMode::Structured,
            (false, false) => ReplyMode::Simple,
        }
    }

    fn negotiated(&self, export: ExportInfo) -> Box<Negotiated> {
        // A selection counts only for the export it was made for.
        let selected = self.allocation_for.as_deref() == Some(export.name.as_str());
        Box::new(Negotiated {
            allocation_context: selected.then_some(options::ALLOCATION_CONTEXT),
            mode: self.mode(),
            export,
        })
    }
}

fn step(consumed: usize, outcome: Outcome) -> HandshakeStep {
    HandshakeStep { consumed, outcome }
}

fn option_header(input: &[u8]) -> Option<(u32, usize)> {
    let mut input = Cursor(input);
    input.u64()?;
    let option = input.u32()?;
    let length = usize::try_from(input.u32()?).unwrap_or(usize::MAX);
    Some((option, length))
}
