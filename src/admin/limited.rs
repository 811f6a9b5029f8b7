//! The service as a token sees it that is limited to some companies (I14).
//!
//! Every operation is here, so that a new one does not compile before somebody has thought of this. Another company is
//! answered like one that does not exist. Where an operation would be about all companies, it is about the token's;
//! where it can be about one only, the token's only one is meant, or one has to be named.

use std::{collections::BTreeSet, sync::Arc};

use async_trait::async_trait;

use super::{
    audit::{AuditLine, AuditRequest},
    jobs::{JobInfo, JobProgress, JobStarted},
    operations::{OperationError, Operations},
    page::{Page, PageRequest},
    types::{
        ApplyReport, ApplyRequest, CheckReport, CompanySummary, ConsentUrl, ExplainRequest, Explained,
        Exported, JobId, MailboxStatus, RemoveReport, RemoveRequest, RenewRequest, Scope, Status,
        SubscriptionInfo, SyncRequest, Synced, Tried, TryRequest, UserInfo,
    },
};
use crate::model::{CompanyId, Language};

/// Operations on some companies.
pub(super) struct Limited {
    whole: Arc<dyn Operations>,
    companies: BTreeSet<CompanyId>,
}

impl Limited {
    pub(super) fn new(whole: Arc<dyn Operations>, companies: BTreeSet<CompanyId>) -> Self {
        Self { whole, companies }
    }

    fn own(&self, company: CompanyId) -> Result<CompanyId, OperationError> {
        if self.companies.contains(&company) {
            Ok(company)
        } else {
            Err(OperationError::NoSuchCompany(company))
        }
    }

    /// The company named, or the only one.
    fn one(&self, company: Option<CompanyId>) -> Result<CompanyId, OperationError> {
        let mut companies = self.companies.iter();
        match (company, companies.next(), companies.next()) {
            (Some(company), ..) => self.own(company),
            (None, Some(only), None) => Ok(only.clone()),
            _ => Err(OperationError::Refused("the token is for several companies: name one".to_owned())),
        }
    }

    /// The job, if it is about one of the token's companies and no other.
    async fn own_job(&self, job: JobId) -> Result<JobId, OperationError> {
        let jobs = self.whole.jobs(None).await?;
        let known = jobs.into_iter().find(|known| known.job == job);
        match known.and_then(|known| known.company) {
            Some(company) if self.companies.contains(&company) => Ok(job),
            _ => Err(OperationError::NoSuchJob(job)),
        }
    }
}

/// On which machines the service runs is its operator's business.
fn without_replicas(status: Status) -> Status {
    Status { replicas: Vec::new(), ..status }
}

#[async_trait]
impl Operations for Limited {
    fn on_behalf_of(&self, who: &str) -> Arc<dyn Operations> {
        Arc::new(Self::new(self.whole.on_behalf_of(who), self.companies.clone()))
    }

    async fn ready(&self) -> Result<(), String> {
        self.whole.ready().await
    }

    async fn companies(&self) -> Result<Vec<CompanySummary>, OperationError> {
        let mut all = self.whole.companies().await?;
        all.retain(|company| self.companies.contains(&company.id));
        Ok(all)
    }

    async fn status(&self, scope: Scope) -> Result<Status, OperationError> {
        let Scope { company, language } = scope;
        let of = |company| Scope { company, language };
        if let Some(company) = company {
            return Ok(without_replicas(self.whole.status(of(Some(self.own(company)?))).await?));
        }
        let known = self.companies().await?;
        let mut companies = known.into_iter();
        let Some(first) = companies.next() else {
            // Nothing of the token's is here yet. Only what is the service's own is told.
            let status = self.whole.status(of(None)).await?;
            return Ok(without_replicas(Status { companies: Vec::new(), ..status }));
        };
        let mut status = self.whole.status(of(Some(first.id))).await?;
        for company in companies {
            status.companies.extend(self.whole.status(of(Some(company.id))).await?.companies);
        }
        Ok(without_replicas(status))
    }

    async fn users(&self, company: CompanyId, page: PageRequest) -> Result<Page<UserInfo>, OperationError> {
        self.whole.users(self.own(company)?, page).await
    }

    async fn mailboxes(
        &self,
        company: CompanyId,
        language: Option<Language>,
        page: PageRequest,
    ) -> Result<Page<MailboxStatus>, OperationError> {
        self.whole.mailboxes(self.own(company)?, language, page).await
    }

    async fn watches(
        &self,
        company: CompanyId,
        language: Option<Language>,
        page: PageRequest,
    ) -> Result<Page<SubscriptionInfo>, OperationError> {
        self.whole.watches(self.own(company)?, language, page).await
    }

    /// A company file names tenants and secrets of whichever company it likes.
    async fn apply(&self, _: ApplyRequest) -> Result<ApplyReport, OperationError> {
        Err(OperationError::Refused("a token for some companies applies no company files".to_owned()))
    }

    /// With the company would go the token's own, and only a company file, which such a token cannot apply, brings it back.
    async fn remove(&self, _: CompanyId, _: RemoveRequest) -> Result<RemoveReport, OperationError> {
        Err(OperationError::Refused("a token for some companies removes no companies".to_owned()))
    }

    async fn export(&self, company: CompanyId) -> Result<Exported, OperationError> {
        self.whole.export(self.own(company)?).await
    }

    async fn consent_url(&self, company: CompanyId) -> Result<ConsentUrl, OperationError> {
        self.whole.consent_url(self.own(company)?).await
    }

    async fn explain(&self, request: ExplainRequest) -> Result<Explained, OperationError> {
        let company = Some(self.one(request.company)?);
        self.whole.explain(ExplainRequest { company, ..request }).await
    }

    async fn try_subject(&self, request: TryRequest) -> Result<Tried, OperationError> {
        let company = self.own(request.company)?;
        self.whole.try_subject(TryRequest { company, ..request }).await
    }

    async fn subscriptions(&self, scope: Scope) -> Result<Vec<SubscriptionInfo>, OperationError> {
        let company = Some(self.one(scope.company)?);
        self.whole.subscriptions(Scope { company, ..scope }).await
    }

    async fn renew(&self, request: RenewRequest) -> Result<JobStarted, OperationError> {
        let company = Some(self.one(request.company)?);
        self.whole.renew(RenewRequest { company, ..request }).await
    }

    async fn jobs(&self, company: Option<CompanyId>) -> Result<Vec<JobInfo>, OperationError> {
        let company = self.one(company)?;
        self.whole.jobs(Some(company)).await
    }

    async fn job(&self, job: JobId) -> Result<JobProgress, OperationError> {
        self.whole.job(self.own_job(job).await?).await
    }

    async fn cancel(&self, job: JobId) -> Result<JobProgress, OperationError> {
        self.whole.cancel(self.own_job(job).await?).await
    }

    async fn check(&self, scope: Scope) -> Result<CheckReport, OperationError> {
        let company = Some(self.one(scope.company)?);
        self.whole.check(Scope { company, ..scope }).await
    }

    async fn sync_now(&self, request: SyncRequest) -> Result<Synced, OperationError> {
        let company = Some(self.one(request.company)?);
        self.whole.sync_now(SyncRequest { company, ..request }).await
    }

    async fn audit(&self, request: AuditRequest) -> Result<Page<AuditLine>, OperationError> {
        let company = Some(self.one(request.company)?);
        self.whole.audit(AuditRequest { company, ..request }).await
    }
}
