//! Cutting a receive buffer into requests.
//!
//! Owns the receive side of a connection in transmission: [`RequestStream::next`] looks at the
//! bytes received so far and says what comes first and how many bytes it takes up, so that many
//! requests come out of one receive and nothing is copied. Payloads of refused requests are skipped
//! here, across receives. The buffer, and where a write's payload goes, are the caller's.

use crate::handshake::Negotiated;
use crate::request::{
    HeaderForm, PAYLOAD_DRAIN_MAX, ProtocolError, Rejected, Request, RequestHeader, check,
};

/// What comes first in the receive buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// No whole header yet: receive more. Everything before it was consumed.
    NeedMore,
    /// Serve this. A write's payload of [`Request::payload`] bytes follows directly behind the
    /// consumed bytes: take what the buffer holds of it, receive the rest into its destination, and
    /// only then call again.
    Request(Request),
    /// Answer this with [`Rejected::reply`]. Its payload is skipped by the following calls.
    Rejected(Rejected),
}

/// Follows the stream of requests of one connection.
#[derive(Debug, Clone)]
pub struct RequestStream {
    form: HeaderForm,
    payload_limit: u32,
    /// Bytes of a refused request's payload that are still to come.
    skip: u64,
}

impl RequestStream {
    /// The stream that follows a handshake. Bytes that the handshake left in the buffer belong to
    /// it.
    pub fn new(negotiated: &Negotiated) -> Self {
        Self {
            form: negotiated.mode.into(),
            payload_limit: negotiated.export.block_sizes.payload_max().max(PAYLOAD_DRAIN_MAX),
            skip: 0,
        }
    }

    /// Finds the next request in `received` and returns how many bytes to consume before the next
    /// call. A caller repeats this until [`Next::NeedMore`], sends its replies, and receives again;
    /// the part that is left over is shorter than one header (32 bytes).
    ///
    /// # Errors
    /// [`ProtocolError`]: close the connection, after answering what is in flight.
    pub fn next(
        &mut self,
        negotiated: &Negotiated,
        received: &[u8],
    ) -> Result<(usize, Next), ProtocolError> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(received.len());
        self.skip -= skipped as u64;
        let rest = &received[skipped..];
        if self.skip > 0 {
            return Ok((skipped, Next::NeedMore));
        }
        let Some(header) = RequestHeader::decode(rest, self.form, self.payload_limit)? else {
            return Ok((skipped, Next::NeedMore));
        };
        let next = match check(&header, negotiated) {
            Ok(request) => Next::Request(request),
            Err(rejected) => {
                self.skip = u64::from(rejected.skip_payload);
                Next::Rejected(rejected)
            }
        };
        Ok((skipped + self.form.header_len(), next))
    }

    /// Bytes of one request's header.
    pub fn header_len(&self) -> usize {
        self.form.header_len()
    }

    /// Bytes of a refused payload that are still to come; 0 between requests.
    pub fn skipping(&self) -> u64 {
        self.skip
    }
}
