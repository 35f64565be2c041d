//! Containers that talk through the switch with ordinary programs: ping, iperf3, HTTP.

use std::fs;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use weft_tests::command::Running;
use weft_tests::topology::{self, Container, iperf3_received};
use weft_tests::{Arena, Daemon, Mode, Need, wait};

fn containers(daemon: &Daemon, count: u8) -> Result<Vec<Container>> {
    (1..=count).map(|number| Container::new(daemon, number)).collect()
}

/// Every container pings every other, over IPv4 and IPv6.
fn all_ping_all(containers: &[Container]) -> Result<()> {
    for from in containers {
        for to in containers.iter().filter(|to| to.v4() != from.v4()) {
            from.ping(to.v4())?;
        }
        let next = containers.iter().find(|to| to.v4() != from.v4()).context("at least two")?;
        from.ping(next.v6())?;
    }
    Ok(())
}

/// The last container serves a file over HTTP, all others fetch it, byte for byte.
fn all_fetch(containers: &[Container]) -> Result<()> {
    let (server, clients) = containers.split_last().context("at least two")?;
    let blob: Vec<u8> = (0_u32..500_000).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    fs::create_dir_all("/run/www")?;
    fs::write("/run/www/blob", &blob)?;
    let httpd = server.serve("busybox httpd -f -p 80 -h /run/www", 80)?;
    for client in clients {
        let file = format!("/run/{}.blob", client.name());
        client.namespace().run(&format!("curl -sf -m 60 -o {file} http://{}/blob", server.v4()))?;
        ensure!(Sha256::digest(fs::read(&file)?) == Sha256::digest(&blob), "{file} differs");
    }
    drop(httpd);
    Ok(())
}

/// A TCP transfer of 64 MiB. The server stops counting when the client says so, so most must be there; that each byte is
/// the right one is HTTP's part.
fn bulk(from: &Container, to: &Container) -> Result<()> {
    let _server = to.serve("iperf3 -s -1", 5201)?;
    let report = Running::start(&mut from.iperf3(to.v4(), "-n 64M"))?.finish(wait::LATER)?;
    ensure!(iperf3_received(&report)? >= 32 << 20, "{report}");
    Ok(())
}

fn talk(arena: &Arena, mode: Mode, count: u8) -> Result<()> {
    let daemon = Daemon::start(arena, mode)?;
    let all = containers(&daemon, count)?;
    all_ping_all(&all)?;
    all_fetch(&all)?;
    bulk(&all[0], &all[1])?;
    bulk(&all[1], &all[0])?;
    for container in &all {
        let port = daemon.cli().port(&container.name())?;
        ensure!(port.ingress.frames > 0 && port.egress.frames > 0, "{port:?}");
    }
    // The host's own stack never saw any of it: it has no neighbour and no route to them.
    ensure!(arena.ip("neigh show")?.is_empty(), "the host's stack took part");
    drop(all);
    daemon.stop(arena)
}

in_every_mode! {
    fn two_containers_talk(arena, mode) { talk(arena, mode, 2) }
    fn three_containers_talk(arena, mode) { talk(arena, mode, 3) }
    fn eight_containers_talk(arena, mode) { talk(arena, mode, 8) }

    fn ports_come_and_go_while_others_transfer(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let all = containers(&daemon, 2)?;
        let _server = all[1].serve("iperf3 -s -1", 5201)?;
        let client = Running::start(&mut all[0].iperf3(all[1].v4(), "-t 4"))?;
        let transfer = thread::spawn(move || client.finish(wait::LATER));
        let mut rounds = 0;
        while !transfer.is_finished() || rounds == 0 {
            let guest = topology::station(&daemon, "hot")?;
            let third = Container::new(&daemon, 3)?;
            third.ping(all[0].v4())?;
            daemon.cli().run("port del hot")?;
            daemon.cli().run("port del c3")?;
            ensure!(arena.has_netdev("hot"), "the guest's own tap was taken away with the port");
            drop((guest, third));
            rounds += 1;
        }
        let report = transfer.join().expect("the client's thread does not panic")?;
        ensure!(iperf3_received(&report)? > 1 << 20, "{report}");
        all[0].ping(all[1].v4())?;
        drop(all);
        daemon.stop(arena)
    }

    fn a_host_port_makes_the_host_a_neighbour(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let one = Container::new(&daemon, 1)?;
        daemon.cli().run("port add host --host --ifname seg0 --address 198.18.0.254/24")?;
        daemon.until_state("host", "up", wait::SOON)?;
        one.ping("198.18.0.254".parse::<std::net::Ipv4Addr>()?)?;
        weft_tests::command::run("ping -n -c 2 -i 0.05 -W 10 198.18.0.1")?;
        daemon.cli().run("port del host")?;
        ensure!(!arena.has_netdev("seg0"), "the host's interface was left behind");
        drop(one);
        daemon.stop(arena)
    }
}

#[test]
fn a_deleted_namespace_takes_only_its_own_port_down() {
    Arena::run(&[Need::Bpf], |arena| {
        let daemon = Daemon::start(arena, Mode::Kernel)?;
        let mut all = containers(&daemon, 3)?;
        all_ping_all(&all)?;
        let gone = all.pop().context("three were made")?;
        let name = gone.name();
        gone.into_namespace().delete()?;
        daemon.until_state(&name, "absent", wait::SOON)?;
        let stations = daemon.cli().stations()?;
        ensure!(stations.iter().all(|station| station.port != name), "stations of a port that is gone: {stations:?}");
        all_ping_all(&all)?;
        daemon.cli().run(&format!("port del {name}"))?;
        // The same name can be used again at once.
        all.push(Container::new(&daemon, 3)?);
        for container in &all {
            // The same address has another station now.
            container.namespace().run("ip neigh flush all")?;
        }
        all_ping_all(&all)?;
        drop(all);
        daemon.stop(arena)
    });
}
