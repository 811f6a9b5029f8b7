//! [`WatchKeeper`] over Graph: subscriptions to a mailbox's events.
//!
//! A subscription is renewed with PATCH alone, which renews and reauthorizes: PATCH and `/reauthorize` within ten
//! minutes of each other leave it in an undefined state.
//! Facts: <https://learn.microsoft.com/graph/api/resources/subscription>.

use async_trait::async_trait;
use chrono::{DateTime as WireInstant, Utc};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    GraphCompany,
    builder::EVENT_FIELDS,
    refusal::{CallError, Refusal},
    rich::Certificate,
    wire::{self, Page, unreadable},
};
use crate::{
    calendar::{MailboxRef, ReadError},
    model::SubscriptionId,
    subscription::{LONGEST_LIFE, ListedWatch, Watch, WatchError, WatchKeeper, WatchPage, WatchRequest},
};

/// The same where events are sent along: 1,440 minutes.
const LONGEST_RICH_LIFE: SignedDuration = SignedDuration::from_mins(1_440 - 15);

/// The entry id of the folder that the event lies in (PidTagParentEntryId). Extended properties are all that can be
/// expanded in the resource of a subscription, and nothing that can be selected tells the calendar.
const EVENT_FOLDER: &str = "singleValueExtendedProperties($filter=id eq 'Binary 0x0E09')";

/// Longest secret that Graph keeps, in characters.
const LONGEST_CLIENT_STATE: usize = 128;

/// Pages of one list that are followed; no tenant has as many subscriptions of one application.
const MOST_PAGES: usize = 1_000;

/// Codes of a 403 that speak of the mailbox. Another one, on creating, is the quota: of that only the status is
/// documented.
const DENIED: &[&str] = &[
    "erroraccessdenied",
    "accessdenied",
    "extensionerror",
    "authorization_requestdenied",
    "insufficient_claims",
];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewSubscription<'a> {
    change_type: &'static str,
    resource: String,
    notification_url: &'a str,
    lifecycle_notification_url: &'a str,
    expiration_date_time: WireInstant<Utc>,
    client_state: &'a str,
    latest_supported_tls_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    include_resource_data: Option<bool>,
    #[serde(flatten)]
    encryption: Option<Encryption<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Renewal<'a> {
    expiration_date_time: WireInstant<Utc>,
    #[serde(flatten)]
    encryption: Option<Encryption<'a>>,
}

/// What events are sealed for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Encryption<'a> {
    encryption_certificate: &'a str,
    encryption_certificate_id: &'a str,
}

impl<'a> Encryption<'a> {
    fn with(certificate: &'a Certificate) -> Self {
        Self { encryption_certificate: &certificate.base64, encryption_certificate_id: &certificate.id }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireSubscription {
    id: String,
    resource: Option<String>,
    notification_url: Option<String>,
    expiration_date_time: WireInstant<Utc>,
}

impl WireSubscription {
    fn watch(&self) -> Result<Watch, ReadError> {
        let id = self.id.parse().map_err(|_quotes_the_id| unreadable("id"))?;
        let seconds = self.expiration_date_time.timestamp();
        let expires =
            Timestamp::from_second(seconds).map_err(|_out_of_range| unreadable("expirationDateTime"))?;
        Ok(Watch { id, expires })
    }

    fn listed(self) -> Result<ListedWatch, ReadError> {
        let watch = self.watch()?;
        let mailbox = self.resource.as_deref().and_then(mailbox_of);
        Ok(ListedWatch { id: watch.id, mailbox, reports_to: self.notification_url.unwrap_or_default() })
    }
}

/// The mailbox of `/users/{id}/events`, however that is spelled.
fn mailbox_of(resource: &str) -> Option<MailboxRef> {
    // With or without what is sent along.
    let path = resource.split_once('?').map_or(resource, |(path, _)| path);
    let mut parts = path.trim_start_matches('/').split('/');
    let (users, object, events) = (parts.next()?, parts.next()?, parts.next()?);
    let named = users.eq_ignore_ascii_case("users") && events.eq_ignore_ascii_case("events");
    (named && parts.next().is_none()).then(|| MailboxRef { object: object.to_owned() })
}

/// The subscription that the text of a 409 names.
fn named_in(message: &str) -> Option<SubscriptionId> {
    let words = message.split(|c: char| !(c.is_ascii_hexdigit() || c == '-'));
    words.into_iter().find(|word| word.len() == 36 && word.matches('-').count() == 4)?.parse().ok()
}

fn events_of(mailbox: &MailboxRef) -> String {
    format!("/users/{}/events", mailbox.object)
}

/// The same with what is sent along: what is read of a fetched event, and where it lies.
fn rich_events_of(mailbox: &MailboxRef) -> String {
    format!("{}?$select={}&$expand={EVENT_FOLDER}", events_of(mailbox), EVENT_FIELDS.join(","))
}

fn on_the_wire(at: Timestamp) -> Result<WireInstant<Utc>, WatchError> {
    WireInstant::from_timestamp(at.as_second(), 0)
        .ok_or_else(|| refused("the time to live is beyond the calendar"))
}

fn refused(reason: &str) -> WatchError {
    WatchError::Read(ReadError::Refused { reason: reason.to_owned() })
}

fn read(error: impl Into<ReadError>) -> WatchError {
    WatchError::Read(error.into())
}

impl GraphCompany {
    /// The end that is asked for: Graph refuses what is too far away.
    fn clamped(&self, until: Timestamp, certificate: Option<&Certificate>) -> Timestamp {
        let longest = certificate.map_or(LONGEST_LIFE, |_| LONGEST_RICH_LIFE);
        let furthest = self.graph.clock.now().checked_add(longest).unwrap_or(until);
        until.min(furthest)
    }

    /// Sets up a watch; with a certificate, events are sent along, sealed for it.
    pub(super) async fn create_watch(
        &self,
        request: &WatchRequest,
        certificate: Option<&Certificate>,
    ) -> Result<Watch, WatchError> {
        if request.client_state.chars().count() > LONGEST_CLIENT_STATE {
            return Err(refused("the client state is longer than 128 characters"));
        }
        let mailbox = &request.mailbox;
        let body = NewSubscription {
            change_type: "created,updated,deleted",
            resource: certificate.map_or_else(|| events_of(mailbox), |_| rich_events_of(mailbox)),
            notification_url: &request.notification_url,
            lifecycle_notification_url: &request.lifecycle_url,
            expiration_date_time: on_the_wire(self.clamped(request.until, certificate))?,
            client_state: &request.client_state,
            latest_supported_tls_version: "v1_2",
            include_resource_data: certificate.map(|_| true),
            encryption: certificate.map(Encryption::with),
        };
        let call = self.graph.requests.create_subscription(&body).await.map_err(WatchError::Read)?;
        match self.transport.send(&call).await {
            Ok(body) => wire::read::<WireSubscription>(&body).and_then(|made| made.watch()).map_err(read),
            Err(CallError::Refused(refusal)) => Err(creation_refused(refusal)),
            Err(error) => Err(read(error)),
        }
    }

    /// Extends a watch; with a certificate, events are sealed for that one from now on.
    pub(super) async fn renew_watch(
        &self,
        id: &SubscriptionId,
        until: Timestamp,
        certificate: Option<&Certificate>,
    ) -> Result<Watch, WatchError> {
        let body = Renewal {
            expiration_date_time: on_the_wire(self.clamped(until, certificate))?,
            encryption: certificate.map(Encryption::with),
        };
        let call = self.graph.requests.update_subscription(id, &body).await.map_err(WatchError::Read)?;
        match self.transport.send(&call).await {
            Ok(body) => wire::read::<WireSubscription>(&body).and_then(|made| made.watch()).map_err(read),
            Err(CallError::Refused(refusal)) => Err(change_refused(refusal)),
            Err(error) => Err(read(error)),
        }
    }
}

#[async_trait]
impl WatchKeeper for GraphCompany {
    async fn create(&self, request: &WatchRequest) -> Result<Watch, WatchError> {
        self.create_watch(request, None).await
    }

    async fn renew(&self, id: &SubscriptionId, until: Timestamp) -> Result<Watch, WatchError> {
        self.renew_watch(id, until, None).await
    }

    async fn remove(&self, id: &SubscriptionId) -> Result<(), WatchError> {
        let call = self.graph.requests.delete_subscription(id).await.map_err(WatchError::Read)?;
        match self.transport.send(&call).await {
            Ok(_) => Ok(()),
            Err(CallError::Refused(refusal)) => match change_refused(refusal) {
                WatchError::Gone => Ok(()),
                error => Err(error),
            },
            Err(error) => Err(read(error)),
        }
    }

    async fn look(&self, id: &SubscriptionId) -> Result<Option<ListedWatch>, WatchError> {
        let call = self.graph.requests.subscription(id).await.map_err(WatchError::Read)?;
        match self.transport.send(&call).await {
            Ok(body) => {
                let found = wire::read::<WireSubscription>(&body).and_then(WireSubscription::listed);
                found.map(Some).map_err(read)
            }
            Err(CallError::Refused(refusal)) => match change_refused(refusal) {
                WatchError::Gone => Ok(None),
                error => Err(error),
            },
            Err(error) => Err(read(error)),
        }
    }

    async fn find(&self, mailbox: &MailboxRef) -> Result<Vec<ListedWatch>, WatchError> {
        let mut found = Vec::new();
        let mut next = None;
        for _ in 0..MOST_PAGES {
            let page = self.list(next.as_deref()).await?;
            found.extend(page.watches.into_iter().filter(|watch| watch.is_on(mailbox)));
            next = page.next;
            if next.is_none() {
                return Ok(found);
            }
        }
        Err(read(unreadable("@odata.nextLink")))
    }

    async fn list(&self, next: Option<&str>) -> Result<WatchPage, WatchError> {
        let requests = &self.graph.requests;
        let mut call = requests.list_subscriptions().await.map_err(WatchError::Read)?;
        if let Some(link) = next {
            call = requests.next_page(&call, link).map_err(WatchError::Read)?;
        }
        let body = self.transport.send(&call).await.map_err(read)?;
        let page: Page<WireSubscription> = wire::read(&body).map_err(read)?;
        let watches = page.value.into_iter().map(WireSubscription::listed).collect::<Result<_, _>>();
        Ok(WatchPage { watches: watches.map_err(WatchError::Read)?, next: page.next })
    }
}

fn creation_refused(refusal: Refusal) -> WatchError {
    match refusal.status {
        400 if refusal.is(&["validationerror", "invalidrequest"]) => endpoint_refused(&refusal),
        403 if !refusal.is(DENIED) && refusal.has_code() => WatchError::Quota,
        409 => WatchError::Exists { named: named_in(&refusal.message) },
        _ => read(CallError::Refused(refusal)),
    }
}

fn change_refused(refusal: Refusal) -> WatchError {
    match refusal.status {
        400 if refusal.is(&["validationerror", "invalidrequest"]) => endpoint_refused(&refusal),
        // Graph says `ResourceNotFound`; what a proxy says of a missing page does not count.
        404 if refusal.has_code() && !refusal.is(&["extensionerror", "mailboxnotenabledforrestapi"]) => {
            WatchError::Gone
        }
        _ => read(CallError::Refused(refusal)),
    }
}

fn endpoint_refused(refusal: &Refusal) -> WatchError {
    WatchError::EndpointRefused { reason: format!("{}: {}", refusal.code, refusal.message) }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{super::testing::fixture, *};

    fn case(name: &str) -> Refusal {
        let cases = fixture("errors.json");
        let found = cases["cases"].as_array().unwrap().iter().find(|case| case["name"] == name).cloned();
        let case: Value = found.unwrap_or_else(|| panic!("no case `{name}`"));
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        Refusal::read(status, &serde_json::to_vec(&case["body"]).unwrap(), None, None)
    }

    #[test]
    fn refusals_of_a_new_subscription_are_told_apart() {
        for name in [
            "subscription: endpoint did not answer 200",
            "subscription: endpoint timed out",
            "subscription: wrong echo",
        ] {
            let error = creation_refused(case(name));
            assert!(
                matches!(&error, WatchError::EndpointRefused { reason } if reason.contains(": Subscription")),
                "{name}: {error:?}"
            );
        }
        let named = |name: &str| creation_refused(case(name));
        assert!(matches!(
            named("subscription duplicate (status and message documented, code string is not)"),
            WatchError::Exists { named: Some(_) }
        ));
        assert!(matches!(
            named("subscription quota (403 documented, code and text are not)"),
            WatchError::Quota
        ));
        assert!(matches!(
            named("subscription: mailbox behind says no"),
            WatchError::Read(ReadError::Denied { .. })
        ));
        assert!(matches!(named("no app role"), WatchError::Read(ReadError::Denied { .. })));
        assert!(matches!(
            named("subscription: mailbox not in cloud"),
            WatchError::Read(ReadError::NoMailbox { .. })
        ));
        assert!(matches!(
            named("subscription: backend unauthorized"),
            WatchError::Read(ReadError::Unreachable(_))
        ));
    }

    #[test]
    fn a_subscription_that_graph_does_not_know_is_gone_and_a_proxys_404_proves_nothing() {
        let gone = case("subscription gone on PATCH/GET/DELETE/reauthorize");
        assert!(matches!(change_refused(gone), WatchError::Gone));
        let proxy = Refusal::read(404, b"<html>not found</html>", None, None);
        assert!(matches!(change_refused(proxy), WatchError::Read(ReadError::Unreachable(_))));
    }

    #[test]
    fn the_end_is_what_graph_answered() {
        let answer = &fixture("subscription-create-response.json")["body"];
        let made: WireSubscription = wire::read(&serde_json::to_vec(answer).unwrap()).unwrap();
        let watch = made.watch().unwrap();
        assert_eq!(watch.expires, "2026-11-29T20:15:00Z".parse().unwrap());
        assert_eq!(watch.id.as_str(), "a4c2e0f8-7b1d-4935-86ca-5e9f3d2b1c07");
    }

    #[test]
    fn only_the_mailboxs_events_are_found_and_not_its_contacts() {
        let list: Page<WireSubscription> =
            wire::read(&serde_json::to_vec(&fixture("subscription-list-response.json")).unwrap()).unwrap();
        let anna = MailboxRef { object: "7B0A9F1C-3d52-4e86-8c17-2f6e5d4c3b21".to_owned() };
        let listed = list.value.into_iter().map(|one| one.listed().unwrap());
        let found: Vec<_> = listed.filter(|one| one.is_on(&anna)).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].id.as_str(), "a4c2e0f8-7b1d-4935-86ca-5e9f3d2b1c07");
    }
}
