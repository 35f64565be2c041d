//! Bindings: new, changed, claimed by two, probed, evicted, asked for.

use super::*;

#[test]
fn an_address_is_bound_once_however_often_it_is_said() {
    let mut desk = Desk::new();
    for second in 0..100 {
        desk.hear("a", &arp(mac(1), v4(7), v4(9)), at(second));
    }
    assert_eq!(desk.kinds(), [EventKind::BindingNew]);
    let found = desk.who("198.18.0.7");
    let [holder] = &found[..] else { panic!("{found:?}") };
    assert_eq!((holder.mac.0, holder.port.as_str(), holder.claims), (mac(1), "a", 100));
    assert_eq!((holder.from, holder.until, holder.is_latest), (at(0).1, at(99).1, true));
    assert_eq!(desk.who("02:00:00:00:00:01"), found);
    assert_eq!(desk.who("a"), found);
    assert_eq!(desk.who("198.18.0.9"), [], "who is asked for has said nothing");
    assert_eq!(desk.who("b"), []);
}

#[test]
fn two_that_claim_one_address_are_told_once_a_window_with_both() {
    let mut desk = Desk::new();
    let window = WINDOW_SECS;
    desk.hear("a", &arp(mac(1), v4(7), v4(9)), at(0)).hear("b", &arp(mac(2), v4(7), v4(9)), at(10));
    let duplicate = desk.told.pop().unwrap();
    assert_eq!(duplicate.kind, EventKind::DuplicateAddress);
    assert_eq!((duplicate.port.as_deref(), duplicate.mac.unwrap().0), (Some("b"), mac(2)));
    assert_eq!((duplicate.other_port.as_deref(), duplicate.other_mac.unwrap().0), (Some("a"), mac(1)));
    assert_eq!((duplicate.address, duplicate.time), (Some(v4(7).into()), at(10).1));
    assert_eq!(desk.kinds(), [EventKind::BindingNew]);
    for second in 11..10 + window {
        desk.hear("a", &arp(mac(1), v4(7), v4(9)), at(second)).hear("b", &arp(mac(2), v4(7), v4(9)), at(second));
    }
    assert_eq!(desk.kinds(), [], "it is known");
    desk.hear("a", &arp(mac(1), v4(7), v4(9)), at(10 + window)).hear("b", &arp(mac(2), v4(7), v4(9)), at(10 + window));
    assert_eq!(desk.kinds(), [EventKind::DuplicateAddress], "it goes on");
    let holders = desk.who("198.18.0.7");
    let [b, a] = &holders[..] else { panic!("{holders:?}") };
    assert_eq!((a.port.as_str(), a.from, b.port.as_str(), b.from), ("a", at(0).1, "b", at(10).1));
    assert!(a.is_latest && b.is_latest, "both at once");
}

#[test]
fn an_address_that_was_given_up_changes_hands() {
    let mut desk = Desk::new();
    let later = WINDOW_SECS + 1;
    desk.hear("a", &arp(mac(1), v4(7), v4(9)), at(0)).hear("b", &arp(mac(2), v4(7), v4(9)), at(later));
    desk.hear("a", &arp(mac(1), v4(7), v4(9)), at(3 * later));
    let told: Vec<_> = desk.told.drain(..).map(|event| (event.kind, event.port.unwrap(), event.other_port)).collect();
    let changed = |port: &str, other: &str| (EventKind::BindingChanged, port.to_owned(), Some(other.to_owned()));
    assert_eq!(told, [(EventKind::BindingNew, "a".to_owned(), None), changed("b", "a"), changed("a", "b")]);
    assert_eq!(desk.who("198.18.0.7").len(), 3, "two times of one station are two");
    for (second, port) in
        [(0, "a"), (later - 1, "a"), (later, "b"), (2 * later, "b"), (3 * later, "a"), (1_000_000, "a")]
    {
        let then = desk.register.who(&"198.18.0.7".parse().unwrap(), Some(at(second).1));
        assert_eq!(then.iter().map(|holder| holder.port.as_str()).collect::<Vec<_>>(), [port], "{second}");
    }
    let before = at(0).1 - SignedDuration::from_secs(1);
    assert_eq!(desk.register.who(&"198.18.0.7".parse().unwrap(), Some(before)), []);
}

#[test]
fn a_station_that_moves_takes_its_address_along_and_one_at_two_ports_is_two() {
    let mut desk = Desk::new();
    let claim = arp(mac(1), v4(7), v4(9));
    desk.hear("a", &claim, at(0)).hear("b", &claim, at(1)).hear("b", &claim, at(2));
    assert_eq!(desk.kinds(), [EventKind::BindingNew, EventKind::BindingChanged]);
    desk.hear("a", &claim, at(3));
    assert_eq!(desk.kinds(), [EventKind::DuplicateAddress], "to and fro");
}

#[test]
fn a_probe_binds_nothing_and_tells_whose_address_it_wants() {
    let mut desk = Desk::new();
    let zero = [0; 4];
    desk.hear("b", &arp(mac(2), zero, v4(7)), at(0));
    assert_eq!((desk.kinds(), desk.who("198.18.0.7")), (vec![], vec![]));
    desk.hear("a", &arp(mac(1), v4(7), v4(7)), at(1)).hear("a", &arp(mac(1), zero, v4(7)), at(2));
    assert_eq!(desk.kinds(), [EventKind::BindingNew], "one's own address is no conflict");
    desk.hear("b", &arp(mac(2), zero, v4(7)), at(3)).hear("b", &arp(mac(2), zero, v4(7)), at(4));
    let told: Vec<_> = desk.told.drain(..).collect();
    let [told] = &told[..] else { panic!("{told:?}") };
    assert_eq!((told.kind, told.detail.source.as_deref()), (EventKind::DuplicateAddress, Some("probe")));
    assert_eq!(desk.who("198.18.0.7").len(), 1, "it is still the other's");
}

#[test]
fn neighbour_discovery_binds_by_every_message_and_detects_duplicates() {
    let option = |kind: u8, mac: MacAddr| [&[kind, 1][..], &mac.0].concat();
    let (zero, none) = ([0; 4], [0; 16]);
    let mut desk = Desk::new();
    let solicitation = |target: [u8; 16]| [&[135, 0, 0, 0][..], &zero, &target].concat();
    let advertisement =
        |target: [u8; 16], own: MacAddr| [&[136, 0, 0, 0][..], &zero, &target, &option(2, own)].concat();
    desk.hear("a", &icmpv6(mac(1), v6(1), 255, &[&[133, 0, 0, 0][..], &zero, &option(1, mac(1))].concat()), at(0));
    desk.hear("a", &icmpv6(mac(2), v6(2), 255, &[&[134, 0, 0, 0][..], &[0; 12], &option(1, mac(2))].concat()), at(0));
    desk.hear("a", &icmpv6(mac(3), v6(3), 255, &solicitation(v6(9))), at(0));
    desk.hear("a", &icmpv6(mac(4), v6(40), 255, &advertisement(v6(4), mac(44))), at(0));
    assert_eq!(desk.kinds(), [EventKind::BindingNew; 4]);
    for (address, station) in [("2001:db8::1", 1), ("2001:db8::2", 2), ("2001:db8::3", 3), ("2001:db8::4", 44)] {
        let found = desk.who(address);
        assert_eq!(found.iter().map(|it| (it.mac.0, it.source.as_str())).collect::<Vec<_>>(), [(mac(station), "nd")]);
    }
    desk.hear("b", &icmpv6(mac(5), none, 255, &solicitation(v6(3))), at(1));
    assert_eq!(desk.kinds(), [EventKind::DuplicateAddress], "detected as RFC 4862 detects it");
    desk.hear("b", &icmpv6(mac(5), v6(5), 64, &solicitation(v6(9))), at(1));
    let looped = [&[133, 0, 0, 0][..], &zero, &[1, 0], &[0; 40]].concat();
    desk.hear("b", &icmpv6(mac(6), v6(6), 255, &looped), at(1));
    assert_eq!(desk.who("2001:db8::5"), [], "from behind a router it is forged");
    assert_eq!(desk.who("2001:db8::6")[0].mac.0, mac(6), "an option without length is none");
}

#[test]
fn what_no_host_can_have_is_not_bound_and_vlans_are_worlds_of_their_own() {
    let mut desk = Desk::new();
    for address in [[0; 4], [255; 4], [224, 0, 0, 1], [127, 0, 0, 1]] {
        desk.hear("a", &arp(mac(1), address, v4(9)), at(0));
    }
    desk.hear("a", &arp(MacAddr([1, 0, 0x5e, 0, 0, 1]), v4(7), v4(9)), at(0));
    assert_eq!(desk.kinds(), []);
    let tagged = |vlan: u8, frame: &[u8]| [&frame[..12], &[0x81, 0, 0, vlan], &frame[12..]].concat();
    desk.hear("a", &tagged(5, &arp(mac(1), v4(7), v4(9))), at(0));
    desk.hear("b", &tagged(6, &arp(mac(2), v4(7), v4(9))), at(0));
    assert_eq!(desk.kinds(), [EventKind::BindingNew, EventKind::BindingNew]);
    assert_eq!(desk.who("b")[0].vlan, Some(6));
}

#[test]
fn who_may_not_speak_is_not_heard() {
    let mut register = Register::new(limits());
    let frame = arp(mac(1), v4(7), v4(9));
    assert!(register.hear(&"a".into(), &frame, |source| source != mac(1), at(0)).is_empty());
    assert_eq!(register.hear(&"a".into(), &frame, |source| source == mac(1), at(0)).len(), 1);
}

#[test]
fn a_port_that_claims_everything_forgets_its_own_and_nobody_elses() {
    let mut desk = Desk::new();
    desk.hear("b", &arp(mac(2), v4(7), v4(9)), at(0));
    for number in 0..5000_u16 {
        let [high, low] = number.to_be_bytes();
        desk.hear("a", &arp(mac(1), [198, 19, high, low], v4(9)), at(1));
    }
    assert_eq!(desk.register.bindings(), 1 + limits().bindings_max / 4);
    assert_eq!(desk.register.evicted(), 5000 - 100);
    assert_eq!(desk.who("198.18.0.7").len(), 1);
    assert_eq!(desk.who("198.19.19.135").len(), 1, "the youngest");
    assert_eq!(desk.who("198.19.0.0").len(), 0, "the oldest");
    assert_eq!(desk.who("a").len(), 100);
}

#[test]
fn what_is_written_down_is_known_again_and_no_news() {
    let mut desk = Desk::new();
    desk.hear("a", &arp(mac(1), v4(7), v4(9)), at(0)).hear("b", &arp(mac(2), v4(7), v4(9)), at(100));
    desk.register.see(mac(1), &"a".into(), None, at(0).1);
    let text = serde_json::to_string(&desk.register.save()).unwrap();
    let mut again = Desk::new();
    again.register.restore(serde_json::from_str(&text).unwrap());
    for subject in ["198.18.0.7", "a", "b", "02:00:00:00:00:02"] {
        assert_eq!(again.who(subject), desk.who(subject));
    }
    again.hear("b", &arp(mac(2), v4(7), v4(9)), at(500));
    assert_eq!(again.kinds(), []);
    assert_eq!(again.register.see(mac(1), &"a".into(), None, at(500).1), None);
}
