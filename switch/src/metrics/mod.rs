//! Metrics for Prometheus: every number in one table ([`declared`]), collected as plain data ([`sample`]), told as text.
//!
//! ```text
//! GET /metrics ─▶ Scraper ─▶ Control::sample() ─▶ Sample ─┬▶ families ─▶ prometheus ─▶ text 0.0.4
//!                                                  Pairs ─┘
//! ```
//!
//! Control is locked while its numbers are read, a few system calls in batches, and not while they are encoded.
//!
//! **Invariant.** A label's value is a name that the operator gave or a word of a closed list; nothing of a frame. So no guest
//! can make a series: their number is bounded by ports, reasons and [`pairs::SERIES_MAX`].
//! **Invariant.** A series never decreases, but that it begins anew at 0 when its port or the daemon does.

pub mod declared;
pub mod document;
mod families;
pub mod pairs;
pub mod process;
pub mod sample;
mod scraper;

#[cfg(test)]
mod tests;

use axum::body::Bytes;
use prometheus::{Registry, TextEncoder};

use crate::api::ControlError;
use families::Scrape;
use pairs::Pairs;

pub use prometheus::TEXT_FORMAT;
pub use sample::Sample;
pub use scraper::Scraper;

/// Why there are no metrics.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetricsError {
    /// The switch could not say.
    #[error("{0}")]
    Sample(ControlError),
    /// The table of metrics is not what the format allows: a defect.
    #[error("the metrics cannot be encoded: {0}")]
    Encode(String),
}

/// The text of a scrape. `pairs` remembers which pairs of ports are told.
///
/// # Errors
/// See [`MetricsError::Encode`].
pub fn encode(sample: Sample, pairs: &mut Pairs) -> Result<Bytes, MetricsError> {
    let refused = |error: prometheus::Error| MetricsError::Encode(error.to_string());
    pairs.look(&sample.seen.totals, &sample.ports);
    let scrape = Scrape {
        sample,
        pairs: pairs.series(),
        pairs_known: pairs.len() as u64,
        pairs_folded: pairs.folded(),
        descriptions: families::descriptions().map_err(refused)?,
    };
    // A registry of this scrape's own: it checks the names, and sorts.
    let registry = Registry::new();
    registry.register(Box::new(scrape)).map_err(refused)?;
    let mut text = String::new();
    TextEncoder::new().encode_utf8(&registry.gather(), &mut text).map_err(refused)?;
    Ok(text.into())
}
