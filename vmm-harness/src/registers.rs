//! The register window of a virtio-mmio device, version 2 (virtio 1.2, clause 4.2.2).
//!
//! Pure state: what the driver wrote, and what it reads back. What a write *means* for the device is handed back as an
//! [`Effect`]; nothing here touches memory, so no register value can do harm before the device has judged it. Accesses
//! that are not 4 bytes wide and aligned are no register accesses: they read as zero and write nothing.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;

use crate::ring::{QUEUE_SIZE_MAX, RingAddresses};

/// Offset of the register that kicks a queue.
pub const QUEUE_NOTIFY: u64 = 0x50;
/// Offset of the device's own configuration.
const CONFIG: u64 = 0x100;
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VENDOR: u32 = u32::from_le_bytes(*b"WEFT");
/// Number of queues: receive and transmit.
pub const QUEUES: usize = 2;

/// What a register write asks of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// Forget everything.
    Reset,
    /// The driver is ready.
    Start,
    /// The queue has something new.
    Kick(u32),
    /// The driver withdrew a queue.
    Withdraw(usize),
}

/// One queue as the driver describes it.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueRegisters {
    /// Where it lies.
    pub addresses: RingAddresses,
    /// Whether the driver is done describing it.
    pub ready: bool,
}

/// The registers.
#[derive(Debug)]
pub struct Registers {
    offered: u64,
    config: Vec<u8>,
    accepted: u64,
    offered_half: u32,
    accepted_half: u32,
    selected: u32,
    queues: [QueueRegisters; QUEUES],
    interrupts: u32,
    status: u32,
}

impl Registers {
    /// Registers of a device with these features and this configuration.
    pub fn new(offered: u64, config: Vec<u8>) -> Self {
        Self {
            offered: offered | 1 << VIRTIO_F_VERSION_1,
            config,
            accepted: 0,
            offered_half: 0,
            accepted_half: 0,
            selected: 0,
            queues: [QueueRegisters::default(); QUEUES],
            interrupts: 0,
            status: 0,
        }
    }

    /// The features that both sides agreed on.
    pub const fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Whether the agreement stands.
    pub const fn features_agreed(&self) -> bool {
        self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0
    }

    /// The queues as described.
    pub const fn queues(&self) -> &[QueueRegisters; QUEUES] {
        &self.queues
    }

    /// Notes that used buffers are the reason of the next interrupt.
    pub const fn raise_used(&mut self) {
        self.interrupts |= 1;
    }

    /// Tells the driver that the device has stopped.
    pub const fn break_down(&mut self) {
        self.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
        self.interrupts |= 2;
    }

    /// Answers a read.
    pub fn read(&self, offset: u64, out: &mut [u8]) {
        out.fill(0);
        if let Some(within) = offset.checked_sub(CONFIG) {
            let bytes = usize::try_from(within).ok().and_then(|within| self.config.get(within..)).unwrap_or_default();
            for (to, from) in out.iter_mut().zip(bytes) {
                *to = *from;
            }
        } else if let Ok(out) = <&mut [u8; 4]>::try_from(out) {
            *out = self.register(offset).to_le_bytes();
        }
    }

    fn register(&self, offset: u64) -> u32 {
        let queue = usize::try_from(self.selected).ok().and_then(|index| self.queues.get(index));
        match offset {
            0x000 => MAGIC,
            0x004 => 2,
            0x008 => VIRTIO_ID_NET,
            0x00c => VENDOR,
            0x010 => half(self.offered, self.offered_half),
            0x034 => queue.map_or(0, |_| u32::from(QUEUE_SIZE_MAX)),
            0x044 => queue.map_or(0, |queue| u32::from(queue.ready)),
            0x060 => self.interrupts,
            0x070 => self.status,
            // No shared memory: length and base read as all ones.
            0x0b0..=0x0bc => u32::MAX,
            _ => 0,
        }
    }

    /// Takes a write.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        let Ok(bytes) = <[u8; 4]>::try_from(data) else { return Effect::None };
        let value = u32::from_le_bytes(bytes);
        let running = self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0;
        match offset {
            0x014 => self.offered_half = value,
            0x020 if !self.features_agreed() => match self.accepted_half {
                0 => self.accepted = self.accepted & !u64::from(u32::MAX) | u64::from(value),
                1 => self.accepted = self.accepted & u64::from(u32::MAX) | u64::from(value) << 32,
                _ => {}
            },
            0x024 => self.accepted_half = value,
            0x030 => self.selected = value,
            QUEUE_NOTIFY => return Effect::Kick(value),
            0x064 => self.interrupts &= !value,
            0x070 => return self.set_status(value),
            _ => return self.describe_queue(offset, value, running),
        }
        Effect::None
    }

    fn describe_queue(&mut self, offset: u64, value: u32, running: bool) -> Effect {
        let Ok(index) = usize::try_from(self.selected) else { return Effect::None };
        let Some(queue) = self.queues.get_mut(index) else { return Effect::None };
        if offset == 0x044 {
            queue.ready = value & 1 != 0;
            return if running && !queue.ready { Effect::Withdraw(index) } else { Effect::None };
        }
        if queue.ready {
            return Effect::None;
        }
        let rings = &mut queue.addresses;
        match offset {
            0x038 => rings.size = value,
            0x080 => set_low(&mut rings.desc, value),
            0x084 => set_high(&mut rings.desc, value),
            0x090 => set_low(&mut rings.avail, value),
            0x094 => set_high(&mut rings.avail, value),
            0x0a0 => set_low(&mut rings.used, value),
            0x0a4 => set_high(&mut rings.used, value),
            _ => {}
        }
        Effect::None
    }

    fn set_status(&mut self, value: u32) -> Effect {
        if value == 0 {
            *self = Self::new(self.offered, std::mem::take(&mut self.config));
            return Effect::Reset;
        }
        let newly = value & !self.status;
        self.status |= value & 0xff;
        if newly & VIRTIO_CONFIG_S_FEATURES_OK != 0 && !self.acceptable() {
            self.status &= !VIRTIO_CONFIG_S_FEATURES_OK;
        }
        if newly & VIRTIO_CONFIG_S_DRIVER_OK != 0 { Effect::Start } else { Effect::None }
    }

    /// Nothing that was not offered, the version that was, and no feature without the one it needs (clause 5.1.3.1).
    fn acceptable(&self) -> bool {
        use virtio_bindings::virtio_net::{
            VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
        };
        let has = |bit: u32| self.accepted & 1 << bit != 0;
        let receive = !(has(VIRTIO_NET_F_GUEST_TSO4) || has(VIRTIO_NET_F_GUEST_TSO6)) || has(VIRTIO_NET_F_GUEST_CSUM);
        let transmit = !(has(VIRTIO_NET_F_HOST_TSO4) || has(VIRTIO_NET_F_HOST_TSO6)) || has(VIRTIO_NET_F_CSUM);
        self.accepted & !self.offered == 0 && has(VIRTIO_F_VERSION_1) && receive && transmit
    }
}

fn half(value: u64, which: u32) -> u32 {
    let shifted = match which {
        0 => value,
        1 => value >> 32,
        _ => 0,
    };
    u32::try_from(shifted & u64::from(u32::MAX)).expect("masked to 32 bits")
}

fn set_low(address: &mut u64, value: u32) {
    *address = *address & !u64::from(u32::MAX) | u64::from(value);
}

fn set_high(address: &mut u64, value: u32) {
    *address = *address & u64::from(u32::MAX) | u64::from(value) << 32;
}
