//! Captures that explain themselves: each frame once, with where it came in, where it left, and why it did not.
//!
//! ```text
//! reflex (what it decides alone) ─▶ ring ──┐
//!                                          ├▶ Hub: one thread, sorts by time ─▶ a bounded queue per session ─▶ API ─▶ `weft capture`
//! loop (what the brain decides) ─▶ Sieve ──┘                                 └▶ Recorder: what was before somebody looked
//! ```
//!
//! **Invariants.** Nobody on a frame's way waits for who captures: what finds no room is lost and counted, per session:
//! matched = delivered + lost. A capture that cannot be audited does not start. With no session the loop asks one `Option`,
//! the reflex one bit.

pub mod account;
pub mod audit;
pub mod client;
pub(crate) mod clock;
mod fate;
pub mod hub;
pub mod output;
pub mod pcapng;
pub mod reel;
pub mod request;
pub mod ring;
mod round;
pub mod session;
pub mod sieve;
pub mod stream;
pub mod trigger;
pub mod trim;
pub mod words;
pub mod writer;

pub use request::Request;

/// A capture that goes on.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[schema(as = RunningCapture)]
pub struct Running {
    /// Its number.
    pub session: u64,
    /// Since when.
    #[schema(value_type = String)]
    pub began: jiff::Timestamp,
    /// Whose.
    pub uid: u32,
    /// By which process, when that could be told.
    pub pid: Option<i32>,
    /// What was asked for.
    pub request: Request,
}
