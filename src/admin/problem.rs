//! Problem documents (RFC 9457): how the admin API says no.

use std::sync::Arc;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::operations::OperationError;
use crate::{chain::Chain, config::Finding};

/// What a refused request is answered with.
///
/// `type` is stable and is what a script looks at; titles and details may be worded better any day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Names the kind of problem: `urn:narvaro:problem:no-such-company`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened this time.
    pub detail: String,
    /// The next step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// Places in a company file that do not hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Names the request in the service's log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

impl Problem {
    /// A problem of the kind `urn:narvaro:problem:KIND`.
    pub(super) fn new(kind: &str, status: StatusCode, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:narvaro:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            remedy: None,
            findings: Vec::new(),
            request_id: String::new(),
        }
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(super) fn unauthorised() -> Self {
        Self::new(
            "unauthorised",
            StatusCode::UNAUTHORIZED,
            "The token is missing or wrong",
            "the request carries no valid bearer token",
        )
        .remedy("send `Authorization: Bearer` with the content of the service's `admin.token_file`")
    }

    pub(super) fn forbidden(name: &str, role: &str) -> Self {
        Self::new(
            "forbidden",
            StatusCode::FORBIDDEN,
            "The token may not do this",
            format!("this needs the role `{role}`, which token `{name}` does not have"),
        )
        .remedy("use another token, or give this one the role in `admin.tokens`")
    }

    pub(super) fn not_found() -> Self {
        Self::new("not-found", StatusCode::NOT_FOUND, "There is nothing at this address", "no such operation")
            .remedy("compare the versions of the command line and the service")
    }

    pub(super) fn method_not_allowed() -> Self {
        Self::new(
            "method-not-allowed",
            StatusCode::METHOD_NOT_ALLOWED,
            "This address does not take this method",
            "the method does not fit the address",
        )
        .remedy("compare the versions of the command line and the service")
    }

    pub(super) fn not_ready(missing: String) -> Self {
        Self::new("not-ready", StatusCode::SERVICE_UNAVAILABLE, "The service is not ready", missing)
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new("bad-request", StatusCode::BAD_REQUEST, "The request was not understood", detail)
    }

    /// The body was read and does not hold.
    pub(super) fn bad_body(detail: impl Into<String>) -> Self {
        Self::bad_request(detail).remedy("compare the body with what `narvaro openapi` says of this address")
    }

    pub(super) fn no_body() -> Self {
        Self::bad_request("the request has no body")
            .remedy("send a JSON object; `{}` where there is nothing to say")
    }

    pub(super) fn not_json() -> Self {
        Self::new(
            "unsupported-media-type",
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "The body is not JSON",
            "the body is not said to be JSON",
        )
        .remedy("send a JSON object, with `Content-Type: application/json`")
    }

    pub(super) fn too_large(limit: usize) -> Self {
        Self::new(
            "too-large",
            StatusCode::PAYLOAD_TOO_LARGE,
            "The request is too large",
            format!("a request may have {limit} bytes"),
        )
        .remedy("split the company, or leave out what equals the defaults")
    }
}

/// What a request may have done by the time it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It only looks.
    None,
    /// It changes something: where the store's answer is lost, nobody knows whether it did.
    Change,
}

impl Effect {
    /// The next step where the store does not answer. A step of several may have been done before, so that not even a
    /// store that refused the last call is a sign of nothing.
    fn without_store(self) -> &'static str {
        match self {
            Self::None => "nothing was changed: see what `narvaro check` says of the store, then try again",
            Self::Change => {
                "it may have been done or not: see what `narvaro check` says of the store; once it answers, `narvaro audit` tells what was done, and `narvaro export` what is live of a company; doing it again does no harm"
            }
        }
    }
}

/// A problem on its way out. The outermost layer writes it, since only that knows the request's id.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    problem: Box<Problem>,
    /// What is ours to mend, for the log.
    fault: Option<Arc<OperationError>>,
}

impl Refusal {
    /// Logs a failure of ours with its causes; the others are the asker's.
    pub(super) fn log(&self, request_id: &str) {
        if let Some(fault) = &self.fault {
            tracing::error!(request.id = request_id, error = %Chain(fault.as_ref()), "An admin request failed");
        }
    }

    pub(super) fn respond(self, request_id: &str) -> Response {
        let mut problem = *self.problem;
        request_id.clone_into(&mut problem.request_id);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(problem)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, MEDIA_TYPE);
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem: Box::new(problem), fault: None }
    }
}

impl Refusal {
    /// Says no to a request of that `effect`.
    pub(super) fn of(error: OperationError, effect: Effect) -> Self {
        let problem = Box::new(Problem::of(&error, effect));
        let ours = matches!(error, OperationError::Store(_) | OperationError::Internal(_));
        Self { problem, fault: ours.then(|| Arc::new(error)) }
    }
}

impl Problem {
    /// What of an error leaves the service. The causes of failures of ours stay in the log.
    fn of(error: &OperationError, effect: Effect) -> Self {
        let detail = error.to_string();
        match error {
            OperationError::NoSuchCompany(_) => {
                Self::new("no-such-company", StatusCode::NOT_FOUND, "There is no such company", detail)
                    .remedy("`narvaro status` lists the companies")
            }
            OperationError::NoSuchUser { company, .. } => {
                Self::new("no-such-user", StatusCode::NOT_FOUND, "There is no such user", detail)
                    .remedy(format!("`narvaro status {company}` lists the users"))
            }
            OperationError::UnknownUser { .. } => {
                Self::new("no-such-user", StatusCode::NOT_FOUND, "There is no such user", detail)
                    .remedy("`narvaro status` lists the users")
            }
            OperationError::AmbiguousUser { .. } => {
                Self::new("ambiguous-user", StatusCode::CONFLICT, "The user is not unique", detail)
                    .remedy("add `--company`")
            }
            OperationError::NoSuchJob(_) => {
                Self::new("no-such-job", StatusCode::NOT_FOUND, "There is no such job", detail)
                    .remedy("`narvaro subscriptions jobs` lists those that are remembered")
            }
            OperationError::FileRefused(findings) => {
                let mut problem = Self::new(
                    "company-file-refused",
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "The company file does not hold",
                    detail,
                )
                .remedy("nothing was changed: correct the file and apply it again");
                problem.findings.clone_from(findings);
                problem
            }
            OperationError::BackupRefused(findings) => {
                let mut problem = Self::new(
                    "backup-refused",
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "The backup does not hold",
                    detail,
                )
                .remedy(
                    "nothing was changed: correct what is named, or take another backup, and restore again",
                );
                problem.findings.clone_from(findings);
                problem
            }
            OperationError::ScopeMissing => Self::bad_request(detail)
                .remedy("name `company` or `user`, or send `\"all\": true` where all are meant"),
            OperationError::ScopeAmbiguous => Self::bad_request(detail).remedy("leave one of them out"),
            OperationError::Refused(_) => {
                Self::new("refused", StatusCode::UNPROCESSABLE_ENTITY, "The request cannot be met", detail)
            }
            OperationError::Conflict { .. } => {
                Self::new("conflict", StatusCode::CONFLICT, "Something stands in the way", detail)
            }
            OperationError::Store(_) => Self::new(
                "store-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "The store does not answer",
                detail,
            )
            .remedy(effect.without_store()),
            OperationError::Internal(_) => {
                Self::new("internal", StatusCode::INTERNAL_SERVER_ERROR, "The service failed", detail)
                    .remedy("look for the request id in the service's log")
            }
        }
    }
}
