//! Metrics as Prometheus finds them, and what guests and scrapers cannot do to them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use weft_tests::command::{feed, text, words};
use weft_tests::frames::{self, MacAddr};
use weft_tests::prometheus::Prometheus;
use weft_tests::scrape::{self, Scrape};
use weft_tests::topology::{self, Container};
use weft_tests::{Arena, Builder, Daemon, Mode, Need, Station, wait};

in_every_mode! {
    /// The table of ports, which other tests hold against the kernel's own counters, is the oracle.
    fn ports_are_told_as_the_table_of_ports_tells_them(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (one, two) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
        one.ping(two.v4())?;
        one.ping(two.v6())?;
        let _server = two.serve("iperf3 -s -p 5201", 5201)?;
        text(&mut one.iperf3(two.v4(), "-n 4M"))?;
        daemon.settle()?;
        let (ports, told) = wait::until("flows are read, and nothing moves", wait::SOON, || {
            let ports = daemon.cli().ports()?;
            let told = Scrape::now()?;
            if format!("{ports:?}") != format!("{:?}", daemon.cli().ports()?) {
                return Ok(None);
            }
            // What flows tell is exactly what ports tell.
            let ingress = told.value("weft_port_ingress_bytes_total{port=\"c1\"}")?;
            Ok((ingress > 1e6 && (from_c1(&told)? - ingress).abs() < 0.5).then_some((ports, told)))
        })?;
        for port in ports {
            let of = |name: &str| told.value(&format!("weft_port_{name}{{port=\"{}\"}}", port.name));
            ensure!(same(of("ingress_frames_total")?, port.ingress.frames), "{port:?}\n{}", told.text());
            ensure!(same(of("ingress_wire_frames_total")?, port.ingress.wire_frames), "{port:?}\n{}", told.text());
            ensure!(same(of("ingress_bytes_total")?, port.ingress.bytes), "{port:?}\n{}", told.text());
            ensure!(same(of("egress_frames_total")?, port.egress.frames), "{port:?}\n{}", told.text());
            ensure!(same(of("egress_bytes_total")?, port.egress.bytes), "{port:?}\n{}", told.text());
            ensure!(same(of("up")?, 1));
            ensure!(of("last_useful_frame_timestamp_seconds")? > 1.7e9);
        }
        ensure!(told.value("weft_flows_total{transport=\"tcp\"}")? >= 2.0, "{}", told.text());
        ensure!(told.value("weft_handshake_rtt_seconds_count{port=\"c2\"}")? >= 1.0, "{}", told.text());
        ensure!(same(told.value("weft_stations")?, 2));
        daemon.cli().run("port del c2")?;
        let gone = Scrape::now()?;
        ensure!(!gone.text().contains("\"c2\""), "{}", gone.text());
        ensure!(gone.text().contains("\"c1\""));
        daemon.stop(arena)
    }

    fn a_guest_that_forges_addresses_adds_no_series(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let guest = topology::station(&daemon, "guest")?;
        let other = topology::station(&daemon, "other")?;
        let series = || -> Result<BTreeSet<String>> { Ok(Scrape::now()?.series().map(ToOwned::to_owned).collect()) };
        forge(&guest, &other, 0..4000)?;
        until_counted(4000)?;
        let before = series()?;
        forge(&guest, &other, 4000..12_000)?;
        until_counted(12_000)?;
        let mut after = series()?;
        // A reason may occur for the first time; there are as many as there are.
        after.retain(|series| before.contains(series) || !series.starts_with("weft_drop_"));
        ensure!(before == after, "{:?}", after.symmetric_difference(&before).collect::<Vec<_>>());
        ensure!(after.len() < 200, "{} series for two ports", after.len());
        daemon.stop(arena)
    }
}

/// Bytes that the first container sent, to whomever.
fn from_c1(told: &Scrape) -> Result<f64> {
    let of = |series: &&str| series.starts_with("weft_pair_bytes_total{source=\"c1\"");
    told.series().filter(of).map(|series| told.value(series)).sum()
}

#[expect(clippy::cast_precision_loss, reason = "tests count less than 2⁵³")]
fn same(told: f64, counted: u64) -> bool {
    (told - counted as f64).abs() < 0.5
}

/// Frames from addresses that are nobody's to addresses that are nobody's, each a flow of its own.
fn forge(guest: &Station, other: &Station, numbers: std::ops::Range<u32>) -> Result<()> {
    for number in numbers {
        let [a, b, c, d] = number.to_be_bytes();
        let ip = [0x45, 0, 0, 28, 0, 1, 0x40, 0, 64, 17, 0, 0, 198, 18 + (a & 1), c, d, 198, 19, d, c];
        let udp = [c, d, d, c, 0, 8, 0, 0, 0, b];
        let ethertype = [0x0800, 0x86dd, 0x88b5][number as usize % 3];
        let frame = Builder::new(frames::station(1000 + number), frames::station(9_000_000 + number))
            .ethertype(ethertype)
            .payload(&[&ip[..], &udp].concat());
        wait::until("the tap takes a frame", wait::SOON, || match guest.send(&frame.build()) {
            Ok(()) => Ok(Some(())),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        })?;
        if number % 64 == 0 {
            other.drain()?;
        }
    }
    Ok(())
}

/// Waits until so many frames of the guest are counted, and the brain has decided what came to it.
fn until_counted(frames: u64) -> Result<()> {
    wait::until_true("all frames are counted", wait::SOON, || {
        let told = Scrape::now()?;
        Ok(told.value("weft_port_ingress_frames_total{port=\"guest\"}")? >= f64::from(u32::try_from(frames)?)
            && told.value("weft_flows_total{transport=\"udp\"}")? > 0.0
            && told.series().any(|series| series.starts_with("weft_pair_bytes_total{source=\"guest\"")))
    })
}

#[test]
fn promtool_and_prometheus_read_what_is_told() {
    Arena::run(&[Need::Bpf, Need::Prometheus], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (one, two) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
        one.ping(two.v4())?;
        let told = Scrape::now()?;
        let complaints = feed(&mut words("promtool check metrics"), told.text().as_bytes())?;
        ensure!(complaints.is_empty(), "{complaints}");
        let landing = text(&mut words(&format!("curl -sf -m 20 http://{}/", scrape::ADDRESS)))?;
        ensure!(landing.contains("href=\"/metrics\""), "{landing}");

        let config = format!(
            "scrape_configs:\n- job_name: weft\n  scrape_interval: 1s\n  static_configs:\n  - targets: [\"{}\"]\n",
            scrape::ADDRESS
        );
        let prometheus = Prometheus::start(&config, &[])?;
        ensure!(same(prometheus.value("up{job=\"weft\"}")?, 1));
        ensure!(same(prometheus.value("sum(weft_port_up)")?, 2));
        let frames = prometheus.value("sum(weft_port_ingress_frames_total)")?;
        ensure!(frames >= 6.0, "{frames}");
        drop(prometheus);
        daemon.stop(arena)
    });
}

#[test]
fn nonsense_on_the_metrics_port_is_refused() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let before = daemon.resident_kib()?;
        let close = "host: weft\r\nconnection: close\r\n\r\n";
        for (line, statuses) in [
            ("POST /metrics", &["405"][..]),
            ("DELETE /metrics", &["405"]),
            ("GET /metrics/..%2f..%2fetc/passwd", &["404"]),
            ("GET /v1/ports", &["404"]),
            ("GET /metrics?match[]=up", &["200"]),
            ("HEAD /metrics", &["200"]),
        ] {
            let answer = scrape::ask(format!("{line} HTTP/1.1\r\n{close}").as_bytes())?;
            ensure!(
                statuses.iter().any(|status| answer.starts_with(&format!("HTTP/1.1 {status} "))),
                "{line}: {answer}"
            );
        }
        let huge = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n{close}", "y".repeat(1 << 20));
        let many = format!("GET /metrics HTTP/1.1\r\n{}{close}", "x: y\r\n".repeat(10_000));
        for bytes in
            [huge.as_bytes(), many.as_bytes(), b"\x16\x03\x01\x02\0\x01", b"\0\0\0\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
        {
            let answer = scrape::ask(bytes)?;
            ensure!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        }
        Scrape::now()?;
        let after = daemon.resident_kib()?;
        ensure!(after < before + 8 * 1024, "{before} KiB became {after} KiB");
        daemon.stop(arena)
    });
}

#[test]
fn a_metrics_port_that_is_taken_is_said_and_nothing_is_left() {
    Arena::run(&[Need::Bpf], |arena| {
        let taken = std::net::TcpListener::bind(scrape::ADDRESS)?;
        let refusal = Daemon::start(arena, Mode::Kernel).err().context("it started")?;
        let refusal = format!("{refusal:#}");
        for word in ["cannot listen on 127.0.0.1:9798 for metrics", "choose another address with --metrics"] {
            ensure!(refusal.contains(word), "{refusal}");
        }
        ensure!(arena.netdevs()?.is_empty());
        drop(taken);
        Daemon::start(arena, Mode::Kernel)?.stop(arena)
    });
}

/// A thousand that ask at once, a fifth of them without ever ending their question, and none in a hurry to read.
#[test]
fn a_thousand_scrapers_hold_up_neither_traffic_nor_commands() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let hello = |from: u32, number| Builder::new(frames::station(from), MacAddr::BROADCAST).number(number).build();
        for (from, to, number) in [(&a, &b, 1), (&b, &a, 2)] {
            from.send(&hello(number, number.into()))?;
            to.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(number.into()))?;
        }
        let before = daemon.resident_kib()?;
        let mut scrapers = Vec::new();
        for number in 0..1000 {
            let mut stream = scrape::connect()?;
            let question = if number % 5 == 1 {
                "GET /metr"
            } else {
                "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            };
            stream.write_all(question.as_bytes())?;
            scrapers.push(stream);
        }
        for number in 10..510 {
            let frame = Builder::new(frames::station(1), frames::station(2)).number(number).build();
            a.send(&frame)?;
            b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(number))?;
        }
        let start = Instant::now();
        ensure!(daemon.cli().ports()?.len() == 2);
        ensure!(start.elapsed().as_secs() < 5, "a command took {:?}", start.elapsed());
        let after = daemon.resident_kib()?;
        ensure!(after < before + 16 * 1024, "{before} KiB became {after} KiB");
        // The mute ones are shown out, so who asks is answered.
        let mut answer = [0; 15];
        scrapers.first_mut().context("a scraper")?.read_exact(&mut answer)?;
        ensure!(&answer == b"HTTP/1.1 200 OK", "{answer:?}");
        drop(scrapers);
        Scrape::now()?;
        daemon.stop(arena)
    });
}

#[test]
fn counters_of_ports_go_on_over_a_restart() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, Mode::Kernel)?;
        let (one, two) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
        one.ping(two.v4())?;
        daemon.settle()?;
        let before = Scrape::now()?;
        daemon.kill()?;
        daemon.launch()?;
        let after = wait::until("the ports are back", wait::SOON, || {
            let told = Scrape::now()?;
            Ok(told.value("weft_port_up{port=\"c2\"}").is_ok_and(|up| up > 0.0).then_some(told))
        })?;
        for series in before.series().filter(|series| series.starts_with("weft_port_") && series.contains("_total")) {
            ensure!(after.value(series)? >= before.value(series)?, "{series} fell over a restart");
        }
        daemon.stop(arena)
    });
}
