//! Who sits where: for each mailbox the rules, the calendar and the PBX that its turn works with.
//!
//! Filled from applied companies only; a draft never gets here (I13). A look-up is by mailbox id, which the
//! store gave out for one company, so that no identifier from outside leads into another company (I14).

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use async_trait::async_trait;

use crate::{
    calendar::{BroughtEvents, CalendarSource},
    model::{CompanyId, Extension, Language, MailboxId, Rules, TenantId},
    presence::PbxDriver,
    queue::StoreError,
    subscription::{Push, WatchKeeper},
    timetable::{Matcher, RuleError, digest_of},
};

/// Rules with their words compiled.
#[derive(Debug)]
pub struct Ruleset {
    /// The rules.
    pub rules: Rules,
    /// Their trigger words, ready to be held against subjects.
    pub matcher: Matcher,
    /// What tells these rules from others by which the same calendar would come to another timetable: words, and which
    /// events count. Texts, zone and languages have no part in it; they are asked for when something is shown.
    pub digest: u64,
}

impl Ruleset {
    /// Compiles the words of `rules`.
    ///
    /// # Errors
    /// As [`Matcher::new`].
    pub fn new(rules: Rules) -> Result<Self, RuleError> {
        let matcher = Matcher::new(&rules)?;
        let digest = digest_of(&(matcher.digest(), &rules.counting));
        Ok(Self { rules, matcher, digest })
    }
}

/// Where a company's calendars are.
#[derive(Clone)]
pub struct Integration {
    /// The company's tenant.
    pub tenant: TenantId,
    /// Reads calendars.
    pub source: Arc<dyn CalendarSource>,
    /// What notifications bring of events, where the company has them sent along.
    pub brought: Option<Arc<dyn BroughtEvents>>,
    /// Keeps watches.
    pub watches: Arc<dyn WatchKeeper>,
}

/// A company as turns need it.
pub struct Office {
    /// Which company.
    pub company: CompanyId,
    /// What of the company's story this is ([`CompanyRecord::revision`](crate::company::records::CompanyRecord::revision)).
    pub revision: u64,
    /// Language of texts.
    pub language: Language,
    /// Rules of all who have no words of their own.
    pub common: Arc<Ruleset>,
    /// Calendars; `None` until the company has consented.
    pub integration: Option<Integration>,
    /// Whether what changes is announced.
    pub push: Arc<Push>,
    /// The PBX; `None` where the company names none.
    pub driver: Option<Arc<dyn PbxDriver>>,
}

/// One user's place.
#[derive(Clone)]
pub struct Seat {
    /// The company.
    pub office: Arc<Office>,
    /// The user's extension.
    pub extension: Extension,
    /// The user's address; `None` once the user was taken out, or is switched off.
    pub alias: Option<Arc<str>>,
    /// Whether the user was taken out of the company.
    pub retired: bool,
    /// Rules of this user, where they differ.
    pub own: Option<Arc<Ruleset>>,
}

impl Seat {
    /// The rules that hold for this user.
    pub fn ruleset(&self) -> &Arc<Ruleset> {
        self.own.as_ref().unwrap_or(&self.office.common)
    }
}

/// Whoever seats companies as the store has them.
#[async_trait]
pub trait SeatsCompanies: Send + Sync + 'static {
    /// Seats a company as it is stored by now, unless it sits by `revision` or something newer already. Where it cannot be set
    /// up, it sits as before.
    ///
    /// # Errors
    /// [`StoreError`]: it sits as before.
    async fn bring_up(&self, company: &CompanyId, revision: u64) -> Result<(), StoreError>;
}

/// All seats.
#[derive(Default)]
pub struct Roster {
    seats: RwLock<HashMap<MailboxId, Seat>>,
}

impl Roster {
    /// The seat of a mailbox.
    pub fn seat(&self, mailbox: MailboxId) -> Option<Seat> {
        self.seats.read().unwrap_or_else(PoisonError::into_inner).get(&mailbox).cloned()
    }

    /// Replaces all seats of one company in one step.
    pub fn seat_company(&self, company: &CompanyId, seats: impl IntoIterator<Item = (MailboxId, Seat)>) {
        let mut all = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, seat| seat.office.company != *company);
        all.extend(seats);
    }

    /// Takes a seat away, unless its user came back meanwhile.
    pub fn unseat_retired(&self, mailbox: MailboxId) {
        let mut seats = self.seats.write().unwrap_or_else(PoisonError::into_inner);
        if seats.get(&mailbox).is_some_and(|seat| seat.retired) {
            seats.remove(&mailbox);
        }
    }

    /// Mailboxes and seats of one company, or of all.
    pub fn seats(&self, company: Option<&CompanyId>) -> Vec<(MailboxId, Seat)> {
        let all = self.seats.read().unwrap_or_else(PoisonError::into_inner);
        let mut seats: Vec<_> = all
            .iter()
            .filter(|(_, seat)| company.is_none_or(|company| seat.office.company == *company))
            .map(|(mailbox, seat)| (*mailbox, seat.clone()))
            .collect();
        seats.sort_by_key(|(mailbox, _)| *mailbox);
        seats
    }
}
