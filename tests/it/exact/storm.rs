//! One port opens flows without end, the pattern that takes other switches down: memory is bounded, the others' flows are whole, and
//! every frame is in a flow or in the overflow of the port that caused it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use switch_common::wire::ETHERTYPE_IPV4;
use switch_common::{PortId, Tally};
use weft::reflex::{Load, Reflex};
use weft_tests::frames;
use weft_tests::{Arena, Builder, Daemon, Mode, Need, Station, topology, wait};

use super::generator::ipv4;

/// New flows a second.
const RATE: u64 = 70_000;
/// Sent by the one before it is the other's turn.
const BURST: u64 = 1000;
/// Flows of the bystander.
const OTHERS: usize = 100;

/// How long, in seconds; `WEFT_TESTS_STORM_SECS` for longer.
fn secs() -> u64 {
    std::env::var("WEFT_TESTS_STORM_SECS").ok().and_then(|secs| secs.parse().ok()).unwrap_or(1)
}

/// Datagrams of 60 bytes to station 2, each of a flow of its own: of one of 2^24 addresses and ports.
struct Datagrams(Vec<u8>);

impl Datagrams {
    fn from(station: u32) -> Self {
        let builder = Builder::new(frames::station(station), frames::station(2)).ethertype(ETHERTYPE_IPV4);
        Self(builder.payload(&ipv4(0, 0, 18, 0)).build())
    }

    fn number(&mut self, number: u64) -> &[u8] {
        let [.., network, high, low] = number.to_be_bytes();
        self.0[27] = network;
        self.0[34..36].copy_from_slice(&[high, low]);
        &self.0
    }
}

/// Sends new flows at the rate; how many, and in what time.
fn storm(attacker: &Station, others: (&Station, &Station), sent_by_other: &mut u64) -> Result<(u64, Duration)> {
    let (bystander, sink) = others;
    let (begin, lasts) = (Instant::now(), Duration::from_secs(secs()));
    let (mut many, mut few, mut sent) = (Datagrams::from(1), Datagrams::from(3), 0);
    while begin.elapsed() < lasts {
        let due = u64::try_from(begin.elapsed().as_micros())? * RATE / 1_000_000;
        let end = due.min(sent + BURST);
        while sent < end {
            attacker.send(many.number(sent))?;
            sent += 1;
        }
        for number in 0..OTHERS {
            bystander.send(few.number(number as u64))?;
        }
        *sent_by_other += OTHERS as u64;
        sink.drain()?;
    }
    Ok((sent, begin.elapsed()))
}

fn run(arena: &Arena, mode: Mode) -> Result<()> {
    let daemon = Daemon::start(arena, mode)?;
    let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
    let c = topology::station(&daemon, "c")?;
    b.send(&Builder::new(frames::station(2), frames::MacAddr::BROADCAST).number(1).build())?;
    for station in [&a, &c] {
        station.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
    }
    for (station, number) in [(&a, 1), (&c, 3)] {
        station.send(Datagrams::from(number).number(0))?;
        b.receive_until(wait::SOON, |frame| frame.starts_with(&frames::station(2).0))?;
    }
    let (mut sent_by_c, resident) = (1, daemon.resident_kib()?);
    let (sent, took) = storm(&a, (&c, &b), &mut sent_by_c)?;
    let flows_of_c = || -> Result<(usize, u64)> {
        let records: Vec<Value> = daemon.cli().json("flows --from-port c")?;
        Ok((records.len(), records.iter().filter_map(|record| record["forward.frames"].as_u64()).sum()))
    };
    wait::until_true("the bystander's flows are whole", wait::SOON, || Ok(flows_of_c()? == (OTHERS, sent_by_c)))?;
    let after = daemon.resident_kib()?;
    // Flows, overflow and frames by the kernel's maps; none has died yet.
    let (reflex, _) = Reflex::open(&daemon.pins(), Load::default())?;
    let id = daemon.cli().port("a")?.id;
    let counters = reflex.counters(PortId::new(id).expect("the port has an id"))?;
    let mut accounted = reflex.flows().totals(&reflex.brain())?.get(&id).copied().unwrap_or_default();
    let in_flows = accounted.frames;
    accounted.add(&counters.overflow);
    ensure!(counters.ingress.frames == sent + 1, "{} sent, {counters:?}", sent + 1);
    ensure!(accounted == counters.ingress && counters.unparsable == Tally::default(), "{accounted:?}, {counters:?}");
    drop(reflex);
    eprintln!(
        "{mode:?}: {sent} new flows in {took:?}, {} a second: {in_flows} frames in flows, {} in the overflow; the \
         bystander's {sent_by_c} frames are in its {OTHERS} flows; resident {resident} KiB before, {after} KiB after",
        sent * 1000 / u64::try_from(took.as_millis())?.max(1),
        counters.overflow.frames
    );
    ensure!(after < resident + 256 * 1024, "the daemon grew from {resident} to {after} KiB");
    daemon.stop(arena)
}

/// Figures with `--nocapture`.
#[test]
fn a_port_that_opens_flows_without_end_overflows_alone() {
    for mode in [Mode::Kernel, Mode::Userspace] {
        Arena::run(&[Need::Bpf], |arena| run(arena, mode));
    }
}
