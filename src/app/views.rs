//! How a company and its mailboxes stand, put together from what is stored and what the links say.

use jiff::Timestamp;

use super::offices::OpenOffice;
use crate::{
    admin::{Consent, HealthReport, MailboxStatus, PbxLink, ShownPresence, SubscriptionInfo},
    company::{User, records::MailboxRecord},
    health::Health,
    model::{Extension, Language},
    presence::LinkState,
    turn::state::{MailboxState, Trouble},
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
        Some(LinkState::Denied { reason }) => PbxLink::Denied { cause: reason },
    }
}

/// How a company as a whole stands; `address` is what is wrong with our own notification address.
pub(super) fn company_health(
    office: &OpenOffice,
    mailboxes: &[MailboxStatus],
    address: Option<String>,
) -> Health {
    if office.company.is_leaving() {
        return Health::Leaving;
    }
    let consent = consent(office);
    if matches!(consent, Consent::Missing) {
        return not_consented();
    }
    if let Some(code) = withdrawn(mailboxes) {
        return Health::ConsentWithdrawn { code };
    }
    if let Some(trouble) = link_trouble(office) {
        return trouble;
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

pub(super) fn not_consented() -> Health {
    Health::NoConsent { code: "not given yet".into() }
}

fn link_trouble(office: &OpenOffice) -> Option<Health> {
    match link(office) {
        PbxLink::None => Some(Health::PbxMissing),
        PbxLink::Down { cause } => Some(Health::PbxUnreachable { said: cause }),
        PbxLink::Denied { cause } => Some(Health::PbxDenied { said: cause }),
        PbxLink::Unknown | PbxLink::Up => None,
    }
}

/// Something that stands in a mailbox's way, and when it is tried again where that is known.
pub(super) struct Obstacle {
    pub(super) health: Health,
    pub(super) retry_at: Option<Timestamp>,
}

/// Everything that stands in a mailbox's way or deserves a look, the gravest first: calendar, subscription, PBX.
pub(super) fn troubles(
    office: &OpenOffice,
    user: &User,
    state: &MailboxState,
    now: Timestamp,
) -> Vec<Obstacle> {
    let plain = |health| Obstacle { health, retry_at: None };
    let noted =
        |trouble: &Trouble| Obstacle { health: trouble.health.clone(), retry_at: Some(trouble.retry_at) };
    if !user.enabled {
        return vec![plain(Health::Disabled)];
    }
    let calendar = match consent(office) {
        Consent::Missing => Some(plain(not_consented())),
        _ => state.calendar_trouble.as_ref().map(noted),
    };
    let watch = state.watch_trouble.as_ref().map(noted);
    let lapsed = lapsed(state, now).map(plain);
    let pbx = state.pbx_trouble.as_ref().map(noted).or_else(|| link_trouble(office).map(plain));
    let starting = (state.timetable.is_none() && calendar.is_none()).then_some(Health::Starting);
    let others = [state.alias_trouble(), zone_trouble(state), starting];
    let mut all: Vec<Obstacle> = Vec::new();
    for one in
        [calendar, watch, lapsed, pbx].into_iter().chain(others.map(|other| other.map(plain))).flatten()
    {
        // What keeps the calendar from us often keeps the subscription too.
        if !all.iter().any(|known| known.health == one.health) {
            all.push(one);
        }
    }
    all.sort_by_key(|one| std::cmp::Reverse(one.health.severity()));
    all
}

fn lapsed(state: &MailboxState, now: Timestamp) -> Option<Health> {
    let expires = state.watch.as_ref()?.expires;
    (expires <= now).then_some(Health::SubscriptionLapsed { since: Some(expires) })
}

pub(super) fn health(office: &OpenOffice, user: &User, state: &MailboxState, now: Timestamp) -> Health {
    if !user.enabled {
        return Health::Disabled;
    }
    match state.health() {
        Health::Starting if matches!(consent(office), Consent::Missing) => not_consented(),
        known @ (Health::Fine | Health::AliasNotPrimary { .. }) => {
            let lapsed = lapsed(state, now).filter(|_| known == Health::Fine);
            lapsed.or_else(|| zone_trouble(state)).unwrap_or(known)
        }
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
    language: Language,
) -> MailboxStatus {
    let health = health(office, user, state, now);
    MailboxStatus {
        name: user.name.clone(),
        alias: user.alias.clone(),
        ..of_state(&user.extension, health, state, language)
    }
}

/// The mailbox of a user who was taken out, until it is gone.
pub(super) fn leaving_mailbox(
    mailbox: &MailboxRecord,
    state: &MailboxState,
    language: Language,
) -> MailboxStatus {
    let trouble = state.pbx_trouble.as_ref().or(state.watch_trouble.as_ref());
    let health = trouble.map_or(Health::Leaving, |trouble| trouble.health.clone());
    of_state(&mailbox.extension, health, state, language)
}

/// What the PBX is known to show.
pub(super) fn shown(state: &MailboxState) -> Option<ShownPresence> {
    let shows = state.shows.as_ref()?;
    Some(ShownPresence { profile: shows.profile.clone(), label: shows.label.clone(), until: shows.until })
}

fn of_state(
    extension: &Extension,
    health: Health,
    state: &MailboxState,
    language: Language,
) -> MailboxStatus {
    MailboxStatus {
        extension: extension.clone(),
        alias: state.alias.clone(),
        name: None,
        health: HealthReport::of(health, language),
        shown: shown(state),
        subscription_expires: state.watch.as_ref().map(|watch| watch.expires),
        proven_until: state.proven_until,
        notified_at: state.push.notified_at,
        next_change: state.next_edge,
    }
}

/// One user's subscription as `subscriptions list` shows it.
pub(super) fn subscription(
    office: &OpenOffice,
    user: &User,
    state: &MailboxState,
    now: Timestamp,
    language: Language,
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
        health: HealthReport::of(health, language),
    }
}
