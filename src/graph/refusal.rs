//! What Graph's refusals mean, in the words of the ports.
//!
//! A body can be Graph's error document, another server's HTML, or nothing at all; all three are understood.
//! Codes are compared without regard to case; messages are never compared, Microsoft changes them at will.
//! Facts: <https://learn.microsoft.com/graph/errors>, <https://learn.microsoft.com/graph/throttling>.

use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::calendar::ReadError;

/// Longest time a server's wish to wait is honoured: a year-long `Retry-After` is a mistake, not a wish.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Codes that say more than the one around them.
const KNOWN: &[&str] = &[
    "accessdenied",
    "activitylimitreached",
    "applicationthrottled",
    "authorization_requestdenied",
    "erroraccessdenied",
    "errorinvalididmalformed",
    "errorinvaliduser",
    "erroritemnotfound",
    "errorserverbusy",
    "extensionerror",
    "invalidauthenticationtoken",
    "itemnotfound",
    "mailboxnotenabledforrestapi",
    "quotalimitreached",
    "request_resourcenotfound",
    "resourcenotfound",
    "resyncapplydifferences",
    "resyncrequired",
    "resyncuploaddifferences",
    "syncstateinvalid",
    "syncstatenotfound",
    "toomanyrequests",
    "validationerror",
];

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Graph answered {status} `{code}` (request id {request_id})")]
pub(super) struct Refusal {
    /// HTTP status.
    pub(super) status: u16,
    /// The most specific code that is known; `-` where the body names none.
    pub(super) code: String,
    /// What Graph says about it, for people only.
    pub(super) message: String,
    /// How long it wants to be left alone.
    pub(super) retry_after: Option<Duration>,
    /// What Microsoft's support asks for.
    pub(super) request_id: String,
}

/// Why a call brought nothing.
#[derive(Debug)]
pub(super) enum CallError {
    /// No token, no permission to ask yet, no connection, or an answer that was not understood.
    Read(ReadError),
    /// Graph answered, and refused.
    Refused(Refusal),
}

impl From<ReadError> for CallError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<CallError> for ReadError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Read(error) => error,
            CallError::Refused(refusal) => refusal.into_read_error(),
        }
    }
}

#[derive(Deserialize)]
struct WireBody {
    error: WireError,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireError {
    code: Option<String>,
    message: Option<String>,
    #[serde(rename = "innerError", alias = "innererror")]
    inner: Option<Box<WireError>>,
}

impl WireError {
    /// The innermost code that is known, else the outermost one.
    fn most_specific(&self) -> Option<String> {
        let mut found = self.code.clone();
        let mut level = self.inner.as_deref();
        while let Some(error) = level {
            if let Some(code) = error.code.as_ref()
                && KNOWN.contains(&code.to_ascii_lowercase().as_str())
            {
                found = Some(code.clone());
            }
            level = error.inner.as_deref();
        }
        found
    }
}

impl Refusal {
    /// Reads an answer that is not a success.
    pub(super) fn read(
        status: u16,
        body: &[u8],
        retry_after: Option<Duration>,
        request_id: Option<&str>,
    ) -> Self {
        let error = serde_json::from_slice::<WireBody>(body).map(|body| body.error).unwrap_or_default();
        Self {
            status,
            code: error.most_specific().map_or_else(|| "-".to_owned(), |code| printable(&code, 80)),
            message: printable(error.message.as_deref().unwrap_or_default(), 300),
            retry_after,
            request_id: printable(request_id.unwrap_or("-"), 80),
        }
    }

    /// Whether the code is one of these, which are given in lower case.
    pub(super) fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.to_ascii_lowercase().as_str())
    }

    /// Whether it was Graph that spoke, and not a proxy on the way.
    pub(super) fn has_code(&self) -> bool {
        self.code != "-"
    }

    /// Whether a single item is gone, or cannot be seen, while user and mailbox are well.
    pub(super) fn is_missing_item(&self) -> bool {
        self.status == 404 && self.has_code() && !self.is(NO_MAILBOX) && !self.is(NO_USER)
    }

    /// Whether the far side is at fault, or says "slow down" without a time: another mailbox would fare alike.
    pub(super) fn is_fault(&self) -> bool {
        matches!(self.status, 500 | 502..) || (self.status == 429 && self.retry_after.is_none())
    }

    /// Whether Graph has forgotten where a round of delta was. It says so by 410, with a code or with nothing but
    /// a `Location`, or by another 40x with one of the codes.
    pub(super) fn is_lost_sync(&self) -> bool {
        self.status == 410 || (400..500).contains(&self.status) && self.is(LOST_SYNC)
    }

    /// What a read makes of it.
    pub(super) fn into_read_error(self) -> ReadError {
        let reason = self.code.clone();
        match self.status {
            401 => self.into_fault(),
            403 if self.is(&["authorization_requestdenied"]) => ReadError::NoConsent { reason },
            403 => ReadError::Denied { reason },
            404 if !self.has_code() => self.into_fault(),
            404 if self.is(NO_USER) => ReadError::Gone { reason },
            404 => ReadError::NoMailbox { reason },
            429 => ReadError::Throttled { retry_after: self.retry_after },
            // Delta and paging tokens that ran out, locks, and failures of what the answer depends on pass.
            408 | 410 | 423 | 424 => self.into_fault(),
            400..=499 | 501 => ReadError::Refused { reason },
            503 | 504 | 509 if self.retry_after.is_some() => {
                ReadError::Throttled { retry_after: self.retry_after }
            }
            _ => self.into_fault(),
        }
    }

    fn into_fault(self) -> ReadError {
        ReadError::Unreachable(Box::new(self))
    }
}

/// No mailbox behind the user: no licence, a guest, on-premises, or not provisioned yet.
const NO_MAILBOX: &[&str] = &["mailboxnotenabledforrestapi", "resourcenotfound", "extensionerror"];

/// No user behind the id.
const NO_USER: &[&str] = &["request_resourcenotfound", "errorinvaliduser"];

/// The round has to begin anew. The documentation writes them in lower camel case, the wire in Pascal case.
const LOST_SYNC: &[&str] = &[
    "resyncapplydifferences",
    "resyncrequired",
    "resyncuploaddifferences",
    "syncstateinvalid",
    "syncstatenotfound",
];

/// Text from outside as it may stand in a log or before a technician.
fn printable(text: &str, limit: usize) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(limit).collect()
}

/// Reads `Retry-After`: seconds, with a fraction where Graph likes (`2.128`), or an HTTP date.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if let Ok(seconds) = value.parse::<f64>() {
        if !seconds.is_finite() || seconds < 0.0 {
            return None;
        }
        Duration::from_secs_f64(seconds.min(LONGEST_WAIT.as_secs_f64()))
    } else {
        let at = jiff::fmt::rfc2822::parse(value).ok()?.timestamp();
        Duration::try_from(at.duration_since(now)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::{super::testing::fixture, *};
    use crate::model::Disposition;

    fn refusal(case: &serde_json::Value) -> Refusal {
        let body = match case.get("bodyText") {
            Some(text) => text.as_str().unwrap().as_bytes().to_vec(),
            None if case["body"].is_null() => Vec::new(),
            None => serde_json::to_vec(&case["body"]).unwrap(),
        };
        let wait = case["headers"]["Retry-After"].as_str();
        let wait = wait.and_then(|value| retry_after(value, Timestamp::UNIX_EPOCH));
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        Refusal::read(status, &body, wait, None)
    }

    #[test]
    fn every_known_refusal_of_a_read_is_told_apart() {
        let cases = fixture("errors.json");
        let mut seen = 0;
        for case in cases["cases"].as_array().unwrap() {
            let (name, action) = (case["name"].as_str().unwrap(), case["action"].as_str().unwrap());
            let error = refusal(case).into_read_error();
            let right = match action {
                "mailbox-denied" => matches!(error, ReadError::Denied { .. }),
                "tenant-permission-missing" => matches!(error, ReadError::NoConsent { .. }),
                "mailbox-unavailable" => matches!(error, ReadError::NoMailbox { .. }),
                "user-gone" => matches!(error, ReadError::Gone { .. }),
                "bug" => matches!(error, ReadError::Refused { .. }),
                "wait-retry-after" | "wait-retry-after-and-lower-concurrency" => {
                    matches!(error, ReadError::Throttled { retry_after: Some(_) })
                }
                "full-resync" | "refresh-token-once" | "retry-after-parent" => {
                    matches!(error, ReadError::Unreachable(_))
                }
                "backoff" => matches!(error.disposition(), Disposition::Retry { .. }),
                // Told apart where subscriptions are kept.
                "adopt-or-replace"
                | "quota"
                | "endpoint-fault"
                | "recreate-subscription"
                | "clamp-expiry"
                | "treat-as-deleted" => continue,
                other => panic!("`{name}` has the unknown action `{other}`"),
            };
            assert!(right, "{name}: {error:?}");
            seen += 1;
        }
        assert!(seen >= 18, "only {seen} cases were looked at");
    }

    #[test]
    fn a_deleted_item_is_missing_and_a_missing_mailbox_is_not_an_item() {
        let case = fixture("event-get-deleted-404.json");
        assert!(refusal(&case).is_missing_item());
        let none = |body: &str| Refusal::read(404, body.as_bytes(), None, None);
        assert!(!none(r#"{"error":{"code":"MailboxNotEnabledForRESTAPI"}}"#).is_missing_item());
        assert!(!none(r#"{"error":{"code":"Request_ResourceNotFound"}}"#).is_missing_item());
        assert!(!none("<html>no such host</html>").is_missing_item());
        assert!(matches!(none("").into_read_error(), ReadError::Unreachable(_)));
    }

    #[test]
    fn a_lost_round_is_known_by_its_status_or_its_code_however_it_is_written() {
        let read = |status, code: &str| {
            let body = format!(r#"{{"error":{{"code":"{code}"}}}}"#);
            Refusal::read(status, body.as_bytes(), None, None)
        };
        for code in ["SyncStateNotFound", "syncStateNotFound", "SYNCSTATENOTFOUND", "resyncRequired"] {
            for status in [400, 404, 410] {
                assert!(read(status, code).is_lost_sync(), "{status} {code}");
            }
        }
        assert!(Refusal::read(410, b"", None, None).is_lost_sync(), "a `Location` may be all there is");
        let within = r#"{"error":{"code":"Gone","innerError":{"code":"resyncApplyDifferences"}}}"#;
        assert!(Refusal::read(400, within.as_bytes(), None, None).is_lost_sync());
        for (status, code) in [(400, "BadRequest"), (404, "ErrorItemNotFound"), (503, "SyncStateNotFound")] {
            assert!(!read(status, code).is_lost_sync(), "{status} {code}");
        }
    }

    #[test]
    fn the_most_specific_known_code_counts_however_it_is_written() {
        let read = |body: &str| Refusal::read(403, body.as_bytes(), None, None).code;
        assert_eq!(
            read(r#"{"error":{"code":"Forbidden","innererror":{"code":"erroraccessDenied"}}}"#),
            "erroraccessDenied"
        );
        assert_eq!(
            read(r#"{"error":{"code":"TooManyRequests","innerError":{"code":"429"}}}"#),
            "TooManyRequests"
        );
        let nested =
            r#"{"error":{"code":"a","innerError":{"code":"b","innerError":{"code":"AccessDenied"}}}}"#;
        assert_eq!(read(nested), "AccessDenied");
        assert_eq!(read("{}"), "-");
    }

    #[test]
    fn a_wait_may_have_a_fraction_or_be_a_date_and_never_lasts_for_ever() {
        let now: Timestamp = "2026-11-22T20:00:00Z".parse().unwrap();
        assert_eq!(retry_after("2.128", now), Some(Duration::from_millis(2128)));
        assert_eq!(retry_after(" 10 ", now), Some(Duration::from_secs(10)));
        assert_eq!(retry_after("Sun, 22 Nov 2026 20:01:30 GMT", now), Some(Duration::from_secs(90)));
        assert_eq!(retry_after("Sun, 22 Nov 2026 19:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("99999999999", now), Some(LONGEST_WAIT));
        for odd in ["", "soon", "-1", "NaN", "inf"] {
            assert_eq!(retry_after(odd, now), None, "{odd}");
        }
    }
}
