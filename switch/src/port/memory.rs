//! The punt tap's twin in memory: what tests put in comes out of [`Medium::receive`], and what the loop hands out is kept
//! by port.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;

use switch_common::PortId;

use super::medium::{FrameBuffer, Medium, TransmitError};
use crate::frame::Offload;

/// Frames waiting to be received, and copies by the port they left by.
#[derive(Debug, Default)]
pub struct MemoryMedium {
    waiting: VecDeque<(PortId, Vec<u8>, Offload)>,
    delivered: BTreeMap<PortId, Vec<Vec<u8>>>,
    gone: BTreeSet<PortId>,
    refusing: BTreeMap<PortId, i32>,
}

impl MemoryMedium {
    /// Nothing waits, nothing was delivered.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame comes in by a port, with nothing left for a device to do.
    pub fn send(&mut self, ingress: PortId, frame: &[u8]) {
        self.send_offloaded(ingress, frame, Offload::default());
    }

    /// A frame comes in by a port, with an offload request.
    pub fn send_offloaded(&mut self, ingress: PortId, frame: &[u8], offload: Offload) {
        self.waiting.push_back((ingress, frame.to_vec(), offload));
    }

    /// Frames not received yet.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The copies that left by a port since they were last taken, in order.
    pub fn delivered(&self, egress: PortId) -> &[Vec<u8>] {
        self.delivered.get(&egress).map_or(&[], Vec::as_slice)
    }

    /// Takes the copies that left by a port.
    pub fn take(&mut self, egress: PortId) -> Vec<Vec<u8>> {
        self.delivered.remove(&egress).unwrap_or_default()
    }

    /// From now on a port is no more: copies for it are answered with [`TransmitError::Gone`].
    pub fn lose(&mut self, egress: PortId) {
        self.gone.insert(egress);
    }

    /// From now on copies for a port are answered with [`TransmitError::Refused`].
    pub fn refuse(&mut self, egress: PortId, errno: i32) {
        self.refusing.insert(egress, errno);
    }
}

impl Medium for MemoryMedium {
    fn receive(&mut self, into: &mut FrameBuffer) -> io::Result<Option<PortId>> {
        Ok(self.waiting.pop_front().map(|(ingress, frame, offload)| {
            into.fill(&frame, offload);
            ingress
        }))
    }

    fn transmit(&mut self, frame: &FrameBuffer, egress: PortId) -> Result<(), TransmitError> {
        if self.gone.contains(&egress) {
            return Err(TransmitError::Gone);
        }
        if let Some(errno) = self.refusing.get(&egress) {
            return Err(TransmitError::Refused(*errno));
        }
        self.delivered.entry(egress).or_default().push(frame.frame().to_vec());
        Ok(())
    }
}

/// Frames that come round and round, and copies that are only counted: for who measures the loop and nothing else. It does
/// not allocate.
#[derive(Debug, Default)]
pub struct Treadmill {
    frames: Vec<(PortId, Vec<u8>)>,
    next: usize,
    left: usize,
    copies: u64,
}

impl Treadmill {
    /// These frames in turn, once it is told how many.
    pub fn new(frames: Vec<(PortId, Vec<u8>)>) -> Self {
        Self { frames, ..Self::default() }
    }

    /// So many frames more come in.
    pub fn run(&mut self, frames: usize) {
        self.left += frames;
    }

    /// Copies that left by any port.
    pub fn copies(&self) -> u64 {
        self.copies
    }
}

impl Medium for Treadmill {
    fn receive(&mut self, into: &mut FrameBuffer) -> io::Result<Option<PortId>> {
        let Some((ingress, frame)) = self.frames.get(self.next).filter(|_| self.left > 0) else { return Ok(None) };
        into.fill(frame, Offload::default());
        self.left -= 1;
        self.next = (self.next + 1) % self.frames.len();
        Ok(Some(*ingress))
    }

    fn transmit(&mut self, _: &FrameBuffer, _: PortId) -> Result<(), TransmitError> {
        self.copies += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test ends where an assumption fails")]
    use super::*;

    #[test]
    fn what_goes_in_comes_out_in_order_and_copies_are_kept_by_port() {
        let (one, two) = (PortId::new(1).unwrap(), PortId::new(2).unwrap());
        let mut medium = MemoryMedium::new();
        medium.send(one, b"first");
        medium.send_offloaded(two, b"second", Offload::segment(1, 1448));
        let mut buffer = FrameBuffer::new();
        assert_eq!(medium.receive(&mut buffer).unwrap(), Some(one));
        assert_eq!((buffer.frame(), buffer.offload), (&b"first"[..], Offload::default()));
        medium.transmit(&buffer, two).unwrap();
        assert_eq!(medium.receive(&mut buffer).unwrap(), Some(two));
        assert_eq!((buffer.frame(), buffer.offload), (&b"second"[..], Offload::segment(1, 1448)));
        assert_eq!(medium.receive(&mut buffer).unwrap(), None);
        assert_eq!(medium.take(two), [b"first".to_vec()]);
        assert!(medium.delivered(one).is_empty() && medium.delivered(two).is_empty());
    }

    #[test]
    fn a_treadmill_brings_its_frames_in_turn_and_as_many_as_it_was_told() {
        let (one, two) = (PortId::new(1).unwrap(), PortId::new(2).unwrap());
        let mut medium = Treadmill::new(vec![(one, b"first".to_vec()), (two, b"second".to_vec())]);
        let mut buffer = FrameBuffer::new();
        assert_eq!(medium.receive(&mut buffer).unwrap(), None, "it was not told to run");
        medium.run(3);
        let ports: Vec<PortId> = std::iter::from_fn(|| medium.receive(&mut buffer).unwrap()).collect();
        assert_eq!(ports, [one, two, one]);
        medium.transmit(&buffer, two).unwrap();
        assert_eq!((medium.copies(), buffer.frame()), (1, &b"first"[..]));
    }

    #[test]
    fn a_lost_port_and_a_refusing_one_answer_so() {
        let (one, two) = (PortId::new(1).unwrap(), PortId::new(2).unwrap());
        let mut medium = MemoryMedium::new();
        medium.lose(one);
        medium.refuse(two, 22);
        assert_eq!(medium.transmit(&FrameBuffer::new(), one), Err(TransmitError::Gone));
        assert_eq!(medium.transmit(&FrameBuffer::new(), two), Err(TransmitError::Refused(22)));
    }
}
