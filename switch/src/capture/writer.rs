//! From the daemon's records to pcapng: whole blocks, ready to be written.
//!
//! ```text
//! Begin ─▶ section        Port ─▶ interface        Frame ─▶ packet        End ─▶ statistics, one per interface
//! ```
//!
//! Each frame is **once** in the file, at the interface of the port it came in by, marked inbound: *inbound is what the guest sent
//! into the switch's port*. Where it left is in its comment. A frame that the kernel dropped and whose ingress nobody knows
//! is at the port it was for, marked outbound.

use std::collections::HashMap;

use switch_common::MacAddr;

use super::pcapng::{self, Interface, Packet, Section, Statistics};
use super::stream::{Begin, End, Fate, Frame, Outcome, Port};
use super::trim::HEADERS_BYTES_MAX;
use super::words::Words;

/// An interface of the file: a port, under the name that it had then.
#[derive(Debug)]
struct Seat {
    port: u16,
    delivered: u64,
}

/// Fates whose stamps are kept.
const STAMPS_MAX: usize = 4096;

/// What frames of one fate have in common in a file.
#[derive(Debug)]
struct Stamp {
    fate: Box<[u8]>,
    /// Where they are.
    seat: usize,
    /// Which way.
    direction: u32,
    /// What is said of each.
    options: Vec<u8>,
}

/// Makes blocks of records. One writer makes any number of files, one after the other.
#[derive(Debug, Default)]
pub struct Writer {
    begin: Begin,
    ports: Vec<Port>,
    words: Words,
    /// The file's interfaces, by number.
    seats: Vec<Seat>,
    /// The interface of each port.
    at: HashMap<u16, usize>,
    /// Of fates that there were in this file under these names.
    stamps: Vec<Stamp>,
    /// The stamp of each.
    stamp_of: HashMap<Box<[u8]>, usize>,
    /// The last one: frames of one fate come in a row.
    last_stamp: usize,
    last_ns: u64,
}

impl Writer {
    /// A writer for a session.
    pub fn new(begin: Begin) -> Self {
        Self { begin, ..Self::default() }
    }

    /// Begins a file: what it is, and every port known so far.
    pub fn head(&mut self, out: &mut Vec<u8>) {
        let application = format!("weft {} (instance {})", self.begin.version, self.begin.switch);
        let hardware = std::env::consts::ARCH;
        let section = Section { hardware, os: &self.begin.host, application: &application, comment: &self.begin.what };
        pcapng::section(out, &section);
        self.seats.clear();
        self.at.clear();
        self.forget_stamps();
        for port in std::mem::take(&mut self.ports) {
            self.describe(&port, out);
            self.ports.push(port);
        }
    }

    /// A port is named. One that is named otherwise than before is another interface from here on.
    pub fn port(&mut self, port: Port, out: &mut Vec<u8>) {
        self.words.name(&port);
        let known = self.ports.iter().position(|known| known.id == port.id);
        if known.and_then(|at| self.ports.get(at)).is_some_and(|known| known.name == port.name) {
            return;
        }
        self.forget_stamps();
        self.describe(&port, out);
        match known.and_then(|at| self.ports.get_mut(at)) {
            Some(known) => *known = port,
            None => self.ports.push(port),
        }
    }

    /// Describes a port as the file's next interface.
    fn describe(&mut self, port: &Port, out: &mut Vec<u8>) {
        let snaplen = match self.begin.snaplen {
            0 => u32::try_from(HEADERS_BYTES_MAX).unwrap_or(u32::MAX),
            bytes => bytes,
        };
        let mac = port.mac.map(|mac| mac.0);
        let (name, description, filter) = (&port.name, &port.description, &self.begin.filter);
        pcapng::interface(out, &Interface { name, description, mac, filter, snaplen });
        self.at.insert(port.id, self.seats.len());
        self.seats.push(Seat { port: port.id, delivered: 0 });
    }

    /// Adds a frame; what cannot be read as one is left out.
    pub fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let is_as_last = self.stamps.get(self.last_stamp).is_some_and(|stamp| *stamp.fate == *frame.fate);
        if !is_as_last && self.find_stamp(frame.fate, out).is_none() {
            return;
        }
        let Some(stamp) = self.stamps.get(self.last_stamp) else { return };
        let Some(seat) = self.seats.get_mut(stamp.seat) else { return };
        seat.delivered += 1;
        self.last_ns = self.last_ns.max(frame.time_ns);
        let packet = Packet {
            interface: u32::try_from(stamp.seat).unwrap_or(u32::MAX),
            time_ns: frame.time_ns,
            length: frame.length,
            flags: stamp.direction | cast(frame.bytes),
            id: frame.number,
            shared: &stamp.options,
            bytes: frame.bytes,
        };
        pcapng::packet(out, &packet);
    }

    /// Makes a fate's stamp the last one, and its port an interface, if they are new; nothing when it is no fate.
    fn find_stamp(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
        if let Some(known) = self.stamp_of.get(bytes) {
            self.last_stamp = *known;
            return Some(());
        }
        let fate = Fate::decode(bytes)?;
        let (port, direction) = match fate.egress().next() {
            Some((egress, _)) if fate.ingress == 0 => (egress, pcapng::FLAG_OUTBOUND),
            _ => (fate.ingress, pcapng::FLAG_INBOUND),
        };
        if !self.at.contains_key(&port) {
            self.port(Port { id: port, name: format!("port {port}"), ..Port::default() }, out);
        }
        let seat = *self.at.get(&port)?;
        let verdict = match fate.outcome {
            Outcome::Forwarded | Outcome::Flooded => pcapng::VERDICT_REDIRECT,
            Outcome::Dropped | Outcome::Lost => pcapng::VERDICT_SHOT,
        };
        let options = pcapng::shared_options(&self.words.tell(&fate), verdict);
        if self.stamps.len() >= STAMPS_MAX {
            self.forget_stamps();
        }
        self.last_stamp = self.stamps.len();
        self.stamp_of.insert(bytes.into(), self.last_stamp);
        self.stamps.push(Stamp { fate: bytes.into(), seat, direction, options });
        Some(())
    }

    /// A port is called otherwise, or another file begins.
    fn forget_stamps(&mut self) {
        self.stamps.clear();
        self.stamp_of.clear();
    }

    /// Ends a file that another one follows: only what it holds is known.
    pub fn interim(&self, out: &mut Vec<u8>) {
        let span_ns = (self.begin.began_ns, self.last_ns.max(self.begin.began_ns));
        for (interface, seat) in (0..).zip(&self.seats) {
            let delivered = Some(seat.delivered);
            pcapng::statistics(out, &Statistics { interface, span_ns, delivered, ..Statistics::default() });
        }
    }

    /// Ends the last file. `lost_here`: frames that came and were not written, by port.
    pub fn tail(&self, end: &End, lost_here: &HashMap<u16, u64>, out: &mut Vec<u8>) {
        let span_ns = (self.begin.began_ns, end.ended_ns.max(self.last_ns).max(self.begin.began_ns));
        let early = match end.lost_early {
            0 => String::new(),
            lost => format!("{lost} frames were lost before their port was looked at; they are counted here"),
        };
        for (interface, seat) in (0..).zip(&self.seats) {
            // Of a port with two names the first interface is the past.
            let is_now = self.at.get(&seat.port).copied() == usize::try_from(interface).ok();
            let sums = end.ports.iter().find(|sums| is_now && sums.id == seat.port).copied().unwrap_or_default();
            let lost = sums.lost + if is_now { lost_here.get(&seat.port).copied().unwrap_or(0) } else { 0 };
            let (lost_early, comment) = if interface == 0 { (end.lost_early, early.as_str()) } else { (0, "") };
            let counts = Statistics {
                interface,
                span_ns,
                received: sums.received,
                accepted: Some(seat.delivered + lost + lost_early),
                dropped: Some(lost),
                dropped_by_os: Some(lost_early),
                delivered: Some(seat.delivered),
                comment,
            };
            pcapng::statistics(out, &counts);
        }
    }
}

/// To one, to some or to all.
fn cast(bytes: &[u8]) -> u32 {
    match bytes.first_chunk().map(|address| MacAddr(*address)) {
        Some(MacAddr::BROADCAST) => pcapng::FLAG_BROADCAST,
        Some(address) if address.is_group() => pcapng::FLAG_MULTICAST,
        Some(_) => pcapng::FLAG_UNICAST,
        None => 0,
    }
}
