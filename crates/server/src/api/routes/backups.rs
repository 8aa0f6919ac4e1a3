//! Endpoints of what a shielded group's writes go to: work volumes, work disks, and their tables.

use std::rc::Rc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use forestall_engine::{CommandError, T4Row, T5Row, T6Row, T7Row};

use super::bits::{BitsQuery, asked};
use super::{Answer, Body, Shared, command, see, volume_name};
use crate::api::types::{Abandoned, AddWorkDisk, AddWorkVolume, Done, NameDisk, NameVolume};
use crate::data::Context;

/// Bits of a bitmap that are shown where nobody says how many.
const BITS: u64 = 10;

pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/v1/show/t4", get(show_t4))
        .route("/v1/show/t5", see(|c| -> Vec<T5Row> { c.array.table_t5() }))
        .route("/v1/show/t6", see(|c| -> Vec<T6Row> { c.array.table_t6() }))
        .route("/v1/show/t7", see(|c| -> Vec<T7Row> { c.array.table_t7() }))
        .route("/v1/work-volumes/add", command(work_volume_add))
        .route("/v1/work-volumes/remove", command(work_volume_remove))
        .route("/v1/work-volumes/abandon", command(work_volume_abandon))
        .route("/v1/work-disks/add", post(work_disk_add))
        .route("/v1/work-disks/remove", command(work_disk_remove))
        .route("/v1/work-disks/abandon", command(work_disk_abandon))
}

async fn show_t4(
    State(control): State<Shared>,
    query: Result<Query<BitsQuery>, QueryRejection>,
) -> Answer<Vec<T4Row>> {
    let bits = asked(query, BITS)?;
    Ok(Json(control.run(move |context| async move { context.array.table_t4(bits) }).await?))
}

async fn work_volume_add(context: Rc<Context>, body: AddWorkVolume) -> Result<Done, CommandError> {
    let name = volume_name(&context, body.volume);
    let serves: Vec<String> =
        body.serves.into_iter().map(|given| volume_name(&context, given)).collect();
    context.array.add_work_volume(&name, &serves).await?;
    context.exports_changed();
    Ok(Done {})
}

async fn work_volume_remove(context: Rc<Context>, body: NameVolume) -> Result<Done, CommandError> {
    let name = volume_name(&context, body.volume);
    context.array.remove_work_volume(&name).await?;
    context.exports_changed();
    Ok(Done {})
}

async fn work_disk_add(
    State(control): State<Shared>,
    Body(body): Body<AddWorkDisk>,
) -> Answer<Done> {
    control.run(move |context| async move { context.add_work_disk(body).await }).await??;
    Ok(Json(Done {}))
}

async fn work_volume_abandon(
    context: Rc<Context>,
    body: NameVolume,
) -> Result<Abandoned, CommandError> {
    let name = volume_name(&context, body.volume);
    let lost_blocks = context.array.abandon_work_volume(&name).await?;
    Ok(Abandoned { lost_blocks })
}

async fn work_disk_abandon(
    context: Rc<Context>,
    body: NameDisk,
) -> Result<Abandoned, CommandError> {
    let lost_blocks = context.array.abandon_work_disk(body.disk).await?;
    Ok(Abandoned { lost_blocks })
}

async fn work_disk_remove(context: Rc<Context>, body: NameDisk) -> Result<Done, CommandError> {
    context.remove_work_disk(body.disk).await.map(|()| Done {})
}
