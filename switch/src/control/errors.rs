//! From the rooms' errors to what the API answers.

use super::ControlError;
use crate::dataplane::thread::Ended;
use crate::port::PortName;
use crate::port::attach::AttachError;
use crate::reflex::ReflexError;

/// There is no port of this name.
pub(super) fn no_such_port(name: &PortName) -> ControlError {
    ControlError::NotFound(format!("there is no port '{name}'; see 'weft port list'"))
}

/// The observer's thread has ended by a defect.
pub(super) fn no_observer() -> ControlError {
    ControlError::Failed(NO_OBSERVER.to_owned())
}

/// What is said when the observer's thread has ended.
pub(super) const NO_OBSERVER: &str = "the observer has ended; see the log for why, and restart the daemon";

/// None is kept.
pub(super) fn no_history() -> ControlError {
    ControlError::Invalid("no history is kept; say enabled = true in [history], and restart the daemon".to_owned())
}

impl From<Ended> for ControlError {
    fn from(error: Ended) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ReflexError> for ControlError {
    fn from(error: ReflexError) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<AttachError> for ControlError {
    fn from(error: AttachError) -> Self {
        let text = chain(&error);
        match error {
            AttachError::NoSuchNetdev { .. } | AttachError::NoSuchNetns { .. } => Self::NotFound(text),
            AttachError::Netlink(_) | AttachError::Refused { .. } => Self::Failed(text),
            _ => Self::Invalid(text),
        }
    }
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
