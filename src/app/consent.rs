//! The company administrator's consent: the address they open, and the call that comes back.
//!
//! Anybody can call the callback with any tenant, so the tenant it names proves nothing. What binds is our own
//! `state`: signed, for one company, good for half an hour and for one use. The named tenant is then tried with a
//! real login. A tenant that another company has is refused unless the operator's company file names it: else one
//! company's administrator could point their company at another's calendars (I14).
//!
//! After consent Microsoft's directory takes up to some minutes until a login works; that is no failure: the
//! mailboxes try again by themselves.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    Router,
    extract::{RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use jiff::Timestamp;
use tracing::{info, warn};

use super::{
    Tasks,
    offices::{Offices, OpenOffice},
};
use crate::{
    admin::ConsentUrl,
    calendar::CalendarSource,
    chain::Chain,
    clock::SharedClock,
    graph::{
        self, ConsentAnswer, ConsentError, ConsentTicket, Graph, STATE_LIFE, StateKey, consent_url,
        fresh_nonce,
    },
    model::{CompanyId, Language, TenantId},
};

/// Gives out consent addresses and takes the call that comes back.
pub(super) struct ConsentDesk {
    key: StateKey,
    graph: Arc<Graph>,
    offices: Arc<Offices>,
    clock: SharedClock,
    tasks: Tasks,
    redirect_uri: String,
    /// Refusals in the audit trail, by link and reason, with the link's end: who holds one must not fill the trail with it.
    refused: Mutex<HashMap<(String, &'static str), Timestamp>>,
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Connected,
    ConnectedSoon,
    Declined,
    NotOurs,
    TooLate,
    Spent,
    OtherTenant,
    TakenTenant,
    StoreAway,
}

impl ConsentDesk {
    pub(super) fn new(
        key: StateKey,
        graph: Arc<Graph>,
        offices: Arc<Offices>,
        clock: SharedClock,
        tasks: Tasks,
        public_url: &str,
    ) -> Arc<Self> {
        let redirect_uri = format!("{public_url}/consent/callback");
        Arc::new(Self { key, graph, offices, clock, tasks, redirect_uri, refused: Mutex::default() })
    }

    pub(super) fn routes(self: &Arc<Self>) -> Router {
        Router::new().route("/consent/callback", get(callback)).with_state(Arc::clone(self))
    }

    /// An address at which an administrator of the company consents.
    pub(super) fn address(&self, office: &OpenOffice) -> ConsentUrl {
        // A state tells its end in whole seconds.
        let now = self.clock.now();
        let expires = Timestamp::from_second((now + STATE_LIFE).as_second()).unwrap_or(now);
        let state = graph::issue(&self.key, office.company.id(), &fresh_nonce(), expires);
        let tenant = office.company.tenant();
        let url = consent_url(self.graph.cloud(), self.graph.client_id(), tenant, &self.redirect_uri, &state);
        ConsentUrl { url: url.to_string(), expires }
    }

    async fn take(self: &Arc<Self>, query: &str) -> (Outcome, Language) {
        let answer = match graph::read_callback(query) {
            Ok(answer) => answer,
            Err(error) => {
                warn!(error = %Chain(&error), "A call to the consent address was none");
                return (Outcome::NotOurs, Language::En);
            }
        };
        let (state, granted) = match answer {
            ConsentAnswer::Granted { tenant, state } => (Some(state), Ok(tenant)),
            ConsentAnswer::Declined { error, state } => (state, Err(error)),
        };
        let now = self.clock.now();
        let keys = std::slice::from_ref(&self.key);
        let ticket = match graph::verify(keys, state.as_deref().unwrap_or(""), now) {
            Ok(ticket) => ticket,
            Err(ConsentError::Forged) => return (Outcome::NotOurs, Language::En),
            Err(ConsentError::Expired) => return (Outcome::TooLate, Language::En),
        };
        let office = match self.offices.find(&ticket.company).await {
            Ok(Some(office)) => office,
            Ok(None) => return (Outcome::NotOurs, Language::En),
            Err(error) => {
                warn!(error = %Chain(&error), "A company cannot be looked up");
                return (Outcome::StoreAway, Language::En);
            }
        };
        let language = office.company.language();
        let desk = Arc::clone(self);
        // The link is spent before the consent is kept: a page that is closed in between must not lose it.
        let settle = async move { desk.settle(&office, &ticket, granted).await };
        (self.tasks.see_through("consent", settle).await.unwrap_or(Outcome::StoreAway), language)
    }

    async fn settle(
        &self,
        office: &OpenOffice,
        ticket: &ConsentTicket,
        granted: Result<TenantId, String>,
    ) -> Outcome {
        let outcome = match granted {
            Err(error) => {
                warn!(company.id = %ticket.company, code = error, "Consent was declined");
                Outcome::Declined
            }
            Ok(tenant) => self.connect(office, ticket, tenant).await,
        };
        if let Some(why) = outcome.refusal().filter(|why| self.is_first_refusal(ticket, why)) {
            self.offices.consent_refused(&ticket.company, why).await;
        }
        outcome
    }

    fn is_first_refusal(&self, ticket: &ConsentTicket, why: &'static str) -> bool {
        let now = self.clock.now();
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.retain(|_, expires| *expires > now);
        refused.insert((ticket.nonce.clone(), why), ticket.expires).is_none()
    }

    async fn connect(&self, office: &OpenOffice, ticket: &ConsentTicket, tenant: TenantId) -> Outcome {
        let company = &ticket.company;
        if let Some(outcome) = self.objection(office, company, &tenant) {
            return outcome;
        }
        match self.offices.spend(ticket).await {
            Ok(true) => {}
            Ok(false) => return Outcome::Spent,
            Err(error) => {
                warn!(company.id = %company, error = %Chain(&error), "A consent could not be kept");
                return Outcome::StoreAway;
            }
        }
        let login = self.graph.company(tenant.clone()).check().await;
        // A new consent may need minutes to spread, so that a first one is believed without a login; one that works is
        // never given up for one that does not.
        if login.is_err() && office.tenant().is_some_and(|known| *known != tenant) {
            warn!(company.id = %company, "A tenant without a login consented for company `{company}`, which has another");
            return Outcome::OtherTenant;
        }
        if let Err(error) = self.offices.consented(company, tenant).await {
            warn!(company.id = %company, error = %Chain(&error), "A consent could not be kept");
            return Outcome::StoreAway;
        }
        match login {
            Ok(_) => {
                info!(company.id = %company, "Company `{company}` is connected to Microsoft 365");
                Outcome::Connected
            }
            Err(error) => {
                warn!(company.id = %company, error = %Chain(&error), "Company `{company}` has consented; its login does not work yet");
                Outcome::ConnectedSoon
            }
        }
    }

    fn objection(&self, office: &OpenOffice, company: &CompanyId, tenant: &TenantId) -> Option<Outcome> {
        match office.company.tenant() {
            Some(named) if named == tenant => None,
            Some(_) => {
                warn!(company.id = %company, "Another tenant consented than the company file of `{company}` names");
                Some(Outcome::OtherTenant)
            }
            None => {
                let other = self.offices.other_with_tenant(company, tenant)?;
                warn!(company.id = %company, other.id = %other, "A tenant consented for `{company}` that company `{other}` has");
                Some(Outcome::TakenTenant)
            }
        }
    }
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::ConnectedSoon => "connected_soon",
            Self::Declined => "declined",
            Self::NotOurs => "not_ours",
            Self::TooLate => "too_late",
            Self::Spent => "spent",
            Self::OtherTenant => "other_tenant",
            Self::TakenTenant => "taken_tenant",
            Self::StoreAway => "store_away",
        }
    }

    /// Why nothing came of a consent, for the audit trail; nothing where one came, or where the call was none. Another
    /// company is not named: the trail is read by those who may see this one only (I14).
    fn refusal(&self) -> Option<&'static str> {
        match self {
            Self::Declined => Some("the company's administrator has declined"),
            Self::OtherTenant => Some("another tenant than the company's has consented"),
            Self::TakenTenant => Some("the tenant that has consented belongs to another company"),
            _ => None,
        }
    }

    fn status(&self) -> StatusCode {
        match self {
            Self::Connected | Self::ConnectedSoon | Self::Declined => StatusCode::OK,
            Self::NotOurs | Self::TooLate | Self::Spent => StatusCode::BAD_REQUEST,
            Self::OtherTenant | Self::TakenTenant => StatusCode::CONFLICT,
            Self::StoreAway => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn words(&self, language: Language) -> (&'static str, &'static str) {
        match (self, language) {
            (Self::Connected, Language::Sv) => {
                ("Klart", "Företagets kalendrar är anslutna. Ni kan stänga sidan.")
            }
            (Self::Connected, Language::En) => {
                ("Done", "The company's calendars are connected. You can close this page.")
            }
            (Self::ConnectedSoon, Language::Sv) => (
                "Snart klart",
                "Medgivandet är mottaget. Det kan ta några minuter innan Microsoft har spritt det. Ni kan stänga sidan.",
            ),
            (Self::ConnectedSoon, Language::En) => (
                "Nearly done",
                "Consent has been received. It can take Microsoft some minutes to spread it. You can close this page.",
            ),
            (Self::Declined, Language::Sv) => {
                ("Inget ändrades", "Medgivandet avböjdes. Öppna länken igen för att försöka på nytt.")
            }
            (Self::Declined, Language::En) => {
                ("Nothing has changed", "Consent was declined. Open the link again to try anew.")
            }
            (Self::NotOurs, Language::Sv) => ("Okänd länk", "Länken kommer inte från den här tjänsten."),
            (Self::NotOurs, Language::En) => ("Unknown link", "This link was not made by this service."),
            (Self::TooLate | Self::Spent, Language::Sv) => (
                "Länken gäller inte längre",
                "Be er operatör om en ny länk: var och en gäller en gång, i 30 minuter.",
            ),
            (Self::TooLate | Self::Spent, Language::En) => {
                ("The link has ended", "Ask your operator for a new one: each is good once, for 30 minutes.")
            }
            (Self::OtherTenant, Language::Sv) => (
                "Fel organisation",
                "Ni loggade in i en annan organisation än den som är angiven för företaget. Kontakta er operatör.",
            ),
            (Self::OtherTenant, Language::En) => (
                "Another organisation",
                "You signed in to another organisation than the one named for this company. Ask your operator.",
            ),
            (Self::TakenTenant, Language::Sv) => (
                "Organisationen är redan ansluten",
                "Ett annat företag här är anslutet till samma organisation. Er operatör kan ange den för båda.",
            ),
            (Self::TakenTenant, Language::En) => (
                "The organisation is connected already",
                "Another company here is connected to the same organisation. Your operator can name it for both.",
            ),
            (Self::StoreAway, Language::Sv) => ("Försök igen", "Tjänsten kan inte spara just nu."),
            (Self::StoreAway, Language::En) => ("Try again", "The service cannot store anything just now."),
        }
    }
}

async fn callback(State(desk): State<Arc<ConsentDesk>>, RawQuery(query): RawQuery) -> Response {
    let (outcome, language) = desk.take(query.as_deref().unwrap_or("")).await;
    metrics::counter!("narvaro_consent_calls_total", "outcome" => outcome.name()).increment(1);
    let (title, text) = outcome.words(language);
    let tag = match language {
        Language::Sv => "sv",
        Language::En => "en",
    };
    // Nothing that came with the call is shown.
    let page = format!(
        "<!doctype html><html lang=\"{tag}\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><body style=\"font-family:sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem\">\
         <h1>{title}</h1><p>{text}</p></body></html>"
    );
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
        ),
    ];
    (outcome.status(), headers, Html(page)).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;
    use crate::{
        clock::ManualClock,
        company::Company,
        config::{Config, Environment},
        graph::{AppCredential, Cloud, GraphConfig, Rich},
        queue::Shares,
        store::{
            Store,
            embedded::{Embedded, EmbeddedSettings},
        },
        webhook::sealed::{BoxLimits, SealedBox},
    };

    const TENANT: &str = "2b3c1d64-8a4f-4c1e-9d0b-7e5a6f8c9b10";
    const COMPANY: &str = "id = 'acme'\nname = 'Acme AB'\n[integration]\nkind = 'microsoft365'";

    #[tokio::test]
    async fn a_page_that_is_closed_at_once_loses_no_consent() {
        let folder = tempfile::tempdir().unwrap();
        let clock: SharedClock = ManualClock::at("2026-11-23T08:00:00Z".parse().unwrap());
        let path = folder.path().join("narvaro.db");
        let settings = EmbeddedSettings { path, shares: Shares::of(4), trail_entries: 10 };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&settings, Arc::clone(&clock)).unwrap());
        let company = Company::parse("acme.toml", COMPANY).unwrap().company;
        store.apply(company.id(), company.to_json().into_bytes(), vec![]).await.unwrap();
        // Nobody listens there: a first consent is believed without a login.
        let nobody: url::Url = "http://127.0.0.1:9".parse().unwrap();
        let cloud = Cloud::custom(nobody.clone(), nobody, true).unwrap();
        let credential = AppCredential::Secret("secret".into());
        let graph = GraphConfig { cloud, client_id: "narvaro".into(), credential };
        let graph = Graph::new(graph, Arc::clone(&clock)).unwrap();
        let keys = folder.path().join("encryption.keys");
        let brought = SealedBox::new(BoxLimits::default(), Arc::clone(&clock));
        let rich = Rich::new(Arc::clone(&graph), brought, keys).unwrap();
        let environment = Environment::of([("", ""); 0]);
        let pbx = Config::parse("test.toml", "", &environment).unwrap().pbx;
        let (tasks, links) = (Tasks::default(), Tasks::default());
        let offices = Offices::new(store, Arc::default(), rich, environment, pbx, Arc::clone(&clock), links);
        offices.load().await.unwrap();
        let office = offices.get(company.id()).unwrap();
        let key = StateKey::new(vec![7; 32]).unwrap();
        let address = "https://narvaro.example";
        let desk = ConsentDesk::new(key, graph, Arc::clone(&offices), clock, tasks.clone(), address);
        let url: url::Url = desk.address(&office).url.parse().unwrap();
        let (_, state) = url.query_pairs().find(|(name, _)| name == "state").unwrap();
        let query = format!("admin_consent=True&tenant={TENANT}&state={state}");
        // Looked at once and let go of, as when the browser closes the connection.
        assert_eq!(desk.take(&query).now_or_never(), None);
        tasks.end_within(Duration::from_secs(30)).await;
        let tenant = offices.get(company.id()).unwrap().standing.tenant;
        assert_eq!(tenant, Some(TENANT.parse().unwrap()));
    }
}
