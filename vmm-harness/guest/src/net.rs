//! The network device as roles see it: 64 buffers, each of which is received into, free, or being sent.
//!
//! A reply leaves in the buffer that the request came in, so nothing is copied. The device is asked to interrupt for sent
//! frames only while so many are under way that too few buffers are left to receive into.
#![expect(unsafe_code, reason = "the frames' memory is shared with the device, turn by turn")]

use core::cell::UnsafeCell;

use guest_abi::GuestConfig;

use crate::cpu::{self, Woken};
use crate::virtio::{Queue, Refusal, Registers, Ring, SIZE, feature};

/// Bytes of the header that the device wants before each frame (`struct virtio_net_hdr_v1`).
pub const HEADER: usize = 12;
/// Bytes of a buffer, header included.
const BUFFER: usize = 2048;
/// The longest frame.
pub const ROOM: usize = BUFFER - HEADER;

/// A frame's memory.
pub type Frame = [u8; ROOM];

#[repr(C)]
struct Buffer {
    header: [u8; HEADER],
    frame: Frame,
}

#[repr(C, align(64))]
struct Buffers(UnsafeCell<[Buffer; SIZE as usize]>);

// SAFETY: there is one processor and one `Net`, which hands out one buffer at a time.
unsafe impl Sync for Buffers {}

static BUFFERS: Buffers =
    Buffers(UnsafeCell::new([const { Buffer { header: [0; HEADER], frame: [0; ROOM] } }; SIZE as usize]));
static RECEIVE: Ring = Ring::new();
static TRANSMIT: Ring = Ring::new();

/// The device, running.
pub struct Net {
    device: Registers,
    receive: Queue,
    transmit: Queue,
    /// Buffers that neither ring has: the first `spares` of them.
    free: [u16; SIZE as usize],
    spares: usize,
    /// How many buffers are for receiving.
    share: u16,
    /// Frames handed to the device, and those of them that it says it could not send.
    pub sent: u32,
    /// See [`Self::sent`].
    pub refused: u32,
}

impl Net {
    /// Starts the device with `share` of the buffers to receive into.
    pub fn start(config: &GuestConfig, features: u64, share: u16) -> Result<Self, Refusal> {
        let device = Registers::negotiate(config.mmio_base, feature::VERSION_1 | feature::MAC | features)?;
        let memory = (BUFFERS.0.get().expose_provenance() as u64, BUFFER as u32);
        let receive = Queue::new(&RECEIVE, device, 0, memory, true)?;
        let transmit = Queue::new(&TRANSMIT, device, 1, memory, false)?;
        let free = [0; SIZE as usize];
        let mut net = Self { device, receive, transmit, free, spares: 0, share, sent: 0, refused: 0 };
        (0..SIZE).for_each(|buffer| net.put_back(buffer));
        net.transmit.interrupts(false);
        device.begin();
        net.receive.publish();
        Ok(net)
    }

    /// Gives every frame that has arrived to `handle`, which may turn it into a reply and then answers with its length.
    pub fn turn(&mut self, mut handle: impl FnMut(&mut Frame, usize) -> Option<usize>) {
        self.reclaim();
        while let Some((buffer, bytes)) = self.receive.take() {
            let Some(room) = Self::memory(buffer) else { continue };
            let length = (bytes as usize).saturating_sub(HEADER).min(ROOM);
            if let Some(reply) = handle(&mut room.frame, length) {
                room.header = [0; HEADER];
                self.send(buffer, reply);
            } else {
                self.receive.offer(buffer);
            }
        }
        self.transmit.publish();
        self.receive.publish();
    }

    /// Writes a frame into a free buffer and sends it with the next [`Self::turn`]; `false` when there is none.
    pub fn send_new(&mut self, write: impl FnOnce(&mut [u8; HEADER], &mut Frame) -> usize) -> bool {
        let Some(spares) = self.spares.checked_sub(1) else { return false };
        let Some(&buffer) = self.free.get(spares) else { return false };
        let Some(room) = Self::memory(buffer) else { return false };
        room.header = [0; HEADER];
        let length = write(&mut room.header, &mut room.frame);
        self.spares = spares;
        self.send(buffer, length);
        true
    }

    /// Sleeps until the device has something for us, or the alarm rings.
    pub fn wait(&mut self) -> Woken {
        if self.transmit.outstanding() > SIZE / 2 {
            return self.wait_sent();
        }
        self.sleep()
    }

    /// The same, and frames that were sent are something for us, too.
    pub fn wait_sent(&mut self) -> Woken {
        self.transmit.interrupts(true);
        // What was sent before the device knew that we want to hear of it will not interrupt.
        let woken = if self.reclaim() { Woken::ByDevice } else { self.sleep() };
        self.transmit.interrupts(false);
        woken
    }

    fn sleep(&mut self) -> Woken {
        let woken = cpu::sleep();
        if woken == Woken::ByDevice {
            self.device.acknowledge();
        }
        woken
    }

    /// Whether frames are still on their way to the device.
    pub fn sending(&self) -> bool {
        self.transmit.outstanding() > 0
    }

    /// Takes back what was sent; whether there was anything.
    pub fn reclaim(&mut self) -> bool {
        let mut any = false;
        while let Some((buffer, error)) = self.transmit.take() {
            self.refused += u32::from(error != 0);
            self.put_back(buffer);
            any = true;
        }
        any
    }

    fn send(&mut self, buffer: u16, length: usize) {
        self.sent += 1;
        self.transmit.offer_bytes(buffer, (length.min(ROOM) + HEADER) as u32);
    }

    /// A buffer that nobody has: to receive into while there are too few of those.
    fn put_back(&mut self, buffer: u16) {
        if self.receive.outstanding() < self.share {
            self.receive.offer(buffer);
        } else if let Some(slot) = self.free.get_mut(self.spares) {
            *slot = buffer;
            self.spares += 1;
        }
    }

    /// The memory of a buffer that the device does not have.
    fn memory(buffer: u16) -> Option<&'static mut Buffer> {
        // SAFETY: the device gave the buffer back, and callers drop the reference before they offer it again.
        let buffers = unsafe { BUFFERS.0.get().as_mut() };
        buffers?.get_mut(usize::from(buffer))
    }
}
