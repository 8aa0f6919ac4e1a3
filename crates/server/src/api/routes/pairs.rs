//! The endpoints of pairs.
//!
//! Owns how table T2 is asked for over HTTP.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use forestall_engine::T2Row;
use serde::Deserialize;

use super::{Answer, Shared};

/// Bits of a bitmap in table T2 that the drawings show.
const BITS: u64 = 12;
/// Most bits shown.
const BITS_MAX: u64 = 1 << 20;

/// How much of each bitmap is shown.
#[derive(Deserialize)]
struct BitsQuery {
    bits: Option<u64>,
}

pub(super) fn routes() -> Router<Shared> {
    Router::new().route("/v1/show/t2", get(t2))
}

async fn t2(
    State(control): State<Shared>,
    query: Result<Query<BitsQuery>, QueryRejection>,
) -> Answer<Vec<T2Row>> {
    let Query(query) = query?;
    let bits = query.bits.unwrap_or(BITS).min(BITS_MAX);
    Ok(Json(control.run(move |context| async move { context.array.table_t2(bits) }).await?))
}
