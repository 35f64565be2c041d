//! SIGHUP: the file is read again; what is wrong with it is said, and the old configuration stays.

use crate::api::Control as _;
use crate::api::schema::{Applied, Intent};
use crate::config::{Config, Runtime};
use crate::control::Handle;

/// Reads the file again and applies its ports and mirrors.
pub(super) async fn reload(runtime: &Runtime, handle: &Handle) {
    let Some(path) = &runtime.config_path else {
        tracing::warn!("SIGHUP: there is no configuration file to read again; start with -c FILE");
        return;
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "the configuration cannot be read; the old one stays");
            return;
        }
    };
    let config = match Config::parse(path, &text) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!(%error, "the configuration is wrong; the old one stays");
            return;
        }
    };
    match handle.apply(Intent { ports: config.ports, mirrors: config.mirrors }, false, false).await {
        Ok(Applied { ports: diff, .. }) => tracing::info!(
            added = diff.add.len(),
            changed = diff.change.len(),
            removed = diff.remove.len(),
            "configuration read again"
        ),
        Err(error) => {
            tracing::error!(%error, "the configuration could not be applied; the old one stays");
        }
    }
}
