//! Who is busiest: of all that goes on, the few that somebody wants to see whole, by whatever is asked for.
//!
//! With 100,000 conversations each of them is glanced at, and a record is made of those only that are shown. Nothing is
//! allocated for the others; the words that are looked for are compared with ports' names once, and with addresses only where
//! they are in no name.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt::Write as _;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use switch_common::PortId;
use utoipa::ToSchema;

use super::PortNames;
use super::recent::Recent;
use crate::flow::{Carried, FlowKey, Glance, Network, Pace, Ports, Record, Tracker, write_protocol};

/// What conversations are put in the order of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BusiestBy {
    /// Bytes a second, both directions.
    #[default]
    Rate,
    /// Frames a second, both directions.
    FrameRate,
    /// Bytes, both directions.
    Bytes,
    /// Frames, both directions.
    Frames,
    /// Port, address and number of who began.
    Source,
    /// The same of who answered.
    Destination,
    /// Protocol.
    Protocol,
    /// Round trip of the handshake.
    Rtt,
    /// Segments sent again.
    Retransmits,
    /// How long it has gone on.
    Age,
    /// How long nothing was sent.
    Idle,
}

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// In which order.
    pub by: BusiestBy,
    /// The largest, oldest, or last in the alphabet first.
    pub descending: bool,
    /// So many at most.
    pub limit: usize,
    /// Words in lower case, each of which is to be found in ports, stations, addresses or the protocol.
    pub words: Vec<String>,
    /// This conversation only, by the `id` of its records; one that ended not long ago, too.
    pub id: Option<String>,
}

/// A conversation and how busy it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Busy {
    /// What would be said of it if it ended now.
    pub record: Record,
    /// What who began has sent.
    pub forward: Pace,
    /// What was sent back.
    pub reverse: Pace,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Busiest {
    /// When the last sweep was.
    pub swept_at: Timestamp,
    /// All that go on.
    pub total: u64,
    /// Of these, how many are asked for.
    pub matched: u64,
    /// The first of them.
    pub rows: Vec<Busy>,
}

/// A place in the order: a number, or a port's place in the alphabet, an address and a number; then who came first.
type Rank = (u64, u128, u16, u64);

/// Chooses.
pub(super) fn choose(tracker: &Tracker, recent: &Recent, names: &PortNames, switch: &str, wanted: &Wanted) -> Busiest {
    let swept_at = tracker.swept_at();
    if let Some(id) = &wanted.id {
        let rows: Vec<Busy> = one(tracker, recent, names, switch, id).into_iter().collect();
        return Busiest { swept_at, total: tracker.conversations(), matched: rows.len() as u64, rows };
    }
    let mut alphabet = Alphabet::of(names, &wanted.words);
    let (mut total, mut matched) = (0, 0);
    let mut first = First { limit: wanted.limit, descending: wanted.descending, heap: BinaryHeap::new() };
    for glance in tracker.glances() {
        total += 1;
        if alphabet.has_words(&glance, &wanted.words) {
            matched += 1;
            first.offer(alphabet.rank(&glance, wanted.by), glance);
        }
    }
    let whole = |glance: Glance| {
        let record = Record::new(&tracker.at(glance.place)?, switch, names);
        Some(Busy { record, forward: glance.forward, reverse: glance.reverse })
    };
    Busiest { swept_at, total, matched, rows: first.sorted().filter_map(whole).collect() }
}

/// The conversation with this id: as it goes on, or as it was last told.
fn one(tracker: &Tracker, recent: &Recent, names: &PortNames, switch: &str, id: &str) -> Option<Busy> {
    let number = id.rsplit('-').next().and_then(|number| u64::from_str_radix(number, 16).ok());
    let live = tracker.glances().find(|glance| Some(glance.number) == number).and_then(|glance| {
        let record = Record::new(&tracker.at(glance.place)?, switch, names);
        (record.id == id).then_some(Busy { record, forward: glance.forward, reverse: glance.reverse })
    });
    live.or_else(|| {
        let record = recent.newest(id)?.as_ref().clone();
        let told = |frames, bytes| Pace { total: Carried { frames, bytes }, rate: Carried::default() };
        let forward = told(record.forward_wire_frames, record.forward_wire_bytes);
        let reverse = told(record.reverse_wire_frames, record.reverse_wire_bytes);
        Some(Busy { record, forward, reverse })
    })
}

/// What is asked of each port once instead of for each conversation.
struct Alphabet {
    /// By port id: its place in the alphabet, and which words are in its name.
    ports: Vec<(u64, u64)>,
    /// Whether a word may be part of a station's address.
    has_mac: bool,
    /// Where an address is written.
    line: String,
}

/// Words that are compared; what is typed behind them is no news.
pub const WORDS_MAX: usize = 64;

impl Alphabet {
    fn of(names: &PortNames, words: &[String]) -> Self {
        let mut sorted: Vec<(&str, PortId)> = names.all().collect();
        sorted.sort_unstable();
        let mut ports = Vec::new();
        for (place, (name, id)) in (1..).zip(sorted) {
            let at = usize::from(id.get());
            if ports.len() <= at {
                ports.resize(at + 1, (0, 0));
            }
            if let Some(port) = ports.get_mut(at) {
                *port = (place, words_in(&name.to_lowercase(), words));
            }
        }
        let is_mac = |word: &String| word.contains(':') && word.chars().all(|c| c == ':' || c.is_ascii_hexdigit());
        Self { ports, has_mac: words.iter().any(is_mac), line: String::new() }
    }

    fn port(&self, id: Option<PortId>) -> (u64, u64) {
        id.and_then(|id| self.ports.get(usize::from(id.get()))).copied().unwrap_or_default()
    }

    fn has_words(&mut self, glance: &Glance, words: &[String]) -> bool {
        if words.is_empty() {
            return true;
        }
        let all = u64::MAX >> (u64::BITS as usize - words.len().min(WORDS_MAX));
        let named = self.port(Some(glance.key.ingress)).1 | self.port(glance.egress).1;
        if named & all == all {
            return true;
        }
        self.line.clear();
        write_ends(&glance.key, &mut self.line);
        if self.has_mac {
            write!(self.line, " {} {}", glance.key.source, glance.key.destination).expect("a string takes everything");
        }
        (named | words_in(&self.line, words)) & all == all
    }

    fn rank(&self, glance: &Glance, by: BusiestBy) -> Rank {
        let rate = glance.forward.rate.plus(glance.reverse.rate);
        let sums = glance.forward.total.plus(glance.reverse.total);
        let number = |number: u64| (number, 0, 0, glance.number);
        let end = |port: Option<PortId>, end: (u128, u16)| (self.port(port).0, end.0, end.1, glance.number);
        match by {
            BusiestBy::Rate => number(rate.bytes),
            BusiestBy::FrameRate => number(rate.frames),
            BusiestBy::Bytes => number(sums.bytes),
            BusiestBy::Frames => number(sums.frames),
            BusiestBy::Rtt => number(glance.rtt_us.unwrap_or(0)),
            BusiestBy::Retransmits => number(glance.retransmits),
            BusiestBy::Age => number(u64::MAX - glance.began_ns),
            BusiestBy::Idle => number(u64::MAX - glance.last_ns),
            BusiestBy::Source => end(Some(glance.key.ingress), ends(&glance.key).0),
            BusiestBy::Destination => end(glance.egress, ends(&glance.key).1),
            BusiestBy::Protocol => number(protocol(&glance.key)),
        }
    }
}

/// Which of the words are in a text, one bit each.
fn words_in(text: &str, words: &[String]) -> u64 {
    let found = words.iter().take(WORDS_MAX).map(|word| u64::from(text.contains(word.as_str())));
    found.enumerate().fold(0, |all, (bit, found)| all | found << bit)
}

/// Addresses and numbers of both ends, to be put in order.
fn ends(key: &FlowKey) -> ((u128, u16), (u128, u16)) {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    };
    let mac = |mac: switch_common::MacAddr| mac.0.into_iter().fold(0, |high: u128, byte| high << 8 | u128::from(byte));
    match key.network {
        Network::Link { .. } => ((mac(key.source), 0), (mac(key.destination), 0)),
        Network::Ip { source, destination, ports, .. } => match ports {
            Ports::L4 { source: from, destination: to } => ((bits(source), from), (bits(destination), to)),
            Ports::None | Ports::Fragment | Ports::Cut | Ports::Icmp { .. } => {
                ((bits(source), 0), (bits(destination), 0))
            }
        },
    }
}

/// IP's protocols by number, then what is no IP by its EtherType.
fn protocol(key: &FlowKey) -> u64 {
    match key.network {
        Network::Ip { protocol, .. } => u64::from(protocol),
        Network::Link { ethertype } => u64::from(u8::MAX) + u64::from(ethertype),
    }
}

/// Both ends and the protocol as `weft flows` writes them, in lower case, less the ports' names.
fn write_ends(key: &FlowKey, line: &mut String) {
    let end = |line: &mut String, address: IpAddr, number: Option<u16>| match (address, number) {
        (IpAddr::V6(address), Some(number)) => write!(line, "[{address}]:{number} "),
        (address, Some(number)) => write!(line, "{address}:{number} "),
        (address, None) => write!(line, "{address} "),
    };
    let written = match key.network {
        Network::Link { .. } => write!(line, "{} {} ", key.source, key.destination),
        Network::Ip { source, destination, ports, .. } => {
            let numbers =
                if let Ports::L4 { source, destination } = ports { Some((source, destination)) } else { None };
            end(line, source, numbers.map(|(from, _)| from))
                .and_then(|()| end(line, destination, numbers.map(|(_, to)| to)))
        }
    };
    written.and_then(|()| write_protocol(key, line)).expect("a string takes everything");
}

/// The first so many in an order.
struct First {
    limit: usize,
    descending: bool,
    heap: BinaryHeap<Placed>,
}

/// Sorted by rank alone; the last one is on top, and goes first.
struct Placed(Rank, Glance);

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Placed {}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl First {
    fn offer(&mut self, rank: Rank, glance: Glance) {
        let rank = if self.descending { turned(rank) } else { rank };
        if self.heap.len() < self.limit {
            self.heap.push(Placed(rank, glance));
        } else if let Some(mut last) = self.heap.peek_mut().filter(|last| rank < last.0) {
            *last = Placed(rank, glance);
        }
    }

    fn sorted(self) -> impl Iterator<Item = Glance> {
        self.heap.into_sorted_vec().into_iter().map(|Placed(_, glance)| glance)
    }
}

/// The other way round; of equals the older one is first all the same.
fn turned((number, address, port, order): Rank) -> Rank {
    (!number, !address, !port, order)
}
