//! RAID parity over byte slices: XOR (RAID 5) and P+Q (RAID 6).
//!
//! P is the XOR of the data columns and Q is their sum weighted by powers of the generator 2 in
//! GF(2^8) with polynomial 0x11d, the code of Linux md and of ISA-L, so parity made by either can
//! be read by the other. The crate does arithmetic only: no I/O, no allocation, no threads, and no
//! dependency. Widest SIMD kernels are chosen at run time; the scalar ones are the reference.
//!
//! Every function works on columns of equal length, of any length and alignment, and reads each
//! byte once. A broken precondition (unequal lengths, too many columns, an index out of range)
//! panics; more missing columns than the parity can give back is a [`RecoverError`].
//!
//! ```
//! let (d0, mut d1, d2) = (*b"shields", *b"the old", *b"volumes");
//! let (mut p, mut q) = ([0; 7], [0; 7]);
//! forestall_parity::pq_gen(&[&d0, &d1, &d2], &mut p, &mut q);
//!
//! // Column 1 and P are gone; only the data is wanted back.
//! d1.fill(0);
//! let mut d0 = d0;
//! let mut d2 = d2;
//! let mut columns: [&mut [u8]; 5] = [&mut d0, &mut d1, &mut d2, &mut [], &mut q];
//! forestall_parity::recover_pq(&mut columns, &[1, 3], &[1])?;
//! assert_eq!(&d1, b"the old");
//! # Ok::<(), forestall_parity::RecoverError>(())
//! ```

mod encode;
mod gf;
mod kernel;
mod recover;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod simd;

pub use encode::{is_zero, pq_apply_delta, pq_gen, pq_update, xor_gen, xor_into};
pub use kernel::{Implementation, implementations};
pub use recover::{RecoverError, recover_pq, recover_xor};

/// Most data columns that P+Q is made over: 64 members less P and Q.
pub const PQ_DATA_MAX: usize = 62;

/// Most data columns that XOR parity is made over: 64 members less P.
pub const XOR_DATA_MAX: usize = 63;
