//! A station that plays a VMM on a tap: whole frames behind a virtio-net header, never blocking.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::time::{ClockId, clock_gettime};

use super::lab::Namespace;
use super::sys;
use super::systems::System;

/// Bytes of `struct virtio_net_hdr` (legacy, no merged buffers).
pub const VNET_BYTES: usize = 10;
/// Payload bytes of a segment in the super-frame.
const GSO_SIZE: u16 = 1448;
/// Segments in the super-frame: the most that IPv4's length field allows.
const SEGMENTS: u16 = 45;
/// Where TCP begins, and where its payload does.
const TCP_AT: u16 = 34;
const HEADERS: u16 = 54;

/// One end that a guest would hold.
pub struct Station {
    file: File,
    mac: [u8; 6],
    buffer: Vec<u8>,
}

/// A station's address, told apart by its number.
pub fn mac(number: u32) -> [u8; 6] {
    let [a, b, c, d] = number.to_be_bytes();
    [0x52, 0x54, a, b, c, d]
}

impl Station {
    /// Makes a tap in the system's namespace and makes it a port.
    pub fn attach(system: &System, netdev: &str, number: u32) -> Result<Self> {
        let file = open(system.namespace(), netdev)?;
        system.attach(netdev)?;
        Ok(Self { file, mac: mac(number), buffer: vec![0; 70_000] })
    }

    /// The address it sends from.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Hands one frame with its virtio-net header to the kernel. This is the call that is measured.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        let written = (&self.file).write(frame).context("a tap refused a frame")?;
        if written != frame.len() {
            bail!("a tap took {written} bytes of {}", frame.len());
        }
        Ok(())
    }

    /// One frame, from its destination address on, or `None` when none waits.
    pub fn receive(&mut self) -> Result<Option<&[u8]>> {
        match (&self.file).read(&mut self.buffer) {
            Ok(bytes) => Ok(self.buffer.get(VNET_BYTES..bytes)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error).context("a tap cannot be read"),
        }
    }

    /// The next frame of `bytes` length; others (a stray announcement) are passed over.
    pub fn expect(&mut self, bytes: usize, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            match self.receive()? {
                Some(frame) if frame.len() == bytes => return Ok(()),
                Some(_) => {}
                None if Instant::now() > deadline => bail!("no frame of {bytes} bytes within {patience:?}"),
                None => std::hint::spin_loop(),
            }
        }
    }

    /// Reads everything that waits and counts the frames of `bytes` length.
    pub fn drain(&mut self, bytes: usize) -> Result<usize> {
        let mut count = 0;
        while let Some(frame) = self.receive()? {
            count += usize::from(frame.len() == bytes);
        }
        Ok(count)
    }

    /// For waiting without spinning.
    pub fn file(&self) -> &File {
        &self.file
    }
}

/// Opens a tap inside a namespace; the file works from any.
pub fn open(namespace: &Namespace, netdev: &str) -> Result<File> {
    namespace.inside(|| sys::open_tap(netdev).with_context(|| format!("cannot make the tap {netdev}")))
}

/// Two stations that know each other, on one switch, with whatever the switch caches already cached.
pub fn acquainted(system: &System) -> Result<(Station, Station)> {
    let mut a = Station::attach(system, "t0", 1)?;
    let mut b = Station::attach(system, "t1", 2)?;
    let there = small(a.mac(), b.mac());
    let back = small(b.mac(), a.mac());
    // The first frames teach; then one at a time until a hundred in a row were prompt.
    super::lab::until(Duration::from_secs(10), || {
        a.send(&there)?;
        b.send(&back)?;
        let met = b.expect(60, Duration::from_millis(100)).is_ok() && a.expect(60, Duration::from_millis(100)).is_ok();
        Ok(met.then_some(()))
    })
    .context("two stations do not hear each other")?;
    for _ in 0..100 {
        a.send(&there)?;
        b.expect(60, Duration::from_secs(1))?;
        b.send(&back)?;
        a.expect(60, Duration::from_secs(1))?;
    }
    a.drain(60)?;
    b.drain(60)?;
    Ok((a, b))
}

/// A 60-byte UDP frame (64 on a wire) behind an empty virtio-net header.
pub fn small(source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
    let mut frame = vec![0; VNET_BYTES];
    ipv4(&mut frame, source, destination, 17, 46);
    // Ports 4000 to 4001, 26 bytes, no checksum; then zeros.
    frame.extend([0x0f, 0xa0, 0x0f, 0xa1, 0, 26, 0, 0]);
    frame.resize(VNET_BYTES + 60, 0);
    frame
}

/// Bytes of the super-frame, from its destination address on.
pub const SUPER_BYTES: usize = HEADERS as usize + GSO_SIZE as usize * SEGMENTS as usize;

/// A TCP super-frame of 45 segments, as a guest's driver hands it over: checksum and segmentation left to the device.
pub fn super_frame(source: [u8; 6], destination: [u8; 6]) -> Vec<u8> {
    const NEEDS_CSUM: u8 = 1;
    const GSO_TCPV4: u8 = 1;
    let mut frame = vec![NEEDS_CSUM, GSO_TCPV4];
    for field in [HEADERS, GSO_SIZE, TCP_AT, 16] {
        frame.extend(field.to_le_bytes());
    }
    ipv4(&mut frame, source, destination, 6, 40 + GSO_SIZE * SEGMENTS);
    // Ports 4000 to 4001, sequence and acknowledgement 1, 20 bytes of header, ACK, a window, no checksum yet.
    frame.extend([0x0f, 0xa0, 0x0f, 0xa1, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(VNET_BYTES + SUPER_BYTES, 0x5a);
    frame
}

/// Makes of a super-frame the one that follows it in its stream; leaves other frames alone.
pub fn advance(frame: &mut [u8]) {
    const SEQUENCE_AT: usize = VNET_BYTES + 14 + 20 + 4;
    if frame.len() != VNET_BYTES + SUPER_BYTES {
        return;
    }
    if let Some(sequence) = frame.get_mut(SEQUENCE_AT..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        let payload = u32::from(GSO_SIZE) * u32::from(SEGMENTS);
        *sequence = u32::from_be_bytes(*sequence).wrapping_add(payload).to_be_bytes();
    }
}

/// Makes a UDP frame one of another flow, by its two ports.
pub fn set_flow(frame: &mut [u8], flow: u32) {
    const PORTS_AT: usize = VNET_BYTES + 14 + 20;
    if let Some(ports) = frame.get_mut(PORTS_AT..).and_then(|rest| rest.first_chunk_mut::<4>()) {
        *ports = flow.to_be_bytes();
    }
}

/// Appends an Ethernet and an IPv4 header; `total` is IPv4's length field.
fn ipv4(frame: &mut Vec<u8>, source: [u8; 6], destination: [u8; 6], protocol: u8, total: u16) {
    frame.extend(destination);
    frame.extend(source);
    frame.extend([0x08, 0x00]);
    let [high, low] = total.to_be_bytes();
    let mut header = [0x45, 0, high, low, 0, 0, 0x40, 0, 64, protocol, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    let sum: u32 =
        header.chunks_exact(2).filter_map(|pair| pair.first_chunk()).map(|p| u32::from(u16::from_be_bytes(*p))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = u16::try_from(folded & 0xffff).map_or(0, |low| !low);
    if let Some(field) = header.get_mut(10..12) {
        field.copy_from_slice(&check.to_be_bytes());
    }
    frame.extend(header);
}

/// CPU time of the calling thread, in nanoseconds; includes what the kernel does for its system calls.
pub fn cpu_ns() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
