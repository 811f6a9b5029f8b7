//! The HTTP surface of the private listener: which address does what.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;

use super::{
    auth::{Token, Tokens, require_role, require_token},
    openapi::{self, BASE},
    operations::Operations,
    problem::{Problem, Refusal},
    request::{RequestLimit, name_requests},
    routes::routes,
};

/// What the private listener serves.
pub struct Surface {
    /// The running service.
    pub operations: Arc<dyn Operations>,
    /// What opens `/admin/`, and for whom.
    pub tokens: Vec<Token>,
    /// Where `/metrics` comes from; absent: 404.
    pub metrics: Option<PrometheusHandle>,
    /// Longest request body in bytes.
    pub max_body_bytes: usize,
}

/// The whole private surface. It holds no listener and spawns nothing.
pub fn router(surface: Surface) -> Router {
    let Surface { operations, tokens, metrics, max_body_bytes } = surface;
    let tokens = Tokens::new(tokens);
    Router::new()
        .nest(BASE, operations_router().layer(middleware::from_fn_with_state(tokens, require_token)))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .with_state(operations)
        .merge(Router::new().route("/metrics", get(move || std::future::ready(render(metrics.as_ref())))))
        .merge(Router::new().route(openapi::PATH, get(async || Json(openapi::openapi()))))
        .fallback(|| async { Refusal::from(Problem::not_found()) })
        .method_not_allowed_fallback(|| async { Refusal::from(Problem::method_not_allowed()) })
        .layer(axum::Extension(RequestLimit(max_body_bytes)))
        .layer(middleware::from_fn(name_requests))
}

fn operations_router() -> Router<Arc<dyn Operations>> {
    let role = |role| middleware::from_fn_with_state(role, require_role);
    routes()
        .into_iter()
        .fold(Router::new(), |router, route| {
            router.route(route.path, route.handler.route_layer(role(route.role)))
        })
        .fallback(|| async { Refusal::from(Problem::not_found()) })
}

async fn live() -> Json<serde_json::Value> {
    Json(serde_json::json!({ "status": "alive" }))
}

async fn ready(State(service): State<Arc<dyn Operations>>) -> Result<Json<serde_json::Value>, Refusal> {
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
