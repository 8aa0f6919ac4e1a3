//! Arbitrary bytes: no panic, no unbounded buffer, and the same result however they arrive.
//!
//! The same checks as the fuzz targets run, here on a few hundred inputs each; half of them are
//! built from well-formed pieces, as random bytes alone rarely get past the first magic.

use forestall_nbd::fuzz;
use proptest::collection::vec;
use proptest::prelude::*;

fn option() -> impl Strategy<Value = Vec<u8>> {
    let data = prop_oneof![
        3 => vec(any::<u8>(), 0..40),
        1 => Just(b"\0\0\0\x01a\0\x02\0\x03\0\x01".to_vec()),
        1 => Just(b"\0\0\0\x01a\0\0\0\x01\0\0\0\x0fbase:allocation".to_vec()),
        1 => Just(vec![0; 20_000]),
    ];
    (0u32..13, data).prop_map(|(number, data)| {
        let length = (data.len() as u32).to_be_bytes();
        [b"IHAVEOPT", &number.to_be_bytes()[..], &length, &data].concat()
    })
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let length = prop_oneof![Just(0u32), 0u32..9000, any::<u32>()];
    let offset = prop_oneof![0u64..100_000, any::<u64>()];
    (any::<bool>(), 0u16..64, 0u16..9, any::<u64>(), offset, length, vec(any::<u8>(), 0..64))
        .prop_map(|(extended, flags, command, cookie, offset, length, tail)| {
            let mut request = Vec::new();
            request.extend(if extended { 0x21e4_1c71u32 } else { 0x2560_9513 }.to_be_bytes());
            request.extend(flags.to_be_bytes());
            request.extend(command.to_be_bytes());
            request.extend(cookie.to_be_bytes());
            request.extend(offset.to_be_bytes());
            if extended {
                request.extend([0; 4]);
            }
            request.extend(length.to_be_bytes());
            request.extend(tail);
            request
        })
}

/// A negotiation that succeeds without any extras, then chunk-like noise.
fn answers() -> impl Strategy<Value = Vec<u8>> {
    let reply = (
        7u32..12,
        prop_oneof![Just(1u32), Just(3), Just(4), Just(0x8000_0001)],
        vec(any::<u8>(), 0..30),
    )
        .prop_map(|(option, kind, data)| {
            let length = (data.len() as u32).to_be_bytes();
            let magic = b"\x00\x03\xe8\x89\x04\x55\x65\xa9";
            [&magic[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length, &data].concat()
        });
    let start = Just(
        [
            b"NBDMAGICIHAVEOPT\x00\x03".to_vec(),
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x0b\x80\0\0\x01\0\0\0\0".to_vec(),
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x08\0\0\0\x01\0\0\0\0".to_vec(),
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x0a\0\0\0\x01\0\0\0\0".to_vec(),
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\0\0\0\x03\0\0\0\x0c\0\0\0\0\0\0\0\0\x10\0\0\x8d".to_vec(),
            b"\x00\x03\xe8\x89\x04\x55\x65\xa9\0\0\0\x07\0\0\0\x01\0\0\0\0".to_vec(),
        ]
        .concat(),
    );
    let kinds = prop_oneof![
        Just(0u16),
        Just(1),
        Just(2),
        Just(5),
        Just(0x8001),
        Just(0x8002),
        any::<u16>()
    ];
    let chunk = (0u16..2, kinds, 1u64..4, vec(prop_oneof![Just(0u8), any::<u8>()], 0..80))
        .prop_map(|(flags, kind, cookie, payload)| {
            let mut chunk = b"\x66\x8e\x33\xef".to_vec();
            chunk.extend(flags.to_be_bytes());
            chunk.extend(kind.to_be_bytes());
            chunk.extend(cookie.to_be_bytes());
            chunk.extend((payload.len() as u32).to_be_bytes());
            chunk.extend(payload);
            chunk
        });
    prop_oneof![
        vec(reply, 0..6).prop_map(|replies| [
            b"NBDMAGICIHAVEOPT\x00\x03".to_vec(),
            replies.concat()
        ]
        .concat()),
        (start, vec(chunk, 0..6)).prop_map(|(start, chunks)| [start, chunks.concat()].concat()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn handshakes_of_noise(data in vec(any::<u8>(), 0..300)) {
        fuzz::handshake(&data);
    }

    #[test]
    fn handshakes_of_options(flags in 0u32..4, options in vec(option(), 0..8), tail in vec(any::<u8>(), 0..20)) {
        fuzz::handshake(&[&flags.to_be_bytes()[..], &options.concat(), &tail].concat());
    }

    #[test]
    fn requests_of_noise(data in vec(any::<u8>(), 0..300)) {
        fuzz::requests(&data);
    }

    #[test]
    fn requests_of_requests(choice in any::<u8>(), requests in vec(request(), 0..8)) {
        fuzz::requests(&[&[choice][..], &requests.concat()].concat());
    }

    #[test]
    fn clients_of_noise(data in vec(any::<u8>(), 0..300)) {
        fuzz::client(&data);
    }

    #[test]
    fn clients_of_answers(data in answers()) {
        fuzz::client(&data);
    }
}
