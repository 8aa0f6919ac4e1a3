//! Tests of the label: round trips, every flipped bit, hostile tables.

use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

use super::*;
use crate::format::samples::label;

/// A label with a checksum that fits and something changed.
fn changed(change: impl FnOnce(&mut RawLabel)) -> Result<Label, LabelError> {
    let mut buf = label(4 << 20).encode();
    change(RawLabel::mut_from_bytes(buf.bytes_mut()).unwrap());
    seal(buf.bytes_mut(), CRC_AT);
    Label::decode(&buf)
}

fn is_lie(result: &Result<Label, LabelError>) -> bool {
    matches!(result, Err(LabelError::Inconsistent(_)))
}

#[test]
fn labels_come_back_at_every_size() {
    for size in [DISK_SIZE_MIN, 4_000_001, 64 << 20, 18_000_000_000, 1 << 50, DISK_SIZE_MAX] {
        let label = label(size);
        let buf = label.encode();
        assert_eq!(buf.len(), 4096);
        assert_eq!(Label::decode(&buf), Ok(label));
    }
}

#[test]
fn other_blocks_are_told_apart() {
    assert_eq!(Label::decode(&[0; 4096]), Err(LabelError::NotOurs));
    assert_eq!(Label::decode(&[]), Err(LabelError::NotOurs));
    let buf = label(4 << 20).encode();
    assert_eq!(Label::decode(&buf[..4095]), Err(LabelError::NotOurs));
    let mut damaged = Buf::copy_of(&buf);
    damaged.bytes_mut()[4000] ^= 1;
    assert_eq!(Label::decode(&damaged), Err(LabelError::Damaged));
}

#[test]
fn a_newer_label_is_refused_and_says_what_is_new() {
    let newer = changed(|raw| raw.version.set(2)).unwrap_err();
    assert!(newer.to_string().contains("format 2"), "{newer}");
    let feature = changed(|raw| raw.incompatible.set(0x10)).unwrap_err();
    assert!(feature.to_string().contains("0x10"), "{feature}");
}

#[test]
fn compatible_features_are_ignored_and_read_only_ones_reported() {
    let plain = changed(|raw| raw.compatible.set(u64::MAX)).unwrap();
    assert_eq!(plain, label(4 << 20));
    let read_only = changed(|raw| raw.read_only.set(6)).unwrap();
    assert_eq!(read_only.unknown_read_only, 6);
}

#[test]
fn an_unknown_region_is_skipped_but_must_lie_apart() {
    let add = |offset: u64| {
        changed(|raw| {
            let count = raw.region_count.get() as usize;
            raw.region_count.set(count as u32 + 1);
            raw.regions[count].kind.set(99);
            raw.regions[count].offset.set(offset);
            raw.regions[count].len.set(4096);
        })
    };
    assert!(is_lie(&add(0)), "overlaps the label");
    // The data space of a disk of 4 MiB ends before the last block; what is between belongs to nobody.
    assert!(add(label(4 << 20).layout.data.end()).is_ok());
}

#[test]
fn tables_that_cannot_be_are_refused() {
    let table = |index: usize, offset: u64, len: u64| {
        changed(|raw| {
            raw.regions[index].offset.set(offset);
            raw.regions[index].len.set(len);
        })
    };
    assert!(is_lie(&table(0, 4096, 4096)), "overlap");
    assert!(is_lie(&table(3, u64::MAX - 4095, 4096)), "overflow");
    assert!(is_lie(&table(3, 4 << 20, 4096)), "outside");
    assert!(is_lie(&table(3, 8192, 0)), "empty");
    assert!(is_lie(&table(3, 8193, 4096)), "misaligned");
    assert!(is_lie(&table(3, 8192, 4096)), "configuration slot too small");
    assert!(is_lie(&changed(|raw| raw.region_count.set(33))));
    assert!(is_lie(&changed(|raw| raw.region_count.set(u32::MAX))));
    assert!(is_lie(&changed(|raw| raw.region_count.set(5))), "regions missing");
    assert!(is_lie(&changed(|raw| raw.regions[4].place.set(0))), "twice the same");
    assert!(is_lie(&changed(|raw| raw.disk_size.set(0))));
    assert!(is_lie(&changed(|raw| raw.disk_size.set(u64::MAX))));
    assert!(is_lie(&changed(|raw| raw.disk_size.set(5 << 20))), "copy not in the last block");
    assert!(is_lie(&changed(|raw| raw.version.set(0))));
}

#[test]
fn numbers_and_names_are_checked() {
    assert!(is_lie(&changed(|raw| raw.number.set(0))));
    assert!(is_lie(&changed(|raw| raw.number.set(1025))));
    assert!(is_lie(&changed(|raw| raw.name = [b'x'; NAME_LEN])), "64 bytes");
    assert!(is_lie(&changed(|raw| raw.name = [0; NAME_LEN])), "empty");
    assert!(is_lie(&changed(|raw| raw.name[1] = 7)), "control character");
    assert!(is_lie(&changed(|raw| raw.name[40] = b'x')), "bytes behind the end");
}

proptest! {
    #[test]
    fn every_flipped_bit_is_found(bit in 0_usize..4096 * 8) {
        let mut buf = label(4 << 20).encode();
        buf.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Label::decode(&buf).is_err());
    }

    #[test]
    fn sealed_garbage_never_panics(seed in proptest::collection::vec(any::<u8>(), 4096)) {
        let mut raw = RawLabel::read_from_bytes(&seed).unwrap();
        raw.magic = MAGIC;
        let mut bytes = raw.as_bytes().to_vec();
        seal(&mut bytes, CRC_AT);
        prop_assert!(Label::decode(&bytes).is_err());
    }
}
