//! Answers that wait to be sent, as one vectored send takes them.
//!
//! Owns [`Outbox`]: headers gather in one vector, data stays where it is. Invariant: what [`IoVectoredBuf::iter_slice`] yields starts
//! at the first byte not yet sent, so an outbox can be handed to one send after another until it is empty.

use compio::buf::IoVectoredBuf;
use forestall_engine::Buf;

/// Slices that one send may carry: the kernel's IOV_MAX.
const SLICES_MAX: usize = 1024;

/// Answers in the order in which they will be sent.
#[derive(Default)]
pub struct Outbox {
    headers: Vec<u8>,
    parts: Vec<Part>,
    /// Parts that are sent whole.
    done: usize,
    /// Bytes of the next part that are sent.
    within: usize,
    /// What the answers hold, to be released once they are sent.
    pub cost: u64,
}

enum Part {
    Header { start: usize, end: usize },
    Data(Buf),
}

impl Outbox {
    /// Appends what `write` appends to a vector.
    pub fn header(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.headers.len();
        write(&mut self.headers);
        let end = self.headers.len();
        match self.parts.last_mut() {
            Some(Part::Header { end: last, .. }) => *last = end,
            Some(Part::Data(_)) | None => self.parts.push(Part::Header { start, end }),
        }
    }

    /// Appends data.
    pub fn data(&mut self, data: Buf) {
        if !data.is_empty() {
            self.parts.push(Part::Data(data));
        }
    }

    /// Whether there was never anything in it since it was cleared.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether everything was sent.
    pub fn is_sent(&self) -> bool {
        self.done == self.parts.len()
    }

    /// Takes note of `count` bytes sent.
    pub fn sent(&mut self, count: usize) {
        let mut count = count + self.within;
        while let Some(part) = self.parts.get(self.done) {
            let len = part_bytes(&self.headers, part).len();
            if count < len {
                break;
            }
            count -= len;
            self.done += 1;
        }
        assert!(count == 0 || !self.is_sent(), "more was sent than there is");
        self.within = count;
    }

    /// Empties it; the room stays.
    pub fn clear(&mut self) {
        self.headers.clear();
        self.parts.clear();
        (self.done, self.within, self.cost) = (0, 0, 0);
    }
}

fn part_bytes<'a>(headers: &'a [u8], part: &'a Part) -> &'a [u8] {
    match part {
        Part::Header { start, end } => &headers[*start..*end],
        Part::Data(data) => data,
    }
}

impl IoVectoredBuf for Outbox {
    fn iter_slice(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self.parts[self.done..].iter().take(SLICES_MAX);
        parts.enumerate().map(|(index, part)| {
            let bytes = part_bytes(&self.headers, part);
            if index == 0 { &bytes[self.within..] } else { bytes }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_sent_at_a_time_every_byte_is_sent_once_and_in_order() {
        for step in 1..40 {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for n in 0..20u8 {
                outbox.header(|out| out.extend([n; 7]));
                expected.extend([n; 7]);
                if n % 3 == 0 {
                    outbox.data(Buf::copy_of(&[n; 13]));
                    expected.extend([n; 13]);
                }
            }
            let mut sent = Vec::new();
            while !outbox.is_sent() {
                let bytes: Vec<u8> = outbox.iter_slice().flatten().copied().take(step).collect();
                outbox.sent(bytes.len());
                sent.extend(bytes);
            }
            assert_eq!(sent, expected, "{step} bytes at a time");
            outbox.clear();
            assert!(outbox.is_empty() && outbox.iter_slice().count() == 0);
        }
    }

    #[test]
    fn no_send_carries_more_slices_than_the_kernel_takes() {
        let mut outbox = Outbox::default();
        for _ in 0..2000 {
            outbox.header(|out| out.push(1));
            outbox.data(Buf::zeroed(1));
        }
        assert_eq!(outbox.iter_slice().count(), SLICES_MAX);
    }
}
