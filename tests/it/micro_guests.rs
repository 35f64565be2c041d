//! Micro guests on KVM: they talk to each other and to containers, and the hostile ones get nowhere.

use anyhow::{Context as _, Result, ensure};
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::micro::{self, Micro, Report};
use weft_tests::topology::{self, Container};
use weft_tests::{Arena, Daemon, Mode, Need, Station, wait};

/// Behind the EtherType of every frame of an attack that is not about what it carries.
const MARK: &[u8] = b"WEFTHOST";
/// Number of the attacker, of the station that the attack is about, and of the two bystanders.
const ATTACKER: u8 = 4;
const VICTIM: u32 = 3;
const BYSTANDERS: [u32; 2] = [1, 2];

/// Runs in both datapaths.
fn in_both_datapaths(body: impl Fn(&Arena, Mode) -> Result<()> + Sync) {
    for mode in [Mode::Kernel, Mode::Userspace] {
        Arena::run(&[Need::Bpf, Need::Kvm], |arena| body(arena, mode).with_context(|| format!("{mode:?}")));
    }
}

#[test]
fn two_micro_guests_talk() {
    in_both_datapaths(|arena, mode| {
        let daemon = Daemon::start(arena, mode)?;
        for number in [1, 2] {
            micro::port(&daemon, number, &format!("--mac {}", frames::station(number.into())))?;
        }
        let echo = Micro::echo(&daemon, 2)?;
        let talk = Micro::boot(1, "--guest talker --peer 198.18.0.2 --count 1000")?.finish()?;
        for name in ["sent", "returned"] {
            ensure!(talk.guest(name) == Some(1000), "{talk:?}");
        }
        ensure!(talk.guest("corrupt") == Some(0) && talk.guest("reordered") == Some(0), "{talk:?}");
        ensure!(daemon.cli().port("m1")?.ingress.frames == talk.monitor("tx_frames").unwrap_or(0), "{talk:?}");
        echo.kill()?;
        daemon.until_state("m2", "no_carrier", wait::SOON)?;
        daemon.stop(arena)
    });
}

#[test]
fn a_micro_guest_answers_a_container() {
    in_both_datapaths(|arena, mode| {
        let daemon = Daemon::start(arena, mode)?;
        let container = Container::new(&daemon, 1)?;
        micro::port(&daemon, 2, &format!("--mac {}", frames::station(2)))?;
        let echo = Micro::echo(&daemon, 2)?;
        // What was flooded before the guest held its tap is not this test's business.
        let drops = daemon.cli().port("m2")?.drops;
        for address in ["198.18.0.2", "2001:db8::2"] {
            let said = container.namespace().run(&format!("ping -n -q -c 400 -i 0.002 -W 10 {address}"))?;
            ensure!(said.contains(" 400 received"), "{said}");
        }
        let port = daemon.cli().port("m2")?;
        ensure!(port.drops == drops, "{drops:?} became {port:?}");
        echo.kill()?;
        drop(container);
        daemon.stop(arena)
    });
}

#[test]
fn a_guest_killed_under_traffic_takes_only_its_own_port_down() {
    in_both_datapaths(|arena, mode| {
        let stage = Stage::set(arena, mode, "", &[])?;
        let attacker = Micro::boot(ATTACKER, "--guest hostile --attack broadcast-storm --count 1000000")?;
        stage.daemon.until_state("m4", "up", wait::SOON)?;
        wait::until_true("the storm blows", wait::SOON, || {
            stage.talk(1)?;
            Ok(stage.daemon.cli().port("m4")?.ingress.frames > 100)
        })?;
        attacker.kill()?;
        stage.daemon.until_state("m4", "no_carrier", wait::SOON)?;
        stage.talk(100)?;
        stage.daemon.stop(arena)
    });
}

/// What becomes of an attack's frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The switch drops them all for this reason; the kernel refuses this many before.
    Dropped(&'static str, u64),
    /// The kernel does not take them from the monitor.
    Refused,
    /// The switch has no guard yet: they arrive.
    Delivered,
    /// Some arrive; most exceed the port's share of flooding.
    Limited,
}

/// The attacks whose frames are counted one by one: name, frames, fate.
const ATTACKS: [(&str, u64, Fate); 12] = [
    ("spoofed-source", 100, Fate::Dropped("spoofed_source", 0)),
    ("group-source", 100, Fate::Dropped("group_source", 0)),
    ("runt", 100, Fate::Dropped("malformed", 50)),
    ("oversize", 100, Fate::Dropped("too_big", 0)),
    ("gso-size-1", 100, Fate::Dropped("bad_offload", 0)),
    ("reserved", 160, Fate::Dropped("reserved_address", 0)),
    ("bad-csum-start", 100, Fate::Refused),
    ("gso-size-0", 100, Fate::Refused),
    ("gso-size-65535", 100, Fate::Refused),
    ("hdr-len", 100, Fate::Refused),
    ("spoofed-arp", 100, Fate::Delivered),
    ("double-tag", 100, Fate::Delivered),
];
/// The attacks by flooding.
const FLOODS: [(&str, u64, Fate); 2] =
    [("broadcast-storm", 10_000, Fate::Limited), ("unknown-scan", 10_000, Fate::Limited)];

/// A switch, a port for the attacker, a victim, and two bystanders that know each other.
struct Stage {
    daemon: Daemon,
    victim: Station,
    bystanders: [Station; 2],
}

impl Stage {
    fn set(arena: &Arena, mode: Mode, port: &str, options: &[&str]) -> Result<Self> {
        let daemon = Daemon::start_with(arena, "weft0", mode, options)?;
        if options.is_empty() {
            micro::port(&daemon, ATTACKER, port)?;
        }
        let victim = topology::station(&daemon, "victim")?;
        let bystanders = [topology::station(&daemon, "a")?, topology::station(&daemon, "b")?];
        // All are learned, so that frames to them are unicast.
        let hello = |number: u32| Builder::new(frames::station(number), MacAddr::BROADCAST).number(number.into());
        for (from, to, number) in [
            (&bystanders[0], &bystanders[1], BYSTANDERS[0]),
            (&bystanders[1], &victim, BYSTANDERS[1]),
            (&victim, &bystanders[0], VICTIM),
        ] {
            from.send(&hello(number).build())?;
            to.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(number.into()))?;
        }
        Ok(Self { daemon, victim, bystanders })
    }

    /// The bystanders exchange this many frames each way: each arrives, once. What they saw of others.
    fn talk(&self, rounds: u64) -> Result<Vec<Vec<u8>>> {
        let [a, b] = &self.bystanders;
        let [at_a, at_b] = BYSTANDERS.map(frames::station);
        let mut strangers = Vec::new();
        for round in 0..rounds {
            for (from, to, source, target, number) in
                [(a, b, at_a, at_b, 1000 + round), (b, a, at_b, at_a, 9000 + round)]
            {
                from.send(&Builder::new(source, target).number(number).build())?;
                let mut got = to.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(number))?;
                got.pop();
                ensure!(got.iter().all(|frame| frames::number_of(frame).is_none_or(|n| n < 1000)), "{got:02x?}");
                strangers.extend(got);
            }
        }
        Ok(strangers)
    }

    /// Runs an attack while the bystanders talk; the report, and what reached the victim and the bystanders.
    fn suffer(&self, attack: &str, frames: u64) -> Result<Suffered> {
        let victim = frames::station(VICTIM);
        let line =
            format!("--guest hostile --attack {attack} --count {frames} --peer 198.18.0.3 --victim-mac {victim}");
        let mut guest = Micro::boot(ATTACKER, &line)?;
        let (mut at_victim, mut at_bystanders) = (Vec::new(), Vec::new());
        while !guest.ended()? {
            at_bystanders.extend(self.talk(8)?);
            at_victim.extend(self.victim.drain()?);
        }
        let report = guest.finish()?;
        self.daemon.settle()?;
        at_bystanders.extend(self.talk(50)?);
        at_victim.extend(self.victim.drain()?);
        let hostile = |frame: &Vec<u8>| is_hostile(frame, attack);
        at_victim.retain(hostile);
        at_bystanders.retain(hostile);
        Ok((report, at_victim, at_bystanders))
    }
}

/// The report of an attack, and those of its frames that reached the victim and the bystanders.
type Suffered = (Report, Vec<Vec<u8>>, Vec<Vec<u8>>);

/// Whether a frame is one of the attack's.
fn is_hostile(frame: &[u8], attack: &str) -> bool {
    let from_attacker = frame.get(6..12) == Some(&frames::station(ATTACKER.into()).0[..]);
    match attack {
        "spoofed-arp" => from_attacker && frame.get(12..14) == Some(&[8, 6]),
        _ => from_attacker || frame.windows(MARK.len()).any(|window| window == MARK),
    }
}

fn stopped_or_counted(stage: &Stage, (attack, frames, fate): (&str, u64, Fate)) -> Result<()> {
    let cli = stage.daemon.cli();
    let too_big = cli.drops("victim", "too_big")?;
    let before = cli.port("m4")?;
    let (report, at_victim, at_bystanders) = stage.suffer(attack, frames)?;
    let after = cli.port("m4")?;
    let too_big = cli.drops("victim", "too_big")? - too_big;
    let booked = |reason| {
        // What does not fit is booked where it does not fit.
        if reason == "too_big" {
            return too_big;
        }
        let of = |port: &weft_tests::cli::Port| port.drops.get(reason).copied().unwrap_or(0);
        of(&after) - of(&before)
    };
    let what = format!("{attack}: {report:?}, {:?} at the victim, {after:?}", at_victim.len());
    ensure!(report.guest("sent") == Some(frames), "{what}");
    ensure!(report.guest("refused") == report.monitor("tx_refused"), "{what}");
    let refused = report.guest("refused").unwrap_or(0);
    ensure!(after.ingress.frames - before.ingress.frames == frames - refused, "{what}");
    match fate {
        Fate::Dropped(reason, by_kernel) => {
            ensure!(refused == by_kernel && booked(reason) == frames - refused, "{what}");
            ensure!(at_victim.is_empty() && at_bystanders.is_empty(), "somebody saw it: {what}");
        }
        Fate::Refused => {
            ensure!(refused == frames, "{what}");
            ensure!(at_victim.is_empty() && at_bystanders.is_empty(), "somebody saw it: {what}");
        }
        Fate::Delivered => ensure!(refused == 0 && at_victim.len() as u64 == frames, "{what}"),
        Fate::Limited => {
            ensure!(refused == 0 && booked("flood_limited") > frames / 2, "{what}");
            ensure!(at_victim.len() as u64 <= frames - booked("flood_limited"), "{what}");
        }
    }
    Ok(())
}

#[test]
fn every_attack_is_stopped_or_counted_and_bystanders_keep_talking() {
    in_both_datapaths(|arena, mode| {
        let mac = format!("--mac {}", frames::station(ATTACKER.into()));
        let stage = Stage::set(arena, mode, &mac, &[])?;
        for attack in ATTACKS {
            stopped_or_counted(&stage, attack)?;
        }
        stage.daemon.stop(arena)
    });
}

#[test]
fn a_flooding_guest_is_limited_and_bystanders_keep_talking() {
    in_both_datapaths(|arena, mode| {
        let config = "[[port]]\nname = \"m4\"\ntap = \"m4\"\nflood_per_sec = 100\n";
        std::fs::write("/run/floods.toml", config)?;
        let stage = Stage::set(arena, mode, "", &["-c", "/run/floods.toml"])?;
        for attack in FLOODS {
            stopped_or_counted(&stage, attack)?;
        }
        stage.daemon.stop(arena)
    });
}

#[test]
fn ten_thousand_sources_of_one_guest_evict_nobody_else() {
    in_both_datapaths(|arena, mode| {
        let stage = Stage::set(arena, mode, "", &[])?;
        let (report, _, at_bystanders) = stage.suffer("source-flood", 10_000)?;
        ensure!(report.guest("sent") == Some(10_000) && report.guest("refused") == Some(0), "{report:?}");
        ensure!(at_bystanders.is_empty(), "{} frames to the victim reached a bystander", at_bystanders.len());
        let stations = stage.daemon.cli().stations()?;
        for (number, port) in [(BYSTANDERS[0], "a"), (BYSTANDERS[1], "b"), (VICTIM, "victim")] {
            let mac = frames::station(number).to_string();
            ensure!(stations.iter().any(|s| s.mac == mac && s.port == port), "{mac} was evicted");
        }
        ensure!(stations.iter().filter(|station| station.port == "m4").count() <= 1024);
        stage.daemon.stop(arena)
    });
}
