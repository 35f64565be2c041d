//! Traffic that gives every panel something to show: what goes well, and each kind of trouble.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use weft_tests::command::Running;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::topology::{self, Container, Echo};
use weft_tests::{Daemon, Station, wait};

/// What a configuration says so that conversations end while a test waits.
pub(super) const CONFIG: &str = "[flows]\nidle_secs = 2\nclosed_secs = 1\n";

/// Where the server of the containers listens for iperf3, and where nobody does.
const SERVED: u16 = 5201;
const REFUSED: u16 = 81;

/// Guests that talk, from the time they are made until they are dropped.
#[derive(Debug)]
pub(super) struct Traffic {
    // Dropped in this order: who talks before what it talks through.
    _clients: Vec<Running>,
    _servers: Vec<Running>,
    _echo: Echo,
    stalled: TcpListener,
    containers: [Container; 2],
    stations: [Station; 2],
    passer_by: Station,
    rounds: u16,
}

impl Traffic {
    /// Two containers and two stations, and a transfer between the containers that loses a segment in 200 behind the switch.
    pub(super) fn start(daemon: &Daemon) -> Result<Self> {
        let containers = [Container::new(daemon, 1)?, Container::new(daemon, 2)?];
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for (own, other) in [(0, 1), (1, 0)] {
            let (own, other) = (&containers[own], &containers[other]);
            for line in [
                "add table inet lossy",
                "add chain inet lossy in { type filter hook input priority 0; }",
                "add rule inet lossy in tcp dport 5201 numgen inc mod 200 == 199 drop",
            ] {
                own.namespace().run(&format!("nft {line}"))?;
            }
            servers.push(own.serve(&format!("iperf3 -s -p {SERVED}"), SERVED)?);
            other.ping(own.v4())?;
            other.ping(own.v6())?;
        }
        for (own, other) in [(0, 1), (1, 0)] {
            let mut client = containers[own].iperf3(containers[other].v4(), "-t 600 -b 10M");
            clients.push(Running::start(client.stdout(Stdio::null()).stderr(Stdio::null()))?);
        }
        let echo = containers[1].echo()?;
        let address = SocketAddr::from((containers[1].v4(), 82));
        let stalled = containers[1].namespace().within(|| Ok(TcpListener::bind(address)?))?;
        let allowed = frames::station(1);
        let stations = [Station::plain("a")?, Station::plain("b")?];
        daemon.cli().run(&format!("port add a --netdev a --mac {allowed} --mac {}", frames::station(3)))?;
        daemon.until_state("a", "up", wait::SOON)?;
        topology::attach(daemon, "b")?;
        Ok(Self {
            _clients: clients,
            _servers: servers,
            _echo: echo,
            stalled,
            containers,
            stations,
            passer_by: Station::plain("z")?,
            rounds: 0,
        })
    }

    /// One of everything that does not go on by itself.
    pub(super) fn round(&mut self, daemon: &Daemon) -> Result<()> {
        self.rounds = self.rounds.wrapping_add(1);
        // A port that no file knows comes and goes.
        topology::attach(daemon, self.passer_by.netdev())?;
        daemon.cli().run("port del z")?;
        let [one, two] = &self.containers;
        ensure!(one.talk(two.v4(), 5)?.returned > 0, "no echo");
        for (from, to) in [(one, two), (two, one)] {
            let address = SocketAddr::from((to.v4(), REFUSED));
            let refused = from.namespace().within(|| Ok(TcpStream::connect_timeout(&address, wait::SOON)))?;
            ensure!(refused.is_err(), "somebody listens on {address}");
        }
        self.stall()?;
        let [a, b] = &self.stations;
        let from_to = |from, to| Builder::new(frames::station(from), frames::station(to));
        for (station, frame) in [
            (a, syn(1, 2, self.rounds)?),
            (a, from_to(66, 2).build()),
            (b, Builder::new(frames::station(2), MacAddr::BROADCAST).build()),
            (b, from_to(2, 1).ethertype(0x0800).payload(&[0x4f; 20]).build()),
            (a, from_to(3, 2).build()),
            (b, from_to(3, 1).build()),
        ] {
            station.send(&frame)?;
        }
        for station in [a, b] {
            station.drain()?;
        }
        Ok(())
    }

    /// A transfer whose receiver does not read for a while, so that it closes its window.
    fn stall(&self) -> Result<()> {
        let [one, _] = &self.containers;
        let address = self.stalled.local_addr()?;
        let mut writer = one.namespace().within(|| Ok(TcpStream::connect_timeout(&address, wait::SOON)?))?;
        let (mut reader, _) = self.stalled.accept()?;
        writer.set_write_timeout(Some(Duration::from_millis(300)))?;
        let payload = vec![0; 65536];
        let full = std::iter::repeat_with(|| writer.write(&payload)).find_map(Result::err).context("never full")?;
        ensure!(full.kind() == std::io::ErrorKind::WouldBlock, "{full}");
        reader.set_read_timeout(Some(Duration::from_millis(300)))?;
        let mut sink = vec![0; 1 << 20];
        while reader.read(&mut sink).is_ok_and(|read| read > 0) {}
        Ok(())
    }
}

/// A TCP segment over IPv4 that knocks where nobody answers.
fn syn(from: u32, to: u32, port: u16) -> Result<Vec<u8>> {
    let packet = PacketBuilder::ethernet2(frames::station(from).0, frames::station(to).0);
    let mut frame = Vec::new();
    packet.ipv4([198, 18, 0, 101], [198, 18, 0, 102], 64).tcp(port, 80, 7, 1000).syn().write(&mut frame, &[])?;
    frame.resize(frame.len().max(frames::FRAME_BYTES_MIN), 0);
    Ok(frame)
}
