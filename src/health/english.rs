//! Causes and cures in English.

use super::{Health, moment};

impl Health {
    pub(super) fn cause_en(&self) -> String {
        match self {
            Self::Fine => "All is well.".into(),
            Self::Starting => "The calendar has not been read yet.".into(),
            Self::Disabled => "The user is switched off in the company file.".into(),
            Self::Leaving => {
                "It is being removed: the phone is given back and the subscription deleted.".into()
            }
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
            Self::AliasChanged { alias } => {
                format!(
                    "Nobody has the address `{alias}` any more; the calendar of the user who had it is still followed."
                )
            }
            Self::NoMailbox { code } => format!("The user has no mailbox in Microsoft 365 ({code})."),
            Self::UserGone { code } => format!("The user has been removed from Microsoft 365 ({code})."),
            Self::AccessDenied { code } => format!("Microsoft 365 forbids us to read this mailbox ({code})."),
            Self::GraphUnreachable { said } => format!("Microsoft 365 does not answer: {said}."),
            Self::GraphRefused { said } => format!("Microsoft 365 refused our request: {said}."),
            Self::Throttled { until: Some(until) } => {
                format!("Microsoft 365 asks us to wait until {}.", moment(*until))
            }
            Self::Throttled { until: None } => {
                "Microsoft 365 allows only so many requests at a time: this waits for its turn.".into()
            }
            Self::NotificationEndpointRefused { said } => {
                format!("Microsoft 365 cannot reach our notification address: {said}.")
            }
            Self::SubscriptionLapsed { since: Some(since) } => {
                format!("The subscription lapsed at {}; the calendar is polled meanwhile.", moment(*since))
            }
            Self::SubscriptionLapsed { since: None } => {
                "There is no living subscription; the calendar is polled meanwhile.".into()
            }
            Self::WatchedElsewhere { host } => {
                format!(
                    "Another installation with the same application watches the mailbox and reports to `{host}`; the calendar is polled meanwhile."
                )
            }
            Self::PushUnreliable { since } => {
                format!(
                    "Changes have not been announced by Microsoft 365 since {}; calendars are polled instead.",
                    moment(*since)
                )
            }
            Self::NotificationAddressSilent { said } => {
                format!("The service cannot reach its own notification address: {said}.")
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
            Self::CredentialExpires { at } => {
                format!(
                    "The application's secret or certificate stops working on {}; after that no calendar can be read.",
                    at.strftime("%Y-%m-%d")
                )
            }
            Self::StoreUnavailable { said } => format!("The service cannot reach its own store: {said}."),
        }
    }

    pub(super) fn cure_en(&self) -> String {
        match self {
            Self::Fine => "",
            Self::Starting => "Wait a minute. If it stays so, run `narvaro check`.",
            Self::Disabled => "Set `enabled = true` for the user in the company file and apply it.",
            Self::Leaving => {
                "Nothing: it goes on by itself. If it does not end because the PBX is gone for good, apply the company file without `[pbx]`, then remove again."
            }
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
            Self::AliasChanged { .. } => "Write the user's new primary address as `alias` in the company file and apply it.",
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
            Self::WatchedElsewhere { .. } => {
                "Stop the other installation, or give each installation an application registration of its own. It is set up by itself then."
            }
            Self::PushUnreliable { .. } => {
                "Check with `narvaro check` that `webhook.public_url` leads to this service from the internet, also through the proxy and the firewall. It returns by itself with the first change that is announced."
            }
            Self::NotificationAddressSilent { .. } => {
                "Make `webhook.public_url` lead to the public listener: DNS name, certificate, proxy. Where the service cannot reach its own address from within the network, set `webhook.self_test_secs = 0`."
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
            Self::CredentialExpires { .. } => {
                "Add a new one to the app registration in Entra, name it in `[graph]`, restart, and remove the old one."
            }
            Self::StoreUnavailable { .. } => "Check `store.url`: of a file the free disk space and its rights, of a Redis whether it runs, has room and can be reached.",
        }
        .into()
    }
}
