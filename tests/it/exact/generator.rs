//! What a raw generator writes into taps: tags, mixed sizes, fragments, extension headers, ARP, super-frames; both ways at once, so
//! that two processors are busy.

use std::thread;

use anyhow::{Context as _, Result, ensure};
use switch_common::wire::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, TPID_C, TPID_S};
use weft_tests::frames::{self, Builder, Request};
use weft_tests::{Arena, Daemon, Mode, Station, topology, wait};

use super::{Flows, Rows, Witness};

/// Frames of a case, each way.
const COUNT: usize = 6000;
/// Frames sent before those that arrived are taken in; below the length of a tap's ring.
const VOLLEY: usize = 128;

/// A frame to send with its offload request, and the wire frames that it stands for.
struct Sent {
    request: Request,
    bytes: Vec<u8>,
    wire_frames: u64,
}

fn plain(bytes: Vec<u8>) -> Sent {
    Sent { request: Request::default(), bytes, wire_frames: 1 }
}

/// A UDP datagram over IPv4; `fragment`: offset and flags.
pub(super) fn ipv4(fragment: u16, options: usize, payload: usize, number: usize) -> Vec<u8> {
    let [total_high, total_low] = u16::try_from(28 + options + payload).unwrap_or(0).to_be_bytes();
    let ([high, low], version) = (fragment.to_be_bytes(), 0x45 + u8::try_from(options / 4).unwrap_or(0));
    let fixed = [version, 0, total_high, total_low, 0, 7, high, low, 64, 17, 0, 0, 198, 18, 0, 1, 198, 18, 0, 2];
    [&fixed[..], &vec![1; options], &udp(payload, number)].concat()
}

fn udp(payload: usize, number: usize) -> Vec<u8> {
    let port = 4000 + u16::try_from(number % 50).unwrap_or(0);
    let words = [port, 9, u16::try_from(8 + payload).unwrap_or(0), 0].map(u16::to_be_bytes);
    [words.as_flattened(), &vec![0; payload]].concat()
}

/// An IPv6 packet with hop-by-hop options, a routing header and, if asked for, a fragment header before its datagram.
fn ipv6(in_parts: bool, number: usize) -> Vec<u8> {
    let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let last = if in_parts { [&[17, 0, 0, 1, 0, 0, 0, 9][..], &udp(64, number)].concat() } else { udp(64, number) };
    let after_routing = if in_parts { 44 } else { 17 };
    let payload = [&options(43)[..], &[after_routing, 0, 0, 0, 0, 0, 0, 0], &last].concat();
    let [high, low] = u16::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let address = |last| [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    [&[0x60, 0, 0, 0, high, low, 0, 64][..], &address(1), &address(2), &payload].concat()
}

type Make = fn(Builder, usize) -> Sent;

const IMIX: [usize; 12] = [18, 18, 18, 18, 18, 18, 18, 548, 548, 548, 548, 1472];

/// Every case: its name, and how its frames are made.
const CASES: [(&str, Make); 9] = [
    ("UDP 64 B, generated", |frame, number| {
        plain(frame.ethertype(ETHERTYPE_IPV4).payload(&ipv4(0, 0, 18, number)).build())
    }),
    ("IMIX", |frame, number| {
        plain(frame.ethertype(ETHERTYPE_IPV4).payload(&ipv4(0, 0, IMIX[number % 12], number)).build())
    }),
    ("VLAN", |frame, number| {
        let vlan = u16::try_from(number % 7).unwrap_or(0);
        plain(frame.tag(TPID_C, vlan).ethertype(ETHERTYPE_IPV4).payload(&ipv4(0, 0, 100, number)).build())
    }),
    ("QinQ", |frame, number| {
        let tagged = frame.tag(TPID_S, 5).tag(TPID_C, 0x6007);
        plain(tagged.ethertype(ETHERTYPE_IPV4).payload(&ipv4(0, 0, 100, number)).build())
    }),
    ("IPv4 options", |frame, number| plain(frame.ethertype(ETHERTYPE_IPV4).payload(&ipv4(0, 40, 100, number)).build())),
    ("IPv4 fragments", |frame, number| {
        let fragment = if number % 2 == 0 { 0x2000 } else { 0x0010 };
        plain(frame.ethertype(ETHERTYPE_IPV4).payload(&ipv4(fragment, 0, 100, number)).build())
    }),
    ("IPv6 extension headers", |frame, number| {
        plain(frame.ethertype(ETHERTYPE_IPV6).payload(&ipv6(number % 3 == 0, number)).build())
    }),
    ("ARP", |frame, _| plain(frame.ethertype(0x0806).payload(&[0; 28]).build())),
    ("TCP super-frames", |frame, number| {
        let payload = 1000 + number % 20_000;
        let from = frames::station(1);
        let bytes = frames::tcp_super_frame(from, from, payload).unwrap_or_default();
        let bytes = [&frame.build()[..12], &bytes[12..]].concat();
        // Whole segments of 1,000 bytes, and what is left.
        Sent { request: Request::tcp4(1000), bytes, wire_frames: (payload as u64).div_ceil(1000) }
    }),
];

/// What came of one way.
#[derive(Debug, Default)]
struct Outcome {
    wire_frames: u64,
    sent_bytes: u64,
    arrived: u64,
    arrived_bytes: u64,
}

/// Sends a case's frames from one station to the other, volley by volley.
fn send(make: Make, from: (&Station, u32), to: (&Station, u32)) -> Result<Outcome> {
    let builder = Builder::new(frames::station(from.1), frames::station(to.1));
    let mut outcome = Outcome::default();
    for first in (0..COUNT).step_by(VOLLEY) {
        let volley = first..COUNT.min(first + VOLLEY);
        for number in volley.clone() {
            let sent = make(builder.clone(), number);
            from.0.send_with(sent.request, &sent.bytes)?;
            outcome.wire_frames += sent.wire_frames;
            outcome.sent_bytes += sent.bytes.len() as u64;
        }
        wait::until_true("a volley arrives", wait::SOON, || {
            for frame in to.0.drain()? {
                outcome.arrived += 1;
                outcome.arrived_bytes += frame.len() as u64;
            }
            Ok(outcome.arrived >= volley.end as u64)
        })?;
    }
    Ok(outcome)
}

/// The stations of a case, behind `a` and behind `b`.
fn stations(case: usize) -> (u32, u32) {
    let first = 2 * u32::try_from(case).unwrap_or(0) + 1;
    (first, first + 1)
}

/// Makes both stations known, so that nothing is flooded: each sends a frame of 60 bytes.
fn introduce(a: (&Station, u32), b: (&Station, u32)) -> Result<()> {
    b.0.send(&Builder::new(frames::station(b.1), frames::MacAddr::BROADCAST).number(1).build())?;
    a.0.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
    a.0.send(&Builder::new(frames::station(a.1), frames::station(b.1)).number(2).build())?;
    b.0.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(2)).map(drop)
}

pub(super) fn run(arena: &Arena, mode: Mode, rows: &Rows) -> Result<()> {
    let daemon = Daemon::start(arena, mode)?;
    let (a, b) = (topology::offloading_station(&daemon, "a")?, topology::offloading_station(&daemon, "b")?);
    let statistics = |port: &str| -> Result<(u64, u64)> {
        Ok((arena.statistic(port, "rx_packets")?, arena.statistic(port, "rx_bytes")?))
    };
    let (mut said, mut devices) = (Vec::new(), [statistics("a")?, statistics("b")?]);
    for (number, (case, make)) in CASES.into_iter().enumerate() {
        let (of_a, of_b) = stations(number);
        introduce((&a, of_a), (&b, of_b))?;
        let ways = [("a", (&a, of_a), (&b, of_b)), ("b", (&b, of_b), (&a, of_a))];
        let outcomes = thread::scope(|scope| {
            ways.map(|(_, from, to)| scope.spawn(move || send(make, from, to))).map(thread::ScopedJoinHandle::join)
        });
        for (((port, from, _), device), outcome) in ways.into_iter().zip(&mut devices).zip(outcomes) {
            let outcome = outcome.ok().context("a sender panicked")?.with_context(|| format!("{case}, {mode:?}"))?;
            let arrived = (outcome.arrived, outcome.arrived_bytes);
            ensure!(arrived == (COUNT as u64, outcome.sent_bytes), "{case}, {mode:?}: {outcome:?}");
            let (before, after) = (*device, statistics(port)?);
            *device = after;
            // And the frame of the introduction.
            let frames = COUNT as u64 + 1;
            let sender = Witness {
                name: "sender",
                frames: Some(frames),
                wire_frames: Some(outcome.wire_frames + 1),
                bytes: Some(outcome.sent_bytes + 60),
            };
            let tap = Witness {
                name: "tap's statistics",
                frames: Some(after.0 - before.0),
                wire_frames: None,
                bytes: Some(after.1 - before.1),
            };
            said.push((format!("{case}, from {port}"), port, frames::station(from.1).to_string(), [sender, tap]));
        }
    }
    let all = (CASES.len() * (COUNT + 1)) as u64;
    let flows = wait::until("every frame is in a flow", wait::SOON, || {
        let flows = Flows::now(&daemon)?;
        Ok((flows.of("a").frames + flows.of("b").frames >= 2 * all).then_some(flows))
    })?;
    for (case, port, station, witnesses) in &said {
        rows.compare(case, mode, flows.sum(port, |_, sender| sender == station), witnesses)?;
    }
    ensure!(flows.of("a").frames == all && flows.of("b").frames == all, "flows of nobody's");
    drop((a, b));
    daemon.stop(arena)
}
