//! A naive twin of the decision, and random steps that both must answer alike.
//!
//! The twin walks plain lists and keeps its flood buckets as tokens, so that it shares no line with what it judges.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fdb::twin::{Twin as FdbTwin, limits, pauses, ports, sorted, stations};
use crate::frame::Offload;

const VLAN: VlanId = VlanId(0);

/// Nanoseconds' worth of flooding that a port may still cause, and when that was reckoned.
#[derive(Clone, Copy)]
struct Tokens {
    nanos: i128,
    at: Nanos,
}

struct Twin {
    fdb: FdbTwin,
    ports: Vec<(PortView, [Tokens; 2])>,
}

fn full(view: &PortView, at: Nanos) -> Tokens {
    let per_sec = u64::from(view.flood_per_sec);
    Tokens { nanos: (1_000_000_000_u64.checked_div(per_sec).unwrap_or(0) * per_sec).into(), at }
}

impl Twin {
    fn view(&self, id: PortId) -> Option<&PortView> {
        self.ports.iter().map(|(view, _)| view).find(|view| view.id == id)
    }

    fn set_port(&mut self, view: PortView, now: Nanos) -> Vec<Station> {
        let limit = if view.role == Role::Uplink { None } else { view.station_limit };
        let mut gone = limit.map_or_else(Vec::new, |limit| self.fdb.trim(view.id, limit));
        if self.view(view.id).is_some_and(|old| old.macs != view.macs) {
            gone.extend(self.fdb.flush(Some(view.id), true));
        }
        let mut tokens = [full(&view, now); 2];
        if let Some(at) = self.ports.iter().position(|(old, _)| old.id == view.id) {
            let (old, left) = self.ports.remove(at);
            if old.flood_per_sec == view.flood_per_sec {
                tokens = left;
            }
        }
        self.ports.push((view, tokens));
        gone
    }

    fn remove_port(&mut self, id: PortId) -> Vec<Station> {
        self.ports.retain(|(view, _)| view.id != id);
        self.fdb.flush(Some(id), false)
    }

    fn flood_ports(&self, ingress: PortId) -> Vec<u16> {
        let mut ids: Vec<u16> =
            self.ports.iter().filter(|(view, _)| view.up && view.carrier).map(|(view, _)| view.id.get()).collect();
        ids.retain(|id| *id != ingress.get());
        ids.sort_unstable();
        ids
    }

    fn flood(&mut self, ingress: PortId, kind: usize, weight: u64, now: Nanos) -> Verdict {
        if self.flood_ports(ingress).is_empty() {
            return Verdict::Drop(DropReason::NoEgress);
        }
        let limited = Verdict::Drop(DropReason::FloodLimited);
        let Some((view, tokens)) = self.ports.iter_mut().find(|(view, _)| view.id == ingress) else { return limited };
        let Some(interval) = 1_000_000_000_u64.checked_div(u64::from(view.flood_per_sec)) else { return limited };
        let most = full(view, now).nanos;
        let Some(bucket) = tokens.get_mut(kind) else { return limited };
        bucket.nanos = most.min(bucket.nanos + i128::from(now.0 - bucket.at.0));
        bucket.at = now;
        if bucket.nanos < interval.into() {
            return limited;
        }
        bucket.nanos -= i128::from(interval * weight);
        Verdict::Flood
    }

    fn decide(&mut self, ingress: PortId, frame: &Frame<'_>, now: Nanos) -> Decision {
        let refuse =
            |reason, cacheable| Decision { verdict: Verdict::Drop(reason), learned: Learned::NotLearned, cacheable };
        let (source, destination) = (frame.source(), frame.destination());
        let Some(view) = self.view(ingress).cloned() else { return refuse(DropReason::PortDown, false) };
        if !view.up {
            return refuse(DropReason::PortDown, false);
        }
        if source.is_zero() || source.is_group() {
            return refuse(DropReason::GroupSource, true);
        }
        if !view.macs.is_empty() && !view.macs.contains(&source) {
            return refuse(DropReason::SpoofedSource, true);
        }
        if destination.to_string().starts_with("01:80:c2:00:00:0") {
            return refuse(DropReason::ReservedAddress, true);
        }
        let limit = if view.role == Role::Uplink { None } else { view.station_limit };
        let learned = self.fdb.learn(source, ingress, limit, now);
        if learned == Learned::Refused {
            return Decision { verdict: Verdict::Drop(DropReason::StationLimit), learned, cacheable: false };
        }
        let verdict = match self.fdb.lookup(destination) {
            _ if destination.is_group() => self.flood(ingress, 0, frame.wire_frames(), now),
            None => self.flood(ingress, 1, frame.wire_frames(), now),
            Some(egress) if egress == ingress => Verdict::Drop(DropReason::Hairpin),
            Some(egress) if self.view(egress).is_some_and(|view| view.up && view.carrier) => Verdict::Forward(egress),
            Some(_) => Verdict::Drop(DropReason::PortDown),
        };
        let of_the_pair = matches!(verdict, Verdict::Forward(_) | Verdict::Drop(DropReason::Hairpin));
        let lives_here = self.fdb.lookup(source) == Some(ingress);
        Decision { verdict, learned, cacheable: of_the_pair && lives_here }
    }
}

/// One thing that may happen to a switch.
#[derive(Clone, Debug)]
enum Step {
    Frame { ingress: PortId, source: MacAddr, destination: MacAddr, weight: u16 },
    SetPort(PortView),
    RemovePort(PortId),
    Age,
    Pin(MacAddr, PortId),
    Unpin(MacAddr),
}

fn destinations() -> impl Strategy<Value = MacAddr> {
    prop_oneof![
        10 => stations(),
        1 => (0..=0x10_u8).prop_map(|last| MacAddr([1, 0x80, 0xc2, 0, 0, last])),
        1 => Just(MacAddr([0x33, 0x33, 0, 0, 0, 1])),
    ]
}

fn views() -> impl Strategy<Value = PortView> {
    let role = prop_oneof![3 => Just(Role::Guest), 1 => Just(Role::Uplink)];
    let macs = prop_oneof![3 => Just(Vec::new()), 1 => vec(stations(), 0..20)];
    let limit = prop_oneof![1 => Just(None), 2 => (0..8_u32).prop_map(Some)];
    let rate = prop_oneof![Just(0_u32), Just(1), Just(3), Just(20), Just(2000)];
    (ports(), (prop::bool::weighted(0.8), prop::bool::weighted(0.9)), role, macs, limit, rate).prop_map(
        |(id, (up, carrier), role, macs, station_limit, flood_per_sec)| PortView {
            id,
            up,
            carrier,
            role,
            macs,
            station_limit,
            flood_per_sec,
            frame_bytes_max: 1514,
            trust: Trust::Kernel,
        },
    )
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        80 => (ports(), stations(), destinations(), 1..=3_u16).prop_map(|(ingress, source, destination, weight)| {
            Step::Frame { ingress, source, destination, weight }
        }),
        5 => views().prop_map(Step::SetPort),
        1 => ports().prop_map(Step::RemovePort),
        5 => Just(Step::Age),
        2 => (stations(), ports()).prop_map(|(mac, port)| Step::Pin(mac, port)),
        3 => stations().prop_map(Step::Unpin),
    ]
}

/// Both decide about the same frame; what can be repeated is, and must come out the same.
fn frame(step: &Step, tables: &mut Tables, twin: &mut Twin, now: Nanos) -> Result<(), TestCaseError> {
    let Step::Frame { ingress, source, destination, weight } = *step else { return Ok(()) };
    let mut bytes = [&destination.0[..], &source.0[..], &[0x88, 0xb5]].concat();
    bytes.resize(14 + 100 * usize::from(weight), 0);
    let frame = Frame::check(&bytes, Offload::segment(1, 100), Trust::Kernel)
        .map_err(|reason| TestCaseError::fail(reason.label()))?;
    prop_assert_eq!(frame.wire_frames(), u64::from(weight));
    let decision = decide(tables, ingress, &frame, now);
    prop_assert_eq!(decision, twin.decide(ingress, &frame, now));
    let flood: Vec<u16> = tables.flood_ports(ingress).map(|view| view.id.get()).collect();
    prop_assert_eq!(&flood, &twin.flood_ports(ingress));
    match decision.verdict {
        Verdict::Forward(egress) => {
            prop_assert!(egress != ingress && flood.contains(&egress.get()), "to one other port that is up");
        }
        Verdict::Flood => prop_assert!(!flood.is_empty() && !flood.contains(&ingress.get())),
        Verdict::Drop(_) => {}
    }
    if decision.cacheable {
        let again = decide(tables, ingress, &frame, now);
        prop_assert_eq!(again, twin.decide(ingress, &frame, now));
        prop_assert_eq!((again.verdict, again.cacheable), (decision.verdict, true));
    }
    Ok(())
}

fn take(step: Step, tables: &mut Tables, twin: &mut Twin, now: Nanos) -> Result<(), TestCaseError> {
    match step {
        Step::Frame { .. } => frame(&step, tables, twin, now)?,
        Step::SetPort(view) => prop_assert_eq!(sorted(tables.set_port(view.clone())), sorted(twin.set_port(view, now))),
        Step::RemovePort(id) => prop_assert_eq!(sorted(tables.remove_port(id)), twin.remove_port(id)),
        Step::Age => {
            let mut idle = Vec::new();
            tables.fdb.idle(now, &mut idle);
            prop_assert_eq!(&idle, &twin.fdb.idle(now));
            for station in idle {
                prop_assert!(tables.fdb.expire(station.vlan, station.mac));
                twin.fdb.remove(station.mac);
            }
        }
        Step::Pin(mac, port) => {
            prop_assert_eq!(tables.fdb.add_static(VLAN, mac, port, now), twin.fdb.add_static(mac, port, now));
        }
        Step::Unpin(mac) => prop_assert_eq!(tables.fdb.remove(VLAN, mac), twin.fdb.remove(mac)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(120) })]

    /// 120 × 500 steps.
    #[test]
    fn the_switch_decides_as_its_naive_twin(
        limits in limits(), first in vec(views(), 4), story in vec((pauses(), steps()), 500),
    ) {
        let mut now = Nanos(7_000_000_000);
        let mut tables = Tables::new(limits);
        let mut twin = Twin { fdb: FdbTwin::new(limits), ports: Vec::new() };
        for view in first {
            take(Step::SetPort(view), &mut tables, &mut twin, now)?;
        }
        for (pause, step) in story {
            now = now + pause;
            take(step, &mut tables, &mut twin, now)?;
            prop_assert_eq!(sorted(tables.fdb.iter().copied().collect()), twin.fdb.all());
        }
    }
}
