//! Calls our own notification address the way Microsoft 365 does: when a person asks, and by a timer.
//!
//! It goes to `webhook.public_url` and nowhere else. That it fails from here does not prove that it fails from the
//! internet, so that it is told and nothing else follows from it; what does follow is up to
//! [`crate::subscription::Push`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::SignedDuration;
use reqwest::{Response, StatusCode};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{chain::Chain, clock::SharedClock, model::Language};

/// Microsoft 365 waits as long for a handshake.
const WITHIN: Duration = Duration::from_secs(10);

/// What is wrong with the notification address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wrong {
    /// Something answers, and it is not us.
    NotUs(StatusCode),
    /// Nothing answers; in the words of whoever tried.
    NoAnswer(String),
}

impl Wrong {
    /// In words.
    pub(super) fn say(&self, language: Language) -> String {
        match (self, language) {
            (Self::NotUs(status), Language::Sv) => {
                format!("svarade {status} och inte som vi: något annat lyssnar där")
            }
            (Self::NotUs(status), Language::En) => {
                format!("answered {status} and not our own answer: something else listens there")
            }
            (Self::NoAnswer(said), _) => said.clone(),
        }
    }
}

/// The test and what it found last.
pub(super) struct SelfTest {
    public_url: String,
    client: reqwest::Client,
    clock: SharedClock,
    /// What was wrong the last time the timer tried.
    wrong: Mutex<Option<Wrong>>,
}

impl SelfTest {
    /// Nothing is called yet.
    pub(super) fn new(public_url: String, clock: SharedClock) -> Arc<Self> {
        let builder = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).timeout(WITHIN);
        let client = builder.build().unwrap_or_default();
        Arc::new(Self { public_url, client, clock, wrong: Mutex::default() })
    }

    /// Which address is tested.
    pub(super) fn public_url(&self) -> &str {
        &self.public_url
    }

    /// What was wrong the last time the timer tried.
    pub(super) fn wrong(&self) -> Option<Wrong> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shakes hands with ourselves.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) async fn run(&self) -> Result<(), Wrong> {
        let token = format!("narvaro self-test {}", self.clock.now().as_millisecond());
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("validationToken", &token)
            .finish();
        let url = format!("{}/graph/v1/notify?{query}", self.public_url);
        let answer = self.client.post(&url).send().await;
        let answer = answer.map_err(|error| Wrong::NoAnswer(Chain(&error.without_url()).to_string()))?;
        let status = answer.status();
        if status == StatusCode::OK && says(answer, &token).await {
            Ok(())
        } else {
            Err(Wrong::NotUs(status))
        }
    }

    /// Runs it again and again until `shutdown`.
    pub(super) async fn keep(self: Arc<Self>, every: SignedDuration, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.clock.sleep_until(self.clock.now() + every) => {}
            }
            let outcome = tokio::select! {
                () = shutdown.cancelled() => return,
                outcome = self.run() => outcome,
            };
            self.note(outcome);
        }
    }

    fn note(&self, outcome: Result<(), Wrong>) {
        let name = if outcome.is_ok() { "fine" } else { "failed" };
        metrics::counter!("narvaro_self_tests_total", "outcome" => name).increment(1);
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        match (&outcome, &*wrong) {
            (Err(wrong), None) => warn!(
                said = wrong.say(Language::En),
                "Our own notification address does not answer as it must"
            ),
            (Ok(()), Some(_)) => info!("Our own notification address answers again"),
            _ => {}
        }
        *wrong = outcome.err();
    }
}

/// Whether an answer is exactly that text. No more of it is read than that takes: nobody knows who answers.
async fn says(mut answer: Response, text: &str) -> bool {
    let mut rest = text.as_bytes();
    loop {
        match answer.chunk().await {
            Ok(Some(piece)) => match rest.strip_prefix(&*piece) {
                Some(left) => rest = left,
                None => return false,
            },
            Ok(None) => return rest.is_empty(),
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{Router, body::Body, extract::RawQuery, routing::post};

    use super::*;
    use crate::clock::ManualClock;

    async fn serve(routes: Router) -> String {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let tasks = super::super::Tasks::default();
        let serving = crate::app::listener::serve(socket, routes, 8, tasks.shutdown());
        tasks.spawn("listener", serving);
        url
    }

    fn test_of(url: &str) -> Arc<SelfTest> {
        SelfTest::new(url.to_owned(), ManualClock::at("2026-11-23T08:00:00Z".parse().unwrap()))
    }

    #[tokio::test]
    async fn only_our_own_answer_counts() {
        let echo = |RawQuery(query): RawQuery| async move {
            let query = query.unwrap_or_default();
            url::form_urlencoded::parse(query.as_bytes())
                .next()
                .map_or_else(String::new, |(_, token)| token.into())
        };
        let ours = serve(Router::new().route("/graph/v1/notify", post(echo))).await;
        assert_eq!(test_of(&ours).run().await, Ok(()));
        let other = serve(Router::new().route("/graph/v1/notify", post(async || "welcome"))).await;
        assert!(matches!(test_of(&other).run().await, Err(Wrong::NotUs(StatusCode::OK))));
        let nobody = serve(Router::new()).await;
        assert!(test_of(&nobody).run().await.unwrap_err().say(Language::Sv).contains("404"));
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read_to_its_end() {
        let given = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&given);
        let endless = async move || {
            Body::from_stream(futures_util::stream::repeat_with(move || {
                counted.fetch_add(1, Ordering::Relaxed);
                Ok::<_, std::convert::Infallible>(vec![b'x'; 1 << 16])
            }))
        };
        let other = serve(Router::new().route("/graph/v1/notify", post(endless))).await;
        assert_eq!(test_of(&other).run().await, Err(Wrong::NotUs(StatusCode::OK)));
        // What the sockets hold is a few MB.
        assert!(given.load(Ordering::Relaxed) < 1_000);
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_until_it_is_right_again() {
        let test = test_of("http://127.0.0.1:9");
        test.note(test.run().await);
        assert!(test.wrong().is_some_and(|wrong| !wrong.say(Language::En).contains("narvaro self-test")));
        test.note(Ok(()));
        assert_eq!(test.wrong(), None);
    }
}
