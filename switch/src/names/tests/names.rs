//! DNS: what is asked, what is answered, how long it took, and what is not believed.

use super::*;

const CLIENT: (u8, u16) = (1, 40_000);
const SERVER: (u8, u16) = (9, 53);

fn dns(desk: &Desk, port: &str) -> PortDns {
    desk.register.dns().get(port).cloned().unwrap_or_default()
}

fn asks(desk: &mut Desk, message: &[u8], ms: u64) {
    desk.hear("guest", &udp_v4(CLIENT, SERVER, message), at_ms(ms));
}

fn answers(desk: &mut Desk, message: &[u8], ms: u64) {
    desk.hear("server", &udp_v4(SERVER, CLIENT, message), at_ms(ms));
}

#[test]
fn an_answer_tells_name_type_rcode_and_latency_and_gives_addresses_names() {
    let mut desk = Desk::new();
    let www = query(7, &wire("wWw.eXample"), 1);
    asks(&mut desk, &www, 1000);
    assert!(desk.told.is_empty());
    // 0x20: the answer repeats the case, and would be taken if it did not.
    answers(&mut desk, &answer(&query(7, &wire("WWW.example"), 1), 0, &[v4(80).into(), v4(81).into()]), 1003);
    let told = desk.told.pop().unwrap();
    assert_eq!(
        (told.kind, told.port.as_deref(), told.name.as_deref()),
        (EventKind::DnsAnswer, Some("guest"), Some("www.example"))
    );
    assert_eq!((told.address, told.detail.server), (Some(v4(1).into()), Some(v4(9).into())));
    assert_eq!((told.detail.query_type.as_deref(), told.detail.rcode.as_deref()), (Some("A"), Some("noerror")));
    assert_eq!(told.detail.latency_us, Some(3000));
    let sums = dns(&desk, "guest");
    assert_eq!((sums.queries, sums.answers, sums.latency.count()), (1, [1, 0, 0, 0, 0, 0, 0], 1));
    desk.hear("web", &arp(mac(8), v4(81), v4(9)), at(2));
    assert_eq!(desk.who("198.18.0.81")[0].names, ["www.example"]);
    answers(&mut desk, &answer(&www, 0, &[v4(99).into()]), 1004);
    assert_eq!((desk.kinds(), dns(&desk, "server").unmatched), (vec![EventKind::BindingNew], 1), "answered twice");
}

#[test]
fn every_rcode_has_its_place_and_a_silent_server_is_told() {
    let mut desk = Desk::new();
    for rcode in 0..16_u8 {
        let asked = query(rcode.into(), &wire("a.example"), 28);
        asks(&mut desk, &asked, 0);
        answers(&mut desk, &answer(&asked, rcode, &[]), 1);
    }
    assert_eq!(dns(&desk, "guest").answers, [1, 1, 1, 1, 1, 1, 10]);
    desk.kinds();
    asks(&mut desk, &query(99, &wire("lost.example"), 16), 10_000);
    asks(&mut desk, &query(99, &wire("lost.example"), 16), 12_000);
    assert!(desk.register.give_up(at_ms(15_000).0).is_empty() && desk.register.is_waiting());
    let told = desk.register.give_up(at_ms(15_001).0);
    let [told] = &told[..] else { panic!("{told:?}") };
    assert_eq!((told.kind, told.time, told.name.as_deref()), (EventKind::DnsTimeout, at(10).1, Some("lost.example")));
    assert_eq!((dns(&desk, "guest").timeouts, desk.register.is_waiting()), (1, false));
}

#[test]
fn an_answer_counts_only_if_it_was_asked_for() {
    let mut desk = Desk::new();
    let asked = query(7, &wire("www.example"), 1);
    let good = answer(&asked, 0, &[v4(80).into()]);
    asks(&mut desk, &asked, 0);
    answers(&mut desk, &answer(&query(8, &wire("www.example"), 1), 0, &[v4(66).into()]), 1);
    answers(&mut desk, &answer(&query(7, &wire("evil.example"), 1), 0, &[v4(66).into()]), 1);
    answers(&mut desk, &answer(&query(7, &wire("www.example"), 28), 0, &[v4(66).into()]), 1);
    desk.hear("evil", &udp_v4((8, 53), CLIENT, &good), at_ms(1));
    desk.hear("evil", &udp_v4((9, 54), (1, 53), &good), at_ms(1));
    desk.hear("evil", &udp_v4(SERVER, (1, 40_001), &good), at_ms(1));
    assert_eq!((desk.kinds(), dns(&desk, "server").unmatched, dns(&desk, "evil").unmatched), (vec![], 3, 3));
    desk.hear("web", &arp(mac(8), v4(66), v4(9)), at(2));
    assert!(desk.who("198.18.0.66")[0].names.is_empty(), "no name by an answer that nobody asked for");
    desk.told.clear();
    answers(&mut desk, &good, 5);
    assert_eq!(desk.kinds(), [EventKind::DnsAnswer], "the true one still counts");
    // Without a question: id and addresses have to do, and no name is believed.
    asks(&mut desk, &asked, 10);
    answers(&mut desk, &[0, 7, 0x80, 5, 0, 0, 0, 0, 0, 0, 0, 0], 11);
    assert_eq!(desk.told[0].detail.rcode.as_deref(), Some("refused"));
}

#[test]
fn one_that_asks_without_end_pushes_out_its_own_questions_alone() {
    let mut desk = Desk::new();
    desk.hear("other", &udp_v4((2, 40_000), SERVER, &query(7, &wire("a"), 1)), at(0));
    for port in 0..2000 {
        desk.hear("guest", &udp_v4((1, port), SERVER, &query(7, &wire("a"), 1)), at(0));
    }
    assert_eq!((dns(&desk, "guest").evicted, dns(&desk, "other").evicted), (2000 - 512, 0));
    desk.hear("server", &udp_v4(SERVER, (2, 40_000), &answer(&query(7, &wire("a"), 1), 0, &[])), at(1));
    assert_eq!(dns(&desk, "other").answers[0], 1);
}
