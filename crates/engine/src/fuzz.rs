//! Entry points for fuzzing the decoders: any bytes in, no panic out.
//!
//! Owns nothing; each function feeds bytes to the decoders of one kind of record, as they are and again with a checksum that fits, so that
//! the fields behind the checksum are reached too.

use crate::format::codec::{CRC_AT, seal};
use crate::format::{
    config as configuration, events as log, label as labels, owner as owners, page as pages,
};
use crate::ids::{BLOCK_SIZE, Uuid};

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

/// Feeds `bytes` to the decoders of map pages and of the owner block.
pub fn page(bytes: &[u8]) {
    let _ = pages::decode_lost(bytes);
    let _ = pages::decode_cursors(bytes);
    for block in [bytes, &sealed_block(pages::MAGIC, bytes)] {
        let _ = pages::decode(block, pages::PageKind::Lost, Uuid([0; 16]), 0);
    }
    for block in [bytes, &sealed_block(owners::MAGIC, bytes)] {
        let _ = owners::Owner::decode(block);
    }
}

/// Feeds `bytes` to the decoder of event pages.
pub fn events(bytes: &[u8]) {
    for block in [bytes, &sealed_block(log::MAGIC, bytes)] {
        let _ = log::decode_page(block, Uuid([0; 16]));
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
        }
    }
}
