//! What travels between the command line and the service. Field names are the JSON that scripts read: they are added to, never renamed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::Finding;
use crate::health::HealthReport;
use crate::model::{CompanyId, Extension, Interval, Language, ProfileId, SubscriptionId};

/// One company in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompanySummary {
    /// Its id.
    pub id: CompanyId,
    /// Its name.
    pub name: String,
    /// How many users it has.
    pub users: usize,
    /// Which apply is live; grows with each.
    pub revision: u64,
}

/// Whether the company's administrator has let us read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Consent {
    /// Nothing is to be consented to.
    NotNeeded,
    /// Asked for and not given yet.
    Missing,
    /// Given.
    Given {
        /// The tenant that gave it.
        tenant: String,
        /// When, where that is known.
        since: Option<Timestamp>,
    },
    /// Given once and taken back.
    Withdrawn {
        /// When we noticed.
        since: Timestamp,
    },
}

/// How the link to a company's PBX stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum PbxLink {
    /// The company names no PBX.
    None,
    /// Nothing has been tried yet.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down {
        /// Why, in words for a technician.
        cause: String,
    },
    /// It answers, and does not let us in.
    Denied {
        /// Its words.
        cause: String,
    },
}

/// What the PBX was last told about a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ShownPresence {
    /// The profile; absent where something set by hand shows that is no profile of ours.
    pub profile: Option<ProfileId>,
    /// What others read: the outward label or the profile's name.
    pub label: String,
    /// When it changes; absent for a base without an end.
    pub until: Option<Timestamp>,
}

/// One user, as in the company file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserInfo {
    /// The user's extension.
    pub extension: Extension,
    /// The user's Exchange alias.
    pub alias: String,
    /// The user's name, where the company file gives one.
    #[serde(default)]
    pub name: Option<String>,
    /// Whether the user is switched on.
    pub enabled: bool,
}

/// One user's mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MailboxStatus {
    /// The user's extension.
    pub extension: Extension,
    /// The user's Exchange alias.
    pub alias: String,
    /// The user's name, where the company file gives one.
    #[serde(default)]
    pub name: Option<String>,
    /// How it stands, with cause and cure.
    pub health: HealthReport,
    /// What the PBX shows; absent before the first write.
    pub shown: Option<ShownPresence>,
    /// When the subscription ends; absent without one.
    pub subscription_expires: Option<Timestamp>,
    /// The newest moment at which the timetable was proven equal to the calendar.
    pub proven_until: Option<Timestamp>,
    /// When Microsoft 365 last announced a change of the calendar; absent where it never has.
    #[serde(default)]
    pub notified_at: Option<Timestamp>,
    /// When the presence will change next.
    pub next_change: Option<Timestamp>,
}

/// One company.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompanyStatus {
    /// Its id.
    pub id: CompanyId,
    /// Its name.
    pub name: String,
    /// Its IANA zone: times are shown in it.
    pub time_zone: String,
    /// Whether its calendars may be read.
    pub consent: Consent,
    /// Whether its PBX answers.
    pub pbx: PbxLink,
    /// How the company as a whole stands: the login, the consent, the PBX.
    pub health: HealthReport,
    /// Whether it is being removed.
    #[serde(default)]
    pub leaving: bool,
    /// When Microsoft 365 last announced a change of any of its calendars; absent where it never has.
    #[serde(default)]
    pub notified_at: Option<Timestamp>,
    /// Its users, by extension; those who are being taken out too, until they are gone.
    pub mailboxes: Vec<MailboxStatus>,
}

/// What to answer about, and in which language.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Scope {
    /// Only this company; absent: all.
    pub company: Option<CompanyId>,
    /// Language of causes and cures; English where absent, as companies of several languages may be in one answer.
    pub language: Option<Language>,
}

/// One of several processes that share a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaInfo {
    /// Its name: its host's, and something random.
    pub name: String,
    /// The version of the service that it runs.
    pub version: String,
    /// Since when it runs.
    pub started: Timestamp,
    /// When it was last heard of.
    pub seen: Timestamp,
    /// Whether it is the one that gave this answer.
    pub answers: bool,
}

/// How the service stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The service's present instant.
    pub at: Timestamp,
    /// What concerns the whole service and not one company, as a secret that is about to expire.
    #[serde(default)]
    pub notices: Vec<HealthReport>,
    /// The processes that share the store, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replicas: Vec<ReplicaInfo>,
    /// The companies asked for.
    pub companies: Vec<CompanyStatus>,
}

/// A company file to be made live.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The file's text (TOML).
    pub text: String,
    /// What to call the file in messages.
    pub file: String,
    /// Whether only to say what would change.
    pub dry_run: bool,
}

impl std::fmt::Debug for ApplyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The text may hold a PBX's secret.
        f.debug_struct("ApplyRequest")
            .field("file", &self.file)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// What an apply changed, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyReport {
    /// Which company.
    pub company: CompanyId,
    /// One readable line each; empty: nothing changes.
    pub changes: Vec<String>,
    /// Things that hold and still deserve a look.
    #[serde(default)]
    pub warnings: Vec<Finding>,
    /// Whether it is live now.
    pub applied: bool,
    /// The revision that is live now.
    pub revision: u64,
}

/// How a company is to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemoveRequest {
    /// Whether only to say what would go. To be said either way: a removal cannot be undone.
    pub dry_run: bool,
}

/// What a removal takes away, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemoveReport {
    /// Which company.
    pub company: CompanyId,
    /// Its name.
    pub name: String,
    /// One readable line each.
    pub goes: Vec<String>,
    /// Whether it is on its way out now; it is gone once every phone has been given back.
    pub leaving: bool,
}

/// An applied company in the file's format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Exported {
    /// Which company.
    pub company: CompanyId,
    /// The file's text.
    pub toml: String,
}

/// Where an administrator gives consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsentUrl {
    /// The address to open.
    pub url: String,
    /// When it stops being good.
    pub expires: Timestamp,
}

/// Whose presence to explain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// The company; may be left out where only one has the user.
    #[serde(default)]
    pub company: Option<CompanyId>,
    /// Extension or alias.
    pub user: String,
    /// The moment; now where absent.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Language of the lines; the company's where absent.
    #[serde(default)]
    pub language: Option<Language>,
}

/// Why a user shows what they show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explained {
    /// Which company.
    pub company: CompanyId,
    /// Which extension.
    pub extension: Extension,
    /// For which moment.
    pub at: Timestamp,
    /// The answer in sentences.
    pub lines: Vec<String>,
    /// The answer for scripts; null where the moment lies outside of what has been read.
    pub details: serde_json::Value,
    /// What the PBX is known to show; only of the present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<ShownPresence>,
    /// What stands in the way, the gravest first; only of the present.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<HealthReport>,
    /// From when to when the calendar has been read; absent before the first reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Interval>,
}

/// A subject to be tried.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TryRequest {
    /// By whose words.
    pub company: CompanyId,
    /// With this user's own words too: extension or alias.
    #[serde(default)]
    pub user: Option<String>,
    /// The subject as it would be typed into Outlook.
    pub subject: String,
    /// Language of the lines; the company's where absent.
    #[serde(default)]
    pub language: Option<Language>,
}

impl std::fmt::Debug for TryRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TryRequest").field("company", &self.company).finish_non_exhaustive()
    }
}

/// What a subject would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tried {
    /// The profile it would set; absent: none.
    pub profile: Option<ProfileId>,
    /// The answer in sentences.
    pub lines: Vec<String>,
    /// The answer for scripts.
    pub details: serde_json::Value,
}

/// A subscription as we know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SubscriptionInfo {
    /// Which company.
    pub company: CompanyId,
    /// Whose.
    pub extension: Extension,
    /// The mailbox.
    pub alias: String,
    /// Its name at the calendar server; absent where there is none now.
    pub id: Option<SubscriptionId>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// When it will be renewed.
    pub renew_at: Option<Timestamp>,
    /// How the mailbox stands.
    pub health: HealthReport,
}

/// Which subscriptions to renew now: all, a company's, or one user's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RenewRequest {
    /// Only this company's; absent: all companies', or the user's where only one company has them.
    pub company: Option<CompanyId>,
    /// Only this user's: extension or alias.
    pub user: Option<String>,
    /// That all are meant, of the company where one is named. Over HTTP it has to be said where no company and no user is.
    pub all: bool,
    /// Language of what failed; English where absent.
    pub language: Option<Language>,
}

/// Names a job for as long as the service keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct JobId(pub String);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckLine {
    /// What was tried: `acme: PBX`.
    pub what: String,
    /// Whether it holds.
    pub ok: bool,
    /// What it said.
    pub said: String,
    /// The next step, where it does not hold.
    pub cure: Option<String>,
}

/// All that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckReport {
    /// In the order tried.
    pub checks: Vec<CheckLine>,
}

impl CheckReport {
    /// Whether all holds.
    pub fn ok(&self) -> bool {
        self.checks.iter().all(|line| line.ok)
    }
}

/// Which mailboxes to read anew now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SyncRequest {
    /// Only this company's.
    pub company: Option<CompanyId>,
    /// Only this user's: extension or alias.
    pub user: Option<String>,
    /// That all are meant, of the company where one is named. Over HTTP it has to be said where no company and no user is.
    pub all: bool,
}

/// What was marked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Synced {
    /// How many mailboxes are due now.
    pub marked: u64,
}
