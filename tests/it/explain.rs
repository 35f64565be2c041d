//! `weft explain` against what then really happens.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use weft_tests::frames::{self, Builder};
use weft_tests::topology::{self, Container};
use weft_tests::{Daemon, Mode, Station, wait};

fn explain(daemon: &Daemon, words: &str) -> Result<Value> {
    daemon.cli().json(&format!("explain {words}"))
}

/// Stations 1 and 2 behind the ports `a` and `b`, both heard.
fn pair(daemon: &Daemon) -> Result<(Station, Station)> {
    let (a, b) = (topology::station(daemon, "a")?, topology::station(daemon, "b")?);
    for (from, to, own, other) in [(&a, &b, 1, 2), (&b, &a, 2, 1), (&a, &b, 1, 2), (&b, &a, 2, 1)] {
        arrives(from, to, &Builder::new(frames::station(own), frames::station(other)))?;
    }
    Ok((a, b))
}

/// Sends a frame and waits for it.
fn arrives(from: &Station, to: &Station, frame: &Builder) -> Result<()> {
    let frame = frame.build();
    from.send(&frame)?;
    to.receive_until(wait::SOON, |received| received == frame).map(drop)
}

fn refused(said: &Value, which: &str) -> [Value; 3] {
    ["port", "side", "reason"].map(|part| said["there"][which]["refused"][part].clone())
}

in_every_mode! {
    fn what_is_explained_is_what_happens(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (one, two) = (Container::new(&daemon, 1)?, Container::new(&daemon, 2)?);
        one.ping(two.v4())?;
        one.ping(two.v6())?;
        // By name, by IP address, by MAC address: the same two.
        let said = explain(&daemon, "c1 c2")?;
        ensure!(said["reachable"] == true, "{said:#}");
        let mac = said["to"]["mac"].as_str().context("no address")?.to_owned();
        for words in [format!("c1 {}", two.v4()), format!("{} {}", one.v6(), two.v6()), format!("c1 {mac}")] {
            let same = wait::until(&format!("conversations are read: {words}"), wait::SOON, || {
                let said = daemon.cli().output(&format!("-o json explain {words}"))?;
                Ok(said.status.success().then(|| serde_json::from_slice::<Value>(&said.stdout)).transpose()?)
            })?;
            ensure!(same["reachable"] == true && same["to"]["mac"] == mac.as_str(), "{words}: {same:#}");
            ensure!(same["from"]["port"] == "c1" && same["to"]["port"] == "c2", "{words}: {same:#}");
        }
        let met = wait::until("the conversation is told", wait::SOON, || {
            let said = explain(&daemon, "c1 c2")?;
            Ok((said["conversations"].as_array().is_some_and(|met| !met.is_empty())).then_some(said))
        })?;
        ensure!(met["there"]["next"]["ports"] == serde_json::json!(["c2"]), "{met:#}");
        // The kernel has the verdict exactly when it decides.
        ensure!(met["there"]["cached"].is_null() == (mode == Mode::Userspace), "{met:#}");
        if mode != Mode::Userspace {
            ensure!(met["there"]["cached"]["port"] == "c2" && met["back"]["cached"]["port"] == "c1", "{met:#}");
        }
        let words = daemon.cli().run("explain c1 c2")?;
        ensure!(words.starts_with("c1 can reach c2.\n") && words.contains("They last talked at"), "{words}");
        drop((one, two));
        daemon.stop(arena)
    }

    fn what_stops_a_frame_is_foreseen_and_then_counted_so(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = pair(&daemon)?;
        ensure!(explain(&daemon, "a b")?["reachable"] == true);

        // Nobody knows the station: everybody gets the frame, the right one too.
        let said = explain(&daemon, &format!("a {}", frames::station(77)))?;
        ensure!(said["there"]["next"]["verdict"] == "flooded" && said["to"]["port"].is_null(), "{said:#}");
        let frame = Builder::new(frames::station(1), frames::station(77));
        arrives(&a, &b, &frame)?;

        // Longer than what the other end takes.
        arena.ip("link set dev a mtu 9000")?;
        wait::until_true("the MTU is known", wait::SOON, || Ok(explain(&daemon, "a b")?["from"]["mtu"] == 9000))?;
        let said = explain(&daemon, "a b")?;
        ensure!(said["reachable"] == true && refused(&said, "longest") == ["b", "egress", "too_big"], "{said:#}");
        a.send(&Builder::new(frames::station(1), frames::station(2)).payload(&[7; 3000]).build())?;
        wait::until_true("too_big is counted", wait::SOON, || Ok(daemon.cli().drops("b", "too_big")? == 1))?;

        // A source that the port does not allow.
        daemon.cli().run("port del a")?;
        daemon.cli().run(&format!("port add a --netdev a --mac {}", frames::station(1)))?;
        daemon.until_state("a", "up", wait::SOON)?;
        let said = explain(&daemon, &format!("a b --source {}", frames::station(66)))?;
        ensure!(said["reachable"] == false && refused(&said, "next") == ["a", "ingress", "spoofed_source"], "{said:#}");
        ensure!(explain(&daemon, "a b")?["reachable"] == true, "the one that it allows");
        a.send(&Builder::new(frames::station(66), frames::station(2)).build())?;
        wait::until_true("spoofed_source is counted", wait::SOON, || {
            Ok(daemon.cli().drops("a", "spoofed_source")? == 1)
        })?;

        // A port that is down.
        arena.ip("link set dev b down")?;
        daemon.until_state("b", "down", wait::SOON)?;
        let said = explain(&daemon, &format!("a {}", frames::station(2)))?;
        ensure!(said["reachable"] == false && refused(&said, "next") == ["a", "ingress", "port_down"], "{said:#}");
        ensure!(said["to"]["state"] == "down", "{said:#}");
        a.send(&Builder::new(frames::station(1), frames::station(2)).build())?;
        wait::until_true("port_down is counted", wait::SOON, || Ok(daemon.cli().drops("a", "port_down")? == 1))?;
        let words = daemon.cli().run(&format!("explain a {}", frames::station(2)))?;
        for part in ["cannot reach", "port_down", "Frames dropped at a as spoofed_source so far: 1."] {
            ensure!(words.contains(part), "{part}: {words}");
        }
        drop((a, b));
        daemon.stop(arena)
    }

    fn an_ip_address_is_whose_the_register_says_also_after_a_restart(arena, mode) {
        let mut daemon = Daemon::start(arena, mode)?;
        let (a, b) = pair(&daemon)?;
        // Station 2 says that it has the address, and never sends a packet with it.
        let mac = frames::station(2);
        let claim = [&[0, 1, 8, 0, 6, 4, 0, 1][..], &mac.0, &[198, 18, 0, 7], &[0; 6], &[198, 18, 0, 99]].concat();
        b.send(&Builder::new(mac, frames::MacAddr([0xff; 6])).ethertype(0x0806).payload(&claim).build())?;
        let said = wait::until("it is heard", wait::SOON, || {
            let said = daemon.cli().output("-o json explain a 198.18.0.7")?;
            Ok(said.status.success().then(|| serde_json::from_slice::<Value>(&said.stdout)).transpose()?)
        })?;
        ensure!(said["to"]["port"] == "b" && said["to"]["mac"] == mac.to_string(), "{said:#}");
        ensure!(said["reachable"] == true, "{said:#}");
        let told = |said: &Value, kind: &str| {
            said["events"].as_array().is_some_and(|events| events.iter().any(|event| event["kind"] == kind))
        };
        let said = wait::until("what happened is told", wait::SOON, || {
            let said = explain(&daemon, "a 198.18.0.7")?;
            Ok(told(&said, "binding_new").then_some(said))
        })?;
        ensure!(said["events"].as_array().is_some_and(|events| events.len() <= 5), "{said:#}");
        let words = daemon.cli().run("explain a 198.18.0.7")?;
        ensure!(words.contains(&format!("198.18.0.7 is at {mac}, port b (arp).")), "{words}");
        // Memory has no conversation of it, and no event; the register has it still.
        daemon.terminate()?;
        daemon.launch()?;
        topology::attach(&daemon, "a")?;
        topology::attach(&daemon, "b")?;
        let said = explain(&daemon, "a 198.18.0.7")?;
        ensure!(said["to"]["port"] == "b" && said["to"]["mac"] == mac.to_string(), "{said:#}");
        drop((a, b));
        daemon.stop(arena)
    }

    fn a_question_teaches_the_switch_nothing(arena, mode) {
        let daemon = Daemon::start(arena, mode)?;
        let (a, b) = pair(&daemon)?;
        let known = || -> Result<Vec<String>> { Ok(daemon.cli().stations()?.into_iter().map(|it| it.mac).collect()) };
        let before = known()?;
        for _ in 0..50 {
            let said = explain(&daemon, &format!("a b --source {}", frames::station(66)))?;
            ensure!(said["there"]["next"]["learned"] == "added" && said["there"]["next"]["arrives"] == true, "{said:#}");
        }
        // Someone else's address: it would move, and does not.
        let said = explain(&daemon, &format!("a b --source {}", frames::station(2)))?;
        ensure!(said["there"]["next"]["learned"] == "moved", "{said:#}");
        ensure!(known()? == before, "{before:?}");
        for (words, part) in [
            ("a nobody", "'nobody' is no port, MAC or IP address"),
            ("198.18.0.77 a", "nobody was seen with the address 198.18.0.77"),
        ] {
            let refusal = daemon.cli().refused(&format!("explain {words}"))?;
            ensure!(refusal.code == 4 && refusal.message.contains(part), "{refusal:?}");
        }
        drop((a, b));
        daemon.stop(arena)
    }
}
