//! One direction of a conversation at one ingress port: what its entries said last, and what is pending.

use switch_common::flow::{FlowValue, MARK_OPENED, Route};
use switch_common::{DropReason, VERDICT_ARMED, VERDICT_DROP, VERDICT_PUNT};

use super::conversation::Verdict;
use super::counters::Counters;
use super::moment::Moment;
use super::pace::Load;
use super::tcp::TcpFlags;

/// One direction at one ingress port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Half {
    pub(super) ingress: u16,
    pub(super) egress: u16,
    /// Entries that count it now.
    pub(super) entries: u8,
    action: u8,
    route_reason: u8,
    drop_reason: u8,
    /// Flags and marks that were seen, `MARK_OPENED` of the first entry only.
    marks: u32,
    pub(super) first_ns: u64,
    pub(super) last_ns: u64,
    pub(super) ack_ns: u64,
    pub(super) pending: Counters,
    pub(super) load: Load,
}

impl Half {
    pub(super) fn new(ingress: u16, value: &FlowValue) -> Self {
        Self {
            ingress,
            egress: 0,
            entries: 0,
            action: 0,
            route_reason: 0,
            drop_reason: 0,
            marks: value.marks & MARK_OPENED,
            first_ns: value.first_ns,
            last_ns: value.first_ns,
            ack_ns: 0,
            pending: Counters::default(),
            load: Load::default(),
        }
    }

    pub(super) fn absorb(&mut self, value: &FlowValue, delta: &Counters, now: &Moment) {
        let route = Route(value.route);
        // Once it is known where frames go, one that the brain decides about does not make it unknown.
        if route.action() != 0 {
            self.egress = route.egress();
            self.action = route.action() & !(VERDICT_ARMED | VERDICT_PUNT);
            self.route_reason = route.reason();
        }
        self.drop_reason = if delta.dropped_frames > 0 { value.drop_reason } else { self.drop_reason };
        self.marks |= value.marks & !MARK_OPENED;
        self.last_ns = self.last_ns.max(now.ktime_of(value.last_jiffies));
        self.ack_ns = if self.ack_ns == 0 { value.ack_ns() } else { self.ack_ns };
        self.pending.add(delta);
        self.load.add(delta, now);
    }

    pub(super) fn flags(&self) -> TcpFlags {
        TcpFlags(self.marks.to_le_bytes()[0])
    }

    pub(super) fn was(&self, mark: u32) -> bool {
        self.marks & mark != 0
    }

    pub(super) fn verdict(&self) -> Verdict {
        let frames = self.pending.tally.frames;
        let all_dropped = frames > 0 && self.pending.dropped_frames >= frames;
        match self.egress {
            _ if all_dropped || self.action == VERDICT_DROP => Verdict::Dropped,
            0 => Verdict::Flooded,
            _ => Verdict::Forwarded,
        }
    }

    pub(super) fn reason(&self) -> Option<DropReason> {
        if self.pending.dropped_frames > 0 {
            DropReason::from_number(self.drop_reason)
        } else if self.action == VERDICT_DROP {
            DropReason::from_number(self.route_reason)
        } else {
            None
        }
    }
}
