//! Guards that `forwarding::decide` asks: pure, one question and one answer each.
//!
//! A guard knows one port and never the tables; what it refuses has a `DropReason` of its own.

mod floods;
mod sources;

pub use floods::{FloodBuckets, FloodKind};
pub use sources::AllowedSources;
