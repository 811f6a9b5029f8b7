//! How a command fails: what was tried, the causes, and what to do.

use std::{error::Error, fmt};

use serde_json::json;

use crate::{
    admin::Problem,
    config::{Finding, Findings},
};

/// A failed command, ready to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    error: String,
    causes: Vec<String>,
    hints: Vec<String>,
    findings: Vec<Finding>,
}

impl Failure {
    /// A failure without known causes.
    pub fn new(error: impl Into<String>) -> Self {
        Self { error: error.into(), causes: Vec::new(), hints: Vec::new(), findings: Vec::new() }
    }

    /// A failure caused by `cause` and what lies behind it.
    pub fn of(error: impl Into<String>, cause: &(dyn Error + 'static)) -> Self {
        let mut causes = Vec::new();
        let mut next = Some(cause);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        Self { causes, ..Self::new(error) }
    }

    /// Adds a cause.
    pub(super) fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds a next step.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Whether places in a file are to blame.
    pub(super) fn has_findings(&self) -> bool {
        !self.findings.is_empty()
    }

    /// The same with what another one says besides; what both say is said once.
    pub(super) fn and(mut self, other: Self) -> Self {
        let add = |all: &mut Vec<String>, more: Vec<String>| {
            more.into_iter().for_each(|one| {
                all.retain(|known| *known != one);
                all.push(one);
            });
        };
        add(&mut self.causes, other.causes);
        add(&mut self.hints, other.hints);
        self.findings.extend(other.findings);
        self
    }

    /// For scripts.
    pub(super) fn to_json(&self) -> String {
        let Self { error, causes, hints, findings } = self;
        json!({ "error": error, "causes": causes, "hints": hints, "findings": findings }).to_string()
    }

    /// Everything but the hints in one line.
    pub(super) fn sentence(&self) -> String {
        std::iter::once(&self.error).chain(&self.causes).cloned().collect::<Vec<_>>().join(": ")
    }

    pub(super) fn first_hint(&self) -> Option<String> {
        self.hints.first().cloned()
    }

    fn with_findings(mut self, findings: Vec<Finding>) -> Self {
        for finding in &findings {
            self.causes.push(finding.to_string());
            self.hints.push(match finding.line {
                Some(line) => format!("line {line}: {}", finding.remedy),
                None if finding.key.is_empty() => finding.remedy.clone(),
                None => format!("`{}`: {}", finding.key, finding.remedy),
            });
        }
        self.findings = findings;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "error: {}", self.error)?;
        for cause in &self.causes {
            writeln!(f, "  caused by: {cause}")?;
        }
        if !self.hints.is_empty() {
            writeln!(f)?;
        }
        for hint in &self.hints {
            writeln!(f, "hint: {hint}")?;
        }
        Ok(())
    }
}

impl From<Findings> for Failure {
    fn from(error: Findings) -> Self {
        Self::new(error.to_string()).with_findings(error.findings)
    }
}

impl From<Finding> for Failure {
    fn from(finding: Finding) -> Self {
        Findings::from(finding).into()
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        let mut failure = Self::new(problem.detail);
        if problem.status >= 500 && !problem.request_id.is_empty() {
            failure.causes.push(format!("request `{}` in the service's log", problem.request_id));
        }
        failure = failure.with_findings(problem.findings);
        failure.hints.extend(problem.remedy);
        failure
    }
}
