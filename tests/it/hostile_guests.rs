//! Hostile micro guests on KVM: each attack gets nowhere on Weft, and the same attack on a Linux bridge shows where it
//! would have got.
//!
//! The stage is the same on both: an attacker, the station that the attack is about, and two bystanders that keep talking.

use anyhow::{Context as _, Result, ensure};
use weft_tests::fabric::bridge;
use weft_tests::frames::{self, Builder, MacAddr};
use weft_tests::micro::{self, Micro, Report};
use weft_tests::topology;
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

/// What a Linux bridge makes of the same frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnABridge {
    /// So many reach the victim.
    Carried(u64),
    /// Each reaches the victim as a thousand.
    Multiplied,
    /// It, or the kernel before it, refuses them as well: there the attack proves nothing about us.
    Refused,
}

/// An attack: name, frames, what becomes of them, and what would have on a bridge.
type Attack = (&'static str, u64, Fate, OnABridge);

/// The attacks whose frames are counted one by one.
const ATTACKS: [Attack; 12] = [
    ("spoofed-source", 100, Fate::Dropped("spoofed_source", 0), OnABridge::Carried(100)),
    ("group-source", 100, Fate::Dropped("group_source", 0), OnABridge::Refused),
    ("runt", 100, Fate::Dropped("malformed", 50), OnABridge::Refused),
    ("oversize", 100, Fate::Dropped("too_big", 0), OnABridge::Refused),
    ("gso-size-1", 100, Fate::Dropped("bad_offload", 0), OnABridge::Multiplied),
    ("reserved", 160, Fate::Dropped("reserved_address", 0), OnABridge::Carried(140)),
    ("bad-csum-start", 100, Fate::Refused, OnABridge::Refused),
    ("gso-size-0", 100, Fate::Refused, OnABridge::Refused),
    ("gso-size-65535", 100, Fate::Refused, OnABridge::Refused),
    ("hdr-len", 100, Fate::Refused, OnABridge::Refused),
    ("spoofed-arp", 100, Fate::Delivered, OnABridge::Carried(100)),
    ("double-tag", 100, Fate::Delivered, OnABridge::Carried(100)),
];
/// The attacks by flooding.
const FLOODS: [Attack; 2] = [
    ("broadcast-storm", 10_000, Fate::Limited, OnABridge::Carried(10_000)),
    ("unknown-scan", 10_000, Fate::Limited, OnABridge::Carried(10_000)),
];

/// The station that attacks are about, and two bystanders, all of whom the switch knows.
struct Company {
    victim: Station,
    bystanders: [Station; 2],
}

impl Company {
    /// `join` makes a station of this name a port.
    fn gather(join: impl Fn(&str) -> Result<Station>) -> Result<Self> {
        let company = Self { victim: join("victim")?, bystanders: [join("a")?, join("b")?] };
        company.greet()?;
        Ok(company)
    }

    /// All are learned, so that frames to them are unicast.
    fn greet(&self) -> Result<()> {
        let hello = |number: u32| Builder::new(frames::station(number), MacAddr::BROADCAST).number(number.into());
        let [a, b] = &self.bystanders;
        for (from, to, number) in [(a, b, BYSTANDERS[0]), (b, &self.victim, BYSTANDERS[1]), (&self.victim, a, VICTIM)] {
            from.send(&hello(number).build())?;
            to.receive_until(wait::SOON, |frame| frames::number_of(frame) == Some(number.into()))?;
        }
        Ok(())
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

    /// Runs an attack while the bystanders talk, until `settled`.
    fn suffer(&self, attack: &str, frames: u64, settled: impl Fn() -> Result<()>) -> Result<Suffered> {
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
        settled()?;
        at_bystanders.extend(self.talk(50)?);
        at_victim.extend(self.victim.drain()?);
        let hostile = |frame: &Vec<u8>| is_hostile(frame, attack);
        at_victim.retain(hostile);
        at_bystanders.retain(hostile);
        Ok((report, at_victim, at_bystanders))
    }
}

/// The company on Weft, with a port for the attacker.
struct Stage {
    daemon: Daemon,
    company: Company,
}

impl Stage {
    fn set(arena: &Arena, mode: Mode, port: &str, options: &[&str]) -> Result<Self> {
        let daemon = Daemon::start_with(arena, "weft0", mode, options)?;
        if options.is_empty() {
            micro::port(&daemon, ATTACKER, port)?;
        }
        let company = Company::gather(|name| topology::station(&daemon, name))?;
        Ok(Self { daemon, company })
    }

    fn suffer(&self, attack: &str, frames: u64) -> Result<Suffered> {
        self.company.suffer(attack, frames, || self.daemon.settle())
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

fn stopped_or_counted(stage: &Stage, (attack, frames, fate, _): Attack) -> Result<()> {
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

/// The company on a Linux bridge that forwards as much as it can be made to, with a port for the attacker.
fn on_a_bridge(arena: &Arena) -> Result<Company> {
    bridge::make(arena)?;
    // All but the first three addresses that a bridge keeps to itself; without STP it forwards the first as well.
    arena.ip("link set dev br0 type bridge group_fwd_mask 0xfff8")?;
    arena.ip("tuntap add dev m4 mode tap vnet_hdr")?;
    arena.ip("link set dev m4 master br0 up")?;
    Company::gather(|name| {
        let station = Station::plain(name)?;
        // What is not read at once is not lost.
        arena.ip(&format!("link set dev {name} txqueuelen 20000"))?;
        bridge::join(arena, name, 1500)?;
        Ok(station)
    })
}

#[test]
fn the_same_attacks_reach_the_victim_on_a_linux_bridge() {
    Arena::run(&[Need::Kvm], |arena| {
        let company = on_a_bridge(arena)?;
        for (attack, frames, _, fate) in ATTACKS.into_iter().chain(FLOODS) {
            // A spoofer has taken the victim's place.
            company.greet()?;
            let (report, at_victim, _) = company.suffer(attack, frames, || Ok(()))?;
            let what = format!("{attack}: {report:?}, {} at the victim", at_victim.len());
            ensure!(report.guest("sent") == Some(frames), "{what}");
            let reached = at_victim.len() as u64;
            match fate {
                OnABridge::Carried(so_many) => ensure!(reached == so_many, "{what}"),
                // What the victim's queue has no room for is lost.
                OnABridge::Multiplied => ensure!(reached > 100 * frames, "{what}"),
                OnABridge::Refused => ensure!(reached == 0, "{what}"),
            }
        }
        Ok(())
    });
}

#[test]
fn the_same_source_flood_fills_a_linux_bridge() {
    Arena::run(&[Need::Kvm], |arena| {
        let _company = on_a_bridge(arena)?;
        let mut guest = Micro::boot(ATTACKER, "--guest hostile --attack source-flood --count 10000000")?;
        // The bridge forgets them with the guest, so we look while it lives.
        wait::until_true("the bridge learns 10,000 stations", wait::LATER, || {
            ensure!(!guest.ended()?, "the attacker ended early");
            Ok(bridge::learned_from("m4")?.len() >= 10_000)
        })?;
        guest.kill()
    });
}

#[test]
fn a_guest_killed_under_traffic_takes_only_its_own_port_down() {
    in_both_datapaths(|arena, mode| {
        let stage = Stage::set(arena, mode, "", &[])?;
        let attacker = Micro::boot(ATTACKER, "--guest hostile --attack broadcast-storm --count 1000000")?;
        stage.daemon.until_state("m4", "up", wait::SOON)?;
        wait::until_true("the storm blows", wait::SOON, || {
            stage.company.talk(1)?;
            Ok(stage.daemon.cli().port("m4")?.ingress.frames > 100)
        })?;
        attacker.kill()?;
        stage.daemon.until_state("m4", "no_carrier", wait::SOON)?;
        stage.company.talk(100)?;
        stage.daemon.stop(arena)
    });
}
