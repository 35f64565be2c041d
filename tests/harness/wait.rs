//! Waiting for a condition with a deadline. The only place where a test pauses.
//!
//! `WEFT_TESTS_PATIENCE` multiplies every deadline, for machines that are slow as a whole, such as emulated ones.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Deadline of what takes milliseconds on a quiet machine; two busy cores may take long.
pub const SOON: Duration = Duration::from_secs(30);
/// Deadline of what takes seconds on a quiet machine.
pub const LATER: Duration = Duration::from_mins(3);
/// Between two looks at a condition that cannot wake us.
const PAUSE: Duration = Duration::from_millis(2);

/// How many times longer than usual this machine may take.
static PATIENCE: LazyLock<u32> =
    LazyLock::new(|| std::env::var("WEFT_TESTS_PATIENCE").ok().and_then(|times| times.parse().ok()).unwrap_or(1));

/// What a time that is promised of an ordinary machine is on this one.
pub fn here(time: Duration) -> Duration {
    time * *PATIENCE
}

/// The moment at which a deadline that starts now is over, on this machine.
pub fn end_of(deadline: Duration) -> Instant {
    Instant::now() + here(deadline)
}

/// Calls `look` until it answers with a value.
///
/// # Errors
/// The deadline passed, or `look` failed; `what` says what was waited for.
pub fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = end_of(deadline);
    loop {
        if let Some(value) = look()? {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("waited {deadline:?} in vain: {what}");
        }
        thread::sleep(PAUSE);
    }
}

/// Calls `look` until it is true.
pub fn until_true(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, deadline, || Ok(look()?.then_some(())))
}
