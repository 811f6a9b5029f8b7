//! The driver: one change or one reading, with retries, within its time.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderName, HeaderValue};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    answer::{Success, unread},
    auth::Auth,
    breaker::{Breaker, Change},
    call::{Call, Failure, back_off, understand},
    config::{ConfigError, HttpPbxConfig},
    guard::ProcessLimits,
    order::{Found, Order},
    plan::{Plan, within},
    request::{Prepared, RequestTemplate},
    signing::Signer,
    template::RenderError,
    transport::{Answer, Silence, Transport},
    values::{Names, Value, Values, outward_text},
};
use crate::{
    clock::SharedClock,
    model::{CompanyId, Extension, Generation, Profile, Readback, Shown, Wanted},
    presence::{Abilities, LinkState, PbxDriver, PbxError, PbxSignal, Write},
};

/// Signals that a slow listener may fall behind by.
const SIGNALS_KEPT: usize = 16;

/// A PBX, or anything else with an HTTP interface, told by requests made of templates.
#[derive(Debug)]
pub struct HttpPbx {
    company: CompanyId,
    base: Url,
    plan: Plan,
    auth: Auth,
    signer: Option<Signer>,
    transport: Transport,
    breaker: Breaker,
    /// Requests that may be under way.
    slots: Semaphore,
    /// Changes that may be under way, each with its requests one after the other.
    turns: Semaphore,
    order: Order,
    signals: broadcast::Sender<PbxSignal>,
    clock: Dated,
}

/// A clock that need not be shown.
struct Dated(SharedClock);

impl std::fmt::Debug for Dated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Clock")
    }
}

impl HttpPbx {
    /// A driver for `config`, every setting checked.
    ///
    /// # Errors
    /// The key that is wrong and what to write.
    pub fn new(
        config: &HttpPbxConfig,
        limits: ProcessLimits,
        company: CompanyId,
        clock: SharedClock,
    ) -> Result<Arc<Self>, ConfigError> {
        let transport = Transport::new(config, limits)?;
        within("breaker.failures", config.breaker.failures, 1, 100)?;
        within("breaker.open_secs", config.breaker.open_secs, 1, 600)?;
        Ok(Arc::new(Self {
            company,
            base: transport.url("base_url", &config.base_url)?,
            plan: Plan::new(config)?,
            auth: Auth::new(&config.auth, &transport)?,
            signer: Signer::new(&config.signing_secrets)?,
            transport,
            breaker: Breaker::new(config.breaker),
            slots: Semaphore::new(within("concurrency", config.concurrency, 1, 64)?),
            turns: Semaphore::new(config.concurrency),
            order: Order::default(),
            signals: broadcast::Sender::new(SIGNALS_KEPT),
            clock: Dated(clock),
        }))
    }

    /// What `write` would send, as text, without sending anything: secrets are `[redacted]`, and names that
    /// were not looked up yet stand as `NAME-of-EXTENSION`.
    ///
    /// # Errors
    /// [`PbxError::Refused`] where no request can be made.
    pub fn dry_run(&self, write: &Write<'_>) -> Result<String, PbxError> {
        let known = self.order.lane(write.extension).busy.try_lock().ok().and_then(|found| found.clone());
        let found = known.unwrap_or_else(|| {
            let names = self.plan.find.iter().flat_map(|(_, finder)| finder.names());
            names.map(|name| (name.clone(), Value::Text(format!("{name}-of-{}", write.extension)))).collect()
        });
        let mut request = self.prepare_write(write, &found)?;
        self.dress(&mut request, write.transition)?;
        self.auth.pretend(&mut request)?;
        Ok(request.to_string())
    }

    /// Profiles that lack a term which the requests need, each with what to add.
    pub fn missing_terms(&self, profiles: &[Profile]) -> Vec<String> {
        let mut missing = Vec::new();
        for profile in profiles {
            for term in self.plan.request_for(&profile.id).terms_needed() {
                if !profile.pbx.http.contains_key(term) {
                    let error =
                        RenderError::NoTerm { profile: profile.id.to_string(), term: term.to_owned() };
                    missing.push(error.to_string());
                }
            }
        }
        missing.dedup();
        missing
    }

    fn now(&self) -> Timestamp {
        self.clock.0.now()
    }

    fn after(&self, wait: Duration) -> Timestamp {
        let wait = SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX);
        self.now().checked_add(wait).unwrap_or(Timestamp::MAX)
    }

    fn values<'a>(&'a self, extension: Option<&'a Extension>, found: &'a Names) -> Values<'a> {
        Values {
            company: &self.company,
            zone: &self.plan.zone,
            text_chars: self.plan.text_chars,
            now: self.now(),
            extension,
            wanted: None,
            previous: None,
            found,
            transition: "",
            generation: Generation(0),
        }
    }

    fn prepare(&self, template: &RequestTemplate, values: &Values<'_>) -> Result<Prepared, PbxError> {
        let base = self.base.as_str().trim_end_matches('/');
        template.prepare(base, values).map_err(|error| PbxError::Refused { reason: error.to_string() })
    }

    fn prepare_write(&self, write: &Write<'_>, found: &Names) -> Result<Prepared, PbxError> {
        let values = Values {
            wanted: Some(write.wanted),
            previous: write.previous,
            transition: write.transition,
            generation: write.generation,
            ..self.values(Some(write.extension), found)
        };
        self.prepare(self.plan.request(write.wanted), &values)
    }

    /// The headers that name the change, and the signatures as of now.
    fn dress(&self, request: &mut Prepared, transition: &str) -> Result<(), PbxError> {
        let mut put = |name: HeaderName, text: &str| -> Result<(), PbxError> {
            let reason = "the transition's id holds a character that a header cannot carry".to_owned();
            let value = HeaderValue::from_str(text).map_err(|_| PbxError::Refused { reason })?;
            request.headers.insert(name, value);
            Ok::<_, PbxError>(())
        };
        if let Some(name) = &self.plan.idempotency_header {
            put(name.clone(), transition)?;
        }
        if let Some(signer) = &self.signer {
            let at = self.now().as_second();
            let signature = signer.sign(transition, at, &request.body);
            put(HeaderName::from_static("webhook-id"), transition)?;
            put(HeaderName::from_static("webhook-timestamp"), &at.to_string())?;
            put(HeaderName::from_static("webhook-signature"), &signature)?;
        }
        Ok(())
    }

    /// Sends `request` until it succeeds, or fails for good, or the call's time is over.
    async fn exchange(
        &self,
        request: &Prepared,
        success: &Success,
        call: &Call<'_>,
    ) -> Result<Vec<u8>, PbxError> {
        let (mut attempt, mut stale) = (1, None);
        loop {
            if let Some(place) = call.place {
                place.check()?;
            }
            match self.attempt(request.clone(), success, call, stale).await {
                Ok(body) => return Ok(body),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Stale(Some(serial))) if stale.is_none() => stale = Some(serial),
                Err(Failure::Stale(_)) => {
                    return Err(PbxError::Denied { reason: "it does not take our key or token".to_owned() });
                }
                Err(Failure::Again { error, after }) => {
                    let until = self.after(after.unwrap_or_else(|| back_off(attempt, call)));
                    if attempt >= self.plan.attempts || until >= call.deadline {
                        return Err(error);
                    }
                    attempt += 1;
                    self.wait(until, call).await?;
                }
            }
        }
    }

    async fn wait(&self, until: Timestamp, call: &Call<'_>) -> Result<(), PbxError> {
        let slept = self.clock.0.sleep_until(until);
        match call.place {
            None => slept.await,
            Some(place) => tokio::select! {
                biased;
                error = place.superseded() => return Err(error),
                () = slept => {}
            },
        }
        Ok(())
    }

    /// What is left of the call's time.
    fn left(&self, call: &Call<'_>) -> Result<Duration, PbxError> {
        let left = Duration::try_from(call.deadline.duration_since(self.now())).unwrap_or_default();
        if left.is_zero() { Err(PbxError::Unreachable(Silence::OutOfTime.into())) } else { Ok(left) }
    }

    async fn attempt(
        &self,
        mut request: Prepared,
        success: &Success,
        call: &Call<'_>,
        stale: Option<u64>,
    ) -> Result<Vec<u8>, Failure> {
        let left = self.left(call).map_err(Failure::Final)?;
        let slot = tokio::time::timeout(left, self.slots.acquire()).await;
        let Ok(Ok(_slot)) = slot else {
            return Err(Failure::Final(PbxError::Unreachable(Silence::OutOfTime.into())));
        };
        let permit = self.breaker.admit(self.now());
        let permit = permit.map_err(|left_alone| Failure::Final(PbxError::Unreachable(left_alone.into())))?;
        let outcome = self.send(&mut request, call, stale).await;
        let change = match &outcome {
            Ok((Answer { status, .. }, _)) if status.is_server_error() || status.as_u16() == 408 => {
                permit.failed(self.now(), Silence::Status(status.as_u16()).to_string())
            }
            Err(PbxError::Unreachable(cause)) => {
                permit.failed(self.now(), crate::chain::Chain(cause.as_ref()).to_string())
            }
            Ok(_) => permit.answered(),
            // The token endpoint asks for patience, or nothing was sent: nothing is known of the target.
            Err(_) => None,
        };
        if let Some(change) = change {
            let signal = if change == Change::Up { PbxSignal::LinkUp } else { PbxSignal::LinkDown };
            // Nobody may be listening.
            self.signals.send(signal).unwrap_or_default();
        }
        let (answer, serial) = outcome.map_err(|error| match error {
            PbxError::Throttled { retry_after } => {
                Failure::Again { error: PbxError::Throttled { retry_after }, after: retry_after }
            }
            PbxError::Unreachable(_) => Failure::Again { error, after: None },
            error => Failure::Final(error),
        })?;
        understand(answer, serial, success, call)
    }

    async fn send(
        &self,
        request: &mut Prepared,
        call: &Call<'_>,
        stale: Option<u64>,
    ) -> Result<(Answer, Option<u64>), PbxError> {
        if let Some(transition) = call.transition {
            self.dress(request, transition)?;
        }
        let timeout = self.left(call)?.min(self.plan.timeout);
        let clock = self.clock.0.as_ref();
        let identified = self.auth.identify(request, &self.transport, clock, timeout, stale);
        let Ok(serial) = tokio::time::timeout(timeout, identified).await else {
            return Err(PbxError::Unreachable(Silence::OutOfTime.into()));
        };
        let serial = serial?;
        let timeout = self.left(call)?.min(self.plan.timeout);
        let answer = self.transport.send(request.clone(), timeout, self.now()).await?;
        Ok((answer, serial))
    }

    /// The PBX's own names of the extension, looked up where they are not known.
    async fn find(&self, found: &mut Found, call: &Call<'_>) -> Result<Names, PbxError> {
        let (Some((template, finder)), Some(extension)) = (&self.plan.find, call.extension) else {
            return Ok(Names::new());
        };
        if let Some(known) = found {
            return Ok(known.clone());
        }
        let request = self.prepare(template, &self.values(Some(extension), &Names::new()))?;
        let call = Call { wants_body: true, transition: None, ..*call };
        let body = self.exchange(&request, &template.success, &call).await?;
        let names = finder.find(&body, extension)?;
        *found = Some(names.clone());
        Ok(names)
    }

    /// Sends the request that `prepare` makes of the looked-up names; if those prove out of date,
    /// once more with new ones.
    async fn ask(
        &self,
        found: &mut Found,
        call: &Call<'_>,
        success: &Success,
        prepare: impl Fn(&Names) -> Result<Prepared, PbxError>,
    ) -> Result<Vec<u8>, PbxError> {
        let was_known = found.is_some();
        let names = self.find(found, call).await?;
        match self.exchange(&prepare(&names)?, success, call).await {
            Err(PbxError::NoSuchExtension { .. }) if was_known => {
                *found = None;
                let names = self.find(found, call).await?;
                self.exchange(&prepare(&names)?, success, call).await
            }
            outcome => outcome,
        }
    }
}

#[async_trait]
impl PbxDriver for HttpPbx {
    fn abilities(&self) -> Abilities {
        Abilities {
            text_chars: self.plan.text_chars,
            until: self.plan.tells_until(),
            read_back: self.plan.read.is_some(),
            watches: false,
            tells_restart: false,
        }
    }

    fn render(&self, wanted: &Wanted) -> Shown {
        let nothing = Names::new();
        let values = Values { wanted: Some(wanted), ..self.values(None, &nothing) };
        match (wanted, &self.plan.read) {
            (Wanted::Profile(outward), Some((_, reader))) if self.plan.clears(&outward.profile) => {
                reader.only_canonical(reader.default())
            }
            (Wanted::Profile(_), Some((_, reader))) => reader.shows(&values),
            (Wanted::AsFound(shown), Some((_, reader))) if self.plan.restores() => {
                reader.only_canonical(shown)
            }
            (Wanted::AsFound(_), Some((_, reader))) => reader.only_canonical(reader.default()),
            (Wanted::Profile(outward), None) => {
                let until = outward.until.filter(|_| self.plan.tells_until());
                unread(outward, outward_text(outward, self.plan.text_chars), until)
            }
            (Wanted::AsFound(shown), None) => shown.clone(),
        }
    }

    async fn set(&self, write: Write<'_>) -> Result<Shown, PbxError> {
        let lane = self.order.lane(write.extension);
        let place = lane.enter(write.extension, write.generation, self.now())?;
        let turn = tokio::select! {
            biased;
            error = place.superseded() => return Err(error),
            turn = self.turns.acquire() => turn,
        };
        // The semaphore is never closed.
        let _turn = turn.map_err(|closed| PbxError::Unreachable(closed.into()))?;
        if !write.stands.lasts(write.within) {
            return Err(PbxError::Unreachable(Silence::OutOfTime.into()));
        }
        let deadline = self.after(write.within);
        let call = Call {
            deadline,
            extension: Some(write.extension),
            place: Some(&place),
            transition: Some(write.transition),
            wants_body: false,
        };
        let Ok(mut found) = tokio::time::timeout(self.left(&call)?, lane.busy.lock()).await else {
            return Err(PbxError::Unreachable(Silence::OutOfTime.into()));
        };
        let success = &self.plan.request(write.wanted).success;
        // Boxed, since very many may wait for their turn at the same time.
        Box::pin(self.ask(&mut found, &call, success, |names| self.prepare_write(&write, names))).await?;
        Ok(self.render(write.wanted))
    }

    async fn read_back(&self, extension: &Extension, profiles: &[Profile]) -> Result<Readback, PbxError> {
        let Some((template, reader)) = &self.plan.read else {
            return Err(PbxError::Refused { reason: "there is no `read` request for it".to_owned() });
        };
        let deadline = self.after(self.plan.timeout * 2);
        let call =
            Call { deadline, extension: Some(extension), place: None, transition: None, wants_body: true };
        let lane = self.order.lane(extension);
        let Ok(mut found) = tokio::time::timeout(self.left(&call)?, lane.busy.lock()).await else {
            return Err(PbxError::Unreachable(Silence::OutOfTime.into()));
        };
        let prepare = |names: &_| self.prepare(template, &self.values(Some(extension), names));
        let body = self.ask(&mut found, &call, &template.success, prepare).await?;
        reader.read(&body, profiles)
    }

    fn signals(&self) -> broadcast::Receiver<PbxSignal> {
        self.signals.subscribe()
    }

    fn link(&self) -> LinkState {
        self.breaker.link()
    }

    async fn run(self: Arc<Self>, _shutdown: CancellationToken) {}

    async fn check(&self) -> Result<String, PbxError> {
        let deadline = self.after(self.plan.timeout);
        let call = Call { deadline, extension: None, place: None, transition: None, wants_body: false };
        let host = self.base.host_str().unwrap_or_default();
        if let Some(template) = &self.plan.check {
            let request = self.prepare(template, &self.values(None, &Names::new()))?;
            self.exchange(&request, &template.success, &call).await?;
            return Ok(format!(
                "`{host}` takes our credentials and answers the `check` request as it should"
            ));
        }
        let mut request = Prepared::get(self.base.clone());
        let (answer, serial) = self.send(&mut request, &call, None).await?;
        let status = answer.status.as_u16();
        let token = if serial.is_some() { "gives us a token and " } else { "" };
        Ok(format!("`{host}` {token}answers with status {status}; a `check` request would tell more"))
    }
}
