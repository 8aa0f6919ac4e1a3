//! The byte stream below the client: buffered both ways.
//!
//! Owns the buffers, so that many small requests share one send and many small replies one receive,
//! while long data goes straight between the stream and the caller's memory.

use std::io::{self, Read, Write};

/// Size of the receive buffer and the most that can be asked of [`Transport::peek`], in bytes.
const BUFFER_LEN: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Transport<S> {
    stream: S,
    /// Bytes queued to be sent.
    pub(super) out: Vec<u8>,
    input: Box<[u8]>,
    start: usize,
    end: usize,
}

impl<S: Read + Write> Transport<S> {
    pub(super) fn new(stream: S) -> Self {
        let input = vec![0; BUFFER_LEN].into_boxed_slice();
        Self { stream, out: Vec::new(), input, start: 0, end: 0 }
    }

    /// Sends what is queued.
    pub(super) fn send(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        self.stream.flush()
    }

    /// Sends what is queued, then `data`.
    pub(super) fn send_with(&mut self, data: &[u8]) -> io::Result<()> {
        self.stream.write_all(&self.out)?;
        self.out.clear();
        self.stream.write_all(data)
    }

    /// The next `len` bytes, which stay unread; waits for them. At most [`BUFFER_LEN`].
    pub(super) fn peek(&mut self, len: usize) -> io::Result<&[u8]> {
        assert!(len <= self.input.len(), "peeking at {len} bytes");
        if self.input.len() - self.start < len {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < len {
            match self.stream.read(&mut self.input[self.end..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(received) => self.end += received,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.input[self.start..self.start + len])
    }

    /// The next `N` bytes.
    pub(super) fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut taken = [0; N];
        taken.copy_from_slice(self.peek(N)?);
        self.start += N;
        Ok(taken)
    }

    /// The next `len` bytes, at most [`BUFFER_LEN`].
    pub(super) fn take_vec(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let taken = self.peek(len)?.to_vec();
        self.start += len;
        Ok(taken)
    }

    /// Fills `buffer`, first from what is buffered, then straight from the stream.
    pub(super) fn read_into(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let buffered = buffer.len().min(self.end - self.start);
        let (head, tail) = buffer.split_at_mut(buffered);
        head.copy_from_slice(&self.input[self.start..self.start + buffered]);
        self.start += buffered;
        self.stream.read_exact(tail)
    }
}
