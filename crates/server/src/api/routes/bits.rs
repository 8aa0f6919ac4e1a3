//! How many bits of a bitmap a table shows.
//!
//! Owns the query of those endpoints. Invariant: no answer grows without bound by what was asked for.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use serde::Deserialize;

use crate::api::error::ApiError;
use crate::api::types::ErrorKind;

/// Most bits that are shown of a row.
const BITS_MAX: u64 = 1 << 20;

/// `?bits=N`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BitsQuery {
    bits: Option<u64>,
}

/// The bits asked for, or as many as the drawings show.
pub(super) fn asked(
    query: Result<Query<BitsQuery>, QueryRejection>,
    drawn: u64,
) -> Result<u64, ApiError> {
    let Query(query) = query?;
    let bits = query.bits.unwrap_or(drawn);
    if bits == 0 || bits > BITS_MAX {
        let why = format!("{bits} bits cannot be shown: 1 to {BITS_MAX} can");
        return Err(ApiError::new(ErrorKind::BadRequest, why));
    }
    Ok(bits)
}
