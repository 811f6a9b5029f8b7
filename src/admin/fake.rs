//! A service that works without one: fixed companies behind the real router, for the tests of both ends.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::json;
use tokio::task::JoinSet;

use super::*;
use crate::{
    company::{Company, diff},
    config::{Finding, Role},
    model::{CompanyId, Extension, Language},
};

/// The token that opens the fake.
pub(crate) const TOKEN: &str = "open-sesame";

/// Tokens of less: what each may do, and for which company only.
pub(crate) const LESSER: [(&str, Role, Option<&str>); 6] = [
    ("reads-all", Role::Read, None),
    ("reads-acme", Role::Read, Some("acme")),
    ("operates-all", Role::Operator, None),
    ("operates-acme", Role::Operator, Some("acme")),
    ("operates-beta", Role::Operator, Some("beta")),
    ("administers-acme", Role::Admin, Some("acme")),
];

/// Fixed companies.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    /// How often the job has been asked for: it is finished at the second time.
    pub(crate) asked: Arc<AtomicU64>,
    /// Whether the store is away.
    pub(crate) store_is_away: bool,
    /// Whether there are no companies.
    pub(crate) empty: bool,
    /// Whether a renewal is under way already.
    pub(crate) under_way: bool,
    /// Whether a renewal is of many.
    pub(crate) many: bool,
    /// Whether something that is stored is damaged.
    pub(crate) damaged: bool,
    /// Whether the application's credential ends soon.
    pub(crate) credential_ends: bool,
    /// Processes that share the store.
    pub(crate) replicas: Vec<ReplicaInfo>,
}

/// The fake behind the real router, on a port of its own; it ends with the value.
pub(crate) struct Running {
    /// Where it listens.
    pub(crate) url: String,
    _tasks: JoinSet<()>,
}

impl Running {
    pub(crate) async fn start(fake: Fake) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut tokens = vec![Token { secret: TOKEN.into(), caller: Caller::admin("admin") }];
        for (secret, role, company) in LESSER {
            let companies = company.map(|company| [company.parse().unwrap()].into());
            let caller = Caller { name: format!("{secret}-name"), role, companies };
            tokens.push(Token { secret: secret.into(), caller });
        }
        let router =
            router(Surface { operations: Arc::new(fake), tokens, metrics: None, max_body_bytes: 10_000 });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, _tasks: tasks }
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn acme() -> CompanyId {
    "acme".parse().unwrap()
}

fn extension(text: &str) -> Extension {
    text.parse().unwrap()
}

fn healthy(language: Language) -> HealthReport {
    HealthReport::of(Health::Fine, language)
}

fn mailboxes(language: Language) -> Vec<MailboxStatus> {
    let meeting = ShownPresence {
        profile: "meeting".parse().ok(),
        label: "Möte".into(),
        until: Some(at("2026-11-23T14:00:00Z")),
    };
    let no_mailbox = Health::NoMailbox { code: "MailboxNotEnabledForRESTAPI".into() };
    vec![
        MailboxStatus {
            extension: extension("201"),
            alias: "anna@acme.example".into(),
            name: Some("Anna Ström".into()),
            health: healthy(language),
            shown: Some(meeting),
            subscription_expires: Some(at("2026-11-29T08:00:00Z")),
            proven_until: Some(at("2026-11-23T13:00:00Z")),
            notified_at: Some(at("2026-11-23T12:41:00Z")),
            next_change: Some(at("2026-11-23T14:00:00Z")),
        },
        MailboxStatus {
            extension: extension("202"),
            alias: "bo@acme.example".into(),
            name: None,
            health: HealthReport::of(no_mailbox, language),
            shown: None,
            subscription_expires: None,
            proven_until: None,
            notified_at: None,
            next_change: None,
        },
    ]
}

fn known(company: &CompanyId) -> Result<(), OperationError> {
    if *company == acme() { Ok(()) } else { Err(OperationError::NoSuchCompany(company.clone())) }
}

/// A renewal of two, of which one fails.
fn renewal(finished: bool) -> JobProgress {
    JobProgress {
        total: 2,
        done: if finished { 2 } else { 1 },
        renewed: 1,
        reasons: [("no_mailbox".to_owned(), 1)].into(),
        failed: vec!["202 bo@acme.example: no mailbox".into()],
        finished,
        ..JobProgress::default()
    }
}

/// A renewal of seventy, of which more fail than are told.
fn long_renewal() -> JobProgress {
    JobProgress {
        total: 70,
        done: 70,
        renewed: 8,
        made_anew: 1,
        reasons: [("no_mailbox".to_owned(), 60), ("late".to_owned(), 1)].into(),
        failed: vec!["202 bo@acme.example: no mailbox".into(); 50],
        finished: true,
        ..JobProgress::default()
    }
}

impl Fake {
    fn reach_store(&self) -> Result<(), OperationError> {
        if self.store_is_away {
            return Err(OperationError::Store("disk `/secret/place` is gone".into()));
        }
        Ok(())
    }
}

#[async_trait]
impl Operations for Fake {
    fn on_behalf_of(&self, _: &str) -> Arc<dyn Operations> {
        Arc::new(self.clone())
    }

    async fn ready(&self) -> Result<(), String> {
        if self.store_is_away { Err("the store does not answer".into()) } else { Ok(()) }
    }

    async fn companies(&self) -> Result<Vec<CompanySummary>, OperationError> {
        self.reach_store()?;
        Ok(vec![CompanySummary { id: acme(), name: "Acme AB".into(), users: 2, revision: 7 }])
    }

    async fn status(&self, scope: Scope) -> Result<Status, OperationError> {
        scope.company.as_ref().map_or(Ok(()), known)?;
        let language = scope.language.unwrap_or(Language::En);
        let status = CompanyStatus {
            id: acme(),
            name: "Acme AB".into(),
            time_zone: "Europe/Stockholm".into(),
            consent: Consent::Given {
                tenant: "01234567-89ab-cdef-0123-456789abcdef".into(),
                since: Some(at("2026-11-01T09:00:00Z")),
            },
            pbx: PbxLink::Down { cause: "connection refused".into() },
            health: HealthReport::of(Health::PbxUnreachable { said: "connection refused".into() }, language),
            leaving: false,
            notified_at: Some(at("2026-11-23T12:41:00Z")),
            mailboxes: mailboxes(language),
        };
        let companies = if self.empty { vec![] } else { vec![status] };
        let end = Health::CredentialExpires { at: at("2026-12-01T00:00:00Z") };
        let notices = self.credential_ends.then(|| HealthReport::of(end, language)).into_iter().collect();
        Ok(Status { at: at("2026-11-23T13:30:00Z"), notices, replicas: self.replicas.clone(), companies })
    }

    async fn apply(&self, request: ApplyRequest) -> Result<ApplyReport, OperationError> {
        self.reach_store()?;
        let parsed = Company::parse(&request.file, &request.text)
            .map_err(|findings| OperationError::FileRefused(findings.findings))?;
        let changes = diff(None, &parsed.company).iter().map(ToString::to_string).collect();
        let revision = if request.dry_run { 7 } else { 8 };
        let company = parsed.company.id().clone();
        Ok(ApplyReport { company, changes, warnings: parsed.warnings, applied: !request.dry_run, revision })
    }

    async fn remove(
        &self,
        company: CompanyId,
        request: RemoveRequest,
    ) -> Result<RemoveReport, OperationError> {
        known(&company)?;
        let goes = vec!["company acme: `Acme AB`".into(), "user 201: anna@acme.example".into()];
        Ok(RemoveReport { company, name: "Acme AB".into(), goes, leaving: !request.dry_run })
    }

    async fn export(&self, company: CompanyId) -> Result<Exported, OperationError> {
        known(&company)?;
        Ok(Exported { company, toml: "id = \"acme\"\n".into() })
    }

    async fn backup(&self, page: PageRequest) -> Result<Page<CompanyBackup>, OperationError> {
        let text = "id = 'acme'\nname = 'Acme AB'\n";
        let company =
            Company::parse("acme.toml", text).map_err(|found| OperationError::FileRefused(found.findings))?;
        let applied = serde_json::from_str(&company.company.to_json()).ok();
        let standing = Some(json!({ "tenant": "01234567-89ab-cdef-0123-456789abcdef" }));
        let damaged = if self.damaged { vec!["its draft is damaged: no text".to_owned()] } else { vec![] };
        let acme = CompanyBackup { id: acme(), applied, draft: None, standing, left_out: damaged };
        let beta = CompanyBackup {
            id: "beta".parse().map_err(|_| OperationError::ScopeMissing)?,
            applied: None,
            draft: Some("a draft".to_owned()),
            standing: None,
            left_out: vec![],
        };
        // A piece each, so that whoever reads has to go on.
        Ok(match page.after.as_deref() {
            None => Page { items: vec![acme], next: Some("acme".into()) },
            Some(_) => Page { items: vec![beta], next: None },
        })
    }

    async fn restore(&self, request: RestoreRequest) -> Result<ApplyReport, OperationError> {
        let company = request.company.id;
        if let Some(applied) = request.company.applied.filter(|applied| applied["company"]["name"].is_null())
        {
            return Err(OperationError::BackupRefused(vec![Finding {
                file: format!("{}, company `{company}`", request.file),
                line: None,
                key: "applied.company.name".into(),
                problem: format!(
                    "is missing beside {} others",
                    applied.as_object().map_or(0, serde_json::Map::len)
                ),
                remedy: "add it".into(),
            }]));
        }
        let changes = vec!["settings: language: `\"en\"` -> `\"sv\"`".into()];
        let revision = if request.dry_run { 7 } else { 8 };
        Ok(ApplyReport { company, changes, warnings: vec![], applied: !request.dry_run, revision })
    }

    async fn consent_url(&self, company: CompanyId) -> Result<ConsentUrl, OperationError> {
        known(&company)?;
        let url = "https://login.example/adminconsent?state=abc".into();
        Ok(ConsentUrl { url, expires: at("2026-11-23T14:30:00Z") })
    }

    async fn explain(&self, request: ExplainRequest) -> Result<Explained, OperationError> {
        if request.user == "299" {
            return Err(OperationError::NoSuchUser { company: acme(), user: request.user });
        }
        let at = request.at.unwrap_or(at("2026-11-23T13:30:00Z"));
        let lines = vec![format!("At {at} `Möte` shows, by the word `MÖT`.")];
        let details = json!({ "profile": "meeting" });
        let (shown, troubles, read) = (None, Vec::new(), None);
        Ok(Explained {
            company: acme(),
            extension: extension("201"),
            at,
            lines,
            details,
            shown,
            troubles,
            read,
        })
    }

    async fn try_subject(&self, request: TryRequest) -> Result<Tried, OperationError> {
        known(&request.company)?;
        let lines = vec![format!("`{}` sets `Möte`.", request.subject)];
        Ok(Tried { profile: "meeting".parse().ok(), lines, details: json!({}) })
    }

    async fn subscriptions(&self, scope: Scope) -> Result<Vec<SubscriptionInfo>, OperationError> {
        scope.company.as_ref().map_or(Ok(()), known)?;
        Ok(vec![SubscriptionInfo {
            company: acme(),
            extension: extension("201"),
            alias: "anna@acme.example".into(),
            id: "sub-1".parse().ok(),
            expires: Some(at("2026-11-29T08:00:00Z")),
            renew_at: Some(at("2026-11-26T08:00:00Z")),
            health: healthy(scope.language.unwrap_or(Language::En)),
        }])
    }

    async fn renew(&self, request: RenewRequest) -> Result<JobStarted, OperationError> {
        let total = match (self.many, request.user) {
            (true, _) => 70,
            (false, Some(_)) => 1,
            (false, None) => 2,
        };
        Ok(JobStarted { job: JobId(format!("renew-{total}")), total, under_way: self.under_way })
    }

    async fn job(&self, job: JobId) -> Result<JobProgress, OperationError> {
        let finished = self.asked.fetch_add(1, Ordering::Relaxed) > 0;
        match job.0.as_str() {
            "renew-1" => {
                Ok(JobProgress { total: 1, done: 1, renewed: 1, finished: true, ..JobProgress::default() })
            }
            "renew-2" => Ok(renewal(finished)),
            "renew-70" => Ok(long_renewal()),
            "renew-cancelled" => Ok(JobProgress {
                total: 2,
                done: 1,
                renewed: 1,
                finished: true,
                cancelled: true,
                ..JobProgress::default()
            }),
            _ => Err(OperationError::NoSuchJob(job)),
        }
    }

    async fn check(&self, scope: Scope) -> Result<CheckReport, OperationError> {
        scope.company.as_ref().map_or(Ok(()), known)?;
        let language = scope.language.unwrap_or(Language::En);
        let wrong = Health::PbxUnreachable { said: "connection refused".into() };
        let line =
            |what: &str, ok, said: &str, cure| CheckLine { what: what.into(), ok, said: said.into(), cure };
        Ok(CheckReport {
            checks: vec![
                line("acme: login", true, "a token was given", None),
                line("acme: PBX", false, &wrong.cause(language), Some(wrong.cure(language))),
            ],
        })
    }

    async fn sync_now(&self, request: SyncRequest) -> Result<Synced, OperationError> {
        Ok(Synced { marked: if request.user.is_some() { 1 } else { 2 } })
    }

    async fn users(&self, company: CompanyId, page: PageRequest) -> Result<Page<UserInfo>, OperationError> {
        known(&company)?;
        let info = |mailbox: MailboxStatus| UserInfo {
            extension: mailbox.extension,
            alias: mailbox.alias,
            name: mailbox.name,
            enabled: true,
        };
        Ok(Page::cut(&page, mailboxes(Language::En).into_iter().map(info), |user| user.extension.to_string()))
    }

    async fn mailboxes(
        &self,
        company: CompanyId,
        language: Option<Language>,
        page: PageRequest,
    ) -> Result<Page<MailboxStatus>, OperationError> {
        known(&company)?;
        Ok(Page::cut(&page, mailboxes(language.unwrap_or(Language::En)), |mailbox| {
            mailbox.extension.to_string()
        }))
    }

    async fn watches(
        &self,
        company: CompanyId,
        language: Option<Language>,
        page: PageRequest,
    ) -> Result<Page<SubscriptionInfo>, OperationError> {
        let all = self.subscriptions(Scope { company: Some(company), language }).await?;
        Ok(Page::cut(&page, all, |one| one.extension.to_string()))
    }

    async fn jobs(&self, company: Option<CompanyId>) -> Result<Vec<JobInfo>, OperationError> {
        company.as_ref().map_or(Ok(()), known)?;
        Ok(vec![JobInfo {
            job: JobId("renew-2".into()),
            by: "admin".into(),
            started: at("2026-11-23T13:00:00Z"),
            company: Some(acme()),
            user: None,
            language: None,
            progress: renewal(true),
        }])
    }

    async fn cancel(&self, job: JobId) -> Result<JobProgress, OperationError> {
        match job.0.as_str() {
            "renew-2" => Ok(JobProgress { cancelled: true, ..renewal(false) }),
            _ => Err(OperationError::NoSuchJob(job)),
        }
    }

    async fn audit(&self, request: AuditRequest) -> Result<Page<AuditLine>, OperationError> {
        request.company.as_ref().map_or(Ok(()), known)?;
        let line = |number, moment, who: &str, what: &str, company, outcome: &str| AuditLine {
            number,
            at: at(moment),
            who: who.into(),
            what: what.into(),
            company,
            outcome: outcome.into(),
        };
        // A piece each, so that whoever reads has to go on.
        let newest = line(2, "2026-11-23T13:20:00Z", "admin", "sync", None, "2 mailboxes are read anew");
        let oldest =
            line(1, "2026-11-23T13:00:00Z", "helpdesk", "renew", Some(acme()), "job renew-2: 2 mailboxes");
        Ok(match request.after.as_deref() {
            None => Page { items: vec![newest], next: Some("2".into()) },
            Some(_) => Page { items: vec![oldest], next: None },
        })
    }
}
