//! The network device's queues in the hands of a hostile driver: a fault or frames, never a panic.
//!
//! The input is a driver's life in steps of a kind and its bytes: write anywhere in the rings, write a register, let a frame
//! arrive, kick, let the device work. Memory is 64 KiB with both queues at its beginning, so that most addresses hit.
//!
//! `cargo +nightly fuzz run queues` from the root of the project.
#![no_main]

use std::io;

use libfuzzer_sys::fuzz_target;
use vm_memory::{Bytes, GuestAddress};
use vmm_harness::device::NetDevice;
use vmm_harness::port::{FRAME_BYTES_MAX, Port};
use vmm_harness::ring::Memory;

const MEMORY_BYTES: u16 = 0xf000;
/// Merged buffers and event indexes, and the version.
const FEATURES: [u32; 2] = [1 << 15 | 1 << 28 | 1 << 29, 1];

#[derive(Default)]
struct Wire {
    arrived: Option<usize>,
}

impl Port for Wire {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.arrived.take().ok_or(io::ErrorKind::WouldBlock)?;
        Ok(bytes.min(buffer.len()))
    }

    fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        assert!((12..=FRAME_BYTES_MAX).contains(&frame.len()), "a frame has its header and an end");
        Ok(())
    }

    fn set_offloads(&mut self, _features: u64) -> io::Result<()> {
        Ok(())
    }

    fn has_offloads(&self) -> bool {
        true
    }
}

fn started(memory: &Memory) -> NetDevice<Wire> {
    let mut device = NetDevice::new(memory.clone(), Wire::default(), [2; 6], 1500);
    let mut set = |offset: u64, value: u32| device.write(offset, &value.to_le_bytes()).expect("a lawful driver");
    for (offset, value) in [(0x70, 3), (0x24, 0), (0x20, FEATURES[0]), (0x24, 1), (0x20, FEATURES[1]), (0x70, 11)] {
        set(offset, value);
    }
    for queue in 0..2 {
        let base = 0x400 * queue;
        for (offset, value) in
            [(0x30, queue), (0x38, 8), (0x80, base), (0x90, base + 0x100), (0xa0, base + 0x200), (0x44, 1)]
        {
            set(offset, value);
        }
    }
    set(0x70, 15);
    device
}

fuzz_target!(|input: &[u8]| {
    let memory = Memory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES.into())]).expect("a small mapping");
    let mut device = started(&memory);
    let mut rest = input;
    while let Some((step, after)) = rest.split_first_chunk::<8>() {
        rest = after;
        let [kind, queue, low, high, value @ ..] = *step;
        let at = u16::from_le_bytes([low, high]);
        let going = match kind % 6 {
            0 => memory.write_slice(&value, GuestAddress((at & 0x7ff).into())).map_err(|_| ()),
            1 => memory.write_slice(&value[..2], GuestAddress((at & 0x7fe).into())).map_err(|_| ()),
            2 => device.write((at & 0x1ff).into(), &value).map(drop).map_err(|_| ()),
            3 => {
                device.port().arrived = Some(at.into());
                Ok(())
            }
            4 => device.kicked(queue.into(), value[0].into()).map_err(|_| ()),
            _ => device.work().map(drop).map_err(|_| ()),
        };
        // A write beyond memory is the fuzzer's own; a fault ends the guest.
        if going.is_err() && kind % 6 > 1 {
            return;
        }
    }
});
