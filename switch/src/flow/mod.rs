//! Flows as the kernel counts them become conversations that a person understands.
//!
//! A *flow* is one direction of a conversation at one ingress port: an entry of the kernel's tables. Once a second somebody
//! reads these whole and hands them to [`Tracker::sweep`], with the clocks of that moment. The tracker pairs both directions,
//! keeps what was added since the last [`Conversation`] it gave out, says which entries are dead and may be deleted, and keeps
//! the sums for the metrics. Nothing here touches a file descriptor, a clock, a thread or a log.
//!
//! ```text
//! entries ─▶ Tracker ─┬▶ dead       keys to delete (read again first: `deleted` takes the last value)
//!                     ├▶ ended      conversations that ended, or went on for the active timeout: deltas
//!                     ├▶ live()     what the others would say if they ended now
//!                     └▶ totals()   sums by port pair, transport and port
//! Conversation + Names ─▶ Record ─▶ Filter
//! ```
//!
//! **Invariant.** What conversations were given out plus what is live equals what the entries counted, in frames, wire
//! frames and bytes, to the last one; whatever the order in which entries appear, grow, die and are opened anew.

pub mod community_id;
mod conversation;
mod counters;
mod facts;
pub mod filter;
mod half;
mod histogram;
mod key;
mod moment;
mod pace;
mod record;
mod tcp;
mod totals;
mod tracker;

pub use conversation::{Conversation, EndReason, Verdict};
pub use counters::Counters;
pub use facts::Facts;
pub use filter::{Filter, FilterError};
pub use histogram::Histogram;
pub use key::{FlowKey, Network, NotAKey, Ports, RawKey, Tag, Tags, Transport};
pub use moment::{Limits, Moment};
pub use pace::{Carried, Glance, Pace};
pub use record::{Direction, Labels, Named, Names, Record, TcpRecord, write_protocol};
pub use tcp::{Handshake, Health, TcpFlags};
pub use totals::{PAIRS_MAX, PairTraffic, PortHealth, Totals, Transports};
pub use tracker::{Entry, Sweep, Tracker};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod twin;
