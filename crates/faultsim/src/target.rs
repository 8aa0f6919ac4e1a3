//! What a simulated host talks to.
//!
//! Owns [`Target`], the few requests of a volume, so that the same workload and oracle judge the shipped engine and, in
//! tests, arrays that are broken on purpose. Owns [`SimEnv`], the engine's environment in a simulation.

use std::future::Future;

use forestall_engine::{Buf, Env, IoError, VolumeHandle};

use crate::disk::SimDisk;
use crate::executor::SimRuntime;

/// The engine's environment: simulated disks and the seeded executor.
pub struct SimEnv;

impl Env for SimEnv {
    type Disk = SimDisk;
    type Runtime = SimRuntime;
}

/// Ways to make a range read as zeroes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Zeroing {
    /// TRIM.
    Trim,
    /// WRITE_ZEROES that may leave a hole.
    Zeroes,
    /// WRITE_ZEROES that keeps the range allocated.
    NoHole,
    /// WRITE_ZEROES that would rather fail than be slow.
    Fast,
}

/// A volume as a host sees it.
pub trait Target: 'static {
    /// Reads a range in pieces.
    fn read(&self, offset: u64, len: u64) -> impl Future<Output = Result<Vec<Buf>, IoError>>;
    /// Writes a range.
    fn write(&self, offset: u64, data: Buf, fua: bool)
    -> impl Future<Output = Result<(), IoError>>;
    /// Makes answered writes durable.
    fn flush(&self) -> impl Future<Output = Result<(), IoError>>;
    /// Makes a range read as zeroes.
    fn zero(
        &self,
        offset: u64,
        len: u64,
        how: Zeroing,
        fua: bool,
    ) -> impl Future<Output = Result<(), IoError>>;
}

impl Target for VolumeHandle<SimEnv> {
    async fn read(&self, offset: u64, len: u64) -> Result<Vec<Buf>, IoError> {
        Self::read(self, offset, len).await
    }

    async fn write(&self, offset: u64, data: Buf, fua: bool) -> Result<(), IoError> {
        Self::write(self, offset, data, fua).await
    }

    async fn flush(&self) -> Result<(), IoError> {
        Self::flush(self).await
    }

    async fn zero(&self, offset: u64, len: u64, how: Zeroing, fua: bool) -> Result<(), IoError> {
        match how {
            Zeroing::Trim => self.trim(offset, len, fua).await,
            Zeroing::Zeroes => self.write_zeroes(offset, len, false, false, fua).await,
            Zeroing::NoHole => self.write_zeroes(offset, len, true, false, fua).await,
            Zeroing::Fast => self.write_zeroes(offset, len, false, true, fua).await,
        }
    }
}
