//! Two stations with a network stack of their own on one switch, containers or guests: round trips and bulk TCP, small UDP
//! frames.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::lab::{Namespace, Running, pin, until};
use super::systems::System;
use super::tap;
use super::vmm::Vmm;

/// Gives a namespace a network card, and puts the one who plays its VMM between the card and the switch.
fn guest(system: &mut System, namespace: &Namespace, port: &str, address: &str) -> Result<Vmm> {
    let offloads = system.kind().offloads();
    let card = tap::open(namespace, "eth0", offloads)?;
    namespace.noqueue("eth0")?;
    namespace.ip(&format!("address add {address}/24 dev eth0"))?;
    namespace.ip("link set eth0 up")?;
    let tap = tap::open(system.namespace(), port, offloads)?;
    system.attach(port)?;
    Ok(Vmm::start(card, tap))
}

/// Two stations on one switch. Fields are dropped in their order.
pub struct Pair {
    system: System,
    _vmms: Vec<Vmm>,
    client: Namespace,
    server: Namespace,
}

const CLIENT: &str = "198.18.0.1";
const SERVER: &str = "198.18.0.2";

impl Pair {
    /// Attaches two containers to the switch and lets them meet.
    pub fn containers(mut system: System, slot: &str) -> Result<Self> {
        let client = Namespace::new(&format!("{slot}c"))?;
        let server = Namespace::new(&format!("{slot}s"))?;
        system.attach_container("c0", &client, &format!("{CLIENT}/24"))?;
        system.attach_container("c1", &server, &format!("{SERVER}/24"))?;
        Self { system, _vmms: Vec::new(), client, server }.met()
    }

    /// Attaches two guests on taps to the switch and lets them meet.
    pub fn guests(mut system: System, slot: &str) -> Result<Self> {
        let client = Namespace::new(&format!("{slot}c"))?;
        let server = Namespace::new(&format!("{slot}s"))?;
        let vmms = vec![guest(&mut system, &client, "t0", CLIENT)?, guest(&mut system, &server, "t1", SERVER)?];
        Self { system, _vmms: vmms, client, server }.met()
    }

    /// Attaches a guest on a tap and a container to the switch and lets them meet.
    pub fn mixed(mut system: System, slot: &str) -> Result<Self> {
        let client = Namespace::new(&format!("{slot}c"))?;
        let server = Namespace::new(&format!("{slot}s"))?;
        let vmms = vec![guest(&mut system, &client, "t0", CLIENT)?];
        system.attach_container("c1", &server, &format!("{SERVER}/24"))?;
        Self { system, _vmms: vmms, client, server }.met()
    }

    /// Lets them meet.
    fn met(self) -> Result<Self> {
        self.client.inside(|| {
            let mut ping = Command::new("ping");
            ping.args(["-q", "-c", "5", "-i", "0.05", "-w", "10", SERVER]);
            crate::shell::output(&mut ping).context("two stations do not hear each other")
        })?;
        Ok(self)
    }

    /// The switch under them.
    pub fn system(&self) -> &System {
        &self.system
    }

    /// Round trips of one byte over TCP, in microseconds.
    pub fn round_trips(&self, count: usize) -> Result<Vec<f64>> {
        let listener = self.server.inside(|| Ok(TcpListener::bind((SERVER, 0))?))?;
        let port = listener.local_addr()?.port();
        thread::scope(|scope| {
            let echo = scope.spawn(move || -> Result<()> {
                pin(1)?;
                let (mut stream, _) = listener.accept()?;
                stream.set_nodelay(true)?;
                let mut byte = [0];
                while stream.read(&mut byte)? == 1 {
                    stream.write_all(&byte)?;
                }
                Ok(())
            });
            let times = self.client.inside(|| {
                pin(0)?;
                let mut stream = TcpStream::connect((SERVER, port))?;
                stream.set_nodelay(true)?;
                let mut byte = [0];
                let mut times = Vec::with_capacity(count);
                for _ in 0..count {
                    let start = Instant::now();
                    stream.write_all(&byte)?;
                    stream.read_exact(&mut byte)?;
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                }
                Ok(times)
            })?;
            echo.join().ok().context("the echo panicked")??;
            Ok(times)
        })
    }

    /// Gigabits per second of one TCP stream, and the bytes that arrived, by iperf3.
    pub fn bulk(&self, secs: u32) -> Result<(f64, f64)> {
        let mut serve = Command::new("iperf3");
        serve.args(["--server", "--one-off", "--bind", SERVER]).stdout(Stdio::null()).stdin(Stdio::null());
        let server = Running(self.server.spawn(&mut serve)?);
        // Until the server listens, iperf3 reports an error, and says so only inside its report.
        let answer = until(Duration::from_secs(10), || {
            let mut ask = Command::new("iperf3");
            ask.args(["--client", SERVER, "--json", "--congestion", "cubic", "--time", &secs.to_string()]);
            let Ok(text) = self.client.inside(|| crate::shell::output(&mut ask)) else { return Ok(None) };
            let report: serde_json::Value = serde_json::from_str(&text)?;
            let figure =
                |name: &str| report.pointer(&format!("/end/sum_received/{name}")).and_then(serde_json::Value::as_f64);
            Ok(figure("bits_per_second").zip(figure("bytes")))
        });
        // It has served once and ends by itself; whoever measures counts what it took only when it has ended.
        drop(server);
        let (rate, bytes) = answer.context("iperf3 reported no rate")?;
        Ok((rate / 1e9, bytes))
    }

    /// Round trips of 64-byte UDP datagrams by sockperf, p50 and p99 in microseconds.
    pub fn sockperf(&self, time: Duration) -> Result<(f64, f64)> {
        let mut serve = Command::new("sockperf");
        serve.args(["server", "-i", SERVER]).stdout(Stdio::null()).stdin(Stdio::null());
        let _server = Running(self.server.spawn(&mut serve)?);
        until(Duration::from_secs(10), || {
            let sockets = self.server.inside(|| Ok(std::fs::read_to_string("/proc/thread-self/net/udp")?))?;
            Ok((sockets.lines().count() > 1).then_some(()))
        })
        .context("sockperf does not listen")?;
        let mut ask = Command::new("sockperf");
        let secs = time.as_secs().max(1).to_string();
        // 22 bytes of payload make a frame of 64 bytes; 14 is the least that sockperf takes.
        ask.args(["ping-pong", "-i", SERVER, "--time", &secs, "--msg-size", "22", "--full-rtt"]);
        let text = self.client.inside(|| crate::shell::output(&mut ask))?;
        let percentile = |name: &str| -> Result<f64> {
            let line = text.lines().find(|line| line.contains(&format!("percentile {name}")));
            let figure = line.and_then(|line| line.rsplit('=').next()).context("sockperf reported no percentiles")?;
            figure.trim().parse().context("a percentile of sockperf")
        };
        Ok((percentile("50.000")?, percentile("99.000")?))
    }

    /// 64-byte frames (as a wire counts them) that were sent, that reached the receiver's UDP, and in what time: those it
    /// read and those its full buffer refused, which is its own doing and not the switch's.
    pub fn datagrams(&self, time: Duration) -> Result<(u64, u64, Duration)> {
        let receiver = self.server.inside(|| Ok(UdpSocket::bind((SERVER, 0))?))?;
        receiver.set_read_timeout(Some(Duration::from_millis(50)))?;
        let port = receiver.local_addr()?.port();
        let before = self.udp_arrivals()?;
        let done = AtomicBool::new(false);
        let (sent, elapsed) = thread::scope(|scope| {
            let sink = scope.spawn(|| -> Result<()> {
                pin(1)?;
                let mut buffer = [0; 64];
                while !done.load(Ordering::Relaxed) {
                    // A timeout is how the end is noticed.
                    drop(receiver.recv(&mut buffer));
                }
                Ok(())
            });
            let sent = self.client.inside(|| {
                pin(0)?;
                let socket = UdpSocket::bind((CLIENT, 0))?;
                socket.connect((SERVER, port))?;
                let start = Instant::now();
                let mut sent = 0;
                while start.elapsed() < time {
                    for _ in 0..64 {
                        // 14 + 20 + 8 + 18 = 60 bytes, and 4 of checksum on a wire.
                        socket.send(&[0; 18])?;
                    }
                    sent += 64;
                }
                Ok((sent, start.elapsed()))
            });
            // What waits in a switch in user space arrives a little later.
            thread::sleep(Duration::from_millis(20));
            done.store(true, Ordering::Relaxed);
            sink.join().ok().context("the receiver panicked")??;
            sent
        })?;
        let arrived = self.udp_arrivals()? - before;
        if arrived == 0 {
            bail!("no frame arrived");
        }
        Ok((sent, arrived, elapsed))
    }

    /// Datagrams that reached UDP in the server's namespace since it exists.
    fn udp_arrivals(&self) -> Result<u64> {
        let text = self.server.inside(|| Ok(std::fs::read_to_string("/proc/thread-self/net/snmp")?))?;
        let mut lines = text.lines().filter(|line| line.starts_with("Udp:")).map(str::split_whitespace);
        let (names, values) = lines.next().zip(lines.next()).context("no UDP counters")?;
        let counted = names.zip(values).filter(|(name, _)| ["InDatagrams", "RcvbufErrors"].contains(name));
        counted.map(|(_, value)| value.parse::<u64>().context("a UDP counter")).sum()
    }
}
