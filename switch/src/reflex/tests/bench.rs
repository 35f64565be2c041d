//! Three guests and a brain, all taps held by the test: what is written comes out within the same call, or not at all.

use switch_common::{
    DropReason, MacAddr, PORT_GUEST_OFFLOADS, PairKey, PairVerdict, PortConfig, PortId, SETTING_PUNT, Settings, Tally,
    VERDICT_FORWARD, Way,
};

use super::books;
use super::lab::{self, Lab, ifindex, run};
use super::tap::Tap;
use crate::reflex::{Adopted, Load, Reflex, VerdictMap};

/// Frames longer than this are too big for any port here.
pub(super) const FRAME_BYTES_MAX: u32 = 1514;

/// The kernel half with three guests on it.
pub(super) struct Bench {
    pub(super) reflex: Reflex,
    pub(super) verdicts: VerdictMap,
    pub(super) guests: Vec<Tap>,
    pub(super) punt: Tap,
}

impl Bench {
    /// Everything attached, no verdict, no brain.
    pub(super) fn new(lab: &Lab) -> Self {
        Self::with_room(lab, Load::default().flows_max)
    }

    /// The same, with room for so many flows over IPv4.
    pub(super) fn with_room(lab: &Lab, flows_max: u32) -> Self {
        Self::with(lab, Load { flows_max, ..Load::default() })
    }

    /// The same, loaded in some way.
    pub(super) fn with(lab: &Lab, how: Load) -> Self {
        let mut guests = Vec::new();
        let (mut reflex, adopted) = lab.open_as(how);
        assert_eq!(adopted, Adopted::Fresh);
        let punt = tap("punt");
        reflex.attach_inject("punt", ifindex("punt")).unwrap();
        for number in 1..=3 {
            let name = format!("guest{number}");
            guests.push(tap(&name));
            let config = PortConfig { ifindex: ifindex(&name), ..open_handed(PORT_GUEST_OFFLOADS) };
            reflex.set_port(id(number), config).unwrap();
            reflex.link(config.ifindex, id(number)).unwrap();
            reflex.attach_port(id(number), &name, config.ifindex).unwrap();
        }
        let verdicts = reflex.verdicts().unwrap();
        let mut bench = Self { reflex, verdicts, guests, punt };
        bench.settings(|settings| settings.flags = 0);
        bench
    }

    /// Changes the settings; before the change they are those of a brain that takes a hundred frames at once.
    pub(super) fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings =
            Settings { punt_ifindex: ifindex("punt"), flags: SETTING_PUNT, punt_in_flight_max: 100, ..lab::settings() };
        change(&mut settings);
        self.reflex.set_settings(settings).unwrap();
    }

    /// Changes a port.
    pub(super) fn port(&mut self, number: u16, change: impl FnOnce(&mut PortConfig)) {
        let mut config = self.reflex.port(id(number)).unwrap();
        change(&mut config);
        self.reflex.set_port(id(number), config).unwrap();
    }

    /// Sets the verdict of a pair of guests: forward, and then what `change` makes of it.
    pub(super) fn decide(&mut self, from: u16, to: u16, change: impl FnOnce(&mut PairVerdict)) {
        let mut verdict = PairVerdict {
            ifindex: ifindex(&format!("guest{to}")),
            frame_bytes_max: FRAME_BYTES_MAX,
            egress: to,
            action: VERDICT_FORWARD,
            ..PairVerdict::default()
        };
        change(&mut verdict);
        self.verdicts.insert(&pair(from, to), &verdict).unwrap();
        self.reflex.brain().bump_generation(from.into());
    }

    /// A guest sends a frame.
    pub(super) fn send(&mut self, from: u16, frame: &[u8]) {
        self.guests[usize::from(from) - 1].send(frame);
    }

    /// What a guest has received.
    pub(super) fn received(&mut self, guest: u16) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.guests[usize::from(guest) - 1].receive()).collect()
    }

    /// Frames and bytes dropped on a port's account.
    pub(super) fn dropped(&self, number: u16, way: Way, reason: DropReason) -> (u64, u64) {
        let drops = self.reflex.drops(id(number)).unwrap();
        let cell = match way {
            Way::Ingress => drops.ingress[reason as usize],
            Way::Egress => drops.egress[reason as usize],
        };
        (cell.frames, cell.bytes)
    }

    /// What came in by a port.
    pub(super) fn ingress(&self, number: u16) -> Tally {
        self.reflex.counters(id(number)).unwrap().ingress
    }

    /// What went out by a port.
    pub(super) fn egress(&self, number: u16) -> Tally {
        self.reflex.counters(id(number)).unwrap().egress
    }

    /// The ledger, of the kernel half alone.
    pub(super) fn balance(&self) {
        balance(&self.reflex, &[1, 2, 3]);
    }
}

/// What came in was forwarded, punted or dropped; what was to go out went, or was dropped.
pub(super) fn balance(reflex: &Reflex, ports: &[u16]) {
    let (counters, drops) = (reflex.all_counters().unwrap(), reflex.all_drops().unwrap());
    for number in ports {
        let (port, drops) = (counters[usize::from(*number)], drops[usize::from(*number)]);
        assert_eq!(port, reflex.counters(id(*number)).unwrap(), "a batch reads what a look-up reads");
        let punted = reflex.buckets(id(*number)).unwrap().punted;
        let refused: u64 = drops.ingress.iter().map(|cell| cell.frames).sum();
        assert_eq!(port.ingress.frames, port.forwarded + punted + refused, "in of port {number}");
        let refused: u64 = drops.egress.iter().map(|cell| cell.frames).sum();
        assert_eq!(port.copies + port.injected, port.egress.frames + refused, "out of port {number}");
        books::balance(reflex, *number, &port, &drops);
    }
}

/// A port that is up and may punt as much as it likes.
fn open_handed(flags: u32) -> PortConfig {
    PortConfig { flags: switch_common::PORT_UP | flags, punt_ahead_ns: 1, group_ahead_ns: 1, ..PortConfig::default() }
}

fn tap(name: &str) -> Tap {
    let tap = Tap::open(name);
    run(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1"));
    run(&format!("ip link set {name} arp off up"));
    tap
}

pub(super) fn id(number: u16) -> PortId {
    PortId::new(number).unwrap()
}

/// A guest's address.
pub(super) fn mac(number: u16) -> MacAddr {
    MacAddr([0x02, 0, 0, 0, 0, number.to_be_bytes()[1]])
}

/// The pair of what goes from one guest to another.
pub(super) fn pair(from: u16, to: u16) -> PairKey {
    PairKey { destination: mac(to).0, source: mac(from).0, ingress: from, vlan: 0 }
}

/// A frame from one guest to another: what stands between the addresses and the payload, and the payload's length.
pub(super) fn frame(from: u16, to: u16, behind_addresses: &[u8], payload_bytes: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..=u8::MAX).cycle().take(payload_bytes).collect();
    [mac(to).0.as_slice(), &mac(from).0, behind_addresses, &payload].concat()
}

/// A type that nobody looks into (IEEE 802, local experimental).
pub(super) const PLAIN: [u8; 2] = [0x88, 0xb5];
