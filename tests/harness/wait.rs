//! Waiting for a condition with a deadline. The only place where a test pauses.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Deadline of what takes milliseconds on a quiet machine; two busy cores may take long.
pub const SOON: Duration = Duration::from_secs(30);
/// Deadline of what takes seconds on a quiet machine.
pub const LATER: Duration = Duration::from_mins(3);
/// Between two looks at a condition that cannot wake us.
const PAUSE: Duration = Duration::from_millis(2);

/// Calls `look` until it answers with a value.
///
/// # Errors
/// The deadline passed, or `look` failed; `what` says what was waited for.
pub fn until<T>(what: &str, deadline: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let end = Instant::now() + deadline;
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
