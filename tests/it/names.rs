//! DNS and DHCP as real servers and hostile ones speak them; captures, with tshark as the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use etherparse::{LaxSlicedPacket, TransportSlice};
use serde_json::Value;
use weft::names::{Register, Saying, tell};
use weft_tests::command;
use weft_tests::scrape::Scrape;
use weft_tests::topology::Container;
use weft_tests::{Arena, Daemon, Namespace, Need, pcap, requirements, wait};

const FILE: &str = "/run/names.toml";
/// What dnsmasq is told not to read, and to do: to know nothing but what its arguments say.
const DNSMASQ: &str = "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --user=root --pid-file= --log-facility=/run/dnsmasq.log";

/// A query in the wire's form.
fn query(id: u16, labels: &[&[u8]], query_type: u16) -> Vec<u8> {
    let mut bytes = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in labels {
        bytes.push(u8::try_from(label.len()).unwrap_or(63));
        bytes.extend(*label);
    }
    bytes.extend([0, 0]);
    bytes.pop();
    bytes.extend(query_type.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}

/// Asks a server; its answer and how long it took.
fn ask(client: &Container, server: SocketAddr, message: &[u8]) -> Result<(Vec<u8>, Duration)> {
    let socket = client.namespace().within(|| Ok(UdpSocket::bind((client.v4(), 0))?))?;
    socket.set_read_timeout(Some(wait::SOON))?;
    let began = Instant::now();
    socket.send_to(message, server)?;
    let mut room = [0; 2048];
    let (bytes, _) = socket.recv_from(&mut room)?;
    let took = began.elapsed();
    Ok((room.get(..bytes).context("within")?.to_vec(), took))
}

fn until_told(daemon: &Daemon, kind: &str, name: &str) -> Result<Value> {
    wait::until(&format!("{kind} of {name}"), wait::SOON, || {
        let events: Vec<Value> = daemon.cli().json(&format!("events --kind {kind}"))?;
        Ok(events.into_iter().find(|event| event["name"] == name))
    })
}

fn value(series: &str) -> Result<f64> {
    Ok(Scrape::now()?.value(series).unwrap_or(0.0))
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte))
}

/// Nothing that anybody is shown speaks to a terminal.
fn shows_plain_text(daemon: &Daemon) -> Result<()> {
    for words in ["events", "-o json events", "-o jsonl events", "who c1", "-o json who c1"] {
        let shown = daemon.cli().run(words)?;
        ensure!(is_plain(&shown), "{words}: {}", shown.escape_debug());
    }
    ensure!(is_plain(&daemon.log()), "{}", daemon.log().escape_debug());
    Ok(())
}

in_every_mode! {
    fn dns_is_told_as_dnsmasq_answers_it(arena, mode) {
        if !requirements::met(&[Need::Dnsmasq]) {
            return Ok(());
        }
        fs::write(FILE, "[names]\ndns_timeout_secs = 1\n")?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let (client, server) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
        let known = "--local=/example/ --address=/www.example/198.18.0.2 --address=/www.example/2001:db8::2";
        let dnsmasq = server.serve(&format!("{DNSMASQ} {known}"), 53)?;
        let at = SocketAddr::from((server.v4(), 53));
        let www: &[&[u8]] = &[b"wWw", b"eXample"];
        for (id, labels, query_type, rcode, shown) in [
            (1, www, 1, "noerror", "A"),
            (2, www, 28, "noerror", "AAAA"),
            (3, &[b"nothing", b"example"], 1, "nxdomain", "A"),
            (4, &[b"elsewhere", b"invalid"], 15, "refused", "MX"),
        ] {
            let (_, took) = ask(&client, at, &query(id, labels, query_type))?;
            let name = labels.join(&b'.').to_ascii_lowercase();
            let event = wait::until("it is told", wait::SOON, || {
                let events: Vec<Value> = daemon.cli().json("events --kind dns_answer --port c1")?;
                Ok(events.into_iter().find(|it| {
                    it["query_type"] == shown && it["name"].as_str().map(str::as_bytes) == Some(&name[..])
                }))
            })?;
            ensure!(event["rcode"] == rcode && event["address"] == "198.18.0.1" && event["server"] == "198.18.0.2", "{event}");
            let latency = event["latency_us"].as_u64().context("no latency")?;
            ensure!(u128::from(latency) <= took.as_micros(), "{latency} us, and the client waited {took:?}");
        }
        // Nobody listens there: an ICMP error is no answer.
        let socket = client.namespace().within(|| Ok(UdpSocket::bind((client.v4(), 0))?))?;
        drop(dnsmasq);
        socket.send_to(&query(5, &[b"lost", b"example"], 1), at)?;
        until_told(&daemon, "dns_timeout", "lost.example")?;
        wait::until_true("it is counted", wait::SOON, || {
            let answers = |rcode: &str| value(&format!("weft_dns_answers_total{{port=\"c1\",rcode=\"{rcode}\"}}"));
            let sums = [answers("noerror")?, answers("nxdomain")?, answers("refused")?, value("weft_dns_timeouts_total{port=\"c1\"}")?];
            let asked = value("weft_dns_queries_total{port=\"c1\"}")?;
            Ok(sums.map(|it| it.to_string()) == ["2", "1", "1", "1"] && asked > 4.5 && asked < 5.5)
        })?;
        ensure!(value("weft_dns_latency_seconds_count{port=\"c1\"}")? > 3.5);
        client.ping(server.v4())?;
        wait::until_true("the server has a name", wait::SOON, || {
            let holders: Vec<Value> = daemon.cli().json("who 198.18.0.2")?;
            Ok(holders.iter().any(|holder| holder["names"][0] == "www.example" && holder["port"] == "c2"))
        })?;
        drop((client, server));
        daemon.stop(arena)
    }

    fn a_hostile_responder_is_not_believed_and_harms_nobody(arena, mode) {
        fs::write(FILE, "[names]\ndns_timeout_secs = 1\n")?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let (client, server) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
        client.ping(server.v4())?;
        let at = SocketAddr::from((server.v4(), 53));
        let evil = server.namespace().within(|| Ok(UdpSocket::bind(at)?))?;
        evil.set_read_timeout(Some(wait::SOON))?;
        let asked = query(7, &[b"www", b"example"], 1);
        let header = |id: u16, questions: u8| [&id.to_be_bytes()[..], &[0x80, 0, 0, questions, 0, 1, 0, 0, 0, 0]].concat();
        let with = |id, questions, rest: &[u8]| [&header(id, questions)[..], rest].concat();
        let long = [&[63; 64][..], &[63; 64], &[63; 64], &[63; 64], &[63; 64]].concat();
        let malformed = [
            with(7, 1, &[0xc0, 12, 0, 1, 0, 1]),
            with(7, 1, &[0xc0, 14, 0xc0, 12, 0, 1, 0, 1]),
            with(7, 1, &[1, b'a', 0xc0, 12, 0, 1, 0, 1]),
            with(7, 1, &[0xff, 0xff, 0, 1, 0, 1]),
            with(7, 1, &long),
            with(7, 1, &[0x40, 1, 2, 3]),
            with(7, 0xff, &asked[12..]),
            header(7, 1)[..7].to_vec(),
        ];
        let mut wrong_id = asked.clone();
        (wrong_id[1], wrong_id[2]) = (8, 0x80);
        let mut other_name = query(7, &[b"evil\x1b[2J", b"example"], 1);
        other_name[2] = 0x80;
        let reply = thread::spawn({
            let (malformed, unmatched) = (malformed.clone(), [wrong_id, other_name]);
            move || -> Result<()> {
                let mut room = [0; 512];
                let (_, from) = evil.recv_from(&mut room)?;
                for message in malformed.iter().chain(&unmatched) {
                    evil.send_to(message, from)?;
                }
                // Without a question, and refused: all that there is to believe is the code.
                evil.send_to(&[0, 7, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0], from)?;
                Ok(())
            }
        });
        ask(&client, at, &asked)?;
        reply.join().ok().context("the responder panicked")??;
        let answer = until_told(&daemon, "dns_answer", "www.example")?;
        ensure!(answer["rcode"] == "refused", "{answer}");
        wait::until_true("all of it is counted", wait::SOON, || {
            let ignored = |cause: &str| value(&format!("weft_dns_ignored_messages_total{{port=\"c2\",cause=\"{cause}\"}}"));
            Ok(ignored("malformed")?.to_string() == malformed.len().to_string() && ignored("unmatched")?.to_string() == "2")
        })?;
        // A guest asks for names that speak to terminals, and that lie about where they end.
        let socket = client.namespace().within(|| Ok(UdpSocket::bind((client.v4(), 0))?))?;
        socket.send_to(&query(9, &[b"\x1b]0;owned\x07\x1b[2J", b"a.b\n{\"lost\":1}"], 16), at)?;
        let timeout = until_told(&daemon, "dns_timeout", "\\027]0;owned\\007\\027[2j.a\\.b\\010{\"lost\":1}")?;
        ensure!(timeout["query_type"] == "TXT", "{timeout}");
        shows_plain_text(&daemon)?;
        ensure!(daemon.cli().json::<Vec<Value>>("events --kind dns_answer")?.len() == 1);
        drop((client, server));
        daemon.stop(arena)
    }

    fn a_lease_is_bound_to_its_clients_port_with_the_name_it_gave(arena, mode) {
        if !requirements::met(&[Need::Dnsmasq]) {
            return Ok(());
        }
        let daemon = Daemon::start(arena, mode)?;
        let server = Container::new(&daemon, 1)?;
        let guest = Namespace::new("guest")?;
        daemon.cli().run("port add guest --netns guest")?;
        daemon.until_state("guest", "up", wait::SOON)?;
        let leases = "--dhcp-range=198.18.0.100,198.18.0.150,255.255.255.0,1h --dhcp-leasefile=/run/leases --dhcp-authoritative";
        let dnsmasq = server.serve(&format!("{DNSMASQ} {leases}"), 53)?;
        let mut udhcpc = guest.command("busybox udhcpc -i eth0 -n -q -f -t 10 -T 1 -s /bin/true -x hostname:web1");
        let said = command::output(udhcpc.stdin(Stdio::null()))?;
        let said = String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
        let (_, rest) = said.split_once("lease of ").with_context(|| said.clone())?;
        let address = rest.split([' ', ',']).next().context("no address")?;
        let mac = guest.run("cat /sys/class/net/eth0/address")?.trim().to_owned();
        let holder = wait::until("the lease is known", wait::SOON, || {
            let holders: Vec<Value> = daemon.cli().json(&format!("who {address}"))?;
            Ok(holders.into_iter().find(|holder| holder["source"] == "dhcp"))
        })?;
        ensure!(holder["port"] == "guest" && holder["mac"] == mac && holder["names"][0] == "web1", "{holder}");
        eprintln!("$ weft who {address}\n{}", daemon.cli().run(&format!("who {address}"))?);
        let by_mac: Vec<Value> = daemon.cli().json(&format!("who {mac}"))?;
        ensure!(by_mac.iter().any(|holder| holder["address"] == address), "{by_mac:?}");
        let events: Vec<Value> = daemon.cli().json("events --kind binding_new --port guest")?;
        ensure!(events.iter().any(|it| it["source"] == "dhcp" && it["name"] == "web1"), "{events:?}");
        drop((dnsmasq, guest, server));
        daemon.stop(arena)
    }
}

/// The first name of each DNS message that tshark found, by frame number, where nothing is wrapped around it.
fn by_tshark(file: &Path) -> Result<BTreeMap<usize, String>> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args([
        "-Y",
        "dns && udp.port == 53 && dns.flags.opcode == 0 && !_ws.malformed",
        "-T",
        "fields",
    ]);
    tshark.args(["-e", "frame.number", "-e", "frame.protocols", "-e", "dns.qry.name", "-E", "occurrence=f"]);
    tshark.args(["-o", "ip.defragment:false", "-o", "ipv6.defragment:false"]);
    let said = command::output(tshark.stdin(Stdio::null()))?;
    let mut names = BTreeMap::new();
    for line in String::from_utf8_lossy(&said.stdout).lines() {
        let mut fields = line.split('\t');
        let (Some(number), Some(protocols), Some(name)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let plain =
            ["eth:ethertype:ip:udp:dns", "eth:ethertype:ipv6:udp:dns", "eth:ethertype:vlan:ethertype:ip:udp:dns"];
        if plain.contains(&protocols) && !name.is_empty() {
            names.insert(number.parse()?, name.to_ascii_lowercase());
        }
    }
    Ok(names)
}

fn is_dns(frame: &[u8]) -> bool {
    let packet = LaxSlicedPacket::from_ethernet(frame);
    let udp = packet.ok().and_then(|packet| packet.transport);
    matches!(udp, Some(TransportSlice::Udp(udp)) if udp.source_port() == 53 || udp.destination_port() == 53)
}

/// The first name of a DNS message as we read it, in tshark's way of writing.
fn by_us(frame: &[u8]) -> Option<String> {
    match tell(frame)?.saying {
        Saying::Dns { message: Ok(message), .. } => {
            let name = message.question?.name;
            Some(if name == "." { "<root>".to_owned() } else { name })
        }
        Saying::Dns { message: Err(_), .. } | Saying::Dhcp(_) | Saying::Neighbour(_) => None,
    }
}

#[test]
fn captures_are_heard_without_harm_and_their_names_are_tsharks() {
    Arena::run(&[Need::Pcaps, Need::Tshark], |_| {
        let folder = requirements::pcaps().context("WEFT_PCAPS")?;
        let limits = weft::config::Names::default().limits;
        let (mut files, mut frames, mut same, mut differing) = (0, 0, 0, BTreeSet::new());
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let Ok(bytes) = fs::read(&path) else { continue };
            let capture = pcap::read(&bytes);
            let mut register = Register::new(limits);
            for frame in &capture.frames {
                let beginning = frame.get(..384).unwrap_or(frame);
                for event in register.hear(&"a".into(), beginning, |_| true, Default::default()) {
                    ensure!(is_plain(&event.sentence()), "{}", event.sentence().escape_debug());
                }
            }
            frames += capture.frames.len();
            files += 1;
            // Frame numbers are tshark's only where all packets are Ethernet's.
            if capture.others > 0 || !capture.frames.iter().any(|frame| is_dns(frame)) {
                continue;
            }
            let theirs = by_tshark(&path)?;
            for (number, name) in theirs {
                let Some(frame) = capture.frames.get(number - 1) else { continue };
                match by_us(frame) {
                    Some(ours) if ours == name => same += 1,
                    ours => {
                        differing.insert(format!("{} {number}: {name:?} {ours:?}", path.display()));
                    }
                }
            }
        }
        eprintln!(
            "{frames} frames of {files} files; {same} names are tshark's, {} are not: {differing:#?}",
            differing.len()
        );
        ensure!(files > 100 && same > 50, "too few to tell");
        ensure!(differing.is_empty());
        Ok(())
    });
}
