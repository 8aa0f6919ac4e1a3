//! The bytes on a disk: format 1.
//!
//! Owns every structure that stands on a disk outside the data space. Invariants: little-endian; a CRC-32C on every record; decoders
//! take any bytes, never panic and never allocate by a length they have not checked. Nothing here does I/O or decides what to believe:
//! that is `quorum`'s and `assemble`'s matter. `docs/on-disk-format.md` explains the same and is checked against it.

pub mod checksum;
pub mod codec;
pub mod config;
pub mod events;
pub mod journal;
pub mod label;
pub mod layout;
pub mod log;
pub mod owner;
pub mod page;

#[cfg(test)]
mod document;
#[cfg(test)]
pub(crate) mod samples;
