//! The laws, each as two sides and what the right one may be.

use switch_common::{BrainPort, DropCell, DropReason, PortCounters, Tally};

use super::{LawResult, PortNumbers, ReaderNumbers, SessionNumbers, Snapshot};

/// One law applied to one port or to the switch, in one snapshot.
#[derive(Clone, Debug)]
pub(super) struct Sides {
    law: &'static str,
    what: String,
    left: u64,
    right: u64,
    bounds: Bounds,
    note: Option<String>,
}

/// What the right side may be, at rest.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    least: u64,
    most: u64,
    /// Whether `least` holds under traffic too; not when frames may wait between the two sides.
    at_once: bool,
}

impl Bounds {
    /// The right side equals the left one, and follows it at once.
    fn equal(left: u64) -> Self {
        Self { least: left, most: left, at_once: true }
    }
}

impl Sides {
    /// The law in a switch at rest.
    pub(super) fn at_rest(&self) -> LawResult {
        let holds = self.bounds.least <= self.right && self.right <= self.bounds.most;
        self.result(holds)
    }

    /// The law in a switch at work; `self` was read between the other two.
    pub(super) fn at_work(&self, before: &Self, after: &Self) -> LawResult {
        let reached = !self.bounds.at_once || before.bounds.least <= self.right;
        let holds = reached && self.right <= after.bounds.most;
        self.result(holds)
    }

    /// Which law, and what it is applied to: the same in every snapshot.
    pub(super) fn name(&self) -> (&str, &str) {
        (self.law, &self.what)
    }

    fn result(&self, holds: bool) -> LawResult {
        let Self { law, left, right, .. } = *self;
        LawResult { law, what: self.what.clone(), left, right, holds, note: self.note.clone() }
    }
}

/// Every law for every port and for the switch.
pub(super) fn sides(snapshot: &Snapshot) -> Vec<Sides> {
    let ports = snapshot.ports.iter();
    ports
        .flat_map(|port| of_port(port).into_iter().chain(of_flows(port)).chain(of_netdev(port)))
        .chain(snapshot.sessions.iter().flat_map(of_session))
        .chain(snapshot.readers.iter().map(of_reader))
        .chain(of_switch(snapshot))
        .collect()
}

/// Two sides that must be equal, of a port.
fn equal(law: &'static str, name: &str, what: &str, left: u64, right: u64) -> Sides {
    Sides { law, what: format!("{name}: {what}"), left, right, bounds: Bounds::equal(left), note: None }
}

/// By how much a side is less than another one, in words.
fn missing(left: u64, right: u64, words: &str) -> Option<String> {
    (left > right).then(|| format!("{} {words}", left - right))
}

/// L7: what was produced may wait to be fetched.
fn fetched(name: &str, what: &str, produced: u64, delivered_or_lost: u64) -> Sides {
    Sides {
        bounds: Bounds { at_once: false, ..Bounds::equal(produced) },
        note: missing(produced, delivered_or_lost, "not fetched yet"),
        ..equal("L7", name, what, produced, delivered_or_lost)
    }
}

fn of_port(port: &PortNumbers) -> [Sides; 5] {
    let PortNumbers { name, counters, drops, brain, punted, heard, .. } = port;
    let settled_or_lost = brain.settled + brain.unobserved;
    [
        equal(
            "L1",
            name,
            "came in = forwarded + dropped + punted",
            counters.ingress.frames,
            counters.forwarded + frames(&drops.ingress) + punted,
        ),
        Sides {
            bounds: Bounds { at_once: false, ..Bounds::equal(*punted) },
            note: missing(*punted, settled_or_lost, "in flight"),
            ..equal("L1", name, "punted = settled + unobserved", *punted, settled_or_lost)
        },
        equal(
            "L1",
            name,
            "forwarded + flooded + dropped by the brain = settled",
            brain.forwarded + brain.flooded + frames(&brain.ingress_drops),
            brain.settled,
        ),
        equal(
            "L2",
            name,
            "copies = went out + dropped",
            counters.copies + brain.copies,
            counters.egress.frames + frames(&drops.egress) + frames(&brain.egress_drops),
        ),
        fetched(
            name,
            "frames that say who is who = delivered + limited + lost",
            heard.produced,
            heard.delivered + heard.limited + heard.lost,
        ),
    ]
}

/// L4, in frames, bytes and wire frames. Refused before it is accounted: what a port sends that is down, and what is malformed or a
/// bad offload.
fn of_flows(port: &PortNumbers) -> Vec<Sides> {
    let Some(flows) = port.flows else { return Vec::new() };
    let PortCounters { ingress, overflow, unparsable, .. } = port.counters;
    let refused = [DropReason::PortDown, DropReason::Malformed, DropReason::BadOffload]
        .iter()
        .filter_map(|reason| port.drops.ingress.get(*reason as usize))
        .fold(DropCell::default(), |sum, cell| DropCell {
            frames: sum.frames + cell.frames,
            bytes: sum.bytes + cell.bytes,
        });
    let sum = |field: fn(&Tally) -> u64| field(&flows) + field(&overflow) + field(&unparsable);
    let law = |what, left, right| equal("L4", &port.name, what, left, right);
    let extra = law(
        "extra wire frames that came in = of flows + overflow + unparsable",
        ingress.extra_frames,
        sum(|t| t.extra_frames),
    );
    vec![
        law(
            "accepted frames = of flows + overflow + unparsable",
            ingress.frames.saturating_sub(refused.frames),
            sum(|tally| tally.frames),
        ),
        law(
            "accepted bytes = of flows + overflow + unparsable",
            ingress.bytes.saturating_sub(refused.bytes),
            sum(|tally| tally.bytes),
        ),
        // What a refused super-frame weighs on a wire is booked nowhere.
        Sides {
            bounds: if refused.frames == 0 { extra.bounds } else { Bounds { least: 0, ..extra.bounds } },
            note: missing(extra.left, extra.right, "refused"),
            ..extra
        },
    ]
}

/// L5. A difference at ingress is no fault: frames with a cut tag end in the kernel before any program sees them. At
/// egress the kernel may cut super-frames afterwards, a tap's VMM may not have read yet, and a container may be reached
/// past these counters.
fn of_netdev(port: &PortNumbers) -> Vec<Sides> {
    let Some(netdev) = port.netdev else { return Vec::new() };
    let (came_in, went_out) = (port.counters.ingress.frames, port.counters.egress);
    let received = netdev.rx_frames;
    let ingress = Sides {
        bounds: Bounds { least: 0, most: received, at_once: true },
        note: missing(received, came_in, "ended before the reflex"),
        ..equal("L5", &port.name, "the netdev received = came in", received, came_in)
    };
    if netdev.peer_redirected {
        return vec![ingress];
    }
    let handed_on = netdev.tx_frames + netdev.tx_dropped;
    let least = if netdev.has_ring { 0 } else { went_out.frames };
    let egress = Sides {
        bounds: Bounds { least, most: went_out.wire_frames(), at_once: false },
        note: missing(went_out.frames, handed_on, "not transmitted yet")
            .or_else(|| missing(handed_on, went_out.frames, "more after segmentation")),
        ..equal("L5", &port.name, "went out = the netdev transmitted or dropped", went_out.frames, handed_on)
    };
    vec![ingress, egress]
}

/// L6, in frames, bytes and wire frames.
fn of_session(session: &SessionNumbers) -> [Sides; 3] {
    let SessionNumbers { name, matched, delivered, lost } = session;
    let law = |what, left, right| equal("L6", name, what, left, right);
    [
        law("frames matched = delivered + lost", matched.frames, delivered.frames + lost.frames),
        law("bytes matched = delivered + lost", matched.bytes, delivered.bytes + lost.bytes),
        law(
            "wire frames matched = delivered + lost",
            matched.wire_frames(),
            delivered.wire_frames() + lost.wire_frames(),
        ),
    ]
}

/// L6, from where a frame matched to where it was read. What is under way is nowhere yet.
fn of_reader(reader: &ReaderNumbers) -> Sides {
    let ReaderNumbers { name, matched, delivered, lost, passed_over } = reader;
    let notes = [(*lost, "lost"), (*passed_over, "passed over"), (reader.under_way(), "under way")];
    let notes: Vec<_> = notes.iter().filter_map(|(frames, words)| missing(*frames, 0, words)).collect();
    let booked = delivered + lost + passed_over;
    Sides {
        bounds: Bounds { at_once: false, ..Bounds::equal(*matched) },
        note: (!notes.is_empty()).then(|| notes.join(", ")),
        ..equal("L6", name, "frames matched = delivered + lost + passed over", *matched, booked)
    }
}

fn of_switch(snapshot: &Snapshot) -> [Sides; 6] {
    let Snapshot { ports, switch, strangers, evidence, sightings, .. } = snapshot;
    let sum = |field: fn(&BrainPort) -> u64| ports.iter().map(|port| field(&port.brain)).sum::<u64>();
    // Ports that are no more are in the switch's sums, and not in the sum over the ports.
    let covers = |what: &str, left, right| Sides {
        bounds: Bounds { most: u64::MAX, ..Bounds::equal(left) },
        ..equal("L3", "the switch", what, left, right)
    };
    let other = others(&strangers.ingress, &strangers.egress)
        + ports.iter().map(|port| others(&port.drops.ingress, &port.drops.egress)).sum::<u64>()
        + ports.iter().map(|port| others(&port.brain.ingress_drops, &port.brain.egress_drops)).sum::<u64>();
    [
        equal("L3", "the switch", "eligible ports = copies of floods", switch.flood_eligible, switch.flood_copies),
        covers("its ports' eligible ports are in its sum", sum(|port| port.flood_eligible), switch.flood_eligible),
        covers("its ports' copies of floods are in its sum", sum(|port| port.flood_copies), switch.flood_copies),
        fetched("the switch", "evidence = delivered + lost", evidence.produced, evidence.delivered + evidence.lost),
        fetched(
            "the switch",
            "stations that were told of = delivered + lost",
            sightings.produced,
            sightings.delivered + sightings.lost,
        ),
        equal("other", "the switch", "no drop is without a reason of its own", 0, other),
    ]
}

fn frames(cells: &[DropCell]) -> u64 {
    cells.iter().map(|cell| cell.frames).sum()
}

fn others(ingress: &[DropCell], egress: &[DropCell]) -> u64 {
    let of = |cells: &[DropCell]| cells.get(DropReason::Other as usize).map_or(0, |cell| cell.frames);
    of(ingress) + of(egress)
}
