//! The event log's ring: pages of events, the last ones kept on every disk.
//!
//! Owns the bytes of a page. Page `sequence` stands in block `sequence % blocks` of the region, so a new page overwrites the oldest. Invariants:
//! a page holds at least one event; every event fits into a page, because its words are cut to a limit. When pages are written is left to
//! the log; a page that is torn or damaged only loses its own events.

use thiserror::Error;

use super::codec::{CRC_AT, CodecError, Reader, Writer, is_blank, is_sealed, seal};
use crate::buf::Buf;
use crate::ids::{BLOCK_SIZE, DiskNumber, GroupNumber, Uuid};
use crate::report::{Event, Severity};

/// First bytes of a page of events.
pub const MAGIC: [u8; 8] = *b"FstlEvnt";
/// Bytes of a page's header.
pub const EVENTS_HEADER: usize = 64;
/// Most bytes of an event's kind; what is longer is cut.
pub const KIND_MAX: usize = 64;
/// Most bytes of an event's message; what is longer is cut.
pub const MESSAGE_MAX: usize = 1024;

const PAYLOAD: usize = BLOCK_SIZE as usize - EVENTS_HEADER;
/// Sequence, time, severity, disk, group and the lengths of two strings.
const EVENT_FIXED: usize = 8 + 8 + 1 + 4 + 4 + 2 + 2;

const _: () = assert!(EVENT_FIXED + KIND_MAX + MESSAGE_MAX <= PAYLOAD, "every event fits");

/// A valid page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventPage {
    /// The page's number over the array's life, from 1.
    pub sequence: u64,
    /// Its events, oldest first.
    pub events: Vec<Event>,
}

/// Why bytes are not a page of this array's events.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum EventPageError {
    /// All zero: never written.
    #[error("the page was never written")]
    Blank,
    /// A leftover of something else.
    #[error("the page is not of this array's event log")]
    Foreign,
    /// Torn or damaged.
    #[error("the page is torn or damaged")]
    Damaged,
}

/// Page number `sequence` with as many of `events`, from the first, as fit; also tells how many those are.
///
/// At least one event fits, so a caller that goes on with the rest comes to an end.
///
/// # Panics
/// If there is no event.
#[must_use]
pub fn encode_page(array: Uuid, sequence: u64, events: &[Event]) -> (Buf, usize) {
    assert!(!events.is_empty(), "a page of events is never empty");
    let mut payload = Vec::new();
    let mut count = 0;
    for event in events {
        let bytes = encode_event(event);
        if payload.len() + bytes.len() > PAYLOAD {
            break;
        }
        payload.extend_from_slice(&bytes);
        count += 1;
    }
    assert!(count > 0, "an event fits into a page");
    let mut header = Writer::new();
    header.bytes(&MAGIC).u32(count as u32).u32(0).bytes(&array.0).u64(sequence);
    header.u32(payload.len() as u32);
    let header = header.finish();
    let mut buf = Buf::zeroed(BLOCK_SIZE as usize);
    let bytes = buf.bytes_mut();
    bytes[..header.len()].copy_from_slice(&header);
    bytes[EVENTS_HEADER..EVENTS_HEADER + payload.len()].copy_from_slice(&payload);
    seal(bytes, CRC_AT);
    (buf, count)
}

/// The page in `bytes`, if it belongs to `array`.
///
/// # Errors
/// Says what the bytes are instead.
pub fn decode_page(bytes: &[u8], array: Uuid) -> Result<EventPage, EventPageError> {
    if bytes.len() != BLOCK_SIZE as usize {
        return Err(EventPageError::Damaged);
    }
    if is_blank(bytes) {
        return Err(EventPageError::Blank);
    }
    if !bytes.starts_with(&MAGIC) {
        return Err(EventPageError::Foreign);
    }
    if !is_sealed(bytes, CRC_AT) {
        return Err(EventPageError::Damaged);
    }
    let (found, page) = fields(bytes).map_err(|_| EventPageError::Damaged)?;
    if found == array { Ok(page) } else { Err(EventPageError::Foreign) }
}

fn fields(bytes: &[u8]) -> Result<(Uuid, EventPage), CodecError> {
    let (header, payload) = bytes.split_at(EVENTS_HEADER);
    let mut reader = Reader::new(&header[MAGIC.len()..]);
    let count = reader.u32()?;
    reader.u32()?;
    let array = Uuid(reader.array()?);
    let sequence = reader.u64()?;
    let len = reader.u32()? as usize;
    let mut reader = Reader::new(payload.get(..len).ok_or(CodecError::Truncated)?);
    let mut events = Vec::new();
    for _ in 0..count {
        events.push(decode_event(&mut reader)?);
    }
    reader.end()?;
    Ok((array, EventPage { sequence, events }))
}

fn encode_event(event: &Event) -> Vec<u8> {
    let severity = match event.severity {
        Severity::Info => 0,
        Severity::Warning => 1,
        Severity::Critical => 2,
    };
    let mut writer = Writer::new();
    writer.u64(event.sequence).u64(event.at_ms).u8(severity);
    writer.u32(event.disk.map_or(0, |disk| disk.0)).u32(event.group.map_or(0, |group| group.0));
    writer.string(cut(&event.kind, KIND_MAX)).string(cut(&event.message, MESSAGE_MAX));
    writer.finish()
}

fn decode_event(reader: &mut Reader<'_>) -> Result<Event, CodecError> {
    let (sequence, at_ms) = (reader.u64()?, reader.u64()?);
    let severity = match reader.u8()? {
        0 => Severity::Info,
        1 => Severity::Warning,
        2 => Severity::Critical,
        _ => return Err(CodecError::Value("severity")),
    };
    // Disks and groups are numbered from 1, so 0 stands for none.
    let number = |n: u32| (n != 0).then_some(n);
    Ok(Event {
        sequence,
        at_ms,
        severity,
        disk: number(reader.u32()?).map(DiskNumber),
        group: number(reader.u32()?).map(GroupNumber),
        kind: reader.string(KIND_MAX, "kind")?,
        message: reader.string(MESSAGE_MAX, "message")?,
    })
}

/// The longest start of `text` of at most `max` bytes that ends between two characters.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ARRAY: Uuid = Uuid([3; 16]);

    fn event(sequence: u64, message: &str) -> Event {
        Event {
            sequence,
            at_ms: 1_700_000_000_000 + sequence,
            severity: Severity::Warning,
            kind: "disk-failed".into(),
            disk: Some(DiskNumber(4)),
            group: None,
            message: message.into(),
        }
    }

    #[test]
    fn events_come_back_page_by_page() {
        let events: Vec<Event> = (1..=200).map(|n| event(n, "disk 4 failed: €")).collect();
        let mut back = Vec::new();
        let mut sequence = 1;
        while back.len() < events.len() {
            let (buf, count) = encode_page(ARRAY, sequence, &events[back.len()..]);
            let page = decode_page(&buf, ARRAY).unwrap();
            assert_eq!((page.sequence, page.events.len()), (sequence, count));
            back.extend(page.events);
            sequence += 1;
        }
        assert_eq!(back, events);
        assert!(sequence > 3, "200 events take several pages");
    }

    #[test]
    fn the_longest_event_fits_and_is_cut_between_characters() {
        let mut long = event(1, &"€".repeat(5000));
        long.kind = "k".repeat(500);
        let (buf, count) = encode_page(ARRAY, 1, &[long]);
        let page = decode_page(&buf, ARRAY).unwrap();
        assert_eq!(count, 1);
        assert_eq!(page.events[0].message, "€".repeat(MESSAGE_MAX / 3));
        assert_eq!(page.events[0].kind.len(), KIND_MAX);
    }

    #[test]
    fn leftovers_are_told_from_damage() {
        let (buf, _) = encode_page(ARRAY, 1, &[event(1, "")]);
        assert_eq!(decode_page(&buf, Uuid([4; 16])), Err(EventPageError::Foreign));
        assert_eq!(decode_page(&[0; 4096], ARRAY), Err(EventPageError::Blank));
        assert_eq!(decode_page(&[1; 4096], ARRAY), Err(EventPageError::Foreign));
        assert_eq!(decode_page(&buf[..100], ARRAY), Err(EventPageError::Damaged));
    }

    /// A page with a checksum that fits and a hostile field.
    fn hostile(change: impl FnOnce(&mut [u8])) -> Result<EventPage, EventPageError> {
        let (mut buf, _) = encode_page(ARRAY, 1, &[event(1, "abc")]);
        change(buf.bytes_mut());
        seal(buf.bytes_mut(), CRC_AT);
        decode_page(&buf, ARRAY)
    }

    #[test]
    fn hostile_counts_and_lengths_are_refused() {
        assert!(hostile(|_| ()).is_ok());
        assert!(hostile(|b| b[8..12].fill(0xff)).is_err(), "count");
        assert!(hostile(|b| b[40..44].fill(0xff)).is_err(), "payload length");
        assert!(hostile(|b| b[EVENTS_HEADER + 16] = 3).is_err(), "severity");
        assert!(hostile(|b| b[EVENTS_HEADER + 25] = 200).is_err(), "length of kind");
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_found(bit in 0_usize..4096 * 8) {
            let (mut buf, _) = encode_page(ARRAY, 9, &[event(1, "one"), event(2, "two")]);
            buf.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_page(&buf, ARRAY).is_err());
        }
    }
}
