//! The configuration out of the service, and back into it.
//!
//! What goes out is what is stored, so that members of other versions survive. What comes back is validated as a company
//! file is, and made live in the same way. A consent is put back where none is known, or an older one: what became
//! known since the backup is nearer to the truth.

use serde_json::Value;

use super::{
    operations::{Service, refused_setup, store},
    standing::Standing,
};
use crate::{
    admin::{ApplyReport, CompanyBackup, OperationError, Page, PageRequest, RestoreRequest},
    chain::Chain,
    company::{Company, StoredError, export, records::CompanyRecord},
    config::Finding,
    model::{CompanyId, TenantId},
    turn::roster::SeatsCompanies,
};

/// A company that can be put back.
pub(super) struct Restorable {
    id: CompanyId,
    applied: Option<(Company, Vec<Finding>)>,
    draft: Option<String>,
    standing: Option<Standing>,
}

impl Service {
    /// Companies as they are stored; those that are on their way out are left out.
    pub(super) async fn back_up(&self, page: &PageRequest) -> Result<Page<CompanyBackup>, OperationError> {
        let mut records = self.store.companies().await.map_err(store)?;
        let leaves = |id: &CompanyId| self.offices.get(id).is_some_and(|office| office.company.is_leaving());
        records.retain(|record| !leaves(&record.id));
        records.sort_by(|a, b| a.id.cmp(&b.id));
        let cut = Page::cut(page, records, |record| record.id.as_str().to_owned());
        Ok(Page { items: cut.items.into_iter().map(taken_out).collect(), next: cut.next })
    }

    /// Validates all of a company that is to be put back.
    pub(super) fn prepare_restore(&self, request: RestoreRequest) -> Result<Restorable, OperationError> {
        let RestoreRequest { company, file, dry_run: _ } = request;
        let CompanyBackup { id, applied, draft, standing, left_out: _ } = company;
        let places = Places { file: format!("{file}, company `{id}`") };
        let applied = applied.map(|applied| self.readable(&id, &applied, &places)).transpose()?;
        let standing = standing.map(|standing| places.standing(standing)).transpose()?;
        Ok(Restorable { id, applied, draft, standing })
    }

    fn readable(
        &self,
        id: &CompanyId,
        applied: &Value,
        places: &Places,
    ) -> Result<(Company, Vec<Finding>), OperationError> {
        let company = Company::from_json(&applied.to_string()).map_err(|error| places.stored(&error))?;
        if company.id() != id {
            return Err(places.refuse(
                "applied.company.id",
                format!("is `{}`", company.id()),
                format!("it must be `{id}`, as the company is called in the backup"),
            ));
        }
        if company.is_leaving() {
            return Err(places.refuse(
                "applied.leaving",
                "says that the company was being removed",
                "take the company out of the file",
            ));
        }
        // The rules for what a file may say are those for files: it is held against them as one.
        let parsed = Company::parse(&places.file, &export(&company))
            .map_err(|findings| places.of_declaration(findings.findings))?;
        if let Err(error) = self.offices.try_out(&company) {
            return Err(match refused_setup(&parsed.document, &error) {
                OperationError::FileRefused(findings) => places.of_declaration(findings),
                other => other,
            });
        }
        let warnings = parsed.warnings.into_iter().map(|warning| places.moved(warning)).collect();
        Ok((company, warnings))
    }

    /// Puts a company back, or tells what that would change.
    pub(super) async fn put_back(
        self,
        company: Restorable,
        dry_run: bool,
    ) -> Result<ApplyReport, OperationError> {
        let Restorable { id, applied, draft, standing } = company;
        // What is held against the backup is what is live, also where another process has made it so.
        self.offices.bring_up(&id, u64::MAX).await.map_err(store)?;
        let declared = applied.as_ref().and_then(|(company, _)| company.tenant().cloned());
        let standing = standing.filter(|standing| self.is_news(&id, standing));
        if let Some(standing) = &standing {
            self.tenant_is_free(&id, declared.as_ref().or(standing.tenant.as_ref()), declared.is_some())?;
        }
        let mut report = match applied {
            Some((company, warnings)) => self.clone().replace("restore", company, warnings, dry_run).await?,
            None => ApplyReport {
                company: id.clone(),
                changes: Vec::new(),
                warnings: Vec::new(),
                applied: !dry_run,
                revision: self.offices.get(&id).map_or(0, |office| office.company.revision()),
            },
        };
        if let Some(standing) = standing {
            let told = consent_of(&standing);
            if !dry_run {
                let deed = self.deed("restore", Some(&id), told.clone());
                self.offices.put_back_standing(&id, standing, deed).await.map_err(store)?;
            }
            report.changes.push(told);
        }
        if let Some(draft) = draft
            && self.draft_of(&id).await? != Some(draft.clone().into_bytes())
        {
            if !dry_run {
                self.store.save_draft(&id, Some(draft.into_bytes())).await.map_err(store)?;
            }
            report.changes.push("draft: put back".to_owned());
        }
        Ok(report)
    }

    /// Whether more is known by it of the consent than without it.
    fn is_news(&self, id: &CompanyId, standing: &Standing) -> bool {
        let known = self.offices.get(id).map(|office| office.standing).unwrap_or_default();
        standing.tenant.is_some() && (known.tenant.is_none() || standing.consented_at > known.consented_at)
    }

    /// As with a consent: a tenant that another company here has is not given to a second one, unless its file names it.
    fn tenant_is_free(
        &self,
        id: &CompanyId,
        tenant: Option<&TenantId>,
        is_declared: bool,
    ) -> Result<(), OperationError> {
        let other =
            tenant.filter(|_| !is_declared).and_then(|tenant| self.offices.other_with_tenant(id, tenant));
        match other {
            Some(other) => Err(OperationError::Refused(format!(
                "the tenant that has consented for company `{id}` belongs to company `{other}` here"
            ))),
            None => Ok(()),
        }
    }

    async fn draft_of(&self, id: &CompanyId) -> Result<Option<Vec<u8>>, OperationError> {
        let record = self.store.company(id).await.map_err(store)?;
        Ok(record.and_then(|(record, _)| record.draft))
    }
}

fn consent_of(standing: &Standing) -> String {
    let tenant = standing.tenant.as_ref().map(ToString::to_string).unwrap_or_default();
    match standing.consented_at {
        Some(at) => format!("consent: of tenant {tenant}, given {}", at.strftime("%Y-%m-%d %H:%M UTC")),
        None => format!("consent: of tenant {tenant}"),
    }
}

fn taken_out(record: CompanyRecord) -> CompanyBackup {
    let mut left_out = Vec::new();
    let mut read = |what: &str, document: Option<Vec<u8>>| {
        let read = document.map(|document| serde_json::from_slice(&document)).transpose();
        read.unwrap_or_else(|error| {
            left_out.push(format!("{what} is damaged: {error}"));
            None
        })
    };
    let applied = read("what is applied", record.applied);
    let standing = read("what is known of its consent", record.standing);
    let draft = record.draft.map(String::from_utf8).transpose().unwrap_or_else(|error| {
        left_out.push(format!("its draft is damaged: {error}"));
        None
    });
    CompanyBackup { id: record.id, applied, draft, standing, left_out }
}

/// Names places in a backup.
struct Places {
    file: String,
}

impl Places {
    fn refuse(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> OperationError {
        OperationError::BackupRefused(vec![Finding {
            file: self.file.clone(),
            line: None,
            key: key.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        }])
    }

    fn stored(&self, error: &StoredError) -> OperationError {
        match error {
            StoredError::Misfit { place, reason } => {
                let of_frame = ["schema", "revision", "company"].contains(&place.as_str());
                let key =
                    if of_frame { format!("applied.{place}") } else { format!("applied.company.{place}") };
                self.refuse(&key, format!("does not hold: {reason}"), "correct it")
            }
            StoredError::TooNew { .. } => {
                self.refuse("applied.schema", format!("is too new: {error}"), "restore with that release")
            }
            StoredError::Damaged(_) => {
                self.refuse("applied", Chain(error).to_string(), "take it from another backup")
            }
        }
    }

    /// What was found in the declaration, with its place in the backup instead of in a company file.
    fn of_declaration(&self, findings: Vec<Finding>) -> OperationError {
        OperationError::BackupRefused(findings.into_iter().map(|finding| self.moved(finding)).collect())
    }

    fn moved(&self, finding: Finding) -> Finding {
        let key = [String::from("applied.company"), finding.key].join(".");
        Finding { file: self.file.clone(), line: None, key: key.trim_end_matches('.').to_owned(), ..finding }
    }

    fn standing(&self, standing: Value) -> Result<Standing, OperationError> {
        serde_path_to_error::deserialize(standing).map_err(|error| {
            let key = format!("standing.{}", error.path());
            self.refuse(key.trim_end_matches('.'), format!("does not hold: {}", error.inner()), "correct it")
        })
    }
}
