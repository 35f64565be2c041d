//! Ports: where a guest, a container, the host or the outside attaches to the switch.
//!
//! **Ingress and egress are always the switch's view**: what a guest transmits is our ingress.
//!
//! [`spec`] is what the operator asked for; [`attach`] makes it so on the host and takes it back; [`monitor`] says what
//! the kernel does to our netdevs; [`medium`] is how the loop receives and hands out frames, with the punt tap
//! ([`punt_tap`]) and its in-memory twin ([`memory`]).

pub mod attach;
pub mod link;
pub mod medium;
pub mod memory;
pub mod monitor;
pub mod netlink;
mod netns;
pub mod punt_tap;
pub mod refusal;
pub mod restore;
pub mod spec;
mod sys;
#[cfg(test)]
mod tests;
mod veth;

pub use attach::{AttachError, Attached, Host};
pub use link::{LinkFacts, LinkStats};
pub use medium::{FrameBuffer, FrameOrigin, Medium, TransmitError};
pub use monitor::LinkEvent;
pub use punt_tap::PuntTap;
pub use restore::Restore;
pub use spec::{Attachment, IfName, Origin, PortName, PortSpec, PortState, Role};
pub use switch_common::PortId;
