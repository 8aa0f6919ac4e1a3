//! Entry points for fuzzing the decoders: any bytes in, no panic out.
//!
//! Owns nothing; each function feeds bytes to the decoders of one kind of record, as they are and again with a checksum that fits, so that
//! the fields behind the checksum are reached too.

use crate::format::codec::{CRC_AT, seal};
use crate::format::log::{CRC_IN_ENTRY, ENTRY_LEN, LogEntry, LogMark, LogShape, MARK_LEN};
use crate::format::{
    config as configuration, events as event_log, journal as frames, label as labels,
    owner as owners, page as pages,
};
use crate::ids::{BLOCK_SIZE, Uuid};
use crate::pair::Bits;

/// Identities that the seeds carry.
const ID: Uuid = Uuid([0; 16]);
const LOG: u64 = 1;

/// `bytes` as a block that starts with `magic` and carries a checksum that fits.
fn sealed_block(magic: [u8; 8], bytes: &[u8]) -> Vec<u8> {
    let mut block = bytes.to_vec();
    block.resize(BLOCK_SIZE as usize, 0);
    block[..magic.len()].copy_from_slice(&magic);
    seal(&mut block, CRC_AT);
    block
}

/// Feeds `bytes` to the label decoder.
pub fn label(bytes: &[u8]) {
    let _ = labels::Label::decode(bytes);
    if let Ok(label) = labels::Label::decode(&sealed_block(labels::MAGIC, bytes)) {
        let again = labels::Label::decode(&label.encode());
        assert!(again.is_ok(), "what was decoded can be encoded: {again:?}");
    }
}

/// Feeds `bytes` to the configuration decoder, as a slot and as a payload behind a header that fits.
pub fn config(bytes: &[u8]) {
    let _ = configuration::decode(bytes);
    if let Ok(config) = configuration::decode(&configuration::frame(Uuid([1; 16]), 1, bytes)) {
        let slot =
            configuration::encode(&config, u64::MAX).expect("what was decoded can be encoded");
        assert_eq!(configuration::decode(&slot), Ok(config));
    }
}

/// Feeds `bytes` to the decoders of map pages, bitmaps of pairs among them, and of the owner block.
pub fn page(bytes: &[u8]) {
    use pages::PageKind::{Cursor, Differential, Intent, Lost, Unwritten};
    let _ = pages::decode_lost(bytes);
    let _ = pages::decode_cursors(bytes);
    for block in [bytes, &sealed_block(pages::MAGIC, bytes)] {
        for kind in [Intent, Unwritten, Lost, Cursor, Differential] {
            let Ok(page) = pages::decode(block, kind, ID, 0) else { continue };
            bits(page.payload);
            let _ = pages::decode_lost(page.payload);
            assert!(pages::decode_cursors(page.payload).is_ok(), "any payload holds cursors");
        }
    }
    for block in [bytes, &sealed_block(owners::MAGIC, bytes)] {
        let _ = owners::Owner::decode(block);
    }
}

/// A payload as bits of a pair that ends in the middle of its last page.
fn bits(payload: &[u8]) {
    let len = 2 * pages::PAGE_BITS as u64 - 100;
    let mut bits = Bits::new(len);
    bits.load(0, payload);
    bits.load(1, payload);
    let marked = bits.inside(0..len);
    assert_eq!(marked.len() as u64, bits.ones());
    assert_eq!(marked.first().copied(), bits.next(0..len));
    assert!(marked.last().is_none_or(|bit| *bit < len), "bits past the end are dropped");
}

/// Feeds `bytes` to the decoder of event pages.
pub fn events(bytes: &[u8]) {
    for block in [bytes, &sealed_block(event_log::MAGIC, bytes)] {
        let _ = event_log::decode_page(block, ID);
    }
}

/// Feeds `bytes` to the decoder of journal frames, and as a payload block through the disguise.
pub fn journal(bytes: &[u8]) {
    for block in [bytes, &sealed_block(frames::MAGIC, bytes)] {
        let Some(frame) = frames::Frame::decode(block, ID, 0) else { continue };
        let again = frames::Frame::decode(&frame.encode(ID), ID, 0);
        assert_eq!(again, Some(frame), "what was decoded can be encoded");
    }
    let mut payload = bytes.to_vec();
    let crc = crate::format::codec::crc32c(&payload);
    frames::disguise(&mut payload);
    assert!(frames::Frame::decode(&payload, ID, 0).is_none(), "a payload is no header");
    assert!(frames::undisguise(&mut payload, crc) && payload == bytes, "it comes back");
}

/// Feeds `bytes` to the decoders of log entries and marks, as they are and one by one with a checksum that fits; their length, as a number of
/// blocks, to the arithmetic of a log's shape.
pub fn log(bytes: &[u8]) {
    for entry in bytes.chunks(ENTRY_LEN) {
        let _ = LogEntry::decode(entry, LOG);
        let mut sealed = entry.to_vec();
        sealed.resize(ENTRY_LEN, 0);
        seal(&mut sealed, CRC_IN_ENTRY);
        if let Some(entry) = LogEntry::decode(&sealed, LOG) {
            assert_eq!(LogEntry::decode(&entry.encode(), LOG), Some(entry));
        }
    }
    let mut mark = bytes.to_vec();
    let _ = LogMark::decode(&mark, LOG);
    mark.resize(MARK_LEN, 0);
    seal(&mut mark, CRC_IN_ENTRY);
    if let Some(mark) = LogMark::decode(&mark, LOG) {
        assert_eq!(LogMark::decode(&mark.encode(), LOG), Some(mark));
    }
    let blocks = bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first)) / BLOCK_SIZE;
    if let Some(shape) = LogShape::of(blocks) {
        assert!(shape.marks()[1] < blocks * BLOCK_SIZE, "all of it is inside");
        assert!(LogShape::page_of(shape.slots) < shape.pages, "and has an entry");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            super::label(&bytes);
            super::config(&bytes);
            super::page(&bytes);
            super::events(&bytes);
            super::journal(&bytes);
            super::log(&bytes);
        }
    }
}
