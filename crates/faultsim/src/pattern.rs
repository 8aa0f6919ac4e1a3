//! What the simulated hosts write: bytes that say which write put them where.
//!
//! Owns the encoding. Each aligned 8-byte word of a volume names the write, the volume and its own position, so a sector
//! that is torn, stale or in the wrong place is recognised by itself. The word is mixed by an invertible function
//! (the finaliser of SplitMix64), so that a XOR of several words, as parity is, names nothing. Invariant: no written byte
//! pattern is all zeroes over a whole word, so zeroes are told apart from every write.

use crate::medium::SECTOR;

/// Bytes of one self-describing word.
const WORD: u64 = 8;

/// Names one write of one volume: what a word says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Origin {
    /// The write's number, below 2^28.
    pub write: u64,
    /// The volume's tag, below 64.
    pub volume: u8,
    /// The word's index in the volume, below 2^30 (8 GiB).
    pub word: u64,
}

impl Origin {
    /// The sector that the word belongs to.
    #[must_use]
    pub fn sector(&self) -> u64 {
        self.word * WORD / SECTOR
    }
}

/// Fills `bytes`, which lie at byte `offset` of the volume tagged `volume`, with what write number `write` puts there.
pub fn fill(write: u64, volume: u8, offset: u64, bytes: &mut [u8]) {
    let mut at = offset;
    let mut rest = bytes;
    while !rest.is_empty() {
        let word = encode(Origin { write, volume, word: at / WORD }).to_le_bytes();
        let skip = (at % WORD) as usize;
        let len = rest.len().min(WORD as usize - skip);
        let (head, tail) = rest.split_at_mut(len);
        head.copy_from_slice(&word[skip..skip + len]);
        at += len as u64;
        rest = tail;
    }
}

/// Whether `bytes` at `offset` are what `write` put there.
#[must_use]
pub fn matches(write: u64, volume: u8, offset: u64, bytes: &[u8]) -> bool {
    bytes.chunks(SECTOR as usize).zip((offset..).step_by(SECTOR as usize)).all(|(chunk, at)| {
        let mut expected = [0; SECTOR as usize];
        fill(write, volume, at, &mut expected[..chunk.len()]);
        *chunk == expected[..chunk.len()]
    })
}

/// Whether all of `bytes` are zero.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    const ZERO: [u8; SECTOR as usize] = [0; SECTOR as usize];
    bytes.chunks(ZERO.len()).all(|chunk| *chunk == ZERO[..chunk.len()])
}

/// Who wrote the first whole word of `bytes` at `offset`, if it names a write below `writes` of a volume below `volumes`.
#[must_use]
pub fn origin(offset: u64, bytes: &[u8], writes: u64, volumes: u8) -> Option<Origin> {
    let skip = (offset.next_multiple_of(WORD) - offset) as usize;
    let word = bytes.get(skip..skip + WORD as usize)?;
    let origin = decode(u64::from_le_bytes(word.try_into().expect("eight bytes")));
    (origin.write < writes && origin.volume < volumes && origin.write > 0).then_some(origin)
}

fn encode(origin: Origin) -> u64 {
    assert!(origin.write < 1 << 28 && origin.volume < 64 && origin.word < 1 << 30);
    // 0 is the only fixed point of the mixing, and write numbers start at 1, so no word is zero.
    mix(origin.write | u64::from(origin.volume) << 28 | origin.word << 34)
}

fn decode(word: u64) -> Origin {
    let plain = unmix(word);
    Origin { write: plain & ((1 << 28) - 1), volume: (plain >> 28 & 63) as u8, word: plain >> 34 }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

fn unmix(mut x: u64) -> u64 {
    x = (x ^ x >> 31 ^ x >> 62).wrapping_mul(0x3196_42b2_d24d_8ec3);
    x = (x ^ x >> 27 ^ x >> 54).wrapping_mul(0x96de_1b17_3f11_9089);
    x ^ x >> 30 ^ x >> 60
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_name_their_origin() {
        for write in [1, 2, 77, (1 << 28) - 1] {
            for word in [0, 1, 12345, (1 << 30) - 1] {
                let origin = Origin { write, volume: 63, word };
                assert_eq!(decode(encode(origin)), origin);
                assert_ne!(encode(origin), 0);
            }
        }
    }

    #[test]
    fn any_piece_of_a_write_matches_and_another_does_not() {
        let mut whole = vec![0; 1024];
        fill(9, 1, 512, &mut whole);
        for (from, to) in [(0, 1024), (3, 5), (1, 700), (511, 513)] {
            let mut piece = vec![0; to - from];
            fill(9, 1, 512 + from as u64, &mut piece);
            assert_eq!(piece, whole[from..to]);
            assert!(matches(9, 1, 512 + from as u64, &piece));
            assert!(!matches(8, 1, 512 + from as u64, &piece));
        }
        assert_eq!(origin(517, &whole[5..], 10, 2), Some(Origin { write: 9, volume: 1, word: 65 }));
    }

    #[test]
    fn parity_of_words_names_nothing() {
        let mut false_names = 0;
        for write in 1..1000 {
            let a = encode(Origin { write, volume: 0, word: 5 });
            let b = encode(Origin { write: write + 1, volume: 0, word: 500 });
            let sum = (a ^ b).to_le_bytes();
            false_names += u32::from(origin(40, &sum, 2000, 2).is_some_and(|o| o.word == 5));
        }
        assert_eq!(false_names, 0);
    }
}
