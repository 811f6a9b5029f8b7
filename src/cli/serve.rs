//! `narvaro serve`: run the service.

use super::{Failure, Options};
use crate::{
    app::StartError,
    config::{Config, Environment},
    store::embedded::OpenError,
};

pub(super) async fn run(options: &Options, environment: &Environment) -> Result<(), Failure> {
    let config = Config::load(options.config.as_deref(), environment)?;
    config.complete()?;
    let started = crate::app::serve(config, environment.clone()).await;
    started.map_err(|error| Failure::of("the service did not start", &error).hint(hint(&error)))
}

fn hint(error: &StartError) -> String {
    let hint = match error {
        StartError::Listen { .. } => "stop what listens there, or give another address under `[listen]`",
        StartError::Redis(error) => return error.remedy(),
        StartError::Store(OpenError::Incomplete { .. }) => {
            "copy into it again, to the end: `narvaro store copy` begins anew; or name the store that was copied from"
        }
        StartError::Store(_) => {
            "one process at a time; check `store.url`, the folder's rights and free space"
        }
        StartError::Incomplete(_)
        | StartError::Secret(_)
        | StartError::Key(_)
        | StartError::SameToken(..) => {
            "`narvaro check` names every place of the configuration that does not hold"
        }
        StartError::Encryption(_) => {
            "let the service's account read `encryption.keys` beside the store, or move it away: another is made"
        }
        StartError::Cloud(_) | StartError::Graph(_) => "check the keys under `[graph]`",
        StartError::Load(_) | StartError::Telemetry(_) => "see the causes above",
    };
    hint.to_owned()
}
