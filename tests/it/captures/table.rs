//! A flow table in memory, by the rules that the kernel half goes by; and our own parser's answer in its terms.

use std::collections::HashMap;

use switch_common::Tally;
use switch_common::flow::{
    FLOW_ALTERNATE, FlowKey4, FlowKey6, FlowPair, KIND_IPV6, KIND_MASK, TCP_FIN, TCP_RST, TCP_SYN, Unparsable, parse,
};
use weft::flow::RawKey;

/// A flow as tables are compared: what it counted, and the TCP flags seen.
pub(super) type Flow = (Tally, u8);

/// A tuple's two lives.
#[derive(Default)]
struct Lives {
    flags: Vec<u8>,
    closed: Vec<bool>,
}

impl Lives {
    /// The life that a frame is of; none when both have ended.
    fn of(&mut self, syn: bool) -> Option<usize> {
        for life in 0..2 {
            let Some(flags) = self.flags.get(life) else {
                self.flags.push(0);
                self.closed.push(false);
                return Some(life);
            };
            if syn && flags & (TCP_FIN | TCP_RST) != 0 {
                self.closed[life] = true;
            }
            if !self.closed[life] {
                return Some(life);
            }
        }
        None
    }
}

/// What the kernel's table should be.
#[derive(Default)]
pub(super) struct Table {
    /// The flows.
    pub(super) flows: HashMap<RawKey, Flow>,
    /// Frames of tuples whose lives have both ended.
    pub(super) overflow: Tally,
    /// Frames without a flow.
    pub(super) unparsable: Tally,
    lives: HashMap<RawKey, Lives>,
}

impl Table {
    /// Accounts a frame.
    pub(super) fn add(&mut self, flow: Option<(RawKey, Option<u8>)>, bytes: usize) {
        let tally = Tally { frames: 1, bytes: bytes as u64, ..Tally::default() };
        let Some((key, flags)) = flow else { return self.unparsable.add(&tally) };
        let flags = flags.unwrap_or(0);
        let lives = self.lives.entry(key).or_default();
        let Some(life) = lives.of(flags & TCP_SYN != 0) else { return self.overflow.add(&tally) };
        lives.flags[life] |= flags;
        let (sum, seen) = self.flows.entry(if life == 0 { key } else { alternate(key) }).or_default();
        sum.add(&tally);
        *seen |= flags;
    }
}

fn alternate(mut key: RawKey) -> RawKey {
    match &mut key {
        RawKey::V4(key) => key.pair.ingress |= FLOW_ALTERNATE,
        RawKey::V6(key) => key.pair.ingress |= FLOW_ALTERNATE,
    }
    key
}

/// The flow of a frame that came in by port 1, by `switch_common`'s parser over the whole frame.
pub(super) fn ours(frame: &[u8]) -> Result<(RawKey, Option<u8>), Unparsable> {
    let parsed = parse(frame, u32::try_from(frame.len()).unwrap_or(u32::MAX), false)?;
    let at = |at: usize| frame.get(at..).unwrap_or_default();
    let take = |from: usize| at(from).first_chunk().copied().unwrap_or_default();
    let pair = FlowPair { destination: take(0), source: take(6), ingress: 1, outer: parsed.outer };
    let (tail, from) = (parsed.tail, parsed.addresses_at);
    let flags = parsed.tcp.map(|tcp| tcp.flags);
    let wide = |from: usize| at(from).first_chunk::<16>().copied().unwrap_or_default();
    let narrow = |from: usize| at(from).first_chunk::<4>().copied().unwrap_or_default();
    let key = match tail.kind & KIND_MASK {
        KIND_IPV6 => {
            RawKey::V6(FlowKey6 { pair, source_address: wide(from), destination_address: wide(from + 16), tail })
        }
        _ if from == 0 => RawKey::V4(FlowKey4 { pair, tail, ..FlowKey4::default() }),
        _ => RawKey::V4(FlowKey4 { pair, source_address: narrow(from), destination_address: narrow(from + 4), tail }),
    };
    Ok((key, flags))
}
