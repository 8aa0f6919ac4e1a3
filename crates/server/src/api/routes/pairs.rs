//! The endpoints of pairs: two volumes, one of which follows the other.

use std::rc::Rc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use forestall_engine::{CommandError, PairReport, T2Row};

use super::bits::{BitsQuery, asked};
use super::{Answer, Shared, command, see, volume_name};
use crate::api::types::{CreatePair, Done, NameVolume, ResyncPair};
use crate::data::Context;

/// Bits of a bitmap that are shown where nobody says how many.
const BITS: u64 = 12;

pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/show/t2", get(show_t2))
        .route("/v1/pairs", see(|c| -> Vec<PairReport> { c.array.pairs() }))
        .route("/v1/pairs/create", command(create))
        .route("/v1/pairs/split", command(split))
        .route("/v1/pairs/resync", command(resync))
        .route("/v1/pairs/hold", command(hold))
        .route("/v1/pairs/release", command(release))
        .route("/v1/pairs/delete", command(delete))
}

async fn show_t2(
    State(control): State<Shared>,
    query: Result<Query<BitsQuery>, QueryRejection>,
) -> Answer<Vec<T2Row>> {
    let bits = asked(query, BITS)?;
    Ok(Json(control.run(move |context| async move { context.array.table_t2(bits) }).await?))
}

async fn create(context: Rc<Context>, body: CreatePair) -> Result<Done, CommandError> {
    context.array.create_pair(&body.primary, &body.secondary).await?;
    context.array.limit_pair(&body.primary, body.rate)?;
    context.exports_changed();
    Ok(Done {})
}

async fn split(context: Rc<Context>, body: NameVolume) -> Result<Done, CommandError> {
    context.array.split_pair(&volume_name(&context, body.volume)).await?;
    Ok(Done {})
}

async fn resync(context: Rc<Context>, body: ResyncPair) -> Result<Done, CommandError> {
    let primary = volume_name(&context, body.volume);
    context.array.resync_pair(&primary).await?;
    context.array.limit_pair(&primary, body.rate)?;
    Ok(Done {})
}

async fn hold(context: Rc<Context>, body: NameVolume) -> Result<Done, CommandError> {
    context.array.hold_pair(&volume_name(&context, body.volume), true).await?;
    Ok(Done {})
}

async fn release(context: Rc<Context>, body: NameVolume) -> Result<Done, CommandError> {
    context.array.hold_pair(&volume_name(&context, body.volume), false).await?;
    Ok(Done {})
}

async fn delete(context: Rc<Context>, body: NameVolume) -> Result<Done, CommandError> {
    context.array.delete_pair(&volume_name(&context, body.volume)).await?;
    context.exports_changed();
    Ok(Done {})
}
