//! Microsoft Graph: the calendars of companies, and the watches on their mailboxes.
//!
//! ```text
//!  GraphCompany ── builder ──> Call ── transport ──> Graph        what is asked for, and how it gets there
//!       │        (graph-rs-sdk)         │     ├─ circuit          a tenant that fails is left alone
//!       │                               │     ├─ gates            four at a time, pauses
//!       │                               │     ├─ budget           ahead of Graph's own
//!       │                               │     ├─ line             what is pressing first, small ones together
//!       │                               │     └─ courier ── batch
//!       │                               └─ auth ── login ──> Entra   one token per company
//!       ├── round, events, users, subscriptions <── wire         what comes back, in our words
//!  RichCompany ── rich <── what notifications brought             opened instead of asked for
//! ```
//!
//! Promises: an answer is complete or an error; every id is an immutable id; every wait is returned to the queue
//! instead of slept; what is not needed of an event is never read; a token goes to its own cloud's Graph only.
//! Does not: decide what counts, remember events, retry (one 401 aside), or renew anything by its own clock.
//!
//! Why graph-rs-sdk builds requests and does not send them: see [`builder`]. Why azure_identity's tokens are kept
//! here and not in its own cache: it would ask anew only five minutes before the end and then fail although the
//! old token is still good, and it cannot be told to forget one that Graph refuses; see [`auth`].

mod auth;
mod backoff;
mod batch;
mod budget;
mod builder;
mod calendar;
mod circuit;
mod cloud;
mod consent;
mod courier;
mod credential;
mod events;
mod gates;
mod line;
mod login;
mod refusal;
mod rich;
mod round;
mod subscriptions;
mod transport;
mod users;
mod wire;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod testing;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicU32},
};

pub use cloud::{Cloud, CloudError};
pub use consent::{
    CallbackError, ConsentAnswer, ConsentError, ConsentTicket, STATE_LIFE, StateKey, WeakKey, consent_url,
    fresh_nonce, issue, read_callback, verify,
};
pub use credential::{AppCredential, CredentialError};
pub use rich::{KeyError, Rich, RichCompany};

use self::{
    auth::{Application, TokenKeeper},
    budget::{ApplicationBudget, Budget},
    builder::Requests,
    circuit::Circuit,
    courier::{Courier, http_client},
    credential::Proof,
    gates::Gates,
    login::Road,
    transport::{Desk, Transport},
};
use crate::{clock::SharedClock, model::TenantId};

/// Which application we are, and where.
#[derive(Debug, Clone)]
pub struct GraphConfig {
    /// The cloud that the application is registered in.
    pub cloud: Cloud,
    /// The application's (client) id.
    pub client_id: String,
    /// What it proves itself with.
    pub credential: AppCredential,
}

/// A configuration that cannot work.
#[derive(Debug, thiserror::Error)]
pub enum GraphConfigError {
    /// The credential is not what it should be.
    #[error("the application's credential for Microsoft Graph cannot be used")]
    Credential(#[source] CredentialError),
    /// The client id is not one.
    #[error("the application's client id is empty or holds more than letters, digits and `-`")]
    ClientId,
    /// TLS could not be set up.
    #[error("no client for Microsoft Graph can be made")]
    Client(#[source] reqwest::Error),
}

/// Microsoft Graph, for all companies that one application serves.
pub struct Graph {
    application: Arc<Application>,
    client: reqwest::Client,
    requests: Requests,
    budget: Arc<ApplicationBudget>,
    clock: SharedClock,
    companies: Mutex<HashMap<TenantId, Weak<GraphCompany>>>,
}

impl Graph {
    /// Graph for this application; nothing is sent yet.
    ///
    /// # Errors
    /// [`GraphConfigError`] names what a technician has to mend.
    pub fn new(config: GraphConfig, clock: SharedClock) -> Result<Arc<Self>, GraphConfigError> {
        let GraphConfig { cloud, client_id, credential } = config;
        if client_id.is_empty() || !client_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(GraphConfigError::ClientId);
        }
        let proof = Proof::new(credential).map_err(GraphConfigError::Credential)?;
        let client = http_client(cloud.is_loopback()).map_err(GraphConfigError::Client)?;
        let road = Arc::new(Road::new(client.clone(), &cloud, Arc::clone(&clock)));
        let requests = Requests::new(cloud.root());
        let application = Application { cloud, client_id, proof, road, clock: Arc::clone(&clock) };
        Ok(Arc::new(Self {
            application: Arc::new(application),
            client,
            requests,
            budget: Arc::default(),
            clock,
            companies: Mutex::default(),
        }))
    }

    /// The cloud that the application is registered in.
    pub fn cloud(&self) -> &Cloud {
        &self.application.cloud
    }

    /// The application's (client) id.
    pub fn client_id(&self) -> &str {
        &self.application.client_id
    }

    /// How many processes ask on behalf of the application, among which its budgets are divided: to be kept up by whoever knows.
    pub fn processes(&self) -> Arc<AtomicU32> {
        self.budget.processes()
    }

    /// The company with this tenant; the same one as long as anybody holds it, so that its token and its limits
    /// are counted once.
    pub fn company(self: &Arc<Self>, tenant: TenantId) -> Arc<GraphCompany> {
        let mut companies = self.companies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(company) = companies.get(&tenant).and_then(Weak::upgrade) {
            return company;
        }
        companies.retain(|_, company| company.strong_count() > 0);
        let tokens = Arc::new(TokenKeeper::new(Arc::clone(&self.application), tenant.clone()));
        let company = Arc::new(GraphCompany {
            transport: self.transport(&tenant, &tokens),
            graph: Arc::clone(self),
            tokens,
            tenant: tenant.clone(),
        });
        companies.insert(tenant, Arc::downgrade(&company));
        company
    }

    fn transport(&self, tenant: &TenantId, tokens: &Arc<TokenKeeper>) -> Transport {
        let clock = || Arc::clone(&self.clock);
        let root = self.application.cloud.root();
        Transport::new(Desk {
            courier: Courier { client: self.client.clone(), root, clock: clock() },
            tokens: Arc::clone(tokens),
            circuit: Circuit::new(tenant.clone()),
            gates: Gates::default(),
            budget: Budget::new(Arc::clone(&self.budget)),
            clock: clock(),
        })
    }
}

/// One company at Graph: its calendars and the watches on them.
pub struct GraphCompany {
    graph: Arc<Graph>,
    tenant: TenantId,
    tokens: Arc<TokenKeeper>,
    transport: Transport,
}
