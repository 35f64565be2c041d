//! Who is who: what frames of DNS, DHCP, ARP and neighbour discovery tell, kept and compared.
//!
//! ```text
//! a frame's first bytes ─▶ packet ─┬▶ arp, nd ──────────────▶ claims ─▶ bindings ─▶ events
//!                                  ├▶ dhcp ─▶ leases ───────▶ claims ─┘
//!                                  └▶ dns ──▶ queries ─▶ names of addresses, events, sums
//! the loop's sightings ─▶ stations ─▶ events
//! the observer's sums ──▶ dormancy ─▶ events
//! ```
//!
//! No descriptor, clock, thread or log: time is passed in, events are handed back. All of it is what guests *say*. A guest may claim
//! any address; that it did, at which port and when, is what is kept here.
//!
//! **Bounds.** Every table is a [`shelf`]: so much in all, so much per port, and who has most gives way. Nothing is kept of a frame
//! but addresses, names (printable ASCII, [`text`]) and times. **Limit.** Only the first [`switch_common::HEARD_BYTES_MAX`] bytes are
//! seen, so a long answer's last addresses are not.

mod bindings;
mod dhcp;
mod dns;
mod dormancy;
mod leases;
mod neighbours;
mod packet;
mod queries;
mod register;
mod saved;
mod shelf;
mod stations;
mod text;
mod who;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use bindings::{Claim, Source};
pub use dns::{Message, Question, Rcode};
pub use dormancy::PortSeen;
pub use packet::{Saying, Told, tell};
pub use queries::{DnsCounts, PortDns};
pub use register::{Limits, Register};
pub use saved::Saved;
pub use who::{Holder, NoSubject, Subject};

/// A port's name; history outlives ports and their numbers.
pub type Port = Arc<str>;
