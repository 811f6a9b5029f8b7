//! What an operator may ask, answered from the store, the seats and the outside systems.

use std::{collections::HashMap, future::Future, sync::Arc};

use async_trait::async_trait;
use jiff::{SignedDuration, tz::TimeZone};
use tracing::info;

use super::{
    Tasks,
    consent::ConsentDesk,
    credential::CredentialEnd,
    feeder::Piece,
    membership::Membership,
    offices::{Offices, OpenOffice, SetupError},
    renewal::Jobs,
    self_test::SelfTest,
    standing::Standing,
    tell, views,
};
use crate::{
    admin::{
        ApplyReport, ApplyRequest, AuditLine, AuditRequest, CheckLine, CheckReport, CompanyBackup,
        CompanyStatus, CompanySummary, ConsentUrl, ExplainRequest, Explained, Exported, HealthReport, JobId,
        JobInfo, JobProgress, JobStarted, MailboxStatus, OperationError, Operations, Page, PageRequest,
        RemoveReport, RemoveRequest, RenewRequest, ReplicaInfo, RestoreRequest, Scope, Status,
        SubscriptionInfo, SyncRequest, Synced, Tried, TryRequest, UserInfo,
    },
    chain::Chain,
    clock::SharedClock,
    company::{Company, User, diff, export, trail::Deed},
    config::{self, Document, Finding},
    counted::counted,
    decide::decide,
    health::Health,
    model::{CompanyId, Extension, Language, MailboxId},
    queue::{Depth, Mark, Reason, ReplicaRecord, StoreError},
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
    pub(super) membership: Arc<Membership>,
    pub(super) clock: SharedClock,
    pub(super) tasks: Tasks,
    self_test: Arc<SelfTest>,
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
        membership: Arc<Membership>,
        tasks: Tasks,
        self_test: Arc<SelfTest>,
    ) -> Self {
        Self {
            store,
            offices,
            consent,
            turns,
            clock: membership.clock(),
            membership,
            tasks,
            self_test,
            jobs: Arc::default(),
            credential: CredentialEnd::Unknown,
            who: config::FIRST_TOKEN.into(),
        }
    }

    /// What is known of the end of the application's credential.
    pub(super) fn with_credential_end(self, credential: CredentialEnd) -> Self {
        Self { credential, ..self }
    }

    /// Does what must not stop halfway, as a company that is stored and not at work: it goes on when the caller hangs up.
    async fn see_through<T, W>(
        &self,
        name: &'static str,
        work: impl FnOnce(Self) -> W,
    ) -> Result<T, OperationError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, OperationError>> + Send + 'static,
    {
        let outcome = self.tasks.see_through(name, work(self.clone())).await;
        outcome.map_err(|cut_short| OperationError::Internal(Box::new(cut_short)))?
    }

    pub(super) async fn depth(&self) -> Result<Depth, StoreError> {
        self.store.depth().await
    }

    pub(super) async fn office(&self, company: &CompanyId) -> Result<OpenOffice, OperationError> {
        let found = self.offices.find(company).await.map_err(store)?;
        found.ok_or_else(|| OperationError::NoSuchCompany(company.clone()))
    }

    async fn offices(&self, company: Option<&CompanyId>) -> Result<Vec<OpenOffice>, OperationError> {
        match company {
            Some(company) => Ok(vec![self.office(company).await?]),
            None => Ok(self.offices.all()),
        }
    }

    /// The one user of that name, in the company named or in whichever has it.
    async fn find_user(
        &self,
        company: Option<&CompanyId>,
        user: &str,
    ) -> Result<(OpenOffice, User), OperationError> {
        let mut found = Vec::new();
        for office in self.offices(company).await? {
            if let Some(known) = office.company.user(user).cloned() {
                found.push((office, known));
            }
        }
        let user = || user.to_owned();
        match (found.len(), company) {
            (1, _) => Ok(found.remove(0)),
            (0, Some(company)) => Err(OperationError::NoSuchUser { company: company.clone(), user: user() }),
            (0, None) => Err(OperationError::UnknownUser { user: user() }),
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
        self.look(mailbox).await
    }

    pub(super) async fn look(&self, mailbox: MailboxId) -> Result<MailboxState, OperationError> {
        let document = self.store.look(mailbox).await.map_err(store)?;
        Ok(document.and_then(|document| MailboxState::read(&document).ok()).unwrap_or_default())
    }

    pub(super) async fn mailbox_status(
        &self,
        office: &OpenOffice,
        user: &User,
        language: Language,
    ) -> Result<MailboxStatus, OperationError> {
        let state = self.state_of(office, user).await?;
        Ok(views::mailbox(office, user, &state, self.clock.now(), language))
    }

    async fn company_status(
        &self,
        office: &OpenOffice,
        language: Language,
    ) -> Result<CompanyStatus, OperationError> {
        let mut mailboxes = Vec::with_capacity(office.company.users().len());
        for user in office.company.users() {
            mailboxes.push(self.mailbox_status(office, user, language).await?);
        }
        for mailbox in self.offices.being_left(office) {
            let state = self.look(mailbox.id).await?;
            mailboxes.push(views::leaving_mailbox(mailbox, &state, language));
        }
        mailboxes.sort_by(|a, b| a.extension.cmp(&b.extension));
        let silent = self.self_test.wrong().map(|wrong| wrong.say(language));
        let health = HealthReport::of(views::company_health(office, &mailboxes, silent), language);
        Ok(CompanyStatus {
            id: office.company.id().clone(),
            name: office.company.name().to_owned(),
            time_zone: office.company.time_zone().to_owned(),
            consent: views::consent(office),
            pbx: views::link(office),
            health,
            leaving: office.company.is_leaving(),
            notified_at: mailboxes.iter().filter_map(|mailbox| mailbox.notified_at).max(),
            mailboxes,
        })
    }

    /// Mailboxes that a request is about, with what to call them.
    pub(super) async fn pieces(
        &self,
        company: Option<&CompanyId>,
        user: Option<&str>,
    ) -> Result<Vec<Piece>, OperationError> {
        let chosen: Vec<(OpenOffice, Vec<User>)> = match user {
            Some(user) => {
                let (office, user) = self.find_user(company, user).await?;
                vec![(office, vec![user])]
            }
            None => self
                .offices(company)
                .await?
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

    /// The processes that share the store, where there are several.
    async fn replicas(&self) -> Result<Vec<ReplicaInfo>, OperationError> {
        let all = self.store.replicas().await.map_err(store)?;
        let several = all.len() > 1;
        let told = all.into_iter().filter(|_| several).map(|ReplicaRecord { replica, seen }| ReplicaInfo {
            answers: replica.name == self.membership.name(),
            name: replica.name,
            version: replica.version,
            started: replica.started,
            seen,
        });
        Ok(told.collect())
    }

    /// Whether the store can be read, and takes what is written.
    async fn ask_store(&self) -> Result<(), String> {
        self.store.companies().await.map_err(|error| Chain(&error).to_string())?;
        match self.membership.still_refused().await {
            Some(said) => Err(format!("it can be read, and takes nothing: {said}")),
            None => Ok(()),
        }
    }

    /// Whether something has been due for long and nobody has taken it.
    async fn stands_still(&self) -> Result<bool, StoreError> {
        let oldest = self.store.depth().await?.oldest_due;
        Ok(oldest.is_some_and(|since| since + OVERDUE < self.clock.now()))
    }

    async fn check_store(&self, language: Language) -> CheckLine {
        let what = language.say("lagret", "store").to_owned();
        match self.ask_store().await {
            Ok(()) => {
                CheckLine { what, ok: true, said: language.say("svarar", "answers").into(), cure: None }
            }
            Err(said) => {
                let report = HealthReport::of(Health::StoreUnavailable { said }, language);
                CheckLine { what, ok: false, said: report.cause, cure: Some(report.cure) }
            }
        }
    }

    /// That work is late; nothing where it is not.
    async fn check_turns(&self, language: Language) -> Option<CheckLine> {
        let (what, said, cure) = match language {
            Language::Sv => (
                "postlådor",
                "Några har väntat mer än en minut på att tas om hand.",
                "Vänta, om `narvaro status` nämner kalendrar eller växlar som inte svarar: de håller upp det. Starta annars om tjänsten, och anmäl det med loggen.",
            ),
            Language::En => (
                "mailboxes",
                "Some have been due for more than a minute.",
                "Wait, if `narvaro status` names calendars or PBXs that do not answer: they hold it up. Else restart the service, and report it with the log.",
            ),
        };
        let late = CheckLine { what: what.into(), ok: false, said: said.into(), cure: Some(cure.into()) };
        // A store that is away has a line of its own.
        self.stands_still().await.unwrap_or(false).then_some(late)
    }

    /// Calls our own notification address the way Graph does.
    async fn check_public_url(&self, language: Language) -> CheckLine {
        let what = language.say("aviseringsadressen", "notification address");
        let what = format!("{what} {}", self.self_test.public_url());
        let Err(wrong) = self.self_test.run().await else {
            let said =
                language.say("svarar på en handskakning som den ska", "answers a handshake as it must");
            return CheckLine { what, ok: true, said: said.to_owned(), cure: None };
        };
        let cure = language.say("Låt `webhook.public_url` leda till den publika lyssnaren: DNS-namn, certifikat och proxyns väg till `listen.public`.",
            "Make `webhook.public_url` lead to the public listener: DNS name, certificate, and the reverse proxy's way to `listen.public`.",
        );
        CheckLine { what, ok: false, said: wrong.say(language), cure: Some(cure.to_owned()) }
    }

    async fn check_company(
        &self,
        office: &OpenOffice,
        language: Language,
        lines: &mut Vec<CheckLine>,
    ) -> Result<(), OperationError> {
        let id = office.company.id();
        let mut line = |what: &str, outcome: Result<String, Health>| {
            let what = format!("{id}: {what}");
            lines.push(match outcome {
                Ok(said) => CheckLine { what, ok: true, said, cure: None },
                Err(health) => {
                    let report = HealthReport::of(health, language);
                    CheckLine { what, ok: false, said: report.cause, cure: Some(report.cure) }
                }
            });
        };
        if office.company.file().integration.is_some() {
            line("Microsoft 365", check_calendars(office, language).await);
        }
        line(language.say("växel", "PBX"), check_pbx(office, language).await);
        for user in office.company.users() {
            let report = self.mailbox_status(office, user, language).await?.health;
            if report.severity > crate::health::Severity::Fine {
                let word = language.say("användare", "user");
                line(&format!("{word} {}", user.title()), Err(report.health));
            }
        }
        Ok(())
    }

    /// Puts a company in place of the one that is live under its id, or tells what that would change.
    /// `deed` is what the audit trail calls it.
    pub(super) async fn replace(
        self,
        deed: &'static str,
        company: Company,
        warnings: Vec<Finding>,
        dry_run: bool,
    ) -> Result<ApplyReport, OperationError> {
        let id = company.id().clone();
        let _one_at_a_time = self.offices.changing().await;
        if !dry_run {
            self.offices.bring_up_held(&id, u64::MAX).await.map_err(store)?;
        }
        let before = self.offices.get(&id);
        let live = before.as_ref().map(|office| office.company.as_ref());
        let changes: Vec<String> = diff(live, &company).iter().map(ToString::to_string).collect();
        let revision = live.map_or(0, Company::revision);
        let stays = live.is_some_and(|live| changes.is_empty() && !live.is_leaving());
        if dry_run || stays {
            return Ok(ApplyReport { company: id, changes, warnings, applied: !dry_run, revision });
        }
        let company = company.with_revision(revision + 1);
        let revision = company.revision();
        let standing = before.map(|office| office.standing).unwrap_or_default();
        let deed = self.deed(
            deed,
            Some(&id),
            format!("revision {revision}, {}", counted(changes.len(), "change", "changes")),
        );
        self.make_live(company, standing, deed).await?;
        info!(company.id = %id, revision, changes = changes.len(), "Company `{id}` was applied");
        Ok(ApplyReport { company: id, changes, warnings, applied: true, revision })
    }

    /// Has a company leave, or tells what would go with it.
    async fn take_out(self, company: CompanyId, dry_run: bool) -> Result<RemoveReport, OperationError> {
        let _one_at_a_time = self.offices.changing().await;
        if !dry_run {
            self.offices.bring_up_held(&company, u64::MAX).await.map_err(store)?;
        }
        let office = self.offices.get(&company);
        let office = office.ok_or_else(|| OperationError::NoSuchCompany(company.clone()))?;
        let live = &office.company;
        let report = |leaving| RemoveReport {
            company: company.clone(),
            name: live.name().to_owned(),
            goes: goes(live),
            leaving,
        };
        if dry_run || live.is_leaving() {
            return Ok(report(live.is_leaving()));
        }
        let leaving = Company::clone(live).leaving().with_revision(live.revision() + 1);
        let outcome = format!(
            "revision {}, {}",
            leaving.revision(),
            counted(live.users().len(), "user goes", "users go")
        );
        let deed = self.deed("remove", Some(&company), outcome);
        self.make_live(leaving, office.standing.clone(), deed).await?;
        info!(company.id = %company, users = live.users().len(), "Company `{company}` is being removed");
        Ok(report(true))
    }

    /// Stores a company, with who changed it, and puts it to work; what was there before under its id goes.
    async fn make_live(
        &self,
        company: Company,
        standing: Standing,
        deed: Deed,
    ) -> Result<(), OperationError> {
        let users = company.users().iter().map(|user| user.extension.clone()).collect();
        let document = company.to_json().into_bytes();
        let applied = self.store.apply_noted(company.id(), document, users, Some(deed)).await;
        let applied = applied.map_err(store)?;
        if self.offices.seat_applied(company, standing, applied).await {
            return Ok(());
        }
        Err(OperationError::Internal("it is stored, and cannot be set up: the log says why".into()))
    }

    fn prepare(&self, request: &ApplyRequest) -> Result<(Company, Vec<Finding>), OperationError> {
        let parsed = Company::parse(&request.file, &request.text)
            .map_err(|findings| OperationError::FileRefused(findings.findings))?;
        self.offices.try_out(&parsed.company).map_err(|error| refused_setup(&parsed.document, &error))?;
        Ok((parsed.company, parsed.warnings))
    }
}

/// A company that parses and cannot be set up: the place in its file, as well as it is known.
pub(super) fn refused_setup(document: &Document, error: &SetupError) -> OperationError {
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

async fn check_calendars(office: &OpenOffice, language: Language) -> Result<String, Health> {
    let Some(integration) = &office.office.integration else { return Err(views::not_consented()) };
    match integration.source.check().await {
        // What the adapters say of a success is in English.
        Ok(said) => Ok(match language {
            Language::Sv => {
                "inloggningen godtar vår applikation; om en postlåda får läsas visar sig vid den första"
                    .into()
            }
            Language::En => said,
        }),
        Err(error) => Err(Health::of_read(&error, office.standing.consented_at.is_some())),
    }
}

async fn check_pbx(office: &OpenOffice, language: Language) -> Result<String, Health> {
    let Some(driver) = &office.office.driver else { return Err(Health::PbxMissing) };
    match driver.check().await {
        Ok(said) => Ok(match language {
            Language::Sv => "svarar".into(),
            Language::En => said,
        }),
        Err(error) => Err(Health::of_pbx(&error)),
    }
}

/// What a removal takes away, a line each.
fn goes(company: &Company) -> Vec<String> {
    let id = company.id();
    let mut goes = vec![format!("company {id}: `{}`, its settings and its consent", company.name())];
    goes.extend(
        company.users().iter().map(|user| {
            format!("user {}: the phone is given back, the subscription is deleted", user.title())
        }),
    );
    goes
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
        self.ask_store().await?;
        if self.stands_still().await.map_err(|error| Chain(&error).to_string())? {
            Err("mailboxes have been due for more than a minute".to_owned())
        } else {
            Ok(())
        }
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

    async fn status(&self, scope: Scope) -> Result<Status, OperationError> {
        let language = scope.language.unwrap_or(Language::En);
        let mut companies = Vec::new();
        for office in self.offices(scope.company.as_ref()).await? {
            companies.push(self.company_status(&office, language).await?);
        }
        let now = self.clock.now();
        let notices = self.credential.notice(now, language).into_iter().collect();
        Ok(Status { at: now, notices, replicas: self.replicas().await?, companies })
    }

    async fn apply(&self, request: ApplyRequest) -> Result<ApplyReport, OperationError> {
        let prepared = self.prepare(&request);
        if let (Err(refused), false) = (&prepared, request.dry_run) {
            self.note("apply", None, format!("refused: {refused}")).await;
        }
        let (company, warnings) = prepared?;
        let replace = |service: Self| service.replace("apply", company, warnings, request.dry_run);
        self.see_through("apply", replace).await
    }

    async fn remove(
        &self,
        company: CompanyId,
        request: RemoveRequest,
    ) -> Result<RemoveReport, OperationError> {
        self.see_through("remove", |service| service.take_out(company, request.dry_run)).await
    }

    async fn export(&self, company: CompanyId) -> Result<Exported, OperationError> {
        let office = self.office(&company).await?;
        Ok(Exported { toml: export(&office.company), company })
    }

    async fn backup(&self, page: PageRequest) -> Result<Page<CompanyBackup>, OperationError> {
        self.back_up(&page).await
    }

    async fn restore(&self, request: RestoreRequest) -> Result<ApplyReport, OperationError> {
        let dry_run = request.dry_run;
        let company = self.prepare_restore(request)?;
        self.see_through("restore", |service: Self| service.put_back(company, dry_run)).await
    }

    async fn consent_url(&self, company: CompanyId) -> Result<ConsentUrl, OperationError> {
        let office = self.office(&company).await?;
        if office.company.file().integration.is_none() {
            return Err(OperationError::Refused(format!(
                "company `{company}` reads no calendars from Microsoft 365"
            )));
        }
        let address = self.consent.address(&office);
        self.note(
            "consent_link",
            Some(&company),
            format!("good until {}", address.expires.strftime("%Y-%m-%d %H:%M UTC")),
        )
        .await;
        Ok(address)
    }

    async fn explain(&self, request: ExplainRequest) -> Result<Explained, OperationError> {
        let (office, user) = self.find_user(request.company.as_ref(), &request.user).await?;
        let now = self.clock.now();
        let at = request.at.unwrap_or(now);
        let language = request.language.unwrap_or_else(|| office.company.language());
        let state = self.state_of(&office, &user).await?;
        let ruleset = ruleset_of(&office, Some(&user))?;
        let read = state.timetable.as_ref().map(|timetable| timetable.window);
        let zone = state.timetable.as_ref().map_or_else(
            || TimeZone::get(office.company.time_zone()).unwrap_or(TimeZone::UTC),
            |timetable| timetable.zone.rules(),
        );
        let teller = tell::Explainer { language, zone: &zone };
        let known = state.timetable.as_ref().filter(|timetable| timetable.window.contains(at));
        let decision = known.map(|timetable| decide(&ruleset.rules, timetable, &state.layers, at));
        let mut lines = match (&decision, read) {
            (Some(decision), _) => decision.explanation.lines(language, &zone),
            (None, Some(read)) => vec![teller.outside(at, read)],
            (None, None) => vec![teller.unread(at)],
        };
        // Of the present more is known than the calendar says; and before the first reading, what it waits for.
        let is_now = request.at.is_none();
        let troubles =
            if is_now || read.is_none() { views::troubles(&office, &user, &state, now) } else { Vec::new() };
        if is_now && office.office.driver.is_some() {
            let differs = decision
                .as_ref()
                .zip(state.shows.as_ref())
                .is_some_and(|(decision, shows)| decision.profile != shows.profile);
            if let (true, Some(decision), Some(first)) = (differs, &decision, lines.first_mut()) {
                *first = decision.explanation.should_show(language, &zone);
            }
            lines.push(teller.shown(state.shows.as_ref(), differs));
        }
        lines.extend(troubles.iter().flat_map(|trouble| teller.trouble(trouble)));
        lines.extend(state.proven_until.map(|proven| teller.proven(proven)));
        let details = decision.map(|decision| serde_json::to_value(&decision.explanation)).transpose();
        Ok(Explained {
            company: office.company.id().clone(),
            extension: user.extension.clone(),
            at,
            lines,
            details: details.map_err(|error| OperationError::Internal(Box::new(error)))?.unwrap_or_default(),
            shown: views::shown(&state).filter(|_| is_now),
            troubles: troubles.into_iter().map(|one| HealthReport::of(one.health, language)).collect(),
            read,
        })
    }

    async fn try_subject(&self, request: TryRequest) -> Result<Tried, OperationError> {
        let office = self.office(&request.company).await?;
        let user = match &request.user {
            Some(user) => Some(self.find_user(Some(&request.company), user).await?.1),
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

    async fn subscriptions(&self, scope: Scope) -> Result<Vec<SubscriptionInfo>, OperationError> {
        let language = scope.language.unwrap_or(Language::En);
        let mut all = Vec::new();
        for office in self.offices(scope.company.as_ref()).await? {
            for user in office.company.users() {
                let state = self.state_of(&office, user).await?;
                all.push(views::subscription(&office, user, &state, self.clock.now(), language));
            }
        }
        Ok(all)
    }

    async fn renew(&self, request: RenewRequest) -> Result<JobStarted, OperationError> {
        self.see_through("renew", |service| service.start_renewal(request)).await
    }

    async fn users(&self, company: CompanyId, page: PageRequest) -> Result<Page<UserInfo>, OperationError> {
        self.user_page(&company, &page).await
    }

    async fn mailboxes(
        &self,
        company: CompanyId,
        language: Option<Language>,
        page: PageRequest,
    ) -> Result<Page<MailboxStatus>, OperationError> {
        self.mailbox_page(&company, language.unwrap_or(Language::En), &page).await
    }

    async fn watches(
        &self,
        company: CompanyId,
        language: Option<Language>,
        page: PageRequest,
    ) -> Result<Page<SubscriptionInfo>, OperationError> {
        self.watch_page(&company, language.unwrap_or(Language::En), &page).await
    }

    async fn jobs(&self, company: Option<CompanyId>) -> Result<Vec<JobInfo>, OperationError> {
        if let Some(company) = &company {
            self.office(company).await?;
        }
        let mut jobs = self.all_jobs().await?;
        jobs.retain(|job| company.is_none() || job.company == company);
        Ok(jobs)
    }

    async fn cancel(&self, job: JobId) -> Result<JobProgress, OperationError> {
        self.see_through("cancel", |service| service.cancel_job(job)).await
    }

    async fn audit(&self, request: AuditRequest) -> Result<Page<AuditLine>, OperationError> {
        let company = request.company.clone();
        let page = self.read_trail(request).await?;
        // Of a company that was removed the trail still tells who did it.
        if let Some(company) = company.filter(|_| page.items.is_empty()) {
            self.office(&company).await?;
        }
        Ok(page)
    }

    async fn job(&self, job: JobId) -> Result<JobProgress, OperationError> {
        Ok(self.job_info(&job).await?.progress)
    }

    async fn check(&self, scope: Scope) -> Result<CheckReport, OperationError> {
        let language = scope.language.unwrap_or(Language::En);
        let store = self.check_store(language).await;
        let store_answers = store.ok;
        let mut checks = vec![store];
        checks.extend(self.check_turns(language).await);
        checks.push(self.check_public_url(language).await);
        checks.extend(self.credential.check(self.clock.now(), language));
        // How companies and their mailboxes stand is in the store: what is wrong with that comes first.
        if store_answers {
            for office in self.offices(scope.company.as_ref()).await? {
                self.check_company(&office, language, &mut checks).await?;
            }
        }
        Ok(CheckReport { checks })
    }

    async fn sync_now(&self, request: SyncRequest) -> Result<Synced, OperationError> {
        let pieces = self.pieces(request.company.as_ref(), request.user.as_deref()).await?;
        let marked = self.mark(pieces.iter().map(|piece| piece.mailbox), Reason::Asked).await?;
        // As with a renewal: a user is in one company, named or not.
        let only = request.user.as_ref().and_then(|_| pieces.first().map(|piece| piece.company.clone()));
        let company = request.company.or(only);
        self.note(
            "sync",
            company.as_ref(),
            format!("{} read anew", counted(marked, "mailbox is", "mailboxes are")),
        )
        .await;
        Ok(Synced { marked })
    }
}
