//! What tests attach to a daemon: stations on taps, and containers with addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::Running;
use crate::frames::{self, Builder};
use crate::numbered::{self, Talk};
use crate::{Daemon, Namespace, Station, wait};

/// A plain tap of this name, held and attached as the port of the same name.
pub fn station(daemon: &Daemon, name: &str) -> Result<Station> {
    let station = Station::plain(name)?;
    attach(daemon, name)?;
    Ok(station)
}

/// An offloading tap of this name, held and attached as the port of the same name.
pub fn offloading_station(daemon: &Daemon, name: &str) -> Result<Station> {
    let station = Station::offloading(name)?;
    attach(daemon, name)?;
    Ok(station)
}

/// Attaches a netdev as the port of the same name, and waits until it is up.
pub fn attach(daemon: &Daemon, name: &str) -> Result<()> {
    daemon.cli().run(&format!("port add {name} --netdev {name}"))?;
    daemon.until_state(name, "up", wait::SOON)
}

/// A network namespace behind a port, at `198.18.0.n` and `2001:db8::n`.
#[derive(Debug)]
pub struct Container {
    namespace: Namespace,
    number: u8,
}

impl Container {
    /// Makes the namespace and attaches it as the port `c<number>`.
    pub fn new(daemon: &Daemon, number: u8) -> Result<Self> {
        let container = Self { namespace: Namespace::new(&format!("c{number}"))?, number };
        container.attach(daemon)?;
        Ok(container)
    }

    /// Attaches the namespace (again).
    pub fn attach(&self, daemon: &Daemon) -> Result<()> {
        let (name, v4, v6) = (self.name(), self.v4(), self.v6());
        // No duplicate address detection: what is tested is the switch, not a second of waiting.
        self.namespace.run("sysctl -qw net.ipv6.conf.default.accept_dad=0")?;
        daemon.cli().run(&format!("port add {name} --netns {name} --address {v4}/24 --address {v6}/64"))?;
        daemon.until_state(&name, "up", wait::SOON)
    }

    /// The name of the namespace and of the port.
    pub fn name(&self) -> String {
        format!("c{}", self.number)
    }

    /// The namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// The namespace, for a test that takes it away.
    pub fn into_namespace(self) -> Namespace {
        self.namespace
    }

    /// Its IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, 0, self.number)
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, self.number.into())
    }

    /// Pings an address three times; all three must come back.
    pub fn ping(&self, address: impl Into<IpAddr>) -> Result<()> {
        let address = address.into();
        self.namespace.run(&format!("ping -n -c 3 -i 0.05 -W 10 {address}")).map(drop)
    }

    /// Starts a server inside and waits until it listens on the TCP port.
    pub fn serve(&self, line: &str, port: u16) -> Result<Running> {
        let mut command = self.namespace.command(line);
        let mut server = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()))?;
        wait::until_true(&format!("{line} listens"), wait::SOON, || {
            ensure!(server.ended()?.is_none(), "{line} ended at once");
            Ok(!self.namespace.run(&format!("ss -Hltn sport = :{port}"))?.is_empty())
        })?;
        Ok(server)
    }

    /// Sends `count` numbered datagrams to the echo service at an address.
    pub fn talk(&self, address: Ipv4Addr, count: u64) -> Result<Talk> {
        let socket = self.namespace.within(|| Ok(UdpSocket::bind((self.v4(), 0))?))?;
        socket.connect((address, numbered::ECHO_PORT))?;
        Ok(numbered::talk(&socket, count)?)
    }

    /// Starts an echo service for UDP inside.
    pub fn echo(&self) -> Result<Echo> {
        let socket = self.namespace.within(|| Ok(UdpSocket::bind((self.v4(), numbered::ECHO_PORT))?))?;
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let thread = thread::spawn(move || numbered::echo(&socket, || end.load(Ordering::Relaxed)));
        Ok(Echo { ended, thread: Some(thread) })
    }

    /// An iperf3 client inside that sends `what` (as `-n 64M` or `-t 3`) to an address; not started yet.
    pub fn iperf3(&self, address: impl Into<IpAddr>, what: &str) -> Command {
        let mut command = self.namespace.command(&format!("iperf3 -J -c {} {what}", address.into()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// An echo service in a container; it ends when dropped.
#[derive(Debug)]
pub struct Echo {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(matches!(ended, Some(Ok(Ok(())))) || thread::panicking(), "{ended:?}");
    }
}

/// Bytes that an iperf3 server received, from its client's report.
pub fn iperf3_received(report: &str) -> Result<u64> {
    let report: Value = serde_json::from_str(report).with_context(|| report.to_owned())?;
    let received = report.pointer("/end/sum_received/bytes").and_then(Value::as_u64);
    received.with_context(|| format!("no transfer in {report}"))
}

/// Frames of one conversation from station 1 on `a` to station 2 on `b`, and the last of them received.
pub fn talk(a: &Station, b: &Station, numbers: std::ops::Range<u64>) -> Result<()> {
    let last = numbers.end - 1;
    for number in numbers {
        a.send(&Builder::new(frames::station(1), frames::station(2)).number(number).build())?;
    }
    b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(last)).map(drop)
}
