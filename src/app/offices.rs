//! Companies at work: from applied documents to seats, and the links to their PBXs.
//!
//! A company is set up completely before anything of it is swapped in; what fails to be set up leaves the old one
//! at work (I13).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Tasks, signals, standing::Standing};
use crate::{
    chain::Chain,
    clock::SharedClock,
    company::{
        Company, PbxKind, PbxTarget, SettingsError, User,
        records::{Applied, CompanyRecord, MailboxRecord},
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
    turn::roster::{Integration, Office, Roster, Ruleset, Seat, SeatsCompanies},
};

/// In the audit trail: whoever opened one. Microsoft tells no name.
const CONSENT_LINK: &str = "consent link";

/// When a company that cannot be set up as it is stored is tried again: a secret may have come meanwhile.
const UNFIT: SignedDuration = SignedDuration::from_secs(60);

/// How long a store that failed is left alone before companies are followed on.
const STORE_PAUSE: SignedDuration = SignedDuration::from_secs(2);

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

/// Tells of changes.
pub(super) struct Followed(watch::Receiver<u64>);

impl Followed {
    /// Returns when something has changed since the last time.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            // Whoever could tell is gone, and so will this be.
            std::future::pending::<()>().await;
        }
    }
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
    /// Companies that could not be set up, by which revision, and when.
    unfit: Mutex<HashMap<CompanyId, (u64, Timestamp)>>,
    /// For what outlives a call.
    me: Weak<Self>,
    /// Counts how often what sits was brought in step with the store.
    followed: watch::Sender<u64>,
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
        Arc::new_cyclic(|me| Self {
            store,
            roster,
            rich,
            environment,
            pbx,
            clock,
            links,
            open: Mutex::default(),
            unfit: Mutex::default(),
            me: Weak::clone(me),
            followed: watch::Sender::new(0),
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
    pub(super) async fn load(&self) -> Result<(), StoreError> {
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

    /// Keeps in step with the store until `shutdown`: with what this process applies, and what others do that share it.
    pub(super) async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow_on() => {}
        }
    }

    async fn follow_on(&self) {
        loop {
            let caught_up = async {
                // Asked first: what changes while the rest is read is followed next.
                let revision = self.store.revision().await?;
                self.catch_up().await?;
                Ok::<_, StoreError>(revision)
            };
            match caught_up.await {
                Ok(revision) => {
                    self.followed.send_modify(|times| *times += 1);
                    self.store.changed(revision).await;
                }
                Err(error) => {
                    warn!(error = %Chain(&error), "What is stored of companies cannot be followed, will retry");
                    self.clock.sleep_until(self.clock.now() + STORE_PAUSE).await;
                }
            }
        }
    }

    /// Tells when companies, mailboxes or jobs have changed, once what sits is in step with that.
    pub(super) fn followed(&self) -> Followed {
        Followed(self.followed.subscribe())
    }

    /// Brings what sits in step with the store: companies that have changed, are gone, or have lost mailboxes.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let stored = self.store.revisions().await?;
        for (company, revision) in &stored {
            if self.sits_by(company) < *revision {
                self.bring_up(company, *revision).await?;
            }
        }
        let stored: HashSet<CompanyId> = stored.into_iter().map(|(company, _)| company).collect();
        for office in self.all() {
            let company = office.company.id();
            if !stored.contains(company) {
                self.bring_up(company, u64::MAX).await?;
            } else if self.being_left(&office).next().is_some() {
                self.unseat_gone(&office).await?;
            }
        }
        Ok(())
    }

    /// Takes the seats away of mailboxes of which nothing is left.
    async fn unseat_gone(&self, office: &OpenOffice) -> Result<(), StoreError> {
        let stored = self.store.company(office.company.id()).await?;
        let left = stored.map(|(_, mailboxes)| mailboxes).unwrap_or_default();
        let left: HashSet<MailboxId> = left.into_iter().map(|mailbox| mailbox.id).collect();
        for mailbox in self.being_left(office).filter(|mailbox| !left.contains(&mailbox.id)) {
            self.roster.unseat_retired(mailbox.id);
        }
        Ok(())
    }

    /// Companies that are leaving.
    pub(super) fn leaving(&self) -> Vec<CompanyId> {
        let leaving = self.all().into_iter().filter(|office| office.company.is_leaving());
        leaving.map(|office| office.company.id().clone()).collect()
    }

    /// One company; one that does not sit is looked for in the store, as another process may have just taken it in.
    pub(super) async fn find(&self, company: &CompanyId) -> Result<Option<OpenOffice>, StoreError> {
        if let Some(known) = self.get(company) {
            return Ok(Some(known));
        }
        self.bring_up(company, u64::MAX).await?;
        Ok(self.get(company))
    }

    /// As [`SeatsCompanies::bring_up`], for whoever holds [`changing`](Self::changing).
    pub(super) async fn bring_up_held(&self, company: &CompanyId, revision: u64) -> Result<(), StoreError> {
        if self.sits_by(company) >= revision || self.is_unfit(company, revision) {
            return Ok(());
        }
        match self.store.company(company).await? {
            Some((record, _)) if self.sits_by(company) >= record.revision => {}
            Some((record, mailboxes)) => self.load_one(&record, mailboxes),
            None => self.close(company),
        }
        Ok(())
    }

    /// The revision by which a company sits; 0 where it does not.
    fn sits_by(&self, company: &CompanyId) -> u64 {
        self.open().get(company).map_or(0, |open| open.office.revision)
    }

    fn unfit(&self) -> MutexGuard<'_, HashMap<CompanyId, (u64, Timestamp)>> {
        self.unfit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_unfit(&self, company: &CompanyId, revision: u64) -> bool {
        let now = self.clock.now();
        self.unfit().get(company).is_some_and(|(tried, at)| *tried >= revision && now < *at + UNFIT)
    }

    /// Puts what has just been applied to work, and whatever else is stored of the company by now. `false` where it cannot be
    /// set up.
    pub(super) async fn seat_applied(&self, company: Company, standing: Standing, applied: Applied) -> bool {
        let id = company.id().clone();
        if let Err(error) = self.bring_up_held(&id, applied.revision).await {
            // It is stored. Turns read it back before they go by it.
            warn!(company.id = %id, error = %Chain(&error), "Company `{id}` cannot be read back");
            return self.seat(Arc::new(company), standing, applied.mailboxes, self.sits_by(&id)).is_ok();
        }
        self.sits_by(&id) >= applied.revision
    }

    /// Takes a company that is not stored any more from its work.
    fn close(&self, company: &CompanyId) {
        self.roster.seat_company(company, []);
        self.unfit().remove(company);
        let closed = self.open().remove(company);
        if let Some(link) = closed.and_then(|office| office.link) {
            link.stop.cancel();
        }
    }

    fn load_one(&self, record: &CompanyRecord, mailboxes: Vec<MailboxRecord>) {
        if self.set_up(record, mailboxes) {
            self.unfit().remove(&record.id);
        } else {
            self.unfit().insert(record.id.clone(), (record.revision, self.clock.now()));
        }
    }

    fn set_up(&self, record: &CompanyRecord, mailboxes: Vec<MailboxRecord>) -> bool {
        let Some(applied) = record.applied.as_deref() else { return true };
        let company = match Company::from_json(&String::from_utf8_lossy(applied)) {
            Ok(company) => company,
            Err(error) => {
                error!(company.id = %record.id, error = %Chain(&error), "Company `{}` cannot be loaded and is left out", record.id);
                return false;
            }
        };
        let standing = record.standing.as_deref().map_or_else(Standing::default, |document| {
            serde_json::from_slice(document).unwrap_or_else(|error| {
                error!(company.id = %record.id, error = %Chain(&error), "What is known of company `{}` cannot be read", record.id);
                Standing::default()
            })
        });
        let seated = self.seat(Arc::new(company), standing, mailboxes, record.revision);
        if let Err(error) = &seated {
            error!(company.id = %record.id, error = %Chain(error), "Company `{}` cannot be set up and is left out", record.id);
        }
        seated.is_ok()
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
    fn seat(
        &self,
        company: Arc<Company>,
        standing: Standing,
        mailboxes: Vec<MailboxRecord>,
        revision: u64,
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
            revision,
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

    fn start_link(&self, company: CompanyId, link: Link) {
        // Gone only once the service is.
        let Some(offices) = self.me.upgrade() else { return };
        let shutdown = self.links.shutdown();
        let stop = link.stop.clone();
        let ended = CancellationToken::new();
        let (driver, run_until) = (Arc::clone(&link.driver), ended.clone());
        // Listening before the link comes up, so that its first signal is not missed.
        let heard = driver.signals();
        self.links.spawn("pbx link", async move { driver.run(run_until).await });
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
    pub(super) async fn consented(&self, company: &CompanyId, tenant: TenantId) -> Result<(), StoreError> {
        let _one_at_a_time = self.changing().await;
        self.bring_up_held(company, u64::MAX).await?;
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
        let revision = self.store.set_standing_noted(company, standing.write(), Some(deed)).await?;
        let mailboxes = office.mailboxes.as_ref().clone();
        self.seat_applied(Company::clone(&office.company), standing, Applied { revision, mailboxes }).await;
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

    /// Forgets a company that is leaving, once nothing is left of it.
    pub(super) async fn forget_left(&self, company: &CompanyId) -> Result<(), StoreError> {
        let _one_at_a_time = self.changing().await;
        if self.get(company).is_none_or(|office| !office.company.is_leaving()) {
            return Ok(());
        }
        if !self.roster.seats(Some(company)).is_empty() {
            return Ok(());
        }
        self.store.forget(company).await?;
        if self.store.company(company).await?.is_some() {
            // Another process took it back meanwhile.
            return Ok(());
        }
        self.close(company);
        info!(company.id = %company, "Company `{company}` was removed");
        Ok(())
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

#[async_trait]
impl SeatsCompanies for Offices {
    async fn bring_up(&self, company: &CompanyId, revision: u64) -> Result<(), StoreError> {
        let _one_at_a_time = self.changing().await;
        self.bring_up_held(company, revision).await
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
