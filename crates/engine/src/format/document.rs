//! `docs/on-disk-format.md` against the code.
//!
//! Owns the test that reads the document's tables. Records are encoded with known values and read back at the offsets that the document gives;
//! lists of typed fields are walked through encoded sections, which they must use up exactly.

use std::collections::BTreeMap;
use std::mem::offset_of;

use super::codec::{CRC_AT, Reader};
use super::label::{RawLabel, RawRegion, RegionKind, named_regions};
use super::layout::Layout;
use super::{config, events, journal, label, layout, log, owner, page, samples};
use crate::ids::{BLOCK_SIZE, Slot, Uuid};
use crate::report::{Event, Severity};

const DOCUMENT: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/on-disk-format.md"));

/// Rows of all tables below `heading` (up to the next heading) whose head starts with the column `first`.
fn rows(heading: &str, first: &str) -> Vec<Vec<&'static str>> {
    let mut inside = false;
    let mut wanted = false;
    let mut rows = Vec::new();
    for line in DOCUMENT.lines() {
        if line.starts_with('#') {
            inside = line.trim_start_matches('#').trim() == heading;
        }
        let Some(cells) = line.strip_prefix("| ").filter(|_| inside) else {
            wanted &= line.starts_with("|--");
            continue;
        };
        let cells: Vec<&str> = cells.trim_end_matches('|').split(" | ").map(str::trim).collect();
        if wanted {
            rows.push(cells);
        } else {
            wanted = cells[0] == first;
        }
    }
    assert!(!rows.is_empty(), "no table {first} below {heading}");
    rows
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text} is not a number"))
}

/// The fields of a record: offset and length by name.
fn fields(heading: &str) -> BTreeMap<&'static str, (usize, usize)> {
    let row = |row: Vec<&'static str>| (row[2], (number(row[0]) as usize, number(row[1]) as usize));
    rows(heading, "offset").into_iter().map(row).collect()
}

/// Checks that `record` holds each of `values` where the document says, and that the document names no other field.
fn assert_record(heading: &str, record: &[u8], values: &[(&str, &[u8])]) {
    let fields = fields(heading);
    for (name, value) in values {
        let &(offset, len) = fields.get(name).unwrap_or_else(|| panic!("{heading} lacks {name}"));
        assert_eq!(&record[offset..offset + len], *value, "{heading}: {name}");
    }
    assert_eq!(fields.len(), values.len(), "{heading} names other fields");
}

#[test]
fn constants_are_those_of_the_code() {
    let known = BTreeMap::from([
        ("BLOCK_SIZE", BLOCK_SIZE),
        ("CRC_AT", CRC_AT as u64),
        ("FORMAT_VERSION", label::FORMAT_VERSION.into()),
        ("VERSION", config::VERSION.into()),
        ("DISK_SIZE_MIN", layout::DISK_SIZE_MIN),
        ("DISK_SIZE_MAX", layout::DISK_SIZE_MAX),
        ("SMALL_DISK", layout::SMALL_DISK),
        ("DATA_UNIT", layout::DATA_UNIT),
        ("REGIONS_MAX", label::REGIONS_MAX as u64),
        ("DISKS_MAX", label::DISKS_MAX.into()),
        ("CONFIG_HEADER", config::CONFIG_HEADER as u64),
        ("PAGE_HEADER", page::PAGE_HEADER as u64),
        ("PAGE_PAYLOAD", page::PAGE_PAYLOAD as u64),
        ("PAGE_BITS", page::PAGE_BITS as u64),
        ("LOST_PAGES", page::LOST_PAGES as u64),
        ("LOST_PER_PAGE", page::LOST_PER_PAGE as u64),
        ("UNWRITTEN_UNIT", layout::UNWRITTEN_UNIT),
        ("CHECKSUM_LEN", layout::CHECKSUM_LEN),
        ("EVENTS_HEADER", events::EVENTS_HEADER as u64),
        ("KIND_MAX", events::KIND_MAX as u64),
        ("MESSAGE_MAX", events::MESSAGE_MAX as u64),
        ("FRAME_HEADER", journal::FRAME_HEADER as u64),
        ("RECORDS_LEN", journal::RECORDS_LEN as u64),
        ("ENTRY_LEN", log::ENTRY_LEN as u64),
        ("MARK_LEN", log::MARK_LEN as u64),
        ("MARKS", log::MARKS),
        ("ENTRIES_PER_PAGE", log::ENTRIES_PER_PAGE),
    ]);
    let rows = rows("1. Every record begins alike", "constant");
    let told: BTreeMap<&str, u64> = rows.iter().map(|row| (row[0], number(row[1]))).collect();
    assert_eq!(told, known);
}

/// A region's name in the document.
fn region_name(kind: RegionKind) -> String {
    format!("{kind:?}").to_lowercase()
}

#[test]
fn regions_are_those_of_the_code() {
    let (small, large) = (Layout::for_size(4 << 20).unwrap(), Layout::for_size(1 << 40).unwrap());
    let mut kinds: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    let mut known = BTreeMap::new();
    for ((kind, place, on_small), (.., on_large)) in
        named_regions(&small).into_iter().zip(named_regions(&large))
    {
        let name = region_name(kind);
        kinds.entry(name.clone()).or_insert((kind as u64, 0)).1 += 1;
        known.insert(
            format!("{name} {place}"),
            [on_small.offset, on_small.len, on_large.offset, on_large.len],
        );
    }
    let told = rows("2. Regions", "kind");
    let told: BTreeMap<String, (u64, u64)> =
        told.iter().map(|row| (row[1].to_owned(), (number(row[0]), number(row[2])))).collect();
    assert_eq!(told, kinds);
    let told = rows("Where they lie, for two sizes", "region");
    let told: BTreeMap<String, [u64; 4]> = told
        .iter()
        .map(|row| (row[0].to_owned(), std::array::from_fn(|at| number(row[at + 1]))))
        .collect();
    assert_eq!(told, known);
}

#[test]
fn the_label_is_that_of_the_code() {
    let mut known = BTreeMap::new();
    macro_rules! field {
        ($type:ident: $($name:ident)*) => {$(
            let raw = <$type as zerocopy::FromZeros>::new_zeroed();
            known.insert(stringify!($name), (offset_of!($type, $name), size_of_val(&raw.$name)));
        )*};
    }
    field!(RawLabel: magic version crc compatible read_only incompatible array disk number);
    field!(RawLabel: region_count disk_size created_ms name regions reserved);
    assert_eq!(fields("3. Label"), known);
    known.clear();
    field!(RawRegion: kind place offset len);
    assert_eq!(fields("Entry of the region table"), known);
    assert!(DOCUMENT.contains(std::str::from_utf8(&label::MAGIC).unwrap()));
}

#[test]
fn small_records_are_those_of_the_code() {
    let crc = |record: &[u8]| record[CRC_AT..CRC_AT + 4].to_vec();
    let owner = owner::Owner {
        machine: [3; 16],
        owner: u128::from_le_bytes([4; 16]),
        beat: 5,
        period_ms: 6,
        started_ms: 7,
    };
    let record = owner.encode();
    assert_record(
        "4. Owner",
        &record,
        &[
            ("magic", &owner::MAGIC),
            ("period_ms", &6_u32.to_le_bytes()),
            ("crc", &crc(&record)),
            ("machine", &[3; 16]),
            ("owner", &[4; 16]),
            ("beat", &5_u64.to_le_bytes()),
            ("started_ms", &7_u64.to_le_bytes()),
        ],
    );
    let payload = [0xab; page::PAGE_PAYLOAD];
    let record = page::encode(page::PageKind::Cursor, Uuid([9; 16]), 11, 12, &payload);
    assert_record(
        "6. Map pages",
        &record,
        &[
            ("magic", &page::MAGIC),
            ("kind", &(page::PageKind::Cursor as u32).to_le_bytes()),
            ("crc", &crc(&record)),
            ("group", &[9; 16]),
            ("index", &11_u64.to_le_bytes()),
            ("generation", &12_u64.to_le_bytes()),
            ("payload", &payload),
        ],
    );
    let run = page::LostRun { slot: Slot(13), start: 14, count: 15 };
    assert_record(
        "Lost run",
        &page::encode_lost(&[run])[page::LOST_COUNT_LEN..],
        &[
            ("start", &14_u64.to_le_bytes()),
            ("count", &15_u32.to_le_bytes()),
            ("slot", &[13]),
            ("reserved", &[0; 3]),
        ],
    );
}

/// Walks the fields of `item`, as the document gives them, through `reader`.
fn walk(reader: &mut Reader<'_>, items: &[Vec<&str>], item: &str) {
    let mut dropped = false;
    for row in items.iter().filter(|row| row[0] == item) {
        match row[2] {
            "u8" => dropped = (reader.u8().unwrap() != 0) & (row[1] == "service"),
            "u32" => drop(reader.u32().unwrap()),
            "u64" => drop(reader.u64().unwrap()),
            "u64 if dropped" if dropped => drop(reader.u64().unwrap()),
            "u64 if dropped" => {}
            "flag" => drop(reader.flag("flag").unwrap()),
            "uuid" => drop(reader.array::<16>().unwrap()),
            "string" => drop(reader.string(1024, "string").unwrap()),
            list => {
                let of = list.strip_prefix("list of ").unwrap_or_else(|| panic!("type {list}"));
                walk_list(reader, items, of);
            }
        }
    }
}

fn walk_list(reader: &mut Reader<'_>, items: &[Vec<&str>], item: &str) {
    assert!(items.iter().any(|row| row[0] == item), "no item {item}");
    for _ in 0..reader.u32().unwrap() {
        walk(reader, items, item);
    }
}

#[test]
fn the_configuration_is_that_of_the_code() {
    let sample = samples::configuration();
    let record = config::encode(&sample, 1 << 20).unwrap();
    let heading = "5. Configuration slot";
    let (at, _) = fields(heading)["payload_len"];
    let len: [u8; 4] = record[at..at + 4].try_into().unwrap();
    assert_record(
        heading,
        &record,
        &[
            ("magic", &config::MAGIC),
            ("version", &config::VERSION.to_le_bytes()),
            ("crc", &record[CRC_AT..CRC_AT + 4]),
            ("array", &sample.array.0),
            ("generation", &sample.generation.to_le_bytes()),
            ("payload_len", &len),
        ],
    );
    let items = rows(heading, "item");
    let payload = &record[config::CONFIG_HEADER..][..u32::from_le_bytes(len) as usize];
    let mut reader = Reader::new(payload);
    for row in rows(heading, "tag") {
        assert_eq!(u64::from(reader.u16().unwrap()), number(row[0]), "tag of {}", row[1]);
        let ignorable = ["health", "retired", "failed_tests"].contains(&row[1]);
        let flags = if ignorable { config::SECTION_MAY_IGNORE } else { 0 };
        assert_eq!(reader.u16(), Ok(flags), "flags of {}", row[1]);
        let len = reader.u32().unwrap() as usize;
        let mut body = Reader::new(reader.bytes(len).unwrap());
        if row[2].starts_with("list of") {
            walk_list(&mut body, &items, row[1]);
        } else {
            walk(&mut body, &items, row[1]);
        }
        assert_eq!(body.left(), 0, "section {} has more than the document says", row[1]);
    }
    assert_eq!(reader.left(), 0);
}

#[test]
fn events_are_those_of_the_code() {
    let event = Event {
        sequence: 1,
        at_ms: 2,
        severity: Severity::Critical,
        kind: "word".into(),
        disk: None,
        group: None,
        message: "words".into(),
    };
    let (record, count) = events::encode_page(Uuid([5; 16]), 9, &[event.clone(), event]);
    let heading = "7. Page of events";
    let (at, _) = fields(heading)["payload_len"];
    let len: [u8; 4] = record[at..at + 4].try_into().unwrap();
    assert_record(
        heading,
        &record,
        &[
            ("magic", &events::MAGIC),
            ("count", &(count as u32).to_le_bytes()),
            ("crc", &record[CRC_AT..CRC_AT + 4]),
            ("array", &[5; 16]),
            ("sequence", &9_u64.to_le_bytes()),
            ("payload_len", &len),
        ],
    );
    let items = rows(heading, "item");
    let payload = &record[events::EVENTS_HEADER..][..u32::from_le_bytes(len) as usize];
    let mut reader = Reader::new(payload);
    walk(&mut reader, &items, "event");
    walk(&mut reader, &items, "event");
    assert_eq!(reader.left(), 0, "an event has more than the document says");
}

#[test]
fn entries_and_marks_of_a_log_are_those_of_the_code() {
    let entry = log::LogEntry {
        kind: log::EntryKind::Cleared,
        log: 1,
        volume: 2,
        block: 3,
        sequence: 4,
        durable: 5,
        payload: 6,
    };
    let bytes = entry.encode();
    assert_record(
        "Entry",
        &bytes,
        &[
            ("crc", &bytes[..4]),
            ("payload", &6_u32.to_le_bytes()),
            ("kind", &[3]),
            ("reserved", &[0; 3]),
            ("volume", &2_u32.to_le_bytes()),
            ("log", &1_u64.to_le_bytes()),
            ("block", &3_u64.to_le_bytes()),
            ("sequence", &4_u64.to_le_bytes()),
            ("durable", &5_u64.to_le_bytes()),
        ],
    );
    let bytes = log::LogMark { log: 1, durable: 2, fresh: 3 }.encode();
    assert_record(
        "Mark",
        &bytes,
        &[
            ("crc", &bytes[..4]),
            ("reserved", &[0; 4]),
            ("log", &1_u64.to_le_bytes()),
            ("durable", &2_u64.to_le_bytes()),
            ("fresh", &3_u64.to_le_bytes()),
        ],
    );
}

#[test]
fn frames_of_the_journal_are_those_of_the_code() {
    let piece = journal::Piece { slot: Slot(7), has_payload: true, start: 8, crcs: vec![9, 10] };
    let records = vec![journal::Record { index: 6, pieces: vec![piece] }];
    let frame = journal::Frame { epoch: 1, batch: 2, tail: 3, place: 4, payload: 5, records };
    let bytes = frame.encode(Uuid([5; 16]));
    let heading = "9. Journal";
    let (at, len) = fields(heading)["records"];
    assert_record(
        heading,
        &bytes,
        &[
            ("magic", &journal::MAGIC),
            ("payload", &5_u32.to_le_bytes()),
            ("crc", &bytes[CRC_AT..CRC_AT + 4]),
            ("group", &[5; 16]),
            ("epoch", &1_u64.to_le_bytes()),
            ("batch", &2_u64.to_le_bytes()),
            ("tail", &3_u64.to_le_bytes()),
            ("place", &4_u64.to_le_bytes()),
            ("count", &1_u32.to_le_bytes()),
            ("reserved", &[0; 4]),
            ("records", &bytes[at..at + len]),
        ],
    );
    let mut reader = Reader::new(&bytes[at..]);
    for row in rows(heading, "item") {
        match row[2] {
            "u8" => assert_eq!(reader.u8(), Ok(7)),
            "flag" => assert_eq!(reader.flag("flag"), Ok(true)),
            "u16" => drop(reader.u16().unwrap()),
            "u64" => assert_eq!(reader.u64(), Ok(8)),
            "u32 per block" => assert_eq!([reader.u32(), reader.u32()], [Ok(9), Ok(10)]),
            other => panic!("type {other}"),
        }
    }
    assert!(reader.bytes(reader.left()).unwrap().iter().all(|b| *b == 0), "a record has more");
}
