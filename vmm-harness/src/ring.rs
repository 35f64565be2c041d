//! A virtqueue, with nothing believed.
//!
//! `virtio-queue` bounds every access by the guest's memory and every walk by the queue's length, but it *ends* a walk
//! that goes wrong as it ends one that is done. Here the two are told apart: a chain whose last descriptor seen promises
//! another one was cut short, and that is a [`Fault`]. Buffers are checked against memory before anything is copied.
//!
//! Used elements can be published together ([`Ring::publish`]): a frame spread over several receive buffers must become
//! visible at once, or the driver finds a header that promises buffers which are not there yet.

use std::num::Wrapping;
use std::ops::Range;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, Permissions};

use crate::ending::Fault;

/// The guest's memory.
pub type Memory = GuestMemoryMmap<()>;

/// Descriptors that a queue holds at most.
pub const QUEUE_SIZE_MAX: u16 = 256;

/// What the guest wrote into the registers of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingAddresses {
    /// Descriptors.
    pub size: u32,
    /// Physical address of the descriptor table.
    pub desc: u64,
    /// Physical address of the available ring.
    pub avail: u64,
    /// Physical address of the used ring.
    pub used: u64,
}

/// A chain taken from the available ring, its buffers checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Index of its first descriptor.
    pub head: u16,
    /// Its buffers in order, all within memory.
    pub buffers: Vec<(GuestAddress, usize)>,
    /// Bytes of all buffers.
    pub bytes: u64,
}

/// Which way a queue's buffers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device writes into them.
    ToGuest,
    /// The device reads them.
    FromGuest,
}

/// One queue in use.
#[derive(Debug)]
pub struct Ring {
    index: u16,
    direction: Direction,
    queue: Queue,
    added: u16,
}

impl Ring {
    /// A queue as the guest describes it; refused unless all of it lies in memory.
    pub fn new(
        memory: &Memory,
        index: u16,
        direction: Direction,
        wanted: RingAddresses,
        event_idx: bool,
    ) -> Result<Self, Fault> {
        let size_fault = || Fault::QueueSize { queue: index, size: wanted.size };
        let size = u16::try_from(wanted.size).ok().filter(|size| *size <= QUEUE_SIZE_MAX).ok_or_else(size_fault)?;
        let mut queue = Queue::new(QUEUE_SIZE_MAX).expect("the largest size is a power of two");
        queue.try_set_size(size).ok().ok_or_else(size_fault)?;
        let rings = Fault::Rings(index);
        queue.try_set_desc_table_address(GuestAddress(wanted.desc)).ok().ok_or(rings.clone())?;
        queue.try_set_avail_ring_address(GuestAddress(wanted.avail)).ok().ok_or(rings.clone())?;
        queue.try_set_used_ring_address(GuestAddress(wanted.used)).ok().ok_or(rings.clone())?;
        queue.set_event_idx(event_idx);
        queue.set_ready(true);
        if queue.is_valid(memory) { Ok(Self { index, direction, queue, added: 0 }) } else { Err(rings) }
    }

    /// The number of the queue.
    pub const fn index(&self) -> u16 {
        self.index
    }

    /// How many descriptors it holds.
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// How far the driver has filled the available ring.
    pub fn available(&self, memory: &Memory) -> Result<u16, Fault> {
        let index =
            self.queue.avail_idx(memory, Ordering::Acquire).map_err(|_out_of_memory| Fault::Rings(self.index))?;
        let ahead = index - Wrapping(self.queue.next_avail());
        if ahead.0 > self.queue.size() { Err(Fault::IndexJump(self.index)) } else { Ok(index.0) }
    }

    /// Takes the next chain, if there is one.
    pub fn take(&mut self, memory: &Memory) -> Result<Option<Chain>, Fault> {
        if self.available(memory)? == self.queue.next_avail() {
            return Ok(None);
        }
        let Some(mut descriptors) = self.queue.pop_descriptor_chain(memory) else { return Ok(None) };
        let mut chain = Chain { head: descriptors.head_index(), buffers: Vec::new(), bytes: 0 };
        let mut promised = true;
        for descriptor in descriptors.by_ref() {
            promised = descriptor.has_next();
            if descriptor.is_write_only() != (self.direction == Direction::ToGuest) {
                return Err(Fault::Direction(self.index));
            }
            let bytes = usize::try_from(descriptor.len()).expect("an address space of 64 bits");
            if bytes == 0 {
                continue;
            }
            let access = match self.direction {
                Direction::ToGuest => Permissions::Write,
                Direction::FromGuest => Permissions::Read,
            };
            if descriptor.addr().0.checked_add(u64::from(descriptor.len())).is_none()
                || !GuestMemory::check_range(memory, descriptor.addr(), bytes, access)
            {
                return Err(Fault::Buffer(self.index));
            }
            chain.buffers.push((descriptor.addr(), bytes));
            chain.bytes += u64::from(descriptor.len());
        }
        if promised { Err(Fault::Chain(self.index)) } else { Ok(Some(chain)) }
    }

    /// Puts the last `chains` taken back, to be taken again.
    pub fn put_back(&mut self, chains: u16) {
        self.queue.set_next_avail(self.queue.next_avail().wrapping_sub(chains));
    }

    /// Hands chains back to the driver, all at the same instant.
    pub fn publish(&mut self, memory: &Memory, done: &[(u16, u32)]) -> Result<(), Fault> {
        let fault = Fault::Rings(self.index);
        let Some(((last_head, last_bytes), rest)) = done.split_last() else { return Ok(()) };
        let first = self.queue.next_used();
        let mut slot = first;
        for (head, bytes) in rest {
            let at = self.queue.used_ring() + 4 + 8 * u64::from(slot % self.queue.size());
            let element = u64::from(*head) | u64::from(*bytes) << 32;
            memory.write_obj(element.to_le(), GuestAddress(at)).ok().ok_or(fault.clone())?;
            slot = slot.wrapping_add(1);
        }
        self.queue.set_next_used(slot);
        self.queue.add_used(memory, *last_head, *last_bytes).map_err(|_head_out_of_table| Fault::Chain(self.index))?;
        self.added = self.added.wrapping_add(self.queue.next_used().wrapping_sub(first));
        Ok(())
    }

    /// Whether the driver wants an interrupt for what was published since the last time this was asked.
    pub fn wants_interrupt(&mut self, memory: &Memory) -> Result<bool, Fault> {
        let added = std::mem::take(&mut self.added);
        if added == 0 {
            return Ok(false);
        }
        // What was published must be visible before the driver's wish is read.
        fence(Ordering::SeqCst);
        let offset = if self.queue.event_idx_enabled() { 4 + 2 * u64::from(self.queue.size()) } else { 0 };
        let word: u16 = memory
            .load(GuestAddress(self.queue.avail_ring() + offset), Ordering::Relaxed)
            .ok()
            .ok_or(Fault::Rings(self.index))?;
        let word = u16::from_le(word);
        if self.queue.event_idx_enabled() {
            Ok(self.queue.next_used().wrapping_sub(word).wrapping_sub(1) < added)
        } else {
            Ok(word & 1 == 0)
        }
    }

    /// Asks the driver to kick when it adds to the ring; true when it already has.
    pub fn listen(&mut self, memory: &Memory) -> Result<bool, Fault> {
        self.queue.enable_notification(memory).map_err(|_out_of_memory| Fault::Rings(self.index))
    }

    /// Tells the driver that kicks are not needed for now.
    pub fn ignore_kicks(&mut self, memory: &Memory) -> Result<(), Fault> {
        self.queue.disable_notification(memory).map_err(|_out_of_memory| Fault::Rings(self.index))
    }
}

impl Chain {
    /// Appends all bytes of the chain to `out`.
    pub fn read_into(&self, memory: &Memory, out: &mut Vec<u8>) -> Result<(), vm_memory::GuestMemoryError> {
        for (address, bytes) in &self.buffers {
            let start = out.len();
            out.resize(start + bytes, 0);
            let room = out.get_mut(start..).unwrap_or_default();
            memory.read_slice(room, *address)?;
        }
        Ok(())
    }

    /// Writes `bytes` into the chain from its beginning; says how many found room.
    pub fn write(&self, memory: &Memory, bytes: &[u8]) -> Result<usize, vm_memory::GuestMemoryError> {
        let mut done = 0;
        for (address, room) in &self.buffers {
            let part = bytes.get(part_of(done, *room, bytes.len())).unwrap_or_default();
            memory.write_slice(part, *address)?;
            done += part.len();
        }
        Ok(done)
    }
}

fn part_of(done: usize, room: usize, all: usize) -> Range<usize> {
    done..done.saturating_add(room).min(all)
}
