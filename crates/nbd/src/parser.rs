//! Cutting a receive buffer into requests.
//!
//! Owns the receive side of a connection in transmission: [`RequestStream::next`] looks at the
//! bytes received so far and says what comes first and how many bytes it takes up, so that many
//! requests come out of one receive and nothing is copied. Payloads of refused requests are skipped
//! here, across receives, before the refusal is told: clients (libnbd) take an answer to a request that
//! they are still sending for a broken server. The buffer, and where a write's payload goes, are the caller's.

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
    /// Answer this with [`Rejected::reply`]. Its payload has been skipped.
    Rejected(Rejected),
}

/// Follows the stream of requests of one connection.
#[derive(Debug, Clone)]
pub struct RequestStream {
    form: HeaderForm,
    payload_limit: u32,
    /// A refused request, and the bytes of its payload that are still to come.
    refused: Option<(Rejected, u32)>,
}

impl RequestStream {
    /// The stream that follows a handshake. Bytes that the handshake left in the buffer belong to
    /// it.
    pub fn new(negotiated: &Negotiated) -> Self {
        Self {
            form: negotiated.mode.into(),
            payload_limit: negotiated.export.block_sizes.payload_max().max(PAYLOAD_DRAIN_MAX),
            refused: None,
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
        if let Some((used, rejected)) = self.skip_payload(received) {
            return Ok((used, rejected));
        }
        let Some(header) = RequestHeader::decode(received, self.form, self.payload_limit)? else {
            return Ok((0, Next::NeedMore));
        };
        let len = self.form.header_len();
        match check(&header, negotiated) {
            Ok(request) => Ok((len, Next::Request(request))),
            Err(rejected) => {
                self.refused = Some((rejected, rejected.skip_payload));
                let next = self.skip_payload(&received[len..]);
                let (used, next) = next.expect("there is one");
                Ok((len + used, next))
            }
        }
    }

    /// Goes on with a refused request, if there is one: bytes used up, and the refusal once all of its payload was.
    fn skip_payload(&mut self, received: &[u8]) -> Option<(usize, Next)> {
        let (rejected, left) = self.refused.take()?;
        let used = received.len().min(left as usize);
        let left = left - used as u32;
        if left == 0 {
            return Some((used, Next::Rejected(rejected)));
        }
        self.refused = Some((rejected, left));
        Some((used, Next::NeedMore))
    }

    /// Bytes of one request's header.
    pub fn header_len(&self) -> usize {
        self.form.header_len()
    }

    /// Bytes of a refused payload that are still to come; 0 between requests.
    pub fn skipping(&self) -> u64 {
        self.refused.map_or(0, |(_, left)| u64::from(left))
    }
}
