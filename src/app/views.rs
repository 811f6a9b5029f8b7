//! How a company and its mailboxes stand, put together from what is stored and what the links say.

use jiff::Timestamp;

use super::offices::OpenOffice;
use crate::{
    admin::{Consent, HealthReport, MailboxStatus, PbxLink, ShownPresence, SubscriptionInfo},
    company::User,
    health::Health,
    presence::LinkState,
    turn::state::MailboxState,
};

pub(super) fn consent(office: &OpenOffice) -> Consent {
    if office.company.file().integration.is_none() {
        return Consent::NotNeeded;
    }
    match office.tenant() {
        Some(tenant) => Consent::Given { tenant: tenant.to_string(), since: office.standing.consented_at },
        None => Consent::Missing,
    }
}

pub(super) fn link(office: &OpenOffice) -> PbxLink {
    match office.office.driver.as_ref().map(|driver| driver.link()) {
        None => PbxLink::None,
        Some(LinkState::Unknown) => PbxLink::Unknown,
        Some(LinkState::Up) => PbxLink::Up,
        Some(LinkState::Down { cause }) => PbxLink::Down { cause },
    }
}

/// How a company as a whole stands; `address` is what is wrong with our own notification address.
pub(super) fn company_health(
    office: &OpenOffice,
    mailboxes: &[MailboxStatus],
    address: Option<String>,
) -> Health {
    let (consent, link) = (consent(office), link(office));
    if matches!(consent, Consent::Missing) {
        return Health::NoConsent { code: "not given yet".into() };
    }
    if let Some(code) = withdrawn(mailboxes) {
        return Health::ConsentWithdrawn { code };
    }
    match link {
        PbxLink::Down { cause } => return Health::PbxUnreachable { said: cause },
        PbxLink::None => return Health::PbxMissing,
        PbxLink::Up | PbxLink::Unknown => {}
    }
    if matches!(consent, Consent::NotNeeded) {
        return Health::Fine;
    }
    match (office.office.push.now().suspicious_since(), address) {
        (Some(since), _) => Health::PushUnreliable { since },
        (None, Some(said)) => Health::NotificationAddressSilent { said },
        (None, None) => Health::Fine,
    }
}

/// Consent is gone where the login says so, or without its knowledge, where no mailbox may be read. One mailbox alone
/// proves nothing: it may be kept from us by itself.
fn withdrawn(mailboxes: &[MailboxStatus]) -> Option<String> {
    let states: Vec<_> = mailboxes.iter().map(|mailbox| &mailbox.health.health).collect();
    let told = states.iter().find_map(|state| match state {
        Health::ConsentWithdrawn { code } => Some(code.clone()),
        _ => None,
    });
    let mut denied = Vec::new();
    for state in states.into_iter().filter(|state| **state != Health::Disabled) {
        match state {
            Health::AccessDenied { code } => denied.push(code),
            _ => return told,
        }
    }
    told.or_else(|| denied.first().filter(|_| denied.len() > 1).map(|code| (*code).clone()))
}

pub(super) fn health(office: &OpenOffice, user: &User, state: &MailboxState, now: Timestamp) -> Health {
    if !user.enabled {
        return Health::Disabled;
    }
    let known = state.health();
    let lapsed = state.watch.as_ref().is_some_and(|watch| watch.expires <= now);
    match known {
        Health::Starting if matches!(consent(office), Consent::Missing) => {
            Health::NoConsent { code: "not given yet".into() }
        }
        Health::Fine if lapsed => {
            Health::SubscriptionLapsed { since: state.watch.as_ref().map(|watch| watch.expires) }
        }
        Health::Fine | Health::AliasNotPrimary { .. } => zone_trouble(state).unwrap_or(known),
        other => other,
    }
}

fn zone_trouble(state: &MailboxState) -> Option<Health> {
    let zone = &state.timetable.as_ref()?.zone;
    let problem = zone.problem()?;
    Some(Health::TimeZoneUnknown { name: problem.spelled, used: zone.name.clone() })
}

/// One user's mailbox as `status` shows it.
pub(super) fn mailbox(
    office: &OpenOffice,
    user: &User,
    state: &MailboxState,
    now: Timestamp,
) -> MailboxStatus {
    let health = health(office, user, state, now);
    MailboxStatus {
        extension: user.extension.clone(),
        alias: user.alias.clone(),
        name: user.name.clone(),
        health: HealthReport::of(health, office.company.language()),
        shown: state.shows.as_ref().map(|shows| ShownPresence {
            profile: shows.profile.clone(),
            label: shows.label.clone(),
            until: shows.until,
        }),
        subscription_expires: state.watch.as_ref().map(|watch| watch.expires),
        proven_until: state.proven_until,
        next_change: state.next_edge,
    }
}

/// One user's subscription as `subscriptions list` shows it.
pub(super) fn subscription(
    office: &OpenOffice,
    user: &User,
    state: &MailboxState,
    now: Timestamp,
) -> SubscriptionInfo {
    let health = health(office, user, state, now);
    let watch = state.watch.as_ref();
    SubscriptionInfo {
        company: office.company.id().clone(),
        extension: user.extension.clone(),
        alias: user.alias.clone(),
        id: watch.map(|watch| watch.id.clone()),
        expires: watch.map(|watch| watch.expires),
        renew_at: watch.map(|watch| watch.renew_at),
        health: HealthReport::of(health, office.company.language()),
    }
}
