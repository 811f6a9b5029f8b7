//! How a mailbox stands: named states, each with a cause and a cure in both languages.
//!
//! The words are for the technician on the telephone: the cause says what happened, the cure says the next
//! step and who takes it. Codes of the outside systems are kept, since their support asks for them.

mod english;
mod swedish;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    calendar::ReadError, chain::Chain, model::Language, presence::PbxError, subscription::WatchError,
};

/// How much a state matters. Ordered: the worse, the greater.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// All is well, or as wanted.
    Fine,
    /// It works; a person should look at it some day.
    Warning,
    /// It does not work.
    Trouble,
}

/// How a mailbox, or the company it belongs to, stands. `code` and `said` are the outside system's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    /// All is well.
    Fine,
    /// Nothing has been read yet.
    Starting,
    /// Switched off in the company file.
    Disabled,
    /// Taken out of its company, or the company is being removed: the phone is still to be given back.
    Leaving,
    /// The login service does not accept our application's secret or certificate: every company is concerned.
    WrongCredentials { code: String },
    /// The company's administrator has not consented yet.
    NoConsent { code: String },
    /// Consent was given once and is gone.
    ConsentWithdrawn { code: String },
    /// No user has the alias.
    UnknownAlias { alias: String },
    /// More than one user has it.
    AmbiguousAlias { alias: String },
    /// The alias is one of the user's addresses and not the primary one.
    AliasNotPrimary { alias: String, primary: String },
    /// Nobody has the alias any more; the calendar of the user who had it is still followed.
    AliasChanged { alias: String },
    /// The user has no mailbox in the cloud.
    NoMailbox { code: String },
    /// The user has been removed.
    UserGone { code: String },
    /// Reading this mailbox is forbidden.
    AccessDenied { code: String },
    /// Microsoft 365 does not answer.
    GraphUnreachable { said: String },
    /// Microsoft 365 refused a request.
    GraphRefused { said: String },
    /// Microsoft 365 asks us to slow down, or would if we asked for more now.
    Throttled { until: Option<Timestamp> },
    /// Microsoft 365 could not reach our notification address.
    NotificationEndpointRefused { said: String },
    /// There is no living subscription; the mailbox is polled.
    SubscriptionLapsed { since: Option<Timestamp> },
    /// Another installation of the same application watches the mailbox; it is polled.
    WatchedElsewhere { host: String },
    /// Changes of the company are not announced to us; its mailboxes are polled.
    PushUnreliable { since: Timestamp },
    /// Our own notification address does not answer us.
    NotificationAddressSilent { said: String },
    /// The mailbox has as many subscriptions as it may have.
    QuotaReached,
    /// The company names no PBX.
    PbxMissing,
    /// The PBX does not answer.
    PbxUnreachable { said: String },
    /// The PBX asks us to slow down.
    PbxThrottled,
    /// The PBX does not accept our credentials.
    PbxDenied { said: String },
    /// The PBX does not know the extension.
    PbxNoSuchExtension { extension: String },
    /// The PBX understood and refused.
    PbxRefused { said: String },
    /// The mailbox's zone has a name that we do not know.
    TimeZoneUnknown { name: String, used: String },
    /// Our own store does not answer.
    StoreUnavailable { said: String },
    /// The application's secret or certificate stops working soon: every company is concerned.
    CredentialExpires { at: Timestamp },
}

impl Health {
    /// The state's name as scripts see it: `no_mailbox`.
    pub fn name(&self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::Object(mut fields)) => match fields.remove("state") {
                Some(serde_json::Value::String(name)) => name,
                _ => String::new(),
            },
            _ => String::new(),
        }
    }

    /// How much it matters.
    pub fn severity(&self) -> Severity {
        match self {
            Self::Fine | Self::Starting | Self::Disabled | Self::Leaving => Severity::Fine,
            Self::AliasNotPrimary { .. }
            | Self::AliasChanged { .. }
            | Self::PushUnreliable { .. }
            | Self::NotificationAddressSilent { .. }
            | Self::Throttled { .. }
            | Self::PbxThrottled
            | Self::TimeZoneUnknown { .. }
            | Self::CredentialExpires { .. } => Severity::Warning,
            _ => Severity::Trouble,
        }
    }

    /// Whether the calendar is kept from us by somebody's decision, and not by a fault that passes.
    pub fn shuts_us_out(&self) -> bool {
        matches!(
            self,
            Self::ConsentWithdrawn { .. }
                | Self::AccessDenied { .. }
                | Self::NoMailbox { .. }
                | Self::UserGone { .. }
                | Self::UnknownAlias { .. }
        )
    }

    /// What a failed read says about the mailbox. `consented` tells a consent that was never given from one taken back.
    pub fn of_read(error: &ReadError, consented: bool) -> Self {
        match error {
            ReadError::Throttled { .. } => Self::Throttled { until: None },
            ReadError::Unreachable(source) => {
                Self::GraphUnreachable { said: Chain(source.as_ref()).to_string() }
            }
            ReadError::LeftAlone { cause, .. } => Self::GraphUnreachable { said: cause.clone() },
            ReadError::LinkExpired => Self::GraphUnreachable { said: Chain(error).to_string() },
            ReadError::Unreadable { place } => {
                Self::GraphRefused { said: format!("answer not understood at `{place}`") }
            }
            ReadError::Credentials { reason } => Self::WrongCredentials { code: reason.clone() },
            ReadError::NoConsent { reason } if consented => Self::ConsentWithdrawn { code: reason.clone() },
            ReadError::NoConsent { reason } => Self::NoConsent { code: reason.clone() },
            ReadError::Denied { reason } => Self::AccessDenied { code: reason.clone() },
            ReadError::UnknownAlias { alias } => Self::UnknownAlias { alias: alias.clone() },
            ReadError::AmbiguousAlias { alias } => Self::AmbiguousAlias { alias: alias.clone() },
            ReadError::NoMailbox { reason } => Self::NoMailbox { code: reason.clone() },
            ReadError::Gone { reason } => Self::UserGone { code: reason.clone() },
            ReadError::Refused { reason } => Self::GraphRefused { said: reason.clone() },
        }
    }

    /// What a failed subscription says about the mailbox.
    pub fn of_watch(error: &WatchError, consented: bool) -> Self {
        match error {
            WatchError::Elsewhere { host } => Self::WatchedElsewhere { host: host.clone() },
            WatchError::Exists { .. } | WatchError::Gone => Self::SubscriptionLapsed { since: None },
            WatchError::EndpointRefused { reason } => {
                Self::NotificationEndpointRefused { said: reason.clone() }
            }
            WatchError::Quota => Self::QuotaReached,
            WatchError::Read(error) => Self::of_read(error, consented),
        }
    }

    /// What a failed write to the PBX says about the extension.
    pub fn of_pbx(error: &PbxError) -> Self {
        match error {
            PbxError::Unreachable(source) => {
                Self::PbxUnreachable { said: Chain(source.as_ref()).to_string() }
            }
            PbxError::Throttled { .. } => Self::PbxThrottled,
            PbxError::Denied { reason } => Self::PbxDenied { said: reason.clone() },
            PbxError::NoSuchExtension { extension } => {
                Self::PbxNoSuchExtension { extension: extension.to_string() }
            }
            PbxError::Refused { reason } | PbxError::Unexpected { reason } => {
                Self::PbxRefused { said: reason.clone() }
            }
        }
    }

    /// What happened, in one sentence.
    pub fn cause(&self, language: Language) -> String {
        match language {
            Language::Sv => self.cause_sv(),
            Language::En => self.cause_en(),
        }
    }

    /// The next step and who takes it; empty where nothing is to be done.
    pub fn cure(&self, language: Language) -> String {
        match language {
            Language::Sv => self.cure_sv(),
            Language::En => self.cure_en(),
        }
    }
}

/// A moment in a sentence: nobody acts on seconds, and the reader may be in any zone.
fn moment(at: Timestamp) -> impl std::fmt::Display {
    at.strftime("%Y-%m-%d %H:%M UTC")
}

/// A state with its words, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HealthReport {
    /// The state by name, with its particulars.
    #[serde(flatten)]
    pub health: Health,
    /// How much it matters.
    pub severity: Severity,
    /// What happened.
    pub cause: String,
    /// The next step; empty where nothing is to be done.
    pub cure: String,
}

impl HealthReport {
    /// The state, told in `language`.
    pub fn of(health: Health, language: Language) -> Self {
        Self {
            severity: health.severity(),
            cause: health.cause(language),
            cure: health.cure(language),
            health,
        }
    }

    /// The state in a word or two, as a table has room for: `no mailbox`, `ingen postlåda`.
    pub fn title(&self, language: Language) -> String {
        match language {
            Language::Sv => self.health.title_sv().to_owned(),
            Language::En => self.health.name().replace('_', " "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_sentences_are_told_to_the_minute_and_in_utc() {
        let at: Timestamp = "2026-11-25T16:07:35.673654673Z".parse().unwrap();
        for health in [
            Health::Throttled { until: Some(at) },
            Health::SubscriptionLapsed { since: Some(at) },
            Health::PushUnreliable { since: at },
        ] {
            for cause in [health.cause(Language::Sv), health.cause(Language::En)] {
                assert!(cause.contains(" 2026-11-25 16:07 UTC"), "{cause}");
                assert!(!cause.contains("16:07:35"), "{cause}");
            }
        }
    }
}
