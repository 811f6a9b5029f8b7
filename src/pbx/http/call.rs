//! One change or one reading: its frame, and what an answer means for it.

use std::time::Duration;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    answer::{Success, Verdict},
    order::Place,
    transport::{Answer, Silence},
};
use crate::{model::Extension, presence::PbxError};

/// A first back-off, doubled with each further one.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);

/// The longest back-off: a lease does not last much longer.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(8);

/// The frame of one change or reading.
pub(super) struct Call<'a> {
    pub(super) deadline: Timestamp,
    pub(super) extension: Option<&'a Extension>,
    pub(super) place: Option<&'a Place>,
    /// Id of the change; a reading has none.
    pub(super) transition: Option<&'a str>,
    pub(super) wants_body: bool,
}

/// What follows from one attempt that did not succeed.
pub(super) enum Failure {
    Final(PbxError),
    /// Another attempt may succeed, not before `after` where the target named a time.
    Again {
        error: PbxError,
        after: Option<Duration>,
    },
    /// The target no longer takes our token, or never did.
    Stale(Option<u64>),
}

/// Doubles with each attempt and is spread over its upper half by the change's id, so that
/// changes that failed together do not come again together.
pub(super) fn back_off(attempt: u32, call: &Call<'_>) -> Duration {
    let whole = FIRST_BACK_OFF.saturating_mul(1 << (attempt - 1).min(10)).min(LONGEST_BACK_OFF);
    let seed = call.transition.or(call.extension.map(Extension::as_str)).unwrap_or_default();
    let spread = Sha256::digest(format!("{seed}/{attempt}")).first().copied().unwrap_or_default();
    whole / 2 + (whole / 2) * u32::from(spread) / 255
}

/// What an answer means for the call.
pub(super) fn understand(
    answer: Answer,
    serial: Option<u64>,
    success: &Success,
    call: &Call<'_>,
) -> Result<Vec<u8>, Failure> {
    let status = answer.status.as_u16();
    let after = answer.retry_after;
    let throttled = || Failure::Again { error: PbxError::Throttled { retry_after: after }, after };
    match (status, after) {
        (200..=299, _) => {}
        (401, _) => return Err(Failure::Stale(serial)),
        (425 | 429, _) | (408 | 500.., Some(_)) => return Err(throttled()),
        (408 | 500.., None) => {
            let error = PbxError::Unreachable(Silence::Status(status).into());
            return Err(Failure::Again { error, after: None });
        }
        _ => return Err(Failure::Final(refusal(status, &answer.body.unwrap_or_default(), success, call))),
    }
    if !call.wants_body && !success.reads_body() {
        // It is done, whatever may be wrong with a body that nobody reads.
        return match success.judge(status, &[]).map_err(Failure::Final)? {
            Verdict::Bad(reason) => Err(Failure::Final(PbxError::Refused { reason })),
            Verdict::Good | Verdict::Denied => Ok(Vec::new()),
        };
    }
    let body = answer.body.map_err(Failure::Final)?;
    match success.judge(status, &body).map_err(Failure::Final)? {
        Verdict::Good => Ok(body),
        Verdict::Denied => Err(Failure::Stale(serial)),
        Verdict::Bad(reason) => Err(Failure::Final(PbxError::Refused { reason })),
    }
}

/// The error for a status that another attempt would not change.
fn refusal(status: u16, body: &[u8], success: &Success, call: &Call<'_>) -> PbxError {
    let words = success.words(body).map(|words| format!(" (\"{words}\")")).unwrap_or_default();
    match (status, call.extension) {
        (403, _) => PbxError::Denied { reason: format!("it answered with status 403{words}") },
        (404, Some(extension)) => PbxError::NoSuchExtension { extension: extension.clone() },
        (410, _) => {
            PbxError::Refused { reason: format!("the endpoint is gone for good (status 410){words}") }
        }
        (300..=399, _) => PbxError::Refused {
            reason: format!(
                "it answered with a redirect (status {status}), which is not followed; set `base_url` to where it \
                 leads"
            ),
        },
        _ => PbxError::Refused { reason: format!("it answered with status {status}{words}") },
    }
}
