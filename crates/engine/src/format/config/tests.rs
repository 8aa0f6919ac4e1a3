//! Tests of the configuration's bytes: round trips, every flipped bit, truncation, newer sections, values that cannot be.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::{
    BackupPlace, BackupTable, DiskRole, Extent, FailedTest, HealthTable, Service, Strategy,
};
use crate::format::samples::configuration;
use crate::ids::{DiskNumber, GroupNumber, Slot, VolumeNumber};

const SLOT: u64 = 16 << 10;

/// The sections of the sample as they stand in the payload.
fn payload() -> Vec<u8> {
    let slot = encode(&configuration(), SLOT).unwrap();
    let len = u32::from_le_bytes(slot[40..44].try_into().unwrap()) as usize;
    slot[CONFIG_HEADER..CONFIG_HEADER + len].to_vec()
}

fn decode_payload(payload: &[u8]) -> Result<Configuration, ConfigError> {
    decode(&frame(configuration().array, 9, payload))
}

#[test]
fn a_configuration_comes_back_whatever_is_behind_it() {
    let config = configuration();
    let buf = encode(&config, SLOT).unwrap();
    assert!(buf.len().is_multiple_of(4096));
    assert_eq!(decode(&buf), Ok(config.clone()));
    let mut slot = vec![0xee; SLOT as usize];
    slot[..buf.len()].copy_from_slice(&buf);
    assert_eq!(decode(&slot), Ok(config));
}

#[test]
fn blank_torn_and_foreign_slots_are_told_apart() {
    assert_eq!(decode(&[0; 4096]), Err(ConfigError::Blank));
    assert_eq!(decode(&[]), Err(ConfigError::Damaged));
    assert_eq!(decode(&[9; 4096]), Err(ConfigError::Damaged));
    let buf = encode(&configuration(), SLOT).unwrap();
    let used = CONFIG_HEADER + payload().len();
    for len in 0..used {
        assert_eq!(decode(&buf[..len]), Err(ConfigError::Damaged), "cut to {len}");
    }
}

#[test]
fn a_configuration_too_large_for_its_slot_is_refused() {
    let mut config = configuration();
    assert!(encode(&config, 4096).is_ok());
    config.disks[0].path_hint = "x".repeat(255);
    config.uncounted = vec![(1..=1000).map(DiskNumber).collect()];
    let error = encode(&config, 4096).unwrap_err();
    assert_eq!(error, EncodeError::TooLarge { needed: 8192, slot: 4096 });
}

#[test]
fn a_large_array_fits_its_slot() {
    let mut config = configuration();
    config.disks.extend((8..=500).map(crate::format::samples::disk));
    assert!(encode(&config, 256 << 10).is_ok());
    let mut small = configuration();
    small.disks.extend((8..=64).map(crate::format::samples::disk));
    assert!(encode(&small, SLOT).is_ok(), "64 disks fit the slot of a small disk");
}

#[test]
fn an_unknown_section_is_ignored_only_if_it_may_be() {
    let with = |flags: u16| {
        let mut writer = Writer::new();
        writer.u16(77).u16(flags).u32(3).bytes(b"new").bytes(&payload());
        decode_payload(&writer.finish())
    };
    assert_eq!(with(SECTION_MAY_IGNORE), Ok(configuration()));
    let error = with(0).unwrap_err();
    assert!(matches!(&error, ConfigError::TooNew(what) if what.contains("77")), "{error}");
    let mut newer = encode(&configuration(), SLOT).unwrap();
    newer.bytes_mut()[8] = 2;
    let used = CONFIG_HEADER + payload().len();
    seal(&mut newer.bytes_mut()[..used], CRC_AT);
    assert!(matches!(decode(&newer), Err(ConfigError::TooNew(_))));
}

/// Bytes of a section and all that follow it.
fn from_section(payload: &[u8], wanted: Section) -> usize {
    let mut reader = Reader::new(payload);
    loop {
        let left = reader.left();
        let (tag, _, len) =
            (reader.u16().unwrap(), reader.u16().unwrap(), reader.u32().unwrap() as usize);
        reader.bytes(len).unwrap();
        if tag == wanted as u16 {
            return left;
        }
    }
}

#[test]
fn sections_stand_once_each() {
    let whole = payload();
    assert!(decode_payload(&whole).is_ok());
    assert!(matches!(decode_payload(&[]), Err(ConfigError::Unreadable(_))));
    let twice = [&whole[..], &whole[..]].concat();
    assert!(matches!(decode_payload(&twice), Err(ConfigError::Unreadable(_))));
    let without = |section| whole.len() - from_section(&whole, section);
    let (no_health, no_backups) = (without(Section::Health), without(Section::Backups));
    let (no_retired, no_failed) = (without(Section::Retired), without(Section::FailedTests));
    let optional = [no_health, no_backups, no_retired, no_failed];
    for len in (1..whole.len()).filter(|len| !optional.contains(len)) {
        assert!(decode_payload(&whole[..len]).is_err(), "cut to {len}");
    }
    let passed = Configuration { failed_tests: BTreeMap::new(), ..configuration() };
    assert_eq!(decode_payload(&whole[..no_failed]), Ok(passed.clone()));
    assert_eq!(decode(&encode(&passed, SLOT).unwrap()), Ok(passed.clone()));
    let tested = Configuration { retired: BTreeMap::new(), ..passed };
    assert_eq!(decode_payload(&whole[..no_retired]), Ok(tested.clone()));
    assert_eq!(decode(&encode(&tested, SLOT).unwrap()), Ok(tested.clone()));
    let unshielded = Configuration { backups: BackupTable::default(), ..tested };
    assert_eq!(decode_payload(&whole[..no_backups]), Ok(unshielded.clone()));
    let older = Configuration { health: HealthTable::default(), ..unshielded.clone() };
    assert_eq!(decode_payload(&whole[..no_health]), Ok(older));
    let encoded = encode(&unshielded, SLOT).unwrap();
    assert_eq!(decode(&encoded), Ok(unshielded), "an empty table is left out and read as empty");
}

type Spoil = fn(&mut Configuration);

#[test]
fn what_contradicts_itself_is_neither_written_nor_read() {
    let cases: [(&str, Spoil); 47] = [
        ("a disk to be tested that does not exist", |c| {
            c.retired.insert(DiskNumber(99), (GroupNumber(1), Slot(0)));
        }),
        ("a disk to be tested of no group", |c| {
            c.retired.insert(DiskNumber(6), (GroupNumber(9), Slot(0)));
        }),
        ("a disk to be tested of no slot", |c| {
            c.retired.insert(DiskNumber(6), (GroupNumber(1), Slot(4)));
        }),
        ("a suspect that does not exist", |c| c.backups.suspected.push(DiskNumber(99))),
        ("a leg that is no leg", |c| c.disks[5].role = DiskRole::Free),
        ("a set named like a disk", |c| {
            c.backups.work[0].place = BackupPlace::WorkDisk(DiskNumber(6))
        }),
        ("a place twice", |c| c.backups.work[1] = c.backups.work[0].clone()),
        ("a shield over no group", |c| c.backups.avoidances[0].group = GroupNumber(9)),
        ("a backup without a log", |c| c.backups.work[1].log = 0),
        ("a strategy for no volume", |c| {
            c.backups.strategies.insert(VolumeNumber(99), Strategy::Pair);
        }),
        ("a pair that is a place for a log", |c| {
            c.backups.work[1].place = BackupPlace::Pair(VolumeNumber(1));
        }),
        ("another volume's pair", |c| {
            c.backups.avoidances[0].volumes[0].volume = VolumeNumber(2);
        }),
        ("a volume in two pairs", |c| {
            c.backups.pairs[0].secondary = VolumeNumber(1);
        }),
        ("a pair of nothing", |c| c.backups.pairs[0].secondary = VolumeNumber(9)),
        ("a pair in one group", |c| c.backups.pairs[0].secondary = VolumeNumber(2)),
        ("a bitmap outside its group", |c| c.backups.pairs[0].bitmap[0].stripes = u64::MAX),
        ("a bitmap over its secondary", |c| c.backups.pairs[0].bitmap[0].start = 0),
        ("a temporary pair reversed", |c| c.backups.pairs[0].reversed = true),
        ("a reversed pair that backs nothing", |c| {
            (c.backups.pairs[0].reversed, c.backups.pairs[0].temporary) = (true, false);
            c.backups.avoidances.clear();
        }),
        ("counted ahead", |c| c.counted_generation = 9),
        ("array name", |c| c.name = "tab\there".into()),
        ("array name empty", |c| c.name = String::new()),
        ("no history", |c| c.history.clear()),
        ("history ahead", |c| c.history[2].first_generation = 10),
        ("history order", |c| c.history[1].first_generation = 1),
        ("history at 0", |c| c.history[0].first_generation = 0),
        ("current run", |c| c.history[2].id = 0),
        ("run twice", |c| c.history[2].id = 11),
        ("uncounted empty", |c| c.uncounted.push(Vec::new())),
        ("uncounted order", |c| c.uncounted[0].reverse()),
        ("disk twice", |c| c.disks[1].number = DiskNumber(1)),
        ("disk 0", |c| c.disks[0].number = DiskNumber(0)),
        ("disk uuid", |c| c.disks[1].uuid = c.disks[0].uuid),
        ("disk path", |c| c.disks[1].path_hint = "x".repeat(256)),
        ("dropped at 0", |c| {
            let reason = crate::config::DropReason::Missing;
            c.disks[1].service = Service::Dropped { history: 1, generation: 0, reason, at_ms: 0 };
        }),
        ("nobody in service", |c| {
            let dropped = c.disks[1].service;
            c.disks.iter_mut().for_each(|disk| disk.service = dropped);
        }),
        ("chunk", |c| c.groups[0].chunk = 65_537),
        ("stripes beyond members", |c| c.groups[0].stripes = 49),
        ("intent region", |c| c.groups[0].intent_region = 32 << 10),
        ("unwritten unit", |c| c.groups[0].unwritten_unit = 0),
        ("journal of a mirror", |c| {
            c.groups[0].level = crate::config::Level::Raid1;
            c.groups[0].journal = crate::config::JournalMode::Partial;
        }),
        ("slot's disk", |c| c.groups[0].slots[0].disk = DiskNumber(99)),
        ("disk in two slots", |c| c.groups[0].slots[0].disk = DiskNumber(5)),
        ("volume name twice", |c| c.volumes[1].name = "a".into()),
        ("volume's group", |c| c.volumes[1].group = GroupNumber(9)),
        ("extents overlap", |c| c.volumes[1].extents[0].stripes = 5),
        ("extent outside", |c| {
            c.volumes[0].extents.push(Extent { start: u64::MAX, stripes: 2 });
        }),
    ];
    for (what, spoil) in cases {
        let mut config = configuration();
        spoil(&mut config);
        let encoded = encode(&config, 1 << 20);
        assert!(matches!(encoded, Err(EncodeError::Invalid(_))), "{what}: {encoded:?}");
        let mut writer = Writer::new();
        for (tag, body) in sections::write(&config) {
            writer.u16(tag as u16).u16(0).u32(body.len() as u32).bytes(&body);
        }
        let decoded = decode(&frame(config.array, config.generation, &writer.finish()));
        assert!(decoded.is_err(), "{what}: {decoded:?}");
    }
    for (size, fits) in
        [(0, false), (511, false), (4 * 2 * 65536, true), (4 * 2 * 65536 + 512, false)]
    {
        let mut config = configuration();
        config.volumes[1].size = size;
        assert_eq!(encode(&config, SLOT).is_ok(), fits, "a volume of {size} bytes");
    }
}

#[test]
fn a_failed_test_is_that_of_a_disk_in_few_words() {
    let test = configuration().failed_tests[&DiskNumber(6)].clone();
    let with = |disk, why| {
        let mut config = configuration();
        config.failed_tests.insert(DiskNumber(disk), FailedTest { why, ..test.clone() });
        encode(&config, SLOT)
    };
    assert!(with(6, "x".repeat(255)).is_ok());
    assert!(with(6, "x".repeat(256)).is_err(), "too many words");
    assert!(with(99, "x".into()).is_err(), "no such disk");
}

#[test]
fn names_are_printable_and_short() {
    for good in ["a", "tank 1", "größe", "x/y-z_1.2", &"n".repeat(63)] {
        assert!(name_is_valid(good), "{good}");
    }
    for bad in ["", " a", "a ", "a\n", "a\u{202e}b", "\u{7f}", &"n".repeat(64)] {
        assert!(!name_is_valid(bad), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn a_flipped_bit_is_found_or_harmless(bit in 0_usize..4096 * 8) {
        let config = configuration();
        let mut buf = encode(&config, SLOT).unwrap();
        buf.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
        if let Ok(decoded) = decode(&buf) {
            prop_assert!(bit / 8 >= CONFIG_HEADER + payload().len());
            prop_assert_eq!(decoded, config);
        }
    }

    /// Past the checksum: whatever the fields say, decoding ends, and what it gives can be written again.
    #[test]
    fn changed_payloads_never_panic(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let mut payload = payload();
        for (at, value) in changes {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        if let Ok(config) = decode_payload(&payload) {
            let again = encode(&config, 1 << 20).unwrap();
            prop_assert_eq!(decode(&again), Ok(config));
        }
    }
}

#[test]
fn a_record_tells_how_much_of_its_slot_it_takes() {
    let record = encode(&configuration(), 1 << 20).unwrap();
    let first = &record[..BLOCK_SIZE as usize];
    assert_eq!(record_len(first, 1 << 20), record.len() as u64);
    let mut long = first.to_vec();
    long[40..44].copy_from_slice(&10_000_u32.to_le_bytes());
    assert_eq!(record_len(&long, 1 << 20), 3 * BLOCK_SIZE);
    long[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(record_len(&long, 16384), 16384, "never more than the slot");
    assert_eq!(
        record_len(&[0; 4096], 16384),
        BLOCK_SIZE,
        "what is no record is known by its first block"
    );
    assert_eq!(record_len(&MAGIC, 16384), BLOCK_SIZE);
}
