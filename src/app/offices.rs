//! Companies at work: from applied documents to seats, and the links to their PBXs.
//!
//! A company is set up completely before anything of it is swapped in; what fails to be set up leaves the old one
//! at work (I13).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Tasks, signals, standing::Standing};
use crate::{
    chain::Chain,
    clock::SharedClock,
    company::{
        Company, PbxKind, PbxTarget, SettingsError, User,
        records::{CompanyRecord, MailboxRecord},
        trail::Deed,
    },
    config::{self, Environment},
    graph::{ConsentTicket, Rich},
    model::{CompanyId, Extension, MailboxId, TenantId},
    pbx::{
        asterisk_ami::AsteriskAmi,
        http::{HttpPbx, HttpPbxConfig, ProcessLimits},
    },
    presence::PbxDriver,
    queue::{Mark, Reason, StoreError},
    store::Store,
    timetable::RuleError,
    turn::roster::{Integration, Office, Roster, Ruleset, Seat},
};

/// In the audit trail: whoever opened one. Microsoft tells no name.
const CONSENT_LINK: &str = "consent link";

/// Why a company cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    /// Settings of its PBX.
    #[error("the settings of the company's PBX cannot be used")]
    Pbx(#[source] SettingsError),
    /// The driver's own objection.
    #[error("the company's PBX cannot be set up")]
    Driver(#[source] crate::pbx::http::ConfigError),
    /// Its words.
    #[error("the company's trigger words cannot be used")]
    Words(#[source] RuleError),
}

/// A company at work.
#[derive(Clone)]
pub(super) struct OpenOffice {
    pub(super) company: Arc<Company>,
    pub(super) standing: Standing,
    pub(super) office: Arc<Office>,
    pub(super) mailboxes: Arc<Vec<MailboxRecord>>,
    link: Option<Link>,
}

impl OpenOffice {
    /// The tenant whose calendars are read: the file's, else the one that consented.
    pub(super) fn tenant(&self) -> Option<&TenantId> {
        self.company.tenant().or(self.standing.tenant.as_ref())
    }

    /// A user's mailbox.
    pub(super) fn mailbox_of(&self, user: &User) -> Option<MailboxId> {
        self.mailboxes
            .iter()
            .find(|mailbox| !mailbox.retired && mailbox.extension == user.extension)
            .map(|mailbox| mailbox.id)
    }
}

#[derive(Clone)]
struct Link {
    target: PbxTarget,
    driver: Arc<dyn PbxDriver>,
    stop: CancellationToken,
}

/// All companies at work.
pub(super) struct Offices {
    store: Arc<dyn Store>,
    roster: Arc<Roster>,
    rich: Arc<Rich>,
    environment: Environment,
    pbx: config::Pbx,
    clock: SharedClock,
    links: Tasks,
    open: Mutex<HashMap<CompanyId, OpenOffice>>,
    changing: tokio::sync::Mutex<()>,
}

impl Offices {
    pub(super) fn new(
        store: Arc<dyn Store>,
        roster: Arc<Roster>,
        rich: Arc<Rich>,
        environment: Environment,
        pbx: config::Pbx,
        clock: SharedClock,
        links: Tasks,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            roster,
            rich,
            environment,
            pbx,
            clock,
            links,
            open: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<CompanyId, OpenOffice>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Companies change one at a time: held from before the company is looked at until what replaces it is seated.
    pub(super) async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }

    /// One company.
    pub(super) fn get(&self, company: &CompanyId) -> Option<OpenOffice> {
        self.open().get(company).cloned()
    }

    /// All companies, by id.
    pub(super) fn all(&self) -> Vec<OpenOffice> {
        let mut all: Vec<_> = self.open().values().cloned().collect();
        all.sort_by(|a, b| a.company.id().cmp(b.company.id()));
        all
    }

    /// Seats what is stored. A company that cannot be set up is told of and left out; the others work.
    pub(super) async fn load(self: &Arc<Self>) -> Result<(), StoreError> {
        let mut mailboxes: HashMap<CompanyId, Vec<MailboxRecord>> = HashMap::new();
        for mailbox in self.store.mailboxes().await? {
            mailboxes.entry(mailbox.company.clone()).or_default().push(mailbox);
        }
        for record in self.store.companies().await? {
            let mailboxes = mailboxes.remove(&record.id).unwrap_or_default();
            self.load_one(&record, mailboxes);
        }
        Ok(())
    }

    fn load_one(self: &Arc<Self>, record: &CompanyRecord, mailboxes: Vec<MailboxRecord>) {
        let Some(applied) = record.applied.as_deref() else { return };
        let company = match Company::from_json(&String::from_utf8_lossy(applied)) {
            Ok(company) => company,
            Err(error) => {
                error!(company.id = %record.id, error = %Chain(&error), "Company `{}` cannot be loaded and is left out", record.id);
                return;
            }
        };
        let standing = record.standing.as_deref().map_or_else(Standing::default, |document| {
            serde_json::from_slice(document).unwrap_or_else(|error| {
                error!(company.id = %record.id, error = %Chain(&error), "What is known of company `{}` cannot be read", record.id);
                Standing::default()
            })
        });
        if let Err(error) = self.seat(Arc::new(company), standing, mailboxes) {
            error!(company.id = %record.id, error = %Chain(&error), "Company `{}` cannot be set up and is left out", record.id);
        }
    }

    /// Whether the company could be set up: everything is tried, nothing is kept.
    pub(super) fn try_out(&self, company: &Company) -> Result<(), SetupError> {
        Ruleset::new(company.rules()).map_err(SetupError::Words)?;
        for user in company.users() {
            own_ruleset(company, user)?;
        }
        company.pbx().map(|target| self.driver(company.id(), target)).transpose()?;
        Ok(())
    }

    /// Puts a company to work in place of what was there before under its id.
    pub(super) fn seat(
        self: &Arc<Self>,
        company: Arc<Company>,
        standing: Standing,
        mailboxes: Vec<MailboxRecord>,
    ) -> Result<(), SetupError> {
        let id = company.id().clone();
        let before = self.get(&id);
        let common = Arc::new(Ruleset::new(company.rules()).map_err(SetupError::Words)?);
        let kept = before.as_ref().and_then(|before| before.link.clone());
        let (link, is_new) = match (company.pbx(), kept) {
            (Some(target), Some(link)) if link.target == *target => (Some(link), false),
            (Some(target), _) => {
                let driver = self.driver(&id, target)?;
                (Some(Link { target: target.clone(), driver, stop: CancellationToken::new() }), true)
            }
            (None, _) => (None, false),
        };
        let tenant = company.tenant().or(standing.tenant.as_ref()).cloned();
        let declared = company.file().integration.as_ref();
        let integration =
            declared.zip(tenant).map(|(declared, tenant)| self.integration(declared.rich, tenant));
        let office = Arc::new(Office {
            company: id.clone(),
            language: company.language(),
            common,
            integration,
            push: before.as_ref().map(|before| Arc::clone(&before.office.push)).unwrap_or_default(),
            driver: link.as_ref().map(|link| Arc::clone(&link.driver)),
        });
        let seats = seats(&company, &office, &mailboxes)?;
        // From here on nothing can fail.
        self.roster.seat_company(&id, seats);
        let mailboxes = Arc::new(mailboxes);
        let opened = OpenOffice { company, standing, office, mailboxes, link: link.clone() };
        self.open().insert(id.clone(), opened);
        let outdated = before.and_then(|before| before.link);
        if let Some(outdated) = outdated.filter(|_| is_new || link.is_none()) {
            outdated.stop.cancel();
        }
        if let Some(link) = link.filter(|_| is_new) {
            self.start_link(id, link);
        }
        Ok(())
    }

    fn integration(&self, rich: bool, tenant: TenantId) -> Integration {
        let calendars = self.rich.graph().company(tenant.clone());
        if !rich {
            return Integration {
                tenant,
                source: Arc::clone(&calendars) as _,
                brought: None,
                watches: calendars,
            };
        }
        let sent_along = self.rich.company(tenant.clone());
        Integration {
            tenant,
            source: calendars,
            brought: Some(Arc::clone(&sent_along) as _),
            watches: sent_along,
        }
    }

    fn driver(&self, company: &CompanyId, target: &PbxTarget) -> Result<Arc<dyn PbxDriver>, SetupError> {
        let clock = Arc::clone(&self.clock);
        match target.kind {
            PbxKind::Asterisk => {
                let settings = target.settings(&self.environment).map_err(SetupError::Pbx)?;
                Ok(AsteriskAmi::new(settings, clock))
            }
            PbxKind::Http => {
                let settings: HttpPbxConfig = target.settings(&self.environment).map_err(SetupError::Pbx)?;
                let allowed = self.pbx.allow_private_addresses;
                let limits = ProcessLimits {
                    allow_private: allowed,
                    allow_loopback: allowed,
                    ..ProcessLimits::default()
                };
                let driver =
                    HttpPbx::new(&settings, limits, company.clone(), clock).map_err(SetupError::Driver)?;
                Ok(driver)
            }
        }
    }

    fn start_link(self: &Arc<Self>, company: CompanyId, link: Link) {
        let shutdown = self.links.shutdown();
        let stop = link.stop.clone();
        let ended = CancellationToken::new();
        let (driver, run_until) = (Arc::clone(&link.driver), ended.clone());
        // Listening before the link comes up, so that its first signal is not missed.
        let heard = driver.signals();
        self.links.spawn("pbx link", async move { driver.run(run_until).await });
        let offices = Arc::clone(self);
        self.links.spawn("pbx signals", async move {
            let _ends_the_link = ended.drop_guard();
            let marks = |extension: Option<&Extension>, reason| offices.marks(&company, extension, reason);
            tokio::select! {
                () = signals::follow(&company, heard, &*offices.store, &*offices.clock, marks) => {}
                () = stop.cancelled() => {}
                () = shutdown.cancelled() => {}
            }
        });
    }

    fn marks(&self, company: &CompanyId, extension: Option<&Extension>, reason: Reason) -> Vec<Mark> {
        let now = self.clock.now();
        let open = self.open();
        let Some(office) = open.get(company) else { return Vec::new() };
        office
            .mailboxes
            .iter()
            .filter(|mailbox| !mailbox.retired && extension.is_none_or(|wanted| mailbox.extension == *wanted))
            .map(|mailbox| Mark::new(mailbox.id, now, reason))
            .collect()
    }

    /// Notes that a tenant has consented for a company, and makes its mailboxes due.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the consent is not noted.
    pub(super) async fn consented(
        self: &Arc<Self>,
        company: &CompanyId,
        tenant: TenantId,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.changing().await;
        let Some(office) = self.get(company) else { return Ok(()) };
        let now = self.clock.now();
        let standing = office.standing.clone().consented(tenant, now);
        let deed = Deed {
            at: now,
            who: CONSENT_LINK.to_owned(),
            what: "consent",
            company: Some(company.clone()),
            outcome: "the company's administrator has consented".to_owned(),
        };
        self.stand(&office, standing, deed).await
    }

    /// Puts back what was known of a company's consent, and makes its mailboxes due.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it is not put back.
    pub(super) async fn put_back_standing(
        self: &Arc<Self>,
        company: &CompanyId,
        standing: Standing,
        deed: Deed,
    ) -> Result<(), StoreError> {
        let _one_at_a_time = self.changing().await;
        match self.get(company) {
            Some(office) => self.stand(&office, standing, deed).await,
            // Nothing is applied of it: the standing waits for that.
            None => self.store.set_standing_noted(company, standing.write(), Some(deed)).await,
        }
    }

    async fn stand(
        self: &Arc<Self>,
        office: &OpenOffice,
        standing: Standing,
        deed: Deed,
    ) -> Result<(), StoreError> {
        let company = office.company.id();
        self.store.set_standing_noted(company, standing.write(), Some(deed)).await?;
        let mailboxes = office.mailboxes.as_ref().clone();
        if let Err(error) = self.seat(Arc::clone(&office.company), standing, mailboxes) {
            error!(company.id = %company, error = %Chain(&error), "Company `{company}` cannot be set up");
        }
        let marks = self.marks(company, None, Reason::Consent);
        if !marks.is_empty()
            && let Err(error) = self.store.mark(marks).await
        {
            // The consent holds and its link is spent: nobody is to be asked for it again because of that.
            warn!(company.id = %company, error = %Chain(&error), "Company `{company}` consented, and its mailboxes could not be marked");
            self.store.make_due(&office.mailboxes);
        }
        Ok(())
    }

    /// Writes down that nothing came of a consent.
    pub(super) async fn consent_refused(&self, company: &CompanyId, why: &str) {
        let deed = Deed {
            at: self.clock.now(),
            who: CONSENT_LINK.to_owned(),
            what: "consent",
            company: Some(company.clone()),
            outcome: format!("refused: {why}"),
        };
        if let Err(error) = self.store.note(deed).await {
            warn!(company.id = %company, error = %Chain(&error), "A refused consent is not in the audit trail");
        }
    }

    /// Whether turns are taken for a mailbox.
    pub(super) fn is_seated(&self, mailbox: MailboxId) -> bool {
        self.roster.seat(mailbox).is_some()
    }

    /// Mailboxes of users who were taken out and whose phones are still to be given back.
    pub(super) fn being_left<'a>(&self, office: &'a OpenOffice) -> impl Iterator<Item = &'a MailboxRecord> {
        office.mailboxes.iter().filter(|mailbox| mailbox.retired && self.is_seated(mailbox.id))
    }

    /// Forgets a company that is leaving and of which nothing is left; `true` once there is nothing more to wait for.
    pub(super) async fn forget_left(&self, company: &CompanyId) -> Result<bool, StoreError> {
        let _one_at_a_time = self.changing().await;
        let Some(office) = self.get(company).filter(|office| office.company.is_leaving()) else {
            return Ok(true);
        };
        if !self.roster.seats(Some(company)).is_empty() {
            return Ok(false);
        }
        self.store.forget(company).await?;
        self.open().remove(company);
        if let Some(link) = office.link {
            link.stop.cancel();
        }
        info!(company.id = %company, "Company `{company}` was removed");
        Ok(true)
    }

    /// Spends a consent ticket; `false` where it was spent before.
    pub(super) async fn spend(&self, ticket: &ConsentTicket) -> Result<bool, StoreError> {
        self.store.spend(&ticket.nonce, ticket.expires, self.clock.now()).await
    }

    /// Which other company has this tenant, if any.
    pub(super) fn other_with_tenant(&self, company: &CompanyId, tenant: &TenantId) -> Option<CompanyId> {
        let open = self.open();
        open.values()
            .find(|office| office.company.id() != company && office.tenant() == Some(tenant))
            .map(|office| office.company.id().clone())
    }
}

/// Rules of a user who has words of their own; all others share the company's.
pub(super) fn own_ruleset(company: &Company, user: &User) -> Result<Option<Arc<Ruleset>>, SetupError> {
    if user.triggers.is_empty() && user.disabled_words.is_empty() {
        return Ok(None);
    }
    let own = Ruleset::new(company.rules_for(user)).map_err(SetupError::Words)?;
    Ok(Some(Arc::new(own)))
}

fn seats(
    company: &Company,
    office: &Arc<Office>,
    mailboxes: &[MailboxRecord],
) -> Result<Vec<(MailboxId, Seat)>, SetupError> {
    let users: HashMap<&Extension, &User> =
        company.users().iter().map(|user| (&user.extension, user)).collect();
    mailboxes
        .iter()
        .map(|mailbox| {
            let user = users.get(&mailbox.extension).filter(|_| !mailbox.retired);
            let own = user.map(|user| own_ruleset(company, user)).transpose()?.flatten();
            let alias = user.filter(|user| user.enabled).map(|user| Arc::from(user.alias.as_str()));
            let seat = Seat {
                office: Arc::clone(office),
                extension: mailbox.extension.clone(),
                alias,
                retired: mailbox.retired,
                own,
            };
            Ok((mailbox.id, seat))
        })
        .collect()
}
