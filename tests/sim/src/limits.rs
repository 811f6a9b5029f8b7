//! Graph's own limits, so far as the product has to keep them: how many requests in how long.
//! What is beyond is answered 429 and written down: a product that keeps its budgets never gets there.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use jiff::{SignedDuration, Timestamp};

use crate::lock;

/// Requests to one mailbox.
const MAILBOX: (usize, i64) = (10_000, 600);

/// What a request to `/subscriptions` counts as, with the limits of a tenant and of the app in 20 seconds.
const LIST: (&str, usize, usize) = ("subscription-lists", 25, 40);
const GET: (&str, usize, usize) = ("subscription-reads", 500, 2_000);
const WRITE: (&str, usize, usize) = ("subscription-writes", 500, 2_000);
const REAUTHORIZE: (&str, usize, usize) = ("subscription-reauthorizes", 1_000, 4_000);

/// Who asks for what.
pub(crate) struct Asked<'a> {
    pub(crate) app: &'a str,
    pub(crate) tenant: &'a str,
    /// Object id of the mailbox, for requests to Outlook.
    pub(crate) mailbox: Option<&'a str>,
    pub(crate) method: &'a str,
    pub(crate) segments: &'a [&'a str],
}

/// Requests of the last while, by what they count as and for whom.
#[derive(Default)]
pub(crate) struct Limits {
    recent: Mutex<HashMap<String, VecDeque<Timestamp>>>,
}

impl Limits {
    /// Counts a request; the limit that it goes beyond, and the seconds until it would not.
    pub(crate) fn over(&self, asked: &Asked<'_>, now: Timestamp) -> Option<(&'static str, f64)> {
        let Asked { app, tenant, mailbox, .. } = asked;
        let (rule, windows) = if let Some(mailbox) = mailbox {
            let (most, secs) = MAILBOX;
            ("mailbox-requests", vec![(format!("{app}/{mailbox}"), most, secs)])
        } else {
            let (rule, of_tenant, of_app) = match (asked.method, asked.segments) {
                ("GET", ["subscriptions"]) => LIST,
                ("GET", ["subscriptions", ..]) => GET,
                (_, ["subscriptions", _, "reauthorize"]) => REAUTHORIZE,
                (_, ["subscriptions", ..]) => WRITE,
                _ => return None,
            };
            let windows = vec![
                (format!("{app}/{tenant}/{rule}"), of_tenant, 20),
                (format!("{app}/{rule}"), of_app, 20),
            ];
            (rule, windows)
        };
        let mut recent = lock(&self.recent);
        let mut over: Option<f64> = None;
        for (key, most, secs) in windows {
            let times = recent.entry(key).or_default();
            let span = SignedDuration::from_secs(secs);
            while times.front().is_some_and(|at| now.duration_since(*at) >= span) {
                times.pop_front();
            }
            times.push_back(now);
            // What is throttled still counts.
            if times.len() > most {
                let leaves = times[times.len() - 1 - most];
                let left = (span - now.duration_since(leaves)).as_secs_f64();
                over = Some(over.map_or(left, |over| over.max(left)));
            }
        }
        over.map(|left| (rule, left))
    }
}
