//! The seed file of the program: tenants, the app, users, PBX companies and AMI accounts.

use std::path::Path;

use serde::Deserialize;

use crate::{
    Sim,
    ami::AmiAccount,
    calendar::EventSpec,
    error::SimError,
    pbx::PbxAuth,
    world::{AppSpec, TenantSpec, UserSpec},
};

/// What a simulator starts with.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Seed {
    /// App registrations.
    pub apps: Vec<AppSpec>,
    /// Tenants with their users.
    pub tenants: Vec<SeedTenant>,
    /// Companies of the HTTP PBX.
    pub pbx: Vec<SeedPbx>,
    /// Manager accounts of the Asterisk stand-in.
    pub ami_accounts: Vec<AmiAccount>,
}

/// A tenant in a seed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeedTenant {
    /// Tenant GUID; empty = one is made up.
    pub id: String,
    /// Verified domain.
    pub domain: String,
    /// Display name.
    pub name: String,
    /// Client ids that are consented from the start.
    pub consented: Vec<String>,
    /// Users.
    pub users: Vec<UserSpec>,
    /// Adds so many users `u00001@domain`, `u00002@domain`, …
    pub crowd: u32,
    /// Events, by alias.
    pub events: Vec<SeedEvent>,
}

/// An event in a seed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SeedEvent {
    /// Alias of the mailbox.
    pub alias: String,
    /// The event.
    pub event: EventSpec,
}

/// A company of the HTTP PBX in a seed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SeedPbx {
    /// Name in the path.
    pub company: String,
    /// How callers prove who they are.
    pub auth: PbxAuth,
    /// Standard Webhooks secret that requests must be signed with.
    pub signing_secret: Option<String>,
}

impl Seed {
    /// Reads TOML, or JSON if the text starts with a brace.
    ///
    /// # Errors
    /// Says where the text is wrong.
    pub fn parse(text: &str) -> Result<Self, SimError> {
        if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| SimError::invalid(error.to_string()))
        } else {
            toml::from_str(text).map_err(|error| SimError::invalid(error.to_string()))
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Says which file, and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self, SimError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| SimError::invalid(format!("{}: {error}", path.display())))?;
        Self::parse(&text).map_err(|error| SimError::invalid(format!("{}: {error}", path.display())))
    }

    /// Puts everything into a simulator.
    ///
    /// # Errors
    /// The first thing that cannot be added.
    pub fn plant(self, sim: &Sim) -> Result<(), SimError> {
        for app in self.apps {
            sim.add_app(app)?;
        }
        for tenant in self.tenants {
            let id = sim.add_tenant(TenantSpec {
                id: tenant.id,
                domain: tenant.domain.clone(),
                name: tenant.name,
            })?;
            for user in tenant.users {
                sim.add_user(&id, user)?;
            }
            for number in 1..=tenant.crowd {
                let alias = format!("u{number:05}@{}", tenant.domain);
                sim.add_user(&id, UserSpec::new(&alias))?;
            }
            for client_id in tenant.consented {
                sim.consent(&id, &client_id)?;
            }
            for SeedEvent { alias, event } in tenant.events {
                sim.add_event(&alias, event)?;
            }
        }
        for one in self.pbx {
            sim.pbx().set_auth(&one.company, one.auth);
            sim.pbx().set_signing_secret(&one.company, one.signing_secret.as_deref());
        }
        for account in self.ami_accounts {
            sim.ami().add_account(account);
        }
        Ok(())
    }
}
