//! Every rule of decoding and of `check`, one by one.

use super::*;
use crate::export::{BlockSizes, ExportInfo};
use crate::parser::{Next, RequestStream};

const SIZE: u64 = 1 << 30;

fn session(mode: ReplyMode) -> Negotiated {
    let allocation_context = (mode != ReplyMode::Simple).then_some(1);
    Negotiated { export: ExportInfo::new("a", SIZE), mode, allocation_context }
}

fn header(command: u16, flags: u16, offset: u64, length: u64) -> RequestHeader {
    let payload = if command == wire::CMD_WRITE { length as u32 } else { 0 };
    RequestHeader { flags, command, cookie: 7, offset, length, payload }
}

fn refused(header: RequestHeader, session: &Negotiated) -> RejectReason {
    let rejected = check(&header, session).expect_err("to be refused");
    assert_eq!(rejected.tag, Tag { cookie: 7, offset: header.offset });
    assert_eq!(rejected.skip_payload, header.payload, "a refused payload has to be skipped");
    rejected.reason
}

fn compact(command: u16, length: u32) -> Vec<u8> {
    let mut raw = b"\x25\x60\x95\x13\x00\x01".to_vec();
    raw.extend(command.to_be_bytes());
    raw.extend(b"\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18");
    raw.extend(length.to_be_bytes());
    raw
}

fn extended(command: u16, flags: u16, length: u64) -> Vec<u8> {
    let mut raw = b"\x21\xe4\x1c\x71".to_vec();
    raw.extend(flags.to_be_bytes());
    raw.extend(command.to_be_bytes());
    raw.extend(b"\x01\x02\x03\x04\x05\x06\x07\x08\x11\x12\x13\x14\x15\x16\x17\x18");
    raw.extend(length.to_be_bytes());
    raw
}

#[test]
fn headers_decode_field_by_field() {
    let expected = RequestHeader {
        flags: 1,
        command: wire::CMD_WRITE,
        cookie: 0x0102_0304_0506_0708,
        offset: 0x1112_1314_1516_1718,
        length: 0x2000,
        payload: 0x2000,
    };
    let raw = compact(wire::CMD_WRITE, 0x2000);
    assert_eq!(RequestHeader::decode(&raw, HeaderForm::Compact, 1 << 20), Ok(Some(expected)));
    assert_eq!(RequestHeader::decode(&raw[..27], HeaderForm::Compact, 1 << 20), Ok(None));

    let raw = extended(wire::CMD_WRITE, 0x21, 0x2000);
    let expected = RequestHeader { flags: 0x21, ..expected };
    assert_eq!(RequestHeader::decode(&raw, HeaderForm::Extended, 1 << 20), Ok(Some(expected)));
    assert_eq!(RequestHeader::decode(&raw[..31], HeaderForm::Extended, 1 << 20), Ok(None));

    let raw = extended(wire::CMD_TRIM, 0, u64::MAX);
    let trim = RequestHeader::decode(&raw, HeaderForm::Extended, 1 << 20).unwrap().unwrap();
    assert_eq!((trim.length, trim.payload), (u64::MAX, 0));
}

#[test]
fn what_cannot_be_followed_is_fatal() {
    let limit = 1 << 20;
    let wrong = |found, expected| Err(ProtocolError::BadMagic { found, expected });
    let raw = extended(wire::CMD_READ, 0, 1);
    let decoded = RequestHeader::decode(&raw, HeaderForm::Compact, limit);
    assert_eq!(decoded, wrong(0x21e4_1c71, 0x2560_9513));
    let raw = [compact(wire::CMD_READ, 1), vec![0; 4]].concat();
    let decoded = RequestHeader::decode(&raw, HeaderForm::Extended, limit);
    assert_eq!(decoded, wrong(0x2560_9513, 0x21e4_1c71));

    let too_large = |length| Err(ProtocolError::PayloadTooLarge { length, limit });
    let raw = compact(wire::CMD_WRITE, limit + 1);
    let decoded = RequestHeader::decode(&raw, HeaderForm::Compact, limit);
    assert_eq!(decoded, too_large(u64::from(limit) + 1));
    let raw = extended(wire::CMD_CACHE, wire::CMD_FLAG_PAYLOAD_LEN, 1 << 40);
    assert_eq!(RequestHeader::decode(&raw, HeaderForm::Extended, limit), too_large(1 << 40));
}

/// QEMU 10.0 as a client sends such writes; refusing them would lock it out.
#[test]
fn an_extended_write_without_its_payload_flag_still_carries_its_data() {
    let raw = extended(wire::CMD_WRITE, 0, 4096);
    let header = RequestHeader::decode(&raw, HeaderForm::Extended, 1 << 20).unwrap().unwrap();
    assert_eq!((header.length, header.payload), (4096, 4096));
    let header = RequestHeader { offset: 0, ..header };
    let request = check(&header, &session(ReplyMode::Extended)).unwrap();
    assert_eq!((request.command, request.payload()), (Command::Write, 4096));
}

#[test]
fn every_command_passes_with_its_flags() {
    let session = session(ReplyMode::Structured);
    let fua = wire::CMD_FLAG_FUA;
    let cases = [
        (wire::CMD_READ, wire::CMD_FLAG_DF, Command::Read { dont_fragment: true }),
        (wire::CMD_READ, 0, Command::Read { dont_fragment: false }),
        (wire::CMD_WRITE, 0, Command::Write),
        (wire::CMD_TRIM, 0, Command::Trim),
        (wire::CMD_CACHE, 0, Command::Cache),
        (wire::CMD_WRITE_ZEROES, 0, Command::WriteZeroes { no_hole: false, fast: false }),
        (
            wire::CMD_WRITE_ZEROES,
            wire::CMD_FLAG_NO_HOLE,
            Command::WriteZeroes { no_hole: true, fast: false },
        ),
        (
            wire::CMD_WRITE_ZEROES,
            wire::CMD_FLAG_FAST_ZERO,
            Command::WriteZeroes { no_hole: false, fast: true },
        ),
        (wire::CMD_BLOCK_STATUS, 0, Command::BlockStatus { req_one: false }),
        (wire::CMD_BLOCK_STATUS, wire::CMD_FLAG_REQ_ONE, Command::BlockStatus { req_one: true }),
    ];
    for (number, flags, command) in cases {
        for fua in [0, fua] {
            let header = header(number, flags | fua, 512, 4096);
            let expected = Request { cookie: 7, offset: 512, length: 4096, fua: fua != 0, command };
            assert_eq!(check(&header, &session), Ok(expected));
        }
    }
    let flush = check(&header(wire::CMD_FLUSH, fua, 0, 0), &session).unwrap();
    assert_eq!((flush.command, flush.fua, flush.payload()), (Command::Flush, true, 0));
    // Goodbye is goodbye, whatever stands in the other fields.
    let disconnect = check(&header(wire::CMD_DISC, 0xffff, 9, 9), &session).unwrap();
    assert_eq!((disconnect.command, disconnect.offset), (Command::Disconnect, 0));
}

#[test]
fn unknown_commands_and_flags_are_einval() {
    let session = session(ReplyMode::Structured);
    for command in [8, 9, 0x100, 0xffff] {
        let reason = refused(header(command, 0, 0, 512), &session);
        assert_eq!((reason, reason.errno()), (RejectReason::UnknownCommand, Errno::Inval));
    }
    // For each command every flag that it does not have.
    let allowed = [
        (wire::CMD_READ, wire::CMD_FLAG_DF),
        (wire::CMD_WRITE, 0),
        (wire::CMD_FLUSH, 0),
        (wire::CMD_TRIM, 0),
        (wire::CMD_CACHE, 0),
        (wire::CMD_WRITE_ZEROES, wire::CMD_FLAG_NO_HOLE | wire::CMD_FLAG_FAST_ZERO),
        (wire::CMD_BLOCK_STATUS, wire::CMD_FLAG_REQ_ONE),
    ];
    for (command, allowed) in allowed {
        for bit in 1..16 {
            let flag = 1 << bit;
            let length = if command == wire::CMD_FLUSH { 0 } else { 512 };
            let header = header(command, flag, 0, length);
            if allowed & flag == 0 {
                assert_eq!(refused(header, &session), RejectReason::BadFlags, "{command} {bit}");
            } else {
                check(&header, &session).unwrap();
            }
        }
    }
    assert_eq!(RejectReason::BadFlags.errno(), Errno::Inval);
}

#[test]
fn flags_that_were_not_offered_are_einval() {
    let simple = session(ReplyMode::Simple);
    let df = header(wire::CMD_READ, wire::CMD_FLAG_DF, 0, 512);
    assert_eq!(refused(df, &simple), RejectReason::BadFlags);
    let mut plain = session(ReplyMode::Extended);
    plain.export.fua = false;
    plain.export.fast_zero = false;
    let fua = header(wire::CMD_TRIM, wire::CMD_FLAG_FUA, 0, 512);
    assert_eq!(refused(fua, &plain), RejectReason::BadFlags);
    let fast = header(wire::CMD_WRITE_ZEROES, wire::CMD_FLAG_FAST_ZERO, 0, 512);
    assert_eq!(refused(fast, &plain), RejectReason::BadFlags);
}

#[test]
fn payloads_belong_to_writes_only() {
    let session = session(ReplyMode::Extended);
    let payload = wire::CMD_FLAG_PAYLOAD_LEN;
    check(&header(wire::CMD_WRITE, payload, 0, 512), &session).unwrap();
    for command in [wire::CMD_READ, wire::CMD_FLUSH, wire::CMD_BLOCK_STATUS, wire::CMD_TRIM] {
        let header = RequestHeader { payload: 512, ..header(command, payload, 0, 512) };
        let reason = refused(header, &session);
        assert_eq!((reason, reason.errno()), (RejectReason::UnexpectedPayload, Errno::Inval));
    }
}

#[test]
fn commands_that_were_not_offered_are_einval() {
    let mut session = session(ReplyMode::Structured);
    session.export.trim = false;
    session.export.write_zeroes = false;
    session.export.cache = false;
    for command in [wire::CMD_TRIM, wire::CMD_WRITE_ZEROES, wire::CMD_CACHE] {
        let reason = refused(header(command, 0, 0, 512), &session);
        assert_eq!((reason, reason.errno()), (RejectReason::NotOffered, Errno::Inval));
    }
    session.allocation_context = None;
    let reason = refused(header(wire::CMD_BLOCK_STATUS, 0, 0, 512), &session);
    assert_eq!((reason, reason.errno()), (RejectReason::NoContext, Errno::Inval));
}

#[test]
fn writes_to_a_read_only_export_are_eperm_even_past_the_end() {
    let mut session = session(ReplyMode::Simple);
    session.export.read_only = true;
    for command in [wire::CMD_WRITE, wire::CMD_TRIM, wire::CMD_WRITE_ZEROES] {
        for offset in [0, SIZE] {
            let reason = refused(header(command, 0, offset, 512), &session);
            assert_eq!((reason, reason.errno()), (RejectReason::ReadOnly, Errno::Perm));
        }
    }
    check(&header(wire::CMD_READ, 0, 0, 512), &session).unwrap();
    check(&header(wire::CMD_FLUSH, 0, 0, 0), &session).unwrap();
}

#[test]
fn ranges_end_with_the_export_and_never_overflow() {
    let session = session(ReplyMode::Structured);
    let cases = [
        (wire::CMD_READ, RejectReason::PastEnd, Errno::Inval),
        (wire::CMD_WRITE, RejectReason::WritePastEnd, Errno::NoSpc),
        (wire::CMD_TRIM, RejectReason::PastEnd, Errno::Inval),
        (wire::CMD_CACHE, RejectReason::PastEnd, Errno::Inval),
        (wire::CMD_WRITE_ZEROES, RejectReason::WritePastEnd, Errno::NoSpc),
        (wire::CMD_BLOCK_STATUS, RejectReason::PastEnd, Errno::Inval),
    ];
    for (command, reason, errno) in cases {
        check(&header(command, 0, SIZE - 1, 1), &session).unwrap();
        for (offset, length) in [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 1), (u64::MAX - 1, 9)] {
            assert_eq!(refused(header(command, 0, offset, length), &session), reason);
        }
        assert_eq!(reason.errno(), errno);
        assert_eq!(refused(header(command, 0, 5, 0), &session), RejectReason::EmptyRange);
    }
    let flush = refused(header(wire::CMD_FLUSH, 0, 0, 1), &session);
    assert_eq!((flush, flush.errno()), (RejectReason::FlushWithRange, Errno::Inval));
    assert_eq!(refused(header(wire::CMD_FLUSH, 0, 1, 0), &session), RejectReason::FlushWithRange);
}

#[test]
fn ranges_are_aligned_to_the_minimum_block_size() {
    let mut session = session(ReplyMode::Simple);
    session.export.block_sizes = BlockSizes::new(512, 4096, 1 << 20).unwrap();
    check(&header(wire::CMD_READ, 0, 512, 1024), &session).unwrap();
    for (offset, length) in [(1, 512), (512, 513), (256, 256)] {
        let reason = refused(header(wire::CMD_READ, 0, offset, length), &session);
        assert_eq!((reason, reason.errno()), (RejectReason::Misaligned, Errno::Inval));
    }
}

#[test]
fn only_commands_with_data_have_a_longest_length() {
    let most = u64::from(wire::PAYLOAD_DEFAULT_MAX);
    for mode in [ReplyMode::Simple, ReplyMode::Structured] {
        let session = session(mode);
        for command in [wire::CMD_READ, wire::CMD_WRITE] {
            check(&header(command, 0, 0, most), &session).unwrap();
        }
        let write = refused(header(wire::CMD_WRITE, 0, 0, most + 1), &session);
        assert_eq!((write, write.errno()), (RejectReason::TooLarge, Errno::Inval));
        let read = refused(header(wire::CMD_READ, 0, 0, most + 1), &session);
        let expected = if mode == ReplyMode::Simple { Errno::Inval } else { Errno::Overflow };
        assert_eq!(read.errno(), expected);
        for command in [wire::CMD_TRIM, wire::CMD_WRITE_ZEROES, wire::CMD_CACHE] {
            check(&header(command, 0, 0, SIZE), &session).unwrap();
        }
    }
}

#[test]
fn many_requests_come_out_of_one_receive() {
    let session = session(ReplyMode::Simple);
    let mut stream = RequestStream::new(&session);
    let mut received = Vec::new();
    // A write past the end, whose payload has to be skipped, between two that are served.
    received.extend(patched(wire::CMD_READ, 0, 512));
    received.extend(patched(wire::CMD_WRITE, SIZE, 100));
    received.extend([0xee; 100]);
    received.extend(patched(wire::CMD_WRITE, 4096, 3));
    received.extend(b"abc");
    received.extend(&patched(wire::CMD_FLUSH, 0, 0)[..27]);

    let mut rest = &received[..];
    let mut next = || {
        let (used, next) = stream.next(&session, rest).unwrap();
        rest = &rest[used..];
        if let Next::Request(request) = next {
            rest = &rest[request.payload() as usize..];
        }
        next
    };
    assert!(matches!(next(), Next::Request(Request { length: 512, .. })));
    assert!(matches!(next(), Next::Rejected(Rejected { reason: RejectReason::WritePastEnd, .. })));
    assert!(matches!(next(), Next::Request(Request { command: Command::Write, .. })));
    assert_eq!(next(), Next::NeedMore);
    assert_eq!(rest.len(), 27);
}

#[test]
fn a_refused_payload_is_skipped_across_receives() {
    let session = session(ReplyMode::Simple);
    let mut stream = RequestStream::new(&session);
    let refused = patched(wire::CMD_WRITE, 0, wire::PAYLOAD_DEFAULT_MAX + 5);
    assert_eq!(stream.next(&session, &refused), Ok((28, Next::NeedMore)));
    let mut left = wire::PAYLOAD_DEFAULT_MAX as usize + 5;
    let noise = vec![0x25; 1 << 20];
    while left > 100 {
        assert_eq!(stream.skipping(), left as u64);
        let part = &noise[..noise.len().min(left - 100)];
        assert_eq!(stream.next(&session, part), Ok((part.len(), Next::NeedMore)));
        left -= part.len();
    }
    let tail = [&noise[..100], &patched(wire::CMD_READ, 0, 1)].concat();
    let (used, next) = stream.next(&session, &tail).unwrap();
    assert_eq!(used, 100, "answered only once the client has sent all of it");
    assert!(matches!(next, Next::Rejected(Rejected { reason: RejectReason::TooLarge, .. })));
    let (used, next) = stream.next(&session, &tail[100..]).unwrap();
    assert_eq!((used, stream.skipping()), (28, 0));
    assert!(matches!(next, Next::Request(Request { length: 1, .. })));
}

/// A compact request without flags.
fn patched(command: u16, offset: u64, length: u32) -> Vec<u8> {
    let mut raw = compact(command, length);
    raw[4..6].fill(0);
    raw[16..24].copy_from_slice(&offset.to_be_bytes());
    raw
}
