//! What an operator may ask, answered from the store, the seats and the outside systems.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use jiff::{SignedDuration, tz::TimeZone};
use tracing::info;

use super::{
    Tasks,
    consent::ConsentDesk,
    credential::CredentialEnd,
    feeder::Piece,
    offices::{Offices, OpenOffice, SetupError},
    renewal::Jobs,
    tell, views,
};
use crate::{
    admin::{
        ApplyReport, ApplyRequest, AuditLine, AuditRequest, CheckLine, CheckReport, CompanyStatus,
        CompanySummary, ConsentUrl, ExplainRequest, Explained, Exported, HealthReport, JobId, JobInfo,
        JobProgress, JobStarted, MailboxStatus, OperationError, Operations, Page, PageRequest, RenewRequest,
        Status, SubscriptionInfo, SyncRequest, Synced, Tried, TryRequest, UserInfo,
    },
    chain::Chain,
    clock::SharedClock,
    company::{Company, User, diff, export},
    config::{self, Document, Finding},
    decide::decide,
    health::Health,
    model::{CompanyId, Extension, Language, MailboxId},
    queue::{Depth, Mark, Reason, StoreError},
    store::Store,
    turn::{Turns, roster::Ruleset, state::MailboxState},
};

/// How long a mailbox may be due before the service counts as standing still.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// The running service, as an operator sees it.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) store: Arc<dyn Store>,
    pub(super) offices: Arc<Offices>,
    consent: Arc<ConsentDesk>,
    pub(super) turns: Arc<Turns>,
    pub(super) clock: SharedClock,
    pub(super) tasks: Tasks,
    public_url: String,
    client: reqwest::Client,
    pub(super) jobs: Arc<Jobs>,
    credential: CredentialEnd,
    /// In whose name.
    pub(super) who: Arc<str>,
}

impl Service {
    pub(super) fn new(
        store: Arc<dyn Store>,
        offices: Arc<Offices>,
        consent: Arc<ConsentDesk>,
        turns: Arc<Turns>,
        clock: SharedClock,
        tasks: Tasks,
        public_url: String,
    ) -> Self {
        let builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(std::time::Duration::from_secs(10));
        let client = builder.build().unwrap_or_default();
        Self {
            store,
            offices,
            consent,
            turns,
            clock,
            tasks,
            public_url,
            client,
            jobs: Arc::default(),
            credential: CredentialEnd::Unknown,
            who: config::FIRST_TOKEN.into(),
        }
    }

    /// What is known of the end of the application's credential.
    pub(super) fn with_credential_end(self, credential: CredentialEnd) -> Self {
        Self { credential, ..self }
    }

    pub(super) fn depth(&self) -> Depth {
        self.store.depth()
    }

    pub(super) fn office(&self, company: &CompanyId) -> Result<OpenOffice, OperationError> {
        self.offices.get(company).ok_or_else(|| OperationError::NoSuchCompany(company.clone()))
    }

    fn offices(&self, company: Option<&CompanyId>) -> Result<Vec<OpenOffice>, OperationError> {
        match company {
            Some(company) => Ok(vec![self.office(company)?]),
            None => Ok(self.offices.all()),
        }
    }

    /// The one user of that name, in the company named or in whichever has it.
    fn find_user(
        &self,
        company: Option<&CompanyId>,
        user: &str,
    ) -> Result<(OpenOffice, User), OperationError> {
        let mut found = Vec::new();
        for office in self.offices(company)? {
            if let Some(known) = office.company.user(user).cloned() {
                found.push((office, known));
            }
        }
        let user = || user.to_owned();
        match (found.len(), company) {
            (1, _) => Ok(found.remove(0)),
            (0, Some(company)) => Err(OperationError::NoSuchUser { company: company.clone(), user: user() }),
            (0, None) => Err(OperationError::Refused(format!("no company has a user `{}`", user()))),
            _ => Err(OperationError::AmbiguousUser { user: user() }),
        }
    }

    /// What the turns of a user's mailbox remember; the beginning where it had none.
    pub(super) async fn state_of(
        &self,
        office: &OpenOffice,
        user: &User,
    ) -> Result<MailboxState, OperationError> {
        let Some(mailbox) = office.mailbox_of(user) else { return Ok(MailboxState::default()) };
        let document = self.store.look(mailbox).await.map_err(store)?;
        Ok(document.and_then(|document| MailboxState::read(&document).ok()).unwrap_or_default())
    }

    pub(super) async fn mailbox_status(
        &self,
        office: &OpenOffice,
        user: &User,
    ) -> Result<MailboxStatus, OperationError> {
        let state = self.state_of(office, user).await?;
        Ok(views::mailbox(office, user, &state, self.clock.now()))
    }

    async fn company_status(&self, office: &OpenOffice) -> Result<CompanyStatus, OperationError> {
        let mut mailboxes = Vec::with_capacity(office.company.users().len());
        for user in office.company.users() {
            mailboxes.push(self.mailbox_status(office, user).await?);
        }
        mailboxes.sort_by(|a, b| a.extension.cmp(&b.extension));
        let language = office.company.language();
        let health = HealthReport::of(views::company_health(office), language);
        Ok(CompanyStatus {
            id: office.company.id().clone(),
            name: office.company.name().to_owned(),
            time_zone: office.company.time_zone().to_owned(),
            consent: views::consent(office),
            pbx: views::link(office),
            health,
            mailboxes,
        })
    }

    /// Mailboxes that a request is about, with what to call them.
    pub(super) fn pieces(
        &self,
        company: Option<&CompanyId>,
        user: Option<&str>,
    ) -> Result<Vec<Piece>, OperationError> {
        let chosen: Vec<(OpenOffice, Vec<User>)> = match user {
            Some(user) => {
                let (office, user) = self.find_user(company, user)?;
                vec![(office, vec![user])]
            }
            None => self
                .offices(company)?
                .into_iter()
                .map(|office| {
                    let users = office.company.users().to_vec();
                    (office, users)
                })
                .collect(),
        };
        let mut pieces = Vec::new();
        for (office, users) in chosen {
            let company = office.company.id();
            let known = office.mailboxes.iter().filter(|mailbox| !mailbox.retired);
            let known: HashMap<&Extension, MailboxId> =
                known.map(|mailbox| (&mailbox.extension, mailbox.id)).collect();
            for user in users.iter().filter(|user| user.enabled) {
                if let Some(mailbox) = known.get(&user.extension) {
                    pieces.push(Piece {
                        mailbox: *mailbox,
                        company: company.clone(),
                        title: format!("{company}: {}", user.title()),
                        language: office.company.language(),
                        put_back: 0,
                    });
                }
            }
        }
        Ok(pieces)
    }

    async fn mark(
        &self,
        mailboxes: impl Iterator<Item = MailboxId>,
        reason: Reason,
    ) -> Result<u64, OperationError> {
        let now = self.clock.now();
        let marks: Vec<Mark> = mailboxes.map(|mailbox| Mark::new(mailbox, now, reason)).collect();
        let count = marks.len() as u64;
        // In pieces, so that ten thousand mailboxes do not make notifications wait.
        for part in marks.chunks(500) {
            self.store.mark(part.to_vec()).await.map_err(store)?;
        }
        Ok(count)
    }

    /// Calls our own notification address the way Graph does.
    async fn check_public_url(&self) -> CheckLine {
        let what = format!("notification address {}", self.public_url);
        let token = format!("narvaro self-test {}", self.clock.now().as_millisecond());
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("validationToken", &token)
            .finish();
        let url = format!("{}/graph/v1/notify?{query}", self.public_url);
        let answer = self.client.post(&url).send().await;
        let said = match answer {
            Ok(answer) => {
                let status = answer.status();
                let echoed = answer.text().await.unwrap_or_default() == token;
                if status == 200 && echoed {
                    return CheckLine {
                        what,
                        ok: true,
                        said: "answers a handshake as it must".into(),
                        cure: None,
                    };
                }
                format!("answered {status} and not our own answer: something else listens there")
            }
            Err(error) => Chain(&error.without_url()).to_string(),
        };
        let cure = "Make `webhook.public_url` lead to the public listener: DNS name, certificate, and the reverse proxy's way to `listen.public`.";
        CheckLine { what, ok: false, said, cure: Some(cure.into()) }
    }

    async fn check_company(
        &self,
        office: &OpenOffice,
        lines: &mut Vec<CheckLine>,
    ) -> Result<(), OperationError> {
        let id = office.company.id();
        let language = office.company.language();
        let mut line = |what: &str, outcome: Result<String, (String, Health)>| {
            let what = format!("{id}: {what}");
            lines.push(match outcome {
                Ok(said) => CheckLine { what, ok: true, said, cure: None },
                Err((said, health)) => CheckLine { what, ok: false, said, cure: Some(health.cure(language)) },
            });
        };
        if office.company.file().integration.is_some() {
            let outcome = match &office.office.integration {
                None => {
                    let health = Health::NoConsent { code: "not given yet".into() };
                    Err((health.cause(language), health))
                }
                Some(integration) => integration.source.check().await.map_err(|error| {
                    let consented = office.standing.consented_at.is_some();
                    (Chain(&error).to_string(), Health::of_read(&error, consented))
                }),
            };
            line("Microsoft 365", outcome);
        }
        let outcome = match &office.office.driver {
            None => Err((Health::PbxMissing.cause(language), Health::PbxMissing)),
            Some(driver) => {
                driver.check().await.map_err(|error| (Chain(&error).to_string(), Health::of_pbx(&error)))
            }
        };
        line("PBX", outcome);
        for user in office.company.users() {
            let status = self.mailbox_status(office, user).await?;
            let report = status.health;
            if report.severity > crate::health::Severity::Fine {
                line(&format!("user {}", user.title()), Err((report.cause, report.health)));
            }
        }
        Ok(())
    }

    fn prepare(&self, request: &ApplyRequest) -> Result<(Company, Vec<Finding>), OperationError> {
        let parsed = Company::parse(&request.file, &request.text)
            .map_err(|findings| OperationError::FileRefused(findings.findings))?;
        self.offices.try_out(&parsed.company).map_err(|error| refused_setup(&parsed.document, &error))?;
        Ok((parsed.company, parsed.warnings))
    }
}

/// A company that parses and cannot be set up: the place in its file, as well as it is known.
fn refused_setup(document: &Document, error: &SetupError) -> OperationError {
    let (key, problem, remedy) = match error {
        SetupError::Driver(refused) => (
            format!("pbx.http.{}", refused.key()),
            refused.to_string(),
            "correct it; the driver's presets show working settings",
        ),
        SetupError::Pbx(_) => (
            "pbx".to_owned(),
            Chain(error).to_string(),
            "correct the settings; a secret must be readable by the service, not only by you",
        ),
        SetupError::Words(_) => {
            ("profiles".to_owned(), Chain(error).to_string(), "correct the trigger words")
        }
    };
    OperationError::FileRefused(vec![document.finding(&key, problem, remedy)])
}

pub(super) fn store(error: StoreError) -> OperationError {
    OperationError::Store(Box::new(error))
}

fn ruleset_of(office: &OpenOffice, user: Option<&User>) -> Result<Arc<Ruleset>, OperationError> {
    let Some(user) = user else { return Ok(Arc::clone(&office.office.common)) };
    super::offices::own_ruleset(&office.company, user)
        .map(|own| own.unwrap_or_else(|| Arc::clone(&office.office.common)))
        .map_err(|error| OperationError::Internal(Box::new(error)))
}

#[async_trait]
impl Operations for Service {
    fn on_behalf_of(&self, who: &str) -> Arc<dyn Operations> {
        Arc::new(Self { who: who.into(), ..self.clone() })
    }

    async fn ready(&self) -> Result<(), String> {
        self.store.companies().await.map_err(|error| Chain(&error).to_string())?;
        let depth = self.store.depth();
        // Something has been due for long and nobody has taken it: turns stand still.
        let stuck = depth.oldest_due.is_some_and(|since| since + OVERDUE < self.clock.now());
        if stuck { Err("mailboxes have been due for more than a minute".to_owned()) } else { Ok(()) }
    }

    async fn companies(&self) -> Result<Vec<CompanySummary>, OperationError> {
        let all = self.offices.all();
        Ok(all
            .iter()
            .map(|office| CompanySummary {
                id: office.company.id().clone(),
                name: office.company.name().to_owned(),
                users: office.company.users().len(),
                revision: office.company.revision(),
            })
            .collect())
    }

    async fn status(&self, company: Option<CompanyId>) -> Result<Status, OperationError> {
        let mut companies = Vec::new();
        for office in self.offices(company.as_ref())? {
            companies.push(self.company_status(&office).await?);
        }
        let language = match (&company, companies.first()) {
            (Some(company), Some(_)) => self.office(company)?.company.language(),
            _ => Language::En,
        };
        let now = self.clock.now();
        let notices = self.credential.notice(now, language).into_iter().collect();
        Ok(Status { at: now, notices, companies })
    }

    async fn apply(&self, request: ApplyRequest) -> Result<ApplyReport, OperationError> {
        let prepared = self.prepare(&request);
        if let (Err(refused), false) = (&prepared, request.dry_run) {
            self.note("apply", None, format!("refused: {refused}")).await;
        }
        let (company, warnings) = prepared?;
        let id = company.id().clone();
        let _one_at_a_time = self.offices.changing().await;
        let before = self.offices.get(&id);
        let live = before.as_ref().map(|office| office.company.as_ref());
        let changes: Vec<String> = diff(live, &company).iter().map(ToString::to_string).collect();
        let revision = live.map_or(0, Company::revision);
        let nothing_to_do = request.dry_run || (live.is_some() && changes.is_empty());
        if nothing_to_do {
            return Ok(ApplyReport { company: id, changes, warnings, applied: !request.dry_run, revision });
        }
        let company = company.with_revision(revision + 1);
        let users = company.users().iter().map(|user| user.extension.clone()).collect();
        let document = company.to_json().into_bytes();
        let outcome = format!("revision {}, {} changes", company.revision(), changes.len());
        let deed = Some(self.deed("apply", Some(&id), outcome));
        let applied = self.store.apply_noted(&id, document, users, deed).await.map_err(store)?;
        let standing = before.map(|office| office.standing).unwrap_or_default();
        let revision = company.revision();
        let mailboxes: Vec<MailboxId> = applied.mailboxes.iter().map(|mailbox| mailbox.id).collect();
        self.offices
            .seat(Arc::new(company), standing, applied.mailboxes)
            .map_err(|error| OperationError::Internal(Box::new(error)))?;
        // The store has made them due already, so that a crash here loses nothing; but a turn that began before they
        // were seated has gone by the old rules.
        self.mark(mailboxes.into_iter(), Reason::Applied).await?;
        info!(company.id = %id, revision, changes = changes.len(), "Company `{id}` was applied");
        Ok(ApplyReport { company: id, changes, warnings, applied: true, revision })
    }

    async fn export(&self, company: CompanyId) -> Result<Exported, OperationError> {
        let office = self.office(&company)?;
        Ok(Exported { toml: export(&office.company), company })
    }

    async fn consent_url(&self, company: CompanyId) -> Result<ConsentUrl, OperationError> {
        let office = self.office(&company)?;
        if office.company.file().integration.is_none() {
            return Err(OperationError::Refused(format!(
                "company `{company}` reads no calendars from Microsoft 365"
            )));
        }
        let address = self.consent.address(&office);
        self.note("consent_link", Some(&company), format!("good until {}", address.expires)).await;
        Ok(address)
    }

    async fn explain(&self, request: ExplainRequest) -> Result<Explained, OperationError> {
        let (office, user) = self.find_user(request.company.as_ref(), &request.user)?;
        let at = request.at.unwrap_or_else(|| self.clock.now());
        let language = request.language.unwrap_or_else(|| office.company.language());
        let state = self.state_of(&office, &user).await?;
        let company = office.company.id().clone();
        let extension = user.extension.clone();
        let mut lines = Vec::new();
        let mut details = serde_json::Value::Null;
        match &state.timetable {
            None => lines.push(views::health(&office, &user, &state, self.clock.now()).cause(language)),
            Some(timetable) => {
                let ruleset = ruleset_of(&office, Some(&user))?;
                let explanation = decide(&ruleset.rules, timetable, &state.layers, at).explanation;
                lines = explanation.lines(language, &timetable.zone.rules());
                details = serde_json::to_value(&explanation)
                    .map_err(|error| OperationError::Internal(Box::new(error)))?;
                lines.extend(told_of_proof(&state, language, &timetable.zone.rules()));
            }
        }
        Ok(Explained { company, extension, at, lines, details })
    }

    async fn try_subject(&self, request: TryRequest) -> Result<Tried, OperationError> {
        let office = self.office(&request.company)?;
        let user = match &request.user {
            Some(user) => Some(self.find_user(Some(&request.company), user)?.1),
            None => None,
        };
        let ruleset = ruleset_of(&office, user.as_ref())?;
        let language = request.language.unwrap_or_else(|| office.company.language());
        let judgement = ruleset.matcher.judge(&request.subject);
        let lines = tell::verdict(&judgement, &ruleset.rules, language);
        let profile = judgement.winner.as_ref().map(|hit| hit.profile.clone());
        let details =
            serde_json::to_value(&judgement).map_err(|error| OperationError::Internal(Box::new(error)))?;
        Ok(Tried { profile, lines, details })
    }

    async fn subscriptions(
        &self,
        company: Option<CompanyId>,
    ) -> Result<Vec<SubscriptionInfo>, OperationError> {
        let mut all = Vec::new();
        for office in self.offices(company.as_ref())? {
            for user in office.company.users() {
                let state = self.state_of(&office, user).await?;
                all.push(views::subscription(&office, user, &state, self.clock.now()));
            }
        }
        Ok(all)
    }

    async fn renew(&self, request: RenewRequest) -> Result<JobStarted, OperationError> {
        self.start_renewal(request).await
    }

    async fn users(&self, company: CompanyId, page: PageRequest) -> Result<Page<UserInfo>, OperationError> {
        self.user_page(&company, &page).await
    }

    async fn mailboxes(
        &self,
        company: CompanyId,
        page: PageRequest,
    ) -> Result<Page<MailboxStatus>, OperationError> {
        self.mailbox_page(&company, &page).await
    }

    async fn watches(
        &self,
        company: CompanyId,
        page: PageRequest,
    ) -> Result<Page<SubscriptionInfo>, OperationError> {
        self.watch_page(&company, &page).await
    }

    async fn jobs(&self, company: Option<CompanyId>) -> Result<Vec<JobInfo>, OperationError> {
        if let Some(company) = &company {
            self.office(company)?;
        }
        let mut jobs = self.jobs.all();
        jobs.retain(|job| company.is_none() || job.company == company);
        Ok(jobs)
    }

    async fn cancel(&self, job: JobId) -> Result<JobProgress, OperationError> {
        self.cancel_job(job).await
    }

    async fn audit(&self, request: AuditRequest) -> Result<Page<AuditLine>, OperationError> {
        if let Some(company) = &request.company {
            self.office(company)?;
        }
        self.read_trail(request).await
    }

    async fn job(&self, job: JobId) -> Result<JobProgress, OperationError> {
        self.jobs.find(&job).map(|job| job.info().progress).ok_or(OperationError::NoSuchJob(job))
    }

    async fn check(&self, company: Option<CompanyId>) -> Result<CheckReport, OperationError> {
        let mut checks = Vec::new();
        checks.push(match self.ready().await {
            Ok(()) => CheckLine { what: "store".into(), ok: true, said: "answers".into(), cure: None },
            Err(said) => {
                let cure = Health::StoreUnavailable { said: said.clone() }.cure(Language::En);
                CheckLine { what: "store".into(), ok: false, said, cure: Some(cure) }
            }
        });
        checks.push(self.check_public_url().await);
        checks.extend(self.credential.check(self.clock.now(), Language::En));
        for office in self.offices(company.as_ref())? {
            self.check_company(&office, &mut checks).await?;
        }
        Ok(CheckReport { checks })
    }

    async fn sync_now(&self, request: SyncRequest) -> Result<Synced, OperationError> {
        let pieces = self.pieces(request.company.as_ref(), request.user.as_deref())?;
        let marked = self.mark(pieces.iter().map(|piece| piece.mailbox), Reason::Asked).await?;
        // As with a renewal: a user is in one company, named or not.
        let only = request.user.as_ref().and_then(|_| pieces.first().map(|piece| piece.company.clone()));
        let company = request.company.or(only);
        self.note("sync", company.as_ref(), format!("{marked} mailboxes are read anew")).await;
        Ok(Synced { marked })
    }
}

/// How old the knowledge is that an explanation rests on.
fn told_of_proof(state: &MailboxState, language: Language, zone: &TimeZone) -> Option<String> {
    let proven = state.proven_until?.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M");
    Some(match language {
        Language::Sv => format!("Kalendern lästes senast i sin helhet {proven}."),
        Language::En => format!("The calendar was last read as a whole at {proven}."),
    })
}
