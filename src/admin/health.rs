//! How a mailbox stands: named states, each with a cause and a cure in both languages.
//!
//! The words are for the technician on the telephone: the cause says what happened, the cure says the next
//! step and who takes it. Codes of the outside systems are kept, since their support asks for them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    calendar::ReadError, chain::Chain, model::Language, presence::PbxError, subscription::WatchError,
};

/// How much a state matters. Ordered: the worse, the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Health {
    /// All is well.
    Fine,
    /// Nothing has been read yet.
    Starting,
    /// Switched off in the company file.
    Disabled,
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
    /// Microsoft 365 asks us to slow down.
    Throttled { until: Option<Timestamp> },
    /// Microsoft 365 could not reach our notification address.
    NotificationEndpointRefused { said: String },
    /// There is no living subscription; the mailbox is polled.
    SubscriptionLapsed { since: Option<Timestamp> },
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
            Self::Fine | Self::Starting | Self::Disabled => Severity::Fine,
            Self::AliasNotPrimary { .. }
            | Self::Throttled { .. }
            | Self::PbxThrottled
            | Self::TimeZoneUnknown { .. } => Severity::Warning,
            _ => Severity::Trouble,
        }
    }

    /// What a failed read says about the mailbox. `consented` tells a consent that was never given from one taken back.
    pub fn of_read(error: &ReadError, consented: bool) -> Self {
        match error {
            ReadError::Throttled { .. } => Self::Throttled { until: None },
            ReadError::Unreachable(source) => {
                Self::GraphUnreachable { said: Chain(source.as_ref()).to_string() }
            }
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
            WatchError::Exists | WatchError::Gone => Self::SubscriptionLapsed { since: None },
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

    fn cause_en(&self) -> String {
        match self {
            Self::Fine => "All is well.".into(),
            Self::Starting => "The calendar has not been read yet.".into(),
            Self::Disabled => "The user is switched off in the company file.".into(),
            Self::WrongCredentials { code } => {
                format!("Microsoft's login does not accept our application's secret or certificate ({code}).")
            }
            Self::NoConsent { code } => {
                format!("The company's administrator has not given consent ({code}).")
            }
            Self::ConsentWithdrawn { code } => {
                format!("Consent was given and has been withdrawn, or the application was removed ({code}).")
            }
            Self::UnknownAlias { alias } => format!("No user in Microsoft 365 has the address `{alias}`."),
            Self::AmbiguousAlias { alias } => {
                format!("More than one user in Microsoft 365 has the address `{alias}`.")
            }
            Self::AliasNotPrimary { alias, primary } => {
                format!("`{alias}` is a secondary address; the user's primary address is `{primary}`.")
            }
            Self::NoMailbox { code } => format!("The user has no mailbox in Microsoft 365 ({code})."),
            Self::UserGone { code } => format!("The user has been removed from Microsoft 365 ({code})."),
            Self::AccessDenied { code } => format!("Microsoft 365 forbids us to read this mailbox ({code})."),
            Self::GraphUnreachable { said } => format!("Microsoft 365 does not answer: {said}."),
            Self::GraphRefused { said } => format!("Microsoft 365 refused our request: {said}."),
            Self::Throttled { until: Some(until) } => format!("Microsoft 365 asks us to wait until {until}."),
            Self::Throttled { until: None } => "Microsoft 365 asks us to slow down.".into(),
            Self::NotificationEndpointRefused { said } => {
                format!("Microsoft 365 cannot reach our notification address: {said}.")
            }
            Self::SubscriptionLapsed { since: Some(since) } => {
                format!("The subscription lapsed at {since}; the calendar is polled meanwhile.")
            }
            Self::SubscriptionLapsed { since: None } => {
                "There is no living subscription; the calendar is polled meanwhile.".into()
            }
            Self::QuotaReached => {
                "The mailbox has as many subscriptions as Microsoft allows, over all applications.".into()
            }
            Self::PbxMissing => "The company has no PBX.".into(),
            Self::PbxUnreachable { said } => format!("The PBX does not answer: {said}."),
            Self::PbxThrottled => "The PBX asks us to slow down.".into(),
            Self::PbxDenied { said } => {
                format!("The PBX does not accept our account, or its rights do not suffice: {said}.")
            }
            Self::PbxNoSuchExtension { extension } => format!("The PBX does not know extension {extension}."),
            Self::PbxRefused { said } => format!("The PBX refused the change: {said}."),
            Self::TimeZoneUnknown { name, used } => {
                format!("The mailbox's time zone `{name}` is not known; `{used}` is used.")
            }
            Self::StoreUnavailable { said } => format!("The service cannot reach its own store: {said}."),
        }
    }

    fn cure_en(&self) -> String {
        match self {
            Self::Fine => "",
            Self::Starting => "Wait a minute. If it stays so, run `narvaro check`.",
            Self::Disabled => "Set `enabled = true` for the user in the company file and apply it.",
            Self::WrongCredentials { .. } => {
                "Create a new client secret (its value, not its id) or certificate in the app registration, give it to the service and restart it."
            }
            Self::NoConsent { .. } => {
                "Run `narvaro consent-url`, and let the company's administrator open the address and accept."
            }
            Self::ConsentWithdrawn { .. } => {
                "Ask the company's administrator; if it was not meant so, run `narvaro consent-url` and let them accept again."
            }
            Self::UnknownAlias { .. } => {
                "Write the user's primary SMTP address as `alias` in the company file and apply it."
            }
            Self::AmbiguousAlias { .. } => {
                "Let the company's administrator remove the address from one of the users, or use another primary address as `alias`."
            }
            Self::AliasNotPrimary { .. } => "It works. Write the primary address as `alias` in the company file.",
            Self::NoMailbox { .. } => {
                "Let the company's administrator give the user an Exchange Online licence, or remove the user from the company file."
            }
            Self::UserGone { .. } => "Remove the user from the company file, or give the successor's `alias`.",
            Self::AccessDenied { .. } => {
                "Let the company's administrator grant `Calendars.Read` and add the mailbox to the application's access policy or role scope. It can take two hours until that works."
            }
            Self::GraphUnreachable { .. } => {
                "Check the service's way out to the internet (DNS, proxy, firewall) with `narvaro check`. Known times still start and end on time."
            }
            Self::GraphRefused { .. } => {
                "Run `narvaro subscriptions renew` for the user. If it comes back, report it with the code to the service's maintainers."
            }
            Self::Throttled { .. } => "Nothing: it goes on by itself. Known times still start and end on time.",
            Self::NotificationEndpointRefused { .. } => {
                "Make `webhook.public_url` reachable from the internet with a valid certificate, then run `narvaro subscriptions renew`."
            }
            Self::SubscriptionLapsed { .. } => {
                "It is set up anew by itself. To do it now, run `narvaro subscriptions renew`."
            }
            Self::QuotaReached => "Let the company's administrator remove applications that watch the mailbox and are not used.",
            Self::PbxMissing => "Add a `[pbx]` section to the company file and apply it.",
            Self::PbxUnreachable { .. } => {
                "Check address, port and firewall of the PBX, and that it runs. Presence is written as soon as it answers."
            }
            Self::PbxThrottled => "Nothing: it goes on by itself.",
            Self::PbxDenied { .. } => {
                "Check user name, secret and rights of the account in the PBX (Asterisk: manager.conf, classes `call`, `system`, `reporting`) against `[pbx]` in the company file."
            }
            Self::PbxNoSuchExtension { .. } => {
                "Create the extension in the PBX, or correct `extension` in the company file and apply it."
            }
            Self::PbxRefused { .. } => "Check the profile's `pbx` settings in the company file against what the PBX accepts.",
            Self::TimeZoneUnknown { .. } => {
                "Let the user choose a time zone in Outlook's calendar settings; until then the company's zone is used."
            }
            Self::StoreUnavailable { .. } => "Check `store.url`, free disk space and the rights on the file.",
        }
        .into()
    }

    fn cause_sv(&self) -> String {
        match self {
            Self::Fine => "Allt är bra.".into(),
            Self::Starting => "Kalendern har inte lästs än.".into(),
            Self::Disabled => "Användaren är avstängd i företagsfilen.".into(),
            Self::WrongCredentials { code } => {
                format!("Microsofts inloggning godtar inte vår applikations hemlighet eller certifikat ({code}).")
            }
            Self::NoConsent { code } => format!("Företagets administratör har inte gett sitt medgivande ({code})."),
            Self::ConsentWithdrawn { code } => {
                format!("Medgivandet har dragits tillbaka, eller så har applikationen tagits bort ({code}).")
            }
            Self::UnknownAlias { alias } => format!("Ingen användare i Microsoft 365 har adressen `{alias}`."),
            Self::AmbiguousAlias { alias } => {
                format!("Fler än en användare i Microsoft 365 har adressen `{alias}`.")
            }
            Self::AliasNotPrimary { alias, primary } => {
                format!("`{alias}` är en sekundär adress; användarens primära adress är `{primary}`.")
            }
            Self::NoMailbox { code } => format!("Användaren har ingen postlåda i Microsoft 365 ({code})."),
            Self::UserGone { code } => format!("Användaren har tagits bort ur Microsoft 365 ({code})."),
            Self::AccessDenied { code } => format!("Microsoft 365 låter oss inte läsa postlådan ({code})."),
            Self::GraphUnreachable { said } => format!("Microsoft 365 svarar inte: {said}."),
            Self::GraphRefused { said } => format!("Microsoft 365 avvisade vår begäran: {said}."),
            Self::Throttled { until: Some(until) } => format!("Microsoft 365 ber oss vänta till {until}."),
            Self::Throttled { until: None } => "Microsoft 365 ber oss ta det lugnare.".into(),
            Self::NotificationEndpointRefused { said } => {
                format!("Microsoft 365 når inte vår adress för aviseringar: {said}.")
            }
            Self::SubscriptionLapsed { since: Some(since) } => {
                format!("Prenumerationen löpte ut {since}; kalendern läses med jämna mellanrum så länge.")
            }
            Self::SubscriptionLapsed { since: None } => {
                "Det finns ingen levande prenumeration; kalendern läses med jämna mellanrum så länge.".into()
            }
            Self::QuotaReached => {
                "Postlådan har så många prenumerationer som Microsoft tillåter, alla applikationer sammantagna.".into()
            }
            Self::PbxMissing => "Företaget har ingen växel.".into(),
            Self::PbxUnreachable { said } => format!("Växeln svarar inte: {said}."),
            Self::PbxThrottled => "Växeln ber oss ta det lugnare.".into(),
            Self::PbxDenied { said } => {
                format!("Växeln godtar inte vårt konto, eller så räcker dess rättigheter inte: {said}.")
            }
            Self::PbxNoSuchExtension { extension } => format!("Växeln känner inte till anknytning {extension}."),
            Self::PbxRefused { said } => format!("Växeln avvisade ändringen: {said}."),
            Self::TimeZoneUnknown { name, used } => {
                format!("Postlådans tidszon `{name}` är okänd; `{used}` används.")
            }
            Self::StoreUnavailable { said } => format!("Tjänsten når inte sitt eget lager: {said}."),
        }
    }

    fn cure_sv(&self) -> String {
        match self {
            Self::Fine => "",
            Self::Starting => "Vänta en minut. Om det inte ändras, kör `narvaro check`.",
            Self::Disabled => "Sätt `enabled = true` för användaren i företagsfilen och verkställ den.",
            Self::WrongCredentials { .. } => {
                "Skapa en ny klienthemlighet (värdet, inte dess id) eller ett nytt certifikat i appregistreringen, ge det till tjänsten och starta om den."
            }
            Self::NoConsent { .. } => {
                "Kör `narvaro consent-url` och låt företagets administratör öppna adressen och godkänna."
            }
            Self::ConsentWithdrawn { .. } => {
                "Fråga företagets administratör; om det inte var meningen, kör `narvaro consent-url` och låt dem godkänna igen."
            }
            Self::UnknownAlias { .. } => {
                "Skriv användarens primära SMTP-adress som `alias` i företagsfilen och verkställ den."
            }
            Self::AmbiguousAlias { .. } => {
                "Låt företagets administratör ta bort adressen från den ena användaren, eller använd en annan primär adress som `alias`."
            }
            Self::AliasNotPrimary { .. } => "Det fungerar. Skriv den primära adressen som `alias` i företagsfilen.",
            Self::NoMailbox { .. } => {
                "Låt företagets administratör ge användaren en licens för Exchange Online, eller ta bort användaren ur företagsfilen."
            }
            Self::UserGone { .. } => "Ta bort användaren ur företagsfilen, eller ange efterträdarens `alias`.",
            Self::AccessDenied { .. } => {
                "Låt företagets administratör bevilja `Calendars.Read` och lägga till postlådan i applikationens åtkomstpolicy eller rollomfång. Det kan ta två timmar innan det märks."
            }
            Self::GraphUnreachable { .. } => {
                "Kontrollera tjänstens väg ut på internet (DNS, proxy, brandvägg) med `narvaro check`. Kända tider börjar och slutar ändå i tid."
            }
            Self::GraphRefused { .. } => {
                "Kör `narvaro subscriptions renew` för användaren. Om felet återkommer, anmäl det med koden till dem som underhåller tjänsten."
            }
            Self::Throttled { .. } => "Ingenting: det fortsätter av sig självt. Kända tider börjar och slutar ändå i tid.",
            Self::NotificationEndpointRefused { .. } => {
                "Gör `webhook.public_url` nåbar från internet med ett giltigt certifikat och kör sedan `narvaro subscriptions renew`."
            }
            Self::SubscriptionLapsed { .. } => {
                "Den sätts upp på nytt av sig själv. För att göra det nu, kör `narvaro subscriptions renew`."
            }
            Self::QuotaReached => "Låt företagets administratör ta bort applikationer som bevakar postlådan och inte används.",
            Self::PbxMissing => "Lägg till ett avsnitt `[pbx]` i företagsfilen och verkställ den.",
            Self::PbxUnreachable { .. } => {
                "Kontrollera växelns adress, port och brandvägg, och att den är igång. Närvaron skrivs så snart den svarar."
            }
            Self::PbxThrottled => "Ingenting: det fortsätter av sig självt.",
            Self::PbxDenied { .. } => {
                "Jämför kontots användarnamn, hemlighet och rättigheter i växeln (Asterisk: manager.conf, klasserna `call`, `system`, `reporting`) med `[pbx]` i företagsfilen."
            }
            Self::PbxNoSuchExtension { .. } => {
                "Skapa anknytningen i växeln, eller rätta `extension` i företagsfilen och verkställ den."
            }
            Self::PbxRefused { .. } => "Jämför profilens `pbx`-inställningar i företagsfilen med vad växeln godtar.",
            Self::TimeZoneUnknown { .. } => {
                "Låt användaren välja tidszon i Outlooks kalenderinställningar; till dess används företagets zon."
            }
            Self::StoreUnavailable { .. } => "Kontrollera `store.url`, ledigt diskutrymme och rättigheterna på filen.",
        }
        .into()
    }
}

/// A state with its words, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

    /// The state's name in words: `no mailbox`.
    pub fn name(&self) -> String {
        self.health.name().replace('_', " ")
    }
}
