//! Stations that are new or moved, ports that fall silent, wake up, or are in no file.

use super::*;

fn seen(name: &str, last_useful: Option<u64>) -> PortSeen {
    PortSeen { name: name.into(), last_useful: last_useful.map(|secs| at(secs).1), is_unconfigured: false }
}

#[test]
fn a_station_is_new_once_and_moves_whether_the_switch_remembers_it_or_not() {
    let mut register = Register::new(limits());
    let mut see = |port: &str, from: Option<&str>, secs| {
        let event = register.see(mac(1), &port.into(), from.map(Port::from), at(secs).1);
        event.map(|event| (event.kind, event.other_port))
    };
    let moved = |from: &str| Some((EventKind::StationMoved, Some(from.to_owned())));
    assert_eq!(see("a", None, 0), Some((EventKind::NewStation, None)));
    assert_eq!(see("a", None, 1000), None, "it was silent for long, and is no news");
    assert_eq!(see("b", Some("a"), 1001), moved("a"));
    assert_eq!(see("a", None, 5000), moved("b"), "the switch had forgotten it");
    assert_eq!(see("a", Some("c"), 5001), moved("c"), "it was at c, and was not told of");
}

#[test]
fn a_port_is_dormant_once_and_awake_once() {
    let mut register = Register::new(limits());
    let mut look = |last_useful, secs| {
        let events = register.look(&[seen("a", last_useful)], at(secs).1);
        events.into_iter().map(|event| (event.kind, event.detail.silent_secs.unwrap())).collect::<Vec<_>>()
    };
    assert_eq!(look(None, 0), []);
    assert_eq!(look(None, 1000), [], "not longer than allowed");
    assert_eq!(look(None, 1001), [(EventKind::PortDormant, 1001)]);
    assert_eq!(look(None, 3000), []);
    assert_eq!(look(Some(3100), 3101), [(EventKind::PortAwake, 3100)]);
    assert_eq!(look(Some(3100), 4100), []);
    assert_eq!(look(Some(3100), 4101), [(EventKind::PortDormant, 1001)]);
}

#[test]
fn how_long_a_port_was_silent_is_known_after_a_restart() {
    let mut register = Register::new(limits());
    register.look(&[seen("a", Some(10)), seen("b", None)], at(20).1);
    let mut again = Register::new(limits());
    again.restore(serde_json::from_value(serde_json::to_value(register.save()).unwrap()).unwrap());
    let events = again.look(&[seen("a", None), seen("b", Some(900))], at(1100).1);
    assert_eq!(
        events.iter().map(|it| (it.kind, it.port.as_deref())).collect::<Vec<_>>(),
        [(EventKind::PortDormant, Some("a"))]
    );
    assert_eq!(
        again.dormant().map(|(port, is)| (port.to_string(), is)).collect::<Vec<_>>(),
        [("a".to_owned(), true), ("b".to_owned(), false)]
    );
}

#[test]
fn a_port_that_is_in_no_file_is_told_once() {
    let mut register = Register::new(limits());
    let ports = [seen("a", None), PortSeen { is_unconfigured: true, ..seen("b", None) }];
    let events = register.look(&ports, at(0).1);
    assert_eq!(
        events.iter().map(|it| (it.kind, it.port.as_deref())).collect::<Vec<_>>(),
        [(EventKind::PortUnconfigured, Some("b"))]
    );
    assert!(register.look(&ports, at(1).1).is_empty());
    register.look(&ports[..1], at(2).1);
    assert_eq!(register.look(&ports, at(3).1).len(), 1, "it was away, and is new again");
}
