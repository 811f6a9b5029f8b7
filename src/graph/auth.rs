//! One tenant's access token: kept, renewed before it ends, and not asked for in vain.
//!
//! Promises: a token that is still good is served even while the login service is away; at most one login per
//! tenant is under way; a failure is remembered for a while, so that a thousand mailboxes of a company without
//! consent cause one login and not a thousand.
//! Renewal is on demand: the first caller past 80 % of the life renews, all others go on with the old token.
//! Why not in the background: a tenant nobody asks about needs no token, and demand spreads the renewals.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use azure_core::time::OffsetDateTime;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use super::{
    cloud::Cloud,
    credential::Proof,
    login::{self, NotAToken, Road, TokenFailure},
};
use crate::{calendar::ReadError, chain::Chain, clock::SharedClock, model::TenantId};

/// A token is not used in its last moments: it has to be valid when Graph looks at it.
const MARGIN: SignedDuration = SignedDuration::from_secs(30);

/// Twice in this time Graph may not make us throw a token away: a new one would not please it either.
const RENOUNCE_AT_MOST_EVERY: SignedDuration = SignedDuration::from_secs(30);

/// First and longest wait after a failure that may pass by itself.
const PASSING: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// First and longest wait after a failure that a person has to mend.
const LASTING: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(900));

/// Which application asks, in which cloud, and how it proves itself.
pub(super) struct Application {
    pub(super) cloud: Cloud,
    pub(super) client_id: String,
    pub(super) proof: Proof,
    pub(super) road: Arc<Road>,
    pub(super) clock: SharedClock,
}

/// An access token as it was handed out.
#[derive(Debug, Clone)]
pub(super) struct Token {
    /// Goes into the `Authorization` header and nowhere else.
    pub(super) secret: SecretString,
    serial: u64,
}

/// Keeps one tenant's token.
pub(super) struct TokenKeeper {
    application: Arc<Application>,
    tenant: TenantId,
    state: Mutex<State>,
    /// Held during a login.
    flight: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    failure: Option<Failure>,
    failures_in_a_row: u32,
    renounced_at: Option<Timestamp>,
    serial: u64,
}

struct Held {
    token: Token,
    renew_from: Timestamp,
    usable_until: Timestamp,
}

struct Failure {
    why: TokenFailure,
    retry_at: Timestamp,
}

type LoginOutcome = Result<(SecretString, SignedDuration), TokenFailure>;

enum Advice {
    Use(Token),
    Fail(TokenFailure),
    RenewUnlessUnderWay(Token),
    Login,
}

impl State {
    fn advice(&self, now: Timestamp) -> Advice {
        let backing_off = self.failure.as_ref().filter(|failure| now < failure.retry_at);
        match (self.held.as_ref().filter(|held| now < held.usable_until), backing_off) {
            (Some(held), None) if now >= held.renew_from => Advice::RenewUnlessUnderWay(held.token.clone()),
            (Some(held), _) => Advice::Use(held.token.clone()),
            (None, Some(failure)) => Advice::Fail(failure.as_seen_at(now)),
            (None, None) => Advice::Login,
        }
    }

    fn keep(&mut self, secret: SecretString, life: SignedDuration, now: Timestamp) -> Token {
        self.serial += 1;
        let token = Token { secret, serial: self.serial };
        let after = |time: SignedDuration| now.checked_add(time).unwrap_or(Timestamp::MAX);
        self.held = Some(Held {
            token: token.clone(),
            renew_from: after(life * 4 / 5),
            usable_until: after(life - MARGIN),
        });
        self.failure = None;
        self.failures_in_a_row = 0;
        token
    }

    /// Remembers a failure; what is still usable goes on being used.
    fn fail(&mut self, why: TokenFailure, now: Timestamp) -> Result<Token, TokenFailure> {
        let (first, longest) = if why.needs_a_person() { LASTING } else { PASSING };
        let doubled = first.saturating_mul(1 << self.failures_in_a_row.min(10)).min(longest);
        let wait = match &why {
            TokenFailure::Throttled(Some(asked)) => doubled.max(*asked),
            _ => doubled,
        };
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let retry_at = now.checked_add(wait).unwrap_or(Timestamp::MAX);
        self.failure = Some(Failure { why: why.clone(), retry_at });
        match &self.held {
            Some(held) if now < held.usable_until => Ok(held.token.clone()),
            _ => Err(why),
        }
    }
}

impl Failure {
    /// The failure for a caller that was not there: what is left of a wait, not all of it.
    fn as_seen_at(&self, now: Timestamp) -> TokenFailure {
        match &self.why {
            TokenFailure::Throttled(_) => {
                TokenFailure::Throttled(Duration::try_from(self.retry_at.duration_since(now)).ok())
            }
            other => other.clone(),
        }
    }
}

impl TokenKeeper {
    pub(super) fn new(application: Arc<Application>, tenant: TenantId) -> Self {
        Self { application, tenant, state: Mutex::default(), flight: tokio::sync::Mutex::new(()) }
    }

    /// A token that is good for the next half minute at least.
    pub(super) async fn token(&self) -> Result<Token, TokenFailure> {
        let _flight = match self.advice() {
            Advice::Use(token) => return Ok(token),
            Advice::Fail(why) => return Err(why),
            Advice::RenewUnlessUnderWay(old) => match self.flight.try_lock() {
                Ok(flight) => flight,
                Err(_under_way) => return Ok(old),
            },
            Advice::Login => self.flight.lock().await,
        };
        // Whoever was under way meanwhile may have brought a token, or a reason.
        match self.advice() {
            Advice::Use(token) => return Ok(token),
            Advice::Fail(why) => return Err(why),
            Advice::RenewUnlessUnderWay(_) | Advice::Login => {}
        }
        let outcome = self.login().await;
        self.settle(outcome)
    }

    /// Gives a token up that Graph refused; `false` where asking for another would be of no use.
    pub(super) fn renounce(&self, token: &Token) -> bool {
        let now = self.application.clock.now();
        let mut state = self.state();
        if state.held.as_ref().is_none_or(|held| held.token.serial != token.serial) {
            return true; // Another caller was faster.
        }
        let lately = |at: Timestamp| now.duration_since(at) < RENOUNCE_AT_MOST_EVERY;
        if state.renounced_at.is_some_and(lately) {
            return false;
        }
        state.renounced_at = Some(now);
        state.held = None;
        true
    }

    /// Logs in whatever is remembered: a person is at hand and wants to know how it stands now.
    pub(super) async fn login_now(&self) -> Result<(), TokenFailure> {
        let _flight = self.flight.lock().await;
        let outcome = self.login().await;
        self.settle(outcome.clone()).ok();
        outcome.map(|_token| ())
    }

    fn advice(&self) -> Advice {
        self.state().advice(self.application.clock.now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, outcome: LoginOutcome) -> Result<Token, TokenFailure> {
        let now = self.application.clock.now();
        match outcome {
            Ok((secret, life)) => Ok(self.state().keep(secret, life, now)),
            Err(why) => {
                let error = ReadError::from(why.clone());
                tracing::info!(tenant.id = %self.tenant, error = %Chain(&error), "No token from the login service");
                self.state().fail(why, now)
            }
        }
    }

    async fn login(&self) -> LoginOutcome {
        let application = &self.application;
        let tenant = self.tenant.as_str();
        let options = login::client_options(&application.cloud, Arc::clone(&application.road));
        let audience = application.cloud.assertion_audience(tenant);
        let answer = application
            .proof
            .credential(tenant, &application.client_id, &audience, &application.clock, options)
            .map_err(login::classify)?
            .get_token(&[&application.cloud.scope()], None)
            .await
            .map_err(login::classify)?;
        // azure_identity added the life to the machine's clock; taking that away again leaves the life alone.
        let left = answer.expires_on - OffsetDateTime::now_utc();
        let life = SignedDuration::new(left.whole_seconds(), left.subsec_nanoseconds());
        if life <= MARGIN || answer.token.secret().is_empty() {
            return Err(NotAToken.into());
        }
        Ok((answer.token.secret().to_owned().into(), life))
    }
}
