//! Keys: what is read of them, what answers what, and what counts as useful.

use switch_common::flow::{FlowKey6, KIND_CUT, KIND_FRAGMENT, KIND_IPV4, KIND_IPV6, KIND_LINK};

use super::*;

#[test]
fn useful_frames_are_unicast_and_neither_arp_nor_neighbour_discovery() {
    let link = |ethertype| {
        let mut key = request();
        (key.tail.kind, key.tail.protocol, key.tail.source_port, key.tail.destination_port) =
            (KIND_LINK, 0, ethertype, 0);
        (key.source_address, key.destination_address) = ([0; 4], [0; 4]);
        RawKey::V4(key)
    };
    let icmp6 = |kind| {
        let mut key = FlowKey6 { pair: request().pair, ..FlowKey6::default() };
        (key.tail.kind, key.tail.protocol, key.tail.source_port) = (KIND_IPV6, 58, kind);
        RawKey::V6(key)
    };
    let mut broadcast = request();
    broadcast.pair.destination = [0xff; 6];
    for (key, useful) in [
        (RawKey::V4(request()), true),
        (RawKey::V4(broadcast), false),
        (link(0x0806), false),
        (link(0x88cc), true),
        (icmp6(128), true),
        (icmp6(135), false),
    ] {
        let mut tracker = tracker();
        tracker.sweep(&[Entry { key, value: value(400, 2, 1, 0) }], at(secs(1)));
        let last = tracker.totals().ports[&1].last_useful;
        let then = Timestamp::from_second(1_800_000_000).unwrap() + Duration::from_millis(400);
        assert_eq!(last, useful.then_some(then), "{key:?}");
    }
}

#[test]
fn an_echo_and_its_reply_are_one_conversation_and_an_error_stands_alone() {
    let icmp = |mut key: FlowKey4, kind, code| {
        (key.tail.protocol, key.tail.source_port, key.tail.destination_port) = (1, kind, code);
        key
    };
    let mut tracker = tracker();
    let echo = entry(icmp(request(), 8, 0), value(10, 2, 3, 0));
    let answer = entry(icmp(reply(), 0, 0), value(11, 1, 3, 0));
    let unreachable = entry(icmp(reply(), 3, 1), value(12, 1, 1, 0));
    tracker.sweep(&[answer, unreachable, echo], at(secs(1)));
    let told = live(&tracker);
    assert_eq!(told.iter().map(|told| told.reverse.tally.frames).collect::<Vec<_>>(), [3, 0]);
    assert_eq!(told[0].key.network, FlowKey::try_from(&echo.key).unwrap().network);
    assert_eq!(tracker.totals().active.icmp, 2);
}

#[test]
fn keys_are_checked_once_and_what_is_none_is_counted() {
    let read = |change: fn(&mut FlowKey4)| {
        let mut key = request();
        change(&mut key);
        FlowKey::try_from(&key)
    };
    let ports = |change: fn(&mut FlowKey4)| match read(change).unwrap().network {
        Network::Ip { ports, .. } => ports,
        Network::Link { .. } => panic!("no IP"),
    };
    assert_eq!(ports(|_| ()), Ports::L4 { source: 40_000, destination: 80 });
    assert_eq!(ports(|key| key.tail.kind = KIND_IPV4 | KIND_FRAGMENT), Ports::Fragment);
    assert_eq!(ports(|key| key.tail.kind = KIND_IPV4 | KIND_CUT), Ports::Cut);
    assert_eq!(ports(|key| key.tail.protocol = 47), Ports::None);
    let tagged = read(|key| (key.pair.outer, key.tail.inner) = (0x9064, 0x8007)).unwrap().tags;
    assert_eq!(
        (tagged.outer, tagged.inner),
        (Some(Tag { service: true, vlan: 100 }), Some(Tag { service: false, vlan: 7 }))
    );
    assert!(read(|key| key.pair.ingress |= FLOW_ALTERNATE).unwrap().alternate);
    assert_eq!(read(|key| key.pair.ingress = 0), Err(NotAKey::Ingress(0)));
    assert_eq!(read(|key| key.tail.kind = KIND_IPV6), Err(NotAKey::Kind(KIND_IPV6)));
    let mut tracker = tracker();
    let mut wrong = request();
    wrong.tail.kind = 9;
    for more in 1..3 {
        tracker.sweep(&[entry(wrong, value(10, 2, 1, 0)), entry(request(), value(10, 2, 1, 0))], at(secs(more)));
        assert_eq!((tracker.totals().rejected, tracker.len()), (1, 1));
    }
}
