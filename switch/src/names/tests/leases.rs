//! DHCP: a lease is its client's, at the client's port, under the client's name.

use super::*;

fn message(op: u8, xid: u8, yours: [u8; 4], client: MacAddr, options: &[u8]) -> Vec<u8> {
    let fixed = [&[op, 1, 6, 0, 0, 0, 0, xid][..], &[0; 8], &yours, &[0; 8], &client.0, &[0; 10 + 64 + 128]].concat();
    [&fixed[..], &[0x63, 0x82, 0x53, 0x63], options, &[255]].concat()
}

fn ask(xid: u8, kind: u8, name: &[u8]) -> Vec<u8> {
    let options = [&[53, 1, kind, 12, u8::try_from(name.len()).unwrap()][..], name].concat();
    udp_v4((1, 68), (255, 67), &message(1, xid, [0; 4], mac(1), &options))
}

fn give(xid: u8, kind: u8, yours: [u8; 4]) -> Vec<u8> {
    udp_v4((9, 67), (1, 68), &message(2, xid, yours, mac(1), &[53, 1, kind]))
}

#[test]
fn a_lease_is_its_clients_at_the_clients_port() {
    let mut desk = Desk::new();
    desk.hear("guest", &ask(7, 1, b"web1"), at(0)).hear("server", &give(7, 2, v4(50)), at(1));
    desk.hear("guest", &ask(7, 3, b"web1"), at(2));
    assert_eq!((desk.kinds(), desk.who("198.18.0.50")), (vec![], vec![]), "an offer is no lease");
    desk.hear("server", &give(7, 5, v4(50)), at(3));
    assert_eq!(desk.kinds(), [EventKind::BindingNew]);
    let found = desk.who("198.18.0.50");
    let [holder] = &found[..] else { panic!("{found:?}") };
    assert_eq!((holder.port.as_str(), holder.mac.0, holder.source.as_str()), ("guest", mac(1), "dhcp"));
    assert_eq!(holder.names, ["web1"]);
    desk.hear("guest", &arp(mac(1), v4(50), v4(9)), at(4));
    assert_eq!(desk.who("198.18.0.50")[0].names, ["web1"], "ARP knows no names, and takes none away");
}

#[test]
fn what_nobody_asked_for_is_no_lease() {
    let mut desk = Desk::new();
    desk.hear("server", &give(7, 5, v4(50)), at(0));
    desk.hear("guest", &ask(8, 3, b"x"), at(0)).hear("server", &give(9, 5, v4(50)), at(0));
    desk.hear("server", &give(8, 6, v4(50)), at(0)).hear("server", &give(8, 5, [0; 4]), at(0));
    assert_eq!((desk.kinds(), desk.who("198.18.0.50")), (vec![], vec![]));
    desk.hear("server", &give(8, 5, v4(50)), at(0));
    assert_eq!(desk.kinds(), [EventKind::BindingNew]);
}

#[test]
fn a_host_name_cannot_speak_to_a_terminal() {
    let mut desk = Desk::new();
    desk.hear("guest", &ask(7, 3, b"\x1b[2J\xff\r\nroot\\"), at(0)).hear("server", &give(7, 5, v4(50)), at(1));
    assert_eq!(desk.who("198.18.0.50")[0].names, ["\\027[2J\\255\\013\\010root\\092"]);
    assert_eq!(desk.told[0].name.as_deref(), Some("\\027[2J\\255\\013\\010root\\092"));
}

#[test]
fn dhcp_for_ipv6_is_understood_too() {
    let duid = [0, 1, 0, 1, 1, 2, 3, 4, 2, 0, 0, 0, 0, 1];
    let option = |kind: u16, body: &[u8]| {
        [&kind.to_be_bytes()[..], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    };
    let frame = |from: (u8, u16), to: u16, payload: &[u8]| {
        let builder = PacketBuilder::ethernet2(mac(from.0).0, mac(9).0).ipv6(v6(from.0), v6(9), 64).udp(from.1, to);
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    };
    let lease = |address: [u8; 16], secs: u8| option(5, &[&address[..], &[0, 0, 0, secs], &[0, 0, 0, secs]].concat());
    let given = [&[0; 12][..], &lease(v6(60), 100), &lease(v6(61), 0)].concat();
    let name = [&[0][..], &wire("web1.example")].concat();
    let ask = [&[3, 0, 0, 7][..], &option(1, &duid), &option(39, &name)].concat();
    let reply = [&[7, 0, 0, 7][..], &option(1, &duid), &option(3, &given)].concat();
    let mut desk = Desk::new();
    desk.hear("server", &frame((9, 547), 546, &reply), at(0));
    assert_eq!(desk.kinds(), []);
    desk.hear("guest", &frame((1, 546), 547, &ask), at(0)).hear("server", &frame((9, 547), 546, &reply), at(0));
    assert_eq!(desk.kinds(), [EventKind::BindingNew], "a lease whose time is over is none");
    let holder = &desk.who("2001:db8::3c")[0];
    assert_eq!(
        (holder.port.as_str(), holder.mac.0, &holder.names[..]),
        ("guest", mac(1), &["web1.example".to_owned()][..])
    );
}
