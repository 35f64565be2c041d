//! How the loop receives a frame and hands out a copy: one trait, the punt tap and its in-memory twin.

use std::cell::Cell;
use std::io;

use switch_common::PortId;

use crate::frame::Offload;

/// The longest frame that fits: 64 KiB of super-frame, its Ethernet header and a few tags.
pub const FRAME_BYTES_MAX: usize = 65_536 + 64;

/// Where a frame came from: for mirrors, which show each frame once, wherever it is seen first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameOrigin {
    /// The port it came in by.
    pub ingress: PortId,
    /// Another copy of it was handed out just before.
    pub again: bool,
}

/// One frame on its way through the brain, and the offload request that came with it. Reused; never allocates.
#[derive(Debug)]
pub struct FrameBuffer {
    /// What the sender left for a device to do (checksum, segmentation).
    pub offload: Offload,
    /// Whether it was punted in the odd epoch.
    pub odd: bool,
    /// What the kernel half is to be told of the copies; `None`: nothing.
    pub origin: Cell<Option<FrameOrigin>>,
    bytes: Box<[u8]>,
    len: usize,
}

impl FrameBuffer {
    /// An empty buffer of [`FRAME_BYTES_MAX`].
    pub fn new() -> Self {
        Self {
            offload: Offload::default(),
            odd: false,
            origin: Cell::new(None),
            bytes: vec![0; FRAME_BYTES_MAX].into_boxed_slice(),
            len: 0,
        }
    }

    /// The frame, from its destination address on, without the punt tag.
    pub fn frame(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The whole room, to receive into; followed by [`Self::set_len`].
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Says how many bytes of the room are the frame; clipped to the room.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.bytes.len());
    }

    /// Whether the frame fills the room, so that its end may have been cut off. None that is whole does: no port takes
    /// frames of that length.
    pub fn is_full(&self) -> bool {
        self.len == self.bytes.len()
    }

    /// Replaces the frame by a copy of `frame`, clipped to the room, of the even epoch.
    pub fn fill(&mut self, frame: &[u8], offload: Offload) {
        self.offload = offload;
        self.odd = false;
        self.origin.set(None);
        self.set_len(frame.len());
        for (to, from) in self.bytes.iter_mut().zip(frame) {
            *to = *from;
        }
    }
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

/// Why a copy could not be handed out. A counted outcome, not a failure of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransmitError {
    /// The kernel refused this copy (bad offload request, no memory).
    Refused(i32),
    /// There is no such port any more.
    Gone,
}

/// Where the loop's frames come from and go to.
pub trait Medium {
    /// Receives one frame and the port it came in on; `None` when nothing waits.
    ///
    /// # Errors
    /// Only what ends the medium itself; a bad frame is never an error.
    fn receive(&mut self, into: &mut FrameBuffer) -> io::Result<Option<PortId>>;

    /// Hands one copy to an egress port.
    ///
    /// # Errors
    /// The copy was not handed out, and why.
    fn transmit(&mut self, frame: &FrameBuffer, egress: PortId) -> Result<(), TransmitError>;

    /// Whether [`Self::flood`] is there. If not, copies are handed out one by one.
    fn floods(&self) -> bool {
        false
    }

    /// Has the kernel half hand one copy to each port that floods go to ([`crate::reflex::BrainPage::set_flood_ports`]), but not to `ingress`.
    ///
    /// # Errors
    /// No copy was handed out, and why.
    fn flood(&mut self, frame: &FrameBuffer, ingress: PortId) -> Result<(), TransmitError> {
        let _ = (frame, ingress);
        Err(TransmitError::Refused(0))
    }
}
