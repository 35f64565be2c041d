//! What the kernel drops on our ports: the netdev's own counters are the witness.

use std::collections::BTreeMap;
use std::process::Command;

use aya::maps::MapInfo;
use switch_common::{DropCell, DropReason, LAYOUT_VERSION, PORT_UP, PortConfig, Way};

use super::bench::{Bench, PLAIN, frame, id, pair};
use super::lab::{enter, ifindex, netdev_counter, run, wait_for};
use super::tap::Tap;
use super::watching::{self, captured, counts, set};
use crate::reflex::{Adopted, Hook, KernelDrop, Kind, Ports, Reflex, Wish};

/// What a port's kernel drops are, by way and label.
fn dropped(reflex: &Reflex, port: u16) -> BTreeMap<(Option<Way>, String), DropCell> {
    let of_port = |drop: &KernelDrop| drop.port == port;
    let drops = reflex.kernel_drops().unwrap();
    drops.into_iter().filter(of_port).map(|drop| ((drop.way, drop.label.into_owned()), drop.dropped)).collect()
}

fn ring_full(reflex: &Reflex, port: u16) -> DropCell {
    let key = (Some(Way::Egress), "ring_full".to_owned());
    dropped(reflex, port).get(&key).copied().unwrap_or_default()
}

/// Fills the ring of guest 2, which does not read, with frames of guest 1.
fn overflow(bench: &mut Bench, frames: usize) -> u64 {
    let sent = frame(1, 2, &PLAIN, 86);
    (0..frames).for_each(|_| bench.send(1, &sent));
    sent.len() as u64
}

#[test]
fn a_full_ring_is_booked_on_the_port_that_is_full() {
    let Some(lab) = enter("drops::a_full_ring_is_booked_on_the_port_that_is_full") else { return };
    let mut bench = Bench::new(&lab);
    assert_eq!(bench.reflex.kernel_drops_problem(), None);
    bench.decide(1, 2, |_| {});
    let bytes = overflow(&mut bench, 2000);
    let lost = netdev_counter(&lab, None, "guest2", "tx_dropped");
    assert!(lost > 0, "the ring is as long as before");
    assert_eq!(ring_full(&bench.reflex, 2), DropCell { frames: lost, bytes: lost * bytes });
    assert_eq!(bench.received(2).len() as u64 + lost, 2000);
    assert_eq!(dropped(&bench.reflex, 2).len(), 1);
    for other in [1, 3] {
        assert_eq!(dropped(&bench.reflex, other), BTreeMap::new());
    }
    bench.balance();
    // Room again: nothing more is lost.
    overflow(&mut bench, 10);
    assert_eq!((bench.received(2).len(), ring_full(&bench.reflex, 2).frames), (10, lost));
}

#[test]
fn what_our_own_programs_drop_is_not_the_kernels() {
    let Some(lab) = enter("drops::what_our_own_programs_drop_is_not_the_kernels") else { return };
    let mut bench = Bench::new(&lab);
    bench.port(1, |port| port.flags &= !PORT_UP);
    (0..50).for_each(|_| bench.send(1, &frame(1, 2, &PLAIN, 46)));
    assert_eq!(bench.dropped(1, Way::Ingress, DropReason::PortDown).0, 50);
    assert_eq!(bench.reflex.kernel_drops().unwrap(), []);
}

#[test]
fn what_a_dead_vmm_never_read_is_booked_on_its_port() {
    let Some(lab) = enter("drops::what_a_dead_vmm_never_read_is_booked_on_its_port") else { return };
    let mut bench = Bench::new(&lab);
    run("ip tuntap add dev guest4 mode tap vnet_hdr");
    let port = Tap::open("guest4");
    // The host's own stack is to send nothing to it.
    run("ip link set guest4 addrgenmode none");
    run("ip link set guest4 arp off up");
    let config = PortConfig { ifindex: ifindex("guest4"), flags: PORT_UP, ..PortConfig::default() };
    bench.reflex.set_port(id(4), config).unwrap();
    bench.reflex.link(config.ifindex, id(4)).unwrap();
    bench.reflex.attach_port(id(4), "guest4", config.ifindex).unwrap();
    bench.decide(1, 4, |_| {});
    for _ in 0..7 {
        bench.send(1, &frame(1, 4, &PLAIN, 46));
    }
    drop(port);
    let purged = dropped(&bench.reflex, 4);
    assert_eq!(purged.values().map(|cell| cell.frames).sum::<u64>(), 7, "{purged:?}");
    assert!(purged.keys().all(|(way, label)| *way == Some(Way::Egress) && label.starts_with("kernel_")), "{purged:?}");
}

#[test]
fn the_same_number_in_another_namespace_is_not_ours() {
    let Some(lab) = enter("drops::the_same_number_in_another_namespace_is_not_ours") else { return };
    let mut bench = Bench::new(&lab);
    bench.reflex.link(4077, id(3)).unwrap();
    // A pair whose far end is down takes what it is sent, and drops it.
    let drop_three = |before: &str| {
        run(&format!("{before}ip link add name full index 4077 type veth peer name far"));
        run(&format!("{before}ip link set full up"));
        run(&format!("{before}ip address add 198.18.0.1/24 dev full"));
        run(&format!("{before}ip neigh replace 198.18.0.9 lladdr 02:00:00:00:00:09 dev full nud permanent"));
        let ping = format!("{before}ping -q -c 3 -i 0.01 -W 1 198.18.0.9");
        let mut words = ping.split_whitespace();
        assert!(!Command::new(words.next().unwrap()).args(words).status().unwrap().success());
    };
    drop_three(&format!("ip netns exec {} ", lab.space("a")));
    assert_eq!(bench.reflex.kernel_drops().unwrap(), []);
    // The control: here that number is a port.
    drop_three("");
    let frames: u64 = dropped(&bench.reflex, 3).values().map(|cell| cell.frames).sum();
    assert!(frames >= 3, "{:?}", dropped(&bench.reflex, 3));
    run("ip link del full");
}

#[test]
fn counting_goes_on_without_a_daemon_and_once_with_the_next() {
    let Some(lab) = enter("drops::counting_goes_on_without_a_daemon_and_once_with_the_next") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    overflow(&mut bench, 1500);
    let lost = || netdev_counter(&lab, None, "guest2", "tx_dropped");
    let first = lost();
    assert_eq!(ring_full(&bench.reflex, 2).frames, first);
    // What a killed daemon leaves: the pins alone.
    let Bench { reflex, verdicts, guests, punt } = bench;
    drop((reflex, verdicts));
    let mut guests = guests;
    for _ in 0..100 {
        guests[0].send(&frame(1, 2, &PLAIN, 86));
    }
    assert_eq!(lost(), first + 100);
    for round in 2..5 {
        let (reflex, adopted) = lab.open(Hook::Auto);
        assert_eq!(adopted, Adopted::All);
        assert_eq!(ring_full(&reflex, 2).frames, lost());
        for _ in 0..100 {
            guests[0].send(&frame(1, 2, &PLAIN, 86));
        }
        assert_eq!(lost(), first + 100 * (2 * round - 2));
        assert_eq!(ring_full(&reflex, 2).frames, lost(), "counted once by daemon {round}");
        drop(reflex);
        for _ in 0..100 {
            guests[0].send(&frame(1, 2, &PLAIN, 86));
        }
    }
    drop(punt);
    let jump = MapInfo::from_pin(lab.pins().join(format!("v{LAYOUT_VERSION}/KERNEL_DROP"))).unwrap().id();
    let hangs = || {
        let mut programs = aya::programs::loaded_programs().filter_map(Result::ok);
        programs.any(|program| program.map_ids().is_ok_and(|ids| ids.is_some_and(|ids| ids.contains(&jump))))
    };
    assert!(hangs());
    Reflex::remove(&lab.pins()).unwrap();
    wait_for("the tracepoint to be let go", || !hangs());
}

#[test]
fn a_switch_of_daemons_under_way_counts_every_drop_once() {
    let Some(lab) = enter("drops::a_switch_of_daemons_under_way_counts_every_drop_once") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    let Bench { reflex, verdicts, mut guests, punt } = bench;
    drop((reflex, verdicts));
    let lost = || netdev_counter(&lab, None, "guest2", "tx_dropped");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                guests[0].send(&frame(1, 2, &PLAIN, 86));
            }
        });
        for _ in 0..5 {
            drop(lab.open(Hook::Auto));
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let (reflex, _) = lab.open(Hook::Auto);
    assert!(lost() > 0);
    assert_eq!(ring_full(&reflex, 2).frames, lost());
    drop(punt);
}

#[test]
fn a_port_that_is_given_anew_begins_at_zero() {
    let Some(lab) = enter("drops::a_port_that_is_given_anew_begins_at_zero") else { return };
    let mut bench = Bench::new(&lab);
    bench.decide(1, 2, |_| {});
    bench.decide(1, 3, |_| {});
    overflow(&mut bench, 1500);
    (0..1500).for_each(|_| bench.send(1, &frame(1, 3, &PLAIN, 46)));
    assert!(ring_full(&bench.reflex, 2).frames > 0);
    let kept = ring_full(&bench.reflex, 3);
    bench.reflex.reset_counters(id(2)).unwrap();
    assert_eq!((dropped(&bench.reflex, 2).len(), ring_full(&bench.reflex, 3)), (0, kept));
    bench.verdicts.remove(&pair(1, 2)).unwrap();
}

#[test]
fn what_the_kernel_drops_at_a_port_is_captured() {
    let Some(lab) = enter("drops::what_the_kernel_drops_at_a_port_is_captured") else { return };
    let mut bench = watching::bench(&lab);
    let mut ring = bench.reflex.captures().unwrap();
    let wish = Wish { ingress: Ports::None, egress: Ports::None, dropped: Ports::All, ..Wish::all(Kind::Capture) };
    set(&mut bench.reflex, [(63, wish)]);
    let sent = frame(1, 2, &[0x81, 0, 0, 7, 0x88, 0xb5], 46);
    // Nobody reads guest 2's tap, until its queue is full.
    for _ in 0..4000 {
        bench.send(1, &sent);
    }
    let all = captured(&mut bench, &mut ring);
    let arrived = bench.received(2).len();
    assert!(arrived < 4000 && arrived + all.len() == 4000, "{arrived} arrived, {} captured", all.len());
    let label = bench.reflex.kernel_reasons().label(all[0].0.reason).into_owned();
    assert_eq!((label.as_str(), all[0].0.egress, &all[0].1), ("ring_full", 2, &sent));
    let (matched, delivered, _) = counts(&bench.reflex, 63);
    assert_eq!((matched, delivered), (all.len() as u64, all.len() as u64));
}
