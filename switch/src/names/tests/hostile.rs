//! Whatever a guest writes: no panic, no loop, no growth, nothing that speaks to a terminal; and what etherparse builds is understood.

use std::net::IpAddr;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn question(name: &[u8]) -> Result<String, dns::Malformed> {
    Message::read(&query(1, name, 1)).map(|message| message.question.unwrap().name)
}

#[test]
fn names_are_read_or_refused() {
    let label = |bytes: usize| [&[u8::try_from(bytes).unwrap()][..], &vec![b'a'; bytes]].concat();
    let longest = [label(63), label(63), label(63), label(61), vec![0]].concat();
    let (over, cut) =
        ([label(63), label(63), label(63), label(62), vec![0]].concat(), [label(20), vec![5, b'a']].concat());
    assert_eq!(question(&longest).unwrap().len(), 253);
    for (name, why) in [
        (over, "256 bytes"),
        (vec![0xc0, 12], "a pointer to itself"),
        (vec![0xc0, 14, 0xc0, 12], "two that point to each other"),
        (vec![1, b'a', 0xc0, 12], "a loop with a label"),
        (vec![0xc0, 200], "a pointer forward"),
        (vec![0x40, b'a'], "a label type that is none"),
        (vec![0x80, b'a'], "another"),
        (vec![0xc0], "half a pointer"),
    ] {
        assert_eq!(question(&name), Err(dns::Malformed), "{why}");
    }
    assert_eq!(Message::read(&query(1, &cut, 1)[..30]), Err(dns::Malformed), "cut short");
    assert_eq!(question(&[0]).as_deref(), Ok("."));
    assert_eq!(question(b"\x04a.b\\\x05\x1b[2J\n\x00").as_deref(), Ok("a\\.b\\092.\\027[2j\\010"));
}

#[test]
fn pointers_that_are_right_are_followed_and_those_that_cost_much_cost_little() {
    let asked = query(7, &wire("www.example"), 1);
    let message = Message::read(&answer(&asked, 0, &[v4(80).into()])).unwrap();
    assert_eq!(message.addresses, [IpAddr::from(v4(80))]);
    // As many names as there is room for, each a chain of pointers through all that is before it.
    let mut evil = vec![0, 7, 0x80, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 1, b'a', 0];
    evil[7] = 0xff;
    while evil.len() < 384 {
        let target = u16::try_from(evil.len() - 3).unwrap_or(12).max(12);
        evil.extend((0xc000 | target).to_be_bytes());
        evil.extend([0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
    let began = Instant::now();
    for _ in 0..10_000 {
        Message::read(&evil).unwrap();
    }
    assert!(began.elapsed().as_secs() < 5, "{:?} for 10,000", began.elapsed());
}

fn is_printable(events: &[Event]) -> bool {
    events.iter().all(|event| event.sentence().bytes().all(|byte| (b' '..=b'~').contains(&byte)))
}

proptest! {
    #[test]
    fn any_bytes_are_heard_without_harm(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..20)) {
        let mut desk = Desk::new();
        for frame in &frames {
            desk.hear("a", frame, at(0));
        }
        prop_assert!(is_printable(&desk.told));
    }

    /// What is right up to where it begins to be the guest's: cut anywhere, and with any byte changed.
    #[test]
    fn frames_that_are_nearly_right_are_heard_without_harm(
        which in 0_usize..6,
        name in prop::collection::vec(any::<u8>(), 1..63),
        cut in 0_usize..400,
        at_byte in 0_usize..400,
        byte in any::<u8>(),
    ) {
        let label = [&[u8::try_from(name.len()).unwrap()][..], &name, &[0]].concat();
        let asked = query(7, &label, 1);
        let frames = [
            udp_v4((1, 40_000), (9, 53), &asked),
            udp_v4((9, 53), (1, 40_000), &answer(&asked, 0, &[v4(1).into(), v4(2).into()])),
            arp(mac(1), v4(1), v4(2)),
            icmpv6(mac(1), v6(1), 255, &[&[136, 0, 0, 0, 0, 0, 0, 0][..], &v6(3), &[2, 1, 2, 0, 0, 0, 0, 3]].concat()),
            udp_v4((1, 68), (255, 67), &name),
            udp_v4((1, 546), (255, 547), &name),
        ];
        let mut frame = frames[which].clone();
        frame.truncate(cut.max(1));
        let place = at_byte % frame.len();
        frame[place] = byte;
        let mut desk = Desk::new();
        desk.hear("a", &frames[0], at(0)).hear("a", &frame, at(1)).hear("b", &frame, at(2));
        let printable = is_printable(&desk.told);
        prop_assert!(printable);
        desk.register.give_up(at(100).0);
        let text = serde_json::to_string(&desk.register.save()).unwrap();
        prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }

    /// A shelf holds no more than it has room for, and its orders are those of its entries.
    #[test]
    fn a_shelf_never_outgrows_its_room(steps in prop::collection::vec((0_u8..4, 0_u16..60, any::<bool>()), 0..400)) {
        let mut shelf = shelf::Shelf::new(shelf::Room { total: 20, per_port: 8 });
        for (port, key, touches) in steps {
            if touches {
                shelf.touch(&key);
            } else {
                shelf.insert(port.to_string().into(), key, ());
            }
            prop_assert!(shelf.len() <= 20 && shelf.in_order().count() == shelf.len());
        }
    }
}
