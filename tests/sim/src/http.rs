//! The HTTP server under all stand-ins: plain hyper, so that a connection can be dropped
//! without an answer or cut in the middle of a body.

use std::{pin::Pin, sync::Arc, task::Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{HeaderMap, Method, body::Frame, header::HeaderValue, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::{control, graph, login, pbx, rich, world::World};

const BODY_LIMIT: usize = 4 * 1024 * 1024;

/// A request that was read whole.
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) raw_query: String,
    pub(crate) segments: Vec<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// A request for a path and a query that are percent-encoded still.
    pub(crate) fn new(method: Method, path: &str, query: &str, headers: HeaderMap, body: Bytes) -> Self {
        let segments = path.split('/').skip(1);
        Self {
            method,
            segments: segments
                .map(|part| percent_decode_str(part).decode_utf8_lossy().into_owned())
                .collect(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            path: path.to_owned(),
            raw_query: query.to_owned(),
            headers,
            body,
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    pub(crate) fn json(&self) -> Result<Value, String> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body).map_err(|error| error.to_string())
    }
}

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Ending {
    #[default]
    Whole,
    /// Half of the body, then the connection is cut.
    CutBody,
    /// The connection is dropped without an answer.
    NoAnswer,
}

/// An answer.
#[derive(Debug, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
    pub(crate) ending: Ending,
    /// Whom it tells to wait, and for how many seconds.
    pub(crate) told: Vec<(String, f64)>,
    /// What was asked for before the time that somebody was told to wait for.
    pub(crate) too_early: Vec<String>,
}

impl Reply {
    pub(crate) fn empty(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json".to_owned())],
            body: value.to_string().into(),
            ..Self::default()
        }
    }

    pub(crate) fn text(status: u16, kind: &str, text: impl Into<String>) -> Self {
        Self {
            status,
            headers: vec![("content-type", kind.to_owned())],
            body: text.into().into(),
            ..Self::default()
        }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn no_answer() -> Self {
        Self { ending: Ending::NoAnswer, ..Self::default() }
    }
}

/// Reads from `listener` until the world stops.
pub(crate) async fn serve(world: Arc<World>, listener: TcpListener) {
    loop {
        let stream = tokio::select! {
            () = world.stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "could not accept a connection");
                    tokio::task::yield_now().await;
                    continue;
                }
            },
        };
        let _ = stream.set_nodelay(true);
        let connection_world = world.clone();
        world.tasks.spawn(async move {
            let world = connection_world;
            let service = service_fn(|request| {
                let world = world.clone();
                async move { answer(&world, request).await }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = world.stop.cancelled() => {}
                result = connection => if let Err(error) = result {
                    tracing::debug!(%error, "connection ended");
                }
            }
        });
    }
}

/// Makes hyper close the connection.
#[derive(Debug)]
struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

async fn answer(
    world: &Arc<World>,
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<hyper::Response<Body>, Dropped> {
    let (parts, body) = request.into_parts();
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(build(Reply::empty(413))),
    };
    let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
    let request = Request::new(parts.method, path, query, parts.headers, body);
    // A server goes on with a request whose client has gone away, and so does this one.
    let working = world.clone();
    let work = world.tasks.spawn(async move {
        tokio::select! {
            () = working.stop.cancelled() => Reply::no_answer(),
            reply = route(&working, &request) => reply,
        }
    });
    let reply = work.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request could not be carried out");
        Reply::no_answer()
    });
    // Both only now: a client that has gone away is told nothing, and what it gave up may come late.
    for detail in &reply.too_early {
        world.journal.violation("retry-after-ignored", detail);
    }
    if reply.ending == Ending::NoAnswer {
        return Err(Dropped);
    }
    for (scope, secs) in &reply.told {
        world.faults.told_to_wait(scope, *secs, world.clock.now());
    }
    Ok(build(reply))
}

async fn route(world: &Arc<World>, request: &Request) -> Reply {
    let segments: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["v1.0", ..] => graph::handle(world, request).await,
        ["sim", rest @ ..] => control::handle(world, request, rest).await,
        ["pbx", rest @ ..] => pbx::handle(world, request, rest).await,
        [tenant, "oauth2", "v2.0", "token"] => login::token(world, request, tenant).await,
        ["common", "v2.0", ".well-known", "openid-configuration"] => rich::metadata(world, request),
        ["common", "discovery", "v2.0", "keys"] => rich::keys(world, request),
        [tenant, "v2.0", "adminconsent"] => login::admin_consent(world, request, tenant, true),
        [tenant, "adminconsent"] => login::admin_consent(world, request, tenant, false),
        [""] => Reply::text(200, "text/plain; charset=utf-8", "narvaro-sim\n"),
        _ => Reply::text(404, "text/plain; charset=utf-8", "no such page\n"),
    }
}

fn build(reply: Reply) -> hyper::Response<Body> {
    let mut response = hyper::Response::new(Body {
        cut: reply.ending == Ending::CutBody,
        length: reply.body.len() as u64,
        rest: Some(reply.body),
        flushed: false,
    });
    *response.status_mut() =
        hyper::StatusCode::from_u16(reply.status).unwrap_or(hyper::StatusCode::IM_A_TEAPOT);
    for (name, value) in reply.headers {
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// A body that may break off half-way.
struct Body {
    rest: Option<Bytes>,
    length: u64,
    cut: bool,
    flushed: bool,
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        let Some(mut bytes) = self.rest.take() else {
            if self.cut && !self.flushed {
                // What was given so far goes out while this waits.
                self.flushed = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(self.cut.then_some(Err(Dropped)));
        };
        if self.cut {
            bytes.truncate(bytes.len() / 2);
        }
        Poll::Ready(Some(Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        !self.cut && self.length == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.length)
    }
}
