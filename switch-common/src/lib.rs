//! Plain data shared by the brain (user space) and the reflex (eBPF).
//!
//! Everything here is `no_std`, has a fixed layout whose size is asserted at compile time, and knows nothing of
//! sockets, maps or clocks. Each field has **one writer**, named in its documentation: a field that a program writes
//! is never written by user space, because a map update replaces the whole element and loses what programs add
//! meanwhile.
#![no_std]
#![expect(
    clippy::inline_always,
    reason = "a call costs the reflex a stack frame and the verifier its knowledge of bounds"
)]

mod addr;
mod drops;
pub mod flow;
mod layout;
mod names;
mod reason;
mod watch;
pub mod wire;

pub use addr::{MacAddr, NotAMac, PORT_ID_MAX, PortId, VlanId};
pub use drops::*;
pub use layout::*;
pub use names::*;
pub use reason::{DropReason, Way};
pub use watch::*;
