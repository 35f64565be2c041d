//! A virtio 1.x device behind memory-mapped registers (virtio 1.2, 4.2), and its split rings (2.7).
//!
//! Descriptor `i` of either ring is for buffer `i` and nothing else, so a descriptor is written once and a buffer's way
//! through both rings is a number. One batch is one look at the used index and at most one notification.
#![expect(unsafe_code, reason = "device registers are addresses")]

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};

/// Descriptors of a ring, and buffers there are.
pub const SIZE: u16 = 64;
const SLOTS: usize = SIZE as usize;

/// The frames' features that the device may offer (5.1.3).
pub mod feature {
    /// The driver may send frames whose checksum is not there yet.
    pub const CSUM: u64 = 1 << 0;
    /// The driver may send TCP super-frames over IPv4 and IPv6.
    pub const HOST_TSO: u64 = 1 << 11 | 1 << 12;
    /// The device says its address.
    pub const MAC: u64 = 1 << 5;
    /// Not a legacy device.
    pub const VERSION_1: u64 = 1 << 32;
}

/// What a device of this kind is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The magic value, version or kind is another.
    NoNetworkDevice,
    /// It refuses [`feature::VERSION_1`], which we cannot do without.
    Features,
    /// One of its queues is smaller than [`SIZE`].
    QueueTooSmall,
}

const MAGIC: usize = 0x000;
const VERSION: usize = 0x004;
const DEVICE_ID: usize = 0x008;
const DEVICE_FEATURES: usize = 0x010;
const DEVICE_FEATURES_SEL: usize = 0x014;
const DRIVER_FEATURES: usize = 0x020;
const DRIVER_FEATURES_SEL: usize = 0x024;
const QUEUE_SEL: usize = 0x030;
const QUEUE_NUM_MAX: usize = 0x034;
const QUEUE_NUM: usize = 0x038;
const QUEUE_READY: usize = 0x044;
const QUEUE_NOTIFY: usize = 0x050;
const INTERRUPT_ACK: usize = 0x064;
const STATUS: usize = 0x070;
const QUEUE_DESC: usize = 0x080;
const QUEUE_DRIVER: usize = 0x090;
const QUEUE_DEVICE: usize = 0x0a0;

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;

/// The device's registers.
#[derive(Clone, Copy, Debug)]
pub struct Registers(usize);

impl Registers {
    /// Resets the device at this address and agrees on features: of those `wanted`, what it offers.
    pub fn negotiate(base: u64, wanted: u64) -> Result<Self, Refusal> {
        let device = Self(base as usize);
        let kind = [device.read(MAGIC), device.read(VERSION), device.read(DEVICE_ID)];
        if kind != [u32::from_le_bytes(*b"virt"), 2, 1] {
            return Err(Refusal::NoNetworkDevice);
        }
        device.write(STATUS, 0);
        device.write(STATUS, ACKNOWLEDGE | DRIVER);
        let mut agreed = 0;
        for half in 0..2 {
            device.write(DEVICE_FEATURES_SEL, half);
            agreed |= (u64::from(device.read(DEVICE_FEATURES)) << (32 * half)) & wanted;
        }
        for half in 0..2 {
            device.write(DRIVER_FEATURES_SEL, half);
            device.write(DRIVER_FEATURES, (agreed >> (32 * half)) as u32);
        }
        device.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK);
        let taken = device.read(STATUS) & FEATURES_OK != 0;
        if taken && agreed & feature::VERSION_1 != 0 { Ok(device) } else { Err(Refusal::Features) }
    }

    /// Tells the device where a ring is.
    pub fn offer(self, number: u32, ring: &'static Ring) -> Result<(), Refusal> {
        self.write(QUEUE_SEL, number);
        if self.read(QUEUE_NUM_MAX) < SIZE.into() {
            return Err(Refusal::QueueTooSmall);
        }
        self.write(QUEUE_NUM, SIZE.into());
        let places = [
            (QUEUE_DESC, (&raw const ring.descriptors).addr()),
            (QUEUE_DRIVER, (&raw const ring.available).addr()),
            (QUEUE_DEVICE, (&raw const ring.used).addr()),
        ];
        for (register, address) in places {
            self.write(register, address as u32);
            self.write(register + 4, (address as u64 >> 32) as u32);
        }
        self.write(QUEUE_READY, 1);
        Ok(())
    }

    /// The device may begin.
    pub fn begin(self) {
        self.write(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// There is something new in this queue.
    pub fn notify(self, number: u32) {
        self.write(QUEUE_NOTIFY, number);
    }

    /// The interrupt has been seen. Which kind it was is not asked: that would be another exit, and the rings say it.
    pub fn acknowledge(self) {
        self.write(INTERRUPT_ACK, 3);
    }

    fn read(self, register: usize) -> u32 {
        let register = core::ptr::with_exposed_provenance::<u32>(self.0 + register);
        // SAFETY: the monitor says that a device's registers are here; they are 32 bits wide, and are not memory.
        unsafe { register.read_volatile() }
    }

    fn write(self, register: usize, value: u32) {
        let register = core::ptr::with_exposed_provenance_mut::<u32>(self.0 + register);
        // SAFETY: as for `read`.
        unsafe { register.write_volatile(value) };
    }
}

/// A descriptor that is never chained.
#[repr(C)]
struct Descriptor {
    address: AtomicU64,
    bytes: AtomicU32,
    flags: AtomicU16,
    next: AtomicU16,
}

/// What the driver offers.
#[repr(C)]
struct Available {
    flags: AtomicU16,
    index: AtomicU16,
    entries: [AtomicU16; SLOTS],
}

/// What the device is done with.
#[repr(C, align(4))]
struct Used {
    flags: AtomicU16,
    index: AtomicU16,
    entries: [[AtomicU32; 2]; SLOTS],
}

/// The memory of a ring, shared with the device.
#[repr(C, align(16))]
pub struct Ring {
    descriptors: [Descriptor; SLOTS],
    available: Available,
    used: Used,
}

impl Ring {
    /// An empty ring.
    pub const fn new() -> Self {
        const fn zero() -> AtomicU16 {
            AtomicU16::new(0)
        }
        Self {
            descriptors: [const {
                Descriptor { address: AtomicU64::new(0), bytes: AtomicU32::new(0), flags: zero(), next: zero() }
            }; SLOTS],
            available: Available { flags: zero(), index: zero(), entries: [const { zero() }; SLOTS] },
            used: Used { flags: zero(), index: zero(), entries: [const { [const { AtomicU32::new(0) }; 2] }; SLOTS] },
        }
    }
}

/// Our end of a ring.
pub struct Queue {
    ring: &'static Ring,
    device: Registers,
    number: u32,
    /// What we offered, and what of it the device knows.
    offered: u16,
    published: u16,
    /// What we took back.
    taken: u16,
}

impl Queue {
    /// Our end of queue `number` of the device, whose buffers begin at `address` and are `bytes` apart.
    pub fn new(
        ring: &'static Ring,
        device: Registers,
        number: u32,
        (address, bytes): (u64, u32),
        writable: bool,
    ) -> Result<Self, Refusal> {
        for (descriptor, buffer) in ring.descriptors.iter().zip(0_u64..) {
            descriptor.address.store(address + buffer * u64::from(bytes), Ordering::Relaxed);
            descriptor.bytes.store(bytes, Ordering::Relaxed);
            descriptor.flags.store(u16::from(writable) * 2, Ordering::Relaxed);
        }
        device.offer(number, ring)?;
        Ok(Self { ring, device, number, offered: 0, published: 0, taken: 0 })
    }

    /// Buffers that the device has.
    pub fn outstanding(&self) -> u16 {
        self.offered.wrapping_sub(self.taken)
    }

    /// Offers a buffer; the device sees it with [`Self::publish`].
    pub fn offer(&mut self, buffer: u16) {
        if let Some(entry) = self.ring.available.entries.get(usize::from(self.offered % SIZE)) {
            entry.store(buffer, Ordering::Relaxed);
            self.offered = self.offered.wrapping_add(1);
        }
    }

    /// The same for a part of a buffer, from its begin.
    pub fn offer_bytes(&mut self, buffer: u16, bytes: u32) {
        if let Some(descriptor) = self.ring.descriptors.get(usize::from(buffer)) {
            descriptor.bytes.store(bytes, Ordering::Relaxed);
            self.offer(buffer);
        }
    }

    /// Shows the device what was offered, and wakes it unless it says that it looks by itself.
    pub fn publish(&mut self) {
        if self.published == self.offered {
            return;
        }
        self.published = self.offered;
        self.ring.available.index.store(self.offered, Ordering::Release);
        fence(Ordering::SeqCst);
        if self.ring.used.flags.load(Ordering::Relaxed) & 1 == 0 {
            self.device.notify(self.number);
        }
    }

    /// A buffer that the device is done with, and what it says about its length.
    pub fn take(&mut self) -> Option<(u16, u32)> {
        if self.ring.used.index.load(Ordering::Acquire) == self.taken {
            return None;
        }
        let [id, length] = self.ring.used.entries.get(usize::from(self.taken % SIZE))?;
        self.taken = self.taken.wrapping_add(1);
        Some(((id.load(Ordering::Relaxed) as u16) % SIZE, length.load(Ordering::Relaxed)))
    }

    /// Whether the device is to interrupt when it is done with a buffer. When this changes, look once more.
    pub fn interrupts(&mut self, wanted: bool) {
        self.ring.available.flags.store(u16::from(!wanted), Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }
}
