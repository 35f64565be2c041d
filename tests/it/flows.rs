//! Who talked to whom: `weft flows` against what containers and stations really did.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::PacketBuilder;
use serde_json::Value;
use weft_tests::command::Running;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::topology::{self, Container};
use weft_tests::{Arena, Daemon, Mode, Need, Station, wait};

const FILE: &str = "/run/flows.toml";

/// A daemon for which silence is short.
fn observed(arena: &Arena, mode: Mode) -> Result<Daemon> {
    fs::write(FILE, "[flows]\nidle_secs = 2\nclosed_secs = 1\n")?;
    Daemon::start_with(arena, "weft0", mode, &["-c", FILE])
}

fn pair(daemon: &Daemon) -> Result<(Container, Container)> {
    Ok((Container::new(daemon, 1)?, Container::new(daemon, 2)?))
}

fn flows(daemon: &Daemon, filters: &str) -> Result<Vec<Value>> {
    daemon.cli().json(&format!("flows {filters}"))
}

/// Waits until there is exactly one record that is asked for, and `wanted` holds for it.
fn one(daemon: &Daemon, filters: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Vec::new();
    let found = wait::until(&format!("one record: {filters}"), wait::SOON, || {
        last = flows(daemon, filters)?;
        Ok(last.first().filter(|record| last.len() == 1 && wanted(record)).cloned())
    });
    found.with_context(|| format!("{last:#?}"))
}

fn ended(reason: &str) -> impl Fn(&Value) -> bool {
    move |record| record["end_reason"] == reason
}

fn frames_of(record: &Value) -> (u64, u64) {
    let of = |name: &str| record[name].as_u64().unwrap_or(u64::MAX);
    (of("forward.frames"), of("reverse.frames"))
}

fn is_between(record: &Value, source: &str, destination: &str) -> bool {
    record["source.port_name"] == source && record["destination.port_name"] == destination
}

/// One TCP connection that carries a file and is closed in order.
fn fetch(from: &Container, to: &Container) -> Result<()> {
    fs::create_dir_all("/run/www")?;
    fs::write("/run/www/blob", vec![b'w'; 50_000])?;
    let httpd = to.serve("busybox httpd -f -p 80 -h /run/www", 80)?;
    from.namespace().run(&format!("curl -sf -m 60 -o /dev/null http://{}/blob", to.v4()))?;
    drop(httpd);
    Ok(())
}

/// A TCP segment over IPv4 that knocks.
fn syn(source: u32, destination: u32, port: u16) -> Result<Vec<u8>> {
    let (from, to) = (frames::station(source).0, frames::station(destination).0);
    let packet = PacketBuilder::ethernet2(from, to).ipv4([198, 18, 0, 101], [198, 18, 0, 102], 64);
    let mut frame = Vec::new();
    packet.tcp(port, 80, 7, 1000).syn().write(&mut frame, &[])?;
    frame.resize(frame.len().max(frames::FRAME_BYTES_MIN), 0);
    Ok(frame)
}

in_every_mode! {
    fn what_two_containers_said_is_one_record_each_with_both_ports_and_both_directions(arena, mode) {
        let daemon = observed(arena, mode)?;
        let (one_side, other_side) = pair(&daemon)?;
        one_side.ping(other_side.v4())?;
        one_side.ping(other_side.v6())?;
        fetch(&one_side, &other_side)?;
        let echo = other_side.echo()?;
        ensure!(one_side.talk(other_side.v4(), 20)?.is_perfect(20));
        drop(echo);

        let ping = one(&daemon, "--protocol icmp", |record| frames_of(record) == (3, 3))?;
        ensure!(is_between(&ping, "c1", "c2"), "{ping:#}");
        ensure!(ping["source.address"] == "198.18.0.1" && ping["icmp.type"] == 8, "{ping:#}");
        // Three times an Ethernet header, an IPv4 header and what ping sends by default.
        ensure!(ping["forward.bytes"] == 3 * (14 + 20 + 8 + 56), "{ping:#}");
        ensure!(ping["direction"] == "east_west" && ping["network.type"] == "ipv4", "{ping:#}");
        // Neighbour discovery speaks ICMPv6 too; the ping is what asks for an echo.
        wait::until_true("the ping over IPv6", wait::SOON, || {
            let all = flows(&daemon, "--protocol ipv6-icmp --from-port c1 --to-port c2 --ip 2001:db8::/64")?;
            Ok(all.iter().any(|record| record["icmp.type"] == 128 && frames_of(record) == (3, 3)))
        })?;
        let udp = one(&daemon, "--l4-port 7", |record| frames_of(record) == (20, 20))?;
        ensure!(is_between(&udp, "c1", "c2") && udp["destination.port"] == 7, "{udp:#}");

        let tcp = one(&daemon, "--protocol tcp", ended("fin"))?;
        ensure!(is_between(&tcp, "c1", "c2") && tcp["destination.port"] == 80, "{tcp:#}");
        ensure!(tcp["reverse.bytes"].as_u64() > Some(50_000), "{tcp:#}");
        ensure!(tcp["tcp.half_open"] == false && tcp["tcp.handshake_rtt_us"].is_u64(), "{tcp:#}");
        ensure!(tcp["community_id"].as_str().is_some_and(|id| id.starts_with("1:")), "{tcp:#}");
        one(&daemon, "--l4-port 7", ended("idle"))?;
        one(&daemon, "--protocol icmp", ended("idle"))?;
        drop((one_side, other_side));
        daemon.stop(arena)
    }

    fn a_refused_connection_is_a_reset_and_one_that_nobody_answers_is_half_open(arena, mode) {
        let daemon = observed(arena, mode)?;
        let (one_side, other_side) = pair(&daemon)?;
        one_side.ping(other_side.v4())?;
        let address = SocketAddr::from((other_side.v4(), 81));
        let refused = one_side.namespace().within(|| Ok(TcpStream::connect_timeout(&address, Duration::from_secs(20))))?;
        ensure!(refused.is_err(), "somebody listened");
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        a.send(&syn(1, 2, 4000)?)?;
        b.receive_until(wait::SOON, |frame| frame.ends_with(&[0; 6]))?;

        let reset = one(&daemon, "--l4-port 81", ended("reset"))?;
        ensure!(is_between(&reset, "c1", "c2") && frames_of(&reset) == (1, 1), "{reset:#}");
        ensure!(reset["tcp.resets"] == 1, "{reset:#}");
        let half = one(&daemon, "--l4-port 4000", ended("idle"))?;
        ensure!(half["tcp.half_open"] == true && frames_of(&half) == (1, 0), "{half:#}");
        ensure!(half["source.port_name"] == "a", "{half:#}");
        let shown = daemon.cli().run("flows --l4-port 4000")?;
        ensure!(shown.contains("a/198.18.0.101:4000") && shown.contains("half_open"), "{shown}");
        ensure!(shown.lines().all(|line| line.chars().count() <= 120), "{shown}");
        drop((one_side, other_side, a, b));
        daemon.stop(arena)
    }

    fn a_port_that_is_removed_ends_its_conversations_and_its_number_begins_anew(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let send = |station: &Station, from: u32, to: u32, count: u64| -> Result<()> {
            (0..count).try_for_each(|number| {
                Ok(station.send(&Builder::new(frames::station(from), frames::station(to)).number(number).build())?)
            })
        };
        b.send(&Builder::new(frames::station(2), MacAddr::BROADCAST).number(0).build())?;
        a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(0))?;
        send(&a, 1, 2, 40)?;
        b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(39))?;
        send(&b, 2, 1, 3)?;
        let live = one(&daemon, "--port a --port b --from-port a", |record| frames_of(record) == (40, 3))?;
        ensure!(live["end_reason"].is_null() && live["network.type"] == "0x88b5", "{live:#}");
        let number = daemon.cli().port("a")?.id;
        daemon.cli().run("port del a")?;
        let gone = one(&daemon, "--from-port a", ended("port_gone"))?;
        ensure!(frames_of(&gone) == (40, 3), "{gone:#}");

        topology::attach(&daemon, "a")?;
        ensure!(daemon.cli().port("a")?.id == number, "another number");
        send(&a, 1, 2, 1)?;
        let begun = one(&daemon, "--from-port a --since 1s --verdict forwarded --verdict flooded", |record| record["end_reason"].is_null())?;
        ensure!(frames_of(&begun).0 == 1, "{begun:#}");
        ensure!(daemon.cli().port("a")?.ingress.frames == 1);
        drop((a, b));
        daemon.stop(arena)
    }

    fn totals_go_on_when_the_daemon_is_killed_and_another_adopts(arena, mode) {
        let mut daemon = Daemon::start(arena, mode)?;
        let (one_side, other_side) = pair(&daemon)?;
        one_side.ping(other_side.v4())?;
        let before = one(&daemon, "--protocol icmp", |record| frames_of(record) == (3, 3))?;
        ensure!(before["resumed"] == false, "{before:#}");
        daemon.kill()?;
        if mode != Mode::Userspace {
            one_side.ping(other_side.v4())?;
        }
        daemon.launch()?;
        one_side.ping(other_side.v4())?;
        let frames = if mode == Mode::Userspace { 6 } else { 9 };
        let after = one(&daemon, "--protocol icmp", |record| frames_of(record) == (frames, frames))?;
        ensure!(after["resumed"] == true && is_between(&after, "c1", "c2"), "{after:#}");
        drop((one_side, other_side));
        daemon.stop(arena)
    }
}

/// A command that follows, and what it has written so far.
struct Following {
    _running: Running,
    file: String,
}

impl Following {
    fn start(daemon: &Daemon, words: &str, name: &str) -> Result<Self> {
        let file = format!("/run/{name}");
        let mut command = Command::new(daemon.cli().binary());
        command.args(["--name", "weft0"]).args(words.split(' ')).stdin(Stdio::null()).stdout(File::create(&file)?);
        Ok(Self { _running: Running::start(&mut command)?, file })
    }

    /// Waits until something was written that is wanted.
    fn until(&self, wanted: &str) -> Result<String> {
        wait::until(&format!("{wanted} is followed"), wait::SOON, || {
            let text = fs::read_to_string(&self.file)?;
            Ok(text.contains(wanted).then_some(text))
        })
    }
}

#[test]
fn who_follows_is_told_what_ends_and_only_what_was_asked_for() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = observed(arena, Mode::Kernel)?;
        let (one_side, other_side) = pair(&daemon)?;
        let table = Following::start(&daemon, "flows -f --not --protocol tcp", "table")?;
        table.until("TIME")?;
        let lines = Following::start(&daemon, "-o jsonl flows -f --protocol tcp", "jsonl")?;
        one_side.ping(other_side.v4())?;
        fetch(&one_side, &other_side)?;
        let told = lines.until("\"fin\"")?;
        let records: Vec<Value> = told.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
        ensure!(records.iter().all(|record| record["network.transport"] == "tcp"), "{records:#?}");
        let told = table.until("icmp")?;
        let line = told.lines().find(|line| line.contains("icmp")).context("no such line")?;
        ensure!(line.contains("c1/198.18.0.1") && line.contains("c2/198.18.0.2") && line.contains("3/3"), "{told}");
        ensure!(!told.contains("tcp"), "{told}");
        drop((table, lines, one_side, other_side));
        daemon.stop(arena)
    });
}

#[test]
fn filters_choose_and_what_they_do_not_take_is_said() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (one_side, other_side) = pair(&daemon)?;
        // Where a frame goes is known with its pair: not yet when that is asked about for the first time.
        one_side.ping(other_side.v4())?;
        let sockets = one_side.namespace().within(|| {
            let bind = |port: u16| UdpSocket::bind((one_side.v4(), port));
            Ok((5000..5010).map(bind).collect::<std::io::Result<Vec<_>>>()?)
        })?;
        for socket in &sockets {
            socket.send_to(b"hello", (other_side.v4(), 6000))?;
        }
        let count = |filters: &str| Ok::<_, anyhow::Error>(flows(&daemon, filters)?.len());
        wait::until_true("ten conversations", wait::SOON, || Ok(count("--protocol udp")? == 10))?;
        for (filters, expected) in [
            ("--l4-port 5003", 1),
            ("--l4-port 5003 --l4-port 5004", 2),
            ("--protocol udp --not --l4-port 5003", 9),
            ("--protocol 17 --ip 198.18.0.0/30 --last 4", 4),
            ("--protocol udp --from-port c2", 0),
            ("--protocol udp --to-port c2 --port c1", 10),
            ("--protocol udp --ip 198.18.1.0/24", 0),
            ("--protocol udp --verdict dropped", 0),
            ("--protocol udp --since 1h", 10),
            ("--protocol udp --since 2999-01-01T00:00:00Z", 0),
            ("--vlan 7", 0),
        ] {
            ensure!(count(filters)? == expected, "{filters}: {}", count(filters)?);
        }
        let refusal = daemon.cli().refused("flows --ip 198.18.0.256")?;
        ensure!(refusal.code == 2 && refusal.message.contains("'198.18.0.256' is not an IP address"), "{refusal:?}");
        let refusal = daemon.cli().refused_of(&["flows", "--mac", "\u{1b}[31m"])?;
        ensure!(refusal.code == 2 && !refusal.message.contains('\u{1b}'), "{refusal:?}");
        ensure!(daemon.cli().refused("flows --not")?.code == 2);
        ensure!(daemon.cli().refused("flows --last 0")?.code == 2);
        drop((sockets, one_side, other_side));
        daemon.stop(arena)
    });
}

#[test]
fn a_label_cannot_steer_the_terminal_of_who_looks() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let tap = Station::plain("a")?;
        let refusal =
            daemon.cli().refused_of(&["port", "add", "a", "--netdev", "a", "--label", "note=\u{1b}]0;owned\u{7}"])?;
        ensure!(!refusal.message.contains('\u{1b}'), "{refusal:?}");
        // No control character, but a terminal turns the line round at it.
        let added =
            daemon.cli().output_of(&["port", "add", "a", "--netdev", "a", "--label", "note=\u{202e}\"quoted\""])?;
        ensure!(added.status.success(), "{added:?}");
        daemon.until_state("a", "up", wait::SOON)?;
        tap.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(1).build())?;
        let record = one(&daemon, "--from-port a", |record| frames_of(record) == (1, 0))?;
        ensure!(record["source.labels"]["note"] == "\u{202e}\"quoted\"", "{record:#}");
        let shown = daemon.cli().run("-o wide flows --from-port a")?;
        ensure!(shown.contains("note=\\u{202e}\\\"quoted\\\"") && !shown.contains('\u{202e}'), "{shown}");
        drop(tap);
        daemon.stop(arena)
    });
}
