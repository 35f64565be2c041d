//! What containers' own network stacks send: bulk TCP, small datagrams, pings whole and in fragments, ARP.

use std::net::UdpSocket;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use weft_tests::topology::Container;
use weft_tests::{Arena, Daemon, Mode, Sniffer, command, wait};

use super::{Flows, Rows, Witness};

/// Counts what passes a container's device, before the device's own statistics and independent of them.
const TRUTH: &str = r#"table netdev truth {
    counter sent {}
    chain out { type filter hook egress device "eth0" priority 0; counter name sent; }
}"#;

/// What those inside say of what a container has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    nft: (u64, u64),
    device: (u64, u64),
    /// Segments that TCP has sent, those sent again among them.
    segments: u64,
}

pub(super) fn count(container: &Container) -> Result<()> {
    command::feed(&mut container.namespace().command("nft -f -"), TRUTH.as_bytes()).map(drop)
}

/// Segments that a namespace's TCP has sent, and of these those sent again. `OutSegs` leaves the latter out
/// (`__tcp_transmit_skb` in `net/ipv4/tcp_output.c`).
pub(super) fn segments(container: &Container) -> Result<(u64, u64)> {
    let snmp = container.namespace().run("cat /proc/net/snmp")?;
    let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (names, values) = (tcp.next().context("no names")?, tcp.next().context("no values")?);
    let (mut sent, mut again) = (0, 0);
    for (name, value) in names.zip(values) {
        match name {
            "OutSegs" => sent = value.parse()?,
            "RetransSegs" => again = value.parse()?,
            _ => {}
        }
    }
    Ok((sent + again, again))
}

fn said(container: &Container) -> Result<Said> {
    let inside = container.namespace();
    let counters: Value = serde_json::from_str(&inside.run("nft -j list counters")?)?;
    let sent = counters["nftables"].as_array().context("no counters")?.iter().find_map(|item| item.get("counter"));
    let sent = sent.context("no counter")?;
    let number = |value: &Value| value.as_u64().context("no number");
    let statistic = |name: &str| -> Result<u64> {
        Ok(inside.run(&format!("cat /sys/class/net/eth0/statistics/{name}"))?.trim().parse()?)
    };
    Ok(Said {
        nft: (number(&sent["packets"])?, number(&sent["bytes"])?),
        device: (statistic("tx_packets")?, statistic("tx_bytes")?),
        segments: segments(container)?.0,
    })
}

/// Packets and bytes of what was sniffed until then (in seconds of the epoch), as tshark reads it.
fn read(sniffer: Sniffer, until: f64) -> Result<(u64, u64)> {
    let (mut packets, mut bytes) = (0, 0);
    for frame in sniffer.fields(&["frame.time_epoch", "frame.len"])? {
        let [time, length] = frame.as_slice() else { bail!("tshark said {frame:?}") };
        if time.parse::<f64>()? < until {
            packets += 1;
            bytes += length.parse::<u64>()?;
        }
    }
    Ok((packets, bytes))
}

struct Cases<'a> {
    rows: &'a Rows,
    mode: Mode,
    daemon: &'a Daemon,
    containers: [&'a Container; 2],
    /// The end of the last case.
    before: Rest,
}

impl Cases<'_> {
    /// Sniffers that have missed nothing since the last case.
    fn sniff(&mut self) -> Result<Vec<Sniffer>> {
        wait::until("sniffers listen while the containers are silent", wait::SOON, || {
            let sniff = |container: &&Container| {
                let mac = container.namespace().run("cat /sys/class/net/eth0/address")?;
                Sniffer::start(container.namespace(), "eth0", &format!("ether src {mac}"))
            };
            let sniffers = self.containers.iter().map(sniff).collect::<Result<Vec<_>>>()?;
            if self.containers.into_iter().map(said).collect::<Result<Vec<_>>>()? == self.before.said {
                return Ok(Some(sniffers));
            }
            self.before = at_rest(self.daemon, self.containers)?;
            Ok(None)
        })
    }

    /// Does something between the containers, and compares what was sent meanwhile.
    fn run(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let sniffers = self.sniff()?;
        work()?;
        let rest = at_rest(self.daemon, self.containers)?;
        // Neighbours may be asked for again while the sniffers are read.
        let until = rest.since;
        let sniffed = sniffers.into_iter().map(|sniffer| read(sniffer, until)).collect::<Result<Vec<_>>>()?;
        let witnesses = self.before.said.iter().zip(&rest.said).zip(sniffed);
        for (container, ((was, is), (packets, bytes))) in self.containers.iter().zip(witnesses) {
            let (port, frames) = (container.name(), is.nft.0 - was.nft.0);
            let case = format!("{name}, from {port}");
            let sent = rest.flows.of(&port).minus(self.before.flows.of(&port));
            let tcp = rest.flows.tcp_of(&port).minus(self.before.flows.tcp_of(&port));
            let nft = Witness {
                name: "nft egress",
                frames: Some(frames),
                // Super-frames are TCP's alone.
                wire_frames: (tcp.frames == 0).then_some(frames),
                bytes: Some(is.nft.1 - was.nft.1),
            };
            let device = Witness {
                name: "device",
                frames: Some(is.device.0 - was.device.0),
                wire_frames: None,
                bytes: Some(is.device.1 - was.device.1),
            };
            let tshark = Witness { name: "tshark", frames: Some(packets), wire_frames: None, bytes: Some(bytes) };
            self.rows.compare(&case, self.mode, sent, &[nft, device, tshark])?;
            if tcp.frames > 0 {
                let segments = Some(is.segments - was.segments);
                let name = "TCP's own counters";
                let segments = Witness { name, frames: None, wire_frames: segments, bytes: None };
                self.rows.compare(&format!("{case}, TCP alone"), self.mode, tcp, &[segments])?;
            }
        }
        self.before = rest;
        Ok(())
    }
}

/// When nobody speaks, and all that was sent is in a flow.
struct Rest {
    flows: Flows,
    said: Vec<Said>,
    /// Nobody had spoken since then, in seconds of the epoch.
    since: f64,
}

fn at_rest(daemon: &Daemon, containers: [&Container; 2]) -> Result<Rest> {
    let look = || containers.into_iter().map(said).collect::<Result<Vec<_>>>();
    wait::until("the containers are silent", wait::SOON, || {
        let said = look()?;
        let since = jiff::Timestamp::now().as_duration().as_secs_f64();
        let flows = Flows::now(daemon)?;
        let mut is_all = true;
        for container in containers {
            let port = container.name();
            is_all &= flows.of(&port).frames == daemon.cli().port(&port)?.ingress.frames;
        }
        Ok((is_all && look()? == said).then_some(Rest { flows, said, since }))
    })
}

pub(super) fn run(arena: &Arena, mode: Mode, rows: &Rows) -> Result<()> {
    let daemon = Daemon::start(arena, mode)?;
    let (one, two) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
    for container in [&one, &two] {
        count(container)?;
    }
    one.ping(two.v4())?;
    one.ping(two.v6())?;
    let _server = two.serve("iperf3 -s -1 --forceflush", 5201)?;
    let containers = [&one, &two];
    let before = at_rest(&daemon, containers)?;
    let mut cases = Cases { rows, mode, daemon: &daemon, containers, before };
    cases.run("TCP (GSO), 64 MB", || {
        // The server stops counting when the client says that it is done.
        let report = command::text(&mut one.iperf3(two.v4(), "-n 64M"))?;
        ensure!(weft_tests::topology::iperf3_received(&report)? > 32 << 20, "{report}");
        Ok(())
    })?;
    let sender = one.namespace().within(|| Ok(UdpSocket::bind((one.v4(), 4000))?))?;
    let receiver = two.namespace().within(|| Ok(UdpSocket::bind((two.v4(), 9))?))?;
    cases.run("UDP 64 B", || {
        // 64 bytes with the FCS, which no counter here counts.
        (0..20_000).try_for_each(|_| sender.send_to(&[0; 18], (two.v4(), 9)).map(drop))?;
        Ok(())
    })?;
    drop(receiver);
    let ping =
        |size: u32, address: &str| one.namespace().run(&format!("ping -n -q -c 200 -i 0.002 -s {size} {address}"));
    cases.run("ICMP", || ping(56, &two.v4().to_string()).map(drop))?;
    cases.run("ICMPv6", || ping(56, &two.v6().to_string()).map(drop))?;
    cases.run("ICMP in fragments", || ping(4000, &two.v4().to_string()).map(drop))?;
    cases.run("ICMPv6 in fragments", || ping(4000, &two.v6().to_string()).map(drop))?;
    cases.run("ARP", || {
        for _ in 0..20 {
            one.namespace().run("ip neigh flush dev eth0")?;
            one.namespace().run(&format!("ping -n -q -c 1 {}", two.v4()))?;
        }
        Ok(())
    })?;
    drop((one, two));
    daemon.stop(arena)
}
