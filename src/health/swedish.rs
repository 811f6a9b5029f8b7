//! Causes and cures in Swedish.

use super::{Health, moment};

impl Health {
    pub(super) fn title_sv(&self) -> &'static str {
        match self {
            Self::Fine => "bra",
            Self::Starting => "startar",
            Self::Disabled => "avstängd",
            Self::Leaving => "tas bort",
            Self::WrongCredentials { .. } => "fel hemlighet",
            Self::NoConsent { .. } => "inget medgivande",
            Self::ConsentWithdrawn { .. } => "medgivandet borta",
            Self::UnknownAlias { .. } => "okänt alias",
            Self::AmbiguousAlias { .. } => "tvetydigt alias",
            Self::AliasNotPrimary { .. } => "sekundärt alias",
            Self::AliasChanged { .. } => "alias utan ägare",
            Self::NoMailbox { .. } => "ingen postlåda",
            Self::UserGone { .. } => "användaren borta",
            Self::AccessDenied { .. } => "åtkomst nekad",
            Self::GraphUnreachable { .. } => "Microsoft 365 svarar inte",
            Self::GraphRefused { .. } => "Microsoft 365 avvisar",
            Self::Throttled { .. } => "Microsoft 365 bromsar",
            Self::NotificationEndpointRefused { .. } => "aviseringsadressen nås inte",
            Self::SubscriptionLapsed { .. } => "prenumerationen utlöpt",
            Self::WatchedElsewhere { .. } => "bevakas av en annan installation",
            Self::PushUnreliable { .. } => "aviseringar uteblir",
            Self::NotificationAddressSilent { .. } => "egna aviseringsadressen svarar inte",
            Self::QuotaReached => "för många prenumerationer",
            Self::PbxMissing => "ingen växel",
            Self::PbxUnreachable { .. } => "växeln svarar inte",
            Self::PbxThrottled => "växeln bromsar",
            Self::PbxDenied { .. } => "växeln nekar",
            Self::PbxNoSuchExtension { .. } => "okänd anknytning",
            Self::PbxRefused { .. } => "växeln avvisar",
            Self::TimeZoneUnknown { .. } => "okänd tidszon",
            Self::StoreUnavailable { .. } => "lagret svarar inte",
            Self::CredentialExpires { .. } => "hemligheten löper ut",
        }
    }

    pub(super) fn cause_sv(&self) -> String {
        match self {
            Self::Fine => "Allt är bra.".into(),
            Self::Starting => "Kalendern har inte lästs än.".into(),
            Self::Disabled => "Användaren är avstängd i företagsfilen.".into(),
            Self::Leaving => "Borttagning pågår: telefonen lämnas tillbaka och prenumerationen tas bort.".into(),
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
            Self::AliasChanged { alias } => {
                format!("Ingen har längre adressen `{alias}`; kalendern hos den som hade den följs fortfarande.")
            }
            Self::NoMailbox { code } => format!("Användaren har ingen postlåda i Microsoft 365 ({code})."),
            Self::UserGone { code } => format!("Användaren har tagits bort ur Microsoft 365 ({code})."),
            Self::AccessDenied { code } => format!("Microsoft 365 låter oss inte läsa postlådan ({code})."),
            Self::GraphUnreachable { said } => format!("Microsoft 365 svarar inte: {said}."),
            Self::GraphRefused { said } => format!("Microsoft 365 avvisade vår begäran: {said}."),
            Self::Throttled { until: Some(until) } => format!("Microsoft 365 ber oss vänta till {}.", moment(*until)),
            Self::Throttled { until: None } => {
                "Microsoft 365 tillåter bara så många förfrågningar åt gången: detta väntar på sin tur.".into()
            },
            Self::NotificationEndpointRefused { said } => {
                format!("Microsoft 365 når inte vår adress för aviseringar: {said}.")
            }
            Self::SubscriptionLapsed { since: Some(since) } => {
                format!("Prenumerationen löpte ut {}; kalendern läses med jämna mellanrum så länge.", moment(*since))
            }
            Self::SubscriptionLapsed { since: None } => {
                "Det finns ingen levande prenumeration; kalendern läses med jämna mellanrum så länge.".into()
            }
            Self::WatchedElsewhere { host } => {
                format!("En annan installation med samma applikation bevakar postlådan och aviseras på `{host}`; kalendern läses med jämna mellanrum så länge.")
            }
            Self::PushUnreliable { since } => {
                format!("Ändringar har inte aviserats av Microsoft 365 sedan {}; kalendrarna läses med jämna mellanrum i stället.", moment(*since))
            }
            Self::NotificationAddressSilent { said } => {
                format!("Tjänsten når inte sin egen adress för aviseringar: {said}.")
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
            Self::CredentialExpires { at } => {
                format!("Applikationens hemlighet eller certifikat slutar gälla {}; därefter kan ingen kalender läsas.", at.strftime("%Y-%m-%d"))
            }
            Self::StoreUnavailable { said } => format!("Tjänsten når inte sitt eget lager: {said}."),
        }
    }

    pub(super) fn cure_sv(&self) -> String {
        match self {
            Self::Fine => "",
            Self::Starting => "Vänta en minut. Om det inte ändras, kör `narvaro check`.",
            Self::Disabled => "Sätt `enabled = true` för användaren i företagsfilen och verkställ den.",
            Self::Leaving => {
                "Ingenting: det fortsätter av sig självt. Om det inte tar slut för att växeln är borta för gott, verkställ företagsfilen utan `[pbx]` och ta bort igen."
            }
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
            Self::AliasChanged { .. } => "Skriv användarens nya primära adress som `alias` i företagsfilen och verkställ den.",
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
            Self::WatchedElsewhere { .. } => {
                "Stoppa den andra installationen, eller ge varje installation en egen applikationsregistrering. Sedan ordnar det sig av sig självt."
            }
            Self::PushUnreliable { .. } => {
                "Kontrollera med `narvaro check` att `webhook.public_url` leder hit från internet, även genom proxy och brandvägg. Det går tillbaka av sig självt med den första ändring som aviseras."
            }
            Self::NotificationAddressSilent { .. } => {
                "Se till att `webhook.public_url` leder till den publika lyssnaren: DNS-namn, certifikat, proxy. Om tjänsten inte kan nå sin egen adress inifrån nätet: sätt `webhook.self_test_secs = 0`."
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
            Self::CredentialExpires { .. } => {
                "Lägg till en ny i appregistreringen i Entra, ange den under `[graph]`, starta om och ta bort den gamla."
            }
            Self::StoreUnavailable { .. } => "Kontrollera `store.url`: för en fil ledigt diskutrymme och rättigheter, för en Redis om den körs, har plats och kan nås.",
        }
        .into()
    }
}
