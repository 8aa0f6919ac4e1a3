//! Replies byte for byte, and the bounds of block status.

use super::*;

const TAG: Tag = Tag { cookie: 0x0102_0304_0506_0708, offset: 0x1000 };
const COOKIE: &[u8] = b"\x01\x02\x03\x04\x05\x06\x07\x08";
const OFFSET: &[u8] = b"\0\0\0\0\0\0\x10\0";

fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    // Replies are appended: what was there stays.
    let mut out = b"before".to_vec();
    encode(&mut out);
    assert_eq!(&out[..6], b"before");
    out.split_off(6)
}

/// A structured chunk of the test's request.
fn structured(flags: u8, kind: &[u8; 2], length: u32, payload: &[u8]) -> Vec<u8> {
    let length = length.to_be_bytes();
    [b"\x66\x8e\x33\xef", &[0, flags][..], kind, COOKIE, &length, payload].concat()
}

/// An extended chunk of the test's request.
fn extended(flags: u8, kind: &[u8; 2], length: u64, payload: &[u8]) -> Vec<u8> {
    let length = length.to_be_bytes();
    [b"\x6e\x8a\x27\x8c", &[0, flags][..], kind, COOKIE, OFFSET, &length, payload].concat()
}

fn simple(error: &[u8; 4]) -> Vec<u8> {
    [b"\x67\x44\x66\x98", &error[..], COOKIE].concat()
}

#[test]
fn success_without_data() {
    assert_eq!(encoded(|out| ReplyMode::Simple.done(out, TAG)), simple(b"\0\0\0\0"));
    assert_eq!(encoded(|out| ReplyMode::Structured.done(out, TAG)), simple(b"\0\0\0\0"));
    let none = extended(1, b"\0\0", 0, b"");
    assert_eq!(encoded(|out| ReplyMode::Extended.done(out, TAG)), none);
    assert_eq!(encoded(|out| ReplyMode::Extended.finish(out, TAG)), none);
    let none = structured(1, b"\0\0", 0, b"");
    assert_eq!(encoded(|out| ReplyMode::Structured.finish(out, TAG)), none);
}

#[test]
fn reads_carry_a_header_for_the_data_that_follows() {
    let read = |mode: ReplyMode| encoded(|out| mode.read(out, TAG, 0x200));
    assert_eq!(read(ReplyMode::Simple), simple(b"\0\0\0\0"));
    assert_eq!(read(ReplyMode::Structured), structured(1, b"\0\x01", 0x208, OFFSET));
    assert_eq!(read(ReplyMode::Extended), extended(1, b"\0\x01", 0x208, OFFSET));
    assert_eq!(read(ReplyMode::Extended).len(), READ_HEADER_MAX);
}

#[test]
fn parts_of_a_read_say_where_they_belong_and_which_is_last() {
    let middle = b"\0\0\0\0\0\0\x12\0";
    let part = encoded(|out| ReplyMode::Structured.data_chunk(out, TAG, 0x1200, 1, false));
    assert_eq!(part, structured(0, b"\0\x01", 9, middle));
    let hole = encoded(|out| ReplyMode::Structured.hole_chunk(out, TAG, 0x1200, 0x300, true));
    assert_eq!(hole, structured(1, b"\0\x02", 12, &[&middle[..], b"\0\0\x03\0"].concat()));
    let hole = encoded(|out| ReplyMode::Extended.hole_chunk(out, TAG, 0x1200, 0x300, false));
    assert_eq!(hole, extended(0, b"\0\x02", 12, &[&middle[..], b"\0\0\x03\0"].concat()));
}

#[test]
fn errors_carry_text_where_there_is_room() {
    let error = |mode: ReplyMode| encoded(|out| mode.error(out, TAG, Errno::NoSpc, "full"));
    assert_eq!(error(ReplyMode::Simple), simple(b"\0\0\0\x1c"));
    let payload = b"\0\0\0\x1c\0\x04full";
    assert_eq!(error(ReplyMode::Structured), structured(1, b"\x80\x01", 10, payload));
    assert_eq!(error(ReplyMode::Extended), extended(1, b"\x80\x01", 10, payload));

    let error_at = |mode: ReplyMode| encoded(|out| mode.error_at(out, TAG, Errno::Io, 0x1001, ""));
    assert_eq!(error_at(ReplyMode::Simple), simple(b"\0\0\0\x05"));
    let payload = b"\0\0\0\x05\0\0\0\0\0\0\0\0\x10\x01";
    assert_eq!(error_at(ReplyMode::Structured), structured(1, b"\x80\x02", 14, payload));
    assert_eq!(error_at(ReplyMode::Extended), extended(1, b"\x80\x02", 14, payload));
}

#[test]
fn long_texts_are_cut_between_characters() {
    let text = format!("x{}", "é".repeat(3000));
    let error = encoded(|out| ReplyMode::Structured.error(out, TAG, Errno::Io, &text));
    assert_eq!(error.len(), 20 + 6 + 4095);
    assert_eq!(error[16..20], (6u32 + 4095).to_be_bytes());
    assert_eq!(error[24..26], 4095u16.to_be_bytes());
    assert!(std::str::from_utf8(&error[26..]).is_ok());
}

fn status(mode: ReplyMode, length: u64, req_one: bool, extents: &[(u64, u32)]) -> Vec<u8> {
    let extents = extents.iter().map(|&(length, flags)| Extent { length, flags });
    let query = StatusQuery { context: 1, length, req_one };
    encoded(|out| mode.block_status(out, TAG, query, extents))
}

/// The extents of an encoded structured status.
fn extents(reply: &[u8]) -> Vec<(u64, u32)> {
    let length = u32::from_be_bytes(reply[16..20].try_into().unwrap()) as usize;
    assert_eq!(length, reply.len() - 20);
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().unwrap());
    reply[24..].chunks(8).map(|e| (u64::from(number(&e[..4])), number(&e[4..]))).collect()
}

#[test]
fn block_status_in_both_widths() {
    let runs = [(0x1000, 3), (0x200, 0)];
    let narrow = b"\0\0\0\x01\0\0\x10\0\0\0\0\x03\0\0\x02\0\0\0\0\0";
    let expected = structured(1, b"\0\x05", 20, narrow);
    assert_eq!(status(ReplyMode::Structured, 0x1200, false, &runs), expected);
    let wide = b"\0\0\0\x01\0\0\0\x02\
        \0\0\0\0\0\0\x10\0\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0\0";
    let expected = extended(1, b"\0\x06", 40, wide);
    assert_eq!(status(ReplyMode::Extended, 0x1200, false, &runs), expected);
}

#[test]
fn block_status_is_merged_and_cut_to_the_range() {
    let told = |length, req_one, given: &[(u64, u32)]| {
        extents(&status(ReplyMode::Structured, length, req_one, given))
    };
    let given = [(10, 0), (0, 3), (20, 0), (30, 3), (100, 0)];
    assert_eq!(told(1000, false, &given), [(30, 0), (30, 3), (100, 0)]);
    assert_eq!(told(70, false, &given), [(30, 0), (30, 3), (10, 0)]);
    assert_eq!(told(60, false, &given), [(30, 0), (30, 3)]);
    assert_eq!(told(1000, true, &given), [(30, 0)]);
    assert_eq!(told(5, true, &given), [(5, 0)]);
    assert_eq!(told(7, false, &[]), [(7, 0)], "nothing known is reported as data");
}

#[test]
fn an_extent_too_long_for_32_bits_ends_a_narrow_reply() {
    let long = 1 << 33;
    let reply = status(ReplyMode::Structured, long + 10, false, &[(long, 3), (10, 0)]);
    assert_eq!(extents(&reply), [(u64::from(u32::MAX) - 4095, 3)]);
    let reply = status(ReplyMode::Extended, long + 10, false, &[(long, 3), (10, 0)]);
    assert_eq!(reply[40..48], long.to_be_bytes());
    assert_eq!(reply.len(), 32 + 8 + 32);
}

#[test]
fn a_status_of_very_many_extents_ends_early() {
    let given =
        (0..wire::EXTENTS_MAX as u64 + 5).map(|n| Extent { length: 1, flags: n as u32 & 1 });
    let query = StatusQuery { context: 1, length: u64::MAX, req_one: false };
    let mut out = Vec::new();
    ReplyMode::Structured.block_status(&mut out, TAG, query, given);
    assert_eq!(out.len(), 20 + 4 + 8 * wire::EXTENTS_MAX);
}

#[test]
#[should_panic(expected = "simple replies only")]
fn chunks_need_structured_replies() {
    ReplyMode::Simple.finish(&mut Vec::new(), TAG);
}
