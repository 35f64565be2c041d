//! Who asks, when, and at what cost: a scrape is made for those who wait for one, however many they are.
//!
//! One scrape is made at a time. Who asked before it began shares its answer, so every answer is younger than its question.
//! The next one begins only after nine times the processor time that the last one took: a thousand scrapers, or one that
//! never stops, cost a tenth of one processor, and no memory but one text.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use super::pairs::Pairs;
use super::{MetricsError, encode};
use crate::api::{Control, ControlError};

/// How much longer than a scrape's own processor time the next one lets wait.
const REST: u32 = 9;
/// The longest wait.
const REST_MAX: Duration = Duration::from_secs(2);

/// Makes scrapes. A cheap clone of the way to it.
#[derive(Clone)]
pub struct Scraper<C> {
    control: C,
    last: Arc<Mutex<Last>>,
}

#[derive(Default)]
struct Last {
    /// When it began, and what it told.
    told: Option<(Instant, Result<Bytes, MetricsError>)>,
    next: Option<Instant>,
    pairs: Pairs,
}

impl<C: Control> Scraper<C> {
    /// Of this switch.
    pub fn new(control: C) -> Self {
        Self { control, last: Arc::default() }
    }

    /// The text of a scrape that begins after this call.
    ///
    /// # Errors
    /// The kernel half could not be read.
    pub async fn scrape(&self) -> Result<Bytes, MetricsError> {
        let asked = Instant::now();
        let mut last = Arc::clone(&self.last).lock_owned().await;
        if let Some((began, told)) = &last.told
            && *began >= asked
        {
            return told.clone();
        }
        let control = self.control.clone();
        // A task of its own: if who asked goes away, it ends nevertheless, and nobody begins another one meanwhile.
        let made = tokio::spawn(async move {
            if let Some(next) = last.next {
                sleep_until(next).await;
            }
            let began = Instant::now();
            let sampled = control.sample().await;
            let made = spawn_blocking(move || {
                let start = cpu();
                let told = sampled.map_err(MetricsError::Sample).and_then(|sample| encode(sample, &mut last.pairs));
                let rest = cpu().saturating_sub(start).saturating_mul(REST).min(REST_MAX);
                last.next = Some(Instant::now() + rest);
                last.told = Some((began, told.clone()));
                told
            });
            made.await
        });
        match made.await {
            Ok(Ok(told)) => told,
            Ok(Err(error)) | Err(error) => Err(MetricsError::Sample(ControlError::Failed(error.to_string()))),
        }
    }
}

/// Processor time of this thread.
pub(super) fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
