//! `apply`, reload, `check` and `export`: all or nothing, and nothing lost on the way.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use etherparse::PacketBuilder;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::scrape::Scrape;
use weft_tests::stream::Stream;
use weft_tests::{Arena, Cli, Daemon, Mode, Namespace, Need, Station, topology, wait};

const FILE: &str = "/run/test.toml";

/// A file with one netdev port for each name.
fn file_of(names: &[&str]) -> String {
    let ports = names.iter().map(|name| format!("[[port]]\nname = \"{name}\"\nnetdev = \"{name}\"\n"));
    ports.collect::<Vec<_>>().concat()
}

fn names(daemon: &Daemon) -> Result<Vec<String>> {
    let mut names: Vec<_> = daemon.cli().ports()?.into_iter().map(|port| port.name).collect();
    names.sort();
    Ok(names)
}

/// A daemon that runs on a file with the ports a and b, and the stations that hold their taps.
fn with_file(arena: &Arena) -> Result<(Daemon, Station, Station)> {
    let (a, b) = (Station::plain("a")?, Station::plain("b")?);
    fs::write(FILE, file_of(&["a", "b"]))?;
    let daemon = Daemon::start_with(arena, "weft0", Mode::Kernel, &["-c", FILE])?;
    daemon.until_state("a", "up", wait::SOON)?;
    daemon.until_state("b", "up", wait::SOON)?;
    Ok((daemon, a, b))
}

#[test]
fn the_ports_of_the_file_are_there_from_the_start_and_come_from_the_file() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, a, b) = with_file(arena)?;
        a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(1).build())?;
        b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        ensure!(daemon.cli().ports()?.iter().all(|port| port.origin == "file"));
        daemon.stop(arena)
    });
}

#[test]
fn apply_prints_the_difference_makes_it_so_and_touches_only_ports_of_the_file() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, _a, _b) = with_file(arena)?;
        let (_c, _d) = (Station::plain("c")?, topology::station(&daemon, "d")?);
        fs::write("/run/next.toml", file_of(&["a", "c"]))?;

        let planned = daemon.cli().run("apply /run/next.toml --dry-run")?;
        ensure!(planned.contains('b') && planned.contains('c'), "{planned}");
        ensure!(names(&daemon)? == ["a", "b", "d"], "a dry run changed something");

        daemon.cli().run("apply /run/next.toml")?;
        ensure!(names(&daemon)? == ["a", "c", "d"], "{:?}", names(&daemon)?);
        daemon.until_state("c", "up", wait::SOON)?;

        daemon.cli().run("apply /run/next.toml --prune")?;
        ensure!(names(&daemon)? == ["a", "c"], "{:?}", names(&daemon)?);
        daemon.stop(arena)
    });
}

#[test]
fn applying_what_runs_changes_nothing_and_loses_nothing() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, a, b) = with_file(arena)?;
        b.send(&Builder::new(frames::station(2), MacAddr::BROADCAST).number(0).build())?;
        a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(0))?;
        let mut stream = Stream::new(&a, &b, Builder::new(frames::station(1), frames::station(2)));
        for _ in 0..5 {
            stream.pump(500)?;
            daemon.cli().run(&format!("apply {FILE}"))?;
            daemon.hang_up()?;
        }
        stream.pump(500)?;
        ensure!(daemon.cli().port("a")?.ingress.frames == 3000);
        daemon.stop(arena)
    });
}

#[test]
fn what_is_exported_can_be_applied_and_is_what_runs() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, _a, _b) = with_file(arena)?;
        daemon.cli().run("port add made --tap made0 --mac 52:54:00:00:00:01 --label app=web --station-limit 7")?;
        let exported = daemon.cli().run("export")?;
        for word in ["made0", "52:54:00:00:00:01", "web", "7"] {
            ensure!(exported.contains(word), "{word} is missing in\n{exported}");
        }
        fs::write("/run/exported.toml", &exported)?;
        daemon.cli().run("check /run/exported.toml")?;
        // What a command made belongs to commands, until a file takes it over.
        let refusal = daemon.cli().refused("apply /run/exported.toml")?;
        ensure!(refusal.code == 5 && refusal.message.contains("--prune"), "{refusal:?}");
        daemon.cli().run("apply /run/exported.toml --prune")?;
        ensure!(daemon.cli().run("export")? == exported, "export, apply, export is not the identity");
        daemon.stop(arena)
    });
}

#[test]
fn a_hangup_reads_the_file_again() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, _a, _b) = with_file(arena)?;
        let _c = Station::plain("c")?;
        fs::write(FILE, file_of(&["a", "c"]))?;
        daemon.hang_up()?;
        daemon.until_state("c", "up", wait::SOON)?;
        ensure!(names(&daemon)? == ["a", "c"], "{:?}", names(&daemon)?);
        daemon.stop(arena)
    });
}

/// What a bad file may look like: its text, the line and column of the fault, and a word of the complaint.
fn bad_files() -> Vec<(String, &'static str, &'static str)> {
    let good = "[switch]\naging_secs = 300\n";
    vec![
        (format!("{good}colour = \"red\"\n"), ":3:1", "colour"),
        (format!("{good}stations_max = \"many\"\n"), ":3:16", "many"),
        (format!("{good}\n{}", file_of(&["x", "x"])), ":8:", "x"),
        (format!("{good}[[port]]\nname = \"\"\nnetdev = \"a\"\n"), ":4:8", "empty"),
        (format!("{good}[[port]]\nname = \"a/b\"\nnetdev = \"a\"\n"), ":4:8", "a/b"),
        (format!("{good}[[port]]\nname = \"a\"\n"), ":", "netdev"),
        (format!("{good}[[port]]\nname = \"a\"\nnetdev = \"a\"\ntap = \"b\"\n"), ":", "tap"),
        (format!("{good}[[port]]\nname = \"a\"\nnetdev = \"a\"\nmacs = [\"01:00:5e:00:00:01\"]\n"), ":6:", "unicast"),
        ("[switch\n".to_owned(), ":1:", "]"),
    ]
}

#[test]
fn a_bad_file_is_refused_with_line_and_column_by_check_apply_and_reload_and_the_old_one_stays() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, a, b) = with_file(arena)?;
        let before = daemon.cli().run("export")?;
        for (text, place, word) in bad_files() {
            fs::write("/run/bad.toml", &text)?;
            for command in ["check", "apply"] {
                let refusal = daemon.cli().refused(&format!("{command} /run/bad.toml"))?;
                ensure!(refusal.code == 1, "{command}: {refusal:?}");
                let said = &refusal.message;
                let placed = said.contains(&format!("bad.toml{place}"));
                ensure!(placed && said.to_lowercase().contains(word), "{place} and {word:?} are not in {said}\n{text}");
            }
            fs::write(FILE, &text)?;
            let logged = daemon.log().len();
            daemon.hang_up()?;
            wait::until_true("the reload's refusal is logged", wait::SOON, || {
                Ok(daemon.log().get(logged..).is_some_and(|new| new.contains(&format!("test.toml{place}"))))
            })?;
            ensure!(daemon.cli().run("export")? == before, "a refused file changed something:\n{text}");
        }
        // One port of two cannot be had: neither is.
        let _new = Station::plain("new")?;
        arena.ip("link add br9 type bridge")?;
        arena.ip("link add d9 type veth peer name d9-far")?;
        arena.ip("link set dev d9 master br9")?;
        fs::write("/run/bad.toml", file_of(&["a", "b", "new", "d9"]))?;
        let refusal = daemon.cli().refused("apply /run/bad.toml")?;
        ensure!(refusal.message.contains("br9"), "{refusal:?}");
        ensure!(names(&daemon)? == ["a", "b"], "half of a refused file was applied");
        a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(1).build())?;
        b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        daemon.stop(arena)
    });
}

#[test]
fn a_configured_netdev_that_is_missing_is_absent_and_attached_when_it_appears() {
    Arena::run(&[Need::Bpf], |arena| {
        let a = Station::plain("a")?;
        fs::write(FILE, file_of(&["a", "later"]))?;
        let daemon = Daemon::start_with(arena, "weft0", Mode::Kernel, &["-c", FILE])?;
        daemon.until_state("later", "absent", wait::SOON)?;
        daemon.until_state("a", "up", wait::SOON)?;
        let later = Station::plain("later")?;
        daemon.until_state("later", "up", wait::SOON)?;
        a.send(&Builder::new(frames::station(1), MacAddr::BROADCAST).number(1).build())?;
        later.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        daemon.stop(arena)
    });
}

#[test]
fn ids_and_names_stay_the_same_across_restarts() {
    Arena::run(&[Need::Bpf], |arena| {
        let mut daemon = Daemon::start(arena, Mode::Kernel)?;
        let stations = ["a", "b", "c"].map(|name| topology::station(&daemon, name));
        daemon.cli().run("port del b")?;
        let id = |daemon: &Daemon, name: &str| daemon.cli().port(name).map(|port| port.id);
        let before = (id(&daemon, "a")?, id(&daemon, "c")?);
        daemon.kill()?;
        daemon.launch()?;
        ensure!((id(&daemon, "a")?, id(&daemon, "c")?) == before);
        topology::attach(&daemon, "b")?;
        ensure!(id(&daemon, "b")? == 2, "b had the id 2 before");
        drop(stations);
        daemon.cli().run("port del a")?;
        daemon.stop(arena)
    });
}

#[test]
fn check_needs_no_daemon_and_the_sample_passes_it() {
    Arena::run(&[], |_| {
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/../switch/weft.sample.toml");
        Cli::new("nobody")?.run(&format!("check {sample}")).map(drop)
    });
}

#[test]
fn ports_may_swap_their_netdevs_in_one_apply() {
    Arena::run(&[Need::Bpf], |arena| {
        let (daemon, a, b) = with_file(arena)?;
        let swapped = "[[port]]\nname = \"a\"\nnetdev = \"b\"\n[[port]]\nname = \"b\"\nnetdev = \"a\"\n";
        fs::write("/run/swapped.toml", swapped)?;
        daemon.cli().run("apply /run/swapped.toml")?;
        daemon.until_state("a", "up", wait::SOON)?;
        daemon.until_state("b", "up", wait::SOON)?;
        let before = daemon.cli().port("b")?.ingress.frames;
        b.send(&Builder::new(frames::station(2), MacAddr::BROADCAST).number(1).build())?;
        a.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1))?;
        a.send(&Builder::new(frames::station(1), frames::station(2)).number(2).build())?;
        b.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(2))?;
        // What the station on the tap a sends comes in by the port b.
        ensure!(daemon.cli().port("b")?.ingress.frames == before + 1);
        ensure!(daemon.cli().drops("a", "other")? == 0 && daemon.cli().drops("b", "other")? == 0);
        daemon.stop(arena)
    });
}

#[test]
fn a_container_whose_namespace_is_back_is_attached_again_by_apply() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let namespace = Namespace::new("blue")?;
        fs::write(FILE, "[[port]]\nname = \"blue\"\nnetns = \"blue\"\n")?;
        daemon.cli().run(&format!("apply {FILE}"))?;
        daemon.until_state("blue", "up", wait::SOON)?;
        drop(namespace);
        daemon.until_state("blue", "absent", wait::SOON)?;
        let _again = Namespace::new("blue")?;
        daemon.cli().run(&format!("apply {FILE}"))?;
        daemon.until_state("blue", "up", wait::SOON)?;
        daemon.stop(arena)
    });
}

/// How long a hundred ports may take to go, on a machine that others use, too.
const GONE_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn a_hundred_ports_go_at_once_over_a_full_flow_table() {
    Arena::run(&[Need::Bpf], |arena| {
        const FLOWS: u16 = 700;
        let ports: Vec<String> = (0..100).map(|number| format!("p{number}")).collect();
        let all: Vec<&str> = ports.iter().map(String::as_str).chain(["server"]).collect();
        let stations = ports.iter().map(|name| Station::plain(name)).collect::<Result<Vec<_>>>()?;
        let server = Station::plain("server")?;
        let flows = "[flows]\nmax = 65536\nper_port = 65536\n";
        fs::write(FILE, format!("{flows}{}", file_of(&all)))?;
        let daemon = Daemon::start_with(arena, "weft0", Mode::Kernel, &["-c", FILE])?;
        all.iter().try_for_each(|name| daemon.until_state(name, "up", wait::SOON).map(drop))?;
        // Its station is known, so that nothing is flooded.
        server.send(&Builder::new(frames::station(999), MacAddr::BROADCAST).number(1).build())?;
        stations.iter().try_for_each(|station| {
            station.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(1)).map(drop)
        })?;
        for (number, station) in (1..).zip(&stations) {
            for port in 1..=FLOWS {
                let to = PacketBuilder::ethernet2(frames::station(number).0, frames::station(999).0);
                let mut frame = Vec::new();
                to.ipv4([198, 18, 0, 101], [198, 18, 0, 102], 64).udp(port, 9).write(&mut frame, &[0; 40])?;
                station.send(&frame)?;
            }
            server.drain()?;
        }
        let kept = || Scrape::now()?.value("weft_map_entries{map=\"flows\"}");
        wait::until_true("the table is full", wait::SOON, || Ok(kept()? > 60_000.0))?;
        let before = kept()?;
        fs::write("/run/next.toml", format!("{flows}{}", file_of(&["server"])))?;
        let began = Instant::now();
        daemon.cli().run("apply /run/next.toml --prune")?;
        let removed = began.elapsed();
        ensure!(names(&daemon)? == ["server"], "{:?}", names(&daemon)?);
        wait::until_true("their flows are gone", GONE_WITHIN, || Ok(kept()? < 100.0))?;
        eprintln!("{before} flows, 100 ports: removed in {removed:?}, their flows in {:?}", began.elapsed());
        ensure!(removed < GONE_WITHIN, "{removed:?}");
        daemon.stop(arena)
    });
}
