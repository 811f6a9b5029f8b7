//! Makes requests, with graph-rs-sdk; [`Transport`](super::transport::Transport) sends them.
//!
//! The SDK knows Graph's paths and methods, and is used for these alone. It does not send: its paging drops
//! headers and follows links to any host with the token, a POST without a body has no length, its list of hosts
//! is closed and panics, and its retries sleep. So each request is taken apart as soon as it is built, and only
//! method, path, query and body go on.
//!
//! Two traps are shut here. Ids never pass through the SDK, which would lose a `..` and split an id at its `/`:
//! it is given place-holders, and the encoded id takes their place afterwards. And the SDK never holds a token:
//! it insists on an application that has one, so it is given [`Unsigned`]; a page and a retry need a fresh one.

use async_trait::async_trait;
use bytes::Bytes;
use graph_core::identity::ForceTokenRefresh;
use graph_rs_sdk::{GraphClient, GraphFailure, error::AuthExecutionResult, identity::ClientApplication};
use jiff::Timestamp;
use reqwest::Method;
use serde::Serialize;
use url::Url;

use super::{gates::Scope, wire::unreadable};
use crate::{
    calendar::{DeltaLink, MailboxRef, ReadError},
    model::{EventId, Interval, SubscriptionId},
};

/// Stands for the object id of the mailbox.
const MAILBOX: &str = "narvaro-mailbox";

/// Stands for the id of an event or a subscription.
const ITEM: &str = "narvaro-item";

/// Name of the requests of a round from the start of a window.
const DELTA: &str = "calendar_view_delta";

/// Name of the requests of a round from a link.
pub(super) const CHANGES: &str = "calendar_view_changes";

/// What is read of a single event. On views nothing is selected, see [`Requests::calendar_view`].
pub(super) const EVENT_FIELDS: &[&str] = &[
    "id",
    "type",
    "seriesMasterId",
    "originalStart",
    "subject",
    "start",
    "end",
    "isAllDay",
    "isCancelled",
    "isOrganizer",
    "showAs",
    "sensitivity",
    "responseStatus",
    "categories",
    "organizer",
    "lastModifiedDateTime",
];

/// What is read of a user.
const USER_FIELDS: &[&str] = &["id", "mail", "proxyAddresses", "userType"];

/// The SDK's signatory, who signs nothing.
#[derive(Debug, Clone, Copy)]
struct Unsigned;

#[async_trait]
impl ClientApplication for Unsigned {
    fn get_token_silent(&mut self) -> AuthExecutionResult<String> {
        Ok(String::new())
    }

    async fn get_token_silent_async(&mut self) -> AuthExecutionResult<String> {
        Ok(String::new())
    }

    fn with_force_token_refresh(&mut self, _: ForceTokenRefresh) {}
}

/// A request that is ready to be signed and sent, as often as it takes.
#[derive(Clone)]
pub(super) struct Call {
    /// What it does, for metrics and logs.
    pub(super) operation: &'static str,
    /// HTTP method.
    pub(super) method: Method,
    /// Where it goes; never printed, it holds ids and addresses.
    pub(super) url: Url,
    /// JSON.
    pub(super) body: Option<Bytes>,
    /// Whom it concerns.
    pub(super) scope: Scope,
    /// How many items a page should have.
    pub(super) page_size: Option<u16>,
}

/// Takes the SDK's request apart. A macro, because its type cannot be named without another dependency.
macro_rules! parts {
    ($handler:expr) => {
        async {
            let (_client, request) = $handler.build().await?.build_split();
            let request = request?;
            let body = request.body().and_then(|body| body.as_bytes()).map(Bytes::copy_from_slice);
            Ok::<_, GraphFailure>(Parts {
                method: request.method().clone(),
                url: request.url().clone(),
                body,
            })
        }
        .await
    };
}

struct Parts {
    method: Method,
    url: Url,
    body: Option<Bytes>,
}

/// Builds each request that we ever make.
pub(super) struct Requests {
    sdk: GraphClient,
    /// `https://graph.microsoft.com/v1.0/`
    root: Url,
}

impl Requests {
    /// Requests below this root.
    pub(super) fn new(root: Url) -> Self {
        Self { sdk: GraphClient::from_client_app(Unsigned), root }
    }

    /// Events of the default calendar that touch the window.
    ///
    /// Nothing is selected: `lastModifiedDateTime` cannot be on a calendar view, it comes only when all comes.
    pub(super) async fn calendar_view(
        &self,
        mailbox: &MailboxRef,
        window: Interval,
        page_size: u16,
    ) -> Result<Call, ReadError> {
        let handler = self
            .sdk
            .user(MAILBOX)
            .calendar_views()
            .list_calendar_view()
            .append_query_pair("startDateTime", &instant(window.start))
            .append_query_pair("endDateTime", &instant(window.end))
            .append_query_pair("$top", &page_size.to_string());
        let call =
            self.call("calendar_view", mailbox_scope(mailbox), parts!(handler), Some(mailbox), None)?;
        Ok(Call { page_size: Some(page_size), ..call })
    }

    /// The first page of a round over the default calendar's window. Neither `$select` nor `$top` may stand there;
    /// the page's size is a preference.
    pub(super) async fn calendar_delta(
        &self,
        mailbox: &MailboxRef,
        window: Interval,
        page_size: u16,
    ) -> Result<Call, ReadError> {
        let handler = self
            .sdk
            .user(MAILBOX)
            .calendar_views()
            .delta()
            .append_query_pair("startDateTime", &instant(window.start))
            .append_query_pair("endDateTime", &instant(window.end));
        let call = self.call(DELTA, mailbox_scope(mailbox), parts!(handler), Some(mailbox), None)?;
        Ok(Call { page_size: Some(page_size), ..call })
    }

    /// The first page of the round that goes on where an earlier one ended, if that was at the Graph we speak to.
    pub(super) fn calendar_delta_since(
        &self,
        mailbox: &MailboxRef,
        link: &DeltaLink,
        page_size: u16,
    ) -> Option<Call> {
        Some(Call {
            operation: CHANGES,
            method: Method::GET,
            url: self.ours(link.as_str())?,
            body: None,
            scope: mailbox_scope(mailbox),
            page_size: Some(page_size),
        })
    }

    /// One event.
    pub(super) async fn event(&self, mailbox: &MailboxRef, id: &EventId) -> Result<Call, ReadError> {
        let handler = self
            .sdk
            .user(MAILBOX)
            .event(ITEM)
            .get_events()
            .append_query_pair("$select", &EVENT_FIELDS.join(","));
        self.call("event", mailbox_scope(mailbox), parts!(handler), Some(mailbox), Some(id.as_str()))
    }

    /// Occurrences and exceptions of a series; nothing is selected, as on a calendar view.
    pub(super) async fn instances(
        &self,
        mailbox: &MailboxRef,
        series: &EventId,
        window: Interval,
        page_size: u16,
    ) -> Result<Call, ReadError> {
        let handler = self
            .sdk
            .user(MAILBOX)
            .event(ITEM)
            .instances()
            .list_instances()
            .append_query_pair("startDateTime", &instant(window.start))
            .append_query_pair("endDateTime", &instant(window.end))
            .append_query_pair("$top", &page_size.to_string());
        let series = Some(series.as_str());
        let call = self.call("instances", mailbox_scope(mailbox), parts!(handler), Some(mailbox), series)?;
        Ok(Call { page_size: Some(page_size), ..call })
    }

    /// The mailbox's time zone.
    pub(super) async fn time_zone(&self, mailbox: &MailboxRef) -> Result<Call, ReadError> {
        let handler = self.sdk.user(MAILBOX).mailbox_settings().get_time_zone();
        self.call("time_zone", mailbox_scope(mailbox), parts!(handler), Some(mailbox), None)
    }

    /// Users who have this address, as their primary one or another.
    pub(super) async fn users_with_address(&self, address: &str) -> Result<Call, ReadError> {
        let quoted = address.replace('\'', "''");
        let filter = format!("mail eq '{quoted}' or proxyAddresses/any(p:p eq 'smtp:{quoted}')");
        let handler = self
            .sdk
            .users()
            .list_user()
            .append_query_pair("$filter", &filter)
            .append_query_pair("$select", &USER_FIELDS.join(","));
        self.call("users", Scope::Directory, parts!(handler), None, None)
    }

    /// Sets up a subscription.
    pub(super) async fn create_subscription(&self, body: &impl Serialize) -> Result<Call, ReadError> {
        let handler = self.sdk.subscriptions().create_subscription(body);
        self.call("create_subscription", Scope::Subscriptions, parts!(handler), None, None)
    }

    /// Changes a subscription.
    pub(super) async fn update_subscription(
        &self,
        id: &SubscriptionId,
        body: &impl Serialize,
    ) -> Result<Call, ReadError> {
        let handler = self.sdk.subscription(ITEM).update_subscription(body);
        self.call("renew_subscription", Scope::Subscriptions, parts!(handler), None, Some(id.as_str()))
    }

    /// One subscription.
    pub(super) async fn subscription(&self, id: &SubscriptionId) -> Result<Call, ReadError> {
        let handler = self.sdk.subscription(ITEM).get_subscription();
        self.call("get_subscription", Scope::Subscriptions, parts!(handler), None, Some(id.as_str()))
    }

    /// Ends a subscription.
    pub(super) async fn delete_subscription(&self, id: &SubscriptionId) -> Result<Call, ReadError> {
        let handler = self.sdk.subscription(ITEM).delete_subscription();
        self.call("delete_subscription", Scope::Subscriptions, parts!(handler), None, Some(id.as_str()))
    }

    /// All subscriptions of this application in the tenant.
    pub(super) async fn list_subscriptions(&self) -> Result<Call, ReadError> {
        let handler = self.sdk.subscriptions().list_subscription();
        self.call("list_subscriptions", Scope::Subscriptions, parts!(handler), None, None)
    }

    /// The page that `call`'s answer names as the next one.
    ///
    /// # Errors
    /// [`ReadError::Unreadable`] where the link leads anywhere but to the Graph we speak to.
    pub(super) fn next_page(&self, call: &Call, link: &str) -> Result<Call, ReadError> {
        let url = self.ours(link).ok_or_else(|| unreadable("@odata.nextLink"))?;
        Ok(Call { url, ..call.clone() })
    }

    /// Where a round that has ended is to go on.
    ///
    /// # Errors
    /// As [`next_page`](Self::next_page).
    pub(super) fn next_round(&self, link: String) -> Result<DeltaLink, ReadError> {
        self.ours(&link).ok_or_else(|| unreadable("@odata.deltaLink"))?;
        Ok(DeltaLink::new(link))
    }

    /// A link out of an answer, if it leads to the Graph we speak to.
    fn ours(&self, link: &str) -> Option<Url> {
        let url = Url::parse(link).ok()?;
        let is_ours = url.origin() == self.root.origin()
            && url.username().is_empty()
            && url.password().is_none()
            && url.path().starts_with(self.root.path());
        is_ours.then_some(url)
    }

    fn call(
        &self,
        operation: &'static str,
        scope: Scope,
        parts: Result<Parts, GraphFailure>,
        mailbox: Option<&MailboxRef>,
        item: Option<&str>,
    ) -> Result<Call, ReadError> {
        let parts = parts.map_err(|_text_may_quote_the_request| refused("the request cannot be built"))?;
        let mailbox = mailbox.map(|mailbox| segment(&mailbox.object)).transpose()?;
        let item = item.map(segment).transpose()?;
        let mut path = self.root.path().trim_end_matches('/').to_owned();
        // The SDK's own root is `/v1.0`, which ours has already.
        for part in parts.url.path_segments().into_iter().flatten().skip(1) {
            path.push('/');
            path.push_str(match (part, &mailbox, &item) {
                (MAILBOX, Some(id), _) | (ITEM, _, Some(id)) => id,
                (other, _, _) => other,
            });
        }
        let mut url = self.root.clone();
        url.set_path(&path);
        // The SDK writes a space as `+`, which a strict reader takes for a plus; a real plus is `%2B` by now.
        let query = parts.url.query().map(|query| query.replace('+', "%20"));
        url.set_query(query.as_deref());
        Ok(Call { operation, method: parts.method, url, body: parts.body, scope, page_size: None })
    }
}

fn mailbox_scope(mailbox: &MailboxRef) -> Scope {
    Scope::Mailbox(mailbox.object.clone())
}

fn refused(reason: &str) -> ReadError {
    ReadError::Refused { reason: reason.to_owned() }
}

fn instant(at: Timestamp) -> String {
    at.to_string()
}

/// An id as one path segment: all but unreserved characters encoded, dot segments refused.
fn segment(id: &str) -> Result<String, ReadError> {
    if matches!(id, "" | "." | "..") || id.chars().any(char::is_control) {
        return Err(refused("an id cannot be part of an address"));
    }
    let mut encoded = String::with_capacity(id.len() + 8);
    for byte in id.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    Ok(encoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests(root: &str) -> Requests {
        Requests::new(Url::parse(root).unwrap())
    }

    fn mailbox(object: &str) -> MailboxRef {
        MailboxRef { object: object.to_owned() }
    }

    fn window() -> Interval {
        Interval::new("2026-11-22T00:00:00Z".parse().unwrap(), "2026-12-27T22:30:00Z".parse().unwrap())
    }

    #[tokio::test]
    async fn paths_methods_and_queries_are_graphs() {
        let requests = requests("https://graph.microsoft.us/v1.0/");
        let anna = mailbox("7b0a");
        let call = requests.calendar_view(&anna, window(), 50).await.unwrap();
        assert_eq!(
            call.url.as_str(),
            "https://graph.microsoft.us/v1.0/users/7b0a/calendarView?startDateTime=2026-11-22T00%3A00%3A00Z\
             &endDateTime=2026-12-27T22%3A30%3A00Z&%24top=50"
        );
        let call = requests.calendar_delta(&anna, window(), 50).await.unwrap();
        assert_eq!(
            call.url.as_str(),
            "https://graph.microsoft.us/v1.0/users/7b0a/calendarView/delta()?startDateTime=2026-11-22T00%3A00%3A00Z\
             &endDateTime=2026-12-27T22%3A30%3A00Z"
        );
        let id: EventId = "AAk=".parse().unwrap();
        let call = requests.instances(&anna, &id, window(), 50).await.unwrap();
        assert_eq!(call.url.path(), "/v1.0/users/7b0a/events/AAk%3D/instances");
        let call = requests.time_zone(&anna).await.unwrap();
        assert_eq!(
            (call.method, call.url.path()),
            (Method::GET, "/v1.0/users/7b0a/mailboxSettings/timeZone")
        );
        let watch: SubscriptionId = "a4c2".parse().unwrap();
        let call = requests.update_subscription(&watch, &serde_json::json!({"a": 1})).await.unwrap();
        assert_eq!((call.method, call.url.path()), (Method::PATCH, "/v1.0/subscriptions/a4c2"));
        assert_eq!(call.body.unwrap(), r#"{"a":1}"#);
        let call = requests.delete_subscription(&watch).await.unwrap();
        assert_eq!((call.method, call.url.path()), (Method::DELETE, "/v1.0/subscriptions/a4c2"));
        let call = requests.subscription(&watch).await.unwrap();
        assert_eq!((call.method, call.url.path()), (Method::GET, "/v1.0/subscriptions/a4c2"));
        assert_eq!(requests.list_subscriptions().await.unwrap().url.path(), "/v1.0/subscriptions");
        let call = requests.create_subscription(&serde_json::json!({})).await.unwrap();
        assert_eq!((call.method, call.url.path()), (Method::POST, "/v1.0/subscriptions"));
    }

    #[tokio::test]
    async fn an_id_stays_one_segment_whatever_it_is_made_of() {
        let requests = requests("http://127.0.0.1:1/v1.0/");
        for (id, path) in [
            ("a/b+c==", "a%2Fb%2Bc%3D%3D"),
            ("a?b#c", "a%3Fb%23c"),
            ("{{RID}}&<x>", "%7B%7BRID%7D%7D%26%3Cx%3E"),
            ("a%2e", "a%252e"),
            ("möte", "m%C3%B6te"),
            ("...", "..."),
            (MAILBOX, MAILBOX),
        ] {
            let call = requests.event(&mailbox("u"), &id.parse().unwrap()).await.unwrap();
            assert_eq!(call.url.path(), format!("/v1.0/users/u/events/{path}"));
        }
    }

    #[tokio::test]
    async fn a_dot_segment_is_refused_before_it_can_vanish() {
        let requests = requests("http://127.0.0.1:1/v1.0/");
        for id in ["..", ".", "", "a\nb"] {
            assert!(
                matches!(requests.time_zone(&mailbox(id)).await, Err(ReadError::Refused { .. })),
                "{id:?}"
            );
        }
    }

    #[tokio::test]
    async fn an_address_in_a_filter_keeps_its_quotes_and_its_plus() {
        let requests = requests("http://127.0.0.1:1/v1.0/");
        let call = requests.users_with_address("o'brien+x@a.example").await.unwrap();
        let query = call.url.query().unwrap();
        assert!(!query.contains('+'), "{query}");
        let filter = call.url.query_pairs().find(|(name, _)| name == "$filter").unwrap().1;
        assert_eq!(
            filter,
            "mail eq 'o''brien+x@a.example' or proxyAddresses/any(p:p eq 'smtp:o''brien+x@a.example')"
        );
    }

    #[tokio::test]
    async fn a_next_page_is_at_our_graph_or_nowhere() {
        let requests = requests("https://graph.microsoft.com/v1.0/");
        let first = requests.list_subscriptions().await.unwrap();
        let next =
            requests.next_page(&first, "https://graph.microsoft.com/v1.0/subscriptions?$skiptoken=x%2By");
        assert_eq!(next.unwrap().url.query(), Some("$skiptoken=x%2By"));
        for foreign in [
            "https://graph.microsoft.com.evil.example/v1.0/x",
            "http://graph.microsoft.com/v1.0/x",
            "https://graph.microsoft.com:444/v1.0/x",
            "https://me:pw@graph.microsoft.com/v1.0/x",
            "https://graph.microsoft.com/v1.0/../beta/x",
            "/v1.0/x",
            "",
        ] {
            assert!(requests.next_page(&first, foreign).is_err(), "{foreign}");
            assert!(requests.next_round(foreign.to_owned()).is_err(), "{foreign}");
            assert!(requests.calendar_delta_since(&mailbox("u"), &DeltaLink::new(foreign), 50).is_none());
        }
    }
}
