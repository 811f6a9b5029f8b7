//! A target's settings, checked and ready for use.

use std::time::Duration;

use jiff::tz::TimeZone;
use reqwest::header::HeaderName;

use super::{
    answer::{Finder, Reader, Success},
    config::{ConfigError, HttpPbxConfig, RequestConfig},
    request::{RequestTemplate, header_name},
    values::Scope,
};
use crate::model::{Outward, ProfileId, Wanted};

/// Canonical fields where nothing is read back.
const UNREAD_FIELDS: [&str; 3] = ["profile", "text", "until"];

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) zone: TimeZone,
    pub(super) text_chars: usize,
    pub(super) timeout: Duration,
    pub(super) attempts: u32,
    pub(super) idempotency_header: Option<HeaderName>,
    pub(super) find: Option<(RequestTemplate, Finder)>,
    pub(super) read: Option<(RequestTemplate, Reader)>,
    pub(super) check: Option<RequestTemplate>,
    set: RequestTemplate,
    clear: Option<RequestTemplate>,
    clear_for: Vec<ProfileId>,
    restore: Option<RequestTemplate>,
}

impl Plan {
    pub(super) fn new(config: &HttpPbxConfig) -> Result<Self, ConfigError> {
        let success = Success::new("success", &config.success)?;
        let fields: Vec<String> = match &config.read {
            Some(read) => read.fields.keys().cloned().collect(),
            None => UNREAD_FIELDS.map(str::to_owned).to_vec(),
        };
        let found: Vec<String> = config.find.iter().flat_map(|find| find.values.keys().cloned()).collect();
        let bare = Scope {
            extension: false,
            profile: false,
            change: false,
            shown: false,
            now: true,
            fields: &fields,
            found: &[],
        };
        let reading = Scope { extension: true, found: &found, ..bare };
        let setting = Scope { profile: true, change: true, ..reading };
        let restoring = Scope { change: true, shown: true, ..reading };
        let showing = Scope { profile: true, now: false, ..bare };

        let request = |key: &str, config: &RequestConfig, scope: Scope<'_>| {
            RequestTemplate::new(key, config, &success, &scope)
        };
        let optional = |key: &str, config: &Option<RequestConfig>, scope: Scope<'_>| {
            config.as_ref().map(|config| request(key, config, scope)).transpose()
        };
        let find = match &config.find {
            Some(find) => {
                let scope = Scope { found: &[], ..reading };
                Some((request("find.request", &find.request, scope)?, Finder::new(find)?))
            }
            None => None,
        };
        let read = match &config.read {
            Some(read) => {
                Some((request("read.request", &read.request, reading)?, Reader::new(read, &showing)?))
            }
            None => None,
        };
        let plan = Self {
            zone: TimeZone::get(&config.time_zone).map_err(|_| {
                ConfigError::new("time_zone", "is not an IANA zone; write `Europe/Stockholm`")
            })?,
            text_chars: config.text_chars,
            timeout: Duration::from_secs(within("timeout_secs", config.timeout_secs, 1, 30)?),
            attempts: within("attempts", config.attempts, 1, 10)?,
            idempotency_header: match config.idempotency_header.as_str() {
                "" => None,
                name => Some(header_name("idempotency_header", name)?),
            },
            find,
            read,
            check: optional("check", &config.check, bare)?,
            set: request("set", &config.set, setting)?,
            clear: optional("clear", &config.clear, setting)?,
            clear_for: config.clear_for.clone(),
            restore: optional("restore", &config.restore, restoring)?,
        };
        plan.can_restore()?;
        Ok(plan)
    }

    /// What can be read back can be found set by hand, and has to be put back one day.
    fn can_restore(&self) -> Result<(), ConfigError> {
        let Some((_, reader)) = &self.read else { return Ok(()) };
        if self.clear.is_some() && reader.default().0.is_empty() {
            return Err(ConfigError::new("read.default", "is needed: what shows after the `clear` request"));
        }
        if self.restore.is_some() {
            return Ok(());
        }
        let clears = self.clear.as_ref().is_some_and(|clear| !clear.needs_profile());
        if clears {
            return Ok(());
        }
        let advice = "write a `restore` request with `{shown.FIELD}`; or a `clear` request without \
                      names of the profile, and `read.default` with what shows after it";
        Err(ConfigError::new("restore", format!("what is read may have to be put back: {advice}")))
    }

    /// The request that makes `wanted` show.
    pub(super) fn request(&self, wanted: &Wanted) -> &RequestTemplate {
        match wanted {
            Wanted::Profile(Outward { profile, .. }) => self.request_for(profile),
            Wanted::AsFound(_) => self.restore.as_ref().or(self.clear.as_ref()).unwrap_or(&self.set),
        }
    }

    /// The request that sets this profile.
    pub(super) fn request_for(&self, profile: &ProfileId) -> &RequestTemplate {
        self.clear.as_ref().filter(|_| self.clears(profile)).unwrap_or(&self.set)
    }

    /// Whether `clear` is what this profile is set by.
    pub(super) fn clears(&self, profile: &ProfileId) -> bool {
        self.clear.is_some() && self.clear_for.contains(profile)
    }

    /// Whether the return time is told as a value of its own.
    pub(super) fn tells_until(&self) -> bool {
        self.set.tells_until()
    }

    /// Whether a state that was found is put back as such, not cleared.
    pub(super) fn restores(&self) -> bool {
        self.restore.is_some()
    }
}

/// `value` if it lies between `least` and `most`.
pub(super) fn within<N: PartialOrd + std::fmt::Display>(
    key: &str,
    value: N,
    least: N,
    most: N,
) -> Result<N, ConfigError> {
    if least <= value && value <= most {
        return Ok(value);
    }
    Err(ConfigError::new(key, format!("{value} is not within {least} to {most}")))
}
