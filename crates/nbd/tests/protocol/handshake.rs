//! Scripted negotiations, byte for byte, and how they arrive.

use crate::support::TwoExports;
use forestall_nbd::{CloseReason, Negotiated, OPTIONS_MAX, Outcome, ReplyMode, ServerHandshake};

const GREETING: &[u8] = b"NBDMAGICIHAVEOPT\x00\x03";
const SIZE: u64 = 0x0010_0000;
const SIZE_BYTES: &[u8] = b"\x00\x00\x00\x00\x00\x10\x00\x00";

/// How a scripted negotiation ended.
#[derive(Debug, PartialEq)]
enum End {
    Waiting,
    Transmission(Box<Negotiated>),
    Closed(CloseReason),
}

/// Plays `script` in pieces of `piece` bytes; returns everything after the greeting, the end, and
/// the bytes left over.
fn play_in(script: &[u8], piece: usize) -> (Vec<u8>, End, usize) {
    let mut out = Vec::new();
    let mut handshake = ServerHandshake::begin(&mut out);
    assert_eq!(out, GREETING);
    let mut waiting = Vec::new();
    for part in script.chunks(piece) {
        waiting.extend_from_slice(part);
        loop {
            let step = handshake.advance(&TwoExports { size: SIZE }, &waiting, &mut out);
            waiting.drain(..step.consumed);
            let end = match step.outcome {
                Outcome::Continue => continue,
                Outcome::NeedMore => break,
                Outcome::Transmission(negotiated) => End::Transmission(negotiated),
                Outcome::Closed(reason) => End::Closed(reason),
            };
            return (out.split_off(GREETING.len()), end, waiting.len());
        }
    }
    (out.split_off(GREETING.len()), End::Waiting, waiting.len())
}

/// Plays `script` at once and byte by byte, which must not differ.
fn play(script: &[u8]) -> (Vec<u8>, End) {
    let (output, end, _) = play_in(script, script.len());
    for piece in [1, 3] {
        let (slow_output, slow_end, _) = play_in(script, piece);
        assert_eq!((&slow_output, &slow_end), (&output, &end), "in pieces of {piece}");
    }
    (output, end)
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u32).to_be_bytes();
    [b"IHAVEOPT", &number.to_be_bytes()[..], &length, data].concat()
}

fn reply(number: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u32).to_be_bytes();
    let magic = b"\x00\x03\xe8\x89\x04\x55\x65\xa9";
    [&magic[..], &number.to_be_bytes(), &kind.to_be_bytes(), &length, data].concat()
}

fn counted(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
}

/// Data of INFO and GO.
fn info(name: &str, kinds: &[u16]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend((kinds.len() as u16).to_be_bytes());
    data.extend(kinds.iter().flat_map(|kind| kind.to_be_bytes()));
    data
}

/// Data of the metadata options.
fn contexts(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = counted(name);
    data.extend((queries.len() as u32).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| counted(query)));
    data
}

/// A client of fixed newstyle without padding, then these options.
fn modern(options: &[Vec<u8>]) -> Vec<u8> {
    [&[0, 0, 0, 3], &options.concat()[..]].concat()
}

fn negotiated(end: End) -> Negotiated {
    match end {
        End::Transmission(negotiated) => *negotiated,
        other => panic!("no transmission but {other:?}"),
    }
}

const ERR_UNSUP: u32 = 0x8000_0001;
const ERR_INVALID: u32 = 0x8000_0003;
const ERR_UNKNOWN: u32 = 0x8000_0006;
const ERR_TOO_BIG: u32 = 0x8000_0009;
const ERR_EXT_HEADER_REQD: u32 = 0x8000_000a;

/// The kinds of the replies, in order.
fn kinds(mut output: &[u8]) -> Vec<u32> {
    let mut kinds = Vec::new();
    while !output.is_empty() {
        kinds.push(u32::from_be_bytes(output[12..16].try_into().unwrap()));
        let length = u32::from_be_bytes(output[16..20].try_into().unwrap()) as usize;
        output = &output[20 + length..];
    }
    kinds
}

#[test]
fn export_name_pads_with_124_zeroes_unless_the_client_declines() {
    let flags = 0x0d6du16.to_be_bytes();
    for (client_flags, padding) in [(0u32, 124), (1, 124), (3, 0), (2, 0)] {
        let script = [&client_flags.to_be_bytes()[..], &option(1, b"disk")].concat();
        let (output, end) = play(&script);
        assert_eq!(output, [SIZE_BYTES, &flags, &vec![0; padding]].concat());
        let negotiated = negotiated(end);
        assert_eq!(negotiated.export.name, "disk");
        assert_eq!((negotiated.mode, negotiated.allocation_context), (ReplyMode::Simple, None));
    }
}

#[test]
fn export_name_empty_is_the_default_export_and_an_unknown_one_closes() {
    let (_, end) = play(&modern(&[option(1, b"")]));
    assert_eq!(negotiated(end).export.name, "disk");
    let (output, end) = play(&modern(&[option(1, b"nosuch")]));
    assert_eq!((output, end), (vec![], End::Closed(CloseReason::UnknownExport("nosuch".into()))));
    let (_, end) = play(&modern(&[option(1, b"\xff")]));
    assert_eq!(end, End::Closed(CloseReason::BadExportName));
    let (_, end) = play(&modern(&[option(1, &vec![b'x'; 4097])]));
    assert_eq!(end, End::Closed(CloseReason::BadExportName));
    let (_, end) = play(&modern(&[option(1, &vec![b'x'; 20_000])]));
    assert_eq!(end, End::Closed(CloseReason::BadExportName));
}

#[test]
fn requests_sent_along_with_the_last_option_stay_in_the_buffer() {
    let script = [modern(&[option(7, &info("disk", &[]))]), vec![0x25, 0x60, 0x95]].concat();
    let (_, end, left) = play_in(&script, script.len());
    assert_eq!((negotiated(end).mode, left), (ReplyMode::Simple, 3));
}

#[test]
fn go_tells_what_was_asked_for_and_starts_transmission() {
    let (output, end) = play(&modern(&[option(7, &info("", &[1, 2, 3, 3, 77]))]));
    let flags = 0x0d6du16.to_be_bytes();
    let expected = [
        reply(7, 3, &[b"\0\0", SIZE_BYTES, &flags].concat()),
        reply(7, 3, b"\0\x01disk"),
        reply(7, 3, b"\0\x02a disk in memory"),
        reply(7, 3, b"\0\x03\0\0\0\x01\0\0\x10\0\x02\0\0\0"),
        reply(7, 1, b""),
    ];
    assert_eq!(output, expected.concat());
    assert_eq!(negotiated(end).mode, ReplyMode::Simple);
}

#[test]
fn info_describes_without_starting_and_only_what_was_asked_for() {
    let (output, end) = play(&modern(&[option(6, &info("frozen", &[]))]));
    let flags = 0x050fu16.to_be_bytes();
    let expected = [reply(6, 3, &[b"\0\0", SIZE_BYTES, &flags].concat()), reply(6, 1, b"")];
    assert_eq!((output, end), (expected.concat(), End::Waiting));
}

#[test]
fn go_to_an_unknown_export_is_refused_and_the_session_stays_usable() {
    let script = modern(&[option(7, &info("nosuch", &[3])), option(7, &info("disk", &[]))]);
    let (output, end) = play(&script);
    assert_eq!(kinds(&output), [ERR_UNKNOWN, 3, 1]);
    assert_eq!(output[..40], reply(7, ERR_UNKNOWN, b"no export of this name")[..40]);
    assert_eq!(negotiated(end).export.name, "disk");
}

#[test]
fn malformed_info_is_refused_without_effect() {
    let too_few = [&counted("disk")[..], &[0, 2, 0, 3]].concat();
    let trailing = [&info("disk", &[3])[..], &[0]].concat();
    let long_name = info(&"x".repeat(4097), &[]);
    let cases: [(&[u8], u32); 7] = [
        (b"", ERR_INVALID),
        (b"\0\0\0\x05disk\0\0", ERR_INVALID),
        (b"\xff\xff\xff\xffdisk\0\0", ERR_INVALID),
        (b"\0\0\0\x01\0\0\0", ERR_INVALID),
        (&too_few, ERR_INVALID),
        (&trailing, ERR_INVALID),
        (&long_name, ERR_TOO_BIG),
    ];
    for (data, code) in cases {
        let (output, end) = play(&modern(&[option(7, data)]));
        assert_eq!((kinds(&output), end), (vec![code], End::Waiting), "{data:?}");
    }
}

#[test]
fn list_names_every_export() {
    let (output, end) = play(&modern(&[option(3, b""), option(3, b"x")]));
    let expected = [
        reply(3, 2, &[&counted("disk")[..], b"a disk in memory"].concat()),
        reply(3, 2, &counted("frozen")),
        reply(3, 1, b""),
        reply(3, ERR_INVALID, b"this option takes no data"),
    ];
    assert_eq!((output, end), (expected.concat(), End::Waiting));
}

#[test]
fn abort_is_acknowledged_whatever_data_comes_with_it() {
    for data in [&b""[..], b"bye"] {
        // In pieces the data may not even be waited for, so only the whole script is compared.
        let script = modern(&[option(2, data)]);
        let (output, end, left) = play_in(&script, script.len());
        assert_eq!(output, reply(2, 1, b""));
        assert_eq!((end, left), (End::Closed(CloseReason::Abort), 0));
    }
}

#[test]
fn unknown_options_and_tls_are_refused_and_the_session_goes_on() {
    let (output, end) = play(&modern(&[option(5, b""), option(4, b"old"), option(999, &[7; 50])]));
    assert_eq!((kinds(&output), end), (vec![ERR_UNSUP; 3], End::Waiting));
    let (output, _) = play(&modern(&[option(5, b"x")]));
    assert_eq!(kinds(&output), [ERR_INVALID]);
}

#[test]
fn structured_replies_then_another_option_then_go() {
    let script = modern(&[option(8, b""), option(3, b""), option(7, &info("disk", &[]))]);
    let (output, end) = play(&script);
    assert_eq!(kinds(&output), [1, 2, 2, 1, 3, 1]);
    assert_eq!(negotiated(end).mode, ReplyMode::Structured);
    // Don't-fragment is offered now.
    assert_eq!(output[output.len() - 22..output.len() - 20], 0x0dedu16.to_be_bytes());
    let (output, _) = play(&modern(&[option(8, b"x")]));
    assert_eq!(kinds(&output), [ERR_INVALID]);
}

#[test]
fn extended_headers_win_and_cannot_be_taken_back() {
    let go = option(7, &info("disk", &[]));
    let (output, end) = play(&modern(&[option(11, b"x"), option(8, b""), option(11, b""), go]));
    assert_eq!(kinds(&output), [ERR_INVALID, 1, 1, 3, 1]);
    assert_eq!(negotiated(end).mode, ReplyMode::Extended);
    let (output, _) = play(&modern(&[option(11, b""), option(8, b"")]));
    assert_eq!(kinds(&output), [1, ERR_EXT_HEADER_REQD]);
    let (_, end) = play(&modern(&[option(11, b""), option(1, b"disk")]));
    assert_eq!(end, End::Closed(CloseReason::OptionNotAllowed(1)));
}

#[test]
fn listing_contexts_knows_wildcards_and_ignores_the_unknown() {
    let listed = reply(9, 4, b"\0\0\0\0base:allocation");
    let ack = reply(9, 1, b"");
    let cases: [(&[&str], bool); 8] = [
        (&[], true),
        (&["base:"], true),
        (&["base:allocation"], true),
        (&["x-other:", "base:allocation", "base:"], true),
        (&["base:nosuch"], false),
        (&["qemu:dirty-bitmap:x"], false),
        (&[""], false),
        (&["base"], false),
    ];
    for (queries, found) in cases {
        let (output, _) = play(&modern(&[option(8, b""), option(9, &contexts("disk", queries))]));
        let expected = if found { [&listed[..], &ack].concat() } else { ack.clone() };
        assert_eq!(output[20..], expected, "{queries:?}");
    }
}

#[test]
fn selecting_contexts_needs_exact_names_and_the_same_export() {
    let cases: [(&[&str], &str, bool); 6] = [
        (&["base:allocation"], "disk", true),
        (&["base:allocation", "base:allocation", "x:y"], "", true),
        (&["base:"], "disk", false),
        (&[], "disk", false),
        (&["x-y:z"], "disk", false),
        (&["base:allocation"], "frozen", false),
    ];
    for (queries, chosen, selected) in cases {
        let set = option(10, &contexts("disk", queries));
        let go = option(7, &info(chosen, &[]));
        let (output, end) = play(&modern(&[option(8, b""), set, go]));
        if queries.contains(&"base:allocation") {
            let expected = [reply(10, 4, b"\0\0\0\x01base:allocation"), reply(10, 1, b"")].concat();
            assert_eq!(output[20..20 + expected.len()], expected);
        } else {
            assert_eq!(kinds(&output), [1, 1, 3, 1]);
        }
        assert_eq!(negotiated(end).allocation_context.is_some(), selected, "{queries:?} {chosen}");
    }
}

#[test]
fn a_failed_selection_forgets_the_former_one() {
    let good = option(10, &contexts("disk", &["base:allocation"]));
    let go = option(7, &info("disk", &[]));
    let bad: [(Vec<u8>, u32); 3] = [
        (contexts("nosuch", &["base:allocation"]), ERR_UNKNOWN),
        (b"\0\0\0\x04disk\xff\xff\xff\xff\0\0\0\x01x".to_vec(), ERR_INVALID),
        ([contexts("disk", &[]), vec![0]].concat(), ERR_INVALID),
    ];
    for (bad, code) in bad {
        let script = modern(&[option(8, b""), good.clone(), option(10, &bad), go.clone()]);
        let (output, end) = play(&script);
        assert_eq!(kinds(&output), [1, 4, 1, code, 3, 1]);
        assert_eq!(negotiated(end).allocation_context, None);
    }
    let (output, _) = play(&modern(&[good, option(9, &contexts("disk", &[]))]));
    assert_eq!(kinds(&output), [ERR_INVALID; 2], "contexts need structured replies");
}

#[test]
fn oversize_data_is_skipped_not_stored() {
    for (number, code) in [(7, ERR_TOO_BIG), (3, ERR_TOO_BIG), (999, ERR_UNSUP)] {
        let script = modern(&[option(number, &vec![b'I'; 100_000]), option(3, b"")]);
        let (output, end) = play(&script);
        assert_eq!((kinds(&output), end), (vec![code, 2, 2, 1], End::Waiting));
    }
}

#[test]
fn garbage_closes_at_once() {
    let (output, end) = play(&[0, 0, 0, 7]);
    assert_eq!((output, end), (vec![], End::Closed(CloseReason::ClientFlags(7))));
    let (_, end) = play(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(end, End::Closed(CloseReason::ClientFlags(0x4745_5420)));
    // Shorter than a header, yet no reason to wait.
    let (_, end) = play(&[0, 0, 0, 1, b'I', b'H', b'x']);
    assert_eq!(end, End::Closed(CloseReason::BadMagic));
    // Plain newstyle has one option only.
    let (_, end) = play(&[&[0; 4], &option(3, b"")[..]].concat());
    assert_eq!(end, End::Closed(CloseReason::OptionNotAllowed(3)));
}

#[test]
fn a_client_that_only_talks_is_sent_away() {
    let options = vec![option(999, b""); OPTIONS_MAX as usize + 1];
    let (output, end, _) = play_in(&modern(&options), 1 << 20);
    assert_eq!(kinds(&output).len(), OPTIONS_MAX as usize);
    assert_eq!(end, End::Closed(CloseReason::TooManyOptions));
}

#[test]
fn an_ended_negotiation_stays_ended() {
    let mut out = Vec::new();
    let mut handshake = ServerHandshake::begin(&mut out);
    let exports = TwoExports { size: SIZE };
    let step = handshake.advance(&exports, &[1; 4], &mut out);
    assert!(matches!(step.outcome, Outcome::Closed(CloseReason::ClientFlags(_))));
    let step = handshake.advance(&exports, &[0; 4], &mut out);
    assert!(matches!(step.outcome, Outcome::Closed(CloseReason::Ended)));
}
