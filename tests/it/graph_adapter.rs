//! The Graph adapter against a Graph that is stricter than Microsoft's, and keeps a journal of what it disliked.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::Query, routing::post};
use jiff::{SignedDuration, Timestamp, civil::date};
use narvaro::{
    calendar::{CalendarSource, MailboxRef, ReadError},
    clock::{Clock, SharedClock, Sleep},
    graph::{AppCredential, Cloud, Graph, GraphCompany, GraphConfig},
    model::{CalendarEvent, EventKind, Interval, Response, Sensitivity, ShowAs, When},
    subscription::{WatchError, WatchKeeper, WatchRequest},
};
use narvaro_sim::{
    AppSpec, EventSpec, Fault, FaultFilter, FaultKind, MailboxKind, SeriesSpec, Sim, SimClock, SimOptions,
    TenantSpec, UserKind, UserSpec,
};
use tokio::{net::TcpListener, task::JoinSet};
use url::Url;

const CLIENT: &str = "6d2f4b8e-91c7-4a3d-b0e5-5f7c8a1e2d34";
pub(crate) const ANNA: &str = "anna@acme.example";

/// The simulator's clock, as the service's own.
struct OneClock(SimClock);

impl Clock for OneClock {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn sleep_until(&self, _: Timestamp) -> Sleep {
        panic!("the Graph adapter never sleeps")
    }
}

pub(crate) struct World {
    pub(crate) sim: Sim,
    tenant: String,
    pub(crate) company: Arc<GraphCompany>,
    pub(crate) anna: MailboxRef,
}

impl World {
    pub(crate) async fn new() -> Self {
        let secret = AppCredential::Secret("s3cret".into());
        Self::with(AppSpec::new(CLIENT, "s3cret"), secret).await
    }

    async fn with(app: AppSpec, credential: AppCredential) -> Self {
        let sim = Sim::start(SimOptions::default()).await.unwrap();
        sim.set_time(at("2026-11-22T20:00:00Z"));
        sim.add_app(app).unwrap();
        let tenant = sim.add_tenant(TenantSpec::new("acme.example")).unwrap();
        sim.consent(&tenant, CLIENT).unwrap();
        let proxies = vec!["a.berg@acme.example".to_owned()];
        let spec = UserSpec { proxies, upn: "aberg@corp.acme.example".to_owned(), ..UserSpec::new(ANNA) };
        let anna = MailboxRef { object: sim.add_user(&tenant, spec).unwrap() };
        let base = Url::parse(sim.base_url()).unwrap();
        let cloud = Cloud::custom(base.clone(), base, true).unwrap();
        let clock: SharedClock = Arc::new(OneClock(sim.clock().clone()));
        let graph =
            Graph::new(GraphConfig { cloud, client_id: CLIENT.to_owned(), credential }, clock).unwrap();
        let company = graph.company(tenant.parse().unwrap());
        Self { sim, tenant, company, anna }
    }

    /// Adds an event and reads it back by its id.
    async fn event(&self, spec: EventSpec) -> CalendarEvent {
        let ids = self.sim.add_event(ANNA, spec).unwrap();
        self.company.event(&self.anna, &ids.id.parse().unwrap()).await.unwrap().unwrap()
    }

    pub(crate) async fn view(&self) -> Result<Vec<CalendarEvent>, ReadError> {
        Ok(self.company.round(&self.anna, window(), None).await?.events)
    }

    /// Ends a test: nothing that the simulator saw was against the rules.
    pub(crate) fn is_clean(&self) {
        assert!(self.sim.violations().is_empty(), "{:#?}", self.sim.violations());
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn window() -> Interval {
    Interval::new(at("2026-11-21T23:00:00Z"), at("2026-12-27T23:00:00Z"))
}

pub(crate) fn lunch() -> EventSpec {
    EventSpec::new("Lunch").at(at("2026-11-23T11:00:00Z"), at("2026-11-23T12:00:00Z"))
}

pub(crate) fn subject(event: &CalendarEvent) -> &str {
    event.subject.as_ref().unwrap().expose()
}

#[tokio::test]
async fn a_calendar_is_read_whole_with_series_expanded_and_other_calendars_left_out() {
    let world = World::new().await;
    let sim = &world.sim;
    sim.add_event(ANNA, lunch().show_as(narvaro_sim::ShowAs::Oof)).unwrap();
    sim.add_event(ANNA, EventSpec::new("Holiday").all_day(date(2026, 12, 1), 3)).unwrap();
    sim.add_event(ANNA, lunch().series(SeriesSpec::weekly(3))).unwrap();
    sim.add_event(ANNA, lunch().in_secondary_calendar()).unwrap();
    let invited = EventSpec::new("Visit").at(at("2026-11-24T08:00:00Z"), at("2026-11-24T09:00:00Z"));
    let invited = invited.invited_by("eva@Other.example", narvaro_sim::Response::TentativelyAccepted);
    sim.add_event(ANNA, invited.sensitivity(narvaro_sim::Sensitivity::Private)).unwrap();

    let events = world.view().await.unwrap();
    assert_eq!(events.len(), 6);
    let named = |name: &str| events.iter().filter(|event| subject(event) == name).collect::<Vec<_>>();
    let single = named("Lunch").into_iter().find(|event| event.kind == EventKind::Single).unwrap();
    let noon = Interval::new(at("2026-11-23T11:00:00Z"), at("2026-11-23T12:00:00Z"));
    assert_eq!((single.when, single.show_as), (When::Timed(noon), ShowAs::Oof));
    assert!(single.last_modified.is_some());
    let days = When::AllDay { first: date(2026, 12, 1), last: date(2026, 12, 4) };
    assert_eq!(named("Holiday")[0].when, days);
    let occurrences: Vec<_> = events.iter().filter(|event| event.kind == EventKind::Occurrence).collect();
    assert_eq!(occurrences.len(), 3);
    assert!(occurrences.iter().all(|event| event.series == occurrences[0].series && event.series.is_some()));
    let visit = named("Visit")[0];
    assert_eq!((visit.response, visit.sensitivity), (Response::Tentative, Sensitivity::Private));
    assert_eq!(visit.organizer_domain.as_deref(), Some("other.example"));
    world.is_clean();
}

#[tokio::test]
async fn a_full_calendar_comes_over_many_pages() {
    let world = World::new().await;
    for n in 0..120 {
        world.sim.add_event(ANNA, EventSpec { subject: Some(format!("E{n}")), ..lunch() }).unwrap();
    }
    let mut subjects: Vec<_> =
        world.view().await.unwrap().iter().map(|event| subject(event).to_owned()).collect();
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), 120);
    let calls = world.sim.journal().graph_calls();
    assert_eq!(calls.len(), 3);
    assert!(calls.iter().all(|call| call.immutable_id));
    world.is_clean();
}

#[tokio::test]
async fn a_deleted_event_is_none_and_a_cancelled_one_says_so() {
    let world = World::new().await;
    let event = world.event(lunch()).await;
    world.sim.cancel_event(ANNA, event.id.as_str()).unwrap();
    assert!(world.company.event(&world.anna, &event.id).await.unwrap().unwrap().cancelled);
    world.sim.delete_event(ANNA, event.id.as_str()).unwrap();
    assert_eq!(world.company.event(&world.anna, &event.id).await.unwrap(), None);
    world.is_clean();
}

#[tokio::test]
async fn instances_of_a_series_come_by_its_master_and_stop_when_it_is_gone() {
    let world = World::new().await;
    let master = world.event(lunch().series(SeriesSpec::daily(5))).await;
    assert_eq!(master.kind, EventKind::SeriesMaster);
    let instances = world.company.instances(&world.anna, &master.id, window()).await.unwrap();
    assert_eq!(instances.len(), 5);
    assert!(instances.iter().all(|event| event.series.as_ref() == Some(&master.id)));
    world.sim.delete_event(ANNA, master.id.as_str()).unwrap();
    assert_eq!(world.company.instances(&world.anna, &master.id, window()).await.unwrap(), []);
    world.is_clean();
}

#[tokio::test]
async fn every_kind_of_event_is_placed_in_its_calendar() {
    let world = World::new().await;
    let long = EventSpec::new("Fair").at(at("2026-11-20T08:00:00Z"), at("2026-12-20T08:00:00Z"));
    let all_day = EventSpec::new("Holiday").all_day(date(2026, 12, 1), 3);
    let empty = EventSpec::new("Mark").at(at("2026-11-24T08:00:00Z"), at("2026-11-24T08:00:00Z"));
    for spec in [lunch(), long, all_day, empty, lunch().series(SeriesSpec::daily(5))] {
        let name = spec.subject.clone();
        let at_home = world.event(spec.clone()).await;
        assert!(world.company.in_default_calendar(&world.anna, &at_home).await.unwrap(), "{name:?}");
        let elsewhere = world.event(spec.in_secondary_calendar()).await;
        assert!(!world.company.in_default_calendar(&world.anna, &elsewhere).await.unwrap(), "{name:?}");
    }
    world.is_clean();
}

#[tokio::test]
async fn a_user_is_found_by_its_addresses_and_by_nothing_else() {
    let world = World::new().await;
    let company = &world.company;
    assert_eq!(company.resolve("Anna@acme.example").await.unwrap().mailbox, world.anna);
    let found = company.resolve("a.berg@acme.example").await.unwrap();
    assert_eq!(found.primary_smtp.as_deref(), Some(ANNA));
    for stranger in ["aberg@corp.acme.example", "nobody@acme.example", "o'brien@acme.example"] {
        let outcome = company.resolve(stranger).await;
        assert!(matches!(outcome, Err(ReadError::UnknownAlias { .. })), "{stranger}: {outcome:?}");
    }
    let guest = UserSpec { kind: UserKind::Guest, ..UserSpec::new("eva@other.example") };
    world.sim.add_user(&world.tenant, guest).unwrap();
    assert!(matches!(company.resolve("eva@other.example").await, Err(ReadError::NoMailbox { .. })));
    let shared = UserSpec { kind: UserKind::Shared, ..UserSpec::new("room@acme.example") };
    let room = world.sim.add_user(&world.tenant, shared).unwrap();
    assert_eq!(company.resolve("room@acme.example").await.unwrap().mailbox.object, room);
    world.is_clean();
}

#[tokio::test]
async fn a_time_zone_is_told_as_the_mailbox_has_it() {
    let world = World::new().await;
    world.sim.set_time_zone(ANNA, "W. Europe Standard Time").unwrap();
    let zone = world.company.time_zone(&world.anna).await.unwrap();
    assert_eq!(zone.as_deref(), Some("W. Europe Standard Time"));
    world.sim.set_time_zone(ANNA, "").unwrap();
    assert_eq!(world.company.time_zone(&world.anna).await.unwrap(), None);
    world.is_clean();
}

#[tokio::test]
async fn a_mailbox_that_cannot_be_read_says_why() {
    let world = World::new().await;
    world.sim.set_mailbox(ANNA, MailboxKind::NoMailbox).unwrap();
    assert!(matches!(world.view().await, Err(ReadError::NoMailbox { .. })));
    world.sim.set_mailbox(ANNA, MailboxKind::Denied).unwrap();
    assert!(matches!(world.view().await, Err(ReadError::Denied { .. })));
    world.sim.remove_user(ANNA).unwrap();
    assert!(matches!(world.view().await, Err(ReadError::Gone { .. })));
    world.is_clean();
}

#[tokio::test]
async fn withdrawn_consent_is_told_from_a_missing_permission() {
    let world = World::new().await;
    world.sim.withdraw_permission(&world.tenant, CLIENT, "User.Read.All").unwrap();
    assert!(matches!(world.company.resolve(ANNA).await, Err(ReadError::NoConsent { .. })));
    world.sim.revoke_consent(&world.tenant, CLIENT, true).unwrap();
    let outcome = world.company.check().await;
    assert!(
        matches!(&outcome, Err(ReadError::NoConsent { reason }) if reason == "AADSTS700016"),
        "{outcome:?}"
    );
    world.sim.consent(&world.tenant, CLIENT).unwrap();
    world.company.check().await.unwrap();
    assert_eq!(world.view().await.unwrap(), []);
    world.is_clean();
}

#[tokio::test]
async fn a_wrong_secret_is_ours_to_mend() {
    let world = World::with(AppSpec::new(CLIENT, "s3cret"), AppCredential::Secret("other".into())).await;
    let outcome = world.view().await;
    assert!(
        matches!(&outcome, Err(ReadError::Credentials { reason }) if reason == "AADSTS7000215"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_registered_certificate_opens_the_door() {
    let key = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let params = rcgen::CertificateParams::new(vec!["narvaro.example".to_owned()]).unwrap();
    let cert_pem = params.self_signed(&key).unwrap().pem();
    let app =
        AppSpec { client_id: CLIENT.to_owned(), certificates: vec![cert_pem.clone()], ..AppSpec::default() };
    let credential = AppCredential::Certificate { cert_pem, key_pem: key.serialize_pem().into() };
    let world = World::with(app, credential).await;
    assert_eq!(world.view().await.unwrap(), []);
    world.is_clean();
}

#[tokio::test]
async fn tokens_that_end_early_are_replaced_unseen() {
    let world = World::new().await;
    world.view().await.unwrap();
    world.sim.expire_tokens();
    world.view().await.unwrap();
    world.is_clean();
}

#[tokio::test]
async fn a_wait_is_told_kept_and_never_cut_short() {
    let world = World::new().await;
    world.sim.throttle(1, Duration::from_millis(2128));
    let wait = Some(Duration::from_millis(2128));
    assert!(matches!(world.view().await, Err(ReadError::Throttled { retry_after }) if retry_after == wait));
    for _ in 0..3 {
        assert!(matches!(world.view().await, Err(ReadError::Throttled { .. })));
    }
    assert_eq!(world.sim.journal().graph_calls().len(), 1);
    world.sim.clock().advance(SignedDuration::from_secs(3));
    world.view().await.unwrap();
    world.is_clean();
}

#[tokio::test]
async fn broken_answers_are_no_short_days() {
    let world = World::new().await;
    world.sim.add_event(ANNA, lunch()).unwrap();
    for fault in [
        FaultKind::Html { status: 502 },
        FaultKind::Empty { status: 504 },
        FaultKind::Status { status: 500, code: None, retry_after: None },
        FaultKind::CutBody,
        FaultKind::Drop,
    ] {
        world.sim.fault(Fault::next(1, fault.clone()));
        let outcome = world.view().await;
        assert!(matches!(outcome, Err(ReadError::Unreachable(_))), "{fault:?}: {outcome:?}");
        // A 504 keeps us away for a moment.
        world.sim.clock().advance(SignedDuration::from_secs(2));
    }
    assert_eq!(world.view().await.unwrap().len(), 1);
    world.is_clean();
}

#[tokio::test]
async fn many_questions_about_one_mailbox_are_asked_four_at_a_time() {
    let world = World::new().await;
    let slow = Fault::next(16, FaultKind::Slow { millis: 20 });
    world.sim.fault(slow.only(FaultFilter::mailbox(&world.anna.object)));
    for outcome in futures_util::future::join_all((0..16).map(|_| world.view())).await {
        outcome.unwrap();
    }
    world.is_clean();
}

/// Answers validation requests, for as long as it is held.
async fn endpoint() -> (String, JoinSet<()>) {
    async fn echo(Query(query): Query<std::collections::HashMap<String, String>>) -> String {
        query.get("validationToken").cloned().unwrap_or_default()
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/notify", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    let app = Router::new().route("/notify", post(echo));
    server.spawn(async move { axum::serve(listener, app).await.unwrap() });
    (url, server)
}

fn watch(world: &World, url: &str) -> WatchRequest {
    WatchRequest {
        mailbox: world.anna.clone(),
        notification_url: url.to_owned(),
        lifecycle_url: url.to_owned(),
        client_state: "v1.secret".to_owned(),
        until: at("2027-01-01T00:00:00Z"),
    }
}

#[tokio::test]
async fn a_watch_lives_from_its_creation_to_its_end() {
    let world = World::new().await;
    let (url, _endpoint) = endpoint().await;
    let request = watch(&world, &url);
    let made = world.company.create(&request).await.unwrap();
    assert_eq!(made.expires, at("2026-11-29T19:45:00Z"));
    let kept = &world.sim.subscriptions()[0];
    assert!(kept.immutable && kept.lifecycle_url.is_some());
    assert!(matches!(world.company.create(&request).await, Err(WatchError::Exists { .. })));
    let found = world.company.find(&world.anna).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].id, &found[0].reports_to), (&made.id, &url));
    assert_eq!(world.company.look(&made.id).await.unwrap().as_ref(), found.first());
    assert_eq!(world.company.find(&MailboxRef { object: "other".to_owned() }).await.unwrap(), []);

    world.sim.clock().advance(SignedDuration::from_hours(24));
    let renewed = world.company.renew(&made.id, at("2027-01-01T00:00:00Z")).await.unwrap();
    assert_eq!(renewed.expires, at("2026-11-30T19:45:00Z"));
    world.sim.expire_subscription(made.id.as_str());
    let outcome = world.company.renew(&made.id, at("2027-01-01T00:00:00Z")).await;
    assert!(matches!(outcome, Err(WatchError::Gone)));
    world.company.remove(&made.id).await.unwrap();

    let anew = world.company.create(&request).await.unwrap();
    world.company.remove(&anew.id).await.unwrap();
    assert!(world.sim.subscriptions().is_empty());
    world.is_clean();
}

#[tokio::test]
async fn a_watch_whose_endpoint_or_mailbox_says_no_tells_which() {
    let world = World::new().await;
    let (url, _endpoint) = endpoint().await;
    world.sim.set_mailbox(ANNA, MailboxKind::Denied).unwrap();
    let outcome = world.company.create(&watch(&world, &url)).await;
    assert!(matches!(outcome, Err(WatchError::Read(ReadError::Denied { .. }))), "{outcome:?}");
    world.sim.set_mailbox(ANNA, MailboxKind::NoMailbox).unwrap();
    let outcome = world.company.create(&watch(&world, &url)).await;
    assert!(matches!(outcome, Err(WatchError::Read(ReadError::NoMailbox { .. }))), "{outcome:?}");
    world.sim.set_mailbox(ANNA, MailboxKind::Licensed).unwrap();
    let deaf = url.replace("/notify", "/nobody");
    let outcome = world.company.create(&watch(&world, &deaf)).await;
    assert!(matches!(outcome, Err(WatchError::EndpointRefused { .. })), "{outcome:?}");
    world.is_clean();
}
