//! The shared store, opened as a replica does it.

use std::sync::Arc;

use anyhow::Context;
use narvaro::{
    clock::SystemClock,
    config::{Config, Environment},
    queue::Shares,
    store::{
        Store,
        redis::{Redis, RedisSettings},
    },
};

/// Opens the Redis at `url`.
pub(crate) async fn open(
    url: &str,
    shares: Shares,
    clock: Arc<SystemClock>,
) -> anyhow::Result<Arc<dyn Store>> {
    let environment = Environment::of([("NARVARO__STORE__URL", url)]);
    let config = Config::parse("narvaro.toml", "", &environment)?;
    let link = config.store.link_settings()?.with_context(|| format!("`{url}` is no Redis"))?;
    let settings = RedisSettings {
        link,
        prefix: config.store.prefix,
        shares,
        trail_entries: config.admin.audit_entries,
    };
    Ok(Arc::new(Redis::open(&settings, clock).await?))
}
