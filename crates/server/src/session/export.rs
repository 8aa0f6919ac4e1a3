//! What a session needs of the rest of the server.
//!
//! Owns the traits [`Export`], [`Catalog`] and [`Stream`], and how a volume is an export. No decision is made here.

use std::future::Future;
use std::os::fd::AsFd;

use compio::io::{AsyncRead, AsyncWrite};
use forestall_engine::{AllocationRun, Buf, Env, IoError, VolumeHandle};
use forestall_nbd::Exports;

/// What is served to a client: a volume, or a stand-in for one.
///
/// The methods and their arguments are those of [`VolumeHandle`]; ranges were checked against the size at negotiation.
pub trait Export: 'static {
    /// Pieces that make up the range, in order.
    fn read(&self, offset: u64, len: u64) -> impl Future<Output = Result<Vec<Buf>, IoError>>;
    /// Writes `data`.
    fn write(&self, offset: u64, data: Buf, fua: bool)
    -> impl Future<Output = Result<(), IoError>>;
    /// Makes durable what was answered before.
    fn flush(&self) -> impl Future<Output = Result<(), IoError>>;
    /// Forgets the range.
    fn trim(&self, offset: u64, len: u64, fua: bool) -> impl Future<Output = Result<(), IoError>>;
    /// Makes the range zero.
    fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        no_hole: bool,
        fast: bool,
        fua: bool,
    ) -> impl Future<Output = Result<(), IoError>>;
    /// Allocation of the range, at most `runs_max` runs.
    fn allocation(
        &self,
        offset: u64,
        len: u64,
        runs_max: usize,
    ) -> Result<Vec<AllocationRun>, IoError>;
}

impl<E: Env> Export for VolumeHandle<E> {
    async fn read(&self, offset: u64, len: u64) -> Result<Vec<Buf>, IoError> {
        Self::read(self, offset, len).await
    }

    async fn write(&self, offset: u64, data: Buf, fua: bool) -> Result<(), IoError> {
        Self::write(self, offset, data, fua).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        Self::flush(self).await
    }

    async fn trim(&self, offset: u64, len: u64, fua: bool) -> Result<(), IoError> {
        Self::trim(self, offset, len, fua).await
    }

    async fn write_zeroes(
        &self,
        offset: u64,
        len: u64,
        no_hole: bool,
        fast: bool,
        fua: bool,
    ) -> Result<(), IoError> {
        Self::write_zeroes(self, offset, len, no_hole, fast, fua).await
    }

    fn allocation(
        &self,
        offset: u64,
        len: u64,
        runs_max: usize,
    ) -> Result<Vec<AllocationRun>, IoError> {
        Self::allocation(self, offset, len, runs_max)
    }
}

/// The exports of a server.
pub trait Catalog: Exports + 'static {
    /// What is served under a name.
    type Export: Export;

    /// Opens what the handshake found under `name`; `None` if it went away since.
    fn open(&self, name: &str) -> Option<Self::Export>;
}

/// A connected socket. Clones are handles to the same one.
pub trait Stream: AsyncRead + AsyncWrite + AsFd + Clone + 'static {}

impl<S: AsyncRead + AsyncWrite + AsFd + Clone + 'static> Stream for S {}
