//! The network device: frames between the guest's queues and a [`Port`].
//!
//! Queue 0 receives, queue 1 transmits. Everything read from the guest is a claim: [`Ring`] checks rings and chains, this
//! file checks lengths. A broken rule is a [`Fault`], which ends the guest; a frame that the *host's kernel* refuses (a
//! header that lies about the frame, a runt) is counted and the guest goes on, as on any monitor.
//!
//! What a hostile guest could try: to hold the monitor in one call (work is done in portions), to make it allocate (a
//! frame is copied into one buffer of fixed capacity), to kick forever (kicks without anything new are counted).

use std::io;

use virtio_bindings::virtio_net as net;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::ending::Fault;
use crate::port::{FRAME_BYTES_MAX, HEADER_BYTES, Port};
use crate::registers::{Effect, QUEUES, Registers};
use crate::ring::{Chain, Direction, Memory, Ring};

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
/// What a guest is told of a frame that the kernel refused.
const EINVAL: u32 = libc::EINVAL.unsigned_abs();
/// Frames moved in one portion.
const PORTION: usize = 256;
/// Kicks in a row with nothing new before the guest is ended.
const IDLE_KICKS_MAX: u64 = 10_000;

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that the port took.
    pub tx_frames: u64,
    /// Frames that the kernel refused with EINVAL.
    pub tx_refused: u64,
    /// Frames that the kernel refused for another reason (an interface that is down).
    pub tx_failed: u64,
    /// Frames handed to the guest.
    pub rx_frames: u64,
    /// Frames for which the guest's buffers were too small.
    pub rx_dropped: u64,
}

/// What is left to do after a portion of work.
#[expect(clippy::struct_excessive_bools, reason = "four facts that do not exclude each other")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// The driver wants an interrupt.
    pub interrupt: bool,
    /// There is more to do at once.
    pub more: bool,
    /// Call again when the port has a frame.
    pub awaits_frame: bool,
    /// Call again when the port takes frames.
    pub awaits_room: bool,
}

/// What a register write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// Nothing that concerns others.
    Nothing,
    /// The driver is ready, or gone: look again what to wait for.
    Changed,
    /// A queue was kicked.
    Kicked(u16),
}

#[derive(Debug, Default)]
struct KickCount {
    seen: Option<u16>,
    idle: u64,
}

/// The device.
#[derive(Debug)]
pub struct NetDevice<P> {
    registers: Registers,
    memory: Memory,
    port: P,
    rings: [Option<Ring>; QUEUES],
    kicks: [KickCount; QUEUES],
    started: bool,
    features: u64,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Length of the frame in `incoming` that waits for buffers.
    pending: Option<usize>,
    stats: Stats,
}

/// The features that a device with or without offloads offers.
fn offered(offloads: bool) -> u64 {
    let always = [
        net::VIRTIO_NET_F_MAC,
        net::VIRTIO_NET_F_MTU,
        net::VIRTIO_NET_F_STATUS,
        net::VIRTIO_NET_F_MRG_RXBUF,
        VIRTIO_RING_F_EVENT_IDX,
        VIRTIO_RING_F_INDIRECT_DESC,
    ];
    let offloading = [
        net::VIRTIO_NET_F_CSUM,
        net::VIRTIO_NET_F_GUEST_CSUM,
        net::VIRTIO_NET_F_HOST_TSO4,
        net::VIRTIO_NET_F_HOST_TSO6,
        net::VIRTIO_NET_F_GUEST_TSO4,
        net::VIRTIO_NET_F_GUEST_TSO6,
    ];
    always.iter().chain(offloading.iter().filter(|_| offloads)).fold(0, |all, bit| all | 1 << bit)
}

impl<P: Port> NetDevice<P> {
    /// A device with this address and MTU.
    pub fn new(memory: Memory, port: P, mac: [u8; 6], mtu: u16) -> Self {
        let link_up = u16::try_from(net::VIRTIO_NET_S_LINK_UP).expect("one bit");
        let mut config = mac.to_vec();
        for field in [link_up, 1, mtu] {
            config.extend(field.to_le_bytes());
        }
        Self {
            registers: Registers::new(offered(port.has_offloads()), config),
            memory,
            port,
            rings: [None, None],
            kicks: Default::default(),
            started: false,
            features: 0,
            outgoing: Vec::with_capacity(FRAME_BYTES_MAX),
            incoming: vec![0; FRAME_BYTES_MAX],
            pending: None,
            stats: Stats::default(),
        }
    }

    /// Whether a driver has taken the device.
    pub const fn is_started(&self) -> bool {
        self.started
    }

    /// What was counted so far.
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// The port.
    pub const fn port(&mut self) -> &mut P {
        &mut self.port
    }

    /// Answers a read of the register window.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        self.registers.read(offset, out);
    }

    /// Takes a write to the register window.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<Wrote, Fault> {
        match self.registers.write(offset, data) {
            Effect::None => Ok(Wrote::Nothing),
            Effect::Reset => {
                self.stop();
                Ok(Wrote::Changed)
            }
            Effect::Start => self.start().map(|()| Wrote::Changed),
            Effect::Withdraw(queue) => {
                if let Some(ring) = self.rings.get_mut(queue) {
                    *ring = None;
                }
                Ok(Wrote::Changed)
            }
            Effect::Kick(queue) => Ok(u16::try_from(queue).map_or(Wrote::Nothing, Wrote::Kicked)),
        }
    }

    fn stop(&mut self) {
        self.rings = [None, None];
        self.kicks = Default::default();
        self.started = false;
        self.features = 0;
        self.pending = None;
    }

    fn start(&mut self) -> Result<(), Fault> {
        if !self.registers.features_agreed() {
            return Err(Fault::Premature("FEATURES_OK"));
        }
        self.features = self.registers.accepted();
        let event_idx = self.has(VIRTIO_RING_F_EVENT_IDX);
        let directions = [(RECEIVE, Direction::ToGuest), (TRANSMIT, Direction::FromGuest)];
        for (((index, direction), described), ring) in
            directions.into_iter().zip(self.registers.queues()).zip(&mut self.rings)
        {
            if !described.ready {
                return Err(Fault::Premature("both queues were ready"));
            }
            *ring = Some(Ring::new(&self.memory, index, direction, described.addresses, event_idx)?);
        }
        self.started = true;
        // A kernel that does not know an offload hands over finished frames, which every driver takes.
        self.port.set_offloads(self.features).or_else(|_unknown| self.port.set_offloads(0)).unwrap_or_default();
        Ok(())
    }

    const fn has(&self, bit: u32) -> bool {
        self.features & 1 << bit != 0
    }

    /// Counts `kicks` of a queue; too many in a row without anything new are a fault.
    pub fn kicked(&mut self, queue: u16, kicks: u64) -> Result<(), Fault> {
        let index = usize::from(queue);
        let (Some(ring), Some(count)) = (self.rings.get(index), self.kicks.get_mut(index)) else { return Ok(()) };
        let now = ring.as_ref().map(|ring| ring.available(&self.memory)).transpose()?;
        count.idle = if now.is_some() && now != count.seen { 0 } else { count.idle.saturating_add(kicks) };
        count.seen = now;
        if count.idle > IDLE_KICKS_MAX { Err(Fault::IdleKicks { queue, kicks: count.idle }) } else { Ok(()) }
    }

    /// Moves a portion of frames both ways.
    pub fn work(&mut self) -> Result<Work, Fault> {
        let mut work = Work::default();
        self.transmit(&mut work)?;
        self.receive(&mut work)?;
        if work.interrupt {
            self.registers.raise_used();
        }
        Ok(work)
    }

    fn transmit(&mut self, work: &mut Work) -> Result<(), Fault> {
        let [_, Some(ring)] = &mut self.rings else { return Ok(()) };
        ring.ignore_kicks(&self.memory)?;
        work.more = true;
        for _ in 0..PORTION {
            let Some(chain) = ring.take(&self.memory)? else {
                if ring.listen(&self.memory)? {
                    continue;
                }
                work.more = false;
                break;
            };
            copy_out(&chain, &self.memory, &mut self.outgoing)?;
            // A driver ignores the length of what it sent, so a refusal is told there; a hostile guest reports it.
            let mut refusal = 0;
            match self.port.send(&self.outgoing) {
                Ok(()) => self.stats.tx_frames += 1,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ring.put_back(1);
                    work.more = false;
                    work.awaits_room = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    self.stats.tx_refused += 1;
                    refusal = EINVAL;
                }
                Err(_) => self.stats.tx_failed += 1,
            }
            ring.publish(&self.memory, &[(chain.head, refusal)])?;
        }
        work.interrupt |= ring.wants_interrupt(&self.memory)?;
        Ok(())
    }

    fn receive(&mut self, work: &mut Work) -> Result<(), Fault> {
        let merge = self.has(net::VIRTIO_NET_F_MRG_RXBUF);
        let [Some(ring), _] = &mut self.rings else { return Ok(()) };
        let mut portion = PORTION;
        while portion > 0 {
            portion -= 1;
            let Some(first) = ring.take(&self.memory)? else {
                if ring.listen(&self.memory)? {
                    continue;
                }
                break;
            };
            ring.put_back(1);
            drop(first);
            let bytes = match self.pending.take() {
                Some(bytes) => bytes,
                None => match self.port.receive(&mut self.incoming) {
                    Ok(bytes) if bytes >= HEADER_BYTES => bytes,
                    Ok(_) => continue,
                    Err(_) => {
                        work.awaits_frame = true;
                        break;
                    }
                },
            };
            let frame = self.incoming.get_mut(..bytes).unwrap_or_default();
            match deliver(ring, &self.memory, frame, merge)? {
                Delivery::Done => self.stats.rx_frames += 1,
                Delivery::Never => self.stats.rx_dropped += 1,
                Delivery::Later => {
                    self.pending = Some(bytes);
                    break;
                }
            }
        }
        work.more |= portion == 0;
        work.interrupt |= ring.wants_interrupt(&self.memory)?;
        Ok(())
    }
}

/// Copies a chain, header and frame, into `frame`.
fn copy_out(chain: &Chain, memory: &Memory, frame: &mut Vec<u8>) -> Result<(), Fault> {
    let bytes = usize::try_from(chain.bytes).unwrap_or(usize::MAX);
    if bytes > FRAME_BYTES_MAX {
        return Err(Fault::TooLong(chain.bytes));
    }
    if bytes < HEADER_BYTES {
        return Err(Fault::NoHeader { queue: TRANSMIT, bytes: chain.bytes });
    }
    frame.clear();
    chain.read_into(memory, frame).map_err(|_out_of_memory| Fault::Buffer(TRANSMIT))
}

enum Delivery {
    Done,
    Later,
    Never,
}

/// Copies a frame behind its header into as many chains as it needs.
fn deliver(ring: &mut Ring, memory: &Memory, frame: &mut [u8], merge: bool) -> Result<Delivery, Fault> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut room = 0;
    while room < frame.len() {
        if !merge && !chains.is_empty() {
            ring.put_back(1);
            return Ok(Delivery::Never);
        }
        let Some(chain) = ring.take(memory)? else {
            if ring.listen(memory)? {
                continue;
            }
            let taken = u16::try_from(chains.len()).unwrap_or(u16::MAX);
            ring.put_back(taken);
            return Ok(if taken >= ring.size() { Delivery::Never } else { Delivery::Later });
        };
        let bytes = usize::try_from(chain.bytes).unwrap_or(usize::MAX);
        if bytes == 0 || chains.is_empty() && bytes < HEADER_BYTES {
            return Err(Fault::NoHeader { queue: RECEIVE, bytes: chain.bytes });
        }
        room = room.saturating_add(bytes);
        chains.push(chain);
    }
    let count = u16::try_from(chains.len()).unwrap_or(u16::MAX);
    if let Some(field) = frame.get_mut(10..HEADER_BYTES) {
        field.copy_from_slice(&count.to_le_bytes());
    }
    let mut rest = &*frame;
    let mut done = Vec::with_capacity(chains.len());
    for chain in &chains {
        let bytes = chain.write(memory, rest).map_err(|_out_of_memory| Fault::Buffer(RECEIVE))?;
        rest = rest.get(bytes..).unwrap_or_default();
        done.push((chain.head, u32::try_from(bytes).unwrap_or(u32::MAX)));
    }
    ring.publish(memory, &done)?;
    Ok(Delivery::Done)
}
