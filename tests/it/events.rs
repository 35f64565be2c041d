//! Events: stations, addresses that two claim, ports that fall silent; told once, limited, counted, remembered.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::command::Running;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::scrape::Scrape;
use weft_tests::topology::{self, Container};
use weft_tests::{Daemon, Station, wait};

const FILE: &str = "/run/events.toml";

/// Events of a kind.
fn told(daemon: &Daemon, kind: &str) -> Result<Vec<Value>> {
    daemon.cli().json(&format!("events --kind {kind}"))
}

/// Waits for an event of a kind that has these words.
fn until_told(daemon: &Daemon, kind: &str, words: &[(&str, &str)]) -> Result<Value> {
    wait::until(&format!("{kind} {words:?}"), wait::SOON, || {
        let events = told(daemon, kind)?;
        Ok(events.into_iter().find(|event| words.iter().all(|(word, value)| event[word] == *value)))
    })
}

fn counted(kind: &str) -> Result<u64> {
    let value = Scrape::now()?.value(&format!("weft_events_total{{kind=\"{kind}\"}}"))?;
    Ok(whole(value))
}

fn suppressed(kind: &str) -> Result<u64> {
    Ok(whole(Scrape::now()?.value(&format!("weft_events_suppressed_total{{kind=\"{kind}\"}}"))?))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count is a whole number")]
fn whole(value: f64) -> u64 {
    value as u64
}

fn from(number: u32) -> Vec<u8> {
    Builder::new(frames::station(number), frames::station(99)).build()
}

/// Stations that nobody has heard of.
fn storm(station: &Station, count: u32) -> Result<()> {
    for number in 0..count {
        station.send(&from(10_000 + number))?;
        if number % 100 == 99 {
            wait::until_true("they are through", wait::SOON, || Ok(counted("new_station")? > u64::from(number)))?;
        }
    }
    Ok(())
}

/// `weft events -f`, into a file.
fn follow(daemon: &Daemon, format: &str, filter: &str, into: &str) -> Result<Running> {
    let mut command = Command::new(daemon.cli().binary());
    command.args(["-o", format, "events", "-f"]).args(filter.split_whitespace()).stdin(Stdio::null());
    Running::start(command.stdout(File::create(into)?).stderr(File::create(format!("{into}.err"))?))
}

/// An ARP request by which a station says that an address is its own.
fn claim(mac: MacAddr, last: u8) -> Vec<u8> {
    let body = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac.0, &[198, 18, 0, last], &[0; 6], &[198, 18, 0, 99]].concat();
    Builder::new(mac, MacAddr([0xff; 6])).ethertype(0x0806).payload(&body).build()
}

in_every_mode! {
    fn stations_that_are_new_or_moved_are_told_to_everybody_who_asks(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let all = follow(&daemon, "jsonl", "", "/run/all")?;
        let some = follow(&daemon, "table", "--kind station_moved --port b", "/run/some")?;
        // They follow once what happens is told to them.
        let mut number = 0;
        wait::until_true("both follow", wait::SOON, || {
            number += 1;
            let station = frames::station(1000 + number);
            a.send(&Builder::new(station, frames::station(99)).build())?;
            b.send(&Builder::new(station, frames::station(99)).build())?;
            Ok(!fs::read_to_string("/run/all")?.is_empty() && !fs::read_to_string("/run/some")?.is_empty())
        })?;
        let mac = frames::station(1).to_string();
        a.send(&from(1))?;
        until_told(&daemon, "new_station", &[("mac", &mac), ("port", "a")])?;
        b.send(&from(1))?;
        let moved = until_told(&daemon, "station_moved", &[("mac", &mac), ("port", "b")])?;
        ensure!(moved["other_port"] == "a", "{moved}");
        wait::until_true("it is told to who follows", wait::SOON, || {
            let (all, some) = (fs::read_to_string("/run/all")?, fs::read_to_string("/run/some")?);
            let sentence = format!("station {mac} moved from port a to port b");
            let lines = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(lines.into_iter().any(|line| line == moved) && some.contains(&sentence))
        })?;
        ensure!(!fs::read_to_string("/run/some")?.contains("new station"));
        for line in fs::read_to_string("/run/all")?.lines() {
            serde_json::from_str::<Value>(line)?;
        }
        ensure!(daemon.log().contains(&format!("new station {mac} at port a")), "{}", daemon.log());
        ensure!(counted("station_moved")? >= 1 && counted("duplicate_address")? == 0);
        ensure!(told(&daemon, "station_moved --port c")?.is_empty());
        let refused = daemon.cli().refused("events --kind earthquake")?;
        ensure!(refused.code == 2 && refused.message.contains("new_station"), "{refused:?}");
        drop((all, some));
        daemon.stop(arena)
    }

    fn what_happened_before_a_stop_and_before_a_kill_is_found_once_by_time_kind_and_port(arena, mode) {
        let mut daemon = Daemon::start(arena, mode)?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        let mac = frames::station(1).to_string();
        a.send(&from(1))?;
        until_told(&daemon, "new_station", &[("mac", &mac), ("port", "a")])?;
        b.send(&from(1))?;
        until_told(&daemon, "station_moved", &[("mac", &mac), ("port", "b"), ("other_port", "a")])?;
        let all = |daemon: &Daemon, words: &str| daemon.cli().json::<Vec<Value>>(&format!("events {words}"));
        let ours = |events: Vec<Value>| events.into_iter().filter(|event| event["mac"] == mac).collect::<Vec<_>>();
        // Memory and file have both of them; they are told once.
        let before = ours(all(&daemon, "--since 1h")?);
        ensure!(before.len() == 2 && before == ours(all(&daemon, "")?), "{before:#?}");
        daemon.terminate()?;
        daemon.launch()?;
        ensure!(ours(all(&daemon, "")?).is_empty(), "memory knows what an earlier daemon told");
        ensure!(ours(all(&daemon, "--since 1h")?) == before);
        // One more, which a question has written before the daemon is killed.
        topology::attach(&daemon, "a")?;
        let other = frames::station(2).to_string();
        wait::until_true("it is heard", wait::SOON, || {
            a.send(&from(2))?;
            Ok(all(&daemon, "--kind new_station --port a")?.iter().any(|event| event["mac"] == other))
        })?;
        let told = all(&daemon, "--since 1h")?;
        daemon.kill()?;
        daemon.launch()?;
        let kept = all(&daemon, "--since 1h")?;
        ensure!(told.iter().all(|event| kept.iter().filter(|it| *it == event).count() == 1), "{told:#?}\n{kept:#?}");
        ensure!(ours(kept) == before);
        for (words, count) in [
            ("--since 1h --kind station_moved", 1),
            ("--since 1h --kind station_moved --kind new_station", 2),
            ("--since 1h --kind station_moved --port a", 1),
            ("--since 1h --kind new_station --port a", 1),
            ("--since 1h --kind new_station --port b", 0),
            ("--since 1h --until 30m", 0),
            ("--until 1970-01-02T00:00:00Z", 0),
            ("--since 2099-01-01T00:00:00Z", 0),
        ] {
            let found = ours(all(&daemon, words)?);
            ensure!(found.len() == count, "{words}: {found:#?}");
        }
        for words in ["events -f --since 1h", "events --since yesterday"] {
            ensure!(daemon.cli().refused(words)?.code == 2, "{words}");
        }
        ensure!(Scrape::now()?.value("weft_observation_lost_total{stage=\"history\"}")? < 0.5);
        daemon.stop(arena)
    }

    fn an_address_that_two_claim_is_told_and_who_says_who_they_are(arena, mode) {
        let mut daemon = Daemon::start(arena, mode)?;
        let (one, two, three) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?, Container::new(&daemon, 3)?);
        one.ping(three.v4())?;
        one.ping(three.v6())?;
        let bound = until_told(&daemon, "binding_new", &[("address", "198.18.0.1"), ("port", "c1")])?;
        let before = bound["time"].as_str().context("no time")?;
        until_told(&daemon, "binding_new", &[("address", "2001:db8::1"), ("port", "c1"), ("source", "nd")])?;
        ensure!(told(&daemon, "duplicate_address")?.is_empty());
        // The second one takes the first one's address, and asks for the third.
        two.namespace().run("ip addr add 198.18.0.1/24 dev eth0")?;
        two.namespace().run("ip addr del 198.18.0.2/24 dev eth0")?;
        two.namespace().run("ip addr add 198.18.0.1/24 dev eth0").ok();
        three.namespace().run("ip neigh flush dev eth0")?;
        Running::start(two.namespace().command("ping -n -c 1 -W 1 198.18.0.3").stdout(Stdio::null()))?.wait(wait::SOON)?;
        let duplicate = until_told(&daemon, "duplicate_address", &[("address", "198.18.0.1")])?;
        let ports = [&duplicate["port"], &duplicate["other_port"]];
        ensure!(ports.iter().any(|port| *port == "c1") && ports.iter().any(|port| *port == "c2"), "{duplicate}");
        ensure!(duplicate["mac"] != duplicate["other_mac"]);
        // The third one wants the first one's IPv6 address, and looks whether it is taken, as RFC 4862 has it.
        three.namespace().run("sysctl -qw net.ipv6.conf.eth0.accept_dad=1 net.ipv6.conf.eth0.dad_transmits=1")?;
        three.namespace().run("ip addr add 2001:db8::1/64 dev eth0")?;
        let detected = until_told(&daemon, "duplicate_address", &[("address", "2001:db8::1"), ("port", "c3")])?;
        ensure!(detected["other_port"] == "c1" && detected["source"] == "probe", "{detected}");
        wait::until_true("the kernel has seen it, too", wait::SOON, || {
            Ok(three.namespace().run("ip -6 addr show dev eth0")?.contains("dadfailed"))
        })?;
        ensure!(counted("duplicate_address")? >= 2 && daemon.log().contains("198.18.0.1 is claimed by "));

        let shown = daemon.cli().run("who 198.18.0.1")?;
        eprintln!("$ weft who 198.18.0.1\n{shown}");
        eprintln!("$ weft events --kind duplicate_address\n{}", daemon.cli().run("events --kind duplicate_address")?);
        let holders: Vec<Value> = daemon.cli().json("who 198.18.0.1")?;
        let mut held: Vec<_> = holders.iter().filter_map(|holder| holder["port"].as_str()).collect();
        held.sort_unstable();
        ensure!(held == ["c1", "c2"], "{holders:?}");
        for holder in &holders {
            let mac = holder["mac"].as_str().context("no mac")?;
            let port = holder["port"].as_str().context("no port")?;
            let own: Vec<Value> = daemon.cli().json(&format!("who {mac}"))?;
            ensure!(own.iter().all(|it| it["port"] == port) && !own.is_empty(), "{own:?}");
            let address = daemon.cli().json::<Vec<Value>>(&format!("who {port}"))?;
            ensure!(address.iter().any(|it| it["address"] == "198.18.0.1"), "{address:?}");
        }
        let then: Vec<Value> = daemon.cli().json(&format!("who 198.18.0.1 --at {before}"))?;
        ensure!(then.len() == 1 && then[0]["port"] == "c1", "{then:?}");
        ensure!(daemon.cli().json::<Vec<Value>>("who 198.18.0.1 --at 1d")?.is_empty());

        daemon.settle()?;
        wait::until_true("it is written down", wait::SOON, || {
            let written = fs::read_to_string(daemon.state().join("names.json")).unwrap_or_default();
            Ok(written.contains("198.18.0.1") && written.contains("2001:db8::1"))
        })?;
        daemon.kill()?;
        daemon.launch()?;
        ensure!(daemon.cli().json::<Vec<Value>>("who 198.18.0.1")?.len() == 2, "it outlives a killed daemon");
        let news = told(&daemon, "binding_new")?;
        ensure!(news.iter().all(|event| event["address"] != "198.18.0.1"), "and is no news: {news:?}");
        drop((one, two, three));
        daemon.stop(arena)
    }

    fn a_storm_is_counted_and_not_told_without_end(arena, mode) {
        fs::write(FILE, "[names]\nframes_per_sec = 100\nframes_burst = 100\n")?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let (a, b) = (topology::station(&daemon, "a")?, topology::station(&daemon, "b")?);
        storm(&a, 2000)?;
        let events = told(&daemon, "new_station --port a")?;
        let (all, untold) = (counted("new_station")?, suppressed("new_station")?);
        ensure!((100..1000).contains(&events.len()), "{} of {all} were told", events.len());
        ensure!(all >= 2000 && all == untold + events.len() as u64, "{all}, {untold} of them untold, {} told", events.len());
        ensure!(daemon.log().matches("new station").count() < 1000);
        // Another port is not limited by it.
        b.send(&from(1))?;
        until_told(&daemon, "new_station", &[("port", "b")])?;
        for number in 0..1000 {
            a.send(&claim(frames::station(7), u8::try_from(number % 90)?))?;
        }
        daemon.settle()?;
        let scrape = Scrape::now()?;
        let limited = scrape.value("weft_heard_lost_frames_total{port=\"a\",stage=\"limit\"}")?;
        let heard = scrape.value("weft_heard_frames_total{port=\"a\"}")?;
        ensure!(heard > limited && limited > 100.0, "{limited} of {heard}");
        ensure!(scrape.value("weft_heard_lost_frames_total{port=\"b\",stage=\"limit\"}")? < 1.0);
        ensure!(scrape.value("weft_observation_lost_total{stage=\"names\"}")? >= limited);
        let ledger = daemon.cli().ledger()?.to_string();
        ensure!(ledger.contains("a: frames that say who is who = delivered + limited + lost"), "{ledger}");
        daemon.stop(arena)
    }

    fn a_port_that_falls_silent_is_dormant_until_it_sends_again(arena, mode) {
        fs::write(FILE, "[events]\ndormant_secs = 2\n[[port]]\nname = \"b\"\ntap = \"b\"\n")?;
        let daemon = Daemon::start_with(arena, "weft0", mode, &["-c", FILE])?;
        let a = topology::station(&daemon, "a")?;
        until_told(&daemon, "port_unconfigured", &[("port", "a")])?;
        let silent = until_told(&daemon, "port_dormant", &[("port", "a")])?;
        ensure!(silent["silent_secs"].as_u64().is_some_and(|secs| (2..=20).contains(&secs)), "{silent}");
        let is_dormant = || Scrape::now()?.value("weft_port_dormant{port=\"a\"}");
        wait::until_true("it is a metric", wait::SOON, || Ok(is_dormant()? > 0.5))?;
        // ARP is not useful: who is asked for nothing else is dormant still.
        a.send(&claim(frames::station(1), 7))?;
        until_told(&daemon, "binding_new", &[("port", "a")])?;
        ensure!(told(&daemon, "port_awake")?.is_empty());
        wait::until_true("it is awake", wait::SOON, || {
            a.send(&from(1))?;
            Ok(told(&daemon, "port_awake")?.iter().any(|event| event["port"] == "a"))
        })?;
        wait::until_true("the metric says so", wait::SOON, || {
            a.send(&from(1))?;
            Ok(is_dormant()? < 0.5)
        })?;
        let unconfigured = told(&daemon, "port_unconfigured")?;
        ensure!(unconfigured.iter().all(|event| event["port"] == "a"), "b is in the file: {unconfigured:?}");
        until_told(&daemon, "port_dormant", &[("port", "b")])?;
        daemon.stop(arena)
    }
}

/// What cannot be understood is moved aside, and nothing else is disturbed.
#[test]
fn a_damaged_register_is_moved_aside_and_begins_anew() {
    weft_tests::Arena::run(&[weft_tests::Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, weft_tests::Mode::Kernel)?;
        let a = topology::station(&daemon, "a")?;
        a.send(&claim(frames::station(1), 7))?;
        until_told(&daemon, "binding_new", &[("port", "a")])?;
        daemon.terminate()?;
        let file = daemon.state().join("names.json");
        let good = fs::read_to_string(&file)?;
        ensure!(good.contains("198.18.0.7"), "{good}");
        fs::write(&file, good.get(..good.len() / 2).unwrap_or_default())?;
        daemon.launch()?;
        ensure!(daemon.cli().json::<Vec<Value>>("who 198.18.0.7")?.is_empty());
        ensure!(daemon.log().contains("moved aside and begins anew"), "{}", daemon.log());
        ensure!(daemon.state().join("names.json.corrupt").exists());
        daemon.stop(arena)
    });
}
