//! Asks the running service over its private listener.

use std::time::Duration;

use reqwest::{StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use url::Url;

use super::{Failure, Options};
use crate::{
    admin::Problem,
    config::{Config, Environment, read_secret},
};

/// `check` tries every outside system before it answers.
const PATIENCE: Duration = Duration::from_secs(180);
/// An answer larger than this is not the service's.
const MOST_BYTES: u64 = 256 * 1024 * 1024;

/// How often something that goes on by itself is asked for while nobody answers, and the pause between: two minutes
/// for a restart.
const MOST_ASKED: u32 = 240;
const PAUSE: Duration = Duration::from_millis(500);

/// What an order without an answer may have done.
const LOST: &str =
    "it may have been done or not: once the service answers, `narvaro audit` tells what was done";

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// Changes nothing.
    Question,
    /// May change something, as soon as it is sent.
    Order,
}

/// What came of asking.
enum Heard<T> {
    /// Nobody answered.
    Nothing(Failure),
    /// The service did, or something else that listens there.
    Answer(Result<T, Failure>),
}

/// The running service, as the command line sees it.
pub(super) struct Client {
    http: reqwest::Client,
    base: Url,
    token: SecretString,
}

impl Client {
    /// Finds address and token; nothing is sent yet.
    pub(super) fn connect(options: &Options, environment: &Environment) -> Result<Self, Failure> {
        if let (Some(url), Some(token_file)) = (&options.url, &options.token_file) {
            return Self::at(url, token_file);
        }
        let config = Config::load(options.config.as_deref(), environment)?;
        let url = options.url.clone().unwrap_or_else(|| config.listen.private_url());
        Self::at(&url, &options.token_file.clone().unwrap_or_else(|| config.token_file()))
    }

    pub(super) fn at(url: &str, token_file: &std::path::Path) -> Result<Self, Failure> {
        let base = Url::parse(url)
            .ok()
            .filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| {
                Failure::new(format!("`{url}` is no address of a service"))
                    .hint("write it as `http://127.0.0.1:8081`")
            })?;
        let token = read_secret("admin.token_file", token_file).map_err(|error| {
            Failure::of("the token of the admin API cannot be had", &error)
                .hint("the service makes it at its first start: start it with `narvaro serve`")
                .hint("run this as an account that may read the file, or name another with `--token-file`")
        })?;
        // A proxy in the environment is for the internet; and a redirect would carry the token away.
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(PATIENCE)
            .build()
            .map_err(|error| Failure::of("the HTTP client cannot be made", &error))?;
        Ok(Self { http, base, token })
    }

    /// Where the service is asked, for messages.
    pub(super) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Asks with parameters: an object of texts, of which the absent ones are left out.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &impl Serialize,
    ) -> Result<T, Failure> {
        let mut address = self.address_of(path)?;
        if let Ok(Value::Object(parameters)) = serde_json::to_value(parameters) {
            let texts = parameters.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
            address.query_pairs_mut().extend_pairs(texts);
        }
        self.ask(self.http.get(address), Sent::Question).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        self.ask(self.http.post(self.address_of(path)?).json(body), Sent::Order).await
    }

    /// As [`get`](Self::get) without parameters, of something that goes on by itself: while the service is being
    /// restarted, it is asked again.
    pub(super) async fn get_patiently<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let mut asked = 0;
        loop {
            asked += 1;
            match self.hear(self.http.get(self.address_of(path)?), Sent::Question).await {
                Heard::Nothing(failure) if asked == MOST_ASKED => return Err(failure),
                Heard::Nothing(_) => tokio::time::sleep(PAUSE).await,
                Heard::Answer(answer) => return answer,
            }
        }
    }

    fn address_of(&self, path: &str) -> Result<Url, Failure> {
        let address = format!("{}/admin/v1/{path}", self.address());
        Url::parse(&address).map_err(|error| Failure::of(format!("`{address}` is no address"), &error))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        sent: Sent,
    ) -> Result<T, Failure> {
        match self.hear(request, sent).await {
            Heard::Nothing(failure) => Err(failure),
            Heard::Answer(answer) => answer,
        }
    }

    async fn hear<T: DeserializeOwned>(&self, request: reqwest::RequestBuilder, sent: Sent) -> Heard<T> {
        let silent = |error: reqwest::Error| {
            let is_lost = sent == Sent::Order && !error.is_connect();
            let failure = Failure::of(
                format!("the service does not answer at {}", self.address()),
                &error.without_url(),
            )
            .hint("start it with `narvaro serve`, or name its address with `--url`");
            if is_lost { failure.hint(LOST) } else { failure }
        };
        let response = match request.bearer_auth(self.token.expose_secret()).send().await {
            Ok(response) => response,
            Err(error) => return Heard::Nothing(silent(error)),
        };
        let status = response.status();
        if response.content_length().is_some_and(|length| length > MOST_BYTES) {
            return Heard::Answer(Err(self.strange(status)));
        }
        match response.bytes().await {
            Ok(body) => Heard::Answer(self.read(status, &body)),
            Err(error) => Heard::Nothing(silent(error)),
        }
    }

    fn read<T: DeserializeOwned>(&self, status: StatusCode, body: &[u8]) -> Result<T, Failure> {
        if status == StatusCode::UNAUTHORIZED {
            return Err(Failure::new(format!("the service at {} does not accept the token", self.address()))
                .hint("name the file that this service made with `--token-file`; it is `admin.token_file` in its configuration"));
        }
        if !status.is_success() {
            let problem: Result<Problem, _> = serde_json::from_slice(body);
            return Err(problem.map_or_else(|_| self.strange(status), Failure::from));
        }
        serde_json::from_slice(body).map_err(|error| {
            Failure::of(format!("the answer of {} was not understood", self.address()), &error)
                .hint("compare the versions: `narvaro --version` here and where the service runs")
        })
    }

    fn strange(&self, status: StatusCode) -> Failure {
        Failure::new(format!("what answers at {} is not the service ({status})", self.address()))
            .hint("name the private listener with `--url`; it is `listen.private` in the configuration")
    }
}
