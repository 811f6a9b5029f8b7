//! To be written.

use crate::config::Config;

/// Runs the service until it is told to stop.
///
/// # Errors
/// Where it cannot start, or a part of it failed for good.
pub async fn serve(config: Config) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    drop(config);
    Err("not written yet".into())
}
