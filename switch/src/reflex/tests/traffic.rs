//! Two containers that talk, by both hooks; the kernel's own counters are the witness.

use switch_common::{DropCell, VERDICT_FORWARD, VERDICT_FORWARD_PEER};

use super::bench::balance;
use super::lab::{A, B, Lab, Station, attach, enter, netdev_counter, teach, wait_for};
use crate::reflex::{Adopted, Attachment, Hook, Reflex};

/// Two containers with verdicts both ways, and programs on both.
fn talk(lab: &Lab, hook: Hook, action: u8) -> Reflex {
    lab.wire();
    let (mut reflex, adopted) = lab.open(hook);
    assert_eq!(adopted, Adopted::Fresh);
    assert!(hook == Hook::Auto || reflex.hook() == hook);
    teach(&mut reflex, action);
    assert_eq!(attach(&mut reflex), [Attachment::Attached; 2]);
    reflex
}

fn ping(lab: &Lab, hook: Hook, action: u8) {
    let reflex = talk(lab, hook, action);
    let said = lab.run(A, &format!("ping -q -c 50 -i 0.002 {}", B.address));
    assert!(said.contains(" 50 received"), "{said}");
    for (station, other) in [(A, B), (B, A)] {
        let counters = reflex.counters(station.id).unwrap();
        let bytes = 50 * (14 + 20 + 8 + 56);
        assert_eq!((counters.ingress.frames, counters.ingress.bytes), (50, bytes));
        assert_eq!((counters.egress.frames, counters.egress.bytes), (50, bytes));
        assert_eq!((counters.forwarded, counters.copies), (50, 50));
        assert_eq!(counters.ingress.frames, netdev_counter(lab, None, station.port, "rx_packets"));
        assert_eq!(counters.ingress.bytes, netdev_counter(lab, None, station.port, "rx_bytes"));
        assert_eq!(counters.egress.frames, netdev_counter(lab, Some(station), "eth0", "rx_packets"));
        assert_eq!(counters.ingress.frames, reflex.counters(other.id).unwrap().egress.frames);
        let drops = reflex.drops(station.id).unwrap();
        assert!(drops.ingress.iter().chain(&drops.egress).all(|cell| *cell == DropCell::default()));
    }
    balance(&reflex, &[1, 2]);
}

#[test]
fn containers_ping_by_tcx() {
    let Some(lab) = enter("traffic::containers_ping_by_tcx") else { return };
    ping(&lab, Hook::Tcx, VERDICT_FORWARD);
}

#[test]
fn containers_ping_by_clsact() {
    let Some(lab) = enter("traffic::containers_ping_by_clsact") else { return };
    ping(&lab, Hook::Clsact, VERDICT_FORWARD);
}

#[test]
fn containers_ping_straight_into_each_others_namespace() {
    let Some(lab) = enter("traffic::containers_ping_straight_into_each_others_namespace") else { return };
    ping(&lab, Hook::Auto, VERDICT_FORWARD_PEER);
}

/// Segments that a namespace's TCP has sent, as wires count them. `OutSegs` leaves out what is sent again
/// (`__tcp_transmit_skb` in `net/ipv4/tcp_output.c`).
fn segments_sent(lab: &Lab, station: Station) -> u64 {
    let snmp = lab.run(station, "cat /proc/net/snmp");
    let mut tcp = snmp.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_whitespace);
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let sent = names.zip(values).filter(|(name, _)| matches!(*name, "OutSegs" | "RetransSegs"));
    sent.map(|(_, segments)| segments.parse::<u64>().unwrap()).sum()
}

#[test]
fn the_weight_of_bulk_tcp_is_what_the_senders_tcp_says_it_sent() {
    let Some(lab) = enter("traffic::the_weight_of_bulk_tcp_is_what_the_senders_tcp_says_it_sent") else { return };
    let reflex = talk(&lab, Hook::Auto, VERDICT_FORWARD);
    let mut server = lab.spawn(B, "iperf3 -s -1");
    wait_for("the server listens", || lab.run(B, "ss -Htln").contains(":5201"));
    lab.run(A, &format!("iperf3 -c {} -n 200M", B.address));
    server.wait().unwrap();
    for station in [A, B] {
        let ingress = reflex.counters(station.id).unwrap().ingress;
        eprintln!("port {}: {ingress:?}", station.id);
        assert_eq!(ingress.wire_frames(), segments_sent(&lab, station), "wire frames are TCP's segments");
        assert_eq!(ingress.frames, netdev_counter(&lab, None, station.port, "rx_packets"));
        assert_eq!(ingress.bytes, netdev_counter(&lab, None, station.port, "rx_bytes"));
    }
    let ingress = reflex.counters(A.id).unwrap().ingress;
    assert!(ingress.extra_frames > ingress.frames, "no super-frames were sent");
    // Every segment has Ethernet's 14 bytes, IPv4's 20 and TCP's 32 with its timestamps.
    assert_eq!(ingress.extra_bytes, ingress.extra_frames * 66);
    assert_eq!(ingress, reflex.counters(B.id).unwrap().egress);
    balance(&reflex, &[1, 2]);
}
