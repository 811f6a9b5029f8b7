//! `narvaro serve`: run the service.

use super::{Failure, Options};
use crate::config::{Config, Environment};

pub(super) async fn run(options: &Options, environment: &Environment) -> Result<(), Failure> {
    let config = Config::load(options.config.as_deref(), environment)?;
    config.complete()?;
    let started = crate::app::serve(config).await;
    started.map_err(|error| {
        Failure::of("the service stopped", error.as_ref())
            .hint("run `narvaro check`; the log has the details")
    })
}
