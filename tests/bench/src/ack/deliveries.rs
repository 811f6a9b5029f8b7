//! Requests as Graph sends them, each notification about another version of another item.

use std::collections::BTreeMap;

use anyhow::ensure;
use narvaro::{
    model::{CompanyId, MailboxId, TenantId},
    webhook::client_state::{Claim, Resource, StateKey, StateKeys},
};
use secrecy::SecretSlice;

/// The company they belong to.
pub(crate) const COMPANY: &str = "bench";

const TENANT: &str = "3f6c1a52-0b7e-4c1d-9a55-1c2f7e9b4d10";

/// What both sides sign and verify with.
pub(crate) fn keys() -> anyhow::Result<StateKeys> {
    Ok(StateKeys::new(StateKey::new("bench", &SecretSlice::from(vec![7; 32]))?, None))
}

fn subscription(mailbox: usize) -> String {
    format!("a4c2e0f8-7b1d-4935-86ca-{mailbox:012x}")
}

/// Makes requests; no two notifications of one maker are the same.
pub(crate) struct Deliveries {
    /// Of each mailbox that notifications are about, in turn.
    client_states: Vec<String>,
    next: u64,
}

impl Deliveries {
    pub(crate) fn new(mailboxes: u64) -> anyhow::Result<Self> {
        let (keys, tenant) = (keys()?, TENANT.parse::<TenantId>()?);
        let company: CompanyId = COMPANY.parse()?;
        let client_states = (1..=mailboxes)
            .map(|mailbox| {
                let claim = Claim { mailbox: MailboxId(mailbox), resource: Resource::Events, generation: 1 };
                keys.seal(&company, claim, &tenant)
            })
            .collect();
        Ok(Self { client_states, next: 0 })
    }

    /// Each subscription with its `clientState`: what a receiver without signatures has to know by heart.
    pub(crate) fn client_states(&self) -> BTreeMap<String, &str> {
        let known = self.client_states.iter().enumerate();
        known.map(|(mailbox, client_state)| (subscription(mailbox), client_state.as_str())).collect()
    }

    /// `posts` requests with `notifications` in each, head and body as they go over the wire.
    pub(crate) fn make(&mut self, posts: usize, notifications: usize) -> Vec<Vec<u8>> {
        (0..posts).map(|_| self.post(notifications)).collect()
    }

    fn post(&mut self, notifications: usize) -> Vec<u8> {
        let items: Vec<String> = (0..notifications).map(|_| self.notification()).collect();
        let body = format!(r#"{{"value":[{}]}}"#, items.join(","));
        let head = format!(
            "POST /graph/v1/notify HTTP/1.1\r\nHost: 127.0.0.1\r\n\
             Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        [head, body].concat().into_bytes()
    }

    /// One notification of an Outlook event without resource data, member for member in Graph's order.
    fn notification(&mut self) -> String {
        let serial = self.next;
        self.next += 1;
        let mailbox = usize::try_from(serial).unwrap_or(0) % self.client_states.len();
        let client_state = &self.client_states[mailbox];
        let subscription = subscription(mailbox);
        let user = format!("7b0a9f1c-3d52-4e86-8c17-{mailbox:012x}");
        // As long as the ids of Outlook's calendar items are; shorter ones would make the work less.
        let item = format!(
            "AAMkADhkMjk1LWJkNTAtNDQ3NC1hYWE4LTk3MTM1MGI2NTBjMgBGAAAAAADWG5Rk2yByBh5ossiVkVQOOSsd\
             wCR2Jf6AABwAAEOAAB{serial:016x}CR2JAAAlH8YdQb3YpyByBh5oA="
        );
        let etag = format!(r#"W/\"huDVPMoS{serial:016x}==\""#);
        format!(
            r##"{{"id":"lsgTZMr9KwAAA","subscriptionId":"{subscription}","subscriptionExpirationDateTime":"2026-11-29T20:15:00.0000000Z","clientState":"{client_state}","changeType":"updated","resource":"Users/{user}/Events/{item}","tenantId":"{TENANT}","resourceData":{{"@odata.type":"#Microsoft.Graph.Event","@odata.id":"Users/{user}/Events/{item}","@odata.etag":"{etag}","id":"{item}"}}}}"##
        )
    }

    /// Bytes of the body of a POST with one notification.
    ///
    /// # Errors
    /// Where that is far from Outlook's 950, because then it is not what was to be measured.
    pub(crate) fn body_bytes(&mut self) -> anyhow::Result<usize> {
        let body = self.notification().len() + r#"{"value":[]}"#.len();
        ensure!((900..=1_000).contains(&body), "a body of {body} bytes is not like Outlook's");
        Ok(body)
    }
}
