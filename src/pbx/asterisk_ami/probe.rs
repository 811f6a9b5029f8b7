//! What `check` tries: a connection of its own, and each right that the configuration needs.
//!
//! A presence of the name `narvaro-check` is set, read, watched for and cleared: it belongs to no extension,
//! and only a real round shows that the function is loaded and the account may do it.

use std::time::Duration;

use crate::{
    model::{AsteriskState, Extension},
    presence::PbxError,
};

use super::{
    codec::Action,
    config::AsteriskConfig,
    connection::{Connection, accepted, unforeseeable},
    face,
    fields::Face,
    presence_questions, set_presence,
};

/// Name that no telephone has.
const STAND_IN: &str = "narvaro-check";

/// Longest wait for our own change to come back as an event; usual are milliseconds.
const ECHO: Duration = Duration::from_secs(2);

pub(super) async fn probe(config: &AsteriskConfig) -> Result<String, PbxError> {
    let mut connection = Connection::open(config).await?;
    let stand_in: Extension =
        STAND_IN.parse().map_err(|_| PbxError::Unexpected { reason: "no name to try with".to_owned() })?;
    let provider = config.custom_presence.fill(&stand_in);
    try_presence(&mut connection, &provider).await?;
    if config.astdb_dnd {
        try_database(&mut connection).await?;
    }
    let version = version(&mut connection).await?;
    let database = if config.astdb_dnd { "; AstDB can be written" } else { "" };
    Ok(format!(
        "Asterisk {version} (AMI {}), account `{}`: presence can be set, read and watched{database}",
        connection.ami_version, config.username
    ))
}

/// The version, where the account may ask for it.
async fn version(connection: &mut Connection) -> Result<String, PbxError> {
    let answer = connection.ask(&Action::new("CoreSettings")).await?;
    let version: String =
        answer.get("AsteriskVersion").unwrap_or("of unknown version").chars().take(60).collect();
    Ok(version)
}

async fn try_presence(connection: &mut Connection, provider: &str) -> Result<(), PbxError> {
    let nonce = format!("check {:016x}", unforeseeable());
    let told = Face { state: AsteriskState::Chat, message: nonce.clone(), ..Face::blank() };
    let set = connection.ask(&set_presence(provider, &told)).await?;
    accepted(set).map_err(|error| needs(error, "write", "call"))?;
    let mut parts = Vec::new();
    for question in presence_questions(provider) {
        let answer =
            accepted(connection.ask(&question).await?).map_err(|error| needs(error, "write", "call"))?;
        parts.push(answer.get("Value").unwrap_or_default().to_owned());
    }
    if face(&parts, "", false)? != told {
        return Err(PbxError::Unexpected { reason: "it does not keep the presence it is told".to_owned() });
    }
    let echo = connection.event(|event| {
        event.is_event("PresenceStateChange") && event.get("Message").is_some_and(|text| text == nonce)
    });
    let heard = tokio::time::timeout(ECHO, echo).await;
    connection.ask(&set_presence(provider, &Face::blank())).await?;
    match heard {
        Ok(event) => Ok(event.map(drop)?),
        Err(_) => Err(PbxError::Denied {
            reason: "no presence events come: give the account the read class `call`".to_owned(),
        }),
    }
}

async fn try_database(connection: &mut Connection) -> Result<(), PbxError> {
    let key = |name| Action::new(name).with("Family", "narvaro").with("Key", "check");
    for action in [key("DBPut").with("Val", "1"), key("DBDel")] {
        accepted(connection.ask(&action).await?).map_err(|error| needs(error, "write", "system"))?;
    }
    Ok(())
}

/// Asterisk only says `Permission denied`: this says which permission.
fn needs(error: PbxError, direction: &str, class: &str) -> PbxError {
    match error {
        PbxError::Denied { .. } => {
            PbxError::Denied { reason: format!("the account lacks the {direction} class `{class}`") }
        }
        other => other,
    }
}
