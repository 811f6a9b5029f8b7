//! When the application's credential stops working, said ahead of time: nothing else stops every company at once.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use crate::{
    admin::{CheckLine, HealthReport},
    config::Config,
    graph::AppCredential,
    health::Health,
    model::Language,
};

/// How long ahead: time for a change that somebody else has to approve.
const AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What is known of the credential's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CredentialEnd {
    /// Then.
    At(Timestamp),
    /// A client secret whose end nobody has written down.
    Unknown,
    /// It has none of its own: another platform renews it.
    Never,
}

impl CredentialEnd {
    pub(super) fn of(config: &Config, credential: &AppCredential) -> Self {
        let told = config.graph.client_secret_expires;
        match credential {
            AppCredential::Secret(_) => {
                let end = told.and_then(|day| day.to_zoned(TimeZone::UTC).ok());
                end.map_or(Self::Unknown, |end| Self::At(end.timestamp()))
            }
            AppCredential::Certificate { .. } => credential.expires().map_or(Self::Unknown, Self::At),
            AppCredential::WorkloadIdentity { .. } => Self::Never,
        }
    }

    /// Tells it to whoever collects metrics.
    pub(super) fn announce(self) {
        if let Self::At(end) = self {
            metrics::gauge!("narvaro_credential_expires_timestamp_seconds").set(end.as_second() as f64);
        }
    }

    fn near(self, now: Timestamp) -> Option<Health> {
        match self {
            Self::At(at) if at.duration_since(now) <= AHEAD => Some(Health::CredentialExpires { at }),
            _ => None,
        }
    }

    /// What `status` says of it: nothing before it is time.
    pub(super) fn notice(self, now: Timestamp, language: Language) -> Option<HealthReport> {
        self.near(now).map(|health| HealthReport::of(health, language))
    }

    /// What `check` says of it.
    pub(super) fn check(self, now: Timestamp, language: Language) -> Option<CheckLine> {
        let what = language.say("applikationens hemlighet", "credential of the application").to_owned();
        if let Some(health) = self.near(now) {
            let (said, cure) = (health.cause(language), Some(health.cure(language)));
            return Some(CheckLine { what, ok: false, said, cure });
        }
        let (said, cure) = match self {
            Self::Never => return None,
            Self::At(end) => {
                let until = language.say("gäller till", "works until");
                (format!("{until} {}", end.strftime("%Y-%m-%d")), None)
            }
            Self::Unknown => {
                let said =
                    language.say("när den slutar gälla är inte känt", "when it stops working is not known");
                let cure = language.say(
                    "skriv dagen som Entra visar bredvid hemligheten i `graph.client_secret_expires`",
                    "write the day that Entra shows beside the secret into `graph.client_secret_expires`",
                );
                (said.to_owned(), Some(cure.to_owned()))
            }
        };
        Some(CheckLine { what, ok: true, said, cure })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_announced_thirty_days_ahead_and_not_before() {
        let end: Timestamp = "2027-01-31T00:00:00Z".parse().unwrap();
        let known = CredentialEnd::At(end);
        let early = end - AHEAD - SignedDuration::from_secs(1);
        assert_eq!(known.notice(early, Language::En), None);
        assert_eq!(
            known.check(early, Language::En).map(|line| (line.ok, line.said)),
            Some((true, "works until 2027-01-31".into()))
        );
        for now in [end - AHEAD, end, end + AHEAD] {
            let notice = known.notice(now, Language::Sv).unwrap();
            assert!(notice.cause.contains("2027-01-31") && notice.cure.contains("Entra"), "{notice:?}");
            assert!(!known.check(now, Language::En).unwrap().ok);
        }
    }

    #[test]
    fn what_is_not_known_is_said_once_and_is_no_trouble() {
        let now = "2027-01-31T00:00:00Z".parse().unwrap();
        let line = CredentialEnd::Unknown.check(now, Language::En).unwrap();
        assert!(line.ok && line.cure.unwrap().contains("graph.client_secret_expires"));
        assert_eq!(CredentialEnd::Unknown.notice(now, Language::En), None);
        assert_eq!(CredentialEnd::Never.check(now, Language::En), None);
    }

    #[test]
    fn the_end_of_a_certificate_is_read_from_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut parameters = rcgen::CertificateParams::new(vec!["narvaro".to_owned()]).unwrap();
        parameters.not_after = rcgen::date_time_ymd(2027, 1, 31);
        let cert_pem = parameters.self_signed(&key).unwrap().pem();
        let credential = AppCredential::Certificate { cert_pem, key_pem: key.serialize_pem().into() };
        assert_eq!(credential.expires(), "2027-01-31T00:00:00Z".parse().ok());
        assert_eq!(AppCredential::Secret("s".into()).expires(), None);
    }
}
