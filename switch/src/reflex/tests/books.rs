//! The flow table as a test reads it, and law L4: what a port accepted is what its flows, those freed among them, its overflow
//! and what could not be parsed add up to, in frames, bytes and wire frames.

use std::collections::HashMap;

use switch_common::flow::{FLOW_ALTERNATE, FlowValue};
use switch_common::{DropReason, PortCounters, PortDrops, Tally};

use super::bench::{Bench, id};
use crate::flow::RawKey;
use crate::reflex::{DeadFlows, Reflex, tally};

/// All flows.
pub(super) fn flows(reflex: &Reflex) -> HashMap<RawKey, FlowValue> {
    let (mut all, mut six) = (HashMap::new(), Vec::new());
    reflex
        .flows()
        .read(
            |key, value| assert!(all.insert(RawKey::V4(*key), *value).is_none(), "{key:?} is named twice"),
            |key, value| six.push((RawKey::V6(*key), *value)),
        )
        .unwrap();
    for (key, value) in six {
        assert!(all.insert(key, value).is_none(), "{key:?} is named twice");
    }
    all
}

/// A key with its life bit turned.
pub(super) fn other_life(mut key: RawKey) -> RawKey {
    match &mut key {
        RawKey::V4(key) => key.pair.ingress ^= FLOW_ALTERNATE,
        RawKey::V6(key) => key.pair.ingress ^= FLOW_ALTERNATE,
    }
    key
}

/// A tally of ordinary frames.
pub(super) fn plain(frames: u64, bytes: u64) -> Tally {
    Tally { frames, bytes, ..Tally::default() }
}

impl Bench {
    /// All flows.
    pub(super) fn flows(&self) -> HashMap<RawKey, FlowValue> {
        flows(&self.reflex)
    }

    /// The one flow there is.
    pub(super) fn flow(&self) -> (RawKey, FlowValue) {
        let flows = self.flows();
        assert_eq!(flows.len(), 1, "{flows:?}");
        flows.into_iter().next().unwrap()
    }

    /// Deletes flows as the observer does.
    pub(super) fn free(&self, keys: impl IntoIterator<Item = RawKey>) {
        let (flows, mut dead) = (self.flows(), DeadFlows::default());
        for key in keys {
            match key {
                RawKey::V4(four) => dead.v4.push((four, flows[&key])),
                RawKey::V6(six) => dead.v6.push((six, flows[&key])),
            }
        }
        self.reflex.flows().free(&dead, &self.reflex.brain()).unwrap();
    }

    /// What of a port's found no room.
    pub(super) fn overflow(&self, number: u16) -> Tally {
        self.reflex.counters(id(number)).unwrap().overflow
    }
}

/// L4 for one port, and that its quota counts what is there.
pub(super) fn balance(reflex: &Reflex, number: u16, port: &PortCounters, drops: &PortDrops) {
    let brain = reflex.brain();
    let totals = reflex.flows().totals(&brain).unwrap();
    let mut accounted = totals.get(&number).copied().unwrap_or_default();
    accounted.add(&port.overflow);
    accounted.add(&port.unparsable);
    let refused = [DropReason::PortDown, DropReason::Malformed, DropReason::BadOffload];
    for reason in refused {
        let cell = drops.ingress[reason as usize];
        accounted.add(&plain(cell.frames, cell.bytes));
    }
    // Drops are not weighed as a wire would: what a port that is down had to send of super-frames is not known.
    let mut accepted = port.ingress;
    if drops.ingress[DropReason::PortDown as usize].frames > 0 {
        accepted = plain(accepted.frames, accepted.bytes);
        accounted = plain(accounted.frames, accounted.bytes);
    }
    assert_eq!(accounted, accepted, "L4 of port {number}");
    let flows = flows(reflex);
    let there = flows.keys().filter(|key| key.ingress() == number).count() as u64;
    let freed = brain.port(usize::from(number)).flows_freed.get();
    assert_eq!(reflex.buckets(id(number)).unwrap().flows_used - freed, there, "flows of port {number}");
    let weighed: u64 =
        flows.iter().filter(|(key, _)| key.ingress() == number).map(|(_, flow)| tally(flow).frames).sum();
    assert!(weighed <= port.ingress.frames, "flows of port {number} have more frames than came in");
}
