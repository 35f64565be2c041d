//! What is said of a connection's health, beside what the end that suffers says of it itself.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::frames::{self, MacAddr, Request};
use weft_tests::station::until_readable;
use weft_tests::topology::{self, Container};
use weft_tests::{Arena, Builder, Daemon, Mode, Need, Station, command, wait};

use super::containers::segments;

/// How long the responder thinks before it answers.
const THINKS: Duration = Duration::from_millis(15);

/// Answers the first SYN after [`THINKS`]: who it is, an address for which the container has a permanent neighbour.
fn answer_late(responder: &Station) -> Result<()> {
    let is_syn = |frame: &[u8]| frame.len() >= 54 && frame[12..14] == [8, 0] && frame[23] == 6 && frame[47] == 2;
    let syn = responder.receive_until(wait::SOON, is_syn)?.pop().context("no SYN")?;
    let answered_at = Instant::now() + THINKS;
    loop {
        let left = answered_at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        until_readable(&[responder], left)?;
        responder.drain()?;
    }
    let (source, destination) = (frames::station(1), MacAddr(*syn[6..].first_chunk().context("no source")?));
    let mut answer = frames::tcp_super_frame(source, destination, 0)?;
    let expected = u32::from_be_bytes(*syn[38..].first_chunk().context("no number")?).wrapping_add(1);
    let ports = [&syn[36..38], &syn[34..36]].concat();
    answer[34..38].copy_from_slice(&ports);
    answer[42..46].copy_from_slice(&expected.to_be_bytes());
    answer[47] = 0x12;
    // The checksum is left to a device that there is not.
    let request = Request { flags: 1, csum_start: 34, csum_offset: 16, ..Request::default() };
    Ok(responder.send_with(request, &answer)?)
}

/// The one conversation over TCP.
fn tcp_record(daemon: &Daemon, is_told: impl Fn(&Value) -> bool) -> Result<Value> {
    wait::until("the conversation is told of", wait::SOON, || {
        let records: Vec<Value> = daemon.cli().json("flows --protocol tcp")?;
        Ok(records.into_iter().find(&is_told))
    })
}

fn handshake(arena: &Arena, mode: Mode) -> Result<()> {
    let daemon = Daemon::start(arena, mode)?;
    let responder = topology::offloading_station(&daemon, "late")?;
    let container = Container::new(&daemon, 2)?;
    let inside = container.namespace();
    inside.run(&format!("ip neigh replace 198.18.0.1 lladdr {} dev eth0 nud permanent", frames::station(1)))?;
    responder.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(1).build())?;
    let stream = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| inside.within(|| Ok(TcpStream::connect(("198.18.0.1", 5000))?)));
        answer_late(&responder)?;
        connecting.join().ok().context("the connecting thread panicked")?
    })?;
    let said = inside.run("ss -Htni dst 198.18.0.1")?;
    let minrtt: f64 =
        said.split_once("minrtt:").context(said.clone())?.1.split(' ').next().unwrap_or("").trim().parse()?;
    let record = tcp_record(&daemon, |record| record["tcp.handshake_rtt_us"].is_u64())?;
    let us = |part: &str| record[format!("tcp.handshake_rtt{part}_us")].as_f64().unwrap_or(0.0);
    let (whole, source, destination) = (us(""), us("_source"), us("_destination"));
    let senders_us = minrtt * 1000.0;
    eprintln!(
        "{mode:?}: the sender says {senders_us} µs, we {whole} µs: {source} to it and {destination} to the other"
    );
    ensure!(
        (whole - senders_us).abs() <= f64::max(100.0, senders_us / 20.0),
        "{whole} instead of {senders_us}: {record}"
    );
    ensure!(destination >= THINKS.as_secs_f64() * 1e6, "who thinks is the destination: {record}");
    drop(stream);
    drop(container);
    daemon.stop(arena)
}

/// A round trip is what the sender's own TCP says that it is, and the half is known in which the time was spent.
#[test]
fn the_round_trip_of_a_handshake_is_what_the_senders_tcp_measured() {
    for mode in [Mode::Kernel, Mode::Userspace] {
        Arena::run(&[Need::Bpf], |arena| handshake(arena, mode));
    }
}

/// Drops every seventeenth data frame of bulk TCP behind the switch.
const LOSSY: &str = r#"table netdev lossy {
    counter lost {}
    chain in {
        type filter hook ingress device "eth0" priority 0;
        tcp dport 5201 meta length > 1000 numgen inc mod 17 == 9 counter name lost drop;
    }
}"#;

fn losses(arena: &Arena, mode: Mode) -> Result<()> {
    let daemon = Daemon::start(arena, mode)?;
    let (one, two) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
    one.ping(two.v4())?;
    command::feed(&mut two.namespace().command("nft -f -"), LOSSY.as_bytes())?;
    let server = two.serve("iperf3 -s -1 --forceflush", 5201)?;
    let (_, before) = segments(&one)?;
    command::text(&mut one.iperf3(two.v4(), "-n 8M"))?;
    let (_, after) = segments(&one)?;
    let sent_again = after - before;
    let record = tcp_record(&daemon, |record| record["forward.tcp_retransmits"].as_u64() == Some(sent_again));
    let lost = two.namespace().run("nft list counters")?;
    let all: Vec<Value> = daemon.cli().json("flows --protocol tcp")?;
    let told = all.iter().map(|record| (&record["forward.tcp_retransmits"], &record["reverse.tcp_retransmits"]));
    eprintln!("{mode:?}: TCP sent {sent_again} segments again; told: {:?}", told.collect::<Vec<_>>());
    record.with_context(|| format!("{sent_again} segments sent again, {lost}\n{all:#?}"))?;
    ensure!(sent_again > 0, "nothing was lost: {lost}");
    drop((server, one, two));
    daemon.stop(arena)
}

/// Segments that the sender's TCP says it sent again are on the conversation that lost them, and on no other.
#[test]
fn retransmits_are_what_the_senders_tcp_counted() {
    for mode in [Mode::Kernel, Mode::Userspace] {
        Arena::run(&[Need::Bpf, Need::Nft], |arena| losses(arena, mode));
    }
}
