//! What would become of a frame: forwarding's own decision over a copy of its tables.

use switch_common::{DropReason, MacAddr, PortId};

use super::{End, Facts, Foresight, Refused};
use crate::api::schema::Side;
use crate::fdb::Learned;
use crate::flow;
use crate::forwarding::{self, Decision, PortView, Verdict};
use crate::frame::{Frame, Offload, Trust};

/// `EtherType` of IPv4; a decision does not depend on it.
const IPV4: [u8; 2] = [0x08, 0x00];

/// A frame of so many bytes from one station to another.
fn frame(source: MacAddr, destination: MacAddr, frame_bytes: u32) -> Vec<u8> {
    let mut bytes = [&destination.0[..], &source.0, &IPV4].concat();
    bytes.resize(usize::try_from(frame_bytes).unwrap_or(bytes.len()).max(bytes.len()), 0);
    bytes
}

/// Decides about such a frame, and forgets it.
pub(super) fn foresee(facts: &Facts, ingress: PortId, sender: &End, receiver: &End, frame_bytes: u32) -> Foresight {
    // A copy of its own: what is learned, and what a flood takes from a bucket, must not weigh on the next question.
    let mut tables = facts.tables.clone();
    let refused = |id: PortId, side, reason: DropReason| Refused {
        port: facts.name_of(id.get()).map(ToString::to_string).unwrap_or_default(),
        side,
        reason: reason.label().to_owned(),
        description: reason.describe().trim().to_owned(),
    };
    let nowhere = |reason, learned: &str, repeatable| Foresight {
        frame_bytes,
        verdict: flow::Verdict::Dropped,
        ports: Vec::new(),
        arrives: false,
        refused: Some(refused(ingress, Side::Ingress, reason)),
        learned: learned.to_owned(),
        repeatable,
    };
    let bytes = frame(sender.mac.0, receiver.mac.0, frame_bytes);
    let trust = tables.port(ingress).map_or(Trust::Guest, |view| view.trust);
    let frame = match Frame::check(&bytes, Offload::default(), trust) {
        Ok(frame) => frame,
        Err(reason) => return nowhere(reason, "nothing", false),
    };
    let Decision { verdict, learned, cacheable } = forwarding::decide(&mut tables, ingress, &frame, facts.now);
    let learned = label(&learned);
    let (verdict, egress): (_, Vec<&PortView>) = match verdict {
        Verdict::Drop(reason) => return nowhere(reason, learned, cacheable),
        Verdict::Forward(egress) => (flow::Verdict::Forwarded, tables.port(egress).into_iter().collect()),
        Verdict::Flood => (flow::Verdict::Flooded, tables.flood_ports(ingress).collect()),
    };
    let (takers, others): (Vec<&PortView>, Vec<&PortView>) =
        egress.into_iter().partition(|view| forwarding::fits(view, &frame));
    let wanted = receiver.port.as_ref().and_then(|name| facts.id_of(name));
    let arrives = takers.iter().any(|view| Some(view.id) == wanted);
    // Who is not where it was asked for gets it where it is.
    let end = others.iter().find(|view| wanted.is_none_or(|wanted| wanted == view.id)).copied();
    let names = takers.iter().filter_map(|view| facts.name_of(view.id.get()).map(ToString::to_string));
    Foresight {
        frame_bytes,
        verdict,
        ports: names.collect(),
        arrives,
        refused: end.filter(|_| !arrives).map(|view| refused(view.id, Side::Egress, DropReason::TooBig)),
        learned: learned.to_owned(),
        repeatable: cacheable,
    }
}

fn label(learned: &Learned) -> &'static str {
    match learned {
        Learned::Known => "known",
        Learned::Added { .. } => "added",
        Learned::Moved { .. } => "moved",
        Learned::Damped => "damped",
        Learned::Static => "static",
        Learned::Refused => "refused",
        Learned::NotLearned => "nothing",
    }
}
