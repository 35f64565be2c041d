//! A driver without a guest: rings written by hand into a fake memory, and a port in memory.

use std::collections::VecDeque;
use std::io;

use vm_memory::{Bytes, GuestAddress};
use vmm_harness::Fault;
use vmm_harness::device::{NetDevice, Work, Wrote};
use vmm_harness::port::Port;
use vmm_harness::ring::Memory;

/// Bytes of the fake memory.
pub(crate) const MEMORY_BYTES: u64 = 0x10_0000;
/// Where the tests put buffers.
pub(crate) const BUFFERS: u64 = 0x1_0000;
/// Descriptors per queue.
pub(crate) const QUEUE_SIZE: u16 = 16;
pub(crate) const NEXT: u16 = 1;
pub(crate) const WRITE: u16 = 2;
pub(crate) const INDIRECT: u16 = 4;
pub(crate) const RX: u64 = 0;
pub(crate) const TX: u64 = 1;
/// `VIRTIO_NET_F_MRG_RXBUF`.
pub(crate) const MERGE: u64 = 1 << 15;
/// `VIRTIO_F_EVENT_IDX`.
pub(crate) const EVENT_IDX: u64 = 1 << 29;
/// `VIRTIO_F_VERSION_1`.
pub(crate) const VERSION_1: u64 = 1 << 32;

/// A port whose frames are vectors.
#[derive(Debug, Default)]
pub(crate) struct MemoryPort {
    pub(crate) incoming: VecDeque<Vec<u8>>,
    pub(crate) sent: Vec<Vec<u8>>,
    pub(crate) refusal: Option<i32>,
}

impl Port for MemoryPort {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let frame = self.incoming.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        buffer.get_mut(..frame.len()).expect("frames fit").copy_from_slice(&frame);
        Ok(frame.len())
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        if let Some(code) = self.refusal {
            return Err(io::Error::from_raw_os_error(code));
        }
        self.sent.push(frame.to_vec());
        Ok(())
    }

    fn set_offloads(&mut self, _features: u64) -> io::Result<()> {
        Ok(())
    }

    fn has_offloads(&self) -> bool {
        true
    }
}

/// The driver and its device.
pub(crate) struct Rig {
    pub(crate) memory: Memory,
    pub(crate) device: NetDevice<MemoryPort>,
    made: [u16; 2],
}

fn ring_base(queue: u64) -> u64 {
    0x1000 + 0x4000 * queue
}

impl Rig {
    /// A device whose driver has not begun.
    pub(crate) fn cold() -> Self {
        let bytes = usize::try_from(MEMORY_BYTES).expect("small");
        let memory = Memory::from_ranges(&[(GuestAddress(0), bytes)]).expect("mapped");
        let device = NetDevice::new(memory.clone(), MemoryPort::default(), [2, 0, 0, 0, 0, 1], 1500);
        Self { memory, device, made: [0; 2] }
    }

    /// A device whose driver has agreed on `features` and is ready.
    pub(crate) fn new(features: u64) -> Self {
        let mut rig = Self::cold();
        rig.negotiate(features);
        for queue in 0..2 {
            let base = ring_base(queue);
            rig.describe(queue, QUEUE_SIZE.into(), [base, base + 0x1000, base + 0x2000]);
        }
        assert_eq!(rig.register(0x70, 15), Ok(Wrote::Changed));
        rig
    }

    pub(crate) fn register(&mut self, offset: u64, value: u32) -> Result<Wrote, Fault> {
        self.device.write(offset, &value.to_le_bytes())
    }

    pub(crate) fn read_register(&self, offset: u64) -> u32 {
        let mut out = [0; 4];
        self.device.read(offset, &mut out);
        u32::from_le_bytes(out)
    }

    pub(crate) fn set(&mut self, offset: u64, value: u64) {
        let value = u32::try_from(value).expect("a half");
        self.register(offset, value).expect("only writes are refused that start the device");
    }

    pub(crate) fn negotiate(&mut self, features: u64) {
        let features = features | VERSION_1;
        for (offset, value) in [
            (0x70, 1),
            (0x70, 3),
            (0x24, 0),
            (0x20, features & 0xffff_ffff),
            (0x24, 1),
            (0x20, features >> 32),
            (0x70, 11),
        ] {
            self.set(offset, value);
        }
    }

    pub(crate) fn describe(&mut self, queue: u64, size: u64, [desc, avail, used]: [u64; 3]) {
        self.set(0x30, queue);
        self.set(0x38, size);
        for (offset, address) in [(0x80, desc), (0x90, avail), (0xa0, used)] {
            self.set(offset, address & 0xffff_ffff);
            self.set(offset + 4, address >> 32);
        }
        self.set(0x44, 1);
    }

    /// Writes one descriptor of a queue.
    pub(crate) fn descriptor(&self, queue: u64, index: u16, entry: (u64, u32, u16, u16)) {
        self.descriptor_at(ring_base(queue) + 16 * u64::from(index), entry);
    }

    /// Writes one descriptor anywhere.
    pub(crate) fn descriptor_at(&self, at: u64, (address, bytes, flags, next): (u64, u32, u16, u16)) {
        self.put(at, &address.to_le_bytes());
        self.put(at + 8, &bytes.to_le_bytes());
        self.put(at + 12, &flags.to_le_bytes());
        self.put(at + 14, &next.to_le_bytes());
    }

    pub(crate) fn put(&self, at: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(at)).expect("within memory");
    }

    pub(crate) fn get(&self, at: u64, bytes: usize) -> Vec<u8> {
        let mut out = vec![0; bytes];
        self.memory.read_slice(&mut out, GuestAddress(at)).expect("within memory");
        out
    }

    /// Makes the chain at `head` available.
    pub(crate) fn offer(&mut self, queue: u64, head: u16) {
        let made = self.made.get_mut(usize::try_from(queue).expect("small")).expect("two queues");
        let slot = *made % QUEUE_SIZE;
        *made = made.wrapping_add(1);
        let index = *made;
        self.put(ring_base(queue) + 0x1004 + 2 * u64::from(slot), &head.to_le_bytes());
        self.set_available(queue, index);
    }

    pub(crate) fn set_available(&self, queue: u64, index: u16) {
        self.put(ring_base(queue) + 0x1002, &index.to_le_bytes());
    }

    /// Asks for an interrupt when the used index passes `index`.
    pub(crate) fn set_used_event(&self, queue: u64, index: u16) {
        self.put(ring_base(queue) + 0x1004 + 2 * u64::from(QUEUE_SIZE), &index.to_le_bytes());
    }

    /// How far the device has filled the used ring.
    pub(crate) fn used_index(&self, queue: u64) -> u16 {
        u16::from_le_bytes(self.get(ring_base(queue) + 0x2002, 2).try_into().expect("two bytes"))
    }

    /// An element of the used ring: head and bytes.
    pub(crate) fn used(&self, queue: u64, slot: u64) -> (u32, u32) {
        let at = ring_base(queue) + 0x2004 + 8 * slot;
        let word = |at| u32::from_le_bytes(self.get(at, 4).try_into().expect("four bytes"));
        (word(at), word(at + 4))
    }

    pub(crate) fn work(&mut self) -> Result<Work, Fault> {
        self.device.work()
    }

    /// Offers the buffers as one transmit chain and works.
    pub(crate) fn transmit(&mut self, buffers: &[(u64, u32)]) -> Result<Work, Fault> {
        let last = buffers.len() - 1;
        for (index, (address, bytes)) in (0_u16..).zip(buffers) {
            let flags = if usize::from(index) == last { 0 } else { NEXT };
            self.descriptor(TX, index, (*address, *bytes, flags, index + 1));
        }
        self.offer(TX, 0);
        self.work()
    }
}
