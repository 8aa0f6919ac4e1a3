//! The endpoints: each turns one request into one closure on the data thread and its answer into JSON.
//!
//! Owns the router and the handlers, nothing that decides. What a body means is [`super::types`]'s matter, which status an
//! error has is [`super::error`]'s. A handler that is dropped because its client went away drops only the wait: the closure
//! runs to its end on the data thread.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, Query, Request, State};
use axum::http::{Method, Uri};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use forestall_disk::{ActiveRule, InjectKind};
use forestall_engine::words::counted;
use forestall_engine::{
    ArrayReport, CommandError, DiskReport, Event, GroupSpec, HealthReport, JobReport, LostReport,
    T1Row, T3Row, VolumeReport, VolumeSpec,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::control::Control;
use super::error::ApiError;
use super::types::{
    AddDisk, DiskMade, Done, ErrorKind, GroupMade, GrowVolume, Inject, JobStarted, LimitJob,
    NameDisk, NameGroup, NameVolume, ReaddDisk, RenameVolume, ReplaceDisk, ScrubGroup, ServerInfo,
    SetPolicy, SetThreshold, SetVolume, VolumeGrown, VolumeMade,
};
use crate::data::Context;

mod backups;
mod bits;
mod pairs;

/// Longest that `GET /v1/events?wait=1` waits before it answers an empty list.
const EVENT_WAIT: Duration = Duration::from_secs(30);

type Shared = Arc<Control>;
type Answer<T> = Result<Json<T>, ApiError>;

/// A JSON body whose rejection is an [`ApiError`] too.
struct Body<T>(T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let Json(body) = Json::from_request(request, state).await?;
        Ok(Self(body))
    }
}

/// All endpoints.
pub fn router(control: Shared) -> Router {
    Router::new()
        .route("/v1/server", get(server))
        .route("/v1/status", see(report))
        .route("/v1/disks", see(|c| -> Vec<DiskReport> { report(c).disks }))
        .route("/v1/groups", see(|c| c.array.report().groups))
        .route("/v1/volumes", see(|c| -> Vec<VolumeReport> { c.array.volumes() }))
        .route("/v1/volumes/lost", see(|c| -> Vec<LostReport> { c.array.lost() }))
        .route("/v1/jobs", see(|c| -> Vec<JobReport> { c.array.jobs() }))
        .route("/v1/show/t1", see(|c| -> Vec<T1Row> { c.array.table_t1() }))
        .route("/v1/show/t3", see(|c| -> Vec<T3Row> { c.array.table_t3() }))
        .route("/v1/health", see(|c| -> HealthReport { c.array.health() }))
        .route("/v1/health/set", command(health_set))
        .route("/v1/health/clear", command(health_clear))
        .route("/v1/policy/set", command(policy_set))
        .route("/v1/events", get(events))
        .route("/v1/disks/add", post(disk_add))
        .route("/v1/disks/remove", command(disk_remove))
        .route("/v1/disks/fail", command(disk_fail))
        .route("/v1/disks/readd", post(disk_readd))
        .route("/v1/groups/create", command(group_create))
        .route("/v1/groups/delete", command(group_delete))
        .route("/v1/groups/continue", command(group_continue))
        .route("/v1/volumes/create", command(volume_create))
        .route("/v1/volumes/grow", command(volume_grow))
        .route("/v1/volumes/rename", command(volume_rename))
        .route("/v1/volumes/set", command(volume_set))
        .route("/v1/volumes/delete", command(volume_delete))
        .route("/v1/replace", command(replace))
        .route("/v1/replace/pause", command(replace_pause))
        .route("/v1/replace/resume", command(replace_resume))
        .route("/v1/replace/cancel", command(replace_cancel))
        .route("/v1/scrub", command(scrub))
        .route("/v1/jobs/limit", command(job_limit))
        .route("/v1/inject", command(inject))
        .route("/v1/stop", post(stop))
        .merge(backups::routes())
        .merge(pairs::routes())
        .fallback(nowhere)
        .method_not_allowed_fallback(wrong_method)
        .with_state(control)
}

/// An endpoint that shows what `f` finds.
fn see<T, F>(f: F) -> MethodRouter<Shared>
where
    T: serde::Serialize + Send + 'static,
    F: Fn(&Context) -> T + Clone + Send + Sync + 'static,
{
    get(move |State(control): State<Shared>| async move {
        let answer = control.run(move |context| async move { f(&context) }).await?;
        Ok::<_, ApiError>(Json(answer))
    })
}

/// An endpoint that hands its body to the engine.
fn command<B, T, F, Fut>(f: F) -> MethodRouter<Shared>
where
    B: DeserializeOwned + Send + 'static,
    T: serde::Serialize + Send + 'static,
    F: FnOnce(Rc<Context>, B) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, CommandError>> + 'static,
{
    post(move |State(control): State<Shared>, Body(body): Body<B>| async move {
        let answer = control.run(move |context| f(context, body)).await?;
        Ok::<_, ApiError>(Json(answer?))
    })
}

/// The array's report; disks that are made to misbehave say so.
fn report(context: &Context) -> ArrayReport {
    let mut report = context.array.report();
    if report.allow_injection {
        for disk in &mut report.disks {
            let rules =
                context.injector(disk.number).map_or_else(Vec::new, |injector| injector.list());
            for active in rules.iter().filter(|active| !active.spent) {
                disk.notes.push(format!("injection in force: {}", rule_words(active)));
            }
        }
    }
    report
}

fn rule_words(active: &ActiveRule) -> String {
    let kind = match active.rule.kind {
        InjectKind::Error => "errors".to_owned(),
        InjectKind::Delay { ms } => format!("{ms} ms delay"),
        InjectKind::Stall => "stall".into(),
        InjectKind::Corrupt => "corruption".into(),
        InjectKind::Death => "death".into(),
    };
    format!("{kind}, {} so far", counted(active.hits, "time"))
}

async fn nowhere(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorKind::NotFound, format!("there is no {method} {}", uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::new(ErrorKind::BadRequest, format!("{} does not take {method}", uri.path()))
}

async fn server(State(control): State<Shared>) -> Answer<ServerInfo> {
    let clients = control.run(|context| async move { context.sessions() }).await?;
    let nbd = control.data()?.nbd_addresses();
    Ok(Json(ServerInfo {
        clients,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        nbd: nbd.iter().map(ToString::to_string).collect(),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventQuery {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait: u8,
}

async fn events(
    State(control): State<Shared>,
    query: Result<Query<EventQuery>, QueryRejection>,
) -> Answer<Vec<Event>> {
    let Query(query) = query?;
    let after = query.after;
    let fetch = || control.run(move |context| async move { context.array.events_after(after) });
    let mut found = fetch().await?;
    if found.is_empty() && query.wait != 0 {
        control.wait_event(after, EVENT_WAIT).await;
        found = fetch().await?;
    }
    Ok(Json(found))
}

async fn disk_add(State(control): State<Shared>, Body(body): Body<AddDisk>) -> Answer<DiskMade> {
    let added = control.run(move |context| async move {
        context.add_disk(&body.path, body.role, body.size, body.force).await
    });
    Ok(Json(DiskMade { disk: added.await?? }))
}

async fn disk_readd(State(control): State<Shared>, Body(body): Body<ReaddDisk>) -> Answer<Done> {
    let readded = control.run(move |context| async move {
        context.readd_disk(body.disk, body.path.as_deref()).await
    });
    readded.await??;
    Ok(Json(Done {}))
}

async fn disk_remove(context: Rc<Context>, body: NameDisk) -> Result<Done, CommandError> {
    context.remove_disk(body.disk).await.map(|()| Done {})
}

async fn disk_fail(context: Rc<Context>, body: NameDisk) -> Result<Done, CommandError> {
    context.array.fail_disk(body.disk).await.map(|()| Done {})
}

async fn group_create(context: Rc<Context>, body: GroupSpec) -> Result<GroupMade, CommandError> {
    let (group, notes) = context.array.create_group(body).await?;
    Ok(GroupMade { group, notes })
}

async fn group_delete(context: Rc<Context>, body: NameGroup) -> Result<Done, CommandError> {
    context.array.delete_group(body.group).await.map(|()| Done {})
}

async fn group_continue(context: Rc<Context>, body: NameGroup) -> Result<Done, CommandError> {
    context.array.continue_group(body.group).await.map(|()| Done {})
}

async fn volume_create(context: Rc<Context>, body: VolumeSpec) -> Result<VolumeMade, CommandError> {
    let volume = context.array.create_volume(body).await?;
    context.exports_changed();
    Ok(VolumeMade { volume, size: volume_size(&context, |v| v.number == volume) })
}

async fn volume_grow(context: Rc<Context>, body: GrowVolume) -> Result<VolumeGrown, CommandError> {
    let name = volume_name(&context, body.volume);
    context.array.grow_volume(&name, body.size).await?;
    context.exports_changed();
    Ok(VolumeGrown { size: volume_size(&context, |v| v.name == name) })
}

async fn volume_rename(context: Rc<Context>, body: RenameVolume) -> Result<Done, CommandError> {
    let name = volume_name(&context, body.volume);
    context.array.rename_volume(&name, &body.name).await?;
    context.exports_changed();
    Ok(Done {})
}

async fn volume_set(context: Rc<Context>, body: SetVolume) -> Result<Done, CommandError> {
    let name = volume_name(&context, body.volume);
    if body.read_only.is_none() && body.backup.is_none() {
        return Err(CommandError::Refused("nothing is to be set: give read_only or backup".into()));
    }
    if let Some(strategy) = body.backup {
        context.array.set_strategy(&name, strategy).await?;
    }
    if let Some(read_only) = body.read_only {
        context.array.set_read_only(&name, read_only).await?;
    }
    context.exports_changed();
    Ok(Done {})
}

async fn volume_delete(context: Rc<Context>, body: NameVolume) -> Result<Done, CommandError> {
    let name = volume_name(&context, body.volume);
    context.array.delete_volume(&name).await?;
    context.exports_changed();
    Ok(Done {})
}

/// The size of a volume that was made or grown just now.
fn volume_size(context: &Context, is_it: impl FnMut(&&VolumeReport) -> bool) -> u64 {
    context.array.volumes().iter().find(is_it).map_or(0, |v| v.size)
}

/// The name of the volume that `given` names by name or, where no volume has that name, by number.
fn volume_name(context: &Context, given: String) -> String {
    let volumes = context.array.volumes();
    if volumes.iter().any(|v| v.name == given) {
        return given;
    }
    let by_number = volumes.into_iter().find(|v| v.number.to_string() == given);
    by_number.map_or(given, |v| v.name)
}

async fn replace(context: Rc<Context>, body: ReplaceDisk) -> Result<JobStarted, CommandError> {
    let ReplaceDisk { disk, with, rate, backup } = body;
    let job = context.array.replace_shielded(disk, with, rate, backup).await?;
    let behind = context.array.work_before(disk).filter(|before| *before != job);
    Ok(JobStarted { job, behind })
}

async fn replace_pause(context: Rc<Context>, body: NameDisk) -> Result<Done, CommandError> {
    context.array.pause_replace(body.disk).await.map(|()| Done {})
}

async fn replace_resume(context: Rc<Context>, body: NameDisk) -> Result<Done, CommandError> {
    context.array.resume_replace(body.disk).await.map(|()| Done {})
}

async fn replace_cancel(context: Rc<Context>, body: NameDisk) -> Result<Done, CommandError> {
    context.array.cancel_replace(body.disk).await.map(|()| Done {})
}

async fn health_set(context: Rc<Context>, body: SetThreshold) -> Result<Done, CommandError> {
    context.array.set_threshold(body.class, body.threshold).await.map(|()| Done {})
}

async fn health_clear(context: Rc<Context>, body: NameDisk) -> Result<Done, CommandError> {
    context.array.clear_health(body.disk).await.map(|()| Done {})
}

async fn policy_set(context: Rc<Context>, body: SetPolicy) -> Result<Done, CommandError> {
    if body.mode.is_none() && body.shelter.is_none() {
        return Err(CommandError::Refused("nothing is to be set: give mode or shelter".into()));
    }
    if let Some(mode) = body.mode {
        context.array.set_mode(mode).await?;
    }
    if let Some(shelter) = body.shelter {
        context.array.set_shelter(shelter).await?;
    }
    Ok(Done {})
}

async fn scrub(context: Rc<Context>, body: ScrubGroup) -> Result<JobStarted, CommandError> {
    let job = context.array.scrub(body.group, body.repair, body.rate).await?;
    Ok(JobStarted { job, behind: None })
}

async fn job_limit(context: Rc<Context>, body: LimitJob) -> Result<Done, CommandError> {
    context.array.limit_job(body.job, body.rate).await.map(|()| Done {})
}

async fn inject(context: Rc<Context>, body: Inject) -> Result<Done, CommandError> {
    if !context.array.report().allow_injection {
        let why = "this array does not allow injection: it was created without --allow-injection";
        return Err(CommandError::Refused(why.into()));
    }
    let Some(injector) = context.injector(body.disk) else {
        return Err(CommandError::NotFound(format!("there is no open disk {}", body.disk)));
    };
    match body.rule {
        None => injector.clear(),
        Some(rule) => drop(injector.add(rule).map_err(|e| CommandError::Refused(e.to_string()))?),
    }
    Ok(Done {})
}

async fn stop(State(control): State<Shared>) -> Answer<Done> {
    control.request_stop();
    match control.wait_ended().await {
        Ok(()) => Ok(Json(Done {})),
        Err(why) => Err(ApiError::new(ErrorKind::Failed, why)),
    }
}
