//! The HTTP surface of the private listener: which address does what.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderValue, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use serde::Serialize;

use super::{
    auth::{Token, require_token},
    operations::{OperationError, Operations},
    problem::{Problem, Refusal},
    request::{Input, Parameters, RequestLimit, name_requests},
    types::{
        ApplyReport, ApplyRequest, CheckReport, CompanySummary, ConsentUrl, ExplainRequest, Explained,
        Exported, JobId, JobProgress, JobStarted, RemoveReport, RemoveRequest, RenewRequest, Scope, Status,
        SubscriptionInfo, SyncRequest, Synced, Tried, TryRequest,
    },
};
use crate::model::CompanyId;

/// What the private listener serves.
pub struct Surface {
    /// The running service.
    pub operations: Arc<dyn Operations>,
    /// What opens `/admin/`.
    pub token: SecretString,
    /// Where `/metrics` comes from; absent: 404.
    pub metrics: Option<PrometheusHandle>,
    /// Longest request body in bytes.
    pub max_body_bytes: usize,
}

type Service = State<Arc<dyn Operations>>;
type Answer<T> = Result<Json<T>, Refusal>;

/// The whole private surface. It holds no listener and spawns nothing.
pub fn router(surface: Surface) -> Router {
    let Surface { operations, token, metrics, max_body_bytes } = surface;
    let token = Token::new(&token);
    Router::new()
        .nest("/admin/v1", operations_router().layer(middleware::from_fn_with_state(token, require_token)))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .with_state(operations)
        .merge(Router::new().route("/metrics", get(move || std::future::ready(render(metrics.as_ref())))))
        .fallback(|| async { Refusal::from(Problem::not_found()) })
        .method_not_allowed_fallback(|| async { Refusal::from(Problem::method_not_allowed()) })
        .layer(axum::Extension(RequestLimit(max_body_bytes)))
        .layer(middleware::from_fn(name_requests))
}

fn operations_router() -> Router<Arc<dyn Operations>> {
    Router::new()
        .route("/companies", get(companies))
        .route("/companies/apply", post(apply))
        .route("/companies/{company}/export", get(export))
        .route("/companies/{company}/consent-url", post(consent_url))
        .route("/companies/{company}/remove", post(remove))
        .route("/status", get(status))
        .route("/explain", get(explain))
        // A subject is posted: what stands in an address ends up in logs.
        .route("/try", post(try_subject))
        .route("/subscriptions", get(subscriptions))
        .route("/subscriptions/renew", post(renew))
        .route("/jobs/{job}", get(job))
        .route("/check", get(check))
        .route("/sync", post(sync_now))
        .fallback(|| async { Refusal::from(Problem::not_found()) })
}

async fn companies(State(service): Service) -> Answer<Vec<CompanySummary>> {
    answer(service.companies().await)
}

async fn status(State(service): Service, Parameters(scope): Parameters<Scope>) -> Answer<Status> {
    answer(service.status(scope).await)
}

async fn apply(State(service): Service, Input(request): Input<ApplyRequest>) -> Answer<ApplyReport> {
    answer(service.apply(request).await)
}

async fn remove(
    State(service): Service,
    Path(company): Path<String>,
    Input(request): Input<RemoveRequest>,
) -> Answer<RemoveReport> {
    answer(service.remove(company_id(&company)?, request).await)
}

async fn export(State(service): Service, Path(company): Path<String>) -> Answer<Exported> {
    answer(service.export(company_id(&company)?).await)
}

async fn consent_url(State(service): Service, Path(company): Path<String>) -> Answer<ConsentUrl> {
    answer(service.consent_url(company_id(&company)?).await)
}

async fn explain(
    State(service): Service,
    Parameters(request): Parameters<ExplainRequest>,
) -> Answer<Explained> {
    answer(service.explain(request).await)
}

async fn try_subject(State(service): Service, Input(request): Input<TryRequest>) -> Answer<Tried> {
    answer(service.try_subject(request).await)
}

async fn subscriptions(
    State(service): Service,
    Parameters(scope): Parameters<Scope>,
) -> Answer<Vec<SubscriptionInfo>> {
    answer(service.subscriptions(scope).await)
}

async fn renew(State(service): Service, Input(request): Input<RenewRequest>) -> Answer<JobStarted> {
    answer(service.renew(request).await)
}

async fn job(State(service): Service, Path(job): Path<String>) -> Answer<JobProgress> {
    answer(service.job(JobId(job)).await)
}

async fn check(State(service): Service, Parameters(scope): Parameters<Scope>) -> Answer<CheckReport> {
    answer(service.check(scope).await)
}

async fn sync_now(State(service): Service, Input(request): Input<SyncRequest>) -> Answer<Synced> {
    answer(service.sync_now(request).await)
}

async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "alive" }))
}

async fn ready(State(service): Service) -> Answer<serde_json::Value> {
    match service.ready().await {
        Ok(()) => Ok(Json(serde_json::json!({ "status": "ready" }))),
        Err(missing) => Err(Problem::not_ready(missing).into()),
    }
}

fn render(metrics: Option<&PrometheusHandle>) -> Response {
    const FORMAT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    match metrics {
        Some(metrics) => ([(header::CONTENT_TYPE, FORMAT)], metrics.render()).into_response(),
        None => Refusal::from(Problem::not_found()).into_response(),
    }
}

fn answer<T: Serialize>(result: Result<T, OperationError>) -> Answer<T> {
    result.map(Json).map_err(Refusal::from)
}

fn company_id(text: &str) -> Result<CompanyId, Refusal> {
    text.parse().map_err(|error: crate::model::IdError| Problem::bad_request(error.to_string()).into())
}
