//! What a session that looks on wants: whose frames, which of them, and what becomes of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use switch_common::{PortId, SESSION_CAPTURE, SESSION_MIRROR, Session};

use crate::filter::Program;

/// Whose frames a session wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ports {
    /// Nobody's.
    #[default]
    None,
    /// Everybody's, those of ports that are yet to come among them.
    All,
    /// Some ports'.
    These(BTreeSet<PortId>),
}

impl Ports {
    pub(super) fn has(&self, id: usize) -> bool {
        match self {
            Self::None => false,
            Self::All => id != 0,
            Self::These(ids) => ids.iter().any(|port| port.index() == id),
        }
    }
}

/// What becomes of a session's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Copies go to a netdev.
    Mirror {
        /// Its interface index.
        target: u32,
    },
    /// Copies go into the ring of captures.
    Capture,
}

/// What a session wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What becomes of its frames.
    pub kind: Kind,
    /// Which frames; `None`: all.
    pub filter: Option<Arc<Program>>,
    /// Ports whose frames are wanted when they come in, whatever becomes of them.
    pub ingress: Ports,
    /// Ports whose frames are wanted when they go out.
    pub egress: Ports,
    /// Ports whose drops are wanted, on either side, the kernel's among them. Not for mirrors.
    pub dropped: Ports,
    /// Of dropped frames: those whose [`switch_common::DropReason`] has its bit here.
    pub reasons: u32,
    /// Of frames that the kernel dropped: those whose reason's number has its bit here.
    pub kernel_reasons: [u64; 4],
    /// Bytes wanted of a frame; for a mirror 0: all.
    pub bytes_max: u32,
}

impl Wish {
    /// All frames of all ports, whole.
    pub fn all(kind: Kind) -> Self {
        Self {
            kind,
            filter: None,
            ingress: Ports::All,
            egress: Ports::All,
            dropped: Ports::None,
            reasons: u32::MAX,
            kernel_reasons: [u64::MAX; 4],
            bytes_max: if kind == Kind::Capture { u32::MAX } else { 0 },
        }
    }

    pub(super) fn session(&self) -> Session {
        let (kind, target_ifindex) = match self.kind {
            Kind::Mirror { target } => (SESSION_MIRROR, target),
            Kind::Capture => (SESSION_CAPTURE, 0),
        };
        let Self { bytes_max, reasons, kernel_reasons, .. } = *self;
        Session { kind, target_ifindex, bytes_max, reasons, kernel_reasons }
    }

    pub(super) fn is_mirror(&self) -> bool {
        matches!(self.kind, Kind::Mirror { .. })
    }
}
