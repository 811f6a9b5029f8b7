//! The routes of `/admin/v1`, as data: address, role, words, types and what answers.
//!
//! The router and the OpenAPI document are both made from this table, and each route's schemas are those of the very
//! types that its handler takes and gives. So no route is without a role, and the document cannot say something else
//! than the service does. A handler never sees more than its caller may ([`Limited`]).

use std::{future::Future, sync::Arc};

use axum::{
    Extension, Json,
    http::Method,
    response::{IntoResponse, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use super::{
    audit::AuditRequest,
    auth::Caller,
    backup::RestoreRequest,
    limited::Limited,
    openapi::Described,
    operations::{OperationError, Operations},
    page::PageRequest,
    problem::{Effect, Refusal},
    request::{Input, Parameters},
    types::{
        ApplyRequest, ExplainRequest, JobId, RemoveRequest, RenewRequest, Scope, SyncRequest, TryRequest,
    },
};
use crate::{
    config::Role,
    model::{CompanyId, Language},
};

/// The service, as its caller may see it.
type Service = Arc<dyn Operations>;

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    /// Below `/admin/v1`.
    pub(super) path: &'static str,
    pub(super) role: Role,
    pub(super) summary: &'static str,
    /// What stands in the address.
    pub(super) address: Described,
    /// What is sent; absent with GET.
    pub(super) body: Option<Described>,
    pub(super) answer: Described,
    pub(super) handler: MethodRouter<Service>,
}

/// Nothing is to be said.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// One company, or all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OneOrAll {
    #[serde(default)]
    company: Option<CompanyId>,
}

/// The company in the address.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OfCompany {
    company: CompanyId,
}

/// A piece of a company's list.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PageOfCompany {
    company: CompanyId,
    /// `next` of the piece before; absent: from the beginning.
    #[serde(default)]
    after: Option<String>,
    /// Most items wanted: 500 where absent, and never more than 2,000.
    #[serde(default)]
    limit: Option<usize>,
}

impl PageOfCompany {
    fn split(self) -> (CompanyId, PageRequest) {
        (self.company, PageRequest { after: self.after, limit: self.limit })
    }
}

/// A piece of a company's list that tells causes and cures.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PageInWords {
    company: CompanyId,
    /// Language of causes and cures; English where absent.
    #[serde(default)]
    language: Option<Language>,
    /// `next` of the piece before; absent: from the beginning.
    #[serde(default)]
    after: Option<String>,
    /// Most items wanted: 500 where absent, and never more than 2,000.
    #[serde(default)]
    limit: Option<usize>,
}

impl PageInWords {
    fn split(self) -> (CompanyId, Option<Language>, PageRequest) {
        (self.company, self.language, PageRequest { after: self.after, limit: self.limit })
    }
}

/// The job in the address.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OfJob {
    job: JobId,
}

/// All routes.
pub(super) fn routes() -> Vec<Route> {
    use Role::{Admin, Operator, Read};
    vec![
        list("/companies", Read, "All companies", async |service: Service, _: Nothing| {
            service.companies().await
        }),
        post(
            "/companies/apply",
            Admin,
            "Make a company file live, all or nothing",
            async |service: Service, _: Nothing, request: ApplyRequest| service.apply(request).await,
        ),
        get(
            "/backup",
            Admin,
            "All that is configured of all companies, to be kept and restored",
            async |service: Service, page: PageRequest| service.backup(page).await,
        ),
        post(
            "/companies/restore",
            Admin,
            "Put a company back as it was in a backup",
            async |service: Service, _: Nothing, request: RestoreRequest| service.restore(request).await,
        ),
        post(
            "/companies/{company}/remove",
            Admin,
            "Give a company's phones back, delete its subscriptions, forget it",
            async |service: Service, of: OfCompany, request: RemoveRequest| {
                service.remove(of.company, request).await
            },
        ),
        get(
            "/companies/{company}/export",
            Operator,
            "A company as a company file",
            async |service: Service, of: OfCompany| service.export(of.company).await,
        ),
        post(
            "/companies/{company}/consent-url",
            Operator,
            "An address at which the company's administrator consents, once",
            async |service: Service, of: OfCompany, _: Nothing| service.consent_url(of.company).await,
        ),
        get(
            "/companies/{company}/users",
            Read,
            "A company's users, by extension",
            async |service: Service, of: PageOfCompany| {
                let (company, page) = of.split();
                service.users(company, page).await
            },
        ),
        get(
            "/companies/{company}/mailboxes",
            Read,
            "A company's mailboxes with their health, by extension",
            async |service: Service, of: PageInWords| {
                let (company, language, page) = of.split();
                service.mailboxes(company, language, page).await
            },
        ),
        get(
            "/companies/{company}/subscriptions",
            Read,
            "A company's subscriptions with their ends, by extension",
            async |service: Service, of: PageInWords| {
                let (company, language, page) = of.split();
                service.watches(company, language, page).await
            },
        ),
        get("/status", Read, "How companies and mailboxes stand", async |service: Service, of: Scope| {
            service.status(of).await
        }),
        get(
            "/explain",
            Read,
            "Why a user shows what they show",
            async |service: Service, request: ExplainRequest| service.explain(request).await,
        ),
        // A subject is posted: what stands in an address ends up in logs.
        post(
            "/try",
            Read,
            "What a subject would do; it is not kept",
            async |service: Service, _: Nothing, request: TryRequest| service.try_subject(request).await,
        ),
        list("/subscriptions", Read, "All subscriptions", async |service: Service, of: Scope| {
            service.subscriptions(of).await
        }),
        post(
            "/subscriptions/renew",
            Operator,
            "Start the renewal of subscriptions: one user's, a company's or all",
            async |service: Service, _: Nothing, request: RenewRequest| {
                scope_is_said(request.company.as_ref(), request.user.as_deref(), request.all)?;
                service.renew(request).await
            },
        ),
        list("/jobs", Read, "Jobs, the newest first", async |service: Service, of: OneOrAll| {
            service.jobs(of.company).await
        }),
        get("/jobs/{job}", Read, "How far a job has come", async |service: Service, of: OfJob| {
            service.job(of.job).await
        }),
        post(
            "/jobs/{job}/cancel",
            Operator,
            "End a job early: what has not begun stays as it is",
            async |service: Service, of: OfJob, _: Nothing| service.cancel(of.job).await,
        ),
        get("/check", Operator, "Try every outside system once", async |service: Service, of: Scope| {
            service.check(of).await
        }),
        post(
            "/sync",
            Operator,
            "Read calendars anew now",
            async |service: Service, _: Nothing, request: SyncRequest| {
                scope_is_said(request.company.as_ref(), request.user.as_deref(), request.all)?;
                service.sync_now(request).await
            },
        ),
        get(
            "/audit",
            Operator,
            "Who did what, the newest first",
            async |service: Service, request: AuditRequest| service.audit(request).await,
        ),
    ]
}

/// A body of which the essential part got lost must not act on everything.
fn scope_is_said(company: Option<&CompanyId>, user: Option<&str>, all: bool) -> Result<(), OperationError> {
    match (company, user, all) {
        (_, Some(_), true) => Err(OperationError::ScopeAmbiguous),
        (None, None, false) => Err(OperationError::ScopeMissing),
        _ => Ok(()),
    }
}

/// A route that only looks. `A` is what stands in the address.
fn get<A, T, F, Fut>(path: &'static str, role: Role, summary: &'static str, answer: F) -> Route
where
    A: DeserializeOwned + ToSchema + Send + 'static,
    T: Serialize + ToSchema + 'static,
    F: Fn(Service, A) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, OperationError>> + Send,
{
    look(path, role, summary, Described::of::<T>(), answer)
}

/// A route that gives a list.
fn list<A, T, F, Fut>(path: &'static str, role: Role, summary: &'static str, answer: F) -> Route
where
    A: DeserializeOwned + ToSchema + Send + 'static,
    T: Serialize + ToSchema + 'static,
    F: Fn(Service, A) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<Vec<T>, OperationError>> + Send,
{
    look(path, role, summary, Described::list::<T>(), answer)
}

fn look<A, T, F, Fut>(
    path: &'static str,
    role: Role,
    summary: &'static str,
    described: Described,
    answer: F,
) -> Route
where
    A: DeserializeOwned + ToSchema + Send + 'static,
    T: Serialize + 'static,
    F: Fn(Service, A) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, OperationError>> + Send,
{
    let handler = on(MethodFilter::GET, move |For(service): For, Parameters(address): Parameters<A>| {
        let asked = answer(service, address);
        async move { reply(asked.await, Effect::None) }
    });
    Route {
        method: Method::GET,
        path,
        role,
        summary,
        address: Described::of::<A>(),
        body: None,
        answer: described,
        handler,
    }
}

/// A route that does something, or takes what must not stand in an address. `B` is what is sent.
fn post<A, B, T, F, Fut>(path: &'static str, role: Role, summary: &'static str, answer: F) -> Route
where
    A: DeserializeOwned + ToSchema + Send + 'static,
    B: DeserializeOwned + ToSchema + Send + 'static,
    T: Serialize + ToSchema + 'static,
    F: Fn(Service, A, B) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<T, OperationError>> + Send,
{
    // What everybody may do who may look, changes nothing.
    let effect = if role == Role::Read { Effect::None } else { Effect::Change };
    let handler = on(
        MethodFilter::POST,
        move |For(service): For, Parameters(address): Parameters<A>, Input(body): Input<B>| {
            let asked = answer(service, address, body);
            async move { reply(asked.await, effect) }
        },
    );
    Route {
        method: Method::POST,
        path,
        role,
        summary,
        address: Described::of::<A>(),
        body: Some(Described::of::<B>()),
        answer: Described::of::<T>(),
        handler,
    }
}

fn reply<T: Serialize>(result: Result<T, OperationError>, effect: Effect) -> Response {
    match result {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => Refusal::of(error, effect).into_response(),
    }
}

/// The service in its caller's name and limits.
struct For(Service);

impl axum::extract::FromRequestParts<Service> for For {
    type Rejection = Refusal;

    async fn from_request_parts(
        parts: &mut axum::http::request::Parts,
        service: &Service,
    ) -> Result<Self, Refusal> {
        let caller = Extension::<Caller>::from_request_parts(parts, service).await;
        let Extension(caller) = caller.map_err(|_nobody| super::problem::Problem::unauthorised())?;
        let service = service.on_behalf_of(&caller.name);
        Ok(Self(match caller.companies {
            Some(companies) => Arc::new(Limited::new(service, companies)),
            None => service,
        }))
    }
}
